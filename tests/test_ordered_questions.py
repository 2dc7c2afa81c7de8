"""What is asked of fits with ordered variables, held to what can be written down or integrated otherwise."""

import functools
import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from pandas.testing import assert_frame_equal
from scipy import integrate, optimize, special, stats

import msem
import oracle
from msem.errors import ConvergenceWarning, DataError, ModelError, UnsupportedError
from msem.estimation.objective import build_objective
from msem.postestimation import category_probabilities
from msem.resampling.row_replicates import row_source

ITEMS = ["u1", "u2", "u3"]
LEVELS = """
level: 1
  fw =~ u1 + u2 + u3
  fw ~ x1
level: 2
  fb =~ u1 + u2 + u3
  u1 ~~ 0*u1
  u2 ~~ 0*u2
  u3 ~~ 0*u3
  fb ~ w1
"""


@functools.cache
def data(clusters: int = 25) -> pd.DataFrame:
    frame = msem.load_demo()
    frame = frame[frame["cluster"] <= clusters].copy()
    frame["u1"] = np.digitize(frame["y1"], [-0.8, 0.7])
    frame["u2"] = np.digitize(frame["y2"], [0.0])
    frame["u3"] = np.digitize(frame["y3"], [-1.0, 0.0, 1.0])
    return frame


@functools.cache
def two_levels(**options: str) -> msem.Fit:
    few = options.get("estimator") == "ML"
    return msem.sem(LEVELS, data(25 if few else 200), cluster="cluster", ordered=ITEMS, **options)


def thresholds(fit: msem.Fit, name: str) -> np.ndarray:
    table = fit.estimates()
    return table[(table["op"] == "|") & (table["lhs"] == name)]["est"].to_numpy()


def conditional(moments, name: str, **given: float) -> tuple[float, float]:
    """Mean and variance of a variable of one level given others."""
    at = list(given)
    mean, cov = moments.mean, moments.cov
    paths = np.linalg.solve(cov.loc[at, at].to_numpy(), cov.loc[at, name].to_numpy())
    away = np.array(list(given.values())) - mean[at].to_numpy()
    return mean[name] + paths @ away, cov.loc[name, name] - paths @ cov.loc[at, name].to_numpy()


@pytest.mark.parametrize("options", [{}, {"estimator": "ML"}, {"estimator": "ML", "link": "logit"}])
def test_category_probabilities_are_integrals_of_the_implied_distribution(options):
    fit = two_levels(**options)
    found = fit.category_probabilities({"x1": [0.7, -1.0], "fb": 0.4})
    assert list(found.columns[:5]) == ["x1", "fb", "lhs", "group", "category"]
    assert_allclose(found.groupby(["x1", "lhs"])["est"].sum(), 1, rtol=1e-12)
    own = found.query("x1 == 0.7 and lhs == 'u3'")["est"].to_numpy()
    within = conditional(fit.implied[1], "u3", x1=0.7)
    w1 = fit.implied[2].mean["w1"]  # of clusters like the average one
    between = conditional(fit.implied[2], "u3", fb=0.4, w1=w1)
    mean, variance = within[0] + between[0], within[1] + between[1]
    cuts = np.array([-np.inf, *thresholds(fit, "u3"), np.inf])
    if options.get("link") == "logit":
        normal = stats.norm(0, np.sqrt(variance - np.pi**2 / 3))

        def density(e, tau):
            return normal.pdf(e) * stats.logistic.cdf(tau - mean - e)

        below = [integrate.quad(density, -12, 12, args=(tau,), epsabs=1e-12)[0] for tau in cuts[1:-1]]
        truth = np.diff([0, *below, 1])
    else:
        truth = np.diff(stats.norm.cdf(cuts, mean, np.sqrt(variance)))
    assert_allclose(own, truth, atol=1e-9)


def test_errors_of_category_probabilities_are_those_of_differences():
    fit = two_levels(estimator="ML", link="logit")
    found = fit.category_probabilities({"x1": 1.0}, variables="u1")
    model, theta = category_probabilities, fit.theta
    given = model._given(fit, {"x1": 1.0})
    of = model._Conditional(fit, 1, ["u1"], given)
    step = 1e-5 * np.eye(len(theta))
    slope = np.array(
        [
            (of.probabilities(theta + h, given.array) - of.probabilities(theta - h, given.array)) / 2e-5
            for h in step
        ]
    )
    assert_allclose(found["se"], np.sqrt(np.einsum("ik,ij,jk->k", slope, fit.vcov, slope)), rtol=1e-5)
    assert "se" not in fit.category_probabilities(se=False)


def test_category_probabilities_at_the_rows_of_a_frame():
    """Ids and what else is no variable of the model, and the ordered variables themselves, are left aside."""
    frame = data()
    fit = msem.sem("f =~ u1 + u2 + y3; f ~ x1 + x2", frame, ordered=["u1", "u2"])
    rows = frame.head(3)[["cluster", "x2", "u1", "w1", "x1"]].assign(school="north")
    found = fit.category_probabilities(rows, se=False)
    given = {name: rows[name].tolist() for name in ("x2", "x1")}
    assert_frame_equal(found, fit.category_probabilities(given, se=False))
    with pytest.raises(ModelError, match="'cluster' is no variable of the model"):
        fit.category_probabilities(rows[["cluster", "w1"]])
    with pytest.raises(ModelError, match="'school' is no variable of the model"):
        fit.category_probabilities({"x1": 0.0, "school": 1.0})


def test_category_probabilities_with_random_slopes():
    fit = msem.sem(
        "level: 1\n u1 ~ rv('s')*x1\nlevel: 2\n u1 ~~ s\n u1 ~~ u1\n s ~~ s\n s ~ 1",
        data(),
        cluster="cluster",
        ordered=["u1"],
        estimator="ML",
    )
    values = {(r.lhs, r.op, r.rhs): r.est for r in fit.estimates().query("level == 2").itertuples()}
    x = 1.5
    variance = 1 + values["u1", "~~", "u1"] + 2 * x * values["u1", "~~", "s"] + x**2 * values["s", "~~", "s"]
    cuts = np.array([-np.inf, *thresholds(fit, "u1"), np.inf])
    truth = np.diff(stats.norm.cdf(cuts, x * values["s", "~1", ""], np.sqrt(variance)))
    assert_allclose(fit.category_probabilities({"x1": x})["est"], truth, rtol=1e-9)
    # a cluster whose slope and intercept are known
    known = fit.category_probabilities({"x1": x, "s": 0.9, "u1.l2": -0.2})["est"]
    assert_allclose(known, np.diff(stats.norm.cdf(cuts, x * 0.9 - 0.2)), rtol=1e-9)


def test_category_probabilities_of_groups_and_one_level():
    frame = data().assign(half=np.where(data()["x2"] > 0, "up", "down"))
    frame["u1"] = pd.Categorical.from_codes(frame["u1"], ["no", "perhaps", "yes"], ordered=True)
    fit = msem.sem("f =~ u1 + y2 + y3", frame, group="half")
    found = fit.category_probabilities()
    shares = frame.groupby("half")["u1"].value_counts(normalize=True, sort=False)
    order = [shares[label][name] for label in fit.group_labels for name in ("no", "perhaps", "yes")]
    assert_allclose(found["est"], order, atol=1e-9)  # thresholds are free
    assert found["category"].tolist() == ["no", "perhaps", "yes"] * 2
    assert found["group"].tolist() == [1] * 3 + [2] * 3


