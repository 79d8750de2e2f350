"""WCH Jobs on one machine: a private broker, an embedded database and the demo."""
