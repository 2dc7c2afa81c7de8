"""`sem`, `cfa`, `growth` and what a fit offers; lavaan's results for the demonstration data."""

from __future__ import annotations

import copy
import json
import pickle
import warnings
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy.stats import norm

import msem
from msem.errors import DataError, IdentificationWarning
from oracle import frame, simulate

STORED = json.loads((Path(__file__).parent / "data" / "lavaan_demo.json").read_text(encoding="utf-8"))[
    "cases"
]
MODEL = STORED["two_level"]["model"]
EARLY = 2e-4
RENAMED = {"gfi": "gfi_lisrel", "agfi": "agfi_lisrel"}
GROWTH_LINES = "i{0} =~ 1*y1 + 1*y2 + 1*y3 + 1*y4\ns{0} =~ 0*y1 + 1*y2 + 2*y3 + 3*y4\n"
GROWTH = "level: 1\n" + GROWTH_LINES.format("w") + "level: 2\n" + GROWTH_LINES.format("b")
BALANCED = "level: 1\nfw =~ y1 + y2 + y3\nlevel: 2\nfb =~ y1 + y2 + y3\nfb ~ z"


@pytest.fixture(scope="module")
def fit(demo: pd.DataFrame) -> msem.Fit:
    return msem.sem(MODEL, demo, cluster="cluster")


@pytest.fixture(scope="module")
def balanced() -> pd.DataFrame:
    """80 clusters of 12 units."""
    loadings = np.array([[1.0], [0.8], [0.6]])
    between = np.zeros((4, 4))
    between[:3, :3] = 0.5 * loadings @ loadings.T + 0.1 * np.eye(3)
    between[:3, 3] = between[3, :3] = 0.3 * loadings[:, 0]
    between[3, 3] = 1.0
    within = loadings @ loadings.T + np.diag([0.9, 1.1, 0.7])
    y, z, cluster = simulate(np.random.default_rng(8), within, between, np.full(80, 12), nboth=3)
    return frame(y, z, cluster, ["y1", "y2", "y3"], ["z"])


def lavaan_case(case: str, demo: pd.DataFrame, information: str) -> msem.Fit:
    """One of lavaan's fits, made by msem."""
    theirs = STORED[case]
    options = {name.replace(".", "_"): value for name, value in dict(theirs["args"]).items()}
    if theirs["cluster"]:
        options["cluster"] = theirs["cluster"]
    fitted: msem.Fit = getattr(msem, theirs["fun"])(theirs["model"], demo, **options, information=information)
    return fitted


@pytest.mark.parametrize("case", STORED)
def test_fit_of_lavaan(demo: pd.DataFrame, case: str) -> None:
    theirs, ours = STORED[case], lavaan_case(case, demo, "observed")
    assert (ours.status, ours.npar, ours.nobs, ours.df) == (
        "ok",
        *(theirs[k] for k in ("npar", "nobs", "df")),
    )
    found = ours.fit_measures()
    for name in ("logl", "unrestricted_logl", "chisq", "baseline_df"):
        assert found[name] == pytest.approx(theirs[name], abs=1e-6)
    assert (
        -EARLY < found["baseline_chisq"] - theirs["baseline_chisq"] < 1e-6
    )  # their baseline model stops early
    # lavaan 0.6 gives other names to some measures; its EM stops 2e-4 below the saturated maximum.
    measures = {RENAMED.get(name, name.replace(".", "_")): v for name, v in theirs["fit_measures"].items()}
    assert set(measures) <= set(found.index)
    near = 3 * EARLY if theirs["cluster"] else 1e-6
    np.testing.assert_allclose(found[list(measures)], list(measures.values()), rtol=near, atol=near)


@pytest.mark.parametrize("information", ["observed", "expected"])
@pytest.mark.parametrize("case", STORED)
def test_estimates_of_lavaan(demo: pd.DataFrame, case: str, information: str) -> None:
    table = lavaan_case(case, demo, information).estimates().set_index(["lhs", "op", "rhs", "level"])
    assert len(table) == len(STORED[case]["parameters"])
    for row in STORED[case]["parameters"]:
        lhs, rhs = row["lhs"], row["rhs"]
        at = (lhs, row["op"], rhs, row["level"])
        mine = table.loc[at if at in table.index else (rhs, row["op"], lhs, row["level"])]
        assert mine["est"] == pytest.approx(row["est"], rel=1e-6, abs=1e-7)
        if (case, information, row["op"]) != ("two_level_random_x", "expected", "~1"):
            assert mine["se"] == pytest.approx(row.get(f"se_{information}") or 0.0, rel=1e-6, abs=1e-9)


