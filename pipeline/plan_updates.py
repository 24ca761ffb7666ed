"""A new plan for a process that runs: the supervisor sends it, a thread of the process receives it."""

import contextlib
import logging
import os
import threading
from collections import deque
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler

from msgspec import Struct

from pipeline.config.plan import Plan
from pipeline.config.secrets import secrets_of
from pipeline.logs import hide, use_log_options


class PlanSender:
    """The supervisor's side. Never waits: a thread sends what a process does not take at once, such as a large plan."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: The newest plan, pickled, of each connection on which a thread is sending.
        self._newest: dict[Connection, bytes] = {}

    def send(self, connection: Connection, plan: Plan) -> None:
        """Sends a process its new plan. One that has ended gets none, and one that takes nothing is told of the newest
        when it does: it is killed if it also sends no heartbeats.
        """
        with self._lock:
            is_sending = connection in self._newest
            self._newest[connection] = bytes(ForkingPickler.dumps(plan))
        if not is_sending:
            # With a descriptor of its own: that of `connection` may be closed at any time.
            own = Connection(os.dup(connection.fileno()), readable=False)
            threading.Thread(target=self._send, args=(connection, own), daemon=True, name="plans").start()

    def _send(self, connection: Connection, own: Connection) -> None:
        sent = None
        with own:
            while True:
                with self._lock:
                    data = self._newest[connection]
                    if data is sent:
                        del self._newest[connection]
                        return
                with contextlib.suppress(OSError):  # the process has ended
                    own.send_bytes(data)
                sent = data


class PlanUpdates:
    """The process's side. Levels of logs change at once, for any process; the rest when it takes the plan."""

    def __init__(self, connection: Connection, logger: logging.Logger) -> None:
        """Receives from now on."""
        self._connection = connection
        self._logger = logger
        #: The newest plan that was not taken. A deque, because the thread adds to it while another takes it.
        self._newest: deque[Plan] = deque(maxlen=1)
        threading.Thread(target=self._receive, daemon=True, name="plan").start()

    def take(self) -> Plan | None:
        """The newest plan since the last call; None if there is none. Costs nothing then."""
        return self._newest.pop() if self._newest else None

    def tell(self, message: Struct) -> None:
        """Sends the supervisor a message. Raises OSError."""
        self._connection.send(message)

    def _receive(self) -> None:
        while True:
            try:
                plan = self._connection.recv()
            except (EOFError, OSError):  # the supervisor has ended, and this process with it
                return
            if isinstance(plan, Plan):
                hide(secrets_of(plan.config))
                use_log_options(self._logger, plan.log_level(self._logger.name), plan.config.pipeline.log_format)
                self._newest.append(plan)


def newest_plan(updates: PlanUpdates | None) -> Plan | None:
    """`updates.take()`; None for a process that gets no new plan."""
    return updates.take() if updates is not None else None
