"""Meta's id of a cart's owner."""

import sqlalchemy as sa
from alembic import op

revision = "k0004"
down_revision = "k0003"


def upgrade() -> None:
    """Add columns that the previous version need not fill."""
    op.add_column("carts", sa.Column("user_id", sa.Text(), comment="Meta's id of the owner"))
    op.alter_column(
        "carts",
        "person",
        comment="canonical form of the number or, without one, the id, which identifies the owner",
        existing_comment="canonical form of the number, which identifies the owner",
    )
    op.alter_column(
        "carts",
        "remindable",
        comment="it has items and an owner with a number or an id, and no reminder is in progress",
        existing_comment="it has items and a phone number, and no reminder is in progress",
    )
    op.add_column("reminders", sa.Column("user_id", sa.Text(), comment="their id, for as long"))
    for table in ("carts", "reminders"):
        op.create_index(
            f"{table}_user_id", table, ["user_id"], unique=False, postgresql_where=sa.text("user_id IS NOT NULL")
        )
