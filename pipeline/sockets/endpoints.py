"""The endpoints of a pipeline's sockets, and how they are secured.

On one machine they are Unix sockets in a runtime folder. With `[network] listen` the coordinator, ingest and the
writers also listen on TCP for encoders on other machines. Then each of these sockets is encrypted and authenticated by
CURVE (https://rfc.zeromq.org/spec/26/), the local ones too.
"""

import os
from collections.abc import Iterable
from typing import Any

import zmq

from pipeline.config.checks import LONGEST_SOCKET, MAX_SOCKET_PATH
from pipeline.config.schema import NetworkConfig
from pipeline.errors import PipelineError
from pipeline.sockets.control_socket import limit
from pipeline.sockets.curve_keys import Identity, load_identity
from pipeline.sockets.zap_handler import ZapHandler

#: Pause before a process of this machine reconnects to one that is not listening yet. ZeroMQ's default, 100, would
#: noticeably delay each start and restart.
LOCAL_RECONNECT_MILLISECONDS = 5
#: Offsets from the first port: of ingest processes, and of writers.
BATCH_PORTS, WRITER_PORTS = 1, 40


class Endpoints:
    """The endpoints of a pipeline on this machine. Encoders of other machines use `RemoteEndpoints`."""

    def __init__(self, folder: str, network: NetworkConfig | None = None) -> None:
        """Raises PipelineError when the folder's name is too long for a Unix socket, or the keys cannot be read."""
        self.folder = os.path.abspath(folder)
        if len(os.fsencode(f"{self.folder}/{LONGEST_SOCKET}")) > MAX_SOCKET_PATH:
            raise PipelineError(f"runtime_dir {self.folder}: too long for the path of a Unix socket; give a shorter "
                                "folder in pipeline.runtime_dir, or in TMPDIR if that is not set")
        self._network = network if network is not None and network.listen else None
        self._identity: Identity | None = load_identity(self._network.keys) if self._network else None
        self._zap: ZapHandler | None = None
        #: ROUTER of the coordinator.
        self.control = f"ipc://{self.folder}/control.ipc"
        #: PUB of the coordinator; for this machine only.
        self.status = f"ipc://{self.folder}/status.ipc"
        #: PUB of the supervisor; for this machine only.
        self.supervisor = f"ipc://{self.folder}/supervisor.ipc"
        #: The source direction: ROUTER and PUB of its coordinator, PUSH of query, PULL of produce.
        self.source_control = f"ipc://{self.folder}/source.ipc"
        self.source_status = f"ipc://{self.folder}/progress.ipc"
        self.pages = f"ipc://{self.folder}/pages.ipc"
        self.messages = f"ipc://{self.folder}/messages.ipc"

    def batches(self, index: int) -> str:
        """PUSH of one ingest process."""
        return f"ipc://{self.folder}/batches-{index}.ipc"

    def batches_of(self, index: int, encoder: int) -> str:
        """PUSH of one ingest process for one encoder of this machine; for mappings that remember what they wrote."""
        return f"ipc://{self.folder}/one-{index}-{encoder}.ipc"

    def tap(self, index: int) -> str:
        """XPUB of one writer, for samples of what it writes; for this machine only."""
        return f"ipc://{self.folder}/tap-{index}.ipc"

    @property
    def source_tap(self) -> str:
        """Produce's samples for `pipeline tap`."""
        return f"ipc://{self.folder}/source-tap.ipc"

    def writer(self, index: int) -> str:
        """PULL of one writer."""
        return f"ipc://{self.folder}/write-{index}.ipc"

    def bind_control(self, socket: "zmq.Socket[Any]") -> None:
        """Binds the coordinator's ROUTER for the processes of this machine."""
        if self.has_remote:
            self._secure(socket)
        self.bind(socket, self.control)

    @property
    def has_remote(self) -> bool:
        """Whether encoders of other machines may join."""
        return self._network is not None

    def bind_remote_control(self, socket: "zmq.Socket[Any]") -> None:
        """Binds the coordinator's ROUTER for encoders of other machines. They cannot take names of local processes
        there.

        Raises PipelineError when the TCP port is in use.
        """
        self._secure(socket)
        self._listen(socket, 0)

    def bind_batches(self, socket: "zmq.Socket[Any]", index: int) -> None:
        """Binds the PUSH of one ingest process."""
        self._bind(socket, self.batches(index), BATCH_PORTS + index)

    def bind_batches_of(self, socket: "zmq.Socket[Any]", index: int, encoder: int) -> None:
        """Binds the PUSH of one ingest process for one encoder of this machine."""
        if self.has_remote:
            self._secure(socket)
        self.bind(socket, self.batches_of(index, encoder))

    def bind_writer(self, socket: "zmq.Socket[Any]", index: int) -> None:
        """Binds the PULL of one writer."""
        self._bind(socket, self.writer(index), WRITER_PORTS + index)

    def _bind(self, socket: "zmq.Socket[Any]", endpoint: str, port: int) -> None:
        """Raises PipelineError when the TCP port is in use."""
        if self.has_remote:
            self._secure(socket).admitted = frozenset()
            self._listen(socket, port)
        self.bind(socket, endpoint)

    def admit(self, keys: Iterable[str]) -> None:
        """Accepts connections of workers with these keys, and of no others, from now on."""
        if self._zap is not None:
            self._zap.admitted = frozenset(key.encode() for key in keys)

    def bind(self, socket: "zmq.Socket[Any]", endpoint: str) -> None:
        """Binds a socket that only processes of this machine connect to."""
        limit(socket)
        socket.bind(endpoint)

    def _secure(self, socket: "zmq.Socket[Any]") -> ZapHandler:
        """Enables CURVE on a socket before it is bound: only workers with keys can connect."""
        assert self._network is not None and self._identity is not None
        if self._zap is None:
            self._zap = ZapHandler(self._network.keys, self._identity.worker_public, socket.context)
        limit(socket)
        self._identity.serve(socket)
        return self._zap

    def _listen(self, socket: "zmq.Socket[Any]", port: int) -> None:
        """Raises PipelineError when the TCP port is in use."""
        assert self._network is not None
        address = f"tcp://{self._network.listen}:{self._network.port + port}"
        try:
            socket.bind(address)
        except zmq.ZMQError as error:
            raise PipelineError(f"network.listen: {address} cannot be bound: {error.strerror}; give an address of "
                                "this machine, and a port that is free with the 100 after it") from None

    def connect(self, socket: "zmq.Socket[Any]", endpoint: str) -> None:
        """Connects a socket to one of the endpoints above."""
        limit(socket)
        if self._identity is not None:
            self._identity.join(socket)
        if endpoint.startswith("ipc:"):
            socket.setsockopt(zmq.RECONNECT_IVL, LOCAL_RECONNECT_MILLISECONDS)
        socket.connect(endpoint)


class RemoteEndpoints(Endpoints):
    """The endpoints of a pipeline on another machine."""

    def __init__(self, host: str, port: int, keys: str) -> None:
        """`keys` is a worker's folder. Raises PipelineError when it cannot be read."""
        self._network = None
        self._identity = load_identity(keys)
        self._zap = None
        self._host = host
        self._port = port
        self.folder = ""
        self.control = self._tcp(0)
        self.status = ""

    def _tcp(self, offset: int) -> str:
        return f"tcp://{self._host}:{self._port + offset}"

    def batches(self, index: int) -> str:
        """PUSH of one ingest process."""
        return self._tcp(BATCH_PORTS + index)

    def writer(self, index: int) -> str:
        """PULL of one writer."""
        return self._tcp(WRITER_PORTS + index)
