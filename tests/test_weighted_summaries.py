"""Statistics of weighted rows without the rows: the fits are those of the rows, whatever way the statistics went."""

import json
import re
import warnings

import numpy as np
import pandas as pd
import pytest

import msem
from msem.errors import DataError, MsemError, UnsupportedError

MODEL = "level: 1\n fw =~ y1 + y2 + y3\n fw ~ x\nlevel: 2\n fb =~ y1 + y2 + y3\n fb ~ z"
NAMES = ["y1", "y2", "y3", "x", "z"]
DESIGNS = {
    "units": {"weights": "w"},
    "clusters": {"cluster_weights": "v"},
    "both": {"weights": "w", "cluster_weights": "v"},
    "effective": {"weights": "w", "cluster_weights": "v", "weights_scale": "effective"},
    "none": {"weights": "w", "cluster_weights": "v", "weights_scale": "none"},
    "strata": {"weights": "w", "strata": "stratum"},
    "psu": {"weights": "w", "cluster_weights": "v", "psu": "town", "strata": "stratum", "fpc": "share"},
}


def sample(seed=3, towns=48):
    """Towns of two schools in four strata, weights that some rows and schools have none of, and missing values."""
    rng = np.random.default_rng(seed)
    school = np.repeat(np.arange(2 * towns), rng.integers(2, 8, 2 * towns))
    town, n = school // 2, len(school)
    z, g = rng.normal(size=2 * towns), rng.normal(size=2 * towns) + 0.5 * rng.normal(size=towns).repeat(2)
    x = rng.normal(size=n)
    f = 0.5 * x + rng.normal(size=n) + (g + 0.4 * z)[school]
    frame = pd.DataFrame(
        {f"y{k}": 5 + f + rng.normal(size=n) + rng.normal(size=2 * towns)[school] for k in (1, 2, 3)}
    )
    w, v = rng.uniform(0.5, 3, n), rng.uniform(0.5, 3, 2 * towns)
    w[[4, 40]], v[[6, 9]] = 0, 0
    frame.loc[[2, 70], "y2"] = np.nan
    share = np.array([0.1, 0.3, 0.0, 0.5])
    columns = {
        "x": x,
        "z": z[school],
        "school": school,
        "town": [f"t{k}" for k in town],
        "w": w,
        "v": v[school],
    }
    return frame.assign(**columns, stratum=town % 4, share=share[town % 4])


DATA = sample()


