"""Which encoders of other machines take part, and with whose keys. Pure.

One that was refused, or did not ask, can send nothing. One that was admitted may connect to ingest and the writers once
they all have confirmed that they take its key.
"""

from pipeline.sockets.sink_rules import MAX_NAME
from pipeline.wire import sink as wire


class Admission:
    """The coordinator's list. Keys are public CURVE keys, as Z85."""

    def __init__(self, digest: str, doors: list[str]) -> None:
        """`digest`: of the configuration; `doors`: the names of ingest processes and writers."""
        self._digest = digest
        self._doors = doors
        #: Key by the name of an admitted encoder.
        self._keys: dict[str, str] = {}
        #: The keys that each of the doors has confirmed last.
        self._confirmed: dict[str, frozenset[str]] = {}

    def refusal(self, message: wire.Join, pid: int | None) -> str:
        """Why an encoder may not take part; "". `pid`: of the process that has its name already."""
        if not message.name.startswith("encode-") or not message.name.isprintable() or len(message.name) > MAX_NAME:
            return "its --name can't be one"
        if message.digest != self._digest:
            return "its topics, mappings, precisions or gzip are not those of the pipeline; give it the same file"
        if pid is not None and pid != message.pid:
            return f"there is a worker {message.name} already; give it another --name"
        return ""

    def admit(self, name: str, key: str) -> None:
        """An encoder may take part."""
        self._keys[name] = key

    def remove(self, name: str, key: str | None = None) -> None:
        """An encoder has left, or is refused; with a `key`, only if it was admitted with that one."""
        if key in (None, self._keys.get(name)):
            self._keys.pop(name, None)

    def admits(self, name: str, key: str) -> bool:
        """Whether a message of this name and key counts."""
        return self._keys.get(name) == key

    def knows(self, name: str) -> bool:
        """Whether an encoder of that name was admitted."""
        return name in self._keys

    @property
    def allow(self) -> wire.Allow:
        """What the doors are told."""
        return wire.Allow(sorted(set(self._keys.values())))

    def confirmed(self, door: str, keys: list[str]) -> None:
        """A door takes connections with these keys."""
        self._confirmed[door] = frozenset(keys)

    def restarted(self, door: str) -> None:
        """A door is another process, and knows nothing."""
        self._confirmed.pop(door, None)

    def unconfirmed(self, key: str) -> list[str]:
        """The doors that do not take connections with this key yet."""
        return [door for door in self._doors if key not in self._confirmed.get(door, ())]
