"""What a model of ordered variables estimates in a population that has them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from msem.data.arrays import LevelArrays
from msem.data.first_stage import FirstStage
from msem.data.ordered import first_stage_keys
from msem.data.ordered_moments import OrderedMoments
from msem.data.sample import Group, Sample
from msem.errors import ModelError, UnsupportedError
from msem.estimation.estimate import estimate
from msem.estimation.least_squares import first_stage_discrepancy, second_stages
from msem.model.partable import ParameterTable
from msem.simulation.designs import Clusters
from msem.simulation.population import Population

Floats = NDArray[np.float64]

HOLDS = 1e-8  # squared differences of thresholds, slopes and correlations up to which a model holds


def ordered_truth(table: ParameterTable, population: Population, clusters: Sequence[Clusters]) -> Floats:
    """Values of the parameters of a model at which it implies the thresholds, slopes and correlations of a population.

    It may be identified in another way than the population. Where it does not hold, what it estimates depends on the
    estimator, and on the sizes of the samples.

    Raises
    ------
    ModelError
        If the model does not hold, or is not identified.
    """
    groups = tuple(
        Group(
            population_moments(table, population, group, one).statistics(
                table.variables, [table.thresholds(level, group) for level in range(1, table.nlevels + 1)]
            ),
            label=table.group_labels[group - 1] if table.group_labels else "",
        )
        for group, one in enumerate(clusters, 1)
    )
    sample = Sample(groups)
    stages = second_stages(table, sample.groups, "DWLS", robust=True)
    found = estimate(table, sample, loss=[stage.likelihood for stage in stages])
    if not found.optimum.converged:
        raise ModelError(
            "the model does not converge when it is fitted to the thresholds and correlations of the population: check "
            "that it is identified"
        )
    if not found.optimum.value < HOLDS:
        raise ModelError(
            "the model does not hold in the population, and what it estimates there depends on estimator and sample: "
            "fit the samples of msem.simulate(population, ..., replications=...) by msem.compile(model, ...).fit_many"
        )
    return found.theta


def population_moments(
    table: ParameterTable, population: Population, group: int, clusters: Clusters
) -> OrderedMoments:
    """The first stage of infinitely many rows of a group, for the variables of a model."""
    covariates = tuple(table.exogenous(level, group) for level in range(1, table.nlevels + 1))
    keys = first_stage_keys(table.variables, covariates, table.ordered.thresholds)
    own, moments = population.table, population.moments(group)
    values = dict(zip(own.rows, population.values.tolist(), strict=True))
    cuts = {
        (row.lhs, row.rhs): value for row, value in values.items() if row.op == "|" and row.group == group
    }
    implied = []
    for level, names in enumerate(own.variables.levels, 1):
        at = [moments[level].at[name] for name in names]
        named = [cuts[cut] for cut in own.thresholds(level, group)]
        cov = np.eye(len(at) + len(named))
        cov[: len(at), : len(at)] = moments[level].cov[np.ix_(at, at)]
        implied.append((np.append(moments[level].mean[at], named), cov))
    ordered = tuple(name for name in table.variables.names if name in table.ordered.thresholds)
    among = tuple(name for names in covariates for name in names)
    none, unit = np.zeros(len(keys)), np.ones((len(keys), 1))
    loss = first_stage_discrepancy(own, own.variables, group, keys, none, unit, among, ordered)
    names = tuple(name for name in table.variables.names if name not in among)
    stage = FirstStage(keys, loss.fitted(implied), np.eye(len(keys)), names, among, ordered)
    given = {}
    for level, some in enumerate(covariates, 1):
        at = [moments[level].at[name] for name in some]
        m = moments[level]
        given[level] = LevelArrays(some, m.mean[at], m.cov[np.ix_(at, at)], len(at))
    labels = {name: range(table.ordered.thresholds[name] + 1) for name in ordered}
    return OrderedMoments(stage, table.variables, covariates, given, labels, *clusters.table())


def require_same_kind(table: ParameterTable, other: ParameterTable) -> None:
    """Refuse a model whose categories, covariates or link are not those of the population.

    Raises
    ------
    ModelError, UnsupportedError
    """
    if table.ordered.residual != other.ordered.residual:
        raise UnsupportedError("the model and the population have different links: give both link=")
    mine, theirs = table.ordered.thresholds, other.ordered.thresholds
    odd = next((name for name in table.variables.names if mine.get(name) != theirs.get(name)), None)
    if odd is not None:
        raise ModelError(
            f"{odd!r} has {mine.get(odd, 0)} thresholds in the model and {theirs.get(odd, 0)} in the population"
        )
    for group in range(1, table.ngroups + 1):
        for level in range(1, table.nlevels + 1):
            fixed, known = {*table.exogenous(level, group)}, {*other.exogenous(level, group)}
            more = sorted(fixed ^ (known & {*table.observed(level, group)}))
            if more:
                raise UnsupportedError(
                    f"{more[0]!r} is a covariate of the {'model' if more[0] in fixed else 'population'} only: power of "
                    "ordered variables is conditional on the same covariates"
                )
