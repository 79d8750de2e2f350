"""The outside systems that several families use: shops, Meta's Graph API, telephone numbers, circuit breakers."""
