"""Reliability of sum scores by level: omega, alpha, maximal reliability, and the coefficients of two-level scores.

Coefficients of the factor model (omega, h, ave) are functions of the estimates; alpha and the interrater reliability
need no factor and are functions of the saturated covariance matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.errors import ModelError
from msem.estimation.matrices import Model, Numbers
from msem.estimation.solution import Solution, free_vcov
from msem.model.levels import Level, rows_at
from msem.model.partable import ParameterTable
from msem.postestimation.delta import Intervals, MonteCarlo, Quantity, shares
from msem.postestimation.ordered_reliability import Composite, ordered_reliability
from msem.postestimation.ram import Block, Structure, divide, structures
from msem.postestimation.unrestricted import Unrestricted, saturated_moments
from msem.settings import several

Floats = NDArray[np.float64]
Blocks = Mapping[Block, Structure]

COLUMNS = ("factor", "level", "group", "coefficient", "items", "est", "se", "ci_lower", "ci_upper")
SINGULAR = 1e-10  # smallest eigenvalue of a correlation matrix that counts as positive


@dataclass(frozen=True, eq=False)
class Coefficient:
    """One reliability coefficient.

    Attributes
    ----------
    factor : str
    level : int
        0 for a score that has parts at both levels.
    group : int
    name : str
    items : tuple of str
    saturated : bool
        Whether it is a function of the saturated covariance matrices, rather than of the model.
    value : callable
        From blocks to the coefficient, shape (...,).
    """

    factor: str
    level: int
    group: int
    name: str
    items: tuple[str, ...]
    saturated: bool
    value: Callable[[Blocks], Numbers]


def coefficients(
    found: Sequence[Composite], sizes: Mapping[int, float], pairs: Mapping[str, str]
) -> list[Coefficient]:
    """All coefficients of the composites.

    Parameters
    ----------
    found : sequence of Composite
    sizes : mapping of int to float
        Harmonic mean of the cluster sizes of each group; empty for a single-level model.
    pairs : mapping of str to str
        Between factor of a within factor, where names and items do not tell.
    """
    out = []
    for c in found:
        out += _one_level(c)
        if c.level == 2:
            out += _cluster_means(c, sizes[c.group])
    for within, between in matched(found, pairs):
        out += _raw_scores(within, between)
    return sorted(out, key=lambda one: one.group)


def _one_level(c: Composite) -> list[Coefficient]:
    make = partial(Coefficient, c.factor, c.level, c.group)
    return [
        make("omega", c.items, False, lambda blocks: divide(_true(blocks, c), _variance(blocks, c))),
        make("alpha", c.items, True, lambda blocks: _alpha(*_consistency(blocks, c), len(c.items))),
        make("h", c.items, False, lambda blocks: _maximal(blocks, c)),
        make("ave", c.items, False, lambda blocks: _extracted(blocks, c)),
    ]


def _cluster_means(c: Composite, size: float) -> list[Coefficient]:
    """Of the cluster means of the scores, which units of a finite cluster are drawn for (Lai, 2021)."""

    def total(blocks: Blocks) -> Numbers:
        return _variance(blocks, c) + _variance(blocks, c, 1) / size

    def alpha(blocks: Blocks) -> Numbers:
        between, _ = _consistency(blocks, c)
        k = len(c.items)
        return divide(k / (k - 1) * between, total(blocks))

    make = partial(Coefficient, c.factor, c.level, c.group)
    return [
        make("omega_b", c.items, False, lambda blocks: divide(_true(blocks, c), total(blocks))),
        make("alpha_b", c.items, True, alpha),
        make("irr", c.items, True, lambda blocks: divide(_variance(blocks, c), total(blocks))),
    ]


def _raw_scores(within: Composite, between: Composite) -> list[Coefficient]:
    """Of the scores of units, within and between parts together (Lai, 2021)."""
    name = within.factor if within.factor == between.factor else f"{within.factor} + {between.factor}"

    def omega(blocks: Blocks) -> Numbers:
        true = _true(blocks, within) + _true(blocks, between)
        return divide(true, _variance(blocks, within) + _variance(blocks, between))

    def alpha(blocks: Blocks) -> Numbers:
        (common, total), (common_b, total_b) = _consistency(blocks, within), _consistency(blocks, between)
        return _alpha(common + common_b, total + total_b, len(within.items))

    make = partial(Coefficient, name, 0, within.group)
    return [make("omega_2l", within.items, False, omega), make("alpha_2l", within.items, True, alpha)]


def _true(blocks: Blocks, c: Composite) -> Numbers:
    """Variance of the composite that is the factor's own: (sum of weighted loadings)^2 times its variance."""
    own = blocks[c.level, c.group]
    at = own.at[c.factor]
    loading = own.from_to(c.factor, c.items) @ np.array(c.weights)
    true: Numbers = loading**2 * own.cov[..., at, at]
    return true


