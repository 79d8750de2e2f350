"""Which number and which of Meta's ids are one person's."""

import sqlalchemy as sa
from alembic import op

revision = "k0005"
down_revision = "k0004"


def upgrade() -> None:
    """Add a table that the previous version does not need."""
    op.create_table(
        "person_links",
        sa.Column("person", sa.Text(), nullable=False, comment="canonical form of the number"),
        sa.Column("user_id", sa.Text(), nullable=False, comment="Meta's id of the person who has the number"),
        sa.Column(
            "linked_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="when Meta has used both for one person",
        ),
        sa.PrimaryKeyConstraint("person"),
        comment="Numbers and ids that are one person's",
    )
    op.create_index("person_links_user_id", "person_links", ["user_id"], unique=False)
    op.create_index("person_links_linked_at", "person_links", ["linked_at"], unique=False)
