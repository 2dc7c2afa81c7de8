"""The tables of the document the package started from: Mark Lai (2024), typed in as printed.

"Multilevel SEM using estimated level-specific covariance matrices", with lavaan's Demo.twolevel. The sufficient
statistics of those data (numbers only) are in tests/data, so nothing here needs the data themselves.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import msem
from msem.data.complete import SampleStatistics

STATISTICS = Path(__file__).parent / "data" / "demo_twolevel_statistics.json"
WITHIN = "fw =~ y1 + y2 + y3\nfw ~ x1 + x2 + x3"
BETWEEN = "fb =~ y1 + y2 + y3\nfb ~ w1 + w2"

WITHIN_COV = """
y1  2.000
y2  0.789  1.674
y3  0.749  0.564  1.557
x1  0.489  0.393  0.376  0.982
x2  0.416  0.322  0.299  0.001  1.011
x3  0.221  0.160  0.155 -0.006  0.008  1.045
"""
BETWEEN_COV = """
y1  0.992
y2  0.668  0.598
y3  0.548  0.391  0.469
w1  0.125  0.119  0.036  0.870
w2  0.086  0.057  0.130 -0.128  0.931
"""
# Rows: lhs op rhs est se z; separate fits, then the simultaneous one.
SEPARATE_BETWEEN = """
fb =~ y1 1.000 0.000 -
fb =~ y2 0.717 0.034 21.020
fb =~ y3 0.587 0.034 17.524
fb ~ w1 0.164 0.074 2.209
fb ~ w2 0.128 0.072 1.786
y1 ~~ y1 0.060 0.027 2.244
y2 ~~ y2 0.118 0.018 6.629
y3 ~~ y3 0.147 0.017 8.533
fb ~~ fb 0.894 0.098 9.079
w1 ~~ w1 0.866 0.000 -
w1 ~~ w2 -0.128 0.000 -
w2 ~~ w2 0.926 0.000 -
y1 ~1 . 0.022 0.069 0.316
y2 ~1 . -0.014 0.054 -0.268
y3 ~1 . -0.042 0.048 -0.869
w1 ~1 . 0.052 0.000 -
w2 ~1 . -0.091 0.000 -
fb ~1 . 0.000 0.000 -
"""
SEPARATE_WITHIN = """
fw =~ y1 1.000 0.000 -
fw =~ y2 0.773 0.035 22.287
fw =~ y3 0.734 0.033 22.033
fw ~ x1 0.510 0.024 21.697
fw ~ x2 0.407 0.022 18.165
fw ~ x3 0.205 0.021 9.766
y1 ~~ y1 0.985 0.046 21.538
y2 ~~ y2 1.067 0.039 27.179
y3 ~~ y3 1.011 0.037 27.530
fw ~~ fw 0.547 0.040 13.557
x1 ~~ x1 0.982 0.000 -
x1 ~~ x2 0.001 0.000 -
x1 ~~ x3 -0.006 0.000 -
x2 ~~ x2 1.011 0.000 -
x2 ~~ x3 0.008 0.000 -
x3 ~~ x3 1.045 0.000 -
y1 ~1 . 0.002 0.026 0.079
y2 ~1 . -0.002 0.025 -0.068
y3 ~1 . 0.000 0.024 -0.020
x1 ~1 . -0.007 0.000 -
x2 ~1 . -0.003 0.000 -
x3 ~1 . 0.020 0.000 -
fw ~1 . 0.000 0.000 -
"""
SIMULTANEOUS_BETWEEN = """
fb =~ y1 1.000 0.000 -
fb =~ y2 0.717 0.052 13.824
fb =~ y3 0.587 0.048 12.329
fb ~ w1 0.165 0.079 2.093
fb ~ w2 0.131 0.076 1.715
y1 ~~ y1 0.058 0.047 1.213
y2 ~~ y2 0.120 0.031 3.825
y3 ~~ y3 0.149 0.028 5.319
fb ~~ fb 0.899 0.118 7.592
w1 ~~ w1 0.870 0.000 -
w1 ~~ w2 -0.128 0.000 -
w2 ~~ w2 0.931 0.000 -
y1 ~1 . 0.024 0.075 0.327
y2 ~1 . -0.016 0.060 -0.269
y3 ~1 . -0.042 0.054 -0.777
w1 ~1 . 0.052 0.000 -
w2 ~1 . -0.091 0.000 -
fb ~1 . 0.000 0.000 -
"""
SIMULTANEOUS_WITHIN = """
fw =~ y1 1.000 0.000 -
fw =~ y2 0.774 0.034 22.671
fw =~ y3 0.734 0.033 22.355
fw ~ x1 0.510 0.023 22.037
fw ~ x2 0.407 0.022 18.273
fw ~ x3 0.205 0.021 9.740
y1 ~~ y1 0.986 0.046 21.591
y2 ~~ y2 1.066 0.039 27.271
y3 ~~ y3 1.011 0.037 27.662
fw ~~ fw 0.546 0.040 13.539
x1 ~~ x1 0.982 0.000 -
x1 ~~ x2 0.001 0.000 -
x1 ~~ x3 -0.006 0.000 -
x2 ~~ x2 1.011 0.000 -
x2 ~~ x3 0.008 0.000 -
x3 ~~ x3 1.045 0.000 -
y1 ~1 . 0.000 0.000 -
y2 ~1 . 0.000 0.000 -
y3 ~1 . 0.000 0.000 -
x1 ~1 . -0.007 0.000 -
x2 ~1 . -0.003 0.000 -
x3 ~1 . 0.020 0.000 -
fw ~1 . 0.000 0.000 -
"""
INTERVALS = """
fb =~ y2 0.615 0.818
fb =~ y3 0.494 0.680
fb ~ w1 0.010 0.319
fb ~ w2 -0.019 0.281
y1 ~~ y1 -0.035 0.151
fb ~~ fb 0.667 1.131
y1 ~1 . -0.122 0.171
"""


def covariance(printed: str) -> pd.DataFrame:
    """The symmetric matrix of a printed lower triangle."""
    rows = [line.split() for line in printed.strip().splitlines()]
    names = [row[0] for row in rows]
    lower = np.zeros((len(rows), len(rows)))
    for k, row in enumerate(rows):
        lower[k, : k + 1] = [float(value) for value in row[1:]]
    return pd.DataFrame(lower + np.tril(lower, -1).T, index=names, columns=names)


def printed_rows(text: str) -> pd.DataFrame:
    """A printed table by (lhs, op, rhs); "-" is missing."""
    rows = [line.replace(" . ", "  ").split(" ") for line in text.strip().splitlines()]
    frame = pd.DataFrame(rows).set_index([0, 1, 2]).replace("-", "nan").astype(float)
    frame.index.names = ["lhs", "op", "rhs"]
    return frame


def level_table(fit: msem.Fit, level: int = 1) -> pd.DataFrame:
    """Estimates of one level by (lhs, op, rhs)."""
    table = fit.estimates()
    return table[table["level"] == level].set_index(["lhs", "op", "rhs"])


@pytest.fixture(scope="module")
def simultaneous() -> msem.Fit:
    statistics = SampleStatistics.from_dict(json.loads(STATISTICS.read_text(encoding="utf-8")))
    levels = f"level: 1\n{WITHIN}\nlevel: 2\n{BETWEEN}"
    return msem.sem(levels, statistics)


@pytest.mark.parametrize(("printed", "level"), [(SIMULTANEOUS_WITHIN, 1), (SIMULTANEOUS_BETWEEN, 2)])
def test_simultaneous_tables(simultaneous: msem.Fit, printed: str, level: int) -> None:
    theirs, ours = printed_rows(printed), level_table(simultaneous, level)
    assert set(theirs.index) == set(ours.index)
    ours = ours.loc[theirs.index]
    # The document's optimiser stopped at 1e-4 of the maximum, so a digit may round the other way.
    np.testing.assert_allclose(ours["est"], theirs[3], rtol=0, atol=0.5005e-3)
    np.testing.assert_allclose(ours["se"], theirs[4], rtol=0, atol=0.5005e-3)
    np.testing.assert_allclose(ours["z"], theirs[5], rtol=0, atol=2e-3)


def test_simultaneous_intervals(simultaneous: msem.Fit) -> None:
    theirs = printed_rows(INTERVALS)
    ours = level_table(simultaneous, 2).loc[theirs.index, ["ci_lower", "ci_upper"]]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=0.6e-3)


def test_simultaneous_fit(simultaneous: msem.Fit) -> None:
    measures = simultaneous.fit_measures()
    assert measures["logl"] == pytest.approx(-12076.566, abs=5e-4)
    assert measures["unrestricted_logl"] == pytest.approx(-12072.520, abs=5e-4)
    assert measures["chisq"] == pytest.approx(8.092, abs=5e-4)
    assert (measures["df"], measures["npar"]) == (10, 20)
    assert (simultaneous.npar, simultaneous.nobs, simultaneous.nclusters) == (20, 2500, 200)
    assert measures["cfi"] == 1.0
    assert measures["tli"] == pytest.approx(1.002, abs=5e-4)
    assert measures["rmsea"] == 0.0
    assert measures["srmr_within"] == pytest.approx(0.004, abs=5e-4)
    assert measures["srmr_between"] == pytest.approx(0.034, abs=5e-4)


@pytest.mark.parametrize(("printed", "level"), [(WITHIN_COV, "within"), (BETWEEN_COV, "between")])
def test_saturated_matrices(simultaneous: msem.Fit, printed: str, level: str) -> None:
    theirs = covariance(printed)
    ours = getattr(simultaneous.saturated, level).cov.loc[theirs.index, theirs.columns]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=0.5005e-3)


def test_within_means_of_outcomes_are_zero(simultaneous: msem.Fit) -> None:
    assert simultaneous.saturated.within.mean[["y1", "y2", "y3"]].tolist() == [0.0, 0.0, 0.0]


def means_behind(printed: pd.DataFrame) -> dict[str, float]:
    """The sample means that the printed intercepts imply: the mean structure is saturated."""
    est = printed[3]
    names = [lhs for lhs, op, _ in est.index if op == "~1" and not lhs.startswith("f")]
    given = {name: est[name, "~1", ""] for name in names}
    factor = next(lhs for lhs, op, _ in est.index if op == "=~")
    at_mean = sum(slope * given[x] for (lhs, op, x), slope in est.items() if op == "~")
    loadings = {y: value for (lhs, op, y), value in est.items() if op == "=~" and lhs == factor}
    return {name: value + loadings.get(name, 0.0) * at_mean for name, value in given.items()}


@pytest.mark.parametrize(
    ("model", "matrix", "printed", "nobs"),
    [(WITHIN, WITHIN_COV, SEPARATE_WITHIN, 2500 - 200), (BETWEEN, BETWEEN_COV, SEPARATE_BETWEEN, 200)],
    ids=["within", "between"],
)
def test_separate_fits_from_the_printed_matrices(model: str, matrix: str, printed: str, nobs: int) -> None:
    theirs = printed_rows(printed)
    fit = msem.sem(
        model,
        sample_cov=covariance(matrix),
        sample_mean=means_behind(theirs),
        sample_nobs=nobs,
        meanstructure=True,
    )
    ours = level_table(fit).loc[theirs.index]
    assert len(ours) == len(level_table(fit))
    np.testing.assert_allclose(ours["est"], theirs[3], rtol=0, atol=2e-3)
    np.testing.assert_allclose(ours["se"], theirs[4], rtol=0, atol=2e-3)
    # Rounding the matrix to three decimals moves the largest z of the between fit by up to 0.14.
    largest = np.where(theirs[5] > 20, 0.05, 0.03)
    known = theirs[5].notna()
    assert ((ours["z"] - theirs[5]).abs() <= largest)[known].all()
    assert ours["z"].notna().equals(known)


def test_rescaling_is_what_makes_the_printed_variance_differ_from_the_matrix() -> None:
    given = covariance(BETWEEN_COV)
    options = {"sample_cov": given, "sample_nobs": 200}
    x1 = {
        rescale: level_table(msem.sem(BETWEEN, **options, sample_cov_rescale=rescale)).loc[
            ("w1", "~~", "w1"), "est"
        ]
        for rescale in (True, False)
    }
    assert x1[True] == pytest.approx(0.870 * 199 / 200, abs=1e-12)
    assert x1[False] == pytest.approx(0.870, abs=1e-12)
