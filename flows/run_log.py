"""What Prefect shows in the log of a run: steps up to a bound, and each error as one line."""

import logging
from collections.abc import Callable
from functools import wraps
from threading import Lock
from typing import Any, ParamSpec, cast

from prefect.logging import get_run_logger
from prefect.states import Failed

from leadloop.core.errors import LeadloopError
from leadloop.core.summaries import Summary
from tasks.context import Logger
from tasks.jobs import CampaignsFailed

P = ParamSpec("P")

#: The most steps in the log of one run. Warnings and errors have no bound.
MAX_STEPS = 1000


class BoundedLog(logging.LoggerAdapter[Any]):
    """A log that leaves out what is logged at INFO after the first MAX_STEPS lines; thread-safe."""

    def __init__(self, log: Logger) -> None:
        super().__init__(log)
        self._lock = Lock()
        self._left = MAX_STEPS

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the name that logging looks for
        """Return whether anything at this level would be logged."""
        return super().isEnabledFor(level) and (level != logging.INFO or self._left > 0)

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log a message, unless it is a step too many."""
        if not self.isEnabledFor(level):
            return
        super().log(level, msg, *args, **kwargs)
        if level == logging.INFO:
            with self._lock:
                self._left -= 1
                is_last = self._left == 0
            if is_last:
                self.logger.info("this run logs no further steps, only warnings and errors")


def fail_in_one_line(body: Callable[P, Summary]) -> Callable[P, Summary]:
    """Decorate a flow's function: our error becomes the final state, and one line of the log.

    Prefect would log an exception with two tracebacks of some pages. A caller in this process gets
    the exception all the same, as the data of the state.
    """

    @wraps(body)
    def run(*args: P.args, **kwargs: P.kwargs) -> Summary:
        try:
            return body(*args, **kwargs)
        except LeadloopError as error:
            message = error.shorten() if isinstance(error, CampaignsFailed) else str(error)
            get_run_logger().error("%s", message)
            return cast("Summary", Failed(message=message, data=error))

    return run


def _is_no_repeat(record: logging.LogRecord) -> bool:
    """Drop a traceback of our own error: the run has logged the error as one line."""
    return not (record.exc_info and isinstance(record.exc_info[1], LeadloopError))


# The engine logs the error of a flow run, and the one of a task run that has failed, each time with
# a traceback of some pages.
for _name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_name).addFilter(_is_no_repeat)
