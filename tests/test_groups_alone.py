"""What follows from a fit of several groups that share nothing is what follows from a fit of each."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

import msem
import texts

DEMO = msem.load_demo()
DEMO = DEMO.assign(half=np.where(DEMO["cluster"] // 2 % 2 == 1, "south", "north"))
MODEL = texts.COVARIATE
TABLES: dict[str, dict[str, Any]] = {
    "estimates": {"standardized": True},
    "standardized": {},
    "rsquare": {},
    "icc_table": {},
    "reliability": {},
    "effects": {},
    "residuals": {},
    "modification_indices": {},
    "srmr": {},
    "random_effects": {},
    "factor_scores": {"level": 2},
}
# differences of the optimum, 1e-9 of a standard error, as they come out in what is computed from it
NEAR = {"rtol": 1e-5, "atol": 1e-6}


@functools.cache
def together() -> msem.Fit:
    """Both groups in one fit."""
    return msem.sem(MODEL, DEMO, cluster="cluster", group="half")


@functools.cache
def alone(name: str) -> msem.Fit:
    """One group."""
    return msem.sem(MODEL, DEMO[DEMO["half"] == name], cluster="cluster")


def tidy(table: pd.DataFrame) -> pd.DataFrame:
    """In a fixed order of rows: equivalent changes of a model have the same modification index."""
    named = table.reset_index() if table.index.name else table
    keys = [name for name in ("level", "lhs", "op", "rhs") if name in named]
    return (named.sort_values(keys) if keys else named).reset_index(drop=True)


@pytest.mark.parametrize("group", ["north", "south"])
@pytest.mark.parametrize("name", TABLES)
def test_tables(name: str, group: str) -> None:
    whole = getattr(together(), name)(**TABLES[name])
    part = whole[whole["group"].isin([group, 1 + (group == "south")])].drop(columns="group")
    single = getattr(alone(group), name)(**TABLES[name]).drop(columns="group", errors="ignore")
    assert len(part) == len(single) > 0
    assert len(whole) == 2 * len(part) or name in {"random_effects", "factor_scores"}
    pd.testing.assert_frame_equal(tidy(part), tidy(single), **NEAR)


@pytest.mark.parametrize("level", [1, 2])
def test_level_specific_chi_squares_add_up(level: int) -> None:
    parts = [alone(group).fit_measures(level=level) for group in ("north", "south")]
    whole = together().fit_measures(level=level)
    for name in ("chisq", "df"):
        assert whole[name] == pytest.approx(sum(part[name] for part in parts), rel=1e-6)


def test_moments_of_single_groups() -> None:
    for name in ("north", "south"):
        mine, single = together().groups[name], alone(name)
        for level in (1, 2):
            pd.testing.assert_frame_equal(mine.implied[level].cov, single.implied[level].cov, **NEAR)
        pd.testing.assert_frame_equal(mine.saturated.between.cov, single.saturated.between.cov, **NEAR)


def test_first_order_information_adds_up() -> None:
    options = {"cluster": "cluster", "information": "first_order"}
    whole = msem.sem(MODEL, DEMO, group="half", **options)
    errors = [msem.sem(MODEL, DEMO[DEMO["half"] == name], **options).bse for name in ("north", "south")]
    np.testing.assert_allclose(whole.bse, np.concatenate(errors), rtol=1e-6)


def test_many_groups() -> None:
    data = DEMO.assign(many=DEMO["cluster"] % 25)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = msem.cfa("f =~ y1 + y2 + y3 + y4", data, group="many", group_equal=["loadings", "intercepts"])
    assert fit.group_labels == tuple(str(k) for k in range(25))
    assert fit.df == 25 * 14 - fit.npar
    assert fit.npar == 3 + 4 + 25 * 5 + 24
