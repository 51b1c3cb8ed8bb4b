"""A flow run by hand, from the checks to the summary."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from db import status, watermarks
from db.campaigns import select_campaigns, select_for_disable
from leadloop.cli import environment, hints
from leadloop.cli.progress_bars import show_progress_bars
from leadloop.settings import Settings

#: Flows that also take campaigns which are not enabled, where opt-outs wait in them.
_WITH_OPT_OUTS = ("disable-leads", "sync-leads")


def run_flow_command(
    flow: str, campaigns: Sequence[str], extra_parameters: Mapping[str, Any], err: Console
) -> None:
    """Run a flow, with progress on `err`; `collect_summary` has its summary.

    Raises:
        UsageError: it could not begin.
        RunError: it did not do all of its work.
    """
    with (
        environment.load_settings_with_database() as settings,
        environment.open_prefect_server() as server,
    ):
        if flow == "housekeeping":
            ids = environment.preflight_campaigns_without_api(settings, campaigns)
        else:
            choose = select_for_disable if flow in _WITH_OPT_OUTS else select_campaigns
            ids = environment.preflight_campaigns(settings, campaigns, select=choose)
        if extra_parameters.get("since") is not None:
            _print_lines(_find_ignored_since(settings, ids))
        with err.status("waiting for Prefect"):
            server.wait()
        from flows.local_runs import run_flow_locally

        with show_progress_bars(err) as watching:
            parameters = {**extra_parameters, "campaigns": list(campaigns) or None}
            run_flow_locally(flow, parameters, watching)
        if flow == "push-leads":
            _print_lines(_find_open_opt_outs(settings, ids))


def _print_lines(lines: Sequence[str]) -> None:
    for line in lines:
        print(line, file=sys.stderr)


def _find_ignored_since(settings: Settings, ids: Sequence[str]) -> list[str]:
    with environment.open_database(settings) as database, database.transaction() as connection:
        polled = [name for name in ids if watermarks.get_watermark(connection, name) is not None]
    return [hints.ignored_since_hint(name) for name in polled]


def _find_open_opt_outs(settings: Settings, ids: Sequence[str]) -> list[str]:
    with environment.open_database(settings) as database, database.transaction() as connection:
        return hints.opt_out_hints(**status.count_open_opt_outs(connection, ids))
