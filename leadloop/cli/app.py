"""The commands. Each translates its arguments, delegates, and shows what came of it."""

import json
import shlex
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperCommand, TyperGroup

from leadloop import __version__
from leadloop.cli import STOPPED, environment, hints, rendering
from leadloop.cli.working_directory import require_trusted_directory
from leadloop.core.errors import RunError, UsageError
from leadloop.core.summaries import collect_summary
from leadloop.core.timestamps import parse_time_argument


class _TrustedDirectoryGroup(TyperGroup):
    """The commands; those that use files of the working directory require that it is trusted."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command, and look at the working directory before it begins."""
        name, command, rest = super().resolve_command(ctx, args)
        if name != "sandbox" and "--help" not in rest:
            require_trusted_directory(str(name))
        return name, command, rest


app = typer.Typer(
    name="leadloop",
    cls=_TrustedDirectoryGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

EnabledCampaignsOption = Annotated[
    list[str] | None,
    typer.Option("--campaign", "-c", help="A campaign's id; repeatable. None: every enabled one."),
]
AllCampaignsOption = Annotated[
    list[str] | None,
    typer.Option("--campaign", "-c", help="A campaign's id; repeatable. None: all of them."),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON object as the last line on stdout.")
]

err = Console(stderr=True)
out = Console()


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"leadloop {__version__}")
        raise typer.Exit


@app.callback()
def _handle_global_options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Say which it is.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    """Close the loop between your Postgres and SquadVoice's Leads API."""


@app.command()
def init(as_json: JsonOption = False) -> None:
    """Make or upgrade the `leadloop` schema. Safe to repeat, and from several places at once."""
    from db.schema import migrate_schema

    with (
        environment.load_settings_with_database() as settings,
        environment.open_database(settings, require_schema=False) as database,
    ):
        version = database.retry(migrate_schema)
        place = database.display_name
    if as_json:
        _print_json({"version": version})
    else:
        out.print(f"The leadloop schema is at version {version} ({place}).", soft_wrap=True)


class _PlainUsageCommand(TyperCommand):
    """`load FILE` as everybody writes it, and not typer's `load {FILE}`."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The parts of the usage line."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]


@app.command(cls=_PlainUsageCommand)
def load(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A CSV file with a header; -: standard input.")
    ],
    campaign: Annotated[str, typer.Option("--campaign", "-c", help="The campaign's id.")],
    as_json: JsonOption = False,
) -> None:
    """Load leads from a CSV file; columns that are no field of a lead become custom fields."""
    from leadloop.cli.load import load_file

    _require_campaign_ids([campaign])

    def work() -> None:
        with (
            environment.load_settings_with_database() as settings,
            environment.open_database(settings) as database,
        ):
            load_file(database, file, campaign, sys.stderr)

    _run_and_show(
        work,
        lambda loaded: out.print(rendering.render_counts(f"loaded into {campaign}", loaded)),
        as_json,
    )


@app.command()
def push(campaigns: EnabledCampaignsOption = None, as_json: JsonOption = False) -> None:
    """Create new leads at the vendor, in batches."""
    _run_flow_command("push-leads", campaigns, {}, as_json)


@app.command()
def plan(campaigns: EnabledCampaignsOption = None, as_json: JsonOption = False) -> None:
    """Show what a push would send and refuse, and why; nothing is sent, and nothing written."""
    from leadloop.cli.plan import plan_campaigns

    _require_campaign_ids(campaigns)

    def work() -> None:
        with (
            environment.load_settings_with_database() as settings,
            environment.open_database(settings) as database,
            err.status("looking at the leads"),
        ):
            plan_campaigns(database, settings, campaigns or [])

    _run_and_show(work, lambda planned: rendering.print_plan(out, planned), as_json)


@app.command()
def poll(
    campaigns: EnabledCampaignsOption = None,
    since: Annotated[
        str | None,
        typer.Option(help="Where to begin in a campaign without a watermark (ISO 8601 or ms)."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Read the outcomes that came since the watermark, less the lookback."""
    start = None if since is None else _parse_time_option("--since", since)
    _run_flow_command("poll-outcomes", campaigns, {"since": start}, as_json)


@app.command()
def disable(campaigns: EnabledCampaignsOption = None, as_json: JsonOption = False) -> None:
    """Disable leads that opted out, and cancel those that were never sent."""
    _run_flow_command("disable-leads", campaigns, {}, as_json)


@app.command()
def sync(campaigns: EnabledCampaignsOption = None, as_json: JsonOption = False) -> None:
    """Disable, then push, then poll."""
    _run_flow_command("sync-leads", campaigns, {}, as_json)


