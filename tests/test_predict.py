"""Predictions against the joint normal distribution of whole clusters, written out densely."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import msem
from msem.errors import DataError

MODEL = """level: 1
  fw =~ y1 + y2 + y3
  fw ~ x1 + x2
level: 2
  fb =~ y1 + y2 + y3
  fb ~ x2 + w1
"""  # x1 within only, x2 at both levels, w1 between only
OUTCOMES = ["y1", "y2", "y3"]


@pytest.fixture(scope="module")
def few(demo):
    return demo[demo["cluster"].isin([3, 60, 150])]


@pytest.fixture(scope="module")
def fit(demo):
    return msem.sem(MODEL, demo, cluster="cluster")


def dense(fit, rows, given_outcomes):
    """Expectation of the outcomes of one cluster given its covariates, or given its between parts too.

    The between parts are their expectations given everything observed in the cluster.
    """
    within, between = fit.implied.within, fit.implied.between
    unit, cluster, n = [*OUTCOMES, "x2", "x1"], ["w1"], len(rows)
    both = [*OUTCOMES, "x2"]
    # the vector is: between parts of `both`, w1, then the within parts of every unit
    size = len(both) + 1 + n * len(unit)
    cov, mean = np.zeros((size, size)), np.zeros(size)
    top = [*both, *cluster]
    k = len(top)
    cov[:k, :k], mean[:k] = between.cov.loc[top, top], between.mean[top]
    for i in range(n):
        at = slice(k + i * len(unit), k + (i + 1) * len(unit))
        cov[at, at], mean[at] = within.cov.loc[unit, unit], within.mean[unit]
    select = {}  # rows that pick observed variables: sum of parts
    for i in range(n):
        for j, name in enumerate(unit):
            row = np.zeros(size)
            row[k + i * len(unit) + j] = 1
            if name in both:
                row[both.index(name)] = 1
            select[name, i] = row
    select["w1", 0] = np.eye(size)[len(both)]
    values = {(name, i): rows[name].iloc[i] for name, i in select}
    seen = [key for key in select if given_outcomes or key[0] not in OUTCOMES]
    S = np.array([select[key] for key in seen])
    y = np.array([values[key] for key in seen])
    posterior = mean + cov @ S.T @ np.linalg.solve(S @ cov @ S.T, y - S @ mean)
    if not given_outcomes:
        return np.array([[select[name, i] @ posterior for name in OUTCOMES] for i in range(n)])
    known = dict(zip(both, posterior[: len(both)], strict=True))
    covariates = ["x2", "x1"]
    slopes = np.linalg.solve(within.cov.loc[covariates, covariates], within.cov.loc[covariates, OUTCOMES])
    x = rows[covariates].to_numpy() - [known["x2"], 0] - within.mean[covariates].to_numpy()
    return within.mean[OUTCOMES].to_numpy() + x @ slopes + np.array([known[name] for name in OUTCOMES])


@pytest.mark.parametrize("random_effects", [False, True])
def test_predictions_are_conditional_expectations(fit, few, random_effects):
    found = fit.predict(few, random_effects=random_effects)
    assert list(found.columns) == OUTCOMES
    pd.testing.assert_index_equal(found.index, few.index)
    for _, rows in few.groupby("cluster"):
        assert_allclose(found.loc[rows.index], dense(fit, rows, random_effects), atol=1e-9)


def test_predictions_need_covariates_only(fit, few):
    alone = few[["cluster", "x1", "x2", "w1"]].sample(frac=1, random_state=1)
    assert_allclose(fit.predict(alone).loc[few.index], fit.predict(few), atol=1e-12)
    with pytest.raises(DataError, match="no column 'x2'"):
        fit.predict(few[["cluster", "x1", "w1"]])
    with pytest.raises(DataError, match="no column 'y1'"):
        fit.predict(alone, random_effects=True)


def test_fitted_values_and_residuals_add_up(fit, demo):
    assert_allclose(fit.fittedvalues + fit.resid, demo[OUTCOMES])
    assert_allclose(fit.fittedvalues, fit.predict(demo, random_effects=True))


def test_a_regression_predicts_as_least_squares_does(demo):
    fit = msem.sem("y1 ~ x1 + x2\ny1 ~ 1", demo)
    X = np.column_stack([np.ones(len(demo)), demo["x1"], demo["x2"]])
    b = np.linalg.lstsq(X, demo["y1"], rcond=None)[0]
    assert_allclose(fit.predict(demo)["y1"], X @ b, atol=1e-7)
    assert_allclose(msem.sem("y1 ~ x1 + x2", demo).predict()["y1"], X @ b, atol=1e-7)


def test_groups_and_rows_that_are_left_out(demo):
    data = demo.assign(g=np.where(demo["cluster"] % 2, "odd", "even"))
    data.loc[data.index[7], "x1"] = np.nan
    model = "level: 1\n y1 ~ x1\nlevel: 2\n y1 ~ w1"
    fit = msem.sem(model, data, cluster="cluster", group="g")
    found = fit.predict(data[["x1", "w1", "cluster", "g"]])
    assert found["y1"].isna().to_numpy().nonzero()[0].tolist() == [7]
    odd = msem.sem(model, data[data["g"] == "odd"], cluster="cluster")
    assert_allclose(found.loc[odd.fittedvalues.index, "y1"], odd.predict()["y1"], atol=1e-6)
    assert fit.predict(data[data["g"] == "odd"])["y1"].notna().sum() == odd.nobs


def test_a_model_of_moments_predicts_new_rows(fit, few):
    moments = msem.sem(MODEL, fit.saturated)
    assert_allclose(moments.predict(few, cluster="cluster"), fit.predict(few), atol=0.01)
    with pytest.raises(DataError, match="name the column with the cluster ids"):
        moments.predict(few)
    with pytest.raises(DataError, match="fitted to moments"):
        moments.predict()


def test_variables_without_covariates_are_predicted_by_their_means(demo):
    fit = msem.sem("level: 1\n y1 ~~ y2\nlevel: 2\n y1 ~~ y2", demo, cluster="cluster")
    assert_allclose(fit.predict().mean(), fit.implied.between.mean[["y1", "y2"]])


def test_a_model_without_covariates_has_a_prediction_for_every_row():
    data = msem.load_demo()[["y1", "y2", "y3"]].head(200)
    fit = msem.cfa("f =~ y1 + y2 + y3", data, meanstructure=True)
    for rows in (data, {name: data[name].to_numpy() for name in data}):
        found = fit.predict(rows)
        assert found.shape == (200, 3)
        assert found.to_numpy()[-1] == pytest.approx(data.mean().to_numpy(), abs=1e-6)


ALONE = "level: 1\n fw =~ y1 + y2 + y3\n fw ~ x1\nlevel: 2\n fb =~ y1 + y2 + y3\n fb ~ w1"


def test_rows_need_no_clusters_where_no_covariate_has_a_latent_part(demo):
    fit = msem.sem(ALONE, demo, cluster="cluster")
    rows = demo[["x1", "w1"]].sample(50, random_state=2)
    with_clusters = fit.predict(demo.loc[rows.index])
    assert_allclose(fit.predict(rows), with_clusters)
    p = fit.params
    expected = (
        p["y2~1.l2"] + p["fw=~y2"] * p["fw~x1"] * rows["x1"] + p["fb=~y2.l2"] * p["fb~w1.l2"] * rows["w1"]
    )
    assert_allclose(fit.predict(rows)["y2"], expected)
    # a covariate of clusters may vary from row to row, and clusters that are not known do not matter
    grid = {"x1": np.zeros(3), "w1": np.array([-1.0, 0.0, 1.0]), "cluster": np.array([1.0, 1.0, np.nan])}
    steps = np.diff(fit.predict(grid)["y1"])
    assert_allclose(steps, p["fb~w1.l2"])
    moments = msem.sem(ALONE, fit.saturated)
    assert_allclose(moments.predict(rows), fit.predict(rows), atol=0.01)
    with pytest.raises(DataError, match="cluster"):
        fit.predict(demo.drop(columns="cluster"), random_effects=True)


def test_slopes_are_predicted_without_clusters(demo):
    text = "level: 1\n y1 ~ rv('s')*x1\nlevel: 2\n y1 ~ w1\n s ~ w1"
    fit = msem.sem(text, demo, cluster="cluster")
    assert_allclose(fit.predict(demo[["x1", "w1"]]), fit.predict(demo), atol=1e-12)
    p = fit.params
    slopes = p["s~1.l2"] + p["s~w1.l2"] * demo["w1"]
    assert_allclose(
        fit.predict(demo[["x1", "w1"]])["y1"], p["y1~1.l2"] + p["y1~w1.l2"] * demo["w1"] + slopes * demo["x1"]
    )


def test_a_latent_part_of_a_covariate_needs_the_cluster(fit, few):
    with pytest.raises(DataError, match="cluster"):
        fit.predict(few[["x1", "x2", "w1"]])
