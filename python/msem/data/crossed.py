"""Statistics of complete data in two crossed classifications: ratings by pupils of lecturers.

No part of such a sample is independent of the rest: what counts are the numbers of units in each pair of clusters,
their sums by cluster of either classification, and their total products.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.arrays import LevelArrays
from msem.data.complete import positions
from msem.data.frames import ClusteredData
from msem.data.screening import Finding, dependent, report, require_scale, unvarying
from msem.data.statistics import Clusters, Rows, WithoutSlopes
from msem.errors import DataError, UnsupportedError
from msem.model.variables import Variables

Floats = NDArray[np.float64]

SAME = 1e-8  # relative difference of moments that counts as none
LARGEST = 12_000  # effects that are left when one classification is eliminated
BYTES = 8


@dataclass(frozen=True, eq=False)
class CrossedStatistics(WithoutSlopes):
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
    complete = True
    sampled = None

    @property
    def unit(self) -> tuple[str, ...]:
        """Variables measured on units."""
        return self.variables.unit

    @property
    def cluster(self) -> tuple[str, ...]:
        """Variables measured on clusters of either classification."""
        return self.variables.cluster

    @property
    def nboth(self) -> int:
        """Number of variables measured on units that have a part at a higher level."""
        return self.variables.nboth

    @property
    def names(self) -> tuple[str, ...]:
        """Every variable once, by the level that it is measured on."""
        return self.variables.names

    @property
    def counted(self) -> tuple[float, ...]:
        """Units, and clusters of either classification."""
        return self.data.nobs, *(float(len(one.sizes)) for one in self.data.classifications)

    @property
    def nobs(self) -> float:
        """Units of level 1."""
        return self.counted[0]

    @property
    def nclusters(self) -> float:
        """Clusters of level 3."""
        return self.counted[-1]

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
    def harmonic_size(self) -> float:
        """Harmonic mean of the sizes of the clusters of level 2."""
        return float(self.counts.sum() / (self.counts / self.sizes).sum())

    @property
    def nvalues(self) -> float:
        """Number of observed values."""
        return sum(n * len(own) for n, own in zip(self.counted, self.variables.measured, strict=True))

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

    @property
    def unidentified(self) -> tuple[str, ...]:
        """Nothing is missing."""
        return ()

    @property
    def npatterns(self) -> tuple[int, ...]:
        """No patterns: every value is there."""
        return ()

    # the likelihood

    def likelihood(self, *, by_cluster: bool = False) -> _core.CrossedLikelihood:
        """The compiled likelihood."""
        return self._likelihood

    @cached_property
    def _likelihood(self) -> _core.CrossedLikelihood:
        return _core.CrossedLikelihood(self.data)

    def __getstate__(self) -> dict[str, Any]:
        # what is compiled is made again
        return {name: getattr(self, name) for name in ("variables", "data", "source")}

    def clusters(self, rows: Rows) -> NoReturn:
        """No clusters are independent; always `UnsupportedError`."""
        raise UnsupportedError(
            "crossed classifications have no independent clusters, which robust errors and tests, scores, influence, "
            "bootstrap and jackknife take: use the errors of the observed information"
        )

    def with_variables(self, variables: Variables) -> CrossedStatistics:
        """Statistics of some of the variables, at these levels and in this order.

        Raises
        ------
        DataError
            If a variable is measured on another level.
        """
        if variables == self.variables:
            return self
        at: list[int] = []
        first = 0
        for own, known in zip(variables.measured, self.variables.measured, strict=True):
            at += [first + k for k in positions(own, known)]
            first += len(known)
        return CrossedStatistics(variables, self.data.restrict(at, _numbers(variables)), self.source)

    def difference(self, other: CrossedStatistics) -> str:
        """What differs from other statistics of the same variables, in words; empty if nothing does."""
        if self.counted != other.counted:
            return "the clusters differ"
        for names, one, two in zip(
            self.variables.measured,
            self.covariances(*self.variables.measured),
            other.covariances(*self.variables.measured),
            strict=True,
        ):
            sd = np.sqrt(one.diagonal())
            if names and (np.abs(one - two) > SAME * np.outer(sd, sd)).any():
                return f"the covariances of {', '.join(map(repr, names))} differ"
        return ""

    # what is not there

    @property
    def arrays(self) -> NoReturn:
        """Statistics by cluster size know two nested levels; always `UnsupportedError`."""
        refuse("samples drawn from a fit")

    def marginal(self, names: Sequence[Sequence[str]], rows: Rows) -> tuple[CrossedStatistics, Clusters]:
        """Statistics of some of the variables, each at one level only; there are no clusters of theirs."""
        part = self.with_variables(Variables(tuple(map(tuple, names))))
        return part, part.clusters(rows)

    def restrict(self, unit: Sequence[str], cluster: Sequence[str], nboth: int) -> NoReturn:
        """Variables of one level or two; always `UnsupportedError`."""
        refuse("statistics of two of the levels")

    def centred(self) -> NoReturn:
        """A model of crossed classifications has means; always `UnsupportedError`."""
        refuse("samples without means")

    def redrawn(self, drawn: Any) -> NoReturn:
        """Always `UnsupportedError`."""
        refuse("replicates")

    def design(
        self, within: LevelArrays, between: LevelArrays, unit: Sequence[str], cluster: Sequence[str]
    ) -> NoReturn:
        """Always `UnsupportedError`."""
        refuse("samples drawn from a fit")


def refuse(what: str) -> NoReturn:
    """Say that something is not there for crossed classifications; named in the plural.

    Raises
    ------
    UnsupportedError
    """
    raise UnsupportedError(f"{what} are not available for crossed classifications in this version")


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
        refuse("data with missing values")
    if data.sampled is not None or data.weights is not None:
        refuse("weights, PSUs and strata")
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
        variables, _core.CrossedData(_numbers(variables), measured, units, codes, values)
    )
    report(_confounded(statistics), found)
    return statistics


def _numbers(variables: Variables) -> list[list[int]]:
    """The variables of each level by their positions among all."""
    at = {name: k for k, name in enumerate(variables.names)}
    return [[at[name] for name in own] for own in variables.levels]


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
