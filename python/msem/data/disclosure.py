"""What statistics tell of single clusters and units, for those who decide whether they may be shared."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.clustersums import ClusterSums

Floats = NDArray[np.float64]


def disclosed(sizes: Floats, counts: Floats, sums: ClusterSums | None) -> pd.Series:
    """See `ClusterStatistics.disclosure`."""
    exact = counts == 1 if sums is None else np.ones(len(counts), dtype=bool)
    report = {
        "nclusters": int(counts.sum()),
        "nobs": int(sizes @ counts),
        "smallest_cell": int(counts.min()) if sums is None else 1,
        "cells_of_one": int((counts == 1).sum()),
        "cells_of_two": int((counts == 2).sum()),
        "exact_clusters": int(counts[exact].sum()),
        "exact_units": int(counts[exact & (sizes == 1)].sum()),
        "smallest_cluster": int(sizes.min()),
        "cluster_ids": sums is not None,
        "cluster_means": sums is not None,
        "cluster_products": sums is not None and sums.within is not None,
    }
    return pd.Series(report, dtype=object, name="disclosure")
