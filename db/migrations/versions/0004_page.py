"""Commands that can be pasted into a shell, and what the page needs at a million leads.

A campaign's id with a blank or a quote in it gave a command that did not work, or did another
thing; and the one for late outcomes lacked the range that it needs. The pictures by hour were added
up from views by state, for which every outcome and every attempt was looked up among the leads. The
views that were there keep their columns, so that whatever stands on them stays. The file of the
same name beside this one holds them.
"""

from pathlib import Path

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Lay the views, and let the reader in."""
    statements = Path(__file__).with_name("0004_page.sql").read_text(encoding="utf-8")
    op.get_bind().exec_driver_sql(statements)
