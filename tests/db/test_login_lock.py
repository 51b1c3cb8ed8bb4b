"""The lock of logins: one process logs in at a time, and nothing waits for it for ever."""

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from sqlalchemy import text

from db.database import Database
from db.login_lock import hold_login_lock
from leadloop.core.errors import RunError
from tests import sql


def test_two_processes_log_in_one_after_the_other(database: Database, database_url: str) -> None:
    """The second waits for the end of the first one's block, and then has its turn."""
    order: list[str] = []
    waits = Event()

    def sleep(_: float) -> None:
        waits.set()
        time.sleep(0.01)

    def log_in() -> None:
        with Database(database_url, pool_size=1) as other, hold_login_lock(other, sleep):
            order.append("second")

    with ThreadPoolExecutor(1) as pool:
        with hold_login_lock(database, time.sleep):
            second = pool.submit(log_in)
            assert waits.wait(30)
            order.append("first")
        second.result(30)
    assert order == ["first", "second"]


def test_a_stranger_who_holds_the_lock_stops_no_login(
    database: Database, database_url: str
) -> None:
    """Any role can take it. Without it, a login may end another one; it is no matter of safety."""
    with database.autocommit() as stranger:
        stranger.execute(text("SELECT pg_advisory_lock(hashtext('leadloop.login'), 0)"))
        with Database(database_url, pool_size=1) as ours:
            for _ in range(2):
                with hold_login_lock(ours, time.sleep, max_wait_s=0.1):
                    pass
        stranger.execute(text("SELECT pg_advisory_unlock_all()"))


def test_a_run_that_is_stopped_does_not_wait(database: Database, database_url: str) -> None:
    """The sleep of a stopped run raises an error."""

    def stopped(_: float) -> None:
        raise RunError("stopped")

    with (
        hold_login_lock(database, time.sleep),
        Database(database_url, pool_size=1) as ours,
        pytest.raises(RunError, match="stopped"),
        hold_login_lock(ours, stopped),
    ):
        pass


def test_a_failure_in_the_turn_lets_go_of_the_lock(database: Database) -> None:
    """The next login does not wait."""
    with pytest.raises(ZeroDivisionError), hold_login_lock(database, time.sleep):
        raise ZeroDivisionError
    held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
    assert sql.fetch_value(database, held) == 0
