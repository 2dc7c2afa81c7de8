"""Likelihood-ratio tests of nested models, and refusals to test others."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

import fits
import msem
from msem.errors import DataError, ModelError, MsemError, UnsupportedError
from msem.inference.differences import Fitted, likelihood_ratio, restriction_weights
from msem.inference.nested import embed

Floats = NDArray[np.float64]
STORED = json.loads((Path(__file__).parent / "data" / "lavaan_tests.json").read_text(encoding="utf-8"))[
    "cases"
]
SIZES = [4, 6, 9] * 60
FREE = """
level: 1
    fw =~ y1 + y2 + y3
    fw ~ x1
level: 2
    fb =~ y1 + y2 + y3
    fb ~ w1
"""
EQUAL = FREE.replace("y2 + y3", "a*y2 + b*y3")
METHODS = ("standard", "satorra_bentler_2001", "satorra_bentler_2010", "satorra_2000")


def fitted(text: str = FREE, data: pd.DataFrame | None = None, **options: Any) -> msem.Fit:
    return msem.sem(text, fits.data(SIZES) if data is None else data, cluster="cluster", **options)


def skewed(seed: int = 8) -> pd.DataFrame:
    """Two-level data with skewed parts, so that the scaling is not 1."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(120), np.tile([5, 9, 13], 40))
    between, within = rng.exponential(size=(120, 1)) - 1, rng.exponential(size=(len(codes), 1)) - 1
    load = np.array([1.0, 0.8, 0.8, 0.7])
    y = (between @ [load])[codes] + within @ [load]
    y += rng.normal(size=(120, 4))[codes] * 0.4 + rng.exponential(size=y.shape) - 1
    return pd.DataFrame(y, columns=["y1", "y2", "y3", "y4"]).assign(cluster=codes)


PLAIN = """
level: 1
    fw =~ y1 + y2 + y3 + y4
level: 2
    fb =~ y1 + y2 + y3 + y4
"""
RESTRICTED = PLAIN.replace("y1 + y2 + y3 + y4", "y1 + a*y2 + a*y3 + c*y4")


def stored_fits(case: str) -> dict[str, msem.Fit]:
    stored = STORED[case]
    data = msem.load_demo()
    return {k: msem.sem(text, data, cluster=stored["cluster"]) for k, text in stored["models"].items()}


@pytest.mark.parametrize("case", STORED)
def test_likelihood_ratio_agrees_with_lavaan(case: str) -> None:
    found = msem.compare_models(stored_fits(case)).loc["small"]
    theirs = STORED[case]["lrt"]
    assert found["chisq_diff"] == pytest.approx(theirs["chisq_diff"], rel=1e-7)
    assert found["df_diff"] == theirs["df_diff"]
    assert found["pvalue"] == pytest.approx(theirs["pvalue"], rel=1e-6)


# With fixed covariates at two levels lavaan 0.6 is off by 0.1%: it takes the moments of the covariates from its EM
# estimates, which stop early.
@pytest.mark.parametrize("case", ["two_level", "single_level"])
def test_satorra_bentler_2001_agrees_with_lavaan(case: str) -> None:
    found = msem.compare_models(stored_fits(case), method="satorra_bentler_2001").loc["small"]
    assert found["chisq_diff"] == pytest.approx(STORED[case]["lrt_2001"]["chisq_diff"], rel=1e-6)


def test_table_has_every_model_by_degrees_of_freedom() -> None:
    large, middle, small = fitted(), fitted(EQUAL), fitted(EQUAL.replace("fb ~ w1", "fb ~ 0*w1"))
    table = msem.compare_models(small, large, middle=middle)
    assert table.index.tolist() == ["model_2", "middle", "model_1"]
    assert table["df"].is_monotonic_increasing
    for name, fit in zip(table.index, (large, middle, small), strict=True):
        row = table.loc[name]
        assert [row["llf"], row["aic"], row["bic"], row["npar"]] == [fit.llf, fit.aic, fit.bic, fit.npar]
        assert row["chisq"] == pytest.approx(fit.chisq)
    assert pd.isna(table.iloc[0]["df_diff"])
    assert table["df_diff"].tolist()[1:] == [2, 1]
    assert table["chisq_diff"].tolist()[1:] == pytest.approx(np.diff(table["chisq"]), rel=1e-9)
    assert set(table["method"].dropna()) == {"standard"}


