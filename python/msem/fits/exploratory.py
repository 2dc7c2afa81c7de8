"""Exploratory factor analysis at one level or several: fits of all numbers of factors that are asked for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from msem.data.columns import numeric_columns
from msem.data.frames import Holes
from msem.data.given import what_is_given
from msem.data.levels import levels_of
from msem.data.reading import require_rows_of_data
from msem.entry import entries, entry
from msem.errors import ArgumentError, DataError, ModelError, MsemError, UnsupportedError
from msem.fits.fit import Fit
from msem.fits.sem import sem
from msem.language.characters import is_plain, quote
from msem.model.levels import WITHIN, Level, level_number, level_place, names_of_levels
from msem.model.rotation import most_factors
from msem.printing import frame_text
from msem.settings import Settings, several

STEMS = {1: "fw", 2: "fb", 3: "ft"}  # of names of factors; "fl4_" of level 4

Number = int | None
Key = int | tuple[Number, ...]

MEASURES = ("chisq", "df", "pvalue", "cfi", "tli", "rmsea")
SRMR = {1: ("srmr",), 2: ("srmr_within", "srmr_between")}
LEVEL_MEASURES = (*MEASURES, "srmr")


@entries
@dataclass(frozen=True, eq=False)
class ExploratoryFits:
    """Exploratory factor analyses of the same variables with different numbers of factors; immutable.

    Made by `msem.efa`.

    Attributes
    ----------
    fits : dict
        A `Fit` by its number of factors: ``fits[2]``; at several levels by the numbers of each, level 1 first,
        ``fits[2, 1]``, None for a level that is saturated.
    """

    fits: Mapping[Key, Fit]

    def __getitem__(self, key: Key) -> Fit:
        return self.fits[key]

    def __len__(self) -> int:
        return len(self.fits)

    @property
    def multilevel(self) -> bool:
        """Whether there are several levels."""
        return self.nlevels > 1

    @property
    def nlevels(self) -> int:
        """Number of levels."""
        return next((len(key) if isinstance(key, tuple) else 1 for key in self.fits), 1)

    def to_frame(self) -> pd.DataFrame:
        """Fit by numbers of factors.

        Returns
        -------
        DataFrame
            A row for each model: within and between (or factors, at one level), with <NA> for a level that is
            saturated; npar (free parameters, rotation not counted), chisq, df, pvalue, cfi, tli, rmsea, srmr (at two
            levels srmr_within and srmr_between), aic, bic, status. At three levels level 1, level 2 and level 3, and
            srmr_l1 to srmr_l3; so at more.
        """
        rows = []
        for key, fit in self.fits.items():
            found = fit.fit_measures()
            counts = key if isinstance(key, tuple) else (key,)
            numbers = dict(zip(self._numbers(), counts, strict=True))
            depth = self.nlevels
            srmr = SRMR.get(depth, tuple(f"srmr_l{level}" for level in range(1, depth + 1)))
            names = (*MEASURES, *srmr, "aic", "bic")
            rows.append(
                numbers
                | {"npar": fit.estimate.nfree}
                | {name: float(found.get(name, np.nan)) for name in names}
                | {"status": fit.status}
            )
        whole = (*self._numbers(), "npar", "df")
        return pd.DataFrame(rows).astype(dict.fromkeys(whole, "Int64"))

    def by_level(self) -> pd.DataFrame:
        """Fit of each level by its number of factors, the other levels saturated (Ryu & West, 2009).

        With few factors too many at one level the fit of the whole model says little about that level. These are
        likelihood-ratio tests against the saturated model, so that whatever is wrong is wrong at the level.

        Returns
        -------
        DataFrame
            A row for each level and number of factors: level, factors, chisq, df, pvalue, cfi, tli, rmsea, srmr.

        Raises
        ------
        ModelError
            For analyses of one level, whose fit is `to_frame`.
        """
        if not self.multilevel:
            raise ModelError("these are analyses of one level: their fit is to_frame()")
        rows: dict[tuple[int, int], dict[str, Any]] = {}
        for key, fit in self.fits.items():
            assert isinstance(key, tuple)
            for level, count in enumerate(key, WITHIN):
                if count is None or (level, count) in rows:
                    continue
                found = fit.fit_measures(level=level)
                rows[level, count] = {"level": level, "factors": count} | {
                    name: float(found[name]) for name in LEVEL_MEASURES
                }
        frame = pd.DataFrame([rows[place] for place in sorted(rows)])
        return frame.astype({"df": "Int64"})

    def loadings(self, key: Key | None = None, level: Level = 1, *, std: bool = True) -> pd.DataFrame:
        """Rotated loadings of one model at one level; see `Fit.loadings`.

        Parameters
        ----------
        key : int or tuple, optional
            Which model; may be left out if there is one.
        level : {1, 2, "within", "between"}
        std : bool
            Completely standardized.
        """
        return self._only(key).loadings(level, std=std)

    def _only(self, key: Key | None) -> Fit:
        if key is None and len(self.fits) == 1:
            return next(iter(self.fits.values()))
        if key is None or key not in self.fits:
            known = ", ".join(map(str, self.fits))
            raise ModelError(f"there is no analysis {key!r}: there are {known}")
        return self.fits[key]

    def __str__(self) -> str:
        shown = [frame_text(self.to_frame().set_index(self._numbers()))]
        if len(self.fits) > 1:
            return shown[0]
        fit = self._only(None)
        for level in range(WITHIN, fit.table.nlevels + 1):
            if not fit.table.latent(level):
                continue
            where = f", {names_of_levels(self.nlevels)[level]}" if fit.table.multilevel else ""
            shown += [f"Standardized loadings{where} ({fit.table.rotation.words})"]
            shown += [fit.loadings(level).round(3).to_string()]
            if len(fit.table.latent(level)) > 1:
                shown += ["Factor correlations", fit.factor_correlations(level).round(3).to_string()]
        return "\n\n".join(shown)

    def _numbers(self) -> list[str]:
        return list(names_of_levels(self.nlevels).values()) if self.multilevel else ["factors"]

    def __repr__(self) -> str:
        return f"<msem.ExploratoryFits: {len(self.fits)} models, {', '.join(map(str, self.fits))}>"

    def _repr_html_(self) -> str:
        html: str = self.to_frame().to_html(border=0, index=False)
        return html


@entry
def efa(
    data: Any = None,
    nfactors: int | Sequence[int] | Mapping[Any, int | Sequence[int]] = 1,
    *,
    variables: Sequence[str] | Mapping[Any, Sequence[str]] | None = None,
    cluster: str | Sequence[str] | None = None,
    rotation: str = "geomin",
    rotation_args: Mapping[str, Any] | None = None,
    **options: Any,
) -> ExploratoryFits:
    """Exploratory factor analysis at one level or several, by maximum likelihood, rotated.

    Parameters
    ----------
    data : data frame, LevelMoments, OrderedMoments, ClusterStatistics or None
        One row per unit, or moments or statistics in their place; None with the option ``sample_cov=``.
    nfactors : int, sequence of int, or dict of level to either
        Numbers of factors. At several levels ``{1: 2, 2: [1, 2]}`` fits all combinations, and a level that is left out
        is saturated; a number without levels is that of every level.
    variables : sequence of str, or dict of level to it
        Default: all numeric columns. At several levels, without levels, each is at the lowest level at which it varies
        and at all above.
    cluster : str or sequence of str
        Column with the cluster ids, for an analysis of two levels; two of them, the highest clusters first, for three.
    rotation, rotation_args
        As in `sem`.
    **options
        Others of `sem`, such as ``missing="fiml"``, ``estimator="MLR"`` and ``weights=``.

    Returns
    -------
    ExploratoryFits

    Raises
    ------
    ModelError
        If there are more factors than the indicators can bear, with how many they can.
    DataError
        If the sample cannot be used.

    Notes
    -----
    The likelihood-ratio test of m factors against m + 1 is no chi-square if m are enough (Hayashi, Bentler & Yuan,
    2007); take the fit of each number by itself, and SRMR. Standard errors are those of rotated estimates, from the
    information bordered by the conditions of the rotation (Jennrich, 1973).

    References
    ----------
    Hayashi, Bentler & Yuan (2007). On the likelihood ratio test for the number of factors in exploratory factor
    analysis. Structural Equation Modeling, 14, 505-526.

    Examples
    --------
    >>> import msem
    >>> names = ["y1", "y2", "y3", "y4", "y5", "y6"]
    >>> found = msem.efa(msem.load_demo(), {1: 2, 2: [1, 2]}, cluster="cluster", variables=names)
    >>> list(found.fits)
    [(2, 1), (2, 2)]
    """
    clusters = _columns_of_clusters(cluster)
    known = what_is_given(data).known_variables
    depth = len(clusters) + 1 if known is None else len(known.levels)
    several_levels = depth > 1 or isinstance(nfactors, Mapping)
    if not several_levels:
        names = _names(data, variables, options)
        counts = _counts(nfactors)
        _require_bearable(names, counts, WITHIN, multilevel=False)
        return ExploratoryFits(
            {
                n: sem(
                    "\n".join(_structure(names, n, "f", "factors")),
                    data,
                    rotation=rotation,
                    rotation_args=rotation_args,
                    **options,
                )
                for n in counts
            }
        )
    if depth < 2:
        raise DataError('an analysis of two levels needs cluster="...", the column with the cluster ids')
    levels = range(1, depth + 1)
    words = names_of_levels(depth)
    numbers = _by_level(nfactors, "nfactors", depth)
    by_level = _levels(data, variables, _used(options), clusters, depth)
    chosen = {level: _counts(one) for level, one in numbers.items()}
    for level, counts in chosen.items():
        _require_bearable(by_level[level - 1], counts, level, multilevel=True, nlevels=depth)
    keys: list[tuple[Number, ...]]
    if isinstance(nfactors, Mapping):
        keys = list(product(*(chosen.get(level, [None]) for level in levels)))
    else:
        keys = [(n,) * depth for n in chosen[1]]
    fits: dict[Key, Fit] = {}
    for key in keys:
        text = []
        for level, own, count in zip(levels, by_level, key, strict=True):
            text += [f"level: {level}"]
            text += (
                _saturated(own)
                if count is None
                else _structure(own, count, STEMS.get(level, f"fl{level}_"), words[level])
            )
        fits[key] = sem(
            "\n".join(text),
            data,
            cluster=cluster,
            rotation=rotation,
            rotation_args=rotation_args,
            **options,
        )
    return ExploratoryFits(fits)


def _structure(names: Sequence[str], count: int, stem: str, label: str) -> list[str]:
    """Lines of an exploratory block."""
    while any(name.startswith(stem) for name in names):
        stem = f"{stem}_"
    factors = " + ".join(f'efa("{label}")*{stem}{k}' for k in range(1, count + 1))
    return [f"  {factors} =~ {' + '.join(map(_written, names))}"]


def _saturated(names: Sequence[str]) -> list[str]:
    written = list(map(_written, names))
    return [f"  {name} ~~ {' + '.join(written[k:])}" for k, name in enumerate(written)]


def _written(name: str) -> str:
    return name if is_plain(name) else quote(name)


def _counts(given: Any) -> list[int]:
    several_ = [given] if isinstance(given, int) or hasattr(given, "__index__") else given
    if (
        isinstance(several_, str)
        or not isinstance(several_, Sequence | range | np.ndarray)
        or not len(several_)
    ):
        raise ArgumentError(
            f"nfactors is a number of factors, or several, by level at two levels; not {given!r}"
        )
    for one in several_:
        if isinstance(one, bool) or not hasattr(one, "__index__") or int(one) < 1:
            raise MsemError(
                f"nfactors must be whole numbers of at least 1, not {one!r}; a level without a model is left out"
            )
    return list(dict.fromkeys(int(one) for one in several_))


def _columns_of_clusters(cluster: Any) -> tuple[str, ...]:
    settings = Settings.read({"cluster": cluster})
    if settings.crossed:
        raise UnsupportedError(
            "efa analyses nested levels: for crossed clusters write the factors in a model for "
            'msem.sem, in each of its level: blocks efa("block")*f1 + efa("block")*f2 =~ y1 + y2 + ...'
        )
    return settings.cluster_columns


def _by_level(given: Any, name: str, nlevels: int) -> dict[int, Any]:
    if not isinstance(given, Mapping):
        return dict.fromkeys(range(1, nlevels + 1), given)
    if not given:
        raise ArgumentError(f"{name} is empty: give numbers by level, such as {{1: 2, 2: 1}}")
    return {level_number(level, nlevels): one for level, one in given.items()}


def _names(data: Any, variables: Any, options: Mapping[str, Any]) -> list[str]:
    if isinstance(variables, Mapping):
        raise ArgumentError("variables by level need an analysis of two levels: name the clusters, cluster=")
    if variables is not None:
        return list(several(variables))
    matrix = options.get("sample_cov")
    if isinstance(matrix, pd.DataFrame):
        return [str(name) for name in matrix.columns]
    known = what_is_given(data).known_variables
    return (
        [name for name in _columns(data) if name not in _used(options)] if known is None else [*known.names]
    )


def _columns(data: Any) -> list[str]:
    if data is None:
        raise DataError("efa needs data, or a covariance matrix in sample_cov=")
    require_rows_of_data(data)
    return numeric_columns(data)


def _used(options: Mapping[str, Any]) -> set[Any]:
    """Columns that say how rows were sampled and are no indicators."""
    kinds = ("weights", "psu", "strata", "fpc", "group")
    names_of = (several(options.get(kind) or ()) for kind in ("cluster_weights", "replicate_weights"))
    return {options.get(kind) for kind in kinds} | {name for names in names_of for name in names}


def _levels(
    data: Any, variables: Any, without: Collection[Any], columns: Sequence[str], nlevels: int
) -> list[list[str]]:
    """Variables of each level, level 1 first; by default all columns but those of clusters and `without`."""
    numbers = range(1, nlevels + 1)
    if isinstance(variables, Mapping):
        given = _by_level(variables, "variables", nlevels)
        if set(given) != set(numbers):
            raise ArgumentError(
                f"variables by level need every level: {{{', '.join(f'{level}: [...]' for level in numbers)}}}"
            )
        return [list(several(given[level])) for level in numbers]
    own_levels = what_is_given(data).known_variables
    if own_levels is None:
        require_rows_of_data(data)
        every = [name for name in numeric_columns(data) if name not in without]
        names = list(several(variables)) if variables is not None else every
        found = levels_of(data, columns, [name for name in names if name not in columns], Holes())
    known = [list(own) for own in (found if own_levels is None else own_levels.levels)]
    if variables is None:
        return known
    wanted = several(variables)
    unknown = [name for name in wanted if not any(name in own for own in known)]
    if unknown:
        raise DataError(f"{unknown[0]!r} is not among the variables {', '.join(known[-1])}")
    return [[name for name in wanted if name in own] for own in known]


def _require_bearable(
    names: Sequence[str], counts: Sequence[int], level: int, *, multilevel: bool, nlevels: int = 1
) -> None:
    most = most_factors(len(names))
    if max(counts) > most:
        where = level_place(level, nlevels) if multilevel else ""
        raise ModelError(
            f"{max(counts)} factors are too many for the {len(names)} variables{where} ({', '.join(names)}), which can "
            f"bear {most}: with m factors and p variables (p - m)^2 must be at least p + m"
        )
