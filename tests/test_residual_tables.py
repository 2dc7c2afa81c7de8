"""Residuals by level: values, invariances, standard errors against lavaan and against reweighted clusters."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fits
import msem
from msem.estimation.estimate import Estimate, estimate
from msem.estimation.samples import GroupSample, Sample, saturated_sample
from msem.fits.fit import Fit
from msem.inference.momenterrors import moment_errors, moment_vectors
from msem.inference.momentresiduals import MomentErrors, moment_residuals
from msem.inference.momentvector import MomentVector
from msem.inference.residualrms import root_mean_square
from msem.language.syntax import parse
from msem.moments.gamma import unvech
from msem.sample.frames import clustered_data
from msem.sample.statistics import cluster_arrays, sample_statistics
from msem.sample.sufficient import ClusterArrays, SampleStatistics
from msem.table.partable import parameter_table

METRICS = ("raw", "cor.bollen", "cor.bentler")
TWO_LEVEL = """
level: 1
  fw =~ y1 + y2 + y3
  fw ~ x1 + x2 + x3
level: 2
  fb =~ y1 + y2 + y3
  fb ~ w1 + w2
"""
LAVAAN = json.loads((Path(__file__).parent / "data" / "lavaan_residuals.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def demo() -> pd.DataFrame:
    return msem.load_demo()


@pytest.fixture(scope="module")
def fit(demo: pd.DataFrame) -> Fit:
    return msem.sem(TWO_LEVEL, demo, cluster="cluster")


# -- values ------------------------------------------------------------------------------------------------------


def test_raw_residuals_are_saturated_less_implied_moments(fit: Fit) -> None:
    found = fit.residual_matrices()
    for level, saturated in ((1, fit.saturated.within), (2, fit.saturated.between)):
        difference = saturated.cov - fit.implied[level].observed.cov
        pd.testing.assert_frame_equal(found[level].cov, difference, rtol=0, atol=1e-14)
    total = fit.saturated.between.mean - fit.implied[2].observed.mean
    both = ["y1", "y2", "y3"]
    total[both] -= fit.implied[1].observed.mean[both]
    pd.testing.assert_series_equal(found[2].mean, total, rtol=0, atol=1e-14)
    assert not found[1].mean.any()


def test_correlation_residuals_are_differences_of_correlations(fit: Fit) -> None:
    between, implied = fit.saturated.between.cov.to_numpy(), fit.implied.between.cov.to_numpy()
    scales = [np.outer(sd, sd) for sd in (np.sqrt(np.diag(m)) for m in (between, implied))]
    bollen, bentler = fit.residual_matrices("cor")[2].cov, fit.residual_matrices("cor.bentler")[2].cov
    np.testing.assert_allclose(bollen, between / scales[0] - implied / scales[1], rtol=0, atol=1e-14)
    np.testing.assert_allclose(bentler, (between - implied) / scales[0], rtol=0, atol=1e-14)


def test_table_has_a_row_for_every_moment_once(fit: Fit) -> None:
    table = fit.residuals()
    assert list(table.columns) == ["lhs", "op", "rhs", "level", "group", "residual", "se", "z", "pvalue"]
    counts = table.groupby(["level", "op"]).size()
    assert counts.to_dict() == {(1, "~1"): 3, (1, "~~"): 21, (2, "~1"): 5, (2, "~~"): 15}
    assert not table.duplicated(["lhs", "op", "rhs", "level", "group"]).any()


@pytest.mark.parametrize("kind", METRICS)
def test_centre_of_a_within_covariate_does_not_matter(fit: Fit, demo: pd.DataFrame, kind: str) -> None:
    moved = msem.sem(TWO_LEVEL, demo.assign(x1=demo["x1"] + 5), cluster="cluster")
    pd.testing.assert_frame_equal(moved.residuals(kind), fit.residuals(kind), rtol=1e-6, atol=1e-9)


def test_units_do_not_matter_for_tests(fit: Fit, demo: pd.DataFrame) -> None:
    rescaled = msem.sem(
        TWO_LEVEL, demo.assign(y2=500 + 1000 * demo["y2"], w1=demo["w1"] / 100), cluster="cluster"
    )
    for kind in ("standardized", "normalized", "cor"):
        one, other = fit.residuals(kind)["z"], rescaled.residuals(kind)["z"]
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)


def test_standardized_and_normalized_are_raw_over_standard_errors(fit: Fit) -> None:
    raw, standard, normal = (fit.residuals(kind) for kind in ("raw", "standardized", "normalized"))
    np.testing.assert_allclose(standard["residual"], raw["residual"] / raw["se"].replace(0, np.nan))
    gamma = np.diag(fit.saturated.acov)
    names = fit.saturated.moment_names
    at = names.index("y1~~y3.l2")
    row = normal[(normal["level"] == 2) & (normal["lhs"] == "y1") & (normal["rhs"] == "y3")].iloc[0]
    assert row["residual"] == pytest.approx(0.0011373 / np.sqrt(gamma[at]), rel=1e-2)
    assert (normal["se"] >= raw["se"]).all()


def test_moments_of_fixed_covariates_have_no_residual(fit: Fit) -> None:
    table = fit.residuals()
    given = table["lhs"].str.startswith(("x", "w"))
    assert given.sum() == 14
    assert (table.loc[given, ["residual", "se"]] == 0).all(axis=None)
    assert table.loc[given, ["z", "pvalue"]].isna().all(axis=None)


def test_saturated_model_has_residuals_and_errors_of_zero(demo: pd.DataFrame) -> None:
    text = "level: 1\n y1 ~~ y2\n level: 2\n y1 ~~ y2\n y1 ~~ w1\n y2 ~~ w1\n w1 ~~ w1"
    table = msem.sem(text, demo, cluster="cluster").residuals()
    np.testing.assert_allclose(table["residual"], 0, atol=1e-7)
    assert (table["se"] == 0).all()


def test_between_variance_that_is_not_positive_has_no_correlations() -> None:
    within, between = np.array([[1.0, 0.4], [0.4, 1.0]]), np.array([[0.3, 0.05], [0.05, -0.02]])
    names = ["y1", "y2"]
    moments = msem.LevelMoments(
        *(pd.DataFrame(m, names, names) for m in (within, between)), nobs=500, nclusters=50
    )
    with pytest.warns(msem.errors.ImproperSolutionWarning):
        found = msem.sem("level: 1\ny1 ~~ y2\nlevel: 2\ny1 ~~ 0*y2", moments)
    table = found.residuals("cor").set_index(["level", "lhs", "op", "rhs"])
    assert np.isnan(table.loc[(2, "y1", "~~", "y2"), "residual"])
    assert np.isfinite(table.loc[(1, "y1", "~~", "y2"), "residual"])
    assert np.isfinite(found.residuals()["residual"]).all()


def test_unknown_kind_and_group_are_refused(fit: Fit) -> None:
    with pytest.raises(ValueError, match="kind must be one of 'raw', 'cor'"):
        fit.residuals("casewise")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no group 2"):
        fit.residual_matrices(group=2)


# -- standard errors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(LAVAAN["models"]))
def test_single_level_residuals_agree_with_lavaan(name: str, demo: pd.DataFrame) -> None:
    """Standard errors of raw residuals; in correlations lavaan leaves out that the units are estimated."""
    model = LAVAAN["models"][name]
    found = msem.sem(
        model["text"],
        demo,
        fixed_x=model["fixed.x"],
        meanstructure=model["meanstructure"],
        information="expected",
    )
    for kind in METRICS:
        theirs, table = model["kinds"][kind], found.residuals(kind)
        ours = table[table["op"] == "~~"]
        np.testing.assert_allclose(ours["residual"], theirs["cov"], rtol=0, atol=3e-6)
        if kind == "raw":
            np.testing.assert_allclose(ours["se"], theirs["cov_se"], rtol=1e-5, atol=1e-8)
        if model["meanstructure"]:
            means = table[table["op"] == "~1"]
            np.testing.assert_allclose(means["residual"], theirs["mean"], rtol=0, atol=3e-6)
            if kind == "raw":
                np.testing.assert_allclose(means["se"], theirs["mean_se"], rtol=1e-5, atol=1e-8)


def reweighted(s: SampleStatistics, clusters: ClusterArrays, j: int, weight: float) -> SampleStatistics:
    """Statistics in which cluster j counts 1 + weight times."""
    p, m = len(s.unit), len(s.names)
    one = SampleStatistics(
        unit=s.unit,
        cluster=s.cluster,
        nboth=s.nboth,
        nobs=weight * clusters.sizes[j],
        nclusters=weight,
        sizes=clusters.sizes[[j]],
        counts=np.array([weight]),
        means=clusters.means[[j]],
        scatter=np.zeros((1, m, m)),
        ssw=weight * unvech(clusters.within[j], p),
        source=s.source,
    )
    return s.merge(one)


@pytest.fixture(scope="module")
def small() -> tuple[Estimate, Sample, tuple[MomentVector, ...]]:
    """A fit to 64 clusters that keeps their data."""
    table = parameter_table(parse(fits.FACTORS), fixed_x=False)
    unit, cluster = (*table.both, *table.within_only), table.between_only
    data = clustered_data(fits.data([3, 4, 5, 6] * 16), [*unit, *cluster], "cluster")
    statistics = sample_statistics(data, unit, cluster, len(table.both))
    plain = saturated_sample(statistics).groups[0]
    sample = Sample((GroupSample(statistics, plain.saturated, data),))
    found = estimate(table, sample)
    return found, sample, moment_vectors(found, sample)


@pytest.mark.parametrize("metric", METRICS)
def test_robust_errors_are_derivatives_with_respect_to_the_weights_of_clusters(
    metric: str, small: tuple[Estimate, Sample, tuple[MomentVector, ...]]
) -> None:
    found, sample, vectors = small
    (group,) = sample.groups
    clusters = cluster_arrays(group.data, group.statistics.unit, group.statistics.cluster)
    step, order = 0.01, (-25, 48, -36, 16, -3)

    def at(j: int, weight: float) -> np.ndarray:
        changed = group.statistics if weight == 0 else reweighted(group.statistics, clusters, j, weight)
        other = saturated_sample(changed)
        parts = moment_vectors(estimate(found.table, other), other)
        none = np.zeros((len(parts[0].keys), 1))
        return moment_residuals(parts, MomentErrors(none, none), metric).residuals

    slopes = np.array(
        [
            sum(c * at(j, k * step) for k, c in enumerate(order)) / (12 * step)
            for j in range(len(clusters.sizes))
        ]
    ).T
    robust = moment_residuals(vectors, moment_errors(found, sample, vectors, robust=True), metric)
    np.testing.assert_allclose(robust.acov, slopes @ slopes.T, rtol=1e-4, atol=1e-8)


def test_normal_errors_with_expected_information_are_a_projection(
    small: tuple[Estimate, Sample, tuple[MomentVector, ...]],
) -> None:
    """(1 - P) Gamma (1 - P)' with P the projection on the model in the metric of the information."""
    found, sample, vectors = small
    (vector,), (group,) = vectors, sample.groups
    moments = msem.moments.saturated.level_moments(group.saturated, group.statistics)
    gamma = moments.gamma("expected").to_numpy()
    weight = msem.moments.gamma.saturated_information(vector.implied, group.statistics, "expected")
    d = vector.jacobian
    rest = np.eye(len(gamma)) - d @ np.linalg.solve(d.T @ weight @ d, d.T @ weight)
    ours = moment_residuals(vectors, moment_errors(found, sample, vectors, "expected"), "raw")
    np.testing.assert_allclose(ours.acov, rest @ gamma @ rest.T, rtol=1e-8, atol=1e-12)


