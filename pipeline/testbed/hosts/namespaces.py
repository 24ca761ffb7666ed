"""Network namespaces by name: made, entered, emptied and deleted. Needs root, and `ip` of iproute2."""

import contextlib
import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from pipeline.errors import PipelineError

#: How the names of our namespaces begin; the pid of the process that made them follows.
PREFIX = "pipeline-"
#: Where `ip` keeps them. Source: ip-netns(8).
FOLDER = Path("/run/netns")
#: Source: sched.h.
CLONE_NEWNET = 0x40000000
#: Longest wait for killed processes, seconds.
KILLED_SECONDS = 10.0


def namespace(pid: int, host: str) -> str:
    """The name of a host's namespace, made by process `pid`."""
    return f"{PREFIX}{pid}-{host}"


def ip(*arguments: str) -> str:
    """Runs `ip`; what it prints. Raises PipelineError."""
    try:
        return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=30).stdout
    except subprocess.CalledProcessError as error:
        raise PipelineError(f"ip {' '.join(arguments)}: {error.stderr.strip()}") from None


def why_impossible() -> str:
    """Why namespaces can't be made here; "" if they can."""
    if shutil.which("ip") is None:
        return "there is no command ip (package iproute2)"
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    name = namespace(os.getpid(), "probe")
    try:
        ip("netns", "add", name)
        ip("-n", name, "link", "add", "name", "v0", "type", "veth", "peer", "name", "v1")
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
    except (PipelineError, OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    finally:
        with contextlib.suppress(PipelineError):
            ip("netns", "del", name)
    return ""


def enter(name: str) -> None:
    """Has this thread, and the threads and processes that it starts from now on, be in a namespace."""
    with (FOLDER / name).open("rb") as file:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(file.fileno(), CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise PipelineError(f"the network namespace {name} can't be entered: {os.strerror(number)}")


def kill_all(name: str, *, spare: int = 0) -> None:
    """Kills every process in a namespace except `spare`; returns once they have ended."""
    until = time.monotonic() + KILLED_SECONDS
    while time.monotonic() < until:
        pids = [int(pid) for pid in ip("netns", "pids", name).split() if int(pid) not in (spare, os.getpid())]
        pids = [pid for pid in pids if not _is_zombie(pid)]
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1] in (b"Z", b"X")
    except OSError:
        return True


def remove(name: str, *, spare: int = 0) -> None:
    """Kills what runs in a namespace, except `spare`, and deletes it."""
    with contextlib.suppress(PipelineError):
        kill_all(name, spare=spare)
        ip("netns", "del", name)


def remove_stale() -> None:
    """Removes the namespaces of processes that have ended without removing them."""
    names = os.listdir(FOLDER) if FOLDER.exists() else []
    for name in names:
        match = re.fullmatch(re.escape(PREFIX) + r"(\d+)-.*", name)
        if match and not Path(f"/proc/{match[1]}").exists():
            remove(name)
