"""The flow commands: `push`, `poll`, `sync` and the others."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

from db.database import Database
from leadloop.sandbox import SandboxHandle
from tests import factories, sql
from tests.cli.conftest import LEADLOOP, Command


def test_the_loop_of_local_runs(
    invoke: Command, environment: Path, database: Database, vendor: SandboxHandle, prefect: str
) -> None:
    """Load, sync and status do what they say, with one JSON object as the last line each."""
    lines = [
        f"{number:03d},{factories.build_phone(number)},Ann {number},NY,gold\n"
        for number in range(30)
    ]
    header = "lead_id,phone_number,contact_name,state_code,plan\n"
    (environment / "leads.csv").write_text(header + "".join(lines))
    assert invoke("load", "leads.csv", "--campaign", "C1", "--json").last == {
        "loaded": 30,
        "existing": 0,
        "bad": 0,
    }
    vendor.change_rules(pace=0.01)
    summary = invoke("sync", "--json", PREFECT_API_URL=prefect).last
    assert summary["push"]["created"] == 30
    poll = invoke("poll", "--json", PREFECT_API_URL=prefect).last
    assert poll["inserted"] + summary["poll"]["inserted"] == 30
    (row,) = invoke("status", "--json").last["campaigns"]
    assert (row["created"], row["processed"], row["new"]) == (30, 30, 0)
    assert sql.fetch_value(database, "SELECT min(lead_id) FROM leadloop.leads") == "000"
    assert json.loads(vendor.store.leads("C1")[0].custom or b"") == {"plan": "gold"}


def test_a_run_brings_its_own_prefect_server_and_leaves_nothing(
    leadloop: Command, environment: Path, database: Database
) -> None:
    """Without PREFECT_API_URL a run works, and no process of it remains."""
    factories.add_campaign(database)
    factories.add_leads(database, "a")
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
    vendor: SandboxHandle,
    invoke: Command,
    prefect: str,
    command: str,
    number: signal.Signals,
) -> None:
    """Exit 1, one line and the counts; the next one goes on, and no lead is created twice."""
    factories.add_campaign(database, batch_size=1)
    factories.add_leads(database, *[f"L{number}" for number in range(300)])
    vendor.add_fault(route="create", kind="slow", seconds=0.2, every=1)
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
    done = list(sql.fetch_statuses(database).values())
    assert pushed["created"] == pushed["campaigns"]["C1"]["created"] == done.count("created") > 0
    assert summary["error"].startswith("stopped; ")
    assert "sending" not in done
    rows = sql.fetch_rows(
        database,
        "SELECT state, counts->>'created' AS created FROM leadloop.sync_runs"
        " WHERE flow = 'push-leads' AND campaign_id <> ''",
    )
    assert rows == [{"state": "failed", "created": str(pushed["created"])}]
    assert f"### push{'' if command == 'sync' else '-leads'}: created" in _read_artifacts(
        database, command
    )
    vendor.clear_faults()
    invoke("push", PREFECT_API_URL=prefect)
    assert set(vendor.store.creations("C1").values()) == {1}
    assert set(sql.fetch_statuses(database).values()) == {"created"}


def test_a_failed_run_says_why_and_what_it_did(
    leadloop: Command, database: Database, vendor: SandboxHandle, prefect: str
) -> None:
    """Exit 1, the counts and the error in the JSON, no traceback."""
    vendor.add_fault(route="create", kind="status", status=403, every=1)
    factories.add_campaign(database)
    factories.add_leads(database, "a")
    ran = leadloop("push", "--json", PREFECT_API_URL=prefect)
    assert ran.code == 1
    assert "HTTP 403" in ran.last["error"]
    assert ran.last["created"] == 0
    assert "Traceback" not in ran.err
    assert ran.err.count("HTTP 403") == 1


def test_a_name_like_a_setting_that_is_set_is_a_warning(
    leadloop: Command, database: Database, prefect: str
) -> None:
    """The opt-outs are sent all the same; one line on stderr names both variables."""
    factories.add_campaign(database)
    ran = leadloop("disable", LEADLOOP_TOKEN="pw", PREFECT_API_URL=prefect)
    assert ran.code == 0
    assert ran.err.count("LEADLOOP_TOKEN") == 1
    assert "LEADLOOP_API_TOKEN is set" in ran.err
    assert "pw" not in ran.err


@pytest.mark.parametrize("flow", ["push", "sync"])
def test_a_ca_bundle_that_is_none_ends_a_run_at_its_start(
    invoke: Command, database: Database, prefect: str, flow: str
) -> None:
    """One line names the variable; no lead was claimed, so none is in doubt."""
    factories.add_campaign(database)
    factories.add_leads(database, *(f"L{n}" for n in range(9)))
    environment = {"LEADLOOP_API_URL": "https://127.0.0.1:1", "REQUESTS_CA_BUNDLE": "/no/ca.pem"}
    ran = invoke(flow, PREFECT_API_URL=prefect, **environment)
    assert ran.code == 1
    assert ran.err.splitlines()[-1].startswith("leadloop: REQUESTS_CA_BUNDLE names no file")
    assert "Traceback" not in ran.err
    assert set(sql.fetch_statuses(database).values()) == {"new"}
    assert sql.fetch_value(database, "SELECT max(sent_at) FROM leadloop.leads") is None
    doctor = invoke("doctor", **environment)
    assert doctor.code == 1
    assert "REQUESTS_CA_BUNDLE names no file" in doctor.out


def test_idle_options_are_told(
    invoke: Command, database: Database, vendor: SandboxHandle, prefect: str
) -> None:
    """A run does its work, and says on stderr what was probably not meant, or is left to do."""
    factories.add_campaign(database)
    where = {"PREFECT_API_URL": prefect}
    idle = invoke("poll", "--json", **where)
    assert (idle.code, idle.last["requests"]) == (0, 0)
    assert "campaign C1: no lead was sent yet" in idle.err
    factories.add_leads(database, "a", "b")
    vendor.add_fault(route="create", kind="reset", when="after", nth=1)
    vendor.change_rules(lead_visible_after=3600)
    pushed = invoke("push", "--json", **where)
    assert pushed.last["in_doubt"] == 2
    assert "leads in doubt: 2; " in pushed.err
    factories.add_opt_outs(database, "a")
    assert "opt-outs waiting: 1; " in invoke("push", **where).err
    invoke("poll", **where)
    assert "--since does not count" in invoke("poll", "--since", "2026-01-01T00:00Z", **where).err


def test_a_campaign_s_id_is_no_markup(invoke: Command, database: Database, prefect: str) -> None:
    """Ids are the vendor's: brackets in them end no command."""
    for campaign in ("[/x]", "[red]y"):
        factories.add_campaign(database, campaign)
        factories.add_leads(database, factories.build_lead("a", state_code="XX"), campaign=campaign)
    ran = invoke("push", PREFECT_API_URL=prefect)
    assert (ran.code, "[/x]" in ran.out, "[red]y" in ran.out) == (0, True, True)
    assert "[red]y" in invoke("status").out


