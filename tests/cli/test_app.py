"""The commands themselves: help, version, JSON, and those without a module."""

import json
import os
import signal
import subprocess
from pathlib import Path

from db.database import Database
from leadloop import __version__
from leadloop.cli.app import app
from tests import factories
from tests.cli.conftest import LEADLOOP, Command


def test_every_command_explains_itself(invoke: Command) -> None:
    """Each has a help text, for itself and for each of its options."""
    for command in app.registered_commands:
        assert command.callback is not None
        assert command.callback.__doc__
    assert "Usage" in invoke("push", "--help").out


def test_the_version_is_told(invoke: Command) -> None:
    """As every program does."""
    assert invoke("--version").out == f"leadloop {__version__}\n"


def test_json_output_is_json(invoke: Command, database: Database) -> None:
    """The last line on stdout is one object, also where nothing was done."""
    factories.add_campaign(database)
    out = invoke("status", "--json").out
    assert list(json.loads(out.splitlines()[-1])) == ["campaigns", "problems", "latencies"]


def test_init_may_be_run_from_two_places_at_once(
    invoke: Command, environment: Path, empty_database_url: str
) -> None:
    """Both succeed, and so does a third."""
    command = [LEADLOOP, "init", "--json"]
    env = {**os.environ, "LEADLOOP_DATABASE_URL": empty_database_url}
    both = [subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert invoke("init", LEADLOOP_DATABASE_URL=empty_database_url).code == 0


def test_sandbox_serves_until_it_is_told_to_stop(environment: Path) -> None:
    """It says where it listens and how to point at it, and ends quietly on Ctrl-C."""
    command = [LEADLOOP, "sandbox", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "listens on http://127.0.0.1:" in process.stdout.readline()
        assert process.stdout.readline().startswith("export LEADLOOP_API_URL=http")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
