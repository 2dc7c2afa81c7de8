"""Part of `_core`: many fits of a model, and samples for them."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from msem._core import Draws, Expressions, Objective

_Floats = NDArray[np.float64]

class GivenSamples(Draws):
    """Samples of groups, each (sizes, counts, means, scatter, ssw)."""

    def __init__(
        self, samples: Sequence[Sequence[tuple[_Floats, _Floats, _Floats, _Floats, _Floats]]]
    ) -> None: ...

class SelectedDraws(Draws):
    """Some of the unit variables, and some of all variables, of other draws."""

    def __init__(
        self, draws: Draws, unit: Sequence[int], all: Sequence[int], centred: bool = False
    ) -> None: ...

class ManyFits(TypedDict):
    theta: _Floats  # (R, npar)
    se: _Floats  # (R, npar)
    defined: _Floats  # (R, k)
    defined_se: _Floats  # (R, k)
    value: _Floats  # (R,)
    saturated: _Floats  # (R,)
    covariates: _Floats  # (R,)
    verdict: list[int]  # R
    iterations: list[int]  # R
    problem: list[str]  # R

class ManyFitter:
    """Rows of blocks are (relation, lhs, rhs, parameter or -1, value, start)."""

    def __init__(
        self,
        model: Objective,
        rows: Sequence[Sequence[tuple[int, int, int, int, float, float]]],
        lower: _Floats,
        upper: _Floats,
        filled: Sequence[Sequence[int]],
        covariates: Sequence[tuple[Sequence[int], Sequence[int]]],
        defined: Expressions,
        max_iterations: int = 60,
        tolerance: float = 1e-12,
        observed: bool = True,
        errors: bool = True,
    ) -> None: ...
    def fit(self, draws: Draws, first: int, last: int, threads: int = 1) -> ManyFits: ...

_Law = tuple[_Floats, _Floats, _Floats, _Floats, float]

class RowDraws(Draws):
    """Groups are (sizes, nboth, within, between); laws of a level (mean, root, polynomial, scale, df)."""

    def __init__(self, groups: Sequence[tuple[Sequence[int], int, _Law, _Law]], seed: int) -> None: ...
    def rows(self, replicate: int, group: int = 0) -> tuple[_Floats, _Floats]: ...
