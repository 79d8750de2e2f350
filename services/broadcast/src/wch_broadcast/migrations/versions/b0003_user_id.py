"""Recipients by Meta's ids of them."""

import sqlalchemy as sa
from alembic import op

revision = "b0003"
down_revision = "b0002"


def upgrade() -> None:
    """Add a column that the previous version need not fill."""
    op.add_column("recipients", sa.Column("user_id", sa.Text(), comment="Meta's id, if it was given"))
    op.alter_column(
        "recipients",
        "person",
        comment="canonical form of the number or, without one, the id, which identifies the recipient",
        existing_comment="canonical form of the number, which identifies its owner",
    )
    op.create_index(
        "recipients_once_by_id",
        "recipients",
        ["list", "user_id"],
        unique=True,
        postgresql_where=sa.text("skip_reason IS NULL AND user_id IS NOT NULL"),
    )
    op.create_index(
        "recipients_user_id", "recipients", ["user_id"], unique=False, postgresql_where=sa.text("user_id IS NOT NULL")
    )
