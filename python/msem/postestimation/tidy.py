"""Estimates and the fit of a model under the names that packages for tables and comparisons expect."""

from __future__ import annotations

from typing import Any, Protocol

import pandas as pd

STATISTICS = {
    "N": ("nobs", "Observations"),
    "nclusters": ("nclusters", "Clusters"),
    "chisq": ("chisq", "Chi-square"),
    "df": ("df", "Degrees of freedom"),
    "cfi": ("cfi", "CFI"),
    "tli": ("tli", "TLI"),
    "rmsea": ("rmsea", "RMSEA"),
    "srmr": ("srmr", "SRMR"),
    "srmr_within": ("srmr_within", "SRMR within"),
    "srmr_between": ("srmr_between", "SRMR between"),
    "aic": ("aic", "AIC"),
    "bic": ("bic", "BIC"),
}


class Reported(Protocol):
    """What a fit, or a saved one, says of itself."""

    @property
    def params(self) -> pd.Series:
        """Estimated parameters."""

    @property
    def nobs(self) -> int:
        """Units."""

    @property
    def nclusters(self) -> int | None:
        """Clusters."""

    @property
    def npar(self) -> int:
        """Estimated parameters."""

    @property
    def llf(self) -> float:
        """Log-likelihood."""

    @property
    def status(self) -> str:
        """The most serious problem."""

    @property
    def options(self) -> Any:
        """How the model was estimated."""

    def estimates(self, *, standardized: bool = False, ci_level: float = 0.95) -> pd.DataFrame:
        """All rows of the parameter table."""

    def fit_measures(self) -> pd.Series:
        """Fit measures."""


def tidy(fit: Reported, *, ci_level: float = 0.95) -> pd.DataFrame:
    """Estimates under the names of the R package broom, with underscores.

    Parameters
    ----------
    ci_level : float
        Coverage of the intervals.

    Returns
    -------
    DataFrame
        Columns term, op, level, group, label, estimate, std_error, statistic, p_value, conf_low, conf_high, std_lv,
        std_all, std_nox; a row for each row of `estimates`, whose columns these are.
    """
    frame = fit.estimates(standardized=True, ci_level=ci_level)
    names = frame["lhs"] + " " + frame["op"] + " " + frame["rhs"]
    frame.insert(0, "term", names.str.strip())
    return frame.drop(columns=["lhs", "rhs"]).rename(
        columns={
            "est": "estimate",
            "se": "std_error",
            "z": "statistic",
            "pvalue": "p_value",
            "ci_lower": "conf_low",
            "ci_upper": "conf_high",
        }
    )


def glance(fit: Reported) -> pd.DataFrame:
    """The fit of the model in one row, under the names of the R package broom, with underscores.

    Returns
    -------
    DataFrame
        nobs, nclusters, npar, estimator, status, log_lik, then the fit measures.
    """
    head = {
        "nobs": fit.nobs,
        "nclusters": fit.nclusters,
        "npar": fit.npar,
        "estimator": fit.options.estimator,
        "status": fit.status,
        "log_lik": fit.llf,
    }
    measures = {
        name: value for name, value in fit.fit_measures().items() if name not in (*head, "logl", "ntotal")
    }
    return pd.DataFrame([head | measures])


class ForTables:
    """What the package maketables asks of a result."""

    @property
    def __maketables_coef_table__(self: Reported) -> pd.DataFrame:
        frame = self.estimates()
        frame = frame[(frame["se"] != 0) & frame["est"].notna()]
        level = frame["level"].map({1: "", 2: " (between)"}).fillna("")
        index = pd.Index(frame["lhs"] + " " + frame["op"] + " " + frame["rhs"] + level, name="Coefficient")
        columns = {"b": "est", "se": "se", "t": "z", "p": "pvalue", "ci95l": "ci_lower", "ci95u": "ci_upper"}
        return pd.DataFrame({new: frame[old].to_numpy() for new, old in columns.items()}, index=index)

    @property
    def __maketables_depvar__(self) -> str:
        return ""

    @property
    def __maketables_stat_labels__(self) -> dict[str, str]:
        return {key: label for key, (_, label) in STATISTICS.items()}

    @property
    def __maketables_default_stat_keys__(self: Reported) -> list[str]:
        own = {"nobs", *self.fit_measures().index}
        return [key for key, (name, _) in STATISTICS.items() if name in own]

    def __maketables_stat__(self: Reported, key: str) -> Any:
        name = STATISTICS[key][0] if key in STATISTICS else key
        return self.nobs if name == "nobs" else self.fit_measures().get(name)
