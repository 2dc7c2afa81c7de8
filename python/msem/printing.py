"""Data frames of statistics as text and as HTML."""

from __future__ import annotations

import pandas as pd


def frame_text(frame: pd.DataFrame) -> str:
    """A table of statistics with three decimals and empty cells for nan; no index that only counts."""
    counted = isinstance(frame.index, pd.RangeIndex)
    text: str = frame.to_string(index=not counted, float_format=_three_decimals, na_rep="")
    return "\n".join(line.rstrip() for line in text.splitlines())


def frame_html(frame: pd.DataFrame) -> str:
    """The same for notebooks."""
    counted = isinstance(frame.index, pd.RangeIndex)
    return str(frame.to_html(index=not counted, border=0, float_format=_three_decimals, na_rep=""))


def _three_decimals(value: float) -> str:
    return f"{value:.3f}"
