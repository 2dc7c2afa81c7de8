"""Profile likelihood of a fit."""

from __future__ import annotations

from collections.abc import Sequence

from msem.errors import UnsupportedError
from msem.estimation.estimate import require_maximum
from msem.fits.solution import Solution
from msem.resampling.named import every_parameter, read_named, require_names
from msem.resampling.profile import Profile, profile
from msem.settings import require_whole


class Profiled(Solution):
    """Likelihood-ratio intervals of a fit."""

    def profile(
        self, names: str | Sequence[str] | None = None, *, level: float = 0.95, points: int = 21
    ) -> Profile:
        """Profile the likelihood of parameters, and the intervals that it gives.

        The interval holds the values at which -2 log L, minimised over all other parameters, is above its minimum by no
        more than the chi-square quantile with one degree of freedom. It needs no standard error, respects bounds and
        need not be symmetric (Venzon & Moolgavkar, 1988; Neale & Miller, 1997).

        Parameters
        ----------
        names : str or sequence of str, optional
            Names of `params`, labels, formulas such as ``"fb =~ y2"``, or functions of parameters such as ``"a*b"``.
            Default: all parameters and definitions.
        level : float
            Coverage.
        points : int
            Of each curve in `Profile.frame`.

        Returns
        -------
        Profile

        Raises
        ------
        ModelError
            If a name is not that of one estimated parameter, or the fit has not converged.
        UnsupportedError
            If the fit is not by maximum likelihood, or is of one level with clusters.

        Warns
        -----
        ConvergenceWarning
            If the likelihood is higher elsewhere than at the estimates.
        """
        require_maximum(self.estimate, "profiles")
        if self.table.nlevels == 1 and any(group.in_clusters for group in self.sample.groups):
            raise UnsupportedError(
                "the likelihood of a single-level model takes the rows of a cluster as independent, so its profile "
                "would give intervals that are too short: use bootstrap(), or levels in the model"
            )
        require_whole("points", points, 2)
        table = self.table
        chosen = (
            every_parameter(table)
            if names is None
            else [read_named(table, name) for name in require_names(names)]
        )
        return profile(self.estimate, chosen, level, points)
