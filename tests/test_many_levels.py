"""Samples, plausible values and predictions of three levels and of crossed classifications against one dense normal
density of everything, latent variables included."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import msem
from msem.errors import DataError, ModelError, UnsupportedError

POPULATION = """
level: 1
  fw =~ 1*y1 + 0.8*y2 + 0.9*y3
  fw ~~ 0.8*fw
  fw ~ 0.4*x
  y1 ~~ 0.4*y1
  y2 ~~ 0.4*y2
  y3 ~~ 0.4*y3
level: 2
  fc =~ 1*y1 + 0.8*y2 + 0.7*y3
  fc ~~ 0.5*fc
  fc ~ 0.3*w + 0.4*x
  y1 ~~ 0.2*y1
  y2 ~~ 0.2*y2
  y3 ~~ 0.2*y3
  z ~~ 0.6*z
  z ~ 0.4*w
level: 3
  fs =~ 1*y1 + 0.8*y2 + 0.9*y3 + 0.5*z
  fs ~~ 0.4*fs
  fs ~ 0.5*v
  y1 ~~ 0.3*y1
  y2 ~~ 0.3*y2
  y3 ~~ 0.3*y3
  z ~~ 0.4*z
  y1 ~ 2*1
"""
SLOPES = """
level: 1
  y ~ rv("s")*x
  y ~~ 0.8*y
level: 2
  y ~~ 0.4*y + 0.1*s
  s ~~ 0.2*s
  y ~ rv("t")*w
level: 3
  y ~~ 0.3*y + 0.05*s
  s ~~ 0.15*s
  s ~ 0.5*1
  t ~~ 0.2*t
  t ~ -0.3*1
  y ~ 1*1
"""
CROSSED = """
level: 1
  f =~ y1 + y2 + y3
  f ~ x
level: pupil
  y1 ~~ y1 + y2
  y2 ~~ y2
level: lecturer
  g =~ y1 + y2 + y3
  g ~ u
"""
CLUSTER = ["school", "class"]
BOUND = 5.0  # standard errors


def free(text: str) -> str:
    """The model of a population, without its values but for those of markers."""
    lines = []
    for line in text.splitlines():
        left, op, right = next(
            ((a, o, b) for o in ("=~", "~~", "~") for a, s, b in [line.partition(o)] if s), (line, "", "")
        )
        terms = [term.strip() for term in right.split("+")]
        kept = [t if t.startswith("rv") else t.rpartition("*")[2] for t in terms]
        lines.append(f"{left}{op} {' + '.join(kept)}" if op else line)
    return "\n".join(lines)


@cache
def fitted(text: str, schools: int) -> tuple[msem.Fit, pd.DataFrame]:
    data = msem.simulate(
        text, nclusters=(schools, [2, 3]), cluster_sizes=[3, 4, 5], seed=2, cluster=tuple(CLUSTER)
    )
    return msem.sem(free(text), data, cluster=CLUSTER), data


@cache
def crossed() -> tuple[msem.Fit, pd.DataFrame]:
    rng = np.random.default_rng(1)
    n, pupils, lecturers = 500, 40, 30
    pupil, lecturer = rng.integers(0, pupils, n), rng.integers(0, lecturers, n)
    x, u, f = rng.normal(size=n), rng.normal(size=lecturers), rng.normal(size=n)
    f += 0.5 * x
    mild, good = rng.normal(size=pupils), rng.normal(size=lecturers) + 0.5 * u
    data = pd.DataFrame({"pupil": pupil, "lecturer": lecturer, "x": x, "u": u[lecturer]})
    for k, on in enumerate((0.6, 0.6, 0.0), 1):
        data[f"y{k}"] = 0.8 * f + on * mild[pupil] + 0.7 * good[lecturer] + 0.5 * rng.normal(size=n)
        data[f"y{k}"] += (
            0.3 * on * rng.normal(size=pupils)[pupil] + 0.3 * rng.normal(size=lecturers)[lecturer]
        )
    return msem.sem(CROSSED, data, cluster="pupil * lecturer"), data


class Dense:
    """All variables of all levels of some rows as one normal vector, and what is observed as linear in it.

    `columns` are those of clusters by level from 2 on; `slopes` the name of each random slope with its level, outcome
    and covariate.
    """

    def __init__(
        self,
        fit: msem.Fit,
        data: pd.DataFrame,
        columns: list[list[str]],
        slopes: dict[str, tuple[int, str, str]] | None = None,
    ) -> None:
        self.levels = [fit.implied[level] for level in range(1, len(columns) + 2)]
        self.names = [list(m.cov.columns) for m in self.levels]
        ids = [pd.Series(range(len(data)))] + [data.groupby(own, sort=False).ngroup() for own in columns]
        self.codes = [np.asarray(one) for one in ids]
        counts = [one.max() + 1 for one in self.codes]
        self.first = np.cumsum([0, *(c * len(n) for c, n in zip(counts, self.names, strict=True))])
        self.prior = np.zeros((self.first[-1],) * 2)
        self.centre = np.zeros(self.first[-1])
        for m, a, b, c in zip(self.levels, self.first, self.first[1:], counts, strict=False):
            self.prior[a:b, a:b] = np.kron(np.eye(c), m.cov)
            self.centre[a:b] = np.tile(m.mean, c)
        self.data, self.slopes, self.top = data, slopes or {}, len(self.levels)

    def row(self, i: int, name: str, lowest: int = 1) -> np.ndarray:
        """The parts of a variable in a unit at the levels from `lowest` on."""
        out = np.zeros(len(self.prior))
        for level in range(lowest, self.top + 1):
            own = self.names[level - 1]
            if name in own:
                at = self.first[level - 1] + self.codes[level - 1][i] * len(own) + own.index(name)
                out[at] += 1
            for slope, (of, outcome, covariate) in self.slopes.items():
                if of == level and outcome == name:
                    out += self.data[covariate].iloc[i] * self.row(i, slope, level + 1)
        return out

    def given(self, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Posterior mean and covariance matrix given the values of some variables in all rows."""
        pairs = [
            (i, name)
            for name in names
            for i in range(len(self.data))
            if self.data[name].iloc[i] == self.data[name].iloc[i]
        ]
        design = np.array([self.row(i, name) for i, name in pairs])
        values = np.array([self.data[name].iloc[i] for i, name in pairs])
        cov = design @ self.prior @ design.T
        gain = np.linalg.pinv(cov, rcond=1e-11, hermitian=True) @ design @ self.prior
        return self.centre + gain.T @ (
            values - design @ self.centre
        ), self.prior - gain.T @ design @ self.prior


