"""Types of the compiled core; p unit variables, q cluster variables, J clusters, S distinct cluster sizes."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

class TwoLevelStatistics(TypedDict):
    sizes: Floats  # (S,)
    counts: Floats  # (S,)
    means: Floats  # (S, p + q)
    scatter: Floats  # (S, p + q, p + q)
    ssw: Floats  # (p, p)
    constant: list[bool]  # p
    varying: list[tuple[int, list[int]]]  # q: clusters within which it varies, the first few codes

def two_level_statistics(
    unit: Sequence[Floats], cluster: Sequence[Floats], codes: NDArray[np.int64], nclusters: int
) -> TwoLevelStatistics: ...
def cluster_arrays(
    unit: Sequence[Floats], cluster: Sequence[Floats], codes: NDArray[np.int64], nclusters: int
) -> tuple[Floats, Floats, Floats]: ...  # (J,), (J, p + q), (J, p (p + 1) / 2)
def simple_statistics(columns: Sequence[Floats], nrows: int) -> tuple[Floats, Floats]: ...  # (m,), (m, m)
