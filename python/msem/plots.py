"""Plots of tables: one function for each, all with ``ax=``, all of which return the axes.

They need matplotlib, ``pip install 'msem[plot]'``, which is imported when one is called. Colours are told apart in grey
and by people who see red and green alike.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np

from msem.data.patterns import MissingPatterns, missing_patterns
from msem.distributions import normal_halfwidth
from msem.entry import entry, options_of
from msem.errors import ModelError
from msem.estimation.solution import Solution
from msem.fits.fit import Fit
from msem.fits.power import Power
from msem.fits.segregated import SegregatedFit
from msem.fits.synopsis import compare, named_fits
from msem.model.levels import BETWEEN, Level, level_number, level_title
from msem.names import unknown_name
from msem.pictures import canvas, forest, heatmap, interactions, lines, outliers
from msem.pictures.diagram import require_converged
from msem.postestimation.influence import Influence
from msem.postestimation.moderation import (
    Moderated,
    Values,
    centre_of,
    chosen_moderator,
    moderated,
    other_settings,
    settings,
)
from msem.postestimation.residuals import ResidualKind
from msem.postestimation.simple_slopes import derived_lines, derived_slopes
from msem.postestimation.simple_slopes import johnson_neyman as region_of
from msem.resampling.bootstrap import Bootstrap
from msem.resampling.intervals import IntervalKind
from msem.resampling.profile import Profile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "bootstrap",
    "caterpillar",
    "coefficients",
    "distances",
    "icc",
    "influence",
    "johnson_neyman",
    "level_fit",
    "missing",
    "power",
    "profile",
    "residuals",
    "simple_slopes",
]

SHOWN: dict[str, str] = {
    "cor": "Residual correlations",
    "cor.bollen": "Residual correlations",
    "cor.bentler": "Residuals in saturated standard deviations",
    "raw": "Residual covariances",
    "standardized": "Standardized residuals",
    "normalized": "Normalized residuals",
}


@entry
def coefficients(
    *fits: Any,
    ops: str | Collection[str] | None = ("=~", "~"),
    level: Level | None = None,
    ax: Axes | None = None,
    **named: Any,
) -> Axes:
    """Draw estimates with their intervals, those of several fits beside each other.

    Parameters
    ----------
    *fits, **named : fits
        One or several, as `msem.compare` takes them: ``coefficients(one=fit1, other=fit2)``.
    ops : collection of str, optional
        Rows to draw; None: all. Rows that no fit estimates are left out.
    level : {1, 2, "within", "between"}, optional
        Draw one level only.
    ax : matplotlib.axes.Axes, optional
        Default: those of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ModelError
        If something is not a fit, or a fit has not converged.
    DataError
        If there are more than six fits or 80 rows, or nothing is estimated among the rows.
    ExtraError
        Without matplotlib.

    Examples
    --------
    >>> import msem
    >>> model = "level: 1; fw =~ y1 + y2 + y3; level: 2; fb =~ y1 + y2 + y3"
    >>> fit = msem.sem(model, msem.load_demo(), cluster="cluster")
    >>> levels = msem.segregated(model, fit.saturated, method="ml")
    >>> ax = msem.plots.coefficients(separate=levels.naive, segregated=levels, simultaneous=fit)
    """
    given = named_fits("plots.coefficients", fits, named, options=options_of(coefficients))
    for fit in given.values():
        require_converged(getattr(fit, "converged", True))
    table = compare(given, columns=("est", "se", "ci_lower", "ci_upper"), ops=ops)
    if level is not None:
        nlevels = max(int(table.index.get_level_values("level").max()), BETWEEN)
        table = table[table.index.get_level_values("level") == level_number(level, nlevels)]
    labels = {tuple(getattr(fit, "group_labels", ())) for fit in given.values()}
    shared = labels.pop() if len(labels) == 1 else ()
    return forest.draw_coefficients(table, list(given), ax, "Estimate with 95% interval", shared)


@entry
def caterpillar(fit: Fit, name: str | None = None, *, ci_level: float = 0.95, ax: Axes | None = None) -> Axes:
    """Draw the scores of all clusters in order of size, with their posterior standard deviations.

    Parameters
    ----------
    fit : Fit
    name : str, optional
        A latent variable of a level of clusters (`Fit.factor_scores`), or a variable at both levels, whose between part
        is drawn, that of the highest level (`Fit.random_effects`). Default: the first latent variable, else the first
        variable.
    ci_level : float
        Coverage of the intervals, given the parameters.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ModelError
        If the model has one level, or no such variable.
    DataError
        If the fit knows no single clusters.
    """
    _require(fit, Fit, "caterpillar", "a fit")
    if not fit.table.multilevel:
        raise ModelError("a model of one level has no cluster scores to draw")
    require_converged(fit.converged)
    levels = {one: at for at in range(fit.table.nlevels, 1, -1) for one in fit.table.latent(at)}
    latent, both = sorted(levels, key=lambda one: levels[one]), fit.table.both
    name = next(iter((*latent, *both)), "") if name is None else name
    if name not in (*latent, *both):
        raise ModelError(f"{name!r} has no scores of clusters; there are {', '.join((*latent, *both))}")
    scores = fit.factor_scores(levels[name]) if name in latent else fit.random_effects()
    what = "" if name in latent else ", between part"
    label = f"{name}{what}: posterior mean, {ci_level:.0%} interval"
    return forest.draw_caterpillar(scores, name, normal_halfwidth(ci_level), label, ax)


@entry
def icc(fit: Fit, *, source: Literal["saturated", "model"] | None = None, ax: Axes | None = None) -> Axes:
    """Draw intraclass correlations with their intervals.

    Parameters
    ----------
    fit : Fit
    source : {"saturated", "model"}
        As of `Fit.icc_table`.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
    """
    _require(fit, Fit, "icc", "a fit")
    return forest.draw_icc(fit.icc_table(source=source), fit.group_labels, ax)


@entry
def level_fit(fit: Fit | SegregatedFit, *, ax: Axes | None = None) -> Axes:
    """Draw CFI, TLI, RMSEA and SRMR of each level, on a scale on which 0 is perfect.

    Parameters
    ----------
    fit : Fit or SegregatedFit
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
        With the cutoffs of Hu and Bentler (1999) as dotted lines. With a robust estimator CFI, TLI and RMSEA are the
        robust ones. SRMR belongs to a level: the whole model has none.

    Raises
    ------
    ModelError
        If the model has one level, or its levels share parameters.
    """
    _require(fit, (Fit, SegregatedFit), "level_fit", "a fit")
    require_converged(fit.converged)
    if isinstance(fit, SegregatedFit):
        found = {str(level).capitalize(): own for level, own in fit.fit_measures().items()}
    else:
        found = {
            level_title(level, fit.table.nlevels): fit.fit_measures(level=level)
            for level in range(fit.table.nlevels, 0, -1)
        }
        # the sum of the SRMR of all levels is none itself
        found["Whole model"] = fit.fit_measures().drop("srmr", errors="ignore")
    return forest.draw_level_fit(found, ax)


@entry
def residuals(
    fit: Fit,
    kind: ResidualKind = "cor",
    *,
    level: Level | None = None,
    group: str | None = None,
    ax: Any = None,
) -> Any:
    """Draw the residuals of each level as a heat map; those that differ from 0 at the 5% level are bold.

    Parameters
    ----------
    fit : Fit
    kind : {"cor", "cor.bollen", "cor.bentler", "standardized", "normalized", "raw"}
        As of `Fit.residuals`.
    level : {1, 2, "within", "between"}, optional
        Draw one level only.
    group : str, optional
        Label of the group; needed where there are several.
    ax : matplotlib.axes.Axes or sequence of them, optional
        One for each level, the between level first.

    Returns
    -------
    matplotlib.axes.Axes or ndarray of Axes
        Axes for one level, an array of them for two.
    """
    _require(fit, Fit, "residuals", "a fit")
    require_converged(fit.converged)
    table = fit.residuals(kind)
    table = table[table["group"] == _group_number(fit, group)]
    levels = sorted(table["level"].unique(), reverse=True) if level is None else [fit.table.level(level)]
    covariances = table[(table["op"] == "~~") & table["level"].isin(levels)]
    largest = float(covariances["residual"].abs().max())
    limit = max(largest, {"raw": 1e-8, "standardized": 2.5, "normalized": 2.5}.get(kind, 0.1))
    digits = 1 if kind in ("standardized", "normalized") else 2
    size = 1.3 + 0.34 * max(covariances.loc[covariances["level"] == one, "lhs"].nunique() for one in levels)
    with canvas.panels(ax, len(levels), size, size) as drawn:
        for one, number in zip(drawn, levels, strict=True):
            title = level_title(number, fit.table.nlevels)
            heatmap.draw_residuals(one, table[table["level"] == number], limit, digits, title)
            one.set_xlabel(f"{SHOWN[kind]}; bold: p < .05")
        return drawn[0] if len(drawn) == 1 else np.array(drawn, dtype=object)


@entry
def influence(found: Influence | Fit, by: str = "cook", *, named: int = 5, ax: Axes | None = None) -> Axes:
    """Draw the influence of every cluster on the estimates, in the order of the data.

    Parameters
    ----------
    found : Influence or Fit
        What `Fit.influence` gives; of a fit it is computed.
    by : str
        "cook", "displacement", or the name of a parameter, of which the change in standard errors is drawn.
    named : int
        How many of the largest get their name.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
    """
    _require(found, (Influence, Fit), "influence", "a fit, or what fit.influence() gives")
    known = found.influence(progress=False) if isinstance(found, Fit) else found
    if by in ("cook", "displacement"):
        values = known.measures[by]
        label = {"cook": "Cook's distance", "displacement": "Displacement"}[by]
    else:
        by = known.parameter(by)
        values, label = known.standardized[by], f"Change of {by} in standard errors"
    what = "Clusters" if known.measures.index.name is not None else "Units"
    return outliers.draw_index(values, label, what, named, ax)


@entry
def distances(
    fit: Fit, level: Level | None = None, *, kind: str = "qq", named: int = 5, ax: Axes | None = None
) -> Axes:
    """Draw Mahalanobis distances of clusters or units from the model.

    Parameters
    ----------
    fit : Fit
    level : {1, 2, "within", "between"}, optional
        As of `Fit.distances`.
    kind : {"qq", "index"}
        Quantiles against those that the model implies, with a band that holds 95% at each place; or p-values as
        -log10 in the order of the data.
    named : int
        How many of the farthest get their name.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
    """
    _require(fit, Fit, "distances", "a fit")
    if kind not in ("qq", "index"):
        raise ModelError(f"kind must be 'qq' or 'index', not {kind!r}")
    number = fit.table.nlevels if level is None else fit.table.level(level)
    pvalues = fit.distances(level)["pvalue"]
    what = "Clusters" if number == 2 else "Units"
    if kind == "qq":
        return outliers.draw_quantiles(pvalues, what, named, ax)
    return outliers.draw_index(
        -np.log10(pvalues.clip(lower=1e-300)), "−log10 p of the distance", what, named, ax
    )


@entry
def profile(found: Profile | Fit, name: str | None = None, *, ax: Axes | None = None) -> Axes:
    """Draw the profile of a parameter, with its interval and the parabola behind the Wald interval.

    Parameters
    ----------
    found : Profile or Fit
        What `Fit.profile` gives; of a fit it is computed, for one parameter.
    name : str, optional
        Which parameter, where there are several.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
        With the parabola if `found` is a fit.
    """
    _require(found, (Profile, Fit), "profile", "a fit, or what fit.profile() gives")
    se = np.nan
    if isinstance(found, Fit):
        if name is None:
            raise ModelError(f"name the parameter to profile, such as {found.params.index[0]!r}")
        fit, found = found, found.profile(name)
        se = float(fit.bse.get(found.curves[0].name, np.nan))
        curve = found.curves[0]
    else:
        chosen = _chosen([curve.name for curve in found.curves], name)
        curve = found.curves[chosen]
    return lines.draw_profile(curve, found.ci_level, se, ax, squares=found.squares)


@entry
def bootstrap(
    found: Bootstrap, name: str | None = None, *, kind: IntervalKind = "percentile", ax: Axes | None = None
) -> Axes:
    """Draw the bootstrap distribution of a statistic with its interval and the normal curve of the same error.

    Parameters
    ----------
    found : Bootstrap
        What `Fit.bootstrap` gives.
    name : str, optional
        Which statistic, where there are several.
    kind : {"percentile", "basic", "normal", "bca"}
        Of interval, as of `Bootstrap.conf_int`.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
    """
    _require(found, Bootstrap, "bootstrap", "what fit.bootstrap() gives")
    names = list(found.names)
    at = _chosen(names, name, found.target.find)
    lower, upper = found.conf_int(kind=kind).to_numpy(dtype=float)[at]
    return lines.draw_replicates(
        found.array[:, at], float(found.point[at]), (lower, upper), float(found.bse.iloc[at]), names[at], ax
    )


@entry
def power(
    found: Power,
    parameters: str | Sequence[str] | None = None,
    *,
    along: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw power against the number of clusters, or another setting of the design.

    Parameters
    ----------
    found : Power
        What `msem.power` gives.
    parameters : str or sequence of str, optional
        Names of parameters; default: all regressions, or all parameters where there are none.
    along : str, optional
        Setting from left to right; default: the first that has several values. There is a line for each combination of
        the other settings.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
        With simulation intervals of 95%, and a line at 0.8.
    """
    _require(found, Power, "power", "what msem.power() gives")
    settings = list(found.cells[0].labels)
    varied = [name for name in settings if len({cell.labels[name] for cell in found.cells}) > 1]
    along = next(iter((*varied, *settings)), None) if along is None else along
    if along not in settings:
        raise ModelError(f"the design has no setting {along!r}; it has {', '.join(settings) or 'none'}")
    names = list(found.fits(0).names)
    rows = found.parameters.assign(name=names * len(found.cells))
    if parameters is None:
        regressions = rows["op"] == "~"
        rows = rows[regressions] if regressions.any() else rows
    else:
        wanted = [parameters] if isinstance(parameters, str) else list(parameters)
        wanted = [names[_chosen(names, one)] for one in wanted]
        rows = rows[rows["name"].isin(wanted)]
    others = [name for name in varied if name != along]
    single = rows["name"].nunique() == 1 and bool(others)
    parts = [] if single else [rows["name"].astype(str)]
    parts += [f"{lines.SETTINGS.get(name, name)} " + rows[name].astype(str) for name in others]
    line = functools.reduce(lambda one, two: one + ", " + two, parts)
    of = f"of {rows['name'].iloc[0]} " if single else ""
    return lines.draw_power(
        rows.assign(line=line), list(dict.fromkeys(line)), along, f"{of}(α = {found.alpha:g})", ax
    )


