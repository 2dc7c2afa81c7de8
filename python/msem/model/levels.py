"""Levels by number and by name."""

from __future__ import annotations

from typing import Final, Literal

import pandas as pd

from msem.errors import ModelError, MsemError

WITHIN: Final = 1
BETWEEN: Final = 2
Level = Literal[1, 2, 3, "within", "between"]
LEVEL_NAMES: Final = {WITHIN: "within", BETWEEN: "between"}
LEVEL_HEADERS: Final = {text: level for level, name in LEVEL_NAMES.items() for text in (name, str(level))}


DEEPEST: Final = 3  # how many levels a model may have


def names_of_levels(nlevels: int) -> dict[int, str]:
    """Names of the levels of a model: within and between if there are two, else their numbers."""
    return dict(LEVEL_NAMES) if nlevels < 3 else {k: f"level {k}" for k in range(1, nlevels + 1)}


def level_title(level: int, nlevels: int) -> str:
    """Heading of a level; "" for a single one."""
    return names_of_levels(nlevels)[level].capitalize() if nlevels > 1 else ""


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


def level_number(level: object, nlevels: int = 2) -> int:
    """Number of a level that is named by its number, or "within" or "between" in a model of two.

    Parameters
    ----------
    level : object
    nlevels : int
        Levels of the model.

    Raises
    ------
    ValueError
        If it is anything else.
    ModelError
        If the model has one level and it is the other.
    """
    if nlevels > 2:
        known = {1: 1, "within": 1} | {k: k for k in range(2, nlevels + 1)}
        if isinstance(level, int | str) and level is not True and level in known:
            return known[level]
        raise MsemError(f"level must be one of the levels 1 to {nlevels} of the model, not {level!r}")
    for number, name in LEVEL_NAMES.items():
        if level is not True and level in (number, name):
            if number > nlevels:
                raise ModelError(f"the model has one level: there is nothing at level {level!r}")
            return number
    if isinstance(level, float) and 0 < level < 1:
        raise MsemError(f"level is a level of the model; the coverage of intervals is ci_level={level!r}")
    raise MsemError(f"level must be 1 or 'within', 2 or 'between', not {level!r}")


def rows_at(frame: pd.DataFrame, level: Level | None, nlevels: int) -> pd.DataFrame:
    """Rows of a table with a column `level` that belong to one level of a model; all of them for None.

    Raises
    ------
    MsemError
        See `level_number`.
    """
    if level is None:
        return frame
    return frame[frame["level"] == level_number(level, nlevels)].reset_index(drop=True)
