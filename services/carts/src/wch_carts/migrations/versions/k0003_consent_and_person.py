"""The consent of a cart's owner, and who was reminded."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "k0003"
down_revision = "k0002"


def upgrade() -> None:
    """Add columns that the previous version need not fill."""
    op.add_column(
        "carts",
        sa.Column(
            "consent",
            postgresql.JSONB(),
            nullable=True,
            comment="where, when and to which words the owner agreed to messages",
        ),
    )
    op.add_column(
        "reminders",
        sa.Column(
            "person",
            sa.Text(),
            nullable=True,
            comment="who was reminded, for as long as that decides about another reminder",
        ),
    )
    op.create_index(
        "reminders_person", "reminders", ["person"], unique=False, postgresql_where=sa.text("person IS NOT NULL")
    )
    op.create_table_comment(
        "reminders", "Reminders: one per cart and idle period; they outlive their carts, without the person"
    )