def test_robust_and_normal_errors_agree_for_many_normal_clusters() -> None:
    frame = fits.data([3, 4, 5, 6] * 1000)
    table = parameter_table(parse(fits.FACTORS))
    unit, cluster = (*table.both, *table.within_only), table.between_only
    data = clustered_data(frame, [*unit, *cluster], "cluster")
    statistics = sample_statistics(data, unit, cluster, len(table.both))
    sample = Sample((GroupSample(statistics, saturated_sample(statistics).groups[0].saturated, data),))
    found = estimate(table, sample)
    vectors = moment_vectors(found, sample)
    one, two = (
        moment_residuals(vectors, moment_errors(found, sample, vectors, robust=robust), "cor.bollen").se
        for robust in (False, True)
    )
    large = one > 0.1 * one.max()
    assert large.sum() > 10
    np.testing.assert_allclose(two[large], one[large], rtol=0.1)


# -- root mean squares -------------------------------------------------------------------------------------------


def test_root_mean_squares_agree_with_fit_measures(fit: Fit, demo: pd.DataFrame) -> None:
    table = fit.srmr().set_index(["measure", "level", "part"])["value"]
    measures = fit.fit_measures()
    assert table["srmr", 1, "cov"] == pytest.approx(measures["srmr_within"], rel=1e-12)
    assert table["srmr", 2, "cov"] == pytest.approx(measures["srmr_between"], rel=1e-12)
    single = msem.sem("f =~ y1 + y2 + y3 + y4\nf ~ x1", demo, meanstructure=True)
    table = single.srmr().set_index(["measure", "part"])["value"]
    measures = single.fit_measures()
    for name, key in {
        "srmr": ("srmr", "total"),
        "srmr_bentler_nomean": ("srmr", "cov"),
        "crmr": ("crmr", "total"),
        "crmr_nomean": ("crmr", "cov"),
    }.items():
        assert table[key] == pytest.approx(measures[name], rel=1e-12)


