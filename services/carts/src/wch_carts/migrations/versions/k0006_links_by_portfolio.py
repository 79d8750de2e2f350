"""A number has another id in each business portfolio."""

import sqlalchemy as sa
from alembic import op

revision = "k0006"
down_revision = "k0005"


def upgrade() -> None:
    """Add the portfolio to the key; while both versions run, the previous one retries its links until this one takes them."""
    portfolio = sa.Column(
        "portfolio", sa.Text(), server_default="", nullable=False, comment="of Meta's, in which the id holds"
    )
    op.add_column("person_links", portfolio)
    op.drop_constraint("person_links_pkey", "person_links", type_="primary")
    op.create_primary_key("person_links_pkey", "person_links", ["portfolio", "person"])
    op.create_index("person_links_person", "person_links", ["person"], unique=False)
