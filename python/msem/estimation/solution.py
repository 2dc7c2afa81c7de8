"""The solution of a fit: estimates, standard errors, likelihood, group by group moments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, Self, TypeVar, TypeVarTuple, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.intraclass import variance_shares
from msem.data.moments import LevelMoments
from msem.data.sample import Group, Origin, Sample, independent_units
from msem.data.saturated_moments import level_moments, of_design
from msem.distributions import coverage, interval_on, normal_halfwidth, normal_pvalue, student_halfwidth
from msem.entry import questions
from msem.errors import UnsupportedError
from msem.estimation.discrepancy import LevelDiscrepancy
from msem.estimation.estimate import Estimate, estimate
from msem.estimation.lookup import parameter_series
from msem.estimation.matrices import Model, row_values
from msem.estimation.objective import ImpliedLevels, ImpliedMoments, Objective
from msem.estimation.problems import Problem, status_of
from msem.estimation.sampling import Sampling
from msem.estimation.slopes import SlopeReference, slope_reference
from msem.estimation.smallsamples import reference_df
from msem.model.derived import baseline_table, saturated_npar
from msem.model.levels import Level
from msem.model.partable import ParameterTable
from msem.names import Translated
from msem.settings import DESIGN_BASED, Reference, ResolvedSettings, require_choice

if TYPE_CHECKING:
    from msem.data.statistics import Statistics

Floats = NDArray[np.float64]
Of = TypeVar("Of", bound="Solution")
Known = TypeVar("Known", bound="Estimated")
Value = TypeVar("Value")
P = ParamSpec("P")
Rest = TypeVarTuple("Rest")


class Estimated(Protocol):
    """What questions ask of a fit that need its estimates only, and no data: fits that were saved answer them too."""

    @property
    def table(self) -> ParameterTable:
        """The parameter table."""

    @property
    def model(self) -> Model:
        """What the matrices are made from."""

    @property
    def theta(self) -> Floats:
        """Estimates, shape (npar,)."""

    @property
    def vcov(self) -> Floats:
        """Their sampling covariance matrix, shape (npar, npar)."""

    def cov_params(self) -> pd.DataFrame:
        """The same with names."""

    @property
    def moving(self) -> NDArray[np.bool_]:
        """Which of them were free to move, shape (npar,)."""

    @property
    def options(self) -> ResolvedSettings:
        """How the model was read and estimated."""

    @property
    def independent(self) -> float:
        """Units that robust variances come from."""


class ReplicateCounts(Protocol):
    """What a solution says of the replicates that its standard errors come from."""

    @property
    def replicates(self) -> int:
        """How many were drawn."""

    @property
    def array(self) -> Floats:
        """Values in those that could be used, a row for each."""


@dataclass(frozen=True, eq=False)
class GroupResults:
    """What a fit says of one group: a view of its sample and estimates by the number of the group.

    Attributes
    ----------
    number : int
        Counted from 1, as in the column `group` of tables.
    groups : tuple of Group
        All groups of the sample.
    estimate : Estimate
        Of the whole model.
    sampling : Sampling or None
        Of these estimates.
    """

    number: int
    groups: tuple[Group, ...]
    estimate: Estimate
    sampling: Sampling | None = None

    @property
    def sample(self) -> Group:
        """Statistics, and the rows they were made of if there are any."""
        return self.groups[self.number - 1]

    @property
    def label(self) -> str:
        """The label of the group; "" for a model of one group."""
        return self.sample.label

    @property
    def statistics(self) -> Statistics:
        """Sufficient statistics."""
        return self.sample.statistics

    @property
    def nobs(self) -> int:
        """Units."""
        return round(self.sample.nobs)

    @property
    def nclusters(self) -> int | None:
        """Clusters; None for a single-level model without any."""
        if self.estimate.table.multilevel:
            return round(self.sample.nlevel2)
        return self.sample.nclusters

    @cached_property
    def _objective(self) -> Objective:
        """Of this group alone."""
        return self.estimate.objective.of_group(self.number)

    @property
    def llf(self) -> float:
        """Log-likelihood of this group at the estimates, given its fixed covariates."""
        return self._objective.llf(self.estimate.theta[: self._objective.table.npar])

    @cached_property
    def slope_reference(self) -> SlopeReference:
        """The saturated model of slopes of this group; for models with random slopes."""
        alone = self.estimate if len(self.groups) == 1 else None
        return slope_reference(self._objective.table, self.sample, alone, self.sampling)

    @property
    def unrestricted_llf(self) -> float:
        """Log-likelihood of the saturated model in this group."""
        if self._objective.table.slopes():
            return self.slope_reference.llf
        return np.nan if self._objective.table.penalty else self.sample.llf - self._objective.covariate_llf

    @property
    def chisq(self) -> float:
        """What this group adds to the chi-square of the model."""
        if self.estimate.objective.loss:
            return self._objective.value(self.estimate.theta[: self._objective.table.npar])
        return 2 * (self.unrestricted_llf - self.llf)

    @cached_property
    def saturated(self) -> LevelMoments:
        """Saturated (h1) moments of every level.

        Raises
        ------
        AttributeError
            For a single-level model.
        """
        if not self.estimate.table.multilevel:
            raise AttributeError("a single-level fit has no level-specific moments")
        if self.estimate.table.slopes(self.number):
            raise AttributeError(
                "a model with random slopes has no saturated moments: covariances depend on the covariates"
            )
        if self.statistics.integral is not None:
            raise AttributeError("ordered variables by maximum likelihood have no saturated moments")
        if self.statistics.first_stage is not None:
            raise AttributeError(
                "thresholds and correlations of ordered variables are no LevelMoments: they are in "
                "fit.unrestricted_moments"
            )
        if self.estimate.table.crossed:
            raise AttributeError(
                "LevelMoments are those of nested levels, and these are crossed: their saturated moments are in "
                "fit.unrestricted_moments"
            )
        moments = level_moments(self.sample.saturated, self.statistics)
        return moments if self.sample.sampled is None else of_design(moments, self.sample.clusters)

    @property
    def unrestricted_moments(self) -> ImpliedLevels:
        """Means and covariances of the saturated model by level, of models of any number of levels.

        Raises
        ------
        AttributeError
            For a model with random slopes.
        """
        if self.estimate.table.slopes(self.number):
            raise AttributeError(
                "a model with random slopes has no saturated moments: covariances depend on the covariates"
            )
        if self.statistics.integral is not None:
            raise AttributeError("ordered variables by maximum likelihood have no saturated moments")
        return ImpliedLevels(
            (level, ImpliedMoments(m.series(), m.frame(), m.nobserved))
            for level, m in self.sample.levels.items()
        )

    @property
    def icc(self) -> pd.Series:
        """Intraclass correlations of the variables at several levels; standard errors: `icc_table()`.

        With three levels by variable and level: the shares of variance of levels 2 and 3.
        """
        if not self.estimate.table.multilevel:
            raise AttributeError(
                "a single-level fit has no intraclass correlations: give the model blocks, level: 1 and level: 2"
            )
        if self.estimate.table.nlevels > 2:
            return variance_shares(self.sample.levels)
        if self.statistics.first_stage is not None:
            within, between = (self.sample.levels[level].variances for level in (1, 2))
            shares = {
                name: between[name] / (within[name] + between[name]) for name in within if name in between
            }
            return pd.Series(shares, name="icc", dtype=float)
        return self.saturated.icc

    @property
    def implied(self) -> ImpliedLevels:
        """Model-implied means and covariances by level, of observed and latent variables.

        `implied[1]` and `implied[2]` hold all variables, `implied.within` and `implied.between` the observed ones.
        """
        return self.estimate.objective.implied(self.estimate.theta, self.number)


@questions
@dataclass(frozen=True, eq=False)
class Solution(Translated):
    """Estimates of a structural equation model and their likelihood; immutable.

    Attributes
    ----------
    estimate : Estimate
        The objective and where the optimiser stopped.
    sample : Sample
        Statistics and saturated moments of each group.
    sampling : Sampling or None
        Sampling covariance of the estimates; None with ``se="none"``.
    problems : tuple of Problem
        What is wrong with the solution: cause and remedy.
    options : ResolvedSettings
        How the model was read, estimated and tested.
    discrepancy : LevelDiscrepancy or None
        The least-squares solution and its tests; None for maximum likelihood.
    bootstrapped : ReplicateCounts or None
        The replicates that standard errors come from with ``se="bootstrap"``.
    """

    estimate: Estimate
    sample: Sample
    sampling: Sampling | None
    problems: tuple[Problem, ...]
    options: ResolvedSettings
    discrepancy: LevelDiscrepancy | None = None
    bootstrapped: ReplicateCounts | None = None

    def __getstate__(self) -> dict[str, Any]:
        # what was computed from the fields later is computed again
        return {own.name: getattr(self, own.name) for own in fields(self)}

    # -- the solution ------------------------------------------------------------------------------------------

    @property
    def converged(self) -> bool:
        """Whether the optimiser reached a stationary point."""
        return self.estimate.optimum.converged

    @property
    def status(self) -> str:
        """The most serious of the problems, or "ok".

        One of "ok", "boundary", "improper", "no_chi_square", "saddle_point", "unidentified", "not_converged".
        """
        return status_of(self.problems)

    @property
    def iterations(self) -> pd.DataFrame:
        """Value, decrement, damping and kind of step of every iteration."""
        return self.estimate.optimum.iterations

    @property
    def objective(self) -> Objective:
        """-2 log L as a function of theta."""
        return self.estimate.objective

    @property
    def table(self) -> ParameterTable:
        """The parameter table."""
        return self.estimate.table

    @property
    def model(self) -> Model:
        """What the matrices of every level and group are made from."""
        return self.estimate.objective

    @property
    def has_slopes(self) -> bool:
        """Whether the model has random slopes."""
        return any(self.table.slopes(group) for group in range(1, self.table.ngroups + 1))

    @property
    def integrates(self) -> bool:
        """Whether the likelihood is that of ordered variables, which has no saturated moments."""
        return any(s.integral is not None for s in self.sample.statistics)

    @property
    def theta(self) -> Floats:
        """Estimates, shape (npar,)."""
        return self.estimate.theta

    @cached_property
    def vcov(self) -> Floats:
        """Sampling covariance matrix of the estimates, shape (npar, npar); nan for those without standard errors."""
        return np.full((self.table.npar,) * 2, np.nan) if self.sampling is None else self.sampling.vcov

    @property
    def moving(self) -> NDArray[np.bool_]:
        """Which of the estimates were free to move, shape (npar,): not those at active bounds."""
        free: NDArray[np.bool_] = np.any(self.estimate.tangent != 0, axis=1)
        return free

    @property
    def params(self) -> pd.Series:
        """Estimated parameters, shared ones once; names end in ``.g2`` in group 2, ``.l2`` at the between level.

        A formula is a name too: ``fit.params["fb =~ y2"]``.
        """
        return parameter_series(self.table, self.theta, "est")

    def cov_params(self) -> pd.DataFrame:
        """Sampling covariance matrix of `params`; nan for parameters without standard errors."""
        names = list(self.table.names())
        return pd.DataFrame(self.vcov, index=names, columns=names)

    @property
    def bse(self) -> pd.Series:
        """Standard errors of `params`."""
        return parameter_series(self.table, self.standard_errors, "se")

    @cached_property
    def standard_errors(self) -> Floats:
        """Standard errors of `params`, shape (npar,)."""
        variance = self.vcov.diagonal()
        return np.sqrt(np.where(variance >= 0, variance, np.nan))

    @property
    def tvalues(self) -> pd.Series:
        """Estimates over standard errors, standard normal in large samples."""
        return parameter_series(self.table, self.theta / self.standard_errors, "z")

    @property
    def pvalues(self) -> pd.Series:
        """Two-sided p-values of `tvalues`."""
        return parameter_series(self.table, normal_pvalue(self.tvalues), "pvalue")

    def conf_int(
        self,
        *,
        ci_level: float = 0.95,
        alpha: float | None = None,
        level: Level | None = None,
        reference: Reference = "normal",
    ) -> pd.DataFrame:
        """Wald confidence intervals of `params`, columns ci_lower and ci_upper.

        With ``ci="transformed"`` those of variances are symmetric on the logarithmic scale.

        Parameters
        ----------
        ci_level : float
            Coverage.
        alpha : float, optional
            1 less the coverage, in the place of `ci_level`.
        level : {1, 2, "within", "between"}, optional
            Parameters of this level only.
        reference : {"normal", "t"}
            With "t" the quantiles are those of Student's t with the degrees of freedom of `reference_df`.
        """
        require_choice("reference", reference, get_args(Reference))
        ci_level = coverage(ci_level, alpha)
        quantile = (
            normal_halfwidth(ci_level)
            if reference == "normal"
            else student_halfwidth(ci_level, self.reference_df)
        )
        half = (quantile * self.bse).to_numpy()
        scales = np.full(self.table.npar, "identity")
        free = [row.free - 1 for row in self.table.rows]
        for k, scale in zip(free, self.interval_scales, strict=True):
            if k >= 0:
                scales[k] = scale
        lower, upper = interval_on(scales, self.theta, half)
        limits = pd.DataFrame({"ci_lower": lower, "ci_upper": upper}, index=self.params.index)
        if level is None:
            return limits
        number = self.table.level(level)
        own = sorted({row.free - 1 for row in self.table.rows if row.free and row.level == number})
        return limits.iloc[own]

    @property
    def interval_scales(self) -> list[str]:
        """On which scale the interval of each row of the table is symmetric; see `docs/few-clusters.md`.

        With ``ci="transformed"`` variances that are positive have theirs on the logarithmic scale, all else its own.
        """
        return row_scales(self.table, self.row_values, self.options.ci)

    @property
    def reference_df(self) -> pd.Series:
        """Degrees of freedom of t references, by where a parameter is and the k predictors of its equation.

        J - k - 1 at the between level (Raudenbush & Bryk, 2002), N - J - k at the within level (Schluchter & Elashoff,
        1990), N - k - 1 with one level; J - 1 at most for robust and bootstrap standard errors, and the number of
        primary sampling units less that of strata where there are any. See `docs/small-samples.md`.
        """
        spread = self.options.se in (*DESIGN_BASED, "bootstrap")
        if spread and any(s.first_stage is not None for s in self.sample.statistics):
            independent: list[int] | None = [round(group.nlevel2) for group in self.sample.groups]
        else:
            independent = [len(clusters.sizes) for clusters in self.sample.clusters] if spread else None
        df = reference_df(self.table, self.sample.statistics, independent)
        if self.design_df is not None:
            df = np.minimum(df, self.design_df)
        return pd.Series(df, index=list(self.table.names()), name="df")

    @property
    def design_df(self) -> int | None:
        """Degrees of freedom of variances that come from the design of the sample; None where they do not.

        Primary sampling units less strata (Korn & Graubard, 1999); of replicate weights the linearly independent ones
        less one.
        """
        design = self.sample.design
        spread = self.options.se in (*DESIGN_BASED, "bootstrap")
        return design.df if spread and design is not None else None

    @property
    def independent(self) -> float:
        """Units that robust variances come from: see `independent_units`."""
        return independent_units(self.sample)

    # -- the sample --------------------------------------------------------------------------------------------

    @property
    def origin(self) -> Origin:
        """What the data were, and what of them was left out."""
        return self.sample.origin

    @cached_property
    def groups(self) -> Mapping[str, GroupResults]:
        """Sample, saturated and implied moments of each group by its label; a single group is called ""."""
        groups = self.sample.groups
        return {
            group.label: GroupResults(number, groups, self.estimate, self.sampling)
            for number, group in enumerate(groups, 1)
        }

    @property
    def group_labels(self) -> tuple[str, ...]:
        """Labels of groups 1, 2, ... of the tables; empty for a model of one group."""
        return self.table.group_labels

    @property
    def _group(self) -> GroupResults:
        """The only group."""
        if len(self.groups) > 1:
            labels = ", ".join(map(repr, self.groups))
            raise AttributeError(f"this fit has several groups: ask fit.groups[...], one of {labels}")
        (group,) = self.groups.values()
        return group

    @property
    def statistics(self) -> Statistics:
        """Sufficient statistics the model was fitted to."""
        return self._group.statistics

    @property
    def nobs(self) -> int:
        """Units."""
        return round(self.sample.nobs)

    @property
    def nclusters(self) -> int | None:
        """Clusters of all groups; None for a single-level model without any."""
        counts = [group.nclusters for group in self.groups.values()]
        return None if None in counts else sum(count for count in counts if count is not None)

    @property
    def npar(self) -> int:
        """Estimated parameters, shared ones counted once, less equality constraints on them: lavaan's npar.

        `params` has one more for each such constraint.
        """
        return self.estimate.nfree

    @property
    def saturated(self) -> LevelMoments:
        """Saturated (h1) moments of every level.

        Raises
        ------
        AttributeError
            For a single-level model, and for several groups, which have their own in `groups`.
        """
        return self._group.saturated

    @property
    def unrestricted_moments(self) -> ImpliedLevels:
        """Means and covariances of the saturated model by level, of models of any number of levels.

        Raises
        ------
        AttributeError
            For a model with random slopes, and for several groups, which have their own in `groups`.
        """
        return self._group.unrestricted_moments

    @property
    def icc(self) -> pd.Series:
        """Intraclass correlations of the variables at several levels; standard errors: `icc_table()`.

        With three levels by variable and level: the shares of variance of levels 2 and 3.
        """
        return self._group.icc

    @property
    def implied(self) -> ImpliedLevels:
        """Model-implied means and covariances by level, of observed and latent variables.

        `implied[1]` and `implied[2]` hold all variables, `implied.within` and `implied.between` the observed ones.
        """
        return self._group.implied

    # -- likelihood --------------------------------------------------------------------------------------------

    @property
    def llf(self) -> float:
        """Log-likelihood, given the fixed covariates; nan for least squares."""
        return self.estimate.llf if self.discrepancy is None else np.nan

    @property
    def unrestricted_llf(self) -> float:
        """Log-likelihood of the saturated model; with random slopes, of that of slopes; nan with a penalty."""
        if self.table.penalty:
            return np.nan
        if self.has_slopes:
            return sum(group.unrestricted_llf for group in self.groups.values())
        return self.sample.llf - self.objective.covariate_llf

    @property
    def df(self) -> int:
        """Degrees of freedom: saturated less estimated parameters."""
        return saturated_npar(self.estimate.table) - self.estimate.nfree

    @property
    def aic(self) -> float:
        """Akaike's information criterion.

        nan with a penalty; with weights, primary sampling units or strata -2 log PL + 2 tr(A^-1 M) (Lumley & Scott,
        2015).
        """
        if self.table.penalty:
            return np.nan
        if not self.sample.simple:
            return -2 * self.llf + 2 * (np.nan if self.sampling is None else self.sampling.trace)
        return -2 * self.llf + 2 * self.estimate.nfree

    @property
    def bic(self) -> float:
        """Bayesian information criterion with ln N, as lavaan and Mplus have it.

        nan for a pseudo-likelihood, and with a penalty.
        """
        if not self.sample.simple or self.table.penalty:
            return np.nan
        return -2 * self.llf + self.estimate.nfree * float(np.log(self.sample.nobs))

    @cached_property
    def baseline(self) -> Estimate:
        """The independence model of the same variables; `UnsupportedError` with random slopes."""
        if self.has_slopes:
            raise UnsupportedError("there is no agreed baseline model for models with random slopes")
        if self.integrates:
            raise UnsupportedError("there is no baseline model of ordered variables by maximum likelihood")
        losses = None if self.discrepancy is None else self.discrepancy.likelihoods
        return estimate(baseline_table(self.estimate.table), self.sample, loss=losses)

    # -- rows of the table -------------------------------------------------------------------------------------

    @property
    def row_values(self) -> Floats:
        """Value of every row of the parameter table."""
        return row_values(self.table, self.theta)

    @property
    def row_errors(self) -> Floats:
        """Standard error of every row: 0 where nothing is estimated."""
        return self.of_rows(self.standard_errors)

    def of_rows(self, values: Floats) -> Floats:
        """Values of the parameters, such as standard errors, row by row: 0 where nothing is estimated."""
        free = np.array([r.free for r in self.table.rows], dtype=np.intp)
        return np.where(free > 0, np.append(values, 0.0)[free - 1], 0.0)

    def replicate(self, estimate: Estimate, sample: Sample) -> Self:
        """The same model fitted to a replicate of the sample, without what rests on single clusters."""
        known = self.discrepancy
        tests = (
            ("standard",) if known is None else self.options.test
        )  # of single clusters but for least squares
        return replace(
            self,
            estimate=estimate,
            sample=sample,
            sampling=None,
            problems=(),
            options=replace(self.options, se="none", test=tests),
            discrepancy=None if known is None else known.in_sample(estimate, sample),
            bootstrapped=None,
        )


def row_scales(table: ParameterTable, values: Floats, ci: str) -> list[str]:
    """On which scale the interval of each row is symmetric; see `Solution.interval_scales`."""
    if ci == "wald":
        return ["identity"] * len(table.rows)
    rows = zip(table.rows, values, strict=True)
    return ["log" if r.op == "~~" and r.lhs == r.rhs and x > 0 else "identity" for r, x in rows]


def without_ordered(
    question: Callable[Concatenate[Of, P], Value],
) -> Callable[Concatenate[Of, P], Value]:
    """Refuse a question about models with ordered variables by maximum likelihood."""

    @wraps(question)
    def answer(fit: Of, /, *args: P.args, **options: P.kwargs) -> Value:
        if fit.integrates:
            raise UnsupportedError(
                f"{question.__name__}() of a model with ordered variables by maximum likelihood: {NOT_YET}"
            )
        return question(fit, *args, **options)

    return answer


NO_MOMENTS = (
    "implied covariances depend on the covariates, and there are no saturated moments to hold them against"
)
NOT_YET = "this is not available in this version"


def cached(question: Callable[[Known, *Rest], Value]) -> Callable[[Known, *Rest], Value]:
    """Compute a function of a solution, and of a level if it is about one, once for each solution.

    The value is kept with the solution, as those of cached properties are. It must not know the solution, which would
    then be freed only when Python looks for circles.
    """
    name = f"{question.__module__}.{question.__qualname__}"

    @wraps(question)
    def answer(fit: Known, *rest: *Rest) -> Value:
        kept, own = vars(fit), f"{name}{rest}" if rest else name
        if own not in kept:
            with fit.options.limit():
                kept[own] = question(fit, *rest)
        value: Value = kept[own]
        return value

    return answer


def free_vcov(fit: Estimated) -> Floats:
    """Sampling covariance matrix of the estimates, 0 for parameters at active bounds, which count as fixed there.

    As they do for the standard errors of the other parameters; nan for parameters without standard errors.
    """
    fixed = ~fit.moving
    return np.where(fixed | fixed[:, None], 0.0, fit.vcov)
