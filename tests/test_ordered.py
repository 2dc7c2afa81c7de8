"""Ordered variables of one level: the first stage against SciPy and differences, models against lavaan's figures."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import optimize, stats
from scipy.integrate import quad

import msem
import reference
from msem import _core
from msem.data.first_stage import Statistic
from msem.data.ordered import _over_bread, first_stage_keys
from msem.errors import (
    ArgumentError,
    DataError,
    DataWarning,
    ImproperSolutionWarning,
    ModelError,
    UnsupportedError,
)
from msem.model.variables import Variables

CUTS = {"u1": ("y1", [-0.8, 0.7]), "u2": ("y2", [0.0]), "u3": ("y3", [-1, 0, 1]), "u4": ("y4", [-0.5, 0.5])}
U = list(CUTS)
MODEL = "f =~ u1 + u2 + u3 + u4"


def cut(frame: pd.DataFrame) -> pd.DataFrame:
    columns = {name: np.digitize(frame[of], at) for name, (of, at) in CUTS.items()}
    return frame.assign(**columns, g=(frame["x2"] > 0).astype(int))


DATA = cut(msem.load_demo())
N = len(DATA)


def fit(model: str = MODEL, data: Any = DATA, **options: Any) -> msem.Fit:
    return msem.sem(model, data, **({"ordered": U} | options))


# -- the bivariate normal distribution and the first stage -------------------------------------------------------


@pytest.mark.parametrize("r", [0.0, 0.4, -0.8, 0.92, 0.93, -0.99, 0.999])
def test_rectangles_of_the_bivariate_normal(r: float) -> None:
    rng, root = np.random.default_rng(3), np.sqrt(1 - r * r)
    for low, high, below, above in np.sort(rng.normal(size=(4, 2, 2)) * 1.5, axis=2).reshape(4, 4):
        expected = quad(
            lambda t, a=above, b=below: (
                stats.norm.pdf(t) * (stats.norm.cdf((a - r * t) / root) - stats.norm.cdf((b - r * t) / root))
            ),
            low,
            high,
            epsabs=1e-14,
            limit=200,
        )[0]
        assert_allclose(_core.binormal_between(high, low, above, below, r), expected, atol=1e-13)
    # far out the corners cancel
    far = _core.binormal_between(np.inf, 6.5, np.inf, 6.5, r)
    if r == 0:
        assert_allclose(far, stats.norm.sf(6.5) ** 2, rtol=1e-6)


CATEGORIES = [3, 2, 0, 0]  # two ordered variables and two continuous ones


def small(n: int, q: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(8)
    x = rng.normal(size=(n, q))
    latent = rng.normal(size=(n, 1)) + rng.normal(size=(n, 4)) + 0.3 * x.sum(axis=1, keepdims=True)
    values = latent.copy()
    values[:, 0] = np.digitize(latent[:, 0], [-0.5, 0.8])
    values[:, 1] = latent[:, 1] > 0.2
    values[:, 3] = 2 + 3 * latent[:, 3]
    return values, x


def rows_loglik(theta: np.ndarray, values: np.ndarray, x: np.ndarray, i: int, j: int = -1) -> np.ndarray:
    """Log-likelihood of every row for one variable, or for a pair of them, written down from the model."""
    q = x.shape[1]
    first = np.cumsum([0, *((k - 1 if k else 2) + q for k in CATEGORIES)])
    pairs = [(b, a) for a in range(4) for b in range(a + 1, 4)]

    def of(k: int) -> tuple[Any, ...]:
        own = theta[first[k] : first[k + 1]]
        if CATEGORIES[k]:
            cuts = np.concatenate([[-np.inf], own[: CATEGORIES[k] - 1], [np.inf]])
            code, shift = values[:, k].astype(int), x @ own[CATEGORIES[k] - 1 :]
            return cuts[code + 1] - shift, cuts[code] - shift
        return values[:, k] - own[0] - x @ own[1 : 1 + q], own[1 + q]

    one = of(i)
    if j < 0 and CATEGORIES[i]:
        return np.log(stats.norm.cdf(one[0]) - stats.norm.cdf(one[1]))
    if j < 0:
        return stats.norm.logpdf(one[0], scale=np.sqrt(one[1]))
    c, other = theta[first[4] + pairs.index((i, j))], of(j)
    if CATEGORIES[i] and CATEGORIES[j]:
        return np.log(_core.binormal_between(*one, *other, c))
    if not CATEGORIES[i] and not CATEGORIES[j]:
        sigma = np.array([[one[1], c], [c, other[1]]])
        return stats.multivariate_normal([0, 0], sigma).logpdf(np.column_stack([one[0], other[0]]))
    (e, v), (up, low) = (other, one) if CATEGORIES[i] else (one, other)
    rest = np.sqrt(1 - c * c / v)
    density = stats.norm.logpdf(e, scale=np.sqrt(v))
    return density + np.log(
        stats.norm.cdf((up - c / v * e) / rest) - stats.norm.cdf((low - c / v * e) / rest)
    )


def slopes(function: Any, theta: np.ndarray) -> np.ndarray:
    step = 1e-5
    return np.array(
        [(function(theta + step * e) - function(theta - step * e)) / (2 * step) for e in np.eye(len(theta))]
    ).T


@pytest.mark.parametrize("q", [0, 2])
def test_first_stage_has_the_scores_of_its_log_likelihoods(q: int) -> None:
    values, x = small(80, q)
    starts = [
        stats.norm.ppf([(values[:, i] <= c).mean() for c in range(k - 1)]) if k else np.zeros(0)
        for i, k in enumerate(CATEGORIES)
    ]
    found = _core.first_stage(values, x, CATEGORIES, [], starts)
    theta, first = found["estimates"], found["first"]
    scores = np.zeros((80, len(theta)))
    bread = np.zeros((len(theta), len(theta)))
    for i in range(4):
        own = slice(first[i], first[i + 1])
        scores[:, own] = slopes(lambda t, i=i: rows_loglik(t, values, x, i), theta)[:, own]
        bread[own, own] = scores[:, own].T @ scores[:, own]
    pairs = [(b, a) for a in range(4) for b in range(a + 1, 4)]
    for k, (i, j) in enumerate(pairs):
        whole = slopes(lambda t, i=i, j=j: rows_loglik(t, values, x, i, j), theta)
        scores[:, first[4] + k] = whole[:, first[4] + k]
        bread[first[4] + k] = whole.T @ whole[:, first[4] + k]
    assert_allclose(scores.sum(axis=0), 0, atol=1e-6)  # every equation is solved
    assert_allclose(found["bread"], bread, atol=1e-6 * np.abs(bread).max())
    assert_allclose(found["meat"], scores.T @ scores, atol=1e-6 * np.abs(bread).max())
    clusters = np.repeat(np.arange(20), 4)
    by_cluster = _core.first_stage(values, x, CATEGORIES, clusters, starts)["meat"]
    sums = scores.reshape(20, 4, -1).sum(axis=1)
    assert_allclose(by_cluster, sums.T @ sums, atol=1e-6 * np.abs(bread).max())


def test_missing_values_leave_the_other_pairs_alone() -> None:
    values, x = small(80, 0)
    starts = [np.array([-0.4, 0.6]), np.array([0.1]), np.zeros(0), np.zeros(0)]
    values[:10, 2] = np.nan
    some = _core.first_stage(values, x, CATEGORIES, [], starts)
    kept = _core.first_stage(values[10:], x[10:], CATEGORIES, [], starts)
    whole = _core.first_stage(np.nan_to_num(values), x, CATEGORIES, [], starts)
    # variable 3 and its pairs are those of the rows that have it, with the other thresholds held
    at = some["first"][2]
    assert_allclose(some["estimates"][at : at + 2], kept["estimates"][at : at + 2], rtol=1e-12)
    assert_allclose(some["estimates"][some["first"][4]], whole["estimates"][whole["first"][4]], rtol=1e-9)


# -- models ------------------------------------------------------------------------------------------------------


def test_second_stage_is_the_minimum_of_the_weighted_squares() -> None:
    found = fit()
    stage = found.statistics.first_stage
    assert stage is not None
    at = {key: k for k, key in enumerate(stage.keys)}
    values = np.array([value for _, value in stage.items()])

    def residual(theta: np.ndarray) -> np.ndarray:
        loading = np.append(1.0, theta[:3])
        out = values.copy()
        for a in range(4):
            for b in range(a + 1, 4):
                out[at[Statistic(U[a], "~~", U[b])]] -= loading[a] * loading[b] * theta[3]
        cuts = [k for k, key in enumerate(stage.keys) if key.op == "|"]
        out[cuts] -= theta[4:]
        return out / np.sqrt(stage.acov.diagonal())

    best = optimize.least_squares(residual, np.append([1, 1, 1, 0.5], values[:8]), xtol=1e-15, ftol=1e-15)
    names = [f"f=~{u}" for u in U[1:]] + ["f~~f"]
    assert_allclose(found.params[names], best.x[:4], atol=1e-6)
    assert_allclose(found.chisq, 2 * best.cost, rtol=1e-9)


# From lavaan 0.6-14 on the same rows: its chi-squares are times (N - 1) / N, its variances times N / (N - 1).
LAVAAN: dict[str, tuple[dict[str, Any], dict[str, float], dict[str, float], dict[str, float]]] = {
    "delta": (
        {},
        {"f=~u2": 0.8611011, "f=~u3": 0.7860271, "f=~u4": 0.2253480, "u1|t1": -0.5072207, "f~~f": 0.7183104},
        {"f=~u2": 0.0355256, "f=~u4": 0.0324074, "u1|t1": 0.0262793, "f~~f": 0.0327357},
        {"chisq": 1.136972, "chisq_scaled": 1.992979, "baseline_chisq": 2624.513042, "srmr": 0.009211},
    ),
    "theta and a covariate": (
        {"model": f"{MODEL}\nf ~ x1", "parameterization": "theta"},
        {"f=~u2": 0.7135112, "f~x1": 0.5568545, "u3|t1": -1.0064712, "f~~f": 1.9756954},
        {"f=~u2": 0.0716429, "f~x1": 0.0487210, "u3|t1": 0.0412992, "f~~f": 0.2793324},
        {
            "chisq": 14.570261,
            "chisq_scaled": 20.488352,
            "baseline_chisq": 2017.822748,
            "cfi_scaled": 0.991255,
        },
    ),
    "beside continuous variables": (
        {"model": "f =~ u1 + u2 + y3 + y4\nf ~ x1 + x2\ny5 ~ f", "ordered": ["u1", "u2"]},
        {"f=~y3": 1.0573325, "f~x2": 0.2370258, "y3~~y3": 1.0808768, "y3~1": 0.0383478, "u1|t2": 0.3603031},
        {"f=~y3": 0.0440779, "f~x2": 0.0204358, "y3~~y3": 0.0455261, "y3~1": 0.0269056, "u1|t2": 0.0263155},
        {"chisq": 494.326941, "chisq_scaled": 605.367036, "tli_scaled": 0.748400, "rmsea_scaled": 0.135033},
    ),
    "unweighted": (
        {"estimator": "ULSMV"},
        {"f=~u2": 0.8539271, "f=~u4": 0.2215678, "f~~f": 0.7232984},
        {"f=~u2": 0.0356723, "f=~u4": 0.0325793, "f~~f": 0.0330491},
        {"chisq_scaled": 2.160338, "srmr": 0.009076},
    ),
    "fully weighted": (
        {"estimator": "WLS"},
        {"f=~u2": 0.8609677, "f=~u4": 0.2285636, "u1|t1": -0.5066156},
        {"f=~u2": 0.0354749, "f=~u4": 0.0322022, "u1|t1": 0.0262722},
        {"chisq": 1.939190, "baseline_chisq": 1708.017287},
    ),
    "invariance": (
        {
            "data": DATA.assign(g=np.where(DATA["g"] == 1, "a", "b")),
            "group": "g",
            "group_equal": ["loadings", "thresholds"],
            "parameterization": "theta",
        },
        {"u1~~u1.g2": 0.973, "u2~~u2.g2": 1.133, "f~~f.g2": 2.619, "f~1.g2": -0.672},
        {},
        {"chisq": 13.647, "chisq_scaled": 16.374},
    ),
}


@pytest.mark.parametrize("case", LAVAAN)
def test_lavaan_agrees(case: str) -> None:
    options, estimates, errors, measures = LAVAAN[case]
    found = fit(**options)
    digits = 6e-4 if case == "invariance" else 6e-6
    for name, value in estimates.items():
        assert found.params[name] == pytest.approx(value, abs=digits)
    for name, value in errors.items():
        assert found.bse[name] == pytest.approx(value * np.sqrt((N - 1) / N), rel=1e-4)
    ours = found.fit_measures()
    for name, value in measures.items():
        factor = (
            (N - (2 if "group" in options else 1)) / N
            if name == "chisq" or name.startswith("baseline")
            else 1.0
        )
        assert ours[name] * factor == pytest.approx(
            value, rel=1e-3 if "scaled" in name else 1e-4, abs=1e-3 * digits
        )


def test_parameterizations_are_one_model() -> None:
    model = f"{MODEL}\nf ~ x1\nu1 ~~ u2"
    delta, theta = (fit(model, parameterization=p) for p in ("delta", "theta"))
    assert delta.chisq == pytest.approx(theta.chisq, rel=1e-8)
    ours, theirs = (f.standardized() for f in (delta, theta))
    assert_allclose(ours["est_std"], theirs["est_std"], atol=1e-6)
    estimated = ours["op"].isin(["=~", "~", "|"])
    assert_allclose(ours["se"][estimated], theirs["se"][estimated], rtol=1e-4)
    # variances of 1 are those given the covariate
    implied, x = delta.implied[1].observed.cov, delta.params["f~x1"]
    loading = delta.row_values[[r.op == "=~" for r in delta.table.rows]]
    explained = (loading * x) ** 2 * implied.loc["x1", "x1"]
    assert_allclose(np.diag(implied.loc[U, U]), 1 + explained, rtol=1e-10)


def test_thresholds_are_parameters_like_others() -> None:
    found = fit(f"{MODEL}\nu1 | a*t1\nu4 | b*t1\nu3 | -0.7*t1\na == b\nwidth := u1t2 - a\nu1 | u1t2*t2")
    assert found.params["a"] == pytest.approx(found.params["b"], abs=1e-12)
    frame = found.estimates()
    fixed = frame[(frame["lhs"] == "u3") & (frame["rhs"] == "t1")]
    assert fixed["est"].item() == -0.7
    assert frame.loc[frame["lhs"] == "width", "est"].item() > 0
    assert found.params["u2 | t1"] == found.params["u2|t1"]
    text = found.summary()
    assert "Thresholds:" in text
    assert "  u1 |" in text
    assert "Thresholds" in str(msem.table(found))
    assert found.df == fit().df + 2


def test_estimated_thresholds_out_of_order_are_improper() -> None:
    with pytest.warns(
        ImproperSolutionWarning, match=r"improper: thresholds .* above the one before: t2 of u1\."
    ):
        found = fit(f"{MODEL}\nu1 | a*t2 + b*t1\na == b - 0.1")
    assert found.status == "improper"
    assert found.params["a"] < found.params["b"]
    with pytest.raises(ModelError, match="thresholds of 'u1' do not ascend"):
        msem.simulate(found, nobs=50, seed=1)


def test_tables_of_the_fit() -> None:
    found = fit(f"{MODEL}\nf ~ x1")
    residuals = found.residuals()
    assert set(residuals["op"]) == {"|", "~", "~~"}
    assert found.residuals("cor")["residual"].abs().max() < 0.2
    assert (found.rsquare().loc[lambda t: t["lhs"].isin(U), "r2"] > 0).all()
    assert found.diagram() is not None
    assert found.effects()["est"].notna().all()
    assert "nan" not in found.summary(fit_measures=True)
    clustered = fit(cluster="cluster")
    assert clustered.bse["f=~u4"] > 1.2 * fit().bse["f=~u4"]


def test_ordered_columns_need_no_names() -> None:
    words = pd.Categorical.from_codes(DATA["u1"], ["low", "middle", "high"], ordered=True)
    found = msem.sem("f =~ u1 + y2 + y3 + y4", DATA.assign(u1=words))
    named = msem.sem("f =~ u1 + y2 + y3 + y4", DATA, ordered="u1")
    assert_allclose(found.params, named.params, rtol=1e-12)
    assert found.options.estimator == "WLSMV"
    assert_allclose(found.update(ordered=["u1"]).params, named.params, rtol=1e-12)
    arrays = {name: DATA[name].to_numpy() for name in ("u1", "y2", "y3", "y4")}
    as_dict = msem.sem("f =~ u1 + y2 + y3 + y4", arrays, ordered="u1")
    assert_allclose(as_dict.params, named.params, rtol=1e-12)


def test_what_looks_ordered_is_pointed_out() -> None:
    with pytest.warns(DataWarning, match=r"u3 \(4 values\), u4 \(3 values\) hold few whole numbers"):
        fit(ordered=["u1", "u2"])


def test_problems_are_named() -> None:
    nested = DATA.assign(u4=(DATA["y2"] > 0.7).astype(int))  # nobody has u4 and not u2
    with pytest.warns(ImproperSolutionWarning, match="correlation of u2 and u4 is at its bound"):
        assert fit(data=nested).status in ("boundary", "improper")
    rare = DATA.assign(u1=np.where(np.arange(N) == 0, 9, DATA["u1"]))
    for estimator in ("WLSMV", "ML"):
        with pytest.warns(DataWarning, match="category 9 of 'u1' is seen once"):
            fit(data=rare, estimator=estimator)


BOTH_LEVELS = f"level: 1\n{MODEL}\nlevel: 2\n{MODEL.replace('f', 'fb')}"
TEXTS = DATA["u1"].map({0: "a", 1: "b", 2: "c"})
EMPTY = DATA.assign(u1=DATA["u1"].where(DATA["g"] == 1, DATA["u1"].clip(upper=1)))
BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "one category": ({"data": DATA.assign(u1=1)}, DataError, "'u1' has one category only, 1"),
    "texts": ({"data": DATA.assign(u1=TEXTS)}, DataError, "texts such as 'a', which have no order"),
    "no order": ({"data": DATA.assign(u1=pd.Categorical(TEXTS))}, DataError, "'u1' have no order"),
    "continuous": ({"data": DATA.assign(u1=range(N))}, DataError, f"{N} categories, more than 20"),
    "empty": (
        {"data": DATA.assign(u1=pd.Categorical.from_codes(DATA["u1"], [*"abcd"], ordered=True))},
        DataError,
        "category 'd' of 'u1' is empty",
    ),
    "empty in a group": (
        {"data": EMPTY, "group": "g"},
        DataError,
        "category 2 of 'u1' is empty in group '0'",
    ),
    "unknown": ({"ordered": ["u9"]}, DataError, "'u9', which is not a variable of the model"),
    "covariate": (
        {"model": "f =~ u1 + u2 + u3\nf ~ u4", "parameterization": "theta"},
        ModelError,
        "'u4' is a cov",
    ),
    "predictor": (
        {"model": "f =~ u1 + u2 + u3\ny1 ~ u1", "ordered": U[:3]},
        ModelError,
        'use parameterization="theta"',
    ),
    "residual variance": ({"model": f"{MODEL}\nu1 ~~ u1"}, ModelError, 'use parameterization="theta"'),
    "no such threshold": ({"model": f"{MODEL}\nu1 | t5"}, ModelError, "line 2, column .*thresholds t1, t2"),
    "thresholds out of order": (
        {"model": f"{MODEL}\nu1 | 0.2*t2\nu1 | 1*t1"},
        ModelError,
        "line 2, column 6: the threshold t2 of 'u1' is fixed at 0.2 and t1 at 1",
    ),
    "not ordered": ({"model": f"{MODEL}\ny1 | t1"}, ModelError, "'y1' is not ordered"),
    "scale of a residual variance": (
        {"model": f"{MODEL}\nu1 ~*~ u1", "parameterization": "theta"},
        ModelError,
        "line 2, column .*'u1 ~~ NA\\*u1'",
    ),
    "scale by maximum likelihood": (
        {"model": f"{MODEL}\nu1 ~*~ u1", "estimator": "ML"},
        ModelError,
        "line 2, column .*'u1 ~~ NA\\*u1'",
    ),
    "scale at two levels": (
        {"model": f"{BOTH_LEVELS}\nu1 ~*~ u1", "cluster": "cluster"},
        ModelError,
        "'u1 ~~ NA\\*u1'",
    ),
    "scale of nothing": ({"model": f"{MODEL}\nu1 ~*~ 0*u1"}, ModelError, "has to be above 0"),
    "scale of a continuous variable": ({"model": f"{MODEL}\ny1 ~*~ y1"}, ModelError, "'y1' is not ordered"),
    "scale of two": ({"model": f"{MODEL}\nu1 ~*~ u2"}, ModelError, "'u1 ~\\*~ u1'"),
    "strict with delta": (
        {"group": "g", "group_equal": ["loadings", "thresholds", "residuals"]},
        ModelError,
        'parameterization="theta"',
    ),
    "missing": ({"missing": "fiml"}, UnsupportedError, 'needs a likelihood.*missing="pairwise"'),
    "penalty": ({"penalty": "between"}, UnsupportedError, "penalty= is not available with ordered"),
    "standard errors": ({"se": "standard"}, UnsupportedError, "leave it out for the sandwich"),
    "no rows": (
        {"data": None, "sample_cov": pd.DataFrame(np.eye(4), U, U)},
        UnsupportedError,
        "rows of raw data",
    ),
    "delta at two levels": (
        {"model": BOTH_LEVELS, "cluster": "cluster", "parameterization": "delta"},
        ModelError,
        "is for models of one level",
    ),
    "nothing between": (
        {
            "model": BOTH_LEVELS,
            "cluster": "cluster",
            "data": DATA.assign(u3=(np.random.default_rng(2).permutation(N) % 2)),
        },
        DataError,
        "'u3' does not vary between clusters",
    ),
}


@pytest.mark.parametrize(("options", "kind", "message"), BAD.values(), ids=BAD)
def test_bad_input(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        fit(**options)


@pytest.mark.parametrize("question", ["posterior", "distances"])
def test_what_is_not_there_says_so(question: str) -> None:
    with pytest.raises(UnsupportedError, match=r"ordered|least squares"):
        getattr(fit(), question)()


def test_estimates_without_a_covariance_matrix_are_named() -> None:
    keys = first_stage_keys(Variables((("u", "v"),)), [()], {"u": 1, "v": 2})
    assert [key[:3] for key in keys] == [
        ("u", "|", "t1"),
        ("v", "|", "t1"),
        ("v", "|", "t2"),
        ("u", "~~", "v"),
    ]
    bread = np.diag([2.0, 0.0, 3.0, 1.0])
    with pytest.raises(
        DataError, match=r"say nothing about the threshold v\|t1\. Leave the variable out, or merge"
    ):
        _over_bread(bread, np.eye(4), keys)
    bread = np.eye(4)
    bread[0, 3] = bread[3, 0] = 1.0
    with pytest.raises(DataError, match=r"depends on each other, the threshold u\|t1, u ~~ v\. Leave"):
        _over_bread(bread, np.eye(4), keys)


def test_covariates_that_separate_the_categories() -> None:
    with pytest.raises(DataError, match="regression of 'u2' on the covariates has no maximum"):
        fit("f =~ u1 + u2 + u3\nf ~ z", DATA.assign(z=DATA["u2"] + 0.1 * np.sin(np.arange(N))), ordered=U[:3])


# -- two levels --------------------------------------------------------------------------------------------------

THREE = "level: 1\nfw =~ u1 + u2 + u3\nlevel: 2\nfb =~ u1 + u2 + u3"
FIRST = DATA[DATA["cluster"] <= 60]


def dense_loglik(
    theta: np.ndarray, i: int, j: int, c: np.ndarray, cells: np.ndarray, single: np.ndarray
) -> Any:
    """Log-likelihoods of the clusters for two variables by the trapezoid rule on 41 x 41 nodes."""
    x = np.linspace(-6.5, 6.5, 41)
    a, b = (side.ravel() for side in np.meshgrid(x, x, indexing="ij"))
    weight = stats.norm.logpdf(a) + stats.norm.logpdf(b) + 2 * np.log(x[1] - x[0])
    rho, between = c
    own, other = theta[single[i] : single[i + 1]], theta[single[j] : single[j + 1]]
    root = np.linalg.cholesky([[own[-1], between], [between, other[-1]]])
    effects = root @ np.vstack([a, b])
    one, two = (np.concatenate([[-np.inf], t[:-1], [np.inf]])[:, None] for t in (own, other))
    one, two = one - effects[0], two - effects[1]
    p = _core.binormal_between(one[1:, None], one[:-1, None], two[None, 1:], two[None, :-1], rho)
    logs = np.tensordot(cells, np.log(np.maximum(p, 1e-300)), 2) + weight
    most = logs.max(axis=1)
    return most + np.log(np.exp(logs - most[:, None]).sum(axis=1))


def test_first_stage_of_two_levels_is_the_maximum_by_dense_quadrature() -> None:
    names = ["u1", "u2"]
    values = FIRST[names].to_numpy(dtype=float)
    cluster = FIRST["cluster"].factorize()[0]
    starts = [
        stats.norm.ppf([(values[:, i] <= c).mean() for c in range(k - 1)]) for i, k in enumerate((3, 2))
    ]
    none = np.zeros((60, 0))
    found = _core.two_level_first_stage(
        values, np.zeros((len(values), 0)), cluster, none, none, [3, 2], [1, 1], starts
    )
    theta, first = found["estimates"], np.array(found["first"])
    cells = np.zeros((60, 2, 3))
    np.add.at(cells, (cluster, values[:, 1].astype(int), values[:, 0].astype(int)), 1)
    c = theta[5:]
    whole = slopes(lambda t: dense_loglik(t[:5], 1, 0, t[5:], cells, first), np.concatenate([theta[:5], c]))
    # one variable: the other one integrated out of an independent pair
    alone = slopes(lambda t: dense_loglik(t, 1, 0, np.zeros(2), cells, first), theta[:5])
    scores = np.hstack([alone, whole[:, 5:]])
    assert np.abs(scores.sum(axis=0) / np.sqrt((scores**2).sum(axis=0))).max() < 1e-4
    bread = scores.T @ scores
    bread[:3, 3:5] = bread[3:5, :3] = bread[:5, 5:] = 0
    bread[5:] = whole[:, 5:].T @ whole
    assert_allclose(found["bread"], bread, atol=1e-5 * np.abs(bread).max())
    assert_allclose(found["meat"], scores.T @ scores, atol=1e-5 * np.abs(bread).max())


def test_pairs_with_a_strong_between_correlation_are_at_their_maximum() -> None:
    """Of rare binary variables: nodes that stay where they are make a maximum of their own near a correlation of 1."""
    rng = np.random.default_rng(1)
    cluster, common = np.repeat(np.arange(200), 10), rng.normal(size=200) * 0.7
    unit = 0.7 * rng.normal(size=(2000, 1)) + 0.7 * rng.normal(size=(2000, 4))
    own = 0.3 * rng.normal(size=(200, 4))
    values = (common[cluster, None] + unit + own[cluster] > 1.1).astype(float)
    starts = [np.array([stats.norm.ppf(1 - share)]) for share in values.mean(axis=0)]
    none = np.zeros((200, 0))
    found = _core.two_level_first_stage(
        values, np.zeros((2000, 0)), cluster, none, none, [2] * 4, [1] * 4, starts
    )
    assert found["at_bound"] == []
    theta, first = found["estimates"], np.array(found["first"])
    pairs = [(b, a) for a in range(4) for b in range(a + 1, 4)]
    for k, (i, j) in enumerate(pairs):
        cells = np.zeros((200, 2, 2))
        np.add.at(cells, (cluster, values[:, i].astype(int), values[:, j].astype(int)), 1)
        c = theta[8 + 2 * k : 10 + 2 * k]
        scores = slopes(lambda t, i=i, j=j, n=cells: dense_loglik(theta, i, j, t, n, first), c)
        assert np.abs(scores.sum(axis=0) / np.sqrt((scores**2).sum(axis=0))).max() < 1e-3


@reference.needs_reference
def test_two_levels_against_lavaan() -> None:
    """lavaan's nodes do not move with the clusters, which have up to 20 units here: it is off by some of its errors."""
    data, expected = reference.data("wlsmv_cfa"), reference.expected("wlsmv_cfa")
    found = msem.sem(reference.model("wlsmv_cfa"), data, cluster="cluster", ordered=["u1", "u2", "u3"])
    ours = found.estimates().set_index(["lhs", "op", "rhs", "level"])[["est", "se"]]
    for row in expected["parameter_table"]:
        if row["free"]:
            est, se = ours.loc[(row["lhs"], row["op"], row["rhs"], row["level"])]
            assert abs(est - row["est"]) < 0.12 * row["se"]
            assert se == pytest.approx(row["se"], rel=0.025)
    measures = expected["fit_measures"]
    assert found.df == measures["df"]
    assert found.fit_measures("baseline_chisq").item() == pytest.approx(measures["baseline.chisq"], rel=0.01)


