"""A flow run by hand, from the checks to the summary."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from db import status, watermarks
from db.campaigns import chosen, to_disable
from leadloop.cli import environment, hints
from leadloop.cli.progress_bars import bars
from leadloop.settings import Settings

#: Flows that also take campaigns which are not enabled, where opt-outs wait in them.
_WITH_OPT_OUTS = ("disable-leads", "sync-leads")


def run_flow(
    name: str, campaigns: Sequence[str], more: Mapping[str, Any], err: Console
) -> dict[str, Any]:
    """Run a flow, with progress on `err`.

    Raises:
        UsageError: it could not begin.
        RunError: it did not do all of its work; where it has a `summary`, that is what it did.
    """
    with environment.settings_with_database() as settings, environment.prefect_server() as server:
        if name == "housekeeping":
            ids = environment.check_without_vendor(settings, campaigns)
        else:
            choose = to_disable if name in _WITH_OPT_OUTS else chosen
            ids = environment.check(settings, campaigns, choose=choose)
        if more.get("since") is not None:
            _say(_since_ignored(settings, ids))
        with err.status("waiting for Prefect"):
            server.wait()
        from flows.local_runs import run_flow_locally

        with bars(err) as watching:
            parameters = {**more, "campaigns": list(campaigns) or None}
            summary = run_flow_locally(name, parameters, watching)
        if name == "push-leads":
            _say(_opt_outs(settings, ids))
        return summary


def _say(lines: Sequence[str]) -> None:
    for line in lines:
        print(line, file=sys.stderr)


def _since_ignored(settings: Settings, ids: Sequence[str]) -> list[str]:
    with environment.database(settings) as database, database.begin() as connection:
        polled = [name for name in ids if watermarks.read(connection, name) is not None]
    return [hints.since_ignored(name) for name in polled]


def _opt_outs(settings: Settings, ids: Sequence[str]) -> list[str]:
    with environment.database(settings) as database, database.begin() as connection:
        return hints.opt_outs(**status.open_opt_outs(connection, ids))
