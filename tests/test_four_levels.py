"""More than three levels: the log-likelihood against dense densities, moments, samples, and what can be asked."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy.differentiate import derivative
from scipy.stats import multivariate_normal

import msem
from msem.data.shapes import average_shapes, total
from msem.errors import DataError, ImproperSolutionWarning, ModelError, UnsupportedError

CLUSTER = ["region", "school", "class"]
Y = ["y1", "y2", "y3"]
OWN = {1: [], 2: ["v2"], 3: ["v3"], 4: ["v4"]}  # variables of clusters, in the order of their levels
FACTORS = "".join(f"level: {k}\n f{k} =~ y1 + y2 + y3\n" for k in range(1, 5))
MODEL = "".join(
    f"level: {k}\n f{k} =~ y1 + y2 + y3\n" + "".join(f" {v} ~~ {v} + f{k}\n" for v in own)
    for k, own in OWN.items()
)


def simulated(regions: int = 24, seed: int = 1, noise: float = 0.6) -> pd.DataFrame:
    """Pupils in classes in schools in regions, unbalanced, with a factor and a variable of its own at every level."""
    rng = np.random.default_rng(seed)
    load = np.array([1.0, 0.8, 0.9])
    rows = []

    def cluster(of: float) -> tuple[np.ndarray, float]:
        f = rng.normal()
        return of * f * load + 0.7 * rng.normal(size=3), 0.5 * f + rng.normal()

    for region in range(regions):
        a, v4 = cluster(0.8)
        for school in range(rng.integers(2, 5)):
            b, v3 = cluster(0.7)
            for room in range(rng.integers(2, 5)):
                c, v2 = cluster(0.8)
                for _ in range(rng.integers(2, 5)):
                    y = a + b + c + rng.normal() * load + rng.normal(size=3) * noise
                    rows.append((region, school, room, *y, v2, v3, v4))
    return pd.DataFrame(rows, columns=[*CLUSTER, *Y, "v2", "v3", "v4"])


DATA = simulated()


@pytest.fixture(scope="module")
def fit() -> msem.Fit:
    return msem.sem(MODEL, DATA, cluster=CLUSTER)


def unit_codes(data: pd.DataFrame) -> list[np.ndarray]:
    """Of each unit the unit itself, its class, school and region."""
    clusters = [data.groupby(CLUSTER[:k]).ngroup().to_numpy() for k in (3, 2, 1)]
    return [np.arange(len(data)), *clusters]


def dense_moments(moments: Any, data: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, covariance matrix and values of all that is observed, variables of clusters once for each cluster."""
    codes = unit_codes(data)
    entries = [(name, codes[0], data[name].to_numpy()) for name in Y]
    for k, own in OWN.items():
        first = np.unique(codes[k - 1], return_index=True)[1]
        entries += [(name, first, data[name].to_numpy()[first]) for name in own if name in moments[k].cov]
    names = np.concatenate([np.full(len(rows), name) for name, rows, _ in entries])
    rows = np.concatenate([rows for _, rows, _ in entries])
    values = np.concatenate([values for *_, values in entries]).astype(float)
    cov, mean = np.zeros((len(rows), len(rows))), np.zeros(len(rows))
    for k in range(1, 5):
        own = moments[k].cov.reindex(index=np.unique(names), columns=np.unique(names)).fillna(0.0)
        at = own.index.get_indexer(names)
        same = codes[k - 1][rows]
        cov += own.to_numpy()[np.ix_(at, at)] * (same[:, None] == same)
        mean += moments[k].mean.reindex(own.index).fillna(0.0).to_numpy()[at]
    return mean, cov, values


def log_density(moments: Any, data: pd.DataFrame) -> float:
    mean, cov, values = dense_moments(moments, data)
    seen = ~np.isnan(values)
    r, v = (values - mean)[seen], cov[np.ix_(seen, seen)]
    return -0.5 * float(seen.sum() * np.log(2 * np.pi) + np.linalg.slogdet(v)[1] + r @ np.linalg.solve(v, r))


def with_holes(data: pd.DataFrame) -> pd.DataFrame:
    rng = np.random.default_rng(8)
    out = data.copy()
    for name in Y:
        out.loc[rng.random(len(data)) < 0.15, name] = np.nan
    for k, own in OWN.items():
        for name in own:
            codes = unit_codes(data)[k - 1]
            out.loc[(rng.random(codes.max() + 1) < 0.2)[codes], name] = np.nan
    return out


