"""SQL of the sync service: items that the catalog has from it, and products in flight."""

from __future__ import annotations

SENT_ITEMS = """
SELECT product_id, item_id FROM sent_items WHERE catalog_id = %(catalog)s AND product_id = ANY(%(products)s)
"""
ADD_SENT_ITEMS = """
INSERT INTO sent_items (catalog_id, item_id, product_id)
SELECT %(catalog)s, item_id, product_id FROM unnest(%(items)s::text[], %(products)s::bigint[]) AS new (item_id, product_id)
ON CONFLICT (catalog_id, item_id) DO UPDATE SET product_id = excluded.product_id, sent_at = now()
"""
DELETE_SENT_ITEMS = "DELETE FROM sent_items WHERE catalog_id = %(catalog)s AND item_id = ANY(%(items)s)"
IN_FLIGHT = "SELECT product_id FROM in_flight WHERE catalog_id = %(catalog)s ORDER BY since LIMIT %(limit)s"
ADD_IN_FLIGHT = """
INSERT INTO in_flight (catalog_id, product_id, token)
SELECT %(catalog)s, unnest(%(products)s::bigint[]), %(token)s
ON CONFLICT (catalog_id, product_id) DO UPDATE SET token = excluded.token, since = now()
"""
# Only rows of the own lease: a late holder must not delete what its successor has recorded.
DELETE_IN_FLIGHT = """
DELETE FROM in_flight WHERE catalog_id = %(catalog)s AND product_id = ANY(%(products)s) AND token = %(token)s
"""
