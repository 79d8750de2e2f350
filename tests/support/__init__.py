"""Support for the tests: a stage with a broker and a service on it, and waits with a deadline."""
