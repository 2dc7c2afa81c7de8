"""Root mean squares of residuals: known values, lavaan, and draws from their distribution."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import msem
import texts
from msem.fits.fit import Fit
from msem.postestimation.residuals import residuals_in
from msem.postestimation.srmr import root_mean_square

TWO_LEVEL = texts.DEMO
LAVAAN = json.loads((Path(__file__).parent / "data" / "lavaan_residuals.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def fit(demo: pd.DataFrame) -> Fit:
    return msem.sem(TWO_LEVEL, demo, cluster="cluster")


def test_root_mean_squares_agree_with_fit_measures(fit: Fit, demo: pd.DataFrame) -> None:
    table = fit.srmr().set_index(["measure", "level", "part"])["value"]
    measures = fit.fit_measures()
    assert table["srmr", 1, "cov"] == pytest.approx(measures["srmr_within"], rel=1e-12)
    assert table["srmr", 2, "cov"] == pytest.approx(measures["srmr_between"], rel=1e-12)
    single = msem.sem("f =~ y1 + y2 + y3 + y4\nf ~ x1", demo, meanstructure=True)
    table = single.srmr().set_index(["measure", "part"])["value"]
    measures = single.fit_measures()
    for name, key in {
        "srmr": ("srmr", "total"),
        "srmr_bentler_nomean": ("srmr", "cov"),
        "crmr": ("crmr", "total"),
        "crmr_nomean": ("crmr", "cov"),
    }.items():
        assert table[key] == pytest.approx(measures[name], rel=1e-12)


def test_all_levels_together_are_the_root_of_the_mean_over_all_residuals(fit: Fit) -> None:
    table = fit.srmr().set_index(["measure", "level", "part"])
    for measure in ("srmr", "crmr"):
        parts = table.loc[measure].xs("total", level="part")
        squares = parts["value"] ** 2 * parts["nresiduals"]
        assert squares[0] == pytest.approx(squares[1] + squares[2])
        assert parts["nresiduals"][0] == parts["nresiduals"][1] + parts["nresiduals"][2]


@pytest.mark.parametrize("name", list(LAVAAN["models"]))
def test_summary_of_raw_residuals_agrees_with_lavaan(name: str, demo: pd.DataFrame) -> None:
    model = LAVAAN["models"][name]
    found = msem.sem(
        model["text"],
        demo,
        fixed_x=model["fixed.x"],
        meanstructure=model["meanstructure"],
        information="expected",
    )
    residuals = residuals_in(found, "raw")
    theirs = model["kinds"]["raw"]
    own = residuals.select(np.array([key.op == "~~" for key in residuals.keys]))
    for part, chosen in (("cov", own), ("total", residuals)):
        if part not in theirs["summary"]:
            continue
        expected = dict(zip(theirs["rows"], theirs["summary"][part], strict=True))
        ours = root_mean_square(chosen.residuals, chosen.root)
        assert ours.value == pytest.approx(expected["rmr"], abs=1e-6)
        assert ours.se == pytest.approx(expected["rmr.se"], rel=1e-4)
        assert max(ours.exact_z, 0.0) == pytest.approx(expected["rmr.exactfit.z"], abs=1e-4)
        assert ours.unbiased == pytest.approx(expected["urmr"], abs=2e-6)
        if not ours.unbiased:  # theirs is an expansion about residuals that happen to be small
            assert 0 < ours.unbiased_se < expected["urmr.se"]
            continue
        assert ours.unbiased_se == pytest.approx(expected["urmr.se"], rel=1e-4)
        assert ours.ci_lower == pytest.approx(max(expected["urmr.ci.lower"], 0.0), abs=1e-5)
        assert ours.ci_upper == pytest.approx(expected["urmr.ci.upper"], abs=1e-5)
        assert ours.close_z == pytest.approx(expected["urmr.closefit.z"], abs=1e-3)
        assert ours.close_pvalue == pytest.approx(expected["urmr.closefit.pvalue"], abs=1e-4)


def test_unbiased_root_mean_square_covers_that_of_the_population() -> None:
    rng = np.random.default_rng(3)
    root = rng.normal(size=(12, 8)) * 0.001
    mean = rng.normal(size=12) * 0.06
    truth = np.sqrt(np.mean(mean**2))
    draws = [root_mean_square(mean + root @ rng.normal(size=8), root, close_h0=truth) for _ in range(4000)]
    values = np.array([(d.unbiased, d.unbiased_se, d.ci_lower <= truth <= d.ci_upper) for d in draws])
    assert values[:, 0].mean() == pytest.approx(truth, rel=0.02)
    assert abs(values[:, 0].mean() - truth) < 0.2 * (np.mean([d.value for d in draws]) - truth)
    assert values[:, 1].mean() == pytest.approx(values[:, 0].std(), rel=0.05)
    assert values[:, 2].mean() == pytest.approx(0.90, abs=0.02)
    assert np.mean([d.close_pvalue < 0.05 for d in draws]) == pytest.approx(0.05, abs=0.02)


def test_exact_fit_is_rejected_at_its_level() -> None:
    rng = np.random.default_rng(5)
    root = rng.normal(size=(40, 30)) * 0.02
    draws = [root_mean_square(root @ rng.normal(size=30), root) for _ in range(4000)]
    assert np.std([d.value for d in draws]) == pytest.approx(draws[0].se, rel=0.05)
    assert np.mean([d.exact_z for d in draws]) == pytest.approx(0, abs=0.05)
    assert np.mean([d.exact_pvalue < 0.05 for d in draws]) == pytest.approx(0.05, abs=0.015)


def test_without_residuals_or_sampling_error_there_are_no_tests() -> None:
    nothing = root_mean_square(np.empty(0), np.empty((0, 3)))
    assert nothing.nresiduals == 0
    assert np.isnan(nothing.value)
    certain = root_mean_square(np.zeros(4), np.zeros((4, 2)))
    assert certain.value == 0
    assert np.isnan([certain.exact_pvalue, certain.close_pvalue, certain.ci_lower, certain.ci_upper]).all()


def test_interval_level_must_be_a_coverage(fit: Fit) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        fit.srmr(ci_level=90)
