"""Ordered variables by maximum likelihood whose variance between clusters is estimated as 0."""

import numpy as np
import pandas as pd
import pytest

import msem
from msem.errors import ImproperSolutionWarning

MODEL = "level: 1\n u ~ x\nlevel: 2\n u ~~ u"


def rows(seed, clusters=60, units=5):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=clusters * units)
    rng.normal(size=clusters)  # what clusters have in common, of which there is none
    u = (0.5 * x + rng.normal(size=x.size) > 0).astype(int)
    return pd.DataFrame({"u": u, "x": x, "g": np.repeat(np.arange(clusters), units)})


@pytest.mark.parametrize("link", ["probit", "logit"])
@pytest.mark.parametrize("seed", [0, 2, 3])
def test_the_maximum_at_the_border_is_that_without_the_variance(seed, link):
    data = rows(seed)
    with pytest.warns(ImproperSolutionWarning, match="boundary"):
        fit = msem.sem(MODEL, data, cluster="g", ordered=["u"], estimator="ML", link=link)
    without = msem.sem("u ~ x", data, ordered=["u"], estimator="ML", link=link)
    assert fit.status == "boundary"
    assert fit.llf == pytest.approx(without.llf, abs=1e-6)
    assert fit.params["u ~ x"] == pytest.approx(without.params["u ~ x"], abs=1e-4 * without.bse["u ~ x"])


@pytest.mark.parametrize("seed", [4])
def test_a_little_variance_is_estimated(seed):
    fit = msem.sem(MODEL, rows(seed), cluster="g", ordered=["u"], estimator="ML")
    assert fit.status == "ok"
    assert 0 < fit.params["u ~~ u.l2"] < 0.01
