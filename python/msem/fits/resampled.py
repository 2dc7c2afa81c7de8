"""Bootstrap and jackknife of a fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from msem.data.sample import Sample
from msem.estimation.estimate import Estimate
from msem.estimation.sampling import Sampling
from msem.fits.solution import Solution
from msem.resampling.bootstrap import Bootstrap, BootstrapKind, bootstrap
from msem.resampling.jackknife import Jackknife, jackknife
from msem.resampling.named import require_names
from msem.resampling.targets import Target, function_target, named_target
from msem.resampling.workers import Client, require_client
from msem.settings import require_seed, require_threads, require_whole

Statistic = str | Sequence[str] | Callable[[Any], Any]


class Resampled(Solution):
    """Methods of a fit that draw its sample again."""

    def bootstrap(
        self,
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

        Parameters
        ----------
        replicates : int
        kind : {"ordinary", "parametric"}
            ``ordinary`` draws clusters with replacement. ``parametric`` draws normal samples from the model at the
            estimates, given cluster sizes and fixed covariates; a covariate at both levels is drawn too.
        statistic : str, sequence of str, or callable, optional
            Parameters by name; functions of them such as ``"a*b"``, as in definitions; or a function of a fit that
            returns a number, an array or a Series, called with the fit of each replicate. That has estimates and
            moments, and the tests and fit measures of ML, but no standard errors and no rows of data. Default: all
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
            If the fit is not by maximum likelihood.

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
        target = self._target(statistic)
        return bootstrap(
            self.estimate,
            self.sample,
            target,
            partial(jackknife, self.estimate, self.sample, target, threads=workers, show=progress),
            kind=kind,
            replicates=count,
            seed=number,
            threads=workers if client is None else threads or 1,
            show=progress,
            client=client,
        )

    def jackknife(
        self, *, statistic: Statistic | None = None, threads: int | None = None, progress: bool = True
    ) -> Jackknife:
        """Refit without each cluster in turn: exact leave-one-out values, bias and standard errors.

        Of a single-level sample the rows are left out. Parameters and errors are those of `bootstrap`.

        Returns
        -------
        Jackknife
        """
        workers = require_threads(threads)
        return jackknife(self.estimate, self.sample, self._target(statistic), threads=workers, show=progress)

    def _target(self, statistic: Statistic | None) -> Target:
        if statistic is None:
            return named_target(self.estimate)
        if not callable(statistic):
            return named_target(self.estimate, require_names(statistic))

        # replicates have no single clusters, which robust errors and scaled tests need
        plain = replace(self.options, se="none", test=("standard",))
        bare = replace(self, sampling=None, problems=(), options=plain, bootstrapped=None)

        def of_fit(estimate: Estimate, sample: Sample) -> Any:
            return statistic(replace(bare, estimate=estimate, sample=sample))

        of_fit.__name__ = getattr(statistic, "__name__", "statistic")
        return function_target(of_fit, self.estimate, self.sample)


def bootstrap_errors(
    estimate: Estimate, sample: Sample, sampling: Sampling, replicates: int, seed: int
) -> tuple[Bootstrap | None, Sampling]:
    """Sampling covariance from an ordinary bootstrap of all parameters and definitions, and its replicates.

    Without a converged fit there are no replicates, and no standard errors.
    """
    threads = require_threads(None)
    if not estimate.optimum.converged:
        return None, replace(sampling, vcov=np.full_like(sampling.vcov, np.nan))
    target = named_target(estimate)
    drawn = bootstrap(
        estimate,
        sample,
        target,
        partial(jackknife, estimate, sample, target, threads=threads),
        kind="ordinary",
        replicates=replicates,
        seed=seed,
        threads=threads,
        show=True,
    )
    npar = estimate.table.npar
    return drawn, replace(sampling, vcov=drawn.cov_params().to_numpy()[:npar, :npar])
