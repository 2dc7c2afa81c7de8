"""Samples that cannot identify the moments of a model are refused, with the variables named."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from msem.data.complete import SampleStatistics
from msem.data.complete_rows import sample_statistics, simple_statistics
from msem.data.demo import load_demo
from msem.data.frames import clustered_data
from msem.errors import DataError
from msem.model.variables import Variables
from simulate import BETWEEN, CLUSTER, UNIT, VARIABLES, WITHIN, small_sample, two_level


def statistics_of(frame: pd.DataFrame, cluster: str = "cluster") -> SampleStatistics:
    data = clustered_data(frame, [*UNIT, *CLUSTER], cluster)
    return sample_statistics(data, VARIABLES)


def refusal(frame: pd.DataFrame, unit: tuple[str, ...] = UNIT, cluster: tuple[str, ...] = CLUSTER) -> str:
    data = clustered_data(frame, [*unit, *cluster], "cluster")
    with pytest.raises(DataError) as error:
        sample_statistics(data, Variables.of_units_and_clusters(unit, cluster, min(2, len(unit))))
    return str(error.value)


def test_one_cluster() -> None:
    assert "at least two clusters" in refusal(small_sample().assign(cluster=1))


def test_clusters_of_one_unit() -> None:
    frame = small_sample().iloc[:40].assign(cluster=range(40))
    assert "each of the 40 clusters has one unit" in refusal(frame)


def test_a_constant_variable() -> None:
    assert "variable 'x' is constant (always 2.5)" in refusal(small_sample().assign(x=2.5))
    assert "variable 'z1' is constant (always -1)" in refusal(small_sample().assign(z1=-1))
    with pytest.raises(DataError, match="'x' is constant"):
        simple_statistics(clustered_data(small_sample().assign(x=0.1), UNIT, None), UNIT)


def test_counts_are_no_reason() -> None:
    frame = small_sample()
    assert statistics_of(frame[frame["cluster"].isin([1, 2, 3, 5])]).nclusters == 4
    few = two_level(
        np.random.default_rng(1), [1] * 8 + [2, 2], WITHIN, BETWEEN, np.zeros(5), UNIT, CLUSTER, 2
    )
    assert statistics_of(few).nobs == 12
    assert simple_statistics(clustered_data(frame.head(3), UNIT, None), UNIT).nobs == 3


def test_variables_of_units_only_may_be_collinear_within_clusters() -> None:
    frame = small_sample()
    names = ("y1", "x", "x2")
    deviation = frame["x"] - frame.groupby("cluster")["x"].transform("mean")
    data = clustered_data(frame.assign(x2=deviation), [*names, *CLUSTER], "cluster")
    assert sample_statistics(data, Variables.of_units_and_clusters(names, CLUSTER, 1)).nobs == len(frame)
    double = clustered_data(frame.assign(x2=2 * frame["x"] + 1), [*names, *CLUSTER], "cluster")
    with pytest.raises(DataError, match="'x2' is a linear combination of 'x', so"):
        sample_statistics(double, Variables.of_units_and_clusters(names, CLUSTER, 1))
    with pytest.raises(DataError, match="'x' is a linear combination of 'y1' within clusters"):
        sample_statistics(
            clustered_data(
                frame.assign(x2=deviation, x=frame["y1"] + frame["z1"]), [*names, *CLUSTER], "cluster"
            ),
            Variables.of_units_and_clusters(names, CLUSTER, 1),
        )


def test_a_within_varying_variable_at_level_2_only() -> None:
    frame = small_sample()
    frame.loc[[2, 30], "z2"] += 1e-12  # rows of clusters 1 and 6
    text = refusal(frame)
    assert (
        "variable 'z2' is in the level-2 block only, but varies within 2 of 11 clusters (such as 1, 6)"
        in text
    )
    assert "put it in the level-1 block too" in text


def test_a_cluster_variable_at_level_1() -> None:
    frame = small_sample()
    assert "move it to the level-2 block" in refusal(frame.assign(x=frame["z1"] * 2))
    assert "'y2' is in the level-1 block" in (text := refusal(frame.assign(y2=frame["z1"] + 7)))
    assert "take it out of the level-1 block" in text


def test_variation_within_clusters_that_is_only_rounding() -> None:
    frame = small_sample()
    noise = np.where(np.arange(len(frame)) % 2, 0.0, 1e-9)
    assert "'x' is in the level-1 block, but does not vary" in refusal(
        frame.assign(x=1e7 + frame["z1"] + noise)
    )


def test_a_variable_at_both_levels_without_between_variance() -> None:
    frame = small_sample()
    centred = frame["y1"] - frame.groupby("cluster")["y1"].transform("mean")
    assert "variable 'y1' is in the level-2 block, but its cluster means are all the same" in refusal(
        frame.assign(y1=centred)
    )
    within_only = frame.assign(x=frame["x"] - frame.groupby("cluster")["x"].transform("mean"))
    assert statistics_of(within_only).nobs == len(frame)


def test_collinear_variables_within_clusters() -> None:
    frame = small_sample()
    collinear = frame.assign(x=3 * frame["y2"] - frame["y1"] + frame["z1"])
    text = refusal(collinear)
    assert "variable 'x' is a linear combination of 'y1' and 'y2' within clusters" in text
    assert "'x' is a linear combination of 'y2' within" in refusal(frame.assign(x=1e-6 * frame["y2"]))


def test_collinear_variables_between_clusters() -> None:
    frame = small_sample()
    text = refusal(frame.assign(z2=frame.groupby("cluster")["y1"].transform("mean") - frame["z1"]))
    assert "variable 'z2' is a linear combination of 'y1' and 'z1' in the cluster means" in text
    assert "'z2' is a linear combination of 'z1'" in refusal(frame.assign(z2=100 - frame["z1"]))


def test_collinear_variables_of_a_single_level() -> None:
    frame = small_sample(mean=1e6)
    collinear = frame.assign(x=frame["y1"] + frame["y2"])
    with pytest.raises(DataError, match="'x' is a linear combination of 'y1' and 'y2', so"):
        simple_statistics(clustered_data(collinear, UNIT, None), UNIT)


def test_high_correlations_and_odd_scales_are_accepted() -> None:
    frame = small_sample()
    near = frame["y1"] + 1e-3 * np.random.default_rng(1).normal(size=len(frame))
    assert statistics_of(frame.assign(x=near)).nobs == len(frame)
    assert statistics_of(frame.assign(x=frame["x"] * 1e-12, z1=frame["z1"] * 1e12)).nobs == len(frame)


def test_demo_data_pass_every_check() -> None:
    unit, cluster = ["y1", "y2", "y3", "y4", "y5", "y6", "x1", "x2", "x3"], ["w1", "w2"]
    statistics = sample_statistics(
        clustered_data(load_demo(), [*unit, *cluster], "cluster"),
        Variables.of_units_and_clusters(unit, cluster, 6),
    )
    assert (statistics.nobs, statistics.nclusters, statistics.sizes.tolist()) == (2500, 200, [5, 10, 15, 20])
