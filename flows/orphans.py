"""Flow runs that outlive their worker."""

import logging
from collections.abc import Iterator
from functools import partial

from prefect.logging.handlers import PrefectConsoleHandler


def outlive_worker() -> None:
    """Let Prefect's console log fall silent when nobody reads it, instead of ending the process.

    A worker reads what its runs print. When it is killed, the next line that any thread logs is a
    broken pipe, at which rich raises SystemExit (`Console.on_broken_pipe`). Prefect's server gets
    the log by another handler.
    """
    for handler in find_console_handlers():
        console = handler.console
        vars(console)["on_broken_pipe"] = partial(setattr, console, "quiet", True)


def find_console_handlers() -> Iterator[PrefectConsoleHandler]:
    """Yield the handlers by which Prefect logs to this process's terminal or pipe."""
    loggers = (logging.getLogger(name) for name in (None, *logging.root.manager.loggerDict))
    for logger in loggers:
        for handler in logger.handlers:
            if isinstance(handler, PrefectConsoleHandler):
                yield handler
