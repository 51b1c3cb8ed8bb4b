"""The requirements that a campaign's own table or view must meet: of leads, or of opt-outs."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from leadloop.core.campaign_rules import Campaign
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


@dataclass(frozen=True, kw_only=True)
class NamedSource(ABC):
    """A table or view that a campaign's row names.

    Attributes:
        name: the name with its schema; `column` of `leadloop.campaigns` has it.
        timeout_s: the timeout of each statement on it, seconds.
    """

    noun: ClassVar[str]
    column: ClassVar[str]
    name: str
    timeout_s: int

    def __str__(self) -> str:
        """Return how messages name it."""
        return f"the campaign's {self.noun} {self.name!r}"

    @abstractmethod
    def check_columns(self, columns: Mapping[str, str]) -> None:
        """Check that the columns, types by name, are as it needs them.

        Raises:
            SourceError: they are not.
        """


@dataclass(frozen=True, kw_only=True)
class LeadSource(NamedSource):
    """The source of a campaign's leads, which have to have the `required_fields`."""

    noun = "source"
    column = "source"
    required_fields: Sequence[str]

    def check_columns(self, columns: Mapping[str, str]) -> None:
        """Check that rows with these columns can become leads; see `check_columns`."""
        check_columns(self.name, columns, self.required_fields)


@dataclass(frozen=True, kw_only=True)
class OptOutSource(NamedSource):
    """The source of a campaign's opt-outs."""

    noun = "opt-out source"
    column = "opt_out_source"

    def check_columns(self, columns: Mapping[str, str]) -> None:
        """Check that a row can name a lead or a phone number.

        Raises:
            SourceError: there is neither column.
        """
        if not columns.keys() & {"lead_id", "phone_number"}:
            raise SourceError(f"{self} has neither a column lead_id nor phone_number: see {_GUIDE}")


def find_lead_source(campaign: Campaign) -> LeadSource | None:
    """Return the source of a campaign's leads, if it names one."""
    if campaign.source is None:
        return None
    return LeadSource(
        name=campaign.source,
        timeout_s=campaign.source_timeout_s,
        required_fields=campaign.required_fields,
    )


def find_opt_out_source(campaign: Campaign) -> OptOutSource | None:
    """Return the source of a campaign's opt-outs, if it names one."""
    if campaign.opt_out_source is None:
        return None
    return OptOutSource(name=campaign.opt_out_source, timeout_s=campaign.source_timeout_s)


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


def source_not_found(source: NamedSource) -> SourceError:
    """Return the error for a source that does not exist."""
    return SourceError(
        f"{source} is no table or view of this database: write"
        f" schema.name into leadloop.campaigns.{source.column}"
    )


def source_not_readable(source: NamedSource) -> SourceError:
    """Return the error for a source that this role may not read."""
    return SourceError(
        f"this role may not read {source}: GRANT USAGE on its schema and SELECT on it ({_GUIDE})"
    )
