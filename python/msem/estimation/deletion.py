"""Sampling covariance from the estimates without each primary sampling unit, each found by one step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.sample import Sample
from msem.data.survey import Design, effective
from msem.estimation.estimate import Estimate
from msem.estimation.sampling import free_directions

Floats = NDArray[np.float64]

ENOUGH = 100  # effective clusters from which the sandwich over them holds


def effective_clusters(sample: Sample) -> float:
    """Effective number of independent units, (sum w)^2 / sum w^2 of their weights; of PSUs if these are fewer."""
    weights = [
        np.ones(len(own.sizes)) if own.sampled is None or own.sampled.weights is None else own.sampled.weights
        for own in sample.clusters
    ]
    design = sample.design
    found = effective(np.concatenate(weights))
    return found if not isinstance(design, Design) else min(found, float(len(design.stratum)))


def one_step_jackknife(model: Estimate, sample: Sample) -> Floats:
    """Covariance matrix of the estimates from their changes without each PSU.

    The change is -(A - A_c)^-1 g_c with the observed information A, that of the PSU and its score: the first step of a
    refit, where A - A_c counts as at least a quarter of A in every direction. It takes more than the sandwich does from
    PSUs that much depends on, and its standard errors hold with fewer of them. Without primary sampling units the
    clusters are these, and groups the strata.

    Parameters
    ----------
    model : Estimate
    sample : Sample
        With raw data.

    Returns
    -------
    ndarray, shape (npar, npar)
        nan if the observed information is not positive definite.
    """
    design, groups, first = sample.design, [], 0
    for own in sample.clusters:
        count = len(own.sizes)
        weights, units = np.ones(count), np.arange(first, first + count)
        if own.sampled is not None:
            weights = weights if own.sampled.weights is None else own.sampled.weights
            units = units if own.sampled.psu is None else own.sampled.psu
        groups.append((weights, units))
        first += count
    if not isinstance(design, Design):
        stratum = np.repeat(np.arange(len(groups)), [len(weights) for weights, _ in groups])
        design = Design(stratum, np.ones(len(groups)))
    core = model.objective.core_for(sample.clusters[0])
    given = [
        (own.of(core.likelihoods[number]), weights, units.tolist())
        for number, (own, (weights, units)) in enumerate(zip(sample.clusters, groups, strict=True))
    ]
    change = _core.delete_one_steps(core, model.theta, free_directions(model), given, len(design.stratum))
    if not len(change):
        return np.full((len(model.theta),) * 2, np.nan)
    root = design.jackknife_root(change)
    vcov: Floats = root.T @ root
    return vcov
