"""The documentation site: its index leads to every page, and every public name has its place in the reference."""

import re
from pathlib import Path

import msem

DOCS = Path(__file__).parents[1] / "docs"
TOCTREE = re.compile(r"^```\{toctree\}\n(.*?)^```", re.DOTALL | re.MULTILINE)


def below(page):
    """Pages that a page lists, and those that they list."""
    for block in TOCTREE.findall((DOCS / f"{page}.md").read_text()):
        for name in filter(None, block.splitlines()):
            if not name.startswith(":"):
                yield name
                yield from below(name)


def test_every_page_is_reached_from_the_index_once():
    assert sorted(["index", *below("index")]) == sorted(path.stem for path in DOCS.glob("*.md"))


def test_every_public_name_is_in_the_reference():
    listed = set(re.findall(r"^   (\w+)$", (DOCS / "reference.md").read_text(), re.MULTILINE))
    assert listed == {name for name in msem.__all__ if name != "__version__"}
