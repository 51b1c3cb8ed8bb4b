"""What is new in an opt-out source, and which leads may have a number."""

import string
from collections.abc import Iterator

import phonenumbers
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from db import create_holds, opt_out_source, opt_outs, source
from db.database import Database
from db.opt_out_source import OPT_OUT_STAGING
from leadloop.core.errors import InvalidLead
from leadloop.core.phones import REGIONS, format_e164
from leadloop.core.source_requirements import OptOutSource
from leadloop.core.unseen_characters import strip_unseen
from tests import factories, sql

CRM = OptOutSource(name="crm.out", timeout_s=30)


@pytest.fixture
def crm(database: Database) -> Database:
    """Return a database with a campaign and a table of opt-outs."""
    sql.execute(
        database, "CREATE SCHEMA crm; CREATE TABLE crm.out (lead_id text, phone_number text)"
    )
    factories.add_campaign(database)
    return database


@pytest.fixture
def session(crm: Database) -> Iterator[Connection]:
    """Yield a dedicated connection outside of a transaction."""
    with crm.dedicated() as connection:
        yield connection


def read(crm: Database, connection: Connection, region: str = "US") -> list[tuple[object, ...]]:
    """Stage the table as a read does; return the new entries, and remember them as read."""
    table = source.inspect_source(crm, CRM)
    source.stage_source_rows(crm, connection, CRM, table, OPT_OUT_STAGING)
    opt_out_source.stage_changes(connection, "C1", region)
    with connection.begin():
        entries = opt_out_source.list_changes(connection, 0)
        reasons = dict.fromkeys(entry.place for entry in entries)
        opt_out_source.remember_entries(connection, "C1", reasons)
        opt_out_source.forget_vanished(connection, "C1")
        for name in ("opt_out_rows", "opt_out_entries", "opt_out_changes"):
            connection.execute(text(f"DROP TABLE pg_temp.{name}"))
    return [(entry.lead_id, entry.phone_number) for entry in entries]


def test_a_row_is_new_when_it_appears(crm: Database, session: Connection) -> None:
    """Each of its two cells once, however often it stands there; and again once it was gone."""
    sql.execute(crm, "INSERT INTO crm.out VALUES ('a', '1'), ('a', '1'), ('b', NULL), ('', '2')")
    assert set(read(crm, session)) == {("a", None), ("b", None), (None, "1"), (None, "2")}
    assert read(crm, session) == []
    sql.execute(crm, "DELETE FROM crm.out WHERE lead_id = 'a'")
    sql.execute(crm, "INSERT INTO crm.out VALUES ('c', '2')")
    assert read(crm, session) == [("c", None)]
    sql.execute(crm, "INSERT INTO crm.out VALUES ('a', NULL), (NULL, ''), (NULL, NULL)")
    assert set(read(crm, session)) == {("a", None), (None, None)}


def test_a_number_is_another_one_in_another_region(crm: Database, session: Connection) -> None:
    """An id is the same everywhere."""
    sql.execute(crm, "INSERT INTO crm.out VALUES ('a', '030 1234567')")
    assert len(read(crm, session, "US")) == 2
    assert read(crm, session, "DE") == [(None, "030 1234567")]


def test_no_number_is_kept(crm: Database, session: Connection) -> None:
    """What is remembered is a hash that only the secret key explains."""
    sql.execute(crm, "INSERT INTO crm.out VALUES ('a', '+14155550123')")
    read(crm, session)
    kept = sql.fetch_rows(crm, "SELECT CAST(t AS text) AS kept FROM leadloop.opt_out_source_rows t")
    assert len(kept) == 2
    assert "4155550123" not in str(kept)
    plain = (
        "SELECT sha256('number US +14155550123') IN"
        " (SELECT entry FROM leadloop.opt_out_source_rows)"
    )
    assert sql.fetch_value(crm, plain) is False


def test_what_was_refused_is_read_again_after_a_day(crm: Database, session: Connection) -> None:
    """A later version may know its number; until then it is no news."""
    sql.execute(crm, "INSERT INTO crm.out VALUES (NULL, 'x')")
    read(crm, session)
    refuse = "UPDATE leadloop.opt_out_source_rows SET reason = 'no', read_at = now() - interval "
    sql.execute(crm, refuse + "'23 hours'")
    assert read(crm, session) == []
    sql.execute(crm, refuse + "'25 hours'")
    assert read(crm, session) == [(None, "x")]


