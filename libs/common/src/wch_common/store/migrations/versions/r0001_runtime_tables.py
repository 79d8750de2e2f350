"""The runtime's first tables."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "r0001"
down_revision = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create inbox, outbox, parked, scopes and leases."""
    op.create_table(
        "inbox",
        sa.Column("queue", sa.Text, primary_key=True),
        sa.Column("source", sa.Text, primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column(
            "hash",
            sa.LargeBinary,
            nullable=False,
            comment="of type and canonical data: the same id with other data is told",
        ),
        sa.Column("handled_at", MOMENT, nullable=False, server_default=sa.func.now()),
        comment="Events whose effects are committed; one that comes again is only acknowledged",
    )
    op.create_index("inbox_handled_at", "inbox", ["handled_at"], postgresql_using="brin")
    op.create_table(
        "outbox",
        sa.Column("id", sa.Text, primary_key=True, comment="the event's id"),
        sa.Column("exchange", sa.Text, nullable=False),
        sa.Column("routing_key", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("due_at", MOMENT, nullable=False),
        comment="Events committed with the work that caused them; deleted when the broker has confirmed them",
    )
    op.create_index("outbox_due_at", "outbox", ["due_at"])
    op.create_table(
        "parked",
        sa.Column("queue", sa.Text, primary_key=True),
        sa.Column("source", sa.Text, primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("hash", sa.LargeBinary, primary_key=True, comment="of the body: two events under one id both wait"),
        sa.Column(
            "scope",
            sa.Text,
            nullable=False,
            comment="what they wait for: a number, a catalog, a shop; empty for a time",
        ),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("properties", postgresql.JSONB, nullable=False),
        sa.Column("due_at", MOMENT, nullable=False),
        comment="Events that wait longer than their queue's ladder",
    )
    op.create_index("parked_scope_due_at", "parked", ["scope", "due_at"])
    op.create_table(
        "scopes",
        sa.Column("scope", sa.Text, primary_key=True),
        sa.Column("paused_until", MOMENT, nullable=False),
        sa.Column(
            "probing",
            sa.Boolean,
            nullable=False,
            comment="the next release is one event that tries whether it goes again",
        ),
        comment="What parked events wait for",
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column(
            "token",
            sa.BigInteger,
            nullable=False,
            comment="rises with every new holder: a late one is known by its token",
        ),
        sa.Column("until", MOMENT, nullable=False),
        comment="What must be one at a time",
    )


def downgrade() -> None:
    """Drop them."""
    for table in ("leases", "scopes", "parked", "outbox", "inbox"):
        op.drop_table(table)
