"""Direct, indirect and total effects, and differences between levels."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest

import models
import msem
import oracle
import reference
import reference_fits
from msem.postestimation.delta import delta_method, jacobian
from msem.postestimation.effects import cycle_between, effects_of, effects_quantity, reachable, simple_paths

KEY = ["level", "predictor", "through", "outcome", "effect"]
MEDIATION = """
level: 1
    m ~ aw * x
    y ~ bw * m + cw * x
level: 2
    m ~ ab * x
    y ~ bb * m + cb * x
"""


@functools.cache
def mediation(**options: Any) -> msem.Fit:
    """1-1-1 mediation of x on y through m."""
    frame = msem.load_demo().rename(columns={"y1": "x", "y2": "m", "y3": "y"})
    return msem.sem(MEDIATION, frame, cluster="cluster", **options)


def rows(table: pd.DataFrame) -> pd.DataFrame:
    return table.set_index(KEY)


# (case, defined parameter, level or 0 for the difference, predictor, through, outcome, effect)
DEFINED = [
    ("demo_indirect", "ind_w", 1, "x1", "y2", "y1", "indirect"),
    ("demo_indirect", "tot_w", 1, "x1", "", "y1", "total"),
    ("demo_indirect", "ind_b", 2, "w1", "", "y1", "total_indirect"),
    ("demo_indirect", "diff", 0, "y2", "", "y1", "direct"),
    ("med_111", "ind_w", 1, "x", "m", "y", "indirect"),
    ("med_111", "ind_b", 2, "x", "m", "y", "indirect"),
    ("med_111", "contextual", 0, "x", "", "m", "total"),
    ("political", "ind", 1, "ind60", "dem60", "dem65", "indirect"),
    ("political", "tot", 1, "ind60", "", "dem65", "total"),
    ("mplus_ex9_1b", "betac", 0, "x", "", "y", "direct"),
]


@reference.needs_reference
@pytest.mark.parametrize("stored", DEFINED, ids=lambda stored: f"{stored[0]}-{stored[1]}")
def test_defined_parameters_of_lavaan(stored: tuple[str, str, int, str, str, str, str]) -> None:
    case, name, level, *names = stored
    robust = {"estimator": "MLR"} if reference.meta(case)["estimator"] == "MLR" else {}
    fitted, expected = reference_fits.fit(case, **robust), reference.expected(case)
    (wanted,) = (row for row in expected["parameter_table"] if row["op"] == ":=" and row["lhs"] == name)
    if level:
        row = rows(fitted.effects()).loc[(level, *names)]
    else:
        row = fitted.contextual_effects().set_index(KEY[1:]).loc[tuple(names)]
    assert row["est"] == pytest.approx(wanted["est"], rel=1e-4)
    assert row["se"] == pytest.approx(wanted["se"], rel=1e-4)


def test_mediation_at_each_level() -> None:
    table, b = rows(mediation().effects()), mediation().params
    for level, (a, mb, c) in ((1, ("aw", "bw", "cw")), (2, ("ab", "bb", "cb"))):
        assert table.loc[(level, "x", "m", "y", "indirect"), "est"] == pytest.approx(b[a] * b[mb])
        assert table.loc[(level, "x", "", "y", "direct"), "est"] == pytest.approx(b[c])
        assert table.loc[(level, "x", "", "y", "total"), "est"] == pytest.approx(b[c] + b[a] * b[mb])
        v = mediation().cov_params()
        variance = b[a] ** 2 * v.loc[mb, mb] + b[mb] ** 2 * v.loc[a, a] + 2 * b[a] * b[mb] * v.loc[a, mb]
        assert table.loc[(level, "x", "m", "y", "indirect"), "se"] == pytest.approx(np.sqrt(variance))
    assert list(mediation().effects().columns) == [
        *("level", "group", "predictor", "through", "outcome", "effect"),
        *("est", "se", "z", "pvalue", "ci_lower", "ci_upper"),
    ]


def test_direct_effects_are_the_parameters() -> None:
    table, b, se = rows(mediation().effects()), mediation().params, mediation().bse
    for name, key in (("aw", (1, "x", "", "m")), ("bb", (2, "m", "", "y"))):
        assert table.loc[(*key, "direct"), "est"] == pytest.approx(b[name])
        assert table.loc[(*key, "direct"), "se"] == pytest.approx(se[name])


def test_differences_between_levels() -> None:
    table = mediation().contextual_effects().set_index(KEY[1:])
    b, v = mediation().params, mediation().cov_params()
    row = table.loc["m", "", "y", "direct"]
    assert row["est"] == pytest.approx(b["bb"] - b["bw"])
    assert row["est"] == pytest.approx(row["between"] - row["within"])
    assert row["se"] == pytest.approx(np.sqrt(v.loc["bb", "bb"] + v.loc["bw", "bw"] - 2 * v.loc["bb", "bw"]))
    assert table.loc[("x", "m", "y", "indirect"), "est"] == pytest.approx(
        b["ab"] * b["bb"] - b["aw"] * b["bw"]
    )


def test_predictor_between_clusters() -> None:
    """2-1-1: a cluster-level predictor has effects at the between level only."""
    text = "level: 1\n  y3 ~ y2\nlevel: 2\n  y2 ~ w1\n  y3 ~ y2 + w1"
    fitted = msem.sem(text, msem.load_demo(), cluster="cluster")
    table = fitted.effects(outcome="y3", predictor="w1")
    assert table["level"].unique().tolist() == [2]
    assert table["effect"].tolist() == ["direct", "indirect", "total_indirect", "total"]
    assert fitted.contextual_effects()["predictor"].unique().tolist() == ["y2"]


LATENT = """
level: 1
    fw =~ y1 + y2 + y3
    fw ~ x1
    y4 ~ fw + x1
