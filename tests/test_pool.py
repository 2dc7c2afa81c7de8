"""Rubin's rules and pooled tests against their printed formulas and against each other where they must agree."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats

import msem
from msem.errors import DataError, ModelError, MsemError, UnsupportedError
from msem.fits.pooling import pooled_ratio, pooled_statistics, pooled_wald
from msem.fits.rubin import combined, pooled_frame

M = 4
FULL = "y ~ b0*1 + b1*x + b2*z\ny ~~ 1*y"
NULL = "y ~ 1 + 0*x + 0*z\ny ~~ 1*y"


@pytest.fixture(scope="module")
def imputations():
    """Complete covariates, and an outcome of which some values are drawn."""
    rng = np.random.default_rng(5)
    n = 80
    data = pd.DataFrame(rng.normal(size=(n, 2)), columns=["x", "z"])
    y = 0.3 * data["x"] + rng.normal(size=n)
    drawn = rng.random(n) < 0.3
    return [data.assign(y=np.where(drawn, 0.3 * data["x"] + rng.normal(size=n), y)) for _ in range(M)]


@pytest.fixture(scope="module")
def pooled(imputations):
    return msem.pool([msem.sem(FULL, data) for data in imputations])


@pytest.fixture(scope="module")
def smaller(imputations):
    return msem.pool([msem.sem(NULL, data) for data in imputations])


def test_rubins_rules(pooled):
    est = np.array([fit.params for fit in pooled.fits])
    w = np.mean([fit.cov_params() for fit in pooled.fits], axis=0)
    b = np.cov(est.T)
    assert_allclose(pooled.params, est.mean(axis=0))
    assert_allclose(pooled.cov_params(), w + (1 + 1 / M) * b)
    table = pooled.estimates().set_index("label").loc[["b0", "b1", "b2"]]
    riv = (1 + 1 / M) * np.diag(b) / np.diag(w)
    df = (M - 1) * (1 + 1 / riv) ** 2
    assert_allclose(table["riv"], riv)
    assert_allclose(table["df"], df)
    assert_allclose(table["se"], pooled.bse)
    assert_allclose(table["fmi"], (riv + 2 / (df + 3)) / (1 + riv))
    assert_allclose(table["pvalue"], 2 * stats.t.sf(np.abs(pooled.params / pooled.bse), df))
    assert_allclose(table["ci_upper"], pooled.params + stats.t.ppf(0.975, df) * pooled.bse)
    fixed = pooled.estimates().query("op == '~~' and lhs == 'y'").iloc[0]
    assert (fixed["est"], fixed["se"], fixed["ci_upper"]) == (1.0, 0.0, 1.0)
    assert pooled.params["y ~ x"] == pooled.params["b1"]


def test_tests_agree_where_the_likelihood_is_quadratic(pooled, smaller):
    """With known variances the log-likelihood is quadratic with the same curvature in all imputations: D1 = D3 = D4."""
    d1 = pooled.wald_test(["b1 == 0", "b2 == 0"])
    d3 = pooled.likelihood_ratio(smaller, "D3")
    d4 = pooled.likelihood_ratio(smaller)
    for other in (d3, d4):
        assert other.statistic == pytest.approx(d1.statistic, rel=1e-6)
        assert other.increase == pytest.approx(d1.increase, rel=1e-5)
    assert d3.df_denominator == pytest.approx(d1.df_denominator, rel=1e-5)
    assert d1.pvalue == pytest.approx(stats.f.sf(d1.statistic, 2, d1.df_denominator))
    assert 0 <= pooled.likelihood_ratio(smaller, "D2").pvalue <= 1


def test_one_hypothesis_is_the_squared_t(pooled):
    row = pooled.estimates().set_index("label").loc["b1"]
    found = pooled.wald_test("b1 == 0")
    assert found.statistic == pytest.approx(row["t"] ** 2)
    assert found.increase == pytest.approx(row["riv"])


def test_the_printed_formulas():
    """Numbers worked out by hand: k = 2, m = 5, W = I, B = diag(.1, .3)."""
    found = pooled_wald(np.array([1.0, 2.0]), np.eye(2), np.diag([0.1, 0.3]), 5)
    r = 1.2 * 0.4 / 2  # 0.24
    assert found.increase == pytest.approx(r)
    assert found.statistic == pytest.approx(5 / (2 * 1.24))
    assert found.df_denominator == pytest.approx(4 + 4 * (1 + (1 - 2 / 8) / 0.24) ** 2)  # t = k (m - 1) = 8
    small = pooled_wald(np.array([1.0]), np.eye(1), np.eye(1), 3)  # t = 2 is not above 4
    assert small.df_denominator == pytest.approx(2 * 2 * (1 + 3 / 4) ** 2 / 2)
    d2 = pooled_statistics([4.0, 9.0, 16.0], 2)  # roots 2, 3, 4: variance 1, r = 4/3
    assert d2.increase == pytest.approx(4 / 3)
    assert d2.statistic == pytest.approx(max((29 / 3 / 2 - 2 * 4 / 3) / (7 / 3), 0))
    assert d2.df_denominator == pytest.approx(2 ** (-1) * 2 * (1 + 3 / 4) ** 2)
    d3 = pooled_ratio(10.0, 8.0, 2, 5, "D3")  # r = 6/8 * 2 = 1.5
    assert (d3.increase, d3.statistic) == (pytest.approx(1.5), pytest.approx(8 / (2 * 2.5)))
    d4 = pooled_ratio(10.0, 8.0, 2, 5, "D4")
    assert d4.df_denominator == pytest.approx(8 * (2.5 / 1.5) ** 2)
    assert pooled_ratio(8.0, 8.5, 2, 5, "D4").increase == 0


def test_equal_imputations_are_one_fit(imputations):
    fits = [msem.sem(FULL, imputations[0]) for _ in range(3)]
    pooled = msem.pool(*fits)
    assert_allclose(pooled.bse, fits[0].bse)
    assert pooled.wald_test("b1 == 0").statistic == pytest.approx(
        fits[0].wald_test("b1 == 0")["statistic"].iloc[0]
    )
    assert_allclose(pooled.estimates()["fmi"].dropna(), 0, atol=1e-25)


TWO = "level: 1\n f =~ y1 + y2 + y3\nlevel: 2\n g =~ y1 + y2 + y3"


def test_two_levels_and_the_test_of_the_model(demo, tmp_path):
    rng = np.random.default_rng(1)
    data = demo[demo["cluster"] % 3 == 0]
    sets = [data.assign(y1=data["y1"] + rng.normal(size=len(data)) * 0.2) for _ in range(3)]
    model = TWO.replace("g =~ y1 + y2", "g =~ y1 + 1*y2")
    fits = [msem.sem(model, one, cluster="cluster") for one in sets]
    pooled = msem.pool(fits)
    d4, d2 = pooled.chisq_test(), pooled.chisq_test("D2")
    assert d4.df == d2.df == fits[0].df
    mean = np.mean([fit.chisq for fit in fits]) / fits[0].df
    assert d4.statistic * (1 + d4.increase) == pytest.approx(mean, rel=0.1)
    assert d2.statistic == pytest.approx(mean, rel=0.3)
    assert pooled.stacked.nclusters == 3 * fits[0].nclusters
    assert set(pooled.estimates(level=2)["level"]) == {2}
    for k, fit in enumerate(fits):
        fit.save(tmp_path / f"{k}.json")
    saved = msem.pool([msem.SavedFit.load(tmp_path / f"{k}.json") for k in range(3)])
    pd.testing.assert_frame_equal(saved.estimates(), pooled.estimates())
    assert saved.chisq_test("D2") == d2
    with pytest.raises(UnsupportedError, match="saved fits have no likelihood"):
        saved.chisq_test()


def test_what_cannot_be_pooled_is_refused(pooled, smaller, imputations):
    fit = pooled.fits[0]
    with pytest.raises(ModelError, match="two fits or more"):
        msem.pool(fit)
    with pytest.raises(ModelError, match="another model than model_1"):
        msem.pool(fit, smaller.fits[0])
    with pytest.raises(ModelError, match="model_2 is a int"):
        msem.pool(fit, 3)
    with pytest.raises(ModelError, match="no standard errors"):
        msem.pool([msem.sem(FULL, data, se="none") for data in imputations])
    with pytest.raises(ModelError, match="larger model's"):
        smaller.likelihood_ratio(pooled)
    with pytest.raises(ModelError, match="not independent"):
        pooled.wald_test(["b1 == 0", "2*b1 == 0"])
    with pytest.raises(MsemError, match="method must be one of"):
        pooled.likelihood_ratio(smaller, "D5")
    with pytest.raises(DataError, match=r"msem\.pool\(\[msem\.sem\(model, data\) for data"):
        msem.sem(FULL, imputations)


def rubin(est, se, m):
    """Rubin's rules written out for one quantity: estimate, standard error, riv and degrees of freedom."""
    w, b = np.mean(np.square(se)), np.var(est, ddof=1)
    riv = (1 + 1 / m) * b / w
    return np.mean(est), np.sqrt(w + (1 + 1 / m) * b), riv, (m - 1) * (1 + 1 / riv) ** 2


