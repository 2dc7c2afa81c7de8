"""Few clusters: degrees of freedom of t references, and a warning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from msem.data.statistics import Statistics
from msem.estimation.problems import Problem
from msem.model.partable import Parameter, ParameterTable

Floats = NDArray[np.float64]


def reference_df(
    table: ParameterTable, statistics: Sequence[Statistics], independent: Sequence[int] | None = None
) -> Floats:
    """Degrees of freedom of the t distribution of each estimate over its standard error, shape (npar,).

    For a parameter of an equation with k predictors: J - k - 1 at the between level (Raudenbush & Bryk, 2002),
    N - J - k at the within level (Schluchter & Elashoff, 1990, the between-within rule; see McNeish & Stapleton, 2016),
    N - k - 1 in a single-level model. A (residual) covariance belongs to the equation with more predictors. A parameter
    shared by both levels has the smaller number, one shared by groups the sum over groups. Standard errors that come
    from the spread of J independent clusters have J - 1 at most (Cameron & Miller, 2015).

    Parameters
    ----------
    table : ParameterTable
    statistics : sequence of SampleStatistics
        Of each group.
    independent : sequence of int, optional
        Clusters, or rows without clusters, of each group whose spread the standard errors come from: robust and
        bootstrap ones.

    Returns
    -------
    ndarray
        0 where the rule leaves no degrees of freedom.
    """
    predictors = count_predictors(table)
    out = np.zeros(table.npar)
    for group, s in enumerate(statistics, 1):
        here = np.full(table.npar, np.inf)
        most = np.inf if independent is None else independent[group - 1] - 1
        for r in table.rows:
            if r.free and r.group == group:
                here[r.free - 1] = min(here[r.free - 1], _row_df(r, predictors, table.nlevels, s), most)
        out += np.where(np.isfinite(here), here, 0.0)
    return np.maximum(out, 0.0)


def _row_df(r: Parameter, predictors: dict[tuple[str, int, int], int], nlevels: int, s: Statistics) -> float:
    outcomes = (r.rhs,) if r.op == "=~" else (r.lhs, r.rhs) if r.op == "~~" else (r.lhs,)
    k = max(predictors.get((name, r.level, r.group), 0) for name in outcomes)
    if nlevels == 1:
        return s.nobs - k - 1
    return s.nclusters - k - 1 if r.level == 2 else s.nobs - s.nclusters - k


def count_predictors(table: ParameterTable) -> dict[tuple[str, int, int], int]:
    """Predictors of each variable, factors included, by (variable, level, group)."""
    out: dict[tuple[str, int, int], int] = {}
    for r in table.rows:
        if r.op in ("~", "=~"):
            key = (r.lhs if r.op == "~" else r.rhs, r.level, r.group)
            out[key] = out.get(key, 0) + 1
    return out


def few_clusters(table: ParameterTable, statistics: Sequence[Statistics]) -> Iterator[Problem]:
    """Findings for the groups that have fewer clusters than their between level has parameters."""
    if table.nlevels == 1:
        return
    for group, s in enumerate(statistics, 1):
        between = {r.free for r in table.rows if r.free and r.level == 2 and r.group == group}
        if s.nclusters < len(between):
            where = f" in group {group}" if len(statistics) > 1 else ""
            yield Problem(
                "few_clusters",
                f"{s.nclusters:.0f} clusters{where} for {len(between)} between-level parameters",
                "Estimates of the between level hang on single clusters, and its standard errors and tests are not to "
                "be trusted: simplify it, and look at fit.profile(), fit.jackknife() and reference='t'",
            )
