"""Publishes events at their time, each exactly once."""
