"""The commands themselves: help, version, JSON, and those without a module."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from db.database import Database
from leadloop import __version__
from leadloop.cli.app import app
from tests import factories, sql
from tests.cli.conftest import LEADLOOP, Command


def test_every_command_explains_itself(invoke: Command) -> None:
    """Each has a help text, for itself and for each of its options."""
    for command in app.registered_commands:
        assert command.callback is not None
        assert command.callback.__doc__
    assert "Usage" in invoke("push", "--help").out


@pytest.mark.parametrize("arguments", [(), ("push",), ("load",), ("sandbox",)])
def test_the_short_form_of_help(invoke: Command, arguments: tuple[str, ...]) -> None:
    """Of the program and of each command, wherever it is typed."""
    short, long = (invoke(*arguments, option) for option in ("-h", "--help"))
    assert (short.code, short.err) == (0, "")
    assert short.out == long.out
    assert "Usage" in short.out


def test_the_version_is_told(invoke: Command) -> None:
    """As every program does."""
    assert invoke("--version").out == f"leadloop {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("push", "--campaign", "caf\udce9"),
        ("status", "-c", "caf\udce9"),
        ("load", "no such file\udce9.csv", "-c", "C1"),
        ("requeue", "--rejected", "--lead-id=\udce9"),
    ],
)
def test_an_argument_that_is_not_utf8(invoke: Command, arguments: tuple[str, ...]) -> None:
    """One line; a file's name may be in any encoding."""
    ran = invoke(*arguments)
    assert ran.code == 2
    (line,) = ran.err.splitlines()
    assert "is not UTF-8: check the encoding of the terminal" in line


def test_a_file_whose_name_is_not_utf8(
    invoke: Command, environment: Path, database: Database
) -> None:
    """It is loaded."""
    name = "caf\udce9.csv"
    (environment / name).write_text("lead_id,phone_number\n7,1\n")
    assert invoke("load", name, "-c", "C1", "--json").last["loaded"] == 1
    assert "blank at an end" in invoke("load", name, "-c", "C1 ").err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("backfill", "--after", "1700000000", "--before", "1800000000"), "epoch seconds"),
        (("backfill", "--after", "2090-01-01T00:00Z", "--before", "2091-01-01T00:00Z"), "future"),
        (("poll", "--since", "2090-01-01T00:00Z"), "future"),
        (("poll", "--since", "20260131"), "a date without separators"),
    ],
)
def test_times_that_cannot_be_meant(invoke: Command, arguments: tuple[str, ...], said: str) -> None:
    """Not January 1970, and not a range in which nothing can have happened: one line."""
    ran = invoke(*arguments)
    assert ran.code == 2
    assert said in ran.err


def test_an_opt_out_is_withdrawn(invoke: Command, database: Database) -> None:
    """With a reason, which is kept; a number that stays suppressed is reported."""
    factories.add_campaign(database)
    leads = [factories.build_lead(lead_id, phone_number="4155550123") for lead_id in "ab"]
    factories.add_leads(database, *leads)
    factories.add_opt_outs(database, "a", "b")
    arguments = ("opt-in", "-c", "C1", "--lead-id", "a")
    assert invoke(*arguments, "--because", " ").code == 2
    assert invoke(*arguments, "--because", "a slip").out == "Opted in: a.\n"
    assert sql.fetch_opt_outs(database) == {"b": "requested"}
    assert sql.fetch_value(database, "SELECT reason FROM leadloop.opt_ins") == "a slip"
    ran = invoke("opt-in", "-c", "C1", "--lead-id", "b", "--because", "a slip", "--json")
    assert ran.last == {"opted_in": 1, "suppressed": []}


def test_json_output_is_json(invoke: Command, database: Database) -> None:
    """The last line on stdout is one object, also where nothing was done."""
    factories.add_campaign(database)
    out = invoke("status", "--json").out
    keys = ["campaigns", "problems", "latencies", "upgrade_complete", "rejections"]
    assert list(json.loads(out.splitlines()[-1])) == keys


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
