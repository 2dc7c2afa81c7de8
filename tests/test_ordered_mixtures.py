"""Ordered and continuous variables of units and clusters: the first stage against dense quadrature and differences."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import optimize, stats

import msem
import reference
from msem import _core
from msem.errors import DataError, DataWarning, ModelError, UnsupportedError

J, MOST = 24, 6
KINDS = [
    "ordered",
    "continuous",
    "ordered within",
    "continuous within",
    "ordered between",
    "continuous between",
]
CATEGORIES = [3, 0, 2, 0, 3, 0]
BOTH = [1, 1, 0, 0]


@dataclass
class Data:
    units: np.ndarray
    x: np.ndarray
    cluster: np.ndarray
    above: np.ndarray
    z: np.ndarray


def draw(q: int, holes: float, seed: int = 4) -> Data:
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(J), rng.integers(2, MOST, J))
    n = len(cluster)
    x, z = rng.normal(size=(n, q)).round(1), rng.normal(size=(J, q))
    effects = rng.normal(size=(J, 1)) * 0.6 + rng.normal(size=(J, 4)) * 0.5
    latent = 0.7 * rng.normal(size=(n, 1)) + 0.7 * rng.normal(size=(n, 4))
    latent += 0.3 * x.sum(axis=1, keepdims=True)
    latent[:, :2] += (effects[:, :2] + 0.4 * z.sum(axis=1, keepdims=True))[cluster]
    values = latent.copy()
    values[:, 0] = np.digitize(latent[:, 0], [-0.5, 0.8])
    values[:, 1] = 2 + 3 * latent[:, 1]
    values[:, 2] = latent[:, 2] > 0.2
    above = effects[:, 2:] + 0.4 * z.sum(axis=1, keepdims=True)
    above[:, 0] = np.digitize(above[:, 0], [-0.4, 0.5])
    values[rng.random(values.shape) < holes] = np.nan
    above[rng.random(above.shape) < holes] = np.nan
    return Data(values, x, cluster, above, z)


class Oracle:
    """Log-likelihoods of the clusters, written down from the model and integrated on dense grids."""

    def __init__(self, data: Data) -> None:
        self.data, self.q = data, data.x.shape[1]
        self.grid = np.linspace(-6.5, 6.5, 41)
        self.log_weight = stats.norm.logpdf(self.grid) + np.log(self.grid[1] - self.grid[0])

    def widths(self) -> list[int]:
        out = []
        for i, k in enumerate(CATEGORIES):
            own = k - 1 if k else 2
            own += self.q * ((i < 4) + (i >= 4 or BOTH[i]))
            out.append(own + (i < 4 and BOTH[i] == 1))
        return out

    def parts(self, i: int, own: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, float]:
        """Thresholds, shift of the rows (of clusters), residual variance, between variance."""
        k, unit = CATEGORIES[i], i < 4
        cuts = np.concatenate([[-np.inf], own[: k - 1], [np.inf]]) if k else own[:0]
        at = k - 1 if k else 1
        rows = len(self.data.units) if unit else J
        shift = np.full(rows, 0.0 if k else own[0])
        if unit:
            shift = shift + self.data.x @ own[at : at + self.q]
            at += self.q
        if not unit or BOTH[i]:
            above = self.data.z @ own[at : at + self.q]
            shift = shift + (above[self.data.cluster] if unit else above)
            at += self.q
        residual = 1.0 if k else own[at]
        return cuts, shift, residual, own[-1] if unit and BOTH[i] else 0.0

    def column(self, i: int) -> np.ndarray:
        return self.data.units[:, i] if i < 4 else self.data.above[:, i - 4]

    @staticmethod
    def probability(cuts: np.ndarray, y: np.ndarray, mean: np.ndarray, sd: float) -> np.ndarray:
        code = np.nan_to_num(y).astype(int)
        high, low = ((cuts[code + k] - mean.T).T / sd for k in (1, 0))
        upper = low + high > 0
        p = np.where(
            upper, stats.norm.sf(low) - stats.norm.sf(high), stats.norm.cdf(high) - stats.norm.cdf(low)
        )
        return np.maximum(p, 1e-300)

    def alone(self, i: int, own: np.ndarray) -> np.ndarray:
        cuts, shift, residual, above = self.parts(i, own)
        y = self.column(i)
        cluster = self.data.cluster if i < 4 else np.arange(J)
        b = np.sqrt(above) * self.grid
        mean = shift[:, None] + b
        if CATEGORIES[i]:
            logs = np.log(self.probability(cuts, y, mean, 1.0))
        else:
            logs = stats.norm.logpdf(np.nan_to_num(y)[:, None], mean, np.sqrt(residual))
        return self.integrate(np.where(np.isnan(y)[:, None], 0, logs), cluster, self.log_weight)

    @staticmethod
    def integrate(logs: np.ndarray, cluster: np.ndarray, weight: np.ndarray) -> np.ndarray:
        total = np.zeros((J, *logs.shape[1:]))
        np.add.at(total, cluster, logs)
        total = (total + weight).reshape(J, -1)
        most = total.max(axis=1)
        return most + np.log(np.exp(total - most[:, None]).sum(axis=1))

    def pair(self, i: int, j: int, one: np.ndarray, other: np.ndarray, own: np.ndarray) -> np.ndarray:
        a, c = self.parts(i, one), self.parts(j, other)
        if (i < 4) != (j < 4):
            return self.across(j, i, c, a, own[0])
        unit = i < 4
        between = own[-1] if unit and a[3] and c[3] else 0.0
        cluster = self.data.cluster if unit else np.arange(J)
        ya, yc = self.column(i), self.column(j)
        root = np.zeros((2, 2))
        root[0, 0] = np.sqrt(a[3])
        root[1, 0] = between / root[0, 0] if between else 0.0
        root[1, 1] = np.sqrt(c[3] - root[1, 0] ** 2)
        x = self.grid
        ba = (root[0, 0] * x)[:, None] + 0 * x
        bc = (root[1, 0] * x)[:, None] + root[1, 1] * x
        if not a[3]:
            ba, bc = ba[:1], bc[:1]
        if not c[3]:
            ba, bc = ba[:, :1], bc[:, :1]
        weight = (self.log_weight[:, None] if a[3] else 0) + (self.log_weight if c[3] else np.zeros(1))
        ma, mc = a[1][:, None, None] + ba, c[1][:, None, None] + bc
        if CATEGORIES[j] and not CATEGORIES[i]:
            a, c, ya, yc, ma, mc, i, j = c, a, yc, ya, mc, ma, j, i
        logs = np.zeros_like(ma)
        ka, kc = ~np.isnan(ya), ~np.isnan(yc)
        both = ka & kc
        logs[both] = self.both(i, j, a, c, ya[both], yc[both], ma[both], mc[both], own[0])
        for k, part, y, mean, rows in ((i, a, ya, ma, ka & ~kc), (j, c, yc, mc, kc & ~ka)):
            if not CATEGORIES[k]:
                logs[rows] = stats.norm.logpdf(y[rows, None, None], mean[rows], np.sqrt(part[2]))
            elif CATEGORIES[j]:  # units with the ordered variable alone are left out beside a continuous one
                logs[rows] = np.log(self.probability(part[0], y[rows], mean[rows], 1.0))
        return self.integrate(logs, cluster, weight)

    def both(self, i: int, j: int, a: Any, c: Any, ya: Any, yc: Any, ma: Any, mc: Any, own: float) -> Any:
        if CATEGORIES[i] and CATEGORIES[j]:
            edges = [
                (part[0][y.astype(int) + k] - m.T).T
                for part, y, m in ((a, ya, ma), (c, yc, mc))
                for k in (1, 0)
            ]
            return np.log(np.maximum(_core.binormal_between(*edges, own), 1e-300))
        ea, ec = ya[:, None, None] - ma, yc[:, None, None] - mc
        slope = own / c[2]
        density = stats.norm.logpdf(ec, 0, np.sqrt(c[2]))
        if CATEGORIES[i]:
            p = self.probability(a[0], ya, ma + slope * ec, np.sqrt(1 - own * slope))
            return density + np.log(p)
        return density + stats.norm.logpdf(ea, slope * ec, np.sqrt(a[2] - own * slope))

    def across(self, unit: int, above: int, u: Any, z: Any, cov: float) -> np.ndarray:
        """A variable of units, and one of clusters."""
        y, own = self.column(unit), self.column(above)
        if CATEGORIES[above]:
            b = np.sqrt(u[3]) * self.grid + np.zeros((J, 1))
            sd = np.sqrt(1 - cov**2 / u[3])
            factor = np.log(self.probability(z[0], own, z[1][:, None] + cov / u[3] * b, sd))
        else:
            error = np.nan_to_num(own - z[1])
            spread = np.sqrt(u[3] - cov**2 / z[2])
            b = (cov / z[2] * error)[:, None] + spread * self.grid
            factor = stats.norm.logpdf(error, 0, np.sqrt(z[2]))[:, None] + 0 * b
        mean = u[1][:, None] + b[self.data.cluster]
        if CATEGORIES[unit]:
            logs = np.log(self.probability(u[0], y, mean, 1.0))
        else:
            logs = stats.norm.logpdf(np.nan_to_num(y)[:, None], mean, np.sqrt(u[2]))
        logs = np.where(np.isnan(y)[:, None], 0, logs)
        value = self.integrate(logs, self.data.cluster, self.log_weight + factor)
        rows = np.bincount(self.data.cluster, ~np.isnan(y), J)
        return np.where(np.isnan(own) | (rows == 0), 0, value)


def slopes(function: Any, theta: np.ndarray) -> np.ndarray:
    step = 1e-4
    ends = [(function(theta + e), function(theta - e)) for e in step * np.eye(len(theta))]
    return np.array([(high - low) / (2 * step) for high, low in ends]).T


@pytest.mark.parametrize(("q", "holes"), [(0, 0.0), (1, 0.1)])
def test_scores_are_those_of_dense_quadrature(q: int, holes: float) -> None:
    data = draw(q, holes)
    starts = []
    for i, k in enumerate(CATEGORIES):
        column = data.units[:, i] if i < 4 else data.above[:, i - 4]
        column = column[~np.isnan(column)]
        starts.append(np.array([stats.norm.ppf((column <= c).mean()) for c in range(k - 1)]))
    found = _core.two_level_first_stage(
        data.units, data.x, data.cluster, data.above, data.z, CATEGORIES, BOTH, starts
    )
    assert found["unsettled"] == found["unknown"] == found["at_bound"] == []
    oracle = Oracle(data)
    widths = oracle.widths()
    first = np.cumsum([0, *widths])
    assert found["first"] == first.tolist()
    theta, m = found["estimates"], len(found["estimates"])
    scores, bread = np.zeros((J, m)), np.zeros((m, m))
    own = [slice(first[i], first[i + 1]) for i in range(6)]
    for i in range(6):
        scores[:, own[i]] = slopes(lambda t, i=i: oracle.alone(i, t), theta[own[i]])
        bread[own[i], own[i]] = scores[:, own[i]].T @ scores[:, own[i]]
    at = first[6]
    for j in range(6):
        for i in range(j + 1, 6):
            count = (i < 4 and j < 4) + int((i >= 4 or BOTH[i] == 1) and (j >= 4 or BOTH[j] == 1))
            if not count:
                continue
            mine = slice(at, at + count)
            at += count
            wi, wj = widths[i], widths[j]

            def value(t: np.ndarray, i: int = i, j: int = j, wi: int = wi, wj: int = wj) -> np.ndarray:
                return oracle.pair(i, j, t[:wi], t[wi : wi + wj], t[wi + wj :])

            whole = slopes(value, np.concatenate([theta[own[i]], theta[own[j]], theta[mine]]))
            scores[:, mine] = whole[:, wi + wj :]
            products = whole[:, wi + wj :].T @ whole
            bread[mine, own[i]], bread[mine, own[j]] = products[:, :wi], products[:, wi : wi + wj]
            bread[mine, mine] = products[:, wi + wj :]
            label = f"{KINDS[i]}, {KINDS[j]}"
            scale = np.sqrt(np.outer(np.diag(products[:, wi + wj :]), (whole**2).sum(axis=0)))
            ours = np.hstack([found["bread"][mine, k] for k in (own[i], own[j], mine)])
            assert_allclose(ours / scale, products / scale, atol=2e-5, err_msg=label)
    assert at == m
    assert np.abs(scores.sum(axis=0) / np.sqrt((scores**2).sum(axis=0))).max() < 2e-4
    scale = np.sqrt(np.outer((scores**2).sum(axis=0), (scores**2).sum(axis=0)))
    assert_allclose(found["bread"] / scale, bread / scale, atol=2e-5)
    assert_allclose(found["meat"] / scale, scores.T @ scores / scale, atol=2e-5)


# -- models ------------------------------------------------------------------------------------------------------

MODEL = """
level: 1
  fw =~ u1 + u2 + y3 + wo
  fw ~ x
