"""Intraclass correlations: standard errors, intervals on Fisher's scale, design effects."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd
import pytest

import msem
import simulate
from msem.data.intraclass import anova_size, fisher_interval

MODEL = """
level: 1
    f =~ y1 + a*y2 + b*y3
    f ~ x1
level: 2
    f =~ y1 + a*y2 + b*y3
    f ~ w1
"""


@functools.cache
def fit() -> msem.Fit:
    return msem.sem(MODEL, msem.load_demo(), cluster="cluster")


def test_saturated() -> None:
    table, moments = fit().icc_table(), fit().saturated
    assert list(table.columns) == [
        *("lhs", "group", "icc", "se", "ci_lower", "ci_upper", "design_effect", "effective_nobs")
    ]
    assert table["lhs"].tolist() == ["y1", "y2", "y3"]
    np.testing.assert_allclose(table["icc"], moments.icc, rtol=1e-12)
    for column in table.columns[2:]:
        np.testing.assert_allclose(table[column], moments.icc_table()[column], rtol=1e-9)


def test_implied_by_the_model() -> None:
    table = fit().icc_table(source="model").set_index("lhs")
    assert table.index.tolist() == ["y1", "y2", "y3", "f"]
    within, between = (fit().implied[level].cov for level in (1, 2))
    for name in table.index:
        wanted = between.loc[name, name] / (within.loc[name, name] + between.loc[name, name])
        assert table.loc[name, "icc"] == pytest.approx(wanted)


def test_model_without_restrictions_has_the_saturated_values() -> None:
    fitted = msem.sem("level: 1\n  y1 ~~ y2\nlevel: 2\n  y1 ~~ y2", msem.load_demo(), cluster="cluster")
    ours, theirs = fitted.icc_table(source="model"), fitted.icc_table()
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-6)


def test_balanced_data_give_the_analysis_of_variance() -> None:
    """The interval is the delta-method approximation to that of log F with its large-sample variance."""
    n, clusters = 6, 4000
    rng = np.random.default_rng(7)
    frame = simulate.two_level(rng, [n] * clusters, [[1.0]], [[0.3]], [0.0], ["y"], [], 1)
    row = msem.sem("level: 1\n  y ~~ y\nlevel: 2\n  y ~~ y", frame, cluster="cluster").icc_table().iloc[0]
    means = frame.groupby("cluster")["y"].mean()
    msb = n * ((means - means.mean()) ** 2).sum() / clusters  # maximum likelihood divides by J
    msw = frame.groupby("cluster")["y"].var(ddof=1).mean()
    assert row["icc"] == pytest.approx((msb - msw) / (msb + (n - 1) * msw), rel=1e-6)
    ends = np.log(msb / msw) + np.array([-1, 1]) * 1.959964 * np.sqrt(2 / clusters + 2 / (clusters * (n - 1)))
    wanted = (np.exp(ends) - 1) / (np.exp(ends) + n - 1)
    np.testing.assert_allclose(row[["ci_lower", "ci_upper"]].astype(float), wanted, rtol=1e-5)
    assert row["design_effect"] == pytest.approx(1 + (n - 1) * row["icc"])
    assert row["effective_nobs"] == pytest.approx(n * clusters / row["design_effect"])


def test_design_effect_of_unequal_clusters_is_that_of_the_mean_of_all_units() -> None:
    sizes, counts = (
        np.array(x, dtype=float) for x in zip(*fit().saturated.cluster_sizes.items(), strict=True)
    )
    nobs, icc = sizes @ counts, fit().icc.iloc[0]
    variance = ((1 - icc) * nobs + icc * (sizes**2 @ counts)) / nobs**2
    assert fit().icc_table()["design_effect"].iloc[0] == pytest.approx(variance * nobs)


def test_interval_may_include_negative_values() -> None:
    lower, upper = fisher_interval(np.array([0.01, -0.05, 1.0]), np.array([0.02, 0.01, 0.1]), 10.0, 0.95)
    assert -1 / 9 < lower[1] < upper[1] < 0
    assert -1 / 9 < lower[0] < 0 < upper[0]
    assert np.isnan(lower[2])


def test_anova_size() -> None:
    assert anova_size(np.array([5.0]), np.array([8.0])) == pytest.approx(5)
    assert anova_size(np.array([2.0, 4.0]), np.array([1.0, 1.0])) == pytest.approx(6 - 20 / 6)


def test_coverage_of_the_interval() -> None:
    covered, sizes = [], [*range(3, 13)] * 8
    for seed in range(300):
        frame = simulate.two_level(np.random.default_rng(seed), sizes, [[1.0]], [[0.2]], [0.0], ["y"], [], 1)
        fitted = msem.sem("level: 1\n  y ~~ y\nlevel: 2\n  y ~~ y", frame, cluster="cluster", se="none")
        row = fitted.icc_table().iloc[0]
        covered.append(row["ci_lower"] < 0.2 / 1.2 < row["ci_upper"])
    assert 0.91 < np.mean(covered) < 0.98


def test_single_level_model_has_none() -> None:
    fitted = msem.sem("y1 ~ x1", msem.load_demo())
    with pytest.raises(msem.errors.UnsupportedError, match="single-level model has no intraclass"):
        fitted.icc_table()


def test_no_variable_at_both_levels() -> None:
    fitted = msem.sem("level: 1\n  x1 ~ x2\nlevel: 2\n  w1 ~ w2", msem.load_demo(), cluster="cluster")
    with pytest.raises(msem.errors.ModelError, match="no variable is at several levels"):
        fitted.icc_table()


def test_unknown_source() -> None:
    with pytest.raises(ValueError, match="source must be one of"):
        fit().icc_table(source="data")  # type: ignore[arg-type]


def test_single_level_fits_have_none() -> None:
    data = msem.load_demo()[["y1", "y2", "y3"]].gt(0).astype(int)
    for fit in (
        msem.sem("f =~ y1 + y2 + y3", data, ordered=list(data)),
        msem.sem("f =~ y1 + y2 + y3", msem.load_demo()),
    ):
        with pytest.raises(AttributeError, match="a single-level fit has no intraclass correlations"):
            _ = fit.icc
