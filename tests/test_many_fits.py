"""Models that are read once and fitted to many samples: every fit is that of `sem`."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import msem
from msem.errors import ConvergenceWarning, DataError, ModelError, MsemWarning
from msem.fits.manyfits import ManyFits
from populations import DEMO, DEMO_POPULATION

SIZES = [5, 10, 15]

TWO_LEVEL = {
    "demo": DEMO,
    "labels": "level: 1\n fw =~ y1 + a*y2 + a*y3\n fw ~ b*x1\nlevel: 2\n fb =~ y1 + y2 + y3\n fb ~ c*w1\nab := a*b*c",
    "standardized factors": """
level: 1
 fw =~ NA*y1 + y2 + y3
 fw ~~ 1*fw
level: 2
 fb =~ NA*y1 + y2 + y3
 fb ~~ 1*fb
""",
    "bounds": DEMO + "  y1 ~~ lower(0.29)*y1\n  y3 ~~ upper(5)*y3",
    "starts": DEMO + "  fb ~~ start(2)*fb\n  y2 ~ start(3)*1",
    "paths": "level: 1\n y1 ~ x1 + x2\n y2 ~ y1 + x3\nlevel: 2\n y1 ~ w1\n y2 ~ y1 + w2",
    "feedback": "level: 1\n y1 ~ x1 + 0.2*y2\n y2 ~ x2 + y1\nlevel: 2\n y1 ~~ y2\n w1 ~~ y1",
    "covariate at both levels": "level: 1\n y2 ~ x1 + y1\n y1 ~~ y1\nlevel: 2\n y2 ~ y1 + w1",
    "fixed loadings": "level: 1\n fw =~ 1*y1 + 0.8*y2 + y3\nlevel: 2\n fb =~ 1*y1 + 1*y2 + y3",
}
ONE_LEVEL = {
    "factor": "f =~ y1 + y2 + y3\nf ~ x1 + x2",
    "means": "f =~ y1 + y2 + y3\ny1 ~ 1\ny2 ~ 1\ny3 ~ 1",
    "regression": "y1 ~ x1 + x2\ny2 ~ y1 + x3",
    "higher order": "f =~ y1 + y2\ng =~ y3 + x1\nh =~ 1*f + 1*g\nf ~~ 0.3*f\ng ~~ 0.3*g",
}


def samples(count: int = 6, **given):
    kwargs = {"nclusters": 60, "cluster_sizes": SIZES, "seed": 5, "replications": count, "as_": "statistics"}
    return msem.simulate(DEMO_POPULATION, **(kwargs | given))


def quietly(function, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MsemWarning)
        return function(*args, **kwargs)


def assert_is_sem(many: ManyFits, row: int, fit: msem.Fit, atol: float = 1e-8) -> None:
    found = many.fits.iloc[row]
    assert (found["status"], found["converged"]) == (fit.status, fit.converged)
    if not fit.converged:
        assert many.params.iloc[row].isna().all()
        return
    defined = fit.defined() if fit.table.defined else pd.DataFrame({"est": [], "se": []})
    est, se = np.append(fit.params, defined["est"]), np.append(fit.bse, defined["se"])
    assert_allclose(many.params.iloc[row] / (1 + np.abs(est)), est / (1 + np.abs(est)), rtol=0, atol=atol)
    assert_allclose(many.bse.iloc[row] / (1 + se), se / (1 + se), rtol=0, atol=atol)
    measures = fit.fit_measures()
    end = "_scaled" if fit.options.scaled_test else ""
    expected = [fit.llf, measures[f"chisq{end}"], measures[f"pvalue{end}"]]
    assert_allclose(found[["llf", "chisq", "pvalue"]].astype(float), expected, rtol=1e-9, atol=1e-7)
    assert found["df"] == fit.df


@pytest.mark.parametrize("information", ["observed", "expected"])
@pytest.mark.parametrize("text", TWO_LEVEL.values(), ids=TWO_LEVEL)
def test_two_level_fits_are_those_of_sem(text: str, information: str) -> None:
    drawn = samples()
    many = quietly(msem.compile(text, information=information).fit_many, drawn)
    for k, sample in enumerate(drawn):
        assert_is_sem(many, k, quietly(msem.sem, text, sample, information=information))


@pytest.mark.parametrize("text", ONE_LEVEL.values(), ids=ONE_LEVEL)
def test_single_level_fits_are_those_of_sem(text: str) -> None:
    frames = [frame.drop(columns="cluster") for frame in samples(as_="data", nclusters=30)]
    many = quietly(msem.compile(text).fit_many, frames)
    for k, frame in enumerate(frames):
        assert_is_sem(many, k, quietly(msem.sem, text, frame))


def test_fits_of_groups_are_those_of_sem() -> None:
    one, two = samples(3, as_="data"), samples(3, as_="data", seed=6)
    frames = [
        pd.concat([a.assign(g="a"), b.assign(g="b", cluster=b["cluster"] + 1000)], ignore_index=True)
        for a, b in zip(one, two, strict=True)
    ]
    options = {"cluster": "cluster", "group": "g", "group_equal": ["loadings"]}
    model = msem.compile(DEMO, group_labels=["a", "b"], **options)
    many = model.fit_many(frames)
    for k, frame in enumerate(frames):
        assert_is_sem(many, k, msem.sem(DEMO, frame, **options))


@pytest.mark.parametrize("nclusters", [12, 16, 25])
def test_difficult_samples_have_the_fits_and_the_status_of_sem(nclusters: int) -> None:
    drawn = samples(25, nclusters=nclusters, cluster_sizes=[2, 4, 6])
    many = quietly(msem.compile(DEMO).fit_many, drawn)
    statuses = set()
    for k, sample in enumerate(drawn):
        fit = quietly(msem.sem, DEMO, sample)
        statuses.add(fit.status)
        assert_is_sem(many, k, fit, atol=1e-6)
    assert {"improper"} < statuses or nclusters > 12


@pytest.mark.parametrize(
    "options",
    [{"se": "none"}, {"constraints": None}, {"tolerance": 1e-10}, {"max_iterations": 3}],
    ids=["no errors", "plain", "tolerance", "few iterations"],
)
def test_options_are_those_of_sem(options: dict[str, object]) -> None:
    drawn = samples(3)
    many = quietly(msem.compile(DEMO, **options).fit_many, drawn)
    for k, sample in enumerate(drawn):
        assert_is_sem(many, k, quietly(msem.sem, DEMO, sample, **options))


def test_models_with_constraints_and_robust_errors_are_fitted_one_by_one() -> None:
    text = DEMO.replace("+ y2 + y3\n  fb ~", "+ a*y2 + b*y3\n  fb ~") + "\na == b + 0.1"
    drawn = samples(2)
    many = msem.compile(text).fit_many(drawn)
    assert_is_sem(many, 1, msem.sem(text, drawn[1]))
    frames = samples(2, as_="data")
    robust = msem.compile(DEMO, cluster="cluster", estimator="MLR").fit_many(frames)
    assert_is_sem(robust, 0, msem.sem(DEMO, frames[0], cluster="cluster", estimator="MLR"))


def test_data_statistics_and_moments_may_be_mixed() -> None:
    frame = samples(1, as_="data")[0]
    model = msem.compile(DEMO, cluster="cluster")
    fit = model.fit(frame)
    many = model.fit_many(iter([frame, fit.statistics, fit.saturated]))
    for k, other in enumerate([fit, fit, msem.sem(DEMO, fit.saturated)]):
        assert_is_sem(many, k, other)


def test_results_do_not_depend_on_threads() -> None:
    drawn, model = samples(40), msem.compile(DEMO)
    one, several = model.fit_many(drawn, threads=1), model.fit_many(drawn, threads=5)
    pd.testing.assert_frame_equal(one.to_frame(), several.to_frame(), check_exact=True)
    part = model.fit_many(drawn[10:20:3])
    assert_allclose(part.params, one.params.iloc[10:20:3], rtol=1e-12)


def test_variables_of_the_samples_may_be_more_and_in_another_order() -> None:
    text = "level: 1\n fw =~ y3 + y1 + y2\n fw ~ x2\nlevel: 2\n fb =~ y2 + y3 + y1"
    drawn = samples(3)
    many = quietly(msem.compile(text).fit_many, drawn)
    for k, sample in enumerate(drawn):
        assert_is_sem(many, k, quietly(msem.sem, text, sample))


def test_the_frames_say_the_same() -> None:
    many = msem.compile(DEMO).fit_many(samples(4))
    long = many.estimates
    assert long.shape[0] == 4 * many.params.shape[1]
    assert_allclose(long["est"].to_numpy().reshape(4, -1), many.params)
    assert_allclose(long["z"], long["est"] / long["se"])
    assert (many.to_frame().groupby("replicate")["chisq"].first() == many.fits["chisq"]).all()
    assert many.counts.sum() == len(many) == 4
    assert "4 fits" in str(many)
    assert "<table" in many._repr_html_()


def test_a_sample_that_cannot_be_fitted_is_named_among_others() -> None:
    good = samples(3)
    frame = samples(1, as_="data")[0].drop(columns="y1")
    with pytest.warns(ConvergenceWarning, match="1 of 4 fits have no estimates .failed 1."):
        many = msem.compile(DEMO, cluster="cluster").fit_many([good[0], frame, good[1], good[2]])
    assert many.fits["status"].tolist() == ["ok", "failed", "ok", "ok"] or many.fits["status"][1] == "failed"
    assert "y1" in many.fits["problem"][1]
    assert many.estimates.query("replicate == 1")["est"].isna().all()


def test_singular_statistics_fail_by_themselves() -> None:
    s = samples(1)[0]
    flat = msem.compile(DEMO).fit(s).statistics.to_dict() | {"ssw": np.zeros((6, 6)).tolist()}
    broken = type(s).from_dict(flat)
    many = quietly(msem.compile(DEMO).fit_many, [s, broken])
    assert many.fits["status"].tolist() == ["ok", "not_converged"]  # tried, and without a maximum


@pytest.mark.parametrize("one", [pd.DataFrame({"y1": [1.0]}), {"a": 1}, "text", 3])
def test_one_sample_is_no_list_of_samples(one: object) -> None:
    with pytest.raises(TypeError, match="several samples"):
        msem.compile(DEMO).fit_many(one)


def test_mistakes_are_named() -> None:
    model = msem.compile(DEMO)
    with pytest.raises(DataError, match="no samples"):
        model.fit_many([])
    with pytest.raises(DataError, match=r"no sample can be fitted. The first: .*cluster"):
        model.fit_many([samples(1, as_="data")[0]])
    with pytest.raises(TypeError, match="no option 'sample_cov'"):
        msem.compile(DEMO, sample_cov=None)
    with pytest.raises(TypeError, match="no option 'extimator'"):
        msem.compile(DEMO, extimator="ML")
    with pytest.raises(ValueError, match="bootstrap"):
        msem.compile(DEMO, se="bootstrap")
    with pytest.raises(ModelError, match="group_labels"):
        msem.compile(DEMO, group="g")
    with pytest.raises(ModelError, match="different labels"):
        msem.compile(DEMO, group_labels=["a", "a"])
    with pytest.raises(DataError, match="one group and the model the groups a, b"):
        msem.compile(DEMO, group_labels=["a", "b"]).fit_many(samples(1))
    with pytest.raises(ValueError, match="'y9' is not in the samples"):
        msem.compile(DEMO.replace("y3", "y9")).fit_many(samples(1))
    with pytest.raises(ValueError, match="another level"):
        msem.compile("level: 1\n y1 ~ w1\nlevel: 2\n y1 ~~ y1").fit_many(samples(1))


def test_given_statistics_of_other_sizes_are_fitted_together() -> None:
    given = [*samples(2), *samples(2, cluster_sizes=[4, 6, 9, 11, 20]), *samples(1)]
    many = quietly(msem.compile(DEMO).fit_many, given)
    for k, sample in enumerate(given):
        one = quietly(msem.compile(DEMO).fit_many, [sample])
        assert_allclose(many.params.iloc[k], one.params.iloc[0], rtol=0, atol=0)
        assert_is_sem(many, k, quietly(msem.sem, DEMO, sample))


@pytest.mark.parametrize("level", ["within", "between"])
def test_a_sample_whose_covariates_determine_one_another_fails_by_name(level: str) -> None:
    text = TWO_LEVEL["paths"]
    good = list(samples(4))
    same, twice = ("x2", "x1") if level == "within" else ("w2", "w1")
    names = list(good[2].names)
    turn = np.eye(len(names))
    turn[names.index(same)] = 2 * turn[names.index(twice)]
    unit = turn[:, : len(good[2].unit)][: len(good[2].unit)]
    bad = replace(
        good[2],
        means=good[2].means @ turn.T,
        scatter=turn @ good[2].scatter @ turn.T,
        ssw=unit @ good[2].ssw @ unit.T,
    )
    with pytest.raises(DataError) as alone:
        msem.sem(text, bad)
    assert f"'{same}' is a linear combination of '{twice}'" in str(alone.value)
    many = quietly(msem.compile(text).fit_many, [*good[:2], bad, good[3]])
    assert list(many.fits["status"] == "failed") == [False, False, True, False]
    assert many.fits["problem"][2] == str(alone.value)
    assert many.params.iloc[2].isna().all()
    whole = quietly(msem.compile(text).fit_many, good)
    assert_allclose(many.params.iloc[[0, 1, 3]], whole.params.iloc[[0, 1, 3]], rtol=0, atol=0)
