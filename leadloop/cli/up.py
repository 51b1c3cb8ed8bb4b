"""`leadloop up`: a complete local stack, for a person who wants to try the product.

The stack has a Postgres, a Prefect server with a worker and the deployments of prefect.yaml, the
monitor page, and the sandbox as the vendor. New leads, opt-outs and outcomes keep arriving. All
files are under `.leadloop/up/`; each start empties the database, and Ctrl-C ends the stack.
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

from db import schema
from db.database import Database
from db.lead_import import import_campaign
from db.opt_outs import request_opt_outs
from leadloop import deployments
from leadloop.cli import environment, monitor, sample_leads
from leadloop.core.errors import RunError
from leadloop.local.prefect_stack import LocalPrefect, run_prefect_server, run_prefect_worker
from leadloop.sandbox import Rules
from leadloop.settings import Settings

_CAMPAIGNS = ("UP-EAST", "UP-WEST")
_INITIAL_LEADS = 300
# An outcome arrives after an exponential delay with this mean.
_MEAN_OUTCOME_DELAY_S = 60.0
_ARRIVAL_INTERVAL_S = 20.0
_NEW_LEADS = 20
_CHECK_INTERVAL_S = 0.5

_INSTRUCTIONS = """
Page:     {ours}   (is it healthy, what is stuck, what to do)
Prefect:  {page}   (runs, schedules, deployments; its password: cat {password})
Sandbox:  {api}   (a local stand-in of the vendor's API)
Postgres: embedded, in ./{home}/up   (emptied by the next `up`)

The run live-leads sends new leads and opt-outs within a second, and brings outcomes back within
seconds. To join in, from another terminal:

{exports}
  export PREFECT_API_AUTH_STRING="$(cat {password})"
  {leadloop} status
  {leadloop} push --campaign {campaign}
  psql "$LEADLOOP_DATABASE_URL" -c 'SELECT * FROM leadloop_monitor.lead_funnel'
  {prefect} deployment run sync-leads/default --param 'campaigns=["{campaign}"]'

Ctrl-C ends all of it.
"""
#: The variables that another terminal needs, without Prefect's password, which is not displayed.
_EXPORTED_VARIABLES = (
    "LEADLOOP_DATABASE_URL",
    "LEADLOOP_API_URL",
    "LEADLOOP_API_TOKEN",
    "PREFECT_API_URL",
)


def run_stack(port: int, page_port: int, err: Console, out: Console) -> None:
    """Start a complete local stack, and run it until interrupted.

    Args:
        port: the Prefect server's port.
        page_port: the port of the monitor page.
        err: for progress.
        out: for the instructions.

    Raises:
        UsageError: a server does not start, or another `up` runs in this directory.
        RunError: a server has ended unexpectedly.
    """
    with ExitStack() as stack:
        stack.enter_context(environment.enter_locked_directory("up"))
        rules = Rules(rate_limit=(100, 60.0), pace=_MEAN_OUTCOME_DELAY_S)
        handle = stack.enter_context(environment.open_sandbox(rules))
        stack.enter_context(environment.run_embedded_database())
        database = stack.enter_context(
            environment.open_database(Settings.load(), require_schema=False)
        )
        schema.recreate_database(database, "prefect")
        prefect = stack.enter_context(
            run_prefect_server(
                Path("prefect"), database.sibling_url("prefect", "postgresql+asyncpg"), port
            )
        )
        database.run(schema.drop_schema)
        database.run(schema.migrate_schema)
        for campaign_id in _CAMPAIGNS:
            _add_leads(database, campaign_id, 0, _INITIAL_LEADS)
        with err.status("waiting for the Prefect server (half a minute the first time)"):
            prefect.wait()
        with err.status("deploying prefect.yaml"):
            deployments.deploy_flows(prefect.environment)
        page = stack.enter_context(monitor.run_page_server(Path("page"), prefect.ui_url, page_port))
        os.environ["LEADLOOP_PAGE_URL"] = page.url
        worker = stack.enter_context(run_prefect_worker(Path("worker"), prefect))
        instructions = _format_instructions(
            page_url=page.url, prefect=prefect, sandbox_url=handle.url
        )
        # Without wrapping: a narrow terminal must not break a command in two.
        out.print(instructions, highlight=False, soft_wrap=True)
        _run_until_stopped(prefect, {"page": page.is_alive, "worker": worker.is_alive}, database)


def _format_instructions(*, page_url: str, prefect: LocalPrefect, sandbox_url: str) -> str:
    """Return the addresses, and commands to copy, with the programs of this Python's folder."""
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


def _add_leads(database: Database, campaign_id: str, start_after: int, count: int) -> None:
    rows = sample_leads.make_leads(
        count, seed=start_after + len(campaign_id), start_after=start_after
    )
    database.run(import_campaign, campaign_id, rows)


def _run_until_stopped(
    prefect: LocalPrefect, alive: Mapping[str, Callable[[], bool]], database: Database
) -> None:
    """Add leads and opt-outs at intervals, until interrupted or until a server has ended."""
    for turn in itertools.count():
        due = time.monotonic() + _ARRIVAL_INTERVAL_S
        while time.monotonic() < due:
            time.sleep(_CHECK_INTERVAL_S)
            if not prefect.is_alive():
                raise RunError(f"the Prefect server has ended (its log: {prefect.log})")
            for name, is_alive in alive.items():
                if not is_alive():
                    log = Path(name, "log").absolute()
                    raise RunError(f"the {name} has ended (its log: {log})")
        # Then each campaign gets new leads, and one of its earlier leads opts out.
        existing = _INITIAL_LEADS + turn * _NEW_LEADS
        for campaign_id in _CAMPAIGNS:
            _add_leads(database, campaign_id, existing, _NEW_LEADS)
            number = random.Random(turn + 1).randrange(1, existing)
            database.run(request_opt_outs, campaign_id, [sample_leads.format_lead_id(number)])
