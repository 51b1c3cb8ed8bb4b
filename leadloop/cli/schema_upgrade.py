"""`leadloop init`: upgrade the schema, then count the rows behind the sums of the views."""

import sys
from enum import StrEnum

from db.counts import count_all_rows, fill_counts
from db.database import Database, DatabaseError
from db.schema import are_counts_filled, migrate_schema
from db.schema.reader_role import describe_missing, list_missing_statements
from leadloop.core.errors import RunError

_NOT_COUNTED = (
    "rows from before the upgrade are not counted: the views lack them until `leadloop init` has"
    " counted them; runs work meanwhile"
)


class CountScope(StrEnum):
    """The rows that `leadloop init` counts after the migration."""

    MISSING = "missing"
    NONE = "none"
    ALL = "all"


_COUNT_COMMANDS = {
    CountScope.MISSING: "leadloop init",
    CountScope.ALL: f"leadloop init --counts {CountScope.ALL}",
}


def upgrade_schema(database: Database, scope: CountScope) -> str:
    """Create or upgrade the schema, then count rows; print what is left to do on stderr.

    Returns:
        The version of the schema.

    Raises:
        UsageError: the schema or the server is unsuitable, see `migrate_schema`.
        DatabaseError: the migration failed; the schema is as it was.
        RunError: the count failed; the schema is upgraded.
    """
    version = database.retry(migrate_schema)
    if left := database.run(list_missing_statements):
        print(f"leadloop: {describe_missing(left)}", file=sys.stderr)
    if scope is not CountScope.NONE:
        _count_rows(database, scope, version)
    elif not database.run(are_counts_filled):
        print(f"leadloop: {_NOT_COUNTED}", file=sys.stderr)
    return version


def _count_rows(database: Database, scope: CountScope, version: str) -> None:
    count = count_all_rows if scope is CountScope.ALL else fill_counts
    try:
        count(database)
    except DatabaseError as error:
        raise RunError(
            f"the leadloop schema is upgraded to version {version}, and runs work, but the rows"
            f" could not be counted: {error}; the sums of the views are as they were:"
            f" `{_COUNT_COMMANDS[scope]}` counts again"
        ) from None
