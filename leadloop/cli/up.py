"""`leadloop up`: the whole product running, for a person who wants to look at it.

A Prefect server with its page and a worker, our own page, the deployments of prefect.yaml on their
schedules, a Postgres, and the sandbox as the vendor, where outcomes trickle in; new leads and
opt-outs keep coming. Everything is under `.leadloop/up/`, begun anew each time and gone with
Ctrl-C.
"""

import itertools
import os
import random
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from db import campaigns, lead_import, opt_outs, schema
from db.database import Database
from leadloop import deployments
from leadloop.cli import environment, monitor, sample_leads
from leadloop.core.errors import RunError
from leadloop.local.prefect_stack import LocalPrefect, run_prefect_server, run_prefect_worker
from leadloop.sandbox import Rules, running
from leadloop.settings import Settings

_CAMPAIGNS = ("UP-EAST", "UP-WEST")
_INITIAL_LEADS = 300
# Half of the outcomes are there a minute after their leads.
_OUTCOME_HALF_LIFE_S = 60.0
_ARRIVAL_INTERVAL_S = 20.0
_NEW_LEADS = 20
_CHECK_INTERVAL_S = 0.5

_INSTRUCTIONS = """
Page:     {ours}   (is it healthy, what is stuck, what to do)
Prefect:  {page}   (runs, schedules, deployments; its password: cat {password})
Sandbox:  {api}   (the vendor's stand-in)
Postgres: embedded, in ./{home}/up   (emptied by the next `up`)

The first sync runs now; opt-outs go every minute, new leads and outcomes every five. To join in,
from another terminal:

{exports}
  export PREFECT_API_AUTH_STRING="$(cat {password})"
  {leadloop} status
  {leadloop} push --campaign {campaign}
  {prefect} deployment run sync-leads/default --param 'campaigns=["{campaign}"]'

Ctrl-C ends all of it.
"""
#: What another terminal needs to know, beside Prefect's password, which is not to be on a screen.
_EXPORTED_VARIABLES = (
    "LEADLOOP_DATABASE_URL",
    "LEADLOOP_API_URL",
    "LEADLOOP_API_TOKEN",
    "PREFECT_API_URL",
)


def run_stack(port: int, page_port: int, err: Console, out: Console) -> None:
    """Run until Ctrl-C.

    Args:
        port: of the Prefect server.
        page_port: of our page.
        err: for what is being waited for.
        out: for what there is to see.

    Raises:
        UsageError: a server that it needs does not start, or another `up` runs in this directory.
        RunError: a server ended by itself.
    """
    with ExitStack() as stack:
        stack.enter_context(environment.enter_locked_directory("up"))
        environment.clear_environment()
        handle = stack.enter_context(
            running(Rules(rate_limit=(100, 60.0), pace=_OUTCOME_HALF_LIFE_S))
        )
        os.environ["LEADLOOP_API_URL"] = handle.url
        os.environ["LEADLOOP_API_TOKEN"] = handle.rules.tokens[0]
        stack.enter_context(environment.run_embedded_database())
        database = stack.enter_context(
            environment.open_database(Settings.load(), require_schema=False)
        )
        with database.autocommit() as connection:
            schema.recreate_database(connection, "prefect")
        prefect = stack.enter_context(
            run_prefect_server(
                Path("prefect"), database.sibling_url("prefect", "postgresql+asyncpg"), port
            )
        )
        news = _reset_database(database)
        with err.status("waiting for the Prefect server (half a minute the first time)"):
            prefect.wait()
        with err.status("deploying prefect.yaml"):
            deployments.deploy_flows(prefect.environment)
        page = stack.enter_context(monitor.run_page_server(Path("page"), prefect.ui_url, page_port))
        os.environ["LEADLOOP_PAGE_URL"] = page.url
        worker = stack.enter_context(run_prefect_worker(Path("worker"), prefect))
        deployments.start_run(prefect.environment, "sync-leads/default")
        told = _format_instructions(page_url=page.url, prefect=prefect, sandbox_url=handle.url)
        # As it is: what is to be copied must not be broken in two by a narrow terminal.
        out.print(told, markup=False, highlight=False, soft_wrap=True)
        _run_until_stopped(prefect, {"page": page.is_alive, "worker": worker.is_alive}, news)


def _format_instructions(*, page_url: str, prefect: LocalPrefect, sandbox_url: str) -> str:
    """Where everything is, and what to type to join in: with the programs of this very Python."""
    variables = {**os.environ, **prefect.environment}
    exports = (f"  export {name}={shlex.quote(variables[name])}" for name in _EXPORTED_VARIABLES)
    programs = Path(sys.executable).parent
    return _INSTRUCTIONS.format(
        ours=page_url,
        page=prefect.ui_url,
        password=shlex.quote(str(prefect.password_file)),
        api=sandbox_url,
        home=environment.HOME,
        campaign=_CAMPAIGNS[0],
        exports="\n".join(exports),
        leadloop=shlex.quote(str(programs / "leadloop")),
        prefect=shlex.quote(str(programs / "prefect")),
    )


def _reset_database(database: Database) -> Callable[[], None]:
    """Empty books with the first leads. Returns what brings the next ones."""
    with database.transaction() as connection:
        schema.drop_schema(connection)
    with database.transaction() as connection:
        schema.migrate_schema(connection)
    turns = itertools.count(1)
    for campaign in _CAMPAIGNS:
        _add_leads(database, campaign, 0, _INITIAL_LEADS)

    def news() -> None:
        turn = next(turns)
        for campaign in _CAMPAIGNS:
            first = _INITIAL_LEADS + (turn - 1) * _NEW_LEADS
            _add_leads(database, campaign, first, _NEW_LEADS)
            _request_opt_out(database, campaign, random.Random(turn).randrange(1, first))

    return news


def _add_leads(database: Database, campaign: str, first: int, count: int) -> None:
    with database.transaction() as connection:
        campaigns.add_campaign(connection, campaign)
        rows = sample_leads.make_leads(count, seed=first + len(campaign), start_after=first)
        lead_import.insert_new_leads(connection, campaign, rows)


def _request_opt_out(database: Database, campaign: str, number: int) -> None:
    with database.transaction() as connection:
        opt_outs.request_opt_outs(connection, campaign, [sample_leads.format_lead_id(number)])


def _run_until_stopped(
    prefect: LocalPrefect, alive: Mapping[str, Callable[[], bool]], news: Callable[[], None]
) -> None:
    """Bring news now and then, until somebody stops us or a server has ended."""
    due = time.monotonic() + _ARRIVAL_INTERVAL_S
    while True:
        time.sleep(_CHECK_INTERVAL_S)
        if not prefect.is_alive():
            raise RunError(f"the Prefect server has ended (its log: {prefect.log})")
        for name, is_alive in alive.items():
            if not is_alive():
                raise RunError(f"the {name} has ended (its log: {Path(name, 'log').absolute()})")
        if time.monotonic() >= due:
            news()
            due = time.monotonic() + _ARRIVAL_INTERVAL_S
