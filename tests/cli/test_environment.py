"""What a command finds around it: a schema of its version, the embedded Postgres."""

from pathlib import Path

import pytest

from db.database import Database
from tests import sql
from tests.cli.conftest import Command


def test_a_schema_that_is_missing_or_too_new_is_told(
    invoke: Command, database: Database, empty_database_url: str
) -> None:
    """Both say what to do, and exit with 2."""
    missing = invoke("status", LEADLOOP_DATABASE_URL=empty_database_url)
    assert (missing.code, "leadloop init" in missing.err) == (2, True)
    sql.execute(database, "UPDATE leadloop.alembic_version SET version_num = '9999'")
    newer = invoke("status")
    assert (newer.code, "9999" in newer.err) == (2, True)


def test_the_embedded_database_is_asked_for_and_named(
    leadloop: Command, environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command says that it uses it, doctor where it is set; unset, its data are not lost."""
    monkeypatch.delenv("LEADLOOP_DATABASE_URL")
    unset = leadloop("init")
    assert (unset.code, ".leadloop/pg" in unset.err) == (2, False)
    assert not (environment / ".leadloop").exists()
    (environment / ".env").write_text("LEADLOOP_DATABASE_URL=embedded\n")
    made = leadloop("init", "--json")
    assert (made.code, list(made.last), made.out.count("\n")) == (0, ["version"], 1)
    assert made.err == "leadloop: embedded Postgres in ./.leadloop\n"
    checks = {each["check"]: each["detail"] for each in leadloop("doctor", "--json").last["checks"]}
    assert checks["database"].startswith("embedded Postgres in ./.leadloop, ")
    assert "database_url from .env" in checks["settings"]
    (environment / ".env").unlink()
    later = leadloop("status")
    assert (later.code, len(later.err.splitlines())) == (2, 1)
    assert ".leadloop/pg holds data" in later.err
