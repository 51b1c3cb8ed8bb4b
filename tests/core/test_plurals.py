"""Counts with their noun."""

from leadloop.core.plurals import format_count


def test_the_noun_agrees_with_the_number() -> None:
    """Only 1 is singular; thousands are separated."""
    shown = [format_count(number, "problem") for number in (0, 1, 2, 1203)]
    assert shown == ["0 problems", "1 problem", "2 problems", "1,203 problems"]
    assert [format_count(number, "try", "tries") for number in (1, 2)] == ["1 try", "2 tries"]