def test_all_levels_together_are_the_root_of_the_mean_over_all_residuals(fit: Fit) -> None:
    table = fit.srmr().set_index(["measure", "level", "part"])
    for measure in ("srmr", "crmr"):
        parts = table.loc[measure].xs("total", level="part")
        squares = parts["value"] ** 2 * parts["nresiduals"]
        assert squares[0] == pytest.approx(squares[1] + squares[2])
        assert parts["nresiduals"][0] == parts["nresiduals"][1] + parts["nresiduals"][2]


@pytest.mark.parametrize("name", list(LAVAAN["models"]))
def test_summary_of_raw_residuals_agrees_with_lavaan(name: str, demo: pd.DataFrame) -> None:
    model = LAVAAN["models"][name]
    found = msem.sem(
        model["text"],
        demo,
        fixed_x=model["fixed.x"],
        meanstructure=model["meanstructure"],
        information="expected",
    )
    residuals = found._residuals("raw")
    theirs = model["kinds"]["raw"]
    own = residuals.select(np.array([key.op == "~~" for key in residuals.keys]))
    for part, chosen in (("cov", own), ("total", residuals)):
        if part not in theirs["summary"]:
            continue
        expected = dict(zip(theirs["rows"], theirs["summary"][part], strict=True))
        ours = root_mean_square(chosen.residuals, chosen.root)
        assert ours.value == pytest.approx(expected["rmr"], abs=1e-6)
        assert ours.se == pytest.approx(expected["rmr.se"], rel=1e-4)
        assert max(ours.exact_z, 0.0) == pytest.approx(expected["rmr.exactfit.z"], abs=1e-4)
        assert ours.unbiased == pytest.approx(expected["urmr"], abs=2e-6)
        if not ours.unbiased:  # theirs is an expansion about residuals that happen to be small
            assert 0 < ours.unbiased_se < expected["urmr.se"]
            continue
        assert ours.unbiased_se == pytest.approx(expected["urmr.se"], rel=1e-4)
        assert ours.ci_lower == pytest.approx(max(expected["urmr.ci.lower"], 0.0), abs=1e-5)
        assert ours.ci_upper == pytest.approx(expected["urmr.ci.upper"], abs=1e-5)
        assert ours.close_z == pytest.approx(expected["urmr.closefit.z"], abs=1e-3)
        assert ours.close_pvalue == pytest.approx(expected["urmr.closefit.pvalue"], abs=1e-4)


