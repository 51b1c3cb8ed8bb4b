"""What the tests under fire have counted, said at the end of the session."""

from collections import Counter

#: Names that are said even where they are 0: that they are is the point.
_ZEROES = ("doubles", "lost", "429 of our own making")

TALLY: Counter[str] = Counter()


def lines() -> list[str]:
    """The counts, one line for each; none where no test under fire has run."""
    if not TALLY:
        return []
    rest = sorted(name for name in TALLY if name not in _ZEROES)
    return [f"{TALLY[name]:>9,} {name}" for name in (*rest, *_ZEROES)]
