"""The shop's REST API and Meta's Graph API as small programs for the demo and the tests."""
