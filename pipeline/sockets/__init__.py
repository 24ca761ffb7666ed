"""ZeroMQ: endpoints, control and Status sockets, CURVE keys, and checks of what is received."""