@pytest.fixture(scope="module")
def two_levels(demo):
    rng = np.random.default_rng(2)
    data = demo[demo["cluster"] % 3 == 0]
    sets = [data.assign(y1=data["y1"] + rng.normal(size=len(data)) * 0.6) for _ in range(3)]
    model = TWO.replace("level: 2", " y1 ~~ y2\nlevel: 2") + "\n g ~ a*w1\n y1 ~ w1\n twice := 2*a"
    model = model.replace("f =~ y1 + y2 + y3\n", "f =~ y1 + 1*y2 + 1*y3\n f ~ x1\n")
    return msem.pool([msem.sem(model, one, cluster="cluster") for one in sets])


def test_any_question_is_pooled_by_the_same_rules(two_levels):
    def answers(name, column, pick):
        frames = [getattr(fit, name)() for fit in two_levels.fits]
        return (
            [pick(frame)[column].iloc[0] for frame in frames],
            [pick(frame)["se"].iloc[0] for frame in frames],
        )

    cases = [
        ("standardized", "est_std", lambda t: t[(t["op"] == "=~") & (t["rhs"] == "y2") & (t["level"] == 2)]),
        ("defined", "est", lambda t: t),
        ("effects", "est", lambda t: t[(t["predictor"] == "w1") & (t["effect"] == "total_indirect")]),
    ]
    for name, column, pick in cases:
        est, se, riv, df = rubin(*answers(name, column, pick), 3)
        row = pick(getattr(two_levels, name)()).iloc[0]
        assert_allclose([row[column], row["se"], row["riv"], row["df"]], [est, se, riv, df], rtol=1e-10)
        assert row["pvalue"] == pytest.approx(2 * stats.t.sf(abs(est / se), df))
        assert row["ci_lower"] == pytest.approx(est - stats.t.ppf(0.975, df) * se)
    again = two_levels.of(lambda fit: fit.effects())
    pd.testing.assert_frame_equal(again, two_levels.effects())


