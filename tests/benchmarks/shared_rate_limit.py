"""How far a push uses its share of the vendor's rate limit, by one process and by four."""

import subprocess
import sys
from pathlib import Path

from tests.benchmarks.bench_environment import BenchEnvironment, SandboxProcess
from tests.benchmarks.report import Figure, Section

_REQUESTS = 100
_FOR_CREATES = 70
_PERIOD_S = 20
_PERIODS = 3
_PROCESSES = (1, 4)


def measure_rate_limit(bench: BenchEnvironment, _: int, __: int) -> list[Section]:
    """Measure the use under a backlog that outlasts the measured periods, without any 429."""
    figures = [_measure_shared_use(bench, processes) for processes in _PROCESSES]
    return [
        Section(
            title="The vendor's rate limit under load",
            conditions=f"{_REQUESTS} requests in any {_PERIOD_S} s, of which {_FOR_CREATES} may be"
            f" creates, over {_PERIODS} of these"
            " periods; single leads, so that a push waits for the rate limit alone. A slot is kept"
            f" busy for 1/40 longer than the period, which leaves {1 / (1 + 1 / 40):.1%}.",
            figures=figures,
        )
    ]


def _measure_shared_use(bench: BenchEnvironment, processes: int) -> Figure:
    amount = _FOR_CREATES * (_PERIODS + 1)
    bench.reset_leads(amount)
    bench.load_leads()
    limit = f"{_REQUESTS}/{_PERIOD_S}"
    with bench.run_sandbox(rate_limit=limit) as sandbox:
        command = [str(Path(sys.executable).parent / "leadloop"), "push"]
        environment = bench.build_environment(sandbox, RATE_LIMIT=limit, BATCH_SIZE="1")
        running = [
            subprocess.Popen(
                command,
                env=environment,
                cwd=bench.directory,
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
        used, refused = _measure_use(sandbox)
    return Figure(
        what=f"{processes} process{'es' if processes > 1 else ''}",
        measured=f"{used:.1%} of the {_FOR_CREATES} used, {refused} times 429",
        target="≥ 97 %, no 429",
        met=used >= 0.97 and not refused,
    )


def _measure_use(sandbox: SandboxProcess) -> tuple[float, int]:
    log = sandbox.fetch_requests()
    began = log[0]["arrived"]
    within = [e for e in log if e["arrived"] < began + _PERIOD_S * _PERIODS]
    assert len(within) < len(log), "the load did not last"
    assert sandbox.fetch_busiest(_PERIOD_S) <= _REQUESTS
    return len(within) / (_FOR_CREATES * _PERIODS), sum(e["status"] == 429 for e in log)
