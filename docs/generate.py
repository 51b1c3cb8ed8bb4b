"""The generator of `docs/reference/` and of dbt's sources (`make docs`); a test compares the files.

An option, a setting or a column is described where it is defined. The generator only reads it.
"""

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import typer
import yaml
from sqlalchemy import text

from db.campaign_status import MAX_REASONS
from db.database import Connection, Database
from db.monitor import STATEMENT_TIMEOUT_S
from db.problem_kinds import PROBLEM_KINDS, ProblemKind
from db.schema import migrate_schema
from leadloop.cli.app import app
from leadloop.cli.csv_records import MAX_RECORD_LENGTH
from leadloop.cli.integration import INTEGRATION_FILES, Integration
from leadloop.client.transport import MAX_RESPONSE_BYTES
from leadloop.core.accounts import ACCOUNT_PREFIX, ACCOUNT_SETTINGS, DEFAULT_ACCOUNT, NAME_FORM
from leadloop.core.audit_differences import DIFFERENCES, REMARKS
from leadloop.core.campaign_rules import CampaignRules
from leadloop.core.lead_reasons import MAX_PREVIEW_IDS
from leadloop.core.postgres_json import MAX_DEPTH, MAX_INTEGER_LENGTH, MAX_JSON_TOKENS
from leadloop.core.push_preview import PREVIEW_COUNTS as PLAN
from leadloop.core.redaction import MAX_REASON_LENGTH, MAX_REASON_READ
from leadloop.core.source_removals import MIN_LIMIT
from leadloop.core.source_requirements import MAX_LEAD_ID_LENGTH
from leadloop.core.verdicts import (
    UNREADABLE,
    ApiCall,
    ApiResponse,
    TransportFailure,
    Verdict,
    classify_response,
)
from leadloop.core.windows import MAX_PAGES
from leadloop.local.postgres import run_postgres
from leadloop.local.postgres_data import remove_temporary
from leadloop.monitor.request_guard import (
    MAX_CONNECTIONS,
    MAX_MESSAGE_BYTES,
    MAX_SESSIONS,
)
from leadloop.monitor.throttled_cache import MAX_CREDIT_S
from leadloop.settings import Settings
from tasks.audit import AUDIT
from tasks.disable import DISABLE
from tasks.lead_listing import MAX_REPEATED_PAGES
from tasks.poll import POLL
from tasks.push import PUSH
from tasks.rate_limiter import MAX_PAUSE_S
from tasks.rejection_streak import MAX_ALIKE
from tasks.window_pages import MAX_UNCOUNTED_PAGES
from tasks.window_reader import MOST_ENDLESS, MOST_PAGES

REFERENCE = Path(__file__).parent / "reference"

_NOTE = "<!-- Made by docs/generate.py: change the code, then `make docs`. -->"


def main() -> None:
    """Write every page and dbt's sources, with a temporary embedded Postgres."""
    with tempfile.TemporaryDirectory() as directory:
        with run_postgres(Path(directory) / "pg") as url:
            for name, page in render_pages(url).items():
                (REFERENCE / name).write_text(page, encoding="utf-8")
            INTEGRATION_FILES[Integration.DBT].write_text(render_dbt_sources(url), encoding="utf-8")
        remove_temporary(Path(directory))


def render_pages(database_url: str) -> dict[str, str]:
    """Return the text of each page by its file name.

    Args:
        database_url: a database; its schema `leadloop` is migrated and read, nothing else.

    Raises:
        LookupError: a setting, command, option, view or key lacks a description; the message
            names it.
    """
    with _migrated_schema(database_url) as connection:
        return {
            "settings.md": render_settings(),
            "command-line.md": render_command_line(),
            "schema.md": render_schema(connection),
            "views.md": render_views(connection),
            "problems.md": render_problems(connection),
            "limits.md": render_limits(),
            "verdicts.md": render_verdicts(),
            "exit-codes-and-json.md": render_exit_codes(connection),
        }


@contextmanager
def _migrated_schema(database_url: str) -> Iterator[Connection]:
    with Database(database_url, pool_size=1) as database, database.transaction() as connection:
        migrate_schema(connection)
        yield connection


def _join_page(title: str, *blocks: str) -> str:
    return "\n\n".join([f"# {title}", _NOTE, *blocks]) + "\n"


def _render_table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(_escape_cell(cell) for cell in line)} |" for line in lines)


def _escape_cell(value: str) -> str:
    return " ".join(value.split()).replace("|", "\\|")


def _format_code(value: object) -> str:
    return f"`{value}`"


def _require_description(what: str, description: str | None) -> str:
    if not description:
        raise LookupError(f"{what} has no description")
    return description


# Settings


