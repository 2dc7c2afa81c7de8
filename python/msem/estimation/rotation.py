"""Rotation of the exploratory blocks of a model: starts before it, estimates and their conditions after it.

The likelihood does not change when the factors eta of a block become T'eta. So a model is fitted with uncorrelated
factors and as many loadings fixed at 0 as that takes, and all that belongs to the factors is then transformed:
loadings, covariances, regressions on them and of them, means. The result is a point of the model with all of these
free, at which the conditions of the rotation hold. These are constraints like others: standard errors come from the
information along the directions that keep them (Jennrich, 1973, Psychometrika, 38, 593-604), which is the bordered
information.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.sample import Sample
from msem.estimation.matrices import INTERCEPT, BlockMap, Model, block_matrices, row_values
from msem.model.partable import ParameterTable
from msem.model.rotation import ExploratoryBlock, Rotation, unrotated_rows

Floats = NDArray[np.float64]

LEAST, MOST = 0.05, 0.95  # of the unique variance of a standardized indicator at the start
SWEEPS = 8  # of principal axes


@dataclass(frozen=True, slots=True)
class Minimum:
    """A minimum of the rotation criterion.

    Attributes
    ----------
    value : float
    starts : int
        How many starts ended there.
    converged : bool
    distance : float
        Largest difference of its loadings, on the scale on which they are rotated, from those of the lowest one.
    """

    value: float
    starts: int
    converged: bool
    distance: float


@dataclass(frozen=True, eq=False)
class RotatedBlock:
    """How one exploratory block was rotated.

    Attributes
    ----------
    block : ExploratoryBlock
    transformation : ndarray, shape (m, m)
        T: the rotated factors are T'eta.
    minima : tuple of Minimum
        Distinct ones, the lowest, which is taken, first.
    """

    block: ExploratoryBlock
    transformation: Floats
    minima: tuple[Minimum, ...]


def criterion_of(rotation: Rotation, block: ExploratoryBlock) -> _core.RotationCriterion:
    """The compiled criterion for one block."""
    if rotation.method == "geomin":
        return _core.RotationCriterion.geomin(rotation.epsilon)
    if rotation.method == "target":
        wanted = np.array(rotation.target_of(block), dtype=np.float64)
        return _core.RotationCriterion.partial_target(
            np.nan_to_num(wanted), (~np.isnan(wanted)).astype(np.float64)
        )
    return _core.RotationCriterion.quartic(*rotation.quartic(len(block.indicators), len(block.factors)))


# -- before -----------------------------------------------------------------------------------------------------


def unrotated_table(table: ParameterTable, sample: Sample) -> ParameterTable:
    """The model with its exploratory factors uncorrelated and in echelon form, with starts for their loadings.

    Parameters
    ----------
    table : ParameterTable
        With the moments of fixed covariates filled in.
    sample : Sample
    """
    pivots: dict[ExploratoryBlock, Sequence[str]] = {}
    starts: dict[tuple[str, str, str, int, int], float] = {}
    for block in table.exploratory:
        moments = sample.levels[block.group - 1][block.level]
        at = [moments.at[name] for name in block.indicators]
        loadings, unique = principal_axes(moments.cov[np.ix_(at, at)], len(block.factors))
        order = pivot_rows(loadings)
        pivots[block] = [block.indicators[i] for i in order]
        loadings = echelon(loadings, order)
        for j, factor in enumerate(block.factors):
            for i, name in enumerate(block.indicators):
                starts[factor, "=~", name, block.level, block.group] = float(loadings[i, j])
        for i, name in enumerate(block.indicators):
            starts[name, "~~", name, block.level, block.group] = float(unique[i])
    rows = unrotated_rows(table.rows, pivots)
    for i, row in enumerate(rows):
        start = starts.get((row.lhs, row.op, row.rhs, row.level, row.group))
        if row.free and start is not None and (row.start is None or row.efa):
            rows[i] = row._replace(start=start)
    out = replace(table, rows=tuple(row._replace(efa="") for row in rows))
    vars(out)["by_name"] = table.by_name  # constraints name them as in the model
    return out


def principal_axes(cov: Floats, factors: int) -> tuple[Floats, Floats]:
    """Loadings and unique variances by a few sweeps of principal axes; for starts, of any symmetric matrix."""
    variance = cov.diagonal()
    typical = float(np.mean(np.abs(variance))) or 1.0
    scale = np.sqrt(np.where(variance > 1e-8 * typical, variance, typical))
    r = cov / np.outer(scale, scale)
    unique = np.full(len(r), 0.5)
    loadings = np.zeros((len(r), factors))
    for _ in range(SWEEPS):
        values, vectors = np.linalg.eigh(r - np.diag(unique))
        kept = np.maximum(values[::-1][:factors], 0.01)
        loadings = vectors[:, ::-1][:, :factors] * np.sqrt(kept)
        unique = np.clip(r.diagonal() - np.sum(loadings**2, axis=1), LEAST, MOST)
    return loadings * scale[:, None], unique * scale**2


def pivot_rows(loadings: Floats) -> list[int]:
    """As many rows as there are factors, each as far as possible from the span of those before it."""
    left = loadings / np.maximum(np.linalg.norm(loadings, axis=1, keepdims=True), 1e-3)
    chosen: list[int] = []
    for _ in range(loadings.shape[1]):
        size = np.linalg.norm(left, axis=1)
        size[chosen] = -1.0
        best = int(np.argmax(size))
        chosen.append(best)
        unit = left[best] / max(size[best], 1e-12)
        left = left - np.outer(left @ unit, unit)
    return chosen


def echelon(loadings: Floats, order: Sequence[int]) -> Floats:
    """The loadings rotated so that column k is 0 in the rows before the k-th of `order`, where it is positive."""
    q, r = np.linalg.qr(loadings[list(order)].T)
    sign = np.where(r.diagonal() < 0, -1.0, 1.0)
    out: Floats = loadings @ (q * sign)
    return out


# -- after ------------------------------------------------------------------------------------------------------


def rotated_values(
    table: ParameterTable,
    blocks: Sequence[BlockMap],
    values: Floats,
    variances: Mapping[tuple[int, int], Mapping[str, float]],
) -> tuple[Floats, tuple[RotatedBlock, ...]]:
    """Values of all rows of a table after rotation.

    Parameters
    ----------
    table : ParameterTable
    blocks : sequence of BlockMap
        Of the table.
    values : ndarray, shape (rows,)
        Before rotation.
    variances : mapping from (level, group) to mapping from name to float
        Implied variances.
    """
    out = values.copy()
    found = []
    for own in table.exploratory:
        block = next(b for b in blocks if (b.level, b.group) == (own.level, own.group))
        paths = block_matrices(block, out)[0]
        at = {name: i for i, name in enumerate(block.names)}
        rows, cols = [at[n] for n in own.indicators], [at[n] for n in own.factors]
        loadings = paths[np.ix_(rows, cols)]
        scale = _scale(table.rotation, own, loadings, np.eye(len(cols)), variances[own.level, own.group])
        rotation = table.rotation
        minima = criterion_of(rotation, own).rotate(
            np.asfortranarray(loadings / scale[:, None]), rotation.orthogonal, rotation.starts, rotation.seed
        )
        transformation, best = minima[0][0], minima[0][1]
        order, sign = canonical(best)
        if (
            rotation.method == "target"
        ):  # it has an order, and signs but of columns in which only zeros are wanted
            wanted = np.array(rotation.target_of(own))
            order = np.arange(len(cols))
            sign = np.where((best.sum(axis=0) < 0) & (np.nansum(np.abs(wanted), axis=0) == 0), -1.0, 1.0)
        transformation = transformation[:, order] * sign
        found.append(RotatedBlock(own, transformation, tuple(Minimum(*m[2:]) for m in minima)))
        out = transformed(table, block, own, out, transformation)
    return out, tuple(found)


def transformed(
    table: ParameterTable, block: BlockMap, own: ExploratoryBlock, values: Floats, transformation: Floats
) -> Floats:
    """Values of all rows after the factors eta of a block have become T'eta: linear in the values.

    Parameters
    ----------
    table : ParameterTable
    block : BlockMap
        Of the level and group of the factors.
    own : ExploratoryBlock
    values : ndarray, shape (..., rows)
    transformation : ndarray, shape (m, m)
        T.
    """
    at = [block.names.index(name) for name in own.factors]
    mixed, undone = np.eye(len(block.names)), np.eye(len(block.names))
    mixed[np.ix_(at, at)] = transformation.T
    undone[np.ix_(at, at)] = np.linalg.inv(transformation.T)
    paths, residual, mean = _matrices(block, values)
    matrices = (mixed @ paths @ undone, mixed @ residual @ mixed.T, mean @ mixed.T)
    return _with_values(table, block, values, matrices)


def _matrices(block: BlockMap, values: Floats) -> tuple[Floats, Floats, Floats]:
    """Paths, residual covariances and intercepts of a block, stacked as the values are."""
    paths, residual = block_matrices(block, values)
    mean = np.zeros((*values.shape[:-1], len(block.names)))
    intercepts = block.slot == INTERCEPT
    mean[..., block.row[intercepts]] = values[..., block.rows[intercepts]]
    return paths, residual, mean


def _with_values(
    table: ParameterTable, block: BlockMap, values: Floats, matrices: tuple[Floats, Floats, Floats]
) -> Floats:
    """Values of all rows with those of the free rows of a block from its matrices."""
    out = values.copy()
    for i, slot, row, col in zip(block.rows, block.slot, block.row, block.col, strict=True):
        if table.rows[i].free:
            out[..., i] = matrices[slot][..., row] if slot == INTERCEPT else matrices[slot][..., row, col]
    return out


def follow_rotation(
    model: Model,
    core: _core.Objective,
    theta: Floats,
    blocks: Sequence[RotatedBlock],
    moves: Floats,
) -> Floats:
    """How rotated parameters move when those before rotation do, shape (npar, k).

    They move as they would under the rotation that was found, and this moves so that the conditions go on holding.

    Parameters
    ----------
    model : Model
        Table and blocks.
    core : _core.Objective
    theta : ndarray, shape (npar,)
        Rotated parameters.
    blocks : sequence of RotatedBlock
    moves : ndarray, shape (rows, k)
        Of the values of all rows of the table before rotation.
    """
    table = model.table
    values = row_values(table, theta)
    change, turns = moves.T, []
    for one in blocks:
        own = one.block
        block = next(b for b in model.blocks if (b.level, b.group) == (own.level, own.group))
        change = transformed(table, block, own, change, one.transformation)
        at = [block.names.index(name) for name in own.factors]
        paths, residual, mean = _matrices(block, values)
        for x in _turns(residual[np.ix_(at, at)], orthogonal=table.rotation.orthogonal):
            turn = np.zeros_like(paths)
            turn[np.ix_(at, at)] = x.T
            moved = (turn @ paths - paths @ turn, turn @ residual + residual @ turn.T, turn @ mean)
            turns.append(_with_values(table, block, np.zeros(len(values)), moved))
    first = np.array(
        [next(i for i, r in enumerate(table.rows) if r.free == k + 1) for k in range(len(theta))]
    )
    direct = change[:, first].T
    if not turns:
        return direct
    orbit, rows = np.array(turns)[:, first].T, condition_rows(model, core, theta)
    out: Floats = direct - orbit @ np.linalg.solve(rows @ orbit, rows @ direct)
    return out


def _turns(correlations: Floats, *, orthogonal: bool) -> list[Floats]:
    """Directions X in which T may go on to T(I + X): antisymmetric, or keeping the lengths of the columns of T."""
    m, out = len(correlations), []
    for j in range(m):
        for i in range(j + 1 if orthogonal else 0, m):
            if i == j:
                continue
            x = np.zeros((m, m))
            x[i, j] = 1.0
            x[(j, i) if orthogonal else (j, j)] = -1.0 if orthogonal else -correlations[i, j]
            out.append(x)
    return out


def _scale(
    rotation: Rotation,
    block: ExploratoryBlock,
    loadings: Floats,
    correlations: Floats,
    variances: Mapping[str, float],
) -> Floats:
    """What loadings are divided by before they are rotated."""
    if rotation.kaiser:
        communality = np.einsum("ij,jk,ik->i", loadings, correlations, loadings)
        lengths: Floats = np.sqrt(np.maximum(communality, 1e-12))
        return lengths
    if not rotation.std_ov:
        return np.ones(len(loadings))
    deviations: Floats = np.sqrt([max(variances[name], 1e-12) for name in block.indicators])
    return deviations


def canonical(loadings: Floats) -> tuple[NDArray[np.intp], Floats]:
    """Order of the columns by the row of their largest loading, and signs that make their sums positive."""
    sizes = np.abs(loadings)
    order = np.lexsort((-sizes.max(axis=0), sizes.argmax(axis=0)))
    sums = loadings[:, order].sum(axis=0)
    return order, np.where(sums < 0, -1.0, 1.0)


def condition_rows(model: Model, core: _core.Objective, theta: Floats) -> Floats:
    """Derivatives of the conditions that rotated parameters meet, shape (conditions, npar).

    Those on the scale on which loadings are rotated: the implied variances of the indicators, or their communalities,
    move with the parameters.

    Parameters
    ----------
    model : Model
        Table and blocks.
    core : _core.Objective
    theta : ndarray, shape (npar,)
    """
    table = model.table
    values = row_values(table, theta)
    where = {(r.lhs, r.op, r.rhs, r.level, r.group): i for i, r in enumerate(table.rows)}
    out = [np.empty((0, len(theta)))]
    for own in table.exploratory:
        p, m = len(own.indicators), len(own.factors)
        if m == 1:
            continue
        number = next(i for i, b in enumerate(model.blocks) if (b.level, b.group) == (own.level, own.group))

        def row(lhs: str, op: str, rhs: str, own: ExploratoryBlock = own) -> int:
            return where[lhs, op, rhs, own.level, own.group]

        at = [[row(f, "=~", y) for f in own.factors] for y in own.indicators]
        loadings = values[at]
        unit = _unit_rows(table, len(theta))
        move = unit[np.array(at).ravel(order="F")].reshape(m, p, -1).transpose(1, 0, 2)
        correlations, pairs = np.eye(m), []
        for j in range(m):
            for i in range(j + 1, m):
                a, b = own.factors[j], own.factors[i]
                k = row(a, "~~", b) if (a, "~~", b, own.level, own.group) in where else row(b, "~~", a)
                correlations[i, j] = correlations[j, i] = values[k]
                pairs.append(k)
        turn = unit[pairs]
        square, change = _squares(model, core, theta, number, own, (loadings, move), (correlations, turn))
        scale = np.sqrt(square)
        scaled = loadings / scale[:, None]
        by_scale = scaled[:, :, None] * (change / (2 * square)[:, None])[:, None, :]
        moved = move / scale[:, None, None] - by_scale
        orthogonal = table.rotation.orthogonal
        jacobian = criterion_of(table.rotation, own).conditions(
            np.asfortranarray(scaled), correlations, orthogonal
        )[1]
        rows = jacobian[:, : p * m] @ moved.transpose(1, 0, 2).reshape(p * m, -1)
        out.append(rows if orthogonal else rows + jacobian[:, p * m :] @ turn)
    return np.vstack(out)


def _unit_rows(table: ParameterTable, npar: int) -> Floats:
    """Derivatives of the values of all rows by the parameters."""
    out = np.zeros((len(table.rows), npar))
    for i, row in enumerate(table.rows):
        if row.free:
            out[i, row.free - 1] = 1.0
    return out


def _squares(
    model: Model,
    core: _core.Objective,
    theta: Floats,
    number: int,
    own: ExploratoryBlock,
    loading: tuple[Floats, Floats],
    correlation: tuple[Floats, Floats],
) -> tuple[Floats, Floats]:
    """Squares of the scale of each indicator, shape (p,), and their derivatives, shape (p, npar)."""
    rotation, (values, move), (phi, turn) = model.table.rotation, loading, correlation
    p, m = values.shape
    if rotation.kaiser:
        square = np.einsum("ij,jk,ik->i", values, phi, values)
        change = 2 * np.einsum("ijn,jk,ik->in", move, phi, values)
        pairs = [(i, j) for j in range(m) for i in range(j + 1, m)]
        for k, (i, j) in enumerate(pairs):
            change += 2 * np.outer(values[:, i] * values[:, j], turn[k])
        return square, change
    if not rotation.std_ov:
        return np.ones(p), np.zeros((p, len(theta)))
    block = model.blocks[number]
    n = block.nobserved
    diagonal = n + np.cumsum([0, *range(n, 1, -1)])  # of the lower triangle by column, below the means
    at = [block.names.index(name) for name in own.indicators]
    covariance = core.implied(theta, number)[1]
    change = core.jacobian(theta, number)[diagonal[at]]
    return covariance.diagonal()[at], change
