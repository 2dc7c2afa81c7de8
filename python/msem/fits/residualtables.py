"""Residuals of a fit by level: tables, matrices, and their root mean squares with tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.arrays import LevelMoment
from msem.distributions import normal_pvalue, wald_statistic
from msem.fits.solution import Solution
from msem.postestimation.moments import (
    Kind,
    Moment,
    MomentErrors,
    MomentVector,
    least_squares_errors,
    moment_errors,
    moment_vectors,
)
from msem.postestimation.residuals import Metric, Residuals, moment_residuals
from msem.postestimation.srmr import root_mean_square
from msem.settings import require_choice

Floats = NDArray[np.float64]
ResidualKind = Literal["raw", "cor", "cor.bollen", "cor.bentler", "standardized", "normalized"]
METRICS: dict[str, Metric] = {"cor": "cor.bollen", "cor.bollen": "cor.bollen", "cor.bentler": "cor.bentler"}


@dataclass(frozen=True, eq=False)
class ResidualTables(Solution):
    """Residuals of a fit."""

    def residuals(self, kind: ResidualKind = "raw") -> pd.DataFrame:
        """Saturated less model-implied moments of every level, with standard errors and tests.

        Parameters
        ----------
        kind : {"raw", "cor", "cor.bollen", "cor.bentler", "standardized", "normalized"}
            "raw": covariances and means. "cor" or "cor.bollen": correlations, each matrix standardized by its own
            variances (Bollen, 1989). "cor.bentler": covariances in units of the saturated standard deviations of the
            level (Bentler, 1995). Means are in those units too. "standardized": raw residuals over their standard
            errors. "normalized": raw residuals over the standard errors of the saturated moments, which are larger.

        Returns
        -------
        DataFrame
            Columns lhs, op, rhs, level, group, residual, se, z, pvalue; a row for every covariance (``~~``) and mean
            (``~1``). The mean of a variable at both levels is one moment and stands at the between level. `se` is what
            `residual` is divided by in `z`. It is 0, and `z` nan, where the model reproduces the moment by
            construction, as those of fixed covariates; nan where there is no sampling covariance.

        Notes
        -----
        Standard errors: `msem.postestimation.residuals`.
        """
        require_choice("kind", kind, get_args(ResidualKind))
        found = self._residuals(METRICS.get(kind, "raw"))
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
        return frame.sort_values(["group", "level"], kind="stable", ignore_index=True)

    def residual_matrices(self, kind: ResidualKind = "raw", *, group: int = 1) -> dict[int, LevelMoment]:
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
        frame = self.residuals(kind)
        own = frame[frame["group"] == group]
        if own.empty:
            raise ValueError(
                f"there is no group {group!r}: the groups are numbered 1 to {self.table.ngroups}"
            )
        return {level: _matrices(own[own["level"] == level]) for level in range(1, self.table.nlevels + 1)}

    def srmr(self, *, level: float = 0.90, close_h0: float = 0.05) -> pd.DataFrame:
        """Root mean square residuals: sample values, unbiased estimates with intervals, tests of exact and close fit.

        Parameters
        ----------
        level : float
            Of the confidence intervals.
        close_h0 : float
            Largest population value that counts as close fit.

        Returns
        -------
        DataFrame
            Columns measure, level, group, part and those of `RootMeanSquare`: value, se, exact_z, exact_pvalue,
            unbiased, unbiased_se, ci_lower, ci_upper, close_h0, close_z, close_pvalue, nresiduals. `measure` is
            "srmr", as in `fit_measures` (residual correlations with the diagonal at two levels; Bentler's at one), or
            "crmr", correlations without the diagonal. `part` is "cov", "mean" or "total", both. Level 0 is all levels
            together: the root of the mean over all their residuals.

        Notes
        -----
        Maydeu-Olivares (2017); Maydeu-Olivares, Shi and Rosseel (2018).
        """
        rows = [
            {"measure": measure, "level": place, "group": group, "part": part}
            | asdict(root_mean_square(chosen.residuals, chosen.root, level=level, close_h0=close_h0))
            for measure, place, group, part, chosen in self._parts()
        ]
        return pd.DataFrame(rows)

    # -- pieces ------------------------------------------------------------------------------------------------

    def _residuals(self, metric: Metric) -> Residuals:
        return moment_residuals(*self._moments_with_errors, metric)

    @cached_property
    def _moments_with_errors(self) -> tuple[tuple[MomentVector, ...], MomentErrors]:
        vectors = moment_vectors(self.estimate, self.sample)
        return vectors, self._moment_errors(vectors)

    def _moment_errors(self, vectors: tuple[MomentVector, ...]) -> MomentErrors:
        if self.discrepancy is not None:
            return least_squares_errors(vectors[0], self.discrepancy)
        kind: Kind = "expected" if self.options.information == "expected" else "observed"
        return moment_errors(self.estimate, self.sample, vectors, kind, robust=self.options.robust)

    def _parts(self) -> Iterator[tuple[str, int, int, str, Residuals]]:
        """Measure, level, group, part and residuals of every root mean square."""
        bollen = self._residuals("cor.bollen")
        own = bollen if self.table.nlevels == 2 else self._residuals("cor.bentler")
        for measure, found in (("srmr", own), ("crmr", bollen)):
            levels, groups, means = (
                np.array([getattr(key, name) for key in found.keys]) for name in ("level", "group", "op")
            )
            mean = means == "~1"
            counted = ~np.array([key.lhs == key.rhs for key in found.keys]) | (measure == "srmr")
            for group in range(1, self.table.ngroups + 1):
                for level in (1, 2, 0) if self.table.nlevels == 2 else (1,):
                    chosen = counted & (groups == group) & ((levels == level) | (level == 0))
                    parts = {"cov": chosen & ~mean, "mean": chosen & mean, "total": chosen}
                    for part in parts if (chosen & mean).any() else ("cov",):
                        yield measure, level, group, part, found.select(parts[part])


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
