"""How rows were sampled: weights of units and clusters, primary sampling units (PSUs), strata, finite populations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem import _core
from msem.data.columns import Bools, Column, Columns, float_column, kept, kept_ids, listed, missing_ids
from msem.errors import DataError
from msem.settings import Settings

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Scale = Literal["size", "effective", "none"]
SinglePsu = Literal["error", "centre", "certainty"]

# Factors of squared deviations of replicates by the method that made their weights, as functions of their number.
REPLICATION: Mapping[str, Callable[[int], float]] = {
    "brr": lambda count: 1 / count,
    "fay": lambda count: 1 / (count * (1 - 0.5) ** 2),  # with Fay's factor 0.5, as in PISA
    "jackknife1": lambda count: (count - 1) / count,
    "jackknife2": lambda count: 1.0,  # a pair of PSUs for each, as in TIMSS and PIRLS before 2015
    "jackknife2_both": lambda count: 0.5,  # two replicates for each pair, as in TIMSS and PIRLS since 2015
}

WHOLE = 1e-12  # relative distance from a whole number that is rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class SurveyColumns:
    """The columns of a frame that say how its rows were sampled; see `msem.sem` for their meaning.

    `cluster_weights` are those of the highest clusters, `inner_weights` those of clusters within these, the highest
    first.
    """

    weights: str | None = None
    cluster_weights: str | None = None
    inner_weights: tuple[str | None, ...] = ()
    psu: str | None = None
    strata: str | None = None
    fpc: str | None = None
    single_psu: SinglePsu = "error"
    replicates: tuple[str, ...] = ()
    replicate_scale: str | float | tuple[float, ...] | None = None

    @property
    def roles(self) -> dict[str, str]:
        """Names of the columns by what they are; empty for a simple sample."""
        names = {name: getattr(self, name) for name in ("weights", "cluster_weights", "psu", "strata", "fpc")}
        return {role: name for role, name in names.items() if name is not None}

    @property
    def named(self) -> str:
        """One of the options as it was given, for messages."""
        if any(self.inner_weights):
            return f"cluster_weights={[self.cluster_weights, *self.inner_weights]!r}"
        role, name = next(iter(self.roles.items()), ("replicate_weights", list(self.replicates)))
        return f"{role}={name!r}"

    def require_kinds(self, count: int) -> None:
        """Refuse weights of more kinds of clusters than there are, or of some only.

        Raises
        ------
        DataError
        """
        if len(self.inner_weights) not in (0, count - 1):
            raise DataError(
                f"{self.named} names the weights of {len(self.inner_weights) + 1} kinds of clusters, and cluster= has "
                f"{count}: give one for each column of cluster=, the highest first, None where clusters have no weights"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """All columns, each once."""
        inner = [name for name in self.inner_weights if name is not None]
        return tuple(dict.fromkeys([*self.roles.values(), *inner, *self.replicates]))


@dataclass(frozen=True, eq=False)
class Design:
    """PSUs in their strata, over all groups of a sample.

    Attributes
    ----------
    stratum : ndarray of int, shape (P,)
        Stratum of each PSU, numbered from 0.
    left : ndarray, shape (H,)
        Share of each stratum's PSUs that is not in the sample, 1 where the population is not finite.
    single : {"centre", "certainty"}
        What a stratum with one PSU adds to variances: its deviation from the mean of all PSUs, or nothing.
    """

    stratum: Ints
    left: Floats
    single: SinglePsu = "error"

    @property
    def df(self) -> int:
        """Degrees of freedom of variances: PSUs less strata (Korn & Graubard, 1999)."""
        return len(self.stratum) - len(self.left)

    def totals(self, rows: Floats, psu: Ints) -> Floats:
        """Sums by PSU of rows of the independent units, whose PSUs are given; shape (P, k)."""
        if len(rows) == len(self.stratum) and np.array_equal(psu, np.arange(len(psu))):
            return rows
        out = np.zeros((len(self.stratum), rows.shape[1]))
        np.add.at(out, psu, rows)
        return out

    def root(self, totals: Floats) -> Floats:
        """Rows whose outer products add up to the covariance matrix of the sum of all totals; shape (P, k).

        Sum over strata h of (1 - f_h) n_h / (n_h - 1) sum of (g - g_h)(g - g_h)' over its n_h PSUs (Binder, 1983).
        """
        count = self.counts
        return self._deviations(totals, count / np.where(count > 1, count - 1, 1.0))

    def jackknife_root(self, values: Floats) -> Floats:
        """The same for the covariance matrix of an estimate whose values without each PSU are given; shape (P, k).

        Sum over strata of (1 - f_h) (n_h - 1) / n_h sum of (t - t_h)(t - t_h)' (Rust & Rao, 1996).
        """
        count = self.counts
        return self._deviations(values, np.where(count > 1, count - 1, 1.0) / count)

    @property
    def counts(self) -> Floats:
        """Number of PSUs in each stratum, shape (H,)."""
        return np.bincount(self.stratum, minlength=len(self.left)).astype(np.float64)

    def _deviations(self, rows: Floats, factor: Floats) -> Floats:
        """Deviations from the means of the strata, times square roots of factors of these and of what is left."""
        count = self.counts
        mean = np.zeros((len(self.left), rows.shape[1]))
        np.add.at(mean, self.stratum, rows)
        mean /= count[:, None]
        alone = count == 1
        mean[alone] = rows.mean(axis=0)
        scale = self.left * factor
        if self.single == "certainty":
            scale = np.where(alone, 0.0, scale)
        root: Floats = np.sqrt(scale)[self.stratum][:, None] * (rows - mean[self.stratum])
        return root


@dataclass(frozen=True, eq=False)
class Replication:
    """Replicate weights, over all groups of a sample.

    Attributes
    ----------
    factors : ndarray, shape (R, P)
        Weight of each independent unit in each replicate over its weight.
    scale : ndarray, shape (R,)
        Factors of the squared deviations of the replicates.
    """

    factors: Floats
    scale: Floats

    @cached_property
    def df(self) -> int:
        """Degrees of freedom of variances: linearly independent replicates less one, as in R's survey."""
        return max(int(np.linalg.matrix_rank(self.factors)) - 1, 1)

    def totals(self, rows: Floats, psu: Ints) -> Floats:
        """Sums of rows of the units with the weights of each replicate, less those with their own; shape (R, k)."""
        return np.asarray((self.factors[:, psu] - 1) @ rows, dtype=np.float64)

    def root(self, totals: Floats) -> Floats:
        """Rows whose outer products add up to the covariance matrix of the sum of all totals; shape (R, k).

        Estimates in replicates differ from the estimate by the inverse information times these, to first order.
        """
        root: Floats = np.sqrt(self.scale)[:, None] * totals
        return root


