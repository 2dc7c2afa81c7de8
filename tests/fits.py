"""Two-level models in text with data for them, fitted by the steps of the package below its public functions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import models
from msem.data.complete_clusters import ClusterArrays
from msem.data.complete_rows import sample_statistics
from msem.data.frames import clustered_data
from msem.data.sample import Sample
from msem.estimation.estimate import Estimate, estimate
from msem.estimation.sampling import Information, sampling_covariance
from msem.language.syntax import parse
from msem.model.partable import parameter_table

Floats = NDArray[np.float64]

FACTORS = """
level: 1
    fw =~ y1 + y2 + y3
    fw ~ x1
    y1 ~ x2
level: 2
    fb =~ y1 + y2 + y3
    fb ~ w1
"""
PATHS = """
level: 1
    y1 ~ y2 + x1
    y3 ~ y1 + x2
level: 2
    y1 ~ y2 + w1
    y3 ~ y1 + b * y2
"""
LABELS = """
level: 1
    fw =~ y1 + l2 * y2 + l3 * y3
    fw ~ b * x1
level: 2
    fb =~ y1 + l2 * y2 + l3 * y3
    fb ~ b * w1
    w1 ~ 1
"""


def data(sizes: Sequence[int], seed: int = 4) -> pd.DataFrame:
    """Variables y1, y2, y3 (both levels), x1, x2 (within only), w1 (between only) and cluster."""
    frame = models.two_level(models.factor_rows(0.5), sizes, seed).frame
    x2 = np.random.default_rng(seed + 1).normal(size=len(frame))
    return frame.assign(x2=x2, y1=frame["y1"] + 0.3 * x2)


def fit(text: str, frame: pd.DataFrame, fixed_x: bool = True) -> Estimate:
    """Maximum likelihood estimates."""
    table = parameter_table(parse(text), fixed_x=fixed_x)
    variables = table.variables
    columns = clustered_data(frame, variables.names, "cluster")
    return estimate(table, Sample.of(sample_statistics(columns, variables)))


def vcov(found: Estimate, frame: pd.DataFrame, information: Information = "observed") -> Floats:
    """Sampling covariance of the estimates, all of which must be identified."""
    (s,) = found.objective.statistics
    columns = clustered_data(frame, [*s.unit, *s.cluster], "cluster")
    clusters = ClusterArrays(*columns.cluster_arrays(s.unit, s.cluster))
    sampling = sampling_covariance(found.objective, found.theta, information, clusters=[clusters])
    assert sampling.positive_definite
    assert not sampling.unidentified
    return sampling.vcov
