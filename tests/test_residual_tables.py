"""Residuals by level: values, invariances, standard errors against lavaan and against reweighted clusters."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fits
import msem
import texts
from msem.data.arrays import unvech
from msem.data.complete import SampleStatistics
from msem.data.complete_clusters import ClusterArrays
from msem.data.complete_rows import sample_statistics
from msem.data.frames import clustered_data
from msem.data.sample import Group, Sample
from msem.estimation.estimate import Estimate, estimate
from msem.estimation.moment_vector import MomentErrors, MomentVector, moment_errors, moment_vectors
from msem.fits.fit import Fit
from msem.language.syntax import parse
from msem.model.partable import parameter_table
from msem.postestimation.residuals import moment_residuals

METRICS = ("raw", "cor.bollen", "cor.bentler")
TWO_LEVEL = texts.DEMO
LAVAAN = json.loads((Path(__file__).parent / "data" / "lavaan_residuals.json").read_text(encoding="utf-8"))


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
        variables=s.variables,
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


Small = tuple[Estimate, Sample, tuple[MomentVector, ...]]


@pytest.fixture(scope="module")
def small() -> Small:
    """A fit to 64 clusters that keeps their data."""
    return small_fit(fixed_x=False)


def small_fit(fixed_x: bool) -> Small:
    table = parameter_table(parse(fits.FACTORS), fixed_x=fixed_x)
    variables = table.variables
    data = clustered_data(fits.data([3, 4, 5, 6] * 16), variables.names, "cluster")
    statistics = sample_statistics(data, variables)
    sample = Sample((Group(statistics, data=data),))
    found = estimate(table, sample)
    return found, sample, moment_vectors(found, sample)


@pytest.mark.parametrize("fixed_x", [True, False])
def test_robust_errors_are_derivatives_with_respect_to_the_weights_of_clusters(fixed_x: bool) -> None:
    found, sample, vectors = small_fit(fixed_x)
    unfilled = parameter_table(parse(fits.FACTORS), fixed_x=fixed_x)
    (group,) = sample.groups
    clusters = group.clusters
    none = MomentErrors(*(np.zeros((len(vectors[0].keys), 1)),) * 2)

    def at(j: int, weight: float) -> np.ndarray:
        """Residuals in every metric."""
        other = Sample.of(reweighted(group.statistics, clusters, j, weight))
        parts = moment_vectors(estimate(unfilled, other), other)
        return np.array([moment_residuals(parts, none, metric).residuals for metric in METRICS])

    step, order = 0.01, (48, -36, 16, -3)
    start = np.array([moment_residuals(vectors, none, metric).residuals for metric in METRICS])
    slopes = np.array(
        [
            (sum(c * at(j, k * step) for k, c in enumerate(order, 1)) - 25 * start) / (12 * step)
            for j in range(len(clusters.sizes))
        ]
    )
    errors = moment_errors(found, sample, vectors, robust=True)
    for k, metric in enumerate(METRICS):
        expected = slopes[:, k].T @ slopes[:, k]
        np.testing.assert_allclose(
            moment_residuals(vectors, errors, metric).acov, expected, rtol=1e-4, atol=1e-8
        )


def test_normal_errors_with_expected_information_are_a_projection(
    small: Small,
) -> None:
    """(1 - P) Gamma (1 - P)' with P the projection on the model in the metric of the information."""
    found, sample, vectors = small
    (vector,), (group,) = vectors, sample.groups
    moments = msem.data.saturated_moments.level_moments(group.saturated, group.statistics)
    gamma = moments.gamma("expected").to_numpy()
    weight = msem.data.saturated.saturated_information(vector.implied, group.statistics, "expected")
    d = vector.jacobian
    rest = np.eye(len(gamma)) - d @ np.linalg.solve(d.T @ weight @ d, d.T @ weight)
    ours = moment_residuals(vectors, moment_errors(found, sample, vectors, "expected"), "raw")
    np.testing.assert_allclose(ours.acov, rest @ gamma @ rest.T, rtol=1e-8, atol=1e-12)


def test_robust_and_normal_errors_agree_for_many_normal_clusters() -> None:
    frame = fits.data([3, 4, 5, 6] * 1000)
    table = parameter_table(parse(fits.FACTORS))
    variables = table.variables
    data = clustered_data(frame, variables.names, "cluster")
    statistics = sample_statistics(data, variables)
    sample = Sample((Group(statistics, data=data),))
    found = estimate(table, sample)
    vectors = moment_vectors(found, sample)
    one, two = (
        moment_residuals(vectors, moment_errors(found, sample, vectors, robust=robust), "cor.bollen").se
        for robust in (False, True)
    )
    large = one > 0.1 * one.max()
    assert large.sum() > 10
    np.testing.assert_allclose(two[large], one[large], rtol=0.1)


# -- kinds of fits -----------------------------------------------------------------------------------------------


def test_least_squares_residuals_have_the_standard_errors_of_their_sandwich(demo: pd.DataFrame) -> None:
    found = msem.sem("f =~ y1 + y2 + y3 + y4\nf ~ x1", demo, estimator="ULS", meanstructure=True)
    solution = found.discrepancy
    assert solution is not None
    table = found.residuals()
    raw = np.concatenate([table.loc[table["op"] == op, "residual"] for op in ("~~", "~1")])
    np.testing.assert_allclose(raw, solution.residual, atol=1e-12)
    rest = np.eye(len(raw)) - solution.jacobian @ solution.projection()
    se = np.sqrt(np.maximum(np.diag(rest @ solution.gamma @ rest.T), 0))
    ours = np.concatenate([table.loc[table["op"] == op, "se"] for op in ("~~", "~1")])
    np.testing.assert_allclose(ours, se, atol=1e-8)


