"""Process of the source direction: turns rows into payloads."""
