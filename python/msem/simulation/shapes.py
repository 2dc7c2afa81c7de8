"""Distributions of the variables of one level: normal, heavy tails, skewness and kurtosis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from msem.data.arrays import LevelArrays, square_root
from msem.errors import DataError, MsemError
from msem.model.partable import ParameterTable

Floats = NDArray[np.float64]
Law: TypeAlias = tuple[Floats, Floats, Floats, Floats, float]  # mean, root, polynomial, scale, df

STARTS = ((1.0, 0.0, 0.0), (0.9, 0.1, 0.03), (0.7, 0.25, 0.08), (0.5, 0.3, 0.15), (1.1, 0.05, -0.05))
STEPS = 60
SOLVED = 1e-10


@dataclass(frozen=True)
class MultivariateT:
    """Heavy tails: a multivariate t distribution with the population's covariance matrix.

    All variables of a unit, or of a cluster, are large together.

    Attributes
    ----------
    df : float
        Degrees of freedom, more than 2; kurtosis is finite above 4.
    """

    df: float

    def __post_init__(self) -> None:
        """Refuse degrees of freedom without a covariance matrix."""
        if isinstance(self.df, bool) or not 2 < self.df < np.inf:
            raise MsemError(f"df must be more than 2, so that there is a covariance matrix, not {self.df!r}")

    def law(self, moments: LevelArrays) -> Law:
        """As compiled code draws it."""
        nothing = np.empty((0, 0))
        return moments.mean, square_root(moments.cov), nothing, np.empty(0), float(self.df)


@dataclass(frozen=True)
class NonNormal:
    """Skewness and kurtosis by variable, by polynomials of normal variables (Vale & Maurelli, 1983).

    Means and covariance matrix stay those of the population.

    Attributes
    ----------
    skewness, kurtosis : float or mapping of variable to float
        Third standardized moment, and fourth less 3, of the part of each variable at the level. Variables that a
        mapping does not name are normal.
    """

    skewness: float | Mapping[str, float] = 0.0
    kurtosis: float | Mapping[str, float] = 0.0

    def law(self, moments: LevelArrays) -> Law:
        """As compiled code draws it.

        Raises
        ------
        DataError
            If no polynomial has this skewness and kurtosis, or none these correlations; naming the variables.
        """
        wanted = [(_of(self.skewness, name), _of(self.kurtosis, name)) for name in moments.names]
        self._require_known(moments.names)
        coefficients = np.array(
            [fleishman(*pair, name) for pair, name in zip(wanted, moments.names, strict=True)]
        ).reshape(-1, 4)
        scale = np.sqrt(np.maximum(moments.cov.diagonal(), 0.0))
        correlation = moments.cov / np.outer(*(np.where(scale > 0, scale, 1.0),) * 2)
        root = square_root(_intermediate(correlation, coefficients, moments.names))
        return moments.mean, root, coefficients, scale, 0.0

    def _require_known(self, names: tuple[str, ...]) -> None:
        for given in (self.skewness, self.kurtosis):
            unknown = [name for name in given if name not in names] if isinstance(given, Mapping) else []
            if unknown:
                raise DataError(
                    f"there is no variable {unknown[0]!r} at this level; it has {', '.join(names)}"
                )


class Normal:
    """Normal variables."""

    def law(self, moments: LevelArrays) -> Law:
        """As compiled code draws it."""
        return moments.mean, square_root(moments.cov), np.empty((0, 0)), np.empty(0), 0.0


Shape = Normal | MultivariateT | NonNormal


def read_distribution(given: Any, table: ParameterTable) -> dict[int, Shape]:
    """The distribution of each level: "normal", a shape for all levels, or a mapping of level to either.

    Raises
    ------
    ValueError
        If it is none of these, or there is no such level.
    """
    levels = range(1, table.nlevels + 1)
    if not isinstance(given, Mapping):
        return dict.fromkeys(levels, _shape(given))
    if len(levels) == 1:
        raise DataError("a model of one level has one distribution: give it without a level")
    named = {}
    for level, one in given.items():
        try:
            number = table.level(level)
        except MsemError as error:
            raise MsemError(f"distribution: {error}") from None
        named[number] = _shape(one)
    return {level: named.get(level, Normal()) for level in levels}


def is_normal(shapes: Mapping[int, Shape]) -> bool:
    """Whether all levels are normal."""
    return all(isinstance(shape, Normal) for shape in shapes.values())


def _shape(given: Any) -> Shape:
    if isinstance(given, str) and given == "normal":
        return Normal()
    if isinstance(given, (Normal, MultivariateT, NonNormal)):
        return given
    raise MsemError(
        "distribution is 'normal', msem.MultivariateT(df), msem.NonNormal(skewness, kurtosis), or a dict of "
        f"levels to one of these, not {given!r}"
    )


def _of(given: float | Mapping[str, float], name: str) -> float:
    return float(given.get(name, 0.0)) if isinstance(given, Mapping) else float(given)


def fleishman(skewness: float, kurtosis: float, name: str = "") -> tuple[float, float, float, float]:
    """Coefficients a, b, c, d of a + b z + c z^2 + d z^3 with mean 0, variance 1 and these moments (Fleishman, 1978).

    Raises
    ------
    DataError
        If there are none, as the kurtosis is too small for the skewness.
    """
    if skewness == 0 and kurtosis == 0:
        return 0.0, 1.0, 0.0, 0.0
    sign = -1.0 if skewness < 0 else 1.0
    for start in STARTS:
        found = _newton(np.array(start), abs(skewness), kurtosis)
        if found is not None and found[0] > 0:
            b, c, d = float(found[0]), sign * float(found[1]), float(found[2])
            return -c, b, c, d
    least = -1.13168 + 1.58837 * skewness**2
    raise DataError(
        f"no polynomial of a normal variable has skewness {skewness:g} and kurtosis {kurtosis:g}"
        f"{f', asked for {name}' if name else ''}: with that skewness kurtosis must be above about {least:.2f}"
    )


def _equations(x: Floats, skewness: float, kurtosis: float) -> Floats:
    b, c, d = x
    return np.array(
        [
            b * b + 6 * b * d + 2 * c * c + 15 * d * d - 1,
            2 * c * (b * b + 24 * b * d + 105 * d * d + 2) - skewness,
            24
            * (
                b * d
                + c * c * (1 + b * b + 28 * b * d)
                + d * d * (12 + 48 * b * d + 141 * c * c + 225 * d * d)
            )
            - kurtosis,
        ]
    )


def _jacobian(x: Floats) -> Floats:
    b, c, d = x
    return np.array(
        [
            [2 * b + 6 * d, 4 * c, 6 * b + 30 * d],
            [
                2 * c * (2 * b + 24 * d),
                2 * (b * b + 24 * b * d + 105 * d * d + 2),
                2 * c * (24 * b + 210 * d),
            ],
            [
                24 * (d + c * c * (2 * b + 28 * d) + 48 * d**3),
                24 * (2 * c * (1 + b * b + 28 * b * d) + 282 * c * d * d),
                24 * (b + 28 * b * c * c + 24 * d + 144 * b * d * d + 282 * c * c * d + 900 * d**3),
            ],
        ]
    )


def _newton(x: Floats, skewness: float, kurtosis: float) -> Floats | None:
    value = _equations(x, skewness, kurtosis)
    for _ in range(STEPS):
        if np.abs(value).max() < SOLVED:
            return x
        step = np.linalg.lstsq(_jacobian(x), -value, rcond=None)[0]
        length = 1.0
        while length > 1e-6:
            trial = x + length * step
            there = _equations(trial, skewness, kurtosis)
            if np.abs(there).max() < np.abs(value).max():
                break
            length /= 2
        else:
            return None
        x, value = trial, there
    return None


def _intermediate(correlation: Floats, coefficients: Floats, names: tuple[str, ...]) -> Floats:
    """Correlations of the normal variables whose polynomials have the correlations wanted."""
    out = np.eye(len(correlation))
    for i, j in zip(*np.tril_indices(len(out), -1), strict=True):
        _, b1, c1, d1 = coefficients[i]
        _, b2, c2, d2 = coefficients[j]
        linear = b1 * b2 + 3 * b1 * d2 + 3 * d1 * b2 + 9 * d1 * d2
        roots = np.roots([6 * d1 * d2, 2 * c1 * c2, linear, -correlation[i, j]])
        real = roots[np.abs(roots.imag) < 1e-9].real if len(roots) else np.zeros(1)
        real = real[np.abs(real) <= 1 + 1e-12]
        if not len(real):
            raise DataError(
                f"{names[i]} and {names[j]} cannot have the correlation {correlation[i, j]:.3f} with this skewness and "
                "kurtosis: make them less extreme"
            )
        out[i, j] = out[j, i] = real[np.argmin(np.abs(real - correlation[i, j]))]
    if len(out) and np.linalg.eigvalsh(out)[0] < -1e-10:
        raise DataError(
            f"{', '.join(names)} cannot have their correlations with this skewness and kurtosis: make them less extreme"
        )
    return out
