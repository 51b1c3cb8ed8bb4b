"""Tables that commands print for people: counts without personal data."""

import sys
from collections.abc import Mapping, Sequence
from numbers import Number
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from leadloop.core.accounts import DEFAULT_ACCOUNT
from leadloop.core.escaping import escape_unprintable
from leadloop.core.plurals import format_count
from leadloop.core.summary_text import format_summary, select_counts, select_stages

_CAMPAIGN_FIELDS = (
    ("new", "new"),
    ("age of the oldest new lead", "new_oldest_s"),
    ("sending", "sending"),
    ("in doubt", "in_doubt"),
    ("created at the vendor", "created"),
    ("with an outcome", "processed"),
    ("rejected", "rejected"),
    ("cancelled by an opt-out", "cancelled"),
    ("disabled by an opt-out", "disabled"),
    ("opt-outs waiting", "disable_pending"),
    ("opt-outs failed", "disable_failed"),
    ("age of the oldest open opt-out", "disable_oldest_s"),
    ("outcomes stored up to", "watermark"),
    ("watermark lag", "watermark_lag_s"),
    ("windows owed", "owed"),
    ("windows accepted as unreadable", "owed_accepted"),
    ("late outcomes", "late"),
    ("lookback needed for late outcomes", "lookback_needed_s"),
)
#: The key of a plan's reasons, by the name of the count that they explain.
_REASON_FIELDS = {"refuse": "refusals", "cancel": "cancellations"}
#: Counts that are shown only if they are not 0, so that the others fit 80 columns.
_RARE_COUNTS = (
    "late",
    "owed",
    "not_looked_up",
    "settling",
    "suspects",
    "from_source",
    "unreadable_rows",
    "from_opt_out_source",
    "held_back",
)
#: A run's table with more columns is wider than 80 unless cells share their padding.
_MOST_PADDED = 8
#: The columns that a text needs which may be broken anywhere, such as an id.
_MIN_FOLDED = 12
#: Rows of a table of reasons, and the lead ids in each.
_MAX_REASONS, _MAX_SAMPLES = 20, 3
#: The columns of the table of several campaigns, within 80 columns.
_OVERVIEW_FIELDS = (
    ("\nnew", "new"),
    ("\nage", "new_oldest_s"),
    ("in\ndoubt", "in_doubt"),
    ("\ncreated", "created"),
    ("\nrejected", "rejected"),
    ("with\noutcome", "processed"),
    ("opt-outs\nopen", "disable_open"),
    ("\nage", "disable_oldest_s"),
    ("\nbehind", "watermark_lag_s"),
)
#: The columns of the view `campaign_health` that are rendered.
CAMPAIGN_COLUMNS = frozenset(
    {"campaign_id", "account", "enabled", "health", "creates_held"}
    | {*dict(_CAMPAIGN_FIELDS).values()}
)
#: Marks by health, the most severe first.
_MARKS = {"critical": "!!", "warning": "!", "ok": ""}
_LEGEND = "!! critical  ! warning  (…) not enabled  – none"
_STYLES = {"critical": "bold red", "warning": "yellow"}


class FoldableText(Text):
    """A text that may be broken anywhere, such as an id: it needs few columns."""

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Return the columns that the text needs, and those of its longest line."""
        needed, longest = super().__rich_measure__(console, options)
        return Measurement(min(needed, _MIN_FOLDED), longest)


class FirstFitting:
    """The first of some tables that fits the console without a word or a number cut; or the last.

    Args:
        tables: the same figures, each table narrower than those before it.
    """

    def __init__(self, *tables: Table) -> None:
        self._tables = tables

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table."""
        unlimited = options.update_width(sys.maxsize)
        *wider, narrowest = self._tables
        yield next(
            (
                table
                for table in wider
                if Measurement.get(console, unlimited, table).minimum <= options.max_width
            ),
            narrowest,
        )