def render_settings() -> str:
    """Render the table of settings: variable, default, form, meaning, overriding column."""
    return _join_page(
        "Settings",
        "Settings are read from the environment, or from a file `.env` in the working directory;"
        " the environment overrides the file. An empty value counts as not set. A column of"
        " `leadloop.campaigns` that is not null overrides the setting for that campaign.",
        "An invalid value ends a command with exit code 2 and one line that names the variable"
        " and does not repeat the value. So does a misspelt variable, or a usual synonym of a"
        " setting (`DB_URL`), if the intended setting is not set anywhere; if it is set, the"
        " command or run only warns. Secrets are never printed. `LEADLOOP_DATABASE_URL` has no"
        " default: without it, commands and runs of deployments fail. Its value `embedded` starts"
        " a Postgres in `.leadloop/pg` of the working directory, for local commands only.",
        _render_table(
            ["variable", "default", "form", "meaning", "column of `leadloop.campaigns`"],
            [_render_setting(name, form) for name, form in _list_settings().items()],
        ),
        "A run needs a database, and either `LEADLOOP_API_TOKEN` or all four of"
        " `LEADLOOP_CLIENT_ID`, `LEADLOOP_CLIENT_SECRET`, `LEADLOOP_USERNAME` and"
        " `LEADLOOP_PASSWORD`. If one place has both, the token is used. A complete login in the"
        " environment overrides any login in `.env`. If `LEADLOOP_API_URL` is set, it and the"
        " login must both be in the environment or both in `.env`: a login is sent only to the"
        " address that was set beside it.",
        "`PREFECT_API_URL` is Prefect's own setting. A local run reports to that server; without"
        " it, the run starts a temporary server under `.leadloop/` and stops it at the end.",
        "## Of another account",
        f"The settings above are those of the account `{DEFAULT_ACCOUNT}`. A campaign whose row in"
        " `leadloop.campaigns` names another one in `account`, such as `emea`, uses the settings"
        " below instead: [several logins](../how-to/use-several-logins.md). A dash in the name is"
        f" `_` in the variable. A name consists of {NAME_FORM}, 40 characters at most.",
        _render_table(
            ["variable", "default", "form", "meaning"],
            [_render_account_setting(name) for name in ACCOUNT_SETTINGS],
        ),
        "The first place that sets any of them is used as a whole: the account's block, the"
        " environment, `.env`. Nothing is taken from another account. A misspelt variable is"
        " refused as above. If a value is wrong, or the address or the login is missing, the"
        " account's campaigns are left alone, and a line states the reason. Variables of accounts"
        " are left out if a run's block sets another database, login or address.",
    )


def _render_account_setting(name: str) -> list[str]:
    """Render a setting of an account: the form and the meaning are those of the plain setting."""
    form = _list_settings()[name]
    default = "" if name == "api_url" else form.get("default")
    meaning = {
        "api_url": "base URL of the API; required",
        "rate_limit": "rate limit of every process that uses this account together",
    }.get(name, form["description"])
    return [
        _format_code(f"{ACCOUNT_PREFIX}EMEA_{name.upper()}"),
        _format_code(default) if default else "",
        _describe_form(form),
        meaning,
    ]


def _list_settings() -> Mapping[str, Mapping[str, Any]]:
    properties: Mapping[str, Mapping[str, Any]] = Settings.model_json_schema()["properties"]
    return properties


def _render_setting(name: str, form: Mapping[str, Any]) -> list[str]:
    variable = f"{Settings.model_config['env_prefix']}{name.upper()}"
    default = form.get("default")
    column = _find_override(name)
    return [
        _format_code(variable),
        "" if default is None else _format_code(default),
        _describe_form(form),
        _require_description(f"the setting {variable}", form.get("description")),
        _format_code(column) if column else "",
    ]


def _find_override(name: str) -> str | None:
    """Return the column of a campaign that overrides a setting, if there is one."""
    rules = {field.name for field in fields(CampaignRules)}
    return next((rule for rule in (name, f"{name}_s") if rule in rules), None)


def _describe_form(form: Mapping[str, Any]) -> str:
    """Describe the form of a setting's value; of an optional setting, that of a value."""
    form = {**form, **next(iter(form.get("anyOf", [])), {})}
    if "enum" in form:
        return " or ".join(map(_format_code, form["enum"]))
    if form.get("type") != "integer":
        return "secret" if _is_secret(form) else "text"
    limits = [("from", form.get("minimum", form.get("exclusiveMinimum", -1) + 1))]
    if "maximum" in form:
        limits.append(("to", form["maximum"]))
    return "whole number " + " ".join(f"{word} {limit}" for word, limit in limits)


def _is_secret(form: Mapping[str, Any]) -> bool:
    return any(choice.get("format") == "password" for choice in form.get("anyOf", ()))


# Command line


