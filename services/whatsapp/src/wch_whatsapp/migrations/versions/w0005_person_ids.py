"""People with a number, with ids of Meta's, or with both."""

import sqlalchemy as sa
from alembic import op

revision = "w0005"
down_revision = "w0004"


def upgrade() -> None:
    """Add a table of what names one person, and a column that the previous version need not fill."""
    op.create_table(
        "person_ids",
        sa.Column("id", sa.LargeBinary(), primary_key=True, comment="keyed hash of a number or an id"),
        sa.Column("person", sa.LargeBinary(), nullable=False, comment="the same for everything that names one person"),
        sa.Column("kind", sa.Text(), nullable=False, comment="phone, user_id or parent_id"),
        sa.Column("portfolio", sa.Text(), nullable=False, comment="in which an id of a user holds"),
        sa.Column("value", sa.Text(), comment="the number or id; null if erased"),
        sa.Column("stated_at", sa.DateTime(timezone=True), nullable=False, comment="when Meta last named them so"),
        sa.Column(
            "replaced",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="the person has another one now",
        ),
        comment="The numbers and Meta's ids that name one person, where there are several",
    )
    op.create_index("person_ids_person", "person_ids", ["person"])
    op.alter_column(
        "messages",
        "person",
        comment="keyed hash of the number or, without one, of the id",
        existing_comment="keyed hash of the number",
    )
    op.add_column(
        "messages",
        sa.Column("user_id", sa.Text(), comment="Meta's id of the recipient, if that was given; null if erased"),
    )
