"""Which variables `msem.saturated` takes at which level."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest

import msem
from msem.data.complete import SampleStatistics
from msem.errors import DataError, DataWarning, ModelError
from test_seed import STATISTICS


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    return msem.load_demo()[["y1", "x1", "w1", "w2", "cluster"]].assign(name="text")


@pytest.mark.parametrize(
    ("levels", "within", "between"),
    [
        ({}, ["y1", "x1"], ["y1", "x1", "w1", "w2"]),
        ({"within": ["y1"]}, ["y1"], ["y1"]),
        ({"between": ["w1", "y1"]}, ["y1"], ["y1", "w1"]),
        ({"within": ["x1", "y1"], "between": ["w2", "y1"]}, ["y1", "x1"], ["y1", "w2"]),
        ({"within": ["x1"], "between": ["w1"]}, ["x1"], ["w1"]),
        ({"within": ["y1", "y1"], "between": ["w1", "y1", "w1"]}, ["y1"], ["y1", "w1"]),
    ],
)
def test_levels_of_variables(
    data: pd.DataFrame, levels: dict[str, Any], within: list[str], between: list[str]
) -> None:
    moments = msem.saturated(data, cluster="cluster", **levels)
    assert moments.within.cov.columns.tolist() == within
    assert moments.between.cov.columns.tolist() == between


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"within": ["y1"]}, DataError, "name the column with the cluster ids"),
        ({"cluster": "cluster", "between": ["w1"]}, ModelError, "there is no within level"),
        ({"cluster": "cluster", "within": ["y1", "w1"]}, DataError, "'w1' .* does not vary within clusters"),
        ({"cluster": "cluster", "within": ["y1"], "between": ["x1"]}, DataError, "'x1' .* varies within"),
        ({"cluster": "cluster", "within": ["y9"]}, DataError, "no column 'y9'"),
        ({"cluster": "school"}, DataError, "school"),
    ],
)
def test_levels_that_the_data_contradict_are_refused(
    data: pd.DataFrame, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        msem.saturated(data, **options)


def test_statistics_have_their_levels() -> None:
    statistics = SampleStatistics.from_dict(json.loads(STATISTICS.read_text(encoding="utf-8")))
    assert msem.saturated(statistics).both == ("y1", "y2", "y3")
    with pytest.raises(DataError, match="leave out within=, between= and levels="):
        msem.saturated(statistics, within=["y1"])


def test_rows_without_a_cluster_are_counted(data: pd.DataFrame) -> None:
    holes = data.assign(cluster=data["cluster"].where(data.index >= 7))
    with pytest.warns(DataWarning, match="7 rows have no cluster id") as caught:
        moments = msem.saturated(holes, cluster="cluster", within=["y1"])
    assert {warning.filename for warning in caught} == {__file__}
    assert moments.nobs == len(data) - 7
