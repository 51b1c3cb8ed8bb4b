"""The entry point of the command line: it runs a command, and gives errors their exit code."""

import signal
import sys
from typing import cast

from leadloop.cli.foreign_packages import find_hidden_package, find_overwritten_package
from leadloop.cli.output_streams import install_tolerant_streams
from leadloop.core.errors import LeadloopError, UsageError
from leadloop.core.escaping import escape_unprintable

#: The message for work that Ctrl-C or SIGTERM interrupted.
STOPPED = "stopped; all that was committed is kept: run the same command again to continue"
# The exit code that typer's non-standalone mode returns for a KeyboardInterrupt.
_TYPER_INTERRUPTED = 130


def main() -> None:
    """Run the command line and exit.

    Exit codes: 0, the work was done; 1, a run failed or had to stop; 2, wrong usage or settings.
    An error is one line on stderr.
    """
    describe_lost_output = install_tolerant_streams()
    # SIGTERM as Ctrl-C: a KeyboardInterrupt lets a command record what it has done.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # A terminal that is closed too, unless nohup has it ignored.
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    code, message = run_app()
    if message:
        lines = map(escape_unprintable, message.splitlines())
        print("leadloop:", "\n".join(lines), file=sys.stderr)
    if lost := describe_lost_output():
        print(f"leadloop: not all of the output could be written: {lost}", file=sys.stderr)
    sys.exit(code)


def run_app() -> tuple[int, str]:
    """Run the command; return the exit code and an error message, which may be empty."""
    if hidden := find_hidden_package():
        return 2, hidden
    try:
        import typer

        from leadloop.cli.app import app
    except KeyboardInterrupt:
        return 1, STOPPED
    except (ImportError, AttributeError):
        if overwritten := find_overwritten_package():
            return 2, overwritten
        raise

    # Typer raises one class for every wrong command line; the class has no public name.
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
