"""What models with random slopes imply about the data, in terms that do not depend on how they are written.

Where covariates of slopes are observed these are the moments of the saturated model of slopes
(`msem.estimation.slope_moments`), of which every model has its own values, random slopes or not. Where slopes are
integrated over they are what the likelihood knows, for models that have the same slopes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msem.data.arrays import projected, vech
from msem.estimation.estimate import Estimate
from msem.estimation.objective import Objective
from msem.estimation.slope_moments import Coordinates, coordinate_moments
from msem.model.slopes import Slope

Floats = NDArray[np.float64]

MOST_STEPS = 200
MOST_HALVINGS = 30
SETTLED = 1e-12  # relative decrease of the sum of squares


@dataclass(frozen=True, eq=False)
class SlopeSpace:
    """Moments by which two models with random slopes are compared.

    Attributes
    ----------
    coordinates : tuple of Coordinates
        Of each group; empty where the likelihood's own moments are taken.
    units : ndarray, shape (m,)
        Sizes of the moments.
    """

    coordinates: tuple[Coordinates, ...]
    units: Floats

    @classmethod
    def of(cls, small: Estimate, large: Estimate) -> SlopeSpace | None:
        """That in which a smaller model may be found in a larger one; None if there is none.

        The larger one has to have slopes of all covariates that have one in the smaller one.
        """
        groups = range(1, large.table.ngroups + 1)
        if any(_hidden(fit, group) for fit in (small, large) for group in groups):
            if any(small.table.slopes(group) != large.table.slopes(group) for group in groups):
                return None
            return cls((), np.concatenate([_own_units(small, group) for group in groups]))
        if any(_missing(small.table.slopes(group), large.table.slopes(group)) for group in groups):
            return None
        coordinates = tuple(
            Coordinates.of(large.table, group, statistics.variables.levels)
            for group, statistics in enumerate(large.objective.statistics, 1)
        )
        bare = cls(coordinates, np.ones(1))
        values = bare.moments(small.objective, small.theta)[0]
        ends = np.cumsum([len(own.keys(1)) for own in coordinates])[:-1]
        parts = zip(coordinates, np.split(values, ends), strict=True)
        return cls(coordinates, np.concatenate([own.units(part) for own, part in parts]))

    def moments(self, objective: Objective, theta: Floats) -> tuple[Floats, Floats]:
        """Moments that a model implies in these units, shape (m,), and their derivatives, shape (m, npar)."""
        if self.coordinates:
            parts = [
                coordinate_moments(own, objective, theta, group)
                for group, own in enumerate(self.coordinates, 1)
            ]
        else:
            parts = [
                (
                    np.concatenate([mean, vech(cov)]),
                    objective.core.jacobian(theta, objective.blocks.index(block)),
                )
                for group in range(1, objective.table.ngroups + 1)
                for block, (mean, cov) in zip(
                    [block for block in objective.blocks if block.group == group],
                    objective.observed_moments(theta, group),
                    strict=True,
                )
            ]
        values, jacobian = np.concatenate([one for one, _ in parts]), np.vstack([one for _, one in parts])
        return values / self.units, jacobian / self.units[:, None]

    def nearest(self, target: Floats, large: Estimate, start: Floats) -> tuple[float, Floats]:
        """Sum of squares, and parameters, of the larger model where its moments are closest to some: Gauss-Newton."""
        theta, tangent = start, large.unbounded_tangent
        values, jacobian = self.moments(large.objective, theta)
        off = target - values
        value = float(off @ off)
        for _ in range(MOST_STEPS):
            step = tangent @ projected(off, jacobian @ tangent, rcond=1e-10)
            for halving in range(MOST_HALVINGS):
                again = theta + 0.5**halving * step
                values, changed = self.moments(large.objective, again)
                left = target - values
                if left @ left < value:
                    break
            else:
                break
            gain = value - float(left @ left)
            theta, jacobian, off, value = again, changed, left, float(left @ left)
            if gain <= SETTLED * value or value < SETTLED**2:
                break
        return value, theta


def _hidden(fit: Estimate, group: int) -> bool:
    """Whether a slope has a covariate that is latent or stands at several levels."""
    statistics = fit.objective.statistics[group - 1]
    observed = set(statistics.names) - set(statistics.variables.both)
    return any(slope.covariate not in observed for slope in fit.table.slopes(group))


def _missing(some: Sequence[Slope], others: Sequence[Slope]) -> bool:
    """Whether covariates of some slopes have none at these levels among others."""
    known = {(slope.covariate, slope.level, at) for slope in others for at in slope.at}
    return any((slope.covariate, slope.level, at) not in known for slope in some for at in slope.at)


def _own_units(fit: Estimate, group: int) -> Floats:
    """Sizes of what the likelihood knows: products have variance 1, slopes the size of their variance and mean."""
    parts = []
    for mean, cov in fit.objective.observed_moments(fit.theta, group):
        variance = np.abs(cov.diagonal())
        size = np.sqrt(np.where(variance > 0, variance, np.where(mean != 0, mean**2, 1.0)))
        parts.append(np.concatenate([size, vech(np.outer(size, size))]))
    return np.concatenate(parts)