def test_unbiased_root_mean_square_covers_that_of_the_population() -> None:
    rng = np.random.default_rng(3)
    root = rng.normal(size=(12, 8)) * 0.001
    mean = rng.normal(size=12) * 0.06
    truth = np.sqrt(np.mean(mean**2))
    draws = [root_mean_square(mean + root @ rng.normal(size=8), root, close_h0=truth) for _ in range(4000)]
    values = np.array([(d.unbiased, d.unbiased_se, d.ci_lower <= truth <= d.ci_upper) for d in draws])
    assert values[:, 0].mean() == pytest.approx(truth, rel=0.02)
    assert abs(values[:, 0].mean() - truth) < 0.2 * (np.mean([d.value for d in draws]) - truth)
    assert values[:, 1].mean() == pytest.approx(values[:, 0].std(), rel=0.05)
    assert values[:, 2].mean() == pytest.approx(0.90, abs=0.02)
    assert np.mean([d.close_pvalue < 0.05 for d in draws]) == pytest.approx(0.05, abs=0.02)


def test_exact_fit_is_rejected_at_its_level() -> None:
    rng = np.random.default_rng(5)
    root = rng.normal(size=(40, 30)) * 0.02
    draws = [root_mean_square(root @ rng.normal(size=30), root) for _ in range(4000)]
    assert np.std([d.value for d in draws]) == pytest.approx(draws[0].se, rel=0.05)
    assert np.mean([d.exact_z for d in draws]) == pytest.approx(0, abs=0.05)
    assert np.mean([d.exact_pvalue < 0.05 for d in draws]) == pytest.approx(0.05, abs=0.015)


