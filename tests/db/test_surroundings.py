"""Surroundings of a session: what `leadloop doctor` reports of them (tests/cli/test_doctor.py)."""

from pathlib import Path

import pytest

from db.database import Database
from db.surroundings import assess_transport, describe_insecure_transport
from tests.dedicated_postgres import run_dedicated_postgres


@pytest.mark.parametrize(
    ("host", "is_encrypted", "mode", "said"),
    [
        ("/var/run/postgresql", False, "prefer", None),
        ("", False, "prefer", None),
        ("127.0.0.1", False, "prefer", None),
        ("db.example.com", False, "prefer", "is not encrypted"),
        ("10.0.0.5", True, "require", "does not verify the server"),
        ("db.example.com", True, "verify-ca", "does not verify the server"),
        ("db.example.com", True, "verify-full", None),
    ],
)
def test_a_connection_that_others_could_read(
    host: str, is_encrypted: bool, mode: str, said: str | None
) -> None:
    """What leaves this machine goes to a verified server, encrypted."""
    found = assess_transport(host, is_encrypted=is_encrypted, mode=mode)
    assert (found is None) if said is None else (said in str(found))


def test_a_connection_over_loopback(tmp_path: Path) -> None:
    """As the driver describes it."""
    with (
        run_dedicated_postgres(tmp_path / "pg") as server,
        Database(server.url, pool_size=1) as database,
    ):
        assert database.run(describe_insecure_transport) is None
