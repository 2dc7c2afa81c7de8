"""Random slopes of observed covariates: fits, tests, scores, and what is refused."""

from __future__ import annotations

import functools
import pickle
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import msem
import oracle
import oracle_slopes
import reference
import slope_cases
from msem.errors import (
    DataError,
    DataWarning,
    IdentificationWarning,
    ModelError,
    ModelSyntaxError,
    UnsupportedError,
)
from msem.estimation.slopes import slope_reference
from msem.language.syntax import parse
from msem.model.derived import saturated_table
from msem.model.partable import parameter_table
from msem.postestimation.missing_information import missing_information
from msem.postestimation.scaling import slopes_trace

CASES = [
    "demo_rv",
    "demo_rv_factor",
    "reisby_rv",
    "rs_bdf_cwc",
    "rs_between_outcome",
    "rs_latent_two",
    "rs_oxboys",
    "rs_path",
    "rs_popular",
    "rs_popular_cross",
    "rs_popular_mlr",
    "rs_popular_two",
]
WITHIN, BETWEEN = "level: 1\n", "level: 2\ny ~~ y\n"
MODEL = """
level: 1
  y1 ~ rv("s")*x1 + x3
level: 2
  y1 ~ w
  s ~ w
  y1 ~~ s
"""


@functools.cache
def fitted(case):
    m = reference.meta(case)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return msem.sem(
            reference.model(case), reference.data(case), cluster=m["cluster"], estimator=m["estimator"]
        )


def theirs(case):
    """Estimates and standard errors of the other program by formula."""
    results = reference.results(case)
    block = results.get(reference.PROGRAM, {})
    block = block if block.get("status") == "ok" else results["dense"]
    found = {}
    for row in block["parameter_table"]:
        if row.get("free"):
            names = sorted((row["lhs"], row["rhs"])) if row["op"] == "~~" else (row["lhs"], row["rhs"])
            numeric = row.get("se_numeric_hessian")
            robust = reference.meta(case)["estimator"] == "MLR" or numeric is None
            found[row["level"], row["op"], *names] = row["est"], row["se"] if robust else numeric
    return block["logl"], found


@reference.needs_reference
@pytest.mark.parametrize("case", CASES)
def test_fits_are_those_of_other_programs(case):
    fit = fitted(case)
    llf, found = theirs(case)
    assert fit.status == "ok"
    assert fit.llf == pytest.approx(llf, abs=1e-6)
    for row, estimate, error in zip(fit.table.rows, fit.row_values, fit.row_errors, strict=True):
        if row.free:
            names = sorted((row.lhs, row.rhs)) if row.op == "~~" else (row.lhs, row.rhs)
            est, se = found.pop((row.level, row.op, *names))
            assert abs(estimate - est) < 1e-4 * se
            assert error == pytest.approx(se, rel=1e-3)
    assert not found


@reference.needs_reference
def test_chi_square_is_that_against_the_saturated_slopes():
    """The figures of a prototype that was held to dense densities."""
    fit = fitted("demo_rv_factor")
    assert fit.unrestricted_llf == pytest.approx(-12116.92145414, abs=1e-6)
    assert (fit.chisq, fit.df) == (pytest.approx(13.73050838, abs=1e-6), 21)
    assert fitted("demo_rv").chisq == pytest.approx(0, abs=1e-6)
    assert fitted("demo_rv").df == 0


@functools.cache
def small():
    return msem.sem(MODEL, slope_cases.sample(3, 60), cluster="id")


