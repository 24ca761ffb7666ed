"""A machine of its own for a tutorial: no ports, processes and temporary files but its own, so that a page's own port
numbers and process names can be used while other tests run.

It is made of namespaces of the kernel, by root or by a user who may make user namespaces.
"""

import fcntl
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import termios
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from pipeline.testbed.harness.waiting import wait_until

#: Where the reader works: an empty folder, and HOME.
HOME = "/mnt"
#: Where it also has what lies in a folder that it, or a host of a page, has of its own: 0, 1 and so on, and commands.
MOVED = "/srv"
#: Folders that a machine has of its own.
OWN = ("/tmp", "/var/tmp", "/dev/shm", "/run", HOME, MOVED)
#: What the machine does at its start: its own loopback device and folders, in which the paths that are given can be
#: seen, too, and in MOVED. It ends with its standard input.
_SETUP = f"""
set -e
ip link set lo up
opened=() count=0
for path in "$@"; do
    exec {{number}}<"$path"
    opened+=($number)
done
for folder in {' '.join(OWN)}; do mount -t tmpfs none $folder; done
for path in "$@"; do
    for place in "$path" {MOVED}/$((count++)); do
        mkdir -p "$place"
        mount --no-canonicalize --bind /proc/self/fd/${{opened[0]}} "$place"
    done
    exec {{opened[0]}}<&-
    opened=("${{opened[@]:1}}")
done
mkdir -p /run/lock
echo ready
read -r _
"""
_MAKE = ["unshare", *(["--map-root-user"] if os.geteuid() else []), "--net", "--mount", "--pid", "--fork",
         "--kill-child", "--mount-proc"]
#: What follows each command: its exit code between two record separators.
_ENDED = re.compile(r"\x1e(\d+)\x1e")
#: What moves the cursor to the beginning of a line, and what changes nothing but colours and such.
_BEGINNING = re.compile(r"\r+\n|\r")
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
#: Lines and columns of a terminal.
_SIZE = struct.pack("HHHH", 50, 120, 0, 0)


def why_impossible() -> str:
    """Why no machine can be made here; "" if one can."""
    for program in ("unshare", "nsenter", "setsid", "ip", "bash"):
        if shutil.which(program) is None:
            return f"there is no command {program}"
    # One is made, and ends at once, because its standard input does.
    tried = subprocess.run([*_MAKE, "bash", "-c", _SETUP, "machine"], stdin=subprocess.DEVNULL, capture_output=True,
                           text=True, timeout=60)
    return "" if tried.stdout == "ready\n" else tried.stderr.strip() or "the machine could not be made"


