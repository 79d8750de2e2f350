"""The store: one PostgreSQL schema per service, with the runtime's own few prepared statements."""