def test_posterior_means_and_deviations_are_those_of_the_dense_density():
    fit = msem.sem(MODEL, data := slope_cases.sample(3, 60), cluster="id")
    s = fit.statistics
    roles = list(s.unit), list(s.unit[: s.nboth]), list(s.cluster), "id"
    mean, cov = oracle_slopes.posterior(fit.table.rows, fit.theta, data, *roles)
    effects, slopes = fit.random_effects(), fit.factor_scores(2)
    assert_allclose(effects["y1"], mean[:, 0], rtol=1e-9)
    assert_allclose(slopes["s"], mean[:, 1], rtol=1e-9)
    assert_allclose(effects["y1_se"] ** 2, cov[:, 0, 0], rtol=1e-8)
    assert_allclose(slopes["s_se"] ** 2, cov[:, 1, 1], rtol=1e-8)
    assert list(slopes.index) == list(data["id"].unique())
    some = data[data["id"].isin([4, 7])]
    assert_allclose(fit.factor_scores(2, newdata=some)["s"], slopes.loc[some["id"].unique(), "s"], rtol=1e-9)


def test_missing_outcomes_have_the_maximum_of_the_dense_density():
    text = MODEL.replace("level: 2", "y2 ~ x1\nlevel: 2")
    data = slope_cases.with_holes(slope_cases.sample(3, 60))
    data.loc[5, "x1"] = np.nan
    with pytest.warns(DataWarning, match="1 rows have no value of a fixed covariate"):
        fit = msem.sem(text, data, cluster="id", missing="fiml")
    assert fit.left_out()["row"].tolist() == [5]
    assert fit.converged
    s, kept = fit.statistics, data.drop(index=5)
    roles = list(s.unit), list(s.unit[: s.nboth]), list(s.cluster), "id"

    def value(theta):
        return oracle_slopes.logliks(fit.table.rows, theta, kept, *roles).sum()

    score = oracle.complex_step(lambda t: value(t)[None], fit.theta)[0]
    assert np.abs(score * fit.standard_errors).max() < 1e-5
    assert fit.llf + fit.objective.covariate_llf == pytest.approx(value(fit.theta), abs=1e-8)
    mean, cov = oracle_slopes.posterior(fit.table.rows, fit.theta, kept, *roles)
    assert_allclose(fit.factor_scores(2)["s"], mean[:, 1], rtol=1e-8)
    assert_allclose(fit.factor_scores(2)["s_se"] ** 2, cov[:, 1, 1], rtol=1e-8)
    assert (fit.chisq > 0, fit.df) == (True, 5)


def test_missing_information_is_that_of_dense_expected_information():
    """Complete rows are those that the holes were made in."""
    holes, whole = slope_cases.Case("all kinds", holes=True), slope_cases.Case("all kinds")
    own, complete = (
        np.linalg.inv(
            oracle_slopes.expected_information(
                holes.table.rows, holes.near, case.data, *holes.roles, holes.fixed
            )
        ).diagonal()
        for case in (holes, whole)
    )
    at = SimpleNamespace(table=holes.table, theta=holes.near, objective=holes.objective, tangent=None)
    found = missing_information(at, holes.sample, "observed")
    assert_allclose(found, 1 - complete / own, rtol=1e-6)
    assert found.max() > 0.2
    assert small().fmi().abs().max() == 0


def test_rows_may_be_missing_or_left_out():
    """A row without outcomes says nothing but about covariates, which are given."""
    data = slope_cases.sample(3, 60)
    again = msem.sem(MODEL, data, cluster="id", missing="fiml")
    assert again.llf == pytest.approx(small().llf, abs=1e-9)
    data.loc[::7, "y1"] = np.nan
    fits = [msem.sem(MODEL, d, cluster="id", missing="fiml") for d in (data, data.dropna(subset="y1"))]
    assert fits[0].params.to_numpy() == pytest.approx(fits[1].params.to_numpy(), abs=1e-6)
    assert fits[0].standard_errors == pytest.approx(fits[1].standard_errors, rel=1e-5)


def test_other_latent_variables_of_level_2_are_scored_beside_slopes():
    case = slope_cases.Case("all kinds")
    from msem.postestimation.posterior import group_model, posterior
    from msem.postestimation.rows import training_rows

    found = posterior(group_model(case.objective, case.near), training_rows(case.sample.groups[0]), 2)
    assert found.names == ("s", "t", "fb")
    mean, cov = oracle_slopes.posterior(case.table.rows, case.near, case.data, *case.roles)
    assert_allclose(found.mean[:, :2], mean[:, 2:4], rtol=1e-9)
    assert_allclose(found.cov[found.which][:, :2, :2], cov[:, 2:4, 2:4], rtol=1e-8)


