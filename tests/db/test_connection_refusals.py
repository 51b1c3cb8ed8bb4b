"""A connection that Postgres refuses: the reason by its SQLSTATE, in whatever language."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from sqlalchemy import make_url

from db.database import Database, DatabaseError
from tests import sql
from tests.conftest import new_database


@pytest.fixture
def guest(database: Database, database_url: str) -> Iterator[str]:
    """The URL of this test's database for the role `guest`."""
    sql.execute(database, "CREATE ROLE guest LOGIN")
    try:
        yield make_url(database_url).set(username="guest").render_as_string(hide_password=False)
    finally:
        sql.execute(database, "DROP OWNED BY guest; DROP ROLE guest")


def refusal(url: str) -> str:
    """The line with which Postgres's refusal of a connection is told."""
    with (
        Database(url, pool_size=1) as database,
        pytest.raises(DatabaseError) as caught,
        database.transaction(),
    ):
        pass
    return str(caught.value)


def test_the_limit_of_a_role(database: Database, guest: str) -> None:
    """The line names which limit it is, and how many connections a run opens."""
    sql.execute(database, "ALTER ROLE guest CONNECTION LIMIT 1")
    with Database(guest, pool_size=1) as first, first.transaction():
        line = refusal(guest)
    assert "the role has reached its CONNECTION LIMIT" in line
    assert "2 × (LEADLOOP_CONCURRENCY + 4)" in line
    assert "is it running" not in line


def test_the_limit_of_a_database(database: Database, guest: str) -> None:
    """Not that of the role, nor that of the server."""
    name = sql.fetch_value(database, "SELECT current_database()")
    sql.execute(database, f"ALTER DATABASE {name} CONNECTION LIMIT 0")
    assert "the database has reached its CONNECTION LIMIT" in refusal(guest)


def test_refusals_name_what_is_wrong(database: Database, guest: str) -> None:
    """Each with advice of its own, not that the server may be down."""
    nobody = make_url(guest).set(username="nobody_at_all").render_as_string(hide_password=False)
    assert "no such user, or pg_hba.conf" in refusal(nobody)
    elsewhere = make_url(guest).set(database="no_such").render_as_string(hide_password=False)
    assert "no such database; correct LEADLOOP_DATABASE_URL (SQLSTATE 3D000)" in refusal(elsewhere)
    name = sql.fetch_value(database, "SELECT current_database()")
    sql.execute(database, f"REVOKE CONNECT ON DATABASE {name} FROM PUBLIC")
    assert "GRANT CONNECT ON DATABASE" in refusal(guest)


def test_a_database_without_connections(postgres: str) -> None:
    """As an administrator closes it."""
    with ExitStack() as stack:
        url = new_database(stack, postgres, "template0")
        with Database(postgres, pool_size=1) as server:
            sql.execute(server, f"ALTER DATABASE {make_url(url).database} ALLOW_CONNECTIONS false")
        assert "accepts no connections" in refusal(url)


@contextmanager
def foreign_postgres(*fields: str) -> Iterator[str]:
    """A server that refuses each connection with these fields of an ErrorResponse."""
    body = b"".join(field.encode() + b"\0" for field in fields) + b"\0"
    answer = b"E" + struct.pack("!i", len(body) + 4) + body

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        port = server.getsockname()[1]
        yield f"postgresql://ann:s3cret@127.0.0.1:{port}/d?sslmode=disable&gssencmode=disable"
        server.shutdown(socket.SHUT_RDWR)
        thread.join(timeout=10)


@pytest.mark.parametrize(
    ("code", "message", "function", "said"),
    [
        ("28P01", "Passwort-Authentifizierung fehlgeschlagen", "auth_failed", "wrong user or pass"),
        ("53300", "tut mir leid, schon zu viele Verbindungen", "InitProcess", "max_connections"),
        ("53300", "zu viele Verbindungen", "InitializeSessionUserId", "the role has reached"),
        ("57P03", "das Datenbanksystem startet", "ProcessStartupPacket", "starting up or shut"),
        ("3D000", "Datenbank »d« existiert nicht", "InitPostgres", "no such database"),
    ],
)
def test_a_server_that_speaks_another_language(
    code: str, message: str, function: str, said: str
) -> None:
    """Its words are not read, only its codes."""
    fields = ("SFATAL", "VFATAL", f"C{code}", f"M{message}", "Fx.c", "L7", f"R{function}")
    with foreign_postgres(*fields) as url:
        line = refusal(url)
    assert said in line
    assert "s3cret" not in line
    assert message not in line


def test_a_pooler_that_gives_no_place() -> None:
    """Which limit it is, is not known then."""
    with foreign_postgres("SFATAL", "C53300", "Mno more connections allowed") as url:
        assert "the role, the database, the server or a pooler has reached" in refusal(url)
