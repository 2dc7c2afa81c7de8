"""Moderation: paths whose slopes other variables change, random ones with predictors and those of products.

A slope of y on x given moderators is a function of the estimates: the path of x, for a random slope its mean given the
moderators, and the coefficient of each product of x times the values of its other factors (Aiken & West, 1991; Bauer &
Curran, 2005; Preacher, Curran & Bauer, 2006). What is not held stays at its mean.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from msem.errors import DataError, ModelError
from msem.estimation.matrices import INTERCEPT, BlockMap, Model, Numbers, row_values
from msem.estimation.solution import Estimated
from msem.model.levels import Level
from msem.postestimation.effects import directed, reachable
from msem.postestimation.ram import implied_mean, structures

Floats = NDArray[np.float64]
Values = float | Sequence[float]
STEPS = (-1.0, 0.0, 1.0)  # standard deviations about the mean that moderators are held at by default
MOST = 10_000  # settings of one call


class Place(NamedTuple):
    """Mean and standard deviation of a variable over all units, and the levels that it stands at."""

    mean: float
    sd: float
    levels: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Moderated:
    """A path of one group with what changes it.

    Attributes
    ----------
    model : Model
    theta : ndarray, shape (npar,)
        Estimates, whose means the variables have that are not held.
    outcome, predictor : str
    level, group : int
    products : mapping of str to tuple of str
        Factors of variables that are products.
    """

    model: Model
    theta: Floats
    outcome: str
    predictor: str
    level: int
    group: int
    products: Mapping[str, tuple[str, ...]]

    @cached_property
    def blocks(self) -> tuple[BlockMap, ...]:
        """Of the group, the highest level first."""
        own = (block for block in self.model.blocks if block.group == self.group)
        return tuple(sorted(own, key=lambda block: -block.level))

    @cached_property
    def places(self) -> dict[str, Place]:
        """Where variables are at the estimates."""
        blocks, values = structures(self.model, self.theta), row_values(self.model.table, self.theta)
        found: dict[str, list[tuple[float, float, int]]] = {}
        for block in self.blocks:
            own = blocks[block.level, self.group]
            means = implied_mean(block, own, values)
            for k, name in enumerate(block.names):
                found.setdefault(name, []).append((means[k], own.variances[k], block.level))
        return {
            name: Place(
                float(sum(mean for mean, _, _ in parts)),
                float(np.sqrt(max(sum(variance for _, variance, _ in parts), 0.0))),
                tuple(level for *_, level in parts),
            )
            for name, parts in found.items()
        }

    @cached_property
    def slope(self) -> str:
        """Name of the random slope of the path; "" without one."""
        rows = self.model.table.block(self.level, self.group)
        return next(
            (r.slope for r in rows if (r.lhs, r.op, r.rhs) == (self.outcome, "~", self.predictor)), ""
        )

    @cached_property
    def own_products(self) -> tuple[str, ...]:
        """Products of the predictor that the outcome is regressed on at the level of the path."""
        graph = directed(self.model.table, self.level, self.group)
        return tuple(
            name
            for name, factors in self.products.items()
            if self.predictor in factors and self.outcome in graph.get(name, ())
        )

    @cached_property
    def moderators(self) -> tuple[str, ...]:
        """Variables that change the slope, in order of the model; factors in the place of products."""
        found: dict[str, None] = {}
        for name in self.own_products:
            rest = list(self.products[name])
            rest.remove(self.predictor)
            found.update(dict.fromkeys(rest))
        for level in range(self.level + 1, self.model.table.nlevels + 1) if self.slope else ():
            for cause, outcomes in directed(self.model.table, level, self.group).items():
                if self.slope in outcomes:
                    found.update(dict.fromkeys(self.products.get(cause, (cause,))))
        return tuple(found)

    @cached_property
    def holdable(self) -> frozenset[str]:
        """Moderators, and what has an effect on these."""
        found = set(self.moderators)
        for level in range(self.level, self.model.table.nlevels + 1):
            graph = directed(self.model.table, level, self.group)
            found |= {name for name in graph if reachable(graph, name) & {*self.moderators, self.slope}}
        return frozenset(found - {self.predictor, self.outcome} | set(self.moderators))

    def following(self, held: Collection[str]) -> frozenset[str]:
        """Moderators through which held variables that are none themselves change the slope.

        Raises
        ------
        ModelError
            If one is a factor of a product, whose mean is not that of its factors multiplied.
        """
        found: set[str] = set()
        for level in range(self.level, self.model.table.nlevels + 1):
            graph = directed(self.model.table, level, self.group)
            for name in set(held) - set(self.moderators):
                found |= reachable(graph, name) & set(self.moderators)
        found -= set(held)
        factors = {factor for own in self.products.values() for factor in own}
        for name in self.moderators:
            if name in found & factors:
                raise ModelError(f"at: give a value of {name!r} too, which others change the slope through")
        return frozenset(found)

    def mean(self, name: str) -> float:
        """Mean of a variable that is not held.

        Raises
        ------
        ModelError
            If the model does not know it.
        """
        if name not in self.places:
            raise ModelError(
                f"{name!r} is no variable of the model, which has no mean of it: give at={{{name!r}: ...}}"
            )
        if not self.model.table.meanstructure:
            raise ModelError(
                f"the model has no means, and so none of {name!r}: give at={{{name!r}: ...}}, or fit it with "
                "meanstructure=True"
            )
        return self.places[name].mean

    def value_of(self, name: str, held: Mapping[str, float]) -> float:
        """What a factor of a product is: held, or its mean."""
        return held[name] if name in held else self.mean(name)

    def _conditional(
        self, theta: Numbers, held: Mapping[str, float], lowest: int
    ) -> Iterator[tuple[BlockMap, Numbers, Numbers]]:
        """Paths and means of each level, the highest first, with variables held at the highest level of theirs.

        Slopes that are random have their means given what is held above. Shapes (..., n, n) and (..., n). Nothing is
        held below the lowest level.
        """
        blocks, values = structures(self.model, theta), row_values(self.model.table, theta)
        fixed = dict(held)
        for name, factors in self.products.items():
            if name not in self.places or self.places[name].levels[0] < lowest:
                continue
            if any(factor in held for factor in factors):
                fixed[name] = float(np.prod([self.value_of(factor, held) for factor in factors]))
        slopes: dict[str, Numbers] = {}
        for block in self.blocks:
            own = blocks[block.level, self.group]
            paths = np.array(own.paths)
            for slope in () if own.slopes is None else own.slopes.among:
                cause = own.at[slope.covariate]
                for name in slope.outcomes:
                    paths[..., own.at[name], cause] = slopes[slope.name]
            intercepts = np.zeros((*values.shape[:-1], len(block.names)), values.dtype)
            at = block.slot == INTERCEPT
            intercepts[..., block.row[at]] = values[..., block.rows[at]]
            free = np.array(paths)
            for name, value in fixed.items():
                if name in own.at and self.places[name].levels[0] == block.level:
                    free[..., own.at[name], :] = 0
                    intercepts[..., own.at[name]] = value
            total = np.linalg.inv(np.eye(len(block.names)) - free)
            means: Numbers = np.einsum("...ij,...j->...i", total, intercepts)
            for name, k in own.at.items():
                slopes[name] = slopes[name] + means[..., k] if name in slopes else means[..., k]
            yield block, paths, means

    def slope_at(self, theta: Numbers, held: Mapping[str, float]) -> Numbers:
        """The slope given what is held, shape (...)."""
        for block, paths, _ in self._conditional(theta, held, self.level + 1):
            if block.level == self.level:
                at = {name: k for k, name in enumerate(block.names)}
                to = at[self.outcome]
                out: Numbers = paths[..., to, at[self.predictor]]
                for name in self.own_products:
                    out = out + paths[..., to, at[name]] * self._factor(name, held)
                return out
        raise AssertionError(self.level)

    def _factor(self, name: str, held: Mapping[str, float]) -> float:
        """Derivative of a product with respect to the predictor."""
        factors = self.products[name]
        times = factors.count(self.predictor)
        values = [self.value_of(factor, held) for factor in factors if factor != self.predictor]
        if times > 1:
            values += [self.value_of(self.predictor, held)] * (times - 1)
        return times * float(np.prod(values))

    def mean_at(self, theta: Numbers, held: Mapping[str, float]) -> Numbers:
        """Mean of the outcome over all levels with the predictor at its mean, given what is held, shape (...).

        Raises
        ------
        ModelError
            If the model has no means.
        """
        if not self.model.table.meanstructure:
            raise ModelError(
                f"the model has no means, so that there is no line of {self.outcome!r}: fit it with meanstructure=True"
            )
        out: Numbers = np.zeros(theta.shape[:-1], theta.dtype)
        centre = {self.predictor: self.mean(self.predictor)}
        for block, _, means in self._conditional(theta, centre | dict(held), 1):
            if self.outcome in block.names:
                out = out + means[..., block.names.index(self.outcome)]
        return out


def moderated(
    fit: Estimated,
    path: str,
    products: Mapping[str, str | Sequence[str]] | None = None,
    level: Level | None = None,
) -> list[Moderated]:
    """The path in each group, and at each level where something changes it.

    Raises
    ------
    ModelError
        If there is no such path, or nothing changes its slope.
    """
    table = fit.table
    outcome, operator, predictor = (part.strip() for part in str(path).partition("~"))
    if not (outcome and operator and predictor) or "~" in predictor or "+" in predictor:
        raise ModelError(f"{path!r} is no path: write it as in the model, 'y ~ x'")
    if "*" in predictor:
        predictor = predictor.rpartition("*")[2].strip()
    if products is not None and not isinstance(products, Mapping):
        raise ModelError(
            f"products is a dict of columns that are products of others, such as {{'x_w': 'x*w'}}, not {products!r}"
        )
    factors = {name: _factors(name, value) for name, value in (products or {}).items()}
    known = set(table.variables.names) | {r.rhs for r in table.rows if r.op == "~"}
    for name in factors:
        if name not in known:
            raise ModelError(f"products: {name!r} is no variable of the model")
    wanted = None if level is None else table.level(level)
    rows = [r for r in table.rows if (r.lhs, r.op, r.rhs) == (outcome, "~", predictor)]
    rows = [r for r in rows if wanted in (None, r.level)]
    if not rows:
        paths = dict.fromkeys(f"{r.lhs} ~ {r.rhs}" for r in table.rows if r.op == "~")
        where = "" if wanted is None else f" at level {wanted}"
        raise ModelError(
            f"the model has no path {outcome} ~ {predictor}{where}; it has {', '.join(paths) or 'none'}"
        )
    every = [Moderated(fit.model, fit.theta, outcome, predictor, r.level, r.group, factors) for r in rows]
    found = [one for one in every if one.moderators]
    if not found:
        slope = next((one.slope for one in every if one.slope), "")
        how = (
            f"the random slope {slope!r} has no predictors"
            if slope
            else "it is no random slope that something predicts"
        )
        raise ModelError(
            f"nothing changes the slope of {outcome} ~ {predictor}: {how}, and no product of {predictor!r} is named; "
            f"if a column is one, say so: products={{'{predictor}_w': '{predictor}*w'}}"
        )
    return found


def _factors(name: str, given: str | Sequence[str]) -> tuple[str, ...]:
    """Factors of a product, from "x*w" or a sequence of names."""
    parts: Any = given.replace(":", "*").split("*") if isinstance(given, str) else given
    names = isinstance(parts, Sequence) and all(isinstance(part, str) for part in parts)
    found = tuple(part.strip() for part in parts) if names else ()
    if name in found:
        raise ModelError(f"products: {name!r} is no product of itself: name the column that {given!r} is in")
    if len(found) < 2 or not all(found):
        raise ModelError(
            f"products: {name!r} must be a product of two variables or more, such as 'x*w', not {given!r}"
        )
    return found


def settings(one: Moderated, at: Mapping[str, Values] | None) -> list[dict[str, float]]:
    """All combinations of values that variables are held at.

    Raises
    ------
    ModelError
        If one has no effect on the slope.
    DataError
        If values are no numbers, or too many.
    """
    if at is not None and not isinstance(at, Mapping):
        raise DataError(f"at is a dict of values of moderators, such as {{'w': [-1, 0, 1]}}, not {at!r}")
    axes: dict[str, list[float]] = {}
    for name, values in (at or {}).items():
        if name not in one.holdable:
            raise ModelError(
                f"at: {name!r} does not change the slope of {one.outcome} ~ {one.predictor}; "
                f"{', '.join(one.moderators)} {'does' if len(one.moderators) == 1 else 'do'}"
            )
        try:
            numbers = np.atleast_1d(np.asarray(values, dtype=np.float64))
        except (TypeError, ValueError):
            numbers = np.array([np.nan])
        if numbers.ndim != 1 or not len(numbers) or not np.isfinite(numbers).all():
            raise DataError(f"at: values of {name!r} must be numbers, not {values!r}")
        axes[name] = numbers.tolist()
    following = one.following(axes)
    for name in one.moderators:
        if name not in axes and name not in following:
            mean = one.mean(name)
            axes[name] = [mean + step * one.places[name].sd for step in STEPS] if at is None else [mean]
    count = int(np.prod([len(values) for values in axes.values()]))
    if count > MOST:
        raise DataError(f"at: {count} combinations of values are too many ({MOST} are the most)")
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def centre_of(one: Moderated, name: str) -> tuple[float, float]:
    """Mean and standard deviation of a moderator; 0 and 1 where the model does not know them."""
    sd = one.places[name].sd if name in one.places else 0.0
    try:
        mean = one.mean(name)
    except ModelError:
        mean = 0.0
    return mean, sd if sd > 0 else 1.0


def chosen_moderator(one: Moderated, name: str | None) -> str:
    """The moderator that is asked about.

    Raises
    ------
    ModelError
        If it is none, or none of several was named.
    """
    known = ", ".join(one.moderators)
    if name is None:
        if len(one.moderators) > 1:
            raise ModelError(
                f"several variables change the slope of {one.outcome} ~ {one.predictor}: name one of {known}"
            )
        return one.moderators[0]
    if name not in one.moderators:
        raise ModelError(
            f"{name!r} does not change the slope of {one.outcome} ~ {one.predictor}; what does: {known}"
        )
    return name


def other_settings(one: Moderated, moderator: str, at: Mapping[str, float] | None) -> dict[str, float]:
    """Values of what else changes the slope."""
    if at is not None and not isinstance(at, Mapping):
        raise DataError(f"at is a dict of values of the other moderators, such as {{'w': 1}}, not {at!r}")
    if at and moderator in at:
        raise ModelError(f"at: {moderator!r} is the moderator whose values are asked for")
    given = dict(at or {})
    found = settings(one, {moderator: 0.0} | given)
    if len(found) > 1:
        raise DataError("at: give one value for each of the other moderators")
    return {name: value for name, value in found[0].items() if name != moderator}
