"""Weights and designs with ordered variables, by least squares and by maximum likelihood."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats

import msem
from msem import _core
from msem.errors import ModelError, UnsupportedError

ITEMS = ["u1", "u2", "u3"]
ONE = "f =~ u1 + u2 + u3 + y4\nf ~ x1"
TWO = """
level: 1
  fw =~ u1 + u3 + y4
  fw ~ x1
level: 2
  fb =~ u1 + u3 + y4
  fb ~ w1
  z ~ fb
  zc ~ fb
"""
FULL = """
level: 1
  u3 ~ x1
level: 2
  fb =~ u3
  u3 ~~ 0*u3
  fb ~ w1
"""


@functools.cache
def whole():
    data = msem.load_demo()
    for name, of, cuts in (("u1", "y1", [-0.8, 0.7]), ("u2", "y2", [0.0]), ("u3", "y3", [-1, 0, 1])):
        data[name] = np.digitize(data[of], cuts)
    data["w"] = np.random.default_rng(1).uniform(0.3, 3, len(data)).round(2)
    return data.assign(one=1.0)


@functools.cache
def sample(clusters=60):
    """Some clusters, with variables of clusters, whole weights of units, `k`, and of clusters, `c`."""
    data = whole()
    data = data[data["cluster"] <= clusters].reset_index(drop=True)
    rng = np.random.default_rng(3)
    mean = data.groupby("cluster")["y1"].mean() + rng.normal(size=clusters)
    data["z"] = data["cluster"].map(pd.Series(np.digitize(mean, [-0.3, 0.4]), mean.index))
    data["zc"] = data["cluster"].map(mean + rng.normal(size=clusters))
    data["k"] = rng.integers(1, 4, len(data))
    data["c"] = data["cluster"].map(dict(zip(mean.index, rng.integers(1, 4, clusters), strict=True)))
    return data


def repeated_rows(data):
    return data.loc[data.index.repeat(data["k"])].assign(id=lambda d: d.index).reset_index(drop=True)


def repeated_clusters(data):
    copies = [data[data["c"] > i].assign(cluster=lambda d, i=i: 10 * d["cluster"] + i) for i in range(3)]
    return pd.concat(copies, ignore_index=True)


def test_lavaan_has_the_same_weighted_estimates():
    # lavaan 0.6-14, sampling.weights = "w", estimator = "WLSMV"
    fit = msem.sem(ONE, whole(), ordered=ITEMS, weights="w")
    n = len(whole())
    expected = {
        "f=~u2": (0.89877780532, 0.0407872405),
        "f=~y4": (0.33573929456, 0.0492493075),
        "f~x1": (0.33037177496, 0.0229162513),
        "u1|t1": (-0.53789951273, 0.0297696221),
        "u3|t3": (0.67633480243, 0.0305125692),
        "y4~~y4": (2.27768942784, 0.0733380322),
        "f~~f": (0.62983936154, 0.0334802280),
        "y4~1": (-0.05743873931, 0.0339357260),
    }
    names = list(expected)
    assert_allclose(fit.params[names], [est for est, _ in expected.values()], atol=1e-6)
    assert_allclose(fit.bse[names] * np.sqrt(n / (n - 1)), [se for _, se in expected.values()], rtol=1e-5)
    tests = fit.tests()["statistic"]
    assert tests["standard"] * (n - 1) / n == pytest.approx(12.7792448, rel=1e-5)
    assert tests["scaled_shifted"] == pytest.approx(18.1315615 * n / (n - 1), rel=1e-3)


@pytest.mark.filterwarnings("ignore::msem.errors.ImproperSolutionWarning")
def test_weights_of_one_change_nothing():
    plain = msem.sem(ONE, whole(), ordered=ITEMS)
    ones = msem.sem(ONE, whole(), ordered=ITEMS, weights="one")
    assert_allclose(ones.params, plain.params, atol=1e-12)
    assert_allclose(ones.bse, plain.bse, rtol=1e-10)
    ordered = ["u1", "u3", "z"]
    plain = msem.sem(TWO, sample(), cluster="cluster", ordered=ordered)
    ones = msem.sem(TWO, sample(), cluster="cluster", ordered=ordered, weights="one", cluster_weights="one")
    assert_allclose(ones.params, plain.params, atol=1e-10)
    assert_allclose(ones.bse, plain.bse, rtol=1e-8)


@pytest.mark.parametrize("estimator", ["WLSMV", "ML"])
def test_whole_weights_of_one_level_are_repeated_rows(estimator):
    data = sample(200)
    model = ONE if estimator == "WLSMV" else "f =~ u1 + u2 + u3"
    weighted = msem.sem(model, data, ordered=ITEMS, estimator=estimator, weights="k")
    other = {"ML": "MLR"}.get(estimator, estimator)
    rows = msem.sem(model, repeated_rows(data), ordered=ITEMS, estimator=other, cluster="id")
    assert_allclose(weighted.params, rows.params, atol=1e-7)
    clustered = np.sqrt(len(data) / (len(data) - 1))
    assert_allclose(weighted.bse * clustered, rows.bse, rtol=1e-5)


def test_errors_of_thresholds_are_those_of_a_survey():
    data = whole().assign(region=whole()["cluster"] % 4)
    fit = msem.sem("f =~ u1 + u2 + u3", data, ordered=ITEMS, weights="w", psu="cluster", strata="region")
    below = (data["u2"] == 0).to_numpy()
    p = np.average(below, weights=data["w"])
    # Taylor linearization of a ratio with PSUs in strata
    total = (data["w"] * (below - p) / data["w"].sum()).groupby(data["cluster"]).sum()
    variance = 0.0
    for _, own in total.groupby(total.index % 4):
        variance += len(own) / (len(own) - 1) * ((own - own.mean()) ** 2).sum()
    cut = stats.norm.ppf(p)
    assert fit.params["u2|t1"] == pytest.approx(cut, abs=1e-8)
    assert fit.bse["u2|t1"] == pytest.approx(np.sqrt(variance) / stats.norm.pdf(cut), rel=1e-8)
    assert "Primary sampling units" in fit.summary()


@pytest.mark.filterwarnings("ignore::msem.errors.ImproperSolutionWarning")
@pytest.mark.parametrize("kind", ["rows", "clusters"])
def test_whole_weights_of_two_levels_are_repeated_units_and_clusters(kind):
    data, options = sample(), {"cluster": "cluster", "ordered": ["u1", "u3", "z"]}
    if kind == "rows":
        again = msem.sem(TWO, repeated_rows(data), **options)
        weighted = msem.sem(TWO, data, weights="k", weights_scale="none", **options)
    else:
        again = msem.sem(TWO, repeated_clusters(data), **options)
        weighted = msem.sem(TWO, data, cluster_weights="c", **options)
    one, two = again.ordered_moments, weighted.ordered_moments
    difference = np.array(
        [x - y for (_, x), (_, y) in zip(one.stage.items(), two.stage.items(), strict=True)]
    )
    assert_allclose(difference / np.sqrt(two.stage.acov.diagonal()), 0, atol=2e-5)


@pytest.mark.parametrize("kind", ["rows", "clusters"])
def test_whole_weights_by_maximum_likelihood_are_repeated_units_and_clusters(kind):
    data, options = sample(40), {"cluster": "cluster", "ordered": ["u3"], "estimator": "MLR"}
    if kind == "rows":
        again = msem.sem(FULL, repeated_rows(data), **options)
        weighted = msem.sem(FULL, data, weights="k", weights_scale="none", **options)
        assert weighted.llf == pytest.approx(again.llf, abs=1e-7)
        assert_allclose(weighted.bse, again.bse, rtol=1e-5)
    else:
        again = msem.sem(FULL, repeated_clusters(data), **options)
        weighted = msem.sem(FULL, data, cluster_weights="c", **options)
        copies = data.drop_duplicates("cluster")["c"].sum() / 40
        assert weighted.llf * copies == pytest.approx(again.llf, abs=1e-7)
        (clusters,) = weighted.sample.clusters
        bread = np.linalg.inv(weighted.objective.observed_information(weighted.theta))
        scores = weighted.objective.scores(weighted.theta, clusters)
        assert_allclose(weighted.vcov, bread @ scores.T @ scores @ bread, rtol=1e-6)
        assert_allclose(weighted.vcov, weighted.vcov.T)
    assert_allclose(weighted.params, again.params, atol=1e-6)
    # what is known of a cluster does not depend on how many it stands for
    scores = weighted.factor_scores(2)
    plain = msem.sem(FULL, data, **options)
    assert np.corrcoef(scores["fb"], plain.factor_scores(2)["fb"])[0, 1] > 0.99


def test_the_bread_of_weighted_units_is_how_estimates_move():
    data = sample(40)
    cluster = (data["cluster"] - 1).to_numpy()
    values = data[["u1", "y4", "u3"]].to_numpy(dtype=float)
    above = data.drop_duplicates("cluster")[["z", "zc"]].to_numpy(dtype=float)
    starts = [np.array(one, dtype=float) for one in ([-0.5, 0.4], [], [-0.7, 0, 0.6], [-0.3, 0.4], [])]
    weight = data["w"].to_numpy()

    def stage(times):
        return _core.two_level_first_stage(
            values,
            data[["x1"]].to_numpy(),
            cluster.tolist(),
            above,
            data.drop_duplicates("cluster")[["w1"]].to_numpy(),
            [3, 0, 4, 3, 0],
            [1, 1, 1],
            starts,
            weight,
            times,
        )

    times = np.linspace(0.5, 1.5, 40)
    found = stage(times)
    assert not found["unsettled"]
    assert not found["at_bound"]
    expected = np.linalg.solve(found["bread"], found["scores"][7] / times[7])
    h = 0.02
    up, down = (stage(times + d * (np.arange(40) == 7))["estimates"] for d in (h, -h))
    assert_allclose((up - down) / (2 * h), expected, atol=3e-3 * np.abs(expected).max())


def test_bootstraps_of_weighted_samples_are_refused():
    fit = msem.sem("f =~ u1 + u2 + u3", whole(), ordered=ITEMS, weights="w")
    with pytest.raises(UnsupportedError):
        fit.bootstrap(10)


# replicate weights

HADAMARD = functools.reduce(np.kron, [np.array([[1, 1], [1, -1]])] * 4)  # 16 replicates


def replicated(data, low, strata=15):
    """Weights of balanced repeated replications: one of two halves of each stratum counts more, the other one `low`."""
    stratum = data["cluster"].to_numpy() % strata
    half = data["cluster"].to_numpy() // strata % 2
    high = (HADAMARD[1 : strata + 1, :][stratum] > 0) == (half[:, None] == 0)
    factors = np.where(high, 2 - low, low)
    names = [f"r{k}" for k in range(len(HADAMARD))]
    return data.assign(**dict(zip(names, (data["w"].to_numpy()[:, None] * factors).T, strict=True))), names


def by_hand(text, data, names, scale, weights, **options):
    """Errors from fits with each set of replicate weights."""
    fits = [msem.sem(text, data, se="none", **{weights: name}, **options).params for name in names]
    own = msem.sem(text, data, se="none", **{weights: "w"}, **options).params
    return np.sqrt(scale * sum((one[own.index] - own) ** 2 for one in fits))


@pytest.mark.parametrize(
    ("options", "low", "scale"),
    [
        ({"estimator": "ULSMV"}, 0.0, "brr"),
        ({"estimator": "ULSMV"}, 0.5, "fay"),
        ({"estimator": "ML"}, 0.5, "fay"),
    ],
)
def test_replicate_weights_of_one_level_are_fits_with_each(options, low, scale):
    text = "f =~ u1 + u2 + u3\nf ~ x1"
    data, names = replicated(whole()[lambda d: d["cluster"] <= 120].reset_index(drop=True), low)
    options = {"ordered": ITEMS, **options}
    fit = msem.sem(text, data, weights="w", replicate_weights=names, replicate_scale=scale, **options)
    assert fit.options.se == "replicate"
    factor = 1 / len(names) / (1 - low) ** 2
    expected = by_hand(text, data, names, factor, "weights", **options)
    assert_allclose(fit.bse, expected[fit.bse.index], rtol=2e-3)
    # to first order they are the sandwich over the replicates
    linear = msem.sem(
        text, data, weights="w", replicate_weights=names, replicate_scale=scale, se="robust", **options
    )
    assert_allclose(linear.params, fit.params, atol=1e-6)
    assert_allclose(linear.bse, fit.bse, rtol=0.25 if low else 0.5)


def test_the_weight_matrix_is_that_of_the_whole_sample_in_all_replicates():
    text = "f =~ u1 + u2 + u3\nf ~ x1"
    data, names = replicated(whole()[lambda d: d["cluster"] <= 120].reset_index(drop=True), 0.5)
    fit = msem.sem(text, data, ordered=ITEMS, weights="w", replicate_weights=names, replicate_scale="fay")
    first = fit.ordered_moments.stage
    change = [
        msem.sem(text, data, ordered=ITEMS, weights=name).ordered_moments.stage.values - first.values  # noqa: PD011
        for name in names
    ]
    acov = 4 / len(names) * np.transpose(change) @ np.array(change)
    # the statistics' own errors, linearized, are those of refits but for what is of second order
    assert_allclose(np.sqrt(first.acov.diagonal()), np.sqrt(acov.diagonal()), rtol=0.1)
    assert np.isfinite(fit.tests()["pvalue"]).any()


@pytest.mark.parametrize("options", [{"estimator": "ULSMV"}, {"estimator": "ML"}])
def test_replicate_weights_of_two_levels_are_those_of_clusters(options):
    text = "level: 1\n  u1 ~ x1\nlevel: 2\n  u1 ~ w1"
    data, names = replicated(sample().assign(w=lambda d: 1.0 + d["cluster"] % 3), 0.5)
    options = {"cluster": "cluster", "ordered": ["u1"], **options}
    fit = msem.sem(text, data, cluster_weights="w", replicate_weights=names, replicate_scale="fay", **options)
    expected = by_hand(text, data, names, 4 / len(names), "cluster_weights", **options)
    assert_allclose(fit.bse, expected[fit.bse.index], rtol=5e-3)


def test_categories_that_count_for_nothing_in_a_replicate_are_named():
    data = whole()[lambda d: d["cluster"] <= 30].reset_index(drop=True)
    data["u1"] = np.where(data["cluster"] == 4, 3, data["u1"])
    data, names = replicated(data, 0.0)
    with pytest.raises(ModelError, match=r"replicate weights number .*category 3 of 'u1' is empty"):
        msem.sem(
            "f =~ u1 + u2 + u3",
            data,
            ordered=ITEMS,
            weights="w",
            replicate_weights=names,
            replicate_scale="brr",
        )


@pytest.mark.parametrize("clusters", [49, 50])
def test_weights_of_clusters_that_add_up_to_their_number_but_for_rounding(clusters):
    data = sample(clusters).assign(v=lambda d: d["cluster"] % 2 + 1.0)
    text = "level: 1\nu1 ~ x1\nlevel: 2\nu1 ~ w1"
    scaled, twice = (
        msem.sem(
            text, data.assign(v=times * data["v"]), ordered=["u1"], cluster="cluster", cluster_weights="v"
        )
        for times in (1, 2)
    )
    repeated = pd.concat([data.assign(new=2 * data["cluster"]), data.assign(new=2 * data["cluster"] + 1)])
    repeated = repeated[(repeated["new"] % 2 == 0) | (repeated["v"] == 2)]
    again = msem.sem(text, repeated, ordered=["u1"], cluster="new")
    assert scaled.nclusters == clusters
    assert_allclose(twice.params, scaled.params, rtol=1e-9)
    assert_allclose(again.params, scaled.params, rtol=1e-5)
