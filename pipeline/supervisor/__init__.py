"""The supervisor process: starts, watches, restarts and stops the others."""
