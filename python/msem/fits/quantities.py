"""Quantities derived from a fit: standardized solution, explained variance, ICC, reliability, effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.errors import UnsupportedError
from msem.fits.constrained import Constrained
from msem.model.functions import defined_functions
from msem.postestimation.delta import Intervals, MonteCarlo, delta_method
from msem.postestimation.effects import (
    differences,
    differences_frame,
    effects_frame,
    effects_of,
    effects_quantity,
)
from msem.postestimation.icc import at_both_levels, icc_frame, model_icc, saturated_icc
from msem.postestimation.reliability import coefficients, composites, reliability_frame
from msem.postestimation.standardized import KINDS, Definitions, Kind, rsquare_frame, standardized_frame
from msem.postestimation.unrestricted import Unrestricted, unrestricted
from msem.settings import require_choice

Floats = NDArray[np.float64]


class Quantities(Constrained):
    """Methods of a fit for quantities derived from its estimates, with standard errors and intervals.

    Parameters at active bounds count as fixed there, as they do for the standard errors of the other parameters.
    """

    @property
    def _vcov(self) -> Floats:
        vcov = self.cov_params().to_numpy()
        held = ~np.any(self.estimate.tangent != 0, axis=1)
        return np.where(held | held[:, None], 0.0, vcov)

    def standardized(
        self, kind: Kind = "std_all", *, total: bool = False, level: float = 0.95
    ) -> pd.DataFrame:
        """Standardized solution with delta-method standard errors.

        Each level is standardized by its own variances. Loadings and regressions are in standard deviations of the
        outcome per standard deviation of the cause, variances are shares of the total variance, covariances of
        residuals are correlations.

        Parameters
        ----------
        kind : {"std_all", "std_lv", "std_nox"}
            Which variables have variance 1: all, the latent ones, or all but observed covariates.
        total : bool
            Divide by total standard deviations instead of those of the level: the root of the sum of the within and
            the between variance of variables that have the same name at both levels. Residual covariances are over
            the roots of summed residual variances.
        level : float
            Coverage of the (Wald) intervals.

        Returns
        -------
        DataFrame
            Columns lhs, op, rhs, level, group, label, est_std, se, z, pvalue, ci_lower, ci_upper, one row for each
            row of `estimates`; defined parameters are evaluated at the standardized values. The standard error is 0
            for what is fixed by the scale; nan where a variance is not positive.
        """
        require_choice("kind", kind, KINDS)
        functions = defined_functions(self.table, "rows") if self.table.defined else None
        return standardized_frame(
            self.objective,
            self.estimate.theta,
            self._vcov,
            kind,
            total=total,
            level=level,
            defined=Definitions(self._defined_rows, functions),
        )

    def rsquare(self, *, level: float = 0.95) -> pd.DataFrame:
        """Explained variance of every endogenous variable within its level.

        Parameters
        ----------
        level : float
            Coverage of the intervals, which are Wald intervals of the logit.

        Returns
        -------
        DataFrame
            Columns lhs, level, group, r2, se, ci_lower, ci_upper. nan where a residual variance is negative.
        """
        return rsquare_frame(self.objective, self.estimate.theta, self._vcov, level=level)

    def icc_table(
        self, *, source: Literal["saturated", "model"] = "saturated", level: float = 0.95
    ) -> pd.DataFrame:
        """Intraclass correlations with standard errors, intervals and design effects.

        Parameters
        ----------
        source : {"saturated", "model"}
            From the saturated moments, or implied by the model; the model also has those of latent variables that
            have the same name at both levels.
        level : float
            Coverage of the intervals, which are Wald intervals on Fisher's scale.

        Returns
        -------
        DataFrame
            Columns lhs, group, icc, se, ci_lower, ci_upper, design_effect, effective_nobs.

        Raises
        ------
        UnsupportedError
            For a single-level model.
        ModelError
            If no variable is at both levels.
        """
        require_choice("source", source, ("saturated", "model"))
        if self.table.nlevels == 1:
            raise UnsupportedError(
                "a single-level model has no intraclass correlations: give level: blocks and cluster="
            )
        frames = []
        for group, sample in enumerate(self.sample.groups, 1):
            quantity, names = model_icc(self.objective, group), at_both_levels(self.objective, group)
            if source == "model":
                found = delta_method(quantity, self.estimate.theta, self._vcov)
            else:
                names = list(sample.statistics.unit[: sample.statistics.nboth])
                found = saturated_icc(self._unrestricted[group], names)
            frames.append(icc_frame(names, group, found, sample.statistics, level))
        return pd.concat(frames, ignore_index=True)

    @cached_property
    def _unrestricted(self) -> dict[int, Unrestricted]:
        """Saturated moments with their sampling covariance, by group."""
        robust = self.options.se == "robust"
        return {k: unrestricted(group, k, robust=robust) for k, group in enumerate(self.sample.groups, 1)}

    def reliability(
        self,
        factors: Sequence[str] | None = None,
        *,
        pairs: Mapping[str, str] | None = None,
        weights: Mapping[str, float] | None = None,
        level: float = 0.95,
        method: Intervals = "delta",
        draws: int = 20_000,
        seed: int = 1,
    ) -> pd.DataFrame:
        """Reliability of sum scores by level.

        Parameters
        ----------
        factors : sequence of str, optional
            Default: all factors with at least two indicators, all of them observed.
        pairs : mapping of str to str, optional
            Between-level name of the factor of a within-level name, for the scores that have both parts. By default
            factors are paired that have the same name, or are the only ones with these indicators.
        weights : mapping of str to float, optional
            Weights of items in the sums, 1 by default: -1 for a reversed item.
        level : float
            Coverage of the intervals.
        method : {"delta", "monte_carlo"}
            Wald intervals of the logit, or percentiles of draws from the sampling distribution of the estimates; se
            is then the standard deviation of the draws.
        draws, seed : int
            Of Monte Carlo intervals. The same seed gives the same table.

        Returns
        -------
        DataFrame
            Columns factor, level, group, coefficient, items, est, se, ci_lower, ci_upper. Coefficients, `w` being
            the weights, `S_l` covariance matrices of the items at level l and n the harmonic mean cluster size:

            - ``omega``: McDonald's, (w'lambda)^2 psi / w'S_l w, of the level's part of the score (Geldhof, Preacher
              & Zyphur, 2014), with the model-implied S_l;
            - ``alpha``: Cronbach's, of the saturated S_l;
            - ``h``: maximal reliability; ``ave``: average variance extracted;
            - ``omega_b``, ``alpha_b``: of observed cluster means: the between numerator over
              w'S_2 w + w'S_1 w / n (Lai, 2021); ``irr`` = w'S_2 w over the same, the interrater reliability;
            - ``omega_2l``, ``alpha_2l`` (level 0): of scores of units, numerators and denominators summed over levels.

        Raises
        ------
        ModelError
            If a factor has no such score; the message says why.
        """
        found = composites(self.table, factors, weights or {})
        sizes = {group: s.harmonic_size for group, s in enumerate(self.sample.statistics, 1)}
        return reliability_frame(
            coefficients(found, sizes, pairs or {}),
            self.objective,
            self.estimate.theta,
            self._vcov,
            self._unrestricted,
            level=level,
            how=MonteCarlo.chosen(method, draws, seed),
        )

    def effects(
        self,
        outcome: str | Sequence[str] | None = None,
        predictor: str | Sequence[str] | None = None,
        *,
        specific: bool = True,
        standardized: Kind | None = None,
        total: bool = False,
        level: float = 0.95,
        method: Intervals = "delta",
        draws: int = 20_000,
        seed: int = 1,
    ) -> pd.DataFrame:
        """Direct, indirect and total effects at each level.

        Parameters
        ----------
        outcome, predictor : str or sequence of str, optional
            Default: all variables that are regressed on others, and all that others are regressed on.
        specific : bool
            Show the indirect effect of each path, not only their sum.
        standardized : {"std_all", "std_lv", "std_nox"}, optional
            Standardize as `standardized` does.
        total : bool
            Standardize by total variances.
        level : float
            Coverage of the intervals.
        method : {"delta", "monte_carlo"}
            Wald intervals, or percentiles of draws from the sampling distribution of the estimates: se is then the
            standard deviation of the draws, z nan, and pvalue belongs to the percentile interval.
        draws, seed : int
            Of Monte Carlo intervals. The same seed gives the same table.

        Returns
        -------
        DataFrame
            Columns level, group, predictor, through, outcome, effect ("direct", "indirect", "total_indirect",
            "total"), est, se, z, pvalue, ci_lower, ci_upper. In models with feedback total effects are
            (I - A)^-1 - I and specific indirect effects are not shown: there are infinitely many.

        Raises
        ------
        ModelError
            If no path leads from these predictors to these outcomes.
        """
        if standardized is not None:
            require_choice("standardized", standardized, KINDS)
        elif total:
            raise ValueError("total=True says how to standardize: give standardized= too")
        wanted = effects_of(self.table, outcome, predictor, specific=specific)
        return effects_frame(
            wanted,
            effects_quantity(self.objective, wanted, standardized, total),
            self.estimate.theta,
            self._vcov,
            level=level,
            how=MonteCarlo.chosen(method, draws, seed),
        )

    def contextual_effects(
        self,
        outcome: str | Sequence[str] | None = None,
        predictor: str | Sequence[str] | None = None,
        *,
        pairs: Mapping[str, str] | None = None,
        specific: bool = True,
        level: float = 0.95,
        method: Intervals = "delta",
        draws: int = 20_000,
        seed: int = 1,
    ) -> pd.DataFrame:
        """Effects that both levels have: the between one less the within one.

        Parameters
        ----------
        pairs : mapping of str to str, optional
            Between-level names of variables by their within-level names, where they differ.
        outcome, predictor, specific, level, method, draws, seed
            As in `effects`.

        Returns
        -------
        DataFrame
            Columns group, predictor, through, outcome, effect (in names of the within level), within, between, then
            est = between - within with se, z, pvalue, ci_lower, ci_upper.

        Raises
        ------
        ModelError
            If no effect is at both levels.
        """
        found = differences(effects_of(self.table, outcome, predictor, specific=specific), pairs or {})
        return differences_frame(
            found,
            self.objective,
            self.estimate.theta,
            self._vcov,
            level=level,
            how=MonteCarlo.chosen(method, draws, seed),
        )
