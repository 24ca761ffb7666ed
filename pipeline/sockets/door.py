"""Decides whose connection is taken, by its CURVE key: ZeroMQ's authentication protocol (https://rfc.zeromq.org/spec/27/).

A key of `workers/` may always ask the coordinator whether it may take part. At the sockets of ingest and the writers,
which batches and lines go through, only our own key is taken, and those whose worker the coordinator has admitted.
"""

import threading
from pathlib import Path
from typing import Any, Final

import zmq
import zmq.auth
from zmq.utils import z85

from pipeline.errors import PipelineError

#: Where libzmq asks.
ADDRESS: Final = "inproc://zeromq.zap.01"
#: Answers: come in; come again later; never. With "later" the peer is disconnected, and tries again by itself.
OK, LATER, NEVER = (b"200", b"OK"), (b"300", b"not admitted yet"), (b"400", b"no such key")
#: Frames of a question before the credentials.
_HEAD_FRAMES: Final = 6
_KEY_BYTES: Final = 32


class Door:
    """The doorkeeper of all sockets of one context. Keep it for as long as they are bound."""

    def __init__(self, folder: str, local: bytes, context: "zmq.Context[Any]") -> None:
        """`folder` holds the keys of workers, `workers/NAME.key`; `local` is our own public key, as Z85.

        Raises PipelineError when they can't be read.
        """
        try:
            self._known = frozenset(zmq.auth.load_certificates(Path(folder) / "workers"))
        except (OSError, ValueError) as error:
            raise PipelineError(f"the keys in {folder}/workers can't be read: {error}") from None
        self._local = local
        #: Keys that may come in, as Z85; None: all that are known.
        self.admitted: frozenset[bytes] | None = None
        # A shadow: the context is its owner's, and ends when that says so.
        self._socket: zmq.Socket[bytes] = zmq.Context.shadow(context.underlying).socket(zmq.REP)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(ADDRESS)
        threading.Thread(target=self._answer, daemon=True, name="door").start()

    def _answer(self) -> None:
        while True:
            try:
                self._socket.send_multipart(self.reply(self._socket.recv_multipart()))
            except zmq.ZMQError:  # the context has ended
                return

    def reply(self, question: list[bytes]) -> list[bytes]:
        """The answer to one question of libzmq."""
        version, number = (*question, b"1.0", b"")[:2] if len(question) > 1 else (b"1.0", b"")
        key = b""
        if len(question) > _HEAD_FRAMES and question[5] == b"CURVE" and len(question[6]) == _KEY_BYTES:
            key = z85.encode(question[6])
        code, words = self.judge(key)
        return [version, number, code, words, key if code == OK[0] else b"", b""]

    def judge(self, key: bytes) -> tuple[bytes, bytes]:
        """What becomes of the peer with a public key, as Z85."""
        if key not in self._known:
            return NEVER
        return OK if key == self._local or self.admitted is None or key in self.admitted else LATER
