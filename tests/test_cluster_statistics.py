"""Statistics of clusters: merged, saved, disclosed, and fitted in place of the rows they come from."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import msem
from msem.errors import DataError
from test_summarize import assert_same, sample
from texts import COVARIATES

TWO = COVARIATES
ONE = "f =~ y1 + y2 + y3\nf ~ x1"
NAMES = ["y1", "y2", "y3", "x1", "x2", "w1"]


def summary(frame: pd.DataFrame, keep: Any = True, **options: Any) -> msem.ClusterStatistics:
    return msem.summarize(frame, cluster="cluster", variables=NAMES, keep_clusters=keep, **options)


def halves(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Different clusters."""
    first = frame["cluster"] <= 90
    return frame[first], frame[~first]


# -- fits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"estimator": "MLR"}, {"estimator": "MLF"}, {"information": "expected"}, {"se": "robust"}],
    ids=str,
)
def test_fits_are_those_of_the_rows(demo: pd.DataFrame, options: dict[str, Any]) -> None:
    fit = msem.sem(TWO, demo, cluster="cluster", **options)
    mixed = demo.sample(frac=1, random_state=4)
    for statistics in (summary(demo), summary(mixed[:900]) + summary(mixed[900:])):
        other = msem.sem(TWO, statistics, **options)
        assert_allclose(other.estimates()[["est", "se"]], fit.estimates()[["est", "se"]], atol=1e-10)
        assert_allclose(other.fit_measures(), fit.fit_measures(), rtol=1e-9, atol=1e-9)
        assert "Sample given as               statistics of clusters" in other.summary()


def test_what_needs_the_single_clusters_works_with_them(demo: pd.DataFrame) -> None:
    fit, other = msem.sem(TWO, demo, cluster="cluster"), msem.sem(TWO, summary(demo))
    assert_allclose(other.scores(), fit.scores(), atol=1e-9)
    assert list(other.scores().index) == list(fit.scores().index)
    for one, two in (
        (fit.bootstrap(20, seed=3), other.bootstrap(20, seed=3)),
        (fit.jackknife(), other.jackknife()),
    ):
        assert_allclose(
            two.estimates.select_dtypes("number"), one.estimates.select_dtypes("number"), atol=1e-9
        )
    assert_allclose(
        other.influence().to_frame().select_dtypes("number"),
        fit.influence().to_frame().select_dtypes("number"),
        atol=1e-9,
    )


def test_what_needs_more_than_was_kept_says_so(demo: pd.DataFrame) -> None:
    for keep in (False, "means"):
        statistics = summary(demo, keep)
        fit = msem.sem(TWO, statistics)
        robust = partial(msem.sem, TWO, statistics, estimator="MLR")
        for use in (fit.bootstrap, fit.scores, robust):
            with pytest.raises(DataError, match="keep_clusters=True"):
                use()
    fit = msem.sem(TWO, summary(demo))
    with pytest.raises(DataError, match="newdata="):
        fit.factor_scores()
    with pytest.raises(DataError, match='missing="fiml" is for raw data'):
        msem.sem(TWO, summary(demo), missing="fiml")
    with pytest.raises(DataError, match="leave it out"):
        msem.sem(TWO, summary(demo), cluster="cluster")


def test_one_level_is_robust_to_clusters_unless_told_otherwise(demo: pd.DataFrame) -> None:
    fit = msem.sem(ONE, demo, cluster="cluster")
    other = msem.sem(ONE, summary(demo))
    assert_allclose(other.estimates()[["est", "se"]], fit.estimates()[["est", "se"]], atol=1e-10)
    assert other.fit_measures()["chisq_scaled"] == pytest.approx(fit.fit_measures()["chisq_scaled"])
    with pytest.raises(DataError, match=r'were not kept.*se="standard"'):
        msem.sem(ONE, summary(demo, False))
    naive = msem.sem(
        ONE, summary(demo, False), meanstructure=False, se="standard", test="standard", information="expected"
    )
    assert_allclose(naive.estimates()["se"], msem.sem(ONE, demo).estimates()["se"], rtol=1e-9)


