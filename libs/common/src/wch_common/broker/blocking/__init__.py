"""The broker for synchronous programs: client, declaring, dead letters. Nothing else imports kombu or amqp."""
