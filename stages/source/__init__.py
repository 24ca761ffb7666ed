"""What the source direction is made of: windows of time, queries, readers of answers, and the messages made of them."""
