"""Statistics of data with holes against plain group-bys, and their invariances."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from msem import _core
from msem.data.complete_rows import sample_statistics, simple_statistics
from msem.data.frames import Holes, clustered_data
from msem.data.incomplete import IncompleteStatistics, incomplete_statistics, simple_incomplete
from msem.data.rows import cluster_codes, columns_of
from msem.model.variables import Variables
from simulate import BETWEEN, CLUSTER, UNIT, VARIABLES, WITHIN, small_sample, two_level

ARRAYS = (
    *("pattern_rows", "first_cell", "cell_pattern", "cell_rows", "cell_means", "origin", "sizes"),
    *("unit_patterns", "cluster_patterns", "cluster_pattern", "cluster_values", "weight"),
)


def holey(seed: int = 1, mean: float = 0.0, share: float = 0.25) -> pd.DataFrame:
    """A small sample with holes at both levels; units without any unit variable, clusters without any value."""
    frame = small_sample(seed, mean)
    rng = np.random.default_rng(seed)
    for name in UNIT:
        frame.loc[rng.random(len(frame)) < share, name] = np.nan
    for name in CLUSTER:
        frame.loc[rng.random(len(frame)) < share, name] = np.nan
    frame.loc[frame["cluster"] == 3, "z1"] = np.nan
    frame.loc[frame["cluster"] == 5, "z2"] = np.nan
    frame.loc[frame["cluster"] == 6, [*UNIT]] = np.nan
    frame.loc[frame["cluster"] == 8, [*UNIT, *CLUSTER]] = np.nan
    return frame


def core_of(
    frame: pd.DataFrame, unit: Any = UNIT, cluster: Any = CLUSTER, nboth: int = 2
) -> _core.IncompleteData:
    codes, ids = pd.factorize(frame["cluster"], sort=True)
    columns = [[frame[name].to_numpy() for name in names] for names in (unit, cluster)]
    return _core.incomplete_data(*columns, codes.astype(np.int64), len(ids), nboth)


def columns_and_codes(frame: pd.DataFrame) -> tuple[list[Any], Any]:
    return [frame[name].to_numpy() for name in UNIT], pd.factorize(frame["cluster"], sort=True)[0]


def statistics_of(frame: pd.DataFrame) -> IncompleteStatistics:
    data = clustered_data(frame, [*UNIT, *CLUSTER], "cluster", Holes())
    return incomplete_statistics(data, VARIABLES)


def described(data: _core.IncompleteData) -> list[tuple[Any, ...]]:
    """Patterns with their counts and products, and every cluster with its cells, means in the metric of the data."""
    p = data.p
    kinds = [tuple(row) for row in data.unit_patterns]
    own = [tuple(row) for row in data.cluster_patterns]
    out: list[tuple[Any, ...]] = list(zip(kinds, data.pattern_rows, data.scatter, strict=True))
    for j in range(data.nclusters):
        for c in range(data.first_cell[j], data.first_cell[j + 1]):
            seen = data.unit_patterns[data.cell_pattern[c]]
            means = (data.cell_means[:, c] + data.origin[:p])[seen]
            out.append((j, kinds[data.cell_pattern[c]], data.cell_rows[c], means))
        seen = data.cluster_patterns[data.cluster_pattern[j]]
        out.append((j, own[data.cluster_pattern[j]], (data.cluster_values[:, j] + data.origin[p:])[seen]))
    return out


def assert_same(one: _core.IncompleteData, two: _core.IncompleteData, rtol: float = 1e-12) -> None:
    """Equal up to rounding, whatever the origins; products relative to the variances."""
    assert (one.p, one.q, one.nboth, one.ncells) == (two.p, two.q, two.nboth, two.ncells)
    first, second = described(one), described(two)
    assert len(first) == len(second)
    scale = max((np.abs(s).max(initial=0) for s in one.scatter), default=0)
    for a, b in zip(first, second, strict=True):
        for x, y in zip(a, b, strict=True):
            if isinstance(x, np.ndarray):
                assert_allclose(x, y, rtol=rtol, atol=rtol * max(scale, 1))
            else:
                assert x == y


def test_cells_are_group_bys() -> None:
    frame = holey()
    data = core_of(frame)
    seen = frame[[*UNIT]].notna()
    own = frame.assign(key=[tuple(row) for row in seen.to_numpy()])[seen.any(axis=1).to_numpy()]
    groups = own.groupby(["cluster", "key"])
    kinds = [tuple(row) for row in data.unit_patterns]
    scatter = [np.zeros((3, 3)) for _ in kinds]
    found = 0
    for j in range(data.nclusters):
        for c in range(data.first_cell[j], data.first_cell[j + 1]):
            key = kinds[data.cell_pattern[c]]
            values = groups.get_group((j, key))[[*UNIT]].to_numpy()
            mean = np.where(key, data.cell_means[:, c] + data.origin[:3], 0)
            assert data.cell_rows[c] == len(values)
            assert_allclose(mean[list(key)], values.mean(axis=0)[list(key)], rtol=1e-13, atol=1e-14)
            assert not data.cell_means[~np.array(key), c].any()
            off = np.where(key, values - values.mean(axis=0), 0)
            scatter[data.cell_pattern[c]] += off.T @ off
            found += 1
    assert found == data.ncells == len(groups)
    assert_array_equal(data.pattern_rows, [(own["key"] == key).sum() for key in kinds])
    for key, mine, theirs in zip(kinds, data.scatter, scatter, strict=True):
        assert_allclose(mine, theirs[np.ix_(key, key)], rtol=1e-12, atol=1e-12)
    assert_array_equal(data.sizes, seen.any(axis=1).groupby(frame["cluster"]).sum())
    assert data.nobs == len(own)


def test_patterns_and_cells_are_in_order() -> None:
    data = core_of(holey())
    keys = [(-sum(row), list(np.flatnonzero(row))) for row in data.unit_patterns]
    assert keys == sorted(keys)
    for j in range(data.nclusters):
        own = data.cell_pattern[data.first_cell[j] : data.first_cell[j + 1]]
        assert (np.diff(own) > 0).all()


def test_cluster_variables_come_from_the_units_that_have_them() -> None:
    frame = holey()
    data = core_of(frame)
    expected = frame.groupby("cluster")[[*CLUSTER]].first().to_numpy()
    values = data.cluster_values.T + data.origin[3:]
    seen = data.cluster_patterns[data.cluster_pattern]
    assert_array_equal(seen, ~np.isnan(expected))
    assert_allclose(values[seen], expected[seen], rtol=1e-14)
    codes = frame["cluster"].to_numpy()
    direct, varying = _core.cluster_values([frame[n].to_numpy() for n in CLUSTER], codes, 11)
    assert_array_equal(direct, expected)
    assert varying == [(0, []), (0, [])]


def test_cluster_values_that_differ_are_counted() -> None:
    nan = np.nan
    column = np.array([1.0, nan, 2.0, 3.0, 3.0, nan, nan, 5.0])
    codes = np.array([0, 0, 0, 1, 1, 1, 2, 3])
    values, varying = _core.cluster_values([column], codes, 4)
    assert_array_equal(values[:, 0], [1.0, 3.0, nan, 5.0])
    assert varying == [(1, [0])]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), mean=st.sampled_from([0.0, 1e8]), share=st.floats(0, 0.7))
def test_row_order_does_not_matter(seed: int, mean: float, share: float) -> None:
    frame = holey(seed, mean, share)
    shuffled = frame.sample(frac=1, random_state=seed % 1000)
    assert_same(core_of(frame), core_of(shuffled), rtol=1e-12 if mean == 0 else 1e-7)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_cluster_labels_do_not_matter(seed: int) -> None:
    frame = holey(seed)
    order = np.random.default_rng(seed).permutation(11)
    one, two = core_of(frame), core_of(frame.assign(cluster=order[frame["cluster"]]))
    assert_array_equal(one.unit_patterns, two.unit_patterns)
    assert_array_equal(one.pattern_rows, two.pattern_rows)
    assert_array_equal(one.sizes, two.sizes[order])
    for a, b in zip(one.scatter, two.scatter, strict=True):
        assert_allclose(a, b, rtol=1e-11, atol=1e-11)


def test_a_mean_of_1e8_costs_no_digits() -> None:
    frame = holey()
    shift = {name: np.round(frame[name] * 2**20) / 2**20 for name in (*UNIT, *CLUSTER)}
    small = frame.assign(**shift)
    large = small.assign(**{name: small[name] + 1e8 for name in (*UNIT, *CLUSTER)})
    # values are multiples of 2^-20, so that adding 1e8 rounds nothing off beyond 2^-27
    for a, b in zip(core_of(small).scatter, core_of(large).scatter, strict=True):
        assert_allclose(a, b, rtol=1e-6, atol=1e-6)
    exact = large[[*UNIT]] - 1e8
    for a, b in zip(core_of(large.assign(**exact)).scatter, core_of(large).scatter, strict=True):
        assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    assert_allclose(
        core_of(large).observed_moments()[1], large[[*UNIT]].mean().tolist() + cluster_means(large)
    )


def cluster_means(frame: pd.DataFrame) -> list[float]:
    means: list[float] = frame.groupby("cluster")[[*CLUSTER]].first().mean().tolist()
    return means


def test_many_rows_in_pieces_and_clusters_larger_than_a_block() -> None:
    rng = np.random.default_rng(7)
    frame = two_level(rng, [300] * 500 + [2] * 3000, WITHIN, BETWEEN, np.zeros(5), UNIT, CLUSTER, nboth=2)
    for name in UNIT:
        frame.loc[rng.random(len(frame)) < 0.2, name] = np.nan
    data = core_of(frame)
    key = frame[[*UNIT]].notna() @ [4, 2, 1]
    values = frame[[*UNIT]].to_numpy()
    values = values - frame.groupby([frame["cluster"], key])[[*UNIT]].transform("mean").to_numpy()
    for row, count, mine in zip(data.unit_patterns, data.pattern_rows, data.scatter, strict=True):
        own = values[(key == row @ [4, 2, 1]).to_numpy()][:, row]
        assert count == len(own)
        assert_allclose(mine, own.T @ own, rtol=1e-11, atol=1e-8)
    again = core_of(frame)
    for name in ARRAYS:
        assert_array_equal(getattr(data, name), getattr(again, name))
    for a, b in zip(data.scatter, again.scatter, strict=True):
        assert_array_equal(a, b)


def test_more_variables_than_bits_in_a_word() -> None:
    rng = np.random.default_rng(3)
    p, q, codes = 70, 66, np.repeat(np.arange(6), 8)
    unit, cluster = rng.standard_normal((p, 48)), rng.standard_normal((q, 6))[:, codes]
    unit[rng.random(unit.shape) < 0.02] = np.nan
    cluster[65, codes == 2] = np.nan
    data = _core.incomplete_data(list(unit), list(cluster), codes, 6, p)
    patterns = {tuple(row) for row in ~np.isnan(unit.T)}
    assert {tuple(row) for row in data.unit_patterns} == patterns
    assert_array_equal(data.cluster_patterns[data.cluster_pattern][:, 65], np.arange(6) != 2)
    last = data.restrict([69, 0, 65], [65, 1], 1)
    assert_same(
        last, _core.incomplete_data([unit[k] for k in (69, 0, 65)], list(cluster[[65, 1]]), codes, 6, 1)
    )


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    unit=st.permutations(range(3)),
    keep=st.integers(0, 3),
    share=st.floats(0, 0.8),
)
def test_restriction_equals_direct_accumulation(seed: int, unit: list[int], keep: int, share: float) -> None:
    frame, unit = holey(seed, share=share), unit[:keep]
    part = core_of(frame).restrict(unit, [1], 0)
    assert_same(part, core_of(frame, [UNIT[k] for k in unit], CLUSTER[1:], 0), rtol=1e-11)
    assert_array_equal(part.weight, np.ones(11))


def repeated(frame: pd.DataFrame, weights: Any) -> pd.DataFrame:
    """Each cluster as often as its weight says, under names of their own."""
    parts = [
        frame[frame["cluster"] == j].assign(cluster=100 * j + copy)
        for j, n in enumerate(weights)
        for copy in range(n)
    ]
    return pd.concat(parts)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), weights=st.lists(st.integers(0, 3), min_size=11, max_size=11))
def test_weights_equal_repeated_clusters(seed: int, weights: list[int]) -> None:
    weights[0] = weights[10] = 1
    frame = holey(seed)
    data = core_of(frame)
    unit, codes = columns_and_codes(frame)
    heavy = data.weighted(_core.cell_products(unit, codes, data), np.array(weights, dtype=float))
    direct = core_of(repeated(frame, weights))
    lists = direct.unit_patterns, direct.pattern_rows, direct.scatter
    kinds = {tuple(key): (n, scatter) for key, n, scatter in zip(*lists, strict=True)}
    for key, count, scatter in zip(heavy.unit_patterns, heavy.pattern_rows, heavy.scatter, strict=True):
        n, expected = kinds.get(tuple(key), (0, np.zeros_like(scatter)))
        assert count == n
        assert_allclose(scatter, expected, rtol=1e-11, atol=1e-11)
    for mine, theirs in zip(heavy.coverage(), direct.coverage(), strict=True):
        assert_array_equal(mine, theirs)
    for mine, theirs in zip(heavy.level_variation(), direct.level_variation(), strict=True):
        assert_allclose(mine, theirs, rtol=1e-10)
    assert_allclose(heavy.observed_moments(), direct.observed_moments(), rtol=1e-11)
    assert_allclose(heavy.restrict([0], [], 1).scatter[0], direct.restrict([0], [], 1).scatter[0], rtol=1e-11)
    for name in ("first_cell", "cell_rows", "cell_means", "cluster_values"):
        assert_array_equal(getattr(heavy, name), getattr(data, name))


def test_products_of_cells_add_up_to_those_of_patterns() -> None:
    frame = holey(2)
    data = core_of(frame)
    unit, codes = columns_and_codes(frame)
    products = _core.cell_products(unit, codes, data)
    assert products.shape == (6, data.ncells)
    again = data.weighted(products, data.weight)
    for a, b in zip(data.scatter, again.scatter, strict=True):
        assert_allclose(a, b, rtol=1e-13, atol=1e-13)
    with pytest.raises(ValueError, match="rows are not those"):
        _core.cell_products(unit[::-1], codes, data)
    with pytest.raises(ValueError, match="inconsistent shapes"):
        data.weighted(products[:3], data.weight)


def test_coverage_and_moments_of_the_definitions() -> None:
    frame = holey()
    data = core_of(frame)
    seen = frame[[*UNIT]].notna().astype(float)
    units, clusters = data.coverage()
    assert_array_equal(units, seen.T @ seen)
    have = frame.groupby("cluster")[[*UNIT, *CLUSTER]].count().gt(0).astype(float)
    assert_array_equal(clusters, have.T @ have)
    z = frame.groupby("cluster")[[*CLUSTER]].first()
    count, mean, variance = data.observed_moments()
    assert_array_equal(count, [*frame[[*UNIT]].count(), *z.count()])
    assert_allclose(mean, [*frame[[*UNIT]].mean(), *z.mean()], rtol=1e-13)
    assert_allclose(variance, [*frame[[*UNIT]].var(ddof=0), *z.var(ddof=0)], rtol=1e-12)
    groups = frame.groupby("cluster")[[*UNIT]]
    numbers, within, between = data.level_variation()
    assert_array_equal(numbers, groups.mean().count())
    assert_allclose(within, ((frame[[*UNIT]] - groups.transform("mean")) ** 2).sum(), rtol=1e-12)
    assert_allclose(between, groups.mean().var() * (numbers - 1), rtol=1e-12)


def test_pickling_keeps_everything() -> None:
    data = core_of(holey())
    again = pickle.loads(pickle.dumps(data))
    for name in (*ARRAYS, "p", "q", "nboth", "nobs", "nclusters", "ncells", "nbytes"):
        assert_array_equal(getattr(again, name), getattr(data, name))
    assert all(map(np.array_equal, again.scatter, data.scatter))
    statistics = statistics_of(holey())
    copy = pickle.loads(pickle.dumps(statistics))
    assert (copy.names, copy.nobs, copy.nclusters) == (
        statistics.names,
        statistics.nobs,
        statistics.nclusters,
    )


def test_the_core_refuses_what_is_out_of_range() -> None:
    column, codes = np.zeros(3), np.array([0, 1, 2])
    for nclusters in (0, 2):
        with pytest.raises(ValueError, match="code out of range"):
            _core.incomplete_data([column], [], codes, nclusters, 0)
    with pytest.raises(ValueError, match="nboth must be between"):
        _core.incomplete_data([column], [], codes, 3, 2)
    data = _core.incomplete_data([column], [], codes, 3, 1)
    for unit, cluster in (([1], []), ([-1], []), ([0], [0])):
        with pytest.raises(ValueError, match="position of a variable"):
            data.restrict(unit, cluster, 0)
    with pytest.raises(AttributeError):
        data.p = 3  # type: ignore[misc]


def test_strided_columns_are_read_in_place() -> None:
    frame = holey()
    rows = np.ascontiguousarray(frame[[*UNIT]].to_numpy())
    codes = frame["cluster"].to_numpy()
    assert_same(
        _core.incomplete_data(list(rows.T), [], codes, 11, 0), core_of(frame, UNIT, (), 0), rtol=1e-15
    )


def test_complete_data_have_one_pattern_and_the_statistics_of_complete_data() -> None:
    frame = small_sample(mean=1e8)
    data = clustered_data(frame, [*UNIT, *CLUSTER], "cluster", Holes())
    assert data.complete
    holes, whole = (
        incomplete_statistics(data, VARIABLES),
        sample_statistics(data, VARIABLES),
    )
    assert holes.data.unit_patterns.tolist() == [[True] * 3]
    assert_allclose(holes.data.scatter[0], whole.ssw, rtol=1e-12)
    for name in ("names", "nboth", "nobs", "nclusters", "source", "harmonic_size"):
        assert getattr(holes, name) == getattr(whole, name)
    for name in ("sizes", "counts", "total_mean"):
        assert_allclose(getattr(holes, name), getattr(whole, name), rtol=1e-15)
    assert holes.unidentified == ()


def test_single_level_rows_are_clusters() -> None:
    frame = holey().drop(columns="cluster")[[*UNIT]]
    data = clustered_data(frame, UNIT, None, Holes())
    s = simple_incomplete(data, UNIT)
    filled = frame.dropna(how="all")
    assert (s.unit, s.cluster, s.nobs, s.nclusters) == ((), UNIT, len(filled), len(filled))
    assert (s.sizes.tolist(), s.counts.tolist()) == ([1.0], [len(filled)])
    assert_allclose(s.total_mean, filled.mean(), rtol=1e-13)
    part = s.with_variables(Variables.of_units_and_clusters((), ("x",), 0))
    assert part.nobs == part.nclusters == filled["x"].count()
    whole = clustered_data(filled.dropna(), UNIT, None)
    one, two = simple_incomplete(whole, UNIT), simple_statistics(whole, UNIT)
    assert_allclose(one.total_mean, two.total_mean, rtol=1e-13)
    assert columns_of(whole, UNIT)[0].base is not None


def test_statistics_read_like_those_of_complete_data() -> None:
    frame = holey()
    s = statistics_of(frame)
    filled = frame[[*UNIT]].notna().any(axis=1).groupby(frame["cluster"]).sum()
    assert (s.nobs, s.nclusters) == (filled.sum(), 10)  # cluster 6 has z only, 8 nothing
    sizes, counts = np.unique(filled[filled > 0], return_counts=True)
    assert (s.sizes.tolist(), s.counts.tolist()) == (sizes.tolist(), counts.tolist())
    part = s.with_variables(Variables.of_units_and_clusters(("x",), (), 0))
    assert (part.names, part.nobs) == (("x",), frame["x"].count())
    assert part.nclusters == (frame.groupby("cluster")["x"].count() > 0).sum()
    assert len(cluster_codes(clustered_data(frame, UNIT, "cluster", Holes()))) == filled.sum()
