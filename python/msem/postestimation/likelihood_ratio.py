"""Likelihood-ratio tests of nested models, and their scaled versions for data that are not normal.

With A the information and B the sum over clusters of outer products of scores, both over the directions in which a
model is free, the likelihood ratio is asymptotically a weighted sum of chi-squares whose weights sum to
tr(B1 A1^-1) - tr(B0 A0^-1) for the smaller model 0 and the larger model 1. The tests differ in where that is evaluated:

satorra_bentler_2001
    Each model at its own estimates (Satorra & Bentler, 2001): the difference can be negative.
satorra_bentler_2010
    Both at the estimates of the smaller model, with expected information (Satorra & Bentler, 2010): positive.
satorra_2000
    The restriction tested at the estimates of the larger model (Satorra, 2000): positive, and the single weights are
    known, so that the statistic can be shifted too (Asparouhov & Muthén, 2010).

Clusters are the independent units throughout; information and scores are sums over all of them, so no sample size
enters the scaling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.sample import Sample
from msem.distributions import chisq_pvalue
from msem.estimation.estimate import Estimate
from msem.estimation.scoreproducts import score_products
from msem.model.derived import saturated_npar
from msem.postestimation.nested import Embedding, directions
from msem.postestimation.scaling import model_trace, residual_trace
from msem.settings import Information, ScaledTest

Floats = NDArray[np.float64]
Scaling = Literal["standard", "satorra_bentler_2001", "satorra_bentler_2010", "satorra_2000"]
Kind = Literal["standard", "mixture", "satorra_bentler_2001", "satorra_bentler_2010", "satorra_2000"]

__all__ = [
    "Fitted",
    "LikelihoodRatio",
    "Scaling",
    "likelihood_ratio",
    "restriction_weights",
    "shifted_ratio",
]


class Fitted(NamedTuple):
    """A model with its sample.

    Attributes
    ----------
    estimate : Estimate
    sample : Sample
    information : {"observed", "expected"}
        What A is.
    test : {"yuan_bentler_mplus", "yuan_bentler"}
        Which of the scaled tests of single models the method of 2001 goes with.
    """

    estimate: Estimate
    sample: Sample
    information: Information = "observed"
    test: ScaledTest = "yuan_bentler_mplus"


@dataclass(frozen=True)
class LikelihoodRatio:
    """Test of a smaller model against a larger one.

    Attributes
    ----------
    statistic : float
    df : int
    scaling : float
        What the likelihood ratio was divided by; nan if it would be negative.
    shift : float
        What was added after that.
    method : str
        "mixture": against chi-squares on df - 1 and df degrees of freedom in equal parts.
    """

    statistic: float
    df: int
    scaling: float
    shift: float
    method: Kind

    @property
    def pvalue(self) -> float:
        """Upper tail probability; nan without a statistic."""
        if self.method == "mixture":
            fewer = chisq_pvalue(self.statistic, self.df - 1) if self.df > 1 else float(self.statistic <= 0)
            return 0.5 * (fewer + chisq_pvalue(self.statistic, self.df))
        return chisq_pvalue(self.statistic, self.df) if np.isfinite(self.statistic) else np.nan

    def columns(self, nobs: float, ngroups: int) -> dict[str, Any]:
        """What a table of comparisons says of it, with the RMSEA of the difference for a sample size."""
        excess = max(self.statistic - self.df, 0.0) / (self.df * nobs)
        return {
            "chisq_diff": self.statistic,
            "df_diff": self.df,
            "pvalue": self.pvalue,
            "scaling": self.scaling,
            "rmsea_diff": float(np.sqrt(excess * ngroups)),
            "method": self.method,
        }


UNTESTED: Mapping[str, Any] = {
    **dict.fromkeys(("chisq_diff", "df_diff", "pvalue", "scaling", "rmsea_diff"), np.nan),
    "method": pd.NA,
}
"""The same columns of a model that is held against none."""


def comparison_table(rows: dict[str, dict[str, Any]]) -> pd.DataFrame:
    """Table of comparisons, a row for each model."""
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table.astype({"df_diff": "Int64", "method": "string"})


def likelihood_ratio(
    small: Fitted, large: Fitted, embedding: Embedding, method: Scaling, *, shifted: bool = False
) -> LikelihoodRatio:
    """Test a smaller model against a larger one that contains it.

    Parameters
    ----------
    small, large : Fitted
    embedding : Embedding
        Of the smaller model in the larger one.
    method : {"standard", "satorra_bentler_2001", "satorra_bentler_2010", "satorra_2000"}
    shifted : bool
        Match the variance of the weighted sum too, for the methods that know its weights.

    Returns
    -------
    LikelihoodRatio
    """
    ratio = max(2 * (large.estimate.llf - small.estimate.llf), 0.0)
    df = large.estimate.nfree - small.estimate.nfree
    if method == "standard":
        return LikelihoodRatio(ratio, df, 1.0, 0.0, method)
    if method == "satorra_bentler_2001":
        scaling = (_trace(large) - _trace(small)) / df
    else:
        weights = _weights(small, large, embedding, method)
        if shifted:
            return shifted_ratio(ratio, weights, df, method)
        scaling = float(weights.sum()) / df
    scaling = scaling if scaling > 0 else np.nan
    return LikelihoodRatio(ratio / scaling, df, scaling, 0.0, method)


def shifted_ratio(ratio: float, weights: Floats, df: int, method: Scaling) -> LikelihoodRatio:
    """A weighted sum of chi-squares with mean and variance of a chi-square on df degrees of freedom."""
    scaling = float(np.sqrt((weights @ weights) / df))
    shift = df - float(weights.sum()) / scaling
    return LikelihoodRatio(ratio / scaling + shift, df, scaling, shift, method)


def _weights(small: Fitted, large: Fitted, embedding: Embedding, method: Scaling) -> Floats:
    objective, tangent = large.estimate.objective, large.estimate.tangent
    at_small = method == "satorra_bentler_2010"
    theta = embedding.theta if at_small else large.estimate.theta
    expected = at_small or large.information == "expected"
    information = objective.expected_information(theta) if expected else objective.observed_information(theta)
    meat = score_products(objective, theta, large.sample.clusters)
    left, _ = directions(small.estimate, large.estimate, theta)
    return restriction_weights(information, meat, tangent, left)


def restriction_weights(information: Floats, meat: Floats, tangent: Floats, left: Floats) -> Floats:
    """Weights of the chi-squares of which the likelihood ratio of a restriction is a sum.

    They are the eigenvalues of (AP^-1A')^-1 AP^-1 B P^-1A' with P the information, B its counterpart from scores and A
    a matrix whose null space is spanned by the directions H that are left: of (P^-1 - H (H'PH)^-1 H') B.

    Parameters
    ----------
    information, meat : ndarray, shape (npar, npar)
    tangent : ndarray, shape (npar, m1)
        Directions in which the larger model is free.
    left : ndarray, shape (npar, m0)
        Directions that the restriction leaves, in the span of `tangent`.

    Returns
    -------
    ndarray, shape (m1 - m0,)
        nan if the information is not positive definite.
    """
    p = tangent.T @ information @ tangent
    scale = np.sqrt(np.abs(p.diagonal()))
    scale[scale == 0] = 1.0
    try:
        root = np.linalg.cholesky(p / np.outer(scale, scale))
    except np.linalg.LinAlgError:
        return np.full(tangent.shape[1] - left.shape[1], np.nan)
    # In z = root' (scale * x) the information is the identity; what is at right angles to what is left is tested.
    coordinates = np.linalg.lstsq(tangent, left, rcond=None)[0] * scale[:, None]
    tested = np.linalg.qr(root.T @ coordinates, mode="complete")[0][:, left.shape[1] :]
    back = (tangent / scale) @ np.linalg.solve(root.T, tested)
    return np.asarray(np.linalg.eigvalsh(back.T @ meat @ back), dtype=np.float64)


def _trace(fit: Fitted) -> float:
    """tr(A^-1 B) of a model; for the test of Yuan and Bentler (2000) less that of h1 at its moments."""
    e = fit.estimate
    if fit.test == "yuan_bentler_mplus":
        return model_trace(e, fit.sample, fit.information, fit.test)
    if saturated_npar(e.table) == e.nfree:
        return 0.0
    return -residual_trace(e, fit.sample, expected=fit.information == "expected")
