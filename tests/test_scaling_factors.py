"""Scaling factors of ordered variables: those of lavaan 0.6-14, and residual variances in another parameterization."""

import numpy as np
import pandas as pd
import pytest

import msem
from msem.errors import IdentificationWarning, ModelError

ITEMS = ["u1", "u2", "u3", "u4"]
CUTS = "\n".join(f"u{k} | c(t{k}1, t{k}1)*t1 + c(t{k}2, t{k}2)*t2" for k in range(1, 5))
SCALES = "\n".join(f"u{k} ~*~ c(1, NA)*u{k}" for k in range(1, 5))
MODEL = f"f =~ u1 + c(a, a)*u2 + c(b, b)*u3 + c(g, g)*u4\nf ~ x\n{CUTS}\nf ~ c(0, NA)*1\n{SCALES}"
EQUAL = ["loadings", "thresholds"]
N = 400


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    rng = np.random.default_rng(11)
    g, x = np.repeat([1, 2], N), rng.normal(size=2 * N)
    f = 0.3 * x + rng.normal(size=2 * N) * np.where(g == 1, 1, 1.3) + np.where(g == 1, 0, 0.4)
    out = pd.DataFrame({"g": g, "x": x})
    for k, (loading, sd) in enumerate(((1, 1.5), (0.8, 0.7), (0.9, 1.2), (0.7, 1)), 1):
        y = loading * f + rng.normal(size=2 * N) * np.where(g == 1, 1, sd)
        out[f"u{k}"] = np.digitize(y, [-0.7, 0.6])
    return out


@pytest.fixture(scope="module")
def fit(data):
    return msem.sem(MODEL, data, group="g", ordered=ITEMS)


@pytest.fixture(scope="module")
def pair(data):
    """The same model by scaling factors and by residual variances."""
    return [
        msem.sem(
            "f =~ u1 + u2 + u3 + u4\nf ~ x", data, group="g", ordered=ITEMS, group_equal=EQUAL, **options
        )
        for options in ({}, {"parameterization": "theta"})
    ]


# lavaan 0.6-14: sem(MODEL, data, group = "g", ordered = ITEMS, estimator = "WLSMV"), group 2
LAVAAN = {
    ("f", "=~", "u2"): (1.012102, 0.097940),
    ("f", "=~", "u4"): (0.974472, 0.096786),
    ("u1", "|", "t1"): (-0.502558, 0.061804),
    ("u4", "|", "t2"): (0.544988, 0.057948),
    ("f", "~", "x"): (0.228914, 0.054251),
    ("f", "~1", ""): (0.269923, 0.068684),
    ("u1", "~*~", "u1"): (0.767540, 0.070723),
    ("u2", "~*~", "u2"): (0.979589, 0.080038),
    ("u3", "~*~", "u3"): (0.782368, 0.067020),
    ("u4", "~*~", "u4"): (0.845177, 0.066671),
    ("f", "~~", "f"): (0.742068, 0.147097),
}


def test_estimates_errors_and_chi_square_are_those_of_lavaan(fit):
    rows = fit.estimates().query("group == 2").set_index(["lhs", "op", "rhs"])
    for key, (est, se) in LAVAAN.items():
        ours = rows.loc[key, ["est", "se"]].astype(float)
        np.testing.assert_allclose(ours, [est, se * np.sqrt((N - 1) / N)], atol=3e-6, err_msg=str(key))
    tests, chisq = fit.tests(), 15.579190  # lavaan's has the factor (N - 1) / N
    assert tests.loc["standard", "statistic"] * (N - 1) / N == pytest.approx(chisq, rel=1e-6)
    scaled = 22.119403 + chisq / (N - 1) / tests.loc["scaled_shifted", "scaling"]
    assert tests.loc["scaled_shifted", "statistic"] == pytest.approx(scaled, rel=1e-6)


def test_group_equal_frees_the_same_factors(fit, pair):
    np.testing.assert_allclose(pair[0].tests(), fit.tests(), rtol=1e-6)
    own = pair[0].estimates().query("op == '~*~'")
    assert own.query("group == 1")[["est", "se"]].to_numpy().tolist() == [[1.0, 0.0]] * 4
    assert (own.query("group == 2")["se"] > 0.01).all()


