"""Everything about RabbitMQ: its objects as data, our headers, and two ways to reach it, `aio` (pika) and `blocking` (kombu)."""