def test_rmsea_of_the_difference() -> None:
    data = skewed()
    row = msem.compare_models(a=fitted(PLAIN, data), b=fitted(RESTRICTED, data)).loc["b"]
    excess = max(row["chisq_diff"] - row["df_diff"], 0.0)
    assert row["rmsea_diff"] == pytest.approx(np.sqrt(excess / row["df_diff"] / len(data)))


# -- nestedness -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("small", "large"),
    [
        (EQUAL, FREE),
        (FREE.replace("fb ~ w1", "fb ~ 0*w1"), FREE),
        (FREE, FREE + "    y1 ~ w1"),
        (EQUAL, FREE.replace("fb =~ y1", "fb =~ NA*y1").replace("fb ~ w1", "fb ~ w1\n    fb ~~ 1*fb")),
        (FREE, "level: 1\n y1 ~~ y2 + y3\n y2 ~~ y3\n y1 + y2 + y3 ~ x1\n" + FREE[FREE.index("level: 2") :]),
    ],
    ids=["equal", "zero", "path", "scale", "saturated_within"],
)
def test_nested_models_are_found_to_be_nested(small: str, large: str) -> None:
    one, other = fitted(small), fitted("\n".join(line.strip() for line in large.splitlines()))
    inside = embed(one.estimate, other.estimate)
    assert inside.nested
    assert inside.discrepancy < 1e-6
    for level, moments in one.objective.moments(one.estimate.theta).items():
        theirs = other.objective.moments(inside.theta)[level].observed
        order = [theirs.names.index(name) for name in moments.observed.names]
        np.testing.assert_allclose(theirs.cov[np.ix_(order, order)], moments.observed.cov, atol=1e-5)
    assert not embed(other.estimate, one.estimate).nested


def test_models_that_only_differ_in_degrees_of_freedom_are_not_nested() -> None:
    other = FREE.replace("fb ~ w1", "fb ~ 0*w1") + "    y1 ~~ 0*y1"
    # two restrictions less and one that the other does not have
    one = FREE.replace("fw =~ y1 + y2", "fw =~ y1 + 1*y2")
    with pytest.raises(ModelError, match="is not nested in"):
        msem.compare_models(one=fitted(one), other=fitted(other))


def test_models_with_the_same_degrees_of_freedom_are_refused() -> None:
    with pytest.raises(ModelError, match="same degrees of freedom"):
        msem.compare_models(fitted(), fitted(std_lv=True))


def test_statistic_does_not_depend_on_the_parametrization() -> None:
    """The larger model with another scale of its factors is the same model."""
    data = skewed()
    small = fitted(RESTRICTED, data)
    for method in METHODS:
        one, other = (
            msem.compare_models(large=fitted(PLAIN, data, std_lv=std_lv), small=small, method=method)  # type: ignore[arg-type]
            for std_lv in (False, True)
        )
        assert one["chisq_diff"].iloc[1] == pytest.approx(other["chisq_diff"].iloc[1], rel=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_statistic_does_not_depend_on_order_or_units(method: Any) -> None:
    data = skewed()
    plain = msem.compare_models(a=fitted(PLAIN, data), b=fitted(RESTRICTED, data), method=method)
    turned = PLAIN.replace("y1 + y2 + y3 + y4", "y1 + y4 + y3 + y2")
    shuffled = data.sample(frac=1, random_state=3)
    scaled = {name: 100 * shuffled[name] + 1e4 for name in ("y1", "y2", "y3", "y4")}
    other = msem.compare_models(
        a=fitted(turned, shuffled.assign(**scaled)),
        b=fitted(RESTRICTED, shuffled.assign(**scaled)),
        method=method,
    )
    assert other["chisq_diff"].iloc[1] == pytest.approx(plain["chisq_diff"].iloc[1], rel=1e-5)


# -- scaling ----------------------------------------------------------------------------------------------------


def restriction(n: int) -> tuple[Floats, Floats, Floats]:
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, 30, n))
    return a.T @ a, b.T @ b, rng.normal(size=(2, n))


