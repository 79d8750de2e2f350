"""What counted as a recipient's opt-out."""

import sqlalchemy as sa
from alembic import op

revision = "w0004"
down_revision = "w0003"


def upgrade() -> None:
    """Add a column that the previous version need not fill."""
    op.add_column(
        "suppressions",
        sa.Column(
            "evidence",
            sa.Text(),
            server_default=sa.text("''"),
            nullable=False,
            comment="what counted as the recipient's opt-out, without their own words",
        ),
    )
