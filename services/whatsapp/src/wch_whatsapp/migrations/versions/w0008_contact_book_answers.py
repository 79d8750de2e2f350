"""What Meta answered when it was asked to delete erased people from its contact books."""

import sqlalchemy as sa
from alembic import op

revision = "w0008"
down_revision = "w0007"


def upgrade() -> None:
    """Add a table."""
    op.create_table(
        "contact_book_answers",
        sa.Column("erasure", sa.Text(), nullable=False, comment="id of the request to erase"),
        sa.Column("portfolio", sa.Text(), nullable=False),
        sa.Column(
            "deleted",
            sa.Integer(),
            nullable=False,
            comment="ids whose entry Meta has deleted, or for which it had none",
        ),
        sa.Column("refused", sa.Integer(), nullable=False, comment="ids that Meta refused to delete"),
        sa.Column("failed", sa.Integer(), nullable=False, comment="ids that Meta could not be asked to delete"),
        sa.PrimaryKeyConstraint("erasure", "portfolio"),
        comment="What Meta answered when it was asked to delete erased people from its contact books",
    )


def downgrade() -> None:
    """Remove it."""
    op.drop_table("contact_book_answers")
