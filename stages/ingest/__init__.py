"""What ingest needs to read a partition: its buffer, the judgement of its log, the watch over topics."""
