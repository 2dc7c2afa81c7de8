"""Replicates of a sample as sufficient statistics, and what refits a model to them in compiled threads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.draws import DrawsOrigin, require_drawable
from msem.data.sample import Group, Sample
from msem.data.statistics import Design, Pool
from msem.errors import DataError, UnsupportedError
from msem.estimation.constraints import compile_constraints
from msem.estimation.estimate import SPACES, Estimate, saturated_moments
from msem.estimation.matrices import fill_exogenous
from msem.estimation.objective import build_objective
from msem.estimation.optimize import STOPS, Optimum, bounds
from msem.estimation.plan import make_plan
from msem.estimation.problems import UNUSABLE, VERDICTS
from msem.model.partable import Parameter, ParameterTable, fixed_covariates
from msem.model.variables import Variables
from msem.resampling.progress import chunks
from msem.settings import Space

Floats = NDArray[np.float64]

FEW, SINGULAR, NOT_CONVERGED, UNBOUNDED, EMPTY = range(1, 6)
FAILURES = {
    FEW: "too few distinct clusters",
    SINGULAR: "singular covariance matrix",
    NOT_CONVERGED: "not converged",
    UNBOUNDED: "likelihood unbounded",
    EMPTY: "category empty, or no first stage",
}

NO_DEPENDENCE = (
    "a single-level model does not say how rows of a cluster depend on each other, so samples cannot be drawn "
    "from it"
)
ACTIVE = 1e-9  # value of an inequality that is active
FEWEST = 3  # clusters of a bootstrap


@dataclass(frozen=True, eq=False)
class Replicates:
    """Refits to replicates 0, 1, ... of a sample.

    Attributes
    ----------
    theta : ndarray, shape (R, npar)
        nan for refits that failed.
    value, saturated : ndarray, shape (R,)
        -2 log L of the model and of the saturated model, covariates included.
    outcome : ndarray of int, shape (R,)
        0 when converged, else a key of `FAILURES`.
    """

    theta: Floats
    value: Floats
    saturated: Floats
    outcome: NDArray[np.intp]

    @property
    def converged(self) -> NDArray[np.intp]:
        """Numbers of the replicates whose refit converged."""
        return np.flatnonzero(self.outcome == 0)

    @property
    def failed(self) -> dict[str, int]:
        """How many refits failed, by reason; all reasons are listed but what only ordered variables have."""
        counts = Counter(self.outcome.tolist())
        return {reason: counts[code] for code, reason in FAILURES.items() if code != EMPTY or counts[code]}


def _pools(sample: Sample, orders: Sequence[NDArray[np.intp]]) -> list[Pool]:
    """The clusters of each group in some order."""
    for group in sample.groups:
        if len(group.clusters.sizes) < 2:
            where = f" of group {group.label!r}" if group.label else ""
            raise DataError(f"the sample{where} is one cluster: clusters cannot be resampled")
    return [group.clusters.pool(order) for group, order in zip(sample.groups, orders, strict=True)]


def _built(
    groups: Sequence[Pool],
) -> list[tuple[Floats, Floats, Floats] | Any]:
    return [group() if isinstance(group, partial) else group for group in groups]


def _ordinary(groups: Sequence[Pool], seed: int, single: bool, centred: bool) -> _core.OrdinaryDraws:
    return _core.OrdinaryDraws(_built(groups), seed, single, centred)


def ordinary_draws(estimate: Estimate, sample: Sample, seed: int) -> _core.OrdinaryDraws:
    """Clusters drawn with replacement; see `ordinary_origin`."""
    return _ordinary(*_ordinary_parts(estimate, sample, seed))


def ordinary_origin(estimate: Estimate, sample: Sample, seed: int) -> DrawsOrigin:
    """Clusters of each group drawn with replacement; rows for a single level without clusters.

    Raises
    ------
    DataError
        Without raw data, or when a group has too few clusters.
    """
    return DrawsOrigin(partial(_ordinary, *_ordinary_parts(estimate, sample, seed)))


def _ordinary_parts(estimate: Estimate, sample: Sample, seed: int) -> tuple[list[Pool], int, bool, bool]:
    if all(group.source is None for group in sample.groups):
        raise DataError(
            "there are no clusters to resample, since the sample was given as moments: fit raw data, or draw samples "
            'from the model, kind="parametric"'
        )
    single, centred = _in_clusters_of_rows(sample), not estimate.table.meanstructure
    groups = _pools(sample, [order_by_id(group) for group in sample.groups])
    if estimate.table.multilevel and any(count < FEWEST for count in cluster_counts(sample)):
        raise DataError(
            f"bootstraps need {FEWEST} clusters or more: every replicate of two that has both is the sample itself"
        )
    return groups, seed, single, centred


def order_by_id(group: Group) -> NDArray[np.intp]:
    """Clusters in the order of their ids, which does not depend on that of the data; rows as they are."""
    ids = group.identifiers
    if not group.in_clusters:
        return np.arange(len(ids))
    try:
        return np.asarray(ids.argsort(), dtype=np.intp)
    except TypeError:  # ids of several types
        return np.asarray(ids.map(str).argsort(), dtype=np.intp)


def _without_one(groups: Sequence[Pool], single: bool, centred: bool) -> _core.LeaveOneOut:
    return _core.LeaveOneOut(_built(groups), single, centred)


def leave_one_out(estimate: Estimate, sample: Sample) -> DrawsOrigin:
    """The sample without each of its clusters in turn; see `ordinary_origin`."""
    single, centred = _in_clusters_of_rows(sample), not estimate.table.meanstructure
    pools = _pools(sample, list(map(np.arange, cluster_counts(sample))))
    return DrawsOrigin(partial(_without_one, pools, single, centred))


def _in_clusters_of_rows(sample: Sample) -> bool:
    """Whether this is a single-level sample whose rows come in clusters."""
    group = sample.groups[0]
    return not group.statistics.unit and group.clusters.of_units


def parametric_draws(estimate: Estimate, sample: Sample, seed: int) -> _core.Draws:
    """Samples from the model at the estimates; see `parametric_origin`."""
    return _parametric_maker(estimate, sample, seed)()


def parametric_origin(estimate: Estimate, sample: Sample, seed: int) -> DrawsOrigin:
    """Samples from the model at the estimates, given cluster sizes and fixed covariates.

    Raises
    ------
    DataError, UnsupportedError
        If the sample is not one of whole clusters, or the estimates are not those of a distribution; with the kind of
        bootstrap that there is.
    """
    try:
        origin = DrawsOrigin(_parametric_maker(estimate, sample, seed))
        require_drawable(origin)
    except (DataError, UnsupportedError) as error:
        if any(group.source is None or not group.statistics.independent for group in sample.groups):
            raise
        raise type(error)(f'{error}; kind="ordinary" draws clusters with replacement') from error
    return origin


def _parametric_maker(estimate: Estimate, sample: Sample, seed: int) -> Callable[[], _core.Draws]:
    designs = [_design(estimate, group, number) for number, group in enumerate(sample.groups, 1)]
    draws = designs[0].draws
    if any(design.draws is not draws for design in designs):
        _refuse_unlike(estimate.table, sample)
    return partial(_parametric, draws, [design.group for design in designs], seed)


def _refuse_unlike(table: ParameterTable, sample: Sample) -> NoReturn:
    """Say how the groups differ; always `DataError`."""
    slopes = [bool(table.slopes(number)) for number in range(1, len(sample.groups) + 1)]
    if all(slopes):
        raise DataError(
            "slopes of some groups are integrated over and those of others are not: samples can be drawn from "
            "models of groups that are alike"
        )
    if any(slopes):
        raise DataError(
            "some groups have random slopes and others have none: samples can be drawn from models of groups that all "
            "have, or all have not"
        )
    whole = next(group.label for group in sample.groups if group.statistics.complete)
    raise DataError(
        f"group {whole!r} has no missing values and others have: samples can be drawn from models of "
        "groups that all have, or all have not"
    )


def _parametric(
    draws: Callable[[Sequence[Any], int], _core.Draws], groups: Sequence[Any], seed: int
) -> _core.Draws:
    try:
        return draws(groups, seed)
    except ValueError as error:
        raise DataError(f"samples cannot be drawn from this model: {error}") from error


def _design(estimate: Estimate, group: Group, number: int) -> Design:
    """A group as the core draws samples of it."""
    s, table = group.statistics, estimate.table
    if not table.multilevel and group.in_clusters:
        raise DataError(NO_DEPENDENCE)
    moments = estimate.objective.likelihood_moments(estimate.theta, number)
    fixed = fixed_covariates(table, s.variables, number)[-len(s.variables.levels) :]
    levels = [moments[level] for level in sorted(moments)]
    return s.design(levels, fixed, centred=not table.meanstructure)


def open_exogenous(table: ParameterTable, sample: Sample) -> ParameterTable:
    """The table with the moments of fixed covariates left open again, to be filled from another sample.

    Values that the user gave are kept: those that are not the sample's.
    """
    blank = replace(table, rows=tuple(_blank(r) for r in table.rows))
    filled = fill_exogenous(blank, sample.levels)
    rows = [
        empty if row.value == again.value else row
        for row, empty, again in zip(table.rows, blank.rows, filled.rows, strict=True)
    ]
    return replace(table, rows=tuple(rows))


def _blank(row: Parameter) -> Parameter:
    return row._replace(value=np.nan) if row.exo and not row.free else row


@dataclass(frozen=True, eq=False)
class Refitter:
    """All that refits need, without the rows of the data, so that it can be sent to another process.

    Attributes
    ----------
    table : ParameterTable
        Without the sample's moments of fixed covariates.
    variables : tuple of Variables
        Observed ones of each group, in the order of the statistics.
    saturated : list of tuple of ndarray
        Saturated moments of each group, from which those of replicates with holes are sought.
    origin : DrawsOrigin
    exposed : tuple of mapping
        Latent variables by level that the likelihood of each group knows of.
    space : {"auto", "natural", "psd"}
        Of the sample.
    """

    table: ParameterTable
    variables: tuple[Variables, ...]
    saturated: list[list[tuple[Floats, Floats]]]
    origin: DrawsOrigin
    exposed: tuple[Mapping[int, tuple[str, ...]], ...] = ()
    space: Space = "auto"

    @cached_property
    def plan(self) -> _core.Plan:
        """The compiled model."""
        return make_plan(self.table, self.variables, compile_constraints(self.table), self.exposed)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the compiled part."""
        return {name: value for name, value in vars(self).items() if name != "plan"}

    def pieces(self, count: int, threads: int) -> Iterator[tuple[int, int]]:
        """Ranges of replicates to be refitted at a time."""
        return chunks(count, threads)

    def run(self, first: int, last: int, threads: int) -> Replicates:
        """Refit the model to replicates first, ..., last - 1."""
        fits = self.plan.fit(
            self.origin.draws, first, last, threads, saturated=self.saturated, space=SPACES.index(self.space)
        )
        return Replicates(fits["theta"], fits["value"], fits["saturated"], _outcomes(fits))


