"""What differs between two configurations, for a reload. Pure."""

from collections.abc import Iterator

import msgspec

from pipeline.config.schema import Config


def changed_keys(old: Config, new: Config) -> list[str]:
    """The keys whose values differ, such as "mapping.tag_fields" and "sinks[0].influxdb.url", in the schema's order.

    An array of tables with another number of elements is one key: "topics".
    """
    return list(_changed(old, new, ""))


def _changed(old: object, new: object, key: str) -> Iterator[str]:
    if old == new:
        return
    if isinstance(old, msgspec.Struct) and isinstance(new, msgspec.Struct) and type(old) is type(new):
        for field in msgspec.structs.fields(old):
            yield from _changed(getattr(old, field.name), getattr(new, field.name),
                                f"{key}.{field.encode_name}".lstrip("."))
    elif _are_tables(old) and _are_tables(new) and len(old) == len(new):  # type: ignore[arg-type]
        for index, (one, other) in enumerate(zip(old, new, strict=True)):  # type: ignore[call-overload]
            yield from _changed(one, other, f"{key}[{index}]")
    else:
        yield key


def _are_tables(value: object) -> bool:
    return isinstance(value, tuple) and bool(value) and all(isinstance(item, msgspec.Struct) for item in value)
