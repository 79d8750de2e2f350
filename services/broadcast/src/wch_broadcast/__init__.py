"""Runs campaigns: a message to many people, in batches, at a pace, with a truthful summary."""
