"""`leadloop live`: the live loop in a terminal, or as a service."""

import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from leadloop.cli import environment
from leadloop.core.escaping import escape_unprintable
from leadloop.core.summaries import report_summary
from leadloop.settings import Settings
from tasks.live import LiveHost, LiveState, run_live
from tasks.live_log import OnceAnHour

#: Counts that are shown, with what they count.
_SHOWN = (
    ("created", "leads created"),
    ("rejected", "leads rejected"),
    ("disabled", "opt-outs confirmed"),
    ("cancelled", "opt-outs before their lead was sent"),
    ("inserted", "outcomes stored"),
    ("updated", "outcomes changed"),
    ("requests", "requests"),
)
#: Campaigns that are named in a row.
_MOST_NAMED = 4
_LAST_LINES = 8


class _LinesHandler(logging.Handler):
    """Prints the log as lines on stderr, and keeps the last ones for the display."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.last: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Print and keep one line."""
        line = escape_unprintable(f"{datetime.now(UTC):%H:%M:%S}Z {record.getMessage()}")
        self.last = [*self.last, line][-_LAST_LINES:]
        if not sys.stderr.isatty():
            print(f"leadloop: {line}", file=sys.stderr, flush=True)


def run_in_terminal(console: Console) -> None:
    """Run the live loop until it is stopped; `collect_summary` receives the counts.

    On a terminal it shows what it does; elsewhere it logs.

    Raises:
        UsageError: a setting, the database or its schema is wrong, or both places are taken.
        DatabaseError: Postgres refuses.
        CampaignsFailed: Ctrl-C, or SIGTERM, after campaigns failed and nothing was done for any.
        KeyboardInterrupt: Ctrl-C, or SIGTERM; what was done is stored.
    """
    with environment.load_settings_with_database() as settings:
        with environment.open_database(settings):
            pass  # the errors of a first connection are those of every command
        state = LiveState()
        with _open_log() as (log, lines), _open_display(console, state, lines) as show:
            host = LiveHost(
                log=OnceAnHour(log),
                name=f"leadloop live {socket.gethostname()[:30]}:{os.getpid()}",
                load_settings=Settings.load,
                on_look=show,
            )
            try:
                run_live(host, state)
            except KeyboardInterrupt:
                state.require_progress()
                raise
            finally:
                report_summary(state.summary())


@contextmanager
def _open_log() -> Iterator[tuple[logging.Logger, _LinesHandler]]:
    log = logging.getLogger("leadloop.live")
    log.setLevel(logging.INFO)
    log.propagate = False
    lines = _LinesHandler()
    log.addHandler(lines)
    try:
        yield log, lines
    finally:
        log.removeHandler(lines)


class _Display:
    """Redraws the terminal after each look."""

    def __init__(self, live: Live, lines: _LinesHandler) -> None:
        self._live = live
        self._lines = lines

    def __call__(self, state: LiveState) -> None:
        self._live.update(render_live(state, self._lines.last), refresh=True)


@contextmanager
def _open_display(
    console: Console, state: LiveState, lines: _LinesHandler
) -> Iterator["_Display | _NoDisplay"]:
    if not console.is_terminal:
        yield _NoDisplay()
        return
    with Live(render_live(state, []), console=console, auto_refresh=False) as live:
        yield _Display(live, lines)


class _NoDisplay:
    def __call__(self, state: LiveState) -> None: ...


def render_live(state: LiveState, lines: list[str]) -> RenderableType:
    """Render what a live run does: its part, its lanes, its counts, its last lines."""
    counts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    counts.add_column(justify="right", style="bold")
    counts.add_column()
    for name, meaning in _SHOWN:
        counts.add_row(f"{state.totals[name]:,}", meaning)
    lanes = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, campaigns in state.busy_with.items():
        lanes.add_row(name, Text(escape_unprintable(_name_campaigns(campaigns)), "dim"))
    return Group(
        Text(_describe_part(state), "bold"),
        Text(f"{datetime.now(UTC):%H:%M:%S}Z; Ctrl-C ends it", "dim"),
        "",
        counts,
        "",
        lanes,
        *(Text(line, "yellow") for line in lines),
    )


def _describe_part(state: LiveState) -> str:
    if not state.shares:
        return "Waiting: another live run works, and this one takes over when it ends."
    if state.vendor_is_out:
        silent = ", ".join(state.silent_accounts)
        whom = f" account {silent}" if silent else ""
        return f"The vendor does not answer{whom}: waiting for it, one read at a time."
    pace = "at once" if state.is_notified else "within half a second (no notifications arrive)"
    return f"Live: new leads and opt-outs are seen {pace}."


def _name_campaigns(campaigns: list[str]) -> str:
    named = ", ".join(campaigns[:_MOST_NAMED])
    more = len(campaigns) - _MOST_NAMED
    return f"{named} and {more} more" if more > 0 else named or "–"
