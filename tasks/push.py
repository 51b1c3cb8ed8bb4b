"""The push job: create a campaign's new leads at the vendor, in batches.

A sender acquires a permit, claims a batch, sends it and records the result. No transaction spans a
request. A lead is `sending` in a committed row before its request leaves, and every wait comes
before the claim. So leads are `sending` only while their request is in flight, and a lead that
opts out during the wait is not claimed.

A create that fails is never sent again as it was: its leads are suspects (`db.suspects`). Once they
are known not to exist, they are sent in halves, behind all fresh leads, so that the others of a bad
lead are created and it is found.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from functools import partial
from threading import Lock
from typing import Any, NoReturn

from db import campaigns, due_work, in_doubt, leads, learned_limits, suspects
from db.source_sync import SyncCounts
from leadloop.client.errors import (
    ApiError,
    InDoubt,
    RateLimited,
    Rejected,
    Retryable,
    TooLarge,
)
from leadloop.core.batch_response import (
    BatchResult,
    extract_reason,
    is_duplicate_reason,
    may_be_duplicate_reason,
    redact_reason,
)
from leadloop.core.concurrency import ConcurrencyLimit
from leadloop.core.errors import RunError, UsageError
from leadloop.core.lead_reasons import LeadReasons
from leadloop.core.leads import PreparedLead, extract_custom_texts
from leadloop.core.plurals import format_count
from leadloop.core.progress import progress_listener
from leadloop.core.summaries import Summary
from leadloop.core.verdicts import ApiCall, may_blame_content
from tasks.batch_claimer import BatchClaimer, ClaimedBatch, ClaimLimit
from tasks.batch_limits import BatchLimits
from tasks.context import ApiContext, CampaignRun, open_api_context
from tasks.counters import Counters
from tasks.held_creates import require_no_hold
from tasks.in_doubt import InDoubtResolver, ResolvedLeads
from tasks.jobs import DONE, MORE, ChunkResult, JobSpec, ask_database
from tasks.lead_quota import LeadQuota
from tasks.opt_out_sync import may_send
from tasks.probes import read_campaign, watch_reads
from tasks.rate_limiter import AccountPaused, Permit
from tasks.rejection_streak import MAX_ALIKE, RejectionStreak
from tasks.retries import FruitlessAttempts, retry_later
from tasks.send_pace import SendPace
from tasks.source_sync import sync_source
from tasks.thread_pool import run_elastic

#: Lone suspects that fail in a row, after which a run leaves the others to the next one.
_MAX_LONE_IN_A_ROW = 6
#: Leads of a batch that are looked up to find out.
_SAMPLE = 3
#: Ids of rejected leads that are kept of each reason.
_MAX_SAMPLES = 5
# Of a lead whose row was deleted meanwhile.
_UNKNOWN_REASON = "unknown"


class PushScope(Enum):
    """What a push sends."""

    ALL = auto()
    """Fresh leads and suspects, after lookups of leads in doubt."""
    URGENT = auto()
    """Urgent leads alone."""
    FEW = auto()
    """The fresh leads of one chunk."""
    NAMED = auto()
    """Fresh leads that a person has named."""


class PushJob:
    """One campaign's push. Postgres knows all of its state, so a later run can go on with it.

    Args:
        run: the campaign's run.
        synced: what the sync with the campaign's source did.
        scope: what it sends; the rest is left to another push.
        quota: the leads that the run may send; None: all.
        lead_ids: the leads that it may send, with the scope NAMED.
        alter: changes each lead before it is sent.

    Raises:
        RunError: the campaign's default region is no region.
    """

    def __init__(
        self,
        run: CampaignRun[ApiContext],
        *,
        synced: SyncCounts | None = None,
        scope: PushScope = PushScope.ALL,
        quota: LeadQuota | None = None,
        lead_ids: Sequence[str] | None = None,
        alter: Callable[[PreparedLead], PreparedLead] = lambda lead: lead,
    ) -> None:
        run.campaign.require_region()
        self.run = run
        self._scope = scope
        self._synced = synced or SyncCounts()
        self._counters = Counters("created", "cancelled")
        self._rejections = LeadReasons(max_ids=_MAX_SAMPLES)
        self._in_doubt = InDoubtResolver(run)
        self._reads = watch_reads(run)
        # Whether any response has stated a result, and the creates that failed, without those of
        # lone suspects.
        self._result_lock = Lock()
        self._has_result = False
        self._failed_creates = 0
        self._attempts = FruitlessAttempts()
        self._pace = SendPace(
            ConcurrencyLimit(
                rate_per_s=run.context.limiter.rate_per_s,
                bound=run.context.settings.max_concurrency,
            )
        )
        # Whether the last create failed: a read comes before the next one. Whether several did, or
        # the last one of an earlier run: then a single lead is tried first.
        self._has_failed = False
        self._are_failing = False
        self._must_record_accepted = True
        self._lone_failures = 0
        # The shapes of such successes that are known to mean that all leads were created.
        self._success_shapes: set[int] | None = None
        self._shape_lock = Lock()
        self._rejection_streak = RejectionStreak()
        self._lookups_failed = False
        self._probe_lead_stored = False
        self._listener = progress_listener.get()
        self._label = f"push {run.campaign.campaign_id}"
        urgent_only = scope is PushScope.URGENT
        with run.context.database.transaction() as connection:
            new = (
                leads.count_fresh(connection, run.campaign.campaign_id, urgent_only=urgent_only)
                if lead_ids is None
                else len(lead_ids)
            )
            self._are_failing = suspects.are_creates_failing(connection, run.campaign.campaign_id)
            self._limits = BatchLimits(
                learned_limits.get_learned_limits(connection, run.campaign.campaign_id)
            )
        self._has_failed = self._are_failing
        quota = quota or LeadQuota()
        to_send = min(new, quota.left)
        self._listener.add_total(self._label, to_send)
        run.log_step(
            "%s to send, in batches of up to %d",
            format_count(to_send, "new lead"),
            self._limits.cap_leads(run.campaign.batch_size),
        )
        self._claimer = BatchClaimer(
            run,
            new,
            add_cancelled=lambda amount: self._add_counts(cancelled=amount),
            add_rejected=self._add_rejected,
            quota=quota,
            urgent_only=urgent_only,
            lead_ids=lead_ids,
            alter=alter,
        )

    def run_chunk(self, limit: int) -> ChunkResult:
        """Send up to `limit` batches of the job's scope.

        Raises:
            RunError: the vendor rejects the login, fails repeatedly, or this run was declared dead.
        """
        self._probe_lead_stored = False
        try:
            is_all = self._scope is PushScope.ALL
            is_done = self._send_all(limit) if is_all else self._send_fresh(limit)
        except ApiError as error:
            if _may_be_outage(error):
                self._record_outage(error)
            if isinstance(error, Retryable | InDoubt) or _may_be_a_lead(error):
                return retry_later(self.run, self._attempts, error)
            raise RunError(str(error)) from None
        return DONE if is_done or self._scope is PushScope.FEW else MORE

    def _send_all(self, limit: int) -> bool:
        """Look up leads in doubt, then send up to `limit` batches, suspects last.

        Lookups come first: they are safe to retry, and show whether the vendor responds. While
        fresh leads wait, a quarter of the requests is enough for them.

        Returns:
            Whether nothing is left to look up or to send.

        Raises:
            ApiError, RunError: see `_send_fresh`.
        """
        has_fresh = self._claimer.has_fresh_leads()
        resolved = self._resolve_in_doubt(limit // 4 if has_fresh else limit, has_fresh)
        return self._send_fresh(limit) and self._send_suspects(limit) and not resolved.has_more

    def counts(self) -> dict[str, int]:
        """Return the counts of docs/reference/exit-codes-and-json.md.

        Those of leads in doubt, of suspects and of leads that are held back are the campaign's
        numbers of such leads now.
        """
        campaign = self.run.campaign
        doubts = self.run.write(
            in_doubt.count_in_doubt, campaign.campaign_id, settle_s=campaign.settle_s
        )
        return (
            self._counters.counts()
            | doubts
            | {
                "rejected": self._rejections.total,
                "suspects": self.run.write(suspects.count_waiting, campaign.campaign_id),
                "from_source": self._synced.inserted,
                "unreadable_rows": self._synced.unreadable,
                "held_back": self._count_held_back(),
            }
        )

    def finish(self) -> None:
        """Warn about new leads that a paused or disabled campaign may not create.

        Raises:
            RunError: creates are held; no request of this run got a response that states a
                result; or no lookup was answered.
        """
        require_no_hold(self.run)
        if rejected := self._rejections.total:
            self.run.log_step(
                "%s rejected; leadloop_monitor.rejections counts the reasons",
                format_count(rejected, "lead was", "leads were"),
            )
        if held_back := self._count_held_back():
            self.run.warn(
                "%s new, because the campaign may not create leads (push_enabled or enabled is"
                " false); to allow it: `leadloop resume --campaign %s`",
                format_count(held_back, "lead stays", "leads stay"),
                self.run.campaign.campaign_id,
            )
        if self._failed_creates and not (self._has_result or self._in_doubt.has_answer):
            self._check_reads()
        self._in_doubt.require_answer()

    def _check_reads(self) -> None:
        """Check that the vendor answers reads, after creates of which each has failed.

        Raises:
            RunError: it does not.
        """
        try:
            read_campaign(self.run)
        except Retryable as error:
            raise RunError(
                f"{self.run.context.account.address} answered no request of this run ({error});"
                f" the leads of {format_count(self._failed_creates, 'create')} are in doubt, and"
                " the next push looks them up: check the network and the vendor's status"
            ) from None

    def _count_held_back(self) -> int:
        return self.run.write(
            leads.count_held_back,
            self.run.campaign.campaign_id,
            require_enabled=self.run.was_enabled,
        )

    def _resolve_in_doubt(self, limit: int, has_fresh: bool) -> ResolvedLeads:
        """Look up leads in doubt and return those that are resolved.

        A lookup without a response delays the run only once: after the first time, batches are sent
        all the same. The campaign's listing waits until all fresh leads are sent.
        """
        try:
            resolved = self._in_doubt.resolve(limit, may_list=not has_fresh)
        except Retryable:
            if not self._lookups_failed:
                self._lookups_failed = True
                raise
            return ResolvedLeads()
        self._add_counts(created=len(resolved.found))
        if resolved.rejected:
            self._add_rejected(
                dict.fromkeys(resolved.rejected, _UNKNOWN_REASON)
                | self._get_reasons(resolved.rejected)
            )
        if resolved.settled:
            self.run.log_step(
                "leads in doubt that were looked up: %d are created, %d new again, %d rejected",
                *(len(resolved.found) + len(resolved.kept), len(resolved.absent)),
                len(resolved.rejected),
            )
        if resolved.found:
            self._learn_from_found()
        return resolved

    def _learn_from_found(self) -> None:
        """Learn from leads that were found whether creates still fail, and what a success means."""
        if self._are_failing:
            self._are_failing = self.run.write(
                suspects.are_creates_failing, self.run.campaign.campaign_id
            )
        self._success_shapes = self._load_success_shapes() | (self._success_shapes or set())

    def _send_fresh(self, limit: int) -> bool:
        """Send up to `limit` batches concurrently; return whether no fresh lead is left to claim.

        Raises:
            ApiError: the worst error of all senders, after every batch is recorded.
            RunError: the vendor answers no read after a create that failed, or the campaign's
                opt-out source cannot be read.
        """
        # After a failure, one batch goes first: a vendor that accepts creates and never responds
        # must not put the whole backlog in doubt.
        batches = 1 if self._has_failed or self._attempts.has_failed else limit
        state = _ChunkState(batches)
        self._pace.start_chunk()
        with self.run.context.open_create_threads() as pool:
            errors = run_elastic(
                pool, partial(self._send_next, state), lambda: min(self._pace.limit, batches)
            )
        if errors:
            # An error that ends the run comes before one that only delays it.
            raise max(errors, key=lambda error: not isinstance(error, Retryable | InDoubt))
        return state.is_drained

    def _send_suspects(self, limit: int) -> bool:
        """Send up to `limit` lists of suspects, one by one; return whether none is due any more.

        That the vendor fails on a lone suspect again is no news, and delays nobody.

        Raises:
            ApiError, RunError: see `_send_fresh`.
        """
        for _ in range(limit):
            if not self._claimer.has_due_suspects() or self._lone_failures >= _MAX_LONE_IN_A_ROW:
                return True
            permit = self._prepare_create()
            if not self._may_send(permit):
                return True
            batch, _ = self._claimer.claim_suspects(permit, self._find_limit())
            if not batch.leads:
                self.run.context.limiter.release_slot(permit.slot)
                continue
            try:
                self._send_and_learn(batch)
            except ApiError as error:
                if len(batch.leads) > 1 or not (
                    isinstance(error, InDoubt) or _may_be_a_lead(error)
                ):
                    raise
                self._lone_failures += 1
                self._failed_creates -= 1
                self.run.warn("the vendor fails on lead %s: %s", batch.leads[0].lead_id, error)
        return False

    def _prepare_create(self) -> Permit:
        """Log in, and wait for a permit; after a create that failed, read first.

        Raises:
            RunError: the vendor answers no read.
        """
        self._probe_after_failure()
        self.run.context.api.ensure_token()
        return self.run.context.limiter.acquire_permit(ApiCall.CREATE)

    def _probe_after_failure(self) -> None:
        if self._has_failed:
            self._reads.probe_now()
            self._has_failed = False

    def _may_send(self, permit: Permit) -> bool:
        """Return whether leads may be claimed: all opt-outs of the campaign's table are on record.

        The campaign's row is read again after the wait for the permit: it may name a table now.

        In a live run, another push sends the leads once the table has been read.

        Raises:
            RunError: the table cannot be read.
        """
        self.run.refresh()
        if may_send(self.run):
            return True
        self.run.context.limiter.release_slot(permit.slot)
        self.run.warn("no lead is sent until the campaign's opt-out source has been read")
        return False

    def _find_limit(self) -> ClaimLimit:
        """Return the most leads and bytes of the next create."""
        campaign = self.run.refresh()
        return ClaimLimit(
            leads=self._limits.cap_leads(campaign.batch_size),
            bytes=self._limits.cap_bytes(campaign.batch_bytes),
        )

    def _send_next(self, state: "_ChunkState") -> bool:
        """Send the next batch; return whether the chunk may have another one.

        Once a batch has failed, no other one is begun.
        """
        try:
            permit = self._acquire_permit(state)
            if permit is None:
                return False
            if not self._may_send(permit):
                state.is_drained = True
                return False
            limit = self._find_limit()
            if self._are_failing:
                # One person in doubt is enough to find out whether the vendor works again.
                limit = replace(limit, leads=1)
            batch, state.is_drained = self._claimer.claim_batch(permit, limit)
            if batch.leads and (self._has_failed or permit.has_pause_begun.is_set()):
                # A create has failed while this sender waited: a read comes first. Or the vendor
                # has asked for a pause: no lead is claimed while it lasts.
                self._claimer.release_leads(self._claimer.claim_ref(batch))
                batch, state.is_drained = batch.narrow_to([]), False
            if batch.leads:
                self._send_and_learn(batch)
            else:
                self.run.context.limiter.release_slot(permit.slot)
        except BaseException:
            state.batches_left = 0
            self._pace.record_failure()
            raise
        return True

    def _acquire_permit(self, state: "_ChunkState") -> Permit | None:
        """Wait for a permit, one sender at a time; None if the chunk has nothing left to send.

        If senders waited concurrently, the last leads would keep all of them waiting for permits
        that only one of them can use.
        """
        limiter = self.run.context.limiter
        with state.lock:
            while state.batches_left > 0 and not state.is_drained:
                # Without new leads, there is no login and no wait. A query at the start and before
                # each wait is enough: otherwise the claim shows that no lead is left.
                if not state.has_started and not self._check_for_new_leads(state):
                    return None
                state.has_started = True
                self._probe_after_failure()
                self.run.context.api.ensure_token()
                slot = limiter.reserve_slot(ApiCall.CREATE)
                if slot.wait_s > 0 and not self._check_for_new_leads(state):
                    limiter.release_slot(slot)
                    return None
                permit = limiter.wait_until_due(slot)
                if permit is not None:
                    state.batches_left -= 1
                    return permit
        return None

    def _check_for_new_leads(self, state: "_ChunkState") -> bool:
        state.is_drained = not self._claimer.has_fresh_leads()
        return not state.is_drained

    def _send_and_learn(self, batch: ClaimedBatch) -> None:
        """Send a batch, and store a limit of leads or bytes that it and its parts have shown.

        Raises:
            ApiError: see `_send_batch`.
        """
        self._send_batch(batch)
        if (contrast := batch.parts.find_contrast()) is not None:
            self._limits.record_contrast(contrast)
        for name, value in self._limits.take_changes().items():
            self.run.write(
                learned_limits.record_learned_limit, self.run.campaign.campaign_id, name, value
            )

    def _send_batch(self, batch: ClaimedBatch) -> None:
        """Send a batch and record its result; split a batch that is rejected as a whole.

        Raises:
            ApiError: the leads are in doubt (InDoubt) or `new` again (any other).
        """
        batch = self._claimer.reclaim_if_expired(batch)
        if not batch.leads:
            return
        try:
            with self._pace.time_request():
                result = self.run.context.api.create(self.run.campaign.campaign_id, batch.leads)
        except TooLarge as error:
            batch.parts.record_too_large(batch.leads)
            if len(batch.leads) > 1:
                self._log_split(batch, error)
                self._send_halves(batch)
            else:
                self._record_too_large(batch, error)
        except Rejected as error:
            self._isolate_rejected(batch, error)
        except InDoubt as error:
            shape = error.batch_result.shape
            if shape is not None and self._means_success(batch, shape):
                self._record_result(batch, {})
                return
            stated = _select_stated(batch, error.batch_result)
            unknown = batch.without_leads({lead.lead_id for lead in stated.leads})
            if unknown.leads:
                reason = str(error) if shape is None else suspects.build_blank_reason(shape)
                self._record_failure(unknown, reason, may_exist=True)
            if stated.leads:
                self._record_result(stated, error.batch_result.rejected)
            if unknown.leads:
                raise
        except AccountPaused:
            # At a login, before the create or after a 401: nothing was created.
            self._claimer.release_leads(self._claimer.claim_ref(batch))
            raise
        except ApiError as error:
            if _may_be_a_lead(error):
                reason = f"blocked by a firewall? {error.response}, and not the vendor's JSON"
                self._record_failure(batch, reason, may_exist=False)
            else:
                # Before its leads can be claimed again.
                self._has_failed = self._has_failed or _may_be_outage(error)
                self._claimer.release_leads(self._claimer.claim_ref(batch))
            raise
        else:
            self._record_result(batch, result.rejected)

    def _record_too_large(self, batch: ClaimedBatch, error: TooLarge) -> None:
        """Reject a lead that is too large alone, if another part of its batch has passed.

        Otherwise a proxy may answer everybody so, and the lead is a suspect: it is sent again
        behind all fresh leads.

        Raises:
            TooLarge: it is a suspect.
        """
        if batch.parts.has_accepted:
            self._record_result(batch, {batch.leads[0].lead_id: str(error.response)})
            return
        self._record_failure(batch, f"too large alone: {error.response}", may_exist=False)
        raise error

    def _means_success(self, batch: ClaimedBatch, shape: int) -> bool:
        """Return whether a success of this shape means that the vendor created the whole batch.

        It is learned from a few leads of a batch, which lookups show, and once a day again. While
        they do not show, the batch is in doubt.
        """
        with self._shape_lock:
            if self._success_shapes is None:
                self._success_shapes = self._load_success_shapes()
            if shape not in self._success_shapes:
                sample = [lead.lead_id for lead in batch.leads[:: -(-len(batch.leads) // _SAMPLE)]]
                if not self._in_doubt.are_shown(sample):
                    return False
                self._success_shapes.add(shape)
                self.run.write(suspects.record_success_shape, self.run.campaign.campaign_id, shape)
            return True

    def _load_success_shapes(self) -> set[int]:
        known = self.run.write(suspects.get_success_shape, self.run.campaign.campaign_id)
        return set() if known is None else {known}

    def _record_outage(self, error: ApiError) -> None:
        """Have a read come before the next create; and one lead be created first in the next run.

        If a read failed, leads are in doubt, with which the next run begins.
        """
        self._has_failed = True
        if error.call is not ApiCall.READ:
            self._must_record_accepted = True
            self.run.write(suspects.record_outage, self.run.campaign.campaign_id)

    def _record_failure(self, batch: ClaimedBatch, reason: str, *, may_exist: bool) -> None:
        """Record a create that failed, for a reason that may be one of its leads."""
        # Two in a row: the attempts count this one after it is raised.
        self._are_failing = self._are_failing or self._attempts.has_failed
        self._has_failed = True
        with self._result_lock:
            self._failed_creates += 1
        fate = "in doubt, and looked up later" if may_exist else "sent again after all others"
        self.run.log_step("a create of %s failed: %s", format_count(len(batch.leads), "lead"), fate)
        rejected = self.run.write(
            suspects.record_failure,
            self._claimer.claim_ref(batch),
            reason,
            may_exist=may_exist,
            settle_s=self.run.campaign.settle_s,
        )
        # Only now: what another sender records in the meantime is older than this failure.
        self._must_record_accepted = True
        self._add_rejected(dict.fromkeys(rejected, reason))

    def _record_result(self, batch: ClaimedBatch, rejected: Mapping[str, str]) -> None:
        """Record a batch as created, except for rejected leads.

        A duplicate counts as created. If the reason merely may mean a duplicate, a lookup decides.

        Raises:
            RunError: MAX_ALIKE leads in a row were rejected for the same reason: the vendor
                rejects the campaign.
        """
        reasons = {
            lead.lead_id: redact_reason(
                rejected[lead.lead_id],
                lead.e164,
                lead.contact_name,
                extract_custom_texts(lead.body.decode()),
            )
            for lead in batch.leads
            if lead.lead_id in rejected
            and not is_duplicate_reason(rejected[lead.lead_id], lead.lead_id)
        }
        unclear = {key for key in reasons if may_be_duplicate_reason(rejected[key])}
        for lead in batch.leads:
            if lead.lead_id in unclear:
                reason = f"exists already? {reasons[lead.lead_id]}"
                self._record_failure(batch.narrow_to([lead]), reason, may_exist=True)
        created = batch.without_leads(reasons)
        if created.leads:
            self._record_created(created)
            self._remember_probe_lead(created.leads[-1])
            batch.parts.record_accepted(batch.leads)
            self._limits.record_accepted(batch.leads)
        self._add_counts(created=len(created.leads))
        refused = {key: reason for key, reason in reasons.items() if key not in unclear}
        self._claimer.reject_leads(batch, refused, was_sent=True)
        self._has_result = True
        self._attempts.reset()
        if created.leads:
            self._rejection_streak.reset()
        elif alike := self._rejection_streak.add_rejections(reasons.items()):
            self._requeue_rejected(alike, reasons)

    def _record_created(self, created: ClaimedBatch) -> None:
        """Record, once after each failure, that creates work; then record leads as created.

        In this order, since failures of a lone lead count only beside a create that worked. Not in
        one transaction, in which an opt-out would wait for the campaign's row.
        """
        must_record_accepted, self._must_record_accepted = self._must_record_accepted, False
        try:
            if must_record_accepted:
                self.run.write(suspects.record_accepted, self.run.campaign.campaign_id)
        finally:
            # Whatever became of the first: these leads exist at the vendor.
            self.run.context.database.retry(
                partial(leads.record_created, claim=self._claimer.claim_ref(created)),
                single_statement=True,
            )
        self._has_failed = self._are_failing = False
        self._lone_failures = 0

    def _requeue_rejected(self, alike: Sequence[str], reasons: Mapping[str, str]) -> NoReturn:
        """Make the rejected leads of a rejection streak `new` again, and fail the run.

        They go to the end of the queue, so that they delay no other lead if the leads, and not the
        campaign, were the reason.
        """
        stored = self._get_reasons(alike)
        requeued = self.run.write(
            leads.requeue_rejected,
            campaign_id=self.run.campaign.campaign_id,
            run_id=self.run.run_id,
            lead_ids=alike,
        )
        self._rejections.remove_leads(
            {lead_id: stored.get(lead_id, _UNKNOWN_REASON) for lead_id in requeued}
        )
        left = len(alike) - len(requeued)
        raise RunError(
            f"the vendor rejected {MAX_ALIKE} leads in a row for the same reason"
            f" ({next(iter(reasons.values()))}); {len(requeued)} are new again, at the end of the"
            f" queue, and {left} are in doubt: check"
            " that the campaign is open and that the leads have all fields that it requires, then"
            " run `leadloop push` again"
        )

    def _remember_probe_lead(self, lead: PreparedLead) -> None:
        """Store a created lead as the probe lead, with which lookups of leads in doubt are tested.

        Once a chunk: this keeps the probe lead recent, and senders do not wait for the row's lock.
        """
        if not self._probe_lead_stored:
            self._probe_lead_stored = True
            self.run.write(
                campaigns.remember_probe_lead, self.run.campaign.campaign_id, lead.lead_id
            )

    def _isolate_rejected(self, batch: ClaimedBatch, error: Rejected) -> None:
        """Record the leads whose result the response states and send the rest; else bisect.

        A lead that is rejected alone becomes `rejected`.
        """
        if len(batch.leads) == 1:
            reason = extract_reason(error.body) or str(error.response)
            self._record_result(batch, {batch.leads[0].lead_id: reason})
            return
        self._log_split(batch, error)
        rejected = error.batch_result.rejected
        if rejected:
            rest = batch.without_leads(rejected)
            with self._claimer.release_on_error(rest):
                self._record_result(_select_stated(batch, error.batch_result), rejected)
            self._send_reclaimed(rest)
        else:
            self._send_halves(batch)

    def _log_split(self, batch: ClaimedBatch, error: ApiError) -> None:
        self.run.log_step(
            "the vendor refused a batch of %s (%s): such batches are sent in parts, so that"
            " one lead holds up no other",
            *(format_count(len(batch.leads), "lead"), error.response),
        )

    def _send_halves(self, batch: ClaimedBatch) -> None:
        """Bisect a batch and send each half in its own request."""
        first, second = batch.split_in_half()
        with self._claimer.release_on_error(second):
            self._send_reclaimed(first)
        self._send_reclaimed(second)

    def _send_reclaimed(self, batch: ClaimedBatch) -> None:
        """Send claimed leads in another request, if they may still be sent."""
        if batch.leads:
            self._send_batch(self._claimer.reclaim(batch))

    def list_rejections(self) -> list[dict[str, Any]]:
        """Return what this push rejected, a row a reason, the most frequent one first.

        The keys are those of the view `leadloop_monitor.rejections`.
        """
        return [
            {"reason": reason, "leads": group.leads, "sample_lead_ids": group.lead_ids}
            for reason, group in self._rejections.list_groups().items()
        ]

    def _get_reasons(self, lead_ids: Sequence[str]) -> dict[str, str]:
        return self.run.write(leads.get_reasons, self.run.campaign.campaign_id, lead_ids)

    def _add_rejected(self, reasons: Mapping[str, str]) -> None:
        """Count rejected leads; `reasons` by lead id, redacted."""
        self._rejections.add_leads(reasons)
        self._show_progress(len(reasons))

    def _add_counts(self, **amounts: int) -> None:
        self._counters.add(**amounts)
        self._show_progress(sum(amounts.values()))

    def _show_progress(self, done: int) -> None:
        self._listener.advance(self._label, done)
        self.run.log_progress(self._counters.counts() | {"rejected": self._rejections.total})


def _may_be_outage(error: ApiError) -> bool:
    """Return whether the vendor may be out of order: no response, or a gateway's in its place.

    A create that a gateway answers so is InDoubt, but for a 503 that asks for a pause. A 429 comes
    from a vendor that works.
    """
    return isinstance(error, Retryable) and error.response.status in (None, 502, 503, 504)


def _may_be_a_lead(error: ApiError) -> bool:
    """Return whether a create that was not carried out may have been refused because of one lead.

    A firewall answers one lead with an HTML page. The vendor's reasons in JSON are believed, but
    for a 413, which ends up here only if no other part of the batch has passed.
    """
    response = error.response
    return isinstance(error, TooLarge) or (
        not isinstance(error, Rejected | RateLimited)
        and not isinstance(response.body, dict | list)
        and 400 <= (response.status or 0) < 500
        and may_blame_content(response)
    )


def _select_stated(batch: ClaimedBatch, result: BatchResult) -> ClaimedBatch:
    """Return the part of the batch whose result the response states."""
    stated = result.accepted | result.rejected.keys()
    return batch.narrow_to([lead for lead in batch.leads if lead.lead_id in stated])


@dataclass
class _ChunkState:
    """The state that the senders of one chunk share."""

    batches_left: int
    has_started: bool = False
    is_drained: bool = False
    lock: Lock = field(default_factory=Lock)


def start_push(run: CampaignRun[ApiContext], *, quota: LeadQuota | None = None) -> PushJob:
    """Return the campaign's push job; first make its leads follow its source, if it has one.

    Args:
        run: the campaign's run.
        quota: the leads that the run may send; None: all.
    """
    return PushJob(run, synced=_follow_source(run), quota=quota)


def start_named_push(
    run: CampaignRun[ApiContext],
    *,
    lead_ids: Sequence[str],
    alter: Callable[[PreparedLead], PreparedLead] = lambda lead: lead,
) -> PushJob:
    """Return the job that pushes these leads alone, where they are fresh; see `start_push`.

    `alter` changes each lead before it is sent.
    """
    return PushJob(
        run,
        synced=_follow_source(run),
        scope=PushScope.NAMED,
        quota=LeadQuota(left=len(lead_ids)),
        lead_ids=lead_ids,
        alter=alter,
    )


def _follow_source(run: CampaignRun[ApiContext]) -> SyncCounts | None:
    if run.campaign.source is None:
        return None
    return run.context.host.run_step(
        "take-from-source", [run.campaign.campaign_id], partial(sync_source, run)
    )


def start_urgent_push(run: CampaignRun[ApiContext]) -> PushJob:
    """Return the job that pushes the campaign's urgent leads alone, without a sync of its source.

    Another push looks up leads in doubt and sends suspects: urgent ones do not wait for these.
    """
    return PushJob(run, scope=PushScope.URGENT)


def start_few_push(run: CampaignRun[ApiContext]) -> PushJob:
    """Return the job that pushes a few fresh leads; another one sends what is left."""
    return PushJob(run, scope=PushScope.FEW)


def add_rejections(summary: Summary, jobs: Iterable[PushJob]) -> None:
    """Add to each campaign's summary what its push rejected, as `rejections`."""
    for counts in summary["campaigns"].values():
        counts["rejections"] = []
    for job in jobs:
        campaign = summary["campaigns"][job.run.campaign.campaign_id]
        campaign["rejections"] = job.list_rejections()


