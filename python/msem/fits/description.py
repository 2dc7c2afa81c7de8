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
from msem.data.frames import ScreenedColumns, screened_columns
from msem.data.intraclass import anova_size
from msem.data.moments import LevelMoments
from msem.data.reading import require_rows_of_data
from msem.distributions import normal_pvalue
from msem.entry import entry
from msem.errors import DataError, UnsupportedError
from msem.fits.decomposition import saturated
from msem.fits.publication import PublicationTable, number_text
from msem.printing import frame_html, frame_text
from msem.settings import several
from msem.version import __version__

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Description:
    """Descriptive statistics of clustered data; immutable.

    Attributes
    ----------
    variables : DataFrame
        A row for each variable: n (units with a value; clusters, of variables of clusters), missing (share),
        mean, sd, min, max, sd_within, sd_between, icc, icc_se, icc2, design_effect.
    correlations : DataFrame
        Columns lhs, rhs, level, r, se, z, pvalue: correlations within and between clusters.
    nobs, nclusters : int
    sizes : Series
        min, median, mean and max of the cluster sizes.
    moments : LevelMoments
        The saturated moments that they come from.
    """

    variables: pd.DataFrame
    correlations: pd.DataFrame
    nobs: int
    nclusters: int
    sizes: pd.Series
    moments: LevelMoments

    def matrix(self, digits: int = 2) -> pd.DataFrame:
        """Correlations as articles print them: within clusters below the diagonal, between clusters above it.

        Parameters
        ----------
        digits : int
            Decimals.

        Returns
        -------
        DataFrame
            Of texts, with stars for p < .05, .01 and .001; "" where a variable is not at the level.
        """
        names = list(self.variables.index)
        out = pd.DataFrame("", index=names, columns=names)
        for lhs, rhs, level, r, p in self.correlations[["lhs", "rhs", "level", "r", "pvalue"]].itertuples(
            index=False
        ):
            i, j = sorted((names.index(lhs), names.index(rhs)))
            row, column = (j, i) if level == 1 else (i, j)
            text = "" if r != r else f"{r:.{digits}f}" + "*" * sum(p < bound for bound in (0.05, 0.01, 0.001))
            out.iloc[row, column] = text
        return out

    def table(self, *, digits: int = 2, apa: bool = False) -> PublicationTable:
        """Means, standard deviations, intraclass correlations and correlations by level as a table for publication.

        Parameters
        ----------
        digits : int
            Decimals.
        apa : bool
            Numbers as in the style of the American Psychological Association; see `msem.table`.

        Returns
        -------
        PublicationTable
        """
        return _publication(self, digits, apa)

    def __str__(self) -> str:
        sizes = ", ".join(f"{name} {value:g}" for name, value in self.sizes.items())
        return "\n\n".join(
            [
                f"{self.nobs} units in {self.nclusters} clusters (sizes: {sizes})",
                frame_text(self.variables),
                "Correlations, within clusters below and between clusters above the diagonal "
                "(* p < .05, ** p < .01, *** p < .001)",
                self.matrix().to_string(),
            ]
        )

    def __repr__(self) -> str:
        return f"<msem.Description: {len(self.variables)} variables, {self.nobs} units in {self.nclusters} clusters>"

    def _repr_html_(self) -> str:
        return frame_html(self.variables) + self.matrix().to_html(border=0)


