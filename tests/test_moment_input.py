"""What goes with moments: whether they are a maximum, what was given, and what is refused."""

import json
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest

import msem
import texts
from msem.errors import ConvergenceWarning, DataError, ModelError

MODEL = texts.DEMO
LEVELS = {"within": ["y1", "y2", "y3", "x1", "x2", "x3"], "between": ["y1", "y2", "y3", "w1", "w2"]}
DATA = msem.load_demo()
FEW = DATA[DATA.cluster.isin(DATA.cluster.unique()[:8])]  # their saturated likelihood has no maximum


def unconverged():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return msem.saturated(FEW, cluster="cluster", space="natural", **LEVELS)


NO_MAXIMUM = unconverged()
CALLS = {
    "sem": lambda: msem.sem(MODEL, FEW, cluster="cluster", space="natural"),
    "sem of moments": lambda: msem.sem(MODEL, NO_MAXIMUM),
    "saturated": lambda: msem.saturated(FEW, cluster="cluster", space="natural", **LEVELS),
    "saturated of statistics": lambda: msem.saturated(NO_MAXIMUM.statistics, space="natural"),
    "segregated of moments": lambda: msem.segregated(MODEL, NO_MAXIMUM),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_warnings_of_the_saturated_model_point_at_the_user(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    about = [w for w in caught if "the saturated model has not converged" in str(w.message)]
    assert len(about) == 1
    assert about[0].category is ConvergenceWarning
    assert {w.filename for w in caught} == {__file__}


@pytest.mark.filterwarnings("ignore::msem.errors.MsemWarning")
def test_nothing_is_tested_against_moments_that_have_not_converged():
    fit, each = (fun(MODEL, NO_MAXIMUM) for fun in (msem.sem, msem.segregated))
    assert np.isnan([fit.chisq, fit.unrestricted_llf, *each.tests().statistic]).all()
    for problems in (fit.problems, each.within.problems, each.between.problems):
        assert "no_chi_square" in [p.name for p in problems]
    assert each.summary().count("the saturated model has not converged") == 1
    assert not fit.saturated.converged


def test_moments_that_have_not_converged_have_no_gamma(tmp_path):
    moments = NO_MAXIMUM
    assert not moments.converged
    assert not moments.restrict(["y1", "y2"], ["y1", "y2"]).converged
    for refused in (
        lambda: moments.acov,
        lambda: moments.gamma("expected"),
        lambda: moments.icc_table(),
        lambda: moments.save(tmp_path / "m.json"),
        lambda: msem.segregated(MODEL, moments, method="uls", gamma="expected"),
    ):
        with pytest.raises(DataError, match=r"the saturated model has not converged.*fewer variables"):
            refused()
    assert not (tmp_path / "m.json").exists()


def test_convergence_is_stored(tmp_path):
    moments = msem.saturated(DATA, cluster="cluster", within=["y1", "y2"], between=["y1", "y2"])
    assert moments.converged
    moments.save(tmp_path / "m.json")
    assert json.loads((tmp_path / "m.json").read_text())["converged"] is True
    assert msem.LevelMoments.load(tmp_path / "m.json").converged


def test_reading_gamma_gives_no_access_to_what_is_stored():
    moments = msem.saturated(DATA, cluster="cluster", within=["y1", "y2"], between=["y1", "y2"])
    before = moments.acov.copy()
    known = moments.with_acov()
    for read in (lambda: moments.acov, lambda: known.acov, lambda: known.gamma()):
        frame = read()
        frame.iloc[0, 0] = 99.0
        assert read().equals(before)


@pytest.mark.parametrize("name", ["within_cov", "between_cov", "within_mean", "between_mean", "known_acov"])
def test_moments_cannot_be_changed(name):
    moments = msem.saturated(DATA, cluster="cluster", **LEVELS).with_acov()
    held = getattr(moments, name)
    before = held.copy()
    with pytest.raises(ValueError, match="read-only"):
        held.iloc[(0,) * held.ndim] = 99.0
    assert getattr(moments, name).equals(before)
    before.iloc[(0,) * held.ndim] = 99.0  # a copy is the user's own


ONE = "fb =~ y1 + y2 + y3"
MATRIX = DATA[["y1", "y2", "y3"]].cov()


@pytest.mark.parametrize("order", [["y1", "y2", "y3"], ["y3", "y1", "y2"]])
def test_a_covariance_matrix_is_not_data(order):
    for call in (
        lambda: msem.sem(ONE, MATRIX.loc[order]),
        lambda: msem.sem(MODEL, MATRIX.loc[order], cluster="y1"),
        lambda: msem.segregated(MODEL, MATRIX.loc[order], cluster="y1"),
        lambda: msem.saturated(MATRIX.loc[order], cluster="y1"),
    ):
        with pytest.raises(DataError, match=r"covariance matrix: give it as sample_cov=.*LevelMoments"):
            call()


def test_square_data_are_data():
    rows = DATA[["y1", "y2", "y3"]].iloc[:3].set_axis(["a", "b", "c"])
    msem.sem("y1 ~ 1", rows)


@pytest.mark.parametrize("frame", [DATA, dict(DATA.items()), pl.DataFrame(dict(DATA.items()))], ids=type)
def test_latent_variables_are_not_columns_of_the_data(frame):
    with pytest.raises(ModelError, match=r"line 2, column 7: 'w1' is a latent variable.*column of the data"):
        msem.sem("y1 ~ y2\nw1 =~ y1 + y2 + y3", frame)
    two = MODEL.replace("fw", "y4")
    for fun in (msem.sem, msem.segregated):
        with pytest.raises(ModelError, match="'y4' is a latent variable"):
            fun(two, frame, cluster="cluster")


UNUSED = {
    "sample_mean": {"sample_mean": DATA[["y1"]].mean()},
    "sample_nobs": {"sample_nobs": 10},
    "sample_cov_rescale": {"sample_cov_rescale": False},
}


@pytest.mark.parametrize(("name", "given"), UNUSED.items(), ids=UNUSED)
def test_arguments_that_go_with_a_matrix_are_refused_without_one(name, given):
    moments = msem.saturated(DATA, cluster="cluster", **LEVELS)
    for call, what in (
        (lambda: msem.sem(MODEL, DATA, cluster="cluster", **given), "data"),
        (lambda: msem.sem(ONE, DATA, **given), "data"),
        (lambda: msem.sem(MODEL, moments, **given), "moments"),
        (lambda: msem.sem(MODEL, moments.statistics, **given), "moments"),
    ):
        with pytest.raises(DataError, match=f"{name} belongs to sample_cov and has no effect on {what}"):
            call()


def test_moments_have_their_clusters():
    moments = msem.saturated(DATA, cluster="cluster", **LEVELS)
    for call in (
        lambda: msem.sem(MODEL, moments, cluster="zzz"),
        lambda: msem.sem(MODEL, moments.statistics, cluster="zzz"),
        lambda: msem.segregated(MODEL, moments, cluster="zzz"),
        lambda: msem.segregated(MODEL, moments.statistics, cluster="zzz"),
        lambda: msem.saturated(moments.statistics, cluster="zzz"),
    ):
        with pytest.raises(DataError, match="cluster='zzz' is for raw data"):
            call()


PAIR = ["y1", "y2"]
SMALL = pd.DataFrame([[2.0, 0.5], [0.5, 2.0]], index=PAIR, columns=PAIR)
TABLE = {4: 9, 5: 3, 7: 8}
EVERY = pd.Series([n for n, j in TABLE.items() for _ in range(j)], index=[f"c{k}" for k in range(20)])
IDS = pd.Series(np.repeat(np.arange(1, 21), EVERY.to_numpy()), name="school")


def sizes_of(given, **known):
    return msem.LevelMoments(SMALL, SMALL, cluster_sizes=given, **known).cluster_sizes


@pytest.mark.parametrize(
    "given",
    [
        EVERY,
        EVERY.value_counts(),
        IDS.value_counts(),
        IDS.groupby(IDS).size(),
        IDS.value_counts().value_counts(),
    ],
    ids=["sizes", "table", "counts by id", "sizes by id", "table of counts"],
)
def test_a_series_of_sizes_is_read_as_the_totals_say(given):
    assert sizes_of(given, nobs=107, nclusters=20) == TABLE
    assert sizes_of(given, nobs=107) == sizes_of(given, nclusters=20) == TABLE
    with pytest.raises(DataError, match="but nclusters is 21"):
        sizes_of(given, nclusters=21)


@pytest.mark.parametrize("given", [EVERY.value_counts(), IDS.value_counts(), IDS.groupby(IDS).size()])
def test_a_series_that_can_be_read_in_two_ways_is_refused(given):
    with pytest.raises(DataError, match=r"two ways: give it as a dict, .to_dict\(\).*list, .to_list\(\)"):
        sizes_of(given)


def test_a_series_that_can_be_read_in_one_way_needs_no_totals():
    assert sizes_of(EVERY) == sizes_of(EVERY.reset_index(drop=True)) == TABLE
    assert sizes_of(pd.Series({4: 9, 5: 3, 6: 0, 7: 8})) == TABLE
    with pytest.raises(DataError, match="cluster_sizes must be whole numbers"):
        sizes_of(EVERY.value_counts(normalize=True))


def test_moments_show_themselves_in_a_line():
    moments = msem.saturated(DATA, cluster="cluster", **LEVELS)
    assert repr(moments) == "<msem.LevelMoments: 6 within, 5 between variables, 2500 units in 200 clusters>"
    assert repr(NO_MAXIMUM).endswith("in 8 clusters, not converged>")


def test_summary_says_that_means_were_not_given(tmp_path):
    text = "level: 1\ny1 ~~ y2\nlevel: 2\ny1 ~~ y2"
    mean = {"y1": 1.0, "y2": 2.0}
    without = msem.LevelMoments(SMALL, SMALL, cluster_sizes=TABLE)
    without.save(tmp_path / "m.json")
    for moments in (without, without.with_acov(), msem.LevelMoments.load(tmp_path / "m.json")):
        for fit in (msem.sem(text, moments), msem.segregated(text, moments)):
            assert "moments with cluster sizes; means not given, taken as 0" in fit.summary()
    for given in ({"between_mean": mean}, {"within_mean": mean}):
        moments = msem.LevelMoments(SMALL, SMALL, cluster_sizes=TABLE, **given)
        for fit in (msem.sem(text, moments), msem.segregated(text, moments)):
            assert "moments with cluster sizes\n" in fit.summary()


def test_all_clusters_may_have_one_size(demo):
    moments = msem.sem("level: 1\n y1 ~ x1\nlevel: 2\n y1 ~ w1", demo, cluster="cluster").saturated
    parts = moments.within.cov, moments.between.cov, moments.between.mean
    for sizes, given in (
        (15, {"nobs": 1500, "nclusters": 100}),
        (np.int64(15), {"nclusters": 100}),
        (15.0, {"nobs": 1500}),
    ):
        found = msem.LevelMoments(*parts, cluster_sizes=sizes, **given)
        assert (found.cluster_sizes, found.nobs, found.nclusters) == ({15: 100}, 1500, 100)
    for given, message in (
        ({}, "nclusters is needed"),
        ({"nobs": 1501}, "does not divide nobs=1501"),
        ({"nobs": 1501, "nclusters": 100}, "nobs is 1501"),
    ):
        with pytest.raises(DataError, match=message):
            msem.LevelMoments(*parts, cluster_sizes=15, **given)