def test_expected_standard_errors_of_means_of_covariates(demo: pd.DataFrame) -> None:
    # lavaan 0.6 has 0.0192 for x1, whose mean over 2500 independent units has the textbook standard error.
    fitted = lavaan_case("two_level_random_x", demo, "expected")
    for name in ("x1", "x2", "x3"):
        assert fitted.bse[f"{name}~1"] == pytest.approx(np.sqrt(demo[name].var(ddof=0) / len(demo)), rel=1e-9)
    for name in ("w1", "w2"):
        values = demo.groupby("cluster")[name].first()
        assert fitted.bse[f"{name}~1.l2"] == pytest.approx(np.sqrt(values.var(ddof=0) / 200), rel=1e-9)


def test_attributes(fit: msem.Fit, demo: pd.DataFrame) -> None:
    names = list(fit.params.index)
    assert len(names) == fit.npar == 20
    assert names[:3] == ["fw=~y2", "fw=~y3", "fw~x1"]
    assert "fb=~y2.l2" in names
    assert (fit.nobs, fit.nclusters, fit.converged, fit.status) == (len(demo), 200, True, "ok")
    assert list(fit.bse.index) == list(fit.cov_params().index) == list(fit.cov_params().columns) == names
    np.testing.assert_allclose(fit.bse**2, np.diag(fit.cov_params()))
    assert fit.aic == pytest.approx(-2 * fit.llf + 2 * 20)
    assert fit.bic == pytest.approx(-2 * fit.llf + 20 * np.log(2500))
    assert list(fit.icc.index) == ["y1", "y2", "y3"]
    assert fit.icc["y1"] == pytest.approx(STORED["two_level"]["icc"]["y1"], abs=EARLY)
    assert fit.statistics.nobs == 2500
    assert list(fit.iterations.columns) == ["value", "decrement", "damping", "step"]
    assert (np.diff(fit.iterations["value"]) < 1e-9).all()
    assert set(fit.implied) == {1, 2}
    assert list(fit.implied.within.cov) == list(fit.saturated.within.cov)
    y = ["y1", "y2", "y3"]  # of which only the sum of both means is identified
    total = fit.implied.within.mean[y] + fit.implied.between.mean[y]
    assert_allclose(total, fit.saturated.between.mean[y], atol=0.005)
    assert list(fit.implied[2].cov) == ["y1", "y2", "y3", "w1", "w2", "fb"]
    assert fit.chisq == fit.fit_measures()["chisq"]


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_confidence_intervals(fit: msem.Fit, level: float) -> None:
    interval = fit.conf_int(ci_level=level)
    half = norm.ppf(0.5 + level / 2) * fit.bse
    np.testing.assert_allclose(interval["ci_lower"], fit.params - half)
    np.testing.assert_allclose(interval["ci_upper"], fit.params + half)


def test_table_of_estimates(fit: msem.Fit) -> None:
    table = fit.estimates()
    expected = [
        "lhs",
        "op",
        "rhs",
        "level",
        "group",
        "label",
        "est",
        "se",
        "z",
        "pvalue",
        "ci_lower",
        "ci_upper",
    ]
    assert list(table.columns) == expected
    assert list(fit.estimates(standardized=True).columns) == [*expected, "std_lv", "std_all", "std_nox"]
    free = table["se"] > 0
    assert free.sum() == fit.npar
    np.testing.assert_allclose(table["z"][free], (table["est"] / table["se"])[free])
    np.testing.assert_allclose(table["pvalue"][free], 2 * norm.sf(table["z"][free].abs()))
    assert table["z"][~free].isna().all()


def test_summaries(fit: msem.Fit) -> None:
    text = fit.summary()
    assert str(fit) == text
    for part in ("Number of clusters [cluster]", "200", "Level 1 [within]:", "Level 2 [between]:"):
        assert part in text
    assert f"{fit.params['fb=~y2.l2']:.3f}" in text
    assert "CFI" not in text
    full = fit.summary(fit_measures=True, standardized=True, rsquare=True, ci=True)
    assert all(part in full for part in ("CFI", "Std.all", "R-Square", "ci.upper"))
    html = fit._repr_html_()
    assert html.startswith('<div class="msem">')
    assert html.count("<table") >= 4
    assert "20 parameters" in repr(fit)


