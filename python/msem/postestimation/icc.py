"""Intraclass correlations with standard errors, implied by a model or from saturated moments."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from msem.data.intraclass import icc_columns
from msem.data.statistics import Statistics
from msem.errors import ModelError
from msem.estimation.objective import Objective
from msem.postestimation.delta import Derived, Quantity, delta_method
from msem.postestimation.ram import Numbers, Structure, divide, structures
from msem.postestimation.unrestricted import Unrestricted

__all__ = ["at_both_levels", "icc_frame", "model_icc", "saturated_icc"]


def at_both_levels(objective: Objective, group: int) -> list[str]:
    """Observed variables of both levels, then latent variables that have the same name at both."""
    within, between = (
        next(b.names for b in objective.blocks if (b.level, b.group) == (level, group)) for level in (1, 2)
    )
    return [name for name in within if name in between]


def model_icc(objective: Objective, group: int) -> Quantity:
    """Model-implied intraclass correlations of `at_both_levels` as a function of theta.

    Raises
    ------
    ModelError
        If no variable is at both levels.
    """
    names = at_both_levels(objective, group)
    if not names:
        raise ModelError("no variable is at both levels, so there is no intraclass correlation")

    def quantity(theta: Numbers) -> Numbers:
        blocks = structures(objective, theta)
        within, between = (_variances(blocks[level, group], names) for level in (1, 2))
        return divide(between, within + between)

    return quantity


def saturated_icc(moments: Unrestricted, names: Sequence[str]) -> Derived:
    """Intraclass correlations of variables at both levels, from saturated moments."""

    def quantity(vector: Numbers) -> Numbers:
        (within, between) = (_variances(block, names) for block in moments.blocks(vector).values())
        return divide(between, within + between)

    return delta_method(quantity, moments.vector, moments.gamma)


def _variances(block: Structure, names: Sequence[str]) -> Numbers:
    return block.variances[..., [block.at[name] for name in names]]


def icc_frame(
    names: Sequence[str], group: int, found: Derived, statistics: Statistics, level: float
) -> pd.DataFrame:
    """Intraclass correlations of one group: columns lhs, group, and those of `icc_columns`."""
    sizes = dict(zip(statistics.sizes.tolist(), statistics.counts.tolist(), strict=True))
    frame = icc_columns(found.est, found.se, sizes, level)
    frame.insert(0, "lhs", list(names))
    frame.insert(1, "group", group)
    return frame