def fit(data, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return msem.sem(MODEL, data, **options)


def same(one, two, rtol=1e-9):
    """Estimates, errors, tests and what the summary says of the sample."""
    np.testing.assert_allclose(one.theta, two.theta, rtol=rtol, atol=1e-10)
    np.testing.assert_allclose(one.estimates()["se"], two.estimates()["se"], rtol=rtol, atol=1e-10)
    np.testing.assert_allclose(one.llf, two.llf, rtol=1e-11)
    pd.testing.assert_frame_equal(one.tests(), two.tests(), rtol=1e-8)
    assert (one.nobs, one.nclusters) == (two.nobs, two.nclusters)
    told = ("Number of", "Effective", "Weights", "Primary", "Strata", "Degrees of freedom of")
    first, second = (
        [row.strip() for row in str(own.summary()).splitlines() if row.strip().startswith(told)]
        for own in (one, two)
    )
    assert first == second


def shuffled(frame):
    return frame.sample(frac=1, random_state=1)


def chunks(frame):
    return (frame.iloc[k : k + 37] for k in range(0, len(frame), 37))


@pytest.mark.parametrize("design", DESIGNS)
def test_fits_are_those_of_the_rows(design, tmp_path):
    options = DESIGNS[design]
    rows = fit(DATA, cluster="school", **options)
    kept = {"cluster": "school", "variables": NAMES, "keep_clusters": True, **options}
    whole = msem.summarize(DATA, **kept)
    same(fit(whole), rows)
    assert whole.dropped_zero == rows.sample.origin.dropped_zero
    assert (whole.dropped, whole.dropped_rows) == (
        rows.sample.origin.dropped,
        rows.sample.origin.dropped_rows,
    )
    mixed = shuffled(DATA)
    same(fit(msem.summarize(chunks(mixed), **kept)), fit(mixed, cluster="school", **options))
    halves = [msem.summarize(mixed[k::2], **kept) for k in (0, 1)]  # most schools are in both
    same(fit(halves[0] + halves[1]), rows)
    for suffix in ("json", "parquet"):
        (halves[0] + halves[1]).save(tmp_path / f"a.{suffix}")
        same(fit(msem.ClusterStatistics.load(tmp_path / f"a.{suffix}")), rows)


@pytest.mark.parametrize("design", ["both", "none"])
def test_without_clusters_there_are_estimates_and_no_errors(design, tmp_path):
    options = DESIGNS[design]
    rows = fit(DATA, cluster="school", **options)
    kept = {"cluster": "school", "variables": NAMES, **options}
    parts = [msem.summarize(DATA[DATA.school % 2 == k], **kept) for k in (0, 1)]
    whole = parts[0] + parts[1]
    own = fit(whole, se="none", test="standard")
    np.testing.assert_allclose(own.theta, rows.theta, rtol=1e-8, atol=1e-9)
    assert own.tests()["pvalue"].isna().all()
    assert not re.search(
        r"P-value[^\n]*\d\.\d", str(own.summary(fit_measures=True)).split("Parameter Estimates")[0]
    )
    with pytest.raises(DataError, match="keep_clusters=True"):
        fit(whole)
    whole.save(tmp_path / "a.parquet")
    again = msem.ClusterStatistics.load(tmp_path / "a.parquet")
    np.testing.assert_array_equal(again.counts, whole.counts)
    assert again.disclosure().equals(whole.disclosure())
    assert whole.disclosure()["nclusters"] == whole.nclusters == rows.nclusters
    moments = msem.saturated(again)
    assert moments.weighted
    with pytest.raises(DataError, match="keep_clusters=True"):
        moments.gamma()
    with pytest.raises(DataError, match="without"):
        moments.save(tmp_path / "m.json")


def test_saturated_moments_carry_their_gamma_and_levels_are_fitted_to_them(tmp_path):
    options = DESIGNS["psu"]
    both = {"within": NAMES[:3], "between": NAMES[:3]}
    rows = msem.saturated(DATA.dropna(), cluster="school", **both, **options)
    kept = msem.summarize(DATA.dropna(), cluster="school", variables=NAMES, keep_clusters=True, **options)
    own = msem.saturated(kept, **both)
    np.testing.assert_allclose(own.acov, rows.acov, rtol=1e-7, atol=1e-10)
    own.save(tmp_path / "m.json")
    loaded = msem.LevelMoments.load(tmp_path / "m.json")
    assert loaded.weighted
    model = "level: 1\n fw =~ y1 + y2 + y3\nlevel: 2\n fb =~ y1 + y2 + y3"
    fits = [
        msem.segregated(model, loaded, method="ml"),
        msem.segregated(model, kept, method="ml"),
        msem.segregated(model, DATA.dropna(), cluster="school", method="ml", **options),
    ]
    for one in fits[:2]:
        np.testing.assert_allclose(one.estimates()["se"], fits[2].estimates()["se"], rtol=1e-6)


def test_groups_share_the_scale_of_weights_and_the_design():
    data = DATA.assign(side=np.where(DATA.school % 2, "b", "a"))
    options = DESIGNS["psu"]
    model = "level: 1\n y1 ~ c(a, a)*x\nlevel: 2\n y1 ~ z"
    parts = {
        label: msem.summarize(part, cluster="school", variables=NAMES, keep_clusters=True, **options)
        for label, part in data.dropna().groupby("side")
    }
    rows = msem.sem(model, data.dropna(), cluster="school", group="side", **options)
    own = msem.sem(model, parts)
    np.testing.assert_allclose(own.theta, rows.theta, rtol=1e-8)
    np.testing.assert_allclose(own.estimates()["se"], rows.estimates()["se"], rtol=1e-8, atol=1e-10)
    with pytest.raises(DataError, match="weights or a design, and others are not"):
        msem.sem(model, parts | {"b": msem.summarize(data, cluster="school", variables=NAMES)})


@pytest.mark.parametrize("scale", ["size", "effective", "none"])
def test_one_level(scale):
    options = {"weights": "w", "strata": "stratum", "weights_scale": scale}
    model = "f =~ y1 + y2 + y3\nf ~ x"
    kept = {"cluster": "school", "variables": NAMES, **options}
    rows = msem.sem(model, DATA.dropna(), cluster="school", **options)
    own = msem.sem(model, msem.summarize(DATA.dropna(), keep_clusters=True, **kept))
    np.testing.assert_allclose(own.theta, rows.theta, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(own.estimates()["se"], rows.estimates()["se"], rtol=1e-8, atol=1e-10)
    with pytest.raises(DataError, match="two-level models"):
        msem.sem(model, msem.summarize(DATA, cluster="school", variables=NAMES, cluster_weights="v"))


def test_random_slopes():
    model = 'level: 1\n y1 ~ rv("s")*x\nlevel: 2\n y1 ~ z\n s ~ z\n y1 ~~ s'
    options = DESIGNS["both"]
    rows = msem.sem(model, DATA.dropna(), cluster="school", **options)
    kept = msem.summarize(DATA.dropna(), cluster="school", variables=NAMES, keep_clusters=True, **options)
    own = msem.sem(model, kept)
    np.testing.assert_allclose(own.theta, rows.theta, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(own.estimates()["se"], rows.estimates()["se"], rtol=1e-6, atol=1e-8)


def test_damage_is_noticed(tmp_path):
    kept = msem.summarize(DATA, cluster="school", variables=NAMES, keep_clusters=True, **DESIGNS["psu"])
    path = tmp_path / "a.json"
    kept.save(path)
    content = json.loads(path.read_text())
    content["content"]["weights"][0] *= 2
    path.write_text(json.dumps(content))
    with pytest.raises(DataError):
        msem.ClusterStatistics.load(path)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"w": -1.0}, {"weights": "w"}, "'w' of weights= is negative"),
        ({"w": np.nan}, {"weights": "w"}, "'w' is missing in 1 row"),
        ({"v": 9.0}, {"cluster_weights": "v"}, "'v' must be the same in all rows of a cluster"),
        ({"town": "t9"}, {"weights": "w", "psu": "town"}, "'town' must be the same in all rows of a cluster"),
        ({"stratum": 3}, {"psu": "town", "strata": "stratum"}, "in several strata of 'stratum'"),
        ({"share": 0.9}, {"strata": "stratum", "fpc": "share"}, "fpc='share' must be there and the same"),
    ],
)
def test_mistakes_are_named_whatever_piece_they_are_in(change, options, message):
    data = DATA.copy()
    row = 100
    for name, value in change.items():
        data.loc[row, name] = value
    for pieces in (data, chunks(data)):
        with pytest.raises(DataError, match=message):
            msem.summarize(pieces, cluster="school", variables=NAMES, keep_clusters=True, **options)


