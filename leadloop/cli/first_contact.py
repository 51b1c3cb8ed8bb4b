"""`leadloop first-contact`: asks in the terminal before each step, and prints what was learned."""

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from leadloop.cli import environment
from leadloop.cli.confirmation import ask_to_go_on, print_announcement, require_answerable
from leadloop.core.escaping import escape_unprintable
from tasks.first_contact import LOGGER, FirstContact


class TerminalDialogue:
    """Asks on the terminal before each step; with `agrees_to_all`, it announces and goes on."""

    def __init__(self, *, agrees_to_all: bool) -> None:
        self._agrees_to_all = agrees_to_all

    def ask(self, announcement: str) -> bool:
        """Print what a step will do; return whether the person agrees."""
        if self._agrees_to_all:
            print_announcement(announcement)
            return True
        return ask_to_go_on(announcement)

    def report(self, line: str) -> None:
        """Print a line of what a step has found."""
        print(f"  {escape_unprintable(line)}", file=sys.stderr, flush=True)


def run_contact(
    campaign_id: str, lead_ids: Sequence[str], *, agrees_to_all: bool, repeats_id: bool
) -> None:
    """Run a first contact; `collect_summary` receives what it learned.

    Raises:
        UsageError: settings, campaign or leads are wrong, or there is nobody to ask.
        RunError: a step failed.
    """
    if not agrees_to_all:
        require_answerable("leadloop first-contact")
    with (
        environment.open_configured_database() as (settings, database),
        _print_warnings(),
    ):
        FirstContact(
            settings,
            database,
            campaign_id,
            lead_ids,
            TerminalDialogue(agrees_to_all=agrees_to_all),
            repeats_id=repeats_id,
        ).run()


@contextmanager
def _print_warnings() -> Iterator[None]:
    """Print the log's warnings on stderr; an error is printed once, as the command's last line."""
    handler = logging.StreamHandler()
    handler.setFormatter(_EscapedFormatter("  %(message)s"))
    handler.addFilter(lambda record: record.levelno < logging.ERROR)
    LOGGER.addHandler(handler)
    LOGGER.propagate = False
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.propagate = True


class _EscapedFormatter(logging.Formatter):
    """Formats lines that may hold ids, so that these cannot drive the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the escaped line."""
        return escape_unprintable(super().format(record))


def print_contact(out: Console, summary: Mapping[str, Any]) -> None:
    """Print the status of each lead, and what was learned."""
    for lead_id, status in summary["leads"].items():
        out.print(f"{lead_id}: {status}", highlight=False, soft_wrap=True)
    for question, answer in summary["learned"].items():
        out.print(f"{question}: {answer}", highlight=False, soft_wrap=True)
