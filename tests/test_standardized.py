"""Standardised estimates and explained variance against lavaan, and against their invariance."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import ram
import reference
from msem.model.partable import Parameter, ParameterTable
from msem.postestimation.standardized import r_squared, standardize

Array = NDArray[np.float64]
CASES = [case for case in reference.names() if not reference.meta(case)["random_slopes"]]
NO_MODEL_ROW = {"==", "<", ">", ":="}


def stored(case: str) -> tuple[ParameterTable, Array, dict[tuple[int, int], dict[str, float]]]:
    """Table, estimates and model-implied variances of a reference case."""
    result = reference.expected(case)
    rows, est, variances = [], [], {}
    for block, own in ram.blocks(result["parameter_table"], result["group_labels"]).items():
        rows += [Parameter(r["lhs"], r["op"], r["rhs"], *block, user=bool(r["user"])) for r in own]
        est += [float(r["est"]) for r in own]
        covariance, _ = ram.total_moments(ram.values(own))
        variances[block] = {name: float(covariance.loc[name, name]) for name in covariance}
    return ParameterTable(tuple(rows)), np.array(est), variances


@reference.needs_reference
@pytest.mark.parametrize("case", CASES)
def test_standardized_solution_agrees_with_lavaan(case: str) -> None:
    table, est, variances = stored(case)
    result = reference.expected(case)
    theirs = [r for r in result["standardized"] if r["op"] not in NO_MODEL_ROW]
    ours = standardize(table, est, variances).std_all
    by_block = [
        (r["lhs"], r["op"], r["rhs"])
        for own in ram.blocks(result["parameter_table"], result["group_labels"]).values()
        for r in own
    ]
    assert by_block == [(r["lhs"], r["op"], r["rhs"]) for r in theirs]
    np.testing.assert_allclose(ours, np.array([r["est.std"] for r in theirs], dtype=float), rtol=1e-9)


@reference.needs_reference
@pytest.mark.parametrize("case", CASES)
def test_explained_variance_agrees_with_lavaan(case: str) -> None:
    result = reference.expected(case)["rsquare"]
    nested = [result] if not any(isinstance(v, dict | list) for v in result.values()) else result.values()
    theirs = [(name, value) for block in nested for name, value in (dict(block) if block else {}).items()]
    ours = r_squared(*stored(case))
    assert ours["lhs"].tolist() == [name for name, _ in theirs]
    np.testing.assert_allclose(ours["r2"], np.array([value for _, value in theirs], dtype=float), rtol=1e-9)


MODEL = [
    ("f", "=~", "y1", 1.0),
    ("f", "=~", "y2", 0.8),
    ("g", "=~", "y3", 1.0),
    ("g", "=~", "y4", 1.2),
    ("g", "~", "f", 0.5),
    ("g", "~", "x", -0.3),
    ("y1", "~~", "y3", 0.1),
    *((name, "~~", name, 0.4) for name in ("y1", "y2", "y3", "y4")),
    ("f", "~~", "f", 2.0),
    ("g", "~~", "g", 0.7),
    ("x", "~~", "x", 4.0),
    ("f", "~~", "x", 0.6),
    ("y1", "~1", "", 3.0),
    ("x", "~1", "", 1.0),
]


def model(
    est: list[tuple[str, str, str, float]],
) -> tuple[ParameterTable, Array, dict[tuple[int, int], dict[str, float]]]:
    table = ParameterTable(tuple(Parameter(*one[:3]) for one in est))
    covariance, _ = ram.total_moments(est)
    variances = {(1, 1): {name: float(covariance.loc[name, name]) for name in covariance}}
    return table, np.array([one[3] for one in est]), variances


def test_three_scales() -> None:
    table, est, variances = model(MODEL)
    lv, full, nox = standardize(table, est, variances)
    at = {one[:3]: k for k, one in enumerate(MODEL)}
    sd = {name: math.sqrt(value) for name, value in variances[1, 1].items()}
    loading = at["f", "=~", "y2"]
    assert lv[loading] == pytest.approx(0.8 * sd["f"])
    assert full[loading] == nox[loading] == pytest.approx(0.8 * sd["f"] / sd["y2"])
    slope = at["g", "~", "x"]
    assert full[slope] == pytest.approx(-0.3 * sd["x"] / sd["g"])
    assert lv[slope] == nox[slope] == pytest.approx(-0.3 / sd["g"])
    residual = at["y1", "~~", "y3"]
    assert lv[residual] == 0.1
    assert full[residual] == pytest.approx(0.1 / 0.4)
    mixed = at["f", "~~", "x"]
    assert lv[mixed] == pytest.approx(0.6 / math.sqrt(2))
    assert full[mixed] == pytest.approx(0.6 / math.sqrt(8))
    assert (lv[at["x", "~1", ""]], full[at["x", "~1", ""]], nox[at["x", "~1", ""]]) == (1.0, 0.5, 1.0)


def test_covariate_with_a_variance_of_the_user_is_standardized() -> None:
    table, est, variances = model(MODEL)
    slope = [one[:3] for one in MODEL].index(("g", "~", "x"))
    rows = [row._replace(user=(row.lhs, row.rhs) == ("x", "x")) for row in table.rows]
    scales = standardize(ParameterTable(tuple(rows)), est, variances)
    assert scales.std_nox[slope] == scales.std_all[slope]


@given(st.lists(st.floats(0.01, 100), min_size=7, max_size=7))
def test_std_all_does_not_depend_on_units(scales: list[float]) -> None:
    unit = dict(zip(("f", "g", "x", "y1", "y2", "y3", "y4"), scales, strict=True)) | {"": 1.0}

    def rescaled(lhs: str, op: str, rhs: str, value: float) -> float:
        if op == "=~":
            return value * unit[rhs] / unit[lhs]
        return value * unit[lhs] / unit[rhs] if op == "~" else value * unit[lhs] * unit[rhs]

    other = [(lhs, op, rhs, rescaled(lhs, op, rhs, value)) for lhs, op, rhs, value in MODEL]
    np.testing.assert_allclose(
        standardize(*model(other)).std_all, standardize(*model(MODEL)).std_all, rtol=1e-9
    )
    np.testing.assert_allclose(r_squared(*model(other))["r2"], r_squared(*model(MODEL))["r2"], rtol=1e-9)


def test_standardized_variances_add_up() -> None:
    table, est, variances = model(MODEL)
    full = dict(zip([one[:3] for one in MODEL], standardize(table, est, variances).std_all, strict=True))
    r2 = r_squared(table, est, variances).set_index("lhs")["r2"]
    for name, explained in r2.items():
        assert full[name, "~~", name] + explained == pytest.approx(1)
    assert r2["y2"] == pytest.approx(full["f", "=~", "y2"] ** 2)
    assert list(r2.index) == ["y1", "y2", "y3", "y4", "g"]


@pytest.mark.parametrize("variance", [0.0, -0.5, math.nan])
def test_improper_variance_is_nan_and_silent(variance: float) -> None:
    table, est, variances = model(MODEL)
    variances[1, 1]["y2"] = variance
    scales: dict[str, Any] = standardize(table, est, variances)._asdict()
    loading = [one[:3] for one in MODEL].index(("f", "=~", "y2"))
    assert math.isnan(scales["std_all"][loading])
    assert math.isfinite(scales["std_lv"][loading])
    r2 = r_squared(table, est, variances).set_index("lhs")["r2"]
    assert r2.index[r2.isna()].tolist() == ["y2"]


def test_negative_residual_variance_has_no_r2() -> None:
    negative = [(*one[:3], -0.1) if one[:3] == ("y4", "~~", "y4") else one for one in MODEL]
    r2 = r_squared(*model(negative)).set_index("lhs")["r2"]
    assert r2.index[r2.isna()].tolist() == ["y4"]


def test_levels_are_standardized_apart() -> None:
    slope = Parameter("y", "~", "x")
    table = ParameterTable((slope, slope._replace(level=2), slope._replace(group=2)))
    variances = {
        (1, 1): {"x": 4.0, "y": 1.0},
        (2, 1): {"x": 1.0, "y": 4.0},
        (1, 2): {"x": 9.0, "y": 1.0},
    }
    scales = standardize(table, np.full(3, 0.5), variances)
    assert scales.std_all.tolist() == [1.0, 0.25, 1.5]


def test_operators_without_a_standardized_form_are_nan() -> None:
    table = ParameterTable((Parameter("y", "~*~", "y"), Parameter("y", "|", "t1"), Parameter("y", "~~", "y")))
    scales = standardize(table, np.array([1.0, 0.3, 4.0]), {(1, 1): {"y": 4.0}})
    np.testing.assert_allclose(scales.std_all, [np.nan, 0.15, 1.0])
