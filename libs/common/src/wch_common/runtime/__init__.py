"""The runtime: from a delivery to its acknowledgement, and a service made of such queues."""
