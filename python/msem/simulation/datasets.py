"""Samples that are drawn when they are asked for, as data frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, overload

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem import _core
from msem.model.variables import Variables
from msem.simulation.designs import Design


@dataclass(frozen=True, eq=False)
class DrawnData(Sequence[pd.DataFrame]):
    """Data of samples number 0, 1, ... of a simulation; immutable. A sample is drawn when it is asked for.

    Attributes
    ----------
    variables : Variables
    labels : tuple of str
        Of the groups; empty for one group.
    designs : tuple of Design
        Clusters of each group.
    draws : _core.RowDraws
    numbers : range
        Numbers of the samples in the streams of the seed.
    seed : int
    clusters : tuple of str
        Names of the columns with clusters, the highest first.
    group : str
        Name of the column with groups.
    categories : tuple of mapping of str to sequence
        Of each group: the ordered variables and their categories, ascending; empty without any.
    """

    variables: Variables
    labels: tuple[str, ...]
    designs: tuple[Design, ...]
    draws: _core.RowDraws
    numbers: range
    seed: int
    clusters: tuple[str, ...] = ("cluster",)
    group: str = "group"
    categories: tuple[Mapping[str, Sequence[Any]], ...] = ()

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> pd.DataFrame: ...
    @overload
    def __getitem__(self, index: slice) -> DrawnData: ...
    def __getitem__(self, index: int | slice) -> pd.DataFrame | DrawnData:
        if isinstance(index, slice):
            return replace(self, numbers=self.numbers[index])
        number = self.numbers[index]
        parts = []
        for k, design in enumerate(self.designs):
            part = self._group(number, k, design)
            parts.append(part.assign(**{self.group: self.labels[k]}) if self.labels else part)
        return pd.concat(parts, ignore_index=True)

    def _group(self, number: int, group: int, design: Design) -> pd.DataFrame:
        """Rows of one group; clusters are numbered through all groups before it."""
        drawn = self.draws.rows(number, group)
        columns = {} if not design.codes else design.identifiers(self.clusters, self.designs[:group])
        of_levels = zip(self.variables.measured, drawn, (None, *design.codes), strict=True)
        for names, values, codes in of_levels:
            columns |= {
                name: values[:, k] if codes is None else values[codes, k] for k, name in enumerate(names)
            }
        for name, labels in self.categories[group].items() if self.categories else ():
            columns[name] = _labelled(columns[name], labels)
        return pd.DataFrame(columns)

    def __repr__(self) -> str:
        return f"<msem.DrawnData: {len(self)} samples of {', '.join(self.variables.names)}, seed {self.seed}>"


def _labelled(numbers: NDArray[np.float64], labels: Sequence[Any]) -> Any:
    """Categories by their numbers: as they are if they are numbers themselves, or as an ordered categorical."""
    codes = numbers.astype(np.intp)
    if all(isinstance(label, Real) for label in labels):
        return np.asarray(labels)[codes]
    return pd.Categorical.from_codes(codes, dtype=pd.CategoricalDtype(list(labels), ordered=True))
