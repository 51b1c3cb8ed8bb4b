"""A flow run whose worker is gone goes on."""

import logging
import os
from collections.abc import Iterator

import pytest
from prefect.logging.handlers import PrefectConsoleHandler

from flows.orphans import outlive_worker


@pytest.fixture
def orphan_log() -> Iterator[logging.Logger]:
    """A log whose console is a pipe that nobody reads any more."""
    reading, writing = os.pipe()
    os.close(reading)
    log = logging.getLogger("leadloop.tests.orphan")
    log.propagate = False
    stream = os.fdopen(writing, "w", buffering=1)
    handler = PrefectConsoleHandler(stream=stream)
    log.addHandler(handler)
    yield log
    log.removeHandler(handler)
    os.dup2(os.open(os.devnull, os.O_WRONLY), writing)
    stream.close()


def test_a_line_that_nobody_reads_ends_nothing(orphan_log: logging.Logger) -> None:
    """Rich raises SystemExit otherwise, in whichever thread has logged."""
    outlive_worker()
    for _ in range(2):
        orphan_log.warning("said to nobody")


def test_rich_ends_the_process_otherwise(
    orphan_log: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once this fails, `outlive_worker` is needed no more."""
    monkeypatch.setattr(os, "dup2", lambda *_: None)
    with pytest.raises(SystemExit):
        orphan_log.warning("said to nobody")
