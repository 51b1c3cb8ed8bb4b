"""Commands that can be pasted into a shell, whatever the campaign's id.

An id with a blank or a quote in it gave a command that did not work, or did another thing; and the
one for late outcomes lacked the range that it needs. The view is of the same columns, so that
whatever stands on it stays. The file of the same name beside this one holds it.
"""

from pathlib import Path

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Lay the view anew."""
    statements = Path(__file__).with_name("0004_commands.sql").read_text(encoding="utf-8")
    op.get_bind().exec_driver_sql(statements)
