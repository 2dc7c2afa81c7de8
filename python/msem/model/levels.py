"""Levels by number and by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Protocol

import pandas as pd

from msem.errors import ModelError, MsemError

WITHIN: Final = 1
BETWEEN: Final = 2
Level = int | str
LEVEL_NAMES: Final = {WITHIN: "within", BETWEEN: "between"}
LEVEL_HEADERS: Final = {text: level for level, name in LEVEL_NAMES.items() for text in (name, str(level))}


DEEPEST: Final = 9  # how many levels a model may have
NUMBERS: Final = dict(
    enumerate(("one", "two", "three", "four", "five", "six", "seven", "eight", "nine"), WITHIN)
)


def number_of_levels(nlevels: int) -> str:
    """How many levels there are, in words."""
    return f"{NUMBERS[nlevels]} level{'' if nlevels == WITHIN else 's'}"


def names_of_levels(nlevels: int) -> dict[int, str]:
    """Names of the levels of a model: within and between if there are two, else their numbers."""
    return dict(LEVEL_NAMES) if nlevels < 3 else {k: f"level {k}" for k in range(1, nlevels + 1)}


def titles_of_levels(nlevels: int) -> dict[int, str]:
    """What stands beside the numbers of levels in headings: names, if there are two, else nothing."""
    return {k: name if nlevels == BETWEEN else "" for k, name in names_of_levels(nlevels).items()}


def level_title(level: int, nlevels: int) -> str:
    """Heading of a level; "" for a single one."""
    return names_of_levels(nlevels)[level].capitalize() if nlevels > 1 else ""


def level_name(level: int, nlevels: int) -> str:
    """A level in words: "within level" and "between level" if there are two, else "level 3"."""
    return f"{LEVEL_NAMES[level]} level" if nlevels == 2 else f"level {level}"


def headed_level(text: str, nlevels: int) -> int | None:
    """The level that the header of a block means by itself; None for a name of the user's."""
    known = {str(level): level for level in range(1, max(nlevels, BETWEEN) + 1)} | {
        LEVEL_NAMES[WITHIN]: WITHIN
    }
    if nlevels <= BETWEEN:
        known[LEVEL_NAMES[BETWEEN]] = BETWEEN
    return known.get(text.casefold())


def level_place(level: int, nlevels: int) -> str:
    """Where something of a level is, as an addition to a text; nothing for a single level."""
    if nlevels == 1:
        return ""
    return f" at the {LEVEL_NAMES[level]} level" if nlevels == 2 else f" at level {level}"


class Levels(Protocol):
    """A model that knows its levels by number and by name."""

    def level(self, level: object) -> int:
        """Number of a level; see `level_number`."""


def level_number(level: object, nlevels: int = 2, names: Mapping[str, int] = MappingProxyType({})) -> int:
    """Number of a level that is named by its number, by a name of the user's, or "within" or "between".

    Parameters
    ----------
    level : object
        "between" is a level of a model of two.
    nlevels : int
        Levels of the model.
    names : mapping of str to int
        The user's names of levels.

    Raises
    ------
    ValueError
        If it is anything else.
    ModelError
        If the model has one level and it is another.
    """
    known: dict[object, int] = {k: k for k in range(1, max(nlevels, BETWEEN) + 1)}
    known[LEVEL_NAMES[WITHIN]] = WITHIN
    if nlevels <= BETWEEN:
        known[LEVEL_NAMES[BETWEEN]] = BETWEEN
    own = {name: number for name, number in names.items() if name not in known}
    if isinstance(level, int | str) and level is not True and level in known | own:
        number = (known | own)[level]
        if number > nlevels:
            raise ModelError(f"the model has one level: there is nothing at level {level!r}")
        return number
    if isinstance(level, float) and 0 < level < 1:
        raise MsemError(f"level is a level of the model; the coverage of intervals is ci_level={level!r}")
    if nlevels > BETWEEN:
        called = f", also called {', '.join(map(repr, own))}" if own else ""
        raise MsemError(f"level must be one of the levels 1 to {nlevels} of the model{called}, not {level!r}")
    called = "".join(f", or {name!r}" for name in own)
    raise MsemError(f"level must be 1 or 'within', 2 or 'between'{called}, not {level!r}")


def rows_at(frame: pd.DataFrame, level: Level | None, levels: Levels) -> pd.DataFrame:
    """Rows of a table with a column `level` that belong to one level of a model; all of them for None.

    Raises
    ------
    MsemError
        See `level_number`.
    """
    if level is None:
        return frame
    return frame[frame["level"] == levels.level(level)].reset_index(drop=True)
