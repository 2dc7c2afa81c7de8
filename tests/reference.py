"""Reference cases computed by other programs, kept outside the repository (see docs on testing)."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

REFERENCE = Path(__file__).parents[2] / "shared" / "reference"
PROGRAM = "lavaan_0.7-2"

needs_reference = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason="the reference cases are not on this machine"
)


def names() -> list[str]:
    """Cases of models that can be read, sorted by name; empty where the reference folder is absent."""
    return [
        case for case in sorted(path.parent.name for path in REFERENCE.glob("*/meta.json")) if known(case)
    ]


def known(case: str) -> bool:
    """Whether lavaan has results for it, and it asks for nothing that msem has no words for.

    Slopes are read and refused by name. Three levels, crossed factors, weights, ordered outcomes, rotation and
    structural models after measurement are not.
    """
    m = meta(case)
    beyond = m["levels"] > 2 or m["fun"] == "sam" or m.get("crossed") or m.get("weights")
    arguments = {"ordered", "rotation"} & set(m["lavaan_args"])
    return not (beyond or arguments) and PROGRAM in results(case)


@functools.cache
def meta(case: str) -> dict[str, Any]:
    """Describe the case: fun, levels, lavaan_args, estimator, missing, group, constraints."""
    described: dict[str, Any] = json.loads((REFERENCE / case / "meta.json").read_text(encoding="utf-8"))
    return described


@functools.cache
def results(case: str) -> dict[str, Any]:
    """Results of all programs for the case."""
    found: dict[str, Any] = json.loads((REFERENCE / case / "expected.json").read_text(encoding="utf-8"))
    return found


def expected(case: str, program: str = PROGRAM) -> dict[str, Any]:
    """Results of one program for the case."""
    block: dict[str, Any] = results(case)[program]
    return block


def model(case: str) -> str:
    """The model text."""
    return (REFERENCE / case / "model.lav").read_text(encoding="utf-8")


def data(case: str) -> pd.DataFrame:
    """The data set (or, for fits from moments, the covariance matrix as it is stored)."""
    return pd.read_csv(REFERENCE / case / meta(case)["data"])


def moments(case: str) -> tuple[pd.DataFrame, pd.Series | None]:
    """Covariance matrix and, if there is one, mean vector of a case that is fitted from moments."""
    covariance = pd.read_csv(REFERENCE / case / meta(case)["data"], index_col=0)
    if "mean" not in meta(case):
        return covariance, None
    return covariance, pd.read_csv(REFERENCE / case / meta(case)["mean"], index_col=0)["mean"]


def plain(case: str) -> bool:
    """Whether the case is ML on complete data, one group, no constraint and no random slope."""
    m = meta(case)
    return bool(
        m["estimator"] == "ML"
        and m["missing"] == "listwise"
        and not m["group"]
        and not m["constraints"]
        and not m["random_slopes"]
    )


def table_arguments(case: str) -> dict[str, Any]:
    """Keyword arguments of `parameter_table` that repeat the reference fit."""
    m = meta(case)
    arguments = m["lavaan_args"]
    has_means = arguments.get("meanstructure", False) or m["missing"] == "ml" or "mean" in m
    return {
        "fun": m["fun"],
        "fixed_x": arguments.get("fixed.x", True),
        "std_lv": arguments.get("std.lv", False),
        "meanstructure": True if has_means else None,
    }
