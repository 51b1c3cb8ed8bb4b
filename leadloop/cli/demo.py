"""`leadloop demo`: the whole loop on an embedded Postgres and the bundled sandbox API.

Everything it makes is under `.leadloop/demo/`, which it begins anew each time.
"""

import os
import time
from contextlib import ExitStack
from typing import Any

from rich.console import Console

from db import campaigns, loading, opt_outs, schema, status
from db.database import Database
from leadloop.cli import people, stage, tables
from leadloop.cli.watching import bars
from leadloop.sandbox import server as sandbox
from leadloop.sandbox.rules import Rules

CAMPAIGN = "DEMO01"
LEADS = 2000
# Half of the outcomes are there after some four seconds; the polls below see most of them.
_PACE_S = 6.0
_POLLS = 3
_BETWEEN_POLLS_S = 4.0
_SEED = 7

_NEXT = """
What next?
  look at what is left       cd .leadloop/demo && leadloop status
  play it by hand            leadloop sandbox --port 8080      (prints the two settings to export)
                             leadloop init; leadloop load FILE.csv --campaign C; leadloop sync
  point it at your own       set LEADLOOP_DATABASE_URL, LEADLOOP_API_TOKEN; then leadloop doctor
"""


def play(err: Console, out: Console) -> None:
    """Run disable, push and poll as real Prefect flows while outcomes trickle in.

    Raises:
        UsageError: a server that it needs does not start.
        RunError: a flow failed.
    """
    started = time.monotonic()
    directory = stage.HOME / "demo"
    directory.mkdir(parents=True, exist_ok=True)
    os.chdir(directory)
    with ExitStack() as stack:
        _surround(stack)
        server = stack.enter_context(stage.prefect_server())
        settings = stack.enter_context(stage.settings_with_database())
        database = stack.enter_context(stage.database(settings, ready=False))
        _begin_anew(database)
        out.print(f"{LEADS:,} leads in Postgres, the sandbox API at {settings.api_url}.")
        with err.status("waiting for Prefect"):
            server.wait()
        requests = _loop(database, err, out)
        _show(database, out, requests)
    out.print(f"\nDone in {time.monotonic() - started:.0f} s; nothing is left running.")
    out.print(_NEXT, markup=False, highlight=False, soft_wrap=True)


def _surround(stack: ExitStack) -> None:
    """The sandbox as the API, and nothing from the environment that would mean another one."""
    rules = Rules(rate_limit=(100, 60.0), pace=_PACE_S, seed=_SEED)
    handle = stack.enter_context(sandbox.running(rules))
    for name in [name for name in os.environ if name.startswith(("LEADLOOP_", "PREFECT_API_"))]:
        del os.environ[name]
    os.environ["LEADLOOP_API_URL"] = handle.url
    os.environ["LEADLOOP_API_TOKEN"] = rules.tokens[0]


def _begin_anew(database: Database) -> None:
    with database.begin() as connection:
        schema.remove(connection)
    with database.begin() as connection:
        schema.migrate(connection)
    with database.begin() as connection:
        campaigns.add(connection, CAMPAIGN)
        loading.insert_new(connection, CAMPAIGN, people.leads(LEADS, _SEED))


def _loop(database: Database, err: Console, out: Console) -> int:
    """Opt-outs before and after the push, and polls while outcomes come. Returns requests sent."""
    _opt_out(database, range(100, 1100, 100))
    requests = 0
    for flow in ("disable-leads", "push-leads"):
        requests += _run(flow, err, out)
    _opt_out(database, range(150, 1150, 100))
    requests += _run("disable-leads", err, out)
    for _ in range(_POLLS):
        with err.status("outcomes are coming in at the vendor"):
            time.sleep(_BETWEEN_POLLS_S)
        requests += _run("poll-outcomes", err, out)
    return requests


def _opt_out(database: Database, numbers: range) -> None:
    with database.begin() as connection:
        opt_outs.request(connection, CAMPAIGN, [f"D{number:05d}" for number in numbers])


def _run(flow: str, err: Console, out: Console) -> int:
    from flows.by_hand import run_by_hand

    with bars(err) as watching:
        summary: dict[str, Any] = run_by_hand(flow, {"campaigns": [CAMPAIGN]}, watching)
    out.print(f"{flow}: {tables.in_words(summary)}", soft_wrap=True)
    return int(summary["requests"])


def _show(database: Database, out: Console, requests: int) -> None:
    with database.begin() as connection:
        rows = status.campaigns(connection, [CAMPAIGN])
        out.print(tables.funnel(rows[0]))
        out.print(tables.listed("rejected", status.rejections(connection, [CAMPAIGN])))
        out.print(tables.listed("outcomes", status.outcomes(connection, [CAMPAIGN])))
        out.print(tables.listed("attempts", status.attempts(connection, [CAMPAIGN])))
    lag = tables.cell("watermark_lag_s", rows[0]["watermark_lag_s"])
    mark = tables.cell("watermark", rows[0]["watermark"])
    out.print(f"Everything processed up to {mark} is stored ({lag} ago).")
    out.print(f"{requests} requests were sent; the vendor allows 100 a minute.")
