"""The edge: kombu for synchronous code. Nothing outside this package imports kombu or amqp."""
