"""`msem.invariance`: each step is the model one would write by hand, each test that of two such models."""

import numpy as np
import pandas as pd
import pytest

import msem

ONE = "f =~ y1 + y2 + y3 + y4"
TWO = """
level: 1
  fw =~ y1 + y2 + y3 + y4
level: 2
  fb =~ y1 + y2 + y3 + y4
"""
KINDS = {
    "configural": [],
    "metric": ["loadings"],
    "scalar": ["loadings", "intercepts"],
    "strict": ["loadings", "intercepts", "residuals"],
}


POPULATION = """
level: 1
  fw =~ 1*y1 + 0.8*y2 + 0.9*y3 + 0.7*y4
  fw ~~ 1*fw
  y1 ~~ 0.5*y1 ; y2 ~~ 0.5*y2 ; y3 ~~ 0.5*y3 ; y4 ~~ 0.5*y4
level: 2
  fb =~ 1*y1 + 0.9*y2 + 0.8*y3 + 0.7*y4
  fb ~~ 0.6*fb
  y1 ~~ 0.2*y1 ; y2 ~~ 0.2*y2 ; y3 ~~ 0.2*y3 ; y4 ~~ 0.2*y4
"""
GROUPS = {
    "a": POPULATION,
    "b": POPULATION + "  y3 ~ 0.4*1\n",
    "c": POPULATION.replace("0.8*y2", "1.1*y2"),
}


@pytest.fixture(scope="module")
def grouped() -> pd.DataFrame:
    """Three groups, with another intercept of y3 in one and another within loading of y2 in another."""
    parts = []
    for k, (name, population) in enumerate(GROUPS.items()):
        part = msem.simulate(population, nclusters=80, cluster_sizes=8, seed=k)
        parts.append(part.assign(group=name, cluster=part["cluster"] + 1000 * k))
    return pd.concat(parts, ignore_index=True)


CASES = {
    "one level": (ONE, {}),
    "one level, robust": (ONE, {"estimator": "MLR"}),
    "two levels, robust": (TWO, {"cluster": "cluster", "estimator": "MLR"}),
    "two levels, unit variances": (TWO, {"cluster": "cluster", "std_lv": True}),
}


@pytest.mark.parametrize(("model", "options"), CASES.values(), ids=CASES)
def test_groups_as_by_hand(grouped: pd.DataFrame, model: str, options: dict[str, object]) -> None:
    found = msem.invariance(model, grouped, group="group", **options)
    fits = {s: msem.sem(model, grouped, group="group", group_equal=k, **options) for s, k in KINDS.items()}
    compared = msem.compare_models(fits)
    assert list(found.fits) == list(fits)
    for step, fit in fits.items():
        measures = fit.fit_measures()
        np.testing.assert_allclose(found.fits[step].params, fit.params, rtol=1e-8, atol=1e-10)
        scaled = measures.get("chisq_scaled", measures["chisq"])
        assert found.models.loc[step, "chisq"] == pytest.approx(scaled, rel=1e-8, nan_ok=True)
        assert found.models.loc[step, "df"] == fit.df
    shared = ["chisq_diff", "df_diff", "pvalue", "scaling", "rmsea_diff"]
    np.testing.assert_allclose(
        found.tests[shared].to_numpy(float), compared[shared].iloc[1:].to_numpy(float), rtol=1e-7, atol=1e-9
    )
    change = found.models["rmsea"].diff().iloc[1:]
    np.testing.assert_allclose(found.tests["rmsea_change"], change, atol=1e-12)


