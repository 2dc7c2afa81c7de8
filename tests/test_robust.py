"""Robust standard errors, contributions of clusters, and the traces that scale likelihood-ratio tests."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pandas as pd
import pytest

import msem
import oracle
import simulate
import texts
from msem.errors import DataError, UnsupportedError
from msem.estimation.scoreproducts import cluster_correction, score_products
from msem.postestimation.scaling import MomentSpace, saturated_trace

DEMO = msem.load_demo()
TWO_LEVEL = texts.COVARIATES
ONE_LEVEL = "f =~ y1 + y2 + y3 + y4\nf ~ x1"
ROLES = """
level: 1
  y1 + y2 ~ x1
  x1 ~ x2
level: 2
  y1 ~ z1
  y2 ~ z1 + z2
  z1 ~ z2
"""


@functools.cache
def sample(seed: int = 1) -> pd.DataFrame:
    """Ninety clusters of uneven sizes, skewed, with more covariates."""
    parts = [
        simulate.small_sample(seed + i).assign(cluster=lambda d, i=i: d["cluster"] + 100 * i)
        for i in range(9)
    ]
    data = pd.concat(parts, ignore_index=True).rename(columns={"x": "x1"})
    rng = np.random.default_rng(seed)
    data["x2"] = data["x1"] + rng.exponential(size=len(data))
    data["y1"] += 0.3 * np.expm1(0.5 * data["y2"].clip(upper=4))
    return data


@functools.cache
def mlr(model: str = TWO_LEVEL, **options: Any) -> msem.Fit:
    return msem.sem(model, DEMO, **({"cluster": "cluster", "estimator": "MLR"} | options))


def dense_trace(fit: msem.Fit, kind: str) -> float:
    """tr(A^-1 B) of the saturated model from whole matrices over all its parameters."""
    space = MomentSpace.of(fit.table, fit.sample)
    a = space.information(space.theta, expected=kind == "expected")
    return float(
        np.trace(np.linalg.solve(a, score_products(space.objective, space.theta, fit.sample.clusters)))
    )


def single_trace(fit: msem.Fit, kind: str) -> float:
    """The same with the scores of single clusters."""
    space = MomentSpace.of(fit.table, fit.sample)
    a = space.information(space.theta, expected=kind == "expected")
    scores = space.objective.scores(space.theta, fit.sample.clusters[0])
    return float(np.trace(np.linalg.solve(a, scores.T @ scores)))


@pytest.mark.parametrize("kind", ["observed", "expected"])
@pytest.mark.parametrize(
    ("model", "options"),
    [
        (ROLES, {}),
        (ROLES, {"fixed_x": False}),
        ("level: 1\n y1 ~~ y2\nlevel: 2\n y1 ~~ y2", {}),
        ("level: 1\n y1 ~ x1\nlevel: 2\n y1 ~ x1 + z1", {}),
        ("y1 + y2 ~ x1 + x2", {"meanstructure": True, "cluster": None}),
        ("y1 + y2 ~ x1 + x2", {"meanstructure": False, "cluster": None}),
        ("y1 + y2 ~ x1 + x2", {}),
        ("y1 + y2 ~ x1 + x2", {"meanstructure": False}),
    ],
    ids=[
        "roles",
        "free covariates",
        "both levels",
        "shared covariate",
        "rows",
        "no means",
        "clusters",
        "centred",
    ],
)
def test_saturated_trace_is_that_of_whole_matrices(model: str, options: dict[str, Any], kind: str) -> None:
    fit = msem.sem(model, sample(), **({"cluster": "cluster", "se": "none", "test": "standard"} | options))
    # away from the exact maximum both are only close: neither is invariant there
    assert saturated_trace(fit.table, fit.sample, kind) == pytest.approx(dense_trace(fit, kind), rel=1e-7)


def test_saturated_trace_with_more_clusters_than_a_block() -> None:
    model = "level: 1\n y1 ~~ y2\nlevel: 2\n y1 ~~ y2"
    data = pd.concat([sample(7 * i).assign(cluster=lambda d, i=i: d["cluster"] + 1000 * i) for i in range(4)])
    fit = msem.sem(model, data, cluster="cluster")
    assert len(fit.sample.groups[0].clusters.sizes) > 256
    assert saturated_trace(fit.table, fit.sample, "observed") == pytest.approx(
        dense_trace(fit, "observed"), rel=1e-9
    )


@pytest.mark.parametrize("kind", ["observed", "expected"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("level: 1\n y1 ~ x1\nlevel: 2\n y1 ~ w1", {}),
        ("level: 1\n y1 ~ x1\nlevel: 2\n y1 ~ w1", {"fixed_x": False}),
        ("level: 1\n y1 ~~ y2\nlevel: 2\n y1 ~~ y2", {}),
        ("y1 + y2 ~ x1", {"cluster": None}),
        ("y1 + y2 ~ x1", {"cluster": None, "meanstructure": True}),
        ("y1 + y2 ~ x1", {"cluster": None, "fixed_x": False}),
    ],
)
def test_saturated_trace_from_sums_by_size(
    model: str, options: dict[str, Any], weighted: bool, kind: str
) -> None:
    options = {"cluster": "cluster"} | options
    data = DEMO.groupby("cluster").head(5).assign(y1=lambda d: np.expm1(0.4 * d["y1"]))
    if weighted:  # with one size of clusters still
        rng = np.random.default_rng(1)
        whole = options["cluster"] is not None
        data["v"] = rng.uniform(0.5, 2, data["cluster"].max() + 1)[data["cluster"]] if whole else 1.0
        data["w"] = 1.0 if whole else rng.uniform(0.5, 2, len(data))
        options |= {"weights": "w"} | ({"cluster_weights": "v"} if whole else {})
    fit = msem.sem(model, data, **options)
    (clusters,) = fit.sample.clusters
    assert clusters.products is not None
    assert len(clusters.products.sizes) == 1
    assert saturated_trace(fit.table, fit.sample, kind) == pytest.approx(single_trace(fit, kind), rel=1e-7)


@pytest.mark.parametrize(
    ("model", "options"),
    [(TWO_LEVEL, {}), ("y1 + y2 ~ x1", {"cluster": None}), ("y1 + y2 ~ x1", {"meanstructure": False})],
    ids=["two levels", "rows", "clusters of rows"],
)
def test_products_by_size_stand_for_single_clusters(model: str, options: dict[str, Any]) -> None:
    data = DEMO.groupby("cluster").head(5).assign(y1=lambda d: 1000 + 10 * d["y1"])
    fit = msem.sem(model, data, **({"cluster": "cluster", "estimator": "MLR"} | options))
    (clusters,) = fit.sample.clusters
    assert clusters.products is not None
    scores = fit.scores().to_numpy()
    direct = scores.T @ scores * cluster_correction(fit.table, clusters)
    found = score_products(fit.objective, fit.estimate.theta, fit.sample.clusters)
    unit = np.sqrt(np.outer(direct.diagonal(), direct.diagonal()))
    np.testing.assert_allclose(found / unit, direct / unit, atol=1e-9)


def test_scores_are_the_derivatives_of_the_density_of_each_cluster() -> None:
    fit = msem.sem("level: 1\n y1 ~ y2\nlevel: 2\n y1 ~~ y2", sample(), cluster="cluster", se="none")
    y = sample()[["y1", "y2"]].to_numpy()
    cluster = np.unique(sample()["cluster"], return_inverse=True)[1]
    z = np.empty((cluster.max() + 1, 0))

    def moments(theta: Any) -> Any:
        return oracle.table_moments(fit.table.rows, theta, ("y1", "y2"), (), 2)

    expected = oracle.cluster_scores(moments, fit.params.to_numpy(), y, z, cluster)
    found = fit.scores()
    order = np.argsort(found.index.to_numpy())
    np.testing.assert_allclose(found.to_numpy()[order], expected, atol=1e-8 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (TWO_LEVEL, {}),
        (TWO_LEVEL, {"fixed_x": False}),
        (ROLES.replace("z1", "w1").replace("z2", "w2"), {}),
        ("level: 1\n y1 ~ y2 + x1\nlevel: 2\n y1 ~ y2 + w1", {}),
        (ONE_LEVEL, {"cluster": None}),
        (ONE_LEVEL, {"cluster": None, "meanstructure": True}),
        (ONE_LEVEL, {}),
        (TWO_LEVEL, {"group": "half"}),
        (ONE_LEVEL, {"group": "half"}),
    ],
)
def test_contributions_add_up(model: str, options: dict[str, Any]) -> None:
    data = DEMO.assign(half=DEMO["cluster"] % 3 == 0)
    fit = msem.sem(model, data, **({"cluster": "cluster", "estimator": "MLR"} | options))
    contributions, scores = fit.cluster_loglik(), fit.scores()
    assert contributions.sum() == pytest.approx(fit.llf, rel=1e-12)
    assert contributions.index.equals(scores.index)
    assert list(scores.columns) == list(fit.params.index)
    total, size = scores.sum().abs(), np.sqrt((scores**2).sum())
    assert (total < 1e-5 * size).all()


def test_contributions_are_those_of_the_density_of_each_cluster() -> None:
    fit = msem.sem(ROLES, sample(), cluster="cluster", fixed_x=False, se="none")
    s, data = fit.statistics, sample()
    y, z = data[list(s.unit)].to_numpy(), data[list(s.cluster)].to_numpy()
    m = oracle.table_moments(fit.table.rows, fit.params.to_numpy(), s.unit, s.cluster, s.nboth)
    _, first, cluster = np.unique(data["cluster"], return_index=True, return_inverse=True)
    expected = oracle.cluster_logliks(m, y, z[first], cluster)
    np.testing.assert_allclose(fit.cluster_loglik().sort_index(), expected, rtol=1e-10)


def test_index_names_clusters_and_groups() -> None:
    scores = mlr().scores()
    assert scores.index.name == "cluster"
    assert list(scores.index) == list(dict.fromkeys(DEMO["cluster"]))
    data = DEMO.assign(half=np.where(DEMO["cluster"] % 3 == 0, "b", "a"))
    grouped = msem.sem(TWO_LEVEL, data, cluster="cluster", group="half").scores()
    assert grouped.index.names == ["group", "cluster"]
    assert len(grouped.loc["b"]) == 66
    free = [c for c in grouped.columns if c.endswith(".g2") or ".g2." in c]
    assert (grouped.loc["a", free] == 0).all().all()


def test_sandwich_is_made_of_information_and_scores() -> None:
    fit = mlr()
    inverse = np.linalg.inv(fit.objective.observed_information(fit.params))
    scores = fit.scores().to_numpy()
    np.testing.assert_allclose(fit.cov_params(), inverse @ scores.T @ scores @ inverse, rtol=1e-8)
    expected = mlr(information="expected")
    inverse = np.linalg.inv(expected.objective.expected_information(expected.params))
    np.testing.assert_allclose(expected.cov_params(), inverse @ scores.T @ scores @ inverse, rtol=1e-8)
    first = mlr(estimator="MLF")
    np.testing.assert_allclose(first.cov_params(), np.linalg.inv(scores.T @ scores), rtol=1e-8)


def test_parameters_that_share_a_label_share_their_score() -> None:
    shared = TWO_LEVEL.replace("+ y2 + y3", "+ a*y2 + a*y3", 1)
    fit, free = mlr(shared), mlr()
    objective = free.objective
    theta = np.array([fit.params["a" if n in ("fw=~y2", "fw=~y3") else n] for n in free.params.index])
    scores = pd.DataFrame(
        objective.scores(theta, fit.sample.clusters[0]), columns=free.params.index, index=fit.scores().index
    )
    np.testing.assert_allclose(fit.scores()["a"], scores["fw=~y2"] + scores["fw=~y3"], rtol=1e-9, atol=1e-9)


def test_a_parameter_at_its_bound_has_no_standard_error_and_does_not_count() -> None:
    model = TWO_LEVEL + "  y2 ~~ lower(0.3)*y2\n"
    with pytest.warns(msem.errors.ImproperSolutionWarning):
        fit = mlr.__wrapped__(model)
    with pytest.warns(msem.errors.ImproperSolutionWarning):
        fixed = mlr.__wrapped__(TWO_LEVEL + "  y2 ~~ 0.3*y2\n")
    assert np.isnan(fit.bse["y2~~y2.l2"])
    kept = list(fixed.params.index)
    np.testing.assert_allclose(fit.bse[kept], fixed.bse[kept], rtol=1e-6)
    assert fit.sampling is not None
    assert fixed.sampling is not None
    assert fit.sampling.trace == pytest.approx(fixed.sampling.trace, rel=1e-7)


@pytest.mark.parametrize("test", ["yuan_bentler", "yuan_bentler_mplus"])
def test_units_order_and_origin_do_not_matter(test: str) -> None:
    reference = mlr(test=test)
    order = np.random.default_rng(3).permutation(len(DEMO))
    moved = DEMO.iloc[order].assign(
        x1=lambda d: 5 + d["x1"],
        w1=lambda d: 10 * d["w1"] - 3,
        cluster=lambda d: "c" + d["cluster"].astype(str),
    )
    other = msem.sem(TWO_LEVEL, moved, cluster="cluster", estimator="MLR", test=test)
    measures = [n for n in reference.fit_measures().index if "scal" in n or "robust" in n]
    np.testing.assert_allclose(
        other.fit_measures()[measures], reference.fit_measures()[measures], rtol=1e-6, atol=1e-8
    )
    same = [n for n in reference.bse.index if "~w1" not in n and "~1" not in n]
    np.testing.assert_allclose(other.bse[same], reference.bse[same], rtol=1e-6)


def test_a_covariate_with_a_huge_mean_changes_nothing() -> None:
    moved = msem.sem(TWO_LEVEL, DEMO.assign(x1=DEMO["x1"] + 1e6), cluster="cluster", estimator="MLR")
    same = [n for n in moved.bse.index if "~1" not in n]
    np.testing.assert_allclose(moved.bse[same], mlr().bse[same], rtol=1e-4)
    assert moved.fit_measures()["chisq_scaled"] == pytest.approx(
        mlr().fit_measures()["chisq_scaled"], rel=1e-4
    )


def test_groups_without_common_parameters_are_fits_of_their_own() -> None:
    data = DEMO.assign(half=np.where(DEMO["cluster"] % 3 == 0, "b", "a"))
    both = msem.sem(TWO_LEVEL, data, cluster="cluster", estimator="MLR", group="half")
    traces = []
    for number, half in enumerate("ab", 1):
        alone = msem.sem(TWO_LEVEL, data[data["half"] == half], cluster="cluster", estimator="MLR")
        estimates = both.estimates()
        own = estimates.loc[(estimates["group"] == number) & (estimates["se"] > 0), "se"]
        np.testing.assert_allclose(own, alone.estimates().query("se > 0")["se"], rtol=1e-6)
        traces.append(alone.fit_measures()["chisq_scaling_factor"] * alone.df)
    assert both.fit_measures()["chisq_scaling_factor"] * both.df == pytest.approx(sum(traces), rel=1e-6)


def test_clusters_of_one_row_are_rows_but_for_the_correction() -> None:
    rows = msem.sem(ONE_LEVEL, DEMO, se="robust", meanstructure=True)
    clusters = msem.sem(ONE_LEVEL, DEMO.assign(row=range(len(DEMO))), cluster="row")
    n = len(DEMO)
    np.testing.assert_allclose(clusters.bse, rows.bse * np.sqrt(n / (n - 1)), rtol=1e-9)


def test_clusters_of_a_single_level_are_sums_of_rows() -> None:
    clusters, rows = mlr(ONE_LEVEL), mlr(ONE_LEVEL, cluster=None, meanstructure=True)
    summed = rows.scores().groupby(DEMO["cluster"].to_numpy()).sum()
    np.testing.assert_allclose(clusters.scores().loc[summed.index], summed, atol=1e-8)
    joint = rows.cluster_loglik().groupby(DEMO["cluster"].to_numpy()).sum()
    np.testing.assert_allclose(clusters.cluster_loglik().loc[joint.index], joint, rtol=1e-10)
    assert clusters.nclusters == 200
    assert "Number of clusters [cluster]" in clusters.summary()


def test_several_tests_at_once() -> None:
    fit = mlr(test=("yuan.bentler.mplus", "yuan.bentler"))
    tests = fit.tests()
    assert list(tests.index) == ["standard", "yuan_bentler_mplus", "yuan_bentler"]
    np.testing.assert_allclose(tests["statistic"] * tests["scaling"], fit.chisq)
    assert tests.loc["yuan_bentler_mplus", "statistic"] == fit.fit_measures()["chisq_scaled"]
    alone = mlr(test="yuan_bentler").tests()
    pd.testing.assert_series_equal(alone.loc["yuan_bentler"], tests.loc["yuan_bentler"])


@pytest.mark.parametrize("name", ["robust", "sandwich", "robust.huber.white", "Robust_Huber_White"])
def test_names_of_robust_standard_errors(name: str) -> None:
    fit = msem.sem(TWO_LEVEL, DEMO, cluster="cluster", se=name)
    assert fit.options.se == "robust"
    assert list(fit.tests().index) == ["standard"]
    pd.testing.assert_series_equal(fit.bse, mlr().bse)


def test_lavaan_shorthand_for_information() -> None:
    short = msem.sem(TWO_LEVEL, DEMO, cluster="cluster", se="first.order")
    pd.testing.assert_series_equal(short.bse, mlr(estimator="MLF").bse)


@pytest.mark.filterwarnings("ignore::msem.errors.SmallSampleWarning")
def test_many_variables_have_the_errors_of_a_few() -> None:
    """Independent variables are models of their own; more than 48 rows of products go through other loops."""
    rng = np.random.default_rng(5)
    g = np.repeat(np.arange(120), rng.integers(3, 8, 120))
    values = rng.normal(size=(len(g), 50)) + rng.normal(size=(120, 50))[g]
    data = pd.DataFrame(values, columns=[f"y{k}" for k in range(50)]).assign(g=g)

    def fit(count: int) -> msem.Fit:
        own = "".join(f" y{k} ~~ y{k}\n" for k in range(count))
        return msem.sem(
            f"level: 1\n{own}level: 2\n{own}", data, cluster="g", estimator="MLR", test="standard"
        )

    many, few = fit(50), fit(2)
    np.testing.assert_allclose(many.params[few.params.index], few.params, rtol=1e-7)
    np.testing.assert_allclose(many.bse[few.params.index], few.bse, rtol=1e-6)


def test_mlm_is_the_correction_of_satorra_and_bentler() -> None:
    """Gamma from the products of the deviations, derivatives of the implied covariances written out."""
    data = sample()
    names = ["y1", "y2", "x1", "x2"]
    fit = msem.sem("f =~ y1 + y2 + x1 + x2", data, estimator="MLM", meanstructure=False)
    loadings, psi = np.array([1.0, *fit.params[:3]]), fit.params["f~~f"]
    theta = np.diag([fit.params[f"{name}~~{name}"] for name in names])
    sigma = psi * np.outer(loadings, loadings) + theta
    row, col = np.tril_indices(4)

    def moved(change: np.ndarray) -> np.ndarray:
        return change[row, col]

    units = np.eye(4)
    derivatives = {
        f"f=~{n}": psi * (np.outer(e, loadings) + np.outer(loadings, e))
        for n, e in zip(names, units, strict=True)
    }
    derivatives |= {f"{n}~~{n}": np.outer(e, e) for n, e in zip(names, units, strict=True)}
    derivatives["f~~f"] = np.outer(loadings, loadings)
    jacobian = np.column_stack([moved(derivatives[name]) for name in fit.params.index])
    inverse = np.linalg.inv(sigma)
    symmetric = [np.outer(units[i], units[j]) for i, j in zip(row, col, strict=True)]
    symmetric = [m + m.T - np.diag(np.diag(m)) for m in symmetric]
    weight = np.array([[0.5 * np.trace(inverse @ a @ inverse @ b) for b in symmetric] for a in symmetric])
    deviations = (data[names] - data[names].mean()).to_numpy()
    products = deviations[:, row] * deviations[:, col]
    gamma = np.cov(products.T, bias=True)
    bread = np.linalg.inv(jacobian.T @ weight @ jacobian)
    projection = bread @ jacobian.T @ weight
    n = len(data)
    np.testing.assert_allclose(fit.bse, np.sqrt(np.diag(projection @ gamma @ projection.T) / n), rtol=1e-8)
    residual = weight - weight @ jacobian @ projection
    factor = np.trace(residual @ gamma) / 2
    measures = fit.fit_measures()
    assert measures["chisq_scaling_factor"] == pytest.approx(factor, rel=1e-8)
    assert measures["chisq_scaled"] == pytest.approx(measures["chisq"] / factor, rel=1e-8)
    assert "Satorra-Bentler" in fit.summary()
    assert fit.options.estimator == "ML"


def test_mlm_is_the_same_options_and_is_for_complete_continuous_data() -> None:
    short = msem.sem(TWO_LEVEL, DEMO, cluster="cluster", estimator="mlm")
    long = mlr(estimator="ML", se="robust", information="expected", test="yuan.bentler")
    pd.testing.assert_frame_equal(short.estimates(), long.estimates())
    pd.testing.assert_series_equal(short.fit_measures(), long.fit_measures())
    standard = msem.sem(TWO_LEVEL, DEMO, cluster="cluster", estimator="MLM", se="standard")
    assert (standard.options.se, standard.options.test) == ("standard", ("standard", "yuan_bentler"))
    with pytest.raises(UnsupportedError, match='not for missing=: take "MLR"'):
        msem.sem(TWO_LEVEL, DEMO, cluster="cluster", estimator="MLM", missing="fiml")
    with pytest.raises(UnsupportedError, match="not for ordered="):
        msem.sem(ONE_LEVEL, DEMO, estimator="MLM", ordered=["y1"])
    with pytest.raises(ValueError, match='take estimator="MLM"'):
        mlr(estimator="ML", test="satorra.bentler")


def test_standard_errors_asked_for_win_over_the_estimator() -> None:
    fit = mlr(se="standard", test="standard")
    pd.testing.assert_series_equal(fit.bse, msem.sem(TWO_LEVEL, DEMO, cluster="cluster").bse)
    assert "chisq_scaled" not in fit.fit_measures()


def test_scaled_tests_need_no_standard_errors() -> None:
    fit = mlr(se="none")
    assert fit.tests().loc["yuan_bentler_mplus", "statistic"] == pytest.approx(
        mlr().tests().loc["yuan_bentler_mplus", "statistic"]
    )


@pytest.mark.parametrize("options", [{"estimator": "MLR"}, {"se": "robust"}, {"test": "yuan.bentler"}])
def test_moments_do_not_have_what_robust_inference_needs(options: dict[str, Any]) -> None:
    h1 = msem.saturated(
        DEMO, cluster="cluster", within=["y1", "y2", "y3", "x1", "x2"], between=["y1", "y2", "y3", "w1"]
    )
    with pytest.raises(DataError, match="need raw data: moments and statistics do not tell"):
        msem.sem(TWO_LEVEL, h1, **options)
    plain = msem.sem(TWO_LEVEL, h1)
    for wanted in (plain.scores, plain.cluster_loglik):
        with pytest.raises(DataError, match="raw data"):
            wanted()


def test_least_squares_has_no_likelihood_of_single_rows() -> None:
    fit = msem.sem("f =~ y1 + y2 + y3 + y4", DEMO, estimator="ULS")
    with pytest.raises(UnsupportedError, match="by least squares"):
        fit.cluster_loglik()


def test_one_cluster_is_not_enough() -> None:
    with pytest.raises(DataError, match="all rows are in one cluster"):
        msem.sem(ONE_LEVEL, DEMO.assign(cluster=1), cluster="cluster")


def test_no_chi_square_no_scaling() -> None:
    saturated = mlr("level: 1\n y1 ~ x1\nlevel: 2\n y1 ~ w1")
    measures = saturated.fit_measures()
    assert measures["chisq_scaled"] == pytest.approx(0, abs=1e-6)
    assert measures[["pvalue_scaled", "chisq_scaling_factor"]].isna().all()
    assert (measures[["cfi_scaled", "cfi_robust", "tli_robust", "rni_robust", "gfi_robust"]] == 1).all()
    assert (measures.filter(regex="rmsea(_ci_lower|_ci_upper)?_(scaled|robust)") == 0).all()
    assert measures["baseline_chisq_scaling_factor"] > 0.5
    assert "Scaling correction factor" not in saturated.summary()  # nothing is tested


def test_moderate_heavy_tails_are_seen() -> None:
    rng = np.random.default_rng(11)
    data = sample().copy()
    factor = rng.chisquare(5, data["cluster"].nunique())
    heavy = np.sqrt(5 / factor)[pd.factorize(data["cluster"])[0]]
    for name in ("y1", "y2"):
        data[name] = heavy * (data[name] - data[name].mean())
    model = "level: 1\n y1 ~~ 0*y2\nlevel: 2\n y1 ~~ 0*y2"
    fit = msem.sem(model, data, cluster="cluster", estimator="MLR")
    assert fit.fit_measures()["scaling_factor_h1"] > 1.5
    assert (fit.bse > msem.sem(model, data, cluster="cluster").bse).sum() >= 4


def test_summary_shows_both_columns() -> None:
    text = mlr().summary(fit_measures=True)
    for line in (
        "Standard      Scaled",
        "    Yuan-Bentler correction (Mplus variant)",
        "Robust Comparative Fit Index (CFI)",
        "Robust RMSEA",
        "  Standard errors                             Sandwich",
        "  Information bread                           Observed",
    ):
        assert line in text
    measures = mlr().fit_measures()
    row = next(line for line in text.splitlines() if line.startswith("  Test statistic"))
    assert row.split()[-2:] == [f"{measures['chisq']:.3f}", f"{measures['chisq_scaled']:.3f}"]
    html = mlr()._repr_html_()
    assert f"<td>{measures['chisq']:.3f}</td><td>{measures['chisq_scaled']:.3f}</td>" in html
    assert "Robust, by cluster" in mlr(ONE_LEVEL).summary()


def test_repeated_fits_are_identical() -> None:
    pd.testing.assert_series_equal(mlr.__wrapped__().fit_measures(), mlr().fit_measures(), check_exact=True)


def test_scores_of_rows_have_the_index_of_the_data() -> None:
    data = msem.load_demo().head(30).set_index(pd.Index([f"unit {k}" for k in range(30)]))
    data.iloc[4, data.columns.get_loc("y1")] = np.nan
    fit = msem.sem("y1 ~ x1", data, estimator="MLR")
    assert list(fit.scores().index) == list(data.index.delete(4))
    assert list(fit.cluster_loglik().index) == list(data.index.delete(4))
