"""`simulate`: two-level and single-level samples from a model with values, or from a fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from msem.data.draws import DrawsOrigin, require_drawable
from msem.data.rows import ClusteredData
from msem.data.sample import Group
from msem.data.shapes import one_by_one, rounded_shapes
from msem.entry import entry
from msem.errors import ArgumentError, DataError, ModelError, UnsupportedError
from msem.estimation.estimate import require_converged
from msem.fits.categories import named_thresholds
from msem.fits.compiled import CompiledModel, compile, group_names
from msem.fits.fit import Fit
from msem.fits.sem import table_of
from msem.language.syntax import with_constraints
from msem.model.levels import BETWEEN, number_of_levels
from msem.model.partable import ParameterTable
from msem.settings import Settings, require_choice, require_seed, require_whole
from msem.simulation.datasets import DrawnData
from msem.simulation.designs import Clusters, Design, Pairs, by_group, read_clusters, read_pairs
from msem.simulation.drawn import DrawnSamples
from msem.simulation.population import Population, fitted_population, population_of
from msem.simulation.shapes import read_distribution
from msem.simulation.sources import row_draws, statistics_draws

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
    cluster: Any = None,
    group: str | None = None,
) -> Any:
    """Draw samples from a population.

    Parameters
    ----------
    model : str, CompiledModel or Fit
        A model in lavaan's language with a value for every parameter, as in ``fw =~ 1*y1 + 0.8*y2`` and
        ``fw ~~ 0.5*fw``, or with ``start(0.8)``. Intercepts and covariances that it does not mention are 0, and
        covariates have mean 0 and variance 1 unless it says otherwise; they are drawn too. What only predicts is a
        covariate, whether or not its moments are written. Variables with thresholds,
        ``y1 | -0.5*t1 + 0.5*t2``, are ordered: what they are cut from has variance 1 given the covariates at one level,
        and residual variance 1 at the lower of two; their categories are 0, 1, ... Or a fit, whose estimates
        are the population, with the moments of its covariates; samples from a fit to crossed classifications have its
        pairs of clusters.
    nclusters : int, pair, or dict of group to one of these
        Of three levels a pair: the number of the highest clusters, and that of the clusters within each of them, one
        number or several that take turns, as in ``(40, 5)`` or ``(40, [4, 5, 6])``. Of crossed classifications the
        numbers of clusters of both, in the order of `cluster`. Default for a fit: those of its sample.
    cluster_sizes : int, sequence of int, or dict of size to number of clusters
        One size, sizes that take turns over the lowest clusters (one for each without `nclusters`), or a table; for
        several groups a dict of group to any of these. Default for a fit: those of its sample.
    nobs : int, or dict of group to int
        Rows, for a model of one level. Units of crossed classifications, for a model text: the clusters of the one with
        more take turns, those of the other are drawn at random, the same in all samples of a seed.
    seed : int, optional
        From 0 to 2**64 - 1; default: at random. A sample depends on the seed and its number only.
    replications : int, optional
        How many samples; default: one, which is then returned by itself.
    as_ : {"data", "statistics"}
        Data frames, or the sufficient statistics, which for normal variables are drawn without rows and take no
        longer for a million of them: Wishart matrices by the Bartlett (1933) decomposition, and normal means.
    distribution : "normal", MultivariateT, NonNormal, or dict of level to one of these
        Of the part of the variables at each level, "within" and "between", or 1, 2 and 3.
    cluster : str or sequence of str, optional
        Names of the columns with clusters, the highest first, or ``"pupil * school"`` for crossed ones, with a model
        text of three levels; clusters are numbered from 1. Default: those of the data of a fit, else ``"cluster"``, of
        three levels ``"cluster3"`` and ``"cluster2"``.
    group : str, optional
        Name of the column with groups. Default: that of the data of a fit, else ``"group"``.

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
    population = read_population(model, cluster)
    table = population.table
    designs = read_design(population, model, nclusters, cluster_sizes, nobs, seed=number)
    shapes = read_distribution(distribution, table)
    samples: DrawnSamples | DrawnData
    if as_ == "statistics":
        clusters = [one for one in designs if isinstance(one, Clusters)]
        if len(clusters) < len(designs):
            raise UnsupportedError('samples of crossed classifications are data: leave out as_="statistics"')
        if table.ordered.thresholds:
            raise UnsupportedError('samples of ordered variables are data: leave out as_="statistics"')
        origin = DrawsOrigin(partial(statistics_draws, population, clusters, shapes, number))
        require_drawable(origin)
        samples = DrawnSamples(population.variables, table.group_labels, origin, range(count), number)
    else:
        columns, column = _columns(model, population, cluster, group)
        rows = row_draws(population, designs, shapes, number)
        samples = DrawnData(
            population.variables,
            table.group_labels,
            tuple(designs),
            rows,
            range(count),
            number,
            columns,
            column,
            drawn_categories(population, model),
        )
    return samples[0] if replications is None else samples


def _pairs(fit: Fit) -> list[Design]:
    """The clusters of the rows of a fit to crossed classifications."""
    out: list[Design] = []
    for group in fit.sample.groups:
        rows = group.data
        if not isinstance(rows, ClusteredData) or group.statistics.independent:
            raise DataError("the fit has no rows of crossed classifications, whose pairs samples would have")
        codes = tuple(rows.codes_of(level) for level in (2, 3))
        out.append(Pairs(codes, (rows.ids_of(2, fit.table.clusters[0]), rows.clusters)))
    return out


