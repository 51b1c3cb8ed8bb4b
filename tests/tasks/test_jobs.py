"""Jobs of several campaigns in one run: turns, chunks, failures, a stop.

A job of these tests does what its script lists, in a real database context without Prefect.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import pytest
from sqlalchemy import text

from db.database import Database
from leadloop.core.errors import RunError, UsageError
from leadloop.core.summaries import collect_summary
from leadloop.sandbox import SandboxHandle
from leadloop.settings import Settings
from tasks.context import CampaignRun, DatabaseContext, RunHost, open_database_context
from tasks.jobs import DONE, MORE, CampaignsFailed, ChunkResult, JobSpec, due_in
from tests import factories, sql
from tests.jobs import push_leads, run_jobs

pytestmark = pytest.mark.usefixtures("quick_retries", "environment")

T = TypeVar("T")
Step = Callable[[CampaignRun[DatabaseContext]], ChunkResult]


def more(_: object) -> ChunkResult:
    """A chunk after which there is more to do."""
    return MORE


def done(_: object) -> ChunkResult:
    """The last chunk."""
    return DONE


def fail(_: object) -> ChunkResult:
    """A chunk that cannot go on."""
    raise RunError("it is broken")


def fail_in_postgres(run: CampaignRun[DatabaseContext]) -> ChunkResult:
    """A chunk whose statement Postgres refuses."""
    with run.context.database.autocommit() as connection:
        connection.execute(text("SELECT 1 / 0"))
    return DONE


def slow_down(_: object) -> ChunkResult:
    """A chunk after which there is more to do in a while."""
    return due_in(0.1)


@dataclass(kw_only=True)
class Scripts:
    """What the jobs of a run do, by campaign, and what they have done."""

    steps: dict[str, Sequence[Step]]
    #: Errors of `finish`, by campaign.
    incomplete: dict[str, RunError] = field(default_factory=dict)
    #: The campaign of each chunk, in order.
    turns: list[str] = field(default_factory=list)
    limits: list[int] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)

    def start(self, run: CampaignRun[DatabaseContext]) -> "ScriptedJob | None":
        """Return the job of a campaign; None where it has no step."""
        steps = self.steps[run.campaign.campaign_id]
        return ScriptedJob(scripts=self, run=run, steps=iter(steps)) if steps else None

    def spec(self) -> JobSpec[DatabaseContext]:
        """Return how a run makes these jobs."""
        return JobSpec(
            flow="housekeeping",
            task="step",
            counts=["chunks"],
            open_context=open_database_context,
            start=self.start,
            min_chunk=2,
        )


@dataclass(kw_only=True)
class ScriptedJob:
    """A job that follows its campaign's script, and counts its chunks."""

    scripts: Scripts
    run: CampaignRun[DatabaseContext]
    steps: Iterator[Step]
    chunks: int = 0

    def run_chunk(self, limit: int) -> ChunkResult:
        """Do the next step of the script."""
        self.scripts.turns.append(self.run.campaign.campaign_id)
        self.scripts.limits.append(limit)
        result = next(self.steps)(self.run)
        self.chunks += 1
        return result

    def finish(self) -> None:
        """Raise the error that the script has for the end."""
        name = self.run.campaign.campaign_id
        self.scripts.finished.append(name)
        if name in self.scripts.incomplete:
            raise self.scripts.incomplete[name]

    def counts(self) -> dict[str, int]:
        """Return the chunks that were done."""
        return {"chunks": self.chunks}


def scripted(database: Database, **steps: Sequence[Step]) -> Scripts:
    """Campaigns, each with its script."""
    for campaign in steps:
        factories.add_campaign(database, campaign)
    return Scripts(steps=steps)


def rows(database: Database) -> dict[str, tuple[str, str | None]]:
    """State and error of each campaign's run."""
    found = sql.fetch_rows(database, "SELECT campaign_id, state, error FROM leadloop.sync_runs")
    return {row["campaign_id"]: (row["state"], row["error"]) for row in found}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A boot clock that stands still but for sleeps, which take no time; the moments slept to."""
    slept = [0.0]
    monkeypatch.setattr("tasks.jobs.read_boot_clock", lambda: slept[-1])
    monkeypatch.setattr("tasks.jobs.sleep_until", lambda due: slept.append(max(slept[-1], due)))
    return slept


def test_campaigns_take_turns(database: Database) -> None:
    """A campaign with a long backlog does not starve the next one."""
    scripts = scripted(database, A=[more, more, more, done], B=[more, done])
    summary = run_jobs(scripts.spec(), None)
    assert scripts.turns == ["A", "B", "A", "B", "A", "A"]
    assert summary == {
        "chunks": 6,
        "requests": 0,
        "campaigns": {"A": {"chunks": 4, "requests": 0}, "B": {"chunks": 2, "requests": 0}},
    }
    assert rows(database) == dict.fromkeys("AB", ("completed", None))


def test_a_job_that_is_due_later_holds_up_no_other(database: Database, clock: list[float]) -> None:
    """The other campaign has all of its turns meanwhile; the run sleeps only when both wait."""
    scripts = scripted(
        database,
        A=[lambda _: due_in(100), done],
        B=[more, more, more, lambda _: due_in(7), done],
    )
    run_jobs(scripts.spec(), None)
    assert scripts.turns == ["A", "B", "B", "B", "B", "B", "A"]
    assert sorted({*clock}) == [0.0, 7.0, 100.0]


def test_a_long_run_folds_counts_between_chunks(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the views would read all changes of an hour of it."""
    moments, pending = [1000.0], []
    monkeypatch.setattr("tasks.context.read_boot_clock", lambda: moments[-1])

    def write(run: CampaignRun[DatabaseContext]) -> ChunkResult:
        changes = "SELECT count(*) > 0 FROM leadloop.count_changes"
        pending.append(sql.fetch_value(database, changes))
        lead = factories.build_lead(str(len(pending)), status="created")
        factories.add_leads(database, lead)
        moments.append(moments[-1] + 59)
        return MORE

    run_jobs(scripted(database, A=[write, write, write, done]).spec(), None)
    assert pending == [True, True, False], "the first change is the run's"