def test_without_residuals_or_sampling_error_there_are_no_tests() -> None:
    nothing = root_mean_square(np.empty(0), np.empty((0, 3)))
    assert nothing.nresiduals == 0
    assert np.isnan(nothing.value)
    certain = root_mean_square(np.zeros(4), np.zeros((4, 2)))
    assert certain.value == 0
    assert np.isnan([certain.exact_pvalue, certain.close_pvalue, certain.ci_lower, certain.ci_upper]).all()


def test_interval_level_must_be_a_coverage(fit: Fit) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        fit.srmr(level=90)


# -- kinds of fits -----------------------------------------------------------------------------------------------


def test_least_squares_residuals_have_the_standard_errors_of_their_sandwich(demo: pd.DataFrame) -> None:
    found = msem.sem("f =~ y1 + y2 + y3 + y4\nf ~ x1", demo, estimator="ULS", meanstructure=True)
    solution = found.discrepancy
    assert solution is not None
    table = found.residuals()
    raw = np.concatenate([table.loc[table["op"] == op, "residual"] for op in ("~1", "~~")])
    np.testing.assert_allclose(raw, solution.residual, atol=1e-12)
    rest = np.eye(len(raw)) - solution.jacobian @ solution.projection()
    se = np.sqrt(np.maximum(np.diag(rest @ solution.gamma @ rest.T), 0))
    ours = np.concatenate([table.loc[table["op"] == op, "se"] for op in ("~1", "~~")])
    np.testing.assert_allclose(ours, se, atol=1e-8)


def test_moments_without_rows_give_the_same_residuals(fit: Fit) -> None:
    found = msem.sem(TWO_LEVEL, fit.saturated)
    ours, theirs = (table[table["op"] == "~~"] for table in (found.residuals("cor"), fit.residuals("cor")))
    np.testing.assert_allclose(ours["residual"], theirs["residual"], atol=2e-3)
    tested = theirs["se"] > 0.005
    np.testing.assert_allclose(ours["se"][tested], theirs["se"][tested], rtol=0.1)


def test_parameter_at_a_bound_does_not_move(demo: pd.DataFrame) -> None:
    text = "f =~ y1 + lower(2)*y2 + y3 + y4"
    with pytest.warns(msem.errors.ImproperSolutionWarning, match="boundary"):
        found = msem.sem(text, demo)
    fixed = msem.sem("f =~ y1 + 2*y2 + y3 + y4", demo)
    np.testing.assert_allclose(found.residuals()["se"], fixed.residuals()["se"], rtol=1e-4, atol=1e-9)
