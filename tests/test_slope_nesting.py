"""Which models with random slopes contain which, by what they imply about the data."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import msem
from msem.errors import ModelError
from test_slope_levels import BETWEEN, WITHIN, sample

TEXT = f"{WITHIN}level: 2{BETWEEN}"
OPTIONS = {"cluster": "id", "group": "g"}


@pytest.fixture(scope="module")
def data():
    return sample(300, groups=2)


@pytest.fixture(scope="module")
def configural(data):
    return msem.sem(TEXT, data, **OPTIONS)


def differences(*fits):
    return msem.compare_models(*fits)[["chisq_diff", "df_diff"]].iloc[1:].to_numpy().T


@pytest.mark.parametrize("std_lv", [False, True])
def test_invariance_over_groups(data, configural, std_lv):
    """However the factors are scaled; slopes of a factor are in its units."""
    found = msem.invariance(TEXT, data, std_lv=std_lv, **OPTIONS)
    assert found.tests["df_diff"].to_list() == [4, 2, 6]
    values = [fit.llf for fit in found.fits.values()]
    assert values[0] == pytest.approx(configural.llf, abs=1e-6)
    np.testing.assert_allclose(found.tests["chisq_diff"], -2 * np.diff(values), rtol=1e-6)


def test_a_model_is_found_in_one_that_is_written_in_another_way(data, configural):
    equal = msem.sem(TEXT, data, std_lv=True, group_equal=["loadings"], **OPTIONS)
    chisq, df = differences(equal, configural)
    assert df == [4]
    assert chisq == pytest.approx([2 * (configural.llf - equal.llf)])


def test_the_larger_model_may_share_parameters(data, configural):
    shared = TEXT.replace("y2 + y3", "c(a, a)*y2 + c(b, b)*y3", 1)
    more = msem.sem(shared.replace("+ x2", "+ c(k, k)*x2"), data, **OPTIONS)
    some = msem.sem(shared, data, **OPTIONS)
    _, df = differences(more, some, configural)
    assert df.tolist() == [2, 1]
    other = msem.sem(TEXT.replace("+ x2", "+ c(k, k)*x2"), data, **OPTIONS)
    separate = msem.sem(TEXT.replace("s ~ w", "s ~ 0*w").replace("fb + s", "fb ~ w\n  s"), data, **OPTIONS)
    with pytest.raises(ModelError, match="not nested"):
        msem.compare_models(separate, other)
    _, df = differences(more, other)
    assert df == [2]


def test_a_path_may_be_random_in_a_larger_model_that_shares_parameters(data):
    text = TEXT.replace("y2 + y3", "a*y2 + a*y3")
    larger = msem.sem(text, data, cluster="id")
    fixed = text.replace('rv("s")*', "").replace("fb + s ~ w\n  fb ~~ s", "fb ~ w")
    smaller = msem.sem(fixed, data, cluster="id")
    chisq, df = differences(smaller, larger)
    assert df == [3]
    assert chisq == pytest.approx([2 * (larger.llf - smaller.llf)], rel=1e-6)


def test_constraints_of_the_larger_model_hold(data):
    larger = msem.sem(TEXT.replace("x1 + x2", "x1 + k*x2") + "\nk == 0.4", data, cluster="id")
    smaller = msem.sem(
        TEXT.replace("x1 + x2", "x1 + k*x2").replace("fb ~~ s", "fb ~~ 0*s") + "\nk == 0.4",
        data,
        cluster="id",
    )
    assert differences(smaller, larger)[1] == [1]
    other = msem.sem(TEXT.replace("x1 + x2", "x1 + 0.3*x2"), data, cluster="id")
    with pytest.raises(ModelError, match="not nested"):
        msem.compare_models(smaller, other)


def test_latent_covariates():
    rng = np.random.default_rng(3)
    cluster, fb = np.repeat(np.arange(60), 6), rng.normal(size=60)
    fw, slope = rng.normal(size=360), 0.6 + rng.normal(0, 0.4, 60)
    frame = pd.DataFrame({"id": cluster, "g": cluster % 2})
    for k, loading in enumerate((1, 0.8, 1.2)):
        frame[f"x{k}"] = (
            loading * (fw + fb[cluster]) + rng.normal(0, 0.7, 360) + rng.normal(0, 0.4, 60)[cluster]
        )
    frame["y"] = slope[cluster] * fw + rng.normal(0, 0.8, 360) + (0.4 * fb + rng.normal(0, 0.5, 60))[cluster]
    text = 'level: 1\n fw =~ x0 + x1 + x2\n y ~ rv("s")*fw\nlevel: 2\n fb =~ x0 + x1 + x2\n y ~ fb\n y ~~ s'
    found = msem.invariance(text, frame, steps=["configural", "metric", "scalar"], **OPTIONS)
    values = [fit.llf for fit in found.fits.values()]
    assert found.tests["df_diff"].to_list()[0] == 4
    np.testing.assert_allclose(found.tests["chisq_diff"], -2 * np.diff(values), rtol=1e-6)
