"""Statistics of clusters within clusters in place of rows: any pieces, saved and added, with the results of rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import msem
import three_levels
from msem.errors import DataError, DataWarning, ModelError, UnsupportedError
from test_three_level_weights import LEVELS, SLOPES, SMALL, made_up

pytestmark = pytest.mark.filterwarnings("ignore::msem.errors.MsemWarning")  # samples are small

CLUSTER = three_levels.CLUSTER
NAMES = ["y1", "y2", "y3", "x", "w", "z", "v"]


def summary(data: Any) -> msem.ClusterStatistics:
    return msem.summarize(data, cluster=CLUSTER, variables=NAMES, keep_clusters=True)


def loaded(found: msem.ClusterStatistics, folder: Path, suffix: str) -> msem.ClusterStatistics:
    found.save(folder / f"kept{suffix}")
    return msem.ClusterStatistics.load(folder / f"kept{suffix}")


WAYS: dict[str, Callable[[pd.DataFrame, Path], msem.ClusterStatistics]] = {
    "whole": lambda data, folder: summary(data),
    "pieces of classes": lambda data, folder: summary(data.iloc[k : k + 7] for k in range(0, len(data), 7)),
    "sum of parts of schools": lambda data, folder: sum(summary(data.iloc[k::3]) for k in range(3)),  # type: ignore[return-value]
    "json": lambda data, folder: loaded(summary(data), folder, ".json"),
    "parquet": lambda data, folder: loaded(summary(data), folder, ".parquet"),
    "ids of text": lambda data, folder: summary(data.astype(dict.fromkeys(CLUSTER, str))),
}


@pytest.fixture(scope="module")
def rows() -> dict[str, Any]:
    data = made_up(schools=60)
    data["x"] += 1000  # far from the origin
    fits = {model: msem.sem(model, data, cluster=CLUSTER, estimator="MLR") for model in (LEVELS, SLOPES)}
    return {"data": data} | fits


@pytest.mark.parametrize("way", WAYS)
def test_fits_are_those_of_the_rows(way: str, rows: dict[str, Any], tmp_path: Path) -> None:
    found = WAYS[way](rows["data"], tmp_path)
    assert "228 units in 113 clusters in 60 clusters" in repr(found)
    for model in (LEVELS, SLOPES):
        one, other = rows[model], msem.sem(model, found, estimator="MLR")
        np.testing.assert_allclose(other.theta, one.theta, rtol=1e-8, atol=1e-9)
        assert other.llf == pytest.approx(one.llf, rel=1e-12)
        np.testing.assert_allclose(other.vcov, one.vcov, rtol=1e-6, atol=1e-12)
    one, other = rows[LEVELS], msem.sem(LEVELS, found, estimator="MLR")
    measures = ["chisq", "chisq_scaled", "cfi_robust", "srmr"]
    np.testing.assert_allclose(other.fit_measures()[measures], one.fit_measures()[measures], rtol=1e-7)
    assert other.nobs == one.nobs
    assert other.summary().count("Number of clusters [class]                       113") == 1


def test_what_rows_have_their_statistics_have(rows: dict[str, Any]) -> None:
    data = rows["data"]
    found, names = summary(data), [["y1", "y2"]] * 3
    of_rows = msem.saturated(data, cluster=CLUSTER, levels=names, gamma="robust")
    moments = msem.saturated(found, levels=names, gamma="robust")
    np.testing.assert_allclose(moments[2].cov, of_rows[2].cov, rtol=1e-9)
    np.testing.assert_allclose(moments.acov, of_rows.acov, rtol=1e-7, atol=1e-12)
    free = SMALL.replace("y1 ~~ y1", "y1 ~~ y1 + y2\n y2 ~~ y2")
    levels, other = msem.segregated(free, found), msem.segregated(free, data, cluster=CLUSTER)
    np.testing.assert_allclose(levels.estimates()["se"], other.estimates()["se"], rtol=1e-7)
    one, two = msem.sem(SMALL, found), msem.sem(SMALL, data, cluster=CLUSTER)
    np.testing.assert_allclose(one.scores(), two.scores(), rtol=1e-7, atol=1e-9)
    assert list(one.scores().index) == list(two.scores().index)  # schools
    np.testing.assert_allclose(one.influence().measures["cook"], two.influence().measures["cook"], rtol=1e-6)
    found_levels = [set(own) for own in found.known_variables.levels]
    assert found_levels == [set(NAMES) - {"w", "z", "v"}, set(NAMES) - {"v"}, set(NAMES)]


def test_rows_without_values_or_ids_are_left_out_and_counted() -> None:
    data = made_up(schools=20)
    data.loc[data.index[3], "y1"] = np.nan
    data["class"] = data["class"].astype(float)
    data.loc[data.index[5], "class"] = np.nan
    with pytest.warns(DataWarning, match=r"1 rows have no cluster id \(\['school', 'class'\]\)"):
        found = summary(data)
    assert (found.dropped_rows, found.dropped_no_cluster, dict(found.dropped)) == (1, 1, {"y1": 1})
    kept = data.dropna(subset=[*NAMES, "class"])
    assert found.nclusters == kept.groupby(CLUSTER).ngroups
    assert found.cluster_count == 20


def test_more_levels(tmp_path: Path) -> None:
    data = made_up(schools=40)
    data["district"] = np.array(list("abcdefghij"))[data["school"] // 4]
    data["school"] %= 4  # numbered anew in every district
    model = SMALL.replace("y1\nlevel: 2", "y1\n y1 ~ x\nlevel: 2") + "\nlevel: 4\n y1 ~~ y1"
    columns = ["district", *CLUSTER]
    parts = [
        msem.summarize(data.iloc[k::4], cluster=columns, variables=NAMES, keep_clusters=True)
        for k in range(4)
    ]
    found = loaded(sum(parts), tmp_path, ".json")  # type: ignore[arg-type]
    assert repr(found).count(" in ") == 3
    one, other = msem.sem(model, data, cluster=columns), msem.sem(model, found)
    np.testing.assert_allclose(other.theta, one.theta, rtol=1e-8, atol=1e-9)
    assert other.llf == pytest.approx(one.llf, rel=1e-12)
    assert sorted(other.scores().index) == sorted(one.scores().index)
    assert [found.clusters_of(level) for level in (2, 3, 4)] == [
        one.sample.units_of(level) for level in (2, 3, 4)
    ]


def test_groups_may_be_summaries(rows: dict[str, Any]) -> None:
    data = rows["data"]
    parts = {str(k): summary(data[data["half"] == k]) for k in (0, 1)}
    one = msem.sem(SMALL, parts)
    two = msem.sem(SMALL, data, cluster=CLUSTER, group="half")
    assert one.llf == pytest.approx(two.llf, rel=1e-10)


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda d: msem.summarize(d, cluster=CLUSTER), DataError, "keep_clusters=True.*cluster='school'"),
        (
            lambda d: msem.summarize(d, cluster="half * school", keep_clusters=True),
            UnsupportedError,
            "crossed",
        ),
        (
            lambda d: msem.summarize(
                d.assign(**{"class": 100 * d["school"] + d["class"]}),
                cluster=CLUSTER[::-1],
                keep_clusters=True,
            ),
            DataError,
            r"every 'class' lies within one 'school'.*cluster=\['school', 'class'\]",
        ),
        (lambda d: msem.sem("y1 ~ x", summary(d)), ModelError, "one level.*'level: 3'.*cluster='school'"),
        (
            lambda d: msem.sem(SMALL.split("level: 3")[0], summary(d)),
            ModelError,
            "two levels.*clusters within",
        ),
        (
            lambda d: msem.sem(SMALL, msem.summarize(d, cluster="school", keep_clusters=True)),
            ModelError,
            r"clusters of one kind, 'school'.*cluster=\[",
        ),
        (
            lambda d: summary(d) + msem.summarize(d, cluster="school", variables=NAMES, keep_clusters=True),
            DataError,
            r"\['school', 'class'\] and by 'school'",
        ),
        (lambda d: summary(d) + summary(d.assign(school=d["school"].astype(str))), DataError, "'school' are"),
        (lambda d: summary(d) + summary(d), DataError, "counted twice"),
        (
            lambda d: msem.sem(SMALL + "\n x ~~ y1", summary(d)),
            DataError,
            "'x' is in the blocks from level 3.*varies within 18 of 20 clusters of level 3",
        ),
        (
            lambda d: msem.sem(SMALL.replace("1\n", "1\n z ~~ z\n"), summary(d)),
            DataError,
            "'z' is in the level-1 block",
        ),
        (lambda d: summary(d).factor_scores(), AttributeError, "factor_scores"),
    ],
)
def test_mistakes_are_named(ask: Callable[[Any], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ask(made_up(schools=20))


DESIGNS: dict[str, dict[str, Any]] = {
    "weights of rows": {"weights": "w1"},
    "weights of all levels": {"weights": "w1", "cluster_weights": ["w3", "w2"]},
    "effective sizes, strata": {
        "weights": "w1",
        "cluster_weights": [None, "w2"],
        "weights_scale": "effective",
        "strata": "stratum",
    },
    "weights of schools, districts": {"cluster_weights": "w3", "psu": "district"},
}


def weighted(schools: int = 24) -> pd.DataFrame:
    data = made_up(schools=schools)
    rng = np.random.default_rng(8)
    school = data["school"].to_numpy()
    of_class = data.groupby(CLUSTER).ngroup().to_numpy()
    return data.assign(
        w1=rng.uniform(0.5, 2, len(data)),
        w2=rng.uniform(0.5, 2, of_class.max() + 1)[of_class],
        w3=rng.uniform(0.5, 2, school.max() + 1)[school],
        district=school // 2,
        stratum=school % 3,
    )


@pytest.mark.parametrize("design", DESIGNS.values(), ids=DESIGNS)
def test_weighted_statistics_are_those_of_weighted_rows(design: dict[str, Any], tmp_path: Path) -> None:
    data = weighted()
    given = {"cluster": CLUSTER, **design}
    rows = [msem.sem(model, data, **given) for model in (SMALL, SLOPES)]
    whole = msem.summarize(data, variables=NAMES, keep_clusters=True, **given)
    cut = "stratum" not in design and "psu" not in design  # each part needs units to tell variances from
    parts = [data.iloc[::2], data.iloc[1::2]] if cut else [data]
    merged = sum(msem.summarize(part, variables=NAMES, keep_clusters=True, **given) for part in parts)
    for found in (whole, merged, loaded(whole, tmp_path, ".json"), loaded(whole, tmp_path, ".parquet")):
        for one, model in zip(rows, (SMALL, SLOPES), strict=True):
            other = msem.sem(model, found)
            np.testing.assert_allclose(other.theta, one.theta, rtol=1e-7, atol=1e-8)
            np.testing.assert_allclose(other.vcov, one.vcov, rtol=1e-6, atol=1e-10)
            assert other.llf == pytest.approx(one.llf, rel=1e-11)
        assert "statistics of clusters" in other.summary()
        lines = (other.summary().splitlines(), one.summary().splitlines())
        own, of_rows = ([line for line in text if line.startswith("  Effective")] for text in lines)
        assert own == of_rows
    levels = [["y1", "y2"]] * 3
    moments = [msem.saturated(data, levels=levels, **given), msem.saturated(merged, levels=levels)]
    np.testing.assert_allclose(moments[1].vector, moments[0].vector, rtol=1e-7, atol=1e-9)
    if not moments[0].in_cone:
        np.testing.assert_allclose(moments[1].acov, moments[0].acov, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (
            lambda d: d.assign(w2=d["w1"]),
            {"cluster_weights": ["w3", "w2"]},
            "the weight 'w2' must be the same",
        ),
        (lambda d: d.assign(w3=d["w2"]), {"cluster_weights": "w3"}, "the weight 'w3' must be the same"),
        (lambda d: d, {"cluster_weights": ["w3", "w2", "w1"]}, "weights of 3 kinds of clusters.* has 2"),
        (
            lambda d: d.assign(psu=d.index % 7),
            {"psu": "psu"},
            "the primary sampling unit 'psu' must be the same",
        ),
    ],
)
def test_weights_of_clusters_are_theirs(change: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        msem.summarize(change(weighted()), cluster=CLUSTER, keep_clusters=True, **options)


def test_parts_of_a_school_have_one_weight() -> None:
    data = weighted()
    data["class"] += 100 * data["school"]
    odd = data.assign(w3=np.where(data["class"] % 2, data["w3"], data["w3"] + 1))
    parts = [part for _, part in odd.groupby(odd["class"] % 2)]
    made = [
        msem.summarize(part, cluster=CLUSTER, variables=NAMES, keep_clusters=True, cluster_weights="w3")
        for part in parts
    ]
    with pytest.raises(DataError, match="the weight 'w3' must be the same in all rows of a cluster"):
        sum(made)


@pytest.mark.parametrize("options", [{}, {"weights": "w1", "cluster_weights": ["w3", "w2"]}])
def test_samples_of_a_fit_have_the_clusters_of_its_statistics(options: dict[str, Any]) -> None:
    data = weighted(12)
    found = msem.summarize(data, cluster=CLUSTER, variables=NAMES, keep_clusters=True, **options)
    for given, more in ((found, {}), (data, {"cluster": CLUSTER, **options})):
        drawn = msem.simulate(msem.sem(SMALL, given, **more), seed=1)
        sizes = drawn.groupby(CLUSTER, sort=False).size()
        assert sorted(sizes) == sorted(data.groupby(CLUSTER).size())
        assert sorted(drawn.groupby("school").size()) == sorted(data.groupby("school").size())


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    summary(made_up(schools=8)).save(path)
    whole = json.loads(path.read_text())
    assert whole["version"] == 3
    whole["content"]["upper"][0] = 99
    path.write_text(json.dumps(whole))
    with pytest.raises(DataError, match="damaged"):
        msem.ClusterStatistics.load(path)
    whole["version"] = 1
    path.write_text(json.dumps(whole))
    with pytest.raises(DataError, match="version"):
        msem.ClusterStatistics.load(path)