@pytest.mark.parametrize("holes", [False, True])
def test_the_log_likelihood_is_that_of_dense_densities(holes: bool) -> None:
    data = with_holes(DATA) if holes else DATA
    found = msem.sem(MODEL, data, cluster=CLUSTER, missing="fiml" if holes else "listwise")
    assert found.converged
    assert_allclose(found.llf, log_density(found.implied, data), rtol=1e-12)
    unrestricted = found.fit_measures()["unrestricted_logl"]
    assert_allclose(unrestricted, log_density(found.unrestricted_moments, data), rtol=1e-10)


def test_the_gradient_and_the_information_are_derivatives(fit: msem.Fit) -> None:
    objective, theta = fit.objective, fit.theta + 0.02 * np.cos(np.arange(len(fit.theta)))

    def along(k: int, of: Any) -> Any:
        def moved(step: np.ndarray) -> np.ndarray:
            points = theta + np.multiply.outer(step, np.eye(len(theta))[k])
            return np.apply_along_axis(of, -1, points)

        return moved

    for k in range(0, len(theta), 5):
        slope = derivative(along(k, objective.value), 0.0, initial_step=1e-2, tolerances={"rtol": 1e-9})
        assert_allclose(objective.gradient(theta)[k], slope.df, rtol=1e-6, atol=1e-5)
        step = 1e-5 * np.eye(len(theta))[k]
        change = (objective.gradient(theta + step) - objective.gradient(theta - step)) / 4e-5
        assert_allclose(objective.observed_information(theta)[k], change, rtol=1e-5, atol=1e-4)


def test_rows_ids_and_units_do_not_matter(fit: msem.Fit) -> None:
    changed = DATA.sample(frac=1, random_state=1)
    changed["school"] = "s" + changed["school"].astype(str)
    changed[Y] = 100 * changed[Y] + 7
    again = msem.sem(MODEL, changed, cluster=CLUSTER)
    assert_allclose(again.fit_measures()["chisq"], fit.fit_measures()["chisq"], rtol=1e-7)
    assert_allclose(again.params["f1=~y2"], fit.params["f1=~y2"], rtol=1e-7)
    assert_allclose(again.params["y2~~y2.l3"], 1e4 * fit.params["y2~~y2.l3"], rtol=1e-5)


