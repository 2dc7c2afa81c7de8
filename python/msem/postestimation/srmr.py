"""Residual measures: sample (saturated) against model-implied moments, as arrays.

One SRMR per level of a two-level model; the RMR, GFI and residual chi-square family for single-level models.

Unbiased estimates, confidence intervals and tests of root mean squares: let e be t residuals with sampling covariance
matrix X. Then e'e has expectation eps'eps + tr X and variance 2 tr X^2 + 4 eps'X eps, eps being the residuals in the
population; from these and a second-order expansion of the square root come all numbers of `root_mean_square`
(Maydeu-Olivares, 2017; Maydeu-Olivares, Shi & Rosseel, 2018).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.arrays import unvech
from msem.distributions import normal_halfwidth, normal_upper_tail
from msem.estimation.moment_vector import MomentVector
from msem.estimation.solution import Solution, without_ordered
from msem.model.levels import Level, rows_at
from msem.postestimation.residuals import Residuals, residuals_in

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class GroupMoments:
    """Sample (saturated) and model-implied moments of one group of a single-level model.

    Parameters
    ----------
    sample_cov, implied_cov : array of shape (p, p)
    nobs : float
        Units of the group: its weight when several groups are pooled.
    sample_mean, implied_mean : array of shape (p,), optional
        None for a model without mean structure.
    exogenous : array of bool, shape (p,), optional
        Fixed covariates.
    """

    sample_cov: Floats
    implied_cov: Floats
    nobs: float
    sample_mean: Floats | None = None
    implied_mean: Floats | None = None
    exogenous: NDArray[np.bool_] | None = None

    @property
    def mean_residual(self) -> Floats:
        """Sample minus implied mean; empty without mean structure."""
        if self.sample_mean is None or self.implied_mean is None:
            return np.empty(0)
        return self.sample_mean - self.implied_mean

    @property
    def nmoments(self) -> int:
        """Number of sample moments, covariates included."""
        p = len(self.sample_cov)
        return p * (p + 1) // 2 + self.mean_residual.size


def srmr_level(sample_cov: Floats, implied_cov: Floats) -> float:
    """SRMR of one level: covariances only, in the metric of correlations (Bollen, 1989).

    Each matrix is turned into correlations by its own variances; the squared differences are summed over
    all p variables of the level, fixed covariates included, and divided by p (p + 1) / 2. The diagonal,
    which is zero, counts in that number, as in lavaan.

    Parameters
    ----------
    sample_cov, implied_cov : array of shape (p, p)
        Saturated and model-implied covariance matrix of the level.

    Returns
    -------
    float
        nan if a variance is not positive.
    """
    if min(sample_cov.diagonal().min(), implied_cov.diagonal().min()) <= 0:
        return math.nan
    p, difference = len(sample_cov), _correlations(sample_cov) - _correlations(implied_cov)
    return math.sqrt(float((difference * difference).sum()) / (p * (p + 1)))


def srmr_of(vector: MomentVector, level: int) -> float:
    """SRMR of one level of a group from its moments."""
    at = [k for k, key in enumerate(vector.keys) if key.level == level and key.op == "~~"]
    n = math.isqrt(2 * len(at))
    return srmr_level(unvech(vector.observed[at], n), unvech(vector.implied[at], n))


def pooled(values: Sequence[float], nobs: Sequence[float]) -> float:
    """A measure of all groups, weighted by units."""
    return float(values[0] if len(values) == 1 else np.average(values, weights=nobs))


def level_residuals(levels: Sequence[Sequence[float]], nobs: Sequence[float]) -> dict[str, float]:
    """Pool the `srmr_level` of the groups, level 1 first, weighted by units; `srmr` is the sum of all levels.

    Of two levels they are called `srmr_within` and `srmr_between`, of more `srmr_l1`, `srmr_l2`, ...
    """
    found = [pooled(values, nobs) for values in levels]
    names = ("within", "between") if len(found) == 2 else [f"l{k}" for k in range(1, len(found) + 1)]
    return {"srmr": sum(found)} | {f"srmr_{name}": own for name, own in zip(names, found, strict=True)}


def residual_measures(groups: Sequence[GroupMoments]) -> dict[str, float]:
    """Residual measures of a single-level model, averaged over groups with their sizes as weights.

    Parameters
    ----------
    groups : sequence of GroupMoments

    Returns
    -------
    dict of str to float
        `rmr` (Jöreskog & Sörbom, 1981); `srmr` = `srmr_bentler` (Bentler, 1995), in units of the sample
        standard deviations; `crmr` (Bollen, 1989), correlations without the diagonal; `srmr_mplus`,
        correlations off the diagonal and relative differences of variances on it (Asparouhov & Muthén,
        2018). Means count as p further residuals, except in the measures ending in `_nomean`.
    """
    each = [_residual_measures(group) for group in groups]
    sizes = [group.nobs for group in groups]
    pooled = {name: float(np.average([one[name] for one in each], weights=sizes)) for name in each[0]}
    order = ("rmr", "rmr_nomean", "srmr")
    return {name: pooled["srmr_bentler" if name == "srmr" else name] for name in (*order, *pooled)}


def _residual_measures(group: GroupMoments) -> dict[str, float]:
    values = {}
    means = _mean_residuals(group)
    for name, residuals in _covariance_residuals(group.sample_cov, group.implied_cov).items():
        values[name] = _rms(np.concatenate([residuals, means[name]]))
        values[f"{name}_nomean"] = _rms(residuals)
    return values


def _covariance_residuals(sample: Floats, implied: Floats) -> dict[str, Floats]:
    below, strictly = np.tril_indices(len(sample)), np.tril_indices(len(sample), -1)
    scale = np.sqrt(np.diag(sample))
    raw = sample - implied
    bollen = _correlations(sample) - _correlations(implied)
    return {
        "rmr": raw[below],
        "srmr_bentler": (raw / np.outer(scale, scale))[below],
        "crmr": bollen[strictly],
        "srmr_mplus": (bollen + np.diag(np.diag(raw) / scale**2))[below],
    }


def _mean_residuals(group: GroupMoments) -> dict[str, Floats]:
    """Mean residuals in the metric of each measure (CRMR: sample standard deviations, as in lavaan)."""
    raw = group.mean_residual
    if group.sample_mean is None or group.implied_mean is None:
        return dict.fromkeys(("rmr", "srmr_bentler", "crmr", "srmr_mplus"), raw)
    scale, implied_scale = np.sqrt(np.diag(group.sample_cov)), np.sqrt(np.diag(group.implied_cov))
    return {
        "rmr": raw,
        "srmr_bentler": raw / scale,
        "crmr": raw / scale,
        "srmr_mplus": group.sample_mean / scale - group.implied_mean / implied_scale,
    }


def _correlations(covariance: Floats) -> Floats:
    scale = np.sqrt(covariance.diagonal())
    return np.asarray(covariance / (scale[:, None] * scale))


def _rms(values: Floats) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if values.size else math.nan


def lisrel_gfi(groups: Sequence[GroupMoments]) -> float:
    """GFI of LISREL: 1 - e'Ve / s'Vs (Jöreskog & Sörbom, 1986; Tanaka & Huba, 1985).

    `e` are residual and `s` sample moments, `V` the normal-theory weight at the implied moments. The moments
    of fixed covariates among themselves are left out of `s`. Groups are averaged with their sizes as weights.
    """
    values = []
    for group in groups:
        sample, mean = group.sample_cov.copy(), group.sample_mean
        if group.exogenous is not None:
            sample[np.ix_(group.exogenous, group.exogenous)] = 0.0
            mean = None if mean is None else np.where(group.exogenous, 0.0, mean)
        residual = _weighted_square(group, group.sample_cov - group.implied_cov, group.mean_residual)
        total = _weighted_square(group, sample, np.empty(0) if mean is None else mean)
        values.append(1 - residual / total)
    return float(np.average(values, weights=[group.nobs for group in groups]))


def _weighted_square(group: GroupMoments, covariance: Floats, mean: Floats) -> float:
    """Quadratic form of a vector of moments in the normal-theory weight matrix."""
    product = np.linalg.solve(group.implied_cov, covariance)
    square = 0.5 * float(np.sum(product * product.T))
    return square + float(mean @ np.linalg.solve(group.implied_cov, mean)) if mean.size else square


def browne_residual_chisq(groups: Sequence[GroupMoments], jacobian: Floats | None = None) -> float:
    """Residual-based normal-theory statistic at the implied moments (Browne, 1984, Proposition 4).

    Parameters
    ----------
    groups : sequence of GroupMoments
    jacobian : array of shape (moments, npar), optional
        Derivatives of the implied moments, group by group, the means first (if modelled), then the lower
        triangle of the covariance matrix row by row. Not needed when the means are saturated: the
        residuals of a maximum likelihood solution are then orthogonal to the Jacobian.
    """
    statistic = sum(
        group.nobs * _weighted_square(group, group.sample_cov - group.implied_cov, group.mean_residual)
        for group in groups
    )
    if jacobian is None:
        return statistic
    starts = np.cumsum([0, *(group.nmoments for group in groups)])
    blocks = [
        (jacobian[a:b], _moment_weight(group), _residual_vector(group))
        for group, a, b in zip(groups, starts[:-1], starts[1:], strict=True)
    ]
    information = sum(delta.T @ weight @ delta for delta, weight, _ in blocks)
    score = sum(delta.T @ weight @ residual for delta, weight, residual in blocks)
    # Parameters may be redundant (equality constraints written out), hence least squares, not a solve.
    return statistic - float(score @ np.linalg.lstsq(information, score, rcond=None)[0])


def _residual_vector(group: GroupMoments) -> Floats:
    below = np.tril_indices(len(group.sample_cov))
    return np.concatenate([group.mean_residual, (group.sample_cov - group.implied_cov)[below]])


def _moment_weight(group: GroupMoments) -> Floats:
    """Normal-theory weight matrix of the moments, times the size of the group."""
    inverse = np.linalg.inv(group.implied_cov)
    rows, columns = np.tril_indices(len(inverse))
    # Half the second-order terms of both orders of each pair; a variance is one moment, not two.
    pairs = inverse[np.ix_(rows, rows)] * inverse[np.ix_(columns, columns)]
    pairs = pairs + inverse[np.ix_(rows, columns)] * inverse[np.ix_(columns, rows)]
    once = np.where(rows == columns, 0.5, 1.0)
    pairs = pairs * np.outer(once, once)
    nmeans = group.mean_residual.size
    weight = np.zeros((nmeans + len(rows), nmeans + len(rows)))
    weight[:nmeans, :nmeans] = inverse[:nmeans, :nmeans]
    weight[nmeans:, nmeans:] = pairs
    return group.nobs * weight


@dataclass(frozen=True, slots=True)
class RootMeanSquare:
    """Root mean square of t residuals.

    Attributes
    ----------
    value, se : float
        The sample value, and its standard error under exact fit.
    exact_z, exact_pvalue : float
        Test of exact fit, one-sided: the sample value less its expectation under exact fit, over `se`.
    unbiased, unbiased_se : float
        Estimate of the population value, corrected for the sampling error of the residuals and for the bias of a root,
        and its standard error.
    ci_lower, ci_upper : float
        Confidence interval of the population value.
    close_h0, close_z, close_pvalue : float
        Test of close fit, one-sided: population value at most `close_h0`.
    nresiduals : int
        t.
    """

    value: float
    se: float
    exact_z: float
    exact_pvalue: float
    unbiased: float
    unbiased_se: float
    ci_lower: float
    ci_upper: float
    close_h0: float
    close_z: float
    close_pvalue: float
    nresiduals: int


def root_mean_square(
    residuals: Floats, root: Floats, *, ci_level: float = 0.90, close_h0: float = 0.05
) -> RootMeanSquare:
    """Estimate the population root mean square of residuals.

    Parameters
    ----------
    residuals : ndarray, shape (t,)
        Those that are zero by construction count in t.
    root : ndarray, shape (t, k)
        Times its transpose the sampling covariance matrix of the residuals.
    ci_level : float
        Of the confidence interval, which is normal and cut off at 0.
    close_h0 : float

    Returns
    -------
    RootMeanSquare
        All nan without residuals, or if one is nan. Without sampling variance, when the model is saturated, tests and
        standard errors are nan.
    """
    t = residuals.size
    square = float(residuals @ residuals) if t else math.nan
    gram = root.T @ root
    trace, trace2 = float(np.trace(gram)), float(np.sum(gram * gram))
    along = float(np.sum((residuals @ root) ** 2))
    value = math.sqrt(square / t) if t else math.nan
    se, exact_z = _exact(value, trace, trace2, t)
    unbiased, unbiased_se = _unbiased(square, trace, trace2, along, t)
    half = normal_halfwidth(ci_level) * unbiased_se
    close_z = (unbiased - close_h0) / unbiased_se if unbiased_se > 0 else math.nan
    return RootMeanSquare(
        value=value,
        se=se,
        exact_z=exact_z,
        exact_pvalue=normal_upper_tail(exact_z),
        unbiased=unbiased,
        unbiased_se=unbiased_se,
        ci_lower=max(unbiased - half, 0.0) if half == half else math.nan,
        ci_upper=unbiased + half,
        close_h0=close_h0,
        close_z=close_z,
        close_pvalue=normal_upper_tail(close_z),
        nresiduals=t,
    )


def _exact(value: float, trace: float, trace2: float, t: int) -> tuple[float, float]:
    """Standard error under exact fit, and the statistic of its test."""
    if not trace > 0:
        return math.nan, math.nan
    expected = math.sqrt(trace / t) * (1 - trace2 / (4 * trace**2))
    se = math.sqrt(trace2 / (2 * t * trace))
    return se, (value - expected) / se


def _unbiased(square: float, trace: float, trace2: float, along: float, t: int) -> tuple[float, float]:
    """Estimate of the population value and its standard error.

    Residuals that are smaller than their sampling error estimate the value as 0. The standard error is then the one at
    exact fit: the expansion about residuals that happen to be small diverges.
    """
    if not (trace > 0 and math.isfinite(square)):
        return math.nan, math.nan
    excess = max(square - trace, 0.0)
    if not excess:
        square, along = trace, trace2
    shrinkage = 1 - (trace2 + 2 * along) / (4 * square**2)
    return math.sqrt(excess / t) / shrinkage, math.sqrt((trace2 + 2 * along) / (2 * t * square)) / shrinkage


@without_ordered
def srmr(
    fit: Solution, *, level: Level | None = None, ci_level: float = 0.90, close_h0: float = 0.05
) -> pd.DataFrame:
    """Root mean square residuals: sample values, unbiased estimates with intervals, tests of exact and close fit.

    Parameters
    ----------
    level : {1, 2, "within", "between"}, optional
        Rows of this level only.
    ci_level : float
        Of the confidence intervals.
    close_h0 : float
        Largest population value that counts as close fit.

    Returns
    -------
    DataFrame
        Columns measure, level, group, part and those of `RootMeanSquare`: value, se, exact_z, exact_pvalue,
        unbiased, unbiased_se, ci_lower, ci_upper, close_h0, close_z, close_pvalue, nresiduals. `measure` is
        "srmr", as in `fit_measures` (residual correlations with the diagonal at two levels; Bentler's at one), or
        "crmr", correlations without the diagonal. `part` is "cov", "mean" or "total", both. Level 0 is all levels
        together: the root of the mean over all their residuals.

    Notes
    -----
    Maydeu-Olivares (2017); Maydeu-Olivares, Shi and Rosseel (2018).
    """
    rows = [
        {"measure": measure, "level": place, "group": group, "part": part}
        | asdict(root_mean_square(chosen.residuals, chosen.root, ci_level=ci_level, close_h0=close_h0))
        for measure, place, group, part, chosen in _parts(fit)
    ]
    return rows_at(pd.DataFrame(rows), level, fit.table)


def _parts(fit: Solution) -> Iterator[tuple[str, int, int, str, Residuals]]:
    """Measure, level, group, part and residuals of every root mean square."""
    bollen = residuals_in(fit, "cor.bollen")
    own = bollen if fit.table.multilevel else residuals_in(fit, "cor.bentler")
    for measure, found in (("srmr", own), ("crmr", bollen)):
        levels, groups, means = (
            np.array([getattr(key, name) for key in found.keys]) for name in ("level", "group", "op")
        )
        mean = means == "~1"
        counted = ~np.array([key.lhs == key.rhs for key in found.keys]) | (measure == "srmr")
        for group in range(1, fit.table.ngroups + 1):
            for level in (*range(1, fit.table.nlevels + 1), 0) if fit.table.multilevel else (1,):
                chosen = counted & (groups == group) & ((levels == level) | (level == 0))
                parts = {"cov": chosen & ~mean, "mean": chosen & mean, "total": chosen}
                for part in parts if (chosen & mean).any() else ("cov",):
                    yield measure, level, group, part, found.select(parts[part])
