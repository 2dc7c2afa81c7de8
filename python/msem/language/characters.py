"""Characters of names: which need no quotes, and how other names are quoted."""

from __future__ import annotations

import functools
import re
import unicodedata
from typing import Final

JOINERS: Final = "\u200c\u200d"
"""Zero-width characters that change how letters of Persian and Indic scripts join; nobody sees them as blanks."""

_KEYWORD: Final = re.compile(r"(?:level|group|block)(?::.*)?\Z", re.IGNORECASE)


@functools.cache
def combining_marks() -> str:
    """Characters that may follow a letter and are none to `re`: accents, vowel signs, joiners; ranges for a class."""
    # Unassigned planes hold none; looking through them would take longer than reading a model.
    places = [*range(0x300, 0x20000), *range(0xE0100, 0xE01F0), *map(ord, JOINERS)]
    marks = sorted(p for p in places if chr(p) in JOINERS or unicodedata.category(chr(p)).startswith("M"))
    starts = [p for k, p in enumerate(marks) if not k or marks[k - 1] != p - 1]
    ends = [p for k, p in enumerate(marks) if k + 1 == len(marks) or marks[k + 1] != p + 1]
    return "".join(f"{chr(a)}-{chr(b)}" for a, b in zip(starts, ends, strict=True))


@functools.cache
def _plain(marks: str) -> re.Pattern[str]:
    one = rf"(?:[^\W\d]|\.(?!\d))[\w.{marks}]*"
    return re.compile(rf"{one}(?::{one})*\Z")


def is_plain(name: str) -> bool:
    """Whether a name can be written as it is in a model text."""
    pattern = _plain("" if name.isascii() else combining_marks())
    return bool(pattern.match(name)) and name != "NA" and not _KEYWORD.match(name)


def quote(text: str) -> str:
    """Put a text between quotes that do not occur in it; backticks, written twice within, if both do."""
    if '"' not in text:
        return f'"{text}"'
    return f"'{text}'" if "'" not in text else in_backticks(text)


_QUOTED: Final = re.compile(r"`(?:[^`\n]|``)+`|\"[^\"\n]*\"|'[^'\n]*'|[#!][^\n]*")


def outside_quotes(text: str) -> str:
    """A text with a blank in place of each quoted name and each comment."""
    return _QUOTED.sub(" ", text)


def pieces(text: str) -> list[str]:
    """Parts of a text between line ends and semicolons; those in quotes and comments end nothing."""
    ends = re.finditer(rf"{_QUOTED.pattern}|(?P<end>[;\n])", text)
    places = [found.start() for found in ends if found["end"]]
    return [text[a:b] for a, b in zip([0, *(p + 1 for p in places)], [*places, len(text)], strict=True)]


def in_backticks(name: str) -> str:
    """Put a name between backticks, those within it written twice."""
    return "`" + name.replace("`", "``") + "`"
