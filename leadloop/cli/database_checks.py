"""The doctor's checks of Postgres: what a run will need of it, and what its sources show."""

from collections.abc import Sequence
from contextlib import ExitStack

from db.counts import list_uncounted_tables
from db.database import Database, DatabaseError
from db.monitor import ViewsUnavailable, read_status_snapshot
from db.opt_out_source import OPT_OUT_STAGING
from db.schema import are_counts_filled, require_current
from db.schema.permissions import list_missing_permissions
from db.schema.reader_role import describe_missing, list_missing_statements
from db.source import (
    LEAD_STAGING,
    NO_PRIVILEGE,
    Staging,
    has_readable_row,
    hides_rows,
    inspect_source,
    list_roles_with_access,
)
from db.surroundings import (
    describe_insecure_transport,
    describe_logged_rows,
    find_short_limit,
    is_read_only,
    list_foreign_lock_holders,
    list_hidden_tables,
    list_overridden_defaults,
)
from leadloop.cli.checks import Checklist
from leadloop.core.campaign_rules import Campaign
from leadloop.core.errors import RunError
from leadloop.core.plurals import format_count
from leadloop.core.source_requirements import (
    NamedSource,
    find_lead_source,
    find_opt_out_source,
)
from leadloop.settings import DATABASE_URL, MONITOR_DATABASE_URL, Settings
from tasks.context import RUN_CONNECTIONS
from tasks.source_sync import HIDDEN_ROWS, open_source_database

_PERMISSIONS = "see docs/how-to/grant-permissions.md"
_MAX_NAMED = 5


def check_database(settings: Settings, database: Database, checks: Checklist) -> None:
    """Check counts, rights, sessions, connections, locks, encryption, log and reader role."""
    _check_counts(database, checks)
    _check_permissions(database, checks)
    _check_session_settings(database, checks)
    _check_connections(database, checks)
    _check_locks(database, checks)
    _check_encryption(database, checks)
    with checks.record("Postgres's log") as check:
        logged = database.run(describe_logged_rows)
        check.is_warning = logged is not None
        check.detail = logged or "repeats no rows of failed statements"
    _check_reader(settings, database, checks)


def require_schema(database: Database) -> bool:
    """Check that the schema has this version, and that the login may read it.

    Returns:
        Whether all rows are counted too: the views show too little until then.

    Raises:
        UsageError: the schema is missing, or has another version.
        RunError: permissions are missing, such as those for tables that an upgrade has added.
    """
    try:
        database.run(require_current)
        return database.run(are_counts_filled)
    except DatabaseError as error:
        is_denied = error.sqlstate == NO_PRIVILEGE
        missing = database.run(list_missing_permissions) if is_denied else []
        if not missing:
            raise
        raise RunError(_describe_missing(missing)) from None


def _check_counts(database: Database, checks: Checklist) -> None:
    """Warn if triggers that count are missing or disabled: the views would drift from the rows."""
    with checks.record("counts") as check:
        tables = database.run(list_uncounted_tables)
        check.is_warning = bool(tables)
        check.detail = "the triggers that count are enabled"
        if tables:
            names = ", ".join(f"leadloop.{table}" for table in tables)
            check.detail = (
                f"triggers that count are disabled or missing on {names}, so the views show too"
                " little or too much: enable them (ALTER TABLE … ENABLE TRIGGER USER), then run"
                " `leadloop init --counts all`"
            )


def _check_permissions(database: Database, checks: Checklist) -> None:
    """Fail if the login may not do what runs do; warn if it may not see all rows."""
    with checks.record("permissions") as check:
        missing = database.run(list_missing_permissions)
        hidden = database.run(list_hidden_tables)
        check.detail = "this login may do what flows need; `init` and `opt-in` need more"
        if missing:
            check.failed, check.detail = True, _describe_missing(missing)
        elif hidden:
            check.is_warning = True
            check.detail = (
                f"row level security applies to this login in {', '.join(hidden)}: a run takes rows"
                " that it cannot see for missing; see that its policies hide none"
            )


def _describe_missing(permissions: Sequence[str]) -> str:
    left = len(permissions) - _MAX_NAMED
    others = f" and {left} more" if left > 0 else ""
    return f"missing: {', '.join(permissions[:_MAX_NAMED])}{others}; {_PERMISSIONS}"


