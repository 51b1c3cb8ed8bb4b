"""The live loop: looks what is due, and has it done within a second, for as long as it runs.

It knows no Prefect: the flow `live-leads` and the command `leadloop live` are its hosts. One thread
looks, on the connection that holds its place (`db.live_places`), and hands what is due to lanes
(`tasks.live_lanes`). A live run that waits for another one looks only whether that one is alive.
"""

import math
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain
from threading import Thread

from db import campaigns as campaign_table
from db import due_work, live_places, notifications, rate_limit, schema, watermarks
from db.database import Database, DatabaseError
from db.due_work import DueWork
from db.live_places import PLACES, PlaceConnection
from db.notifications import WorkListener
from leadloop.core.boot_clock import read_boot_clock, sleep_until
from leadloop.core.campaign_rules import Campaign
from leadloop.core.concurrency import MIN_CONCURRENCY
from leadloop.core.errors import RunError, UsageError
from leadloop.core.summaries import Summary
from leadloop.core.summary_text import format_summary, name_campaigns
from leadloop.settings import Settings
from tasks.accounts import describe_unserved, find_unserved, list_served_accounts
from tasks.context import Logger, RunHost, open_lane_contexts, require_schema
from tasks.jobs import CampaignsFailed
from tasks.live_accounts import LiveAccount
from tasks.live_checks import HostCheck
from tasks.live_dispatch import LANES
from tasks.live_hangs import HangWatch
from tasks.live_lanes import PROGRESS, EndedErrand, Lane
from tasks.live_notices import NoticeWatch

# Seconds between two looks: where notifications are proven to arrive, and where not. A look is also
# the sign of life, of which the run that waits must miss three before it takes over.
_LOOK_S, _LOOK_WITHOUT_NOTICE_S = 3.0, 0.5
# The least time between two turns of the loop, however many notifications arrive, seconds.
_LEAST_LOOK_S = 0.05
# Seconds between two looks at what is due by its time, and at other live runs.
_TIMED_LOOK_S = 5.0
# Seconds between two looks of a live run that waits.
_WATCH_S = 2.0
# Seconds between two proofs that notifications arrive, and two reads of the settings. A proof also
# ends the transaction of the looks.
_CHECK_S = 60.0
# Seconds between two lines of what was done.
_REPORT_S = 300.0
# Seconds before each attempt to reach Postgres again; the last one repeats.
_RECONNECT_S = (0.2, 0.5, 1.0, 2.0)
# How long a live run that ends waits for the requests that are under way, seconds.
_END_S = 90.0


#: The counts of a live run's summary.
SUMMARY = (
    "created",
    "rejected",
    "disabled",
    "cancelled",
    "inserted",
    "updated",
    "requests",
)


#: The counts of the lines that a live run logs.
_REPORTED = ("from_source", *SUMMARY)


@dataclass(kw_only=True)
class LiveState:
    """What a live run shows of itself; written by the loop and its lanes, read by its host.

    Attributes:
        shares: how many shares of the campaigns it works on; 0: it waits.
        worked_since: when it began to work, seconds of the boot clock; None: it has not.
        waiting: how many other live runs wait.
        is_notified: whether notifications have proven to arrive.
        vendor_is_out: whether the vendor answers nothing to any account.
        silent_accounts: the accounts to which it answers nothing, if there are several.
        busy_with: the campaigns that each lane works on.
        is_cancelled: whether it ends because its host has cancelled it.
        totals: the sums of the counts of all ended runs.
        failures: how each campaign's last job in a lane failed, until one succeeds.
    """

    shares: int = 0
    worked_since: float | None = None
    waiting: int = 0
    is_notified: bool = False
    vendor_is_out: bool = False
    silent_accounts: Sequence[str] = ()
    busy_with: Mapping[str, list[str]] = field(default_factory=dict)
    is_cancelled: bool = False
    totals: Counter[str] = field(default_factory=Counter)
    failures: dict[tuple[str, str], str] = field(default_factory=dict)

    def summary(self) -> Summary:
        """Return the sums of what was done."""
        return {name: self.totals[name] for name in SUMMARY}

    def describe_failures(self) -> list[str]:
        """Return a line for each error by which jobs failed at last, with their campaigns."""
        campaigns: dict[str, set[str]] = {}
        for (_, campaign_id), error in list(self.failures.items()):
            campaigns.setdefault(error, set()).add(campaign_id)
        return [f"{name_campaigns(sorted(ids))}: {error}" for error, ids in campaigns.items()]

    def require_progress(self) -> None:
        """Check that the run has got something done, if anything failed.

        Raises:
            CampaignsFailed: it has not.
        """
        failures = self.describe_failures()
        if failures and not any(self.totals[name] for name in PROGRESS):
            raise CampaignsFailed(failures, self.summary())


