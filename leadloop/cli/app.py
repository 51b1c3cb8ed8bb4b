"""The commands: each translates its arguments, delegates, and shows the result."""

import json
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text
from typer.core import TyperCommand, TyperGroup

from leadloop import __version__
from leadloop.cli import environment, hints, rendering
from leadloop.cli.confirmation import ask_to_go_on, require_answerable
from leadloop.cli.integration import Integration, read_integration
from leadloop.cli.literal_console import LiteralConsole
from leadloop.cli.main import STOPPED
from leadloop.cli.schema_upgrade import CountScope, upgrade_schema
from leadloop.cli.working_directory import require_trusted_directory
from leadloop.core.errors import RunError, UsageError
from leadloop.core.escaping import escape_unprintable
from leadloop.core.lead_reasons import MAX_PREVIEW_IDS
from leadloop.core.plurals import format_count
from leadloop.core.summaries import collect_summary
from leadloop.core.timestamps import parse_time_argument
from leadloop.core.unseen_characters import is_clean_id
from leadloop.shipped_files import SHIPPED_FILES

_HELP_OPTIONS = frozenset({"-h", "--help"})


class _TrustedDirectoryGroup(TyperGroup):
    """The commands; a command that uses the working directory requires it to be trusted."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Resolve the command, and check the working directory before it runs."""
        name, command, rest = super().resolve_command(ctx, args)
        if name != "sandbox" and _HELP_OPTIONS.isdisjoint(rest):
            require_trusted_directory(str(name))
        _require_utf8(rest)
        return name, command, rest


def _require_utf8(arguments: Sequence[str]) -> None:
    """Check that the arguments are UTF-8; the name of a file may be in any encoding.

    Raises:
        UsageError: one is not.
    """
    for argument in arguments:
        if _HALF_CHARACTER.search(argument) and not Path(argument).exists():
            raise UsageError(f"{argument!r} is not UTF-8: check the encoding of the terminal")


app = typer.Typer(
    name="leadloop",
    cls=_TrustedDirectoryGroup,
    no_args_is_help=True,
    context_settings={"help_option_names": sorted(_HELP_OPTIONS, key=len)},
    pretty_exceptions_enable=False,
    add_completion=False,
    epilog=f"The files that messages name (docs/, prefect.yaml, automations.yaml): {SHIPPED_FILES}",
)

EnabledCampaignsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--campaign", "-c", help="A campaign's id; repeatable. Default: every enabled one."
    ),
]
AllCampaignsOption = Annotated[
    list[str] | None,
    typer.Option("--campaign", "-c", help="A campaign's id; repeatable. Default: all of them."),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object as the last line on stdout.")
]

# Bytes of an argument that are not UTF-8.
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")

err = LiteralConsole(stderr=True)
out = LiteralConsole()


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"leadloop {__version__}")
        raise typer.Exit


@app.callback()
def _handle_global_options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", is_eager=True, callback=_show_version
        ),
    ] = False,
) -> None:
    """Send leads from Postgres to SquadVoice's Leads API, and bring outcomes back."""


@app.command()
def init(
    counts: Annotated[
        CountScope,
        typer.Option(
            help="Rows to count for the views after the migration: those from before an upgrade"
            " that are not counted yet (missing), none, or all again, which corrects wrong sums."
        ),
    ] = CountScope.MISSING,
    as_json: JsonOption = False,
) -> None:
    """Create or upgrade the `leadloop` schema; idempotent, and safe to run concurrently."""
    with environment.open_configured_database(require_schema=False) as (_, database):
        version = upgrade_schema(database, counts)
        name = database.display_name
    if as_json:
        _print_json({"version": version})
    else:
        out.print(f"The leadloop schema is at version {version} ({name}).", soft_wrap=True)


