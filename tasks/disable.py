"""The steps of a disable: cancel what was never sent, have the vendor stop the rest.

A disable may be repeated without harm, so it is simply sent until it is confirmed.
"""

from collections.abc import Mapping, Sequence

from db import forgetting, leads, opt_outs
from leadloop.client.errors import ApiError, Refused, Resend, TooLarge
from leadloop.core.errors import RunError, TryLater
from leadloop.core.leads import InvalidLead, Lead, custom_texts, e164
from leadloop.core.progress import watcher
from leadloop.core.receipts import vendors_words, words
from tasks.doubts import Doubts
from tasks.refusals import MOST_ALIKE, Refusals
from tasks.retrying import Patience, step, try_later
from tasks.workplace import Run, Tally

#: How often a lead that the vendor refuses is tried before it is reported as failed.
MOST_TRIES = 3
# Nobody knows any more what of the vendor's words is personal.
_OF_FORGOTTEN = "vendor: refused, in words that are not kept: the lead is forgotten"

# A share for each step: opt-outs of leads whose fate is known do not wait for lookups.
_LOOKUPS_AT_ONCE = 20


@step("disable-batches")
def disable_batches(disable: "Disable", most: int) -> bool:
    """Send up to `most` batches of a campaign's opt-outs; True while there may be more."""
    return disable.some(most)


class Disable:
    """One campaign's opt-outs, oldest first."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.tally = Tally("disabled", "cancelled", "failed")
        self._doubts = Doubts(run)
        self._patience = Patience()
        self._batch_size = run.campaign.batch_size
        self._refusals = Refusals()
        self._tried: list[str] = []
        self._unsure: list[str] = []
        self._watcher = watcher.get()

    def some(self, most: int) -> bool:
        """Cancel what was never sent, then send up to `most` batches; True while there is more.

        Raises:
            TryLater: the vendor did not answer, or refused some that will be tried again.
            RunError: the vendor refuses us.
        """
        try:
            self._cancel_unsent()
            more = self._send_up_to(most)
            more = self._resolve_doubts() or more
        except Resend as error:
            raise try_later(self.run, self._patience, error) from None
        except ApiError as error:
            raise RunError(str(error)) from None
        if not more:
            self._require_no_refusals()
        return more

    def counts(self) -> dict[str, int]:
        """The contract's counts."""
        return self.tally.counts()

    def _resolve_doubts(self) -> bool:
        """Settle leads in doubt that opted out; True while there may be more to do.

        Who was not created is cancelled next, who was, told. They are disabled before that too, but
        no confirmation counts while they are in doubt.
        """
        try:
            looked_up = self._doubts.resolve_some(_LOOKUPS_AT_ONCE, opted_out=True)
        except Resend as error:
            name = self.run.campaign.campaign_id
            self.run.place.log.warning("campaign %s: lookups put off: %s", name, error)
            return False
        self._unsure = [each for each in self._unsure if each not in looked_up.settled]
        return looked_up.more

    def _cancel_unsent(self) -> None:
        campaign_id = self.run.campaign.campaign_id
        cancelled = self.run.place.database.insist(lambda c: opt_outs.cancel_unsent(c, campaign_id))
        self._count(cancelled=cancelled)

    def _send_up_to(self, most: int) -> bool:
        """Those that wait, then those that have failed and are due again."""
        for _ in range(most):
            due = self._due("requested") or self._due("failed")
            if not due:
                return False
            self._send(due)
        return True

    def _due(self, status: str) -> list[str]:
        with self.run.place.database.begin() as connection:
            return opt_outs.next_due(
                connection,
                campaign_id=self.run.campaign.campaign_id,
                status=status,
                most=self._batch_size,
                tried=[*self._tried, *self._unsure],
            )

    def _send(self, lead_ids: Sequence[str]) -> None:
        """Disable these; where the vendor refuses a list, find out whom it means."""
        try:
            reading = self.run.place.api.disable(self.run.campaign.campaign_id, lead_ids)
        except Refused as error:
            if isinstance(error, TooLarge) and len(lead_ids) > 1:
                self._batch_size = min(self._batch_size, len(lead_ids) // 2)
            self._narrow_down(lead_ids, error)
        else:
            self._record(lead_ids, reading.refused)

    def _narrow_down(self, lead_ids: Sequence[str], error: Refused) -> None:
        named = error.reading.refused
        if len(lead_ids) == 1:
            self._record(lead_ids, {lead_ids[0]: words(error.body) or str(error.answer)})
        elif named:
            self._record(list(named), named)
            rest = [lead_id for lead_id in lead_ids if lead_id not in named]
            if rest:
                self._send(rest)
        else:
            middle = len(lead_ids) // 2
            self._send(lead_ids[:middle])
            self._send(lead_ids[middle:])

    def _record(self, lead_ids: Sequence[str], refused: Mapping[str, str]) -> None:
        """What the vendor said of each.

        Raises:
            RunError: it refuses one after the other with the same words: it means the campaign.
        """
        campaign_id = self.run.campaign.campaign_id
        confirmed = [lead_id for lead_id in lead_ids if lead_id not in refused]
        database = self.run.place.database
        disabled = database.insist(lambda c: opt_outs.confirm(c, campaign_id, confirmed))
        reasons = self._in_the_vendors_words(refused)
        with database.begin() as connection:
            failed = opt_outs.refuse(
                connection, campaign_id=campaign_id, reasons=reasons, most_tries=MOST_TRIES
            )
        self._tried += reasons
        if disabled < len(confirmed):
            self._unsure += confirmed
        self._count(disabled=disabled, failed=failed)
        if confirmed or failed:
            self._patience.progress()
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
        with self.run.place.database.begin() as connection:
            people = leads.people(connection, campaign.campaign_id, list(refused))
            # After their names: whoever is forgotten in between is known by either.
            forgotten = forgetting.forgotten(connection, campaign.campaign_id, list(refused))
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
        with self.run.place.database.begin() as connection:
            again = opt_outs.still_requested(connection, self.run.campaign.campaign_id, tried)
        if again:
            raise self._again(again)

    def _again(self, amount: int) -> TryLater:
        return self._patience.lost(f"{amount} opt-outs were refused and are tried again")

    def _count(self, **amounts: int) -> None:
        self.tally.add(**amounts)
        self._watcher.done(f"disable {self.run.campaign.campaign_id}", sum(amounts.values()))


def _private(lead: Lead, region: str) -> tuple[str | None, str | None, list[str]]:
    """What must not be repeated of a lead: number, name, what its custom fields hold."""
    try:
        number: str | None = e164(lead.phone_number or "", region)
    except InvalidLead:
        number = lead.phone_number
    return number, lead.contact_name, custom_texts(lead.custom_fields)