def some(data: pd.DataFrame, schools: int = 2) -> pd.DataFrame:
    return data[data["school"].isin(data["school"].unique()[:schools])].reset_index(drop=True)


NESTED = [["school", "class"], ["school"]]
OBSERVED = ["y1", "y2", "y3", "x", "z", "w", "v"]


def test_parts_of_rows_have_the_moments_of_the_population() -> None:
    data = msem.simulate(POPULATION, nclusters=(3000, 2), cluster_sizes=2, seed=5)
    assert list(data.columns) == ["cluster3", "cluster2", "y1", "y2", "y3", "x", "z", "w", "v"]
    assert not data.groupby("cluster2")[["z", "w"]].std().to_numpy().any()
    assert not data.groupby("cluster3")["v"].std().to_numpy().any()
    fit, _ = fitted(POPULATION, 130)
    truth = msem.fits.simulate.read_population(POPULATION).moments()
    values = data[["y1", "x", "z"]].to_numpy().reshape(3000, 4, 3) - np.array([2, 0, 0])
    everything = {level: np.zeros((3, 3)) for level in truth}
    for level, m in truth.items():
        for i, a in enumerate(("y1", "x", "z")):
            for j, b in enumerate(("y1", "x", "z")):
                if a in m.names and b in m.names:
                    everything[level][i, j] = m.cov[m.at[a], m.at[b]]
    for one, other, levels in ((0, 0, (1, 2, 3)), (0, 1, (2, 3)), (0, 2, (3,))):
        products = np.einsum("ki,kj->kij", values[:, one], values[:, other])
        expected = sum(everything[level] for level in levels)
        error = products.std(axis=0) / np.sqrt(3000)
        assert np.abs((products.mean(axis=0) - expected) / error).max() < BOUND
    assert fit.converged


@pytest.mark.parametrize(("text", "schools"), [(POPULATION, 130), (SLOPES, 150)])
def test_estimates_in_samples_are_those_of_the_population(text: str, schools: int) -> None:
    fit, _ = fitted(text, schools)
    truth = msem.fits.simulate.read_population(text).truth()
    table = fit.estimates()
    table = table[table["se"] > 0]
    keys = table[["lhs", "op", "rhs", "level", "group"]].itertuples(index=False, name=None)
    expected = [truth[key] for key in keys]
    assert (np.abs(table["est"] - expected) / table["se"]).max() < 4


