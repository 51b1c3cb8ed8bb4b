"""Hints after a run, from its summary alone."""

from db.database import Database
from leadloop.cli import hints
from tests import factories
from tests.cli.conftest import Command


def test_what_a_run_leaves_is_listed() -> None:
    """Leads rejected, in doubt or held back, failed opt-outs; a sync's stages are one run."""
    summary = {
        "disable": {"failed": 1},
        "push": {"rejected": 2, "in_doubt": 1200, "held_back": 3},
        "poll": {"windows": 2},
    }
    rejected, in_doubt, held_back, failed = hints.leftover_hints(summary)
    assert rejected.startswith("leads rejected: 2; ")
    assert in_doubt.startswith("leads in doubt: 1,200; ")
    assert held_back.startswith("leads held back: 3; ")
    assert failed.startswith("opt-outs that failed: 1; ")
    assert hints.leftover_hints({"created": 5, "in_doubt": 0}) == []


def test_housekeeping_explains_no_poll(invoke: Command, database: Database, prefect: str) -> None:
    """It deletes windows, and requests nothing."""
    factories.add_campaign(database)
    assert invoke("housekeeping", PREFECT_API_URL=prefect).err.strip() == ""
    assert "no lead was sent yet" in invoke("poll", PREFECT_API_URL=prefect).err


def test_an_empty_poll_is_explained() -> None:
    """For a campaign without windows and requests, and no other one."""
    summary = {
        "campaigns": {
            "idle": {"windows": 0, "requests": 0},
            "read": {"windows": 1, "requests": 1},
        }
    }
    (hint,) = hints.empty_poll_hints(summary)
    assert hint.startswith("campaign idle: no lead was sent yet")
