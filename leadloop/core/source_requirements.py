"""The requirements that a campaign's own table or view must meet as a source of leads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from leadloop.core.errors import RunError
from leadloop.core.leads import LEAD_FIELDS, is_reserved_name

#: The column types of `ebr_datetime` that hold a time without a guess at its format.
TIME_TYPES = frozenset({"timestamp with time zone", "timestamp without time zone", "date"})

#: The column types of `priority`.
PRIORITY_TYPES = frozenset({"smallint", "integer", "bigint"})

#: The highest priority of a lead: those above count as this.
MAX_PRIORITY = 32_767

#: The longest `lead_id` that is accepted, in characters.
MAX_LEAD_ID_LENGTH = 255

_GUIDE = "docs/how-to/bring-your-own-table.md"


_MAX_SHOWN_CHARACTERS = 64


class SourceError(RunError):
    """A source that cannot be used. The message gives the reason and repeats no row."""


@dataclass(frozen=True, kw_only=True)
class UnreadableRows:
    """Rows of a source that cannot be read or stored; `named` describes the first ones."""

    count: int = 0
    named: tuple[str, ...] = ()

    def __add__(self, more: "UnreadableRows") -> "UnreadableRows":
        """Add the rows."""
        return UnreadableRows(count=self.count + more.count, named=self.named + more.named)

    def __str__(self) -> str:
        """Return a list of the rows in one line, without values."""
        others = self.count - len(self.named)
        return ", ".join(self.named) + (f" and {others} more" if others > 0 else "")


def describe_row(lead_id: str | None, column: str | None) -> str:
    """Return text that names a row by its lead id and column, as far as they are known."""
    name = f"lead {lead_id[:_MAX_SHOWN_CHARACTERS]!r}" if lead_id else "a row without a lead_id"
    return f"{name} (column {column})" if column else name


def check_columns(source: str, columns: Mapping[str, str], required: Sequence[str]) -> None:
    """Check that rows with the given columns can become leads.

    Args:
        source: the name in the campaign's row.
        columns: the type of each column, by its name.
        required: the fields that the campaign requires of its leads.

    Raises:
        SourceError: a column is missing, has the wrong type, or has a name that the API reserves.
    """
    missing = sorted({"lead_id", *required} - columns.keys())
    if missing:
        names = f"column{'s' if len(missing) > 1 else ''} {', '.join(missing)}"
        raise SourceError(f"the campaign's source {source!r} lacks the {names}: see {_GUIDE}")
    when = columns.get("ebr_datetime")
    if when is not None and when not in TIME_TYPES:
        raise SourceError(
            f"in the campaign's source {source!r} ebr_datetime is {when}: it must be"
            " timestamptz, timestamp or date"
        )
    priority = columns.get("priority")
    if priority is not None and priority not in PRIORITY_TYPES:
        raise SourceError(
            f"in the campaign's source {source!r} priority is {priority}: it must be an integer;"
            " a custom field needs another name"
        )
    reserved = sorted(name for name in columns.keys() - LEAD_FIELDS if is_reserved_name(name))
    if reserved:
        raise SourceError(
            f"the campaign's source {source!r} has columns whose names the vendor's API reserves:"
            f" {', '.join(reserved)}; rename them in a view, or leave them out"
        )


def source_not_found(source: str) -> SourceError:
    """Return the error for a source that does not exist."""
    return SourceError(
        f"the campaign's source {source!r} is no table or view of this database: write"
        " schema.name into leadloop.campaigns.source"
    )


def source_not_readable(source: str) -> SourceError:
    """Return the error for a source that this role may not read."""
    return SourceError(
        f"this role may not read the campaign's source {source!r}: GRANT USAGE on its schema and"
        f" SELECT on it ({_GUIDE})"
    )
