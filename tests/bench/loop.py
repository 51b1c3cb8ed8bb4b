"""Push and poll against the floor, the peers and the tutorial."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import mean

from tests.bench.report import Figure, Section, ratios, times
from tests.bench.stage import CAMPAIGN, Stage, Vendor, outcomes
from tests.bench.yardsticks import DLT, DRT, FLOOR, SINGER, TUTORIAL, Yardstick

#: Seconds in which a vendor across the internet answers; at 0 the sandbox answers in some 2 ms.
_LATENCIES = (0.0, 0.1)
_TUTORIAL_LEADS = 200
#: How many times as long as leadloop a poll by these should take.
_AT_LEAST = {"dlt": 5.0, "singer": 3.0}
Seconds = Mapping[str, Sequence[float]]


def push(stage: Stage, amount: int, turns: int) -> list[Section]:
    """Batches of 100, with claims, states and budget kept."""
    sections = []
    for latency in _LATENCIES:
        peers = (DLT, DRT) if latency == 0 else (DLT,)
        taken: defaultdict[str, list[float]] = defaultdict(list)
        for _ in range(turns):
            with stage.vendor(latency=latency) as vendor:
                _push_turn(stage, vendor, amount, peers, taken)
        figures = [
            _floor(taken),
            _ours(taken, "leadloop push", bound=1.5),
            *(_peer(taken, peer) for peer in peers),
        ]
        if latency == 0:
            figures.append(_tutorial(stage, amount, taken["leadloop"]))
        sections.append(
            Section(
                title=f"Push, {_told(latency)}",
                conditions=f"{amount:,} leads in batches of 100, {turns} turns, 4 requests at once,"
                " start-up aside.",
                figures=figures,
            )
        )
    return sections


def poll(stage: Stage, amount: int, turns: int) -> list[Section]:
    """Outcomes with two attempts each, pages of 100, to typed tables."""
    sections = []
    for latency in _LATENCIES:
        peers = (DLT, SINGER) if latency == 0 else (DLT,)
        taken: defaultdict[str, list[float]] = defaultdict(list)
        for _ in range(turns):
            with stage.vendor(latency=latency) as vendor:
                _poll_turn(stage, vendor, amount, peers, taken)
        figures = [
            _floor(taken),
            _ours(taken, "leadloop poll", bound=1.3),
            *(_peer(taken, peer, at_least=_AT_LEAST[peer.name]) for peer in peers),
        ]
        sections.append(
            Section(
                title=f"Poll, {_told(latency)}",
                conditions=f"{amount:,} outcomes with two attempts each, pages of 100, {turns}"
                " turns, 4 requests at once, start-up aside.",
                figures=figures,
            )
        )
    return sections


def _push_turn(
    stage: Stage,
    vendor: Vendor,
    amount: int,
    peers: Sequence[Yardstick],
    taken: Mapping[str, list[float]],
) -> None:
    stage.renew(amount)
    stage.load()
    before = FLOOR.run(stage, vendor, "push", campaign="floor").said["seconds"]
    stage.leadloop(vendor, "push")
    taken["leadloop"].append(stage.seconds("push-leads"))
    after = FLOOR.run(stage, vendor, "push", campaign="floor again").said["seconds"]
    taken["floor"].append(mean((before, after)))
    for peer in peers:
        taken[peer.name].append(peer.run(stage, vendor, "push", campaign=peer.name).said["seconds"])


def _poll_turn(
    stage: Stage,
    vendor: Vendor,
    amount: int,
    peers: Sequence[Yardstick],
    taken: Mapping[str, list[float]],
) -> None:
    stage.renew(amount)
    stage.load()
    stage.leadloop(vendor, "push")
    processed, began, end = outcomes(amount)
    vendor.put(processed)
    stage.settle()

    def other(yardstick: Yardstick) -> float:
        ran = yardstick.run(stage, vendor, "poll", campaign=CAMPAIGN, after=began, before=end)
        seconds: float = ran.said["seconds"]
        return seconds

    before = other(FLOOR)
    inserted = stage.leadloop(vendor, "poll").said["inserted"]
    assert inserted == amount, inserted
    taken["leadloop"].append(stage.seconds("poll-outcomes"))
    taken["floor"].append(mean((before, other(FLOOR))))
    for peer in peers:
        taken[peer.name].append(other(peer))


def _floor(taken: Seconds) -> Figure:
    return Figure(what="the floor", measured=times(taken["floor"]), ratio="1")


def _ours(taken: Seconds, what: str, *, bound: float) -> Figure:
    ratio, told = ratios(taken["leadloop"], taken["floor"])
    return Figure(
        what=f"**{what}**",
        measured=times(taken["leadloop"]),
        ratio=told,
        target=f"≤ {bound}",
        met=ratio <= bound,
    )


def _peer(taken: Seconds, peer: Yardstick, *, at_least: float | None = None) -> Figure:
    _, told = ratios(taken[peer.name], taken["floor"])
    slower, by = ratios(taken[peer.name], taken["leadloop"])
    return Figure(
        what=f"{peer.name}: {by} × leadloop",
        measured=times(taken[peer.name]),
        ratio=told,
        target=f"≥ {at_least:.0f} × leadloop" if at_least else "",
        met=slower >= at_least if at_least else None,
    )


def _tutorial(stage: Stage, amount: int, ours: Sequence[float]) -> Figure:
    """A few leads are enough: each costs the same."""
    stage.renew(_TUTORIAL_LEADS)
    with stage.vendor() as vendor:
        a_lead = TUTORIAL.run(stage, vendor, "push").said["seconds"] / _TUTORIAL_LEADS
    slower, by = ratios([a_lead * amount] * len(ours), ours)
    return Figure(
        what=f"the tutorial: {by} × leadloop",
        measured=f"{a_lead * 1000:.0f} ms a lead ({_TUTORIAL_LEADS} leads)",
        target="≥ 200 × leadloop",
        met=slower >= 200,
    )


def _told(latency: float) -> str:
    return (
        f"a vendor that answers after {latency * 1000:.0f} ms" if latency else "no latency at all"
    )
