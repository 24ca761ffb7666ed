"""Builds the series key of a record: its measurement and tag set, the first part of a line."""

from collections.abc import Callable, Set
from string import Formatter
from typing import Final, NamedTuple

from msgspec import Struct

from pipeline.config.schema import MappingConfig
from pipeline.points import escape
from stages.mapping.budget import Budget, cost_of
from stages.mapping.notices import Notices
from stages.mapping.records.record import NOT_NUMBERS, Record, loads
from stages.mapping.records.values import BadValue, exact_integer
from stages.mapping.reject import Reject, shown

#: Bytes of a cached series key beside its texts.
_HEAD_BYTES: Final = 300
#: A series key of at most this many characters, with a field key of at most as many, is never too long.
SHORT_CHARS: Final = 8_000
#: Suffix of a tag's key when it becomes a field: in InfluxDB 3 a column is either a tag or a field.
FIELD_SUFFIX: Final = "_value"


class Origin(Struct, frozen=True):
    """The place, times and headers of one message that the mapping needs; times in microseconds since 1970."""

    partition: int = 0
    offset: int = 0
    timestamp: int | None = None
    arrival: int | None = None
    #: Values of the headers of `MappingConfig.header_names`, in that order; "" for a missing one.
    headers: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """Partition and offset, for logs."""
        return f"partition {self.partition} offset {self.offset}"


class SeriesKey(NamedTuple):
    """Measurement and tags of one point, escaped."""

    measurement: str
    #: `,key=value` of every tag, by key.
    tags: str
    #: Tags that became fields: `key=` -> value.
    moved: dict[str, str]
    #: `key=` of every tag.
    leads: Set[str]


