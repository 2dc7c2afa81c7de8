"""Few clusters: degrees of freedom of t references, factors of chi-squares, and a warning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msem.data.statistics import Statistics
from msem.distributions import chisq_pvalue, chisq_quantile
from msem.estimation.problems import Problem
from msem.model.levels import level_name
from msem.model.partable import Parameter, ParameterTable
from msem.settings import CorrectedTest

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
                here[r.free - 1] = min(here[r.free - 1], _row_df(r, predictors, s), most)
        out += np.where(np.isfinite(here), here, 0.0)
    return np.maximum(out, 0.0)


def _row_df(r: Parameter, predictors: dict[tuple[str, int, int], int], s: Statistics) -> float:
    outcomes = (r.rhs,) if r.op == "=~" else (r.lhs, r.rhs) if r.op == "~~" else (r.lhs,)
    k = max(predictors.get((name, r.level, r.group), 0) for name in outcomes)
    of_units = (*s.counted[: len(s.variables.levels)], 1.0)
    return of_units[r.level - 1] - of_units[r.level] - k


def count_predictors(table: ParameterTable) -> dict[tuple[str, int, int], int]:
    """Predictors of each variable, factors included, by (variable, level, group)."""
    out: dict[tuple[str, int, int], int] = {}
    for r in table.rows:
        if r.op in ("~", "=~"):
            key = (r.lhs if r.op == "~" else r.rhs, r.level, r.group)
            out[key] = out.get(key, 0) + 1
    return out


@dataclass(frozen=True)
class LevelShape:
    """What corrections for small samples need to know of a model of one level.

    Attributes
    ----------
    variables, factors : int
        Observed and latent ones.
    parameters : int
        Free parameters of the covariance structure, moments of fixed covariates included.
    """

    variables: int
    factors: int
    parameters: int

    @property
    def df(self) -> int:
        """Variances and covariances less parameters."""
        return self.variables * (self.variables + 1) // 2 - self.parameters

    @classmethod
    def of(cls, table: ParameterTable, level: int, group: int = 1) -> LevelShape:
        """The shape of one level of a table."""
        rows = [r for r in table.rows if (r.level, r.group) == (level, group) and r.op in ("=~", "~", "~~")]
        free = len({r.free for r in rows if r.free})
        fixed = sum(1 for r in rows if r.exo and not r.free and r.op == "~~")
        return cls(len(table.observed(level, group)), len(table.latent(level, group)), free + fixed)


def small_sample_factor(test: CorrectedTest, shape: LevelShape, count: float) -> float:
    """What a likelihood-ratio chi-square of a covariance structure is multiplied by to have the mean of a chi-square.

    Parameters
    ----------
    test : {"bartlett", "swain", "yuan_tian_yanagihara"}
        With p variables, k factors, q parameters, d = p (p + 1) / 2 - q and n = count - 1:
        1 - (2p + 4k + 5) / 6n (Bartlett, 1950, for exploratory factors);
        1 - (p (2p^2 + 3p - 1) - r (2r^2 + 3r - 1)) / 12dn, r = (sqrt(1 + 8q) - 1) / 2 (Swain, 1975);
        (count - 2.381 - .361p - .006q) / n (Yuan, Tian & Yanagihara, 2015, fitted to simulations).
    shape : LevelShape
    count : float
        Sample size: clusters at the between level.

    Returns
    -------
    float
        0 at least.

    References
    ----------
    Bartlett (1950). Tests of significance in factor analysis. Brit. J. Psych. Stat. Section, 3, 77-85.
    Swain (1975). Analysis of parametric structures for variance matrices. Thesis, University of Adelaide.
    Yuan, Tian & Yanagihara (2015). Empirical correction to the likelihood ratio statistic for structural equation
    modeling with many variables. Psychometrika, 80, 379-405.
    """
    p, k, q, d, n = shape.variables, shape.factors, shape.parameters, shape.df, count - 1
    if d <= 0:
        return 1.0  # there is nothing to correct
    if test == "bartlett":
        factor = 1 - (2 * p + 4 * k + 5) / (6 * n)
    elif test == "swain":
        r = (np.sqrt(1 + 8 * q) - 1) / 2
        factor = 1 - (p * (2 * p**2 + 3 * p - 1) - r * (2 * r**2 + 3 * r - 1)) / (12 * d * n)
    else:
        factor = (count - 2.381 - 0.361 * p - 0.006 * q) / n
    return max(float(factor), 0.0)


def plain_size(table: ParameterTable, nclusters: Sequence[float]) -> float:
    """How often the plain chi-square of the between level rejects a true model at the 5% level.

    The statistic is taken for a chi-square over the factor of Yuan, Tian and Yanagihara (2015). The largest of groups.
    """
    found = [0.0]
    for group, count in enumerate(nclusters, 1):
        shape = LevelShape.of(table, table.nlevels, group)
        factor, df = small_sample_factor("yuan_tian_yanagihara", shape, count), shape.df
        if df > 0:
            found.append(float(chisq_pvalue(factor * chisq_quantile(0.05, df), df)))
    return max(found)


def few_clusters(table: ParameterTable, statistics: Sequence[Statistics]) -> Iterator[Problem]:
    """Findings for the groups that have fewer clusters than their between level has parameters."""
    if not table.multilevel:
        return
    for group, s, level in (
        (g, s, k) for g, s in enumerate(statistics, 1) for k in range(2, table.nlevels + 1)
    ):
        between = {r.free for r in table.rows if r.free and r.level == level and r.group == group}
        count = s.counted[level - 1]
        if count < len(between):
            where = f" in group {group}" if len(statistics) > 1 else ""
            place = level_name(level, table.nlevels)
            yield Problem(
                "few_clusters",
                f"{count:.0f} clusters{where} for {len(between)} {place.replace(' ', '-')} parameters",
                "Estimates of this level hang on single clusters, and its standard errors and tests are not to "
                "be trusted: simplify it, and look at fit.profile(), fit.jackknife() and reference='t'",
            )
