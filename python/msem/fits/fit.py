"""A fitted model: the table of contents of what can be asked of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from msem.entry import questions
from msem.errors import ModelError
from msem.estimation.solution import Solution
from msem.fits.record import save
from msem.fits.reporting import summary, to_html
from msem.fits.request import Request
from msem.pictures.diagram import diagram
from msem.postestimation.category_probabilities import category_probabilities
from msem.postestimation.constraints import constraints, defined
from msem.postestimation.distances import distances
from msem.postestimation.effects import contextual_effects, effects
from msem.postestimation.estimates import estimates, to_frame
from msem.postestimation.factor_scores import factor_scores, random_effects
from msem.postestimation.fit_measures import chisq, fit_measures, tests
from msem.postestimation.icc import icc_table
from msem.postestimation.influence import influence
from msem.postestimation.level_fit import level_fit
from msem.postestimation.missing_information import fmi, left_out
from msem.postestimation.model_matrices import model_matrices
from msem.postestimation.modification import modification_indices
from msem.postestimation.ordered_moments import ordered_moments
from msem.postestimation.plausible_values import plausible_values
from msem.postestimation.prediction import fittedvalues, predict, resid
from msem.postestimation.reliability import reliability
from msem.postestimation.residuals import residual_matrices, residuals
from msem.postestimation.rotation import factor_correlations, loadings, rotation
from msem.postestimation.score_tests import score_test
from msem.postestimation.scores import cluster_loglik, scores
from msem.postestimation.simple_slopes import johnson_neyman, simple_slopes
from msem.postestimation.srmr import srmr
from msem.postestimation.standardized import rsquare, standardized
from msem.postestimation.tidy import ForTables, glance, tidy
from msem.postestimation.variance_partition import variance_partition
from msem.postestimation.wald import wald_test
from msem.resampling.bootstrap import Bootstrap, bootstrap
from msem.resampling.importance import posterior
from msem.resampling.jackknife import jackknife
from msem.resampling.profile import profile


@questions
@dataclass(frozen=True, eq=False)
class Fit(Solution, ForTables):
    """Estimates of a structural equation model with its tests and tables; immutable.

    Made by `msem.sem`, `msem.cfa` and `msem.growth`. For the solution itself see `Solution`. Every question is a
    function of the solution in a module of its own.
    """

    bootstrapped: Bootstrap | None = None
    request: Request[Fit] | None = None

    # estimates
    estimates, to_frame = estimates, to_frame
    standardized, rsquare = standardized, rsquare
    defined, constraints = defined, constraints

    # latent variables
    loadings, factor_correlations, rotation = loadings, factor_correlations, rotation
    model_matrices = model_matrices

    # fit of the model
    tests, fit_measures, level_fit = tests, fit_measures, level_fit
    residuals, residual_matrices, srmr = residuals, residual_matrices, srmr

    ordered_moments = property(ordered_moments)

    # hypotheses
    wald_test, score_test, modification_indices = wald_test, score_test, modification_indices

    # quantities derived from the estimates
    effects, contextual_effects = effects, contextual_effects
    reliability, icc_table = reliability, icc_table
    variance_partition = variance_partition
    simple_slopes, johnson_neyman = simple_slopes, johnson_neyman

    # clusters and units
    scores, cluster_loglik = scores, cluster_loglik
    factor_scores, random_effects = factor_scores, random_effects
    plausible_values = plausible_values
    distances, influence = distances, influence

    predict = predict
    category_probabilities = category_probabilities
    fittedvalues, resid = property(fittedvalues), property(resid)

    # missing values
    fmi, left_out = fmi, left_out

    # resampling, profile likelihood
    bootstrap, jackknife, profile = bootstrap, jackknife, profile
    posterior = posterior

    # text, picture, files
    summary, to_html = summary, to_html
    diagram = diagram
    tidy, glance, save = tidy, glance, save

    def update(
        self, model: str | None = None, data: Any = None, *, add: str | None = None, **options: Any
    ) -> Fit:
        r"""Fit again with another model, other data or other options; what is not given stays as it was.

        Parameters
        ----------
        model : str, optional
        data : data frame, LevelMoments or SampleStatistics, optional
        add : str, optional
            Further lines of the model, in a model with levels below their header: ``"level: 2\n  y1 ~~ y2"``.
        **options
            Those of `msem.sem`.

        Returns
        -------
        Fit

        Raises
        ------
        ModelError
            If the fit was made by a compiled model, or read from a pickle and no data are given.
        """
        if self.request is None:
            raise ModelError("only fits of sem, cfa and growth know how they were made: fit the model again")
        return self.request.changed(model, data, add, options)

    @property
    def df_resid(self) -> int:
        """Units less estimated parameters."""
        return self.nobs - self.npar

    @property
    def chisq(self) -> float:
        """Chi-square against the saturated model, not scaled."""
        return chisq(self)

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        return f"<msem.Fit: {self.npar} parameters, log-likelihood {self.llf:.3f}, status {self.status!r}>"

    def _repr_html_(self) -> str:
        return self.to_html()
