"""Score (Lagrange multiplier) tests of directions in which a model does not move, and what moving would give.

With F'F the expected information, g the gradient of the log-likelihood and T a basis of the directions in which the
model is free, all in the coordinates of a larger model, the statistic of further directions D is

    g_d' V^-1 g_d,    g_d = D'g - D'F'Q T'g,    V = R'R,    R = (I - QQ') F D,    Q = F T orthonormal

(Rao, 1948; Sörbom, 1989). V is formed from the residuals R of a projection, so that a direction which the model
already has is told from one that the data hardly determine. The generalized statistic replaces V in the middle by the
sampling covariance of g_d, from the scores of the clusters (Boos, 1992; Satorra, 1989).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.statistics import Clusters
from msem.distributions import chisq_pvalue, normal_pvalue
from msem.errors import ModelError, MsemError, UnsupportedError
from msem.estimation.estimate import Estimate, require_converged, require_unpenalized
from msem.estimation.integrals import same_integral
from msem.estimation.objective import Objective, build_objective
from msem.estimation.sampling import free_directions, whitening_basis
from msem.estimation.scoreproducts import corrected_scores
from msem.estimation.solution import Solution
from msem.model.levels import Level
from msem.model.partable import Parameter, ParameterTable
from msem.model.references import Names
from msem.output.tables import row_columns
from msem.postestimation.candidates import Candidate, added_parameters, extended_table
from msem.postestimation.restrictions import (
    Equality,
    Imposed,
    Restriction,
    choose,
    imposed_direction,
    imposed_directions,
    released_table,
    restrictions,
)

Floats = NDArray[np.float64]

IDENTIFIED = 1e-6  # least part of a column of the information factor that is not explained by other columns
ROUNDING = 1e-7  # the same of the whole column, whatever intercepts explain of it

Spread = Callable[[Objective, Floats], Floats]

__all__ = ["Joint", "ScorePoint", "Single"]


class Single(NamedTuple):
    """Tests of directions one by one; nan for a direction that is not identified.

    Attributes
    ----------
    statistic : ndarray, shape (k,)
    change : ndarray, shape (k,)
        Expected change along the direction if it were free.
    robust : ndarray, shape (k,)
        Generalized statistic; nan without scores of the clusters.
    """

    statistic: Floats
    change: Floats
    robust: Floats


class Joint(NamedTuple):
    """Test of several directions together.

    Attributes
    ----------
    statistic, robust : float
        As in `Single`.
    df : int
        Number of directions that are identified.
    change : ndarray, shape (npar,)
        Expected change of all parameters of the larger model if the directions were free.
    """

    statistic: float
    robust: float
    df: int
    change: Floats


@dataclass(frozen=True, eq=False)
class ScorePoint:
    """A larger model at the estimates of a smaller one.

    Attributes
    ----------
    gradient : ndarray, shape (npar,)
        Of the log-likelihood.
    factor : ndarray, shape (rows, npar)
        F with F'F the expected information.
    basis : ndarray, shape (npar, m)
        T with (F T)'(F T) the identity: directions in which the smaller model is free.
    scores : ndarray, shape (J, npar), or None
        Gradients of the log-likelihoods of the clusters.
    intercepts : ndarray of int
        Positions of the intercepts.
    """

    gradient: Floats
    factor: Floats
    basis: Floats
    scores: Floats | None = None
    intercepts: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, dtype=np.intp))

    def single(self, directions: Floats) -> Single:
        """Test each column of `directions`, shape (npar, k), on its own."""
        slope, residual, scores = self._partial(directions)
        with np.errstate(divide="ignore", invalid="ignore"):
            information = np.einsum("ij,ij->j", residual, residual)
            information[information <= (IDENTIFIED * self._sizes(directions)) ** 2] = np.nan
            change = slope / information
            spread = np.full_like(slope, np.nan) if scores is None else np.einsum("ij,ij->j", scores, scores)
            robust = np.where(np.isnan(information), np.nan, slope**2 / spread)
        return Single(slope * change, change, robust)

    def joint(self, directions: Floats) -> Joint:
        """Test all columns of `directions` together."""
        slope, residual, scores = self._partial(directions)
        scale = self._sizes(directions)
        scale = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
        _, singular, right = np.linalg.svd(residual * scale, full_matrices=False)
        kept = singular > IDENTIFIED
        whitener = scale[:, None] * (right[kept].T / singular[kept])
        score = whitener.T @ slope
        moved = (directions - self.basis @ self._coefficients(directions)) @ whitener
        change = moved @ score + self.basis @ (self.basis.T @ self.gradient)
        robust = np.nan if scores is None else _quadratic(score, scores @ whitener)
        return Joint(float(score @ score), robust, int(kept.sum()), change)

    def _coefficients(self, directions: Floats) -> Floats:
        out: Floats = (self.factor @ self.basis).T @ (self.factor @ directions)
        return out

    def _sizes(self, directions: Floats) -> Floats:
        """Lengths of the directions in the metric of the information, less what intercepts alone would take up.

        The slope of a covariate with a large mean is almost an intercept, and identified all the same, as long as the
        difference is more than rounding.
        """
        moved = self.factor @ directions
        least = ROUNDING / IDENTIFIED * np.linalg.norm(moved, axis=0)
        slopes = np.flatnonzero(~np.any(directions[self.intercepts] != 0, axis=0))
        levels = np.linalg.qr(self.factor[:, self.intercepts])[0]
        moved[:, slopes] -= levels @ (levels.T @ moved[:, slopes])
        sizes: Floats = np.maximum(np.linalg.norm(moved, axis=0), least)
        return sizes

    def _partial(self, directions: Floats) -> tuple[Floats, Floats, Floats | None]:
        """Slope, information factor and scores along the directions, cleared of what the model can follow."""
        moved = directions - self.basis @ self._coefficients(directions)
        return (
            self.gradient @ moved,
            self.factor @ moved,
            None if self.scores is None else self.scores @ moved,
        )


def _quadratic(score: Floats, scores: Floats) -> float:
    """Quadratic form score' (scores' scores)^-1 score; nan when there are fewer clusters than directions."""
    if len(scores) <= len(score):
        return np.nan
    triangle = np.asarray(np.linalg.qr(scores, mode="r"), dtype=np.float64)
    try:
        solved = np.linalg.solve(triangle.T, score)
    except np.linalg.LinAlgError:
        return np.nan
    return float(solved @ solved)


@dataclass(frozen=True, eq=False)
class Extension:
    """A model with further parameters, at the estimates it has without them.

    Attributes
    ----------
    fit : Estimate
        The model without them.
    released : tuple of Equality or Imposed
        Constraints that are dropped, shared parameters first.
    nadded : int
        Number of parameters that are added.
    table : ParameterTable
        Parameters of the model, then the second ones of shared parameters, then the added ones.
    theta : ndarray, shape (npar,)
        The estimates in its coordinates.
    point : ScorePoint
    """

    fit: Estimate
    released: tuple[Restriction, ...]
    nadded: int
    table: ParameterTable
    theta: Floats
    point: ScorePoint

    def spread(self, directions: Floats) -> Floats:
        """Directions of theta, shape (npar, k), in the coordinates of the extended model."""
        shared = [e.second.free - 1 for e in self.released if isinstance(e, Equality)]
        return np.concatenate([directions, directions[shared], np.zeros((self.nadded, directions.shape[1]))])

    @property
    def further(self) -> Floats:
        """Direction of each constraint that is released and each parameter that is added, shape (npar, k).

        Released constraints change by 1, left less right side.
        """
        unit, npar = np.eye(len(self.theta)), len(self.fit.theta)
        split = len(self.theta) - self.nadded
        ways = [imposed_direction(self.fit, e.number) for e in self.released if isinstance(e, Imposed)]
        imposed = self.spread(np.array(ways).reshape(-1, npar).T)
        return np.hstack([-unit[:, npar:split], imposed, unit[:, split:]])

    def together(self, chosen: Sequence[int]) -> Floats:
        """Directions that are there when several of them, by position, are released or added at once."""
        numbers = {k: e.number for k, e in enumerate(self.released) if isinstance(e, Imposed)}
        dropped = [numbers[k] for k in chosen if k in numbers]
        single = self.further[:, [k for k in chosen if k not in numbers]]
        return np.hstack([single, self.spread(imposed_directions(self.fit, dropped))]) if dropped else single


def extend(
    fit: Estimate,
    released: Sequence[Restriction] = (),
    added: Sequence[Candidate] = (),
    spread: Spread | None = None,
    basis: Floats | None = None,
) -> Extension:
    """Extend a model by parameters.

    Parameters
    ----------
    fit : Estimate
    released : sequence of Equality or Imposed
        Constraints that are dropped, shared parameters first.
    added : sequence of Candidate
        Parameters that are freed.
    spread : callable, optional
        For the generalized score statistic: of an objective and theta rows, shape (J, npar), whose outer products are
        the covariance matrix of the gradient. See `robust_spread`.
    basis : ndarray, shape (npar, m), optional
        As `free_directions` gives it.

    Returns
    -------
    Extension
    """
    equal = [e for e in released if isinstance(e, Equality)]
    shared = [equality.second.free - 1 for equality in equal]
    table = extended_table(released_table(fit.table, equal), added)
    theta = np.concatenate([fit.theta, fit.theta[shared], [c.row.value for c in added]])
    objective = build_objective(table, fit.objective.statistics, fit.objective.loss or None)
    inner = free_directions(fit) if basis is None else basis
    free = np.concatenate([inner, inner[shared], np.zeros((len(added), inner.shape[1]))])
    gradient = -0.5 * objective.gradient(theta)
    if all(s.integral is None for s in objective.statistics):
        factor = objective.core.information_factor(theta)
    else:
        factor = _score_root(objective, theta)
        free = free @ whitening_basis(factor @ free)[0]
    scores = None if spread is None else spread(objective, theta)
    intercepts = sorted({row.free - 1 for row in table.rows if row.free and row.op == "~1"})
    point = ScorePoint(gradient, factor, free, scores, np.array(intercepts, dtype=np.intp))
    return Extension(fit, tuple(released), len(added), table, theta, point)


def _score_root(objective: Objective, theta: Floats) -> Floats:
    """Root of the outer products of scores of the units of a likelihood that has no expected information.

    They estimate it in the same coordinates for any way to free the same parameter. The observed information does not
    where the gradient is not 0: `f =~ y` and `y ~~ y`, of which one is fixed for the scale, would have other indices.
    """
    parts = []
    for number, own in enumerate(objective.statistics):
        scores = objective.core.scores(theta, objective.core.likelihoods[number].clusters(), number)
        counts = None if own.integral is None else own.integral.unit_counts
        parts.append(scores if counts is None else np.sqrt(counts)[:, None] * scores)
    return np.concatenate(parts)


@dataclass(frozen=True, eq=False)
class ScoreTest:
    """Score (Lagrange multiplier) tests of restrictions of a fit.

    All tables have columns statistic, df and pvalue; under MLR also robust and pvalue_robust, the generalized score
    statistic.

    Attributes
    ----------
    total : DataFrame
        All restrictions released at once.
    univariate : DataFrame
        Each restriction released on its own; column epc is the expected change of an added parameter, and for an
        equality constraint the expected value of its left less its right side.
    cumulative : DataFrame
        Released one after the other, the largest univariate statistic first.
    epc : DataFrame
        Expected change of every parameter if all restrictions were released: columns lhs, op, rhs, level, group,
        label, est, epc, epv; epv is the expected new value.
    """

    total: pd.DataFrame
    univariate: pd.DataFrame
    cumulative: pd.DataFrame
    epc: pd.DataFrame

    def _parts(self) -> dict[str, pd.DataFrame]:
        return {"Total": self.total, "Univariate": self.univariate, "Cumulative": self.cumulative}

    def __repr__(self) -> str:
        return "\n\n".join(f"{title}\n{table.round(3).to_string()}" for title, table in self._parts().items())

    def _repr_html_(self) -> str:
        return "".join(f"<p>{title}</p>{table.round(3).to_html()}" for title, table in self._parts().items())


def tabulated(extension: Extension, names: Sequence[str]) -> ScoreTest:
    """Test the further parameters of an extended model.

    Parameters
    ----------
    extension : Extension
    names : sequence of str
        What each of them stands for.

    Returns
    -------
    ScoreTest
    """
    point = extension.point
    single = point.single(extension.further)
    order = [int(k) for k in np.argsort(-np.nan_to_num(single.statistic), kind="stable")]
    steps = [point.joint(extension.together(order[: k + 1])) for k in range(len(order))]
    joint = steps[-1]
    return ScoreTest(
        _joint_table([joint], ["total"], point.scores is not None),
        _single_table(single, names, point.scores is not None),
        _joint_table(steps, [names[k] for k in order], point.scores is not None),
        _changes(extension, joint.change),
    )


def _single_table(single: Single, names: Sequence[str], robust: bool) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "statistic": single.statistic,
            "df": np.where(np.isnan(single.statistic), 0, 1),
            "pvalue": pvalues(single.statistic),
            "epc": single.change,
        },
        index=list(names),
    )
    if robust:
        table = table.assign(robust=single.robust, pvalue_robust=pvalues(single.robust))
    return table


def _joint_table(tests: Sequence[Joint], names: Sequence[str], robust: bool) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "statistic": [test.statistic for test in tests],
            "df": [test.df for test in tests],
            "pvalue": [chisq_pvalue(test.statistic, test.df) for test in tests],
        },
        index=list(names),
    )
    if robust:
        table = table.assign(
            robust=[test.robust for test in tests],
            pvalue_robust=[chisq_pvalue(test.robust, test.df) for test in tests],
        )
    return table


def pvalues(statistic: Floats) -> Floats:
    """Upper tail of chi-squares on one degree of freedom."""
    return normal_pvalue(np.sqrt(statistic))


def _changes(extension: Extension, change: Floats) -> pd.DataFrame:
    rows = [row for row in extension.table.rows if row.free]
    at = [row.free - 1 for row in rows]
    est, epc = extension.theta[at], change[at]
    return key_frame(rows).assign(label=[row.label for row in rows], est=est, epc=epc, epv=est + epc)


def key_frame(rows: Sequence[Parameter]) -> pd.DataFrame:
    """Columns that name parameters: lhs, op, rhs, level, group."""
    return pd.DataFrame(row_columns(rows, ("lhs", "op", "rhs", "level", "group")))


def score_test(
    fit: Solution,
    release: Sequence[int | str] | int | str | None = None,
    *,
    add: str | None = None,
    level: Level | None = None,
    group: int | None = None,
) -> ScoreTest:
    """Test whether restrictions should be released, without fitting the model again.

    Parameters
    ----------
    release : int, str or sequence of them, optional
        Equality constraints: their numbers from 1, in the order of ``score_test().univariate``; a label that rows
        share; or the constraint as text, such as ``"fw=~y2 == fb=~y2.l2"``. Default: all.
    add : str, optional
        Parameters to be freed in place of that, as in a model text: ``"y1 ~~ y2"``.
    level : {1, 2, "within", "between"}, optional
        Level of the parameters of `add`, where both levels have their variables.
    group : int, optional
        Group of the parameters of `add`, counted from 1. Default: all groups.

    Returns
    -------
    ScoreTest
        Tests of all at once, one by one and cumulatively, and the expected changes of all parameters (Rao, 1948).
        They use expected information, outer products of scores for ordered
        variables by maximum likelihood. Under MLR and for least squares the generalized score statistic, which stays a
        chi-square when the data are not normal (Boos, 1992), is given beside them.

    Raises
    ------
    ModelError
        If there is nothing of that name to release or to add, or the fit has not converged.
    UnsupportedError
        For ordered variables by maximum likelihood, if what is added is one more variable to integrate over.
    """
    require_converged(fit.estimate, "score tests")
    require_unpenalized(fit.estimate, "score tests")
    if add is not None and release is not None:
        raise MsemError("give either release= or add=, not both")
    if add is not None:
        groups = _groups_asked(fit, group)
        added = added_parameters(fit.table, add, asked_level(fit, level), groups)
        names = Names((*fit.table.rows, *(c.row for c in added if c.index is None))).own
        new = iter(names[len(fit.table.rows) :])
        _require_same_integral(fit.estimate, added)
        called = [next(new) if c.index is None else names[c.index] for c in added]
        found = tabulated(extend(fit.estimate, (), added, robust_spread(fit)), called)
        return _for_design(found, fit)
    released = choose(restrictions(fit.estimate), release)
    found = tabulated(extend(fit.estimate, released, (), robust_spread(fit)), [e.text for e in released])
    return _for_design(found, fit)


def _require_same_integral(fit: Estimate, added: Sequence[Candidate]) -> None:
    """Refuse parameters that are one more variable to integrate over; at 0 its likelihood has a border."""
    if not same_integral(extended_table(fit.table, added), fit.objective):
        names = ", ".join(f"'{c.row.lhs} {c.row.op} {c.row.rhs}'" for c in added)
        raise UnsupportedError(
            f"with {names} the likelihood of ordered variables is an integral over other variables, so that there is "
            "no score test: fit the model with it and use msem.compare_models"
        )


def _for_design(found: ScoreTest, fit: Solution) -> ScoreTest:
    """Without p-values that take the sample for a simple one."""
    if fit.sample.simple:
        return found
    names = ("total", "univariate", "cumulative")
    blank: dict[str, Any] = {name: getattr(found, name).assign(pvalue=np.nan) for name in names}
    return replace(found, **blank)


def robust_spread(fit: Solution) -> Spread | None:
    """Root of the covariance matrix of gradients: from the scores of clusters if standard errors or tests are robust.

    For least squares it comes from the covariance matrix of the statistics.
    """
    if fit.estimate.objective.loss and fit.discrepancy is not None:
        return fit.discrepancy.gradient_root
    if not fit.options.robust:
        return None
    return cluster_spread(fit.sample.clusters)


def cluster_spread(clusters: Sequence[Clusters]) -> Spread:
    """The scores of the clusters of all groups."""
    return lambda objective, theta: corrected_scores(objective, theta, clusters)


def asked_level(fit: Solution, level: Level | None) -> int | None:
    """Number of a level of a fit; None for all."""
    return None if level is None else fit.table.level(level)


def _groups_asked(fit: Solution, group: int | None) -> Sequence[int]:
    known = range(1, fit.table.ngroups + 1)
    if group is not None and group not in known:
        raise ModelError(f"there is no group {group}: they are numbered from 1 to {len(known)}")
    return known if group is None else (group,)
