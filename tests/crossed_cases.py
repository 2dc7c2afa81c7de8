"""Two crossed classifications on small made-up samples, as one dense normal density of everything observed.

Nothing of the likelihood is shared with the package: the covariance of two values is the sum over the levels of what
they have in common there.
"""

from __future__ import annotations

import numpy as np

import oracle
from msem import _core


class Dense:
    """What follows from all values, their mean and covariance matrix, `dense(theta)`."""

    def loglik(self, theta):
        """The whole log-likelihood."""
        y, mean, cov = self.dense(theta)
        return oracle.normal_logpdf(y[None], mean, cov)[0]

    def average_information(self):
        """Half-sum of observed and expected information, but for what is only known on average: see Gilmour et al."""
        y, mean, cov = self.dense(self.theta)
        n = len(y)
        parts = oracle.complex_step(
            lambda t: np.concatenate([a.ravel() for a in self.dense(t)[1:]]), self.theta
        )
        slopes, changes = parts[:n], parts[n:].reshape(n, n, -1)
        inverse = np.linalg.inv(cov)
        weighted = inverse @ (y - mean)
        moved = np.einsum("ijk,j->ik", changes, weighted)
        return slopes.T @ inverse @ slopes + 0.5 * moved.T @ inverse @ moved


class Case(Dense):
    """Free covariance matrices of all levels, and means.

    Variables 0 to 2 are measured on units, 3 and 4 on the clusters of either classification. `swap` exchanges the
    numbers of clusters, so that the other classification is eliminated; `missing` is a share of the units' values.
    `sparse` takes the matrix for a sparse one, however rich the crossing is.
    """

    def __init__(self, seed=1, units=40, clusters=(7, 5), swap=False, zero=False, missing=0.0, sparse=False):
        rng = np.random.default_rng(seed)
        clusters = clusters[::-1] if swap else clusters
        self.levels, self.measured = [[0, 1, 2], [0, 1, 3], [1, 0, 4]], [0, 0, 0, 1, 2]
        self.of = [np.concatenate([np.arange(n), rng.integers(0, n, units - n)]) for n in clusters]
        rng.shuffle(self.of[1])
        self.values = rng.normal(size=(units, 3)) + np.array([2, 0, 100])
        for k in self.of:
            self.values[:, :2] += rng.normal(size=(k.max() + 1, 2))[k]
        self.values[rng.random(self.values.shape) < missing] = np.nan
        self.own = [rng.normal(size=(n, 1)) + 3 for n in clusters]
        self.data = _core.CrossedData(self.levels, self.measured, self.values, self.of, self.own)
        self.likelihood = _core.CrossedLikelihood(self.data, sparse)
        self.covs = [(level, i, j) for level in range(3) for i in range(3) for j in range(i + 1)]
        self.means = [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2)]
        blocks = []
        for level in range(3):
            cov = [(k, i, j) for k, (of, i, j) in enumerate(self.covs) if of == level]
            mean = [(len(self.covs) + k, i) for k, (of, i) in enumerate(self.means) if of == level]
            blocks.append(
                _core.Block(
                    3,
                    3,
                    [1] * len(cov) + [2] * len(mean),
                    [i for _, i, _ in cov] + [i for _, i in mean],
                    [j for _, _, j in cov] + [0] * len(mean),
                    [k for k, _, _ in cov] + [k for k, _ in mean],
                    [0.0] * (len(cov) + len(mean)),
                )
            )
        npar = len(self.covs) + len(self.means)
        self.objective = _core.Objective(npar, blocks, [(self.likelihood, [0, 1, 2])])
        theta = []
        for level in range(3):
            root = rng.normal(size=(3, 3)) * 0.6 + np.eye(3)
            cov = root @ root.T
            if zero and level:  # effects without variance beyond what the cluster's variable says
                effect = rng.normal(size=2)
                cov[:2, 2] = cov[2, :2] = effect * cov[2, 2]
                cov[:2, :2] = np.outer(effect, effect) * cov[2, 2]
            theta += [cov[i, j] for i in range(3) for j in range(i + 1)]
        self.theta = np.array([*theta, 2.2, 0.3, 100.1, 2.8, 3.1])

    def moments(self, theta):
        """Means and covariance matrices by level."""
        mean, cov = np.zeros((3, 3), theta.dtype), np.zeros((3, 3, 3), theta.dtype)
        for value, (level, i, j) in zip(theta, self.covs, strict=False):
            cov[level, i, j] = cov[level, j, i] = value
        for value, (level, i) in zip(theta[len(self.covs) :], self.means, strict=True):
            mean[level, i] = value
        return mean, cov

    def dense(self, theta):
        """All values, their mean and covariance matrix."""
        means, covs = self.moments(theta)
        self.rows = where = [(i, self.of[0][i], self.of[1][i]) for i in range(len(self.values))]
        rows = [
            (self.values[i, v], v, place)
            for i, place in enumerate(where)
            for v in range(3)
            if not np.isnan(self.values[i, v])
        ]
        rows += [(value, 3, (None, k, None)) for k, value in enumerate(self.own[0][:, 0])]
        rows += [(value, 4, (None, None, k)) for k, value in enumerate(self.own[1][:, 0])]
        mean = np.zeros(len(rows), theta.dtype)
        cov = np.zeros((len(rows), len(rows)), theta.dtype)
        for level in range(3):
            at = np.array(
                [self.levels[level].index(v) if v in self.levels[level] else -1 for _, v, _ in rows]
            )
            unit = np.array([-1 - k if r[2][level] is None else r[2][level] for k, r in enumerate(rows)])
            here = (unit[:, None] == unit) & (at[:, None] >= 0) & (at >= 0)
            mean[at >= 0] += means[level][at[at >= 0]]
            cov += np.where(here, covs[level][at[:, None], at], 0)
        return np.array([value for value, _, _ in rows]), mean, cov

    def posterior(self, level, cluster, target):
        """Mean and variance of a linear combination of the variables of one cluster of a level, given all data."""
        means, covs = self.moments(self.theta)
        y, mean, cov = self.dense(self.theta)
        places = self.places()
        here = np.array([place[level] == cluster for _, place in places])
        at = [self.levels[level].index(v) if v in self.levels[level] else -1 for v, _ in places]
        reach = np.array(
            [covs[level][:, a] @ target if a >= 0 and same else 0.0 for a, same in zip(at, here, strict=True)]
        )
        weights = np.linalg.solve(cov, reach)
        return target @ means[level] + weights @ (y - mean), target @ covs[level] @ target - weights @ reach

    def places(self):
        """Variable and clusters of each value of `dense`."""
        rows = [
            (v, place)
            for i, place in enumerate(self.rows)
            for v in range(3)
            if not np.isnan(self.values[i, v])
        ]
        rows += [(3, (None, k, None)) for k in range(len(self.own[0]))]
        return rows + [(4, (None, None, k)) for k in range(len(self.own[1]))]