@pytest.mark.parametrize(
    ("at", "kind", "message"),
    [
        ({"z": 1}, ModelError, "'z' is no variable"),
        ({"u1": 1}, ModelError, "'u1' stands at several levels"),
        ({"u1.l1": 1}, ModelError, "'u1.l1' is ordered itself"),
        ({"x1": [1, 2], "w1": [1, 2, 3]}, DataError, "'x1' has 2 values"),
        ({"x1": "much"}, DataError, "'x1' are no numbers"),
        ({"x1": []}, DataError, "there are no values of 'x1'"),
        ("x1", DataError, "at= has values by name"),
        (1.0, DataError, "at= has values by name"),
        ({"x1": 1, "x1.l1": 1}, DataError, "one variable"),
        ({"fb": 1, "u1.l2": 1}, DataError, "determine each other"),
    ],
)
def test_category_probabilities_given_nonsense(at, kind, message):
    with pytest.raises(kind, match=message):
        two_levels(estimator="ML").category_probabilities(at)


def test_category_probabilities_need_categories():
    fit = msem.sem("f =~ y1 + y2 + y3", data())
    with pytest.raises(ModelError, match="no variable of the model is ordered"):
        fit.category_probabilities()
    with pytest.raises(ModelError, match="'x1' is not ordered"):
        two_levels().category_probabilities(variables=["x1"])


# scores of latent variables

MIXED = """
level: 1
  fw =~ u1 + u3 + y4
  fw ~ x1
level: 2
  fb =~ u1 + u3 + y4 + climate
  u1 ~~ 0.1*u1
  fb ~ w1
"""


@functools.cache
def mixed() -> msem.Fit:
    frame = data(200)
    means = frame.groupby("cluster")["y1"].mean()
    shifted = means + np.random.default_rng(7).normal(size=len(means))
    cut = pd.Series(np.digitize(shifted, [-0.7, 0.6]), means.index)
    frame = frame.assign(climate=frame["cluster"].map(cut))
    return msem.sem(MIXED, frame, cluster="cluster", ordered=["u1", "u3", "climate"])


def mixed_density(fit: msem.Fit, frame: pd.DataFrame, top: list[str]):
    """Of one cluster's data and effects: variables `top` of level 2, then fw of each unit."""
    w, b = fit.implied[1], fit.implied[2]
    z = frame[["w1"]].iloc[0].to_numpy()
    items, continuous = ["u1", "u3"], ["y4", "x1"]

    def categories(y, mean, sd, cuts):
        ends = np.array([-np.inf, *cuts, np.inf])
        return np.log(special.ndtr((ends[y + 1] - mean) / sd) - special.ndtr((ends[y] - mean) / sd))

    def given(moments, of, on):
        paths = np.linalg.solve(moments.cov.loc[on, on], moments.cov.loc[on, of]).T
        return paths, moments.cov.loc[of, of] - paths @ moments.cov.loc[on, of].to_numpy()

    paths_b, left_b = given(b, top, ["w1"])
    centre_b = b.mean[top].to_numpy() + np.asarray(paths_b) @ (z - b.mean[["w1"]].to_numpy())
    paths_c, left_c = given(b, ["climate"], [*top, "w1"])
    joint = ["fw", *continuous]
    paths_w, left_w = given(w, items, joint)
    cuts = {name: thresholds(fit, name) for name in [*items, "climate"]}
    inverse_b, inverse_w = np.linalg.inv(left_b), np.linalg.inv(w.cov.loc[joint, joint])
    mean_w, mean_c, paths_w = w.mean[joint].to_numpy(), b.mean[[*top, "w1"]].to_numpy(), np.asarray(paths_w)
    observed, y = frame[continuous].to_numpy(), frame[items].to_numpy().astype(int)
    sd = np.sqrt(left_w.to_numpy().diagonal())
    sd_c, paths_c, climate = np.sqrt(left_c.iloc[0, 0]), np.asarray(paths_c)[0], int(frame["climate"].iloc[0])

    def function(x):
        upper, units = x[: len(top)], x[len(top) :]
        away = upper - centre_b
        out = -0.5 * away @ inverse_b @ away
        at = b.mean["climate"] + paths_c @ (np.append(upper, z) - mean_c)
        out += categories(climate, at, sd_c, cuts["climate"])
        v = np.column_stack([units, observed[:, 0] - upper[top.index("y4")], observed[:, 1]]) - mean_w
        out -= 0.5 * np.einsum("ij,jk,ik->", v, inverse_w, v)
        mean = v @ paths_w.T
        for k, name in enumerate(items):
            shift = w.mean[name] + mean[:, k] + upper[top.index(name)]
            out += categories(y[:, k], shift, sd[k], cuts[name]).sum()
        return out

    return function


@pytest.mark.parametrize("logistic", [False, True])
def test_modes_are_maxima_of_the_posterior_density(logistic):
    if logistic:
        fit = two_levels(estimator="ML", link="logit")
        frame, top = data(), ["fb"]
    else:
        fit = mixed()
        frame, top = fit.request.data, ["u1", "u3", "y4", "fb"]
    cluster = frame["cluster"].value_counts().idxmin()
    own = frame[frame["cluster"] == cluster]
    density = logit_density(fit, own) if logistic else mixed_density(fit, own, top)
    above = fit.factor_scores(2, method="EBM").loc[cluster]
    below = fit.factor_scores(1, method="EBM").loc[own.index]
    found = optimize.minimize(lambda x: -density(x), np.zeros(len(top) + len(own)), method="BFGS", tol=1e-7)
    assert_allclose(found.x[len(top) - 1], above["fb"], atol=2e-5)
    assert_allclose(found.x[len(top) :], below["fw"], atol=2e-5)
    at, h = found.x, 1e-3 * np.eye(len(found.x))
    curvature = np.array(
        [
            [
                (density(at + a + c) - density(at + a - c) - density(at - a + c) + density(at - a - c)) / 4e-6
                for c in h
            ]
            for a in h
        ]
    )
    spread = np.sqrt(np.linalg.inv(-curvature).diagonal())
    assert_allclose(spread[len(top) - 1], above["fb_se"], rtol=1e-4)
    assert_allclose(spread[len(top) :], below["fw_se"], rtol=1e-4)


def logit_density(fit: msem.Fit, frame: pd.DataFrame):
    """Of three binary or ordered items with factors at both levels, of one cluster, and its effects."""
    values = fit.estimates().set_index(["lhs", "op", "rhs", "level"])["est"]
    cuts = {name: np.array([-np.inf, *thresholds(fit, name), np.inf]) for name in ITEMS}
    w1, x1 = frame["w1"].iloc[0], frame["x1"].to_numpy()
    sd = {level: np.sqrt(values[name, "~~", name, level]) for level, name in ((1, "fw"), (2, "fb"))}

    def function(x):
        out = stats.norm(values["fb", "~", "w1", 2] * w1, sd[2]).logpdf(x[0])
        out += stats.norm(values["fw", "~", "x1", 1] * x1, sd[1]).logpdf(x[1:]).sum()
        for name in ITEMS:
            at = values["fw", "=~", name, 1] * x[1:] + values["fb", "=~", name, 2] * x[0]
            y = frame[name].to_numpy()
            p = stats.logistic.cdf(cuts[name][y + 1] - at) - stats.logistic.cdf(cuts[name][y] - at)
            out += np.log(p).sum()
        return out

    return function