def test_tables_of_two_levels() -> None:
    found = msem.sem(
        THREE.replace("fb =~ u1 + u2", "fb =~ u1 + a*u2") + "\nu2 ~~ 0*u2",
        FIRST,
        cluster="cluster",
        ordered=U[:3],
    )
    assert found.options.estimator == "WLSMV"
    assert found.table.ordered.parameterization == "theta"
    icc = found.icc_table()
    assert_allclose(icc["icc"], found.icc, rtol=1e-12)
    assert (icc["se"] > 0).all()
    between = found.unrestricted_moments.between.cov
    assert_allclose(icc["icc"], np.diag(between) / (1 + np.diag(between)), rtol=1e-12)
    assert {"|", "~~"} == set(found.residuals()["op"])
    assert "Thresholds:" in found.summary(fit_measures=True)
    assert found.standardized()["est_std"].notna().all()
    with pytest.raises(AttributeError, match="no LevelMoments"):
        found.saturated  # noqa: B018


def test_shares_of_variance_have_the_same_errors_in_both_parameterizations() -> None:
    rng = np.random.default_rng(5)
    x, noise = rng.normal(size=600), rng.normal(size=(600, 5))
    factor = 0.5 * x + noise[:, 4]
    frame = pd.DataFrame({f"u{k}": np.digitize(0.8 * factor + noise[:, k], [-0.5, 0.7]) for k in range(4)})
    frame = frame.assign(x=x)
    found = [
        msem.sem(
            "f =~ u0 + u1 + u2 + u3\nf ~ x", frame, ordered=[*["u0", "u1", "u2", "u3"]], parameterization=one
        )
        for one in ("delta", "theta")
    ]
    delta, theta = (fit.rsquare() for fit in found)
    assert (delta["se"] > 0.01).all()
    assert_allclose(delta["r2"], theta["r2"], rtol=1e-5)
    assert_allclose(delta["se"], theta["se"], rtol=1e-4)
    rows = [fit.standardized().query("op == '~~' and lhs != 'x'") for fit in found]
    assert_allclose(rows[0]["se"], rows[1]["se"], rtol=1e-4, atol=1e-6)


