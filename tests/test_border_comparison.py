"""Tests of models in which a variance is 0 that cannot be negative in the larger one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2

import msem
from msem.errors import ImproperSolutionWarning


def data(seed=2, slope=0.3):
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(80), 8)
    b, s = rng.normal(size=80), 0.5 + slope * rng.normal(size=80)
    x = b[cluster] + rng.normal(size=640)
    y = 0.8 * b[cluster] + s[cluster] * (x - b[cluster]) + rng.normal(size=640)
    y += 0.5 * rng.normal(size=80)[cluster]
    return pd.DataFrame({"g": cluster, "x": x, "y": y})


RANDOM = "level: 1\n y ~ rv('s')*x\nlevel: 2\n y ~ x"


def mixture(statistic, df):
    return 0.5 * (chi2.sf(statistic, df - 1) if df > 1 else 0.0) + 0.5 * chi2.sf(statistic, df)


@pytest.mark.parametrize("covariance", ["", "\n y ~~ s"])
def test_the_variance_of_a_slope_that_is_integrated_over(covariance):
    frame = data(slope=0.2)
    options = {"cluster": "g", "fixed_x": False}
    larger = msem.sem(RANDOM + covariance, frame, **options)
    smaller = msem.sem("level: 1\n y ~ x\nlevel: 2\n y ~ x", frame, **options)
    row = msem.compare_models(smaller, larger).iloc[1]
    assert row["method"] == "mixture"
    assert row["df_diff"] == 1 + bool(covariance)
    assert row["pvalue"] == pytest.approx(mixture(row["chisq_diff"], row["df_diff"]), rel=1e-10)
    plain = msem.compare_models(smaller, larger, method="standard").iloc[1]
    assert plain["pvalue"] == pytest.approx(chi2.sf(row["chisq_diff"], row["df_diff"]), rel=1e-10)
    assert plain["pvalue"] > row["pvalue"]


def test_other_restrictions_are_ordinary():
    options = {"cluster": "g", "fixed_x": False}
    frame = data()
    larger = msem.sem(RANDOM + "\n y ~~ s", frame, **options)
    smaller = msem.sem(RANDOM + "\n y ~~ 0*s", frame, **options)
    assert msem.compare_models(smaller, larger).iloc[1]["method"] == "standard"


def test_variances_that_may_be_negative_are_ordinary():
    frame = data()
    frame["x"] -= frame.groupby("g")["x"].transform("mean")
    larger = msem.sem("level: 1\n y ~ rv('s')*x\nlevel: 2\n y ~~ y + s", frame, cluster="g")
    smaller = msem.sem("level: 1\n y ~ x\nlevel: 2\n y ~~ y", frame, cluster="g")
    assert msem.compare_models(smaller, larger).iloc[1]["method"] == "standard"


def test_crossed_classifications():
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {"a": rng.integers(0, 40, 800), "b": rng.integers(0, 30, 800), "x": rng.normal(size=800)}
    )
    for name in ("y", "z"):
        frame[name] = rng.normal(size=800) + 0.6 * rng.normal(size=40)[frame["a"]]
        frame[name] += 0.6 * rng.normal(size=30)[frame["b"]]
    frame["y"] += 0.4 * rng.normal(size=40)[frame["a"]] * frame["x"]
    text = "level: 1\n y ~ rv('s')*x\nlevel: a\n y ~~ y + s\nlevel: b\n y ~~ y"
    larger = msem.sem(text, frame, cluster="a * b")
    smaller = msem.sem("level: 1\n y ~ x\nlevel: a\n y ~~ y\nlevel: b\n y ~~ y", frame, cluster="a * b")
    row = msem.compare_models(smaller, larger).iloc[1]
    assert (row["method"], row["df_diff"]) == ("mixture", 2)
    assert row["pvalue"] == pytest.approx(mixture(row["chisq_diff"], 2), rel=1e-10)


@pytest.mark.parametrize("holes", [False, True])
def test_crossed_classifications_without_slopes(holes):
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"a": rng.integers(0, 40, 800), "b": rng.integers(0, 30, 800)})
    for k, loading in enumerate((1, 0.8, 0.7), 1):
        frame[f"y{k}"] = rng.normal(size=800) + loading * rng.normal(size=40)[frame["a"]]
        frame[f"y{k}"] += loading * rng.normal(size=30)[frame["b"]]
    if holes:
        frame[["y1", "y2"]] = frame[["y1", "y2"]].mask(rng.random((800, 2)) < 0.2)
    text = "level: 1\n y1 ~~ y2 + y3\n y2 ~~ y3\nlevel: a\n y1 ~~ y1{}\nlevel: b\n y1 ~~ y1\n y2 ~~ y2\n y3 ~~ y3"
    options = {"cluster": "a * b", "missing": "fiml" if holes else "listwise"}
    larger, smaller = (
        msem.sem(text.format(more), frame, **options) for more in ("\n y2 ~~ y2", "\n y2 ~~ 0.6*y2")
    )
    row = msem.compare_models(smaller, larger).iloc[1]
    assert (row["method"], row["df_diff"]) == ("standard", 1)
    assert row["chisq_diff"] == pytest.approx(2 * (larger.llf - smaller.llf), rel=1e-9)
    without = msem.sem(text.format("\n y2 ~~ 0*y2"), frame, **options)
    row = msem.compare_models(without, larger).iloc[1]
    assert row["method"] == "mixture"


def test_several_variances_are_said_to_be_approximate():
    rng = np.random.default_rng(4)
    frame = data()
    frame["u"] = rng.normal(size=80)[frame["g"]] + rng.normal(size=640)
    frame["y"] += 0.4 * rng.normal(size=80)[frame["g"]] * frame["u"]
    options = {"cluster": "g", "fixed_x": False}
    larger = msem.sem("level: 1\n y ~ rv('s')*x + rv('t')*u\nlevel: 2\n y ~ x + u", frame, **options)
    smaller = msem.sem("level: 1\n y ~ x + u\nlevel: 2\n y ~ x + u", frame, **options)
    with pytest.warns(ImproperSolutionWarning, match="s~~s.*t~~t.*mixture"):
        row = msem.compare_models(smaller, larger).iloc[1]
    assert row["method"] == "standard"
