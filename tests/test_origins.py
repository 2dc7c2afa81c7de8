"""Where variables are measured from changes intercepts and nothing else, after the fit as in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import msem
from msem.fits.fit import Fit

MODELS = {
    "two levels": """
level: 1
  fw =~ y1 + y2 + y3
  fw ~ x1 + x2
level: 2
  fb =~ y1 + y2 + y3
  fb ~ w1
""",
    "one level": "f =~ y1 + y2 + y3\nf ~ x1 + w1\ny1 ~ 1",
}
KEYS = ["lhs", "op", "rhs", "level"]


def fitted(model: str, origin: float, estimator: str, **options: Any) -> Fit:
    data = msem.load_demo()
    variables = ["y1", "y2", "y3", "x1", "x2", "w1"]
    data[variables] += origin
    return msem.sem(MODELS[model], data, cluster="cluster", estimator=estimator, **options)


@pytest.fixture(scope="module", params=[(m, e) for m in MODELS for e in ("ML", "MLR")], ids=str)
def pair(request: pytest.FixtureRequest) -> tuple[Fit, Fit]:
    model, estimator = request.param
    return fitted(model, 0.0, estimator), fitted(model, 1e6, estimator)


def test_residuals(pair: tuple[Fit, Fit]) -> None:
    here, there = (fit.residuals() for fit in pair)
    np.testing.assert_allclose(there["se"], here["se"], rtol=1e-6)
    np.testing.assert_allclose(there["z"], here["z"], atol=1e-6)


def test_modification_indices(pair: tuple[Fit, Fit]) -> None:
    here, there = (fit.modification_indices(sort=False) for fit in pair)
    pd.testing.assert_frame_equal(there[KEYS], here[KEYS])
    np.testing.assert_allclose(there["mi"], here["mi"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(there["epc"], here["epc"], atol=1e-6)


@pytest.mark.parametrize("exact", [False, True])
def test_influence(pair: tuple[Fit, Fit], exact: bool) -> None:
    here, there = (fit.influence(exact=exact, clusters=list(range(1, 41)), progress=False) for fit in pair)
    measures = ["cook", "displacement"]
    np.testing.assert_allclose(there.measures[measures], here.measures[measures], atol=1e-5)
    others = [name for name in here.standardized if "~1" not in name]
    np.testing.assert_allclose(there.change[others], here.change[others], atol=1e-6)


@pytest.mark.parametrize("model", MODELS)
def test_the_test_of_yuan_and_bentler(model: str) -> None:
    here, there = (fitted(model, origin, "ML", test="yuan.bentler").tests() for origin in (0.0, 1e6))
    np.testing.assert_allclose(there, here, rtol=1e-6)


@pytest.mark.filterwarnings("ignore::msem.errors.ConvergenceWarning")
@pytest.mark.parametrize("origin", [1e6, 1e8])
def test_a_nonlinear_constraint_holds_the_same_maximum_or_says_that_there_is_none(origin: float) -> None:
    constraint = "`fw=~y2` * `fb=~y2.l2` == 0.62"
    here, there = (fitted("two levels", o, "ML", constraints=constraint) for o in (0.0, origin))
    if there.converged:
        assert there.chisq == pytest.approx(here.chisq, abs=1e-6)
    assert there.converged or origin > 1e7
