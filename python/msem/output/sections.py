"""Titled lists of names and values of a summary: sample, tests and fit measures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from msem.output.variants import reported, variant_of

Value = float | int | str | tuple[float | int | str, ...]
Pairs = tuple[tuple[str, Value], ...]

WIDTH = 54  # of a list: as wide as a table of four columns
COLUMN = 10  # of one of several values
Single = float | int | str
Rows = list[tuple[str, Single, Single]]
HEADING = ("", "Standard", "Scaled")
LEFT_OUT = ("P-value", "Bayesian", "Sample-size adjusted Bayesian")  # where they are not defined
SCALED_COLUMN = 12
SCALED_WIDTH = WIDTH + SCALED_COLUMN


@dataclass(frozen=True, slots=True)
class Section:
    """A titled list of names and values; the pair ("", "") is an empty line.

    Parameters
    ----------
    title : str
        May be empty.
    rows : tuple of (str, float or int or str, or a tuple of these)
        Floats are shown with three decimals; a tuple has a column for each element.
    width, column : int
        Of the lines of a text, and of one of several values in them.
    """

    title: str
    rows: Pairs
    width: int = WIDTH
    column: int = COLUMN


def number(value: Value, column: int = COLUMN) -> str:
    """Format a value: floats with three decimals, several values in columns."""
    if isinstance(value, tuple):
        return "".join(f"{cell:>{column}}" for cell in cells(value))
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def cells(value: Value) -> tuple[str, ...]:
    """A value, or each of several, as text."""
    return tuple(map(number, value)) if isinstance(value, tuple) else (number(value),)


def sample_section(
    *,
    nobs: float,
    nclusters: float | None = None,
    groups: Mapping[str, tuple[float, float | None]] | None = None,
    cluster: str = "",
    inner: Mapping[str, float] | None = None,
    given_as: str = "",
    patterns: Mapping[str, int] | None = None,
    dropped_rows: int = 0,
    dropped_empty: int = 0,
    dropped_no_cluster: int = 0,
    dropped_no_group: int = 0,
    dropped_zero: int = 0,
    nrows: int = 0,
    survey: Pairs = (),
) -> Section:
    """Describe the sample.

    Parameters
    ----------
    nobs, nclusters : float
        Units and clusters used.
    groups : mapping of str to (float, float or None), optional
        Units and clusters of each group.
    cluster : str
        Name of the cluster variable.
    inner : mapping of str to float
        Number of clusters within clusters by their variable, the highest first.
    given_as : str
        How the moments were given: raw data, moments with cluster sizes, moments with N and J only.
    patterns : mapping of str to int, optional
        Numbers of patterns of missing values, by the level they are at.
    dropped_rows, dropped_empty, dropped_no_cluster, dropped_no_group : int
        Rows left out because a variable, all variables, the cluster, or the group is missing.
    dropped_zero : int
        Rows left out because their weight is zero.
    nrows : int
        Rows of the data as given, shown if some were left out; 0 where that is not known.
    survey : tuple of (str, value)
        Weights, primary sampling units and strata.
    """
    name = f"Number of clusters [{cluster}]" if cluster else "Number of clusters"
    if groups:
        rows: list[tuple[str, Value]] = [("Number of observations per group:", "")]
        rows += [(f"  {label}", _count(units)) for label, (units, _) in groups.items()]
        rows += [(f"{name}:", "")] if nclusters is not None else []
        rows += [(f"  {label}", _count(n)) for label, (_, n) in groups.items() if n is not None]
    else:
        rows = [("Number of observations", _count(nobs))]
        rows += [(name, _count(nclusters))] if nclusters is not None else []
        rows += [(f"Number of clusters [{column}]", _count(count)) for column, count in (inner or {}).items()]
    rows += [(f"Number of missing patterns{level}", count) for level, count in (patterns or {}).items()]
    if nrows and (dropped_rows or dropped_empty or dropped_no_cluster or dropped_no_group or dropped_zero):
        rows.append(("Rows in the data", nrows))
    if dropped_empty:
        rows.append(("Rows dropped: nothing observed", dropped_empty))
    if dropped_rows:
        rows.append(("Rows dropped: missing values", dropped_rows))
    if dropped_no_cluster:
        rows.append(("Rows dropped: no cluster", dropped_no_cluster))
    if dropped_no_group:
        rows.append(("Rows dropped: no group", dropped_no_group))
    if dropped_zero:
        rows.append(("Rows dropped: weight of zero", dropped_zero))
    rows += survey
    if given_as:
        rows.append(("Sample given as", given_as))
    return Section("", tuple(rows))


def _count(value: float) -> Single:
    """A number of units; those that moments stand for are sums of many parts, and whole but for rounding."""
    if not math.isfinite(value):
        return value
    return round(value) if math.isclose(value, round(value), rel_tol=1e-9) else value


def fit_sections(m: Mapping[str, float], *, full: bool = False) -> tuple[Section, ...]:
    """Arrange fit measures in lavaan's order of sections.

    Parameters
    ----------
    m : mapping of str to float
        Fit measures by name.
    full : bool
        All sections instead of the chi-square test only, but for those without any number: least squares have no
        likelihood, for instance.
    """
    test = Section("Model Test User Model", _test(m, "", "P-value (Chi-square)"))
    if not full:
        return (test,)
    level = f"{100 * m['rmsea_ci_level']:g} Percent confidence interval"
    sections = (
        test,
        Section("Model Test Baseline Model", _test(m, "baseline_", "P-value")),
        Section(
            "User Model versus Baseline Model",
            _single_incremental(m),
        ),
        Section("Loglikelihood and Information Criteria", _information(m)),
        Section("Root Mean Square Error of Approximation", _rmsea(m, level)),
        Section("Standardized Root Mean Square Residual", _srmr(m)),
        Section(
            "Goodness of Fit Index",
            (
                ("GFI", m["gfi"]),
                (f"{level} - lower", m["gfi_ci_lower"]),
                (f"{level} - upper", m["gfi_ci_upper"]),
            ),
        ),
    )
    return tuple(section for section in sections if section is test or _has_number(section))


def _has_number(section: Section) -> bool:
    values = (cell for _, value in section.rows for cell in (value if isinstance(value, tuple) else (value,)))
    return any(isinstance(cell, int | float) and not math.isnan(cell) for cell in values)


def _test(m: Mapping[str, float], prefix: str, pvalue: str) -> Pairs:
    if not prefix and math.isnan(m["chisq"]):  # why is said below, or by a warning
        return (("None: there is nothing to test against", ""),)
    rows: Pairs = (
        ("Test statistic", m[f"{prefix}chisq"]),
        ("Degrees of freedom", _count(m[f"{prefix}df"])),
        (pvalue, m[f"{prefix}pvalue"]),
    )
    return _defined(rows)


def _defined(rows: Pairs) -> Pairs:
    """Leave out p-values that do not exist: there is no test without degrees of freedom."""
    return tuple(
        (name, value)
        for name, value in rows
        if not (name.startswith("P-value") and isinstance(value, float) and math.isnan(value))
    )


def _information(m: Mapping[str, float]) -> Pairs:
    rows: Pairs = (
        ("Loglikelihood user model (H0)", m["logl"]),
        *(
            (("Loglikelihood unrestricted model (H1)", h1),)
            if not math.isnan(h1 := m["unrestricted_logl"])
            else ()
        ),
        ("", ""),
        ("Akaike (AIC)", m["aic"]),
        ("Bayesian (BIC)", m["bic"]),
        ("Sample-size adjusted Bayesian (SABIC)", m["bic2"]),
    )
    return (*rows, ("Bayesian, clusters (BIC)", m["bic_nclusters"])) if "bic_nclusters" in m else rows


def _single_incremental(m: Mapping[str, float]) -> Pairs:
    """CFI and TLI, and with holes the robust ones, which estimate those of complete data."""
    names = {"cfi": "Comparative Fit Index (CFI)", "tli": "Tucker-Lewis Index (TLI)"}
    rows: Pairs = tuple((name, m[key]) for key, name in names.items())
    if "cfi_robust" not in m:
        return rows
    return (*rows, ("", ""), *((f"Robust {name}", m[f"{key}_robust"]) for key, name in names.items()))


def _rmsea_names(m: Mapping[str, float], level: str) -> dict[str, str]:
    return {
        "rmsea": "RMSEA",
        "rmsea_ci_lower": f"{level} - lower",
        "rmsea_ci_upper": f"{level} - upper",
        "rmsea_pvalue": f"P-value H_0: RMSEA <= {m['rmsea_close_h0']:.3f}",
        "rmsea_notclose_pvalue": f"P-value H_0: RMSEA >= {m['rmsea_notclose_h0']:.3f}",
    }


def _rmsea(m: Mapping[str, float], level: str) -> Pairs:
    names = _rmsea_names(m, level)
    rows = _defined(tuple((name, m[key]) for key, name in names.items()))
    if "rmsea_robust" not in m:
        return rows
    robust = tuple((name.replace("RMSEA", "Robust RMSEA"), m[f"{key}_robust"]) for key, name in names.items())
    return (*rows, ("", ""), *_defined(robust))


def _srmr(m: Mapping[str, float]) -> Pairs:
    levels = _srmr_of_levels(m)
    if not levels:
        return (("SRMR", m["srmr"]),) if "srmr" in m else ()
    return tuple((name, m[key]) for name, key in levels.items())


def _srmr_of_levels(m: Mapping[str, float]) -> dict[str, str]:
    """Names of the SRMR of each level, and under which they are found; none for a single level."""
    two = {f"SRMR ({level} covariance matrix)": f"srmr_{level}" for level in ("within", "between")}
    own = [key for key in m if key.startswith("srmr_l")]
    more = {f"SRMR (covariance matrix of level {key.removeprefix('srmr_l')})": key for key in own}
    return {name: key for name, key in (two | more).items() if key in m}


def level_section(measures: Mapping[str, Mapping[str, float]], *, note: str = "") -> Section:
    """Fit measures of each level side by side.

    Parameters
    ----------
    measures : mapping from heading to mapping of str to float
        Fit measures by name; empty where they are not defined.
    note : str
        Shown below them.
    """
    title = "Level-specific Fit Measures (other level saturated)"
    if not measures:
        return Section(title, ((note, ""),))
    first = next(iter(measures.values()))
    _, variant = variant_of(reported("cfi", first))
    wanted = _level_rows(f"{100 * first['rmsea_ci_level']:g}% CI of", variant, scaled="chisq_scaled" in first)
    rows = [
        (name, tuple([_cell(one[key], key) for one in measures.values()])) for name, key in wanted.items()
    ]
    below: Pairs = ((note, ""),) if note else ()
    return Section(title, (("Level", tuple(measures)), *rows, *below))


def _level_rows(interval: str, variant: str, *, scaled: bool) -> dict[str, str]:
    """Names of rows and of the measures in them; of a variant of these if there is one."""
    test = {"Test statistic": "chisq", "Degrees of freedom": "df", "P-value (Chi-square)": "pvalue"}
    if scaled:
        test |= {
            "Scaled test statistic": "chisq_scaled",
            "P-value (scaled)": "pvalue_scaled",
            "Scaling correction factor": "chisq_scaling_factor",
        }
    what, end = (f"{variant.capitalize()} ", f"_{variant}") if variant else ("", "")
    return test | {
        f"{what}CFI" if variant else "Comparative Fit Index (CFI)": f"cfi{end}",
        f"{what}TLI" if variant else "Tucker-Lewis Index (TLI)": f"tli{end}",
        f"{what}RMSEA": f"rmsea{end}",
        f"{interval} {what}RMSEA - lower": f"rmsea_ci_lower{end}",
        f"{interval} {what}RMSEA - upper": f"rmsea_ci_upper{end}",
        "SRMR": "srmr",
    }


def _cell(value: float, name: str) -> float | int | str:
    return "" if math.isnan(value) else round(value) if name == "df" else float(value)


def scaled_sections(m: Mapping[str, float], correction: str, *, full: bool) -> tuple[Section, ...]:
    """Arrange fit measures in lavaan's order of sections.

    Parameters
    ----------
    m : mapping of str to float
        Fit measures by name, with those of a scaled test.
    correction : str
        Name of the scaling.
    full : bool
        All sections instead of the chi-square test only.
    """
    title, pvalue = "Model Test User Model", "P-value (Chi-square)"
    test = _scaled_section(title, _scaled_test(m, "", pvalue, correction))
    if math.isnan(m["chisq"]) and math.isnan(m["chisq_scaled"]):
        test = Section(title, _test(m, "", pvalue))
    if not full:
        return (test,)
    level = f"{100 * m['rmsea_ci_level']:g} Percent confidence interval"
    sections = (
        test,
        _scaled_section("Model Test Baseline Model", _scaled_test(m, "baseline_", "P-value", "")),
        _scaled_section("User Model versus Baseline Model", _incremental(m)),
        _scaled_section("Loglikelihood and Information Criteria", _scaled_information(m)),
        _scaled_section("Root Mean Square Error of Approximation", _scaled_rmsea(m, level)),
        _scaled_section("Standardized Root Mean Square Residual", _scaled_srmr(m)),
        _scaled_section("Goodness of Fit Index", _scaled_gfi(m, level)),
    )
    return tuple(section for section in sections if section is test or _has_number(section))


def _scaled_section(title: str, rows: Rows) -> Section:
    """Both columns under their headings; rows without any value, such as undefined p-values, are left out."""
    shown = [row for row in rows if not (row[0].startswith(LEFT_OUT) and _scaled_undefined(row))]
    return Section(
        title,
        tuple((name, (_where_defined(first, second), second)) for name, first, second in [HEADING, *shown]),
        SCALED_WIDTH,
        SCALED_COLUMN,
    )


def _where_defined(first: Single, second: Single) -> Single:
    """An unscaled value; nothing where only the scaled one is defined, as with weights."""
    if isinstance(first, float) and isinstance(second, float) and math.isnan(first) > math.isnan(second):
        return ""
    return first


def _scaled_undefined(row: tuple[str, Single, Single]) -> bool:
    return all(x == "" or (isinstance(x, float) and math.isnan(x)) for x in row[1:])


def _scaled_test(m: Mapping[str, float], prefix: str, pvalue: str, correction: str) -> Rows:
    df, p = _count(m[f"{prefix}df"]), f"{prefix}pvalue"
    rows: Rows = [
        ("Test statistic", m[f"{prefix}chisq"], m[f"{prefix}chisq_scaled"]),
        ("Degrees of freedom", df, _count(m[f"{prefix}df_scaled"])),
        (pvalue, m[p], m[f"{p}_scaled"]),
    ]
    if not df:  # nothing is tested, and nothing scaled
        return rows
    rows.append(("Scaling correction factor", "", m[f"{prefix}chisq_scaling_factor"]))
    return [*rows, (f"  {correction}", "", "")] if correction else rows


def _incremental(m: Mapping[str, float]) -> Rows:
    cfi, tli = "Comparative Fit Index (CFI)", "Tucker-Lewis Index (TLI)"
    rows: Rows = [(cfi, m["cfi"], m["cfi_scaled"]), (tli, m["tli"], m["tli_scaled"])]
    if "cfi_robust" not in m:
        return rows
    return [
        *rows,
        ("", "", ""),
        (f"Robust {cfi}", "", m["cfi_robust"]),
        (f"Robust {tli}", "", m["tli_robust"]),
    ]


def _scaled_information(m: Mapping[str, float]) -> Rows:
    def both(name: str, key: str) -> tuple[str, Single, Single]:
        return name, m[key], m[key]

    rows: Rows = [
        both("Loglikelihood user model (H0)", "logl"),
        ("Scaling correction factor (H0)", "", m.get("scaling_factor_h0", math.nan)),
        both("Loglikelihood unrestricted model (H1)", "unrestricted_logl"),
        ("Scaling correction factor (H1)", "", m.get("scaling_factor_h1", math.nan)),
        ("", "", ""),
        both("Akaike (AIC)", "aic"),
        both("Bayesian (BIC)", "bic"),
        both("Sample-size adjusted Bayesian (SABIC)", "bic2"),
    ]
    return [*rows, both("Bayesian, clusters (BIC)", "bic_nclusters")] if "bic_nclusters" in m else rows


def _scaled_rmsea(m: Mapping[str, float], level: str) -> Rows:
    names = _rmsea_names(m, level)
    rows: Rows = [(name, m[key], m[f"{key}_scaled"]) for key, name in names.items()]
    if "rmsea_robust" not in m:
        return rows
    robust: Rows = [
        (name.replace("RMSEA", "Robust RMSEA"), "", m[f"{key}_robust"]) for key, name in names.items()
    ]
    return [*rows, ("", "", ""), *robust]


def _scaled_srmr(m: Mapping[str, float]) -> Rows:
    levels = _srmr_of_levels(m) or {"SRMR": "srmr"}
    return [(name, m[key], m[key]) for name, key in levels.items()]


def _scaled_gfi(m: Mapping[str, float], level: str) -> Rows:
    return [
        (name, m[key], m.get(f"{key}_robust", ""))
        for key, name in (
            ("gfi", "GFI (scaled: robust)"),
            ("gfi_ci_lower", f"{level} - lower"),
            ("gfi_ci_upper", f"{level} - upper"),
        )
    ]
