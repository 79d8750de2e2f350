"""Tables of the whatsapp service: the ledger of messages, their batches, and the state of numbers and recipients."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    Column,
    Date,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from wch_common.store.columns import count, now, text_column, timestamp
from wch_common.store.personal_data import personal_data

METADATA = MetaData()

# An erased message that is not settled expires at once, so that its requester gets a result.
_ALSO_EXPIRE = (
    "updated_at = now(), "
    "expires_at = CASE WHEN state IN ('queued', 'sending', 'in_doubt') THEN now() ELSE expires_at END"
)
_EXPORT_MESSAGES = """
SELECT id, shop, requester, send_key, sender, phone, user_id, category, content, fallback, as_fallback, state, attempt, wamid, reason,
       code, detail, created_at, updated_at
FROM messages
WHERE person = ANY(%(person)s) OR other_person = ANY(%(person)s) OR third_person = ANY(%(person)s) ORDER BY created_at
"""


def _flag(name: str, comment: str) -> Column[bool]:
    return Column(name, Boolean, nullable=False, server_default=text("false"), comment=comment)


MESSAGES = Table(
    "messages",
    METADATA,
    Column("id", Uuid, primary_key=True, comment="derived from shop, requester and send key"),
    Column("shop", Text, nullable=False),
    Column("requester", Text, nullable=False),
    Column("send_key", Text, nullable=False),
    Column("sender", Text, nullable=False, comment="phone number id"),
    Column("phone", Text, comment="E.164; null if erased or malformed"),
    Column("user_id", Text, comment="Meta's id of the recipient, if that was given; null if erased"),
    Column("person", LargeBinary, nullable=False, comment="keyed hash of the number or, without one, of the id"),
    Column("other_person", LargeBinary, comment="keyed hash of the second name that was given"),
    Column("third_person", LargeBinary, comment="keyed hash of the third"),
    Column("category", Text, nullable=False),
    Column("content", JSONB, comment="of the call; null if erased"),
    Column("fallback", JSONB, comment="content of the call if the window is closed; null if erased"),
    Column("as_fallback", Boolean, nullable=False, server_default=text("false")),
    _flag("own_values", "the recipient has placeholder values of their own"),
    Column("batch", Uuid),
    Column("state", Text, nullable=False),
    timestamp("due_at", "when it is processed next; null in a final state"),
    timestamp("expires_at", needed=True),
    count("attempt", "calls begun"),
    count("failures", "failed calls since it was requested, without those that use no attempt"),
    Column("wamid", Text),
    text_column("reason"),
    Column("code", Integer),
    text_column("detail"),
    Column("cancelled", Text, comment="the reason for not sending it, if a call under way leaves it unsent"),
    _flag("answered", "its batch has a first result"),
    _flag("changed", "its batch has to report it again"),
    _flag("in_other_batches", "batches of also_requested get its results, too"),
    _flag("requested_alone", "it belongs to a batch, and was requested alone, too"),
    _flag("has_status", "Meta has reported a status of the accepted message"),
    Column("doubted_attempt", Integer, comment="the attempt that was in doubt when it was sent again"),
    Column("correlationid", Text),
    Column("causationid", Text),
    now("created_at"),
    now("updated_at"),
    Index("messages_due", "sender", "shop", "requester", "due_at", postgresql_where=text("state = 'queued'")),
    Index(
        "messages_unreported",
        "sender",
        "due_at",
        postgresql_where=text(
            "state = 'queued' AND (batch IS NOT NULL OR in_other_batches) AND (NOT answered OR reason = '')"
        ),
    ),
    Index("messages_expiry", "expires_at", postgresql_where=text("state = 'queued'")),
    Index("messages_open", "due_at", postgresql_where=text("state IN ('sending', 'in_doubt')")),
    Index("messages_wamid", "wamid", postgresql_where=text("wamid IS NOT NULL")),
    Index("messages_batch", "batch", postgresql_where=text("batch IS NOT NULL")),
    Index("messages_person", "person"),
    Index("messages_other_person", "other_person", postgresql_where=text("other_person IS NOT NULL")),
    Index("messages_third_person", "third_person", postgresql_where=text("third_person IS NOT NULL")),
    Index(
        "messages_without_status",
        "updated_at",
        postgresql_where=text("state = 'accepted' AND NOT has_status"),
    ),
    Index("messages_ended", "updated_at", postgresql_where=text("due_at IS NULL")),
    comment="The ledger: the messages that were requested, and their state",
    info=personal_data(
        person=("person", "other_person", "third_person"),
        erased={"phone": None, "user_id": None, "content": None, "fallback": None, "detail": "", "wamid": None},
        impersonal=(
            "shop",
            "requester",
            "send_key",
            "sender",
            "category",
            "state",
            "reason",
            "cancelled",
            "correlationid",
            "causationid",
        ),
        also=_ALSO_EXPIRE,
        export=_EXPORT_MESSAGES,
    ),
)

BATCHES = Table(
    "batches",
    METADATA,
    Column("id", Uuid, primary_key=True, comment="derived from shop, requester and the requester's name for it"),
    Column("shop", Text, nullable=False),
    Column("requester", Text, nullable=False),
    Column("batch_id", Text, nullable=False),
    Column("open", Integer, nullable=False, comment="recipients without a first result"),
    Column("requested", Boolean, nullable=False, comment="false if only its cancellation has arrived so far"),
    # Only the previous version writes it; kept, so that both versions can run during a rolling update.
    Column(
        "others",
        ARRAY(Uuid),
        nullable=False,
        server_default=text("'{}'"),
        comment="messages that were requested before",
    ),
    Column("cancelled", Text, comment="the reason"),
    count("updates", "updates published"),
    timestamp("completed_at"),
    timestamp("due_at", "when the next update is published"),
    Column("correlationid", Text),
    Column("causationid", Text),
    now("created_at"),
    Index("batches_due", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    Index("batches_created", "created_at"),
    comment="Messages that were requested together",
    info=personal_data(impersonal=("shop", "requester", "batch_id", "cancelled", "correlationid", "causationid")),
)

ALSO_REQUESTED = Table(
    "also_requested",
    METADATA,
    Column("batch", Uuid, ForeignKey("batches.id", ondelete="CASCADE"), nullable=False),
    Column("message", Uuid, nullable=False),
    Column("answered", Boolean, nullable=False, comment="the batch has a first result of it"),
    _flag("changed", "the batch has to report it again"),
    PrimaryKeyConstraint("batch", "message"),
    Index("also_requested_message", "message"),
    comment="Messages of batches that were requested before",
    info=personal_data(),
)

NUMBERS = Table(
    "numbers",
    METADATA,
    Column("sender", Text, primary_key=True, comment="phone number id"),
    timestamp("slots_from", "slots before this time are used", needed=True),
    timestamp("paused_until"),
    Column("cause", Text, comment="of the pause; kept until a call succeeds"),
    text_column("last_served", "shop and requester of the last message"),
    # As the service is configured, for operators' commands, which do not know its settings.
    Column("shop", Text, comment="null if no shop has the number any more"),
    Column("place", Integer, comment="among the shop's numbers; 0 is its default"),
    Column("portfolio", Text),
    Column("rate", Float, comment="messages a second; 0 for no limit"),
    Column("messaging_limit", Integer, comment="recipients per 24 hours; -1 for no limit"),
    comment="Numbers to send from: their rate, and why one is paused",
    info=personal_data(impersonal=("sender", "cause", "last_served", "shop", "portfolio")),
)

TEMPLATE_READS = Table(
    "template_reads",
    METADATA,
    Column("shop", Text, primary_key=True),
    Column("account", Text, comment="id of the WhatsApp business account; null if it is not configured"),
    timestamp("read_at", "when its templates were last read from Meta"),
    timestamp("failed_at", "when they could not be read; null if the last time succeeded"),
    text_column("failure", "why they could not be read"),
    timestamp("due_at", "when they are read next"),
    now("created_at"),
    Index("template_reads_due", "due_at", postgresql_where=text("due_at IS NOT NULL")),
    comment="When the message templates of each shop were read from Meta",
    info=personal_data(impersonal=("shop", "account", "failure")),
)

TEMPLATES = Table(
    "templates",
    METADATA,
    Column("shop", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("language", Text, nullable=False),
    Column("status", Text, nullable=False, comment="APPROVED, PENDING, PAUSED, …; as Meta says"),
    Column("category", Text, nullable=False),
    Column("parameter_format", Text, nullable=False, comment="POSITIONAL or NAMED; empty if Meta did not say"),
    Column("components", JSONB, nullable=False, comment="as Meta says, without the examples"),
    PrimaryKeyConstraint("shop", "name", "language"),
    comment="Message templates as Meta had them when they were last read",
    info=personal_data(impersonal=("shop", "name", "language", "status", "category", "parameter_format", "components")),
)

CHARGES = Table(
    "charges",
    METADATA,
    Column("sender", Text, nullable=False, comment="phone number id"),
    Column("month", Date, nullable=False, comment="its first day, UTC"),
    Column("kind", Text, nullable=False, comment="marketing, utility or free_form"),
    Column("messages", Integer, nullable=False, comment="calls begun, without those that Meta refused"),
    PrimaryKeyConstraint("sender", "month", "kind"),
    comment="Messages that may cost money, by number and month",
    info=personal_data(impersonal=("sender", "kind")),
)

PAIRS = Table(
    "pairs",
    METADATA,
    Column("sender", Text, nullable=False),
    Column("person", LargeBinary, nullable=False),
    timestamp("slots_from", "slots before this time are used", needed=True),
    count("failures"),
    PrimaryKeyConstraint("sender", "person"),
    Index("pairs_slots_from", "slots_from"),
    comment="How often a number may write to one recipient",
    info=personal_data(person="person", delete=True, impersonal=("sender",)),
)

WINDOWS = Table(
    "windows",
    METADATA,
    Column("sender", Text, nullable=False),
    Column("person", LargeBinary, nullable=False),
    timestamp("open_until", needed=True),
    PrimaryKeyConstraint("sender", "person"),
    Index("windows_open_until", "open_until"),
    comment="Customers who wrote within 24 hours and may be sent free text",
    info=personal_data(person="person", delete=True, impersonal=("sender",)),
)

REACHED = Table(
    "reached",
    METADATA,
    Column("portfolio", Text, nullable=False),
    Column("person", LargeBinary, nullable=False),
    timestamp("at", needed=True),
    PrimaryKeyConstraint("portfolio", "person"),
    Index("reached_at", "portfolio", "at"),
    comment="Recipients written to outside a window, whom Meta limits per 24 hours",
    info=personal_data(person="person", delete=True, impersonal=("portfolio",)),
)

PERSON_IDS = Table(
    "person_ids",
    METADATA,
    Column("portfolio", Text, nullable=False, comment="business portfolio in which Meta named them so"),
    Column("id", LargeBinary, nullable=False, comment="keyed hash of a number or an id"),
    Column("person", LargeBinary, nullable=False, comment="the same for everything that names one person"),
    Column("kind", Text, nullable=False, comment="phone, user_id or parent_id"),
    Column("value", Text, comment="the number or id; null if erased, or not used for long"),
    _flag("erased", "known again only if the person writes"),
    timestamp("stated_at", "when Meta last named them so, or a day before", needed=True),
    timestamp("replaced_at", "when Meta said that they have another one"),
    timestamp("taken_at", "since when a number is not somebody else's any more"),
    PrimaryKeyConstraint("portfolio", "id"),
    Index("person_ids_id", "id"),
    Index("person_ids_person", "person"),
    Index("person_ids_stated", "stated_at", postgresql_where=text("value IS NOT NULL")),
    comment="The numbers and Meta's ids that name one person, where there are several",
    # The hashes outlive an erasure, so that a suppression holds under all names.
    info=personal_data(person="id", erased={"value": None, "erased": True}, impersonal=("portfolio", "person", "kind")),
)

CONTACT_BOOK_ANSWERS = Table(
    "contact_book_answers",
    METADATA,
    Column("erasure", Text, nullable=False, comment="id of the request to erase"),
    Column("portfolio", Text, nullable=False),
    Column("deleted", Integer, nullable=False, comment="ids whose entry Meta has deleted, or for which it had none"),
    Column("refused", Integer, nullable=False, comment="ids that Meta refused to delete"),
    Column("failed", Integer, nullable=False, comment="ids that Meta could not be asked to delete"),
    PrimaryKeyConstraint("erasure", "portfolio"),
    comment="What Meta answered when it was asked to delete erased people from its contact books",
    info=personal_data(impersonal=("erasure", "portfolio")),
)

SUPPRESSIONS = Table(
    "suppressions",
    METADATA,
    Column("shop", Text, nullable=False),
    Column("person", LargeBinary, nullable=False),
    Column("category", Text, nullable=False, comment="marketing, utility or all"),
    Column("phone", Text, comment="null if erased"),
    Column("reason", Text, nullable=False),
    Column("by", Text, nullable=False),
    text_column("evidence", "what counted as the recipient's opt-out, without their own words"),
    now("since"),
    timestamp("lifted_at", "when the recipient resumed marketing: their earlier opt-outs no longer hold"),
    Index("suppressions_lifted", "lifted_at", postgresql_where=text("lifted_at IS NOT NULL")),
    PrimaryKeyConstraint("shop", "person", "category"),
    comment="Recipients who must not be written to",
    # Suppressions outlive an erasure, under the hash of the number.
    info=personal_data(
        person="person", erased={"phone": None}, impersonal=("shop", "category", "reason", "by", "evidence")
    ),
)
