"""People with a number, with ids of Meta's, or with both."""

import sqlalchemy as sa
from alembic import op

revision = "w0005"
down_revision = "w0004"


def upgrade() -> None:
    """Add a table of what names one person, and columns that the previous version need not fill."""
    op.create_table(
        "person_ids",
        sa.Column("portfolio", sa.Text(), nullable=False, comment="business portfolio in which Meta named them so"),
        sa.Column("id", sa.LargeBinary(), nullable=False, comment="keyed hash of a number or an id"),
        sa.Column("person", sa.LargeBinary(), nullable=False, comment="the same for everything that names one person"),
        sa.Column("kind", sa.Text(), nullable=False, comment="phone, user_id or parent_id"),
        sa.Column("value", sa.Text(), comment="the number or id; null if erased, or not used for long"),
        sa.Column(
            "erased",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="known again only if the person writes",
        ),
        sa.Column(
            "stated_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="when Meta last named them so, or a day before",
        ),
        sa.Column("replaced_at", sa.DateTime(timezone=True), comment="when Meta said that they have another one"),
        sa.Column(
            "taken_at", sa.DateTime(timezone=True), comment="since when a number is not somebody else's any more"
        ),
        sa.PrimaryKeyConstraint("portfolio", "id"),
        comment="The numbers and Meta's ids that name one person, where there are several",
    )
    _add_indexes()
    _add_columns_of_messages()


def _add_indexes() -> None:
    op.create_index("person_ids_id", "person_ids", ["id"])
    op.create_index("person_ids_person", "person_ids", ["person"])
    op.create_index("person_ids_stated", "person_ids", ["stated_at"], postgresql_where=sa.text("value IS NOT NULL"))


def _add_columns_of_messages() -> None:
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
    op.add_column(
        "messages",
        sa.Column("other_person", sa.LargeBinary(), comment="keyed hash of the second name that was given"),
    )
    op.add_column("messages", sa.Column("third_person", sa.LargeBinary(), comment="keyed hash of the third"))
    for name in ("other_person", "third_person"):
        op.create_index(f"messages_{name}", "messages", [name], postgresql_where=sa.text(f"{name} IS NOT NULL"))
