"""An index of the queued messages that a batch has to report, among them those that are retried."""

import sqlalchemy as sa
from alembic import op

revision = "w0002"
down_revision = "w0001"


def upgrade() -> None:
    """Replace the index that covered only messages without a first result."""
    op.create_index(
        "messages_unreported",
        "messages",
        ["sender", "due_at"],
        unique=False,
        postgresql_where=sa.text("state = 'queued' AND batch IS NOT NULL AND (NOT answered OR reason = '')"),
    )
    op.drop_index("messages_unanswered", "messages")
