"""The operator's command: `wch`, noun then verb."""
