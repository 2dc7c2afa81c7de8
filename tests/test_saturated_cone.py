"""Saturated moments among positive semidefinite matrices, of few clusters and dependent variables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy.optimize import minimize

import msem
from msem.errors import ImproperSolutionWarning

Y = ["y1", "y2", "y3"]
CLUSTER = ["region", "school", "class"]


def sample(depth: int, tops: int, seed: int, noise: float) -> pd.DataFrame:
    """Few clusters of two to four of those below, and a variable that is nearly the sum of two others."""
    rng = np.random.default_rng(seed)
    names, parents = CLUSTER[3 - (depth - 1) :], np.arange(tops)
    columns = parents[:, None]
    effect = np.zeros((tops, 2))
    for level in range(depth - 1, -1, -1):
        effect = effect + rng.normal(size=(len(columns), 1)) @ [[0.8, 0.6]]
        effect = effect + (0.5 if level else 1.0) * rng.normal(size=effect.shape)
        if not level:
            break
        times = rng.integers(2, 4 + (level == 1), len(columns))
        columns, effect = np.repeat(columns, times, axis=0), np.repeat(effect, times, axis=0)
        if level > 1:
            columns = np.column_stack([columns, np.arange(len(columns))])
    y3 = effect.sum(axis=1) + noise * rng.normal(size=len(effect))
    return pd.DataFrame(np.column_stack([effect, y3]), columns=Y).assign(
        **{name: columns[:, k] for k, name in enumerate(names)}
    )


class Dense:
    """-2 log L of all values at once, and its derivatives with respect to the matrices of all levels and the mean."""

    def __init__(self, data: pd.DataFrame) -> None:
        names = [name for name in CLUSTER if name in data]
        codes = [np.arange(len(data))]
        codes += [data.groupby(names[:k]).ngroup().to_numpy() for k in range(len(names), 0, -1)]
        self.same = [(code[:, None] == code).astype(float) for code in codes]
        self.y = data[Y].to_numpy()
        self.depth = len(codes)

    def __call__(
        self, levels: list[np.ndarray], mean: np.ndarray
    ) -> tuple[float, list[np.ndarray], np.ndarray]:
        n, p = self.y.shape
        v = sum(np.kron(cov, same) for cov, same in zip(levels, self.same, strict=True))
        inverse = np.linalg.inv(v)
        r = (self.y - mean).T.ravel()
        weighted = inverse @ r
        slope = (inverse - np.outer(weighted, weighted)).reshape(p, n, p, n)
        slopes = [np.einsum("anbm,nm->ab", slope, same) for same in self.same]
        value = n * p * np.log(2 * np.pi) + np.linalg.slogdet(v)[1] + r @ weighted
        return value, slopes, -2 * weighted.reshape(p, n).sum(axis=1)

    def maximum(self, seed: int) -> float:
        """The greatest log-likelihood, by square roots of the matrices and quasi-Newton steps from a random start."""
        p, m = len(Y), self.depth
        rng = np.random.default_rng(seed)
        total = np.linalg.cholesky(np.cov(self.y.T))
        roots = rng.normal(size=(m, p, p)) / np.sqrt(p * m)
        roots[0] = np.eye(p) / np.sqrt(m)
        x = np.concatenate([roots.ravel(), self.y.mean(axis=0)])

        def split(x: np.ndarray) -> list[np.ndarray]:
            return [total @ one for one in x[:-p].reshape(m, p, p)]

        def value(x: np.ndarray) -> tuple[float, np.ndarray]:
            found, slopes, mean = self([one @ one.T for one in split(x)], x[-p:])
            by_root = [2 * total.T @ g @ one for g, one in zip(slopes, split(x), strict=True)]
            return found, np.concatenate([*(g.ravel() for g in by_root), mean])

        for _ in range(3):  # each with its curvature forgotten
            found = minimize(
                value, x, jac=True, method="L-BFGS-B", options={"maxiter": 2000, "maxcor": 40, "ftol": 1e-14}
            )
            x = found.x
        return -0.5 * float(found.fun)


def saturated(data: pd.DataFrame, **options: Any) -> msem.LevelMoments:
    with pytest.warns(ImproperSolutionWarning):
        return msem.saturated(data, cluster=[name for name in CLUSTER if name in data], **options)


def arrays(moments: msem.LevelMoments, depth: int) -> tuple[list[np.ndarray], np.ndarray]:
    return [moments[k].cov.loc[Y, Y].to_numpy() for k in range(1, depth + 1)], moments.means[Y].to_numpy()


HARD = [(3, 5, 1), (3, 5, 4), (3, 6, 2), (3, 8, 3), (4, 5, 1), (4, 5, 2), (4, 6, 4)]


@pytest.mark.parametrize(("depth", "tops", "seed"), HARD)
@pytest.mark.parametrize("noise", [0.3, 0.05])
def test_dependent_variables_in_few_clusters_have_their_maximum(
    depth: int, tops: int, seed: int, noise: float
) -> None:
    data = sample(depth, tops, seed, noise)
    moments = saturated(data)
    assert moments.in_cone
    assert moments.converged
    dense, (levels, mean) = Dense(data), arrays(moments, depth)
    value, slopes, _ = dense(levels, mean)
    assert_allclose(moments.llf, -0.5 * value, rtol=1e-9)
    for start in range(2):
        assert moments.llf > dense.maximum(start) - 1e-6
    # at a maximum of the cone no variance in any direction would raise the likelihood, and those there are lower it
    unit = np.linalg.inv(np.linalg.cholesky(sum(levels)))
    for cov, slope in zip(levels, slopes, strict=True):
        own = np.linalg.inv(unit).T @ slope @ np.linalg.inv(unit)
        assert np.linalg.eigvalsh(own)[0] > -1e-5 * len(data)
        assert_allclose(own @ (unit @ cov @ unit.T), 0, atol=1e-5 * len(data))


@pytest.mark.parametrize(("depth", "tops", "seed"), HARD[::3])
def test_rows_and_variables_of_other_names_have_the_same_maximum(depth: int, tops: int, seed: int) -> None:
    data = sample(depth, tops, seed, 0.3)
    expected, levels = saturated(data).llf, arrays(saturated(data), depth)[0]
    mixed = np.array([[2.0, 0.5, 0], [0, 1, 0], [1, -1, 0.3]])
    for change in range(3):
        other = data.sample(frac=1, random_state=change)
        other[Y] = other[Y].to_numpy() @ mixed.T + 5
        moments = saturated(other[other.columns[::-1]])
        shift = len(data) * np.log(abs(np.linalg.det(mixed)))
        assert moments.llf == pytest.approx(expected - shift, abs=1e-6)
        for own, first in zip(arrays(moments, depth)[0], levels, strict=True):
            assert_allclose(own, mixed @ first @ mixed.T, atol=2e-3)


@pytest.mark.parametrize("missing", ["listwise", "fiml"])
def test_many_variables_in_few_clusters(missing: str) -> None:
    """A search in triangular roots did not end here."""
    rng = np.random.default_rng(12)
    school = np.repeat(np.arange(15), rng.integers(2, 5, 15))
    room = np.repeat(np.arange(len(school)), rng.integers(4, 9, len(school)))
    p = 8
    between = rng.normal(size=(15, 1)) @ rng.normal(size=(1, p))
    y = between[school[room]] + (rng.normal(size=(len(school), 2)) @ rng.normal(size=(2, p)))[room]
    data = pd.DataFrame(y + rng.normal(size=y.shape), columns=[f"y{k}" for k in range(p)])
    if missing == "fiml":
        data = data.mask(rng.random(data.shape) < 0.05)
    data = data.assign(**{"school": school[room], "class": room})
    moments = saturated(data, missing=missing)
    assert moments.converged
    ranks = [np.linalg.matrix_rank(moments[k].cov, tol=1e-6) for k in (2, 3)]
    assert max(ranks) < p
    again = saturated(data.sample(frac=1, random_state=0)[data.columns[::-1]], missing=missing)
    assert again.llf == pytest.approx(moments.llf, abs=1e-6)
