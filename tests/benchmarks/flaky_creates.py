"""A vendor at which a share of the requests fails: what creates take, and who comes twice."""

import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

import requests

from tests import sql
from tests.benchmarks.bench_environment import CAMPAIGN, BenchEnvironment, SandboxProcess
from tests.benchmarks.competitors import DLT, DRT, Competitor
from tests.benchmarks.report import Figure, Section

_SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.4)
# The routes whose requests fail, and when their resets come.
_RESETS = {"create": "after", "responses": "before"}
_MAX_LEADS = 5_000
#: Runs after which leadloop should have settled every lead: PROGRESS.md's K for creates.
_MAX_RUNS = 17
_SETTLE_S = 1


@dataclass(frozen=True, kw_only=True)
class _Effort:
    """What it took: the seconds of all runs with their start-up, and what the vendor has then."""

    seconds: float
    requests: int
    runs: int
    open: int
    lost: int
    twice: int

    def build_figure(self, what: str, *, is_ours: bool) -> Figure:
        """Return a row; the target is that all leads are created, each once."""
        runs = f"{self.runs} run{'s' if self.runs > 1 else ''}"
        left = f", {self.open} not settled" if is_ours else ""
        return Figure(
            what=f"**{what}**" if is_ours else what,
            measured=f"{self.seconds:.0f} s, {self.requests:,} requests, {runs}{left},"
            f" {self.lost:,} lost, {self.twice:,} twice",
            target="all of them, each once" if is_ours else "",
            met=self.open == self.lost == self.twice == 0 if is_ours else None,
        )


def measure_flaky_creates(bench: BenchEnvironment, amount: int, _: int) -> list[Section]:
    """Compare pushes at growing shares of failing requests; dlt and drt push in turns."""
    leads = min(amount, _MAX_LEADS)
    figures = []
    for turn, share in enumerate(_SHARES):
        peers = (DLT, DRT)[:: -1 if turn % 2 else 1]
        bench.reset_leads(leads)
        bench.load_leads()
        bench.vacuum()
        # A vendor that takes a lead twice shows who would be called twice.
        with bench.run_sandbox(repeat="second") as sandbox:
            sandbox.fail_share(share, _RESETS)
            ours = _push(bench, sandbox, leads)
            others = {}
            for peer in peers:
                sandbox.fail_share(share, _RESETS)
                others[peer.name] = _push_with(peer, bench, sandbox, leads)
        figures.append(ours.build_figure(f"{share:.0%}: leadloop push", is_ours=True))
        figures += [
            others[peer.name].build_figure(f"{share:.0%}: {peer.name}", is_ours=False)
            for peer in (DLT, DRT)
        ]
    conditions = (
        f"{leads:,} leads in batches of 100. Of the failing creates half get a 500 before they have"
        " an effect, half a reset after it; of the other requests half a 500, half a reset; the"
        " draws are seeded. leadloop runs until no lead is new or in doubt, at most"
        f" {_MAX_RUNS} times, a second apart (LEADLOOP_SETTLE={_SETTLE_S}); dlt and drt run once,"
        " with the pauses of their retries. No rate limit. Lost: leads that the vendor does not"
        " have; twice: leads that it has more than once."
    )
    return [Section(title="Creates that fail", conditions=conditions, figures=figures)]


def _push(bench: BenchEnvironment, sandbox: SandboxProcess, amount: int) -> _Effort:
    before, began, runs = len(sandbox.fetch_requests()), time.monotonic(), 0
    unsettled = amount
    while unsettled and runs < _MAX_RUNS:
        if runs:
            time.sleep(_SETTLE_S + 0.1)
        runs += 1
        # After an exit with an error, the next run goes on.
        with suppress(RuntimeError):
            bench.run_leadloop(sandbox, "push", SETTLE=str(_SETTLE_S))
        unsettled = sql.fetch_value(
            bench.database,
            "SELECT count(*) FROM leadloop.leads WHERE status IN ('new', 'sending', 'in_doubt')",
        )
    return _measure(sandbox, CAMPAIGN, amount, before, began, runs=runs, unsettled=unsettled)


def _push_with(
    peer: Competitor, bench: BenchEnvironment, sandbox: SandboxProcess, amount: int
) -> _Effort:
    before, began = len(sandbox.fetch_requests()), time.monotonic()
    with suppress(RuntimeError):
        peer.run(bench, sandbox, "push", amount, campaign=peer.name)
    return _measure(sandbox, peer.name, amount, before, began, runs=1, unsettled=0)


def _measure(
    sandbox: SandboxProcess,
    campaign: str,
    amount: int,
    before: int,
    began: float,
    *,
    runs: int,
    unsettled: int,
) -> _Effort:
    seconds = time.monotonic() - began
    created: Counter[str] = Counter()
    for lead in requests.get(f"{sandbox.url}/_sandbox/leads/{campaign}", timeout=60).json():
        created[lead["lead_id"]] += lead["created"]
    return _Effort(
        seconds=seconds,
        requests=len(sandbox.fetch_requests()) - before,
        runs=runs,
        open=unsettled,
        lost=amount - sum(times > 0 for times in created.values()),
        twice=sum(times > 1 for times in created.values()),
    )
