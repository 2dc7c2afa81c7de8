"""Level-specific moments: what a two-level analysis can be published as, and started from without raw data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.arrays import LevelMoment, frozen, frozen_series, unvech, vech
from msem.data.checks import (
    matching_names,
    named_acov,
    named_means,
    require_covariance,
    require_possible,
    sample_sizes,
    scaled_inverse,
)
from msem.data.complete import SampleStatistics, expected_statistics
from msem.data.intraclass import icc_columns
from msem.data.saturated import Method, moment_names, sandwich, saturated_information, solve_in_space
from msem.data.screening import report, undivided
from msem.data.statistics import Clusters, Saturated, Statistics
from msem.data.storage import DIGEST, Fields, Format, signed, verified, write_json
from msem.entry import entries
from msem.errors import DataError, DataWarning, warn
from msem.model.variables import Variables
from msem.settings import Space

Floats = NDArray[np.float64]
FORMAT = Format("msem level moments", 2, "a file of level moments written by msem")
WITHOUT_DIGEST = "msem level moments 1"  # the format before

__all__ = ["LevelMoment", "LevelMoments"]


@entries
@dataclass(frozen=True, eq=False, repr=False)
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
        Units N and clusters J; both follow from `cluster_sizes` if that is given.
    within_mean : Series, mapping or None
        Means of the within-only variables. None: 0. Those of variables at both levels are added to
        `between_mean`: only the sum is identified.
    cluster_sizes : sequence of int, mapping from size to count, or None
        Sizes of the clusters: one for every cluster, or how many clusters have each. A Series may be either; if its
        numbers do not tell which, it is refused. None: all of size N / J, an
        approximation unless the data are balanced.
    known_acov : DataFrame or None
        Gamma, the asymptotic covariance matrix of the moments, if known, named as in `moment_names`: then `acov`.
    converged : bool
        Whether the moments are a maximum of the saturated likelihood. If not, they have no Gamma.
    in_cone : bool
        Whether they are the maximum among positive semidefinite between matrices only, on whose border they lie: then
        they have no Gamma either.
    means_given : bool
        Whether the between means are known; False where they are 0 because none were given.
    incomplete : bool
        Whether they come from data with holes: what is fitted to them then takes its errors from Gamma.
    weighted : bool
        Whether they come from data with weights, primary sampling units or strata: the same holds then.

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
    cluster_sizes: Sequence[int] | Mapping[int, int] | pd.Series | None = None
    known_acov: pd.DataFrame | None = None
    llf: float = np.nan
    data: Statistics | None = None
    iterations: int = 0
    converged: bool = True
    in_cone: bool = False
    means_given: bool = True
    incomplete: bool = False
    weighted: bool = False

    def __post_init__(self) -> None:
        within = require_covariance(self.within_cov, "within_cov", positive_definite=True)
        between = require_covariance(self.between_cov, "between_cov", positive_definite=False)
        both = [name for name in within.columns if name in between.columns]
        unit = [*both, *(name for name in within.columns if name not in both)]
        cluster = [name for name in between.columns if name not in both]
        second = [*both, *cluster]
        sizes, nobs, nclusters = sample_sizes(self.cluster_sizes, self.nobs, self.nclusters)
        store = object.__setattr__
        store(self, "nobs", nobs)
        store(self, "nclusters", nclusters)
        store(self, "within_cov", frozen(within.loc[unit, unit]))
        store(self, "between_cov", frozen(between.loc[second, second]))
        within_mean = named_means(self.within_mean, unit, "within_mean")
        between_mean = named_means(self.between_mean, second, "between_mean")
        between_mean[both] += within_mean[both]  # only their sum is identified
        within_mean[both] = 0.0
        named = set[str]().union(*(dict(m) for m in (self.between_mean, self.within_mean) if m is not None))
        store(self, "means_given", self.means_given and named.issuperset(second))
        store(self, "within_mean", frozen_series(within_mean))
        store(self, "between_mean", frozen_series(between_mean))
        store(self, "cluster_sizes", sizes)
        report(undivided(round(nobs), round(nclusters), unit), None)
        if self.known_acov is not None:
            store(self, "known_acov", frozen(named_acov(self.known_acov, self.moment_names)))

    def __repr__(self) -> str:
        variables = f"{len(self.within_cov)} within, {len(self.between_cov)} between variables"
        state = ", on the border of the cone" if self.in_cone else "" if self.converged else ", not converged"
        return (
            f"<msem.LevelMoments: {variables}, {self.nobs:.0f} units in {self.nclusters:.0f} clusters{state}>"
        )

    @property
    def needs_gamma(self) -> bool:
        """Whether sample sizes do not tell how precise the moments are."""
        return self.incomplete or self.weighted

    @property
    def given_as(self) -> str:
        """What a summary says of moments that were given: whether sizes of clusters and means are known."""
        sizes = "moments with cluster sizes" if self.exact_sizes else "moments with N and J only"
        return sizes if self.means_given else f"{sizes}; means not given, taken as 0"

    @property
    def within(self) -> LevelMoment:
        """Within-level moments."""
        return LevelMoment(self.within_cov.copy(), pd.Series(self.within_mean).copy())

    @property
    def between(self) -> LevelMoment:
        """Between-level moments."""
        return LevelMoment(self.between_cov.copy(), pd.Series(self.between_mean).copy())

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
    def statistics(self) -> Statistics:
        """Sufficient statistics: those of the data if known, else those that the moments imply."""
        return self.expected_statistics if self.data is None else self.data

    @cached_property
    def expected_statistics(self) -> SampleStatistics:
        """Sufficient statistics that the moments imply (Kullback-Leibler projection)."""
        table = self._sizes
        n = len(self.both)
        require_possible(self.within_cov.to_numpy(), self.between_cov.to_numpy(), n, max(table))
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

    def icc_table(
        self, kind: Literal["observed", "expected"] = "observed", *, ci_level: float = 0.95
    ) -> pd.DataFrame:
        """Intraclass correlations with delta-method standard errors and intervals on Fisher's scale.

        Returns
        -------
        DataFrame
            Indexed by variable: icc, se, ci_lower, ci_upper, design_effect, effective_nobs; see `icc_columns`.
        """
        n, icc, gamma = len(self.both), self.icc.to_numpy(), self.gamma(kind)
        w, b = ([f"{name}~~{name}{suffix}" for name in self.both] for suffix in ("", ".l2"))
        ww, bb, wb = (np.diag(gamma.loc[rows, columns]) for rows, columns in ((w, w), (b, b), (w, b)))
        variance = icc**2 * ww + (1 - icc) ** 2 * bb - 2 * icc * (1 - icc) * wb
        se = np.sqrt(variance) / (np.diag(self.within_cov)[:n] + np.diag(self.between_cov)[:n])
        return icc_columns(icc, se, self._sizes, ci_level).set_index(pd.Index(list(self.both)))

    def restrict(self, within: Sequence[str], between: Sequence[str]) -> LevelMoments:
        """Moments of some of the variables of each level, with their part of Gamma if it is known.

        Raises
        ------
        DataError
            If a variable is not among those of a level, or is at both levels and wanted at one only.
        """
        self.require(within, between)
        within, between = list(within), list(between)
        torn = [name for name in self.both if (name in within) != (name in between)]
        if torn:
            raise DataError(
                f"{', '.join(torn)} must stay at both levels or leave both: one level's part has another meaning alone"
            )
        if within == list(self.within_cov.columns) and between == list(self.between_cov.columns):
            return self
        both = [name for name in within if name in between]
        only = [name for name in between if name not in both]
        data = (
            None
            if self.data is None
            else self.data.with_variables(Variables.of_two_levels(within, only, len(both)))
        )
        part = replace(
            self,
            within_cov=self.within_cov.loc[within, within],
            between_cov=self.between_cov.loc[between, between],
            within_mean=self.within.mean[within],
            between_mean=self.between.mean[between],
            known_acov=None,
            llf=np.nan,
            data=data,
        )
        if self.known_acov is None:
            return part
        names = matching_names(part.moment_names, self.moment_names)
        return replace(part, known_acov=self.known_acov.loc[names, names])

    def require(self, within: Sequence[str], between: Sequence[str]) -> None:
        """Refuse variables that a level does not have.

        Raises
        ------
        DataError
            Naming them.
        """
        for level, wanted, cov in (
            ("within", within, self.within_cov),
            ("between", between, self.between_cov),
        ):
            absent = [name for name in wanted if name not in cov.columns]
            if absent:
                raise DataError(
                    f"the {level} covariance matrix has no {', '.join(absent)}; it has {', '.join(cov.columns)}"
                )

    def information(self, kind: Literal["observed", "expected"] = "observed") -> pd.DataFrame:
        """Information about the moments: their joint saturated likelihood's, or the inverse of `known_acov`.

        With raw data, or the cluster-size table, the sizes enter exactly. Matrices without data have no observed
        information of their own; theirs is the expected one.
        """
        names = self.moment_names
        if self.known_acov is not None:
            matrix = scaled_inverse(self.known_acov.to_numpy())
        else:
            matrix = saturated_information(self.vector.to_numpy(), self.statistics, kind)
        if not matrix.size:
            raise DataError(
                f"the {kind} information about the moments cannot be computed: the between covariance matrix is at "
                "the boundary of what the cluster sizes allow"
            )
        return pd.DataFrame(matrix, index=names, columns=names)

    def require_regular(self) -> None:
        """Refuse moments that are no maximum of the saturated likelihood in all directions: they have no Gamma."""
        if self.in_cone:
            raise DataError(
                "the saturated likelihood has a maximum among positive semidefinite between matrices only, and on that "
                "border the moments have no Gamma: take fewer variables to the between level, or "
                'method="likelihood", which needs none'
            )
        if not self.converged:
            raise DataError(
                "the saturated model has not converged, so these moments are no maximum of its likelihood and have no "
                "Gamma: there are too few clusters of the largest size; take fewer variables to the between level"
            )

    def gamma(self, kind: Literal["observed", "expected"] = "observed") -> pd.DataFrame:
        """Asymptotic covariance matrix of the moments: `known_acov`, or the inverse of `information`.

        Raises
        ------
        DataError
            If the moments have not converged, or come from weighted data without the Gamma of their design.
        """
        if self.known_acov is not None:
            return self.known_acov.copy()
        self.require_regular()
        if self.weighted:
            raise DataError(
                "these moments come from data with weights or a complex design and do not carry their Gamma, without "
                "which nothing is known of their precision: there are too few clusters for one, or it was left out, or "
                "they come from a summary without its clusters (make it with keep_clusters=True)"
            )
        information = self.information(kind)
        inverse = scaled_inverse(information.to_numpy())
        return pd.DataFrame(inverse, index=information.index, columns=information.columns)

    @cached_property
    def _gamma(self) -> pd.DataFrame:
        return self.gamma()

    @property
    def acov(self) -> pd.DataFrame:
        """Asymptotic (sampling) covariance matrix of the moments, named as in `moment_names`.

        The known one if there is one, else from the observed information. ``.l2`` marks the between level.
        """
        return self._gamma.copy()

    def with_acov(self, kind: Literal["observed", "expected"] = "observed") -> LevelMoments:
        """The same moments carrying their Gamma, as `save` stores them."""
        return self if self.known_acov is not None else replace(self, known_acov=self.gamma(kind))

    def save(self, path: str | Path) -> None:
        """Write the moments, sample sizes and Gamma as JSON; raw data or cluster means are not in it.

        A file that is there already is replaced at once or not at all.
        """
        write_json(path, signed(FORMAT.header | _content(self.with_acov())))

    @classmethod
    def load(cls, path: str | Path) -> LevelMoments:
        """Read moments written by `save`; nothing in the file is executed.

        Raises
        ------
        DataError
            If the file is not one, is damaged or cut short, or comes from a later version.

        Warns
        -----
        DataWarning
            If it comes from a version that wrote no digest, so that damage to a number would not be noticed.
        """
        given = FORMAT.read(path)
        unsigned = given.get("format") == WITHOUT_DIGEST and DIGEST not in given
        if not unsigned:
            FORMAT.require(path, given)
        content = given | FORMAT.header if unsigned else verified(path, given)
        try:
            found = _from_content(content)
        except ValueError as error:
            raise FORMAT.contradiction(path, error) from error
        if unsigned:
            warn(
                f"{path} has no digest, as it was written by an earlier msem, so that damage to its numbers would not "
                "be noticed: save it again",
                DataWarning,
            )
        return found


def _content(moments: LevelMoments) -> dict[str, Any]:
    return {
        "nobs": moments.nobs,
        "nclusters": moments.nclusters,
        "cluster_sizes": None
        if not moments.exact_sizes
        else [[int(n), int(j)] for n, j in moments._sizes.items()],
        "within": _level(moments.within_cov),
        "between": _level(moments.between_cov),
        "within_mean": moments.within.mean.tolist(),
        "between_mean": moments.between.mean.tolist(),
        "llf": None if np.isnan(moments.llf) else moments.llf,
        "converged": moments.converged,
        "in_cone": moments.in_cone,
        "means_given": moments.means_given,
        "incomplete": moments.incomplete,
        "weighted": moments.weighted,
        "acov": vech(moments.acov.to_numpy()).tolist(),
    }


NUMBERS = (
    "nobs",
    "nclusters",
    "cluster_sizes",
    "within",
    "between",
    "within_mean",
    "between_mean",
    "llf",
    "acov",
)
FLAGS = ("converged", "in_cone", "means_given", "incomplete", "weighted")


def _from_content(content: Mapping[str, Any]) -> LevelMoments:
    given = Fields(content, (*FORMAT.header, *NUMBERS), FLAGS)
    within, between = _level_cov(content["within"]), _level_cov(content["between"])
    moments = LevelMoments(
        within,
        between,
        dict(zip(between.columns, given.numbers("between_mean", len(between)), strict=True)),
        nobs=given.number("nobs"),
        nclusters=given.number("nclusters"),
        within_mean=dict(zip(within.columns, given.numbers("within_mean", len(within)), strict=True)),
        cluster_sizes=None if content["cluster_sizes"] is None else _size_table(given),
        llf=np.nan if content["llf"] is None else given.number("llf"),
        converged=given.flag("converged", True),
        in_cone=given.flag("in_cone", False),
        means_given=given.flag("means_given", True),
        incomplete=given.flag("incomplete", False),
        weighted=given.flag("weighted", False),
    )
    names = moments.moment_names
    acov = unvech(given.numbers("acov", len(names) * (len(names) + 1) // 2), len(names))
    return replace(moments, known_acov=pd.DataFrame(acov, index=names, columns=names))


def _level(cov: pd.DataFrame) -> dict[str, Any]:
    return {"names": list(cov.columns), "cov": vech(cov.to_numpy()).tolist()}


def _level_cov(stored: Any) -> pd.DataFrame:
    given = Fields(stored, ("names", "cov"))
    names = given.texts("names")
    p = len(names)
    return pd.DataFrame(unvech(given.numbers("cov", p * (p + 1) // 2), p), index=names, columns=names)


def _size_table(given: Fields) -> dict[int, int]:
    """Number of clusters of each size, of which each is there once."""
    pairs = given.numbers("cluster_sizes", None, 2)
    table = {int(n): int(j) for n, j in pairs}
    if len(table) < len(pairs) or (pairs != np.rint(pairs)).any() or (pairs < 1).any():
        raise DataError("'cluster_sizes' are not whole sizes, each once, with their numbers of clusters")
    return table


def estimate_saturated(
    statistics: Statistics, *, method: Method = "scoring", tolerance: float = 1e-12, space: Space = "natural"
) -> LevelMoments:
    """Maximum likelihood estimates of the saturated two-level moments.

    Parameters
    ----------
    statistics : SampleStatistics
        Of two-level data.
    method : {"scoring", "em"}
        Fisher scoring, in which the between matrix may become indefinite (a higher likelihood, in which every
        two-level model is nested), or EM, which keeps it positive semidefinite. Where that does not bind, both
        agree.
    tolerance : float
        On the decrement g' I^-1 g: neither method stops at a small change of the likelihood.
    space : {"auto", "natural", "psd"}
        Among which between matrices: see `solve_in_space`.

    Returns
    -------
    LevelMoments
        With `converged` False if no maximum was found.

    Raises
    ------
    DataError
        If the statistics cannot identify the moments.
    """
    found = solve_in_space(statistics, space, method=method, tolerance=tolerance)
    return level_moments(found, statistics)


def level_moments(solution: Saturated, statistics: Statistics) -> LevelMoments:
    """Saturated two-level estimates as the object a user holds, with the statistics they come from."""
    s = statistics
    sizes = {int(n): int(j) for n, j in zip(s.sizes, s.counts, strict=True)}
    whole = (
        all(n == float(k) for n, k in zip(s.sizes, sizes, strict=True)) and sum(sizes.values()) == s.nclusters
    )
    return LevelMoments(
        solution.within.frame(),
        solution.between.frame(),
        solution.between.series(),
        nobs=s.nobs,
        nclusters=s.nclusters,
        within_mean=solution.within.series(),
        cluster_sizes=sizes if whole and s.source != "moments, N and J only" else None,
        llf=solution.llf,
        data=s,
        iterations=solution.iterations,
        converged=solution.converged,
        in_cone=solution.in_cone,
        incomplete=not s.complete,
    )


def robust_acov(moments: LevelMoments, clusters: Clusters) -> pd.DataFrame:
    """Sandwich A^-1 B A^-1 of the saturated moments (Huber, 1967; White, 1982).

    A is the observed information and B the sum over clusters of outer products of their scores: the clusters need be
    independent, not normal.

    Parameters
    ----------
    moments : LevelMoments
        Saturated estimates from data.
    clusters : ClusterArrays or IncompleteClusters
        Of the same variables.

    Returns
    -------
    DataFrame
        Named as in `LevelMoments.moment_names`.

    Raises
    ------
    DataError
        If the moments are no maximum of the likelihood, or there are not more clusters than moments at the between
        level to estimate B from.
    """
    moments.require_regular()
    names, theta = moments.moment_names, moments.vector.to_numpy()
    nbetween = len(moments.between_cov)
    if len(clusters.sizes) <= _fewest(moments):
        raise DataError(
            f'gamma="robust" needs more than {_fewest(moments)} clusters for {nbetween} variables at the between '
            f"level, and there are {len(clusters.sizes)}"
        )
    return pd.DataFrame(sandwich(theta, moments.statistics, clusters), index=names, columns=names)


def _fewest(moments: LevelMoments) -> int:
    """Moments at the between level, from at least as many clusters as which no sandwich is regular."""
    nbetween = len(moments.between_cov)
    return nbetween * (nbetween + 1) // 2


def of_design(moments: LevelMoments, clusters: Clusters) -> LevelMoments:
    """Saturated estimates of weighted data, or of a complex design, with the Gamma of the design.

    Without Gamma if they are no maximum of the likelihood, or there are too few clusters for it.
    """
    marked = replace(moments, weighted=True)
    known = marked.converged and not marked.in_cone and len(clusters.sizes) > _fewest(moments)
    return replace(marked, known_acov=robust_acov(marked, clusters)) if known else marked
