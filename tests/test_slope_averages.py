"""Random slopes averaged: where variance comes from, against sums over the rows of the sample."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

import msem
from msem.errors import UnsupportedError

OBSERVED = """
level: 1
  y ~ rv("s")*x + rv("t")*z + v
level: 2
  s ~ w
  t ~ 1
  y ~ w
  s ~~ y + t
  t ~~ y
"""
LATENT = """
level: 1
  fw =~ y1 + y2 + y3
  fw ~ rv("s")*x + v
level: 2
  fb =~ y1 + y2 + y3
  fb ~ w
  s ~ w
  fb ~~ s
"""
MEDIATED = """
level: 1
  m ~ rv("a")*x
  o ~ rv("b")*m + x
level: 2
  a ~~ b + o
  b ~~ o
"""


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    code = np.repeat(np.arange(150), rng.integers(6, 14, 150))
    n = len(code)
    w, b = rng.normal(size=(2, 150))
    x, z, v = rng.normal(0.5, 1, n) + 0.3 * b[code], rng.normal(-0.3, 0.8, n), rng.normal(size=n)
    s, t = 0.5 + 0.2 * w + 0.4 * rng.normal(size=150), -0.3 + 0.3 * rng.normal(size=150)
    frame = pd.DataFrame({"cluster": code, "x": x, "z": z, "v": v, "w": w[code]})
    frame["m"] = s[code] * x + rng.normal(size=n)
    frame["y"] = 0.6 * b[code] + 0.3 * w[code] + s[code] * x + t[code] * z + 0.4 * v + rng.normal(size=n)
    second = 0.4 + 0.5 * (s - 0.5) + 0.3 * rng.normal(size=150)
    frame["o"] = b[code] + second[code] * frame["m"] + 0.2 * x + rng.normal(size=n)
    fw = s[code] * x + 0.4 * v + rng.normal(size=n)
    for name, loading in {"y1": 1.0, "y2": 0.8, "y3": 0.7}.items():
        frame[name] = (
            loading * (fw + 0.7 * b[code]) + 0.3 * rng.normal(size=150)[code] + 0.6 * rng.normal(size=n)
        )
    return frame


def design(fit: msem.Fit, data: pd.DataFrame, name: str) -> tuple[np.ndarray, np.ndarray, pd.Index]:
    """What the between variables are multiplied by in each row, and fixed effects of covariates of units."""
    between = fit.implied[2]
    p = fit.params
    weights = np.zeros((len(data), len(between.cov)))
    names = list(between.cov.columns)
    weights[:, names.index(name)] = 1
    loading = 1.0 if name in ("y", "y1") else p[f"fw=~{name}"]
    slopes = {"s": "x", "t": "z"} if name == "y" else {"s": "x"}
    for slope, covariate in slopes.items():
        weights[:, names.index(slope)] = loading * data[covariate]
    fixed = loading * p["y~v" if name == "y" else "fw~v"] * data["v"]
    return weights, fixed.to_numpy(), between.cov.columns


@pytest.mark.parametrize(("model", "name"), [(OBSERVED, "y"), (LATENT, "y1"), (LATENT, "y2")])
def test_parts_add_up_to_the_variance_over_all_rows(data: pd.DataFrame, model: str, name: str) -> None:
    fit = msem.sem(model, data, cluster="cluster")
    between, p = fit.implied[2], fit.params
    weights, fixed, _ = design(fit, data, name)
    given = np.einsum("ij,jk,ik->i", weights, between.cov.to_numpy(), weights)
    mean = weights @ between.mean.to_numpy() + fixed
    loading = 1.0 if name in ("y", "y1") else p[f"fw=~{name}"]
    residual = p["y~~y"] if name == "y" else loading**2 * p["fw~~fw"] + p[f"{name}~~{name}"]
    found = fit.variance_partition(name).set_index(["level", "source"])
    total = given.mean() + mean.var() + residual
    assert found.loc[("total", "all"), "variance"] == pytest.approx(total, rel=1e-9)
    assert found.loc[("within", "residual"), "variance"] == pytest.approx(residual, rel=1e-9)
    centred = weights - weights.mean(axis=0)
    slopes = np.einsum("ij,jk,ik->i", centred, between.cov.to_numpy(), centred).mean()
    assert found.loc[("within", "slopes"), "variance"] == pytest.approx(slopes, rel=1e-9)
    assert found.loc[("within", "fixed"), "variance"] == pytest.approx(mean.var(), rel=1e-9)
    w = data.groupby("cluster")["w"].first().to_numpy()
    average = weights.mean(axis=0)
    on_w = between.cov["w"] / w.var()
    explained = (average @ on_w.to_numpy()) ** 2 * w.var()
    assert found.loc[("between", "fixed"), "variance"] == pytest.approx(explained, rel=1e-6)
    assert found["share"].iloc[:5].sum() == pytest.approx(1)
    assert (found["share_se"].iloc[:5] > 0).all()


def test_intraclass_correlations_are_averages_over_all_rows(data: pd.DataFrame) -> None:
    fit = msem.sem(LATENT, data, cluster="cluster")
    between, p = fit.implied[2], fit.params
    found = fit.icc_table().set_index("lhs")
    assert_frame_equal(fit.icc_table(source="model"), found.reset_index())
    parts = fit.variance_partition().query("level == 'between'").groupby("lhs")["share"].sum()
    for name in ("y1", "y2"):
        weights, fixed, _ = design(fit, data, name)
        given = np.einsum("ij,jk,ik->i", weights, between.cov.to_numpy(), weights)
        loading = 1.0 if name == "y1" else p[f"fw=~{name}"]
        residual = loading**2 * p["fw~~fw"] + p[f"{name}~~{name}"]
        total = given.mean() + (weights @ between.mean.to_numpy() + fixed).var() + residual
        average = weights.mean(axis=0)
        assert found.loc[name, "icc"] == pytest.approx(
            average @ between.cov.to_numpy() @ average / total, rel=1e-9
        )
        assert found.loc[name, "icc"] == pytest.approx(parts[name], rel=1e-9)
    with pytest.raises(UnsupportedError, match='source="model"'):
        fit.icc_table(source="saturated")


def test_reliability_is_that_of_the_averaged_matrices(data: pd.DataFrame) -> None:
    fit = msem.sem(LATENT, data, cluster="cluster")
    items, p = ["y1", "y2", "y3"], fit.params
    loadings = np.array([1, p["fw=~y2"], p["fw=~y3"]])
    x, v = data["x"], data["v"]
    slope = fit.implied[2]
    # of the factor, over all rows: residual, mean slope with the other covariate, and the slopes that differ
    factor = (
        p["fw~~fw"]
        + (slope.mean["s"] * x + p["fw~v"] * v).var(ddof=0)
        + slope.cov.loc["s", "s"] * x.var(ddof=0)
    )
    within = factor * np.outer(loadings, loadings) + np.diag([p[f"{i}~~{i}"] for i in items])
    second = slope.cov.loc[items, items].to_numpy()
    found = fit.reliability().set_index(["factor", "coefficient"])["est"]
    n = 150 / (1 / data.groupby("cluster").size()).sum()
    omega = factor * loadings.sum() ** 2 / within.sum()
    assert found["fw", "omega"] == pytest.approx(omega, rel=1e-6)
    assert found["fw", "alpha"] == pytest.approx(1.5 * (1 - np.trace(within) / within.sum()), rel=1e-6)
    assert found["fb", "irr"] == pytest.approx(second.sum() / (second.sum() + within.sum() / n), rel=1e-6)
    assert (fit.reliability()["se"] > 0).all()


def test_two_slopes_in_a_row(data: pd.DataFrame) -> None:
    """The saturated model has the slope of the mediator, so that there is a chi-square; variances are refused."""
    fit = msem.sem(MEDIATED, data, cluster="cluster")
    assert fit.status == "ok"
    assert fit.df == 4
    assert fit.chisq >= 0
    with pytest.raises(UnsupportedError, match="'a' changes the covariate of 'b'"):
        fit.variance_partition()
    assert msem.table(fit).frame.loc[("Within: Regressions", "o ~ m")].tolist() == ["random (b)"]


def test_tables(data: pd.DataFrame) -> None:
    fit = msem.sem(OBSERVED, data, cluster="cluster")
    frame = msem.table(fit, show=("se", "std_all")).frame
    assert frame.loc[("Within: Regressions", "y ~ x")].tolist()[0] == "random (s)"
    assert float(frame.loc[("Within: Regressions", "y ~ x")].tolist()[1]) > 0


def test_partition_without_slopes_is_that_of_the_levels(demo: pd.DataFrame) -> None:
    model = "level: 1\n fw =~ y1 + y2 + y3\n fw ~ x1\nlevel: 2\n fb =~ y1 + y2 + y3\n fb ~ w1"
    fit = msem.sem(model, demo, cluster="cluster")
    found = fit.variance_partition()
    assert set(found["source"]) == {"fixed", "residual", "all"}
    total = found.query("lhs == 'y2' and level == 'total'")["variance"].iloc[0]
    assert total == pytest.approx(
        fit.implied[1].cov.loc["y2", "y2"] + fit.implied[2].cov.loc["y2", "y2"], rel=1e-9
    )
    between = found.query("lhs == 'y2' and level == 'between'")["share"].sum()
    assert between == pytest.approx(1 - fit.implied[1].cov.loc["y2", "y2"] / total, rel=1e-6)
    with pytest.raises(msem.errors.ModelError, match="one level"):
        msem.sem("y1 ~ x1", demo).variance_partition()
    with pytest.raises(msem.errors.ModelError, match="'x1' is no observed outcome"):
        fit.variance_partition("x1")


def test_modification_indices_foresee_likelihood_ratios(data: pd.DataFrame) -> None:
    fit = msem.sem(LATENT, data, cluster="cluster")
    table = fit.modification_indices()
    assert not ((table["lhs"] == "fw") & (table["rhs"] == "x")).any()  # the slope itself
    assert np.isfinite(table[["mi", "epc", "sepc_all"]].to_numpy()).all()
    for lhs, rhs, level in (("y3", "x", 1), ("y2", "x", 1), ("y3", "w", 2)):
        row = table.query(f"lhs == '{lhs}' and op == '~' and rhs == '{rhs}' and level == {level}").iloc[0]
        larger = fit.update(add=f"level: {level}\n {lhs} ~ {rhs}")
        assert row["mi"] == pytest.approx(2 * (larger.llf - fit.llf), rel=0.08)
        name = f"{lhs}~{rhs}" + (".l2" if level == 2 else "")
        assert row["epc"] == pytest.approx(larger.params[name], rel=0.08)
