"""Writes `docs/reference/` from the code: `make docs`. A test holds the files to what this makes.

What is said of an option, a setting or a column is said where it is defined, and only read here.
"""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import typer
from sqlalchemy import text

from db.database import Connection, Database
from db.schema import migrate_schema
from leadloop import embedded, postgres_store
from leadloop.cli.app import app
from leadloop.core.audit_differences import DIFFERENCES, REMARKS
from leadloop.core.campaign_rules import CampaignRules
from leadloop.core.push_preview import PREVIEW_COUNTS as PLAN
from leadloop.core.verdicts import (
    UNREADABLE,
    ApiCall,
    ApiResponse,
    TransportFailure,
    Verdict,
    classify_response,
)
from leadloop.settings import Settings
from tasks.audit import AUDIT
from tasks.disable import DISABLE
from tasks.poll import POLL
from tasks.push import PUSH

REFERENCE = Path(__file__).parent / "reference"

_NOTE = "<!-- Made by docs/generate.py: change the code, then `make docs`. -->"


def main() -> None:
    """Write every page, over an embedded Postgres of the moment."""
    with tempfile.TemporaryDirectory() as directory:
        with embedded.running(Path(directory) / "pg") as url:
            for name, page in pages(url).items():
                (REFERENCE / name).write_text(page, encoding="utf-8")
        postgres_store.remove_temporary(Path(directory))


def pages(database_url: str) -> dict[str, str]:
    """The text of each page by its file name.

    Args:
        database_url: a database of which only the schema `leadloop` is looked at; it is migrated.

    Raises:
        LookupError: something that users meet lacks a description; the message names it.
    """
    with Database(database_url, pool_size=1) as database, database.transaction() as connection:
        migrate_schema(connection)
        return {
            "settings.md": settings_page(),
            "command-line.md": command_line_page(),
            "schema.md": schema_page(connection),
            "views.md": views_page(connection),
            "verdicts.md": verdicts_page(),
            "exit-codes-and-json.md": results_page(connection),
        }


def _page(title: str, *blocks: str) -> str:
    return "\n\n".join([f"# {title}", _NOTE, *blocks]) + "\n"


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(value: str) -> str:
    return " ".join(value.split()).replace("|", "\\|")


def _code(value: object) -> str:
    return f"`{value}`"


def _described(what: str, said: str | None) -> str:
    if not said:
        raise LookupError(f"{what} has no description")
    return said


# Settings


def settings_page() -> str:
    """Every setting: its variable, default, form, meaning, and the column that overrides it."""
    return _page(
        "Settings",
        "Settings are read from the environment, or from a file `.env` in the working directory;"
        " the environment wins. An empty value counts as not set. A column of"
        " `leadloop.campaigns` that is not null overrides the setting for that campaign.",
        "A wrong value ends a command with exit 2 and one line that names the variable and does"
        " not repeat the value. So does a variable whose name is nearly that of a setting, or a"
        " usual synonym of it (`DB_URL`), if that setting is not set anywhere; if it is"
        " set, the command or run only warns. Secrets are never printed. `LEADLOOP_DATABASE_URL`"
        " has no default: without it, commands and runs of deployments fail. Its value"
        " `embedded` starts a Postgres in `.leadloop/pg` of the working directory, for local"
        " commands only.",
        _table(
            ["variable", "default", "form", "meaning", "column of `leadloop.campaigns`"],
            [_setting(name, form) for name, form in _settings_schema().items()],
        ),
        "Needed for a run: a database, and either `LEADLOOP_API_TOKEN` or all four of"
        " `LEADLOOP_CLIENT_ID`, `LEADLOOP_CLIENT_SECRET`, `LEADLOOP_USERNAME` and"
        " `LEADLOOP_PASSWORD`. Where one place has both, the token is used; a whole login in the"
        " environment leaves no room for one of the other kind in `.env`. The login and"
        " `LEADLOOP_API_URL`, where it is set, must both stand in the environment or both in"
        " `.env`: a login is sent only to the address that was set beside it.",
        "`PREFECT_API_URL` is Prefect's own setting. A run by hand reports to that server; where"
        " it is not set, it starts a small one of its own under `.leadloop/` and stops it at the"
        " end.",
    )


