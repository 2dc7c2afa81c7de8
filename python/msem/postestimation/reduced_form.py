"""What models of ordered variables imply about the data, in terms that do not depend on how they are written.

Categories say nothing about the location and the scale of the normal variables that they are cut from. What the data
are distributed by are the statistics that the first stage of least squares would estimate: thresholds, means, slopes
on covariates, variances and covariances, in units of standard deviations within. So the same functions of the
parameters tell whether two models that were fitted by maximum likelihood contain each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.first_stage import Statistic
from msem.data.ordered import first_stage_keys
from msem.data.statistics import Statistics
from msem.estimation.estimate import Estimate
from msem.estimation.least_squares import first_stage_discrepancy
from msem.estimation.objective import Objective, build_objective
from msem.model.partable import ParameterTable

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ReducedForm:
    """Statistics of the first stage as functions of the parameters of a model.

    Attributes
    ----------
    objective : Objective
        The squares of what `values` differ by from those of the model, times the number of units.
    keys : tuple of tuple of Statistic
        Of each group.
    values : tuple of ndarray
    """

    objective: Objective
    keys: tuple[tuple[Statistic, ...], ...]
    values: tuple[Floats, ...]

    @property
    def losses(self) -> Sequence[_core.LeastSquares]:
        """The discrepancy of each group."""
        return [loss for loss in self.objective.loss if isinstance(loss, _core.LeastSquares)]

    def implied(self, theta: Floats) -> tuple[Floats, ...]:
        """The statistics of each group at some parameters."""
        return tuple(
            loss.fitted(self.objective.observed_moments(theta, group))
            for group, loss in enumerate(self.losses, 1)
        )

    def jacobian(self, theta: Floats) -> Floats:
        """Their derivatives, groups one below the other, in units of one over the root of the number of units."""
        return self.objective.core.information_factor(theta)


def reduced_form(
    fit: Estimate, keys: Sequence[Sequence[Statistic]], values: Sequence[Floats] | None = None
) -> ReducedForm:
    """The reduced form of a model with ordered variables that was fitted by maximum likelihood.

    Parameters
    ----------
    fit : Estimate
        Without random slopes.
    keys : sequence of sequences of Statistic
        Of each group; see `reduced_keys`. Ordered variables are in units of their standard deviations unless these are
        among them.
    values : sequence of ndarray, optional
        What the statistics are held against; default: 0.
    """
    table = fit.table
    plain = [_plain(s) for s in fit.objective.statistics]
    losses, against = [], []
    for group, (s, own) in enumerate(zip(plain, keys, strict=True), 1):
        target = np.zeros(len(own)) if values is None else values[group - 1]
        known = {key.lhs for key in own if key.op == "~~" and key.lhs == key.rhs and key.level == 1}
        scaled = [n for n in s.variables.names if n in table.ordered.thresholds and n not in known]
        among = [name for names in _covariates(table, group) for name in names]
        weight = np.full((len(own), 1), s.nobs)
        losses.append(first_stage_discrepancy(table, s.variables, group, own, target, weight, among, scaled))
        against.append(target)
    return ReducedForm(build_objective(table, plain, losses), tuple(map(tuple, keys)), tuple(against))


def reduced_keys(*fits: Estimate) -> tuple[tuple[Statistic, ...], ...]:
    """The statistics by which models are compared, of each group.

    The distribution of categories with logistic residuals depends on the variances in units of these, too, and that
    with normal ones does not. They are compared where all residual variances are known.
    """
    table = fits[0].table
    counts = table.ordered.thresholds
    fixed = all(_fixed_scale(fit.table) for fit in fits)
    out = []
    for group, s in enumerate(fits[0].objective.statistics, 1):
        keys = first_stage_keys(s.variables, _covariates(table, group), counts)
        if fixed:
            ordered = [name for name in s.variables.names if name in counts]
            keys += tuple(Statistic(name, "~~", name, table.scale_level(name)) for name in ordered)
        out.append(keys)
    return tuple(out)


def _covariates(table: ParameterTable, group: int) -> list[tuple[str, ...]]:
    return [table.exogenous(level, group) for level in range(1, table.nlevels + 1)]


def _plain(statistics: Statistics) -> Statistics:
    """Statistics whose likelihood knows of no latent variables."""
    return statistics if statistics.integral is None else statistics.integral.plain


def _fixed_scale(table: ParameterTable) -> bool:
    """Whether residuals are logistic, of variances that are known."""
    residual = table.ordered.residual
    own: Mapping[str, int] = {name: table.scale_level(name) for name in table.ordered.thresholds}
    return table.ordered.logistic and all(
        not row.free and row.value == residual
        for row in table.rows
        if row.op == "~~" and row.lhs == row.rhs and own.get(row.lhs) == row.level
    )