def render_command_line() -> str:
    """Render every command with its arguments and options, from the text of `--help`."""
    group: Any = typer.main.get_command(app)
    return _join_page(
        "Command line",
        _require_description("the program", group.help),
        "Every command has `-h` and `--help`. Times are ISO 8601 with an offset"
        " (`2026-01-31T09:00:00+00:00`) or epoch milliseconds. Exit codes and JSON:"
        " [exit-codes-and-json.md](exit-codes-and-json.md).",
        _render_table(
            ["command", "does"],
            [
                [f"[`{name}`](#leadloop-{name})", _get_command_help(name, command)]
                for name, command in group.commands.items()
            ],
        ),
        *(_render_command(name, command) for name, command in group.commands.items()),
    )


def _get_command_help(name: str, command: Any) -> str:
    return _require_description(f"the command {name}", command.help)


def _render_command(name: str, command: Any) -> str:
    blocks = [f"## leadloop {name}", _get_command_help(name, command)]
    if command.params:
        rows = [_render_parameter(name, parameter) for parameter in command.params]
        blocks.append(_render_table(["argument or option", "", "meaning"], rows))
    return "\n\n".join(blocks)


def _render_parameter(command: str, parameter: Any) -> list[str]:
    is_argument = parameter.param_type_name == "argument"
    names = [parameter.name.upper()] if is_argument else parameter.opts
    facts = {
        "required": parameter.required,
        "repeatable": getattr(parameter, "multiple", False),
        f"default {parameter.default}": parameter.default not in (None, False),
    }
    return [
        ", ".join(map(_format_code, names)),
        ", ".join(fact for fact, holds in facts.items() if holds),
        _require_description(f"{names[0]} of the command {command}", parameter.help),
    ]


# Schema

_TABLES = text("""
SELECT c.oid, c.relname AS name, obj_description(c.oid, 'pg_class') AS description
  FROM pg_class AS c
 WHERE c.relnamespace = to_regnamespace('leadloop') AND c.relkind IN ('r', 'p')
   AND c.relname <> 'alembic_version'
 ORDER BY c.relname
""")
_COLUMNS = text("""
SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS required,
       CASE WHEN a.attidentity <> '' THEN 'generated' ELSE pg_get_expr(d.adbin, d.adrelid) END
           AS default,
       col_description(a.attrelid, a.attnum) AS description
  FROM pg_attribute AS a
  LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE a.attrelid = :table AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY a.attnum
""")
_CONSTRAINTS = text("""
SELECT pg_get_constraintdef(oid) FROM pg_constraint
 WHERE conrelid = :table AND contype IN ('p', 'u', 'f', 'c')
 ORDER BY contype DESC, conname
""")
_INDEXES = text("""
SELECT pg_get_indexdef(indexrelid) FROM pg_index
 WHERE indrelid = :table AND NOT indisprimary ORDER BY indexrelid::regclass::text
""")
_TRIGGERS = text("""
SELECT pg_get_triggerdef(t.oid) AS definition, obj_description(t.tgfoid, 'pg_proc') AS description
  FROM pg_trigger AS t WHERE t.tgrelid = :table AND NOT t.tgisinternal ORDER BY t.tgname
""")


def render_schema(connection: Connection) -> str:
    """Render every table of the schema from Postgres's catalogue."""
    tables = connection.execute(_TABLES).all()
    return _join_page(
        "Schema",
        "The tables of the Postgres schema `leadloop`, from Postgres's own catalogue"
        " (`\\d+ leadloop.leads` in psql shows the same). `leadloop init` creates and upgrades"
        " them. All times are `timestamptz`.",
        "Your code inserts into `campaigns`, `leads` and `disable_requests`. Only leadloop writes"
        " everything else.",
        *(_render_schema_table(connection, table) for table in tables),
    )


def _render_schema_table(connection: Connection, table: Any) -> str:
    key = {"table": table.oid}
    rows = [
        [
            _format_code(column.name),
            _format_code(column.type),
            "" if column.required else "null",
            _format_code(column.default) if column.default else "",
            column.description or "",
        ]
        for column in connection.execute(_COLUMNS, key)
    ]
    rules = [*connection.scalars(_CONSTRAINTS, key), *connection.scalars(_INDEXES, key)]
    triggers = [
        f"- `{trigger.definition}`: {' '.join(trigger.description.split())}"
        for trigger in connection.execute(_TRIGGERS, key)
    ]
    blocks = [
        f"## {table.name}",
        table.description or "",
        _render_table(["column", "type", "", "default", "meaning"], rows),
        "\n".join([*(f"- `{rule}`" for rule in rules), *triggers]),
    ]
    return "\n\n".join(filter(None, blocks))


# Views

_VIEWS = text("""
SELECT c.oid, c.relname AS name, obj_description(c.oid, 'pg_class') AS description
  FROM pg_class AS c
 WHERE c.relnamespace = to_regnamespace('leadloop_monitor') AND c.relkind = 'v'
 ORDER BY c.relname
""")
_VIEW_COLUMNS = text("""
SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type,
       col_description(a.attrelid, a.attnum) AS description
  FROM pg_attribute AS a
 WHERE a.attrelid = CAST(:view AS regclass) AND a.attnum > 0
 ORDER BY a.attnum
""")