LAVAAN = {  # 0.6-14, lavPredict(method = "EBM"), rows 1 to 4
    "f =~ u1 + u2 + u3": {"f": [0.18238909647, 0.67222275780, 0.18238909647, 0.03497978263]},
    "f =~ u1 + u2 + u3 + y4": {"f": [0.17140188716, 0.68764939127, 0.13645963632, 0.01037738611]},
    "f =~ u1 + u2 + u3\ng =~ y4 + y5 + y6\nf ~ x1": {
        "f": [0.29015963439, 0.64597927215, 0.25569528642, 0.08914461763],
        "g": [-0.1264431735, -0.3925662873, -0.7598172253, -0.6706941854],
    },
}


@pytest.mark.parametrize("model", LAVAAN)
def test_modes_are_lavaan_s(model):
    fit = msem.sem(model, data(200), ordered=ITEMS)
    found = fit.factor_scores(se=False)
    for name, values in LAVAAN[model].items():
        assert_allclose(found[name].iloc[:4], values, atol=5e-5)  # of estimates that differ by 1e-5 errors


def test_means_are_those_of_dense_quadrature():
    for options in ({}, {"parameterization": "theta"}, {"estimator": "ML", "link": "logit"}):
        few = data(200)
        fit = msem.sem("f =~ u1 + u2 + u3", few, ordered=ITEMS, **options)
        found = fit.factor_scores(method="EAP").iloc[:10]
        kind = stats.logistic(scale=np.sqrt(3) / np.pi).cdf if "link" in options else special.ndtr
        moments, points = fit.implied[1], np.linspace(-7, 7, 4001) * np.sqrt(fit.implied[1].cov.loc["f", "f"])
        for (_, row), mean, sd in zip(few.iterrows(), found["f"], found["f_se"], strict=False):
            weight = stats.norm.pdf(points, 0, np.sqrt(moments.cov.loc["f", "f"]))
            for name in ITEMS:
                slope = moments.cov.loc["f", name] / moments.cov.loc["f", "f"]
                left = np.sqrt(moments.cov.loc[name, name] - slope**2 * moments.cov.loc["f", "f"])
                ends, y = np.array([-np.inf, *thresholds(fit, name), np.inf]), int(row[name])
                weight = weight * (
                    kind((ends[y + 1] - slope * points) / left) - kind((ends[y] - slope * points) / left)
                )
            weight /= weight.sum()
            centre = weight @ points
            assert_allclose([mean, sd], [centre, np.sqrt(weight @ (points - centre) ** 2)], atol=5e-6)


def test_scores_say_what_they_cannot():
    loose = msem.sem("f =~ u1 + u2 + u3\nu1 ~~ 0.1*u2", data(200), ordered=ITEMS)
    for method in ("EBM", "EAP"):
        with pytest.raises(UnsupportedError, match=r"'u[12]' and 'u[12]' are ordered"):
            loose.factor_scores(method=method)
    single = "".join(f"f{k} =~ 0.8*u{k}\nf{k} ~~ 1*f{k}\n" for k in range(1, 4))
    three = msem.sem(single, data(100), ordered=ITEMS)
    assert three.factor_scores(se=False).shape[1] == 3
    with pytest.raises(UnsupportedError, match="'f3' is not among"):
        three.factor_scores(method="EAP")
    beside = msem.sem("f =~ u1 + u2 + u3\ng =~ y4 + y5 + y6", data(100), ordered=ITEMS)
    with pytest.raises(UnsupportedError, match="'g' is not among"):
        beside.factor_scores(method="EAP")
    with pytest.raises(UnsupportedError, match="order"):
        mixed().factor_scores(method="ML")


# one level by maximum likelihood


def test_one_level_by_maximum_likelihood_is_an_integral_over_the_factor():
    frame = data(15).assign(g=lambda d: d["cluster"] % 5)
    fit = msem.sem("f =~ u1 + u2 + u3\nf ~ x1", frame, ordered=ITEMS, estimator="ML")
    values = fit.estimates().set_index(["lhs", "op", "rhs"])["est"]
    points = np.linspace(-8, 8, 801)
    sd = np.sqrt(values["f", "~~", "f"])
    weight = stats.norm.pdf(points) * (points[1] - points[0])
    f = values["f", "~", "x1"] * frame["x1"].to_numpy()[:, None] + sd * points
    likelihood = np.ones_like(f)
    for name in ITEMS:
        cuts, y = np.array([-np.inf, *thresholds(fit, name), np.inf]), frame[name].to_numpy()
        at = values["f", "=~", name] * f
        likelihood *= stats.norm.cdf(cuts[y + 1][:, None] - at) - stats.norm.cdf(cuts[y][:, None] - at)
    logs = np.log(likelihood @ weight)
    assert fit.llf == pytest.approx(logs.sum(), abs=1e-5)
    assert_allclose(fit.cluster_loglik(), logs, atol=1e-5)
    assert np.abs(fit.scores().to_numpy().sum(axis=0)).max() < 1e-3
    # errors that are robust to clusters: scores of their rows, added
    robust = msem.sem("f =~ u1 + u2 + u3\nf ~ x1", frame, ordered=ITEMS, estimator="MLR", cluster="g")
    scores = robust.scores().to_numpy()
    assert scores.shape == (5, fit.npar)
    assert_allclose(scores, fit.scores().groupby(frame["g"].to_numpy(), sort=False).sum(), atol=1e-3)
    assert re.search(r"Over +1\n", fit.summary())


@pytest.mark.parametrize("model", ["f =~ u1 + u2 + u3 + y4\nf ~ x1", "f =~ u1 + u2\ng =~ u3 + y4\ny5 ~ f"])
def test_derivatives_at_one_level_are_those_of_the_value(model):
    frame = data(20).reset_index(drop=True)
    frame["u3"] = frame["u3"].where(np.random.default_rng(3).uniform(size=len(frame)) > 0.2)
    fit = msem.sem(model, frame, ordered=ITEMS, estimator="ML", missing="fiml")
    objective, theta = fit.objective, fit.theta + 0.05
    gradient = objective.gradient(theta)
    numeric = oracle.differences(lambda t: np.array([objective.value(t)]), theta)[0]
    assert_allclose(gradient, numeric, rtol=0, atol=2e-7 * np.abs(gradient).max())
    (clusters,) = fit.sample.clusters
    assert_allclose(
        -2 * objective.scores(theta, clusters).sum(axis=0),
        gradient,
        rtol=0,
        atol=1e-9 * np.abs(gradient).max(),
    )
    found = objective.observed_information(theta)
    truth = oracle.differences(objective.gradient, theta) / 2
    assert_allclose(found, truth, rtol=0, atol=2e-5 * np.abs(truth).max())
    weights = np.random.default_rng(5).integers(0, 4, len(frame)).astype(float)
    logliks = objective.cluster_loglik(theta, clusters)
    weighted = build_objective(
        fit.table, fit.statistics, clusters.of(objective.core.likelihoods[0]).weighted(weights)
    )
    assert weighted.core.value(theta) == pytest.approx(-2 * weights @ logliks, rel=1e-12)