def render_status(
    rows: Sequence[Mapping[str, Any]], latencies: Sequence[Mapping[str, Any]] = ()
) -> Table:
    """Render a single campaign in full, or several as one row each, the most severe first."""
    if len(rows) == 1:
        return render_campaign(rows[0], latencies)
    is_divided = any(row["account"] != DEFAULT_ACCOUNT for row in rows)
    legend = f"{_LEGEND}  @ account" if is_divided else _LEGEND
    table = Table(caption=legend, caption_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    table.add_column("\ncampaign", overflow="fold", min_width=12)
    for heading, _ in _OVERVIEW_FIELDS:
        table.add_column(heading, justify="right", no_wrap=True)
    severity = list(_MARKS).index
    for row in sorted(
        rows, key=lambda row: (severity(row["health"]), not row["enabled"], row["campaign_id"])
    ):
        name = row["campaign_id"] if row["enabled"] else f"({row['campaign_id']})"
        name += "" if row["push_enabled"] else " paused"
        name += " held" if row["creates_held"] else ""
        name += "" if row["account"] == DEFAULT_ACCOUNT else f" @{row['account']}"
        shown = {**row, "disable_open": row["disable_pending"] + row["disable_failed"]}
        figures = (abbreviate_value(key, shown[key]) for _, key in _OVERVIEW_FIELDS)
        table.add_row(_MARKS[row["health"]], _literal(name), *figures, style=_row_style(row))
    return table


def _row_style(row: Mapping[str, Any]) -> str:
    return _STYLES.get(row["health"], "" if row["enabled"] else "dim")


def render_problems(problems: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Render each problem, and under it the command that resolves it, ready to copy."""
    if not problems:
        return Text("All is well.", style="green")
    return Group(
        *(
            Text.assemble(
                (problem["severity"], _STYLES[problem["severity"]]),
                _literal(f" {problem['campaign_id']}: {problem['said']}"),
                "\n  ",
                (escape_unprintable(problem["command"]), "bold"),
            )
            for problem in problems
        )
    )


def render_campaign(row: Mapping[str, Any], latencies: Sequence[Mapping[str, Any]] = ()) -> Table:
    """Render all figures of one campaign, and the latencies of its last hour."""
    table = _create_table(f"campaign {row['campaign_id']}", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("health", row["health"], style=_row_style(row))
    if row["account"] != DEFAULT_ACCOUNT:
        table.add_row("account", row["account"])
    table.add_row("enabled", "yes" if row["enabled"] else "no")
    hindrance = "held" if row["creates_held"] else "" if row["push_enabled"] else "paused"
    table.add_row("may create leads", f"no, {hindrance}" if hindrance else "yes")
    for heading, key in _CAMPAIGN_FIELDS:
        table.add_row(heading, format_cell(key, row[key]))
    for latency in latencies:
        table.add_row(f"{latency['kind']} latency, last hour", _format_latency(latency))
    return table


def _format_latency(row: Mapping[str, Any]) -> str:
    """Format the percentiles of a latency, which are upper bounds; None: more than an hour."""
    p50, p99 = ("> 1 h" if row[key] is None else f"≤ {row[key]:g} s" for key in ("p50_s", "p99_s"))
    return f"p50 {p50}, p99 {p99}"


def format_cell(key: str, value: Any) -> str:
    """Format a value by its column: a time, a duration or a number."""
    if value is not None and key == "watermark":
        return f"{value:%Y-%m-%d %H:%M:%S}Z"
    if value is not None and key.endswith("_s"):
        return format_duration(value)
    return _format_value(value)


def _format_value(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


def format_duration(seconds: float) -> str:
    """Format a duration in its two largest units."""
    whole = max(0, int(seconds))
    for unit, size, subunit, subsize in (("d", 86400, "h", 3600), ("h", 3600, "min", 60)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // subsize} {subunit}"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def abbreviate_value(key: str, value: Any) -> str:
    """Abbreviate a value to five characters: ages as 40d, thousands as 12k, millions as 3.4M."""
    if value is None:
        return "–"
    if key.endswith("_s"):
        amount, unit, *_ = format_duration(value).split()
        return f"{amount}{unit[0]}"
    if value >= 1_000_000:
        return f"{value // 100_000 / 10}M"
    return f"{value // 1000}k" if value >= 10_000 else f"{value:,}"


def render_counts(title: str, counts: Mapping[str, int]) -> RenderableType:
    """Render the counts of a run as a table of one row; where that is too wide, of one column."""
    wide = _create_table(title)
    wide.collapse_padding = len(counts) > _MOST_PADDED
    tall = _create_table(title, show_header=False)
    tall.add_column()
    tall.add_column(justify="right", no_wrap=True)
    for name, value in counts.items():
        wide.add_column(name.replace("_", " "), justify="right")
        tall.add_row(name.replace("_", " "), f"{value:,}")
    wide.add_row(*(f"{value:,}" for value in counts.values()))
    return FirstFitting(wide, tall)


def render_rows(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Render rows as a table; their keys are the headings."""
    table = _create_open_table(title)
    for name, value in rows[0].items() if rows else ():
        is_number = isinstance(value, Number)
        table.add_column(Text(name.replace("_", " ")), justify="right" if is_number else "left")
    for row in rows:
        table.add_row(*map(_render_cell, row.values()))
    return table


def _render_cell(value: Any) -> Text:
    text = _format_value(value)
    return Text(text) if isinstance(value, Number) else _foldable(text)


def render_rejections(
    rows: Sequence[Mapping[str, Any]], *, reasons: int, leads: int
) -> RenderableType:
    """Render why leads were rejected, with a few of their ids.

    Args:
        rows: as those of the view `leadloop_monitor.rejections`, the most frequent reason first.
        reasons: how many reasons there are, also those that `rows` leave out.
        leads: how many leads were rejected for them.
    """
    names_campaigns = len({row["campaign_id"] for row in rows}) > 1
    table = _create_open_table("rejected, and why")
    table.add_column("leads", justify="right", no_wrap=True)
    if names_campaigns:
        table.add_column("campaign")
    table.add_column("reason")
    table.add_column("such as")
    for row in rows[:_MAX_REASONS]:
        table.add_row(
            f"{row['leads']:,}",
            *([_foldable(row["campaign_id"])] if names_campaigns else []),
            _foldable(row["reason"] or "–"),
            _foldable(", ".join(row["sample_lead_ids"][:_MAX_SAMPLES])),
        )
    shown = rows[:_MAX_REASONS]
    if reasons == len(shown):
        return table
    left = format_count(leads - sum(row["leads"] for row in shown), "lead")
    return Group(table, f"and {left} for {format_count(reasons - len(shown), 'more reason')}")


def print_summary(console: Console, flow: str, summary: Mapping[str, Any]) -> None:
    """Print a flow's summary: the sums, a row a campaign if there are several, and rejections."""
    if stages := select_stages(summary):
        console.print(
            Group(*(render_counts(name, _select_shown(part)) for name, part in stages.items()))
        )
        _print_rejections(console, stages.get("push", {}))
        return
    if flow == "audit-leads":
        console.print(
            Group(*(render_audit(name, part) for name, part in summary["campaigns"].items()))
        )
        return
    shown = _select_shown(summary)
    console.print(render_counts(flow, shown))
    each = summary.get("campaigns", {})
    if len(each) > 1:
        console.print(_render_campaigns(each, list(shown)))
    _print_rejections(console, summary)


def _render_campaigns(
    each: Mapping[str, Mapping[str, Any]], shown: Sequence[str]
) -> RenderableType:
    """Render a row a campaign: a column a count; where that is too wide, the counts in words."""
    rows = [
        {"campaign": campaign_id, **{name: counts.get(name, 0) for name in shown}}
        for campaign_id, counts in each.items()
    ]
    in_words = [
        {"campaign": campaign_id, "counts": format_summary(counts)}
        for campaign_id, counts in each.items()
    ]
    return FirstFitting(render_rows("by campaign", rows), render_rows("by campaign", in_words))


def _print_rejections(console: Console, summary: Mapping[str, Any]) -> None:
    rows = [
        {"campaign_id": campaign_id, **row}
        for campaign_id, counts in summary.get("campaigns", {}).items()
        for row in counts.get("rejections", ())
    ]
    if rows:
        rows.sort(key=lambda row: -row["leads"])
        leads = sum(row["leads"] for row in rows)
        console.print(render_rejections(rows, reasons=len(rows), leads=leads))


def _select_shown(summary: Mapping[str, Any]) -> dict[str, int]:
    """Return the counts of a summary that are worth a column."""
    counts = select_counts(summary)
    return {name: value for name, value in counts.items() if value or name not in _RARE_COUNTS}


def print_plan(console: Console, summary: Mapping[str, Any]) -> None:
    """Print what a push would do with each campaign's leads, with the reasons of refusals."""
    for campaign_id, plan in summary["campaigns"].items():
        table = _create_table(f"a push of {campaign_id}", show_header=False)
        table.add_column()
        table.add_column(justify="right", no_wrap=True)
        for name, value in select_counts(plan).items():
            table.add_row(name.replace("_", " "), f"{value:,}")
            for reason, amount in plan.get(_REASON_FIELDS.get(name, ""), {}).items():
                table.add_row(Padding(_foldable(reason), (0, 0, 0, 2)), f"{amount:,}")
        console.print(table)
        _print_lead_ids(console, plan)
        if plan["sample"]:
            console.print("One of the leads, with masked values:")
            console.print_json(data=plan["sample"])


def _print_lead_ids(console: Console, plan: Mapping[str, Any]) -> None:
    """Print the lead ids of a plan, if it has any: those to send, then by reason."""
    ids = plan.get("lead_ids", {})
    groups = [("send", plan["send"], ids.get("send", []))]
    for name, key in _REASON_FIELDS.items():
        groups += [
            (f"{name}, {reason}", plan[key][reason], each)
            for reason, each in ids.get(key, {}).items()
        ]
    for name, leads, each in groups:
        if each:
            left = leads - len(each)
            more = f" and {left:,} more" if left else ""
            console.print(_literal(f"{name}: {', '.join(each)}{more}"))


def _create_open_table(title: str) -> Table:
    """Create a table without lines, for texts: they leave more columns to the cells."""
    table = _create_table(title)
    table.box, table.padding = None, (0, 1, 0, 0)
    return table


def _create_table(title: str, *, show_header: bool = True) -> Table:
    """Create a table; its title may contain a campaign's id."""
    return Table(title=_literal(title, "table.title"), show_header=show_header)


def _foldable(text: str) -> FoldableText:
    """Return a text that somebody else wrote, which may be broken anywhere; see `_literal`."""
    return FoldableText(escape_unprintable(text), overflow="fold")


def _literal(text: str, style: str = "") -> Text:
    """Return a text that somebody else wrote, as wide as it is shown and without markup."""
    return Text(escape_unprintable(text), style)


def render_audit(campaign_id: str, counts: Mapping[str, Any]) -> Table:
    """Render the differences that an audit found in one campaign, with a few lead ids each."""
    table = _create_table(f"audit of {campaign_id}")
    table.add_column("")
    table.add_column("leads", justify="right", no_wrap=True)
    table.add_column("such as")
    samples = counts.get("samples", {})
    for name, value in select_counts(counts).items():
        if value or name == "seen":
            table.add_row(
                name.replace("_", " "), f"{value:,}", _foldable(", ".join(samples.get(name, ())))
            )
    return table
