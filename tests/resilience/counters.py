"""Counters of the resilience tests, printed at the end of the session."""

from collections import Counter

#: Counters that are printed even at 0, because 0 is the expected value.
_ALWAYS_SHOWN = ("doubles", "lost", "429 caused by leadloop")

COUNTERS: Counter[str] = Counter()


def format_counters() -> list[str]:
    """Return a line for each counter; none if no resilience test has run."""
    if not COUNTERS:
        return []
    rest = sorted(name for name in COUNTERS if name not in _ALWAYS_SHOWN)
    return [f"{COUNTERS[name]:>9,} {name}" for name in (*rest, *_ALWAYS_SHOWN)]
