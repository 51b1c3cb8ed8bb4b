"""Flows as a worker runs them, with everything that can be logged on stderr: DEBUG, of everybody.

`python -m tests.fire.loud sync-leads push-leads …`; a flow that fails does so with its traceback.
"""

import logging
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect.logging.configuration import setup_logging
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from flows.local_runs import FLOWS
from tests.quick import hurry

_LINE = "%(name)s %(levelname)s %(message)s"


def listen_to_everybody() -> None:
    """Every logger there is or will be, on top of what Prefect's own handlers print."""
    setup_logging()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(_LINE))
    root = logging.getLogger()
    root.setLevel(logging.DEBUG)
    root.addHandler(handler)
    # Those that would keep their own threshold; SQLAlchemy asks for its own by name.
    for name in ("sqlalchemy", "sqlalchemy.engine", "sqlalchemy.pool", "urllib3", "requests"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    for logger in list(logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            logger.setLevel(logging.DEBUG)


def run(name: str) -> None:
    """A flow; whatever it raises is logged with its traceback, as a worker would."""
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
    listen_to_everybody()
    hurry()
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        for argument in sys.argv[1:]:
            run(argument)