def test_segregated_and_saturated_fits_are_those_of_the_rows(demo: pd.DataFrame) -> None:
    frame = demo[[*NAMES, "cluster"]]
    one, two = msem.saturated(frame, cluster="cluster"), msem.saturated(summary(demo))
    assert one.moment_names == two.moment_names  # w1 is at the between level only
    assert_allclose(two.vector, one.vector, atol=1e-10)
    for gamma in ("expected", "robust"):
        one, two = (
            msem.saturated(frame, cluster="cluster", gamma=gamma), msem.saturated(summary(demo), gamma=gamma)
        )  # fmt: skip
        assert_allclose(two.acov, one.acov, atol=1e-10)
    a, b = msem.segregated(TWO, frame, cluster="cluster"), msem.segregated(TWO, summary(demo, False))
    columns = ["est", "se", "se_naive"]
    assert_allclose(b.estimates()[columns], a.estimates()[columns], atol=1e-9)


def test_groups_are_given_as_a_dict(demo: pd.DataFrame) -> None:
    parts = dict(zip(("a", "b"), halves(demo), strict=True))
    frame = pd.concat([part.assign(g=name) for name, part in parts.items()])
    fit = msem.sem(TWO, frame, cluster="cluster", group="g", group_equal=["loadings"])
    other = msem.sem(TWO, {name: summary(part) for name, part in parts.items()}, group_equal=["loadings"])
    assert_allclose(other.estimates()["se"], fit.estimates()["se"], atol=1e-9)


