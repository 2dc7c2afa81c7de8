"""The table of estimates: every row of the parameter table, then the defined parameters."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.estimation.solution import Solution
from msem.model.levels import Level, rows_at
from msem.model.partable import ParameterTable
from msem.output.tables import estimates_columns, slopes_named
from msem.postestimation.constraints import (
    defined,
    definition_df,
    definition_rows,
    definition_values,
    definitions_at,
)
from msem.postestimation.ram import path_values, structures
from msem.postestimation.standardized import standardize
from msem.settings import Reference, require_choice

Floats = NDArray[np.float64]


def estimates(
    fit: Solution,
    *,
    standardized: bool = False,
    level: Level | None = None,
    ci_level: float = 0.95,
    reference: Reference = "normal",
) -> pd.DataFrame:
    """All rows of the parameter table with estimates.

    Parameters
    ----------
    standardized : bool
        Add std_lv, std_all and std_nox, each level standardized by its own variances.
    level : {1, 2, "within", "between"}, optional
        Rows of this level only.
    ci_level : float
        Of the confidence intervals.
    reference : {"normal", "t"}
        Distribution of estimates over standard errors. With "t" there are columns t and df in the place of z; see
        `reference_df`.

    Returns
    -------
    DataFrame
        Columns lhs, op, rhs, level, group, label, est, se, z, pvalue, ci_lower, ci_upper. Rows that are not
        estimated have se 0. A path that is a random slope has no value, and the name of the slope as label: its mean
        and variance are rows of the levels above. Defined parameters (``:=``) come last, at level 0 of group 0.
    """
    columns = estimate_columns(fit, standardized=standardized, ci_level=ci_level, reference=reference)
    return rows_at(pd.DataFrame(columns), level, fit.table)


def estimate_columns(
    fit: Solution,
    *,
    standardized: bool = False,
    ci_level: float = 0.95,
    reference: Reference = "normal",
) -> dict[str, Any]:
    """The columns of `estimates`, as lists and arrays."""
    require_choice("reference", reference, get_args(Reference))
    est, se = fit.row_values, fit.row_errors
    df = rows_df(fit.table, fit.reference_df) if reference == "t" else None
    extra: dict[str, Floats] = {}
    if standardized:
        variances = {
            block: dict(zip(own.names, own.variances.tolist(), strict=True))
            for block, own in structures(fit.model, fit.theta).items()
        }
        found = standardize(fit.table, path_values(fit.model, fit.theta), variances)._asdict()
        extra = {name: np.append(column, definitions_at(fit, column)) for name, column in found.items()}
    values, errors = definition_values(fit)
    rows = (*fit.table.rows, *definition_rows(fit))
    columns = estimates_columns(
        rows,
        np.append(est, values),
        np.append(se, errors),
        ci_level=ci_level,
        df=df,
        scales=[*fit.interval_scales, *["identity"] * len(values)],
        extra=extra,
    )
    if len(values) and fit.options.ci == "transformed":
        limits = defined(fit, ci_level=ci_level, method="monte_carlo")[["ci_lower", "ci_upper"]]
        for name in limits:
            columns[str(name)][len(est) :] = limits[name]
    return slopes_named(fit.table.rows, columns)


def to_frame(
    fit: Solution, *, standardized: bool = False, level: Level | None = None, ci_level: float = 0.95
) -> pd.DataFrame:
    """Estimates as a data frame, under the name that results of resampling have for theirs.

    Parameters
    ----------
    standardized : bool
        Add std_lv, std_all and std_nox.
    level : {1, 2, "within", "between"}, optional
        Rows of this level only.
    ci_level : float
        Of the confidence intervals.

    Returns
    -------
    DataFrame
        As `estimates` gives it.
    """
    return estimates(fit, standardized=standardized, level=level, ci_level=ci_level)


def rows_df(table: ParameterTable, reference_df: pd.Series) -> Floats:
    """Degrees of freedom of every row, defined parameters last: nan where nothing is estimated."""
    free = np.array([r.free for r in table.rows])
    df: Floats = np.append(reference_df.to_numpy(dtype=float), np.nan)[free - 1]
    return np.append(np.where(free > 0, df, np.nan), definition_df(table, reference_df))
