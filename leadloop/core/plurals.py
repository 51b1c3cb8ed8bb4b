"""Counts with their noun, in singular or plural."""


def format_count(number: int, noun: str, plural: str = "") -> str:
    """Format a count with its noun: 1 lead, 1,203 leads.

    Args:
        number: the count.
        noun: in the singular.
        plural: the noun's plural, if it is not the noun and an "s".
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
