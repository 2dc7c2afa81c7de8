"""Slow truth: the two-level model as one dense normal density per cluster, in plain NumPy.

Nothing is shared with the package. Variables are ordered as in `SampleStatistics`: measured on units
first those at both levels, then the within-only ones; between moments cover the both-level variables,
then the between-only ones. Moments may be complex, so derivatives can be taken by complex steps.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pandas as pd


class Moments(NamedTuple):
    mu_w: np.ndarray  # (p,) within means: zero for a variable at both levels, by convention
    sigma_w: np.ndarray  # (p, p)
    mu_b: np.ndarray  # (nboth + q,)
    sigma_b: np.ndarray  # (nboth + q, nboth + q); need not be positive definite
    nboth: int


def spread(m):
    """Mean, between and within covariance over (unit, between-only) variables: zeros where absent."""
    p, q = len(m.mu_w), len(m.mu_b) - m.nboth
    place = np.concatenate([np.arange(m.nboth), p + np.arange(q)])
    kind = np.result_type(m.mu_w, m.sigma_w, m.mu_b, m.sigma_b, float)
    mean, between, within = (
        np.zeros(p + q, kind),
        np.zeros((p + q, p + q), kind),
        np.zeros((p + q, p + q), kind),
    )
    mean[:p] = m.mu_w
    mean[place] += m.mu_b
    between[np.ix_(place, place)] = m.sigma_b
    within[:p, :p] = m.sigma_w
    return mean, between, within


def stacked(m, n):
    """Mean and covariance of a whole cluster of size n: (y_1, ..., y_n, z)."""
    p, q = len(m.mu_w), len(m.mu_b) - m.nboth
    mean, between, within = spread(m)
    variable = np.concatenate([np.tile(np.arange(p), n), p + np.arange(q)])
    unit = np.concatenate([np.repeat(np.arange(n), p), np.full(q, -1)])
    square = np.ix_(variable, variable)
    return mean[variable], between[square] + within[square] * (unit[:, None] == unit)


def logdet(cov):
    """Log-determinant; LinAlgError unless the real part is positive definite."""
    np.linalg.cholesky(cov.real)
    sign, logabs = np.linalg.slogdet(cov)
    return logabs + np.log(sign)


def normal_logpdf(x, mean, cov):
    """Log-density of each row of x (rows, d)."""
    r = x - mean
    quadratic = np.einsum("ri,ir->r", r, np.linalg.solve(cov, r.T))
    return -0.5 * (len(mean) * np.log(2 * np.pi) + logdet(cov) + quadratic)


def cluster_logliks(m, y, z, cluster):
    """Log-likelihood of each cluster (J,): y (N, p), z (J, q), cluster codes 0..J-1 in any order."""
    count = np.bincount(cluster, minlength=len(z))
    first, rows = np.cumsum(count) - count, y[np.argsort(cluster, kind="stable")]
    out = np.zeros(len(z), np.result_type(*m[:4], float))
    for n in np.unique(count):
        chosen = np.flatnonzero(count == n)
        units = rows[first[chosen][:, None] + np.arange(n)].reshape(len(chosen), -1)
        out[chosen] = normal_logpdf(np.hstack([units, z[chosen]]), *stacked(m, n))
    return out


def covariate_loglik(m, y, z, unit_x, cluster_x):
    """Marginal log-likelihood of fixed covariates: columns unit_x of y, cluster_x of z.

    Within-only covariates are independent over units, between-only ones over clusters.
    """
    x, w = list(unit_x), [m.nboth + i for i in cluster_x]
    within = normal_logpdf(y[:, x], m.mu_w[x], m.sigma_w[np.ix_(x, x)]).sum()
    return within + normal_logpdf(z[:, list(cluster_x)], m.mu_b[w], m.sigma_b[np.ix_(w, w)]).sum()


def loglik(m, y, z, cluster, unit_x=(), cluster_x=()):
    """Log-likelihood given the fixed covariates: the joint one less that of the covariates."""
    return cluster_logliks(m, y, z, cluster).sum() - covariate_loglik(m, y, z, unit_x, cluster_x)


def statistics(y, z, cluster):
    """Sufficient statistics with the attribute names of `SampleStatistics`."""
    count = np.bincount(cluster, minlength=len(z))
    means = np.array([y[cluster == j].mean(axis=0) for j in range(len(z))])
    deviation, v, sizes = y - means[cluster], np.hstack([means, z]), np.unique(count)
    groups = [v[count == n] for n in sizes]
    return SimpleNamespace(
        nobs=float(len(y)),
        nclusters=float(len(z)),
        sizes=sizes.astype(float),
        counts=np.array([float(len(g)) for g in groups]),
        means=np.array([g.mean(axis=0) for g in groups]),
        scatter=np.array([(g - g.mean(axis=0)).T @ (g - g.mean(axis=0)) for g in groups]),
        ssw=deviation.T @ deviation,
    )


def loglik_from_statistics(m, s):
    """The same joint log-likelihood from sufficient statistics: cluster means and contrasts within."""
    (mean, between, within), p = spread(m), len(m.mu_w)
    contrasts = (s.nobs - s.nclusters) * (p * np.log(2 * np.pi) + logdet(m.sigma_w))
    total = contrasts + np.trace(np.linalg.solve(m.sigma_w, s.ssw))
    for n, count, centre, scatter in zip(s.sizes, s.counts, s.means, s.scatter, strict=True):
        cov, r = between + within / n, centre - mean
        constant = len(mean) * np.log(2 * np.pi) + p * np.log(n)
        total += count * (constant + logdet(cov)) + np.trace(
            np.linalg.solve(cov, scatter + count * np.outer(r, r))
        )
    return -0.5 * total


def expected_statistics(m, sizes, counts):
    """What the sufficient statistics are on average under the moments."""
    (mean, between, within), sizes, counts = spread(m), np.asarray(sizes, float), np.asarray(counts, float)
    nobs, nclusters = sizes @ counts, counts.sum()
    return SimpleNamespace(
        nobs=nobs,
        nclusters=nclusters,
        sizes=sizes,
        counts=counts,
        means=np.tile(mean, (len(sizes), 1)),
        scatter=np.array([c * (between + within / n) for n, c in zip(sizes, counts, strict=True)]),
        ssw=(nobs - nclusters) * m.sigma_w,
    )


def implied(rows, theta, level, observed, group=1):
    """Mean and covariance of the observed variables of one level, by RAM: (I - A)^-1 S (I - A)^-T.

    Rows have `lhs, op, rhs, level, group, free, value`, as `Parameter` does.
    """
    rows = [r for r in rows if (r.level, r.group) == (level, group) and r.op in ("=~", "~", "~~", "~1")]
    names = list(dict.fromkeys([*observed, *(n for r in rows for n in (r.lhs, r.rhs) if n)]))
    at = {name: i for i, name in enumerate(names)} | {"": 0}
    a, s, mean = (
        np.zeros(shape, theta.dtype) for shape in [(len(names),) * 2, (len(names),) * 2, len(names)]
    )
    for row in rows:
        value = theta[row.free - 1] if row.free else row.value
        if np.isnan(value):
            raise ValueError(f"no value for {row.lhs} {row.op} {row.rhs} at level {level}")
        lhs, rhs = at[row.lhs], at[row.rhs]
        if row.op == "~1":
            mean[lhs] = value
        elif row.op == "~~":
            s[lhs, rhs] = s[rhs, lhs] = value
        else:
            a[(rhs, lhs) if row.op == "=~" else (lhs, rhs)] = value
    total = np.linalg.inv(np.eye(len(names)) - a)[: len(observed)]
    return total @ mean, total @ s @ total.T


def table_moments(rows, theta, unit, cluster, nboth, group=1):
    """Moments of both levels; `unit` and `cluster` are the names of `SampleStatistics`."""
    theta = np.asarray(theta)
    within = implied(rows, theta, 1, unit, group)
    return Moments(*within, *implied(rows, theta, 2, [*unit[:nboth], *cluster], group), nboth)


def complex_step(function, theta):
    """Derivatives to rounding error of a function that accepts complex arrays; the last axis is theta."""
    steps = np.asarray(theta) + 1e-20j * np.eye(len(theta))
    return np.stack([np.asarray(function(t)).imag / 1e-20 for t in steps], axis=-1)


def differences(function, theta, step=0.02):
    """Derivatives of any function by Ridders' extrapolated central differences; the last axis is theta."""

    def along(direction):
        best, error, table = None, np.inf, []
        for k in range(7):
            h = step * 1.6**-k
            shift = h * direction
            new = [(np.asarray(function(theta + shift)) - function(theta - shift)) / (2 * h)]
            for i, old in enumerate(table):
                new.append(new[-1] + (new[-1] - old) / (1.6 ** (2 * i + 2) - 1))
            if table:
                guess = np.maximum(np.abs(new[-1] - new[-2]), np.abs(new[-1] - table[-1]))
                best = np.where(guess < error, new[-1], new[-1] if best is None else best)
                error = np.minimum(error, guess)
            table = new
        return best

    return np.stack([along(d) for d in np.diag(np.maximum(1, np.abs(theta)))], axis=-1) / np.maximum(
        1, np.abs(theta)
    )


