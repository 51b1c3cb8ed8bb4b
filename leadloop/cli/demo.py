"""`leadloop demo`: the whole loop on an embedded Postgres and the bundled sandbox API.

All files are under `.leadloop/demo/`. Each demo starts with an empty database.
"""

import os
import shlex
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from db.campaign_status import read_campaign_report
from db.database import Database
from db.lead_import import import_campaign
from db.opt_outs import request_opt_outs
from db.schema import drop_schema, migrate_schema
from leadloop.cli import environment, rendering, sample_leads
from leadloop.cli.progress_bars import show_progress_bars
from leadloop.core.plurals import format_count
from leadloop.core.summaries import collect_summary
from leadloop.core.summary_text import format_summary
from leadloop.sandbox import Rules, SandboxHandle
from leadloop.settings import Settings

CAMPAIGN = "DEMO01"
LEADS = 2000
#: The flow of each step, and what the step shows.
_STEPS = (
    (
        "disable-leads",
        "Ten people have opted out before their leads were sent. `leadloop disable` cancels these"
        " leads, without a request.",
    ),
    (
        "push-leads",
        "`leadloop push` creates the other leads at the vendor, 100 a request, and rejects those"
        " that fail a check.",
    ),
    (
        "disable-leads",
        "Ten more people have opted out, whose leads the vendor may have. `leadloop disable` sends"
        " the opt-outs of those that it has.",
    ),
    (
        "poll-outcomes",
        "The vendor has called some people. `leadloop poll` stores their outcomes in Postgres.",
    ),
    ("poll-outcomes", "A moment later, another poll stores those that are new."),
    ("poll-outcomes", "The last poll stores what has come since."),
)
_LEADS_FILE = "leads.csv"
# Half of the outcomes appear within about 2 seconds, the last of 2,000 after about 24.
_PACE_S = 3.0
_FIRST_POLLS_AFTER_S = (3.0, 6.0)
# The demo takes at most a minute: it does not wait longer for outcomes.
_OUTCOMES_TIMEOUT_S = 50.0
_SEED = 7

_NEXT_STEPS = """
What next? From this folder:
{path}
  # see the results
  (cd {home}/demo && LEADLOOP_DATABASE_URL=embedded leadloop status)

  # try it yourself: in one terminal
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
    """Run disable, push and poll as real Prefect flows while outcomes arrive.

    Raises:
        UsageError: a server does not start, the directory cannot be used, or another demo runs in
            the directory.
        RunError: a flow failed.
    """
    started = time.monotonic()
    with ExitStack() as stack:
        stack.enter_context(environment.enter_locked_directory("demo"))
        try:
            sample_leads.write_csv(Path(_LEADS_FILE), 100)
        except OSError as error:
            raise environment.explain_write_error(error, "demo") from None
        rules = Rules(rate_limit=(100, 60.0), pace=_PACE_S, seed=_SEED)
        handle = stack.enter_context(environment.open_sandbox(rules))
        # A window is read several times while outcomes arrive: with 100 results a page, that would
        # exhaust the rate limit.
        os.environ["LEADLOOP_PAGE_SIZE"] = "500"
        server = stack.enter_context(environment.open_prefect_server())
        stack.enter_context(environment.run_embedded_database())
        settings = Settings.load()
        database = stack.enter_context(environment.open_database(settings, require_schema=False))
        database.run(drop_schema)
        database.run(migrate_schema)
        database.run(import_campaign, CAMPAIGN, sample_leads.make_leads(LEADS, _SEED))
        out.print(
            f"The demo runs the whole loop with {LEADS:,} invented leads in an embedded Postgres in"
            f" ./{environment.HOME}/demo. The vendor is the bundled sandbox at {settings.api_url}:"
            " nobody is called.",
        )
        with err.status("waiting for Prefect"):
            server.wait()
        left = _run_loop(database, handle, started + _OUTCOMES_TIMEOUT_S, err, out)
    if left:
        out.print(f"Outcomes still missing when the demo's minute was over: {left}.")
    out.print(f"\nDone in {time.monotonic() - started:.0f} s; nothing is left running.")
    print(format_next_steps())


def format_next_steps() -> str:
    """Return commands to copy, which work in the user's directory."""
    programs = Path(sys.argv[0]).absolute().parent
    on_path = str(programs) in os.environ.get("PATH", "").split(os.pathsep)
    path = "" if on_path else f'\n  export PATH={shlex.quote(str(programs))}:"$PATH"\n'
    return _NEXT_STEPS.format(path=path, home=environment.HOME, leads=_LEADS_FILE)


def _run_loop(
    database: Database, handle: SandboxHandle, deadline: float, err: Console, out: Console
) -> int:
    """Opt leads out before and after a push, poll while outcomes arrive, and print the results.

    Returns:
        The number of leads that still had no outcome at the vendor at the deadline.
    """
    _request_opt_outs(database, range(100, 1100, 100))
    requests = _run_step(1, err, out) + _run_step(2, err, out)
    _request_opt_outs(database, range(150, 1150, 100))
    requests += _run_step(3, err, out)
    for step, pause_s in enumerate(_FIRST_POLLS_AFTER_S, 4):
        with err.status("waiting for outcomes at the vendor"):
            time.sleep(pause_s)
        requests += _run_step(step, err, out)
    with err.status("waiting for the last outcomes at the vendor"):
        while (left := sum(lead.awaits_outcome for lead in handle.store.leads(CAMPAIGN))) > 0:
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
    requests += _run_step(6, err, out)

    out.print("\nHow the campaign stands, as `leadloop status` shows it, and what is in Postgres:")
    health, tables = database.run(read_campaign_report, CAMPAIGN)
    out.print(rendering.render_campaign(health))
    for title, rows in tables.items():
        out.print(rendering.render_rows(title, rows))
    sent = format_count(requests, "request was", "requests were")
    out.print(f"{sent} sent in all; the vendor allows 100 a minute.")
    return left


def _request_opt_outs(database: Database, numbers: range) -> None:
    lead_ids = [sample_leads.format_lead_id(number) for number in numbers]
    database.run(request_opt_outs, CAMPAIGN, lead_ids)


def _run_step(number: int, err: Console, out: Console) -> int:
    """Print what a step shows, run its flow, print the counts, and return the requests sent."""
    from flows.local_runs import run_flow_locally

    flow, shows = _STEPS[number - 1]
    out.print(f"\n{number}. {shows}")
    with show_progress_bars(err) as listener, collect_summary() as collected:
        run_flow_locally(flow, {"campaigns": [CAMPAIGN]}, listener)
    out.print(f"   {flow}: {format_summary(collected.summary)}", soft_wrap=True)
    return int(collected.summary["requests"])