# reliability


def expected_sum(fit: msem.Fit, level: int, factors: np.ndarray, rest: float) -> np.ndarray:
    """Expected sum of the categories given the factor of a level, with residual variances and `rest` beside it."""
    values = fit.estimates().query("level == @level").set_index(["lhs", "op", "rhs"])["est"]
    factor = fit.table.latent(level)[0]
    out = np.zeros_like(factors)
    for name in ITEMS:
        loading = values[factor, "=~", name]
        sd = np.sqrt(
            fit.implied[level].cov.loc[name, name] - loading**2 * values[factor, "~~", factor] + rest
        )
        out += special.ndtr((loading * factors[..., None] - thresholds(fit, name)) / sd).sum(axis=-1)
    return out


def test_reliability_of_a_sum_is_the_variance_of_its_expectation():
    fit = msem.sem("f =~ u1 + u2 + u3", data(200), ordered=ITEMS)
    (row,) = fit.reliability().itertuples()
    sd = np.sqrt(fit.implied[1].cov.loc["f", "f"])
    points = np.linspace(-8, 8, 2001)
    weight = stats.norm.pdf(points) / stats.norm.pdf(points).sum()
    true = expected_sum(fit, 1, sd * points, 0.0)
    true = weight @ true**2 - (weight @ true) ** 2
    # the variance of the sum from the probabilities of all patterns
    total = mean = 0.0
    table = []
    for name in ITEMS:
        loading, cuts = fit.params.get(f"f=~{name}", 1.0), thresholds(fit, name)
        left = np.sqrt(1 - loading**2 * sd**2)
        below = special.ndtr((cuts - loading * sd * points[:, None]) / left)
        table.append(np.diff(np.hstack([np.zeros((2001, 1)), below, np.ones((2001, 1))]), axis=1))
    for a, b, c in np.ndindex(*(own.shape[1] for own in table)):
        total += weight @ (table[0][:, a] * table[1][:, b] * table[2][:, c]) * (a + b + c) ** 2
        mean += weight @ (table[0][:, a] * table[1][:, b] * table[2][:, c]) * (a + b + c)
    assert row.est == pytest.approx(true / (total - mean**2), rel=1e-6)
    assert row.ci_lower < row.est < row.ci_upper


def test_reliability_at_two_levels():
    fit = two_levels()
    found = fit.reliability().set_index("coefficient")
    assert found.index.tolist() == ["omega", "omega", "omega_b", "omega_2l"]
    assert fit.reliability(level=2)["est"].tolist() == found.query("level == 2")["est"].tolist()
    # all of the between part is the factor's
    assert found.query("level == 2")["est"].iloc[0] == pytest.approx(1.0, abs=1e-9)
    above, below = fit.implied[2].cov.loc["fb", "fb"], fit.implied[1].cov.loc["fw", "fw"]
    points = np.linspace(-7, 7, 301)
    weight = stats.norm.pdf(points) / stats.norm.pdf(points).sum()
    values = fit.estimates().set_index(["lhs", "op", "rhs", "level"])["est"]
    given_b, given = np.zeros(301), np.zeros((301, 301))
    category = {}
    for name in ITEMS:
        b = values["fb", "=~", name, 2] * np.sqrt(above) * points
        w = values["fw", "=~", name, 1] * np.sqrt(below) * points
        cuts = thresholds(fit, name) - fit.implied[1].mean[name] - fit.implied[2].mean[name]
        spread = np.sqrt(fit.implied[1].cov.loc[name, name])
        given_b += special.ndtr((b[:, None] - cuts) / spread).sum(axis=1)
        above_cut = special.ndtr(b[:, None, None] + w[:, None] - cuts)
        given += above_cut.sum(axis=2)
        category[name] = (above_cut * (2 * np.arange(1, len(cuts) + 1) - 1)).sum(axis=2) - above_cut.sum(
            axis=2
        ) ** 2

    def variance(x, of):
        return np.sum(of * x**2) - np.sum(of * x) ** 2

    both = weight[:, None] * weight
    between, true = variance(given_b, weight), variance(given, both)
    total = true + sum((both * own).sum() for own in category.values())
    size = fit.statistics.harmonic_size
    truth = [
        (true - between) / (total - between),
        1.0,
        between / (between + (total - between) / size),
        true / total,
    ]
    assert_allclose(
        found.sort_values("level", kind="stable")["est"], [truth[3], truth[0], truth[1], truth[2]], rtol=2e-5
    )


def test_errors_of_reliability_are_those_of_differences():
    fit = msem.sem("f =~ u1 + u2 + y3", data(200), ordered=ITEMS[:2])
    found = fit.reliability()

    def value(theta):
        return fit.replicate(
            replace(fit.estimate, optimum=replace(fit.estimate.optimum, theta=theta)), fit.sample
        )

    slope = np.array(
        [
            (value(fit.theta + h).reliability()["est"] - value(fit.theta - h).reliability()["est"]).to_numpy()
            / 2e-5
            for h in 1e-5 * np.eye(fit.npar)
        ]
    )
    assert_allclose(found["se"], np.sqrt(np.einsum("ik,ij,jk->k", slope, fit.vcov, slope)), rtol=1e-5)
    with pytest.raises(UnsupportedError, match='link="probit"'):
        two_levels(estimator="ML", link="logit").reliability()


# invariance


def test_invariance_over_groups_of_ordered_variables():
    frame = data(200).assign(half=lambda d: np.where(d["x2"] > 0, "up", "down"))
    found = msem.invariance("f =~ u1 + u2 + u3", frame, ordered=ITEMS, group="half")
    assert list(found.fits) == ["configural", "scalar", "strict"]
    table = found.fits["scalar"].estimates()
    assert table.query("group == 2 and op == '~~' and se > 0")["lhs"].tolist() == [*ITEMS, "f"]
    whole = msem.compare_models(found.fits["configural"], found.fits["scalar"])
    assert found.tests.loc["scalar", "chisq_diff"] == pytest.approx(whole["chisq_diff"].iloc[1])
    assert set(found.free_next["step"]) == {"scalar"}  # residual variances are at 1
    part = msem.invariance(
        "f =~ u1 + u2 + u3",
        frame,
        ordered=ITEMS,
        group="half",
        partial="u3|t1",
        steps=["configural", "scalar"],
    )
    # one threshold is free, and with it the residual variance is 1 again
    assert part.tests["df_diff"].tolist() == [found.tests["df_diff"].iloc[0]]
    assert (
        "u3"
        not in part.fits["scalar"].estimates().query("group == 2 and op == '~~' and se > 0")["lhs"].tolist()
    )
    with pytest.raises(UnsupportedError, match='leave out "metric"'):
        msem.invariance(
            "f =~ u1 + u2 + u3", frame, ordered=ITEMS, group="half", steps=["configural", "metric"]
        )
    least = msem.invariance("f =~ y1 + y2 + y3 + y4", frame, group="half", estimator="DWLS")
    assert least.tests["df_diff"].tolist() == [3, 3, 4]