# From lavaan 0.6-14 (lavTestLRT with its defaults and with scaled.shifted = FALSE for "WLSM"; modindices): times N /
# (N - 1) for chi-squares, once more for modification indices.
LARGE, SMALL = MODEL, "f =~ u1 + a*u2 + a*u3 + a*u4"


def test_nested_models_are_compared_as_in_lavaan() -> None:
    table = msem.compare_models(fit(LARGE), fit(SMALL))
    assert table["method"].iloc[1] == "satorra_2000"
    assert table["df_diff"].iloc[1] == 2
    assert table["chisq_diff"].iloc[1] == pytest.approx(316.0365132 * N / (N - 1), rel=1e-6)
    mean = msem.compare_models(*(fit(m, estimator="WLSM") for m in (SMALL, LARGE)))
    assert mean["chisq_diff"].iloc[1] == pytest.approx(330.74 * N / (N - 1), abs=0.01)
    full = msem.compare_models(*(fit(m, estimator="WLS") for m in (SMALL, LARGE)))
    assert full["method"].iloc[1] == "standard"
    assert full["chisq_diff"].iloc[1] == pytest.approx(full["chisq"].diff().iloc[1], rel=1e-12)
    with pytest.raises(ModelError, match="not nested in"):
        msem.compare_models(fit(f"{MODEL}\nu1 ~~ u2"), fit("f =~ u1 + a*u2 + a*u3 + u4\nu1 ~~ u3"))
    with pytest.raises(DataError, match=r"statistic .u4 \| t1. of level 1 and"):
        msem.compare_models(fit(LARGE), fit("f =~ u1 + u2 + u3", ordered=U[:3]))
    with pytest.raises(DataError, match="different data"):
        msem.compare_models(fit(LARGE), fit(SMALL, DATA.iloc[:2000]))
    with pytest.raises(ModelError, match="different weights"):
        msem.compare_models(fit(LARGE), fit(SMALL, estimator="ULSMV"))


