"""The sections of a summary from the values of a fit."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from msem.checks import Problem
from msem.options import Options
from msem.sections import Section, sample_section

INFORMATION = {"observed": "Observed", "expected": "Expected", "first_order": "First order (outer product)"}
LEVEL_NAMES = {1: "within", 2: "between"}


def title(converged: bool, iterations: int) -> str:
    """First line of a summary."""
    how = f"ended normally after {iterations} iterations" if converged else "did NOT converge"
    return f"msem {version('msem')} {how}"


def messages(problems: Sequence[Problem], options: Options) -> tuple[str, ...]:
    """Warnings, the most serious first, and what was left out of the data."""
    out = [f"Warning: {problem}" for problem in problems]
    if options.dropped:
        counts = ", ".join(f"{name} {count}" for name, count in options.dropped.items())
        out.append(f"Note: rows with missing values were deleted listwise; missing by variable: {counts}")
    return tuple(out)


def header(options: Options, npar: int, nobs: float, nclusters: float | None) -> tuple[Section, ...]:
    """Estimator and sample."""
    method = Section(
        "",
        (
            ("Estimator", options.estimator),
            ("Optimization method", "Fisher scoring"),
            ("Number of model parameters", npar),
        ),
    )
    sample = sample_section(
        nobs=nobs,
        nclusters=nclusters,
        cluster=options.cluster,
        given_as=options.given_as,
        dropped_rows=options.dropped_rows,
        dropped_no_cluster=options.dropped_no_cluster,
    )
    return method, sample


def method_rows(options: Options) -> tuple[tuple[str, str], ...]:
    """How the standard errors were computed."""
    if options.se == "none":
        return (("Standard errors", "none"),)
    return (("Standard errors", "Standard"), ("Information", INFORMATION[options.information]))
