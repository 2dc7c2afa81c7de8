"""What a likelihood is an integral over, and how accurate integrals are."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from msem.data.integrals import IntegrationPlan
from msem.errors import UnsupportedError
from msem.estimation.matrices import BlockMap, block_map
from msem.estimation.objective import Objective, build_objective
from msem.model.levels import WITHIN
from msem.model.partable import ParameterTable
from msem.model.variables import Variables

Floats = NDArray[np.float64]

MOST = {1: 2, 2: 3}  # dimensions, of level 1 and of the highest level
ZERO = 1e-9  # correlations below it are none


class QuadratureAccuracy(NamedTuple):
    """A rule, and what a finer one says.

    Attributes
    ----------
    nodes, finer : int
        In each dimension: of the fit, and 2 nodes + 1.
    change : float
        Of the log-likelihood at the estimates, with the finer rule.
    """

    nodes: int
    finer: int
    change: float


def quadrature_accuracy(objective: Objective, theta: NDArray[np.float64]) -> QuadratureAccuracy | None:
    """Evaluate the log-likelihood with more nodes; None where nothing is integrated over."""
    nodes = min((s.nodes for s in objective.statistics if s.nodes), default=0)
    if not nodes or objective.loss:
        return None
    finer = [s.with_nodes(2 * s.nodes + 1) for s in objective.statistics]
    change = build_objective(objective.table, finer).llf(theta) - objective.llf(theta)
    return QuadratureAccuracy(nodes, 2 * nodes + 1, change)


def integration_plan(table: ParameterTable, group: int, variables: Variables) -> IntegrationPlan:
    """What the likelihood of a model with ordered variables has to be an integral over.

    Given the fewest variables such that the units of a cluster are independent, and so are their ordered variables:
    of level 1 latent ones, of the higher of two levels parts of observed variables, random slopes and latent ones.
    They are found from the covariance matrices at arbitrary values of the parameters, where no coincidence makes them
    singular.

    Parameters
    ----------
    table : ParameterTable
    group : int
    variables : Variables
        Of the sample.

    Raises
    ------
    UnsupportedError
        If these are too many, or ordered variables depend on each other beyond latent variables.
    """
    levels = variables.levels
    ordered = set(table.ordered.thresholds)
    slopes = table.slopes(group)
    rng = np.random.default_rng(1)
    exposed: dict[int, tuple[str, ...]] = {}
    block = block_map(table, WITHIN, group, levels[0])
    cov = _generic(table, block, rng)
    own = [name for name in levels[0] if name in ordered]
    given = [name for name in levels[0] if name not in ordered]
    needed = [s.covariate for s in slopes if s.covariate in block.names[block.nobserved :]]
    within = _fewest(block, cov, given, [], own, block.names[block.nobserved :], needed, MOST[1])
    if within is None:
        raise UnsupportedError(_too_many(block, cov, given, own, 1))
    exposed[WITHIN] = within
    if len(levels) == 1:
        return IntegrationPlan({1: within} if within else {}, (), len(within))
    top = len(levels)
    block = block_map(table, top, group, levels[-1])
    cov = _generic(table, block, rng)
    parts = [*variables.both, *(s.name for s in slopes)]
    own = [name for name in levels[-1] if name in ordered and name not in parts]
    given = [name for name in levels[-1] if name not in ordered and name not in parts]
    latent = [name for name in block.names[block.nobserved :] if name not in parts]
    varying = [name for name in parts if _spread(block, cov, given, name) > ZERO]
    rank = _rank(block, cov, given, varying)
    if rank > MOST[2]:
        raise UnsupportedError(_dimensions(rank, varying, "at the between level"))
    found = _fewest(block, cov, given, varying, own, [*varying, *latent], [], MOST[2])
    if found is None:
        raise UnsupportedError(_too_many(block, cov, given, own, 2))
    exposed[top] = tuple(name for name in found if name in latent)
    return IntegrationPlan({k: names for k, names in exposed.items() if names}, found, len(within))


def same_integral(table: ParameterTable, objective: Objective) -> bool:
    """Whether the likelihood of another model of the same variables is an integral over what that of a fit is.

    Parameters
    ----------
    table : ParameterTable
        Of the other model.
    objective : Objective
        Of the fit.
    """
    for number, own in enumerate(objective.statistics, 1):
        if own.integral is None:
            continue
        try:
            other = integration_plan(table, number, own.variables)
        except UnsupportedError:
            return False
        if (dict(other.exposed), other.integrated) != (dict(own.integral.exposed), own.integral.integrated):
            return False
    return True


def _generic(table: ParameterTable, block: BlockMap, rng: np.random.Generator) -> Floats:
    """Covariance matrix of the variables of a block at arbitrary values of its parameters."""
    n = len(block.names)
    at = {name: k for k, name in enumerate(block.names)}
    paths, residual = np.zeros((n, n)), np.zeros((n, n))
    for i in block.rows:
        row = table.rows[i]
        value = row.value if not row.free and not row.slope else rng.uniform(0.3, 0.9)
        if row.op == "=~":
            paths[at[row.rhs], at[row.lhs]] = value
        elif row.op == "~":
            paths[at[row.lhs], at[row.rhs]] = value
        elif row.op == "~~":
            same = row.lhs == row.rhs
            if row.free or np.isnan(value):
                value = rng.uniform(0.6, 1.4) if same else rng.uniform(0.05, 0.3) / np.sqrt(n)
            residual[at[row.lhs], at[row.rhs]] = residual[at[row.rhs], at[row.lhs]] = value
    total = np.linalg.inv(np.eye(n) - paths)
    cov: Floats = total @ residual @ total.T
    return cov


def _given(cov: Floats, of: Sequence[int], given: Sequence[int]) -> Floats | None:
    """Covariance matrix of some variables given others; None if those are dependent."""
    inner = cov[np.ix_(given, given)]
    if len(given):
        sd = np.sqrt(np.maximum(inner.diagonal(), 0))
        if not (sd > 0).all() or np.linalg.eigvalsh(inner / np.outer(sd, sd))[0] < ZERO:
            return None
    across = cov[np.ix_(of, given)]
    out: Floats = cov[np.ix_(of, of)] - across @ np.linalg.solve(inner, across.T)
    return out


def _places(block: BlockMap, names: Sequence[str]) -> list[int]:
    return [block.names.index(name) for name in names]


def _spread(block: BlockMap, cov: Floats, given: Sequence[str], name: str) -> float:
    rest = _given(cov, _places(block, [name]), _places(block, given))
    return 0.0 if rest is None else float(rest[0, 0])


def _rank(block: BlockMap, cov: Floats, given: Sequence[str], names: Sequence[str]) -> int:
    rest = _given(cov, _places(block, names), _places(block, given))
    if rest is None or not len(rest):
        return 0
    sd = np.sqrt(rest.diagonal())
    return int((np.linalg.eigvalsh(rest / np.outer(sd, sd)) > ZERO).sum())


def _fewest(
    block: BlockMap,
    cov: Floats,
    given: Sequence[str],
    determined: Sequence[str],
    independent: Sequence[str],
    candidates: Sequence[str],
    needed: Sequence[str],
    most: int,
) -> tuple[str, ...] | None:
    """The fewest candidates given which some variables are known and others independent, with those needed."""
    unknown, apart = _places(block, determined), _places(block, independent)
    others = [name for name in candidates if name not in needed]
    for size in range(len(needed), most + 1):
        for some in combinations(others, size - len(needed)):
            chosen = (*dict.fromkeys(needed), *some)
            inner = [*_places(block, given), *_places(block, chosen)]
            rest = _given(cov, [*unknown, *apart], inner)
            if rest is None:
                continue
            k = len(unknown)
            off = rest.copy()
            off[range(k, len(off)), range(k, len(off))] = 0.0
            scale = np.sqrt(np.maximum(cov.diagonal()[[*unknown, *apart]], ZERO))
            if np.abs(off / np.outer(scale, scale)).max(initial=0.0) < ZERO:
                return chosen
    return None


def _too_many(block: BlockMap, cov: Floats, given: Sequence[str], own: Sequence[str], level: int) -> str:
    """Why there is no integral over few enough variables."""
    where = {1: " at the within level", 2: " at the between level"}[level]
    latent = block.names[block.nobserved :]
    usable = _independent(block, cov, given, latent)
    rest = _given(cov, _places(block, own), _places(block, [*given, *usable]))
    if rest is not None:
        for i, one in enumerate(own):
            for j, other in enumerate(own[:i]):
                if abs(rest[i, j]) > ZERO:
                    return (
                        f"'{other}' and '{one}' are ordered and depend on each other beyond the latent variables"
                        f"{where}: maximum likelihood integrates over latent variables only; give them a factor, or "
                        "leave out estimator= for WLSMV, which has residual covariances"
                    )
    return _dimensions(len(usable), usable, where.strip())


def _independent(block: BlockMap, cov: Floats, given: Sequence[str], names: Sequence[str]) -> list[str]:
    """Of some variables those that are no functions of the ones before them."""
    chosen: list[str] = []
    for name in names:
        if _given(cov, [], _places(block, [*given, *chosen, name])) is not None:
            chosen.append(name)
    return chosen


def _dimensions(count: int, names: Sequence[str], where: str) -> str:
    most = MOST[1] if where == "at the within level" else MOST[2]
    return (
        f"the likelihood of ordered variables is an integral over {count} variables {where} "
        f"({', '.join(names)}), and {most} are the most: leave out estimator= for WLSMV, which has any number, or use "
        "a model with fewer"
        + (
            "; a between factor takes one dimension for all its indicators if their residual variances there are 0, as "
            "in 'y1 ~~ 0*y1'"
            if where == "at the between level"
            else ""
        )
    )
