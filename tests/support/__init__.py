"""What the tests share: a stage with a broker and a service on it, and waiting with a deadline."""
