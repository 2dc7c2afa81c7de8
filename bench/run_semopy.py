"""Times semopy on a single-level model; see protocol.py.

The time is that of the fit, the table of estimates with standard errors, and the fit measures. semopy reports no
log-likelihood: that of its estimates, with means at those of the data, is computed here afterwards.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import semopy

from protocol import time_peer


def whole_fit(model: str, data: pd.DataFrame) -> tuple[Any, Any, pd.DataFrame]:
    fitted = semopy.Model(model)
    result = fitted.fit(data)
    str(fitted.inspect())
    measures = semopy.calc_stats(fitted)
    str(measures)
    return fitted, result, measures


def loglik(fitted: Any, data: pd.DataFrame) -> float:
    """Normal log-likelihood of the covariance matrix that the estimates imply."""
    names = fitted.vars["observed"]
    sigma = fitted.calc_sigma()[0]
    moments = np.cov(data[names].to_numpy(), rowvar=False, bias=True)
    logdet = np.linalg.slogdet(sigma)[1]
    trace = np.trace(np.linalg.solve(sigma, moments))
    return float(-len(data) / 2 * (len(names) * np.log(2 * np.pi) + logdet + trace))


def report(fit: tuple[Any, Any, pd.DataFrame], data: pd.DataFrame) -> dict[str, object]:
    fitted, result, measures = fit
    return {
        "converged": result.success,
        "logl": loglik(fitted, data),
        "chisq": float(measures["chi2"].iloc[0]),
    }


if __name__ == "__main__":
    time_peer(semopy.__version__, whole_fit, report)
