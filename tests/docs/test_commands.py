"""Commands that documents, automations and problems name: each is understood, and does its work."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer
from prefect.cli._app import _app as prefect_app

from db.database import Database
from db.problem_kinds import PROBLEM_KINDS
from leadloop.cli.app import app
from leadloop.sandbox import SandboxHandle
from tests import factories, sql
from tests.cli.conftest import LEADLOOP, Command
from tests.docs.documented_commands import (
    ROOT,
    DocumentedCommand,
    find_blocks,
    list_copied,
    list_mentioned,
)
from tests.jobs import push_leads
from tests.local.conftest import free_port

_GROUP: Any = typer.main.get_command(app)
#: Prefect's commands, without the options that come before the name of one.
_PREFECT: Any = prefect_app
#: Commands that go on until Ctrl-C, that read standard input, or that change the Prefect server of
#: all tests; tests of their own run them.
_NOT_RUN = {"live", "metrics", "monitor", "sandbox", "up", "demo", "deploy"}
_ANY_COMMAND = {"…", "NAME", "VALUE"}
_ASKING = {"forget", "first-contact", "--left-source"}
_COPIED = list_copied()
_RUN = [
    command
    for command in _COPIED
    if command.words[0] == "leadloop"
    and command.words[1] not in _NOT_RUN
    and not {"-", "--version"}.intersection(command.words)
]


def understand(words: tuple[str, ...]) -> None:
    """Parse a command as the program itself does; raise what the program would report."""
    program, *arguments = words
    if program == "prefect":
        _PREFECT.parse_args(arguments, print_error=False, exit_on_error=False)
    elif arguments[0].startswith("-"):
        assert {arguments[0]} <= _list_options(_GROUP)
    else:
        name, *rest = arguments
        _GROUP.commands[name].make_context(name, rest)


def _list_options(command: Any) -> set[str]:
    options = {text for each in command.params for text in (*each.opts, *each.secondary_opts)}
    return options | {"-h", "--help"}


@pytest.mark.parametrize("command", dict.fromkeys(_COPIED), ids=str)
def test_commands_to_copy_are_understood(command: DocumentedCommand) -> None:
    """Each command of a shell block has no usage error: name, options, values, what is required."""
    understand(command.words)


@pytest.mark.parametrize(
    "command", sorted({command for kind in PROBLEM_KINDS for command in kind.commands})
)
def test_commands_of_problems_are_understood(command: str) -> None:
    """With the campaign that the view adds, and the range that it adds to a backfill."""
    words = shlex.split(command)
    words += [] if words[1] == "doctor" else ["--campaign", "12345"]
    words += ["--after", "2026-01-31T09:00:00Z", "--before", "1"] if "backfill" in words else []
    understand(tuple(words))


def test_commands_in_sentences_exist() -> None:
    """A name and options in code marks, in a document, an automation, a message or the schema."""
    unknown = []
    for source, text in list_mentioned():
        program, *words = re.split(r"[\s=]+", text)
        if words[0] in _ANY_COMMAND:
            continue
        named = [word for word in words if word.startswith("--")]
        if program == "prefect":
            words = [word for word in words if word != "--no-prompt"]
            chain, apps, rest = _PREFECT.parse_commands(words)
            if not chain or (rest and apps[-1].default_command is None):
                unknown.append(f"{source}: {text}")
        elif words[0] not in _GROUP.commands:
            if not words[0].startswith("--"):
                unknown.append(f"{source}: {text}")
        elif not set(named) <= _list_options(_GROUP.commands[words[0]]):
            unknown.append(f"{source}: {text}")
    assert unknown == []


#: A window whose outcome the vendor cannot show, in one document, and the moment of the outcome.
_OWED = ("2026-01-31T09:00:00.123Z", "2026-01-31T09:00:00.125Z")
_OWED_MS = 1_769_850_000_124


def make_unreadable(database: Database, vendor: SandboxHandle) -> None:
    """Have each read of the owed window fail, on the outcome of a lead that the vendor has."""
    push_leads(["12345"])
    outcome = {"campaign_id": "12345", "lead_id": "T-1", "processed_at": _OWED_MS, "outcome_id": 1}
    assert vendor.put_outcomes([outcome])["stored"] == 1
    vendor.add_fault(route="responses", kind="status", lead_id="T-1", every=1)


def add_source(database: Database, vendor: SandboxHandle) -> None:
    """Give the campaign a table of the team's own."""
    sql.execute_script(
        database,
        """CREATE SCHEMA crm;
           CREATE TABLE crm.leads (lead_id text, phone_number text, contact_name text,
                                   state_code text);
           UPDATE leadloop.campaigns SET source = 'crm.leads' WHERE campaign_id = '12345'""",
    )


