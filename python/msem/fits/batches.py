"""One model fitted to many samples: in compiled threads, and one by one what needs the rows of the data."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.complete import positions
from msem.data.reading import require_regular_covariates
from msem.data.sample import Group, Sample
from msem.data.screening import COLLINEAR
from msem.data.statistics import Statistics
from msem.errors import ModelError, MsemError, MsemWarning
from msem.estimation.estimate import BAD_START, SPACES
from msem.estimation.optimize import STOPS
from msem.estimation.plan import (
    arranged,
    given_samples,
    selected,
    table_plan,
)
from msem.estimation.problems import (
    REMARKS,
    SEVERITY,
    VERDICTS,
    no_convergence,
    no_identification,
)
from msem.estimation.sampling import ERRORS
from msem.fits.fit import Fit
from msem.fits.manyfits import FitArrays, joined
from msem.fits.sem import fit_table
from msem.model.derived import saturated_npar
from msem.model.levels import BETWEEN
from msem.model.partable import ParameterTable, fixed_covariates
from msem.model.variables import Variables
from msem.postestimation.constraints import definition_values
from msem.postestimation.fit_measures import tests
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
NO_ESTIMATES = {
    "infeasible": "the optimiser found no estimates at which the constraints hold",
    "no valid start": BAD_START,
}


@dataclass(frozen=True, eq=False)
class Batch:
    """A model with the settings of its fits.

    Attributes
    ----------
    table : ParameterTable
    settings : ResolvedSettings
    plan : _core.Plan or None
        None for fits with robust errors or scaled tests, and of models of three levels or with random slopes.
    """

    table: ParameterTable
    settings: ResolvedSettings
    plan: _core.Plan | None = field(repr=False)

    def drawn(self, samples: DrawnSamples, threads: int, progress: Progress) -> FitArrays:
        """Fit samples that are drawn on the way.

        Raises
        ------
        ValueError
            If a variable of the model is not among those drawn, or at another level.
        """
        wanted = self.table.variables
        draws = selected(samples.draws, samples.variables, wanted, centred=not self.table.meanstructure)
        parts = [self._run(draws, wanted, samples.numbers[:0], threads)]
        for first, last in chunks(len(samples), threads):
            parts.append(self._run(draws, wanted, samples.numbers[first:last], threads))
            progress.update(last)
        return joined(parts)

    def _run(self, draws: _core.Draws, variables: Variables, numbers: range, threads: int) -> FitArrays:
        if self.plan is None or (len(numbers) and numbers.step != 1):
            parts = [self._one(draws, variables, number) for number in numbers]
            return joined([self.empty(), *parts])
        first, last = (numbers[0], numbers[-1] + 1) if len(numbers) else (0, 0)
        return self._fitted(self.plan, draws, first, last, threads)

    def _fitted(self, plan: _core.Plan, draws: _core.Draws, first: int, last: int, threads: int) -> FitArrays:
        found = plan.fit(
            draws,
            first,
            last,
            threads,
            self.settings.max_iterations,
            self.settings.tolerance,
            ERRORS.index(self.settings.information) + 1 if self.settings.se == "standard" else 0,
            space=SPACES.index(self.settings.space),
            starts=self.settings.starts,
        )
        return as_arrays(found, self.table.names())

    def _one(self, draws: _core.Draws, variables: Variables, number: int) -> FitArrays:
        if self.plan is not None:
            return self._run(draws, variables, range(number, number + 1), 1)
        groups = drawn_statistics(draws, variables, number)
        return self.fit_one(Sample.of(*groups, labels=self.table.group_labels))

    def given(self, samples: Sequence[Sample], threads: int) -> FitArrays:
        """Fit samples that are read already."""
        if self.plan is None:
            return joined([self.empty(), *map(self.fit_one, samples)])
        plain = [k for k, sample in enumerate(samples) if all(map(_plain, sample.groups))]
        wanted, centred = self.table.variables, not self.table.meanstructure
        statistics = [[_arranged(s, wanted, centred) for s in samples[k].statistics] for k in plain]
        out = self.empty(len(samples))
        if plain:
            given = given_samples(statistics)
            found = self._fitted(self.plan, given, 0, len(plain), threads)
            for f in fields(FitArrays):
                getattr(out, f.name)[plain] = getattr(found, f.name)
            for place in self._dependent(given):
                self.replace_row(out, plain[place], samples[plain[place]])
        for k in set(range(len(samples))) - set(plain):
            self.replace_row(out, k, samples[k])
        return out

    def _dependent(self, given: _core.GivenSamples) -> list[int]:
        """Samples whose fixed covariates determine one another."""
        found: set[int] = set()
        wanted = self.table.variables
        for group in range(1, self.table.ngroups + 1):
            unit, cluster = fixed_covariates(self.table, wanted, group)
            if max(len(unit), len(cluster)) > 1:
                places = positions(unit, wanted.unit), positions(cluster, wanted.cluster)
                found.update(given.dependent(group - 1, *places, COLLINEAR))
        return sorted(found)

    def fit_one(self, sample: Sample) -> FitArrays:
        """The fit of one sample as `sem` does it."""
        out = self.empty(1)
        self.replace_row(out, 0, sample)
        return out

    def replace_row(self, out: FitArrays, k: int, sample: Sample) -> None:
        """Put the fit of one sample as `sem` does it into a row of arrays."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MsemWarning)  # the status says it
            try:
                require_regular_covariates(sample.groups, self.table)
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
    compiled = (
        settings.estimator in ("ML", "MLR", "MLF")
        and settings.se in ("standard", "none")
        and settings.information in ("observed", "expected")
        and settings.test == ("standard",)
        and table.nlevels <= BETWEEN
        and not table.ordered.thresholds
        and not any(table.slopes(group) for group in range(1, table.ngroups + 1))
        and 0 < table.npar <= saturated_npar(table)  # with more the count tells what is not identified
    )
    plan = None
    if compiled:
        with contextlib.suppress(ModelError):  # constraints about moments of each sample
            plan = table_plan(table)
    return Batch(table, settings, plan)


