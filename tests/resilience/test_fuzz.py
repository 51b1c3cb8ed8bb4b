"""Bytes from outside: no traceback, no silence, nothing stored that was not meant, linear work.

Files, the vendor's answers, settings, URLs and SQL values are drawn. A fixed seed in `make test`,
fresh ones in `make soak`.
"""

import gzip
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import strategies as st

from db.database import Database, InvalidDatabaseUrl, normalise_url
from leadloop.cli.csv_records import CsvRecords
from leadloop.cli.load import LoadOptions, load_file
from leadloop.core import postgres_json
from leadloop.core.batch_response import parse_batch_response
from leadloop.core.errors import LeadloopError, UsageError
from leadloop.core.results import UnreadableResult, parse_result
from leadloop.core.summaries import collect_summary
from leadloop.core.unseen_characters import clean_id
from leadloop.core.verdicts import ApiCall, ApiResponse, classify_response
from leadloop.sandbox import SandboxHandle
from leadloop.settings import Settings
from tests import factories, sql
from tests.jobs import disable_leads, poll_outcomes, push_leads
from tests.raw_http_server import RESET, response, run_raw_server
from tests.resilience.conftest import Soak
from tests.resilience.laws import check_law, count_calls

_SECRET = "s3cret"
# The work that does not grow, and luck with the detection of delimiters.
_CALLS_AT_MOST = 400


def check_message(error: Exception, *secrets: str) -> None:
    """Check that an error is one line, and repeats no value."""
    message = str(error)
    assert "\n" not in message
    assert not [secret for secret in secrets if secret in message]


# Files -------------------------------------------------------------------------------------------

_CELLS = st.sampled_from(
    [
        *(b"", b" ", b"7", b"007", "\u200b8".encode(), b"Ann", b"CA", b"+14155550123", b"lead_id"),
        *(b'"', b'""', b'"a\nb"', b'"Ann, B"', b";", b"\t", b"\0", b"\xe9", b"\xef\xbb\xbf"),
        *(b"2026-01-31T09:00Z", b"1769850000", "a\u2028b".encode(), b"x" * 300, b"=1+1", b"\r"),
        *(b"sep=;", b"\xff\xfe", b"\xed\xa0\x80", b"phone_number", b"1e400", b"\x1a", b"-0"),
    ]
) | st.binary(max_size=6)
_HEADERS = st.sampled_from(
    [
        b"lead_id,phone_number,contact_name,state_code,ebr_datetime,plan",
        b"lead_id;phone_number;plan",
        b'"lead_id",ebr_datetime,"a\nb"',
        b"sep=;\nLead_ID;plan",
        b"lead_id\tplan\tpriority",
        b"lead_id",
        b"",
    ]
) | st.binary(max_size=20)
_OPTIONS = st.fixed_dictionaries(
    {
        "encoding": st.sampled_from([None, None, None, "cp1252", "utf-16", "utf-7", "rot13", "\0"]),
        "delimiter": st.sampled_from([None, None, None, ",", ";", "tab", '"', "ab", "\0", ""]),
        "mapping": st.lists(
            st.sampled_from(["plan=lead_id", "lead_id=id", "=", "a", "b=", "plan=results"]),
            max_size=2,
        ),
        "update": st.booleans(),
    }
)


def test_files(database: Database, tmp_path: Path, soak: Soak | None) -> None:
    """Any file is loaded, or its lines are reported; each id of it is in one of the two."""

    def law(
        header: bytes, rows: list[list[bytes]], ending: bytes, options: Mapping[str, Any]
    ) -> None:
        delimiter = b";" if b";" in header else b"\t" if b"\t" in header else b","
        lines = [delimiter.join([b"id%da" % place, *row]) for place, row in enumerate(rows)]
        content = ending.join([header.replace(b"\n", ending), *lines, b""])
        file = tmp_path / "leads.csv"
        file.write_bytes(content)
        sql.execute(database, "DELETE FROM leadloop.leads")
        said, failure = io.StringIO(), ""
        with collect_summary() as collected:
            try:
                load_file(database, file, "C1", said, LoadOptions(**options))
            except LeadloopError as error:
                failure = str(error)
        counts = collected.summary
        stored = sql.fetch_rows(database, "SELECT * FROM leadloop.leads")
        assert counts.get("loaded", 0) == len(stored)
        assert "\n" not in failure
        assert not counts.get("bad") or "line" in said.getvalue()
        if not failure and not counts["bad"]:
            # Without a header, the first line is taken for it, and its names are listed.
            kept = said.getvalue() + str(stored)
            assert all(f"id{place}a" in kept for place in range(len(rows)))
        for lead in stored:
            assert lead["lead_id"] == clean_id(lead["lead_id"])
            assert lead["ebr_datetime"] is None or lead["ebr_datetime"].year >= 1970

    check_law(
        soak,
        0.03,
        60,
        law,
        header=_HEADERS,
        rows=st.lists(st.lists(_CELLS, max_size=6), max_size=8),
        ending=st.sampled_from([b"\n", b"\r\n", b"\r"]),
        options=_OPTIONS,
    )


