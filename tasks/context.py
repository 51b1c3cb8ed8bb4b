"""What the jobs of a flow run work with, and the row that each campaign's run has in Postgres."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar

from db import campaigns, counts, create_holds, runs
from db.database import Connection, Database, DatabaseError
from db.live_places import join_session
from db.runs import RunLocks
from db.schema import require_current
from leadloop.client.api import LeadsApi
from leadloop.core.accounts import DEFAULT_ACCOUNT
from leadloop.core.boot_clock import read_boot_clock
from leadloop.core.campaign_rules import Campaign, CampaignRules
from leadloop.core.errors import LeadloopError, RunError, UnexpectedError, UsageError
from leadloop.core.opt_out_looks import OptOutLooks
from leadloop.core.rate_ring import Purpose
from leadloop.core.tracebacks import find_origin, format_traceback
from leadloop.settings import Account, Settings
from tasks.accounts import has_several_accounts, keep_served, list_served_accounts
from tasks.api_session import ApiSession, open_api
from tasks.rate_limiter import PATIENCE_S, RateLimiter
from tasks.step_log import StepLog
from tasks.thread_pool import RequestThreads, open_threads

Logger = logging.Logger | logging.LoggerAdapter[logging.Logger]
P = ParamSpec("P")
T = TypeVar("T")
SelectCampaigns = Callable[[Connection, Sequence[str] | None, CampaignRules], list[Campaign]]

# Four threads, the run locks, the claimer, and a record written meanwhile. More requests at once
# need no more connections: no thread has one while it waits for the vendor.
_MAX_CONNECTIONS = 8
#: The most connections that one run opens: a pool for transactions, and one for single statements.
RUN_CONNECTIONS = 2 * _MAX_CONNECTIONS

# Purposes for which a live run sends requests all the time, so that bursts would hold up others.
_PACED = (Purpose.BULK, Purpose.POLLS)

# Between two folds of counts by one context, seconds.
_FOLD_PERIOD_S = 60.0

#: The age of a campaign's row at which `CampaignRun.refresh` reads it again, seconds.
MAX_ROW_AGE_S = 1.0


class RunStep(Protocol):
    """Runs a named step of jobs, and returns what the step returns."""

    def __call__(self, name: str, campaign_ids: Sequence[str], step: Callable[[], T], /) -> T:
        """Run the step for these campaigns."""


def run_plain_step(_name: str, _campaign_ids: Sequence[str], step: Callable[[], T], /) -> T:
    """Run a step as a plain call."""
    return step()


@dataclass(frozen=True, kw_only=True)
class RunHost:
    """The program that runs jobs: Prefect (`flows/campaign_runner.py`), or any other.

    Attributes:
        log: where the run logs: its steps at INFO.
        flow_run_id: Prefect's id of the flow run, if it is one.
        run_step: runs a step so that it can be seen by its name and its campaigns.
    """

    log: Logger
    flow_run_id: str | None = None
    run_step: RunStep = run_plain_step


@dataclass
class CountFolder:
    """Folds the counts of what is past at the end of runs and in long ones, at most once a minute.

    Nothing depends on it: the views sum what is not folded too.
    """

    _due_at: float = 0.0
    # The end of a short run is soon enough.
    _long_at: float = field(default_factory=lambda: read_boot_clock() + _FOLD_PERIOD_S)

    def fold_in_long_run(self, database: Database, warn: Callable[..., None]) -> None:
        """Fold if due, as soon as this folder is a minute old. Never raises a DatabaseError."""
        if read_boot_clock() >= self._long_at:
            self.fold_if_due(database, warn)

    def fold_if_due(self, database: Database, warn: Callable[..., None]) -> None:
        """Fold, unless that was done within the last minute. Never raises a DatabaseError."""
        now = read_boot_clock()
        if now < self._due_at:
            return
        self._due_at = now + _FOLD_PERIOD_S
        try:
            counts.fold_all_counts(database)
        except DatabaseError as error:
            if not error.is_transient:
                warn("the counts cannot be folded; the views show them all the same: %s", error)


@dataclass(frozen=True, kw_only=True)
class DatabaseContext:
    """Settings, database and host of one flow run, shared by its campaigns and threads."""

    settings: Settings
    database: Database
    locks: RunLocks
    host: RunHost
    folder: CountFolder = field(default_factory=CountFolder)

    @property
    def log(self) -> Logger:
        """The log of the run."""
        return self.host.log

    @property
    def account_name(self) -> str:
        """The account of a covering row in which no campaign is."""
        return DEFAULT_ACCOUNT

    @property
    def requests_sent(self) -> int:
        """Requests sent to the vendor so far."""
        return 0

    def find_pause_s(self) -> float:
        """Return for how many more seconds the vendor takes no request; 0 if it does."""
        return 0.0

    def select_campaigns(
        self, ids: Sequence[str] | None, select: SelectCampaigns = campaigns.select_campaigns
    ) -> list[Campaign]:
        """Return the campaigns of a flow run; with no ids, all that `select` finds.

        Raises:
            UsageError: a campaign is unknown, or there is none.
        """
        with self.database.transaction() as connection:
            return select(connection, ids, self.settings.campaign_rules())

    def for_campaign(self, _: Campaign) -> Self:
        """Return the context for the jobs of a campaign: the same one for all."""
        return self

    def require_account(self, campaign: Campaign) -> None:
        """Check that the context may work for a campaign: this one may for all."""


@dataclass(frozen=True, kw_only=True)
class ApiContext(DatabaseContext):
    """A context whose jobs also send requests to the vendor, with the login of one account.

    Attributes:
        account: the account.
        session: its session with the vendor's API.
        accounts: opens the contexts of other accounts; None: there are no others.
    """

    account: Account
    session: ApiSession
    opt_out_looks: OptOutLooks = field(default_factory=OptOutLooks)
    accounts: "AccountContexts | None" = None

    @property
    def account_name(self) -> str:
        """The name of the account."""
        return self.account.name

    @property
    def api(self) -> LeadsApi:
        """The vendor's API."""
        return self.session.api

    @property
    def limiter(self) -> RateLimiter:
        """The rate limiter that every request passes."""
        return self.session.limiter

    @property
    def requests_sent(self) -> int:
        """Requests sent to the vendor so far, by this account."""
        return self.session.transport.requests_sent

    def find_pause_s(self) -> float:
        """Return for how many more seconds the vendor takes no request of the account."""
        return self.limiter.find_pause_s()

    def select_campaigns(
        self, ids: Sequence[str] | None, select: SelectCampaigns = campaigns.select_campaigns
    ) -> list[Campaign]:
        """Return the campaigns of a flow run that have a login here; warn about the others.

        Raises:
            UsageError: a campaign is unknown, or there is none; or a campaign that `ids` names has
                no login here, or none of all has.
        """
        selected = super().select_campaigns(ids, select)
        return keep_served(self.settings, selected, are_named=bool(ids), warn=self.log.warning)

    def for_campaign(self, campaign: Campaign) -> "ApiContext":
        """Return the context of a campaign's account; open it if it is the first of its account.

        Raises:
            UsageError: the account has no login here.
        """
        if campaign.account == self.account.name or self.accounts is None:
            return self
        return self.accounts.open(campaign.account)

    def require_account(self, campaign: Campaign) -> None:
        """Check that a campaign still belongs to the account of this context.

        Raises:
            RunError: it does not.
        """
        if campaign.account != self.account.name:
            raise RunError(
                f"the campaign has been moved from account {self.account.name} to"
                f" {campaign.account}; the next run goes on with that one's login"
            )

    def open_threads(self) -> AbstractContextManager[RequestThreads]:
        """Open threads for requests; a run that is stopped ends their waits for permits."""
        return open_threads(self.settings.read_concurrency, on_stop=self.limiter.stop)

    def open_create_threads(self) -> AbstractContextManager[RequestThreads]:
        """Open threads for creates, of which more may be sent at once; see `open_threads`."""
        return open_threads(self.settings.max_concurrency, on_stop=self.limiter.stop)


