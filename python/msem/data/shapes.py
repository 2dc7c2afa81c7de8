"""Sizes of nested clusters: how many of the highest there are of each shape.

The shape of a cluster of units is its size; that of a cluster of clusters are the shapes of these, the smallest first.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.checks import sample_sizes, size_table
from msem.errors import DataError
from msem.model.levels import number_of_levels

Shape: TypeAlias = "float | tuple[Shape, ...]"
Shapes: TypeAlias = Mapping[Any, float]

# Sizes of the clusters of level 2, and for each level above that the cluster that each of those below is in.
Tree: TypeAlias = tuple[NDArray[np.float64], tuple[NDArray[np.int64], ...]]

ROUNDING = 1e-9  # relative difference of numbers of clusters that is none
FEWEST = 2  # clusters of the highest level


def counted(shape: Shape) -> tuple[float, ...]:
    """Units, clusters of level 2 and so on in a cluster of some shape, itself included."""
    if not isinstance(shape, tuple):
        return shape, 1.0
    parts = [counted(part) for part in shape]
    return *map(sum, zip(*parts, strict=True)), 1.0


def total(shapes: Shapes) -> tuple[float, ...]:
    """Units of every level in all clusters."""
    parts = [[count * units for units in counted(shape)] for shape, count in shapes.items()]
    return tuple(float(sum(of_level)) for of_level in zip(*parts, strict=True))


def one_by_one(shapes: Mapping[Any, int]) -> Tree:
    """Clusters of these shapes: sizes of the lowest, and of each level above the cluster that each is in."""
    parents: list[NDArray[np.int64]] = []
    below: list[Any] = [shape for shape, count in shapes.items() for _ in range(count)]
    while below and isinstance(below[0], tuple):
        parents.append(np.repeat(np.arange(len(below)), list(map(len, below))))
        below = [part for shape in below for part in shape]
    return np.array(below, dtype=np.float64), tuple(parents[::-1])


def average_shapes(units: Sequence[float]) -> Shapes:
    """Shapes of clusters that are as equal as can be where only the units of each level are known.

    All clusters of level 2 have the same size; those of higher levels have one of two next numbers of them.
    """
    shapes: Shapes = {float(units[0] / units[1]): float(units[1])}
    for outer in units[2:]:
        shapes = _gathered(shapes, outer)
    return shapes


def _gathered(shapes: Shapes, outer: float) -> Shapes:
    """Clusters of some shapes, in order, dealt out to those of the next level."""
    few = int(sum(shapes.values()) // outer)
    larger = sum(shapes.values()) - few * outer
    out: dict[Any, float] = defaultdict(float)
    left = list(shapes.items())[::-1]
    for members, clusters in ((few, outer - larger), (few + 1, larger)):
        while clusters > 0 and left:
            shape, count = left.pop()
            # all that are left, whatever rounding has done to their number
            alike = min(clusters, count // members) if left else clusters
            rest = count - alike * members
            if alike > 0:
                out[(shape,) * members] += alike
                clusters -= alike
                left += [(shape, rest)] * (rest > 0)
                continue
            parts = [shape] * int(rest)
            while len(parts) < members:
                shape, count = left.pop()
                taken = min(members - len(parts), int(count))
                parts += [shape] * taken
                left += [(shape, count - taken)] * (count > taken)
            out[tuple(parts)] += min(clusters, 1.0)
            clusters -= 1
    return {shape: count for shape, count in out.items() if count > 0}


def read_sizes(given: Any, units: Sequence[float]) -> tuple[Mapping[Any, int] | None, tuple[float, ...]]:
    """Clusters of each shape, None when they are not known, and the units of each level, level 1 first.

    Parameters
    ----------
    given : sequence, mapping, Series or None
        Of two levels, the size of every cluster, or how many have each. Of three, for every highest cluster the sizes
        of the clusters in it; of four, lists of these; how many have each; or a Series of sizes with the ids of all
        clusters as its index, such as ``data.groupby(cluster).size()``.
    units : sequence of float
        nan where they follow from the sizes.

    Raises
    ------
    DataError
        If the sizes are none, or contradict the units.
    """
    if len(units) == 2:
        table, nobs, nclusters = sample_sizes(given, *units)
        return table, (nobs, nclusters)
    shapes = None if given is None else shape_table(given, len(units))
    known = tuple(map(float, units))
    if shapes is not None:
        found = total(shapes)
        if any(not np.isnan(own) and own != other for own, other in zip(known, found, strict=True)):
            raise DataError(
                f"cluster_sizes describe {_texts(found)} units of the levels, level 1 first, but units are "
                f"{_texts(known)}"
            )
        known = found
    if not np.isfinite(known).all():
        raise DataError(
            "units= of every level are needed, level 1 first, such as units=(2000, 300, 80), or cluster_sizes: they "
            "set the precision of the moments"
        )
    if known[-1] < FEWEST:
        raise DataError(f"there is {known[-1]:g} cluster at the highest level: at least two are needed")
    for level, (lower, upper) in enumerate(itertools.pairwise(known), 1):
        if lower < upper:
            raise DataError(f"there are {lower:g} units of level {level} and {upper:g} of level {level + 1}")
        if lower == upper:
            raise DataError(
                f"each of the {upper:g} units of level {level + 1} has one of level {level}, so that the levels cannot "
                "be told apart"
            )
    return shapes, known


def _texts(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)


def shape_table(given: Any, nlevels: int) -> Mapping[Any, int]:
    """How many clusters there are of each shape, in order of the shapes."""
    if isinstance(given, pd.Series):
        if given.index.nlevels != nlevels - 1:
            raise DataError(
                f"cluster_sizes as a Series have the ids of clusters as their index, the highest first: "
                f"{nlevels - 1} of them for {nlevels} levels, such as data.groupby(cluster).size()"
            )
        given = _of_index(given)
    counts = given.values() if isinstance(given, Mapping) else None
    try:
        shapes = [_sorted(shape, nlevels - 2) for shape in given]
        numbers = (
            [1] * len(shapes) if counts is None else list(size_table(dict(enumerate(counts, 1))).values())
        )
    except TypeError:
        nested = "the sizes of the clusters in every highest one, such as [[5, 8, 6], [7, 7]]"
        table = "{(5, 6, 8): 1, (7, 7): 1}"
        if nlevels > 3:
            nested = f"lists in lists, {nlevels - 1} deep, of the sizes of the lowest clusters"
            table = "a mapping from tuples in tuples to numbers"
        raise DataError(
            f"cluster_sizes of {number_of_levels(nlevels)} are {nested}, or how many have each, {table}"
        ) from None
    if len(numbers) < len(shapes) or not shapes:
        raise DataError("cluster_sizes must have a positive number of clusters of each shape")
    out: Counter[Any] = Counter()
    for shape, count in zip(shapes, numbers, strict=True):
        out[shape] += count
    return {shape: out[shape] for shape in sorted(out)}


def _of_index(sizes: pd.Series) -> list[Any]:
    """What is in each of the highest clusters."""
    if sizes.index.nlevels == 1:
        return sizes.tolist()
    return [_of_index(own.droplevel(0)) for _, own in sizes.groupby(level=0, sort=False)]


def _sorted(sizes: Iterable[Any], depth: int) -> tuple[Any, ...]:
    """Shapes of the clusters of a cluster, the smallest first; `depth` levels below it have clusters."""
    if isinstance(sizes, str):
        raise TypeError("a text has no sizes")
    if depth > 1:
        return tuple(sorted(_sorted(one, depth - 1) for one in sizes))
    table = size_table(list(sizes))
    return tuple(size for size, count in table.items() for _ in range(count))


def rounded_shapes(shapes: Shapes, units: Sequence[float]) -> Mapping[Any, int] | None:
    """Shapes of clusters in whole numbers; None if they are not whole, or not those of all units."""
    out = {_whole(shape): round(count) for shape, count in shapes.items()}
    if list(shapes) != list(out) or min(map(_smallest, out)) <= 0:
        return None
    near = np.allclose(list(shapes.values()), list(out.values()), rtol=ROUNDING, atol=0)
    return out if near and np.allclose(total(out), units, rtol=ROUNDING, atol=0) else None


def _whole(shape: Shape) -> Any:
    return tuple(map(_whole, shape)) if isinstance(shape, tuple) else int(shape)


def _smallest(shape: Any) -> float:
    return min(map(_smallest, shape)) if isinstance(shape, tuple) else shape
