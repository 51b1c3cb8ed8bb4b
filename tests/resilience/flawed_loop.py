"""A world of `flawed_world` on both sides: the leads, the vendor, and the runs of leadloop."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from tests import factories, sql
from tests.factories import CAMPAIGN
from tests.jobs import disable_leads, poll_heads, poll_outcomes, push_leads
from tests.resilience import invariants
from tests.resilience.flawed_world import MAX_AGE_S, World
from tests.resilience.model import InsertedLead, LoopModel, ShownOutcome

#: Fruitless tries of a read or a list after which it is halved (PROGRESS.md, rule 4).
TRIES = 3
# The newest outcome is older than any row that a bound with a unit of seconds takes in.
_NEWEST_S = 5


@dataclass(kw_only=True)
class FlawedModel(LoopModel):
    """A model whose redacted outcomes are never expected to be stored as outcomes."""

    redacted: frozenset[str] = frozenset()

    def record_outcomes(self) -> set[ShownOutcome]:
        """Record every outcome of the vendor; return those that can be read by now."""
        return {seen for seen in super().record_outcomes() if seen[0] not in self.redacted}


@dataclass(frozen=True, kw_only=True)
class Ran:
    """One run of a job: how it ended, and its requests as the sandbox counts them.

    `noise`: requests that failed by noise. `repeated_noise`: whether noise hit the same read so
    often that it was halved.
    """

    job: str
    is_done: bool
    requests: int
    noise: int
    repeated_noise: bool


@dataclass(kw_only=True)
class FlawedLoop:
    """Both sides of one world. `newest_at` is the time of the newest outcome, epoch ms."""

    model: FlawedModel
    world: World
    runs: list[Ran] = field(default_factory=list)
    newest_at: int = 0

    # The world.

    def create_world(self) -> None:
        """Create the leads on both sides, process them, and put the flaws that stay in force."""
        model, world = self.model, self.world
        model.reset()
        columns = {**world.campaign, "settle_s": 0}
        factories.add_campaign(model.database, **columns)
        for lead_id in world.lead_ids:
            row = factories.build_lead(lead_id)
            model.insert_lead(InsertedLead(row=row, is_valid=True))
        assert push_leads([CAMPAIGN])["created"] == len(world.lead_ids)
        sql.execute(
            model.database,
            "UPDATE leadloop.leads SET sent_at = now() - make_interval(secs => :age)",
            age=MAX_AGE_S + 60,
        )
        self.newest_at = (model.vendor.now() // 1000 - _NEWEST_S) * 1000
        self._process((lead_id, self.newest_at - age) for lead_id, age in world.ages.items())
        for lead_id in sorted(world.opt_outs):
            model.opt_out(lead_id)
        model.vendor.change_rules(
            **world.rules,
            window_unit=world.campaign["epoch_unit"],
            **{name: tuple(sorted(getattr(world, name))) for name in ("hidden", "doubled")},
            redacted=tuple(sorted(world.redacted)),
        )
        self._add_poison()

    def process_later(self) -> None:
        """Process the leads whose outcome comes after the noise."""
        self._process((lead_id, self.model.vendor.now()) for lead_id in self.world.later)

    def _process(self, times: Iterable[tuple[str, int]]) -> None:
        self.model.vendor.put_outcomes(
            {
                "campaign_id": CAMPAIGN,
                "lead_id": lead_id,
                "processed_at": at,
                "outcome_id": 7,
                "outcome_name": f"outcome of {lead_id}",
                "total_cost": 0.5,
                "attempts": [{"reference_id": f"r-{lead_id}", "called_at": at}],
            }
            for lead_id, at in times
        )

    def add_noise(self) -> None:
        """Make a share of all requests fail, a kind of failure at a time."""
        for fault in self.world.noise:
            self.model.vendor.add_fault(**fault)

    def end_noise(self) -> None:
        """Leave only the flaws that stay."""
        self.model.vendor.clear_faults()
        self._add_poison()

    def _add_poison(self) -> None:
        poison = chain(
            (("responses", key, fault) for key, fault in self.world.poison.items()),
            (("disable", key, fault) for key, fault in self.world.opt_out_poison.items()),
        )
        for route, lead_id, fault in poison:
            self.model.vendor.add_fault(route=route, lead_id=lead_id, **fault)

    # leadloop.

    def run_jobs(self) -> None:
        """Run both jobs."""
        self.run_poll()
        self.run_disable()

    def run_poll(self) -> Ran:
        """Poll once; the safety invariants hold after it."""
        if self.world.polls_heads:
            return self._run("poll", lambda: self.model.run_flow(poll_heads) is not None)
        return self._run("poll", lambda: self.model.run_poll(poll_outcomes))

    def run_disable(self) -> Ran:
        """Send the due opt-outs once; the safety invariants hold after it."""
        return self._run("disable", lambda: self.model.run_flow(disable_leads) is not None)

    def _run(self, job: str, run: Callable[[], bool]) -> Ran:
        vendor = self.model.vendor
        began, noise = len(vendor.requests), self._count_noise()
        is_done = run()
        requests = vendor.requests[began:]
        kinds = {fault["fault"] for fault in vendor.faults if not fault["lead_id"]}
        hit = Counter(entry.query for entry in requests if entry.fault in kinds)
        ran = Ran(
            job=job,
            is_done=is_done,
            requests=len(requests),
            noise=self._count_noise() - noise,
            repeated_noise=max(hit.values(), default=0) >= TRIES,
        )
        self.runs.append(ran)
        for check in invariants.INVARIANTS:
            check(self.model)
        self._check_no_unexpected_error()
        return ran

    def _check_no_unexpected_error(self) -> None:
        """Check that a run ends with an error of ours, or with none."""
        query = "SELECT error FROM leadloop.sync_runs WHERE error LIKE 'unexpected%'"
        assert sql.fetch_rows(self.model.database, query) == []

    def _count_noise(self) -> int:
        return sum(fault["fired"] for fault in self.model.vendor.faults if not fault["lead_id"])

    def reach_due_times(self) -> None:
        """Let the time pass until everything that is to be tried again is due."""
        for table in ("owed_windows", "disable_requests"):
            sql.execute(
                self.model.database,
                f"UPDATE leadloop.{table} SET next_try_at = clock_timestamp() - interval '1 second'"
                " WHERE next_try_at IS NOT NULL",
            )

    # What has come of it.

    def find_unfinished(self) -> set[tuple[str, str]]:
        """Return the good items that are not done: ("outcome" or "opt-out", lead)."""
        stopped = self.model.vendor.store.disabled(CAMPAIGN)
        confirmed = {
            lead_id
            for lead_id, state in sql.fetch_opt_outs(self.model.database).items()
            if state == "disabled" and lead_id in stopped
        }
        stored = set(sql.fetch_outcomes(self.model.database))
        shown = set(self.model.vendor.store.processed(CAMPAIGN))
        return {("outcome", key) for key in (self.world.good & shown) - stored} | {
            ("opt-out", key) for key in self.world.good_opt_outs - confirmed
        }

    def fetch_good(self, world: World) -> dict[str, set[tuple[Any, ...]]]:
        """Return what is stored of a world's good items; times relative to the newest outcome."""
        outcomes = {
            (key, None if key in world.later else at - self.newest_at, *facts)
            for key, at, *facts in invariants.fetch_stored_outcomes(self.model)
            if key in world.good
        }
        attempts = sql.fetch_rows(
            self.model.database, "SELECT lead_id, reference_id FROM leadloop.outreach_attempts"
        )
        opt_outs = sql.fetch_opt_outs(self.model.database)
        return {
            "outcomes": outcomes,
            "attempts": {
                (row["lead_id"], row["reference_id"])
                for row in attempts
                if row["lead_id"] in world.good
            },
            "opt-outs": {(key, opt_outs[key]) for key in world.good_opt_outs},
        }

    def fetch_owed(self) -> list[dict[str, Any]]:
        """Return the owed windows; `oldest` and `newest` are ages of outcomes, ms."""
        rows = sql.fetch_rows(
            self.model.database,
            "SELECT *, extract(epoch FROM window_after) * 1000 AS after_ms,"
            " extract(epoch FROM window_before) * 1000 AS before_ms"
            " FROM leadloop.owed_windows ORDER BY window_after",
        )
        return [
            {
                **row,
                "oldest": self.newest_at - float(row["after_ms"]),
                "newest": self.newest_at - float(row["before_ms"]),
            }
            for row in rows
        ]