def test_what_to_free_is_a_score_test_over_all_groups(grouped: pd.DataFrame) -> None:
    found = msem.invariance(TWO, grouped, group="group", cluster="cluster", estimator="MLR")
    table = found.free_next.set_index(["step", "parameter"])
    metric, scalar = (found.free_next[found.free_next["step"] == s] for s in ("metric", "scalar"))
    assert metric["parameter"].iloc[0] == "fw=~y2"
    assert scalar["parameter"].iloc[0] == "y3~1.l2"
    assert set(scalar["parameter"]) == {f"y{k}~1.l2" for k in range(1, 5)}
    assert not {"fw=~y1", "fb=~y1.l2"} & set(metric["parameter"])  # markers
    names = [f"y3~1.l2 == y3~1.g{g}.l2" for g in (2, 3)]
    by_hand = found.fits["scalar"].score_test(names)
    row = table.loc[("scalar", "y3~1.l2")]
    for column in ("statistic", "df", "pvalue", "robust", "pvalue_robust"):
        assert row[column] == pytest.approx(by_hand.total[column].iloc[0], rel=1e-9)
    epc = by_hand.univariate["epc"]
    assert row["epc"] == pytest.approx(epc.loc[epc.abs().idxmax()], rel=1e-9)
    free = msem.sem(
        TWO, grouped, group="group", cluster="cluster", group_equal=KINDS["scalar"], group_partial=["y3~1.l2"]
    ).params
    assert row["epc"] == pytest.approx(free["y3~1.l2"] - free["y3~1.g2.l2"], abs=0.06)


def test_partial_invariance_over_groups(grouped: pd.DataFrame) -> None:
    options = {"group": "group", "cluster": "cluster"}
    free = ["fw=~y2", "fb=~y2.l2", "y3~1.l2", "y2~1.l2"]
    found = msem.invariance(TWO, grouped, partial=free, steps=["metric", "scalar"], **options)
    by_hand = msem.sem(TWO, grouped, group_equal=KINDS["scalar"], group_partial=free, **options)
    assert found.fits["scalar"].llf == pytest.approx(by_hand.llf, abs=1e-8)
    assert not set(free) & set(found.free_next["parameter"])
    assert set(found.free_next["step"]) == {"metric", "scalar"}
    assert found.tests.loc["scalar", "pvalue"] > 0.01
    assert "y3~1.l2" in str(found.table())


def test_groups_of_moments_and_of_incomplete_rows(grouped: pd.DataFrame) -> None:
    configural = msem.sem(TWO, grouped, group="group", cluster="cluster")
    published = {name: group.saturated for name, group in configural.groups.items()}
    of_moments = msem.invariance(TWO, published)
    of_rows = msem.invariance(TWO, grouped, group="group", cluster="cluster")
    np.testing.assert_allclose(of_moments.tests["chisq_diff"], of_rows.tests["chisq_diff"], rtol=1e-5)
    holes = grouped.copy()
    holes.loc[holes.index[::7], "y4"] = np.nan
    options = {"group": "group", "missing": "fiml"}
    found = msem.invariance(ONE, holes, steps=["configural", "metric"], **options)
    by_hand = msem.sem(ONE, holes, group_equal="loadings", **options)
    assert found.fits["metric"].chisq == pytest.approx(by_hand.chisq, abs=1e-6)


EQUAL = """
level: 1
  fw =~ y1 + a*y2 + b*y3 + c*y4
level: 2
  fb =~ y1 + a*y2 + b*y3 + c*y4
"""
ZERO = EQUAL + "".join(f"  y{k} ~~ 0*y{k}\n" for k in range(1, 5))


@pytest.mark.parametrize(
    "model", [ONE, TWO, TWO.replace("level: 1", "level: pupil").replace("level: 2", "level: school")]
)
def test_levels_as_by_hand(demo: pd.DataFrame, model: str) -> None:
    found = msem.invariance(model, demo, levels=True, cluster="cluster", estimator="MLR")
    by_hand = {
        name: msem.sem(text, demo, cluster="cluster", estimator="MLR")
        for name, text in {"configural": TWO, "metric": EQUAL, "scalar": ZERO}.items()
    }
    assert {n: f.df for n, f in found.fits.items()} == {"configural": 4, "metric": 7, "scalar": 11}
    for name, fit in by_hand.items():
        assert found.fits[name].llf == pytest.approx(fit.llf, abs=1e-8)
    compared = msem.compare_models(by_hand)
    np.testing.assert_allclose(
        found.tests["chisq_diff"], compared["chisq_diff"].iloc[1:].astype(float), rtol=1e-7
    )
    table = found.free_next.set_index("parameter")
    added = by_hand["scalar"].score_test(add="y4 ~~ y4", level=2).univariate.iloc[0]
    assert table.loc["y4~~y4.l2", "statistic"] == pytest.approx(added["statistic"], rel=1e-6)
    assert table.loc["y4~~y4.l2", "robust"] == pytest.approx(added["robust"], rel=1e-6)
    assert (table["step"] == "metric").sum() == 3


