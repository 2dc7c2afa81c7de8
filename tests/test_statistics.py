"""Sufficient statistics against brute force, their invariances, and the checks on the sample."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from msem import _core
from msem.data.complete import SampleStatistics, expected_statistics
from msem.data.complete_clusters import ClusterArrays
from msem.data.complete_rows import sample_statistics, simple_statistics
from msem.data.frames import clustered_data
from msem.errors import DataError
from msem.model.variables import Variables
from simulate import BETWEEN, CLUSTER, SIZES, UNIT, VARIABLES, WITHIN, small_sample, two_level


def statistics_of(frame: pd.DataFrame, cluster: str = "cluster") -> SampleStatistics:
    data = clustered_data(frame, [*UNIT, *CLUSTER], cluster)
    return sample_statistics(data, VARIABLES)


def assert_close(one: SampleStatistics, two: SampleStatistics, rtol: float = 1e-13) -> None:
    """Equal up to rounding, relative to the standard deviations of the variables."""
    assert (one.unit, one.cluster, one.nboth) == (two.unit, two.cluster, two.nboth)
    assert one.sizes.tolist() == two.sizes.tolist()
    assert one.counts.tolist() == two.counts.tolist()
    scale = np.sqrt(np.diag(one.cluster_scatter) / one.nclusters)
    assert_allclose(one.means, two.means, rtol=rtol, atol=rtol * scale.max())
    p = len(one.unit)
    within = np.sqrt(np.diag(one.ssw))
    assert np.abs((one.ssw - two.ssw) / np.outer(within, within)).max(initial=0.0) < rtol
    between = np.outer(scale, scale) * one.nclusters
    assert np.abs((one.scatter - two.scatter) / between).max() < rtol
    assert one.ssw.shape == (p, p)


def brute_force(frame: pd.DataFrame) -> dict[str, Any]:
    """Means, scatter and within products from their definitions."""
    vectors, sizes, ssw = [], [], np.zeros((3, 3))
    for _, rows in frame.groupby("cluster"):
        deviations = (rows[[*UNIT]] - rows[[*UNIT]].mean()).to_numpy()
        ssw += deviations.T @ deviations
        vectors.append(rows[[*UNIT, *CLUSTER]].mean().to_numpy())
        sizes.append(len(rows))
    distinct = np.unique(sizes)
    groups = [np.array(vectors)[np.array(sizes) == size] for size in distinct]
    return {
        "sizes": distinct,
        "counts": [len(group) for group in groups],
        "means": [group.mean(axis=0) for group in groups],
        "scatter": [(group - group.mean(axis=0)).T @ (group - group.mean(axis=0)) for group in groups],
        "ssw": ssw,
    }


def test_two_level_statistics_are_those_of_the_definitions() -> None:
    frame = small_sample()
    statistics = statistics_of(frame)
    for name, values in brute_force(frame).items():
        assert_allclose(getattr(statistics, name), values, rtol=1e-11, atol=1e-12, err_msg=name)
    assert (statistics.nobs, statistics.nclusters) == (sum(SIZES), len(SIZES))
    assert statistics.source == "data"


def test_more_rows_than_a_block_and_many_clusters_of_a_size() -> None:
    frame = two_level(
        np.random.default_rng(5), [2] * 700 + [1] * 3, WITHIN, BETWEEN, np.zeros(5), UNIT, CLUSTER, nboth=2
    )
    statistics = statistics_of(frame.sample(frac=1, random_state=1))
    for name, values in brute_force(frame).items():
        assert_allclose(getattr(statistics, name), values, rtol=1e-11, atol=1e-11, err_msg=name)


def test_total_mean_and_pooled_within_cov() -> None:
    frame = small_sample()
    statistics = statistics_of(frame)
    over_clusters = frame.groupby("cluster")[[*CLUSTER]].first().mean()
    assert_allclose(statistics.total_mean, [*frame[[*UNIT]].mean(), *over_clusters], rtol=1e-12)
    pooled = brute_force(frame)["ssw"] / (len(frame) - len(SIZES))
    assert_allclose(statistics.pooled_within_cov, pooled, rtol=1e-12)
    vectors = frame.groupby("cluster")[[*UNIT, *CLUSTER]].mean()
    assert_allclose(statistics.cluster_scatter, vectors.cov() * (len(SIZES) - 1), rtol=1e-11, atol=1e-12)


def test_cluster_arrays_are_those_of_the_definitions() -> None:
    frame = small_sample().sample(frac=1, random_state=3)
    data = clustered_data(frame, [*UNIT, *CLUSTER], "cluster")
    arrays = ClusterArrays(*data.cluster_arrays(UNIT, CLUSTER))
    order = [(0, 0), (1, 0), (2, 0), (1, 1), (2, 1), (2, 2)]
    for code, name in enumerate(data.clusters):
        rows = frame[frame["cluster"] == name]
        ss = rows[[*UNIT]].cov(ddof=0).to_numpy() * len(rows)
        assert arrays.sizes[code] == len(rows)
        assert_allclose(arrays.means[code], rows[[*UNIT, *CLUSTER]].mean(), rtol=1e-12)
        assert_allclose(arrays.within[code], [ss[a, b] for a, b in order], rtol=1e-11, atol=1e-11)
    ssw = statistics_of(frame).ssw
    assert_allclose(arrays.within.sum(axis=0), [ssw[a, b] for a, b in order], rtol=1e-12)


def test_single_level_statistics() -> None:
    frame = small_sample()
    statistics = simple_statistics(clustered_data(frame, UNIT, None), UNIT)
    values = frame[[*UNIT]]
    assert (statistics.unit, statistics.cluster, statistics.nboth) == ((), UNIT, 0)
    assert statistics.nobs == statistics.nclusters == len(frame)
    assert (statistics.sizes.tolist(), statistics.counts.tolist()) == ([1.0], [len(frame)])
    assert_allclose(statistics.means[0], values.mean(), rtol=1e-13)
    assert_allclose(statistics.scatter[0], values.cov(ddof=0) * len(frame), rtol=1e-12)
    assert statistics.source == "data"


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), mean=st.sampled_from([0.0, 1e8]))
def test_row_order_and_cluster_labels_do_not_matter(seed: int, mean: float) -> None:
    frame = small_sample(mean=mean)
    rng = np.random.default_rng(seed)
    labels = rng.permutation(len(SIZES))
    shuffled = frame.assign(cluster=labels[frame["cluster"]]).iloc[rng.permutation(len(frame))]
    assert_close(statistics_of(shuffled), statistics_of(frame))


@pytest.mark.parametrize(
    "relabel", [str, float, lambda code: (code, "school"), lambda code: pd.Timestamp(code)]
)
def test_the_type_of_the_ids_does_not_matter_at_all(relabel: Any) -> None:
    frame = small_sample().sample(frac=1, random_state=2)
    labelled = frame.assign(
        cluster=pd.Series([relabel(code) for code in frame["cluster"]], index=frame.index)
    )
    assert statistics_of(labelled) == statistics_of(frame)


@settings(max_examples=40, deadline=None)
@given(split=st.sets(st.sampled_from(range(len(SIZES))), min_size=1, max_size=len(SIZES) - 1))
def test_statistics_of_parts_merge(split: set[int]) -> None:
    frame = small_sample()
    whole = raw_statistics(frame)
    first = frame["cluster"].isin(split)
    assert_close(raw_statistics(frame[first]).merge(raw_statistics(frame[~first])), whole)


def raw_statistics(frame: pd.DataFrame) -> SampleStatistics:
    """Statistics of any number of clusters, without the checks on a whole sample."""
    data = clustered_data(frame, [*UNIT, *CLUSTER], "cluster")
    assert data.codes is not None
    columns = [data.columns[name] for name in [*UNIT, *CLUSTER]]
    raw = _core.two_level_statistics(columns[:3], columns[3:], data.codes, len(data.clusters))
    arrays = {name: raw[name] for name in ("sizes", "counts", "means", "scatter", "ssw")}
    N, J = len(data.codes), len(data.clusters)
    return SampleStatistics(VARIABLES, N, J, **arrays, source="data")


def test_merging_needs_the_same_variables() -> None:
    statistics = statistics_of(small_sample())
    with pytest.raises(DataError, match="cannot merge"):
        statistics.merge(statistics.with_variables(Variables.of_units_and_clusters(["y1"], CLUSTER, 1)))


def exact_ss(values: list[float]) -> tuple[Fraction, Fraction]:
    """Mean and sum of squares about it, in rational arithmetic."""
    exact = [Fraction(value) for value in values]
    mean = sum(exact, Fraction(0)) / len(exact)
    return mean, sum(((value - mean) ** 2 for value in exact), Fraction(0))


def test_a_mean_of_1e8_costs_no_digits() -> None:
    frame = small_sample(mean=1e8)
    statistics = statistics_of(frame)
    groups = [rows["y1"].tolist() for _, rows in frame.groupby("cluster")]
    moments = [exact_ss(group) for group in groups]
    assert_allclose(statistics.ssw[0, 0], float(sum(ss for _, ss in moments)), rtol=1e-13)
    means = [mean for (mean, _), size in zip(moments, SIZES, strict=True) if size == 3]
    mean = sum(means) / Fraction(len(means))
    scatter = float(sum((one - mean) ** 2 for one in means))
    assert_allclose(statistics.scatter[1, 0, 0], scatter, rtol=1e-13)
    single = simple_statistics(clustered_data(frame, UNIT, None), UNIT)
    assert_allclose(single.scatter[0, 0, 0], float(exact_ss(frame["y1"].tolist())[1]), rtol=1e-13)


def test_columns_of_any_stride_and_type_are_read_correctly() -> None:
    table = np.asfortranarray(np.random.default_rng(1).normal(size=(40, 6)))
    packed = np.zeros(40, dtype=[("pad", "i4"), ("y", "f8")])  # 12 bytes apart: not a whole number of doubles
    packed["y"] = table[:, 0]
    plain = _core.simple_statistics([table[:, 0].copy()] * 3, 40)
    for columns in (
        [np.ascontiguousarray(table)[:, 0]] * 3,
        [table[::-1, 0][::-1]] * 3,
        [packed["y"]] * 3,
    ):
        for got, expected in zip(_core.simple_statistics(columns, 40), plain, strict=True):
            assert_allclose(got, expected, rtol=1e-15)
    whole = np.arange(40)
    for got, expected in zip(
        _core.simple_statistics([whole, whole.astype(np.float32)], 40),
        _core.simple_statistics([whole.astype(float)] * 2, 40),
        strict=True,
    ):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("codes", "nclusters"),
    [([0, 1, 2], 2), ([0, -1, 1], 2), ([0, 1, 1], 3)],
    ids=["high", "negative", "unused"],
)
def test_the_core_refuses_wrong_codes(codes: list[int], nclusters: int) -> None:
    column = np.arange(3.0)
    with pytest.raises(ValueError, match="cluster code"):
        _core.two_level_statistics([column], [], np.array(codes), nclusters)


def test_the_core_refuses_columns_of_another_length() -> None:
    with pytest.raises(ValueError, match="one value per row"):
        _core.two_level_statistics([np.arange(2.0)], [], np.array([0, 1, 1]), 2)
    with pytest.raises(ValueError, match="one value per row"):
        _core.simple_statistics([np.ones((3, 1))], 3)


def test_restriction_equals_statistics_of_fewer_variables() -> None:
    frame = small_sample()
    data = clustered_data(frame, [*UNIT, *CLUSTER], "cluster")
    fewer = sample_statistics(data, Variables.of_units_and_clusters(["x", "y1"], ["z2"], 1))
    assert_close(
        statistics_of(frame).with_variables(Variables.of_units_and_clusters(["x", "y1"], ["z2"], 1)), fewer
    )
    with pytest.raises(DataError, match="no variable 'z1' of this kind, only y1, y2, x"):
        statistics_of(frame).with_variables(Variables.of_units_and_clusters(["z1"], [], 0))


def test_json_keeps_every_digit() -> None:
    frame = small_sample()
    for statistics in (statistics_of(frame), simple_statistics(clustered_data(frame, UNIT, None), UNIT)):
        again = SampleStatistics.from_dict(json.loads(json.dumps(statistics.to_dict(), allow_nan=False)))
        assert again == statistics
        assert again.ssw.shape == statistics.ssw.shape


def test_from_dict_says_what_is_wrong() -> None:
    values = statistics_of(small_sample()).to_dict()
    with pytest.raises(DataError, match="'format' is None"):
        SampleStatistics.from_dict({})
    with pytest.raises(DataError, match="lack 'sizes', 'ssw'"):
        SampleStatistics.from_dict({k: v for k, v in values.items() if k not in {"sizes", "ssw"}})
    with pytest.raises(DataError, match=r"ssw has shape \(1, 1\), but the variables need \(3, 3\)"):
        SampleStatistics.from_dict(values | {"ssw": [[1.0]]})


def test_equality_looks_at_every_field() -> None:
    values = statistics_of(small_sample()).to_dict()
    one = SampleStatistics.from_dict(values)
    assert one == SampleStatistics.from_dict(values)
    assert one != SampleStatistics.from_dict(values | {"source": "moments"})
    assert one != SampleStatistics.from_dict(values | {"ssw": (one.ssw * 2).tolist()})
    assert one != values


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"nboth": 4}, "inconsistent"),
        ({"unit": ["y1", "y1", "x"]}, "inconsistent"),
        ({"nobs": 5.0}, "do not agree with the cluster sizes"),
        ({"counts": [-1.0] * 6}, "positive"),
        ({"sizes": [3.0, 1.0, 5.0, 7.0, 12.0, 300.0]}, "ascending"),
        ({"ssw": [[np.inf] * 3] * 3}, "ssw has values that are not finite, of 'y1', 'y2', 'x': squares"),
        ({"means": [[1.0, np.nan, 1.0, 1.0, 1.0]] * 6}, "means has values that are not finite, of 'y2'"),
        ({"sizes": [np.nan] * 6}, "sizes has values that are not finite: check the cluster sizes"),
    ],
)
def test_inconsistent_statistics_are_refused(change: dict[str, Any], text: str) -> None:
    values = statistics_of(small_sample()).to_dict()
    with pytest.raises(DataError, match=text):
        SampleStatistics.from_dict(values | change)


def test_arrays_are_read_only() -> None:
    statistics = statistics_of(small_sample())
    with pytest.raises(ValueError, match="read-only"):
        statistics.ssw[0, 0] = 1.0


def test_expected_statistics_are_the_expectations() -> None:
    mean, sizes, counts = np.arange(5.0), [2.0, 4.0], [30.0, 10.0]
    got = expected_statistics(WITHIN, BETWEEN, mean, sizes, counts, VARIABLES)
    assert (got.nobs, got.nclusters, got.source) == (100.0, 40.0, "moments")
    assert_allclose(got.pooled_within_cov, WITHIN, rtol=1e-14)
    assert_allclose(got.means, [mean, mean])
    level2 = np.ix_([0, 1, 3, 4], [0, 1, 3, 4])
    for s, (size, count) in enumerate(zip(sizes, counts, strict=True)):
        cov = np.zeros((5, 5))
        cov[level2] = BETWEEN
        cov[:3, :3] += np.array(WITHIN) / size
        assert_allclose(got.scatter[s], count * cov, rtol=1e-14)


def test_expected_statistics_are_the_average_of_simulated_ones() -> None:
    sizes = [2] * 3000 + [6] * 2000
    mean = np.array([1.0, -1.0, 0.5, 2.0, 0.0])
    frame = two_level(np.random.default_rng(8), sizes, WITHIN, BETWEEN, mean, UNIT, CLUSTER, nboth=2)
    got = statistics_of(frame)
    want = expected_statistics(WITHIN, BETWEEN, mean, [2, 6], [3000, 2000], VARIABLES)
    # Five standard errors of a covariance of 2000 cluster vectors with variances below 3.
    assert_allclose(
        got.scatter / got.counts[:, None, None], want.scatter / want.counts[:, None, None], atol=0.4
    )
    assert_allclose(got.pooled_within_cov, want.pooled_within_cov, atol=0.15)


def test_moments_of_the_wrong_shape() -> None:
    with pytest.raises(DataError, match=r"between_cov has shape \(3, 3\), but the variables need \(4, 4\)"):
        expected_statistics(WITHIN, np.eye(3), np.zeros(5), [2.0], [9.0], VARIABLES)


def test_two_level_statistics_need_clusters() -> None:
    data = clustered_data(small_sample(), UNIT, None)
    with pytest.raises(DataError, match="give cluster="):
        sample_statistics(data, Variables.of_units_and_clusters(UNIT, (), 2))


def test_only_cluster_variables() -> None:
    frame = small_sample()
    data = clustered_data(frame, CLUSTER, "cluster")
    statistics = sample_statistics(data, Variables.of_units_and_clusters((), CLUSTER, 0))
    values = frame.groupby("cluster")[[*CLUSTER]].first()
    assert_allclose(statistics.cluster_scatter, values.cov() * (len(SIZES) - 1), rtol=1e-12)
    assert statistics.ssw.shape == (0, 0)


def test_statistics_of_clusters_do_not_depend_on_the_order_of_rows() -> None:
    rng = np.random.default_rng(5)
    ids = np.repeat(np.arange(40_000), rng.integers(1, 5, 40_000))
    frame = pd.DataFrame({"a": rng.normal(size=len(ids)), "b": rng.normal(size=len(ids)), "cluster": ids})
    ordered = clustered_data(frame, ["a", "b"], "cluster")
    shuffled = clustered_data(frame.iloc[rng.permutation(len(frame))], ["a", "b"], "cluster")
    one, two = (ClusterArrays(*data.cluster_arrays(["a", "b"], [])) for data in (ordered, shuffled))
    back = shuffled.clusters.get_indexer(ordered.clusters)
    np.testing.assert_array_equal(one.sizes, two.sizes[back])
    np.testing.assert_allclose(one.means, two.means[back], atol=1e-12)
    np.testing.assert_allclose(one.within, two.within[back], atol=1e-12)
    centred = frame[["a", "b"]] - frame.groupby("cluster")[["a", "b"]].transform("mean")
    expected = (centred["a"] * centred["b"]).groupby(frame["cluster"]).sum()
    np.testing.assert_allclose(one.within[:, 1], expected, atol=1e-12)
