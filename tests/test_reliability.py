"""Reliability coefficients against population values, published figures, other formulas and simulation."""

from __future__ import annotations

import functools
import warnings
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

import fits
import models
import msem
import oracle
import simulate
from msem.data.saturated_moments import level_moments, with_robust_acov
from msem.postestimation.delta import jacobian
from msem.postestimation.ram import Structure, structures
from msem.postestimation.reliability import COLUMNS, _stack, coefficients, composites
from msem.postestimation.unrestricted import unrestricted

Floats = NDArray[np.float64]
MODEL = fits.FACTORS
ITEMS = ["y1", "y2", "y3", "y4"]


@functools.cache
def fit(**options: Any) -> msem.Fit:
    return msem.sem(MODEL, msem.load_demo(), cluster="cluster", **options)


def values(table: pd.DataFrame, column: str = "est") -> dict[tuple[str, str], float]:
    return {(row.factor, row.coefficient): getattr(row, column) for row in table.itertuples()}


# Mathematics attitude of TIMSS 2011 (USA, grade 4): estimates and reliabilities printed by Lai (2021).
LOADINGS = np.array([0.787, 0.822, 0.881, 0.748])
WITHIN_RESIDUALS, BETWEEN_RESIDUALS = (
    np.array([0.563, 0.240, 0.273, 0.622]),
    np.array([0.027, 0, 0.001, 0.005]),
)
BETWEEN_VARIANCE, HARMONIC = 0.081, 25.1
PRINTED = {"omega_b": 0.622, "omega_2l": 0.8675, "irr": 0.647}


def printed_model() -> tuple[Any, dict[tuple[int, int], Structure]]:
    rows: list[models.Row] = []
    for level, factor, variance, residuals in (
        (1, "fw", 1.0, WITHIN_RESIDUALS),
        (2, "fb", BETWEEN_VARIANCE, BETWEEN_RESIDUALS),
    ):
        rows += [(factor, "=~", y, level, value, "") for y, value in zip(ITEMS, LOADINGS, strict=True)]
        rows += [(y, "~~", y, level, value, "") for y, value in zip(ITEMS, residuals, strict=True)]
        rows += [(factor, "~~", factor, level, variance, "=")]
    table, _ = models.parameter_table(rows)
    blocks = {}
    for level, factor, variance, residuals in (
        (1, "fw", 1.0, WITHIN_RESIDUALS),
        (2, "fb", BETWEEN_VARIANCE, BETWEEN_RESIDUALS),
    ):
        paths = np.zeros((5, 5))
        paths[:4, 4] = LOADINGS
        blocks[level, 1] = Structure((*ITEMS, factor), paths, np.diag([*residuals, variance]))
    return table, blocks


def test_published_example() -> None:
    table, blocks = printed_model()
    found = coefficients(composites(table, None, {}), {1: HARMONIC}, {})
    ours = {(one.factor, one.name): float(one.value(blocks)) for one in found}
    for name, wanted in PRINTED.items():
        factor = "fw + fb" if name == "omega_2l" else "fb"
        assert ours[factor, name] == pytest.approx(wanted, abs=0.0025)  # the estimates have three decimals
    assert ours["fw", "omega"] == pytest.approx(0.8605, abs=0.0002)
    assert ours["fb", "omega"] == pytest.approx(0.962, abs=0.002)