def render_views(connection: Connection) -> str:
    """Render every view of the data team from Postgres's catalogue."""
    return _join_page(
        "Views",
        "The views of the Postgres schema `leadloop_monitor`: counts, times, reasons and ids. No"
        " column is personal. A reason may quote the vendor, and is redacted as far as [a rule can"
        " tell](../explanation/security.md#what-a-reason-may-show). The role `leadloop_reader` may"
        " read them and nothing else; make a login a member of it: `GRANT leadloop_reader TO"
        " dashboards`. Times are `timestamptz`; days and hours are UTC.",
        "Lead ids, campaign ids and campaign names are yours and are shown unchanged: choose ones"
        " that are not personal. If a `lead_id` is a phone number or an address, everybody who"
        " reads the views sees it; it is in logs and Prefect too.",
        *(
            "\n\n".join(
                [
                    f"## {view.name}",
                    _require_description(f"the view {view.name}", view.description),
                    _render_view_columns(connection, view.name, ("column", "meaning")),
                ]
            )
            for view in connection.execute(_VIEWS).all()
        ),
    )


def _render_view_columns(connection: Connection, view: str, heading: tuple[str, str]) -> str:
    columns = connection.execute(_VIEW_COLUMNS, {"view": f"leadloop_monitor.{view}"})
    return _render_table(
        [heading[0], "type", heading[1]],
        [
            [
                _format_code(each.name),
                each.type,
                _require_description(f"{view}.{each.name}", each.description),
            ]
            for each in columns
        ],
    )


# Sources of dbt

#: The tables that projects of others may rely on; the other ones change with versions.
DBT_TABLES = (
    "campaigns",
    "leads",
    "disable_requests",
    "lead_outcomes",
    "outreach_attempts",
    "watermarks",
    "poll_windows",
    "sync_runs",
)
_DBT_NOTE = """\
# The tables and views of leadloop as sources of dbt: `leadloop integration dbt` prints this file.
# Made by docs/generate.py from the comments in db/schema: change those, then `make docs`.
"""


def render_dbt_sources(database_url: str) -> str:
    """Render dbt's `sources.yml` from the comments in Postgres's catalogue.

    Args:
        database_url: a database; its schema `leadloop` is migrated and read, nothing else.

    Raises:
        LookupError: a declared table or column lacks a description; the message names it.
    """
    with _migrated_schema(database_url) as connection:
        tables = connection.execute(_TABLES).all()
        sources = [
            {
                "name": "leadloop",
                "description": "Tables of leadloop, with names, phone numbers and answers of"
                " people. If no such column is needed, use the views of leadloop_monitor.",
                "tables": [
                    _describe_dbt_table(connection, table)
                    for table in tables
                    if table.name in DBT_TABLES
                ],
            },
            {
                "name": "leadloop_monitor",
                "description": "Views of leadloop without personal columns, for members of the role"
                " leadloop_reader.",
                "tables": [
                    _describe_dbt_table(connection, view)
                    for view in connection.execute(_VIEWS).all()
                ],
            },
        ]
    content = {"version": 2, "sources": sources}
    return _DBT_NOTE + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)


def _describe_dbt_table(connection: Connection, table: Any) -> dict[str, Any]:
    columns = connection.execute(_COLUMNS, {"table": table.oid}).all()
    return {
        "name": table.name,
        "description": _join_lines(_require_description(table.name, table.description)),
        "columns": [
            {
                "name": column.name,
                "data_type": column.type,
                "description": _join_lines(
                    _require_description(f"{table.name}.{column.name}", column.description)
                ),
            }
            for column in columns
        ],
    }


def _join_lines(comment: str) -> str:
    return " ".join(comment.split())


# Problems


def render_problems(connection: Connection) -> str:
    """Render each problem with its threshold, as the views have them."""
    row = connection.execute(text("SELECT * FROM leadloop_monitor.thresholds")).one()
    thresholds = {str(name): period for name, period in row._mapping.items()}
    columns = connection.execute(_VIEW_COLUMNS, {"view": "leadloop_monitor.thresholds"})
    meanings = {each.name: each.description for each in columns}
    return _join_page(
        "Problems",
        "The rows that the view [`leadloop_monitor.problems`](views.md#problems) may have."
        " `leadloop status` and the [page](../how-to/monitor-page.md) show them, `status --check`"
        " fails because of them, runs emit an event for each (`leadloop.problem.…`), and `leadloop"
        " metrics` counts them (`leadloop_problems`). The view adds `--campaign` to the command.",
        "The thresholds are those of the view [`thresholds`](views.md#thresholds). A campaign may"
        " have its own, in seconds:",
        "```sql\nUPDATE leadloop.campaigns\n"
        '   SET thresholds = \'{"leads_unsent": 7200, "opt_outs_waiting": 300}\'\n'
        " WHERE campaign_id = '12345';\n```",
        "Names of problems without a threshold, periods that are not whole minutes (whole"
        " seconds for the three latencies), and more than a day for opt-outs are refused. The view"
        " [`campaign_thresholds`](views.md#campaign_thresholds) shows those in force; the page's"
        " charts show the general ones.",
        _render_table(
            ["problem", "severity", "meaning", "threshold", "command"],
            [_render_problem(kind, thresholds, meanings) for kind in PROBLEM_KINDS],
        ),
    )