def test_restrictions_of_two_levels_raise_the_minimum_though_not_the_scaled_statistics():
    model = LEVELS.replace("  fw ~ x1\n", "").replace("  fb ~ w1\n", "")
    frame = data(200).assign(half=lambda d: np.where(d["cluster"] % 2 == 1, "odd", "even"))
    found = msem.invariance(model, frame, ordered=ITEMS, group="half", cluster="cluster")
    tests = {name: fit.tests() for name, fit in found.fits.items()}
    minima = [own.loc["standard", "statistic"] for own in tests.values()]
    assert minima == sorted(minima)
    # the configural minimum is that of the groups by themselves: it is no local one of both
    alone = [
        msem.sem(model, own, cluster="cluster", ordered=ITEMS).tests() for _, own in frame.groupby("half")
    ]
    for name in ("standard", "residual"):
        apart = sum(own.loc[name, "statistic"] for own in alone)
        assert tests["configural"].loc[name, "statistic"] == pytest.approx(apart, rel=1e-6)
    # that parts of clusters have correlations of 1 is known far better than thresholds and loadings of groups:
    # its misfit is scaled up by itself, and drowned among theirs
    scaled = [own.loc["mean_scaled"] for own in tests.values()]
    assert scaled[0]["scaling"] < 0.2 * scaled[1]["scaling"]
    assert scaled[0]["statistic"] > scaled[1]["statistic"]


def test_twice_the_clusters_are_twice_the_statistic():
    frame = data(60)
    twice = pd.concat([frame, frame.assign(cluster=frame["cluster"] + 1000)])
    one, two = (msem.sem(LEVELS, own, cluster="cluster", ordered=ITEMS) for own in (frame, twice))
    # the searches of the first stage stop where steps are rounding of the log-likelihood, 1e-13 of it, which is
    # 1e-5 standard errors
    assert_allclose(two.params, one.params, rtol=0, atol=1e-5 * one.bse.min())
    statistic = [fit.tests().loc["standard", "statistic"] for fit in (one, two)]
    assert statistic[1] == pytest.approx(2 * statistic[0], rel=1e-6)


# simulation

TEXT = """
level: 1
  fw =~ 1*u1 + 0.8*u2 + 0.7*u3
  fw ~~ 0.5*fw
level: 2
  fb =~ 1*u1 + 0.8*u2 + 0.7*u3
  fb ~~ 0.6*fb
  u1 ~~ 0*u1
  u2 ~~ 0.1*u2
  u3 ~~ 0*u3
  u1 | -0.5*t1 + 0.5*t2
  u2 | 0*t1
  u3 | -1*t1 + 0*t2
"""


def test_samples_of_ordered_variables_have_the_probabilities_of_the_population():
    drawn = msem.simulate(TEXT, nclusters=4000, cluster_sizes=5, seed=3)
    share = drawn["u1"].value_counts(normalize=True).sort_index()
    assert_allclose(share, np.diff(special.ndtr(np.array([-9, -0.5, 0.5, 9]) / np.sqrt(2.1))), atol=0.015)
    same = drawn.groupby("cluster")["u3"].agg(["first", "last"])
    joint = stats.multivariate_normal([0, 0], [[1, 0.294 / 1.539], [0.294 / 1.539, 1]]).cdf(
        np.array([-1, -1]) / np.sqrt(1.539)
    )
    assert ((same == 0).all(axis=1)).mean() == pytest.approx(joint, abs=0.02)
    assert_frame_equal(drawn, msem.simulate(TEXT, nclusters=4000, cluster_sizes=5, seed=3))


def test_samples_of_fits_with_ordered_variables():
    names = pd.Categorical.from_codes(data()["u3"], list("abcd"), ordered=True)
    frame = data().assign(u3=names)
    fit = msem.sem("f =~ u1 + u2 + u3", frame, ordered=["u1", "u2"])
    drawn = msem.simulate(fit, seed=1)
    assert len(drawn) == len(frame)
    assert drawn["u3"].cat.categories.tolist() == list("abcd")
    again = msem.simulate(fit, nobs=20_000, seed=1)
    probability = fit.category_probabilities(variables="u3")["est"]
    assert_allclose(again["u3"].value_counts(normalize=True, sort=False), probability, atol=0.02)
    logit = msem.sem("f =~ u1 + u2 + u3", data(), ordered=ITEMS, estimator="ML", link="logit")
    many = msem.simulate(logit, nobs=20_000, seed=2)
    probability = logit.category_probabilities(variables="u1")["est"]
    assert_allclose(many["u1"].value_counts(normalize=True).sort_index(), probability, atol=0.015)
    both = (many["u1"] == 2) & (many["u2"] == 1)
    values, points = logit.estimates().set_index(["lhs", "op", "rhs"])["est"], np.linspace(-8, 8, 401)
    f = np.sqrt(values["f", "~~", "f"]) * points
    above = [
        stats.logistic.cdf(values["f", "=~", name] * f - thresholds(logit, name)[-1]) for name in ("u1", "u2")
    ]
    joint = np.average(above[0] * above[1], weights=stats.norm.pdf(points))
    assert both.mean() == pytest.approx(joint, abs=0.015)


@pytest.mark.parametrize(
    ("text", "options", "kind", "message"),
    [
        (TEXT.replace("-0.5*t1 + 0.5*t2", "0.5*t2"), {}, ModelError, r"no value for u1.*t1"),
        (
            TEXT.replace("-0.5*t1", "0.7*t1"),
            {},
            ModelError,
            "threshold t2 of 'u1' is fixed at 0.5 and t1 at 0.7",
        ),
        (TEXT, {"as_": "statistics"}, UnsupportedError, "are data"),
    ],
)
def test_populations_that_are_none(text, options, kind, message):
    with pytest.raises(kind, match=message):
        msem.simulate(text, nclusters=10, cluster_sizes=5, seed=1, **options)


FACTOR = (
    "f =~ 1*v1 + 0.8*v2 + 0.7*v3\nf ~ 0.5*x\nf ~~ 0.5*f\nx ~~ 2*x\n"
    "v1 | -0.5*t1 + 0.5*t2\nv2 | 0.3*t1\nv3 | 0*t1 + 1*t2\n"
)


def test_power_fits_the_samples_that_simulate_draws():
    model = "f =~ v1 + v2 + v3\nf ~ x"
    found = msem.power(model, FACTOR, {"nobs": [300, 400]}, replications=3, seed=7, progress=False)
    assert (found.designs["converged"] == 1).all()
    known = found.parameters.groupby(["lhs", "op", "rhs"])["population"].first()
    assert_allclose(
        known.loc[[("f", "=~", "v2"), ("f", "~", "x"), ("f", "~~", "f"), ("v3", "|", "t2")]],
        [0.8, 0.5, 0.5, 1],
        atol=1e-6,
    )
    drawn = msem.simulate(FACTOR, nobs=300, seed=7, replications=3)
    fit = msem.sem(model, drawn[2], ordered=["v1", "v2", "v3"])
    assert_allclose(found.fits(0).params.iloc[2], fit.params, rtol=1e-12)
    assert_allclose(found.fits(0).bse.iloc[2], fit.bse, rtol=1e-12)
    test = fit.tests().loc["scaled_shifted"]
    fits = found.fits(0).fits
    assert_allclose(fits[["chisq", "pvalue"]].iloc[2], test[["statistic", "pvalue"]], rtol=1e-9)
    assert found.designs["rejected"][0] == (fits["pvalue"] < 0.05).mean()
    assert_allclose(found.designs["chisq"][0], fits["chisq"].mean())