def digest(crm: Database) -> str | None:
    """Return the digest of the table."""
    return opt_out_source.read_digest(crm, CRM, source.inspect_source(crm, CRM), "US")


def test_a_digest_shows_every_change_and_no_other(crm: Database) -> None:
    """Not the order of the rows; a value in the other column, a repeated row, a null."""
    seen = [digest(crm)]
    for change in (
        "INSERT INTO crm.out VALUES ('a', '1'), ('b', '2')",
        "INSERT INTO crm.out VALUES ('a', '1')",
        "UPDATE crm.out SET lead_id = phone_number, phone_number = lead_id WHERE lead_id = 'b'",
        "UPDATE crm.out SET phone_number = NULL WHERE lead_id = '2'",
        "UPDATE crm.out SET phone_number = '' WHERE lead_id = '2'",
        "DELETE FROM crm.out WHERE lead_id = '2'",
    ):
        sql.execute(crm, change)
        seen.append(digest(crm))
    assert len(set(seen)) == len(seen)
    sql.execute(
        crm, "INSERT INTO crm.out VALUES ('x', 'y'); DELETE FROM crm.out WHERE lead_id = 'x'"
    )
    sql.execute(crm, "CREATE INDEX by_number ON crm.out (phone_number DESC)")
    sql.execute(crm, "CLUSTER crm.out USING by_number")
    sql.execute(crm, "ALTER TABLE crm.out ADD COLUMN note text")
    assert digest(crm) == seen[-1]


def test_a_table_with_rows_that_cannot_be_read_has_no_digest(crm: Database) -> None:
    """So each look compares the rows that can be read."""
    sql.execute(
        crm,
        """ALTER TABLE crm.out RENAME TO people;
           INSERT INTO crm.people VALUES ('a', '1'), ('b', 'x');
           CREATE VIEW crm.out AS SELECT lead_id, CAST(phone_number AS integer) AS phone_number
             FROM crm.people""",
    )
    assert digest(crm) is None


@pytest.mark.parametrize(
    ("table", "values", "status", "is_marked"),
    [
        ("leads (campaign_id, lead_id)", "'C1', 'A-1'", "requested", False),
        ("leads (campaign_id, lead_id)", "'C2', 'A-1'", "cancelled", False),
        ("leads (campaign_id, lead_id)", "'C1', 'a-1'", "cancelled", True),
        ("leads (campaign_id, lead_id)", "'C1', 'A -1'", "cancelled", True),
        (
            "sent_leads (campaign_id, lead_id, status)",
            *("'C1', 'A-1', 'created'", "requested", False),
        ),
        (
            "lead_outcomes (campaign_id, lead_id, processed_at, raw)",
            *("'C1', 'A-1', now(), '{}'", "requested", False),
        ),
        (
            "outreach_attempts (campaign_id, lead_id, channel, block, attempt_key)",
            *("'C1', 'A-1', 'call', 'b', 'k'", "requested", False),
        ),
        ("create_holds (campaign_id, reason)", "'C1', 'restored'", "requested", False),
    ],
)
def test_the_vendor_is_not_asked_to_disable_strangers(
    crm: Database, table: str, values: str, status: str, is_marked: bool
) -> None:
    """Whom the vendor cannot have is cancelled at once; an id that differs in case is marked."""
    sql.execute(crm, f"INSERT INTO leadloop.{table} VALUES ({values})")
    with crm.transaction() as connection:
        assert opt_out_source.opt_out_leads(connection, "C1", ["A-1"], "why") == 1
        assert opt_out_source.opt_out_leads(connection, "C1", ["A-1"], "why") == 0
    (row,) = sql.fetch_rows(
        crm, "SELECT status, origin, reason, names_no_lead FROM leadloop.disable_requests"
    )
    assert row == {
        "status": status,
        "origin": "opt_out_source",
        "reason": "why",
        "names_no_lead": is_marked,
    }


