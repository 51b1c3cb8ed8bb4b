"""Push and poll compared with the baseline, the yardstick, the peers and the tutorial."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean, median

from tests.benchmarks.bench_environment import BenchEnvironment, SandboxProcess, generate_outcomes
from tests.benchmarks.competitors import (
    BASELINE,
    DLT,
    DRT,
    SINGER,
    TUTORIAL,
    YARDSTICK,
    Competitor,
)
from tests.benchmarks.report import Figure, Section, compare_times, format_times

#: Seconds of latency of a vendor across the internet; at 0 the sandbox answers in some 2 ms.
_LATENCIES = (0.0, 0.1)
_TUTORIAL_LEADS = 200
#: The target ratio of a peer's time to leadloop's time.
_AT_LEAST = {("poll", "dlt"): 5.0, ("poll", "singer"): 3.0}
#: The scripts that run before and after leadloop in each turn, and the target ratio to one of them.
_REFERENCES = (BASELINE, YARDSTICK)
_AT_MOST = 1.3
Seconds = Mapping[str, Sequence[float]]


def measure_push(bench: BenchEnvironment, amount: int, turns: int) -> list[Section]:
    """Compare pushes in batches of 100."""
    near, far = _LATENCIES
    at_once = _compare(bench, amount, turns, replace(_PUSH, turn=_run_push_and_tutorial_turn), near)
    from_afar = _compare(bench, amount, turns, _PUSH, far)
    return [
        at_once.build_section(_build_tutorial_figure(at_once.taken, amount)),
        from_afar.build_section(),
    ]


def measure_poll(bench: BenchEnvironment, amount: int, turns: int) -> list[Section]:
    """Compare polls of outcomes with two attempts each, in pages of 100, to typed tables."""
    return [
        _compare(bench, amount, turns, _POLL, latency).build_section() for latency in _LATENCIES
    ]


@dataclass(frozen=True, kw_only=True)
class _Turn:
    """One run of every program with the same work; `taken` collects the seconds of each."""

    bench: BenchEnvironment
    sandbox: SandboxProcess
    amount: int
    peers: Sequence[Competitor]
    taken: Mapping[str, list[float]]

    def add_references(self, before: Sequence[float], after: Sequence[float]) -> None:
        """Add the mean seconds of each reference's two runs."""
        for reference, each in zip(_REFERENCES, zip(before, after, strict=True), strict=True):
            self.taken[reference.name].append(mean(each))


@dataclass(frozen=True, kw_only=True)
class _Work:
    """The work to compare, the reference of its target, and its peers."""

    name: str
    of_what: str
    reference: Competitor
    peers: Sequence[Competitor]
    turn: Callable[[_Turn], None]


@dataclass(frozen=True, kw_only=True)
class _Comparison:
    """The seconds of each turn, by program."""

    work: _Work
    title: str
    conditions: str
    taken: Seconds

    def build_section(self, *more: Figure) -> Section:
        """Return the section of the report."""
        ours = _build_own_figure(self.taken, self.work)
        peers = (
            _build_peer_figure(
                self.taken, peer, at_least=_AT_LEAST.get((self.work.name, peer.name))
            )
            for peer in self.work.peers
        )
        references = (_build_reference_figure(self.taken, each) for each in _REFERENCES)
        figures = [*references, ours, *peers, *more]
        return Section(title=self.title, conditions=self.conditions, figures=figures)


def _compare(
    bench: BenchEnvironment, amount: int, turns: int, work: _Work, latency: float
) -> _Comparison:
    taken: defaultdict[str, list[float]] = defaultdict(list)
    for turn in range(turns):
        # Alternate the order, so that no peer always runs first.
        peers = work.peers[:: -1 if turn % 2 else 1]
        with bench.run_sandbox(latency=latency) as sandbox:
            work.turn(
                _Turn(
                    bench=bench,
                    sandbox=sandbox,
                    amount=amount,
                    peers=peers,
                    taken=taken,
                )
            )
    return _Comparison(
        work=work,
        title=f"{work.name.capitalize()}, {_describe_latency(latency)}",
        conditions=f"{amount:,} {work.of_what}, {turns} turns, 4 requests at once (leadloop's push:"
        " as many as pay, up to 12; dlt's push: 20; Singer: one). Start-up aside; leadloop's time"
        " is"
        " that from the opening of its run in Postgres to the end, a peer's includes the making of"
        " its pipeline.",
        taken=taken,
    )


