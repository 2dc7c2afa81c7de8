"""Slow truth for ordered variables by maximum likelihood: trapezoid rules over roots of covariance matrices.

Nothing is shared with the package but rows with `lhs, op, rhs, level, group, free, value, slope`. What is integrated
over are the eigenvectors of the covariance matrices of both levels, and not variables of the model.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit, ndtr

import oracle
import oracle_slopes

WIDTH = 6.5


def thresholds(rows, theta, name):
    """With the infinite ones."""
    cut = sorted((r for r in rows if r.op == "|" and r.lhs == name), key=lambda r: int(r.rhs[1:]))
    return np.array([-np.inf, *(theta[r.free - 1] if r.free else r.value for r in cut), np.inf])


def root(cov):
    """Of a covariance matrix of any rank."""
    values, vectors = np.linalg.eigh(cov)
    keep = values > 1e-9
    return vectors[:, keep] * np.sqrt(values[keep])


def grid(dimensions, points):
    """Places and logarithms of weights for the standard normal distribution."""
    if not dimensions:
        return np.zeros((1, 0)), np.zeros(1)
    one = np.linspace(-WIDTH, WIDTH, points)
    log_w = np.log(one[1] - one[0]) - 0.5 * one**2 - 0.5 * np.log(2 * np.pi)
    nodes = np.stack(np.meshgrid(*[one] * dimensions, indexing="ij"), -1).reshape(-1, dimensions)
    logs = np.stack(np.meshgrid(*[log_w] * dimensions, indexing="ij"), -1).reshape(-1, dimensions)
    return nodes, logs.sum(axis=1)


def log_sum(logs, axis=0):
    top = logs.max(axis=axis)
    return top + np.log(np.exp(logs - np.expand_dims(top, axis)).sum(axis=axis))


def given(cov, mean, wanted, known):
    """Regression on `known` and what it leaves."""
    if not known:
        return np.zeros((len(wanted), 0)), cov[np.ix_(wanted, wanted)]
    paths = np.linalg.solve(cov[np.ix_(known, known)], cov[np.ix_(known, wanted)]).T
    return paths, cov[np.ix_(wanted, wanted)] - paths @ cov[np.ix_(known, wanted)]


def log_categories(cuts, y, centre, variance, logit):
    """Of values y at centres, arrays that broadcast."""
    scale = (np.pi / np.sqrt(3) if logit else 1.0) / np.sqrt(variance)
    low, high = (cuts[y] - centre) * scale, (cuts[y + 1] - centre) * scale
    cdf = expit if logit else ndtr
    upper = low + high > 0
    low, high = np.where(upper, -high, low), np.where(upper, -low, high)
    return np.log(np.maximum(cdf(high) - cdf(low), 1e-300))


def level_one(rows, theta, unit, ordered, slopes):
    """Moments of level 1 given slopes: of ordered variables given the others, by roots of what these leave."""
    _at, _, cov, mean = oracle_slopes.ram([r for r in rows if r.op != "|"], theta, 1, unit, slopes=slopes)
    o = [k for k, name in enumerate(unit) if name in ordered]
    v = [k for k, name in enumerate(unit) if name not in ordered]
    own = {
        r.lhs: (theta[r.free - 1] if r.free else r.value)
        for r in rows
        if r.level == 1 and r.op == "~~" and r.lhs == r.rhs
    }
    residual = np.array([own[unit[k]] for k in o])
    paths, left = given(cov, mean, o, v)
    return o, v, mean[: len(unit)], cov, residual, paths, root(left - np.diag(residual))


def within(level, values, parts, cuts, logit, points):
    """Log density of every unit of a cluster given the parts of level 2, and slopes."""
    o, v, mean, cov, residual, paths, kappa = level
    mean = mean + parts
    nodes, log_w = grid(kappa.shape[1], points)
    centre = mean[o] + (values[:, v] - mean[v]) @ paths.T
    logs = np.tile(log_w, (len(values), 1))
    for k, place in enumerate(o):
        y, there = values[:, [place]], ~np.isnan(values[:, [place]])
        at = centre[:, [k]] + nodes @ kappa[k]
        own = log_categories(cuts[k], np.where(there, y, 0).astype(int), at, residual[k], logit)
        logs += np.where(there, own, 0.0)
    out = log_sum(logs, 1)
    if v:
        out += oracle.normal_logpdf(values[:, v], mean[v], cov[np.ix_(v, v)])
    return out


def logliks(rows, theta, data, unit, both, between, ordered, id_, logit=False, points=(61, 61)):
    """Log-likelihood of each cluster, clusters in order of their first row; points of level 2 and of level 1."""
    theta, unit, both, between = np.asarray(theta), list(unit), list(both), list(between)
    cuts = [thresholds(rows, theta, name) for name in unit if name in ordered]
    slopes = list(dict.fromkeys(r.slope for r in rows if r.slope))
    place, _, cov, mean = oracle_slopes.ram(
        [r for r in rows if r.op != "|"], theta, 2, [*both, *between, *slopes]
    )
    z = [place[name] for name in between]
    u = [place[name] for name in (*both, *slopes)]
    paths, left = given(cov, mean, u, z)
    reach = root(left)
    nodes, log_w = grid(reach.shape[1], points[0])
    out = []
    for _, part in data.groupby(id_, sort=False):
        known = part[between].to_numpy()[0]
        centre = mean[u] + paths @ (known - mean[z])
        logs = log_w.copy()
        values = part[unit].to_numpy()
        level = level_one(rows, theta, unit, ordered, dict.fromkeys(slopes, 0.0))
        parts = np.zeros(len(unit))
        for k, node in enumerate(nodes):
            value = centre + reach @ node
            if slopes:
                level = level_one(
                    rows, theta, unit, ordered, dict(zip(slopes, value[len(both) :], strict=True))
                )
            parts[[unit.index(name) for name in both]] = value[: len(both)]
            logs[k] += within(level, values, parts, cuts, logit, points[1]).sum()
        out.append(
            log_sum(logs) + (oracle.normal_logpdf(known[None], mean[z], cov[np.ix_(z, z)])[0] if z else 0)
        )
    return np.array(out)
