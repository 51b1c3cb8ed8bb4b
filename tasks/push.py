"""The push job: create a campaign's new leads at the vendor, in batches.

A sender acquires a permit, claims a batch, sends it and records the result. No transaction spans a
request. A lead is `sending` in a committed row before its request leaves, and every wait comes
before the claim. So leads are `sending` only while their request is in flight, and a lead that
opts out during the wait is not claimed.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import NoReturn

from db import campaigns, leads
from leadloop.client.errors import ApiError, InDoubt, Rejected, Retryable, TooLarge
from leadloop.core.batch_response import (
    BatchResult,
    extract_reason,
    is_duplicate_reason,
    redact_reason,
)
from leadloop.core.errors import RunError
from leadloop.core.leads import PreparedLead, extract_custom_texts
from leadloop.core.progress import progress_listener
from leadloop.core.verdicts import ApiCall
from tasks.batch_claimer import BatchClaimer, BatchSizeLimits, ClaimedBatch
from tasks.context import ApiContext, CampaignRun, open_api_context
from tasks.counters import Counters
from tasks.in_doubt import InDoubtResolver, ResolvedLeads
from tasks.jobs import DONE, MORE, ChunkResult, JobSpec
from tasks.rate_limiter import Permit
from tasks.rejection_streak import MAX_ALIKE, RejectionStreak
from tasks.retries import FruitlessAttempts, retry_later
from tasks.source_sync import sync_source


class PushJob:
    """One campaign's push. Postgres knows all of its state, so a later run can go on with it."""

    def __init__(self, run: CampaignRun[ApiContext], *, from_source: int = 0) -> None:
        self.run = run
        self._from_source = from_source
        self._counters = Counters("created", "rejected", "cancelled")
        self._batch_size = run.campaign.batch_size
        self._in_doubt = InDoubtResolver(run)
        self._attempts = FruitlessAttempts()
        self._rejection_streak = RejectionStreak()
        self._lookups_failed = False
        self._probe_lead_stored = False
        self._listener = progress_listener.get()
        self._label = f"push {run.campaign.campaign_id}"
        with run.context.database.transaction() as connection:
            new = leads.count_new(connection, run.campaign.campaign_id)
        self._claimer = BatchClaimer(run, new, self._add_counts)
        self._listener.add_total(self._label, new)

    def run_chunk(self, limit: int) -> ChunkResult:
        """Look up leads in doubt, then send up to `limit` batches.

        Lookups come first: they are safe to retry, and show whether the vendor responds.

        Raises:
            RunError: the vendor rejects the login, fails repeatedly, or this run was declared dead.
        """
        self._probe_lead_stored = False
        try:
            resolved = self._resolve_in_doubt(limit)
            drained = self._send_batches(limit)
        except (Retryable, InDoubt) as error:
            return retry_later(self.run, self._attempts, error)
        except ApiError as error:
            raise RunError(str(error)) from None
        return DONE if drained and not resolved.has_more else MORE

    def counts(self) -> dict[str, int]:
        """The contract's counts; `in_doubt`: how many the campaign has now.

        `held_back`: new leads that the campaign may not create.
        """
        in_doubt = self.run.write(leads.count_in_doubt, self.run.campaign.campaign_id)
        return self._counters.counts() | {
            "in_doubt": in_doubt,
            "from_source": self._from_source,
            "held_back": self._count_held_back(),
        }

    def finish(self) -> None:
        """Warn about leads that the campaign may not create: a paused campaign says so."""
        if held_back := self._count_held_back():
            name = self.run.campaign.campaign_id
            self.run.context.log.warning(
                "campaign %s: %d leads stay new: it may not create leads (push_enabled or enabled"
                " is false); `leadloop resume --campaign %s` lets it",
                *(name, held_back, name),
            )

    def _count_held_back(self) -> int:
        campaign = self.run.campaign
        return self.run.write(
            leads.count_held_back, campaign.campaign_id, require_enabled=campaign.enabled
        )

    def _resolve_in_doubt(self, limit: int) -> ResolvedLeads:
        """Lookups that get no answer put the run off once; after that they hold up nothing."""
        try:
            looked_up = self._in_doubt.resolve(limit)
        except Retryable:
            if not self._lookups_failed:
                self._lookups_failed = True
                raise
            return ResolvedLeads()
        self._add_counts(created=len(looked_up.found))
        return looked_up

    def _send_batches(self, limit: int) -> bool:
        """Send batches, several at once; True when no lead is left to claim.

        Raises:
            ApiError: the worst of what the batches met; the others are recorded first.
        """
        # After a failure one batch goes ahead alone: a vendor that takes creates and never answers
        # must not put the whole backlog in doubt.
        share = _ChunkState(1 if self._attempts.has_failed else limit)
        with self.run.context.open_threads() as pool:
            at_once = min(share.batches_left, pool.size)
            senders = [pool.submit(self._run_sender, share) for _ in range(at_once)]
            wait(senders)
        _raise_worst_error(senders)
        return share.is_drained

    def _run_sender(self, state: "_ChunkState") -> None:
        """What each sender does: batch after batch, until the share is done or one has failed."""
        try:
            while (turn := self._acquire_permit(state)) is not None:
                batch, state.is_drained = self._claimer.claim_batch(turn, self._batch_size)
                if batch.leads:
                    self._send_batch(batch)
                    self._learn_batch_limit(batch.size_limits)
                else:
                    self.run.context.limiter.release_slot(turn.slot)
        except BaseException:
            state.batches_left = 0
            raise

    def _acquire_permit(self, state: "_ChunkState") -> Permit | None:
        """Wait for a turn in the budget, one sender at a time; None where there is no more to do.

        If each sender waited by itself, the last leads would keep them all waiting for turns that
        only one of them can use.
        """
        budget = self.run.context.limiter
        with state.lock:
            while state.batches_left > 0 and not state.is_drained:
                # Nothing to send needs no login, and no wait; whether that is so is worth a look
                # at the start and before a wait, else the claim finds out.
                if not state.has_started and not self._check_for_new_leads(state):
                    return None
                state.has_started = True
                self.run.context.api.ensure_token()
                slot = budget.reserve_slot(ApiCall.CREATE)
                if slot.wait_s > 0 and not self._check_for_new_leads(state):
                    budget.release_slot(slot)
                    return None
                turn = budget.wait_until_due(slot)
                if turn is not None:
                    state.batches_left -= 1
                    return turn
        return None

    def _check_for_new_leads(self, state: "_ChunkState") -> bool:
        state.is_drained = not self._claimer.has_new_leads()
        return not state.is_drained

    def _send_batch(self, batch: ClaimedBatch) -> None:
        """Send a batch, and record what came of it.

        Raises:
            ApiError: the leads are in doubt (InDoubt) or `new` again (any other).
        """
        batch = self._claimer.reclaim_if_expired(batch)
        if not batch.leads:
            return
        try:
            reading = self.run.context.api.create(self.run.campaign.campaign_id, batch.leads)
        except TooLarge as error:
            self._handle_too_large(batch, error)
        except Rejected as error:
            self._isolate_rejected(batch, error)
        except InDoubt as error:
            told = _select_mentioned(batch, error.batch_result)
            self._mark_in_doubt(batch.without_leads({lead.lead_id for lead in told.leads}), error)
            if told.leads:
                self._record_result(told, error.batch_result.rejected)
            raise
        except ApiError:
            self._claimer.release_leads(self._claimer.claim_ref(batch))
            raise
        else:
            self._record_result(batch, reading.rejected)

    def _record_result(self, batch: ClaimedBatch, refused: Mapping[str, str]) -> None:
        """The vendor took the batch, all but the refused; a duplicate is one it has already.

        Raises:
            RunError: it refuses one after the other with the same words: it means the campaign.
        """
        reasons = {
            lead.lead_id: _redact_reason(refused[lead.lead_id], lead)
            for lead in batch.leads
            if lead.lead_id in refused and not is_duplicate_reason(refused[lead.lead_id])
        }
        created = batch.without_leads(reasons)
        if created.leads:
            ours = self._claimer.claim_ref(created)
            self.run.context.database.retry(
                lambda c: leads.record_created(c, ours), single_statement=True
            )
            self._remember_probe_lead(created.leads[-1])
            batch.size_limits.record_accepted(len(batch.leads))
        self._add_counts(created=len(created.leads))
        self._claimer.reject_leads(batch, reasons, was_sent=True)
        self._attempts.reset()
        if created.leads:
            self._rejection_streak.reset()
        elif alike := self._rejection_streak.add_rejections(reasons.items()):
            self._requeue_rejected(alike, reasons)

    def _requeue_rejected(self, alike: Sequence[str], reasons: Mapping[str, str]) -> NoReturn:
        """Nobody is rejected for the campaign's sake: `new` again, behind all others.

        Behind the others, so that these hold up none if it was their own fault after all.
        """
        campaign_id, run_id = self.run.campaign.campaign_id, self.run.run_id
        back = self.run.write(
            leads.requeue_rejected, campaign_id=campaign_id, run_id=run_id, lead_ids=alike
        )
        self._counters.add(rejected=-back)
        raise RunError(
            f"{MAX_ALIKE} leads in a row were refused with the same words"
            f" ({next(iter(reasons.values()))}): is the campaign open, and do they have all that it"
            " asks for? They are new again, at the end of the queue"
        )

    def _remember_probe_lead(self, lead: PreparedLead) -> None:
        """Have a lead on which to try, should others be in doubt, whether the vendor shows it.

        One a step is enough: recent, and no row that all senders wait for.
        """
        if self._probe_lead_stored:
            return
        self._probe_lead_stored = True
        campaign_id = self.run.campaign.campaign_id
        self.run.write(campaigns.remember_probe_lead, campaign_id, lead.lead_id)

    def _isolate_rejected(self, batch: ClaimedBatch, error: Rejected) -> None:
        """Reject the culprits: those that the vendor names, or who stands alone in the end."""
        if len(batch.leads) == 1:
            reason = extract_reason(error.body) or str(error.response)
            self._record_result(batch, {batch.leads[0].lead_id: reason})
            return
        reading = error.batch_result
        if reading.rejected or reading.accepted:
            rest = batch.without_leads(reading.accepted | reading.rejected.keys())
            with self._claimer.release_on_error(rest):
                self._record_result(_select_mentioned(batch, reading), reading.rejected)
            self._send_reclaimed(rest)
        else:
            self._send_halves(batch)

    def _handle_too_large(self, batch: ClaimedBatch, error: TooLarge) -> None:
        """Send its halves; a lead that is too large by itself is rejected."""
        batch.size_limits.record_too_large(len(batch.leads))
        if len(batch.leads) == 1:
            self._record_result(batch, {batch.leads[0].lead_id: str(error.response)})
        else:
            self._send_halves(batch)

    def _learn_batch_limit(self, size_limits: BatchSizeLimits) -> None:
        """Remember what a batch has told, once all of its parts are settled."""
        most = size_limits.learned_limit
        if most is None:
            return
        self._batch_size = min(self._batch_size, most)
        campaign_id = self.run.campaign.campaign_id
        self.run.write(campaigns.lower_batch_limit, campaign_id, most)

    def _send_halves(self, batch: ClaimedBatch) -> None:
        first, second = batch.split_in_half()
        with self._claimer.release_on_error(second):
            self._send_reclaimed(first)
        self._send_reclaimed(second)

    def _send_reclaimed(self, batch: ClaimedBatch) -> None:
        """Send leads of ours in another request, without those that have opted out since."""
        if batch.leads:
            self._send_batch(self._claimer.reclaim(batch))

    def _mark_in_doubt(self, batch: ClaimedBatch, error: ApiError) -> None:
        ours = self._claimer.claim_ref(batch)
        self.run.write(leads.mark_in_doubt, ours, str(error))

    def _add_counts(self, **amounts: int) -> None:
        self._counters.add(**amounts)
        self._listener.advance(self._label, sum(amounts.values()))


