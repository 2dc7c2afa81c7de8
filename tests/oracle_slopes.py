"""Slow truth for random slopes: each cluster as one dense normal density, in plain NumPy.

Nothing is shared with the package but rows with `lhs, op, rhs, level, group, free, value, slope`. A unit has the
variables measured on units; the covariates of slopes are known numbers. Derivatives by complex steps.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

import oracle


def ram(rows, theta, level, first, group=1, slopes=None):
    """Total effects, residual covariances and intercepts of one level, over `first` and what else its rows name."""
    rows = [r for r in rows if (r.level, r.group) == (level, group)]
    names = list(dict.fromkeys([*first, *(n for r in rows for n in (r.lhs, r.rhs) if n)]))
    at, n = {name: i for i, name in enumerate(names)}, len(names)
    a, s, mean = np.zeros((n, n), theta.dtype), np.zeros((n, n), theta.dtype), np.zeros(n, theta.dtype)
    for r in rows:
        value = theta[r.free - 1] if r.free else r.value
        if r.slope and slopes is None:
            continue
        if r.slope:
            value = slopes[r.slope]
        if r.op == "~1":
            mean[at[r.lhs]] = value
        elif r.op == "~~":
            s[at[r.lhs], at[r.rhs]] = s[at[r.rhs], at[r.lhs]] = value
        else:
            a[(at[r.rhs], at[r.lhs]) if r.op == "=~" else (at[r.lhs], at[r.rhs])] = value
    total = np.linalg.inv(np.eye(n) - a)
    return at, total, total @ s @ total.T, total @ mean


def levels(rows, theta, unit, both, between, group=1):
    """Both levels of a model: names, reach and moments, from which each cluster's are made."""
    theta = np.asarray(theta)
    own = [r for r in rows if r.group == group and r.slope]
    slopes = list(dict.fromkeys(r.slope for r in own))
    at, total, cov, mean = ram(rows, theta, 1, unit, group)
    place, _, cov_b, mean_b = ram(rows, theta, 2, [*both, *slopes, *between], group)
    keep = [place[name] for name in (*both, *slopes, *between)]
    p = len(unit)
    paths = [(len(both) + slopes.index(r.slope), r.rhs, total[:p, at[r.lhs]]) for r in own]
    return paths, cov[:p, :p], mean[:p], cov_b[np.ix_(keep, keep)], mean_b[keep]


def cluster(model, unit, both, between, x):
    """Mean and covariance matrix of (unit 1, ..., unit n, between-only variables) given x: {covariate: (n,)}."""
    paths, cov, mean, cov_b, mean_b = model
    n, p = len(next(iter(x.values()))), len(unit)
    first = len(mean_b) - len(between)
    reach = np.zeros((n * p + len(between), len(mean_b)), cov.dtype)
    for i in range(n):
        for k, name in enumerate(both):
            reach[i * p + unit.index(name), k] = 1
        for column, covariate, effect in paths:
            reach[i * p : i * p + p, column] += effect * x[covariate][i]
    for k in range(len(between)):
        reach[n * p + k, first + k] = 1
    within = np.zeros((len(reach), len(reach)), cov.dtype)
    within[: n * p, : n * p] = np.kron(np.eye(n), cov)
    centre = np.concatenate([np.tile(mean, n), np.zeros(len(between))])
    return centre + reach @ mean_b, within + reach @ cov_b @ reach.T, reach, cov_b


def logliks(rows, theta, data, unit, both, between, id_, group=1):
    """Log-likelihood of each cluster, clusters in order of their first row."""
    out, model = [], levels(rows, theta, unit, both, between, group)
    for x, y in parts_of(rows, data, unit, between, id_):
        mean, cov, *_ = cluster(model, unit, both, between, x)
        seen = np.flatnonzero(~np.isnan(y))
        out.append(oracle.normal_logpdf(y[None, seen], mean[seen], cov[np.ix_(seen, seen)])[0])
    return np.array(out)


def parts_of(rows, data, unit, between, id_):
    """Covariates of slopes and values of each cluster."""
    codes = pd.factorize(data[id_])[0]
    values, between = data[list(unit)].to_numpy(), data[list(between)].to_numpy()
    columns = {r.rhs: data[r.rhs].to_numpy() for r in rows if r.slope}
    for code in range(codes.max() + 1):
        here = codes == code
        yield (
            {name: column[here] for name, column in columns.items()},
            np.concatenate([values[here].ravel(), between[here][0]]),
        )


