"""Checks that variables are what a model takes them for: measured, varying, at the right level, not copies of others.

One check per function, of names and arrays, which yields a `Finding` for each variable that is not, with the remedy.
Whether a model has a maximum is not looked at here and does not follow from numbers of clusters and variables: it is
tried. Of several groups one may lack what another one has, since equal parameters carry over: see `refuse`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem import _core
from msem.errors import DataError, DataWarning, warn
from msem.model.variables import Variables

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

# Share of a variable's variance that the others must leave unexplained; below it too few digits are left.
COLLINEAR = 1e-10
# Values that are looked at before all of them are.
PREFIX = 1024
# Within-cluster variation of a few units in the last place is rounding.
ROUNDING = 8 * np.finfo(np.float64).eps
# Variance; the largest is as far from 1.
SMALLEST = 1e-150
NAMED = 6  # variables that a dependence lists
# What missing values are coded as, and of these what a count may be once.
CODES = {sign * float(str(digit) * n) for digit in (7, 8, 9) for n in range(1, 6) for sign in (-1, 1)}
ONCE = {7.0, 8.0, 9.0}
LOOKED_AT = 1 << 16  # rows in which such codes are looked for


@dataclass(frozen=True, slots=True)
class Finding:
    """What a group of a sample cannot be used for.

    Attributes
    ----------
    kind : str
        Of finding.
    names : tuple of str
        Variables that it is about.
    text : str
        What was found, and what to do.
    """

    kind: str
    names: tuple[str, ...]
    text: str

    def error(self, label: str) -> DataError:
        """It as an error about a group; its label is empty if there is only one."""
        return DataError(f"group {label!r}: {self.text}" if label else self.text)


def report(found: Iterable[Finding], into: list[Finding] | None) -> None:
    """Keep what was found, or raise the first.

    Raises
    ------
    DataError
    """
    findings = list(found)
    if into is not None:
        into.extend(findings)
    elif findings:
        raise DataError(findings[0].text)


def refuse(groups: Sequence[Sequence[Finding]], labels: Sequence[str]) -> None:
    """Refuse a sample for what was found in all of its groups.

    Raises
    ------
    DataError
        With the first such finding.
    """
    for label, findings in zip(labels, groups, strict=True):
        for one in findings:
            if all(
                any((other.kind, other.names) == (one.kind, one.names) for other in others)
                for others in groups
            ):
                raise one.error(label)


def warn_of_codes(parts: Sequence[Mapping[str, Floats]]) -> None:
    """Point out values of variables that look like codes for missing ones.

    Parameters
    ----------
    parts : sequence of mapping of str to ndarray
        The variables of the rows of each group.
    """
    found = []
    for name in parts[0] if parts else ():
        columns = [part[name] for part in parts]
        for code in far_codes(columns):
            count = sum(int((column == code).sum()) for column in columns)
            if count > 1 or code not in ONCE:
                found.append((name, code, count))
    if not found:
        return
    texts = [f"{name!r} has the value {code:g} in {count} rows" for name, code, count in found]
    first = f"{found[0][1]:g}"
    warn(
        f"{', '.join(texts[:-1]) + ' and ' if found[1:] else ''}{texts[-1]}, far from all others: if that stands for a "
        f"missing value, make it one, data.replace({first}, numpy.nan) or msem.read_data(path, missing={first}), "
        f"--na-values {first} on the command line",
        DataWarning,
    )


def far_codes(columns: Sequence[Floats]) -> list[float]:
    """Values of a variable such as 99 and -999 that are farther from all others than these spread.

    Parameters
    ----------
    columns : sequence of ndarray
        The variable in the rows of each group. Of many rows some are looked at.
    """
    step = max(1, sum(map(len, columns)) // LOOKED_AT)
    values = (
        columns[0][::step] if len(columns) == 1 else np.concatenate([column[::step] for column in columns])
    )
    if not len(values):
        return []
    lowest, highest = float(values.min()), float(values.max())
    if math.isnan(lowest):
        values = values[~np.isnan(values)]
        if not len(values):
            return []
        lowest, highest = float(values.min()), float(values.max())
    if lowest not in CODES and highest not in CODES:
        return []
    coded = np.isin(values, list(CODES))
    rest = values[~coded]
    if not len(rest):
        return []
    spread = max(float(np.ptp(rest)), 1.0)
    codes = np.unique(values[coded]).tolist()
    return [code for code in codes if max(rest.min() - code, code - rest.max()) > spread]


def require_complete_rows(
    keep: Bools,
    dropped: Mapping[str, int],
    no_cluster: Bools,
    cluster: str | None,
    nrows: int,
    what: str = "complete row",
) -> None:
    """Refuse data of which no row is left."""
    if keep.any():
        return
    raise no_row_left(dropped, int(no_cluster.sum()), cluster, nrows, what)


def no_row_left(
    dropped: Mapping[str, int], no_cluster: int, cluster: str | None, nrows: int, what: str = "complete row"
) -> DataError:
    """Error for data of which no row is left, with what is missing in how many."""
    counts = [f"{name!r} is missing in {count}" for name, count in dropped.items()]
    if no_cluster:
        counts.append(f"cluster id {cluster!r} is missing in {no_cluster}")
    return DataError(f"no {what} is left of {nrows}: {', '.join(counts)}; check how missing values are coded")


def unvarying(columns: Mapping[str, Floats]) -> Iterator[Finding]:
    """Variables with the same value in every row."""
    for name, column in columns.items():
        if len(column) and (column[:PREFIX] == column[0]).all() and (column == column[0]).all():
            yield constant(name, column[0])


def constant(name: str, value: float) -> Finding:
    """A variable that always has one value."""
    return Finding(
        "constant", (name,), f"variable {name!r} is constant (always {value:g}): take it out of the model"
    )


def undivided(nobs: int, nclusters: int, unit: Sequence[str]) -> Iterator[Finding]:
    """A single cluster, and clusters that all have one unit."""
    if nclusters < 2:
        yield Finding(
            "clusters",
            (),
            "all rows belong to one cluster; a two-level model needs at least two clusters: "
            "check the cluster column, or fit a single-level model",
        )
    if unit and nobs == nclusters:
        yield Finding(
            "units",
            (),
            f"each of the {nclusters} clusters has one unit, so within and between cannot be told apart: "
            "check the cluster column, or fit a single-level model",
        )


def unobserved(names: Sequence[str], count: Floats) -> Iterator[Finding]:
    """Variables without an observed value; `count` is how many each has."""
    for name, n in zip(names, count, strict=True):
        if not n:
            yield Finding(
                "unobserved",
                (name,),
                f"variable {name!r} has no observed value: take it out of the model",
            )


def seldom_observed(variables: Variables, count: Floats, clusters: Floats) -> Iterator[Finding]:
    """Variables with too few observed values for the levels they are used at.

    `count` values of each are observed, in so many `clusters`.
    """
    both, above = set(variables.both), {*variables.both, *variables.cluster}
    for k, name in enumerate(variables.names):
        if clusters[k] == 1 and name in above:
            yield Finding(
                "clusters",
                (name,),
                f"variable {name!r} is in the level-2 block, but is observed in one cluster only: take it out of the "
                "level-2 block",
            )
        if name in both and count[k] and count[k] == clusters[k]:
            yield Finding(
                "units",
                (name,),
                f"variable {name!r} is in the level-1 block, but no cluster has two observed values of it, so within "
                f"and between cannot be told apart: take it out of the model",
            )


def require_constant_within(
    names: Sequence[str],
    varying: Sequence[tuple[int, Sequence[int]]],
    ids: pd.Index[Any],
    *,
    given: str = "the level-2 block",
    clusters: str = "clusters",
    wanted: str = "the level-1 block",
) -> None:
    """Refuse variables of clusters that differ between units of a cluster.

    `varying` has in how many clusters each does, and some of these; `given` is where the variables stand, `wanted`
    where they have to stand too, and `clusters` how those that `ids` names are called.

    Raises
    ------
    DataError
    """
    for name, (count, some) in zip(names, varying, strict=True):
        if count:
            first = ", ".join(str(ids[each]) for each in some)
            raise DataError(
                f"variable {name!r} is in {given} only, but varies within {count} of {len(ids)} {clusters} (such as "
                f"{first}): put it in {wanted} too, or use its cluster mean"
            )


def require_scale(names: Sequence[str], variances: Floats | Sequence[float]) -> None:
    """Refuse variables in units in which the information about their variance, 1 / variance^2, is not a number.

    Raises
    ------
    DataError
        Naming the first.
    """
    for name, variance in zip(names, variances, strict=True):
        if 0 < variance < SMALLEST or variance > 1 / SMALLEST:
            what = "small" if variance < 1 else "large"
            raise DataError(
                f"variable {name!r} has a variance of {variance:.3g}, too {what} to compute with: rescale it"
            )


def unvarying_within(
    unit: Sequence[str],
    both: Collection[str],
    constant: Sequence[bool],
    ssw: Floats,
    nobs: int | Floats,
    size: Floats,
) -> Iterator[Finding]:
    """Level-1 variables that do not vary within clusters; `both` have a part at a higher level, too.

    `ssw` is the diagonal of the pooled sums of squares, `size` the typical magnitude of each variable, against which
    rounding is judged.
    """
    spread = np.sqrt(ssw / nobs)
    for k, name in enumerate(unit):
        if constant[k] or spread[k] <= ROUNDING * size[k]:
            remedy = "take it out of the level-1 block" if name in both else "move it to the level-2 block"
            yield Finding(
                "within",
                (name,),
                f"variable {name!r} is in the level-1 block, but does not vary within clusters: "
                f"it is measured on clusters; {remedy}",
            )


def unvarying_between(
    both: Sequence[str], ssw: Floats, scatter: Floats, nobs: int | Floats, nclusters: int | Floats
) -> Iterator[Finding]:
    """Variables at both levels whose cluster means are all the same.

    Cluster means vary at least as much as sampling makes them, the within variance over the cluster size. `ssw` and
    `scatter` are sums of squares within clusters and of cluster means.
    """
    q = len(both)
    with np.errstate(divide="ignore", invalid="ignore"):  # a group may have one cluster, or none of two units
        sampling = (ssw / (nobs - nclusters) * nclusters / nobs)[:q]
        lacking = (scatter / (nclusters - 1))[:q] < COLLINEAR * sampling
    for name, flat in zip(both, lacking, strict=True):
        if flat:
            yield Finding(
                "between",
                (name,),
                f"variable {name!r} is in the level-2 block, but its cluster means are all the same (was it "
                "centred within clusters?): take it out of the level-2 block",
            )


def dependent(
    scatter: Floats, names: Sequence[str], where: str, passing: Container[int] = ()
) -> Iterator[Finding]:
    """The first variable that others determine; `where` says at which level.

    Relations among variables that are all `passing` do not count.
    """
    found = first_dependence(scatter, passing)
    if found is None:
        return
    last, others = found
    listed = " and ".join(repr(names[k]) for k in others[:NAMED])
    more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
    yield Finding(
        "dependent",
        (names[last], *(names[k] for k in others)),
        f"variable {names[last]!r} is a linear combination of {listed}{more}{where}, so their covariance matrix is "
        "singular: take one of them out of the model",
    )


def first_dependence(scatter: Floats, passing: Container[int] = ()) -> tuple[int, list[int]] | None:
    """First variable that the ones before it determine, and those of them that it depends on.

    One that depends on variables that are all `passing`, as it is itself, is passed over; and so are variables that do
    not vary.
    """
    return _core.first_dependence(scatter, [k in passing for k in range(len(scatter))], COLLINEAR)
