"""Push and poll against the floor, the peers and the tutorial."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean, median

from tests.bench.report import Figure, Section, ratios, times
from tests.bench.stage import Stage, Vendor, outcomes
from tests.bench.yardsticks import DLT, DRT, FLOOR, SINGER, TUTORIAL, Yardstick

#: Seconds in which a vendor across the internet answers; at 0 the sandbox answers in some 2 ms.
_LATENCIES = (0.0, 0.1)
_TUTORIAL_LEADS = 200
#: How many times as long as leadloop some of them should take.
_AT_LEAST = {("poll", "dlt"): 5.0, ("poll", "singer"): 3.0}
Seconds = Mapping[str, Sequence[float]]


def push(stage: Stage, amount: int, turns: int) -> list[Section]:
    """Batches of 100, with claims, states and budget kept."""
    near, far = _LATENCIES
    at_once = _compared(stage, amount, turns, replace(_PUSH, turn=_push_and_tutorial_turn), near)
    from_afar = _compared(stage, amount, turns, _PUSH, far)
    return [at_once.section(_tutorial(at_once.taken, amount)), from_afar.section()]


def poll(stage: Stage, amount: int, turns: int) -> list[Section]:
    """Outcomes with two attempts each, pages of 100, to typed tables."""
    return [_compared(stage, amount, turns, _POLL, latency).section() for latency in _LATENCIES]


@dataclass(frozen=True, kw_only=True)
class _Turn:
    """One go of everybody at the same work; how long each took goes into `taken`, in seconds."""

    stage: Stage
    vendor: Vendor
    amount: int
    peers: Sequence[Yardstick]
    taken: Mapping[str, list[float]]


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What is compared."""

    name: str
    of_what: str
    bound: float
    peers: Sequence[Yardstick]
    turn: Callable[[_Turn], None]


@dataclass(frozen=True, kw_only=True)
class _Compared:
    """What everybody took, seconds a turn by name."""

    work: _Work
    title: str
    conditions: str
    taken: Seconds

    def section(self, *more: Figure) -> Section:
        """As it is reported."""
        ours = _ours(self.taken, f"leadloop {self.work.name}", bound=self.work.bound)
        peers = (
            _peer(self.taken, peer, at_least=_AT_LEAST.get((self.work.name, peer.name)))
            for peer in self.work.peers
        )
        figures = [_floor(self.taken), ours, *peers, *more]
        return Section(title=self.title, conditions=self.conditions, figures=figures)


def _compared(stage: Stage, amount: int, turns: int, work: _Work, latency: float) -> _Compared:
    taken: defaultdict[str, list[float]] = defaultdict(list)
    for turn in range(turns):
        # No peer always comes first, or last.
        peers = work.peers[:: -1 if turn % 2 else 1]
        with stage.vendor(latency=latency) as vendor:
            work.turn(_Turn(stage=stage, vendor=vendor, amount=amount, peers=peers, taken=taken))
    return _Compared(
        work=work,
        title=f"{work.name.capitalize()}, {_told(latency)}",
        conditions=f"{amount:,} {work.of_what}, {turns} turns, 4 requests at once (dlt's push: 20;"
        " Singer: one). Start-up aside; leadloop's time is that from the opening of its run"
        " in Postgres to the end, a peer's includes the making of its pipeline.",
        taken=taken,
    )


def _push_turn(turn: _Turn) -> None:
    turn.stage.renew(turn.amount)
    turn.stage.load()
    turn.stage.settle()

    def other(yardstick: Yardstick, campaign: str) -> float:
        ran = yardstick.run(turn.stage, turn.vendor, "push", turn.amount, campaign=campaign)
        seconds: float = ran.said["seconds"]
        return seconds

    before = other(FLOOR, "floor")
    created = turn.stage.leadloop(turn.vendor, "push").said["created"]
    assert created == turn.amount, created
    turn.taken["leadloop"].append(turn.stage.seconds("push-leads"))
    turn.taken["floor"].append(mean((before, other(FLOOR, "floor again"))))
    for peer in turn.peers:
        turn.taken[peer.name].append(other(peer, peer.name))


def _push_and_tutorial_turn(turn: _Turn) -> None:
    """A few leads of the tutorial are enough: each costs the same."""
    _push_turn(turn)
    turn.stage.renew(_TUTORIAL_LEADS)
    ran = TUTORIAL.run(turn.stage, turn.vendor, "push", _TUTORIAL_LEADS, campaign="tutorial")
    turn.taken["tutorial"].append(ran.said["seconds"] / _TUTORIAL_LEADS * turn.amount)


def _poll_turn(turn: _Turn) -> None:
    turn.stage.renew(turn.amount)
    turn.stage.load()
    turn.stage.leadloop(turn.vendor, "push")
    processed, began, end = outcomes(turn.amount)
    turn.vendor.put(processed)
    turn.stage.settle()

    def other(yardstick: Yardstick) -> float:
        ran = yardstick.run(turn.stage, turn.vendor, "poll", turn.amount, after=began, before=end)
        seconds: float = ran.said["seconds"]
        return seconds

    before = other(FLOOR)
    inserted = turn.stage.leadloop(turn.vendor, "poll").said["inserted"]
    assert inserted == turn.amount, inserted
    turn.taken["leadloop"].append(turn.stage.seconds("poll-outcomes"))
    turn.taken["floor"].append(mean((before, other(FLOOR))))
    for peer in turn.peers:
        turn.taken[peer.name].append(other(peer))


_PUSH = _Work(
    name="push",
    of_what="leads in batches of 100",
    bound=1.5,
    peers=(DLT, DRT),
    turn=_push_turn,
)
_POLL = _Work(
    name="poll",
    of_what="outcomes with two attempts each, pages of 100",
    bound=1.3,
    peers=(DLT, SINGER),
    turn=_poll_turn,
)


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


def _tutorial(taken: Seconds, amount: int) -> Figure:
    slower, by = ratios(taken["tutorial"], taken["leadloop"])
    a_lead = median(taken["tutorial"]) / amount
    return Figure(
        what=f"the tutorial: {by} × leadloop",
        measured=f"{a_lead * 1000:.0f} ms a lead ({_TUTORIAL_LEADS} leads a turn)",
        target="≥ 200 × leadloop",
        met=slower >= 200,
    )


def _told(latency: float) -> str:
    return (
        f"a vendor that answers after {latency * 1000:.0f} ms" if latency else "no latency at all"
    )