@dataclass(frozen=True, eq=False)
class Sampled:
    """How the independent units of a group were sampled: its clusters, or the rows of a single level.

    Attributes
    ----------
    weights : ndarray, shape (J,), or None
        How often each counts.
    psu : ndarray of int, shape (J,), or None
        Number of its PSU in the design, or its own among the units of all groups with replicate weights; None without.
    design : Design, Replication or None
        Of all groups.
    """

    weights: Floats | None = None
    psu: Ints | None = None
    design: Design | Replication | None = None

    def weighted(self, rows: Floats) -> Floats:
        """Rows of the units, or values, each as often as it counts."""
        if self.weights is None or not rows.size:
            return rows
        out: Floats = self.weights[:, None] * rows if rows.ndim > 1 else self.weights * rows
        return out


def independent_rows(rows: Floats, sampled: Sampled | None) -> Floats:
    """Rows whose outer products estimate the covariance matrix of the sum of the units' rows, for one group."""
    if sampled is None or sampled.design is None:
        return rows
    assert sampled.psu is not None
    return sampled.design.root(sampled.design.totals(rows, sampled.psu))


@dataclass(frozen=True, eq=False)
class SurveyRows:
    """What a frame says of the sampling of its rows.

    Attributes
    ----------
    columns : SurveyColumns
    weights, cluster_weights : ndarray, shape (rows,), or None
        As given; nan where missing.
    psu : ndarray of int, shape (rows,), or None
        Number of the PSU of each row, -1 where it is missing; None without a design.
    design : Design or None
    zero : ndarray of bool, shape (rows,)
        Rows that count for nothing.
    replicates : ndarray, shape (rows, R), or None
        Replicate weights.
    inner_weights : tuple of (ndarray, shape (rows,), or None)
        Of clusters within the highest ones, the highest first.
    """

    columns: SurveyColumns
    weights: Floats | None
    cluster_weights: Floats | None
    psu: Ints | None
    design: Design | None
    zero: Bools
    replicates: Floats | None = None
    inner_weights: tuple[Floats | None, ...] = ()


