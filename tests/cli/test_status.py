"""`leadloop status`: at a glance, for scripts, and again and again."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import make_url, text

from db.database import Database
from leadloop.sandbox import SandboxHandle
from tests import factories, sql
from tests.cli.conftest import Command

LEADLOOP = str(Path(sys.executable).with_name("leadloop"))
_READER = "status_reader"
# What begins a new picture on the alternate screen.
_HOME = "\x1b[H"
_OF_A_SCREEN = ("COLUMNS", "LINES")


@pytest.fixture
def stuck(database: Database) -> None:
    """A campaign that runs, with an opt-out that has waited for hours."""
    factories.add_campaign(database)
    factories.add_leads(database, "A")
    sql.execute(database, "UPDATE leadloop.leads SET status = 'created'")
    factories.add_opt_outs(database, "A")
    sql.execute(
        database,
        "UPDATE leadloop.disable_requests SET requested_at = now() - interval '3 hours'",
    )
    sql.execute(
        database,
        """INSERT INTO leadloop.sync_runs (flow, campaign_id, state, ended_at)
           VALUES ('push-leads', :campaign, 'completed', now())""",
        campaign=factories.CAMPAIGN,
    )


@pytest.mark.usefixtures("stuck")
def test_what_is_wrong_is_told_with_its_command(invoke: Command) -> None:
    """A person sees what to do; a script sees the same, and the exit says it with --check."""
    ran = invoke("status")
    assert ran.code == 0
    assert "critical" in ran.out
    assert "leadloop disable --campaign C1" in " ".join(ran.out.split())
    told = invoke("status", "--check", "--json")
    assert told.code == 1
    assert [problem["problem"] for problem in told.last["problems"]] == ["opt_outs_waiting"]
    assert told.last["campaigns"][0]["health"] == "critical"


def test_all_is_well(invoke: Command, database: Database) -> None:
    """Then it says so, and --check exits with 0."""
    factories.add_campaign(database)
    ran = invoke("status", "--check")
    assert (ran.code, "All is well." in ran.out) == (0, True)


def test_what_an_upgrade_has_left_to_count(
    invoke: Command, database: Database, reader: str, prefect: str
) -> None:
    """Status and doctor name the command, for the data team too; no campaign has a problem."""
    factories.add_campaign(database)
    sql.execute(database, "DELETE FROM leadloop.counts_filled")
    for where in ({}, {"LEADLOOP_DATABASE_URL": reader}):
        ran = invoke("status", "--check", **where)
        told = " ".join(ran.out.split())
        assert ran.code == 0
        assert "the upgrade of the schema is not complete yet: run `leadloop init`" in told
        assert invoke("status", "--json", **where).last["upgrade_complete"] is False
    (check,) = (
        check
        for check in invoke("doctor", "--json", PREFECT_API_URL=prefect).last["checks"]
        if check["check"] == "database"
    )
    assert (check["ok"], check["warns"]) == (True, True)
    assert "not complete yet: run `leadloop init`" in check["detail"]
    invoke("init")
    assert "not complete" not in invoke("status").out
    assert invoke("status", "--json").last["upgrade_complete"] is True


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        (
            """INSERT INTO leadloop.unreadable_results (campaign_id, digest, reason, raw)
               VALUES (:campaign, 'x', 'lead_id: missing', '{}')""",
            "results_unreadable",
        ),
        (
            """INSERT INTO leadloop.lead_outcomes (campaign_id, lead_id, processed_at, raw)
               VALUES (:campaign, 'A.0', now(), '{}')""",
            "outcomes_unknown",
        ),
        (
            """INSERT INTO leadloop.owed_windows (campaign_id, window_after, window_before, reason,
                                                  found_at, next_try_at)
               VALUES (:campaign, now(), now(), 'HTTP 500', now() - interval '1 hour', now())""",
            "windows_owed",
        ),
    ],
)
def test_all_is_not_well_while_outcomes_may_be_missing(
    invoke: Command, database: Database, statement: str, problem: str
) -> None:
    """Though every run has completed, and the watermark is up to date."""
    factories.add_campaign(database)
    factories.add_leads(database, factories.build_lead("A", status="created"))
    sql.execute(database, statement, campaign=factories.CAMPAIGN)
    told = invoke("status", "--check", "--json")
    assert (told.code, [each["problem"] for each in told.last["problems"]]) == (1, [problem])
    assert "All is well" not in invoke("status").out


@pytest.mark.usefixtures("prefect")
def test_why_leads_were_rejected(
    invoke: Command, database: Database, prefect: str, reader: str
) -> None:
    """A push ends with its reasons; status shows those of all, of a campaign that is named."""
    for campaign in ("C1", "C2"):
        factories.add_campaign(database, campaign)
        bad = (factories.build_lead(name, state_code="??") for name in "ab")
        factories.add_leads(
            database, "good", *bad, factories.build_lead("c", phone_number="1"), campaign=campaign
        )
    where = {"PREFECT_API_URL": prefect}
    pushed = invoke("push", "-c", "C1", "--json", **where).last["campaigns"]["C1"]["rejections"]
    assert [(row["leads"], sorted(row["sample_lead_ids"])) for row in pushed] == [
        *((2, ["a", "b"]), (1, ["c"]))
    ]
    assert invoke("push", "-c", "C1", "--json", **where).last["campaigns"]["C1"]["rejections"] == []
    told = invoke("push", "-c", "C2", **where)
    lines = [line.split() for line in told.out.splitlines()]
    (first,) = [line for line in lines if line[:2] == ["2", "state_code:"]]
    assert first[-2:] in (["a,", "b"], ["b,", "a"])
    assert "leads rejected: 3; none of them is sent" in told.err
    stored = invoke("status", "-c", "C1", "--json", LEADLOOP_DATABASE_URL=reader).last["rejections"]
    assert [(row["campaign_id"], row["reason"], row["leads"]) for row in stored] == [
        ("C1", row["reason"], row["leads"]) for row in pushed
    ]
    shown = invoke("status", "-c", "C1").out
    assert all(row["reason"] in " ".join(shown.split()) for row in pushed)
    assert "rejections" not in invoke("status", "--json").last
    assert "rejected, and why" not in invoke("status").out


def test_the_reasons_that_are_left_out_are_counted(invoke: Command, database: Database) -> None:
    """Also those beyond the list, of every campaign that is named; none hides another one's."""
    for campaign, reasons in (("C1", 150), ("C2", 3)):
        factories.add_campaign(database, campaign)
        sql.execute(
            database,
            """INSERT INTO leadloop.leads (campaign_id, lead_id, status, last_error)
               SELECT :campaign, n || '-' || part, 'rejected', 'reason ' || n
                 FROM generate_series(1, :reasons) AS n
                CROSS JOIN generate_series(1, :each) AS part""",
            campaign=campaign,
            reasons=reasons,
            each=4 if campaign == "C1" else 2,
        )
    both = ("-c", "C1", "-c", "C2")
    # 20 reasons are shown, of 4 leads each; 606 leads are rejected for 153 reasons.
    assert "and 526 leads for 133 more reasons" in invoke("status", *both).out
    listed = invoke("status", *both, "--json").last["rejections"]
    for campaign, numbers in (("C1", (100, 150, 600)), ("C2", (3, 3, 6))):
        rows = [row for row in listed if row["campaign_id"] == campaign]
        assert {(len(rows), row["all_reasons"], row["all_leads"]) for row in rows} == {numbers}


