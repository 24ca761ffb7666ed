"""A switch as a process: forwards the frames between hosts, by the rules that it is given, and cleans up at the end.

It works wherever packet sockets do: `tc netem` is missing in many kernels. Each line of its standard input is a list of
`LinkRule`s as JSON, which replaces the ones before; the answer is one line, `Counts`. At the end of its input it kills
whatever runs on the hosts, deletes their namespaces, and ends: also when the process that started it was killed.
"""

import contextlib
import heapq
import os
import random
import selectors
import signal
import socket
import sys
import time

import msgspec
from msgspec import Struct

from pipeline.testbed.hosts import namespaces
from pipeline.testbed.hosts.rules import LinkRule, delay_of

#: Options of packet sockets. Source: linux/if_packet.h.
SOL_PACKET, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 263, 15, 23
ETH_P_ALL = 3
#: Bytes before each frame that say what the kernel has yet to do to it. Source: struct virtio_net_hdr.
VNET_HEADER_BYTES = 10
#: The kernel may hand over this many bytes at once, as one large segment.
FRAME_BYTES = 1 << 17
BUFFER_BYTES = 16 << 20
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
#: What is said at the start: by the process, by its owner when the hosts are made, and by the process.
WATCHING, START, READY = b"watching\n", b"start\n", b"ready\n"
#: Frames taken from one port before the others have their turn.
FRAMES_AT_ONCE = 64


class Counts(Struct, frozen=True):
    """Frames so far."""

    forwarded: int
    lost: int
    delayed: int


class Switch:
    """One port for each host, named after it; host number n (from 1) has the hardware address `mac_of(n)`."""

    def __init__(self, hosts: list[str], seed: int) -> None:
        self.rules: list[LinkRule] = []
        self.forwarded = self.lost = self.delayed = 0
        self._rng = random.Random(seed)
        self._hosts = hosts
        self._ports = {host: _port(host) for host in hosts}
        self._by_mac = {mac_of(number): host for number, host in enumerate(hosts, 1)}
        #: Due time (monotonic), number, destination, frame.
        self._later: list[tuple[float, int, str, bytes]] = []

    def run(self, commands: int) -> None:
        """Forwards until `commands`, a file descriptor, ends."""
        selector = selectors.DefaultSelector()
        selector.register(commands, selectors.EVENT_READ)
        for host, port in self._ports.items():
            selector.register(port, selectors.EVENT_READ, host)
        unread = b""
        while True:
            wait = max(0.0, self._later[0][0] - time.monotonic()) if self._later else None
            for key, _ in selector.select(wait):
                if key.fd != commands:
                    self._forward(key.data)
                    continue
                data = os.read(commands, 1 << 16)
                if not data:
                    return
                *lines, unread = (unread + data).split(b"\n")
                for line in lines:
                    self._command(line)
            self._send_due()

    def _command(self, line: bytes) -> None:
        self.rules = msgspec.json.decode(line, type=list[LinkRule])
        counts = msgspec.json.encode(Counts(self.forwarded, self.lost, self.delayed))
        with contextlib.suppress(BrokenPipeError):
            os.write(1, counts + b"\n")

    def _forward(self, source: str) -> None:
        for _ in range(FRAMES_AT_ONCE):
            try:
                frame = self._ports[source].recv(FRAME_BYTES)
            except OSError:
                return
            mac = frame[VNET_HEADER_BYTES:VNET_HEADER_BYTES + 6]
            known = self._by_mac.get(mac)
            for destination in [known] if known else self._hosts:
                if destination != source:
                    self._take(source, destination, frame)

    def _take(self, source: str, destination: str, frame: bytes) -> None:
        delay = delay_of(self.rules, source, destination, self._rng)
        if delay is None:
            self.lost += 1
        elif delay:
            self.delayed += 1
            heapq.heappush(self._later, (time.monotonic() + delay, self.delayed, destination, frame))
        else:
            self._send(destination, frame)

    def _send_due(self) -> None:
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            _, _, destination, frame = heapq.heappop(self._later)
            self._send(destination, frame)

    def _send(self, destination: str, frame: bytes) -> None:
        # A full queue loses frames, as in any switch.
        try:
            self._ports[destination].send(frame)
            self.forwarded += 1
        except OSError:
            self.lost += 1


def mac_of(number: int) -> bytes:
    """The hardware address of host `number`: a local one."""
    return b"\x02\x00\x00\x00\x00" + bytes([number])


def _port(host: str) -> socket.socket:
    port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    port.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    port.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    port.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, BUFFER_BYTES)
    port.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
    port.setblocking(False)
    port.bind((host, ETH_P_ALL))
    return port


def main(owner: int, seed: int, switch: str, hosts: list[str]) -> None:
    """The process, for process `owner`: it detaches itself, so that nothing that ends the owner ends it."""
    if os.fork():
        os._exit(0)
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        # From here on the hosts will be removed, so now they may be made.
        os.write(1, WATCHING)
        if os.read(0, len(START)) != START:
            return
        namespaces.enter(namespaces.namespace(owner, switch))
        running = Switch(hosts, seed)
        os.write(1, READY)
        running.run(0)
    finally:
        # Twice: the owner may have been killed while it made one.
        for _ in range(2):
            for host in [*hosts, switch]:
                namespaces.remove(namespaces.namespace(owner, host), spare=owner)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
