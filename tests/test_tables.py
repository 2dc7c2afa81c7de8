"""Frames of estimates, comparisons of fits and printed matrices."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from msem.model.partable import Parameter
from msem.output.tables import comparison_frame, estimates_frame, format_matrix, hidden_rows

NAN = float("nan")
ROWS = (
    Parameter("f", "=~", "y1", user=True),
    Parameter("f", "=~", "y2", free=1, label="b", user=True),
    Parameter("y1", "~~", "y1", free=2, level=2),
    Parameter("x", "~1", "", exo=True),
)
EST = np.array([1.0, 0.5, -0.2, 3.0])
SE = np.array([0.0, 0.25, NAN, 0.0])


def test_estimates() -> None:
    frame = estimates_frame(ROWS, EST, SE, extra={"std_all": EST / 2})
    wald = ["se", "z", "pvalue", "ci_lower", "ci_upper"]
    assert list(frame) == ["lhs", "op", "rhs", "level", "group", "label", "est", *wald, "std_all"]
    assert frame.loc[1, ["lhs", "op", "rhs", "level", "group", "label"]].tolist() == [
        "f",
        "=~",
        "y2",
        1,
        1,
        "b",
    ]
    expected = [0.25, 2.0, 0.04550026389635842, 0.5 - 1.959963984540054 / 4, 0.5 + 1.959963984540054 / 4]
    np.testing.assert_allclose(frame.loc[1, wald].to_numpy(dtype=float), expected, rtol=1e-12)
    np.testing.assert_array_equal(frame.loc[0, wald].to_numpy(dtype=float), [0, NAN, NAN, 1, 1])
    assert frame.loc[2, wald].isna().all()
    assert frame["std_all"].tolist() == [0.5, 0.25, -0.1, 1.5]


def test_level_of_the_intervals() -> None:
    frame = estimates_frame(ROWS, EST, SE, ci_level=0.5)
    assert frame.loc[1, "ci_upper"] == pytest.approx(0.5 + 0.6744897501960817 / 4)


def test_hidden_rows() -> None:
    zero = [
        Parameter("y", "~1", ""),
        Parameter("y", "~1", "", user=True),
        Parameter("y", "~1", "", free=1),
        Parameter("y", "~~", "x"),
    ]
    assert hidden_rows(zero, np.zeros(4)).tolist() == [True, False, False, False]
    assert hidden_rows(ROWS, EST).tolist() == [False, False, False, True]


def test_comparison() -> None:
    one = estimates_frame(ROWS, EST, SE)
    two = estimates_frame(ROWS[:0:-1], EST[:0:-1] + 1, SE[:0:-1])
    both = comparison_frame({"one": one, "two": two})
    assert both.index.names == ["level", "lhs", "op", "rhs"]
    assert both.index.tolist() == [
        (1, "f", "=~", "y1"),
        (1, "f", "=~", "y2"),
        (2, "y1", "~~", "y1"),
        (1, "x", "~1", ""),
    ]
    assert both.columns.tolist() == [("one", "est"), ("one", "se"), ("two", "est"), ("two", "se")]
    assert both["one"]["est"].tolist() == EST.tolist()
    np.testing.assert_array_equal(both["two"]["est"], [NAN, 1.5, 0.8, 4.0])


def test_comparison_of_chosen_rows_and_columns() -> None:
    frame = estimates_frame(ROWS, EST, SE)
    chosen = comparison_frame({"a": frame}, columns=["z"], ops={"=~"})
    assert chosen.columns.tolist() == [("a", "z")]
    np.testing.assert_array_equal(chosen["a"]["z"], [NAN, 2.0])


def test_comparison_of_groups() -> None:
    rows = [Parameter("y", "~", "x", group=g, free=g) for g in (1, 2)]
    frame = estimates_frame(rows, np.array([0.1, 0.2]), np.array([0.1, 0.1]))
    single = estimates_frame(rows[:1], np.array([0.15]), np.array([0.1]))
    both = comparison_frame({"two": frame, "one": single}, columns=["est"])
    assert both.index.names == ["level", "group", "lhs", "op", "rhs"]
    np.testing.assert_array_equal(both["one"]["est"], [0.15, NAN])


def test_matrix() -> None:
    names = ["y1", "y2", "w_1"]
    matrix = pd.DataFrame([[0.992, 0.668, -0.1254], [0.668, 10.598, 0.0], [-0.1254, 0.0, 0.87]], names, names)
    assert format_matrix(matrix).splitlines() == [
        "         y1      y2     w_1",
        "y1    0.992",
        "y2    0.668  10.598",
        "w_1  -0.125   0.000   0.870",
    ]


def test_matrix_of_long_names() -> None:
    matrix = pd.DataFrame([[1.0]], ["long_name"], ["long_name"])
    assert format_matrix(matrix, digits=1) == "          long_name\nlong_name       1.0"
