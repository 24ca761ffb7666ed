"""Process of the source direction: sends payloads to Iggy."""
