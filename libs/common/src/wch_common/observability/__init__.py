"""What operators see: logs, metrics, health; and the redaction that stands before every text."""
