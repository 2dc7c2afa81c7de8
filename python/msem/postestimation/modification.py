"""What a model would gain if parameters were added to it or equality constraints released."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.distributions import chisq_quantile, normal_rejection
from msem.errors import MsemError, UnsupportedError
from msem.estimation.estimate import Estimate, require_converged, require_unpenalized
from msem.estimation.integrals import same_integral
from msem.estimation.matrices import row_values
from msem.estimation.sampling import free_directions
from msem.estimation.solution import Solution
from msem.model.levels import Level
from msem.postestimation.candidates import Candidate, candidates, extended_table
from msem.postestimation.ram import Block, structures
from msem.postestimation.score_tests import (
    Single,
    Spread,
    asked_level,
    extend,
    key_frame,
    pvalues,
    robust_spread,
)
from msem.postestimation.standardized import Standardized, standardize
from msem.settings import require_choice

Floats = NDArray[np.float64]
CHUNK = 256  # candidates at a time, which bounds the memory that the information takes
HIGH_POWER = 0.75
OPERATORS = ("=~", "~", "~~", "~1")


def modify(fit: Estimate, added: Sequence[Candidate], spread: Spread | None = None) -> Single:
    """Modification index and expected change of each candidate on its own (Sörbom, 1989).

    Parameters
    ----------
    fit : Estimate
    added : sequence of Candidate
    spread : callable, optional
        For the generalized score statistic; see `robust_spread`.

    Returns
    -------
    Single
        nan for candidates that are not identified.
    """
    parts, basis = [np.zeros((3, 0))], free_directions(fit)
    for first in range(0, len(added), CHUNK):
        extension = extend(fit, (), added[first : first + CHUNK], spread, basis)
        parts.append(np.array(extension.point.single(extension.further)))
    return Single(*np.concatenate(parts, axis=1))


def standardized_changes(fit: Estimate, added: Sequence[Candidate], changes: Floats) -> Standardized:
    """Expected changes in standard deviation units of the model as it is.

    Parameters
    ----------
    fit : Estimate
    added : sequence of Candidate
    changes : ndarray, shape (candidates,)

    Returns
    -------
    Standardized
        One number for each candidate.
    """
    table = extended_table(fit.table, added)
    numbers = fit.table.npar + np.arange(len(added))
    variance = np.array([c.row.op == "~~" and c.row.lhs == c.row.rhs for c in added], dtype=bool)
    values = np.array([c.row.value for c in added])
    variances = _variances(fit)
    where = {row.free - 1: i for i, row in enumerate(table.rows)}
    rows = [where[int(k)] for k in numbers]

    def scaled(own: Floats) -> Floats:
        est = row_values(table, np.concatenate([fit.theta, own]))
        for i, row in enumerate(table.rows):
            if row.slope:
                est[i] = np.nan
        return np.array(standardize(table, est, variances))[:, rows]

    # Residual variances scale covariances, so those that are candidates themselves keep their values for the others.
    others, own = scaled(np.where(variance, values, changes)), scaled(changes)
    return Standardized(*np.where(variance, own, others))


def _variances(fit: Estimate) -> Mapping[Block, Mapping[str, float]]:
    """Implied variances by block, averages where slopes are random; none where these have no closed form."""
    if not any(row.slope for row in fit.table.rows):
        return fit.objective.variances(fit.theta)
    try:
        blocks = structures(fit.objective, fit.theta)
        return {key: dict(zip(own.names, own.variances.tolist(), strict=True)) for key, own in blocks.items()}
    except UnsupportedError:
        return {}


def modification_table(
    fit: Estimate, added: Sequence[Candidate], single: Single, robust: bool
) -> pd.DataFrame:
    """Modification indices of the candidates that are identified.

    Parameters
    ----------
    fit : Estimate
    added : sequence of Candidate
    single : Single
        Their tests.
    robust : bool
        Whether to add the generalized score statistics, and take the p-values from them.

    Returns
    -------
    DataFrame
        Columns lhs, op, rhs, level, group, mi, mi_robust (if asked for), pvalue, epc, sepc_lv, sepc_all, sepc_nox.
    """
    table = key_frame([c.row for c in added]).assign(mi=single.statistic)
    if robust:
        table["mi_robust"] = single.robust
    table["pvalue"] = pvalues(single.robust if robust else single.statistic)
    standardized = standardized_changes(fit, added, np.nan_to_num(single.change))
    table = table.assign(
        epc=single.change,
        sepc_lv=standardized.std_lv,
        sepc_all=standardized.std_all,
        sepc_nox=standardized.std_nox,
    )
    return table[table["mi"].notna()].reset_index(drop=True)


def with_power(table: pd.DataFrame, delta: float, alpha: float) -> pd.DataFrame:
    """Judge every index by the power that it had to detect a change of `delta` (Saris, Satorra & van der Veld, 2009).

    Parameters
    ----------
    table : DataFrame
        As `modification_table` gives it.
    delta : float
        Change of a parameter, in the metric of `epc`, that would matter.
    alpha : float
        Level of the test.

    Returns
    -------
    DataFrame
        With the further columns delta, ncp, power and decision. The decision is "misspecified" or "not misspecified"
        if a significant index had low power, or an insignificant one high power; with both the expected change
        decides, and with neither it is "inconclusive".
    """
    statistic = table["mi_robust" if "mi_robust" in table else "mi"]
    # epc^2 / statistic is the sampling variance of the change
    ncp = statistic / table["epc"] ** 2 * delta**2
    power = normal_rejection(np.sqrt(ncp.to_numpy()), alpha)
    significant, strong = statistic > chisq_quantile(alpha, 1), power > HIGH_POWER
    wrong = significant & (~strong | (table["epc"].abs() > delta))
    decision = np.where(wrong, "misspecified", np.where(strong, "not misspecified", "inconclusive"))
    return table.assign(delta=delta, ncp=ncp, power=power, decision=decision)


def modification_indices(
    fit: Solution,
    *,
    minimum: float = 0.0,
    sort: bool = True,
    op: str | Collection[str] | None = None,
    level: Level | None = None,
    power: bool = False,
    delta: float = 0.1,
    alpha: float = 0.05,
) -> pd.DataFrame:
    """Score test of every parameter that could be freed, and the value it would have.

    Parameters
    ----------
    minimum : float
        Leave out rows with a smaller index.
    sort : bool
        Largest index first; otherwise by group, level and kind.
    op : str or collection of str, optional
        Only these operators, of ``=~ ~ ~~ ~1``.
    level : {1, 2, "within", "between"}, optional
        Only this level.
    power : bool
        Add the power of each test against a change of `delta`, and what follows from both (Saris, Satorra & van
        der Veld, 2009).
    delta : float
        Change that would matter, in the metric of `epc`.
    alpha : float
        Level of the tests.

    Returns
    -------
    DataFrame
        Columns lhs, op, rhs, level, group, mi, pvalue, epc, sepc_lv, sepc_all, sepc_nox; under MLR and
        for least squares also mi_robust, the generalized score statistic, from which the p-value then is; with `power`
        also delta, ncp, power and decision. mi is the expected drop in chi-square (Sörbom, 1989), epc the
        expected value less the value at which the parameter is fixed, sepc_* the same in standard deviations. Rows
        that are not identified, and moments of fixed covariates, are left out; of ordered variables by maximum
        likelihood also what would be one more variable to integrate over, such as a residual variance between clusters.

    Raises
    ------
    ModelError
        If the fit has not converged.
    """
    require_converged(fit.estimate, "modification indices")
    require_unpenalized(fit.estimate, "modification indices")
    kinds = OPERATORS if op is None else (op,) if isinstance(op, str) else tuple(op)
    for kind in kinds:
        require_choice("op", kind, OPERATORS)
    number = asked_level(fit, level)
    added = [c for c in candidates(fit.table) if c.row.op in kinds and number in (None, c.row.level)]
    if any(s.integral is not None for s in fit.sample.statistics):
        # what is one more variable to integrate over has a likelihood of another kind
        added = [c for c in added if same_integral(extended_table(fit.table, [c]), fit.estimate.objective)]
    spread = robust_spread(fit)
    table = modification_table(fit.estimate, added, modify(fit.estimate, added, spread), spread is not None)
    if power:
        if not 0 < alpha < 1 or not delta > 0:
            raise MsemError(f"delta must be positive and alpha between 0 and 1, not {delta!r} and {alpha!r}")
        table = with_power(table, delta, alpha)
    table = table[table["mi"] >= minimum]
    if sort:  # indices that are equal but for rounding stay in the order of the model
        table = table.sort_values("mi", ascending=False, kind="stable", key=lambda mi: mi.round(9))
    return table.reset_index(drop=True)
