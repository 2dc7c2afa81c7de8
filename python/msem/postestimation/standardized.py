"""Standardized estimates and explained variance, in standard deviations of each level or of both together."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.estimation.matrices import Model, Numbers
from msem.estimation.solution import Estimated, free_vcov
from msem.model.functions import Functions, defined_functions
from msem.model.levels import Level, rows_at
from msem.model.partable import Parameter, ParameterTable
from msem.output.tables import estimates_frame, row_columns
from msem.postestimation.constraints import definition_rows
from msem.postestimation.delta import Quantity, chained, delta_method
from msem.postestimation.ram import Block, divide, path_values, root, structures
from msem.settings import require_choice

Floats = NDArray[np.float64]

Variances = Mapping[Block, Mapping[str, float]]
Kind = Literal["std_all", "std_lv", "std_nox"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_FACTORS = ("=~", "~", "~1", "~~", "|")


class Standardized(NamedTuple):
    """Estimates in standard deviation units, one number per row of the parameter table.

    Attributes
    ----------
    std_lv : array of shape (rows,)
        Latent variables have variance 1.
    std_all : array of shape (rows,)
        All variables have variance 1.
    std_nox : array of shape (rows,)
        All variables except observed covariates have variance 1.
    """

    std_lv: Floats
    std_all: Floats
    std_nox: Floats


@dataclass(frozen=True, eq=False)
class Scales:
    """Where the standard deviations stand that the rows of a table are multiplied and divided by.

    They are one vector: 1, nan, the total and then the residual standard deviation of each variable of each block.

    Attributes
    ----------
    keys : tuple of (level, group, name)
    factors : ndarray of int, shape (3, rows)
        Position of the standard deviation that a row is multiplied by, and of two that it is divided by.
    residual : ndarray of int, shape (keys,)
        Row of the residual variance of each variable; the number of rows where there is none.
    kept : ndarray of bool, shape (keys,)
        Variables that keep their own units.
    summed : ndarray, shape (keys, keys)
        Which variances are added for the variance of each.
    """

    keys: tuple[tuple[int, int, str], ...]
    factors: NDArray[np.intp]
    residual: NDArray[np.intp]
    kept: NDArray[np.bool_]
    summed: Floats

    def deviations(self, variances: Numbers, values: Numbers) -> Numbers:
        """Standard deviations as one vector.

        Parameters
        ----------
        variances : ndarray, shape (..., keys)
            Total variances.
        values : ndarray, shape (..., rows)
            Value of every row of the table.
        """
        none = np.zeros((*values.shape[:-1], 1), values.dtype)
        residual = np.concatenate([values, none], axis=-1)[..., self.residual]
        known = (np.where(np.isnan(v), 0.0, v) for v in (variances, residual))
        both = [np.where(self.kept, 1.0, v @ self.summed) for v in known]
        return np.concatenate([none + 1, none + math.nan, *map(root, both)], axis=-1)

    def apply(self, values: Numbers, deviations: Numbers) -> Numbers:
        """Rows times and over their standard deviations."""
        top, one, other = (deviations[..., at] for at in self.factors)
        with np.errstate(invalid="ignore"):  # a negative variance has no standard deviation
            scaled: Numbers = values * top / (one * other)
        return scaled


def scales(table: ParameterTable, kind: Kind, *, total: bool = False) -> Scales:
    """Standard deviations that standardize the rows of a table.

    Parameters
    ----------
    table : ParameterTable
    kind : {"std_all", "std_lv", "std_nox"}
    total : bool
        Add the variances of variables of the same name over the levels of a group.
    """
    names = ((r.level, r.group, v) for r in table.rows for v in _variables(r))
    keys = tuple(dict.fromkeys(names))
    at = {key: k for k, key in enumerate(keys)}
    factors = [_factor(r, at) if r.op in _FACTORS else (1, 0, 0) for r in table.rows]
    variance = {(r.level, r.group, r.lhs): i for i, r in enumerate(table.rows) if _is_variance(r)}
    kept = {(*block, name) for block in _blocks(table) for name in _kept(table, kind, *block)}
    summed = [[a[1:] == b[1:] and (total or a == b) for a in keys] for b in keys]
    return Scales(
        keys,
        np.array(factors, dtype=np.intp).reshape(-1, 3).T,
        np.array([variance.get(key, len(table.rows)) for key in keys], dtype=np.intp),
        np.array([key in kept for key in keys], dtype=bool),
        np.array(summed, dtype=np.float64).reshape(len(keys), len(keys)),
    )


def standardize(table: ParameterTable, est: Floats, variances: Variances) -> Standardized:
    """Standardize estimates level by level.

    Loadings and regressions are multiplied by the standard deviation of the cause and divided by that of
    the outcome, intercepts divided by the standard deviation, variances by the total model-implied variance
    of their own level and group (Bollen, 1989, pp. 123-126). Covariances are divided by the square roots of
    both residual variances: they become (residual) correlations, as in lavaan. A path with a random slope has the mean
    of the slope, and variances within clusters are averages over the clusters.

    Parameters
    ----------
    table : ParameterTable
        Rows to standardize.
    est : array of shape (rows,)
        Value of every row, fixed ones included.
    variances : mapping of (level, group) to mapping of name to float
        Model-implied total variances of the observed and latent variables of each block.

    Returns
    -------
    Standardized
        nan where a variance that is needed is not positive or not given.
    """

    def scaled(kind: Kind) -> Floats:
        units = scales(table, kind)
        total = np.array([variances.get(key[:2], {}).get(key[2], math.nan) for key in units.keys])
        return units.apply(est, units.deviations(total, est))

    return Standardized(std_lv=scaled("std_lv"), std_all=scaled("std_all"), std_nox=scaled("std_nox"))


def standardized_quantity(model: Model, kind: Kind, *, total: bool = False) -> Quantity:
    """Standardized value of every row of the table as a function of theta.

    Parameters
    ----------
    model : Model
    kind : {"std_all", "std_lv", "std_nox"}
    total : bool
        In units of the total standard deviation, the root of within plus between variance, of variables that have
        the same name at both levels; else in those of the level.
    """
    units = scales(model.table, kind, total=total)

    def quantity(theta: Numbers) -> Numbers:
        values = path_values(model, theta)
        return units.apply(values, units.deviations(implied_variances(model, units, theta), values))

    return quantity


def implied_variances(model: Model, units: Scales, theta: Numbers) -> Numbers:
    """Model-implied variance of each key of the scales, shape (..., keys)."""
    blocks = structures(model, theta)
    found = [
        blocks[level, group].variances[..., blocks[level, group].at[v]] for level, group, v in units.keys
    ]
    return np.stack(found, axis=-1)


def r_squared(table: ParameterTable, est: Floats, variances: Variances) -> pd.DataFrame:
    """Explained variance of every endogenous variable within its level.

    Parameters
    ----------
    table, est, variances
        As for `standardize`.

    Returns
    -------
    pandas.DataFrame
        Columns `lhs`, `level`, `group` and `r2` = 1 - residual / total variance, which is nan when the
        residual variance is negative or the total variance not positive.
    """
    outcomes = explained_outcomes(table)
    records = []
    for k in outcomes:
        row = table.rows[k]
        total = variances.get((row.level, row.group), {}).get(row.lhs, math.nan)
        proper = est[k] >= 0 and total > 0
        records.append((row.lhs, row.level, row.group, 1 - est[k] / total if proper else math.nan))
    frame = pd.DataFrame(records, columns=["lhs", "level", "group", "r2"])
    return frame.astype({"level": int, "group": int, "r2": float})


def explained_outcomes(table: ParameterTable) -> list[int]:
    """Rows of the residual variances of endogenous variables."""
    caused = {(r.level, r.group, r.lhs if r.op == "~" else r.rhs) for r in table.rows if r.op in ("~", "=~")}
    blocks = _blocks(table).values()
    ordered = [k for where in blocks for k in where]
    return [k for k in ordered if _is_variance(r := table.rows[k]) and (r.level, r.group, r.lhs) in caused]


def explained_quantity(model: Model) -> Quantity:
    """Explained variances of `explained_outcomes` as a function of theta."""
    chosen = [model.table.rows[k] for k in explained_outcomes(model.table)]

    def quantity(theta: Numbers) -> Numbers:
        blocks = structures(model, theta)
        parts = [
            ((own := blocks[r.level, r.group]).residual[..., at := own.at[r.lhs], at], own.variances[..., at])
            for r in chosen
        ]
        if not parts:
            return theta[..., :0]
        residual, total = (np.stack(part, axis=-1) for part in zip(*parts, strict=True))
        return 1 - divide(np.where(residual.real >= 0, residual, math.nan), total)

    return quantity


def _blocks(table: ParameterTable) -> dict[Block, list[int]]:
    """Positions of the rows of each (level, group)."""
    found: dict[Block, list[int]] = {}
    for k, row in enumerate(table.rows):
        if row.op in _FACTORS:
            found.setdefault((row.level, row.group), []).append(k)
    return found


def _variables(row: Parameter) -> tuple[str, ...]:
    """Variables that a row is about."""
    if row.op not in _FACTORS:
        return ()
    return (row.lhs,) if row.op in ("~1", "|") else (row.lhs, row.rhs)


def _is_variance(row: Parameter) -> bool:
    return row.op == "~~" and row.lhs == row.rhs


def _kept(table: ParameterTable, kind: Kind, level: int, group: int) -> Collection[str]:
    """Variables left in their own units."""
    if kind == "std_lv":
        return table.observed(level, group)
    return table.covariates(level, group) if kind == "std_nox" else ()


def _factor(row: Parameter, at: Mapping[tuple[int, int, str], int]) -> Sequence[int]:
    """Positions of the standard deviations of a row: one to multiply by, two to divide by."""

    def total(name: str) -> int:
        return 2 + at[row.level, row.group, name]

    def residual(name: str) -> int:
        return total(name) + len(at)

    if row.op == "~~" and row.lhs != row.rhs:
        return 0, residual(row.lhs), residual(row.rhs)
    if row.op == "~~":
        return 0, total(row.lhs), total(row.lhs)
    if row.op in ("~1", "|"):
        return 0, total(row.lhs), 0
    cause, outcome = (row.lhs, row.rhs) if row.op == "=~" else (row.rhs, row.lhs)
    return total(cause), total(outcome), 0


class Definitions(NamedTuple):
    """Defined parameters: their rows, and the functions of all rows of the parameter table."""

    rows: tuple[Parameter, ...] = ()
    functions: Functions | None = None


NONE = Definitions()


def standardized_frame(
    model: Model,
    theta: Floats,
    vcov: Floats,
    kind: Kind,
    *,
    total: bool = False,
    ci_level: float = 0.95,
    defined: Definitions = NONE,
    transformed: bool = False,
) -> pd.DataFrame:
    """Tabulate the standardized solution.

    Parameters
    ----------
    model : Model
    theta, vcov : ndarray, shapes (npar,) and (npar, npar)
        Estimates and their sampling covariance.
    kind : {"std_all", "std_lv", "std_nox"}
    total : bool
        By total standard deviations; see `standardized_quantity`.
    ci_level : float
        Coverage of the intervals.
    defined : Definitions
        Defined parameters, which are evaluated at the standardized values.
    transformed : bool
        Intervals of correlations and of loadings between -1 and 1 by Fisher's z, of shares of variance by the logit.

    Returns
    -------
    DataFrame
        Columns of `estimates_frame`, with est_std for est.
    """
    found = delta_method(standardized_quantity(model, kind, total=total), theta, vcov)
    if defined.functions is not None:
        values = defined.functions.values(found.est)
        found = chained(found, values, defined.functions.jacobian(found.est))
    rows = (*model.table.rows, *defined.rows)
    scales = np.array(
        [_interval_scale(r, x) if transformed else "identity" for r, x in zip(rows, found.est, strict=True)]
    )
    frame = estimates_frame(rows, found.est, found.se, ci_level=ci_level, scales=scales)
    return frame.rename(columns={"est": "est_std"})


def _interval_scale(row: Parameter, value: float) -> str:
    """On which scale the interval of a standardized value is symmetric."""
    if _is_variance(row):
        return "logit" if 0 < value < 1 else "identity"
    return "fisher" if row.op in ("=~", "~~") and abs(value) < 1 else "identity"


def rsquare_frame(model: Model, theta: Floats, vcov: Floats, *, ci_level: float = 0.95) -> pd.DataFrame:
    """Tabulate explained variances: columns lhs, level, group, r2, se, ci_lower, ci_upper.

    Parameters
    ----------
    model, theta, vcov
        As for `standardized_frame`.
    ci_level : float
        Coverage of the intervals, which are Wald intervals of the logit.
    """
    rows = [model.table.rows[k] for k in explained_outcomes(model.table)]
    found = delta_method(explained_quantity(model), theta, vcov)
    lower, upper = found.interval(ci_level, "logit")
    names = row_columns(rows, ("lhs", "level", "group"))
    numbers = {"r2": found.est, "se": found.se, "ci_lower": lower, "ci_upper": upper}
    return pd.DataFrame(names | numbers).astype({"level": int, "group": int})


def standardized(
    fit: Estimated,
    kind: Kind = "std_all",
    *,
    total: bool = False,
    level: Level | None = None,
    ci_level: float = 0.95,
) -> pd.DataFrame:
    """Standardized solution with delta-method standard errors.

    Each level is standardized by its own variances. Loadings and regressions are in standard deviations of the
    outcome per standard deviation of the cause, variances are shares of the total variance, covariances of
    residuals are correlations.

    Parameters
    ----------
    kind : {"std_all", "std_lv", "std_nox"}
        Which variables have variance 1: all, the latent ones, or all but observed covariates.
    total : bool
        Divide by total standard deviations instead of those of the level: the root of the sum of the within and
        the between variance of variables that have the same name at both levels. Residual covariances are over
        the roots of summed residual variances.
    level : {1, 2, "within", "between"}, optional
        Rows of this level only.
    ci_level : float
        Coverage of the (Wald) intervals.

    Returns
    -------
    DataFrame
        Columns lhs, op, rhs, level, group, label, est_std, se, z, pvalue, ci_lower, ci_upper, one row for each
        row of `estimates`; defined parameters are evaluated at the standardized values. The standard error is 0
        for what is fixed by the scale; nan where a variance is not positive.
    """
    require_choice("kind", kind, KINDS)
    functions = defined_functions(fit.table, "rows") if fit.table.defined else None
    frame = standardized_frame(
        fit.model,
        fit.theta,
        free_vcov(fit),
        kind,
        total=total,
        ci_level=ci_level,
        defined=Definitions(definition_rows(fit), functions),
        transformed=fit.options.ci == "transformed",
    )
    return rows_at(frame, level, fit.table)


def rsquare(fit: Estimated, *, level: Level | None = None, ci_level: float = 0.95) -> pd.DataFrame:
    """Explained variance of every endogenous variable within its level.

    Parameters
    ----------
    level : {1, 2, "within", "between"}, optional
        Rows of this level only.
    ci_level : float
        Coverage of the intervals, which are Wald intervals of the logit.

    Returns
    -------
    DataFrame
        Columns lhs, level, group, r2, se, ci_lower, ci_upper. nan where a residual variance is negative.
    """
    frame = rsquare_frame(fit.model, fit.theta, free_vcov(fit), ci_level=ci_level)
    return rows_at(frame, level, fit.table)
