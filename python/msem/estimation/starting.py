"""Starting values from the saturated moments, level by level, in the units of the variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from msem.data.arrays import LevelArrays
from msem.data.sample import Sample
from msem.estimation.objective import Objective
from msem.model.partable import Parameter, ParameterTable

Floats = NDArray[np.float64]

FLOOR = 0.05  # smallest share of the total variance that a level's variance is taken to be
SMALL_CORRELATION = (
    0.2  # correlations closer to zero are too uncertain to divide by, or to start a loading from
)
CLIP = 0.9  # largest correlation that starting values are derived from


def regular_covariance(moments: LevelArrays, total: Mapping[str, float]) -> Floats:
    """A positive definite stand-in for a level's saturated matrix, which may be indefinite.

    Parameters
    ----------
    moments : LevelArrays
        Saturated moments of n variables.
    total : mapping of str to float
        Total variance of each variable.

    Returns
    -------
    ndarray, shape (n, n)
    """
    cov = moments.cov
    variance = np.maximum(cov.diagonal(), FLOOR * np.array([total[v] for v in moments.names]))
    sd = np.sqrt(variance)
    correlation = np.clip(cov / np.outer(sd, sd), -CLIP, CLIP)
    np.fill_diagonal(correlation, 1.0)
    smallest = float(np.linalg.eigvalsh(correlation)[0]) if len(correlation) else 1.0
    if smallest < 1 - CLIP:
        # shrink towards independence until the smallest eigenvalue is 1 - CLIP
        share = CLIP / (1 - smallest)
        correlation = share * correlation + (1 - share) * np.eye(len(correlation))
    out: Floats = correlation * np.outer(sd, sd)
    return out


def starting_values(objective: Objective, sample: Sample) -> Floats:
    """Crude but scale-equivariant starting values.

    Loadings come from the first principal axis of a factor's indicators, regressions of observed on observed
    variables from least squares, variances from what these leave, intercepts from the means given all others.

    Parameters
    ----------
    objective : Objective
    sample : Sample
        Saturated moments of each group.

    Returns
    -------
    ndarray, shape (npar,)
    """
    table = objective.table
    theta = np.full(table.npar, np.nan)
    for number, group in enumerate(sample.groups, 1):
        total = group.total_variance
        for level, m in group.levels.items():
            cov = regular_covariance(m, total)
            rows = table.block(level, number)
            values = level_values(rows, m.at, cov, table.latent(level, number))
            for r, value in zip(rows, values, strict=True):
                if r.free and np.isnan(theta[r.free - 1]):
                    theta[r.free - 1] = value
    for r in table.rows:
        if r.free and r.start is not None:
            theta[r.free - 1] = r.start
    theta[np.isnan(theta)] = 0.0
    clip(theta, table)
    set_intercepts(objective, theta, sample)
    return theta


def clip(theta: Floats, table: ParameterTable) -> None:
    """Move every parameter within its bounds."""
    for r in table.rows:
        if r.free:
            theta[r.free - 1] = min(max(theta[r.free - 1], r.lower), r.upper)


def level_values(
    rows: Sequence[Parameter], at: Mapping[str, int], matrix: Floats, latent: Sequence[str]
) -> list[float]:
    """Starting value of every row of one level; 0 for intercepts."""
    variance = {name: float(matrix[i, i]) for name, i in at.items()}
    residual = dict(variance)
    loadings = _loadings(rows, latent, at, matrix, variance, residual)
    slopes = _slopes(rows, at, matrix, residual)
    endogenous = {r.lhs for r in rows if r.op == "~"} | {r.rhs for r in rows if r.op == "=~"}
    out = []
    for r in rows:
        if r.op == "=~":
            value = loadings[r.lhs, r.rhs]
        elif r.op == "~":
            value = slopes.get((r.lhs, r.rhs), 0.0)
        elif r.op == "~1":
            value = 0.0
        elif r.lhs == r.rhs:
            value = residual[r.lhs]
        elif r.lhs in at and r.rhs in at and not {r.lhs, r.rhs} & endogenous:
            value = float(matrix[at[r.lhs], at[r.rhs]])
        else:
            value = 0.0
        out.append(value)
    return out


def _loadings(
    rows: Sequence[Parameter],
    latent: Sequence[str],
    at: Mapping[str, int],
    cov: Floats,
    variance: dict[str, float],
    residual: dict[str, float],
) -> dict[tuple[str, str], float]:
    """Loadings of every factor; fills in the variances of the factors and the residuals of their indicators."""
    out: dict[tuple[str, str], float] = {}
    by_factor: dict[str, list[Parameter]] = {name: [] for name in latent}
    for r in rows:
        if r.op == "=~":
            by_factor[r.lhs].append(r)
    fixed_variance = {r.lhs: r.value for r in rows if r.op == "~~" and r.lhs == r.rhs and not r.free}
    for factor in sorted(by_factor, key=lambda f: any(r.rhs in by_factor for r in by_factor[f])):
        members = by_factor[factor]
        pattern = _standard_loadings([r.rhs for r in members], at, cov)
        sizes = [pattern[k] * np.sqrt(variance.get(r.rhs, 1.0)) for k, r in enumerate(members)]
        scale = _factor_sd(members, sizes, fixed_variance.get(factor, np.nan))
        for k, r in enumerate(members):
            value = r.value if not r.free else sizes[k] / scale
            out[factor, r.rhs] = value
            if r.rhs in residual:
                left = residual[r.rhs] - (value * scale) ** 2
                residual[r.rhs] = max(left, 0.2 * variance[r.rhs])
        variance[factor] = residual[factor] = scale**2
    return out


def _standard_loadings(indicators: Sequence[str], at: Mapping[str, int], cov: Floats) -> Floats:
    """Standardized loadings of the factor that the first indicator measures; 0.7 where there are latent ones.

    From the triads r_1j r_1k / r_jk (Spearman, 1904): a factor in the direction of the largest variance would be
    another one when its indicators do not hang together.
    """
    index = [at[name] for name in indicators if name in at]
    if len(index) < max(2, len(indicators)):
        return np.full(len(indicators), 0.7)
    sub = cov[np.ix_(index, index)]
    sd = np.sqrt(np.diag(sub))
    r = sub / np.outer(sd, sd)
    j, k = np.triu_indices(len(r), 1)
    usable = (j > 0) & (np.abs(r[j, k]) > SMALL_CORRELATION)
    triads = r[0, j[usable]] * r[0, k[usable]] / r[j[usable], k[usable]]
    first = float(np.sqrt(np.clip(np.median(triads), 0.3, CLIP**2))) if len(triads) else 0.7
    loadings = r[0] / first
    loadings[0] = first
    small = np.abs(loadings) < SMALL_CORRELATION
    loadings[small] = np.where(loadings[small] < 0, -SMALL_CORRELATION, SMALL_CORRELATION)
    clipped: Floats = np.clip(loadings, -CLIP, CLIP)
    return clipped


def _factor_sd(members: Sequence[Parameter], sizes: Sequence[float], fixed: float) -> float:
    """Standard deviation of a factor in the metric that its fixed loadings, or its fixed variance, give it."""
    if fixed > 0:
        return float(np.sqrt(fixed))
    known = [abs(sizes[k] / r.value) for k, r in enumerate(members) if not r.free and r.value != 0]
    return float(np.median(known)) if known else 1.0


def _slopes(
    rows: Sequence[Parameter], at: Mapping[str, int], cov: Floats, residual: dict[str, float]
) -> dict[tuple[str, str], float]:
    """Least squares for observed outcomes whose predictors are all observed; 0 otherwise."""
    out: dict[tuple[str, str], float] = {}
    by_outcome: dict[str, list[str]] = {}
    for r in rows:
        if r.op == "~":
            by_outcome.setdefault(r.lhs, []).append(r.rhs)
    for outcome, predictors in by_outcome.items():
        if outcome not in at or not all(x in at for x in predictors):
            continue
        x, y = [at[name] for name in predictors], at[outcome]
        slope = np.linalg.solve(cov[np.ix_(x, x)], cov[x, y])
        out |= {(outcome, name): float(b) for name, b in zip(predictors, slope, strict=True)}
        residual[outcome] = max(residual[outcome] - float(slope @ cov[x, y]), 0.1 * float(cov[y, y]))
    return out


def set_intercepts(objective: Objective, theta: Floats, sample: Sample) -> None:
    """Set the free intercepts to reproduce the saturated means as well as they can, given all other values.

    Those that the user has given a start keep it.
    """
    table = objective.table
    given = {r.free for r in table.rows if r.start is not None}
    free = sorted({r.free - 1 for r in table.rows if r.op == "~1" and r.free and r.free not in given})
    if not free:
        return
    parts, gaps, variances = [], [], []
    for i, block in enumerate(objective.blocks):
        n, group = block.nobserved, sample.groups[block.group - 1]
        moments = group.levels[block.level]
        slopes = objective.core.jacobian(theta, i)
        if not slopes.size:  # the model has no moments here, which the search says with its remedy
            return
        parts.append(slopes[:n, free])
        gaps.append(moments.mean - objective.core.implied(theta, i)[0][:n])
        variances.append(np.abs(np.diag(moments.cov)))
        if block.level == 2:
            # the means of variables at both levels are identified by their sum only
            nboth = group.statistics.nboth
            for stack in (parts, gaps, variances):
                stack[-1][:nboth] += stack[-2][:nboth]
                stack[-2] = stack[-2][nboth:]
    design, gap, sd = np.vstack(parts), np.concatenate(gaps), np.sqrt(np.concatenate(variances))
    theta[free] += np.linalg.lstsq(design / sd[:, None], gap / sd, rcond=None)[0]
    clip(theta, table)


def scaled_start(objective: Objective, theta: Floats, sample: Sample, share: float) -> Floats:
    """A cautious second start: paths and covariances shrunk by `share`, variances kept, means reproduced."""
    out = theta.copy()
    for r in objective.table.rows:
        if r.free and (r.op == "~" or (r.op == "~~" and r.lhs != r.rhs)):
            out[r.free - 1] = share * theta[r.free - 1]
    clip(out, objective.table)
    set_intercepts(objective, out, sample)
    return out
