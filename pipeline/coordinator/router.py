"""The coordinator's control sockets: receives messages, checks who sent them, and sends to processes by name."""

import logging
import time

from msgspec import Struct

from pipeline.config.digest import config_digest
from pipeline.config.plan import Plan
from pipeline.coordinator.admission import Admission
from pipeline.logs import RepeatFilter
from pipeline.sockets.control_socket import ControlSocket, router, sender_of
from pipeline.sockets.dropped import DroppedMessages
from pipeline.sockets.endpoints import Endpoints
from pipeline.sockets.peers import Peers
from pipeline.sockets.sink_rules import NOT_FOUND_YET, WireRules, kind_of
from pipeline.subscriptions import Subscriptions
from pipeline.wire import common
from pipeline.wire import sink as wire

#: Kinds of processes that encoders of other machines connect to.
LISTENERS = ("ingest", "write")


class Router:
    """One socket for the processes of this machine, and another for encoders of other machines, where they may join."""

    def __init__(self, plan: Plan, topics: Subscriptions, endpoints: Endpoints, peers: Peers,
                 logger: logging.Logger) -> None:
        """Raises PipelineError when the TCP port is taken."""
        self._peers = peers
        self._logger = logger
        self._ingests, self._writers = plan.ingests, plan.writers
        self._local = ControlSocket(router())
        endpoints.bind_control(self._local.socket)
        self._remote: ControlSocket | None = None
        if endpoints.has_remote:
            self._remote = ControlSocket(router(), with_keys=True)
            endpoints.bind_remote_control(self._remote.socket)
        self._rules = WireRules(plan.config, plan.ingests, topics)
        self._admission = Admission(config_digest(plan.config),
                                    [name for name in plan.stages() if kind_of(name) in LISTENERS])
        self._refusals = RepeatFilter()
        self.dropped = DroppedMessages(logger)
        #: The processes of this machine.
        self.local_names = frozenset({"supervisor", *plan.stages()})

    @property
    def sockets(self) -> list[ControlSocket]:
        """The sockets to receive from."""
        return [self._local, *([self._remote] if self._remote is not None else [])]

    def close(self) -> None:
        """Closes the sockets at once."""
        for socket in self.sockets:
            socket.socket.close(0)

    async def receive(self, socket: ControlSocket) -> list[tuple[str, wire.Control]]:
        """Senders and messages that have arrived. Those that are malformed, or do not fit, are dropped and counted.

        The sender is "" for a process that has been replaced. Only reports that remain true are accepted from it: its
        successor has its positions already, and a late Dispatched would contradict that.
        """
        return [found for arrived in await socket.receive_from() for found in self.check(*arrived)]

    def check(self, identity: bytes, key: str | None, frames: list[bytes]) -> list[tuple[str, wire.Control]]:
        """The sender with each message that is valid. `key`: the CURVE key of an encoder of another machine."""
        sender = sender_of(identity)
        try:
            messages = wire.read_reports(frames)
        except wire.Malformed as error:
            self.dropped.drop(sender, str(error))
            return []
        return [(sender, message) for message in messages if self._is_valid(sender, key, message)]

    def _is_valid(self, sender: str, key: str | None, message: wire.Control) -> bool:
        problem = self._rules.sender(sender, message) or self._rules.control(message)
        if not problem and key is None and sender and sender not in self.local_names:
            problem = "there is no process of this name"
        elif not problem and key is not None:
            problem = self._check_remote(sender, key, message)
        if problem and problem != NOT_FOUND_YET:
            self.dropped.drop(sender, problem)
        return not problem

    def _check_remote(self, sender: str, key: str, message: wire.Control) -> str:
        """What is wrong with a message of an encoder of another machine, or "". A Join is answered here."""
        if isinstance(message, wire.Join) and sender not in self.local_names:
            self._answer_join(message, key)
            return ""
        if isinstance(message, wire.Join | common.Heartbeat) or not self._admission.admits(sender, key):
            return "its worker was not admitted"
        return ""

    def _answer_join(self, message: wire.Join, key: str) -> None:
        """Refuses an encoder of another machine; or admits it, once ingest and the writers accept its key."""
        assert self._remote is not None
        refusal = self._admission.refusal(message, self._peers.pids.get(message.name))
        if refusal:
            self._admission.remove(message.name, key)
            if self._refusals.allows(f"{message.name} {refusal}", time.monotonic()):
                self._logger.error("worker %s is not admitted: %s", message.name, refusal)
        else:
            if not self._admission.is_admitted(message.name):
                self._logger.info("worker %s joins", message.name)
            self._admission.admit(message.name, key)
            for listener in (unconfirmed := self._admission.unconfirmed(key)):
                self._local.send(listener.encode(), common.encode(self._admission.allow))
            if unconfirmed:
                return  # the encoder asks again within a second
        self._remote.send(message.name.encode(), common.encode(wire.Admit(refusal, self._ingests, self._writers)))

    def joined(self, message: wire.Join) -> common.Heartbeat | None:
        """The Heartbeat that a Join stands for; None unless the encoder is admitted."""
        if not self._admission.is_admitted(message.name):
            return None
        return common.Heartbeat(message.name, message.pid, message.startup_cpu)

    def started(self, name: str) -> None:
        """A new process has sent its first heartbeat: if it is a listener, it is sent the keys that it has to
        accept."""
        self._admission.restarted(name)
        if self._admission.allow.keys and kind_of(name) in LISTENERS:
            self.send(name, self._admission.allow)

    def allowed(self, sender: str, message: wire.Allowed) -> None:
        """A listener accepts connections with these keys."""
        self._admission.confirmed(sender, message.keys)

    def left(self, name: str) -> None:
        """An encoder of another machine has left."""
        self._logger.info("worker %s leaves", name)
        self._admission.remove(name)

    def send(self, name: str, message: Struct) -> None:
        """Sends a message to a process that has sent a heartbeat; to another, nothing."""
        if name in self._peers.pids:
            is_remote = self._remote is not None and self._admission.is_admitted(name)
            socket = self._remote if is_remote and self._remote is not None else self._local
            socket.send(name.encode(), common.encode(message))

    def reply(self, sender: str, message: Struct) -> None:
        """Sends a message to a process of this machine that sends no heartbeats: the supervisor."""
        self._local.send(sender.encode(), common.encode(message))
