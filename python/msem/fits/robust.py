"""Scores, contributions to the likelihood, and scaled tests of a fit."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from msem.distributions import chisq_pvalue
from msem.estimation.estimate import Estimate, require_likelihood
from msem.fits.measures import least_squares_measures, measure_inputs
from msem.fits.solution import Solution
from msem.model.special_tables import saturated_table
from msem.postestimation.fit_indices import FitMeasureInputs, fit_measures, scaled_fit_measures
from msem.postestimation.scaling import (
    Scaling,
    full_scaling,
    model_trace,
    mplus_scaling,
    saturated_trace,
)
from msem.postestimation.scores import conditional_loglik
from msem.settings import ScaledTest


class Robust(Solution):
    """Inference that rests on independent clusters instead of normal variables."""

    def scores(self) -> pd.DataFrame:
        """Derivatives of the log-likelihood of every cluster with respect to `params`, at the estimates.

        Returns
        -------
        DataFrame, shape (J, npar)
            Indexed by cluster id, or by the label of the row for a single-level model without clusters; with several
            groups by group and cluster. Columns sum to zero where nothing holds a parameter back.

        Raises
        ------
        DataError
            Without raw data.
        UnsupportedError
            For least squares.
        """
        require_likelihood(self.estimate, "scores")
        parts = [
            self.objective.scores(self.estimate.theta, group.clusters, number)
            for number, group in enumerate(self.sample.groups, 1)
        ]
        return pd.DataFrame(np.vstack(parts), index=self._cluster_index, columns=list(self.table.names()))

    def cluster_loglik(self) -> pd.Series:
        """Log-likelihood of every cluster given the fixed covariates; the sum is `llf`.

        Returns
        -------
        Series, length J
            Indexed as `scores`.

        Raises
        ------
        DataError
            Without raw data.
        UnsupportedError
            For least squares.
        """
        require_likelihood(self.estimate, "contributions to the log-likelihood")
        parts = [
            conditional_loglik(self.objective, self.estimate.theta, group, number)
            for number, group in enumerate(self.sample.groups, 1)
        ]
        return pd.Series(np.concatenate(parts), index=self._cluster_index, name="llf")

    @property
    def _cluster_index(self) -> pd.Index[Any]:
        groups, name = self.sample.groups, self.options.cluster or None
        if len(groups) == 1:
            return groups[0].identifiers.rename(name)
        labels = np.repeat([group.label for group in groups], [len(group.identifiers) for group in groups])
        return pd.MultiIndex.from_arrays([labels, self.sample.identifiers], names=["group", name])

    # -- tests -------------------------------------------------------------------------------------------------

    @property
    def chisq(self) -> float:
        """Chi-square against the saturated model, not scaled."""
        return float(self._measures["chisq"])

    def tests(self) -> pd.DataFrame:
        """Tests of the model against the saturated one.

        Returns
        -------
        DataFrame
            Rows: standard, the likelihood ratio, and the scaled tests asked for; those of least squares otherwise.
            Columns statistic, df, pvalue, scaling (what the likelihood-ratio statistic was divided by).
        """
        if self.discrepancy is not None:
            return self.discrepancy.tests()
        rows = {}
        for test in self.options.test:
            factor = 1.0 if test == "standard" else self._scaling(test).factor
            statistic = self.chisq / factor if self.df > 0 else self.chisq
            rows[test] = [statistic, float(self.df), chisq_pvalue(statistic, self.df), factor]
        return pd.DataFrame.from_dict(
            rows, orient="index", columns=["statistic", "df", "pvalue", "scaling"], dtype=float
        )

    def _scaling(self, test: ScaledTest) -> Scaling:
        """Scaling factors of a test of this model."""
        known = np.nan if self.sampling is None else self.sampling.trace
        return self._scaling_of(test, self.estimate, known)

    def _scaling_of(self, test: ScaledTest, fit: Estimate, trace: float = np.nan) -> Scaling:
        """The same of any model of these variables, whose tr(A^-1 B) may be known."""
        information = self.options.information
        if test == "yuan_bentler":
            return full_scaling(fit, self.sample, information, *self._saturated_trace)
        if np.isnan(trace):
            trace = model_trace(fit, self.sample, information, test)
        return mplus_scaling(trace, fit.nfree, *self._saturated_trace)

    @cached_property
    def _saturated_trace(self) -> tuple[float, int]:
        trace = saturated_trace(self.table, self.sample, self.options.information)
        return trace, saturated_table(self.table).npar

    def _baseline_factor(self, test: ScaledTest) -> float:
        base = self.baseline
        return self._scaling_of(test, base).factor if base.optimum.converged else np.nan

    @cached_property
    def _measures(self) -> pd.Series:
        if self.discrepancy is not None:
            return least_squares_measures(self.estimate, self.sample, self.discrepancy)
        return self._measures_of(measure_inputs(self.estimate, self.sample, self.baseline))

    def _measures_of(self, inputs: FitMeasureInputs) -> pd.Series:
        test = self.options.scaled_test
        if test is None:
            return fit_measures(inputs)
        return scaled_fit_measures(inputs, self._scaling(test), self._baseline_factor(test))
