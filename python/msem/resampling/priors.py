"""Prior distributions of parameters: as users write them, by default, and their joint density."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from msem.errors import ModelError, MsemError
from msem.estimation.matrices import SYMMETRIC, BlockMap
from msem.estimation.solution import Solution
from msem.model.partable import Parameter, find_parameter

Floats = NDArray[np.float64]

WIDE = 10.0  # standard deviation of loadings, slopes and means in units of the data
DEVIATION = 2.5  # scale of the half-t distribution of standard deviations in these units
DF = 4.0  # its degrees of freedom
SHAPE = 2.0  # of the LKJ distribution of correlations
NUMBERS = {"normal": 2, "student_t": 3, "half_t": 2, "half_normal": 1, "inverse_gamma": 2, "uniform": 2}
OF_DEVIATIONS = ("half_t", "half_normal")
SPELLED = re.compile(r"\s*(\w+)\s*\(([^()]*)\)\s*\Z")


@dataclass(frozen=True, slots=True)
class Prior:
    """A distribution of one parameter.

    Attributes
    ----------
    family : str
        One of `NUMBERS`; "half_t" and "half_normal" are of the standard deviation whose square a variance is.
    numbers : tuple of float
        normal: mean, sd; student_t: df, location, scale; half_t: df, scale; half_normal: scale; inverse_gamma: shape,
        scale; uniform: ends.
    """

    family: str
    numbers: tuple[float, ...]

    def __str__(self) -> str:
        return f"{self.family}({', '.join(f'{x:.4g}' for x in self.numbers)})"

    def log_density(self, x: Floats) -> Floats:
        """Logarithm of the density of the parameter at values of any shape; -inf outside its support."""
        with np.errstate(divide="ignore", invalid="ignore"):
            out = self._log_density(x)
        found: Floats = np.where(np.isnan(out), -np.inf, out)
        return found

    def _log_density(self, x: Floats) -> Floats:
        a = self.numbers
        if self.family == "normal":
            out: Floats = -0.5 * ((x - a[0]) / a[1]) ** 2 - math.log(a[1] * math.sqrt(2 * math.pi))
            return out
        if self.family == "student_t":
            return _student(x, *a)
        if self.family == "uniform":
            return np.where((x >= a[0]) & (x <= a[1]), -math.log(a[1] - a[0]), -np.inf)
        if self.family == "inverse_gamma":
            shape, scale = a
            constant = shape * math.log(scale) - math.lgamma(shape)
            return np.where(x > 0, constant - (shape + 1) * np.log(x) - scale / x, -np.inf)
        deviation = np.sqrt(x)  # density of the variance: that of its root over twice the root
        if self.family == "half_t":
            density = _student(deviation, a[0], 0.0, a[1])
        else:
            density = -0.5 * (deviation / a[0]) ** 2 - math.log(a[0] * math.sqrt(2 * math.pi))
        return np.where(x > 0, density - np.log(deviation), -np.inf)


def _student(x: Floats, df: float, location: float, scale: float) -> Floats:
    constant = (
        math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - 0.5 * math.log(df * math.pi) - math.log(scale)
    )
    out: Floats = constant - (df + 1) / 2 * np.log1p(((x - location) / scale) ** 2 / df)
    return out


def read_prior(text: object, name: str, *, variance: bool) -> Prior:
    """Read a prior as a user writes it, such as ``normal(0, 1)``.

    Raises
    ------
    ValueError
        If it is no known distribution, or has wrong numbers.
    """
    found = SPELLED.match(text) if isinstance(text, str) else None
    family = found.group(1).lower() if found else ""
    if found is None or family not in NUMBERS:
        raise MsemError(
            f"the prior of {name!r} is one of {', '.join(f'{k}(...)' for k in NUMBERS)}, as in 'normal(0, 1)', not "
            f"{text!r}"
        )
    try:
        numbers = tuple(float(x) for x in found.group(2).split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != NUMBERS[family] or not all(map(math.isfinite, numbers)):
        raise MsemError(f"{family}() takes {NUMBERS[family]} numbers; the prior of {name!r} is {text!r}")
    positive = {
        "normal": (1,),
        "student_t": (0, 2),
        "half_t": (0, 1),
        "half_normal": (0,),
        "inverse_gamma": (0, 1),
    }
    if any(numbers[k] <= 0 for k in positive.get(family, ())):
        raise MsemError(
            f"scales, shapes and degrees of freedom are positive; the prior of {name!r} is {text!r}"
        )
    if family == "uniform" and not numbers[0] < numbers[1]:
        raise MsemError(f"uniform() takes its ends, the lower first; the prior of {name!r} is {text!r}")
    if family in OF_DEVIATIONS and not variance:
        raise MsemError(f"{family}() is for standard deviations, and {name!r} is no variance")
    return Prior(family, numbers)


def is_variance(row: Parameter) -> bool:
    """Whether a row is a variance."""
    return row.op == "~~" and row.lhs == row.rhs


@dataclass(frozen=True, eq=False)
class Priors:
    """Independent priors of single parameters, and what makes correlations of residuals those of LKJ(2).

    Attributes
    ----------
    fit : Solution
    single : tuple of Prior or None
        For each parameter; None for covariances, whose prior is joint.
    """

    fit: Solution
    single: tuple[Prior | None, ...]

    @cached_property
    def blocks(self) -> list[tuple[BlockMap, NDArray[np.intp], NDArray[np.intp]]]:
        """Blocks with free covariances, rows and positions of the elements of their residual matrix."""
        out = []
        for block in self.fit.objective.blocks:
            own = np.flatnonzero(block.slot == SYMMETRIC)
            rows = [self.fit.table.rows[block.rows[i]] for i in own]
            if any(r.free and not is_variance(r) for r in rows):
                out.append((block, block.rows[own], own))
        return out

    def log_density(self, thetas: Floats) -> Floats:
        """Logarithm of the joint density, up to a constant, at each of several parameter vectors, shape (R,)."""
        out = np.zeros(len(thetas))
        for k, prior in enumerate(self.single):
            if prior is not None:
                out += prior.log_density(thetas[:, k])
        for block, rows, own in self.blocks:
            out += self._correlations(block, rows, own, thetas)
        return out

    def _correlations(
        self, block: BlockMap, rows: NDArray[np.intp], own: NDArray[np.intp], thetas: Floats
    ) -> Floats:
        """LKJ density of the correlations of the variables with covariances, for the covariances as they are."""
        table = self.fit.table
        chosen = sorted(
            {
                int(k)
                for i, r in zip(own, rows, strict=True)
                if table.rows[r].free and not is_variance(table.rows[r])
                for k in (block.row[i], block.col[i])
            }
        )
        at = {k: n for n, k in enumerate(chosen)}
        matrix = np.zeros((len(thetas), len(chosen), len(chosen)))
        free = 0
        for i, r in zip(own, rows, strict=True):
            a, b = int(block.row[i]), int(block.col[i])
            if a in at and b in at:
                row = table.rows[r]
                value = thetas[:, row.free - 1] if row.free else row.value
                matrix[:, at[a], at[b]] = matrix[:, at[b], at[a]] = value
                free += bool(row.free) and a != b
        variance = np.diagonal(matrix, axis1=1, axis2=2)
        proper = (variance > 0).all(axis=1)
        scale = 1 / np.sqrt(np.where(variance > 0, variance, 1.0))
        correlations = matrix * scale[:, :, None] * scale[:, None, :]
        eigenvalues = np.linalg.eigvalsh(correlations)
        proper &= eigenvalues[:, 0] > 0
        log_det = np.log(np.where(eigenvalues > 0, eigenvalues, 1.0)).sum(axis=1)
        jacobian = np.zeros(len(thetas))  # of each free covariance: 1 / (sd sd)
        for i, r in zip(own, rows, strict=True):
            row = table.rows[r]
            a, b = int(block.row[i]), int(block.col[i])
            if row.free and a != b:
                jacobian += np.log(scale[:, at[a]]) + np.log(scale[:, at[b]])
        return np.where(proper, (SHAPE - 1) * log_det + jacobian, -np.inf)

    def table(self) -> dict[str, str]:
        """Each parameter's prior as text."""
        names = self.fit.table.names()
        return {
            name: f"LKJ({SHAPE:g})" if prior is None else str(prior)
            for name, prior in zip(names, self.single, strict=True)
        }


