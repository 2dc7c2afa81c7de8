"""One model fitted to many samples: in compiled threads, and the long way where that does not lead to a maximum."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.complete import SampleStatistics
from msem.data.sample import Group, Sample
from msem.data.statistics import Statistics
from msem.errors import MsemError, MsemWarning
from msem.estimation.manyfits import (
    AGAIN,
    VERDICTS,
    ManyFitter,
    Variables,
    arranged,
    given_samples,
    many_fitter,
    selected,
    table_variables,
)
from msem.estimation.problems import REMARKS, SEVERITY
from msem.fits.fit import Fit
from msem.fits.manyfits import FitArrays, joined
from msem.fits.sem import fit_table
from msem.model.derived import saturated_table
from msem.model.partable import ParameterTable
from msem.postestimation.constraints import definition_values
from msem.resampling.progress import Progress, chunks
from msem.settings import ResolvedSettings
from msem.simulation.drawn import DrawnSamples, drawn_statistics

Floats = NDArray[np.float64]

TEXTS = {
    "ok": "",
    "boundary": "estimates lie on their bounds",
    "improper": "a negative variance, or a covariance matrix that is not positive definite",
    "no_chi_square": "the saturated model has not converged, so there is nothing to test against",
    "saddle_point": "the observed information is not positive definite",
}


@dataclass(frozen=True, eq=False)
class Batch:
    """A model with the settings of its fits.

    Attributes
    ----------
    table : ParameterTable
    settings : ResolvedSettings
    fitter : ManyFitter or None
        None for what compiled code does not do by itself: constraints other than bounds, robust errors, scaled tests.
    """

    table: ParameterTable
    settings: ResolvedSettings
    fitter: ManyFitter | None = field(repr=False)

    def drawn(self, samples: DrawnSamples, threads: int, progress: Progress) -> FitArrays:
        """Fit samples that are drawn on the way.

        Raises
        ------
        ValueError
            If a variable of the model is not among those drawn, or at another level.
        """
        wanted = table_variables(self.table)
        draws = selected(samples.draws, samples.variables, wanted, centred=not self.table.meanstructure)
        parts = [self._run(draws, wanted, samples.numbers[:0], threads)]
        for first, last in chunks(len(samples), threads):
            parts.append(self._run(draws, wanted, samples.numbers[first:last], threads))
            progress.update(last)
        return joined(parts)

    def _run(self, draws: _core.Draws, variables: Variables, numbers: range, threads: int) -> FitArrays:
        def statistics(k: int) -> list[SampleStatistics]:
            return drawn_statistics(draws, variables, numbers[k])

        if self.fitter is None or (len(numbers) and numbers.step != 1):
            parts = [self._one(draws, variables, number) for number in numbers]
            return joined([self.empty(), *parts])
        first, last = (numbers[0], numbers[-1] + 1) if len(numbers) else (0, 0)
        out = as_arrays(self.fitter.fit(draws, first, last, threads))
        for k in np.flatnonzero(out.status == VERDICTS[AGAIN]):
            self.replace_row(out, int(k), Sample.of(*statistics(int(k)), labels=self.table.group_labels))
        return out

    def _one(self, draws: _core.Draws, variables: Variables, number: int) -> FitArrays:
        if self.fitter is not None:
            return self._run(draws, variables, range(number, number + 1), 1)
        groups = drawn_statistics(draws, variables, number)
        return self.long_way(Sample.of(*groups, labels=self.table.group_labels))

    def given(self, samples: Sequence[Sample], threads: int) -> FitArrays:
        """Fit samples that are read already."""
        if self.fitter is None:
            return joined([self.empty(), *map(self.long_way, samples)])
        quick = [k for k, sample in enumerate(samples) if all(map(_plain, sample.groups))]
        wanted, centred = table_variables(self.table), not self.table.meanstructure
        statistics = [[_arranged(s, wanted, centred) for s in samples[k].statistics] for k in quick]
        found = as_arrays(self.fitter.fit(given_samples(statistics), 0, len(quick), threads))
        out = joined([self.empty()] + [self.empty(1)] * len(samples))
        for f in ("est", "se", "llf", "unrestricted_llf", "status", "problem", "iterations"):
            getattr(out, f)[quick] = getattr(found, f)
        for k, sample in enumerate(samples):
            if out.status[k] in (VERDICTS[AGAIN], None):
                self.replace_row(out, k, sample)
        return out

    def long_way(self, sample: Sample) -> FitArrays:
        """The fit of one sample as `sem` does it."""
        out = self.empty(1)
        self.replace_row(out, 0, sample)
        return out

    def replace_row(self, out: FitArrays, k: int, sample: Sample) -> None:
        """Put the fit of one sample as `sem` does it into a row of arrays."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MsemWarning)  # the status says it
            try:
                fit = fit_table(self.table, sample, self.settings)
            except MsemError as error:
                out.status[k], out.problem[k] = "failed", str(error)
                return
        _fill(out, k, fit)

    def empty(self, count: int = 0) -> FitArrays:
        """So many fits without a result."""
        width = self.table.npar + len(self.table.defined)
        return FitArrays(
            np.full((count, width), np.nan),
            np.full((count, width), np.nan),
            np.full(count, np.nan),
            np.full(count, np.nan),
            np.full(count, None, dtype=object),
            np.full(count, "", dtype=object),
            np.zeros(count, dtype=np.intp),
        )


