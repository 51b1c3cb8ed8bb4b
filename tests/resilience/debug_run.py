"""Runs flows as a worker does, with every logger at DEBUG on stderr.

`python -m tests.resilience.debug_run sync-leads push-leads …`; a failing flow logs its traceback.
"""

import logging
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect.logging.configuration import setup_logging
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from flows.local_runs import FLOWS
from tests.fast_retries import shorten_retry_pauses

_LOG_FORMAT = "%(name)s %(levelname)s %(message)s"


def log_everything() -> None:
    """Log every present and future logger, in addition to Prefect's own handlers."""
    setup_logging()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(_LOG_FORMAT))
    root = logging.getLogger()
    root.setLevel(logging.DEBUG)
    root.addHandler(handler)
    # Loggers that would keep their own threshold; SQLAlchemy reads its threshold by name.
    for name in ("sqlalchemy", "sqlalchemy.engine", "sqlalchemy.pool", "urllib3", "requests"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    for logger in list(logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            logger.setLevel(logging.DEBUG)


def run_flow(name: str) -> None:
    """Run a flow and log any exception with its traceback, as a worker does."""
    more: dict[str, Any] = {}
    if name == "backfill-outcomes":
        now = datetime.now(UTC)
        more = {"after": now - timedelta(hours=1), "before": now}
    if name == "audit-leads":
        more = {"repair": True}
    try:
        print(FLOWS[name](**more))
    except Exception:
        logging.getLogger("a worker").exception("%s failed", name)


if __name__ == "__main__":
    log_everything()
    shorten_retry_pauses()
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        for argument in sys.argv[1:]:
            run_flow(argument)
