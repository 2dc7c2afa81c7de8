"""Draws from a population for a design, by compiled code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.errors import ModelError, UnsupportedError
from msem.simulation.designs import Clusters, require_divided
from msem.simulation.population import Population
from msem.simulation.shapes import Shape, is_normal

Codes = NDArray[np.int64]


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
    unit, cluster, nboth = population.variables.roles
    if any(population.table.slopes(group) for group in range(1, len(clusters) + 1)):
        raise UnsupportedError(
            'samples of a population with random slopes have no statistics by cluster size: draw as_="data"'
        )
    for one in clusters:
        require_divided(one, single=not unit)
    if not is_normal(shapes):
        return row_draws(population, clusters, shapes, seed)
    designs = []
    for group, one in enumerate(clusters, 1):
        moments = population.moments(group)
        sizes, counts = one.table()
        m, p = len(unit) + len(cluster), len(unit)
        between = moments[max(moments)]
        designs.append(
            {
                "sizes": sizes,
                "counts": counts,
                "means": np.zeros((len(sizes), m)),
                "scatter": np.zeros((len(sizes), m, m)),
                "ssw": np.zeros((p, p)),
                "nboth": nboth,
                "mean_w": moments[1].mean if unit else np.empty(0),
                "cov_w": moments[1].cov if unit else np.empty((0, 0)),
                "mean_b": between.mean,
                "cov_b": between.cov,
                "covariate": [],
            }
        )
    try:
        return _core.ParametricDraws(designs, seed, False)
    except ValueError as error:
        raise ModelError(
            f"the population has no density, so that its statistics cannot be drawn: {error}. Give residual variances "
            'that are not zero, or draw as_="data"'
        ) from error


def row_draws(
    population: Population, clusters: Sequence[Clusters], shapes: Mapping[int, Shape], seed: int
) -> _core.RowDraws:
    """Samples unit by unit.

    Raises
    ------
    ModelError
        If the population is no distribution.
    DataError
        If it cannot have the shapes.
    """
    unit, _, nboth = population.variables.roles
    empty = np.empty((0, 0))
    none = (np.empty(0), empty, empty, np.empty(0), 0.0)
    groups = []
    for group, one in enumerate(clusters, 1):
        moments = population.moments(group)
        between = shapes[2 if unit else 1].law(moments[max(moments)])
        within = shapes[1].law(moments[1]) if unit else none
        groups.append((list(one.sizes), nboth, within, between, population.slopes(group)))
    return _core.RowDraws(groups, seed)


def crossed_draws(
    population: Population, codes: Sequence[tuple[Codes, Codes]], shapes: Mapping[int, Shape], seed: int
) -> _core.CrossedRowDraws:
    """Samples of two crossed classifications unit by unit, given the clusters of the units of each group.

    Raises
    ------
    ModelError
        If the population is no distribution.
    """
    variables = population.variables
    groups = []
    for group, own in enumerate(codes, 1):
        moments = population.moments(group)
        laws, added = [], []
        for level, (names, measured) in enumerate(zip(variables.levels, variables.measured, strict=True), 1):
            m = moments[level]
            if level == 1:
                order = [names.index(name) for name in variables.unit]
            else:
                order = [k for k, name in enumerate(names) if name not in measured]
                order += [names.index(name) for name in measured]
                added.append([variables.unit.index(name) for name in names if name not in measured])
            part = replace(
                m, names=tuple(m.names[k] for k in order), mean=m.mean[order], cov=m.cov[np.ix_(order, order)]
            )
            laws.append(shapes[min(level, 2)].law(part))
        groups.append(([one.tolist() for one in own], *laws, added))
    return _core.CrossedRowDraws(groups, seed)
