"""Each command that a problem names exists, and deals with the problem."""

import shlex
from collections.abc import Callable, Sequence

import pytest
from typer.main import get_command

from db.database import Database
from db.problem_kinds import PROBLEM_KINDS
from leadloop.cli.app import app
from tests import factories, sql
from tests.jobs import audit_leads, disable_leads, poll_outcomes, push_leads, sync_leads
from tests.sql import fetch_rows

_OLD = "interval '2 days'"


@pytest.mark.parametrize(
    "command", sorted({command for kind in PROBLEM_KINDS for command in kind.commands})
)
def test_each_command_can_be_run(command: str) -> None:
    """Its name and its options are those of the command line."""
    _, name, *options = shlex.split(command)
    found = get_command(app).commands[name]  # type: ignore[attr-defined]
    known = {text for each in found.params for text in (*each.opts, *each.secondary_opts)}
    assert set(options) <= known
    assert name == "doctor" or "--campaign" in known


def list_problems(database: Database) -> dict[str, str]:
    """Return the command of each problem."""
    rows = fetch_rows(database, "SELECT problem, command FROM leadloop_monitor.problems")
    return {row["problem"]: row["command"] for row in rows}


@pytest.mark.usefixtures("environment", "quick_retries")
@pytest.mark.parametrize(
    ("problem", "scene", "command", "runs"),
    [
        (
            "opt_outs_waiting",
            f"""INSERT INTO leadloop.disable_requests (campaign_id, lead_id, requested_at)
                VALUES ('C1', 'a', now() - {_OLD})""",
            *("leadloop disable", [disable_leads]),
        ),
        (
            "poll_behind",
            f"""UPDATE leadloop.watermarks SET (processed_through, written_through, read_through)
                     = (now() - {_OLD}, now() - {_OLD}, now() - {_OLD})""",
            *("leadloop poll", [poll_outcomes]),
        ),
        (
            "leads_unsent",
            f"""INSERT INTO leadloop.leads (campaign_id, lead_id, phone_number, contact_name,
                                            state_code, inserted_at)
                VALUES ('C1', 'b', '+14155550123', 'Bob', 'CA', now() - {_OLD})""",
            *("leadloop push", [push_leads]),
        ),
        (
            "leads_in_doubt",
            f"""UPDATE leadloop.leads SET status = 'in_doubt', doubted_at = now() - {_OLD}
                 WHERE lead_id = 'a'""",
            *("leadloop audit --repair", [lambda: audit_leads(repair=True)]),
        ),
        (
            "nothing_runs",
            f"""UPDATE leadloop.sync_runs
                   SET (started_at, ended_at) = (now() - {_OLD}, now() - {_OLD})""",
            *("leadloop doctor", [sync_leads]),
        ),
        (
            "nothing_runs",
            """DELETE FROM leadloop.sync_runs;
               INSERT INTO leadloop.leads (campaign_id, lead_id, phone_number, contact_name,
                                           state_code)
               VALUES ('C1', 'b', '+14155550123', 'Bob', 'CA')""",
            *("leadloop sync", [sync_leads]),
        ),
    ],
)
def test_the_command_deals_with_the_problem(
    database: Database,
    problem: str,
    scene: str,
    command: str,
    runs: Sequence[Callable[[], object]],
) -> None:
    """The problem is gone after it."""
    factories.add_campaign(database)
    factories.add_leads(database, "a")
    sync_leads()
    assert list_problems(database) == {}
    sql.execute_script(database, scene)
    assert list_problems(database)[problem].startswith(command)
    for run in runs:
        run()
    assert list_problems(database) == {}
