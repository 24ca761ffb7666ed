"""Which encoders of other machines may take part, and with which keys. Pure.

An encoder that was refused, or did not ask, cannot send anything. One that was admitted may connect to ingest and the
writers, the listeners, once each of them has confirmed that it accepts its key.
"""

from pipeline.config.digest import WIRE_VERSION, wire_version
from pipeline.sockets.sink_rules import MAX_NAME
from pipeline.wire import sink as wire


class Admission:
    """The coordinator's list of admitted encoders. Keys are public CURVE keys, as Z85."""

    def __init__(self, digest: str, listeners: list[str]) -> None:
        """`digest`: of the configuration; `listeners`: the names of ingest processes and writers."""
        self._digest = digest
        self._listeners = listeners
        #: Key by the name of an admitted encoder.
        self._keys: dict[str, str] = {}
        #: The keys that each listener has confirmed last.
        self._confirmed: dict[str, frozenset[str]] = {}

    def refusal(self, message: wire.Join, pid: int | None) -> str:
        """Why an encoder may not take part; "" if it may. `pid`: of the process that has its name already."""
        if not message.name.startswith("encode-") or not message.name.isprintable() or len(message.name) > MAX_NAME:
            return "its --name is not valid"
        if (version := wire_version(message.digest)) not in (None, WIRE_VERSION):
            return (f"it is of another release (version {version} of the messages between hosts, the pipeline has "
                    f"{WIRE_VERSION}); install the same release on both machines")
        if message.digest != self._digest:
            return "its topics, mappings, precisions or gzip are not those of the pipeline; give it the same file"
        if pid is not None and pid != message.pid:
            return f"there is a worker {message.name} already; give it another --name"
        return ""

    def admit(self, name: str, key: str) -> None:
        """Admits an encoder."""
        self._keys[name] = key

    def remove(self, name: str, key: str | None = None) -> None:
        """Removes an encoder that has left or was refused; with a `key`, only if it was admitted with that one."""
        if key in (None, self._keys.get(name)):
            self._keys.pop(name, None)

    def admits(self, name: str, key: str) -> bool:
        """Whether messages of this name and key are accepted."""
        return self._keys.get(name) == key

    def is_admitted(self, name: str) -> bool:
        """Whether an encoder of that name was admitted."""
        return name in self._keys

    @property
    def allow(self) -> wire.Allow:
        """The message for the listeners."""
        return wire.Allow(sorted(set(self._keys.values())))

    def confirmed(self, listener: str, keys: list[str]) -> None:
        """A listener accepts connections with these keys."""
        self._confirmed[listener] = frozenset(keys)

    def restarted(self, listener: str) -> None:
        """A listener was restarted, and accepts no keys yet."""
        self._confirmed.pop(listener, None)

    def unconfirmed(self, key: str) -> list[str]:
        """The listeners that do not accept connections with this key yet."""
        return [listener for listener in self._listeners if key not in self._confirmed.get(listener, ())]
