from tasks.rejection_streak import MAX_ALIKE, RejectionStreak


def test_words_that_differ_by_the_lead_alone_are_the_same() -> None:
    """Its id, whatever it looks like, and any number."""
    refusals = RejectionStreak()
    ids = [f"A-{n}" for n in range(MAX_ALIKE - 2)] + ["a", "x.y"]
    said = [(each, f"Lead {each}: Campaign closed at {n}") for n, each in enumerate(ids)]
    assert refusals.add_rejections(said[:-1]) == []
    assert refusals.add_rejections(said[-1:]) == ids


def test_other_words_or_a_lead_that_is_taken_begin_anew() -> None:
    """Leads that are bad each in its own way are no refusal of the campaign."""
    refusals = RejectionStreak()
    for n in range(3 * MAX_ALIKE):
        words = "closed" if n % MAX_ALIKE else "no such state"
        assert refusals.add_rejections([(f"L{n}", words)]) == []
    refusals.reset()
    assert refusals.add_rejections([("M", "closed")]) == []


def test_a_lead_that_is_refused_again_is_one() -> None:
    """Few leads that are tried several times do not speak for all."""
    refusals = RejectionStreak()
    for n in range(3 * MAX_ALIKE):
        assert refusals.add_rejections([(f"L{n % 9}", "unknown")]) == []
