"""Reliability of sums of the categories of ordered items (Green & Yang, 2009), at one level and at two.

With z a part of the variables y* that the items are cut from, with covariance matrix C, the expected category given z
has covariances

    Cov(E[X_j | z], E[X_k | z]) = sum over thresholds { Phi2(t_j, t_k; C_jk / (s_j s_k)) - Phi(t_j) Phi(t_k) },

t the standardized thresholds, s_j^2 the variance of y*_j, since two y* that share z alone have the correlation
C_jk / (s_j s_k). With z the factors this is what is true of a sum; with z what clusters have in common, its part
between clusters; and the variance of the sum is that of z everything, where a category goes with itself by Phi(min).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.distributions import normal_cdf, normal_density
from msem.errors import UnsupportedError
from msem.estimation.matrices import Numbers, row_values
from msem.estimation.solution import Solution, free_vcov
from msem.postestimation.delta import MonteCarlo, shares
from msem.postestimation.ram import Block, Structure, divide, implied_mean, structures

Floats = NDArray[np.float64]
Blocks = Mapping[Block, Structure]
Score = Sequence[tuple[str, float]]  # items with their weights


@dataclass(frozen=True)
class Composite:
    """Weighted sum of the indicators of one factor.

    Attributes
    ----------
    factor : str
    level, group : int
    items : tuple of str
    weights : tuple of float
    """

    factor: str
    level: int
    group: int
    items: tuple[str, ...]
    weights: tuple[float, ...]


def ordered_reliability(
    fit: Solution,
    parts: Sequence[Composite],
    pairs: Sequence[tuple[Composite, Composite]],
    ci_level: float,
    how: MonteCarlo | None,
) -> list[tuple[str, int, int, str, str, float, float, float, float]]:
    """Rows of the table of reliability coefficients.

    Parameters
    ----------
    fit : Solution
    parts : sequence of Composite
    pairs : sequence of (Composite, Composite)
        Of level 1 and 2 that have the same items.
    ci_level : float
    how : MonteCarlo or None

    Raises
    ------
    UnsupportedError
        For logistic residuals.
    """
    if fit.table.ordered.residual != 1.0:
        raise UnsupportedError(
            'reliability of sums of ordered items is for normal residuals: fit the model with link="probit"'
        )
    sizes = {group: s.harmonic_size for group, s in enumerate(fit.sample.statistics, 1)}
    wanted: list[tuple[str, int, Composite, str, Callable[[_Categories], Numbers]]] = []
    for part in parts:
        if part.level > 1 or not fit.table.multilevel:
            wanted.append((part.factor, part.level, part, "omega", partial(_of_common, part=part)))
        else:
            wanted.append((part.factor, part.level, part, "omega", partial(_of_units, part=part)))
        if part.level > 1:
            value = partial(_of_means, part=part, size=sizes[part.group])
            wanted.append((part.factor, part.level, part, "omega_b", value))
    for within, between in pairs:
        name = within.factor if within.factor == between.factor else f"{within.factor} + {between.factor}"
        wanted.append((name, 0, within, "omega_2l", partial(_of_scores, within=within, between=between)))
    wanted.sort(key=lambda one: one[2].group)

    def quantity(theta: Numbers) -> Numbers:
        categories = {group: _Categories(fit, theta, group) for group in {one[2].group for one in wanted}}
        return np.stack([value(categories[part.group]) for _, _, part, _, value in wanted], axis=-1)

    numbers = shares(quantity, fit.theta, free_vcov(fit), ci_level, how)
    return [
        (factor, level, part.group, name, ", ".join(part.items), *row)
        for (factor, level, part, name, _), row in zip(wanted, numbers.tolist(), strict=True)
    ]


class _Categories:
    """Moments of categories of one group at theta."""

    def __init__(self, fit: Solution, theta: Numbers, group: int) -> None:
        values = row_values(fit.model.table, theta)
        blocks = structures(fit.model, theta)
        self.levels = {level: own for (level, of), own in blocks.items() if of == group}
        self.means = {
            block.level: implied_mean(block, blocks[block.level, group], values)
            for block in fit.model.blocks
            if block.group == group
        }
        cuts: dict[str, list[tuple[int, Numbers]]] = {}
        for k, row in enumerate(fit.model.table.rows):
            if row.op == "|" and row.group == group:
                cuts.setdefault(row.lhs, []).append((int(row.rhs[1:]), values[..., k]))
        self.cuts = {
            name: np.stack([cut for _, cut in sorted(own, key=lambda one: one[0])], axis=-1)
            for name, own in cuts.items()
        }

    def common(self, items: Sequence[str], level: int) -> Numbers:
        """Covariance matrix of all that the items have at a level."""
        return self.levels[level].among(items)

    def true(self, part: Composite) -> Numbers:
        """Covariance matrix of what the factor adds to its items."""
        own = self.levels[part.level]
        at = own.at[part.factor]
        loading = own.from_to(part.factor, part.items)
        out: Numbers = own.cov[..., at, at, None, None] * loading[..., :, None] * loading[..., None, :]
        return out

    def variance(self, part: Composite, shared: Numbers, *, whole: bool = False) -> Numbers:
        """Variance of the expected sum given a part of y* with this covariance matrix; of the sum itself if `whole`."""
        items, weights = part.items, np.asarray(part.weights)
        total = sum(self.common(items, level) for level in self.levels)
        sd = np.sqrt(np.diagonal(total, axis1=-2, axis2=-1))
        cuts = []
        for k, name in enumerate(items):
            mean = np.sum(
                [self.means[k][..., own.at[name]] for k, own in self.levels.items() if name in own.at], axis=0
            )
            cuts.append((self.cuts[name] - mean[..., None]) / sd[..., k, None] if name in self.cuts else None)
        out: Numbers = np.zeros(shared.shape[:-2], shared.dtype)
        for j in range(len(items)):
            for k in range(j + 1):
                r = shared[..., j, k] / (sd[..., j] * sd[..., k])
                cov = self._pair(cuts[j], cuts[k], sd[..., j], sd[..., k], r, same=whole and j == k)
                out = out + (1 if j == k else 2) * weights[j] * weights[k] * cov
        return out

    def _pair(
        self,
        one: Numbers | None,
        other: Numbers | None,
        sd: Numbers,
        sd_other: Numbers,
        r: Numbers,
        *,
        same: bool,
    ) -> Numbers:
        if one is None and other is None:
            linear: Numbers = r * sd * sd_other
            return linear
        if one is None or other is None:
            cut, scale = (one, sd_other) if one is not None else (other, sd)
            assert cut is not None
            mixed: Numbers = r * scale * _density(cut).sum(axis=-1)
            return mixed
        p, q = _cdf(one), _cdf(other)
        if same:
            lower = np.minimum(np.arange(one.shape[-1])[:, None], np.arange(one.shape[-1]))
            both = p[..., lower]
        else:
            both = _binormal(one[..., :, None], other[..., None, :], r[..., None, None])
        out: Numbers = (both - p[..., :, None] * q[..., None, :]).sum(axis=(-2, -1))
        return out


def _of_common(at: _Categories, part: Composite) -> Numbers:
    """Of a sum at one level, or of what clusters have in common: given the factor, over given all of the level."""
    whole = len(at.levels) == 1
    shared = at.common(part.items, part.level)
    return divide(at.variance(part, at.true(part)), at.variance(part, shared, whole=whole))


def _of_units(at: _Categories, part: Composite) -> Numbers:
    """Of deviations of units from what is common to their cluster."""
    above = at.common(part.items, 2)
    between = at.variance(part, above)
    whole = at.variance(part, above + at.common(part.items, 1), whole=True)
    return divide(at.variance(part, above + at.true(part)) - between, whole - between)


def _of_means(at: _Categories, part: Composite, size: float) -> Numbers:
    """Of observed means of clusters of so many units."""
    above = at.common(part.items, 2)
    between = at.variance(part, above)
    whole = at.variance(part, above + at.common(part.items, 1), whole=True)
    return divide(at.variance(part, at.true(part)), between + (whole - between) / size)


def _of_scores(at: _Categories, within: Composite, between: Composite) -> Numbers:
    """Of the sums of units, both factors being true."""
    order = [between.items.index(name) for name in within.items]
    true = at.true(within) + at.true(between)[..., order, :][..., order]
    total = at.common(within.items, 1) + at.common(within.items, 2)
    return divide(at.variance(within, true), at.variance(within, total, whole=True))


def _cdf(z: Numbers) -> Numbers:
    value = normal_cdf(z.real)
    out: Numbers = value + 1j * z.imag * normal_density(z.real) if np.iscomplexobj(z) else value
    return out


def _density(z: Numbers) -> Numbers:
    value = normal_density(z.real)
    out: Numbers = value - 1j * z.imag * z.real * value if np.iscomplexobj(z) else value
    return out


def _binormal(x: Numbers, y: Numbers, r: Numbers) -> Numbers:
    """Bivariate normal distribution function, complex for a derivative by a step that is."""
    x, y, r = np.broadcast_arrays(x, y, r)
    a, b, c = (np.ascontiguousarray(one.real) for one in (x, y, np.clip(r.real, -1 + 1e-12, 1 - 1e-12)))
    value: Numbers = _core.binormal_between(a, -np.inf, b, -np.inf, c)
    if not any(map(np.iscomplexobj, (x, y, r))):
        return value
    root = np.sqrt(1 - c**2)
    step = x.imag * normal_density(a) * normal_cdf((b - c * a) / root)
    step = step + y.imag * normal_density(b) * normal_cdf((a - c * b) / root)
    step = step + r.imag * normal_density(a) * normal_density((b - c * a) / root) / root
    out: Numbers = value + 1j * step
    return out
