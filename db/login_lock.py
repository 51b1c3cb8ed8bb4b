"""The advisory lock of logins: processes that share a vendor account log in one after the other."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from sqlalchemy import Connection, text

from db.database import Database, DatabaseError
from leadloop.core.accounts import DEFAULT_ACCOUNT

_TRY_LOCK = text("SELECT pg_try_advisory_lock(hashtext('leadloop.login'), hashtext(:account))")
_UNLOCK = text("SELECT pg_advisory_unlock(hashtext('leadloop.login'), hashtext(:account))")
_PAUSE_S = 0.2
#: A holder may wait a minute for a permit of the rate limiter, and then for the vendor's response.
MAX_WAIT_S = 150.0


@contextmanager
def hold_login_lock(
    database: Database,
    sleep: Callable[[float], None],
    *,
    account: str = DEFAULT_ACCOUNT,
    max_wait_s: float = MAX_WAIT_S,
) -> Iterator[None]:
    """Hold the lock of an account for the block; no token is stored anywhere.

    The lock keeps logins from ending each other's tokens, and is no matter of safety. So the block
    runs without it if the lock cannot be had in time, or Postgres fails.

    Args:
        database: of all processes.
        sleep: sleeps for seconds; raises an error if the run is stopped.
        account: whose login it is.
        max_wait_s: seconds to wait for the lock.
    """
    with ExitStack() as stack:
        holder = None
        with suppress(DatabaseError), database.translate_errors():
            connection = stack.enter_context(database.autocommit())
            if _wait_for_lock(connection, sleep, account, max_wait_s):
                holder = connection
        try:
            yield
        finally:
            if holder is not None:
                with suppress(DatabaseError), database.translate_errors():
                    holder.execute(_UNLOCK, {"account": account})


def _wait_for_lock(
    connection: Connection, sleep: Callable[[float], None], account: str, max_wait_s: float
) -> bool:
    deadline = time.monotonic() + max_wait_s
    while not connection.scalar(_TRY_LOCK, {"account": account}):
        if time.monotonic() >= deadline:
            return False
        sleep(_PAUSE_S)
    return True
