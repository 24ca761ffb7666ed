"""Blocking calls in threads, for a process whose main thread waits at a ZeroMQ poller."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from typing import Generic, ParamSpec, TypeVar

import zmq

R = TypeVar("R")
P = ParamSpec("P")


class CallPool(Generic[R]):
    """Runs calls in threads. Register `wakeup` with a poller, and call `take` whenever it is ready.

    All methods are for the thread that made the pool; only the calls run elsewhere. One pool of a name per process.
    """

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", threads: int, name: str) -> None:
        """`name` is that of the threads, as debuggers show it."""
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._results: SimpleQueue[R] = SimpleQueue()
        endpoint = f"inproc://{name}"
        #: Becomes readable once for each call that has ended.
        self.wakeup = context.socket(zmq.PULL)
        self.wakeup.bind(endpoint)
        #: One for each thread: a 0MQ socket must not be used by two threads at the same time.
        self._wakeup_senders: SimpleQueue[zmq.Socket[bytes]] = SimpleQueue()
        for _ in range(threads):
            sender = context.socket(zmq.PUSH)
            sender.connect(endpoint)
            self._wakeup_senders.put(sender)

    def submit(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> None:
        """Runs `call` in a thread, once one is free. It must not raise: its failures are results, too."""
        self._pool.submit(self._run, partial(call, *args, **kwargs))

    def take(self) -> R:
        """The result of a call that has ended, in the order in which they end. Call it once for each wake-up."""
        self.wakeup.recv()
        return self._results.get()

    def _run(self, call: Callable[[], R]) -> None:
        self._results.put(call())
        sender = self._wakeup_senders.get()
        sender.send(b"")
        self._wakeup_senders.put(sender)
