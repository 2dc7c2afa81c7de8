"""Fits of the demonstration data with holes against lavaan 0.6-14 and, where it has nothing, against dense algebra.

lavaan's estimates are polished. By default it holds the moments of fixed covariates at those of its saturated model,
which is not at its maximum, so its log-likelihood is too low by a little. For two-level data with holes it has neither
robust errors nor a correct expected information: those are held to dense scores and the dense formula.
"""

from __future__ import annotations

import functools
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import holes
import msem
import oracle_missing
from oracle import table_moments
from reference_fits import key
from test_oracle_missing import free_moments
from texts import DEMO

STORED = json.loads((Path(__file__).parent / "data" / "lavaan_missing.json").read_text(encoding="utf-8"))[
    "cases"
]
KEPT = "one_level_kept"  # rows with missing covariates are kept: the programs differ, see below
CASES = [case for case in STORED if case != KEPT]
TWO_LEVEL = [case for case in CASES if STORED[case]["cluster"]]
ONE_LEVEL = [case for case in CASES if not STORED[case]["cluster"]]
# How far lavaan's default settings stop below the maximum, and its saturated model.
STOPPED = {"two_level": 2.596e-4, "two_level_random_x": 4.03e-6, "two_level_dropped": 2.117e-4}
STOPPED_H1 = {"two_level": 1.473e-3, "two_level_random_x": 1.379e-3, "two_level_dropped": 11.902885}
COUNTS = ("npar", "nobs", "nclusters")


@functools.cache
def fit(case: str, **options: Any) -> msem.Fit:
    """The case fitted by msem."""
    theirs = STORED[case]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", msem.errors.DataWarning)  # rows that are left out
        return msem.sem(
            theirs["model"],
            holes.punched(msem.load_demo(), theirs["data"]),
            cluster=theirs["cluster"],
            missing=theirs["args"]["missing"],
            fixed_x=theirs["args"]["fixed.x"],
            **options,
        )


def column(case: str, name: str) -> np.ndarray:
    """Their values in the order of msem's rows."""
    found = {
        key(row["lhs"], row["op"], row["rhs"], row["level"]): row[name] for row in STORED[case]["parameters"]
    }
    return np.array([found[key(r.lhs, r.op, r.rhs, r.level)] for r in fit(case).table.rows])


def free_rows(case: str) -> np.ndarray:
    return np.array([r.free > 0 for r in fit(case).table.rows])


@pytest.mark.parametrize("case", CASES)
def test_estimates_and_standard_errors(case: str) -> None:
    assert STORED[case]["gradient_max"] < 1e-12
    free, (ours, errors) = free_rows(case), (fit(case).row_values, fit(case).row_errors)
    theirs = column(case, "est")
    assert (np.abs(ours - theirs)[free] <= 1e-6 * (np.abs(ours) + errors)[free]).all()
    np.testing.assert_allclose(errors[free], column(case, "se")[free], rtol=1e-6)