@dataclass(frozen=True, kw_only=True)
class LiveHost:
    """The program that runs the live loop.

    Attributes:
        log: where it logs.
        name: what other live runs see of it.
        load_settings: returns the settings as they are now; is called every minute, in a thread of
            its own.
        is_cancelled: returns whether the run shall end; is called with `load_settings`.
        work_s: for how long it works, seconds; then it ends as soon as another live run waits.
        on_ended: is called with each errand that has ended, in a thread of a lane.
        on_look: is called after each look.
        flow_run_id: Prefect's id of the flow run, if it is one.
    """

    log: Logger
    name: str
    load_settings: Callable[[], Settings]
    is_cancelled: Callable[[], bool] = lambda: False
    work_s: float = math.inf
    on_ended: Callable[[EndedErrand], None] = lambda _: None
    on_look: Callable[[LiveState], None] = lambda _: None
    flow_run_id: str | None = None


class PlacesTaken(UsageError):
    """As many live runs as there may be are there already."""


def run_live(host: LiveHost, state: LiveState) -> None:
    """Work for the host's time, and then until another live run waits, or the host cancels.

    `state` shows what it does. A lost connection to Postgres is opened again, and settings that
    have changed are used, with new lanes; what the old lanes have begun, they end.

    Raises:
        PlacesTaken: PLACES live runs are there already.
        UsageError: settings are wrong, or the schema has another version.
        DatabaseError: Postgres refuses, or cannot be reached at first.
        BaseException: the run was stopped (Ctrl-C, SIGTERM); each open run's row states it.
    """
    settings, failures = host.load_settings(), 0
    was_connected = False
    check = HostCheck(host.log, host.load_settings, host.is_cancelled)
    while True:
        try:
            with _open_session(host, settings, state) as session:
                was_connected, failures = True, 0
                new_settings = session.run()
            if new_settings is None:
                return
            settings = new_settings
        except DatabaseError as error:
            if not (was_connected and error.is_transient):
                raise
            if not failures:
                host.log.warning("%s; trying again until Postgres answers", error)
                check = HostCheck(host.log, host.load_settings, host.is_cancelled)
            # As while it works: another address may be set, or the run be cancelled.
            check.start()
            sleep_until(read_boot_clock() + _RECONNECT_S[min(failures, len(_RECONNECT_S) - 1)])
            failures += 1
            settings = check.settings or settings
            if check.is_cancelled:
                state.is_cancelled = True
                return


