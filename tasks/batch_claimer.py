"""Claims of batches: leads that passed the checks, `sending` on record, with a permit to send."""

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Condition

from db import leads, runs, suppressed_numbers
from db.leads import ClaimResult
from leadloop.core.errors import Fenced, InvalidLead
from leadloop.core.leads import Lead, PreparedLead, prepare_lead
from leadloop.core.phones import NUMBER_OPTED_OUT_REASON, hash_phone_number, hash_raw_number
from leadloop.core.verdicts import ApiCall
from tasks.context import ApiContext, CampaignRun
from tasks.held_creates import require_no_hold
from tasks.rate_limiter import Permit

# A permit expires soon, so a claim may not go on for long because of leads that fail the checks.
_MAX_CLAIMS = 20
_INDEX_LIMIT = 1000


class BatchSizeLimits:
    """The sizes of a batch and its parts that were too large for the vendor (413), or accepted."""

    def __init__(self) -> None:
        self._smallest_too_large = sys.maxsize
        self._largest_accepted = 0

    def record_too_large(self, lead_count: int) -> None:
        """Record that a request with this many leads got a 413."""
        self._smallest_too_large = min(self._smallest_too_large, lead_count)

    def record_accepted(self, lead_count: int) -> None:
        """Record that a request with this many leads was not too large."""
        self._largest_accepted = max(self._largest_accepted, lead_count)

    @property
    def learned_limit(self) -> int | None:
        """The most leads a request may hold; None if the vendor's limit is not a number of leads.

        A vendor that accepts more leads than it rejected limits something else, such as bytes: one
        large lead then makes no statement about other batches.
        """
        if 0 < self._largest_accepted < self._smallest_too_large < sys.maxsize:
            return self._largest_accepted
        return None


@dataclass(frozen=True, kw_only=True)
class ClaimedBatch:
    """Leads that are `sending` on record for this run, and the permit for their request.

    The parts of a batch share its `size_limits`.
    """

    claim_no: int
    permit: Permit
    leads: Sequence[PreparedLead]
    size_limits: BatchSizeLimits = field(default_factory=BatchSizeLimits)

    def narrow_to(self, leads: Sequence[PreparedLead]) -> "ClaimedBatch":
        """Return the part of the batch with these leads."""
        return replace(self, leads=leads)

    def without_leads(self, lead_ids: Mapping[str, object] | set[str]) -> "ClaimedBatch":
        """Return the batch without the leads of these ids."""
        return self.narrow_to([lead for lead in self.leads if lead.lead_id not in lead_ids])

    def split_in_half(self) -> tuple["ClaimedBatch", "ClaimedBatch"]:
        """Return the two halves of the batch."""
        middle = len(self.leads) // 2
        return self.narrow_to(self.leads[:middle]), self.narrow_to(self.leads[middle:])


class ClaimGate:
    """A gate that lets claims run concurrently where this costs no extra request.

    Concurrent claims share the leads that are left. If too few are left for all claims, sharing
    makes more batches than necessary, so the gate then admits one claim at a time.

    Args:
        new_count: the number of new leads.
    """

    def __init__(self, new_count: int) -> None:
        self._unclaimed = new_count
        self._claims_in_progress = 0
        self._changed = Condition()

    def begin_claim(self, limit: int) -> None:
        """Wait until a claim of up to `limit` leads may begin."""
        with self._changed:
            self._changed.wait_for(lambda: self._unclaimed >= limit or not self._claims_in_progress)
            self._unclaimed -= limit
            self._claims_in_progress += 1

    def end_claim(self, shortfall: int) -> None:
        """End a claim that took `shortfall` leads fewer than its limit."""
        with self._changed:
            self._unclaimed += shortfall
            self._claims_in_progress -= 1
            self._changed.notify_all()


