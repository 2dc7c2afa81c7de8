"""Files of level-specific moments: JSON, of this version and of earlier ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.arrays import LevelMoment, unvech, vech
from msem.data.storage import DIGEST, Fields, Format, signed, verified, write_json
from msem.errors import DataError, DataWarning, warn
from msem.model.levels import DEEPEST

Floats = NDArray[np.float64]
Made = TypeVar("Made")

FORMAT = Format("msem level moments", 3, "a file of level moments written by msem")
OF_TWO_LEVELS = 2  # the version before
WITHOUT_DIGEST = "msem level moments 1"  # the format before that

NUMBERS = ("units", "cluster_sizes", "levels", "llf", "acov")
FLAGS = ("converged", "in_cone", "means_given", "incomplete", "weighted", "robust")
UNSAID = {"converged": True, "means_given": True}  # where a file does not have them; others are False
LEVELS = ("within", "between")  # that files of two levels had by name


def write_moments(
    path: str | Path,
    levels: Sequence[LevelMoment],
    units: Sequence[float],
    cluster_sizes: Mapping[Any, int] | None,
    llf: float,
    acov: Floats,
    flags: Mapping[str, bool],
) -> None:
    """Write fields of `LevelMoments`, `acov` as the lower triangle; a file that is there is replaced at once or not."""
    sizes = None if cluster_sizes is None else [[shape, int(count)] for shape, count in cluster_sizes.items()]
    content = {
        "units": list(units),
        "cluster_sizes": sizes,
        "levels": [
            {
                "names": list(one.cov.columns),
                "cov": vech(one.cov.to_numpy()).tolist(),
                "mean": one.mean.tolist(),
            }
            for one in levels
        ],
        "llf": None if np.isnan(llf) else llf,
        **flags,
        "acov": acov.tolist(),
    }
    write_json(path, signed(FORMAT.header | content))


def read_moments(path: str | Path, make: Callable[..., Made]) -> Made:
    """What `make` makes of the fields of `LevelMoments` in a file; nothing in it is executed.

    Raises
    ------
    DataError
        If the file is not one, is damaged or cut short, comes from a later version, or no moments can be made of it.

    Warns
    -----
    DataWarning
        If it comes from a version that wrote no digest.
    """
    given = FORMAT.read(path)
    unsigned = given.get("format") == WITHOUT_DIGEST and DIGEST not in given
    earlier = unsigned or (given.get("format") == FORMAT.name and given.get("version") == OF_TWO_LEVELS)
    if not earlier:
        FORMAT.require(path, given)
    content = given | FORMAT.header if unsigned else verified(path, given)
    try:
        found = make(**_fields(_of_two_levels(content) if earlier else content))
    except ValueError as error:
        raise FORMAT.contradiction(path, error) from error
    if unsigned:
        warn(
            f"{path} has no digest, as it was written by an earlier msem, so that damage to its numbers would not "
            "be noticed: save it again",
            DataWarning,
        )
    return found


def _of_two_levels(content: Mapping[str, Any]) -> dict[str, Any]:
    """What is in a file of the time when there were two levels, as it is written now."""
    old = (*(f"{level}{part}" for part in ("", "_mean") for level in LEVELS), "nobs", "nclusters")
    kept = ("cluster_sizes", "llf", "acov")
    given = Fields(content, (*FORMAT.header, *old, *kept), FLAGS)
    levels = []
    for level in LEVELS:
        Fields(content[level], ("names", "cov"))
        levels.append({**content[level], "mean": content[f"{level}_mean"]})
    out = {name: value for name, value in content.items() if name not in old}
    return out | {"levels": levels, "units": [given.number("nobs"), given.number("nclusters")]}


def _fields(content: Mapping[str, Any]) -> dict[str, Any]:
    given = Fields(content, (*FORMAT.header, *NUMBERS), FLAGS)
    stored = content["levels"]
    if not isinstance(stored, list) or not 2 <= len(stored) <= DEEPEST:
        raise DataError(f"'levels' is not a list of 2 to {DEEPEST} levels")
    levels = [_stored_level(one) for one in stored]
    means = len({name for one in levels for name in one.mean.index})
    count = sum(len(one.cov) * (len(one.cov) + 1) // 2 for one in levels) + means
    return {
        "levels": levels,
        "units": given.numbers("units", len(levels)).tolist(),
        "cluster_sizes": None if content["cluster_sizes"] is None else _stored_sizes(given),
        "llf": np.nan if content["llf"] is None else given.number("llf"),
        "acov": given.numbers("acov", count * (count + 1) // 2),
        **{name: given.flag(name, UNSAID.get(name, False)) for name in FLAGS},
    }


def _stored_level(stored: Any) -> LevelMoment:
    given = Fields(stored, ("names", "cov", "mean"))
    names = given.texts("names")
    p = len(names)
    cov = unvech(given.numbers("cov", p * (p + 1) // 2), p)
    mean = given.numbers("mean", p)
    return LevelMoment(pd.DataFrame(cov, index=names, columns=names), pd.Series(mean, names))


def _key(shape: Any) -> Any:
    return tuple(map(_key, shape)) if isinstance(shape, list) else shape


def _lowest(shape: Any) -> list[Any]:
    """Sizes of the lowest clusters, 0 where there are none."""
    if not isinstance(shape, tuple):
        return [shape]
    return [size for part in shape for size in _lowest(part)] or [0]


def _stored_sizes(given: Fields) -> dict[Any, int]:
    """Number of clusters of each shape, of which each is there once."""
    stored = given.content["cluster_sizes"]
    table: dict[Any, int] = {}
    for pair in stored if isinstance(stored, list) else [None]:
        if not isinstance(pair, list) or len(pair) != 2:
            raise DataError("'cluster_sizes' is not a list of pairs")
        shape, count = pair
        key = _key(shape)
        whole = all(type(n) is int and n > 0 for n in [*_lowest(key), count])
        if not whole or key in table:
            raise DataError("'cluster_sizes' are not whole sizes, each once, with their numbers of clusters")
        table[key] = count
    return table
