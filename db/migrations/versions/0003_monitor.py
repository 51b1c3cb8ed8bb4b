"""What the data team sees: the schema `leadloop_monitor` and the role that may read it.

Views alone, over what is there already: nothing personal is in any column, and none of them locks
or changes anything. The file of the same name beside this one holds them.
"""

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Lay the views, and let the reader in."""
    statements = Path(__file__).with_name("0003_monitor.sql").read_text(encoding="utf-8")
    op.get_bind().exec_driver_sql(statements)