def hessian(function, theta):
    """Second derivatives of a scalar function that accepts complex arrays."""
    out = differences(lambda t: complex_step(function, t), theta)
    return (out + out.T) / 2


def cluster_scores(moments, theta, y, z, cluster):
    """Gradient of each cluster's log-likelihood (J, npar); `moments(theta)` returns Moments."""
    return complex_step(lambda t: cluster_logliks(moments(t), y, z, cluster), theta)


def expected_information(moments, theta, sizes, counts):
    """Sum over clusters of tr(V^-1 dV V^-1 dV) / 2 + dmu' V^-1 dmu, from dense cluster covariances V."""
    total = np.zeros((len(theta), len(theta)))
    for n, count in zip(sizes, counts, strict=True):
        cov = stacked(moments(np.asarray(theta)), int(n))[1]
        dmean, dcov = (
            complex_step(lambda t, n=n, i=i: stacked(moments(t), int(n))[i], theta) for i in (0, 1)
        )
        w = np.linalg.solve(cov, np.moveaxis(dcov, -1, 0))
        total += count * (np.einsum("aij,bji->ab", w, w) / 2 + dmean.T @ np.linalg.solve(cov, dmean))
    return total


def em(s, nboth, tolerance=1e-13, iterations=200_000):
    """Saturated moments by EM, the cluster means of the latent between part being the missing data.

    The within means of both-level variables are estimated and folded into the between means (PX-EM,
    Liu, Rubin & Wu 1998). Stops when no moment moves by more than `tolerance`; RuntimeError if it never does.
    """
    p, d = len(s.ssw), s.means.shape[1]
    place = np.concatenate([np.arange(nboth), np.arange(p, d)])
    pad = np.eye(d)[:p][:, place]  # from (both, between-only) to the unit variables
    mean = s.counts @ s.means / s.nclusters
    total = s.scatter.sum(axis=0) + np.einsum("s,si,sj->ij", s.counts, s.means - mean, s.means - mean)
    mu_w = np.where(np.arange(p) < nboth, 0.0, mean[:p])
    m = Moments(
        mu_w, s.ssw / (s.nobs - s.nclusters), mean[place], (total / s.nclusters)[np.ix_(place, place)], nboth
    )
    for _ in range(iterations):
        new = em_step(m, s, place, pad)
        if max(np.abs(a - b).max(initial=0) for a, b in zip(new[:4], m[:4], strict=True)) < tolerance:
            return new
        m = new
    raise RuntimeError("EM has not converged")