def _outcomes(fits: _core.Fits) -> NDArray[np.intp]:
    """Why there are no estimates: 0, or a key of `FAILURES`."""
    stop, verdict = np.asarray(fits["stop"], dtype=np.intp), np.asarray(fits["verdict"], dtype=np.intp)
    unbounded = stop == STOPS.index("unbounded")
    failed = np.where(fits["few_clusters"], FEW, np.where(verdict == UNUSABLE, SINGULAR, NOT_CONVERGED))
    out: NDArray[np.intp] = np.where(
        verdict < VERDICTS.index("not_converged"), 0, np.where(unbounded, UNBOUNDED, failed)
    )
    return out


@dataclass(frozen=True, eq=False)
class ReplicateSource:
    """A model with the replicates of its sample.

    Attributes
    ----------
    estimate, sample
        Of the whole sample.
    origin : DrawsOrigin
        Of the replicates.
    """

    estimate: Estimate
    sample: Sample
    origin: DrawsOrigin

    @cached_property
    def table(self) -> ParameterTable:
        """The parameter table without the sample's moments of fixed covariates."""
        return open_exogenous(self.estimate.table, self.sample)

    @cached_property
    def refitter(self) -> Refitter:
        """What refits the model to the replicates."""
        statistics = self.sample.statistics
        return Refitter(
            self.table,
            tuple(s.variables for s in statistics),
            saturated_moments(self.sample),
            self.origin,
            tuple(s.exposed for s in statistics),
            self.sample.space,
        )

    def fitted(self, number: int, theta: Floats, value: float) -> tuple[Estimate, Sample]:
        """The model at its estimates in one replicate, and that replicate's statistics.

        Parameters
        ----------
        number : int
            Of the replicate.
        theta : ndarray, shape (npar,)
        value : float
            -2 log L at theta.
        """
        pairs = zip(self.sample.groups, self.origin.draws.statistics(number), strict=True)
        again = Sample(tuple(Group(old.statistics.redrawn(drawn), label=old.label) for old, drawn in pairs))
        objective = build_objective(fill_exogenous(self.table, again.levels), again.statistics)
        lower, upper = bounds(objective)
        active = np.where(theta <= lower, -1, np.where(theta >= upper, 1, 0))
        c = objective.constraints
        at = () if c is None else tuple(np.flatnonzero(c.inequalities.values(theta) < ACTIVE).tolist())
        optimum = Optimum(theta, value, np.zeros_like(theta), "converged", active.astype(np.intp), (), at)
        return Estimate(objective, optimum), again


def cluster_counts(sample: Sample) -> list[int]:
    """Clusters of each group; rows for a single level."""
    return [len(group.clusters.sizes) for group in sample.groups]
