"""The contract: one module per family, each with its models and a tuple EVENTS."""
