"""Estimates of several fits side by side."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd

from msem.entry import entry, options_of
from msem.errors import ArgumentError, ModelError
from msem.fits.fit import Fit
from msem.fits.segregated import LevelFit, SegregatedFit
from msem.names import unknown_option
from msem.output.tables import KEY, comparison_frame
from msem.settings import several

Comparable = Fit | SegregatedFit | LevelFit | pd.DataFrame | tuple[Fit, Fit]


@entry
def compare(
    *fits: Comparable | Mapping[str, Comparable] | Sequence[Comparable],
    columns: str | Sequence[str] = ("est", "se"),
    ops: str | Collection[str] | None = None,
    **named: Comparable,
) -> pd.DataFrame:
    """Put estimates and standard errors of any number of fits side by side.

    Parameters
    ----------
    *fits : fits, one mapping from name to fit, or one list of fits
        Without names they are called model_1, model_2, ... A fit is a `Fit`, a `SegregatedFit` (or one level of it),
        a table as `Fit.estimates` gives it, or a pair of single-level fits (within, between), which are taken for the
        two levels of one model.
    columns : sequence of str
        Columns of `estimates` to show, such as est, se, z, pvalue, ci_lower, ci_upper, se_naive.
    ops : collection of str, optional
        Rows to keep, for instance ``("=~", "~")``.
    **named : fits
        Fits with their names: ``msem.compare(one=fit1, other=fit2)``.

    Returns
    -------
    DataFrame
        Rows level, lhs, op, rhs; columns (fit, column). nan where a fit does not have the row or the column.
        A covariance that a later fit has the other way round stands where the first fit has it.

    Raises
    ------
    ModelError
        If something is not a fit, or no fit has one of the columns.
    """
    shown = list(several(columns))
    kept = None if ops is None else several(ops)
    given = named_fits("compare", fits, named, options=options_of(compare))
    tables = {name: _estimates(name, fit) for name, fit in given.items()}
    for column in shown:
        if not any(column in table for table in tables.values()):
            known = dict.fromkeys(str(name) for table in tables.values() for name in table.columns)
            raise ModelError(f"no fit has a column {column!r}; they have {', '.join(known)}")
    names = [*KEY, "group", *shown]
    return comparison_frame(
        {name: table.reindex(columns=names) for name, table in _aligned(tables).items()}, shown, kept
    )


def named_fits(
    function: str,
    fits: Sequence[Any],
    named: Mapping[str, Any],
    least: int = 1,
    options: Collection[str] = (),
) -> dict[str, Any]:
    """Fits by name, as functions of several fits take them.

    Parameters
    ----------
    function : str
        For messages.
    fits : sequence
        Fits without names, or one mapping of name to fit, or one list of fits.
    named : mapping of str to fit
        Keywords.
    least : int
        How many there must be.
    options : collection of str
        What the function takes besides, for messages.

    Raises
    ------
    ModelError
        If there are fewer, or two have one name.
    ArgumentError
        If a keyword is no name of a fit but meant as an option.
    """
    for name, value in named.items():
        if value is None or isinstance(value, (bool, int, float, str)) or _are_texts(value):
            raise ArgumentError(unknown_option(function, name, options))
    (only,) = fits if len(fits) == 1 else (None,)
    if isinstance(only, Mapping):
        given = {str(name): fit for name, fit in only.items()}
    else:
        # a pair of single-level fits is one thing to compare, a list is several
        unnamed = only if isinstance(only, list) else fits
        given = {f"model_{k}": fit for k, fit in enumerate(unnamed, 1)}
    twice = [name for name in named if name in given]
    if twice:
        raise ModelError(f"two fits are called {twice[0]!r}: give one of them another name")
    given |= named
    if len(given) < least:
        count = ("one fit", "two fits")[least - 1]
        example = ", ".join(("one=fit1", "other=fit2")[:least])
        raise ModelError(f"{function} takes {count} or more: msem.{function}({example})")
    return given


def _are_texts(value: object) -> bool:
    return isinstance(value, (list, tuple, set)) and all(isinstance(one, str) for one in value)


def _estimates(name: str, fit: object) -> pd.DataFrame:
    if isinstance(fit, pd.DataFrame):
        return _checked(name, fit)
    if isinstance(fit, (Fit, SegregatedFit, LevelFit)):
        return fit.estimates()
    if isinstance(fit, tuple) and len(fit) == 2 and all(map(_is_single_level, fit)):
        within, between = (part.estimates().assign(level=level) for level, part in enumerate(fit, start=1))
        both: pd.DataFrame = pd.concat([within, between], ignore_index=True)
        return both
    raise ModelError(
        f"{name!r} is a {type(fit).__name__}; compare takes fits, tables of estimates, or a pair "
        "(within, between) of single-level fits"
    )


def _is_single_level(fit: object) -> bool:
    return isinstance(fit, Fit) and not fit.table.multilevel


def _checked(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """A table of estimates; level and group are 1 if it does not have them."""
    absent = [column for column in ("lhs", "op", "rhs") if column not in table]
    if absent:
        raise ModelError(f"the table {name!r} has no column {', '.join(absent)}: it is not one of estimates")
    whole = table.assign(**{column: 1 for column in ("level", "group") if column not in table})
    twice = whole[whole.duplicated([*KEY, "group"])]
    if len(twice):
        row = twice.iloc[0]
        raise ModelError(f"the table {name!r} has {row['lhs']} {row['op']} {row['rhs']} twice at one level")
    return whole


def _aligned(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Covariances written in the order in which the first table that has them writes them."""
    seen: dict[tuple[object, ...], tuple[str, str]] = {}
    out = {}
    for name, table in tables.items():
        pairs = []
        for level, group, lhs, op, rhs in table[["level", "group", "lhs", "op", "rhs"]].itertuples(
            index=False
        ):
            key = (level, group, frozenset((lhs, rhs)))
            pairs.append(seen.setdefault(key, (lhs, rhs)) if op == "~~" else (lhs, rhs))
        out[name] = table.assign(lhs=[lhs for lhs, _ in pairs], rhs=[rhs for _, rhs in pairs])
    return out
