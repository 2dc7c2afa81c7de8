"""Fit measures with those of a scaled test, side by side in two columns as lavaan has them."""

from __future__ import annotations

import math
from collections.abc import Mapping

from msem.output.sections import Section

Single = float | int | str
Rows = list[tuple[str, Single, Single]]
HEADING = ("", "Standard", "Scaled")
COLUMN = 12
WIDTH = 54 + COLUMN


def scaled_sections(m: Mapping[str, float], correction: str, *, full: bool) -> tuple[Section, ...]:
    """Arrange fit measures in lavaan's order of sections.

    Parameters
    ----------
    m : mapping of str to float
        As made by `scaledmeasures.scaled_fit_measures`.
    correction : str
        Name of the scaling.
    full : bool
        All sections instead of the chi-square test only.
    """
    test = _section("Model Test User Model", _test(m, "", "P-value (Chi-square)", correction))
    if not full:
        return (test,)
    level = f"{100 * m['rmsea_ci_level']:g} Percent confidence interval"
    return (
        test,
        _section("Model Test Baseline Model", _test(m, "baseline_", "P-value", "")),
        _section("User Model versus Baseline Model", _incremental(m)),
        _section("Loglikelihood and Information Criteria", _information(m)),
        _section("Root Mean Square Error of Approximation", _rmsea(m, level)),
        _section("Standardized Root Mean Square Residual", _srmr(m)),
        _section("Goodness of Fit Index", _gfi(m, level)),
    )


def _section(title: str, rows: Rows) -> Section:
    """Both columns under their headings; rows without any value, such as undefined p-values, are left out."""
    shown = [row for row in rows if not (row[0].startswith("P-value") and _undefined(row))]
    return Section(
        title, tuple((name, (first, second)) for name, first, second in [HEADING, *shown]), WIDTH, COLUMN
    )


def _undefined(row: tuple[str, Single, Single]) -> bool:
    return all(x == "" or (isinstance(x, float) and math.isnan(x)) for x in row[1:])


def _test(m: Mapping[str, float], prefix: str, pvalue: str, correction: str) -> Rows:
    df, p = int(m[f"{prefix}df"]), f"{prefix}pvalue"
    rows: Rows = [
        ("Test statistic", m[f"{prefix}chisq"], m[f"{prefix}chisq_scaled"]),
        ("Degrees of freedom", df, df),
        (pvalue, m[p], m[f"{p}_scaled"]),
        ("Scaling correction factor", "", m[f"{prefix}chisq_scaling_factor"]),
    ]
    return [*rows, (f"  {correction}", "", "")] if correction else rows


def _incremental(m: Mapping[str, float]) -> Rows:
    cfi, tli = "Comparative Fit Index (CFI)", "Tucker-Lewis Index (TLI)"
    return [
        (cfi, m["cfi"], m["cfi_scaled"]),
        (tli, m["tli"], m["tli_scaled"]),
        ("", "", ""),
        (f"Robust {cfi}", "", m["cfi_robust"]),
        (f"Robust {tli}", "", m["tli_robust"]),
    ]


def _information(m: Mapping[str, float]) -> Rows:
    def both(name: str, key: str) -> tuple[str, Single, Single]:
        return name, m[key], m[key]

    rows: Rows = [
        both("Loglikelihood user model (H0)", "logl"),
        ("Scaling correction factor (H0)", "", m["scaling_factor_h0"]),
        both("Loglikelihood unrestricted model (H1)", "unrestricted_logl"),
        ("Scaling correction factor (H1)", "", m["scaling_factor_h1"]),
        ("", "", ""),
        both("Akaike (AIC)", "aic"),
        both("Bayesian (BIC)", "bic"),
        both("Sample-size adjusted Bayesian (SABIC)", "bic2"),
    ]
    return [*rows, both("Bayesian, clusters (BIC)", "bic_nclusters")] if "bic_nclusters" in m else rows


def _rmsea(m: Mapping[str, float], level: str) -> Rows:
    names = {
        "rmsea": "RMSEA",
        "rmsea_ci_lower": f"{level} - lower",
        "rmsea_ci_upper": f"{level} - upper",
        "rmsea_pvalue": f"P-value H_0: RMSEA <= {m['rmsea_close_h0']:.3f}",
        "rmsea_notclose_pvalue": f"P-value H_0: RMSEA >= {m['rmsea_notclose_h0']:.3f}",
    }
    rows: Rows = [(name, m[key], m[f"{key}_scaled"]) for key, name in names.items()]
    robust: Rows = [
        (name.replace("RMSEA", "Robust RMSEA"), "", m[f"{key}_robust"]) for key, name in names.items()
    ]
    return [*rows, ("", "", ""), *robust]


def _srmr(m: Mapping[str, float]) -> Rows:
    if "srmr_within" not in m:
        return [("SRMR", m["srmr"], m["srmr"])]
    return [
        (f"SRMR ({level} covariance matrix)", m[f"srmr_{level}"], m[f"srmr_{level}"])
        for level in ("within", "between")
    ]


def _gfi(m: Mapping[str, float], level: str) -> Rows:
    return [
        (name, m[key], m.get(f"{key}_robust", ""))
        for key, name in (
            ("gfi", "GFI (scaled: robust)"),
            ("gfi_ci_lower", f"{level} - lower"),
            ("gfi_ci_upper", f"{level} - upper"),
        )
    ]