@pytest.mark.parametrize(
    ("name", "column", "pick", "onto", "back"),
    [
        ("standardized", "est_std", "lhs == 'y1' and rhs == 'y2'", np.arctanh, np.tanh),
        ("rsquare", "r2", "lhs == 'g'", lambda x: np.arctanh(np.sqrt(x)), lambda z: np.tanh(z) ** 2),
        ("icc_table", "icc", "lhs == 'y3'", np.arctanh, np.tanh),
        (
            "reliability",
            "est",
            "level == 2 and coefficient == 'omega'",
            lambda x: np.log(x / (1 - x)),
            lambda z: 1 / (1 + np.exp(-z)),
        ),
    ],
)
def test_bounded_quantities_are_pooled_on_their_scales(two_levels, name, column, pick, onto, back):
    """Estimates and standard errors go to the scale by differences, and the interval comes back."""
    rows = [getattr(fit, name)().query(pick).iloc[0] for fit in two_levels.fits]
    x, se = (np.array([row[one] for row in rows]) for one in (column, "se"))
    slope = (onto(x + 1e-6) - onto(x - 1e-6)) / 2e-6
    z, error, _, df = rubin(onto(x), slope * se, 3)
    row = getattr(two_levels, name)(ci_level=0.9).query(pick).iloc[0]
    half = stats.t.ppf(0.95, df) * error
    assert_allclose([row[column], row["ci_lower"], row["ci_upper"]], back(z + half * np.array([0, -1, 1])))
    assert row["se"] == pytest.approx(error * (back(z + 1e-6) - back(z - 1e-6)) / 2e-6, rel=1e-6)


def test_what_is_not_on_the_scale_is_pooled_as_it_is():
    frames = [pd.DataFrame({"lhs": ["a", "b"], "r2": [0.5, x], "se": [0.1, 0.1]}) for x in (-0.02, 0.04)]
    found = pooled_frame(frames, ["fisher_root"] * 2)
    assert found["r2"].tolist() == pytest.approx([0.5, 0.01])
    est, se, _, df = rubin([-0.02, 0.04], [0.1, 0.1], 2)
    assert found["ci_lower"][1] == pytest.approx(est - stats.t.ppf(0.975, df) * se)
    with pytest.raises(ModelError, match="different rows"):
        pooled_frame([frames[0], frames[1].assign(lhs=["a", "c"])], ["identity"] * 2)


def test_degrees_of_freedom_of_complete_data():
    """The limits of Barnard & Rubin (1999): no missing values, and a complete sample without end."""
    est, se = np.array([[1.0], [1.2], [0.9]]), np.full((3, 1), 0.5)
    df = rubin(est.ravel(), se.ravel(), 3)[3]
    lam = 1 - 1 / (1 + rubin(est.ravel(), se.ravel(), 3)[2])
    observed = (79 + 1) / (79 + 3) * 79 * (1 - lam)
    assert combined(est, se, 79).df == pytest.approx(1 / (1 / df + 1 / observed))
    assert combined(est, se).df == pytest.approx(df)
    assert combined(est, se, 1e12).df == pytest.approx(df, rel=1e-6)
    assert combined(est[[0, 0, 0]], se, 79).df == pytest.approx(80 / 82 * 79)


