"""WCH Jobs: the event contract and its client, the machinery of services, and the operator's command."""

__version__ = "0.1.0"