def test_files_are_read_in_linear_work(soak: Soak | None) -> None:
    """Twice the records take at most twice the calls."""

    def law(rows: list[list[bytes]]) -> None:
        body = b"".join(b",".join(row) + b"\n" for row in rows)

        def read(times: int) -> int:
            text = (b"lead_id,plan\n" + body * times).decode(errors="surrogateescape")
            lines = io.StringIO(text, newline="")
            return count_calls(lambda: list(CsvRecords(lines, delimiter=None, wanted=["lead_id"])))

        assert read(80) <= 2 * read(40) + _CALLS_AT_MOST

    rows = st.lists(st.lists(_CELLS, min_size=1, max_size=6), min_size=1, max_size=6)
    check_law(soak, 0.02, 25, law, rows=rows)


# The vendor's answers ----------------------------------------------------------------------------

_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**25), 10**25)
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(
        [
            *("1", "2", "1.0", " 1", "Quixotina", "+14155550123", "\x00", "\ud800", "=1+1"),
            *("success", "failed", "duplicate", "already exists", "created", "rejected"),
            *("2026-01-31T09:00:00Z", "2026-01-31", 1769850000000, 1769850000000000, 1, 2, 1.0),
        ]
    )
)
_KEYS = st.text(max_size=5) | st.sampled_from(
    [
        *("results", "count", "next", "lead_id", "processed_at", "outcome", "outcome_name"),
        *("success", "created", "failed", "errors", "message", "status", "total_cost", "calls"),
        *("call_1", "last_call", "gmail_1", "sms", "answers", "reference_id", "campaign_id"),
        *("duration", "cost", "leads", "data", "1", "2", "error", "detail", "last_attempt"),
    ]
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=5),
    max_leaves=12,
)
_PAGES = st.fixed_dictionaries(
    {
        "count": st.sampled_from([0, 1, 2, 3]) | _SCALARS,
        "next": st.none() | st.just("http://x/?page=2"),
        "results": st.lists(
            st.fixed_dictionaries(
                {"lead_id": st.sampled_from(["1", "2", 1, 1.0, "x"]) | _SCALARS},
                optional={
                    "processed_at": st.sampled_from([1769850000000, "2026-01-31T09:00Z"])
                    | _SCALARS,
                    "outcome": _VALUES,
                    "total_cost": _VALUES,
                    "call_1": _VALUES,
                    "calls": _VALUES,
                },
            )
            | _VALUES,
            max_size=4,
        ),
    }
)


def _encode(value: Any) -> bytes:
    return json.dumps(value).encode()


_BODIES = (
    _VALUES.map(_encode)
    | _PAGES.map(_encode)
    | st.binary(max_size=40)
    | st.tuples(_PAGES.map(_encode), st.integers(0, 200)).map(lambda pair: pair[0][: pair[1]])
    | st.sampled_from([b"[" * 300 + b"]" * 300, b'{"a":' * 120 + b"1" + b"}" * 120, b"9" * 5000])
)


def test_bodies_of_answers(database: Database, soak: Soak | None) -> None:
    """Any body has a verdict; what is parsed of it can be stored; errors repeat no value."""

    def law(body: bytes, status: int) -> None:
        try:
            parsed = postgres_json.parse_json(body)
        except ValueError:
            return
        texts = [postgres_json.dump_json(parsed)]
        answer = ApiResponse(status=status, body=parsed)
        for call in ApiCall:
            classify_response(call, answer)
        for call in (ApiCall.CREATE, ApiCall.DISABLE):
            result = parse_batch_response(call, parsed, ["1", "2"], lambda _: ())
            assert result.rejected.keys() | result.accepted <= {"1", "2"}
        results = parsed.get("results") if isinstance(parsed, dict) else None
        for row in results if isinstance(results, list) else [parsed]:
            try:
                found = parse_result(row)
            except UnreadableResult as error:
                check_message(error, "Quixotina")
                continue
            texts += [found.outcome.raw] if found.outcome else []
            texts += [attempt.answers for attempt in found.attempts]
            assert found.processed_at is not None or found.outcome is None
        sql.execute(
            database,
            "SELECT CAST(value AS jsonb) FROM unnest(CAST(:texts AS text[])) AS value",
            texts=texts,
        )

    statuses = st.sampled_from([200, 201, 202, 204, 302, 400, 401, 404, 409, 413, 422, 500, 503])
    check_law(soak, 0.03, 150, law, body=_BODIES, status=statuses)