def test_replicate_weights_cap_the_degrees_of_freedom(tmp_path):
    rng = np.random.default_rng(3)
    n, r = 120, 12
    data = pd.DataFrame({"x": rng.normal(size=n), "w": rng.uniform(1, 2, n)})
    names = [f"r{k}" for k in range(r)]
    for k, name in enumerate(names):
        data[name] = data["w"] * np.where(np.arange(n) % r == k, 0, r / (r - 1))
    fits = [
        msem.sem(
            "y ~ b*x",
            data.assign(y=0.4 * data["x"] + 1e-6 * k * rng.normal(size=n) + np.cos(np.arange(n))),
            weights="w",
            replicate_weights=names,
            replicate_scale="jackknife1",
        )
        for k in range(3)
    ]
    pooled = msem.pool(fits)
    assert pooled.design_df == fits[0].design_df == r - 1
    row = pooled.estimates().query("label == 'b'").iloc[0]
    assert row["df"] == pytest.approx(r / (r + 2) * (r - 1), rel=1e-6)
    assert row["pvalue"] == pytest.approx(2 * stats.t.sf(abs(row["t"]), row["df"]))
    assert (pooled.rsquare()["df"] < r - 1).all()
    for k, fit in enumerate(fits):
        fit.save(tmp_path / f"{k}.json")
    saved = msem.pool([msem.SavedFit.load(tmp_path / f"{k}.json") for k in range(3)])
    pd.testing.assert_frame_equal(saved.estimates(), pooled.estimates())


def test_t_references_have_fewer_degrees_of_freedom_than_one_data_set(two_levels):
    found = two_levels.estimates(reference="t").query("label == 'a'").iloc[0]
    plain = two_levels.estimates().query("label == 'a'").iloc[0]
    one = two_levels.fits[0].reference_df["a"]
    observed = (one + 1) / (one + 3) * one / (1 + plain["riv"])
    assert found["df"] == pytest.approx(1 / (1 / plain["df"] + 1 / observed))


def test_summary_measures_and_table_of_pooled_fits(two_levels):
    text = two_levels.summary(fit_measures=True)
    assert "Number of imputations" in text
    test = two_levels.chisq_test("D2")
    assert f"{test.statistic:.3f}" in text.split("D2:")[1].split("Means of")[0]
    cfi = np.mean([fit.fit_measures()["cfi"] for fit in two_levels.fits])
    assert two_levels.fit_measures("cfi")["cfi"] == pytest.approx(cfi)
    assert not [name for name in two_levels.fit_measures().index if "pvalue" in name or "_ci_" in name]
    assert f"{cfi:.3f}" in text
    assert "<table>" in two_levels.to_html()
    table = msem.table(pooled=two_levels, one=two_levels.fits[0])
    est = two_levels.estimates().query("label == 'a'").iloc[0]
    assert (
        table.frame.loc[("Between: Regressions", "g ~ w1"), "pooled"].iloc[0].startswith(f"{est['est']:.3f}")
    )
    assert "Pooled over 3 imputations" in table.notes[0]
    with pytest.raises(UnsupportedError, match="Student's t"):
        two_levels.effects(method="monte_carlo")
    with pytest.raises(ModelError, match="column se"):
        two_levels.of(lambda fit: fit.fit_measures())


def test_saved_fits_are_pooled_as_the_fits_are(two_levels, tmp_path):
    for k, fit in enumerate(two_levels.fits):
        fit.save(tmp_path / f"{k}.json")
    saved = msem.pool([msem.SavedFit.load(tmp_path / f"{k}.json") for k in range(3)])
    for reference in ("normal", "t"):
        pd.testing.assert_frame_equal(
            saved.estimates(reference=reference, standardized=True),
            two_levels.estimates(reference=reference, standardized=True),
        )
    assert saved.summary(fit_measures=True) == two_levels.summary(fit_measures=True)


def test_hypotheses_are_judged_in_whatever_units(demo):
    rng = np.random.default_rng(5)
    model = "y1 ~ a*x1; y2 ~ b*x1"
    data = [demo.assign(x1=demo["x1"] + 0.1 * rng.normal(size=len(demo))) for _ in range(3)]
    tests = [
        msem.pool(
            [msem.sem(model, one.assign(y1=k * one["y1"], y2=one["y2"] / k)) for one in data]
        ).wald_test(["a == 0", "b == 0"])
        for k in (1.0, 1e6)
    ]
    assert tests[1].statistic == pytest.approx(tests[0].statistic, rel=1e-6)
    pooled = msem.pool([msem.sem(model, one) for one in data])
    with pytest.raises(ModelError, match="no hypotheses"):
        pooled.wald_test("")
    with pytest.raises(ModelError, match="a function of a fit"):
        pooled.of("standardized")
