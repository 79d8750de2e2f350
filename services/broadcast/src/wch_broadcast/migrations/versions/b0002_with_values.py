"""How many recipients of a list have values of their own."""

import sqlalchemy as sa
from alembic import op

revision = "b0002"
down_revision = "b0001"


def upgrade() -> None:
    """Add a column that the previous version need not fill; lists from before have 0, as if nobody had values."""
    op.add_column(
        "lists",
        sa.Column(
            "with_values",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="recipients with values of their own for the message's body",
        ),
    )