def survey_columns(settings: Settings) -> SurveyColumns | None:
    """The columns that say how rows were sampled; None for a simple sample."""
    if not settings.surveyed:
        return None
    return SurveyColumns(
        weights=settings.weights,
        cluster_weights=settings.highest_weights,
        inner_weights=settings.inner_weights,
        psu=settings.psu,
        strata=settings.strata,
        fpc=settings.fpc,
        single_psu=settings.single_psu,
        replicates=settings.replicate_weights,
        replicate_scale=settings.replicate_scale,
    )


def survey_rows(columns: SurveyColumns, data: Columns, cluster: str | None, nrows: int) -> SurveyRows:
    """Read how rows were sampled.

    PSUs and strata are counted in all rows, so that those in which every weight is zero, as outside of a
    subpopulation, keep their part in the variances.

    Raises
    ------
    DataError
        If weights are negative, infinite or all zero, a PSU is in several strata, a stratum has one PSU, or fractions
        are not fractions.
    """
    zero = np.zeros(nrows, dtype=bool)

    def read(role: str, name: str | None) -> Floats | None:
        if name is None:
            return None
        values, least = _weights(role, name, data[name])
        if least == 0:
            np.logical_or(zero, values == 0, out=zero)
        return values

    weights = read("weights", columns.weights)
    cluster_weights = read("cluster_weights", columns.cluster_weights)
    inner = tuple(read("cluster_weights", name) for name in columns.inner_weights)
    psu, design = None, None
    if columns.psu is not None or columns.strata is not None or columns.fpc is not None:
        psu, design = _design(columns, data, cluster, nrows)
    replicates = None
    if columns.replicates:
        replicates = np.column_stack(
            [_weights("replicate_weights", name, data[name])[0] for name in columns.replicates]
        )
    return SurveyRows(columns, weights, cluster_weights, psu, design, zero, replicates, inner)


def _weights(role: str, name: str, series: Column) -> tuple[Floats, float]:
    """Weights of the rows as given, and the least of them."""
    values = float_column(name, series)
    known, least, greatest = require_weights(role, name, values)
    require_some_weight(role, name, known=known > 0, positive=greatest > 0)
    return values, least


def require_weights(role: str, name: str, values: Floats, first: int = 0) -> tuple[int, float, float]:
    """Refuse weights that are negative or infinite; `first` is the number of the first row.

    Returns
    -------
    known : int
        How many are not missing.
    least, greatest : float
        Of these; infinite, and minus that, if there are none.

    Raises
    ------
    DataError
    """
    known, least, greatest = _core.weight_range(values)
    if least >= 0 and greatest < np.inf:
        return known, least, greatest
    where = f"the column {name!r} of {role}="
    negative, infinite = values < 0, np.isinf(values)
    for odd, what, remedy in (
        (negative, "negative", "a weight is how many units of the population a row stands for"),
        (infinite, "infinite", "correct the value"),
    ):
        if odd.any():
            raise DataError(
                f"{where} is {what} in {odd.sum()} row(s), first in row {first + int(odd.argmax())} (counted from 0): "
                f"{remedy}"
            )
    return known, least, greatest


def require_some_weight(role: str, name: str, *, known: bool, positive: bool) -> None:
    """Refuse a column in which no weight is known, or none is positive.

    Raises
    ------
    DataError
    """
    where = f"the column {name!r} of {role}="
    if not known:
        raise DataError(f"{where} has no values")
    if not positive:
        raise DataError(f"{where} is zero in every row: no row would count")


