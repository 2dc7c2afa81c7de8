"""Influence of single clusters: steps against refits, refits against fits of the other clusters."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import msem
from msem import _core
from msem.errors import DataError, UnsupportedError
from rows import DEMO

LABELS = """
level: 1
    fw =~ y1 + a * y2 + b * y3
    fw ~ x1
level: 2
    fb =~ y1 + a * y2 + b * y3
    fb ~ w1
"""


@pytest.fixture(scope="module")
def fit(demo):
    return msem.sem(DEMO, demo, cluster="cluster")


@pytest.fixture(scope="module")
def exact(fit):
    return fit.influence(exact=True, progress=False)


def without(text, data, name, **options):
    return msem.sem(text, data[data["cluster"] != name], cluster="cluster", **options)


def test_exact_influence_is_that_of_fits_to_the_other_clusters(demo, fit, exact):
    for name in (1, 82, 173):
        other = without(DEMO, demo, name)
        np.testing.assert_allclose(exact.change.loc[name], other.params - fit.params, atol=1e-6)
        lost = 2 * (fit.llf - fit.objective.llf(other.estimate.theta))
        assert exact.measures.loc[name, "displacement"] == pytest.approx(lost, rel=1e-4)
    assert (exact.measures["status"] == "ok").all()


def test_approximate_influence_is_close_to_the_exact_one(fit, exact):
    steps = fit.influence()
    # in standard errors
    assert (steps.standardized - exact.standardized).abs().to_numpy().max() < 1e-5
    np.testing.assert_allclose(steps.measures["cook"], exact.measures["cook"], rtol=1e-4)
    np.testing.assert_allclose(steps.measures["displacement"], exact.measures["displacement"], rtol=1e-4)
    assert repr(steps) == "<msem.Influence of 200 clusters on 20 parameters, approximate>"


def test_the_first_step_is_exact_for_a_mean_and_a_variance(demo):
    data = demo.head(50)[["y1"]]
    found = msem.sem("y1 ~~ y1\n y1 ~ 1", data)
    rows = found.sample.groups[0].clusters
    change, _ = _core.leave_one_out_steps(
        found.objective.core,
        found.estimate.theta,
        found.estimate.tangent,
        [],
        rows.of(found.objective.core.likelihoods[0]),
        range(50),
        corrections=0,
    )
    y = data["y1"].to_numpy()
    mean = np.array([np.delete(y, k).mean() for k in range(50)])
    assert list(found.params.index) == ["y1~~y1", "y1~1"]
    np.testing.assert_allclose(change[:, 1], mean - y.mean(), rtol=1e-9)
    # the sum of squares about the old mean
    square = np.array([((np.delete(y, k) - y.mean()) ** 2).mean() for k in range(50)])
    np.testing.assert_allclose(change[:, 0], square - y.var(), rtol=1e-9)


def test_measures_are_what_they_are_called(fit):
    found = fit.influence()
    change = found.change.to_numpy()
    information = fit.objective.observed_information(fit.estimate.theta)
    core, theta = fit.objective.core, fit.estimate.theta
    straight = [2 * d - (core.settle(theta, d, core.intercepts()) - theta) for d in change]
    cook = [d @ information @ d for d in straight]
    np.testing.assert_allclose(found.measures["cook"], cook, rtol=1e-9)
    moved = fit.estimate.theta + change[3]
    assert found.measures["displacement"].iloc[3] == pytest.approx(2 * (fit.llf - fit.objective.llf(moved)))
    np.testing.assert_allclose(found.standardized, found.change / fit.bse)
    assert list(found.measures) == ["size", "cook", "displacement", "status"]
    assert list(found.to_frame()) == [*found.measures, *fit.params.index]


def test_an_outlying_cluster_comes_first_and_its_influence_is_right(demo):
    odd = demo.copy()
    odd.loc[odd["cluster"] == 7, "y1"] += 6
    found = msem.sem(DEMO, odd, cluster="cluster")
    influence = found.influence()
    assert influence.top(3).index[0] == 7
    assert influence.top(1, by="displacement").index[0] == 7
    other = without(DEMO, odd, 7)
    error = (influence.change.loc[7] - (other.params - found.params)) / found.bse
    assert error.abs().max() < 0.01
    name = "y1~~y1.l2"
    top = influence.top(2, by=name)
    assert top.index[0] == 7
    assert top["change"].iloc[0] == influence.change.loc[7, name]


def test_influence_of_some_clusters(fit, exact):
    some = fit.influence(clusters=[173, 2])
    assert list(some.measures.index) == [173, 2]
    pd.testing.assert_frame_equal(some.change, fit.influence().change.loc[[173, 2]])
    refits = fit.influence(exact=True, clusters=[173, 2])
    pd.testing.assert_frame_equal(refits.change, exact.change.loc[[173, 2]], rtol=1e-8)
    with pytest.raises(DataError, match="no cluster 'A' in the data"):
        fit.influence(clusters=["A"])


def test_shared_parameters_and_bounds(demo):
    found = msem.sem(LABELS, demo, cluster="cluster")
    steps, refits = found.influence(), found.influence(exact=True, progress=False)
    assert (steps.standardized - refits.standardized).abs().to_numpy().max() < 1e-3
    text = LABELS.replace("fw ~ x1", "fw ~ lower(0.6) * x1")
    with pytest.warns(msem.errors.ImproperSolutionWarning):
        bound = msem.sem(text, demo, cluster="cluster")
    influence = bound.influence()
    assert (influence.change["fw~x1"] == 0).all()
    assert influence.standardized["fw~x1"].isna().all()
    assert (influence.measures["status"] == "ok").all()


@pytest.mark.parametrize(
    ("constraint", "error"), [("l2 == m2", 1e-4), ("m2 > 0.2", 1e-4), ("m2 * m3 == 0.45", 0.05)]
)
def test_influence_keeps_to_constraints(demo, constraint, error):
    text = "level: 1\n fw =~ y1 + l2 * y2 + y3\nlevel: 2\n fb =~ y1 + m2 * y2 + m3 * y3\n" + constraint
    found = msem.sem(text, demo, cluster="cluster")
    steps, refits = found.influence(), found.influence(exact=True, progress=False)
    assert (steps.standardized - refits.standardized).abs().to_numpy().max() < error
    some = refits.measures.index[:2]
    pd.testing.assert_frame_equal(
        found.influence(exact=True, clusters=list(some)).change, refits.change.loc[some]
    )


def test_influence_within_groups(demo):
    labelled = demo.assign(school=np.where(demo["cluster"] % 3 == 0, "north", "south"))
    found = msem.sem(DEMO, labelled, cluster="cluster", group="school", group_equal=["loadings"])
    steps, refits = found.influence(), found.influence(exact=True, progress=False)
    assert list(steps.measures) == ["group", "size", "cook", "displacement", "status"]
    assert (steps.measures["group"] == "north").sum() == labelled.loc[
        labelled["school"] == "north", "cluster"
    ].nunique()
    # a cluster moves the parameters of its own group, and those of the other through the loadings
    assert (steps.standardized - refits.standardized).abs().to_numpy().max() < 5e-3


def test_influence_of_rows_of_a_single_level(demo):
    data = demo.head(120).set_index(pd.Index([f"unit {k}" for k in range(120)]))
    data.loc["unit 5", "y1"] = np.nan
    found = msem.sem("f =~ y1 + y2 + y3\n f ~ x1", data, meanstructure=True)
    steps, refits = found.influence(), found.influence(exact=True, progress=False)
    assert list(steps.measures.index) == list(data.index.drop("unit 5"))
    assert (steps.standardized - refits.standardized).abs().to_numpy().max() < 5e-3
    other = msem.sem("f =~ y1 + y2 + y3\n f ~ x1", data.drop(index="unit 9"), meanstructure=True)
    np.testing.assert_allclose(refits.change.loc["unit 9"], other.params - found.params, atol=1e-6)


def test_no_cluster_has_no_influence(fit):
    for exact in (False, True):
        assert fit.influence(exact=exact, clusters=[]).to_frame().shape == (0, 4 + fit.npar)


def test_rows_may_share_a_label(demo):
    data = demo.head(60).set_index(np.arange(60) // 2)
    found = msem.sem("y1 ~ x1", data)
    influence = found.influence()
    largest = influence.top(4, by="y1~x1")
    sizes = influence.standardized["y1~x1"].abs().to_numpy()
    np.testing.assert_array_equal(largest["standardized"].abs(), np.sort(sizes)[::-1][:4])
    assert list(largest.index) == list(influence.measures.index[np.argsort(-sizes)[:4]])
    assert list(found.scores().index) == list(data.index)
    with pytest.raises(DataError, match="several rows are called 3"):
        found.influence(clusters=[3])


def test_what_has_no_influence_is_refused(demo, fit):
    with pytest.raises(DataError, match="raw data"):
        msem.sem(DEMO, fit.saturated).influence()
    with pytest.raises(UnsupportedError, match="penalty"):
        msem.sem(DEMO, demo, cluster="cluster", penalty="between").influence()
    with pytest.raises(ValueError, match="by must be"):
        fit.influence().top(by="size")


@pytest.mark.parametrize("means", [True, False])
def test_clusters_of_a_single_level_model_are_left_out_whole(demo, means):
    text = "f =~ y1 + y2 + y3\n f ~ x1"
    found = msem.sem(text, demo, cluster="cluster", meanstructure=means)
    steps = found.influence(clusters=[173, 82, 1])
    refits = found.influence(exact=True, clusters=[173, 82, 1])
    assert list(steps.measures["size"]) == [20, 10, 5]
    other = without(text, demo, 173, meanstructure=means)
    np.testing.assert_allclose(refits.change.loc[173], other.params - found.params, atol=1e-6)
    # without means the others' sums of squares are about the mean of all, here
    np.testing.assert_allclose(steps.standardized, refits.standardized, atol=1e-4 if means else 0.05)
    without_one = found.jackknife(progress=False).estimates.loc[(1, 173)]
    np.testing.assert_allclose(without_one, refits.change.loc[173] + found.params, atol=1e-8)
    scores = found.factor_scores()
    alone = msem.sem(text, demo, meanstructure=means).factor_scores()
    pd.testing.assert_frame_equal(scores, alone, rtol=1e-6)


def test_robust_standard_errors_scale_the_changes(demo, fit):
    robust = msem.sem(DEMO, demo, cluster="cluster", estimator="MLR").influence(clusters=[7, 9])
    plain = fit.influence(clusters=[7, 9])
    pd.testing.assert_frame_equal(robust.change, plain.change, rtol=1e-6)
    assert not np.allclose(robust.standardized, plain.standardized)
