"""Runs campaigns: one message to many recipients, in batches, at a pace, with exact totals."""