def test_fits_cannot_be_changed(demo: pd.DataFrame) -> None:
    fit = msem.sem(MODEL, demo, cluster="cluster")
    before = fit.params.copy()
    with pytest.raises(FrozenInstanceError):
        fit.options = None
    with pytest.raises(ValueError, match="read-only"):
        fit.estimate.theta[0] = 9.0
    with pytest.raises(ValueError, match="read-only"):
        fit.statistics.ssw[0, 0] = 9.0
    for numbers in (fit.implied[1].cov, fit.saturated.within.cov, fit.cov_params(), fit.estimates()):
        numbers.loc[numbers.index[0], numbers.columns[-1]] = 9.0
    measures = fit.fit_measures()
    measures["chisq"] = 9.0
    params = fit.params
    params.iloc[0] = 9.0
    pd.testing.assert_series_equal(fit.params, before)
    assert fit.implied[1].cov.iloc[0, -1] != 9.0
    assert fit.saturated.within.cov.iloc[0, -1] != 9.0
    assert fit.chisq != 9.0


@pytest.mark.parametrize(
    "clone", [lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy], ids=["pickle", "copy"]
)
def test_fits_can_be_stored(fit: msem.Fit, clone: Any) -> None:
    again = clone(fit)
    assert again.summary(fit_measures=True) == fit.summary(fit_measures=True)
    assert again.objective.value(again.params) == pytest.approx(fit.objective.value(fit.params), abs=1e-9)


def test_no_standard_errors(demo: pd.DataFrame, fit: msem.Fit) -> None:
    bare = msem.sem(MODEL, demo, cluster="cluster", se="none")
    assert bare.status == "ok"
    np.testing.assert_array_equal(bare.params, fit.params)
    assert bare.bse.isna().all()
    assert bare.cov_params().isna().all(axis=None)
    assert "Std.Err" not in bare.summary()


def test_kinds_of_information(demo: pd.DataFrame, fit: msem.Fit) -> None:
    kinds = {
        k: msem.sem(MODEL, demo, cluster="cluster", information=k)
        for k in ("observed", "expected", "first_order")
    }
    pd.testing.assert_series_equal(kinds["observed"].bse, fit.bse)
    for kind in ("expected", "first_order"):
        ratio = kinds[kind].bse / fit.bse
        assert 1e-4 < (ratio - 1).abs().max() < 0.35
    inverse = np.linalg.inv(fit.objective.observed_information(fit.params))
    np.testing.assert_allclose(fit.cov_params(), inverse, rtol=1e-8)
    inverse = np.linalg.inv(fit.objective.expected_information(fit.params))
    np.testing.assert_allclose(kinds["expected"].cov_params(), inverse, rtol=1e-8)


def test_sem_and_cfa_are_the_same(demo: pd.DataFrame, fit: msem.Fit) -> None:
    np.testing.assert_array_equal(msem.cfa(MODEL, demo, cluster="cluster").params, fit.params)


def test_growth_frees_latent_means(demo: pd.DataFrame) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", msem.errors.ImproperSolutionWarning)
        curve, plain = (f(GROWTH, demo, cluster="cluster") for f in (msem.growth, msem.sem))
    free = {name for name in curve.params.index if "~1" in name}
    assert free == {"ib~1.l2", "sb~1.l2"}
    assert {name for name in plain.params.index if "~1" in name} == {f"y{k}~1.l2" for k in (1, 2, 3, 4)}
    means = curve.implied[2].mean
    line = curve.params["ib~1.l2"] + curve.params["sb~1.l2"] * np.arange(4)
    np.testing.assert_allclose(means[["y1", "y2", "y3", "y4"]], line, rtol=1e-10)


def test_listwise_deletion_is_reported(demo: pd.DataFrame) -> None:
    holes = demo.copy()
    holes.loc[10:14, "x1"] = np.nan
    holes.loc[14:15, "y2"] = np.nan
    holes.loc[:9, "y6"] = np.nan  # not in the model
    fit = msem.sem(MODEL, holes, cluster="cluster")
    complete = msem.sem(MODEL, holes.drop(index=range(10, 16)), cluster="cluster")
    assert fit.nobs == 2494
    np.testing.assert_array_equal(fit.params, complete.params)
    text = " ".join(fit.summary().split())
    assert "missing by variable: y2 2, x1 5" in text
    assert "Rows dropped: missing values 6" in text