def _settings_schema() -> Mapping[str, Mapping[str, Any]]:
    properties: Mapping[str, Mapping[str, Any]] = Settings.model_json_schema()["properties"]
    return properties


def _setting(name: str, form: Mapping[str, Any]) -> list[str]:
    variable = f"{Settings.model_config['env_prefix']}{name.upper()}"
    default = form.get("default")
    column = _override(name)
    return [
        _code(variable),
        "" if default is None else _code(default),
        _form(form),
        _described(f"the setting {variable}", form.get("description")),
        _code(column) if column else "",
    ]


def _override(name: str) -> str | None:
    """The rule of a campaign that a setting is the default of, if it is."""
    rules = {field.name for field in fields(CampaignRules)}
    return next((rule for rule in (name, f"{name}_s") if rule in rules), None)


def _form(form: Mapping[str, Any]) -> str:
    if "enum" in form:
        return " or ".join(map(_code, form["enum"]))
    if form.get("type") != "integer":
        return "secret" if _secret(form) else "text"
    limits = [("from", form.get("minimum", form.get("exclusiveMinimum", -1) + 1))]
    if "maximum" in form:
        limits.append(("to", form["maximum"]))
    return "whole number " + " ".join(f"{word} {limit}" for word, limit in limits)


def _secret(form: Mapping[str, Any]) -> bool:
    return any(choice.get("format") == "password" for choice in form.get("anyOf", ()))


# Command line


def command_line_page() -> str:
    """Every command with its arguments and options, as `--help` tells them."""
    group: Any = typer.main.get_command(app)
    return _page(
        "Command line",
        _described("the program", group.help),
        "Every command has `--help`. Times are ISO 8601 with an offset"
        " (`2026-01-31T09:00:00+00:00`) or epoch milliseconds. Exit codes and JSON:"
        " [exit-codes-and-json.md](exit-codes-and-json.md).",
        _table(
            ["command", "does"],
            [
                [f"[`{name}`](#leadloop-{name})", _command_help(name, command)]
                for name, command in group.commands.items()
            ],
        ),
        *(_command(name, command) for name, command in group.commands.items()),
    )


def _command_help(name: str, command: Any) -> str:
    return _described(f"the command {name}", command.help)


def _command(name: str, command: Any) -> str:
    blocks = [f"## leadloop {name}", _command_help(name, command)]
    if command.params:
        rows = [_parameter(name, parameter) for parameter in command.params]
        blocks.append(_table(["argument or option", "", "meaning"], rows))
    return "\n\n".join(blocks)


def _parameter(command: str, parameter: Any) -> list[str]:
    is_argument = parameter.param_type_name == "argument"
    names = [parameter.name.upper()] if is_argument else parameter.opts
    facts = {
        "required": parameter.required,
        "repeatable": getattr(parameter, "multiple", False),
        f"default {parameter.default}": parameter.default not in (None, False),
    }
    return [
        ", ".join(map(_code, names)),
        ", ".join(fact for fact, holds in facts.items() if holds),
        _described(f"{names[0]} of the command {command}", parameter.help),
    ]


# Schema

_TABLES = text("""
SELECT c.oid, c.relname AS name, obj_description(c.oid, 'pg_class') AS said
  FROM pg_class AS c
 WHERE c.relnamespace = to_regnamespace('leadloop') AND c.relkind IN ('r', 'p')
   AND c.relname <> 'alembic_version'
 ORDER BY c.relname
""")
_COLUMNS = text("""
SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS required,
       CASE WHEN a.attidentity <> '' THEN 'generated' ELSE pg_get_expr(d.adbin, d.adrelid) END
           AS default,
       col_description(a.attrelid, a.attnum) AS said
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
SELECT pg_get_triggerdef(t.oid) AS definition, obj_description(t.tgfoid, 'pg_proc') AS said
  FROM pg_trigger AS t WHERE t.tgrelid = :table AND NOT t.tgisinternal ORDER BY t.tgname
""")


