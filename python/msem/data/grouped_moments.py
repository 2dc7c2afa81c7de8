"""Saturated moments of several groups, as what a model of them is fitted to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from msem.data.moments import LevelMoments

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GroupedMoments:
    """Moments of the same variables in each group.

    Attributes
    ----------
    labels : tuple of str
        "" for a single group.
    groups : tuple of LevelMoments
        In the same order.
    influence : tuple of ndarray, shape (units, moments)
        Rows for each group whose outer products, also those of one group with another, are the sampling covariances
        of moments, where members of one primary sampling unit or stratum may be in several groups; else empty: groups
        are independent.
    """

    labels: tuple[str, ...]
    groups: tuple[LevelMoments, ...]
    influence: tuple[Floats, ...] = ()

    def __iter__(self) -> Iterator[tuple[str, LevelMoments]]:
        """Labels with their moments."""
        return zip(self.labels, self.groups, strict=True)

    @property
    def only(self) -> LevelMoments:
        """The moments of a single group.

        Raises
        ------
        AttributeError
            If there are several.
        """
        if len(self.groups) > 1:
            labels = ", ".join(map(repr, self.labels))
            raise AttributeError(f"this fit has several groups: ask fit.groups[...], one of {labels}")
        return self.groups[0]

    @property
    def nlevels(self) -> int:
        """Number of levels."""
        return len(self.groups[0].levels)

    @property
    def nobs(self) -> float:
        """Units of all groups."""
        return self.units_of(1)

    @property
    def nclusters(self) -> float:
        """Highest clusters of all groups."""
        return self.units_of(self.nlevels)

    def units_of(self, level: int) -> float:
        """Units of a level in all groups."""
        return sum(one.units[level - 1] for one in self.groups)

    def size_of(self, one: LevelMoments, level: int) -> float:
        """Degrees of freedom of a level of a group: its units, less those of the next one."""
        return one.units[level - 1] - (0.0 if self.is_highest(level) else one.units[level])

    def is_highest(self, level: int) -> bool:
        """Whether a level is the highest, whose means are fitted with its covariances."""
        return level == self.nlevels

    @property
    def given_as(self) -> str:
        """What the moments of the first group were given as."""
        return self.groups[0].given_as

    @property
    def needs_gamma(self) -> bool:
        """Whether in some group sample sizes do not tell how precise the moments are."""
        return any(one.needs_gamma for one in self.groups)

    def map(self, change: Callable[[LevelMoments], LevelMoments]) -> GroupedMoments:
        """The moments of each group changed, as those of the same data."""
        return replace(self, groups=tuple(map(change, self.groups)))

    def carrying(self, kind: Literal["observed", "expected"]) -> GroupedMoments:
        """The same with Gamma where it is needed."""
        return self.map(lambda one: one.with_acov(kind) if one.needs_gamma else one)
