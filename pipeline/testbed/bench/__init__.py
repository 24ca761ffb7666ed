"""`pipeline bench`: what the pipeline does on this machine. Figures compare with others of the same run only."""