def test_factors_are_residual_variances_in_another_parameterization(pair):
    delta, theta = pair
    np.testing.assert_allclose(delta.tests(), theta.tests(), rtol=1e-5)
    for of in ("reliability", "category_probabilities"):
        ours, theirs = (getattr(one, of)().select_dtypes("number") for one in pair)
        np.testing.assert_allclose(ours, theirs, atol=2e-5, err_msg=of)
    ours, theirs = (
        one.standardized().query("op != '~*~'").set_index(["lhs", "op", "rhs", "group"]) for one in pair
    )
    np.testing.assert_allclose(ours["est_std"], theirs["est_std"].reindex(ours.index), atol=1e-5)
    np.testing.assert_allclose(ours["se"], theirs["se"].reindex(ours.index), atol=1e-5)
    scores, others = (one.factor_scores()["f"].to_numpy() for one in pair)
    np.testing.assert_allclose(scores / scores.std(), others / others.std(), atol=1e-4)


def test_a_factor_is_one_over_the_standard_deviation_given_covariates(fit):
    rows = fit.estimates().query("group == 2").set_index(["lhs", "op", "rhs"])["est"]
    for name, loading in zip(ITEMS, [1.0, *(rows["f", "=~", f"u{k}"] for k in (2, 3, 4))], strict=True):
        given = loading**2 * rows["f", "~~", "f"] + rows[name, "~~", name]
        assert rows[name, "~*~", name] == pytest.approx(given**-0.5, rel=1e-8)
        explained = (loading * rows["f", "~", "x"]) ** 2 * rows["x", "~~", "x"]
        assert fit.groups["2"].implied[1].cov.loc[name, name] == pytest.approx(given + explained, rel=1e-8)


def test_fixed_factors_shared_ones_and_their_functions(data):
    kwargs = {"group": "g", "ordered": ITEMS}
    one = msem.sem(MODEL.replace("u4 ~*~ c(1, NA)*u4", "u4 ~*~ c(1, 0.9)*u4"), data, **kwargs)
    rows = one.estimates().query("op == '~*~' and group == 2").set_index("lhs")
    assert rows.loc["u4", ["est", "se"]].tolist() == [0.9, 0.0]
    assert one.df == 17
    shared = "\n".join([MODEL, "u1 ~*~ c(r, s)*u1", "u3 ~*~ c(v, s)*u3"])
    other = msem.sem(f"{shared}\nvar := 1 / s^2", data, **kwargs)
    rows = other.estimates().set_index(["lhs", "op", "group"])["est"]
    assert other.df == 17
    assert rows["u1", "~*~", 2] == rows["u3", "~*~", 2]
    assert rows["var", ":=", 0] == pytest.approx(rows["u1", "~*~", 2] ** -2)


def test_they_are_in_summaries_tables_and_not_in_diagrams(fit):
    assert "Scaling Factors:" in fit.summary()
    assert "Scaling factors" in msem.table(fit).to_markdown()
    assert "~*~" not in fit.diagram().to_dot()


def test_samples_have_the_factors_of_their_population():
    text = "f =~ 1*u1 + 1*u2\nf ~~ 0.5*f\nu1 | 0.6*t1\nu2 | 0.6*t1\nu1 ~*~ 0.5*u1"
    drawn = msem.simulate(text, nobs=20_000, seed=1)
    shares = 1 - np.array([0.61791, 0.72575])  # Phi(0.6 * 0.5), Phi(0.6)
    np.testing.assert_allclose((drawn[["u1", "u2"]] > 0).mean(), shares, atol=0.015)
    with pytest.raises(ModelError, match="no value for u1~\\*~u1"):
        msem.simulate(text.replace("0.5*u1", "u1"), nobs=10, seed=1)


def test_factors_and_free_thresholds_of_one_group_are_not_identified(data):
    with pytest.warns(IdentificationWarning, match=r"u1~\*~u1.*u1\|t1"):
        msem.sem("f =~ u1 + u2 + u3 + u4\nu1 ~*~ u1", data, ordered=ITEMS)
