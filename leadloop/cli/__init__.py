"""The command line: `leadloop …`."""

import signal
import sys
from types import FrameType
from typing import NoReturn, cast

from leadloop.cli.output_streams import install_tolerant_streams
from leadloop.core.errors import LeadloopError, UsageError

#: What is said of work that was broken off by Ctrl-C or SIGTERM.
STOPPED = "stopped; run it again to go on where it was"
# What typer makes of a KeyboardInterrupt, in its standalone mode and out of it.
_TYPER_INTERRUPTED = 130


def main() -> None:
    """Run the command line.

    Exits with 0 where the work was done, 1 where a run failed or had to stop, 2 for wrong usage or
    settings; errors are one line on stderr.
    """
    why_lost = install_tolerant_streams()
    signal.signal(signal.SIGTERM, _raise_interrupt)
    code, message = _run_app()
    if message:
        print(f"leadloop: {message}", file=sys.stderr)
    if lost := why_lost():
        print(f"leadloop: not all of the output could be written: {lost}", file=sys.stderr)
    sys.exit(code)


def _run_app() -> tuple[int, str]:
    """The exit code, and a line about what went wrong."""
    try:
        import typer

        from leadloop.cli.app import app
    except KeyboardInterrupt:
        return 1, STOPPED

    # The class that typer raises for every wrong command line has no public name of its own.
    wrong_usage = cast("type[typer.BadParameter]", typer.BadParameter.__base__)
    try:
        code = app(standalone_mode=False) or 0
        return (1, STOPPED) if code == _TYPER_INTERRUPTED else (code, "")
    except wrong_usage as error:
        return 2, error.format_message()
    except LeadloopError as error:
        return (2 if isinstance(error, UsageError) else 1), str(error)
    except (KeyboardInterrupt, typer.Abort):
        return 1, STOPPED


def _raise_interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    """SIGTERM ends a command as Ctrl-C does: it writes down what it has done."""
    raise KeyboardInterrupt