class AccountContexts:
    """The contexts of a flow run's accounts, each opened with the first of its campaigns.

    Args:
        database_context: what they share.
        purpose: decides which slots of the rate limiters the requests may use.
        resources: holds the sessions open.
    """

    def __init__(
        self, database_context: DatabaseContext, purpose: Purpose, resources: ExitStack
    ) -> None:
        self._database_context = database_context
        self._purpose = purpose
        self._resources = resources
        self._opened: dict[str, ApiContext] = {}

    def open(self, name: str) -> ApiContext:
        """Return the context of an account.

        Raises:
            UsageError: the account has no login here.
            RunError: the environment names a CA bundle or a proxy that cannot be used.
        """
        if name not in self._opened:
            shared = self._database_context
            session = self._resources.enter_context(
                open_api(
                    shared.settings,
                    shared.database,
                    shared.log.warning,
                    account=name,
                    purpose=self._purpose,
                    on_wait=shared.log.info,
                    patience_s=PATIENCE_S if has_several_accounts(shared.settings) else math.inf,
                )
            )
            self._opened[name] = ApiContext(
                **vars(shared),
                account=shared.settings.get_account(name),
                session=session,
                accounts=self,
            )
        return self._opened[name]


#: What a run works with: a DatabaseContext, or an ApiContext.
C = TypeVar("C", bound=DatabaseContext, covariant=True)
AnyContext = TypeVar("AnyContext", bound=DatabaseContext)