def test_samples_from_a_fit_have_its_clusters() -> None:
    fit, data = fitted(POPULATION, 130)
    drawn = msem.simulate(fit, seed=1)
    assert list(drawn.columns[:2]) == CLUSTER
    sizes = data.groupby("class").size()
    assert drawn.groupby("class").size().tolist() == sizes.tolist()
    assert (
        drawn.groupby("school")["class"].nunique().tolist()
        == data.groupby("school")["class"].nunique().tolist()
    )
    many = msem.simulate(fit, seed=1, replications=3)
    assert many[0].equals(drawn)
    assert not many[1].equals(drawn)
    again = msem.compile(free(POPULATION), cluster=CLUSTER).fit_many(many, progress=False)
    assert again.estimates["status"].isin(["ok", "improper"]).all()


def test_samples_of_crossed_classifications_from_a_text() -> None:
    text = """
    level: 1
      y1 ~~ 1*y1 + 0.5*y2
      y2 ~~ 0.8*y2
    level: pupil
      y1 ~~ 0.6*y1
      u ~~ 1*u + 0.4*y1
    level: school
      y1 ~~ 0.5*y1 + 0.3*y2
      y2 ~~ 0.4*y2
    """
    options = {"cluster": "pupil * school", "nclusters": (300, 200), "nobs": 6000, "seed": 3}
    data = msem.simulate(text, **options)
    assert list(data.columns) == ["pupil", "school", "y1", "y2", "u"]
    assert data["pupil"].nunique() == 300
    assert data["school"].nunique() == 200
    assert data.groupby(["pupil", "school"]).ngroups > 5000
    fit = msem.sem(free(text), data, cluster="pupil * school")
    truth = msem.fits.simulate.read_population(text, "pupil * school").truth()
    table = fit.estimates()
    table = table[table["se"] > 0]
    keys = table[["lhs", "op", "rhs", "level", "group"]].itertuples(index=False, name=None)
    assert (np.abs(table["est"] - [truth[key] for key in keys]) / table["se"]).max() < 4
    with pytest.raises(DataError, match="needs nclusters"):
        msem.simulate(text, **(options | {"nobs": None}))
    with pytest.raises(DataError, match="300 clusters need a unit each"):
        msem.simulate(text, **(options | {"nobs": 200}))


