"""The command line as a person or a script meets it: real processes."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

from db.database import Database
from leadloop import __version__
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


@pytest.mark.parametrize(
    ("command", "number"),
    [
        ("push", signal.SIGINT),
        ("push", signal.SIGTERM),
        ("sync", signal.SIGINT),
        ("sync", signal.SIGTERM),
    ],
)
def test_a_stopped_run_says_what_it_did_and_leaves_nothing_undecided(
    environment: Path,
    database: Database,
    vendor: Handle,
    leadloop: Leadloop,
    prefect: str,
    command: str,
    number: signal.Signals,
) -> None:
    """Exit 1, one line and the counts; the next one goes on, and no lead is created twice."""
    books.add_campaign(database, batch_size=1)
    books.add_leads(database, *[f"L{number}" for number in range(300)])
    vendor.fault(route="create", kind="slow", seconds=0.2, every=1)
    with subprocess.Popen(
        [LEADLOOP, command, "--json"],
        cwd=environment,
        env={**os.environ, "PREFECT_API_URL": prefect},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while len(vendor.requests) < 12:
            time.sleep(0.05)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.strip().splitlines()[-1].startswith("leadloop: stopped; ")
    assert "Traceback" not in err
    assert "Crash" not in err
    summary = json.loads(out.splitlines()[-1])
    pushed = summary["push"] if command == "sync" else summary
    done = list(books.statuses(database).values())
    assert pushed["created"] == pushed["campaigns"]["C1"]["created"] == done.count("created") > 0
    assert summary["error"].startswith("stopped; ")
    assert "sending" not in done
    rows = books.rows(
        database,
        "SELECT state, counts->>'created' AS created FROM leadloop.sync_runs"
        " WHERE flow = 'push-leads'",
    )
    assert rows == [{"state": "failed", "created": str(pushed["created"])}]
    assert f"### push{'' if command == 'sync' else '-leads'}: created" in _told(database, command)
    vendor.clear_faults()
    leadloop("push", PREFECT_API_URL=prefect)
    assert set(vendor.books.creations("C1").values()) == {1}
    assert set(books.statuses(database).values()) == {"created"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_load_that_is_stopped_says_so(
    environment: Path, database: Database, number: signal.Signals
) -> None:
    """As a run does: one line, the counts, exit 1."""
    with subprocess.Popen(
        [LEADLOOP, "load", "-", "--campaign", "C1", "--json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        lines = (f"{number},+14155550123,Ann,CA,gold\n" for number in range(5500))
        process.stdin.write(HEADER + "".join(lines))
        process.stdin.flush()
        while not books.value(database, "SELECT count(*) FROM leadloop.leads"):
            assert process.poll() is None
            time.sleep(0.1)
        time.sleep(2)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.splitlines()[-1].startswith("leadloop: stopped; ")
    assert json.loads(out)["loaded"] == books.value(database, "SELECT count(*) FROM leadloop.leads")


@pytest.mark.parametrize(
    ("environment_changes", "arguments", "said"),
    [
        ({"LEADLOOP_API_URL": "http://example.com"}, ["push"], "use https"),
        ({"LEADLOOP_BATCH_SIZE": "many"}, ["push"], "LEADLOOP_BATCH_SIZE"),
        ({"LEADLOOP_RATE_LIMIT": "fast"}, ["push"], "requests/seconds"),
        ({"LEADLOOP_API_TOKEN": ""}, ["push"], "LEADLOOP_API_TOKEN"),
        ({"LEADLOOP_DATABASE_URL": "mysql://x/y"}, ["push"], "not Postgres"),
        ({"LEADLOOP_DATABASE_URL": ""}, ["push"], "postgresql://user@host:5432/database, or `emb"),
        ({"LEADLOOP_DATABASE_URL": ""}, ["load", "x", "--campaign", "C1"], "is not set"),
        ({"LEADLOOP_DATABASE_URL": ""}, ["status", "--json"], "is not set"),
        ({"LEADLOOP_DATABASE_URL": ""}, ["monitor"], "is not set"),
        (
            {"LEADLOOP_DATABASE_URL": "", "LEADLOOP_DATABSE_URL": "pw"},
            ["status"],
            "LEADLOOP_DATABSE_URL is not a setting, did you mean LEADLOOP_DATABASE_URL?",
        ),
        ({"LEADLOOP_BATCHSIZE": "5"}, ["poll"], "did you mean LEADLOOP_BATCH_SIZE?"),
        (
            {"LEADLOOP_MONITOR_DATABASE_URL": "embedded"},
            ["monitor"],
            "LEADLOOP_MONITOR_DATABASE_URL is wrong: not a URL; write postgresql://",
        ),
        ({"LEADLOOP_SOURCE_URL": "pw"}, ["status"], "LEADLOOP_SOURCE_URL is wrong: not a URL"),
        ({"LEADLOOP_DATABASE_URL": "postgres://u:pw@127.0.0.1:1/x"}, ["push"], "refused"),
        ({"LEADLOOP_DATABASE_URL": "postgres://u:x@pw/y@h/x"}, ["push"], "%40"),
        ({"PREFECT_API_URL": "http://[::1"}, ["push"], "PREFECT_API_URL is not a URL"),
        ({"PREFECT_API_URL": "http://127.0.0.1:1/api"}, ["push"], "no server answers there"),
        ({"PREFECT_API_URL": "http://127.0.0.1:1/api"}, ["deploy"], "no server answers there"),
        ({}, ["deploy"], "name the Prefect server"),
        ({}, ["push", "--campaign", ""], "--campaign is empty"),
        ({}, ["backfill", "--after", "5", "--before", "5"], "the range is empty"),
        ({}, ["push", "--campaign", "NOPE"], "unknown campaign NOPE"),
        ({}, ["poll", "--since", "yesterday"], "ISO 8601"),
        ({}, ["backfill", "--after", "2026-01-02T00:00:00Z", "--before", "0"], "before"),
        ({}, ["push", "--nonsense"], "No such option"),
        ({}, ["nonsense"], "No such command"),
        ({}, ["sandbox", "--port", "x"], "--port"),
        ({}, ["requeue"], "name what to requeue"),
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


def test_a_name_like_a_setting_that_is_set_is_a_warning(
    leadloop: Leadloop, database: Database, prefect: str
) -> None:
    """The opt-outs are sent all the same; one line on stderr names both variables."""
    books.add_campaign(database)
    ran = leadloop("disable", LEADLOOP_TOKEN="pw", PREFECT_API_URL=prefect)
    assert ran.code == 0
    assert ran.err.count("LEADLOOP_TOKEN") == 1
    assert "LEADLOOP_API_TOKEN is set" in ran.err
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


def test_the_embedded_database_is_asked_for_and_named(
    leadloop: Leadloop, environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command says that it uses it, doctor where it is set; unset, its data are not lost."""
    monkeypatch.delenv("LEADLOOP_DATABASE_URL")
    unset = leadloop("init")
    assert (unset.code, ".leadloop/pg" in unset.err) == (2, False)
    assert not (environment / ".leadloop").exists()
    (environment / ".env").write_text("LEADLOOP_DATABASE_URL=embedded\n")
    made = leadloop("init", "--json")
    assert (made.code, list(made.last), made.out.count("\n")) == (0, ["version"], 1)
    assert made.err == "leadloop: embedded Postgres in ./.leadloop\n"
    checks = {each["check"]: each["detail"] for each in leadloop("doctor", "--json").last["checks"]}
    assert checks["database"].startswith("embedded Postgres in ./.leadloop, ")
    assert "database_url from .env" in checks["settings"]
    (environment / ".env").unlink()
    later = leadloop("status")
    assert (later.code, len(later.err.splitlines())) == (2, 1)
    assert ".leadloop/pg holds data" in later.err


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
    assert "note: custom fields: plan" in ran.err
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
    assert ran.err.count("HTTP 403") == 1


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


