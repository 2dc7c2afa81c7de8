"""Compiled core. Matrices are float64; p unit-level variables (nboth at both levels, first), q between-only."""

from collections.abc import Sequence
from typing import Any, TypedDict, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

_Floats = NDArray[np.float64]
_Levels = Sequence[tuple[_Floats, _Floats]]  # means and covariances of each level, level 1 first

avx2: bool  # whether the kernels in use are those for AVX2 and FMA

class ThreadLimit:
    """Limits the calling thread to so many threads of the core."""

    def __init__(self, threads: int) -> None: ...
    def __enter__(self) -> None: ...
    def __exit__(self, *error: object) -> None: ...

def thread_limit() -> int: ...
def threads_made() -> int: ...

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

class TableBlock:
    """One level of one group of a parameter table: its rows are the members among those of the table.

    Names are those of variables, the observed ones first, latent ones that the likelihood knows of, random slopes
    (first those of paths here, which are `nproducts`, then those that are latent variables), and auxiliary variables.
    """

    def __init__(
        self,
        table: tuple[tuple[object, ...], ...],
        members: tuple[int, ...],
        names: tuple[str, ...],
        nobserved: int,
        exposed: tuple[str, ...],
        slopes: tuple[str, ...],
        nproducts: int,
        auxiliary: tuple[str, ...],
    ) -> None: ...
    @property
    def block(self) -> Block: ...
    def places(self) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
        """Which members stand in matrices, in which, and where: to and from."""

class Clusters:
    """Independent units of a sample, each with statistics of its own, as its likelihood knows them."""

    def weighted(self, weights: ArrayLike) -> Likelihood: ...

class Likelihood:
    """A discrepancy between implied moments and data. What its clusters are made of depends on the data."""

    def clusters(self, *arrays: _Floats) -> Clusters: ...

class CompleteLikelihood(Likelihood):
    def __init__(
        self, nboth: int, ssw: _Floats, sizes: _Floats, counts: _Floats, means: _Floats, scatter: _Floats
    ) -> None: ...

class LeastSquares(Likelihood):
    @overload
    def __init__(self, mean: _Floats, cov: _Floats, mean_weights: _Floats, cov_weights: _Floats) -> None: ...
    @overload
    def __init__(
        self,
        levels: Sequence[Sequence[int]],
        nvariables: int,
        statistics: Sequence[tuple[int, int, int, int]],
        values: _Floats,
        weight: _Floats,
        given: Sequence[int],
        ordered: Sequence[int],
    ) -> None: ...
    def fitted(self, moments: Sequence[tuple[_Floats, _Floats]]) -> _Floats: ...
    def with_values(self, values: _Floats) -> LeastSquares: ...

class FirstStageParts(TypedDict):
    """Estimates of single variables and pairs; `first` counts the parameters of each variable, and of the pairs."""

    first: list[int]
    estimates: _Floats
    bread: _Floats
    meat: _Floats
    scores: _Floats
    at_bound: list[int]
    unsettled: list[int]
    unknown: list[int]

def first_stage(
    values: _Floats,
    covariates: _Floats,
    categories: Sequence[int],
    cluster: Sequence[int],
    starts: Sequence[_Floats],
    weight: _Floats = ...,
) -> FirstStageParts: ...
def two_level_first_stage(
    values: _Floats,
    covariates: _Floats,
    cluster: Sequence[int],
    cluster_values: _Floats,
    cluster_covariates: _Floats,
    categories: Sequence[int],
    both: Sequence[int],
    starts: Sequence[_Floats],
    weight: _Floats = ...,
    cluster_weight: _Floats = ...,
) -> FirstStageParts: ...

class PosteriorModes(TypedDict):
    """Values and variances, a column for each unit or cluster; `unsettled` counts maxima that were not found."""

    unit: _Floats
    unit_var: _Floats
    cluster: _Floats
    cluster_var: _Floats
    unsettled: int

class LatentGivenOrdered:
    """Latent variables of units and clusters given ordered and continuous variables, at one level or two."""

    def __init__(
        self,
        *,
        logistic: bool,
        cuts: Sequence[_Floats],
        reach: _Floats,
        top: _Floats,
        sd: _Floats,
        cluster_cuts: Sequence[_Floats],
        cluster_top: _Floats,
        cluster_sd: _Floats,
        root: _Floats,
        first: Sequence[int],
        categories: _Floats,
        shift: _Floats,
        zeta: _Floats,
        cluster_categories: _Floats,
        cluster_shift: _Floats,
        unit_map: _Floats,
        cluster_map: _Floats,
    ) -> None: ...
    def modes(self) -> PosteriorModes: ...
    def draw(self, seed: int, group: int, sweeps: int) -> tuple[_Floats, _Floats]: ...

def binormal_between(x1: ArrayLike, x2: ArrayLike, y1: ArrayLike, y2: ArrayLike, r: ArrayLike) -> _Floats: ...

class VariancePenalty:
    """-log|S| - sum log|G| of one block; elements are (row, col, parameter or -1, value)."""

    def __init__(
        self,
        covariances: Sequence[tuple[int, int, int, float]],
        loadings: Sequence[tuple[int, int, int, float]],
        variances: Sequence[int],
        factors: Sequence[Sequence[int]],
        weights: _Floats,
    ) -> None: ...