def test_a_reason_whose_leads_are_gone(invoke: Command, database: Database) -> None:
    """Rows that a restore deleted without triggers: the reason is shown, without a sample."""
    factories.add_campaign(database)
    factories.add_leads(database, factories.build_lead("a", status="rejected", last_error="why"))
    sql.execute(
        database, "SET LOCAL session_replication_role = replica; DELETE FROM leadloop.leads"
    )
    ran = invoke("status")
    assert ran.code == 0
    assert ["1", "why"] in [line.split() for line in ran.out.splitlines()]


def test_latencies_of_the_last_hour(invoke: Command, database: Database) -> None:
    """One campaign shows a line a kind; a script gets null for more than an hour."""
    factories.add_campaign(database)
    sql.execute(
        database,
        """INSERT INTO leadloop.latencies
           VALUES (now(), 'C1', 'opt-out', 0.2, 98, 9), (now(), 'C1', 'opt-out', 'Infinity', 2, 9),
                  (now() - interval '3 hours', 'C1', 'outcome', 1, 1, 1)""",
    )
    ran = invoke("status")
    assert "opt-out latency, last hour" in ran.out
    assert "p50 ≤ 0.2 s, p99 > 1 h" in ran.out
    assert "outcome latency" not in ran.out
    (latency,) = invoke("status", "--json").last["latencies"]
    assert (latency["kind"], latency["amount"], latency["p99_s"]) == ("opt-out", 100, None)