def test_formulas_of_congeneric_items() -> None:
    table, blocks = printed_model()
    found = coefficients(composites(table, None, {}), {1: HARMONIC}, {})
    ours = {(one.factor, one.name): float(one.value(blocks)) for one in found}
    common, unique = LOADINGS.sum() ** 2, WITHIN_RESIDUALS.sum()
    assert ours["fw", "omega"] == pytest.approx(common / (common + unique))
    standardized = LOADINGS**2 / (LOADINGS**2 + WITHIN_RESIDUALS)
    assert ours["fw", "ave"] == pytest.approx(standardized.mean())
    assert ours["fw", "h"] == pytest.approx(1 / (1 + 1 / (standardized / (1 - standardized)).sum()))
    cov = np.outer(LOADINGS, LOADINGS) + np.diag(WITHIN_RESIDUALS)
    assert ours["fw", "alpha"] == pytest.approx(4 / 3 * (1 - np.trace(cov) / cov.sum()))
    cov_b = BETWEEN_VARIANCE * np.outer(LOADINGS, LOADINGS) + np.diag(BETWEEN_RESIDUALS)
    total = cov_b.sum() + cov.sum() / HARMONIC
    assert ours["fb", "omega_b"] == pytest.approx(BETWEEN_VARIANCE * common / total)
    assert ours["fb", "alpha_b"] == pytest.approx(4 / 3 * (cov_b.sum() - np.trace(cov_b)) / total)
    assert ours["fb", "irr"] == pytest.approx(cov_b.sum() / total)
    both = cov + cov_b
    assert ours["fw + fb", "omega_2l"] == pytest.approx((1 + BETWEEN_VARIANCE) * common / both.sum())
    assert ours["fw + fb", "alpha_2l"] == pytest.approx(4 / 3 * (1 - np.trace(both) / both.sum()))
    assert ours["fb", "h"] == pytest.approx(1)  # an item without error


def test_two_items_without_error_leave_no_maximal_reliability() -> None:
    table, blocks = printed_model()
    residual = blocks[2, 1].residual.copy()
    residual[:2, :2] = 0
    blocks[2, 1] = Structure(blocks[2, 1].names, blocks[2, 1].paths, residual)
    found = coefficients(composites(table, ["fb"], {}), {1: HARMONIC}, {})
    (h,) = (float(one.value(blocks)) for one in found if one.name == "h")
    assert np.isnan(h)


def test_columns_and_order() -> None:
    table = fit().reliability()
    assert tuple(table.columns) == COLUMNS
    assert table["level"].tolist() == [1] * 4 + [2] * 7 + [0] * 2
    assert table["items"].unique().tolist() == ["y1, y2, y3"]
    assert (table["ci_lower"] < table["est"]).all()
    assert (table["est"] < table["ci_upper"]).all()


def test_model_coefficients_from_the_implied_matrices() -> None:
    est = values(fit().reliability())
    table = fit().estimates().set_index(["lhs", "op", "rhs", "level"])["est"]
    common, total = {}, {}
    for level, factor in ((1, "fw"), (2, "fb")):
        implied = fit().implied[level].cov
        loading = sum(table[factor, "=~", y, level] for y in ITEMS[:3])
        common[level] = loading**2 * implied.loc[factor, factor]
        total[level] = implied.loc[ITEMS[:3], ITEMS[:3]].to_numpy().sum()
        assert est[factor, "omega"] == pytest.approx(common[level] / total[level])
    sizes = fit().saturated.cluster_sizes
    harmonic = sum(sizes.values()) / sum(count / n for n, count in sizes.items())
    assert est["fb", "omega_b"] == pytest.approx(common[2] / (total[2] + total[1] / harmonic))
    assert est["fw + fb", "omega_2l"] == pytest.approx(sum(common.values()) / sum(total.values()))


def test_alpha_is_that_of_the_saturated_matrices() -> None:
    est, moments = values(fit().reliability()), fit().saturated
    for factor, level in (("fw", moments.within), ("fb", moments.between)):
        cov = level.cov.loc[ITEMS[:3], ITEMS[:3]].to_numpy()
        assert est[factor, "alpha"] == pytest.approx(1.5 * (1 - np.trace(cov) / cov.sum()))


@pytest.mark.parametrize("shape", ["both levels, many sizes", "all kinds"])
def test_derivatives(shape: str) -> None:
    case = models.shape_case(shape)
    found = [
        one
        for one in coefficients(composites(case.table, None, {"y2": 0.5}), {1: 4.2}, {"f1": "f2"})
        if not one.saturated
    ]
    assert {one.name for one in found} == {"omega", "h", "ave", "omega_b", "omega_2l"}
    quantity = _stack(found, partial(structures, case.objective))
    np.testing.assert_allclose(
        jacobian(quantity, case.near), oracle.differences(quantity, case.near), rtol=1e-6, atol=1e-8
    )


def test_one_unit_for_all_items_does_not_matter() -> None:
    frame = msem.load_demo()
    scaled = frame.assign(**{y: 30 * frame[y] + 500 for y in ITEMS[:3]})
    other = msem.sem(MODEL, scaled, cluster="cluster").reliability()
    for column in ("est", "se", "ci_lower", "ci_upper"):
        np.testing.assert_allclose(other[column], fit().reliability()[column], rtol=1e-4)