@entry
def simple_slopes(
    fit: Fit,
    path: str,
    at: Mapping[str, Values] | None = None,
    *,
    values: tuple[float, float] | None = None,
    products: Mapping[str, str | Sequence[str]] | None = None,
    level: Level | None = None,
    ci_level: float = 0.95,
    ax: Axes | Sequence[Axes] | None = None,
) -> Axes | list[Axes]:
    """Draw an outcome against a predictor at values of what changes the slope, with confidence bands.

    Everything else is at its mean.

    Parameters
    ----------
    fit : Fit
    path : str
        ``"y ~ x"``.
    at : mapping of str to float or sequence of float, optional
        Values of moderators; default: mean and one standard deviation below and above it. See `Fit.simple_slopes`.
    values : (float, float), optional
        Least and greatest value of the predictor; default: two standard deviations about its mean.
    products : mapping of str to str or sequence of str, optional
        Columns that are products: ``{"x_w": "x*w"}``.
    level : {1, 2, "within", "between"}, optional
        Of the path.
    ci_level : float
        Coverage of the bands at single values.
    ax : matplotlib.axes.Axes or a sequence of them, optional
        One for each group.

    Returns
    -------
    matplotlib.axes.Axes, or a list of them

    Raises
    ------
    ModelError
        If there is no such path, nothing changes its slope, or the model has no means.
    DataError
        If there are more than six lines.
    ExtraError
        Without matplotlib.

    Examples
    --------
    >>> import msem
    >>> model = "level: 1; y1 ~ rv('s')*x1; level: 2; s ~ w1; y1 ~ w1; y1 ~~ s"
    >>> fit = msem.sem(model, msem.load_demo(), cluster="cluster")
    >>> ax = msem.plots.simple_slopes(fit, "y1 ~ x1", {"w1": [-1, 0, 1]})
    """
    require_converged(fit.converged)
    found = moderated(fit, path, products, level)
    pictures = []
    for one in found:
        if any(one.products[name].count(one.predictor) > 1 for name in one.own_products):
            raise ModelError(
                f"a product of {one.predictor!r} with itself has no straight line: see simple_slopes()"
            )
        place = one.places[one.predictor]
        mean = one.mean(one.predictor)
        ends = (mean - 2 * place.sd, mean + 2 * place.sd) if values is None else values
        grid = np.linspace(*ends, 61)
        held = settings(one, at)
        changing = [name for name in held[0] if len({each[name] for each in held}) > 1] or list(held[0])
        drawn = []
        for each in held:
            line = derived_lines(fit, one, each, grid)
            label = ", ".join(f"{name} = {interactions.signed(each[name])}" for name in changing)
            drawn.append(interactions.Line(label, grid, line.est, *line.interval(ci_level)))
        pictures.append((one, drawn))
    with canvas.panels(ax, len(found), 4.6, 3.5) as axes:
        for own, (one, drawn) in zip(axes, pictures, strict=True):
            interactions.draw_slopes(own, drawn, one.outcome, one.predictor, _panel_title(fit, one, found))
        interactions.share_scale(axes)
    return axes[0] if len(axes) == 1 else axes


