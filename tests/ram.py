"""Reticular action model in NumPy, from the rows of a parameter table: implied moments for the tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Row = tuple[str, str, str, float]
PATHS = {"=~": (2, 0), "~": (0, 2)}  # (position of the outcome, of the cause) in a row


def total_moments(rows: Iterable[Row]) -> tuple[pd.DataFrame, pd.Series]:
    """Covariance matrix and means of all variables, observed and latent, of one block."""
    used = [row for row in rows if row[1] in {"=~", "~", "~~", "~1"}]
    names = list(dict.fromkeys(name for row in used for name in (row[0], row[2]) if name))
    at = {name: k for k, name in enumerate(names)}
    paths, cov, mean = (np.zeros(s) for s in ((len(at), len(at)), (len(at), len(at)), len(at)))
    for row in used:
        lhs, op, rhs, value = row
        if op in PATHS:
            outcome, cause = PATHS[op]
            paths[at[str(row[outcome])], at[str(row[cause])]] = value
        elif op == "~~":
            cov[at[lhs], at[rhs]] = cov[at[rhs], at[lhs]] = value
        else:
            mean[at[lhs]] = value
    total = np.linalg.inv(np.eye(len(at)) - paths)
    return (
        pd.DataFrame(total @ cov @ total.T, index=names, columns=names),
        pd.Series(total @ mean, index=names),
    )


def blocks(
    parameter_table: Sequence[dict[str, Any]], groups: Sequence[str] | None
) -> dict[tuple[int, int], list[dict[str, Any]]]:
    """Rows of a stored parameter table by (level, group), constraints and definitions left out."""
    found: dict[tuple[int, int], list[dict[str, Any]]] = {}
    rows = [row for row in parameter_table if row["op"] not in {"==", "<", ">", ":="}]
    levels = list(dict.fromkeys(row["level"] for row in rows))
    for row in rows:
        group = row["group"] if isinstance(row["group"], int) else list(groups or ()).index(row["group"]) + 1
        found.setdefault((levels.index(row["level"]) + 1, group), []).append(row)
    return found


def values(rows: Iterable[dict[str, Any]]) -> list[Row]:
    """Rows of a stored parameter table as the tuples `total_moments` takes."""
    return [(row["lhs"], row["op"], row["rhs"], float(row["est"])) for row in rows]


def matrix(stored: dict[str, Any]) -> NDArray[np.float64]:
    """Covariance matrix of a stored result (a single variable is stored as a number)."""
    return np.atleast_2d(np.asarray(stored["data"], dtype=float))


def variables(stored: dict[str, Any]) -> list[str]:
    """Names of a stored covariance matrix."""
    return [stored["cols"]] if isinstance(stored["cols"], str) else list(stored["cols"])
