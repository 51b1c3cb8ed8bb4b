"""The command line as a person or a script meets it: real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from db.database import Database
from leadloop.cli.app import app
from leadloop.sandbox import Handle
from tests import books
from tests.conftest import Ran

Leadloop = Callable[..., Ran]

LEADLOOP = str(Path(sys.executable).with_name("leadloop"))

HEADER = "lead_id,phone_number,contact_name,state_code,plan\n"


def test_the_loop_by_hand(
    leadloop: Leadloop, environment: Path, database: Database, vendor: Handle, prefect: str
) -> None:
    """Load, sync and status do what they say, with one JSON object as the last line each."""
    lines = [f"{number:03d},{books.phone(number)},Ann {number},NY,gold\n" for number in range(30)]
    (environment / "leads.csv").write_text(HEADER + "".join(lines))
    assert leadloop("load", "leads.csv", "--campaign", "C1", "--json").last == {
        "loaded": 30,
        "existing": 0,
        "bad": 0,
    }
    vendor.change(pace=0.01)
    summary = leadloop("sync", "--json", PREFECT_API_URL=prefect).last
    assert summary["push"]["created"] == 30
    poll = leadloop("poll", "--json", PREFECT_API_URL=prefect).last
    assert poll["inserted"] + summary["poll"]["inserted"] == 30
    (row,) = leadloop("status", "--json").last["campaigns"]
    assert (row["created"], row["processed"], row["new"]) == (30, 30, 0)
    assert books.value(database, "SELECT min(lead_id) FROM leadloop.leads") == "000"
    assert json.loads(vendor.books.leads("C1")[0].custom or b"") == {"plan": "gold"}


def test_a_run_brings_its_own_prefect_server_and_leaves_nothing(
    leadloop: Leadloop, environment: Path, database: Database
) -> None:
    """Without PREFECT_API_URL a run works, and no process of it remains."""
    books.add_campaign(database)
    books.add_leads(database, "a")
    ran = leadloop("push", "--json")
    assert (ran.code, ran.last["created"]) == (0, 1)
    assert _processes_in(environment) == []


def test_ctrl_c_stops_a_run_and_leaves_nothing_undecided(
    environment: Path, database: Database, vendor: Handle, leadloop: Leadloop, prefect: str
) -> None:
    """An interrupted push ends by itself; the next one goes on, and no lead is created twice."""
    books.add_campaign(database, batch_size=1)
    books.add_leads(database, *[f"L{number}" for number in range(300)])
    vendor.fault(route="create", kind="slow", seconds=0.2, every=1)
    command = [LEADLOOP, "push"]
    process = subprocess.Popen(
        command,
        cwd=environment,
        env={**os.environ, "PREFECT_API_URL": prefect},
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(vendor.requests) < 5:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in err
    assert "sending" not in books.statuses(database).values()
    vendor.clear_faults()
    leadloop("push", PREFECT_API_URL=prefect)
    assert set(vendor.books.creations("C1").values()) == {1}
    assert set(books.statuses(database).values()) == {"created"}


@pytest.mark.parametrize(
    ("environment_changes", "arguments", "said"),
    [
        ({"LEADLOOP_API_URL": "http://example.com"}, ["push"], "use https"),
        ({"LEADLOOP_BATCH_SIZE": "many"}, ["push"], "LEADLOOP_BATCH_SIZE"),
        ({"LEADLOOP_RATE_LIMIT": "fast"}, ["push"], "requests/seconds"),
        ({"LEADLOOP_API_TOKEN": ""}, ["push"], "LEADLOOP_API_TOKEN"),
        ({"LEADLOOP_DATABASE_URL": "mysql://x/y"}, ["push"], "not Postgres"),
        ({"LEADLOOP_DATABASE_URL": "postgres://u:pw@127.0.0.1:1/x"}, ["push"], "refused"),
        ({}, ["push", "--campaign", "NOPE"], "unknown campaign NOPE"),
        ({}, ["poll", "--since", "yesterday"], "ISO 8601"),
        ({}, ["backfill", "--after", "2026-01-02T00:00:00Z", "--before", "0"], "before"),
        ({}, ["push", "--nonsense"], "No such option"),
        ({}, ["nonsense"], "No such command"),
        ({}, ["sandbox", "--port", "x"], "--port"),
        ({}, ["requeue"], "say what to requeue"),
        ({}, ["load", "missing.csv", "--campaign", "C1"], "missing.csv"),
        ({}, ["sandbox", "--rule", "nonsense=1"], "nonsense"),
    ],
)
def test_wrong_usage_is_one_line(
    leadloop: Leadloop,
    database: Database,
    environment_changes: dict[str, str],
    arguments: list[str],
    said: str,
) -> None:
    """Exit 2, one line on stderr that says what is wrong, no traceback and no password."""
    books.add_campaign(database)
    ran = leadloop(*arguments, **environment_changes)
    assert ran.code == 2
    assert said in ran.err
    assert len(ran.err.strip().splitlines()) == 1
    assert "pw" not in ran.err


def test_a_schema_that_is_missing_or_too_new_is_told(
    leadloop: Leadloop, database: Database, empty_database_url: str
) -> None:
    """Both say what to do, and exit with 2."""
    missing = leadloop("status", LEADLOOP_DATABASE_URL=empty_database_url)
    assert (missing.code, "leadloop init" in missing.err) == (2, True)
    books.run(database, "UPDATE leadloop.alembic_version SET version_num = '9999'")
    newer = leadloop("status")
    assert (newer.code, "9999" in newer.err) == (2, True)


def test_init_may_be_run_from_two_places_at_once(
    leadloop: Leadloop, environment: Path, empty_database_url: str
) -> None:
    """Both succeed, and so does a third."""
    command = [LEADLOOP, "init", "--json"]
    env = {**os.environ, "LEADLOOP_DATABASE_URL": empty_database_url}
    both = [subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert leadloop("init", LEADLOOP_DATABASE_URL=empty_database_url).code == 0


def test_each_bad_line_of_a_file_is_told_by_number(
    leadloop: Leadloop, environment: Path, database: Database
) -> None:
    """The good ones are loaded all the same, and nothing of a bad one is repeated."""
    good = "7,+14155550123,Ann,CA,gold\n"
    bad = ["8,+14155550124\n", ",+14155550125,Secret Name,CA,gold\n"]
    (environment / "leads.csv").write_text(HEADER + good + "".join(bad) + good)
    ran = leadloop("load", "leads.csv", "--campaign", "C1", "--json")
    assert ran.last == {"loaded": 1, "existing": 1, "bad": 2}
    assert "line 3: 2 columns where the header has 5" in ran.err
    assert "line 4: lead_id is empty" in ran.err
    assert "Secret" not in ran.err
    custom = books.value(database, "SELECT custom_fields FROM leadloop.leads")
    assert custom == {"plan": "gold"}


def test_a_failed_run_says_why_and_what_it_did(
    leadloop: Leadloop, database: Database, vendor: Handle, prefect: str
) -> None:
    """Exit 1, the counts and the error in the JSON, no traceback."""
    vendor.fault(route="create", kind="status", status=403, every=1)
    books.add_campaign(database)
    books.add_leads(database, "a")
    ran = leadloop("push", "--json", PREFECT_API_URL=prefect)
    assert ran.code == 1
    assert "HTTP 403" in ran.last["error"]
    assert ran.last["created"] == 0
    assert "Traceback" not in ran.err


def test_requeue_sends_mended_leads_again(
    leadloop: Leadloop, database: Database, vendor: Handle, prefect: str
) -> None:
    """A rejected lead that upstream has mended goes out after a requeue, and not before."""
    books.add_campaign(database)
    books.add_leads(database, books.lead("a", state_code="XX"))
    leadloop("push", PREFECT_API_URL=prefect)
    books.run(database, "UPDATE leadloop.leads SET state_code = 'CA'")
    assert leadloop("push", "--json", PREFECT_API_URL=prefect).last["created"] == 0
    assert leadloop("requeue", "--rejected", "--json").last == {"rejected": 1}
    assert leadloop("push", "--json", PREFECT_API_URL=prefect).last["created"] == 1


def test_doctor_finds_what_is_wrong(leadloop: Leadloop, database: Database) -> None:
    """Exit 0 when all is well; else 1, with the one check that failed and what to do."""
    books.add_campaign(database)
    well = leadloop("doctor", "--json")
    assert (well.code, {check["ok"] for check in well.last["checks"]}) == (0, {True})
    ill = leadloop("doctor", "--json", LEADLOOP_API_TOKEN="wrong-token")
    assert ill.code == 1
    assert ill.last["checks"][-1]["check"] == "API"
    assert "wrong-token" not in ill.out + ill.err


def test_nothing_personal_is_printed_or_kept_by_prefect(
    leadloop: Leadloop, database: Database, vendor: Handle, environment: Path
) -> None:
    """No phone number, name or token on the screen (DEBUG too) or in Prefect's database."""
    secret = {"phone_number": "+14155550177", "contact_name": "Zebulon Quirk"}
    vendor.fault(route="create", kind="status", status=500, nth=1)
    books.add_campaign(database)
    books.add_leads(database, books.lead("a", **secret), books.lead("b", **secret, state_code="X"))
    ran = leadloop("push", "--json", PREFECT_LOGGING_LEVEL="DEBUG")
    kept = b"".join(path.read_bytes() for path in environment.rglob("*") if path.is_file())
    for private in ("4155550177", "Zebulon", vendor.rules.tokens[0]):
        assert private not in ran.out + ran.err
        assert private.encode() not in kept


def test_every_command_explains_itself(leadloop: Leadloop) -> None:
    """Each has a help text, for itself and for each of its options."""
    for command in app.registered_commands:
        assert command.callback is not None
        assert command.callback.__doc__
    assert "Usage" in leadloop("push", "--help").out


def test_sandbox_serves_until_it_is_told_to_stop(environment: Path) -> None:
    """It says where it listens and how to point at it, and ends quietly on Ctrl-C."""
    command = [LEADLOOP, "sandbox", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "listens on http://127.0.0.1:" in process.stdout.readline()
        assert "LEADLOOP_API_URL=http" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def _processes_in(directory: Path) -> list[str]:
    """Processes that still work in a directory, or were told of it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(directory) in command:
            found.append(command)
    return found


def test_json_output_is_json(leadloop: Leadloop, database: Database) -> None:
    """The last line on stdout is one object, also where nothing was done."""
    books.add_campaign(database)
    out = leadloop("status", "--json").out
    assert list(json.loads(out.splitlines()[-1])) == ["campaigns"]
