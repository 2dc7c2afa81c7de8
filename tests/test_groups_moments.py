"""Several groups from moments: saturated level-specific moments, statistics, or covariance matrices by label."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import msem
import texts
from msem.errors import DataError, ModelError

DEMO = msem.load_demo()
DEMO = DEMO.assign(half=np.where(DEMO["cluster"] // 2 % 2 == 1, "south", "north"))
MODEL = texts.COVARIATE
CFA = "f =~ y1 + y2 + y3 + y4"
NAMES = ["y1", "y2", "y3", "y4"]
PARTS = {str(name): part for name, part in DEMO.groupby("half")}
SCALAR = ["loadings", "intercepts"]
RAW = msem.sem(MODEL, DEMO, cluster="cluster", group="half", group_equal=SCALAR)
SATURATED = {name: group.saturated for name, group in RAW.groups.items()}
COV = {name: part[NAMES].cov() for name, part in PARTS.items()}
MEAN = {name: part[NAMES].mean() for name, part in PARTS.items()}
NOBS = {name: len(part) for name, part in PARTS.items()}


def test_statistics_of_each_group_give_the_fit_of_the_data() -> None:
    statistics = {name: group.statistics for name, group in RAW.groups.items()}
    fit = msem.sem(MODEL, statistics, group_equal=SCALAR)
    assert fit.group_labels == ("north", "south")
    np.testing.assert_allclose(fit.params, RAW.params, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(fit.bse, RAW.bse, rtol=1e-8)
    assert fit.chisq == pytest.approx(RAW.chisq, abs=1e-8)


def test_saturated_moments_of_each_group() -> None:
    fit = msem.sem(MODEL, SATURATED, group_equal=SCALAR)
    assert fit.options.information == "expected"
    assert fit.origin.given_as == "moments with cluster sizes"
    assert fit.df == RAW.df
    expected = {name: moments.expected_statistics for name, moments in SATURATED.items()}
    implied = msem.sem(MODEL, expected, group_equal=SCALAR, information="expected")
    np.testing.assert_allclose(fit.params, implied.params, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(fit.bse, implied.bse, rtol=1e-8)


def test_moments_that_share_nothing_are_fits_of_each() -> None:
    fit = msem.sem(MODEL, SATURATED)
    alone = [msem.sem(MODEL, moments) for moments in SATURATED.values()]
    assert fit.llf == pytest.approx(sum(one.llf for one in alone), abs=1e-7)
    np.testing.assert_allclose(
        fit.params, np.concatenate([one.params for one in alone]), rtol=1e-6, atol=1e-8
    )


def test_covariance_matrices_give_the_fit_of_the_data() -> None:
    raw = msem.cfa(CFA, DEMO, group="half", group_equal=SCALAR)
    fit = msem.cfa(CFA, sample_cov=COV, sample_mean=MEAN, sample_nobs=NOBS, group_equal=SCALAR)
    np.testing.assert_allclose(fit.params, raw.params, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(fit.bse, raw.bse, rtol=1e-8)
    assert fit.chisq == pytest.approx(raw.chisq, abs=1e-8)


def test_covariance_matrices_without_means() -> None:
    raw = msem.cfa(CFA, DEMO, group="half", group_equal=["loadings"], meanstructure=False)
    given: dict[str, Any] = {"sample_cov": COV, "sample_nobs": NOBS, "group_equal": ["loadings"]}
    fit = msem.cfa(CFA, **given, meanstructure=False)
    np.testing.assert_allclose(fit.params, raw.params, rtol=1e-8)
    with pytest.raises(DataError, match=r"group 'north': .*give sample_mean=.*unless meanstructure=False"):
        msem.cfa(CFA, **given)


def test_headers_decide_the_order() -> None:
    text = "\n".join(f"group: {name}\n{CFA}" for name in ("south", "north"))
    assert msem.cfa(text, sample_cov=COV, sample_mean=MEAN, sample_nobs=NOBS).group_labels == (
        "south",
        "north",
    )


def test_labels_of_any_type() -> None:
    fit = msem.cfa(
        CFA, sample_cov={1: COV["north"], 2.0: COV["south"]}, sample_nobs={1: 90, 2: 80}, meanstructure=False
    )
    assert fit.group_labels == ("1", "2")
    assert [group.nobs for group in fit.groups.values()] == [90, 80]


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "other sizes": (
        {"sample_cov": COV, "sample_mean": MEAN, "sample_nobs": {"north": 10, "east": 10}},
        DataError,
        "sample_cov is given for the groups 'north', 'south': give sample_nobs for the same groups, as a dict",
    ),
    "one size": (
        {"sample_cov": COV, "sample_mean": MEAN, "sample_nobs": 100},
        DataError,
        "give sample_nobs for the same",
    ),
    "one mean": (
        {"sample_cov": COV, "sample_mean": MEAN["north"], "sample_nobs": NOBS},
        DataError,
        "give sample_mean for the same groups",
    ),
    "no matrix": (
        {"sample_cov": COV | {"south": 1.0}, "sample_mean": MEAN, "sample_nobs": NOBS},
        DataError,
        "sample_cov of group 'south' is a float",
    ),
    "a variable is missing": (
        {"sample_cov": COV | {"south": COV["south"].iloc[:3, :3]}, "sample_mean": MEAN, "sample_nobs": NOBS},
        DataError,
        "group 'south': .*'y4'",
    ),
    "a column": (
        {"sample_cov": COV, "sample_mean": MEAN, "sample_nobs": NOBS, "group": "half"},
        DataError,
        "group='half' names a column of raw data; give moments of several groups as a dict",
    ),
    "another header": (
        {"model": f"group: east\n{CFA}", "sample_cov": COV, "sample_mean": MEAN, "sample_nobs": NOBS},
        ModelError,
        "'group: east' is not a group",
    ),
}


@pytest.mark.parametrize(("options", "kind", "message"), BAD.values(), ids=BAD)
def test_bad_input(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=f"(?s){message}"):
        msem.cfa(**({"model": CFA} | options))


def test_bad_level_specific_moments() -> None:
    with pytest.raises(DataError, match="moments by group have labels: leave it out"):
        msem.sem(MODEL, SATURATED, group="half")
    with pytest.raises(DataError, match="data of group 'south' is a dict; all groups need moments"):
        msem.sem(MODEL, SATURATED | {"south": {}})
    with pytest.raises(DataError, match="group 'north': cluster='cluster' is for raw data"):
        msem.sem(MODEL, SATURATED, cluster="cluster")
    with pytest.raises(DataError, match="needs raw data"):
        msem.sem(MODEL, SATURATED, information="first_order")


def test_one_group_in_a_dict_is_refused() -> None:
    with pytest.raises(DataError, match="one group only"):
        msem.sem(MODEL, {"north": SATURATED["north"]})


def test_mappings_of_columns_are_still_data() -> None:
    columns = {name: DEMO[name].to_numpy() for name in [*NAMES, "half"]}
    pd.testing.assert_series_equal(
        msem.cfa(CFA, columns, group="half").params, msem.cfa(CFA, DEMO, group="half").params
    )
