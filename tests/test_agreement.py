"""Ways to the same numbers that share little agree, on samples that are hard: few clusters, unequal, with holes.

What is checked is that two routes meet; that each of them is right is checked elsewhere on easier samples.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import msem
import oracle
import oracle_missing
from msem.data.saturated import solve_saturated

pytestmark = pytest.mark.filterwarnings("ignore::msem.errors.MsemWarning")

TEXT = "level: 1\n fw =~ y1 + y2 + y3\n fw ~ x\nlevel: 2\n fb =~ y1 + y2 + y3\n fb ~ z\n"
NAMES = ["y1", "y2", "y3", "x", "z"]


def sample(seed: int, sizes: list[int], between: float, holes: float = 0.0) -> pd.DataFrame:
    """Clusters of these sizes, with a share of the variance between them, and of the outcomes missing."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(len(sizes)), sizes)
    x, z = rng.normal(size=len(codes)), rng.normal(size=len(sizes))
    fw = 0.4 * x + rng.normal(size=len(codes))
    fb = np.sqrt(between) * (0.5 * z + rng.normal(size=len(sizes)))
    y = (fw + fb[codes])[:, None] * [1, 0.8, 0.7] + 0.7 * rng.normal(size=(len(codes), 3))
    y += np.sqrt(0.3 * between) * rng.normal(size=(len(sizes), 3))[codes]
    y[rng.random(y.shape) < holes] = np.nan
    return pd.DataFrame(y, columns=NAMES[:3]).assign(x=x, z=z[codes], cluster=codes)


SAMPLES: dict[str, tuple[int, list[int], float, float]] = {
    "few and unequal": (11, [2, 3, 3, 4, 5, 5, 6, 7, 7, 9, 9, 9, 9, 9, 9], 0.6, 0.0),
    "little between": (11, [5] * 30, 0.2, 0.0),
    "pairs and singles": (13, [1, 2] * 20, 0.8, 0.0),
    "holes": (1, [2, 3, 4, 5, 6] * 5, 0.6, 0.15),
}


@cache
def data(name: str) -> pd.DataFrame:
    return sample(*SAMPLES[name])


def fitted(frame: pd.DataFrame, text: str = TEXT, **options: object) -> msem.Fit:
    missing = "fiml" if frame[NAMES].isna().any(axis=None) else "listwise"
    return msem.sem(text, frame, cluster="cluster", missing=missing, **options)


@cache
def fit(name: str) -> msem.Fit:
    found = fitted(data(name))
    assert found.status == "ok"
    return found


def require_same(one: msem.Fit, other: msem.Fit, times: float = 1.0) -> None:
    assert_allclose(one.llf, times * other.llf, rtol=1e-9)
    assert_allclose(one.unrestricted_llf, times * other.unrestricted_llf, rtol=1e-9)
    gap = (one.params - other.params[one.params.index]) / other.bse
    assert gap.abs().max() < 1e-4


def dense(found: msem.Fit, frame: pd.DataFrame) -> Callable[[np.ndarray], np.ndarray]:
    """Log-likelihood of theta from one normal density for each cluster."""
    s = found.statistics
    first = frame.drop_duplicates("cluster")
    arrays = frame[[*s.unit]].to_numpy(), first[[*s.cluster]].to_numpy(), frame["cluster"].to_numpy()

    def loglik(theta: np.ndarray) -> np.ndarray:
        moments = oracle.table_moments(found.table.rows, theta, s.unit, s.cluster, s.nboth)
        return oracle_missing.loglik(moments, *arrays, [s.unit.index("x")], [0])

    return loglik


@pytest.mark.parametrize("name", SAMPLES)
def test_compiled_against_dense(name: str) -> None:
    """Value, stationarity, and away from the maximum coded against automatic derivatives."""
    found = fit(name)
    loglik = dense(found, data(name))
    assert_allclose(found.llf, loglik(found.theta), rtol=1e-9)
    slope = oracle.complex_step(loglik, found.theta)
    assert slope @ found.vcov @ slope < 1e-8
    away = found.theta + 0.2 * found.standard_errors * np.resize([1, -1, 0.5], found.npar)
    value, gradient = found.objective.core.evaluate(away)
    assert_allclose(-0.5 * value - found.objective.covariate_llf, loglik(away), rtol=1e-9)
    assert_allclose(-0.5 * gradient, oracle.complex_step(loglik, away), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", SAMPLES)
def test_order_of_rows_and_labels_of_clusters(name: str) -> None:
    mixed = data(name).sample(frac=1, random_state=5)
    labels = np.random.default_rng(6).permutation(1000)
    require_same(fitted(mixed.assign(cluster=labels[mixed["cluster"]])), fit(name))


@pytest.mark.parametrize("name", SAMPLES)
def test_every_cluster_twice(name: str) -> None:
    once = data(name)
    twice = pd.concat([once, once.assign(cluster=once["cluster"] + 1000)], ignore_index=True)
    found = fitted(twice)
    require_same(found, fit(name), times=2)
    # observed information doubles too
    assert_allclose(found.standard_errors * np.sqrt(2), fit(name).standard_errors, rtol=1e-4)


@pytest.mark.parametrize("name", [name for name in SAMPLES if name != "holes"])
def test_pieces_of_a_sample_put_together(name: str) -> None:
    frame = data(name)
    half = frame["cluster"] % 3 == 0
    pieces = [
        msem.summarize(part, variables=NAMES, cluster="cluster") for part in (frame[half], frame[~half])
    ]
    require_same(msem.sem(TEXT, pieces[0] + pieces[1]), fit(name))


@pytest.mark.parametrize("name", SAMPLES)
def test_marker_against_unit_variance(name: str) -> None:
    other = fitted(data(name), std_lv=True)
    assert_allclose(other.llf, fit(name).llf, rtol=1e-9)
    assert_allclose(other.tests()["statistic"], fit(name).tests()["statistic"], atol=1e-5)


@pytest.mark.parametrize("name", SAMPLES)
def test_em_against_scoring(name: str) -> None:
    statistics = fit(name).statistics
    scoring = solve_saturated(statistics)
    em = solve_saturated(statistics, method="em", tolerance=1e-9)
    assert (scoring.converged, em.converged) == (True, True)
    assert_allclose(em.llf, scoring.llf, rtol=1e-8)
    for one, other in zip(em.moments, scoring.moments, strict=True):
        for mine, theirs in zip(one, other, strict=True):
            assert_allclose(mine, theirs, atol=2e-3)