@pytest.mark.parametrize(
    ("step", "reason"),
    [(fail, "it is broken"), (fail_in_postgres, "Postgres refused: DivisionByZero")],
)
def test_a_campaign_that_fails_leaves_the_others_done(
    database: Database, step: Step, reason: str
) -> None:
    """The run fails with its reason and with what was done; the other campaign's run completes."""
    scripts = scripted(database, A=[more, step], B=[more, more, done])
    with (
        collect_summary() as collected,
        pytest.raises(CampaignsFailed, match=f"^campaign A: {reason}.*; done: chunks 4") as caught,
    ):
        run_jobs(scripts.spec(), None)
    (line,) = caught.value.reasons
    assert line.startswith(f"campaign A: {reason}")
    assert collected.summary["campaigns"]["B"]["chunks"] == 3
    states = rows(database)
    assert states["B"] == ("completed", None)
    assert f"campaign A: {states['A'][1]}" == line
    assert scripts.finished == ["B"]


def test_a_job_that_cannot_be_made_leaves_the_others_done(database: Database) -> None:
    """Its campaign has no turn, and its run fails at once."""
    scripts = scripted(database, A=[done], B=[done])

    def start(run: CampaignRun[DatabaseContext]) -> ScriptedJob | None:
        if run.campaign.campaign_id == "A":
            raise RunError("no plan")
        return scripts.start(run)

    with pytest.raises(CampaignsFailed) as caught:
        run_jobs(replace(scripts.spec(), start=start), None)
    assert caught.value.reasons == ["campaign A: no plan"]
    assert scripts.turns == ["B"]
    assert rows(database) == {"A": ("failed", "no plan"), "B": ("completed", None)}


def test_an_end_is_checked_once(database: Database) -> None:
    """After the last chunk; work that turns out incomplete fails the campaign."""
    scripts = scripted(database, A=[more, done], B=[done])
    scripts.incomplete["A"] = RunError("3 are missing")
    with pytest.raises(CampaignsFailed, match=r"^campaign A: 3 are missing"):
        run_jobs(scripts.spec(), None)
    assert scripts.finished == ["B", "A"]
    assert rows(database) == {"A": ("failed", "3 are missing"), "B": ("completed", None)}


def test_a_campaign_with_nothing_to_do_has_no_turn(database: Database) -> None:
    """Its run completes with all counts at 0."""
    scripts = scripted(database, A=[], B=[done])
    started: list[ScriptedJob] = []
    summary = run_jobs(scripts.spec(), None, on_started=started.extend)
    assert scripts.turns == ["B"]
    assert [job.run.campaign.campaign_id for job in started] == ["B"]
    assert summary["campaigns"]["A"] == {"chunks": 0, "requests": 0}
    assert rows(database)["A"] == ("completed", None)


def test_only_named_campaigns_run(database: Database) -> None:
    """An unknown one stops the run before any row is written."""
    scripts = scripted(database, A=[done], B=[done])
    with pytest.raises(UsageError, match="unknown campaign X"):
        run_jobs(scripts.spec(), ["A", "X"])
    assert rows(database) == {}
    run_jobs(scripts.spec(), ["B"])
    assert scripts.turns == ["B"]


def test_chunks_grow_with_what_was_done(database: Database) -> None:
    """A million units take a few hundred chunks, each at most a fiftieth of what was done."""
    scripts = scripted(database, A=[])

    def next_step(_: object) -> ChunkResult:
        return DONE if sum(scripts.limits) >= 1_000_000 else MORE

    scripts.steps["A"] = [next_step] * 1000
    run_jobs(scripts.spec(), None)
    assert scripts.limits[:50] == [2] * 50
    assert scripts.limits == sorted(scripts.limits)
    assert len(scripts.limits) < 600
    assert scripts.limits[-1] <= sum(scripts.limits) / 50


