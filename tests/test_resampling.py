"""Bootstrap and jackknife against fits of the resampled rows."""

from __future__ import annotations

import pickle
import warnings
from functools import cache

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

import msem
import texts
from msem import _core
from msem.errors import ConvergenceWarning, DataError, ModelError
from msem.model.partable import Parameter
from msem.resampling.replicates import ordinary_draws

Floats = NDArray[np.float64]

MODEL = texts.COVARIATES
BOTH = """
level: 1
  y1 ~ x4 + x2
level: 2
  y1 ~ x4 + w1
"""
BOUNDED = """
level: 1
  fw =~ y1 + a*y2 + b*y3
level: 2
  fb =~ y1 + a*y2 + b*y3
  y1 ~~ lower(0.05)*y1
"""
SINGLE = """
  f =~ y1 + y2 + y3
  f ~ x1 + w1
"""


def demo() -> pd.DataFrame:
    data = msem.load_demo()
    return data.assign(x4=data["x1"] + 0.6 * data["w2"] + np.sin(data["cluster"]))


@cache
def fitted(model: str, **options: object) -> msem.Fit:
    data = demo()
    cluster = "cluster" if "level" in model else None
    return msem.sem(model, data, cluster=cluster, **options)


def resampled(frame: pd.DataFrame, weights: Floats, cluster: str | None) -> pd.DataFrame:
    if cluster is None:
        return frame.loc[np.repeat(frame.index, weights.astype(int))].reset_index(drop=True)
    parts = [part for _, part in frame.groupby(cluster)]
    drawn = [part for part, w in zip(parts, weights, strict=True) for _ in range(int(w))]
    return pd.concat([part.assign(**{cluster: k}) for k, part in enumerate(drawn)], ignore_index=True)


def robust_errors(fit: msem.Fit) -> Floats:
    """Standard errors from the scores of clusters, to which those of bootstrap and jackknife come close."""
    theta, core = fit.estimate.theta, fit.objective.core
    vcov = np.linalg.inv(core.observed_information(theta))
    outer = np.zeros_like(vcov)
    for g, c in enumerate(fit.sample.clusters):
        scores = c.scores(core, theta, g)
        outer += scores.T @ scores
    return np.sqrt(np.diag(vcov @ outer @ vcov))


