"""What a step sees beside the message: its stream, topic and partition, offset, time and headers."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from pipeline.about import EVERYTHING, About, read_about
from pipeline.config.steps_schema import METADATA, header_of
from stages.mapping.batch import BatchOrigin
from stages.mapping.cpu_limit import CpuLimit
from stages.mapping.limits import Limits
from stages.mapping.records.series import Origin
from stages.mapping.steps.errors import BadPath, BadStep
from stages.mapping.steps.paths import MISSING, Document, Path

#: Gives a value of the message or its context; MISSING if there is none.
Source = Callable[[Document, "Context"], Any]


class Context:
    """Of one message."""

    __slots__ = ("_batch", "_headers", "_index", "_origin", "cpu", "limits", "stream", "topic")

    def __init__(self, stream: str, topic: str, limits: Limits, names: Sequence[str], cpu: CpuLimit,
                 origin: Origin | None = None) -> None:
        """`names` are those of the origin's headers; `cpu` measures the message. Without an `origin`, call `move`."""
        self.cpu = cpu
        self.stream = stream
        self.topic = topic
        self.limits = limits
        self._origin = origin
        self._batch: BatchOrigin | None = None
        self._index = 0
        self._headers = names

    def move(self, batch: BatchOrigin, index: int) -> None:
        """To a message of a batch."""
        self._batch, self._index, self._origin = batch, index, None

    @property
    def origin(self) -> Origin:
        """Place, times and headers."""
        if self._origin is None:
            self._origin = Origin() if self._batch is None else self._batch.of(self._index)
        return self._origin

    def about(self) -> About:
        """Times and headers of the message, for mappings that need everything."""
        return read_about(self.header(EVERYTHING))

    def header(self, name: str) -> str:
        """The value of a header; "" if it is missing."""
        for known, value in zip(self._headers, self.origin.headers, strict=False):
            if known == name:
                return value
        return ""

    def metadata(self, name: str) -> Any:
        """The value of `topic()` and the like; MISSING if the message has none."""
        origin = self.origin
        value: Any
        if header := header_of(name):
            value = self.header(header)
        elif name in ("stream()", "topic()"):
            value = self.stream if name == "stream()" else self.topic
        elif name in ("partition()", "offset()"):
            return origin.partition if name == "partition()" else origin.offset
        else:
            value = origin.timestamp or origin.arrival
        return value or MISSING


def is_metadata(text: str) -> bool:
    """Whether this is `topic()` or the like, and no path."""
    return text in METADATA or bool(header_of(text))


def source(text: str, option: str = "from") -> Source:
    """What a path, or `topic()` and the like, stands for. Raises BadStep."""
    if header := header_of(text):
        return lambda document, context: context.header(header) or MISSING
    if is_metadata(text):
        return lambda document, context: context.metadata(text)
    if text.endswith(")") and "(" in text and "\\" not in text:
        raise BadStep(option, f'"{text}" is not known; there are {", ".join(METADATA)} and header(\'NAME\')')
    path = exact_path(text, option)
    return lambda document, context: path.get(document)


def path_of(text: str, option: str = "path") -> Path:
    """A configured path. Raises BadStep."""
    try:
        return Path(text)
    except BadPath as error:
        raise BadStep(option, f'"{text}" {error}') from None


def exact_path(text: str, option: str = "path") -> Path:
    """The same, of a single value. Raises BadStep."""
    path = path_of(text, option)
    if not path.is_exact:
        raise BadStep(option, f'"{text}": wildcards are not allowed here; give the path of one value')
    return path


def target(text: str, option: str = "to") -> tuple[str, ...]:
    """The keys of a path that a value is put at; () for "". Raises BadStep."""
    return exact_path(text, option).keys if text else ()


def text_of(value: Any) -> str | None:
    """A single value as a text; None for objects, arrays and null."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return None if value is None or isinstance(value, dict | list) else str(value)


#: What an error shows of a value, characters.
_SHOWN: Final = 60


def described(value: Any) -> str:
    """A value for an error."""
    if value is None:
        return "null"
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "an array"
    text = str(text_of(value)).replace("\0", "")
    shown = text if len(text) <= _SHOWN else text[:_SHOWN - 3] + "..."
    return f'"{shown}"' if isinstance(value, str) and value[:1] != "\0" else shown
