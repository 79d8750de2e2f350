"""Who was erased and when, the answers to requests to erase, and what a service leaves undone on purpose."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "r0002"
down_revision = "r0001"

TIMESTAMP = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create erased_people, erasures and switches."""
    op.create_table(
        "erased_people",
        sa.Column("person", sa.LargeBinary, primary_key=True, comment="keyed hash of a number or an id"),
        sa.Column("at", TIMESTAMP, nullable=False),
        comment="Who was erased, and when: what is older than that is handled without them",
    )
    op.create_index("erased_people_at", "erased_people", ["at"])
    op.create_table(
        "erasures",
        sa.Column("id", sa.Text, primary_key=True, comment="id of the request to erase"),
        sa.Column("at", TIMESTAMP, nullable=False),
        sa.Column("begun_at", TIMESTAMP, nullable=False, server_default=sa.func.now()),
        sa.Column("rows", postgresql.JSONB, comment="how many rows of each table were erased; null until that is done"),
        sa.Column("ended_at", TIMESTAMP),
        comment="Requests to erase somebody, and what this service answered",
    )
    op.create_index("erasures_begun_at", "erasures", ["begun_at"])
    op.create_table(
        "switches",
        sa.Column("setting", sa.Text, primary_key=True),
        sa.Column("effect", sa.Text, nullable=False),
        sa.Column("since", TIMESTAMP, nullable=False, server_default=sa.func.now()),
        comment="Settings of the running service by which it leaves work undone on purpose, for `wch doctor`",
    )


def downgrade() -> None:
    """Drop the tables."""
    for table in ("switches", "erasures", "erased_people"):
        op.drop_table(table)
