"""Batches of leads that may be sent: claimed, checked, and as full as they get."""

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Condition

from db import leads, runs, suppression
from db.leads import ClaimResult
from leadloop.core.errors import Fenced
from leadloop.core.leads import InvalidLead, Lead, PreparedLead, format_e164, prepare_lead
from leadloop.core.phones import NUMBER_OPTED_OUT_REASON, hash_phone_number
from leadloop.core.verdicts import ApiCall
from tasks.context import ApiContext, CampaignRun
from tasks.rate_limiter import Permit

# A turn must be used soon after it has come, so bad leads may not keep a batch waiting for long.
_MAX_CLAIMS = 20
_INDEX_LIMIT = 1000


class BatchSizeLimits:
    """How many leads of one batch, and of parts of it, the vendor called too many (413) or took."""

    def __init__(self) -> None:
        self._smallest_too_large = sys.maxsize
        self._largest_accepted = 0

    def record_too_large(self, lead_count: int) -> None:
        """So many got a 413."""
        self._smallest_too_large = min(self._smallest_too_large, lead_count)

    def record_accepted(self, lead_count: int) -> None:
        """So many did not."""
        self._largest_accepted = max(self._largest_accepted, lead_count)

    @property
    def learned_limit(self) -> int | None:
        """The most that the vendor takes, where it goes by their number.

        Where it took more at once than what it called too large, it goes by something else: a lead
        of many bytes says nothing about those beside it.
        """
        return (
            self._largest_accepted
            if 0 < self._largest_accepted < self._smallest_too_large < sys.maxsize
            else None
        )


@dataclass(frozen=True, kw_only=True)
class ClaimedBatch:
    """Leads of ours, `sending` on record, and the turn in which their request may leave.

    Its parts share its `sizes`.
    """

    claim_no: int
    permit: Permit
    leads: Sequence[PreparedLead]
    size_limits: BatchSizeLimits = field(default_factory=BatchSizeLimits)

    def narrow_to(self, leads: Sequence[PreparedLead]) -> "ClaimedBatch":
        """A part of it."""
        return replace(self, leads=leads)

    def without_leads(self, lead_ids: Mapping[str, object] | set[str]) -> "ClaimedBatch":
        """The rest of it."""
        return self.narrow_to([lead for lead in self.leads if lead.lead_id not in lead_ids])

    def split_in_half(self) -> tuple["ClaimedBatch", "ClaimedBatch"]:
        """Its two halves."""
        middle = len(self.leads) // 2
        return self.narrow_to(self.leads[:middle]), self.narrow_to(self.leads[middle:])


class ClaimGate:
    """Lets claims begin side by side where that costs no request.

    Claims side by side share out the leads that are left. Where these are not enough for all of
    them, that makes more batches than needed, so there they come one at a time.

    Args:
        new: how many leads are in the queue.
    """

    def __init__(self, new_count: int) -> None:
        self._unclaimed = new_count
        self._claims_in_progress = 0
        self._changed = Condition()

    def begin_claim(self, limit: int) -> None:
        """Wait until a claim of `most` leads may begin."""
        with self._changed:
            self._changed.wait_for(lambda: self._unclaimed >= limit or not self._claims_in_progress)
            self._unclaimed -= limit
            self._claims_in_progress += 1

    def end_claim(self, shortfall: int) -> None:
        """A claim has ended, and so many leads short of what it was to take."""
        with self._changed:
            self._unclaimed += shortfall
            self._claims_in_progress -= 1
            self._changed.notify_all()


