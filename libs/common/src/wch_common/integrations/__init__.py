"""The outside systems that several families use: shops, Meta's Graph API, phone numbers, circuit breakers."""
