"""`leadloop first-contact` as a person types it: in a real terminal, and in a script."""

import os
import pty
import subprocess
from pathlib import Path

from db.database import Database
from leadloop.sandbox import SandboxHandle
from tests import factories, sql
from tests.cli.conftest import LEADLOOP, Command
from tests.waiting import wait_until


def test_a_script_agrees_to_all(invoke: Command, database: Database, vendor: SandboxHandle) -> None:
    """Each step is named on stderr all the same; stdout has what was learned."""
    factories.add_campaign(database)
    factories.add_leads(database, "1", "2")
    ran = invoke("first-contact", "-c", "C1", "--lead-id", "1", "--lead-id", "2", "--yes", "--json")
    assert ran.code == 0, ran.err
    assert ran.last["leads"] == {"1": "created", "2": "created"}
    assert ran.last["learned"]["create_success"] == "HTTP 201 {created: number, errors: []}"
    assert "\nCreate 1 in one request" in ran.err
    assert "Ann" not in ran.out + ran.err
    again = invoke("first-contact", "-c", "C1", "--lead-id", "1", "--yes")
    assert "create_success: HTTP 201 {created: number, errors: []}" in again.out.splitlines()
    assert again.out.startswith("1: created\n")
    assert vendor.store.creations("C1") == {"1": 1, "2": 1}


def test_a_repeated_create_that_is_killed_is_not_sent_a_third_time(
    environment: Path, invoke: Command, database: Database, vendor: SandboxHandle
) -> None:
    """Kill -9 between the request and its answer, then the same command again."""
    factories.add_campaign(database)
    factories.add_leads(database, "1")
    vendor.add_fault(route="create", kind="hang", when="after", seconds=60, nth=3)
    command = ["first-contact", "-c", "C1", "--lead-id", "1", "--repeat-id", "--yes"]
    with subprocess.Popen(
        [LEADLOOP, *command], cwd=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as contact:
        wait_until(lambda: vendor.store.offers("C1").get("1") == 2, "no repeated create")
        contact.kill()
    sql.wait_for_run_locks(database, 0)
    ran = invoke(*command, "--json")
    assert ran.code == 0, ran.err
    assert ran.last["leads"] == {"1": "created"}
    assert ran.last["learned"]["repeated_id"] == "sent; its answer is not known"
    assert vendor.store.offers("C1") == {"1": 2}


def test_without_a_person_to_ask_nothing_begins(
    invoke: Command, database: Database, vendor: SandboxHandle
) -> None:
    """Wrong usage, in one line."""
    factories.add_campaign(database)
    factories.add_leads(database, "1")
    ran = invoke("first-contact", "-c", "C1", "--lead-id", "1")
    assert (ran.code, ran.out) == (2, "")
    assert "run it in a terminal, or with --yes" in ran.err
    assert vendor.requests == []


def test_a_failure_is_one_line_and_keeps_what_was_learned(
    invoke: Command, database: Database, vendor: SandboxHandle
) -> None:
    """The campaign is paused: the steps before were taken."""
    factories.add_campaign(database, push_enabled=False)
    factories.add_leads(database, "1")
    ran = invoke("first-contact", "-c", "C1", "--lead-id", "1", "--yes", "--json")
    assert ran.code == 1
    assert list(ran.last["learned"]) == ["empty_create"]
    assert ran.last["error"].startswith("not all of 1 were sent (no request)")
    assert ran.err.splitlines()[-1].startswith("leadloop: not all of 1 were sent")


def test_a_terminal_asks_and_takes_no_for_an_answer(
    environment: Path, database: Database, vendor: SandboxHandle
) -> None:
    """Whatever is not agreed to is not sent; Enter alone means no."""
    factories.add_campaign(database)
    factories.add_leads(database, "1", "2")
    ours, theirs = pty.openpty()
    try:
        os.write(ours, b"y\n\ny\nn\n" + b"n\n" * 6)
        ran = subprocess.run(
            [LEADLOOP, "first-contact", "-c", "C1", "--lead-id", "1", "--lead-id", "2"],
            cwd=environment,
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=120,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("Go on? [y/N]") >= 4
    # Read: yes; the empty create: no; the first lead: yes; look it up, the others: no.
    assert vendor.store.creations("C1") == {"1": 1}
    assert [request.kind for request in vendor.requests][:2] == ["responses", "create"]
    assert sql.fetch_statuses(database) == {"1": "created", "2": "new"}