@dataclass(kw_only=True)
class CampaignRun(Generic[C]):
    """One campaign's part of a flow run: a row of `leadloop.sync_runs`; thread-safe.

    `campaign` is the campaign's row as it was last read. A job calls `refresh` before each claim,
    list of opt-outs or window, so that a setting changed during the run counts from there on.
    Reading `campaign` sends no query, so its values do not change between two calls of `refresh`.

    Attributes:
        run_id: its row.
        campaign: the campaign's settings, as they were last read.
        context: what the run works with.
        steps: where its steps are logged; None: nowhere.
        was_enabled: whether the campaign was enabled when the run began. Then every claim requires
            that it still is; a run that names a disabled campaign sends its leads all the same.
    """

    run_id: int
    campaign: Campaign
    context: C
    steps: StepLog | None = None
    was_enabled: bool = field(init=False)
    _read_at: float = field(init=False)
    _lock: Lock = field(init=False, default_factory=Lock)

    def __post_init__(self) -> None:
        """Keep how the run began; the first `refresh` reads the row, which may be old by now.

        Earlier campaigns of the run, or errands of a lane, may have taken long.
        """
        self.was_enabled = self.campaign.enabled
        self._read_at = -math.inf

    def refresh(self) -> Campaign:
        """Return the campaign's row, read again at first, and if the last read is a second old.

        Raises:
            CampaignDeleted: the row was deleted.
            DatabaseError: Postgres refused, or failed several times.
        """
        with self._lock:
            if read_boot_clock() >= self._read_at + MAX_ROW_AGE_S:
                return self._reload()
            return self.campaign

    def reload(self) -> Campaign:
        """Read the campaign's row again, and return it.

        Raises:
            CampaignDeleted: the row was deleted.
            DatabaseError: Postgres refused, or failed several times.
        """
        with self._lock:
            return self._reload()

    def _reload(self) -> Campaign:
        campaign_id, rules = self.campaign.campaign_id, self.context.settings.campaign_rules()
        self.campaign = self.context.database.retry(
            lambda c: campaigns.reload_campaign(c, campaign_id, rules), single_statement=True
        )
        self.context.require_account(self.campaign)
        self._read_at = read_boot_clock()
        return self.campaign

    def write(
        self, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a function of `db` in a transaction, and retry it where the connection was cut.

        Raises:
            DatabaseError: Postgres refused, or failed several times.
        """
        return self.context.database.retry(lambda connection: work(connection, *args, **kwargs))

    def log_step(self, message: str, *args: object) -> None:
        """Log a step of a person's interest, once a message: see `tasks.step_log.StepLog`."""
        if self.steps is not None:
            self.steps.log_step(self.campaign.campaign_id, message, *args)

    def log_progress(self, counts: Mapping[str, int]) -> None:
        """Hand over the counts so far, whose sums are logged each minute or so."""
        if self.steps is not None:
            self.steps.log_progress(self.campaign.campaign_id, counts)

    def warn(self, message: str, *args: object) -> None:
        """Log a warning that begins with the campaign's id."""
        self.context.log.warning(f"campaign %s: {message}", self.campaign.campaign_id, *args)


def require_schema(database: Database) -> None:
    """Check that the schema is at this version; the error names the database.

    Raises:
        UsageError: it is not.
        DatabaseError: Postgres cannot be reached.
    """
    try:
        database.run(require_current)
    except UsageError as error:
        raise UsageError(f"Postgres at {database.display_name}: {error}") from None


@contextmanager
def open_database_context(settings: Settings, host: RunHost) -> Iterator[DatabaseContext]:
    """Connect to Postgres alone, for a run that sends the vendor nothing and needs no login.

    Raises:
        UsageError: the database is not named, or its schema has another version.
        DatabaseError: Postgres cannot be reached.
    """
    url = settings.require_database_url()
    with Database(url, pool_size=_MAX_CONNECTIONS) as database:
        require_schema(database)
        with database.autocommit() as connection:
            yield DatabaseContext(
                settings=settings, database=database, locks=RunLocks(connection), host=host
            )


@contextmanager
def open_api_context(
    settings: Settings, host: RunHost, *, purpose: Purpose = Purpose.BULK
) -> Iterator[ApiContext]:
    """Connect to Postgres, and prepare the session with the vendor's API; nothing is sent yet.

    The context is that of the account `default`, or of the first one that can be used here.

    Args:
        settings: the database, the accounts with their logins and rate limits.
        host: the program that runs the jobs.
        purpose: decides which slots of the rate limiter the requests may use.

    Raises:
        UsageError: settings are missing, or the schema has another version.
        DatabaseError: Postgres cannot be reached.
        RunError: the environment names a CA bundle or a proxy that cannot be used.
    """
    with open_database_context(settings, host) as context, ExitStack() as resources:
        first, *_ = list_served_accounts(settings) or settings.list_accounts()
        yield AccountContexts(context, purpose, resources).open(first.name)


@contextmanager
def open_lane_contexts(
    settings: Settings,
    host: RunHost,
    database: Database,
    lanes: Mapping[str, Purpose],
    session: int,
    account: Account,
) -> Iterator[dict[str, ApiContext]]:
    """Prepare contexts for threads that work side by side: one database, one account.

    Args:
        settings: of all.
        host: of all.
        database: with connections for all.
        lanes: a name for each context, and the purpose of its requests.
        session: the live run whose connections theirs end with (`db.live_places`).
        account: whose login they use.

    Yields:
        The contexts by name.

    Raises:
        UsageError: settings are missing.
        DatabaseError: Postgres cannot be reached.
        RunError: the environment names a CA bundle or a proxy that cannot be used.
    """
    contexts: dict[str, ApiContext] = {}
    opt_out_looks = OptOutLooks(by_others=True)
    tokens = pauses = None
    with ExitStack() as stack:
        for lane, purpose in lanes.items():
            connection = stack.enter_context(database.autocommit())
            join_session(connection, session)
            api = stack.enter_context(
                open_api(
                    settings,
                    database,
                    host.log.warning,
                    account=account.name,
                    purpose=purpose,
                    is_paced=purpose in _PACED,
                    tokens=tokens,
                    pauses=pauses,
                )
            )
            tokens, pauses = api.tokens, api.limiter.pauses
            contexts[lane] = ApiContext(
                settings=settings,
                database=database,
                locks=RunLocks(connection),
                host=host,
                account=account,
                session=api,
                opt_out_looks=opt_out_looks,
            )
        yield contexts


def start_run(context: AnyContext, flow: str, campaign: Campaign) -> CampaignRun[AnyContext]:
    """Write the row of one campaign's run, and recover dead runs: see `start_runs`."""
    (run,) = start_runs(context, flow, [campaign])
    return run


def start_runs(
    context: AnyContext, flow: str, selected: Sequence[Campaign]
) -> list[CampaignRun[AnyContext]]:
    """Write the rows of campaigns' runs, then recover dead runs: what they sent becomes in doubt.

    Before both, compare the database with the last one seen: a standby that has replayed the runs'
    rows has replayed the stored values too.

    Raises:
        DatabaseError: no row was written.
    """
    _check_database(context)
    opened = open_runs(context, flow, selected)
    _recover_dead_runs(context)
    return opened


def open_runs(
    context: AnyContext, flow: str, selected: Sequence[Campaign]
) -> list[CampaignRun[AnyContext]]:
    """Write the rows of campaigns' runs, all or none, as runs of a flow run that has started.

    Raises:
        DatabaseError: no row was written.
    """
    with context.database.translate_errors():
        ids = context.locks.open_runs(
            flow=flow,
            campaign_ids=[campaign.campaign_id for campaign in selected],
            flow_run_id=context.host.flow_run_id,
        )
    return [
        CampaignRun(
            run_id=ids[campaign.campaign_id],
            campaign=campaign,
            context=context.for_campaign(campaign),
        )
        for campaign in selected
    ]


@dataclass(kw_only=True)
class CoveringRun:
    """The covering row of a flow run; its counts, and its error if it has one, to be filled in."""

    run_id: int
    counts: dict[str, Any] = field(default_factory=dict)
    error: LeadloopError | None = None


@contextmanager
def cover_campaigns(context: DatabaseContext, flow: str, account: str) -> Iterator[CoveringRun]:
    """Write the covering row of a flow run, and recover dead runs, as `start_runs` does.

    The row stands for every campaign of the account without a separate row. The end of the block
    closes it.

    Raises:
        DatabaseError: the row was not written, or not closed.
    """
    _check_database(context)
    with context.database.translate_errors():
        run_id = context.locks.open_run(
            flow=flow,
            campaign_id=runs.EVERY_CAMPAIGN,
            flow_run_id=context.host.flow_run_id,
            account=account,
        )
    covering = CoveringRun(run_id=run_id)
    error: LeadloopError | None = RunError("the run was stopped before it was done")
    try:
        _recover_dead_runs(context)
        yield covering
        error = covering.error
    except LeadloopError as failure:
        error = failure
        raise
    finally:
        _close_run(context, run_id, covering.counts, error)


def _check_database(context: DatabaseContext) -> None:
    if change := context.database.retry(create_holds.check_database):
        context.log.warning("the database has changed (%s): all creates are held", change)


def _recover_dead_runs(context: DatabaseContext) -> None:
    runs.recover_dead_runs(context.database, context.log.warning, lock_id=context.locks.lock_id)


def finish_run(
    run: CampaignRun[DatabaseContext], counted: Mapping[str, Any], error: BaseException | None
) -> None:
    """Write how the run ended; what it sent and got no response to becomes in doubt.

    Then fold the counts, where that is due.
    """
    _close_run(run.context, run.run_id, counted, error)


def _close_run(
    context: DatabaseContext, run_id: int, counted: Mapping[str, Any], error: BaseException | None
) -> None:
    def write(connection: Connection) -> None:
        runs.mark_unanswered_in_doubt(connection, run_id)
        runs.close_run(
            connection,
            run_id=run_id,
            state="completed" if error is None else "failed",
            counts=counted,
            error=None if error is None else error_line(error),
        )

    context.database.retry(write)
    context.folder.fold_if_due(context.database, context.log.warning)


@contextmanager
def translate_unexpected(log: Logger) -> Iterator[None]:
    """Replace an exception of the block that is not ours by one without personal data.

    The log gets its traceback at DEBUG, for developers: frames and types, not the exception's text.

    Raises:
        UnexpectedError: the block raised an exception that is not ours.
    """
    try:
        yield
    except LeadloopError:
        raise
    except Exception as error:
        log.debug("unexpected error:\n%s", format_traceback(error))
        raise UnexpectedError(
            f"unexpected {type(error).__name__} in {find_origin(error)}; what was done is stored:"
            " if it happens again, PREFECT_LOGGING_LEVEL=DEBUG has its traceback logged"
        ) from None


def error_line(error: BaseException) -> str:
    """Return the text of our error; of any other only its type, as its text may be personal."""
    if isinstance(error, LeadloopError):
        return str(error)
    return f"unexpected {type(error).__name__}"
