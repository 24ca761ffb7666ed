"""Proposes a mapping for messages, with its reasons: `pipeline mapping suggest`. Pure; reads no files."""
