"""Isolate the items that make a repeatable request fail, by halving the list that holds them.

For requests that may be sent again without harm, such as disables. Noise must accuse nobody, so a
list fails `max_failures` times before it is halved, and a lone item as often before it is accused.
An outage must accuse nobody either: of two items that failed alone, neither is accused before the
vendor has shown, with something else, that it still works.

    isolation = Isolation(items)
    while isolation.next_list or isolation.needs_probe: ...
"""

from collections.abc import Sequence

#: Items that failed alone, with no proof that such a request works for anybody, which are taken for
#: an outage of that kind of request.
MAX_SUSPECTS = 10
#: Failures of one list before it is halved, and of a lone item before it is accused.
MAX_FAILURES = 3


class Isolation:
    """Decide which list to send next; lists are halved depth first.

    Args:
        items: the list that is to be sent, in its order.
        max_failures: how often a list may fail before it is halved.
    """

    def __init__(self, items: Sequence[str], *, max_failures: int = MAX_FAILURES) -> None:
        self._max_failures = max_failures
        self._lists = [list(items)] if items else []
        self._failures = 0
        self._suspects: list[str] = []
        self._has_succeeded = False
        self._probe_at = 2
        #: What the last failure was, in words for a person.
        self.reason = ""

    @property
    def next_list(self) -> Sequence[str]:
        """The items to send next; none where all lists are done."""
        return self._lists[-1] if self._lists else ()

    @property
    def failures(self) -> int:
        """How often the next list has failed already."""
        return self._failures

    @property
    def suspects(self) -> Sequence[str]:
        """Items that failed alone since the last success, not accused yet."""
        return tuple(self._suspects)

    @property
    def needs_probe(self) -> bool:
        """Whether to try something unsuspected before going on.

        True where items in a row failed alone, and at the end where nothing has succeeded.
        """
        if len(self._suspects) >= self._probe_at:
            return True
        return bool(self._suspects) and not self._lists and not self._has_succeeded

    def keep_suspects(self) -> None:
        """Go on without proof, up to MAX_SUSPECTS: only another kind of request has worked."""
        self._probe_at = MAX_SUSPECTS

    def record_success(self) -> list[str]:
        """Close the next list. Return the suspects, which are accused now."""
        self._close_list()
        return self.record_probe_success()

    def record_failure(self, reason: str) -> None:
        """Count a failure of the next list: send it again, halve it, or suspect its only item."""
        self.reason = reason
        self._failures += 1
        if self._failures < self._max_failures:
            return
        failed = self._close_list()
        if len(failed) == 1:
            self._suspects += failed
        else:
            self._lists += reversed(split_in_half(failed))

    def replace_list(self, lists: Sequence[Sequence[str]]) -> None:
        """Replace the next list by others, without counting a failure: it was refused."""
        self._close_list()
        self._lists += [list(items) for items in reversed(lists) if items]

    def record_probe_success(self) -> list[str]:
        """Note that the vendor works. Return the suspects, which are accused now."""
        self._has_succeeded = True
        self._probe_at = 2
        accused, self._suspects = self._suspects, []
        return accused

    def accuse_rest(self) -> list[str]:
        """Return the suspect that is left at the end, where the vendor has worked before."""
        return self.record_probe_success() if self._has_succeeded else []

    def _close_list(self) -> list[str]:
        self._failures = 0
        return self._lists.pop()


def split_in_half(items: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the two halves of a list."""
    middle = len(items) // 2
    return list(items[:middle]), list(items[middle:])