def test_moments_of_four_levels_travel(tmp_path: Path) -> None:
    found = msem.saturated(DATA[[*CLUSTER, *Y]], cluster=CLUSTER)
    found.save(tmp_path / "h1.json")
    again = msem.LevelMoments.load(tmp_path / "h1.json")
    assert again.cluster_sizes == found.cluster_sizes
    published = msem.LevelMoments.of_levels(
        [one.cov for one in found.levels], found.means, cluster_sizes=DATA.groupby(CLUSTER).size()
    )
    assert published.cluster_sizes == found.cluster_sizes
    assert published.units == (len(DATA), *(len(np.unique(codes)) for codes in unit_codes(DATA)[1:]))
    direct = msem.sem(FACTORS, DATA, cluster=CLUSTER)
    assert direct.df == 0
    for moments in (found, again, published):
        assert_allclose(msem.sem(FACTORS, moments).params, direct.params, rtol=1e-5, atol=1e-7)
        levels = msem.segregated(FACTORS, moments)
        assert_allclose(levels.params[direct.params.index], direct.params, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore::msem.errors.SmallSampleWarning")
@pytest.mark.parametrize("equal", [False, True])
def test_moments_have_the_expected_log_likelihood_of_dense_densities(equal: bool) -> None:
    """That of data with these moments, -1/2 (log|V| + tr V^-1 V0 + d' V^-1 d), at the estimates of another model."""
    data = pd.concat([DATA[DATA["region"] < 4], DATA[DATA["region"] < 2].assign(region=9)])
    h1 = msem.sem(MODEL, DATA, cluster=CLUSTER, fixed_x=False).implied
    covs = [h1[k].cov.loc[[*Y, *own], [*Y, *own]] for k, own in OWN.items()]
    means = pd.Series(np.arange(6) / 5, [*Y, "v2", "v3", "v4"])
    if equal:  # exchangeable clusters at every level
        units = list(itertools.product(range(3), range(2), range(3), range(4)))
        data = pd.DataFrame(units, columns=[*CLUSTER, "k"]).assign(
            **dict.fromkeys([*Y, "v2", "v3", "v4"], 0.0)
        )
    moments = msem.LevelMoments.of_levels(covs, means, cluster_sizes=data.groupby(CLUSTER).size())
    model = MODEL.replace("y1 + y2 + y3", "y1 + 1*y2 + 1*y3") + "v4 ~ 0.5*1"
    found = msem.sem(model, moments)
    truth = {k: moments[k] for k in range(1, 5)}
    mean0, v0, _ = dense_moments(truth, data)
    mean1, v1, _ = dense_moments(found.implied, data)
    d = mean1 - mean0
    value = len(d) * np.log(2 * np.pi) + np.linalg.slogdet(v1)[1]
    value += np.trace(np.linalg.solve(v1, v0)) + d @ np.linalg.solve(v1, d)
    assert_allclose(found.llf, -0.5 * value, rtol=1e-10)


@pytest.mark.parametrize(
    "units", [(600, 120, 30, 8), (601.0, 123, 31, 7), (240, 80, 27, 9), (1000, 100, 10, 5)]
)
def test_shapes_that_are_not_known_have_the_units_of_every_level(units: tuple[float, ...]) -> None:
    shapes = average_shapes(units)
    assert_allclose(total(shapes), units)
    assert {len(shape) for shape in shapes} <= {units[2] // units[3], units[2] // units[3] + 1}


def test_samples_of_four_levels() -> None:
    text = "".join(
        f"level: {k}\n f{k} =~ 1*y1 + 0.8*y2 + 0.9*y3\n f{k} ~~ 0.5*f{k}\n"
        + "".join(f" {name} ~~ 0.4*{name}\n" for name in Y)
        for k in range(1, 5)
    )
    drawn = msem.simulate(text, nclusters=(120, [2, 3], 3), cluster_sizes=[3, 5], seed=4, cluster=CLUSTER)
    assert [drawn[CLUSTER[:k]].drop_duplicates().shape[0] for k in (1, 2, 3)] == [120, 300, 900]
    found = msem.sem(FACTORS, drawn, cluster=CLUSTER)
    z = (found.params.filter(like="f~~") - 0.5) / found.bse.filter(like="f~~")
    assert (z.abs() < 4).all()
    again = msem.simulate(found, seed=5)
    assert again[CLUSTER].equals(drawn[CLUSTER])
    with pytest.raises(DataError, match="four levels needs nclusters=three numbers"):
        msem.simulate(text, nclusters=(120, 3), cluster_sizes=3)


def test_questions_about_four_levels(fit: msem.Fit) -> None:
    assert len(fit.factor_scores(2)) == len(DATA[CLUSTER].drop_duplicates())
    assert fit.factor_scores(3).index.names == CLUSTER[:2]
    assert set(fit.icc_table()["level"]) == {2, 3, 4}
    assert {"srmr_l1", "srmr_l4"} <= set(fit.fit_measures().index)
    assert "SRMR (covariance matrix of level 4)" in fit.summary(fit_measures=True)
    assert [fit.fit_measures(level=k)["df"] for k in range(1, 5)] == [0, 2, 2, 2]
    robust = msem.sem(MODEL, DATA, cluster=CLUSTER, estimator="MLR")
    assert_allclose(robust.params, fit.params, rtol=1e-10)
    assert (robust.bse / fit.bse).between(0.4, 2.0).all()


def test_scores_of_four_levels_are_conditional_means(fit: msem.Fit) -> None:
    """Of what is observed, by the dense covariance matrix."""
    mean, cov, values = dense_moments(fit.implied, DATA)
    scores = fit.factor_scores(4, se=False)["f4"].to_numpy()
    table = fit.estimates()
    at4 = table[(table["level"] == 4) & (table["lhs"] == "f4")].set_index(["op", "rhs"])["est"]
    psi, link = at4["~~", "f4"], table[table["level"].eq(4) & table["op"].eq("~~") & table["rhs"].eq("f4")]
    with_v = link.loc[link["lhs"] == "v4", "est"].item()
    region, n = unit_codes(DATA)[3], len(DATA)
    share = np.zeros((len(values), region.max() + 1))
    for j, name in enumerate(Y):
        share[np.arange(j * n, (j + 1) * n), region] = psi * at4["=~", name]
    share[np.arange(len(values) - region.max() - 1, len(values)), np.arange(region.max() + 1)] = with_v
    assert_allclose(scores, share.T @ np.linalg.solve(cov, values - mean), rtol=1e-8, atol=1e-9)


def test_slopes_vary_at_all_levels_above() -> None:
    rng = np.random.default_rng(5)
    data = DATA.assign(x=rng.normal(size=len(DATA)))
    slopes = [rng.normal(size=codes.max() + 1)[codes] * 0.8 for codes in unit_codes(DATA)[1:]]
    data["y1"] += (0.4 + sum(slopes)) * data["x"]
    text = 'level: 1\n y1 ~ rv("s")*x\n' + "".join(f"level: {k}\n y1 ~~ y1\n s ~~ s\n" for k in (2, 3, 4))
    found = msem.sem(text, data, cluster=CLUSTER)
    codes, x = unit_codes(data), data["x"].to_numpy()
    p = found.params
    cov = p["y1~~y1"] * np.eye(len(data))
    for k in (2, 3, 4):
        same = codes[k - 1][:, None] == codes[k - 1]
        cov += same * (p[f"y1~~y1.l{k}"] + p[f"s~~s.l{k}"] * np.outer(x, x))
    r = data["y1"].to_numpy() - p["y1~1.l4"] - p["s~1.l4"] * x
    value = len(r) * np.log(2 * np.pi) + np.linalg.slogdet(cov)[1] + r @ np.linalg.solve(cov, r)
    assert_allclose(found.llf, -0.5 * value, rtol=1e-11)


@pytest.mark.filterwarnings("ignore::msem.errors.SmallSampleWarning")
def test_five_levels_may_be_named() -> None:
    rng = np.random.default_rng(6)
    ids = pd.DataFrame(list(itertools.product(range(6), range(3), range(3), range(2), range(3))))
    names = ["country", "region", "school", "class"]
    data = ids[range(4)].set_axis(names, axis=1).assign(y=rng.normal(size=len(ids)))
    for k in range(1, 5):
        codes = data.groupby(names[:k]).ngroup()
        data["y"] += rng.normal(size=codes.max() + 1)[codes]
    text = "level: pupil\n y ~~ y\n" + "".join(f"level: {name}\n y ~~ y\n" for name in names[::-1])
    found = msem.sem(text, data, cluster=names)
    assert found.df == 0
    assert found.icc.index.get_level_values("level").tolist() == [2, 3, 4, 5]
    cov = found.params["y~~y"] * np.eye(len(data))
    for k in range(1, 5):
        codes = data.groupby(names[:k]).ngroup().to_numpy()
        cov += found.params[f"y~~y.l{6 - k}"] * (codes[:, None] == codes)
    r = data["y"].to_numpy() - found.params["y~1.l5"]
    value = len(r) * np.log(2 * np.pi) + np.linalg.slogdet(cov)[1] + r @ np.linalg.solve(cov, r)
    assert_allclose(found.llf, -0.5 * value, rtol=1e-12)


def test_description_and_exploratory_analysis() -> None:
    found = msem.describe(DATA[[*CLUSTER, *Y]], cluster=CLUSTER)
    assert {"sd_l4", "icc_l4", "icc_l4_se"} <= set(found.variables)
    assert "ICC, level 4" in found.table().to_markdown()
    factors = msem.efa(DATA[[*CLUSTER, *Y]], {1: 1, 4: 1}, cluster=CLUSTER)
    assert factors.to_frame()["srmr_l4"].item() < 1e-6


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"cluster": CLUSTER[:2]}, ModelError, "four levels, which takes three columns.*names two: name all"),
        (
            {"cluster": [*CLUSTER, "v4"]},
            ModelError,
            "names 4 columns, and the model has four levels: add 'level: 5'",
        ),
        (
            {"model": FACTORS.replace("level: 2", "level: 6")},
            ModelError,
            "level: 6, and the model has no 'level: 2'",
        ),
        (
            {"model": FACTORS.replace("level: 2", "level: 11")},
            UnsupportedError,
            "level 11: .*models have up to nine",
        ),
        (
            {"model": FACTORS.replace("level: 4", "level: between")},
            ModelError,
            "of four levels three are between",
        ),
        ({"cluster": ["class", "region", "school"]}, DataError, "."),
        (
            {"cluster_weights": ["v4", "v3"]},
            DataError,
            "weights of 2 kinds of clusters, and cluster= has 3: give one",
        ),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, Any], kind: type, message: str) -> None:
    given: dict[str, Any] = {"model": FACTORS, "cluster": CLUSTER} | change
    data = DATA.assign(**{"class": unit_codes(DATA)[1], "school": unit_codes(DATA)[2]})
    with pytest.raises(kind, match=message):
        msem.sem(given.pop("model"), data, **given)


