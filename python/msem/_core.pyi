"""Compiled core. Matrices are float64; p unit-level variables (nboth at both levels, first), q between-only."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

_Floats = NDArray[np.float64]

class Block:
    """One level of one group in RAM form; entries are (slot, row, col, parameter or -1, value)."""

    def __init__(
        self,
        nobserved: int,
        nvariables: int,
        slot: Sequence[int] | NDArray[np.intp],
        row: Sequence[int] | NDArray[np.intp],
        col: Sequence[int] | NDArray[np.intp],
        parameter: Sequence[int],
        value: Sequence[float],
    ) -> None: ...
    @property
    def parameters(self) -> list[int]: ...

class Loss: ...

class TwoLevelLoss(Loss):
    def __init__(
        self, nboth: int, ssw: _Floats, sizes: _Floats, counts: _Floats, means: _Floats, scatter: _Floats
    ) -> None: ...

class LeastSquaresLoss(Loss):
    def __init__(self, mean: _Floats, cov: _Floats, mean_weights: _Floats, cov_weights: _Floats) -> None: ...

class Objective:
    def __init__(
        self, npar: int, blocks: Sequence[Block], groups: Sequence[tuple[Loss, int, int]]
    ) -> None: ...
    @property
    def npar(self) -> int: ...
    def value(self, theta: ArrayLike) -> float: ...
    def evaluate(self, theta: ArrayLike) -> tuple[float, _Floats]: ...
    def expected_information(self, theta: ArrayLike) -> _Floats: ...
    def observed_information(self, theta: ArrayLike) -> _Floats: ...
    def observed_information_in(self, theta: ArrayLike, basis: _Floats) -> _Floats: ...
    def information_factor(self, theta: ArrayLike) -> _Floats: ...
    def implied(self, theta: ArrayLike, block: int) -> tuple[_Floats, _Floats]: ...
    def jacobian(self, theta: ArrayLike, block: int) -> _Floats: ...
    def scores(
        self, theta: ArrayLike, sizes: _Floats, means: _Floats, within: _Floats, group: int = 0
    ) -> _Floats: ...
    def cluster_loglik(
        self, theta: ArrayLike, sizes: _Floats, means: _Floats, within: _Floats, group: int = 0
    ) -> _Floats: ...

class _Optimum(TypedDict):
    theta: _Floats
    value: float
    gradient: _Floats
    stop: int
    active: list[int]
    iterations: list[tuple[float, float, float, bool]]

def scaled_inverse(matrix: _Floats) -> tuple[_Floats, float]: ...
def minimize(
    objective: Objective,
    start: _Floats,
    lower: _Floats,
    upper: _Floats,
    max_iterations: int = 500,
    tolerance: float = 1e-12,
) -> _Optimum: ...

class _Saturated(TypedDict):
    mean_w: _Floats
    cov_w: _Floats
    mean_b: _Floats
    cov_b: _Floats
    loglik: float
    converged: bool
    iterations: int
    em_steps: int
    decrement: float

def fit_saturated(
    loss: TwoLevelLoss, em: bool = False, max_iterations: int = 0, tolerance: float = 1e-12
) -> _Saturated: ...

class _TwoLevelStatistics(TypedDict):
    sizes: _Floats  # (S,)
    counts: _Floats  # (S,)
    means: _Floats  # (S, p + q)
    scatter: _Floats  # (S, p + q, p + q)
    ssw: _Floats  # (p, p)
    constant: list[bool]  # p
    varying: list[tuple[int, list[int]]]  # q: clusters within which it varies, the first few codes

def two_level_statistics(
    unit: Sequence[_Floats], cluster: Sequence[_Floats], codes: NDArray[np.int64], nclusters: int
) -> _TwoLevelStatistics: ...
def cluster_arrays(
    unit: Sequence[_Floats], cluster: Sequence[_Floats], codes: NDArray[np.int64], nclusters: int
) -> tuple[_Floats, _Floats, _Floats]: ...  # (J,), (J, p + q), (J, p (p + 1) / 2)
def simple_statistics(columns: Sequence[_Floats], nrows: int) -> tuple[_Floats, _Floats]: ...  # (m,), (m, m)

class GroupData:
    """Model-implied moments of a group, all variables, observed first; statistics of J clusters.

    Scores are (scores (rows, d), covariances (S, d, d) by distinct cluster size, the size of each cluster).
    """

    def __init__(
        self,
        p: int,
        nboth: int,
        q: int,
        mean_w: _Floats,
        cov_w: _Floats,
        mean_b: _Floats,
        cov_b: _Floats,
        sizes: _Floats,
        means: _Floats,
        within: _Floats,
    ) -> None: ...
    def cluster_posterior(self) -> tuple[_Floats, _Floats, list[int]]: ...
    def cluster_bartlett(
        self, loadings: _Floats, residual: _Floats
    ) -> tuple[_Floats, _Floats, list[int]]: ...
    def unit_posterior(
        self, unit: Sequence[_Floats], codes: NDArray[np.int64]
    ) -> tuple[_Floats, _Floats, list[int]]: ...
    def unit_bartlett(
        self, loadings: _Floats, residual: _Floats, unit: Sequence[_Floats], codes: NDArray[np.int64]
    ) -> tuple[_Floats, _Floats, list[int]]: ...
    def cluster_distances(
        self, unit_covariates: Sequence[int], cluster_covariates: Sequence[int]
    ) -> tuple[_Floats, _Floats]: ...  # between (J,), within (J,)
    def unit_distances(
        self, unit_covariates: Sequence[int], unit: Sequence[_Floats], codes: NDArray[np.int64]
    ) -> _Floats: ...
