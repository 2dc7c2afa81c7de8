"""What is fitted beside the model when data have holes: moments, levels, auxiliary variables, missing information."""

import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose

import missing
import msem
from msem.cli import main
from msem.errors import DataError, DataWarning

MODEL = missing.DEMO
LISTS = {"within": ["y1", "y2", "y3"], "between": ["y1", "y2", "y3", "w1"]}


@pytest.fixture(scope="module")
def data():
    return missing.demo_with_holes(0.15)


@pytest.fixture(scope="module")
def fit(data):
    return msem.sem(MODEL, data, cluster="cluster", missing="fiml")


# -- moments and levels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["likelihood", "ml", "uls"])
def test_errors_of_levels_by_themselves_are_those_of_the_data_with_holes(fit, method):
    levels = msem.segregated(MODEL, fit.saturated, method=method)
    names = ["fb=~y2.l2", "fb=~y3.l2", "fb~w1.l2", "fw=~y2", "fw=~y3", "fw~x1"]
    assert_allclose(levels.params[names], fit.params[names], rtol=0.12)
    assert_allclose(levels.bse[names], fit.bse[names], rtol=0.1)


def test_moments_keep_their_gamma_when_they_are_saved(fit, tmp_path):
    fit.saturated.save(tmp_path / "levels.json")
    again = msem.LevelMoments.load(tmp_path / "levels.json")
    assert again.incomplete
    ours, theirs = (msem.segregated(MODEL, moments) for moments in (again, fit.saturated))
    assert_allclose(ours.bse, theirs.bse, rtol=1e-8)
    assert_allclose(ours.tests()["statistic"], theirs.tests()["statistic"], rtol=1e-8)


def test_a_joint_fit_to_such_moments_is_refused(fit):
    with pytest.raises(DataError, match="estimated from data with holes"):
        msem.sem(MODEL, fit.saturated)


def test_saturated_moments_by_em_are_the_same(data):
    scoring, em = (
        msem.saturated(data, cluster="cluster", missing="fiml", method=method, **LISTS)
        for method in ("scoring", "em")
    )
    assert_allclose(em.between_cov, scoring.between_cov, atol=1e-6)
    assert_allclose(em.llf, scoring.llf, rtol=1e-11)


@pytest.mark.parametrize("gamma", ["expected", "robust"])
def test_other_gammas_go_with_the_moments(data, gamma):
    h1 = msem.saturated(data, cluster="cluster", missing="fiml", gamma=gamma, **LISTS)
    observed = msem.saturated(data, cluster="cluster", missing="fiml", **LISTS)
    assert h1.known_acov is not None
    ratio = np.sqrt(np.diag(h1.acov) / np.diag(observed.acov))
    assert ((ratio > 0.7) & (ratio < 1.4)).all()
    assert np.abs(ratio - 1).max() > 1e-4


def test_segregated_fits_to_data_and_to_their_moments_are_the_same(fit, data):
    ours = msem.segregated(MODEL, data, cluster="cluster", missing="fiml")
    theirs = msem.segregated(MODEL, fit.saturated)
    assert_allclose(ours.bse, theirs.bse, rtol=1e-7)


# -- missing information ---------------------------------------------------------------------------------------


def test_nothing_is_missing_where_nothing_depends_on_the_holes(fit):
    fmi = fit.fmi()
    assert ((fmi > 0.0) & (fmi < 0.5)).all()
    few = msem.sem(MODEL, missing.demo_with_holes(0.02), cluster="cluster", missing="fiml").fmi()
    assert few.max() < 0.1
    assert (few < fmi).mean() > 0.9


def test_the_fraction_is_that_of_variances_of_complete_and_observed_data(data):
    # Units lost completely at random take their share of all information.
    lost = np.random.default_rng(2).random(len(data)) < 0.25
    names = ["y1", "y2", "y3"]
    holes = msem.load_demo()
    holes.loc[lost, names] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        fit = msem.sem(
            "level: 1\ny1 ~~ y2 + y3\ny2 ~~ y3\nlevel: 2\ny1 ~~ y2 + y3 + w1\ny2 ~~ y3 + w1\ny3 ~~ w1",
            holes,
            cluster="cluster",
            missing="fiml",
        )
    assert_allclose(fit.fmi()["y1~~y1"], lost.mean(), atol=0.05)