def priors_of(fit: Solution, given: Mapping[str, str] | None) -> Priors:
    """The priors of a model: those that are given, and the defaults of the others.

    Raises
    ------
    ModelError
        If a parameter is not in the model.
    ValueError
        If a prior cannot be read.
    """
    table = fit.table
    rows: dict[int, Parameter] = {}
    for row in table.rows:
        if row.free:
            rows.setdefault(row.free - 1, row)
    single: list[Prior | None] = [_default(fit, rows[k]) for k in range(table.npar)]
    if given is not None and not isinstance(given, Mapping):
        raise MsemError(
            f"priors is a dict such as {{'fb=~y2': 'normal(1, 0.5)'}}, not a {type(given).__name__}"
        )
    for name, text in (given or {}).items():
        k = find_parameter(table, name)
        if single[k] is None:
            raise ModelError(
                f"{name!r} is a covariance, whose prior is joint with its variances (LKJ({SHAPE:g}) of correlations): "
                "it cannot have one of its own"
            )
        single[k] = read_prior(text, name, variance=is_variance(rows[k]))
    return Priors(fit, tuple(single))


def _default(fit: Solution, row: Parameter) -> Prior | None:
    """normal(0, 10) of loadings, slopes and means and half-t of standard deviations, in units of the variables."""
    if is_variance(row):
        return Prior("half_t", (DF, DEVIATION * _unit(fit, row.lhs, row)))
    if row.op == "~~":
        return None
    if row.op == "~1":
        return Prior("normal", (_centre(fit, row), WIDE * _unit(fit, row.lhs, row)))
    y, x = (row.rhs, row.lhs) if row.op == "=~" else (row.lhs, row.rhs)
    return Prior("normal", (0.0, WIDE * _unit(fit, y, row) / _unit(fit, x, row)))


def _unit(fit: Solution, name: str, row: Parameter) -> float:
    """Standard deviation of an observed variable over both levels, of a latent one as implied at the estimates."""
    total = fit.sample.groups[row.group - 1].total_variance
    implied = fit.objective.variances(fit.theta)[row.level, row.group]
    variance = total.get(name, implied.get(name, 0.0))
    return math.sqrt(variance) if variance > 0 else 1.0


def _centre(fit: Solution, row: Parameter) -> float:
    levels = fit.sample.groups[row.group - 1].levels
    moments = levels.get(row.level)
    if moments is None or row.lhs not in moments.at:
        return 0.0
    return float(moments.mean[moments.at[row.lhs]])
