"""The disable job: cancel leads that were never sent, and disable the others at the vendor.

A disable is idempotent, so it is sent until the vendor confirms it. If one lead makes a list fail,
in any way, the list is bisected down to that lead (`leadloop.core.disable_bisection`), and all
others are confirmed in the same run.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain

from db import campaigns, due_work, erasure, in_doubt, leads, opt_outs
from db.database import DatabaseError
from db.opt_outs import OpenOptOuts
from leadloop.client.errors import ApiError, RateLimited, Rejected, Retryable, TooLarge
from leadloop.core.batch_response import (
    extract_reason,
    redact_reason,
    redact_reason_of_unknown,
)
from leadloop.core.boot_clock import read_boot_clock
from leadloop.core.disable_bisection import MAX_CANDIDATES, Isolation, split_list
from leadloop.core.errors import InvalidLead, RunError
from leadloop.core.leads import Lead, extract_custom_texts
from leadloop.core.phones import format_e164
from leadloop.core.plurals import format_count
from leadloop.core.progress import progress_listener
from leadloop.core.rate_ring import Purpose
from leadloop.core.verdicts import ApiCall, ApiResponse, may_blame_content
from tasks.context import ApiContext, CampaignRun, open_api_context
from tasks.counters import Counters
from tasks.disable_probes import CampaignUnknown, DisableProbes
from tasks.in_doubt import InDoubtResolver
from tasks.jobs import DONE, MORE, ChunkResult, JobSpec, ask_database, due_in
from tasks.opt_out_sync import OptOutReadJob, take_opt_outs
from tasks.rejection_streak import MAX_ALIKE, RejectionStreak
from tasks.retries import FruitlessAttempts, pause_before_retry, retry_later
from tasks.unserved_sources import read_unserved_sources

#: The number of attempts after which a rejected opt-out becomes `failed`.
MAX_ATTEMPTS = 3
# The personal data of an erased lead is gone, so its reason can no longer be redacted.
_REASON_OF_ERASED = "vendor: rejected, for a reason that is not kept: the lead is erased"
_TOO_LARGE = str(ApiResponse(status=413))
_CAMPAIGN_UNKNOWN = "the vendor does not know the campaign (404)"

# The most lookups a chunk, so that a chunk ends, and other campaigns get their turn.
_LOOKUP_LIMIT = 20
# The least pause for want of slots, as a part of the vendor's period.
_LEAST_PAUSE = 1 / 20


class DisableJob:
    """One campaign's disable: its opt-outs, oldest first.

    Args:
        run: the campaign's run.
        take: takes new opt-outs from the campaign's opt-out source, after those on record, which a
            source that is slow or locked must not hold up; returns their number.
    """

    def __init__(
        self, run: CampaignRun[ApiContext], *, take: Callable[[], int] | None = None
    ) -> None:
        self.run = run
        self._take = take
        self._has_had_turn = False
        self._take_error: RunError | None = None
        self._campaign_id = run.campaign.campaign_id
        self._api = run.context.api
        self._counters = Counters("disabled", "cancelled", "failed", "from_opt_out_source")
        self._in_doubt = InDoubtResolver(run)
        self._attempts = FruitlessAttempts()
        # The most opt-outs of a list that the vendor takes, as far as this run has learned it.
        self._learned_limit = sys.maxsize
        self._probes = DisableProbes(run)
        self._rejection_streak = RejectionStreak()
        self._attempted: list[str] = []
        self._unconfirmed: list[str] = []
        # Lists that are not done, each with all lead ids that it had at first.
        self._open_lists: dict[Isolation, list[str]] = {}
        self._marked_failed_count = 0
        # When the last request left, seconds of the boot clock; None: the run has sent none.
        self._sent_at: float | None = None
        self._listener = progress_listener.get()
        if run.steps is not None and run.steps.has_each:
            run.log_step("%s to carry out", format_count(self._count_open().due, "opt-out"))

    def run_chunk(self, limit: int) -> ChunkResult:
        """Cancel leads that were never sent, then send up to `limit` lists of opt-outs.

        Raises:
            RunError: the vendor rejects the login, or fails on everything. The message counts the
                opt-outs that are due.
        """
        try:
            return self._try_chunk(limit)
        except CampaignUnknown:
            self._take_from_source()
            self._mark_all_failed()
            return DONE
        except RunError as error:
            if not isinstance(error, DatabaseError):
                self._take_from_source()
            due = self._defer_open_lists()
            raise RunError(f"{error}; opt-outs due and not confirmed: {due:,}") from None

    def finish(self) -> None:
        """Check that the vendor responded to any opt-out, if some were marked failed.

        Raises:
            RunError: the vendor failed on some opt-outs, and confirmed or rejected no other. A few
                that fail where it confirms an earlier one again are no reason. Or the campaign's
                opt-out source could not be read.
        """
        are_few = self._marked_failed_count < MAX_CANDIDATES and self._probes.has_repeated
        if self._marked_failed_count and not self._probes.has_answered and not are_few:
            raise RunError(
                f"the vendor fails on {format_count(self._marked_failed_count, 'opt-out')} and took"
                " no other; each is failed, and tried again, at least daily: `leadloop status`"
                " counts them, docs/how-to/handle-stuck-leads.md has the query that lists them"
            )
        if self._take_error is not None:
            raise self._take_error

    def counts(self) -> dict[str, int]:
        """Return the counts of docs/reference/exit-codes-and-json.md."""
        left = self._count_open()
        return {**self._counters.counts(), "set_aside": left.set_aside, "in_doubt": left.in_doubt}

    def _try_chunk(self, limit: int) -> ChunkResult:
        self.run.write(in_doubt.start_settle_time, self._campaign_id)
        self._add_counts(cancelled=self.run.write(opt_outs.cancel_unsent, self._campaign_id))
        try:
            if self._send_lists(limit) or self._resolve_in_doubt():
                return self._wait_for_spare()
        except Retryable as error:
            # Not about an opt-out: no connection, no login, or the rate limit.
            if isinstance(error, RateLimited) or self._probes.disables.probe_after_failure(error):
                return retry_later(self.run, self._attempts, error)
            return MORE
        except ApiError as error:
            raise RunError(str(error)) from None
        if self._waits_for_turn():
            return MORE
        return MORE if self._take_from_source() else self._retry_rejected()

    def _waits_for_turn(self) -> bool:
        """Return whether the source is to be read only in the next turn.

        It may be slow or locked: opt-outs on record in other campaigns get a turn before.
        """
        has_had_turn, self._has_had_turn = self._has_had_turn, True
        return not has_had_turn and self._take is not None and self._names_source()

    def _names_source(self) -> bool:
        return self.run.campaign.opt_out_source is not None

    def _take_from_source(self) -> int:
        """Take new opt-outs from the campaign's own table, once a run; return their number.

        If the table cannot be read, the run goes on, and fails at its end.
        """
        take, self._take = self._take, None
        if take is None or not self._names_source():
            return 0
        try:
            taken = take()
        except DatabaseError:
            raise
        except RunError as error:
            self._take_error = error
            return 0
        self._counters.add(from_opt_out_source=taken)
        return taken

    def _send_lists(self, limit: int) -> bool:
        """Send up to `limit` lists; return whether more is to be sent.

        Requested opt-outs come first, then failed ones that are due again, and then lists that
        failed in this run. A retry that fails ends the chunk: the vendor may time out on it, while
        other campaigns have opt-outs too.
        """
        for _ in range(limit):
            if self._find_spare_delay():
                return bool(self._open_lists or self._load_next())
            if (isolation := self._start_list()) is not None:
                self._advance_isolation(isolation)
            elif self._open_lists:
                isolation = max(self._open_lists, key=_is_too_large)
                if isolation.failures:
                    pause_before_retry(isolation.failures)
                if not self._advance_isolation(isolation):
                    return True
            else:
                return False
        return True

    def _start_list(self) -> Isolation | None:
        """Start the next list; None if there is none, or the size of lists is to be found first."""
        if any(map(_is_too_large, self._open_lists)):
            return None
        due = self._load_next()
        if not due:
            return None
        isolation = Isolation(due)
        self._open_lists[isolation] = due
        return isolation

    def _load_next(self) -> list[str]:
        """Return the opt-outs of the next list that is not open."""
        return self._load_due("requested") or self._load_due("failed")

    def _load_due(self, status: str) -> list[str]:
        """Return the next due opt-outs of a status that this run has not attempted."""
        limit = min(self.run.refresh().batch_size, self._learned_limit)
        with self.run.context.database.transaction() as connection:
            return opt_outs.pick_due(
                connection,
                campaign_id=self._campaign_id,
                status=status,
                limit=limit,
                exclude=[
                    *self._attempted,
                    *self._unconfirmed,
                    *chain(*self._open_lists.values()),
                ],
            )

    def _advance_isolation(self, isolation: Isolation) -> bool:
        """Send the lists of an isolation until one fails; return whether all are done.

        Raises:
            ApiError: a failure whose cause is not the content of the list.
            RunError: the vendor fails on all opt-outs.
        """
        while isolation.next_list or isolation.needs_probe:
            if self._find_spare_delay():
                return False
            if isolation.needs_probe:
                self._check_candidates(isolation)
            elif not self._send_list(isolation):
                return False
        if isolation.passing_size and _is_too_large(isolation):
            self._learned_limit = min(self._learned_limit, isolation.passing_size)
        del self._open_lists[isolation]
        return True

    def _send_list(self, isolation: Isolation) -> bool:
        """Send the next list of an isolation and record the result; return whether it succeeded."""
        lead_ids = isolation.next_list
        self._sent_at = read_boot_clock()
        try:
            result = self._api.disable(
                self._campaign_id, lead_ids, numeric_ids=self.run.campaign.numeric_lead_ids
            )
        except ApiError as error:
            if isinstance(error, Rejected) and not isinstance(error, TooLarge):
                self._split_rejected(isolation, error)
                return True
            if error.call is not ApiCall.DISABLE or not may_blame_content(error.response):
                raise
            if self._probes.disables.probe_after_failure(error):
                self._log_refusal(lead_ids, error)
                isolation.record_failure(str(error.response))
            elif isinstance(error, RateLimited):
                raise
            return False
        self._probes.record_answer()
        self._record_result(lead_ids, result.rejected)
        self._mark_failed(isolation.record_success(), isolation.reason)
        return True

    def _log_refusal(self, lead_ids: Sequence[str], error: ApiError) -> None:
        if len(lead_ids) > 1:
            self.run.log_step(
                "the vendor refused a list of %d opt-outs (%s): such lists are sent in parts, so"
                " that one opt-out holds up no other",
                *(len(lead_ids), error.response),
            )

    def _find_spare_delay(self) -> float:
        """Return in how many seconds the run may send: at once if it has not sent any request.

        Others' first requests come before its further ones, but if they take all slots for good, it
        sends a request a period: none waits indefinitely.
        """
        if self._sent_at is None:
            return 0.0
        limiter = self.run.context.limiter
        turn_s = self._sent_at + limiter.period_s - read_boot_clock()
        return max(0.0, min(turn_s, limiter.list_spare_waits()[0]))

    def _wait_for_spare(self) -> ChunkResult:
        """Return when the next chunk is due: not for each slot, as Prefect keeps each chunk."""
        delay_s = self._find_spare_delay()
        if not delay_s:
            return MORE
        least_s = self.run.context.limiter.period_s * _LEAST_PAUSE
        if delay_s > least_s:
            self.run.log_step("waiting %.0f s: other runs use the rate limit", delay_s)
        return due_in(max(delay_s, least_s))

    def _split_rejected(self, isolation: Isolation, error: Rejected) -> None:
        """Split a rejected list by the leads that the vendor names, or bisect the list."""
        lead_ids, named = isolation.next_list, error.batch_result.rejected
        self._log_refusal(lead_ids, error)
        if error.response.status == 404 and not named:
            self._probes.check_campaign_exists()
        self._probes.record_answer()
        if len(lead_ids) == 1:
            isolation.replace_list([])
            self._record_result(
                lead_ids, {lead_ids[0]: extract_reason(error.body) or str(error.response)}
            )
        elif named:
            isolation.replace_list([[lead_id for lead_id in lead_ids if lead_id not in named]])
            self._record_result(list(named), named)
        else:
            isolation.replace_list(split_list(lead_ids))

    def _check_candidates(self, isolation: Isolation) -> None:
        """Mark the candidates failed if the vendor works for another request.

        A read of the campaign proves less than a disable, so it counts for few candidates.

        Raises:
            RunError: the vendor does not respond, or the number of candidates shows that it fails
                on all opt-outs.
        """
        takes_disables = self._probes.find_confirmed() is not None
        if not self._probes.disables.probe_now():
            isolation.retry_candidates()
        elif not takes_disables and len(isolation.candidates) >= MAX_CANDIDATES:
            raise RunError(
                f"the vendor fails on all opt-outs: {len(isolation.candidates)} failed one by one"
                f" ({isolation.reason}), and none was confirmed; they are not set aside, and the"
                " next run sends them again: check the vendor's status, then `leadloop disable`"
            )
        elif not takes_disables and isolation.next_list:
            isolation.defer_probe()
        else:
            self._mark_failed(isolation.take_candidates(), isolation.reason)

    def _resolve_in_doubt(self) -> bool:
        """Look up leads in doubt that opted out; return whether more may be due.

        The next chunk cancels leads that were not created, and disables leads that were. Leads in
        doubt are also disabled before, but a confirmation counts only once the lead is created.

        Raises:
            RunError: the vendor answers no read. All opt-outs have been sent before.
        """
        if not self._in_doubt.count_due(opted_out=True):
            return False
        if self._find_spare_delay():
            return True
        spare = sum(wait_s <= 0 for wait_s in self.run.context.limiter.list_spare_waits())
        self._sent_at = read_boot_clock()
        try:
            resolved = self._in_doubt.resolve(min(max(spare, 1), _LOOKUP_LIMIT), opted_out=True)
        except Retryable as error:
            fails_alone = self._probes.reads.probe_after_failure(error)
            if isinstance(error, RateLimited) and not fails_alone:
                raise
            self.run.warn("lookups failed: %s", error)
            return True
        self._probes.reads.record_success()
        self._unconfirmed = [each for each in self._unconfirmed if each not in resolved.settled]
        return resolved.has_more

    def _mark_all_failed(self) -> None:
        """Mark all due opt-outs `failed`; each is retried at least daily."""
        self._open_lists.clear()
        # No run fails because the vendor does not know the campaign (docs/delivery.md).
        self._marked_failed_count = 0
        failed = self.run.write(
            opt_outs.fail_all_due, self._campaign_id, _CAMPAIGN_UNKNOWN, max_attempts=MAX_ATTEMPTS
        )
        self._add_counts(failed=failed)
        self.run.warn(
            "%s, so %s failed, and retried at least daily",
            *(_CAMPAIGN_UNKNOWN, format_count(failed, "opt-out is", "opt-outs are")),
        )

    def _mark_failed(self, lead_ids: Sequence[str], failure: str) -> None:
        """Mark opt-outs `failed` on which the vendor fails; each is retried at least daily."""
        if not lead_ids:
            return
        self.run.write(
            opt_outs.mark_failed,
            campaign_id=self._campaign_id,
            lead_ids=lead_ids,
            reason=f"the vendor fails on it, and not on others: {failure}",
            max_attempts=MAX_ATTEMPTS,
        )
        self._attempted += lead_ids
        self._marked_failed_count += len(lead_ids)
        self._add_counts(failed=len(lead_ids))
        self.run.warn(
            "the vendor fails on the opt-out of %s (%s); it is failed and retried at least daily",
            *(", ".join(lead_ids), failure),
        )

    def _record_result(self, lead_ids: Sequence[str], rejected: Mapping[str, str]) -> None:
        """Record a list as disabled, except for rejected leads; `rejected`: reasons by lead id.

        Raises:
            RunError: MAX_ALIKE opt-outs in a row were rejected for the same reason: the vendor
                rejects the campaign, and also a disable that it has confirmed.
        """
        confirmed = [lead_id for lead_id in lead_ids if lead_id not in rejected]
        database = self.run.context.database
        settle_s = self.run.campaign.settle_s
        disabled = database.retry(
            lambda c: opt_outs.confirm_disabled(c, self._campaign_id, confirmed, settle_s=settle_s)
        )
        reasons = self._redact_reasons(rejected)
        with database.transaction() as connection:
            failed = opt_outs.record_disable_rejections(
                connection,
                campaign_id=self._campaign_id,
                reasons=reasons,
                max_attempts=MAX_ATTEMPTS,
                settle_s=settle_s,
            )
        self._attempted += reasons
        if disabled < len(confirmed):
            self._unconfirmed += confirmed
        self._add_counts(disabled=disabled, failed=failed)
        if confirmed or failed:
            self._attempts.reset()
        if confirmed:
            self._rejection_streak.reset()
        elif self._rejection_streak.add_rejections(reasons.items()):
            if self._probes.takes_confirmed():
                self._rejection_streak.reset()
                return
            raise RunError(
                f"the vendor rejected {MAX_ALIKE} opt-outs in a row for the same reason"
                f" ({next(iter(reasons.values()))}); they stay requested, and the next run sends"
                " others first: check that the campaign is open and that the vendor has these leads"
            )

    def _redact_reasons(self, rejected: Mapping[str, str]) -> dict[str, str]:
        """Return the vendor's reasons by lead id, without the personal data that they repeat."""
        if not rejected:
            return {}
        campaign = self.run.campaign
        with self.run.context.database.transaction() as connection:
            people = leads.list_personal_fields(connection, campaign.campaign_id, list(rejected))
            # After the personal fields: a lead erased in between is then known to one of the two.
            erased = erasure.find_forgotten(connection, campaign.campaign_id, list(rejected))
        known = {lead.lead_id: _personal_values(lead, campaign.default_region) for lead in people}
        return {
            lead_id: _REASON_OF_ERASED
            if lead_id in erased
            else redact_reason(reason, *known[lead_id])
            if lead_id in known
            else redact_reason_of_unknown(reason)
            for lead_id, reason in rejected.items()
        }

    def _retry_rejected(self) -> ChunkResult:
        """Return when rejected opt-outs with attempts left are due again; DONE without any.

        Raises:
            RunError: the vendor rejected opt-outs repeatedly, without any progress.
        """
        attempted, self._attempted = self._attempted, []
        with self.run.context.database.transaction() as connection:
            again = opt_outs.count_retriable(
                connection,
                self._campaign_id,
                attempted,
                settle_s=self.run.campaign.settle_s,
            )
        if not again:
            return DONE
        reason = f"the vendor rejected {format_count(again, 'opt-out')}; the next run tries again"
        return due_in(self._attempts.record_failure(reason))

    def _defer_open_lists(self) -> int:
        """Move what failed last to the end of the queue; return how many opt-outs are due."""
        deferred = [
            lead_id for each in self._open_lists for lead_id in each.candidates or each.next_list
        ]
        self.run.write(opt_outs.move_to_back, self._campaign_id, deferred)
        return self._count_open().due

    def _count_open(self) -> OpenOptOuts:
        settle_s = self.run.campaign.settle_s
        return self.run.write(opt_outs.count_open, self._campaign_id, settle_s=settle_s)

    def _add_counts(self, **amounts: int) -> None:
        self._counters.add(**amounts)
        self._listener.advance(f"disable {self._campaign_id}", sum(amounts.values()))
        self.run.log_progress(self._counters.counts())


