"""Points whose names, tags and strings are full of what line protocol escapes."""

from typing import Any

from hypothesis import strategies as st

from pipeline.config.schema import MappingConfig

#: Makes points of `message`s.
MAPPING = MappingConfig(measurement_from="field", measurement_field="m", tag_map_field="t",
                        field_strategy="remaining", nested="flatten", flatten_separator="")
_NAMES = st.text('\\ ,="ab', min_size=1, max_size=5)
#: Measurement, tags, what the key of a field has after its f, and the field's text.
POINTS = st.tuples(_NAMES, st.dictionaries(_NAMES, _NAMES, max_size=3), _NAMES, st.text('\\ ,="\nab', max_size=5))


def message(name: str, tags: dict[str, str], key: str, text: str) -> dict[str, Any]:
    """A point as a message."""
    return {"m": name, "t": tags, f"f{key}": text}
