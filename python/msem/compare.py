"""Estimates of several fits side by side."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import pandas as pd

from msem.errors import ModelError
from msem.fit import Fit
from msem.levelfit import SegregatedFit
from msem.tables import comparison_frame

Comparable = Fit | SegregatedFit | pd.DataFrame | tuple[Fit, Fit]


def compare(
    fits: Mapping[str, Comparable],
    *,
    columns: Sequence[str] = ("est", "se"),
    ops: Collection[str] | None = None,
) -> pd.DataFrame:
    """Put estimates and standard errors of any number of fits side by side.

    Parameters
    ----------
    fits : mapping from name to fit
        A `Fit`, a `SegregatedFit`, a table as `Fit.estimates` gives it, or a pair of single-level fits (within,
        between), which are taken for the two levels of one model.
    columns : sequence of str
        Columns of `estimates` to show.
    ops : collection of str, optional
        Rows to keep, for instance ``("=~", "~")``.

    Returns
    -------
    DataFrame
        Rows level, lhs, op, rhs; columns (fit, column). nan where a fit does not have the row.

    Raises
    ------
    ModelError
        If something is not a fit.
    """
    return comparison_frame({name: _estimates(name, fit) for name, fit in fits.items()}, columns, ops)


def _estimates(name: str, fit: Comparable) -> pd.DataFrame:
    if isinstance(fit, pd.DataFrame):
        return fit
    if isinstance(fit, (Fit, SegregatedFit)):
        return fit.estimates()
    if isinstance(fit, tuple):
        within, between = (part.estimates().assign(level=level) for level, part in enumerate(fit, start=1))
        return pd.concat([within, between], ignore_index=True)
    raise ModelError(
        f"{name!r} is a {type(fit).__name__}; compare takes fits, tables of estimates, or a pair "
        "(within, between) of single-level fits"
    )
