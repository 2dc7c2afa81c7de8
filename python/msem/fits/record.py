"""The file of a fit: what was asked for and what came out, as people and programs can read it, without any data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.storage import Format, signed, write_json
from msem.errors import DataError, UnsupportedError
from msem.estimation.solution import Solution
from msem.postestimation.constraints import definition_rows
from msem.postestimation.estimates import estimates
from msem.postestimation.fit_measures import measures
from msem.postestimation.icc import sizes_of
from msem.version import __version__

Floats = NDArray[np.float64]
FORMAT = Format("msem fit", 1, "a file of a fit")
ROW = ("lhs", "op", "rhs", "level", "group", "free", "label", "exo", "user", "slope")
STANDARDIZED = ("std_lv", "std_all", "std_nox")
COUNTS = ("nobs", "nclusters", "df")
OF_DATA = ("sample_cov", "sample_mean", "sample_nobs")
CONTENT = ("msem", "model", "options", "groups", "nlevels", *COUNTS, "given_as", "dropped_rows", "iterations",
           "converged", "problems", "rows", "est", "se", *STANDARDIZED, "covariance", "llf", "unrestricted_llf",
           "fit_measures")  # fmt: skip

OPTIONAL = (
    "reference_df",
    "design_df",
    "independent",
    "moving",
    "sizes",
)  # files of before there were these do not have them

OTHER_FORMATS = (
    ".csv", ".docx", ".html", ".md", ".parquet", ".pdf", ".pickle", ".pkl", ".png", ".rds", ".svg", ".tex", ".xlsx"
)  # fmt: skip


def save(fit: Solution, path: Any) -> None:
    """Write the fit to a JSON file: model, options, estimates, their covariance matrix, fit measures and version.

    No data are written, but the estimates. The file replaces another one as a whole, and carries a digest.

    Parameters
    ----------
    path : path
        Conventionally with the suffix .json; read by `msem.SavedFit.load`.

    Raises
    ------
    DataError
        If the suffix is that of another format.
    """
    suffix = Path(path).suffix.lower()
    if suffix in OTHER_FORMATS:
        raise DataError(
            f"{path}: a fit is saved as .json, which SavedFit.load reads; tables are saved by "
            "msem.table(fit).save(path), diagrams by fit.diagram().save(path)"
        )
    write_json(path, signed(FORMAT.header | _content(fit)))


def _content(fit: Solution) -> dict[str, Any]:
    frame = _estimates(fit)
    options = {
        own.name: plain(getattr(fit.options, own.name))
        for own in fields(fit.options)
        if own.name not in OF_DATA
    }
    rows = (*fit.table.rows, *definition_rows(fit))
    return {
        "msem": __version__,
        "model": fit.table.syntax.text if fit.table.syntax is not None else "",
        "options": options,
        "groups": list(fit.group_labels),
        "nlevels": fit.table.nlevels,
        "nobs": fit.nobs,
        "nclusters": fit.nclusters,
        "df": fit.df,
        "given_as": fit.origin.given_as,
        "dropped_rows": fit.origin.dropped_rows,
        "iterations": len(fit.estimate.optimum.diary),
        "converged": fit.converged,
        "problems": [[p.name, p.cause, p.remedy] for p in fit.problems],
        "rows": [[getattr(row, name) for name in ROW] for row in rows],
        **{name: numbers(frame[name]) for name in ("est", "se", *STANDARDIZED)},
        "covariance": [numbers(row) for row in fit.vcov],
        "reference_df": numbers(fit.reference_df),
        "design_df": fit.design_df,
        "moving": fit.moving.tolist(),
        "sizes": [list(map(list, sizes_of(s).items())) for s in fit.sample.statistics]
        if fit.table.multilevel
        else [],
        "llf": number(fit.llf),
        "unrestricted_llf": number(fit.unrestricted_llf),
        "fit_measures": {str(name): number(value) for name, value in measures(fit).items()},
    }


def _estimates(fit: Solution) -> pd.DataFrame:
    try:
        return estimates(fit, standardized=True)
    except UnsupportedError:  # products of random slopes have no variances that could standardize
        return estimates(fit).assign(**dict.fromkeys(STANDARDIZED, np.nan))


def plain(value: Any) -> Any:
    """A value with lists for tuples, and None for nan."""
    if isinstance(value, tuple):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def number(value: float) -> float | None:
    """A number, None where it is none."""
    return float(value) if math.isfinite(value) else None


def numbers(values: Sequence[float] | Floats | pd.Series) -> list[float | None]:
    """Numbers, None for nan."""
    return [number(value) for value in np.asarray(values, dtype=np.float64).tolist()]