class _PlainUsageCommand(TyperCommand):
    """A command whose usage shows `FILE` in place of typer's `{FILE}`."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the parts of the usage line without braces."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]


@app.command(cls=_PlainUsageCommand)
def load(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A CSV file with a header; -: standard input.")
    ],
    campaign: Annotated[str, typer.Option("--campaign", "-c", help="The campaign's id.")],
    mapping: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="COLUMN=FIELD",
            help="Rename a column, such as phone=phone_number; repeatable.",
        ),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(help="The file's encoding, such as cp1252. Default: UTF-8."),
    ] = None,
    delimiter: Annotated[
        str | None,
        typer.Option(help="The file's delimiter, such as ; or tab. Default: detected."),
    ] = None,
    update: Annotated[
        bool,
        typer.Option("--update", help="Correct existing leads that were not sent yet."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Import leads from a CSV file; columns other than a lead's fields become custom fields."""
    from leadloop.cli.load import LoadOptions, load_file

    _require_campaign_ids([campaign])
    if not is_clean_id(campaign):
        raise UsageError("--campaign has a blank at an end or an invisible character")
    options = LoadOptions(
        encoding=encoding, delimiter=delimiter, mapping=mapping or [], update=update
    )

    def work() -> None:
        with environment.open_configured_database() as (_, database):
            load_file(database, file, campaign, sys.stderr, options)

    _run_and_show(
        work,
        lambda loaded: out.print(rendering.render_counts(f"loaded into {campaign}", loaded)),
        as_json,
    )