@app.command()
def backfill(
    after: Annotated[str, typer.Option(help="Where the range begins (ISO 8601 or ms).")],
    before: Annotated[str, typer.Option(help="Where the range ends (ISO 8601 or ms).")],
    campaigns: EnabledCampaignsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read a range of outcomes again. The watermark never moves back."""
    bounds = {
        "after": _parse_time_option("--after", after),
        "before": _parse_time_option("--before", before),
    }
    if bounds["before"] <= bounds["after"]:
        raise UsageError("the range is empty: --before must be later than --after")
    _run_flow_command("backfill-outcomes", campaigns, bounds, as_json)


@app.command()
def pause(campaigns: AllCampaignsOption = None, as_json: JsonOption = False) -> None:
    """Stop creating leads, from the next batch on; opt-outs, polls and lookups go on."""
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
def audit(
    campaigns: EnabledCampaignsOption = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend in Postgres what is safe; resend nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare all that the vendor holds with Postgres, both ways."""
    _run_flow_command("audit-leads", campaigns, {"repair": repair}, as_json)


@app.command()
def housekeeping(
    campaigns: AllCampaignsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove windows, runs and raw answers that are older than the settings say."""
    _run_flow_command("housekeeping", campaigns, {}, as_json)


@app.command()
def forget(
    campaign: Annotated[str, typer.Option("--campaign", "-c", help="The campaign's id.")],
    lead_ids: Annotated[list[str], typer.Option("--lead-id", help="Whom; repeatable.")],
    as_json: JsonOption = False,
) -> None:
    """Remove a person's data on request; they stay opted out, and their number suppressed."""
    from leadloop.cli.forget import forget_leads

    _require_campaign_ids([campaign])
    with (
        environment.load_settings_with_database() as settings,
        environment.open_database(settings) as database,
    ):
        counts = forget_leads(database, settings, campaign, lead_ids)
    if as_json:
        _print_json(counts)
    else:
        out.print(rendering.render_counts(f"of {campaign}", counts))
    # With its name: runs that name none leave out what is not enabled.
    told_by = f"leadloop disable --campaign {shlex.quote(campaign)}"
    print(f"The vendor is told by `{told_by}`, or a schedule's next one.", file=sys.stderr)


@app.command()
def status(
    campaigns: EnabledCampaignsOption = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew until Ctrl-C.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 where something is wrong.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show where every campaign stands, what is wrong, and what to do about it."""
    from leadloop.cli.status import read_status, render_report, require_schema_version, watch_status

    _require_campaign_ids(campaigns)
    if watch and (check or as_json or not out.is_terminal):
        raise UsageError("--watch is for people at a terminal: leave out --check and --json")
    with (
        environment.load_settings_with_database() as settings,
        environment.open_database(settings, require_schema=False) as database,
    ):
        require_schema_version(database)
        if watch:
            with suppress(KeyboardInterrupt):
                watch_status(database, campaigns or [], out)
            return
        found = read_status(database, campaigns or [])
    if as_json:
        _print_json(found)
    else:
        out.print(render_report(found))
    if check and found["problems"]:
        raise typer.Exit(1)


@app.command()
def metrics(
    port: Annotated[int, typer.Option(help="0: any free one.", min=0, max=65535)] = 9108,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
) -> None:
    """Serve where every campaign stands to Prometheus, until Ctrl-C ends it, with exit 0."""
    from leadloop.cli.metrics import serve_metrics

    with (
        environment.load_settings_with_database() as settings,
        environment.open_database(settings, require_schema=False) as database,
        suppress(KeyboardInterrupt),
    ):
        serve_metrics(database, host, port)


@app.command()
def requeue(
    campaigns: EnabledCampaignsOption = None,
    rejected: Annotated[bool, typer.Option("--rejected", help="Leads that were rejected.")] = False,
    in_doubt: Annotated[
        bool,
        typer.Option(
            "--in-doubt", help="Leads in doubt: YOU have seen that the vendor lacks them."
        ),
    ] = False,
    disables: Annotated[bool, typer.Option("--disables", help="Opt-outs that failed.")] = False,
    lead_ids: Annotated[
        list[str] | None, typer.Option("--lead-id", help="Only this lead; repeatable.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Have leads sent again once what was wrong with them is mended."""
    from leadloop.cli.requeue import requeue_leads

    _require_campaign_ids(campaigns)
    chosen = {"rejected": rejected, "in_doubt": in_doubt, "disables": disables}
    kinds = [name for name, wanted in chosen.items() if wanted]
    if not kinds:
        raise UsageError("say what to requeue: --rejected, --in-doubt or --disables")
    with (
        environment.load_settings_with_database() as settings,
        environment.open_database(settings) as database,
    ):
        counts = requeue_leads(database, settings, campaigns or [], kinds, lead_ids or [])
    if as_json:
        _print_json(counts)
    else:
        out.print(rendering.render_counts("to be sent again", counts))


@app.command()
def doctor(
    block: Annotated[
        str | None,
        typer.Option(help="Also the settings in the Prefect blocks of this name, as a run would."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check the settings, the database, the API, the login and Prefect, one line each."""
    from leadloop.cli.doctor import run_checks

    findings = run_checks(block)
    if as_json:
        _print_json({"checks": [finding.as_json() for finding in findings]})
    else:
        for finding in findings:
            mark = "[green]ok[/]  " if finding.ok else "[red]FAIL[/]"
            mark = "[yellow]warn[/]" if finding.is_warning else mark
            out.print(f"{mark} {finding.name}: ", end="")
            out.print(finding.detail, markup=False, emoji=False, highlight=False, soft_wrap=True)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(2 if any(finding.is_settings_fault for finding in findings) else 1)


@app.command()
def deploy() -> None:
    """Put prefect.yaml's deployments, and the work pool if missing, on the Prefect server."""
    from leadloop.cli.deploy import deploy_flows

    with err.status("deploying prefect.yaml"):
        address = deploy_flows()
    out.print(
        f"Deployed to {address}. Next: prefect worker start --pool leadloop",
        highlight=False,
        soft_wrap=True,
    )


@app.command()
def demo() -> None:
    """Show the whole loop on an embedded Postgres and the bundled sandbox API."""
    from leadloop.cli.demo import run_demo

    run_demo(err, out)


@app.command()
def up(
    port: Annotated[int, typer.Option(help="Of the Prefect server.", min=1, max=65535)] = 4200,
    page_port: Annotated[int, typer.Option(help="Of our page.", min=1, max=65535)] = 8501,
) -> None:
    """Run everything to look at: our page, Prefect, a worker, the sandbox; until Ctrl-C."""
    from leadloop.cli.up import run_stack

    with suppress(KeyboardInterrupt):
        run_stack(port, page_port, err, out)


@app.command()
def monitor(
    port: Annotated[int, typer.Option(help="0: any free one.", min=0, max=65535)] = 8501,
    host: Annotated[
        str, typer.Option(help="Where to listen; anybody who reaches it may look.")
    ] = "127.0.0.1",
    refresh: Annotated[
        int, typer.Option(help="Seconds between two looks at the database.", min=1, max=3600)
    ] = 30,
) -> None:
    """Serve the page: is it healthy, what is stuck, what to do about it; until Ctrl-C."""
    from leadloop.cli.monitor import serve_page

    with suppress(KeyboardInterrupt):
        serve_page(host, port, refresh)


class _RulesHelpCommand(TyperCommand):
    """The help lists the rules, which are looked up only then: their package is slow to import."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The usual help, and each rule with its default."""
        super().format_help(ctx, formatter)
        from leadloop.sandbox.rules import Rules

        print("Rules, with their defaults here:\n\n  " + "\n  ".join(Rules.described()))


@app.command(cls=_RulesHelpCommand)
def sandbox(
    port: Annotated[int, typer.Option(help="0: any free one.", min=0, max=65535)] = 8080,
    rules: Annotated[
        list[str] | None,
        typer.Option("--rule", help="key=value, as in pace=5; `sandbox --help` lists them."),
    ] = None,
) -> None:
    """Serve a stand-in of the vendor's API on loopback, until Ctrl-C ends it, with exit 0."""
    from leadloop.sandbox.rules import Rules
    from leadloop.sandbox.server import serve

    try:
        settled = Rules.from_texts(rules or [])
    except ValueError as error:
        raise UsageError(str(error)) from None

    def ready(url: str) -> None:
        print(f"The sandbox listens on {url}", flush=True)
        token = shlex.quote(settled.tokens[0])
        print(f"export LEADLOOP_API_URL={url} LEADLOOP_API_TOKEN={token}", flush=True)

    try:
        serve(settled, "127.0.0.1", port, on_ready=ready)
    except OSError as error:
        raise environment.explain_listen_error(error, "127.0.0.1", port) from None


def _set_push_enabled(campaigns: list[str] | None, *, enabled: bool) -> list[str]:
    """Pause or resume campaigns; return their ids.

    Raises:
        UsageError: a campaign is unknown, or there is none.
    """
    from db.campaigns import set_push_enabled

    _require_campaign_ids(campaigns)
    with (
        environment.load_settings_with_database() as settings,
        environment.open_database(settings) as database,
    ):
        ids = database.retry(lambda c: set_push_enabled(c, campaigns, enabled=enabled))
    if not ids:
        raise UsageError("there is no campaign to pause or resume in leadloop.campaigns")
    return ids


def _run_flow_command(
    flow: str, campaigns: list[str] | None, parameters: dict[str, Any], as_json: bool
) -> None:
    """Run a flow by hand: check first, then wait for Prefect, then show what was done."""
    from leadloop.cli.flow_command import run_flow_command

    _require_campaign_ids(campaigns)

    def show(summary: Mapping[str, Any]) -> None:
        rendering.print_summary(out, flow, summary)

    def work() -> None:
        run_flow_command(flow, campaigns or [], parameters, err)

    _run_and_show(work, show, as_json)


def _run_and_show(
    work: Callable[[], object],
    show: Callable[[Mapping[str, Any]], None],
    as_json: bool,
) -> None:
    """Show what was done, also where it failed or was stopped half-way."""
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
        [] if failure else hints.empty_poll_hints(summary)
    ):
        print(hint, file=sys.stderr)
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


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, default=_encode_json_value, ensure_ascii=False) + "\n")


def _encode_json_value(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
