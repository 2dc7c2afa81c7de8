"""Posterior distributions of parameters, by importance sampling around the mode or by NUTS.

Importance sampling draws from a multivariate t at the mode, adapted to weighted draws, and smooths the largest
weights by a generalized Pareto distribution, whose shape k says whether they can be trusted (Vehtari, Simpson, Gelman,
Yao & Gabry, 2024, Journal of Machine Learning Research, 25(72)).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.sample import require_simple
from msem.entry import entries
from msem.errors import ExtraError, ModelError, UnsupportedError
from msem.estimation.estimate import require_maximum, require_no_integral, require_unpenalized
from msem.estimation.optimize import bounds
from msem.estimation.solution import Solution
from msem.model.partable import require_no_rotation
from msem.resampling.priors import Priors, is_variance, priors_of
from msem.settings import require_choice, require_seed, require_whole

Floats = NDArray[np.float64]
Route = Literal["importance", "nuts"]

DF = 7.0  # of the proposal
STAGES = 5  # of adaptation, the last of which is kept
FEWEST = 200.0  # effective draws
MOST_K = 0.7  # shape of the tail of the weights
TAIL_FLOOR = 5  # weights that a tail is fitted to at least
STEPS = 100  # of Newton's method
TINY = 1e-24  # variance
NEAR = 2.5  # standard deviations from 0 within which both signs of a root are drawn
SHRUNKEN = (1.0, 0.9, 0.7, 0.4, 0.0)  # shares of covariances, where the search for the mode may start
STEP = 1e-4  # of differences of log densities, in standard deviations


class Density:
    """The posterior density on an unconstrained scale: signed roots of variances, everything else as it is.

    It is symmetric in each root, and has no border at a variance of 0. `folded` says for which of them both signs are
    drawn; of the others only the positive one is.
    """

    def __init__(self, fit: Solution, priors: Priors) -> None:
        self.fit, self.priors = fit, priors
        self.core = fit.objective.core
        self.lower, self.upper = bounds(fit.objective)
        self.roots = np.zeros(fit.table.npar, dtype=bool)
        self.folded = np.ones(fit.table.npar, dtype=bool)
        for row in fit.table.rows:
            if row.free and is_variance(row):
                self.roots[row.free - 1] = True

    def theta(self, u: Floats) -> Floats:
        """Parameters, of the shape of u."""
        out: Floats = np.where(self.roots, np.maximum(u**2, TINY), u)
        return out

    def unconstrained(self, theta: Floats) -> Floats:
        """The inverse."""
        out: Floats = np.where(self.roots, np.sqrt(np.where(self.roots, theta, 1.0)), theta)
        return out

    def __call__(self, u: Floats) -> Floats:
        """Logarithm of the density at each row of u, up to a constant; -inf outside the domain."""
        thetas = self.theta(u)
        out = self.prior(u)
        inside = np.isfinite(out) & ((thetas >= self.lower) & (thetas <= self.upper)).all(axis=1)
        inside &= ~(u[:, ~self.folded & self.roots] < 0).any(axis=1)
        constraints = self.fit.objective.constraints
        if constraints is not None:
            for i in np.flatnonzero(inside):
                inside[i] = bool((constraints.inequalities.values(thetas[i]) >= 0).all())
        values = np.full(len(u), np.inf)
        values[inside] = self.core.values(np.ascontiguousarray(thetas[inside]))
        found: Floats = np.where(
            np.isfinite(values), out - 0.5 * np.where(np.isfinite(values), values, 0), -np.inf
        )
        return found

    def prior(self, u: Floats) -> Floats:
        """The same without the likelihood, with the Jacobian of the scale."""
        thetas = self.theta(u)
        out: Floats = self.priors.log_density(thetas) + 0.5 * np.log(thetas[:, self.roots]).sum(axis=1)
        return out

    def step(self, u: Floats, sizes: Floats) -> tuple[Floats, Floats]:
        """Gradient and negative second derivatives of the density."""
        theta = self.theta(u)
        scale = np.where(self.roots, 2 * u, 1.0)
        gradient = -0.5 * self.fit.objective.gradient(theta)
        hessian = self.fit.objective.observed_information(theta) * np.outer(scale, scale)
        hessian[np.diag_indices(len(u))] -= np.where(self.roots, 2 * gradient, 0.0)
        own, curve = self._prior_derivatives(u, STEP * sizes)
        return gradient * scale + own, hessian - curve

    def _prior_derivatives(self, u: Floats, steps: Floats) -> tuple[Floats, Floats]:
        k = len(u)
        units = np.diag(steps)
        ahead, behind = self.prior(u + units), self.prior(u - units)
        centre = self.prior(u[None])[0]
        gradient = (ahead - behind) / (2 * steps)
        curve = np.diag((ahead - 2 * centre + behind) / steps**2)
        i, j = np.triu_indices(k, 1)
        if len(i):
            both = self.prior(u + units[i] + units[j]) - self.prior(u + units[i] - units[j])
            both -= self.prior(u - units[i] + units[j]) - self.prior(u - units[i] - units[j])
            curve[i, j] = curve[j, i] = both / (4 * steps[i] * steps[j])
        return gradient, curve

    def _inside(self) -> tuple[Floats, float]:
        """The estimates, or a point near them that is in the domain: with larger variances and smaller covariances."""
        units = np.array([1.0 if p is None else p.numbers[-1] for p in self.priors.single])
        covariances = np.array([p is None for p in self.priors.single])
        for shrunken in SHRUNKEN:
            floor = (1e-3 + 0.05 * (1 - shrunken)) * units**2
            theta = np.where(self.roots, np.maximum(self.fit.theta, floor), self.fit.theta)
            u = self.unconstrained(np.where(covariances, shrunken * theta, theta))
            value = float(self(u[None])[0])
            if np.isfinite(value):
                return u, value
        raise ModelError(
            "the posterior has no density near the estimates: look at fit.problems, and simplify the model"
        )

    def mode(self) -> tuple[Floats, Floats]:
        """Where the density is highest, from the estimates, and the inverse of its negative second derivatives there.

        Raises
        ------
        ModelError
        """
        u, value = self._inside()
        sizes = np.ones(len(u))
        for _ in range(STEPS):
            gradient, hessian = self.step(u, sizes)
            if not np.isfinite(hessian).all():
                break
            values, vectors = np.linalg.eigh(hessian)
            safe = np.maximum(np.abs(values), 1e-6 * np.abs(values).max())
            move = vectors @ ((vectors.T @ gradient) / safe)
            sizes = np.sqrt(np.diag((vectors / safe) @ vectors.T))
            decrement = float(gradient @ move)
            if decrement < 1e-14:  # draws follow the mode, and a seed has the same ones on every machine
                if values[0] <= 0:
                    break
                return u, (vectors / safe) @ vectors.T
            for halving in range(40):
                near = u + 0.5**halving * move
                found = self(near[None])[0]
                if found > value:
                    u, value = near, found
                    break
            else:
                return u, (vectors / safe) @ vectors.T
        raise ModelError(
            "the posterior has no mode that was found: give informative priors=, or method='nuts'"
        )


@entries
@dataclass(frozen=True, eq=False)
class Posterior:
    """Draws from the posterior distribution of the parameters of a model; immutable.

    Made by `Fit.posterior`.

    Attributes
    ----------
    names : tuple of str
        Parameters.
    array : ndarray, shape (chains, draws, parameters)
        Equally weighted draws.
    ess : float
        Independent draws that they are worth: of the weights, or the smallest of a parameter.
    pareto_k : float
        Shape of the tail of the importance weights; nan for NUTS.
    priors : dict
        Each parameter's prior as text.
    method : {"importance", "nuts"}
    seed : int
    """

    names: tuple[str, ...]
    array: Floats
    ess: float
    pareto_k: float
    priors: dict[str, str]
    method: Route
    seed: int

    def to_frame(self) -> pd.DataFrame:
        """All draws, a row for each."""
        return pd.DataFrame(self.array.reshape(-1, len(self.names)), columns=list(self.names))

    def summary(self, *, ci_level: float = 0.95) -> pd.DataFrame:
        """Mean, sd, median and central interval of each parameter, with its prior.

        Parameters
        ----------
        ci_level : float
            Probability of the interval.

        Returns
        -------
        DataFrame
        """
        draws = self.array.reshape(-1, len(self.names))
        tails = ((1 - ci_level) / 2, 0.5, (1 + ci_level) / 2)
        lower, median, upper = np.quantile(draws, tails, axis=0)
        return pd.DataFrame(
            {
                "mean": draws.mean(axis=0),
                "sd": draws.std(axis=0, ddof=1),
                "median": median,
                "ci_lower": lower,
                "ci_upper": upper,
                "prior": [self.priors[name] for name in self.names],
            },
            index=list(self.names),
        )

    def to_arviz(self) -> Any:
        """The draws as ArviZ has them, a variable for each parameter.

        Returns
        -------
        DataTree or InferenceData
            As the installed version of ArviZ makes it.

        Raises
        ------
        ImportError
            Without ArviZ: ``pip install 'msem[bayes]'``.
        """
        try:
            arviz = import_module("arviz")
        except ImportError:
            raise ExtraError("draws go to ArviZ with arviz: pip install 'msem[bayes]'") from None
        values = {name: self.array[:, :, k] for k, name in enumerate(self.names)}
        if int(arviz.__version__.partition(".")[0]) < 1:
            return arviz.from_dict(posterior=values)
        return arviz.from_dict({"posterior": values})

    def __repr__(self) -> str:
        chains, draws, _ = self.array.shape
        tail = "" if np.isnan(self.pareto_k) else f", Pareto k {self.pareto_k:.2f}"
        return (
            f"<msem.Posterior: {self.method}, {chains} x {draws} draws of {len(self.names)} parameters, "
            f"effective {self.ess:.0f}{tail}>"
        )


def posterior(
    fit: Solution,
    priors: Mapping[str, str] | None = None,
    *,
    draws: int = 1000,
    chains: int = 4,
    method: Route = "importance",
    seed: int | None = None,
) -> Posterior:
    r"""Draw from the posterior distribution of the parameters.

    Parameters
    ----------
    priors : mapping of str to str, optional
        By the name of a parameter: "normal(mean, sd)", "student_t(df, location, scale)", "uniform(lower, upper)";
        of variances also "half_t(df, scale)" and "half_normal(scale)", of their roots, and
        "inverse_gamma(shape, scale)". The defaults of the others: normal with standard deviation 10 in units of the
        variables for loadings, slopes and means, half-t with 4 degrees of freedom and scale 2.5 for standard
        deviations, and LKJ(2) for correlations of residuals; `Posterior.priors` has them.
    draws, chains : int
        How many draws are kept. Those of importance sampling are independent but for repetitions.
    method : {"importance", "nuts"}
        Importance sampling around the mode, without further packages; or the No-U-Turn sampler of nutpie
        (``msem[bayes]``).
    seed : int, optional
        Default: a random one, kept in the result.

    Returns
    -------
    Posterior

    Raises
    ------
    ModelError
        If importance sampling cannot be trusted: fewer than 200 effective draws, or Pareto k above 0.7.
    UnsupportedError
        For least squares, a penalty, equality constraints (``==``), weights, and exploratory blocks.

    Examples
    --------
    >>> import msem
    >>> text = "level: 1\n fw =~ y1 + y2 + y3\nlevel: 2\n fb =~ y1 + y2 + y3"
    >>> fit = msem.sem(text, msem.load_demo(), cluster="cluster")
    >>> found = fit.posterior({"fb=~y2": "normal(1, 0.5)"}, seed=1)
    >>> found.array.shape
    (4, 1000, 15)
    """
    require_choice("method", method, get_args(Route))
    if fit.discrepancy is not None:
        ordered = any(s.ordered for s in fit.sample.statistics)
        instead = "profile() and bootstrap() have intervals" if ordered else 'use estimator="ML"'
        raise UnsupportedError(
            "posterior distributions need a likelihood that priors are multiplied by, and least squares has none: "
            + instead
        )
    require_maximum(fit.estimate, "posterior distributions")
    require_unpenalized(fit.estimate, "posterior distributions, which have priors in the place of a penalty,")
    require_no_integral(fit.estimate, "posterior distributions")
    require_no_rotation(fit.table, "posterior distributions")
    require_simple(fit.sample, "posterior distributions", "use se='robust'")
    constraints = fit.objective.constraints
    if constraints is not None and len(constraints.equalities):
        raise UnsupportedError(
            f"'{constraints.equalities.texts[0]}': posterior distributions under equality constraints are not "
            "available: give the parameters one label"
        )
    draws, chains = require_whole("draws", draws, 1), require_whole("chains", chains, 1)
    seed = require_seed(seed)
    chosen = priors_of(fit, priors)
    density = Density(fit, chosen)
    if method == "nuts":
        array, ess = _nuts(density, draws, chains, seed)
        k = np.nan
    else:
        array, ess, k = _importance(density, draws * chains, seed)
        array = array.reshape(chains, draws, -1)
    return Posterior(fit.table.names(), array, ess, k, chosen.table(), method, seed)


def _importance(density: Density, count: int, seed: int) -> tuple[Floats, float, float]:
    rng = np.random.default_rng(seed)
    centre, covariance = proposal(density)
    size = max(2 * count, 4000)
    weights, u, k = np.empty(0), np.empty((0, len(centre))), np.inf
    for stage in range(STAGES):
        u, log_proposal = _draw_t(rng, centre, covariance, size)
        log_weights, k = smoothed(density(u) - log_proposal)
        weights = np.exp(log_weights - log_weights.max())
        weights /= weights.sum()
        if stage < STAGES - 1 and 1 / np.sum(weights**2) > 4 * len(centre):
            centre = weights @ u
            off = u - centre
            covariance = (off.T * weights) @ off * (DF - 2) / DF
    ess = float(1 / np.sum(weights**2))
    if not (ess >= FEWEST and k <= MOST_K):
        raise ModelError(
            f"importance sampling cannot be trusted here: {ess:.0f} effective draws of {size}, Pareto k {k:.2f} (at "
            f"least {FEWEST:.0f}, at most {MOST_K}). Take more draws=, informative priors=, or method='nuts'"
        )
    chosen = systematic(rng, weights, count)
    return density.theta(u[rng.permutation(chosen)]), ess, k


def proposal(density: Density) -> tuple[Floats, Floats]:
    """Centre and covariance of the first draws: those at the mode, about 0 for roots that are near it."""
    centre, covariance = density.mode()
    centre = np.where(density.roots, np.abs(centre), centre)
    near = density.roots & (centre < NEAR * np.sqrt(covariance.diagonal()))
    density.folded = near | ~density.roots
    own = covariance.diagonal() + centre**2
    covariance[near] = covariance[:, near] = 0.0
    covariance[near, near] = own[near]
    centre = np.where(near, 0.0, centre)
    return centre, covariance


def _draw_t(rng: np.random.Generator, centre: Floats, covariance: Floats, size: int) -> tuple[Floats, Floats]:
    """Draws from a multivariate t, and the logarithms of their densities up to a constant.

    Any distribution near this one would do. Its numbers are rounded, so that a seed has the same draws on machines
    whose last digits differ: a weight at the edge of being drawn once more would be on one and not on another.
    """
    root = np.linalg.cholesky(covariance)
    least = np.where(root == 0, 1.0, np.abs(root))
    digits = 10.0 ** (np.floor(np.log10(least)) - 2)  # the third significant ones
    root = np.round(root / digits) * digits
    units = 0.001 * root.diagonal()
    centre = np.round(centre / units) * units
    z = rng.standard_normal((size, len(centre)))
    mixed = np.sqrt(DF / rng.chisquare(DF, size))
    x = z * mixed[:, None]
    u = centre + x @ root.T
    log_density = -0.5 * (DF + len(centre)) * np.log1p(np.sum(x**2, axis=1) / DF)
    return u, log_density - np.log(root.diagonal()).sum()


def systematic(rng: np.random.Generator, weights: Floats, count: int) -> NDArray[np.intp]:
    """Positions, each as often as its weight says up to one."""
    points = (np.arange(count) + rng.random()) / count
    found: NDArray[np.intp] = np.minimum(np.searchsorted(np.cumsum(weights), points), len(weights) - 1)
    return found


def smoothed(log_weights: Floats) -> tuple[Floats, float]:
    """Logarithms of importance weights with the largest ones smoothed, and the shape of their tail."""
    if not np.isfinite(log_weights).any():
        return log_weights, np.inf
    out = log_weights - np.max(log_weights)
    count = len(out)
    tail = int(min(0.2 * count, 3 * np.sqrt(count)))
    order = np.argsort(out)
    largest = order[-tail:]
    cutoff = np.exp(out[order[-tail - 1]])
    excess = np.exp(out[largest]) - cutoff
    if tail < TAIL_FLOOR or not np.isfinite(out[largest]).all() or excess[-1] <= 0:
        return out, np.inf
    k, sigma = pareto_shape(excess)
    if np.isfinite(k):
        p = (np.arange(tail) + 0.5) / tail
        quantiles = -sigma * np.log1p(-p) if abs(k) < 1e-8 else sigma / k * np.expm1(-k * np.log1p(-p))
        out[largest] = np.minimum(np.log(cutoff + quantiles), 0.0)
    return out, k


def pareto_shape(excess: Floats) -> tuple[float, float]:
    """Shape and scale of a generalized Pareto distribution (Zhang & Stephens, 2009), of ascending values.

    The shape is drawn towards 0.5 as 10 observations of that shape would draw it.
    """
    n = len(excess)
    grid = 30 + int(np.sqrt(n))
    quarter = excess[int(n / 4 + 0.5) - 1]
    b = 1 - np.sqrt(grid / (np.arange(1, grid + 1) - 0.5))
    b = b / (3 * quarter) + 1 / excess[-1]
    k = np.log1p(-b[:, None] * excess).mean(axis=1)
    log_likelihood = n * (np.log(-b / k) - k - 1)
    weights = np.exp(log_likelihood - log_likelihood.max())
    best = np.sum(b * weights) / np.sum(weights)
    shape = float(np.log1p(-best * excess).mean())
    return (n * shape + 10 * 0.5) / (n + 10), -shape / best


def _nuts(density: Density, draws: int, chains: int, seed: int) -> tuple[Floats, float]:
    """Draws by nutpie."""
    try:
        nutpie, compiled = import_module("nutpie"), import_module("nutpie.compiled_pyfunc")
    except ImportError:
        raise ExtraError("method='nuts' needs nutpie: pip install 'msem[bayes]'") from None
    centre, covariance = proposal(density)
    density.folded[:] = True
    root = np.linalg.cholesky(covariance)
    k = len(centre)

    def log_density(z: Floats) -> tuple[float, Floats]:
        u = centre + root @ z
        value = density(u[None])[0]
        if not np.isfinite(value):
            return -np.inf, np.zeros(k)
        theta = density.theta(u)
        scale = np.where(density.roots, 2 * u, 1.0)
        gradient = -0.5 * density.fit.objective.gradient(theta) * scale
        steps = np.diag(STEP * root.diagonal())
        prior = (density.prior(u + steps) - density.prior(u - steps)) / (2 * steps.diagonal())
        slope = root.T @ (gradient + prior)
        return float(value), np.where(np.isfinite(slope), slope, 0.0)

    def made(*_: Any, **__: Any) -> Any:
        return log_density

    def expanded(*_: Any, **__: Any) -> Any:
        return lambda z: {"theta": density.theta(centre + root @ z)}

    model = compiled.from_pyfunc(k, made, expanded, [np.dtype("float64")], [(k,)], ["theta"])
    trace = nutpie.sample(
        model, draws=draws, chains=chains, tune=500, seed=seed % 2**32, cores=1, progress_bar=False
    )
    array = np.asarray(trace.posterior["theta"], dtype=np.float64)
    return array, float(min(_effective(array[:, :, i]) for i in range(k)))


def _effective(chains: Floats) -> float:
    """Independent draws that chains are worth, by autocorrelations until they are negative in pairs (Geyer, 1992).

    Chains whose draws repel each other may be worth more than their number, which is then what is reported.
    """
    m, n = chains.shape
    off = chains - chains.mean(axis=1, keepdims=True)
    within = off.var(axis=1, ddof=1).mean()
    between = chains.mean(axis=1).var(ddof=1) if m > 1 else 0.0
    total = within * (n - 1) / n + between
    padded = np.fft.rfft(off, 2 * n, axis=1)
    covariance = np.fft.irfft(np.abs(padded) ** 2, axis=1)[:, :n].mean(axis=0) / n
    rho = 1 - (within - covariance) / total
    rho[0] = 1.0
    pairs = rho[: n - n % 2].reshape(-1, 2).sum(axis=1)
    stop = int(np.argmax(pairs < 0)) if (pairs < 0).any() else len(pairs)
    return float(m * n / max(-1 + 2 * np.minimum.accumulate(pairs[:stop]).sum(), 1.0))
