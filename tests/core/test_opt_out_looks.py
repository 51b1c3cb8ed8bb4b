"""When opt-out sources are looked at, and for how long a look lets leads be sent."""

from dataclasses import replace

from leadloop.core.campaign_rules import Campaign
from leadloop.core.opt_out_looks import OptOutLooks
from leadloop.settings import Settings

_RULES = Settings().campaign_rules().__dict__
C1 = Campaign(**_RULES, campaign_id="C1", opt_out_source="crm.out")
C2 = replace(C1, campaign_id="C2")


def test_a_look_is_due_every_ten_seconds_and_counts_for_twice_that() -> None:
    """The first one at once; no lead may be sent before it."""
    looks = OptOutLooks()
    assert looks.is_due(C1, 100)
    assert not looks.is_fresh(C1, 100)
    looks.begin(C1)
    looks.end(C1, 100, 100.5, is_applied=True)
    assert [looks.is_due(C1, now) for now in (110, 110.5)] == [False, True]
    assert [looks.is_fresh(C1, now) for now in (120, 120.5)] == [True, False]
    assert looks.is_due(C2, 100.5)
    assert not looks.is_fresh(C2, 100.5)


def test_a_look_that_takes_long_is_as_seldom_as_long() -> None:
    """It takes at most a twentieth of the time, and is slow, so that it holds up no others."""
    looks = OptOutLooks()
    looks.end(C1, 100, 102, is_applied=True)
    assert [looks.is_due(C1, now) for now in (141, 142)] == [False, True]
    assert [looks.is_fresh(C1, now) for now in (181, 182)] == [True, False]
    assert looks.is_slow(C1)
    looks.end(C2, 100, 100.1, is_applied=True)
    assert not looks.is_slow(C2)
    looks.end(C1, 200, 200.1, is_applied=True)
    assert not looks.is_slow(C1)


def test_a_source_is_slow_until_it_has_proved_quick() -> None:
    """A look that finds something goes on with a take, which may take longer."""
    looks = OptOutLooks()
    assert looks.is_slow(C1)
    looks.end(C1, 100, 100.1, is_applied=False)
    assert not looks.is_slow(C1)
    looks.end(C1, 100, 100.1, is_applied=True, is_take=True, waited_s=29)
    assert looks.is_slow(C1)
    looks.end(C1, 110, 110.1, is_applied=True)
    assert looks.is_slow(C1), "its next take may be as slow"
    looks.end(C1, 120, 120.1, is_applied=True, is_take=True)
    assert not looks.is_slow(C1)
    looks.fail(C1, 130, 130.1, "it is locked", is_take=True)
    looks.end(C1, 140, 140.1, is_applied=True)
    assert looks.is_slow(C1)


def test_locks_and_writes_are_no_load_of_the_source() -> None:
    """What takes long here makes no look rarer; the rows are as old as their read."""
    looks = OptOutLooks()
    looks.end(C1, 100, 100, is_applied=True, is_take=True, waited_s=29)
    assert [looks.is_due(C1, now) for now in (109, 110)] == [False, True]
    assert [looks.is_fresh(C1, now) for now in (119, 120)] == [True, False]


def test_opt_outs_that_are_not_on_record_yet_do_not_count() -> None:
    """A look that has found some lets nobody be sent longer than the one before it."""
    looks = OptOutLooks()
    looks.end(C1, 100, 100, is_applied=True)
    looks.end(C1, 110, 110, is_applied=False)
    assert [looks.is_fresh(C1, now) for now in (119, 120)] == [True, False]


def test_a_failure_ends_it_at_once() -> None:
    """Until a look succeeds again."""
    looks = OptOutLooks()
    looks.end(C1, 100, 100, is_applied=True)
    looks.fail(C1, 110, 110, "it is locked")
    assert not looks.is_fresh(C1, 110)
    assert not looks.is_due(C1, 111)
    assert (looks.find_failure(C1), looks.is_slow(C1)) == ("it is locked", True)
    looks.end(C1, 120, 120, is_applied=True)
    assert looks.is_fresh(C1, 121)
    assert (looks.find_failure(C1), looks.is_slow(C1)) == (None, False)


def test_a_look_that_failed_is_repeated_within_a_minute() -> None:
    """However long it waited for a lock: nobody is sent before it."""
    looks = OptOutLooks()
    looks.fail(C1, 100, 220, "it is locked")
    assert [looks.is_due(C1, now) for now in (279, 280)] == [False, True]


def test_another_source_is_looked_at_at_once() -> None:
    """What is known of the one before does not count for it."""
    looks = OptOutLooks()
    looks.end(C1, 100, 100, is_applied=True)
    other = replace(C1, opt_out_source="crm.others")
    assert looks.is_due(other, 100)
    assert not looks.is_fresh(other, 100)


def test_an_announced_change_is_looked_at_within_the_share_of_the_time() -> None:
    """A live run waits for that moment."""
    looks = OptOutLooks()
    looks.end(C1, 100, 100.1, is_applied=True)
    looks.announce([C1])
    assert looks.find_next_due(100.1) > 102
    assert [looks.is_due(C1, now) for now in (102, 102.2)] == [False, True]
    looks.begin(C1)
    looks.end(C1, 103, 103.1, is_applied=True)
    assert not looks.is_due(C1, 112)