def _codes(series: Column) -> tuple[Ints, pd.Index[Any]]:
    """Number of the value of every row, -1 where it is missing, and the values."""
    present = ~missing_ids(series)
    codes = np.full(len(present), -1, dtype=np.int64)
    if not present.any():
        return codes, pd.Index([])
    found, values = pd.factorize(kept_ids(series, present))
    codes[present] = found
    return codes, pd.Index(values)


def _design(columns: SurveyColumns, data: Columns, cluster: str | None, nrows: int) -> tuple[Ints, Design]:
    name = columns.psu or cluster
    psu, ids = (np.arange(nrows), pd.RangeIndex(nrows)) if name is None else _codes(data[name])
    stratum, strata = np.zeros(nrows, dtype=np.int64), pd.Index(["all"])
    if columns.strata is not None:
        stratum, strata = _codes(data[columns.strata])
    given = None if columns.fpc is None else float_column(columns.fpc, data[columns.fpc])
    table = Psus.nothing(columns, cluster).with_rows(psu, ids, stratum, strata, given, 0)
    return psu, table.design


@dataclass(frozen=True, eq=False)
class Psus:
    """Primary sampling units and their strata, as they are found in rows.

    Attributes
    ----------
    columns : SurveyColumns
    cluster : str or None
        The column of clusters, which are the PSUs if no column of these is named.
    ids : pandas.Index, length P
    stratum : ndarray of int, shape (P,)
        Stratum of each.
    strata : pandas.Index, length H
        Their ids.
    fpc : ndarray, shape (H,), or None
        What the column `fpc` says of each stratum.
    """

    columns: SurveyColumns
    cluster: str | None
    ids: pd.Index[Any]
    stratum: Ints
    strata: pd.Index[Any]
    fpc: Floats | None

    @classmethod
    def nothing(cls, columns: SurveyColumns, cluster: str | None) -> Psus:
        """No PSU, before any row is read."""
        fpc = None if columns.fpc is None else np.empty(0)
        return cls(columns, cluster, pd.Index([]), np.empty(0, dtype=np.int64), pd.Index([]), fpc)

    def with_rows(
        self,
        psu: Ints,
        ids: pd.Index[Any],
        stratum: Ints,
        strata: pd.Index[Any],
        fpc: Floats | None,
        first: int,
    ) -> Psus:
        """The same after more rows.

        Parameters
        ----------
        psu, stratum : ndarray of int, shape (rows,)
            Their numbers among `ids` and `strata`, -1 where missing.
        ids, strata : pandas.Index
            Those of all rows so far: those known before, then new ones.
        fpc : ndarray, shape (rows,), or None
        first : int
            Number of the first row, for messages.

        Raises
        ------
        DataError
            If a row has no stratum, a PSU is in several strata, or rows of a stratum differ in `fpc`.
        """
        columns, used = self.columns, psu >= 0
        lost = (stratum < 0) & used
        if lost.any():
            raise DataError(
                f"the stratum ({columns.strata!r}) is missing in {lost.sum()} row(s), first in row "
                f"{first + int(lost.argmax())} (counted from 0): every row needs one"
            )
        of_psu = np.full(len(ids), -1, dtype=np.int64)
        of_psu[psu[used]] = stratum[used]
        of_psu[: len(self.stratum)] = np.where(self.stratum >= 0, self.stratum, of_psu[: len(self.stratum)])
        torn = np.unique(psu[used & (of_psu[psu] != stratum)])
        if len(torn):
            k = int(torn[0])
            several = strata[np.unique([of_psu[k], *stratum[psu == k]])].tolist()
            raise self._torn(len(torn), ids[torn].tolist(), several)
        known = None
        if fpc is not None and self.fpc is not None:
            known = np.full(len(strata), np.nan)
            known[stratum[used]] = fpc[used]
            known[: len(self.fpc)] = np.where(np.isnan(self.fpc), known[: len(self.fpc)], self.fpc)
            odd = used & ~(fpc == known[stratum])
            if odd.any():
                row = int(odd.argmax())
                raise DataError(
                    f"fpc={columns.fpc!r} must be there and the same in all rows of a stratum, and is not in row "
                    f"{first + row} (counted from 0), stratum {strata.tolist()[stratum[row]]!r}"
                )
        return replace(self, ids=ids, stratum=of_psu, strata=strata, fpc=known)

    def _torn(self, count: int, ids: Sequence[Any], several: Sequence[Any]) -> DataError:
        return DataError(
            f"{count} primary sampling unit(s) of {self.columns.psu or self.cluster!r} are in several strata of "
            f"{self.columns.strata!r}: {listed(ids, most=8)}; the first is in {listed(several)}. If the ids start anew "
            "in every stratum, make them unique"
        )

    def joined(
        self, other: Psus, same: Callable[..., tuple[pd.Index[Any], pd.Index[Any]]]
    ) -> tuple[Psus, Ints]:
        """Those of both, and the numbers of the second's PSUs among them.

        Parameters
        ----------
        other : Psus
        same : function
            Makes two sets of ids of a column ones of the same type.

        Raises
        ------
        DataError
            If a PSU is in several strata, or a stratum is not of one size.
        """
        (ids, place), (strata, of_stratum) = (
            _union(*same(one, two, str(name)))
            for one, two, name in (
                (self.ids, other.ids, self.columns.psu or self.cluster),
                (self.strata, other.strata, self.columns.strata),
            )
        )
        stratum = np.full(len(ids), -1, dtype=np.int64)
        stratum[place] = np.where(other.stratum >= 0, of_stratum[other.stratum], -1)
        both = place[(place < len(self.ids)) & (other.stratum >= 0)]
        torn = both[(self.stratum[both] >= 0) & (self.stratum[both] != stratum[both])]
        if len(torn):
            k = int(torn[0])
            raise self._torn(len(torn), ids[torn].tolist(), strata[[self.stratum[k], stratum[k]]].tolist())
        own = stratum[: len(self.ids)]
        stratum[: len(self.ids)] = np.where(self.stratum >= 0, self.stratum, own)
        fpc = None
        if self.fpc is not None and other.fpc is not None:
            fpc = np.full(len(strata), np.nan)
            fpc[of_stratum] = other.fpc
            differ = ~(
                (fpc[: len(self.fpc)] == self.fpc) | np.isnan(fpc[: len(self.fpc)]) | np.isnan(self.fpc)
            )
            if differ.any():
                raise DataError(
                    f"fpc={self.columns.fpc!r} must be the same in all rows of a stratum, and differs between the two "
                    f"sides of the sum in stratum {strata.tolist()[int(differ.argmax())]!r}"
                )
            fpc[: len(self.fpc)] = np.where(np.isnan(self.fpc), fpc[: len(self.fpc)], self.fpc)
        return replace(self, ids=ids, stratum=stratum, strata=strata, fpc=fpc), place

    @property
    def design(self) -> Design:
        """PSUs in their strata; `DataError` for a stratum of one PSU, or fractions that are none."""
        columns, strata = self.columns, self.strata
        # ids without a row that tells their stratum are clusters whose rows have none
        count = np.bincount(self.stratum[self.stratum >= 0], minlength=len(strata))
        alone = np.flatnonzero(count == 1)
        if len(alone) and columns.single_psu == "error":
            where = "the sample" if columns.strata is None else f"strata of {columns.strata!r}"
            raise DataError(
                f"{len(alone)} of {where} have one primary sampling unit only: "
                f"{listed(strata[alone].tolist(), most=8)}, from which no variance can be estimated. Join strata, or "
                'say single_psu="centre" (its deviation from the mean of all units) or "certainty" (it was certain to '
                "be sampled and adds nothing)"
            )
        left = np.ones(len(strata))
        if self.fpc is not None:
            left = 1 - _fractions(str(columns.fpc), self.fpc, count, strata)
        return Design(self.stratum, left, columns.single_psu)


