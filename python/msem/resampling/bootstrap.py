"""The cluster bootstrap, by resampling clusters or by drawing samples from the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem import _core
from msem.data.sample import Sample, require_simple
from msem.entry import entries
from msem.errors import DataWarning, MsemError, warn
from msem.estimation.discrepancy import LevelDiscrepancy
from msem.estimation.estimate import Estimate, require_converged
from msem.estimation.sampling import Sampling
from msem.estimation.solution import Solution
from msem.resampling.intervals import KINDS, IntervalKind, interval
from msem.resampling.jackknife import Jackknife, draw_jackknife
from msem.resampling.progress import Progress
from msem.resampling.refits import Source, refit
from msem.resampling.replicates import (
    ReplicateSource,
    ordinary_origin,
    parametric_origin,
)
from msem.resampling.reports import as_html, as_text, describe, require_enough, warn_of_failures
from msem.resampling.row_replicates import row_source
from msem.resampling.targets import (
    OfTarget,
    Statistic,
    Target,
    labelled_frame,
    named_target,
    target_of,
    target_values,
)
from msem.resampling.workers import Client, require_client
from msem.settings import require_seed, require_threads, require_whole

Floats = NDArray[np.float64]
BootstrapKind = Literal["ordinary", "parametric"]


@entries
@dataclass(frozen=True, eq=False)
class Bootstrap(OfTarget):
    """Replicates of a statistic; immutable.

    Attributes
    ----------
    kind : {"ordinary", "parametric"}
    seed : int
        With it the same replicates can be drawn again, with any number of threads.
    replicates : int
        How many were drawn.
    target : Target
        What is resampled, with its names and its values in the sample.
    array : ndarray, shape (R, k)
        In the replicates that could be used.
    numbers : ndarray of int, shape (R,)
        Which replicates these are.
    failures : mapping of str to int
        Replicates that failed, by reason.
    chisq : Series
        Chi-square against the saturated model in each replicate, nan where that has no maximum. In a parametric
        bootstrap this is its distribution when the model is true; in an ordinary one it is not.
    make_jackknife : callable
        Makes the jackknife that BCa intervals need.
    """

    kind: BootstrapKind
    seed: int
    replicates: int
    target: Target
    array: Floats
    numbers: NDArray[np.intp]
    failures: Mapping[str, int]
    chisq: pd.Series
    make_jackknife: Callable[[], Jackknife] = field(repr=False)

    @property
    def estimates(self) -> pd.DataFrame:
        """Values in the replicates that could be used: index replicate, columns the statistics."""
        index = pd.Index(self.numbers, name="replicate")
        return pd.DataFrame(self.array, index=index, columns=list(self.names))

    @property
    def bse(self) -> pd.Series:
        """Bootstrap standard errors: standard deviations of the replicates."""
        return pd.Series(self.array.std(axis=0, ddof=1), index=list(self.names), name="se")

    @property
    def bias(self) -> pd.Series:
        """Bootstrap estimates of bias: means of the replicates less the estimates."""
        return pd.Series(self.array.mean(axis=0) - self.point, index=list(self.names), name="bias")

    def cov_params(self) -> pd.DataFrame:
        """Covariance matrix of the replicates."""
        cov = np.atleast_2d(np.cov(self.array, rowvar=False))
        return pd.DataFrame(cov, index=list(self.names), columns=list(self.names))

    @cached_property
    def jackknife(self) -> Jackknife:
        """The jackknife of the same statistic, computed when it is first asked for."""
        return self.make_jackknife()

    def conf_int(self, *, kind: IntervalKind = "percentile", ci_level: float = 0.95) -> pd.DataFrame:
        """Bootstrap confidence intervals.

        Parameters
        ----------
        kind : {"percentile", "basic", "normal", "bca"}
            Quantiles of the replicates; these reflected at the estimate; estimate less bias with normal quantiles
            (Davison & Hinkley, 1997, chapter 5); quantiles corrected for bias and acceleration (Efron, 1987), the
            acceleration from the jackknife over clusters.
        ci_level : float
            Coverage.

        Returns
        -------
        DataFrame
            Columns ci_lower, ci_upper; a row for each statistic.

        Raises
        ------
        ValueError
            If the kind is unknown, or "bca" of a parametric bootstrap.

        Warns
        -----
        DataWarning
            If there are too few replicates for the quantiles of the level.
        """
        if kind not in KINDS:
            raise MsemError(f"kind must be one of {', '.join(map(repr, KINDS))}, not {kind!r}")
        if kind == "bca" and self.kind == "parametric":
            raise MsemError(
                "the acceleration of a 'bca' interval comes from the observed clusters; of a parametric bootstrap "
                "ask for 'percentile', 'basic' or 'normal'"
            )
        constants = self.jackknife.acceleration if kind == "bca" else None
        lower, upper, extreme = interval(kind, ci_level, self.point, self.array, constants)
        if extreme.any():
            names = ", ".join(name for name, bad in zip(self.names, extreme, strict=True) if bad)
            warn(
                f"{len(self.array)} replicates are too few for {kind} intervals of level {ci_level:g}: a limit is the "
                f"outermost replicate for {names}. Draw more",
                DataWarning,
            )
        return pd.DataFrame({"ci_lower": lower, "ci_upper": upper}, index=list(self.names))

    def to_frame(self, *, kind: IntervalKind = "percentile", ci_level: float = 0.95) -> pd.DataFrame:
        """A row for each statistic: name, level, group, est, bias, se, ci_lower, ci_upper."""
        limits = self.conf_int(kind=kind, ci_level=ci_level)
        columns = {
            "est": self.point,
            "bias": self.bias.to_numpy(),
            "se": self.bse.to_numpy(),
            "ci_lower": limits["ci_lower"].to_numpy(),
            "ci_upper": limits["ci_upper"].to_numpy(),
        }
        return labelled_frame(self.target, columns)

    def _heading(self, kind: str, ci_level: float) -> list[str]:
        failed = describe(self.failures)
        return [
            f"{self.kind.capitalize()} bootstrap, seed {self.seed}: {len(self.array)} of {self.replicates} replicates",
            *([f"Failed: {failed}"] if failed else []),
            f"Intervals: {kind}, level {ci_level:g}",
        ]

    def summary(self, *, kind: IntervalKind = "percentile", ci_level: float = 0.95) -> str:
        """Text: how the replicates were made, and the table of `to_frame`."""
        return "\n".join(
            [*self._heading(kind, ci_level), "", as_text(self.to_frame(kind=kind, ci_level=ci_level))]
        )

    def __str__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        lines = "<br>".join(self._heading("percentile", 0.95))
        return f"<p>{lines}</p>{as_html(self.to_frame())}"

    def __repr__(self) -> str:
        return (
            f"<msem.Bootstrap: {self.kind}, {len(self.array)} of {self.replicates} replicates of "
            f"{len(self.names)} statistics, seed {self.seed}>"
        )


def draw_bootstrap(
    estimate: Estimate,
    sample: Sample,
    target: Target,
    make_jackknife: Callable[[], Jackknife],
    *,
    kind: BootstrapKind,
    replicates: int,
    seed: int,
    threads: int,
    show: bool = False,
    client: Client | None = None,
    discrepancy: LevelDiscrepancy | None = None,
) -> Bootstrap:
    """Draw replicates of a sample and refit the model to each.

    Parameters
    ----------
    estimate : Estimate
    sample : Sample
    target : Target
    make_jackknife : callable
    kind : {"ordinary", "parametric"}
        Clusters of each group with replacement (rows for a single level), or samples from the model at the
        estimates, given cluster sizes and fixed covariates.
    replicates, seed, threads : int
    show : bool
        Show progress.
    client : Client, optional
        Makes the refits.
    discrepancy : LevelDiscrepancy, optional
        Of fits by least squares.

    Raises
    ------
    DataError
        If the sample cannot be resampled, or hardly any refit converges.
    """
    if kind not in get_args(BootstrapKind):
        raise MsemError(f"kind must be 'ordinary' or 'parametric', not {kind!r}")
    require_converged(estimate, "bootstraps")
    require_simple(sample, "bootstraps", "use the standard errors of the fit")
    source: Source
    if estimate.table.ordered.thresholds or discrepancy is not None:
        source = row_source(estimate, sample, discrepancy, seed, parametric=kind == "parametric")
    else:
        make = ordinary_origin if kind == "ordinary" else parametric_origin
        source = ReplicateSource(estimate, sample, make(estimate, sample, seed))
    with _core.ThreadLimit(threads), Progress("bootstrap", replicates, show) as progress:
        refits = refit(source, replicates, threads, progress, client)
        found = target_values(target, refits, source, progress)
    require_enough(len(found.values), found.failed)
    warn_of_failures("bootstrap", replicates, found.failed)
    chisq = pd.Series(
        (refits.value - refits.saturated)[found.numbers],
        index=pd.Index(found.numbers, name="replicate"),
        name="chisq",
    )
    return Bootstrap(
        kind,
        seed,
        replicates,
        target,
        found.values,
        found.numbers,
        found.failed,
        chisq,
        make_jackknife,
    )


def bootstrap(
    fit: Solution,
    replicates: int = 1000,
    *,
    kind: BootstrapKind = "ordinary",
    statistic: Statistic | None = None,
    seed: int | None = None,
    threads: int | None = None,
    progress: bool = True,
    client: Client | None = None,
) -> Bootstrap:
    """Bootstrap the clusters, the independent units of a two-level sample.

    Replicates are made of the sufficient statistics of the clusters, and refitted from the estimates in compiled
    threads. With several groups the clusters are drawn within groups; of a single-level sample the rows are drawn.
    Models of ordered variables are fitted to the rows of the drawn clusters, or to drawn rows, first stage included,
    and so are fits by least squares.

    Parameters
    ----------
    replicates : int
    kind : {"ordinary", "parametric"}
        ``ordinary`` draws clusters with replacement. ``parametric`` draws normal samples from the model at the
        estimates, given cluster sizes and fixed covariates; a covariate at both levels is drawn too.
    statistic : str, sequence of str, or callable, optional
        Parameters by name; functions of them such as ``"a*b"``, as in definitions; or a function of a fit that
        returns a number, an array or a Series, called with the fit of each replicate. That has estimates and
        moments, and the tests and fit measures of ML or of least squares, but no standard errors. Default: all
        parameters and definitions.
    seed : int, optional
        From 0 to 2**64 - 1. Results are the same for the same seed, whatever the number of threads. Default: at
        random; the result knows it.
    threads : int, optional
        Default: one for each processor.
    progress : bool
        Show a bar on the standard error stream when it takes more than a second.
    client : optional
        Makes the refits in batches: a `distributed.Client`, or an executor such as
        `concurrent.futures.ProcessPoolExecutor`. Results are the same. `threads` is then of each batch, by default
        1; a function `statistic` is evaluated here.

    Returns
    -------
    Bootstrap

    Raises
    ------
    DataError
        Without raw data (ordinary), with one cluster in a group, or when hardly any refit converges.
    ModelError
        If the fit has not converged.
    UnsupportedError
        With weights or a complex design.

    Warns
    -----
    ConvergenceWarning
        If more than one in a hundred replicates fail; they are counted by reason in `Bootstrap.failed`.

    References
    ----------
    Davison & Hinkley (1997). Bootstrap methods and their application.
    Efron (1987). Better bootstrap confidence intervals. JASA, 82, 171-185.
    """
    count, number = require_whole("replicates", replicates, 2), require_seed(seed)
    require_client(client)
    workers = require_threads(threads)
    target = target_of(fit, statistic)
    return draw_bootstrap(
        fit.estimate,
        fit.sample,
        target,
        partial(
            draw_jackknife,
            fit.estimate,
            fit.sample,
            target,
            threads=workers,
            show=progress,
            discrepancy=fit.discrepancy,
        ),
        kind=kind,
        replicates=count,
        seed=number,
        threads=workers if client is None else threads or 1,
        show=progress,
        client=client,
        discrepancy=fit.discrepancy,
    )


def bootstrap_errors(
    estimate: Estimate,
    sample: Sample,
    sampling: Sampling,
    replicates: int,
    seed: int,
    discrepancy: LevelDiscrepancy | None = None,
) -> tuple[Bootstrap | None, Sampling]:
    """Sampling covariance from an ordinary bootstrap of all parameters and definitions, and its replicates.

    Without a converged fit there are no replicates, and no standard errors. Replicates of fits of ordered variables by
    least squares take its `discrepancy`.
    """
    threads = require_threads(None)
    if not estimate.optimum.converged:
        return None, replace(sampling, vcov=np.full_like(sampling.vcov, np.nan))
    target = named_target(estimate)
    drawn = draw_bootstrap(
        estimate,
        sample,
        target,
        partial(draw_jackknife, estimate, sample, target, threads=threads, discrepancy=discrepancy),
        kind="ordinary",
        replicates=replicates,
        seed=seed,
        threads=threads,
        show=True,
        discrepancy=discrepancy,
    )
    npar = estimate.table.npar
    return drawn, replace(sampling, vcov=drawn.cov_params().to_numpy()[:npar, :npar])