# -- auxiliary variables ---------------------------------------------------------------------------------------


def test_auxiliary_variables_restrict_nothing(fit, data):
    more = msem.sem(MODEL, data, cluster="cluster", missing="fiml", auxiliary=["y4", "y5"])
    assert more.df == fit.df
    assert more.npar - fit.npar == (3 + 2 * 6) + (3 + 2 * 5) + 2
    full, base = (more.unrestricted_llf - one for one in (more.llf, more.baseline.llf))
    assert_allclose(more.chisq, 2 * full)
    assert more.fit_measures()["baseline_df"] == fit.fit_measures()["baseline_df"]
    assert base > full
    assert "y4" not in more.summary()
    assert "y4" in set(more.estimates()["lhs"])


def test_auxiliary_variables_without_holes_to_fill_change_nothing():
    # Given all other values, correlates that are saturated add nothing: only one hole is left to fill.
    data = msem.load_demo()
    data.loc[0, "y1"] = np.nan
    fits = [
        msem.sem(MODEL, data, cluster="cluster", missing="fiml", auxiliary=auxiliary)
        for auxiliary in ((), ["y4"])
    ]
    names = fits[0].params.index
    assert_allclose(fits[1].params[names], fits[0].params[names], rtol=5e-3, atol=5e-3)
    assert_allclose(fits[1].chisq, fits[0].chisq, rtol=2e-2)
    assert_allclose(fits[1].fit_measures()["srmr"], fits[0].fit_measures()["srmr"], rtol=2e-2)


def test_auxiliary_variables_of_clusters_are_at_the_between_level(data):
    known = data.assign(a=data.groupby("cluster")["y4"].transform("mean"))
    fit = msem.sem(MODEL, known, cluster="cluster", missing="fiml", auxiliary=["a"])
    rows = fit.estimates().query("lhs == 'a'")
    assert set(rows["level"]) == {2}


def test_auxiliary_variables_recover_what_depends_on_them():
    data, rng = msem.load_demo(), np.random.default_rng(8)
    data["a"] = data["y1"] + 0.5 * rng.standard_normal(len(data))
    holes = data.assign(y1=data["y1"].mask(data["a"] > 0.3))
    text = "y1 ~~ y2\ny1 ~ 1\ny2 ~ 1"
    truth = data["y1"].mean()
    without = msem.sem(text, holes, missing="fiml").params["y1~1"]
    with_it = msem.sem(text, holes, missing="fiml", auxiliary=["a"]).params["y1~1"]
    assert abs(with_it - truth) < 0.1
    assert abs(with_it - truth) < 0.2 * abs(without - truth)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"auxiliary": ["y4"]}, 'add missing="fiml"'),
        ({"auxiliary": ["y1"], "missing": "fiml"}, "'y1' is a variable of the model"),
        ({"auxiliary": ["nobody"], "missing": "fiml"}, "no column 'nobody'"),
    ],
)
def test_auxiliary_variables_that_cannot_be(data, options, message):
    with pytest.raises(DataError, match=message):
        msem.sem(MODEL, data, cluster="cluster", **options)


# -- the command line ------------------------------------------------------------------------------------------


def test_the_command_line_keeps_holes(data, tmp_path, capsys):
    (tmp_path / "model.lav").write_text(MODEL)
    data.to_csv(tmp_path / "data.csv", index=False)
    arguments = [str(tmp_path / name) for name in ("model.lav", "data.csv")]
    assert main(["fit", *arguments, "--cluster", "cluster", "--missing", "fiml", "--auxiliary", "y4"]) == 0
    assert "Number of missing patterns -- level 1" in capsys.readouterr().out
