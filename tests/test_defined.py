"""Defined parameters: against other programs, by hand, and by simulation."""

import numpy as np
import pandas as pd
import pytest

import msem
import reference
import reference_fits

MODEL = """
level: 1
  y2 ~ aw*x1
  y1 ~ bw*y2 + cw*x1
level: 2
  y2 ~ ab*w1
  y1 ~ bb*y2 + cb*w1
ind_w := aw*bw
tot_w := cw + ind_w
ind_b := ab*bb
diff := bb - bw
ratio := ind_w/tot_w
"""
FIT = msem.sem(MODEL, msem.load_demo(), cluster="cluster")
CASES = [c for c in reference.names() if ":=" in (reference.meta(c)["constraints"] or [])]


@reference.needs_reference
def test_enough_cases_have_definitions():
    assert len(CASES) >= 5


@pytest.mark.parametrize("case", CASES)
def test_definitions_are_those_of_lavaan(case):
    rows = [r for r in reference.expected(case)["parameter_table"] if r["op"] == ":="]
    ours = reference_fits.fit(case, estimator=reference.meta(case)["estimator"]).defined()
    assert ours["lhs"].tolist() == [r["lhs"] for r in rows]
    np.testing.assert_allclose(ours["est"], [r["est"] for r in rows], rtol=1e-6)
    np.testing.assert_allclose(ours["se"], [r["se"] for r in rows], rtol=1e-6)


@pytest.mark.parametrize(
    "case", [c for c in reference.names() if "==" in (reference.meta(c)["constraints"] or [])]
)
def test_standard_errors_under_constraints_are_those_of_lavaan(case):
    fit = reference_fits.fit(case)
    se = fit.estimates().query("op != ':='")["se"]
    np.testing.assert_allclose(se, reference_fits.column(case, "se"), rtol=1e-6, atol=1e-9)


def test_the_delta_method_by_hand():
    a, b = FIT.params["aw"], FIT.params["bw"]
    v = FIT.cov_params().loc[["aw", "bw"], ["aw", "bw"]].to_numpy()
    row = FIT.defined().iloc[0]
    se = np.sqrt(b**2 * v[0, 0] + a**2 * v[1, 1] + 2 * a * b * v[0, 1])
    assert (row["est"], row["se"]) == pytest.approx((a * b, se), rel=1e-12)
    assert row["z"] == pytest.approx(a * b / se, rel=1e-12)
    assert row["ci_upper"] == pytest.approx(a * b + 1.959963984540054 * se, rel=1e-12)


def test_rows_of_the_table_of_estimates():
    frame = FIT.estimates(standardized=True)
    rows = frame[frame["op"] == ":="]
    assert rows["lhs"].tolist() == ["ind_w", "tot_w", "ind_b", "diff", "ratio"] == rows["label"].tolist()
    assert rows["rhs"].tolist() == ["aw * bw", "cw + ind_w", "ab * bb", "bb - bw", "ind_w / tot_w"]
    assert (rows[["level", "group"]] == 0).all(axis=None)
    defined = FIT.defined()
    assert list(defined.columns) == list(FIT.estimates().columns)
    pd.testing.assert_frame_equal(rows[defined.columns].reset_index(drop=True), defined)
    standard = frame.set_index("label")["std_all"]
    assert standard["ind_w"] == pytest.approx(standard["aw"] * standard["bw"], rel=1e-12)