def test_without_a_maximum_outside_the_cone_description_has_no_errors() -> None:
    few = simulated(regions=5, seed=2)[[*CLUSTER, *Y]]
    few["y3"] = few["y1"] + few["y2"] + 0.3 * np.random.default_rng(2).normal(size=len(few))
    with pytest.warns(ImproperSolutionWarning):
        found = msem.describe(few, cluster=CLUSTER)
    assert found.variables["icc_l4"].notna().all()
    assert found.variables["icc_l4_se"].isna().all()


@pytest.mark.parametrize("of", ["v4", "v3", "x", "x v4", "x v2 v3 v4"])
@pytest.mark.parametrize("missing", ["listwise", "fiml"])
def test_log_likelihoods_of_clusters_where_levels_have_no_covariates(of: str, missing: str) -> None:
    data = DATA.assign(x=np.random.default_rng(8).normal(size=len(DATA)))
    level = {"x": 1, "v2": 2, "v3": 3, "v4": 4}
    text = "".join(
        f"level: {k}\n y1 ~~ y1\n" + "".join(f" y1 ~ {v}\n" for v in of.split() if level[v] == k)
        for k in range(1, 5)
    )
    fit = msem.sem(text, data, cluster=CLUSTER, missing=missing)
    rows = fit.estimates().set_index(["lhs", "op", "rhs", "level"])["est"]
    mean = rows["y1", "~1", "", 4] + sum(data[v] * rows["y1", "~", v, level[v]] for v in of.split())
    residual = (data["y1"] - mean).to_numpy()
    cov = sum(
        rows["y1", "~~", "y1", k] * (code[:, None] == code) for k, code in enumerate(unit_codes(data), 1)
    )
    dense = [
        multivariate_normal(cov=cov[np.ix_(own, own)]).logpdf(residual[own])
        for own in data.groupby("region").indices.values()
    ]
    assert_allclose(fit.cluster_loglik(), dense, rtol=1e-9)