class BatchClaimer:
    """Makes the batches of one campaign's run; used by several senders.

    Args:
        run: whose.
        new: how many leads it has to send.
        count: is told how many were `rejected` and `cancelled`.
    """

    def __init__(
        self, run: CampaignRun[ApiContext], new_count: int, add_counts: Callable[..., None]
    ) -> None:
        self._run = run
        self._add_counts = add_counts
        self._claim_numbers = itertools.count(1)
        self._gate = ClaimGate(new_count)
        # How far the queue has been taken. What has come back before there, or was committed late,
        # is found by a claim from the start: that is what says that nothing is left. So it does no
        # harm that of claims side by side the one that ends last sets it.
        self._cursor = 0
        with run.context.database.transaction() as connection:
            self._hash_secret = suppression.get_hash_key(connection)

    def claim_batch(self, permit: Permit, limit: int) -> tuple[ClaimedBatch, bool]:
        """A batch as full as it gets, and whether there was nothing left to claim.

        Raises:
            Fenced: another run has declared this one dead.
        """
        batch = ClaimedBatch(claim_no=next(self._claim_numbers), permit=permit, leads=())
        with self._release_claim_on_error(batch.claim_no):
            for _ in range(_MAX_CLAIMS):
                claimed = self._claim_leads(batch.claim_no, limit - len(batch.leads))
                if not claimed.total:
                    return batch, True
                batch = batch.narrow_to([*batch.leads, *self._reject_invalid(batch, claimed.leads)])
                if len(batch.leads) == limit:
                    break
        return batch, False

    def has_new_leads(self) -> bool:
        """Whether there is anything to claim."""
        campaign_id = self._run.campaign.campaign_id
        with self._run.context.database.autocommit() as connection:
            places = sorted({self._cursor, 0}, reverse=True)
            return any(
                leads.has_new_leads(
                    connection,
                    campaign_id,
                    require_enabled=self._run.campaign.enabled,
                    after_seq=place,
                )
                for place in places
            )

    def reclaim_if_expired(self, batch: ClaimedBatch) -> ClaimedBatch:
        """The same leads with a turn that is not over, less those that have opted out since.

        Empty where this run has been declared dead.
        """
        if not batch.permit.is_expired:
            return batch
        with self.release_on_error(batch):
            self._run.context.limiter.release_slot(batch.permit.slot)
        return self.reclaim(batch)

    def reclaim(self, batch: ClaimedBatch) -> ClaimedBatch:
        """The same leads for one more request, less those that have opted out since."""
        with self.release_on_error(batch):
            turn = self._run.context.limiter.acquire_permit(ApiCall.CREATE)
            return replace(self._reclaim_leads(batch), permit=turn)

    def claim_ref(
        self, batch: ClaimedBatch, lead_ids: Sequence[str] | None = None
    ) -> leads.ClaimRef:
        """How Postgres knows these leads."""
        ids = [lead.lead_id for lead in batch.leads] if lead_ids is None else lead_ids
        return leads.ClaimRef(
            campaign_id=self._run.campaign.campaign_id,
            run_id=self._run.run_id,
            claim_no=batch.claim_no,
            lead_ids=ids,
        )

    def release_leads(self, claim_ref: leads.ClaimRef) -> None:
        """They were certainly not carried out: `new` again, and the next to be taken."""
        self._cursor = 0
        if claim_ref.lead_ids:
            self._run.write(leads.release_leads, claim_ref)

    def reject_leads(
        self, batch: ClaimedBatch, reasons: Mapping[str, str], *, was_sent: bool
    ) -> None:
        """They will not be sent as they are; `reasons` by lead id."""
        if reasons:
            ours = self.claim_ref(batch, list(reasons))
            self._run.write(leads.record_rejected, ours, reasons, was_sent=was_sent)
            self._add_counts(rejected=len(reasons))

    @contextmanager
    def release_on_error(self, batch: ClaimedBatch) -> Iterator[None]:
        """Whatever ends the block, the leads have not been sent: they must not be in doubt."""
        try:
            yield
        except BaseException:
            self.release_leads(self.claim_ref(batch))
            raise

    @contextmanager
    def _release_claim_on_error(self, claim_no: int) -> Iterator[None]:
        """The same by the claim's number: where its answer got lost, we know none of its leads."""
        try:
            yield
        except BaseException:
            self._run.write(
                leads.release_claim,
                campaign_id=self._run.campaign.campaign_id,
                run_id=self._run.run_id,
                claim_no=claim_no,
            )
            raise

    def _claim_leads(self, claim_no: int, limit: int) -> ClaimResult:
        self._gate.begin_claim(limit)
        # Of a claim that failed it is not known what it took. What is counted short makes claims
        # come one at a time a little earlier than need be.
        unused = 0
        try:
            claim = self._claim_from_cursor(claim_no, limit)
            unused = limit - claim.total
        finally:
            self._gate.end_claim(unused)
        self._add_counts(cancelled=claim.cancelled)
        if not claim.total:
            self._check_run_alive()
        return claim

    def _claim_from_cursor(self, claim_no: int, limit: int) -> ClaimResult:
        with self._run.context.database.autocommit() as connection:
            take = partial(
                leads.claim_leads,
                connection,
                campaign_id=self._run.campaign.campaign_id,
                run_id=self._run.run_id,
                claim_no=claim_no,
                limit=limit,
                require_enabled=self._run.campaign.enabled,
            )
            after = self._cursor
            claim = take(after_seq=after)
            if not claim.total and after:
                claim = take()
            self._cursor = claim.last_seq
        return claim

    def _reclaim_leads(self, batch: ClaimedBatch) -> ClaimedBatch:
        if not batch.leads:
            return batch
        with self._run.context.database.autocommit() as connection:
            wanted, cancelled = leads.reclaim_leads(
                connection, self.claim_ref(batch), require_enabled=self._run.campaign.enabled
            )
        self._add_counts(cancelled=cancelled)
        if len(wanted) + cancelled < len(batch.leads):
            # The brake made them new again: should it be let go within this run, they come first.
            self._cursor = 0
        still = set(wanted)
        left = batch.narrow_to([lead for lead in batch.leads if lead.lead_id in still])
        if not left.leads:
            self._check_run_alive()
        return left.narrow_to(self._drop_suppressed(left))

    def _check_run_alive(self) -> None:
        """Tell a table without new leads from a run that is given none.

        Raises:
            Fenced: another run has declared this one dead.
        """
        with self._run.context.database.transaction() as connection:
            if not runs.is_running(connection, self._run.run_id):
                raise Fenced("this run was taken for dead and has stopped: its connection was cut")

    def _reject_invalid(
        self, batch: ClaimedBatch, claimed: Sequence[Lead]
    ) -> Sequence[PreparedLead]:
        """Those that may be sent; the others are rejected with their reasons, or cancelled."""
        good: list[PreparedLead] = []
        reasons: dict[str, str] = {}
        for lead in claimed:
            try:
                good.append(prepare_lead(lead, self._run.campaign))
            except InvalidLead as error:
                reasons[lead.lead_id] = str(error)
        self.reject_leads(batch, reasons, was_sent=False)
        return self._drop_suppressed(batch.narrow_to(good))

    def _drop_suppressed(self, batch: ClaimedBatch) -> Sequence[PreparedLead]:
        """Those whose numbers have not opted out under another lead; the others are cancelled."""
        if self._run.campaign.sends_opted_out_numbers or not batch.leads:
            return batch.leads
        keys = {
            lead.lead_id: hash_phone_number(self._hash_secret, lead.e164)
            for lead in batch.leads
            if lead.e164
        }
        suppressed = self._find_suppressed(list(keys.values()))
        stopped = {lead_id for lead_id, key in keys.items() if key in suppressed}
        if stopped:
            ours = self.claim_ref(batch, sorted(stopped))
            self._run.write(leads.cancel_leads, ours, NUMBER_OPTED_OUT_REASON)
            self._add_counts(cancelled=len(stopped))
        return batch.without_leads(stopped).leads

    def _find_suppressed(self, keys: Sequence[bytes]) -> set[bytes]:
        """Which numbers have opted out, by anybody's word up to this moment."""
        while True:
            with self._run.context.database.autocommit() as connection:
                suppressed, some_to_note = suppression.find_suppressed(connection, keys)
            if not some_to_note:
                return suppressed
            self._index_opted_out_numbers()

    def _index_opted_out_numbers(self) -> None:
        """Note the numbers of leads that have opted out since this was last done."""
        region = self._run.context.settings.default_region
        with self._run.context.database.transaction() as connection:
            waiting = suppression.list_unindexed(connection, region=region, limit=_INDEX_LIMIT)
            suppression.index_numbers(
                connection, [(lead, self._hash_number(lead)) for lead in waiting]
            )

    def _hash_number(self, lead: suppression.OptedOutNumber) -> bytes | None:
        try:
            return hash_phone_number(
                self._hash_secret, format_e164(lead.phone_number or "", lead.region)
            )
        except InvalidLead:
            return None
