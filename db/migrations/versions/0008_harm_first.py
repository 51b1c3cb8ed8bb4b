"""Close the schema's functions, remember sent leads, brake creates, find opt-outs of no lead.

The file of the same name beside this one holds the statements and says why each is there.
"""

import logging
import re
from pathlib import Path

from alembic import op
from sqlalchemy import text

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# A lead's id without the case of ASCII letters, blanks and invisible characters (Unicode's
# separators, format and control characters, fillers, tags); in the default collation, as the index
# of ids is. Spelt out where it is used, not a function: whoever inserts a lead would need the right
# to execute it.
_FOLDED = (
    r"(lower(regexp_replace(\1, '[\\u0001-\\u0020\\u007f-\\u00a0\\u00ad\\u034f\\u061c\\u115f\\u1160"
    r"\\u1680\\u17b4\\u17b5\\u180b-\\u180f\\u2000-\\u200f\\u2028-\\u202f\\u205f-\\u206f\\u2800"
    r"\\u3000\\u3164\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff9-\\ufffb\\U000e0000-\\U000e0fff]+', '',"
    ' \'g\') COLLATE "C") COLLATE "default")'
)

# Until now the search path of the session completed a name without a schema; no session follows
# that path any more. A name that several relations have is left alone: only the path of the role
# that runs, which need not be this one, told which was meant. The next push says so in one line.
_COMPLETE_SOURCES = text(r"""
WITH named AS (
    SELECT campaign_id, source,
           coalesce(substring(source FROM '^"([^"]+)"$'), lower(source)) AS name
      FROM leadloop.campaigns WHERE source ~ '^([A-Za-z_][A-Za-z0-9_$]*|"[^"]+")$'
), found AS (
    SELECT named.campaign_id, named.source,
           min(quote_ident(n.nspname) || '.' || quote_ident(c.relname)) AS completed
      FROM named JOIN pg_class AS c ON c.relname = named.name
      JOIN pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
       AND n.nspname NOT LIKE 'pg\_%' AND n.nspname NOT IN ('information_schema', 'leadloop')
     GROUP BY named.campaign_id, named.source HAVING count(*) = 1
)
UPDATE leadloop.campaigns AS campaign SET source = found.completed
  FROM found WHERE found.campaign_id = campaign.campaign_id
RETURNING campaign.campaign_id, found.source, found.completed
""")
_log = logging.getLogger(__name__)


def upgrade() -> None:
    """Apply the statements, with `FOLDED(column)` written out."""
    statements = Path(__file__).with_name("0008_harm_first.sql").read_text(encoding="utf-8")
    op.get_bind().exec_driver_sql(re.sub(r"FOLDED\(([\w.]+)\)", _FOLDED, statements))
    for campaign_id, name, completed in op.get_bind().execute(_COMPLETE_SOURCES):
        _log.warning("campaign %s: its source %s is now named %s", campaign_id, name, completed)
