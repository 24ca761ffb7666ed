"""The coordinator process of the sink direction: ledger, assignments, offset commits, status."""