class SlopeCase(Dense):
    """Random slopes of two covariates: one stands at both classifications, the other at level 3 only.

    Variables are those of `Case`; at level 1 the products of the slopes with their covariates follow, at the others
    the slopes. Every value is a sum over the levels of what a matrix of coefficients makes of the variables of its
    clusters, which is all that the density is made of. `flat`: the second covariate is nearly constant.
    """

    def __init__(
        self, seed=1, units=40, clusters=(7, 5), swap=False, zero=False, missing=0.0, sparse=False, flat=False
    ):
        rng = np.random.default_rng(seed)
        clusters = clusters[::-1] if swap else clusters
        self.count = (units, *clusters)
        self.of = [np.arange(units)]
        self.of += [np.concatenate([np.arange(n), rng.integers(0, n, units - n)]) for n in clusters]
        rng.shuffle(self.of[2])
        self.x = rng.normal(size=(units, 2)) * [1, 1e-3 if flat else 1] + [0.5, 4]
        self.values = rng.normal(size=(units, 3)) + np.array([2, 0, 100])
        for k in self.of[1:]:
            self.values[:, :2] += rng.normal(size=(k.max() + 1, 2))[k]
            self.values[:, 1] += self.x[:, 1] * rng.normal(size=k.max() + 1)[k]
        self.values[rng.random(self.values.shape) < missing] = np.nan
        self.own = [rng.normal(size=(n, 1)) + 3 for n in clusters]
        mean, spread = self.x.mean(axis=0), self.x.std(axis=0)
        self.slopes = [(0, 1, mean[0], spread[0], [1, 2]), (0, 2, mean[1], spread[1], [2])]
        # of each level: variables, products, slopes
        self.names = [
            ["y0", "y1", "y2", "p0", "p1"],
            ["y0", "y1", "z1", "s0"],
            ["y1", "y0", "z2", "s0", "s1"],
        ]
        bare = _core.CrossedData(
            [[0, 1, 2], [0, 1, 3], [1, 0, 4]],
            [0, 0, 0, 1, 2],
            self.values,
            self.of[1:],
            self.own,
            (self.x - mean) / spread,
        )
        self.data = bare.with_slopes(self.slopes, [])
        self.likelihood = _core.CrossedLikelihood(self.data, sparse)
        free = [[(i, j) for i in range(3) for j in range(i + 1)] + [(3, 0), (3, 1), (4, 1), (4, 0)]]
        free += [[(i, j) for i in range(n) for j in range(i + 1)] for n in (4, 5)]
        means = [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (1, 3), (2, 3), (2, 4)]
        self.covs = [(level, i, j) for level, own in enumerate(free) for i, j in own]
        self.means = means
        layout = [[0, 1, 2, 5, 6], [0, 1, 3, 7], [1, 0, 4, 7, 8]]
        blocks = []
        for level, names in enumerate(self.names):
            cov = [(k, i, j) for k, (of, i, j) in enumerate(self.covs) if of == level]
            mean_rows = [(len(self.covs) + k, i) for k, (of, i) in enumerate(means) if of == level]
            given = [3, 4] if level == 0 else []
            blocks.append(
                _core.Block(
                    len(names),
                    len(names),
                    [1] * (len(cov) + len(given)) + [2] * len(mean_rows),
                    [i for _, i, _ in cov] + given + [i for _, i in mean_rows],
                    [j for _, _, j in cov] + given + [0] * len(mean_rows),
                    [k for k, _, _ in cov] + [-1] * len(given) + [k for k, _ in mean_rows],
                    [0.0] * len(cov) + [1.0] * len(given) + [0.0] * len(mean_rows),
                )
            )
        npar = len(self.covs) + len(means)
        assert [len(own) for own in layout] == [len(own) for own in self.names]
        self.objective = _core.Objective(npar, blocks, [(self.likelihood, [0, 1, 2])])
        theta = []
        for level, own in enumerate(free):
            n = len(self.names[level])
            root = rng.normal(size=(n, n)) * 0.5 + np.eye(n)
            cov = root @ root.T
            if level == 0:
                cov = root[:3, :3] @ root[:3, :3].T
                paths = np.array([[1.0, 0.6], [-0.4, 0.9], [0.0, 0.0]])
                cov = np.block([[cov + paths @ paths.T, paths], [paths.T, np.eye(2)]])
            elif (
                zero
            ):  # the slopes have no variance, the parts of variables only what the cluster's variable says
                effect = rng.normal(size=n)
                effect[2] = 1
                effect[3:] = 0
                cov = np.outer(effect, effect) * cov[2, 2]
            theta += [cov[i, j] for i, j in own]
        self.theta = np.array([*theta, 2.2, 0.3, 100.1, 2.8, 3.1, 0.4, -0.3, 0.2])

    def moments(self, theta):
        """Means and covariance matrices by level."""
        mean = [np.zeros(len(own), theta.dtype) for own in self.names]
        cov = [np.zeros((len(own), len(own)), theta.dtype) for own in self.names]
        cov[0][[3, 4], [3, 4]] = 1
        for value, (level, i, j) in zip(theta, self.covs, strict=False):
            cov[level][i, j] = cov[level][j, i] = value
        for value, (level, i) in zip(theta[len(self.covs) :], self.means, strict=True):
            mean[level][i] = value
        return mean, cov

    def coefficients(self, cov):
        """All values, and by level what its variables, one cluster after the other, do to them."""
        paths = cov[0][:3, 3:]
        rows = [(i, v) for i in range(self.count[0]) for v in range(3) if not np.isnan(self.values[i, v])]
        y = [self.values[i, v] for i, v in rows] + [*self.own[0][:, 0], *self.own[1][:, 0]]
        out = []
        for level, names in enumerate(self.names):
            z = np.zeros((len(y), self.count[level], len(names)), cov[0].dtype)
            for k, (i, v) in enumerate(rows):
                cluster = self.of[level][i]
                if f"y{v}" in names:
                    z[k, cluster, names.index(f"y{v}")] = 1
                for s in range(2):
                    if f"s{s}" in names:
                        z[k, cluster, names.index(f"s{s}")] = self.x[i, s] * paths[v, s]
            if level:
                first = len(rows) + (level - 1) * self.count[1]
                for cluster in range(self.count[level]):
                    z[first + cluster, cluster, names.index(f"z{level}")] = 1
            out.append(z)
        return np.array(y), out

    def residual(self, cov):
        """Covariance matrices of the variables of each level by themselves: of level 1 without products."""
        paths = cov[0][:3, 3:]
        within = np.zeros_like(cov[0])
        within[:3, :3] = cov[0][:3, :3] - paths @ paths.T
        return [within, *cov[1:]]

    def dense(self, theta):
        """All values, their mean and covariance matrix."""
        mean, cov = self.moments(theta)
        y, parts = self.coefficients(cov)
        total = sum(z.sum(axis=1) @ m for z, m in zip(parts, mean, strict=True))
        spread = sum(
            np.einsum("iga,ab,jgb->ij", z, c, z) for z, c in zip(parts, self.residual(cov), strict=True)
        )
        return y, total, spread

    def posterior(self, targets):
        """Mean and covariance of sums over (level, cluster, weights of the variables of the cluster)."""
        means, covs = self.moments(self.theta)
        y, mean, cov = self.dense(self.theta)
        _, parts = self.coefficients(covs)
        own = self.residual(covs)
        k = len(targets)
        expected, reach, spread = np.zeros(k), np.zeros((k, len(y))), np.zeros((k, k))
        for a, target in enumerate(targets):
            for level, cluster, weights in target:
                expected[a] += weights @ means[level]
                reach[a] += parts[level][:, cluster] @ own[level] @ weights
            for b, other in enumerate(targets):
                for level, cluster, weights in target:
                    for level_b, cluster_b, weights_b in other:
                        if (level, cluster) == (level_b, cluster_b):
                            spread[a, b] += weights @ own[level] @ weights_b
        weights = np.linalg.solve(cov, reach.T)
        return expected + weights.T @ (y - mean), spread - reach @ weights