def make_batch(table: ParameterTable, settings: ResolvedSettings) -> Batch:
    """A model ready for many fits."""
    quick = (
        settings.estimator in ("ML", "MLR", "MLF")
        and settings.se in ("standard", "none")
        and settings.information in ("observed", "expected")
        and settings.test == ("standard",)
        and not table.constraints
        and 0 < table.npar <= saturated_table(table).npar  # with more the count tells what is not identified
    )
    fitter = None
    if quick:
        fitter = many_fitter(
            table,
            observed=settings.information == "observed",
            errors=settings.se == "standard",
            max_iterations=settings.max_iterations,
            tolerance=settings.tolerance,
        )
    return Batch(table, settings, fitter)


def _plain(group: Group) -> bool:
    """Whether compiled code knows the sample: complete, and its saturated model is its own."""
    return group.statistics.complete and group.maximum


def _arranged(statistics: Statistics, wanted: Variables, centred: bool) -> Statistics:
    statistics = arranged(statistics, wanted)
    return statistics.centred() if centred else statistics


def as_arrays(found: _core.ManyFits) -> FitArrays:
    """What compiled fits return."""
    verdict = np.asarray(found["verdict"], dtype=np.intp)
    names = np.array([*VERDICTS[:-1], "failed"], dtype=object)
    problem = np.array(found["problem"], dtype=object)
    texts = np.array([TEXTS.get(name, "") for name in names], dtype=object)
    cut = verdict < AGAIN
    problem[cut] = texts[verdict[cut]]
    return FitArrays(
        np.hstack([found["theta"], found["defined"]]),
        np.hstack([found["se"], found["defined_se"]]),
        -0.5 * (found["value"] - found["covariates"]),
        -0.5 * (found["saturated"] - found["covariates"]),
        names[verdict],
        problem,
        np.asarray(found["iterations"], dtype=np.intp),
    )


def _fill(out: FitArrays, k: int, fit: Fit) -> None:
    """Put a fit into a row of arrays; without estimates where it has not converged."""
    out.status[k] = fit.status
    worst = [p for p in fit.problems if p.name not in REMARKS]
    out.problem[k] = max(worst, key=lambda p: SEVERITY.index(p.name)).cause if worst else ""
    out.iterations[k] = len(fit.estimate.optimum.diary)
    out.unrestricted_llf[k] = fit.unrestricted_llf
    if fit.status == "not_converged":
        return
    values, errors = definition_values(fit)
    out.est[k] = np.append(fit.estimate.theta, values)
    out.se[k] = np.append(fit.standard_errors, errors)
    out.llf[k] = fit.llf