def test_modification_indices_are_lavaan_s() -> None:
    table = fit(SMALL).modification_indices().set_index(["lhs", "rhs"])
    expected = {
        ("u1", "u4"): (215.454, -0.415),
        ("u2", "u3"): (158.428, 0.362),
        ("u1", "u3"): (23.915, 0.114),
    }
    for key, (index, change) in expected.items():
        assert table.loc[key, "mi"] == pytest.approx(index * (N / (N - 1)) ** 2, rel=3e-5)
        assert table.loc[key, "epc"] == pytest.approx(change, abs=1e-3)
    # with the full weight matrix both statistics are one, and close to the drop of the minimum
    whole = fit(SMALL, estimator="WLS").modification_indices().set_index(["lhs", "rhs"])
    assert_allclose(whole["mi"], whole["mi_robust"], rtol=1e-6)
    one = fit(f"{MODEL}\nu1 ~~ 0*u4", estimator="WLS")
    drop = one.chisq - fit(f"{MODEL}\nu1 ~~ u4", estimator="WLS").chisq
    row = one.modification_indices().query("lhs == 'u1' and rhs == 'u4'")
    assert row["mi"].item() == pytest.approx(drop, rel=0.1)
    assert fit(SMALL).score_test().total["robust"].item() > 100


@pytest.mark.filterwarnings("ignore::msem.errors.ImproperSolutionWarning")
def test_two_level_fits_by_least_squares_are_compared_and_extended() -> None:
    options = {"cluster": "cluster", "ordered": U[:3]}
    free = fit(THREE.replace("fb =~ u1", "u2 ~~ 0*u2\nfb =~ u1"), **options)
    held = fit(THREE.replace("fb =~ u1 + u2", "u2 ~~ 0*u2\nfb =~ u1 + 0.6*u2"), **options)
    test = msem.compare_models(free, held)
    found = held.modification_indices(level=2).query("lhs == 'fb' and rhs == 'u2'")
    assert found["mi_robust"].item() == pytest.approx(test["chisq_diff"].iloc[1], rel=0.3)
    assert found["epc"].item() == pytest.approx(free.params["fb=~u2.l2"] - 0.6, abs=0.05)


