"""Bisection of a disable that fails: isolate the opt-outs that cause it, by halving the list.

For idempotent requests only; a push, whose creates are not, bisects in `tasks/push.py`. A transient
failure must mark no item as the cause: a list fails `MAX_FAILURES` times before it is halved, and
a lone item fails as often before it is a candidate. An outage must mark no item either: a candidate
is marked only after a later request with other items has succeeded.

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
    """

    def __init__(self, items: Sequence[str]) -> None:
        self._lists = [list(items)] if items else []
        self._failures = 0
        self._candidates: list[str] = []
        self._probe_at = 2
        self._largest_passed = 0
        self._has_halved = False
        self._has_culprit = False
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

        True if two items in a row failed alone, and if an item did and no list is left.
        """
        return len(self._candidates) >= (self._probe_at if self._lists else 1)

    @property
    def passing_size(self) -> int | None:
        """The size of the longest list that passed, if only shorter lists passed, with all items.

        None if no list was halved, or if single items were the cause.
        """
        return self._largest_passed if self._has_halved and not self._has_culprit else None

    def defer_probe(self) -> None:
        """Continue without a probe up to MAX_CANDIDATES: only another kind of request succeeded."""
        self._probe_at = MAX_CANDIDATES

    def record_success(self) -> list[str]:
        """Close the next list; return the candidates, now marked as the cause."""
        self._largest_passed = max(self._largest_passed, len(self._close_list()))
        return self.take_candidates()

    def record_failure(self, reason: str) -> None:
        """Count a failure of the next list: repeat or halve it, or keep its item as a candidate."""
        self.reason = reason
        self._failures += 1
        if self._failures < MAX_FAILURES:
            return
        failed = self._close_list()
        if len(failed) == 1:
            self._candidates += failed
            self._has_culprit = True
        else:
            self._lists += reversed(split_list(failed))
            self._has_halved = True

    def replace_list(self, lists: Sequence[Sequence[str]]) -> None:
        """Replace the next list, which was rejected, by others without counting a failure."""
        self._close_list()
        self._lists += [list(items) for items in reversed(lists) if items]
        self._has_culprit = True

    def take_candidates(self) -> list[str]:
        """Take the candidates, to be marked as the cause: the vendor works for other items."""
        self._probe_at = 2
        marked, self._candidates = self._candidates, []
        return marked

    def retry_candidates(self) -> None:
        """Send the candidates again: they may have failed in an outage that is over."""
        self._lists += [[item] for item in reversed(self.take_candidates())]

    def _close_list(self) -> list[str]:
        self._failures = 0
        return self._lists.pop()


def split_list(items: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the two halves of a list."""
    middle = len(items) // 2
    return list(items[:middle]), list(items[middle:])
