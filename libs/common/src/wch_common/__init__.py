"""Event contracts and the machinery that every job family of WCH Jobs shares."""
