"""Slow truth for data with holes: everything observed in a cluster is one normal vector, in plain NumPy.

Nothing is shared with the package. A hole is NaN; variables and moments are those of `oracle`, and moments may be
complex. A latent variable is one that is missing everywhere, so its scores need no code of their own.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from oracle import Moments, complex_step, hessian, implied, normal_logpdf, stacked, table_moments


class Pattern(NamedTuple):
    """Clusters of one size with holes in the same places of (y_1, ..., y_n, z)."""

    size: int
    seen: np.ndarray  # positions of what is observed
    clusters: np.ndarray
    units: np.ndarray  # (clusters, size) rows of y
    data: np.ndarray  # (clusters, len(seen))


def patterns(y, z, cluster):
    """All patterns of the data, in order of appearance."""
    count = np.bincount(cluster, minlength=len(z))
    units = np.split(np.argsort(cluster, kind="stable"), np.cumsum(count)[:-1])
    found = {}
    for j, rows in enumerate(units):
        x = np.concatenate([y[rows].ravel(), z[j]])
        found.setdefault((len(rows), np.isnan(x).tobytes()), []).append((j, rows, x))
    out = []
    for (size, holes), members in found.items():
        seen = np.flatnonzero(~np.frombuffer(holes, bool))
        clusters, rows, data = (np.array(part) for part in zip(*members, strict=True))
        out.append(Pattern(size, seen, clusters, rows.reshape(len(clusters), size), data[:, seen]))
    return out


def seen_moments(m, pattern):
    """Mean and covariance of what is observed in one cluster."""
    mean, cov = stacked(m, pattern.size)
    return mean[pattern.seen], cov[np.ix_(pattern.seen, pattern.seen)]


def cluster_logliks(m, y, z, cluster):
    """Log-likelihood of each cluster (J,), 0 where nothing is observed: y (N, p), z (J, q), codes 0..J-1."""
    out = np.zeros(len(z), np.result_type(*m[:4], float))
    for pattern in patterns(y, z, cluster):
        out[pattern.clusters] = normal_logpdf(pattern.data, *seen_moments(m, pattern))
    return out


def row_logliks(x, mean, cov):
    """Log-density of what is observed in each row."""
    alone = Moments(np.zeros(0), np.zeros((0, 0)), mean, cov, 0)
    return cluster_logliks(alone, np.zeros((len(x), 0)), x, np.arange(len(x)))


def covariate_loglik(m, y, z, unit_x, cluster_x):
    """Marginal log-likelihood of fixed covariates: columns unit_x of y, cluster_x of z."""
    x, w = list(unit_x), [m.nboth + i for i in cluster_x]
    within = row_logliks(y[:, x], m.mu_w[x], m.sigma_w[np.ix_(x, x)]).sum()
    return within + row_logliks(z[:, list(cluster_x)], m.mu_b[w], m.sigma_b[np.ix_(w, w)]).sum()


def loglik(m, y, z, cluster, unit_x=(), cluster_x=()):
    """Log-likelihood given the fixed covariates: the joint one less that of the covariates."""
    return cluster_logliks(m, y, z, cluster).sum() - covariate_loglik(m, y, z, unit_x, cluster_x)


def cluster_scores(moments, theta, y, z, cluster):
    """Gradient of each cluster's log-likelihood (J, npar); `moments(theta)` returns Moments."""
    return complex_step(lambda t: cluster_logliks(moments(t), y, z, cluster), theta)


def observed_information(moments, theta, y, z, cluster):
    """Minus the second derivatives of the log-likelihood."""
    return -hessian(lambda t: cluster_logliks(moments(t), y, z, cluster).sum(), np.asarray(theta))


