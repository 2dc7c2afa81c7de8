"""The saturated model of random slopes, which the chi-square of a model with slopes is against."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from msem.data.model_statistics import slope_carriers
from msem.data.sample import Group, Sample
from msem.errors import DataError
from msem.estimation.estimate import Estimate, estimate
from msem.estimation.sampling import Sampling, sampling_covariance
from msem.model.derived import saturated_slopes, saturated_table
from msem.model.levels import BETWEEN
from msem.model.partable import ParameterTable

NAME = "saturated slopes"


@dataclass(frozen=True, eq=False)
class SlopeReference:
    """The saturated model of slopes of one group.

    Attributes
    ----------
    llf : float
        Its log-likelihood given the fixed covariates; nan where it has no maximum.
    reason : str
        Why it has none; "" where it has one.
    estimate : Estimate or None
    """

    llf: float
    reason: str = ""
    estimate: Estimate | None = None


def slope_reference(
    table: ParameterTable,
    group: Group,
    fitted: Estimate | None = None,
    sampling: Sampling | None = None,
) -> SlopeReference:
    """Estimate the saturated model of slopes for one group.

    Every outcome has a random coefficient of every covariate that has one anywhere in the model. Its covariance matrix
    of the coefficients is not restricted to be positive semidefinite, so that models whose slopes have covariance
    matrices of lower rank are in its interior, and the likelihood-ratio statistic against it is a chi-square.

    Parameters
    ----------
    table : ParameterTable
        The model of this group alone, moments of fixed covariates filled in.
    group : Group
    fitted : Estimate, optional
        The model, where it is fitted to this group alone.
    sampling : Sampling, optional
        Of its estimates.
    """
    if table.auxiliary:
        return SlopeReference(np.nan, "auxiliary variables have no slopes that a test could leave aside")
    s = group.statistics
    if table.ordered.thresholds:
        return SlopeReference(np.nan, "ordered variables by maximum likelihood have no saturated model")
    observed = set(s.names) - set(s.variables.both)
    hidden = next((slope.covariate for slope in table.slopes(1) if slope.covariate not in observed), "")
    if hidden:
        what = (
            "a covariate with a random slope stands at both levels"
            if hidden in s.names
            else f"'{hidden}' is latent"
        )
        return SlopeReference(
            np.nan, f"{what}; for slopes of what is not observed there is no saturated model"
        )
    slopes = saturated_slopes(table, 1)
    top = table.nlevels
    parts = sum(name in s.variables.levels[0] for name in s.variables.levels[-1])
    coefficients = parts + sum(top in slope.at for slope in slopes)
    needed = coefficients + len(table.exogenous(top)) + 2
    if s.nclusters < needed:
        return SlopeReference(
            np.nan,
            f"{s.nclusters:.0f} clusters for {coefficients} random coefficients (at least {needed} are needed)",
        )
    if top == BETWEEN and s.full_clusters < needed:
        return SlopeReference(
            np.nan,
            f"only {s.full_clusters} clusters are large enough to have all coefficients of the {coefficients} that are "
            f"random (at least {needed} are needed)",
        )
    whole = saturated_table(table)
    if fitted is not None and sampling is not None and _is_saturated(fitted, sampling, whole):
        return SlopeReference(fitted.llf, "", fitted)
    statistics = s.with_slopes(slopes, slope_carriers(whole, 1))
    sample = Sample((replace(group, statistics=statistics, space="natural"),))
    try:
        found = estimate(whole, sample)
    except (DataError, ValueError) as error:
        return SlopeReference(np.nan, f"the saturated model of slopes cannot be estimated: {error}")
    if not found.optimum.converged:
        reason = "the saturated model of slopes has not converged"
        if not s.independent:  # whose domain ends at singular matrices
            reason += ": where few slopes explain many its maximum is at a singular covariance matrix"
        return SlopeReference(np.nan, reason, found)
    sampling = sampling_covariance(found.objective, found.theta, "observed")
    if sampling.unidentified or not sampling.positive_definite:
        return SlopeReference(np.nan, "the saturated model of slopes is not identified by these data", found)
    return SlopeReference(found.llf, "", found)


def _is_saturated(fitted: Estimate, sampling: Sampling, whole: ParameterTable) -> bool:
    """Whether the maximum of a model is that of the saturated one, of which it has all parameters under other names.

    With as many parameters, all of them identified, the Jacobian J of the saturated parameters is regular, so that
    their gradient is 0 where that of the model is; and there the information is J'AJ, positive definite if A is.
    """
    found, table = fitted.optimum, fitted.table
    free = fitted.objective.constraints is None and not table.penalty and not table.exploratory
    inside = found.converged and found.border is None and not found.active.any()
    known = sampling.positive_definite and not sampling.unidentified
    return free and inside and known and table.npar == whole.npar
