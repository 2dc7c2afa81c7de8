"""One engine: every way to a fit leads to the same one, to the last digit, in samples that are hard."""

from __future__ import annotations

import functools
import warnings
from typing import NamedTuple

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import msem
from msem.errors import MsemError, MsemWarning
from msem.estimation.estimate import Estimate
from msem.fits.manyfits import ManyFits
from msem.resampling.refits import refit_chosen
from msem.resampling.replicates import ReplicateSource, cluster_counts, leave_one_out, ordinary_origin
from msem.simulation.drawn import drawn_statistics

ITEMS = [f"y{k}" for k in range(1, 7)]
ONE = f"level: 1\n fw =~ {' + '.join(ITEMS[:4])}\nlevel: 2\n fb =~ {' + '.join(ITEMS[:4])}"
TWO = """
level: 1
 fw =~ y1 + y2 + y3
 gw =~ y4 + y5 + y6
 gw ~ fw
level: 2
 fb =~ y1 + y2 + y3
 gb =~ y4 + y5 + y6
 gb ~ fb
"""
MODELS = {"one factor": ONE, "two factors": TWO}


def population(model: str, between: float) -> str:
    """A population of the model in which the between level has little variance."""
    items = ITEMS[:4] if model is ONE else ITEMS
    lines: list[str] = []
    for level, f, g, size in ((1, "fw", "gw", 1.0), (2, "fb", "gb", between)):
        lines.append(f"level: {level}")
        for k, item in enumerate(items):
            factor = f if model is ONE or k < 3 else g
            lines += [f" {factor} =~ {1 - 0.1 * (k % 3)}*{item}", f" {item} ~~ {0.6 * size:.4g}*{item}"]
        lines.append(f" {f} ~~ {size:.4g}*{f}")
        if model is TWO:
            lines += [f" {g} ~~ {0.8 * size:.4g}*{g}", f" {g} ~ 0.4*{f}"]
    return "\n".join(lines)


def samples(model: str, nclusters: int, between: float, count: int):
    return msem.simulate(
        population(model, between),
        nclusters=nclusters,
        cluster_sizes=[3, 5, 8],
        seed=7,
        replications=count,
        as_="statistics",
    )


class Result(NamedTuple):
    """What has to be the same."""

    status: str
    theta: list[float]
    llf: float


def by_sem(model: str, sample: object, **options: object) -> Result:
    try:
        fit = msem.sem(model, sample, **options)
    except MsemError:
        return Result("failed", [], np.nan)
    if not fit.converged:
        return Result(fit.status, [], np.nan)
    return Result(fit.status, fit.params.tolist(), fit.llf)


def by_many(many: ManyFits, k: int) -> Result:
    row = many.fits.iloc[k]
    theta = many.params.iloc[k].tolist() if row["converged"] else []
    return Result(row["status"], theta, row["llf"])


def assert_same(found: Result, wanted: Result) -> None:
    assert found.status == wanted.status
    assert_array_equal(found.theta, wanted.theta)
    assert_array_equal(found.llf, wanted.llf)


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MsemWarning)
        yield


@pytest.mark.parametrize("between", [0.01, 0.1])
@pytest.mark.parametrize("nclusters", [20, 40, 60])
@pytest.mark.parametrize("name", MODELS)
def test_many_fits_are_those_of_sem(name: str, nclusters: int, between: float) -> None:
    model = MODELS[name]
    drawn = samples(model, nclusters, between, 12)
    many = msem.compile(model).fit_many(drawn, threads=2, progress=False)
    for k, sample in enumerate(drawn):
        assert_same(by_many(many, k), by_sem(model, sample))


@pytest.mark.parametrize(
    "options",
    [{"information": "expected"}, {"se": "none"}, {"std_lv": True}, {"max_iterations": 20}],
    ids=["expected", "no errors", "std_lv", "few iterations"],
)
def test_options_mean_the_same(options: dict[str, object]) -> None:
    drawn = samples(TWO, 20, 0.05, 6)
    many = msem.compile(TWO, **options).fit_many(drawn, progress=False)
    for k, sample in enumerate(drawn):
        assert_same(by_many(many, k), by_sem(TWO, sample, **options))


def test_constraints_are_those_of_sem() -> None:
    model = TWO.replace("fb =~ y1 + y2 + y3", "fb =~ y1 + a*y2 + b*y3\n y2 ~~ v*y2") + "\na == b\nv > 0"
    drawn = samples(TWO, 30, 0.05, 5)
    many = msem.compile(model).fit_many(drawn, progress=False)
    assert many.fits["converged"].any()
    for k, sample in enumerate(drawn):
        assert_same(by_many(many, k), by_sem(model, sample))


@functools.cache
def hard_fit(model: str, nclusters: int) -> msem.Fit:
    """The first sample in which the model has a maximum."""
    frames = msem.simulate(
        population(model, 0.15), nclusters=nclusters, cluster_sizes=[3, 5, 8], seed=3, replications=10
    )
    fits = (msem.sem(model, frame, cluster="cluster") for frame in frames)
    return next(fit for fit in fits if fit.converged)


def assert_refits_are_those_of_sem(
    model: str, estimate: Estimate, source: ReplicateSource, count: int
) -> None:
    refits = refit_chosen(source, range(count))
    s = source.sample.groups[0].statistics
    variables = s.variables
    for r in range(count):
        (drawn,) = drawn_statistics(source.origin.draws, variables, r)
        wanted = by_sem(model, drawn, space=source.sample.space)
        assert (refits.outcome[r] == 0) == bool(wanted.theta)
        if wanted.theta:
            assert_array_equal(refits.theta[r], wanted.theta)
            assert -0.5 * refits.value[r] - estimate.objective.covariate_llf == wanted.llf


@pytest.mark.parametrize("nclusters", [20, 40])
@pytest.mark.parametrize("name", MODELS)
def test_bootstrap_replicates_are_fits_of_sem(name: str, nclusters: int) -> None:
    fit = hard_fit(MODELS[name], nclusters)
    source = ReplicateSource(fit.estimate, fit.sample, ordinary_origin(fit.estimate, fit.sample, 11))
    assert_refits_are_those_of_sem(MODELS[name], fit.estimate, source, 8)


@pytest.mark.parametrize("name", MODELS)
def test_leave_one_out_values_are_fits_of_sem(name: str) -> None:
    fit = hard_fit(MODELS[name], 20)
    source = ReplicateSource(fit.estimate, fit.sample, leave_one_out(fit.estimate, fit.sample))
    assert_refits_are_those_of_sem(MODELS[name], fit.estimate, source, cluster_counts(fit.sample)[0])