def test_levels_do_not_depend_on_the_scaling_of_factors(demo: pd.DataFrame) -> None:
    marker, unit = (
        msem.invariance(ONE, demo, levels=True, cluster="cluster", std_lv=s) for s in (False, True)
    )
    np.testing.assert_allclose(unit.tests["chisq_diff"], marker.tests["chisq_diff"], rtol=1e-6)
    tested = unit.free_next[unit.free_next["step"] == "metric"]
    assert len(tested) == 4  # the marker too
    one = unit.fits["metric"]
    assert one.params.filter(like="f~~f").shape == (1,)  # of the between level


def test_partial_invariance_over_levels(demo: pd.DataFrame) -> None:
    free = ["f=~y2", "y4~~y4"]
    found = msem.invariance(ONE, demo, levels=True, cluster="cluster", partial=free)
    text = ZERO.replace("level: 2\n  fb =~ y1 + a*y2", "level: 2\n  fb =~ y1 + y2").replace(
        "  y4 ~~ 0*y4\n", ""
    )
    assert found.fits["scalar"].llf == pytest.approx(msem.sem(text, demo, cluster="cluster").llf, abs=1e-8)


def test_constructs_of_clusters() -> None:
    population = """
    level: 1
      f =~ 1*y1 + 0.8*y2 + 0.9*y3 + 0.7*y4 + 0.8*y5
      f ~~ 1*f
      y1 ~~ 0.5*y1 ; y2 ~~ 0.5*y2 ; y3 ~~ 0.5*y3 ; y4 ~~ 0.5*y4 ; y5 ~~ 0.5*y5
    level: 2
      f =~ 1*y1 + 0.8*y2 + 0.9*y3 + 0.7*y4 + 0.8*y5
      g =~ 0.2*y1 + 0.6*y2 + 0.3*y3 + 0.9*y4 + 0.5*y5
      f ~~ 0.4*f ; g ~~ 0.5*g ; f ~~ 0*g
      y1 ~~ 0.05*y1 ; y2 ~~ 0.05*y2 ; y3 ~~ 0.05*y3 ; y4 ~~ 0.05*y4 ; y5 ~~ 0.05*y5
    """
    data = msem.simulate(population, nclusters=400, cluster_sizes=20, seed=3)
    model = "f =~ y1 + y2 + y3 + y4 + y5"
    found = msem.invariance(model, data, levels=True, cluster="cluster", steps=["configural", "metric"])
    kinds = found.constructs
    assert list(kinds.index) == ["within", "shared", "configural", "shared_configural"]
    assert kinds.loc["configural", "pvalue"] < 1e-4 < 0.01 < kinds.loc["shared_configural", "pvalue"]
    within = found.fits["configural"].fit_measures(level="within")
    assert kinds.loc["within", "srmr_within"] == within["srmr"]
    assert kinds.loc["within", "df"] == 5


