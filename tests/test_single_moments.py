"""Single-level models from a covariance matrix: closed forms, rescaling, agreement with raw data, bad input."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

import msem
import reference
from msem.errors import DataError, ModelError

NAMES = ["y", "a", "b"]
COV = np.array([[2.0, 0.6, -0.3], [0.6, 1.0, 0.2], [-0.3, 0.2, 1.5]])
MEAN = {"y": 5.0, "a": 1.0, "b": -2.0}
N = 120
REGRESSION = "y ~ a + b"


def matrix(values: np.ndarray = COV, names: list[str] = NAMES) -> pd.DataFrame:
    return pd.DataFrame(values, index=names, columns=names)


def fitted(model: str = REGRESSION, **changes: Any) -> msem.Fit:
    given: dict[str, Any] = {"sample_cov": matrix(), "sample_nobs": N, "sample_cov_rescale": False}
    return msem.sem(model, **given | changes)


def table(fit: msem.Fit) -> pd.DataFrame:
    return fit.estimates().set_index(["lhs", "op", "rhs"])


def test_a_regression_has_its_closed_form() -> None:
    fit = fitted()
    slope = np.linalg.solve(COV[1:, 1:], COV[1:, 0])
    residual = COV[0, 0] - slope @ COV[1:, 0]
    est = table(fit)
    np.testing.assert_allclose(est.loc[[("y", "~", "a"), ("y", "~", "b")], "est"], slope, rtol=1e-9)
    errors = np.sqrt(residual * np.diag(np.linalg.inv(COV[1:, 1:])) / N)
    np.testing.assert_allclose(est.loc[[("y", "~", "a"), ("y", "~", "b")], "se"], errors, rtol=1e-8)
    assert est.loc[("y", "~~", "y"), "est"] == pytest.approx(residual, rel=1e-9)
    assert est.loc[("y", "~~", "y"), "se"] == pytest.approx(residual * math.sqrt(2 / N), rel=1e-8)
    assert fit.llf == pytest.approx(-0.5 * N * (math.log(2 * math.pi * residual) + 1), rel=1e-10)
    assert (fit.df, fit.npar, fit.nobs, fit.nclusters) == (0, 3, N, None)
    assert fit.chisq == pytest.approx(0.0, abs=1e-8)


def test_means_that_are_given_are_fitted() -> None:
    est = table(fitted(sample_mean=MEAN))
    slope = np.linalg.solve(COV[1:, 1:], COV[1:, 0])
    assert est.loc[("y", "~1", ""), "est"] == pytest.approx(5.0 - slope @ [1.0, -2.0], rel=1e-9)
    assert est.loc[("a", "~1", ""), "est"] == 1.0
    assert est.loc[("a", "~1", ""), "se"] == 0.0


def test_means_may_be_left_aside() -> None:
    est = table(fitted(sample_mean=MEAN, meanstructure=False))
    assert "~1" not in est.index.get_level_values("op")


def test_means_enter_as_deviations_of_the_mean_structure() -> None:
    """One free variance and a mean fixed at m: its variance is s + (ybar - m)^2."""
    fit = msem.sem(
        "y ~ 3*1\ny ~~ y",
        sample_cov=matrix(COV[:1, :1], ["y"]),
        sample_mean={"y": 5.0},
        sample_nobs=N,
        sample_cov_rescale=False,
    )
    assert fit.params["y~~y"] == pytest.approx(2.0 + 4.0, rel=1e-9)
    assert fit.chisq == pytest.approx(N * math.log(6.0 / 2.0), rel=1e-9)
    assert fit.df == 1


@pytest.mark.parametrize(("rescale", "factor"), [(True, (N - 1) / N), (False, 1.0)])
def test_rescaling_turns_an_unbiased_matrix_into_maximum_likelihood(rescale: bool, factor: float) -> None:
    est = table(fitted(sample_cov_rescale=rescale))
    assert est.loc[("a", "~~", "a"), "est"] == pytest.approx(factor, rel=1e-12)
    reference_fit = table(fitted(sample_cov_rescale=False))
    slopes = [("y", "~", "a"), ("y", "~", "b")]
    np.testing.assert_allclose(est.loc[slopes, "est"], reference_fit.loc[slopes, "est"], rtol=1e-9)
    assert est.loc[("y", "~~", "y"), "est"] == pytest.approx(
        factor * reference_fit.loc[("y", "~~", "y"), "est"], rel=1e-9
    )


def test_rescaling_is_the_default() -> None:
    fit = msem.sem(REGRESSION, sample_cov=matrix(), sample_nobs=N)
    assert table(fit).loc[("a", "~~", "a"), "est"] == pytest.approx((N - 1) / N, rel=1e-12)


@pytest.mark.parametrize("means", [True, False])
def test_moments_of_data_give_the_fit_of_the_data(means: bool) -> None:
    data = msem.load_demo()
    names = ["y1", "y2", "y3", "x1"]
    model = "f =~ y1 + y2 + y3\nf ~ x1"
    raw = msem.sem(model, data, meanstructure=means)
    given: dict[str, Any] = {"sample_mean": data[names].mean()} if means else {}
    fit = msem.sem(model, sample_cov=data[names].cov(), sample_nobs=len(data), **given)
    pd.testing.assert_frame_equal(fit.estimates(), raw.estimates(), rtol=1e-7, atol=1e-9, check_exact=False)
    pd.testing.assert_series_equal(
        fit.fit_measures(), raw.fit_measures(), rtol=1e-7, atol=1e-8, check_exact=False
    )
    assert "sample covariance matrix" in fit.summary()


def test_variables_that_the_model_does_not_use_do_not_matter() -> None:
    one = fitted("y ~ a", sample_mean=MEAN)
    two = fitted("y ~ a", sample_cov=matrix(COV[:2, :2], NAMES[:2]), sample_mean={"y": 5.0, "a": 1.0})
    pd.testing.assert_frame_equal(one.estimates(), two.estimates())
    assert one.llf == two.llf


@pytest.mark.parametrize("order", [["b", "y", "a"], ["a", "b", "y"]])
def test_the_order_of_the_matrix_does_not_matter(order: list[str]) -> None:
    lower = matrix().loc[order, order].where(np.tril(np.ones((3, 3), bool)))
    for given in (matrix().loc[order], matrix().loc[order, order], lower):
        pd.testing.assert_frame_equal(
            fitted(sample_cov=given).estimates(), fitted().estimates(), rtol=1e-9, check_exact=False
        )


def test_cfa_of_a_perfect_one_factor_matrix_fits_perfectly() -> None:
    loadings, residual = np.array([1.0, 0.7, 1.2, 0.9]), np.array([0.5, 0.6, 0.4, 0.8])
    names = ["u", "v", "w", "x"]
    cov = matrix(0.8 * np.outer(loadings, loadings) + np.diag(residual), names)
    fit = msem.cfa("f =~ u + v + w + x", sample_cov=cov, sample_nobs=200, sample_cov_rescale=False)
    np.testing.assert_allclose(fit.params, [*loadings[1:], *residual, 0.8], rtol=1e-6)
    assert fit.chisq == pytest.approx(0.0, abs=1e-8)
    assert fit.df == 2
    np.testing.assert_allclose(fit.implied[1].observed.cov, cov, rtol=1e-7)


@reference.needs_reference
def test_a_classical_covariance_matrix() -> None:
    """hs_cfa_cov is the fit to the matrix of hs_cfa: both must agree wherever no means are involved."""
    cov, mean = reference.moments("hs_cfa_cov")
    assert mean is None
    raw = msem.cfa(reference.model("hs_cfa"), reference.data("hs_cfa"))
    fit = msem.cfa(reference.model("hs_cfa_cov"), sample_cov=cov, sample_nobs=raw.nobs)
    assert fit.chisq == pytest.approx(raw.chisq, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_cov": COV}, "sample_cov must be a pandas DataFrame"),
        ({"sample_cov": matrix().iloc[:2]}, "sample_cov must be square"),
        ({"sample_cov": matrix(COV * [[1, 1, 1], [2, 1, 1], [1, 1, 1]])}, r"not symmetric: \(y, a\)"),
        ({"sample_cov": matrix(COV * [[1, 4, 1], [4, 1, 1], [1, 1, 1]])}, "not positive definite"),
        ({"sample_cov": matrix(names=["y", "a", "a"])}, "names 'a' twice"),
        ({"sample_cov": matrix(names=["y", "a", "c"])}, "no variable 'b'"),
        ({"sample_nobs": None}, "sample_nobs must be the number of observations"),
        ({"sample_nobs": 0}, "sample_nobs must be the number of observations"),
        ({"sample_nobs": math.inf}, "sample_nobs must be the number of observations"),
        ({"sample_mean": [1.0, 2.0, 3.0]}, "sample_mean must be a Series or mapping"),
        ({"sample_mean": {"y": 1.0, "a": 1.0}}, "sample_mean has no value for b"),
        ({"sample_mean": {"y": 1.0, "a": 1.0, "b": math.nan}}, "sample_mean must be finite"),
        ({"meanstructure": True}, "give sample_mean="),
    ],
)
def test_moments_that_cannot_be_used_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        fitted(**options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, DataError, "no data: give a data frame, or sample_cov= with sample_nobs="),
        ({"data": {"y": [1.0]}, "sample_cov": matrix()}, DataError, "give either data or sample_cov"),
        ({"data": {"y": [1.0]}, "sample_mean": MEAN}, DataError, "sample_mean belongs to sample_cov"),
        ({"data": {"y": [1.0]}, "sample_nobs": 10}, DataError, "sample_nobs belongs to sample_cov"),
    ],
)
def test_one_sample_is_needed(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        msem.sem(REGRESSION, **options)


def test_a_two_level_model_has_no_single_matrix() -> None:
    with pytest.raises(ModelError, match=r"sample_cov is for single-level models.*LevelMoments"):
        msem.sem("level: 1\ny ~ a\nlevel: 2\ny ~ b", sample_cov=matrix(), sample_nobs=N)


def test_level_specific_moments_need_a_two_level_model() -> None:
    given = msem.LevelMoments(matrix(), matrix(), cluster_sizes={5: 30})
    with pytest.raises(ModelError, match="LevelMoments have two"):
        msem.sem(REGRESSION, given)


def test_first_order_information_needs_data() -> None:
    with pytest.raises(DataError, match="this needs raw data"):
        fitted(information="first_order")
