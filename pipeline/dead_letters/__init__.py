"""Dead letters: what one holds, and the stores that keep them."""
