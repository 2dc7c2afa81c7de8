"""From parameter table to index maps: where each parameter stands in the matrices of its block.

A block is one level of one group in RAM form (McArdle & McDonald, 1984): directed paths, residual
(co)variances and intercepts over its observed variables, in the order of the statistics, followed by its
latent variables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.arrays import LevelArrays
from msem.model.levels import WITHIN
from msem.model.partable import ParameterTable
from msem.model.variables import Variables

Numbers = NDArray[Any]  # float64 or complex128

DIRECTED, SYMMETRIC, INTERCEPT = 0, 1, 2
SLOTS = {"=~": DIRECTED, "~": DIRECTED, "~~": SYMMETRIC, "~1": INTERCEPT}


@dataclass(frozen=True)
class BlockMap:
    """Positions of the rows of a parameter table in the matrices of one block.

    Attributes
    ----------
    level, group : int
    names : tuple of str
        Variables of the block: the observed ones first.
    nobserved : int
    slopes : tuple of str
        Random slopes: those whose products with covariates stand in the block, then those that are its first latent
        variables. The core counts them among the observed variables of the block.
    products : int
        How many products with covariates the core has between the observed and the latent variables.
    thresholds : tuple of (str, str)
        Ordered variable and name of each threshold. For the core they are means of observed variables of their own.
    threshold_rows : ndarray of int
        Their rows in the parameter table.
    standard : tuple of int
        Variables whose residual variance is what a variance of 1, given the covariates, leaves.
    given : tuple of int
        Fixed covariates, where there are such variances.
    exposed : tuple of str
        Latent variables that the likelihood knows of, because it integrates over them. The core counts them among the
        observed variables of the block, before all that is hidden.
    scaled : tuple of int
        Ordered variables with a scaling factor: for the core, the variable y* of the model is a latent one at the end,
        and the observed one, like each of its thresholds, is that of the model times the factor.
    scale_rows : tuple of int
        Rows of their factors in the parameter table.
    members : tuple of int
        All rows of the block in the parameter table.
    compiled : _core.TableBlock
        What the core makes of them.
    """

    level: int
    group: int
    names: tuple[str, ...]
    nobserved: int
    members: tuple[int, ...]
    compiled: _core.TableBlock
    slopes: tuple[str, ...] = ()
    products: int = 0
    thresholds: tuple[tuple[str, str], ...] = ()
    threshold_rows: tuple[int, ...] = ()
    standard: tuple[int, ...] = ()
    given: tuple[int, ...] = ()
    exposed: tuple[str, ...] = ()
    scaled: tuple[int, ...] = ()
    scale_rows: tuple[int, ...] = ()

    @cached_property
    def _entries(self) -> tuple[NDArray[np.intp], ...]:
        return self.compiled.places()

    @cached_property
    def rows(self) -> NDArray[np.intp]:
        """Index in the parameter table of each row that stands in a matrix."""
        return np.array(self.members, dtype=np.intp)[self._entries[0]]

    @property
    def slot(self) -> NDArray[np.intp]:
        """Which matrix each of `rows` belongs to: 0 paths, 1 covariances, 2 intercepts."""
        return self._entries[1]

    @property
    def row(self) -> NDArray[np.intp]:
        """Which variable the path of each of `rows` leads to, or the variable itself."""
        return self._entries[2]

    @property
    def col(self) -> NDArray[np.intp]:
        """Which variable it leads from, or the other variable."""
        return self._entries[3]

    @property
    def first_hidden(self) -> int:
        """Where the core has the first of the variables that are hidden here."""
        return self.nobserved + len(self.exposed)

    @property
    def hidden(self) -> int:
        """How many variables the core has between the observed and the latent ones."""
        return self.products + len(self.thresholds)

    @property
    def plain(self) -> bool:
        """Whether the core has the variables of the block and no others, in the same order."""
        return not (self.exposed or self.products or self.thresholds or self.scaled)

    @cached_property
    def places(self) -> NDArray[np.intp]:
        """Where the core has each variable."""
        n = self.nobserved
        out = np.arange(len(self.names), dtype=np.intp)
        if self.plain:
            return out
        latent = [k for k in range(n, len(out)) if self.names[k] not in self.exposed]
        for k, name in enumerate(self.exposed):
            out[self.names.index(name, n)] = n + k
        out[latent] = self.first_hidden + self.hidden + np.arange(len(latent))
        out[list(self.scaled)] = len(out) + self.hidden + np.arange(len(self.scaled))
        return out

    @property
    def measured(self) -> NDArray[np.intp]:
        """Where the core has each variable as it is observed: an ordered one times its scaling factor."""
        if self.plain:
            return self.places
        out = self.places.copy()
        out[: self.nobserved] = np.arange(self.nobserved)
        return out

    def scales(self, values: Numbers) -> Numbers:
        """Scaling factors of the variables of `standard`, shape (..., standard), from the values of all rows."""
        out = np.ones((*values.shape[:-1], len(self.standard)), values.dtype)
        for at, row in zip(self.scaled, self.scale_rows, strict=True):
            out[..., self.standard.index(at)] = values[..., row]
        return out


class Model(Protocol):
    """What the matrices are made from; an `Objective` is one."""

    @property
    def table(self) -> ParameterTable:
        """Rows with the fixed values filled in."""

    @property
    def blocks(self) -> tuple[BlockMap, ...]:
        """Where the rows stand."""


@dataclass(frozen=True, eq=False)
class BlockModel:
    """Some blocks of a model by themselves.

    Attributes
    ----------
    table : ParameterTable
    blocks : tuple of BlockMap
    """

    table: ParameterTable
    blocks: tuple[BlockMap, ...]


def block_maps(
    table: ParameterTable,
    variables: Sequence[Variables],
    exposed: Sequence[Mapping[int, tuple[str, ...]]] = (),
) -> tuple[BlockMap, ...]:
    """Index map of every level of every group, by the observed variables of each: group by group, level 1 first.

    `exposed` are the latent variables by level that the likelihood of each group knows of; default: none.
    """
    known = exposed or [{} for _ in variables]
    return tuple(
        block_map(table, level, group, names, latent.get(level, ()))
        for group, (own, latent) in enumerate(zip(variables, known, strict=True), 1)
        for level, names in enumerate(own.levels, 1)
    )


def block_map(
    table: ParameterTable, level: int, group: int, observed: Sequence[str], exposed: Sequence[str] = ()
) -> BlockMap:
    """Index map of one block whose observed variables are in the given order, with latent ones that are exposed."""
    names = (*observed, *table.latent(level, group))
    members = table.block_places(level, group)
    among = table.slopes(group)
    products = [slope.name for slope in among if slope.level == level]
    slopes = (*products, *(slope.name for slope in among if level in slope.at))
    known, auxiliary = tuple(exposed), table.auxiliary
    compiled = _core.TableBlock(
        table.rows, members, names, len(observed), known, slopes, len(products), auxiliary
    )
    plain = BlockMap(
        level, group, names, len(observed), members, compiled, slopes, len(products), exposed=known
    )
    return _with_ordered(plain, table) if table.ordered.thresholds else plain


def _with_ordered(block: BlockMap, table: ParameterTable) -> BlockMap:
    """The same with what it has of ordered variables."""
    level, group, observed = block.level, block.group, block.names[: block.nobserved]
    at = {name: i for i, name in enumerate(block.names)}
    cut = [i for i in block.members if table.rows[i].op == "|"]
    factors = [i for i in block.members if table.rows[i].op == "~*~"]
    delta = table.ordered.parameterization == "delta" and level == WITHIN
    exogenous = set(table.exogenous(level, group))
    return replace(
        block,
        thresholds=tuple([(table.rows[i].lhs, table.rows[i].rhs) for i in cut]),
        threshold_rows=tuple(cut),
        standard=tuple([at[name] for name in observed if delta and name in table.ordered.thresholds]),
        given=tuple([at[name] for name in observed if name in exogenous]),
        scaled=tuple([at[table.rows[i].lhs] for i in factors]),
        scale_rows=tuple(factors),
    )


def implied_moments(block: BlockMap, mean: Numbers, cov: Numbers) -> LevelArrays:
    """Moments of the variables of a block from those of the core: without products, and what comes from them."""
    n = block.nobserved
    if block.products:
        reach = cov[:, block.first_hidden : block.first_hidden + block.products]
        cov = cov - reach @ reach.T
    variance = np.ones(len(block.standard))
    for scaled, latent in zip(block.scaled, block.places[list(block.scaled)], strict=True):
        factor = cov[scaled, latent] / cov[latent, latent]
        variance[block.standard.index(scaled)] = factor**-2
    if not block.plain:
        cov, mean = cov[np.ix_(block.places, block.places)], mean[block.places]
    if block.standard:
        at, x = list(block.standard), list(block.given)
        reach = cov[np.ix_(at, x)]
        explained = np.einsum("ij,ji->i", reach, np.linalg.solve(cov[np.ix_(x, x)], reach.T)) if x else 0.0
        cov[at, at] = variance + explained
    return LevelArrays(block.names, mean, cov, n)


def row_values(table: ParameterTable, theta: Numbers) -> Numbers:
    """Value of every row of the table, shape (..., rows), at real or complex theta of shape (..., npar)."""
    free = np.array([r.free for r in table.rows], dtype=np.intp)
    values = np.empty((*theta.shape[:-1], len(free)), theta.dtype)
    values[...] = np.array([r.value for r in table.rows])
    estimated = np.flatnonzero(free)
    values[..., estimated] = theta[..., free[estimated] - 1]
    return values


def block_matrices(block: BlockMap, values: Numbers) -> tuple[Numbers, Numbers]:
    """Directed paths, to the row from the column, and residual covariances of the n variables of a block.

    Parameters
    ----------
    block : BlockMap
    values : ndarray, shape (..., rows)
        Of all rows of the table.

    Returns
    -------
    paths, residual : ndarray, shape (..., n, n)
    """
    n = len(block.names)
    paths, residual = (np.zeros((*values.shape[:-1], n, n), values.dtype) for _ in range(2))
    own, directed, symmetric = values[..., block.rows], block.slot == DIRECTED, block.slot == SYMMETRIC
    paths[..., block.row[directed], block.col[directed]] = own[..., directed]
    residual[..., block.row[symmetric], block.col[symmetric]] = own[..., symmetric]
    residual[..., block.col[symmetric], block.row[symmetric]] = own[..., symmetric]
    if block.standard:
        at = list(block.standard)
        residual[..., at, at] = block.scales(values) ** -2 - explained_variance(block, paths, residual)
    return paths, residual


def explained_variance(block: BlockMap, paths: Numbers, residual: Numbers) -> Numbers:
    """What other variables than fixed covariates explain of the variances that are 1, shape (..., standard)."""
    at, without = list(block.standard), residual.copy()
    without[..., at, at] = 0
    without[..., list(block.given), :] = 0
    without[..., :, list(block.given)] = 0
    total = np.linalg.inv(np.eye(len(block.names)) - paths)[..., at, :]
    out: Numbers = np.einsum("...ij,...jk,...ik->...i", total, without, total)
    return out


def fill_exogenous(table: ParameterTable, groups: Sequence[Mapping[int, LevelArrays]]) -> ParameterTable:
    """The table with the moments of fixed covariates set to those of the sample; the same one if they are already.

    Parameters
    ----------
    table : ParameterTable
    groups : sequence of mappings from level to LevelArrays
        Sample moments of the observed variables of each group.
    """
    unknown = [i for i, r in enumerate(table.rows) if r.exo and not r.free and r.value != r.value]
    if not unknown:
        return table
    values = {}
    for i in unknown:
        r = table.rows[i]
        m = groups[r.group - 1][r.level]
        k = m.at[r.lhs]
        values[i] = float(m.mean[k] if r.op == "~1" else m.cov[k, m.at[r.rhs]])
    return table.with_values(values)
