"""Where the local socket of a pipeline is: a place that follows from its configuration, so that commands find it.

With `pipeline.runtime_dir` it is there. Otherwise it is in the folders of this user's locks, under a name made of what
identifies the pipeline: its Iggy server, consumers, topics and sources. Options of a run, such as `--workers`, and the
mapping are not part of it. Only members of a consumer group may have the same name; they are numbered.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from pipeline.config.schema import Config
from pipeline.errors import PipelineError
from pipeline.locks import Locks, own_lock_folders

#: Name of the socket in `pipeline.runtime_dir`.
SOCKET: Final = "http.sock"
#: Names of the sockets elsewhere.
LOCAL_SOCKETS: Final = "http-*.sock"
#: Pipelines of one name on this machine, at most.
MOST: Final = 16


def local_places(config: Config, folders: Sequence[Path] | None = None) -> list[list[Path]]:
    """The paths at which the socket of a pipeline may be: for each number, those at which it listens at once.

    `folders`: of locks; by default this user's, which exist. Raises OSError.
    """
    if config.pipeline.runtime_dir:
        return [[Path(config.pipeline.runtime_dir).absolute() / SOCKET]]
    name = f"http-{identity(config)}"
    folders = own_lock_folders() if folders is None else folders
    return [[folder / f"{name}-{number}.sock" for folder in folders] for number in range(MOST)]


def sweep_places() -> None:
    """Removes the sockets and locks of this user's pipelines that were killed."""
    for folder in own_lock_folders():
        for path in (*folder.glob("http-*.sock"), *folder.glob("http-*.lock")):
            abandoned = Locks()
            try:
                lock = path.with_suffix(".lock")
                abandoned.take(lock, "listens there")
                path.with_suffix(".sock").unlink(missing_ok=True)
                lock.unlink(missing_ok=True)
            except (PipelineError, OSError):
                continue
            finally:
                abandoned.release()


def identity(config: Config) -> str:
    """16 hexadecimal digits that identify the pipelines of a configuration.

    Names of servers are not resolved: they have other addresses tomorrow, or when the resolver fails.
    """
    subscriptions = sorted((one.consumer, one.group, one.stream, one.topic, sorted(one.partitions))
                           for one in config.subscriptions())
    sources = sorted((one.name, one.influxdb.servers(), one.output.stream) for one in config.sources)
    servers = sorted(map(_spelled, config.iggy.servers()))
    return hashlib.sha256(msgspec.json.encode((servers, subscriptions, sources))).hexdigest()[:16]


def _spelled(server: str) -> str:
    """host:port, the loopback addresses as "localhost"."""
    host, _, port = server.rpartition(":")
    host = host.removeprefix("[").removesuffix("]").rstrip(".").lower()
    return f"{'localhost' if host in ('127.0.0.1', '::1') else host}:{port}"
