"""What Prefect shows in the log of a run: its steps, and each error as one line."""

import logging
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, cast

from prefect.logging import get_run_logger
from prefect.states import Failed

from leadloop.core.errors import LeadloopError
from leadloop.core.summaries import Summary
from tasks.jobs import CampaignsFailed

P = ParamSpec("P")


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


def _has_no_traceback(record: logging.LogRecord) -> bool:
    """Drop the traceback of a LeadloopError: the run has logged the error as one line."""
    return not (record.exc_info and isinstance(record.exc_info[1], LeadloopError))


def _is_no_end_of_task(record: logging.LogRecord) -> bool:
    """Drop the line that a task has ended: its page has its state, the run's log what failed."""
    return not str(record.msg).startswith("Finished in state")


# The engine logs the error of a flow run, and the one of a task run that has failed, each time with
# a traceback of some pages.
for _name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_name).addFilter(_has_no_traceback)
logging.getLogger("prefect.task_runs").addFilter(_is_no_end_of_task)