@entry
def describe(
    data: Any, *, cluster: str | None = None, variables: str | Sequence[str] | None = None
) -> Description:
    """Describe clustered data: sizes, means, standard deviations, intraclass and other correlations by level.

    What belongs to levels comes from the saturated two-level model by maximum likelihood, with all values that are
    observed.

    Parameters
    ----------
    data : data frame
        One row per unit.
    cluster : str
        Column with the cluster ids.
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
    if cluster is None:
        raise DataError('describe is for clustered data: name the column with the cluster ids, cluster="..."')
    if isinstance(cluster, list | tuple):
        raise UnsupportedError(
            "descriptions of three levels are not available in this version: name one column of clusters"
        )
    require_rows_of_data(data)
    wanted = (
        [name for name in numeric_columns(data) if name != cluster]
        if variables is None
        else several(variables)
    )
    columns = screened_columns(data, wanted, cluster)
    holes = any(mask is not None for mask in columns.missing.values())
    moments = saturated(data, cluster=cluster, between=wanted, missing="fiml" if holes else "listwise")
    counts = np.asarray(moments.statistics.counts, dtype=np.intp)
    sizes = pd.Series(np.repeat(moments.statistics.sizes, counts))
    return Description(
        _variables(wanted, columns, moments),
        _correlations(moments),
        round(moments.nobs),
        round(moments.nclusters),
        pd.Series(
            {"min": sizes.min(), "median": sizes.median(), "mean": round(sizes.mean(), 2), "max": sizes.max()}
        ),
        moments,
    )


def _variables(names: Sequence[str], columns: ScreenedColumns, moments: LevelMoments) -> pd.DataFrame:
    sizes = np.asarray(moments.statistics.sizes, dtype=np.float64)
    k = anova_size(sizes, np.asarray(moments.statistics.counts, dtype=np.float64))
    icc = moments.icc_table()
    first = None if columns.ids is None else ~pd.Series(columns.ids.to_list()).duplicated().to_numpy()
    rows = {}
    for name in names:
        values = columns.columns[name][~columns.no_cluster]
        within, between = name in moments.within_cov, name in moments.between_cov
        if not within and first is not None:  # of clusters: one value each
            values = columns.columns[name][first & ~columns.no_cluster]
        seen = values[~np.isnan(values)]
        rows[name] = {
            "n": len(seen),
            "missing": 1 - len(seen) / len(values),
            "mean": seen.mean(),
            "sd": seen.std(ddof=1),
            "min": seen.min(),
            "max": seen.max(),
            "sd_within": _root(moments.within_cov, name) if within else np.nan,
            "sd_between": _root(moments.between_cov, name) if between else np.nan,
            "icc": icc["icc"].get(name, np.nan),
            "icc_se": icc["se"].get(name, np.nan),
            "icc2": k * icc["icc"].get(name, np.nan) / (1 + (k - 1) * icc["icc"].get(name, np.nan)),
            "design_effect": icc["design_effect"].get(name, np.nan),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _root(cov: pd.DataFrame, name: str) -> float:
    value = float(cov.to_numpy()[cov.columns.get_loc(name), cov.columns.get_loc(name)])
    return float(np.sqrt(value)) if value >= 0 else np.nan


def _correlations(moments: LevelMoments) -> pd.DataFrame:
    gamma = moments.gamma()
    rows = []
    for level, cov in ((1, moments.within_cov), (2, moments.between_cov)):
        suffix = "" if level == 1 else ".l2"
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


def _publication(found: Description, digits: int, apa: bool) -> PublicationTable:
    """A row for each variable: sizes, moments, then the correlations under the numbers of the variables."""
    frame, names = found.variables, list(found.variables.index)
    columns: dict[tuple[str, str], list[str]] = {("", "N"): [f"{n:.0f}" for n in frame["n"]]}
    if frame["missing"].any():
        columns["", "Missing"] = [f"{100 * share:.0f}%" for share in frame["missing"]]
    for name, heading in HEADINGS.items():
        bounded = name in ("icc", "icc2")
        columns["", heading] = [number_text(v, digits, apa, below_one=bounded) for v in frame[name]]
    texts = found.matrix(digits)
    for k, name in enumerate(names, 1):
        column = [_correlation_text(text, apa) for text in texts[name]]
        columns["Correlations", str(k)] = column
    rows = pd.MultiIndex.from_tuples(
        [("Variables", f"{k}. {name}") for k, name in enumerate(names, 1)], names=["section", "row"]
    )
    table = pd.DataFrame(dict(enumerate(columns.values())), index=rows)
    table.columns = pd.MultiIndex.from_tuples(list(columns), names=["fit", "column"])
    note = (
        f"{found.nobs} units in {found.nclusters} clusters. Correlations within clusters below and between "
        f"clusters above the diagonal. * p < .05, ** p < .01, *** p < .001. msem {__version__}."
    )
    return PublicationTable(table, (note,))


def _correlation_text(text: str, apa: bool) -> str:
    """A correlation with its stars, without the zero before the point where that is the style."""
    return text.replace("0.", ".", 1) if apa and text.lstrip("-").startswith("0.") else text
