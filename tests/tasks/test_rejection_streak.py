from tasks.rejection_streak import MAX_ALIKE, RejectionStreak


def test_reasons_that_differ_only_by_the_lead_are_the_same() -> None:
    """The lead's id and all numbers are left out of the comparison."""
    streak = RejectionStreak()
    ids = [f"A-{n}" for n in range(MAX_ALIKE - 2)] + ["a", "x.y"]
    rejections = [(each, f"Lead {each}: Campaign closed at {n}") for n, each in enumerate(ids)]
    assert streak.add_rejections(rejections[:-1]) == []
    assert streak.add_rejections(rejections[-1:]) == ids


def test_another_reason_or_an_accepted_lead_ends_the_streak() -> None:
    """Leads that are rejected for different reasons do not stop the campaign."""
    streak = RejectionStreak()
    for n in range(3 * MAX_ALIKE):
        reason = "closed" if n % MAX_ALIKE else "no such state"
        assert streak.add_rejections([(f"L{n}", reason)]) == []
    streak.reset()
    assert streak.add_rejections([("M", "closed")]) == []


def test_a_lead_that_is_rejected_repeatedly_counts_once() -> None:
    """A few leads that are tried several times do not stop the campaign."""
    streak = RejectionStreak()
    for n in range(3 * MAX_ALIKE):
        assert streak.add_rejections([(f"L{n % 9}", "unknown")]) == []
