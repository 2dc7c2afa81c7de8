"""Weights of rows and clusters as they enter a likelihood, and those of replicates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from msem.data.numbering import InnerClusters
from msem.data.rows import ClusteredData
from msem.data.survey import Replication, Scale, scaled_units
from msem.model.variables import Variables

Floats = NDArray[np.float64]


def scaled_weights(
    parts: Sequence[ClusteredData], variables: Variables, scale: Scale
) -> tuple[ClusteredData, ...]:
    """The groups of a sample with weights as they enter the likelihood.

    The weights of units are scaled within each cluster, those of clusters within clusters in the same way within these,
    and those of the highest clusters add up to their number in all groups. At one level those of units are scaled over
    all groups together; rows that come in no clusters are then the independent units, and have their weights.

    Parameters
    ----------
    parts : sequence of ClusteredData
    variables : Variables
        A row without a value of any that is measured on units counts in no cluster, and a cluster without any of its
        units or its own in none above.
    scale : {"size", "effective", "none"}
    """
    if all(part.sampled is None for part in parts):
        return tuple(parts)
    counts = [part.nobs for part in parts]
    if len(variables.levels) == 1:
        given = [part.weights for part in parts if part.weights is not None]
        if len(given) < len(parts):
            return tuple(parts)
        whole = scaled_units(np.concatenate(given) if len(given) > 1 else given[0], None, scale)
        weights: list[Floats | None] = list(np.split(whole, np.cumsum(counts)[:-1]))
    else:
        weights = [
            None
            if part.weights is None
            else scaled_units(part.weights, part.lowest, scale, part.informative(variables.unit))
            for part in parts
        ]
    clusters = [None if part.sampled is None else part.sampled.weights for part in parts]
    known = [own for own in clusters if own is not None]
    factor = sum(map(len, known)) / sum(float(own.sum()) for own in known) if known else 1.0
    out = []
    for part, own, level2 in zip(parts, weights, clusters, strict=True):
        assert part.sampled is not None
        of_independent = own if part.codes is None else None if level2 is None else factor * level2
        sampled = replace(part.sampled, weights=of_independent)
        out.append(replace(part, weights=own, sampled=sampled, inner=_scaled_inner(part, variables, scale)))
    return tuple(out)


def _scaled_inner(part: ClusteredData, variables: Variables, scale: Scale) -> dict[str, InnerClusters]:
    """Clusters within clusters with weights as they enter the likelihood; see `scaled_weights`."""
    out = {}
    for number, (name, clusters) in enumerate(part.inner.items()):
        weights = clusters.weights
        if weights is not None:
            below = [own for names in variables.measured[: len(part.inner) - number + 1] for own in names]
            seen = part.informative(below)
            counted = None if seen is None else np.bincount(clusters.codes, seen, len(weights)) > 0
            weights = scaled_units(weights, clusters.parent, scale, counted)
        out[name] = replace(clusters, weights=weights)
    return out


def with_replication(
    parts: Sequence[ClusteredData], weighted: Sequence[ClusteredData], scale: Floats
) -> tuple[ClusteredData, ...]:
    """The groups of a sample with its replicate weights as factors of the weights of their independent units.

    A cluster's factor is the sum of the replicate weights of its rows over that of their weights.

    Parameters
    ----------
    parts : sequence of ClusteredData
        With weights as given.
    weighted : sequence of ClusteredData
        The same with weights as they enter the likelihood.
    scale : ndarray, shape (R,)
    """
    factors = []
    for part in parts:
        assert part.replicates is not None
        known, replicates = part.overall_weights, part.replicates
        own = np.ones(part.nobs) if known is None else known
        if part.codes is not None:
            own = np.bincount(part.codes, own).astype(np.float64)
            replicates = np.column_stack([np.bincount(part.codes, column) for column in replicates.T])
        factors.append(replicates / own[:, None])
    design = Replication(np.concatenate(factors).T, scale)
    first, out = 0, []
    for part, own in zip(weighted, factors, strict=True):
        assert part.sampled is not None
        sampled = replace(part.sampled, psu=np.arange(first, first + len(own)), design=design)
        out.append(replace(part, sampled=sampled))
        first += len(own)
    return tuple(out)
