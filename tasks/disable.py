"""The steps of a disable: cancel what was never sent, have the vendor stop the rest.

A disable may be repeated without harm, so it is sent until it is confirmed; where one lead makes a
list fail, the list is halved down to that lead, and all others are confirmed in the same run.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain

from db import erasure, leads, opt_outs
from leadloop.client.errors import ApiError, Refused, Resend, Stopped, TooLarge
from leadloop.core.batch_response import vendors_words, words
from leadloop.core.errors import RunError, TryLater
from leadloop.core.isolation import MAX_FAILURES, MAX_SUSPECTS, Isolation, halve
from leadloop.core.leads import InvalidLead, Lead, custom_texts, e164
from leadloop.core.progress import watcher
from leadloop.core.verdicts import UNREADABLE, Failure, may_blame_content
from tasks.context import CampaignRun, Counters
from tasks.in_doubt import Doubts
from tasks.rejection_streak import MOST_ALIKE, Refusals
from tasks.retries import FruitlessAttempts, pause_before_retry, retry_later, step

#: How often a lead that the vendor refuses is tried before it is reported as failed.
MOST_TRIES = 3
# Nobody knows any more what of the vendor's words is personal.
_OF_FORGOTTEN = "vendor: refused, in words that are not kept: the lead is forgotten"
_CAMPAIGN_UNKNOWN = "the vendor does not know the campaign (404)"

# A share for each step: opt-outs of leads whose fate is known do not wait for lookups.
_LOOKUPS_AT_ONCE = 20


class _CampaignUnknown(Exception):
    """The vendor answers 404 to a read of the campaign too."""


@step("disable-batches")
def disable_batches(disable: "DisableJob", most: int) -> bool:
    """Send up to `most` batches of a campaign's opt-outs; True while there may be more."""
    return disable.run_chunk(most)