def test_statistics_instead_of_data(fit: msem.Fit) -> None:
    again = msem.sem(MODEL, fit.statistics)
    np.testing.assert_array_equal(again.params, fit.params)
    np.testing.assert_array_equal(again.bse, fit.bse)
    smaller = "level: 1\nfw =~ y3 + y1 + y2\nlevel: 2\nfb =~ y1 + y2 + y3\nfb ~ w2"
    part = msem.sem(smaller, fit.statistics)
    assert part.status == "ok"
    direct = msem.sem(smaller, msem.load_demo(), cluster="cluster")
    np.testing.assert_allclose(part.params, direct.params, rtol=1e-9)


def test_first_order_information_needs_data(fit: msem.Fit) -> None:
    with pytest.raises(DataError, match="this needs raw data"):
        msem.sem(MODEL, fit.statistics, information="first_order")


def test_balanced_data_and_their_matrices_give_the_same_fit(balanced: pd.DataFrame) -> None:
    raw = msem.sem(BALANCED, balanced, cluster="cluster", information="expected")
    h1 = raw.saturated
    typed = msem.LevelMoments(
        within_cov=h1.within.cov,
        between_cov=h1.between.cov,
        between_mean=h1.between.mean,
        nobs=960,
        nclusters=80,
    )
    for moments in (h1, typed):
        joint = msem.sem(BALANCED, moments, information="expected")
        assert joint.status == raw.status == "ok"
        np.testing.assert_allclose(joint.params, raw.params, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(joint.bse, raw.bse, rtol=1e-8)
        assert joint.llf == pytest.approx(raw.llf, abs=1e-8)
        assert joint.chisq == pytest.approx(raw.chisq, abs=1e-8)


def test_summary_tells_what_the_sample_was_given_as(fit: msem.Fit) -> None:
    h1 = fit.saturated
    typed = msem.LevelMoments(h1.within.cov, h1.between.cov, nobs=2500, nclusters=200)
    assert "moments with cluster sizes" in msem.sem(MODEL, h1).summary()
    assert "moments with N and J only" in msem.sem(MODEL, typed).summary()
    assert "raw data" in fit.summary()


def test_single_level_fits(demo: pd.DataFrame) -> None:
    text = "f =~ y1 + y2 + y3 + y4"
    raw = msem.cfa(text, demo)
    assert raw.nclusters is None
    with pytest.raises(AttributeError, match="single-level"):
        _ = raw.saturated
    cov = demo[["y1", "y2", "y3", "y4"]].cov()
    for given, rescale in ((cov, True), (cov * 2499 / 2500, False)):
        other = msem.cfa(text, sample_cov=given, sample_nobs=2500, sample_cov_rescale=rescale)
        np.testing.assert_allclose(other.params, raw.params, rtol=1e-9)
        np.testing.assert_allclose(other.bse, raw.bse, rtol=1e-9)
        assert other.chisq == pytest.approx(raw.chisq, abs=1e-8)
    with_means = msem.cfa(text, demo, meanstructure=True)
    assert with_means.npar == raw.npar + 4
    assert with_means.chisq == pytest.approx(raw.chisq, abs=1e-8)


def test_orthogonal_and_unit_variance(demo: pd.DataFrame) -> None:
    text = STORED["two_factors"]["model"]
    apart = msem.cfa(text, demo, cluster="cluster", orthogonal=True)
    assert not {"fw1~~fw2", "fb1~~fb2.l2"} & set(apart.params.index)
    unit = msem.cfa(text, demo, cluster="cluster", std_lv=True)
    assert {"fw1=~y1", "fb2=~y4.l2"} <= set(unit.params.index)
    assert not {"fw1~~fw1", "fb2~~fb2.l2"} & set(unit.params.index)


def test_intervals_name_their_level(fit: msem.Fit) -> None:
    with pytest.raises(TypeError):
        fit.conf_int(0.05)  # type: ignore[misc]
    for level in (95, 0.0, 1.0, 1.5):
        with pytest.raises(ValueError, match="level is the coverage"):
            fit.conf_int(ci_level=level)


def test_p_values(fit: msem.Fit) -> None:
    table = fit.estimates().query("se > 0")
    assert_allclose(fit.tvalues, table["z"])
    assert_allclose(fit.pvalues, table["pvalue"])


def test_identification_is_checked_without_standard_errors(demo: pd.DataFrame) -> None:
    model = "level: 1\n y1 ~~ y2\nlevel: 2\n fb =~ y1 + y2"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit = msem.sem(model, demo, cluster="cluster", se="none")
    assert IdentificationWarning in {w.category for w in caught}
    assert (fit.status, fit.df) == ("unidentified", -1)
    assert fit.fit_measures()[["chisq", "pvalue", "cfi", "tli", "rmsea"]].isna().all()
    assert fit.bse.isna().all()