def _check_session_settings(database: Database, checks: Checklist) -> None:
    """Fail if sessions can write nothing; name the defaults that they override."""
    with checks.record("session settings") as check:
        overridden = database.run(list_overridden_defaults)
        check.detail = "no default of the database or the role is in the way"
        if overridden:
            check.detail = f"defaults that sessions override: {', '.join(overridden)}"
        if database.run(is_read_only):
            check.failed = True
            check.detail = (
                f"sessions are read-only: {DATABASE_URL} names a standby, or"
                " default_transaction_read_only is on for the role, the database or the server"
            )


def _check_connections(database: Database, checks: Checklist) -> None:
    """Warn if a run may find no free connection."""
    with checks.record("connections") as check:
        short = database.run(find_short_limit, RUN_CONNECTIONS)
        check.is_warning = short is not None
        check.detail = f"a run opens at most {RUN_CONNECTIONS}"
        if short is not None:
            check.detail += f", but {short}: raise it"


def _check_locks(database: Database, checks: Checklist) -> None:
    """Warn if runs have to wait for locks that a role takes which does not run leadloop."""
    with checks.record("locks") as check:
        holders = database.run(list_foreign_lock_holders)
        check.is_warning = bool(holders)
        check.detail = "no foreign role holds a lock of leadloop"
        if holders:
            named = ", ".join(holders[:_MAX_NAMED])
            check.detail = (
                f"runs wait in vain for locks that other roles hold: {named}; end these sessions"
                " (SELECT pg_terminate_backend(pid)), and REVOKE CONNECT from such a role"
            )


def _check_encryption(database: Database, checks: Checklist) -> None:
    """Warn if others on the network can read the connection, or answer in Postgres's place."""
    with checks.record("encryption") as check:
        insecure = database.run(describe_insecure_transport)
        check.is_warning = insecure is not None
        check.detail = "the connection to Postgres is local, or encrypted to a verified server"
        if insecure is not None:
            check.detail = (
                f"the connection to Postgres {insecure}; add sslmode=verify-full, and if needed"
                f" sslrootcert, to {DATABASE_URL}"
            )


def _check_reader(settings: Settings, database: Database, checks: Checklist) -> None:
    """Warn if the page and the metrics cannot read the views as the reader role."""
    with checks.record("reader role") as check, ExitStack() as stack:
        if settings.monitor_database_url is not None:
            url = settings.monitor_database_url.get_secret_value()
            database = stack.enter_context(Database(url, pool_size=1, setting=MONITOR_DATABASE_URL))
        try:
            read_status_snapshot(database)
            check.detail = "reads the views"
        except ViewsUnavailable as error:
            statements = database.run(list_missing_statements)
            check.is_warning = True
            check.detail = describe_missing(statements) if statements else str(error)


def check_sources(
    settings: Settings, database: Database, campaigns: Sequence[Campaign], checks: Checklist
) -> None:
    """Check the login that reads sources, and read a row of each campaign's sources."""
    sources: list[tuple[Campaign, NamedSource, Staging]] = []
    for campaign in campaigns:
        if (named := find_lead_source(campaign)) is not None:
            sources.append((campaign, named, LEAD_STAGING))
        if (opt_outs := find_opt_out_source(campaign)) is not None:
            sources.append((campaign, opt_outs, OPT_OUT_STAGING))
    if sources:
        _check_source_login(settings, database, checks)
    for campaign, source, staging in sources:
        with (
            checks.record(f"{source.noun} of {campaign.campaign_id}") as check,
            open_source_database(settings, database) as reader,
        ):
            table = inspect_source(reader, source)
            has_row = has_readable_row(reader, source, table, staging)
            check.detail = (
                f"{table.relation} can be read, {format_count(len(table.columns), 'column')}"
            )
            if hides_rows(reader, source, table):
                check.is_warning = True
                check.detail = (
                    f"{table.relation} may have rows that its login does not see: row level"
                    " security applies to it"
                    if has_row
                    else f"{table.relation} {HIDDEN_ROWS}"
                )
            elif not has_row:
                check.detail += ", and no row"


def _check_source_login(settings: Settings, database: Database, checks: Checklist) -> None:
    """Warn if functions of a source's view run with a login that can read leadloop's tables."""
    with checks.record("source login") as check:
        with open_source_database(settings, database) as reader:
            roles = list_roles_with_access(reader)
        check.is_warning = bool(roles)
        check.detail = "cannot read leadloop's tables"
        if roles:
            check.detail = (
                "functions of a source's view run with a login that can read leadloop's tables, as"
                f" {', '.join(roles)}: set LEADLOOP_SOURCE_URL to a login that may read the sources"
                " alone, unless everyone who can change the sources is trusted"
                " (docs/how-to/bring-your-own-table.md)"
            )
