"""A flow run by hand, from the checks to the summary."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from leadloop.cli import stage
from leadloop.cli.watching import bars


def run_flow(
    name: str, campaigns: Sequence[str], more: Mapping[str, Any], err: Console
) -> dict[str, Any]:
    """Run a flow, with progress on `err`.

    Raises:
        UsageError: it could not begin.
        RunError: it did not do all of its work; where it has a `summary`, that is what it did.
    """
    with stage.settings_with_database() as settings, stage.prefect_server() as server:
        stage.check(settings, campaigns)
        with err.status("waiting for Prefect"):
            server.wait()
        from flows.by_hand import run_by_hand

        with bars(err) as watching:
            parameters = {**more, "campaigns": list(campaigns) or None}
            return run_by_hand(name, parameters, watching)
