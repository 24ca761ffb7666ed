"""Decides which connections are accepted, by their CURVE keys: ZeroMQ's ZAP (https://rfc.zeromq.org/spec/27/).

A key in `workers/` may always connect to the coordinator and ask to take part. The sockets of ingest and the writers,
which carry batches and lines, accept only the pipeline's own key and the keys of workers that the coordinator admitted.
"""

import threading
from pathlib import Path
from typing import Any, Final

import zmq
import zmq.auth
from zmq.utils import z85

from pipeline.errors import PipelineError

#: The endpoint at which libzmq asks.
ADDRESS: Final = "inproc://zeromq.zap.01"
#: Answers: accepted; not yet; never. After "not yet" the peer is disconnected and reconnects by itself.
OK, NOT_YET, NEVER = (b"200", b"OK"), (b"300", b"not admitted yet"), (b"400", b"no such key")
#: Frames of a request before the credentials.
_HEAD_FRAMES: Final = 6
_KEY_BYTES: Final = 32


class ZapHandler:
    """Authenticates the connections to all sockets of one context. Must live as long as they are bound."""

    def __init__(self, folder: str, local: bytes, context: "zmq.Context[Any]") -> None:
        """`folder` holds the keys of workers, `workers/NAME.key`; `local` is our own public key, as Z85.

        Raises PipelineError when they cannot be read.
        """
        try:
            self._known = frozenset(zmq.auth.load_certificates(Path(folder) / "workers"))
        except (OSError, ValueError) as error:
            raise PipelineError(f"the keys in {folder}/workers cannot be read: {error}") from None
        self._local = local
        #: Keys that are accepted, as Z85; None: all that are known.
        self.admitted: frozenset[bytes] | None = None
        # A shadow does not end the context when it is deleted.
        self._socket: zmq.Socket[bytes] = zmq.Context.shadow(context.underlying).socket(zmq.REP)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(ADDRESS)
        threading.Thread(target=self._serve, daemon=True, name="zap").start()

    def _serve(self) -> None:
        while True:
            try:
                self._socket.send_multipart(self.reply(self._socket.recv_multipart()))
            except zmq.ZMQError:  # the context was terminated
                return

    def reply(self, request: list[bytes]) -> list[bytes]:
        """The answer to one request of libzmq."""
        version, number = (*request, b"1.0", b"")[:2] if len(request) > 1 else (b"1.0", b"")
        key = b""
        if len(request) > _HEAD_FRAMES and request[5] == b"CURVE" and len(request[6]) == _KEY_BYTES:
            key = z85.encode(request[6])
        code, text = self.decide(key)
        return [version, number, code, text, key if code == OK[0] else b"", b""]

    def decide(self, key: bytes) -> tuple[bytes, bytes]:
        """The answer for a peer with this public key, as Z85."""
        if key not in self._known:
            return NEVER
        return OK if key == self._local or self.admitted is None or key in self.admitted else NOT_YET
