"""Fits side by side."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import msem
from msem.errors import ModelError

WITHIN = "fw =~ y1 + y2 + y3\nfw ~ x1"
BETWEEN = "fb =~ y1 + y2 + y3\nfb ~ w1"
MODEL = f"level: 1\n{WITHIN}\nlevel: 2\n{BETWEEN}"


@pytest.fixture(scope="module")
def fit() -> msem.Fit:
    return msem.sem(MODEL, msem.load_demo(), cluster="cluster")


@pytest.fixture(scope="module")
def levels(fit: msem.Fit) -> msem.SegregatedFit:
    return msem.segregated(MODEL, fit.saturated, method="ml")


@pytest.fixture(scope="module")
def separate(fit: msem.Fit) -> tuple[msem.Fit, msem.Fit]:
    """The two levels as ordinary single-level fits."""
    options = {"sample_cov_rescale": False, "meanstructure": True}
    h1 = fit.saturated
    within = msem.sem(
        WITHIN, sample_cov=h1.within.cov, sample_mean=h1.within.mean, sample_nobs=2300, **options
    )
    between = msem.sem(
        BETWEEN, sample_cov=h1.between.cov, sample_mean=h1.between.mean, sample_nobs=200, **options
    )
    return within, between


def test_all_kinds_of_fits_side_by_side(
    fit: msem.Fit, levels: msem.SegregatedFit, separate: tuple[msem.Fit, msem.Fit]
) -> None:
    given = {
        "separate": separate,
        "naive": levels.naive,
        "segregated": levels,
        "between only": levels.between,
        "simultaneous": fit,
        "table": fit.estimates(),
    }
    table = msem.compare(given)
    assert list(table.columns) == [(name, column) for name in given for column in ("est", "se")]
    assert table.index.names == ["level", "lhs", "op", "rhs"]
    pd.testing.assert_frame_equal(table["table"], table["simultaneous"])
    loading = table.loc[2, "fb", "=~", "y2"]
    own = fit.estimates().set_index(["level", "lhs", "op", "rhs"]).loc[2, "fb", "=~", "y2"]
    assert loading["simultaneous", "est"] == own["est"]
    assert loading["simultaneous", "se"] == own["se"]
    assert loading["between only", "se"] == loading["segregated", "se"] > 1.2 * loading["naive", "se"]
    assert np.isnan(table.loc[(1, "fw", "=~", "y2"), ("between only", "est")])


def test_a_pair_of_single_level_fits_gives_the_naive_standard_errors(
    levels: msem.SegregatedFit, separate: tuple[msem.Fit, msem.Fit]
) -> None:
    table = msem.compare({"pair": separate, "naive": levels.naive}, ops=["=~", "~"])
    assert len(table) == 8
    np.testing.assert_allclose(table["pair"], table["naive"], rtol=1e-6)


def test_chosen_rows_and_columns(fit: msem.Fit, levels: msem.SegregatedFit) -> None:
    table = msem.compare({"a": fit, "b": levels}, columns=["est", "se_naive"], ops={"~"})
    assert set(table.index.get_level_values("op")) == {"~"}
    assert table["a", "se_naive"].isna().all()
    assert (table["b", "se_naive"] > 0).all()


def test_one_operator_or_column_may_be_a_string(fit: msem.Fit) -> None:
    table = msem.compare({"a": fit}, columns="est", ops="=~")
    assert set(table.index.get_level_values("op")) == {"=~"}
    assert list(table.columns) == [("a", "est")]


def test_covariances_written_in_either_order_are_one_row() -> None:
    one = pd.DataFrame({"lhs": ["y1", "y1"], "op": ["~~", "~"], "rhs": ["y2", "y2"], "est": [0.5, 1.0]})
    other = pd.DataFrame({"lhs": ["y2", "y2"], "op": ["~~", "~"], "rhs": ["y1", "y1"], "est": [0.6, 2.0]})
    table = msem.compare({"one": one, "other": other}, columns="est")
    assert table.loc[1, "y1", "~~", "y2"].tolist() == [0.5, 0.6]
    assert len(table) == 3  # regressions have a direction
    assert table.loc[1, "y2", "~", "y1"].tolist()[1] == 2.0


@pytest.mark.parametrize(
    ("fits", "message"),
    [
        ({}, "one fit or more"),
        ([1], "'model_1' is a int"),
        ({"mine": 3}, "'mine' is a int"),
        ({"mine": (1, 2)}, "pair"),
        ({"mine": pd.DataFrame({"est": [1.0]})}, "'mine' has no column lhs, op, rhs"),
        ({"m": pd.DataFrame({"lhs": ["a"] * 2, "op": "~", "rhs": "b", "est": 1.0})}, "a ~ b twice"),
    ],
)
def test_what_is_no_fit_is_refused(fits: object, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        msem.compare(fits, columns="est")  # type: ignore[arg-type]


def test_a_pair_of_two_level_fits_is_refused(fit: msem.Fit) -> None:
    with pytest.raises(ModelError, match="single-level fits"):
        msem.compare({"pair": (fit, fit)})


def test_unknown_columns_are_refused(fit: msem.Fit) -> None:
    with pytest.raises(ModelError, match=r"no fit has a column 'std\.err'; they have lhs, op"):
        msem.compare({"a": fit}, columns=["est", "std.err"])
