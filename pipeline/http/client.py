"""Commands ask a running pipeline over its local socket."""

import contextlib
import http.client
import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from pipeline.config.schema import Config
from pipeline.errors import PipelineError
from pipeline.http.place import LOCAL_SOCKETS, local_places
from pipeline.locks import reachable_lock_folders

#: Longest wait for an answer, seconds.
TIMEOUT_SECONDS: Final = 30.0
#: Longest wait for the answer of a pipeline that may be another one, seconds.
LOOK_SECONDS: Final = 3.0


class NotRunning(PipelineError):
    """No pipeline of this configuration runs as this user on this machine."""


class Running(Struct, frozen=True):
    """What a running pipeline is found by, also when its configuration was changed and not reloaded, or has mistakes
    now.
    """

    #: None: it has mistakes.
    config: Config | None
    #: Absolute paths of its files and folders, by which it is found unless it is by `config`.
    files: tuple[str, ...]


class _LocalConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket that is connected."""

    def __init__(self, connected: socket.socket) -> None:
        super().__init__("localhost")
        self.sock = connected


def request(config: Config | Running, method: str, path: str, body: object = None) -> Any:
    """The JSON that the running pipeline of a configuration answers. A `body` is sent as JSON.

    Raises NotRunning, and PipelineError with what an answer other than 200 says.
    """
    with _connected(config) as connection, _as_pipeline_error():
        content = None if body is None else json.dumps(body).encode()
        connection.request(method, path, content, {"Content-Type": "application/json"} if content else {})
        answer = connection.getresponse()
        data = answer.read()
    try:
        found = json.loads(data)
    except ValueError:
        raise PipelineError(f"the pipeline answered {path} with HTTP {answer.status} and no JSON") from None
    if answer.status != 200:
        raise PipelineError(str(found.get("error", found)) if isinstance(found, dict) else str(found))
    return found


def lines(config: Config | Running, path: str, timeout: float | None = None) -> Iterator[bytes]:
    """The lines of an answer as they come, for answers without an end. Without a line for `timeout` seconds it ends
    with a PipelineError. Raises as `request` does."""
    with _connected(config) as connection, _as_pipeline_error():
        connection.sock.settimeout(timeout)
        connection.request("GET", path)
        answer = connection.getresponse()
        if answer.status != 200:
            raise PipelineError(f"the pipeline answered {path} with HTTP {answer.status}: "
                                f"{answer.read(1_000).decode('utf-8', 'replace')}")
        while line := answer.readline():
            yield line


@contextmanager
def _connected(config: Config | Running) -> Iterator[_LocalConnection]:
    running = config if isinstance(config, Running) else Running(config, ())
    folders = reachable_lock_folders()
    places = local_places(running.config, folders) if running.config is not None else []
    found = [one for paths in places if (one := _connect(paths)) is not None]
    if not found and running.files:
        found = [one for paths in _places_with(running.files, folders) if (one := _connect(paths)) is not None]
    if not found:
        raise NotRunning("no pipeline of this configuration runs as this user on this machine; start one with: "
                         "pipeline start" + (", or ask as root for one of another user" if os.geteuid() else ""))
    try:
        if len(found) > 1:
            raise PipelineError(f"{len(found)} pipelines of this configuration run here, members of one consumer "
                                "group; give each of them its own pipeline.runtime_dir")
        yield _LocalConnection(found[0])
    finally:
        for one in found:
            one.close()


def _places_with(files: tuple[str, ...], folders: Sequence[Path]) -> list[list[Path]]:
    """Where pipelines listen that run with these files on this machine, without `pipeline.runtime_dir`.

    `folders`: of locks.
    """
    places: dict[str, list[Path]] = {}
    for folder in folders:
        for place in folder.glob(LOCAL_SOCKETS):
            places.setdefault(place.name, []).append(place)
    return [paths for paths in places.values() if _files_of(paths) == files]


def _files_of(paths: list[Path]) -> tuple[str, ...] | None:
    """The files of the pipeline that listens there; None if none does, or if it does not answer."""
    connected = _connect(paths)
    if connected is None:
        return None
    connected.settimeout(LOOK_SECONDS)
    with contextlib.closing(connected), contextlib.suppress(PipelineError, ValueError), _as_pipeline_error():
        connection = _LocalConnection(connected)
        connection.request("GET", "/status")
        return tuple(json.loads(connection.getresponse().read())["files"])
    return None


def _connect(paths: list[Path]) -> socket.socket | None:
    """The first socket of these that somebody listens on."""
    for path in paths:
        one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        one.settimeout(TIMEOUT_SECONDS)
        try:
            one.connect(str(path))
        except OSError:
            one.close()
            continue
        return one
    return None


@contextmanager
def _as_pipeline_error() -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise PipelineError("the pipeline does not answer on its local socket; it is very busy, or it hangs") from None
    except (OSError, http.client.HTTPException) as error:
        raise PipelineError(f"the pipeline closed its local socket: {type(error).__name__}; perhaps it has just ended"
                            ) from None