class Objective:
    def __init__(
        self,
        npar: int,
        blocks: Sequence[Block],
        groups: Sequence[tuple[Likelihood, Sequence[int]]],
        penalties: Sequence[VariancePenalty] = (),
    ) -> None: ...
    def penalty(self, theta: ArrayLike) -> float: ...
    def values(self, thetas: _Floats) -> _Floats: ...
    @property
    def npar(self) -> int: ...
    @property
    def likelihoods(self) -> list[Likelihood]: ...
    def value(self, theta: ArrayLike) -> float: ...
    def evaluate(self, theta: ArrayLike) -> tuple[float, _Floats]: ...
    def expected_information(self, theta: ArrayLike) -> _Floats: ...
    def observed_information(self, theta: ArrayLike) -> _Floats: ...
    def moment_information(self, theta: ArrayLike) -> _Floats: ...
    def observed_information_in(self, theta: ArrayLike, basis: _Floats) -> _Floats: ...
    def information_factor(self, theta: ArrayLike) -> _Floats: ...
    def intercepts(self) -> list[int]: ...
    def settle(self, theta: ArrayLike, delta: _Floats, intercepts: Sequence[int]) -> _Floats: ...
    def implied(self, theta: ArrayLike, block: int) -> tuple[_Floats, _Floats]: ...
    def jacobian(self, theta: ArrayLike, block: int) -> _Floats: ...
    def scores(self, theta: ArrayLike, clusters: Clusters, group: int = 0) -> _Floats: ...
    def score_products(
        self, theta: ArrayLike, clusters: Clusters, group: int, weights: _Floats, basis: _Floats
    ) -> _Floats: ...
    def cluster_loglik(self, theta: ArrayLike, clusters: Clusters, group: int = 0) -> _Floats: ...

BorderTuple = tuple[_Floats, _Floats, _Floats, list[tuple[int, list[int]]]]

class Found(TypedDict):
    theta: _Floats
    value: float
    gradient: _Floats
    stop: int
    active: list[int]
    active_inequalities: list[int]
    surpassed: float
    natural: float
    maxima: list[float]
    cone: BorderTuple | None
    iterations: list[tuple[float, float, float, bool]]

def scaled_inverse(matrix: _Floats) -> tuple[_Floats, float]: ...
def minimize(
    objective: Objective,
    start: _Floats,
    lower: _Floats,
    upper: _Floats,
    max_iterations: int = 500,
    tolerance: float = 1e-12,
    constraints: Constraints | None = None,
) -> Found: ...
def flat_direction(objective: Objective, theta: ArrayLike) -> list[int]: ...
def elimination_basis(rows: _Floats, sizes: _Floats) -> _Floats: ...
def tangent(
    objective: Objective,
    constraints: Constraints,
    theta: _Floats,
    active: Sequence[int] | NDArray[np.intp],
    active_inequalities: Sequence[int],
) -> _Floats: ...
def whitening_basis(factor: _Floats) -> tuple[_Floats, _Floats]: ...
def inverse_information(
    objective: Objective,
    theta: _Floats,
    tangent: _Floats,
    errors: int,
    constraints: Constraints | None = None,
) -> tuple[
    _Floats, _Floats, list[int], list[int], bool
]: ...  # basis, inverse, unidentified, immovable, positive definite
def sampling_covariance(
    objective: Objective,
    theta: _Floats,
    tangent: _Floats,
    errors: int,
    constraints: Constraints | None = None,
) -> tuple[_Floats, list[int], bool]: ...  # covariance matrix, unidentified, positive definite
def minimize_iteratively(
    objective: Objective,
    start: _Floats,
    lower: _Floats,
    upper: _Floats,
    saturated: Sequence[bool],
    max_iterations: int = 60,
    tolerance: float = 1e-8,
) -> Found: ...

class _Saturated(TypedDict):
    levels: list[tuple[_Floats, _Floats]]  # means and covariances, level 1 first
    loglik: float
    converged: bool
    iterations: int
    em_steps: int
    decrement: float

def fit_saturated(
    likelihood: Likelihood,
    em: bool = False,
    max_iterations: int = 0,
    tolerance: float = 1e-12,
    cone: bool = False,
) -> _Saturated: ...
def saturated_trace(
    clusters: Clusters,
    moments: _Levels,
    fixed: Sequence[bool],
    with_means: bool = True,
    expected: bool = False,
    counted: _Floats = ...,  # how often the score of each cluster counts; once if empty
    readings: _Floats = ...,  # the clusters are made up, and these of their scores the coefficients of t
    sums: Sequence[_Floats] = ...,  # of t t' of the clusters of each size; empty: of the clusters themselves
) -> float: ...
def cluster_products(
    sizes: _Floats, means: _Floats, within: _Floats, origin: _Floats, scale: _Floats, weights: _Floats
) -> tuple[_Floats, list[_Floats]]: ...
def products_of_rows(
    unit: Sequence[_Floats],
    cluster: Sequence[_Floats],
    codes: NDArray[np.int64],
    nclusters: int,
    origin: _Floats,
    scale: _Floats,
) -> tuple[_Floats, list[_Floats]] | None: ...
def row_products(
    columns: Sequence[_Floats],
    nrows: int,
    origin: _Floats,
    scale: _Floats,
    weights: _Floats | None,
    even: bool = False,
) -> _Floats: ...

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
    unit: Sequence[_Floats],
    cluster: Sequence[_Floats],
    codes: NDArray[np.int64],
    nclusters: int,
    weights: _Floats | None = None,
) -> tuple[_Floats, _Floats, _Floats]: ...  # (J,), (J, p + q), (J, p (p + 1) / 2)
def counted_clusters(
    sizes: _Floats, means: _Floats, within: _Floats, p: int, weights: _Floats
) -> tuple[_Floats, _Floats, _Floats, _Floats, _Floats]: ...  # (S,), (S,), (S, m), (S, m, m), (p, p)
def scaled_weights(
    weights: _Floats,
    codes: NDArray[np.int64] | None,
    nclusters: int,
    counted: NDArray[np.bool_] | None,
    scale: str,
) -> _Floats: ...
def weight_range(weights: _Floats) -> tuple[int, float, float]: ...  # how many are known, least and greatest
def weight_totals(
    weights: _Floats | None, nrows: int, of_clusters: _Floats | None, codes: NDArray[np.int64] | None
) -> tuple[float, float]: ...
def simple_statistics(
    columns: Sequence[_Floats], nrows: int, weights: _Floats | None = None
) -> tuple[_Floats, _Floats]: ...  # (m,), (m, m)
def total_cov(
    sizes: _Floats,
    counts: _Floats,
    means: _Floats,
    scatter: _Floats,
    ssw: _Floats,
    unit: Sequence[int],
    cluster: Sequence[int],
) -> tuple[_Floats, _Floats]: ...  # (p, p), (q, q)
def first_dependence(
    scatter: _Floats, passing: Sequence[bool], least: float
) -> tuple[int, list[int]] | None: ...
def all_finite(column: NDArray[Any]) -> bool: ...

