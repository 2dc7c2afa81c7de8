"""Direct, indirect and total effects by level, and the differences between levels."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.distributions import normal_pvalue, wald_statistic
from msem.errors import ModelError, MsemError
from msem.estimation.matrices import Model, Numbers, row_values
from msem.estimation.solution import Estimated, free_vcov
from msem.model.levels import WITHIN, Level, rows_at
from msem.model.partable import ParameterTable
from msem.postestimation.delta import Drawn, Intervals, MonteCarlo, Quantity, delta_method, monte_carlo
from msem.postestimation.ram import Block, Structure, structures
from msem.postestimation.standardized import (
    KINDS,
    Kind,
    implied_variances,
    scales,
)
from msem.settings import require_choice, several

Floats = NDArray[np.float64]

KEY = ("level", "group", "predictor", "through", "outcome", "effect")
NUMBERS = ("est", "se", "z", "pvalue", "ci_lower", "ci_upper")
ARROW = " -> "
Graph = Mapping[str, Sequence[str]]
MOST = 5000  # specific effects of a model that are still worth a table


@dataclass(frozen=True)
class Effect:
    """An effect of one variable on another at one level.

    Attributes
    ----------
    level, group : int
    predictor : str
    through : tuple of str
        Mediators of a specific indirect effect, in order.
    outcome : str
    kind : {"direct", "indirect", "total_indirect", "total"}
    """

    level: int
    group: int
    predictor: str
    through: tuple[str, ...]
    outcome: str
    kind: str

    @property
    def key(self) -> tuple[int, int, str, str, str, str]:
        """Values of the columns `KEY`."""
        return self.level, self.group, self.predictor, ARROW.join(self.through), self.outcome, self.kind

    def value(
        self,
        blocks: Mapping[Block, Structure],
        limits: Mapping[Block, Numbers],
        chains: Sequence[tuple[str, ...]] = (),
    ) -> Numbers:
        """The effect, given the matrices of the blocks and what their total effects are to be multiplied by.

        `chains`: paths with several random slopes, of whose product the mean is not that of their means (Kenny,
        Korchmaros & Bolger, 2003).
        """
        own = blocks[self.level, self.group]
        cause, outcome = own.at[self.predictor], own.at[self.outcome]
        direct: Numbers = own.paths[..., outcome, cause]
        if self.kind == "direct":
            return direct
        if self.kind == "indirect":
            return along(own, (self.predictor, *self.through, self.outcome))
        total: Numbers = own.total[..., outcome, cause] * limits[self.level, self.group]
        for path in chains:
            total = total + along(own, path) - along(own, path, means=True)
        return total if self.kind == "total" else total - direct


def along(own: Structure, path: Sequence[str], *, means: bool = False) -> Numbers:
    """Product of the paths from variable to variable: its mean where slopes are random, or that of their means."""
    fixed, random = [], []
    for cause, outcome in itertools.pairwise(path):
        slope = None if means else slope_between(own, cause, outcome)
        if slope is None:
            fixed.append(own.paths[..., own.at[outcome], own.at[cause]])
        else:
            random.append(slope)
    product: Numbers = np.prod(fixed, axis=0) if fixed else np.ones(())
    return product if own.slopes is None else product * own.slopes.expected(random)


def slope_between(own: Structure, cause: str, outcome: str) -> int | None:
    """Number of the random slope of a path; None if its coefficient is the same in all clusters."""
    for k, slope in enumerate(() if own.slopes is None else own.slopes.among):
        if slope.covariate == cause and outcome in slope.outcomes:
            return k
    return None


def effects_of(
    table: ParameterTable,
    outcome: str | Sequence[str] | None = None,
    predictor: str | Sequence[str] | None = None,
    *,
    specific: bool = True,
) -> list[Effect]:
    """Effects that the model has.

    Parameters
    ----------
    table : ParameterTable
    outcome, predictor : str, sequence of str or None
        None for all variables that are regressed on others, and all that others are regressed on.
    specific : bool
        The indirect effect of every path by itself, as well as their sum. In a model with feedback there are
        infinitely many paths; the sum alone is given there.

    Returns
    -------
    list of Effect
        By level and group, in order of the model text.

    Raises
    ------
    ModelError
        If no path leads from one of these predictors to one of these outcomes.
    """
    found = []
    for block in dict.fromkeys((row.level, row.group) for row in table.rows if row.op in ("~", "=~")):
        regressions = [row for row in table.block(*block) if row.op == "~"]
        outcomes = _wanted(outcome, [row.lhs for row in regressions])
        predictors = _wanted(predictor, [row.rhs for row in regressions])
        graph = directed(table, *block)
        for cause in predictors:
            after = reachable(graph, cause)
            for name in outcomes:
                if name in after and name != cause:
                    found += _pair(graph, Effect(*block, cause, (), name, "total"), specific)
    if not found:
        raise ModelError(_nothing(table, outcome, predictor))
    return found


def _wanted(given: str | Sequence[str] | None, all_names: Sequence[str]) -> list[str]:
    if given is None:
        return list(dict.fromkeys(all_names))
    return list(several(given))


def _nothing(
    table: ParameterTable, outcome: str | Sequence[str] | None, predictor: str | Sequence[str] | None
) -> str:
    known = {name for row in table.rows for name in (row.lhs, row.rhs)}
    for given in (outcome, predictor):
        for name in _wanted(given, ()):
            if name not in known:
                return f"{name!r} is no variable of the model"
    if outcome is None and predictor is None:
        return "the model has no regressions; effects of latent variables on their indicators are shown when asked for"
    return "no directed path leads from these predictors to these outcomes at any level"


def _pair(graph: Mapping[str, Sequence[str]], total: Effect, specific: bool) -> list[Effect]:
    """Effects of one variable on another: direct, specific indirect, total indirect, total."""
    cause, outcome = total.predictor, total.outcome
    loop = bool(cycle_between(graph, cause, outcome))
    found = [replace(total, kind="direct")] if outcome in graph[cause] else []
    indirect = loop or any(outcome in reachable(graph, name) for name in graph[cause] if name != outcome)
    if indirect:
        if specific and not loop:
            paths = [path for path in simple_paths(graph, cause, outcome) if len(path) > 2]
            found += [replace(total, kind="indirect", through=path[1:-1]) for path in paths]
        found.append(replace(total, kind="total_indirect"))
    return [*found, total]


def effects_quantity(
    model: Model, wanted: Sequence[Effect], standardized: Kind | None = None, total: bool = False
) -> Quantity:
    """Effects as a function of theta.

    Total effects are (I - A)^-1 - I. With feedback that is the limit of the sum over all paths if the eigenvalues of
    A are less than 1 in modulus (Bentler & Freeman, 1983), and nan otherwise.

    Parameters
    ----------
    model : Model
    wanted : sequence of Effect
    standardized : {"std_all", "std_lv", "std_nox"}, optional
        Multiply by the standard deviation of the predictor and divide by that of the outcome.
    total : bool
        Standardize by total variances; see `standardized_quantity`.
    """
    table = model.table
    cyclic = {block for block in {(e.level, e.group) for e in wanted} if has_cycle(directed(table, *block))}

    several = [_chains(table, one) for one in wanted]

    def raw(theta: Numbers) -> Numbers:
        blocks = structures(model, theta)
        limits = {key: _limit(own, key in cyclic) for key, own in blocks.items()}
        values = (one.value(blocks, limits, chains) for one, chains in zip(wanted, several, strict=True))
        return np.stack(list(values), axis=-1)

    if standardized is None:
        return raw
    units = scales(table, standardized, total=total)
    at = {key: 2 + k for k, key in enumerate(units.keys)}
    causes = [at[one.level, one.group, one.predictor] for one in wanted]
    outcomes = [at[one.level, one.group, one.outcome] for one in wanted]

    def scaled(theta: Numbers) -> Numbers:
        deviations = units.deviations(implied_variances(model, units, theta), row_values(table, theta))
        return raw(theta) * deviations[..., causes] / deviations[..., outcomes]

    return scaled


def _chains(table: ParameterTable, effect: Effect) -> list[tuple[str, ...]]:
    """Paths of a total effect on which there are several random slopes."""
    slopes = table.slopes(effect.group) if effect.level == WITHIN else ()
    random = {(slope.covariate, name) for slope in slopes for name in slope.outcomes}
    if len(random) < 2 or not effect.kind.startswith("total"):
        return []
    graph = directed(table, effect.level, effect.group)
    return [
        path
        for path in simple_paths(graph, effect.predictor, effect.outcome)
        if sum(step in random for step in itertools.pairwise(path)) > 1
    ]


def _limit(own: Structure, cyclic: bool) -> Numbers:
    """1, or nan where the sum over the paths of a model with feedback has no limit."""
    shape = own.paths.shape[:-2]
    if not cyclic:
        return np.ones(shape)
    largest = np.abs(np.linalg.eigvals(own.paths.real)).max(axis=-1)
    return np.where(largest < 1, 1.0, np.nan)


class Difference(NamedTuple):
    """An effect at both levels: what the between one has beyond the within one."""

    within: Effect
    between: Effect


def differences(wanted: Sequence[Effect], pairs: Mapping[str, str]) -> list[Difference]:
    """Effects that both levels have.

    Parameters
    ----------
    wanted : sequence of Effect
    pairs : mapping of str to str
        Name at the between level of variables that have another name there, by the within name.

    Raises
    ------
    ModelError
        If no effect is at both levels, or a name of a pair has no effect.
    """
    named = {name for e in wanted for name in (e.predictor, *e.through, e.outcome)}
    for name in [*pairs, *pairs.values()]:
        if name not in named:
            raise ModelError(f"pairs: {name!r} is on no path of the model")
    between = {e.key[1:]: e for e in wanted if e.level == 2}
    found = []
    for one in wanted:
        if one.level == 1:
            names = [pairs.get(name, name) for name in (one.predictor, *one.through, one.outcome)]
            there = replace(one, level=2, predictor=names[0], through=tuple(names[1:-1]), outcome=names[-1])
            if there.key[1:] in between:
                found.append(Difference(one, there))
    if not found:
        raise ModelError(
            "no effect is at both levels; for latent variables give pairs={'within name': 'between name'}"
        )
    return found


def effects_frame(
    wanted: Sequence[Effect],
    quantity: Quantity,
    theta: Floats,
    vcov: Floats,
    *,
    ci_level: float = 0.95,
    how: MonteCarlo | None = None,
) -> pd.DataFrame:
    """Tabulate effects: columns `KEY`, then `NUMBERS`.

    Parameters
    ----------
    wanted : sequence of Effect
    quantity : callable
        As made by `effects_quantity`.
    theta, vcov : ndarray, shapes (npar,) and (npar, npar)
    ci_level : float
        Coverage of the intervals.
    how : MonteCarlo or None
        Draws for Monte Carlo intervals; None for Wald intervals.
    """
    keys = pd.DataFrame([one.key for one in wanted], columns=list(KEY))
    return pd.concat([keys, _numbers(quantity, theta, vcov, ci_level, how)], axis=1)


def differences_frame(
    found: Sequence[Difference],
    model: Model,
    theta: Floats,
    vcov: Floats,
    *,
    ci_level: float = 0.95,
    how: MonteCarlo | None = None,
) -> pd.DataFrame:
    """Tabulate differences of effects: between less within.

    Returns
    -------
    DataFrame
        Columns group, predictor, through, outcome, effect (names of the within level), within, between, then
        `NUMBERS` of the difference.
    """
    n = len(found)
    both = effects_quantity(model, [d.within for d in found] + [d.between for d in found])

    def difference(at: Numbers) -> Numbers:
        values = both(at)
        return values[..., n:] - values[..., :n]

    keys = pd.DataFrame([d.within.key[1:] for d in found], columns=list(KEY[1:]))
    at_levels = both(theta)
    keys["within"], keys["between"] = at_levels[:n], at_levels[n:]
    return pd.concat([keys, _numbers(difference, theta, vcov, ci_level, how)], axis=1)


def _numbers(
    quantity: Quantity, theta: Floats, vcov: Floats, ci_level: float, how: MonteCarlo | None
) -> pd.DataFrame:
    found = delta_method(quantity, theta, vcov)
    z = np.full(len(found.est), np.nan)
    if how is None:
        z = wald_statistic(found.est, found.se)
        drawn = Drawn(found.se, normal_pvalue(z), *found.interval(ci_level))
    else:
        drawn = monte_carlo(quantity, theta, vcov, ci_level, how)
    columns = (found.est, drawn.se, z, drawn.pvalue, drawn.lower, drawn.upper)
    return pd.DataFrame(dict(zip(NUMBERS, columns, strict=True)))


def directed(table: ParameterTable, level: int, group: int) -> dict[str, list[str]]:
    """Variables that each variable has a direct effect on: regressions and loadings that are not fixed at 0."""
    graph: dict[str, list[str]] = {}
    for row in table.block(level, group):
        if row.op in ("~", "=~") and (row.free or row.value != 0 or row.slope):
            cause, effect = (row.rhs, row.lhs) if row.op == "~" else (row.lhs, row.rhs)
            graph.setdefault(cause, []).append(effect)
    return graph


def reachable(graph: Graph, start: str) -> set[str]:
    """Variables that a variable has any effect on; itself too if paths lead back to it."""
    found: set[str] = set()
    waiting = list(graph.get(start, ()))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(graph.get(name, ()))
    return found


def has_cycle(graph: Graph) -> bool:
    """Whether paths lead from a variable back to it."""
    return any(name in reachable(graph, name) for name in graph)


def cycle_between(graph: Graph, cause: str, outcome: str) -> list[str]:
    """Variables of a feedback loop on the way from the cause to the outcome; none if the way is recursive."""
    after = reachable(graph, cause) | {cause}
    on_way = [
        name for name in graph if name in after and (name == outcome or outcome in reachable(graph, name))
    ]
    for name in on_way:
        if name in reachable(graph, name):
            return [
                other
                for other in on_way
                if other in reachable(graph, name) and name in reachable(graph, other)
            ]
    return []


def simple_paths(graph: Graph, cause: str, outcome: str) -> Iterator[tuple[str, ...]]:
    """Paths from the cause to the outcome as the variables that they pass, ends included, shortest first.

    Raises
    ------
    ModelError
        If there are more than a table can show.
    """
    waiting: list[tuple[str, ...]] = [(cause,)]
    useful = {name for name in graph if outcome in reachable(graph, name)}
    count = 0
    while waiting:
        path = waiting.pop(0)
        for name in graph.get(path[-1], ()):
            if name == outcome:
                yield (*path, name)
                count += 1
            elif name in useful and name not in path:
                waiting.append((*path, name))
        if count + len(waiting) > MOST:
            raise ModelError(
                f"more than {MOST} paths lead from {cause} to {outcome}: ask for total effects only, specific=False"
            )


def effects(
    fit: Estimated,
    outcome: str | Sequence[str] | None = None,
    predictor: str | Sequence[str] | None = None,
    *,
    specific: bool = True,
    standardized: Kind | None = None,
    total: bool = False,
    level: Level | None = None,
    ci_level: float = 0.95,
    method: Intervals = "delta",
    draws: int = 20_000,
    seed: int = 1,
) -> pd.DataFrame:
    """Direct, indirect and total effects at each level.

    Parameters
    ----------
    outcome, predictor : str or sequence of str, optional
        Default: all variables that are regressed on others, and all that others are regressed on.
    specific : bool
        Show the indirect effect of each path, not only their sum.
    standardized : {"std_all", "std_lv", "std_nox"}, optional
        Standardize as `standardized` does.
    total : bool
        Standardize by total variances.
    level : {1, 2, "within", "between"}, optional
        Rows of this level only.
    ci_level : float
        Coverage of the intervals.
    method : {"delta", "monte_carlo"}
        Wald intervals, or percentiles of draws from the sampling distribution of the estimates: se is then the
        standard deviation of the draws, z nan, and pvalue belongs to the percentile interval.
    draws, seed : int
        Of Monte Carlo intervals. The same seed gives the same table.

    Returns
    -------
    DataFrame
        Columns level, group, predictor, through, outcome, effect ("direct", "indirect", "total_indirect",
        "total"), est, se, z, pvalue, ci_lower, ci_upper. In models with feedback total effects are
        (I - A)^-1 - I and specific indirect effects are not shown: there are infinitely many. Effects through random
        slopes are means over the clusters: of the product of two slopes the product of their means and their covariance
        (Kenny, Korchmaros & Bolger, 2003, Psychological Methods, 8, 115-128).

    Raises
    ------
    ModelError
        If no path leads from these predictors to these outcomes.
    """
    if standardized is not None:
        require_choice("standardized", standardized, KINDS)
    elif total:
        raise MsemError("total=True says how to standardize: give standardized= too")
    wanted = effects_of(fit.table, outcome, predictor, specific=specific)
    frame = effects_frame(
        wanted,
        effects_quantity(fit.model, wanted, standardized, total),
        fit.theta,
        free_vcov(fit),
        ci_level=ci_level,
        how=MonteCarlo.chosen(method, draws, seed),
    )
    return rows_at(frame, level, fit.table)


def contextual_effects(
    fit: Estimated,
    outcome: str | Sequence[str] | None = None,
    predictor: str | Sequence[str] | None = None,
    *,
    pairs: Mapping[str, str] | None = None,
    specific: bool = True,
    ci_level: float = 0.95,
    method: Intervals = "delta",
    draws: int = 20_000,
    seed: int = 1,
) -> pd.DataFrame:
    """Effects that both levels have: the between one less the within one.

    Parameters
    ----------
    pairs : mapping of str to str, optional
        Between-level names of variables by their within-level names, where they differ.
    outcome, predictor, specific, ci_level, method, draws, seed
        As in `effects`.

    Returns
    -------
    DataFrame
        Columns group, predictor, through, outcome, effect (in names of the within level), within, between, then
        est = between - within with se, z, pvalue, ci_lower, ci_upper.

    Raises
    ------
    ModelError
        If no effect is at both levels.
    """
    found = differences(effects_of(fit.table, outcome, predictor, specific=specific), pairs or {})
    return differences_frame(
        found,
        fit.model,
        fit.theta,
        free_vcov(fit),
        ci_level=ci_level,
        how=MonteCarlo.chosen(method, draws, seed),
    )
