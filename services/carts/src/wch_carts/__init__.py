"""Carts: kept, cleaned up, and their owners reminded once."""