def expected_information(moments, theta, y, z, cluster):
    """Sum over clusters of tr(V^-1 dV V^-1 dV) / 2 + dmu' V^-1 dmu, the holes where they are."""
    theta = np.asarray(theta, float)
    steps = [moments(t) for t in theta + 1e-20j * np.eye(len(theta))]
    total = np.zeros((len(theta), len(theta)))
    for pattern in patterns(y, z, cluster):
        cov = seen_moments(moments(theta), pattern)[1]
        dmean, dcov = (
            np.array(part).imag / 1e-20
            for part in zip(*(seen_moments(s, pattern) for s in steps), strict=True)
        )
        w = np.linalg.solve(cov, dcov)
        one = np.einsum("aij,bji->ab", w, w) / 2 + dmean @ np.linalg.solve(cov, dmean.T)
        total += len(pattern.clusters) * one
    return total


def condition(m, pattern):
    """Posterior means (clusters, d) and covariance (d, d) of the parts (w_1, ..., w_n, b) of a cluster."""
    n, p, nb = pattern.size, len(m.mu_w), len(m.mu_b)
    kind = np.result_type(*m[:4], float)
    prior, design = np.zeros((n * p + nb,) * 2, kind), np.zeros((n * p + nb - m.nboth, n * p + nb))
    prior[: n * p, : n * p] = np.kron(np.eye(n), m.sigma_w)
    prior[n * p :, n * p :] = m.sigma_b
    design[: n * p, : n * p] = np.eye(n * p)
    for i in range(n):
        design[i * p : i * p + m.nboth, n * p : n * p + m.nboth] = np.eye(m.nboth)
    design[n * p :, n * p + m.nboth :] = np.eye(nb - m.nboth)
    design, mean = design[pattern.seen], np.concatenate([np.tile(m.mu_w, n), m.mu_b])
    gain = np.linalg.solve(design @ prior @ design.T, design @ prior).T
    return mean + (pattern.data - design @ mean) @ gain.T, prior - gain @ design @ prior


class Posterior(NamedTuple):
    within: np.ndarray  # (N, p) means of the within parts
    within_cov: np.ndarray  # (N, p, p)
    between: np.ndarray  # (J, nboth + q) means of the between parts
    between_cov: np.ndarray  # (J, nboth + q, nboth + q)


def posterior(m, y, z, cluster):
    """What the data of a cluster say about its random effects and the within parts of its units."""
    (n, p), j, d = y.shape, len(z), len(m.mu_b)
    out = Posterior(np.zeros((n, p)), np.zeros((n, p, p)), np.zeros((j, d)), np.zeros((j, d, d)))
    for pattern in patterns(y, z, cluster):
        mean, cov = condition(m, pattern)
        first = pattern.size * p
        out.between[pattern.clusters] = mean[:, first:]
        out.between_cov[pattern.clusters] = cov[first:, first:]
        for i in range(pattern.size):
            own = slice(i * p, (i + 1) * p)
            out.within[pattern.units[:, i]] = mean[:, own]
            out.within_cov[pattern.units[:, i]] = cov[own, own]
    return out


def latent_moments(rows, theta, unit, cluster, nboth, within=(), between=()):
    """Moments with latent variables as the last within-only and the last between-only variables.

    A single-level model has no unit variables; its latent variables are those between.
    """
    if max(r.level for r in rows) == 1:
        return Moments(np.zeros(0), np.zeros((0, 0)), *implied(rows, theta, 1, [*cluster, *between]), 0)
    return table_moments(rows, theta, [*unit, *within], [*cluster, *between], nboth)


def factor_posterior(rows, theta, unit, cluster_names, nboth, within, between, y, z, cluster):
    """Posterior of the factors alone: within and between, in the order they are named."""
    m = latent_moments(rows, np.asarray(theta), unit, cluster_names, nboth, within, between)
    y = np.hstack([y, np.full((len(y), len(within)), np.nan)])
    z = np.hstack([z, np.full((len(z), len(between)), np.nan)])
    found, w, b = posterior(m, y, z, cluster), len(unit), nboth + len(cluster_names)
    return Posterior(
        found.within[:, w:], found.within_cov[:, w:, w:], found.between[:, b:], found.between_cov[:, b:, b:]
    )


