"""Wald tests of hypotheses about the parameters of a fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import fits
import msem
from msem.distributions import chisq_pvalue
from msem.errors import ModelError, ModelSyntaxError
from msem.postestimation.wald import wald
from nested import centred_demo

STORED = json.loads((Path(__file__).parent / "data" / "lavaan_tests.json").read_text(encoding="utf-8"))[
    "cases"
]
TEXT = """
level: 1
    fw =~ y1 + a*y2 + b*y3
    fw ~ p*x1
level: 2
    fb =~ y1 + c*y2 + d*y3
    fb ~ w1
"""


def fitted(text: str = TEXT, **options: object) -> msem.Fit:
    return msem.sem(text, fits.data([4, 6, 9] * 60), cluster="cluster", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["wald", "wald_nonlinear", "wald_robust"])
@pytest.mark.parametrize("case", STORED)
def test_statistics_agree_with_lavaan(case: str, kind: str) -> None:
    stored = STORED[case]
    estimator = "MLR" if kind == "wald_robust" else "ML"
    fit = msem.sem(stored["models"]["large"], centred_demo(), cluster=stored["cluster"], estimator=estimator)
    found = fit.wald_test(stored["nonlinear" if kind == "wald_nonlinear" else "hypothesis"]).iloc[-1]
    assert found["statistic"] == pytest.approx(stored[kind]["stat"], rel=1e-6)
    assert found["df"] == stored[kind]["df"]
    assert found["pvalue"] == pytest.approx(stored[kind]["p.value"], rel=1e-5, abs=1e-15)


def test_one_parameter_is_its_z_value_squared() -> None:
    fit = fitted()
    found = fit.wald_test("a == 0")
    assert found.index.tolist() == ["a == 0"]
    assert found.loc["a == 0", "estimate"] == pytest.approx(fit.params["a"])
    assert found.loc["a == 0", "se"] == pytest.approx(fit.bse["a"])
    assert found.loc["a == 0", "statistic"] == pytest.approx(fit.tvalues["a"] ** 2)
    assert found.loc["a == 0", "pvalue"] == pytest.approx(fit.pvalues["a"])


def test_several_are_tested_one_by_one_and_jointly() -> None:
    fit = fitted()
    found = fit.wald_test("a == c; b == d\n a*b - p == 0.25")
    assert found.index.tolist() == ["a == c", "b == d", "a*b - p == 0.25", "joint"]
    a, b, p = fit.params[["a", "b", "p"]]
    values = np.array([a - fit.params["c"], b - fit.params["d"], a * b - p - 0.25])
    jacobian = np.array([[1, 0, 0, -1, 0], [0, 1, 0, 0, -1], [b, a, -1, 0, 0]], dtype=float)
    cov = jacobian @ fit.cov_params().loc[list("abpcd"), list("abpcd")].to_numpy() @ jacobian.T
    np.testing.assert_allclose(found["estimate"].iloc[:3], values, rtol=1e-10)
    np.testing.assert_allclose(found["se"].iloc[:3], np.sqrt(cov.diagonal()), rtol=1e-10)
    assert found.loc["joint", "statistic"] == pytest.approx(values @ np.linalg.solve(cov, values), rel=1e-9)
    assert found.loc["joint", "df"] == 3
    assert fit.wald_test(["a == c", "b == d; a*b - p == 0.25"]).equals(found)


def test_parameters_have_names_without_labels() -> None:
    fit = fitted()
    by_name = fit.wald_test("`fw=~y2` == `fb=~y2.l2`")
    assert by_name["statistic"].item() == fit.wald_test("a == c")["statistic"].item()


def test_wald_is_near_the_likelihood_ratio() -> None:
    large = fitted()
    small = fitted(TEXT.replace("c*", "a*").replace("d*", "b*"))
    found = large.wald_test("a == c; b == d").loc["joint"]
    assert found["statistic"] == pytest.approx(2 * (large.llf - small.llf), rel=0.15)


@pytest.mark.parametrize("extra", ["a - c == 0", "2*a == 2*c", "a + b == c + d"])
def test_a_hypothesis_that_follows_adds_no_degree_of_freedom(extra: str) -> None:
    fit = fitted()
    plain = fit.wald_test("a == c; b == d").loc["joint"]
    more = fit.wald_test(f"a == c; b == d; {extra}").loc["joint"]
    assert more["statistic"] == pytest.approx(plain["statistic"], rel=1e-8)
    assert more["df"] == plain["df"] == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a == z", "'z'"),
        ("a == 0; a == 1", "contradict each other"),
        ("a == c; c == b; a == b + 1", "contradict each other"),
        ("1 == 2", "fixed values only"),
        ("a", "'a == 0' is expected"),
        ("", "no hypothesis"),
        ("log(0 - a) == 0", "no value at the estimates"),
        ([1], "texts such as"),
        (None, "texts such as"),
        (3, "texts such as"),
    ],
)
def test_what_cannot_be_tested_is_named(text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        fitted().wald_test(text)


def test_text_that_is_no_equation_is_refused() -> None:
    with pytest.raises(ModelSyntaxError):
        fitted().wald_test("a == == b")


def test_an_estimate_without_standard_error_is_named() -> None:
    with pytest.raises(ModelError, match="no standard error for a"):
        fitted(se="none").wald_test("a == c")


def test_functions_that_cannot_vary() -> None:
    assert np.isnan(wald(np.array([0.5]), np.zeros((1, 1))).statistic)
    assert not wald(np.array([0.5, 1.0]), np.diag([0.0, 1.0])).consistent
    assert wald(np.array([0.0, 2.0]), np.diag([0.0, 1.0])) == (4.0, 1, True)


@pytest.mark.parametrize("df", [1, 2, 5])
def test_statistic_is_a_chi_square_under_the_hypothesis(df: int) -> None:
    """Mean and tail of a chi-square when the functions are normal with this covariance."""
    rng = np.random.default_rng(5)
    root = rng.normal(size=(df, df))
    draws = rng.normal(size=(4000, df)) @ root.T
    statistics = np.array([wald(row, root @ root.T).statistic for row in draws])
    assert statistics.mean() == pytest.approx(df, rel=0.06)
    tail = np.mean([chisq_pvalue(s, df) < 0.05 for s in statistics])
    assert tail == pytest.approx(0.05, abs=0.012)


@pytest.mark.filterwarnings("ignore")
def test_more_hypotheses_than_clusters_under_mlr() -> None:
    few = fits.data([4, 6, 9, 5, 7])
    fit = msem.sem(TEXT, few, cluster="cluster", estimator="MLR")
    with pytest.raises(ModelError, match=r"5 hypotheses cannot be tested together.*from 5 clusters"):
        fit.wald_test([f"{name} == 0" for name in "abpcd"])


def test_names_with_operators_need_no_quotes_by_themselves():
    fit = msem.sem("f =~ y1 + y2 + y3 + y4", msem.load_demo())
    one, two = fit.wald_test("f=~y2 == 1"), fit.wald_test("`f=~y2` == 1")
    np.testing.assert_array_equal(one.to_numpy(), two.to_numpy())
    assert fit.wald_test("f=~y2 == f=~y3").index[0] == "`f=~y2` == `f=~y3`"
    with pytest.raises(msem.errors.ModelError, match="such as '`f=~y2` == 0' is expected") as caught:
        fit.wald_test("f=~y2")
    fit.wald_test(str(caught.value).split("such as '")[1].split("' is")[0])


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("fb~w1 = 0", "`fb~w1` == 0"),
        ("fb =~ y2 = 1", "`fb =~ y2` == 1"),
        ("fb ~ w1", "`fb ~ w1` == 0"),
        ("a = b", "a == b"),
        ("a < 0", "a == 0"),
    ],
)
def test_what_is_no_equation_is_written_as_one(demo, text, meant):
    model = "level: 1\n fw =~ y1 + a*y2 + y3\nlevel: 2\n fb =~ y1 + b*y2 + y3\n fb ~ w1"
    fit = msem.sem(model.replace("b*y2", "y2"), demo, cluster="cluster")
    with pytest.raises(ModelError, match="no hypothesis") as raised:
        fit.wald_test(text)
    assert str(raised.value).endswith(f"such as '{meant}' is expected")
