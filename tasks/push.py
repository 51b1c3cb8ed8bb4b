"""The steps of a push: log in, wait for a turn, claim, check, send, record.

No transaction spans a request. A lead is `sending` in a committed row before the request that
holds it leaves, and whatever makes us wait comes before the claim: so leads are `sending` only
while a request is really on its way, and whoever opts out meanwhile is not in it.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from threading import Lock
from typing import NoReturn

from db import campaigns, leads
from leadloop.client.errors import ApiError, InDoubt, Refused, Resend, TooLarge
from leadloop.core.batch_response import Reading, says_duplicate, vendors_words, words
from leadloop.core.errors import RunError
from leadloop.core.leads import Sendable, custom_texts
from leadloop.core.progress import watcher
from leadloop.core.verdicts import Call
from tasks.batch_claimer import Batch, Batches, Sizes
from tasks.context import CampaignRun, Counters
from tasks.in_doubt import Doubts, LookedUp
from tasks.rate_limiter import Turn
from tasks.rejection_streak import MOST_ALIKE, Refusals
from tasks.retries import FruitlessAttempts, retry_later, step


@step("push-batches")
def push_batches(push: "PushJob", most: int) -> bool:
    """Send up to `most` batches of a campaign; True while there may be more."""
    return push.run_chunk(most)


class PushJob:
    """One campaign's push. It keeps nothing that Postgres does not know: a retry goes on."""

    def __init__(self, run: CampaignRun, *, from_source: int = 0) -> None:
        self.run = run
        self._from_source = from_source
        self.counters = Counters("created", "rejected", "cancelled")
        self._batch_size = run.campaign.batch_size
        self._doubts = Doubts(run)
        self._attempts = FruitlessAttempts()
        self._refusals = Refusals()
        self._lookups_failed = False
        self._specimen_kept = False
        self._watcher = watcher.get()
        self._label = f"push {run.campaign.campaign_id}"
        with run.context.database.begin() as connection:
            new = leads.count_new(connection, run.campaign.campaign_id)
        self._batches = Batches(run, new, self._count)
        self._watcher.planned(self._label, new)

    def run_chunk(self, most: int) -> bool:
        """Look up what is in doubt, then send up to `most` batches; True while there may be more.

        The lookups come first: they are safe to repeat, and find out whether the vendor answers.

        Raises:
            TryLater: nothing is wrong that time does not mend; what is left is `new` or in doubt.
            RunError: the vendor refuses us, or this run has been declared dead.
        """
        self._specimen_kept = False
        try:
            looked_up = self._look_up(most)
            drained = self._send_up_to(most)
        except (Resend, InDoubt) as error:
            raise retry_later(self.run, self._attempts, error) from None
        except ApiError as error:
            raise RunError(str(error)) from None
        return not drained or looked_up.more

    def counts(self) -> dict[str, int]:
        """The contract's counts; `in_doubt`: how many the campaign has now.

        `held_back`: new leads that the campaign may not create.
        """
        campaign_id = self.run.campaign.campaign_id
        in_doubt = self.run.context.database.insist(lambda c: leads.count_in_doubt(c, campaign_id))
        return self.counters.counts() | {
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
        return self.run.context.database.insist(
            lambda c: leads.count_held_back(c, campaign.campaign_id, while_enabled=campaign.enabled)
        )

    def _look_up(self, most: int) -> LookedUp:
        """Lookups that get no answer put the run off once; after that they hold up nothing."""
        try:
            looked_up = self._doubts.resolve_some(most)
        except Resend:
            if not self._lookups_failed:
                self._lookups_failed = True
                raise
            return LookedUp()
        self._count(created=len(looked_up.found))
        return looked_up

    def _send_up_to(self, most: int) -> bool:
        """Send batches, several at once; True when no lead is left to claim.

        Raises:
            ApiError: the worst of what the batches met; the others are recorded first.
        """
        # After a failure one batch goes ahead alone: a vendor that takes creates and never answers
        # must not put the whole backlog in doubt.
        share = _Share(1 if self._attempts.has_failed else most)
        with self.run.context.threads() as pool:
            at_once = min(share.left, pool.size)
            senders = [pool.submit(self._send_on, share) for _ in range(at_once)]
            wait(senders)
        _raise_worst(senders)
        return share.drained

    def _send_on(self, share: "_Share") -> None:
        """What each sender does: batch after batch, until the share is done or one has failed."""
        try:
            while (turn := self._next_turn(share)) is not None:
                batch, share.drained = self._batches.fill(turn, self._batch_size)
                if batch.leads:
                    self._send(batch)
                    self._learn_limit(batch.sizes)
                else:
                    self.run.context.budget.give_back(turn.slot)
        except BaseException:
            share.left = 0
            raise

    def _next_turn(self, share: "_Share") -> Turn | None:
        """Wait for a turn in the budget, one sender at a time; None where there is no more to do.

        If each sender waited by itself, the last leads would keep them all waiting for turns that
        only one of them can use.
        """
        budget = self.run.context.budget
        with share.lock:
            while share.left > 0 and not share.drained:
                # Nothing to send needs no login, and no wait; whether that is so is worth a look
                # at the start and before a wait, else the claim finds out.
                if not share.begun and not self._any_new(share):
                    return None
                share.begun = True
                self.run.context.api.log_in()
                slot = budget.take(Call.CREATE)
                if slot.wait_s > 0 and not self._any_new(share):
                    budget.give_back(slot)
                    return None
                turn = budget.wait_for(slot)
                if turn is not None:
                    share.left -= 1
                    return turn
        return None

    def _any_new(self, share: "_Share") -> bool:
        share.drained = not self._batches.any_new()
        return not share.drained

    def _send(self, batch: Batch) -> None:
        """Send a batch, and record what came of it.

        Raises:
            ApiError: the leads are in doubt (InDoubt) or `new` again (any other).
        """
        batch = self._batches.fill_again(batch)
        if not batch.leads:
            return
        try:
            reading = self.run.context.api.create(self.run.campaign.campaign_id, batch.leads)
        except TooLarge as error:
            self._smaller(batch, error)
        except Refused as error:
            self._narrow_down(batch, error)
        except InDoubt as error:
            told = _told_of(batch, error.reading)
            self._doubt(batch.without({lead.lead_id for lead in told.leads}), error)
            if told.leads:
                self._record(told, error.reading.refused)
            raise
        except ApiError:
            self._batches.release(self._batches.key(batch))
            raise
        else:
            self._record(batch, reading.refused)

    def _record(self, batch: Batch, refused: Mapping[str, str]) -> None:
        """The vendor took the batch, all but the refused; a duplicate is one it has already.

        Raises:
            RunError: it refuses one after the other with the same words: it means the campaign.
        """
        reasons = {
            lead.lead_id: _in_the_vendors_words(refused[lead.lead_id], lead)
            for lead in batch.leads
            if lead.lead_id in refused and not says_duplicate(refused[lead.lead_id])
        }
        created = batch.without(reasons)
        if created.leads:
            ours = self._batches.key(created)
            self.run.context.database.insist(lambda c: leads.record_created(c, ours), single=True)
            self._keep_specimen(created.leads[-1])
            batch.sizes.taken(len(batch.leads))
        self._count(created=len(created.leads))
        self._batches.reject(batch, reasons, was_sent=True)
        self._attempts.reset()
        if created.leads:
            self._refusals.forget()
        elif alike := self._refusals.add(reasons.items()):
            self._put_back(alike, reasons)

    def _put_back(self, alike: Sequence[str], reasons: Mapping[str, str]) -> NoReturn:
        """Nobody is rejected for the campaign's sake: `new` again, behind all others.

        Behind the others, so that these hold up none if it was their own fault after all.
        """
        campaign_id, run_id = self.run.campaign.campaign_id, self.run.run_id
        back = self.run.context.database.insist(
            lambda c: leads.put_back(c, campaign_id=campaign_id, run_id=run_id, lead_ids=alike)
        )
        self.counters.add(rejected=-back)
        raise RunError(
            f"{MOST_ALIKE} leads in a row were refused with the same words"
            f" ({next(iter(reasons.values()))}): is the campaign open, and do they have all that it"
            " asks for? They are new again, at the end of the queue"
        )

    def _keep_specimen(self, lead: Sendable) -> None:
        """Have a lead on which to try, should others be in doubt, whether the vendor shows it.

        One a step is enough: recent, and no row that all senders wait for.
        """
        if self._specimen_kept:
            return
        self._specimen_kept = True
        campaign_id = self.run.campaign.campaign_id
        self.run.context.database.insist(
            lambda c: campaigns.keep_specimen(c, campaign_id, lead.lead_id)
        )

    def _narrow_down(self, batch: Batch, error: Refused) -> None:
        """Reject the culprits: those that the vendor names, or who stands alone in the end."""
        if len(batch.leads) == 1:
            reason = words(error.body) or str(error.answer)
            self._record(batch, {batch.leads[0].lead_id: reason})
            return
        reading = error.reading
        if reading.refused or reading.taken:
            rest = batch.without(reading.taken | reading.refused.keys())
            with self._batches.released_unless_sent(rest):
                self._record(_told_of(batch, reading), reading.refused)
            self._send_again(rest)
        else:
            self._halves(batch)

    def _smaller(self, batch: Batch, error: TooLarge) -> None:
        """Send its halves; a lead that is too large by itself is rejected."""
        batch.sizes.too_large(len(batch.leads))
        if len(batch.leads) == 1:
            self._record(batch, {batch.leads[0].lead_id: str(error.answer)})
        else:
            self._halves(batch)

    def _learn_limit(self, sizes: Sizes) -> None:
        """Remember what a batch has told, once all of its parts are settled."""
        most = sizes.limit
        if most is None:
            return
        self._batch_size = min(self._batch_size, most)
        campaign_id = self.run.campaign.campaign_id
        self.run.context.database.insist(
            lambda c: campaigns.learn_batch_limit(c, campaign_id, most)
        )

    def _halves(self, batch: Batch) -> None:
        first, second = batch.halves()
        with self._batches.released_unless_sent(second):
            self._send_again(first)
        self._send_again(second)

    def _send_again(self, batch: Batch) -> None:
        """Send leads of ours in another request, without those that have opted out since."""
        if batch.leads:
            self._send(self._batches.in_another_turn(batch))

    def _doubt(self, batch: Batch, error: ApiError) -> None:
        ours = self._batches.key(batch)
        self.run.context.database.insist(lambda c: leads.record_doubt(c, ours, str(error)))

    def _count(self, **amounts: int) -> None:
        self.counters.add(**amounts)
        self._watcher.done(self._label, sum(amounts.values()))


def _told_of(batch: Batch, reading: Reading) -> Batch:
    """The leads of which the answer says what became of them."""
    told = reading.taken | reading.refused.keys()
    return batch.only([lead for lead in batch.leads if lead.lead_id in told])


def _in_the_vendors_words(reason: str, lead: Sendable) -> str:
    """The vendor's reason, without what it repeats of the lead."""
    return vendors_words(reason, lead.e164, lead.contact_name, custom_texts(lead.body.decode()))


@dataclass
class _Share:
    """What the senders of one step share: how many batches are left to it."""

    left: int
    begun: bool = False
    drained: bool = False
    lock: Lock = field(default_factory=Lock)


def _raise_worst(senders: Sequence[Future[None]]) -> None:
    """Raise what ends the run before what only delays it."""
    errors = [error for sender in senders if (error := sender.exception())]
    if errors:
        raise max(errors, key=lambda error: not isinstance(error, Resend | InDoubt))
