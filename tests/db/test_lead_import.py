"""Leads from a file are inserted once, in the order of the file."""

from sqlalchemy import Connection, text

from db.lead_import import insert_new_leads

_LEADS = text("SELECT lead_id, contact_name FROM leadloop.leads ORDER BY seq")


def row(lead_id: str, name: str) -> tuple[str | None, ...]:
    """Return a row in the order of COLUMNS."""
    return (lead_id, "+14155550100", name, "CA", None, "{}", None)


def test_leads_are_queued_in_the_order_of_the_file(connection: Connection) -> None:
    """The first row of the file is sent first."""
    assert insert_new_leads(connection, "C1", [row("z", "Ann"), row("a", "Bob")]) == 2
    assert [tuple(lead) for lead in connection.execute(_LEADS)] == [("z", "Ann"), ("a", "Bob")]


def test_a_file_loaded_again_changes_nothing(connection: Connection) -> None:
    """A lead that exists keeps its values; only new ones are counted, a repeated id once."""
    insert_new_leads(connection, "C1", [row("a", "Ann")])
    again = [row("a", "Somebody else"), row("b", "Bob"), row("b", "Bob")]
    assert insert_new_leads(connection, "C1", again) == 1
    assert [tuple(lead) for lead in connection.execute(_LEADS)] == [("a", "Ann"), ("b", "Bob")]
