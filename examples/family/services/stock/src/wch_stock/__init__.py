"""Keeps the level of each product."""
