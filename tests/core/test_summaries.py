"""A caller gets the summary of a run that fails too."""

import pytest

from leadloop.core.summaries import collect_summary, report_summary


def _fail_after_reporting() -> None:
    report_summary({"created": 2})
    raise ValueError("broke")


def test_a_run_that_fails_leaves_its_summary() -> None:
    """The command line prints the counts beside the error."""
    with pytest.raises(ValueError, match="broke"), collect_summary() as collected:
        _fail_after_reporting()
    assert collected.summary == {"created": 2}


def test_without_a_caller_a_summary_is_dropped() -> None:
    """A deployment's run has none, and the next caller must not get it."""
    report_summary({"created": 2})
    with collect_summary() as collected:
        pass
    assert collected.summary == {}