def test_problems_of_a_campaign_without_a_row(invoke: Command, database: Database) -> None:
    """Where upstream forgot to insert the campaign, its opt-outs are told, and what to insert."""
    factories.add_opt_outs(database, "A", campaign="NONE", requested_at="2026-01-01T00:00:00Z")
    ran = invoke("status")
    assert "INSERT INTO leadloop.campaigns (campaign_id) VALUES ('NONE')" in ran.out
    assert "No campaign yet" in ran.out


def test_many_campaigns_are_readable_at_80_columns(invoke: Command, database: Database) -> None:
    """A line each with its figures, the worst first, those that are not enabled marked."""
    for number in range(30):
        factories.add_campaign(database, f"CAMPAIGN-{number:03d}", enabled=number != 7)
    factories.add_leads(database, "A", "B", campaign="CAMPAIGN-021")
    sql.execute(database, "UPDATE leadloop.leads SET inserted_at = now() - interval '40 days'")
    sql.execute(database, "UPDATE leadloop.leads SET status = 'created' WHERE lead_id = 'B'")
    factories.add_opt_outs(
        database, "B", campaign="CAMPAIGN-029", requested_at="2026-01-01T00:00:00Z"
    )
    lines = invoke("status", COLUMNS="80").out.splitlines()
    assert max(map(len, lines)) <= 80
    table = [line.split() for line in lines[lines.index("") :] if "CAMPAIGN-" in line]
    assert len(table) == 30
    assert table[0][:2] == ["!!", "CAMPAIGN-029"]
    assert table[1][:6] == ["!", "CAMPAIGN-021", "1", "40d", "0", "1"]
    assert table[2][0] == "CAMPAIGN-000"
    assert table[-1][0] == "(CAMPAIGN-007)"


@pytest.fixture
def reader(database: Database, database_url: str) -> Iterator[str]:
    """A URL of the login that the documents give to the data team."""
    sql.execute(database, f"DROP ROLE IF EXISTS {_READER}")
    sql.execute(database, f"CREATE ROLE {_READER} LOGIN")
    sql.execute(database, f"GRANT leadloop_reader TO {_READER}")
    yield make_url(database_url).set(username=_READER).render_as_string(hide_password=False)
    sql.execute(database, f"DROP ROLE {_READER}")


@pytest.mark.usefixtures("stuck")
def test_the_data_team_may_ask(invoke: Command, reader: str) -> None:
    """A member of leadloop_reader, which may read the views and nothing else, is told all."""
    ran = invoke("status", "--check", "--json", LEADLOOP_DATABASE_URL=reader)
    assert (ran.code, ran.err) == (1, "")
    assert [row["campaign_id"] for row in ran.last["campaigns"]] == ["C1"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            "ALTER VIEW leadloop_monitor.campaign_health RENAME COLUMN late TO tardy",
            "leadloop init",
        ),
        ("DROP VIEW leadloop_monitor.problems CASCADE", "leadloop init"),
        ("DROP SCHEMA leadloop_monitor CASCADE", "leadloop init"),
        (f"REVOKE leadloop_reader FROM {_READER}", "GRANT leadloop_reader"),
    ],
)
def test_views_that_are_not_there_or_of_another_version(
    invoke: Command, database: Database, reader: str, change: str, said: str
) -> None:
    """One line says what to do, exit 2."""
    factories.add_campaign(database)
    sql.execute(database, change)
    ran = invoke("status", LEADLOOP_DATABASE_URL=reader)
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
    assert said in ran.err


@pytest.mark.parametrize("more", [["--json"], ["--check"], []])
def test_watch_is_for_people_at_a_terminal(
    invoke: Command, database: Database, more: list[str]
) -> None:
    """One line, exit 2."""
    ran = invoke("status", "--watch", *more)
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)