def em_step(m, found):
    """One EM step for the saturated moments from `patterns` of clusters and units with something observed.

    The within means of both-level variables are estimated and folded into the between means, which
    speeds EM up and leaves its fixed points as they are (PX-EM, Liu, Rubin & Wu 1998).
    """
    p, nb = len(m.mu_w), len(m.mu_b)
    count, first, second = np.zeros(2), [np.zeros(p), np.zeros(nb)], [np.zeros((p, p)), np.zeros((nb, nb))]
    for pattern in found:
        mean, cov = condition(m, pattern)
        split = pattern.size * p
        blocks = [(0, slice(i * p, (i + 1) * p)) for i in range(pattern.size)] + [(1, slice(split, None))]
        for level, own in blocks:
            count[level] += len(mean)
            first[level] += mean[:, own].sum(axis=0)
            second[level] += mean[:, own].T @ mean[:, own] + len(mean) * cov[own, own]
    (mu_w, mu_b), both = (total / n for total, n in zip(first, count, strict=True)), np.arange(p) < m.nboth
    sigma_w, sigma_b = (
        total / n - np.outer(mu, mu) for total, n, mu in zip(second, count, (mu_w, mu_b), strict=True)
    )
    mu_b[: m.nboth] += mu_w[both]
    return Moments(np.where(both, 0.0, mu_w), sigma_w, mu_b, sigma_b, m.nboth)


def without_empty(y, z, cluster):
    """The same data without units and clusters of which nothing is observed."""
    kept = ~np.isnan(y).all(axis=1)
    filled = ~np.isnan(z).all(axis=1) | (np.bincount(cluster[kept], minlength=len(z)) > 0)
    return y[kept], z[filled], (np.cumsum(filled) - 1)[cluster[kept]]


def em(y, z, cluster, nboth, start=None, tolerance=1e-12, iterations=20_000):
    """Saturated moments by EM. Stops when no moment moves by more than `tolerance`; RuntimeError if it never does.

    The covariance matrices stay positive semidefinite: a maximum with an indefinite between matrix is not found.
    """
    y, z, cluster = without_empty(y, z, cluster)
    found, m = patterns(y, z, cluster), start or start_moments(y, z, nboth)
    for _ in range(iterations):
        new = em_step(m, found)
        if max(np.abs(a - b).max(initial=0) for a, b in zip(new[:4], m[:4], strict=True)) < tolerance:
            return new
        m = new
    raise RuntimeError("EM has not converged")


def start_moments(y, z, nboth):
    """Uncorrelated variables, the variance of those at both levels divided evenly."""
    both = np.arange(y.shape[1]) < nboth
    mean, variance = np.nanmean(y, axis=0), np.nanvar(y, axis=0) * np.where(both, 0.5, 1)
    return Moments(
        np.where(both, 0.0, mean),
        np.diag(variance),
        np.concatenate([mean[:nboth], np.nanmean(z, axis=0)]),
        np.diag(np.concatenate([variance[:nboth], np.nanvar(z, axis=0)])),
        nboth,
    )


def punch(rng, y, z, cluster, share=0.1, columns=None, by=None, cluster_share=0.0, units=0.0, clusters=0.0):
    """Copies of y and z with holes.

    `share` of the entries of the `columns` of y (all by default) and `cluster_share` of those of z, completely
    at random; with `by` (N,) the entries of y are missing at random, likelier the larger it is (it must stay
    observed). Then a share of `units` loses all of y, and a share of `clusters` loses y and z.
    """
    y, z = y.copy(), z.copy()
    columns = np.arange(y.shape[1]) if columns is None else np.asarray(columns)
    chance = np.full(len(y), share)
    if by is not None:
        chance = 2 * share / (1 + np.exp(-1.5 * (by - by.mean()) / by.std()))
    holes = np.zeros(y.shape, bool)
    holes[:, columns] = rng.random((len(y), len(columns))) < chance[:, None]
    emptied = rng.random(len(z)) < clusters
    y[holes | (rng.random(len(y)) < units)[:, None] | emptied[cluster][:, None]] = np.nan
    z[(rng.random(z.shape) < cluster_share) | emptied[:, None]] = np.nan
    return y, z
