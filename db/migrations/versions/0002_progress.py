"""Owed windows, learned limits, and where the next poll starts.

Until the first release, 0001 states the whole schema. So each statement here does nothing where it
has been done, and brings the tables of an older database nearer to what db/schema states. The last
migration replaces views and comments, which need all columns.
"""

from alembic import op

revision = "0002_progress"
down_revision = "0001_initial"
branch_labels = None
depends_on = None

_TABLES = """
ALTER TABLE leadloop.unreadable_results
    ADD COLUMN IF NOT EXISTS occurrences integer NOT NULL DEFAULT 1;
CREATE INDEX IF NOT EXISTS unreadable_results_recent ON leadloop.unreadable_results (seen_at);
CREATE INDEX IF NOT EXISTS lead_outcomes_recent
    ON leadloop.lead_outcomes (campaign_id, first_seen_at);
ALTER TABLE leadloop.watermarks ADD COLUMN IF NOT EXISTS read_through timestamptz;
ALTER TABLE leadloop.watermarks ADD COLUMN IF NOT EXISTS written_through timestamptz;
CREATE TABLE IF NOT EXISTS leadloop.owed_windows (
    owed_id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    campaign_id   text NOT NULL,
    window_after  timestamptz NOT NULL,
    window_before timestamptz NOT NULL CHECK (window_before >= window_after),
    reason        text NOT NULL,
    tries         integer NOT NULL DEFAULT 1,
    found_at      timestamptz NOT NULL DEFAULT now(),
    tried_at      timestamptz NOT NULL DEFAULT now(),
    next_try_at   timestamptz NOT NULL,
    accepted_at   timestamptz,
    accepted_by   text,
    accepted_reason text CHECK (accepted_reason <> ''),
    CHECK ((accepted_at IS NULL) = (accepted_reason IS NULL))
);
CREATE INDEX IF NOT EXISTS owed_windows_by_campaign
    ON leadloop.owed_windows (campaign_id, window_after);
CREATE TABLE IF NOT EXISTS leadloop.learned_limits (
    campaign_id text NOT NULL,
    name        text NOT NULL CHECK (name IN ('page_size', 'page_depth')),
    value       integer NOT NULL CHECK (value > 0),
    learned_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (campaign_id, name)
);
"""
# Each poll has read these windows again, and recorded each with another end: they overlap. The next
# poll reads them too.
_OWED_SO_FAR = """
WITH incomplete AS (
    SELECT campaign_id, window_after, window_before, polled_at FROM leadloop.poll_windows
     WHERE status = 'incomplete' AND made_good_at IS NULL
), owed AS (
    SELECT campaign_id, unnest(range_agg(tstzrange(window_after, window_before, '[]'))) AS span
      FROM incomplete GROUP BY campaign_id
)
INSERT INTO leadloop.owed_windows (campaign_id, window_after, window_before, reason, found_at,
                                   tried_at, next_try_at)
SELECT campaign_id, lower(span), upper(span),
       'the rows read were not as many as the API counted', min(polled_at), max(polled_at), now()
  FROM owed JOIN incomplete USING (campaign_id)
 WHERE span @> window_after
 GROUP BY campaign_id, span
"""


def upgrade() -> None:
    """Add tables and columns, and copy the windows that are owed."""
    connection = op.get_bind()
    connection.exec_driver_sql(_TABLES)
    connection.exec_driver_sql(_OWED_SO_FAR)
