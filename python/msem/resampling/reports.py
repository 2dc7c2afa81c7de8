"""Tables of replicates as text, and what is said about refits that failed."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from msem.errors import ConvergenceWarning, DataError, warn
from msem.printing import frame_html, frame_text

TOLERATED = 0.01  # share of refits that may fail without a warning


def as_text(frame: pd.DataFrame) -> str:
    """A table of statistics, without level and group where there are none."""
    return frame_text(_shown(frame))


def as_html(frame: pd.DataFrame) -> str:
    """A table of statistics for notebooks."""
    return frame_html(_shown(frame))


def _shown(frame: pd.DataFrame) -> pd.DataFrame:
    return frame if (frame["level"] > 0).any() else frame.drop(columns=["level", "group"])


def describe(failed: Mapping[str, int]) -> str:
    """Reasons with their counts, those that occurred."""
    return ", ".join(f"{reason} ({count})" for reason, count in failed.items() if count)


def require_enough(usable: int, failed: Mapping[str, int]) -> None:
    """Refuse to compute a spread from fewer than two replicates.

    Raises
    ------
    DataError
        With the reasons for which the others failed.
    """
    if usable < 2:
        reasons = describe(failed) or "there are too few"
        raise DataError(
            f"only {usable} replicates can be used: {reasons}. The model is too large for so few clusters: simplify "
            "it, above all its between level"
        )


def warn_of_failures(what: str, total: int, failed: Mapping[str, int]) -> None:
    """Warn when more than one in a hundred replicates failed: the others are a selection.

    Warns
    -----
    ConvergenceWarning
    """
    count = sum(failed.values())
    if count > TOLERATED * total:
        warn(
            f"{what}: {count} of {total} replicates failed and were left out: {describe(failed)}. Results are those "
            "of the samples in which the model can be fitted",
            ConvergenceWarning,
        )
