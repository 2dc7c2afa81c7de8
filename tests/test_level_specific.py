"""Level-specific fit: partially saturated models, their measures, and where they are not defined."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pandas as pd
import pytest

import msem
import reference
import reference_fits
from msem.errors import ModelError, UnsupportedError
from msem.fits.fit import Fit
from msem.postestimation.fit_indices import rmsea_measures

WITHIN = "level: 1\n fw =~ y1 + y2 + y3\n fw ~ x1 + x2 + x3\n"
BETWEEN = "level: 2\n fb =~ y1 + y2 + y3\n fb ~ w1 + w2\n"
FREE = " y1 ~~ y2 + y3\n y2 ~~ y3\n"
FREE_WITHIN = f"level: 1\n y1 + y2 + y3 ~ x1 + x2 + x3\n{FREE}"
FREE_BETWEEN = f"level: 2\n y1 + y2 + y3 ~ w1 + w2\n{FREE}"
NO_WITHIN = "level: 1\n y1 ~~ y1\n y2 ~~ y2\n y3 ~~ y3\n x1 ~~ x1 + x2 + x3\n x2 ~~ x2 + x3\n x3 ~~ x3\n"


@pytest.fixture(scope="module")
def fit(demo: pd.DataFrame) -> Fit:
    return msem.sem(WITHIN + BETWEEN, demo, cluster="cluster")


@pytest.mark.parametrize(
    ("level", "text"), [(1, WITHIN + FREE_BETWEEN), (2, FREE_WITHIN + BETWEEN)], ids=["within", "between"]
)
def test_chisq_is_that_of_the_model_with_the_other_level_written_out(
    fit: Fit, demo: pd.DataFrame, level: int, text: str
) -> None:
    whole, part = msem.sem(text, demo, cluster="cluster").fit_measures(), fit.fit_measures(level=level)
    for name in ("chisq", "df", "pvalue", "logl", "aic", "bic", "fmin"):
        assert part[name] == pytest.approx(whole[name], rel=1e-8), name
    assert part["srmr"] == pytest.approx(whole[f"srmr_{'within' if level == 1 else 'between'}"], rel=1e-5)


def test_baseline_is_independence_at_the_level_and_the_other_saturated(fit: Fit, demo: pd.DataFrame) -> None:
    whole = msem.sem(NO_WITHIN + FREE_BETWEEN, demo, cluster="cluster", fixed_x=False)
    for name, value in (("chisq", whole.chisq), ("df", 12)):
        assert fit.fit_measures(level=1)[f"baseline_{name}"] == pytest.approx(value, rel=1e-8)
    measures = fit.fit_measures(level="within")
    excess, excess0 = measures["chisq"] - measures["df"], measures["baseline_chisq"] - 12
    assert measures["cfi"] == pytest.approx(1 - max(excess, 0) / excess0, rel=1e-12)
    assert measures["tli"] == pytest.approx(1 - excess / measures["df"] / (excess0 / 12), rel=1e-12)


def test_sample_size_of_rmsea_is_that_of_the_level(fit: Fit) -> None:
    for level, size in ((1, 2500), (2, 200)):
        measures = fit.fit_measures(level=level)
        expected = rmsea_measures(measures["chisq"], measures["df"], size)
        for name, value in expected.items():
            assert measures[name] == pytest.approx(value, nan_ok=True), name


def test_degrees_of_freedom_of_the_levels_add_up(fit: Fit) -> None:
    parts = [fit.fit_measures(level=level) for level in ("within", "between")]
    assert sum(part["df"] for part in parts) == fit.df
    assert sum(part["chisq"] for part in parts) == pytest.approx(fit.chisq, rel=0.05)


def test_moments_give_what_segregated_fits_give(fit: Fit) -> None:
    moments = fit.saturated
    joint, levels = msem.sem(WITHIN + BETWEEN, moments), msem.segregated(WITHIN + BETWEEN, moments)
    for level, part in ((1, levels.within), (2, levels.between)):
        measures, row = joint.fit_measures(level=level), part.tests.iloc[0]
        assert measures["chisq"] == pytest.approx(row["statistic"], rel=1e-6)
        assert measures["df"] == row["df"]


def test_centre_of_a_within_covariate_does_not_matter(fit: Fit, demo: pd.DataFrame) -> None:
    moved = msem.sem(WITHIN + BETWEEN, demo.assign(x1=demo["x1"] + 100), cluster="cluster")
    for level in (1, 2):
        one, other = (found.fit_measures(level=level) for found in (fit, moved))
        assert other["chisq"] == pytest.approx(one["chisq"], abs=1e-6)


def test_saturated_level_fits_perfectly(demo: pd.DataFrame) -> None:
    found = msem.sem(WITHIN + FREE_BETWEEN, demo, cluster="cluster")
    measures = found.fit_measures(level=2)
    assert measures["df"] == 0
    assert measures["chisq"] == pytest.approx(0, abs=1e-6)
    assert measures["rmsea"] == 0
    assert np.isnan(measures["pvalue"])
    assert found.fit_measures(level=1)["chisq"] == pytest.approx(found.chisq, rel=1e-8)


def test_nothing_is_fitted_before_it_is_asked_for(demo: pd.DataFrame) -> None:
    found = msem.sem(WITHIN + BETWEEN, demo, cluster="cluster")
    assert not found.summary().count("Level-specific")
    assert not any("level_fit" in name and "fit(" in name for name in vars(found))
    found.fit_measures(level=1)
    assert [name[-4:] for name in vars(found) if "specific_fit(" in name] == ["(1,)"]
    assert found.level_fit(1) is found.level_fit("within")


def test_fit_that_has_been_shown_goes_when_it_is_let_go(demo: pd.DataFrame) -> None:
    fit = msem.sem(WITHIN + BETWEEN, demo, cluster="cluster", estimator="MLR")
    fit.summary(fit_measures=True, standardized=True, rsquare=True, ci=True)
    fit.fit_measures(level=1)
    known = weakref.ref(fit)
    gc.disable()
    del fit
    gone = known() is None
    gc.enable()
    assert gone


def test_levels_that_share_parameters_have_no_fit_of_their_own(demo: pd.DataFrame) -> None:
    text = (WITHIN + BETWEEN).replace("y1 + y2", "y1 + same * y2")
    found = msem.sem(text, demo, cluster="cluster")
    with pytest.raises(UnsupportedError, match="the levels share same: no level can be saturated"):
        found.fit_measures(level=1)
    assert "Not defined: the levels share same" in found.summary(fit_measures=True)


def test_constraints_across_levels_are_refused_and_those_of_one_level_kept(demo: pd.DataFrame) -> None:
    text = "level: 1\n fw =~ y1 + a*y2 + b*y3\nlevel: 2\n fb =~ y1 + c*y2 + d*y3\n fb ~ w1 + w2\n"
    across = msem.sem(f"{text}a == c", demo, cluster="cluster")
    with pytest.raises(UnsupportedError, match="share a == c"):
        across.fit_measures(level="between")
    inside, free = (msem.sem(text + more, demo, cluster="cluster") for more in ("c == d", ""))
    assert inside.fit_measures(level=2)["df"] == free.fit_measures(level=2)["df"] + 1
    assert inside.fit_measures(level=2)["chisq"] > free.fit_measures(level=2)["chisq"] + 1
    within = "level: 1\n y1 ~~ y1 + y2 + y3\n y2 ~~ y2 + y3\n y3 ~~ y3\n"
    whole = msem.sem(f"{within}level: 2{text.partition('level: 2')[2]}c == d", demo, cluster="cluster")
    assert inside.fit_measures(level=2)["chisq"] == pytest.approx(whole.chisq, rel=1e-6)
    assert inside.fit_measures(level=1)["chisq"] == pytest.approx(0, abs=1e-6)


def test_wrong_level_is_refused(fit: Fit, demo: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="level must be 1 or 'within', 2 or 'between', or 'cluster', not 3"):
        fit.fit_measures(level=3)
    single = msem.sem("f =~ y1 + y2 + y3 + y4", demo)
    with pytest.raises(ModelError, match="need a two-level model"):
        single.fit_measures(level=1)


def test_groups_add_up(demo: pd.DataFrame) -> None:
    text = "level: 1\n fw =~ y1 + y2 + y3 + y4\nlevel: 2\n fb =~ y1 + y2 + y3 + y4\n"
    data = demo.assign(g=np.where(demo["cluster"] % 3 == 0, "a", "b"))
    whole = msem.sem(text, data, cluster="cluster", group="g")
    parts = [msem.sem(text, own, cluster="cluster") for _, own in data.groupby("g")]
    for level in (1, 2):
        measures = whole.fit_measures(level=level)
        each = [part.fit_measures(level=level) for part in parts]
        for name in ("chisq", "df", "baseline_chisq", "baseline_df"):
            assert measures[name] == pytest.approx(sum(one[name] for one in each), rel=1e-6), name


def test_summary_shows_both_levels_side_by_side(fit: Fit) -> None:
    text, html = fit.summary(fit_measures=True), fit._repr_html_()
    _, _, section = text.partition("Level-specific Fit Measures (other level saturated):\n\n")
    lines = section.split("\n\n")[0].splitlines()
    assert lines[0].split() == ["Level", "Within", "Between"]
    both = [fit.fit_measures(level=level) for level in (1, 2)]
    assert lines[1].split()[-2:] == [f"{one['chisq']:.3f}" for one in both]
    assert lines[2].split()[-2:] == ["6", "4"]
    assert lines[-1].split() == ["SRMR", *(f"{one['srmr']:.3f}" for one in both)]
    assert {len(line) for line in lines} == {54}
    assert "<th>Degrees of freedom</th><td>6</td><td>4</td>" in html


def test_small_sample_with_an_indefinite_between_matrix(demo: pd.DataFrame) -> None:
    """The other level starts where it cannot be, and still gets to its maximum."""
    rng = np.random.default_rng(8)
    frame = pd.DataFrame(rng.normal(size=(240, 4)), columns=["y1", "y2", "y3", "y4"])
    frame += np.repeat(0.25 * rng.normal(size=(40, 1)), 6, axis=0) + rng.normal(size=(240, 1))
    frame["cluster"] = np.repeat(np.arange(40), 6)
    text = "level: 1\n fw =~ y1 + y2 + y3 + y4\nlevel: 2\n fb =~ y1 + y2 + y3 + y4\n"
    with pytest.warns(msem.errors.ImproperSolutionWarning):
        found = msem.sem(text, frame, cluster="cluster")
    assert found.saturated.between_eigenvalues[0] < 0
    free = "".join(f" y{i} ~~ y{j}\n" for i in range(1, 5) for j in range(i, 5))
    with pytest.warns(msem.errors.ImproperSolutionWarning):
        written = msem.sem(text.partition("level: 2")[0] + f"level: 2\n{free}", frame, cluster="cluster")
    assert found.fit_measures(level=1)["chisq"] == pytest.approx(written.chisq, rel=1e-6)


def test_robust_measures_are_those_of_the_model_with_the_other_level_written_out(demo: pd.DataFrame) -> None:
    fits = [
        msem.sem(text, demo, cluster="cluster", estimator="MLR")
        for text in (WITHIN + BETWEEN, FREE_WITHIN + BETWEEN)
    ]
    part, whole = fits[0].fit_measures(level=2), fits[1].fit_measures()
    for name in (
        "chisq_scaled",
        "chisq_scaling_factor",
        "pvalue_scaled",
        "scaling_factor_h0",
        "scaling_factor_h1",
    ):
        assert part[name] == pytest.approx(whole[name], rel=1e-5), name
    excess = part["chisq"] - part["chisq_scaling_factor"] * 4
    assert part["rmsea_robust"] == pytest.approx(np.sqrt(excess / 4 / 200))
    null = part["baseline_chisq"] - part["baseline_chisq_scaling_factor"] * 9
    assert part["cfi_robust"] == pytest.approx(1 - excess / null)
    text = fits[0].summary(fit_measures=True).partition("Level-specific")[2]
    assert f"{part['chisq_scaled']:.3f}\n" in text
    assert "Robust RMSEA" in text


def test_summary_of_a_large_robust_fit_does_without_scaling(
    demo: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msem.fits.reporting.SCALED", 10)
    found = msem.sem(WITHIN + BETWEEN, demo, cluster="cluster", estimator="MLR")
    text = found.summary(fit_measures=True).partition("Level-specific")[2]
    assert "Scaled versions: fit_measures(level=...)" in text
    assert "Robust RMSEA" not in text.partition("Parameter Estimates")[0]
    assert "_within_measures" not in vars(found)
    assert np.isfinite(found.fit_measures(level=1)["chisq_scaled"])


# -- segregated fits ---------------------------------------------------------------------------------------------


def test_segregated_likelihood_is_the_partially_saturated_model(fit: Fit) -> None:
    joint = msem.sem(WITHIN + BETWEEN, fit.saturated)
    table = msem.segregated(WITHIN + BETWEEN, fit.saturated).fit_measures()
    for level in ("within", "between"):
        measures = joint.fit_measures(level=level)
        for name in table.index:
            assert table.loc[name, level] == pytest.approx(measures[name], rel=1e-5, abs=1e-7, nan_ok=True), (
                name
            )


@pytest.mark.parametrize("method", ["ml", "uls"])
def test_segregated_discrepancies_have_scaled_measures(fit: Fit, method: str) -> None:
    levels = msem.segregated(WITHIN + BETWEEN, fit.saturated, method=method)
    for part, size in ((levels.within, 2500), (levels.between, 200)):
        measures, test = part.fit_measures(), part.tests.loc["mean_scaled"]
        assert part.fit_baseline is not None
        null = part.fit_baseline().tests.loc["mean_scaled"]
        assert measures["chisq"] == test["statistic"]
        assert measures["df"] == test["df"]
        assert measures["baseline_chisq"] == null["statistic"]
        excess, excess0 = (max(row["statistic"] - row["df"], 0) for row in (test, null))
        assert measures["cfi"] == pytest.approx(1 - excess / excess0)
        assert measures["rmsea"] == pytest.approx(np.sqrt(excess / test["df"] / size))
        likelihood = fit.fit_measures(level=part.level)
        assert measures["srmr"] == pytest.approx(likelihood["srmr"], rel=0.2)
        assert measures["cfi"] == pytest.approx(likelihood["cfi"], abs=0.01)
    text = levels.summary(fit_measures=True)
    assert "Level-specific Fit Measures" in text
    assert "Level-specific Fit Measures" not in levels.summary()


def test_segregated_saturated_level_fits_perfectly(fit: Fit) -> None:
    for method in ("likelihood", "ml", "uls"):
        levels = msem.segregated(WITHIN + FREE_BETWEEN, fit.saturated, method=method)
        measures = levels.between.fit_measures()
        assert measures["df"] == 0
        assert measures["chisq"] == pytest.approx(0, abs=1e-6)
        assert measures["cfi"] == pytest.approx(1, abs=1e-9)


# -- other programs ----------------------------------------------------------------------------------------------


@reference.needs_reference
def test_demo_data_give_what_lavaan_gives() -> None:
    found = reference_fits.fit("demo_twolevel")
    chisq = [found.fit_measures(level=level)["chisq"] for level in (1, 2)]
    np.testing.assert_allclose(chisq, [1.352, 6.656], atol=5e-4)
    assert [found.fit_measures(level=level)["df"] for level in (1, 2)] == [6, 4]


@reference.needs_reference
def test_level_starts_at_the_maximum_of_the_whole_model() -> None:
    """Of two maxima of the between level, the one that the whole model is at."""
    found = reference_fits.fit("demo_partsat_within")
    assert found.fit_measures(level=2)["chisq"] == pytest.approx(found.chisq, rel=1e-6)