def test_order_of_rows_and_clusters_does_not_matter():
    data = slope_cases.sample(3, 60)
    again = data.sample(frac=1, random_state=5)
    assert msem.sem(MODEL, again, cluster="id").llf == pytest.approx(small().llf, abs=1e-9)


@pytest.mark.parametrize("seed", [2, 3, 4, 12])
def test_a_likelihood_without_bound_has_its_maximum_in_the_cone_whatever_the_order_of_rows(seed):
    data = slope_cases.sample(seed, 6)
    text = 'level: 1\n  y1 ~ rv("s")*x1\nlevel: 2\n  y1 ~~ s\n'
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        proper = msem.sem(text, data, cluster="id", space="psd")
        for order in range(3):
            fit = msem.sem(text, data.sample(frac=1, random_state=order), cluster="id")
            assert fit.status == "boundary"
            assert fit.llf == pytest.approx(proper.llf, abs=1e-5)


def test_units_do_not_matter():
    data = slope_cases.sample(3, 60)
    data["y1"] *= 1e4
    data["x1"] *= 1e-3
    other = msem.sem(MODEL, data, cluster="id")
    assert other.llf + len(data) * np.log(1e4) == pytest.approx(small().llf, abs=1e-6)
    assert other.tvalues.to_numpy() == pytest.approx(small().tvalues.to_numpy(), rel=1e-5)


def test_clusters_of_equal_design_share_work():
    case = slope_cases.Case("equal designs")
    assert case.statistics.likelihood().designs == case.data.groupby("id").size().nunique()
    assert slope_cases.Case("all kinds").statistics.likelihood().designs > 10


def test_many_clusters_add_up_whether_their_designs_are_compared_or_not():
    rng = np.random.default_rng(5)
    count = 33_000  # from 32,768 on they are compared only if some that are looked at first are alike
    code = np.repeat(np.arange(count), rng.integers(1, 4, count))
    effects = rng.normal(size=(count, 2)) * [1, 0.4]
    x, w, e = rng.normal(size=(3, len(code)))
    y = effects[code, 0] + (0.5 + effects[code, 1]) * x + 0.3 * w + e
    data = pd.DataFrame({"y": y, "x": x, "w": w, "g": code})
    text = 'level: 1\n  y ~ rv("s")*x + w\nlevel: 2\n  y ~~ y + s\n'
    whole, *parts = (
        msem.sem(text, rows, cluster="g", fixed_x=False, se="none")
        for rows in (data, data[code % 2 == 0], data[code % 2 == 1])
    )
    assert whole.sample.statistics[0].likelihood().designs == count
    value, gradient = whole.objective.core.evaluate(whole.theta)[:2]
    halves = [part.objective.core.evaluate(whole.theta)[:2] for part in parts]
    assert value == pytest.approx(sum(half[0] for half in halves), rel=1e-13)
    assert_allclose(gradient, halves[0][1] + halves[1][1], atol=1e-6)
    information = [one.objective.core.observed_information(whole.theta) for one in (whole, *parts)]
    assert_allclose(information[0], information[1] + information[2], rtol=1e-10, atol=1e-6)


def test_groups_are_fitted_together():
    data = slope_cases.sample(3, 60)
    data["half"] = np.where(data["id"] < 30, "a", "b")
    whole = msem.sem(MODEL, data, cluster="id", group="half")
    parts = [msem.sem(MODEL, data[data["half"] == label], cluster="id") for label in ("a", "b")]
    assert whole.llf == pytest.approx(sum(part.llf for part in parts), abs=1e-7)
    assert whole.chisq == pytest.approx(sum(part.chisq for part in parts), abs=1e-6)


