"""Influence of single clusters on the estimates: what changes when each is left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem import _core
from msem.data.checks import regular_inverse
from msem.data.row_replicates import first_alike
from msem.data.sample import Sample, require_simple
from msem.errors import DataError, ModelError
from msem.estimation.discrepancy import LevelDiscrepancy
from msem.estimation.estimate import Estimate, require_converged, require_unpenalized
from msem.estimation.lookup import parameter_name
from msem.estimation.sampling import free_directions
from msem.estimation.solution import Solution
from msem.estimation.unit_statistics import unit_sizes
from msem.resampling.progress import Progress
from msem.resampling.refits import refit, refit_chosen
from msem.resampling.replicates import (
    FAILURES,
    Replicates,
    ReplicateSource,
    leave_one_out,
)
from msem.resampling.row_replicates import RowSource, row_source
from msem.settings import require_threads

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Influence:
    """What leaving out single clusters does; rows are left out of a single-level sample.

    Attributes
    ----------
    measures : DataFrame
        One row for each cluster, indexed by its id: size; cook, the generalized Cook's distance d'I d of the change d
        with the observed information I, wherever covariates are measured from; displacement, twice the log-likelihood
        of the whole sample lost by the estimates without the cluster; status, "ok" or why there are no numbers. With
        several groups also group. For least squares I is the inverse of the covariance matrix of the estimates, and
        displacement is what the squares of the whole sample grow by.
    change : DataFrame
        Estimates without the cluster less the estimates with it, a column for each parameter.
    standardized : DataFrame
        The same in standard errors.
    exact : bool
        Whether the model was refitted without each cluster.
    find : callable
        From any name of a parameter to the column that it has.
    """

    measures: pd.DataFrame
    change: pd.DataFrame
    standardized: pd.DataFrame
    exact: bool
    find: Callable[[str], str] = field(default=str, repr=False)

    def parameter(self, by: str) -> str:
        """The column of a parameter that is named in any way, as in ``fit.params``.

        Raises
        ------
        ModelError
            If there is no such parameter.
        """
        if by in self.standardized:
            return by
        try:
            return self.find(by)
        except ModelError as error:
            raise ModelError(
                f"by must be 'cook', 'displacement' or the name of a parameter, not {by!r}: {error}"
            ) from None

    def to_frame(self) -> pd.DataFrame:
        """Measures and changes side by side."""
        return pd.concat([self.measures, self.change], axis=1)

    def top(self, count: int = 10, *, by: str = "cook") -> pd.DataFrame:
        """Measures of the most influential clusters.

        Parameters
        ----------
        count : int
        by : str
            A column of `measures`, or the name of a parameter for the largest standardized changes.

        Raises
        ------
        ValueError
            If there is no such column or parameter.
        """
        if by not in ("cook", "displacement"):
            by = self.parameter(by)
            size = self.standardized[by].abs().fillna(-1.0).to_numpy()
            order = np.argsort(-size, kind="stable")[:count]
            return self.measures.iloc[order].assign(
                change=self.change[by].to_numpy()[order], standardized=self.standardized[by].to_numpy()[order]
            )
        return self.measures.sort_values(by, ascending=False, kind="stable").head(count)

    def __repr__(self) -> str:
        how = "exact" if self.exact else "approximate"
        return (
            f"<msem.Influence of {len(self.measures)} clusters on {self.change.shape[1]} parameters, {how}>"
        )


def influence_of(
    estimate: Estimate,
    sample: Sample,
    se: Floats,
    discrepancy: LevelDiscrepancy | None = None,
    *,
    exact: bool,
    clusters: Sequence[Any] | None,
    cluster: str,
    threads: int,
    show: bool,
) -> Influence:
    """Change of the estimates without each cluster.

    Parameters
    ----------
    estimate : Estimate
    sample : Sample
    se : ndarray, shape (npar,)
    discrepancy : LevelDiscrepancy, optional
        Of fits by least squares.
    exact : bool
    clusters : sequence, optional
        Ids; default: all.
    cluster : str
        Name of the index.
    threads : int
    show : bool
        Show progress.

    Raises
    ------
    DataError
        Without raw data, or if an id is unknown.
    UnsupportedError
        With a penalty, or weights, PSUs or strata.
    """
    require_converged(estimate, "measures of influence")
    require_unpenalized(estimate, "measures of influence")
    require_simple(sample, "measures of influence", "fit without them to look for influential clusters")
    sizes = [unit_sizes(group) for group in sample.groups]
    ids = sample.identifiers
    chosen = np.arange(len(ids)) if clusters is None else _positions(ids, clusters)
    find = _refits if exact else _steps
    with _core.ThreadLimit(threads):
        change, displacement, status = find(estimate, sample, discrepancy, chosen, threads, show)
        cook = _cook(estimate, change, discrepancy)
    index = ids[chosen].rename(cluster or None)
    measures = pd.DataFrame(
        {
            "size": np.concatenate(sizes)[chosen].astype(int),
            "cook": cook,
            "displacement": displacement,
            "status": status,
        },
        index=index,
    )
    if len(sizes) > 1:
        labels = np.repeat([group.label for group in sample.groups], [len(own) for own in sizes])
        measures.insert(0, "group", labels[chosen])
    names = list(estimate.table.names())
    with np.errstate(divide="ignore", invalid="ignore"):
        standardized = np.where(se > 0, change / se, np.nan)
    return Influence(
        measures,
        pd.DataFrame(change, index=index, columns=names),
        pd.DataFrame(standardized, index=index, columns=names),
        exact,
        partial(parameter_name, estimate.table),
    )


def _positions(ids: pd.Index[Any], clusters: Sequence[Any]) -> Integers:
    at = {name: k for k, name in enumerate(ids)}
    unknown = [name for name in clusters if name not in at]
    if unknown:
        raise DataError(f"there is no cluster {unknown[0]!r} in the data")
    repeated = ids[ids.duplicated()]
    shared = [name for name in clusters if name in repeated]
    if shared:
        raise DataError(
            f"several rows are called {shared[0]!r}: give the data an index without repeated labels"
        )
    return np.array([at[name] for name in clusters], dtype=np.intp)


def free_intercepts(estimate: Estimate) -> list[int]:
    """Intercepts that move alone: at no bound, and not bound to other parameters."""
    moved = estimate.tangent != 0
    single = (moved.sum(axis=1) == 1) & ~np.any(moved & (moved.sum(axis=0) > 1), axis=1)
    return [k for k in estimate.objective.core.intercepts() if single[k]]


def _cook(estimate: Estimate, change: Floats, discrepancy: LevelDiscrepancy | None) -> Floats:
    """Generalized Cook's distances of changes of theta, shape (J,).

    A mean such as a + lambda (gamma x) bends as lambda and gamma change, in proportion to x. Intercepts are taken where
    the change of the means would be straight, so that it does not matter where x is measured from.
    """
    core, theta, basis = estimate.objective.core, estimate.theta, free_directions(estimate)
    out, intercepts = np.full(len(change), np.nan), free_intercepts(estimate)
    known = np.flatnonzero(np.isfinite(change).all(axis=1))
    if not len(known) or not basis.shape[1]:
        return out
    straight = np.array([2 * d - (core.settle(theta, d, intercepts) - theta) for d in change[known]])
    factor = core.information_factor(theta)
    along = straight @ factor.T @ (factor @ basis)
    if discrepancy is None:
        metric = core.observed_information_in(theta, basis)
    else:
        inverse = regular_inverse(discrepancy.covariance())
        metric = np.full((basis.shape[1],) * 2, np.nan) if inverse is None else inverse
    out[known] = np.einsum("ja,ab,jb->j", along, metric, along)
    return out


def _steps(
    estimate: Estimate,
    sample: Sample,
    discrepancy: LevelDiscrepancy | None,
    chosen: Integers,
    threads: int,
    show: bool,
) -> tuple[Floats, Floats, list[str]]:
    """Changes by few steps from the estimates."""
    change = np.full((len(chosen), len(estimate.theta)), np.nan)
    displacement = np.full(len(chosen), np.nan)
    basis, intercepts = free_directions(estimate), free_intercepts(estimate)
    first = 0
    for number, group in enumerate(sample.groups):
        count = len(group.identifiers)
        mine = np.flatnonzero((chosen >= first) & (chosen < first + count))
        own = chosen[mine] - first
        first += count
        if not len(mine):
            continue
        if discrepancy is not None:
            change[mine], displacement[mine] = discrepancy.steps_without(
                estimate, basis, intercepts, group, number + 1, own, threads
            )
            continue
        core = estimate.objective.core_for(group.clusters)
        if group.statistics.integral is not None:  # the same for rows that are alike
            own = first_alike(group.rows, group.statistics.names, count)[own]
        own, which = np.unique(own, return_inverse=True)
        moved, lost = _core.leave_one_out_steps(
            core,
            estimate.theta,
            basis,
            intercepts,
            group.clusters.of(core.likelihoods[number]),
            own,
            number,
            threads=threads,
        )
        change[mine], displacement[mine] = moved[which], lost[which]
    status = ["ok" if np.isfinite(one) else "no step, refit" for one in displacement]
    return change, displacement, status


def _refits(
    estimate: Estimate,
    sample: Sample,
    discrepancy: LevelDiscrepancy | None,
    chosen: Integers,
    threads: int,
    show: bool,
) -> tuple[Floats, Floats, list[str]]:
    """Changes by refits without each cluster, from its sufficient statistics."""
    found = _refitted(estimate, sample, discrepancy, chosen, threads, show)
    ok = found.outcome == 0
    displacement = np.full(len(chosen), np.nan)
    top = estimate.objective.value(estimate.theta)
    displacement[ok] = [estimate.objective.value(theta) - top for theta in found.theta[ok]]
    displacement[~np.isfinite(displacement)] = np.nan
    status = ["ok" if code == 0 else FAILURES[int(code)] for code in found.outcome]
    return np.where(ok[:, None], found.theta - estimate.theta, np.nan), displacement, status


def _refitted(
    estimate: Estimate,
    sample: Sample,
    discrepancy: LevelDiscrepancy | None,
    chosen: Integers,
    threads: int,
    show: bool,
) -> Replicates:
    source: ReplicateSource | RowSource
    if estimate.table.ordered.thresholds or discrepancy is not None:
        source = row_source(estimate, sample, discrepancy, None)
    else:
        source = ReplicateSource(estimate, sample, leave_one_out(estimate, sample))
    total = len(sample.identifiers)
    if len(chosen) == total and (chosen == np.arange(total)).all():
        with Progress("influence", total, show) as progress:
            return refit(source, total, threads, progress)
    return refit_chosen(source, chosen.tolist())


def influence(
    fit: Solution,
    *,
    exact: bool = False,
    clusters: Sequence[Any] | None = None,
    threads: int | None = None,
    progress: bool = True,
) -> Influence:
    """Change of every estimate when a cluster is left out; a row, in a sample without clusters.

    Parameters
    ----------
    exact : bool
        Refit without each cluster, from the estimates and the sufficient statistics of the others. Otherwise the
        change is approximated from the scores and the information: by a scoring step for the other clusters and
        corrections of it, with the moments of fixed covariates as they are in the whole sample, along the
        tangent of nonlinear and active constraints. For least squares the statistics without the cluster come from
        such steps; their weights lose its part of the covariance matrix, but GLS keeps its own.
    clusters : sequence, optional
        Ids of clusters; default: all.
    threads : int, optional
        Default: one for each processor.
    progress : bool
        Show a bar on the standard error stream when refits take more than a second.

    Returns
    -------
    Influence
        Cook's distance, displacement of the likelihood or the squares, and changes of the estimates, raw and in
        standard errors.

    Raises
    ------
    DataError
        Without raw data, or if a cluster is unknown.
    ModelError
        If the fit has not converged.
    UnsupportedError
        With a penalty, or weights, PSUs or strata.

    References
    ----------
    Cook (1986). JRSS B, 48, 133-169. Pek & MacCallum (2011). Multivariate Behavioral Research, 46, 202-228.
    """
    return influence_of(
        fit.estimate,
        fit.sample,
        fit.standard_errors,
        fit.discrepancy,
        exact=exact,
        clusters=clusters,
        cluster=fit.options.cluster,
        threads=require_threads(threads),
        show=progress,
    )
