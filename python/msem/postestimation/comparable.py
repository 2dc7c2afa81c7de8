"""Whether the likelihoods of two fits can be compared: same data, same variables, given the same covariates."""

from __future__ import annotations

import numpy as np

from msem.data.complete import SampleStatistics
from msem.data.incomplete import IncompleteStatistics, Statistics
from msem.errors import DataError, ModelError
from msem.estimation.estimate import Estimate

SAME = 1e-8  # relative difference of moments that counts as none


def require_comparable(one: Estimate, two: Estimate, names: tuple[str, str]) -> None:
    """Refuse to compare fits of different data, variables or covariates.

    Parameters
    ----------
    one, two : Estimate
    names : tuple of str
        What the fits are called in messages.

    Raises
    ------
    DataError
        Naming what differs: variables, their levels, groups, numbers of units or clusters, values.
    ModelError
        When the likelihoods condition on different covariates, or only one has means.
    """
    first, second = names
    if len(one.objective.statistics) != len(two.objective.statistics):
        raise DataError(f"{first} and {second} have different numbers of groups")
    if one.table.nlevels != two.table.nlevels:
        raise DataError(f"{first} and {second} have different numbers of levels")
    for a, b in zip(one.objective.statistics, two.objective.statistics, strict=True):
        _require_same_variables(a, b, names)
        _require_same_data(a, b, names)
    if one.table.meanstructure != two.table.meanstructure:
        raise ModelError(f"only one of {first} and {second} has means: fit both with meanstructure=True")
    _require_same_covariates(one, two, names)


def _roles(s: Statistics) -> dict[str, str]:
    both = dict.fromkeys(s.unit[: s.nboth], "at both levels")
    within = dict.fromkeys(s.unit[s.nboth :], "at the within level only")
    return both | within | dict.fromkeys(s.cluster, "at the between level only")


def _require_same_variables(a: Statistics, b: Statistics, names: tuple[str, str]) -> None:
    first, second = names
    mine, theirs = _roles(a), _roles(b)
    for name in dict.fromkeys([*mine, *theirs]):
        if name not in mine or name not in theirs:
            having, lacking = (first, second) if name in mine else (second, first)
            raise DataError(
                f"{having} has the variable '{name}' and {lacking} does not: likelihoods can be compared for the same "
                f"variables only; keep '{name}' in the model with its parameters fixed at 0, as in 'y ~ 0*{name}'"
            )
        if mine[name] != theirs[name]:
            raise DataError(
                f"'{name}' is {mine[name]} in {first} and {theirs[name]} in {second}: write it at the same levels in "
                f"both, with a variance fixed at 0 where it has none, as in '{name} ~~ 0*{name}'"
            )


def _require_same_data(a: Statistics, b: Statistics, names: tuple[str, str]) -> None:
    first, second = names
    counts = [("units", a.nobs, b.nobs)] + ([("clusters", a.nclusters, b.nclusters)] if a.unit else [])
    for what, mine, theirs in counts:
        if mine != theirs:
            raise DataError(
                f"{first} and {second} were fitted to different data: {mine:g} and {theirs:g} {what}; rows with "
                "missing values may have been dropped for one of them"
            )
    if not (np.array_equal(a.sizes, b.sizes) and np.array_equal(a.counts, b.counts)):
        raise DataError(
            f"{first} and {second} were fitted to different data: the sizes of their clusters differ"
        )
    if isinstance(a, IncompleteStatistics) or isinstance(b, IncompleteStatistics):
        _require_same_observed(a, b, names)
        return
    other = b.restrict(a.unit, a.cluster, a.nboth)
    for k, name in enumerate(a.names):
        if not np.isclose(a.total_mean[k], other.total_mean[k], rtol=SAME, atol=SAME * _spread(a, k)):
            raise DataError(
                f"{first} and {second} were fitted to different data: the means of '{name}' differ"
            )
    unit = np.sqrt([_spread(a, k) ** 2 * a.nobs for k in range(len(a.names))])
    gap = np.abs(a.cluster_scatter - other.cluster_scatter) / np.outer(unit, unit)
    p = len(a.unit)
    gap[:p, :p] += np.abs(a.ssw - other.ssw) / np.outer(unit[:p], unit[:p])
    if gap.max() > SAME:
        own = gap.diagonal()
        i, j = np.unravel_index(gap.argmax(), gap.shape)
        what = f"covariances of '{a.names[i]}' and '{a.names[j]}'"
        if own.max() > SAME:
            what = f"variances of '{a.names[own.argmax()]}'"
        raise DataError(f"{first} and {second} were fitted to different data: the {what} differ")


def _require_same_observed(a: Statistics, b: Statistics, names: tuple[str, str]) -> None:
    """The same for data with holes: numbers of observed values, their means and variances."""
    different = f"{names[0]} and {names[1]} were fitted to different data: "
    if not (isinstance(a, IncompleteStatistics) and isinstance(b, IncompleteStatistics)):
        raise DataError(f"{different}only one of them has values missing")
    other = b.restrict(a.unit, a.cluster, a.nboth)
    sd = np.sqrt(a.observed[2])
    for what, mine, theirs, unit in zip(
        ("numbers of observed values", "means", "variances"),
        a.observed,
        other.observed,
        (np.ones_like(sd), sd, sd**2),
        strict=True,
    ):
        gap = np.abs(mine - theirs) / unit
        if gap.max() > SAME:
            raise DataError(f"{different}the {what} of '{a.names[int(gap.argmax())]}' differ")


def _spread(s: SampleStatistics, k: int) -> float:
    """Standard deviation of a variable over all units, or clusters."""
    squares = float(s.cluster_scatter[k, k]) + (float(s.ssw[k, k]) if k < len(s.unit) else 0.0)
    return float(np.sqrt(squares / s.nobs))


def _require_same_covariates(one: Estimate, two: Estimate, names: tuple[str, str]) -> None:
    """Moments that come from the sample in one model and are estimated in the other do not count alike."""
    for group in range(1, one.table.ngroups + 1):
        for level in range(1, one.table.nlevels + 1):
            fixed = [set(fit.table.exogenous(level, group)) for fit in (one, two)]
            for name in sorted(fixed[0] ^ fixed[1]):
                having, lacking = names if name in fixed[0] else names[::-1]
                raise ModelError(
                    f"{having} takes the moments of the covariate '{name}' from the sample and {lacking} estimates "
                    "them: fit both with fixed_x=False"
                )