def test_moments_without_rows_give_the_same_residuals(fit: Fit) -> None:
    found = msem.sem(TWO_LEVEL, fit.saturated)
    ours, theirs = (table[table["op"] == "~~"] for table in (found.residuals("cor"), fit.residuals("cor")))
    np.testing.assert_allclose(ours["residual"], theirs["residual"], atol=2e-3)
    tested = theirs["se"] > 0.005
    np.testing.assert_allclose(ours["se"][tested], theirs["se"][tested], rtol=0.1)


def test_robust_fits_have_robust_standard_errors(demo: pd.DataFrame) -> None:
    found, plain = (msem.sem(TWO_LEVEL, demo, cluster="cluster", estimator=name) for name in ("MLR", "ML"))
    vectors = moment_vectors(found.estimate, found.sample)
    errors = moment_errors(found.estimate, found.sample, vectors, robust=True)
    expected = moment_residuals(vectors, errors, "cor.bollen")
    table = found.residuals("cor")
    keys = pd.DataFrame(expected.keys).assign(se=expected.se)
    merged = table.merge(keys, on=["lhs", "op", "rhs", "level", "group"])
    np.testing.assert_array_equal(merged["se_x"], merged["se_y"])
    np.testing.assert_array_equal(table["residual"], plain.residuals("cor")["residual"])
    tested = table["se"] > 0.005
    ratio = table["se"][tested] / plain.residuals("cor")["se"][tested]
    assert ratio.between(0.8, 1.25).all()
    assert not np.allclose(ratio, 1)


@pytest.mark.parametrize("cluster", [None, "cluster"])
def test_residuals_that_are_always_zero_have_no_robust_error(demo: pd.DataFrame, cluster: str | None) -> None:
    found = msem.sem(
        "f =~ y1 + y2 + y3 + y4\nf ~ x1", demo, estimator="MLR", cluster=cluster, meanstructure=True
    )
    table = found.residuals()
    exact = (table["lhs"] == table["rhs"]) | (table["op"] == "~1")
    assert (table.loc[exact, "se"] == 0).all()
    assert (table.loc[~exact, "se"] > 0.001).all()


def test_rows_taken_together_by_cluster_have_errors_of_clusters(demo: pd.DataFrame) -> None:
    """Twice the same rows in a cluster are one observation."""
    once = demo.groupby("cluster").head(1)
    twice = pd.concat([once, once])
    text = "f =~ y1 + y2 + y3 + y4"
    one = msem.sem(text, once, estimator="MLR", meanstructure=True).residuals()
    two = msem.sem(text, twice, estimator="MLR", cluster="cluster", meanstructure=True).residuals()
    np.testing.assert_allclose(two["residual"], one["residual"], atol=1e-8)
    np.testing.assert_allclose(two["se"], one["se"] * np.sqrt(200 / 199), rtol=1e-6, atol=1e-12)


def test_parameter_at_a_bound_does_not_move(demo: pd.DataFrame) -> None:
    text = "f =~ y1 + lower(2)*y2 + y3 + y4"
    with pytest.warns(msem.errors.ImproperSolutionWarning, match="boundary"):
        found = msem.sem(text, demo)
    fixed = msem.sem("f =~ y1 + 2*y2 + y3 + y4", demo)
    np.testing.assert_allclose(found.residuals()["se"], fixed.residuals()["se"], rtol=1e-4, atol=1e-9)


def test_groups_have_the_residuals_of_their_own_fits(demo: pd.DataFrame) -> None:
    text = "level: 1\n fw =~ y1 + y2 + y3 + y4\nlevel: 2\n fb =~ y1 + y2 + y3 + y4\n"
    data = demo.assign(g=np.where(demo["cluster"] % 3 == 0, "a", "b"))
    whole = msem.sem(text, data, cluster="cluster", group="g")
    table, srmr = whole.residuals("cor"), whole.srmr()
    for number, label in enumerate(whole.groups, 1):
        alone = msem.sem(text, data[data["g"] == label], cluster="cluster")
        own = table[table["group"] == number].reset_index(drop=True)
        np.testing.assert_allclose(own["residual"], alone.residuals("cor")["residual"], atol=1e-7)
        np.testing.assert_allclose(own["se"], alone.residuals("cor")["se"], rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(srmr[srmr["group"] == number]["value"], alone.srmr()["value"], atol=1e-7)
        matrix = whole.residual_matrices("cor", group=number)[2].cov
        np.testing.assert_allclose(matrix, alone.residual_matrices("cor")[2].cov, atol=1e-7)


def test_equal_parameters_tie_the_residuals_of_groups(demo: pd.DataFrame) -> None:
    text = "f =~ y1 + y2 + y3 + y4"
    data = demo.assign(g=np.where(demo["cluster"] % 3 == 0, "a", "b"))
    found = msem.sem(text, data, group="g", group_equal=["loadings"], information="expected")
    vectors = moment_vectors(found.estimate, found.sample)
    acov = moment_residuals(
        vectors, moment_errors(found.estimate, found.sample, vectors, "expected"), "raw"
    ).acov
    first = len(vectors[0].keys)
    assert np.abs(acov[:first, first:]).max() > 0.01 * np.abs(acov).max()
