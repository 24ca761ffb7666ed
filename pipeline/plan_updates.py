"""A new plan for a process that runs: the supervisor sends it, a thread of the process receives it."""

import logging
import os
import threading
from multiprocessing.connection import Connection

from msgspec import Struct

from pipeline.config.plan import Plan
from pipeline.config.secrets import secrets_of
from pipeline.logs import hide, use_log_options


def send_plan(connection: Connection, plan: Plan) -> bool:
    """Sends a process its new plan. Never waits: False if the process takes nothing, and must be restarted instead."""
    os.set_blocking(connection.fileno(), False)
    try:
        connection.send(plan)
    except OSError:  # full, with perhaps a part of the plan in it; or the process has just ended
        return False
    finally:
        os.set_blocking(connection.fileno(), True)
    return True


class PlanUpdates:
    """The process's side. Levels of logs change at once, for any process; the rest when it takes the plan."""

    def __init__(self, connection: Connection, logger: logging.Logger) -> None:
        """Receives from now on."""
        self._connection = connection
        self._logger = logger
        self._newest: Plan | None = None
        threading.Thread(target=self._receive, daemon=True, name="plan").start()

    def take(self) -> Plan | None:
        """The newest plan since the last call; None if there is none. Costs nothing then."""
        if self._newest is None:
            return None
        plan, self._newest = self._newest, None
        return plan

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
                self._newest = plan


def newest_plan(updates: PlanUpdates | None) -> Plan | None:
    """`updates.take()`; None for a process that gets no new plan."""
    return updates.take() if updates is not None else None
