"""The penalty on the between level: derivatives, markers and rotations that do not matter, and what it does."""

from __future__ import annotations

import functools
import pickle

import numpy as np
import pytest
from scipy.optimize import minimize

import msem
from msem import _core
from msem.errors import ModelError, UnsupportedError
from test_moments_of_levels import simulated

ONE = "level: 1\n fw =~ y1 + y2 + y3\nlevel: 2\n fb =~ y1 + y2 + y3"
SATURATED = """
level: 1
  y1 ~~ y1 + y2 + y3
  y2 ~~ y2 + y3
  y3 ~~ y3
level: 2
  y1 ~~ y1 + y2 + y3
  y2 ~~ y2 + y3
  y3 ~~ y3
"""
STRUCTURAL = """
level: 1
  f1 =~ y1 + y2 + y3
  f2 =~ y4 + y5 + y6
  f2 ~ f1
level: 2
  g1 =~ y1 + y2 + y3 + b*y4
  g2 =~ y4 + b*y5 + y6
  g2 ~ g1 + w1
  y1 ~~ y6
"""
HIGHER = """
level: 1
  y1 ~~ y1
  y2 ~~ y2
  y3 ~~ y3
  y4 ~~ y4
  y5 ~~ y5
  y6 ~~ y6
level: 2
  g1 =~ y1 + y2 + y3
  g2 =~ y4 + y5 + y6
  h =~ 1*g1 + 1*g2
"""


THREE = """
level: 1
  fw =~ y1 + y2 + y3
level: 2
  fc =~ y1 + y2 + y3
level: 3
  fs =~ y1 + y2 + y3
  fs ~ v
"""


def few(clusters):
    data = msem.load_demo()
    return data[data["cluster"] <= clusters]


pytestmark = pytest.mark.filterwarnings("ignore:few_clusters")  # that is what the penalty is for


@functools.cache
def fit(model, clusters=15):
    if model == THREE:
        data = simulated((2, 4), (4, 8), clusters)
        return msem.sem(model, data, cluster=["school", "class"], penalty="between")
    return msem.sem(model, few(clusters), cluster="cluster", penalty="between")


@pytest.mark.parametrize("model", [ONE, SATURATED, STRUCTURAL, HIGHER, THREE])
def test_derivatives(model):
    found = fit(model, 40)
    objective, core = found.objective, found.objective.core
    theta = found.theta + 0.02 * np.random.default_rng(1).normal(size=found.npar)
    step = 1e-6
    units = step * np.eye(found.npar)
    values = [(objective.value(theta + u) - objective.value(theta - u)) / (2 * step) for u in units]
    gradient = objective.gradient(theta)
    assert gradient == pytest.approx(np.array(values), abs=1e-6 * np.abs(gradient).max())
    slopes = [(objective.gradient(theta + u) - objective.gradient(theta - u)) / (4 * step) for u in units]
    observed = objective.observed_information(theta)
    assert observed == pytest.approx(np.array(slopes), abs=1e-6 * np.abs(observed).max())
    basis = np.random.default_rng(2).normal(size=(found.npar, 4))
    basis[core.intercepts()] = 0  # these follow others there
    assert core.observed_information_in(theta, basis) == pytest.approx(basis.T @ observed @ basis, rel=1e-6)
    factor = core.information_factor(theta)
    expected = objective.expected_information(theta)
    assert factor.T @ factor == pytest.approx(expected, abs=1e-9 * np.abs(expected).max())
    assert objective.value(theta) - objective.penalty(theta) == pytest.approx(-2 * objective.llf(theta))


@pytest.mark.filterwarnings("ignore::msem.errors.ImproperSolutionWarning")
def test_every_level_above_the_first_has_its_penalty():
    """With six schools, where without a penalty variances are 0."""
    found = fit(THREE, 6)
    by_hand = 0.0
    for level, factor in ((2, "fc"), (3, "fs")):
        est = found.estimates(level=level)
        variances = est[(est["op"] == "~~") & (est["lhs"] == est["rhs"]) & (est["lhs"] != "v")]["est"]
        loadings = est[est["op"] == "=~"].set_index("rhs")["est"]
        assert list(loadings.index) == ["y1", "y2", "y3"]
        assert (variances > 0).all()
        scales = [found.table.penalty[0][name] for name in loadings.index]
        by_hand -= np.log(variances).sum() + np.log((loadings**2 / scales).sum())
        assert set(est[est["op"] == "=~"]["lhs"]) == {factor}
    assert found.objective.penalty(found.theta) == pytest.approx(by_hand, abs=1e-9)
    data = simulated((2, 4), (4, 8), 6)
    plain = msem.sem(THREE, data, cluster=["school", "class"])
    assert plain.params["y1~~y1.l2"] == pytest.approx(0, abs=1e-9)
    renamed = THREE.replace("fs =~ y1 + y2", "fs =~ NA*y1 + 1*y2")
    other = msem.sem(renamed, data, cluster=["school", "class"], penalty="between")
    assert other.llf == pytest.approx(found.llf, abs=1e-8)  # whatever the marker
    with pytest.raises(UnsupportedError, match="not available for crossed classifications"):
        msem.sem(THREE, data, cluster="class * school", penalty="between")


