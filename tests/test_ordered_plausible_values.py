"""Plausible values given ordered variables: against posterior means by quadrature, and dense distributions."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats

import msem
from msem import _core
from msem.errors import UnsupportedError

CUTS = (-0.7, 0.5)
ITEMS = ["u1", "u2", "u3"]
TWO = """
level: 1
  f =~ u1 + u2 + u3
  f ~ x
level: 2
  g =~ u1 + u2 + u3
  u1 ~~ 0*u1
  u2 ~~ 0*u2
  u3 ~~ 0*u3
"""
MIXED = """
level: 1
  f =~ u1 + u2 + y
level: 2
  g =~ u1 + u2 + y + c
  u1 ~~ 0*u1
  u2 ~~ 0*u2
  y ~~ 0*y
"""
STEEP = "f =~ 4*u1 + 4*u2 + 4*u3\nf ~~ 1*f"


@functools.cache
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    cluster = np.repeat(np.arange(40), 5)
    x, f, above = rng.normal(size=200), rng.normal(size=200), 0.7 * rng.normal(size=40)
    out = pd.DataFrame({"cluster": cluster, "x": x})
    for name in ITEMS:
        values = 0.4 * x + f + above[cluster] + rng.normal(size=200)
        out[name] = np.digitize(values, CUTS)
    out["y"] = f + above[cluster] + rng.normal(size=200)
    out["c"] = np.digitize((above + 0.5 * rng.normal(size=40))[cluster], [-0.5, 0.5])
    # categories that say little, where chains are slow
    out.loc[out["cluster"] < 3, ITEMS] = 2
    return out.mask(np.random.default_rng(1).uniform(size=out.shape) < 0.03).assign(
        cluster=cluster, x=x, y=out["y"], c=out["c"]
    )


@functools.cache
def fitted(text: str, **options: str) -> msem.Fit:
    ordered = [name for name in (*ITEMS, "c") if name in text]
    return msem.sem(text, rows(), ordered=ordered, missing="pairwise", **options)


def draws(fit: msem.Fit, n: int) -> np.ndarray:
    return np.array([one.to_numpy() for one in fit.plausible_values(n, seed=3)])


POSTERIORS = [
    (TWO, {"cluster": "cluster"}),
    (MIXED, {"cluster": "cluster"}),
    (STEEP, {"parameterization": "theta"}),
]


@pytest.mark.filterwarnings("ignore::msem.errors.MsemWarning")
@pytest.mark.parametrize(("text", "options"), POSTERIORS)
def test_moments_of_draws_are_those_of_the_posterior_distribution(text: str, options: dict[str, str]) -> None:
    fit, n = fitted(text, **options), 200
    found, truth = draws(fit, n), fit.factor_scores(method="EAP")
    mean, sd = found.mean(axis=0), found.std(axis=0)
    first = ~rows()["cluster"].duplicated().to_numpy()
    extreme = (rows()[ITEMS] == 2).all(axis=1).to_numpy()
    for k, name in enumerate(fit.plausible_values(1, seed=1)[0].columns):
        z = ((mean[:, k] - truth[name]) / truth[f"{name}_se"] * np.sqrt(n)).to_numpy()
        ratio = (sd[:, k] / truth[f"{name}_se"]).to_numpy()
        own = first if name == "g" else np.ones(len(z), dtype=bool)
        for some in (own, own & extreme):
            count = some.sum()
            assert count > 2
            # standard normal, but for what units of a cluster share
            assert abs(z[some].mean()) < 4 * np.sqrt(1 / count + 0.03)
            assert 0.4 < z[some].std() < 1.6
            assert abs(ratio[some].mean() - 1) < 4 * np.sqrt((1 / count + 0.03) / (2 * n))


def test_draws_are_joint_over_units_and_levels() -> None:
    fit, n = fitted(TWO, cluster="cluster"), 600
    data, p = rows(), fit.params
    found = draws(fit, n)
    line = np.linspace(-6, 6, 241)
    for code in (5, 17):
        own = data[data["cluster"] == code]
        log_g = stats.norm(0, np.sqrt(p["g~~g.l2"])).logpdf(line)
        means = []
        for _, row in own.iterrows():
            log_f = stats.norm(p["f~x"] * row["x"], np.sqrt(p["f~~f"])).logpdf(line)[None, :]
            for name in ITEMS:
                if np.isnan(row[name]):
                    continue
                within, between = (1, 1) if name == "u1" else (p[f"f=~{name}"], p[f"g=~{name}.l2"])
                centre = within * line[None, :] + between * line[:, None]
                cuts = [-np.inf, p[f"{name}|t1.l2"], p[f"{name}|t2.l2"], np.inf]
                k = int(row[name])
                log_f = log_f + np.log(
                    stats.norm.cdf(cuts[k + 1] - centre) - stats.norm.cdf(cuts[k] - centre) + 1e-300
                )
            top = log_f.max(axis=1, keepdims=True)
            weight = np.exp(log_f - top)
            log_g = log_g + np.log(weight.sum(axis=1)) + top[:, 0]
            means.append(weight @ line / weight.sum(axis=1))
        share = np.exp(log_g - log_g.max())
        share /= share.sum()
        stacked = np.array([*means, line])  # given g, units are independent
        covariance = np.cov(stacked, aweights=share, ddof=0)
        drawn = found[:, data.index[data["cluster"] == code], :]
        sample = np.cov(np.column_stack([drawn[:, :, 0], drawn[:, 0, 1]]).T)
        off = ~np.eye(len(stacked), dtype=bool)
        sd = np.sqrt(np.diag(sample))
        assert np.abs(covariance[off]).max() > 0.05
        assert_allclose(
            (sample / np.outer(sd, sd))[off], (covariance / np.outer(sd, sd))[off], atol=4 / np.sqrt(n)
        )


def test_draws_depend_on_the_seed_and_their_number_only() -> None:
    fit = fitted(TWO, cluster="cluster")
    one, three = fit.plausible_values(1, seed=8), fit.plausible_values(3, seed=8)
    pd.testing.assert_frame_equal(one[0], three[0])
    assert np.abs(three[0] - three[1]).to_numpy().min() > 0
    with _core.ThreadLimit(1):
        pd.testing.assert_frame_equal(one[0], fit.plausible_values(1, seed=8)[0])
    above = fit.plausible_values(1, seed=8, level=2)[0]
    assert list(above.columns) == ["g"]
    assert_allclose(above["g"].to_numpy()[rows()["cluster"]], one[0]["g"])


def test_draws_of_parameters_spread_more() -> None:
    fit = fitted(STEEP.replace("4*", "NA*"), parameterization="delta")
    known = draws(fit, 60)
    drawn = np.array([one.to_numpy() for one in fit.plausible_values(60, seed=3, draw_parameters=True)])
    assert known.shape == drawn.shape == (60, 200, 1)
    assert drawn.std(axis=0).mean() > known.std(axis=0).mean()


def test_what_is_not_drawn_is_refused() -> None:
    fit = fitted(TWO, cluster="cluster")
    with pytest.raises(UnsupportedError, match="for new data"):
        fit.plausible_values(1, newdata=rows())
    data = rows().dropna()
    logit = msem.sem("u1 ~ f\nf =~ x + y + u2", data, ordered=["u1", "u2"], estimator="ML", link="logit")
    with pytest.raises(UnsupportedError, match='link="logit"'):
        logit.plausible_values(1)
    correlated = msem.sem("f =~ u1 + u2 + u3 + y\nu1 ~~ u2", data, ordered=ITEMS)
    with pytest.raises(UnsupportedError, match="residuals are correlated"):
        correlated.plausible_values(1)
