"""Statistics that moments by level imply, of any number of levels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msem.data.arrays import LevelArrays
from msem.data.complete import implied_two_levels
from msem.data.nested import implied_nested
from msem.data.statistics import Statistics
from msem.model.variables import Variables


def implied_statistics(
    levels: Mapping[int, LevelArrays], variables: Variables, shapes: Mapping[Any, float], source: str
) -> Statistics:
    """Sufficient statistics that complete data with these moments would have.

    Parameters
    ----------
    levels : mapping of int to LevelArrays
        Of two levels or more.
    variables : Variables
    shapes : mapping of shape to count
        How many of the highest clusters there are of each shape; see `shapes`.
    source : str
        Where the moments come from.

    Raises
    ------
    DataError
        If no such data can have these moments.
    """
    if len(variables.levels) > 2:
        return implied_nested(levels, variables, shapes, source)
    return implied_two_levels(levels, variables, shapes, source)