def test_fits_by_least_squares_are_pickled() -> None:
    for found in (fit(), fit(THREE + "\nu2 ~~ 0*u2", cluster="cluster", ordered=U[:3])):
        again = pickle.loads(pickle.dumps(found))
        assert_allclose(again.params, found.params, rtol=0)
        assert_allclose(again.tests()["statistic"], found.tests()["statistic"], rtol=1e-12)
        assert again.summary() == found.summary()


def test_all_outcomes_may_be_ordered() -> None:
    """Observed variables but those that only predict, as in lavaan."""
    model = MODEL + "\nf ~ x1\nu1 ~~ u2"
    everything, named = fit(model, ordered=True), fit(model)
    assert_allclose(everything.params, named.params, rtol=1e-12)
    assert fit("f =~ y1 + y2 + y3", ordered=False).llf < 0
    with pytest.raises(ArgumentError, match="ordered is a list of variables, not 5"):
        fit(ordered=5)


def test_errors_of_rows_in_clusters_are_those_of_a_design() -> None:
    """By maximum likelihood, too: with J / (J - 1), as for continuous variables and by least squares."""
    options = {"ordered": U[:3], "estimator": "ML"}
    taken = fit("f =~ u1 + u2 + u3", cluster="cluster", **options)
    design = fit("f =~ u1 + u2 + u3", DATA.assign(w=1.0), weights="w", psu="cluster", **options)
    assert_allclose(taken.bse, design.bse, rtol=1e-9)