def test_what_does_not_go_together():
    kept = {"cluster": "school", "variables": NAMES}
    weighted = msem.summarize(DATA[DATA.school < 9], weights="w", **kept)
    with pytest.raises(DataError, match="summarize all with the same options"):
        weighted + msem.summarize(DATA[DATA.school >= 9], **kept)
    with pytest.raises(DataError, match="weights_scale='size' and weights_scale='none'"):
        weighted + msem.summarize(DATA[DATA.school >= 9], weights="w", weights_scale="none", **kept)
    with pytest.raises(MsemError, match="no effect without weights="):
        msem.summarize(DATA, weights_scale="none", **kept)
    with pytest.raises(DataError, match="names a column of raw data"):
        fit(weighted, weights="w")
    with pytest.raises(DataError, match="replicate_weights=\\['w'\\] names a column of raw data"):
        fit(weighted, replicate_weights=["w"], replicate_scale="fay")
    with pytest.raises(DataError, match="zero in every row"):
        msem.summarize(DATA.assign(w=0.0), weights="w", **kept)
    with pytest.raises(UnsupportedError, match="penalty= is not available with weights"):
        fit(msem.summarize(DATA, weights="w", keep_clusters=True, **kept), penalty="between")
    alone = DATA.assign(stratum=np.where(DATA.town == "t0", 9, DATA.stratum))
    one = msem.summarize(alone, psu="town", strata="stratum", keep_clusters=True, **kept)
    with pytest.raises(DataError, match="one primary sampling unit only"):
        fit(one)


def test_dask():
    dd = pytest.importorskip("dask.dataframe")
    options = DESIGNS["both"]
    frame = dd.from_pandas(DATA, npartitions=3)
    own = msem.summarize(frame, cluster="school", variables=NAMES, keep_clusters=True, **options)
    same(fit(own), fit(DATA, cluster="school", **options))


def test_means_of_clusters_alone_are_not_shared_with_weights() -> None:
    data = msem.load_demo().assign(weight=1.0)
    with pytest.raises(DataError, match='keep_clusters="means" is not available with weights'):
        msem.summarize(data, cluster="cluster", variables=["y1"], weights="weight", keep_clusters="means")
