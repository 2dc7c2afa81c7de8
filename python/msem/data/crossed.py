"""Statistics of complete data in two crossed classifications: ratings by pupils of lecturers.

No part of such a sample is independent of the rest: what counts are the numbers of units in each pair of clusters,
their sums by cluster of either classification, and their total products.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.complete import positions
from msem.data.frames import ClusteredData
from msem.data.hierarchy import ManyLevels
from msem.data.screening import Finding, dependent, report, require_scale, unvarying
from msem.data.statistics import Rows
from msem.errors import DataError, UnsupportedError
from msem.model.variables import Variables

Floats = NDArray[np.float64]

LARGEST = 12_000  # effects that are left when one classification is eliminated
BYTES = 8


@dataclass(frozen=True, eq=False)
class CrossedStatistics(ManyLevels):
    """Statistics of a sample of units in two crossed classifications, which are levels 2 and 3.

    Attributes
    ----------
    variables : Variables
    data : _core.CrossedData
        Variables are numbered in the order of `names`.
    source : str
    """

    variables: Variables
    data: _core.CrossedData
    source: str = "data"
    words = "crossed classifications"

    @property
    def counted(self) -> tuple[float, ...]:
        """Units, and clusters of either classification."""
        return self.data.nobs, *(float(len(one.sizes)) for one in self.data.classifications)

    @property
    def sizes(self) -> Floats:
        """Distinct sizes of the clusters of level 2, ascending."""
        return np.unique(self.data.classifications[0].sizes)

    @property
    def counts(self) -> Floats:
        """How many of the clusters of level 2 there are of each size."""
        own = self.data.classifications[0].sizes
        return np.bincount(np.unique(own, return_inverse=True)[1]).astype(np.float64)

    @property
    def total_mean(self) -> Floats:
        """Means over the units of the level that each variable is measured on."""
        return np.array(self.data.origin)

    def covariances(self, *names: Sequence[str]) -> tuple[Floats, ...]:
        """Covariance matrices of variables measured on each level, with the numbers of its units as divisors."""
        known = self.variables.measured
        at = [positions(some, own) for some, own in zip(names, known, strict=True)]
        out = [self.data.products[np.ix_(at[0], at[0])] / self.nobs]
        for rows, one in zip(at[1:], self.data.classifications, strict=True):
            values = one.values[rows]
            out.append(values @ values.T / len(one.sizes))
        return tuple(out)

    # the likelihood

    def likelihood(self, *, by_cluster: bool = False) -> _core.CrossedLikelihood:
        """The compiled likelihood."""
        return self._likelihood

    @cached_property
    def _likelihood(self) -> _core.CrossedLikelihood:
        return _core.CrossedLikelihood(self.data)

    def clusters(self, rows: Rows) -> NoReturn:
        """No clusters are independent; always `UnsupportedError`."""
        raise UnsupportedError(
            "crossed classifications have no independent clusters, which robust errors and tests, scores, influence, "
            "bootstrap and jackknife take: use the errors of the observed information"
        )


def crossed_statistics(
    data: ClusteredData, variables: Variables, *, found: list[Finding] | None = None
) -> CrossedStatistics:
    """Statistics of complete rows in two crossed classifications.

    Parameters
    ----------
    data : ClusteredData
        With the clusters of level 2 as inner ones.
    variables : Variables
        Of three levels.
    found : list of Finding, optional
        Takes what would be refused, for the sample of one group of several.

    Raises
    ------
    DataError
        If a variable cannot be used at its level, or the smaller classification has too many clusters for the memory
        that it takes.
    """
    if not data.complete:
        CrossedStatistics.refuse("data with missing values")
    if data.sampled is not None or data.weights is not None:
        CrossedStatistics.refuse("weights, PSUs and strata")
    names = [name for own in variables.measured for name in own]
    report(unvarying({name: data.columns[name] for name in names}), found)
    (lower,) = data.inner.values()
    assert data.codes is not None
    codes, ids = [lower.codes, data.codes], [lower.ids, data.clusters]
    values = []
    for level, own in enumerate(variables.measured[1:], 2):
        found_values, varying = _core.cluster_values(
            [data.columns[name] for name in own], codes[level - 2], len(ids[level - 2])
        )
        for name, (count, some) in zip(own, varying, strict=True):
            if count:
                first = ", ".join(str(ids[level - 2][code]) for code in some)
                raise DataError(
                    f"variable {name!r} is in the block of level {level} only, but varies within {count} of "
                    f"{len(ids[level - 2])} of its clusters (such as {first}): put it in the block of level 1 too, or "
                    "use its cluster mean"
                )
        values.append(np.asarray(found_values, dtype=np.float64).reshape(len(ids[level - 2]), len(own)))
    _require_room(variables, [len(one) for one in ids])
    units = np.column_stack([data.columns[name] for name in variables.unit])
    measured = [k for k, own in enumerate(variables.measured) for _ in own]
    statistics = CrossedStatistics(
        variables, _core.CrossedData(variables.numbers, measured, units, codes, values)
    )
    report(_confounded(statistics), found)
    return statistics


def _require_room(variables: Variables, clusters: Sequence[int]) -> None:
    """Refuse what takes a dense matrix that is too large."""
    unit = set(variables.unit)
    effects = [
        count * len(unit.intersection(own)) for count, own in zip(clusters, variables.levels[1:], strict=True)
    ]
    least = min(effects)
    if least > LARGEST:
        memory = 3 * BYTES * least**2 / 2**30
        raise DataError(
            f"the effects of the smaller classification are {least}, whose matrix would take {memory:.0f} GiB: models "
            f"of crossed classifications have up to {LARGEST} there in this version; use fewer clusters or variables"
        )


def _confounded(statistics: CrossedStatistics) -> Iterator[Finding]:
    """Collinear variables at the level that they are measured on."""
    for level, (own, cov) in enumerate(
        zip(
            statistics.variables.measured, statistics.covariances(*statistics.variables.measured), strict=True
        ),
        1,
    ):
        require_scale(own, cov.diagonal())
        if len(own) < statistics.counted[level - 1]:
            where = "" if level == 1 else f" among the clusters of level {level}"
            yield from dependent(cov, own, where)
