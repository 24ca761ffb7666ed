"""Dead letters: their format, and the stores that hold them."""