def test_ordered_columns_that_only_predict_are_told_what_to_do(demo):
    cut = pd.cut(demo["x1"], 3, labels=["low", "middle", "high"])
    data = demo.assign(x1=cut, codes=cut.cat.codes)
    two = "level: 1\n y1 ~ x1\nlevel: 2\n y1 ~ w1"
    for model, more in (("f =~ y1 + y2 + y3\n f ~ x1", {}), (two, {"cluster": "cluster"})):
        for options in ({}, {"ordered": []}, {"parameterization": "theta"}, {"estimator": "ML"}):
            with pytest.raises(ModelError, match=r'\'x1\' is a covariate.*column.*data\["x1"\]\.cat\.codes'):
                msem.sem(model, data, **more, **options)
        with pytest.raises(ModelError, match="leave it out of ordered="):
            msem.sem(model, data, ordered=["x1"], **more)
        with pytest.raises(DataError, match="'x1' is not numeric"):
            msem.sem(model, data, ordered=False, **more)
        assert msem.sem(model.replace("x1", "codes"), data, **more).converged


def test_no_variable_is_ordered_if_that_is_said(demo):
    data = demo.assign(y1=pd.cut(demo["y1"], 3, labels=[1, 2, 3]))
    assert msem.sem("y1 ~ x1", data).options.estimator == "WLSMV"
    with pytest.raises(DataError, match="'y1' is not numeric"):
        msem.sem("y1 ~ x1", data, ordered=False)
