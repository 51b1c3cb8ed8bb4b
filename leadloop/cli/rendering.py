"""Tables that commands print for people: counts without personal data."""

from collections.abc import Mapping, Sequence
from numbers import Number
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from leadloop.core.accounts import DEFAULT_ACCOUNT
from leadloop.core.escaping import escape_unprintable
from leadloop.core.summary_text import select_counts

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
    "held_back",
)
#: A run's table with more columns is wider than 80 unless cells share their padding.
_MOST_PADDED = 8
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


def render_counts(title: str, counts: Mapping[str, int]) -> Table:
    """Render the counts of a run as a table of one row."""
    table = _create_table(title)
    table.collapse_padding = len(counts) > _MOST_PADDED
    for name in counts:
        table.add_column(name.replace("_", " "), justify="right")
    table.add_row(*(f"{value:,}" for value in counts.values()))
    return table


def render_rows(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Render rows as a table that fits 80 columns; their keys are the headings."""
    table = _create_table(title)
    table.box, table.padding = None, (0, 1, 0, 0)
    for name, value in rows[0].items() if rows else ():
        heading = Text(name.replace("_", " "))
        table.add_column(heading, justify="right" if isinstance(value, Number) else "left")
    for row in rows:
        table.add_row(*(_literal(_format_value(value)) for value in row.values()))
    return table


def print_summary(console: Console, flow: str, summary: Mapping[str, Any]) -> None:
    """Print a flow's summary: the sums, and a row a campaign if there are several."""
    if "push" in summary or "poll" in summary or "disable" in summary:
        console.print(
            Group(*(render_counts(name, _select_shown(part)) for name, part in summary.items()))
        )
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
        rows = [
            {"campaign": campaign_id, **{name: counts.get(name, 0) for name in shown}}
            for campaign_id, counts in each.items()
        ]
        console.print(render_rows("by campaign", rows))


def _select_shown(summary: Mapping[str, Any]) -> dict[str, int]:
    """Return the counts of a summary that are worth a column."""
    counts = select_counts(summary)
    return {name: value for name, value in counts.items() if value or name not in _RARE_COUNTS}


def print_plan(console: Console, summary: Mapping[str, Any]) -> None:
    """Print what a push would do with each campaign's leads, with the reasons of refusals."""
    for campaign_id, plan in summary["campaigns"].items():
        table = _create_table(f"a push of {campaign_id}", show_header=False)
        table.add_column()
        table.add_column(justify="right")
        for name, value in select_counts(plan).items():
            table.add_row(name.replace("_", " "), f"{value:,}")
            for reason, amount in plan.get(_REASON_FIELDS.get(name, ""), {}).items():
                table.add_row(_literal(f"  {reason}"), f"{amount:,}")
        console.print(table)
        if plan["sample"]:
            console.print("One of the leads, with masked values:")
            console.print_json(data=plan["sample"])


def _create_table(title: str, *, show_header: bool = True) -> Table:
    """Create a table; its title may contain a campaign's id."""
    return Table(title=_literal(title, "table.title"), show_header=show_header)


def _literal(text: str, style: str = "") -> Text:
    """Return a text that somebody else wrote, as wide as it is shown and without markup."""
    return Text(escape_unprintable(text), style)


def render_audit(campaign_id: str, counts: Mapping[str, Any]) -> Table:
    """Render the differences that an audit found in one campaign, with a few lead ids each."""
    table = _create_table(f"audit of {campaign_id}")
    table.add_column("")
    table.add_column("leads", justify="right")
    table.add_column("such as")
    samples = counts.get("samples", {})
    for name, value in select_counts(counts).items():
        if value or name == "seen":
            table.add_row(
                name.replace("_", " "), f"{value:,}", _literal(", ".join(samples.get(name, ())))
            )
    return table