@pytest.mark.parametrize("flow", ["push", "sync"])
def test_a_ca_bundle_that_is_none_ends_a_run_at_its_start(
    leadloop: Leadloop, database: Database, prefect: str, flow: str
) -> None:
    """One line names the variable; no lead was claimed, so none is in doubt."""
    books.add_campaign(database)
    books.add_leads(database, *(f"L{n}" for n in range(9)))
    environment = {"LEADLOOP_API_URL": "https://127.0.0.1:1", "REQUESTS_CA_BUNDLE": "/no/ca.pem"}
    ran = leadloop(flow, PREFECT_API_URL=prefect, **environment)
    assert ran.code == 1
    assert ran.err.splitlines()[-1].startswith("leadloop: REQUESTS_CA_BUNDLE names no file")
    assert "Traceback" not in ran.err
    assert set(books.statuses(database).values()) == {"new"}
    assert books.value(database, "SELECT max(sent_at) FROM leadloop.leads") is None
    doctor = leadloop("doctor", **environment)
    assert doctor.code == 1
    assert "REQUESTS_CA_BUNDLE names no file" in doctor.out


@pytest.mark.parametrize(
    ("changes", "code", "failing"),
    [
        ({}, 0, []),
        ({"LEADLOOP_API_TOKEN": "wrong-token"}, 1, ["API"]),
        (
            {"LEADLOOP_API_TOKEN": "", "PREFECT_API_URL": "http://127.0.0.1:1/api"},
            2,
            ["login", "Prefect"],
        ),
        ({"LEADLOOP_DATABASE_URL": "postgresql://127.0.0.1:1/x"}, 1, ["database"]),
        ({"LEADLOOP_DATABASE_URL": "mysql://127.0.0.1:1/x"}, 2, ["settings"]),
        ({"LEADLOOP_DATABASE_URL": ""}, 2, ["settings"]),
        ({"LEADLOOP_BATCHSIZE": "5"}, 2, ["settings"]),
    ],
)
def test_doctor_finds_what_is_wrong(
    leadloop: Leadloop, database: Database, changes: dict[str, str], code: int, failing: list[str]
) -> None:
    """Exit 2 for settings, 1 for what does not answer; what rests on neither is looked at still."""
    books.add_campaign(database)
    ran = leadloop("doctor", "--json", **changes)
    assert ran.code == code
    assert [check["check"] for check in ran.last["checks"] if not check["ok"]] == failing
    assert ran.last["checks"][-1]["check"] == "Prefect"
    assert "wrong-token" not in ran.out + ran.err


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
        assert process.stdout.readline().startswith("export LEADLOOP_API_URL=http")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def _told(database: Database, command: str) -> str:
    """What the last run of a command has left in Prefect's page."""
    last = "SELECT max(flow_run_id) FROM leadloop.sync_runs WHERE flow = :flow"
    run = UUID(books.value(database, last, flow=f"{command}-leads"))
    wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=wanted)
    return "\n".join(str(each.data) for each in found)


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
    assert list(json.loads(out.splitlines()[-1])) == ["campaigns", "problems"]


