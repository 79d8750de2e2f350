"""Of what is tried again nothing was told since: it is found where a number rests."""

import sqlalchemy as sa
from alembic import op

revision = "w0002"
down_revision = "w0001"


def upgrade() -> None:
    """Make an index in the place of one that knew only of first answers."""
    op.create_index(
        "messages_not_told",
        "messages",
        ["sender", "due_at"],
        unique=False,
        postgresql_where=sa.text("state = 'queued' AND batch IS NOT NULL AND (NOT answered OR reason = '')"),
    )
    op.drop_index("messages_untold", "messages")
