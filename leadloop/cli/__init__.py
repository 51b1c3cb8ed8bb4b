"""The command line: `leadloop …`."""

import sys

from leadloop.core.errors import LeadloopError, UsageError


def main() -> None:
    """Run the command line.

    Exits with 0 where the work was done, 1 where a run failed or had to stop, 2 for wrong usage or
    settings; errors are one line on stderr.
    """
    from leadloop.cli.app import app

    try:
        app()
    except LeadloopError as error:
        print(f"leadloop: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except KeyboardInterrupt:
        print("leadloop: stopped", file=sys.stderr)
        sys.exit(1)