def expected_information(rows, theta, data, unit, both, between, id_, fixed):
    """Sum of tr(V^-1 dV V^-1 dV) / 2 + dmu' V^-1 dmu, given the covariates `fixed`, cluster variables being random."""
    total = np.zeros((len(theta), len(theta)))
    for _, part in data.groupby(id_, sort=False):
        n, p = len(part), len(unit)
        x = {r.rhs: part[r.rhs].to_numpy() for r in rows if r.slope}
        given = [i * p + unit.index(name) for i in range(n) for name in fixed]
        values = part[list(fixed)].to_numpy().ravel()
        seen = ~np.isnan(np.append(part[list(unit)].to_numpy().ravel(), np.zeros(len(between))))
        rest = [k for k in np.flatnonzero(seen) if k not in set(given)]

        def conditional(t, x=x, given=given, rest=rest, values=values):
            mean, cov, *_ = cluster(levels(rows, t, unit, both, between), unit, both, between, x)
            if not given:
                return mean, cov
            paths = np.linalg.solve(cov[np.ix_(given, given)], cov[np.ix_(given, rest)]).T
            left = cov[np.ix_(rest, rest)] - paths @ cov[np.ix_(given, rest)]
            return mean[rest] + paths @ (values - mean[given]), left

        dmean, dcov = (oracle.complex_step(lambda t, i=i: conditional(t)[i], theta) for i in (0, 1))
        cov = conditional(np.asarray(theta))[1]
        w = np.linalg.solve(cov, np.moveaxis(dcov, -1, 0))
        total += np.einsum("aij,bji->ab", w, w) / 2 + dmean.T @ np.linalg.solve(cov, dmean)
    return total


def posterior(rows, theta, data, unit, both, between, id_):
    """Posterior means (J, r) and covariance matrices (J, r, r) of the both-level parts and the slopes."""
    means, covs, model = [], [], levels(rows, theta, unit, both, between)
    for x, y in parts_of(rows, data, unit, between, id_):
        mean, cov, reach, cov_b = cluster(model, unit, both, between, x)
        r = len(model[4]) - len(between)
        seen = np.flatnonzero(~np.isnan(y))
        reach = reach[seen]
        gain = np.linalg.solve(cov[np.ix_(seen, seen)], reach @ cov_b[:, :r]).T
        means.append(model[4][:r] + gain @ (y - mean)[seen])
        covs.append(cov_b[:r, :r] - gain @ reach @ cov_b[:, :r])
    return np.array(means), np.array(covs)


def conditional(rows, theta, data, unit, both, between, id_, wanted, given=None):
    """Means and variances of variables of level 1, latent ones too, of each row given what is known of its cluster.

    `given`: the only variables that are known; default: all that are observed.
    """
    missing = [name for name in wanted if name not in unit]
    frame = data.assign(**dict.fromkeys(missing, np.nan))
    if given is not None:
        hidden = [name for name in (*unit, *between) if name not in given]
        frame = frame.assign(**dict.fromkeys(hidden, np.nan))
    names = [*unit, *missing]
    model = levels(rows, np.asarray(theta), names, both, between)
    places = dict(zip(pd.factorize(data[id_])[1], range(data[id_].nunique()), strict=True))
    order = data[id_].map(places).to_numpy()
    mean_of, var_of = np.empty((len(data), len(wanted))), np.empty((len(data), len(wanted)))
    for k, (x, y) in enumerate(parts_of(rows, frame, names, between, id_)):
        mean, cov, *_ = cluster(model, names, both, between, x)
        seen = ~np.isnan(y)
        gain = np.linalg.solve(cov[np.ix_(seen, seen)], cov[seen]).T
        expected = mean + gain @ (y - mean)[seen]
        left = cov - gain @ cov[seen]
        n = int((order == k).sum())
        at = np.array([[i * len(names) + names.index(name) for name in wanted] for i in range(n)])
        mean_of[order == k], var_of[order == k] = expected[at], left[at, at]
    return mean_of, var_of