def _variance(blocks: Blocks, c: Composite, level: int | None = None) -> Numbers:
    """Variance of the composite at its own level, or another."""
    weights = np.array(c.weights)
    variance: Numbers = blocks[level or c.level, c.group].among(c.items) @ weights @ weights
    return variance


def _consistency(blocks: Blocks, c: Composite) -> tuple[Numbers, Numbers]:
    """Sum of the covariances of different (weighted) items, and of all their (co)variances."""
    cov = blocks[c.level, c.group].among(c.items)
    total = _variance(blocks, c)
    own = np.diagonal(cov, axis1=-2, axis2=-1) @ np.square(c.weights)
    return total - own, total


def _alpha(common: Numbers, total: Numbers, items: int) -> Numbers:
    return divide(items / (items - 1) * common, total)


def _maximal(blocks: Blocks, c: Composite) -> Numbers:
    """Reliability of the best weighted composite, psi lambda' Sigma^-1 lambda (Hancock & Mueller, 2001).

    In this form it holds with correlated residuals and cross-loadings too. Values above 1, of negative residual
    variances, are nan.
    """
    own = blocks[c.level, c.group]
    at, loading, cov = own.at[c.factor], own.from_to(c.factor, c.items), own.among(c.items)
    variance = np.diagonal(cov.real, axis1=-2, axis2=-1)
    scale = np.sqrt(np.where(variance > 0, variance, 1.0))
    smallest = np.linalg.eigvalsh(cov.real / (scale[..., None] * scale[..., None, :]))[..., 0]
    proper = (smallest > SINGULAR)[..., None, None]
    solved = np.linalg.solve(np.where(proper, cov, np.eye(len(c.items))), loading[..., None])[..., 0]
    best: Numbers = own.cov[..., at, at] * np.sum(loading * solved, axis=-1)
    return np.where(proper[..., 0, 0] & (best.real <= 1 + SINGULAR), best, np.nan)


def _extracted(blocks: Blocks, c: Composite) -> Numbers:
    """Average variance extracted (Fornell & Larcker, 1981): mean share of the factor in its items' variances."""
    own = blocks[c.level, c.group]
    at, loading = own.at[c.factor], own.from_to(c.factor, c.items)
    variance = np.diagonal(own.among(c.items), axis1=-2, axis2=-1)
    share: Numbers = divide(loading**2 * own.cov[..., at, at][..., None], variance).mean(axis=-1)
    return share


