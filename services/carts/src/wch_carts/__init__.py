"""Stores carts, deletes expired ones, and reminds their owners once."""
