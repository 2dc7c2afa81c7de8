"""Which replicates a seed gives, and samples that have none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import msem
import texts
from msem.errors import DataError

MODEL = texts.COVARIATES


def test_two_clusters_cannot_be_resampled() -> None:
    data = msem.load_demo()
    two = msem.sem("level: 1\n y1 ~ x1\nlevel: 2\n y1 ~~ y1", data[data["cluster"] < 3], cluster="cluster")
    with pytest.raises(DataError, match="need 3 clusters or more"):
        two.bootstrap(10)


@pytest.mark.parametrize("ids", [lambda c: c, lambda c: f"site {c}"], ids=["number", "text"])
def test_replicates_do_not_depend_on_the_order_of_the_data(ids: Callable[[int], object]) -> None:
    data = msem.load_demo().assign(cluster=lambda d: d["cluster"].map(ids))
    first, again = (
        msem.sem(MODEL, rows, cluster="cluster").bootstrap(20, seed=4)
        for rows in (data, data.sample(frac=1, random_state=1))
    )
    np.testing.assert_allclose(again.array, first.array, atol=1e-8)