def test_labels_and_constraints_of_slopes():
    text = MODEL.replace("s ~ w", "s ~ w + m*1\n  s ~~ v*s") + "m == 2*v\n"
    fit = msem.sem(text, slope_cases.sample(3, 60), cluster="id")
    assert fit.params["m"] == pytest.approx(2 * fit.params["v"], abs=1e-9)
    assert fit.llf < small().llf


def test_robust_errors_and_scaled_test_take_single_clusters():
    fit = msem.sem(MODEL, slope_cases.sample(3, 60), cluster="id", estimator="MLR")
    inverse = np.linalg.inv(fit.objective.observed_information(fit.theta))
    scores = fit.scores().to_numpy()
    assert_allclose(fit.vcov, inverse @ scores.T @ scores @ inverse, rtol=1e-7)
    assert np.isnan(fit.tests().loc["yuan_bentler_mplus", "scaling"])  # no degrees of freedom


def test_nested_models_are_compared_by_their_parameters():
    """A slope without variance and covariance: two parameters."""
    data = slope_cases.sample(3, 60)
    none = MODEL.replace("y1 ~~ s", "y1 ~~ 0*s\n  s ~~ 0*s")
    zero = msem.sem(none, data, cluster="id")
    table = msem.compare_models(zero, small())
    assert table["chisq_diff"].iloc[1] == pytest.approx(2 * (small().llf - zero.llf), abs=1e-8)
    assert table["df_diff"].iloc[1] == 2
    other = msem.sem(none.replace("0*s\n", "0.1*s\n").replace("s ~ w", "s ~ 0*w"), data, cluster="id")
    with pytest.raises(ModelError, match="not nested"):
        msem.compare_models(other, zero)
    robust = [msem.sem(text, data, cluster="id", estimator="MLR") for text in (none, MODEL)]
    assert msem.compare_models(*robust)["scaling"].iloc[1] > 0


def test_a_score_test_is_near_the_likelihood_ratio():
    text = MODEL.replace("s ~ w", "s ~ 0*w")
    fit = msem.sem(text, slope_cases.sample(3, 60), cluster="id")
    score = fit.score_test(add="s ~ w")
    assert "s~w" in str(score)
    gain = 2 * (small().llf - fit.llf)
    assert score.total["statistic"].iloc[0] == pytest.approx(gain, rel=0.2, abs=0.2)


def test_influence_is_what_a_refit_says():
    data = slope_cases.sample(3, 60)
    change = small().influence().change
    cluster = change.abs().sum(axis=1).idxmax()
    without = msem.sem(MODEL, data[data["id"] != cluster], cluster="id").params - small().params
    assert_allclose(change.loc[cluster], without, atol=0.1 * np.abs(without).max())


def test_fits_can_be_kept():
    again = pickle.loads(pickle.dumps(small()))
    assert again.objective.llf(again.theta) == pytest.approx(small().llf, abs=1e-10)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ('y ~ rv("s")*x', ModelError, "line 1, column 5.*the model has one level"),
        (f'{WITHIN}y ~~ rv("s")*x\n{BETWEEN}', ModelError, "belongs to a regression.*not to 'y ~~ x'"),
        (f'{WITHIN}y ~ x\n{BETWEEN}y ~ rv("s")*w', ModelError, "line 5, column 5.*stands at level 2"),
        (f'{WITHIN}y ~ rv("s")*a*x\n{BETWEEN}', ModelError, "line 2, column 13.*s ~ a\\*1"),
        (f'{WITHIN}y ~ rv("x")*x\n{BETWEEN}', ModelError, "'x' is a variable of level 1 and the name of a"),
        (f'{WITHIN}y ~ rv("s")*x\n{BETWEEN}s =~ y', ModelError, "no indicators at level 2"),
        (
            f'{WITHIN}f =~ a + b + c\ny ~ rv("s")*f\n{BETWEEN}s ~~ s\nlevel: 3\ny ~~ y\n',
            UnsupportedError,
            "'f' is latent.*three or more levels",
        ),
        (f'{WITHIN}y ~ rv("s")*x\nx ~ y\n{BETWEEN}', ModelError, "outcome's own consequence"),
        (f'{WITHIN}y ~ rv("s")*x + rv("s")*z\n{BETWEEN}', ModelError, "slope of 'x' and of 'z'"),
        (f"{WITHIN}y ~ x + (x | g)\n{BETWEEN}", ModelSyntaxError, "'\\(x \\| g\\)' in lme4, is 'y ~ rv"),
        (f"{WITHIN}y ~ (1 + x | g)\n{BETWEEN}", ModelSyntaxError, "'\\(x \\| g\\)' in lme4, is 'y ~ rv"),
        (f"{WITHIN}s | y ON x\n{BETWEEN}", ModelSyntaxError, "in Mplus, is 'y ~ rv"),
    ],
)
def test_what_cannot_be_a_random_slope_is_refused(text, error, message):
    with pytest.raises(error, match=message):
        parameter_table(parse(text))


