"""Which rows with holes are kept, and what is said about samples with holes that cannot be used."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from msem.data.frames import Holes, clustered_data
from msem.data.grouping import grouped_data, read_groups
from msem.data.incomplete import IncompleteStatistics, incomplete_statistics, simple_incomplete
from msem.data.rows import ClusteredData
from msem.errors import DataError
from msem.model.variables import Variables
from simulate import CLUSTER, UNIT, VARIABLES, small_sample

NAN = np.nan
NAMES = ("a", "b", "w")


def table() -> pd.DataFrame:
    """Rows of every kind, labelled by letters."""
    rows = {
        "p": (1.0, 2.0, 5.0, "one"),
        "q": (NAN, 3.0, NAN, "one"),
        "r": (NAN, NAN, NAN, "one"),
        "s": (4.0, NAN, NAN, "two"),
        "t": (5.0, 6.0, NAN, "two"),
        "u": (NAN, NAN, NAN, "three"),
        "v": (7.0, 8.0, 9.0, None),
        "x": (NAN, NAN, 6.0, "four"),
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=[*NAMES, "cluster"])


def kept(data: ClusteredData) -> str:
    """Labels of the rows in use."""
    rows = range(data.nrows) if data.rows is None else data.rows
    return "".join(data.index[k] for k in rows)


def test_rows_are_kept_unless_nothing_is_observed() -> None:
    data = clustered_data(table(), NAMES, "cluster", Holes())
    assert kept(data) == "pqstx"
    assert (data.nrows, data.nobs, data.dropped_empty, data.dropped_no_cluster, data.dropped_rows) == (
        8,
        5,
        2,
        1,
        0,
    )
    assert not data.complete
    assert dict(data.dropped) == {}
    assert list(data.clusters) == ["one", "two", "four"]
    assert_array_equal(data.codes, [0, 0, 1, 1, 2])
    assert list(data.lost_clusters) == ["three"]
    assert {name: list(where) for name, where in data.left_out.items()} == {
        "no cluster id": [6],
        "no observed value": [2, 5],
    }
    assert_array_equal(data.columns["w"], [5, NAN, NAN, NAN, 6])


def test_a_required_variable_of_units_must_be_there() -> None:
    data = clustered_data(table(), NAMES, "cluster", Holes(required=("b",)))
    assert kept(data) == "pqt"
    assert (data.dropped_rows, dict(data.dropped), data.dropped_empty) == (2, {"b": 2}, 2)
    assert list(data.left_out["no fixed covariate"]) == [3, 7]
    assert list(data.lost_clusters) == ["three", "four"]


def test_a_variable_of_clusters_is_taken_from_other_rows() -> None:
    frame = table()
    data = clustered_data(frame, NAMES, "cluster", Holes(required=("w",), cluster_level=("w",)))
    assert kept(data) == "pqx"
    assert (data.dropped_rows, dict(data.dropped)) == (2, {"w": 2})
    assert_array_equal(data.columns["w"], [5, 5, 6])
    assert not data.columns["w"].flags.writeable
    assert np.isnan(frame["w"].to_numpy()).sum() == 5
    loose = clustered_data(frame, NAMES, "cluster", Holes(cluster_level=("w",)))
    assert kept(loose) == "pqstx"
    assert_array_equal(loose.columns["w"], [5, 5, NAN, NAN, 6])


def test_the_first_value_is_taken_and_a_value_is_never_replaced() -> None:
    frame = pd.DataFrame({"w": [NAN, 2.0, 3.0, NAN], "y": [1.0, 2.0, 3.0, 4.0], "cluster": [7, 7, 7, 7]})
    data = clustered_data(frame, ["y", "w"], "cluster", Holes(cluster_level=("w",)))
    assert_array_equal(data.columns["w"], [2, 2, 3, 2])
    assert data.complete


def test_rows_that_are_all_kept_stay_views() -> None:
    frame = small_sample()
    frame.loc[3, "y1"] = NAN
    data = clustered_data(frame, [*UNIT, *CLUSTER], "cluster", Holes(("x",), CLUSTER))
    assert data.rows is None
    assert not data.complete
    for name in (*UNIT, *CLUSTER):
        assert np.shares_memory(data.columns[name], frame[name].to_numpy())


def test_holes_that_are_not_there_leave_complete_data() -> None:
    data = clustered_data(small_sample(), [*UNIT, *CLUSTER], "cluster", Holes())
    assert (data.complete, data.left_out, len(data.lost_clusters), data.dropped_empty) == (True, {}, 0, 0)


def test_single_level_data_have_no_clusters() -> None:
    data = clustered_data(table(), NAMES, None, Holes(required=("b",), cluster_level=("w",)))
    assert kept(data) == "pqtv"
    assert data.codes is None
    assert np.isnan(data.columns["w"]).sum() == 2


def test_groups_have_their_own_rows() -> None:
    frame = table().assign(group=["A"] * 5 + ["B"] * 3)
    one, two = grouped_data(frame, NAMES, "cluster", read_groups(frame, "group"), ["A", "B"], Holes())
    assert (kept(one), kept(two)) == ("pqst", "x")
    assert (one.nrows, one.dropped_empty, two.nrows, two.dropped_no_cluster) == (5, 1, 3, 1)
    assert list(two.left_out["no observed value"]) == [5]
    assert list(two.lost_clusters) == ["three"]


@pytest.mark.parametrize("required", [(), ("a",)])
def test_nothing_left(required: tuple[str, ...]) -> None:
    frame = pd.DataFrame(
        {"a": [NAN, NAN, 1.0], "b": [1.0 if required else NAN, NAN, 3.0], "c": [1.0, 1.0, NAN]}
    )
    with pytest.raises(
        DataError, match=r"no row with values is left of 3: 'a' is missing in 2.*cluster id 'c'"
    ):
        clustered_data(frame, ["a", "b"], "c", Holes(required))


def sample() -> pd.DataFrame:
    """A usable sample with some holes in every variable."""
    frame = small_sample()
    for k, name in enumerate((*UNIT, *CLUSTER)):
        frame.loc[k::9, name] = NAN
    return frame


def statistics_of(frame: pd.DataFrame) -> IncompleteStatistics:
    data = clustered_data(frame, [*UNIT, *CLUSTER], "cluster", Holes())
    return incomplete_statistics(data, VARIABLES)


def with_values(name: str, values: Callable[[pd.DataFrame], object]) -> Callable[[], pd.DataFrame]:
    """The sample with a variable replaced where it is observed."""

    def make() -> pd.DataFrame:
        frame = sample()
        return frame.assign(**{name: values(frame)}).where(frame.notna())

    return make


def one_each() -> pd.DataFrame:
    """One observed value of y1 in each cluster."""
    frame = sample()
    first = frame["y1"].notna() & ~frame["cluster"].where(frame["y1"].notna()).duplicated()
    return frame.assign(y1=frame["y1"].where(first))


def one_unit() -> pd.DataFrame:
    """Clusters in which one unit has unit variables; the others have z only."""
    frame = sample()
    frame.loc[frame["cluster"].duplicated(), [*UNIT]] = NAN
    return frame


def centred() -> pd.DataFrame:
    frame = sample()
    return frame.assign(y1=frame["y1"] - frame.groupby("cluster")["y1"].transform("mean"))


def total() -> pd.DataFrame:
    frame = sample()
    return frame.assign(x=frame["y1"] + 2 * frame["y2"])


WRONG: dict[str, tuple[Callable[[], pd.DataFrame], str]] = {
    "no value": (with_values("y2", lambda d: NAN), "'y2' has no observed value: take it out of the model"),
    "no value of clusters": (with_values("z1", lambda d: NAN), "'z1' has no observed value"),
    "constant": (with_values("y1", lambda d: 0.1), r"'y1' is constant \(always 0.1\)"),
    "constant cluster variable": (with_values("z2", lambda d: 1e8 + 0.3), "'z2' is constant"),
    "one cluster": (lambda: sample().assign(cluster=1), "all rows belong to one cluster"),
    "one unit each": (one_unit, "each of the 1. clusters has one unit"),
    "one value each": (
        one_each,
        "'y1' is in the level-1 block, but no cluster has two observed values.*out of the model",
    ),
    "no within variance": (
        with_values("y1", lambda d: d["cluster"] + 0.1),
        "'y1' is in the level-1 block, but does not vary within clusters.*level-1 block",
    ),
    "no within variance of a within-only variable": (
        with_values("x", lambda d: d["cluster"] / 3 + 1e6),
        "'x' is in the level-1 block, but does not vary within clusters.*level-2 block",
    ),
    "no between variance": (centred, "'y1' is in the level-2 block, but its cluster means are all the same"),
    "between in one cluster": (
        lambda: sample().assign(z1=lambda d: d["z1"].where(d["cluster"] == 10)),
        r"'z1' (is constant|is in the level-2 block, but is observed in one cluster only)",
    ),
    "both levels in one cluster": (
        lambda: sample().assign(y1=lambda d: d["y1"].where(d["cluster"] == 10)),
        "'y1' is in the level-2 block, but is observed in one cluster only",
    ),
    "varying cluster variable": (
        with_values("z1", lambda d: np.arange(len(d)) * 1.0),
        r"'z1' is in the level-2 block only, but varies within . of 11 clusters \(such as 1, 2",
    ),
    "collinear": (total, "'x' is a linear combination of 'y1' and 'y2' within clusters"),
}


@pytest.mark.parametrize(("make", "text"), WRONG.values(), ids=WRONG)
def test_two_level_samples_that_cannot_be_used(make: Callable[[], pd.DataFrame], text: str) -> None:
    with pytest.raises(DataError, match=text):
        statistics_of(make())


def test_collinear_cluster_variables() -> None:
    rng = np.random.default_rng(2)
    z = rng.standard_normal((40, 2))
    frame = pd.DataFrame({"y": rng.standard_normal(120), "cluster": np.repeat(np.arange(40), 3)})
    frame = frame.assign(z1=z[frame["cluster"], 0], z2=z[frame["cluster"], 1], z3=lambda d: d["z1"] - d["z2"])
    frame.loc[frame["cluster"] < 5, "z3"] = NAN
    data = clustered_data(frame, ["y", "z1", "z2", "z3"], "cluster", Holes())
    with pytest.raises(DataError, match="'z3' is a linear combination of 'z1' and 'z2' in the cluster means"):
        incomplete_statistics(data, Variables.of_units_and_clusters(["y"], ["z1", "z2", "z3"], 1))


def test_variables_may_depend_on_each_other_in_some_rows() -> None:
    frame = small_sample()
    frame.loc[::3, "z1"] = NAN
    frame.loc[1::2, "y2"] = NAN
    frame.loc[100:, "x"] = frame["y1"]
    statistics_of(frame)
    routed = frame["y2"].isna()
    frame.loc[routed, "x"] = 3 * frame["y1"]
    frame.loc[~routed, "x"] = small_sample(2)["x"]
    statistics_of(frame)
    data = clustered_data(frame, UNIT, None, Holes())
    simple_incomplete(data, UNIT)


SINGLE: dict[str, tuple[pd.DataFrame, str]] = {
    "no value": (sample().assign(y2=NAN), "'y2' has no observed value"),
    "constant": (sample().assign(y2=lambda d: d["y2"] * 0 + 0.1), "'y2' is constant"),
    "collinear": (total(), "'x' is a linear combination of 'y1' and 'y2', so"),
}


@pytest.mark.parametrize(("frame", "text"), SINGLE.values(), ids=SINGLE)
def test_single_level_samples_that_cannot_be_used(frame: pd.DataFrame, text: str) -> None:
    with pytest.raises(DataError, match=text):
        simple_incomplete(clustered_data(frame, UNIT, None, Holes()), UNIT)


def test_counts_are_no_reason() -> None:
    assert statistics_of(sample()[lambda d: d["cluster"] > 6]).nclusters == 4
    assert simple_incomplete(clustered_data(sample().iloc[:3], UNIT, None, Holes()), UNIT).nobs == 3


def test_holes_in_some_rows_are_no_variation_within_clusters() -> None:
    frame = small_sample()
    frame.loc[::2, "z1"] = NAN
    assert statistics_of(frame).nclusters == 11


def test_variables_never_observed_together_are_reported() -> None:
    frame = small_sample()
    frame.loc[::2, "y1"] = NAN
    frame.loc[1::2, "x"] = NAN
    frame.loc[frame["cluster"] >= 5, "z1"] = NAN
    frame.loc[frame["cluster"] < 5, ["z2", "y2"]] = NAN
    assert statistics_of(frame).unidentified == ("y1~~x", "y2~~z1.l2", "z1~~z2.l2")
    data = clustered_data(frame, ["y1", "y2", "x"], None, Holes())
    assert simple_incomplete(data, ["y1", "y2", "x"]).unidentified == ("y1~~x",)


def test_one_cluster_is_too_few_for_a_covariance_between_clusters() -> None:
    frame = small_sample()
    frame.loc[frame["cluster"] >= 6, "z1"] = NAN
    frame.loc[frame["cluster"] < 5, "z2"] = NAN
    s = statistics_of(frame)
    assert s.coverage_between[3, 4] == 1
    assert s.unidentified == ("z1~~z2.l2",)