def read_population(model: str | CompiledModel | Fit, cluster: Any = None) -> Population:
    """The population that a text, a compiled model or a fit says; `cluster` are columns of clusters.

    Raises
    ------
    ModelError
        If a parameter has no value, the values are no distribution, or the fit has not converged.
    TypeError
        For anything else.
    """
    if isinstance(model, Fit):
        require_converged(model.estimate, "simulations")
        population = fitted_population(model.table, model.estimate.theta)
    elif isinstance(model, (str, CompiledModel)):
        population = population_of(_table_of_text(model, cluster) if isinstance(model, str) else model.table)
    else:
        raise ArgumentError(
            f"a population is a model text, a compiled model or a fit, not {type(model).__name__}"
        )
    for number in range(1, population.table.ngroups + 1):
        population.moments(number)
    return population


def read_design(
    population: Population, model: Any, nclusters: Any, cluster_sizes: Any, nobs: Any, *, seed: int = 0
) -> list[Design]:
    """Clusters of each group, by default those of the sample of a fit; pairs of crossed ones by the seed.

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
        return [Clusters((1,) * require_whole("nobs", one, 1), multilevel=False) for one in given]
    if population.table.crossed:
        if not isinstance(model, Fit):
            pairs = zip(by_group(nclusters, labels), by_group(nobs, labels), strict=True)
            return [read_pairs(counts, one, cluster_sizes, seed, k) for k, (counts, one) in enumerate(pairs)]
        if nclusters is not None or cluster_sizes is not None or nobs is not None:
            raise DataError(
                "samples of crossed classifications have the pairs of clusters of the fit: leave out nclusters, "
                "cluster_sizes and nobs"
            )
        return _pairs(model)
    if nobs is not None:
        levels = number_of_levels(population.table.nlevels)
        raise DataError(f"the population has {levels}: give nclusters and cluster_sizes, and no nobs")
    if nclusters is None and cluster_sizes is None and isinstance(model, Fit):
        return list(map(_fit_clusters, model.sample.groups))
    pairs = zip(by_group(nclusters, labels), by_group(cluster_sizes, labels), strict=True)
    return [read_clusters(count, sizes, population.table.nlevels) for count, sizes in pairs]


def _fit_nobs(fit: Fit) -> list[int]:
    return [round(s.nobs) for s in fit.sample.statistics]


def _fit_clusters(group: Group) -> Clusters:
    """The clusters of a group of a fit."""
    s, source = group.statistics, group.source
    if source is not None and group.sampled is not None:
        tree = source.tree  # weights say how often clusters count, not how many there are
    else:
        tree = s.tree
        shapes = None if tree is not None else rounded_shapes(s.shapes, s.counted)
        tree = tree if shapes is None else one_by_one(shapes)
    if tree is None:
        raise DataError("the fit does not know the sizes of its clusters: give nclusters and cluster_sizes")
    sizes, parents = tree
    return Clusters(tuple(map(int, sizes)), tuple(tuple(map(int, one)) for one in parents))


def _table_of_text(text: str, cluster: Any) -> ParameterTable:
    """The table of a model that stands by itself.

    Its thresholds say which variables are ordered; where it has three levels its clusters may be crossed.
    """
    settings = Settings.read({}, "sem")
    syntax = with_constraints(text, settings.constraints)
    counts = named_thresholds(syntax)
    if not counts:
        plain = compile(text).table
        return (
            compile(text, cluster=cluster).table if plain.nlevels > BETWEEN and cluster is not None else plain
        )
    table = table_of(syntax, "sem", settings, group_names(syntax, None, None), counts)
    if table.nlevels > BETWEEN:
        raise UnsupportedError(
            f"{next(iter(counts))!r} has thresholds: models of more than two levels are for continuous variables"
        )
    return table


def drawn_categories(population: Population, model: Any) -> tuple[Mapping[str, Sequence[Any]], ...]:
    """Categories of the ordered variables of each group: those of the sample of a fit, or 0, 1, ..."""
    if not population.table.ordered.thresholds:
        return ()
    out = []
    for group in range(1, population.table.ngroups + 1):
        known = model.sample.groups[group - 1].statistics.labels if isinstance(model, Fit) else {}
        cuts = population.cuts(group)
        out.append({name: known.get(name, range(len(own) + 1)) for name, own in cuts.items()})
    return tuple(out)


def _columns(
    model: Any, population: Population, cluster: Any, group: str | None
) -> tuple[tuple[str, ...], str]:
    """Names of the columns of clusters, the highest first, and of groups."""
    table = population.table
    own = model.options.group if isinstance(model, Fit) else None
    column = str(group or own or "group")
    crossed = table.crossed and isinstance(model, Fit)
    columns = table.clusters if crossed else cluster_columns(model, table, cluster)
    taken = [*population.variables.names]
    used = [*columns] + [column] * (table.ngroups > 1)
    for name in used:
        if name in taken:
            raise ModelError(
                f"{name!r} is a variable of the model: give the column of clusters or groups another name"
            )
        taken.append(name)
    return columns, column


def cluster_columns(model: Any, table: ParameterTable, cluster: Any) -> tuple[str, ...]:
    """Names of the columns of clusters in samples: as given, or those of a fit, or others."""
    count = table.nlevels - 1
    if cluster is None and isinstance(model, Fit) and len(table.clusters) == count > 0:
        return table.clusters
    if cluster is None:
        return ("cluster",) * count if count < 2 else tuple(f"cluster{k}" for k in range(count + 1, 1, -1))
    columns = Settings.read({"cluster": cluster}).cluster_columns
    if count and len(columns) != count:
        several = "as cluster=['school', 'class'], the highest first" if count > 1 else "as one text"
        raise DataError(f"a model of {table.nlevels} levels has {count} columns of clusters: give {several}")
    return columns[:count]
