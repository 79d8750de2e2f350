"""The scheduler publishes requests that are other families'; it has no queue of its own."""

from wch_common.topology import Topology

TOPOLOGY = Topology(())
