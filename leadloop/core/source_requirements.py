"""What a campaign's own table or view must be like, so that its rows can be leads."""

from collections.abc import Mapping, Sequence

from leadloop.core.errors import RunError
from leadloop.core.leads import LEAD_FIELDS, is_reserved_name

#: The types of a column `ebr_datetime` that say when, without a guess at how they are written.
TIME_TYPES = frozenset({"timestamp with time zone", "timestamp without time zone", "date"})

#: The longest `lead_id` that is taken.
MAX_LEAD_ID_LENGTH = 255

_HOW = "docs/how-to/bring-your-own-table.md"


class SourceError(RunError):
    """A campaign's source cannot be used; one line says why, and repeats none of its rows."""


def check_columns(source: str, columns: Mapping[str, str], required: Sequence[str]) -> None:
    """See that rows with these columns can be leads.

    Args:
        source: the name that the campaign gives.
        columns: the type of each column by its name.
        required: the fields that the campaign's leads must have.

    Raises:
        SourceError: they cannot.
    """
    missing = sorted({"lead_id", *required} - columns.keys())
    if missing:
        raise SourceError(f"its source {source!r} lacks {_named(missing)}: see {_HOW}")
    when = columns.get("ebr_datetime")
    if when is not None and when not in TIME_TYPES:
        raise SourceError(
            f"in its source {source!r} ebr_datetime is {when}: it must be timestamptz, timestamp"
            " or date"
        )
    taken = sorted(name for name in columns.keys() - LEAD_FIELDS if is_reserved_name(name))
    if taken:
        raise SourceError(
            f"the vendor's answers use names of columns of its source {source!r} themselves:"
            f" {', '.join(taken)}; rename them in a view, or leave them out"
        )


def source_not_found(source: str) -> SourceError:
    """There is no such thing."""
    return SourceError(
        f"its source {source!r} is no table or view of this database: write schema.name into"
        " leadloop.campaigns.source"
    )


def source_not_readable(source: str) -> SourceError:
    """It is there, and not for this role."""
    return SourceError(
        f"this role may not read its source {source!r}: GRANT USAGE on its schema and SELECT on it"
        f" ({_HOW})"
    )


def _named(columns: Sequence[str]) -> str:
    return f"the column{'s' if len(columns) > 1 else ''} {', '.join(columns)}"
