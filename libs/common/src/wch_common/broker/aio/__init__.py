"""The broker for services: consuming and publishing on pika's asyncio connection. Nothing else imports pika."""
