"""The fit of one level, and of all levels each by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.grouped_moments import GroupedMoments
from msem.data.moments import LevelMoments
from msem.data.sample import Origin
from msem.entry import entries
from msem.estimation.matrices import BlockModel, Model, block_map
from msem.estimation.problems import Problem, status_of
from msem.estimation.smallsamples import reference_df
from msem.estimation.solution import GroupResults, Solution
from msem.fits.reporting import (
    constraint_sections,
    segregated_header,
    shown_labels,
    tests_section,
    title,
)
from msem.model.levels import Level, level_name, level_number, names_of_levels, titles_of_levels
from msem.model.partable import Parameter, ParameterTable
from msem.names import Translated
from msem.output.sections import level_section
from msem.output.summary import SummaryInputs, render_html, render_text
from msem.output.tables import hidden_rows
from msem.pictures.diagram import Choices, Diagram, diagram_of, numbers_of, require_converged
from msem.postestimation.constraints import defined, definition_values, solution_constraints
from msem.postestimation.effects import effects
from msem.postestimation.estimates import estimates
from msem.postestimation.fit_indices import measure_series
from msem.postestimation.fit_measures import chosen_measures
from msem.postestimation.level_fit import measures_of_tests
from msem.postestimation.standardized import Kind, rsquare, standardized
from msem.postestimation.wald import wald_test
from msem.settings import Reference

Floats = NDArray[np.float64]


@entries
@dataclass(frozen=True, eq=False, kw_only=True)
class LevelFit(Solution):
    """One level of a model fitted by itself.

    The solution of a model of one level, or of one whose other levels are saturated, with a sampling covariance that
    takes the moments for estimates. Parameters, rows and matrices are those of the level.

    Attributes
    ----------
    level : int
        1 (within), 2 (between) or 3.
    method : str
        "likelihood", "ml" or "uls".
    gamma : str
        "observed", "expected" or "robust": where Gamma comes from if the moments do not carry one.
    part : ParameterTable
        The level's rows of all groups as a table of their own, its parameters numbered from 1.
    own : ndarray of int, shape (k,)
        Where these parameters stand among those of `estimate`.
    vcov_naive : ndarray, shape (k, k)
        Sampling covariance that takes the level's saturated matrix for observed data.
    tests : DataFrame
        Tests of the level's structure: statistic, df, pvalue, scaling.
    grouped : GroupedMoments
        What was fitted.
    srmr : float
        SRMR of the level.
    fit_baseline : callable
        Fits independence of the level in the same way.
    """

    level: int
    method: str
    gamma: str
    part: ParameterTable
    own: NDArray[np.intp]
    vcov_naive: Floats
    tests: pd.DataFrame
    grouped: GroupedMoments
    srmr: float = np.nan
    fit_baseline: Callable[[], LevelFit] | None = None

    standardized, rsquare, effects = standardized, rsquare, effects
    defined, wald_test = defined, wald_test

    @property
    def table(self) -> ParameterTable:
        """The rows of the level as a table of their own."""
        return self.part

    @cached_property
    def model(self) -> Model:
        """What the matrices of the level are made from."""
        table, level = self.part, self.level
        groups = range(1, table.ngroups + 1)
        return BlockModel(
            table, tuple(block_map(table, level, group, table.observed(level, group)) for group in groups)
        )

    @cached_property
    def groups(self) -> Mapping[str, LevelGroup]:
        """Saturated and implied moments of each group by its label; a single group is called ""."""
        return {
            label: LevelGroup(number, self.sample.groups, self.estimate, self.sampling, moments=moments)
            for number, (label, moments) in enumerate(self.grouped, 1)
        }

    @property
    def scaled(self) -> bool:
        """Whether errors and tests come from Gamma, rather than from the likelihood."""
        return self.discrepancy is not None or self.gamma == "robust" or self.grouped.needs_gamma

    @property
    def theta(self) -> Floats:
        """Estimates of the level, shape (k,)."""
        return self.estimate.theta[self.own]

    @cached_property
    def vcov(self) -> Floats:
        """Corrected sampling covariance matrix, shape (k, k)."""
        assert self.sampling is not None
        return self.sampling.vcov[np.ix_(self.own, self.own)]

    @property
    def moving(self) -> NDArray[np.bool_]:
        """Which of the estimates were free to move, shape (k,)."""
        return super().moving[self.own]

    @property
    def npar(self) -> int:
        """Parameters of the level, those counted that constraints tie to others."""
        return self.table.npar

    @property
    def names(self) -> list[str]:
        """Names of the parameters."""
        return list(self.table.names())

    @property
    def nobs(self) -> int:
        """Units of all groups."""
        return round(self.grouped.nobs)

    @property
    def nclusters(self) -> int:
        """Clusters of the highest level, of all groups."""
        return round(self.grouped.nclusters)

    @property
    def origin(self) -> Origin:
        """What the moments were given as."""
        return Origin(given_as=self.grouped.given_as)

    @property
    def moments(self) -> LevelMoments:
        """Saturated (h1) moments of every level: what was fitted.

        Raises
        ------
        AttributeError
            For several groups, which have their own in `groups`.
        """
        return self.grouped.only

    saturated = moments

    @property
    def reference_df(self) -> pd.Series:
        """Degrees of freedom of t references: J - k - 1 at the highest, N - J - k at a lower level.

        See `Fit.reference_df`.
        """
        df = reference_df(self.table, [one.expected_statistics for one in self.grouped.groups])
        return pd.Series(df, index=self.names, name="df")

    @property
    def naive(self) -> LevelFit:
        """The fit with its naive sampling covariance in place of the corrected one."""
        assert self.sampling is not None
        vcov = self.sampling.vcov.copy()
        vcov[np.ix_(self.own, self.own)] = self.vcov_naive
        return replace(self, sampling=replace(self.sampling, vcov=vcov))

    def estimates(
        self, *, standardized: bool = False, ci_level: float = 0.95, reference: Reference = "normal"
    ) -> pd.DataFrame:
        """All rows of the level with corrected standard errors, and the naive ones as `se_naive`.

        Parameters
        ----------
        standardized : bool
            Add std_lv, std_all and std_nox, by the standard deviations of the level.
        ci_level : float
            Of the confidence intervals.
        reference : {"normal", "t"}
            Distribution of estimates over standard errors; see `reference_df`.

        Returns
        -------
        DataFrame
            Columns lhs, op, rhs, level, group, label, est, se, z, pvalue, ci_lower, ci_upper, se_naive, and the
            standardized ones.
        """
        frame = estimates(self, standardized=standardized, ci_level=ci_level, reference=reference)
        naive = self.naive
        errors = np.append(naive.row_errors, definition_values(naive)[1])
        frame.insert(list(frame).index("ci_upper") + 1, "se_naive", errors)
        return frame

    @cached_property
    def measures(self) -> dict[str, float]:
        """Fit measures, made once."""
        baseline = self.fit_baseline().tests if self.fit_baseline is not None else None
        size = self.grouped.units_of(self.level)
        return measures_of_tests(self.tests, baseline, size, len(self.grouped.groups), self.srmr)

    def fit_measures(self, names: str | Sequence[str] | None = None) -> pd.Series:
        """Fit measures of the level, held against independence at the level.

        Parameters
        ----------
        names : str or sequence of str, optional
            Some of the measures.

        Returns
        -------
        Series
            chisq, df, pvalue, those of the baseline, CFI and the other incremental measures, RMSEA with interval and
            tests, srmr. Chi-squares are likelihood ratios for ``method="likelihood"``, mean-scaled ones (Satorra &
            Bentler, 1994) otherwise, or with a robust Gamma. Sample size of RMSEA: units of the level, such as clusters
            at the between level (Ryu & West, 2009), of all groups.
        """
        found = measure_series(self.measures)
        return found if names is None else chosen_measures(found, names)

    def __repr__(self) -> str:
        name = level_name(self.level, self.grouped.nlevels)
        return f"<msem.LevelFit: {name}, method {self.method!r}, status {self.status!r}>"


@dataclass(frozen=True, eq=False, kw_only=True)
class LevelGroup(GroupResults):
    """What the fit of a level says of one group.

    Attributes
    ----------
    moments : LevelMoments
        What was fitted.
    """

    moments: LevelMoments

    @property
    def nobs(self) -> int:
        """Units."""
        return round(self.moments.nobs)

    @property
    def nclusters(self) -> int:
        """Clusters of the highest level."""
        return round(self.moments.nclusters)

    @property
    def saturated(self) -> LevelMoments:
        """Saturated (h1) moments of every level: what was fitted."""
        return self.moments

    @property
    def icc(self) -> pd.Series:
        """Intraclass correlations; see `LevelMoments.icc`."""
        return self.moments.icc


@dataclass(frozen=True)
class SegregatedGroup:
    """What a segregated fit says of one group.

    Attributes
    ----------
    label : str
    saturated : LevelMoments
        Saturated (h1) moments of every level: what was fitted.
    """

    label: str
    saturated: LevelMoments

    @property
    def nobs(self) -> int:
        """Units."""
        return round(self.saturated.nobs)

    @property
    def nclusters(self) -> int:
        """Clusters of the highest level."""
        return round(self.saturated.nclusters)

    @property
    def icc(self) -> pd.Series:
        """Intraclass correlations; see `LevelMoments.icc`."""
        return self.saturated.icc


@entries
@dataclass(frozen=True, eq=False)
class SegregatedFit(Translated):
    """All levels of a model, each fitted by itself; made by `msem.segregated`.

    Attributes
    ----------
    levels : tuple of LevelFit
        Level 1 first.
    """

    levels: tuple[LevelFit, ...]

    @property
    def within(self) -> LevelFit:
        """Level 1."""
        return self.levels[0]

    @property
    def between(self) -> LevelFit:
        """Level 2 of two; of three, see `levels`."""
        if len(self.levels) > 2:
            raise AttributeError(
                f"this model has {len(self.levels)} levels: those above the first are fit.at(2) and fit.at(3)"
            )
        return self.levels[1]

    @property
    def nlevels(self) -> int:
        """Number of levels."""
        return len(self.levels)

    def at(self, level: Level | None) -> tuple[LevelFit, ...]:
        """The fit of one level; all of them for None."""
        return self.levels if level is None else (self.levels[level_number(level, self.nlevels) - 1],)

    @property
    def method(self) -> str:
        """How the levels were fitted."""
        return self.levels[0].method

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Problems of any level."""
        return tuple(problem for fit in self.levels for problem in fit.problems)

    @property
    def status(self) -> str:
        """The most serious problem of any level, or "ok"."""
        return status_of(self.problems)

    @property
    def converged(self) -> bool:
        """Whether all levels converged."""
        return all(fit.converged for fit in self.levels)

    @property
    def nobs(self) -> int:
        """Units."""
        return self.levels[0].nobs

    @property
    def nclusters(self) -> int:
        """Clusters."""
        return self.levels[0].nclusters

    @property
    def npar(self) -> int:
        """Estimated parameters of all levels, less equality constraints on them."""
        return sum(fit.npar - (fit.estimate.table.npar - fit.estimate.nfree) for fit in self.levels)

    @property
    def saturated(self) -> LevelMoments:
        """Saturated (h1) moments of every level: what was fitted.

        Raises
        ------
        AttributeError
            For several groups, which have their own in `groups`.
        """
        return self.levels[0].moments

    @property
    def groups(self) -> Mapping[str, SegregatedGroup]:
        """Saturated moments of each group by its label; a single group is called ""."""
        return {label: SegregatedGroup(label, moments) for label, moments in self.levels[0].grouped}

    @property
    def group_labels(self) -> tuple[str, ...]:
        """Labels of groups 1, 2, ... of the tables; empty for a model of one group."""
        return self.levels[0].group_labels

    @cached_property
    def table(self) -> ParameterTable:
        """Rows of all levels, sorted by group and level."""
        rows: list[Parameter] = []
        count = 0
        for fit in self.levels:
            rows += [row.renumbered(row.free + count) if row.free else row for row in fit.table.rows]
            count += fit.npar
        return replace(
            self.levels[0].table,
            rows=tuple(sorted(rows, key=lambda row: (row.group, row.level))),
            constraints=(),
            defined=(),
        )

    @property
    def params(self) -> pd.Series:
        """Estimates of all levels; names of level 2 end in ``.l2``, those of group 2 in ``.g2``, and so on."""
        return _all(fit.params for fit in self.levels)

    @property
    def bse(self) -> pd.Series:
        """Corrected standard errors of `params`."""
        return _all(fit.bse for fit in self.levels)

    @property
    def tvalues(self) -> pd.Series:
        """Estimates over corrected standard errors, standard normal in large samples."""
        return _all(fit.tvalues for fit in self.levels)

    @property
    def pvalues(self) -> pd.Series:
        """Two-sided p-values of `tvalues`."""
        return _all(fit.pvalues for fit in self.levels)

    @property
    def reference_df(self) -> pd.Series:
        """Degrees of freedom of t references: J - k - 1 at the between, N - J - k at the within level."""
        return _all(fit.reference_df for fit in self.levels)

    def conf_int(
        self,
        *,
        ci_level: float = 0.95,
        alpha: float | None = None,
        level: Level | None = None,
        reference: Reference = "normal",
    ) -> pd.DataFrame:
        """Wald confidence intervals of `params` with corrected standard errors, columns ci_lower and ci_upper.

        Parameters
        ----------
        ci_level : float
            Coverage.
        alpha : float, optional
            1 less the coverage, in the place of `ci_level`.
        level : {1, 2, 3, "within", "between"}, optional
            Parameters of this level only.
        reference : {"normal", "t"}
            With "t" the quantiles are those of Student's t with the degrees of freedom of `reference_df`.
        """
        parts = [fit.conf_int(ci_level=ci_level, alpha=alpha, reference=reference) for fit in self.at(level)]
        return pd.concat(parts)

    def cov_params(self) -> pd.DataFrame:
        """Corrected sampling covariance matrix of `params`.

        Returns
        -------
        DataFrame
            nan between parameters of different levels, whose covariance fits of single levels do not give.
        """
        return pd.concat([fit.cov_params() for fit in self.levels]).reindex(columns=self.params.index)

    @property
    def naive(self) -> SegregatedFit:
        """All fits with the naive standard errors in place of the corrected ones.

        They take the saturated matrix of a level for observed data; above level 1 they are too small.
        """
        return SegregatedFit(tuple(fit.naive for fit in self.levels))

    def estimates(
        self,
        *,
        standardized: bool = False,
        level: Level | None = None,
        ci_level: float = 0.95,
        reference: Reference = "normal",
    ) -> pd.DataFrame:
        """Estimates of all levels with corrected (`se`) and naive (`se_naive`) standard errors.

        Parameters
        ----------
        standardized, level, ci_level, reference
            As in `Fit.estimates`.
        """
        parts = [
            fit.estimates(standardized=standardized, ci_level=ci_level, reference=reference)
            for fit in self.at(level)
        ]
        return _by_group(parts)

    def to_frame(
        self, *, standardized: bool = False, level: Level | None = None, ci_level: float = 0.95
    ) -> pd.DataFrame:
        """Estimates as a data frame; see `estimates`."""
        return self.estimates(standardized=standardized, level=level, ci_level=ci_level)

    def standardized(
        self, kind: Kind = "std_all", *, level: Level | None = None, ci_level: float = 0.95
    ) -> pd.DataFrame:
        """Standardized solution of all levels, each by its own standard deviations; see `LevelFit.standardized`."""
        return _by_group([fit.standardized(kind, ci_level=ci_level) for fit in self.at(level)])

    def rsquare(self, *, level: Level | None = None, ci_level: float = 0.95) -> pd.DataFrame:
        """Explained variance of every endogenous variable of all levels; see `LevelFit.rsquare`."""
        return _by_group([fit.rsquare(ci_level=ci_level) for fit in self.at(level)])

    def diagram(self, **choices: Any) -> Diagram:
        """Path diagram of all levels; see `Fit.diagram`.

        Parameters
        ----------
        **choices
            As of `Fit.diagram`. Standard errors and stars are the corrected ones.
        """
        chosen = Choices(**choices)
        require_converged(self.converged)
        plain = self.estimates(standardized=True)
        shown = plain if chosen.metric is None else self.standardized(chosen.metric)
        return diagram_of(self.table, numbers_of(shown, plain, len(self.table.rows)), chosen)

    def tests(self) -> pd.DataFrame:
        """Tests of all levels: indexed by level and test; statistic, df, pvalue, scaling."""
        return pd.concat({fit.level: fit.tests for fit in self.levels}, names=["level", "test"])

    def fit_measures(self, names: str | Sequence[str] | None = None) -> pd.DataFrame:
        """Fit measures of all levels; see `LevelFit.fit_measures`.

        Parameters
        ----------
        names : str or sequence of str, optional
            Some of the measures.

        Returns
        -------
        DataFrame
            A row for each measure, a column for each level: within and between, or level 1, level 2 and level 3.
        """
        words = names_of_levels(self.nlevels)
        return pd.DataFrame({words[fit.level]: fit.fit_measures(names) for fit in self.levels})

    def summary(
        self,
        *,
        fit_measures: bool = False,
        standardized: bool = False,
        rsquare: bool = False,
        ci: bool = False,
        reference: Reference = "normal",
    ) -> str:
        """Text with the estimates and tests of all levels.

        Parameters
        ----------
        fit_measures : bool
            Add the fit measures of the levels.
        standardized : bool
            Add standardized estimates.
        rsquare : bool
            Add explained variances.
        ci : bool
            Show confidence intervals.
        reference : {"normal", "t"}
            Distribution of estimates over standard errors; see `LevelFit.estimates`.

        Returns
        -------
        str
        """
        return render_text(self.shown(fit_measures, standardized, rsquare, ci, reference))

    def to_html(
        self,
        *,
        fit_measures: bool = True,
        standardized: bool = False,
        rsquare: bool = False,
        ci: bool = False,
        reference: Reference = "normal",
    ) -> str:
        """The summary as one self-contained HTML element.

        Parameters
        ----------
        fit_measures, standardized, rsquare, ci, reference
            What to show; see `summary`.

        Returns
        -------
        str
        """
        return render_html(self.shown(fit_measures, standardized, rsquare, ci, reference))

    def shown(
        self,
        full: bool = False,
        standardized: bool = False,
        rsquare: bool = False,
        ci: bool = False,
        reference: Reference = "normal",
    ) -> SummaryInputs:
        """What a summary shows."""
        table, estimates = self.table, self.estimates(standardized=standardized, reference=reference)
        labels, values = shown_labels(table), estimates["est"].to_numpy()
        beside = len(estimates) - len(labels)  # definitions
        words = names_of_levels(self.nlevels)
        measures = {words[fit.level].capitalize(): fit.measures for fit in self.levels} if full else {}
        return SummaryInputs(
            title=title(self.converged, None),
            messages=tuple(map(str, dict.fromkeys(self.problems))),
            header=segregated_header(self.method, self.levels[0].grouped),
            fit=(
                *(tests_section(fit.level, self.nlevels, fit.tests) for fit in self.levels),
                *((level_section(measures),) if full else ()),
                *(s for fit in self.levels for s in constraint_sections(solution_constraints(fit))),
            ),
            method=(("Standard errors", "Corrected"), ("Naive.SE", "as if the matrix had been observed")),
            levels=titles_of_levels(self.nlevels),
            groups=dict(enumerate(self.group_labels, 1)),
            estimates=estimates.assign(label=[*labels, *estimates["label"][len(labels) :]]),
            hidden=np.append(hidden_rows(table.rows, values[: len(labels)]), np.zeros(beside, dtype=bool)),
            r2=self.rsquare() if rsquare else None,
            ci=ci,
        )

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        return f"<msem.SegregatedFit: method {self.method!r}, status {self.status!r}>"

    def _repr_html_(self) -> str:
        return render_html(self.shown())


def _all(parts: Iterable[pd.Series]) -> pd.Series:
    every: pd.Series = pd.concat(list(parts))
    return every


def _by_group(parts: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Tables of the levels as one, sorted by group and level; definitions, which are of group 0, last and once."""
    frame = pd.concat(list(parts), ignore_index=True)
    group = frame["group"].to_numpy()
    last = np.where(group > 0, group, group.max(initial=0) + 1)
    frame = frame.iloc[np.lexsort((frame["level"], last))]
    return frame[~(frame.duplicated() & (frame["group"] == 0))].reset_index(drop=True)
