"""More parameters than moments: never a model that is identified, whatever rounding makes of its information."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import msem
from msem.errors import IdentificationWarning, MsemWarning

LOOP = "a ~ b\nb ~ a"


def sample(seed: int) -> pd.DataFrame:
    values = np.random.default_rng(seed).standard_normal((100, 2)) @ [[1.0, 0.4], [0.0, 0.9]]
    return pd.DataFrame(values, columns=["a", "b"])


@pytest.mark.parametrize("estimator", ["ML", "MLR", "ULS"])
def test_a_loop_is_unidentified_in_every_sample(estimator: str) -> None:
    for seed in range(20):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MsemWarning)
            fit = msem.sem(LOOP, sample(seed), estimator=estimator)
        assert fit.df == -1
        assert fit.status in ("unidentified", "not_converged")
        assert np.isnan(fit.standard_errors).any()


def test_so_it_is_among_many_fits() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MsemWarning)
        found = msem.compile(LOOP).fit_many(map(sample, range(60)), progress=False)
    assert set(found.fits["status"]) <= {"unidentified", "not_converged"}


def test_the_parameters_are_named() -> None:
    with pytest.warns(IdentificationWarning, match="cannot tell apart"):
        fit = msem.sem("level: 1\ny1 ~ y2\ny2 ~ y1\nlevel: 2\ny1 ~~ y2", msem.load_demo(), cluster="cluster")
    assert fit.df == -1