def test_many_fits_take_them(demo: pd.DataFrame) -> None:
    given = [summary(demo), *map(summary, halves(demo))]
    found = msem.compile(TWO).fit_many(given, progress=False)
    assert_allclose(found.fits["chisq"], [msem.sem(TWO, one).chisq for one in given], rtol=1e-8)
    single = msem.compile(ONE, cluster="cluster").fit_many(given[:1], progress=False)
    robust = msem.sem(ONE, given[0]).estimates()["se"]
    assert_allclose(single.estimates["se"], robust[robust > 0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TWO.replace("w1", "x1").replace("x1 + ", ""), "'x1' is in the level-2 block only, but varies within 200"),
        (TWO.replace("x1", "w1"), "'w1' is in the level-1 block, but does not vary within clusters"),
        (TWO.replace("x1", "x7"), "the statistics have no column 'x7': the columns are 'y1', "),
    ],
)  # fmt: skip
def test_variables_at_the_wrong_level_are_named(demo: pd.DataFrame, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        msem.sem(text, summary(demo))


# -- merging ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [False, "means", True])
def test_statistics_of_different_clusters_add_up(demo: pd.DataFrame, keep: Any) -> None:
    one, two = (summary(part, keep) for part in halves(demo))
    assert_same(one + two, summary(demo, keep))
    assert_same(sum([two, one]), summary(demo, keep))  # type: ignore[arg-type]
    other = msem.summarize(halves(demo)[1], cluster="cluster", variables=NAMES[::-1], keep_clusters=keep)
    assert_same(one + other, summary(demo, keep))


@pytest.mark.parametrize("keep", ["means", True])
def test_parts_of_a_cluster_are_put_together_if_clusters_are_kept(demo: pd.DataFrame, keep: Any) -> None:
    parts = [summary(demo[k::3], keep) for k in range(3)]
    whole = parts[0] + (parts[1] + parts[2])
    assert_same(whole, summary(demo))
    assert whole.varying == ("y1", "y2", "y3", "x1", "x2")
    with pytest.raises(DataError, match=r"occur on both sides of the sum: .*keep_clusters=True"):
        summary(demo[::2], False) + summary(demo[1::2], keep)


def test_what_was_left_out_adds_up(demo: pd.DataFrame) -> None:
    holes = demo.copy()
    holes.loc[holes.index[[3, 2000]], "y1"] = np.nan
    one, two = map(summary, halves(holes))
    whole = one + two
    assert (whole.nrows, whole.dropped, whole.dropped_rows) == (2500, {"y1": 2}, 2)


def renamed(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.rename(columns={"cluster": "school"})


MISTAKES: dict[str, tuple[Callable[[pd.DataFrame], Any], str]] = {
    "variables": (
        lambda d: summary(d[:1000]) + msem.summarize(d[1000:], cluster="cluster", variables=NAMES[:4]),
        "only the first have 'w1', 'x2', only the second none",
    ),
    "column": (
        lambda d: summary(d[:1000]) + msem.summarize(renamed(d[1000:]), cluster="school", variables=NAMES),
        "by cluster column 'cluster' and by 'school'",
    ),
    "twice": (lambda d: summary(d) + summary(d), "same statistics would be counted twice"),
    "twice, later": (
        lambda d: (summary(d[:900], "means") + summary(d[900:], "means")) + summary(d[:900], "means"),
        "counted twice: 1 of the summaries",
    ),
    "types": (
        lambda d: summary(d[:1000]) + summary(d[1000:].astype({"cluster": str})),
        "are numbers on one side and text on the other",
    ),
    "types, not kept": (
        lambda d: summary(d[:1000], False) + summary(d[1000:].astype({"cluster": str}), False),
        "are numbers on one side and text on the other",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_sums_that_make_no_sense_are_refused(demo: pd.DataFrame, case: str) -> None:
    add, message = MISTAKES[case]
    with pytest.raises(DataError, match=message):
        add(demo)
    with pytest.raises(TypeError):
        summary(demo) + 1


# -- files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["json", "parquet"])
@pytest.mark.parametrize("keep", [False, "means", True])
@pytest.mark.parametrize("ids", [int, str])
def test_files_hold_statistics_to_the_last_bit(
    demo: pd.DataFrame, suffix: str, keep: Any, ids: type, tmp_path: Path
) -> None:
    given = summary(demo.astype({"cluster": ids}), keep)
    given.save(tmp_path / f"a.{suffix}")
    found = msem.ClusterStatistics.load(tmp_path / f"a.{suffix}")
    for name in ("variables", "cluster", "nobs", "nclusters", "nrows", "dropped", "origins", "varying"):
        assert getattr(found, name) == getattr(given, name)
    for name in ("sizes", "counts", "means", "scatter", "ssw", "origin"):
        np.testing.assert_array_equal(getattr(found, name), getattr(given, name))
    if keep:
        assert found.sums is not None
        assert given.sums is not None
        assert list(found.sums.ids) == list(given.sums.ids)
        np.testing.assert_array_equal(found.sums.means, given.sums.means)
        assert (found.sums.within is None) == (given.sums.within is None)
    else:
        assert found.ids is None  # ids are not disclosed
    assert [path.name for path in tmp_path.iterdir()] == [f"a.{suffix}"]
    with pytest.raises(DataError, match="counted twice"):
        found + given
    assert_same(pickle.loads(pickle.dumps(given)), given)


def written(suffix: str, keep: Any, folder: Path) -> bytes:
    path = folder / f"whole.{suffix}"
    msem.summarize(sample(), cluster="g", keep_clusters=keep).save(path)
    return path.read_bytes()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_files_are_refused_or_whole(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damaged", numbered=True)
    suffix = data.draw(st.sampled_from(["json", "parquet"]))
    content = bytearray(written(suffix, data.draw(st.sampled_from([False, True])), folder))
    at = data.draw(st.integers(0, len(content) - 1))
    how = data.draw(st.sampled_from(["cut", "flip", "drop", "insert"]))
    if how == "cut":
        del content[at:]
    elif how == "flip":
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    elif how == "drop":
        del content[at]
    else:
        content.insert(at, data.draw(st.integers(0, 255)))
    damaged = folder / f"damaged.{suffix}"
    damaged.write_bytes(content)
    try:
        found = msem.ClusterStatistics.load(damaged)
    except DataError as error:
        assert re.search("damaged|not a file of cluster statistics|version", str(error))  # noqa: PT017
    else:  # a change of white space in JSON
        assert_same(found, msem.summarize(sample(), cluster="g"), 0.0)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200))
def test_other_files_are_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("other") / "other.json"
    for start in (b"", b"PAR1"):
        path.write_bytes(start + content)
        with pytest.raises(DataError, match="not a file of cluster statistics"):
            msem.ClusterStatistics.load(path)


def test_files_of_later_versions_are_refused(tmp_path: Path) -> None:
    for suffix in ("json", "parquet"):
        path = tmp_path / f"a.{suffix}"
        content = written(suffix, False, tmp_path)
        assert content.count(b'"version": 1') == 1
        path.write_bytes(content.replace(b'"version": 1', b'"version": 2'))
        with pytest.raises(
            DataError, match="version 2 of the format.*update msem" if suffix == "json" else "damaged"
        ):
            msem.ClusterStatistics.load(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("nobs", 30.0), ("ssw", [-1.0] * 6), ("means", [[0.0]]), ("variables", ["y1", "y1", "w"]), ("sizes", None),
     ("rows", "clusters"), ("origin", [0.0]), ("counts", [1.0, -1.0, 1.0, 1.0])],
)  # fmt: skip
def test_contents_that_contradict_each_other_are_refused(name: str, value: Any, tmp_path: Path) -> None:
    from msem.data.storage import digest

    path = tmp_path / "a.json"
    whole = json.loads(written("json", False, tmp_path))
    whole["content"][name] = value
    whole["sha256"] = digest(whole["content"])
    path.write_text(json.dumps(whole))
    with pytest.raises(DataError):
        msem.ClusterStatistics.load(path)


def test_files_of_another_kind_or_with_odd_ids_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\.json or \.parquet"):
        msem.summarize(sample(), cluster="g").save(tmp_path / "a.pickle")
    frame = sample()
    dates = frame.assign(g=[pd.Timestamp(2020, 1, 9) + pd.Timedelta(k, "D") for k in frame["g"]])
    with pytest.raises(DataError, match="are times, which a file cannot hold"):
        msem.summarize(dates, cluster="g", keep_clusters=True).save(tmp_path / "a.json")
    assert not list(tmp_path.iterdir())


# -- disclosure ------------------------------------------------------------------------------------------------


def test_disclosure_tells_what_can_be_read_off(tmp_path: Path) -> None:
    frame = sample(sizes=(1, 2, 2, 5, 5, 5, 9))
    found = msem.summarize(frame, cluster="g").disclosure()
    assert found.to_dict() == {
        "nclusters": 7, "nobs": 29, "smallest_cell": 1, "cells_of_one": 2, "cells_of_two": 1, "exact_clusters": 2,
        "exact_units": 1, "smallest_cluster": 1, "cluster_ids": False, "cluster_means": False,
        "cluster_products": False,
    }  # fmt: skip
    kept = msem.summarize(frame, cluster="g", keep_clusters=True)
    assert kept.disclosure()[["exact_clusters", "cluster_ids", "cluster_products"]].tolist() == [
        7,
        True,
        True,
    ]
    with pytest.raises(DataError, match=r"sizes with 1 cluster"):
        msem.summarize(frame, cluster="g").save(tmp_path / "a.json", smallest_cell=2)
    with pytest.raises(DataError, match="every single cluster"):
        kept.save(tmp_path / "a.json", smallest_cell=1)
    balanced = msem.summarize(sample(sizes=(3,) * 6), cluster="g")
    balanced.save(tmp_path / "a.json", smallest_cell=6)
    # the file of a custodian holds no number that belongs to one cluster or unit
    text = (tmp_path / "a.json").read_text()
    values = sample(sizes=(3,) * 6)
    numbers = [*values["y1"], *values.groupby("g")["y1"].mean(), *values["w"]]
    assert not any(repr(float(number)) in text for number in numbers)