def test_monte_carlo_intervals_by_another_sampler():
    found = FIT.defined(method="monte_carlo", draws=200_000, seed=3)
    rng = np.random.default_rng(99)
    names = list(FIT.params.index)
    draws = rng.multivariate_normal(FIT.params, FIT.cov_params(), size=200_000)
    product = draws[:, names.index("aw")] * draws[:, names.index("bw")]
    row = found.set_index("lhs").loc["ind_w"]
    # five standard errors of a percentile
    assert row["ci_lower"] == pytest.approx(np.quantile(product, 0.025), abs=5 * 2.7 * product.std() / 447)
    assert row["ci_upper"] == pytest.approx(np.quantile(product, 0.975), abs=5 * 2.7 * product.std() / 447)
    assert row["se"] == pytest.approx(product.std(), rel=0.01)
    linear = found.set_index("lhs").loc["diff"]
    delta = FIT.defined().set_index("lhs").loc["diff"]
    assert linear["se"] == pytest.approx(delta["se"], rel=0.01)
    assert linear["ci_lower"] == pytest.approx(delta["ci_lower"], abs=0.02 * delta["se"])


def test_monte_carlo_intervals_repeat_by_seed():
    one, same, other = (FIT.defined(method="monte_carlo", draws=1000, seed=seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(one, same)
    assert not np.allclose(one["ci_lower"], other["ci_lower"], rtol=1e-6)
    narrow = FIT.defined(method="monte_carlo", draws=1000, seed=1, ci_level=0.5)
    assert (narrow["ci_upper"] - narrow["ci_lower"] < one["ci_upper"] - one["ci_lower"]).all()


def test_p_values_belong_to_the_percentile_interval():
    found = FIT.defined(method="monte_carlo", draws=20_000)
    inside = (found["ci_lower"] < 0) & (found["ci_upper"] > 0)
    assert ((found["pvalue"] > 0.05) == inside).all()
    assert found["z"].isna().all()


def test_functions_of_parameters_on_bounds_have_no_standard_error():
    text = (
        MODEL.replace("bw*y2", "bw*y2 + upper(0.1)*y2")
        + "twice := 2*cw\nconstant := 2 + 3\nroot := sqrt(ab - 5)"
    )
    with pytest.warns(msem.errors.ImproperSolutionWarning):
        fit = msem.sem(text, msem.load_demo(), cluster="cluster")
    for method in ("delta", "monte_carlo"):
        rows = fit.defined(method=method, draws=500).set_index("lhs")
        missing = rows["se"].isna()
        assert set(rows.index[missing]) == {"ind_w", "tot_w", "diff", "ratio", "root"}
        assert rows.loc["constant", ["est", "se"]].tolist() == [5, 0]
        assert np.isnan(rows.loc["root", "est"])
        assert rows.loc["twice", "se"] == pytest.approx(
            2 * fit.bse["cw"], rel=0.1 if method != "delta" else 1e-12
        )


def test_definitions_without_a_value_in_many_draws_have_no_interval():
    text = MODEL + "root := sqrt(ind_b - 0.2)\nrare := sqrt(ab + 3)"
    fit = msem.sem(text, msem.load_demo(), cluster="cluster")
    rows = fit.defined(method="monte_carlo", draws=5000).set_index("lhs")
    assert rows.loc["ind_b", "se"] > 0
    assert rows.loc["root", ["se", "pvalue", "ci_lower", "ci_upper"]].isna().all()
    assert rows.loc["rare", "se"] > 0


def test_options_are_checked():
    with pytest.raises(ValueError, match="method must be one of 'delta', 'monte_carlo'"):
        FIT.defined(method="bootstrap")
    with pytest.raises(ValueError, match="draws must be"):
        FIT.defined(method="monte_carlo", draws=5)


def test_a_model_without_definitions_has_an_empty_table():
    fit = msem.sem("level: 1\ny1 ~ x1\nlevel: 2\ny1 ~ w1", msem.load_demo(), cluster="cluster")
    assert fit.defined().empty
    assert fit.defined(method="monte_carlo").empty
    assert fit.constraints().empty
    assert list(fit.constraints().columns) == ["constraint", "kind", "value", "active", "multiplier"]


def test_without_standard_errors_there_are_values():
    fit = msem.sem(MODEL, msem.load_demo(), cluster="cluster", se="none")
    assert fit.defined()["se"].isna().all()
    np.testing.assert_allclose(fit.defined()["est"], FIT.defined()["est"])
