"""The steps of a disable: cancel what was never sent, have the vendor stop the rest.

A disable may be repeated without harm, so it is sent until it is confirmed; where one lead makes a
list fail, the list is halved down to that lead, and all others are confirmed in the same run.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain

from db import campaigns, erasure, leads, opt_outs
from leadloop.client.errors import ApiError, Fatal, Rejected, Retryable, TooLarge
from leadloop.core.batch_response import extract_reason, redact_reason
from leadloop.core.errors import RunError
from leadloop.core.isolation import MAX_FAILURES, MAX_SUSPECTS, Isolation, split_in_half
from leadloop.core.leads import InvalidLead, Lead, extract_custom_texts, format_e164
from leadloop.core.progress import progress_listener
from leadloop.core.verdicts import UNREADABLE, TransportFailure, may_blame_content
from tasks.context import ApiContext, CampaignRun, open_api_context
from tasks.counters import Counters
from tasks.in_doubt import InDoubtResolver
from tasks.jobs import DONE, MORE, ChunkResult, JobSpec, due_in
from tasks.rejection_streak import MAX_ALIKE, RejectionStreak
from tasks.retries import FruitlessAttempts, pause_before_retry, retry_later

#: How often a lead that the vendor refuses is tried before it is reported as failed.
MAX_ATTEMPTS = 3
# Nobody knows any more what of the vendor's words is personal.
_REASON_OF_ERASED = "vendor: refused, in words that are not kept: the lead is forgotten"
_CAMPAIGN_UNKNOWN = "the vendor does not know the campaign (404)"

# A share for each step: opt-outs of leads whose fate is known do not wait for lookups.
_LOOKUP_LIMIT = 20


class _CampaignUnknown(Exception):
    """The vendor answers 404 to a read of the campaign too."""


class DisableJob:
    """One campaign's opt-outs, oldest first."""

    def __init__(self, run: CampaignRun[ApiContext]) -> None:
        self.run = run
        self._counters = Counters("disabled", "cancelled", "failed")
        self._in_doubt = InDoubtResolver(run)
        self._attempts = FruitlessAttempts()
        self._batch_size = run.campaign.batch_size
        self._rejection_streak = RejectionStreak()
        self._attempted: list[str] = []
        self._unconfirmed: list[str] = []
        # Lists of which a part fails, each with all the leads that it began with.
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
            self._cancel_unsent()
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
        """Raise RunError where opt-outs were marked failed and the vendor confirmed no other."""
        if self._marked_failed_count and not self._api_has_answered:
            raise RunError(
                f"the vendor fails on {self._marked_failed_count} opt-outs and took no other; each"
                " is tried again, at least daily: `leadloop status` names them"
            )

    def counts(self) -> dict[str, int]:
        """The contract's counts."""
        return self._counters.counts()

    def _resolve_in_doubt(self) -> bool:
        """Settle leads in doubt that opted out; True while there may be more to do.

        Who was not created is cancelled next, who was, told. They are disabled before that too, but
        no confirmation counts while they are in doubt.
        """
        try:
            looked_up = self._in_doubt.resolve(_LOOKUP_LIMIT, opted_out=True)
        except Retryable as error:
            name = self.run.campaign.campaign_id
            self.run.context.log.warning("campaign %s: lookups put off: %s", name, error)
            return False
        self._unconfirmed = [each for each in self._unconfirmed if each not in looked_up.settled]
        return looked_up.has_more

    def _cancel_unsent(self) -> None:
        campaign_id = self.run.campaign.campaign_id
        self.run.write(leads.start_settle_time, campaign_id)
        cancelled = self.run.write(opt_outs.cancel_unsent, campaign_id)
        self._add_counts(cancelled=cancelled)

    def _send_lists(self, limit: int) -> bool:
        """Send what waits, then what has failed and is due again; isolate last what failed now.

        After each failure of an isolation the turn ends: the vendor may hang on it, and other
        campaigns have opt-outs too.
        """
        for _ in range(limit):
            if due := self._load_due("requested"):
                self._send_or_suspect(Isolation(due))
            elif due := self._load_due("failed"):
                # Suspected already: no failure of theirs is taken for noise.
                self._send_or_suspect(Isolation(due, max_failures=1))
            elif not self._failing_lists:
                return False
            elif not self._continue_isolation():
                return True
        return True

    def _load_due(self, status: str) -> list[str]:
        with self.run.context.database.transaction() as connection:
            return opt_outs.pick_due(
                connection,
                campaign_id=self.run.campaign.campaign_id,
                status=status,
                limit=self._batch_size,
                exclude=[
                    *self._attempted,
                    *self._unconfirmed,
                    *chain(*self._failing_lists.values()),
                ],
            )

    def _send_or_suspect(self, isolation: Isolation) -> None:
        """Disable these; where that fails, they are isolated once the others have been sent."""
        lead_ids = list(isolation.next_list)
        if not self._advance_isolation(isolation):
            self._failing_lists[isolation] = lead_ids

    def _continue_isolation(self) -> bool:
        """Go on with the first list that failed, up to its next failure. False where it failed."""
        isolation = next(iter(self._failing_lists))
        if isolation.failures:
            pause_before_retry(isolation.failures)
        if not self._advance_isolation(isolation):
            return False
        del self._failing_lists[isolation]
        return True

    def _advance_isolation(self, isolation: Isolation) -> bool:
        """Send lists until one fails (False) or all are done; set aside those that are accused.

        Raises:
            ApiError: a failure that is not about these leads.
            RunError: the vendor fails on everything.
        """
        while isolation.next_list or isolation.needs_probe:
            if isolation.needs_probe:
                self._probe_api(isolation)
            elif not self._send_list(isolation):
                return False
        self._mark_failed(isolation.accuse_rest(), isolation.reason)
        return True

    def _send_list(self, isolation: Isolation) -> bool:
        """Send the next list and record what came of it. False where it failed."""
        lead_ids = isolation.next_list
        try:
            reading = self.run.context.api.disable(self.run.campaign.campaign_id, lead_ids)
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
                # Each try that is not answered takes a minute: see that anything is, before more.
                self._retry_unsuspected(self._request_campaign)
            return False
        else:
            self._api_has_answered = True
            self._record_result(lead_ids, reading.rejected)
            self._mark_failed(isolation.record_success(), isolation.reason)
        return True

    def _split_rejected(self, isolation: Isolation, error: Rejected) -> None:
        """Split a list that the vendor refuses in words of its own."""
        self._api_has_answered = True
        lead_ids, named = isolation.next_list, error.batch_result.rejected
        if isinstance(error, TooLarge) and len(lead_ids) > 1:
            self._batch_size = min(self._batch_size, len(lead_ids) // 2)
        if len(lead_ids) == 1:
            isolation.replace_list([])
            self._record_result(
                lead_ids, {lead_ids[0]: extract_reason(error.body) or str(error.response)}
            )
        elif named:
            isolation.replace_list([[lead_id for lead_id in lead_ids if lead_id not in named]])
            self._record_result(list(named), named)
        else:
            isolation.replace_list(split_in_half(lead_ids))

    def _probe_api(self, isolation: Isolation) -> None:
        """See that the vendor works for something unsuspected, and accuse the suspects then.

        A disable that it has confirmed before, sent again, is the proof. Where there is none, a
        read of the campaign has to do for a few suspects: disables may be out of order as a whole.

        Raises:
            RunError: the vendor fails on that too, or on so many that nobody in particular is at
                fault. The suspects go behind all others.
        """
        campaign_id = self.run.campaign.campaign_id
        with self.run.context.database.transaction() as connection:
            confirmed = opt_outs.find_last_confirmed(connection, campaign_id)
        try:
            if confirmed is not None:
                self._retry_unsuspected(
                    lambda: self.run.context.api.disable(campaign_id, [confirmed])
                )
                self._api_has_answered = True
            else:
                self._retry_unsuspected(self._request_campaign)
                if len(isolation.suspects) >= MAX_SUSPECTS:
                    raise self._make_outage_error(isolation.reason)
                if isolation.next_list:
                    isolation.keep_suspects()
                    return
        except RunError:
            self.run.write(opt_outs.move_to_back, campaign_id, isolation.suspects)
            raise
        self._mark_failed(isolation.record_probe_success(), isolation.reason)

    def _retry_unsuspected(self, request: Callable[[], object]) -> None:
        """Send a request that is not suspected, up to MAX_FAILURES times.

        Raises:
            RunError: it fails each time.
        """
        failure = ""
        for failures in range(1, MAX_FAILURES + 1):
            try:
                request()
            except Rejected:
                return
            except ApiError as error:
                if not may_blame_content(error.response):
                    raise
                failure = str(error.response)
                pause_before_retry(failures)
            else:
                return
        raise self._make_outage_error(failure)

    def _make_outage_error(self, failure: str) -> RunError:
        return RunError(
            f"the vendor fails on all opt-outs, not on single ones ({failure}): they stay"
            " requested, and the next run sends them again"
        )

    def _check_campaign_exists(self) -> None:
        """Tell a lead that the vendor lacks from a campaign that it lacks: once a run.

        Raises:
            _CampaignUnknown: a read of the campaign is answered 404 too.
        """
        if self._campaign_exists:
            return
        try:
            self._request_campaign()
        except Fatal as error:
            # A page in HTML is anybody's word, and an address that is wrong.
            if error.response.status == 404 and error.response.body is not UNREADABLE:
                raise _CampaignUnknown from None
            raise
        self._campaign_exists = True

    def _request_campaign(self) -> None:
        self.run.context.api.list_all(self.run.campaign.campaign_id, page=1, page_size=1)

    def _mark_all_failed(self) -> None:
        """Mark all that are due `failed`, to be tried again at least daily."""
        self._failing_lists.clear()
        campaign_id = self.run.campaign.campaign_id
        failed = self.run.write(
            opt_outs.fail_all_due, campaign_id, _CAMPAIGN_UNKNOWN, max_attempts=MAX_ATTEMPTS
        )
        self._add_counts(failed=failed)
        self.run.context.log.warning(
            "campaign %s: %s, so %d opt-outs cannot be confirmed; they are tried again, at least"
            " daily",
            *(campaign_id, _CAMPAIGN_UNKNOWN, failed),
        )

    def _mark_failed(self, lead_ids: Sequence[str], failure: str) -> None:
        """Mark opt-outs `failed` on which the vendor fails; each is tried again, at least daily."""
        if not lead_ids:
            return
        campaign_id = self.run.campaign.campaign_id
        reason = f"the vendor fails on it, and not on others: {failure}"
        self.run.write(
            opt_outs.mark_failed,
            campaign_id=campaign_id,
            lead_ids=lead_ids,
            reason=reason,
            max_attempts=MAX_ATTEMPTS,
        )
        self._attempted += lead_ids
        self._marked_failed_count += len(lead_ids)
        self._add_counts(failed=len(lead_ids))
        self.run.context.log.warning(
            "campaign %s: the vendor fails on the opt-out of %s (%s); it is tried again, at least"
            " daily",
            *(campaign_id, ", ".join(lead_ids), failure),
        )

    def _record_result(self, lead_ids: Sequence[str], refused: Mapping[str, str]) -> None:
        """What the vendor said of each.

        Raises:
            RunError: it refuses one after the other with the same words: it means the campaign.
        """
        campaign_id = self.run.campaign.campaign_id
        confirmed = [lead_id for lead_id in lead_ids if lead_id not in refused]
        database = self.run.context.database
        settle_s = self.run.campaign.settle_s
        disabled = database.retry(
            lambda c: opt_outs.confirm_disabled(c, campaign_id, confirmed, settle_s=settle_s)
        )
        reasons = self._redact_reasons(refused)
        with database.transaction() as connection:
            failed = opt_outs.record_refused(
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
                f"{MAX_ALIKE} opt-outs in a row were refused with the same words"
                f" ({next(iter(reasons.values()))}): is the campaign open, and does the vendor know"
                " these leads? The next run tries others first"
            )

    def _redact_reasons(self, refused: Mapping[str, str]) -> dict[str, str]:
        """Why the vendor refused them, without what it repeats of them."""
        if not refused:
            return {}
        campaign = self.run.campaign
        with self.run.context.database.transaction() as connection:
            people = leads.list_personal_fields(connection, campaign.campaign_id, list(refused))
            # After their names: whoever is forgotten in between is known by either.
            forgotten = erasure.find_forgotten(connection, campaign.campaign_id, list(refused))
        known = {lead.lead_id: _personal_values(lead, campaign.default_region) for lead in people}
        return {
            lead_id: _REASON_OF_ERASED
            if lead_id in forgotten
            else redact_reason(reason, *known.get(lead_id, (None, None, [])))
            for lead_id, reason in refused.items()
        }

    def _retry_rejected(self) -> ChunkResult:
        """Return when rejected opt-outs that are not given up are due again; DONE without any.

        Raises:
            RunError: the vendor rejected opt-outs repeatedly.
        """
        tried, self._attempted = self._attempted, []
        with self.run.context.database.transaction() as connection:
            again = opt_outs.count_retriable(
                connection,
                self.run.campaign.campaign_id,
                tried,
                settle_s=self.run.campaign.settle_s,
            )
        if not again:
            return DONE
        return due_in(
            self._attempts.record_failure(f"{again} opt-outs were refused and are tried again")
        )

    def _add_counts(self, **amounts: int) -> None:
        self._counters.add(**amounts)
        self._listener.advance(f"disable {self.run.campaign.campaign_id}", sum(amounts.values()))


def _personal_values(lead: Lead, region: str) -> tuple[str | None, str | None, list[str]]:
    """What must not be repeated of a lead: number, name, what its custom fields hold."""
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
