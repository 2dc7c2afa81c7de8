"""Bootstrap intervals against scipy and their definitions, and the progress that is shown meanwhile."""

from __future__ import annotations

import io
import time
import warnings
from functools import cache

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats

import msem
from msem.errors import DataWarning
from msem.resampling.intervals import acceleration, interval, quantile
from msem.resampling.progress import Progress

MODEL = """
level: 1
  fw =~ y1 + y2 + y3
level: 2
  fb =~ y1 + y2 + y3
"""


@cache
def fitted(model: str) -> msem.Fit:
    return msem.sem(model, msem.load_demo(), cluster="cluster")


def test_bca_is_that_of_scipy() -> None:
    rows = np.random.default_rng(3).lognormal(size=40)
    theirs = stats.bootstrap((rows,), np.mean, n_resamples=1999, random_state=1, method="BCa")
    values = theirs.bootstrap_distribution[:, None]
    loo = (rows.sum() - rows) / 39
    constant = acceleration([(39 * (loo.mean() - loo))[:, None]])
    low, high, extreme = interval("bca", 0.95, np.array([rows.mean()]), values, constant)
    # scipy takes quantiles of another definition: the limits are at most one replicate apart
    ordered = np.sort(values[:, 0])
    for ours, his in ((low[0], theirs.confidence_interval.low), (high[0], theirs.confidence_interval.high)):
        assert abs(np.searchsorted(ordered, ours) - np.searchsorted(ordered, his)) <= 1
    assert not extreme.any()


def test_bca_of_a_mean_through_a_fit_is_that_of_scipy() -> None:
    rows = np.random.default_rng(5).lognormal(size=60)
    fit = msem.sem("y ~ 1", pd.DataFrame({"y": rows}))
    boot = fit.bootstrap(4999, seed=1, statistic="y~1")
    ours = boot.conf_int(kind="bca").loc["y~1"]
    theirs = stats.bootstrap((rows,), np.mean, n_resamples=4999, random_state=1, method="BCa")
    # other replicates: a limit moves by a few hundredths of a standard error
    assert_allclose(ours, theirs.confidence_interval, atol=0.15 * theirs.standard_error)
    loo = (rows.sum() - rows) / 59
    assert_allclose(boot.jackknife.array[:, 0], loo, rtol=1e-10)


def test_acceleration_of_two_samples_is_that_of_scipy() -> None:
    rng = np.random.default_rng(8)
    one, two = rng.lognormal(size=30), rng.normal(size=45)
    theirs = stats.bootstrap(
        (one, two),
        lambda x, y, axis: x.mean(axis) - y.mean(axis),
        n_resamples=2999,
        random_state=1,
        method="BCa",
    )
    parts = []
    for x, sign in ((one, 1), (two, -1)):
        loo = sign * (x.sum() - x) / (len(x) - 1)
        parts.append(((len(x) - 1) * (loo.mean() - loo))[:, None])
    values = theirs.bootstrap_distribution[:, None]
    low, high, _ = interval("bca", 0.9, np.array([one.mean() - two.mean()]), values, acceleration(parts))
    again = stats.bootstrap(
        (one, two),
        lambda x, y, axis: x.mean(axis) - y.mean(axis),
        n_resamples=0,
        bootstrap_result=theirs,
        confidence_level=0.9,
        method="BCa",
    )
    ordered = np.sort(values[:, 0])
    for ours, his in ((low[0], again.confidence_interval.low), (high[0], again.confidence_interval.high)):
        assert abs(np.searchsorted(ordered, ours) - np.searchsorted(ordered, his)) <= 1


def test_intervals_are_those_of_their_definitions() -> None:
    boot = fitted(MODEL).bootstrap(99, seed=6)
    ordered, point = np.sort(boot.array, axis=0), boot.point
    percentile = boot.conf_int(ci_level=0.9)
    assert_allclose(percentile["ci_lower"], ordered[4])  # the 5th of 99: (99 + 1) 0.05
    assert_allclose(percentile["ci_upper"], ordered[94])
    basic = boot.conf_int(kind="basic", ci_level=0.9)
    assert_allclose(basic["ci_lower"], 2 * point - ordered[94])
    assert_allclose(basic["ci_upper"], 2 * point - ordered[4])
    normal = boot.conf_int(kind="normal", ci_level=0.9)
    assert_allclose(normal.mean(axis=1), point - boot.bias)
    assert_allclose(normal["ci_upper"] - normal["ci_lower"], 2 * stats.norm.ppf(0.95) * boot.bse)
    frame = boot.to_frame(ci_level=0.9)
    assert list(frame.columns) == ["name", "level", "group", "est", "bias", "se", "ci_lower", "ci_upper"]
    assert_allclose(frame["ci_lower"], percentile["ci_lower"])


def test_quantiles_are_those_of_numpy() -> None:
    values = np.random.default_rng(1).normal(size=(37, 3))
    at = np.array([[0.1, 0.5, 0.001], [0.9, 0.77, 0.999]])
    expected = [[np.quantile(values[:, k], p, method="weibull") for k, p in enumerate(row)] for row in at]
    assert_allclose(quantile(values, at), expected)


def test_too_few_replicates_for_an_interval_are_told() -> None:
    boot = fitted(MODEL).bootstrap(20, seed=1)
    with pytest.warns(DataWarning, match="20 replicates are too few for percentile"):
        boot.conf_int()


def test_intervals_are_checked() -> None:
    boot = fitted(MODEL).bootstrap(5, seed=1, kind="parametric")
    with pytest.raises(ValueError, match="kind must be one of"):
        boot.conf_int(kind="studentized")
    with pytest.raises(ValueError, match="observed clusters"):
        boot.conf_int(kind="bca")
    with pytest.raises(ValueError, match="between 0 and 1"):
        boot.conf_int(kind="normal", ci_level=95)


def test_intervals_of_a_constant_are_that_constant() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        limits = fitted(MODEL).bootstrap(99, seed=1, statistic=lambda f: 2.0).conf_int()
    assert limits.to_numpy().tolist() == [[2.0, 2.0]]


def test_progress_is_shown_after_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msem.resampling.progress.PATIENCE", 0.3)
    stream = io.StringIO()
    with Progress("bootstrap", 10, stream=stream) as progress:
        progress.update(1)
        time.sleep(0.4)
        for done in (5, 6, 10):
            progress.update(done)
    shown = stream.getvalue()
    assert "5/10" in shown
    assert "10/10" in shown
    assert " 1/10" not in shown
    assert "6/10" not in shown
    assert shown.endswith("\n")


def test_progress_can_be_switched_off() -> None:
    stream = io.StringIO()
    with Progress("bootstrap", 10, False, stream) as progress:
        progress.update(10)
    assert stream.getvalue() == ""
