"""Which variant of a fit measure is shown under its name, and what a reader is told of it.

With a robust estimator chi-square is the scaled one; CFI, TLI, RMSEA and GFI are the robust ones (Brosseau-Liard &
Savalei, 2014; Savalei, 2018), which are defined with missing values too (Zhang & Savalei, 2022). Where there is no
robust variant, as with least squares, the scaled one stands in its place.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

VARIANTS = ("robust", "scaled")
LABELS = {
    "npar": "Parameters",
    "chisq": "Chi-square",
    "df": "df",
    "pvalue": "p",
    "chisq_scaling_factor": "Scaling factor",
    "baseline_chisq": "Baseline chi-square",
    "baseline_df": "Baseline df",
    "baseline_pvalue": "Baseline p",
    "baseline_chisq_scaling_factor": "Baseline scaling factor",
    "cfi": "CFI",
    "tli": "TLI",
    "nnfi": "NNFI",
    "rfi": "RFI",
    "nfi": "NFI",
    "pnfi": "PNFI",
    "ifi": "IFI",
    "rni": "RNI",
    "rmsea": "RMSEA",
    "rmsea_ci_lower": "RMSEA, lower limit",
    "rmsea_ci_upper": "RMSEA, upper limit",
    "rmsea_ci_level": "RMSEA, coverage of limits",
    "rmsea_pvalue": "RMSEA, p of close fit",
    "rmsea_notclose_pvalue": "RMSEA, p of not close fit",
    "srmr": "SRMR",
    "srmr_within": "SRMR within",
    "srmr_between": "SRMR between",
    "crmr": "CRMR",
    "rmr": "RMR",
    "gfi": "GFI",
    "gfi_ci_lower": "GFI, lower limit",
    "gfi_ci_upper": "GFI, upper limit",
    "mfi": "MFI",
    "ecvi": "ECVI",
    "logl": "Log-likelihood",
    "unrestricted_logl": "Log-likelihood, saturated",
    "scaling_factor_h0": "Scaling factor of the log-likelihood",
    "scaling_factor_h1": "Scaling factor of the log-likelihood, saturated",
    "aic": "AIC",
    "bic": "BIC",
    "bic2": "SABIC",
    "bic_nclusters": "BIC, clusters",
    "ntotal": "Units",
    "nclusters": "Clusters",
}


def reported(name: str, known: Container[str]) -> str:
    """The measure that is shown as `name`: its robust variant, its scaled one, or itself.

    Parameters
    ----------
    name : str
    known : container of str
        Measures that a fit has.
    """
    return next((key for key in (f"{name}_{kind}" for kind in VARIANTS) if key in known), name)


def variant_of(name: str) -> tuple[str, str]:
    """A measure without its variant, and that; "" if it is none."""
    for kind in VARIANTS:
        if name.endswith(f"_{kind}"):
            return name.removesuffix(f"_{kind}"), kind
    return name, ""


def measure_label(name: str) -> str:
    """Name of a measure for readers, with its variant."""
    bare, kind = variant_of(name)
    label = LABELS.get(bare)
    if bare.startswith("srmr_l") and bare.removeprefix("srmr_l").isdigit():
        label = f"SRMR level {bare.removeprefix('srmr_l')}"
    if label is None:
        return name
    return f"{label} ({kind})" if kind else label


def variants_note(shown: Iterable[str]) -> str:
    """What of the measures that are shown is scaled or robust: "chi-square is scaled, CFI and RMSEA are robust"; or "".

    Parameters
    ----------
    shown : iterable of str
        Names of measures, such as `reported` gives them.
    """
    said = []
    for kind in ("scaled", "robust"):
        bare = [name for name, own in map(variant_of, shown) if own == kind]
        # df, p-values and limits are those of the test and index that they belong to
        names = [
            n
            for n in bare
            if n not in ("df", "baseline_df") and not n.endswith(("_lower", "_upper", "pvalue"))
        ]
        names = names or [n for n in bare if n not in ("df", "baseline_df")]
        labels = list(dict.fromkeys("chi-square" if n == "chisq" else measure_label(n) for n in names))
        if labels:
            listed = " and ".join([", ".join(labels[:-1]), labels[-1]] if len(labels) > 1 else labels)
            said.append(f"{listed} {'are' if len(labels) > 1 else 'is'} {kind}")
    return ", ".join(said)
