"""SQL of the stock service."""

from __future__ import annotations

SET_LEVEL = """
INSERT INTO levels (product_id, quantity) VALUES (%(product_id)s, %(quantity)s)
ON CONFLICT (product_id) DO UPDATE SET quantity = excluded.quantity, updated_at = now()
"""
