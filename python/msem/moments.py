"""Level-specific moments: what a two-level analysis can be published as, and started from without raw data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.covariance import require_covariance
from msem.errors import DataError
from msem.gamma import moment_names, saturated_information, unvech, vech
from msem.sample import SampleStatistics
from msem.statistics import expected_statistics

Floats = NDArray[np.float64]
FORMAT = "msem level moments 1"

__all__ = ["LevelMoment", "LevelMoments"]


@dataclass(frozen=True, eq=False)
class LevelMoment:
    """Covariance matrix and means of one level.

    Attributes
    ----------
    cov : DataFrame
    mean : Series
        At the within level 0 for variables that are at both levels.
    """

    cov: pd.DataFrame
    mean: pd.Series


@dataclass(frozen=True, eq=False)
class LevelMoments:
    """Within and between covariance matrices with the sample sizes they come from.

    Parameters
    ----------
    within_cov, between_cov : DataFrame
        Covariance matrices with variable names on both axes. A variable in both is at both levels. They are
        taken to be maximum likelihood (saturated) estimates and used as given, without any rescaling; the
        between one need not be positive definite.
    between_mean : Series, mapping or None
        Means of the between-level variables. None: all 0, for models whose mean structure is saturated.
    nobs, nclusters : int
        Units N and clusters J.
    within_mean : Series, mapping or None
        Means of the within-only variables. None: 0. Those of variables at both levels are added to
        `between_mean`: only the sum is identified.
    cluster_sizes : sequence of int, mapping from size to count, or None
        Sizes of the clusters. None: all of size N / J, an approximation unless the data are balanced.
    acov : DataFrame or None
        Gamma, the asymptotic covariance matrix of the moments, if it is known; see `gamma`.

    Raises
    ------
    DataError
        If a matrix is not square, not symmetric, wrongly named or (within) not positive definite, or the sample
        sizes contradict each other.
    """

    within_cov: pd.DataFrame
    between_cov: pd.DataFrame
    between_mean: pd.Series | Mapping[str, float] | None = None
    nobs: float = np.nan
    nclusters: float = np.nan
    within_mean: pd.Series | Mapping[str, float] | None = None
    cluster_sizes: Sequence[int] | Mapping[int, int] | None = None
    acov: pd.DataFrame | None = field(default=None, repr=False)
    llf: float = field(default=np.nan, repr=False)
    data: SampleStatistics | None = field(default=None, repr=False)
    iterations: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        within = require_covariance(self.within_cov, "within_cov", positive_definite=True)
        between = require_covariance(self.between_cov, "between_cov", positive_definite=False)
        both = [name for name in within.columns if name in between.columns]
        unit = [*both, *(name for name in within.columns if name not in both)]
        cluster = [name for name in between.columns if name not in both]
        second = [*both, *cluster]
        sizes = _size_table(self.cluster_sizes, self.nobs, self.nclusters)
        store = object.__setattr__
        store(self, "within_cov", within.loc[unit, unit])
        store(self, "between_cov", between.loc[second, second])
        within_mean = _means(self.within_mean, unit, "within_mean")
        between_mean = _means(self.between_mean, second, "between_mean")
        between_mean[both] += within_mean[both]  # only their sum is identified
        within_mean[both] = 0.0
        store(self, "within_mean", within_mean)
        store(self, "between_mean", between_mean)
        store(self, "cluster_sizes", sizes)
        if self.acov is not None:
            names = self.moment_names
            if sorted(map(str, self.acov.index)) != sorted(names) or list(self.acov.index) != list(
                self.acov.columns
            ):
                raise DataError(
                    f"acov must have rows and columns named {names[0]}, {names[1]}, ... as in `moment_names`"
                )
            store(self, "acov", self.acov.loc[names, names])

    @property
    def within(self) -> LevelMoment:
        """Within-level moments."""
        return LevelMoment(self.within_cov, pd.Series(self.within_mean))

    @property
    def between(self) -> LevelMoment:
        """Between-level moments."""
        return LevelMoment(self.between_cov, pd.Series(self.between_mean))

    @property
    def both(self) -> tuple[str, ...]:
        """Variables at both levels."""
        return tuple(name for name in self.within_cov.columns if name in self.between_cov.columns)

    @property
    def exact_sizes(self) -> bool:
        """Whether the sizes of the clusters are known, rather than only N and J."""
        return self.cluster_sizes is not None

    @property
    def between_eigenvalues(self) -> Floats:
        """Eigenvalues of the between covariance matrix in the metric of correlations, ascending."""
        cov = self.between_cov.to_numpy()
        scale = np.sqrt(np.abs(np.diag(cov)))
        scale[scale == 0] = 1.0
        return np.linalg.eigvalsh(cov / np.outer(scale, scale))

    @property
    def icc(self) -> pd.Series:
        """Intraclass correlations of the variables at both levels: between over total variance."""
        within, between = np.diag(self.within_cov), np.diag(self.between_cov)
        n = len(self.both)
        return pd.Series(between[:n] / (within[:n] + between[:n]), index=list(self.both), name="icc")

    @cached_property
    def statistics(self) -> SampleStatistics:
        """Sufficient statistics: those of the data if known, else those that the moments imply."""
        return self.expected_statistics if self.data is None else self.data

    @cached_property
    def expected_statistics(self) -> SampleStatistics:
        """Sufficient statistics that the moments imply (Kullback-Leibler projection)."""
        table = self._sizes
        n = len(self.both)
        means = np.concatenate([self.between.mean[:n], self.within.mean[n:], self.between.mean[n:]])
        return expected_statistics(
            self.within_cov.to_numpy(),
            self.between_cov.to_numpy(),
            means,
            list(table),
            list(table.values()),
            tuple(self.within_cov.columns),
            tuple(self.between_cov.columns[n:]),
            n,
            source="moments" if self.exact_sizes else "moments, N and J only",
        )

    @property
    def _sizes(self) -> Mapping[float, float]:
        if isinstance(self.cluster_sizes, Mapping):
            return {float(n): float(j) for n, j in sorted(self.cluster_sizes.items())}
        return {self.nobs / self.nclusters: float(self.nclusters)}

    @property
    def moment_names(self) -> list[str]:
        """Names of the moments in the order of `vector` and `gamma`."""
        return moment_names(self.expected_statistics)

    @property
    def vector(self) -> pd.Series:
        """All moments as one vector."""
        n = len(self.both)
        values = np.concatenate(
            [
                vech(self.within_cov.to_numpy()),
                vech(self.between_cov.to_numpy()),
                self.between.mean[:n],
                self.within.mean[n:],
                self.between.mean[n:],
            ]
        )
        return pd.Series(values, index=self.moment_names)

    def information(self, kind: Literal["observed", "expected"] = "observed") -> pd.DataFrame:
        """Information about the moments: their joint saturated likelihood's, or the inverse of `acov`.

        With raw data, or the cluster-size table, the sizes enter exactly. Matrices without data have no observed
        information of their own; theirs is the expected one.
        """
        names = self.moment_names
        if self.acov is not None:
            matrix = np.linalg.inv(self.acov.to_numpy())
        else:
            matrix = saturated_information(self.vector.to_numpy(), self.statistics, kind)
        if not matrix.size:
            raise DataError(
                "the between covariance matrix plus the within one over the cluster size is not positive definite: "
                "these cannot be estimates from clusters of that size; check the matrices, nobs and nclusters"
            )
        return pd.DataFrame(matrix, index=names, columns=names)

    def gamma(self, kind: Literal["observed", "expected"] = "observed") -> pd.DataFrame:
        """Asymptotic covariance matrix of the moments: the inverse of `information`."""
        information = self.information(kind)
        scale = 1 / np.sqrt(np.diag(information))
        inverse = np.linalg.inv(information.to_numpy() * np.outer(scale, scale)) * np.outer(scale, scale)
        return pd.DataFrame(inverse, index=information.index, columns=information.columns)

    def with_acov(self, kind: Literal["observed", "expected"] = "observed") -> LevelMoments:
        """The same moments carrying their Gamma, as `save` stores them."""
        return self if self.acov is not None else replace(self, acov=self.gamma(kind))

    def save(self, path: str | Path) -> None:
        """Write the moments, sample sizes and Gamma as JSON; raw data or cluster means are not in it."""
        Path(path).write_text(json.dumps(_to_json(self.with_acov())), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> LevelMoments:
        """Read moments written by `save`.

        Raises
        ------
        DataError
            If the file is not one.
        """
        try:
            return _from_json(json.loads(Path(path).read_text(encoding="utf-8")))
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} is not a file of level moments written by msem: {error}") from error


def _means(given: pd.Series | Mapping[str, float] | None, names: list[str], what: str) -> pd.Series:
    series = pd.Series(dict(given) if given is not None else {}, dtype=float)
    unknown = [name for name in series.index if name not in names]
    if unknown:
        raise DataError(
            f"{what} names {', '.join(map(str, unknown))}, which the covariance matrix does not have"
        )
    missing = [name for name in names if name not in series.index]
    if missing and what == "between_mean" and len(series):
        raise DataError(f"{what} has no value for {', '.join(missing)}")
    series = series.reindex(names).fillna(0.0)
    if not np.all(np.isfinite(series)):
        raise DataError(f"{what} must be finite")
    return series


def _size_table(
    sizes: Sequence[int] | Mapping[int, int] | None, nobs: float, nclusters: float
) -> Mapping[int, int] | None:
    if not (np.isfinite(nobs) and np.isfinite(nclusters)):
        raise DataError("nobs (units) and nclusters are needed: they set the precision of the moments")
    if nclusters < 2:
        raise DataError(f"nclusters is {nclusters:g}: at least two clusters are needed")
    if nobs < nclusters:
        raise DataError(f"nobs ({nobs:g} units) is smaller than nclusters ({nclusters:g})")
    if nobs == nclusters:
        raise DataError("nobs equals nclusters: with one unit per cluster the levels cannot be told apart")
    if sizes is None:
        return None
    if isinstance(sizes, Mapping):
        table = {int(n): int(j) for n, j in sizes.items()}
    else:
        values, counts = np.unique(np.asarray(sizes, dtype=np.int64), return_counts=True)
        table = dict(zip(values.tolist(), counts.tolist(), strict=True))
    if any(n < 1 or j < 0 for n, j in table.items()):
        raise DataError("cluster_sizes must be positive sizes, or a mapping from size to number of clusters")
    total, clusters = sum(n * j for n, j in table.items()), sum(table.values())
    if clusters != nclusters or total != nobs:
        raise DataError(
            f"cluster_sizes describe {clusters} clusters with {total} units, "
            f"but nclusters is {nclusters:g} and nobs is {nobs:g}"
        )
    return dict(sorted(table.items()))


def _to_json(moments: LevelMoments) -> dict[str, Any]:
    acov = moments.acov
    return {
        "format": FORMAT,
        "nobs": moments.nobs,
        "nclusters": moments.nclusters,
        "cluster_sizes": None if not moments.exact_sizes else [list(x) for x in moments._sizes.items()],
        "within": {
            "names": list(moments.within_cov.columns),
            "cov": vech(moments.within_cov.to_numpy()).tolist(),
        },
        "between": {
            "names": list(moments.between_cov.columns),
            "cov": vech(moments.between_cov.to_numpy()).tolist(),
        },
        "within_mean": moments.within.mean.tolist(),
        "between_mean": moments.between.mean.tolist(),
        "llf": None if np.isnan(moments.llf) else moments.llf,
        "acov": None if acov is None else vech(acov.to_numpy()).tolist(),
    }


def _from_json(stored: dict[str, Any]) -> LevelMoments:
    if stored.get("format") != FORMAT:
        raise KeyError(f"format is {stored.get('format')!r}, expected {FORMAT!r}")

    def matrix(part: dict[str, Any]) -> pd.DataFrame:
        names = list(part["names"])
        return pd.DataFrame(
            unvech(np.array(part["cov"], dtype=float), len(names)), index=names, columns=names
        )

    within, between = matrix(stored["within"]), matrix(stored["between"])
    sizes = stored["cluster_sizes"]
    moments = LevelMoments(
        within,
        between,
        dict(zip(between.columns, stored["between_mean"], strict=True)),
        nobs=stored["nobs"],
        nclusters=stored["nclusters"],
        within_mean=dict(zip(within.columns, stored["within_mean"], strict=True)),
        cluster_sizes=None if sizes is None else {int(n): int(j) for n, j in sizes},
        llf=np.nan if stored["llf"] is None else stored["llf"],
    )
    if stored["acov"] is None:
        return moments
    names = moments.moment_names
    acov = unvech(np.array(stored["acov"], dtype=float), len(names))
    return replace(moments, acov=pd.DataFrame(acov, index=names, columns=names))
