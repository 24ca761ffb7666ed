"""Messages as different producers send them, each with the mapping that a user would write, and the loop by hand."""
