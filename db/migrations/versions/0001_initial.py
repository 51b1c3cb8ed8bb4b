"""The initial schema, as stated in db/schema.

It is the only migration until the first release. Afterwards this file keeps a copy of the schema
stated at that release, and each change adds a migration beside the change of the stated schema.
"""

from alembic import op

from db.schema import create_schema

revision = "0001_initial"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create tables, triggers, views and comments; `db.schema` has created the schema itself."""
    create_schema(op.get_bind())