def test_bodies_are_read_in_linear_work(soak: Soak | None) -> None:
    """Twice the rows take at most twice the calls."""

    def law(value: Any, name: str) -> None:
        def read(times: int) -> int:
            body = _encode({name: [value] * times, "message": _encode(value).decode() * times})

            def parse() -> None:
                parsed = postgres_json.parse_json(body)
                parse_batch_response(ApiCall.CREATE, parsed, ["1", "2"], lambda _: ())
                for row in parsed[name] if isinstance(parsed.get(name), list) else ():
                    try:
                        parse_result(row)
                    except UnreadableResult:
                        continue

            return count_calls(parse)

        assert read(40) <= 2 * read(20) + _CALLS_AT_MOST

    names = st.sampled_from(["results", "errors", "failed", "created", "x"])
    check_law(soak, 0.02, 40, law, value=_VALUES, name=names)


_STATUSES = ["200 OK", "201 Created", "204 No Content", "302 Found", "400 Bad Request"]
_STATUSES += ["401 Unauthorized", "404 Not Found", "409 Conflict", "413 Too Large", "500 Error"]
_ODD_HEADERS = st.lists(
    st.sampled_from(
        [
            *("Date: soon", "Date: Sat, 31 Jan 2026 09:00:00 GMT", "Date: 1", "Set-Cookie: a=b"),
            *("Content-Encoding: gzip", "Content-Encoding: br", "Content-Type: text/html"),
            *("Location: http://127.0.0.1:1/", "X: \u20ac", "Transfer-Encoding: x", "No colon"),
        ]
    ),
    max_size=2,
)
_ANSWERS = st.lists(
    st.one_of(
        st.builds(response, st.sampled_from(_STATUSES), _BODIES),
        st.tuples(st.sampled_from(_STATUSES), _BODIES, _ODD_HEADERS).map(
            lambda parts: response(parts[0], parts[1], *parts[2])
        ),
        st.builds(
            lambda body: response("200 OK", gzip.compress(body), "Content-Encoding: gzip"), _BODIES
        ),
        st.just(RESET),
        st.binary(max_size=60),
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.usefixtures("environment", "quick_retries", "disabled_logging")
def test_answers(database: Database, soak: Soak | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any answers: each run ends, in one line if it fails; each lead has a status that is true."""

    def law(answers: Sequence[bytes]) -> None:
        for table in ("leads", "disable_requests", "lead_outcomes", "owed_windows", "campaigns"):
            sql.execute(database, f"TRUNCATE leadloop.{table}, leadloop.sent_leads CASCADE")
        factories.add_campaign(database, window_s=2_000_000, lookback_s=0)
        leads = [factories.build_lead(each, contact_name="Quixotina") for each in ("1", "2")]
        factories.add_leads(database, *leads)
        with run_raw_server(*answers) as server:
            monkeypatch.setenv("LEADLOOP_API_URL", server.url)
            for run in (push_leads, disable_leads, poll_outcomes):
                try:
                    run()
                except LeadloopError as error:
                    check_message(error, "Quixotina")
                if run is push_leads:
                    factories.add_opt_outs(database, "2")
            # Each of them, also where it is split, retried or probed.
            assert len(server.requests) < 600
        sent = any(b"/create/" in request for request in server.requests)
        for lead_id, status in sql.fetch_statuses(database).items():
            assert status in ("new", "created", "rejected", "in_doubt", "cancelled"), lead_id
            assert sent or status in ("new", "cancelled")
        assert not any("Quixotina" in each for each in sql.fetch_errors(database).values())
        bodies = b"".join(map(_decompress, answers))
        assert bool(sql.fetch_outcomes(database)) <= (b"processed_at" in bodies)

    check_law(soak, 0.06, 25, law, answers=_ANSWERS)


def _decompress(answer: bytes) -> bytes:
    head, _, body = answer.partition(b"\r\n\r\n")
    try:
        return head + gzip.decompress(body)
    except (OSError, EOFError):
        return answer


# SQL values --------------------------------------------------------------------------------------

_LITERALS: Mapping[str, Sequence[str]] = {
    "text": [
        *("'7'", "' 7 '", "E'a\\nb'", "''", "NULL", "U&'\\200b8'", "repeat('x', 300)", "'null'"),
        *("'Quixotina'", "'+14155550123'", "'CA'", "'2026-01-31T09:00Z'", "'46053'", "'%s :x {}'"),
        *("U&'\\+01F600'", "'A''B'", "E'\\x01'", "'7.0'", "'4.15555012E9'", "'{\"a\": 1}'"),
    ],
    "integer": ["7", "0", "-1", "2147483647", "NULL"],
    "numeric": ["'NaN'", "'Infinity'", "1e300", "7.0", "0.10", "4155550123", "NULL"],
    "float8": ["'NaN'", "'-Infinity'", "1e308", "7", "4155550123", "0.1"],
    "timestamptz": ["'infinity'", "'-infinity'", "'0044-01-01 BC'", "'294276-01-01'", "now()"],
    "timestamp": ["'infinity'", "'2026-01-31 09:00'", "NULL"],
    "date": ["'infinity'", "'2026-01-31'", "'5874897-12-31'"],
    "interval": ["'1 month'", "'-1 s'"],
    "jsonb": ["'null'", "'\"7\"'", "'[1]'", "'{\"a\": null}'", "'7'", "'\"\"'", "'1e400'"],
    "json": ['\'{"a": 1, "a": 2}\'', "'\"\\u0000\"'", "'\"\\ud800\"'", "' 7 '", "'1e999999'"],
    "bytea": ["'\\x00ff'"],
    "text[]": ["'{7,NULL}'", "'{}'"],
    "uuid": ["'00000000-0000-0000-0000-000000000007'"],
    "boolean": ["true", "NULL"],
    "inet": ["'::1'"],
    "bit(3)": ["'101'"],
    "int4range": ["'[1,2)'"],
}
_COLUMN_NAMES = ("lead_id", "phone_number", "contact_name", "state_code", "ebr_datetime", "plan")
_LEAD = ("text", "text", "text", "text", "timestamptz")
_ANY_TYPES = st.sampled_from(sorted(_LITERALS))
_TYPES = st.tuples(
    *(st.just(type_) | _ANY_TYPES for type_ in _LEAD[:4]),
    st.sampled_from(["timestamptz", "timestamp", "date"]),
    _ANY_TYPES,
)
_ROWS = _TYPES.flatmap(
    lambda types: st.tuples(
        st.just(types),
        st.lists(st.tuples(*(st.sampled_from(_LITERALS[type_]) for type_ in types)), max_size=5),
    )
)
_GOOD_ROW = ("'good'", "'+14155550123'", "'Ann'", "'CA'", "'2026-01-31'")
_COUNT_NAMED = """
SELECT count(DISTINCT CAST(lead_id AS text) COLLATE "C") FROM crm.drawn
 WHERE CAST(lead_id AS text) <> '' AND length(CAST(lead_id AS text)) <= 255
"""


@pytest.mark.usefixtures("environment", "quick_retries", "disabled_logging")
def test_values_of_sources(database: Database, vendor: SandboxHandle, soak: Soak | None) -> None:
    """Any table: each row is a lead that is created or rejected with a reason, or is counted.

    A row that can be sent is sent, whatever stands in the others.
    """

    def law(table: tuple[Sequence[str], Sequence[Sequence[str]]]) -> None:
        types, rows = table
        has_good = types[:4] == _LEAD[:4]
        if has_good:
            rows = [*rows, [*_GOOD_ROW, _LITERALS[types[5]][0]]]
        columns = ", ".join(
            f"{name} {type_}" for name, type_ in zip(_COLUMN_NAMES, types, strict=True)
        )
        values = "".join(f"INSERT INTO crm.drawn VALUES ({', '.join(row)});" for row in rows)
        vendor.reset()
        sql.execute_script(
            database,
            f"""
            TRUNCATE leadloop.leads, leadloop.sent_leads, leadloop.campaigns CASCADE;
            DROP SCHEMA IF EXISTS crm CASCADE; CREATE SCHEMA crm;
            CREATE TABLE crm.drawn ({columns}); {values}
            """,
        )
        factories.add_campaign(database, source="crm.drawn")
        with collect_summary() as collected:
            try:
                push_leads()
            except LeadloopError as error:
                check_message(error, "Quixotina")
                assert not has_good
                return
        statuses = sql.fetch_statuses(database)
        assert set(statuses.values()) <= {"created", "rejected"}
        created = {lead_id for lead_id, status in statuses.items() if status == "created"}
        assert created == {lead.lead_id for lead in vendor.store.leads(factories.CAMPAIGN)}
        assert created.isdisjoint(sql.fetch_errors(database))
        assert len(statuses) - len(created) == len(sql.fetch_errors(database))
        assert not has_good or "good" in created
        if types[0] not in ("json", "jsonb"):
            # Rows without an id, and a second one with the same, are skipped with a warning.
            named = sql.fetch_value(database, _COUNT_NAMED)
            assert named - collected.summary["unreadable_rows"] <= len(statuses) <= named

    check_law(soak, 0.03, 40, law, table=_ROWS)


# Settings and URLs -------------------------------------------------------------------------------

_SETTING_VALUES = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12),
    st.sampled_from(
        [
            *("0", "-1", "1e3", "1_000", "\u0663", " 5 ", "9" * 400, "nan", "inf", "5,60", "5;60"),
            *("100/60", "1/0.000001", "1/1e-9", "s", "us", "US", "embedded", "true", "", "\n"),
            *("https://h", "https://h:0", "https://[::1]", "https://[", "http://127.0.0.1:1/p q"),
            *("https://h/%zz", "https://h\\@x", "https://\u20ac.example", "https://h/\u200b"),
            *("postgresql://u@h/d", "https://.", "https://-", "https://h..x", "https://h:1:2"),
            *("https://" + "x" * 300, "https://xn--", "https://h/a\tb", "http://localhost:1"),
        ]
    ),
)


def _fits_environment(value: str) -> bool:
    try:
        return "\0" not in os.fsdecode(os.fsencode(value))
    except UnicodeError:
        return False


@pytest.mark.parametrize("field", sorted(Settings.model_fields))
def test_settings(
    soak: Soak | None, field: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Any value is refused in one line that does not repeat it, or it works."""
    monkeypatch.chdir(tmp_path)

    def law(value: str, marked: bool) -> None:
        value = value + _SECRET if marked else value
        monkeypatch.setenv(f"LEADLOOP_{field.upper()}", value)
        try:
            settings = Settings.load()
        except UsageError as error:
            check_message(error, _SECRET)
            return
        settings.parse_rate(), settings.parse_timeouts(), settings.campaign_rules()
        # A request to that address can be prepared.
        requests.Request("GET", f"{settings.api_url}/api/v1/").prepare()

    values = _SETTING_VALUES.filter(_fits_environment)
    check_law(soak, 0.001, 30, law, value=values, marked=st.booleans())


def test_dotenv(soak: Soak | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Any bytes in `.env` are settings, or refused in one line."""
    monkeypatch.chdir(tmp_path)

    def law(content: bytes) -> None:
        file = tmp_path / ".env"
        file.write_bytes(content)
        file.chmod(0o600)
        try:
            Settings.load()
        except UsageError as error:
            check_message(error)

    pieces = st.binary(max_size=20) | st.sampled_from(
        [
            *(b"LEADLOOP_BATCH_SIZE=7\n", b"LEADLOOP_API_TOKEN='a\n", b"export X=${X}\n", b"\0"),
            *(b"LEADLOOP_BATCH_SIZE", b"=", b"\n", b'"', b"\xef\xbb\xbf", b"#", b"\xff\xfe"),
        ]
    )
    check_law(soak, 0.005, 60, law, content=st.lists(pieces, max_size=6).map(b"".join))


_URL_PARTS = st.lists(
    st.text(max_size=5)
    | st.sampled_from(
        [
            *(
                "postgresql",
                "postgres",
                "mysql",
                "://",
                ":",
                "@",
                "/",
                "?",
                "&",
                "=",
                ",",
                "[",
                "]",
            ),
            *("127.0.0.1", "%2F", "%", "%zz", "sslmode", "require", "host", "5432", "99999", "0"),
            *("options", "-c a=b", "\0", "\n", "application_name", "connect_timeout", "\ud800"),
        ]
    ),
    max_size=12,
).map("".join)


def test_database_urls(soak: Soak | None) -> None:
    """Any text is refused in one line without the password, or a connection is tried."""

    def law(parts: str, whole: bool) -> None:
        text = f"postgresql://u:{_SECRET}@127.0.0.1:1{parts}" if whole else parts
        try:
            url = normalise_url(text)
        except InvalidDatabaseUrl as error:
            check_message(error, _SECRET)
            return
        if url.host != "127.0.0.1" or url.port != 1 or "host" in url.query:
            # Who answers there is nobody of ours.
            return
        with Database(text, pool_size=1) as database:
            try:
                sql.execute(database, "SELECT 1")
            except LeadloopError as error:
                check_message(error, _SECRET)

    check_law(soak, 0.01, 200, law, parts=_URL_PARTS, whole=st.booleans())