CASES = {
    "covariates": (MODEL, {}),
    "covariate at both levels": (BOTH, {}),
    "free covariates": (MODEL, {"fixed_x": False}),
    "shared and bounded": (BOUNDED, {}),
    "one level": (SINGLE, {}),
    "one level with means": (SINGLE, {"meanstructure": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_refits_are_the_fits_of_the_resampled_rows(case: str) -> None:
    model, options = CASES[case]
    fit = fitted(model, **options)
    boot = fit.bootstrap(4, seed=17, threads=1)
    draws = ordinary_draws(fit.estimate, fit.sample, 17)
    cluster = "cluster" if "level" in model else None
    for r in boot.numbers:
        data = resampled(demo(), draws.weights(int(r), 0), cluster)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            again = msem.sem(model, data, cluster=cluster, **options)
        assert_allclose(boot.estimates.loc[r], again.params, rtol=1e-6, atol=1e-7)
        assert boot.chisq[r] == pytest.approx(again.chisq, abs=1e-6)
    assert len(boot.numbers) == 4


def test_groups_are_resampled_each_by_itself() -> None:
    data = demo()
    data["g"] = np.where(data["cluster"] % 3 == 0, "a", "b")
    fit = msem.sem(MODEL, data, cluster="cluster", group="g", group_equal=["loadings"])
    boot, jack = fit.bootstrap(2, seed=5), fit.jackknife()
    draws = ordinary_draws(fit.estimate, fit.sample, 5)
    parts = [data[data["g"] == label] for label in fit.groups]
    counts = [part["cluster"].nunique() for part in parts]
    drawn = [resampled(part, draws.weights(1, g), "cluster") for g, part in enumerate(parts)]
    drawn[1]["cluster"] += 1000
    again = msem.sem(MODEL, pd.concat(drawn), cluster="cluster", group="g", group_equal=["loadings"])
    assert list(again.groups) == list(fit.groups)
    assert_allclose(boot.estimates.loc[1], again.params, rtol=1e-6, atol=1e-7)
    assert jack.counts == tuple(counts)
    one = parts[1]["cluster"].unique()[4]
    left = msem.sem(
        MODEL, data[data["cluster"] != one], cluster="cluster", group="g", group_equal=["loadings"]
    )
    assert_allclose(jack.estimates.loc[(2, one)], left.params, rtol=1e-6, atol=1e-7)
    # independent groups: variances add up over groups
    total = sum(
        (n - 1) / n * ((v := jack.array[jack.group == g]) - v.mean(axis=0)).T @ (v - v.mean(axis=0))
        for g, n in enumerate(counts, 1)
    )
    assert_allclose(jack.cov_params(), total)
    assert_allclose(jack.bse, robust_errors(fit), rtol=0.2)


@pytest.mark.parametrize("case", ["covariates", "covariate at both levels"])
def test_leave_one_out_values_are_fits_without_the_cluster(case: str) -> None:
    model, options = CASES[case]
    fit, data = fitted(model, **options), demo()
    jack = fit.jackknife()
    assert list(jack.estimates.index.get_level_values("cluster")) == list(fit.sample.groups[0].data.clusters)
    for cluster in jack.cluster[[0, 60, 199]]:
        again = msem.sem(model, data[data["cluster"] != cluster], cluster="cluster", **options)
        assert_allclose(jack.estimates.loc[(1, cluster)], again.params, rtol=1e-6, atol=1e-7)


def test_jackknife_is_what_its_formulas_say() -> None:
    jack = fitted(MODEL).jackknife()
    values, n = jack.array, 200
    mean = values.mean(axis=0)
    assert_allclose(jack.bse, np.sqrt((n - 1) / n * ((values - mean) ** 2).sum(axis=0)))
    assert_allclose(jack.bias, (n - 1) * (mean - jack.point))
    influence = mean - values
    expected = (influence**3).sum(axis=0) / (6 * (influence**2).sum(axis=0) ** 1.5)
    assert_allclose(jack.acceleration, expected)
    assert jack.failed.sum() == 0
    assert list(jack.to_frame().columns) == ["name", "level", "group", "est", "bias", "se", "acceleration"]
    assert repr(jack) == "<msem.Jackknife: 200 of 200 refits of 18 statistics>"


def test_rows_left_out_of_one_level_are_numbered() -> None:
    data = demo().iloc[:60]
    jack = msem.sem("y1 ~ x1 + x2", data).jackknife(threads=1)
    assert jack.cluster.tolist() == list(range(60))
    again = msem.sem("y1 ~ x1 + x2", data.drop(index=33))
    assert_allclose(jack.estimates.loc[(1, 33)], again.params, rtol=1e-8)


def test_results_do_not_depend_on_the_number_of_threads_or_replicates() -> None:
    fit = fitted(MODEL)
    for kind in ("ordinary", "parametric"):
        one, four = (fit.bootstrap(60, kind=kind, seed=3, threads=t) for t in (1, 4))
        assert one.array.tobytes() == four.array.tobytes()
        assert fit.bootstrap(25, kind=kind, seed=3).array.tobytes() == one.array[:25].tobytes()
        assert (fit.bootstrap(60, kind=kind, seed=4).array != one.array).all()
    assert fit.jackknife(threads=1).array.tobytes() == fit.jackknife(threads=3).array.tobytes()


def test_a_seed_is_chosen_and_told() -> None:
    fit = fitted(MODEL)
    one = fit.bootstrap(3)
    assert one.seed != fit.bootstrap(3).seed
    assert (fit.bootstrap(3, seed=one.seed).array == one.array).all()


@pytest.mark.parametrize("kind", ["ordinary", "parametric"])
def test_replicates_spread_as_standard_errors_say(kind: str) -> None:
    fit = fitted(MODEL)
    boot = fit.bootstrap(400, kind=kind, seed=1)
    assert boot.failed.sum() == 0
    # the error of a standard deviation of 400 is 4%
    expected = robust_errors(fit) if kind == "ordinary" else fit.bse
    assert_allclose(boot.bse, expected, rtol=0.15)
    assert_allclose(boot.bias / boot.bse, 0, atol=0.3)
    assert_allclose(np.diag(boot.cov_params()), boot.bse**2)


def test_results_can_be_pickled() -> None:
    boot = fitted(MODEL).bootstrap(99, seed=3, statistic="fb =~ y2")
    again = pickle.loads(pickle.dumps(boot))
    assert again.conf_int(kind="bca").equals(boot.conf_int(kind="bca"))
    assert again.jackknife.estimates.equals(boot.jackknife.estimates)


def test_samples_of_groups_are_drawn_from_their_own_moments() -> None:
    data = demo()
    data["g"] = np.where(data["cluster"] % 3 == 0, "a", "b")
    fit = msem.sem(MODEL, data, cluster="cluster", group="g", group_equal=["loadings"])
    boot = fit.bootstrap(300, kind="parametric", seed=2)
    assert boot.failed.sum() == 0
    assert_allclose(boot.bias / boot.bse, 0, atol=0.3)
    assert_allclose(boot.bse, fit.bse, rtol=0.2)
    assert boot.chisq.mean() == pytest.approx(fit.df, abs=5 * np.sqrt(2 * fit.df / 300) + 0.5)
    assert boot.to_frame()["group"].value_counts(dropna=False).to_dict().keys() >= {1, 2}


def test_chi_square_of_parametric_replicates_is_one() -> None:
    fit = fitted(MODEL)
    chisq = fit.bootstrap(400, kind="parametric", seed=1).chisq
    assert chisq.mean() == pytest.approx(fit.df, abs=5 * np.sqrt(2 * fit.df / 400) + 0.3)
    assert chisq.min() > 0


def test_results_show_themselves() -> None:
    fit = fitted(MODEL)
    boot, jack = fit.bootstrap(99, seed=1, statistic="fb =~ y2"), fit.jackknife(statistic=lambda f: f.llf)
    assert str(boot).splitlines()[0] == "Ordinary bootstrap, seed 1: 99 of 99 replicates"
    row = next(line for line in str(boot).splitlines() if line.startswith("fb=~y2.l2")).split()
    assert row[:4] == ["fb=~y2.l2", "2", "1", f"{fit.params['fb=~y2.l2']:.3f}"]
    assert "level" not in str(jack)
    assert "<td>fb=~y2.l2</td>" in boot._repr_html_()
    assert "<table" in jack._repr_html_()
    profile = fit.profile("fb =~ y2")
    assert "level 0.95" in str(profile)
    assert "<td>fb=~y2.l2</td>" in profile._repr_html_()


# -- statistics ----------------------------------------------------------------------------------------------------


def test_parameters_are_chosen_by_name() -> None:
    fit = fitted(MODEL)
    whole = fit.bootstrap(5, seed=2)
    some = fit.bootstrap(5, seed=2, statistic=["fb =~ y2", "fw~x1"])
    assert some.names == ("fb=~y2.l2", "fw~x1")
    assert_allclose(some.array, whole.estimates[["fb=~y2.l2", "fw~x1"]])
    with pytest.raises(ModelError, match="no parameter"):
        fit.bootstrap(5, statistic="fb =~ y9")


def test_functions_of_a_fit_see_the_replicate() -> None:
    fit = fitted(BOTH)

    def explained(f: msem.Fit) -> pd.Series:
        return f.rsquare().set_index("level")["r2"]

    boot = fit.bootstrap(3, seed=8, statistic=explained)
    assert boot.names == ("1", "2")
    assert_allclose(boot.point, explained(fit))
    draws = ordinary_draws(fit.estimate, fit.sample, 8)
    again = msem.sem(BOTH, resampled(demo(), draws.weights(2, 0), "cluster"), cluster="cluster")
    assert_allclose(boot.array[2], explained(again), rtol=1e-6)
    chisq = fit.bootstrap(3, seed=8, statistic=lambda f: f.chisq)
    assert_allclose(chisq.array[:, 0], chisq.chisq, atol=1e-6)
    jack = fit.jackknife(statistic=lambda f: f.params.to_numpy()[:2] ** 2)
    assert_allclose(jack.array, fit.jackknife().array[:, :2] ** 2)


def test_fit_measures_of_replicates_are_those_of_maximum_likelihood() -> None:
    robust, plain = fitted(MODEL, estimator="MLR"), fitted(MODEL)
    boots = [f.bootstrap(3, seed=8, statistic=lambda f: f.fit_measures()["rmsea"]) for f in (robust, plain)]
    assert_allclose(boots[0].array, boots[1].array)
    assert boots[0].point == pytest.approx([plain.fit_measures()["rmsea"]])


def test_statistics_that_are_not_finite_are_counted() -> None:
    fit = fitted(MODEL)
    limit = fit.params["fb~w1.l2"]
    with pytest.warns(ConvergenceWarning, match="statistic not finite"):
        boot = fit.bootstrap(
            30, seed=1, statistic=lambda f: f.params["fb~w1.l2"] if f.params["fb~w1.l2"] <= limit else np.nan
        )
    assert boot.failed["statistic not finite"] == 30 - len(boot.array)
    assert (boot.array <= limit).all()


@pytest.mark.parametrize("value", ["text", np.ones((2, 2)), [], None])
def test_statistics_must_be_numbers(value: object) -> None:
    with pytest.raises(DataError, match="statistic must return"):
        fitted(MODEL).bootstrap(3, statistic=lambda f: value)


# -- failures ------------------------------------------------------------------------------------------------------


def test_failures_are_counted_by_reason() -> None:
    data = demo()
    data = data[data["cluster"].isin(data["cluster"].unique()[::20])]  # 10 clusters
    data["w"] = (data["cluster"] == data["cluster"].iloc[0]).astype(float)
    model = "level: 1\n y1 ~ x1\nlevel: 2\n y1 ~ w"
    fit = msem.sem(model, data, cluster="cluster")
    with pytest.warns(ConvergenceWarning, match="singular covariance matrix"):
        boot = fit.bootstrap(200, seed=1)
    draws = ordinary_draws(fit.estimate, fit.sample, 1)
    weights = np.array([draws.weights(r, 0) for r in range(200)])
    assert boot.failed["singular covariance matrix"] == (weights[:, 0] == 0).sum() > 0
    few = ((weights > 0).sum(axis=1) <= 2).sum()
    assert boot.failed["too few distinct clusters"] == few
    assert boot.failed.sum() == 200 - len(boot.array)
    assert "Failed: singular covariance matrix" in boot.summary()


def test_replicates_of_hardly_any_clusters_have_a_maximum_in_the_cone_only() -> None:
    data = demo()
    data = data[data["cluster"].isin(data["cluster"].unique()[:4])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        text = "level: 1\n y1 ~~ y2\n y3 ~~ y1\nlevel: 2\n y1 ~~ y2\n y3 ~~ y1"
        fit = msem.sem(text, data, cluster="cluster", space="natural")
        assert fit.converged
        with pytest.raises(DataError, match=r"not converged|likelihood unbounded"):
            fit.bootstrap(5, seed=1)
        assert len(msem.sem(text, data, cluster="cluster").bootstrap(5, seed=1).array) > 0


def test_replicates_that_all_fail_are_refused() -> None:
    data = demo()
    data = data[data["cluster"].isin(data["cluster"].unique()[::20])]  # 10 clusters
    data["w"] = (data["cluster"] == data["cluster"].iloc[0]).astype(float)
    fit = msem.sem("level: 1\n y1 ~ x1\nlevel: 2\n y1 ~ w", data, cluster="cluster")
    without = [
        seed
        for seed in range(100)
        if all(ordinary_draws(fit.estimate, fit.sample, seed).weights(r, 0)[0] == 0 for r in range(2))
    ]
    with pytest.raises(DataError, match="singular covariance matrix"):
        fit.bootstrap(2, seed=without[0])


def test_what_is_no_maximum_is_not_resampled() -> None:
    with pytest.warns(ConvergenceWarning):
        fit = msem.sem(MODEL, demo(), cluster="cluster", max_iterations=1)
    for method in (fit.bootstrap, fit.jackknife):
        with pytest.raises(ModelError, match="not converged"):
            method()


def test_no_statistic_is_refused() -> None:
    fit = fitted(MODEL)
    for method in (fit.bootstrap, fit.jackknife):
        with pytest.raises(ValueError, match="no parameter is named"):
            method(statistic=[])


def test_refits_need_raw_data() -> None:
    moments = fitted(MODEL).saturated
    fit = msem.sem(
        MODEL,
        msem.LevelMoments(
            moments.within.cov, moments.between.cov, moments.between.mean, nobs=2500, nclusters=200
        ),
    )
    with pytest.raises(DataError, match=r"no clusters to resample, .* given as moments"):
        fit.bootstrap()
    with pytest.raises(DataError, match="needs raw data"):
        fit.jackknife()
    with pytest.raises(DataError, match="whole clusters"):
        fit.bootstrap(kind="parametric")


def test_one_cluster_in_a_group_is_refused() -> None:
    with pytest.raises(DataError, match="one cluster"):
        msem.sem(MODEL, demo().query("cluster == 1"), cluster="cluster").bootstrap()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"replicates": 1}, "at least 2"),
        ({"replicates": 10.0}, "whole number"),
        ({"replicates": True}, "whole number"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"seed": "1"}, "seed"),
        ({"threads": 0}, "threads"),
        ({"kind": "wild"}, "'ordinary' or 'parametric'"),
    ],
)
def test_settings_are_checked(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fitted(MODEL).bootstrap(**options)


def test_refits_of_another_number_of_groups_are_refused() -> None:
    fit = fitted(MODEL)
    group = fit.sample.groups[0].clusters
    pair = [(group.sizes, group.means, group.within)] * 2
    with pytest.raises(ValueError, match="same groups"):
        fit.objective.plan.fit(_core.OrdinaryDraws(pair, 1), 0, 1)


def test_replicates_of_other_variables_are_refused() -> None:
    fit = fitted(MODEL)
    group = fit.sample.groups[0].clusters
    fewer = [(group.sizes, group.means[:, 1:], group.within)]
    with pytest.raises(ValueError, match="variables of the model"):
        fit.objective.plan.fit(_core.OrdinaryDraws(fewer, 1), 0, 4, 2)


def test_only_fixed_moments_are_filled_in() -> None:
    path = Parameter("y", "~", "x", exo=True)  # which has no value
    block = _core.TableBlock((path,), (0,), ("y", "x"), 2, (), (), 0, ())
    with pytest.raises(ValueError, match="only fixed moments"):
        _core.Plan(0, [block], [([0], 0, [[]])])
