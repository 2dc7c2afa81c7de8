"""Functions of the core refuse arrays of wrong shapes and positions out of range, which they would read beyond."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

import msem
from msem import _core

MODEL = "level: 1\n fw =~ y1 + y2 + y3\nlevel: 2\n fb =~ y1 + y2 + y3\n"
FAR = 2**31 - 1


@cache
def fit() -> msem.Fit:
    return msem.sem(MODEL, msem.load_demo(), cluster="cluster")


@cache
def holes() -> _core.IncompleteData:
    data = msem.load_demo()
    data.loc[::9, "y2"] = np.nan
    return msem.sem(MODEL, data, cluster="cluster", missing="fiml").statistics.data


def restored(place: int, value: Callable[[Any], Any]) -> _core.IncompleteData:
    """Data with holes from a state of which one part is another."""
    state = list(holes().__getstate__())
    state[place] = value(state[place])
    made = _core.IncompleteData.__new__(_core.IncompleteData)
    made.__setstate__(tuple(state))
    return made


def clusters() -> _core.Clusters:
    return fit().sample.clusters[0].of(fit().statistics.likelihood())


def design(**changes: Any) -> _core.ParametricDraws:
    s = fit().statistics
    given = {name: np.asarray(getattr(s, name)) for name in ("sizes", "counts", "means", "scatter", "ssw")}
    moments = [(np.zeros(3), np.eye(3)), (np.zeros(3), np.eye(3))]
    group = {**given, "moments": moments, "covariate": [], "centred": False, **changes}
    return _core.ParametricDraws([group], 1)


def with_holes(unit: list[int], cov: np.ndarray) -> _core.IncompleteParametricDraws:
    moments = [(np.zeros(3), cov), (np.zeros(3), np.eye(3))]
    return _core.IncompleteParametricDraws([(holes(), moments, [unit, []])], 1)


def theta() -> np.ndarray:
    return fit().theta


CALLS: dict[str, Callable[[], Any]] = {
    "inverse of no square": lambda: _core.scaled_inverse(np.zeros((256, 0))),
    "inverse of a rectangle": lambda: _core.scaled_inverse(np.ones((5, 3))),
    "block of variables without entries": lambda: _core.Block(4, 10**6, [0], [1], [2], [0], [0.0]),
    "intercept out of range": lambda: fit().objective.core.settle(theta(), 0 * theta(), [FAR]),
    "change of other length": lambda: fit().objective.core.settle(theta(), np.zeros(2), []),
    "basis of other height": lambda: fit().objective.core.observed_information_in(theta(), np.ones((3, 2))),
    "iterations below 0": lambda: _core.fit_saturated(fit().statistics.likelihood(), max_iterations=-1),
    "tolerance nan": lambda: _core.fit_saturated(fit().statistics.likelihood(), True, tolerance=np.nan),
    "cluster out of range": lambda: _core.leave_one_out_steps(
        fit().objective.core, theta(), np.eye(len(theta())), [], clusters(), [FAR]
    ),
    "steps in another basis": lambda: _core.leave_one_out_steps(
        fit().objective.core, theta(), np.eye(2), [], clusters(), [0]
    ),
    "trace of other moments": lambda: _core.saturated_trace(
        clusters(), [(np.zeros(2), np.eye(2)), (np.zeros(3), np.eye(3))], [False] * 3
    ),
    "design of a rectangle": lambda: design(moments=[(np.zeros(3), np.ones((3, 1)))] * 2),
    "design without counts": lambda: design(counts=np.ones(1)),
    "design of size 0": lambda: design(sizes=np.zeros(len(fit().statistics.sizes))),
    "design with a covariate too many": lambda: design(covariate=[3]),
    "holes with a covariate too many": lambda: with_holes([7], np.eye(3)),
    "holes with other moments": lambda: with_holes([], np.ones((3, 2))),
    "cells beyond the patterns": lambda: restored(8, lambda x: np.full_like(x, 10**9)),
    "cells that begin nowhere": lambda: restored(7, lambda x: x[::-1].copy()),
    "no cells": lambda: restored(7, lambda x: x[:0]),
    "fewer scatter matrices": lambda: restored(6, lambda x: x[:1]),
    "means of other variables": lambda: restored(10, lambda x: x[:1]),
    "clusters beyond the patterns": lambda: restored(12, lambda x: x - 1),
    "weights of fewer": lambda: restored(14, lambda x: x[:2]),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_wrong_shapes_are_refused(call: Callable[[], Any]) -> None:
    with pytest.raises((ValueError, TypeError, IndexError)):
        call()


def test_what_is_right_passes() -> None:
    assert restored(14, lambda x: x).nclusters == holes().nclusters
    assert design().statistics(0)[0]["ssw"].shape == (3, 3)
    assert len(with_holes([], np.eye(3)).statistics(0)) == 1
    empty = fit().objective.core.observed_information_in(theta(), np.zeros((len(theta()), 0)))
    assert empty.size == 0
