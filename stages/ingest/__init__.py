"""Process: polls Iggy and sends batches to the encoders."""