def _select_mentioned(batch: ClaimedBatch, reading: BatchResult) -> ClaimedBatch:
    """The leads of which the answer says what became of them."""
    told = reading.accepted | reading.rejected.keys()
    return batch.narrow_to([lead for lead in batch.leads if lead.lead_id in told])


def _redact_reason(reason: str, lead: PreparedLead) -> str:
    """The vendor's reason, without what it repeats of the lead."""
    return redact_reason(
        reason, lead.e164, lead.contact_name, extract_custom_texts(lead.body.decode())
    )


@dataclass
class _ChunkState:
    """What the senders of one step share: how many batches are left to it."""

    batches_left: int
    has_started: bool = False
    is_drained: bool = False
    lock: Lock = field(default_factory=Lock)


def _raise_worst_error(senders: Sequence[Future[None]]) -> None:
    """Raise what ends the run before what only delays it."""
    errors = [error for sender in senders if (error := sender.exception())]
    if errors:
        raise max(errors, key=lambda error: not isinstance(error, Retryable | InDoubt))


def start_push(run: CampaignRun[ApiContext]) -> PushJob:
    """Return the campaign's push job; first make its leads follow its source, if it has one."""
    if run.campaign.source is None:
        return PushJob(run)
    new = run.context.host.run_step("take-from-source", partial(sync_source, run))
    return PushJob(run, from_source=new)


# Batches a chunk: half a minute at the vendor's rate limit. Between two chunks nothing is sent for
# some hundredths of a second: at 20 batches a chunk, a tenth of a push to a vendor without latency.
PUSH = JobSpec(
    flow="push-leads",
    task="push-batches",
    counts=("created", "rejected", "in_doubt", "cancelled", "from_source", "held_back"),
    open_context=open_api_context,
    start=start_push,
    min_chunk=60,
)
