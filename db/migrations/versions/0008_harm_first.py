"""Close the schema's functions, remember sent leads, brake creates, find opt-outs of no lead.

The file of the same name beside this one holds the statements and says why each is there.
"""

import re
from pathlib import Path

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# A lead's id without letter case, blanks and invisible characters (Unicode's separators, format and
# control characters, fillers); in the default collation, as the index of ids is. Spelt out where it
# is used, not a function: whoever inserts a lead would need the right to execute it.
_FOLDED = (
    r"(lower(regexp_replace(\1, '[\\u0001-\\u0020\\u007f-\\u00a0\\u00ad\\u034f\\u061c\\u115f\\u1160"
    r"\\u1680\\u17b4\\u17b5\\u180b-\\u180f\\u2000-\\u200f\\u2028-\\u202f\\u205f-\\u206f\\u2800"
    r"\\u3000\\u3164\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff9-\\ufffb]+', '', 'g') COLLATE "
    '"C") COLLATE "default")'
)


def upgrade() -> None:
    """Apply the statements, with `FOLDED(column)` written out."""
    statements = Path(__file__).with_name("0008_harm_first.sql").read_text(encoding="utf-8")
    op.get_bind().exec_driver_sql(re.sub(r"FOLDED\(([\w.]+)\)", _FOLDED, statements))
