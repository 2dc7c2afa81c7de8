"""What a segregated fit shows."""

from __future__ import annotations

import pytest

import msem
import texts

MODEL = texts.DEMO
METHODS = ["likelihood", "ml", "uls"]


@pytest.fixture(scope="module")
def demo() -> msem.LevelMoments:
    return msem.sem(MODEL, msem.load_demo(), cluster="cluster").saturated


def test_tables(demo: msem.LevelMoments) -> None:
    fit = msem.segregated(MODEL, demo, method="ml")
    table = fit.estimates(ci_level=0.9)
    assert list(table.columns[-1:]) == ["se_naive"]
    assert table["level"].unique().tolist() == [1, 2]
    row = table[(table["lhs"] == "fb") & (table["rhs"] == "w1")].iloc[0]
    assert (row["ci_upper"] - row["est"]) / row["se"] == pytest.approx(1.6448536, abs=1e-6)
    assert fit.params["fb~w1.l2"] == row["est"]
    assert fit.bse["fb~w1.l2"] == row["se"]
    assert fit.between.cov_params().loc["fb~w1.l2", "fb~w1.l2"] == pytest.approx(row["se"] ** 2)
    assert fit.tests().index.names == ["level", "test"]
    assert repr(fit) == "<msem.SegregatedFit: method 'ml', status 'ok'>"


@pytest.mark.parametrize("method", METHODS)
def test_the_summary_says_what_was_known(demo: msem.LevelMoments, method: str) -> None:
    only = msem.LevelMoments(demo.within.cov, demo.between.cov, demo.between.mean, nobs=2500, nclusters=200)
    assert "N and J only" in str(msem.segregated(MODEL, only, method=method))
    text = str(msem.segregated(MODEL, demo, method=method))
    assert "moments with cluster sizes" in text
    assert "Naive.SE" in text
    assert "Model Test, Level 2 [between]" in text


def test_the_notebook_shows_the_same_tables(demo: msem.LevelMoments) -> None:
    html = msem.segregated(MODEL, demo)._repr_html_()
    assert "<table" in html
    assert "Naive.SE" in html


@pytest.mark.parametrize("method", METHODS)
def test_both_levels_have_all_rows_of_the_model(demo: msem.LevelMoments, method: str) -> None:
    fit = msem.segregated(MODEL, demo, method=method)
    key = ["level", "lhs", "op", "rhs"]
    whole = msem.sem(MODEL, demo).estimates().set_index(key)
    ours = fit.estimates().set_index(key)
    missing = whole.index.difference(ours.index)
    # least squares and the normal discrepancy fit no means within
    within_means = {(1, name, "~1", "") for name in ("fw", "y1", "y2", "y3", "x1", "x2", "x3")}
    assert set(missing) == (set() if method == "likelihood" else within_means)
    assert not len(ours.index.difference(whole.index))
