"""What must not matter to the likelihood does not, for arbitrary models, data and parameters."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import models
from msem import _core
from msem.data.complete_rows import sample_statistics
from msem.data.frames import clustered_data
from msem.data.saturated import solve_saturated
from msem.estimation.objective import build_objective
from msem.estimation.optimize import minimize
from msem.model.variables import Variables

EXACT = {"rtol": 1e-10, "atol": 1e-10}
SEEDS = st.integers(0, 10_000)
MIXED = st.lists(st.integers(1, 9), min_size=8, max_size=16).filter(
    lambda sizes: sum(sizes) > len(sizes) + 12
)
ENOUGH = st.sampled_from([[3] * 20, [2, 4, 6] * 8, [*range(2, 8)] * 4])  # for saturated moments
FEW = settings(max_examples=30, deadline=None, derandomize=True)


def mixed_case(seed, sizes, within=1, between=1):
    return models.random_case(seed, 3, within, between, sizes)


def from_frame(case, frame):
    columns = clustered_data(frame, [*case.unit, *case.cluster], "cluster")
    return sample_statistics(columns, Variables.of_units_and_clusters(case.unit, case.cluster, case.nboth))


def same_likelihood(case, a, b):
    """Value, gradient and both information matrices at the same parameters."""
    one, two = (build_objective(case.table, s) for s in (a, b))
    theta = case.near
    assert_allclose(one.value(theta), two.value(theta), **EXACT)
    for name in ("gradient", "expected_information", "observed_information"):
        found, expected = getattr(one, name)(theta), getattr(two, name)(theta)
        assert_allclose(found, expected, rtol=0, atol=1e-10 * max(1.0, np.abs(expected).max()))


@FEW
@given(SEEDS, MIXED)
def test_order_of_rows(seed, sizes):
    case = mixed_case(seed, sizes)
    shuffled = case.frame.sample(frac=1, random_state=seed)
    same_likelihood(case, from_frame(case, shuffled), case.statistics)


@FEW
@given(SEEDS, MIXED, st.sampled_from(["text", "negative", "far"]))
def test_names_of_clusters(seed, sizes, kind):
    case = mixed_case(seed, sizes)
    names = np.random.default_rng(seed).permutation(len(sizes))
    names = {"text": names.astype(str), "negative": -names, "far": names * 10**12}[kind]
    renamed = case.frame.assign(cluster=names[case.frame["cluster"]])
    same_likelihood(case, from_frame(case, renamed), case.statistics)


@FEW
@given(SEEDS, ENOUGH, st.floats(-4, 4), st.sampled_from("yxw"))
def test_unit_of_a_variable(seed, sizes, power, kind):
    """A density in other units: -2 log L moves by 2 log c for every value of the variable."""
    case = mixed_case(seed, sizes)
    factor = 10.0**power
    saturated = solve_saturated(case.statistics)
    scaled = solve_saturated(
        from_frame(case, case.frame.assign(**{f"{kind}1": factor * case.frame[f"{kind}1"]}))
    )
    count = len(sizes) if kind == "w" else sum(sizes)
    assert_allclose(scaled.llf, saturated.llf - count * np.log(factor), rtol=1e-9)
    if kind != "w":
        expected = factor**2 * saturated.within.variances[f"{kind}1"]
        assert_allclose(scaled.within.variances[f"{kind}1"], expected, rtol=1e-6)


@FEW
@given(SEEDS, MIXED, st.randoms(use_true_random=False))
def test_order_of_variables(seed, sizes, random):
    """The variables of one kind in another order, the model being the same."""
    case = mixed_case(seed, sizes, 2, 2)
    both, only, cluster = list(case.unit[:3]), list(case.unit[3:]), list(case.cluster)
    for names in (both, only, cluster):
        random.shuffle(names)
    other = replace(case, unit=tuple(both + only), cluster=tuple(cluster))
    columns = clustered_data(case.frame, [*other.unit, *other.cluster], "cluster")
    permuted = sample_statistics(columns, Variables.of_units_and_clusters(other.unit, other.cluster, 3))
    same_likelihood(case, permuted, case.statistics)


@FEW
@given(SEEDS, MIXED, st.integers(1, 7))
def test_statistics_of_parts_merge(seed, sizes, cut):
    """Clusters of equal size in both parts included."""
    case = mixed_case(seed, sizes)
    y, z, codes = case.sample
    parts = []
    for chosen in (codes < cut, codes >= cut):
        start = codes[chosen].min()
        part = y[chosen], z[start : codes[chosen].max() + 1], codes[chosen] - start
        parts.append(models.sample_statistics(part, case.unit, case.cluster, case.nboth))
    same_likelihood(case, parts[0].merge(parts[1]), case.statistics)
    same_likelihood(case, parts[1].merge(parts[0]), case.statistics)


@FEW
@given(SEEDS, st.lists(st.integers(2, 6), min_size=8, max_size=12))
def test_clusters_of_one_size_may_be_listed_separately(seed, sizes):
    """Whether clusters of equal size are pooled or stand in a row each is a matter of representation."""
    case = mixed_case(seed, sizes)
    c, s = case.clusters, case.statistics
    m = len(s.names)
    loss = _core.CompleteLikelihood(
        s.nboth, s.ssw, c.sizes, np.ones(len(sizes)), c.means, np.zeros((len(sizes), m, m))
    )
    one, two = build_objective(case.table, s, loss), case.objective
    assert_allclose(one.value(case.near), two.value(case.near), **EXACT)
    information = two.observed_information(case.near)
    assert_allclose(
        one.observed_information(case.near), information, rtol=0, atol=1e-10 * np.abs(information).max()
    )


@FEW
@given(SEEDS, MIXED, st.floats(0.1, 3))
def test_the_value_is_finite_or_infinite_never_nan(seed, sizes, spread):
    case = mixed_case(seed, sizes)
    rng = np.random.default_rng(seed)
    for _ in range(5):
        theta = rng.normal(scale=spread, size=len(case.theta))
        value, gradient = case.objective.core.evaluate(theta)
        assert not np.isnan(value)
        assert value > -np.inf
        assert np.isfinite(gradient).all() == np.isfinite(value)
        assert case.objective.core.value(theta) == value


@FEW
@given(SEEDS, MIXED)
def test_expected_information_is_a_covariance_matrix(seed, sizes):
    case = mixed_case(seed, sizes)
    information = case.objective.expected_information(case.near)
    scale = np.sqrt(np.diag(information).clip(1e-12))
    assert np.linalg.eigvalsh(information / np.outer(scale, scale))[0] > -1e-9


def test_threads_share_an_objective():
    """The objective is not changed by its use, and lets other threads run."""
    case = models.shape_case("all kinds")
    core, c = case.objective.core, case.clusters
    rng = np.random.default_rng(1)
    points = [case.theta + 0.05 * rng.normal(size=len(case.theta)) for _ in range(200)]

    def everything(theta):
        value, gradient = core.evaluate(theta)
        scores = c.scores(core, theta)
        parts = core.observed_information(theta), core.information_factor(theta), scores
        return np.concatenate([[value], gradient, *(part.ravel() for part in parts)])

    alone = [everything(theta) for theta in points]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(everything, points))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_threads_fit_at_once():
    cases = [models.two_level(models.factor_rows(), [3, 4, 5, 6] * 10, seed) for seed in range(8)]
    jobs = [(case.objective, case.near) for case in cases]
    alone = [minimize(*job) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda job: minimize(*job), jobs))
    for a, b in zip(alone, together, strict=True):
        assert a.converged
        assert np.array_equal(a.theta, b.theta)
    losses = [case.statistics.likelihood() for case in cases]
    with ThreadPoolExecutor(4) as pool:
        fits = list(pool.map(_core.fit_saturated, losses))
    assert [f["loglik"] for f in fits] == [_core.fit_saturated(loss)["loglik"] for loss in losses]


def test_a_long_call_lets_other_threads_run():
    """Python counts on while the core works: no pause as long as half the call."""
    rows = [(v, "~~", v, level, 0.01**level, "") for v in ("y1", "y2", "y3") for level in (1, 2)]
    loss = models.two_level(rows, [1, 2, 3, 4, 5, 6] * 5).statistics.likelihood()
    times = [time.perf_counter()]
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(_core.fit_saturated, loss, True, 40_000, 0.0)
        while not job.done():
            times.append(time.perf_counter())
    assert job.result()["iterations"] == 40_000
    assert np.diff(times).max() < 0.5 * (times[-1] - times[0])
