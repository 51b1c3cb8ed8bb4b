"""The first schema, as it is stated in db/schema.

Until the first release there is no other. From then on this file keeps a copy of what was stated at
that time, and each change comes as a migration of its own beside the change of the stated schema.
"""

from alembic import op

from db.schema import create_schema

revision = "0001_initial"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create everything; `db.schema` has made the schema itself, for Alembic's own table."""
    create_schema(op.get_bind())