def _render_problem(
    kind: ProblemKind, thresholds: Mapping[str, timedelta], meanings: Mapping[str, str]
) -> list[str]:
    threshold = thresholds.get(kind.name)
    return [
        _format_code(kind.name),
        kind.severity,
        kind.meaning,
        f"{_format_period(threshold)}: {meanings[kind.name]}" if threshold else "at once",
        " or ".join(map(_format_code, kind.commands)),
    ]


def _format_period(period: timedelta) -> str:
    for unit, size in (("d", timedelta(days=1)), ("h", timedelta(hours=1))):
        if period % size == timedelta(0):
            return f"{period // size} {unit}"
    return f"{period // timedelta(minutes=1)} min"


# Limits


def render_limits() -> str:
    """Render the limits on everything that comes from outside."""
    return _join_page(
        "Limits",
        "The limits on what comes from outside. Each has a test that counts bytes, values,"
        " requests or rows.",
        "## From the vendor",
        _render_table(
            ["what", "limit", "beyond it"],
            [
                ["a response, compressed or not", _format_bytes(MAX_RESPONSE_BYTES), _NOT_JSON],
                [
                    "the characters `[ ] { } , :` of a response",
                    f"{MAX_JSON_TOKENS:,}, some {MAX_JSON_TOKENS * 65 // 10**6} MB of memory",
                    _NOT_JSON,
                ],
                [
                    "a response's time",
                    "the read timeout of `LEADLOOP_TIMEOUT`",
                    "the attempt has failed",
                ],
                [
                    "levels of a JSON value",
                    "254",
                    f"parts below level {MAX_DEPTH} are kept as text",
                ],
                [
                    "digits of a JSON number",
                    f"{MAX_INTEGER_LENGTH:,}",
                    "the number is kept as text",
                ],
                [
                    "pages that a window's `next` names beyond its count",
                    "until one brings no new row, and page"
                    f" {MOST_PAGES:,} at the latest; {MAX_UNCOUNTED_PAGES} of a window of a second",
                    "the window is read no further, and split or owed; the poll ends after"
                    f" {MOST_ENDLESS} such windows of a second or less",
                ],
                [
                    "pages of a window",
                    f"{MAX_PAGES}",
                    "the window is split",
                ],
                [
                    "pages of a listing beyond its count that repeat rows",
                    f"{MAX_REPEATED_PAGES} in a row",
                    "the audit ends, and compares nothing",
                ],
                ["a pause (`Retry-After`)", f"{MAX_PAUSE_S / 3600:.0f} h", "cut to that"],
                [
                    "a reason in `last_error`",
                    f"{MAX_REASON_LENGTH} characters, of the first {MAX_REASON_READ:,}",
                    "cut",
                ],
                ["leads rejected with the same reason", f"{MAX_ALIKE} in a row", "the run ends"],
            ],
        ),
        "## From files, tables and sources",
        _render_table(
            ["what", "limit", "beyond it"],
            [
                [
                    "a create request's body",
                    "`LEADLOOP_BATCH_BYTES`",
                    "sent in parts; a lead that needs more alone is rejected, and is not read into"
                    " memory",
                ],
                [
                    "a record of a CSV file",
                    f"{MAX_RECORD_LENGTH:,} characters",
                    "its lines are passed over and reported",
                ],
                [
                    "a lead's id in a source or a file",
                    f"{MAX_LEAD_ID_LENGTH} characters",
                    "the row is passed over and named",
                ],
                [
                    "a lead's id or a phone number in an opt-out source",
                    f"{MAX_LEAD_ID_LENGTH} characters",
                    "the row is refused, and is a problem",
                ],
                [
                    "time to read a source",
                    "`LEADLOOP_SOURCE_TIMEOUT`",
                    "the campaign's part of the run fails",
                ],
                [
                    "leads that opt out within 24 hours because their rows have left the source",
                    f"{MIN_LIMIT}, or 1 % of the campaign's leads if that is more",
                    "all of them wait for a person",
                ],
            ],
        ),
        "## From viewers of the page, and from Prometheus",
        _render_table(
            ["what", "limit", "beyond it"],
            [
                ["connections, of each server", f"{MAX_CONNECTIONS:,}", "503"],
                ["tabs that show the page (WebSockets)", f"{MAX_SESSIONS}", "refused (403)"],
                ["a message of a tab", _format_bytes(MAX_MESSAGE_BYTES), "the connection ends"],
                ["methods", "`GET`, `HEAD`", "405: nothing can be uploaded"],
                ["hosts and origins", "[configured ones](../how-to/monitor-page.md)", "403"],
                [
                    "the database's time",
                    f"a twentieth, with {MAX_CREDIT_S:.0f} s in advance; one query at a time",
                    "older figures are shown, or a new selection is refused",
                ],
                [
                    "a statement",
                    f"{STATEMENT_TIMEOUT_S} s",
                    "it is cancelled, and none starts for as long",
                ],
            ],
        ),
    )


