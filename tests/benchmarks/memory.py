"""Peak memory, which must not grow with the backlog."""

from tests.benchmarks.bench_environment import BenchEnvironment, generate_outcomes
from tests.benchmarks.report import Figure, Section

_FEW = 10_000
_MANY = 1_000_000


def measure_memory(bench: BenchEnvironment, _: int, __: int) -> list[Section]:
    """Compare the peaks of push and poll for a backlog and one a hundred times as large."""
    few, many = _measure_peaks(bench, _FEW), _measure_peaks(bench, _MANY)
    figures = []
    for name in few:
        ratio = many[name] / few[name]
        figures += [
            Figure(what=f"{name}, {_FEW:,} leads", measured=_format_size(few[name]), ratio="1"),
            Figure(
                what=f"{name}, {_MANY:,} leads",
                measured=_format_size(many[name]),
                ratio=f"{ratio:.2f}",
                target="≤ 1.1",
                met=ratio <= 1.1,
            ),
        ]
    conditions = (
        "The largest resident set of the process that runs the flow (ru_maxrss), without"
        " MALLOC_ARENA_MAX."
    )
    return [Section(title="Peak memory", conditions=conditions, figures=figures)]


def _measure_peaks(bench: BenchEnvironment, amount: int) -> dict[str, int]:
    bench.reset_leads(amount)
    bench.load_leads()
    bench.vacuum()
    with bench.run_sandbox() as sandbox:
        push = bench.run_leadloop(sandbox, "push")
        assert push.output["created"] == amount
        processed, _began, _end = generate_outcomes(amount)
        sandbox.put_outcomes(processed)
        poll = bench.run_leadloop(sandbox, "poll")
        assert poll.output["inserted"] == amount
    return {"push": push.peak_bytes, "poll": poll.peak_bytes}


def _format_size(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
