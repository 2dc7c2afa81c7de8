"""How loadings are rotated, and the blocks of factors that are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from msem.errors import ArgumentError, ModelError, MsemError
from msem.model import references

METHODS = {
    "geomin": "Geomin",
    "oblimin": "Oblimin",
    "quartimin": "Quartimin",
    "varimax": "Varimax",
    "quartimax": "Quartimax",
    "crawford_ferguson": "Crawford-Ferguson",
    "target": "Target",
}
OTHER_NAMES = {"cf": "crawford_ferguson", "pst": "target", "direct_oblimin": "oblimin"}
ORTHOGONAL = ("varimax", "quartimax")
FAMILY = ("quartimax", "varimax", "equamax", "parsimax", "facparsim")  # of Crawford and Ferguson, by name
STARTS = 30
ARGUMENTS = ("epsilon", "gamma", "kappa", "orthogonal", "kaiser", "std_ov", "starts", "seed", "target")
LAVAAN_ARGUMENTS = {
    "geomin_epsilon": "epsilon",
    "oblimin_gamma": "gamma",
    "cf_gamma": "kappa",
    "rstarts": "starts",
    "row_weights": "kaiser",
}


@dataclass(frozen=True, slots=True)
class Rotation:
    """How loadings are rotated.

    Attributes
    ----------
    method : str
        One of `METHODS`.
    orthogonal : bool
        Whether the factors stay uncorrelated.
    epsilon : float
        Of geomin: what is added to squared loadings.
    gamma : float
        Of oblimin: 0 is quartimin.
    kappa : float or str
        Of the family of Crawford and Ferguson: a number, or the name of a member.
    kaiser : bool
        Rows have unit length while they are rotated.
    std_ov : bool
        Loadings are rotated on the scale of standardized indicators.
    starts, seed : int
        Starts of the search for the lowest minimum, all but the first random.
    target : tuple of (block, rows)
        Of target rotation: rows of numbers by block; nan where nothing is wanted.
    """

    method: str = "geomin"
    orthogonal: bool = False
    epsilon: float = 0.001
    gamma: float = 0.0
    kappa: float | str = 0.0
    kaiser: bool = False
    std_ov: bool = True
    starts: int = STARTS
    seed: int = 1
    target: tuple[tuple[str, tuple[tuple[float, ...], ...]], ...] = ()

    def quartic(self, rows: int, cols: int) -> tuple[float, float, float, float]:
        """The linear map of squared loadings that the criterion is the quadratic form of; see `RotationCriterion`."""
        if self.method == "varimax":
            return -1.0, 1.0 / rows, 0.0, 0.0
        if self.method in ("oblimin", "quartimin", "quartimax"):
            share = self.gamma / rows
            return -1.0, share, 1.0, -share
        members = dict(
            zip(FAMILY, (0.0, 1 / rows, cols / (2 * rows), (cols - 1) / (rows + cols - 2), 1.0), strict=True)
        )
        kappa = members[self.kappa] if isinstance(self.kappa, str) else self.kappa
        return -1.0, kappa, 1.0 - kappa, 0.0

    def target_of(self, block: ExploratoryBlock) -> tuple[tuple[float, ...], ...]:
        """The target of a block.

        Raises
        ------
        ModelError
            If there is none, or not of the shape of the block.
        """
        targets = dict(self.target)
        label = block.label if block.label in targets else "" if "" in targets else None
        if label is None:
            raise ModelError(
                f"rotation='target' has no target for the block {block.label!r}: give "
                f"rotation_args={{'target': {{{block.label!r}: ...}}}}, with a row for each indicator"
            )
        rows = targets[label]
        shape = len(block.indicators), len(block.factors)
        if len(rows) != shape[0] or any(len(row) != shape[1] for row in rows):
            raise ModelError(
                f"the target of the block {block.label!r} must have {shape[0]} rows ({', '.join(block.indicators)}) "
                f"and {shape[1]} columns ({', '.join(block.factors)})"
            )
        return rows

    @property
    def words(self) -> str:
        """The method as a summary names it."""
        numbers = {
            "geomin": f", epsilon {self.epsilon:g}",
            "oblimin": f", gamma {self.gamma:g}",
            "crawford_ferguson": f", kappa {self.kappa if isinstance(self.kappa, str) else format(self.kappa, 'g')}",
        }
        kind = "orthogonal" if self.orthogonal else "oblique"
        return (
            f"{METHODS[self.method]}, {kind}{numbers.get(self.method, '')}{', Kaiser' if self.kaiser else ''}"
        )


GEOMIN = Rotation()


def rotation_of(method: Any, arguments: Any = None) -> Rotation:
    """Read a rotation as users give it.

    Raises
    ------
    ValueError
        If the method or an argument is unknown, or of the wrong kind.
    """
    plain = str(method).lower().replace(".", "_").replace("-", "_").replace(" ", "_")
    plain = OTHER_NAMES.get(plain, plain)
    member = plain.removeprefix("cf_")
    given: dict[str, Any] = {}
    if plain.startswith("cf_") and member in FAMILY:
        plain, given = "crawford_ferguson", {"kappa": member}
    if plain not in METHODS:
        raise MsemError(f"rotation must be one of {', '.join(map(repr, METHODS))}, not {method!r}")
    given |= _arguments({} if arguments is None else arguments)
    _refuse_useless(plain, given)
    orthogonal = given.pop("orthogonal", plain in ORTHOGONAL)
    if plain in ORTHOGONAL and not orthogonal:
        oblique = "oblimin" if plain == "quartimax" else "crawford_ferguson"
        raise MsemError(
            f"rotation={plain!r} is orthogonal: for correlated factors take rotation={oblique!r}"
            + (", rotation_args={'kappa': 'varimax'}" if plain == "varimax" else "")
        )
    if plain == "target" and "target" not in given:
        raise MsemError(
            "rotation='target' needs rotation_args={'target': ...}: rows of loadings, nan where nothing is wanted"
        )
    kaiser = given.pop("kaiser", plain == "varimax")
    return Rotation(plain, orthogonal, kaiser=kaiser, **given)


def _refuse_useless(method: str, given: Mapping[str, Any]) -> None:
    owners = {"epsilon": "geomin", "gamma": "oblimin", "kappa": "crawford_ferguson", "target": "target"}
    for name, owner in owners.items():
        if name in given and method != owner:
            raise MsemError(f"{name!r} has no effect with rotation={method!r}: it is of {owner!r}")


def rotation_arguments(given: Any) -> tuple[tuple[str, Any], ...]:
    """Read the arguments of a rotation: pairs of name and value.

    Raises
    ------
    ValueError
        If there is none of a name, or a value is of the wrong kind.
    """
    return tuple(_arguments(given).items())


def _arguments(given: Any) -> dict[str, Any]:
    if isinstance(given, tuple | list) and all(
        isinstance(one, tuple | list) and len(one) == 2 for one in given
    ):
        given = dict(given)  # read already, perhaps kept in a file
    if not isinstance(given, Mapping):
        raise ArgumentError(
            f"rotation_args is a dict such as {{'epsilon': 0.01}}, not a {type(given).__name__}"
        )
    out: dict[str, Any] = {}
    for name, value in given.items():
        plain = str(name).lower().replace(".", "_")
        plain = LAVAAN_ARGUMENTS.get(plain, plain)
        if plain not in ARGUMENTS:
            raise ArgumentError(f"rotation_args has no {name!r}; it has: {', '.join(ARGUMENTS)}")
        out[plain] = _READERS[plain](plain, value)
    return out


def _positive(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise MsemError(f"{name!r} in rotation_args must be a positive number, not {value!r}")
    return float(value)


def _finite(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise MsemError(f"{name!r} in rotation_args must be a number, not {value!r}")
    return float(value)


def _kappa(name: str, value: Any) -> float | str:
    if isinstance(value, str) and value.lower() in FAMILY:
        return value.lower()
    if isinstance(value, str) or not 0 <= _finite(name, value) <= 1:
        raise MsemError(
            f"'kappa' in rotation_args is a number from 0 to 1 or one of {', '.join(map(repr, FAMILY))}, not {value!r}"
        )
    return float(value)


def _flag(name: str, value: Any) -> bool:
    if name == "kaiser" and isinstance(value, str) and value.lower() in ("kaiser", "none"):
        return value.lower() == "kaiser"
    if not isinstance(value, bool):
        raise MsemError(f"{name!r} in rotation_args must be True or False, not {value!r}")
    return value


def _count(name: str, value: Any) -> int:
    least = 0 if name == "seed" else 1
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise MsemError(
            f"{name!r} in rotation_args must be a whole number of at least {least}, not {value!r}"
        )
    return value


def _targets(name: str, value: Any) -> tuple[tuple[str, tuple[tuple[float, ...], ...]], ...]:
    """Targets by block; a single one, without a label, is that of every block."""
    pairs = isinstance(value, tuple | list) and all(
        len(one) == 2 and isinstance(one[0], str) for one in value
    )
    by_block = dict(value) if isinstance(value, Mapping) or pairs else {"": value}
    out = []
    for label, rows in by_block.items():
        values = rows.to_numpy() if hasattr(rows, "to_numpy") else rows
        try:
            read = tuple(tuple(math.nan if x is None else float(x) for x in row) for row in values)
        except (TypeError, ValueError):
            raise MsemError(
                "a target is a table of numbers with a row for each indicator and a column for each factor, nan "
                "where nothing is wanted"
            ) from None
        if any(math.isinf(x) for row in read for x in row) or all(math.isnan(x) for row in read for x in row):
            raise MsemError("a target has finite numbers, and at least one")
        out.append((str(label), read))
    return tuple(out)


_READERS = {
    "epsilon": _positive,
    "gamma": _finite,
    "kappa": _kappa,
    "orthogonal": _flag,
    "kaiser": _flag,
    "std_ov": _flag,
    "starts": _count,
    "seed": _count,
    "target": _targets,
}


@dataclass(frozen=True, slots=True)
class ExploratoryBlock:
    """Factors of one level of one group whose loadings are rotated together.

    Attributes
    ----------
    label : str
        As written in ``efa("label")``.
    level, group : int
    factors, indicators : tuple of str
    """

    label: str
    level: int
    group: int
    factors: tuple[str, ...]
    indicators: tuple[str, ...]


class Row(references.Row, Protocol):
    """What is asked of a row of a table, open or closed."""

    @property
    def efa(self) -> str:
        """Label of the block."""


def exploratory_blocks(rows: Iterable[Row]) -> tuple[ExploratoryBlock, ...]:
    """The exploratory blocks that rows of a table make, in their order."""
    factors: dict[tuple[str, int, int], dict[str, None]] = {}
    indicators: dict[tuple[str, int, int], dict[str, None]] = {}
    for row in rows:
        if row.efa and row.op == "=~":
            key = row.efa, row.level, row.group
            factors.setdefault(key, {})[row.lhs] = None
            indicators.setdefault(key, {})[row.rhs] = None
    return tuple(ExploratoryBlock(*key, tuple(factors[key]), tuple(indicators[key])) for key in factors)


def most_factors(indicators: int) -> int:
    """How many factors can be identified: those that leave (p - m)^2 >= p + m (Ledermann, 1937)."""
    return max((m for m in range(1, indicators) if (indicators - m) ** 2 >= indicators + m), default=0)


def unrotated_rows(rows: Sequence[Any], pivots: Mapping[ExploratoryBlock, Sequence[str]]) -> list[Any]:
    """Rows of a table with what rotation leaves open fixed, renumbered.

    Factors are uncorrelated, and factor k has no loading on the first k - 1 pivots of its block.

    Parameters
    ----------
    rows : sequence of Parameter
    pivots : mapping
        As many indicators of each block as it has factors.
    """
    zero = set()
    for block, first in pivots.items():
        for k, factor in enumerate(block.factors):
            zero |= {(factor, "=~", name, block.level, block.group) for name in first[:k]}
            zero |= {(factor, "~~", other, block.level, block.group) for other in block.factors[:k]}
            zero |= {(other, "~~", factor, block.level, block.group) for other in block.factors[:k]}
    numbers: dict[int, int] = {}
    out = []
    for row in rows:
        if (row.lhs, row.op, row.rhs, row.level, row.group) in zero:
            out.append(row._replace(free=0, value=0.0, start=None, label=""))
        elif row.free:
            out.append(row._replace(free=numbers.setdefault(row.free, len(numbers) + 1)))
        else:
            out.append(row)
    return out