def test_the_penalty_is_what_is_promised():
    """-log of the determinants, by hand, in a model with two factors."""
    found = fit(STRUCTURAL)
    est = found.estimates(level=2)
    scales = found.table.penalty[0]
    names = [f"y{k}" for k in range(1, 7)]
    everything = [*names, "g1", "g2"]
    s = np.zeros((8, 8))
    loadings = np.zeros((6, 2))
    for row in est.itertuples():
        if row.op == "~~" and row.lhs in everything:
            i, j = everything.index(row.lhs), everything.index(row.rhs)
            s[i, j] = s[j, i] = row.est
        if row.op == "=~":
            loadings[names.index(row.rhs), ["g1", "g2"].index(row.lhs)] = row.est
    weights = np.diag([1 / scales[name] for name in names])
    by_hand = -np.linalg.slogdet(s)[1] - np.linalg.slogdet(loadings.T @ weights @ loadings)[1]
    assert found.objective.penalty(found.theta) == pytest.approx(by_hand, abs=1e-10)
    contributed = loadings @ s[6:, 6:] @ loadings.T @ weights
    eigenvalues = np.sort(np.linalg.eigvals(contributed).real)[-2:]
    both = np.linalg.slogdet(s[:6, :6])[1] + np.log(eigenvalues).sum()
    assert found.objective.penalty(found.theta) == pytest.approx(-both, abs=1e-8)


def test_markers_do_not_matter():
    first = fit(STRUCTURAL.replace("b*", ""))
    for level in ("g1 =~ NA*y1 + 1*y2 + y3 + y4", "g1 =~ NA*y1 + y2 + y3 + y4\n  g1 ~~ 1*g1"):
        other = fit(STRUCTURAL.replace("b*", "").replace("g1 =~ y1 + y2 + y3 + y4", level))
        assert other.llf == pytest.approx(first.llf, abs=1e-7)
        assert other.objective.penalty(other.theta) == pytest.approx(
            first.objective.penalty(first.theta), abs=1e-7
        )
        assert other.implied.between.cov.to_numpy() == pytest.approx(
            first.implied.between.cov.to_numpy(), abs=1e-6
        )
    # nor do units
    data = few(15).copy()
    data["y1"] *= 10
    other = msem.sem(STRUCTURAL.replace("b*", ""), data, cluster="cluster", penalty="between")
    assert other.params["g2~g1.l2"] * 10 == pytest.approx(first.params["g2~g1.l2"], rel=1e-5)


def test_rotations_do_not_matter():
    variables = [f"y{k}" for k in range(1, 7)]
    fits = [
        msem.efa(
            few(30), {1: 2, 2: 2}, cluster="cluster", variables=variables, rotation=how, penalty="between"
        )
        for how in ("geomin", "varimax")
    ]
    one, other = (found[2, 2] for found in fits)
    assert one.llf == pytest.approx(other.llf, abs=1e-6)
    assert one.objective.value(one.theta) == pytest.approx(other.objective.value(other.theta), abs=1e-6)
    assert np.abs(one.objective.gradient(one.theta)).max() < 1e-3
    assert one.status == other.status == "ok"
    assert np.isfinite(one.standard_errors).all()


def test_a_variance_by_direct_maximisation():
    """One variable in balanced clusters: the penalized likelihood written out and maximised by another program."""
    rng = np.random.default_rng(8)
    clusters, size = 8, 5
    frame = {
        "c": np.repeat(np.arange(clusters), size),
        "y": np.repeat(0.2 * rng.normal(size=clusters), size) + rng.normal(size=clusters * size),
    }
    found = msem.sem("level: 1\n y ~~ y\nlevel: 2\n y ~~ y", frame, cluster="c", penalty="between")
    y = frame["y"].reshape(clusters, size)
    means = y.mean(axis=1)
    within, between = np.sum((y - means[:, None]) ** 2), size * np.sum((means - means.mean()) ** 2)

    def value(log):
        w, b = np.exp(log)
        v = w + size * b
        return clusters * (size - 1) * np.log(w) + clusters * np.log(v) + within / w + between / v - np.log(b)

    best = minimize(value, [0.0, -1.0], method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-12})
    assert found.params[["y~~y", "y~~y.l2"]].to_numpy(float) == pytest.approx(np.exp(best.x), rel=1e-5)