@pytest.mark.parametrize(
    ("table", "values", "status"),
    [
        *(
            ("leads (campaign_id, lead_id, status)", f"'C1', 'a', '{status}'", "requested")
            for status in ("sending", "created", "in_doubt")
        ),
        (
            "leads (campaign_id, lead_id, status, sent_at)",
            *("'C1', 'a', 'rejected', now()", "requested"),
        ),
        *(
            ("leads (campaign_id, lead_id, status)", f"'C1', 'a', '{status}'", "cancelled")
            for status in ("new", "rejected", "cancelled")
        ),
        ("sent_leads (campaign_id, lead_id, status)", "'C1', 'a', 'created'", "requested"),
        (
            "lead_outcomes (campaign_id, lead_id, processed_at, raw)",
            *("'C1', 'a', now(), '{}'", "requested"),
        ),
        (
            "outreach_attempts (campaign_id, lead_id, channel, block, attempt_key)",
            *("'C1', 'a', 'call', 'b', 'k'", "requested"),
        ),
        ("sent_leads (campaign_id, lead_id, status)", "'C2', 'a', 'created'", "cancelled"),
    ],
)
def test_who_was_sent_meanwhile_is_requested(
    crm: Database, table: str, values: str, status: str
) -> None:
    """And is marked, whatever it is; who was never sent stays cancelled."""
    with crm.transaction() as connection:
        opt_out_source.opt_out_leads(connection, "C1", ["a", "other"], "why")
    sql.execute(crm, f"INSERT INTO leadloop.{table} VALUES ({values})")
    sql.execute(crm, "UPDATE leadloop.leads SET opted_out = false")
    with crm.transaction() as connection:
        opt_out_source.request_sent(connection, "C1", ["a", "other"])
    assert sql.fetch_opt_outs(crm) == {"a": status, "other": "cancelled"}
    marks = sql.fetch_rows(crm, "SELECT opted_out FROM leadloop.leads")
    assert all(mark["opted_out"] for mark in marks)


def test_strangers_of_a_hold_come_last_and_are_cancelled_after_it(crm: Database) -> None:
    """The vendor may have them all; first come those whom it has for certain."""
    factories.add_leads(crm, factories.build_lead("z", status="created"))
    sql.execute(
        crm,
        "INSERT INTO leadloop.sent_leads (campaign_id, lead_id, status)"
        " VALUES ('C1', 'y', 'created');"
        " INSERT INTO leadloop.create_holds (campaign_id, reason) VALUES ('C1', 'restored')",
    )
    strangers = ["A-1", "b", "comes", "sent"]
    with crm.transaction() as connection:
        opt_out_source.opt_out_leads(connection, "C1", [*strangers, "y", "z"], "why")
    assert set(sql.fetch_opt_outs(crm).values()) == {"requested"}

    def pick(limit: int, *exclude: str) -> set[str]:
        with crm.transaction() as connection:
            assert opt_outs.cancel_unsent(connection, "C1") == 0
            picked = opt_outs.pick_due(
                connection, campaign_id="C1", status="requested", limit=limit, exclude=exclude
            )
            return set(picked)

    assert pick(2) == {"y", "z"}
    assert pick(2, "y", "z", "A-1", "b", "comes") == {"sent"}
    factories.add_leads(crm, factories.build_lead("comes", status="created"), "a-1")
    with crm.transaction() as connection:
        create_holds.release_creates(connection, ["C1"], "nothing was lost")
        assert opt_outs.cancel_unsent(connection, "C1") == 2
    left = {"comes", "sent", "y", "z"}
    assert sql.fetch_opt_outs(crm) == {
        **dict.fromkeys(left, "requested"),
        **{"A-1": "cancelled", "b": "cancelled"},
    }
    marked = "SELECT lead_id FROM leadloop.disable_requests WHERE names_no_lead"
    assert sql.fetch_rows(crm, marked) == [{"lead_id": "A-1"}]


def test_opt_outs_of_a_person_stay_cancelled(crm: Database) -> None:
    """What the vendor has rejected with its lead is not asked for again."""
    factories.add_leads(crm, factories.build_lead("a", status="created"))
    factories.add_opt_outs(crm, "a", status="cancelled", confirmed_at="now")
    with crm.transaction() as connection:
        opt_out_source.request_sent(connection, "C1", ["a"])
    assert sql.fetch_opt_outs(crm) == {"a": "cancelled"}


