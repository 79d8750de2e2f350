"""The contract: what an event is, how it is encoded, and which types a program knows."""
