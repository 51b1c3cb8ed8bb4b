"""The list of problems is that of the view."""

import re

from db.database import Database
from db.problem_kinds import PROBLEM_KINDS
from tests import sql


def test_the_list_is_that_of_the_view(database: Database) -> None:
    """Severity, name and command of each rule; every threshold belongs to a problem."""
    view = sql.fetch_value(
        database, "SELECT pg_get_viewdef('leadloop_monitor.problems'::regclass, true)"
    )
    rules = re.findall(r"'(critical|warning)'::text(?: AS severity)?,\s*'(\w+)'::text", view)
    slow = re.findall(r"'(\w+_slow)'::text", view)
    kinds = {(kind.severity, kind.name) for kind in PROBLEM_KINDS}
    assert kinds == {*rules, *(("warning", name) for name in slow)}
    options = "repair|rejected|disables|left-source"
    commands = re.findall(rf"'(leadloop [a-z-]+(?: --(?:{options}))?)", view)
    assert {command for kind in PROBLEM_KINDS for command in kind.commands} == set(commands)
    (thresholds,) = sql.fetch_rows(database, "SELECT * FROM leadloop_monitor.thresholds")
    assert thresholds.keys() <= {kind.name for kind in PROBLEM_KINDS}
