"""Tables of the carts service: carts, results of reminders, and runs of the cleanup."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from wch_common.store.columns import count, now, text_column, timestamp
from wch_common.store.personal_data import personal_data

METADATA = MetaData()
_EXPORT_CUSTOMER = """
SELECT shop, cart_id, version, status, phone, customer_name, items, total, currency, coupon, link, address, consent,
       order_id,
       order_total,
       (SELECT coalesce(json_agg(json_build_object('state', r.state, 'reason', r.reason, 'at', r.changed_at)), '[]')
        FROM reminders AS r WHERE r.cart = carts.id) AS reminders,
       reminder_sent_at, created_at, updated_at, expires_at, ended_at
FROM carts WHERE person = %(person)s ORDER BY created_at
"""

CARTS = Table(
    "carts",
    METADATA,
    Column("id", Uuid, primary_key=True, comment="derived from shop and cart_id"),
    Column("shop", Text, nullable=False),
    Column("cart_id", Text, nullable=False, comment="the shop's name for the cart"),
    Column("version", BigInteger, nullable=False, comment="the shop's version of the newest fact"),
    Column("updated_version", BigInteger, comment="version of the newest change"),
    Column(
        "filled_version",
        BigInteger,
        comment="version of the newest change that left items in it; the idle period begins with it",
    ),
    Column("ordered_version", BigInteger),
    Column("deleted_version", BigInteger),
    Column(
        "status",
        Text,
        nullable=False,
        comment="active, completed, abandoned; deleted carts are kept so that late facts do not restore them",
    ),
    Column("phone", Text, comment="E.164"),
    Column("person", Text, comment="canonical form of the number, which identifies the owner"),
    text_column("no_phone_reason", "why there is no phone number"),
    text_column("customer_name"),
    Column("items", JSONB, nullable=False, server_default=text("'[]'")),
    count("item_count"),
    Column("total", Numeric(18, 4), nullable=False, server_default=text("0")),
    text_column("currency"),
    text_column("coupon"),
    text_column("link"),
    Column("address", JSONB),
    Column("consent", JSONB, comment="where, when and to which words the owner agreed to messages"),
    Column("order_id", BigInteger),
    Column("order_total", Numeric(18, 4)),
    Column("order_currency", Text),
    timestamp("ordered_at", "the fact's time, which may be earlier than its arrival"),
    Column(
        "remindable",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="it has items and a phone number, and no reminder is in progress",
    ),
    timestamp("remind_after", "earliest time of the next attempt after a failure"),
    timestamp("reminder_sent_at"),
    timestamp("expires_at", needed=True),
    timestamp("ended_at", "when it was ordered, abandoned or deleted"),
    now("created_at"),
    now("updated_at", "its last change, by this database's clock"),
    now("idle_since", "its last change, by the fact's time, which may be earlier than its arrival"),
    Index("carts_idle", "shop", "idle_since", postgresql_where=text("status = 'active' AND remindable")),
    Index("carts_expiring", "shop", "expires_at", postgresql_where=text("status = 'active'")),
    Index(
        "carts_unanswered",
        "reminder_sent_at",
        postgresql_where=text("status = 'active' AND reminder_sent_at IS NOT NULL"),
    ),
    Index("carts_ended", "status", "ended_at", postgresql_where=text("ended_at IS NOT NULL")),
    Index("carts_person", "person", postgresql_where=text("person IS NOT NULL")),
    Index("carts_counted", "shop", "status"),
    Index("carts_named", "cart_id"),
    info=personal_data(
        person="person",
        erased={
            "person": None,
            "phone": None,
            "customer_name": "",
            "items": [],
            "coupon": "",
            "link": "",
            "address": None,
            "consent": None,
        },
        impersonal=("shop", "cart_id", "status", "no_phone_reason", "currency", "order_currency"),
        # The cart's value is kept for the statistics.
        also="no_phone_reason = 'erased', item_count = 0, order_id = NULL, remindable = false",
        export=_EXPORT_CUSTOMER,
    ),
    comment="Carts",
)

REMINDERS = Table(
    "reminders",
    METADATA,
    Column("cart", Uuid, nullable=False),
    Column("period", BigInteger, nullable=False, comment="version of the cart with which its idle period begins"),
    Column("shop", Text, nullable=False),
    Column("state", Text, nullable=False, comment="claimed, requested, sent, skipped, failed"),
    text_column("reason"),
    text_column("requester", "requester of the reminder; empty for a scan"),
    Column("person", Text, comment="who was reminded, for as long as that decides about another reminder"),
    count("tries", "number of times that a scan claimed it again"),
    Column(
        "in_ledger",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="whatsapp's ledger contains its send key",
    ),
    Column(
        "cancel_requested",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="its cancellation was requested from whatsapp",
    ),
    count("attempt", "attempt of the message, of the last fact applied"),
    count("rank", "rank of that fact among the facts of its attempt"),
    now("changed_at"),
    timestamp("sent_at"),
    timestamp("recovered_at", "when the cart was ordered after the reminder"),
    Column("value", Numeric(18, 4), comment="total of that order"),
    Column("currency", Text),
    PrimaryKeyConstraint("cart", "period"),
    Index("reminders_open", "changed_at", postgresql_where=text("state = 'claimed'")),
    Index("reminders_requested", "changed_at", postgresql_where=text("state = 'requested'")),
    Index("reminders_counted", "shop", "state"),
    Index("reminders_recovered", "shop", "currency", "value", postgresql_where=text("recovered_at IS NOT NULL")),
    Index("reminders_changed", "changed_at"),
    Index("reminders_person", "person", postgresql_where=text("person IS NOT NULL")),
    info=personal_data(
        person="person", erased={"person": None}, impersonal=("shop", "state", "reason", "requester", "currency")
    ),
    comment="Reminders: one per cart and idle period; they outlive their carts, without the person",
)

CLEANUPS = Table(
    "cleanups",
    METADATA,
    Column("id", Uuid, primary_key=True),
    Column("shop", Text, nullable=False),
    Column("older_than_hours", Float),
    Column("dry_run", Boolean, nullable=False),
    count("deleted"),
    Column("kept", Integer),
    Column("requester", Text),
    Column("correlationid", Text),
    Column("causationid", Text),
    now("requested_at", "carts that expired before are deleted"),
    timestamp("ended_at"),
    timestamp("due_at", "when its next chunk is due; null once it has ended"),
    Index("cleanups_due", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    Index("cleanups_ended", "shop", "ended_at"),
    info=personal_data(impersonal=("shop", "requester", "correlationid", "causationid")),
    comment="Runs of the cleanup",
)