class _LiveSession:
    """A live run for as long as its connections and its settings last."""

    def __init__(
        self,
        host: LiveHost,
        settings: Settings,
        state: LiveState,
        database: Database,
        place: PlaceConnection,
        listener: WorkListener,
        hang_watch: HangWatch,
        resources: ExitStack,
    ) -> None:
        self._host = host
        self._settings = settings
        self._state = state
        self._database = database
        self._place = place
        self._listener = listener
        self._hang_watch = hang_watch
        self._resources = resources
        self._accounts = [
            LiveAccount(account, host.log, self._record_end)
            for account in list_served_accounts(settings)
        ]
        # Campaigns of accounts that cannot be used here, which the log has named.
        self._left_alone: set[str] = set()
        self.shares: list[int] = []
        self._wakeup, self._bell = map(resources.enter_context, socket.socketpair())
        self._wakeup.setblocking(False)
        self._bell.setblocking(False)
        self._notices = NoticeWatch()
        self._look_at = self._timed_look_at = 0.0
        self._check_at = read_boot_clock() + _CHECK_S
        self._report_at = read_boot_clock() + _REPORT_S
        self._reported = Counter(state.totals)
        self._host_check = HostCheck(host.log, host.load_settings, host.is_cancelled)
        self._schema_version = place.read(schema.get_version)
        self._lost: DatabaseError | None = None
        self._is_stopping = self._is_waiting = False
        self._prove_notifications()

    def run(self) -> Settings | None:
        """Look and hand over; return the settings to go on with, or None at the run's end.

        It ends once its time is over, or its host has cancelled it.

        Raises:
            DatabaseError: the connection was cut.
            UsageError: the schema has got another version.
        """
        while True:
            now = read_boot_clock()
            self._hang_watch.record_look()
            if now >= self._check_at:
                self._check_at = now + _CHECK_S
                self._prove_notifications()
                self._host_check.start()
                self._report(now)
            if self._host_check.is_cancelled:
                self._state.is_cancelled = True
                return None
            if self._host_check.settings not in (None, self._settings):
                return self._host_check.settings
            if now >= self._timed_look_at:
                self._timed_look_at = now + (_TIMED_LOOK_S if self.shares else _WATCH_S)
                if self._look_around():
                    return None
            if self.shares:
                if now >= self._look_at:
                    self._look(now)
                for account in self._accounts:
                    account.dispatcher.offer_opt_out_looks()
                    account.dispatcher.offer_polls()
            self._require_lanes()
            self._show()
            self._wait(now)

    def _report(self, now: float) -> None:
        """Log every five minutes what was done since the last line, if anything was."""
        if now < self._report_at:
            return
        new = {name: self._state.totals[name] - self._reported[name] for name in _REPORTED}
        self._report_at, self._reported = now + _REPORT_S, Counter(self._state.totals)
        # Looks send requests all the time.
        if any(count for name, count in new.items() if name != "requests"):
            self._host.log.info("in the last minutes: %s", format_summary(new))

    def _look(self, now: float) -> None:
        """Hand over the opt-outs and leads that came in."""
        due = self._place.read(due_work.find_new_work, self.shares)
        self._notices.record_look(due)
        self._offer_work(due)
        paused = self._place.read(rate_limit.list_paused_accounts)
        for account in self._accounts:
            if account.name in paused:
                account.dispatcher.release_permits()
        pause_s = _LOOK_S if self._notices.is_reliable else _LOOK_WITHOUT_NOTICE_S
        retries = [account.dispatcher.find_next_retry() for account in self._accounts]
        self._look_at = min([now + pause_s, *retries])

    def _offer_work(self, due: Sequence[DueWork]) -> None:
        """Hand over work to the accounts of its campaigns."""
        campaigns = self._read_campaigns([each.campaign_id for each in due])
        for account in self._accounts:
            own = account.keep_own(campaigns)
            account.dispatcher.offer_work([each for each in due if each.campaign_id in own], own)

    def _look_around(self) -> bool:
        """Look at other live runs, at the schema, and at what is due by its time.

        Returns:
            Whether the time is over, and another live run waits.
        """
        others = self._place.read(live_places.list_other_sessions)
        for other in others:
            if other.is_silent:
                self._host.log.warning(
                    "%s has not looked for work for %.0f s: its connections are ended, and its"
                    " runs are taken over",
                    *(other.name, other.silent_s),
                )
                self._place.read(live_places.end_session, other.pid)
        self._state.waiting = sum(not other.is_working for other in others)
        self._require_same_schema()
        if self._state.waiting and self._is_time_over():
            return True
        self._take_shares()
        if self.shares:
            settle_s = self._settings.campaign_rules().settle_s
            self._offer_work(
                self._place.read(due_work.find_timed_work, self.shares, settle_s=settle_s)
            )
            polled = self._place.read(due_work.list_polled_campaigns, self.shares)
            with_source = self._read_campaigns(
                self._place.read(due_work.list_opt_out_sources, self.shares)
            )
            campaigns = self._read_campaigns([each.campaign_id for each in polled])
            database_time = self._place.read(watermarks.get_database_time)
            for account in self._accounts:
                account.dispatcher.plan_opt_out_looks([*account.keep_own(with_source).values()])
                own = account.keep_own(campaigns)
                account.dispatcher.plan_polls(
                    [each for each in polled if each.campaign_id in own], own, now=database_time
                )
        return False

    def _is_time_over(self) -> bool:
        since = self._state.worked_since
        return bool(self.shares) and read_boot_clock() > (since or math.inf) + self._host.work_s

    def _take_shares(self) -> None:
        """Take the shares that are free; with the first ones, open the lanes."""
        taken = self._place.read(live_places.take_free_shares, self.shares)
        if not taken:
            if not self.shares and not self._is_waiting:
                self._is_waiting = True
                self._host.log.info("another live run does the work: waiting to take it over")
            return
        if not self.shares:
            self._open_lanes()
        self.shares += taken
        self._state.shares = len(self.shares)
        if self._state.worked_since is None:
            self._state.worked_since = read_boot_clock()
        self._host.log.info("working on %d of %d shares", len(self.shares), due_work.SHARES)

    def _open_lanes(self) -> None:
        run_host = RunHost(log=self._host.log, flow_run_id=self._host.flow_run_id)
        for account in self._accounts:
            contexts = self._resources.enter_context(
                open_lane_contexts(
                    self._settings,
                    run_host,
                    self._database,
                    LANES,
                    self._place.pid,
                    account.account,
                )
            )
            account.open_lanes(contexts, self._wake)

    def _read_campaigns(self, ids: list[str]) -> dict[str, Campaign]:
        """Return the rows of campaigns, by id; of one that was deleted meanwhile, none."""
        if not ids:
            return {}
        rules = self._settings.campaign_rules()
        rows = self._place.read(campaign_table.find_campaigns, ids, rules)
        self._report_unserved([row for row in rows if row.campaign_id not in self._left_alone])
        return {row.campaign_id: row for row in rows}

    def _report_unserved(self, campaigns: Sequence[Campaign]) -> None:
        """Log once which campaigns are left alone, and what to set."""
        served = {account.name for account in self._accounts}
        others = [each for each in campaigns if each.account not in served]
        if not others:
            return
        unserved = find_unserved(self._settings, others)
        for line in describe_unserved(self._settings, unserved):
            self._host.log.warning("%s", line)
        self._left_alone.update(*unserved.values())

    def _require_same_schema(self) -> None:
        version = self._place.read(schema.get_version)
        if version != self._schema_version:
            raise UsageError(
                f"the leadloop schema is at version {version}, and this process knows"
                f" {self._schema_version}: start it again with the new version of leadloop"
            )

    def _prove_notifications(self) -> None:
        """Send a notification; until it arrives, nobody relies on any."""
        self._place.write(notifications.announce_work, self._notices.start_proof())

    def _wait(self, now: float) -> None:
        """Wait for a notification, a lane that has something to report, or what is due next."""
        due_at = min(self._check_at, self._timed_look_at)
        if self.shares:
            due_at = min([due_at, self._look_at, *self._list_next_due()])
        timeout_s = max(0.0, due_at - read_boot_clock())
        received = self._listener.wait(timeout_s, [self._wakeup])
        if self._notices.record(received):
            self._look_at = 0.0
        with suppress(BlockingIOError):
            if self._wakeup.recv(1024):
                self._notices.expect_work()
                self._look_at = 0.0
        if notifications.SOURCE_CHANGED in received:
            for account in self._accounts:
                account.dispatcher.announce_sources()
        sleep_until(now + _LEAST_LOOK_S)

    def _record_end(self, ended: EndedErrand) -> None:
        """Add up what a lane has done."""
        key = ended.lane, ended.errand.campaign.campaign_id
        self._state.totals.update(ended.counts)
        if ended.error is None:
            self._state.failures.pop(key, None)
        elif not self._is_stopping:  # a job that is stopped fails by that
            self._state.failures[key] = str(ended.error)
        if isinstance(ended.error, DatabaseError) and ended.error.disconnected:
            self._lost = ended.error
        self._host.on_ended(ended)

    def _wake(self, ended: EndedErrand) -> None:
        """Wake the loop after an errand that has opened a run: there may be more."""
        if ended.counts or self._lost:
            # Full: it rings already. Closed: the session is over.
            with suppress(OSError):
                self._bell.send(b"\0")

    def _require_lanes(self) -> None:
        """Check that all lanes work.

        Raises:
            DatabaseError: one of them has lost its connection.
            RunError: one of them has ended by a defect.
        """
        if self._lost is not None:
            raise self._lost
        for lane in self._list_lanes():
            if not lane.is_alive:
                raise RunError(f"the lane {lane.name} has ended by a defect")

    def _list_lanes(self) -> list[Lane]:
        return [lane for account in self._accounts for lane in account.lanes.values()]

    def _list_next_due(self) -> list[float]:
        return [account.dispatcher.next_due_at for account in self._accounts]

    def _show(self) -> None:
        silent = [account.name for account in self._accounts if account.vendor.is_out]
        self._state.is_notified = self._notices.is_reliable
        self._state.vendor_is_out = bool(silent)
        self._state.silent_accounts = silent if len(self._accounts) > 1 else ()
        lanes = self._list_lanes()
        self._state.busy_with = {
            name: sorted(chain(*(lane.busy_with for lane in lanes if lane.name == name)))
            for name in LANES
            if lanes
        }
        self._host.on_look(self._state)

    def end(self, *, at_once: bool) -> None:
        """End the lanes: after the chunk they are in, or the requests under way.

        The live run that takes over works meanwhile. It would end the connections of a silent one,
        so looks go on.
        """
        self._is_stopping = at_once
        for lane in self._list_lanes():
            lane.stop() if at_once else lane.end()
        # However the place was lost: the lanes have other connections, and end on those.
        with suppress(Exception):
            self._place.read(live_places.release_shares, self.shares)
        deadline = read_boot_clock() + _END_S
        for lane in self._list_lanes():
            while lane.is_alive and read_boot_clock() < deadline:
                self._hang_watch.record_look()
                with suppress(Exception):
                    self._place.read(schema.get_version)
                lane.join(_LOOK_S)
        for account in self._accounts:
            # The next run's looks need the slots. Without the database, they are free in a minute.
            with suppress(DatabaseError), self._database.translate_errors():
                if account.lanes:
                    account.dispatcher.release_permits()


