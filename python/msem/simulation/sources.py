"""Draws from a population for a design, by compiled code."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from msem import _core
from msem.data.arrays import LevelArrays
from msem.data.rows import ClusteredData
from msem.errors import ModelError, UnsupportedError
from msem.model.levels import BETWEEN
from msem.simulation.designs import Clusters, Design, require_divided
from msem.simulation.population import Population
from msem.simulation.shapes import Normal, Shape, is_normal


def statistics_draws(
    population: Population, clusters: Sequence[Clusters], shapes: Mapping[int, Shape], seed: int
) -> _core.Draws:
    """Sufficient statistics of samples.

    For normal variables these are drawn themselves: Wishart matrices by the Bartlett (1933) decomposition, and normal
    means. Otherwise rows are drawn and summed up.

    Raises
    ------
    ModelError
        If the population is no distribution, or has no density.
    DataError
        If the samples are one cluster, or clusters of one unit.
    """
    if population.table.nlevels > BETWEEN:
        raise UnsupportedError('samples of three levels are drawn as data: leave out as_="statistics"')
    names, p = population.variables.names, len(population.variables.unit)
    if any(population.table.slopes(group) for group in range(1, len(clusters) + 1)):
        raise UnsupportedError(
            'samples of a population with random slopes have no statistics by cluster size: draw as_="data"'
        )
    for one in clusters:
        require_divided(one)
    if not is_normal(shapes):
        return row_draws(population, clusters, shapes, seed)
    designs = []
    for group, one in enumerate(clusters, 1):
        moments = population.moments(group)
        sizes, counts = one.table()
        m = len(names)
        designs.append(
            {
                "sizes": sizes,
                "counts": counts,
                "means": np.zeros((len(sizes), m)),
                "scatter": np.zeros((len(sizes), m, m)),
                "ssw": np.zeros((p, p)),
                "moments": [(moments[level].mean, moments[level].cov) for level in sorted(moments)],
                "covariate": [],
                "centred": False,
            }
        )
    try:
        return _core.ParametricDraws(designs, seed)
    except ValueError as error:
        raise ModelError(
            f"the population has no density, so that its statistics cannot be drawn: {error}. Give residual variances "
            'that are not zero, or draw as_="data"'
        ) from error


def conditional_draws(
    population: Population, groups: Sequence[ClusteredData], seed: int
) -> tuple[_core.RowDraws, list[tuple[tuple[str, ...], ...]]]:
    """Samples of rows of one level or two given their clusters and covariates, and what is drawn.

    Returns
    -------
    RowDraws
    list of tuple of tuple of str
        Of each group: the variables of each level that are measured there, without the covariates.

    Raises
    ------
    ModelError
        If the population is no distribution.
    UnsupportedError
        With random slopes.
    """
    scale = math.sqrt(3 * population.logistic) / math.pi
    parts, names = [], []
    for group, rows in enumerate(groups, 1):
        table = population.table
        slope = next(iter(table.slopes(group)), None)
        if slope is not None:
            raise UnsupportedError(
                f"{slope.name!r} is a random slope, and samples given the covariates are drawn without any"
            )
        moments = population.without_logistic(group)
        measured = [
            tuple(name for name in own if name not in table.exogenous(level, group))
            for level, own in enumerate(population.variables.measured, 1)
        ]
        drawn = {name: k for k, name in enumerate(name for own in measured for name in own)}
        first = [np.arange(rows.nobs)]
        if len(moments) > 1:
            first.append(np.unique(rows.cluster_of_row, return_index=True)[1])
        levels: list[Any] = []
        given = [np.zeros((len(at), len(own))) for at, own in zip(first, measured, strict=True)]
        for joint, of in zip(moments.values(), (first[0], rows.codes), strict=False):
            own = tuple(name for name in joint.names if name in drawn)
            fixed = tuple(name for name in joint.names if name not in drawn)
            i, j = [joint.at[name] for name in own], [joint.at[name] for name in fixed]
            slopes = np.linalg.lstsq(joint.cov[np.ix_(j, j)], joint.cov[np.ix_(j, i)], rcond=None)[0].T
            residual = joint.cov[np.ix_(i, i)] - slopes @ joint.cov[np.ix_(j, i)]
            mean = joint.mean[i] + (rows.values(fixed) - joint.mean[j]) @ slopes.T
            law = Normal().law(LevelArrays(own, np.zeros(len(own)), residual, len(own)))
            levels.append((law, [drawn[name] for name in own], np.asarray(of).tolist(), []))
            for at, some, values in zip(first, measured, given, strict=True):
                for k, name in enumerate(some):
                    if name in own:
                        values[:, k] += mean[at, own.index(name)]
        cuts = [(drawn[name], own, scale) for name, own in population.cuts(group).items()]
        parts.append((levels, [k for k, own in enumerate(measured) for _ in own], cuts, given))
        names.append(tuple(measured))
    return _core.RowDraws(parts, seed), names


def row_draws(
    population: Population, designs: Sequence[Design], shapes: Mapping[int, Shape], seed: int
) -> _core.RowDraws:
    """Samples unit by unit, of any number of levels; of ordered variables the numbers of the categories.

    Raises
    ------
    ModelError
        If the population is no distribution.
    DataError
        If it cannot have the shapes.
    """
    variables = population.variables
    known = {name: k for k, name in enumerate(variables.names)}
    measured = [level for level, own in enumerate(variables.measured) for _ in own]
    scale = math.sqrt(3 * population.logistic) / math.pi
    groups: list[Any] = []
    for group, design in enumerate(designs, 1):
        moments, products = population.without_logistic(group), population.slopes(group)
        numbers = dict(known)
        for names in (one.names for one in moments.values()):
            for name in names:
                numbers.setdefault(name, len(numbers))
        units = np.arange(design.nobs)
        levels = [
            (
                shapes[level].law(moments[level]),
                [numbers[name] for name in moments[level].names],
                of.tolist(),
                [(numbers[one.slope], one.covariate, one.effects) for one in products.get(level, ())],
            )
            for level, of in enumerate((units, *design.codes), 1)
        ]
        groups.append(
            (
                levels,
                measured,
                [(known[name], own, scale) for name, own in population.cuts(group).items()],
                [],
            )
        )
    return _core.RowDraws(groups, seed)