@entry
def johnson_neyman(
    fit: Fit,
    path: str,
    moderator: str | None = None,
    at: Mapping[str, float] | None = None,
    *,
    values: tuple[float, float] | None = None,
    products: Mapping[str, str | Sequence[str]] | None = None,
    level: Level | None = None,
    alpha: float = 0.05,
    ax: Axes | Sequence[Axes] | None = None,
) -> Axes | list[Axes]:
    """Draw the slope of a path against what changes it, and where it differs from 0.

    Parameters
    ----------
    fit : Fit
    path : str
        ``"y ~ x"``.
    moderator : str, optional
        Needed where several variables change the slope.
    at : mapping of str to float, optional
        Values of the other moderators; default: their means.
    values : (float, float), optional
        Least and greatest value of the moderator; default: three standard deviations about its mean. Ticks on its axis
        are the mean and one standard deviation below and above it.
    products, level
        As in `simple_slopes`.
    alpha : float
        Of the tests at single values; the band has coverage 1 - alpha.
    ax : matplotlib.axes.Axes or a sequence of them, optional
        One for each group.

    Returns
    -------
    matplotlib.axes.Axes, or a list of them

    Raises
    ------
    ModelError
        If there is no such path or moderator, or the slope is not linear in it.
    ExtraError
        Without matplotlib.

    Examples
    --------
    >>> import msem
    >>> model = "level: 1; y1 ~ rv('s')*x1; level: 2; s ~ w1; y1 ~ w1; y1 ~~ s"
    >>> fit = msem.sem(model, msem.load_demo(), cluster="cluster")
    >>> ax = msem.plots.johnson_neyman(fit, "y1 ~ x1")
    """
    require_converged(fit.converged)
    found = moderated(fit, path, products, level)
    regions = region_of(fit, path, moderator, at, products=products, level=level, alpha=alpha)
    with canvas.panels(ax, len(found), 4.6, 3.4) as axes:
        for own, one, (_, region) in zip(axes, found, regions.iterrows(), strict=True):
            name = chosen_moderator(one, moderator)
            centre, sd = centre_of(one, name)
            grid = np.linspace(*((centre - 3 * sd, centre + 3 * sd) if values is None else values), 241)
            ends = [end for end in (region["lower"], region["upper"]) if grid[0] < end < grid[-1]]
            grid = np.sort([*grid, *ends])
            others = other_settings(one, name, at)
            slopes = derived_slopes(fit, one, [{**others, name: value} for value in grid.tolist()])
            line = interactions.Line("", grid, slopes.est, *slopes.interval(1 - alpha))
            marks = [centre + step * sd for step in (-1, 0, 1)] if name in one.places else []
            interactions.draw_region(
                own,
                line,
                (region["lower"], region["upper"]),
                region["significant"],
                [mark for mark in marks if grid[0] <= mark <= grid[-1]],
                (name, f"Slope of {one.outcome} on {one.predictor}"),
                _panel_title(fit, one, found),
            )
        interactions.share_scale(axes)
    return axes[0] if len(axes) == 1 else axes