#: What a document takes for granted.
_PREPARE = {
    "docs/how-to/accept-unreadable-windows.md": make_unreadable,
    "docs/how-to/bring-your-own-table.md": add_source,
    "docs/how-to/run-live.md": add_source,
}
#: Commands that exit with 1 there: there is a problem; a window stays unreadable.
_FAIL = {
    ("docs/how-to/dashboards-and-alerts.md", "status"),
    ("docs/how-to/accept-unreadable-windows.md", "poll"),
}


@pytest.fixture
def scene(database: Database, environment: Path) -> None:
    """The campaigns, leads, windows and files that the documents name in their examples."""
    for campaign in ("12345", "67890"):
        factories.add_campaign(database, campaign)
    for number, lead_id in enumerate(("A-1", "A-2", "A-17", "T-1", "T-2")):
        lead = factories.build_lead(lead_id, phone_number=factories.build_phone(number))
        factories.add_leads(database, lead, campaign="12345")
    factories.add_opt_outs(database, "A-1", campaign="12345")
    sql.execute(database, "ALTER TABLE leadloop.owed_windows ALTER owed_id RESTART WITH 7")
    factories.owe_window(database, *_OWED, campaign="12345")
    header = "lead_id,phone_number,contact_name,state_code\n"
    for name in ("leads.csv", "corrected.csv"):
        (environment / name).write_text(f"{header}A-3,(415) 555-0123,Example Person,CA\n")


@pytest.mark.servers
@pytest.mark.usefixtures("scene", "quick_retries")
@pytest.mark.parametrize("document", sorted({command.document for command in _RUN}))
def test_commands_to_copy_do_their_work(
    document: str, invoke: Command, database: Database, vendor: SandboxHandle, prefect: str
) -> None:
    """Run one after another as a reader of the document would, on a database and the sandbox."""
    if document in _PREPARE:
        _PREPARE[document](database, vendor)
    failed = []
    for command in _RUN:
        if command.document != document:
            continue
        arguments = list(command.words[1:])
        if _ASKING.intersection(arguments) and "--yes" not in arguments:
            arguments.append("--yes")
        ran = invoke(*arguments, PREFECT_API_URL=prefect)
        if ran.code != int((document, arguments[0]) in _FAIL):
            failed.append(f"{command}: exit {ran.code}: {ran.err}")
    assert not failed, "\n".join(failed)


@pytest.mark.servers
@pytest.mark.timeout(400)
def test_the_trial_of_the_readme_works_as_written(tmp_path: Path) -> None:
    """In a new terminal, with the sandbox in another one; and shows what the comments state."""
    blocks = find_blocks(ROOT / "README.md", "sh")
    (setup,) = [block for block in blocks if "mkdir ~/leadloop-trial" in block]
    (loop,) = [block for block in blocks if block.startswith("leadloop init") and "forget" in block]
    (rule,) = [block for block in blocks if block.startswith("leadloop sandbox")]
    lines = [line.partition("#")[0].rstrip() + " --json" for line in loop.splitlines()]
    with _run_sandbox(rule, tmp_path) as url:
        script = "\n".join([setup, *lines]).replace("http://127.0.0.1:8080", url)
        ran = subprocess.run(
            ["bash", "-ec", script],
            cwd=tmp_path,
            env=_build_environment(tmp_path),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    assert ran.returncode == 0, ran.stderr
    printed = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    shown = {line.split()[1]: each for line, each in zip(lines, printed, strict=True)}
    stated = {line.split()[1]: line for line in loop.splitlines()}
    for command, key, words in (
        ("plan", "send", "leads to send"),
        ("plan", "refuse", "to reject"),
        ("push", "created", "created"),
        ("push", "rejected", "rejected"),
    ):
        (number,) = re.findall(rf"(\d+) {words}", stated[command])
        assert shown[command][key] == int(number), stated[command]
    (rejection,) = shown["push"]["campaigns"]["12345"]["rejections"]
    assert rejection["sample_lead_ids"] == ["A-3"]
    assert shown["poll"]["inserted"] <= 2
    assert shown["disable"]["disabled"] == 1


@contextmanager
def _run_sandbox(command: str, directory: Path) -> Iterator[str]:
    """Run the sandbox on a free port for the block; yield its URL."""
    port = str(free_port())
    arguments = shlex.split(command)[1:]
    arguments[arguments.index("8080")] = port
    with subprocess.Popen(
        [LEADLOOP, *arguments], cwd=directory, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline().startswith("The sandbox listens")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGINT)


def _build_environment(home: Path) -> dict[str, str]:
    """Return the environment of a shell of somebody who has a checkout in `~/leadloop`."""
    programs = home / "leadloop" / ".venv"
    programs.mkdir(parents=True)
    (programs / "bin").symlink_to(Path(sys.executable).parent)
    ours = ("LEADLOOP_", "PREFECT_")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
    return {**kept, "HOME": str(home)}