def test_data_that_cannot_have_the_slope_are_refused():
    data = slope_cases.sample(3, 60)
    with pytest.raises(DataError, match="'x1' is in the level-1 block, but does not vary within clusters"):
        msem.sem(MODEL, data.assign(x1=data["w"] + 1), cluster="id")
    with pytest.raises(ModelError, match="'s' is a random slope of the model and a column of the data"):
        msem.sem(MODEL, data.assign(s=1.0), cluster="id")
    with pytest.raises(DataError, match=r"'x1'.*standard deviations from 0.*subtract"):
        msem.sem(MODEL, data.assign(x1=data["x1"] + 1e7), cluster="id")
    far = data.assign(x1=data["x1"] + 3e3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IdentificationWarning)
        with pytest.warns(DataWarning, match="'x1'.*Centre it"):
            msem.sem(MODEL, far, cluster="id")
    holes = data.assign(z=np.where(data["id"] == 4, np.nan, data["z"]))
    with pytest.raises(UnsupportedError, match="'z' is missing in 1 clusters"):
        msem.sem(MODEL + "z ~ s\n", holes, cluster="id", missing="fiml")
    with pytest.raises(UnsupportedError, match="rows of raw data"):
        msem.sem(MODEL, msem.summarize(data, cluster="id"))


