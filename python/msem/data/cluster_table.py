"""Arrays of the statistics of clusters: their shapes, what follows from them alone, and parts of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.columns import require_known
from msem.data.complete import SampleStatistics
from msem.data.sums import ClusterSums
from msem.data.weighting import Weighting
from msem.entry import entries
from msem.errors import DataError
from msem.model.variables import Variables

Floats = NDArray[np.float64]
BY_SIZE = ("sizes", "counts", "means", "scatter")
ARRAYS = (*BY_SIZE, "ssw", "origin")


@entries
@dataclass(frozen=True, eq=False, repr=False)
class ClusterTable:
    """What is kept of clusters, as arrays, and of the rows they were made of; `ClusterStatistics` says what each is."""

    variables: tuple[str, ...]
    cluster: str | tuple[str, ...]
    nobs: float
    nclusters: float
    sizes: Floats
    counts: Floats
    means: Floats
    scatter: Floats
    ssw: Floats
    origin: Floats
    sums: ClusterSums | None = None
    ids: pd.Index[Any] | None = None
    nrows: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    dropped_rows: int = 0
    dropped_no_cluster: int = 0
    origins: frozenset[str] = frozenset()
    weighting: Weighting | None = None

    def __post_init__(self) -> None:
        for name in ARRAYS:
            array = np.array(getattr(self, name), dtype=np.float64)
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        # the checks of statistics of units are those of these: every variable is taken as one
        whole = self.whole
        if self.origin.shape != (len(self.variables),) or not np.isfinite(self.origin).all():
            raise DataError(f"the origin must be {len(self.variables)} finite numbers")
        if (np.diag(whole.ssw) < 0).any() or any((np.diag(one) < 0).any() for one in whole.scatter):
            raise DataError("sums of squares cannot be negative")
        if self.sums is not None:
            self.sums.require_fit(len(self.variables), self.nclusters)
        if self.has_inner and not self.keeps_products:
            raise DataError("statistics of nested clusters have those of every cluster, with its products")
        if not self.origins:
            object.__setattr__(self, "origins", frozenset({self._digest}))

    @property
    def has_inner(self) -> bool:
        """Whether these are statistics of clusters within clusters."""
        return isinstance(self.cluster, tuple)

    @property
    def cluster_text(self) -> str:
        """The columns of clusters as one writes them."""
        return repr(list(self.cluster) if isinstance(self.cluster, tuple) else self.cluster)

    @property
    def whole(self) -> SampleStatistics:
        """The statistics with every variable taken as one of units, and means less `origin`."""
        return SampleStatistics(
            Variables.of_levels([self.variables, self.variables]),
            self.nobs if self.weighting is None else float(self.sizes @ self.counts),
            self.nclusters if self.weighting is None else float(self.counts.sum()),
            self.sizes,
            self.counts,
            self.means,
            self.scatter,
            self.ssw,
            "data",
        )

    @property
    def _digest(self) -> str:
        digest = hashlib.sha256(repr((self.variables, self.nobs, self.nclusters)).encode())
        for name in ARRAYS:
            digest.update(getattr(self, name).tobytes())
        if self.sums is not None:
            digest.update(repr(list(self.sums.ids[:1000])).encode())
        return digest.hexdigest()[:16]

    @property
    def keeps_products(self) -> bool:
        """Whether products within every single cluster are there."""
        return self.sums is not None and self.sums.keeps_products

    @property
    def kept(self) -> ClusterSums:
        """The statistics of the single clusters; `DataError` if they were not kept with their products."""
        if self.sums is None or not self.keeps_products:
            raise DataError(
                "this needs the statistics of the single clusters, which were not kept: make them with "
                "msem.summarize(..., keep_clusters=True)"
            )
        return self.sums

    @property
    def varying(self) -> tuple[str, ...]:
        """Variables that vary within clusters; the others are measured on clusters."""
        return tuple(
            name for name, square in zip(self.variables, np.diag(self.ssw), strict=True) if square > 0
        )

    @property
    def total_mean(self) -> pd.Series:
        """Means over units."""
        weights = self.sizes * self.counts
        mean = self.origin + weights @ self.means / weights.sum()
        return pd.Series(mean, index=list(self.variables), name="mean")

    @property
    def total_scatter(self) -> Floats:
        """Sums of squares and products over units about their means."""
        weights = self.sizes * self.counts
        deviations = self.means - weights @ self.means / weights.sum()
        between = np.tensordot(self.sizes, self.scatter, axes=1) + (deviations.T * weights) @ deviations
        total: Floats = self.ssw + between
        return total

    def restrict(self, variables: Sequence[str]) -> Self:
        """Statistics of some of the variables, of the same rows.

        Raises
        ------
        DataError
            If a variable is not among them.
        """
        at = self.positions(variables)
        return replace(
            self,
            variables=tuple(variables),
            means=self.means[:, at],
            scatter=self.scatter[:, at][:, :, at],
            ssw=self.ssw[np.ix_(at, at)],
            origin=self.origin[at],
            sums=None if self.sums is None else self.sums.restrict(at, len(self.variables)),
        )

    def positions(self, names: Sequence[str]) -> list[int]:
        """Where variables stand; `DataError` for one that is not there."""
        try:
            require_known(names, self.variables)
        except DataError as error:
            raise DataError(str(error).replace("the data have", "the statistics have")) from None
        return [self.variables.index(name) for name in names]

    def with_factor(self, factor: float) -> Self:
        """The same, each cluster counted by so many times its weight."""
        if self.weighting is None or factor == self.weighting.factor:
            return self
        share = factor / self.weighting.factor
        return replace(
            self,
            counts=share * self.counts,
            scatter=share * self.scatter,
            ssw=share * self.ssw,
            weighting=replace(self.weighting, factor=factor),
        )

    @property
    def normalised(self) -> Self:
        """The same, with weights of clusters that add up to their number."""
        assert self.weighting is not None
        return self.with_factor(self.nclusters / float(self.weighting.totals[2]))
