"""CURVE keys of a pipeline and of the workers that may join it.

A pipeline's folder holds `server.key_secret` and `server.key`, and in `workers/` the public keys that are admitted.
A worker's folder, which goes to the worker's machine, holds `worker.key_secret` and the pipeline's `server.key`.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import zmq
import zmq.auth
from msgspec import Struct

from pipeline.errors import PipelineError
from pipeline.files import check_own_folder, describe, keep_private, secret_problem

#: The name of the worker keys of the pipeline's own processes.
LOCAL = "local"


class Identity(Struct, frozen=True):
    """The keys of a process; `server_secret` only on the pipeline's machine."""

    server_public: bytes
    server_secret: bytes | None
    worker_public: bytes
    worker_secret: bytes

    def serve(self, socket: "zmq.Socket[Any]") -> None:
        """Enables CURVE on a socket before it is bound: only known workers may connect."""
        assert self.server_secret is not None
        socket.curve_secretkey = self.server_secret
        socket.curve_publickey = self.server_public
        socket.curve_server = True

    def join(self, socket: "zmq.Socket[Any]") -> None:
        """Enables CURVE on a socket before it is connected: it authenticates itself, and checks the server's key."""
        socket.curve_secretkey = self.worker_secret
        socket.curve_publickey = self.worker_public
        socket.curve_serverkey = self.server_public


def make_keys(folder: str) -> None:
    """Creates a pipeline's keys, and those of its own processes. Raises PipelineError when there are some already."""
    path = Path(folder)
    keep_private()
    if not folder:
        raise PipelineError("the name of the folder is empty")
    if os.path.exists(path / "server.key_secret"):
        raise PipelineError(f"{folder} has keys already; give another folder, or --worker NAME to add a worker")
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        check_own_folder(path)
        (path / "workers").mkdir(mode=0o700, exist_ok=True)
        zmq.auth.create_certificates(path, "server")
        (path / "server.key_secret").chmod(0o600)
    except OSError as error:
        raise PipelineError(describe(error, error.filename or folder)) from None
    add_worker(folder, LOCAL)


def add_worker(folder: str, name: str) -> Path:
    """Creates a worker's keys and adds it to `workers/`. Returns the worker's folder. Raises PipelineError."""
    path = Path(folder)
    keep_private()
    if not os.path.exists(path / "server.key"):
        raise PipelineError(f"{folder} has no server.key; create the pipeline's keys first: pipeline keys {folder}")
    if not name.replace("-", "").replace("_", "").replace(".", "").isalnum() or name.startswith("."):
        raise PipelineError(f"{name} is not a name for a worker; use letters, digits, and - _ . between them")
    own = path / f"worker-{name}"
    if os.path.exists(own):
        raise PipelineError(f"there is a worker {name} already, in {own}")
    try:
        check_own_folder(path / "workers")
        own.mkdir(mode=0o700)
        zmq.auth.create_certificates(own, "worker")
        (own / "worker.key_secret").chmod(0o600)
        (own / "worker.key").rename(path / "workers" / f"{name}.key")
        shutil.copy(path / "server.key", own / "server.key")
    except OSError as error:
        raise PipelineError(describe(error, error.filename or own)) from None
    return own


def load_identity(folder: str) -> Identity:
    """The keys in a pipeline's or a worker's folder.

    Raises PipelineError, also when other users can read the secret keys, or can add keys of workers.
    """
    path = Path(folder)
    worker = path / f"worker-{LOCAL}" if (path / "server.key_secret").exists() else path
    server_secret = None
    try:
        if worker != path:
            check_own_folder(path / "workers")
            check_own_folder(path)
            server_secret = _secret(path / "server.key_secret")[1]
        server_public, _ = zmq.auth.load_certificate(worker / "server.key")
        worker_public, worker_secret = _secret(worker / "worker.key_secret")
    except (OSError, ValueError) as error:
        reason = describe(error, error.filename or "") if isinstance(error, OSError) else str(error)
        raise PipelineError(f"keys in {folder} cannot be read: {reason}; create them with: pipeline keys") from None
    return Identity(server_public, server_secret, worker_public, worker_secret)


def _secret(path: Path) -> tuple[bytes, bytes]:
    if problem := secret_problem(str(path)):
        raise PipelineError(f"{path} {problem}")
    public, secret = zmq.auth.load_certificate(path)
    if secret is None:
        raise ValueError(f"{path} holds no secret key")
    return public, secret
