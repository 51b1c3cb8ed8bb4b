"""The rules of problems about the last pushes, against the same rules in Python."""

from dataclasses import asdict, dataclass

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from db.database import Database
from tests import factories, sql
from tests.factories import CAMPAIGN

_RULES = ("leads_rejected", "doubts_growing", "rows_unreadable")
_DAY_H = 24


@dataclass(frozen=True, kw_only=True)
class Push:
    """A push that has ended, and the hours since it began; without counts: it has crashed."""

    age_h: int
    created: int = 0
    rejected: int = 0
    in_doubt: int = 0
    unreadable_rows: int = 0
    has_counts: bool = True


_PUSHES = st.lists(
    st.builds(
        Push,
        age_h=st.sampled_from([1, 2, 3, 23, 25, 100]),
        created=st.sampled_from([0, 0, 4, 30]),
        rejected=st.sampled_from([0, 0, 6, 12]),
        in_doubt=st.integers(0, 4),
        unreadable_rows=st.sampled_from([0, 0, 0, 2]),
        has_counts=st.sampled_from([True, True, True, False]),
    ),
    max_size=7,
).map(lambda pushes: sorted(pushes, key=lambda push: -push.age_h))


def write_push(database: Database, push: Push) -> None:
    """Insert the row of a push."""
    counts = {name: value for name, value in asdict(push).items() if isinstance(value, int)}
    with database.transaction() as connection:
        connection.execute(
            text("""
            INSERT INTO leadloop.sync_runs (flow, campaign_id, state, started_at, ended_at, counts)
            VALUES ('push-leads', :campaign, :state, now() - make_interval(hours => :age_h), now(),
                    CASE WHEN :has_counts THEN jsonb_build_object(
                        'created', :created, 'rejected', :rejected, 'in_doubt', :in_doubt,
                        'unreadable_rows', :unreadable_rows) ELSE '{}' END)"""),
            {
                **counts,
                "campaign": CAMPAIGN,
                "state": "completed" if push.has_counts else "crashed",
            },
        )


def expect(pushes: list[Push]) -> dict[str, int]:
    """Return the amount of each problem. Pure; the last push is the last of the list."""
    seen = [push if push.has_counts else Push(age_h=push.age_h) for push in pushes]
    found = {}
    recent = [push for push in seen if push.age_h < _DAY_H]
    rejected = sum(push.rejected for push in recent)
    if rejected >= 10 and rejected > sum(push.created for push in recent):
        found["leads_rejected"] = rejected
    if len(seen) >= 3:
        first, middle, last = seen[-3:]
        if first.in_doubt < middle.in_doubt < last.in_doubt and first.age_h < _DAY_H:
            found["doubts_growing"] = last.in_doubt
    if seen and seen[-1].unreadable_rows:
        found["rows_unreadable"] = seen[-1].unreadable_rows
    return found


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(pushes=_PUSHES)
def test_the_rules_about_pushes(database: Database, pushes: list[Push]) -> None:
    """They look at the last pushes that ended, whatever the others of the campaign did."""
    sql.execute(database, "TRUNCATE leadloop.campaigns, leadloop.sync_runs")
    factories.add_campaign(database)
    for push in pushes:
        write_push(database, push)
    rows = sql.fetch_rows(
        database,
        "SELECT problem, amount FROM leadloop_monitor.problems WHERE problem = ANY(:rules)",
        rules=list(_RULES),
    )
    assert {row["problem"]: row["amount"] for row in rows} == expect(pushes)
