"""From a parameter table and a prepared sample to a fit, with what is to be said about it."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence

from msem.data.origin import Origin
from msem.data.reading import Prepared
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
from msem.estimation.sampling import Sampling, sampling_covariance
from msem.estimation.smallsamples import few_clusters
from msem.estimation.uls import fit_uls
from msem.fits.fit import Fit
from msem.fits.resampled import bootstrap_errors
from msem.model.partable import ParameterTable
from msem.resampling.bootstrap import Bootstrap
from msem.settings import Information, ResolvedSettings

WARNINGS: dict[str, type[Warning]] = {
    "not_converged": ConvergenceWarning,
    "saddle_point": ConvergenceWarning,
    "no_chi_square": ConvergenceWarning,
    "unidentified": IdentificationWarning,
    "improper": ImproperSolutionWarning,
    "boundary": ImproperSolutionWarning,
    "few_clusters": SmallSampleWarning,
}


def fit_table(
    table: ParameterTable,
    prepared: Sequence[Prepared],
    settings: ResolvedSettings,
    dropped_no_group: int = 0,
) -> Fit:
    """Fit a parameter table to a prepared sample, given for each group."""
    if settings.test != ("standard",) or settings.se == "robust":
        require_raw(prepared, settings)
    sample = Sample(tuple(group.sample() for group in prepared))
    most, tolerance = settings.max_iterations, settings.tolerance
    sampling: Sampling | None = None
    discrepancy: LevelDiscrepancy | None = None
    if settings.estimator == "ULS":
        found, discrepancy, sampling = fit_uls(table, sample, max_iterations=most, tolerance=tolerance)
    else:
        found = estimate(table, sample, max_iterations=most, tolerance=tolerance)
        require_feasible(found.objective, found.optimum)
    if discrepancy is None:
        # without standard errors the expected information still tells what is not identified
        robust = settings.se == "robust"
        kind: Information = "expected" if settings.se == "none" else settings.information
        clusters = sample.clusters if robust or kind == "first_order" else None
        sampling = sampling_covariance(
            found.objective, found.theta, kind, found.tangent, clusters, robust=robust
        )
    problems = find_problems(found.objective, found.optimum, sampling)
    replicates: Bootstrap | None = None
    if settings.se == "bootstrap" and sampling is not None:
        replicates, sampling = bootstrap_errors(found, sample, sampling, settings.bootstrap, settings.seed)
    if not sample.converged:
        problems = (*problems, no_chi_square(sample.unidentified))
    problems = (*problems, *few_clusters(table, sample.statistics))
    warn(problems)
    return Fit(
        found,
        sample,
        None if settings.se == "none" else sampling,
        problems,
        settings,
        origin_of(prepared, dropped_no_group),
        discrepancy,
        replicates,
    )


def require_raw(prepared: Sequence[Prepared], settings: ResolvedSettings) -> None:
    """Refuse robust inference without rows."""
    if any(group.known is None for group in prepared):
        what = "robust standard errors" if settings.se == "robust" else "scaled tests"
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


def origin_of(prepared: Sequence[Prepared], dropped_no_group: int) -> Origin:
    """Where the data of all groups come from, and what was left out of them."""
    rows = [group.known for group in prepared if group.known is not None]
    missing = Counter[str]()
    for data in rows:
        missing.update(data.dropped)
    return Origin(
        given_as=prepared[0].given_as,
        dropped_rows=sum(data.dropped_rows for data in rows),
        dropped_empty=sum(data.dropped_empty for data in rows),
        dropped_no_cluster=sum(data.dropped_no_cluster for data in rows),
        dropped_no_group=dropped_no_group,
        dropped=dict(missing),
    )


def warn(problems: Iterable[Problem], stacklevel: int = 5) -> None:
    """Warn of every problem once, at the line of the user that many calls up."""
    for problem in problems:
        warnings.warn(str(problem), WARNINGS[problem.name], stacklevel=stacklevel)