@pytest.mark.filterwarnings("ignore:.*have no estimates:msem.errors.ConvergenceWarning")
def test_the_adjusted_test_rejects_false_models_and_hardly_true_ones():
    wrong = "f =~ v1 + v2 + v3 + v4"
    two = "f =~ 1*v1 + 0.8*v2\ng =~ 1*v3 + 0.8*v4\nf ~~ 0.5*f + 0.1*g\ng ~~ 0.5*g\n"
    cuts = "v1 | 0*t1\nv2 | 0.3*t1\nv3 | 0*t1\nv4 | 0.5*t1\n"
    true = "f =~ v1 + v2\ng =~ v3 + v4\nf ~~ g"
    for model, low, high in ((true, 0.0, 0.2), (wrong, 0.6, 1.0)):
        samples = msem.simulate(two + cuts, nobs=600, seed=3, replications=25)
        fits = (
            msem.compile(f"{model}\nv1 | t1\nv2 | t1\nv3 | t1\nv4 | t1", ordered=True).fit_many(samples).fits
        )
        assert low <= (fits["pvalue"][fits["converged"]] < 0.05).mean() <= high


@pytest.mark.parametrize("options", [{"parameterization": "theta"}, {"estimator": "ML"}])
def test_power_knows_the_population_in_the_scale_of_the_model(options):
    model = "f =~ v1 + v2 + v3\nf ~ x"
    found = msem.power(model, FACTOR, {"nobs": 200}, replications=1, seed=7, progress=False, **options)
    known = found.parameters.set_index(["lhs", "op", "rhs"])["population"]
    # residual variances .5, .68 and .755 given f are 1 in the scale of the model
    scale = 1 / np.sqrt([0.5, 0.68, 0.755])
    assert known["f", "=~", "v2"] == pytest.approx(0.8 * scale[1] / scale[0], abs=1e-6)
    assert known["f", "~", "x"] == pytest.approx(0.5 * scale[0], abs=1e-6)
    assert known["f", "~~", "f"] == pytest.approx(0.5 * scale[0] ** 2, abs=1e-6)
    assert known["v3", "|", "t2"] == pytest.approx(scale[2], abs=1e-6)


def test_power_of_two_levels_and_of_random_slopes():
    model = "level: 1\nfw =~ u1 + u2 + u3\nlevel: 2\nfb =~ u1 + u2 + u3\nu1 ~~ 0*u1\nu3 ~~ 0*u3\nu2 ~~ u2"
    design = {"nclusters": 60, "cluster_sizes": 6}
    found = msem.power(model, TEXT, design, replications=2, seed=2, progress=False)
    known = found.parameters.set_index(["lhs", "op", "rhs", "level"])["population"]
    assert known["fb", "~~", "fb", 2] == pytest.approx(0.6, abs=1e-6)
    assert known["u2", "~~", "u2", 2] == pytest.approx(0.1, abs=1e-6)
    assert found.fits(0).fits["converged"].any()
    text = 'level: 1\nu1 ~ rv("s")*x\nlevel: 2\nu1 ~~ 0.5*u1\ns ~~ 0.2*s\ns ~ 0.4*1\nu1 ~~ 0*s\nu1 | 0*t1'
    slopes = msem.power(
        'level: 1\nu1 ~ rv("s")*x\nlevel: 2\nu1 ~~ u1\ns ~~ s\nu1 ~~ 0*s',
        text,
        {"nclusters": 30, "cluster_sizes": 5},
        replications=1,
        seed=2,
        progress=False,
        estimator="ML",
    )
    assert slopes.parameters.set_index(["lhs", "op"])["population"]["s", "~1"] == 0.4


@pytest.mark.parametrize(
    ("model", "options", "kind", "message"),
    [
        ("f =~ v1 + 1*v2 + v3\nf ~ x", {}, ModelError, "does not hold in the population"),
        ("f =~ v1 + v2 + v3\nv1 | t1 + t2 + t3", {}, ModelError, "'v1' has 3 thresholds in the model and 2"),
        ("f =~ v1 + v2 + v3 + x", {}, UnsupportedError, "'x' is a covariate of the population only"),
        ("f =~ v1 + v2 + v3", {"estimator": "ML", "link": "logit"}, UnsupportedError, "different links"),
    ],
)
def test_power_of_models_that_are_not_the_population(model, options, kind, message):
    with pytest.raises(kind, match=message):
        msem.power(model, FACTOR, {"nobs": 200}, replications=1, seed=1, progress=False, **options)


def test_a_compiled_model_knows_its_categories_by_their_thresholds():
    text = "f =~ u1 + u2 + u3\nu1 | t1 + t2\nu2 | t1\nu3 | t1 + t2 + t3"
    compiled = msem.compile(text, ordered=True)
    fit = msem.sem("f =~ u1 + u2 + u3", data(), ordered=ITEMS)
    for sample in (data(), fit.ordered_moments):
        assert_allclose(compiled.fit(sample).params.reindex(fit.params.index), fit.params, atol=1e-9)
    samples = [data(), data().assign(u3=lambda d: np.minimum(d["u3"], 2))]
    with pytest.warns(ConvergenceWarning, match="1 of 2"):
        many = compiled.fit_many(samples, progress=False)
    assert many.fits["status"].tolist() == ["ok", "failed"]
    assert "'u3' has 3 categories in this sample and 4 in the model" in many.fits["problem"].iloc[1]
    with pytest.raises(ModelError, match=r"name its thresholds in the text, as in 'u1 \| t1 \+ t2'"):
        msem.compile("f =~ u1 + u2 + u3", ordered=ITEMS)


def test_categories_are_those_of_the_normal_variables_of_the_same_stream():
    factor = "f =~ 1*v1 + 0.8*v2\nf ~ 0.5*x\nf ~~ 0.4*f\n"
    plain = msem.simulate(factor + "v1 ~~ 0.6*v1\nv2 ~~ 0.744*v2", nobs=500, seed=4)
    drawn = msem.simulate(factor + "v1 | -0.5*t1 + 0.5*t2\nv2 | 0.3*t1", nobs=500, seed=4)
    assert_allclose(drawn["x"], plain["x"], rtol=1e-12)
    assert drawn["v1"].tolist() == np.digitize(plain["v1"], [-0.5, 0.5]).tolist()
    assert drawn["v2"].tolist() == np.digitize(plain["v2"], [0.3]).tolist()


