"""What is resampled: all parameters, some of them, or any function of a fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.sample import Sample
from msem.errors import DataError
from msem.estimation.estimate import Estimate
from msem.estimation.lookup import parameter_name
from msem.estimation.solution import Solution
from msem.resampling.named import Evaluator, every_parameter, read_named, require_names
from msem.resampling.progress import Progress
from msem.resampling.refits import Source
from msem.resampling.replicates import Replicates

Floats = NDArray[np.float64]
OfFit = Callable[[Estimate, Sample], Any]

NOT_FINITE = "statistic not finite"
Statistic = str | Sequence[str] | Callable[[Any], Any]


@dataclass(frozen=True, eq=False)
class Target:
    """Functions of a fit.

    Attributes
    ----------
    names : tuple of str
    point : ndarray, shape (k,)
        Their values in the whole sample.
    places : tuple of (level, group)
        Of parameters; 0 for what belongs to no level, or to several.
    of_thetas : callable or None
        From estimates, shape (R, npar), to values, shape (R, k).
    of_fit : callable or None
        From an estimate and its sample to values; slower.
    find : callable or None
        From any name of a parameter to the one that it has here.
    """

    names: tuple[str, ...]
    point: Floats
    places: tuple[tuple[int, int], ...]
    of_thetas: Callable[[Floats], Floats] | None = None
    of_fit: OfFit | None = None
    find: Callable[[str], str] | None = None


class OfTarget:
    """What all results of resampling say of their target."""

    target: Target
    failures: Mapping[str, int]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the statistics, length k."""
        return self.target.names

    @property
    def point(self) -> Floats:
        """Their values in the sample, shape (k,)."""
        return self.target.point

    @property
    def failed(self) -> pd.Series:
        """Number of replicates, or refits, that failed, by reason."""
        return pd.Series(dict(self.failures), name="failed", dtype="int64")


def named_target(estimate: Estimate, names: Sequence[str] | None = None) -> Target:
    """All parameters and definitions of the model; or those named, and functions of them; see `read_named`."""
    table = estimate.table
    chosen = every_parameter(table) if names is None else [read_named(table, name) for name in names]
    evaluator = Evaluator(table, tuple(chosen))
    return Target(
        tuple(one.name for one in chosen),
        evaluator(estimate.theta[None, :])[0],
        tuple((one.level, one.group) for one in chosen),
        evaluator,
        find=partial(parameter_name, table),
    )


def function_target(function: OfFit, estimate: Estimate, sample: Sample) -> Target:
    """A function of the fit: its value is a number, an array of one dimension, or a Series.

    Raises
    ------
    DataError
        If its value in the whole sample is something else.
    """
    value = function(estimate, sample)
    point = _numbers(value)
    label = getattr(function, "__name__", "statistic")
    if isinstance(value, pd.Series):
        names = tuple(
            " ".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in value.index
        )
    else:
        names = (label,) if point.size == 1 else tuple(f"{label}[{k}]" for k in range(point.size))
    return Target(names, point, ((0, 0),) * len(names), None, function)


def _numbers(value: Any) -> Floats:
    if value is None:
        raise DataError("a statistic must return numbers, not None")
    try:
        array = np.atleast_1d(np.asarray(value, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise DataError(f"a statistic must return numbers, not {type(value).__name__}") from error
    if array.ndim != 1 or not array.size:
        raise DataError(
            f"a statistic must return a number, a Series or an array of one dimension, not shape {array.shape}"
        )
    return array


def labelled_frame(target: Target, columns: Mapping[str, Floats]) -> pd.DataFrame:
    """A row for each statistic: name, level, group and the columns given; level and group are 0 for functions."""
    level, group = zip(*target.places, strict=True)
    labels = {
        "name": list(target.names),
        "level": list(level),
        "group": list(group),
    }
    return pd.DataFrame(labels | dict(columns))


@dataclass(frozen=True, eq=False)
class Values:
    """Values of the target in the replicates where they could be computed.

    Attributes
    ----------
    values : ndarray, shape (R, k)
    numbers : ndarray of int, shape (R,)
        Which replicates they belong to.
    failed : dict of str to int
        Replicates without values, by reason.
    """

    values: Floats
    numbers: NDArray[np.intp]
    failed: dict[str, int]


def target_values(target: Target, replicates: Replicates, source: Source, progress: Progress) -> Values:
    """Evaluate the target in every replicate whose refit converged."""
    numbers = replicates.converged
    if target.of_thetas is not None:
        values = target.of_thetas(replicates.theta[numbers])
    else:
        rows = []
        for done, k in enumerate(numbers, 1):
            rows.append(_value_in(target, replicates, source, int(k)))
            progress.update(done)
        values = np.array(rows).reshape(len(numbers), len(target.names))
    finite = np.isfinite(values).all(axis=1)
    failed = replicates.failed | {NOT_FINITE: int((~finite).sum())}
    return Values(values[finite], numbers[finite], failed)


def _value_in(target: Target, replicates: Replicates, source: Source, number: int) -> Floats:
    assert target.of_fit is not None
    theta = replicates.theta[number].copy()
    theta.flags.writeable = False
    value = target.of_fit(*source.fitted(number, theta, float(replicates.value[number])))
    if isinstance(value, pd.Series) and len(value) != len(target.names):
        return np.full(len(target.names), np.nan)
    return _numbers(value)


def target_of(fit: Solution, statistic: Statistic | None) -> Target:
    """What is resampled: all parameters and definitions, those named, or a function of a fit."""
    if statistic is None:
        return named_target(fit.estimate)
    if not callable(statistic):
        return named_target(fit.estimate, require_names(statistic))

    def of_fit(estimate: Estimate, sample: Sample) -> Any:
        return statistic(fit.replicate(estimate, sample))

    of_fit.__name__ = getattr(statistic, "__name__", "statistic")
    return function_target(of_fit, fit.estimate, fit.sample)
