"""Pages under docs/: their examples run, and their output is what comes out."""

import contextlib
import io
import re
import warnings
from pathlib import Path

import pytest

PAGES = sorted((Path(__file__).parents[1] / "docs").glob("*.md"))
BLOCK = re.compile(r"^```(python|text)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def lines(text):
    """Lines without trailing blanks; the version may differ, and the sign of a number that is 0 as printed."""
    plain = re.sub(r"-(0\.0+)(?!\d)", r" \1", text)
    return [re.sub(r"^msem \S+ ", "msem ", line.rstrip()) for line in plain.strip("\n").splitlines()]


def run(page):
    """Code blocks in order in one namespace: pairs of what is shown after a block and what it printed."""
    names: dict[str, object] = {}
    printed = None
    for kind, text in BLOCK.findall(page):
        if kind == "text":
            if printed is not None:
                yield lines(text), lines(printed)
            printed = None
            continue
        out = io.StringIO()
        with contextlib.redirect_stdout(out), warnings.catch_warnings():
            warnings.simplefilter("default")
            exec(compile(text, "page", "exec"), names)
        printed = out.getvalue()


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_examples_of_a_page_print_what_is_shown(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for shown, came in run(path.read_text()):
        assert came == shown