_NOT_JSON = "treated like a body that is not the vendor's JSON"


def _format_bytes(amount: int) -> str:
    return f"{amount // 2**20} MiB"


# Verdicts

#: The statuses that the vendor documents, and those of servers and proxies in between.
_STATUSES = (
    *(200, 201, 204, 301, 302, 303, 307, 308),
    *(400, 401, 403, 404, 405, 408, 409, 413, 422, 425, 429),
    *(500, 502, 503, 504),
)
_ANSWERS: Mapping[str, ApiResponse] = {
    "no connection: no byte was sent": ApiResponse(failure=TransportFailure.NOT_SENT),
    "no response: timeout, reset or cut after sending": ApiResponse(
        failure=TransportFailure.NO_RESPONSE
    ),
    **{str(status): ApiResponse(status=status) for status in _STATUSES},
    "2xx, body cut or not JSON": ApiResponse(status=200, body=UNREADABLE),
    "400, 409 or 422, body cut or not JSON": ApiResponse(status=400, body=UNREADABLE),
    "404, body cut or not JSON": ApiResponse(status=404, body=UNREADABLE),
    "429 with `Retry-After`": ApiResponse(status=429, retry_after_s=10.0),
    "503 with `Retry-After`": ApiResponse(status=503, retry_after_s=10.0),
}
_MEANINGS = {
    Verdict.ACCEPTED: "The vendor carried it out; leads that the body names as failed are rejected."
    " If the body reports a failure without naming a lead, counts fewer leads than were sent, or"
    " names only some, the others are in doubt (`create`) or not confirmed (`disable`). A `create`"
    " whose body affirms nothing is in doubt too, unless lookups have shown what it means.",
    Verdict.REJECTED: "The vendor rejected the request as a whole. Leads that the body names are"
    " rejected; if it names none, the batch is bisected until the bad leads stand alone. If the"
    " body of a `create` states, with whatever status, that leads were created, it is in doubt.",
    Verdict.TOO_LARGE: "Too many leads or bytes at once: the batch is halved, and the largest"
    " accepted part remembered (unless a single lead was too large: it is rejected if another part"
    " of the batch was accepted).",
    Verdict.RETRY: "Not carried out, or idempotent: retried after a pause.",
    Verdict.RATE_LIMITED: "Not carried out. Every process that uses this vendor account pauses"
    " for as long as the vendor asks (`Retry-After`; 5 s without one), then the request is"
    " retried.",
    Verdict.UNAUTHORIZED: "The token has expired: it is renewed once and the request retried."
    " A fixed token stops the run.",
    Verdict.IN_DOUBT: "It may have been carried out: the leads become `in_doubt` and are looked up;"
    " each is sent again only after a lookup has proven that the vendor does not have it, or when"
    " you requeue it.",
    Verdict.FATAL: "Nothing will succeed until a person changes something: the campaign's run ends"
    " and the exit code is 1.",
}


def render_verdicts() -> str:
    """Render the verdict on every response of the vendor for every call."""
    return _join_page(
        "Verdicts",
        "The verdict on each response of the vendor, for each call: the complete table of"
        " `leadloop.core.verdicts.classify_response`. Any other 4xx is `fatal`; any other 5xx is"
        " as 500."
        " With any verdict, a status from 400 on with `Retry-After` makes every process that"
        " uses this vendor account pause.",
        f"A body is not JSON for this table if it has more than {MAX_RESPONSE_BYTES:,} bytes,"
        f" compressed or not, or more than {MAX_JSON_TOKENS:,} of the characters `[ ] {{ }} , :`,"
        " or if it is JSON nested beyond reason. Parts that are nested more than 100 levels deep"
        " may be kept as text.",
        _render_table(
            ["verdict", "what leadloop does"], [[_format_code(v), _MEANINGS[v]] for v in Verdict]
        ),
        _render_table(
            ["response", *map(_format_code, ApiCall)],
            [[name, *_list_verdicts(answer)] for name, answer in _ANSWERS.items()],
        ),
    )


