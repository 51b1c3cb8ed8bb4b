"""Claims of batches: leads that passed the checks, `sending` on record, with a permit to send."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Condition

from db import leads, runs, suppressed_numbers
from db.leads import ClaimResult, ReclaimResult
from leadloop.core.errors import Fenced, InvalidLead
from leadloop.core.leads import Lead, PreparedLead, count_body_bytes, prepare_lead
from leadloop.core.phones import NUMBER_OPTED_OUT_REASON, hash_phone_number
from leadloop.core.verdicts import ApiCall
from tasks.batch_limits import BatchParts
from tasks.context import ApiContext, CampaignRun
from tasks.held_creates import require_no_hold
from tasks.lead_quota import LeadQuota
from tasks.opt_out_sync import may_send
from tasks.rate_limiter import Permit

# A permit expires soon, so a claim may not go on for long because of leads that fail the checks.
_MAX_CLAIMS = 20


@dataclass(frozen=True, kw_only=True)
class ClaimedBatch:
    """Leads that are `sending` on record for this run, and the permit for their request.

    The parts in which a batch is sent share its `parts`.
    """

    claim_no: int
    permit: Permit
    leads: Sequence[PreparedLead]
    parts: BatchParts = field(default_factory=BatchParts)

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

    def split_at_bytes(self, max_bytes: int) -> tuple["ClaimedBatch", "ClaimedBatch"]:
        """Return the first leads, at least one, that a body of `max_bytes` holds, and the rest."""
        sizes = itertools.accumulate((len(lead.body) + 1 for lead in self.leads), initial=1)
        count = max(1, sum(size <= max_bytes for size in sizes) - 1)
        return self.narrow_to(self.leads[:count]), self.narrow_to(self.leads[count:])


@dataclass(frozen=True, kw_only=True)
class ClaimLimit:
    """The most leads of a claim, and the most bytes of the request's body."""

    leads: int
    bytes: int

    def left_by(self, leads: Sequence[PreparedLead]) -> "ClaimLimit":
        """Return the limit of what may be added to these leads."""
        return ClaimLimit(leads=self.leads - len(leads), bytes=self.bytes - count_body_bytes(leads))

    def is_reached_by(self, leads: Sequence[PreparedLead]) -> bool:
        """Return whether these leads leave no room for one more of average size."""
        return len(leads) >= self.leads or count_body_bytes(leads) * (len(leads) + 1) > (
            self.bytes * max(len(leads), 1)
        )


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
        quota: the leads that may be sent, shared with the run's other campaigns.
        add_cancelled: called with the number of leads that are cancelled.
        add_rejected: called with the reasons of rejected leads, by lead id.
        urgent_only: claim no fresh leads but urgent ones.
        lead_ids: claim no fresh leads but these; None: whatever their ids.
        alter: changes each lead that has passed the checks before it is sent.
    """

    def __init__(
        self,
        run: CampaignRun[ApiContext],
        new_count: int,
        *,
        quota: LeadQuota,
        add_cancelled: Callable[[int], None] = lambda _: None,
        add_rejected: Callable[[Mapping[str, str]], None] = lambda _: None,
        urgent_only: bool = False,
        lead_ids: Sequence[str] | None = None,
        alter: Callable[[PreparedLead], PreparedLead] = lambda lead: lead,
    ) -> None:
        self._run = run
        self._add_cancelled = add_cancelled
        self._add_rejected = add_rejected
        self._quota = quota
        self._urgent_only = urgent_only
        self._lead_ids = lead_ids
        self._alter = alter
        self._claim_numbers = itertools.count(1)
        self._gate = ClaimGate(new_count)
        # Where the next claim starts in the queue of leads without a priority; it looks for urgent
        # ones from the start of theirs. Leads before the cursor (released, or committed
        # late) are found by a claim from the start, and only such a claim decides that no lead is
        # left. So it is harmless if the last of several concurrent claims sets the cursor.
        self._cursor = 0
        with run.context.database.transaction() as connection:
            self._hash_secret = suppressed_numbers.get_hash_key(connection)

    def has_fresh_leads(self) -> bool:
        """Return whether any fresh lead can be claimed."""
        if self._quota.is_spent:
            return False
        with self._run.context.database.autocommit() as connection:
            if self._lead_ids is not None:
                count = leads.count_named(
                    connection,
                    self._run.campaign.campaign_id,
                    self._lead_ids,
                    require_enabled=self._run.was_enabled,
                )
                return count > 0
            return any(
                leads.has_fresh_leads(
                    connection,
                    self._run.campaign.campaign_id,
                    require_enabled=self._run.was_enabled,
                    after_seq=start,
                    urgent_only=self._urgent_only,
                )
                for start in sorted({self._cursor, 0}, reverse=True)
            )

    def has_due_suspects(self) -> bool:
        """Return whether a list of suspects can be claimed."""
        if self._quota.is_spent:
            return False
        with self._run.context.database.autocommit() as connection:
            return leads.has_due_suspects(
                connection,
                self._run.campaign.campaign_id,
                require_enabled=self._run.was_enabled,
            )

    def claim_batch(self, permit: Permit, limit: ClaimLimit) -> tuple[ClaimedBatch, bool]:
        """Claim fresh leads that pass the checks, up to a limit; return whether none is left.

        A lead that is larger than the limit is claimed alone.

        Raises:
            Fenced: another run has declared this one dead.
        """
        batch = ClaimedBatch(claim_no=next(self._claim_numbers), permit=permit, leads=())
        limit, is_drained = self._reserve_quota(limit), False
        with self._release_on_error(batch.claim_no, limit):
            for _ in range(_MAX_CLAIMS):
                claimed = self._claim_leads(batch.claim_no, limit.left_by(batch.leads))
                if not claimed.total:
                    is_drained = True
                    break
                batch = batch.narrow_to([*batch.leads, *self._reject_invalid(batch, claimed.leads)])
                batch, surplus = batch.split_at_bytes(limit.bytes)
                self._make_new(self.claim_ref(surplus))
                if surplus.leads or limit.is_reached_by(batch.leads):
                    break
        self._quota.give_back(limit.leads - len(batch.leads))
        return batch, is_drained

    def claim_suspects(self, permit: Permit, limit: ClaimLimit) -> tuple[ClaimedBatch, bool]:
        """Claim leads of the next list of suspects, up to a limit; return whether none is due.

        Raises:
            Fenced: another run has declared this one dead.
        """
        batch = ClaimedBatch(claim_no=next(self._claim_numbers), permit=permit, leads=())
        limit = self._reserve_quota(limit)
        with self._release_on_error(batch.claim_no, limit):
            with self._run.context.database.autocommit() as connection:
                claimed = leads.claim_leads(
                    connection,
                    suspects=True,
                    campaign_id=self._run.campaign.campaign_id,
                    run_id=self._run.run_id,
                    claim_no=batch.claim_no,
                    limit=limit.leads,
                    max_lead_bytes=self._run.campaign.batch_bytes,
                    max_bytes=limit.bytes,
                    max_lead_age_s=self._run.campaign.max_lead_age_s,
                    require_enabled=self._run.was_enabled,
                    account=self._run.context.account_name,
                )
            self._count_excluded(claimed)
            if not claimed.total:
                self._check_run_alive()
            batch = batch.narrow_to(self._reject_invalid(batch, claimed.leads))
            batch, surplus = batch.split_at_bytes(limit.bytes)
            self._make_new(self.claim_ref(surplus))
        self._quota.give_back(limit.leads - len(batch.leads))
        return batch, not claimed.total

    def claim_created(self, permit: Permit, lead_id: str) -> ClaimedBatch:
        """Claim a created lead for a repeated create; without leads if it must not be sent now.

        `restore_created` ends the claim, whatever the response: the vendor has this lead.
        """
        batch = ClaimedBatch(claim_no=next(self._claim_numbers), permit=permit, leads=())
        claim_ref = self.claim_ref(batch, [lead_id])
        try:
            with self._run.context.database.autocommit() as connection:
                lead = leads.claim_created(
                    connection,
                    claim_ref,
                    max_lead_bytes=self._run.campaign.batch_bytes,
                    max_lead_age_s=self._run.campaign.max_lead_age_s,
                    require_enabled=self._run.was_enabled,
                    account=self._run.context.account_name,
                )
            if lead is None:
                self._check_run_alive()
                return batch
            prepared = prepare_lead(lead, self._run.campaign)
            if not self._find_suppressed_leads([prepared]):
                return batch.narrow_to([prepared])
        except BaseException:
            self.restore_created(claim_ref)
            raise
        self.restore_created(claim_ref)
        return batch

    def restore_created(self, claim_ref: leads.ClaimRef) -> None:
        """Mark leads `created` again after a repeated create."""
        self._run.write(leads.restore_created, claim_ref)

    def _reserve_quota(self, limit: ClaimLimit) -> ClaimLimit:
        return replace(limit, leads=self._quota.reserve(limit.leads))

    @contextmanager
    def _release_on_error(self, claim_no: int, limit: ClaimLimit) -> Iterator[None]:
        """Release a claim if the block fails: by its number, as its result may have been lost."""
        try:
            yield
        except BaseException:
            self._quota.give_back(limit.leads)
            self._run.write(
                leads.release_claim,
                campaign_id=self._run.campaign.campaign_id,
                run_id=self._run.run_id,
                claim_no=claim_no,
            )
            raise

    def reclaim_if_expired(self, batch: ClaimedBatch) -> ClaimedBatch:
        """Return the batch with a valid permit, without leads that must not be sent any more.

        Raises:
            Fenced: another run has declared this one dead.
        """
        # A look at the campaign's opt-outs may outlast the new permit; the next one comes later.
        while batch.leads and batch.permit.is_expired:
            with self.release_on_error(batch):
                self._run.context.limiter.release_slot(batch.permit.slot)
            kept = self.reclaim(batch)
            self._quota.give_back(len(batch.leads) - len(kept.leads))
            batch = kept
        return batch

    def reclaim(self, batch: ClaimedBatch) -> ClaimedBatch:
        """Claim the batch's leads for one more request, except those that must not be sent now.

        They may have opted out meanwhile, also in the campaign's own table, or become too old.
        While that table cannot be read, none is sent.

        Raises:
            Fenced: another run has declared this one dead.
            RunError: the campaign's opt-out source cannot be read.
        """
        with self.release_on_error(batch):
            permit = self._run.context.limiter.acquire_permit(ApiCall.CREATE)
            batch = replace(batch, permit=permit)
            if not batch.leads:
                return batch
            self._run.refresh()
            if not may_send(self._run):
                self._run.context.limiter.release_slot(permit.slot)
                self._make_new(self.claim_ref(batch))
                return batch.narrow_to([])
            with self._run.context.database.autocommit() as connection:
                reclaimed = leads.reclaim_leads(
                    connection,
                    self.claim_ref(batch),
                    max_lead_age_s=self._run.campaign.max_lead_age_s,
                    require_enabled=self._run.was_enabled,
                    account=self._run.context.account_name,
                )
            self._count_excluded(reclaimed)
            if reclaimed.total < len(batch.leads):
                # A pause of the campaign made them `new` again: after a resume they come first.
                self._cursor = 0
            kept = set(reclaimed.lead_ids)
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
        self._make_new(claim_ref)
        self._quota.give_back(len(claim_ref.lead_ids))

    def _make_new(self, claim_ref: leads.ClaimRef) -> None:
        if claim_ref.lead_ids:
            self._cursor = 0
            self._run.write(leads.release_leads, claim_ref)

    def reject_leads(
        self, batch: ClaimedBatch, reasons: Mapping[str, str], *, was_sent: bool
    ) -> None:
        """Mark leads `rejected`; `reasons` by lead id."""
        if reasons:
            claim_ref = self.claim_ref(batch, list(reasons))
            self._run.write(leads.record_rejected, claim_ref, reasons, was_sent=was_sent)
            self._add_rejected(reasons)

    @contextmanager
    def release_on_error(self, batch: ClaimedBatch) -> Iterator[None]:
        """Release the batch if the block fails: its leads were not sent, so are not in doubt."""
        try:
            yield
        except BaseException:
            self.release_leads(self.claim_ref(batch))
            raise

    def _claim_leads(self, claim_no: int, limit: ClaimLimit) -> ClaimResult:
        """Claim new leads up to a limit from the cursor on, or else from the start of the queue."""
        self._gate.begin_claim(limit.leads)
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
                    limit=limit.leads,
                    max_lead_bytes=self._run.campaign.batch_bytes,
                    max_bytes=limit.bytes,
                    max_lead_age_s=self._run.campaign.max_lead_age_s,
                    require_enabled=self._run.was_enabled,
                    account=self._run.context.account_name,
                    urgent_only=self._urgent_only,
                    lead_ids=self._lead_ids,
                )
                cursor = self._cursor
                claimed = claim(after_seq=cursor)
                if not claimed.total and cursor:
                    claimed = claim()
                self._cursor = claimed.last_seq
            shortfall = limit.leads - claimed.total
        finally:
            self._gate.end_claim(shortfall)
        self._count_excluded(claimed)
        if not claimed.total:
            self._check_run_alive()
        return claimed

    def _count_excluded(self, claimed: ClaimResult | ReclaimResult) -> None:
        """Count the leads that a claim has cancelled or, because they are too old, rejected."""
        self._add_cancelled(claimed.cancelled)
        self._add_rejected(claimed.rejected)

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
                prepared.append(self._alter(prepare_lead(lead, self._run.campaign)))
            except InvalidLead as error:
                reasons[lead.lead_id] = str(error)
        self.reject_leads(batch, reasons, was_sent=False)
        return self._drop_suppressed(batch.narrow_to(prepared))

    def _drop_suppressed(self, batch: ClaimedBatch) -> Sequence[PreparedLead]:
        """Return the leads whose number has not opted out under another lead; cancel the others."""
        cancelled = self._find_suppressed_leads(batch.leads)
        if cancelled:
            claim_ref = self.claim_ref(batch, sorted(cancelled))
            self._run.write(leads.cancel_leads, claim_ref, NUMBER_OPTED_OUT_REASON)
            self._add_cancelled(len(cancelled))
        return batch.without_leads(cancelled).leads

    def _find_suppressed_leads(self, prepared: Sequence[PreparedLead]) -> set[str]:
        """Return the ids of leads whose number has opted out: by another lead, or by itself.

        The latter were in the campaign's opt-out source, which always counts.
        """
        if not prepared:
            return set()
        hashes = {
            lead.lead_id: hash_phone_number(self._hash_secret, lead.e164)
            for lead in prepared
            if lead.e164
        }
        sends_others = self._run.campaign.sends_opted_out_numbers
        find = self._find_named if sends_others else self._find_suppressed
        suppressed = find(list(hashes.values()))
        return {lead_id for lead_id, each in hashes.items() if each in suppressed}

    def _find_named(self, hashes: Sequence[bytes]) -> set[bytes]:
        """Return the hashes of numbers that the campaign's opt-out source has named."""
        with self._run.context.database.autocommit() as connection:
            return suppressed_numbers.find_named(connection, self._run.campaign.campaign_id, hashes)

    def _find_suppressed(self, hashes: Sequence[bytes]) -> set[bytes]:
        """Return the hashes whose numbers have opted out; index opt-outs that are not indexed."""
        database, region = self._run.context.database, self._run.context.settings.default_region
        while True:
            with database.autocommit() as connection:
                suppressed, has_unindexed = suppressed_numbers.find_suppressed(
                    connection, hashes, region=region
                )
            if not has_unindexed:
                return suppressed
            database.run(suppressed_numbers.index_opted_out, region=region)