def _is_too_large(isolation: Isolation) -> bool:
    return isolation.reason == _TOO_LARGE


def _personal_values(lead: Lead, region: str) -> tuple[str | None, str | None, list[str]]:
    """Return the personal data of a lead: number, name, and the texts of its custom fields."""
    try:
        number: str | None = format_e164(lead.phone_number or "", region)
    except InvalidLead:
        number = lead.phone_number
    return number, lead.contact_name, extract_custom_texts(lead.custom_fields)


def start_disable(run: CampaignRun[ApiContext]) -> DisableJob:
    """Return the campaign's disable, which also takes new opt-outs from its opt-out source."""
    return DisableJob(run, take=partial(take_opt_outs, run))


DISABLE = JobSpec(
    flow="disable-leads",
    task="disable-batches",
    counts=("disabled", "cancelled", "failed", "set_aside", "in_doubt", "from_opt_out_source"),
    open_context=partial(open_api_context, purpose=Purpose.OPT_OUTS),
    start=start_disable,
    select=campaigns.select_for_disable,
    find_due=ask_database(due_work.find_campaigns_to_disable),
    finish_all=read_unserved_sources,
)
#: The part of a disable that only takes new opt-outs from the campaign's opt-out source.
READ_OPT_OUTS = replace(DISABLE, task="read-opt-outs", start=OptOutReadJob)
