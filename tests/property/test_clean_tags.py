"""`on_bad_tag = "clean"`: whatever a text is, what becomes of it can be written."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.points import escape

texts = st.one_of(st.text(st.characters(), max_size=20), st.text("\\ \n\r\0,=a\ud800", max_size=12))


@given(texts)
def test_a_cleaned_tag_is_empty_or_can_be_written_and_stays_as_it_is(text: str) -> None:
    cleaned = escape.clean_tag(text)
    assert escape.clean_tag(cleaned) == cleaned
    if cleaned:
        assert escape.tag_value(cleaned)
        assert escape.tag_key(cleaned)


@given(texts)
def test_what_can_be_written_is_not_changed(text: str) -> None:
    try:
        escape.tag_value(text)
    except escape.Unwritable:
        return
    assert escape.clean_tag(text) == text
