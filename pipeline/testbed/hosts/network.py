"""A network of hosts: each a network namespace with its own address, all on one switch."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import msgspec

from pipeline.errors import PipelineError
from pipeline.interrupts import signals_blocked
from pipeline.testbed.hosts import namespaces
from pipeline.testbed.hosts.rules import LinkRule
from pipeline.testbed.hosts.switch import READY, START, WATCHING, Counts, mac_of

#: The namespace of the switch.
SWITCH = "switch"
NETWORK = "10.77.0"
#: Device of each host.
DEVICE = "eth0"


class Network:
    """Hosts by name while a block lasts. Its end, or that of this process, however it comes, removes all of it."""

    def __init__(self, hosts: Iterable[str], seed: int = 0) -> None:
        """`seed` decides which frames are lost. Names of hosts have at most 15 characters."""
        self.hosts = list(hosts)
        self._seed = seed
        self._switch: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Raises PipelineError where namespaces can't be made."""
        reason = namespaces.why_impossible()
        if reason:
            raise PipelineError(f"hosts can't be made on this machine: {reason}")
        namespaces.remove_stale()
        try:
            with signals_blocked():
                self._make()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def _make(self) -> None:
        switch = namespaces.namespace(os.getpid(), SWITCH)
        ip = namespaces.ip
        # First, because it removes the hosts when this process is killed.
        self._switch = subprocess.Popen(
            [sys.executable, "-m", "pipeline.testbed.hosts.switch", str(os.getpid()), str(self._seed), SWITCH,
             *self.hosts], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._switch.stdin is not None
        self._switch.wait()
        self._expect(WATCHING)
        ip("netns", "add", switch)
        for number, host in enumerate(self.hosts, 1):
            name = self.namespace(host)
            ip("netns", "add", name)
            ip("-n", switch, "link", "add", "name", host, "type", "veth", "peer", "name", DEVICE, "netns", name)
            ip("-n", name, "link", "set", "dev", DEVICE, "address", mac_of(number).hex(":"))
            ip("-n", name, "address", "add", f"{self.address(host)}/24", "dev", DEVICE)
            for at, device in ((name, "lo"), (name, DEVICE), (switch, host)):
                ip("-n", at, "link", "set", "dev", device, "up")
        self._switch.stdin.write(START)
        self._switch.stdin.flush()
        self._expect(READY)

    def _expect(self, answer: bytes) -> None:
        if self._answer() != answer:
            raise PipelineError("the switch between the hosts did not start")

    def _answer(self) -> bytes:
        assert self._switch is not None and self._switch.stdout is not None
        return self._switch.stdout.readline()

    def namespace(self, host: str) -> str:
        """The name of a host's namespace."""
        return namespaces.namespace(os.getpid(), host)

    def address(self, host: str) -> str:
        """The address of a host."""
        return f"{NETWORK}.{self.hosts.index(host) + 1}"

    def prefix(self, host: str) -> list[str]:
        """What a command begins with that is to run on a host."""
        return ["ip", "netns", "exec", self.namespace(host)]

    def enter(self, host: str) -> None:
        """Has this process be on a host from now on. Call it before there are threads and sockets."""
        namespaces.enter(self.namespace(host))

    def set_rules(self, rules: Iterable[LinkRule]) -> Counts:
        """From now on these hold, and no others. Returns once they do, with the frames so far."""
        assert self._switch is not None and self._switch.stdin is not None
        self._switch.stdin.write(msgspec.json.encode(list(rules)) + b"\n")
        self._switch.stdin.flush()
        answer = self._answer()
        if not answer:
            raise PipelineError("the switch between the hosts has ended")
        return msgspec.json.decode(answer, type=Counts)

    def kill_all(self, host: str) -> None:
        """Kills all processes of a host; returns once they have ended."""
        namespaces.kill_all(self.namespace(host), spare=os.getpid())

    def close(self) -> None:
        """Kills what runs on the hosts, and removes them; this process lives on."""
        if self._switch is not None and self._switch.stdin is not None:
            with contextlib.suppress(OSError):
                self._switch.stdin.close()
            while self._answer():
                pass
            self._switch.stdout.close()  # type: ignore[union-attr]
            self._switch = None
        self._remove()

    def _remove(self) -> None:
        for host in [*self.hosts, SWITCH]:
            if (namespaces.FOLDER / self.namespace(host)).exists():
                namespaces.remove(self.namespace(host), spare=os.getpid())