def test_power_of_three_levels() -> None:
    text = "level: 1\n y ~ 0.3*x\n y ~~ 1*y\nlevel: 2\n y ~~ 0.4*y\nlevel: 3\n y ~~ 0.5*y"
    grid = {"nclusters": [(40, 3)], "cluster_sizes": [5]}
    found = msem.power(free(text), text, grid, replications=4, seed=1, progress=False)
    assert found.parameters["used"].min() >= 3
    assert found.designs["nobs"].tolist() == [600]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"nclusters": 20, "cluster_sizes": 3}, DataError, "nclusters=.schools, classes"),
        ({"nclusters": (20, [1] * 30), "cluster_sizes": 3}, DataError, "30 numbers of clusters within 20"),
        ({"nclusters": (20, 2), "cluster_sizes": 3, "nobs": 4}, DataError, "three levels: give nclusters"),
        ({"nclusters": (20, 2), "cluster_sizes": 3, "as_": "statistics"}, UnsupportedError, "as_="),
        ({"nclusters": (20, 2), "cluster_sizes": 3, "cluster": "school"}, DataError, "highest first"),
        ({"nclusters": (20, 2), "cluster_sizes": 3, "cluster": ("v", "k")}, ModelError, "'v' is a variable"),
        (
            {"nclusters": (20, 2), "cluster_sizes": 3, "distribution": {"between": "normal"}},
            ValueError,
            "levels 1 to 3",
        ),
    ],
)
def test_designs_that_cannot_be_are_named(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        msem.simulate(POPULATION, **options)


@pytest.mark.parametrize("missing", [False, True])
def test_plausible_values_have_the_dense_posterior(missing: bool) -> None:
    fit, data = fitted(POPULATION, 130)
    new = some(data)
    if missing:
        new.loc[[0, 3, 4], "y1"] = np.nan
        new.loc[[3, 5], "y3"] = np.nan
        fit = msem.sem(free(POPULATION), pd.concat([new, data[len(new) :]]), cluster=CLUSTER, missing="fiml")
    draws = fit.plausible_values(120, seed=1, newdata=new)
    whole = Dense(fit, new, NESTED)
    mean, cov = whole.given(OBSERVED)
    rows = [(i, name) for name in ("fw", "fc", "fs") for i in range(len(new))]
    pick = np.array([whole.row(i, name) for i, name in rows])
    mean, cov = pick @ mean, pick @ cov @ pick.T
    scores = fit.factor_scores(newdata=new)
    assert_allclose(np.concatenate([scores[name] for name in ("fw", "fc", "fs")]), mean, atol=1e-7)
    values = np.array([np.concatenate([one[name] for name in ("fw", "fc", "fs")]) for one in draws])
    assert (np.abs(values.mean(axis=0) - mean) < BOUND * np.sqrt(cov.diagonal() / 120)).all()
    spread = np.sqrt((np.outer(cov.diagonal(), cov.diagonal()) + cov**2) / 120)
    assert (np.abs(np.cov(values.T) - cov) < BOUND * spread).all()


def test_plausible_values_of_crossed_classifications() -> None:
    fit, data = crossed()
    draws = fit.plausible_values(60, seed=1)
    for name in ("f", "g"):
        values = np.array([one[name] for one in draws])
        scores = fit.factor_scores()
        off = (values.mean(axis=0) - scores[name]) / (scores[f"{name}_se"] / np.sqrt(60))
        assert np.abs(off).max() < BOUND
        assert values.std(axis=0).mean() == pytest.approx(scores[f"{name}_se"].mean(), rel=0.05)
    assert len(draws[0]) == len(data)


@pytest.mark.parametrize("random_effects", [False, True])
def test_predictions_are_conditional_expectations(random_effects: bool) -> None:
    fit, data = fitted(POPULATION, 130)
    new = some(data)
    whole = Dense(fit, new, NESTED)
    mean, _ = whole.given(["x", "w", "v"])
    found = fit.predict(new, random_effects=random_effects)
    assert list(found.columns) == ["y1", "y2", "y3", "z"]
    if random_effects:  # of y the parts of clusters given everything, of units given x
        known, _ = whole.given(OBSERVED)
        within = whole.levels[0]
        x_part = [new["x"][i] - whole.row(i, "x", 2) @ known for i in range(len(new))]
        slope = within.cov.loc["y1", "x"] / within.cov.loc["x", "x"]
        expected = [whole.row(i, "y1", 2) @ known + slope * x_part[i] for i in range(len(new))]
        assert_allclose(found["y1"], expected, atol=1e-7)
        return
    for name in found:
        expected = [whole.row(i, name) @ mean for i in range(len(new))]
        assert_allclose(found[name], expected, atol=1e-7)
    assert_allclose(fit.predict(new.drop(columns=["y1", "z"])), found, atol=1e-10)
    assert fit.predict(new.head(1)).notna().all(axis=None)  # one class of one school


def test_predictions_with_slopes_of_two_levels() -> None:
    fit, data = fitted(SLOPES, 150)
    new = some(data)
    slopes = {"s": (1, "y", "x"), "t": (2, "y", "w")}
    whole = Dense(fit, new, NESTED, slopes)
    # covariates are given: they are no part of what is random
    known, _ = whole.given(["y", "x", "w"])
    expected = [
        whole.row(i, "y", 2) @ known + new["x"][i] * whole.row(i, "s", 2) @ known for i in range(len(new))
    ]
    assert_allclose(fit.predict(new, random_effects=True)["y"], expected, atol=1e-7)
    fixed = [whole.row(i, "y") @ whole.centre for i in range(len(new))]
    assert_allclose(fit.predict(new)["y"], fixed, atol=1e-7)
    assert_allclose(fit.resid["y"], data["y"] - fit.fittedvalues["y"], atol=1e-12)


def test_predictions_of_crossed_classifications() -> None:
    fit, data = crossed()
    parts = [fit.random_effects(level=level, se=False) for level in ("pupil", "lecturer")]
    within = fit.implied[1]
    slope = within.cov.loc["y1", "x"] / within.cov.loc["x", "x"]
    expected = parts[0]["y1"].loc[data["pupil"]].to_numpy() + parts[1]["y1"].loc[data["lecturer"]].to_numpy()
    expected = expected + within.mean["y1"] + slope * (data["x"] - within.mean["x"])
    assert_allclose(fit.fittedvalues["y1"], expected, atol=1e-8)
    above = fit.implied[3]
    on_u = above.cov.loc["y1", "u"] / above.cov.loc["u", "u"]
    fixed = above.mean["y1"] + on_u * (data["u"] - above.mean["u"]) + slope * (data["x"] - within.mean["x"])
    fixed = fixed + within.mean["y1"] + fit.implied[2].mean["y1"]
    assert_allclose(fit.predict(data[["pupil", "lecturer", "x", "u"]])["y1"], fixed, atol=1e-8)
    assert_allclose(fit.predict(data.head(1))["y1"], fixed[:1], atol=1e-8)


@pytest.mark.parametrize("missing", [False, True])
def test_distances_are_those_of_the_dense_density(missing: bool) -> None:
    fit, data = fitted(POPULATION, 130)
    new = some(data)
    if missing:
        new.loc[[0, 3, 4], "y1"] = np.nan
        new.loc[[3, 5], "y3"] = np.nan
        new.loc[new["class"] == new["class"].iloc[-1], "z"] = np.nan
        fit = msem.sem(free(POPULATION), pd.concat([new, data[len(new) :]]), cluster=CLUSTER, missing="fiml")
    found, units = fit.distances(newdata=new), fit.distances(1, newdata=new)
    for school, part in new.groupby("school"):
        rows = part.reset_index(drop=True)
        whole = Dense(fit, rows, NESTED)
        pairs = [(i, n) for n in ("y1", "y2", "y3", "x") for i in range(len(rows))]
        first = np.unique(rows["class"], return_index=True)[1]
        pairs += [(i, n) for n in ("z", "w") for i in first] + [(0, "v")]
        pairs = [(i, n) for i, n in pairs if not np.isnan(rows[n][i])]
        design = np.array([whole.row(i, n) for i, n in pairs])
        off = np.array([rows[n][i] for i, n in pairs]) - design @ whole.centre
        inverse = np.linalg.inv(design @ whole.prior @ design.T)
        covariates = [k for k, (_, n) in enumerate(pairs) if n in ("w", "v")]
        cov = (design @ whole.prior @ design.T)[np.ix_(covariates, covariates)]
        expected = off @ inverse @ off - off[covariates] @ np.linalg.solve(cov, off[covariates])
        assert found.loc[school, "distance"] == pytest.approx(expected, rel=1e-8)
        assert found.loc[school, "df"] == len(pairs) - len(covariates)
        for i, row in enumerate(part.index):
            own = [k for k, (j, n) in enumerate(pairs) if j == i and n in ("y1", "y2", "y3", "x")]
            s = inverse[own] @ off
            expected = s @ np.linalg.solve(inverse[np.ix_(own, own)], s)
            assert units.loc[row, "distance"] == pytest.approx(expected, rel=1e-8)
            assert units.loc[row, "df"] == len(own)
    # of classes they are held to dense matrices in test_four_levels.py
    assert len(fit.distances(2)) == len(data[CLUSTER].drop_duplicates())


def test_distances_of_ratings() -> None:
    fit, data = crossed()
    found = fit.distances(1)
    few = data.head(60)
    distances = fit.distances(1, newdata=few)
    rows = few.reset_index(drop=True)
    whole = Dense(fit, rows, [["pupil"], ["lecturer"]])
    pairs = [(i, n) for n in ("y1", "y2", "y3", "x") for i in range(len(rows))]
    design = np.array([whole.row(i, n) for i, n in pairs])
    lecturers = np.unique(rows["lecturer"], return_index=True)[1]
    design = np.vstack([design, [whole.row(i, "u") for i in lecturers]])
    values = [rows[n][i] for i, n in pairs] + [rows["u"][i] for i in lecturers]
    off = np.array(values) - design @ whole.centre
    inverse = np.linalg.inv(design @ whole.prior @ design.T)
    for i in (0, 7, 33):
        own = [k for k, (j, n) in enumerate(pairs) if j == i and n != "x"]
        s = inverse[own] @ off
        assert distances["distance"].iloc[i] == pytest.approx(
            s @ np.linalg.solve(inverse[np.ix_(own, own)], s), rel=1e-8
        )
    assert (found["df"] == 3).all()
    assert found["pvalue"].between(0, 1).all()
