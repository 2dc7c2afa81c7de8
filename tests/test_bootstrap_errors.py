"""Standard errors from the bootstrap, and the bootstrap of single-level samples in clusters."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import msem
from msem.errors import ConvergenceWarning, DataError
from msem.resampling.replicates import ordinary_draws

MODEL = """
level: 1
  fw =~ y1 + y2 + y3
  fw ~ x1
level: 2
  fb =~ y1 + y2 + y3
  fb ~ b*w1
twice := 2*b
"""
SINGLE = "f =~ y1 + y2 + y3\n f ~ x1 + w1"


def test_standard_errors_are_those_of_the_replicates() -> None:
    data = msem.load_demo()
    fit = msem.sem(MODEL, data, cluster="cluster", se="bootstrap", bootstrap=200, seed=4)
    boot = msem.sem(MODEL, data, cluster="cluster").bootstrap(200, seed=4)
    assert_allclose(fit.bse, boot.bse[fit.params.index])
    assert_allclose(fit.cov_params(), boot.cov_params().loc[fit.params.index, fit.params.index])
    assert fit.bootstrapped.array.tobytes() == boot.array.tobytes()
    assert fit.defined()["se"].tolist() == pytest.approx([2 * boot.bse["b"]])
    lines = [line.split() for line in fit.summary().splitlines()]
    assert ["Standard", "errors", "Bootstrap"] in lines
    assert ["Replicates", "drawn", "200"] in lines
    assert fit.options.se == "bootstrap"


def test_a_thousand_replicates_by_default() -> None:
    data = msem.load_demo().iloc[:300]
    assert msem.sem("y1 ~ x1", data, se="bootstrap").bootstrapped.replicates == 1000


def test_a_fit_that_has_not_converged_has_no_standard_errors() -> None:
    with pytest.warns(ConvergenceWarning):
        fit = msem.sem(MODEL, msem.load_demo(), cluster="cluster", se="bootstrap", max_iterations=1)
    assert fit.bootstrapped is None
    assert fit.bse.isna().all()
    assert "Bootstrap" not in fit.summary()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"se": "bootstrap", "bootstrap": 1}, "bootstrap must be a whole number"),
        ({"se": "bootstrap", "seed": -1}, "seed must be"),
        ({"bootstrap": 100}, "bootstrap= has no effect"),
        ({"seed": 1, "se": "robust"}, "seed= has no effect"),
    ],
)
def test_settings_are_checked(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        msem.sem(SINGLE, msem.load_demo(), **options)


def test_bootstrap_errors_need_rows() -> None:
    data = msem.load_demo()[["y1", "y2", "y3"]]
    with pytest.raises(DataError, match=r'no clusters to resample, .* kind="parametric"'):
        msem.sem("f =~ y1 + y2 + y3", sample_cov=data.cov(), sample_nobs=2500, se="bootstrap")


def test_rows_of_a_single_level_model_are_drawn_by_cluster() -> None:
    data = msem.load_demo()
    fit = msem.sem(SINGLE, data, cluster="cluster")
    boot, jack = fit.bootstrap(300, seed=6), fit.jackknife()
    draws = ordinary_draws(fit.estimate, fit.sample, 6)
    parts = [part for _, part in data.groupby("cluster")]
    drawn = [part for part, w in zip(parts, draws.weights(3, 0), strict=True) for _ in range(int(w))]
    again = msem.sem(SINGLE, pd.concat(drawn), meanstructure=True)
    assert_allclose(boot.estimates.loc[3], again.params, rtol=1e-6, atol=1e-7)
    assert jack.counts == (200,)
    assert jack.cluster.tolist() == list(fit.sample.groups[0].data.clusters)
    left = msem.sem(SINGLE, data[data["cluster"] != jack.cluster[17]], meanstructure=True)
    assert_allclose(jack.array[17], left.params, rtol=1e-6, atol=1e-7)
    # standard errors with clusters are robust ones
    assert_allclose(boot.bse, fit.bse, rtol=0.25)
    assert_allclose(jack.bse, fit.bse, rtol=0.15)
    naive = msem.sem(SINGLE, data, meanstructure=True).bse
    assert min(fit.bse["f~w1"], boot.bse["f~w1"]) > 1.5 * naive["f~w1"]


def test_a_model_without_means_is_resampled_by_cluster() -> None:
    data = msem.load_demo()
    fit = msem.sem(SINGLE, data, cluster="cluster", meanstructure=False)
    boot = fit.bootstrap(20, seed=6)
    draws = ordinary_draws(fit.estimate, fit.sample, 6)
    chosen = np.repeat(
        *np.unique(np.repeat(np.arange(200), draws.weights(2, 0).astype(int)), return_counts=True)
    )
    parts = [part for _, part in data.groupby("cluster")]
    again = msem.sem(SINGLE, pd.concat([parts[k] for k in chosen]))
    assert_allclose(boot.estimates.loc[2], again.params, rtol=1e-6, atol=1e-7)


def test_samples_of_rows_in_clusters_cannot_be_drawn_from_the_model() -> None:
    fit = msem.sem(SINGLE, msem.load_demo(), cluster="cluster")
    with pytest.raises(DataError, match="how rows of a cluster depend"):
        fit.bootstrap(5, kind="parametric")