def _list_verdicts(answer: ApiResponse) -> list[str]:
    return [str(classify_response(call, answer)) for call in ApiCall]


# Exit codes and JSON

_COUNTS = {
    "created": "leads that became `created`: accepted by the vendor now, or found by a lookup",
    "rejected": "leads rejected by our checks or by the vendor; the reason is in `last_error`",
    "in_doubt": "leads that are in doubt when the run ends; of a disable, those that opted out",
    "not_looked_up": "of the leads in doubt, those without a lookup since their settle time ended",
    "settling": "of the leads in doubt, those whose settle time (`LEADLOOP_SETTLE`) is not over",
    "suspects": "`new` leads that wait for their next try, because a create that held them failed",
    "cancelled": "leads or opt-outs settled without a request: opted out before they were sent",
    "from_source": "new leads taken from the campaign's source",
    "unreadable_rows": "rows of the campaign's source that cannot be read, passed over",
    "from_opt_out_source": "lead ids and phone numbers that are new in the campaign's opt-out"
    " source",
    "held_back": "new leads not sent because the campaign is paused, not enabled or held",
    "disabled": "opt-outs that the vendor confirmed",
    "failed": "opt-outs set aside in this run, because the vendor refused or failed on them",
    "set_aside": "opt-outs set aside when the run ends, in all; each is retried at least daily",
    "windows": "windows read and stored",
    "pages": "pages read, repeated readings included",
    "seen": "distinct results read",
    "inserted": "new outcomes stored",
    "updated": "stored outcomes that had changed",
    "unchanged": "outcomes that were already stored and had not changed",
    "late": "outcomes that appeared after their `processed_at` had been polled",
    "owed": "windows that this run could not read completely; later polls try them again",
    "requests": "HTTP requests sent, logins and retries included",
}
_OWED = {
    "owed_id": "the number of the window, for `--accept` and `--retry`",
    "campaign_id": "the vendor's id of the campaign",
    "after": "start of the range of `processed_at` that could not be read",
    "before": "end of that range",
    "reason": "how the last read failed",
    "tries": "number of reads that failed",
    "found_at": "when the first read failed",
    "tried_at": "when the last read failed",
    "next_try_at": "when a poll reads the range again",
    "accepted_at": "when a person accepted the window as unreadable; null: nobody has",
    "accepted_by": "the database login of that person, or null",
    "accepted_reason": "why, in that person's words, or null",
}
_AUDIT = {
    "pages": "pages read, repeated readings and lookups included",
    "seen": "rows of the vendor's listing, each counted once",
    **DIFFERENCES,
    **REMARKS,
    "requests": _COUNTS["requests"],
}


