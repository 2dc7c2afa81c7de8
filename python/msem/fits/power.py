"""`power`: power, bias and coverage of a model in samples of a population, by design."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem import _core
from msem.distributions import normal_halfwidth
from msem.entry import entry
from msem.errors import ArgumentError, ConvergenceWarning, ModelError, MsemError, warn
from msem.estimation.problems import VERDICTS
from msem.fits.checkpoint import PowerFile, stored_seed
from msem.fits.compiled import CompiledModel, compile_for, require_labels
from msem.fits.conditions import Cell, Truth, make_cells, need_rows, truth
from msem.fits.fit import Fit
from msem.fits.manyfits import FitArrays, ManyFits, joined
from msem.fits.simulate import read_population
from msem.printing import frame_html, frame_text
from msem.resampling.progress import Progress, chunks
from msem.resampling.workers import Client, ranges, require_client, spread
from msem.settings import Settings, require_seed, require_threads, require_whole

Floats = NDArray[np.float64]

SHOWN = ("population", "mean", "relative_bias", "se_ratio", "coverage", "power")


@dataclass(frozen=True, eq=False)
class Power:
    """Fits of a model to samples of a population, by cell of a design; immutable.

    Attributes
    ----------
    model : CompiledModel
    cells : tuple of Cell
    truths : tuple of Truth
        What the model estimates in the population of each cell.
    arrays : tuple of FitArrays
        The fits of each cell.
    seed : int
    alpha : float
        Level of the tests; intervals have coverage 1 - alpha.
    """

    model: CompiledModel
    cells: tuple[Cell, ...]
    truths: tuple[Truth, ...]
    arrays: tuple[FitArrays, ...]
    seed: int
    alpha: float

    def fits(self, cell: int = 0) -> ManyFits:
        """All fits of a cell, counted from 0 in the order of `designs`."""
        return ManyFits(self.model.table, self.arrays[cell], self.model.df)

    @cached_property
    def parameters(self) -> pd.DataFrame:
        """A row for each cell and parameter.

        Columns: the settings of the cell; lhs, op, rhs, level, group, label; population, the value in the population;
        mean and sd of the estimates; bias and relative_bias; mean_se; se_ratio, mean_se over sd; coverage of intervals;
        power, the share of tests of 0 that reject; power_error, its simulation error; used, the fits behind all this.
        Fits without estimates are left out; improper ones are not, see `designs`.
        """
        parts = [
            self._cell_frame(cell, known, arrays)
            for cell, known, arrays in zip(self.cells, self.truths, self.arrays, strict=True)
        ]
        return pd.concat(parts, ignore_index=True)

    def _cell_frame(self, cell: Cell, known: Truth, arrays: FitArrays) -> pd.DataFrame:
        rows = self.fits(cell.number).rows
        labels = {
            name: [getattr(row, name) for row in rows]
            for name in ("lhs", "op", "rhs", "level", "group", "label")
        }
        rates = performance(arrays, known.theta, self.alpha)
        return pd.DataFrame({**cell.labels, **labels, "population": known.theta, **rates})

    @cached_property
    def designs(self) -> pd.DataFrame:
        """A row for each cell.

        Columns: its settings; nobs; replications; converged, the share of samples with estimates; the share with each
        status; misfit, the noncentrality of the chi-square in this population; mean chisq, df, and rejected, the share
        of chi-square tests that reject. The test is the one of the estimator, or that was asked for: scaled for MLR,
        scaled and shifted for WLSMV.
        """
        out = []
        for cell, known, arrays in zip(self.cells, self.truths, self.arrays, strict=True):
            chisq = arrays.chisq(self.model.df)
            p = arrays.pvalues(self.model.df)
            tested = np.isfinite(p)
            out.append(
                {
                    **cell.labels,
                    "nobs": sum(one.nobs for one in cell.designs),
                    "replications": len(arrays),
                    "converged": arrays.fitted.mean(),
                    **{name: (arrays.status == name).mean() for name in VERDICTS},
                    "misfit": known.chisq,
                    "chisq": chisq[tested].mean() if tested.any() else np.nan,
                    "df": self.model.df,
                    "rejected": (p[tested] < self.alpha).mean() if tested.any() else np.nan,
                }
            )
        return pd.DataFrame(out)

    def to_frame(self) -> pd.DataFrame:
        """The same as `parameters`."""
        return self.parameters.copy()

    def __str__(self) -> str:
        count = len(self.arrays[0])
        return (
            f"{len(self.cells)} designs, {count} replications each, seed {self.seed}, alpha {self.alpha:g}\n\n"
            f"{frame_text(_without_empty(self.designs))}\n\n{frame_text(self._shown)}"
        )

    @property
    def _shown(self) -> pd.DataFrame:
        settings = list(self.cells[0].labels)
        names = list(self.fits(0).names) * len(self.cells)
        frame = self.parameters[[*settings, *SHOWN]].copy()
        frame.insert(len(settings), "parameter", names)
        return frame

    def _repr_html_(self) -> str:
        return frame_html(_without_empty(self.designs)) + frame_html(self._shown)

    def __repr__(self) -> str:
        return f"<msem.Power: {len(self.cells)} designs, {len(self.arrays[0])} replications each, seed {self.seed}>"


def _without_empty(designs: pd.DataFrame) -> pd.DataFrame:
    """Without statuses that did not occur."""
    return designs.drop(columns=[name for name in VERDICTS if not designs[name].any()])


def performance(arrays: FitArrays, population: Floats, alpha: float) -> dict[str, Floats]:
    """What estimates and standard errors are worth, for each of P parameters; see `Power.parameters`."""
    est, se = arrays.est[arrays.fitted], arrays.se[arrays.fitted]
    z = normal_halfwidth(1 - alpha)
    valid = np.isfinite(est) & np.isfinite(se)
    used = valid.sum(axis=0)
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # no fits, or one
        mean, sd = np.nanmean(est, axis=0), np.nanstd(est, axis=0, ddof=1)
        mean_se = np.nanmean(np.where(valid, se, np.nan), axis=0)
        covered = (np.abs(est - population) <= z * se) & valid
        rejected = (np.abs(est) > z * se) & valid
        power = rejected.sum(axis=0) / used
        relative = np.where(population != 0, (mean - population) / population, np.nan)
        return {
            "mean": mean,
            "bias": mean - population,
            "relative_bias": relative,
            "sd": sd,
            "mean_se": mean_se,
            "se_ratio": mean_se / sd,
            "coverage": covered.sum(axis=0) / used,
            "power": power,
            "power_error": np.sqrt(power * (1 - power) / used),
            "used": used,
        }


@entry
def power(
    model: str | CompiledModel,
    population: str | CompiledModel | Fit,
    design_grid: Any,
    *,
    replications: int = 1000,
    seed: int | None = None,
    threads: int | None = None,
    resume: str | Path | None = None,
    alpha: float = 0.05,
    distribution: Any = "normal",
    progress: bool = True,
    client: Client | None = None,
    **options: Any,
) -> Power:
    """Power, bias and coverage of a model in samples of a population, by simulation.

    Samples are drawn as sufficient statistics and fitted in compiled threads; of three levels, and with random slopes
    in the model or the population, they are drawn as rows and fitted one after the other, and the model has to be that
    of the population. Samples of ordered variables, those with thresholds in the population, are drawn and fitted so,
    too, and the model has to hold in the population. Robust errors and tests (``estimator="MLR"``, ``se="robust"``,
    WLSMV, ``test="hotelling"``) are of rows as well, and the model may be wrong.

    Parameters
    ----------
    model : str or CompiledModel
        What is fitted.
    population : str, CompiledModel or Fit
        Where the samples come from; see `msem.simulate`.
    design_grid : dict, sequence of dict, or DataFrame
        Settings: ``nclusters`` and ``cluster_sizes``, or ``nobs``, as in `msem.simulate`; ``distribution``; and values
        of parameters of the population, by label or name, such as ``"fb ~ w1"``. In a dict a list is several values,
        and all values are crossed; otherwise there is a dict, or a row, for each cell.
    replications : int
        Samples for each cell.
    seed : int, optional
        From 0 to 2**64 - 1; default: at random. Results are the same for the same seed whatever the number of threads,
        and if the analysis was interrupted. Cells have samples of their own.
    threads : int, optional
        Default: one for each processor.
    resume : path, optional
        A file to which fits are added as they are made. If it has some of this analysis, these are not made again, so
        that an interrupted call, or one with more replications, goes on. The format is JSON by lines; see
        `docs/simulation-and-power.md`. Without a seed, that of the file is taken.
    alpha : float
        Level of tests; intervals have coverage 1 - alpha.
    distribution
        See `msem.simulate`.
    progress : bool
        Show a bar on the standard error stream when it takes more than a second.
    client : optional
        Makes the fits in batches: a `distributed.Client`, or an executor such as
        `concurrent.futures.ProcessPoolExecutor`. Results are the same. `threads` is then of each batch, by default 1.
    **options
        Of the fits, as in `msem.compile`, if the model is a text.

    Returns
    -------
    Power

    Raises
    ------
    ModelError
        If a parameter of the population has no value, its values are no distribution, or the model is not identified.
    DataError
        If a cell has too few clusters, or the file is of another analysis.
    UnsupportedError
        If covariates or links of the population are not those of the model.

    Warns
    -----
    ConvergenceWarning
        If no sample of a cell has estimates, with the cause that most of them have.

    References
    ----------
    Muthen & Muthen (2002). How to use a Monte Carlo study to decide on sample size and determine power. Structural
    Equation Modeling, 9, 599-620.
    """
    count, workers = require_whole("replications", replications, 1), require_threads(threads)
    require_client(client)
    if not (isinstance(alpha, Real) and 0 < alpha < 1):
        raise MsemError(f"alpha is the level of tests, between 0 and 1, such as 0.05, not {alpha!r}")
    source = read_population(population, _crossed_columns(model, options))
    compiled = read_model(model, options, source.table.ordered.thresholds)
    require_labels(compiled.table, source.table.group_labels or None)
    if compiled.table.crossed != source.table.crossed or (
        source.table.crossed and compiled.table.clusters != source.table.clusters
    ):
        raise ModelError(
            "model and population have other classifications: name the same two columns in both, as in "
            'cluster="pupil * school"'
        )
    number = require_seed(stored_seed(resume) if seed is None else seed)
    rows = need_rows(compiled.table) or compiled.by_cluster
    cells = make_cells(source, population, design_grid, distribution, number, rows=rows)
    truths = tuple(truth(compiled.table, cell) for cell in cells)
    file = PowerFile(resume, describe(compiled, cells, distribution, number))
    with _core.ThreadLimit(workers), Progress("power", count * len(cells), progress) as shown:
        if client is None:
            arrays = tuple(_fits_of_cell(compiled, cell, count, workers, file, shown) for cell in cells)
        else:
            arrays = _fits_elsewhere(compiled, cells, count, client, threads or 1, file, shown)
    for cell, own in zip(cells, arrays, strict=True):
        _warn_of_none(cell, own)
    return Power(compiled, cells, truths, arrays, number, float(alpha))


def _warn_of_none(cell: Cell, arrays: FitArrays) -> None:
    """Warn of a cell none of whose samples has estimates."""
    if arrays.fitted.any():
        return
    cause, count = Counter(map(str, arrays.problem)).most_common(1)[0]
    shown = ", ".join(f"{name}={value}" for name, value in cell.labels.items())
    warn(
        f"design cell {cell.number + 1} ({shown}): none of the {len(arrays)} samples has estimates, {count} of them "
        f"because: {cause}",
        ConvergenceWarning,
    )


def _crossed_columns(model: Any, options: Mapping[str, Any]) -> Any:
    """The columns of clusters of a model with crossed classifications; None for any other."""
    if isinstance(model, CompiledModel):
        return model.settings.cluster if model.table.crossed else None
    cluster = options.get("cluster")
    return cluster if cluster is not None and Settings.read({"cluster": cluster}).crossed else None


def read_model(
    model: str | CompiledModel, options: Mapping[str, Any], thresholds: Mapping[str, int] | None = None
) -> CompiledModel:
    """The model that is fitted; `thresholds` are those of the ordered variables of the population."""
    if isinstance(model, CompiledModel):
        if options:
            raise ArgumentError(f"{next(iter(options))}: the model is compiled with its options already")
        return model
    if not isinstance(model, str):
        raise ArgumentError(f"a model is a text or a compiled model, not {type(model).__name__}")
    return compile_for(model, options, thresholds)


def describe(model: CompiledModel, cells: tuple[Cell, ...], distribution: Any, seed: int) -> dict[str, Any]:
    """What an analysis is, as its file says it: the replications and the level of tests do not matter."""
    options = {name: repr(value) for name, value in sorted(model.options.items())}
    populations = [
        [[*key, value] for key, value in cell.population.truth().items()] + [list(map(repr, cell.designs))]
        for cell in cells
    ]
    return {
        "model": list(model.table.by_name.shown),
        "options": options,
        "population": hashlib.sha256(repr(populations).encode()).hexdigest(),
        "distribution": repr(distribution),
        "design": [dict(cell.labels) for cell in cells],
        "seed": seed,
        "parameters": list(ManyFits(model.table, _NONE, 0).names),
    }


_NONE = FitArrays(
    *(np.empty((0, 0)),) * 2, *(np.empty(0),) * 2, *(np.empty(0, dtype=object),) * 2, np.empty(0, np.intp)
)


def _fits_of_cell(
    model: CompiledModel, cell: Cell, count: int, threads: int, file: PowerFile, shown: Progress
) -> FitArrays:
    """Fits of the samples of a cell: those of the file, and the rest."""
    parts = [model.batch().empty(), *file.fits(cell.number)]
    done = sum(map(len, parts))
    for first, last in chunks(max(count - done, 0), threads):
        parts.append(model.drawn(cell.samples(done + first, done + last), threads))
        file.add(cell.number, done + first, parts[-1])
        shown.update(cell.number * count + done + last)
    return _first(count, parts)


def _first(count: int, parts: Sequence[FitArrays]) -> FitArrays:
    return FitArrays(*(values[:count] for values in vars(joined(parts)).values()))


def _fits_elsewhere(
    model: CompiledModel,
    cells: tuple[Cell, ...],
    count: int,
    client: Client,
    threads: int,
    file: PowerFile,
    shown: Progress,
) -> tuple[FitArrays, ...]:
    """The same of all cells, by the workers of a client; what is done is written in order."""
    parts = [[model.batch().empty(), *file.fits(cell.number)] for cell in cells]
    calls = [
        (number, first, last, threads)
        for number, known in enumerate(parts)
        for first, last in ranges(sum(map(len, known)), count)
    ]
    with closing(spread(client, _fit_batch, (model, cells), calls)) as found:
        for (number, first, last, _), arrays in zip(calls, found, strict=True):
            parts[number].append(arrays)
            file.add(number, first, arrays)
            shown.update(number * count + last)
    return tuple(_first(count, known) for known in parts)


def _fit_batch(
    shared: tuple[CompiledModel, tuple[Cell, ...]], number: int, first: int, last: int, threads: int
) -> FitArrays:
    """Fits of some samples of a cell, by a worker."""
    model, cells = shared
    with _core.ThreadLimit(threads):
        return model.drawn(cells[number].samples(first, last), threads)