class Identifiers:
    """Whole numbers as ids, numbered 0, 1, ... in order of first appearance."""

    def __init__(self) -> None: ...
    def __len__(self) -> int: ...
    def number(self, ids: NDArray[Any]) -> NDArray[np.int64]: ...
    def ids(self) -> NDArray[np.int64]: ...

class RowReport(TypedDict):
    used: int
    incomplete: int  # with a cluster, but a value is missing
    no_cluster: int
    missing: list[int]  # p
    infinite: list[int]  # p
    first_infinite: list[int]  # p

class _SizeTable(TypedDict):
    codes: NDArray[np.int64]  # J clusters that have rows
    sizes: _Floats  # (S,)
    counts: _Floats  # (S,)
    means: _Floats  # (S, p), less the origin
    scatter: _Floats  # (S, p, p)
    ssw: _Floats  # (p, p)

def complete_rows(
    columns: Sequence[NDArray[Any]], codes: NDArray[np.int64], threads: int = 0
) -> NDArray[np.bool_]: ...

class Accumulator:
    """Statistics of clusters of p variables, built up in one pass; the last three are valid after `finish`."""

    def __init__(self, nvariables: int, keep_within: bool, tally: bool = False) -> None: ...
    def add(
        self,
        columns: Sequence[NDArray[Any]],
        codes: NDArray[np.int64],
        nclusters: int,
        threads: int = 0,
        weights: _Floats | None = None,
    ) -> RowReport: ...
    def add_clusters(
        self,
        codes: NDArray[np.int64],
        nclusters: int,
        sizes: _Floats,
        means: _Floats,
        within: _Floats | None,
        origin: _Floats,
        ssw: _Floats,
        tally: _Floats | None = None,
    ) -> None: ...
    def finish(self) -> _SizeTable: ...
    @property
    def origin(self) -> _Floats: ...  # (p,)
    @property
    def keeps(self) -> bool: ...  # products within clusters
    def sizes(self) -> _Floats: ...  # (J,)
    def means(self) -> _Floats: ...  # (J, p), less the origin
    def within(self) -> _Floats: ...  # (J, p (p + 1) / 2)
    def tally(self) -> _Floats: ...  # (J, 2), rows and sums of squared weights; with a tally