class SeriesKeyBuilder:
    """Builds the series keys of one mapping, for messages of one topic."""

    def __init__(self, config: MappingConfig, stream: str, topic: str, notices: Notices, budget: Budget) -> None:
        """Raises `escape.Unwritable` if configured names cannot be written."""
        self._notices = notices
        #: Names of topic and stream.
        self.names = {"topic": topic, "stream": stream}
        self._template = list(Formatter().parse(config.measurement_template))
        self._renames = config.tag_renames
        self._cleans = config.on_bad_tag == "clean"
        self._paths = [(path, config.tag_renames.get(path, "")) for path in dict.fromkeys(config.tag_fields)]
        self._tag_map = config.tag_map_field
        self._tag_paths = frozenset(config.tag_fields)
        self._map_prefix = f"{config.tag_map_field}." if config.tag_map_field else ""
        self._from_origin = [name for name in config.metadata_tags if name in ("partition", "offset")]
        self._headers = list(config.header_tags.values())
        self.measurement_path = config.measurement_field if config.measurement_from == "field" else ""
        self._in_head = frozenset([*config.tag_fields, self.measurement_path, *config.template_paths()])
        static = {"static": config.measurement_name, "topic": topic, "stream": stream}
        #: The measurement, escaped, if it does not depend on the message; else "".
        self.fixed = ""
        if config.measurement_from in static:
            self.fixed = escape.measurement(static[config.measurement_from])
        self._pieces: dict[tuple[str, str], str] = {}
        self._pieces_share = budget.share(self._pieces.clear)
        #: Cached series keys by the tags' keys and texts, if they depend on nothing else.
        self._heads: dict[tuple[tuple[str, str] | None, ...], SeriesKey] = {}
        self._heads_share = budget.share(self._heads.clear)
        #: Whether the last series key had two values for one tag.
        self._clashed = False
        self._by_paths = bool(self.fixed) and not (self._map_prefix or self._headers or self._from_origin)
        #: Called with key and value of each tag that is not in the cache.
        self.seen: Callable[[str, str], None] = lambda key, value: None
        #: Tags over the cardinality limit, and whether they become fields; otherwise their messages are rejected.
        self.over: frozenset[str] = frozenset()
        self.over_to_field = config.on_high_cardinality == "to_field"
        constant = dict(config.constant_tags)
        constant.update((name, self.names[name]) for name in config.metadata_tags if name in self.names)
        self._constant = {key: _tag(key, value) for key, value in constant.items() if value}
        for key in (*config.tag_renames.values(), *config.header_tags.values()):
            _tag(key, "x")
        #: Tags of headers and metadata. A tag of the message replaces them, with a warning.
        self._outer = {*config.header_tags.values(), *config.metadata_tags}
        #: `key=` of every tag that does not come from the message.
        self.outer_leads = frozenset(lead_of(key) for key in {*self._constant, *self._outer})

    def contains(self, path: str) -> bool:
        """Whether the value at `path` is part of the measurement or the tags."""
        return path in self._in_head or bool(self._map_prefix and path.startswith(self._map_prefix))

    def tag_key(self, path: str, key: str) -> str:
        """Key of the tag at `path`; "" if it is not a tag."""
        if self._map_prefix and path.startswith(self._map_prefix):
            key = self._member_key(path)
        elif path not in self._tag_paths:
            return ""
        return self._renames.get(path, key)

    def _member_key(self, path: str) -> str:
        """Key of the tag at a path within `tag_map_field`, unless it is renamed."""
        key = path[len(self._map_prefix):]
        return escape.clean_tag(key) if self._cleans else key

    def is_outer(self, tag: str) -> bool:
        """Whether headers or metadata have a tag with this key."""
        return tag in self._outer

    def moved_key(self, path: str, key: str) -> str:
        """Key of the tag at `path` if it exceeds the limit and becomes a field; otherwise ""."""
        if not self.over or not self.over_to_field:
            return ""
        tag = self.tag_key(path, key)
        return tag if tag in self.over else ""

    def head(self, record: Record, origin: Origin, measurement: str = "") -> SeriesKey:
        """Line protocol elements `measurement` and `tag set`, the tags sorted by key. Raises Reject.

        `measurement`, escaped, replaces the configured one.
        """
        if not self._by_paths or measurement or self.over:
            return self._made(record, origin, measurement)
        entries = tuple([record.get(path) for path, _ in self._paths])
        head = self._heads.get(entries)
        if head is None:
            head = self._made(record, origin, "")
            if self._clashed:
                return head
            texts = [entry[1] for entry in entries if entry is not None]
            if self._heads_share.takes(_HEAD_BYTES + cost_of(head.measurement, head.tags, *texts)):
                self._heads[entries] = head
        return head

    def _made(self, record: Record, origin: Origin, measurement: str) -> SeriesKey:
        try:
            tags = self._tags(record, origin)
            moved = self.moved(tags) if self.over else {}
            name = measurement or self.fixed or self._measurement(record)
            text = "".join([tags[key] for key in sorted(tags)]) if tags else ""
            if len(name) + len(text) > SHORT_CHARS:
                escape.check_key(name + text, "f=")
            return SeriesKey(name, text, moved, frozenset(map(lead_of, tags)))
        except escape.Unwritable as error:
            raise Reject("unwritable", str(error)) from None

    def _measurement(self, record: Record) -> str:
        if not self.measurement_path:
            return escape.measurement(self.fill(self._template, record))
        _, text = record.get(self.measurement_path, ("", ""))
        value = loads(text) if text[:1] == '"' else ""
        if not value:
            raise Reject("bad_measurement",
                         f"{self.measurement_path}: not a string, or empty: {shown(text) or 'missing'}")
        return escape.measurement(value)

    def fill(self, template: list[tuple[str, str | None, str | None, str | None]], record: Record,
             reason: str = "bad_measurement") -> str:
        """A parsed template with the record's values. Raises Reject with `reason` if one is missing."""
        out = ""
        for literal, name, _, _ in template:
            out += literal
            if name is None:
                continue
            _, text = record.get(name, ("", ""))
            if text[:1] in ("{", "["):
                raise Reject(reason, f"{name}: the template needs a single value, not an object or array")
            value = self.names.get(name) or tag_text(name, text)
            if not value:
                raise Reject(reason, f"{name}: the template needs it, and it is missing or empty")
            out += value
        return out

    def _tags(self, record: Record, origin: Origin) -> dict[str, str]:
        outer = dict(self._constant)
        for metadata in self._from_origin:
            outer[metadata] = f",{metadata}={origin.partition if metadata == 'partition' else origin.offset}"
        self._clashed = False
        sent: dict[str, str] = {}
        for key, value in zip(self._headers, origin.headers, strict=False):
            if value:
                # No JSON text begins with a NUL, so a header's value is never mistaken for one.
                piece = self._pieces.get((key, f"\0{value}")) or self._piece(key, f"\0{value}", value)
                if piece:
                    self._set(sent, key, piece)
        tags = self._own_tags(record)
        if sent:
            outer |= sent
        for key in self._outer & tags.keys():
            if outer.get(key, tags[key]) != tags[key]:
                self._clashed = True
                self._notices.note("name_clash", f"tag {shown(key)}: the message's value replaces that of a header or "
                                                "of metadata_tags")
        return {**outer, **tags} if outer else tags

    def _own_tags(self, record: Record) -> dict[str, str]:
        """The tags from values of the message."""
        tags: dict[str, str] = {}
        if self._map_prefix:
            if (whole := record.get(self._tag_map, ("", "null"))[1]) != "null":
                raise Reject("bad_tag", f"{self._tag_map}: tag_map_field needs an object, not {shown(whole)}")
            for path, (_, text) in record.items():
                if path.startswith(self._map_prefix):
                    name = path.rstrip("\0")
                    self._add(tags, self._renames.get(name) or self._member_key(name), text)
        pieces = self._pieces
        for path, name in self._paths:
            entry = record.get(path)
            if entry is not None:
                key, text = entry
                if piece := pieces.get((name or key, text)):
                    self._set(tags, name or key, piece)
                else:
                    self._add(tags, name or key, text)
        return tags

    def _set(self, tags: dict[str, str], key: str, piece: str) -> None:
        """Adds a tag. Raises Reject if another value has its key and that is the policy."""
        if tags.setdefault(key, piece) != piece:
            self._clashed = True
            self._notices.clash(f"tag {shown(key)}: {shown(_tag_value(tags[key]))} and {shown(_tag_value(piece))}")
            tags[key] = piece

    def _add(self, tags: dict[str, str], key: str, text: str) -> None:
        piece = self._pieces.get((key, text))
        if piece is None:
            value = tag_text(key, text)
            piece = self._piece(key, text, value) if value else ""
        if piece:
            self._set(tags, key, piece)

    def _piece(self, key: str, text: str, value: str) -> str:
        if self._cleans:
            value = escape.clean_tag(value)
            if not value:
                return ""
        piece = _tag(key, value)
        self.seen(key, value)
        if self._pieces_share.takes(cost_of(key, text, piece)):
            self._pieces[key, text] = piece
        return piece

    def forget_pieces(self) -> None:
        """Forgets the tags that were met: `seen` is called for each again."""
        self._pieces_share.empty()

    def moved(self, tags: dict[str, str]) -> dict[str, str]:
        """Removes tags that exceed the limit from `tags` (key -> `,key=value`) and returns them as fields.

        Raises Reject if that is the policy.
        """
        moved = {}
        for key in sorted(self.over & tags.keys()):
            if not self.over_to_field:
                raise Reject("cardinality", f"tag {key} has more distinct values than max_tag_values allows")
            value = _tag_value(tags.pop(key))
            moved[escape.field_key(key + FIELD_SUFFIX) + "="] = escape.string_field(value)
        return moved


