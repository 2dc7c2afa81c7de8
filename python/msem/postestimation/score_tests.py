"""Score (Lagrange multiplier) tests of directions in which a model does not move, and what moving would give.

With F'F the expected information, g the gradient of the log-likelihood and T a basis of the directions in which the
model is free, all in the coordinates of a larger model, the statistic of further directions D is

    g_d' V^-1 g_d,    g_d = D'g - D'F'Q T'g,    V = R'R,    R = (I - QQ') F D,    Q = F T orthonormal

(Rao, 1948; Sörbom, 1989). V is formed from the residuals R of a projection, so that a direction which the model
already has is told from one that the data hardly determine. The generalized statistic replaces V in the middle by the
sampling covariance of g_d, from the scores of the clusters (Boos, 1992; Satorra, 1989).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

IDENTIFIED = 1e-6  # least part of a column of the information factor that is not explained by other columns
ROUNDING = 1e-7  # the same of the whole column, whatever intercepts explain of it

__all__ = ["Joint", "ScorePoint", "Single"]


class Single(NamedTuple):
    """Tests of directions one by one; nan for a direction that is not identified.

    Attributes
    ----------
    statistic : ndarray, shape (k,)
    change : ndarray, shape (k,)
        Expected change along the direction if it were free.
    robust : ndarray, shape (k,)
        Generalized statistic; nan without scores of the clusters.
    """

    statistic: Floats
    change: Floats
    robust: Floats


class Joint(NamedTuple):
    """Test of several directions together.

    Attributes
    ----------
    statistic, robust : float
        As in `Single`.
    df : int
        Number of directions that are identified.
    change : ndarray, shape (npar,)
        Expected change of all parameters of the larger model if the directions were free.
    """

    statistic: float
    robust: float
    df: int
    change: Floats


@dataclass(frozen=True, eq=False)
class ScorePoint:
    """A larger model at the estimates of a smaller one.

    Attributes
    ----------
    gradient : ndarray, shape (npar,)
        Of the log-likelihood.
    factor : ndarray, shape (rows, npar)
        F with F'F the expected information.
    basis : ndarray, shape (npar, m)
        T with (F T)'(F T) the identity: directions in which the smaller model is free.
    scores : ndarray, shape (J, npar), or None
        Gradients of the log-likelihoods of the clusters.
    intercepts : ndarray of int
        Positions of the intercepts.
    """

    gradient: Floats
    factor: Floats
    basis: Floats
    scores: Floats | None = None
    intercepts: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, dtype=np.intp))

    def single(self, directions: Floats) -> Single:
        """Test each column of `directions`, shape (npar, k), on its own."""
        slope, residual, scores = self._partial(directions)
        with np.errstate(divide="ignore", invalid="ignore"):
            information = np.einsum("ij,ij->j", residual, residual)
            information[information <= (IDENTIFIED * self._sizes(directions)) ** 2] = np.nan
            change = slope / information
            spread = np.full_like(slope, np.nan) if scores is None else np.einsum("ij,ij->j", scores, scores)
            robust = np.where(np.isnan(information), np.nan, slope**2 / spread)
        return Single(slope * change, change, robust)

    def joint(self, directions: Floats) -> Joint:
        """Test all columns of `directions` together."""
        slope, residual, scores = self._partial(directions)
        scale = self._sizes(directions)
        scale = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
        _, singular, right = np.linalg.svd(residual * scale, full_matrices=False)
        kept = singular > IDENTIFIED
        whitener = scale[:, None] * (right[kept].T / singular[kept])
        score = whitener.T @ slope
        moved = (directions - self.basis @ self._coefficients(directions)) @ whitener
        change = moved @ score + self.basis @ (self.basis.T @ self.gradient)
        robust = np.nan if scores is None else _quadratic(score, scores @ whitener)
        return Joint(float(score @ score), robust, int(kept.sum()), change)

    def _coefficients(self, directions: Floats) -> Floats:
        out: Floats = (self.factor @ self.basis).T @ (self.factor @ directions)
        return out

    def _sizes(self, directions: Floats) -> Floats:
        """Lengths of the directions in the metric of the information, less what intercepts alone would take up.

        The slope of a covariate with a large mean is almost an intercept, and identified all the same, as long as the
        difference is more than rounding.
        """
        moved = self.factor @ directions
        least = ROUNDING / IDENTIFIED * np.linalg.norm(moved, axis=0)
        slopes = np.flatnonzero(~np.any(directions[self.intercepts] != 0, axis=0))
        levels = np.linalg.qr(self.factor[:, self.intercepts])[0]
        moved[:, slopes] -= levels @ (levels.T @ moved[:, slopes])
        sizes: Floats = np.maximum(np.linalg.norm(moved, axis=0), least)
        return sizes

    def _partial(self, directions: Floats) -> tuple[Floats, Floats, Floats | None]:
        """Slope, information factor and scores along the directions, cleared of what the model can follow."""
        moved = directions - self.basis @ self._coefficients(directions)
        return (
            self.gradient @ moved,
            self.factor @ moved,
            None if self.scores is None else self.scores @ moved,
        )


def _quadratic(score: Floats, scores: Floats) -> float:
    """Quadratic form score' (scores' scores)^-1 score; nan when there are fewer clusters than directions."""
    if len(scores) <= len(score):
        return np.nan
    triangle = np.asarray(np.linalg.qr(scores, mode="r"), dtype=np.float64)
    try:
        solved = np.linalg.solve(triangle.T, score)
    except np.linalg.LinAlgError:
        return np.nan
    return float(solved @ solved)
