"""`leadloop status`: at a glance, for scripts, and again and again."""

import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from db.database import Database
from tests import books
from tests.conftest import Ran

LEADLOOP = str(Path(sys.executable).with_name("leadloop"))


@pytest.fixture
def stuck(database: Database) -> None:
    """A campaign that runs, with an opt-out that has waited for hours."""
    books.add_campaign(database)
    books.add_leads(database, "A")
    books.run(database, "UPDATE leadloop.leads SET status = 'created'")
    books.opt_out(database, "A")
    books.run(
        database,
        "UPDATE leadloop.disable_requests SET requested_at = now() - interval '3 hours'",
    )
    books.run(
        database,
        """INSERT INTO leadloop.sync_runs (flow, campaign_id, state, ended_at)
           VALUES ('push-leads', :campaign, 'completed', now())""",
        campaign=books.CAMPAIGN,
    )


@pytest.mark.usefixtures("stuck")
def test_what_is_wrong_is_told_with_its_command(leadloop: Callable[..., Ran]) -> None:
    """A person sees what to do; a script sees the same, and the exit says it with --check."""
    ran = leadloop("status")
    assert ran.code == 0
    assert "critical" in ran.out
    assert "leadloop disable --campaign C1" in " ".join(ran.out.split())
    told = leadloop("status", "--check", "--json")
    assert told.code == 1
    assert [problem["problem"] for problem in told.last["problems"]] == ["opt_outs_waiting"]
    assert told.last["campaigns"][0]["health"] == "critical"


def test_all_is_well(leadloop: Callable[..., Ran], database: Database) -> None:
    """Then it says so, and --check exits with 0."""
    books.add_campaign(database)
    ran = leadloop("status", "--check")
    assert (ran.code, "All is well." in ran.out) == (0, True)


def test_watch_and_scripts_do_not_mix(leadloop: Callable[..., Ran], database: Database) -> None:
    """One line, exit 2."""
    ran = leadloop("status", "--watch", "--json")
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)


def test_watch_shows_what_changes_until_it_is_stopped(
    environment: Path, database: Database
) -> None:
    """Ctrl-C is its ordinary end: exit 0, and nothing on stderr."""
    books.add_campaign(database)
    ours, terminal = pty.openpty()
    with subprocess.Popen(
        [LEADLOOP, "status", "--watch"],
        stdout=terminal,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TERM": "xterm"},
    ) as process:
        _read_until(ours, "C1")
        books.add_campaign(database, "SECOND")
        _read_until(ours, "SECOND")
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert (process.wait(60), process.stderr.read()) == (0, "")


def _read_until(screen: int, word: str) -> None:
    seen = ""
    while word not in seen:
        ready, _, _ = select.select([screen], [], [], 60)
        assert ready, seen
        seen += os.read(screen, 65_536).decode(errors="replace")
