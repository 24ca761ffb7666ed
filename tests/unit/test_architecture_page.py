"""docs/explanation/architecture.rst lists the folders that there are, and names files that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [*(ROOT / f"{name}.rst" for name in ("README", "CONTRIBUTING", "SECURITY")),
         *sorted((ROOT / "docs").glob("**/*.rst"))]
PAGE = (ROOT / "docs" / "explanation" / "architecture.rst").read_text()
#: Folders below these are not listed one by one.
NOT_LISTED = {"pipeline/testbed", "pipeline/testbed/sandbox", "pipeline/wire"}


def packages() -> set[str]:
    """The folders of the code that the page lists."""
    found = {str(path.parent.relative_to(ROOT)) for top in ("pipeline", "stages")
             for path in (ROOT / top).glob("*/**/__init__.py")}
    return {path for path in found if str(Path(path).parent) not in NOT_LISTED or path == "pipeline/testbed/sandbox"}


def listed() -> set[str]:
    """The folders in the page's listing, from their indentation."""
    block = PAGE[PAGE.index("    pipeline/\n"):PAGE.index("Imports run one way")]
    found, above = set(), {}
    for indent, name in re.findall(r"^( +)(\w+)/(?:\s|$)", block, re.MULTILINE):
        depth = len(indent) // 4
        above[depth] = name
        found.add("/".join(above[level] for level in range(1, depth + 1)))
    return found - {"pipeline", "stages"}


def test_the_listing_has_every_folder_of_the_code_and_no_other() -> None:
    assert listed() == packages()


def test_every_file_that_a_page_names_exists() -> None:
    missing = [f"{page.relative_to(ROOT)}: {name}" for page in PAGES
               for name in re.findall(r"``((?:pipeline|stages|tests|scripts|configs)/[\w./-]*)``", page.read_text())
               if not (ROOT / name).exists()]
    assert missing == []


def test_every_test_that_a_page_names_exists() -> None:
    tests = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert [name for page in PAGES for name in re.findall(r"``(test_\w+\.py)``", page.read_text())
            if name not in tests] == []


def test_every_relative_link_of_a_page_leads_to_a_file() -> None:
    missing = [f"{page.relative_to(ROOT)}: {target}" for page in PAGES
               for target in re.findall(r"<([\w./-]+)>`_", page.read_text())
               if not (page.parent / target).exists()]
    assert missing == []
