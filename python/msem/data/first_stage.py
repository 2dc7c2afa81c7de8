"""What the first stage of estimation leaves of ordered variables: estimates and their covariance matrix."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Statistic(NamedTuple):
    """One of the estimates: ``|`` threshold, ``~1`` mean, ``~`` slope on a covariate, ``~~`` (co)variance."""

    lhs: str
    op: str
    rhs: str
    level: int = 1


@dataclass(frozen=True, eq=False)
class FirstStage:
    """Estimates of the first stage with their covariance matrix.

    Attributes
    ----------
    keys : tuple of Statistic, length m
    values : ndarray, shape (m,)
    acov : ndarray, shape (m, m)
        Sampling covariance matrix.
    names, covariates : tuple of str
        Variables, and those that everything is conditional on.
    ordered : tuple of str
    at_bound : tuple of (str, str)
        Pairs whose correlation is at its bound of .999.
    influence : ndarray, shape (P, m), or None
        With primary sampling units or strata: what each unit adds, in the order of those of all groups; their outer
        products are `acov`.
    """

    keys: tuple[Statistic, ...]
    values: Floats
    acov: Floats
    names: tuple[str, ...]
    covariates: tuple[str, ...]
    ordered: tuple[str, ...]
    at_bound: tuple[tuple[str, str], ...] = ()
    influence: Floats | None = None

    def items(self) -> Iterator[tuple[Statistic, float]]:
        """Every estimate by its key."""
        return ((key, float(value)) for key, value in zip(self.keys, self.values, strict=True))

    def of(self, names: Collection[str]) -> FirstStage:
        """The estimates that are of some of the variables and covariates alone."""
        kept = [
            k
            for k, key in enumerate(self.keys)
            if key.lhs in names and (key.op in ("|", "~1") or key.rhs in names)
        ]
        return FirstStage(
            tuple(self.keys[k] for k in kept),
            self.values[kept],
            self.acov[np.ix_(kept, kept)],
            tuple(name for name in self.names if name in names),
            tuple(name for name in self.covariates if name in names),
            tuple(name for name in self.ordered if name in names),
            tuple(pair for pair in self.at_bound if set(pair) <= set(names)),
            None if self.influence is None else self.influence[:, kept],
        )
