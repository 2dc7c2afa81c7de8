"""Names of variables by level."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Variables:
    """Names of variables by level.

    Attributes
    ----------
    levels : tuple of tuple of str
        Level 1 first. A variable with parts at several levels stands in each; those shared with the next level come
        first, and first in that level too. A single level is ``(names,)``.
    """

    levels: tuple[tuple[str, ...], ...]

    @classmethod
    def of_one_level(cls, names: Sequence[str]) -> Variables:
        """Variables of single-level data."""
        return cls((tuple(names),))

    @classmethod
    def of_units_and_clusters(cls, unit: Sequence[str], cluster: Sequence[str], both: int) -> Variables:
        """Variables measured on units, the first ones at two levels, and on clusters; a single level without units."""
        return cls((tuple(unit), (*unit[:both], *cluster))) if unit else cls.of_one_level(cluster)

    @classmethod
    def of_levels(cls, levels: Sequence[Sequence[str]]) -> Variables:
        """Variables by level, each level in the order of `names`: by the level that they are measured on."""
        names: dict[str, None] = {}
        for level, own in enumerate(levels):
            above = {name for upper in levels[level + 1 :] for name in upper}
            names |= dict.fromkeys(sorted(own, key=lambda name: name not in above))
        return cls(tuple(tuple(name for name in names if name in own) for own in levels))

    @cached_property
    def unit(self) -> tuple[str, ...]:
        """Variables measured on units of clusters, those at both levels first; none for a single level."""
        return self.levels[0] if len(self.levels) > 1 else ()

    @cached_property
    def cluster(self) -> tuple[str, ...]:
        """Variables measured on clusters of any level, the lower ones first, or on the rows of a single level."""
        if len(self.levels) < 2:
            return self.levels[0]
        return tuple(name for measured in self.measured[1:] for name in measured)

    @cached_property
    def measured(self) -> tuple[tuple[str, ...], ...]:
        """Variables by the level that they are measured on, the lowest that has a part of them."""
        seen: set[str] = set()
        out = []
        for own in self.levels:
            out.append(tuple(name for name in own if name not in seen))
            seen.update(own)
        return tuple(out)

    @cached_property
    def alone(self) -> tuple[tuple[str, ...], ...]:
        """Variables that stand at one level only, by that level."""
        counts = Counter(name for own in self.levels for name in own)
        return tuple(tuple(name for name in own if counts[name] == 1) for own in self.levels)

    @cached_property
    def numbers(self) -> list[list[int]]:
        """The variables of each level by their positions among `names`."""
        at = {name: k for k, name in enumerate(self.names)}
        return [[at[name] for name in own] for own in self.levels]

    @cached_property
    def both(self) -> tuple[str, ...]:
        """Variables measured on units that have a part at a higher level, too; they come first among these."""
        above = {name for own in self.levels[1:] for name in own}
        return tuple(name for name in self.unit if name in above)

    def with_last(self, names: Sequence[str]) -> Variables:
        """The same with some of the variables of level 1 in its last places."""
        lowest, *above = self.levels
        return Variables(((*(name for name in lowest if name not in names), *names), *above))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every variable once: the order of mean vectors."""
        return self.unit + self.cluster

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """Numbers of variables measured on units, of those at both levels, and of those measured on clusters."""
        return len(self.unit), len(self.both), len(self.cluster)

    def top(self, name: str) -> int:
        """The highest level that a variable is at: where its mean belongs."""
        return max(level for level, names in enumerate(self.levels, 1) if name in names)

    def summed(self, parts: Sequence[Floats]) -> Floats:
        """Arrays by level with a row for each variable, as one by `names`: rows of a variable are added up."""
        if len(parts) == 1:
            return parts[0]
        at = {name: k for k, name in enumerate(self.names)}
        out = np.zeros((len(at), *parts[0].shape[1:]))
        for own, part in zip(self.levels, parts, strict=True):
            out[[at[name] for name in own]] += part
        return out

    @cached_property
    def places(self) -> dict[str, str]:
        """Where each variable is, in words."""
        if len(self.levels) > 2:
            at = {name: [k for k, own in enumerate(self.levels, 1) if name in own] for name in self.names}
            return {name: f"at level {' and '.join(map(str, levels))}" for name, levels in at.items()}
        both = dict.fromkeys(self.both, "at both levels")
        below = dict.fromkeys(self.unit, "at the within level only")
        return below | both | dict.fromkeys(self.cluster, "at the between level only")
