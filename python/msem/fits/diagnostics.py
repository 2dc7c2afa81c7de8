"""Distances from the model and influence of clusters as methods of a fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from msem.fits.prediction import Prediction
from msem.model.levels import Level, level_number
from msem.postestimation.distances import distances
from msem.postestimation.influence import Influence, influence
from msem.settings import require_threads


class Diagnostics(Prediction):
    """Which clusters and units the model does not fit, and which ones the estimates depend on."""

    def distances(
        self, level: Level | None = None, *, newdata: Any = None, cluster: str | None = None
    ) -> pd.DataFrame:
        """Mahalanobis distances from the model, with chi-square p-values.

        The distance of a cluster is that of all its data, given the fixed covariates. It is the sum of two independent
        parts: within, the deviations of the units from their mean, and between, the mean of the units and the cluster
        variables. The distance of a unit is from what the other units of its cluster, the cluster variables and its own
        covariates predict. Under the model with known parameters they have chi-square distributions.

        Parameters
        ----------
        level : {1, 2, "within", "between"}, optional
            2: clusters; 1: units. Default: clusters, or the rows of a single level.
        newdata, cluster
            As in `factor_scores`.

        Returns
        -------
        DataFrame
            Of clusters: size, distance, df, pvalue, between, between_df, between_pvalue, within, within_df,
            within_pvalue, indexed by cluster id. Of units: distance, df, pvalue with the index of the data, nan where a
            row was left out.

        Raises
        ------
        DataError, ModelError
            As `factor_scores`.

        References
        ----------
        Pinheiro, Liu & Wu (2001). JCGS, 10, 249-276. Yuan & Hayashi (2010). Psychological Methods, 15, 335-351.
        """
        number = self.table.nlevels if level is None else level_number(level, self.table.nlevels)
        cluster = cluster or self.options.cluster
        return distances(self._prediction_groups(newdata, cluster), number, cluster)

    def influence(
        self,
        *,
        exact: bool = False,
        clusters: Sequence[Any] | None = None,
        threads: int | None = None,
        progress: bool = True,
    ) -> Influence:
        """Change of every estimate when a cluster is left out; a row, in a sample without clusters.

        Parameters
        ----------
        exact : bool
            Refit without each cluster, from the estimates and the sufficient statistics of the others. Otherwise the
            change is approximated from the scores and the information: by a scoring step for the other clusters and
            corrections of it, with the moments of fixed covariates as they are in the whole sample, along the
            tangent of nonlinear and active constraints.
        clusters : sequence, optional
            Ids of clusters; default: all.
        threads : int, optional
            Default: one for each processor.
        progress : bool
            Show a bar on the standard error stream when refits take more than a second.

        Returns
        -------
        Influence
            Cook's distance, likelihood displacement, and changes of the estimates, raw and in standard errors.

        Raises
        ------
        DataError
            Without raw data, or if a cluster is unknown.
        ModelError
            If the fit has not converged.
        UnsupportedError
            If the fit is not by maximum likelihood.

        References
        ----------
        Cook (1986). JRSS B, 48, 133-169. Pek & MacCallum (2011). Multivariate Behavioral Research, 46, 202-228.
        """
        return influence(
            self.estimate,
            self.sample,
            self._standard_errors,
            exact=exact,
            clusters=clusters,
            cluster=self.options.cluster,
            threads=require_threads(threads),
            show=progress,
        )