@pytest.mark.parametrize("more", ["x ~~ 1*x", "x ~~ start(1)*x", "x ~ 0*1", "x ~~ 1*x\nx ~~ 0*f"])
def test_a_covariate_of_a_population_is_one_with_its_moments_written(more):
    text = "f =~ 1*v1 + 0.8*v2\nf ~ 0.5*x\nf ~~ 0.4*f\nv1 | -0.5*t1 + 0.5*t2\nv2 | 0.3*t1\n"
    assert_frame_equal(msem.simulate(text + more, nobs=300, seed=4), msem.simulate(text, nobs=300, seed=4))


def test_variances_given_written_covariates_are_one():
    text = "v ~ 0.8*x + 0.5*z\nx ~~ 4*x\nz ~~ 1*z\nx ~~ 0.6*z\nv | 0.3*t1"
    drawn = msem.simulate(text, nobs=40_000, seed=4)
    x = drawn[["x", "z"]].to_numpy()
    expected = special.ndtr(x @ [0.8, 0.5] - 0.3)
    residual = drawn["v"].to_numpy() - expected
    score = np.column_stack([np.ones(len(x)), x]) * residual[:, None]
    assert np.abs(score.mean(axis=0) / (score.std(axis=0) / np.sqrt(len(x)))).max() < 3.5
    # an outcome by itself, and a variable correlated with a residual, are no covariates
    odd = msem.simulate("v ~ 0.5*x\nx ~~ 1*x\nx ~~ 0.3*v\nv | 0*t1", nobs=40_000, seed=4)
    joint = odd[["v", "x"]].corr().iloc[0, 1]
    assert joint == pytest.approx(0.8 * np.sqrt(2 / np.pi), abs=0.02)


def test_estimates_from_samples_of_a_fit_are_near_its_own():
    model = "f =~ u1 + u2 + u3\nf ~ x1"
    fit = msem.sem(model, data(200), ordered=ITEMS)
    again = msem.sem(model, msem.simulate(fit, nobs=5000, seed=6), ordered=ITEMS)
    assert np.abs((again.params - fit.params) / again.bse).max() < 3


def test_saved_moments_keep_categories_that_are_numbers(tmp_path: Path) -> None:
    data = msem.load_demo()
    for name, of in (("u1", "y1"), ("u2", "y2"), ("u3", "y3")):
        data[name] = np.digitize(data[of], [-0.8, 0.7])
    fit = msem.sem("f =~ u1 + u2 + u3", data, ordered=["u1", "u2", "u3"])
    fit.ordered_moments.save(tmp_path / "moments.json")
    again = msem.sem("f =~ u1 + u2 + u3", msem.OrderedMoments.load(tmp_path / "moments.json"))
    assert again.category_probabilities(variables="u1")["category"].tolist() == [0, 1, 2]


def test_random_slopes_of_ordered_outcomes_have_scores() -> None:
    data = msem.load_demo()
    data = data[data["cluster"] < 30].assign(u1=lambda d: np.digitize(d["y1"], [-0.8, 0.7]))
    text = 'level: 1\n u1 ~ rv("s")*x1\nlevel: 2\n u1 ~~ s'
    fit = msem.sem(text, data, cluster="cluster", ordered=["u1"], estimator="ML")
    found = fit.factor_scores(2)
    assert list(found.columns) == ["s", "s_se"]
    assert found["s"].mean() == pytest.approx(fit.params["s ~ 1"], abs=0.02)
    assert found["s"].var() + (found["s_se"] ** 2).mean() == pytest.approx(fit.params["s ~~ s"], rel=0.2)


# bootstrap and jackknife


def drawn_clusters(frame: pd.DataFrame, seed: int, number: int) -> pd.DataFrame:
    """Clusters of a frame drawn with replacement in the stream of a replicate."""
    ids = sorted(frame["cluster"].unique())
    stream = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, number]))
    units = stream.integers(0, len(ids), len(ids))
    parts = [frame[frame["cluster"] == ids[k]].assign(cluster=new) for new, k in enumerate(units)]
    return pd.concat(parts, ignore_index=True)


@pytest.mark.filterwarnings("ignore::msem.errors.ImproperSolutionWarning")
@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("f =~ u1 + u2 + u3", {}),
        ("f =~ u1 + u2 + u3", {"estimator": "MLR"}),
        ("level: 1\nfw =~ 1*u1 + 1*u2 + u3\nlevel: 2\nfb =~ 1*u1 + 1*u2 + u3", {}),
    ],
)
def test_bootstraps_fit_the_rows_of_drawn_clusters(model, options):
    frame, options = data(120), {"cluster": "cluster", "ordered": ITEMS, **options}
    fit = msem.sem(model, frame, **options)
    found = fit.bootstrap(4, seed=5, progress=False).estimates
    assert len(found) == 4
    again = msem.sem(model, drawn_clusters(frame, 5, 2), **options)
    assert_allclose(found.loc[2, again.params.index], again.params, atol=1e-6)
    errors = msem.sem(model, frame, **options, se="bootstrap", bootstrap=4, seed=5)
    assert_allclose(errors.bse, found[list(errors.params.index)].std(), atol=1e-6)
    if "level" in model:
        return
    shuffled = msem.sem(model, frame.sample(frac=1, random_state=1), **options)
    assert_allclose(shuffled.bootstrap(2, seed=5, progress=False).estimates, found.iloc[:2], atol=1e-6)


@pytest.mark.filterwarnings("ignore::msem.errors.ImproperSolutionWarning")
def test_jackknives_leave_out_the_rows_of_a_cluster():
    frame = data(20)
    fit = msem.sem("f =~ u1 + u2 + u3", frame, cluster="cluster", ordered=ITEMS)
    found = fit.jackknife(progress=False)
    again = msem.sem("f =~ u1 + u2 + u3", frame[frame["cluster"] != 7], cluster="cluster", ordered=ITEMS)
    assert_allclose(found.estimates.loc[1, 7], again.params, atol=1e-7)
    interval = fit.bootstrap(40, seed=1, progress=False).conf_int(kind="bca", ci_level=0.5)
    assert (interval["ci_lower"] < interval["ci_upper"]).all()


def rows_of_samples(fit: msem.Fit, seed: int, number: int) -> pd.DataFrame:
    """The rows of a sample of a parametric bootstrap."""
    source = row_source(fit.estimate, fit.sample, fit.discrepancy, seed, parametric=True)
    rows = source.rows(number)[0]
    codes = {} if rows.codes is None else {"cluster": rows.codes}
    return pd.DataFrame({**rows.columns, **codes})


@pytest.mark.parametrize("options", [{}, {"estimator": "ML"}, {"estimator": "ML", "link": "logit"}])
@pytest.mark.filterwarnings("ignore::msem.errors.ImproperSolutionWarning")
def test_parametric_bootstraps_fit_drawn_rows_of_the_same_clusters_and_covariates(options):
    frame = data(60 if options else 200)
    fit = msem.sem(LEVELS, frame, cluster="cluster", ordered=ITEMS, **options)
    found = fit.bootstrap(2, kind="parametric", seed=4, progress=False)
    drawn = rows_of_samples(fit, 4, 1)
    again = msem.sem(LEVELS, drawn, cluster="cluster", ordered=ITEMS, **options)
    assert_allclose(found.estimates.loc[1, again.params.index], again.params, atol=1e-4)
    keys = ["cluster", "w1", "x1"]
    given = frame.assign(cluster=lambda d: d["cluster"] - 1)
    assert_frame_equal(
        drawn[keys].sort_values(keys, ignore_index=True), given[keys].sort_values(keys, ignore_index=True)
    )
    assert (drawn.sort_values(keys)["u3"].to_numpy() != given.sort_values(keys)["u3"].to_numpy()).any()