class Machine:
    """A machine while a block lasts; its end kills everything on it."""

    def __init__(self, logs: Path) -> None:
        """What its terminals have shown is in the folder `logs` at the end."""
        self._logs = logs
        self._terminals: dict[str, Terminal] = {}
        needed = [Path(path).absolute() for path in (sys.prefix, sys.base_prefix, str(Path(__file__).parents[2]),
                                                      *sys.path)]
        hidden = {path for path in needed if path.is_dir() and any(path.is_relative_to(own) for own in OWN)}
        self._moved = [path for path in hidden if not any(other in path.parents for other in hidden)]
        self._maker = subprocess.Popen([*_MAKE, "bash", "-c", _SETUP, "machine", *map(str, self._moved)],
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._maker.stdout is not None
        if self._maker.stdout.readline() != b"ready\n":
            raise RuntimeError("the machine could not be made")
        children = Path(f"/proc/{self._maker.pid}/task/{self._maker.pid}/children").read_text()
        target = ["--target", children.split()[0], "--net", "--mount", "--pid"]
        self._prefix = ["nsenter", *(["--user", "--preserve-credentials"] if os.geteuid() else []), *target]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._maker.kill()
        self._maker.communicate()
        for name, terminal in self._terminals.items():
            terminal.close()
            (self._logs / f"terminal-{name}.log").write_text(terminal.text)

    def path_of(self, path: Path) -> Path:
        """A path that also hosts see which have temporary folders of their own."""
        return next((Path(MOVED) / str(number) / path.relative_to(moved) for number, moved in enumerate(self._moved)
                     if path.is_relative_to(moved)), path)

    def command(self, name: str, lines: list[str]) -> str:
        """Makes a command of a shell's lines. Returns its folder."""
        self.run(["sh", "-c", 'mkdir -p "$1" && cat > "$1/$2" && chmod +x "$1/$2"', "sh", f"{MOVED}/bin", name],
                 "\n".join(["#!/bin/sh", *lines, ""]).encode())
        return f"{MOVED}/bin"

    def run(self, command: list[str], given: bytes = b"") -> str:
        """Runs a command on it to its end, with this standard input. Returns its output."""
        return subprocess.run([*self._prefix, *command], input=given, stdout=subprocess.PIPE, check=True,
                              timeout=60).stdout.decode()

    def files(self, pattern: str) -> list[str]:
        """The contents of the files in the reader's folder whose names match a shell's pattern."""
        names = self.run(["sh", "-c", f"ls {HOME}/{pattern} 2>/dev/null || true"]).split()
        return [self.run(["cat", name]) for name in names]

    def save(self, name: str, content: str) -> None:
        """Saves a file in the reader's folder. One that begins with `#!` can be executed."""
        self.run(["sh", "-c", 'cat > "$1"; case $(head -c 2 "$1") in "#!") chmod +x "$1";; esac', "sh",
                  f"{HOME}/{name}"], content.encode())

    def link(self, name: str, to: Path) -> None:
        """Has the reader's folder have something of this machine's."""
        self.run(["ln", "-s", str(to), f"{HOME}/{name}"])

    def terminal(self, name: str, path: str) -> "Terminal":
        """One of its terminals, a new one the first time; `path` is its PATH."""
        if name not in self._terminals:
            self._terminals[name] = Terminal(self._prefix, path)
        return self._terminals[name]


class Terminal:
    """An interactive shell on a terminal."""

    def __init__(self, prefix: Iterable[str], path: str) -> None:
        self._master, slave = pty.openpty()
        os.set_blocking(self._master, False)
        attributes = termios.tcgetattr(slave)
        attributes[3] &= ~termios.ECHO
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, _SIZE)
        environ = {"PATH": path, "HOME": HOME, "TERM": "xterm", "SHELL": "/bin/bash", "LANG": "C.UTF-8",
                   "PROMPT_COMMAND": r"printf '\036%s\036' $?", "PS1": "$ "}
        if "PYTHONPATH" in os.environ:
            environ["PYTHONPATH"] = os.environ["PYTHONPATH"]
        self._process = subprocess.Popen(
            [*prefix, "setsid", "--ctty", "bash", "--noprofile", "--norc", "--noediting", "-i"], stdin=slave,
            stdout=slave, stderr=slave, env=environ)
        os.close(slave)
        #: Everything that was shown.
        self.text = ""
        #: Where that begins what the last command has shown.
        self._begin = 0
        self.wait_for_end()
        self.type(f"cd {HOME}")
        self.wait_for_end()

    def _read(self) -> None:
        if select.select([self._master], [], [], 0.05)[0]:
            try:
                self.text += os.read(self._master, 1_000_000).decode("utf-8", "replace")
            except OSError:  # everything has ended
                pass

    def type(self, command: str) -> None:
        """Types a command, and Enter."""
        self._read()
        self._begin = len(self.text)
        os.write(self._master, command.encode() + b"\n")

    def press_ctrl_c(self) -> None:
        """Ctrl-C."""
        os.write(self._master, b"\x03")

    def shown(self) -> str:
        """What the last command has shown, without escape sequences."""
        self._read()
        text = self.text[self._begin:].split("\x1e")[0]
        return _ESCAPES.sub("", _BEGINNING.sub("\n", text))

    def ended(self) -> bool:
        """Whether the last command has ended."""
        self._read()
        return _ENDED.search(self.text, self._begin) is not None

    def wait_for_end(self) -> int:
        """The exit code of the last command, once it has ended."""
        wait_until(self.ended, "the end of a command")
        match = _ENDED.search(self.text, self._begin)
        assert match is not None
        return int(match[1])

    def close(self) -> None:
        """Ends it; `text` has all that was shown."""
        self._read()
        self._process.kill()
        self._process.wait()
        os.close(self._master)
