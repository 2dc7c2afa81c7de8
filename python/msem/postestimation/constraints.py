"""What constraints cost: their values, whether they are active, and their Lagrange multipliers."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.estimation.estimate import Estimate
from msem.estimation.solution import Estimated, Solution, cached
from msem.language.characters import outside_quotes
from msem.model.functions import Functions, defined_functions, defined_rows
from msem.model.partable import Parameter, ParameterTable
from msem.output.tables import estimates_frame
from msem.postestimation.delta import Intervals, MonteCarlo, derive, draw

Floats = NDArray[np.float64]

ROUNDING = 1e-9  # of the value of an inequality, relative to its terms


class Constraint(NamedTuple):
    """One constraint at a solution.

    Attributes
    ----------
    constraint : str
        As written; a bound as ``name > value``.
    kind : str
        "equality", "inequality" or "bound".
    value : float
        Left less right side.
    active : bool
    multiplier : float
        How much the log-likelihood would rise per unit if an inequality or bound were relaxed, and per unit by which
        the right side of an equality were lowered; 0 for what is not active.
    """

    constraint: str
    kind: str
    value: float
    active: bool
    multiplier: float


def constraints_at(estimate: Estimate) -> list[Constraint]:
    """All constraints and bounds of a model at its solution, in order of the text, bounds last."""
    theta, optimum, c = estimate.theta, estimate.optimum, estimate.objective.constraints
    rows: list[Floats] = []
    out: list[Constraint] = []
    if c is not None:
        rows += [*c.equalities.jacobian(theta)]
        out += [
            Constraint(t, "equality", v, True, 0.0)
            for t, v in zip(c.equalities.texts, c.equalities.values(theta), strict=True)
        ]
        slopes, values = c.inequalities.jacobian(theta), c.inequalities.values(theta)
        for i, text in enumerate(c.inequalities.texts):
            sign = -1.0 if "<" in outside_quotes(text) else 1.0
            # what rounding leaves of 0 has no sign
            value = values[i] if abs(values[i]) > ROUNDING * (np.abs(slopes[i]) @ np.abs(theta)) else 0.0
            out.append(
                Constraint(text, "inequality", sign * value + 0.0, i in optimum.active_inequalities, 0.0)
            )
            rows += [slopes[i]]
    table = estimate.table
    for i in {row.free: i for i, row in enumerate(table.rows) if row.free}.values():
        row = table.rows[i]
        k = row.free - 1
        for side, bound, op in ((-1, row.lower, ">"), (1, row.upper, "<")):
            if math.isfinite(bound):
                text = f"{table.by_name.shown[i]} {op} {bound:g}"
                out.append(Constraint(text, "bound", theta[k] - bound, bool(optimum.active[k] == side), 0.0))
                rows.append(np.where(np.arange(len(theta)) == k, -float(side), 0.0))
    active = [i for i, one in enumerate(out) if one.active]
    if active:
        found = _multipliers(estimate, np.array(rows)[active])
        for i, value in zip(active, found, strict=True):
            out[i] = out[i]._replace(multiplier=float(value))
    return out


def _multipliers(estimate: Estimate, rows: Floats) -> Floats:
    """The smallest multipliers with half the gradient of -2 log L = rows' multipliers."""
    sizes = estimate.sizes
    scaled = rows * sizes
    norm = np.linalg.norm(scaled, axis=1)
    norm[norm == 0] = 1.0
    found = np.linalg.lstsq((scaled / norm[:, None]).T, 0.5 * estimate.optimum.gradient * sizes, rcond=1e-10)[
        0
    ]
    out: Floats = found / norm
    return out


@cached
def compiled_definitions(fit: Estimated) -> Functions:
    """Defined parameters as functions of theta."""
    return defined_functions(fit.table)


@cached
def definition_rows(fit: Estimated) -> tuple[Parameter, ...]:
    """Rows that tables have for defined parameters."""
    return defined_rows(fit.table) if fit.table.defined else ()


@cached
def definition_values(fit: Estimated) -> tuple[Floats, Floats]:
    """Values and delta-method standard errors of the defined parameters."""
    if not fit.table.defined:
        return np.empty(0), np.empty(0)
    found = derive(compiled_definitions(fit), fit.theta, fit.cov_params().to_numpy())
    return found.est, found.se


def definition_df(table: ParameterTable, reference_df: pd.Series) -> Floats:
    """Degrees of freedom of t references: the fewest of the parameters that a definition depends on."""
    if not table.defined:
        return np.empty(0)
    df, functions = reference_df.to_numpy(dtype=float), defined_functions(table)
    used = [functions.core.variables(i) for i in range(len(defined_rows(table)))]
    return np.array([min((df[k] for k in own), default=np.nan) for own in used], dtype=float)


def definitions_at(fit: Estimated, rows: Floats) -> Floats:
    """The definitions at other values of all rows of the table, such as standardized ones."""
    return defined_functions(fit.table, "rows").values(rows) if fit.table.defined else np.empty(0)


def defined(
    fit: Estimated, *, ci_level: float = 0.95, method: Intervals = "delta", draws: int = 20_000, seed: int = 1
) -> pd.DataFrame:
    """Defined parameters (``:=``) with standard errors and confidence intervals.

    Parameters
    ----------
    ci_level : float
        Of the confidence intervals.
    method : {"delta", "monte_carlo"}
        "delta": normal intervals with standard errors from the derivatives of the definition. "monte_carlo":
        percentiles of the definition over draws from the normal sampling distribution of the estimates
        (MacKinnon, Lockwood & Williams, 2004), which follow the skewness of products and ratios.
    draws : int
        Of the Monte Carlo distribution.
    seed : int
        The same seed gives the same table.

    Returns
    -------
    DataFrame
        Columns lhs, op, rhs, level, group, label, est, se, z, pvalue, ci_lower, ci_upper; level and group are 0.
        For "monte_carlo" se is the standard deviation of the draws, pvalue belongs to the percentile interval, and
        z is nan; all are nan for a definition without a value, such as the root of a negative number, in more
        than 5% of the draws. se is nan where an estimate that a definition depends on has none, because it lies
        on a bound for instance.

    Raises
    ------
    ValueError
        If an option is out of range.
    """
    how = MonteCarlo.chosen(method, draws, seed)
    frame = estimates_frame(definition_rows(fit), *definition_values(fit), ci_level=ci_level)
    if how is None:
        return frame
    vcov = fit.cov_params().to_numpy()
    found = draw(compiled_definitions(fit), fit.theta, vcov, ci_level, how)
    return frame.assign(
        se=found.se, z=np.nan, pvalue=found.pvalue, ci_lower=found.lower, ci_upper=found.upper
    )


def constraints(fit: Solution) -> pd.DataFrame:
    """Constraints and bounds of the model at the solution.

    Returns
    -------
    DataFrame
        Columns constraint, kind ("equality", "inequality", "bound"), value (left less right side), active, and
        multiplier: the gain in log-likelihood per unit by which an active inequality or bound is relaxed, or by
        which the right side of an equality is lowered.
    """
    return pd.DataFrame(solution_constraints(fit), columns=list(Constraint._fields))


@cached
def solution_constraints(fit: Solution) -> list[Constraint]:
    """Constraints and bounds at the solution, those of the text first."""
    return constraints_at(fit.estimate)
