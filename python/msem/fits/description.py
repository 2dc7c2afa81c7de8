"""Descriptive statistics of clustered data: the first table of an article."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.columns import numeric_columns
from msem.data.frames import Holes, ScreenedColumns, screened_columns
from msem.data.given import Given, what_is_given
from msem.data.intraclass import anova_size
from msem.data.levels import levels_of
from msem.data.moments import LevelMoments
from msem.data.reading import require_rows_of_data
from msem.distributions import normal_pvalue
from msem.entry import entry
from msem.errors import DataError, UnsupportedError
from msem.fits.decomposition import saturated
from msem.fits.publication import PublicationTable, number_text
from msem.model.levels import Level, level_number
from msem.printing import frame_html, frame_text
from msem.settings import Settings, several
from msem.version import __version__

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Description:
    """Descriptive statistics of clustered data; immutable.

    Attributes
    ----------
    variables : DataFrame
        A row for each variable: n (units with a value; clusters, of variables of clusters), missing (share),
        mean, sd, min, max, sd_within, sd_between, icc, icc_se, icc2, design_effect. Of three levels n to max, then
        sd_l1, sd_l2, sd_l3, and icc_l2, icc_l2_se, icc_l3, icc_l3_se, the shares of the variance; so of more.
    correlations : DataFrame
        Columns lhs, rhs, level, r, se, z, pvalue: correlations of each level.
    nobs, nclusters : int
        Units, and clusters of the highest level; `moments.units` has those of every level.
    sizes : Series
        min, median, mean and max of the sizes of the lowest clusters.
    moments : LevelMoments
        The saturated moments that they come from.
    """

    variables: pd.DataFrame
    correlations: pd.DataFrame
    nobs: int
    nclusters: int
    sizes: pd.Series
    moments: LevelMoments

    def matrix(self, digits: int = 2, *, level: Level | None = None) -> pd.DataFrame:
        """Correlations as articles print them: within clusters below the diagonal, between clusters above it.

        Parameters
        ----------
        digits : int
            Decimals.
        level : int or str, optional
            Those of one level, below the diagonal; of three levels by default level 1.

        Returns
        -------
        DataFrame
            Of texts, with stars for p < .05, .01 and .001; "" where a variable is not at the level.
        """
        names, depth = list(self.variables.index), len(self.moments.levels)
        number = 1 if level is None else level_number(level, depth)
        shown = {1: False, 2: True} if level is None and depth == 2 else {number: False}  # whether above
        out = pd.DataFrame("", index=names, columns=names)
        for lhs, rhs, own, r, p in self.correlations[["lhs", "rhs", "level", "r", "pvalue"]].itertuples(
            index=False
        ):
            if own not in shown:
                continue
            i, j = sorted((names.index(lhs), names.index(rhs)))
            row, column = (i, j) if shown[own] else (j, i)
            text = "" if r != r else f"{r:.{digits}f}" + "*" * sum(p < bound for bound in (0.05, 0.01, 0.001))
            out.iloc[row, column] = text
        return out

    def table(self, *, digits: int = 2, apa: bool = False, level: Level | None = None) -> PublicationTable:
        """Means, standard deviations, intraclass correlations and correlations by level as a table for publication.

        Parameters
        ----------
        digits : int
            Decimals.
        apa : bool
            Numbers as in the style of the American Psychological Association; see `msem.table`.
        level : int or str, optional
            Whose correlations; see `matrix`.

        Returns
        -------
        PublicationTable
        """
        return _publication(self, digits, apa, level)

    @property
    def _sample(self) -> str:
        clusters = " in ".join(f"{count:.0f} clusters" for count in self.moments.units[1:])
        return f"{self.nobs} units in {clusters}"

    def __str__(self) -> str:
        sizes = ", ".join(f"{name} {value:g}" for name, value in self.sizes.items())
        depth = len(self.moments.levels)
        stars = "(* p < .05, ** p < .01, *** p < .001)"
        if depth == 2:
            what = "Correlations, within clusters below and between clusters above the diagonal"
            matrices = [f"{what} {stars}", self.matrix().to_string()]
        else:
            matrices = []
            for level, names in enumerate(self.moments.variables.levels, 1):
                own = [name for name in self.variables.index if name in names]
                matrices += [f"Correlations of level {level} {stars}"]
                matrices += [self.matrix(level=level).loc[own, own].to_string()]
        return "\n\n".join([f"{self._sample} (sizes: {sizes})", frame_text(self.variables), *matrices])

    def __repr__(self) -> str:
        return f"<msem.Description: {len(self.variables)} variables, {self._sample}>"

    def _repr_html_(self) -> str:
        return frame_html(self.variables) + self.matrix().to_html(border=0)


@entry
def describe(
    data: Any, *, cluster: str | Sequence[str] | None = None, variables: str | Sequence[str] | None = None
) -> Description:
    """Describe clustered data: sizes, means, standard deviations, intraclass and other correlations by level.

    What belongs to levels comes from the saturated model of two levels or three by maximum likelihood, with all values
    that are observed.

    Parameters
    ----------
    data : data frame or ClusterStatistics
        One row per unit; or what `msem.summarize` makes of such data, of which least and greatest values are not known.
    cluster : str or sequence of str
        Column with the cluster ids, or two columns for three levels, the highest clusters first. Not for statistics,
        which have their clusters.
    variables : str or sequence of str, optional
        Default: all numeric columns.

    Returns
    -------
    Description

    Raises
    ------
    DataError
        If no cluster column is named, or the data cannot be used; see `saturated`.

    Notes
    -----
    ``icc2`` = k icc / (1 + (k - 1) icc) is the reliability of cluster means, k being the average cluster size of the
    one-way analysis of variance (Bliese, 2000; Donner, 1986). Correlations have delta-method standard errors and are
    tested on Fisher's scale.

    References
    ----------
    Bliese (2000). Within-group agreement, non-independence, and reliability. In Klein & Kozlowski (eds.), Multilevel
    theory, research, and methods in organizations, 349-381.
    """
    given = what_is_given(data)
    if not given.has_rows:
        return _of_statistics(data, given, cluster, variables)
    if cluster is None:
        raise DataError('describe is for clustered data: name the column with the cluster ids, cluster="..."')
    settings = Settings.read({"cluster": cluster})
    if settings.crossed:
        raise UnsupportedError("descriptions of crossed classifications are not available in this version")
    require_rows_of_data(data)
    wanted = (
        [name for name in numeric_columns(data) if name not in settings.cluster_columns]
        if variables is None
        else several(variables)
    )
    columns = screened_columns(data, wanted, settings.highest, inner=settings.inner)
    holes = Holes() if any(mask is not None for mask in columns.missing.values()) else None
    levels = levels_of(data, settings.cluster_columns, wanted, holes)
    if not levels[0]:
        raise DataError(
            "no variable varies within clusters, so within and between cannot be told apart: check the cluster column; "
            "variables of clusters are described by data.drop_duplicates(...).describe()"
        )
    moments = saturated(
        data, cluster=settings.cluster_columns, levels=levels, missing="listwise" if holes is None else "fiml"
    )
    counts = np.asarray(moments.statistics.counts, dtype=np.intp)
    sizes = np.repeat(moments.statistics.sizes, counts)
    return _described(_univariate(wanted, columns, moments), moments, sizes)


def _of_statistics(data: Any, given: Given, cluster: Any, variables: Any) -> Description:
    """Description of statistics of clusters."""
    if given.univariate() is None:
        raise DataError(
            "describe takes rows, or what msem.summarize makes of them: of moments icc_table() has the intraclass "
            "correlations"
        )
    if cluster is not None:
        raise DataError(f"cluster={cluster!r} is for raw data; statistics have their clusters: leave it out")
    chosen = data if variables is None else data.restrict(several(variables))
    moments = saturated(chosen)
    frame = chosen.univariate().assign(min=np.nan, max=np.nan)
    tree = chosen.tree
    return _described(frame, moments, np.full(1, np.nan) if tree is None else tree[0])


def _described(frame: pd.DataFrame, moments: LevelMoments, sizes: Floats) -> Description:
    """Description of variables from what they are over units, saturated moments and sizes of the lowest clusters."""
    of = pd.Series(sizes)
    return Description(
        _with_levels(frame, moments),
        _correlations(moments),
        round(moments.nobs),
        round(moments.nclusters),
        pd.Series({"min": of.min(), "median": of.median(), "mean": round(of.mean(), 2), "max": of.max()}),
        moments,
    )


def _univariate(names: Sequence[str], columns: ScreenedColumns, moments: LevelMoments) -> pd.DataFrame:
    """n, missing, mean, sd, min and max of variables over the units that they are measured on."""
    depth, measured = len(moments.levels), moments.variables.measured
    rows = {}
    for name in names:
        values = columns.columns[name][~columns.no_cluster]
        level = next(k for k, own in enumerate(measured, 1) if name in own)
        if level > 1:  # of clusters: one value each
            values = columns.columns[name][
                _first_of_cluster(columns, depth - level + 1) & ~columns.no_cluster
            ]
        seen = values[~np.isnan(values)]
        rows[name] = {
            "n": len(seen),
            "missing": 1 - len(seen) / len(values),
            "mean": seen.mean(),
            "sd": seen.std(ddof=1),
            "min": seen.min(),
            "max": seen.max(),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _with_levels(frame: pd.DataFrame, moments: LevelMoments) -> pd.DataFrame:
    """The same with standard deviations and shares of variance by level."""
    depth = len(moments.levels)
    sds = {
        f"sd_{word}": [_root(one.cov, name) if name in one.cov else np.nan for name in frame.index]
        for word, one in zip(_level_words(depth), moments.levels, strict=True)
    }
    of_levels = _two_levels(moments) if depth == 2 else _shares(moments)
    shares = {column: found.reindex(frame.index) for column, found in of_levels.items()}
    return frame.assign(**sds, **shares)


def _level_words(depth: int) -> list[str]:
    return ["within", "between"] if depth == 2 else [f"l{level}" for level in range(1, depth + 1)]


def _first_of_cluster(columns: ScreenedColumns, count: int) -> NDArray[np.bool_]:
    """The first row of each cluster that so many columns of ids tell apart."""
    ids = [columns.ids, *columns.inner.values()][:count]
    frame = pd.DataFrame({k: own.to_list() for k, own in enumerate(ids) if own is not None})
    return np.asarray(~frame.duplicated().to_numpy(), dtype=bool)


def _two_levels(moments: LevelMoments) -> dict[str, pd.Series]:
    """Intraclass correlations and what follows from them, by column."""
    sizes = np.asarray(moments.statistics.sizes, dtype=np.float64)
    k = anova_size(sizes, np.asarray(moments.statistics.counts, dtype=np.float64))
    table = moments.icc_table()
    icc = table["icc"]
    return {
        "icc": icc,
        "icc_se": table["se"],
        "icc2": k * icc / (1 + (k - 1) * icc),
        "design_effect": table["design_effect"],
    }


def _shares(moments: LevelMoments) -> dict[str, pd.Series]:
    """Shares of the variance of the levels above the first, by column."""
    table = moments.icc_table()
    out: dict[str, pd.Series] = {}
    for level in range(2, len(moments.levels) + 1):
        own = table[table["level"] == level].set_index("lhs")
        out |= {f"icc_l{level}": own["icc"], f"icc_l{level}_se": own["se"]}
    return out


def _root(cov: pd.DataFrame, name: str) -> float:
    value = float(cov.to_numpy()[cov.columns.get_loc(name), cov.columns.get_loc(name)])
    return float(np.sqrt(value)) if value >= 0 else np.nan


def _correlations(moments: LevelMoments) -> pd.DataFrame:
    gamma = moments.gamma_or_nan()
    rows = []
    for level, cov in enumerate((one.cov for one in moments.levels), 1):
        suffix = "" if level == 1 else f".l{level}"
        names = list(cov.columns)
        known = set(gamma.index)

        def key(one: str, other: str, suffix: str = suffix, known: set[str] = known) -> str:
            name = f"{one}~~{other}{suffix}"
            return name if name in known else f"{other}~~{one}{suffix}"

        for lhs, rhs in combinations(names, 2):
            r, se = _correlation(cov, gamma, (key(lhs, rhs), key(lhs, lhs), key(rhs, rhs)), lhs, rhs)
            inside = abs(r) < 1
            z = np.arctanh(r) * (1 - r**2) / se if inside and se > 0 else np.nan
            rows.append((lhs, rhs, level, r, se, z, float(normal_pvalue(z))))
    return pd.DataFrame(rows, columns=["lhs", "rhs", "level", "r", "se", "z", "pvalue"])


def _correlation(
    cov: pd.DataFrame, gamma: pd.DataFrame, keys: tuple[str, str, str], lhs: str, rhs: str
) -> tuple[float, float]:
    """A correlation with its delta-method standard error; nan where a variance is not positive."""
    (a, c), (_, b) = cov.loc[[lhs, rhs], [lhs, rhs]].to_numpy().tolist()
    if a <= 0 or b <= 0:
        return np.nan, np.nan
    r = c / np.sqrt(a * b)
    slope = np.array([1 / np.sqrt(a * b), -r / (2 * a), -r / (2 * b)])
    variance = float(slope @ gamma.loc[list(keys), list(keys)].to_numpy() @ slope)
    return r, float(np.sqrt(variance)) if variance >= 0 else np.nan


HEADINGS = {"mean": "M", "sd": "SD", "icc": "ICC(1)", "icc2": "ICC(2)", "design_effect": "Design effect"}


def _publication(found: Description, digits: int, apa: bool, level: Level | None) -> PublicationTable:
    """A row for each variable: sizes, moments, then the correlations under the numbers of the variables."""
    frame, names, depth = found.variables, list(found.variables.index), len(found.moments.levels)
    columns: dict[tuple[str, str], list[str]] = {("", "N"): [f"{n:.0f}" for n in frame["n"]]}
    if frame["missing"].any():
        columns["", "Missing"] = [f"{100 * share:.0f}%" for share in frame["missing"]]
    headings = HEADINGS
    if depth > 2:
        shares = {f"icc_l{number}": f"ICC, level {number}" for number in range(2, depth + 1)}
        headings = {"mean": "M", "sd": "SD"} | shares
    for name, heading in headings.items():
        bounded = name.startswith("icc")
        columns["", heading] = [number_text(v, digits, apa, below_one=bounded) for v in frame[name]]
    texts = found.matrix(digits, level=level)
    for k, name in enumerate(names, 1):
        column = [_correlation_text(text, apa) for text in texts[name]]
        columns["Correlations", str(k)] = column
    rows = pd.MultiIndex.from_tuples(
        [("Variables", f"{k}. {name}") for k, name in enumerate(names, 1)], names=["section", "row"]
    )
    table = pd.DataFrame(dict(enumerate(columns.values())), index=rows)
    table.columns = pd.MultiIndex.from_tuples(list(columns), names=["fit", "column"])
    where = f"of level {1 if level is None else level_number(level, depth)}"
    if depth == 2 and level is None:
        where = "within clusters below and between clusters above the diagonal"
    note = f"{found._sample}. Correlations {where}. * p < .05, ** p < .01, *** p < .001. msem {__version__}."
    return PublicationTable(table, (note,))


def _correlation_text(text: str, apa: bool) -> str:
    """A correlation with its stars, without the zero before the point where that is the style."""
    return text.replace("0.", ".", 1) if apa and text.lstrip("-").startswith("0.") else text