def test_weights_undo_units_of_single_items_and_reversals() -> None:
    frame = msem.load_demo()
    scaled = frame.assign(y2=-10 * frame["y2"])
    other = msem.sem(MODEL, scaled, cluster="cluster").reliability(weights={"y2": -0.1})
    for column in ("est", "se"):
        np.testing.assert_allclose(other[column], fit().reliability()[column], rtol=1e-4)
    reversed_item = values(msem.sem(MODEL, scaled, cluster="cluster").reliability())
    assert reversed_item["fw", "omega"] < 0.5
    assert reversed_item["fw", "h"] == pytest.approx(values(fit().reliability())["fw", "h"], rel=1e-5)


def test_order_of_items_and_rows_does_not_matter() -> None:
    frame = msem.load_demo().sample(frac=1, random_state=2)
    text = MODEL.replace("fb =~ y1 + y2 + y3", "fb =~ NA*y3 + y2 + 1*y1")
    other = values(msem.sem(text, frame, cluster="cluster").reliability())
    for key, value in values(fit().reliability()).items():
        assert other[key] == pytest.approx(value, rel=1e-5)


def test_fixed_factor_variance_gives_the_same() -> None:
    ours, marker = fit(std_lv=True).reliability(), fit().reliability()
    for column in ("est", "se"):
        np.testing.assert_allclose(ours[column], marker[column], rtol=1e-4)


def test_correlated_residuals_are_error() -> None:
    text = """
        level: 1
            fw =~ y1 + y2 + y3 + y4
            y1 ~~ y2
        level: 2
            fb =~ y1 + y2 + y3 + y4
    """
    fitted = msem.sem(text, msem.load_demo(), cluster="cluster")
    table = fitted.estimates().query("level == 1").set_index(["lhs", "op", "rhs"])["est"]
    loading, psi = np.array([table["fw", "=~", y] for y in ITEMS]), table["fw", "~~", "fw"]
    theta = np.diag([table[y, "~~", y] for y in ITEMS])
    theta[0, 1] = theta[1, 0] = table["y1", "~~", "y2"]
    ours = values(fitted.reliability())
    assert ours["fw", "omega"] == pytest.approx(
        loading.sum() ** 2 * psi / (loading.sum() ** 2 * psi + theta.sum())
    )
    information = psi * loading @ np.linalg.solve(theta, loading)
    assert ours["fw", "h"] == pytest.approx(information / (1 + information))


def test_saturated_within_level_still_has_cluster_means() -> None:
    text = "level: 1\n  y1 ~~ y2 + y3\n  y2 ~~ y3\nlevel: 2\n  fb =~ y1 + y2 + y3"
    table = msem.sem(text, msem.load_demo(), cluster="cluster").reliability()
    assert table["coefficient"].tolist() == ["omega", "alpha", "h", "ave", "omega_b", "alpha_b", "irr"]
    assert values(table)["fb", "omega_b"] == pytest.approx(
        values(fit().reliability())["fb", "omega_b"], abs=0.01
    )


def test_single_level_model() -> None:
    frame = msem.load_demo()
    table = msem.cfa("f =~ y1 + y2 + y3", frame).reliability()
    assert table["coefficient"].tolist() == ["omega", "alpha", "h", "ave"]
    cov = frame[ITEMS[:3]].cov().to_numpy()
    alpha = table.set_index("coefficient").loc["alpha"]
    assert alpha["est"] == pytest.approx(1.5 * (1 - np.trace(cov) / cov.sum()))
    # variance of alpha of normal items: van Zyl, Neudecker & Nel (2000)
    square, one = cov @ cov, np.ones(3)
    total = one @ cov @ one
    q = (
        2
        * 9
        / (4 * total**3)
        * (total * (np.trace(square) + np.trace(cov) ** 2) - 2 * np.trace(cov) * (one @ square @ one))
    )
    assert alpha["se"] == pytest.approx(np.sqrt(q / len(frame)), rel=1e-3)


