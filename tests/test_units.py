"""Units of variables: any that can be computed with give the chi-square of any other, and the rest are refused."""

from __future__ import annotations

import pandas as pd
import pytest
from numpy.testing import assert_allclose

import msem
from msem.errors import DataError
from test_summarize import sample

MODEL = "level: 1\nfw =~ y1 + y2 + y3\nfw ~ x1\nlevel: 2\nfb =~ y1 + y2 + y3\nfb ~ w1\n"
SINGLE = "f =~ y1 + y2 + y3 + x1\nf ~ x2"


def scaled(power: int, name: str = "y1") -> pd.DataFrame:
    data = msem.load_demo()
    return data.assign(**{name: data[name] * 10.0**power})


@pytest.mark.parametrize("power", [-70, 70])
def test_units_do_not_matter(power: int) -> None:
    expected = msem.sem(MODEL, msem.load_demo(), cluster="cluster")
    found = msem.sem(MODEL, scaled(power), cluster="cluster")
    assert found.status == expected.status
    assert_allclose(found.chisq, expected.chisq, rtol=1e-6)


@pytest.mark.parametrize("power", [-155, -100, -77, 77, 100])
@pytest.mark.parametrize("missing", ["listwise", "fiml"])
def test_units_that_cannot_be_computed_with_are_refused(power: int, missing: str) -> None:
    remedy = "rescale it|does not vary|constant"  # where squares are zero
    with pytest.raises(DataError, match=remedy):
        msem.sem(MODEL, scaled(power), cluster="cluster", missing=missing)
    with pytest.raises(DataError, match=remedy):
        msem.sem(SINGLE, scaled(power), missing=missing)
    with pytest.raises(DataError, match=remedy):
        msem.sem(MODEL, scaled(power, "w1"), cluster="cluster", missing=missing)


def test_so_are_those_of_moments_statistics_and_least_squares() -> None:
    cov = msem.load_demo()[["y1", "y2", "y3"]].cov()
    cov.loc["y1"] *= 1e-80
    cov.loc[:, "y1"] *= 1e-80
    with pytest.raises(DataError, match=r"'y1' has a variance of .*too small to compute with: rescale it"):
        msem.sem("y1 ~ y2 + y3", sample_cov=cov, sample_nobs=200)
    with pytest.raises(DataError, match="too small to compute with: rescale it"):
        msem.sem(SINGLE, scaled(-80), estimator="ULS")
    tiny = sample().assign(y1=lambda d: d["y1"] * 1e-80)
    with pytest.raises(DataError, match="too small to compute with: rescale it"):
        msem.sem("level: 1\ny1 ~ y2\nlevel: 2\ny1 ~~ y1", msem.summarize(tiny, cluster="g"))