@pytest.mark.parametrize(
    ("model", "clusters"), [(SATURATED, 5), (SATURATED, 8), (SATURATED, 12), (ONE, 12), (STRUCTURAL, 12)]
)
def test_few_clusters_have_proper_solutions(model, clusters):
    found = fit(model, clusters)
    assert found.converged
    assert not [p for p in found.problems if "between" in p.cause and p.name == "improper"]
    assert np.linalg.eigvalsh(found.implied.between.cov.to_numpy()).min() > 0
    assert np.isfinite(found.standard_errors).all()


def test_it_vanishes_with_many_clusters():
    plain = msem.sem(ONE, msem.load_demo(), cluster="cluster")
    found = fit(ONE, 200)
    gap = (found.params - plain.params).abs() / plain.bse
    assert gap.max() < 0.5
    assert found.llf < plain.llf
    assert plain.llf - found.llf < 0.2


def test_groups_missing_values_and_resampling():
    data = few(30).copy()
    data["half"] = data["cluster"] % 2
    both = msem.sem(ONE, data, cluster="cluster", group="half", penalty="between")
    assert both.llf == pytest.approx(sum(group.llf for group in both.groups.values()))
    rng = np.random.default_rng(1)
    data[["y1", "y2"]] = data[["y1", "y2"]].mask(rng.random((len(data), 2)) < 0.1)
    holes = msem.sem(ONE, data, cluster="cluster", missing="fiml", penalty="between")
    assert holes.status == "ok"
    found = fit(ONE)
    again = pickle.loads(pickle.dumps(found))
    assert again.objective.value(again.theta) == found.objective.value(found.theta)
    replicates = fit(ONE, 60).bootstrap(40, seed=1).array
    assert np.isfinite(replicates).all()
    assert (replicates[:, fit(ONE, 60).table.names().index("fb~~fb.l2")] > 0).all()
    curve = found.profile("fb~~fb.l2")
    assert curve.conf_int()["ci_lower"].iloc[0] > 0
    robust = msem.sem(ONE, few(15), cluster="cluster", penalty="between", estimator="MLR")
    assert robust.params.to_numpy() == pytest.approx(found.params.to_numpy(), abs=1e-8)


def test_there_is_no_likelihood_ratio():
    found = fit(ONE)
    measures = found.fit_measures()
    for name in ("chisq", "pvalue", "cfi", "rmsea", "aic", "logl"):
        assert np.isnan(measures[name])
    assert np.isfinite(measures["srmr_between"])
    assert np.isnan(found.aic)
    assert np.isnan(found.chisq)
    text = found.summary(fit_measures=True)
    assert "Penalty                            between variances" in text
    assert "None: the likelihood is penalized" in text
    assert "nan" not in text
    other = fit(SATURATED)
    for ask in (
        lambda: msem.compare_models(found, other),
        found.modification_indices,
        found.influence,
        found.residuals,
        lambda: found.fit_measures(level="between"),
    ):
        with pytest.raises(UnsupportedError, match="rest on a maximum of the likelihood"):
            ask()
    assert len(found.wald_test("`fb=~y2.l2` == 1"))
    assert len(found.estimates(reference="t"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"penalty": "within"}, "penalty must be one of 'between'"),
        ({"penalty": "between", "test": "yty"}, "no likelihood-ratio test"),
        ({"penalty": "between", "estimator": "WLS"}, 'needs estimator="ML"'),
        ({"penalty": "between", "space": "psd"}, "leave out one of"),
        ({"penalty": "between", "psu": "cluster"}, "not available with weights"),
    ],
)
def test_what_does_not_go_together(options, message):
    with pytest.raises(ValueError, match=message):
        msem.sem(ONE, few(15), cluster="cluster", **options)


def test_models_it_is_not_for():
    with pytest.raises(ModelError, match="models of two levels and more"):
        msem.sem("f =~ y1 + y2 + y3", few(15), penalty="between")
    with pytest.raises(UnsupportedError, match="random slopes"):
        msem.sem(
            'level: 1\n y1 ~ rv("s")*x1\nlevel: 2\n y1 ~~ s', few(15), cluster="cluster", penalty="between"
        )
    with pytest.raises(UnsupportedError, match="many fits"):
        msem.compile(ONE, cluster="cluster", penalty="between")


def test_elements_of_the_core_are_checked():
    with pytest.raises(ValueError, match="has no variance"):
        _core.VariancePenalty([(0, 1, 0, 0.0)], [], [0], [], np.ones(2))
    with pytest.raises(ValueError, match="unknown variable"):
        _core.VariancePenalty([], [(5, 0, 0, 0.0)], [0], [], np.ones(2))
    with pytest.raises(ValueError, match="unknown factor"):
        _core.VariancePenalty([], [], [0], [[7]], np.ones(2))
