"""Scoring by conjugate gradients: the same maximum as by the information matrix."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import fits
from msem import _core
from msem.data.complete_rows import sample_statistics
from msem.data.frames import clustered_data
from msem.data.sample import Sample
from msem.estimation.estimate import estimate, starts
from msem.estimation.matrices import fill_exogenous
from msem.estimation.objective import Objective, build_objective
from msem.estimation.optimize import bounds
from msem.language.syntax import parse
from msem.model.derived import level_baseline_table, partially_saturated_table
from msem.model.partable import ParameterTable, parameter_table
from msem.postestimation.level_fit import fit_level_specific

SIZES = [3, 4, 5, 6, 12] * 12


def prepared(text: str, fixed_x: bool, frame: pd.DataFrame | None = None) -> tuple[ParameterTable, Sample]:
    table = parameter_table(parse(text), fixed_x=fixed_x)
    variables = table.variables
    data = clustered_data(fits.data(SIZES) if frame is None else frame, variables.names, "cluster")
    return table, Sample.of(sample_statistics(data, variables))


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("fixed_x", [True, False])
@pytest.mark.parametrize("text", [fits.FACTORS, fits.PATHS], ids=["factors", "paths"])
def test_same_maximum_as_with_the_information_matrix(text: str, fixed_x: bool, level: int) -> None:
    table, sample = prepared(text, fixed_x)
    for part in (partially_saturated_table(table, level), level_baseline_table(table, level)):
        dense = estimate(part, sample)
        objective = dense.objective
        start = starts(objective, sample)[0]
        saturated = [block.level != level for block in objective.blocks]
        found = _core.minimize_iteratively(objective.core, start, *bounds(objective), saturated)
        assert found["stop"] == 0
        assert found["value"] == pytest.approx(dense.optimum.value, abs=1e-6)
        np.testing.assert_allclose(found["theta"], dense.theta, rtol=1e-3, atol=1e-4)
        assert found["iterations"][-1][1] < 1e-8
        assert len(found["iterations"]) < 40


def test_start_outside_the_domain_is_reported() -> None:
    objective = compiled(1)
    start = np.zeros(objective.table.npar)
    found = _core.minimize_iteratively(objective.core, start, *bounds(objective), [False, True])
    assert found["stop"] == 3


def compiled(level: int) -> Objective:
    table, sample = prepared(fits.FACTORS, True)
    filled = fill_exogenous(partially_saturated_table(table, level), sample.levels)
    return build_objective(filled, sample.statistics)


@pytest.mark.parametrize("saturated", [[True, True], [False, False], [True]])
def test_exactly_one_level_must_be_saturated(saturated: list[bool]) -> None:
    objective = compiled(1)
    with pytest.raises(ValueError, match="saturated"):
        _core.minimize_iteratively(
            objective.core, np.ones(objective.table.npar), *bounds(objective), saturated
        )


def test_bounds_are_kept() -> None:
    text = fits.FACTORS.replace("fb =~ y1 + y2", "fb =~ y1 + upper(0.2)*y2")
    table, sample = prepared(text, True)
    part = partially_saturated_table(table, 2)
    found = fit_level_specific(estimate(table, sample), sample, 2).model
    dense = estimate(part, sample)
    at = next(row.free - 1 for row in part.rows if row.upper == 0.2)
    assert dense.theta[at] == found.theta[at] == 0.2
    assert found.optimum.active[at] == 1
    assert found.llf == pytest.approx(dense.llf, abs=1e-6)


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("far", [1e2, 1e4, 1e6])
def test_centres_of_covariates_do_not_matter(far: float, level: int) -> None:
    frame = fits.data(SIZES)
    moved = frame.assign(x1=frame["x1"] + far, w1=frame["w1"] - far)
    one, other = (
        fit_level_specific(estimate(table, sample), sample, level).model
        for table, sample in (prepared(fits.FACTORS, True, data) for data in (frame, moved))
    )
    assert other.optimum.converged
    assert other.llf == pytest.approx(one.llf, abs=1e-6)


def test_models_far_from_the_data_take_newton_steps() -> None:
    """Independence of strongly correlated variables, where scoring gains a tenth with every step."""
    rng = np.random.default_rng(4)
    codes = np.repeat(np.arange(100), rng.integers(10, 30, 100))
    names = [f"y{k}" for k in range(24)]
    within, between = rng.normal(size=(len(codes), 6)), 0.5 * rng.normal(size=(100, 6))
    loadings = np.kron(np.eye(6), np.ones(4))
    values = within @ loadings + 0.6 * rng.normal(size=(len(codes), 24))
    values += (between @ loadings + 0.3 * rng.normal(size=(100, 24)))[codes]
    frame = pd.DataFrame(values, columns=names).assign(cluster=codes)
    factor = "f =~ " + " + ".join(names)
    table, sample = prepared(f"level: 1\n {factor}\nlevel: 2\n {factor}", True, frame)
    part = level_baseline_table(table, 1)
    dense = estimate(part, sample)
    objective = dense.objective
    saturated = [block.level == 2 for block in objective.blocks]
    start = starts(objective, sample)[0]
    found = _core.minimize_iteratively(objective.core, start, *bounds(objective), saturated)
    assert found["stop"] == 0
    assert any(newton for *_, newton in found["iterations"])
    assert len(found["iterations"]) < 14
    assert found["value"] == pytest.approx(dense.optimum.value, abs=1e-6)
    np.testing.assert_allclose(found["theta"], dense.theta, rtol=1e-4, atol=1e-5)
