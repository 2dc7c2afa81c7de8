"""Statistics of replicate samples against those of the rows they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from msem import _core
from msem.data.complete import SampleStatistics
from msem.data.complete_clusters import ClusterArrays
from msem.data.complete_rows import sample_statistics, simple_statistics
from msem.data.frames import clustered_data
from simulate import BETWEEN, CLUSTER, UNIT, VARIABLES, WITHIN, small_sample, two_level

Floats = NDArray[np.float64]

BALANCED = [4] * 12
MIXED = [1, 7, 3, 3, 1, 12, 7, 3, 5, 5, 30, 3, 3, 7, 2, 2, 2]


def sample(sizes: Sequence[int], seed: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return two_level(rng, sizes, WITHIN, BETWEEN, np.arange(5.0), UNIT, CLUSTER, nboth=2)


def arrays(frame: pd.DataFrame) -> tuple[Floats, Floats, Floats]:
    c = ClusterArrays(*clustered_data(frame, [*UNIT, *CLUSTER], "cluster").cluster_arrays(UNIT, CLUSTER))
    return c.sizes, c.means, c.within


def statistics_of(frame: pd.DataFrame) -> SampleStatistics:
    return sample_statistics(clustered_data(frame, [*UNIT, *CLUSTER], "cluster"), VARIABLES)


def resampled(frame: pd.DataFrame, weights: Floats) -> pd.DataFrame:
    """Rows of the clusters, each cluster as often as its weight says, every time with another id."""
    parts = [part for _, part in frame.groupby("cluster")]
    drawn = [part for part, w in zip(parts, weights, strict=True) for _ in range(int(w))]
    return pd.concat([part.assign(cluster=k) for k, part in enumerate(drawn)], ignore_index=True)


def assert_same(drawn: _core.DrawnStatistics, expected: SampleStatistics, rtol: float = 1e-12) -> None:
    assert drawn["sizes"].tolist() == expected.sizes.tolist()
    assert drawn["counts"].tolist() == expected.counts.tolist()
    assert_allclose(drawn["means"], expected.means, rtol=rtol, atol=rtol)
    size = max(np.abs(expected.scatter).max(), 1.0)
    assert_allclose(drawn["scatter"], expected.scatter, rtol=0, atol=rtol * size)
    assert_allclose(drawn["ssw"], expected.ssw, rtol=rtol, atol=rtol * max(np.abs(expected.ssw).max(), 1.0))


PHILOX = [  # counter, key, output: known answers published with the generator (Salmon et al., 2011)
    ([0] * 4, [0] * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


@pytest.mark.parametrize(("counter", "key", "output"), PHILOX)
def test_random_numbers_are_those_of_the_published_generator(
    counter: list[int], key: list[int], output: str
) -> None:
    assert " ".join(f"{word:08x}" for word in _core.philox(counter, key)) == output


@pytest.mark.parametrize("sizes", [BALANCED, MIXED], ids=["balanced", "mixed"])
@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_replicate_statistics_are_those_of_the_resampled_rows(sizes: list[int], shift: float) -> None:
    frame = sample(sizes)
    frame[[*UNIT, *CLUSTER]] += shift
    draws = _core.OrdinaryDraws([arrays(frame)], 5)
    for replicate in range(20):
        weights = draws.weights(replicate, 0)
        assert weights.sum() == len(sizes)
        expected = statistics_of(resampled(frame, weights))
        # rounding of the data themselves grows with their mean
        assert_same(draws.statistics(replicate)[0], expected, rtol=1e-12 if shift == 0 else 1e-8)


def test_replicates_differ_and_depend_on_seed_and_group() -> None:
    group = arrays(sample(BALANCED))
    draws, other = _core.OrdinaryDraws([group, group], 5), _core.OrdinaryDraws([group, group], 6)
    weights = {tuple(d.weights(r, g)) for d in (draws, other) for r in range(10) for g in (0, 1)}
    assert len(weights) == 40


def test_clusters_are_drawn_equally_often() -> None:
    draws = _core.OrdinaryDraws([arrays(sample(BALANCED))], 9)
    weights = np.array([draws.weights(r, 0) for r in range(4000)])
    # multinomial: mean 1, variance 11 / 12, covariance -1 / 12
    assert_allclose(weights.mean(axis=0), 1, atol=5 * np.sqrt(11 / 12 / 4000))
    cov = np.cov(weights, rowvar=False)
    assert_allclose(cov, np.eye(12) - 1 / 12, atol=0.12)


@pytest.mark.parametrize("sizes", [BALANCED, MIXED], ids=["balanced", "mixed"])
def test_leaving_a_cluster_out_gives_the_statistics_of_the_others(sizes: list[int]) -> None:
    frame = sample(sizes)
    draws = _core.LeaveOneOut([arrays(frame)])
    for j in range(len(sizes)):
        assert_same(draws.statistics(j)[0], statistics_of(frame[frame["cluster"] != j]))
    with pytest.raises(ValueError, match="fewer clusters"):
        draws.statistics(len(sizes))


def test_leaving_out_a_cluster_that_dominates_costs_no_digits() -> None:
    frame = sample(BALANCED)
    frame.loc[frame["cluster"] == 4, [*UNIT, *CLUSTER]] *= 1e7
    draws = _core.LeaveOneOut([arrays(frame)])
    # the statistics of the single clusters have lost some already, about an origin far from all others
    assert_same(draws.statistics(4)[0], statistics_of(frame[frame["cluster"] != 4]), rtol=1e-9)


def test_clusters_are_left_out_group_by_group() -> None:
    one, two = sample(BALANCED), sample(MIXED, seed=4)
    draws = _core.LeaveOneOut([arrays(one), arrays(two)])
    first, second = draws.statistics(len(BALANCED) + 2)
    assert_same(first, statistics_of(one))
    assert_same(second, statistics_of(two[two["cluster"] != 2]))


@pytest.mark.parametrize("centred", [False, True])
def test_rows_of_one_level_are_drawn(centred: bool) -> None:
    names = ["y1", "y2", "x"]
    rows = small_sample()[names]
    group = (np.ones(len(rows)), rows.to_numpy(), np.empty((len(rows), 0)))
    draws, without = (
        _core.OrdinaryDraws([group], 2, False, centred),
        _core.LeaveOneOut([group], False, centred),
    )
    chosen = rows.loc[np.repeat(rows.index, draws.weights(0, 0).astype(int))]
    for drawn, expected in ((draws.statistics(0), chosen), (without.statistics(7), rows.drop(index=7))):
        s = simple_statistics(clustered_data(expected, names, None), names)
        assert_allclose(drawn[0]["scatter"], s.scatter, rtol=1e-12)
        assert_allclose(drawn[0]["means"], 0 * s.means if centred else s.means, rtol=1e-12)
        assert drawn[0]["counts"].tolist() == s.counts.tolist()


def test_clusters_of_rows_of_one_level_are_drawn_whole() -> None:
    frame = small_sample()
    data = clustered_data(frame, [*UNIT, *CLUSTER], "cluster")
    c = ClusterArrays(*data.cluster_arrays(UNIT, ()))
    draws = _core.OrdinaryDraws([(c.sizes, c.means, c.within)], 2, True)
    for r in range(5):
        chosen = resampled(frame, draws.weights(r, 0))
        s = simple_statistics(clustered_data(chosen, list(UNIT), None), UNIT)
        drawn = draws.statistics(r)[0]
        assert_allclose(drawn["means"], s.means, rtol=1e-12)
        assert_allclose(drawn["scatter"], s.scatter, rtol=1e-11)
        assert drawn["counts"].tolist() == [len(chosen)]


# -- samples drawn from a model ------------------------------------------------------------------------------------

WITHIN_MEAN, BETWEEN_MEAN = np.array([0.0, 0.0, 0.7]), np.array([1.0, -1.0, 0.4, 0.2])


def design(frame: pd.DataFrame, covariate: list[int]) -> dict[str, Any]:
    s = statistics_of(frame)
    return {
        **{name: getattr(s, name) for name in ("sizes", "counts", "means", "scatter", "ssw")},
        "moments": [(WITHIN_MEAN, np.array(WITHIN)), (BETWEEN_MEAN, np.array(BETWEEN))],
        "covariate": covariate,
        "centred": False,
    }


def drawn_statistics(rng: np.random.Generator, frame: pd.DataFrame, covariate: list[int]) -> Floats:
    """Statistics of rows from the same model with the covariates as they are, drawn one unit after the other."""
    x, z = 2 in covariate, 3 in covariate
    codes, first = frame["cluster"].to_numpy(), ~frame["cluster"].duplicated().to_numpy()
    w = rng.multivariate_normal(WITHIN_MEAN, WITHIN, len(frame))
    b = rng.multivariate_normal(BETWEEN_MEAN, BETWEEN, first.sum())
    if x:
        slope = np.array(WITHIN)[:2, 2] / WITHIN[2][2]
        w[:, :2] += np.outer(frame["x"] - w[:, 2], slope)
        w[:, 2] = frame["x"]
    if z:
        known = frame.loc[first, "z1"].to_numpy()
        slope = np.array(BETWEEN)[[0, 1, 3], 2] / BETWEEN[2][2]
        b[:, [0, 1, 3]] += np.outer(known - b[:, 2], slope)
        b[:, 2] = known
    w[:, :2] += b[codes, :2]
    return flat(_core.two_level_statistics(list(w.T), list(b[codes, 2:].T), codes, len(b)))


def flat(s: _core.DrawnStatistics) -> Floats:
    return np.concatenate([np.ravel(s["means"]), np.ravel(s["scatter"]), np.ravel(s["ssw"])])


@pytest.mark.parametrize("covariate", [[], [2], [3], [2, 3]], ids=["none", "within", "between", "both"])
def test_parametric_draws_are_distributed_as_rows_of_the_model(covariate: list[int]) -> None:
    frame = sample([2] * 3 + [4] * 9 + [7])
    draws = _core.ParametricDraws([design(frame, covariate)], 11)
    rng, count = np.random.default_rng(12), 3000
    one = np.array([flat(draws.statistics(r)[0]) for r in range(count)])
    two = np.array([drawn_statistics(rng, frame, covariate) for _ in range(count)])
    spread = np.sqrt((one.var(axis=0) + two.var(axis=0)) / count) + 1e-12
    assert np.abs((one.mean(axis=0) - two.mean(axis=0)) / spread).max() < 5
    varied = two.std(axis=0) > 1e-9
    assert (one[:, ~varied].std(axis=0) < 1e-9).all()
    ratio = one[:, varied].std(axis=0) / two[:, varied].std(axis=0)
    assert np.abs(np.log(ratio)).max() < 0.15
    assert np.corrcoef(one[:, varied], rowvar=False) == pytest.approx(
        np.corrcoef(two[:, varied], rowvar=False), abs=0.15
    )


def test_parametric_draws_keep_the_covariates() -> None:
    frame = sample(MIXED)
    s, drawn = statistics_of(frame), _core.ParametricDraws([design(frame, [2, 3])], 1).statistics(0)[0]
    assert (drawn["ssw"][2, 2], drawn["means"][:, 2:4].tolist()) == (s.ssw[2, 2], s.means[:, 2:4].tolist())
    kept = np.ix_(range(len(s.sizes)), [2, 3], [2, 3])
    assert drawn["scatter"][kept].tolist() == s.scatter[kept].tolist()


def test_moments_that_are_no_distribution_are_refused() -> None:
    given = design(sample(MIXED), [])
    with pytest.raises(ValueError, match="not positive definite"):
        _core.ParametricDraws([given | {"moments": [(np.zeros(3), -np.eye(3)), given["moments"][1]]}], 1)
    with pytest.raises(ValueError, match="do not fit together"):
        _core.ParametricDraws([given | {"moments": [(np.zeros(2), np.eye(2)), given["moments"][1]]}], 1)