level: 2
    fb =~ y1 + y2 + y3
    fb ~ w1
    y4 ~ fb
"""


@functools.cache
def latent() -> msem.Fit:
    return msem.sem(LATENT, msem.load_demo(), cluster="cluster")


def test_latent_variables_pair_by_name_or_by_hand() -> None:
    with pytest.raises(msem.errors.ModelError, match="no effect is at both levels"):
        latent().contextual_effects()
    table = latent().contextual_effects(pairs={"fw": "fb"})
    assert table[["predictor", "outcome", "effect"]].to_numpy().tolist() == [
        ["fw", "y4", "direct"],
        ["fw", "y4", "total"],
    ]
    with pytest.raises(msem.errors.ModelError, match="'f2' is on no path"):
        latent().contextual_effects(pairs={"fw": "f2"})


def test_effects_on_indicators_are_shown_when_asked_for() -> None:
    assert "y1" not in set(latent().effects()["outcome"])
    row = rows(latent().effects(outcome="y2", predictor="x1")).loc[(1, "x1", "fw", "y2", "indirect")]
    b = latent().params
    assert row["est"] == pytest.approx(b["fw~x1"] * b["fw=~y2"])


def test_total_effects_are_slopes_of_implied_moments() -> None:
    """With a covariate that nothing causes, the total effect is cov(x, y) / var(x)."""
    for level, x in ((1, "x1"), (2, "w1")):
        cov = latent().implied[level].cov
        total = rows(latent().effects(predictor=x)).query("effect == 'total'")
        for key, row in total.iterrows():
            assert row["est"] == pytest.approx(cov.loc[x, key[3]] / cov.loc[x, x], rel=1e-6)


@pytest.mark.parametrize("kind", ["std_all", "std_lv", "std_nox"])
@pytest.mark.parametrize("total", [False, True])
def test_standardized_effects_are_products_of_the_standardized_solution(kind: Any, total: bool) -> None:
    table = rows(latent().effects(standardized=kind, total=total))
    solution = latent().standardized(kind, total=total).set_index(["lhs", "op", "rhs", "level"])["est_std"]
    indirect = table.loc[(1, "x1", "fw", "y4", "indirect")]
    assert indirect["est"] == pytest.approx(solution["fw", "~", "x1", 1] * solution["y4", "~", "fw", 1])
    direct = table.loc[(1, "x1", "", "y4", "direct")]
    assert direct["est"] == pytest.approx(solution["y4", "~", "x1", 1])


FEEDBACK = """
    y1 ~ a*y2 + x1
    y2 ~ b*y1 + x2
    y3 ~ d*y2
