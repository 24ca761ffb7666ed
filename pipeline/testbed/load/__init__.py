"""`pipeline load`: telemetry for any Iggy, at a rate that is held whatever the server does."""
