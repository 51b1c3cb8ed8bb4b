"""Questions before a step that cannot be taken back: on stderr, answered in the terminal."""

import sys

from leadloop.core.errors import UsageError
from leadloop.core.escaping import escape_unprintable


def require_answerable(command: str) -> None:
    """Check that there is somebody to ask.

    Raises:
        UsageError: standard input is no terminal.
    """
    if not sys.stdin.isatty():
        raise UsageError(f"{command} asks before it goes on: run it in a terminal, or with --yes")


def ask_to_go_on(announcement: str) -> bool:
    """Print what is about to happen, and return whether the person agrees."""
    print_announcement(announcement)
    print("Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def print_announcement(announcement: str) -> None:
    """Print what is about to happen, below an empty line."""
    print(f"\n{escape_unprintable(announcement)}", file=sys.stderr, flush=True)
