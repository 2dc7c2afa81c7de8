"""Probabilities of the categories of ordered variables that a model implies, given values of other variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.distributions import normal_cdf, normal_density
from msem.errors import DataError, ModelError, UnsupportedError
from msem.estimation.matrices import Numbers, row_values
from msem.estimation.solution import Solution, free_vcov
from msem.model.levels import WITHIN
from msem.model.slopes import Slope
from msem.postestimation.delta import delta_method
from msem.postestimation.ram import Structure, implied_mean, structures
from msem.settings import several

Floats = NDArray[np.float64]
Place = tuple[str, int]  # a variable and its level

CHUNK = 64  # conditions at once
SINGULAR = 1e-10  # eigenvalue of a correlation matrix of given variables that counts as 0
WIDTH = 8.0  # of the normal distribution, in standard deviations, for the logistic link
SPACING = 0.25


@dataclass(frozen=True, eq=False)
class Given:
    """Values that other variables are held at.

    Attributes
    ----------
    names : tuple of str
        As in the table.
    places : tuple of (str, int)
        Variable and level of each.
    array : ndarray, shape (conditions, names)
    index : Index or None
        Of the conditions, if they have one that says something.
    """

    names: tuple[str, ...]
    places: tuple[Place, ...]
    array: Floats
    index: pd.Index | None = None


def category_probabilities(
    fit: Solution,
    at: Mapping[str, Any] | pd.DataFrame | None = None,
    *,
    variables: str | Sequence[str] | None = None,
    se: bool = True,
    ci_level: float = 0.95,
) -> pd.DataFrame:
    """Probabilities of the categories of ordered variables that the model implies.

    Of units of any cluster, unless what is given says which: values of covariates, of latent variables, of parts of
    clusters or of other outcomes. What is not given is integrated over; fixed covariates are at their sample means
    unless they are given. With what is given the variable y* that is cut is normal with mean m and variance v, and
    P(y <= k) is Phi((tau_k - m) / sqrt v); with ``link="logit"`` the mean of the logistic function over a normal
    distribution, by the trapezoid rule.

    Parameters
    ----------
    at : mapping of str to float or sequence of float, or DataFrame, optional
        Values by name: ``{"x1": [0, 1], "fb": 0.5}``. Names of one level, or with ``.l1``, ``.l2`` where several have
        them (without, that of the lowest level). Sequences are of one length; a frame has a row for each condition, as
        ``fit.factor_scores(2, se=False)`` has for each cluster. Columns of a frame that are no variables of the model,
        such as ids, and the ordered variables themselves are left aside.
    variables : str or sequence of str, optional
        Ordered variables; default: all.
    se : bool
        Add standard errors (delta method) and intervals, which are symmetric on the logit scale.
    ci_level : float
        Coverage of the intervals.

    Returns
    -------
    DataFrame
        Columns: the index of `at` if that is a frame with a named one, what was given, lhs (the variable), group,
        category, est; se, ci_lower, ci_upper. Probabilities given nan are nan.

    Raises
    ------
    ModelError
        If no variable is ordered, or a name is unknown.
    DataError
        If values have different lengths, are no numbers, or given variables determine each other.
    UnsupportedError
        With random slopes of latent covariates.

    Examples
    --------
    >>> import msem, numpy as np
    >>> data = msem.load_demo()
    >>> data["u1"] = np.digitize(data["y1"], [-0.8, 0.7])
    >>> fit = msem.sem("f =~ u1 + y2 + y3", data, ordered=["u1"])
    >>> fit.category_probabilities({"f": [-1, 1]})["est"].round(2).tolist()
    [0.68, 0.31, 0.02, 0.03, 0.36, 0.61]
    """
    known = {name for s in fit.sample.statistics for name in s.ordered}
    if not known:
        raise ModelError(
            "no variable of the model is ordered, so there are no categories: predict() has means"
        )
    wanted = [name for name in fit.table.variables.names if name in known]
    if variables is not None:
        odd = next((name for name in several(variables) if name not in known), None)
        if odd is not None:
            raise ModelError(f"{odd!r} is not ordered; these are: {', '.join(wanted)}")
        wanted = list(several(variables))
    given = _given(fit, at)
    frames = []
    for group, sample in enumerate(fit.sample.groups, 1):
        labels = sample.statistics.labels
        own = [name for name in wanted if name in labels]
        model = _Conditional(fit, group, own, given)
        for first in range(0, len(given.array), CHUNK):
            frames.append(_table(fit, model, given, labels, first, se=se, ci_level=ci_level))
    out = pd.concat(frames, ignore_index=True)
    return out if se else out.drop(columns=["se", "ci_lower", "ci_upper"])


def _table(
    fit: Solution,
    model: _Conditional,
    given: Given,
    labels: Mapping[str, Sequence[Any]],
    first: int,
    *,
    se: bool,
    ci_level: float,
) -> pd.DataFrame:
    """Rows of some conditions from the first on."""
    some = given.array[first : first + CHUNK]
    if se:
        found = delta_method(lambda theta: model.probabilities(theta, some), fit.theta, free_vcov(fit))
        est, errors = found.est, found.se
        lower, upper = found.interval(ci_level, "logit")
    else:
        est = np.asarray(model.probabilities(fit.theta, some), dtype=np.float64)
        errors = lower = upper = np.full(len(est), np.nan)
    each = sum(len(labels[name]) for name in model.names)
    columns: dict[str, Any] = {}
    if given.index is not None:
        for k, name in enumerate(given.index.names):
            columns[str(name)] = given.index.get_level_values(k)[first : first + CHUNK].repeat(each)
    for k, name in enumerate(given.names):
        columns[name] = np.repeat(some[:, k], each)
    columns["lhs"] = [name for name in model.names for _ in labels[name]] * len(some)
    columns["group"] = model.group
    columns["category"] = [label for name in model.names for label in labels[name]] * len(some)
    return pd.DataFrame({**columns, "est": est, "se": errors, "ci_lower": lower, "ci_upper": upper})


def _given(fit: Solution, at: Mapping[str, Any] | pd.DataFrame | None) -> Given:
    """Read what is given."""
    if at is None:
        return Given((), (), np.zeros((1, 0)))
    if not isinstance(at, Mapping | pd.DataFrame):
        raise DataError(f'at= has values by name, such as {{"x1": [0, 1]}}, or is a data frame, not {at!r}')
    if isinstance(at, pd.DataFrame):
        at = at[[name for name in at if _is_given(fit, str(name))] or list(at)]
    names = tuple(map(str, at))
    places = tuple(_place(fit, name) for name in names)
    for k, place in enumerate(places):
        if place in places[:k]:
            raise DataError(
                f"{names[places.index(place)]!r} and {names[k]!r} are one variable of level {place[1]}"
            )
    index = None
    if isinstance(at, pd.DataFrame):
        columns = [at[name] for name in at]
        if any(name is not None for name in at.index.names):
            index = at.index
    else:
        columns = list(at.values())
    arrays = []
    for name, column in zip(names, columns, strict=True):
        try:
            arrays.append(np.atleast_1d(np.asarray(column, dtype=np.float64)))
        except (TypeError, ValueError):
            raise DataError(f"values of {name!r} are no numbers: {column!r}") from None
        if arrays[-1].ndim > 1:
            raise DataError(f"values of {name!r} are one number or a sequence of numbers")
        if not arrays[-1].size:
            raise DataError(f"there are no values of {name!r}")
    count = max((len(column) for column in arrays), default=1)
    odd = next((n for n, column in zip(names, arrays, strict=True) if len(column) not in (1, count)), None)
    if odd is not None:
        raise DataError(f"{odd!r} has {len(arrays[names.index(odd)])} values and another variable {count}")
    values = np.column_stack([np.broadcast_to(a, count) for a in arrays]) if arrays else np.zeros((count, 0))
    return Given(names, places, values, index)


def _levels(fit: Solution) -> dict[str, list[int]]:
    """Levels of each variable of the model."""
    levels: dict[str, list[int]] = {}
    for block in fit.model.blocks:
        for own in block.names:
            if block.level not in levels.setdefault(own, []):
                levels[own].append(block.level)
    return levels


def _is_given(fit: Solution, column: str) -> bool:
    """Whether a column of a frame is something given, rather than an ordered variable or none of the model."""
    levels, ordered = _levels(fit), fit.table.ordered.thresholds
    stem, dot, digits = column.rpartition(".l")
    if dot and digits.isdigit() and int(digits) in levels.get(stem, ()):
        return stem not in ordered or int(digits) > min(levels[stem])
    return column in levels and column not in ordered


def _place(fit: Solution, name: str) -> Place:
    """Variable and level that a name of something given means."""
    levels = _levels(fit)
    stem, dot, digits = name.rpartition(".l")
    suffix = bool(dot) and digits.isdigit() and int(digits) in levels.get(stem, ())
    if name not in levels and not suffix:
        raise ModelError(f"{name!r} is no variable of the model; it has {', '.join(levels)}")
    found = (name, min(levels[name])) if name in levels else (stem, int(digits))
    own_levels, observed = levels[found[0]], found[0] in fit.table.variables.names
    if observed and len(own_levels) > 1 and name in levels:
        raise ModelError(
            f"{name!r} stands at several levels, and a value is that of a part: say "
            + " or ".join(f"{name}.l{level}" for level in own_levels)
        )
    if found[0] in fit.table.ordered.thresholds and found[1] == min(own_levels):
        raise ModelError(
            f"{name!r} is ordered itself: given are covariates, latent variables and parts of clusters"
        )
    return found


class _Conditional:
    """The distribution of ordered variables of one group given other variables.

    Parameters
    ----------
    fit : Solution
    group : int
    names : sequence of str
        Ordered variables.
    given : Given
    """

    def __init__(self, fit: Solution, group: int, names: Sequence[str], given: Given) -> None:
        self.model, self.group, self.names = fit.model, group, tuple(names)
        self.blocks = {block.level: block for block in fit.model.blocks if block.group == group}
        table = fit.table
        self.slopes: tuple[Slope, ...] = table.slopes(group)
        self.residual = table.ordered.residual if table.ordered.residual != 1.0 else 0.0
        self.places = list(given.places)
        self.fixed = [
            (name, level)
            for level in self.blocks
            for name in table.exogenous(level, group)
            if (name, level) not in given.places
        ]
        for slope in self.slopes:
            if slope.covariate not in self.blocks[WITHIN].names[: self.blocks[WITHIN].nobserved]:
                raise UnsupportedError(
                    f"{slope.covariate!r} has the random slope {slope.name!r} and is latent: probabilities of the "
                    "categories are not available in this version"
                )
            if (slope.covariate, WITHIN) not in [*self.places, *self.fixed]:
                raise DataError(
                    f"{slope.covariate!r} has the random slope {slope.name!r}: give its value, "
                    f'{{"{slope.covariate}": ...}}'
                )

    def probabilities(self, theta: Numbers, values: Floats) -> Numbers:
        """Of all categories, variable by variable, condition by condition; shape (..., conditions * categories)."""
        rows = row_values(self.model.table, theta)
        blocks = {k: s for (k, group), s in structures(self.model, theta).items() if group == self.group}
        count, shape = len(values), theta.shape[:-1]
        mean = np.zeros((*shape, count, len(self.names)), theta.dtype)
        variance = np.zeros_like(mean)
        extra = np.zeros((*shape, count, len(self.names), len(self.slopes)), theta.dtype)
        for level, block in sorted(self.blocks.items()):
            own = blocks[level]
            plain = Structure(own.names, own.paths, own.residual)
            centre = implied_mean(block, plain, rows)
            held = [k for k, (_, where) in enumerate(self.places) if where == level]
            held_names = [self.places[k][0] for k in held]
            fixed = [name for name, where in self.fixed if where == level]
            at = [plain.at[name] for name in (*held_names, *fixed)]
            deviation = values[:, held] - centre[..., None, at[: len(held)]]
            deviation = np.concatenate([deviation, np.zeros((*shape, count, len(fixed)))], axis=-1)
            # reach: of each ordered variable in each condition from the variables of this level
            reach = np.zeros((*shape, count, len(self.names), len(plain.names)), theta.dtype)
            for i, name in enumerate(self.names):
                if name in plain.at:
                    reach[..., i, plain.at[name]] = 1.0
            if level == WITHIN and self.slopes:
                extra = self._products(plain, centre, values)
            if level > WITHIN:
                for k, slope in enumerate(self.slopes):
                    if level in slope.at:
                        reach[..., plain.at[slope.name]] += extra[..., k]
            cov = plain.cov
            paths, left = self._regressed(cov, at, plain.names)
            expected = np.einsum("...ij,...cj->...ci", paths, deviation)
            base = np.zeros((*shape, len(self.names)), theta.dtype)
            for i, name in enumerate(self.names):
                if name in plain.at:
                    base[..., i] = centre[..., plain.at[name]]
            mean += base[..., None, :] + np.einsum("...cvi,...ci->...cv", reach, expected)
            variance += np.einsum("...cvi,...ij,...cvj->...cv", reach, left, reach)
        return self._categories(rows, mean, variance)

    def _products(self, plain: Structure, centre: Numbers, values: Floats) -> Numbers:
        """What a unit of each slope adds to each ordered variable, shape (..., conditions, variables, slopes)."""
        out = []
        for slope in self.slopes:
            place = slope.covariate, WITHIN
            x = (
                values[:, self.places.index(place)]
                if place in self.places
                else centre[..., None, plain.at[slope.covariate]]
            )
            effects = plain.total[..., [plain.at[name] for name in slope.outcomes]].sum(axis=-1)
            own = np.stack(
                [
                    effects[..., plain.at[name]] if name in plain.at else 0 * effects[..., 0]
                    for name in self.names
                ],
                -1,
            )
            out.append(x[..., :, None] * own[..., None, :])
        return np.stack(out, axis=-1)

    def _regressed(self, cov: Numbers, at: Sequence[int], names: Sequence[str]) -> tuple[Numbers, Numbers]:
        """Regression of all variables of a level on given ones, and the covariance matrix that it leaves."""
        if not at:
            return np.zeros((*cov.shape[:-1], 0), cov.dtype), cov
        inner, across = cov[..., at, :][..., at], cov[..., at]
        first = inner.real.reshape(-1, len(at), len(at))[0]
        sd = np.sqrt(np.maximum(first.diagonal(), 0.0))
        if not (sd > 0).all() or np.linalg.eigvalsh(first / np.outer(sd, sd))[0] < SINGULAR:
            raise DataError(
                f"{', '.join(names[k] for k in at)} determine each other in the model, so that not all of them can be "
                "given: leave one out"
            )
        paths = np.swapaxes(np.linalg.solve(inner, np.swapaxes(across, -1, -2)), -1, -2)
        return paths, cov - paths @ np.swapaxes(across, -1, -2)

    def _categories(self, rows: Numbers, mean: Numbers, variance: Numbers) -> Numbers:
        out = []
        for i, name in enumerate(self.names):
            cuts = [
                (int(cut[1:]), rows[..., k])
                for block in self.blocks.values()
                for (of, cut), k in zip(block.thresholds, block.threshold_rows, strict=True)
                if of == name
            ]
            tau = np.stack([cut for _, cut in sorted(cuts, key=lambda one: one[0])], axis=-1)
            below = self._below(tau[..., None, :] - mean[..., i, None], variance[..., i, None])
            ends = np.zeros((*below.shape[:-1], 1), below.dtype)
            out.append(np.diff(np.concatenate([ends, below, ends + 1], axis=-1), axis=-1))
        every = np.concatenate(out, axis=-1)
        return every.reshape(*every.shape[:-2], -1)

    def _below(self, distance: Numbers, variance: Numbers) -> Numbers:
        """P(y* <= mean + distance)."""
        if not self.residual:
            deviation = np.sqrt(np.where(variance.real > 0, variance, np.nan))
            return _first_order(distance / deviation, normal_cdf, normal_density)
        normal = np.sqrt(np.maximum(variance.real - self.residual, 1e-300)) * np.ones_like(variance)
        if np.iscomplexobj(variance):
            normal = normal + 1j * variance.imag / (2 * normal.real)
        widest = float(np.nanmax(normal.real, initial=1.0))
        count = int(np.ceil(2 * WIDTH / min(SPACING, 1 / widest))) + 1
        nodes = np.linspace(-WIDTH, WIDTH, count)
        weights = normal_density(nodes)
        weights /= weights.sum()
        out: Numbers = np.zeros(np.broadcast_shapes(distance.shape, normal.shape), distance.dtype)
        for node, weight in zip(nodes, weights, strict=True):
            out += weight * _first_order(distance - normal * node, _logistic, _logistic_density)
        return out


def _first_order(z: Numbers, cdf: Any, density: Any) -> Numbers:
    """A distribution function at z, complex for a derivative by a step that is."""
    value = cdf(z.real)
    out: Numbers = value + 1j * z.imag * density(z.real) if np.iscomplexobj(z) else value
    return out


def _logistic(z: Floats) -> Floats:
    out: Floats = 0.5 * (1 + np.tanh(0.5 * z))
    return out


def _logistic_density(z: Floats) -> Floats:
    out: Floats = 0.25 / np.cosh(np.clip(0.5 * z, -350, 350)) ** 2
    return out
