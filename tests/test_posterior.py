"""Posterior and maximum likelihood scores of the core, held against one dense normal distribution per cluster."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from msem import _core
from msem.data.arrays import vech

SIZES = (1, 4, 2, 4, 1, 7)
SHAPES = [
    pytest.param(3, 2, 2, 2, 1, id="both_within_between"),
    pytest.param(4, 4, 0, 1, 2, id="both_only"),
    pytest.param(3, 0, 2, 2, 1, id="within_and_between_only"),
    pytest.param(2, 2, 1, 0, 0, id="no_latent"),
]


def positive(rng, n):
    root = rng.normal(size=(n, n))
    return root @ root.T + 0.5 * np.eye(n)


def draw(p, nboth, q, latent_w, latent_b, seed=1, sizes=SIZES):
    """Random moments of all variables and arbitrary data of clusters of the given sizes, rows shuffled."""
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return SimpleNamespace(
        p=p,
        nboth=nboth,
        q=q,
        mean_w=np.where(np.arange(p + latent_w) < nboth, 0.0, rng.normal(size=p + latent_w)),
        cov_w=positive(rng, p + latent_w),
        mean_b=rng.normal(size=nboth + q + latent_b),
        cov_b=positive(rng, nboth + q + latent_b),
        y=rng.normal(size=(len(codes), p)) * 2 + 3,
        z=rng.normal(size=(len(sizes), q)),
        codes=codes,
        # a measurement model with more indicators than latent variables
        fixed_w=SimpleNamespace(loadings=rng.normal(size=(p, latent_w)), residual=positive(rng, p)),
        fixed_b=SimpleNamespace(
            loadings=rng.normal(size=(nboth + q, latent_b)), residual=positive(rng, nboth + q)
        ),
    )


def group_data(d):
    means = np.array([d.y[d.codes == j].mean(axis=0) for j in range(len(d.z))])
    deviations = [d.y[d.codes == j] - means[j] for j in range(len(d.z))]
    return _core.GroupData(
        (d.p, d.nboth, d.q),
        [(d.mean_w, d.cov_w), (d.mean_b, d.cov_b)][0 if d.p else 1 :],
        np.bincount(d.codes).astype(float),
        np.hstack([means, d.z]),
        np.array([vech(x.T @ x) for x in deviations]).reshape(len(d.z), -1),
    )


def columns(d):
    return [np.ascontiguousarray(d.y[:, k]) for k in range(d.p)]


def selections(d, n):
    """How observed data of a cluster of n units (y_1, ..., y_n, z) are made of within and between variables."""
    within = len(d.mean_w)
    from_w = np.zeros((n * d.p + d.q, n * within))
    from_b = np.zeros((n * d.p + d.q, len(d.mean_b)))
    for i in range(n):
        from_w[i * d.p : (i + 1) * d.p, i * within : i * within + d.p] = np.eye(d.p)
        from_b[i * d.p : i * d.p + d.nboth, : d.nboth] = np.eye(d.nboth)
    from_b[n * d.p :, d.nboth : d.nboth + d.q] = np.eye(d.q)
    return from_w, from_b


def stacked(d, j):
    """Data of cluster j and its mean."""
    y = d.y[d.codes == j]
    from_w, from_b = selections(d, len(y))
    return np.concatenate([y.ravel(), d.z[j]]), from_w @ np.tile(d.mean_w, len(y)) + from_b @ d.mean_b


def condition(d, j):
    """Posterior mean and covariance of all (w_1, ..., w_n, b) of cluster j."""
    n = int((d.codes == j).sum())
    design = np.hstack(selections(d, n))
    size = n * len(d.mean_w)
    prior = np.zeros((size + len(d.mean_b),) * 2)
    prior[:size, :size] = np.kron(np.eye(n), d.cov_w)
    prior[size:, size:] = d.cov_b
    data, mean = stacked(d, j)
    gain = np.linalg.solve(design @ prior @ design.T, design @ prior).T
    centre = np.concatenate([np.tile(d.mean_w, n), d.mean_b])
    return centre + gain @ (data - mean), prior - gain @ design @ prior


def gls(design, cov, residual):
    weighted = np.linalg.solve(cov, design).T
    inverse = np.linalg.inv(weighted @ design)
    return inverse @ weighted @ residual, inverse


def close(ours, dense):
    np.testing.assert_allclose(ours, dense, rtol=1e-10, atol=1e-10)


def unpacked(result):
    mean, cov, index = result
    return mean, cov[index]


@pytest.mark.parametrize(("p", "nboth", "q", "latent_w", "latent_b"), SHAPES)
def test_posterior_is_the_dense_one(p, nboth, q, latent_w, latent_b):
    d = draw(p, nboth, q, latent_w, latent_b)
    group = group_data(d)
    mean_b, cov_b = unpacked(group.cluster_posterior())
    mean_w, cov_w, which = group.unit_posterior(columns(d), d.codes)
    between = np.r_[0:nboth, nboth + q : len(d.mean_b)]
    within = len(d.mean_w)
    for j in range(len(d.z)):
        mean, cov = condition(d, j)
        at = len(mean) - len(d.mean_b) + between
        close(mean_b[j], mean[at])
        close(cov_b[j], cov[np.ix_(at, at)])
        for k, i in enumerate(np.flatnonzero(d.codes == j)):
            at = np.arange(k * within + p, (k + 1) * within)
            close(mean_w[i], mean[at])
            close(cov_w[which[i]], cov[np.ix_(at, at)])


@pytest.mark.parametrize(("p", "nboth", "q", "latent_w", "latent_b"), SHAPES)
def test_cluster_bartlett_is_generalised_least_squares(p, nboth, q, latent_w, latent_b):
    d = draw(p, nboth, q, latent_w, latent_b)
    score, cov = unpacked(group_data(d).cluster_bartlett(d.fixed_b.loadings, d.fixed_b.residual))
    observed = nboth + q
    for j in range(len(d.z)):
        n = int((d.codes == j).sum())
        from_w, from_b = selections(d, n)
        data, mean = stacked(d, j)
        noise = from_w @ np.kron(np.eye(n), d.cov_w) @ from_w.T
        noise += from_b[:, :observed] @ d.fixed_b.residual @ from_b[:, :observed].T
        change, inverse = gls(from_b[:, :observed] @ d.fixed_b.loadings, noise, data - mean)
        close(score[j], d.mean_b[observed:] + change)
        close(cov[j], inverse)


@pytest.mark.parametrize(("p", "nboth", "q", "latent_w", "latent_b"), SHAPES)
def test_unit_bartlett_is_generalised_least_squares_with_the_rest_of_the_cluster_random(
    p, nboth, q, latent_w, latent_b
):
    d = draw(p, nboth, q, latent_w, latent_b)
    score, cov, which = group_data(d).unit_bartlett(
        d.fixed_w.loadings, d.fixed_w.residual, columns(d), d.codes
    )
    for j in range(len(d.z)):
        n = int((d.codes == j).sum())
        from_w, from_b = selections(d, n)
        data, mean = stacked(d, j)
        for k, i in enumerate(np.flatnonzero(d.codes == j)):
            own = slice(k * p, (k + 1) * p)
            noise = from_w @ np.kron(np.eye(n), d.cov_w) @ from_w.T
            noise[own, own] = d.fixed_w.residual
            noise += from_b @ d.cov_b @ from_b.T
            design = np.zeros((len(data), latent_w))
            design[own] = d.fixed_w.loadings
            change, inverse = gls(design, noise, data - mean)
            close(score[i], d.mean_w[p:] + change)
            close(cov[which[i]], inverse)


def quadratic(cov, residual, given):
    """Mahalanobis distance given some of the variables: joint less marginal."""
    part = np.ix_(given, given)
    whole = residual @ np.linalg.solve(cov, residual)
    return whole - residual[given] @ np.linalg.solve(cov[part], residual[given])


@pytest.mark.parametrize(("unit_x", "cluster_x"), [([], []), ([2], [1]), ([3, 2], [0])])
def test_distances_are_dense_ones_given_the_covariates(unit_x, cluster_x):
    d = draw(4, 2, 2, 1, 1)
    # fixed covariates have no between part and are independent of the cluster variables by construction
    group = group_data(d)
    between, within, *_ = group.cluster_distances(unit_x, cluster_x)
    units, _ = group.unit_distances(unit_x, columns(d), d.codes)
    for j in range(len(d.z)):
        n = int((d.codes == j).sum())
        from_w, from_b = selections(d, n)
        data, mean = stacked(d, j)
        cov = from_w @ np.kron(np.eye(n), d.cov_w) @ from_w.T + from_b @ d.cov_b @ from_b.T
        covariates = [i * 4 + k for i in range(n) for k in unit_x] + [n * 4 + k for k in cluster_x]
        close(between[j] + within[j], quadratic(cov, data - mean, covariates))
        for k, i in enumerate(np.flatnonzero(d.codes == j)):
            own = np.arange(k * 4, (k + 1) * 4)
            rest = np.setdiff1d(np.arange(len(data)), own)
            given = np.concatenate([rest, k * 4 + np.array(unit_x, dtype=int)])
            close(units[i], quadratic(cov, data - mean, given))


def test_single_level_scores_are_those_of_one_normal_distribution():
    d = draw(0, 0, 4, 0, 2, sizes=[1] * 6)
    mean, cov = unpacked(group_data(d).cluster_posterior())
    observed, latent = np.arange(4), np.arange(4, 6)
    gain = np.linalg.solve(d.cov_b[:4, :4], d.cov_b[np.ix_(observed, latent)]).T
    close(mean, d.mean_b[4:] + (d.z - d.mean_b[:4]) @ gain.T)
    close(cov[0], d.cov_b[4:, 4:] - gain @ d.cov_b[np.ix_(observed, latent)])


def test_latent_variables_without_information_are_refused():
    d = draw(3, 3, 0, 1, 1)
    with pytest.raises(ValueError, match="do not determine"):
        group_data(d).cluster_bartlett(np.zeros((3, 1)), np.eye(3))
    with pytest.raises(ValueError, match="do not determine"):
        group_data(d).unit_bartlett(np.zeros((3, 1)), np.eye(3), columns(d), d.codes)


def test_between_residuals_may_vanish():
    d = draw(3, 3, 0, 1, 1)
    score, cov = unpacked(group_data(d).cluster_bartlett(d.fixed_b.loadings, np.zeros((3, 3))))
    assert np.isfinite(score).all()
    j = int(np.argmax(np.bincount(d.codes)))
    inverse = gls(d.fixed_b.loadings, d.cov_w[:3, :3] / 7, np.zeros(3))[1]
    close(cov[j], inverse)


def test_moments_that_are_no_distribution_are_refused():
    d = draw(3, 3, 0, 1, 1)
    d.cov_w = -d.cov_w
    with pytest.raises(ValueError, match="not positive definite"):
        group_data(d).cluster_posterior()