def test_weights_are_those_of_the_restriction_matrix() -> None:
    """Eigenvalues of (A P^-1 A')^-1 A P^-1 B P^-1 A' (Satorra, 2000)."""
    p, b, a = restriction(7)
    left = np.linalg.svd(a)[2][2:].T
    inverse = np.linalg.inv(p)
    want = np.linalg.eigvals(np.linalg.solve(a @ inverse @ a.T, a @ inverse @ b @ inverse @ a.T)).real
    found = restriction_weights(p, b, np.eye(7), left)
    np.testing.assert_allclose(np.sort(found), np.sort(want), rtol=1e-10)
    assert restriction_weights(p, p, np.eye(7), left) == pytest.approx(np.ones(2))


def test_scaling_at_the_restricted_estimates_is_a_difference_of_traces() -> None:
    data = skewed()
    large, small = fitted(PLAIN, data), fitted(RESTRICTED, data)
    inside = embed(small.estimate, large.estimate)
    (clusters,) = large.sample.clusters

    def trace(fit: msem.Fit, theta: Floats) -> float:
        core = fit.objective.core
        scores = core.scores(theta, clusters.sizes, clusters.means, clusters.within)
        return float(np.trace(np.linalg.solve(core.expected_information(theta), scores.T @ scores)))

    want = (trace(large, inside.theta) - trace(small, small.estimate.theta)) / 4
    pair = Fitted(small.estimate, small.sample), Fitted(large.estimate, large.sample)
    found = likelihood_ratio(*pair, inside, "satorra_bentler_2010")
    assert found.scaling == pytest.approx(want, rel=1e-6)


def test_one_restriction_is_scaled_as_the_robust_wald_test_is() -> None:
    """The ratio of robust and naive variances of what is restricted, for a large sample."""
    data = pd.concat(
        [skewed(seed).assign(cluster=lambda d, s=seed: d["cluster"] + 1000 * s) for seed in range(8)]
    )
    large = fitted(PLAIN, data)
    small = fitted(PLAIN.replace("level: 2", "    y2 ~~ 1*y2\nlevel: 2"), data)
    (clusters,) = large.sample.clusters
    theta = large.estimate.theta
    scores = large.objective.core.scores(theta, clusters.sizes, clusters.means, clusters.within)
    bread = np.linalg.inv(large.objective.observed_information(theta))
    k = list(large.params.index).index("y2~~y2")
    want = (bread @ scores.T @ scores @ bread)[k, k] / bread[k, k]
    assert abs(want - 1) > 0.2
    for method in METHODS[1:]:
        found = msem.compare_models(large=large, small=small, method=method).loc["small", "scaling"]  # type: ignore[arg-type]
        assert found == pytest.approx(want, rel=0.05)


def test_shifted_statistic_has_mean_and_variance_of_a_chi_square() -> None:
    data = skewed()
    pair = {"large": fitted(PLAIN, data), "small": fitted(RESTRICTED, data)}
    plain = msem.compare_models(pair, method="satorra_2000").loc["small"]
    shifted = msem.compare_models(pair, method="satorra_2000", scaled_shifted=True).loc["small"]
    ratio, df = plain["chisq_diff"] * plain["scaling"], plain["df_diff"]
    shift = shifted["chisq_diff"] - ratio / shifted["scaling"]
    # E(T/a + shift) = df, with E(T) = df * c
    assert df * plain["scaling"] / shifted["scaling"] + shift == pytest.approx(df, rel=1e-9)
    assert shifted["scaling"] > plain["scaling"]


def test_a_scaling_that_is_not_positive_gives_no_statistic() -> None:
    data = skewed()
    large, small = fitted(PLAIN, data), fitted(RESTRICTED, data)
    inside = embed(small.estimate, large.estimate)
    pair = Fitted(large.estimate, large.sample), Fitted(small.estimate, small.sample)
    found = likelihood_ratio(pair[0], pair[1], inside, "satorra_bentler_2001")  # the wrong way round
    positive = likelihood_ratio(pair[1], pair[0], inside, "satorra_bentler_2001")
    assert positive.scaling > 0
    assert found.scaling == pytest.approx(positive.scaling)  # both numerator and denominator change sign
    robust = replace(small.sample.groups[0], data=None)
    with pytest.raises(DataError, match="raw data"):
        likelihood_ratio(
            Fitted(small.estimate, replace(small.sample, groups=(robust,))),
            pair[0],
            inside,
            "satorra_bentler_2001",
        )


