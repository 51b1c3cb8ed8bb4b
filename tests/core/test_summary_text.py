"""A run's counts as a person reads them on the command line and in Prefect."""

from leadloop.core.summary_text import format_summary, has_counts, select_stages

_PUSH = {"created": 1204, "rejected": 3, "in_doubt": 0, "campaigns": {}}
_IDLE = {"disabled": 0, "campaigns": {}}


def test_zero_counts_are_left_out() -> None:
    """Names are words and large numbers have separators."""
    assert format_summary(_PUSH) == "created 1,204, rejected 3"
    assert format_summary({**_PUSH, "created": 0, "in_doubt": 2}) == "rejected 3, in doubt 2"
    assert format_summary(_IDLE) == "nothing to do"


def test_doubts_have_parts() -> None:
    """What was not looked up yet, and what waits for the settle time."""
    counts = {"created": 1, "in_doubt": 540, "not_looked_up": 12, "settling": 31, "suspects": 2}
    said = "created 1, in doubt 540, of which 12 not looked up yet, 31 wait for SETTLE, suspects 2"
    assert format_summary(counts) == said


def test_each_stage_of_a_sync_has_a_part() -> None:
    """A sync disables, pushes and polls; an idle stage is named as well."""
    sync = {"disable": _IDLE, "push": _PUSH}
    assert list(select_stages(sync)) == ["disable", "push"]
    assert format_summary(sync) == "disable: nothing to do; push: created 1,204, rejected 3"
    assert has_counts(sync)
    assert not has_counts({"disable": _IDLE, "poll": _IDLE})
