"""The coordinator process of the source direction: watermarks and their state."""
