"""AMQP frames: reading deliveries and writing publishes."""
