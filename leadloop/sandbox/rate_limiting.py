"""The rate limit of the vendor account: a limited number of requests in a sliding window."""

from collections import deque


class SlidingWindowLimiter:
    """A rate limiter over a sliding window. It counts admitted requests only."""

    def __init__(self) -> None:
        self._admitted: deque[float] = deque()

    def admit(self, limit: tuple[int, float] | None, now: float) -> float:
        """Admit a request if the window has room.

        Args:
            limit: (requests, seconds); None: no limit.
            now: seconds of a monotonic clock.

        Returns:
            0 if the request is admitted, else the seconds until the window has room.
        """
        if limit is None:
            return 0.0
        requests, seconds = limit
        while self._admitted and self._admitted[0] <= now - seconds:
            self._admitted.popleft()
        if len(self._admitted) >= requests:
            return self._admitted[len(self._admitted) - requests] + seconds - now
        self._admitted.append(now)
        return 0.0

    def reset(self) -> None:
        """Forget the admitted requests."""
        self._admitted.clear()