def drawn(seed: int) -> pd.DataFrame:
    """100 clusters of 4 to 10 units, tau-equivalent items, so that alpha is omega."""
    rng, sizes = np.random.default_rng(seed), [4, 6, 8, 10] * 25
    within = np.full((3, 3), 0.6) + np.diag([0.5, 0.7, 0.6])
    between = np.full((3, 3), 0.3) + np.diag([0.1, 0.15, 0.12])
    return simulate.two_level(rng, sizes, within, between, np.zeros(3), ITEMS[:3], [], 3)


TEXT = "level: 1\n  fw =~ y1 + y2 + y3\nlevel: 2\n  fb =~ y1 + y2 + y3"


def test_population_values_and_standard_errors_by_simulation() -> None:
    tables = reliabilities_of_samples(200)
    names = list(zip(tables[0]["factor"], tables[0]["coefficient"], strict=True))
    est, se = (np.array([table[column] for table in tables]) for column in ("est", "se"))
    keep = [
        k for k, (_, name) in enumerate(names) if name != "h"
    ]  # skewed, and undefined if a residual is negative
    true = {
        ("fw", "omega"): 5.4 / 7.2,
        ("fb", "omega"): 2.7 / 3.07,
        ("fb", "irr"): 3.07 / (3.07 + 7.2 * harmonic()),
        ("fb", "omega_b"): 2.7 / (3.07 + 7.2 * harmonic()),
        ("fw + fb", "omega_2l"): 8.1 / 10.27,
    }
    alike = {"alpha": "omega", "alpha_b": "omega_b", "alpha_2l": "omega_2l"}
    for k in keep:
        factor, name = names[k]
        if name != "ave":
            error = est[:, k].std() / np.sqrt(len(est))
            assert abs(est[:, k].mean() - true[factor, alike.get(name, name)]) < 4 * error + 0.01
        assert est[:, k].std() == pytest.approx(np.sqrt(np.mean(se[:, k] ** 2)), rel=0.2)


def reliabilities_of_samples(number: int) -> list[pd.DataFrame]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", msem.errors.ImproperSolutionWarning)
        return [msem.sem(TEXT, drawn(seed), cluster="cluster").reliability() for seed in range(number)]


def harmonic() -> float:
    """Mean of 1 / n over the clusters of `drawn`."""
    return float(np.mean(1 / np.array([4, 6, 8, 10])))


def test_scores_of_units_and_of_cluster_means_have_these_reliabilities() -> None:
    """Squared correlation of observed and true scores in a large sample of tau-equivalent items."""
    rng, sizes = np.random.default_rng(5), np.tile([3, 9], 20_000)
    codes = np.repeat(np.arange(len(sizes)), sizes)
    fb, fw = rng.normal(0, np.sqrt(0.3), len(sizes)), rng.normal(0, np.sqrt(0.6), len(codes))
    eb, ew = rng.normal(0, 0.2, (len(sizes), 3)), rng.normal(0, 0.8, (len(codes), 3))
    y = (fb[codes] + fw)[:, None] + eb[codes] + ew
    frame = pd.DataFrame(y, columns=ITEMS[:3]).assign(cluster=codes)
    ours = values(msem.sem(TEXT, frame, cluster="cluster", se="none").reliability())
    raw = np.corrcoef(y.sum(axis=1), fb[codes] + fw)[0, 1] ** 2
    assert ours["fw + fb", "omega_2l"] == pytest.approx(raw, abs=0.01)
    means = frame.groupby("cluster")[ITEMS[:3]].mean().sum(axis=1).to_numpy()
    # the harmonic mean size is exact for the mean sampling variance over clusters
    shares = 9 * 0.3 / means.var()
    assert ours["fb", "omega_b"] == pytest.approx(shares, abs=0.01)


def test_monte_carlo_intervals() -> None:
    wald, drawn_ends = fit().reliability(), fit().reliability(method="monte_carlo", draws=4000, seed=3)
    pd.testing.assert_series_equal(wald["est"], drawn_ends["est"])
    regular = (wald["coefficient"] != "h").to_numpy()
    np.testing.assert_allclose(wald["se"][regular], drawn_ends["se"][regular], rtol=0.1)
    for end in ("ci_lower", "ci_upper"):
        difference = (wald[end] - drawn_ends[end])[regular]
        assert (difference.abs() < 0.5 * wald["se"][regular]).all()
    again = fit().reliability(method="monte_carlo", draws=4000, seed=3)
    pd.testing.assert_frame_equal(drawn_ends, again)


