"""References to Student's t, and what is said of few clusters."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats

import msem
from msem.errors import SmallSampleWarning
from msem.output.tables import estimates_frame

MODEL = """
level: 1
  fw =~ y1 + a*y2 + y3
  fw ~ x1 + x2
level: 2
  fb =~ y1 + a*y2 + y3
  fb ~ w1 + w2
"""


def fit(model: str = MODEL, clusters: int = 200, **options: object) -> msem.Fit:
    data = msem.load_demo()
    chosen = data["cluster"].unique()[:: 200 // clusters][:clusters]  # of all sizes
    data = data[data["cluster"].isin(chosen)]
    return msem.sem(model, data, cluster="cluster", **options)


def test_degrees_of_freedom_follow_level_and_equation() -> None:
    df = fit().reference_df
    N, J = 2500, 200
    assert df["fw~x1"] == N - J - 2
    assert df["fw=~y3"] == N - J - 1  # an indicator has one predictor, the factor
    assert df["y1~~y1"] == N - J - 1
    assert df["fw~~fw"] == N - J - 2
    assert df["fb~w1.l2"] == df["fb~~fb.l2"] == J - 3
    assert df["fb=~y3.l2"] == df["y1~1.l2"] == J - 2
    assert df["a"] == J - 2  # of both levels, the smaller


def test_a_covariance_belongs_to_the_equation_with_more_predictors() -> None:
    df = fit("level: 1\n y1 ~ x1\n y2 ~ x1 + x2 + x3\n y1 ~~ y2\nlevel: 2\n y1 ~~ y2").reference_df
    assert df["y1~~y2"] == 2500 - 200 - 3
    assert df["y1~~y2.l2"] == 199


def test_one_level_and_groups() -> None:
    data = msem.load_demo()
    assert msem.sem("y1 ~ x1 + x2", data).reference_df["y1~x1"] == 2500 - 3
    data["g"] = np.where(data["cluster"] <= 80, "a", "b")
    parts = data.groupby("g")["cluster"].nunique()
    df = msem.sem(
        MODEL.replace("a*", ""), data, cluster="cluster", group="g", group_equal=["loadings"]
    ).reference_df
    assert df["fb~w1.l2"] == parts["a"] - 3
    assert df["fb~w1.g2.l2"] == parts["b"] - 3
    shared = [name for name in df.index if "fb=~y3" in name or df[name] == parts.sum() - 4]
    assert parts.sum() - 4 in df[shared].tolist()  # of both groups


def test_errors_from_the_spread_of_clusters_have_no_more_than_these() -> None:
    plain, robust = fit(), fit(estimator="MLR")
    assert robust.reference_df["fw~x1"] == 199
    assert robust.reference_df["fb~w1.l2"] == plain.reference_df["fb~w1.l2"] == 197
    data = msem.load_demo()
    assert (msem.sem("y1 ~ x1 + x2", data, cluster="cluster").reference_df == 199).all()
    assert (
        msem.sem("y1 ~ x1 + x2", data, se="bootstrap", bootstrap=20, seed=1).reference_df["y1~x1"] == 2500 - 3
    )


def test_intervals_and_tests_are_those_of_student() -> None:
    found = fit(clusters=100)
    t, z = found.conf_int(reference="t", ci_level=0.9), found.conf_int(ci_level=0.9)
    ratio = stats.t.ppf(0.95, found.reference_df) / stats.norm.ppf(0.95)
    assert_allclose(np.diff(t)[:, 0], np.diff(z)[:, 0] * ratio)
    table = found.estimates(reference="t", ci_level=0.9)
    assert "z" not in table.columns
    row = table[(table["op"] == "~") & (table["rhs"] == "w1")].iloc[0]
    assert row["t"] == pytest.approx(found.tvalues["fb~w1.l2"])
    assert row["df"] == 97
    assert row["pvalue"] == pytest.approx(2 * stats.t.sf(abs(row["t"]), 97))
    assert row["ci_lower"] == pytest.approx(t.loc["fb~w1.l2", "ci_lower"])
    fixed = table[table["rhs"] == "y1"].iloc[0]
    assert (fixed["ci_lower"], fixed["ci_upper"]) == (1.0, 1.0)
    assert pd.isna(fixed["df"])


def test_summary_shows_degrees_of_freedom() -> None:
    text = fit().summary(reference="t")
    assert "Estimate  Std.Err  t-value       df  P(>|t|)" in text
    line = next(line for line in text.splitlines() if line.strip().startswith("w1"))
    assert line.split()[4] == "197"
    assert "z-value" in fit().summary()


def test_without_degrees_of_freedom_there_is_no_interval() -> None:
    row = fit().table.rows[1]
    frame = estimates_frame([row], np.array([1.0]), np.array([0.5]), df=np.array([0.0]))
    assert frame[["pvalue", "ci_lower", "ci_upper"]].isna().all(axis=None)
    assert estimates_frame([row], np.ones(1), np.ones(1), df=np.array([7.5]))["df"].tolist() == [7.5]


def test_unknown_references_are_refused() -> None:
    for method in (fit().conf_int, fit().estimates, fit().summary):
        with pytest.raises(ValueError, match="reference must be one of 'normal', 't'"):
            method(reference="f")


def test_fewer_clusters_than_parameters_are_told_without_a_change_of_status() -> None:
    model, data = "level: 1\n y1 ~~ y2\nlevel: 2\n y1 ~~ y2", msem.load_demo()
    ids = data["cluster"].unique()
    with pytest.warns(SmallSampleWarning, match="4 clusters for 5 between-level parameters"):
        found = msem.sem(model, data[data["cluster"].isin(ids[183:187])], cluster="cluster")
    assert [p.name for p in found.problems] == ["few_clusters"]
    assert found.status == "ok"
    assert "few_clusters" in found.summary()
    enough = msem.sem(model, data[data["cluster"].isin(ids[183:188])], cluster="cluster")
    assert "few_clusters" not in [p.name for p in enough.problems]
