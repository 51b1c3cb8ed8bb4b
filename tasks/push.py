"""The steps of a push: turn in the budget, claim, check, send, record.

No transaction spans a request. A lead is `sending` in a committed row before the request that
holds it leaves, and the turn is waited for before the claim: so leads are `sending` only while a
request is really on its way, and whoever opts out meanwhile is not in it.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from threading import Lock

from db import campaigns, leads, runs
from db.budget import Slot
from db.leads import Batch, Claim
from leadloop.client.errors import ApiError, InDoubt, Refused, Resend, TooLarge
from leadloop.core.errors import Fenced, RunError, TryLater
from leadloop.core.leads import InvalidLead, Lead, Sendable, prepare
from leadloop.core.progress import watcher
from leadloop.core.receipts import refused_leads, says_duplicate, without_personal_data, words
from leadloop.core.verdicts import Call
from tasks.doubts import Doubts
from tasks.retrying import Patience, step, try_later
from tasks.workplace import Run, Tally

_MOST_CLAIMS = 20


@step("push-batches")
def push_batches(push: "Push", most: int) -> bool:
    """Send up to `most` batches of a campaign; True while there may be more."""
    return push.some(most)


class Push:
    """One campaign's push. It keeps nothing that Postgres does not know: a retry goes on."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.tally = Tally("created", "rejected", "cancelled")
        self._batch_size = run.campaign.batch_size
        self._doubts = Doubts(run)
        self._patience = Patience()
        self._watcher = watcher.get()
        self._label = f"push {run.campaign.campaign_id}"
        with run.place.database.begin() as connection:
            new = leads.count_new(connection, run.campaign.campaign_id)
        self._watcher.planned(self._label, new)

    def some(self, most: int) -> bool:
        """Look up what is in doubt, then send up to `most` batches; True while there may be more.

        The lookups come first: they are safe to repeat, and find out whether the vendor answers.

        Raises:
            TryLater: nothing is wrong that time does not mend; what is left is `new` or in doubt.
            RunError: the vendor refuses us, or this run has been declared dead.
        """
        try:
            looked_up = self._look_up(most)
            drained = self._send_up_to(most)
        except Resend as error:
            raise self._later(error) from None
        except InDoubt as error:
            raise self._later(error) from None
        except ApiError as error:
            raise RunError(str(error)) from None
        return not drained or looked_up == most

    def _look_up(self, most: int) -> int:
        settled = self._doubts.resolve_some(most)
        self._count(created=settled.found)
        return settled.looked_up

    def _send_up_to(self, most: int) -> bool:
        """Send batches, several at once; True when no lead is left to claim.

        Raises:
            ApiError: the worst of what the batches met; the others are recorded first.
        """
        share = _Share(most)
        with self.run.place.threads() as pool:
            # After a failure one batch goes ahead alone: a vendor that takes creates and never
            # answers must not put the whole backlog in doubt.
            at_once = 1 if self._patience.tried else pool.size
            senders = [pool.submit(self._send_on, share) for _ in range(at_once)]
            wait(senders)
        _raise_worst(senders)
        return share.drained

    def _send_on(self, share: "_Share") -> None:
        """What each sender does: batch after batch, until the share is done or one has failed."""
        try:
            while (slot := self._next_turn(share)) is not None:
                batch, share.drained = self._fill()
                if batch:
                    self._send(batch)
                else:
                    self.run.place.budget.give_back(slot)
        except BaseException:
            share.left = 0
            raise

    def _next_turn(self, share: "_Share") -> Slot | None:
        """Wait for a turn in the budget, one sender at a time; None where there is no more to do.

        If each sender waited by itself, the last leads would keep them all waiting for turns that
        only one of them can use.
        """
        with share.lock:
            if share.left <= 0 or share.drained:
                return None
            share.left -= 1
            slot = self.run.place.budget.take(Call.CREATE)
            if slot.wait_s > 0 and not self._any_new():
                share.drained = True
                self.run.place.budget.give_back(slot)
                return None
            self.run.place.budget.wait_for(slot)
            return slot

    def _any_new(self) -> bool:
        with self.run.place.database.session() as connection:
            return leads.any_new(connection, self.run.campaign.campaign_id)

    def _fill(self) -> tuple[list[Sendable], bool]:
        """A batch as full as it gets, and whether there was nothing left to claim.

        A turn must be used soon after it has come, so bad leads may not keep us here for long.
        """
        batch: list[Sendable] = []
        for _ in range(_MOST_CLAIMS):
            claimed = self._claim(self._batch_size - len(batch))
            if not claimed.taken:
                return batch, True
            batch += self._checked(claimed.leads)
            if len(batch) == self._batch_size:
                break
        return batch, False

    def _claim(self, most: int) -> Claim:
        with self.run.place.database.session() as connection:
            claim = leads.claim(
                connection,
                campaign_id=self.run.campaign.campaign_id,
                run_id=self.run.run_id,
                most=most,
            )
        self._count(cancelled=claim.cancelled)
        if not claim.taken:
            self._require_alive()
        return claim

    def _checked(self, claimed: Sequence[Lead]) -> list[Sendable]:
        """Those that may be sent; the others are rejected with their reasons."""
        good: list[Sendable] = []
        reasons: dict[str, str] = {}
        for lead in claimed:
            try:
                good.append(prepare(lead, self.run.campaign))
            except InvalidLead as error:
                reasons[lead.lead_id] = str(error)
        self._reject(reasons, was_sent=False)
        return good

    def _send(self, batch: Sequence[Sendable]) -> None:
        """Send a batch for which a turn was waited for, and record what came of it.

        Raises:
            ApiError: the leads are in doubt (InDoubt) or `new` again (any other).
        """
        if not batch:
            return
        try:
            receipt = self.run.place.api.create(self.run.campaign.campaign_id, batch)
        except TooLarge as error:
            self._smaller(batch, error)
        except Refused as error:
            self._narrow_down(batch, error)
        except InDoubt as error:
            self._doubt(batch, error)
            raise
        except ApiError:
            self._release(batch)
            raise
        else:
            self._record(batch, receipt.refused)

    def _record(self, batch: Sequence[Sendable], refused: Mapping[str, str]) -> None:
        """The vendor took the batch, all but the refused; a duplicate is one it has already."""
        reasons = {
            lead_id: reason for lead_id, reason in refused.items() if not says_duplicate(reason)
        }
        created = [lead for lead in batch if lead.lead_id not in reasons]
        ours = self._batch(created)
        if created:
            self.run.place.database.insist(lambda c: leads.record_created(c, ours))
        self._count(created=len(created))
        self._reject(
            {
                lead.lead_id: _vendors_words(reasons[lead.lead_id], lead)
                for lead in batch
                if lead.lead_id in reasons
            },
            was_sent=True,
        )
        self._patience.progress()

    def _narrow_down(self, batch: Sequence[Sendable], error: Refused) -> None:
        """Reject the culprits: those that the vendor names, or who stands alone in the end."""
        if len(batch) == 1:
            reason = words(error.body) or str(error.answer)
            self._record(batch, {batch[0].lead_id: reason})
            return
        named = refused_leads(error.body, {lead.lead_id for lead in batch})
        if named:
            culprits = [lead for lead in batch if lead.lead_id in named]
            self._record(culprits, named)
            self._send_again([lead for lead in batch if lead.lead_id not in named])
        else:
            self._halves(batch)

    def _smaller(self, batch: Sequence[Sendable], error: TooLarge) -> None:
        """Halve the batch size, and remember it."""
        if len(batch) == 1:
            self._record(batch, {batch[0].lead_id: str(error.answer)})
            return
        most = len(batch) // 2
        self._batch_size = min(self._batch_size, most)
        with self.run.place.database.begin() as connection:
            campaigns.learn_batch_limit(connection, self.run.campaign.campaign_id, most)
        self._halves(batch)

    def _halves(self, batch: Sequence[Sendable]) -> None:
        middle = len(batch) // 2
        try:
            self._send_again(batch[:middle])
        except ApiError:
            # What will not be sent now must not be taken for sent.
            self._release(batch[middle:])
            raise
        self._send_again(batch[middle:])

    def _send_again(self, batch: Sequence[Sendable]) -> None:
        """Send leads of ours in another batch, without those that have opted out since."""
        if not batch:
            return
        slot = self.run.place.budget.wait_turn(Call.CREATE)
        with self.run.place.database.begin() as connection:
            wanted, cancelled = leads.claim_again(connection, self._batch(batch))
        self._count(cancelled=cancelled)
        still = set(wanted)
        if still:
            self._send([lead for lead in batch if lead.lead_id in still])
        else:
            self.run.place.budget.give_back(slot)
            self._require_alive()

    def counts(self) -> dict[str, int]:
        """The contract's counts; `in_doubt`: how many the campaign has now."""
        with self.run.place.database.begin() as connection:
            in_doubt = leads.count_in_doubt(connection, self.run.campaign.campaign_id)
        return self.tally.counts() | {"in_doubt": in_doubt}

    def _doubt(self, batch: Sequence[Sendable], error: ApiError) -> None:
        self.run.place.database.insist(
            lambda c: leads.record_doubt(c, self._batch(batch), str(error))
        )

    def _release(self, batch: Sequence[Sendable]) -> None:
        self.run.place.database.insist(lambda c: leads.release(c, self._batch(batch)))

    def _reject(self, reasons: dict[str, str], *, was_sent: bool) -> None:
        if not reasons:
            return
        self.run.place.database.insist(
            lambda c: leads.record_rejected(
                c,
                campaign_id=self.run.campaign.campaign_id,
                run_id=self.run.run_id,
                reasons=reasons,
                was_sent=was_sent,
            )
        )
        self._count(rejected=len(reasons))

    def _later(self, error: ApiError) -> TryLater:
        return try_later(self.run, self._patience, error)

    def _require_alive(self) -> None:
        """Tell a table without new leads from a run that is given none.

        Raises:
            Fenced: another run has declared this one dead.
        """
        with self.run.place.database.begin() as connection:
            if not runs.is_running(connection, self.run.run_id):
                raise Fenced("this run was taken for dead and has stopped: its connection was cut")

    def _batch(self, batch: Sequence[Sendable]) -> Batch:
        return Batch(
            campaign_id=self.run.campaign.campaign_id,
            run_id=self.run.run_id,
            lead_ids=[lead.lead_id for lead in batch],
        )

    def _count(self, **amounts: int) -> None:
        self.tally.add(**amounts)
        self._watcher.done(self._label, sum(amounts.values()))


def _vendors_words(reason: str, lead: Sendable) -> str:
    """The vendor's reason, without what it repeats of the lead."""
    parts = lead.contact_name.split() if lead.contact_name else []
    private = (lead.contact_name, lead.e164, *(part for part in parts if len(part) > 1))
    return f"vendor: {without_personal_data(reason, *private)}"


@dataclass
class _Share:
    """What the senders of one step share: how many batches are left to it."""

    left: int
    drained: bool = False
    lock: Lock = field(default_factory=Lock)


def _raise_worst(senders: Sequence[Future[None]]) -> None:
    """Raise what ends the run before what only delays it."""
    errors = [error for sender in senders if (error := sender.exception())]
    if errors:
        raise max(errors, key=lambda error: not isinstance(error, Resend | InDoubt))
