"""Batches of leads that may be sent: claimed, checked, and as full as they get."""

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Condition

from db import leads, runs, suppression
from db.leads import Claim
from leadloop.core.errors import Fenced
from leadloop.core.leads import InvalidLead, Lead, Sendable, e164, prepare
from leadloop.core.phones import NUMBER_OPTED_OUT, number_key
from leadloop.core.verdicts import Call
from tasks.context import CampaignRun
from tasks.rate_limiter import Turn

# A turn must be used soon after it has come, so bad leads may not keep a batch waiting for long.
_MOST_CLAIMS = 20
_NOTED_AT_ONCE = 1000


class Sizes:
    """How many leads of one batch, and of parts of it, the vendor called too many (413) or took."""

    def __init__(self) -> None:
        self._too_large = sys.maxsize
        self._taken = 0

    def too_large(self, amount: int) -> None:
        """So many got a 413."""
        self._too_large = min(self._too_large, amount)

    def taken(self, amount: int) -> None:
        """So many did not."""
        self._taken = max(self._taken, amount)

    @property
    def limit(self) -> int | None:
        """The most that the vendor takes, where it goes by their number.

        Where it took more at once than what it called too large, it goes by something else: a lead
        of many bytes says nothing about those beside it.
        """
        return self._taken if 0 < self._taken < self._too_large < sys.maxsize else None


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Leads of ours, `sending` on record, and the turn in which their request may leave.

    Its parts share its `sizes`.
    """

    claim_no: int
    turn: Turn
    leads: Sequence[Sendable]
    sizes: Sizes = field(default_factory=Sizes)

    def only(self, wanted: Sequence[Sendable]) -> "Batch":
        """A part of it."""
        return replace(self, leads=wanted)

    def without(self, lead_ids: Mapping[str, object] | set[str]) -> "Batch":
        """The rest of it."""
        return self.only([lead for lead in self.leads if lead.lead_id not in lead_ids])

    def halves(self) -> tuple["Batch", "Batch"]:
        """Its two halves."""
        middle = len(self.leads) // 2
        return self.only(self.leads[:middle]), self.only(self.leads[middle:])


class Queue:
    """Lets claims begin side by side where that costs no request.

    Claims side by side share out the leads that are left. Where these are not enough for all of
    them, that makes more batches than needed, so there they come one at a time.

    Args:
        new: how many leads are in the queue.
    """

    def __init__(self, new: int) -> None:
        self._left = new
        self._under_way = 0
        self._changed = Condition()

    def begin(self, most: int) -> None:
        """Wait until a claim of `most` leads may begin."""
        with self._changed:
            self._changed.wait_for(lambda: self._left >= most or not self._under_way)
            self._left -= most
            self._under_way += 1

    def end(self, unused: int) -> None:
        """A claim has ended, and so many leads short of what it was to take."""
        with self._changed:
            self._left += unused
            self._under_way -= 1
            self._changed.notify_all()


class Batches:
    """Makes the batches of one campaign's run; used by several senders.

    Args:
        run: whose.
        new: how many leads it has to send.
        count: is told how many were `rejected` and `cancelled`.
    """

    def __init__(self, run: CampaignRun, new: int, count: Callable[..., None]) -> None:
        self._run = run
        self._count = count
        self._numbers = itertools.count(1)
        self._queue = Queue(new)
        # How far the queue has been taken. What has come back before there, or was committed late,
        # is found by a claim from the start: that is what says that nothing is left. So it does no
        # harm that of claims side by side the one that ends last sets it.
        self._taken_to = 0
        with run.context.database.begin() as connection:
            self._key = suppression.key(connection)

    def fill(self, turn: Turn, most: int) -> tuple[Batch, bool]:
        """A batch as full as it gets, and whether there was nothing left to claim.

        Raises:
            Fenced: another run has declared this one dead.
        """
        batch = Batch(claim_no=next(self._numbers), turn=turn, leads=())
        with self._claim_released_on_error(batch.claim_no):
            for _ in range(_MOST_CLAIMS):
                claimed = self._claim(batch.claim_no, most - len(batch.leads))
                if not claimed.taken:
                    return batch, True
                batch = batch.only([*batch.leads, *self._checked(batch, claimed.leads)])
                if len(batch.leads) == most:
                    break
        return batch, False

    def any_new(self) -> bool:
        """Whether there is anything to claim."""
        campaign_id = self._run.campaign.campaign_id
        with self._run.context.database.session() as connection:
            places = sorted({self._taken_to, 0}, reverse=True)
            return any(
                leads.any_new(
                    connection,
                    campaign_id,
                    while_enabled=self._run.campaign.enabled,
                    after=place,
                )
                for place in places
            )

    def fill_again(self, batch: Batch) -> Batch:
        """The same leads with a turn that is not over, less those that have opted out since.

        Empty where this run has been declared dead.
        """
        if not batch.turn.is_over:
            return batch
        with self.released_unless_sent(batch):
            self._run.context.budget.give_back(batch.turn.slot)
        return self.in_another_turn(batch)

    def in_another_turn(self, batch: Batch) -> Batch:
        """The same leads for one more request, less those that have opted out since."""
        with self.released_unless_sent(batch):
            turn = self._run.context.budget.wait_turn(Call.CREATE)
            return replace(self._claimed_again(batch), turn=turn)

    def key(self, batch: Batch, wanted: Sequence[str] | None = None) -> leads.Batch:
        """How Postgres knows these leads."""
        ids = [lead.lead_id for lead in batch.leads] if wanted is None else wanted
        return leads.Batch(
            campaign_id=self._run.campaign.campaign_id,
            run_id=self._run.run_id,
            claim_no=batch.claim_no,
            lead_ids=ids,
        )

    def release(self, ours: leads.Batch) -> None:
        """They were certainly not carried out: `new` again, and the next to be taken."""
        self._taken_to = 0
        if ours.lead_ids:
            self._run.context.database.insist(lambda c: leads.release(c, ours))

    def reject(self, batch: Batch, reasons: Mapping[str, str], *, was_sent: bool) -> None:
        """They will not be sent as they are; `reasons` by lead id."""
        if reasons:
            ours = self.key(batch, list(reasons))
            self._run.context.database.insist(
                lambda c: leads.record_rejected(c, ours, reasons, was_sent=was_sent)
            )
            self._count(rejected=len(reasons))

    @contextmanager
    def released_unless_sent(self, batch: Batch) -> Iterator[None]:
        """Whatever ends the block, the leads have not been sent: they must not be in doubt."""
        try:
            yield
        except BaseException:
            self.release(self.key(batch))
            raise

    @contextmanager
    def _claim_released_on_error(self, claim_no: int) -> Iterator[None]:
        """The same by the claim's number: where its answer got lost, we know none of its leads."""
        try:
            yield
        except BaseException:
            self._run.context.database.insist(
                lambda c: leads.release_claim(
                    c,
                    campaign_id=self._run.campaign.campaign_id,
                    run_id=self._run.run_id,
                    claim_no=claim_no,
                )
            )
            raise

    def _claim(self, claim_no: int, most: int) -> Claim:
        self._queue.begin(most)
        # Of a claim that failed it is not known what it took. What is counted short makes claims
        # come one at a time a little earlier than need be.
        unused = 0
        try:
            claim = self._take(claim_no, most)
            unused = most - claim.taken
        finally:
            self._queue.end(unused)
        self._count(cancelled=claim.cancelled)
        if not claim.taken:
            self._require_alive()
        return claim

    def _take(self, claim_no: int, most: int) -> Claim:
        with self._run.context.database.session() as connection:
            take = partial(
                leads.claim,
                connection,
                campaign_id=self._run.campaign.campaign_id,
                run_id=self._run.run_id,
                claim_no=claim_no,
                most=most,
                while_enabled=self._run.campaign.enabled,
            )
            after = self._taken_to
            claim = take(after=after)
            if not claim.taken and after:
                claim = take()
            self._taken_to = claim.last
        return claim

    def _claimed_again(self, batch: Batch) -> Batch:
        if not batch.leads:
            return batch
        with self._run.context.database.session() as connection:
            wanted, cancelled = leads.claim_again(
                connection, self.key(batch), while_enabled=self._run.campaign.enabled
            )
        self._count(cancelled=cancelled)
        if len(wanted) + cancelled < len(batch.leads):
            # The brake made them new again: should it be let go within this run, they come first.
            self._taken_to = 0
        still = set(wanted)
        left = batch.only([lead for lead in batch.leads if lead.lead_id in still])
        if not left.leads:
            self._require_alive()
        return left.only(self._with_open_numbers(left))

    def _require_alive(self) -> None:
        """Tell a table without new leads from a run that is given none.

        Raises:
            Fenced: another run has declared this one dead.
        """
        with self._run.context.database.begin() as connection:
            if not runs.is_running(connection, self._run.run_id):
                raise Fenced("this run was taken for dead and has stopped: its connection was cut")

    def _checked(self, batch: Batch, claimed: Sequence[Lead]) -> Sequence[Sendable]:
        """Those that may be sent; the others are rejected with their reasons, or cancelled."""
        good: list[Sendable] = []
        reasons: dict[str, str] = {}
        for lead in claimed:
            try:
                good.append(prepare(lead, self._run.campaign))
            except InvalidLead as error:
                reasons[lead.lead_id] = str(error)
        self.reject(batch, reasons, was_sent=False)
        return self._with_open_numbers(batch.only(good))

    def _with_open_numbers(self, batch: Batch) -> Sequence[Sendable]:
        """Those whose numbers have not opted out under another lead; the others are cancelled."""
        if self._run.campaign.sends_opted_out_numbers or not batch.leads:
            return batch.leads
        keys = {lead.lead_id: number_key(self._key, lead.e164) for lead in batch.leads if lead.e164}
        suppressed = self._suppressed(list(keys.values()))
        stopped = {lead_id for lead_id, key in keys.items() if key in suppressed}
        if stopped:
            ours = self.key(batch, sorted(stopped))
            self._run.context.database.insist(lambda c: leads.cancel(c, ours, NUMBER_OPTED_OUT))
            self._count(cancelled=len(stopped))
        return batch.without(stopped).leads

    def _suppressed(self, keys: Sequence[bytes]) -> set[bytes]:
        """Which numbers have opted out, by anybody's word up to this moment."""
        while True:
            with self._run.context.database.session() as connection:
                suppressed, some_to_note = suppression.look(connection, keys)
            if not some_to_note:
                return suppressed
            self._note_numbers()

    def _note_numbers(self) -> None:
        """Note the numbers of leads that have opted out since this was last done."""
        region = self._run.context.settings.default_region
        with self._run.context.database.begin() as connection:
            waiting = suppression.to_note(connection, region=region, most=_NOTED_AT_ONCE)
            suppression.note(connection, [(lead, self._key_of(lead)) for lead in waiting])

    def _key_of(self, lead: suppression.OptedOut) -> bytes | None:
        try:
            return number_key(self._key, e164(lead.phone_number or "", lead.region))
        except InvalidLead:
            return None