class IncompleteData:
    @property
    def p(self) -> int: ...
    @property
    def nboth(self) -> int: ...
    @property
    def q(self) -> int: ...
    @property
    def nobs(self) -> float: ...
    @property
    def nclusters(self) -> int: ...
    @property
    def ncells(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def origin(self) -> _Floats: ...
    @property
    def sizes(self) -> _Floats: ...
    @property
    def weight(self) -> _Floats: ...
    @property
    def unit_patterns(self) -> NDArray[np.bool_]: ...
    @property
    def pattern_rows(self) -> _Floats: ...
    @property
    def scatter(self) -> list[_Floats]: ...
    @property
    def first_cell(self) -> NDArray[np.int64]: ...
    @property
    def cell_pattern(self) -> NDArray[np.int64]: ...
    @property
    def cell_rows(self) -> _Floats: ...
    @property
    def cell_means(self) -> _Floats: ...
    @property
    def cluster_patterns(self) -> NDArray[np.bool_]: ...
    @property
    def cluster_pattern(self) -> NDArray[np.int64]: ...
    @property
    def cluster_values(self) -> _Floats: ...
    def restrict(self, unit: Sequence[int], cluster: Sequence[int], nboth: int) -> IncompleteData: ...
    def weighted(self, products: _Floats, weights: _Floats) -> IncompleteData: ...
    def coverage(self) -> tuple[_Floats, _Floats]: ...
    def total_cov(self) -> tuple[_Floats, _Floats]: ...
    def observed_moments(self) -> tuple[_Floats, _Floats, _Floats]: ...
    def level_variation(self) -> tuple[_Floats, _Floats, _Floats]: ...

def incomplete_data(
    unit: Sequence[_Floats],
    cluster: Sequence[_Floats],
    codes: NDArray[np.int64],
    nclusters: int,
    nboth: int,
    weights: _Floats | None = None,
    counts: _Floats | None = None,
) -> IncompleteData: ...
def cluster_values(
    cluster: Sequence[_Floats], codes: NDArray[np.int64], nclusters: int
) -> tuple[_Floats, list[tuple[int, list[int]]]]: ...
def cell_products(
    unit: Sequence[_Floats], codes: NDArray[np.int64], data: IncompleteData, weights: _Floats | None = None
) -> _Floats: ...

class ReducedData:
    def __init__(
        self,
        unit: Sequence[_Floats],
        slopes: Sequence[_Floats],
        cluster: Sequence[_Floats],
        codes: NDArray[np.int64],
        nclusters: int,
        nboth: int,
        fixed: int,
        covariate: Sequence[int],
        weights: _Floats | None,  # of rows
        of_clusters: _Floats,  # or empty
    ) -> None: ...
    @property
    def sizes(self) -> _Floats: ...
    @property
    def nobs(self) -> float: ...  # units and clusters by their weights
    @property
    def nclusters(self) -> float: ...
    @property
    def first(self) -> NDArray[np.int64]: ...
    @property
    def slopes(self) -> int: ...
    @property
    def nboth(self) -> int: ...
    @property
    def fixed(self) -> int: ...
    @property
    def npatterns(self) -> int: ...  # of observed outcomes
    @property
    def cluster_values(self) -> _Floats: ...  # J x q
    @property
    def design(self) -> _Floats: ...
    def products(
        self,
        unit: Sequence[_Floats],
        slopes: Sequence[_Floats],
        codes: NDArray[np.int64],
        weights: _Floats | None,
    ) -> _Floats: ...
    @property
    def covariate(self) -> list[int]: ...  # of each slope, counted from 1
    @property
    def weight(self) -> _Floats: ...
    def coefficients(self) -> dict[str, Any]: ...
    # numbers, means and covariances of the values over units; means and covariances over clusters
    def moments(self) -> tuple[_Floats, _Floats, _Floats, _Floats, _Floats]: ...
    def restrict(
        self, outcomes: Sequence[int], nboth: int, fixed: Sequence[int], cluster: Sequence[int]
    ) -> ReducedData: ...
    def with_slopes(self, covariate: Sequence[int]) -> ReducedData: ...

# means (N, d) and covariance matrices (d^2, N) of the latent variables of level 1
def slope_unit_scores(
    both: int,
    fixed: int,
    mean: _Floats,
    cov: _Floats,
    unit: Sequence[_Floats],
    slopes: Sequence[_Floats],
    codes: NDArray[np.int64],
    effects: _Floats,
    variances: _Floats,
    which: NDArray[np.int64],
) -> tuple[_Floats, _Floats]: ...
def slope_unit_distances(
    both: int,
    fixed: int,
    given: Sequence[int],
    mean: _Floats,
    cov: _Floats,
    unit: Sequence[_Floats],
    slopes: Sequence[_Floats],
    codes: NDArray[np.int64],
    effects: _Floats,
    variances: _Floats,
    which: NDArray[np.int64],
) -> tuple[_Floats, _Floats]: ...
def reduce_clusters(
    sizes: _Floats,
    means: _Floats,
    within: _Floats,
    slopes: Sequence[int],
    nboth: int,
    fixed: int,
    covariate: Sequence[int],
    of_clusters: _Floats,  # weights of the clusters, or empty
) -> tuple[ReducedData, _Floats]: ...  # and the products beyond the rows of each cluster

class DrawnStatistics(TypedDict):
    sizes: _Floats  # (S,)
    counts: _Floats  # (S,)
    means: _Floats  # (S, p + q)
    scatter: _Floats  # (S, p + q, p + q)
    ssw: _Floats  # (p, p)

class Draws:
    def statistics(self, replicate: int) -> list[DrawnStatistics | IncompleteData | ReducedData]: ...

class IncompletePool:
    """Clusters with holes; `unit` says which of those that are drawn each cluster of the data belongs to."""

    def __init__(
        self, data: IncompleteData, products: _Floats, unit: Sequence[int] | NDArray[np.intp]
    ) -> None: ...

class NestedPool:
    def __init__(self, data: NestedData, place: Sequence[int]) -> None: ...

class SlopePool:
    """Clusters with random slopes; cluster `place[j]` of those that are drawn is cluster j of the data."""

    def __init__(
        self, data: ReducedData, products: _Floats, place: Sequence[int] | NDArray[np.intp]
    ) -> None: ...

class IntegratedPool:
    def __init__(self, data: SlopeClusterData, place: Sequence[int] | NDArray[np.intp]) -> None: ...

class OrdinaryDraws(Draws):
    """Groups are (sizes, means, within) of `cluster_arrays`, or have holes."""

    def __init__(
        self,
        groups: Sequence[
            tuple[_Floats, _Floats, _Floats] | IncompletePool | SlopePool | IntegratedPool | NestedPool
        ],
        seed: int,
        single_level: bool = False,
        centred: bool = False,
    ) -> None: ...
    def weights(self, replicate: int, group: int) -> _Floats: ...

class LeaveOneOut(Draws):
    def __init__(
        self,
        groups: Sequence[
            tuple[_Floats, _Floats, _Floats] | IncompletePool | SlopePool | IntegratedPool | NestedPool
        ],
        single_level: bool = False,
        centred: bool = False,
    ) -> None: ...

class ParametricDraws(Draws):
    """Groups have the statistics, `moments` by level, the positions `covariate`, and whether they are `centred`."""

    def __init__(self, groups: Sequence[dict[str, Any]], seed: int) -> None: ...

# Each group is its data, moments by level (products of slopes, and these, last), and positions of the fixed covariates
# among the variables of each level.
class CrossedParametricDraws(Draws):
    def __init__(
        self, groups: Sequence[tuple[CrossedData, _Levels, Sequence[Sequence[int]]]], seed: int
    ) -> None: ...

class NestedParametricDraws(Draws):
    def __init__(
        self, groups: Sequence[tuple[NestedData, _Levels, Sequence[Sequence[int]]]], seed: int
    ) -> None: ...

class IncompleteParametricDraws(Draws):
    def __init__(
        self, groups: Sequence[tuple[IncompleteData, _Levels, Sequence[Sequence[int]]]], seed: int
    ) -> None: ...

class SlopeParametricDraws(Draws):
    def __init__(
        self, groups: Sequence[tuple[ReducedData, _Levels, Sequence[Sequence[int]]]], seed: int
    ) -> None: ...

class IntegratedParametricDraws(Draws):
    def __init__(
        self, groups: Sequence[tuple[SlopeClusterData, _Levels, Sequence[Sequence[int]]]], seed: int
    ) -> None: ...

def philox(counter: Sequence[int], key: Sequence[int]) -> list[int]: ...

_Scores = tuple[_Floats, _Floats, NDArray[np.intp]]  # (rows, d), covariances (S, d, d), that of each row

class _Group:
    def cluster_posterior(self) -> _Scores: ...
    def cluster_bartlett(self, loadings: _Floats, residual: _Floats) -> _Scores: ...
    def unit_posterior(self, unit: Sequence[_Floats], codes: NDArray[np.int64]) -> _Scores: ...
    def unit_bartlett(
        self, loadings: _Floats, residual: _Floats, unit: Sequence[_Floats], codes: NDArray[np.int64]
    ) -> _Scores: ...
    # between, within, their degrees of freedom, each (J,)
    def cluster_distances(
        self, unit_covariates: Sequence[int], cluster_covariates: Sequence[int]
    ) -> tuple[_Floats, _Floats, _Floats, _Floats]: ...
    # and degrees of freedom
    def unit_distances(
        self, unit_covariates: Sequence[int], unit: Sequence[_Floats], codes: NDArray[np.int64]
    ) -> tuple[_Floats, _Floats]: ...

class GroupData(_Group):
    """Model-implied moments of a group, all variables, observed first; statistics of J clusters.

    `shape`: of how many variables, measured on units, at both levels and measured on clusters.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        moments: _Levels,
        sizes: _Floats,
        means: _Floats,
        within: _Floats,
    ) -> None: ...

class IncompleteGroup(_Group):
    """The same for data with holes, with covariances by what is observed."""

    def __init__(self, moments: _Levels, data: IncompleteData, products: _Floats) -> None: ...

def leave_one_out_steps(
    objective: Objective,
    theta: ArrayLike,
    basis: _Floats,
    intercepts: Sequence[int],
    clusters: Clusters,
    chosen: Sequence[int] | NDArray[np.intp],
    group: int = 0,
    corrections: int = 8,
    threads: int = 1,
) -> tuple[_Floats, _Floats]: ...
def leave_one_out_statistics(
    objective: Objective,
    theta: ArrayLike,
    basis: _Floats,
    intercepts: Sequence[int],
    loss: LeastSquares,
    values: _Floats,
    shares: _Floats,
    factor: _Floats,
    group: int = 0,
    saturated: tuple[Objective, Clusters, Sequence[int], _Floats, Sequence[int] | NDArray[np.intp], bool]
    | None = None,
    corrections: int = 60,
    threads: int = 1,
) -> tuple[_Floats, _Floats]: ...
def delete_one_steps(
    objective: Objective,
    theta: ArrayLike,
    basis: _Floats,
    groups: Sequence[tuple[Clusters, _Floats, Sequence[int]]],
    count: int,
) -> _Floats: ...

class Expressions:
    """Functions of parameters as postfix programs of (operation, index, value); those before `first` serve others."""

    def __init__(
        self, npar: int, programs: Sequence[Sequence[tuple[str, int, float]]], first: int = 0
    ) -> None: ...
    @property
    def npar(self) -> int: ...
    def __len__(self) -> int: ...
    def variables(self, result: int) -> list[int]: ...
    def values(self, theta: ArrayLike) -> _Floats: ...
    def values_of_rows(self, thetas: ArrayLike) -> _Floats: ...
    def jacobian(self, theta: ArrayLike) -> _Floats: ...
    def curvature(self, theta: ArrayLike, weights: ArrayLike) -> _Floats: ...

class Constraints:
    """Equalities and inequalities, and which of the equalities are linear."""

    def __init__(self, equalities: Expressions, inequalities: Expressions, linear: Sequence[int]) -> None: ...
    def project(self, theta: _Floats) -> _Floats: ...

def solve_quadratic(
    hessian: _Floats,
    gradient: _Floats,
    equalities: _Floats,
    equality_values: _Floats,
    inequalities: _Floats,
    inequality_values: _Floats,
) -> tuple[bool, bool, _Floats, _Floats, _Floats]: ...  # solved, feasible, d, multipliers of either kind

class IncompleteLikelihood(Likelihood):
    def __init__(self, data: IncompleteData) -> None: ...

class SlopeLikelihood(Likelihood):
    """Data with random slopes; moments have the products of slopes and covariates, and the slopes, last."""

    def __init__(self, data: ReducedData) -> None: ...
    @property
    def designs(self) -> int: ...  # different ones
    def evidence(
        self, moments: _Levels
    ) -> tuple[_Floats, _Floats, NDArray[np.int64]]: ...  # r x J, r^2 x classes, class of each cluster

class SlopeClusters(Clusters): ...

class SlopeClusterData:
    """Clusters, or cells of them with the same variables observed, for slopes that are integrated over.

    `fixed` of the unit variables, the last ones, are fixed covariates; `covariate` are positions of those with slopes
    among the unit variables and the latent ones after them; `weight` of the clusters, or empty.
    """

    @overload
    def __init__(
        self,
        sizes: _Floats,
        means: _Floats,
        within: _Floats,
        nboth: int,
        fixed: int,
        covariate: Sequence[int],
        nodes: int,
        latent: int,
        weight: _Floats,
    ) -> None: ...
    @overload
    def __init__(
        self,
        data: IncompleteData,
        products: _Floats,
        nboth: int,
        fixed: int,
        covariate: Sequence[int],
        nodes: int,
        latent: int,
        weight: _Floats,
    ) -> None: ...
    @property
    def nobs(self) -> float: ...  # units and clusters by their weights
    @property
    def nclusters(self) -> float: ...
    @property
    def sizes(self) -> _Floats: ...
    @property
    def weight(self) -> _Floats: ...
    @property
    def nodes(self) -> int: ...
    def with_nodes(self, nodes: int) -> SlopeClusterData: ...
    # numbers, means and covariances of the values over units; means and covariances over clusters
    def moments(self) -> tuple[_Floats, _Floats, _Floats, _Floats, _Floats]: ...
    # pooled within clusters, of means of clusters with cluster variables, harmonic mean of the sizes
    def crude(self) -> tuple[_Floats, _Floats, float]: ...

class IntegratedSlopes:
    """Clusters with moments of all variables, for scores."""

    def __init__(self, data: SlopeClusterData, moments: _Levels) -> None: ...
    def clusters(self) -> tuple[_Floats, _Floats]: ...  # means d x J, covariance matrices d^2 x J
    def units(
        self, unit: Sequence[_Floats], codes: NDArray[np.int64], nclusters: int
    ) -> tuple[_Floats, _Floats]: ...  # means N x d, covariance matrices d^2 x N
    def draw(
        self, unit: Sequence[_Floats], codes: NDArray[np.int64], nclusters: int, seed: int
    ) -> tuple[_Floats, _Floats]: ...  # d x J, N x d

class QuadratureLikelihood(Likelihood):
    """Random slopes of covariates at both levels; moments as those of `SlopeLikelihood`."""

    def __init__(self, data: SlopeClusterData) -> None: ...
    def slopes(
        self, moments: _Levels
    ) -> tuple[_Floats, _Floats]: ...  # posterior means m x J and covariance matrices m^2 x J

class QuadratureClusters(Clusters): ...

class OrderedData:
    """Rows with ordered variables, or clusters with them, and what their likelihood is an integral over.

    Categories of unit and cluster variables, 0 of continuous ones; `cuts` are their thresholds among all, `covariate`
    those of slopes among the variables of level 1 and the latent ones after them, `integrated` variables of level 2.
    """

    def __init__(
        self,
        rows: _Floats,
        codes: Sequence[int] | NDArray[np.int64],
        clusters: _Floats,
        nboth: int,
        categories: Sequence[int],
        cuts: Sequence[Sequence[int]],
        latent: int,
        latent_b: int,
        covariate: Sequence[int],
        integrated: Sequence[int],
        logistic: bool,
        nodes: int,
        spacing: float,
        weight: _Floats = ...,
        cluster_weight: _Floats = ...,
    ) -> None: ...

class OrderedPosterior(TypedDict):
    """Posterior means of what is integrated over at level 2 (d x J), covariance matrices (d^2 x J); level 1 (l x N)."""

    integrated: _Floats
    integrated_cov: _Floats
    within: _Floats
    within_var: _Floats

class OrderedLikelihood(Likelihood):
    """Ordered variables by quadrature; level 2 has thresholds after its latent variables, then slopes."""

    def __init__(self, data: OrderedData) -> None: ...
    def posterior(self, moments: Sequence[tuple[_Floats, _Floats]]) -> OrderedPosterior: ...

class OrderedClusters(Clusters): ...

class OrderedRows(Likelihood):
    """The same of one level, whose variables are followed by thresholds; rows are clusters of one unit."""

    def __init__(self, data: OrderedData) -> None: ...
    def posterior(self, moments: Sequence[tuple[_Floats, _Floats]]) -> OrderedPosterior: ...

class OrderedRowsClusters(Clusters): ...

# level, covariate, its mean and spread, levels where the slope is a variable
_RandomSlope = tuple[int, int, float, float, Sequence[int]]
_Measured = tuple[_Floats, _Floats, _Floats]  # of variables of a level: means, numbers of pairs, covariances

class NestedData:
    """Data in clusters within clusters: variables are numbered over all levels, measured on one of them."""

    @overload
    def __init__(
        self,
        levels: Sequence[Sequence[int]],
        measured: Sequence[int],
        values: Sequence[_Floats],
        parent: Sequence[Sequence[int]],
        times: Sequence[_Floats],
        sizes: _Floats,
        means: _Floats,
        products: _Floats,
    ) -> None: ...
    @overload
    def __init__(
        self,
        levels: Sequence[Sequence[int]],
        measured: Sequence[int],
        values: Sequence[_Floats],
        parent: Sequence[Sequence[int]],
        times: Sequence[_Floats],
        cells: IncompleteData,
        products: _Floats,
    ) -> None: ...
    @overload
    def __init__(
        self,
        levels: Sequence[Sequence[int]],
        measured: Sequence[int],
        values: Sequence[_Floats],
        parent: Sequence[Sequence[int]],
        times: Sequence[_Floats],
        rows: ReducedData,
        products: _Floats,
        place: Sequence[int],
    ) -> None: ...
    @property
    def levels(self) -> list[list[int]]: ...  # variables with a part at each
    @property
    def measured(self) -> list[int]: ...  # level of each variable, from 0
    @property
    def sizes(self) -> _Floats: ...  # of the lowest clusters
    @property
    def weight(self) -> _Floats: ...  # of the highest clusters
    @property
    def origin(self) -> _Floats: ...
    @property
    def complete(self) -> bool: ...
    @property
    def values(self) -> list[_Floats]: ...  # by level, variables x clusters; of level 1 x cells
    @property
    def patterns(
        self,
    ) -> list[list[list[int]]]: ...  # by level, observed variables among those measured there
    @property
    def pattern(self) -> list[NDArray[np.int64]]: ...  # by level, of each cluster or cell
    @property
    def cluster_of_cell(self) -> NDArray[np.int64]: ...
    @property
    def parent(self) -> list[NDArray[np.int64]]: ...  # of the clusters of level 2 and up
    @property
    def multiple(
        self,
    ) -> list[_Floats]: ...  # how often cells, and clusters of level 2, ..., count where they are
    def moments(self, level: int) -> _Measured: ...
    @property
    def products_within_cells(self) -> _Floats: ...
    @property
    def products_within_clusters(self) -> _Floats: ...  # the lowest
    def clusters_with_pairs(self, level: int) -> _Floats: ...
    def weights(self, level: int) -> _Floats: ...  # how often clusters of a level, from 0, or cells count
    @property
    def design(self) -> list[_Floats]: ...  # by level, (1 + covariates) x clusters
    @property
    def slopes(self) -> list[_RandomSlope]: ...
    @property
    def products(self) -> _Floats: ...  # of parts of the highest clusters
    @property
    def product_top(self) -> NDArray[np.int64]: ...
    @property
    def product_pattern(self) -> NDArray[np.int64]: ...
    @property
    def beyond(self) -> _Floats: ...
    def with_slopes(
        self,
        slopes: Sequence[_RandomSlope],
        designs: Sequence[_Floats],
        given: Sequence[int],
    ) -> NestedData: ...
    def expected(self, moments: Sequence[tuple[_Floats, _Floats]], sizes: _Floats) -> NestedData: ...
    def restrict(self, variables: Sequence[int], levels: Sequence[Sequence[int]]) -> NestedData: ...
    def weighted(self, weights: _Floats) -> NestedData: ...

class NestedLikelihood(Likelihood):
    """Data of three levels and more."""

    def __init__(self, data: NestedData) -> None: ...
    def evidence(
        self, moments: Sequence[tuple[_Floats, _Floats]], level: int
    ) -> tuple[_Floats, _Floats, NDArray[np.int64]]: ...  # n x J, n^2 x kinds, kind of each cluster
    # of the parts of variables, less their means, and the slopes of level 1, summed over the levels, of the lowest
    # clusters: n x J, n^2 x kinds, kind of each cluster
    def effects(
        self, moments: Sequence[tuple[_Floats, _Floats]]
    ) -> tuple[_Floats, _Floats, NDArray[np.int64]]: ...

class NestedClusters(Clusters): ...

class Classification:
    """One of two crossed classifications."""

    @property
    def sizes(self) -> _Floats: ...
    @property
    def values(self) -> _Floats: ...  # measured on the clusters, q x clusters

class CrossedData:
    """Data of units in two crossed classifications; variables are numbered over all levels."""

    def __init__(
        self,
        levels: Sequence[Sequence[int]],
        measured: Sequence[int],
        units: _Floats,
        of: Sequence[NDArray[np.int64]],
        values: Sequence[_Floats],
        covariates: _Floats = ...,  # N x m, those with slopes
    ) -> None: ...
    @property
    def levels(self) -> list[list[int]]: ...
    @property
    def measured(self) -> list[int]: ...
    @property
    def origin(self) -> _Floats: ...
    @property
    def nobs(self) -> float: ...
    def moments(self, level: int) -> _Measured: ...
    @property
    def complete(self) -> bool: ...
    @property
    def cells(self) -> tuple[list[int], list[int], list[int], _Floats]: ...  # clusters, pattern, units
    @property
    def patterns(self) -> list[list[int]]: ...
    @property
    def classifications(self) -> tuple[Classification, Classification]: ...
    def restrict(self, variables: Sequence[int], levels: Sequence[Sequence[int]]) -> CrossedData: ...
    @property
    def slopes(self) -> list[_RandomSlope]: ...
    def with_slopes(self, slopes: Sequence[_RandomSlope], given: Sequence[int]) -> CrossedData: ...

class CrossedLikelihood(Likelihood):
    """Data of two crossed classifications; `sparse` whatever is faster."""

    def __init__(self, data: CrossedData, sparse: bool = False) -> None: ...
    @property
    def size(self) -> tuple[int, float, float, bool, bool]: ...  # rows, bytes, operations, sparse, possible
    def evidence(
        self, moments: Sequence[tuple[_Floats, _Floats]], level: int
    ) -> tuple[_Floats, _Floats]: ...  # n x J, n^2 x J
    # of the parts of variables and the slopes, summed over both classifications: n x cells, n^2 x cells
    def effects(self, moments: Sequence[tuple[_Floats, _Floats]]) -> tuple[_Floats, _Floats]: ...

class GivenSamples(Draws):
    """Samples: (lengths, sizes, counts, means, scatter, ssw) of every group, those of all samples stacked."""

    def __init__(
        self, groups: Sequence[tuple[Sequence[int], _Floats, _Floats, _Floats, _Floats, _Floats]]
    ) -> None: ...
    def dependent(
        self, group: int, unit: Sequence[int], cluster: Sequence[int], least: float
    ) -> list[int]: ...  # samples

class SelectedDraws(Draws):
    """Some of the unit variables, and some of all variables, of other draws."""

    def __init__(
        self, draws: Draws, unit: Sequence[int], all: Sequence[int], centred: bool = False
    ) -> None: ...

class Fits(TypedDict):
    theta: _Floats  # (R, npar)
    se: _Floats  # (R, npar)
    defined: _Floats  # (R, k)
    defined_se: _Floats  # (R, k)
    value: _Floats  # (R,)
    saturated: _Floats  # (R,)
    covariates: _Floats  # (R,)
    verdict: list[int]  # R
    stop: list[int]  # R
    iterations: list[int]  # R
    problem: list[str]  # R
    few_clusters: list[bool]  # R
    named: list[list[int]]  # R: parameters not identified, or of a flat direction without a maximum

_Moments = Sequence[tuple[_Floats, _Floats]]  # means and covariances by level

class Plan:
    """Blocks and their groups, which are (blocks, nboth, covariates by level)."""

    def __init__(
        self,
        npar: int,
        blocks: Sequence[TableBlock],
        groups: Sequence[tuple[Sequence[int], int, Sequence[Sequence[int]]]],
        constraints: Constraints | None = None,
        defined: Expressions | None = None,
        penalties: Sequence[VariancePenalty] = (),
    ) -> None: ...
    @property
    def lower(self) -> _Floats: ...
    @property
    def upper(self) -> _Floats: ...
    def estimate(
        self,
        objective: Objective,
        saturated: Sequence[_Moments],
        saturated_value: float,
        max_iterations: int = 500,
        tolerance: float = 1e-12,
        saturated_blocks: Sequence[bool] = ...,
        space: int = 0,
        starts: int = 0,
        cone: bool = False,
        first: _Floats = ...,
    ) -> Found: ...
    def starts(
        self, objective: Objective, saturated: Sequence[_Moments], saturated_value: float
    ) -> list[_Floats]: ...
    def improper(self, objective: Objective, theta: _Floats) -> list[tuple[int, list[int], int]]: ...
    def fit(
        self,
        draws: Draws,
        first: int,
        last: int,
        threads: int = 1,
        max_iterations: int = 500,
        tolerance: float = 1e-12,
        errors: int = 0,
        saturated: Sequence[_Moments] = ...,
        space: int = 0,
        starts: int = 0,
    ) -> Fits: ...

_Law = tuple[_Floats, _Floats, _Floats, _Floats, float]

class RowDraws(Draws):
    """Groups are (levels, measured, cuts, given): the level, from 0, that each observed variable is measured on.

    Cuts are of each ordered variable its number, the thresholds, and the scale of a logistic residual that is added
    first. A level is (law, variables, of, slopes): the law of its variables (mean, root, polynomial, scale, df), their
    numbers, observed ones first, the cluster of each unit, and of each product of a random slope the slope's number,
    the position of the covariate and the effects on the variables of the level. What is given is added to what is drawn
    before there are categories: for each level, or for none, a row for each of its units or clusters and a column for
    each variable measured there.
    """

    def __init__(
        self,
        groups: Sequence[
            tuple[
                Sequence[tuple[_Law, Sequence[int], Sequence[int], Sequence[tuple[int, int, _Floats]]]],
                Sequence[int],
                Sequence[tuple[int, _Floats, float]],
                Sequence[_Floats],
            ]
        ],
        seed: int,
    ) -> None: ...
    def rows(self, replicate: int, group: int = 0) -> list[_Floats]: ...

class RotationCriterion:
    """A function of loadings that is small where they are simple."""

    @staticmethod
    def quartic(own: float, column: float, row: float, total: float) -> RotationCriterion: ...
    @staticmethod
    def geomin(epsilon: float) -> RotationCriterion: ...
    @staticmethod
    def partial_target(target: _Floats, mask: _Floats) -> RotationCriterion: ...
    def evaluate(self, loadings: _Floats) -> tuple[float, _Floats]: ...
    def rotate(
        self, unrotated: _Floats, orthogonal: bool, starts: int, seed: int
    ) -> list[tuple[_Floats, _Floats, float, int, bool, float]]: ...
    def conditions(
        self, loadings: _Floats, correlations: _Floats, orthogonal: bool
    ) -> tuple[_Floats, _Floats]: ...
