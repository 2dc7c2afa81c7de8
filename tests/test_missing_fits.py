"""Fits to data with holes: what is kept and dropped, what does not matter, and what follows from the estimates."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import missing
import msem
import oracle_missing
from msem.errors import DataError, DataWarning, UnsupportedError

MODEL = missing.DEMO


@pytest.fixture(scope="module")
def data():
    return missing.demo_with_holes(0.15)


@pytest.fixture(scope="module")
def fit(data):
    return msem.sem(MODEL, data, cluster="cluster", missing="fiml")


def quiet(*arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        return msem.sem(*arguments, **options)


def dense_sample(fit):
    """y, z and codes of a fit as the oracle takes them."""
    rows, s = fit.sample.groups[0].data, fit.statistics
    y = np.column_stack([rows.columns[name] for name in s.unit])
    z = pd.DataFrame({name: rows.columns[name] for name in s.cluster}).groupby(rows.codes).first()
    return y, z.to_numpy(), rows.codes


def dense_moments(fit):
    s = fit.statistics

    def moments(theta):
        import oracle

        return oracle.table_moments(fit.table.rows, theta, s.unit, s.cluster, s.nboth)

    return moments


# -- names and complete data -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ml", "direct", "FIML"])
def test_other_names_mean_the_same(fit, data, name):
    other = msem.sem(MODEL, data, cluster="cluster", missing=name)
    assert_allclose(other.params, fit.params, rtol=1e-12)


def test_unknown_names_are_refused(data):
    with pytest.raises(ValueError, match="missing must be one of 'listwise', 'fiml'"):
        msem.sem(MODEL, data, cluster="cluster", missing="mice")
    with pytest.raises(ValueError, match="is for ordered variables"):
        msem.sem(MODEL, data, cluster="cluster", missing="pairwise")


def test_data_without_holes_give_the_complete_data_fit():
    data = msem.load_demo()
    whole = msem.sem(MODEL, data, cluster="cluster")
    again = msem.sem(MODEL, data, cluster="cluster", missing="fiml")
    assert_allclose(again.params, whole.params, rtol=1e-12)
    assert_allclose(again.bse, whole.bse, rtol=1e-12)


def test_a_hole_in_a_variable_that_decides_nothing_changes_nothing():
    # The hole is where only cluster variables of another cluster are concerned, so all else is as in complete data.
    data = msem.load_demo()
    whole = msem.sem(MODEL, data, cluster="cluster")
    extra = data.iloc[[0]].assign(cluster=10**6, y1=np.nan, y2=np.nan, y3=np.nan)
    with_holes = quiet(MODEL, pd.concat([data, extra]), cluster="cluster", missing="fiml", fixed_x=False)
    without = msem.sem(MODEL, data, cluster="cluster", fixed_x=False)
    loadings = [name for name in whole.params.index if "=~" in name]
    assert_allclose(with_holes.params[loadings], without.params[loadings], rtol=2e-3)
    assert with_holes.statistics.complete is False


# -- what does not matter --------------------------------------------------------------------------------------


def test_order_of_rows_and_kind_of_ids_do_not_matter(fit, data):
    shuffled = data.sample(frac=1, random_state=3)
    shuffled["cluster"] = "c" + shuffled["cluster"].astype(str)
    other = msem.sem(MODEL, shuffled, cluster="cluster", missing="fiml")
    assert_allclose(other.params, fit.params, rtol=1e-9, atol=1e-10)
    assert_allclose(other.bse, fit.bse, rtol=1e-9)
    assert_allclose(other.chisq, fit.chisq, rtol=1e-8)


def test_units_of_the_variables_do_not_matter(fit, data):
    scaled = data.assign(y1=1000 * data["y1"], y2=500 + 100 * data["y2"], w1=50 + 10 * data["w1"])
    other = msem.sem(MODEL, scaled, cluster="cluster", missing="fiml")
    assert_allclose(other.chisq, fit.chisq, rtol=1e-7)
    assert_allclose(other.tvalues["fb=~y2.l2"], fit.tvalues["fb=~y2.l2"], rtol=1e-6)


def test_means_of_1e8_do_not_matter(fit, data):
    moved = data.assign(**{name: data[name] + 1e8 for name in ("y1", "y2", "y3", "x1", "w1")})
    other = msem.sem(MODEL, moved, cluster="cluster", missing="fiml")
    assert other.status == "ok"
    assert_allclose(other.chisq, fit.chisq, rtol=1e-4)
    same = [name for name in fit.params.index if "~1" not in name]
    assert_allclose(other.params[same], fit.params[same], rtol=1e-4, atol=1e-5)
    assert_allclose(other.bse[same], fit.bse[same], rtol=1e-4)


# -- against dense densities -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def random_x(data):
    holes = data.assign(
        x1=data["x1"].where(np.random.default_rng(5).random(len(data)) > 0.1),
        w1=data["w1"].where(data["cluster"] % 9 > 0),
    )
    few = holes[holes["cluster"] % 4 == 1]  # dense densities take their time
    return msem.sem(MODEL, few, cluster="cluster", missing="fiml", fixed_x=False, estimator="MLR")


def test_log_likelihood_is_that_of_everything_observed(random_x):
    y, z, codes = dense_sample(random_x)
    m = dense_moments(random_x)(random_x.estimate.theta)
    dense = oracle_missing.cluster_logliks(m, y, z, codes)
    assert_allclose(random_x.llf, dense.sum(), rtol=1e-12)
    assert_allclose(random_x.cluster_loglik(), dense, rtol=1e-9)


def test_robust_errors_are_the_sandwich_of_dense_scores(random_x):
    scores = oracle_missing.cluster_scores(
        dense_moments(random_x), random_x.estimate.theta, *dense_sample(random_x)
    )
    assert_allclose(random_x.scores(), scores, atol=1e-9 * np.abs(scores).max())
    bread = np.linalg.inv(random_x.objective.observed_information(random_x.estimate.theta))
    assert_allclose(random_x.cov_params(), bread @ scores.T @ scores @ bread, rtol=1e-6, atol=1e-12)


def test_the_scaling_factor_is_that_of_the_traces(random_x):
    h1 = random_x.saturated
    clusters = random_x.sample.groups[0].clusters
    from msem.data.saturated import saturated_objective

    core = saturated_objective(random_x.statistics)
    theta = h1.vector.to_numpy()
    scores = clusters.scores(core, theta)
    trace1 = np.trace(np.linalg.solve(core.observed_information(theta), scores.T @ scores))
    own = random_x.scores().to_numpy()
    information = random_x.objective.observed_information(random_x.estimate.theta)
    trace0 = np.trace(np.linalg.solve(information, own.T @ own))
    assert_allclose(
        random_x.tests().loc["yuan_bentler_mplus", "scaling"],
        (trace1 - trace0) / random_x.df,
        rtol=1e-6,
    )


def test_saturated_moments_are_the_maximum(random_x):
    dense = oracle_missing.em(*dense_sample(random_x), 3, tolerance=1e-7)
    h1 = random_x.saturated
    assert_allclose(h1.between.cov.to_numpy(), dense.sigma_b, atol=2e-5)
    assert_allclose(h1.within.cov.to_numpy(), dense.sigma_w, atol=2e-5)
    top = oracle_missing.cluster_logliks(dense, *dense_sample(random_x)).sum()
    assert_allclose(random_x.unrestricted_llf, top, rtol=1e-9)
    assert_allclose(random_x.chisq, 2 * (top - random_x.llf), atol=1e-4)


def test_conditional_likelihood_of_clusters_adds_up(fit):
    assert_allclose(fit.cluster_loglik().sum(), fit.llf, rtol=1e-11)


# -- what is left out ------------------------------------------------------------------------------------------


def test_rows_without_fixed_covariates_are_left_out_and_counted(data):
    holes = data.copy()
    holes.loc[[3, 4, 10], "x1"] = np.nan
    holes.loc[[10, 11], "x2"] = np.nan
    first = holes.index[holes["cluster"] == holes["cluster"].iloc[40]]
    holes.loc[first[:-1], "w1"] = np.nan  # known from its last row
    with pytest.warns(DataWarning, match=r"4 rows have no value of a fixed covariate \(x1 3, x2 2\)"):
        fit = msem.sem(MODEL, holes, cluster="cluster", missing="fiml")
    assert fit.nobs == len(data) - 4
    assert fit.left_out().to_dict("list") == {"row": [3, 4, 10, 11], "reason": ["no fixed covariate"] * 4}
    same = msem.sem(MODEL, data.drop(index=[3, 4, 10, 11]), cluster="cluster", missing="fiml")
    assert_allclose(fit.params, same.params, rtol=1e-9)
    assert "x1 3, x2 2" in fit.summary()


def test_clusters_without_a_fixed_covariate_are_left_out(data):
    gone = data["cluster"] == data["cluster"].iloc[0]
    with pytest.warns(DataWarning, match=f"{gone.sum()} rows have no value of a fixed covariate"):
        fit = msem.sem(MODEL, data.assign(w2=data["w2"].mask(gone)), cluster="cluster", missing="fiml")
    assert fit.nclusters == 199


def test_covariates_with_holes_stay_when_they_are_modelled(data):
    holes = data.assign(x1=data["x1"].mask(data.index % 7 == 0))
    fits = [
        msem.sem(MODEL, holes, cluster="cluster", **options)
        for options in ({"missing": "fiml.x"}, {"missing": "fiml", "fixed_x": False})
    ]
    assert fits[0].nobs == len(data)
    assert_allclose(fits[0].params, fits[1].params, rtol=1e-12)


def test_rows_with_nothing_observed_are_left_out(data):
    holes = data.copy()
    holes.loc[5, ["y1", "y2", "y3", "x1", "x2", "x3", "w1", "w2"]] = np.nan
    with pytest.warns(DataWarning, match="1 rows have no observed value"):
        fit = msem.sem(MODEL, holes, cluster="cluster", missing="fiml.x")
    assert fit.nobs == len(data) - 1
    assert "Rows dropped: nothing observed" in fit.summary()


def test_units_without_unit_level_values_count_for_their_cluster_only(data):
    names = ["y1", "y2", "y3", "x1", "x2", "x3"]
    first = data["cluster"] == data["cluster"].iloc[0]
    fit = msem.sem(MODEL, data.assign(**data[names].mask(first)), cluster="cluster", missing="fiml.x")
    assert (fit.nobs, fit.nclusters) == (len(data) - first.sum(), 200)
    assert set(fit.left_out()["reason"]) == {"no unit-level value; cluster variables used"}


def test_the_summary_shows_the_fit_of_each_level_by_the_unscaled_test(fit):
    text = fit.summary(fit_measures=True)
    below = text[text.index("Level-specific Fit Measures") :]
    assert "Robust CFI" in below
    assert f"{fit.fit_measures(level=1)['rmsea_robust']:.3f}" in below
    assert "Robust Comparative Fit Index (CFI)" in text
    assert "Robust RMSEA" in text
    assert "Scaled test statistic" not in below


def test_the_summary_counts_patterns(fit):
    text = fit.summary()
    assert "Number of missing patterns -- level 1              8" in text
    assert "Number of missing patterns -- level 2              1" in text


# -- data that cannot do ---------------------------------------------------------------------------------------


def test_a_variable_without_values_is_named(data):
    with pytest.raises(DataError, match="variable 'y2' has no observed value"):
        msem.sem(MODEL, data.assign(y2=np.nan), cluster="cluster", missing="fiml")


def test_a_variable_whose_observed_values_are_the_same_is_named(data):
    with pytest.raises(DataError, match="variable 'y2' is constant"):
        msem.sem(
            MODEL, data.assign(y2=np.where(data["y2"] > 1, 1.0, np.nan)), cluster="cluster", missing="ml"
        )


def test_a_cluster_variable_that_varies_is_named(data):
    with pytest.raises(DataError, match="variable 'w1' is in the level-2 block only, but varies within"):
        msem.sem(MODEL, data.assign(w1=data["y4"]), cluster="cluster", missing="fiml")


def test_a_cluster_variable_that_varies_through_holes_only_does_not_vary(fit, data):
    holes = data.assign(w1=data["w1"].mask(data.groupby("cluster").cumcount() % 2 == 1))
    other = msem.sem(MODEL, holes, cluster="cluster", missing="fiml")
    assert_allclose(other.params, fit.params, rtol=1e-10)


def test_no_rows_with_values():
    data = msem.load_demo()
    data[["y1", "y2", "y3"]] = np.nan
    with pytest.raises(DataError, match="no row with values is left"):
        msem.sem("level: 1\ny1 ~~ y2\nlevel: 2\ny1 ~~ y2", data, cluster="cluster", missing="fiml")


def test_variables_never_observed_together_are_named_and_leave_the_fit_without_chi_square(data):
    never = data.copy()
    half = np.arange(len(data)) % 2 == 0
    never["y2"], never["y3"] = never["y2"].mask(half), never["y3"].mask(~half)
    with pytest.warns(msem.errors.ConvergenceWarning, match="never observed together: y2~~y3"):
        fit = msem.sem(MODEL, never, cluster="cluster", missing="fiml")
    assert fit.status == "no_chi_square"
    assert np.isnan(fit.chisq)
    assert np.isfinite(fit.bse).all()
    names = {"within": ["y1", "y2", "y3"], "between": ["y1", "y2", "y3"]}
    with pytest.raises(DataError, match=r"never observed together: 'y2~~y3'"):
        msem.saturated(never, cluster="cluster", missing="fiml", **names)


def test_moments_have_no_holes(fit):
    with pytest.raises(DataError, match='missing="fiml" is for raw data'):
        msem.sem(MODEL, fit.saturated, missing="fiml")


def test_means_are_needed(data):
    with pytest.raises(UnsupportedError, match="needs means"):
        msem.cfa("f =~ y1 + y2 + y3", data, missing="fiml", meanstructure=False)


# -- other shapes of samples -----------------------------------------------------------------------------------


def test_groups_add_up(data):
    grouped = data.assign(g=np.where(data["cluster"] % 2 == 0, "a", "b"))
    both = msem.sem(MODEL, grouped, cluster="cluster", group="g", missing="fiml", estimator="MLR")
    alone = [
        msem.sem(MODEL, part, cluster="cluster", missing="fiml", estimator="MLR")
        for _, part in grouped.groupby("g")
    ]
    assert_allclose(both.llf, sum(one.llf for one in alone), rtol=1e-10)
    assert_allclose(both.bse, np.concatenate([one.bse for one in alone]), rtol=1e-6)
    assert_allclose(both.chisq, sum(one.chisq for one in alone), rtol=1e-6)


def test_constraints_hold(data):
    text = MODEL.replace("y1 + y2 + y3", "y1 + a*y2 + y3", 1).replace("fb =~ y1 + y2", "fb =~ y1 + b*y2")
    fit = msem.sem(text, data, cluster="cluster", missing="fiml", constraints="a == b; d := a * b")
    assert_allclose(fit.params["a"], fit.params["b"], rtol=1e-10)
    assert fit.status == "ok"


def test_a_single_level_is_the_density_of_rows(data):
    fit = msem.cfa("f =~ y1 + y2 + y3 + x1", data, missing="fiml")
    y = np.column_stack([data[name] for name in ("y1", "y2", "y3", "x1")])
    m = fit.implied[1].observed
    dense = oracle_missing.row_logliks(y, m.mean.to_numpy(), m.cov.to_numpy())
    assert_allclose(fit.llf, dense.sum(), rtol=1e-12)
    assert fit.options.information == "observed"


def test_rows_by_cluster_add_their_scores(data):
    rows = msem.cfa("f =~ y1 + y2 + y3 + x1", data, missing="fiml", estimator="MLR")
    fit = msem.cfa("f =~ y1 + y2 + y3 + x1", data, missing="fiml", cluster="cluster")
    expected = rows.scores().groupby(data.loc[rows.scores().index, "cluster"], sort=False).sum()
    assert_allclose(fit.scores(), expected, atol=1e-8)
    assert_allclose(fit.params, rows.params, rtol=1e-8)


def test_a_fit_can_be_pickled(fit):
    again = pickle.loads(pickle.dumps(fit))
    assert_allclose(again.objective.value(again.estimate.theta), fit.objective.value(fit.estimate.theta))
    assert again.summary(fit_measures=True) == fit.summary(fit_measures=True)
