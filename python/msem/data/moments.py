"""Level-specific moments: what an analysis of levels can be published as, and started from without raw data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.arrays import LevelArrays, LevelMoment, frozen, frozen_series, unvech, vech
from msem.data.checks import (
    matching_names,
    named_acov,
    named_means,
    regular_inverse,
    require_covariance,
    scaled_inverse,
)
from msem.data.given import Given
from msem.data.implied import implied_statistics
from msem.data.intraclass import icc_columns, share_table, variance_shares
from msem.data.momentfile import FLAGS, read_moments, write_moments
from msem.data.saturated import moment_names, saturated_information
from msem.data.screening import report, undivided
from msem.data.shapes import average_shapes, read_sizes
from msem.data.statistics import Statistics
from msem.entry import entries
from msem.errors import DataError, UnsupportedError
from msem.model.levels import DEEPEST, level_number, names_of_levels, number_of_levels
from msem.model.variables import Variables
from msem.settings import several

Floats = NDArray[np.float64]

__all__ = ["LevelMoment", "LevelMoments"]


@entries
@dataclass(frozen=True, eq=False, repr=False, init=False)
class LevelMoments(Given):
    """Covariance matrices of every level with the sample sizes they come from.

    Two levels are given as below, any number of them by `LevelMoments.of_levels`. `moments[level]` has the covariance
    matrix and the means of a level.

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
    cluster_sizes : int, sequence of int, mapping from size to count, or None
        Sizes of the clusters: an int that all have, one for every cluster, or how many clusters have each. A Series may
        be either of the last two; if its numbers do not tell which, it is refused. None: all of size N / J, an
        approximation unless the data are balanced.
    known_acov : DataFrame or None
        Gamma, the asymptotic covariance matrix of the moments, if known, named as in `moment_names`: then `acov`.
    converged : bool
        Whether the moments are a maximum of the saturated likelihood. If not, they have no Gamma.
    in_cone : bool
        Whether they are the maximum among positive semidefinite matrices above level 1 only, on whose border they lie:
        then they have no Gamma either.
    means_given : bool
        Whether the between means are known; False where they are 0 because none were given.
    incomplete : bool
        Whether they come from data with holes: what is fitted to them then takes its errors from Gamma.
    weighted : bool
        Whether they come from data with weights, primary sampling units or strata: the same holds then.
    robust : bool, optional
        Whether `known_acov` is something else than the inverse information of normal clusters of these sizes, such as
        a sandwich: the same holds then. None: True if `known_acov` is given.

    Attributes
    ----------
    levels : tuple of LevelMoment
        Covariance matrix and means of each level, level 1 first.
    units : tuple of float
        Units of each level: those of level 1, clusters of level 2, and so on.

    Raises
    ------
    DataError
        If a matrix is not square, not symmetric, wrongly named or (within) not positive definite, or the sample
        sizes contradict each other.
    """

    levels: tuple[LevelMoment, ...]
    units: tuple[float, ...]
    cluster_sizes: Mapping[Any, int] | None
    known_acov: pd.DataFrame | None
    llf: float
    data: Statistics | None
    iterations: int
    converged: bool
    in_cone: bool
    means_given: bool
    incomplete: bool
    weighted: bool
    robust: bool

    def __init__(
        self,
        within_cov: pd.DataFrame | None = None,
        between_cov: pd.DataFrame | None = None,
        between_mean: pd.Series | Mapping[str, float] | None = None,
        nobs: float | None = np.nan,
        nclusters: float | None = np.nan,
        within_mean: pd.Series | Mapping[str, float] | None = None,
        cluster_sizes: int | Sequence[Any] | Mapping[Any, int] | pd.Series | None = None,
        known_acov: pd.DataFrame | None = None,
        llf: float = np.nan,
        data: Statistics | None = None,
        iterations: int = 0,
        converged: bool = True,
        in_cone: bool = False,
        means_given: bool = True,
        incomplete: bool = False,
        weighted: bool = False,
        robust: bool | None = None,
        *,
        levels: Sequence[LevelMoment] | None = None,
        units: Sequence[float] | None = None,
    ) -> None:
        if levels is None:
            levels, named = _two_levels(within_cov, between_cov, within_mean, between_mean)
            means_given = means_given and named
            units = [np.nan if n is None else float(n) for n in (nobs, nclusters)]
        variables, parts = _parts(levels)
        units = (np.nan,) * len(parts) if units is None else _counts(units)
        if len(units) != len(parts):
            raise DataError(
                f"units= of every level are needed: {len(parts)} numbers, and there are {len(units)}"
            )
        sizes, counts = read_sizes(cluster_sizes, units)
        store = object.__setattr__
        store(self, "levels", tuple(parts))
        store(self, "units", counts)
        store(self, "cluster_sizes", sizes)
        for name, value in {
            "llf": llf,
            "data": data,
            "iterations": iterations,
            "converged": converged,
            "in_cone": in_cone,
            "means_given": means_given,
            "incomplete": incomplete,
            "weighted": weighted,
            "robust": known_acov is not None and (robust is None or robust),
        }.items():
            store(self, name, value)
        report(undivided(round(counts[0]), round(counts[1]), variables.unit), None)
        known = None if known_acov is None else frozen(named_acov(known_acov, self.moment_names))
        store(self, "known_acov", known)

    @classmethod
    def of_levels(
        cls,
        covs: Sequence[pd.DataFrame],
        means: pd.Series | Mapping[str, float] | None = None,
        *,
        units: Sequence[float] | None = None,
        cluster_sizes: int | Sequence[Any] | Mapping[Any, int] | pd.Series | None = None,
        known_acov: pd.DataFrame | None = None,
    ) -> LevelMoments:
        """Moments of two levels or three from a matrix for each.

        Parameters
        ----------
        covs : sequence of DataFrame
            Covariance matrices of the levels, level 1 first, with variable names on both axes; see `LevelMoments`. A
            variable has a part at every level whose matrix has it. Those above level 1 need not be positive definite.
        means : Series, mapping or None
            Mean of each variable. None: all 0, for models whose mean structure is saturated. Those of variables of
            level 1 only may be left out.
        units : sequence of int, optional
            Units of each level, level 1 first, such as pupils, classes and schools; they follow from `cluster_sizes` if
            those are given.
        cluster_sizes : sequence, mapping, Series or None
            Of two levels: see `LevelMoments`. Of three, for every highest cluster the sizes of the clusters in it, such
            as ``[[5, 8, 6], [7, 7]]``; a mapping from these to how many have them; or a Series of the sizes of the
            clusters of level 2 with both ids as its index, ``data.groupby(["school", "class"]).size()``. None: sizes as
            equal as can be, an approximation unless the data are balanced.
        known_acov : DataFrame or None
            Gamma, if known, named as in `moment_names`.

        Returns
        -------
        LevelMoments

        Raises
        ------
        DataError
            See `LevelMoments`.

        Examples
        --------
        >>> import msem
        >>> import pandas as pd
        >>> names = ["y1", "y2"]
        >>> whole = pd.DataFrame([[2.0, 0.5], [0.5, 1.0]], names, names)
        >>> covs = [whole, 0.3 * whole, 0.2 * whole]
        >>> moments = msem.LevelMoments.of_levels(covs, units=(600, 120, 30))
        >>> float(moments[3].cov.loc["y1", "y1"])
        0.4
        """
        _require_several(covs)
        matrices = [_matrix(cov, level) for level, cov in enumerate(covs, 1)]
        variables = _ordered(matrices)
        names = [name for name in variables.names if variables.top(name) > 1]
        alone = [name for name in variables.names if variables.top(name) == 1]
        given = None if means is None else named_means(means, names + alone, "means")
        lacking = [] if means is None else [name for name in names if name not in means]
        if lacking:
            raise DataError(f"means has no value for {', '.join(lacking)}")
        zero = pd.Series(0.0, names + alone) if given is None else given
        levels = []
        for level, (cov, own) in enumerate(zip(matrices, variables.levels, strict=True), 1):
            here = [zero[name] if variables.top(name) == level else 0.0 for name in own]
            levels.append(LevelMoment(cov, pd.Series(here, list(own))))
        return cls(
            levels=levels,
            units=units,
            cluster_sizes=cluster_sizes,
            known_acov=known_acov,
            means_given=given is not None,
        )

    def __repr__(self) -> str:
        counts = [str(len(one.cov)) for one in self.levels]
        parts = f"{counts[0]} within, {counts[1]} between variables"
        if len(counts) > 2:
            parts = f"{', '.join(counts[:-1])} and {counts[-1]} variables at levels 1 to {len(counts)}"
        clusters = " in ".join(f"{count:.0f} clusters" for count in self.units[1:])
        state = ", on the border of the cone" if self.in_cone else "" if self.converged else ", not converged"
        return f"<msem.LevelMoments: {parts}, {self.nobs:.0f} units in {clusters}{state}>"

    def __getitem__(self, level: int | str) -> LevelMoment:
        """Covariance matrix and means of a level."""
        own = self.levels[level_number(level, len(self.levels)) - 1]
        return LevelMoment(own.cov.copy(), pd.Series(own.mean).copy())

    @property
    def nobs(self) -> float:
        """Units of level 1."""
        return self.units[0]

    @property
    def nclusters(self) -> float:
        """Clusters of the highest level."""
        return self.units[-1]

    @cached_property
    def variables(self) -> Variables:
        """Names by level."""
        return _ordered([one.cov for one in self.levels])

    @property
    def moments_of_levels(self) -> LevelMoments:
        """These."""
        return self

    @property
    def known_variables(self) -> Variables:
        """Names by level."""
        return self.variables

    @property
    def expectations(self) -> bool:
        """What is fitted are statistics that the moments imply."""
        return True

    @property
    def means(self) -> pd.Series:
        """Mean of each variable, over all its levels."""
        sums = self.variables.summed([one.mean.to_numpy() for one in self.levels])
        return pd.Series(sums, index=list(self.variables.names))

    @property
    def arrays(self) -> dict[int, LevelArrays]:
        """The moments as arrays, by level."""
        return {
            level: LevelArrays(tuple(one.cov.columns), one.mean.to_numpy(), one.cov.to_numpy(), len(one.cov))
            for level, one in enumerate(self.levels, 1)
        }

    @property
    def needs_gamma(self) -> bool:
        """Whether sample sizes do not tell how precise the moments are."""
        return self.incomplete or self.weighted or self.robust

    @property
    def given_as(self) -> str:
        """What a summary says of moments that were given: whether sizes of clusters and means are known."""
        rough = "N and J" if len(self.levels) == 2 else "numbers of units"
        sizes = "moments with cluster sizes" if self.exact_sizes else f"moments with {rough} only"
        return sizes if self.means_given else f"{sizes}; means not given, taken as 0"

    @property
    def within(self) -> LevelMoment:
        """Moments of level 1."""
        return self[1]

    @property
    def between(self) -> LevelMoment:
        """Moments of level 2 of two; three levels have them as `moments[2]` and `moments[3]`."""
        return self[2] if len(self.levels) == 2 else self._refuse_between()

    @property
    def within_cov(self) -> pd.DataFrame:
        """Covariance matrix of level 1."""
        return self.levels[0].cov

    @property
    def within_mean(self) -> pd.Series:
        """Means of level 1: 0 of variables that have a part above."""
        return self.levels[0].mean

    @property
    def between_cov(self) -> pd.DataFrame:
        """Covariance matrix of level 2 of two."""
        return self.levels[1].cov if len(self.levels) == 2 else self._refuse_between()

    @property
    def between_mean(self) -> pd.Series:
        """Means of level 2 of two."""
        return self.levels[1].mean if len(self.levels) == 2 else self._refuse_between()

    def _refuse_between(self) -> NoReturn:
        raise AttributeError(
            f"these moments have {len(self.levels)} levels: those above the first are moments[2] to "
            f"moments[{len(self.levels)}]"
        )

    @property
    def both(self) -> tuple[str, ...]:
        """Variables of level 1 that have a part at a higher one."""
        return self.variables.both

    @property
    def exact_sizes(self) -> bool:
        """Whether the sizes of the clusters are known, rather than only how many there are."""
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
        """Intraclass correlations of the variables at both levels: between over total variance.

        Of three levels by variable and level: the shares of variance of levels 2 and 3.
        """
        shares = variance_shares(self.arrays)
        return shares.droplevel("level").rename_axis(None) if len(self.levels) == 2 else shares

    @cached_property
    def statistics(self) -> Statistics:
        """Sufficient statistics: those of the data if known, else those that the moments imply."""
        return self.expected_statistics if self.data is None else self.data

    @cached_property
    def expected_statistics(self) -> Statistics:
        """Sufficient statistics that the moments imply (Kullback-Leibler projection)."""
        source = "moments" if self.exact_sizes else "moments, N and J only"
        return implied_statistics(self.arrays, self.variables, self._shapes, source)

    @property
    def _shapes(self) -> Mapping[Any, float]:
        """How many clusters there are of each shape; see `shapes`."""
        if self.cluster_sizes is None:
            return average_shapes(self.units)
        return {shape: float(count) for shape, count in self.cluster_sizes.items()}

    @property
    def moment_names(self) -> list[str]:
        """Names of the moments in the order of `vector` and `gamma`."""
        return moment_names(self.variables)

    @property
    def vector(self) -> pd.Series:
        """All moments as one vector."""
        covs = [vech(one.cov.to_numpy()) for one in self.levels]
        return pd.Series(np.concatenate([*covs, self.means]), index=self.moment_names)

    def icc_table(
        self, kind: Literal["observed", "expected"] = "observed", *, ci_level: float = 0.95
    ) -> pd.DataFrame:
        """Intraclass correlations with delta-method standard errors and intervals on Fisher's scale.

        Returns
        -------
        DataFrame
            Indexed by variable: icc, se, ci_lower, ci_upper, design_effect, effective_nobs; see `icc_columns`. Of three
            levels: columns lhs, level, icc, se, ci_lower, ci_upper, correlation, correlation_se; see `Fit.icc_table`.
            Without errors where the moments are on the border of a cone.
        """
        gamma = self.gamma_or_nan(kind)
        if len(self.levels) > 2:
            return share_table(self.arrays, gamma.to_numpy(), ci_level)
        n, icc = len(self.both), self.icc.to_numpy()
        w, b = ([f"{name}~~{name}{suffix}" for name in self.both] for suffix in ("", ".l2"))
        ww, bb, wb = (np.diag(gamma.loc[rows, columns]) for rows, columns in ((w, w), (b, b), (w, b)))
        variance = icc**2 * ww + (1 - icc) ** 2 * bb - 2 * icc * (1 - icc) * wb
        se = np.sqrt(variance) / (np.diag(self.within_cov)[:n] + np.diag(self.between_cov)[:n])
        return icc_columns(icc, se, self._shapes, ci_level).set_index(pd.Index(list(self.both)))

    def restrict(self, *levels: Sequence[str]) -> LevelMoments:
        """Moments of some of the variables of each level, with their part of Gamma if it is known.

        Parameters
        ----------
        *levels : sequence of str
            Variables of each level, level 1 first.

        Raises
        ------
        DataError
            If a variable is not among those of a level, or is at several levels and wanted at some of them only.
        """
        wanted = [list(several(own)) for own in levels]
        self.require(*wanted)
        for name in dict.fromkeys(name for own in wanted for name in own):
            torn = [name in own and name not in some for own, some in zip(self._names, wanted, strict=True)]
            if any(torn):
                where = "both levels" if len(wanted) == 2 else "all its levels"
                raise DataError(
                    f"{name} must stay at {where} or leave {'both' if len(wanted) == 2 else 'all'}: one level's part "
                    "has another meaning alone"
                )
        if wanted == self._names:
            return self
        variables = Variables.of_levels(wanted)
        part = replace(
            self,
            levels=tuple(
                LevelMoment(one.cov.loc[own, own], one.mean[own])
                for one, own in zip(self.levels, wanted, strict=True)
            ),
            known_acov=None,
            llf=np.nan,
            data=None if self.data is None else self.data.with_variables(variables),
        )
        if self.known_acov is None:
            return part
        names = matching_names(part.moment_names, self.moment_names)
        return replace(part, known_acov=self.known_acov.loc[names, names], robust=self.robust)

    @property
    def _names(self) -> list[list[str]]:
        """Variables by level."""
        return [list(one.cov.columns) for one in self.levels]

    def require(self, *levels: Sequence[str]) -> None:
        """Refuse variables that a level does not have.

        Parameters
        ----------
        *levels : sequence of str
            Variables of each level, level 1 first.

        Raises
        ------
        DataError
            Naming them.
        """
        if len(levels) != len(self.levels):
            lists = ", ".join(["[...]"] * len(self.levels))
            raise DataError(
                f"these are moments of {number_of_levels(len(self.levels))}: name the variables of each, level 1 "
                f"first, as in restrict({lists}), and not of {len(levels)}"
            )
        words = names_of_levels(len(levels))
        for level, (wanted, own) in enumerate(zip(levels, self._names, strict=True), 1):
            absent = [name for name in wanted if name not in own]
            if absent:
                which = f"the {words[level]} covariance matrix"
                if len(levels) > 2:
                    which = f"the covariance matrix of {words[level]}"
                raise DataError(f"{which} has no {', '.join(absent)}; it has {', '.join(own)}")

    def information(self, kind: Literal["observed", "expected"] = "observed") -> pd.DataFrame:
        """Information about the moments: their joint saturated likelihood's, or the inverse of `known_acov`.

        With raw data, or the cluster-size table, the sizes enter exactly. Matrices without data have no observed
        information of their own; theirs is the expected one.

        Raises
        ------
        DataError
            If `known_acov` is singular, as the sandwich of no more clusters than moments is.
        """
        names = self.moment_names
        if self.known_acov is not None:
            inverse = regular_inverse(self.known_acov.to_numpy())
            if inverse is None:
                raise DataError(
                    f"Gamma of the {len(names)} moments is singular and has no inverse, as that of "
                    f"{self.nclusters:.0f} clusters is unless there are more clusters than moments; errors and mean-"
                    "scaled tests need none: msem.segregated(...), moments.acov"
                )
            matrix = inverse
        else:
            matrix = saturated_information(self.vector.to_numpy(), self.statistics, kind)
        if not matrix.size:
            raise DataError(
                f"the {kind} information about the moments cannot be computed: a covariance matrix above level 1 is at "
                "the boundary of what the cluster sizes allow"
            )
        return pd.DataFrame(matrix, index=names, columns=names)

    def require_regular(self) -> None:
        """Refuse moments that are no maximum of the saturated likelihood in all directions: they have no Gamma."""
        two = len(self.levels) == 2
        matrices = "between matrices" if two else "matrices above level 1"
        fewer = (
            "take fewer variables to the between level"
            if two
            else "take fewer variables to the higher levels"
        )
        if self.in_cone:
            raise DataError(
                f"the saturated likelihood has a maximum among positive semidefinite {matrices} only, and on that "
                f"border the moments have no Gamma: {fewer}, or "
                'method="likelihood", which needs none'
            )
        if not self.converged:
            raise DataError(
                "the saturated model has not converged, so these moments are no maximum of its likelihood and have no "
                f"Gamma: there are too few clusters of the largest size; {fewer}"
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
                "which nothing is known of their precision: it was left out, or they come from a summary without its "
                "clusters (make it with keep_clusters=True)"
            )
        information = self.information(kind)
        inverse = scaled_inverse(information.to_numpy())
        return pd.DataFrame(inverse, index=information.index, columns=information.columns)

    def gamma_or_nan(self, kind: Literal["observed", "expected"] = "observed") -> pd.DataFrame:
        """`gamma`, or nan where the moments are on the border of a cone and have none."""
        if self.known_acov is None and self.in_cone:
            names = self.moment_names
            return pd.DataFrame(np.nan, index=names, columns=names)
        return self.gamma(kind)

    @cached_property
    def _gamma(self) -> pd.DataFrame:
        return self.gamma()

    @property
    def acov(self) -> pd.DataFrame:
        """Asymptotic (sampling) covariance matrix of the moments, named as in `moment_names`.

        The known one if there is one, else from the observed information. ``.l2`` marks the between level, or level 2
        of three, and ``.l3`` the third.
        """
        return self._gamma.copy()

    def with_acov(self, kind: Literal["observed", "expected"] = "observed") -> LevelMoments:
        """The same moments carrying their Gamma, as `save` stores them."""
        return self if self.known_acov is not None else replace(self, known_acov=self.gamma(kind))

    def save(self, path: str | Path) -> None:
        """Write the moments, sample sizes and Gamma as JSON; raw data or cluster means are not in it.

        A file that is there already is replaced at once or not at all.
        """
        known = self.with_acov()
        flags = {name: getattr(known, name) for name in FLAGS}
        write_moments(
            path,
            known.levels,
            known.units,
            known.cluster_sizes,
            known.llf,
            vech(known.acov.to_numpy()),
            flags,
        )

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
        return read_moments(path, cls._of_stored)

    @classmethod
    def _of_stored(cls, acov: Floats, *, robust: bool, **values: Any) -> LevelMoments:
        moments = cls(**values)
        names = moments.moment_names
        known = pd.DataFrame(unvech(acov, len(names)), index=names, columns=names)
        return replace(moments, known_acov=known, robust=robust)


def _two_levels(
    within_cov: pd.DataFrame | None,
    between_cov: pd.DataFrame | None,
    within_mean: pd.Series | Mapping[str, float] | None,
    between_mean: pd.Series | Mapping[str, float] | None,
) -> tuple[list[LevelMoment], bool]:
    """Moments of two levels that a user gives by name, and whether all means of clusters are among them."""
    covs = [
        require_covariance(within_cov, "within_cov", positive_definite=True),  # type: ignore[arg-type]
        require_covariance(between_cov, "between_cov", positive_definite=False),  # type: ignore[arg-type]
    ]
    within, between = map(list, _ordered(covs).levels)
    means = [
        named_means(within_mean, within, "within_mean"),
        named_means(between_mean, between, "between_mean", every=True),
    ]
    named = set[str]().union(*(dict(m) for m in (between_mean, within_mean) if m is not None))
    return [LevelMoment(*one) for one in zip(covs, means, strict=True)], named.issuperset(between)


def _parts(levels: Sequence[LevelMoment]) -> tuple[Variables, list[LevelMoment]]:
    """Moments in the order of the variables; the mean of one at several levels, of which the sum counts, at the top."""
    covs = [_matrix(one.cov, level) for level, one in enumerate(levels, 1)]
    variables = _ordered(covs)
    pairs = list(zip(map(list, variables.levels), levels, strict=True))
    sums = variables.summed([one.mean.reindex(own).to_numpy() for own, one in pairs])
    total = dict(zip(variables.names, sums.tolist(), strict=True))
    parts = []
    for level, (names, cov) in enumerate(zip(map(list, variables.levels), covs, strict=True), 1):
        own = [total[name] if variables.top(name) == level else 0.0 for name in names]
        parts.append(LevelMoment(frozen(cov.loc[names, names]), frozen_series(pd.Series(own, names))))
    return variables, parts


def _require_several(covs: Any) -> None:
    if not isinstance(covs, Sequence) or isinstance(covs, str) or len(covs) < 2:
        raise DataError(
            "covs is a list of a covariance matrix for each of two levels or three, level 1 first, such as "
            "[pupils, classes, schools]"
        )


def _counts(units: Any) -> tuple[float, ...]:
    """Units of each level as they were given."""
    try:
        return tuple(float(n) for n in units)
    except (TypeError, ValueError):
        raise DataError(
            f"units= has a number of units for every level, level 1 first, such as (2000, 300, 80), and is {units!r}"
        ) from None


def _ordered(covs: Sequence[pd.DataFrame]) -> Variables:
    """The variables of the matrices by level."""
    return Variables.of_levels([list(cov.columns) for cov in covs])


def _matrix(cov: pd.DataFrame, level: int) -> pd.DataFrame:
    """The covariance matrix of a level, checked."""
    if level > DEEPEST:
        raise UnsupportedError(f"moments of more than {DEEPEST} levels are not available in this version")
    return require_covariance(cov, f"the matrix of level {level}", positive_definite=level == 1)
