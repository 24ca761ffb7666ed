"""`pipeline verify`: compares the points of a database with those that a source has sent to Iggy."""
