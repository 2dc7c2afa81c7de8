"""From a parameter table and a prepared sample to a fit, with what is to be said about it."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict

import pandas as pd

from msem.data.reading import Means, Prepared
from msem.data.sample import Sample
from msem.errors import (
    ConvergenceWarning,
    DataError,
    IdentificationWarning,
    ImproperSolutionWarning,
    SmallSampleWarning,
)
from msem.estimation.discrepancy import LevelDiscrepancy
from msem.estimation.estimate import estimate
from msem.estimation.problems import Problem, find_problems, no_chi_square, require_feasible
from msem.estimation.sampling import Information, Sampling, sampling_covariance
from msem.estimation.smallsamples import few_clusters
from msem.estimation.uls import fit_uls
from msem.fits.choices import Choices, missing_choice
from msem.fits.fit import Fit
from msem.fits.options import Options
from msem.fits.resampled import bootstrap_errors
from msem.model.partable import ParameterTable
from msem.resampling.bootstrap import Bootstrap

WARNINGS: dict[str, type[Warning]] = {
    "not_converged": ConvergenceWarning,
    "saddle_point": ConvergenceWarning,
    "no_chi_square": ConvergenceWarning,
    "unidentified": IdentificationWarning,
    "improper": ImproperSolutionWarning,
    "boundary": ImproperSolutionWarning,
    "few_clusters": SmallSampleWarning,
}


class FitOptions(TypedDict, total=False):
    """Keyword options of `sem`, `cfa` and `growth`; see `sem`."""

    cluster: str | None
    group: str | None
    group_equal: Sequence[str]
    group_partial: Sequence[str]
    constraints: str | Sequence[str] | None
    sample_cov: pd.DataFrame | Mapping[str, pd.DataFrame] | None
    sample_mean: Means | Mapping[str, Means] | None
    sample_nobs: float | Mapping[str, float] | None
    sample_cov_rescale: bool
    missing: str
    auxiliary: Sequence[str]
    fixed_x: bool
    std_lv: bool
    orthogonal: bool
    meanstructure: bool | None
    estimator: str
    information: str | None
    se: str | None
    test: str | Sequence[str] | None
    bootstrap: int | None
    seed: int | None
    max_iterations: int
    tolerance: float


def fit_table(
    table: ParameterTable,
    prepared: Sequence[Prepared],
    choices: Choices,
    options: FitOptions,
    dropped_no_group: int = 0,
) -> Fit:
    """Fit a parameter table to a prepared sample, given for each group."""
    if choices.tests != ("standard",) or choices.se == "robust":
        require_raw(prepared, choices)
    sample = Sample(tuple(group.sample() for group in prepared))
    most, tolerance = options.get("max_iterations", 500), options.get("tolerance", 1e-12)
    sampling: Sampling | None = None
    discrepancy: LevelDiscrepancy | None = None
    if choices.estimator == "ULS":
        found, discrepancy, sampling = fit_uls(table, sample, max_iterations=most, tolerance=tolerance)
    else:
        found = estimate(table, sample, max_iterations=most, tolerance=tolerance)
        require_feasible(found.objective, found.optimum)
    if discrepancy is None:
        # without standard errors the expected information still tells what is not identified
        robust = choices.se == "robust"
        kind: Information = "expected" if choices.se == "none" else choices.information
        clusters = sample.clusters if robust or kind == "first_order" else None
        sampling = sampling_covariance(
            found.objective, found.theta, kind, found.tangent, clusters, robust=robust
        )
    problems = find_problems(found.objective, found.optimum, sampling)
    replicates: Bootstrap | None = None
    if choices.se == "bootstrap" and sampling is not None:
        replicates, sampling = bootstrap_errors(
            found, sample, sampling, options.get("bootstrap"), options.get("seed")
        )
    if not sample.converged:
        problems = (*problems, no_chi_square(sample.unidentified))
    problems = (*problems, *few_clusters(table, sample.statistics))
    warn(problems)
    used = Options(
        estimator=choices.estimator,
        information=choices.information,
        se=choices.se,
        tests=choices.tests,
        cluster=options.get("cluster") or "",
        group=options.get("group") or "",
        given_as=prepared[0].given_as,
        missing=missing_choice(options.get("missing", "listwise")),
        dropped_no_group=dropped_no_group,
        **dropped_rows(prepared),
    )
    return Fit(
        found, sample, None if choices.se == "none" else sampling, problems, used, discrepancy, replicates
    )


def require_raw(prepared: Sequence[Prepared], choices: Choices) -> None:
    """Refuse robust inference without rows."""
    if any(group.known is None for group in prepared):
        what = "robust standard errors" if choices.se == "robust" else "scaled tests"
        raise DataError(
            f"{what} need raw data: moments and statistics do not tell one cluster from another. Use "
            'estimator="ML", se="standard" and test="standard", or msem.segregated(..., gamma="robust") with moments '
            "that msem.saturated made from raw data"
        )
    if any(group.summary is not None and not group.summary.keeps_products for group in prepared):
        raise DataError(
            "robust standard errors and scaled tests need the statistics of the single clusters, which were not kept: "
            'summarize with keep_clusters=True, or ask for se="standard" and test="standard", which take the rows of a '
            "single-level model for independent"
        )


class Dropped(TypedDict):
    """Rows left out; see `Options`."""

    dropped_rows: int
    dropped_empty: int
    dropped_no_cluster: int
    dropped: Mapping[str, int]


def dropped_rows(prepared: Sequence[Prepared]) -> Dropped:
    """What was left out of the data of all groups."""
    rows = [group.known for group in prepared if group.known is not None]
    missing = Counter[str]()
    for data in rows:
        missing.update(data.dropped)
    return Dropped(
        dropped_rows=sum(data.dropped_rows for data in rows),
        dropped_empty=sum(data.dropped_empty for data in rows),
        dropped_no_cluster=sum(data.dropped_no_cluster for data in rows),
        dropped=dict(missing),
    )


def warn(problems: Iterable[Problem], stacklevel: int = 5) -> None:
    """Warn of every problem once, at the line of the user that many calls up."""
    for problem in problems:
        warnings.warn(str(problem), WARNINGS[problem.name], stacklevel=stacklevel)
