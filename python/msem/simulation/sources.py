"""Draws from a population for a design, by compiled code."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from msem import _core
from msem.errors import ModelError, UnsupportedError
from msem.model.levels import BETWEEN
from msem.simulation.designs import Clusters, Design, require_divided
from msem.simulation.population import Population
from msem.simulation.shapes import Shape, is_normal


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
    groups = []
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
            (levels, measured, [(known[name], own, scale) for name, own in population.cuts(group).items()])
        )
    return _core.RowDraws(groups, seed)
