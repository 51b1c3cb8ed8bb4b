"""The commands. Each translates its arguments, delegates, and shows what came of it."""

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from leadloop.cli import stage, tables
from leadloop.core.errors import RunError, UsageError
from leadloop.core.timestamps import read_time_argument

app = typer.Typer(
    name="leadloop",
    help="Close the loop between your Postgres and SquadVoice's Leads API.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Campaigns = Annotated[
    list[str] | None,
    typer.Option("--campaign", "-c", help="A campaign's id; repeatable. None: every enabled one."),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object as the last line on stdout.")]

err = Console(stderr=True)
out = Console()


@app.command()
def init(as_json: AsJson = False) -> None:
    """Make or upgrade the `leadloop` schema. Safe to repeat, and from several places at once."""
    from db.schema import migrate

    with (
        stage.settings_with_database() as settings,
        stage.database(settings, ready=False) as database,
        database.begin() as connection,
    ):
        version = migrate(connection)
        place = database.place
    if as_json:
        _print_json({"version": version})
    else:
        out.print(f"The leadloop schema is at version {version} ({place}).", soft_wrap=True)


@app.command()
def load(
    file: Annotated[Path, typer.Argument(help="A CSV file with a header.")],
    campaign: Annotated[str, typer.Option("--campaign", "-c", help="The campaign's id.")],
    as_json: AsJson = False,
) -> None:
    """Load leads from a CSV file; columns that are no field of a lead become custom fields."""
    from leadloop.cli.load import load_file

    if not campaign.strip():
        raise UsageError("--campaign is empty: write the vendor's id of the campaign")

    with stage.settings_with_database() as settings, stage.database(settings) as database:
        loaded = load_file(database, file, campaign, err)
    if as_json:
        _print_json(loaded)
    else:
        out.print(tables.counted(f"loaded into {campaign}", loaded))


@app.command()
def push(campaigns: Campaigns = None, as_json: AsJson = False) -> None:
    """Create new leads at the vendor, in batches."""
    _run("push-leads", campaigns, {}, as_json)


@app.command()
def poll(
    campaigns: Campaigns = None,
    since: Annotated[
        str | None,
        typer.Option(help="Where to begin in a campaign without a watermark (ISO 8601 or ms)."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read the outcomes that came since the watermark, less the lookback."""
    start = None if since is None else _time("--since", since)
    _run("poll-outcomes", campaigns, {"since": start}, as_json)


@app.command()
def disable(campaigns: Campaigns = None, as_json: AsJson = False) -> None:
    """Disable leads that opted out, and cancel those that were never sent."""
    _run("disable-leads", campaigns, {}, as_json)


@app.command()
def sync(campaigns: Campaigns = None, as_json: AsJson = False) -> None:
    """Disable, then push, then poll."""
    _run("sync-leads", campaigns, {}, as_json)


@app.command()
def backfill(
    after: Annotated[str, typer.Option(help="Where the range begins (ISO 8601 or ms).")],
    before: Annotated[str, typer.Option(help="Where the range ends (ISO 8601 or ms).")],
    campaigns: Campaigns = None,
    as_json: AsJson = False,
) -> None:
    """Read a range of outcomes again. The watermark never moves back."""
    bounds = {"after": _time("--after", after), "before": _time("--before", before)}
    if bounds["before"] <= bounds["after"]:
        raise UsageError("the range ends before it begins: --before must be later than --after")
    _run("backfill-outcomes", campaigns, bounds, as_json)


@app.command()
def audit(
    campaigns: Campaigns = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend in Postgres what is safe; resend nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare all that the vendor holds with Postgres, both ways."""
    _run("audit-leads", campaigns, {"repair": repair}, as_json)


@app.command()
def status(campaigns: Campaigns = None, as_json: AsJson = False) -> None:
    """Show where every campaign stands."""
    from db import status as query

    with (
        stage.settings_with_database() as settings,
        stage.database(settings) as database,
        database.begin() as connection,
    ):
        rows = query.campaigns(connection, campaigns or [])
    unknown = set(campaigns or []) - {row["campaign_id"] for row in rows}
    if unknown:
        raise UsageError(f"unknown campaign {', '.join(sorted(unknown))}")
    if as_json:
        _print_json({"campaigns": rows})
    elif rows:
        out.print(tables.status(rows))
    else:
        out.print("No campaign yet: leadloop load FILE.csv --campaign C", soft_wrap=True)


@app.command()
def requeue(
    campaigns: Campaigns = None,
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
    as_json: AsJson = False,
) -> None:
    """Have leads sent again once what was wrong with them is mended."""
    from leadloop.cli.requeue import requeue_leads

    chosen = {"rejected": rejected, "in_doubt": in_doubt, "disables": disables}
    kinds = [name for name, wanted in chosen.items() if wanted]
    if not kinds:
        raise UsageError("say what to requeue: --rejected, --in-doubt or --disables")
    with stage.settings_with_database() as settings, stage.database(settings) as database:
        counts = requeue_leads(database, settings, campaigns or [], kinds, lead_ids or [])
    if as_json:
        _print_json(counts)
    else:
        out.print(tables.counted("to be sent again", counts))


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check the settings, the database, the API and the login, one line each."""
    from leadloop.cli.doctor import examine

    findings = examine()
    if as_json:
        _print_json({"checks": [finding.as_json() for finding in findings]})
    else:
        for finding in findings:
            mark = "[green]ok[/]  " if finding.ok else "[red]FAIL[/]"
            out.print(f"{mark} {finding.name}: ", end="")
            out.print(finding.said, markup=False, highlight=False, soft_wrap=True)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


@app.command()
def demo() -> None:
    """Show the whole loop on an embedded Postgres and the bundled sandbox API."""
    from leadloop.cli.demo import play

    play(err, out)


@app.command()
def sandbox(
    port: Annotated[int, typer.Option(help="0: any free one.", min=0, max=65535)] = 8080,
    rules: Annotated[
        list[str] | None,
        typer.Option("--rule", help="key=value, repeatable: max_batch=10, pace=5, rate_limit=10/1"),
    ] = None,
) -> None:
    """Serve a stand-in of the vendor's API on loopback. Ctrl-C ends it."""
    from leadloop.sandbox.rules import Rules
    from leadloop.sandbox.server import serve

    try:
        settled = Rules.from_texts(rules or [])
    except ValueError as error:
        raise UsageError(f"--rule: {error}") from None

    def ready(url: str) -> None:
        print(f"The sandbox listens on {url}", flush=True)
        print(f"LEADLOOP_API_URL={url} LEADLOOP_API_TOKEN={settled.tokens[0]}", flush=True)

    try:
        serve(settled, "127.0.0.1", port, on_ready=ready)
    except OSError as error:
        raise UsageError(
            f"cannot listen on port {port}: {error.strerror}; choose another --port"
        ) from None


def _run(flow: str, campaigns: list[str] | None, more: dict[str, Any], as_json: bool) -> None:
    """Run a flow by hand: check first, then wait for Prefect, then show what was done."""
    from leadloop.cli.running import run_flow

    failure: RunError | None = None
    try:
        summary = run_flow(flow, campaigns or [], more, err)
    except RunError as error:
        failure, summary = error, getattr(error, "summary", {})
    except KeyboardInterrupt:
        failure, summary = RunError("stopped; run it again to go on where it was"), {}
    if as_json:
        _print_json(summary | ({"error": str(failure)} if failure else {}))
    elif summary:
        tables.show_summary(out, flow, summary)
    if failure:
        raise failure


def _time(option: str, text: str) -> datetime:
    try:
        return read_time_argument(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None


def _print_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, default=_jsonable, ensure_ascii=False) + "\n")


def _jsonable(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