def test_no_chi_square_has_a_reason():
    data = slope_cases.sample(3, 60)
    text = """
    level: 1
      fw =~ y1 + y2 + y3
      fw ~ rv("s")*x1 + rv("t")*x2
    level: 2
      y1 ~~ y1
      y2 ~~ y2
      y3 ~~ y3
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = msem.sem(text, data[data["id"] < 12], cluster="id")
    assert np.isnan(fit.chisq)
    assert "clusters" in fit.groups[""].slope_reference.reason
    assert fit.groups[""].slope_reference.reason in " ".join(fit.summary().split())
    holes = slope_cases.with_holes(data)
    fit = msem.sem(MODEL, holes, cluster="id", missing="fiml", auxiliary="y2")
    assert np.isnan(fit.chisq)
    assert "auxiliary" in fit.groups[""].slope_reference.reason


def test_there_are_no_saturated_moments():
    with pytest.raises(AttributeError, match="no saturated moments"):
        _ = small().saturated


def test_summary_with_fit_measures_has_no_baseline():
    text = small().summary(fit_measures=True)
    assert "Loglikelihood and Information Criteria" in text
    assert "Baseline" not in text


def test_the_saturated_model_has_a_slope_for_every_outcome():
    """p (p + 1) / 2 + p k + R (1 + n_w) + R (R + 1) / 2 parameters, R = p (1 + covariates with slopes)."""
    text = """
    level: 1
      fw =~ y1 + y2 + y3
      fw ~ rv("s")*x1 + x2
    level: 2
      fb =~ y1 + y2 + y3
      fb + s ~ w
    """
    assert saturated_table(parameter_table(parse(text))).npar == 6 + 3 + 6 * 2 + 21


def test_the_saturated_model_has_the_fixed_paths_between_covariates_with_slopes():
    rng = np.random.default_rng(5)
    code = np.repeat(np.arange(100), 8)
    x, a, b = rng.normal(size=800), *rng.normal(0.4, 0.4, (2, 100))
    m = 0.5 * x + rng.normal(size=800)
    y = a[code] * m + b[code] * x + rng.normal(size=800) + 0.5 * rng.normal(size=100)[code]
    text = 'level: 1\n y ~ rv("a")*m + rv("b")*x\n m ~ x\nlevel: 2\n y ~~ a + b\n a ~~ b'
    fit = msem.sem(text, {"g": code, "x": x, "m": m, "y": y}, cluster="g")
    assert (fit.status, fit.df) == ("ok", 0)
    assert fit.chisq == pytest.approx(0, abs=1e-8)


def test_a_frame_of_the_table_names_the_slopes():
    table = parameter_table(parse(MODEL))
    frame = table.frame()
    assert frame.loc[frame["slope"] == "s", ["lhs", "op", "rhs"]].to_numpy().tolist() == [["y1", "~", "x1"]]
    assert isinstance(frame, pd.DataFrame)


@pytest.mark.parametrize("estimator", ["ML", "MLR"])
def test_a_model_with_all_parameters_of_the_saturated_one_has_its_maximum(estimator):
    rng = np.random.default_rng(6)
    code = np.repeat(np.arange(60), np.resize([4, 7, 9], 60))
    x, w = rng.normal(size=len(code)), rng.normal(size=60)
    effects = rng.normal(size=(60, 2)) * [1, 0.6]
    y = effects[code, 0] + 0.5 * w[code] + (0.3 + effects[code, 1]) * x + rng.normal(size=len(code))
    data = pd.DataFrame({"y": y, "x": x, "w": w[code], "g": code})
    text = 'level: 1\n y ~ rv("s")*x\nlevel: 2\n y ~ w\n s ~ y + w'
    fit = msem.sem(text, data, cluster="g", estimator=estimator)
    group = fit.groups[""]
    own, alone = group.slope_reference, slope_reference(fit.table, group.sample)
    assert own.estimate is group.estimate
    assert alone.estimate is not None
    assert alone.estimate is not group.estimate
    np.testing.assert_allclose(own.llf, alone.llf, rtol=1e-10)
    assert abs(fit.chisq) < 1e-8
    assert fit.df == 0
    traces = [slopes_trace(each, group.sample, "observed") for each in (own, alone)]
    np.testing.assert_allclose(*traces, rtol=1e-5)
    smaller = msem.sem(text.replace("s ~ y + w", "s ~ y"), data, cluster="g").groups[""]
    assert smaller.slope_reference.estimate is not smaller.estimate


def test_tables_name_slopes_where_they_have_no_value(demo, tmp_path):
    text = "level: 1\n y1 ~ rv('s')*x1 + x2\nlevel: 2\n y1 ~ w1\n s ~ w1"
    fit = msem.sem(text, demo, cluster="cluster")
    fit.save(tmp_path / "fit.json")
    saved = msem.SavedFit.load(tmp_path / "fit.json")
    for one in (fit, saved, msem.pool([fit, fit])):
        row = one.estimates(level=1).query("rhs == 'x1' and op == '~'").iloc[0]
        assert row["label"] == "s"
        assert row[["est", "se", "pvalue", "ci_lower", "ci_upper"]].isna().all()
        assert one.estimates().query("rhs == 'x2' and op == '~'")["est"].iloc[0] == pytest.approx(
            fit.params["y1~x2"]
        )
        line = next(line for line in one.summary(ci=True).splitlines() if line.split()[:1] == ["x1"])
        assert line.split() == ["x1", "(s)"]
    tidy = fit.tidy().query("term == 'y1 ~ x1'").iloc[0]
    assert (tidy["label"], np.isnan(tidy["estimate"])) == ("s", True)
    assert tidy["std_all"] == pytest.approx(
        fit.standardized().query("rhs == 'x1' and op == '~'")["est_std"].iloc[0]
    )
    assert "y1 ~ x1" not in fit.__maketables_coef_table__.index
