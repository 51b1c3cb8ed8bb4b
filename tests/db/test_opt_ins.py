"""Opt-ins: what is recorded, and what stays suppressed."""

from sqlalchemy import Connection, text

from db import opt_ins, suppressed_numbers
from db.database import Database
from db.opt_ins import NumberHolder
from db.suppressed_numbers import OptedOutNumber
from tests import factories


def test_an_opt_in_is_on_record(database: Database, connection: Connection) -> None:
    """Who, when and why, and since when the lead had opted out."""
    factories.add_leads(database, "a")
    factories.add_opt_outs(database, "a")
    ((state, number),) = opt_ins.lock_opt_outs(connection, "C1", ["a"])
    assert (state.lead_id, state.has_request, state.was_sent) == ("a", True, False)
    assert number is not None
    opt_ins.record_opt_ins(connection, "C1", ["a"], "a slip")
    row = connection.execute(
        text(
            "SELECT reason, opted_in_by = session_user, opted_out_at <= opted_in_at"
            "  FROM leadloop.opt_ins"
        )
    ).one()
    assert tuple(row) == ("a slip", True, True)
    assert connection.scalar(text("SELECT count(*) FROM leadloop.disable_requests")) == 0
    ((state, _),) = opt_ins.lock_opt_outs(connection, "C1", ["a"])
    assert (state.opted_out, state.has_request, state.lead_status) == (False, False, "new")


def test_a_number_is_suppressed_until_all_of_its_leads_opt_in(connection: Connection) -> None:
    """Each lead suppresses it for itself, also leads without a row."""
    leads = [
        OptedOutNumber(campaign_id="C1", lead_id=lead_id, phone_number="x", region="US")
        for lead_id in ("a", "b")
    ]
    suppressed_numbers.index_numbers(connection, [(lead, b"x") for lead in leads])
    opt_ins.record_opt_ins(connection, "C1", ["a"], "a slip")
    holder = NumberHolder(campaign_id="C1", lead_id="b")
    assert opt_ins.list_number_holders(connection, b"x") == [holder]
    assert suppressed_numbers.find_suppressed(connection, [b"x"], region="US")[0] == {b"x"}
    opt_ins.record_opt_ins(connection, "C1", ["b"], "a slip")
    assert suppressed_numbers.find_suppressed(connection, [b"x"], region="US")[0] == set()
