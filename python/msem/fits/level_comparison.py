"""Tests of nested models of one level that were fitted by themselves to the same saturated moments.

The difference of two likelihood ratios is a chi-square where the sample sizes tell how precise the moments are. That of
two discrepancies, or with a Gamma of its own, is a weighted sum of chi-squares with the weights of the restriction at
the estimates of the larger model (Satorra, 2000; Asparouhov & Muthen, 2010).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.checks import matching_names
from msem.data.grouped_moments import GroupedMoments
from msem.errors import DataError, ImproperSolutionWarning, ModelError, warn
from msem.estimation.discrepancy import least_squares_loss
from msem.estimation.estimate import require_converged
from msem.estimation.objective import build_objective
from msem.estimation.optimize import minimize
from msem.estimation.problems import Problem
from msem.fits.one_level import score_parts, standard_unit
from msem.fits.segregated import LevelFit, SegregatedFit
from msem.model.levels import names_of_levels
from msem.postestimation.likelihood_ratio import (
    UNTESTED,
    LikelihoodRatio,
    comparison_table,
    restriction_weights,
    shifted_ratio,
)
from msem.postestimation.nested import ATTAINED, directions, embed, require_comparable

Floats = NDArray[np.float64]

SAME = 1e-6  # relative difference of moments, or of statistics, that is rounding
LOWER = 1e-4  # by which -2 log L of the larger model may be above that of the smaller one


def compare_segregated(models: Mapping[str, SegregatedFit], *, shifted: bool) -> pd.DataFrame:
    """Tests of nested models at each level: as `compare_levels`, with the level as first index."""
    depths = {fit.nlevels: name for name, fit in models.items()}
    if len(depths) > 1:
        raise DataError(f"{' and '.join(depths.values())} have different numbers of levels")
    (depth,) = depths
    words = names_of_levels(depth)
    tables = {
        words[level]: compare_levels(
            {name: fit.levels[level - 1] for name, fit in models.items()}, shifted=shifted
        )
        for level in range(1, depth + 1)
    }
    return pd.concat(tables, names=["level", "model"])


def compare_levels(models: Mapping[str, LevelFit], *, shifted: bool) -> pd.DataFrame:
    """Tests of nested models of one level.

    Parameters
    ----------
    models : mapping of str to LevelFit
        Fitted to the same moments by the same method.
    shifted : bool
        Match the variance of a weighted sum too where likelihood ratios have a Gamma of their own; differences of
        discrepancies always do.

    Returns
    -------
    DataFrame
        A row for each model, the one with most parameters first; see `compare_models`. Models with the same parameters
        have no test against each other.

    Raises
    ------
    DataError
        If moments or variables differ.
    ModelError
        If a model does not contain the next one, or one has not converged.
    """
    for name, fit in models.items():
        require_converged(fit.estimate, f"tests of {name}")
    ordered = sorted(models, key=lambda name: models[name].df)
    rows = {name: _row(models[name]) for name in ordered}
    for large, small in itertools.pairwise(ordered):
        test = _test(models[small], models[large], (small, large), shifted=shifted)
        grouped = models[small].grouped
        units = grouped.units_of(models[small].level)
        rows[small] |= {"df_diff": 0} if test is None else test.columns(units, len(grouped.groups))
    return comparison_table(rows).rename_axis("model")


def _row(fit: LevelFit) -> dict[str, Any]:
    held = fit.estimate.table.npar - fit.estimate.nfree
    values = {"npar": fit.npar - held, "df": fit.df, "chisq": _statistic(fit)}
    return {**values, **UNTESTED}


def _statistic(fit: LevelFit) -> float:
    """The likelihood ratio, or the minimum of the discrepancy, that has not been scaled."""
    return float(fit.tests["statistic"].iloc[0]) if fit.discrepancy is None else fit.discrepancy.statistic


def _test(
    small: LevelFit, large: LevelFit, names: tuple[str, str], *, shifted: bool
) -> LikelihoodRatio | None:
    lower, upper = names
    if small.method != large.method or small.level != large.level:
        raise ModelError(f"{lower} and {upper} are fits of different levels, or by different methods")
    require_comparable(small.estimate, large.estimate, names)
    _require_same_moments(small.grouped, large.grouped, names)
    one, two = _statistic(small), _statistic(large)
    df = small.df - large.df
    if df == 0 and abs(one - two) <= SAME * max(one, two, 1.0):
        return None  # what they differ in is at another level
    if df == 0:
        raise ModelError(
            f"{lower} and {upper} have the same degrees of freedom ({small.df}) at level {small.level}: neither is "
            "nested in the other; compare their estimates with msem.compare"
        )
    warn_of_bounds(small, large, names)
    contained, gap = _containment(small, large)
    if not contained:
        raise ModelError(
            f"{lower} is not nested in {upper}: fitted to the moments that {lower} implies at level {small.level}, "
            f"{upper} has a discrepancy of {gap:.3g}, where a model that contains the other has 0"
        )
    if two > one + LOWER:
        raise ModelError(
            f"{upper} contains {lower}, yet it fits level {small.level} worse ({two:.4f} and {one:.4f}): it stopped at "
            f"a place that is not the best; fit it again from other start() values, such as the estimates of {lower}"
        )
    difference = max(one - two, 0.0)
    if large.discrepancy is None and not large.scaled:
        return LikelihoodRatio(difference, df, 1.0, 0.0, "standard")
    weights = _weights(small, large)
    if shifted or large.discrepancy is not None:
        return shifted_ratio(difference, weights, df, "satorra_2000")
    scaling = float(weights.sum()) / df
    return LikelihoodRatio(difference / scaling, df, scaling, 0.0, "satorra_2000")


def _weights(small: LevelFit, large: LevelFit) -> Floats:
    """Weights of the chi-squares that the difference is a sum of."""
    found = large.estimate
    basis = found.equality_tangent
    left, _ = directions(small.estimate, found, found.theta, basis)
    if large.discrepancy is None:
        parts = score_parts(found, large.grouped, basis, robust=large.gamma == "robust")
        information, meat = parts.information, parts.meat
    else:
        middle = large.discrepancy.jacobian.T @ large.discrepancy.weight
        information = middle @ large.discrepancy.jacobian
        meat = middle @ large.discrepancy.gamma @ middle.T
    inside = np.linalg.lstsq(basis, left, rcond=None)[0].astype(np.float64)
    return restriction_weights(information, meat, np.eye(basis.shape[1]), inside)


class Judged(Protocol):
    """What is wrong with a fit, or a saved one."""

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Causes and remedies."""