# -- refusals ---------------------------------------------------------------------------------------------------


def changed(**columns: Any) -> pd.DataFrame:
    return fits.data(SIZES).assign(**columns)


DATA = fits.data(SIZES)


@pytest.mark.parametrize(
    ("text", "data", "message"),
    [
        (EQUAL, DATA.iloc[:-1], "1139 and 1140 units"),
        (EQUAL, DATA[DATA["cluster"] > DATA["cluster"].min()], "units"),
        (EQUAL, changed(y2=DATA["y2"] * 2), "'y2' differ"),
        (EQUAL, changed(y2=DATA["y2"] + 1e-3), "means of 'y2' differ"),
        (EQUAL, changed(x1=DATA["x1"].sample(frac=1, random_state=1).to_numpy()), "'x1' differ"),
        (EQUAL.replace("fb ~ w1", ""), DATA, "variable 'w1' and small does not"),
        (
            EQUAL.replace("+ b*y3\n    fb", "\n    fb"),
            DATA,
            "'y3' is at the within level only in small and at both",
        ),
    ],
    ids=["row", "cluster", "scaled", "moved", "permuted", "variable", "level"],
)
@pytest.mark.filterwarnings("ignore::msem.errors.MsemWarning")
def test_fits_of_different_data_are_not_compared(text: str, data: pd.DataFrame, message: str) -> None:
    with pytest.raises(DataError, match=message):
        msem.compare_models(large=fitted(), small=fitted(text, data))


def test_likelihoods_given_different_covariates_are_not_compared() -> None:
    with pytest.raises(ModelError, match="covariate 'w1' from the sample"):
        msem.compare_models(fitted(EQUAL), fitted(FREE.replace("fb ~ w1", "fb ~ w1\n    w1 ~~ w1")))


def test_what_is_no_maximum_of_a_likelihood_is_not_compared() -> None:
    with pytest.warns(msem.errors.ConvergenceWarning):
        early = fitted(EQUAL, max_iterations=1)
    with pytest.raises(ModelError, match="early has not converged"):
        msem.compare_models(fit=fitted(), early=early)
    uls = msem.sem("f =~ y1 + y2 + y3", DATA, estimator="ULS")
    with pytest.raises(UnsupportedError, match="least squares"):
        msem.compare_models(uls, uls)


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((), {}),
        ((fitted(),), {}),
        ((fitted(), "fit"), {}),
        ((fitted(), fitted(EQUAL)), {"method": "bentler"}),
        ((fitted(), fitted(EQUAL)), {"scaled_shifted": True}),
    ],
    ids=["nothing", "one", "text", "method", "shifted"],
)
def test_wrong_arguments_are_refused(arguments: Any, options: Any) -> None:
    with pytest.raises((MsemError, ValueError)):
        msem.compare_models(*arguments, **options)


def test_single_level_models_are_compared_with_or_without_means() -> None:
    model = "f =~ y1 + y2 + y3 + y4"
    equal = "f =~ y1 + a*y2 + a*y3 + a*y4"
    data = skewed()
    plain = msem.compare_models(a=msem.sem(model, data), b=msem.sem(equal, data)).loc["b"]
    means = msem.compare_models(
        a=msem.sem(model, data, meanstructure=True), b=msem.sem(equal, data, meanstructure=True)
    ).loc["b"]
    assert plain["chisq_diff"] == pytest.approx(means["chisq_diff"], rel=1e-7)
    with pytest.raises(MsemError, match="means"):
        msem.compare_models(msem.sem(model, data), msem.sem(equal, data, meanstructure=True))


# -- groups and constraints -------------------------------------------------------------------------------------


