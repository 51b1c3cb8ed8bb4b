"""Whether a live run relies on notifications."""

import pytest

from db.due_work import DueWork
from db.notifications import NEWS
from tasks.live_notices import NoticeWatch

LEADS = DueWork(campaign_id="A", has_leads=True)
BOTH = DueWork(campaign_id="A", has_leads=True, has_opt_outs=True)


@pytest.fixture
def notices() -> NoticeWatch:
    """A live run's watch, whose first proof has arrived, and whose first look found nothing."""
    watch = NoticeWatch()
    assert not watch.is_reliable
    watch.record([watch.start_proof()])
    watch.record_look([])
    return watch


def test_a_proof_that_arrives_is_enough(notices: NoticeWatch) -> None:
    """And announces no work."""
    assert notices.is_reliable
    assert not notices.record([notices.start_proof()])
    assert not notices.record(["somebody else's"])
    assert notices.is_reliable


def test_a_proof_that_is_lost(notices: NoticeWatch) -> None:
    """It is noticed when the next one is due; and the next one that arrives is enough."""
    notices.start_proof()
    assert notices.is_reliable
    proof = notices.start_proof()
    assert not notices.is_reliable
    notices.record([proof])
    assert notices.is_reliable


def test_work_that_nothing_has_announced(notices: NoticeWatch) -> None:
    """A proof is no longer enough, as triggers may be missing; an announcement is."""
    notices.record_look([LEADS])
    assert not notices.is_reliable
    notices.record([notices.start_proof()])
    assert not notices.is_reliable
    assert notices.record([NEWS])
    assert notices.is_reliable


def test_work_that_was_announced_or_known_or_expected(notices: NoticeWatch) -> None:
    """All of that is found by looks too, and notifications are as reliable as before."""
    notices.record([NEWS])
    notices.record_look([LEADS])
    notices.record_look([LEADS])
    notices.expect_work()
    notices.record_look([BOTH])
    notices.record_look([])
    assert notices.is_reliable
    notices.record_look([LEADS])
    assert not notices.is_reliable


def test_another_kind_of_work_is_new_too(notices: NoticeWatch) -> None:
    """A campaign whose leads wait may get an opt-out."""
    notices.record([NEWS])
    notices.record_look([LEADS])
    notices.record_look([BOTH])
    assert not notices.is_reliable