def test_status_tells_how_late_outcomes_came(
    leadloop: Leadloop, database: Database, vendor: Handle, prefect: str
) -> None:
    """By campaign, how many were late and the lookback that finds such; 0 where none was."""
    for campaign in ("C1", "C2"):
        books.add_campaign(database, campaign)
        books.add_leads(database, "a", campaign=campaign)
    for command in ("push", "poll"):
        leadloop(command, PREFECT_API_URL=prefect)
    item = {"campaign_id": "C1", "lead_id": "a", "outcome_id": 1}
    vendor.put([{**item, "processed_at": vendor.now() - 600_000}])
    leadloop("poll", PREFECT_API_URL=prefect)
    late, none = leadloop("status", "--json").last["campaigns"]
    assert (late["late"], none["late"], none["lookback_needed_s"]) == (1, 0, 0)
    assert 500 < late["lookback_needed_s"] <= 601
    lines = leadloop("status", "--campaign", "C1").out.splitlines()
    (count,) = [line for line in lines if "late outcomes" in line and "lookback" not in line]
    (needed,) = [line for line in lines if "lookback needed" in line]
    assert ([word for word in count.split() if word.isdigit()], "min" in needed) == (["1"], True)


def test_idle_options_are_told(
    leadloop: Leadloop, database: Database, vendor: Handle, prefect: str
) -> None:
    """A run does its work, and says on stderr what was probably not meant, or is left to do."""
    books.add_campaign(database)
    where = {"PREFECT_API_URL": prefect}
    idle = leadloop("poll", "--json", **where)
    assert (idle.code, idle.last["requests"]) == (0, 0)
    assert "campaign C1: nothing was sent yet" in idle.err
    books.add_leads(database, "a", "b")
    vendor.fault(route="create", kind="reset", when="after", nth=1)
    vendor.change(lead_visible_after=3600)
    pushed = leadloop("push", "--json", **where)
    assert pushed.last["in_doubt"] == 2
    assert "leads in doubt: 2; " in pushed.err
    books.opt_out(database, "a")
    assert "opt-outs waiting: 1; leadloop disable" in leadloop("push", **where).err
    leadloop("poll", **where)
    assert "--since does not count" in leadloop("poll", "--since", "0", **where).err


@pytest.mark.parametrize(
    ("arguments", "redirection", "code"),
    [
        ("status --json", "> /dev/full", 0),
        ("status", ">&-", 0),
        ("status", "| true", 0),
        ("status --nonsense", "2>&-", 2),
        ("status --nonsense", "2> /dev/full", 2),
    ],
)
def test_output_that_nobody_takes_ends_no_command(
    leadloop: Leadloop, environment: Path, arguments: str, redirection: str, code: int
) -> None:
    """The exit code is the command's own, and no `Exception ignored` is seen."""
    script = f'{{ "{LEADLOOP}" {arguments}; echo $? > code; }} {redirection}'
    ran = subprocess.run(["bash", "-c", script], cwd=environment, capture_output=True, text=True)
    assert (environment / "code").read_text() == f"{code}\n"
    assert "Exception" not in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_campaign_s_id_is_no_markup(leadloop: Leadloop, database: Database, prefect: str) -> None:
    """Ids are the vendor's: brackets in them end no command."""
    for campaign in ("[/x]", "[red]y"):
        books.add_campaign(database, campaign)
        books.add_leads(database, books.lead("a", state_code="XX"), campaign=campaign)
    ran = leadloop("push", PREFECT_API_URL=prefect)
    assert (ran.code, "[/x]" in ran.out, "[red]y" in ran.out) == (0, True, True)
    assert "[red]y" in leadloop("status").out


def test_two_demos_or_none(environment: Path, leadloop: Leadloop) -> None:
    """Where another demo runs, or nothing may be written, one line says so."""
    demo = environment / ".leadloop" / "demo"
    demo.mkdir(parents=True)
    with (demo / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = leadloop("demo")
    assert (second.code, len(second.err.splitlines())) == (2, 1)
    assert "another `leadloop demo` runs" in second.err
    (demo / "leads.csv").mkdir()
    refused = leadloop("demo")
    assert (refused.code, len(refused.err.splitlines())) == (2, 1)
    assert "cannot write to" in refused.err


def test_the_version_is_told(leadloop: Leadloop) -> None:
    """As every program does."""
    assert leadloop("--version").out == f"leadloop {__version__}\n"