def render_exit_codes(connection: Connection) -> str:
    """Render the exit codes, and the keys of the output of `--json`."""
    return _join_page(
        "Exit codes and JSON",
        _render_table(
            ["exit code", "meaning"],
            [
                ["0", "The run did its work. Rejected leads are recorded, not a failure."],
                [
                    "1",
                    "The run failed in part or completely, or was stopped (Ctrl-C, SIGTERM); a file"
                    " was not loaded completely; `doctor` found something that does not answer.",
                ],
                ["2", "Wrong usage or settings: nothing was begun. The line on stderr names it."],
            ],
        ),
        "A run that names a campaign whose [account](../how-to/use-several-logins.md) has no login"
        " here ends with 2, and so does a run in which no campaign has one. A run that names none"
        " does the others, and warns in one line.",
        "`sandbox` ends with 0 on Ctrl-C and SIGTERM, which is the normal way to stop it. A closed"
        " pipe, or a full disk under the output, does not change the exit code.",
        "With `--json`, the last line on stdout is one JSON object; progress, logs and errors go"
        " to stderr. If a run failed or was stopped (exit code 1), the object also has `error`,"
        " and its counts state what was done; if the run had not begun, the object has only"
        " `error`. With exit code 2 there is no object. Times are ISO 8601 in UTC.",
        "## push, disable, poll, backfill",
        "The sums over the campaigns, and under `campaigns` the same keys for each campaign id."
        " After a push each campaign also has `rejections`: what this push rejected, a list of"
        " `reason`, `leads` (their number) and `sample_lead_ids`, the most frequent reason first;"
        " reasons that the vendor gave are redacted."
        " After a poll or backfill each campaign also has `lookback_s`, its lookback, and"
        " `lookback_needed_s`: the `LEADLOOP_LOOKBACK` that would have found its late outcomes,"
        " in seconds; 0 if no outcome was late.",
        _render_table(["command", "keys"], _list_summary_keys()),
        _render_table(
            ["key", "counts"],
            _list_meanings(_COUNTS, [*PUSH.counts, *DISABLE.counts, *POLL.counts, "requests"]),
        ),
        "## plan",
        "The sums over the campaigns, and under `campaigns` the same keys for each campaign id,"
        " with `refusals` and `cancellations` (counts by reason) and `sample`: one of the leads"
        " that would be sent, with the type of each value in its place, or null. With `--show`"
        " also `lead_ids`: a list of ids under `send`, and lists by reason under `refusals` and"
        f" `cancellations`, of up to {MAX_PREVIEW_IDS} ids each.",
        _render_table(["key", "counts"], _list_meanings(PLAN, PLAN)),
        "## sync",
        "An object with `disable`, `push` and `poll`, each as above.",
        "## audit",
        "The sums over the campaigns, and under `campaigns` the same keys for each campaign id,"
        " with `samples`: up to three lead ids by the name of the count. Counts from"
        f" `{next(iter(DIFFERENCES))}` to `{list(DIFFERENCES)[-1]}` are differences; without any,"
        " the vendor's records and Postgres agree. A lead may be in several of them. They do not"
        " change the exit code.",
        _render_table(["key", "counts leads"], _list_meanings(_AUDIT, [*AUDIT.counts, "requests"])),
        "## status",
        '`{"campaigns": [...], "problems": [...], "latencies": [...], "upgrade_complete": true,'
        ' "rejections": [...]}`. `upgrade_complete` is false until `leadloop init` has counted the'
        " rows from before an upgrade of the schema. One object a campaign:",
        _render_view_columns(connection, "campaign_health", ("key", "holds")),
        "And one object a problem, the worst first; an empty list if there is no problem."
        " `--check` exits with 1 if there is one.",
        _render_view_columns(connection, "problems", ("key", "holds")),
        "And one object a campaign and kind of latency, of the last hour; a figure of more than an"
        " hour is null.",
        _render_view_columns(connection, "latencies_now", ("key", "holds")),
        "And one object a reason for which leads were rejected, the most frequent one first, at"
        f" most {MAX_REASONS} of a campaign; only with `--campaign`, or if there is a single"
        " campaign: otherwise the key is missing. `all_reasons` and `all_leads` are the numbers of"
        " all the campaign's reasons, and of the leads rejected for them.",
        _render_view_columns(connection, "rejections", ("key", "holds")),
        "## owed",
        '`{"owed": [...]}`: one object an owed window, by campaign and time; an empty list if'
        " nothing is owed. With `--accept` or `--retry`: that window, as it is afterwards.",
        _render_table(["key", "holds"], _list_meanings(_OWED, _OWED)),
        "## init, load, restored, release, requeue, forget, opt-out, opt-in, first-contact, doctor",
        _render_table(
            ["command", "keys"],
            [
                ["`init`", "`version`: the schema's version"],
                [
                    "`load`",
                    "`loaded`: leads inserted; `existing`: leads that were already there; `bad`:"
                    " lines skipped, reported on stderr (exit code 1 if an open quote or another"
                    " header lost some, or no line could be loaded). With `--update` also"
                    " `updated`: existing leads that were corrected",
                ],
                ["`restored`", "`held`: the ids of the campaigns whose creates are held now"],
                [
                    "`release`",
                    "`released`: the ids of the campaigns whose hold was ended; `not_held`: those"
                    " of the named ones that were not held",
                ],
                [
                    "`requeue`",
                    "for each requested kind (`rejected`, `in_doubt`, `disables`): its count",
                ],
                ["`forget`", "`forgotten`: leads whose personal data was removed"],
                [
                    "`opt-out`",
                    "`opted_out`: leads that have opted out now. With `--lead-id` also"
                    " `opted_out_before`: those that had before; `unknown`: the ids without a lead",
                ],
                [
                    "`opt-in`",
                    "`opted_in`: leads whose opt-out was withdrawn; `suppressed`: the ids of those"
                    " whose phone number stays suppressed by another lead, or by another"
                    " campaign's opt-out source",
                ],
                [
                    "`first-contact`",
                    "`campaign_id`; `leads`: the status of each named lead; `learned`: each answer"
                    " about the vendor by its question, those of earlier contacts included",
                ],
                [
                    "`doctor`",
                    "`checks`: a list of `check`, `ok`, `warns`, `detail`, without checks that"
                    " depend on a failed one",
                ],
            ],
        ),
    )


def _list_summary_keys() -> list[list[str]]:
    jobs = {"push": PUSH, "disable": DISABLE, "poll": POLL, "backfill": POLL}
    return [
        [_format_code(command), ", ".join(map(_format_code, [*spec.counts, "requests"]))]
        for command, spec in jobs.items()
    ]


def _list_meanings(descriptions: Mapping[str, str], keys: Iterable[str]) -> list[list[str]]:
    return [
        [_format_code(key), _require_description(f"the key {key}", descriptions.get(key))]
        for key in dict.fromkeys(keys)
    ]


if __name__ == "__main__":
    main()