def test_factors_without_a_score() -> None:
    text = "f =~ y1 + y2 + y3\ng =~ y4 + y5 + y6\nh =~ 1*f + 1*g\ns =~ x1"
    fitted = msem.cfa(text, msem.load_demo())
    assert set(fitted.reliability()["factor"]) == {"f", "g"}
    assert set(fitted.reliability(["g"])["factor"]) == {"g"}
    for name, reason in (
        ("h", "measured by latent variables"),
        ("s", "fewer than two"),
        ("z", "no factor of the"),
    ):
        with pytest.raises(msem.errors.ModelError, match=reason):
            fitted.reliability([name])
    with pytest.raises(msem.errors.ModelError, match="no factor has a composite"):
        msem.sem("y1 ~ x1", msem.load_demo()).reliability()


def test_pairs() -> None:
    text = """
        level: 1
            fw =~ y1 + y2 + y3
            gw =~ y4 + y5 + y6
        level: 2
            fb =~ y1 + y2 + y3 + y4 + y5 + y6
    """
    fitted = msem.sem(text, msem.load_demo(), cluster="cluster")
    assert 0 not in set(fitted.reliability()["level"])
    with pytest.raises(msem.errors.ModelError, match="do not have the same indicators"):
        fitted.reliability(pairs={"fw": "fb"})
    with pytest.raises(msem.errors.ModelError, match="'f2' is no factor of the between level"):
        fitted.reliability(pairs={"fw": "f2"})
    given, found = fit().reliability(pairs={"fw": "fb"}), fit().reliability()
    pd.testing.assert_frame_equal(given, found)


def test_bad_arguments() -> None:
    with pytest.raises(msem.errors.ModelError, match="weights: 'y9' is no indicator"):
        fit().reliability(weights={"y9": 2})
    with pytest.raises(ValueError, match="method must be one of"):
        fit().reliability(method="bootstrap")  # type: ignore[arg-type]


def test_robust_covariance_of_moments_of_single_rows_is_that_of_their_products() -> None:
    frame = msem.load_demo()[ITEMS[:3]]
    fitted = msem.cfa("f =~ y1 + y2 + y3", frame, meanstructure=True)
    found = unrestricted(fitted.sample.groups[0], robust=True)
    off = (frame - frame.mean()).to_numpy()
    products = np.column_stack([off[:, i] * off[:, j] for j in range(3) for i in range(j, 3)])
    wanted = np.cov(np.column_stack([products, off]).T, ddof=0) / len(frame)
    np.testing.assert_allclose(found.gamma, wanted, rtol=1e-8, atol=1e-12)


def test_robust_covariance_of_moments_of_two_levels() -> None:
    group = fit().sample.groups[0]
    found = unrestricted(group, robust=True)
    moments = level_moments(group.saturated, group.statistics)
    wanted = with_robust_acov(moments, group.clusters).acov
    np.testing.assert_allclose(found.gamma, wanted, rtol=1e-9)


def test_robust_standard_errors() -> None:
    """Of alpha, which needs no model: the spread of the influence of single clusters."""
    robust, plain = fit(estimator="MLR").reliability(), fit().reliability()
    np.testing.assert_allclose(robust["est"], plain["est"], rtol=1e-6)
    assert (robust["se"] != plain["se"]).all()
    frame = msem.load_demo()
    fitted = msem.cfa("f =~ y1 + y2 + y3", frame, cluster="cluster", estimator="MLR")
    alpha = fitted.reliability().set_index("coefficient").loc["alpha"]
    off = (frame[ITEMS[:3]] - frame[ITEMS[:3]].mean()).to_numpy()
    total, own = off.sum(axis=1) ** 2, (off**2).sum(axis=1)
    ratio = own.sum() / total.sum()
    influence = pd.Series((own - ratio * total) / total.sum()).groupby(frame["cluster"].to_numpy()).sum()
    assert alpha["se"] == pytest.approx(1.5 * np.sqrt((influence**2).sum()), rel=1e-6)
