"""Random models with data that have holes: what the tests of full-information likelihood share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import models
import oracle
import oracle_missing
from msem import _core
from msem.data.incomplete import IncompleteClusters, IncompleteStatistics
from msem.estimation.objective import Objective, build_objective
from msem.model.variables import Variables

Floats = NDArray[np.float64]

# share of holes in unit variables, in cluster variables, of whole units and of whole clusters
HOLES = {
    "few": {"share": 0.1},
    "many": {"share": 0.5, "cluster_share": 0.4, "units": 0.1},
    "cluster variables": {"share": 0.0, "cluster_share": 0.5},
    "whole units and clusters": {"share": 0.1, "units": 0.2, "clusters": 0.15},
    "none": {"share": 0.0},
}


def incomplete(sample, unit, cluster, nboth) -> IncompleteStatistics:
    """Statistics of y (N, p), z (J, q) and cluster codes, without any of the checks that data frames go through."""
    y, z, codes = sample
    data = _core.incomplete_data(list(y.T), list(z[codes].T), codes, len(z), nboth)
    return IncompleteStatistics(Variables.of_units_and_clusters(unit, cluster, nboth), data)


def clusters(statistics: IncompleteStatistics, sample) -> IncompleteClusters:
    """The single clusters of the same."""
    y, _, codes = sample
    columns = list(y.T) if statistics.unit else []
    return IncompleteClusters(statistics.data, _core.cell_products(columns, codes, statistics.data))


@dataclass(frozen=True, eq=False)
class Case:
    """A model and its data, some of which are taken out."""

    base: models.Case
    holes: str

    @cached_property
    def sample(self) -> tuple[Floats, Floats, NDArray[np.int64]]:
        y, z, codes = self.base.sample
        y, z = oracle_missing.punch(
            np.random.default_rng(self.base.seed + 7), y, z, codes, **HOLES[self.holes]
        )
        return y, z, codes

    @cached_property
    def statistics(self) -> IncompleteStatistics:
        return incomplete(self.sample, self.base.unit, self.base.cluster, self.base.nboth)

    @cached_property
    def clusters(self) -> IncompleteClusters:
        return clusters(self.statistics, self.sample)

    @cached_property
    def objective(self) -> Objective:
        return build_objective(self.base.table, self.statistics)

    @cached_property
    def frame(self) -> pd.DataFrame:
        return oracle.frame(*self.sample, self.base.unit, self.base.cluster)

    @property
    def near(self) -> Floats:
        return self.base.near

    def logliks(self, theta: Floats) -> Floats:
        return oracle_missing.cluster_logliks(self.base.moments(theta), *self.sample)


def demo_with_holes(share: float = 0.1, columns=("y1", "y2", "y3"), seed: int = 1) -> pd.DataFrame:
    """The demo data with holes that are missing at random given the first covariate."""
    import msem

    data, rng = msem.load_demo(), np.random.default_rng(seed)
    for name in columns:
        chance = 2 * share / (1 + np.exp(-1.5 * data["x1"])) if name != "x1" else share
        data.loc[rng.random(len(data)) < chance, name] = np.nan
    return data


DEMO = """
level: 1
  fw =~ y1 + y2 + y3
  fw ~ x1 + x2 + x3
level: 2
  fb =~ y1 + y2 + y3
  fb ~ w1 + w2
"""
