"""Series of parameters that are found by any of their names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.model.partable import ParameterTable, find_parameter


class ParameterSeries(pd.Series):
    """Values by the names of parameters, where a formula such as ``"fb =~ y2"`` is a name too."""

    _metadata = ["_name", "_find"]  # noqa: RUF012  (as pandas has it)
    _find: Callable[[str], str] | None

    @property
    def _constructor(self) -> Any:
        return ParameterSeries

    def __getitem__(self, key: Any) -> Any:
        """A value by position or name; `ModelError` if a text names no parameter, or several."""
        find = getattr(self, "_find", None)
        if find is None or not isinstance(key, str) or key in self.index:
            return super().__getitem__(key)
        return super().__getitem__(find(key))


def parameter_series(table: ParameterTable, values: NDArray[np.float64], name: str) -> pd.Series:
    """Values of the parameters of a table.

    Parameters
    ----------
    table : ParameterTable
    values : ndarray, shape (npar,)
    name : str
        Of the series.
    """
    series = ParameterSeries(values, index=list(table.names()), name=name)
    object.__setattr__(series, "_find", partial(parameter_name, table))
    return series


def parameter_name(table: ParameterTable, text: str) -> str:
    """Name of the parameter that a text names; `ModelError` if it names none, or several."""
    return table.names()[find_parameter(table, text)]