def _plain(group: Group) -> bool:
    """Whether compiled code knows the sample: complete, and its saturated model is its own."""
    return group.statistics.complete and group.maximum


def _arranged(statistics: Statistics, wanted: Variables, centred: bool) -> Statistics:
    statistics = arranged(statistics, wanted)
    return statistics.centred() if centred else statistics


def as_arrays(found: _core.Fits, names: Sequence[str]) -> FitArrays:
    """What compiled fits return, of parameters of these names."""
    status = np.array(VERDICTS, dtype=object)[np.asarray(found["verdict"], dtype=np.intp)]
    return FitArrays(
        np.hstack([found["theta"], found["defined"]]),
        np.hstack([found["se"], found["defined_se"]]),
        -0.5 * (found["value"] - found["covariates"]),
        -0.5 * (found["saturated"] - found["covariates"]),
        status,
        np.array([_problem(found, k, name, names) for k, name in enumerate(status)] + [None], dtype=object)[
            :-1
        ],
        np.asarray(found["iterations"], dtype=np.intp),
    )


def _problem(found: _core.Fits, k: int, status: str, names: Sequence[str]) -> str:
    """What is wrong with one of several fits."""
    if status in TEXTS:
        return TEXTS[status]
    named, stop = [names[i] for i in found["named"][k]], STOPS[found["stop"][k]]
    if status == "unidentified":
        return no_identification(named)
    if status == "not_converged":
        return no_convergence(stop, found["iterations"][k], named)
    return found["problem"][k] or NO_ESTIMATES[stop]


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
    chosen = _shown_test(fit)
    if chosen is not None:
        own = tests(fit).loc[chosen]
        out.statistic[k], out.pvalue[k] = own["statistic"], own["pvalue"]


def _shown_test(fit: Fit) -> str | None:
    """The test that is reported; None for the likelihood ratio."""
    if fit.discrepancy is not None:
        adjusted = fit.options.adjusted_test
        return adjusted if adjusted in fit.discrepancy.tests().index else "standard"
    return next((test for test in fit.options.test if test != "standard"), None)
