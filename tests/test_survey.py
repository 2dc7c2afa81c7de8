"""Weights, primary sampling units and strata: repeated rows, R's survey package, and what must be refused."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import msem
import reference
from msem import _core
from msem.errors import DataError, MsemError, UnsupportedError
from msem.estimation.scoreproducts import score_products

CFA = "level: 1\n fw =~ y1 + y2 + y3\n fw ~ x\nlevel: 2\n fb =~ y1 + y2 + y3\n fb ~ z"
GROUPS = "level: 1\n y1 ~ c(a, a)*x\nlevel: 2\n y1 ~ z"


def two_level(seed=3, clusters=40):
    """Clusters of 2 to 7 units; whole weights of units and of clusters, some of them zero."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 8, clusters)
    j = np.repeat(np.arange(clusters), sizes)
    z, f, g = rng.normal(size=clusters), rng.normal(size=len(j)), rng.normal(size=clusters)
    x = rng.normal(size=len(j))
    f, g = f + 0.5 * x, (g + 0.4 * z)[j]
    frame = pd.DataFrame(
        {f"y{k}": f + g + rng.normal(size=len(j)) + rng.normal(size=clusters)[j] for k in (1, 2, 3)}
    )
    w = rng.integers(1, 4, len(j)).astype(float)
    w[5] = 0
    v = rng.integers(1, 4, clusters).astype(float)
    v[4] = 0
    return frame.assign(x=x, z=z[j], school=j, w=w, v=v[j], half=j % 2)


def repeated(frame):
    """The same data without weights: units and clusters as often as they count."""
    parts = []
    for j, part in frame.groupby("school"):
        rows = part.loc[part.index.repeat(part["w"].astype(int))]
        parts += [rows.assign(school=1000 * k + j) for k in range(int(part["v"].iloc[0]))]
    return pd.concat(parts, ignore_index=True)


def with_holes(frame, seed=1):
    rng = np.random.default_rng(seed)
    out = frame.copy()
    for name in ("y1", "y2", "y3"):
        out.loc[rng.random(len(out)) < 0.2, name] = np.nan
    return out


def same_information(one, other):
    """Estimates, and observed information up to the factor that makes weights of clusters add up to their number."""
    np.testing.assert_allclose(one.theta, other.theta, rtol=2e-6, atol=2e-7)
    factor = other.llf / one.llf
    a, b = (f.objective.observed_information(other.theta) for f in (one, other))
    np.testing.assert_allclose(factor * a, b, rtol=1e-7, atol=1e-7 * np.abs(b).max())
    return factor


@pytest.mark.parametrize("missing", ["listwise", "fiml"])
@pytest.mark.parametrize("group", [None, "half"])
def test_whole_weights_are_repeated_units_and_clusters(missing, group):
    data = two_level() if missing == "listwise" else with_holes(two_level())
    model = CFA if group is None else GROUPS
    options = {"cluster": "school", "group": group, "missing": missing}
    weighted = msem.sem(model, data, weights="w", cluster_weights="v", weights_scale="none", **options)
    plain = msem.sem(model, repeated(data), **options)
    factor = same_information(weighted, plain)
    own = data[(data.w > 0) & (data.v > 0)].groupby("school")["v"].first()
    np.testing.assert_allclose(factor, own.mean(), rtol=1e-9)
    np.testing.assert_allclose(factor * weighted.chisq, plain.chisq, rtol=1e-6)
    assert weighted.nobs == ((data.w > 0) & (data.v > 0)).sum()
    np.testing.assert_allclose(weighted.scores().sum(), 0, atol=1e-4)
    np.testing.assert_allclose(weighted.cluster_loglik().sum(), weighted.llf)


@pytest.mark.parametrize("missing", ["listwise", "fiml"])
@pytest.mark.parametrize("cluster", [None, "school"])
def test_whole_weights_are_repeated_rows_of_one_level(missing, cluster):
    data = two_level() if missing == "listwise" else with_holes(two_level())
    data = data[data.w > 0]
    model = "f =~ y1 + y2 + y3\nf ~ x"
    weighted = msem.sem(model, data, weights="w", cluster=cluster, missing=missing)
    rows = data.loc[data.index.repeat(data["w"].astype(int))]
    plain = msem.sem(model, rows, missing=missing, meanstructure=True)
    factor = same_information(weighted, plain)
    np.testing.assert_allclose(factor, data["w"].mean(), rtol=1e-9)
    if cluster is not None:  # sums over clusters are those of repeated rows, weights or not
        both = msem.sem(model, rows, cluster=cluster, missing=missing)
        np.testing.assert_allclose(weighted.vcov, both.vcov, rtol=1e-5)