def schema_page(connection: Connection) -> str:
    """Every table of the schema as Postgres describes it."""
    tables = connection.execute(_TABLES).all()
    return _page(
        "Schema",
        "The tables of the Postgres schema `leadloop`, as its own catalogue describes them"
        " (`\\d+ leadloop.leads` in psql shows the same). `leadloop init` makes and upgrades"
        " them. All times are `timestamptz`.",
        "Upstream inserts into `campaigns`, `leads` and `disable_requests`; everything else is"
        " written by leadloop alone.",
        *(_described_table(connection, table) for table in tables),
    )


def _described_table(connection: Connection, table: Any) -> str:
    key = {"table": table.oid}
    rows = [
        [
            _code(column.name),
            _code(column.type),
            "" if column.required else "null",
            _code(column.default) if column.default else "",
            column.said or "",
        ]
        for column in connection.execute(_COLUMNS, key)
    ]
    rules = [*connection.scalars(_CONSTRAINTS, key), *connection.scalars(_INDEXES, key)]
    triggers = [
        f"- `{trigger.definition}`: {' '.join(trigger.said.split())}"
        for trigger in connection.execute(_TRIGGERS, key)
    ]
    blocks = [
        f"## {table.name}",
        table.said or "",
        _table(["column", "type", "", "default", "meaning"], rows),
        "\n".join([*(f"- `{rule}`" for rule in rules), *triggers]),
    ]
    return "\n\n".join(filter(None, blocks))


# Views

_VIEWS = text("""
SELECT c.relname AS name, obj_description(c.oid, 'pg_class') AS said
  FROM pg_class AS c
 WHERE c.relnamespace = to_regnamespace('leadloop_monitor') AND c.relkind = 'v'
 ORDER BY c.relname
""")
_VIEW_COLUMNS = text("""
SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type,
       col_description(a.attrelid, a.attnum) AS said
  FROM pg_attribute AS a
 WHERE a.attrelid = CAST(:view AS regclass) AND a.attnum > 0
 ORDER BY a.attnum
""")


def views_page(connection: Connection) -> str:
    """Every view of the data team as Postgres describes it."""
    return _page(
        "Views",
        "The views of the Postgres schema `leadloop_monitor`: counts, times, reasons and ids, no"
        " personal data in any column. The role `leadloop_reader` may read them and nothing else;"
        " make a login a member of it: `GRANT leadloop_reader TO dashboards`. Times are"
        " `timestamptz`; days and hours are UTC.",
        "Lead ids, and campaigns' ids and names, are yours and are shown as they are: let none of"
        " them be personal. A `lead_id` that is a phone number or an address would be seen by"
        " everybody who reads the views, and is in logs and Prefect too.",
        *(
            "\n\n".join(
                [
                    f"## {view.name}",
                    _described(f"the view {view.name}", view.said),
                    _view_table(connection, view.name, ("column", "meaning")),
                ]
            )
            for view in connection.execute(_VIEWS).all()
        ),
    )


def _view_table(connection: Connection, view: str, heading: tuple[str, str]) -> str:
    columns = connection.execute(_VIEW_COLUMNS, {"view": f"leadloop_monitor.{view}"})
    return _table(
        [heading[0], "type", heading[1]],
        [
            [_code(each.name), each.type, _described(f"{view}.{each.name}", each.said)]
            for each in columns
        ],
    )


# Verdicts

