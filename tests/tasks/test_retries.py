import pytest

from leadloop.core.errors import RunError
from tasks.retries import MAX_FRUITLESS_ATTEMPTS, FruitlessAttempts


def test_pauses_grow_until_the_attempts_are_used_up() -> None:
    """1 s, 2 s, 4 s … with jitter of a half; the last failure ends the run with its reason."""
    attempts = FruitlessAttempts()
    for failure in range(MAX_FRUITLESS_ATTEMPTS - 1):
        pause_s = attempts.record_failure("no response")
        assert 0.5 * 2**failure <= pause_s <= 1.5 * 2**failure
    with pytest.raises(RunError, match="no response"):
        attempts.record_failure("no response")


def test_progress_starts_the_count_again() -> None:
    """A job that gets something done between its failures is never given up."""
    attempts = FruitlessAttempts()
    for _ in range(3 * MAX_FRUITLESS_ATTEMPTS):
        attempts.record_failure("no response")
        assert attempts.has_failed
        attempts.reset()
        assert not attempts.has_failed