@pytest.mark.parametrize("case", ONE_LEVEL)
def test_expected_information_of_one_level(case: str) -> None:
    free, expected = free_rows(case), fit(case, information="expected").row_errors
    np.testing.assert_allclose(expected[free], column(case, "se_expected")[free], rtol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_counts(case: str) -> None:
    theirs = {name: STORED[case][name] for name in COUNTS if name in STORED[case]}
    assert {name: getattr(fit(case), name) for name in theirs} == theirs


@pytest.mark.parametrize("case", CASES)
def test_log_likelihood(case: str) -> None:
    assert fit(case).llf == pytest.approx(STORED[case]["logl"], abs=1e-6)
    below = fit(case).llf - STORED[case]["default"]["logl"]
    assert below == pytest.approx(STOPPED.get(case, 0.0), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_saturated_moments(case: str) -> None:
    (levels,) = fit(case).sample.levels
    h1 = STORED[case]["h1"].values() if case in TWO_LEVEL else [STORED[case]["h1"]]
    for sample, theirs in zip(levels.values(), h1, strict=True):
        names, cov = theirs["cov"]["names"], np.array(theirs["cov"]["values"])
        sd = np.sqrt(np.diag(cov))
        difference = (sample.frame().loc[names, names] - cov) / np.outer(sd, sd)
        np.testing.assert_allclose(difference, 0, atol=1e-6)
        mean = pd.Series(theirs["mean"])[names]
        np.testing.assert_allclose((sample.series()[names] - mean) / sd, 0, atol=1e-6)


@pytest.mark.parametrize("case", TWO_LEVEL)
def test_saturated_log_likelihood(case: str) -> None:
    joint = fit(case).unrestricted_llf + fit(case).objective.covariate_llf
    assert joint == pytest.approx(STORED[case]["h1_joint_logl"], abs=1e-6)
    below = fit(case).unrestricted_llf - STORED[case]["default"]["unrestricted.logl"]
    assert below == pytest.approx(STOPPED_H1[case], rel=1e-3)
    assert "infinite or missing values" in STORED[case]["default_mlr"]["error"]


@pytest.mark.parametrize("case", ONE_LEVEL)
def test_robust_fit_of_one_level(case: str) -> None:
    theirs, robust, free = STORED[case]["robust"], fit(case, estimator="MLR"), free_rows(case)
    np.testing.assert_allclose(robust.row_errors[free], column(case, "se_robust")[free], rtol=1e-6)
    ours = robust.fit_measures()
    for name in (
        "unrestricted.logl",
        "chisq",
        "df",
        "chisq.scaled",
        "chisq.scaling.factor",
        "baseline.chisq",
    ):
        assert ours[name.replace(".", "_")] == pytest.approx(theirs[name], rel=1e-5, abs=1e-5), name
    assert ours["baseline_chisq_scaled"] == pytest.approx(theirs["baseline.chisq.scaled"], rel=1e-5)


def test_rows_with_missing_covariates() -> None:
    """Here covariates are modelled; lavaan fixes their moments at the marginal maximum, a bit off the joint one."""
    ours, modelled, errors = fit(KEPT), fit("one_level_random_x"), column(KEPT, "se")
    np.testing.assert_array_equal(ours.params, modelled.params)
    assert (ours.llf, ours.chisq, ours.nobs) == (modelled.llf, modelled.chisq, STORED[KEPT]["nobs"])
    free = errors > 0
    difference = ours.row_values - column(KEPT, "est")
    assert (np.abs(difference)[free] < 3e-4 * errors[free]).all()
    np.testing.assert_allclose(ours.row_errors[free], errors[free], rtol=1e-3)
    assert 0 < STORED[KEPT]["robust"]["chisq"] - ours.chisq < 2e-4


def dense_data(data: pd.DataFrame, unit: list[str], between: list[str]) -> tuple[np.ndarray, ...]:
    """y, z and codes of the oracle."""
    codes = pd.factorize(data["cluster"])[0]
    z = data[between].groupby(codes).first().to_numpy() if between else np.zeros((codes.max() + 1, 0))
    return data[unit].to_numpy(), z, codes


def test_errors_of_two_levels_are_dense_ones() -> None:
    robust = fit("two_level", estimator="MLR")
    unit, between = ["y1", "y2", "y3", "x1", "x2", "x3"], ["w1", "w2"]
    data = dense_data(holes.punched(msem.load_demo(), "y"), unit, between)
    theta = robust.params.to_numpy()

    def moments(t: np.ndarray) -> oracle_missing.Moments:
        return table_moments(robust.table.rows, t, unit, between, 3)

    expected = np.linalg.inv(oracle_missing.expected_information(moments, theta, *data))
    ours = fit("two_level", information="expected").cov_params()
    np.testing.assert_allclose(ours, expected, rtol=1e-8, atol=1e-12)
    scores = oracle_missing.cluster_scores(moments, theta, *data)
    bread = fit("two_level").cov_params().to_numpy()
    np.testing.assert_allclose(robust.cov_params(), bread @ scores.T @ scores @ bread, rtol=1e-6, atol=1e-9)


def test_scaled_test_of_two_levels_is_the_dense_one() -> None:
    """Yuan-Bentler-Mplus scaling from dense scores and observed information of both models."""
    model = "level: 1\nfw =~ y1 + l*y2 + l*y3\nlevel: 2\nfb =~ y1 + k*y2 + k*y3"
    unit = ["y1", "y2", "y3"]
    few = holes.punched(msem.load_demo(), "rows").query("40 < cluster <= 70").dropna(subset=unit, how="all")
    robust = msem.sem(model, few, cluster="cluster", missing="fiml", estimator="MLR")
    data, (levels,) = dense_data(few, unit, []), robust.sample.levels
    free, vector = free_moments(3, 3, 3)
    saturated = [
        part for level in levels.values() for part in (level.series()[unit], level.frame().loc[unit, unit])
    ]
    h1 = vector(oracle_missing.Moments(*(np.array(part) for part in saturated), 3))
    h0 = robust.params.to_numpy()
    models = [
        (h0, lambda t: table_moments(robust.table.rows, t, unit, [], 3)),
        (h1, free),
    ]
    traces = []
    for theta, moments in models:
        scores = oracle_missing.cluster_scores(moments, theta, *data)
        np.testing.assert_allclose(scores.sum(axis=0), 0, atol=1e-5)
        # two points suffice, and Ridders' method would take most of a minute
        pairs = [(theta + h, theta - h) for h in 1e-4 * np.eye(len(theta))]
        information = -np.array(
            [
                np.subtract(*(oracle_missing.cluster_scores(moments, t, *data).sum(axis=0) for t in pair))
                / 2e-4
                for pair in pairs
            ]
        )
        traces.append(np.trace(np.linalg.solve(information, scores.T @ scores)))
    measures = robust.fit_measures()
    factor = (traces[1] - traces[0]) / robust.df
    assert measures["chisq_scaling_factor"] == pytest.approx(factor, rel=1e-6)
    assert measures["chisq_scaled"] == pytest.approx(robust.chisq / factor, rel=1e-6)


def test_demonstration_model_is_that_of_the_tests() -> None:
    assert STORED[TWO_LEVEL[0]]["model"].split() == DEMO.split()
