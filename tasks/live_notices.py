"""Whether a live run can rely on notifications of new work, so that it need not look often."""

from collections.abc import Collection, Sequence
from secrets import token_hex

from db.due_work import DueWork
from db.notifications import NEWS


class NoticeWatch:
    """Judges by proofs and by what looks find whether notifications arrive.

    They are reliable once a proof that was sent has arrived. They are so no longer if the next one
    does not, or if a look finds work that nothing has announced: then not before new work is
    announced again.
    """

    def __init__(self) -> None:
        self._proof = ""
        self._is_proven = False
        self._has_missed = False
        self._is_announced = True
        self._known: set[tuple[str, str]] = set()

    @property
    def is_reliable(self) -> bool:
        """Whether new work is announced."""
        return self._is_proven and not self._has_missed

    def start_proof(self) -> str:
        """Return the text of the next proof; the last one has arrived by now, or is lost."""
        self._is_proven = self._is_proven and not self._proof
        self._proof = token_hex(8)
        return self._proof

    def record(self, received: Collection[str]) -> bool:
        """Record the texts of notifications; return whether they announce new work."""
        if self._proof and self._proof in received:
            self._proof, self._is_proven = "", True
        if NEWS not in received:
            return False
        self._is_announced, self._has_missed = True, False
        return True

    def expect_work(self) -> None:
        """Record that the next look may find work that needs no notification."""
        self._is_announced = True

    def record_look(self, due: Sequence[DueWork]) -> None:
        """Record what a look has found."""
        found = {
            (work.campaign_id, kind)
            for work in due
            for kind, is_due in vars(work).items()
            if is_due is True
        }
        if not self._is_announced and not found <= self._known:
            self._has_missed = True
        self._known, self._is_announced = found, False