def test_nothing_personal_is_printed_or_kept_by_prefect(
    leadloop: Command, database: Database, vendor: SandboxHandle, environment: Path
) -> None:
    """No phone number, name or token on the screen (DEBUG too) or in Prefect's database."""
    secret = {"phone_number": "+14155550177", "contact_name": "Zebulon Quirk"}
    vendor.add_fault(route="create", kind="status", status=500, nth=1)
    factories.add_campaign(database)
    factories.add_leads(
        database,
        factories.build_lead("a", **secret),
        factories.build_lead("b", **secret, state_code="X"),
    )
    ran = leadloop("push", "--json", PREFECT_LOGGING_LEVEL="DEBUG")
    kept = b"".join(path.read_bytes() for path in environment.rglob("*") if path.is_file())
    for private in ("4155550177", "Zebulon", vendor.rules.tokens[0]):
        assert private not in ran.out + ran.err
        assert private.encode() not in kept


def _read_artifacts(database: Database, command: str) -> str:
    """Return the artifacts of the last run of a command, as Prefect's page shows them."""
    last = "SELECT max(flow_run_id) FROM leadloop.sync_runs WHERE flow = :flow"
    run = UUID(sql.fetch_value(database, last, flow=f"{command}-leads"))
    wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=wanted)
    return "\n".join(str(each.data) for each in found)


def _processes_in(directory: Path) -> list[str]:
    """List the processes whose command line names a directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(directory) in command:
            found.append(command)
    return found


def test_a_push_has_a_limit(
    invoke: Command, database: Database, vendor: SandboxHandle, prefect: str
) -> None:
    """Of the flow that deployments run; below one it is wrong usage."""
    factories.add_campaign(database)
    factories.add_leads(database, "a", "b", "c")
    ran = invoke("push", "--limit", "2", "--json", PREFECT_API_URL=prefect)
    assert (ran.code, ran.last["created"]) == (0, 2), ran.err
    assert len(vendor.store.creations(factories.CAMPAIGN)) == 2
    assert invoke("push", "--limit", "0", PREFECT_API_URL=prefect).code == 2