_SEPARATORS = st.sampled_from(["", " ", "-", ".", "/", " / ", ") ", "("])
_DRESS = st.sampled_from(
    [
        *("{}", " {}", "{} ", "-{}", "{}.", "{}.0", "{}.00", "({}", "{})", "tel: {}"),
        *("{}\ufe0f", "{}\u2028", "\u200b{}", "{}\u202c\n"),
    ]
)


@st.composite
def written_numbers(draw: st.DrawFn) -> tuple[str, str]:
    """Return a number of some region as people and spreadsheets write it, and a default region."""
    region = draw(st.sampled_from(sorted(REGIONS)))
    number = phonenumbers.example_number(region)
    assert number is not None
    national = phonenumbers.national_significant_number(number)
    kind = draw(st.sampled_from(["digits", "e164", "national", "international", "split"]))
    if kind == "digits":
        written = national
    elif kind == "split":
        cut = draw(st.integers(0, len(national)))
        prefix = draw(st.sampled_from(["", "0", "+" + str(number.country_code), "15", "9"]))
        written = prefix + national[:cut] + draw(_SEPARATORS) + national[cut:]
    else:
        form = {
            "e164": phonenumbers.PhoneNumberFormat.E164,
            "national": phonenumbers.PhoneNumberFormat.NATIONAL,
            "international": phonenumbers.PhoneNumberFormat.INTERNATIONAL,
        }[kind]
        written = phonenumbers.format_number(number, form)
    return draw(_DRESS).format(written), region


_ANY_TEXT = st.tuples(
    st.text(string.digits + " +-().,/;:'eExt#", max_size=20), st.sampled_from(["US", "AR", "DE"])
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(written=st.lists(written_numbers() | _ANY_TEXT, min_size=1, max_size=30))
@example(written=[("+14155552671\ufe0f", "US"), ("415 555 2671\u2028", "US")])
@example(written=[("0 2966 15 123456", "AR"), ("3012345678.0", "US"), ("1-800-FLOWERS", "US")])
def test_no_lead_with_the_number_is_left_out(
    session: Connection, written: list[tuple[str, str]]
) -> None:
    """However it is written: SQL leaves out a lead only if its number is certainly another one."""
    with session.begin() as transaction:
        session.execute(
            text("CREATE TEMPORARY TABLE opt_out_changes (e164 text, lead_id text) ON COMMIT DROP")
        )
        for number, region in written:
            try:
                e164 = format_e164(strip_unseen(number), region, _ALL)
            except InvalidLead:
                continue
            session.execute(text("TRUNCATE pg_temp.opt_out_changes"))
            session.execute(
                text("INSERT INTO pg_temp.opt_out_changes (e164) VALUES (:number)"),
                {"number": e164},
            )
            session.execute(text("DELETE FROM leadloop.leads"))
            session.execute(
                text(
                    "INSERT INTO leadloop.leads (campaign_id, lead_id, phone_number)"
                    " VALUES ('C1', 'a', :number)"
                ),
                {"number": number},
            )
            found = [each.lead_id for each in opt_out_source.iter_candidates(session, "C1")]
            assert found == ["a"], number
        transaction.rollback()


_ALL = frozenset(map(str, range(200, 1000)))


def test_leads_with_other_numbers_are_left_out(session: Connection) -> None:
    """So that a scan of many leads costs Python little."""
    with session.begin():
        session.execute(text("CREATE TEMPORARY TABLE opt_out_changes (e164 text)"))
        session.execute(text("INSERT INTO pg_temp.opt_out_changes VALUES ('+14155550123')"))
        for number, lead in enumerate(
            ("+14155550124", "+12125550123", "(415) 555-0124", "415.555.0124", "4155550123", None)
        ):
            session.execute(
                text(
                    "INSERT INTO leadloop.leads (campaign_id, lead_id, phone_number)"
                    " VALUES ('C1', :id, :number)"
                ),
                {"id": str(number), "number": lead},
            )
        assert [each.lead_id for each in opt_out_source.iter_candidates(session, "C1")] == ["4"]
