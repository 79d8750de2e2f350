"""Keeps the Meta catalog in line with the shop."""
