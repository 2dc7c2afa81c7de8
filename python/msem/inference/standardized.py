"""Standardised estimates and explained variance, each level in units of its own standard deviations."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

if TYPE_CHECKING:
    from msem.table.partable import Parameter, ParameterTable

Array = NDArray[np.float64]
Block = tuple[int, int]
Variances = Mapping[Block, Mapping[str, float]]
Scale = Callable[[str], float]


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

    std_lv: Array
    std_all: Array
    std_nox: Array


def standardize(table: ParameterTable, est: Array, variances: Variances) -> Standardized:
    """Standardise estimates level by level.

    Loadings and regressions are multiplied by the standard deviation of the cause and divided by that of
    the outcome, intercepts divided by the standard deviation, variances by the total model-implied variance
    of their own level and group (Bollen, 1989, pp. 123-126). Covariances are divided by the square roots of
    both residual variances: they become (residual) correlations, as in lavaan.

    Parameters
    ----------
    table : ParameterTable
        Rows to standardise.
    est : array of shape (rows,)
        Value of every row, fixed ones included.
    variances : mapping of (level, group) to mapping of name to float
        Model-implied total variances of the observed and latent variables of each block.

    Returns
    -------
    Standardized
        nan where a variance that is needed is not positive or not given.
    """
    columns = np.full((3, len(table.rows)), math.nan)
    for block, where in _blocks(table).items():
        rows = [table.rows[k] for k in where]
        total, residual = variances.get(block, {}), _residual_variances(rows, est[where])
        for column, kept in zip(columns, _kept(table, *block), strict=True):
            scales = _scale(total, kept), _scale(residual, kept)
            column[where] = est[where] * [_factor(row, *scales) for row in rows]
    return Standardized(*columns)


def r_squared(table: ParameterTable, est: Array, variances: Variances) -> pd.DataFrame:
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
    records = []
    for block, where in _blocks(table).items():
        rows = [table.rows[k] for k in where]
        outcomes = _endogenous(rows)
        for name, residual in _residual_variances(rows, est[where]).items():
            total = variances.get(block, {}).get(name, math.nan)
            if name in outcomes:
                proper = residual >= 0 and total > 0
                records.append((name, *block, 1 - residual / total if proper else math.nan))
    frame = pd.DataFrame(records, columns=["lhs", "level", "group", "r2"])
    return frame.astype({"level": int, "group": int, "r2": float})


def _blocks(table: ParameterTable) -> dict[Block, list[int]]:
    """Positions of the rows of each (level, group)."""
    found: dict[Block, list[int]] = {}
    for k, row in enumerate(table.rows):
        found.setdefault((row.level, row.group), []).append(k)
    return found


def _residual_variances(rows: Sequence[Parameter], est: Array) -> dict[str, float]:
    return {
        row.lhs: float(value)
        for row, value in zip(rows, est, strict=True)
        if row.op == "~~" and row.lhs == row.rhs
    }


def _endogenous(rows: Sequence[Parameter]) -> set[str]:
    return {row.lhs for row in rows if row.op == "~"} | {row.rhs for row in rows if row.op == "=~"}


def _kept(table: ParameterTable, level: int, group: int) -> tuple[Sequence[str], ...]:
    """Variables left in their own units by std_lv, std_all and std_nox."""
    return table.observed(level, group), (), table.covariates(level, group)


def _scale(variances: Mapping[str, float], kept: Collection[str]) -> Scale:
    """Give the standard deviation of a variable, 1 for variables that keep their units."""

    def scale(name: str) -> float:
        variance = 1.0 if name in kept else variances.get(name, math.nan)
        return math.sqrt(variance) if variance > 0 else math.nan

    return scale


def _factor(row: Parameter, total: Scale, residual: Scale) -> float:
    """Give the multiplier of a row; nan for operators without a standardised form."""
    match row.op:
        case "=~":
            return total(row.lhs) / total(row.rhs)
        case "~":
            return total(row.rhs) / total(row.lhs)
        case "~1":
            return 1 / total(row.lhs)
        case "~~" if row.lhs == row.rhs:
            return 1 / total(row.lhs) ** 2
        case "~~":
            return 1 / (residual(row.lhs) * residual(row.rhs))
    return math.nan
