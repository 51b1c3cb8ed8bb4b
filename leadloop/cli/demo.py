"""`leadloop demo`: the whole loop on an embedded Postgres and the bundled sandbox API.

Everything it makes is under `.leadloop/demo/`, which it begins anew each time.
"""

import os
import shlex
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from db import campaign_status, campaigns, lead_import, opt_outs, schema
from db.database import Database
from leadloop.cli import environment, rendering, sample_leads
from leadloop.cli.progress_bars import show_progress_bars
from leadloop.core.summaries import collect_summary
from leadloop.core.summary_text import format_summary
from leadloop.sandbox import Handle, Rules, running
from leadloop.settings import Settings

CAMPAIGN = "DEMO01"
LEADS = 2000
_LEADS_FILE = "leads.csv"
# Half of the outcomes are there after some two seconds, the last of 2,000 after some 24.
_PACE_S = 3.0
_FIRST_POLLS_AFTER_S = (3.0, 6.0)
# What is not there by then is left: the demo takes no more than a minute.
_OUTCOMES_TIMEOUT_S = 50.0
_SEED = 7

_NEXT_STEPS = """
What next? From this folder:
{path}
  # look at what is left
  (cd {home}/demo && LEADLOOP_DATABASE_URL=embedded leadloop status)

  # play it by hand: in one terminal
  leadloop sandbox --port 8080 --rule pace=5
  # in another one, with the line that the sandbox prints
  export LEADLOOP_DATABASE_URL=embedded
  export LEADLOOP_API_URL=http://127.0.0.1:8080 LEADLOOP_API_TOKEN=sandbox-token
  leadloop init
  leadloop load {home}/demo/{leads} --campaign TRY
  leadloop sync
  leadloop status

  # point it at your own: in a new terminal set LEADLOOP_DATABASE_URL and LEADLOOP_API_TOKEN, then
  leadloop doctor
"""


def run_demo(err: Console, out: Console) -> None:
    """Run disable, push and poll as real Prefect flows while outcomes trickle in.

    Raises:
        UsageError: a server that it needs does not start, the directory cannot be used, or another
            demo runs in it.
        RunError: a flow failed.
    """
    started = time.monotonic()
    with ExitStack() as stack:
        stack.enter_context(environment.enter_locked_directory("demo"))
        _write_leads()
        handle = _start_sandbox(stack)
        server = stack.enter_context(environment.open_prefect_server())
        stack.enter_context(environment.run_embedded_database())
        settings = Settings.load()
        database = stack.enter_context(environment.open_database(settings, require_schema=False))
        _reset_database(database)
        out.print(
            f"{LEADS:,} leads in an embedded Postgres in ./{environment.HOME}/demo, the sandbox API"
            f" at {settings.api_url}.",
            soft_wrap=True,
        )
        with err.status("waiting for Prefect"):
            server.wait()
        requests = _run_first_loop(database, err, out)
        left = _wait_for_outcomes(handle, started + _OUTCOMES_TIMEOUT_S, err)
        requests += _run_flow("poll-outcomes", err, out)
        _print_results(database, out, requests)
    if left:
        out.print(f"Outcomes still to come when the demo's minute was over: {left}.")
    out.print(f"\nDone in {time.monotonic() - started:.0f} s; nothing is left running.")
    print(_format_next_steps())


def _write_leads() -> None:
    """A file to play with afterwards."""
    try:
        sample_leads.write_csv(Path(_LEADS_FILE), 100)
    except OSError as error:
        raise environment.explain_write_error(error, "demo") from None


def _format_next_steps() -> str:
    """Commands that work as they stand, from where the user stands."""
    programs = Path(sys.argv[0]).absolute().parent
    on_path = str(programs) in os.environ.get("PATH", "").split(os.pathsep)
    path = "" if on_path else f'\n  export PATH={shlex.quote(str(programs))}:"$PATH"\n'
    return _NEXT_STEPS.format(path=path, home=environment.HOME, leads=_LEADS_FILE)


def _start_sandbox(stack: ExitStack) -> Handle:
    """The sandbox as the API, and nothing from the environment that would mean another one."""
    rules = Rules(rate_limit=(100, 60.0), pace=_PACE_S, seed=_SEED)
    handle = stack.enter_context(running(rules))
    environment.clear_environment()
    os.environ["LEADLOOP_API_URL"] = handle.url
    os.environ["LEADLOOP_API_TOKEN"] = rules.tokens[0]
    # While outcomes come in a window is read several times: pages of 100 would use the budget up.
    os.environ["LEADLOOP_PAGE_SIZE"] = "500"
    return handle


def _reset_database(database: Database) -> None:
    with database.transaction() as connection:
        schema.drop_schema(connection)
    with database.transaction() as connection:
        schema.migrate_schema(connection)
    with database.transaction() as connection:
        campaigns.add_campaign(connection, CAMPAIGN)
        lead_import.insert_new_leads(connection, CAMPAIGN, sample_leads.make_leads(LEADS, _SEED))


def _run_first_loop(database: Database, err: Console, out: Console) -> int:
    """Opt-outs before and after the push, and polls while outcomes come. Returns requests sent."""
    _request_opt_outs(database, range(100, 1100, 100))
    requests = 0
    for flow in ("disable-leads", "push-leads"):
        requests += _run_flow(flow, err, out)
    _request_opt_outs(database, range(150, 1150, 100))
    requests += _run_flow("disable-leads", err, out)
    for pause_s in _FIRST_POLLS_AFTER_S:
        with err.status("outcomes are coming in at the vendor"):
            time.sleep(pause_s)
        requests += _run_flow("poll-outcomes", err, out)
    return requests


def _wait_for_outcomes(handle: Handle, until: float, err: Console) -> int:
    """Return when every lead has its outcome at the vendor, or it is late. How many have none."""
    with err.status("the last outcomes are coming in at the vendor"):
        while (left := sum(lead.waits for lead in handle.books.leads(CAMPAIGN))) > 0:
            if time.monotonic() > until:
                break
            time.sleep(0.2)
    return left


def _request_opt_outs(database: Database, numbers: range) -> None:
    with database.transaction() as connection:
        opt_outs.request_opt_outs(
            connection, CAMPAIGN, [sample_leads.format_lead_id(number) for number in numbers]
        )


def _run_flow(flow: str, err: Console, out: Console) -> int:
    from flows.local_runs import run_flow_locally

    with show_progress_bars(err) as listener, collect_summary() as collected:
        run_flow_locally(flow, {"campaigns": [CAMPAIGN]}, listener)
    out.print(f"{flow}: {format_summary(collected.summary)}", soft_wrap=True)
    return int(collected.summary["requests"])


def _print_results(database: Database, out: Console, requests: int) -> None:
    with database.transaction() as connection:
        rows = campaign_status.list_campaign_health(connection, [CAMPAIGN])
        out.print(rendering.render_campaign(rows[0]))
        out.print(
            rendering.render_rows(
                "rejected", campaign_status.count_rejections(connection, [CAMPAIGN])
            )
        )
        out.print(
            rendering.render_rows(
                "outcomes", campaign_status.count_outcomes(connection, [CAMPAIGN])
            )
        )
        out.print(
            rendering.render_rows(
                "attempts", campaign_status.count_attempts(connection, [CAMPAIGN])
            )
        )
    out.print(f"{requests} requests were sent; the vendor allows 100 a minute.")
