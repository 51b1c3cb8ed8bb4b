"""How much of the vendor's budget is used under load, by one process and by four."""

import subprocess
import sys
from pathlib import Path

from tests.bench.report import Figure, Section
from tests.bench.stage import Stage, Vendor

_REQUESTS = 100
_PERIOD_S = 20
_PERIODS = 3
_PROCESSES = (1, 4)


def budget(stage: Stage, _: int, __: int) -> list[Section]:
    """A backlog that lasts for longer than what is judged; no 429 is allowed."""
    figures = [_shared(stage, processes) for processes in _PROCESSES]
    return [
        Section(
            title="The vendor's budget under load",
            conditions=f"{_REQUESTS} requests in any {_PERIOD_S} s, over {_PERIODS} of these"
            " periods; single leads, so that the budget is what a push waits for. A slot is kept"
            f" busy for 1/40 longer than the period, which leaves {1 / (1 + 1 / 40):.1%}.",
            figures=figures,
        )
    ]


def _shared(stage: Stage, processes: int) -> Figure:
    amount = _REQUESTS * (_PERIODS + 1)
    stage.renew(amount)
    stage.load()
    limit = f"{_REQUESTS}/{_PERIOD_S}"
    with stage.vendor(rate_limit=limit) as vendor:
        command = [str(Path(sys.executable).parent / "leadloop"), "push"]
        environment = stage.environment(vendor, RATE_LIMIT=limit, BATCH_SIZE="1")
        running = [
            subprocess.Popen(
                command,
                env=environment,
                cwd=stage.directory,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for _ in range(processes)
        ]
        try:
            assert [process.wait() for process in running] == [0] * processes
        finally:
            for process in running:
                process.kill()
        used, refused = _judged(vendor)
    return Figure(
        what=f"{processes} process{'es' if processes > 1 else ''}",
        measured=f"{used:.1%} used, {refused} times 429",
        target="≥ 97 %, no 429",
        met=used >= 0.97 and not refused,
    )


def _judged(vendor: Vendor) -> tuple[float, int]:
    log = vendor.requests()
    began = log[0]["arrived"]
    within = [e for e in log if e["arrived"] < began + _PERIOD_S * _PERIODS]
    assert len(within) < len(log), "the load did not last"
    assert vendor.busiest(_PERIOD_S) <= _REQUESTS
    return len(within) / (_REQUESTS * _PERIODS), sum(e["status"] == 429 for e in log)