def em_step(m, s, place, pad):
    (mean, between, within), p = spread(m), len(pad)
    sums = {"b": [0.0, 0.0], "w": [0.0, s.ssw]}
    for n, count, centre, scatter in zip(s.sizes, s.counts, s.means, s.scatter, strict=True):
        k = np.linalg.solve(
            between + within / n, between[:, place]
        ).T  # regression of the between part on (ybar, z)
        left = m.sigma_b - k @ between[:, place]
        to_u = np.eye(len(mean))[:p] - pad @ k
        b = m.mu_b + k @ (centre - mean)
        u = centre[:p] - pad @ b
        sums["b"][0] += count * b
        sums["b"][1] += k @ scatter @ k.T + count * (left + np.outer(b, b))
        sums["w"][0] += n * count * u
        sums["w"][1] = sums["w"][1] + n * (
            to_u @ scatter @ to_u.T + count * (pad @ left @ pad.T + np.outer(u, u))
        )
    mu_b, mu_w = sums["b"][0] / s.nclusters, sums["w"][0] / s.nobs
    sigma_b, sigma_w = (
        sums["b"][1] / s.nclusters - np.outer(mu_b, mu_b),
        sums["w"][1] / s.nobs - np.outer(mu_w, mu_w),
    )
    both = np.arange(p) < m.nboth
    mu_b[: m.nboth] += mu_w[both]
    return Moments(np.where(both, 0.0, mu_w), sigma_w, mu_b, sigma_b, m.nboth)


def simulate(rng, within_cov, between_cov, sizes, nboth=None, within_mean=None, between_mean=None):
    """Draw y (N, p), z (J, q) and cluster codes (N,); `nboth` defaults to all unit variables."""
    p, d = len(within_cov), len(between_cov)
    nboth = p if nboth is None else nboth
    within_mean = np.zeros(p) if within_mean is None else within_mean
    between_mean = np.zeros(d) if between_mean is None else between_mean
    cluster = np.repeat(np.arange(len(sizes)), sizes)
    y = rng.multivariate_normal(within_mean, within_cov, len(cluster), method="eigh")
    b = rng.multivariate_normal(between_mean, between_cov, len(sizes), method="eigh")
    y[:, :nboth] += b[cluster, :nboth]
    return y, b[:, nboth:], cluster


def frame(y, z, cluster, unit, between, name="cluster"):
    """The same data as a DataFrame, one row per unit."""
    columns = dict(zip(unit, y.T, strict=True)) | dict(zip(between, z[cluster].T, strict=True))
    return pd.DataFrame(columns | {name: cluster})
