"""Query languages of the source direction: requests, and reading their answers."""