MISTAKES = {
    "one group": (ONE, {}, "group=..., or compare the levels"),
    "groups and levels": (ONE, {"group": "group", "levels": True, "cluster": "cluster"}, "one at a time"),
    "group_equal": (ONE, {"group": "group", "group_equal": ["loadings"]}, "partial="),
    "no such step": (ONE, {"group": "group", "steps": ["weak"]}, "steps must be one of"),
    "levels have no strict": (
        ONE,
        {"levels": True, "cluster": "cluster", "steps": "strict"},
        "steps must be one",
    ),
    "backwards": (ONE, {"group": "group", "steps": ["metric", "configural"]}, "fewer restrictions to more"),
    "no factor": ("y1 ~ y2", {"group": "group"}, "no factor"),
    "no such exception": (ONE, {"group": "group", "partial": "f=~y9"}, "no parameter 'f=~y9'"),
    "nor over levels": (
        ONE,
        {"levels": True, "cluster": "cluster", "partial": "f=~y9"},
        "no parameter 'f=~y9'",
    ),
    "no cluster": (ONE, {"levels": True}, "cluster"),
    "other factors": (
        TWO.replace("fb =~ y1 + y2 + y3 + y4", "fb =~ y1 + y2 + y3 ; y4 ~~ y4"),
        {"levels": True, "cluster": "cluster"},
        "'fw' of level 1 has no counterpart",
    ),
    "other markers": (
        TWO.replace("fb =~ y1 + y2", "fb =~ y2 + y1"),
        {"levels": True, "cluster": "cluster"},
        "not scaled alike",
    ),
    "labels": ("f =~ y1 + a*y2 + y3", {"levels": True, "cluster": "cluster"}, "the label 'a'"),
    "least squares": (
        ONE,
        {"levels": True, "estimator": "ULS", "cluster": "cluster"},
        "compared by their likelihoods",
    ),
    "no such option": (ONE, {"group": "group", "clusters": "cluster"}, "clusters"),
    "nothing to restrict": (
        "f =~ 1*y1 + 1*y2 + 1*y3",
        {"group": "group", "steps": ["configural", "metric"]},
        "restricts nothing",
    ),
}


@pytest.mark.parametrize(("model", "options", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_named(
    grouped: pd.DataFrame, model: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(msem.errors.MsemError, match=message.replace("=", r"\=").replace("...", r"\.\.\.")):
        msem.invariance(model, grouped, **options)


def test_it_prints(demo: pd.DataFrame) -> None:
    found = msem.invariance(ONE, demo, levels=True, cluster="cluster")
    text = str(found)
    assert "Against the model above" in text
    assert "y4~~y4.l2" in text
    assert "<table" in found._repr_html_()
    rows = found.table(apa=True).frame
    assert rows.loc[("Models", "Metric"), ("", "CFI")] == "1.000"
    assert repr(found) == "<msem.Invariance over levels: configural, metric, scalar>"
    of_groups = msem.invariance(ONE, demo.assign(g=demo["cluster"] % 2), group="g", steps="metric")
    with pytest.raises(msem.errors.ModelError, match="levels=True"):
        _ = of_groups.constructs


def test_it_says_what_is_scaled_and_why_columns_are_blank(demo: pd.DataFrame) -> None:
    two = "level: 1\n fw =~ y1 + y2 + y3\nlevel: 2\n fb =~ y1 + y2 + y3"
    halves = demo.assign(half=demo["cluster"] % 2, odd=demo.index % 2)
    robust = msem.invariance(
        two, halves, group="half", cluster="cluster", estimator="MLR", steps=["configural", "metric"]
    )
    said = "Chi-square is scaled, CFI and RMSEA are robust."
    assert said in str(robust)
    assert said in robust.table().notes[0]
    assert said in robust._repr_html_()
    measures = robust.fits["metric"].fit_measures()
    shown = robust.models.loc["metric"]
    assert [shown["chisq"], shown["cfi"], shown["rmsea"]] == list(
        measures[["chisq_scaled", "cfi_robust", "rmsea_robust"]]
    )
    plain = str(msem.invariance(two, halves, group="half", cluster="cluster", steps=["metric"]))
    assert "scaled" not in plain
    assert "Empty" not in plain
    assert "Against" not in plain
    assert "What to free next" in plain
    first = msem.invariance(two, halves, group="half", cluster="cluster", steps=["configural"])
    assert "Empty" not in str(first)
    assert "What to free next" not in str(first)
    assert first._repr_html_().count("<table") == 1
    one = "f =~ y1 + y2 + y3"
    clustered = msem.invariance(one, halves, group="half", cluster="cluster")
    assert np.isnan(clustered.fits["metric"].fit_measures()["baseline_chisq_scaling_factor"])
    assert "No CFI: the scaling factor of the baseline model is not positive." in str(clustered)
    shared = msem.invariance(one, halves, group="odd", cluster="cluster")
    assert shared.models["bic"].isna().all()
    assert "No BIC, and no p-values" in str(shared)