def reliability_frame(
    wanted: Sequence[Coefficient],
    model: Model,
    theta: Floats,
    vcov: Floats,
    saturated: Mapping[int, Unrestricted],
    *,
    ci_level: float = 0.95,
    how: MonteCarlo | None = None,
) -> pd.DataFrame:
    """Tabulate reliability coefficients.

    Parameters
    ----------
    wanted : sequence of Coefficient
    model : Model
    theta, vcov : ndarray, shapes (npar,) and (npar, npar)
        Estimates and their sampling covariance.
    saturated : mapping of int to Unrestricted
        By group.
    ci_level : float
        Coverage of the intervals.
    how : MonteCarlo or None
        Draws for Monte Carlo intervals; None for Wald intervals on the logit scale.

    Returns
    -------
    DataFrame
        Columns `COLUMNS`.
    """
    numbers = np.full((len(wanted), 4), np.nan)
    own = [k for k, one in enumerate(wanted) if not one.saturated]
    quantity = _stack([wanted[k] for k in own], partial(structures, model))
    numbers[own] = shares(quantity, theta, vcov, ci_level, how)
    for group, moments in saturated.items():
        own = [k for k, one in enumerate(wanted) if one.saturated and one.group == group]
        free = _stack([wanted[k] for k in own], moments.blocks)
        numbers[own] = shares(free, moments.vector, moments.gamma, ci_level, how)
    names = [(c.factor, c.level, c.group, c.name, ", ".join(c.items)) for c in wanted]
    rows = [(*name, *row) for name, row in zip(names, numbers.tolist(), strict=True)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _stack(wanted: Sequence[Coefficient], blocks: Callable[[Numbers], Blocks]) -> Quantity:
    def quantity(theta: Numbers) -> Numbers:
        at = blocks(theta)
        values = [one.value(at) for one in wanted]
        return np.stack(values, axis=-1) if values else np.empty((*theta.shape[:-1], 0))

    return quantity


def composites(
    table: ParameterTable, factors: Sequence[str] | None, weights: Mapping[str, float]
) -> list[Composite]:
    """Composites of the factors that have at least two indicators, all of them observed.

    Parameters
    ----------
    table : ParameterTable
    factors : sequence of str or None
        Factors wanted; None for all that have a composite.
    weights : mapping of str to float
        Of items; 1 for those not named.

    Raises
    ------
    ModelError
        If a factor that is wanted has no composite, or none has, or a weight is given to no item; the message says
        why.
    """
    found, refused = [], {}
    for level, group in _blocks(table):
        for factor in table.latent(level, group):
            if factors is not None and factor not in factors:
                continue
            items = _indicators(table, factor, level, group)
            reason = _reason(items, table.latent(level, group))
            if reason:
                refused[factor] = reason
            else:
                found.append(
                    Composite(factor, level, group, items, tuple(weights.get(i, 1.0) for i in items))
                )
    _check_known(table, factors, refused, found)
    _check_weights(weights, found)
    return found


def matched(found: Sequence[Composite], pairs: Mapping[str, str]) -> Iterator[tuple[Composite, Composite]]:
    """Pair within with between factors: those given, those of the same name, and those of the same items.

    Parameters
    ----------
    found : sequence of Composite
    pairs : mapping of str to str
        Name of the between factor by that of the within factor.

    Raises
    ------
    ModelError
        If the factors of a given pair do not have the same indicators.
    """
    within, between = ([c for c in found if c.level == level] for level in (1, 2))
    for one in within:
        name = pairs.get(one.factor, one.factor)
        rest = [c for c in between if c.group == one.group]
        partners = [c for c in rest if c.factor == name]
        if one.factor in pairs:
            _check_pair(one, partners, name)
        same = [c for c in rest if set(c.items) == set(one.items)]
        alike = [c for c in within if c.group == one.group and set(c.items) == set(one.items)]
        partners = [c for c in partners if c in same] or (same if len(same) == len(alike) == 1 else [])
        if partners:
            yield one, partners[0]


def _check_pair(one: Composite, partners: Sequence[Composite], name: str) -> None:
    if not partners:
        raise ModelError(f"pairs: {name!r} is no factor of the between level with two observed indicators")
    if set(partners[0].items) != set(one.items):
        raise ModelError(
            f"pairs: {one.factor} (of {', '.join(one.items)}) and {name} (of {', '.join(partners[0].items)}) do not "
            "have the same indicators, so there is no score that both are measured by"
        )


def _blocks(table: ParameterTable) -> list[tuple[int, int]]:
    return list(dict.fromkeys((row.level, row.group) for row in table.rows if row.op == "=~"))


def _indicators(table: ParameterTable, factor: str, level: int, group: int) -> tuple[str, ...]:
    return tuple(
        row.rhs
        for row in table.block(level, group)
        if row.op == "=~" and row.lhs == factor and (row.free or row.value != 0)
    )


def _reason(items: Sequence[str], latent: Sequence[str]) -> str:
    if any(item in latent for item in items):
        return "it is measured by latent variables, so no sum of its own indicators was observed"
    return "" if len(items) > 1 else "it has fewer than two indicators"


def _check_known(
    table: ParameterTable,
    factors: Sequence[str] | None,
    refused: Mapping[str, str],
    found: Sequence[Composite],
) -> None:
    have = {c.factor for c in found}
    known = {name for block in _blocks(table) for name in table.latent(*block)}
    for name in factors or ():
        if name not in known:
            raise ModelError(
                f"{name!r} is no factor of the model; it has {', '.join(sorted(known)) or 'none'}"
            )
        if name not in have:
            raise ModelError(f"no reliability for {name}: {refused[name]}")
    if not found:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
        raise ModelError(
            "no factor has a composite of observed indicators" + (f" ({reasons})" if reasons else "")
        )


def _check_weights(weights: Mapping[str, float], found: Sequence[Composite]) -> None:
    items = {item for c in found for item in c.items}
    for name in weights:
        if name not in items:
            raise ModelError(
                f"weights: {name!r} is no indicator of these factors; they have {', '.join(sorted(items))}"
            )


def reliability(
    fit: Solution,
    factors: str | Sequence[str] | None = None,
    *,
    pairs: Mapping[str, str] | None = None,
    weights: Mapping[str, float] | None = None,
    level: Level | None = None,
    ci_level: float = 0.95,
    method: Intervals = "delta",
    draws: int = 20_000,
    seed: int = 1,
) -> pd.DataFrame:
    """Reliability of sum scores by level.

    Parameters
    ----------
    factors : str or sequence of str, optional
        Default: all factors with at least two indicators, all of them observed.
    pairs : mapping of str to str, optional
        Between-level name of the factor of a within-level name, for the scores that have both parts. By default
        factors are paired that have the same name, or are the only ones with these indicators.
    weights : mapping of str to float, optional
        Weights of items in the sums, 1 by default: -1 for a reversed item.
    level : {1, 2, "within", "between"}, optional
        Rows of this level only.
    ci_level : float
        Coverage of the intervals.
    method : {"delta", "monte_carlo"}
        Wald intervals of the logit, or percentiles of draws from the sampling distribution of the estimates; se
        is then the standard deviation of the draws.
    draws, seed : int
        Of Monte Carlo intervals. The same seed gives the same table.

    Returns
    -------
    DataFrame
        Columns factor, level, group, coefficient, items, est, se, ci_lower, ci_upper. Coefficients, `w` being
        the weights, `S_l` covariance matrices of the items at level l and n the harmonic mean cluster size:

        - ``omega``: McDonald's, (w'lambda)^2 psi / w'S_l w, of the level's part of the score (Geldhof, Preacher
          & Zyphur, 2014), with the model-implied S_l;
        - ``alpha``: Cronbach's, of the saturated S_l;
        - ``h``: maximal reliability; ``ave``: average variance extracted;
        - ``omega_b``, ``alpha_b``: of observed cluster means: the between numerator over
          w'S_2 w + w'S_1 w / n (Lai, 2021); ``irr`` = w'S_2 w over the same, the interrater reliability;
        - ``omega_2l``, ``alpha_2l`` (level 0): of scores of units, numerators and denominators summed over levels.

        Where a model has ordered variables, the scores are sums of the numbers of categories, and there are ``omega``,
        ``omega_b`` and ``omega_2l`` of them after Green & Yang (2009): shares of the variance of observed sums, not of
        the y*. Between clusters they are of the expected sum given all that its clusters share, within clusters of
        deviations from it.

    Raises
    ------
    ModelError
        If a factor has no such score; the message says why.
    UnsupportedError
        For ordered variables with ``link="logit"``, and where a random slope changes the covariate of another.

    Notes
    -----
    With random slopes there are no saturated moments, and implied ones depend on the covariates. All coefficients are
    then functions of the implied covariance matrices: within clusters of their average over the units, to which slopes
    add their variance times that of their covariates (Rights & Sterba, 2019), between clusters of those at covariates
    of 0, as in the model.

    References
    ----------
    Green & Yang (2009). Reliability of summed item scores using structural equation modeling: An alternative to
    coefficient alpha. Psychometrika, 74, 155-167. Rights & Sterba (2019). Psychological Methods, 24, 309-338.
    """
    wanted = None if factors is None else several(factors)
    found = composites(fit.table, wanted, weights or {})
    if fit.table.ordered.thresholds:
        how = MonteCarlo.chosen(method, draws, seed)
        rows = ordered_reliability(fit, found, tuple(matched(found, pairs or {})), ci_level, how)
        return rows_at(pd.DataFrame(rows, columns=list(COLUMNS)), level, fit.table)
    sizes = {group: s.harmonic_size for group, s in enumerate(fit.sample.statistics, 1)}
    chosen = coefficients(found, sizes, pairs or {})
    if fit.has_slopes:
        chosen = [replace(one, saturated=False) for one in chosen]
    frame = reliability_frame(
        chosen,
        fit.model,
        fit.theta,
        free_vcov(fit),
        {} if fit.has_slopes else saturated_moments(fit),
        ci_level=ci_level,
        how=MonteCarlo.chosen(method, draws, seed),
    )
    return rows_at(frame, level, fit.table)