class DisableJob:
    """One campaign's opt-outs, oldest first."""

    def __init__(self, run: CampaignRun) -> None:
        self.run = run
        self.counters = Counters("disabled", "cancelled", "failed")
        self._doubts = Doubts(run)
        self._attempts = FruitlessAttempts()
        self._batch_size = run.campaign.batch_size
        self._refusals = Refusals()
        self._tried: list[str] = []
        self._unsure: list[str] = []
        # Lists of which a part fails, each with all the leads that it began with.
        self._failing: dict[Isolation, list[str]] = {}
        self._set_aside_count = 0
        self._has_answered = False
        self._has_campaign = False
        self._watcher = watcher.get()

    def run_chunk(self, most: int) -> bool:
        """Cancel what was never sent, then send up to `most` batches; True while there is more.

        Raises:
            TryLater: the vendor did not answer, or refused some that will be tried again.
            RunError: the vendor refuses us.
        """
        try:
            self._cancel_unsent()
            more = self._send_up_to(most)
            more = self._resolve_doubts() or more
        except _CampaignUnknown:
            return self._fail_all()
        except Resend as error:
            raise retry_later(self.run, self._attempts, error) from None
        except ApiError as error:
            raise RunError(str(error)) from None
        if not more:
            self._require_no_refusals()
            self._require_an_answer()
        return more

    def counts(self) -> dict[str, int]:
        """The contract's counts."""
        return self.counters.counts()

    def _resolve_doubts(self) -> bool:
        """Settle leads in doubt that opted out; True while there may be more to do.

        Who was not created is cancelled next, who was, told. They are disabled before that too, but
        no confirmation counts while they are in doubt.
        """
        try:
            looked_up = self._doubts.resolve_some(_LOOKUPS_AT_ONCE, opted_out=True)
        except Resend as error:
            name = self.run.campaign.campaign_id
            self.run.context.log.warning("campaign %s: lookups put off: %s", name, error)
            return False
        self._unsure = [each for each in self._unsure if each not in looked_up.settled]
        return looked_up.more

    def _cancel_unsent(self) -> None:
        campaign_id = self.run.campaign.campaign_id
        self.run.context.database.insist(lambda c: leads.date_unanswered(c, campaign_id))
        cancelled = self.run.context.database.insist(
            lambda c: opt_outs.cancel_unsent(c, campaign_id)
        )
        self._count(cancelled=cancelled)

    def _send_up_to(self, most: int) -> bool:
        """Send what waits, then what has failed and is due again; isolate last what failed now.

        After each failure of an isolation the turn ends: the vendor may hang on it, and other
        campaigns have opt-outs too.
        """
        for _ in range(most):
            if due := self._due("requested"):
                self._send(Isolation(due))
            elif due := self._due("failed"):
                # Suspected already: no failure of theirs is taken for noise.
                self._send(Isolation(due, max_failures=1))
            elif not self._failing:
                return False
            elif not self._isolate():
                return True
        return True

    def _due(self, status: str) -> list[str]:
        with self.run.context.database.begin() as connection:
            return opt_outs.next_due(
                connection,
                campaign_id=self.run.campaign.campaign_id,
                status=status,
                most=self._batch_size,
                tried=[*self._tried, *self._unsure, *chain(*self._failing.values())],
            )

    def _send(self, isolation: Isolation) -> None:
        """Disable these; where that fails, they are isolated once the others have been sent."""
        lead_ids = list(isolation.next_list)
        if not self._advance(isolation):
            self._failing[isolation] = lead_ids

    def _isolate(self) -> bool:
        """Go on with the first list that failed, up to its next failure. False where it failed."""
        isolation = next(iter(self._failing))
        if isolation.failures:
            pause_before_retry(isolation.failures)
        if not self._advance(isolation):
            return False
        del self._failing[isolation]
        return True

    def _advance(self, isolation: Isolation) -> bool:
        """Send lists until one fails (False) or all are done; set aside those that are accused.

        Raises:
            ApiError: a failure that is not about these leads.
            RunError: the vendor fails on everything.
        """
        while isolation.next_list or isolation.needs_probe:
            if isolation.needs_probe:
                self._probe(isolation)
            elif not self._send_list(isolation):
                return False
        self._set_aside(isolation.accuse_rest(), isolation.reason)
        return True

    def _send_list(self, isolation: Isolation) -> bool:
        """Send the next list and record what came of it. False where it failed."""
        lead_ids = isolation.next_list
        try:
            reading = self.run.context.api.disable(self.run.campaign.campaign_id, lead_ids)
        except Refused as error:
            if error.answer.status == 404 and not error.reading.refused:
                self._require_campaign()
            self._narrow_down(isolation, error)
        except ApiError as error:
            if not may_blame_content(error.answer):
                raise
            isolation.record_failure(str(error.answer))
            is_silent = error.answer.failure is Failure.NO_ANSWER
            if is_silent and not isolation.failures and not self._has_answered:
                # Each try that is not answered takes a minute: see that anything is, before more.
                self._retry_failing(self._read_campaign)
            return False
        else:
            self._has_answered = True
            self._record(lead_ids, reading.refused)
            self._set_aside(isolation.record_success(), isolation.reason)
        return True

    def _narrow_down(self, isolation: Isolation, error: Refused) -> None:
        """Split a list that the vendor refuses in words of its own."""
        self._has_answered = True
        lead_ids, named = isolation.next_list, error.reading.refused
        if isinstance(error, TooLarge) and len(lead_ids) > 1:
            self._batch_size = min(self._batch_size, len(lead_ids) // 2)
        if len(lead_ids) == 1:
            isolation.replace([])
            self._record(lead_ids, {lead_ids[0]: words(error.body) or str(error.answer)})
        elif named:
            isolation.replace([[lead_id for lead_id in lead_ids if lead_id not in named]])
            self._record(list(named), named)
        else:
            isolation.replace(halve(lead_ids))

    def _probe(self, isolation: Isolation) -> None:
        """See that the vendor works for something unsuspected, and accuse the suspects then.

        A disable that it has confirmed before, sent again, is the proof. Where there is none, a
        read of the campaign has to do for a few suspects: disables may be out of order as a whole.

        Raises:
            RunError: the vendor fails on that too, or on so many that nobody in particular is at
                fault. The suspects go behind all others.
        """
        campaign_id = self.run.campaign.campaign_id
        with self.run.context.database.begin() as connection:
            confirmed = opt_outs.confirmed_last(connection, campaign_id)
        try:
            if confirmed is not None:
                self._retry_failing(lambda: self.run.context.api.disable(campaign_id, [confirmed]))
                self._has_answered = True
            else:
                self._retry_failing(self._read_campaign)
                if len(isolation.suspects) >= MAX_SUSPECTS:
                    raise self._outage(isolation.reason)
                if isolation.next_list:
                    isolation.keep_suspects()
                    return
        except RunError:
            self.run.context.database.insist(
                lambda c: opt_outs.postpone(c, campaign_id, isolation.suspects)
            )
            raise
        self._set_aside(isolation.record_probe_success(), isolation.reason)

    def _retry_failing(self, request: Callable[[], object]) -> None:
        """Send a request that is not suspected, up to MAX_FAILURES times.

        Raises:
            RunError: it fails each time.
        """
        failure = ""
        for failures in range(1, MAX_FAILURES + 1):
            try:
                request()
            except Refused:
                return
            except ApiError as error:
                if not may_blame_content(error.answer):
                    raise
                failure = str(error.answer)
                pause_before_retry(failures)
            else:
                return
        raise self._outage(failure)

    def _outage(self, failure: str) -> RunError:
        return RunError(
            f"the vendor fails on all opt-outs, not on single ones ({failure}): they stay"
            " requested, and the next run sends them again"
        )

    def _require_campaign(self) -> None:
        """Tell a lead that the vendor lacks from a campaign that it lacks: once a run.

        Raises:
            _CampaignUnknown: a read of the campaign is answered 404 too.
        """
        if self._has_campaign:
            return
        try:
            self._read_campaign()
        except Stopped as error:
            # A page in HTML is anybody's word, and an address that is wrong.
            if error.answer.status == 404 and error.answer.body is not UNREADABLE:
                raise _CampaignUnknown from None
            raise
        self._has_campaign = True

    def _read_campaign(self) -> None:
        self.run.context.api.everything(self.run.campaign.campaign_id, page=1, page_size=1)

    def _fail_all(self) -> bool:
        """Mark all that are due `failed`, to be tried again at least daily."""
        self._failing.clear()
        campaign_id = self.run.campaign.campaign_id
        failed = self.run.context.database.insist(
            lambda c: opt_outs.fail_all(c, campaign_id, _CAMPAIGN_UNKNOWN, most_tries=MOST_TRIES)
        )
        self._count(failed=failed)
        self.run.context.log.warning(
            "campaign %s: %s, so %d opt-outs cannot be confirmed; they are tried again, at least"
            " daily",
            *(campaign_id, _CAMPAIGN_UNKNOWN, failed),
        )
        return False

    def _set_aside(self, lead_ids: Sequence[str], failure: str) -> None:
        """Mark opt-outs `failed` on which the vendor fails; each is tried again, at least daily."""
        if not lead_ids:
            return
        campaign_id = self.run.campaign.campaign_id
        reason = f"the vendor fails on it, and not on others: {failure}"
        self.run.context.database.insist(
            lambda c: opt_outs.set_aside(
                c,
                campaign_id=campaign_id,
                lead_ids=lead_ids,
                reason=reason,
                most_tries=MOST_TRIES,
            )
        )
        self._tried += lead_ids
        self._set_aside_count += len(lead_ids)
        self._count(failed=len(lead_ids))
        self.run.context.log.warning(
            "campaign %s: the vendor fails on the opt-out of %s (%s); it is tried again, at least"
            " daily",
            *(campaign_id, ", ".join(lead_ids), failure),
        )

    def _require_an_answer(self) -> None:
        """Raise RunError where opt-outs were set aside and the vendor accepted or refused none."""
        if self._set_aside_count and not self._has_answered:
            raise RunError(
                f"the vendor fails on {self._set_aside_count} opt-outs and took no other; each is"
                " tried again, at least daily: `leadloop status` names them"
            )

    def _record(self, lead_ids: Sequence[str], refused: Mapping[str, str]) -> None:
        """What the vendor said of each.

        Raises:
            RunError: it refuses one after the other with the same words: it means the campaign.
        """
        campaign_id = self.run.campaign.campaign_id
        confirmed = [lead_id for lead_id in lead_ids if lead_id not in refused]
        database = self.run.context.database
        settle_s = self.run.campaign.settle_s
        disabled = database.insist(
            lambda c: opt_outs.confirm(c, campaign_id, confirmed, settle_s=settle_s)
        )
        reasons = self._in_the_vendors_words(refused)
        with database.begin() as connection:
            failed = opt_outs.refuse(
                connection,
                campaign_id=campaign_id,
                reasons=reasons,
                most_tries=MOST_TRIES,
                settle_s=settle_s,
            )
        self._tried += reasons
        if disabled < len(confirmed):
            self._unsure += confirmed
        self._count(disabled=disabled, failed=failed)
        if confirmed or failed:
            self._attempts.reset()
        if confirmed:
            self._refusals.forget()
        elif self._refusals.add(reasons.items()):
            raise RunError(
                f"{MOST_ALIKE} opt-outs in a row were refused with the same words"
                f" ({next(iter(reasons.values()))}): is the campaign open, and does the vendor know"
                " these leads? The next run tries others first"
            )

    def _in_the_vendors_words(self, refused: Mapping[str, str]) -> dict[str, str]:
        """Why the vendor refused them, without what it repeats of them."""
        if not refused:
            return {}
        campaign = self.run.campaign
        with self.run.context.database.begin() as connection:
            people = leads.people(connection, campaign.campaign_id, list(refused))
            # After their names: whoever is forgotten in between is known by either.
            forgotten = erasure.forgotten(connection, campaign.campaign_id, list(refused))
        known = {lead.lead_id: _private(lead, campaign.default_region) for lead in people}
        return {
            lead_id: _OF_FORGOTTEN
            if lead_id in forgotten
            else vendors_words(reason, *known.get(lead_id, (None, None, [])))
            for lead_id, reason in refused.items()
        }

    def _require_no_refusals(self) -> None:
        """Have those that were refused and are not given up tried once more, after a pause.

        Raises:
            TryLater: there are such.
        """
        tried, self._tried = self._tried, []
        with self.run.context.database.begin() as connection:
            again = opt_outs.still_requested(
                connection,
                self.run.campaign.campaign_id,
                tried,
                settle_s=self.run.campaign.settle_s,
            )
        if again:
            raise self._again(again)

    def _again(self, amount: int) -> TryLater:
        return self._attempts.record_failure(f"{amount} opt-outs were refused and are tried again")

    def _count(self, **amounts: int) -> None:
        self.counters.add(**amounts)
        self._watcher.done(f"disable {self.run.campaign.campaign_id}", sum(amounts.values()))


def _private(lead: Lead, region: str) -> tuple[str | None, str | None, list[str]]:
    """What must not be repeated of a lead: number, name, what its custom fields hold."""
    try:
        number: str | None = e164(lead.phone_number or "", region)
    except InvalidLead:
        number = lead.phone_number
    return number, lead.contact_name, custom_texts(lead.custom_fields)