@pytest.mark.parametrize("holes", [False, True])
def test_distances_of_clusters_of_any_level_are_dense_ones(holes: bool) -> None:
    """Of the data of one class, school or region, given the covariates of all levels around it."""
    data = with_holes(DATA) if holes else DATA
    covariate = np.random.default_rng(5).normal(size=DATA["region"].max() + 1)
    data = data.assign(x=covariate[data["region"]])
    found = msem.sem(MODEL + " f4 ~ x\n", data, cluster=CLUSTER, missing="fiml" if holes else "listwise")
    mean, cov, values = dense_moments(found.implied, data)
    codes = unit_codes(data)
    rows = [codes[0]] * len(Y) + [np.unique(codes[k], return_index=True)[1] for k in (1, 2, 3)]
    names = np.repeat([*Y, "v2", "v3", "v4"], list(map(len, rows)))
    level_of = np.repeat([0, 0, 0, 1, 2, 3], list(map(len, rows)))
    rows_of = np.concatenate(rows)
    x, sigma = found.implied[4].mean["x"], found.implied[4].cov
    reach = np.zeros(len(values))
    for name in [*Y, "v4"]:
        reach[names == name] = sigma.loc[name, "x"] / sigma.loc["x", "x"]
    for level in (2, 3, 4):
        table = found.distances(level)
        of = codes[level - 1]
        assert len(table) == of.max() + 1
        first = data.iloc[np.unique(of, return_index=True)[1]]
        keys = list(first[CLUSTER[: 5 - level]].itertuples(index=False, name=None))
        for number in (0, 3, of.max()):
            own = (of[rows_of] == number) & (level_of < level) & ~np.isnan(values)
            key = keys[number][0] if level == 4 else keys[number]
            # the covariate of the region moves the means of all of its data, and leaves less to vary
            off = (values - mean)[own] - reach[own] * (first["x"].iloc[number] - x)
            v = cov[np.ix_(own, own)] - np.outer(reach[own], reach[own]) * sigma.loc["x", "x"]
            assert_allclose(table.loc[key, "distance"], off @ np.linalg.solve(v, off), rtol=1e-8)
            assert table.loc[key, "df"] == own.sum()