"""


@functools.cache
def feedback() -> msem.Fit:
    rng = np.random.default_rng(2)
    x, e = rng.normal(size=(800, 2)), rng.normal(size=(800, 2))
    paths = np.array([[0, 0.4], [-0.5, 0]])
    y = np.linalg.solve(np.eye(2) - paths, (0.7 * x + e).T).T
    frame = pd.DataFrame(np.column_stack([y, 0.6 * y[:, 1] + rng.normal(size=800), x]))
    return msem.sem(FEEDBACK, frame.set_axis(["y1", "y2", "y3", "x1", "x2"], axis=1))


def test_feedback_gives_totals_only() -> None:
    table, b = feedback().effects(), feedback().params
    loop = 1 / (1 - b["a"] * b["b"])
    row = rows(table).loc[(1, "x1", "", "y3", "total")]
    assert row["est"] == pytest.approx(b["y1~x1"] * b["b"] * b["d"] * loop)
    assert rows(table).loc[(1, "y1", "", "y2", "total"), "est"] == pytest.approx(b["b"] * loop)
    assert rows(table).loc[(1, "y1", "", "y2", "direct"), "est"] == pytest.approx(b["b"])
    assert set(table["effect"]) == {"direct", "total_indirect", "total"}


def test_feedback_without_a_limit_has_no_total_effect() -> None:
    quantity = effects_quantity(feedback().objective, effects_of(feedback().table))
    theta = feedback().params.copy()
    theta[["a", "b"]] = -1.2, 1.1  # |a b| > 1: (I - A)^-1 exists, but the sum over paths diverges
    table = pd.Series(quantity(theta.to_numpy()), index=[e.kind for e in effects_of(feedback().table)])
    assert table["total"].isna().all()
    assert table["direct"].notna().all()


def test_derivatives() -> None:
    for shape in ("all kinds", "both levels", "single level"):
        case = models.shape_case(shape, seed=4)
        wanted = effects_of(case.table)
        for kind in (None, "std_all"):
            quantity = effects_quantity(case.objective, wanted, kind)
            found = jacobian(quantity, case.near)
            np.testing.assert_allclose(found, oracle.differences(quantity, case.near), rtol=1e-6, atol=1e-8)


def test_specific_effects_sum_to_the_total_indirect_effect() -> None:
    text = "b ~ a\nc ~ a + b\nd ~ a + b + c\ne ~ d + c + a"
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(rng.normal(size=(300, 5)).cumsum(axis=1), columns=list("abcde"))
    table = msem.sem(text, frame).effects(outcome="e", predictor="a")
    by_kind = table.groupby("effect")["est"].sum()
    assert (table["effect"] == "indirect").sum() == 6
    assert by_kind["indirect"] == pytest.approx(by_kind["total_indirect"])
    assert by_kind["direct"] + by_kind["indirect"] == pytest.approx(by_kind["total"])
    assert table["through"].tolist() == ["", "c", "d", "b -> c", "b -> d", "c -> d", "b -> c -> d", "", ""]
    short = msem.sem(text, frame).effects(outcome="e", predictor="a", specific=False)
    assert short["effect"].tolist() == ["direct", "total_indirect", "total"]


def test_monte_carlo_intervals() -> None:
    wald = rows(mediation().effects())
    drawn = rows(mediation().effects(method="monte_carlo", draws=50_000, seed=2))
    key = (2, "x", "m", "y", "indirect")
    b, v = mediation().params[["ab", "bb"]], mediation().cov_params().loc[["ab", "bb"], ["ab", "bb"]]
    product = np.random.default_rng(8).multivariate_normal(b, v, 200_000).prod(axis=1)
    np.testing.assert_allclose(
        drawn.loc[key, ["ci_lower", "ci_upper"]].astype(float),
        np.quantile(product, [0.025, 0.975]),
        atol=0.01,
    )
    np.testing.assert_allclose(drawn.loc[key, "se"], product.std(), rtol=0.02)
    pd.testing.assert_series_equal(wald["est"], drawn["est"])
    assert drawn["z"].isna().all()
    assert ((drawn["pvalue"] < 0.05) == ((drawn["ci_lower"] > 0) | (drawn["ci_upper"] < 0))).all()
    again = mediation().contextual_effects(method="monte_carlo", draws=500, seed=2)
    pd.testing.assert_frame_equal(
        again, mediation().contextual_effects(method="monte_carlo", draws=500, seed=2)
    )


def test_order_of_the_text_and_of_rows_does_not_matter() -> None:
    text = "level: 1\n  y ~ x + m\n  m ~ x\nlevel: 2\n  y ~ x + m\n  m ~ x"
    frame = msem.load_demo().rename(columns={"y1": "x", "y2": "m", "y3": "y"}).sample(frac=1, random_state=1)
    ours, theirs = rows(mediation().effects()), rows(msem.sem(text, frame, cluster="cluster").effects())
    assert set(ours.index) == set(theirs.index)
    np.testing.assert_allclose(theirs.loc[ours.index, ["est", "se"]], ours[["est", "se"]], rtol=1e-5)


def test_units() -> None:
    frame = msem.load_demo().rename(columns={"y1": "x", "y2": "m", "y3": "y"})
    other = msem.sem(MEDIATION, frame.assign(x=frame["x"] * 100, y=frame["y"] / 10), cluster="cluster")
    kept = (mediation().effects()["predictor"] == "x") & (mediation().effects()["outcome"] == "y")
    np.testing.assert_allclose(
        other.effects().loc[kept, ["est", "se"]],
        mediation().effects().loc[kept, ["est", "se"]] / 1000,
        rtol=1e-4,
    )
    np.testing.assert_allclose(
        other.effects(standardized="std_all")[["est", "se"]],
        mediation().effects(standardized="std_all")[["est", "se"]],
        rtol=1e-4,
    )


def test_paths() -> None:
    graph = {"a": ["b", "c"], "b": ["d"], "c": ["b", "d"], "d": ["e"], "e": ["d"]}
    assert list(simple_paths(graph, "a", "d")) == [("a", "b", "d"), ("a", "c", "d"), ("a", "c", "b", "d")]
    assert reachable(graph, "d") == {"d", "e"}
    assert cycle_between(graph, "a", "d") == ["d", "e"]
    assert cycle_between(graph, "a", "b") == []


def test_too_many_paths() -> None:
    layers = [[f"v{k}{i}" for i in range(5)] for k in range(8)]
    graph = {name: after for before, after in itertools.pairwise(layers) for name in before}
    with pytest.raises(msem.errors.ModelError, match="specific=False"):
        list(
            simple_paths(
                graph | {"start": layers[0]} | {name: ["end"] for name in layers[-1]}, "start", "end"
            )
        )


def test_effects_of_a_fixed_path() -> None:
    fitted = msem.sem("y2 ~ 0.5*x1\ny3 ~ y2 + 0*x1", msem.load_demo())
    table = rows(fitted.effects())
    assert table.loc[(1, "x1", "", "y2", "direct"), "se"] == 0
    assert (1, "x1", "", "y3", "direct") not in table.index
    assert table.loc[(1, "x1", "y2", "y3", "indirect"), "est"] == pytest.approx(0.5 * fitted.params["y3~y2"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"outcome": "z9"}, "'z9' is no variable of the model"),
        ({"outcome": "x", "predictor": "y"}, "no directed path leads"),
    ],
)
def test_bad_names(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(msem.errors.ModelError, match=message):
        mediation().effects(**arguments)


def test_bad_arguments() -> None:
    with pytest.raises(msem.errors.ModelError, match="the model has no regressions"):
        msem.cfa("f =~ y1 + y2 + y3", msem.load_demo()).effects()
    with pytest.raises(ValueError, match="give standardized= too"):
        mediation().effects(total=True)
    with pytest.raises(ValueError, match="standardized must be one of"):
        mediation().effects(standardized="all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 100"):
        mediation().effects(method="monte_carlo", draws=5)


def test_without_standard_errors() -> None:
    table = mediation(se="none").effects()
    assert table["est"].notna().all()
    assert table["se"].isna().all()
    assert delta_method(lambda t: t, np.zeros(0), np.zeros((0, 0))).est.size == 0