def test_every_chunk_is_a_step_of_the_host(database: Database) -> None:
    """The host, such as Prefect, sees each chunk under the name of the spec."""
    scripts = scripted(database, A=[more, done], B=[done])
    seen: list[tuple[str, list[str]]] = []

    class Watching:
        def __call__(self, name: str, campaign_ids: Sequence[str], step: Callable[[], T], /) -> T:
            seen.append((name, list(campaign_ids)))
            return step()

    @contextmanager
    def open_watched(settings: Settings, host: RunHost) -> Iterator[DatabaseContext]:
        with open_database_context(settings, replace(host, run_step=Watching())) as context:
            yield context

    run_jobs(replace(scripts.spec(), open_context=open_watched), None)
    assert seen == [("step", [campaign]) for campaign in ("A", "B", "A")]


def test_an_unexpected_error_is_one_campaign_s(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """One line with its type and place; the developers' log has its frames; nobody its text."""
    person = ", ".join(["Ann", "+14155550123"])

    def raise_error(_: object) -> ChunkResult:
        raise ValueError(person)

    scripts = scripted(database, A=[more, raise_error], B=[more, more, done])
    with caplog.at_level("DEBUG"), pytest.raises(CampaignsFailed) as caught:
        run_jobs(scripts.spec(), None)
    (line,) = caught.value.reasons
    assert line.startswith("campaign A: unexpected ValueError in tasks/context.py:")
    states = rows(database)
    assert states["B"] == ("completed", None)
    assert f"campaign A: {states['A'][1]}" == line
    assert scripts.finished == ["B"]
    (frames,) = [each for each in caplog.messages if "in raise_error" in each]
    assert frames.endswith("ValueError")
    assert not any("Ann" in each or "4155550123" in each for each in caplog.messages)


@pytest.mark.parametrize("where", ["start", "finish", "counts"])
def test_an_unexpected_error_at_the_start_or_end_is_one_campaign_s(
    database: Database, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Wherever it comes from, the other campaign's run completes."""
    scripts = scripted(database, A=[done], B=[more, done])
    original = getattr(ScriptedJob, where, None) or scripts.start

    def broken(first: Any) -> Any:
        run = first if where == "start" else first.run
        if run.campaign.campaign_id == "A":
            raise ZeroDivisionError
        return original(first)

    if where == "start":
        spec = replace(scripts.spec(), start=broken)
    else:
        monkeypatch.setattr(ScriptedJob, where, broken)
        spec = scripts.spec()
    with pytest.raises(CampaignsFailed, match=r"^campaign A: unexpected ZeroDivisionError"):
        run_jobs(spec, None)
    states = rows(database)
    assert (states["A"][0], states["B"]) == ("failed", ("completed", None))


@pytest.mark.parametrize("then", [more, done])
def test_a_campaign_whose_row_is_deleted_ends_its_part(database: Database, then: Step) -> None:
    """With one line, before its next chunk or at the end; the other campaign goes on."""

    def delete_row(run: CampaignRun[DatabaseContext]) -> ChunkResult:
        sql.execute(database, "DELETE FROM leadloop.campaigns WHERE campaign_id = 'A'")
        return then(run)

    # A row that was read less than a second ago is not read again.
    scripts = scripted(database, A=[delete_row, *[slow_down] * 100], B=[more, more, done])
    with pytest.raises(CampaignsFailed, match=r"^campaign A: its row was deleted"):
        run_jobs(scripts.spec(), None)
    assert rows(database)["B"] == ("completed", None)
    assert scripts.finished == ["B"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_a_stop_closes_the_row_of_every_run(database: Database, error: BaseException) -> None:
    """Each states it; the caller gets the error and what was done, also by the other campaign."""

    def raise_error(_: object) -> ChunkResult:
        raise error

    scripts = scripted(database, A=[more, more, done], B=[more, raise_error], C=[done])
    with collect_summary() as collected, pytest.raises(type(error)):
        run_jobs(scripts.spec(), None)
    assert rows(database) == {
        "A": ("failed", "the run was stopped before it was done"),
        "B": ("failed", "the run was stopped before it was done"),
        "C": ("completed", None),
    }
    assert collected.summary["chunks"] == 4
    assert {name: part["chunks"] for name, part in collected.summary["campaigns"].items()} == {
        "A": 2,
        "B": 1,
        "C": 1,
    }
    assert scripts.finished == ["C"]


@pytest.mark.parametrize("event", ["INSERT", "UPDATE"])
def test_a_campaign_whose_run_cannot_be_written_stops_no_other(
    database: Database, vendor: SandboxHandle, event: str
) -> None:
    """Postgres refuses the begin, or the end, of one campaign's run: the other is done."""
    broken, other = factories.add_campaigns_with_refused_run(database, event)
    with pytest.raises(CampaignsFailed, match=f"campaign {broken}: Postgres refused"):
        push_leads()
    assert sql.fetch_statuses(database, other) == {"a": "created"}
    query = "SELECT count(*) FROM leadloop.sync_runs WHERE state = 'running' AND campaign_id = :c"
    assert sql.fetch_value(database, query, c=other) == 0
