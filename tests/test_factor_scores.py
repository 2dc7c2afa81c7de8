"""Factor scores and random effects of fits, for their own data and for new data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

import msem
import reference
import reference_fits
from msem.errors import DataError, ModelError
from rows import DEMO

STORED = json.loads((Path(__file__).parent / "data" / "lavaan_scores.json").read_text())


def brute(case):
    """Exact scores by dense algebra: (rows, latent), one block for each level that has latent variables."""
    stored = reference.expected(case, "brute_scores")
    out = {}
    for level in (1, 2):
        block = stored[f"level{level}_first20"]
        names = [block["cols"]] if isinstance(block["cols"], str) else block["cols"]
        if names:
            out[level] = pd.DataFrame(block["data"], columns=names, index=block.get("cluster"))
    return out


SCORED = [
    case
    for case in reference_fits.TWO_LEVEL
    if "brute_scores" in json.loads((reference.REFERENCE / case / "expected.json").read_text())
    and brute(case)
]


@pytest.fixture(scope="module")
def fit(demo):
    return msem.sem(DEMO, demo, cluster="cluster")


@reference.needs_reference
def test_there_are_reference_scores():
    assert len(SCORED) >= 8


@reference.needs_reference
@pytest.mark.parametrize("case", SCORED)
def test_scores_are_the_exact_ones_of_the_reference(case):
    found = reference_fits.fit(case)
    for level, exact in brute(case).items():
        ours = found.factor_scores(level)[list(exact)]
        ours = ours.dropna().iloc[:20] if level == 1 else ours.loc[list(exact.index)]
        np.testing.assert_allclose(ours, exact, rtol=1e-4, atol=1e-5)


@reference.needs_reference
def test_standard_deviations_depend_on_the_cluster_size():
    found = reference_fits.fit("demo_twolevel")
    scores = found.factor_scores(2)
    size = reference.data("demo_twolevel").groupby("cluster").size()
    sd = scores["fb_se"].groupby(size).agg(["min", "max"])
    np.testing.assert_allclose(sd["min"], sd["max"], rtol=1e-12)
    assert dict(sd["min"].round(3)) == {5: 0.460, 10: 0.368, 15: 0.326, 20: 0.301}


@pytest.mark.parametrize("method", ["EBM", "ML"])
def test_scores_do_not_depend_on_where_a_covariate_is_measured_from(demo, fit, method):
    moved = msem.sem(DEMO, demo.assign(x1=demo["x1"] + 5), cluster="cluster")
    pd.testing.assert_frame_equal(
        moved.factor_scores(2, method=method), fit.factor_scores(2, method=method), rtol=1e-6, atol=1e-6
    )
    # a within-level factor is not centred: its intercept is zero, so its mean moves with the covariate
    shift = 5 * fit.params["fw~x1"]
    ours, theirs = fit.factor_scores(1, method=method), moved.factor_scores(1, method=method)
    np.testing.assert_allclose(theirs["fw"] - shift, ours["fw"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(theirs["fw_se"], ours["fw_se"], rtol=1e-6)


def test_posterior_means_have_the_mean_and_variance_of_the_model(demo, fit):
    scores = fit.factor_scores(2)
    total = scores["fb"].var(ddof=0) + (scores["fb_se"] ** 2).mean()
    assert total == pytest.approx(fit.implied[2].cov.loc["fb", "fb"], rel=0.02)


def test_maximum_likelihood_scores_are_not_shrunk(fit):
    eb, ml = fit.factor_scores(2), fit.factor_scores(2, method="ML")
    assert ml["fb"].std() > eb["fb"].std()
    assert (ml["fb_se"] > eb["fb_se"]).all()


@pytest.mark.parametrize(("one", "other"), [("EBM", "regression"), ("ML", "Bartlett")])
def test_methods_have_two_names(fit, one, other):
    pd.testing.assert_frame_equal(fit.factor_scores(method=one), fit.factor_scores(method=other))


@pytest.mark.parametrize("method", ["EBM", "ML"])
def test_new_data_that_are_the_old_give_the_same(demo, fit, method):
    for level in (1, 2, None):
        old = fit.factor_scores(level, method=method)
        pd.testing.assert_frame_equal(fit.factor_scores(level, method=method, newdata=demo), old)
    pd.testing.assert_frame_equal(fit.random_effects(newdata=demo), fit.random_effects())


def test_new_clusters_do_not_depend_on_each_other(demo, fit):
    some = demo[demo["cluster"].isin([3, 8, 90])].assign(cluster=lambda d: "new " + d["cluster"].astype(str))
    scores, all_of_them = fit.factor_scores(2, newdata=some), fit.factor_scores(2)
    assert list(scores.index) == ["new 3", "new 8", "new 90"]
    np.testing.assert_allclose(scores, all_of_them.loc[[3, 8, 90]], rtol=1e-12)
    one = some.iloc[[0]]
    assert fit.factor_scores(2, newdata=one)["fb_se"].iloc[0] > scores["fb_se"].iloc[0]


def test_order_of_rows_and_clusters_does_not_matter(demo, fit):
    shuffled = demo.sample(frac=1.0, random_state=1)
    within = fit.factor_scores(1, newdata=shuffled)
    pd.testing.assert_frame_equal(within.sort_index(), fit.factor_scores(1), rtol=1e-9)
    between = fit.factor_scores(2, newdata=shuffled)
    pd.testing.assert_frame_equal(between.sort_index(), fit.factor_scores(2).sort_index(), rtol=1e-9)


def test_rows_keep_the_index_of_the_data_and_left_out_ones_are_nan(demo):
    named = demo.set_index(pd.Index([f"unit {i}" for i in range(len(demo))]))
    named.loc["unit 3", "y2"] = np.nan
    found = msem.sem(DEMO, named, cluster="cluster")
    scores = found.factor_scores(1)
    assert scores.index.equals(named.index)
    assert list(scores.index[scores["fw"].isna()]) == ["unit 3"]
    complete = found.factor_scores(1, newdata=named.drop(index="unit 3"))
    pd.testing.assert_frame_equal(scores.drop(index="unit 3"), complete)


def test_both_levels_come_with_a_row_for_each_unit(demo, fit):
    both = fit.factor_scores()
    assert list(both) == ["fw", "fw_se", "fb", "fb_se"]
    between = fit.factor_scores(2).loc[demo["cluster"]].to_numpy()
    np.testing.assert_array_equal(both[["fb", "fb_se"]], between)
    pd.testing.assert_frame_equal(both[["fw", "fw_se"]], fit.factor_scores("within"))


def test_a_name_at_both_levels_is_told_apart(demo):
    found = msem.sem(DEMO.replace("fw", "f").replace("fb", "f"), demo, cluster="cluster")
    assert list(found.factor_scores()) == ["f", "f_se", "f.l2", "f_se.l2"]


def test_covariances_come_on_request(demo):
    text = "level: 1\n f =~ y1 + y2 + y3\n g =~ y4 + y5 + y6\nlevel: 2\n h =~ y1 + y2 + y3 + y4 + y5 + y6"
    found = msem.sem(text, demo, cluster="cluster")
    scores = found.factor_scores(1, cov=True)
    assert list(scores) == ["f", "g", "f_se", "g_se", "f_g_cov"]
    assert (scores["f_g_cov"].abs() < scores["f_se"] * scores["g_se"]).all()
    assert list(found.factor_scores("between", se=False)) == ["h"]


def test_random_effects_shrink_cluster_means(demo, fit):
    effects = fit.random_effects(cov=True)
    assert list(effects)[:6] == ["y1", "y2", "y3", "y1_se", "y2_se", "y3_se"]
    assert effects.index.name == "cluster"
    means = demo.groupby("cluster")["y1"].mean()
    assert effects["y1"].std() < means.std()
    # an intercept-only model: the shrunken mean of one variable
    simple = msem.sem("level: 1\n y1 ~~ y1\nlevel: 2\n y1 ~~ y1\n y1 ~ 1", demo, cluster="cluster")
    w, b = (simple.implied[level].cov.iloc[0, 0] for level in (1, 2))
    mean = simple.implied[2].mean.iloc[0]
    n = demo.groupby("cluster").size()
    ours = simple.random_effects()
    np.testing.assert_allclose(ours["y1"], mean + n * b / (w + n * b) * (means - mean), rtol=1e-10)
    np.testing.assert_allclose(ours["y1_se"], np.sqrt(w * b / (w + n * b)), rtol=1e-10)


@pytest.mark.parametrize("name", STORED["models"])
@pytest.mark.parametrize("method", ["regression", "Bartlett"])
@pytest.mark.parametrize("means", [True, False])
def test_single_level_scores_are_those_of_lavaan(demo, name, method, means):
    theirs = STORED["scores"][name][method]
    found = msem.sem(STORED["models"][name], demo.head(STORED["rows"]), meanstructure=means)
    ours = found.factor_scores(method=method)
    np.testing.assert_allclose(ours[theirs["names"]].head(8), theirs["first"], rtol=1e-5, atol=1e-6)
    se = ours[[f"{latent}_se" for latent in theirs["names"]]].to_numpy()
    np.testing.assert_allclose(se, np.tile(theirs["se"], (len(se), 1)), rtol=1e-5)
    again = found.factor_scores(1, method=method, newdata=demo.head(20))
    pd.testing.assert_frame_equal(again, ours.head(20), rtol=1e-9)


def test_scores_of_other_frames(demo, fit):
    scores = fit.factor_scores(1, newdata=pl.from_pandas(demo))
    pd.testing.assert_frame_equal(scores, fit.factor_scores(1))


def test_new_data_for_a_fit_from_moments(demo, fit):
    joint = msem.sem(DEMO, fit.saturated)
    with pytest.raises(DataError, match="newdata="):
        joint.factor_scores()
    with pytest.raises(DataError, match="cluster="):
        joint.factor_scores(newdata=demo)
    ours = joint.factor_scores(2, newdata=demo, cluster="cluster")
    np.testing.assert_allclose(ours["fb"], fit.factor_scores(2)["fb"], atol=0.05)


def test_bad_new_data_are_refused(demo, fit):
    with pytest.raises(DataError, match="no column 'cluster'"):
        fit.factor_scores(newdata=demo.drop(columns="cluster"))
    with pytest.raises(DataError, match="no column 'y2'"):
        fit.factor_scores(newdata=demo.drop(columns="y2"))
    varying = demo.assign(w1=np.arange(len(demo)) * 1.0)
    with pytest.raises(DataError, match="'w1' is in the level-2 block only, but varies"):
        fit.random_effects(newdata=varying)


def test_what_does_not_exist_is_refused(demo, fit):
    with pytest.raises(ValueError, match="method must be one of"):
        fit.factor_scores(method="median")
    with pytest.raises(ValueError, match="level must be 1 or 'within'"):
        fit.factor_scores(3)
    path = msem.sem("level: 1\n y1 ~ x1\nlevel: 2\n y1 ~ w1", demo, cluster="cluster")
    with pytest.raises(ModelError, match=r"no latent variable: there are no factor scores"):
        path.factor_scores()
    with pytest.raises(ModelError, match=r"at level 2; .* random_effects"):
        path.factor_scores(2)
    single = msem.cfa("f =~ y1 + y2 + y3", demo)
    with pytest.raises(ModelError, match="one level"):
        single.factor_scores(2)
    with pytest.raises(ModelError, match="at both levels"):
        single.random_effects()


def test_maximum_likelihood_scores_that_are_not_defined_are_refused(demo):
    text = "f =~ y1 + y2 + y3\n g =~ y4 + y5 + y6\n h =~ 1*f + 1*g\n f ~~ 0*g"
    with pytest.raises(
        ModelError, match="'h' at level 1 are not defined: no observed variable depends on it"
    ):
        msem.cfa(text, demo).factor_scores(method="ML")
    perfect = msem.cfa("f =~ y1 + y2 + y3\n y1 ~~ 0*y1\n", demo)
    with pytest.raises(ModelError, match=r"not positive definite; use method=.EBM."):
        perfect.factor_scores(method="ML")
    exact = perfect.factor_scores()
    np.testing.assert_allclose(
        exact["f"], demo["y1"] - perfect.params.get("y1~1", demo["y1"].mean()), atol=1e-9
    )
    assert (exact["f_se"] < 1e-6).all()


def test_several_groups_are_scored_by_their_own_model(demo):
    labelled = demo.assign(school=np.where(demo["cluster"] % 3 == 0, "north", "south"))
    found = msem.sem(DEMO, labelled, cluster="cluster", group="school")
    scores, between = found.factor_scores(1), found.factor_scores(2)
    assert list(between) == ["group", "fb", "fb_se"]
    assert scores.index.equals(demo.index)
    for label in ("north", "south"):
        part = labelled[labelled["school"] == label]
        alone = msem.sem(DEMO, part, cluster="cluster")
        np.testing.assert_allclose(scores.loc[part.index], alone.factor_scores(1), atol=1e-5)
        mine = between[between["group"] == label].drop(columns="group")
        np.testing.assert_allclose(mine, alone.factor_scores(2), atol=1e-5)
        new = found.factor_scores(newdata=part)
        pd.testing.assert_frame_equal(new, found.factor_scores().loc[part.index], rtol=1e-10)
    with pytest.raises(DataError, match="group 'west' of column 'school' is none of those of the model"):
        found.factor_scores(newdata=labelled.head(4).assign(school="west"))
    with pytest.raises(DataError, match="no column 'school'"):
        found.random_effects(newdata=demo)
    with pytest.raises(DataError, match="several groups"):
        found.random_effects(newdata=labelled.head(4).assign(cluster=1, school=["north", "south"] * 2))


def test_scores_and_distances_keep_their_digits_far_from_the_origin(demo, fit):
    moved = demo.assign(y2=demo["y2"] + 1e7, w1=demo["w1"] - 1e6)
    far = msem.sem(DEMO, moved, cluster="cluster")
    scores = far.factor_scores(2, method="ML")
    shift = -1e6 * far.params["fb~w1.l2"]
    np.testing.assert_allclose(scores["fb"] - shift, fit.factor_scores(2, method="ML")["fb"], atol=1e-5)
    np.testing.assert_allclose(scores["fb_se"], fit.factor_scores(2, method="ML")["fb_se"], rtol=1e-6)
    np.testing.assert_allclose(far.distances(1)["distance"], fit.distances(1)["distance"], rtol=1e-5)


def test_posterior_standard_deviations_are_calibrated():
    rng = np.random.default_rng(8)
    codes = np.repeat(np.arange(400), rng.integers(2, 12, 400))
    n = len(codes)
    between, within = rng.normal(size=400), rng.normal(size=n)
    y = np.outer(within + between[codes], [1.0, 0.8, 0.6]) + rng.normal(size=(n, 3))
    y += 0.4 * rng.normal(size=(400, 3))[codes]
    frame = pd.DataFrame(y, columns=["y1", "y2", "y3"]).assign(cluster=codes)
    text = "level: 1\n fw =~ 1*y1 + a*y2 + b*y3\nlevel: 2\n fb =~ 1*y1 + a*y2 + b*y3"
    scores = msem.sem(text, frame, cluster="cluster").factor_scores()
    first = np.searchsorted(codes, np.arange(400))
    for error in (
        (scores["fb"].to_numpy()[first] - between) / scores["fb_se"].to_numpy()[first],
        (scores["fw"] - within) / scores["fw_se"],
    ):
        # four standard errors of a mean square of normal errors
        assert abs((error**2).mean() - 1) < 4 * np.sqrt(2 / len(error))