@pytest.mark.usefixtures("stuck", "environment")
def test_watch_shows_what_is_wrong_first_and_goes_on(
    database: Database, empty_database_url: str
) -> None:
    """On a terminal of 24 lines, above campaigns that do not fit; the database may come and go.

    Ctrl-C is its ordinary end: exit 0, and nothing on stderr.
    """
    for number in range(40):
        factories.add_campaign(database, f"MORE{number}")
    with Database(empty_database_url, pool_size=1) as elsewhere, _watching() as screen:
        first = screen.until("leadloop disable --campaign C1")
        assert first.index("leadloop disable") < first.index("rejected")
        name = sql.fetch_value(database, "SELECT current_database() AS name")
        _let_in(elsewhere, name, False)
        screen.until("cannot reach Postgres", "leadloop disable --campaign C1")
        _let_in(elsewhere, name, True)
        settled = text("UPDATE leadloop.disable_requests SET status = 'disabled'")
        database.retry(lambda connection: connection.execute(settled))
        assert "cannot reach" not in screen.until("All is well.")
        screen.process.send_signal(signal.SIGINT)
        assert screen.process.stderr is not None
        assert (screen.process.wait(60), screen.process.stderr.read()) == (0, "")


def _let_in(elsewhere: Database, name: str, allowed: bool) -> None:
    with elsewhere.autocommit() as connection:
        connection.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {allowed}"))
        if not allowed:
            ending = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"
            connection.execute(text(ending), {"name": name})


class _Screen:
    """What a terminal of 24 lines and 80 columns shows."""

    def __init__(self, terminal: int, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._terminal = terminal
        self._written = ""

    def until(self, *words: str) -> str:
        """Return a screen that shows them all."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            # The last one may not have come whole; another follows in two seconds.
            for shown in self._written.split(_HOME)[1:-1]:
                if all(word in shown for word in words):
                    self._written = ""
                    assert len(shown.splitlines()) <= 24
                    return shown
            ready, _, _ = select.select([self._terminal], [], [], 1)
            if ready:
                self._written += os.read(self._terminal, 65_536).decode(errors="replace")
        raise AssertionError(f"never on the screen: {words}; {self._written}")


@contextmanager
def _watching() -> Iterator[_Screen]:
    ours, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in _OF_A_SCREEN}
    with subprocess.Popen(
        [LEADLOOP, "status", "--watch"],
        stdin=terminal,
        stdout=terminal,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment, "TERM": "xterm"},
    ) as process:
        try:
            yield _Screen(ours, process)
        finally:
            process.kill()
            os.close(terminal)
            os.close(ours)


def test_status_counts_what_is_owed_and_what_was_accepted(
    invoke: Command, database: Database
) -> None:
    """In JSON and in a campaign's figures."""
    for campaign in ("C1", "C2"):
        factories.add_campaign(database, campaign)
    factories.owe_window(database, "2026-01-31T09:00:00Z", "2026-01-31T09:00:01Z")
    factories.owe_window(
        database,
        "2026-01-31T10:00:00Z",
        "2026-01-31T10:00:01Z",
        accepted_at="2026-02-01T00:00:00Z",
        accepted_reason="deleted there",
    )
    first, second = invoke("status", "--json").last["campaigns"]
    assert [(row["owed"], row["owed_accepted"]) for row in (first, second)] == [(1, 1), (0, 0)]
    figures = invoke("status", "--campaign", "C1").out
    assert re.search(r"windows owed\W+1\W", figures)
    assert re.search(r"windows accepted as unreadable\W+1\W", figures)


def test_status_tells_how_late_outcomes_came(
    invoke: Command, database: Database, vendor: SandboxHandle, prefect: str
) -> None:
    """By campaign, how many were late and the lookback that finds such; 0 where none was."""
    for campaign in ("C1", "C2"):
        factories.add_campaign(database, campaign)
        factories.add_leads(database, "a", campaign=campaign)
    for command in ("push", "poll"):
        invoke(command, PREFECT_API_URL=prefect)
    item = {"campaign_id": "C1", "lead_id": "a", "outcome_id": 1}
    vendor.put_outcomes([{**item, "processed_at": vendor.now() - 600_000}])
    invoke("poll", PREFECT_API_URL=prefect)
    late, none = invoke("status", "--json").last["campaigns"]
    assert (late["late"], none["late"], none["lookback_needed_s"]) == (1, 0, 0)
    assert 500 < late["lookback_needed_s"] <= 601
    lines = invoke("status", "--campaign", "C1").out.splitlines()
    (count,) = [line for line in lines if "late outcomes" in line and "lookback" not in line]
    (needed,) = [line for line in lines if "lookback needed" in line]
    assert ([word for word in count.split() if word.isdigit()], "min" in needed) == (["1"], True)