def warn_of_bounds(small: Judged, large: Judged, names: tuple[str, str]) -> None:
    """Degrees of freedom do not count inequality constraints and bounds that are active."""
    known = {problem.cause for problem in large.problems}
    for problem in small.problems:
        if problem.name == "boundary" and problem.cause not in known:
            warn(
                f"{names[0]}: {problem.cause}. The test against {names[1]} does not count them: it is approximate",
                ImproperSolutionWarning,
            )


def _containment(small: LevelFit, large: LevelFit) -> tuple[bool, float]:
    """Whether the larger model contains the smaller one, and what it leaves of the moments that this implies."""
    if large.discrepancy is None:
        embedding = embed(small.estimate, large.estimate)
        return embedding.nested, embedding.discrepancy
    means = large.grouped.is_highest(large.level)
    losses = []
    for number, (one, s) in enumerate(zip(large.grouped.groups, large.sample.statistics, strict=True), 1):
        implied = small.estimate.objective.moments_of(1, small.estimate.theta, number).observed
        at = [implied.at[name] for name in s.variables.names]
        unit = standard_unit(one, large.level)
        mean = implied.mean[at] if means else None
        losses.append(least_squares_loss(implied.cov[np.ix_(at, at)], mean, unit, s.nobs))
    objective = build_objective(large.estimate.table, large.sample.statistics, losses)
    gap = float(minimize(objective, large.estimate.theta).value)
    return gap < ATTAINED, gap


def _require_same_moments(small: GroupedMoments, large: GroupedMoments, names: tuple[str, str]) -> None:
    """Refuse fits to other groups or moments.

    Raises
    ------
    DataError
    """
    first, second = names
    if small.labels != large.labels:
        raise DataError(f"{first} and {second} have different groups, or these in another order")
    for one, two in zip(small.groups, large.groups, strict=True):
        mine, theirs = one.vector, two.vector
        order = matching_names(list(mine.index), list(theirs.index))
        if set(order) != set(theirs.index):
            raise DataError(f"{first} and {second} have different variables, or these at different levels")
        values = theirs[order].to_numpy()
        if np.any(np.abs(mine.to_numpy() - values) > SAME * np.abs(values).max()):
            raise DataError(f"{first} and {second} were fitted to different data: their moments differ")
