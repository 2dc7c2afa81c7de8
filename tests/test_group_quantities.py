"""Quantities of several groups: without equal parameters they are those of the groups fitted apart."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd
import pytest

import msem

MODEL = """
level: 1
    f =~ y1 + y2 + y3
    f ~ x1
    y4 ~ f + x1
level: 2
    f =~ y1 + y2 + y3
    f ~ w1
    y4 ~ f
"""
GROUPS = ("a", "b")


@functools.cache
def sample() -> pd.DataFrame:
    data = msem.load_demo()
    return data.assign(region=np.where(data["cluster"] % 3 == 0, "b", "a"))


@functools.cache
def together() -> msem.Fit:
    return msem.sem(MODEL, sample(), cluster="cluster", group="region")


@functools.cache
def apart(group: str) -> msem.Fit:
    return msem.sem(MODEL, sample().query("region == @group"), cluster="cluster")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("standardized", {}),
        ("standardized", {"kind": "std_nox", "total": True}),
        ("rsquare", {}),
        ("icc_table", {}),
        ("icc_table", {"source": "model"}),
        ("reliability", {}),
        ("effects", {"standardized": "std_all"}),
        ("contextual_effects", {}),
    ],
)
def test_groups_are_those_of_separate_fits(name: str, options: dict[str, object]) -> None:
    table = getattr(together(), name)(**options)
    assert table["group"].unique().tolist() == [1, 2]
    for number, group in enumerate(GROUPS, 1):
        ours = table[table["group"] == number].drop(columns="group").reset_index(drop=True)
        theirs = getattr(apart(group), name)(**options).drop(columns="group")
        numbers = ours.select_dtypes(float).columns
        pd.testing.assert_frame_equal(ours.drop(columns=numbers), theirs.drop(columns=numbers))
        for column in numbers.drop(["z", "pvalue"], errors="ignore"):
            np.testing.assert_allclose(ours[column], theirs[column], rtol=1e-4, atol=1e-7, err_msg=column)


def test_equal_loadings_stay_proportional() -> None:
    fitted = msem.sem(MODEL, sample(), cluster="cluster", group="region", group_equal=["loadings"])
    table = fitted.standardized("std_lv").query("op == '=~' and level == 1").set_index(["group", "rhs"])
    ratio = table.loc[1, "est_std"] / table.loc[2, "est_std"]
    np.testing.assert_allclose(
        ratio, ratio.iloc[0], rtol=1e-9
    )  # that of the standard deviations of the factor
