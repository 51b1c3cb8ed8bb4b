"""The steps of a disable: cancel what was never sent, have the vendor stop the rest.

A disable may be repeated without harm, so it is simply sent until it is confirmed.
"""

from collections.abc import Mapping, Sequence

from db import opt_outs
from leadloop.client.errors import ApiError, Refused, Resend
from leadloop.core.errors import RunError, TryLater
from leadloop.core.progress import watcher
from leadloop.core.receipts import refused_leads, without_personal_data, words
from tasks.doubts import Doubts
from tasks.retrying import Patience, step, try_later
from tasks.workplace import Run, Tally

#: How often a lead that the vendor refuses is tried before it is reported as failed.
MOST_TRIES = 3


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
        self._tried: list[str] = []
        self._watcher = watcher.get()

    def some(self, most: int) -> bool:
        """Cancel what was never sent, then send up to `most` batches; True while there is more.

        Raises:
            TryLater: the vendor did not answer, or refused some that will be tried again.
            RunError: the vendor refuses us.
        """
        try:
            self._look_up_doubts()
            self._cancel_unsent()
            more = self._send_up_to(most)
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

    def _look_up_doubts(self) -> None:
        """A lead in doubt that turns out not to exist is cancelled rather than disabled."""
        with self.run.place.database.begin() as connection:
            waiting = opt_outs.in_doubt(
                connection,
                campaign_id=self.run.campaign.campaign_id,
                settle_s=self.run.campaign.settle_s,
            )
        self._doubts.resolve([doubt for doubt in waiting if doubt.lead_id not in self._tried])

    def _cancel_unsent(self) -> None:
        with self.run.place.database.begin() as connection:
            cancelled = opt_outs.cancel_unsent(connection, self.run.campaign.campaign_id)
        self._count(cancelled=cancelled)

    def _send_up_to(self, most: int) -> bool:
        for _ in range(most):
            with self.run.place.database.begin() as connection:
                due = opt_outs.next_due(
                    connection,
                    campaign_id=self.run.campaign.campaign_id,
                    most=self.run.campaign.batch_size,
                    tried=self._tried,
                )
            if not due:
                return False
            self._send(due)
        return True

    def _send(self, lead_ids: Sequence[str]) -> None:
        """Disable these; where the vendor refuses a list, find out whom it means."""
        try:
            receipt = self.run.place.api.disable(self.run.campaign.campaign_id, lead_ids)
        except Refused as error:
            self._narrow_down(lead_ids, error)
        else:
            self._record(lead_ids, receipt.refused)

    def _narrow_down(self, lead_ids: Sequence[str], error: Refused) -> None:
        named = refused_leads(error.body, set(lead_ids))
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
        campaign_id = self.run.campaign.campaign_id
        confirmed = [lead_id for lead_id in lead_ids if lead_id not in refused]
        reasons = {key: f"vendor: {without_personal_data(text)}" for key, text in refused.items()}
        database = self.run.place.database
        disabled = database.insist(lambda c: opt_outs.confirm(c, campaign_id, confirmed))
        with database.begin() as connection:
            failed = opt_outs.refuse(
                connection, campaign_id=campaign_id, reasons=reasons, most_tries=MOST_TRIES
            )
        self._tried += reasons
        self._count(disabled=disabled, failed=failed)
        if confirmed or failed:
            self._patience.progress()

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
