"""`simulate`: two-level and single-level samples from a model with values, or from a fit."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pandas as pd

from msem.data.frames import ClusteredData
from msem.entry import entry
from msem.errors import ArgumentError, DataError, ModelError, UnsupportedError
from msem.estimation.estimate import require_maximum, require_no_integral
from msem.fits.compiled import CompiledModel, compile
from msem.fits.fit import Fit
from msem.resampling.workers import Origin, require_drawable
from msem.settings import require_choice, require_seed, require_whole
from msem.simulation.datasets import DrawnCrossed, DrawnData
from msem.simulation.designs import Clusters, by_group, read_clusters
from msem.simulation.drawn import DrawnSamples
from msem.simulation.population import Population, fitted_population, population_of
from msem.simulation.shapes import Shape, is_normal, read_distribution
from msem.simulation.sources import crossed_draws, row_draws, statistics_draws

KINDS = ("data", "statistics")


@entry
def simulate(
    model: str | CompiledModel | Fit,
    *,
    nclusters: Any = None,
    cluster_sizes: Any = None,
    nobs: Any = None,
    seed: int | None = None,
    replications: int | None = None,
    as_: str = "data",
    distribution: Any = "normal",
    cluster: str = "cluster",
    group: str = "group",
) -> Any:
    """Draw samples from a population.

    Parameters
    ----------
    model : str, CompiledModel or Fit
        A model in lavaan's language with a value for every parameter, as in ``fw =~ 1*y1 + 0.8*y2`` and
        ``fw ~~ 0.5*fw``, or with ``start(0.8)``. Intercepts and covariances that it does not mention are 0, and
        covariates have mean 0 and variance 1 unless it says otherwise; they are drawn too. Or a fit, whose estimates
        are the population, with the moments of its covariates; samples from a fit to crossed classifications have its
        pairs of clusters.
    nclusters : int, or dict of group to int
        Default for a fit: those of its sample.
    cluster_sizes : int, sequence of int, or dict of size to number of clusters
        One size, sizes that take turns over the clusters (one for each without `nclusters`), or a table; for several
        groups a dict of group to any of these. Default for a fit: those of its sample.
    nobs : int, or dict of group to int
        Rows, for a model of one level.
    seed : int, optional
        From 0 to 2**64 - 1; default: at random. A sample depends on the seed and its number only.
    replications : int, optional
        How many samples; default: one, which is then returned by itself.
    as_ : {"data", "statistics"}
        Data frames, or the sufficient statistics, which for normal variables are drawn without rows and take no
        longer for a million of them: Wishart matrices by the Bartlett (1933) decomposition, and normal means.
    distribution : "normal", MultivariateT, NonNormal, or dict of level to one of these
        Of the part of the variables at each level, "within" and "between".
    cluster, group : str
        Names of the columns with clusters, numbered from 1, and groups in data.

    Returns
    -------
    DataFrame, SampleStatistics, dict of group to SampleStatistics, or a sequence of them
        With `replications` a sequence (`DrawnData`, `DrawnSamples`) whose elements are drawn when they are asked for.

    Raises
    ------
    ModelError
        If a parameter has no value, or the values are no distribution; with the names.
    DataError
        If there are no such clusters, or variables cannot have the distribution.

    References
    ----------
    Bartlett (1933). On the theory of statistical regression. Proc. R. Soc. Edinburgh, 53, 260-283.
    Vale & Maurelli (1983). Simulating multivariate nonnormal distributions. Psychometrika, 48, 465-471.
    Salmon, Moraes, Dror & Shaw (2011). Parallel random numbers: as easy as 1, 2, 3. SC11.
    """
    require_choice("as_", as_, KINDS)
    number = require_seed(seed)
    count = 1 if replications is None else require_whole("replications", replications, 1)
    population = read_population(model)
    if isinstance(model, Fit) and population.table.crossed:
        if nclusters is not None or cluster_sizes is not None or nobs is not None:
            raise DataError(
                "samples of crossed classifications have the pairs of clusters of the fit: leave out nclusters, "
                "cluster_sizes and nobs"
            )
        if as_ != "data":
            raise UnsupportedError('samples of crossed classifications are data: leave out as_="statistics"')
        crossed = _crossed_samples(model, population, read_distribution(distribution), number, count)
        return crossed[0] if replications is None else crossed
    labels, variables = population.table.group_labels, population.variables
    clusters = read_design(population, model, nclusters, cluster_sizes, nobs)
    shapes = read_distribution(distribution)
    if not variables.unit and not is_normal(shapes) and type(shapes[1]) is not type(shapes[2]):
        raise DataError("a model of one level has one distribution: give it without a level")
    samples: DrawnSamples | DrawnData
    if as_ == "statistics":
        origin = Origin(partial(statistics_draws, population, clusters, shapes, number))
        require_drawable(origin)
        samples = DrawnSamples(variables, labels, origin, range(count), number)
    else:
        _require_columns(population, cluster, group)
        rows = row_draws(population, clusters, shapes, number)
        samples = DrawnData(
            variables, labels, tuple(clusters), rows, range(count), number, str(cluster), str(group)
        )
    return samples[0] if replications is None else samples


def _crossed_samples(
    fit: Fit, population: Population, shapes: Mapping[int, Shape], seed: int, count: int
) -> DrawnCrossed:
    """Samples with the clusters of the rows of a fit."""
    identifiers, codes = [], []
    columns = fit.table.clusters[::-1]  # that of level 2 first
    for group in fit.sample.groups:
        rows = group.data
        if not isinstance(rows, ClusteredData) or group.statistics.independent:
            raise DataError("the fit has no rows of crossed classifications, whose pairs samples would have")
        own = rows.codes_of(2), rows.codes_of(3)
        ids = rows.ids_of(2, columns[1]), rows.clusters
        codes.append(own)
        identifiers.append(pd.DataFrame({n: i[c] for n, i, c in zip(columns, ids, own, strict=True)}))
    draws = crossed_draws(population, codes, shapes, seed)
    labels, column = population.table.group_labels, fit.options.group or "group"
    return DrawnCrossed(
        population.variables, labels, tuple(identifiers), tuple(codes), draws, range(count), seed, column
    )


def read_population(model: str | CompiledModel | Fit) -> Population:
    """The population that a text, a compiled model or a fit says.

    Raises
    ------
    ModelError
        If a parameter has no value, the values are no distribution, or the fit has not converged.
    TypeError
        For anything else.
    """
    if isinstance(model, Fit):
        require_maximum(model.estimate, "simulations")
        require_no_integral(model.estimate, "simulations")
        population = fitted_population(model.table, model.estimate.theta)
    elif isinstance(model, (str, CompiledModel)):
        population = population_of((compile(model) if isinstance(model, str) else model).table)
    else:
        raise ArgumentError(
            f"a population is a model text, a compiled model or a fit, not {type(model).__name__}"
        )
    for number in range(1, population.table.ngroups + 1):
        population.moments(number)
    return population


def read_design(
    population: Population, model: Any, nclusters: Any, cluster_sizes: Any, nobs: Any
) -> list[Clusters]:
    """Clusters of each group, by default those of the sample of a fit.

    Raises
    ------
    DataError
        If they are missing, or not for this model.
    """
    labels = population.table.group_labels
    if not population.table.multilevel:
        if nclusters is not None or cluster_sizes is not None:
            raise DataError("the population has one level: give nobs, the number of rows, and no clusters")
        given = _fit_nobs(model) if nobs is None and isinstance(model, Fit) else by_group(nobs, labels)
        if any(one is None for one in given):
            raise DataError("give nobs, the number of rows")
        return [Clusters((1,) * require_whole("nobs", one, 1)) for one in given]
    if nobs is not None:
        raise DataError("the population has two levels: give nclusters and cluster_sizes, and no nobs")
    if nclusters is None and cluster_sizes is None and isinstance(model, Fit):
        return [read_clusters(None, sizes) for sizes in _fit_sizes(model)]
    pairs = zip(by_group(nclusters, labels), by_group(cluster_sizes, labels), strict=True)
    return [read_clusters(count, sizes) for count, sizes in pairs]


def _fit_nobs(fit: Fit) -> list[int]:
    return [round(s.nobs) for s in fit.sample.statistics]


def _fit_sizes(fit: Fit) -> list[dict[int, int]]:
    """Table of cluster sizes of each group of a fit."""
    out = []
    for s in fit.sample.statistics:
        if any(not float(x).is_integer() for x in (*s.sizes, *s.counts)):
            raise DataError(
                "the fit does not know the sizes of its clusters: give nclusters and cluster_sizes"
            )
        out.append({int(n): int(count) for n, count in zip(s.sizes, s.counts, strict=True)})
    return out


def _require_columns(population: Population, cluster: str, group: str) -> None:
    taken = [*population.variables.names]
    used = [cluster] * population.table.multilevel + [group] * (population.table.ngroups > 1)
    for name in used:
        if name in taken:
            raise ModelError(
                f"{name!r} is a variable of the model: give the column of clusters or groups another name"
            )
        taken.append(name)
