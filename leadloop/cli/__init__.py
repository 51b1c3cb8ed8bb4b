"""The command line: `leadloop …`."""

import sys
from typing import cast

from leadloop.core.errors import LeadloopError, UsageError


def main() -> None:
    """Run the command line.

    Exits with 0 where the work was done, 1 where a run failed or had to stop, 2 for wrong usage or
    settings; errors are one line on stderr.
    """
    import typer

    from leadloop.cli.app import app

    # The class that typer raises for every wrong command line has no public name of its own.
    wrong_usage = cast("type[typer.BadParameter]", typer.BadParameter.__base__)
    try:
        sys.exit(app(standalone_mode=False))
    except wrong_usage as error:
        _end(error.format_message(), 2)
    except LeadloopError as error:
        _end(str(error), 2 if isinstance(error, UsageError) else 1)
    except (KeyboardInterrupt, typer.Abort):
        _end("stopped", 1)


def _end(message: str, code: int) -> None:
    if message:
        print(f"leadloop: {message}", file=sys.stderr)
    sys.exit(code)