level: 2
  fb =~ u1 + u2 + y3 + bo + zc
  fb ~ z
"""
U = ["u1", "u2", "wo", "bo"]
TRUE = {"fw=~u2": 0.8, "fw=~y3": 0.9, "fw=~wo": 0.5, "fw~x": 0.5, "fb=~bo.l2": 0.8, "fb=~zc.l2": 0.6}
TRUE |= {"fb~z.l2": 0.4, "y3~~y3": 1, "zc~~zc.l2": 0.25, "u1|t1.l2": -1, "bo|t2.l2": 0.9, "wo|t1": -0.5}


def people(seed: int, clusters: int = 150, scale: float = 1.0, mean: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    code = np.repeat(np.arange(clusters), 8)
    n = len(code)
    x, z = rng.normal(size=n), rng.normal(size=clusters)
    fw, fb = 0.5 * x + rng.normal(size=n), mean + 0.4 * z + 0.7 * rng.normal(size=clusters)
    own = 0.3 * rng.normal(size=(clusters, 3)) + fb[:, None] * [1, 0.9, 0.8]
    y = fw[:, None] * [1, 0.8, 0.9] + scale * rng.normal(size=(n, 3)) + own[code]
    return pd.DataFrame(
        {
            "u1": np.digitize(y[:, 0], [-1, 0.5]),
            "u2": np.digitize(y[:, 1], [-0.6, 0.2]),
            "y3": 2 + y[:, 2],
            "wo": np.digitize(0.5 * fw + rng.normal(size=n), [-0.5, 0.6]),
            "bo": np.digitize(0.8 * fb + rng.normal(size=clusters), [-0.3, 0.9])[code],
            "zc": (0.6 * fb + 0.5 * rng.normal(size=clusters))[code],
            "x": x,
            "z": z[code],
            "cluster": code,
        }
    )


PEOPLE = people(1)


def fit(model: str = MODEL, data: pd.DataFrame = PEOPLE, **options: Any) -> msem.Fit:
    return msem.sem(model, data, **({"ordered": U, "cluster": "cluster"} | options))


def test_every_kind_of_variable_in_one_model() -> None:
    found = fit()
    stage = found.statistics.first_stage
    assert stage is not None
    assert found.df == len(stage.keys) - found.table.npar
    names = list(TRUE)
    off = (found.params[names] - pd.Series(TRUE)) / found.bse[names]
    assert off.abs().max() < 3
    assert 0.001 < found.tests().loc["scaled_shifted", "pvalue"] < 0.999
    assert found.standardized()["est_std"].notna().all()
    # the scale of a variable of clusters is its residual variance there, and of others that within
    frame = found.estimates().set_index(["lhs", "op", "rhs", "level"])
    assert [
        frame.loc[(name, "~~", name, level), "est"] for name, level in (("bo", 2), ("wo", 1), ("u1", 1))
    ] == [
        1,
        1,
        1,
    ]
    implied = found.implied[2].observed
    fb = frame.loc[("fb", "~~", "fb", 2), "est"]
    loading = frame.loc[("fb", "=~", "bo", 2), "est"]
    whole = fb + frame.loc[("fb", "~", "z", 2), "est"] ** 2 * implied.cov.loc["z", "z"]
    assert_allclose(implied.cov.loc["bo", "bo"], 1 + loading**2 * whole, rtol=1e-9)


def test_second_stage_is_the_minimum_of_the_weighted_squares() -> None:
    found = fit("level: 1\nu1 ~ a*x\nlevel: 2\nu1 ~ b*z\nbo ~ c*u1", ordered=["u1", "bo"])
    stage = found.statistics.first_stage
    assert stage is not None
    value, acov = dict(stage.items()), stage.acov
    keys = list(stage.keys)

    def implied(theta: np.ndarray) -> np.ndarray:
        a, b, c, v, cuts, above = *theta[:4], theta[4:6], theta[6:]
        scale = 1 / np.sqrt(1 + c * c * v)  # of bo given z
        out = {
            ("u1", "~", "x", 1): a,
            ("u1", "~", "z", 2): b,
            ("bo", "~", "z", 2): b * c * scale,
            ("u1", "~~", "u1", 2): v,
            ("u1", "~~", "bo", 2): c * v * scale,
        }
        out |= {("u1", "|", f"t{k + 1}", 2): cuts[k] for k in range(2)}
        out |= {("bo", "|", f"t{k + 1}", 2): above[k] * scale for k in range(2)}
        return np.array([out[tuple(key)] for key in keys])

    observed = np.array([value[key] for key in keys])
    root = np.sqrt(acov.diagonal())
    best = optimize.least_squares(
        lambda t: (observed - implied(t)) / root, [0.4, 0.4, 0.5, 0.5, -1, 0.5, -0.3, 0.9], xtol=1e-15
    )
    assert_allclose(found.params[["a", "b", "c"]], best.x[:3], rtol=1e-6)
    assert_allclose(found.chisq, 2 * best.cost, rtol=1e-7)
    assert found.df == 1


@pytest.mark.filterwarnings("ignore::msem.errors.ImproperSolutionWarning")
def test_equal_thresholds_leave_residual_variances_of_their_own() -> None:
    other = people(3, scale=1.5, mean=0.5).assign(g="b", cluster=lambda t: t["cluster"] + 1000)
    both = pd.concat([people(2).assign(g="a"), other], ignore_index=True)
    names = ["u1", "u2", "u3"]
    both["u3"] = np.digitize(both["y3"], [1, 2, 3])
    model = "level: 1\nfw =~ u1 + u2 + u3\nlevel: 2\nfb =~ u1 + u2 + u3"
    options: dict[str, Any] = {"ordered": names, "group": "g", "group_equal": ["loadings", "thresholds"]}
    found = fit(model, both, **options)
    theta, se = found.params, found.bse
    for name in names:
        key = f"{name}~~{name}.g2"
        assert abs(theta[key] - 1.5**2) < 3.5 * se[key]
    assert abs(theta["fb~1.g2.l2"] - 0.5) < 3 * se["fb~1.g2.l2"]
    free = fit(model, both, ordered=names, group="g", group_equal=["loadings"])
    assert found.df - free.df == 7 - 4  # thresholds, less scales and the mean of the factor
    assert found.tests().loc["scaled_shifted", "pvalue"] > 0.01


def test_covariates_of_both_levels_are_split_as_outcomes_are() -> None:
    data = PEOPLE.assign(both=PEOPLE["x"] + PEOPLE["z"])
    found = fit("level: 1\nu1 ~ a*both\nlevel: 2\nu1 ~ b*both", data, ordered=["u1"])
    assert found.df == 0
    frame = found.estimates().set_index(["lhs", "op", "rhs", "level"])["est"]
    # the sample's within and between variances of the covariate are about 1
    assert abs(frame[("both", "~~", "both", 1)] - 1) < 0.2
    assert abs(frame[("both", "~~", "both", 2)] - 1) < 0.35
    assert abs(found.params["a"] - 0.5 / np.sqrt(2)) < 4 * found.bse["a"]


@pytest.mark.filterwarnings("ignore::msem.errors.ImproperSolutionWarning")
def test_pairs_take_all_that_is_known() -> None:
    rng = np.random.default_rng(5)
    data = PEOPLE.copy()
    for name in ("u1", "u2", "y3"):
        data[name] = data[name].astype(float).mask(rng.random(len(data)) < 0.2)
    data["zc"] = data["zc"].mask(data["cluster"] % 10 == 3)
    some = fit(data=data, missing="pairwise")
    with pytest.warns(DataWarning, match="deleted listwise"):
        few = fit(data=data)
    whole, names = fit(), list(TRUE)
    assert (some.bse[names] < few.bse[names]).mean() > 0.7
    assert ((some.params - whole.params)[names].abs() < 2.5 * some.bse[names]).all()
    same = fit(missing="available.cases")
    assert_allclose(same.params, whole.params, rtol=1e-6)
    one = msem.sem("f =~ u1 + u2 + y3 + wo", data, ordered=["u1", "u2", "wo"], missing="pairwise")
    assert one.nobs > few.nobs
    with pytest.raises(UnsupportedError, match="none is in the model"):
        msem.sem("f =~ y3 + zc + x", data, missing="pairwise")


def test_intraclass_correlations_are_of_all_that_varies() -> None:
    found = fit("level: 1\nu1 ~ x\ny3 ~ x\nlevel: 2\nu1 ~ z\ny3 ~ z", ordered=["u1"])
    table = found.icc_table()
    assert_allclose(table["icc"], found.icc, rtol=1e-10)
    assert (table["se"] > 0.01).all()
    model = found.icc_table(source="model")
    assert_allclose(table["icc"], model["icc"], rtol=1e-6)


def test_srmr_is_of_each_level() -> None:
    found = fit(
        "level: 1\nfw =~ u1 + u2 + y3\nlevel: 2\nfb =~ u1 + u2 + y3\ny3 ~~ 0*y3\nu1 ~~ 0*u1", ordered=U[:2]
    )
    frame = found.residuals("cor").query("op == '~~'")
    measures = found.fit_measures(["srmr_within", "srmr_between"])
    for level, own in enumerate(measures, 1):
        rows = frame[frame["level"] == level]
        assert_allclose(np.sqrt((rows["residual"] ** 2).mean()), own, rtol=0.35)


def test_first_stages_are_saved_and_serve_other_models(tmp_path: Path) -> None:
    found, path = fit(), tmp_path / "moments.json"
    found.ordered_moments.save(path)
    shared = msem.OrderedMoments.load(path)
    assert "40 statistics of u1, u2, y3, wo, bo, zc given x, z" in repr(shared)
    assert_allclose(shared.acov, found.ordered_moments.acov, rtol=0)
    again = msem.sem(MODEL, shared)
    assert_allclose(again.params, found.params, atol=1e-9)
    assert_allclose(again.bse, found.bse, rtol=1e-7)
    assert_allclose(again.tests()["statistic"], found.tests()["statistic"], rtol=1e-7)
    assert again.nobs == found.nobs
    assert_allclose(again.icc, found.icc, rtol=1e-9)
    smaller = MODEL.replace(" + wo", "").replace(" + bo + zc", "")
    ours, theirs = msem.sem(smaller, shared), fit(smaller, ordered=U[:2])
    assert_allclose(ours.params, theirs.params, atol=1e-6)
    assert_allclose(ours.bse, theirs.bse, rtol=1e-4)
    assert not any(text in path.read_text() for text in ("cluster_of_row", "rows"))
    text = path.read_text()
    path.write_text(text.replace("0.1", "0.2", 1))
    with pytest.raises(DataError, match="its digest is another one"):
        msem.OrderedMoments.load(path)


def test_first_stages_of_groups() -> None:
    data = PEOPLE.assign(g=np.where(PEOPLE["cluster"] % 2, "a", "b"))
    model = "level: 1\nu1 ~ y3\nlevel: 2\nu1 ~ y3"
    whole = fit(model, data, group="g", ordered=["u1"])
    equal = fit(model, data, group="g", ordered=["u1"], group_equal=["regressions"])
    again = msem.sem(model, whole.ordered_moments, group_equal=["regressions"])
    assert_allclose(again.params, equal.params, atol=1e-7)


@pytest.mark.parametrize(
    ("model", "options", "kind", "message"),
    [
        (MODEL.replace("fw ~ x", ""), {}, ModelError, "conditional on 'x', which the model does not have"),
        (MODEL.replace("wo", "other"), {}, DataError, "no 'other' among these moments"),
        (MODEL.replace("fb =~ u1 + u2", "fb =~ u1"), {}, DataError, "'u2' is at both levels in these"),
        ("f =~ u1 + u2 + wo", {}, ModelError, "of 2 and the model of 1 levels"),
        (MODEL, {"cluster": "cluster"}, DataError, "is for raw data"),
        (MODEL, {"missing": "pairwise"}, DataError, 'missing="pairwise" is for raw data'),
        (MODEL, {"fixed_x": False}, ModelError, "is a fixed covariate of these moments and a variable"),
        (MODEL, {"ordered": ["y3"]}, UnsupportedError, "'y3' is not ordered in these moments"),
    ],
)
def test_first_stages_do_not_serve_every_model(
    model: str, options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        msem.sem(model, fit().ordered_moments, **options)


def near(name: str) -> np.ndarray:
    return PEOPLE[name] * 10.0 + np.random.default_rng(1).normal(size=len(PEOPLE)) * 0.01


EMPTY = PEOPLE["bo"].where((PEOPLE["cluster"] % 2 == 0) | (PEOPLE["bo"] < 2), 1)
ALONE = {"u1": PEOPLE["u1"].where(PEOPLE.index % 2 == 0), "u2": PEOPLE["u2"].where(PEOPLE.index % 2 == 1)}


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"bo": np.arange(len(PEOPLE)) % 3}, {}, "'bo' is in the level-2 block only, but varies within"),
        (
            {"g": PEOPLE["cluster"] % 2, "bo": EMPTY},
            {"group": "g"},
            "category 2 of 'bo' is empty in group '1'",
        ),
        ({"u1": np.arange(len(PEOPLE)) % 30}, {}, "30 categories, more than 20"),
        ({"wo": 1}, {}, "'wo' has one category only"),
        ({"x": near("u2")}, {}, "'u2' .* given the covariates, unless these separate"),
        (
            {"u1": np.random.default_rng(3).permutation(PEOPLE["u1"])},
            {},
            "'u1' does not vary between clusters",
        ),
        (ALONE, {"missing": "pairwise"}, "'u1' and 'u2' have no covariance: too few rows"),
    ],
)
def test_what_cannot_be_estimated_is_named(columns: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        fit(data=PEOPLE.assign(**columns), **options)


@reference.needs_reference
def test_six_ordered_variables_against_lavaan() -> None:
    """Within it agrees; between, its nodes do not move with the clusters and it is off where these vary most (u4)."""
    data, expected = reference.data("wlsmv_six"), reference.expected("wlsmv_six")
    names = [f"u{k}" for k in range(1, 7)]
    found = fit(reference.model("wlsmv_six"), data, ordered=names)
    ours = found.estimates().set_index(["lhs", "op", "rhs", "level"])[["est", "se"]]
    for row in expected["parameter_table"]:
        if row["free"]:
            est, se = ours.loc[(row["lhs"], row["op"], row["rhs"], row["level"])]
            within = row["level"] == 1
            assert abs(est - row["est"]) < (0.05 if within else 0.7) * row["se"]
            assert se == pytest.approx(row["se"], rel=0.02 if within else 0.35)
    assert found.df == expected["fit_measures"]["df"]


@pytest.mark.parametrize("estimator", ["WLSMV", "ML"])
@pytest.mark.parametrize(("spread", "cuts"), [(2.9, [0.2]), (6.5, [0.2]), (10.0, [-4.0, 5.0])])
def test_a_great_variance_between_clusters_has_nodes_enough(
    spread: float, cuts: list[float], estimator: str
) -> None:
    """Clusters whose units are all in one category have effects that are anything but normal."""
    rng = np.random.default_rng(5)
    cluster = np.repeat(np.arange(80), rng.integers(4, 12, 80))
    y = spread * rng.normal(size=80)[cluster] + rng.normal(size=len(cluster))
    data = pd.DataFrame({"u": np.digitize(y, cuts), "cluster": cluster})
    fit = msem.sem(
        "level: 1\nu ~~ 1*u\nlevel: 2\nu ~~ u", data, ordered=["u"], cluster="cluster", estimator=estimator
    )
    assert fit.status == "ok"
    assert fit.params["u~~u.l2"] > 0.6 * spread**2
    places = np.linspace(-9, 9, 4001)
    counts = np.zeros((80, len(cuts) + 1))
    np.add.at(counts, (cluster, data["u"]), 1)

    def loglik(*theta: float) -> float:
        """By a dense rule over the effects."""
        ends = np.array([-np.inf, *theta[:-1], np.inf])[:, None] - places * np.sqrt(theta[-1])
        low, high = ends[:-1], ends[1:]
        upper = low + high > 0
        p = np.where(
            upper, stats.norm.sf(low) - stats.norm.sf(high), stats.norm.cdf(high) - stats.norm.cdf(low)
        )
        logs = counts @ np.log(np.maximum(p, 1e-300))
        return float(
            np.log((np.exp(logs) * stats.norm.pdf(places)).sum(axis=1) * (places[1] - places[0])).sum()
        )

    names = [*(f"u|t{k + 1}.l2" for k in range(len(cuts))), "u~~u.l2"]
    at, se = fit.params[names].to_numpy(), fit.bse[names].to_numpy()
    for step in np.diag(0.002 * se):
        slope = (loglik(*(at + step)) - loglik(*(at - step))) / 0.004  # in standard errors
        assert abs(slope) < 1e-4
    if estimator == "ML":
        assert fit.llf == pytest.approx(loglik(*at), abs=1e-6)
