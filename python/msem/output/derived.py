"""Tables of the standardized solution and of explained variances with standard errors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.model.functions import Functions
from msem.model.partable import Parameter
from msem.output.tables import estimates_frame, row_columns
from msem.postestimation.delta import chained, delta_method
from msem.postestimation.ram import Model
from msem.postestimation.standardized import (
    Kind,
    explained_outcomes,
    explained_quantity,
    standardized_quantity,
)

Floats = NDArray[np.float64]


class Definitions(NamedTuple):
    """Defined parameters: their rows, and the functions of all rows of the parameter table."""

    rows: tuple[Parameter, ...] = ()
    functions: Functions | None = None


NONE = Definitions()


def standardized_frame(
    model: Model,
    theta: Floats,
    vcov: Floats,
    kind: Kind,
    *,
    total: bool = False,
    level: float = 0.95,
    defined: Definitions = NONE,
) -> pd.DataFrame:
    """Tabulate the standardized solution.

    Parameters
    ----------
    model : Model
    theta, vcov : ndarray, shapes (npar,) and (npar, npar)
        Estimates and their sampling covariance.
    kind : {"std_all", "std_lv", "std_nox"}
    total : bool
        By total standard deviations; see `standardized_quantity`.
    level : float
        Coverage of the intervals.
    defined : Definitions
        Defined parameters, which are evaluated at the standardized values.

    Returns
    -------
    DataFrame
        Columns of `estimates_frame`, with est_std for est.
    """
    found = delta_method(standardized_quantity(model, kind, total=total), theta, vcov)
    if defined.functions is not None:
        values = defined.functions.values(found.est)
        found = chained(found, values, defined.functions.jacobian(found.est))
    frame = estimates_frame((*model.table.rows, *defined.rows), found.est, found.se, ci_level=level)
    return frame.rename(columns={"est": "est_std"})


def rsquare_frame(model: Model, theta: Floats, vcov: Floats, *, level: float = 0.95) -> pd.DataFrame:
    """Tabulate explained variances: columns lhs, level, group, r2, se, ci_lower, ci_upper.

    Parameters
    ----------
    model, theta, vcov
        As for `standardized_frame`.
    level : float
        Coverage of the intervals, which are Wald intervals of the logit.
    """
    rows = [model.table.rows[k] for k in explained_outcomes(model.table)]
    found = delta_method(explained_quantity(model), theta, vcov)
    lower, upper = found.interval(level, "logit")
    names = row_columns(rows, ("lhs", "level", "group"))
    numbers = {"r2": found.est, "se": found.se, "ci_lower": lower, "ci_upper": upper}
    return pd.DataFrame(names | numbers).astype({"level": int, "group": int})
