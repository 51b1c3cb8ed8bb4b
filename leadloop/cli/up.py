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

from db import campaigns, loading, opt_outs, schema
from db.database import Database
from leadloop import deployments
from leadloop.cli import monitor, people, stage
from leadloop.core.errors import RunError
from leadloop.local.prefect_stack import LocalPrefect, run_prefect_server, run_prefect_worker
from leadloop.sandbox import Rules, running
from leadloop.settings import Settings

_CAMPAIGNS = ("UP-EAST", "UP-WEST")
_FIRST_LEADS = 300
# Half of the outcomes are there a minute after their leads.
_PACE_S = 60.0
_NEWS_EVERY_S = 20.0
_NEW_LEADS = 20
_LOOK_EVERY_S = 0.5

_TOLD = """
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
_SHARED = ("LEADLOOP_DATABASE_URL", "LEADLOOP_API_URL", "LEADLOOP_API_TOKEN", "PREFECT_API_URL")


def play(port: int, page_port: int, err: Console, out: Console) -> None:
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
        stack.enter_context(stage.directory_of_its_own("up"))
        stage.forget_environment()
        handle = stack.enter_context(running(Rules(rate_limit=(100, 60.0), pace=_PACE_S)))
        os.environ["LEADLOOP_API_URL"] = handle.url
        os.environ["LEADLOOP_API_TOKEN"] = handle.rules.tokens[0]
        stack.enter_context(stage.embedded_database())
        database = stack.enter_context(stage.database(Settings.load(), ready=False))
        with database.session() as connection:
            schema.renew_database(connection, "prefect")
        prefect = stack.enter_context(
            run_prefect_server(
                Path("prefect"), database.address("prefect", "postgresql+asyncpg"), port
            )
        )
        news = _begin_anew(database)
        with err.status("waiting for the Prefect server (half a minute the first time)"):
            prefect.wait()
        with err.status("deploying prefect.yaml"):
            deployments.deploy_flows(prefect.environment)
        page = stack.enter_context(monitor.beside(Path("page"), prefect.ui_url, page_port))
        os.environ["LEADLOOP_PAGE_URL"] = page.url
        worker = stack.enter_context(run_prefect_worker(Path("worker"), prefect))
        deployments.start_run(prefect.environment, "sync-leads/default")
        told = _told(ours=page.url, prefect=prefect, sandbox=handle.url)
        # As it is: what is to be copied must not be broken in two by a narrow terminal.
        out.print(told, markup=False, highlight=False, soft_wrap=True)
        _go_on(prefect, {"page": page.is_alive, "worker": worker.is_alive}, news)


def _told(*, ours: str, prefect: LocalPrefect, sandbox: str) -> str:
    """Where everything is, and what to type to join in: with the programs of this very Python."""
    environment = {**os.environ, **prefect.environment}
    exports = (f"  export {name}={shlex.quote(environment[name])}" for name in _SHARED)
    programs = Path(sys.executable).parent
    return _TOLD.format(
        ours=ours,
        page=prefect.ui_url,
        password=shlex.quote(str(prefect.password_file)),
        api=sandbox,
        home=stage.HOME,
        campaign=_CAMPAIGNS[0],
        exports="\n".join(exports),
        leadloop=shlex.quote(str(programs / "leadloop")),
        prefect=shlex.quote(str(programs / "prefect")),
    )


def _begin_anew(database: Database) -> Callable[[], None]:
    """Empty books with the first leads. Returns what brings the next ones."""
    with database.begin() as connection:
        schema.remove(connection)
    with database.begin() as connection:
        schema.migrate(connection)
    turns = itertools.count(1)
    for campaign in _CAMPAIGNS:
        _bring(database, campaign, 0, _FIRST_LEADS)

    def news() -> None:
        turn = next(turns)
        for campaign in _CAMPAIGNS:
            first = _FIRST_LEADS + (turn - 1) * _NEW_LEADS
            _bring(database, campaign, first, _NEW_LEADS)
            _opt_out(database, campaign, random.Random(turn).randrange(1, first))

    return news


def _bring(database: Database, campaign: str, first: int, amount: int) -> None:
    with database.begin() as connection:
        campaigns.add(connection, campaign)
        rows = people.leads(amount, seed=first + len(campaign), after=first)
        loading.insert_new(connection, campaign, rows)


def _opt_out(database: Database, campaign: str, number: int) -> None:
    with database.begin() as connection:
        opt_outs.request(connection, campaign, [people.lead_id(number)])


def _go_on(
    prefect: LocalPrefect, alive: Mapping[str, Callable[[], bool]], news: Callable[[], None]
) -> None:
    """Bring news now and then, until somebody stops us or a server has ended."""
    due = time.monotonic() + _NEWS_EVERY_S
    while True:
        time.sleep(_LOOK_EVERY_S)
        if not prefect.is_alive():
            raise RunError(f"the Prefect server has ended (its log: {prefect.log})")
        for name, is_alive in alive.items():
            if not is_alive():
                raise RunError(f"the {name} has ended (its log: {Path(name, 'log').absolute()})")
        if time.monotonic() >= due:
            news()
            due = time.monotonic() + _NEWS_EVERY_S
