"""Samples that are drawn when they are asked for, as sufficient statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import overload

from msem import _core
from msem.data.complete import SampleStatistics
from msem.data.draws import DrawsOrigin
from msem.model.variables import Variables

Drawn = SampleStatistics | dict[str, SampleStatistics]


@dataclass(frozen=True, eq=False)
class DrawnSamples(Sequence[Drawn]):
    """Statistics of samples number 0, 1, ... of a simulation; immutable.

    A sample is drawn when it is asked for, from its own stream of random numbers, so that a thousand of them take no
    memory. `CompiledModel.fit_many` fits them without making Python objects of them. Samples of several groups are
    dicts of group label to statistics.

    Attributes
    ----------
    variables : Variables
    labels : tuple of str
        Of the groups; empty for one group.
    origin : DrawsOrigin
        Where they come from.
    numbers : range
        Numbers of the samples in the streams of the seed.
    seed : int
    """

    variables: Variables
    labels: tuple[str, ...]
    origin: DrawsOrigin
    numbers: range
    seed: int

    @property
    def draws(self) -> _core.Draws:
        """Samples of any number, as compiled code draws them."""
        return self.origin.draws

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> Drawn: ...
    @overload
    def __getitem__(self, index: slice) -> DrawnSamples: ...
    def __getitem__(self, index: int | slice) -> Drawn | DrawnSamples:
        if isinstance(index, slice):
            return replace(self, numbers=self.numbers[index])
        groups = drawn_statistics(self.draws, self.variables, self.numbers[index])
        return dict(zip(self.labels, groups, strict=True)) if self.labels else groups[0]

    def __repr__(self) -> str:
        return (
            f"<msem.DrawnSamples: {len(self)} samples of {', '.join(self.variables.names)}, seed {self.seed}>"
        )


def drawn_statistics(draws: _core.Draws, variables: Variables, number: int) -> list[SampleStatistics]:
    """Statistics of one sample, of each group."""
    return [
        SampleStatistics(
            variables,
            float(one["sizes"] @ one["counts"]),
            float(one["counts"].sum()),
            one["sizes"],
            one["counts"],
            one["means"],
            one["scatter"],
            one["ssw"],
            "data",
        )
        for one in draws.statistics(number)
        if not isinstance(one, (_core.IncompleteData, _core.ReducedData))
    ]
