"""What a model with random slopes says in the coordinates of the saturated model of slopes.

In the saturated model every outcome has a random coefficient of every covariate that has one anywhere. A model with
slopes is one of its kind: outcome y has coefficient c + sum_k lambda_k s_k of a covariate, c being the fixed path from
it and lambda_k what slope k adds to y. So there are moments of both models that can be held against each other: those
of the coefficients, next to the other variables of their level, and those of the level of the covariates without what
these coefficients add.

    T = I - C,   Sigma -> T Sigma T',   coefficients of covariate x = C_x + (T Lambda)_x s

where C are the coefficients of covariates with slopes in the regression of each outcome on them and on fixed
covariates, and Lambda is what the products with slopes add to each variable. Of three levels, slopes of lower levels
are variables of the upper ones, whose own covariates may have slopes in their turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msem.data.arrays import projected, vech_index
from msem.data.sample import Group
from msem.errors import UnsupportedError
from msem.estimation.estimate import Estimate
from msem.estimation.matrices import BlockMap, Numbers
from msem.estimation.moment_vector import (
    Kind,
    Moment,
    MomentErrors,
    MomentVector,
    inverse,
    inverse_in,
    normal_roots,
)
from msem.estimation.objective import Objective
from msem.estimation.sampling import free_directions
from msem.estimation.scoreproducts import cluster_correction
from msem.estimation.slopes import SlopeReference
from msem.model.derived import saturated_slopes
from msem.model.partable import ParameterTable
from msem.model.slopes import Slope

Floats = NDArray[np.float64]
Places = NDArray[np.intp]

STEP = 1e-30  # of complex steps
ROUNDING = 1e-13  # share of the size of the moments
MOST_STEPS = 20


@dataclass(frozen=True, eq=False)
class Coordinates:
    """The variables of every level of the saturated model of slopes of a group.

    Attributes
    ----------
    slopes : tuple of Slope
        Of the saturated model.
    names : mapping from int to tuple of str
        Observed variables of each level and the slopes that are variables of it.
    exogenous : mapping from int to tuple of str
        Fixed covariates of each level.
    """

    slopes: tuple[Slope, ...]
    names: Mapping[int, tuple[str, ...]]
    exogenous: Mapping[int, tuple[str, ...]]

    @classmethod
    def of(cls, table: ParameterTable, group: int, levels: Sequence[tuple[str, ...]]) -> Coordinates:
        """Those of a group with these observed variables, level 1 first."""
        slopes = saturated_slopes(table, group)
        names = {
            level: (*observed, *(slope.name for slope in slopes if level in slope.at))
            for level, observed in enumerate(levels, 1)
        }
        return cls(slopes, names, {level: tuple(table.exogenous(level, group)) for level in names})

    def top(self, name: str) -> int:
        """The highest level that has a variable."""
        return max(level for level, names in self.names.items() if name in names)

    def keys(self, group: int) -> tuple[Moment, ...]:
        """Covariances of each level, then means, which belong to the highest level of a variable."""
        keys = [
            Moment(names[j], "~~", names[i], level, group)
            for level, names in self.names.items()
            for i, j in zip(*vech_index(len(names)), strict=True)
        ]
        every = dict.fromkeys(name for level in sorted(self.names) for name in self.names[level])
        return (*keys, *(Moment(name, "~1", "", self.top(name), group) for name in every))

    def given(self, key: Moment) -> bool:
        """Whether a moment is one of fixed covariates among themselves."""
        fixed = self.exogenous[key.level]
        return key.lhs in fixed and (key.op == "~1" or key.rhs in fixed)

    def units(self, values: Floats) -> Floats:
        """Sizes of the variables of each moment, multiplied; of a slope its outcome's over its covariate's."""
        keys = self.keys(1)
        variance: dict[str, float] = {}
        for key, value in zip(keys, values, strict=True):
            if key.op == "~~" and key.lhs == key.rhs:
                variance[key.lhs] = variance.get(key.lhs, 0.0) + abs(float(value))
        for slope in self.slopes:
            variance[slope.name] = variance[slope.outcomes[0]] / variance[slope.covariate]
        unit = {name: np.sqrt(value) for name, value in variance.items()}
        return np.array([unit[key.lhs] * (unit[key.rhs] if key.op == "~~" else 1.0) for key in keys])

    def values(
        self, slopes: Sequence[Slope], blocks: Sequence[BlockMap], moments: Sequence[tuple[Numbers, Numbers]]
    ) -> Numbers:
        """Moments in these coordinates, shape (..., m), in the order of `keys`.

        Parameters
        ----------
        slopes : sequence of Slope
            Of the model.
        blocks : sequence of BlockMap
            Of its levels.
        moments : sequence of (mean, covariance matrix), shapes (..., n) and (..., n, n)
            Of each level as the core has them, products and slopes included; real or complex.
        """
        return self._parts(slopes, blocks, moments)[0]

    def coefficients(
        self, slopes: Sequence[Slope], blocks: Sequence[BlockMap], moments: Sequence[tuple[Floats, Floats]]
    ) -> dict[str, tuple[dict[str, float], float]]:
        """What slopes of the model add to each coefficient, and its fixed part; arguments as of `values`."""
        _, loads, fixed = self._parts(slopes, blocks, moments)
        return {
            name: ({slope: float(load) for slope, load in own.items()}, float(fixed[name]))
            for name, own in loads.items()
        }

    def _parts(
        self, slopes: Sequence[Slope], blocks: Sequence[BlockMap], moments: Sequence[tuple[Numbers, Numbers]]
    ) -> tuple[Numbers, dict[str, dict[str, Numbers]], dict[str, Numbers]]:
        shape, dtype = moments[0][0].shape[:-1], moments[0][0].dtype
        loads: dict[str, dict[str, Numbers]] = {}  # of coefficients on the slopes of the model
        fixed: dict[str, Numbers] = {}
        means: dict[str, Numbers] = {}
        covariances = []
        for block, (mean, cov) in zip(blocks, moments, strict=True):
            level, names = block.level, self.names[block.level]
            first = block.first_hidden
            place = {name: first + k for k, name in enumerate(block.slopes) if k >= block.products}
            rows = np.zeros((*shape, len(names), mean.shape[-1]), dtype)
            shift = np.zeros((*shape, len(names)), dtype)
            for i, name in enumerate(names):
                if name not in loads:
                    rows[..., i, block.names.index(name)] = 1
                    continue
                for slope, load in loads[name].items():
                    if slope in place:
                        rows[..., i, place[slope]] += load
                if level == self.top(name):
                    shift[..., i] = fixed[name]
            reach = cov[..., first : first + block.products]
            own = cov - reach @ _transposed(reach)
            own = rows @ own @ _transposed(rows)
            average = (rows @ mean[..., None])[..., 0] + shift
            added = rows @ reach
            if any(slope.level == level for slope in self.slopes):
                turned, paths = self._without_coefficients(level, own)
                own, added = turned @ own @ _transposed(turned), turned @ added
                average = (turned @ average[..., None])[..., 0]
                at = {name: i for i, name in enumerate(names)}
                products = block.slopes[: block.products]
                covariate = {slope.name: slope.covariate for slope in slopes}
                for own_slope in self.slopes:
                    if own_slope.level == level:
                        i = at[own_slope.outcomes[0]]
                        fixed[own_slope.name] = paths[..., i, at[own_slope.covariate]]
                        loads[own_slope.name] = {
                            name: added[..., i, k]
                            for k, name in enumerate(products)
                            if covariate[name] == own_slope.covariate
                        }
            low, high = vech_index(len(names))
            covariances.append(own[..., low, high])
            for i, name in enumerate(names):
                means[name] = means[name] + average[..., i] if name in means else average[..., i]
        vector: Numbers = np.concatenate([*covariances, np.stack(list(means.values()), axis=-1)], axis=-1)
        return vector, loads, fixed

    def _without_coefficients(self, level: int, cov: Numbers) -> tuple[Numbers, Numbers]:
        """The matrix that takes covariates with slopes out of outcomes, and their coefficients in these."""
        names = self.names[level]
        at = {name: i for i, name in enumerate(names)}
        given: dict[str, list[str]] = {}
        for slope in self.slopes:
            if slope.level == level:
                given.setdefault(slope.outcomes[0], []).append(slope.covariate)
        alike: dict[tuple[str, ...], list[str]] = {}
        for outcome, covariates in given.items():
            alike.setdefault(tuple(covariates), []).append(outcome)
        paths = np.zeros_like(cov)
        for together, outcomes in alike.items():
            x = [at[name] for name in dict.fromkeys([*together, *self.exogenous[level]])]
            y = [at[name] for name in outcomes]
            found = np.linalg.solve(_block(cov, x, x), _block(cov, x, y))
            for k in range(len(together)):
                paths[..., y, x[k]] = found[..., k, :]
        return np.eye(len(names)) - paths, paths


def coordinate_moments(
    coordinates: Coordinates, objective: Objective, theta: Floats, group: int
) -> tuple[Floats, Floats]:
    """Moments that a model implies for a group in coordinates of the saturated model, and their derivatives.

    Returns
    -------
    values : ndarray, shape (m,)
    jacobian : ndarray, shape (m, npar)
        By complex steps.
    """
    blocks = [block for block in objective.blocks if block.group == group]
    moments = objective.observed_moments(theta, group)
    steps = []
    for block, (mean, cov) in zip(blocks, moments, strict=True):
        jacobian = objective.core.jacobian(theta, objective.blocks.index(block)).T
        n = len(mean)
        low, high = vech_index(n)
        by_parameter = np.zeros((len(jacobian), n, n))
        by_parameter[:, low, high] = by_parameter[:, high, low] = jacobian[:, n:]
        steps.append((mean + 1j * STEP * jacobian[:, :n], cov + 1j * STEP * by_parameter))
    slopes = objective.table.slopes(group)
    return coordinates.values(slopes, blocks, moments), coordinates.values(
        slopes, blocks, steps
    ).imag.T / STEP


@dataclass(frozen=True, eq=False)
class AgainstSlopes:
    """A model of a group next to its saturated model of slopes.

    Attributes
    ----------
    vector : MomentVector
        In coordinates of the saturated model.
    reference : Estimate
        The saturated model.
    jacobian : ndarray, shape (m, k)
        Derivatives of its moments with respect to its parameters, at its estimates.
    implied : ndarray, shape (k,)
        Its parameters at what the model implies.
    of_implied : ndarray, shape (k, npar)
        Their derivatives with respect to the parameters of the model.
    """

    vector: MomentVector
    reference: Estimate
    jacobian: Floats
    implied: Floats
    of_implied: Floats


def require_reference(reference: SlopeReference, what: str) -> Estimate:
    """The saturated model of slopes.

    Raises
    ------
    UnsupportedError
        If there is none.
    """
    if reference.estimate is None or reference.reason:
        raise UnsupportedError(
            f"{what} of a model with random slopes are held against the saturated model of slopes, and there is none: "
            f"{reference.reason}"
        )
    return reference.estimate


def against_slopes(fit: Estimate, sample: Group, reference: Estimate, group: int) -> AgainstSlopes:
    """Moments of the saturated model of slopes of a group, next to those that a model implies."""
    coordinates = Coordinates.of(fit.table, group, sample.statistics.variables.levels)
    theirs, theta = reference.objective, reference.theta
    observed, jacobian = coordinate_moments(coordinates, theirs, theta, 1)
    implied, of_model = coordinate_moments(coordinates, fit.objective, fit.theta, group)
    own, at_implied = theta, jacobian
    unit = coordinates.units(observed)
    size = np.abs(implied / unit).max()
    for _ in range(MOST_STEPS):  # paths, then what they leave: the second step is exact
        values, at_implied = coordinate_moments(coordinates, theirs, own, 1)
        off = (implied - values) / unit
        if np.abs(off).max() <= ROUNDING * size:
            break
        own = own + projected(off, at_implied / unit[:, None])
    of_implied = projected(of_model / unit[:, None], at_implied / unit[:, None])
    keys = coordinates.keys(group)
    given = np.array([coordinates.given(key) for key in keys], dtype=bool)
    vector = MomentVector(keys, observed, implied, of_model, given)
    return AgainstSlopes(vector, reference, jacobian, own, of_implied)


def slope_errors(
    fit: Estimate,
    sample: Sequence[Group],
    models: Sequence[AgainstSlopes],
    information: Kind = "observed",
    *,
    robust: bool = False,
) -> MomentErrors:
    """First-order sampling errors of the moments of models with random slopes, given the fixed covariates.

    Parameters as in `moment_errors`.
    """
    basis = free_directions(fit)
    own, parameters = [], []
    for number, (group, model) in enumerate(zip(sample, models, strict=True), 1):
        objective, theta = model.reference.objective, model.reference.theta
        if robust:
            clusters = group.clusters
            root = np.sqrt(cluster_correction(fit.table, clusters))
            scores = objective.scores(theta, clusters)
            theirs = fit.objective.scores(fit.theta, clusters, number) @ basis
            both = root * np.hstack([scores, theirs])
            triangle = np.asarray(np.linalg.qr(both, mode="r"), dtype=np.float64).T
            first, second = triangle[: len(theta)], triangle[len(theta) :]
        else:
            first, back = normal_roots(objective.expected_information(theta))
            second = (model.of_implied @ basis).T @ objective.expected_information(model.implied) @ back
        core = objective.core
        matrix = (
            core.expected_information(theta)
            if information == "expected"
            else core.observed_information(theta)
        )
        own.append(model.jacobian @ inverse(matrix) @ first)
        parameters.append(second)
    columns = np.cumsum([0, *(part.shape[1] for part in own)])
    rows = np.cumsum([0, *(len(part) for part in own)])
    observed = np.zeros((rows[-1], columns[-1]))
    for g, part in enumerate(own):
        observed[rows[g] : rows[g + 1], columns[g] : columns[g + 1]] = part
    jacobian = np.vstack([model.vector.jacobian for model in models])
    found = inverse_in(fit, basis, information) @ np.hstack(parameters)
    return MomentErrors(observed, jacobian @ basis @ found)


def _block(matrix: Numbers, rows: Sequence[int], columns: Sequence[int]) -> Numbers:
    out: Numbers = matrix[..., np.array(rows)[:, None], np.array(columns)]
    return out


def _transposed(matrix: Numbers) -> Numbers:
    out: Numbers = np.swapaxes(matrix, -1, -2)
    return out
