"""`leadloop demo`: what keeps it from starting."""

import fcntl
from pathlib import Path

from tests.cli.conftest import Command


def test_two_demos_or_none(environment: Path, invoke: Command) -> None:
    """Where another demo runs, or nothing may be written, one line says so."""
    demo = environment / ".leadloop" / "demo"
    demo.mkdir(parents=True)
    with (demo / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = invoke("demo")
    assert (second.code, len(second.err.splitlines())) == (2, 1)
    assert "another `leadloop demo` runs" in second.err
    (demo / "leads.csv").mkdir()
    refused = invoke("demo")
    assert (refused.code, len(refused.err.splitlines())) == (2, 1)
    assert "cannot write to" in refused.err