#: The statuses that the vendor documents, and those that HTTP puts between it and us.
_STATUSES = (
    *(200, 201, 204, 301, 302, 303, 307, 308),
    *(400, 401, 403, 404, 405, 408, 409, 413, 422, 425, 429),
    *(500, 502, 503, 504),
)
_ANSWERS: Mapping[str, ApiResponse] = {
    "no connection: not a byte was sent": ApiResponse(failure=TransportFailure.NOT_SENT),
    "no answer: timeout, reset or cut after sending": ApiResponse(
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
    Verdict.ACCEPTED: "The vendor carried it out; leads that the body names beside trouble are"
    " rejected. Where it speaks of trouble and does not say whose, counts fewer than were sent, or"
    " names some and not all, the others are in doubt (`create`) or not confirmed (`disable`).",
    Verdict.REJECTED: "The vendor takes none of it as it stands. Leads that it names are rejected;"
    " where it names none, the batch is halved until the culprits stand alone.",
    Verdict.TOO_LARGE: "Too many at once: the batch is halved, and the size that is taken"
    " remembered (unless it was one lead that was too large).",
    Verdict.RETRY: "Not carried out, or harmless to repeat: sent again after a pause.",
    Verdict.RATE_LIMITED: "Not carried out. The whole business sends nothing for as long as the vendor"
    " asks (5 s where it does not say), then it is sent again.",
    Verdict.UNAUTHORIZED: "The token is no longer good: renewed once and sent again. A fixed token stops"
    " the run.",
    Verdict.IN_DOUBT: "It may have been carried out: the leads become `in_doubt` and are looked up,"
    " never resent unasked.",
    Verdict.FATAL: "Nothing will succeed until a person changes something: the campaign's run ends"
    " and the exit is 1.",
}


def verdicts_page() -> str:
    """What every answer of the vendor's means for every call."""
    return _page(
        "Verdicts",
        "What each answer of the vendor's means, for each call: the whole of"
        " `leadloop.core.verdicts.judge`. Any other 4xx is `stop`; any other 5xx is as 500."
        " Whatever the verdict, a status from 400 on with `Retry-After` makes the whole business"
        " pause.",
        _table(["verdict", "what is done"], [[_code(v), _MEANINGS[v]] for v in Verdict]),
        _table(
            ["answer", *map(_code, ApiCall)],
            [[name, *_verdicts(answer)] for name, answer in _ANSWERS.items()],
        ),
    )


def _verdicts(answer: ApiResponse) -> list[str]:
    return [str(classify_response(call, answer)) for call in ApiCall]


# Exit codes and JSON

_COUNTS = {
    "created": "leads that became `created`: taken by the vendor now, or found there by a lookup",
    "rejected": "leads refused by our checks or by the vendor; the reason is in `last_error`",
    "in_doubt": "leads of the campaign that are in doubt when the run ends",
    "cancelled": "leads or opt-outs settled without a request: opted out before they were sent",
    "from_source": "leads taken from the campaign's source that were not there yet",
    "held_back": "new leads that the campaign may not create: it is paused or not enabled",
    "disabled": "opt-outs that the vendor confirmed",
    "failed": "opt-outs that the vendor refused or failed on; each is tried again, at least daily",
    "windows": "windows read and stored",
    "pages": "pages read, repeated readings included",
    "seen": "distinct results read",
    "inserted": "outcomes stored that were not there",
    "updated": "outcomes that had changed",
    "unchanged": "outcomes that were there already, word for word",
    "late": "outcomes that were not there yet when their `processed_at` was polled before",
    "requests": "HTTP requests sent, logins and retries included",
}
_AUDIT = {
    "pages": "pages read, repeated readings and lookups included",
    "seen": "rows of the vendor's listing, each counted once",
    **DIFFERENCES,
    **REMARKS,
    "requests": _COUNTS["requests"],
}


def results_page(connection: Connection) -> str:
    """Exit codes, and the keys of what `--json` prints."""
    return _page(
        "Exit codes and JSON",
        _table(
            ["exit", "means"],
            [
                ["0", "The run did its work. Rejected leads are recorded, not a failure."],
                [
                    "1",
                    "The run failed in part or whole, or was stopped (Ctrl-C, SIGTERM); a file was"
                    " not loaded whole; `doctor` found something that does not answer.",
                ],
                ["2", "Wrong usage or settings: nothing was begun. The line on stderr says what."],
            ],
        ),
        "`sandbox` ends with 0 on Ctrl-C and SIGTERM: that is how it is told to stop. A reader that"
        " goes away, or a full disk under the output, does not change the exit.",
        "With `--json`, the last line on stdout is one JSON object; progress, logs and errors go"
        " to stderr. Where a run failed or was stopped (exit 1) the object also has `error`, and"
        " its counts say what was done all the same; where it had not begun, `error` is all. With"
        " exit 2 there is no object. Times are ISO 8601 in UTC.",
        "## push, disable, poll, backfill",
        "The sums over the campaigns, and under `campaigns` the same keys for each campaign id."
        " After a poll or backfill each campaign also has `lookback_s`, its lookback, and"
        " `lookback_needed_s`: the `LEADLOOP_LOOKBACK` that would have found its late outcomes,"
        " seconds; 0 where none was late.",
        _table(["command", "keys"], _summaries()),
        _table(
            ["key", "counts"],
            _meanings(_COUNTS, [*PUSH.counts, *DISABLE.counts, *POLL.counts, "requests"]),
        ),
        "## plan",
        "The sums over the campaigns, and under `campaigns` the same keys for each campaign id,"
        " with `refusals` and `cancellations` (how many by reason) and `sample`: one of the leads"
        " that would be sent, the kind of each value in its place, or null.",
        _table(["key", "counts"], _meanings(PLAN, PLAN)),
        "## sync",
        "An object with `disable`, `push` and `poll`, each as above.",
        "## audit",
        "The sums over the campaigns, and under `campaigns` the same keys for each campaign id,"
        " with `samples`: up to three lead ids by the name of the count. Counts from"
        f" `{next(iter(DIFFERENCES))}` to `{list(DIFFERENCES)[-1]}` are differences: with none,"
        " the books agree. A lead may be in several of them. They do not change the exit.",
        _table(["key", "counts leads"], _meanings(_AUDIT, [*AUDIT.counts, "requests"])),
        "## status",
        '`{"campaigns": [...], "problems": [...]}`. One object a campaign:',
        _view_table(connection, "campaign_health", ("key", "holds")),
        "And one a problem, the worst first; none: all is well. `--check` exits with 1 where there"
        " is one.",
        _view_table(connection, "problems", ("key", "holds")),
        "## init, load, requeue, forget, doctor",
        _table(
            ["command", "keys"],
            [
                ["`init`", "`version`: the schema's version"],
                [
                    "`load`",
                    "`loaded`: leads inserted; `existing`: leads that were there already and stay"
                    " as they are; `bad`: lines passed over, each told on stderr (exit 1 where an"
                    " open quote lost several, or none could be loaded)",
                ],
                [
                    "`requeue`",
                    "for each kind asked for (`rejected`, `in_doubt`, `disables`): how many",
                ],
                ["`forget`", "`forgotten`: leads whose personal data is gone"],
                [
                    "`doctor`",
                    "`checks`: a list of `check`, `ok`, `warns`, `detail`, without what rests on a"
                    " fault",
                ],
            ],
        ),
    )


def _summaries() -> list[list[str]]:
    flows = {"push": PUSH, "disable": DISABLE, "poll": POLL, "backfill": POLL}
    return [
        [_code(flow), ", ".join(map(_code, [*counts, "requests"]))]
        for flow, counts in flows.items()
    ]


def _meanings(said: Mapping[str, str], keys: Iterable[str]) -> list[list[str]]:
    return [
        [_code(key), _described(f"the key {key}", said.get(key))] for key in dict.fromkeys(keys)
    ]


if __name__ == "__main__":
    main()
