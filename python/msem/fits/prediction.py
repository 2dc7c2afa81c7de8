"""Scores of latent variables and random effects as methods of a fit."""

from __future__ import annotations

from typing import Any

import pandas as pd

from msem.data.reading import allowed_holes
from msem.fits.solution import Solution
from msem.model.levels import Level, level_number
from msem.postestimation.factor_scores import METHODS, Group, Method, factor_scores, random_effects_frame
from msem.postestimation.posterior import group_model
from msem.postestimation.rows import new_rows, sample_means, training_rows
from msem.settings import require_choice


class Prediction(Solution):
    """Factor scores and random effects."""

    def factor_scores(
        self,
        level: Level | None = None,
        *,
        method: Method = "EBM",
        se: bool = True,
        cov: bool = False,
        newdata: Any = None,
        cluster: str | None = None,
    ) -> pd.DataFrame:
        """Scores of the latent variables, for the data of the fit or for new data.

        Empirical Bayes scores are the means of the exact posterior distribution of the latent variables given all
        data of the cluster, at the estimated parameters: between-level scores depend on the units of a cluster and
        its cluster variables, within-level scores on the unit and, through the between parts, on the rest of its
        cluster. Their standard deviations depend on the size of the cluster. Maximum likelihood (Bartlett) scores
        treat the latent variables of one cluster, or of one unit, as fixed quantities and everything else as random.
        Under ``missing="fiml"`` all of this is given what is observed, in new data too.

        Parameters
        ----------
        level : {1, 2, "within", "between"}, optional
            Level of the latent variables; default: all, with one row for each unit.
        method : {"EBM", "regression", "ML", "Bartlett"}
            Posterior means (two names for one thing) or maximum likelihood scores (also two names).
        se : bool
            Add ``<name>_se``: posterior standard deviations or, for maximum likelihood scores, standard errors.
            They take the parameters as known.
        cov : bool
            Add ``<name>_<name>_cov``: posterior or sampling covariances of pairs of scores.
        newdata : data frame, optional
            Rows with the variables of the model, the cluster and the group column; any clusters of any size.
        cluster : str, optional
            Cluster column of the new data; default: that of the fit.

        Returns
        -------
        DataFrame
            At level 2 one row for each cluster, indexed by cluster id. Otherwise one row for each row of the data,
            with their index: nan where a row was left out for a missing value, or where the observed values do not
            determine a maximum likelihood score. A between-level name that is also one of the within level ends in
            ``.l2``. With several groups the frame of clusters has a column `group`.

        Raises
        ------
        ModelError
            If there is no latent variable, or `method` is maximum likelihood and the observed variables do not
            determine one.
        DataError
            If the model was fitted to moments and there are no new data, or the new data lack a variable, the
            cluster or the group column, or have groups that the model has not.
        """
        require_choice("method", method, METHODS)
        number = None if level is None else level_number(level, self.table.nlevels)
        cluster = cluster or self.options.cluster
        groups = self._prediction_groups(newdata, cluster)
        return factor_scores(groups, number, method, se=se, cov=cov, cluster=cluster)

    def random_effects(
        self, *, se: bool = True, cov: bool = False, newdata: Any = None, cluster: str | None = None
    ) -> pd.DataFrame:
        """Between parts of the variables at both levels: posterior means given all data of the cluster.

        Parameters
        ----------
        se : bool
            Add ``<name>_se``, posterior standard deviations.
        cov : bool
            Add ``<name>_<name>_cov``, posterior covariances.
        newdata, cluster
            As in `factor_scores`.

        Returns
        -------
        DataFrame
            One row for each cluster, indexed by cluster id. The between parts include the mean of the variable.

        Raises
        ------
        ModelError
            If no variable is at both levels.
        DataError
            As `factor_scores`.
        """
        cluster = cluster or self.options.cluster
        groups = self._prediction_groups(newdata, cluster)
        return random_effects_frame(groups, se=se, cov=cov, cluster=cluster)

    def _prediction_groups(self, newdata: Any, cluster: str | None) -> list[Group]:
        """Label, model and rows of each group."""
        groups = self.sample.groups
        if newdata is None:
            rows = {number: training_rows(group) for number, group in enumerate(groups)}
        else:
            holes = None if self.options.missing == "listwise" else allowed_holes(self.table)
            rows = new_rows(newdata, groups, cluster or "", self.options.group, holes)
        no_means = self.table.nlevels == 1 and not self.table.meanstructure
        return [
            (
                groups[number].label,
                group_model(
                    self.objective,
                    self.estimate.theta,
                    number + 1,
                    sample_means(groups[number]) if no_means else None,
                ),
                part,
            )
            for number, part in rows.items()
        ]
