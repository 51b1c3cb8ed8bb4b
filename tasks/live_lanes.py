"""Lanes of a live run: threads that work side by side, so that one kind of work delays no other.

A lane runs jobs in turns, a chunk each, and takes further campaigns between chunks. Its jobs are
those that flows run (`tasks.jobs`).
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Condition, Thread

from db.database import DatabaseError
from leadloop.core.boot_clock import read_boot_clock
from leadloop.core.campaign_rules import Campaign
from leadloop.core.errors import LeadloopError, RunError
from tasks.context import ApiContext, translate_unexpected
from tasks.disable import READ_OPT_OUTS
from tasks.jobs import CampaignExecution, JobSpec

#: Counts of a job that show that it has done something.
PROGRESS = (
    *("created", "rejected", "cancelled", "from_source", "disabled", "windows"),
    "from_opt_out_source",
)


@dataclass(frozen=True, kw_only=True)
class Errand:
    """A campaign's job that is due.

    Attributes:
        campaign: the campaign.
        spec: the job.
        look: asks the vendor or the source whether there is anything to do, before the run gets
            its row; None: there is. If the look fails, the run does too, and its row states why;
            there is no row for a plain RunError, after which another job or look is due.
    """

    campaign: Campaign
    spec: JobSpec[ApiContext]
    look: Callable[[], bool] | None = None


@dataclass(frozen=True, kw_only=True)
class EndedErrand:
    """How an errand ended.

    Attributes:
        lane: the lane's name.
        errand: the errand.
        counts: the counts of its run; empty without one.
        error: how it failed.
    """

    lane: str
    errand: Errand
    counts: Mapping[str, int]
    error: LeadloopError | None

    @property
    def has_progress(self) -> bool:
        """Whether it may run again at once."""
        if self.error is not None:
            return False
        # `OptOutLooks` paces them, and a source may change without a new opt-out.
        if self.errand.spec is READ_OPT_OUTS:
            return True
        return not self.counts or any(self.counts.get(name) for name in PROGRESS)


class Lane:
    """A thread that does errands, at most one a campaign at a time.

    Args:
        name: the lane's name.
        context: what its jobs work with; of no other thread.
        on_ended: is called in the lane's thread with each errand that has ended, before another
            one of its campaign is taken.
        on_free: is called after that.
        gap_s: the least mean time between the starts of a campaign's errands, seconds: two may
            start at once, and then one each time.
    """

    def __init__(
        self,
        name: str,
        context: ApiContext,
        on_ended: Callable[[EndedErrand], None],
        on_free: Callable[[EndedErrand], None],
        *,
        gap_s: float = 0.0,
    ) -> None:
        self.name = name
        self.context = context
        self._on_ended = on_ended
        self._on_free = on_free
        self._gap_s = gap_s
        self._changed = Condition()
        self._waiting: deque[Errand] = deque()
        self._open: dict[str, tuple[Errand, CampaignExecution[ApiContext]]] = {}
        self._busy: set[str] = set()
        self._next_start_at: dict[str, float] = {}
        self._is_ending = False
        self._thread = Thread(target=self._run, name=f"live-{name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread works; it ends early only by a defect."""
        return self._thread.is_alive()

    @property
    def busy_with(self) -> list[str]:
        """The campaigns whose errands are waiting or under way."""
        with self._changed:
            return sorted(self._busy)

    @property
    def has_runs(self) -> bool:
        """Whether a run is under way; a look that shows nothing new opens no run."""
        return bool(self._open)

    def offer(self, errand: Errand) -> bool:
        """Take an errand and return True, unless one of its campaign is waiting or under way."""
        with self._changed:
            if self._is_ending or errand.campaign.campaign_id in self._busy:
                return False
            self._busy.add(errand.campaign.campaign_id)
            self._waiting.append(errand)
            self._changed.notify()
            return True

    def end(self) -> None:
        """Let the thread end after the chunk that it is in; open runs end as they stand."""
        with self._changed:
            self._is_ending = True
            self._changed.notify()

    def stop(self) -> None:
        """End all waits for permits too, so that the thread ends within the request it is in."""
        self.end()
        self.context.limiter.stop()

    def join(self, timeout_s: float) -> None:
        """Wait for the end of the thread."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            while self._wait_for_work():
                if (errand := self._take_errand()) is not None:
                    self._begin(errand)
                for campaign_id in list(self._open):
                    self._run_chunk(campaign_id)
        finally:
            for errand, execution in list(self._open.values()):
                execution.hand_over()
                self._report(errand, execution.counted, execution.error)

    def _wait_for_work(self) -> bool:
        """Wait until an errand may start or a chunk is due; return False once the lane ends."""
        with self._changed:
            while not self._is_ending:
                due_at = self._find_due()
                if due_at is not None and due_at <= read_boot_clock():
                    return True
                self._changed.wait(None if due_at is None else due_at - read_boot_clock())
        return False

    def _find_due(self) -> float | None:
        due = [execution.due_at for _, execution in self._open.values()]
        due += [self._find_start(errand) for errand in self._waiting]
        return min(due, default=None)

    def _find_start(self, errand: Errand) -> float:
        return self._next_start_at.get(errand.campaign.campaign_id, 0.0)

    def _take_errand(self) -> Errand | None:
        with self._changed:
            now = read_boot_clock()
            for errand in self._waiting:
                if self._find_start(errand) <= now:
                    self._waiting.remove(errand)
                    planned_at = max(self._find_start(errand), now - self._gap_s)
                    self._next_start_at[errand.campaign.campaign_id] = planned_at + self._gap_s
                    return errand
        return None

    def _begin(self, errand: Errand) -> None:
        try:
            with (
                translate_unexpected(self.context.log),
                self.context.database.translate_errors(),
            ):
                is_needed = errand.look is None or errand.look()
        except LeadloopError as error:
            is_needed = _is_for_the_record(error)
            if not is_needed:
                self.context.log.error("campaign %s: %s", errand.campaign.campaign_id, error)
                self._report(errand, {}, error)
                return
        if not is_needed:
            self._report(errand, {}, None)
            return
        execution = CampaignExecution(self.context, errand.spec, errand.campaign)
        self._open[errand.campaign.campaign_id] = errand, execution
        execution.start()
        self._close_if_ended(errand, execution)

    def _run_chunk(self, campaign_id: str) -> None:
        errand, execution = self._open[campaign_id]
        if execution.due_at <= read_boot_clock():
            execution.run_chunk()
        self._close_if_ended(errand, execution)

    def _close_if_ended(self, errand: Errand, execution: CampaignExecution[ApiContext]) -> None:
        if not execution.is_open:
            del self._open[errand.campaign.campaign_id]
            self._report(errand, execution.counted, execution.error)

    def _report(
        self, errand: Errand, counts: Mapping[str, int], error: LeadloopError | None
    ) -> None:
        ended = EndedErrand(lane=self.name, errand=errand, counts=counts, error=error)
        self._on_ended(ended)
        with self._changed:
            self._busy.discard(errand.campaign.campaign_id)
        self._on_free(ended)


def _is_for_the_record(error: LeadloopError) -> bool:
    """Return whether a look that failed becomes a run, so that its failure is seen as a problem."""
    if isinstance(error, DatabaseError):
        return not error.disconnected  # without Postgres there is no row
    return type(error) is not RunError
