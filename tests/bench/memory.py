"""Peak memory, which must not grow with the backlog."""

from tests.bench.report import Figure, Section
from tests.bench.stage import Stage, outcomes

_FEW = 10_000
_MANY = 1_000_000


def memory(stage: Stage, _: int, __: int) -> list[Section]:
    """Push and poll of a hundred times as many leads."""
    few, many = _peaks(stage, _FEW), _peaks(stage, _MANY)
    figures = []
    for name in few:
        ratio = many[name] / few[name]
        figures += [
            Figure(what=f"{name}, {_FEW:,} leads", measured=_told(few[name]), ratio="1"),
            Figure(
                what=f"{name}, {_MANY:,} leads",
                measured=_told(many[name]),
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


def _peaks(stage: Stage, amount: int) -> dict[str, int]:
    stage.renew(amount)
    stage.load()
    stage.settle()
    with stage.vendor() as vendor:
        push = stage.leadloop(vendor, "push")
        assert push.said["created"] == amount
        processed, _began, _end = outcomes(amount)
        vendor.put(processed)
        poll = stage.leadloop(vendor, "poll")
        assert poll.said["inserted"] == amount
    return {"push": push.peak, "poll": poll.peak}


def _told(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
