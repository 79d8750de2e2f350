"""What the scheduler keeps: schedules and when they are due, what was published and passed over, files in use, and timers."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Index, Integer, MetaData, PrimaryKeyConstraint, Table, Text, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB

from wch_common.store.columns import count, now, text_column, timestamp

METADATA = MetaData()

SCHEDULES = Table(
    "schedules",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("definition", JSONB, nullable=False),
    Column(
        "timing", Text, nullable=False, comment="what decides when it is due; where it stays, so does its next time"
    ),
    timestamp("next_planned", "named by it a tick is taken once; null before the first is known, and after the last"),
    timestamp("next_due", "the same with its jitter"),
    timestamp("paused_at"),
    text_column("said_by", "who paused it"),
    text_column("reason"),
    timestamp("manual_at", "somebody asked for a run now"),
    text_column("manual_by"),
    timestamp("last_planned"),
    timestamp("last_fired_at"),
    count("fired"),
    count("missed"),
    now("created_at"),
    Index("schedules_due", "next_due", postgresql_where=text("next_due IS NOT NULL AND paused_at IS NULL")),
    comment="Schedules of the file in use",
)

TICKS = Table(
    "ticks",
    METADATA,
    Column("schedule", Text, nullable=False),
    timestamp("planned", needed=True),
    Column("kind", Text, nullable=False, comment="scheduled, manual"),
    text_column("by", "who asked for it by hand"),
    now("fired_at"),
    PrimaryKeyConstraint("schedule", "planned", "kind"),
    Index("ticks_fired", "fired_at"),
    comment="Times at which events were published",
)

GAPS = Table(
    "gaps",
    METADATA,
    Column("schedule", Text, nullable=False),
    timestamp("first", "planned time that was passed over", needed=True),
    timestamp("last", needed=True),
    count("ticks"),
    Column("why", Text, nullable=False, comment="the catch-up policy"),
    now("noticed_at"),
    PrimaryKeyConstraint("schedule", "first"),
    Index("gaps_noticed", "noticed_at"),
    comment="Times that were passed over",
)

TIMERS = Table(
    "timers",
    METADATA,
    Column("id", Uuid, primary_key=True, comment="derived from requester and key"),
    Column("requester", Text, nullable=False, comment="the AMQP user"),
    Column("key", Text, nullable=False),
    text_column("group_name"),
    timestamp("due_at", needed=True),
    Column("event", JSONB, nullable=False),
    Column("state", Text, nullable=False, comment="waiting, fired, cancelled, refused"),
    count("version", "how often it was replaced"),
    timestamp("asked_at", "by the requester's clock: what was overtaken changes nothing", needed=True),
    timestamp("ended_at"),
    Column("correlationid", Text),
    Column("causationid", Text),
    now("created_at"),
    Index("timers_due", "requester", "due_at", postgresql_where=text("state = 'waiting'")),
    Index("timers_next", "due_at", postgresql_where=text("state = 'waiting'")),
    Index("timers_grouped", "requester", "group_name", postgresql_where=text("state = 'waiting'")),
    Index("timers_ended", "ended_at", postgresql_where=text("ended_at IS NOT NULL")),
    comment="Timers of other programs",
)

GROUPS = Table(
    "groups",
    METADATA,
    Column("requester", Text, nullable=False),
    Column("name", Text, nullable=False),
    timestamp("cancelled_at", "by the requester's clock: what was asked for before is not taken on", needed=True),
    PrimaryKeyConstraint("requester", "name"),
    Index("groups_cancelled", "cancelled_at"),
    comment="Groups of timers that were taken back",
)

PACE = Table(
    "pace",
    METADATA,
    Column("id", Integer, primary_key=True),
    timestamp("released_until", "the rate's slots before it are taken", needed=True),
    comment="One row: how far timers were released",
)

FILES = Table(
    "files",
    METADATA,
    Column("hash", Text, primary_key=True),
    now("first_seen"),
    now("last_seen"),
    now("here_since"),
    Column("applied", Boolean, nullable=False, server_default=text("false"), comment="the schedules are its"),
    comment="Files that replicas have, and the one that decides",
)
