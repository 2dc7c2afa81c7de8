"""Plots of tables: what is drawn are the numbers of the table, and pictures look as they did."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import FancyArrowPatch
from numpy.testing import assert_allclose

import msem
from msem import plots
from msem.errors import DataError, ModelError
from pictures import PICTURES, difference, kept, pixels
from texts import DEMO

plt = pytest.importorskip("matplotlib.pyplot")

TOLERANCE = 0.003  # of 1; one arrow less makes more


@pytest.fixture(scope="module")
def fit(demo):
    return msem.sem(DEMO, demo, cluster="cluster")


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.mark.parametrize("draw", PICTURES, ids=lambda draw: draw.__name__)
def test_pictures_look_as_they_did(draw):
    assert difference(pixels(draw()), kept(draw.__name__)) < TOLERANCE


def test_another_picture_is_seen():
    draw = PICTURES[0]
    ax = draw()
    wanted = next(patch for patch in ax.patches if isinstance(patch, FancyArrowPatch))
    wanted.remove()
    assert difference(pixels(ax), kept(draw.__name__)) > TOLERANCE


def test_coefficients_of_several_fits(fit):
    levels = msem.segregated(DEMO, fit.saturated, method="ml")
    ax = plots.coefficients(separate=levels.naive, segregated=levels, level="between")
    table = levels.estimates()
    rows = table[(table["level"] == 2) & table["op"].isin(["=~", "~"]) & (table["se"] > 0)]
    assert [text.get_text() for text in ax.get_yticklabels()] == [
        "fb =~ y2",
        "fb =~ y3",
        "fb ~ w1",
        "fb ~ w2",
    ]
    drawn = [line for line in ax.lines if line.get_label() == "segregated"]
    assert_allclose(drawn[0].get_xdata(), rows["est"])
    ends = ax.collections[1].get_segments()  # the intervals of the second fit
    assert_allclose([segment[:, 0] for segment in ends], rows[["ci_lower", "ci_upper"]])
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["separate", "segregated"]
    both = plots.coefficients(fit)
    assert "Between" in [text.get_text() for text in both.get_yticklabels()]


def test_cluster_scores_in_order_of_size(fit):
    ax = plots.caterpillar(fit, ci_level=0.9)
    scores = fit.factor_scores(2).sort_values("fb")
    drawn = np.concatenate([line.get_xydata() for line in ax.lines if line.get_marker() == "o"])
    assert_allclose(drawn[np.argsort(drawn[:, 0]), 1], scores["fb"])
    half = [0.5 * np.ptp(segment[:, 1]) for segment in ax.collections[0].get_segments()]
    assert_allclose(half, 1.6448536 * scores["fb_se"], rtol=1e-6)
    assert "between part" in plots.caterpillar(fit, "y2").get_ylabel()


def test_residuals_by_level(fit):
    both = plots.residuals(fit)
    assert [ax.get_title(loc="left") for ax in both] == ["Between", "Within"]
    table = fit.residuals("cor").set_index(["level", "lhs", "op", "rhs"])["residual"]
    drawn = both[0].images[0].get_array()
    names = [text.get_text() for text in both[0].get_yticklabels()]
    at = (names.index("w1"), names.index("y2"))
    assert drawn[at] == pytest.approx(table[2, "y2", "~~", "w1"])
    _, ax = plt.subplots()
    assert plots.residuals(fit, level=1, ax=ax) is ax
    with pytest.raises(DataError, match="2 panels"):
        plots.residuals(fit, ax=ax)


def test_influence_and_distances(fit):
    found = fit.influence(progress=False)
    ax = plots.influence(found, named=2)
    largest = found.top(2).index.astype(str)
    assert {text.get_text() for text in ax.texts} == set(largest)
    assert plots.influence(found, by="fb~w1.l2").get_ylabel() == "Change of fb~w1.l2 in standard errors"
    scores = plots.distances(fit).lines[1].get_ydata()
    assert len(scores) == fit.nclusters
    assert (np.diff(scores) >= 0).all()
    assert abs(np.mean(scores)) < 0.25  # the model is true
    assert len(plots.distances(fit, kind="index").texts) == 5


def test_icc_and_level_fit(fit):
    ax = plots.icc(fit)
    assert_allclose(ax.lines[0].get_xdata(), fit.icc_table()["icc"])
    ax = plots.level_fit(fit)
    measures = fit.fit_measures(level="between")
    drawn = next(line for line in ax.lines if line.get_label() == "Between").get_xdata()
    assert_allclose(drawn, [1 - measures["cfi"], 1 - measures["tli"], measures["rmsea"], measures["srmr"]])
    whole = next(line for line in ax.lines if line.get_label() == "Whole model").get_xdata()
    assert np.isfinite(whole).sum() == 3  # the sum of the SRMR of both levels is none


def test_level_fit_is_robust_where_the_estimator_is(fit):
    robust = fit.update(estimator="MLR")
    measures = robust.fit_measures(level="between")
    ax = plots.level_fit(robust)
    drawn = next(line for line in ax.lines if line.get_label() == "Between").get_xdata()
    wanted = [
        1 - measures["cfi_robust"],
        1 - measures["tli_robust"],
        measures["rmsea_robust"],
        measures["srmr"],
    ]
    assert_allclose(drawn, wanted)


def test_profile_bootstrap_and_power(fit):
    profile = fit.profile("fb~w1.l2", points=5)
    ax = plots.profile(profile)
    assert_allclose(ax.lines[0].get_xydata(), profile.frame[["value", "deviance"]])
    drawn = fit.bootstrap(50, seed=1, progress=False)
    ax = plots.bootstrap(drawn, "fb~w1.l2", kind="normal")
    limits = drawn.conf_int(kind="normal").loc["fb~w1.l2"]
    assert {line.get_xdata()[0] for line in ax.lines} >= {*limits, fit.params["fb~w1.l2"]}
    formula = plots.bootstrap(drawn, "fb ~ w1", kind="normal")
    assert {line.get_xdata()[0] for line in formula.lines} == {line.get_xdata()[0] for line in ax.lines}
    with pytest.raises(ModelError, match="there are several"):
        plots.bootstrap(drawn)
    with pytest.raises(ModelError, match="no 'fb ~ w9'"):
        plots.bootstrap(drawn, "fb ~ w9")


def test_power_along_a_setting():
    population = "level: 1\n y ~~ 1*y\nlevel: 2\n y ~ 0.3*w\n w ~~ 1*w\n y ~~ 0.5*y"
    model = "level: 1\n y ~~ y\nlevel: 2\n y ~ w"
    found = msem.power(
        model,
        population,
        {"nclusters": [20, 60], "cluster_sizes": [3, 5]},
        replications=30,
        seed=1,
        progress=False,
    )
    ax = plots.power(found)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["Size of clusters 3", "Size of clusters 5"]
    assert ax.get_ylabel() == "Power of y~w.l2 (α = 0.05)"
    table = found.parameters
    wanted = table[(table["op"] == "~") & (table["cluster_sizes"] == 3)]
    assert_allclose(ax.containers[0].lines[0].get_xydata(), wanted[["nclusters", "power"]])
    assert len(plots.power(found, "y ~ w", along="cluster_sizes").containers) == 2


def test_missing_patterns():
    frame = pd.DataFrame({"cluster": [1, 1, 2, 2], "y": [1.0, 2.0, 3.0, np.nan], "x": [1.0, 3.0, 2.0, 4.0]})
    ax = plots.missing(frame, cluster="cluster")
    assert [text.get_text() for text in ax.texts] == ["3  (75.0%)", "1  (25.0%)"]
    assert [len(points.get_offsets()) for points in ax.collections] == [3, 1]


def test_groups_have_their_labels(demo):
    halves = demo.assign(region=np.where(demo["cluster"] % 2, "north", "south"))
    fit = msem.sem("f =~ y1 + y2 + y3", halves, group="region")
    heads = [text.get_text() for text in plots.coefficients(fit).get_yticklabels()]
    assert heads[::3] == ["north", "south"]
    two = msem.sem(DEMO, halves, cluster="cluster", group="region")
    heads = [text.get_text() for text in plots.coefficients(two, ops="~").get_yticklabels()]
    assert [one for one in heads if "," in one] == [
        f"{level}, {region}" for level in ("Between", "Within") for region in ("north", "south")
    ]


def test_more_than_two_levels():
    part = "y1 ~~ 0.4*y1; y2 ~~ 0.3*y2"
    text = f"level: 1; {part}; level: 2; {part}; level: 3; f =~ 1*y1 + 0.8*y2; f ~~ 0.5*f; y1 ~~ 0.5*y1; y2 ~~ 0.5*y2"
    data = msem.simulate(text, nclusters=[40, 4], cluster_sizes=5, seed=1)
    model = "level: 1; y1 ~~ y2; level: 2; y1 ~~ y2; level: 3; f =~ 1*y1 + 1*y2"
    fit = msem.sem(model, data, cluster=["cluster3", "cluster2"])
    ax = plots.icc(fit)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["Level 2", "Level 3"]
    ax = plots.caterpillar(fit)
    assert ax.get_xlabel() == "Clusters in order of their scores (40)"
    assert ax.get_ylabel().startswith("f: posterior mean")


def test_plots_are_named_and_completed():
    assert dir(plots) == sorted(plots.__all__)
    with pytest.raises(AttributeError, match=r"did you mean 'residuals'.*plots are bootstrap, caterpillar"):
        plots.residual  # noqa: B018


MISTAKES = [
    (lambda fit: plots.coefficients({"a": 3}), "is a int"),
    (lambda fit: plots.coefficients(fit, ops=":="), "nothing is estimated"),
    (lambda fit: plots.coefficients({str(k): fit for k in range(7)}), "7 fits"),
    (lambda fit: plots.caterpillar(fit, "fw"), "no scores of clusters; there are fb"),
    (lambda fit: plots.caterpillar(3), "takes a fit, not int"),
    (lambda fit: plots.profile(fit), "name the parameter"),
    (lambda fit: plots.influence(fit, by="cooks"), "by must be 'cook'"),
    (lambda fit: plots.distances(fit, kind="pp"), "kind must be 'qq' or 'index'"),
    (lambda fit: plots.residuals(fit, group="north"), "there is no group 'north'"),
    (lambda fit: plots.power(fit), r"takes what msem.power\(\) gives"),
    (lambda fit: plots.icc(fit, ax="here"), "axes of matplotlib"),
    (lambda fit: plots.missing(3), "not"),
]


@pytest.mark.parametrize(("call", "message"), MISTAKES, ids=range(len(MISTAKES)))
def test_mistakes(call, message, fit):
    with pytest.raises(ValueError, match=message):
        call(fit)


def test_failed_fits_are_not_drawn(demo):
    with pytest.warns(match="converge"):
        failed = msem.sem(DEMO, demo, cluster="cluster", max_iterations=1)
    for call in (plots.coefficients, plots.caterpillar, plots.residuals, plots.level_fit):
        with pytest.raises(ModelError, match="has not converged"):
            call(failed)


def test_one_level_has_no_clusters(demo):
    single = msem.sem("f =~ y1 + y2 + y3", demo)
    with pytest.raises(ModelError, match="one level"):
        plots.caterpillar(single)
    with pytest.raises(ModelError):
        plots.icc(single)
    with pytest.raises(ModelError):
        plots.level_fit(single)


@pytest.mark.parametrize("name", ["b", "fb ~ w1", "fb~w1", "fb~w1.l2"])
def test_parameters_have_the_names_that_they_have_elsewhere(labelled, name):
    fit, drawn, influence = labelled
    assert fit.params[name] == fit.params["b"]
    at = list(drawn.names).index("b")
    ax = plots.bootstrap(drawn, name, kind="normal")
    assert drawn.point[at] in {line.get_xdata()[0] for line in ax.lines}
    ax = plots.influence(influence, by=name, named=3)
    assert ax.get_ylabel() == "Change of b in standard errors"
    assert ax.get_xlabel().endswith("the 3 largest are named")
    pd.testing.assert_frame_equal(influence.top(4, by=name), influence.top(4, by="b"))
    with pytest.raises(ModelError, match="by must be 'cook', 'displacement' or"):
        plots.influence(influence, by="fb ~ w9")


@pytest.fixture(scope="module")
def labelled(demo):
    text = "level: 1\n fw =~ y1 + y2 + y3\nlevel: 2\n fb =~ y1 + y2 + y3\n fb ~ b*w1"
    fit = msem.sem(text, demo, cluster="cluster")
    return fit, fit.bootstrap(50, seed=1, progress=False), fit.influence(progress=False)


def test_completion_has_names_only(fit):
    fit.summary(fit_measures=True)
    names = dir(fit)
    assert all(name.isidentifier() for name in names)
    assert {"params", "fit_measures", "summary", "npar"} <= set(names)
    assert set(dir(msem)) == set(msem.__all__)
