"""Bisection: isolate the items that make a repeatable request fail, by halving the list.

For idempotent requests, such as disables. A transient failure must mark no item as the cause: a
list fails `max_failures` times before it is halved, and a lone item fails as often before it is a
candidate. An outage must mark no item either: after two items failed alone, wait for a successful
request with other items before marking either.

    isolation = Isolation(items)
    while isolation.next_list or isolation.needs_probe: ...
"""

from collections.abc import Sequence

#: This many items that failed alone, without one success of such a request, count as an outage.
MAX_CANDIDATES = 10
#: Failures of one list before it is halved, and of a lone item before it is a candidate.
MAX_FAILURES = 3


class Isolation:
    """The lists still to send, halved depth first, and the candidates for the cause found so far.

    Args:
        items: the list to send, in order.
        max_failures: the failures of a list before it is halved.
    """

    def __init__(self, items: Sequence[str], *, max_failures: int = MAX_FAILURES) -> None:
        self._max_failures = max_failures
        self._lists = [list(items)] if items else []
        self._failures = 0
        self._candidates: list[str] = []
        self._has_succeeded = False
        self._probe_at = 2
        #: The last failure, as text for a person.
        self.reason = ""

    @property
    def next_list(self) -> Sequence[str]:
        """The items to send next; empty if all lists are done."""
        return self._lists[-1] if self._lists else ()

    @property
    def failures(self) -> int:
        """The number of failures of the next list so far."""
        return self._failures

    @property
    def candidates(self) -> Sequence[str]:
        """The items that failed alone since the last success; none is marked as the cause yet."""
        return tuple(self._candidates)

    @property
    def needs_probe(self) -> bool:
        """Whether a request with other items must succeed before the next list is sent.

        True if items in a row failed alone, and at the end if no request has succeeded.
        """
        if len(self._candidates) >= self._probe_at:
            return True
        return bool(self._candidates) and not self._lists and not self._has_succeeded

    def defer_probe(self) -> None:
        """Continue without a probe up to MAX_CANDIDATES: only another kind of request succeeded."""
        self._probe_at = MAX_CANDIDATES

    def record_success(self) -> list[str]:
        """Close the next list; return the candidates, now marked as the cause."""
        self._close_list()
        return self.record_probe_success()

    def record_failure(self, reason: str) -> None:
        """Count a failure of the next list: repeat or halve it, or keep its item as a candidate."""
        self.reason = reason
        self._failures += 1
        if self._failures < self._max_failures:
            return
        failed = self._close_list()
        if len(failed) == 1:
            self._candidates += failed
        else:
            self._lists += reversed(split_list(failed))

    def replace_list(self, lists: Sequence[Sequence[str]]) -> None:
        """Replace the next list, which was rejected, by others without counting a failure."""
        self._close_list()
        self._lists += [list(items) for items in reversed(lists) if items]

    def record_probe_success(self) -> list[str]:
        """Record that the vendor works; return the candidates, now marked as the cause."""
        self._has_succeeded = True
        self._probe_at = 2
        marked, self._candidates = self._candidates, []
        return marked

    def mark_rest(self) -> list[str]:
        """Mark and return the candidate left at the end, if any request has succeeded before."""
        return self.record_probe_success() if self._has_succeeded else []

    def _close_list(self) -> list[str]:
        self._failures = 0
        return self._lists.pop()


def split_list(items: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the two halves of a list."""
    middle = len(items) // 2
    return list(items[:middle]), list(items[middle:])