def _run_push_turn(turn: _Turn) -> None:
    turn.bench.reset_leads(turn.amount)
    turn.bench.load_leads()
    turn.bench.vacuum()

    def other(competitor: Competitor, campaign: str) -> float:
        ran = competitor.run(turn.bench, turn.sandbox, "push", turn.amount, campaign=campaign)
        seconds: float = ran.output["seconds"]
        return seconds

    before = [other(each, each.name) for each in _REFERENCES]
    created = turn.bench.run_leadloop(turn.sandbox, "push").output["created"]
    assert created == turn.amount, created
    turn.taken["leadloop"].append(turn.bench.fetch_run_seconds("push-leads"))
    after = [other(each, f"{each.name} again") for each in _REFERENCES]
    turn.add_references(before, after)
    for peer in turn.peers:
        turn.taken[peer.name].append(other(peer, peer.name))


def _run_push_and_tutorial_turn(turn: _Turn) -> None:
    """Run a push turn and the tutorial, with few leads: each lead costs the same."""
    _run_push_turn(turn)
    turn.bench.reset_leads(_TUTORIAL_LEADS)
    ran = TUTORIAL.run(turn.bench, turn.sandbox, "push", _TUTORIAL_LEADS, campaign="tutorial")
    turn.taken["tutorial"].append(ran.output["seconds"] / _TUTORIAL_LEADS * turn.amount)


def _run_poll_turn(turn: _Turn) -> None:
    turn.bench.reset_leads(turn.amount)
    turn.bench.load_leads()
    turn.bench.run_leadloop(turn.sandbox, "push")
    processed, began, end = generate_outcomes(turn.amount)
    turn.sandbox.put_outcomes(processed)
    turn.bench.vacuum()

    def other(competitor: Competitor) -> float:
        ran = competitor.run(turn.bench, turn.sandbox, "poll", turn.amount, after=began, before=end)
        seconds: float = ran.output["seconds"]
        return seconds

    before = [other(each) for each in _REFERENCES]
    inserted = turn.bench.run_leadloop(turn.sandbox, "poll").output["inserted"]
    assert inserted == turn.amount, inserted
    turn.taken["leadloop"].append(turn.bench.fetch_run_seconds("poll-outcomes"))
    turn.add_references(before, [other(each) for each in _REFERENCES])
    for peer in turn.peers:
        turn.taken[peer.name].append(other(peer))


_PUSH = _Work(
    name="push",
    of_what="leads in batches of 100",
    reference=YARDSTICK,
    peers=(DLT, DRT),
    turn=_run_push_turn,
)
_POLL = _Work(
    name="poll",
    of_what="outcomes with two attempts each, pages of 100",
    reference=BASELINE,
    peers=(DLT, SINGER),
    turn=_run_poll_turn,
)


def _build_reference_figure(taken: Seconds, reference: Competitor) -> Figure:
    _, ratio_text = compare_times(taken[reference.name], taken["baseline"])
    return Figure(
        what=f"the {reference.name}",
        measured=format_times(taken[reference.name]),
        ratio="1" if reference == BASELINE else ratio_text,
    )


def _build_own_figure(taken: Seconds, work: _Work) -> Figure:
    _, ratio_text = compare_times(taken["leadloop"], taken["baseline"])
    slower, by = compare_times(taken["leadloop"], taken[work.reference.name])
    return Figure(
        what=f"**leadloop {work.name}**: {by} × the {work.reference.name}",
        measured=format_times(taken["leadloop"]),
        ratio=ratio_text,
        target=f"≤ {_AT_MOST} × the {work.reference.name}",
        met=slower <= _AT_MOST,
    )


def _build_peer_figure(
    taken: Seconds, peer: Competitor, *, at_least: float | None = None
) -> Figure:
    _, ratio_text = compare_times(taken[peer.name], taken["baseline"])
    slower, by = compare_times(taken[peer.name], taken["leadloop"])
    return Figure(
        what=f"{peer.name}: {by} × leadloop",
        measured=format_times(taken[peer.name]),
        ratio=ratio_text,
        target=f"≥ {at_least:.0f} × leadloop" if at_least else "",
        met=slower >= at_least if at_least else None,
    )


def _build_tutorial_figure(taken: Seconds, amount: int) -> Figure:
    slower, by = compare_times(taken["tutorial"], taken["leadloop"])
    a_lead = median(taken["tutorial"]) / amount
    return Figure(
        what=f"the tutorial: {by} × leadloop",
        measured=f"{a_lead * 1000:.0f} ms a lead ({_TUTORIAL_LEADS} leads a turn)",
        target="≥ 200 × leadloop",
        met=slower >= 200,
    )


def _describe_latency(latency: float) -> str:
    return (
        f"a vendor that answers after {latency * 1000:.0f} ms" if latency else "no latency at all"
    )