# Batches a chunk: a minute at the creates' share of the rate limit. Between two chunks nothing is
# sent for some hundredths of a second: at 20 batches a chunk, a tenth of a push to a vendor without
# latency.
PUSH = JobSpec(
    flow="push-leads",
    task="push-batches",
    counts=(
        "created",
        "rejected",
        "in_doubt",
        "not_looked_up",
        "settling",
        "suspects",
        "cancelled",
        "from_source",
        "unreadable_rows",
        "held_back",
    ),
    open_context=open_api_context,
    start=start_push,
    find_due=ask_database(due_work.find_campaigns_to_push),
    min_chunk=60,
)
#: The push of urgent leads, beside a push of all leads.
URGENT_PUSH = replace(PUSH, start=start_urgent_push)
#: The push of fresh leads that fit in one request: two, if the vendor takes fewer in one.
FEW_PUSH = replace(PUSH, start=start_few_push, min_chunk=2)


def limit_push(limit: int) -> JobSpec[ApiContext]:
    """Return the spec of a push that sends up to `limit` leads, over all its campaigns.

    Raises:
        UsageError: the limit is below 1.
    """
    if limit < 1:
        raise UsageError("`limit` is the most leads that this push sends: 1 or more")
    return replace(PUSH, start=partial(start_push, quota=LeadQuota(left=limit)))
