"""The status page is whole, loads nothing of anybody else, and can be read."""

import re
from html.parser import HTMLParser

import pytest

from pipeline.http.history import KEPT, MOST_PLOTTED, History, Sample
from pipeline.http.page_files import PAGE, page_files

FILES = {name: one.content.decode() for name, one in page_files().items()}
#: Lowest contrast of a text and what is behind it. Source: WCAG 2.2, 1.4.3 (AA).
CONTRAST = 4.5


class Loaded(HTMLParser):
    """What an HTML document loads, and the attributes that its policy forbids."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.urls += [value for name, value in attrs if name in ("src", "href") and value and value[0] != "#"]
        self.inline += [name for name, _ in attrs if name.startswith("on") or name == "style"]


def test_all_that_it_loads_is_there_and_its_own() -> None:
    page = Loaded()
    page.feed(FILES[PAGE])
    assert page.inline == []
    named = {url.removeprefix("page/") for url in page.urls}
    named |= set(re.findall(r'from "\./([a-z.]+)"', "".join(FILES.values())))
    assert named == FILES.keys() - {PAGE} | {"status", "history", "metrics", "readyz"}
    assert not any(re.search(r"https?://(?!www\.w3\.org/2000/svg)", text) for text in FILES.values())


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".js")])
def test_no_text_is_set_as_html(name: str) -> None:
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|Function\(", FILES[name])


def test_every_element_that_the_code_names_is_in_the_page() -> None:
    named = set(re.findall(r'byId\("([a-z-]+)"\)', "".join(FILES.values())))
    assert named <= set(re.findall(r'id="([a-z-]+)"', FILES[PAGE]))


def _luminance(colour: str) -> float:
    """Relative luminance of #rrggbb. Source: WCAG 2.2, definitions."""
    parts = [int(colour[at:at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1])
def test_every_text_has_enough_contrast(scheme: int) -> None:
    block = re.findall(r":root \{([^}]*--back[^}]*)\}", FILES["page.css"])[scheme]
    colours = dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", block))
    for text in ("text", "soft", "good", "bad", "warn", "link", "first", "second"):
        for back in ("back", "card"):
            low, high = sorted((_luminance(colours[text]), _luminance(colours[back])))
            assert (high + 0.05) / (low + 0.05) >= CONTRAST, f"{text} on {back}"


@pytest.mark.parametrize("seconds", [0, 1, 2, MOST_PLOTTED, MOST_PLOTTED + 1, 1_000, KEPT, KEPT + 500])
def test_plots_are_bounded_and_end_with_the_newest(seconds: int) -> None:
    history = History()
    history.samples.extend(Sample(1e9 + second, read=second) for second in range(seconds))
    plots = history.plots()
    assert len(plots.samples) <= MOST_PLOTTED and len(plots.samples) >= min(seconds, MOST_PLOTTED) // 2
    assert [one.time for one in plots.samples] == sorted({one.time for one in plots.samples})
    assert not seconds or plots.samples[-1] is history.samples[-1]
    assert all(len(plots.fields) == len(one.__struct_fields__) for one in plots.samples)
