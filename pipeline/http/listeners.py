"""The sockets on which a pipeline answers. The supervisor holds them, so that they outlive the HTTP process."""

import errno
import os
import socket
import stat
from pathlib import Path
from typing import Any

from pipeline.config.http_checks import address_of, server_context, token_of
from pipeline.config.http_schema import AUTO, HttpConfig
from pipeline.config.schema import Config
from pipeline.errors import PipelineError
from pipeline.files import describe
from pipeline.http.place import local_places, sweep_places
from pipeline.locks import Locked, Locks

#: Connections that wait to be accepted.
BACKLOG = 64


class Listeners:
    """The local sockets, and that of `http.listen`. Until `close`, or the end of the process."""

    def __init__(self, config: Config) -> None:
        """Raises PipelineError if the port of `http.listen` is in use, or if no local socket can be made."""
        self._locks = Locks()
        self._paths: list[Path] = []
        self.local: list[socket.socket] = []
        self.port: list[socket.socket] = []
        #: Why there is no port although one was wanted by default; "" otherwise.
        self.warning = ""
        sweep_places()
        try:
            self._listen_locally(config)
            self._listen_on_port(config)
        except BaseException:
            self.close()
            raise

    def _listen_locally(self, config: Config) -> None:
        try:
            for paths in local_places(config):
                if config.pipeline.runtime_dir or self._take(paths):
                    for path in paths:
                        self.local.append(_local_socket(path))
                        self._paths.append(path)
                    break
        except OSError as error:
            raise PipelineError(f"the local socket {describe(error)}") from None

    def _take(self, paths: list[Path]) -> bool:
        """Whether no other pipeline listens at these paths; then none may from now on."""
        try:
            for path in paths:
                lock = path.with_suffix(".lock")
                self._locks.take(lock, "listens there")
                self._paths.append(lock)
        except Locked:
            return False
        return True

    def _listen_on_port(self, config: Config) -> None:
        http = config.http
        if not http.listen:
            return
        token_of(http)
        if http.cert_file:
            server_context(http)
        host, port = address_of(http.listen)
        try:
            self.port = _port_sockets(host, port)
        except OSError as error:
            if http.listen != AUTO:
                raise _cannot_listen(http, error) from None
            reason = _reason(error)
            self.warning = (f"no health, metrics and status over HTTP: {host}:{port} cannot be listened on: {reason}; "
                            "set http.listen to another port, or to \"\" for none")

    @property
    def address(self) -> str:
        """host:port; "" if there is no port."""
        if not self.port:
            return ""
        host, port = self.port[0].getsockname()[:2]
        return f"{f'[{host}]' if ':' in host else host}:{port}"

    def close(self) -> None:
        """Closes the sockets and removes their files."""
        for one in (*self.local, *self.port):
            one.close()
        self.local, self.port = [], []
        for path in self._paths:
            path.unlink(missing_ok=True)
        self._paths = []
        self._locks.release()


def check_port(running: HttpConfig, new: HttpConfig) -> None:
    """Tries another port before it is used. Raises PipelineError if it is in use, or cannot be listened on."""
    if new.listen in ("", AUTO):
        return
    host, port = address_of(new.listen)
    if running.listen and address_of(running.listen)[1] == port:
        return  # it is in use by this pipeline
    try:
        for one in _port_sockets(host, port):
            one.close()
    except OSError as error:
        raise _cannot_listen(new, error) from None


def _cannot_listen(http: HttpConfig, error: OSError) -> PipelineError:
    return PipelineError(f"http.listen: {http.listen} cannot be listened on: {_reason(error)}; give another port, or "
                         "\"\" for none")


def _reason(error: OSError) -> str:
    return "its port is in use" if error.errno == errno.EADDRINUSE else error.strerror or str(error)


def _local_socket(path: Path) -> socket.socket:
    """A socket that only this user may connect to, in place of one that nobody listens on any more. Raises OSError."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        pass
    else:
        if not stat.S_ISSOCK(found.st_mode):
            raise OSError(errno.EEXIST, "is no socket; remove it", str(path))
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.umask(mask)
    return listener


def _port_sockets(host: str, port: int) -> list[socket.socket]:
    """Sockets on all addresses of a name that this machine has: a name may have one of IPv6, which is disabled.

    Raises OSError, also if there is none.
    """
    found: list[socket.socket] = []
    absent: OSError | None = None
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, _, _, _, address in dict.fromkeys(infos):
        # A port that was chosen by the system is the same for all addresses.
        chosen = found[0].getsockname()[1] if found and not port else port
        try:
            found.append(_port_socket(family, (address[0], chosen, *address[2:])))
        except OSError as error:
            absent = error
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                for listener in found:
                    listener.close()
                raise
    if not found:
        raise absent or OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    return found


def _port_socket(family: int, address: tuple[Any, ...]) -> socket.socket:
    """Raises OSError."""
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener
