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

import msem
from msem.errors import DataError, ModelError
from msem.postestimation.likelihood_ratio import Fitted, likelihood_ratio, restriction_weights
from msem.postestimation.nested import embed
from nested import EQUAL, FREE, METHODS, PLAIN, RESTRICTED, centred_demo, fitted, skewed

Floats = NDArray[np.float64]
STORED = json.loads((Path(__file__).parent / "data" / "lavaan_tests.json").read_text(encoding="utf-8"))[
    "cases"
]


def stored_fits(case: str) -> dict[str, msem.Fit]:
    stored = STORED[case]
    data = centred_demo()
    return {k: msem.sem(text, data, cluster=stored["cluster"]) for k, text in stored["models"].items()}


@pytest.mark.parametrize("case", STORED)
def test_likelihood_ratio_agrees_with_lavaan(case: str) -> None:
    found = msem.compare_models(stored_fits(case)).loc["small"]
    theirs = STORED[case]["lrt"]
    assert found["chisq_diff"] == pytest.approx(theirs["chisq_diff"], rel=1e-7)
    assert found["df_diff"] == theirs["df_diff"]
    assert found["pvalue"] == pytest.approx(theirs["pvalue"], rel=1e-6)


@pytest.mark.parametrize("case", STORED)
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


@pytest.mark.parametrize("method", METHODS)
def test_statistic_does_not_depend_on_units_that_differ_between_variables(method: Any) -> None:
    """The restriction stands in the loadings of y3 and y4, whatever y1 and y2 are measured in."""
    data = skewed()
    small = PLAIN.replace("y3 + y4", "a*y3 + a*y4")
    units = {"y1": 1e-6 * data["y1"], "y2": 1e6 * data["y2"]}
    plain, other = (
        msem.compare_models(a=fitted(PLAIN, own), b=fitted(small, own), method=method)
        for own in (data, data.assign(**units))
    )
    for name in ("chisq_diff", "scaling"):
        assert other[name].iloc[1] == pytest.approx(plain[name].iloc[1], rel=1e-4)


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
        scores = clusters.scores(core, theta)
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
    scores = clusters.scores(large.objective.core, theta)
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


@pytest.mark.parametrize("variant", ["yuan_bentler_mplus", "yuan_bentler"])
def test_robust_fits_are_compared_by_their_scaled_chi_squares(variant: Any) -> None:
    """The scaling of a difference is (d0 c0 - d1 c1) / (d0 - d1) with the scaling factors of the two tests."""
    data = skewed()
    options = {"estimator": "MLR"} if variant == "yuan_bentler_mplus" else {"test": variant}
    pair = {"large": fitted(PLAIN, data, **options), "small": fitted(RESTRICTED, data, **options)}
    found = msem.compare_models(pair).loc["small"]
    assert found["method"] == "satorra_bentler_2001"
    c = {name: fit.fit_measures()["chisq_scaling_factor"] for name, fit in pair.items()}
    d = {name: fit.df for name, fit in pair.items()}
    want = (d["small"] * c["small"] - d["large"] * c["large"]) / (d["small"] - d["large"])
    assert found["scaling"] == pytest.approx(want, rel=1e-6)
    assert found["pvalue"] < 1


def test_a_scaling_that_is_not_positive_falls_back() -> None:
    """A between factor without variance is so far from these data that the traces change places."""
    large = fitted(estimator="MLR")
    small = fitted(FREE.replace("fb ~ w1", "fb ~ w1\n    fb ~~ 0*fb"), estimator="MLR")
    asked = msem.compare_models(large=large, small=small, method="satorra_bentler_2001").loc["small"]
    assert np.isnan(asked["chisq_diff"])
    assert np.isnan(asked["pvalue"])
    found = msem.compare_models(large=large, small=small).loc["small"]
    assert found["method"] == "satorra_bentler_2010"
    assert found["scaling"] > 0


def test_rows_of_a_single_level_are_taken_together_by_cluster() -> None:
    data = skewed()
    model, equal = "f =~ y1 + y2 + y3 + y4", "f =~ y1 + a*y2 + a*y3 + y4"
    fits_of = [
        {"large": msem.sem(model, data, **o), "small": msem.sem(equal, data, **o)}  # type: ignore[arg-type]
        for o in ({"estimator": "MLR"}, {"estimator": "MLR", "cluster": "cluster"})
    ]
    rows, clusters = (msem.compare_models(pair).loc["small"] for pair in fits_of)
    assert clusters["scaling"] > 1.1 * rows["scaling"]
    exact = [msem.compare_models(pair, method="satorra_2000")["scaling"].iloc[1] for pair in fits_of]
    assert exact == pytest.approx([rows["scaling"], clusters["scaling"]], rel=0.1)