def _panel_title(fit: Fit, one: Moderated, among: Sequence[Moderated]) -> str:
    """Group and level of a panel, where there are several."""
    parts = []
    if len({each.group for each in among}) > 1:
        parts.append(fit.group_labels[one.group - 1])
    if len({each.level for each in among}) > 1:
        parts.append(level_title(one.level, fit.table.nlevels))
    return ", ".join(parts)


@entry
def missing(data: Any, *, cluster: str | None = None, level: Level = 1, ax: Axes | None = None) -> Axes:
    """Draw the patterns of missing values, the most frequent first.

    Parameters
    ----------
    data : MissingPatterns or data frame
        What `msem.missing_patterns` gives, or the data.
    cluster : str, optional
        Column with the cluster ids, of a data frame.
    level : {1, 2, "within", "between"}
        Patterns of units or of clusters.
    ax : matplotlib.axes.Axes, optional

    Returns
    -------
    matplotlib.axes.Axes
    """
    found = data if isinstance(data, MissingPatterns) else missing_patterns(data, cluster=cluster)
    if level_number(level) == 1:
        return heatmap.draw_patterns(found.patterns, "units", ax)
    return heatmap.draw_patterns(found.cluster_patterns, "clusters", ax)


def _require(found: object, kinds: type | tuple[type, ...], function: str, what: str) -> None:
    if not isinstance(found, kinds):
        raise ModelError(f"plots.{function} takes {what}, not {type(found).__name__}")