def _union(one: pd.Index[Any], two: pd.Index[Any]) -> tuple[pd.Index[Any], Ints]:
    """Ids of both, the first's first, and where those of the second are."""
    place = one.get_indexer(two)
    new = place < 0
    place[new] = len(one) + np.arange(int(new.sum()))
    return one.append(two[new]), place.astype(np.int64)


def _fractions(name: str, given: Floats, count: Ints, strata: pd.Index[Any]) -> Floats:
    """Sampling fraction of every stratum, given as such or as the number of PSUs in its population."""
    if ((given >= 0) & (given <= 1)).all():
        return given
    few = given < count
    if few.any():
        h = int(few.argmax())
        raise DataError(
            f"fpc={name!r} has the sampling fraction of every stratum, from 0 to 1, or the number of primary sampling "
            f"units in its population; stratum {strata.tolist()[h]!r} has {given[h]:g} and {count[h]} in the sample"
        )
    return np.asarray(count / given, dtype=np.float64)


def replication_scale(given: str | float | tuple[float, ...] | None, count: int) -> Floats:
    """Factors of the squared deviations of so many replicates.

    Raises
    ------
    DataError
        If it is not known how they were made, or there are not as many factors.
    """
    if given is None:
        raise DataError(
            "say how the replicate weights were made, since their variances differ: replicate_scale= one of "
            f"{', '.join(map(repr, REPLICATION))}, or the factors of the squared deviations"
        )
    if isinstance(given, str):
        return np.full(count, REPLICATION[given](count))
    factors = np.atleast_1d(np.asarray(given, dtype=np.float64))
    if len(factors) not in (1, count) or not (np.isfinite(factors) & (factors > 0)).all():
        raise DataError(
            f"replicate_scale must be one positive factor, or one for each of the {count} replicates"
        )
    return np.broadcast_to(factors, (count,)).copy()


