"""Residuals of a model: saturated less implied moments of every level, with their joint sampling covariance.

Saturated and implied moments are functions of the same data. With u(s) and u(sigma) the scores of the saturated model
at the saturated and at the implied moments, and D the derivatives of the implied moments,

    d s = A^-1 u(s),    d sigma = D V D' u(sigma)

to first order, A being the information about the moments at s and V the inverse information about the free parameters.
For data that are normal with the saturated moments, u(s) has covariance matrix I(s) and u(sigma) its regression on u(s)
with coefficients I(sigma) I(s)^-1, I being the expected information; with expected information throughout the residuals
then have covariance matrix (1 - P) I(s)^-1 (1 - P)', P = D V D' I(sigma) (Ogasawara, 2001). The robust covariance
matrix takes the contributions of the clusters to u(s) and u(sigma) as they are, and holds for other distributions and
for wrong models too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.arrays import LevelMoment
from msem.data.row_replicates import first_stage_of_rows
from msem.distributions import normal_pvalue, wald_statistic
from msem.errors import MsemError, UnsupportedError
from msem.estimation.estimate import require_unpenalized
from msem.estimation.least_squares import (
    least_squares_errors,
    second_stages,
    solution_at,
    statistic_vectors,
)
from msem.estimation.moment_vector import (
    Flags,
    Kind,
    Moment,
    MomentErrors,
    MomentVector,
    moment_errors,
    moment_vectors,
)
from msem.estimation.objective import build_objective
from msem.estimation.slope_moments import (
    AgainstSlopes,
    against_slopes,
    require_reference,
    slope_errors,
)
from msem.estimation.solution import Solution, cached
from msem.model.levels import Level, rows_at
from msem.settings import require_choice

Floats = NDArray[np.float64]
Places = NDArray[np.intp]
Metric = Literal["raw", "cor.bollen", "cor.bentler"]

NEGLIGIBLE = 1e-12  # share of a moment's sampling variance below which its residual has none
ResidualKind = Literal["raw", "cor", "cor.bollen", "cor.bentler", "standardized", "normalized"]
METRICS: dict[str, Metric] = {"cor": "cor.bollen", "cor.bollen": "cor.bollen", "cor.bentler": "cor.bentler"}


@dataclass(frozen=True, eq=False)
class Residuals:
    """Residuals in one metric with their sampling errors.

    Attributes
    ----------
    keys : tuple of Moment, length m
    residuals : ndarray, shape (m,)
        nan in a metric of correlations where a variance is not positive.
    root : ndarray, shape (m, k)
        Times its transpose the sampling covariance matrix of the residuals.
    moment_variance : ndarray, shape (m,)
        Sampling variance of the saturated moments, in the metric of the residuals.
    """

    keys: tuple[Moment, ...]
    residuals: Floats
    root: Floats
    moment_variance: Floats

    @property
    def se(self) -> Floats:
        """Standard errors; 0 where the model has the moment from the sample."""
        return np.sqrt(_squares(self.root))

    @property
    def acov(self) -> Floats:
        """Sampling covariance matrix, shape (m, m)."""
        out: Floats = self.root @ self.root.T
        return out

    def select(self, chosen: Flags) -> Residuals:
        """Some of the residuals."""
        keys = tuple(key for key, wanted in zip(self.keys, chosen, strict=True) if wanted)
        return Residuals(keys, self.residuals[chosen], self.root[chosen], self.moment_variance[chosen])


def moment_residuals(vectors: Sequence[MomentVector], errors: MomentErrors, metric: Metric) -> Residuals:
    """Residuals of all moments in one metric.

    Parameters
    ----------
    vectors : sequence of MomentVector
        One for each group.
    errors : MomentErrors
        Of all groups, one after the other.
    metric : {"raw", "cor.bollen", "cor.bentler"}
        Differences of covariances; of correlations, each matrix standardized by its own variances (Bollen, 1989); or
        of covariances in units of the saturated standard deviations (Bentler, 1995). Means are in units of the
        saturated standard deviations in the last two. Standard deviations are those of the level, and their sampling
        error is part of that of the residuals.

    Returns
    -------
    Residuals
    """
    keys = tuple(key for vector in vectors for key in vector.keys)
    observed = np.concatenate([vector.observed for vector in vectors])
    implied = np.concatenate([vector.implied for vector in vectors])
    raw, root = observed - implied, errors.observed - errors.implied
    if metric == "raw":
        return _settled(keys, raw, root, _squares(errors.observed))
    first, second = _variance_positions(keys)
    scale = _units(observed, first, second)
    relative = _relative_error(observed, errors.observed, first, second)
    values = raw / scale
    root = root / scale[:, None] - 0.5 * values[:, None] * relative
    if metric == "cor.bollen":
        covariance = second >= 0
        bollen, bollen_root = _correlation_residuals(
            (observed / scale, errors.observed / scale[:, None], relative),
            implied,
            errors.implied,
            first,
            second,
        )
        values = np.where(covariance, bollen, values)
        root = np.where(covariance[:, None], bollen_root, root)
    return _settled(keys, values, root, _squares(errors.observed) / scale**2)


def _correlation_residuals(
    observed: tuple[Floats, Floats, Floats], implied: Floats, errors: Floats, first: Places, second: Places
) -> tuple[Floats, Floats]:
    """Differences of correlations and their errors; those of variables with themselves are exactly 0."""
    values, own_errors, relative = observed
    scale = _units(implied, first, second)
    theirs = implied / scale
    root = own_errors - 0.5 * values[:, None] * relative
    root -= errors / scale[:, None] - 0.5 * theirs[:, None] * _relative_error(implied, errors, first, second)
    same = first == second
    root[same] *= 0.0
    return np.where(same, 0.0 * values, values - theirs), root


def _settled(keys: tuple[Moment, ...], values: Floats, root: Floats, moment_variance: Floats) -> Residuals:
    """Residuals in which sampling errors that are rounding errors are 0."""
    none = ~(_squares(root) > NEGLIGIBLE * moment_variance)
    return Residuals(keys, values, np.where(none[:, None], 0.0 * root, root), moment_variance)


def _variance_positions(keys: Sequence[Moment]) -> tuple[Places, Places]:
    """Where the variances of the variables of each moment are; -1 for the second one of a mean."""
    at = {(k.lhs, k.level, k.group): i for i, k in enumerate(keys) if k.op == "~~" and k.lhs == k.rhs}
    first = [at[k.lhs, k.level, k.group] for k in keys]
    second = [at[k.rhs, k.level, k.group] if k.op == "~~" else -1 for k in keys]
    return np.array(first, dtype=np.intp), np.array(second, dtype=np.intp)


def _units(moments: Floats, first: Places, second: Places) -> Floats:
    """Product of the standard deviations that a moment is expressed in; nan if a variance is not positive."""
    sd = np.sqrt(np.where(moments > 0, moments, np.nan))
    return np.where(second >= 0, sd[first] * sd[second], sd[first])


def _relative_error(moments: Floats, errors: Floats, first: Places, second: Places) -> Floats:
    """Twice the relative error of `_units`."""
    relative = errors / np.where(moments > 0, moments, np.nan)[:, None]
    return relative[first] + np.where((second >= 0)[:, None], relative[second], 0.0)


def _squares(root: Floats) -> Floats:
    out: Floats = np.einsum("ij,ij->i", root, root)
    return out


def residuals(fit: Solution, kind: ResidualKind = "raw", *, level: Level | None = None) -> pd.DataFrame:
    """Saturated less model-implied moments of every level, with standard errors and tests.

    Parameters
    ----------
    kind : {"raw", "cor", "cor.bollen", "cor.bentler", "standardized", "normalized"}
        "raw": covariances and means. "cor" or "cor.bollen": correlations, each matrix standardized by its own
        variances (Bollen, 1989). "cor.bentler": covariances in units of the saturated standard deviations of the
        level (Bentler, 1995). Means are in those units too. "standardized": raw residuals over their standard
        errors. "normalized": raw residuals over the standard errors of the saturated moments, which are larger.
    level : {1, 2, "within", "between"}, optional
        Rows of this level only.

    Returns
    -------
    DataFrame
        Columns lhs, op, rhs, level, group, residual, se, z, pvalue; a row for every covariance (``~~``) and mean
        (``~1``). The mean of a variable at both levels is one moment and stands at the between level. `se` is what
        `residual` is divided by in `z`. It is 0, and `z` nan, where the model reproduces the moment by
        construction, as those of fixed covariates; nan where there is no sampling covariance.

    Raises
    ------
    UnsupportedError
        With random slopes where there is no saturated model of slopes, with the reason.

    Notes
    -----
    Standard errors: `msem.postestimation.residuals`.

    With random slopes of observed covariates the saturated model is that of slopes, and the moments are those of its
    coefficients: ``y1*x`` at level 2 is the slope of y1 on x. At the level of the covariates they are those without
    what these coefficients add. Errors are given the fixed covariates.

    Of ordered variables the moments are thresholds, slopes on covariates, variances and correlations as the first stage
    of least squares estimates them. By maximum likelihood, which has no such stage, it is made for this; "normalized"
    residuals are in units of its errors, and the others have none.
    """
    require_choice("kind", kind, get_args(ResidualKind))
    found = residuals_in(fit, METRICS.get(kind, "raw"))
    values, se = found.residuals, found.se
    if kind == "normalized":
        se = np.where(found.se == 0, 0.0, np.sqrt(found.moment_variance))
    z = wald_statistic(values, se)
    frame = pd.DataFrame(found.keys, columns=list(Moment._fields)).assign(
        residual=z if kind in ("standardized", "normalized") else values,
        se=se,
        z=z,
        pvalue=normal_pvalue(z),
    )
    frame = frame.sort_values(["group", "level"], kind="stable", ignore_index=True)
    return rows_at(frame, level, fit.table)


def residual_matrices(fit: Solution, kind: ResidualKind = "raw", *, group: int = 1) -> dict[int, LevelMoment]:
    """Residuals as a matrix of covariances and a vector of means for each level of one group.

    Parameters
    ----------
    kind : str
        As in `residuals`.
    group : int
        Counted from 1.

    Returns
    -------
    dict
        From level (1 within, 2 between) to an object with `cov`, a DataFrame, and `mean`, a Series. The within
        means of variables at both levels are 0.
    """
    frame = residuals(fit, kind)
    own = frame[frame["group"] == group]
    if own.empty:
        raise MsemError(f"there is no group {group!r}: the groups are numbered 1 to {fit.table.ngroups}")
    return {level: _matrices(own[own["level"] == level]) for level in range(1, fit.table.nlevels + 1)}


def residuals_in(fit: Solution, metric: Metric) -> Residuals:
    """Residuals in a metric, with their joint sampling errors."""
    return moment_residuals(*moments_with_errors(fit), metric)


@cached
def moments_with_errors(fit: Solution) -> tuple[tuple[MomentVector, ...], MomentErrors]:
    """Saturated and implied moments of each group, and the sampling errors of all of them."""
    if fit.discrepancy is not None and fit.discrepancy.first_stage:
        return fit.discrepancy.vectors
    if fit.has_slopes:
        return _of_slopes(fit)
    if fit.integrates:
        return _of_first_stage(fit)
    vectors = moment_vectors(fit.estimate, fit.sample)
    return vectors, _errors_of(fit, vectors)


@cached
def slope_models(fit: Solution) -> tuple[AgainstSlopes, ...]:
    """The model of each group next to its saturated model of slopes; `UnsupportedError` where there is none."""
    return tuple(
        against_slopes(
            fit.estimate, group.sample, require_reference(group.slope_reference, "moments"), group.number
        )
        for group in fit.groups.values()
    )


def _of_slopes(fit: Solution) -> tuple[tuple[MomentVector, ...], MomentErrors]:
    require_unpenalized(fit.estimate, "standard errors of residuals")
    models = slope_models(fit)
    errors = slope_errors(fit.estimate, fit.sample.groups, models, _kind(fit), robust=fit.options.robust)
    return tuple(model.vector for model in models), errors


def _of_first_stage(fit: Solution) -> tuple[tuple[MomentVector, ...], MomentErrors]:
    """What the first stage estimates of the rows of a fit by maximum likelihood, next to what the model implies."""
    table = fit.estimate.table
    if table.ordered.logistic:
        raise UnsupportedError(
            'residuals of ordered variables are those of normal variables: they need link="probit"'
        )
    groups = [
        first_stage_of_rows(table, group, group.rows, number)
        for number, group in enumerate(fit.sample.groups, 1)
    ]
    stages = second_stages(table, groups, "DWLS", robust=True)
    objective = build_objective(
        table, [group.statistics for group in groups], [stage.likelihood for stage in stages]
    )
    solution = solution_at(replace(fit.estimate, objective=objective), stages, "DWLS", normal=False)
    vectors, errors = statistic_vectors(solution)
    return vectors, replace(errors, implied=np.full_like(errors.implied, np.nan))


def _errors_of(fit: Solution, vectors: tuple[MomentVector, ...]) -> MomentErrors:
    if fit.discrepancy is not None:
        return least_squares_errors(vectors, fit.discrepancy)
    require_unpenalized(fit.estimate, "standard errors of residuals")
    return moment_errors(fit.estimate, fit.sample, vectors, _kind(fit), robust=fit.options.robust)


def _kind(fit: Solution) -> Kind:
    return "expected" if fit.options.information == "expected" else "observed"


def _matrices(frame: pd.DataFrame) -> LevelMoment:
    """Residuals of one level of one group in the shape of its moments."""
    covariances, means = frame[frame["op"] == "~~"], frame[frame["op"] == "~1"]
    names = list(dict.fromkeys(covariances["lhs"]))
    cov = pd.DataFrame(np.nan, index=names, columns=names)
    for lhs, rhs, value in zip(covariances["lhs"], covariances["rhs"], covariances["residual"], strict=True):
        cov.loc[lhs, rhs] = cov.loc[rhs, lhs] = value
    mean = pd.Series(0.0, index=names)
    mean[means["lhs"].to_list()] = means["residual"].to_numpy()
    return LevelMoment(cov, mean)
