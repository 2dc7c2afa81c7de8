"""Times MixedLM of statsmodels on a random-intercept regression; see protocol.py.

The right-hand sides of the model's levels become the fixed effects of one formula. The time is that of the fit, by
maximum likelihood, and of the text of its summary.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import statsmodels
from statsmodels.formula.api import mixedlm

from protocol import time_peer


def mixed_formula(model: str) -> str:
    sides = [line.split("~") for line in model.splitlines() if "~" in line]
    return f"{sides[0][0].strip()} ~ {' + '.join(right.strip() for _, right in sides)}"


def whole_fit(model: str, data: pd.DataFrame) -> Any:
    fit = mixedlm(mixed_formula(model), data, groups=data["cluster"]).fit(reml=False)
    str(fit.summary())
    return fit


def report(fit: Any, data: pd.DataFrame) -> dict[str, object]:
    return {"converged": fit.converged, "logl": fit.llf}


if __name__ == "__main__":
    time_peer(statsmodels.__version__, whole_fit, report)
