"""Plausible values have the dense posterior distribution: of one normal distribution of all data and latent
variables."""

import numpy as np
import pandas as pd
import pytest

import msem

TWO = """
level: 1
  fw =~ y1 + y2 + y3
  fw ~ x1
level: 2
  fb =~ y1 + y2 + y3
  fb ~ w1
"""
DRAWS = 1200
BOUND = 5.0  # standard errors


def small(seed: int = 3) -> pd.DataFrame:
    data = msem.load_demo()
    kept = data["cluster"].unique()[[0, 60, 120]]
    return data[data["cluster"].isin(kept)].groupby("cluster").head(seed).reset_index(drop=True)


def holes(data: pd.DataFrame) -> pd.DataFrame:
    data = data.copy()
    data.loc[[1, 4], "y1"] = np.nan
    data.loc[[4, 7], "y3"] = np.nan
    return data


def dense(fit: msem.Fit, data: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Posterior of (all fw, all fb) given what is observed in all rows, from one matrix."""
    w, b = fit.implied[1], fit.implied[2]
    codes = pd.factorize(data["cluster"])[0]
    n, clusters = len(data), codes.max() + 1
    names_w, names_b = list(w.cov.columns), list(b.cov.columns)
    kw, kb = len(names_w), len(names_b)
    prior = np.zeros((n * kw + clusters * kb,) * 2)
    prior[: n * kw, : n * kw] = np.kron(np.eye(n), w.cov)
    prior[n * kw :, n * kw :] = np.kron(np.eye(clusters), b.cov)
    centre = np.concatenate([np.tile(w.mean, n), np.tile(b.mean, clusters)])
    rows, seen = [], []
    for i in range(n):
        for name in ("y1", "y2", "y3", "x1"):
            row = np.zeros(len(prior))
            row[i * kw + names_w.index(name)] = 1
            if name in names_b:
                row[n * kw + codes[i] * kb + names_b.index(name)] = 1
            if not np.isnan(data[name][i]):
                rows.append(row)
                seen.append(data[name][i])
    for j in range(clusters):
        row = np.zeros(len(prior))
        row[n * kw + j * kb + names_b.index("w1")] = 1
        rows.append(row)
        seen.append(data["w1"][codes == j].iloc[0])
    design = np.array(rows)
    gain = np.linalg.solve(design @ prior @ design.T, design @ prior).T
    mean, cov = centre + gain @ (seen - design @ centre), prior - gain @ design @ prior
    at = [
        *(i * kw + names_w.index("fw") for i in range(n)),
        *(n * kw + j * kb + names_b.index("fb") for j in range(clusters)),
    ]
    return mean[at], cov[np.ix_(at, at)]


def stacked(draws: list[pd.DataFrame], codes: np.ndarray) -> np.ndarray:
    first = np.unique(codes, return_index=True)[1]
    return np.array([np.concatenate([one["fw"], one["fb"].iloc[first]]) for one in draws])


def assert_moments(values: np.ndarray, mean: np.ndarray, cov: np.ndarray) -> None:
    n = len(values)
    assert (np.abs(values.mean(axis=0) - mean) < BOUND * np.sqrt(cov.diagonal() / n)).all()
    spread = np.sqrt((np.outer(cov.diagonal(), cov.diagonal()) + cov**2) / n)
    assert (np.abs(np.cov(values.T) - cov) < BOUND * spread).all()


@pytest.mark.parametrize("missing", [False, True])
def test_draws_have_the_dense_posterior(demo: pd.DataFrame, missing: bool) -> None:
    options = {"missing": "fiml"} if missing else {}
    fit = msem.sem(TWO, demo, cluster="cluster", **options)
    new = holes(small()) if missing else small()
    draws = fit.plausible_values(DRAWS, seed=1, newdata=new)
    codes = pd.factorize(new["cluster"])[0]
    mean, cov = dense(fit, new)
    scores = fit.factor_scores(newdata=new)
    np.testing.assert_allclose(np.concatenate([scores["fw"]]), mean[: len(new)], atol=1e-8)
    assert_moments(stacked(draws, codes), mean, cov)
    assert np.abs(cov[0, 1]) > 0.01  # units of one cluster depend on each other


def test_one_level(demo: pd.DataFrame) -> None:
    fit = msem.sem("f =~ y1 + y2 + y3\ng =~ y4 + y5 + y6", demo)
    draws = np.array([one.iloc[0] for one in fit.plausible_values(400, seed=2)])
    scores = fit.factor_scores(cov=True).iloc[0]
    c = scores["f_g_cov"]
    cov = np.array([[scores["f_se"] ** 2, c], [c, scores["g_se"] ** 2]])
    assert_moments(draws, scores[["f", "g"]].to_numpy(float), cov)


def test_random_slopes() -> None:
    """Of a latent outcome: draws of slopes, clusters and units against exact posterior means and deviations."""
    model = """
    level: 1
      fw =~ y1 + y2 + y3
      fw ~ rv("s")*x1 + x3
    level: 2
      fb =~ y1 + y2 + y3
      s ~ w
      fb ~~ s
    """
    rng = np.random.default_rng(8)
    code = np.repeat(np.arange(120), 6)
    w, b, x1, x3 = rng.normal(size=120), rng.normal(size=120), *rng.normal(size=(2, 720))
    slope = 0.5 + 0.3 * w + 0.6 * rng.normal(size=120)
    fw = slope[code] * x1 + 0.3 * x3 + rng.normal(size=720)
    data = pd.DataFrame({"cluster": code, "x1": x1, "x3": x3, "w": w[code]})
    for name in ("y1", "y2", "y3"):
        data[name] = fw + b[code] + 0.3 * rng.normal(size=120)[code] + 0.7 * rng.normal(size=720)
    fit = msem.sem(model, data, cluster="cluster")
    draws, scores = fit.plausible_values(500, seed=3), fit.factor_scores()
    for name in ("fw", "s", "fb"):
        values = np.array([one[name] for one in draws])
        z = (values.mean(axis=0) - scores[name]) / (scores[f"{name}_se"] / np.sqrt(500))
        assert np.abs(z).max() < BOUND
        assert np.abs(values.std(axis=0) / scores[f"{name}_se"] - 1).max() < BOUND / np.sqrt(1000)


def test_draws_recover_what_scores_do_not(demo: pd.DataFrame) -> None:
    fit = msem.sem(TWO, demo, cluster="cluster")
    draws = fit.plausible_values(5, seed=4)
    fits = [
        msem.sem("level: 1\n fw ~ x1\n fw ~~ fw\nlevel: 2\n fb ~ w1", demo.join(one), cluster="cluster")
        for one in draws
    ]
    pooled = msem.pool(fits)
    assert pooled.params["fw~x1"] == pytest.approx(fit.params["fw~x1"], abs=0.03)
    assert pooled.params["fw~~fw"] == pytest.approx(fit.params["fw~~fw"], abs=0.04)
    assert pooled.params["fb~w1.l2"] == pytest.approx(fit.params["fb~w1.l2"], abs=0.05)
    scores = msem.sem("fw ~ x1\nfw ~~ fw", demo.join(fit.factor_scores()))
    assert scores.params["fw~~fw"] < 0.75 * fit.params["fw~~fw"]


def test_shape_seed_and_groups(demo: pd.DataFrame) -> None:
    data = demo.assign(g=np.where(demo["cluster"] // 2 % 2, "a", "b"))
    fit = msem.sem(TWO, data, cluster="cluster", group="g")
    three, two = fit.plausible_values(3, seed=5), fit.plausible_values(2, seed=5)
    pd.testing.assert_frame_equal(three[1], two[1])
    assert not three[0].equals(three[1])
    assert list(three[0].columns) == ["fw", "fb"]
    assert three[0].index.equals(data.index)
    assert three[0].groupby(data["cluster"])["fb"].std().max() == 0
    between = fit.plausible_values(1, seed=5, level="between")[0]
    assert list(between.columns) == ["group", "fb"]
    assert len(between) == 200


def test_drawn_parameters_spread_more(demo: pd.DataFrame) -> None:
    few = demo[demo["cluster"] <= demo["cluster"].unique()[39]]
    fit = msem.sem("f =~ y1 + y2 + y3", few)
    known, drawn = (
        np.var([one["f"].mean() for one in fit.plausible_values(150, seed=6, draw_parameters=p)])
        for p in (False, True)
    )
    spread = [
        np.var([one["f"].var() for one in fit.plausible_values(150, seed=6, draw_parameters=p)])
        for p in (False, True)
    ]
    assert spread[1] > 2 * spread[0]
    assert known > 0
    assert drawn > 0


def test_mistakes(demo: pd.DataFrame) -> None:
    fit = msem.sem("f =~ y1 + y2 + y3", demo)
    with pytest.raises(msem.errors.MsemError, match="n must be"):
        fit.plausible_values(0)
    with pytest.raises(msem.errors.ModelError, match="no latent variable"):
        msem.sem("y1 ~ x1", demo).plausible_values(2)
    with pytest.raises(msem.errors.ModelError, match="the covariance matrix of the estimates"):
        msem.sem("f =~ y1 + y2 + y3", demo, se="none").plausible_values(2, draw_parameters=True)
    moments = msem.sem("f =~ y1 + y2 + y3", sample_cov=demo[["y1", "y2", "y3"]].cov(), sample_nobs=2500)
    with pytest.raises(msem.errors.DataError, match="newdata="):
        moments.plausible_values(2)
    with pytest.warns(msem.errors.ImproperSolutionWarning):
        odd = msem.sem("f =~ y1 + y2 + y3\ny1 ~~ -0.2*y1", demo)
    with pytest.raises(msem.errors.ModelError, match="of no distribution"):
        odd.plausible_values(2)
