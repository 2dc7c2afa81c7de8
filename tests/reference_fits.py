"""Reference cases fitted by msem, with the other program's results in the order of msem's tables."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import msem
import reference

Floats = NDArray[np.float64]
Key = tuple[int, int, str, str, str]
FUNCTIONS = {"sem": msem.sem, "cfa": msem.cfa, "growth": msem.growth}
OPERATORS = {"=~", "~", "~~", "~1"}


def usable(case: str) -> bool:
    """Whether msem can fit it: complete data, no random slope."""
    m = reference.meta(case)
    return m["missing"] == "listwise" and not m["random_slopes"]


CASES = [case for case in reference.names() if usable(case)]
MISSING = [case for case in reference.names() if reference.meta(case)["missing"] == "ml"]
TWO_LEVEL = [case for case in CASES if reference.meta(case)["levels"] == 2]
SINGLE = [case for case in CASES if reference.meta(case)["levels"] == 1]
GROUPED = [case for case in CASES if reference.meta(case)["group"]]


def arguments(case: str) -> dict[str, Any]:
    """Keyword arguments of the fit."""
    m = reference.meta(case)
    theirs = m["lavaan_args"]
    given: dict[str, Any] = {
        "fixed_x": theirs.get("fixed.x", True),
        "std_lv": theirs.get("std.lv", False),
    }
    if m["missing"] == "ml":
        given["missing"] = "fiml"
    if m["group"]:
        given |= {"group": m["group"], "group_equal": theirs.get("group.equal", ())}
    if m["levels"] == 2:
        return given | {"data": data(case), "cluster": m["cluster"]}
    if theirs.get("meanstructure") or "mean" in m:
        given["meanstructure"] = True
    if not m["data"].startswith("cov"):
        return given | {"data": data(case)}
    cov, mean = reference.moments(case)
    given |= {"sample_cov": cov, "sample_nobs": m["n"]}
    given |= {"sample_cov_rescale": theirs.get("sample.cov.rescale", True)}
    return given if mean is None else given | {"sample_mean": mean}


def data(case: str) -> pd.DataFrame:
    """The data, the groups as categories in their order of appearance, which is lavaan's."""
    frame, group = reference.data(case), reference.meta(case)["group"]
    if group:
        frame[group] = pd.Categorical(frame[group], categories=frame[group].unique())
    return frame


@functools.cache
def fit(case: str, **options: Any) -> msem.Fit:
    """The case fitted by msem; warnings of solutions and of rows left out are the subject of other tests."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", msem.errors.ImproperSolutionWarning)
        warnings.simplefilter("ignore", msem.errors.DataWarning)
        return FUNCTIONS[reference.meta(case)["fun"]](reference.model(case), **(arguments(case) | options))


def key(lhs: str, op: str, rhs: str, level: int, group: int = 1) -> Key:
    """Parameters are the same if this is; covariances in either order."""
    if op == "~~":
        lhs, rhs = sorted((lhs, rhs))
    return group, level, op, lhs, rhs


def keys(case: str) -> list[Key]:
    """Rows of msem's parameter table."""
    return [key(r.lhs, r.op, r.rhs, r.level, r.group) for r in fit(case).table.rows]


def in_order(case: str, rows: list[dict[str, Any]], values: list[Any]) -> Floats:
    """Values of rows of the other program in the order of msem's rows; all of msem's rows must be there.

    Other programs leave out zero means and variances that nothing depends on; those stay nan.
    """
    both = [(row, value) for row, value in zip(rows, values, strict=True) if row["op"] in OPERATORS]
    levels, groups = (list(dict.fromkeys(row[name] for row, _ in both)) for name in ("level", "group"))
    found = {
        key(
            *(row["lhs"], row["op"], row["rhs"]),
            *(levels.index(row["level"]) + 1, groups.index(row["group"]) + 1),
        ): value
        for row, value in both
    }
    ours = keys(case)
    assert set(found) == set(ours), set(found) ^ set(ours)
    return np.array([np.nan if found[k] is None else found[k] for k in ours], dtype=float)


def table_rows(case: str) -> list[dict[str, Any]]:
    """Their parameter table, without the rows that have no level (constraints and definitions)."""
    rows: list[dict[str, Any]] = reference.expected(case)["parameter_table"]
    return [row for row in rows if row["op"] in OPERATORS]


def column(case: str, name: str) -> Floats:
    """One column of their parameter table in the order of msem's rows."""
    rows = table_rows(case)
    return in_order(case, rows, [row.get(name) for row in rows])


def theta(case: str) -> Floats:
    """Their estimates as msem's parameter vector."""
    out = np.full(fit(case).table.npar, np.nan)
    for row, value in zip(fit(case).table.rows, column(case, "est"), strict=True):
        if row.free:
            out[row.free - 1] = value
    return out


def blocks(case: str, name: str) -> list[Any]:
    """What they store for each level of each group, group by group."""
    stored = reference.expected(case)[name] or {}
    single = reference.meta(case)["levels"] == 1
    return [stored] if single and case not in GROUPED else list(stored.values())


def information_se(case: str, kind: str) -> Floats:
    """Their standard errors from another kind of information in the order of msem's rows."""
    result = reference.expected(case)
    rows = result["parameter_table"]
    kept = [
        (r, v) for r, v in zip(rows, result[f"se_information_{kind}"], strict=True) if r["op"] in OPERATORS
    ]
    return in_order(case, [r for r, _ in kept], [v for _, v in kept])


def matrix(stored: dict[str, Any]) -> pd.DataFrame:
    """A stored covariance matrix (that of one variable is stored as a number)."""
    names = [stored["cols"]] if isinstance(stored["cols"], str) else stored["cols"]
    return pd.DataFrame(np.atleast_2d(np.array(stored["data"], dtype=float)), index=names, columns=names)
