"""Rules of health that miss no trouble and see none where there is none.

They missed what waits in a campaign that nobody added, outcomes that nobody ever polled, and runs
that fail or hang behind a newer one; they told for ever of what somebody tried once. Whether
anything runs at all was a rule of the page's own. Views keep their columns; those that told the
hour told the session's, and states what stood there by mistake. The file of the same name beside
this one holds them.
"""

from pathlib import Path

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Index the runs by flow, lay the views anew, and let the reader in."""
    statements = Path(__file__).with_name("0007_rules.sql").read_text(encoding="utf-8")
    op.get_bind().exec_driver_sql(statements)
