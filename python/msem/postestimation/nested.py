"""Whether one model contains another, and where: what tests of nested models rest on.

A model is nested in a larger one if the larger one can have the moments that the smaller one implies. So the larger
model is fitted to those moments: the discrepancy must vanish (Bentler & Satorra, 2010). That point also gives the
restriction in the coordinates of the larger model, whatever the parametrization of the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msem.data.arrays import vech_index
from msem.data.sample import Group, Sample
from msem.data.statistics import Statistics
from msem.errors import DataError, ModelError
from msem.estimation.estimate import Estimate, estimate
from msem.estimation.objective import Objective, build_objective
from msem.estimation.optimize import minimize
from msem.model.partable import Parameter, ParameterTable
from msem.model.references import Key, key_of
from msem.postestimation.reduced_form import reduced_form, reduced_keys
from msem.postestimation.slope_nesting import SlopeSpace

Floats = NDArray[np.float64]

ATTAINED = (
    1e-3  # discrepancy in units of chi-square up to which the moments of the smaller model are attained
)
INDEPENDENT = 1e-7  # relative singular value of linearly independent directions
INSIDE = 1e-4  # relative length of a tangent of the smaller model outside those of the larger one


@dataclass(frozen=True, eq=False)
class Embedding:
    """The estimates of a smaller model in the coordinates of a larger one.

    Attributes
    ----------
    theta : ndarray, shape (npar,)
        Parameters of the larger model that give the moments of the smaller one.
    discrepancy : float
        Chi-square of the larger model against those moments; 0 if it contains the smaller one.
    outside : float
        Relative length of the part of the tangents of the smaller model that lies outside the larger one.
    """

    theta: Floats
    discrepancy: float
    outside: float

    @property
    def nested(self) -> bool:
        """Whether the larger model contains the smaller one, at its estimates and next to them."""
        return self.discrepancy < ATTAINED and self.outside < INSIDE


def embed(small: Estimate, large: Estimate) -> Embedding:
    """Look for a smaller model in a larger one of the same variables.

    Parameters
    ----------
    small, large : Estimate

    Returns
    -------
    Embedding
    """
    if _without_moments(small, large):
        return _embed_slopes(small, large)
    if _integrates(small, large):
        return _embed_reduced(small, large)
    mine = [implied_statistics(small, g) for g in range(1, len(small.objective.statistics) + 1)]
    theirs = [
        own.with_variables(s.variables) for own, s in zip(mine, large.objective.statistics, strict=True)
    ]
    least = build_objective(small.table, mine).core.value(small.theta)
    objective = build_objective(large.table, theirs)
    found = minimize(objective, large.theta)
    theta, value = found.theta, found.value
    if value - least > ATTAINED:
        groups = tuple(Group(s, label=str(g)) for g, s in enumerate(theirs, 1))
        again = estimate(large.table, Sample(groups))
        if again.optimum.value < value:
            theta, value = again.theta, again.optimum.value
    return Embedding(
        theta, max(value - least, 0.0), directions(small, large, theta, large.unbounded_tangent)[1]
    )


def _embed_reduced(small: Estimate, large: Estimate) -> Embedding:
    """The same for models of ordered variables, by what the data would tell of them."""
    keys = reduced_keys(large, small)
    values = reduced_form(small, keys).implied(small.theta)
    objective = reduced_form(large, keys, values).objective
    starts = (
        large.theta,
        np.where(np.any(large.tangent != 0, axis=1), _by_rows(small, large)[0], large.theta),
    )
    best: tuple[float, Floats] = (np.inf, large.theta)
    for start in starts:
        found = minimize(objective, start)
        if found.value < best[0]:
            best = found.value, found.theta
        if best[0] < ATTAINED:
            break
    value, theta = best
    return Embedding(theta, max(value, 0.0), directions(small, large, theta, large.unbounded_tangent)[1])


def _embed_slopes(small: Estimate, large: Estimate) -> Embedding:
    """The same by the rows of the tables, or by the moments of the saturated model, of slopes if there are any."""
    if not large.table.constraints and rows_agree(small.table, large.table):
        return Embedding(_by_rows(small, large)[0], 0.0, 0.0)
    space = SlopeSpace.of(small, large)
    if space is None:
        return Embedding(large.theta, np.inf, 0.0)
    target, _ = space.moments(small.objective, small.theta)
    starts = [large.theta] if large.table.constraints else [large.theta, _by_rows(small, large)[0]]
    value, theta = min((space.nearest(target, large, start) for start in starts), key=lambda found: found[0])
    units = sum(s.nobs for s in large.objective.statistics)
    return Embedding(theta, units * value, directions(small, large, theta, large.unbounded_tangent)[1])


def rows_agree(small: ParameterTable, large: ParameterTable) -> bool:
    """Whether the rows of the parameter tables say that one model contains another.

    A path that is random in the larger model and not in the smaller one is a slope without variance, whose mean it is.

    That suffices: whatever the larger model fixes is fixed at the same value in the smaller one, what only one of them
    has a row for being 0 in the other, and what the larger one shares is shared.
    """
    rows = {_place(row): row for row in large.rows}
    ours = _beside(small, large)
    shared: dict[int, set[tuple[int, float]]] = {}
    for place in rows.keys() | ours.keys():
        one, two = ours.get(place), rows.get(place)
        value = 0.0 if two is None else two.value
        mine = 0.0 if one is None else one.value
        if two is not None and (two.free or (two.exo and one is not None and one.exo)):
            # moments of fixed covariates are those of the sample
            free = 0 if one is None else one.free
            shared.setdefault(two.free, set()).add((free, 0.0 if free or two.exo else mine))
            continue
        slopes = {"" if row is None else row.slope for row in (one, two)}
        if (
            (one is not None and one.free)
            or not np.isclose(mine, value, rtol=1e-12, atol=0)
            or len(slopes) > 1
        ):
            return False
    return all(len(own) == 1 for free, own in shared.items() if free)


def vanishing(small: Estimate, large: Estimate) -> tuple[str, ...]:
    """Variances that a smaller model has at 0, and a larger one where they cannot be negative.

    Those of slopes that are integrated over, and of what crossed classifications have.
    """
    ours, found = _beside(small.table, large.table), []
    for row in large.table.rows:
        if not row.free or row.op != "~~" or row.lhs != row.rhs:
            continue
        integrated = large.objective.statistics[row.group - 1].nodes > 0 and row.lhs in {
            slope.name for slope in large.table.slopes(row.group)
        }
        if not integrated and not (large.table.crossed and row.level > 1):
            continue
        mine = ours.get(_place(row))
        if mine is None or (not mine.free and mine.value == 0):
            found.append(large.table.names()[row.free - 1])
    return tuple(dict.fromkeys(found))


def _by_rows(small: Estimate, large: Estimate) -> tuple[Floats, Floats]:
    """Parameters of the larger model that are those of the smaller one, and their derivatives, by rows."""
    ours = _beside(small.table, large.table)
    theta, jacobian = np.zeros(large.table.npar), np.zeros((large.table.npar, small.table.npar))
    for row in large.table.rows:
        mine = ours.get(_place(row))
        if not row.free or mine is None:
            continue
        if mine.free:
            theta[row.free - 1] = small.theta[mine.free - 1]
            jacobian[row.free - 1, mine.free - 1] = 1
        else:
            theta[row.free - 1] = mine.value
    return theta, jacobian


def _beside(small: ParameterTable, large: ParameterTable) -> dict[tuple[Key, int, int], Parameter]:
    """Rows of the smaller model by their places in the larger one; paths that are slopes there are means of these."""
    ours = {_place(row): row for row in small.rows}
    means: dict[tuple[Key, int, int], Parameter] = {}
    for group in range(1, large.ngroups + 1):
        at = {slope.name: max(slope.at) for slope in large.slopes(group)}
        for row in large.rows:
            if not row.slope or row.group != group:
                continue
            mine = ours.get(_place(row))
            if mine is not None and mine.slope:
                continue
            fixed = row._replace(slope="", free=0, value=0.0) if mine is None else mine
            mean = fixed._replace(lhs=row.slope, op="~1", rhs="", level=at[row.slope])
            known = means.setdefault(_place(mean), mean)
            if known.free == mean.free and (mean.free or known.value == mean.value):
                ours[_place(row)] = row  # otherwise paths differ that have one slope in the larger model
    return means | ours


def _without_moments(*fits: Estimate) -> bool:
    """Whether no statistics stand for implied moments: with random slopes, and in crossed classifications."""
    return any(fit.table.crossed for fit in fits) or any(
        fit.table.slopes(group) for fit in fits for group in range(1, fit.table.ngroups + 1)
    )


def _integrates(*fits: Estimate) -> bool:
    """Whether the likelihoods are those of ordered variables."""
    return any(s.integral is not None for fit in fits for s in fit.objective.statistics)


def _place(row: Parameter) -> tuple[Key, int, int]:
    return key_of(row.lhs, row.op, row.rhs), row.level, row.group


def implied_statistics(fit: Estimate, group: int) -> Statistics:
    """The complete statistics one would expect of a group if the model were true at its estimates."""
    s = fit.objective.statistics[group - 1]
    moments = {level: m.observed for level, m in fit.objective.moments(fit.theta, group).items()}
    return s.expected(moments, s.variables, "model")


def directions(
    small: Estimate, large: Estimate, theta: Floats, tangent: Floats | None = None
) -> tuple[Floats, float]:
    """Directions of the smaller model in coordinates of the larger one, by projection of its tangents.

    Parameters
    ----------
    small, large : Estimate
    theta : ndarray, shape (npar,)
        Where the tangents of the larger model are taken. Away from `Embedding.theta` those of the smaller model lie
        inside asymptotically only; the projection, in standardized moments, is the same for every parametrization.
    tangent : ndarray, shape (npar, k), optional
        Directions of the larger model, by default those in which its estimates were free to move.

    Returns
    -------
    directions : ndarray, shape (npar, m)
        Linearly independent.
    outside : float
        Relative length of the part of the tangents that was projected away.
    """
    tangent = large.tangent if tangent is None else tangent
    if _without_moments(small, large):
        space = SlopeSpace.of(small, large)
        if space is None:
            return _by_rows(small, large)[1] @ small.tangent, 0.0
        inner = space.moments(small.objective, small.theta)[1] @ small.tangent
        outer = space.moments(large.objective, theta)[1] @ tangent
    elif _integrates(small, large):
        keys = reduced_keys(large, small)
        inner = reduced_form(small, keys).jacobian(small.theta) @ small.tangent
        outer = reduced_form(large, keys).jacobian(theta) @ tangent
    else:
        orders = large.objective.statistics
        inner = _moment_jacobian(small.objective, small.theta, orders) @ small.tangent
        outer = _moment_jacobian(large.objective, theta, orders) @ tangent
    inner, _ = _scaled(inner)
    outer, scale = _scaled(outer)
    solution = np.linalg.lstsq(outer, inner, rcond=1e-9)[0]
    outside = float(np.linalg.norm(inner - outer @ solution, axis=0).max(initial=0.0))
    # independent in units of the moments: in those of the parameters it would depend on how variables are measured
    left, singular, _ = np.linalg.svd(solution, full_matrices=False)
    return tangent @ _scaled(scale[:, None] * left[:, singular > INDEPENDENT])[0], outside


def _scaled(columns: Floats) -> tuple[Floats, Floats]:
    """Columns of length 1, and what they were multiplied by; columns of zeros stay."""
    norm = np.linalg.norm(columns, axis=0)
    scale = np.divide(1.0, norm, out=np.zeros_like(norm), where=norm > 0)
    return columns * scale, scale


def _moment_jacobian(objective: Objective, theta: Floats, orders: Sequence[Statistics]) -> Floats:
    """Derivatives of all identified moments, variables in the order of `orders`, in units of their deviations."""
    return np.concatenate(
        [
            rows
            for group, order in enumerate(orders, 1)
            for rows in _group_rows(objective, theta, group, order)
        ]
    )


def _group_rows(objective: Objective, theta: Floats, group: int, order: Statistics) -> Iterator[Floats]:
    """Covariances of each level, then means: of a variable at both levels only their sum is identified."""
    moments = objective.moments(theta, group)
    variance: dict[str, float] = {}
    for m in moments.values():
        for name, value in m.observed.variances.items():
            variance[name] = variance.get(name, 0.0) + value
    means = dict.fromkeys(order.names, np.zeros(len(theta)))
    for i, block in enumerate(objective.blocks):
        if block.group != group:
            continue
        jacobian, n = objective.core.jacobian(theta, i), block.nobserved
        names = order.variables.levels[block.level - 1]
        at = [block.names.index(name) for name in names]
        unit = np.sqrt([variance[name] for name in names])
        for name, k, scale in zip(names, at, unit, strict=True):
            means[name] = means[name] + jacobian[k] / scale
        row, col = vech_index(n)
        where = np.empty((n, n), dtype=np.intp)
        where[row, col] = where[col, row] = n + np.arange(len(row))
        scales = np.outer(unit, unit)[row, col]
        yield jacobian[where[np.ix_(at, at)][row, col]] / scales[:, None]
    yield np.array(list(means.values()))


def require_comparable(one: Estimate, two: Estimate, names: tuple[str, str]) -> None:
    """Refuse to compare fits of different data, variables or covariates.

    Parameters
    ----------
    one, two : Estimate
    names : tuple of str
        What the fits are called in messages.

    Raises
    ------
    DataError
        Naming what differs: variables, their levels, groups, numbers of units or clusters, values.
    ModelError
        When the likelihoods condition on different covariates, or only one has means.
    """
    first, second = names
    if len(one.objective.statistics) != len(two.objective.statistics):
        raise DataError(f"{first} and {second} have different numbers of groups")
    if one.table.nlevels != two.table.nlevels:
        raise DataError(f"{first} and {second} have different numbers of levels")
    for a, b in zip(one.objective.statistics, two.objective.statistics, strict=True):
        _require_same_variables(a, b, names)
    # before the data: those of a model without means are centred
    if one.table.meanstructure != two.table.meanstructure:
        raise ModelError(f"only one of {first} and {second} has means: fit both with meanstructure=True")
    for a, b in zip(one.objective.statistics, two.objective.statistics, strict=True):
        _require_same_data(a, b, names)
    _require_same_covariates(one, two, names)


def _require_same_variables(a: Statistics, b: Statistics, names: tuple[str, str]) -> None:
    first, second = names
    mine, theirs = a.variables.places, b.variables.places
    for name in dict.fromkeys([*mine, *theirs]):
        if name not in mine or name not in theirs:
            having, lacking = (first, second) if name in mine else (second, first)
            raise DataError(
                f"{having} has the variable '{name}' and {lacking} does not: likelihoods can be compared for the same "
                f"variables only; keep '{name}' in the model with its parameters fixed at 0, as in 'y ~ 0*{name}'"
            )
        if mine[name] != theirs[name]:
            raise DataError(
                f"'{name}' is {mine[name]} in {first} and {theirs[name]} in {second}: write it at the same levels in "
                f"both, with a variance fixed at 0 where it has none, as in '{name} ~~ 0*{name}'"
            )


def _require_same_data(a: Statistics, b: Statistics, names: tuple[str, str]) -> None:
    first, second = names
    counts = [("units", a.nobs, b.nobs)] + ([("clusters", a.nclusters, b.nclusters)] if a.unit else [])
    for what, one, two in counts:
        if one != two:
            raise DataError(
                f"{first} and {second} were fitted to different data: {one:g} and {two:g} {what}; rows with "
                "missing values may have been dropped for one of them"
            )
    if not (np.array_equal(a.sizes, b.sizes) and np.array_equal(a.counts, b.counts)):
        raise DataError(
            f"{first} and {second} were fitted to different data: the sizes of their clusters differ"
        )
    different = f"{first} and {second} were fitted to different data: "
    if a.complete != b.complete:
        raise DataError(f"{different}only one of them has values missing")
    mine, theirs = _plain(a), _plain(b)
    difference = mine.difference(theirs.with_variables(mine.variables))
    if difference:
        raise DataError(different + difference)


def _plain(s: Any) -> Statistics:
    """Those of the same data for a model without random slopes."""
    plain: Statistics = s.plain if s.slopes else s
    return plain


def _require_same_covariates(one: Estimate, two: Estimate, names: tuple[str, str]) -> None:
    """Moments that come from the sample in one model and are estimated in the other do not count alike."""
    for group in range(1, one.table.ngroups + 1):
        for level in range(1, one.table.nlevels + 1):
            fixed = [set(fit.table.exogenous(level, group)) for fit in (one, two)]
            for name in sorted(fixed[0] ^ fixed[1]):
                having, lacking = names if name in fixed[0] else names[::-1]
                raise ModelError(
                    f"{having} takes the moments of the covariate '{name}' from the sample and {lacking} estimates "
                    "them: fit both with fixed_x=False"
                )