class BatchClaimer:
    """The claimer of the batches of one campaign's run; thread-safe.

    Args:
        run: the campaign's run.
        new_count: the number of new leads.
        add_counts: called with the numbers of leads `rejected` and `cancelled`.
    """

    def __init__(
        self, run: CampaignRun[ApiContext], new_count: int, add_counts: Callable[..., None]
    ) -> None:
        self._run = run
        self._add_counts = add_counts
        self._claim_numbers = itertools.count(1)
        self._gate = ClaimGate(new_count)
        # Where the next claim starts in the queue. Leads before the cursor (released, or committed
        # late) are found by a claim from the start, and only such a claim decides that no lead is
        # left. So it is harmless if the last of several concurrent claims sets the cursor.
        self._cursor = 0
        with run.context.database.transaction() as connection:
            self._hash_secret = suppressed_numbers.get_hash_key(connection)

    def has_fresh_leads(self) -> bool:
        """Return whether any fresh lead can be claimed."""
        with self._run.context.database.autocommit() as connection:
            return any(
                leads.has_fresh_leads(
                    connection,
                    self._run.campaign.campaign_id,
                    require_enabled=self._run.was_enabled,
                    after_seq=start,
                )
                for start in sorted({self._cursor, 0}, reverse=True)
            )

    def has_due_suspects(self) -> bool:
        """Return whether a list of suspects can be claimed."""
        with self._run.context.database.autocommit() as connection:
            return leads.has_due_suspects(
                connection,
                self._run.campaign.campaign_id,
                require_enabled=self._run.was_enabled,
            )

    def claim_batch(self, permit: Permit, limit: int) -> tuple[ClaimedBatch, bool]:
        """Claim up to `limit` fresh leads that pass the checks; return whether none is left.

        Raises:
            Fenced: another run has declared this one dead.
        """
        batch = ClaimedBatch(claim_no=next(self._claim_numbers), permit=permit, leads=())
        with self._release_on_error(batch.claim_no):
            for _ in range(_MAX_CLAIMS):
                claimed = self._claim_leads(batch.claim_no, limit - len(batch.leads))
                if not claimed.total:
                    return batch, True
                batch = batch.narrow_to([*batch.leads, *self._reject_invalid(batch, claimed.leads)])
                if len(batch.leads) == limit:
                    break
        return batch, False

    def claim_suspects(self, permit: Permit, limit: int) -> tuple[ClaimedBatch, bool]:
        """Claim up to `limit` leads of the next list of suspects; return whether none is due.

        Raises:
            Fenced: another run has declared this one dead.
        """
        batch = ClaimedBatch(claim_no=next(self._claim_numbers), permit=permit, leads=())
        with self._release_on_error(batch.claim_no):
            with self._run.context.database.autocommit() as connection:
                claimed = leads.claim_suspects(
                    connection,
                    campaign_id=self._run.campaign.campaign_id,
                    run_id=self._run.run_id,
                    claim_no=batch.claim_no,
                    limit=limit,
                    require_enabled=self._run.was_enabled,
                )
            self._add_counts(cancelled=claimed.cancelled)
            if not claimed.total:
                self._check_run_alive()
                return batch, True
            return batch.narrow_to(self._reject_invalid(batch, claimed.leads)), False

    @contextmanager
    def _release_on_error(self, claim_no: int) -> Iterator[None]:
        """Release a claim if the block fails: by its number, as its result may have been lost."""
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

    def reclaim_if_expired(self, batch: ClaimedBatch) -> ClaimedBatch:
        """Return the batch with a valid permit, without leads that opted out during the wait.

        Raises:
            Fenced: another run has declared this one dead.
        """
        if not batch.permit.is_expired:
            return batch
        with self.release_on_error(batch):
            self._run.context.limiter.release_slot(batch.permit.slot)
        return self.reclaim(batch)

    def reclaim(self, batch: ClaimedBatch) -> ClaimedBatch:
        """Claim the batch's leads for one more request, without leads that opted out meanwhile.

        Raises:
            Fenced: another run has declared this one dead.
        """
        with self.release_on_error(batch):
            permit = self._run.context.limiter.acquire_permit(ApiCall.CREATE)
            batch = replace(batch, permit=permit)
            if not batch.leads:
                return batch
            with self._run.context.database.autocommit() as connection:
                sending, cancelled = leads.reclaim_leads(
                    connection, self.claim_ref(batch), require_enabled=self._run.was_enabled
                )
            self._add_counts(cancelled=cancelled)
            if len(sending) + cancelled < len(batch.leads):
                # A pause of the campaign made them `new` again: after a resume they come first.
                self._cursor = 0
            kept = set(sending)
            batch = batch.narrow_to([lead for lead in batch.leads if lead.lead_id in kept])
            if not batch.leads:
                self._check_run_alive()
            return batch.narrow_to(self._drop_suppressed(batch))

    def claim_ref(
        self, batch: ClaimedBatch, lead_ids: Sequence[str] | None = None
    ) -> leads.ClaimRef:
        """Return the reference by which Postgres knows the batch, or some of its leads."""
        ids = [lead.lead_id for lead in batch.leads] if lead_ids is None else lead_ids
        return leads.ClaimRef(
            campaign_id=self._run.campaign.campaign_id,
            run_id=self._run.run_id,
            claim_no=batch.claim_no,
            lead_ids=ids,
        )

    def release_leads(self, claim_ref: leads.ClaimRef) -> None:
        """Make leads `new` again that were certainly not created; the next claim takes them."""
        self._cursor = 0
        if claim_ref.lead_ids:
            self._run.write(leads.release_leads, claim_ref)

    def reject_leads(
        self, batch: ClaimedBatch, reasons: Mapping[str, str], *, was_sent: bool
    ) -> None:
        """Mark leads `rejected`; `reasons` by lead id."""
        if reasons:
            claim_ref = self.claim_ref(batch, list(reasons))
            self._run.write(leads.record_rejected, claim_ref, reasons, was_sent=was_sent)
            self._add_counts(rejected=len(reasons))

    @contextmanager
    def release_on_error(self, batch: ClaimedBatch) -> Iterator[None]:
        """Release the batch if the block fails: its leads were not sent, so are not in doubt."""
        try:
            yield
        except BaseException:
            self.release_leads(self.claim_ref(batch))
            raise

    def _claim_leads(self, claim_no: int, limit: int) -> ClaimResult:
        """Claim up to `limit` new leads from the cursor on, or else from the start of the queue."""
        self._gate.begin_claim(limit)
        # After an error, the number of claimed leads is unknown. Without a shortfall, the gate
        # admits one claim at a time a little earlier than necessary.
        shortfall = 0
        try:
            with self._run.context.database.autocommit() as connection:
                claim = partial(
                    leads.claim_leads,
                    connection,
                    campaign_id=self._run.campaign.campaign_id,
                    run_id=self._run.run_id,
                    claim_no=claim_no,
                    limit=limit,
                    require_enabled=self._run.was_enabled,
                )
                cursor = self._cursor
                claimed = claim(after_seq=cursor)
                if not claimed.total and cursor:
                    claimed = claim()
                self._cursor = claimed.last_seq
            shortfall = limit - claimed.total
        finally:
            self._gate.end_claim(shortfall)
        self._add_counts(cancelled=claimed.cancelled)
        if not claimed.total:
            self._check_run_alive()
        return claimed

    def _check_run_alive(self) -> None:
        """Check that a claim without leads means an empty queue, and not that this run is dead.

        Raises:
            Fenced: another run has declared this one dead.
            RunError: the database has forgotten this run.
        """
        with self._run.context.database.transaction() as connection:
            is_running = runs.is_running(connection, self._run.run_id)
        if not is_running:
            require_no_hold(self._run)
            raise Fenced(
                "this run has stopped: its database connection was cut, and another run has"
                " declared it dead; leads that it may have sent are in doubt, its others are new"
                " again: `leadloop push` goes on with both"
            )

    def _reject_invalid(
        self, batch: ClaimedBatch, claimed: Sequence[Lead]
    ) -> Sequence[PreparedLead]:
        """Return the claimed leads that may be sent; reject or cancel the others."""
        prepared: list[PreparedLead] = []
        reasons: dict[str, str] = {}
        for lead in claimed:
            try:
                prepared.append(prepare_lead(lead, self._run.campaign))
            except InvalidLead as error:
                reasons[lead.lead_id] = str(error)
        self.reject_leads(batch, reasons, was_sent=False)
        return self._drop_suppressed(batch.narrow_to(prepared))

    def _drop_suppressed(self, batch: ClaimedBatch) -> Sequence[PreparedLead]:
        """Return the leads whose number has not opted out under another lead; cancel the others."""
        if self._run.campaign.sends_opted_out_numbers or not batch.leads:
            return batch.leads
        hashes = {
            lead.lead_id: hash_phone_number(self._hash_secret, lead.e164)
            for lead in batch.leads
            if lead.e164
        }
        suppressed = self._find_suppressed(list(hashes.values()))
        cancelled = {lead_id for lead_id, each in hashes.items() if each in suppressed}
        if cancelled:
            claim_ref = self.claim_ref(batch, sorted(cancelled))
            self._run.write(leads.cancel_leads, claim_ref, NUMBER_OPTED_OUT_REASON)
            self._add_counts(cancelled=len(cancelled))
        return batch.without_leads(cancelled).leads

    def _find_suppressed(self, hashes: Sequence[bytes]) -> set[bytes]:
        """Return the hashes whose numbers have opted out; index opt-outs that are not indexed."""
        database, region = self._run.context.database, self._run.context.settings.default_region
        while True:
            with database.autocommit() as connection:
                suppressed, has_unindexed = suppressed_numbers.find_suppressed(connection, hashes)
            if not has_unindexed:
                return suppressed
            with database.transaction() as connection:
                unindexed = suppressed_numbers.list_unindexed(
                    connection, region=region, limit=_INDEX_LIMIT
                )
                hashed = [
                    (lead, hash_raw_number(self._hash_secret, lead.phone_number, lead.region))
                    for lead in unindexed
                ]
                suppressed_numbers.index_numbers(connection, hashed)