def _group_number(fit: Solution, label: str | None) -> int:
    labels = fit.group_labels
    if label is None and len(labels) < 2:
        return 1
    if label is None or label not in labels:
        start = "the model has several groups" if label is None else f"there is no group {label!r}"
        raise ModelError(f"{start}: give group=, one of {', '.join(map(repr, labels)) or 'none'}")
    return labels.index(label) + 1


def _chosen(names: Sequence[str], name: str | None, find: Callable[[str], str] | None = None) -> int:
    """Position of a name among several; a formula may stand for the name, as in ``fit.params``."""
    if find is not None and name is not None and name not in names:
        with contextlib.suppress(ModelError):
            name = found if (found := find(name)) in names else name
    if name is None and len(names) == 1:
        return 0
    if name is not None and name not in names:
        bare = "".join(name.split())
        same = [one for one in names if bare in ("".join(one.split()), "".join(one.split(".l2")[0].split()))]
        name = same[0] if len(same) == 1 else name
    if name is None or name not in names:
        start = "there are several" if name is None else f"there is no {name!r}"
        raise ModelError(f"{start}: name one of {', '.join(map(repr, names))}")
    return list(names).index(name)


if not TYPE_CHECKING:

    def __getattr__(name: str) -> NoReturn:
        """Say which plots there are."""
        if name.startswith("_"):
            raise AttributeError(f"module 'msem.plots' has no attribute {name!r}")
        raise AttributeError(f"{unknown_name('msem.plots', name, __all__)}; plots are {', '.join(__all__)}")


def __dir__() -> list[str]:
    """Names that are completed: the plots."""
    return list(__all__)