def test_samples_of_parametric_bootstraps_have_the_probabilities_of_the_model():
    fit = two_levels()
    shares = [
        rows_of_samples(fit, 2, k)
        .assign(high=lambda d: d["x1"] > 0)
        .groupby("high")["u3"]
        .value_counts(normalize=True)
        for k in range(40)
    ]
    frame = data(200)
    latent = fit.implied[1].cov.loc["u3", "u3"] + fit.implied[2].cov.loc["u3", "u3"]
    slopes = {
        level: fit.implied[level].cov.loc["u3", x] / fit.implied[level].cov.loc[x, x]
        for level, x in ((1, "x1"), (2, "w1"))
    }
    sd = np.sqrt(
        latent
        - sum(slopes[level] * fit.implied[level].cov.loc["u3", x] for level, x in ((1, "x1"), (2, "w1")))
    )
    mean = fit.implied[1].mean["u3"] + fit.implied[2].mean["u3"]
    for level, x in ((1, "x1"), (2, "w1")):
        mean = mean + slopes[level] * (frame[x] - fit.implied[level].mean[x])
    cuts = [-np.inf, *thresholds(fit, "u3"), np.inf]
    drawn = pd.concat(shares, axis=1)
    for k in range(4):
        expected = stats.norm.cdf((cuts[k + 1] - mean) / sd) - stats.norm.cdf((cuts[k] - mean) / sd)
        for high in (False, True):
            rows = drawn.loc[(high, k)]
            error = rows.std() / np.sqrt(len(rows))
            assert rows.mean() == pytest.approx(expected[(frame["x1"] > 0) == high].mean(), abs=3.5 * error)


def test_parametric_bootstrap_errors_are_near_the_sandwich_in_a_large_sample():
    model, frame = "f =~ u1 + u2 + u3\nf ~ x1", data(200).drop(columns="cluster")
    fit = msem.sem(model, frame, ordered=ITEMS)
    found = fit.bootstrap(100, kind="parametric", seed=1, progress=False)
    assert found.failed.sum() == 0
    assert_allclose(found.bse / fit.bse, 1, atol=4 / np.sqrt(2 * 100))
    assert_allclose(found.bias, 0, atol=4 * (fit.bse / np.sqrt(100)).max())
    shuffled = msem.sem(model, frame.sample(frac=1, random_state=1), ordered=ITEMS)
    again = shuffled.bootstrap(3, kind="parametric", seed=1, progress=False).estimates
    assert_allclose(again, found.estimates.iloc[:3], atol=1e-5)


def test_parametric_bootstraps_leave_missing_what_is_missing():
    frame = data(200).copy()
    frame["u2"] = frame["u2"].astype(float).mask(np.arange(len(frame)) % 7 == 0)
    fit = msem.sem(LEVELS, frame, cluster="cluster", ordered=ITEMS, missing="pairwise")
    drawn = rows_of_samples(fit, 1, 0)
    assert drawn["u2"].isna().sum() == frame["u2"].isna().sum()
    assert_frame_equal(
        drawn.groupby("cluster")["u2"].count().reset_index(drop=True).to_frame(),
        frame.groupby("cluster")["u2"].count().reset_index(drop=True).to_frame(),
    )


def test_parametric_bootstraps_that_cannot_be_drawn_are_refused():
    fit = msem.sem("f =~ u1 + u2 + u3", data(), ordered=ITEMS, cluster="cluster")
    with pytest.raises(DataError, match="does not say how rows of a cluster depend"):
        fit.bootstrap(10, kind="parametric")
    text = 'level: 1\n u1 ~ rv("s")*x1\nlevel: 2\n u1 ~~ s'
    slopes = msem.sem(text, data(), cluster="cluster", ordered=["u1"], estimator="ML")
    with pytest.raises(UnsupportedError, match=r"'s' is a random slope.*draws clusters with replacement"):
        slopes.bootstrap(10, kind="parametric")


def test_replicates_that_cannot_be_made_are_refused_or_counted():
    fit = msem.sem("f =~ u1 + u2 + u3", data(), ordered=ITEMS)
    moments = msem.sem("f =~ u1 + u2 + u3", fit.ordered_moments)
    with pytest.raises(DataError, match="need the rows of the data"):
        moments.bootstrap(10)
    rare = data(12).assign(u2=lambda d: np.where(np.arange(len(d)) < 2, 2, d["u2"]))
    fit = msem.sem("f =~ u1 + u2 + u3", rare, ordered=ITEMS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = fit.bootstrap(30, seed=1, progress=False)
    assert found.failed["category empty, or no first stage"] > 0
    assert len(found.estimates) == 30 - found.failed.sum()


def test_residuals_by_maximum_likelihood_are_from_the_first_stage():
    model = "f =~ u1 + u2 + u3\nf ~ x1"
    fit = msem.sem(model, data(120), ordered=ITEMS, estimator="ML")
    stage = msem.sem(model, data(120), ordered=ITEMS).ordered_moments
    found = fit.residuals().set_index(["lhs", "op", "rhs"])["residual"]
    value = fit.params
    loading = np.array([1.0, value["f =~ u2"], value["f =~ u3"]])
    sd = np.sqrt(loading**2 * value["f ~~ f"] + 1)
    first = pd.Series([x for _, x in stage.stage.items()], index=stage.acov.index)
    implied = loading[0] * loading[2] * value["f ~~ f"] / (sd[0] * sd[2])
    assert found["u1", "~~", "u3"] == pytest.approx(first["u1~~u3"] - implied, abs=1e-8)
    assert found["u3", "|", "t2"] == pytest.approx(first["u3|t2"] - value["u3|t2"] / sd[2], abs=1e-8)
    slope = loading[1] * value["f ~ x1"] / sd[1]
    assert found["u2", "~", "x1"] == pytest.approx(first["u2~x1"] - slope, abs=1e-8)
    normalized = fit.residuals("normalized").set_index(["lhs", "op", "rhs"])
    se = np.sqrt(np.diag(stage.acov))[list(first.index).index("u1~~u3")]
    assert normalized.loc[("u1", "~~", "u3"), "se"] == pytest.approx(se, rel=1e-6)
    assert np.isnan(fit.residuals()["se"].iloc[0])
    logit = msem.sem(model, data(120), ordered=ITEMS, estimator="ML", link="logit")
    with pytest.raises(UnsupportedError, match='they need link="probit"'):
        logit.residuals()


def test_a_standardized_factor_is_the_same_model():
    marker = msem.sem("f =~ u1 + u2 + u3", data(), ordered=ITEMS, estimator="ML")
    standardized = msem.sem("f =~ u1 + u2 + u3", data(), ordered=ITEMS, estimator="ML", std_lv=True)
    assert standardized.status == "ok"
    assert standardized.llf == pytest.approx(marker.llf, abs=1e-6)