def checked_weights(name: str, values: Floats, keep: Bools, first: int = 0) -> Floats:
    """Weights of the kept rows; `DataError` if one is missing. `first` is the number of the first row."""
    if _core.all_finite(values):
        return kept(values, keep)
    missing = np.isnan(values) & keep
    if missing.any():
        raise DataError(
            f"the weight {name!r} is missing in {missing.sum()} row(s) that would be used, first in row "
            f"{first + int(missing.argmax())} (counted from 0): give every row a weight; 0 leaves a row out"
        )
    return kept(values, keep)


def of_clusters(
    name: str, values: NDArray[Any], codes: Ints, clusters: pd.Index[Any], what: str
) -> NDArray[Any]:
    """Values of clusters from those of their rows; `DataError` if they differ within one."""
    known, varying = _core.cluster_values([values.astype(np.float64, copy=False)], codes, len(clusters))
    if not varying[0][0]:
        return known[:, 0].astype(values.dtype, copy=False)
    odd = np.unique(codes[values != known[codes, 0]])
    raise DataError(
        f"{what} {name!r} must be the same in all rows of a cluster, and differs within {len(odd)} cluster(s): "
        f"{listed(clusters[odd].tolist(), most=8)}"
    )


def scaled_units(weights: Floats, codes: Ints | None, scale: Scale, counted: Bools | None = None) -> Floats:
    """Weights of units as they enter the likelihood.

    Parameters
    ----------
    weights : ndarray, shape (N,)
    codes : ndarray of int, shape (N,), or None
        Cluster of each; None to take all together.
    scale : {"size", "effective", "none"}
        What they add up to in a cluster: its number of units, (sum w)^2 / sum w^2 (both Pfeffermann et al., 1998), or
        what they add up to as they are.
    counted : ndarray of bool, shape (N,), optional
        Units that have any value; default: all.
    """
    nclusters = 0 if codes is None or not len(codes) else int(codes.max()) + 1
    return weights if scale == "none" else _core.scaled_weights(weights, codes, nclusters, counted, scale)


def whole_sizes(sizes: Floats) -> Floats:
    """Sizes of clusters, with those that are whole numbers but for rounding made so, that equal ones stay equal."""
    whole = np.rint(sizes)
    return np.where(np.abs(sizes - whole) <= WHOLE * sizes, whole, sizes)


def effective(weights: Floats) -> float:
    """Effective size of a sample with these weights, (sum w)^2 / sum w^2 (Kish, 1965)."""
    total, squares = _core.weight_totals(weights, len(weights), None, None)
    return total**2 / squares


def shared_design(sampled: Sequence[Sampled | None]) -> Design | Replication | None:
    """The design of a sample from what its groups say; None without one."""
    designs = [one.design for one in sampled if one is not None]
    return designs[0] if designs else None
