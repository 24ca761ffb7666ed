"""The stages of the pipeline, one module a process: ingest, encode, write."""
