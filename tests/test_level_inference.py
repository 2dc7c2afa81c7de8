"""Corrected standard errors of level-specific fits: dense formulas, the delta method, simulation."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

import msem
import reference
from msem.errors import MsemWarning
from simulate import two_level

Floats = NDArray[np.float64]

MODEL = """
level: 1
  fw =~ y1 + y2 + y3
  fw ~ x
level: 2
  fb =~ y1 + y2 + y3
  fb ~ w
"""
LOADINGS = np.array([1.0, 0.8, 0.6])
UNIT, CLUSTER = ["y1", "y2", "y3", "x"], ["y1", "y2", "y3", "w"]
SIZES = {3: 25, 5: 30, 8: 25, 12: 20}
# loadings of y2 and y3, slope, residual variances, residual factor variance
WITHIN = np.array([0.8, 0.6, 0.5, 1.0, 0.9, 1.1, 0.7])
BETWEEN = np.array([0.8, 0.6, 0.4, 0.20, 0.15, 0.10, 0.6])
INTERCEPTS = np.array([1.0, -0.5, 2.0])
W_MEAN = 0.3


def implied(theta: Floats, covariate: float = 1.0) -> Floats:
    """Covariance matrix of y1, y2, y3 and a covariate with variance `covariate`."""
    loadings, slope = np.array([1.0, *theta[:2]]), theta[2]
    out = np.empty((4, 4))
    out[:3, :3] = (theta[6] + slope**2 * covariate) * np.outer(loadings, loadings) + np.diag(theta[3:6])
    out[:3, 3] = out[3, :3] = slope * covariate * loadings
    out[3, 3] = covariate
    return out


def lower(cov: Floats) -> Floats:
    return cov[np.triu_indices(len(cov))[::-1]]


def moment_names(level: int) -> list[str]:
    names, suffix = (UNIT, "") if level == 1 else (CLUSTER, ".l2")
    cov = [f"{names[j]}~~{names[i]}{suffix}" for j in range(4) for i in range(j, 4)]
    return cov if level == 1 else [f"{name}~1.l2" for name in names] + cov


def conditional_gamma(moments: msem.LevelMoments, level: int, kind: str) -> Floats:
    """Gamma given the moments of the covariates, by the Schur complement."""
    gamma = moments.gamma(kind)
    given = ["x~~x", "x~1", "w~~w.l2", "w~1.l2"]
    b = gamma[given].to_numpy()
    rest = gamma - b @ np.linalg.inv(gamma.loc[given, given]) @ b.T
    rest.loc[given] = rest[given] = 0.0
    return rest.loc[moment_names(level), moment_names(level)].to_numpy()


def derivatives(function: object, at: Floats, step: float = 1e-5) -> Floats:
    columns = []
    for k in range(len(at)):
        shift = np.zeros(len(at))
        shift[k] = step
        columns.append((function(at + shift) - function(at - shift)) / (2 * step))  # type: ignore[operator]
    return np.array(columns).T


def duplication(n: int) -> Floats:
    pairs = [(i, j) for j in range(n) for i in range(j, n)]
    out = np.zeros((n * n, len(pairs)))
    for k, (i, j) in enumerate(pairs):
        out[j * n + i, k] = out[i * n + j, k] = 1.0
    return out


@pytest.fixture(scope="module")
def population() -> msem.LevelMoments:
    """Moments that the model reproduces exactly."""
    return perturbed({})


def perturbed(changes: dict[str, float]) -> msem.LevelMoments:
    within = pd.DataFrame(implied(WITHIN), index=UNIT, columns=UNIT)
    between = pd.DataFrame(implied(BETWEEN), index=CLUSTER, columns=CLUSTER)
    means = INTERCEPTS + LOADINGS * BETWEEN[2] * W_MEAN
    mean = pd.Series([*means, W_MEAN], index=CLUSTER)
    for name, change in changes.items():
        stem = name.removesuffix(".l2")
        if "~1" in stem:
            mean[stem.removesuffix("~1")] += change
            continue
        a, b = stem.split("~~")
        target = between if name.endswith(".l2") else within
        target.loc[a, b] += change
        if a != b:
            target.loc[b, a] += change
    return msem.LevelMoments(within, between, mean, cluster_sizes=SIZES)


@pytest.fixture(scope="module")
def sample() -> msem.LevelMoments:
    """Saturated estimates from data, which no model reproduces exactly."""
    return estimated(np.random.default_rng(8))


def estimated(rng: np.random.Generator) -> msem.LevelMoments:
    """Saturated estimates from a sample of 100 clusters."""
    sizes = rng.permutation(np.repeat(list(SIZES), list(SIZES.values())))
    level2 = implied(BETWEEN)
    mean = [*(INTERCEPTS + LOADINGS * BETWEEN[2] * W_MEAN), 0.0, W_MEAN]
    data = two_level(rng, sizes, implied(WITHIN), level2, mean, UNIT, ["w"], nboth=3)
    return msem.saturated(data, cluster="cluster", within=UNIT, between=CLUSTER)


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("method", ["ml", "uls", "likelihood"])
def test_population_values_are_recovered(population: msem.LevelMoments, method: str, level: int) -> None:
    fit = msem.segregated(MODEL, population, method=method).levels[level - 1]
    truth = WITHIN if level == 1 else np.concatenate([BETWEEN, INTERCEPTS])
    np.testing.assert_allclose(fit.params, truth, rtol=1e-6)
    statistics = fit.tests["statistic"]
    assert (
        statistics.drop("scaled_shifted", errors="ignore") < 1e-8
    ).all()  # its shift is all that is left of it
    assert (fit.tests["pvalue"] > 0.98).all()


@pytest.mark.parametrize("level", [1, 2])
def test_sandwich_and_tests_by_dense_matrices(sample: msem.LevelMoments, level: int) -> None:
    fit = msem.segregated(MODEL, sample, method="ml").levels[level - 1]
    theta = fit.theta
    exo = sample.within.cov.loc["x", "x"] if level == 1 else sample.between.cov.loc["w", "w"]
    w_mean = sample.between.mean["w"]

    def sigma(theta: Floats) -> Floats:
        cov = lower(implied(theta[:7], exo))
        if level == 1:
            return cov
        means = theta[7:] + np.array([1.0, *theta[:2]]) * theta[2] * w_mean
        return np.concatenate([means, [w_mean], cov])

    d = derivatives(sigma, theta)
    inverse, dup = np.linalg.inv(implied(theta[:7], exo)), duplication(4)
    u = 0.5 * dup.T @ np.kron(inverse, inverse) @ dup
    if level == 2:
        u = np.block([[inverse, np.zeros((4, 10))], [np.zeros((10, 4)), u]])
    gamma = conditional_gamma(sample, level, "observed")
    h = np.linalg.inv(d.T @ u @ d)
    covariance = h @ d.T @ u @ gamma @ u @ d @ h
    np.testing.assert_allclose(fit.cov_params(), covariance, rtol=1e-5, atol=1e-9)

    nobs = sample.nobs - sample.nclusters if level == 1 else sample.nclusters
    np.testing.assert_allclose(fit.vcov_naive, h / nobs, rtol=1e-5, atol=1e-9)
    product = (u - u @ d @ h @ d.T @ u) @ (nobs * gamma)
    trace, square = np.trace(product), np.trace(product @ product)
    df = 10 - 1 - 7
    standard = fit.tests.loc["standard", "statistic"]
    assert (fit.tests.loc[["standard", "mean_scaled", "residual"], "df"] == df).all()
    assert fit.tests.loc["mean_scaled", "statistic"] == pytest.approx(standard * df / trace, rel=1e-6)
    adjusted = fit.tests.loc["mean_variance_adjusted"]
    assert adjusted["statistic"] == pytest.approx(standard * trace / square, rel=1e-6)
    assert adjusted["df"] == pytest.approx(trace**2 / square, rel=1e-6)

    own = np.flatnonzero(np.diag(gamma) > 0)
    block = moment_vector(sample, level)
    e, d = (block - sigma(theta))[own], d[own]
    g = np.linalg.inv(gamma[np.ix_(own, own)])
    expected = e @ (g - g @ d @ np.linalg.inv(d.T @ g @ d) @ d.T @ g) @ e
    assert fit.tests.loc["residual", "statistic"] == pytest.approx(expected, rel=1e-5)


def moment_vector(moments: msem.LevelMoments, level: int) -> Floats:
    cov = moments.within.cov if level == 1 else moments.between.cov
    values = lower(cov.to_numpy())
    return values if level == 1 else np.concatenate([moments.between.mean, values])


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("method", ["ml", "uls"])
def test_sandwich_is_the_delta_method(population: msem.LevelMoments, method: str, level: int) -> None:
    """Derivatives of the estimates from fits to moments moved a little, times Gamma."""
    names = [name for name in moment_names(level) if name not in {"x~~x", "w~~w.l2", "w~1.l2"}]
    step = 1e-4

    def estimates(change: float, name: str) -> Floats:
        return msem.segregated(MODEL, perturbed({name: change}), method=method).levels[level - 1].theta

    slopes = np.array([(estimates(step, name) - estimates(-step, name)) / (2 * step) for name in names]).T
    every = moment_names(level)
    index = [every.index(name) for name in names]
    gamma = conditional_gamma(population, level, "expected")[np.ix_(index, index)]
    fit = msem.segregated(MODEL, population, method=method).levels[level - 1]
    np.testing.assert_allclose(fit.cov_params(), slopes @ gamma @ slopes.T, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("method", ["ml", "uls"])
def test_conditioning_on_covariates_leaves_their_effects_alone(
    population: msem.LevelMoments, method: str, level: int
) -> None:
    """Given that the model holds, standard errors are the same with covariates fixed and random."""
    fixed, random = (
        msem.segregated(MODEL, population, method=method, fixed_x=fixed_x).levels[level - 1]
        for fixed_x in (True, False)
    )
    np.testing.assert_allclose(random.params[fixed.names], fixed.params, rtol=1e-6)
    if method == "ml":
        # the mean of y also varies with that of x, which is at the other level: intercepts do differ
        structure = [name for name in fixed.names if "~1" not in name]
        np.testing.assert_allclose(random.bse[structure], fixed.bse[structure], rtol=1e-6)
    assert set(random.names) - set(fixed.names) == ({"x~~x"} if level == 1 else {"w~~w.l2", "w~1.l2"})
    assert random.tests.loc["standard", "df"] == fixed.tests.loc["standard", "df"] == 2


def test_taking_gamma_for_unconditional_would_change_standard_errors(population: msem.LevelMoments) -> None:
    whole = population.gamma("expected").loc[moment_names(1), moment_names(1)].to_numpy()
    given = conditional_gamma(population, 1, "expected")
    k = moment_names(1).index("y1~~x")
    assert np.sqrt(whole[k, k] / given[k, k]) > 1.05


@reference.needs_reference
def test_known_numbers_from_the_data_themselves() -> None:
    data, model = reference.data("demo_twolevel"), reference.model("demo_twolevel")
    fit = msem.segregated(model, data, cluster="cluster", method="ml").between
    expected = {"fb=~y2.l2": 0.0523, "fb=~y3.l2": 0.0479, "fb~w1.l2": 0.0787}
    np.testing.assert_allclose(fit.bse[list(expected)], list(expected.values()), rtol=0, atol=0.5e-4)
    naive = pd.Series(np.sqrt(np.diag(fit.vcov_naive)), index=fit.names)
    assert naive["fb=~y2.l2"] == pytest.approx(0.034, abs=0.5e-3)


# -- simulation ----------------------------------------------------------------------------------------------------

REPLICATIONS = 200


@pytest.fixture(scope="module")
def replications() -> dict[str, list[msem.SegregatedFit]]:
    out: dict[str, list[msem.SegregatedFit]] = {"ml": [], "likelihood": []}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MsemWarning)
        for moments in drawn():
            for method, fits in out.items():
                fits.append(msem.segregated(MODEL, moments, method=method))
    return out


def drawn() -> Iterator[msem.LevelMoments]:
    """Moments of samples whose between matrix is positive definite: nearly all."""
    rng = np.random.default_rng(20)
    count = 0
    while count < REPLICATIONS:
        moments = estimated(rng)
        if moments.between_eigenvalues[0] > 1e-6:
            count += 1
            yield moments


@pytest.mark.parametrize("method", ["ml", "likelihood"])
@pytest.mark.parametrize("name", ["fb=~y2.l2", "fb=~y3.l2", "fb~w.l2", "y1~1.l2", "fb~~fb.l2"])
def test_corrected_standard_errors_describe_the_sampling_spread(
    replications: dict[str, list[msem.SegregatedFit]], method: str, name: str
) -> None:
    fits = [fit.between for fit in replications[method]]
    spread = np.std([fit.params[name] for fit in fits], ddof=1)
    ratio = np.mean([fit.bse[name] for fit in fits]) / spread
    assert 0.85 < ratio < 1.15


def test_naive_standard_errors_of_loadings_are_too_small(
    replications: dict[str, list[msem.SegregatedFit]],
) -> None:
    fits = [fit.between for fit in replications["ml"]]
    for name in ("fb=~y2.l2", "fb=~y3.l2"):
        spread = np.std([fit.params[name] for fit in fits], ddof=1)
        k = fits[0].names.index(name)
        assert np.mean([np.sqrt(fit.vcov_naive[k, k]) for fit in fits]) / spread < 0.75


def test_corrected_tests_keep_their_level_and_the_naive_one_does_not(
    replications: dict[str, list[msem.SegregatedFit]],
) -> None:
    def rejections(method: str, test: str) -> float:
        return np.mean([fit.between.tests.loc[test, "pvalue"] < 0.05 for fit in replications[method]])

    assert rejections("ml", "standard") > 0.30
    assert rejections("ml", "mean_variance_adjusted") < 0.12
    assert rejections("likelihood", "likelihood_ratio") < 0.12
