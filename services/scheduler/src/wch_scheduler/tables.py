"""The tables of the scheduler: schedules and when they are due, published and missed times, files, and timers."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Index, Integer, MetaData, PrimaryKeyConstraint, Table, Text, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB

from wch_common.store.columns import count, now, text_column, timestamp
from wch_common.store.personal_data import personal_data

METADATA = MetaData()

SCHEDULES = Table(
    "schedules",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("definition", JSONB, nullable=False),
    Column(
        "timing",
        Text,
        nullable=False,
        comment="the part of the definition that decides when it is due; while it stays, so does the next time",
    ),
    timestamp("next_planned", "identifies the next tick; null before the first is known and after the last"),
    timestamp("next_due", "the same with its jitter"),
    timestamp("paused_at"),
    text_column("paused_by", "who paused it"),
    text_column("reason"),
    timestamp("triggered_at", "when an operator requested a run"),
    text_column("triggered_by"),
    timestamp("last_planned"),
    timestamp("last_fired_at"),
    count("fired"),
    count("missed"),
    now("created_at"),
    Index("schedules_due", "next_due", postgresql_where=text("next_due IS NOT NULL AND paused_at IS NULL")),
    comment="Schedules of the file in use",
    info=personal_data(impersonal=("name", "definition", "timing", "paused_by", "reason", "triggered_by")),
)

TICKS = Table(
    "ticks",
    METADATA,
    Column("schedule", Text, nullable=False),
    timestamp("planned", needed=True),
    Column("kind", Text, nullable=False, comment="scheduled, manual"),
    text_column("by", "who requested a manual run"),
    now("fired_at"),
    PrimaryKeyConstraint("schedule", "planned", "kind"),
    Index("ticks_fired", "fired_at"),
    comment="Times at which events were published",
    info=personal_data(impersonal=("schedule", "kind", "by")),
)

GAPS = Table(
    "gaps",
    METADATA,
    Column("schedule", Text, nullable=False),
    timestamp("first", "first planned time that was missed", needed=True),
    timestamp("last", needed=True),
    count("ticks"),
    Column("policy", Text, nullable=False, comment="the catch-up policy"),
    now("noticed_at"),
    PrimaryKeyConstraint("schedule", "first"),
    Index("gaps_noticed", "noticed_at"),
    comment="Times that were missed and not caught up",
    info=personal_data(impersonal=("schedule", "policy")),
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
    timestamp("requested_at", "by the requester's clock: an overtaken request changes nothing", needed=True),
    timestamp("ended_at"),
    Column("correlationid", Text),
    Column("causationid", Text),
    now("created_at"),
    Index("timers_due", "requester", "due_at", postgresql_where=text("state = 'waiting'")),
    Index("timers_next", "due_at", postgresql_where=text("state = 'waiting'")),
    Index("timers_grouped", "requester", "group_name", postgresql_where=text("state = 'waiting'")),
    Index("timers_ended", "ended_at", postgresql_where=text("ended_at IS NOT NULL")),
    comment="Timers of other programs",
    info=personal_data(
        event="event", impersonal=("requester", "key", "group_name", "state", "correlationid", "causationid")
    ),
)

GROUPS = Table(
    "groups",
    METADATA,
    Column("requester", Text, nullable=False),
    Column("name", Text, nullable=False),
    timestamp("cancelled_at", "by the requester's clock: timers requested before it are not accepted", needed=True),
    PrimaryKeyConstraint("requester", "name"),
    Index("groups_cancelled", "cancelled_at"),
    comment="Cancelled groups of timers",
    info=personal_data(impersonal=("requester", "name")),
)

PACE = Table(
    "pace",
    METADATA,
    Column("id", Integer, primary_key=True),
    timestamp("released_until", "until when the slots of the rate are used up", needed=True),
    comment="One row: the pace at which timers are released",
)

FILES = Table(
    "files",
    METADATA,
    Column("hash", Text, primary_key=True),
    now("first_seen"),
    now("last_seen"),
    now("present_since"),
    Column(
        "applied",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="whether the schedules in use come from it",
    ),
    comment="Files that replicas have, and which of them is in use",
    info=personal_data(impersonal=("hash",)),
)