@pytest.mark.parametrize("missing", ["listwise", "fiml"])
def test_scales_of_weights_within_clusters(missing):
    data = two_level()
    if missing == "fiml":
        data.loc[0, "y1"] = np.nan
    data = data[(data.w > 0) & (data.v > 0)]
    by, fits = data.groupby("school")["w"], {}
    n, total, squares = (
        by.transform("count"),
        by.transform("sum"),
        (data.w**2).groupby(data.school).transform("sum"),
    )
    for scale, own in (("size", data.w * n / total), ("effective", data.w * total / squares)):
        fits[scale] = msem.sem(CFA, data, cluster="school", weights="w", weights_scale=scale, missing=missing)
        given = msem.sem(
            CFA, data.assign(w=own), cluster="school", weights="w", weights_scale="none", missing=missing
        )
        np.testing.assert_allclose(fits[scale].theta, given.theta, rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(fits[scale].vcov, given.vcov, rtol=1e-6, atol=1e-9)
    assert np.abs(fits["size"].theta - fits["effective"].theta).max() > 1e-3
    if missing == "listwise":  # clusters of one size share a row of the statistics
        sizes = fits["size"].statistics.sizes
        assert len(sizes) == data.groupby("school").size().nunique()
    times = data.assign(w=data.w * data.school.map(lambda j: 1 + j % 3), v=7 * data.v)
    one, two = (
        msem.sem(CFA, part, cluster="school", weights="w", cluster_weights="v", missing=missing)
        for part in (data, times)
    )
    np.testing.assert_allclose(one.theta, two.theta, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(one.vcov, two.vcov, rtol=1e-6, atol=1e-9)


def surveyed():
    """20 primary sampling units of three rows in three strata, the same on every machine."""
    k = np.arange(60)
    psu = k // 3 + 1
    h = np.digitize(psu, [8, 14])
    x, w = np.sin(1.7 * k).round(3), (1.6 + np.cos(0.9 * k)).round(2)
    y = (0.5 * x + np.sin(2.3 * psu) + np.cos(5.1 * k) + 0.3 * h).round(3)
    return pd.DataFrame({"psu": psu, "h": h + 1, "x": x, "w": w, "y": y, "f": np.array([0.1, 0.25, 0.4])[h]})


# svyglm(y ~ x) of R's survey 4.1: variances of intercept and slope and their covariance
SURVEY = {
    "strata": ({"psu": "psu", "strata": "h"}, (0.04803698924316, -0.00576354224184, 0.04100011635038), 17),
    "fpc": (
        {"psu": "psu", "strata": "h", "fpc": "f"},
        (0.0373778533957, -0.0055221743343, 0.0316501878659),
        17,
    ),
    "psu": ({"psu": "psu"}, (0.04994850542616, -0.00567080222351, 0.03670604998770), 19),
    "clusters": ({"cluster": "psu"}, (0.04994850542616, -0.00567080222351, 0.03670604998770), 19),
    "centre": (
        {"psu": "psu", "strata": "alone", "single_psu": "centre"},
        (0.05034597556883, -0.00609086532545, 0.04087422485313),
        16,
    ),
    "certainty": (
        {"psu": "psu", "strata": "alone", "single_psu": "certainty"},
        (0.04648280797877, -0.00361190763533, 0.03928350141540),
        16,
    ),
}


@pytest.mark.parametrize("case", SURVEY)
def test_designs_agree_with_survey(case):
    options, expected, df = SURVEY[case]
    data = surveyed().assign(alone=lambda d: d.h.where(d.psu != 20, 4))
    fit = msem.sem("y ~ x", data, weights="w", **options)
    names = ["y~1", "y~x"]
    np.testing.assert_allclose(fit.params[names], [0.372020962186, 0.635176802004], rtol=1e-10)
    found = fit.cov_params().loc[names, names].to_numpy()[np.tril_indices(2)]
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    assert fit.reference_df.max() == df


@pytest.mark.parametrize("count", [0, 1, 3, 4, 9])
def test_range_and_totals_of_weights_are_those_of_all_rows(count):
    weights = np.random.default_rng(count).uniform(0, 5, count)
    assert _core.weight_totals(weights, count, None, None) == pytest.approx(
        (weights.sum(), weights @ weights)
    )
    weights[1::3] = np.nan
    known = weights[~np.isnan(weights)]
    least, greatest = (known.min(), known.max()) if len(known) else (np.inf, -np.inf)
    assert _core.weight_range(weights) == (len(known), least, greatest)


def test_a_subpopulation_keeps_the_units_outside_of_it():
    data = surveyed()
    data.loc[data.psu <= 2, "w"] = 0
    fit = msem.sem("y ~ x", data, weights="w", psu="psu", strata="h")
    found = fit.cov_params().loc[["y~1", "y~x"], ["y~1", "y~x"]].to_numpy()[np.tril_indices(2)]
    np.testing.assert_allclose(found, [0.05302660754622, -0.00522301269016, 0.04694867076496], rtol=1e-8)
    assert (fit.nobs, fit.origin.dropped_zero, fit.reference_df.max()) == (54, 6, 17)
    assert "Rows dropped: weight of zero                       6" in fit.summary()


def test_fractions_may_be_given_as_populations():
    data = surveyed()
    sizes = data.groupby("h")["psu"].nunique() / data.groupby("h")["f"].first()
    one, two = (
        msem.sem("y ~ x", part, weights="w", psu="psu", strata="h", fpc="f")
        for part in (data, data.assign(f=data.h.map(sizes)))
    )
    np.testing.assert_allclose(one.vcov, two.vcov, rtol=1e-12)


def test_units_of_a_design_may_have_clusters_in_several_groups():
    data = two_level()
    data = data[(data.w > 0) & (data.v > 0)].assign(psu=lambda d: d.school // 3, h=lambda d: d.school // 21)
    options = {"cluster": "school", "weights": "w", "cluster_weights": "v", "group": "half"}
    fit = msem.sem(GROUPS, data, psu="psu", strata="h", se="robust", **options)
    scores, ids = fit.scores(), fit.scores().index.get_level_values(-1)
    totals = scores.groupby(np.asarray(ids) // 3).sum()
    meat = 0
    for _, part in totals.groupby(totals.index // 7):
        centred = part - part.mean()
        meat = meat + len(part) / (len(part) - 1) * centred.T.to_numpy() @ centred.to_numpy()
    bread = np.linalg.inv(fit.objective.observed_information(fit.theta))
    np.testing.assert_allclose(fit.vcov, bread @ meat @ bread, rtol=1e-6, atol=1e-10)
    assert fit.reference_df.max() == 14 - 2


SATURATED = "y1 ~~ y2 + y3\ny2 ~~ y3\ny1 ~~ y1\ny2 ~~ y2\ny3 ~~ y3\n"


@pytest.mark.parametrize("estimator", ["ULS", "DWLS", "WLS", "GLS"])
@pytest.mark.parametrize("levels", [1, 2])
def test_least_squares_of_a_saturated_model_has_the_errors_of_maximum_likelihood(estimator, levels):
    data = two_level(clusters=60).assign(h=lambda d: d.school // 20)
    model, options = SATURATED, {"psu": "school", "meanstructure": True}
    if levels == 2:
        model, options = (
            f"level: 1\n{SATURATED}level: 2\n{SATURATED}",
            {"cluster": "school", "cluster_weights": "v"},
        )
    options |= {"weights": "w", "strata": "h"}
    fit = msem.sem(model, data, estimator=estimator, **options)
    other = msem.sem(model, data, estimator="MLR", se="robust", **options)
    np.testing.assert_allclose(fit.theta, other.theta, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(fit.vcov, other.vcov, rtol=1e-5, atol=1e-8)
    assert fit.reference_df.max() == other.reference_df.max()


@pytest.mark.parametrize("estimator", ["WLSMV", "WLS", "GLS"])
def test_least_squares_of_weighted_data_has_scaled_tests_alone(estimator):
    data = two_level(clusters=60)
    fit = msem.sem(
        "f =~ y1 + y2 + y3 + x", data, weights="w", psu="school", estimator=estimator, meanstructure=True
    )
    tests = fit.tests()
    assert np.isfinite(tests["pvalue"].drop("standard")).all()
    assert np.isfinite(tests.loc["standard", "pvalue"]) == (estimator == "WLS")
    assert fit.fit_measures()["chisq_scaled"] > 0


def by_hand(data, value, slope):
    """Covariance matrix of what two groups have by their means of 0 and 1 or of values, by units over both groups."""
    influence = np.zeros((data.school.max() + 1, 2))
    for group in (0, 1):
        part = data[data.half == group]
        rate = np.average(value[part.index], weights=part.w)
        influence[:, group] = np.bincount(
            part.school, part.w * (value[part.index] - rate) / part.w.sum() / slope(rate), len(influence)
        )
    centred = influence - influence.mean(axis=0)
    return len(influence) / (len(influence) - 1) * centred.T @ centred


@pytest.mark.parametrize("role", ["cluster", "psu"])
@pytest.mark.parametrize("estimator", ["MLR", "WLSMV", "WLS", "ordered"])
def test_clusters_of_one_level_may_have_members_in_several_groups(role, estimator):
    data = two_level(clusters=60)
    data = data.assign(half=np.arange(len(data)) % 2, w=data.w + 0.5)
    options = {role: "school", "weights": "w", "group": "half"}
    if estimator == "ordered":
        y = (data.y1 > 0.3).astype(int)
        cut = stats.norm.ppf
        fit = msem.sem(
            "y1 | c(a, b)*t1\ny1 ~~ y2", data.assign(y1=y, y2=data.y2 > 0), ordered=["y1", "y2"], **options
        )
        expected = by_hand(data, 1.0 - y, lambda rate: stats.norm.pdf(cut(rate)))
    else:
        fit = msem.sem("y1 ~ c(a, b)*1\ny1 ~~ y1", data, estimator=estimator, **options)
        expected = by_hand(data, data.y1, lambda rate: 1.0)
    np.testing.assert_allclose(fit.cov_params().loc[["a", "b"], ["a", "b"]], expected, rtol=1e-5)
    assert abs(expected[0, 1]) > 0.1 * expected[0, 0]
    assert "Primary sampling units [school]" in fit.summary()
    with pytest.raises(UnsupportedError, match=r"primary sampling units|least squares"):
        fit.bootstrap(10, seed=1)


def test_few_effective_clusters_bring_the_one_step_jackknife():
    data = two_level()
    data = data[(data.w > 0) & (data.v > 0)].assign(psu=lambda d: d.school // 3, h=lambda d: d.school // 21)
    options = {"cluster": "school", "weights": "w", "cluster_weights": "v", "psu": "psu", "strata": "h"}
    fit = msem.sem(CFA, data, **options)
    assert fit.options.se == "jackknife1"
    assert "One-step jackknife" in fit.summary()
    clusters, theta, step = fit.sample.clusters[0], fit.theta, 1e-5
    up, down = (
        np.stack([fit.objective.scores(theta + sign * step * e, clusters) for e in np.eye(len(theta))])
        for sign in (1, -1)
    )
    parts = ((down - up) / (2 * step)).transpose(1, 2, 0)  # observed information of each cluster
    whole, psu = parts.sum(axis=0), clusters.sampled.psu
    root = np.linalg.cholesky(whole)
    changes = []
    for c in range(14):
        mine = psu == c
        left = np.linalg.solve(root, np.linalg.solve(root, whole - parts[mine].sum(axis=0)).T)
        values, vectors = np.linalg.eigh((left + left.T) / 2)
        score = vectors.T @ np.linalg.solve(root, fit.objective.scores(theta, clusters)[mine].sum(axis=0))
        changes.append(-np.linalg.solve(root.T, vectors @ (score / np.maximum(values, 0.25))))
    wanted = 0
    for part in (np.array(changes[:7]), np.array(changes[7:])):
        centred = part - part.mean(axis=0)
        wanted = wanted + 6 / 7 * centred.T @ centred
    np.testing.assert_allclose(fit.vcov, wanted, rtol=1e-4, atol=1e-6)


def paired(data):
    """Replicate weights of pairs of primary sampling units, jackknife and Fay's, as R's survey has them."""
    half, pair = data.psu % 2 == 0, (data.psu + 1) // 2
    out = {f"r{r}": np.where(pair == r, np.where(half, 2, 0), 1) * data.w for r in range(1, 11)}
    hadamard = np.ones((1, 1))
    for _ in range(4):
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    for r, row in enumerate(hadamard):
        out[f"f{r}"] = np.where((row[pair] > 0) == half, 1.5, 0.5) * data.w
    return data.assign(**out)


# svyglm(y ~ x) with svrepdesign(mse = TRUE)
REPLICATED = {
    "jackknife2": ("r", (0.07919807924892, -0.00808442745824, 0.01296629879364), 9),
    "fay": ("f", (0.07733385369854, -0.00493428250328, 0.01351479764884), 10),
}


@pytest.mark.parametrize("missing", ["listwise", "fiml"])
@pytest.mark.parametrize("how", REPLICATED)
def test_replicate_weights_agree_with_survey(how, missing):
    prefix, expected, df = REPLICATED[how]
    data = paired(surveyed())
    names = [name for name in data if name.startswith(prefix) and name[1:].isdigit()]
    options = {"weights": "w", "replicate_weights": names, "missing": missing}
    fit = msem.sem("y ~ x", data, replicate_scale=how, **options)
    found = fit.cov_params().loc[["y~1", "y~x"], ["y~1", "y~x"]].to_numpy()[np.tril_indices(2)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert fit.options.se == "replicate"
    assert fit.reference_df.max() == df
    # to first order they are the sandwich over the replicates
    one = msem.sem("y ~ x", data, replicate_scale=how, se="robust", **options)
    np.testing.assert_allclose(one.bse, fit.bse, rtol=0.15)
    scale = 1.0 if how == "jackknife2" else 4 / len(names)
    same = msem.sem("y ~ x", data, replicate_scale=scale, **options)
    np.testing.assert_allclose(same.vcov, fit.vcov)


def test_replicate_weights_of_clusters():
    data = two_level()
    data = data[(data.w > 0) & (data.v > 0)]
    weight, ids, names = data.w * data.v, data.school.unique(), []
    for r, j in enumerate(ids):  # each cluster left out once: the jackknife over clusters
        data = data.assign(**{f"r{r}": np.where(data.school == j, 0, 1) * weight})
        names.append(f"r{r}")
    options = {"cluster": "school", "weights": "w", "cluster_weights": "v"}
    fit = msem.sem(CFA, data, replicate_weights=names, replicate_scale="jackknife1", **options)
    for j, change in [(ids[0], 0), (ids[7], 7)]:
        left = msem.sem(CFA, data[data.school != j], se="none", **options)
        one = msem.sem(CFA, data, replicate_weights=[names[change]], replicate_scale=1.0, **options)
        np.testing.assert_allclose(one.bse, np.abs(left.theta - fit.theta), rtol=1e-4, atol=1e-7)
    assert np.isfinite(fit.tests().loc["yuan_bentler_mplus", "pvalue"])
    assert fit.reference_df.max() <= len(ids) - 1


def test_replicate_weights_by_least_squares_are_fits_with_each():
    data = paired(surveyed()).assign(y2=lambda d: np.cos(np.arange(60)) + 0.3 * d.y)
    names = [name for name in data if name.startswith("f") and name[1:].isdigit()]
    fit = msem.sem(
        "y ~ x\ny2 ~ x", data, weights="w", replicate_weights=names, replicate_scale="fay", estimator="ULSMV"
    )
    fits = [msem.sem("y ~ x\ny2 ~ x", data, weights=name, estimator="ULSMV").params for name in names]
    expected = np.sqrt(4 / len(names) * sum((one - fit.params) ** 2 for one in fits))
    np.testing.assert_allclose(fit.bse, expected, rtol=1e-4)


def test_pooled_fits_take_scaled_chi_squares():
    data = paired(surveyed())
    names = [name for name in data if name.startswith("f") and name[1:].isdigit()]
    fits = [
        msem.sem(
            "y ~ x\ny2 ~ 0*x",
            data.assign(y2=np.cos(k * np.arange(60)) + 0.3 * data.y),
            weights="w",
            replicate_weights=names,
            replicate_scale="fay",
        )
        for k in (1, 2)
    ]
    pooled = msem.pool(fits)
    scaled = [fit.fit_measures()["chisq_scaled"] for fit in fits]
    r = 1.5 * np.var(np.sqrt(scaled), ddof=1)
    wanted = (np.mean(scaled) / fits[0].df - 3 * r) / (1 + r)
    np.testing.assert_allclose(pooled.chisq_test(method="D2").statistic, max(wanted, 0))
    with pytest.raises(UnsupportedError, match="D2"):
        pooled.chisq_test()


@pytest.mark.parametrize("levels", [2, 3])
def test_columns_of_weights_and_the_design_are_no_variables(levels):
    frame = two_level().assign(block=lambda d: d["school"] // 5, layer=lambda d: d["school"] // 20)
    names = ["y1", "y2", "y3"]
    options = {"weights": "w", "cluster_weights": "v", "psu": "block", "strata": "layer", "cluster": "school"}
    columns = ["school", *names, "w", "v", "block", "layer"]
    if levels == 3:
        frame = frame.assign(room=3 * frame["school"] + np.arange(len(frame)) % 3, v=1.5)
        options |= {"cluster": ["school", "room"]}
        columns += ["room"]
    found = msem.saturated(frame[columns], space="auto", **options)
    assert [list(one.cov) for one in found.levels] == [names] * levels
    chosen = msem.saturated(frame[columns], space="auto", levels=[names] * levels, **options)
    assert found.vector.equals(chosen.vector)


def test_saturated_moments_carry_the_gamma_of_the_design(tmp_path):
    data = two_level(clusters=60)
    data = data[(data.w > 0) & (data.v > 0)].assign(h=lambda d: d.school // 21)
    options = {"cluster": "school", "weights": "w", "cluster_weights": "v", "strata": "h"}
    moments = msem.saturated(data, within=["y1", "y2"], between=["y1", "y2"], **options)
    text = "level: 1\n y1 ~~ y1 + y2\n y2 ~~ y2\nlevel: 2\n y1 ~~ y1 + y2\n y2 ~~ y2\n y1 ~ 1\n y2 ~ 1"
    fit = msem.sem(text, data, se="robust", **options)
    np.testing.assert_allclose(
        np.sort(moments.acov.to_numpy().diagonal()), np.sort(fit.vcov.diagonal()), rtol=1e-5
    )
    np.testing.assert_allclose(fit.saturated.acov, moments.acov, rtol=1e-9)
    moments.save(tmp_path / "moments.json")
    read = msem.LevelMoments.load(tmp_path / "moments.json")
    assert read.weighted
    np.testing.assert_allclose(read.acov, moments.acov)
    with pytest.raises(DataError, match="weights or a complex design"):
        msem.sem(text, read)
    with pytest.raises(DataError, match="do not carry their Gamma"):
        msem.LevelMoments(read.within_cov, read.between_cov, nobs=200, nclusters=50, weighted=True).acov  # noqa: B018
    model = text.replace("level: 2\n y1 ~~ y1 + y2", "level: 2\n y1 ~~ y1 + 0*y2")
    one, two = msem.segregated(model, read), msem.segregated(model, data, **options)
    np.testing.assert_allclose(one.between.bse, two.between.bse, rtol=1e-6)
    assert "mean_scaled" in one.between.tests.index


def test_no_test_takes_the_sample_for_a_simple_one():
    data = two_level()
    fit = msem.sem(CFA, data, cluster="school", weights="w", cluster_weights="v")
    assert np.isnan(fit.tests().loc["standard", "pvalue"])
    assert np.isfinite(fit.tests().loc["yuan_bentler_mplus", "pvalue"])
    measures = fit.fit_measures()
    assert measures[["pvalue", "baseline_pvalue", "rmsea_pvalue", "bic"]].isna().all()
    assert np.isfinite(measures[["pvalue_scaled", "rmsea_pvalue_scaled", "aic"]]).all()
    np.testing.assert_allclose(fit.aic, -2 * fit.llf + 2 * fit.sampling.trace)
    level = fit.fit_measures(level=2)
    assert level[["pvalue", "rmsea_pvalue", "bic"]].isna().all()
    assert np.isfinite(level["pvalue_scaled"])
    assert fit.score_test(add="y1 ~~ y2", level=1).univariate["pvalue"].isna().all()
    assert np.isfinite(fit.score_test(add="y1 ~~ y2", level=1).univariate["pvalue_robust"]).all()
    text = fit.summary()
    assert "Effective number of clusters [v]" in text
    assert "nan" not in text
    smaller = msem.sem(
        CFA.replace("fw ~ x", "fw ~ 0*x"), data, cluster="school", weights="w", cluster_weights="v"
    )
    compared = msem.compare_models(fit, smaller)
    assert compared["method"].iloc[-1] == "satorra_bentler_2001"
    with pytest.raises(UnsupportedError, match="unscaled tests"):
        msem.compare_models(fit, smaller, method="standard")
    for question in (fit.bootstrap, fit.jackknife, fit.influence, fit.fmi, fit.profile):
        with pytest.raises(UnsupportedError, match="take the sample for a simple one"):
            question()


def test_scores_of_latent_variables_do_not_depend_on_weights():
    data = two_level()
    fit = msem.sem(CFA, data[(data.w > 0) & (data.v > 0)], cluster="school", weights="w", cluster_weights="v")
    given = fit.factor_scores(newdata=data[(data.w > 0) & (data.v > 0)], level=2)
    np.testing.assert_allclose(fit.factor_scores(level=2), given)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"w": -1.0}, {"weights": "w"}, "'w' of weights= is negative in 1 row"),
        ({"w": np.inf}, {"weights": "w"}, "'w' of weights= is infinite in 1 row"),
        ({"w": np.nan}, {"weights": "w"}, "'w' is missing in 1 row.* first in row 7"),
        ({"v": 9.0}, {"cluster_weights": "v"}, "'v' must be the same in all rows of a cluster"),
        ({"v": np.nan}, {"cluster_weights": "v"}, "'v' is missing in 1 row"),
        ({}, {"weights": "none"}, "'none' of weights= is zero in every row"),
        ({}, {"weights": "w1"}, "no column 'w1'"),
        ({"h": 7}, {"strata": "h"}, "in several strata of 'h'"),
        ({"h": np.nan}, {"strata": "h"}, "stratum .'h'. is missing in 1 row"),
        ({}, {"strata": "school"}, "have one primary sampling unit only"),
        ({"psu": 100}, {"psu": "psu"}, "'psu' must be the same in all rows of a cluster"),
        ({"psu": np.nan}, {"psu": "psu"}, "'psu'.* is missing in 1 row"),
        ({}, {"strata": "h", "fpc": "f"}, "sampling fraction of every stratum"),
        ({"f": 8.0}, {"strata": "h", "fpc": "f"}, "same in all rows of a stratum"),
    ],
)
def test_mistakes_are_named(change, options, message):
    data = two_level().assign(none=0.0, psu=lambda d: d.school // 3.0, h=lambda d: d.school // 15.0, f=2.0)
    for name, value in change.items():
        data.loc[7, name] = value
    with pytest.raises(DataError, match=message):
        msem.sem(CFA, data, cluster="school", **options)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"weights": "w", "se": "standard"}, UnsupportedError, "simple one"),
        ({"weights": "w", "se": "bootstrap"}, UnsupportedError, "simple one"),
        ({"weights": "w", "test": "standard"}, UnsupportedError, "simple one"),
        ({"weights": "w", "estimator": "MLF"}, UnsupportedError, "MLF"),
        ({"weights_scale": "none"}, MsemError, "no effect without weights"),
        ({"replicate_scale": "fay"}, MsemError, "no effect without replicate_weights"),
        ({"replicate_weights": ["w"], "replicate_scale": "jk"}, MsemError, "must be one of"),
        ({"replicate_weights": ["w"]}, DataError, "say how the replicate weights were made"),
        (
            {"replicate_weights": ["w", "v"], "replicate_scale": [1, 2, 3]},
            DataError,
            "each of the 2 replicates",
        ),
        ({"replicate_weights": ["w"], "replicate_scale": 1, "strata": "half"}, DataError, "leave out strata"),
        ({"single_psu": "centre"}, MsemError, "no effect without strata"),
        ({"weights": "w", "weights_scale": "cluster"}, MsemError, "must be one of"),
    ],
)
def test_options_that_do_not_go_together(options, kind, message):
    with pytest.raises(kind, match=message):
        msem.sem(CFA, two_level(), cluster="school", **options)


def test_weights_are_columns_of_rows():
    with pytest.raises(DataError, match="cluster_weights= are for models of several levels"):
        msem.sem("y1 ~ x", two_level(), cluster_weights="v")
    with pytest.raises(DataError, match="weights='w' names a column of raw data"):
        msem.sem(
            CFA,
            msem.summarize(two_level()[["y1", "y2", "y3", "x", "z", "school"]], cluster="school"),
            weights="w",
        )


SCALES = {"unscaled": "none", "cluster": "size", "ecluster": "effective"}


@reference.needs_reference
@pytest.mark.parametrize("case", ["w_cfa", "w_regression"])
@pytest.mark.parametrize("block", SCALES)
def test_reference_two_level(case, block):
    meta, expected = reference.meta(case), reference.expected(case, "pseudo_likelihood")[block]
    data, w = reference.data(case), meta["weights"]
    fit = msem.sem(
        reference.model(case),
        data,
        cluster=meta["cluster"],
        weights=w["within"],
        cluster_weights=w["between"],
        weights_scale=SCALES[block],
        se="robust",
    )
    mean = data.groupby(meta["cluster"])[w["between"]].first().mean()
    np.testing.assert_allclose(mean * fit.llf, expected["logl"], rtol=1e-9)
    hold(fit, expected["parameter_table"], 1e-8, 5e-6)


@reference.needs_reference
def test_reference_of_one_level():
    expected = reference.expected("w1_hs_cfa")
    fit = msem.sem(reference.model("w1_hs_cfa"), reference.data("w1_hs_cfa"), weights="wt", estimator="MLR")
    np.testing.assert_allclose(fit.llf, expected["logl"], rtol=1e-10)
    hold(fit, expected["parameter_table"], 2e-6, 5e-6)
    measures = fit.fit_measures()
    for name in ("chisq_scaled", "cfi_robust", "rmsea_scaled", "baseline_chisq_scaled", "srmr"):
        np.testing.assert_allclose(
            measures[name], expected["fit_measures"][name.replace("_", ".")], rtol=2e-5
        )


def hold(fit, rows, estimates, errors):
    table = fit.estimates()
    table = table.assign(key=list(zip(table.lhs, table.op, table.rhs, table.level, strict=True))).set_index(
        "key"
    )
    free = [row for row in rows if row["free"]]
    assert len(free) == fit.npar
    for row in free:
        own = table.loc[[(row["lhs"], row["op"], row["rhs"], row.get("level", 1))]].iloc[0]
        np.testing.assert_allclose(own["est"], row["est"], rtol=estimates, atol=estimates)
        np.testing.assert_allclose(own["se"], row["se"], rtol=errors)


SLOPES = "level: 1\n y1 ~ rv('s')*x\nlevel: 2\n y1 ~ z\n y1 ~~ s"
TWO_OUTCOMES = "level: 1\n y1 ~ rv('s')*x\n y2 ~ x + y1\nlevel: 2\n y1 + y2 ~ z\n y1 ~~ s"


def with_slopes(frame, seed=8):
    """Slopes of x that vary between clusters."""
    rng = np.random.default_rng(seed)
    slopes = rng.normal(size=frame["school"].max() + 1)[frame["school"]]
    return frame.assign(y1=frame["y1"] + 0.8 * slopes * frame["x"])


@pytest.mark.parametrize("missing", ["listwise", "fiml"])
def test_whole_weights_with_random_slopes_are_repeated_units_and_clusters(missing):
    data = with_slopes(two_level(clusters=60))
    if missing == "fiml":
        data = with_holes(data)
    model = SLOPES if missing == "listwise" else TWO_OUTCOMES
    options = {"cluster": "school", "missing": missing}
    weighted = msem.sem(model, data, weights="w", cluster_weights="v", weights_scale="none", **options)
    plain = msem.sem(model, repeated(data), **options)
    factor = same_information(weighted, plain)
    np.testing.assert_allclose(factor * weighted.chisq, plain.chisq, rtol=1e-5)
    scores = weighted.scores().to_numpy()
    np.testing.assert_allclose(scores.sum(axis=0), 0, atol=1e-4)
    inverse = np.linalg.inv(weighted.objective.observed_information(weighted.theta))
    robust = msem.sem(
        model, data, weights="w", cluster_weights="v", weights_scale="none", se="robust", **options
    )
    np.testing.assert_allclose(robust.vcov, inverse @ scores.T @ scores @ inverse, rtol=1e-6, atol=1e-10)


def test_scaled_weights_with_random_slopes_and_a_design():
    data = with_slopes(two_level(clusters=60))
    data = data[(data.w > 0) & (data.v > 0)].assign(region=lambda d: d.school % 4)
    fit = msem.sem(SLOPES, data, cluster="school", weights="w", cluster_weights="v", strata="region")
    total = data.groupby("school")["w"].transform("sum") / data.groupby("school")["w"].transform("count")
    given = msem.sem(
        SLOPES,
        data.assign(w=data.w / total),
        cluster="school",
        weights="w",
        cluster_weights="v",
        strata="region",
        weights_scale="none",
    )
    np.testing.assert_allclose(fit.theta, given.theta, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(fit.vcov, given.vcov, rtol=1e-5, atol=1e-9)
    assert fit.options.se == "jackknife1"
    assert np.isnan(fit.tests().loc["standard", "pvalue"])


@pytest.mark.parametrize("order", ["sorted", "shuffled"])
def test_statistics_of_weighted_clusters_are_weighted_means_and_products(order):
    rng = np.random.default_rng(2)
    codes = np.repeat(np.arange(7), [1, 2, 3, 40, 300, 1, 5])
    w, y = rng.uniform(0.2, 3, len(codes)), rng.normal(size=(len(codes), 3)) + 1e6
    y[codes == 2, 1] = 0.1  # constant in a cluster
    if order == "shuffled":
        at = rng.permutation(len(codes))
        codes, w, y = codes[at], w[at], y[at]
    first = pd.factorize(codes)[0]
    sizes, means, within = _core.cluster_arrays(list(y.T), [], first, 7, w)
    row, col = np.triu_indices(3)
    for j in range(7):
        own, weight = y[first == j], w[first == j]
        mean = np.average(own - 1e6, axis=0, weights=weight)
        off = own - 1e6 - mean
        np.testing.assert_allclose(sizes[j], weight.sum(), rtol=1e-13)
        np.testing.assert_allclose(means[j] - 1e6, mean, atol=1e-9)
        np.testing.assert_allclose(within[j], ((off.T * weight) @ off)[row, col], rtol=1e-7, atol=1e-9)
    constant = pd.unique(first[y[:, 1] == 0.1])
    assert not within[constant, 3].any()


@pytest.mark.parametrize("cluster", ["school", None])
def test_products_of_weighted_clusters_are_those_of_their_scores(cluster):
    rng = np.random.default_rng(4)
    clusters = 400
    code = np.repeat(np.arange(clusters), np.resize([2, 3], clusters))
    f = rng.normal(size=clusters)[code] + rng.normal(size=len(code))
    data = pd.DataFrame({f"y{k}": f + rng.normal(size=len(code)) for k in (1, 2, 3)}).assign(school=code)
    data["w"], data["v"] = rng.uniform(0.3, 3, len(code)), rng.uniform(0.3, 3, clusters)[code]
    if cluster is None:
        fit = msem.sem("f =~ y1 + y2 + y3", data, weights="w")
    else:
        model = "level: 1\n fw =~ y1 + y2 + y3\nlevel: 2\n fb =~ y1 + y2 + y3"
        fit = msem.sem(model, data, cluster=cluster, weights="w", cluster_weights="v")
    assert fit.sample.groups[0].clusters.products is not None
    scores = fit.scores().to_numpy()
    found = score_products(fit.objective, fit.theta, fit.sample.clusters)
    np.testing.assert_allclose(found, scores.T @ scores, rtol=1e-8, atol=1e-8 * np.abs(found).max())
    by_rows = fit.objective.score_products(fit.theta, fit.sample.clusters[0], 1)
    np.testing.assert_allclose(found, by_rows, rtol=1e-8, atol=1e-8 * np.abs(found).max())


def test_many_fits_take_weights_and_give_the_scaled_test():
    data = two_level()
    options = {"cluster": "school", "weights": "w", "cluster_weights": "v"}
    one, many = msem.sem(CFA, data, **options), msem.compile(CFA, **options).fit_many([data, data], threads=1)
    np.testing.assert_allclose(many.params.to_numpy(), [one.theta, one.theta], rtol=1e-9)
    np.testing.assert_allclose(many.bse.to_numpy(), [one.bse, one.bse], rtol=1e-9)
    scaled = one.fit_measures(["chisq_scaled", "pvalue_scaled"])
    for chisq, pvalue in (("chisq", "pvalue"), ("chisq", "chisq_pvalue")):
        frame = many.fits if pvalue == "pvalue" else many.to_frame()
        np.testing.assert_allclose(frame[chisq], scaled["chisq_scaled"])
        np.testing.assert_allclose(frame[pvalue], scaled["pvalue_scaled"])