@contextmanager
def _open_session(host: LiveHost, settings: Settings, state: LiveState) -> Iterator[_LiveSession]:
    """Connect and take a place; end the lanes at the end of the block.

    After a lost connection, the lanes end in a separate thread, so that the next session need not
    wait for requests that are under way.
    """
    settings.require_login()
    with ExitStack() as resources:
        database = resources.enter_context(
            Database(settings.require_database_url(), pool_size=_count_connections(settings))
        )
        hang_watch = resources.enter_context(HangWatch(host.log, database))
        require_schema(database)
        with database.translate_errors():
            place = PlaceConnection(resources.enter_context(database.dedicated()), host.name)
            _take_place(place)
            listener = WorkListener(resources.enter_context(database.autocommit()))
            session = _LiveSession(
                host, settings, state, database, place, listener, hang_watch, resources
            )
        try:
            with database.translate_errors():
                yield session
            session.end(at_once=False)
        except DatabaseError:
            Thread(target=_close, args=(session, resources.pop_all()), daemon=True).start()
            raise
        except BaseException:
            session.end(at_once=True)
            raise
        finally:
            state.shares = 0


def _close(session: _LiveSession, resources: ExitStack) -> None:
    session.end(at_once=True)
    with suppress(Exception):
        # The connections are gone: nothing can be recorded on them.
        resources.close()


def _take_place(place: PlaceConnection) -> None:
    if place.read(live_places.take_place) is None:
        others = ", ".join(each.name for each in place.read(live_places.list_other_sessions))
        raise PlacesTaken(
            f"{PLACES} live runs are there already, one to work and one to take over: {others}"
        )


def _count_connections(settings: Settings) -> int:
    lanes = len(LANES) * len(list_served_accounts(settings))
    return lanes * (min(settings.read_concurrency, MIN_CONCURRENCY) + 2) + 2
