"""Waiting for a condition with a deadline."""

import random
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack

from pipeline.errors import PipelineError

#: Longest wait for what happens by itself, seconds; with room for a machine that is busy.
SOON_SECONDS = 60.0


def wait_until(condition: Callable[[], object], what: str, seconds: float = SOON_SECONDS) -> None:
    """Returns once `condition()` holds. Raises PipelineError naming `what` after `seconds`."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise PipelineError(f"timed out after {seconds:g} s waiting for {what}")
        time.sleep(0.02)


def free_port(*beside: int) -> int:
    """A port on which nothing listens, nor on those `beside` it (as many numbers further).

    It is none of those that the system gives to connections, so that it stays free until somebody listens.
    """
    while True:
        port = random.randrange(10_000, 32_000)
        with ExitStack() as probes:
            try:
                for offset in (0, *beside):
                    probes.enter_context(socket.socket()).bind(("127.0.0.1", port + offset))
            except OSError:
                continue
            return port
