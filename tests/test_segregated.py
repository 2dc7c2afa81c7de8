"""Each level of a model fitted by itself, from moments: printed numbers, and what must agree with what."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import msem
import texts
from msem.data.complete import SampleStatistics
from msem.errors import DataError, ModelError, UnsupportedError
from msem.estimation.solution import Solution
from msem.fits.segregated import LevelFit
from simulate import two_level

STATISTICS = Path(__file__).parent / "data" / "demo_twolevel_statistics.json"
WITHIN = "fw =~ y1 + y2 + y3\nfw ~ x1 + x2 + x3"
BETWEEN = "fb =~ y1 + y2 + y3\nfb ~ w1 + w2"
MODEL = f"level: 1\n{WITHIN}\nlevel: 2\n{BETWEEN}"
METHODS = ["likelihood", "ml", "uls"]


def standard_error(fit: LevelFit | msem.Fit, op: str, rhs: str, column: str = "se") -> float:
    table = fit.estimates().set_index(["level", "op", "rhs"])
    return float(table.loc[(2, op, rhs), column])


@pytest.fixture(scope="module")
def moments() -> msem.LevelMoments:
    """Saturated moments of the data of the document the package started from."""
    stored = json.loads(STATISTICS.read_text(encoding="utf-8"))
    return msem.saturated(SampleStatistics.from_dict(stored))


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return msem.load_demo()


@pytest.fixture(scope="module")
def demo(frame: pd.DataFrame) -> msem.LevelMoments:
    return msem.sem(MODEL, frame, cluster="cluster").saturated


# -- known numbers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gamma", "op", "rhs", "se"),
    [
        ("observed", "=~", "y2", 0.0523),
        ("observed", "=~", "y3", 0.0479),
        ("observed", "~", "w1", 0.0787),
        ("expected", "=~", "y2", 0.0529),
    ],
)
def test_corrected_standard_errors(
    moments: msem.LevelMoments, gamma: str, op: str, rhs: str, se: float
) -> None:
    fit = msem.segregated(MODEL, moments, method="ml", gamma=gamma)
    assert standard_error(fit.between, op, rhs) == pytest.approx(se, abs=0.5e-4)


def test_naive_standard_errors_are_those_of_the_separate_fits(moments: msem.LevelMoments) -> None:
    fit = msem.segregated(MODEL, moments, method="ml")
    assert standard_error(fit.between, "=~", "y2", "se_naive") == pytest.approx(0.034, abs=0.5e-3)
    assert standard_error(fit.naive.between, "=~", "y2") == standard_error(
        fit.between, "=~", "y2", "se_naive"
    )


@pytest.mark.parametrize("level", [1, 2])
def test_naive_results_are_those_of_a_single_level_fit(moments: msem.LevelMoments, level: int) -> None:
    fit = msem.segregated(MODEL, moments, method="ml").levels[level - 1]
    model, part, nobs = (WITHIN, moments.within, 2300) if level == 1 else (BETWEEN, moments.between, 200)
    alone = msem.sem(
        model,
        sample_cov=part.cov,
        sample_mean=part.mean,
        sample_nobs=nobs,
        sample_cov_rescale=False,
        meanstructure=level == 2,
    )
    key = ["lhs", "op", "rhs"]
    ours, theirs = fit.estimates().set_index(key), alone.estimates().set_index(key)
    ours = ours.loc[theirs.index]
    np.testing.assert_allclose(ours["est"], theirs["est"], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(ours["se_naive"], theirs["se"], rtol=1e-6)
    assert fit.tests.loc["standard", "statistic"] == pytest.approx(alone.chisq, rel=1e-6)
    assert fit.tests.loc["standard", "df"] == alone.df


@pytest.mark.parametrize("sizes", [True, False])
def test_likelihood_estimates_are_near_the_simultaneous_ones(moments: msem.LevelMoments, sizes: bool) -> None:
    given = msem.LevelMoments(
        moments.within.cov,
        moments.between.cov,
        moments.between.mean,
        nobs=2500,
        nclusters=200,
        cluster_sizes=moments.cluster_sizes if sizes else None,
    )
    fit = msem.segregated(MODEL, given)
    assert fit.status == "ok"
    assert standard_error(fit.between, "=~", "y2") == pytest.approx(0.0527, rel=0.04)
    assert fit.between.tests.loc["likelihood_ratio", "df"] == 4
    assert fit.within.tests.loc["likelihood_ratio", "df"] == 6


# -- agreement with other routes -----------------------------------------------------------------------------------

OPEN = texts.COVARIATE
SATURATED = {
    1: "y1 ~~ y1 + y2 + y3 + x1\ny2 ~~ y2 + y3 + x1\ny3 ~~ y3 + x1\nx1 ~~ x1",
    2: "y1 ~~ y1 + y2 + y3 + w1\ny2 ~~ y2 + y3 + w1\ny3 ~~ y3 + w1\nw1 ~~ w1",
}
# Without within-only variables: their cluster means are not in the moments.
SPECIFIED = {1: "fw =~ y1 + a*y2 + a*y3", 2: "fb =~ y1 + y2 + y3\nfb ~ w1"}
FREE = {1: SATURATED[1].replace(" + x1", "").replace("\nx1 ~~ x1", ""), 2: SATURATED[2]}


@pytest.fixture(scope="module")
def balanced() -> pd.DataFrame:
    return simulated(np.random.default_rng(11), [6] * 80)


def simulated(rng: np.random.Generator, sizes: list[int], between: float = 0.8) -> pd.DataFrame:
    """Draw y1-y3 with a factor at each level, x1 within and w1 between; `between` is the level-2 factor variance."""
    loadings = np.array([1.0, 0.8, 0.7])
    within, above = np.eye(4), np.eye(4)
    within[:3, :3] += (1 + 0.25) * np.outer(loadings, loadings)
    within[:3, 3] = within[3, :3] = 0.5 * loadings
    above[:3, :3] = 0.15 * between * np.eye(3) + (between + 0.09) * np.outer(loadings, loadings)
    above[:3, 3] = above[3, :3] = 0.3 * loadings
    unit, cluster = ("y1", "y2", "y3", "x1"), ("w1",)
    return two_level(rng, sizes, within, above, [1.0, 2.0, 3.0, 0.0, 0.0], unit, cluster, nboth=3)


@pytest.mark.parametrize("level", [1, 2])
def test_likelihood_is_the_partially_saturated_fit_when_balanced(balanced: pd.DataFrame, level: int) -> None:
    blocks = {**FREE, level: SPECIFIED[level]}
    model, whole = (f"level: 1\n{text[1]}\nlevel: 2\n{text[2]}" for text in (SPECIFIED, blocks))
    theirs = msem.sem(whole, balanced, cluster="cluster", fixed_x=False, information="expected")
    fit = msem.segregated(model, balanced, cluster="cluster", fixed_x=False).levels[level - 1]
    key = ["level", "lhs", "op", "rhs"]
    ours = fit.estimates().set_index(key)
    same = theirs.estimates().set_index(key).loc[ours.index]
    np.testing.assert_allclose(ours["est"], same["est"], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(ours["se"], same["se"], rtol=1e-7, atol=1e-9)
    statistic, df = fit.tests.loc["likelihood_ratio", ["statistic", "df"]]
    assert statistic == pytest.approx(theirs.chisq, abs=1e-8)
    assert df == theirs.df


def test_both_routes_agree_on_the_same_sample(demo: msem.LevelMoments, frame: pd.DataFrame) -> None:
    from_data = msem.segregated(MODEL, frame, cluster="cluster", method="ml")
    from_moments = msem.segregated(MODEL, demo, method="ml")
    pd.testing.assert_frame_equal(from_data.estimates(), from_moments.estimates())


@pytest.mark.parametrize("method", METHODS)
def test_saved_moments_give_the_same_fit(demo: msem.LevelMoments, method: str, tmp_path: Path) -> None:
    demo.save(tmp_path / "levels.json")
    loaded = msem.LevelMoments.load(tmp_path / "levels.json")
    one, two = (msem.segregated(MODEL, given, method=method) for given in (demo, loaded))
    np.testing.assert_array_equal(one.estimates()["est"], two.estimates()["est"])
    pd.testing.assert_frame_equal(one.estimates(), two.estimates(), rtol=1e-8, check_exact=False)
    pd.testing.assert_frame_equal(one.tests(), two.tests(), rtol=1e-8, check_exact=False)


@pytest.mark.parametrize("method", ["ml", "uls"])
def test_moments_of_more_variables_keep_their_part_of_gamma(
    frame: pd.DataFrame, method: str, tmp_path: Path
) -> None:
    units = [f"y{k}" for k in range(1, 7)]
    larger = msem.saturated(
        frame, cluster="cluster", within=[*units, "x1", "x2", "x3"], between=[*units, "w1", "w2"]
    )
    larger.save(tmp_path / "levels.json")
    fit = msem.segregated(MODEL, larger, method=method)
    loaded = msem.segregated(MODEL, msem.LevelMoments.load(tmp_path / "levels.json"), method=method)
    pd.testing.assert_frame_equal(fit.estimates(), loaded.estimates(), rtol=1e-8, check_exact=False)
    gamma = larger.acov.loc["y1~~y2.l2", "y1~~y2.l2"]
    assert fit.between.moments.acov.loc["y1~~y2.l2", "y1~~y2.l2"] == gamma


def test_a_variable_at_both_levels_may_be_within_only_in_the_model(frame: pd.DataFrame) -> None:
    """The moments are then estimated anew without its between part, as from data."""
    everything = msem.saturated(frame, cluster="cluster")
    assert "x1" in everything.both
    one = msem.segregated(MODEL, everything, method="ml")
    two = msem.segregated(MODEL, frame, cluster="cluster", method="ml")
    pd.testing.assert_frame_equal(one.estimates(), two.estimates(), rtol=1e-6, check_exact=False)


@pytest.mark.parametrize("method", METHODS)
def test_units_do_not_matter(frame: pd.DataFrame, method: str) -> None:
    scaled = frame.assign(y1=frame["y1"] * 1000, y2=500 + 100 * frame["y2"], w1=50 + 10 * frame["w1"])
    one, two = (msem.segregated(MODEL, data, cluster="cluster", method=method) for data in (frame, scaled))
    structure = one.estimates()["op"] != "~1"
    for column in ("z", "pvalue"):
        np.testing.assert_allclose(
            two.estimates()[structure][column], one.estimates()[structure][column], rtol=1e-5, atol=1e-7
        )
    naive = one.estimates()["se_naive"] / one.estimates()["se"]
    np.testing.assert_allclose(
        (two.estimates()["se_naive"] / two.estimates()["se"])[structure], naive[structure], rtol=1e-5
    )
    for column in ("statistic", "df"):
        np.testing.assert_allclose(two.tests()[column], one.tests()[column], rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_saturated_level_fits_perfectly(frame: pd.DataFrame, method: str) -> None:
    text = f"level: 1\n{SATURATED[1]}\nlevel: 2\n{SATURATED[2]}"
    fit = msem.segregated(text, frame, cluster="cluster", method=method)
    tests = fit.tests()
    assert (tests["df"] == 0).all()
    assert (tests["statistic"].abs() < 1e-8).all()
    assert tests["pvalue"].isna().all()
    h1 = fit.between.moments
    est = fit.between.estimates().set_index(["lhs", "op", "rhs"])["est"]
    assert est["y1", "~~", "y2"] == pytest.approx(h1.between.cov.loc["y1", "y2"], rel=1e-6)
    se = fit.between.bse["y1~~y2.l2"]
    kind = "expected" if method == "likelihood" else "observed"
    assert se == pytest.approx(np.sqrt(h1.gamma(kind).loc["y1~~y2.l2", "y1~~y2.l2"]), rel=0.02)


def test_known_gamma_takes_precedence(demo: msem.LevelMoments) -> None:
    carrying = msem.LevelMoments(
        demo.within.cov,
        demo.between.cov,
        demo.between.mean,
        within_mean=demo.within.mean,
        cluster_sizes=demo.cluster_sizes,
        known_acov=4 * demo.acov,
    )
    one, two = (msem.segregated(MODEL, given, method="ml") for given in (demo, carrying))
    np.testing.assert_allclose(two.between.bse, 2 * one.between.bse, rtol=1e-8)
    scaled = [fit.between.tests.loc["mean_scaled", "statistic"] for fit in (one, two)]
    assert scaled[1] == pytest.approx(scaled[0] / 4, rel=1e-8)
    assert two.between.tests.loc["standard", "statistic"] == pytest.approx(
        one.between.tests.loc["standard", "statistic"], rel=1e-12
    )
    np.testing.assert_allclose(two.naive.bse, one.naive.bse, rtol=1e-12)


# -- a between matrix that is not positive definite ----------------------------------------------------------------


@pytest.fixture(scope="module")
def indefinite() -> msem.LevelMoments:
    rng = np.random.default_rng(12)
    data = simulated(rng, rng.integers(3, 12, 60).tolist(), between=0.1)
    return msem.saturated(
        data, cluster="cluster", within=["y1", "y2", "y3", "x1"], between=["y1", "y2", "y3", "w1"]
    )


def test_the_sample_is_one_that_ml_cannot_fit(indefinite: msem.LevelMoments) -> None:
    assert indefinite.between_eigenvalues[0] < -0.01
    with pytest.raises(DataError, match=r'between covariance matrix.*"ml".*"likelihood".*"uls"'):
        msem.segregated(OPEN, indefinite, method="ml")


@pytest.mark.filterwarnings("ignore::msem.errors.ImproperSolutionWarning")
@pytest.mark.parametrize("method", ["likelihood", "uls"])
def test_other_methods_fit_it(indefinite: msem.LevelMoments, method: str) -> None:
    fit = msem.segregated(OPEN, indefinite, method=method)
    assert fit.converged
    assert np.isfinite(fit.bse).all()
    assert np.isfinite(fit.tests().drop("standard", level="test", errors="ignore")["pvalue"]).all()
    assert fit.within.status == "ok"  # the saturated between part is no finding about the within model


@pytest.mark.filterwarnings("ignore::msem.errors.ImproperSolutionWarning")
def test_least_squares_fits_the_indefinite_matrix_itself(indefinite: msem.LevelMoments) -> None:
    text = f"level: 1\n{SATURATED[1]}\nlevel: 2\n{SATURATED[2]}"
    fit = msem.segregated(text, indefinite, method="uls", fixed_x=False).between
    est = fit.estimates().set_index(["lhs", "op", "rhs"])["est"]
    for a in ("y1", "y2", "y3"):
        for b in ("y1", "y2", "y3", "w1"):
            if (a, "~~", b) in est.index:
                assert est[a, "~~", b] == pytest.approx(indefinite.between.cov.loc[a, b], abs=1e-8)


@pytest.mark.filterwarnings("ignore::msem.errors.ImproperSolutionWarning")
def test_fixed_covariates_keep_their_moments_beside_an_indefinite_matrix() -> None:
    names = ["y1", "y2", "y3", "w1", "w2"]
    cov = np.array(
        [
            [0.10, 0.12, 0.05, 0.02, 0.02],
            [0.12, 0.09, 0.06, 0.02, 0.02],
            [0.05, 0.06, 0.08, 0.01, 0.02],
            [0.02, 0.02, 0.01, 0.90, -0.30],
            [0.02, 0.02, 0.02, -0.30, 1.10],
        ]
    )
    given = msem.LevelMoments(
        pd.DataFrame(2 * np.eye(3) + 1, index=names[:3], columns=names[:3]),
        pd.DataFrame(cov, index=names, columns=names),
        nobs=700,
        nclusters=100,
    )
    assert given.between_eigenvalues[0] < 0
    text = "level: 1\nfw =~ y1 + y2 + y3\nlevel: 2\nfb =~ y1 + y2 + y3\nfb ~ w1 + w2"
    est = msem.segregated(text, given, method="uls").estimates().set_index(["level", "lhs", "op", "rhs"])
    assert est.loc[(2, "w1", "~~", "w2"), "est"] == -0.30
    assert est.loc[(2, "w1", "~~", "w1"), "est"] == 0.90


def test_problems_name_the_level_and_are_warned_of_once(indefinite: msem.LevelMoments) -> None:
    with pytest.warns(msem.errors.ImproperSolutionWarning, match="between level") as caught:
        fit = msem.segregated(OPEN, indefinite, method="uls")
    assert len(caught) == len(fit.problems)
    assert {warning.filename for warning in caught} == {__file__}
    assert fit.status == "improper"
    assert "between level" in fit.summary().split("Estimator")[0]


@pytest.mark.filterwarnings("ignore::msem.errors.IdentificationWarning")
@pytest.mark.filterwarnings("ignore::msem.errors.ImproperSolutionWarning")
@pytest.mark.parametrize("method", METHODS)
def test_an_unidentified_level_is_reported_and_leaves_the_other_alone(
    demo: msem.LevelMoments, method: str
) -> None:
    text = f"level: 1\n{WITHIN}\nlevel: 2\nfb =~ y1 + y2 + y3\nfb ~ w1 + w2\ny1 ~~ y2 + y3\ny2 ~~ y3"
    fit = msem.segregated(text, demo, method=method)
    assert fit.between.status == "unidentified"
    assert fit.within.status == "ok"
    assert fit.between.bse.isna().any()
    if method != "likelihood":
        assert fit.between.tests.index.tolist() == ["standard"]
        assert fit.between.tests["pvalue"].isna().all()


# -- refusals ------------------------------------------------------------------------------------------------------


def test_levels_that_share_parameters_are_refused_by_name(demo: msem.LevelMoments) -> None:
    text = "level: 1\nfw =~ y1 + a*y2 + b*y3\nlevel: 2\nfb =~ y1 + a*y2 + b*y3"
    with pytest.raises(UnsupportedError, match=r"share a, b.*msem\.sem"):
        msem.segregated(text, demo)


def test_one_level_is_refused(demo: msem.LevelMoments) -> None:
    with pytest.raises(ModelError, match="'level: 1' and 'level: 2'"):
        msem.segregated("f =~ y1 + y2 + y3", demo)


@pytest.mark.parametrize("fit", [msem.segregated, msem.sem])
def test_moments_that_lack_a_variable_name_it(demo: msem.LevelMoments, fit: object) -> None:
    text = MODEL.replace("x3", "x4")
    with pytest.raises(DataError, match="within covariance matrix has no x4; it has y1, y2, y3, x1, x2, x3"):
        fit(text, demo)  # type: ignore[operator]


def test_a_unit_variable_at_the_between_level_only_is_refused(demo: msem.LevelMoments) -> None:
    text = "level: 1\nfw =~ y1 + y2\nlevel: 2\ny3 ~ w1"
    with pytest.raises(ModelError, match="y3 varies within clusters"):
        msem.segregated(text, demo)


@pytest.mark.parametrize(("option", "value"), [("method", "dwls"), ("gamma", "sandwich")])
def test_options_are_checked(demo: msem.LevelMoments, option: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{option} must be one of .*, not '{value}'"):
        msem.segregated(MODEL, demo, **{option: value})


@pytest.mark.parametrize("method", METHODS)
def test_a_segregated_fit_has_what_a_fit_has(method: str) -> None:
    text = "level: 1\n fw =~ y1 + y2 + y3 + y4\nlevel: 2\n fb =~ y1 + y2 + y3 + y4"
    fit = msem.segregated(text, msem.load_demo(), cluster="cluster", method=method)
    names = fit.params.index
    assert all(isinstance(each, Solution) for each in fit.levels)
    assert_allclose(np.sqrt(np.diag(fit.cov_params().loc[names, names])), fit.bse)
    assert fit.cov_params().loc[fit.within.names, fit.between.names].isna().all(axis=None)
    table = fit.estimates(reference="t").query("se > 0")
    limits = fit.conf_int(reference="t")
    assert_allclose(limits.to_numpy(), table[["ci_lower", "ci_upper"]])
    assert_allclose(fit.tvalues, table["t"])
    assert_allclose(fit.pvalues, fit.estimates().query("se > 0")["pvalue"])
    together = msem.sem(text, msem.load_demo(), cluster="cluster")
    assert (fit.reference_df == together.reference_df[names]).all()
    assert_allclose(fit.estimates(standardized=True)["std_all"], fit.standardized()["est_std"])
    assert fit.within.df == fit.within.tests["df"].iloc[0]
    assert "CFI" in fit.to_html()
    assert "R-Square" in fit.summary(rsquare=True, ci=True)