def _tag(key: str, value: str) -> str:
    if key == "time":
        raise escape.Unwritable("tag key is time, which InfluxDB reserves; rename it (tag_renames), or leave it out "
                                "(exclude_fields)")
    return f",{escape.tag_key(key)}={escape.tag_value(value)}"


def lead_of(key: str) -> str:
    """`key=` of a tag, escaped like a field key."""
    return key.translate(escape.KEY) + "="


def _tag_value(piece: str) -> str:
    """The value of `,key=value`, without its escapes."""
    at = 1
    while piece[at] != "=" or piece[at - 1] == "\\":
        at += 1
    return escape.unescaped(piece[at + 1:])


def tag_text(key: str, text: str) -> str:
    """A tag's value from its JSON text; "" if it is missing, null or empty. Raises Reject."""
    if text in ("", "null", '""'):
        return ""
    if text[0] == '"':
        return NOT_NUMBERS.get(text) or str(loads(text))
    if text[0] in "[{":
        raise Reject("bad_tag", f"{key}: an object or array cannot be a tag")
    if "e" in text or "E" in text:
        return text if text in ("true", "false") else _without_exponent(text)
    return text


def _without_exponent(text: str) -> str:
    """An integer without exponent; a fraction, or an integer that is too long, as it was written."""
    try:
        return str(exact_integer(text))
    except BadValue:
        return text.lower()
