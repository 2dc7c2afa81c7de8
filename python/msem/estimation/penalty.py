"""The penalty on covariance matrices above level 1 that are close to singular, as a term of the objective."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from msem import _core
from msem.data.sample import Sample
from msem.estimation.matrices import DIRECTED, SYMMETRIC, BlockMap
from msem.model.levels import BETWEEN
from msem.model.partable import ParameterTable


def penalized(table: ParameterTable, sample: Sample) -> ParameterTable:
    """The same model with -log|S_b| - log|L'WL| added to -2 log L for each level above the first.

    S_b are the residual covariances of the level, L the loadings of its factors on observed variables and W one over
    total variances, which are those of this sample (Chung et al., 2013, 2015). So factors count by what they contribute
    to their indicators, whatever the markers and the rotation.

    Parameters
    ----------
    table : ParameterTable
        Of several levels.
    sample : Sample
    """
    return replace(table, penalty=tuple(group.total_variance for group in sample.groups))


def penalty_terms(table: ParameterTable, blocks: Sequence[BlockMap]) -> list[_core.VariancePenalty]:
    """The compiled penalties of each group and each level above the first, of a model with one.

    Variances that are fixed at 0, and covariates, have no part in it.
    """
    return [
        _of_block(table, block, table.penalty[block.group - 1]) for block in blocks if block.level >= BETWEEN
    ]


def _of_block(table: ParameterTable, block: BlockMap, scales: dict[str, float]) -> _core.VariancePenalty:
    rows = [table.rows[i] for i in block.rows]
    place = {name: int(at) for name, at in zip(block.names, block.places, strict=True)}
    without = {*table.covariates(block.level, block.group), *table.auxiliary}
    variances = [
        place[r.lhs]
        for r in rows
        if r.op == "~~" and r.lhs == r.rhs and not r.exo and r.lhs not in without and (r.free or r.value > 0)
    ]
    latent = set(block.names[block.nobserved :])
    measured = {r.lhs for r in rows if r.op == "=~"}
    above = {
        r.lhs for r in rows if r.op == "=~" and r.rhs in latent
    }  # whose effects go through other factors
    own = [name for name in block.names if name in measured and place[name] in variances]
    first = [place[name] for name in own if name not in above]
    factors = [*([first] if first else []), *([place[name]] for name in own if name in above)]
    weights = np.zeros(len(block.names) + block.products)
    for name in block.names[: block.nobserved]:
        weights[place[name]] = 1.0 / (scales[name] if scales[name] > 0 else 1.0)

    def elements(slot: int, among: set[int] | None) -> list[tuple[int, int, int, float]]:
        out = []
        for r, kind, row, col in zip(
            rows, block.slot, block.places[block.row], block.places[block.col], strict=True
        ):
            if kind == slot and (r.op == "=~" if among is None else {int(row), int(col)} <= among):
                out.append((int(row), int(col), r.free - 1, 0.0 if r.free else r.value))
        return out

    return _core.VariancePenalty(
        elements(SYMMETRIC, set(variances)), elements(DIRECTED, None), variances, factors, weights
    )