def grouped(**options: Any) -> msem.Fit:
    data = msem.load_demo()
    data = data.assign(region=np.where(data["cluster"] // 2 % 2, "north", "south"))
    text = PLAIN.replace(" + y4", "")
    return msem.sem(text, data, cluster="cluster", group="region", **options)


@pytest.mark.parametrize("method", METHODS)
def test_invariance_of_groups_is_tested_step_by_step(method: Any) -> None:
    """With equal intercepts the factor means are free: nested, but not by leaving out parameters."""
    table = msem.compare_models(
        scalar=grouped(group_equal=["loadings", "intercepts"]),
        metric=grouped(group_equal=["loadings"]),
        configural=grouped(),
        method=method,
    )
    assert table.index.tolist() == ["configural", "metric", "scalar"]
    assert table["df_diff"].tolist()[1:] == [4, 2]
    assert table["scaling"].iloc[1:].between(0.8, 1.25).all()


def test_scaling_of_groups_is_that_of_the_groups_by_themselves() -> None:
    """Without equalities over groups both traces are sums over the groups."""
    large, small = grouped(), grouped()
    text = PLAIN.replace(" + y4", "").replace("fb =~ y1 + y2", "fb =~ y1 + c(0.9, 0.9)*y2")
    data = msem.load_demo()
    data = data.assign(region=np.where(data["cluster"] // 2 % 2, "north", "south"))
    small = msem.sem(text, data, cluster="cluster", group="region")
    whole = msem.compare_models(large=large, small=small, method="satorra_2000").loc["small"]
    parts = []
    for _, own in data.groupby("region"):
        fit = msem.sem(PLAIN.replace(" + y4", ""), own, cluster="cluster")
        fixed = msem.sem(text.replace("c(0.9, 0.9)", "0.9"), own, cluster="cluster")
        parts.append(msem.compare_models(large=fit, small=fixed, method="satorra_2000").loc["small"])
    assert whole["scaling"] == pytest.approx(np.mean([part["scaling"] for part in parts]), rel=1e-6)
    ratios = [part["scaling"] * part["chisq_diff"] for part in parts]
    assert whole["scaling"] * whole["chisq_diff"] == pytest.approx(sum(ratios), rel=1e-6)


LABELS = FREE.replace("y2 + y3", "a*y2 + b*y3", 1).replace("fb =~ y1 + y2 + y3", "fb =~ y1 + c*y2 + d*y3")


@pytest.mark.parametrize("constraint", ["a == c\nb == d", "a^2 == c^2\nlog(b) == log(d)"])
@pytest.mark.parametrize("method", METHODS)
def test_constraints_are_tested_as_shared_labels_are(constraint: str, method: Any) -> None:
    shared = msem.compare_models(large=fitted(), small=fitted(EQUAL), method=method).loc["small"]
    imposed = msem.compare_models(large=fitted(), small=fitted(LABELS + constraint), method=method).loc[
        "small"
    ]
    assert imposed["df_diff"] == 2
    assert imposed["chisq_diff"] == pytest.approx(shared["chisq_diff"], rel=1e-5)


def test_a_larger_model_may_have_constraints_too() -> None:
    middle, small = fitted(LABELS + "a == c"), fitted(LABELS + "a == c\nb*d == d^2")
    for method in METHODS:
        found = msem.compare_models(fitted(), middle, small, method=method)  # type: ignore[arg-type]
        assert found["df_diff"].tolist()[1:] == [1, 1]
    with pytest.raises(ModelError, match="not nested"):
        msem.compare_models(middle, fitted(LABELS + "b == d\na == 0.5*c"))


@pytest.mark.filterwarnings("ignore::msem.errors.ImproperSolutionWarning")
def test_a_model_at_its_bound_is_compared() -> None:
    """The larger model cannot move where its bound holds it."""
    bounded = LABELS + "c > 1.1"
    large, small = fitted(bounded), fitted(bounded + "\nb == d")
    assert large.status == small.status == "boundary"
    found = msem.compare_models(large=large, small=small, method="satorra_2000").loc["small"]
    assert found["df_diff"] == 1
    assert found["chisq_diff"] == pytest.approx(2 * (large.llf - small.llf) / found["scaling"])
