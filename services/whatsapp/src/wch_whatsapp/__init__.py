"""Sends WhatsApp messages through the Cloud API, each at most once."""
