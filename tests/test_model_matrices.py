"""Matrices of the model by name imply the moments that the fit has."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import msem
from msem.errors import MsemError

MODELS = {
    "factors": (
        "level: 1\n fw =~ y1 + y2 + y3\n fw ~ x1\nlevel: 2\n fb =~ y1 + y2 + y3\n fb ~ w1",
        {"cluster": "cluster"},
    ),
    "paths": (
        "level: 1\n y1 ~ y2 + x1\n y2 ~ x1\n y3 ~~ y1\nlevel: 2\n y1 ~ y2 + w1\n y3 ~~ y2",
        {"cluster": "cluster"},
    ),
    "indicators that are predicted": (
        "f =~ y1 + y2 + y3 + y4\n g =~ y4 + y5 + y6\n g ~ f\n y2 ~ x1\n y2 ~~ y3\n y1 ~~ y5",
        {"meanstructure": True},
    ),
}


def implied(matrices):
    lam, beta = matrices["lambda"].to_numpy(), matrices["beta"].to_numpy()
    total = lam @ np.linalg.inv(np.eye(len(beta)) - beta)
    cov = total @ matrices["psi"].to_numpy() @ total.T + matrices["theta"].to_numpy()
    return cov, matrices["nu"].to_numpy() + total @ matrices["alpha"].to_numpy()


@pytest.mark.parametrize(("model", "options"), MODELS.values(), ids=MODELS)
def test_they_imply_the_moments_of_the_fit(demo, model, options):
    fit = msem.sem(model, demo, **options)
    for level in range(1, fit.table.nlevels + 1):
        matrices = fit.model_matrices(level)
        names = list(matrices["lambda"].index)
        assert sorted(names) == sorted(fit.table.observed(level))
        cov, mean = implied(matrices)
        known = fit.implied[level]
        assert_allclose(cov, known.cov.loc[names, names], atol=1e-10)
        assert_allclose(mean, known.mean[names], atol=1e-10)
        for name in ("psi", "theta"):
            pd.testing.assert_frame_equal(matrices[name], matrices[name].T)


def test_estimates_stand_where_they_belong(demo):
    fit = msem.sem(MODELS["factors"][0], demo, cluster="cluster")
    within, between = fit.model_matrices("within"), fit.model_matrices("between")
    assert within["lambda"].loc["y2", "fw"] == fit.params["fw=~y2"]
    assert within["beta"].loc["fw", "x1"] == fit.params["fw~x1"]
    assert within["psi"].loc["fw", "fw"] == fit.params["fw~~fw"]
    assert within["theta"].loc["y3", "y3"] == fit.params["y3~~y3"]
    assert list(within["lambda"].columns) == ["fw", "x1"]
    assert between["nu"]["y2"] == fit.params["y2~1.l2"]
    assert between["beta"].loc["fb", "w1"] == fit.params["fb~w1.l2"]
    assert between["alpha"]["fb"] == 0


def test_slopes_have_their_means_and_groups_their_own(demo):
    text = "level: 1\n y1 ~ rv('s')*x1\nlevel: 2\n y1 ~ w1\n s ~ w1"
    fit = msem.sem(text, demo, cluster="cluster")
    mean = fit.params["s~1.l2"] + fit.params["s~w1.l2"] * fit.model_matrices(2)["alpha"]["w1"]
    assert fit.model_matrices(1)["beta"].loc["y1", "x1"] == pytest.approx(mean)
    groups = msem.sem("f =~ y1 + y2 + y3", demo.assign(g=demo["cluster"] % 2), group="g")
    loadings = [groups.model_matrices(group=k)["lambda"].loc["y2", "f"] for k in (1, 2)]
    assert loadings == groups.estimates().query("op == '=~' and rhs == 'y2'")["est"].tolist()
    with pytest.raises(MsemError, match="no group 3"):
        groups.model_matrices(group=3)
