"""Schedules, published and missed times, files of schedules, and timers."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "h0001"
down_revision = None


def upgrade() -> None:
    """Create all tables."""
    op.create_table(
        "files",
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("first_seen", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_seen", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("present_since", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column(
            "applied",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="whether the schedules in use come from it",
        ),
        sa.PrimaryKeyConstraint("hash"),
        comment="Files that replicas have, and which of them is in use",
    )
    op.create_table(
        "gaps",
        sa.Column("schedule", sa.Text(), nullable=False),
        sa.Column("first", sa.DateTime(timezone=True), nullable=False, comment="first planned time that was missed"),
        sa.Column("last", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ticks", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False, comment="the catch-up policy"),
        sa.Column("noticed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("schedule", "first"),
        comment="Times that were missed and not caught up",
    )
    op.create_index("gaps_noticed", "gaps", ["noticed_at"], unique=False)
    op.create_table(
        "groups",
        sa.Column("requester", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column(
            "cancelled_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="by the requester's clock: timers requested before it are not accepted",
        ),
        sa.PrimaryKeyConstraint("requester", "name"),
        comment="Cancelled groups of timers",
    )
    op.create_index("groups_cancelled", "groups", ["cancelled_at"], unique=False)
    op.create_table(
        "pace",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column(
            "released_until",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="until when the slots of the rate are used up",
        ),
        sa.PrimaryKeyConstraint("id"),
        comment="One row: the pace at which timers are released",
    )
    op.create_table(
        "schedules",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("definition", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "timing",
            sa.Text(),
            nullable=False,
            comment="the part of the definition that decides when it is due; while it stays, so does the next time",
        ),
        sa.Column(
            "next_planned",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="identifies the next tick; null before the first is known and after the last",
        ),
        sa.Column("next_due", sa.DateTime(timezone=True), nullable=True, comment="the same with its jitter"),
        sa.Column("paused_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("paused_by", sa.Text(), server_default="", nullable=False, comment="who paused it"),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column(
            "triggered_at", sa.DateTime(timezone=True), nullable=True, comment="when an operator requested a run"
        ),
        sa.Column("triggered_by", sa.Text(), server_default="", nullable=False),
        sa.Column("last_planned", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_fired_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("fired", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("missed", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("name"),
        comment="Schedules of the file in use",
    )
    op.create_index(
        "schedules_due",
        "schedules",
        ["next_due"],
        unique=False,
        postgresql_where=sa.text("next_due IS NOT NULL AND paused_at IS NULL"),
    )
    op.create_table(
        "ticks",
        sa.Column("schedule", sa.Text(), nullable=False),
        sa.Column("planned", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False, comment="scheduled, manual"),
        sa.Column("by", sa.Text(), server_default="", nullable=False, comment="who requested a manual run"),
        sa.Column("fired_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("schedule", "planned", "kind"),
        comment="Times at which events were published",
    )
    op.create_index("ticks_fired", "ticks", ["fired_at"], unique=False)
    op.create_table(
        "timers",
        sa.Column("id", sa.Uuid(), nullable=False, comment="derived from requester and key"),
        sa.Column("requester", sa.Text(), nullable=False, comment="the AMQP user"),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("group_name", sa.Text(), server_default="", nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("event", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("state", sa.Text(), nullable=False, comment="waiting, fired, cancelled, refused"),
        sa.Column(
            "version", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="how often it was replaced"
        ),
        sa.Column(
            "requested_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="by the requester's clock: an overtaken request changes nothing",
        ),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("correlationid", sa.Text(), nullable=True),
        sa.Column("causationid", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        comment="Timers of other programs",
    )
    op.create_index(
        "timers_due", "timers", ["requester", "due_at"], unique=False, postgresql_where=sa.text("state = 'waiting'")
    )
    op.create_index(
        "timers_ended", "timers", ["ended_at"], unique=False, postgresql_where=sa.text("ended_at IS NOT NULL")
    )
    op.create_index(
        "timers_grouped",
        "timers",
        ["requester", "group_name"],
        unique=False,
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.create_index("timers_next", "timers", ["due_at"], unique=False, postgresql_where=sa.text("state = 'waiting'"))
    op.execute("INSERT INTO pace (id, released_until) VALUES (1, now())")
