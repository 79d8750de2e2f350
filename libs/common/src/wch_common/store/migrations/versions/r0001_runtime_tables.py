"""The runtime's first tables."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "r0001"
down_revision = None

TIMESTAMP = sa.DateTime(timezone=True)


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
            comment="of type and canonical data; another hash under the same id is refused",
        ),
        sa.Column("handled_at", TIMESTAMP, nullable=False, server_default=sa.func.now()),
        comment="Events whose effects are committed; a duplicate is only acknowledged",
    )
    op.create_index("inbox_handled_at", "inbox", ["handled_at"], postgresql_using="brin")
    op.create_table(
        "outbox",
        sa.Column("id", sa.Text, primary_key=True, comment="the event's id"),
        sa.Column("exchange", sa.Text, nullable=False),
        sa.Column("routing_key", sa.Text, nullable=False),
        sa.Column("signed", sa.Boolean, nullable=False, comment="published in the name of the AMQP user"),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("due_at", TIMESTAMP, nullable=False),
        comment="Events committed with the work that caused them; deleted once the broker has confirmed them",
    )
    op.create_index("outbox_due_at", "outbox", ["due_at"])
    op.create_table(
        "parked",
        sa.Column("queue", sa.Text, primary_key=True),
        sa.Column("source", sa.Text, primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("hash", sa.LargeBinary, primary_key=True, comment="of the body, as two events may have one id"),
        sa.Column(
            "scope",
            sa.Text,
            nullable=False,
            comment="a phone number id, a catalog or a shop; empty for events that wait for a time",
        ),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("properties", postgresql.JSONB, nullable=False),
        sa.Column("due_at", TIMESTAMP, nullable=False),
        comment="Events whose wait is too long for a delay queue",
    )
    op.create_index("parked_scope_due_at", "parked", ["scope", "due_at"])
    op.create_table(
        "scopes",
        sa.Column("scope", sa.Text, primary_key=True),
        sa.Column("paused_until", TIMESTAMP, nullable=False),
        sa.Column(
            "probing",
            sa.Boolean,
            nullable=False,
            comment="the next release is a single event, as a probe",
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
            comment="rises with every new holder, so that a late one is recognised",
        ),
        sa.Column("until", TIMESTAMP, nullable=False),
        comment="Work that one process may do at a time",
    )


def downgrade() -> None:
    """Drop the tables."""
    for table in ("leases", "scopes", "parked", "outbox", "inbox"):
        op.drop_table(table)
