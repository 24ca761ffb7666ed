"""Injects random faults into a pipeline and counts what is lost."""
