"""The mapping, one record at a time: the reference that every faster way agrees with."""
