"""Defined parameters and constraints of a fit, as tables."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.fits.solution import Solution
from msem.model.functions import Functions, defined_functions, defined_rows
from msem.model.partable import Parameter
from msem.output.tables import estimates_frame
from msem.postestimation.constraints import Held, held_constraints
from msem.postestimation.delta import Intervals, MonteCarlo, derive, draw

Floats = NDArray[np.float64]


class Constrained(Solution):
    """Functions of the estimates that the model defines, and constraints on them."""

    @cached_property
    def _defined_functions(self) -> Functions:
        return defined_functions(self.table)

    @cached_property
    def _defined_rows(self) -> tuple[Parameter, ...]:
        return defined_rows(self.table)

    @cached_property
    def _defined_values(self) -> tuple[Floats, Floats]:
        """Values and delta-method standard errors of the defined parameters."""
        if not self.table.defined:
            return np.empty(0), np.empty(0)
        found = derive(self._defined_functions, self.estimate.theta, self.cov_params().to_numpy())
        return found.est, found.se

    @property
    def _defined_df(self) -> Floats:
        """Degrees of freedom of t references: the fewest of the parameters that a definition depends on."""
        df = self.reference_df.to_numpy(dtype=float)
        used = [self._defined_functions.core.variables(i) for i in range(len(self._defined_rows))]
        return np.array([min((df[k] for k in own), default=np.nan) for own in used], dtype=float)

    def _defined_at(self, rows: Floats) -> Floats:
        """The definitions at other values of all rows of the table, such as standardized ones."""
        return defined_functions(self.table, "rows").values(rows) if self.table.defined else np.empty(0)

    def defined(
        self, *, level: float = 0.95, method: Intervals = "delta", draws: int = 20_000, seed: int = 1
    ) -> pd.DataFrame:
        """Defined parameters (``:=``) with standard errors and confidence intervals.

        Parameters
        ----------
        level : float
            Of the confidence intervals.
        method : {"delta", "monte_carlo"}
            "delta": normal intervals with standard errors from the derivatives of the definition. "monte_carlo":
            percentiles of the definition over draws from the normal sampling distribution of the estimates
            (MacKinnon, Lockwood & Williams, 2004), which follow the skewness of products and ratios.
        draws : int
            Of the Monte Carlo distribution.
        seed : int
            The same seed gives the same table.

        Returns
        -------
        DataFrame
            Columns lhs, op, rhs, level, group, label, est, se, z, pvalue, ci_lower, ci_upper; level and group are 0.
            For "monte_carlo" se is the standard deviation of the draws, pvalue belongs to the percentile interval, and
            z is nan; all are nan for a definition without a value, such as the root of a negative number, in more
            than 5% of the draws. se is nan where an estimate that a definition depends on has none, because it lies
            on a bound for instance.

        Raises
        ------
        ValueError
            If an option is out of range.
        """
        how = MonteCarlo.chosen(method, draws, seed)
        frame = estimates_frame(self._defined_rows, *self._defined_values, ci_level=level)
        if how is None:
            return frame
        vcov = self.cov_params().to_numpy()
        found = draw(self._defined_functions, self.estimate.theta, vcov, level, how)
        return frame.assign(
            se=found.se, z=np.nan, pvalue=found.pvalue, ci_lower=found.lower, ci_upper=found.upper
        )

    def constraints(self) -> pd.DataFrame:
        """Constraints and bounds of the model at the solution.

        Returns
        -------
        DataFrame
            Columns constraint, kind ("equality", "inequality", "bound"), value (left less right side), active, and
            multiplier: the gain in log-likelihood per unit by which an active inequality or bound is relaxed, or by
            which the right side of an equality is lowered.
        """
        return pd.DataFrame(self._held, columns=list(Held._fields))

    @cached_property
    def _held(self) -> list[Held]:
        return held_constraints(self.estimate)
