"""What is kept for a time only: windows, runs, and the vendor's answers as they came.

In portions, each in a transaction of its own: nobody waits for long, and a run that is stopped has
done what it has done.
"""

from collections.abc import Callable, Mapping

from sqlalchemy import Connection, TextClause, text

PORTION = 20_000

_OLD = "clock_timestamp() - make_interval(days => :days)"
# An incomplete window is owed until it has been made good, however old it is.
_WINDOWS = text(f"""
DELETE FROM leadloop.poll_windows WHERE window_id IN (
    SELECT window_id FROM leadloop.poll_windows
     WHERE campaign_id = :campaign AND polled_at < {_OLD}
       AND (status <> 'incomplete' OR made_good_at IS NOT NULL)
     LIMIT :most)
""")
_RUNS = text(f"""
DELETE FROM leadloop.sync_runs WHERE run_id IN (
    SELECT run_id FROM leadloop.sync_runs
     WHERE campaign_id = :campaign AND started_at < {_OLD} AND state <> 'running'
     LIMIT :most)
""")
_UNREADABLE = text(f"""
DELETE FROM leadloop.unreadable_results
 WHERE ctid IN (SELECT ctid FROM leadloop.unreadable_results
                 WHERE campaign_id = :campaign AND seen_at < {_OLD} LIMIT :most)
""")
_ANSWERS = text(f"""
UPDATE leadloop.lead_outcomes SET raw = '{{}}'
 WHERE ctid IN (SELECT ctid FROM leadloop.lead_outcomes
                 WHERE campaign_id = :campaign AND updated_at < {_OLD} AND raw <> '{{}}'
                 LIMIT :most)
""")

Portion = Callable[[Connection, str, int], int]


def _portion(statement: TextClause) -> Portion:
    def tidy(connection: Connection, campaign_id: str, days: int) -> int:
        parameters = {"campaign": campaign_id, "days": days, "most": PORTION}
        return connection.execute(statement, parameters).rowcount

    return tidy


#: What goes after LEADLOOP_KEEP_HISTORY days, by the name under which it is counted.
HISTORY: Mapping[str, Portion] = {"windows": _portion(_WINDOWS), "runs": _portion(_RUNS)}
#: What goes after LEADLOOP_KEEP_RAW days.
RAW: Mapping[str, Portion] = {"raw": _portion(_ANSWERS), "unreadable": _portion(_UNREADABLE)}
