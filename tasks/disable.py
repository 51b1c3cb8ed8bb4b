"""The disable job: cancel leads that were never sent, and disable the others at the vendor.

A disable is idempotent, so it is sent until the vendor confirms it. If one lead makes a list fail,
the list is bisected down to that lead (`leadloop.core.isolation`), and all others are confirmed
in the same run.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import chain

from db import campaigns, erasure, leads, opt_outs
from leadloop.client.errors import ApiError, Fatal, Rejected, Retryable, TooLarge
from leadloop.core.addresses import hide_credentials
from leadloop.core.batch_response import extract_reason, redact_reason
from leadloop.core.errors import InvalidLead, RunError
from leadloop.core.isolation import MAX_CANDIDATES, MAX_FAILURES, Isolation, split_list
from leadloop.core.leads import Lead, extract_custom_texts
from leadloop.core.phones import format_e164
from leadloop.core.progress import progress_listener
from leadloop.core.verdicts import UNREADABLE, TransportFailure, may_blame_content
from tasks.context import ApiContext, CampaignRun, open_api_context
from tasks.counters import Counters
from tasks.in_doubt import InDoubtResolver
from tasks.jobs import DONE, MORE, ChunkResult, JobSpec, due_in
from tasks.outages import OUTAGE_S
from tasks.rejection_streak import MAX_ALIKE, RejectionStreak
from tasks.retries import FruitlessAttempts, pause_before_retry, retry_later

#: The number of attempts after which a rejected opt-out becomes `failed`.
MAX_ATTEMPTS = 3
# The personal data of an erased lead is gone, so its reason can no longer be redacted.
_REASON_OF_ERASED = "vendor: rejected, for a reason that is not kept: the lead is erased"
_CAMPAIGN_UNKNOWN = "the vendor does not know the campaign (404)"

# Lookups a chunk: a small number, so that opt-outs of created leads do not wait for lookups.
_LOOKUP_LIMIT = 20


class _CampaignUnknown(Exception):
    """The vendor also answers 404 to a read of the campaign."""


class DisableJob:
    """One campaign's disable: its opt-outs, oldest first."""

    def __init__(self, run: CampaignRun[ApiContext]) -> None:
        self.run = run
        self._counters = Counters("disabled", "cancelled", "failed")
        self._in_doubt = InDoubtResolver(run)
        self._attempts = FruitlessAttempts()
        # The most opt-outs of a list that the vendor takes, as far as this run has learned it.
        self._learned_limit = sys.maxsize
        self._rejection_streak = RejectionStreak()
        self._attempted: list[str] = []
        self._unconfirmed: list[str] = []
        # Lists with a failing part, each with all lead ids of the original list.
        self._failing_lists: dict[Isolation, list[str]] = {}
        self._marked_failed_count = 0
        self._api_has_answered = False
        self._campaign_exists = False
        self._listener = progress_listener.get()

    def run_chunk(self, limit: int) -> ChunkResult:
        """Cancel leads that were never sent, then send up to `limit` lists of opt-outs.

        Raises:
            RunError: the vendor rejects the login, or fails repeatedly.
        """
        try:
            campaign_id = self.run.campaign.campaign_id
            self.run.write(leads.start_settle_time, campaign_id)
            self._add_counts(cancelled=self.run.write(opt_outs.cancel_unsent, campaign_id))
            more = self._send_lists(limit)
            more = self._resolve_in_doubt() or more
        except _CampaignUnknown:
            self._mark_all_failed()
            return DONE
        except Retryable as error:
            return retry_later(self.run, self._attempts, error)
        except ApiError as error:
            raise RunError(str(error)) from None
        return MORE if more else self._retry_rejected()

    def finish(self) -> None:
        """Check that the vendor responded to any opt-out, if some were marked failed.

        Raises:
            RunError: the vendor failed on some opt-outs, and confirmed or rejected no other.
        """
        if self._marked_failed_count and not self._api_has_answered:
            raise RunError(
                f"the vendor fails on {self._marked_failed_count} opt-outs and took no other; each"
                " is tried again, at least daily: `leadloop status` names them"
            )

    def counts(self) -> dict[str, int]:
        """Return the counts of docs/reference/exit-codes-and-json.md."""
        return self._counters.counts()

    def _resolve_in_doubt(self) -> bool:
        """Look up leads in doubt that opted out; return whether more may be due.

        The next chunk cancels leads that were not created, and disables leads that were. Leads in
        doubt are also disabled before, but a confirmation counts only once the lead is created.
        """
        try:
            resolved = self._in_doubt.resolve(_LOOKUP_LIMIT, opted_out=True)
        except Retryable as error:
            self.run.warn("lookups postponed: %s", error)
            return False
        self._unconfirmed = [each for each in self._unconfirmed if each not in resolved.settled]
        return resolved.has_more

    def _send_lists(self, limit: int) -> bool:
        """Send up to `limit` lists; return whether more is to be sent.

        Requested opt-outs come first, then failed ones that are due again, and then the isolation
        of lists that failed in this run. Each failure of an isolation ends the chunk: the vendor
        may time out on it, while other campaigns have opt-outs too.
        """
        for _ in range(limit):
            if due := self._load_due("requested"):
                self._start_isolation(Isolation(due))
            elif due := self._load_due("failed"):
                # These opt-outs have failed alone before, so one failure is enough.
                self._start_isolation(Isolation(due, max_failures=1))
            elif not self._failing_lists:
                return False
            else:
                isolation = next(iter(self._failing_lists))
                if isolation.failures:
                    pause_before_retry(isolation.failures)
                if not self._advance_isolation(isolation):
                    return True
                del self._failing_lists[isolation]
        return True

    def _load_due(self, status: str) -> list[str]:
        """Return the next due opt-outs of a status that this run has not attempted."""
        limit = min(self.run.refresh().batch_size, self._learned_limit)
        with self.run.context.database.transaction() as connection:
            return opt_outs.pick_due(
                connection,
                campaign_id=self.run.campaign.campaign_id,
                status=status,
                limit=limit,
                exclude=[
                    *self._attempted,
                    *self._unconfirmed,
                    *chain(*self._failing_lists.values()),
                ],
            )

    def _start_isolation(self, isolation: Isolation) -> None:
        """Send a new list; if it fails, its isolation goes on after all other lists."""
        lead_ids = list(isolation.next_list)
        if not self._advance_isolation(isolation):
            self._failing_lists[isolation] = lead_ids

    def _advance_isolation(self, isolation: Isolation) -> bool:
        """Send the lists of an isolation until one fails; return whether all are done.

        Leads that the isolation marks as the cause become failed.

        Raises:
            ApiError: a failure whose cause is not the content of the list.
            RunError: the vendor fails on all opt-outs.
        """
        while isolation.next_list or isolation.needs_probe:
            if isolation.needs_probe:
                self._probe_api(isolation)
            elif not self._send_list(isolation):
                return False
        self._mark_failed(isolation.mark_rest(), isolation.reason)
        return True

    def _send_list(self, isolation: Isolation) -> bool:
        """Send the next list of an isolation and record the result; return whether it succeeded."""
        lead_ids = isolation.next_list
        try:
            result = self.run.context.api.disable(self.run.campaign.campaign_id, lead_ids)
        except Rejected as error:
            if error.response.status == 404 and not error.batch_result.rejected:
                self._check_campaign_exists()
            self._split_rejected(isolation, error)
        except ApiError as error:
            if not may_blame_content(error.response):
                raise
            isolation.record_failure(str(error.response))
            is_silent = error.response.failure is TransportFailure.NO_RESPONSE
            if is_silent and not isolation.failures and not self._api_has_answered:
                # Each attempt without a response takes a minute: first check that the API responds.
                self._retry_probe(self._request_campaign)
            return False
        else:
            self._api_has_answered = True
            self._record_result(lead_ids, result.rejected)
            self._mark_failed(isolation.record_success(), isolation.reason)
        return True

    def _split_rejected(self, isolation: Isolation, error: Rejected) -> None:
        """Split a rejected list by the leads that the vendor names, or bisect the list."""
        self._api_has_answered = True
        lead_ids, named = isolation.next_list, error.batch_result.rejected
        if isinstance(error, TooLarge) and len(lead_ids) > 1:
            self._learned_limit = min(self._learned_limit, len(lead_ids) // 2)
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

    def _probe_api(self, isolation: Isolation) -> None:
        """Check that the vendor works for another request, and then mark the candidates failed.

        The probe repeats a disable that the vendor has confirmed. Without one, the probe reads the
        campaign. That proves less, since all disables may fail, so it counts for few candidates.

        Raises:
            RunError: the probe fails too, or the number of candidates shows that the vendor fails
                on all opt-outs. The candidates move to the end of the queue.
        """
        campaign_id = self.run.campaign.campaign_id
        with self.run.context.database.transaction() as connection:
            confirmed = opt_outs.find_last_confirmed(connection, campaign_id)
        try:
            if confirmed is not None:
                self._retry_probe(lambda: self.run.context.api.disable(campaign_id, [confirmed]))
                self._api_has_answered = True
            else:
                self._retry_probe(self._request_campaign)
                if len(isolation.candidates) >= MAX_CANDIDATES:
                    raise self._make_outage_error(isolation.reason)
                if isolation.next_list:
                    isolation.defer_probe()
                    return
        except RunError:
            self.run.write(opt_outs.move_to_back, campaign_id, isolation.candidates)
            raise
        self._mark_failed(isolation.record_probe_success(), isolation.reason)

    def _retry_probe(self, request: Callable[[], object]) -> None:
        """Send a request that should succeed, up to MAX_FAILURES times; a read retries itself.

        Raises:
            RunError: the request failed each time, or took OUTAGE_S without a response.
        """
        failures, lost_s = 0, 0.0
        while True:
            try:
                request()
            except Rejected:
                return
            except ApiError as error:
                if not may_blame_content(error.response):
                    raise
                failures += error.attempts
                lost_s += error.took_s
                if failures >= MAX_FAILURES or lost_s >= OUTAGE_S:
                    raise self._make_outage_error(str(error.response)) from None
            else:
                return
            pause_before_retry(failures)

    def _make_outage_error(self, failure: str) -> RunError:
        address = hide_credentials(self.run.context.settings.api_url)
        return RunError(
            f"the vendor at {address} fails on all opt-outs, not on single ones ({failure}); they"
            " stay requested, and the next run sends them again: check LEADLOOP_API_URL, the"
            " network and the vendor's status"
        )

    def _check_campaign_exists(self) -> None:
        """Check once a run whether a 404 is about a lead or about the campaign.

        Raises:
            _CampaignUnknown: the vendor also answers 404 to a read of the campaign.
        """
        if self._campaign_exists:
            return
        try:
            self._request_campaign()
        except Fatal as error:
            # An HTML page may come from any server, behind a wrong address.
            if error.response.status == 404 and error.response.body is not UNREADABLE:
                raise _CampaignUnknown from None
            raise
        self._campaign_exists = True

    def _request_campaign(self) -> None:
        self.run.context.api.list_all(self.run.campaign.campaign_id, page=1, page_size=1)

    def _mark_all_failed(self) -> None:
        """Mark all due opt-outs `failed`; each is retried at least daily."""
        self._failing_lists.clear()
        # No run fails because the vendor does not know the campaign (docs/delivery.md).
        self._marked_failed_count = 0
        campaign_id = self.run.campaign.campaign_id
        failed = self.run.write(
            opt_outs.fail_all_due, campaign_id, _CAMPAIGN_UNKNOWN, max_attempts=MAX_ATTEMPTS
        )
        self._add_counts(failed=failed)
        self.run.warn(
            "%s, so %d opt-outs cannot be confirmed; they are failed and retried at least daily",
            *(_CAMPAIGN_UNKNOWN, failed),
        )

    def _mark_failed(self, lead_ids: Sequence[str], failure: str) -> None:
        """Mark opt-outs `failed` on which the vendor fails; each is retried at least daily."""
        if not lead_ids:
            return
        self.run.write(
            opt_outs.mark_failed,
            campaign_id=self.run.campaign.campaign_id,
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
                rejects the campaign.
        """
        campaign_id = self.run.campaign.campaign_id
        confirmed = [lead_id for lead_id in lead_ids if lead_id not in rejected]
        database = self.run.context.database
        settle_s = self.run.campaign.settle_s
        disabled = database.retry(
            lambda c: opt_outs.confirm_disabled(c, campaign_id, confirmed, settle_s=settle_s)
        )
        reasons = self._redact_reasons(rejected)
        with database.transaction() as connection:
            failed = opt_outs.record_disable_rejections(
                connection,
                campaign_id=campaign_id,
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
            else redact_reason(reason, *known.get(lead_id, (None, None, [])))
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
                self.run.campaign.campaign_id,
                attempted,
                settle_s=self.run.campaign.settle_s,
            )
        if not again:
            return DONE
        reason = f"the vendor rejected {again} opt-outs; the next run sends them again"
        return due_in(self._attempts.record_failure(reason))

    def _add_counts(self, **amounts: int) -> None:
        self._counters.add(**amounts)
        self._listener.advance(f"disable {self.run.campaign.campaign_id}", sum(amounts.values()))


def _personal_values(lead: Lead, region: str) -> tuple[str | None, str | None, list[str]]:
    """Return the personal data of a lead: number, name, and the texts of its custom fields."""
    try:
        number: str | None = format_e164(lead.phone_number or "", region)
    except InvalidLead:
        number = lead.phone_number
    return number, lead.contact_name, extract_custom_texts(lead.custom_fields)


DISABLE = JobSpec(
    flow="disable-leads",
    task="disable-batches",
    counts=("disabled", "cancelled", "failed"),
    open_context=open_api_context,
    start=DisableJob,
    select=campaigns.select_for_disable,
)