def _given_slope(rows, theta, data, unit, both, between, id_, latent, second, points, width):
    """What is known and what is wanted of each cluster, jointly normal given its slope, at each point of a grid.

    The slope stands among the paths of level 1, as a number, so that its covariate may be at both levels or latent.
    Yields slope, log density of it, and of each cluster its values with mean and covariance matrix of these, then of
    the variables `second` of level 2, then of the variables `latent` of level 1 of each unit.
    """
    (name,) = {r.slope for r in rows if r.slope}
    theta, p, d = np.asarray(theta), len(unit), len(latent)
    place, _, cov, mean = ram(rows, theta, 2, [*both, *between, name])
    own = [*both, *between, *(n for n in second if n not in both)]
    at = [place[n] for n in own]
    k = place[name]
    gain = cov[at, k] / cov[k, k]
    left = cov[np.ix_(at, at)] - np.outer(gain, cov[k, at])
    sd = np.sqrt(cov[k, k])
    q, m = len(between), len(second)
    for s in mean[k] + sd * np.linspace(-width, width, points):
        place_w, _, within, within_mean = ram(rows, theta, 1, unit, slopes={name: s})
        keep = [place_w[n] for n in (*unit, *latent)]
        within, within_mean = within[np.ix_(keep, keep)], within_mean[keep]
        expected = mean[at] + gain * (s - mean[k])
        clusters = []
        for _, part in data.groupby(id_, sort=False):
            n = len(part)
            units = [slice(i * (p + d), (i + 1) * (p + d)) for i in range(n)]
            reach = np.zeros((n * (p + d) + q + m, len(at)))
            whole, centre = np.zeros((len(reach),) * 2), np.zeros(len(reach))
            for one in units:
                for j, variable in enumerate(both):
                    reach[one.start + unit.index(variable), j] = 1
                whole[one, one], centre[one] = within, within_mean
            for j, variable in enumerate((*between, *second)):
                reach[n * (p + d) + j, own.index(variable)] = 1
            whole, centre = whole + reach @ left @ reach.T, centre + reach @ expected
            first = np.concatenate([np.arange(one.start, one.start + p) for one in units])
            known = np.concatenate([first, n * (p + d) + np.arange(q)])
            values = np.append(part[list(unit)].to_numpy().ravel(), part[list(between)].to_numpy()[0])
            known, values = known[~np.isnan(values)], values[~np.isnan(values)]
            wanted = [*n * (p + d) + q + np.arange(m)]
            wanted += [i for one in units for i in range(one.start + p, one.stop)]
            clusters.append((values, centre, whole, known, np.array(wanted, dtype=int)))
        density = -0.5 * ((s - mean[k]) / sd) ** 2 - 0.5 * np.log(2 * np.pi) - np.log(sd)
        yield s, density, clusters


def _log_density(values, mean, cov, known):
    return oracle.normal_logpdf(values[None], mean[known], cov[np.ix_(known, known)])[0]


def integrated(rows, theta, data, unit, both, between, id_, points=91, width=7.0):
    """Log-likelihood of each cluster with one random slope, by the trapezoid rule over dense densities given it."""
    grid, logs = [], []
    for s, density, clusters in _given_slope(
        rows, theta, data, unit, both, between, id_, (), (), points, width
    ):
        grid.append(s)
        logs.append([density + _log_density(*one[:4]) for one in clusters])
    logs = np.array(logs)
    top = logs.max(axis=0)
    weights = np.exp(logs - top)
    return top + np.log((weights[1:] + weights[:-1]).sum(axis=0) / 2 * (grid[1] - grid[0]))


def integrated_posterior(rows, theta, data, *roles, **options):
    """Posterior means and standard deviations of each cluster; see `integrated_moments`."""
    found = integrated_moments(rows, theta, data, *roles, **options)
    return [(mean, np.sqrt(cov.diagonal())) for mean, cov in found]


def integrated_moments(
    rows, theta, data, unit, both, between, id_, latent=(), second=(), points=91, width=7.0
):
    """Posterior moments of each cluster: of its slope, variables of level 2 and of its units."""
    nodes = list(_given_slope(rows, theta, data, unit, both, between, id_, latent, second, points, width))
    out = []
    for j in range(data[id_].nunique()):
        logs, means, variances = [], [], []
        for s, density, clusters in nodes:
            values, mean, cov, known, wanted = clusters[j]
            logs.append(density + _log_density(values, mean, cov, known))
            gain = np.linalg.solve(cov[np.ix_(known, known)], cov[np.ix_(known, wanted)]).T
            means.append(np.append(s, mean[wanted] + gain @ (values - mean[known])))
            left = cov[np.ix_(wanted, wanted)] - gain @ cov[np.ix_(known, wanted)]
            variances.append(np.pad(left, (1, 0)))
        weights = np.exp(np.array(logs) - max(logs))
        weights /= weights.sum()
        average = weights @ means
        off = np.array(means) - average
        out.append((average, np.einsum("i,ijk->jk", weights, variances) + (off.T * weights) @ off))
    return out
