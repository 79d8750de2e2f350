"""The engine room: pika's asyncio connection. Nothing outside this package imports pika."""