@app.command()
def push(
    campaigns: EnabledCampaignsOption = None,
    limit: Annotated[
        int | None,
        typer.Option(help="Send no more than this many leads, over all campaigns.", min=1),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Create new leads at the vendor, in batches."""
    _run_flow_command("push-leads", campaigns, {"limit": limit}, as_json)


@app.command()
def first_contact(
    campaign: Annotated[str, typer.Option("--campaign", "-c", help="The campaign's id.")],
    lead_ids: Annotated[
        list[str],
        typer.Option("--lead-id", help="A new lead: a person of the team who agrees; up to 3."),
    ],
    repeat_id: Annotated[
        bool,
        typer.Option(
            "--repeat-id",
            help="Also create the first lead again: the person MAY BE CALLED TWICE.",
        ),
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Take every step without asking, for scripts.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Learn step by step, with 1 to 3 people, what the vendor does not document."""
    from leadloop.cli.first_contact import print_contact, run_contact

    _require_campaign_ids([campaign])
    _run_and_show(
        lambda: run_contact(campaign, lead_ids, agrees_to_all=yes, repeats_id=repeat_id),
        lambda summary: print_contact(out, summary),
        as_json,
    )


@app.command()
def plan(
    campaigns: EnabledCampaignsOption = None,
    show: Annotated[
        bool,
        typer.Option(
            "--show",
            help=f"Also list lead ids: to send, and by reason; up to {MAX_PREVIEW_IDS} each.",
        ),
    ] = False,
    opt_out_source: Annotated[
        str | None,
        typer.Option(
            "--opt-out-source",
            metavar="SCHEMA.NAME",
            help="A table of opt-outs to preview before a campaign names it.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Preview a push (dry run): what it would send and refuse, and why; writes nothing."""
    from leadloop.cli.plan import plan_campaigns

    _require_campaign_ids(campaigns)

    def work() -> None:
        with (
            environment.open_configured_database() as (settings, database),
            err.status("reading the leads"),
        ):
            plan_campaigns(
                database,
                settings,
                campaigns or [],
                opt_out_source=opt_out_source,
                shows_ids=show,
            )

    _run_and_show(work, lambda planned: rendering.print_plan(out, planned), as_json)


@app.command()
def poll(
    campaigns: EnabledCampaignsOption = None,
    since: Annotated[
        str | None,
        typer.Option(help="Where to start in a campaign that was never polled (ISO 8601 or ms)."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Read the outcomes since the end of the last poll, less the lookback."""
    start = None if since is None else _parse_past_option("--since", since)
    _run_flow_command("poll-outcomes", campaigns, {"since": start}, as_json)


@app.command()
def disable(campaigns: EnabledCampaignsOption = None, as_json: JsonOption = False) -> None:
    """Disable leads that opted out, and cancel those that were never sent."""
    _run_flow_command("disable-leads", campaigns, {}, as_json)


@app.command()
def sync(campaigns: EnabledCampaignsOption = None, as_json: JsonOption = False) -> None:
    """Run disable, then push, then poll."""
    _run_flow_command("sync-leads", campaigns, {}, as_json)


@app.command()
def live(as_json: JsonOption = False) -> None:
    """Send opt-outs and leads within a second, and bring outcomes back, until Ctrl-C."""
    from leadloop.cli.live import run_in_terminal

    _run_and_show(
        lambda: run_in_terminal(err),
        lambda counts: out.print(rendering.render_counts("live", counts)),
        as_json,
    )


@app.command()
def source_trigger(
    campaigns: EnabledCampaignsOption = None,
    table: Annotated[
        str | None,
        typer.Option(
            "--table",
            metavar="SCHEMA.NAME",
            help="A table that a campaign's view reads, in place of the campaigns' sources.",
        ),
    ] = None,
) -> None:
    """Print the SQL of a trigger by which your own table wakes live runs; executes nothing."""
    from leadloop.cli.source_trigger import print_source_triggers

    _require_campaign_ids(campaigns)
    if table is not None and campaigns:
        raise UsageError("--table or --campaign: one of them at a time")
    with environment.open_configured_database() as (settings, database):
        print_source_triggers(database, settings, campaigns or [], table, sys.stdout)


@app.command()
def backfill(
    after: Annotated[str, typer.Option(help="Start of the range (ISO 8601 or ms).")],
    before: Annotated[str, typer.Option(help="End of the range (ISO 8601 or ms).")],
    campaigns: EnabledCampaignsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read a range of outcomes again; the watermark never moves back."""
    bounds = {
        "after": _parse_past_option("--after", after),
        "before": _parse_time_option("--before", before),
    }
    if bounds["before"] <= bounds["after"]:
        raise UsageError("the range is empty: --before must be later than --after")
    _run_flow_command("backfill-outcomes", campaigns, bounds, as_json)


@app.command()
def pause(campaigns: AllCampaignsOption = None, as_json: JsonOption = False) -> None:
    """Stop creating leads from the next batch on; opt-outs, polls and lookups continue."""
    ids = _set_push_enabled(campaigns, enabled=False)
    if as_json:
        _print_json({"paused": ids})
    else:
        out.print(f"Paused: {', '.join(ids)}. No more leads are created until `leadloop resume`.")


@app.command()
def resume(campaigns: AllCampaignsOption = None, as_json: JsonOption = False) -> None:
    """Let campaigns create leads again."""
    ids = _set_push_enabled(campaigns, enabled=True)
    if as_json:
        _print_json({"resumed": ids})
    else:
        out.print(f"Resumed: {', '.join(ids)}. The next push creates their new leads.")


@app.command()
def restored(campaigns: AllCampaignsOption = None, as_json: JsonOption = False) -> None:
    """Report that the database was restored: no lead is created until an audit or `release`."""
    from tasks.held_creates import report_restore

    _require_campaign_ids(campaigns)
    with environment.open_configured_database() as (settings, database):
        holds = report_restore(database, settings, campaigns or [])
    ids = [hold.campaign_id for hold in holds]
    if as_json:
        _print_json({"held": ids})
    else:
        _print_line(
            f"Held: {', '.join(ids)}. No more leads are created until `leadloop audit --repair` or"
            " `leadloop release`."
        )


@app.command()
def release(
    campaigns: Annotated[
        list[str], typer.Option("--campaign", "-c", help="A campaign's id; repeatable.")
    ],
    because: Annotated[
        str,
        typer.Option(help="Why no lead can be created twice; kept, so nothing personal."),
    ],
    as_json: JsonOption = False,
) -> None:
    """Let campaigns create leads again that are held after a failover or a restore."""
    from tasks.held_creates import release_held

    _require_campaign_ids(campaigns)
    with environment.open_configured_database() as (settings, database):
        result = release_held(database, settings, campaigns, because)
    if as_json:
        _print_json({"released": result.released, "not_held": result.not_held})
        return
    if result.released:
        _print_line(
            f"Released: {', '.join(result.released)}. The next push creates their new leads."
        )
    if result.not_held:
        _print_line(f"Not held, nothing changed: {', '.join(result.not_held)}.")


@app.command()
def audit(
    campaigns: EnabledCampaignsOption = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Repair in Postgres what is safe; resend nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare all leads at the vendor with Postgres, in both directions."""
    _run_flow_command("audit-leads", campaigns, {"repair": repair}, as_json)


@app.command()
def housekeeping(
    campaigns: AllCampaignsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete windows, runs and raw responses that are older than the retention settings."""
    _run_flow_command("housekeeping", campaigns, {}, as_json)


@app.command()
def forget(
    campaign: Annotated[str, typer.Option("--campaign", "-c", help="The campaign's id.")],
    lead_ids: Annotated[list[str], typer.Option("--lead-id", help="A lead to forget; repeatable.")],
    yes: Annotated[bool, typer.Option("--yes", help="Erase without asking, for scripts.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Erase a person's data on request; the opt-out stays, and the number stays suppressed."""
    from tasks.forget import forget_leads, list_similar_leads

    _require_campaign_ids([campaign])
    if not yes:
        _confirm_erasure(campaign, lead_ids)
    with environment.open_configured_database() as (settings, database):
        counts = forget_leads(database, settings, campaign, lead_ids)
        similar = list_similar_leads(database, campaign, lead_ids)
    if as_json:
        _print_json(counts)
    else:
        out.print(rendering.render_counts(f"campaign {campaign}", counts))
    for lead_id, others in similar.items():
        line = (
            f"kept: data of {', '.join(others)}, an id that differs from {lead_id} only in case,"
            " blanks, leading zeros or the like; if this is the same person: leadloop forget"
            f" --campaign {shlex.quote(campaign)} --lead-id {shlex.quote(others[0])}"
        )
        print(escape_unprintable(line), file=sys.stderr)
    # With the campaign's id: a run without ids skips a campaign that is not enabled.
    disable_command = f"leadloop disable --campaign {shlex.quote(campaign)}"
    print(
        f"`{disable_command}`, or the next scheduled disable, sends the opt-outs to the vendor.",
        file=sys.stderr,
    )


@app.command()
def opt_out(
    campaign: Annotated[str, typer.Option("--campaign", "-c", help="The campaign's id.")],
    lead_ids: Annotated[
        list[str] | None, typer.Option("--lead-id", help="A lead that opts out; repeatable.")
    ] = None,
    because: Annotated[
        str | None, typer.Option(help="Why; kept, so nothing personal, and not sent to the vendor.")
    ] = None,
    left_source: Annotated[
        bool,
        typer.Option(
            "--left-source",
            help="All leads that were sent, and whose rows have left the campaign's source.",
        ),
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Opt out those of --left-source without asking.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Opt leads out for good; asks before those whose rows have left the source opt out."""
    from leadloop.cli import opt_out as opt_out_texts
    from tasks.opt_out import opt_out_leads

    _require_campaign_ids([campaign])
    opt_out_texts.require_opt_out_options(lead_ids, because, left_source=left_source, yes=yes)
    if left_source:
        amount = opt_out_texts.run_opt_out_left(campaign, agrees_to_all=yes)
        lines = [f"Opted out, because their rows have left the source: {amount:,}."]
        found: dict[str, Any] = {"opted_out": amount}
    else:
        with environment.open_configured_database() as (settings, database):
            result = opt_out_leads(database, settings, campaign, lead_ids or [], because)
        (*lines,) = opt_out_texts.describe_opt_outs(campaign, result)
        found = {
            "opted_out": len(result.opted_out),
            "opted_out_before": len(result.opted_out_before),
            "unknown": list(result.unknown),
        }
    if as_json:
        _print_json(found)
        return
    for line in lines:
        _print_line(line)


@app.command()
def opt_in(
    campaign: Annotated[str, typer.Option("--campaign", "-c", help="The campaign's id.")],
    lead_ids: Annotated[
        list[str], typer.Option("--lead-id", help="A lead that opts in again; repeatable.")
    ],
    because: Annotated[
        str, typer.Option(help="Why the opt-out does not count; kept, so nothing personal.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Withdraw opt-outs that were not sent to the vendor, on record; the leads can be sent."""
    from tasks.opt_in import opt_in_leads

    _require_campaign_ids([campaign])
    with environment.open_configured_database() as (settings, database):
        result = opt_in_leads(database, settings, campaign, lead_ids, because)
    if as_json:
        _print_json({"opted_in": len(result.opted_in), "suppressed": list(result.suppressed)})
    else:
        _print_line(f"Opted in: {', '.join(result.opted_in)}.")
    for line in result.suppressed.values():
        print(escape_unprintable(line), file=sys.stderr)


@app.command()
def status(
    campaigns: AllCampaignsOption = None,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh until Ctrl-C.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 if there is a problem.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the campaigns, problems with their commands, and with -c why leads were rejected."""
    from leadloop.cli.status import (
        read_status_report,
        render_report,
        require_schema_version,
        watch_status,
    )

    _require_campaign_ids(campaigns)
    if watch and (check or as_json or not out.is_terminal):
        raise UsageError("--watch needs a terminal, and no --check or --json")
    with environment.open_configured_database(require_schema=False) as (_, database):
        require_schema_version(database)
        if watch:
            with suppress(KeyboardInterrupt):
                watch_status(database, campaigns or [], out)
            return
        report = read_status_report(database, campaigns or [])
    if as_json:
        _print_json(report)
    else:
        out.print(render_report(report))
    if check and report["problems"]:
        raise typer.Exit(1)


@app.command()
def metrics(
    port: Annotated[
        int, typer.Option(help="Port to listen on; 0: any free one.", min=0, max=65535)
    ] = 9108,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="Name under which clients reach it, beside IP addresses; repeatable."),
    ] = None,
) -> None:
    """Serve Prometheus metrics until Ctrl-C, which exits with 0."""
    from leadloop.cli.metrics import serve_metrics

    with environment.open_monitor_database() as database, suppress(KeyboardInterrupt):
        serve_metrics(database, host, port, allowed_hosts=allowed_host or [])


@app.command()
def integration(
    tool: Annotated[
        Integration,
        typer.Argument(
            help="grafana: a dashboard; prometheus: alert rules; dbt: sources of the tables and"
            " views."
        ),
    ],
) -> None:
    """Print the file for another tool that fits this version, to be stored in a file."""
    sys.stdout.write(read_integration(tool))


@app.command()
def requeue(
    campaigns: EnabledCampaignsOption = None,
    rejected: Annotated[bool, typer.Option("--rejected", help="Rejected leads.")] = False,
    in_doubt: Annotated[
        bool,
        typer.Option(
            "--in-doubt", help="Leads in doubt: YOU have verified that the vendor lacks them."
        ),
    ] = False,
    disables: Annotated[bool, typer.Option("--disables", help="Failed opt-outs.")] = False,
    lead_ids: Annotated[
        list[str] | None, typer.Option("--lead-id", help="Only this lead; repeatable.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Requeue rejected, in-doubt or failed items, to be sent again."""
    from tasks.requeue import requeue_items

    _require_campaign_ids(campaigns)
    chosen = {"rejected": rejected, "in_doubt": in_doubt, "disables": disables}
    kinds = [name for name, wanted in chosen.items() if wanted]
    if not kinds:
        raise UsageError("name what to requeue: --rejected, --in-doubt or --disables")
    with environment.open_configured_database() as (settings, database):
        result = requeue_items(database, settings, campaigns or [], kinds, lead_ids or [])
    if as_json:
        _print_json(result.counts)
    else:
        out.print(rendering.render_counts("requeued", result.counts))
    for line in result.unchanged:
        print(escape_unprintable(line), file=sys.stderr)


@app.command()
def owed(
    campaigns: AllCampaignsOption = None,
    accept: Annotated[
        int | None,
        typer.Option(
            "--accept",
            metavar="ID",
            help="Accept this window as unreadable: the watermark passes it.",
        ),
    ] = None,
    because: Annotated[
        str | None,
        typer.Option(help="Why it is accepted; kept and listed, so nothing personal."),
    ] = None,
    retry: Annotated[
        int | None,
        typer.Option(
            "--retry",
            metavar="ID",
            help="Have the next poll read this window again.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the windows whose outcomes could not be read; accept or retry one."""
    from leadloop.cli import owed as owed_texts
    from tasks.owed import accept_owed, list_owed, retry_owed

    _require_campaign_ids(campaigns)
    owed_texts.require_owed_options(campaigns, accept, because, retry)
    with environment.open_configured_database() as (settings, database):
        if accept is not None:
            acceptance = accept_owed(database, settings, accept, because or "")
            windows, lines = [acceptance.window], owed_texts.describe_acceptance(acceptance)
        elif retry is not None:
            windows = [retry_owed(database, retry)]
            lines = [owed_texts.describe_retry(windows[0])]
        else:
            windows, lines = list_owed(database, settings, campaigns or []), []
    if as_json:
        _print_json({"owed": [owed_texts.owed_as_json(window) for window in windows]})
    elif lines:
        out.print("\n".join(lines), highlight=False, soft_wrap=True)
    else:
        out.print(owed_texts.render_owed(windows))


@app.command()
def doctor(
    block: Annotated[
        str | None,
        typer.Option(help="Also use the settings in the Prefect blocks of this name."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check the settings, the database, the API, the login and Prefect, one line each."""
    from leadloop.cli.doctor import run_checks

    checks = run_checks(block)
    if as_json:
        _print_json({"checks": [check.as_json() for check in checks]})
    else:
        for check in checks:
            mark = Text("ok  ", "green") if check.ok else Text("FAIL", "red")
            mark = Text("warn", "yellow") if check.is_warning else mark
            out.print(mark, f"{check.name}: ", end="")
            out.print(check.detail, highlight=False, soft_wrap=True)
    if not all(check.ok for check in checks):
        raise typer.Exit(2 if any(check.is_settings_fault for check in checks) else 1)


@app.command()
def deploy() -> None:
    """Deploy prefect.yaml to the Prefect server; create the work pool if it is missing."""
    from leadloop.cli.deploy import deploy_to_server

    with err.status("deploying prefect.yaml"):
        address = deploy_to_server()
    out.print(
        f"Deployed to {address}. Next: prefect worker start --pool leadloop",
        highlight=False,
        soft_wrap=True,
    )


@app.command()
def demo() -> None:
    """Run the whole loop on an embedded Postgres and the bundled sandbox API."""
    from leadloop.cli.demo import run_demo

    run_demo(err, out)


@app.command()
def up(
    port: Annotated[int, typer.Option(help="Port of the Prefect server.", min=1, max=65535)] = 4200,
    page_port: Annotated[
        int, typer.Option(help="Port of the monitor page.", min=1, max=65535)
    ] = 8501,
) -> None:
    """Start a complete local stack until Ctrl-C: monitor page, Prefect, a worker, the sandbox."""
    from leadloop.cli.up import run_stack

    with suppress(KeyboardInterrupt):
        run_stack(port, page_port, err, out)


@app.command()
def monitor(
    port: Annotated[
        int, typer.Option(help="Port to listen on; 0: any free one.", min=0, max=65535)
    ] = 8501,
    host: Annotated[
        str, typer.Option(help="Address to listen on; everyone who reaches it sees the page.")
    ] = "127.0.0.1",
    refresh: Annotated[
        int, typer.Option(help="Seconds between two queries of the database.", min=1, max=3600)
    ] = 30,
) -> None:
    """Serve the monitor page until Ctrl-C: health, stuck items, remedies."""
    from leadloop.cli.monitor import serve_page

    with suppress(KeyboardInterrupt):
        serve_page(host, port, refresh)


class _RulesHelpCommand(TyperCommand):
    """A command whose help lists the sandbox's rules; imports their slow package only then."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the usual help, and each rule with its default."""
        super().format_help(ctx, formatter)
        from leadloop.sandbox.rules import Rules

        print("Rules, with their defaults here:\n\n  " + "\n  ".join(Rules.describe_rules()))


@app.command(cls=_RulesHelpCommand)
def sandbox(
    port: Annotated[
        int, typer.Option(help="Port to listen on; 0: any free one.", min=0, max=65535)
    ] = 8080,
    rules: Annotated[
        list[str] | None,
        typer.Option("--rule", help="A rule as key=value, such as pace=5; --help lists the rules."),
    ] = None,
) -> None:
    """Serve a local stand-in of the vendor's API on loopback until Ctrl-C, which exits with 0."""
    from leadloop.sandbox.rules import Rules
    from leadloop.sandbox.server import serve_sandbox

    try:
        settled = Rules.from_texts(rules or [])
    except ValueError as error:
        raise UsageError(str(error)) from None

    def ready(url: str) -> None:
        print(f"The sandbox listens on {url}", flush=True)
        token = shlex.quote(settled.tokens[0])
        print(f"export LEADLOOP_API_URL={url} LEADLOOP_API_TOKEN={token}", flush=True)

    try:
        serve_sandbox(settled, "127.0.0.1", port, on_ready=ready)
    except OSError as error:
        raise environment.explain_listen_error(error, "127.0.0.1", port) from None


def _confirm_erasure(campaign: str, lead_ids: Sequence[str]) -> None:
    """Ask before personal data is erased.

    Raises:
        UsageError: there is nobody to ask.
        RunError: the person does not agree.
    """
    require_answerable("leadloop forget")
    whose = f"{format_count(len(set(lead_ids)), 'lead')} of campaign {campaign}"
    if not ask_to_go_on(
        f"Erase the personal data of {whose} ({', '.join(dict.fromkeys(lead_ids))}): nothing brings"
        " it back. The leads are opted out, and that stays."
    ):
        raise RunError("nothing was erased, because it was not confirmed")


def _set_push_enabled(campaigns: list[str] | None, *, enabled: bool) -> list[str]:
    """Pause or resume campaigns; return their ids.

    Raises:
        UsageError: a campaign is unknown, or there is no campaign.
    """
    from db.campaigns import set_push_enabled

    _require_campaign_ids(campaigns)
    with environment.open_configured_database() as (_, database):
        ids = database.retry(lambda c: set_push_enabled(c, campaigns, enabled=enabled))
    if not ids:
        raise UsageError("there is no campaign to pause or resume in leadloop.campaigns")
    return ids


def _run_flow_command(
    flow: str, campaigns: list[str] | None, parameters: dict[str, Any], as_json: bool
) -> None:
    """Run a flow in this process, and show its summary."""
    from leadloop.cli.flow_command import run_flow_command

    _require_campaign_ids(campaigns)

    def show(summary: Mapping[str, Any]) -> None:
        rendering.print_summary(out, flow, summary)

    def work() -> None:
        run_flow_command(flow, campaigns or [], parameters, err)

    _run_and_show(work, show, as_json, polls=flow in ("poll-outcomes", "sync-leads"))


def _run_and_show(
    work: Callable[[], object],
    show: Callable[[Mapping[str, Any]], None],
    as_json: bool,
    *,
    polls: bool = False,
) -> None:
    """Run the work, and show its summary, even if the work failed or was interrupted.

    `polls`: an empty poll is explained.
    """
    failure: RunError | None = None
    with collect_summary() as collected:
        try:
            work()
        except RunError as error:
            failure = error
        except KeyboardInterrupt:
            failure = RunError(STOPPED)
    summary = collected.summary
    if as_json:
        _print_json({**summary, **({"error": str(failure)} if failure else {})})
    elif summary:
        show(summary)
    for hint in hints.leftover_hints(summary) + (
        hints.empty_poll_hints(summary) if polls and not failure else []
    ):
        print(escape_unprintable(hint), file=sys.stderr)
    if failure:
        raise failure


def _require_campaign_ids(campaigns: list[str] | None) -> None:
    if not all(campaign.strip() for campaign in campaigns or []):
        raise UsageError("--campaign is empty: write the vendor's id of the campaign")


def _parse_time_option(option: str, text: str) -> datetime:
    try:
        return parse_time_argument(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None


def _parse_past_option(option: str, text: str) -> datetime:
    """Parse a time that must be in the past: there is nothing to read behind it otherwise."""
    moment = _parse_time_option(option, text)
    if moment > datetime.now(UTC):
        raise UsageError(f"{option}: {text!r} is in the future")
    return moment


def _print_line(line: str) -> None:
    """Print a line with ids, which are foreign input: literally, and on one line."""
    out.print(escape_unprintable(line), highlight=False, soft_wrap=True)


def _print_json(value: Any) -> None:
    def encode(value: object) -> str:
        return value.isoformat() if isinstance(value, datetime) else str(value)

    text = json.dumps(value, default=encode, ensure_ascii=False)
    sys.stdout.write(escape_unprintable(text) + "\n")
