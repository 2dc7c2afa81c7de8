"""Scores and distances given what is observed, held against one dense normal distribution per cluster."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

import msem
import reference
from msem import _core
from msem.data.incomplete import IncompleteClusters
from msem.errors import DataError, ModelError
from msem.postestimation.distances import cluster_distances, unit_distances
from msem.postestimation.posterior import bartlett, group_model, posterior, random_effects
from msem.postestimation.rows import Rows, training_rows
from oracle_scores import Cluster, Moments
from rows import DEMO

pytestmark = pytest.mark.filterwarnings("ignore:.*rows have no")

SIZES = (1, 4, 2, 4, 1, 7, 3, 5, 2)
SHAPES = [
    pytest.param((3, 2, 2, 2, 1), id="both_within_between"),
    pytest.param((4, 4, 0, 1, 2), id="both_only"),
    pytest.param((3, 0, 2, 2, 1), id="within_and_between_only"),
    pytest.param((3, 3, 1, 0, 0), id="no_latent"),
]
PLAIN = """
level: 1
  fw =~ y1 + y2 + y3
  fw ~ x1
level: 2
  fb =~ y1 + y2 + y3
  fb ~ w1
  w2 ~ fb
"""


def positive(rng, n):
    root = rng.normal(size=(n, n))
    return root @ root.T + 0.5 * np.eye(n)


@dataclasses.dataclass
class Draw:
    """Random moments, and data with holes of clusters whose rows are shuffled."""

    moments: Moments
    y: np.ndarray
    z: np.ndarray
    codes: np.ndarray
    fixed_w: tuple
    fixed_b: tuple

    def core(self):
        data = _core.incomplete_data(
            self.columns, [np.ascontiguousarray(c[self.codes]) for c in self.z.T], self.codes, len(self.z),
            self.moments.nboth,
        )  # fmt: skip
        products = _core.cell_products(self.columns, self.codes, data)
        return _core.IncompleteGroup(self.moments.levels, data, products)

    @property
    def columns(self):
        return [np.ascontiguousarray(column) for column in self.y.T]

    def clusters(self):
        for j in range(len(self.z)):
            rows = np.flatnonzero(self.codes == j)
            yield j, rows, Cluster(self.moments, self.y[rows], self.z[j])


def draw(p, nboth, q, latent_w, latent_b, *, seed=1, always=()):
    """Holes anywhere but in the unit-level variables `always`; an empty unit, and clusters without units or z."""
    rng = np.random.default_rng(seed)
    codes = rng.permutation(np.repeat(np.arange(len(SIZES)), SIZES)).astype(np.int64)
    n, j = len(codes), len(SIZES)
    moments = Moments(
        p, nboth, q,
        np.where(np.arange(p + latent_w) < nboth, 0.0, rng.normal(size=p + latent_w)),
        positive(rng, p + latent_w),
        rng.normal(size=nboth + q + latent_b),
        positive(rng, nboth + q + latent_b),
    )  # fmt: skip
    y, z = rng.normal(size=(n, p)) * 2 + 3, rng.normal(size=(j, q))
    holes = rng.random((n, p)) < 0.35
    holes[np.flatnonzero(codes == 5)[2]] = True
    holes[codes == 4] = True
    holes[codes == 7, 0] = True
    holes[:, list(always)] = False
    y[holes] = np.nan
    z[rng.random((j, q)) < 0.3] = np.nan
    z[4], z[3] = 1.5, np.nan
    fixed_w = rng.normal(size=(p, latent_w)), positive(rng, p)
    fixed_b = rng.normal(size=(nboth + q, latent_b)), positive(rng, nboth + q)
    return Draw(moments, y, z, codes, fixed_w, fixed_b)


def close(ours, dense):
    np.testing.assert_allclose(ours, dense, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_posterior_is_the_dense_one(shape):
    d = draw(*shape)
    mean_b, cov_b, which_b = d.core().cluster_posterior()
    mean_w, cov_w, which_w = d.core().unit_posterior(d.columns, d.codes)
    for j, rows, cluster in d.clusters():
        mean, cov = cluster.posterior(cluster.of_cluster())
        close(mean_b[j], mean)
        close(cov_b[which_b[j]], cov)
        for k, i in enumerate(rows):
            mean, cov = cluster.posterior(cluster.of_unit(k))
            close(mean_w[i], mean)
            close(cov_w[which_w[i]], cov)


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_bartlett_scores_are_generalised_least_squares(shape):
    d = draw(*shape)
    mean_b, cov_b, which_b = d.core().cluster_bartlett(*d.fixed_b)
    mean_w, cov_w, which_w = d.core().unit_bartlett(*d.fixed_w, d.columns, d.codes)
    latent_b, latent_w = len(d.fixed_b[0].T), len(d.fixed_w[0].T)
    undetermined = 0
    for j, rows, cluster in d.clusters():
        change, cov = cluster.cluster_bartlett(*d.fixed_b)
        close(mean_b[j], d.moments.mean_b[len(d.moments.mean_b) - latent_b :] + change)
        close(cov_b[which_b[j]], cov)
        for k, i in enumerate(rows):
            change, cov = cluster.unit_bartlett(k, *d.fixed_w)
            close(mean_w[i], d.moments.mean_w[len(d.moments.mean_w) - latent_w :] + change)
            close(cov_w[which_w[i]], cov)
            undetermined += np.isnan(mean_w[i]).any()
    assert 0 < undetermined < len(d.codes)


def test_a_factor_without_indicators_does_not_take_the_other_with_it():
    d = draw(4, 4, 0, 2, 2)
    d.y[d.codes == 5, 2:] = np.nan
    loadings = np.array([[1, 0], [0.8, 0], [0, 1], [0, 0.7]])
    mean_b, _, _ = d.core().cluster_bartlett(loadings, d.fixed_b[1])
    mean_w, _, _ = d.core().unit_bartlett(loadings, d.fixed_w[1], d.columns, d.codes)
    own = d.codes == 5
    assert np.isnan(mean_w[own, 1]).all()
    assert (np.isnan(mean_w[own, 0]) == np.isnan(d.y[own, :2]).all(axis=1)).all()
    np.testing.assert_array_equal(np.isnan(mean_b[5]), [False, True])


def test_latent_variables_without_information_are_refused():
    d = draw(3, 3, 0, 1, 1)
    with pytest.raises(ValueError, match="do not determine"):
        d.core().cluster_bartlett(np.zeros((3, 1)), np.eye(3))
    with pytest.raises(ValueError, match="do not determine"):
        d.core().unit_bartlett(np.zeros((3, 1)), np.eye(3), d.columns, d.codes)


@pytest.mark.parametrize(("unit_x", "cluster_x"), [([], []), ([2], [1]), ([3, 2], [0])])
def test_distances_are_dense_ones_given_the_covariates(unit_x, cluster_x):
    d = draw(4, 2, 2, 1, 1, always=unit_x)
    between, within, between_df, within_df = d.core().cluster_distances(unit_x, cluster_x)
    units, units_df = d.core().unit_distances(unit_x, d.columns, d.codes)
    for j, rows, c in d.clusters():
        of_z = c.unit == c.n
        given = np.where(of_z, np.isin(c.variable, cluster_x), np.isin(c.variable, unit_x))
        close(between[j] + within[j], c.distance(~given, given))
        assert between_df[j] + within_df[j] == (~given).sum()
        exact, df = c.within_distance(unit_x)
        close(within[j], exact)
        assert within_df[j] == df
        for k, i in enumerate(rows):
            own = c.unit == k
            close(units[i], c.distance(own & ~given, ~own | given & own))
            assert units_df[i] == (own & ~given).sum()


def test_covariates_at_both_levels_are_refused():
    with pytest.raises(ValueError, match="within-only"):
        draw(3, 2, 0, 0, 0).core().cluster_distances([1], [])


# ---- fits ------------------------------------------------------------------------------------------------


def incomplete(rows, s):
    """The rows as data that might have holes."""
    codes = rows.data.codes if s.unit else np.arange(rows.data.nobs)
    unit, cluster = ([rows.data.columns[name] for name in names] for names in (s.unit, s.cluster))
    data = _core.incomplete_data(unit, cluster, codes, int(codes.max()) + 1, s.nboth)
    products = _core.cell_products(unit, codes, data) if s.unit else np.empty((0, 0))
    return Rows(rows.data, IncompleteClusters(data, products))


@pytest.mark.parametrize("text", [DEMO, "f =~ y1 + y2 + y3\n f ~ x1\n f ~~ 1*f"], ids=["two", "single"])
def test_complete_data_have_the_scores_they_have_without_holes(demo, text):
    two = text is DEMO
    fit = msem.sem(text, demo, cluster="cluster" if two else None, meanstructure=True)
    model = group_model(fit.objective, fit.estimate.theta)
    rows = training_rows(fit.sample.groups[0])
    other = incomplete(rows, model.statistics)
    for level in model.levels:
        for score in (posterior, bartlett):
            old, new = (
                score(model, rows, level).columns(cov=True),
                score(model, other, level).columns(cov=True),
            )
            assert list(old) == list(new)
            for name in old:
                np.testing.assert_allclose(new[name], old[name], rtol=1e-10, atol=1e-10)
    if two:
        for name, value in random_effects(model, rows, 2).columns().items():
            np.testing.assert_allclose(random_effects(model, other, 2).columns()[name], value, rtol=1e-10)
    for compute in (cluster_distances, unit_distances) if two else (unit_distances,):
        for name, value in compute(model, rows).items():
            np.testing.assert_allclose(compute(model, other)[name], value, rtol=1e-10, atol=1e-10)


def with_holes(demo, seed=3):
    """The demonstration data with holes, empty rows and clusters, and cluster variables known in some rows."""
    rng = np.random.default_rng(seed)
    frame = demo[demo["cluster"] <= 60].reset_index(drop=True)
    for name, share in {"y1": 0.2, "y2": 0.3, "y3": 0.1, "w2": 0.5}.items():
        frame.loc[rng.random(len(frame)) < share, name] = np.nan
    frame.loc[frame["cluster"].isin([5, 12]), "w2"] = np.nan
    frame.loc[frame["cluster"] == 7, ["y1", "y2", "y3"]] = np.nan
    frame.loc[[3, 11], "x1"] = np.nan  # a covariate: left out
    frame.loc[[14, 15], ["y1", "y2", "y3"]] = np.nan
    return frame


def dense_clusters(model, frame, cluster):
    """Ids, rows of the frame and dense distributions of clusters, of rows for a single level."""
    s = model.statistics
    within, between = model.levels[1], model.levels[model.top]
    if not s.unit:
        empty = np.empty(0), np.empty((0, 0))
        moments = Moments(0, 0, len(s.cluster), *empty, between.mean, between.cov)
        for i, row in frame[list(s.cluster)].iterrows():
            yield i, [i], Cluster(moments, np.empty((0, 0)), row.to_numpy())
        return
    moments = Moments(
        len(s.unit), s.nboth, len(s.cluster), within.mean, within.cov, between.mean, between.cov
    )
    for name, part in frame.groupby(cluster):
        z = [part[one].dropna().iloc[0] if part[one].notna().any() else np.nan for one in s.cluster]
        yield name, part.index, Cluster(moments, part[list(s.unit)].to_numpy(), np.array(z))


def usable(frame):
    return frame[frame["x1"].notna()]


def test_fits_score_their_data_and_new_data_given_what_is_observed(demo):
    frame = with_holes(demo)
    fit = msem.sem(PLAIN, frame, cluster="cluster", missing="fiml")
    within, between = fit.factor_scores(1), fit.factor_scores(2)
    effects, table, units = fit.random_effects(), fit.distances(), fit.distances(1)
    assert list(within.index) == list(frame.index)
    assert list(within.index[within["fw"].isna()]) == [3, 11]
    model = group_model(fit.objective, fit.estimate.theta)
    both = len(model.both)
    for name, rows, c in dense_clusters(model, usable(frame), "cluster"):
        mean, cov = c.posterior(c.of_cluster())
        close(effects.loc[name], [*mean[:both], *np.sqrt(np.diag(cov)[:both])])
        close(between.loc[name], [mean[both], np.sqrt(cov[both, both])])
        given = np.array(
            [
                model.statistics.names[v if u < c.n else c.m.p + v] in ("x1", "w1")
                for u, v in zip(c.unit, c.variable, strict=True)
            ]
        )
        close(table.loc[name, ["distance", "df"]], [c.distance(~given, given), (~given).sum()])
        close(table.loc[name, "between"] + table.loc[name, "within"], table.loc[name, "distance"])
        for k, i in enumerate(rows):
            mean, cov = c.posterior(c.of_unit(k))
            close(within.loc[i], [mean[0], np.sqrt(cov[0, 0])])
            own = c.unit == k
            close(
                units.loc[i, ["distance", "df"]],
                [c.distance(own & ~given, ~own | given), (own & ~given).sum()],
            )
    assert units.loc[14, ["distance", "df"]].eq(0).all()
    assert np.isnan(units.loc[14, "pvalue"])


@pytest.mark.parametrize("method", ["EBM", "ML"])
def test_new_data_that_are_the_old_give_the_same(demo, method):
    frame = with_holes(demo)
    fit = msem.sem(PLAIN, frame, cluster="cluster", missing="fiml")
    for level in (1, 2, None):
        old = fit.factor_scores(level, method=method, cov=True)
        pd.testing.assert_frame_equal(fit.factor_scores(level, method=method, cov=True, newdata=frame), old)
    some = frame[frame["cluster"].isin([5, 7])].iloc[::-1]
    for level in (1, 2):
        old = fit.factor_scores(level, method=method)
        new = fit.factor_scores(level, method=method, newdata=some)
        pd.testing.assert_frame_equal(new, old.loc[new.index], rtol=1e-9)
        distances = fit.distances(level, newdata=some)
        pd.testing.assert_frame_equal(distances, fit.distances(level).loc[new.index], rtol=1e-9)


def test_distances_have_the_degrees_of_freedom_that_the_estimates_make_them_have(demo):
    fit = msem.sem(PLAIN, with_holes(demo), cluster="cluster", missing="fiml")
    table = fit.distances()
    # residual variances are free, so the likelihood is at a maximum in the scale of all covariance matrices
    assert table["distance"].sum() == pytest.approx(table["df"].sum(), rel=1e-6)
    np.testing.assert_array_equal(table["between_df"] + table["within_df"], table["df"])
    assert table.loc[7, "within_df"] == 0


def test_bartlett_scores_are_nan_where_nothing_tells_of_them(demo):
    frame = with_holes(demo)
    fit = msem.sem(PLAIN, frame, cluster="cluster", missing="fiml")
    scores = fit.factor_scores(method="ML")
    empty = frame[["y1", "y2", "y3"]].isna().all(axis=1) | frame["x1"].isna()
    assert (scores["fw"].isna() == empty).all()
    silent = fit.factor_scores(2, method="ML", newdata=frame[frame["cluster"] == 7].assign(w2=np.nan))
    assert silent.isna().all(axis=None)
    with pytest.raises(ModelError, match="no observed variable depends on it"):
        msem.sem(
            "level: 1\n f =~ y1 + y2 + y3\nlevel: 2\n g =~ y1 + y2 + y3\n h =~ 1*g\n g ~~ 1*g", frame,
            cluster="cluster", missing="fiml",
        ).factor_scores(2, method="ML")  # fmt: skip


def test_listwise_fits_delete_incomplete_new_rows(demo):
    frame = with_holes(demo)
    fit = msem.sem(PLAIN, demo, cluster="cluster")
    scores = fit.factor_scores(1, newdata=frame)
    complete = frame[["y1", "y2", "y3", "x1", "w1", "w2"]].notna().all(axis=1)
    assert (scores["fw"].notna() == complete).all()
    full = msem.sem(PLAIN, demo, cluster="cluster", missing="fiml")
    assert full.factor_scores(1, newdata=frame)["fw"].notna().sum() == len(usable(frame))


def test_cluster_variables_that_vary_in_new_data_are_refused(demo):
    frame = with_holes(demo)
    fit = msem.sem(PLAIN, frame, cluster="cluster", missing="fiml")
    frame.loc[0, "w2"] = 100.0
    with pytest.raises(DataError, match="w2"):
        fit.factor_scores(newdata=frame)


def test_single_level_scores_and_distances(demo):
    frame = with_holes(demo).head(200)
    fit = msem.sem("f =~ y1 + y2 + y3\n f ~ x1", frame, missing="fiml")
    model = group_model(fit.objective, fit.estimate.theta)
    scores, table = fit.factor_scores(), fit.distances()
    pd.testing.assert_frame_equal(fit.factor_scores(newdata=frame), scores)
    ml = fit.factor_scores(method="ML")
    assert list(scores.index[scores["f"].isna()]) == [3, 11]
    for i, _, c in dense_clusters(model, usable(frame), None):
        mean, cov = c.posterior(c.of_cluster())
        close(scores.loc[i], [mean[0], np.sqrt(cov[0, 0])])
        given = c.variable == model.statistics.cluster.index("x1")
        close(table.loc[i, ["distance", "df"]], [c.distance(~given, given), (~given).sum()])
        m = model.measurement[1]
        change, cov = c.cluster_bartlett(m.loadings, m.residual)
        close(ml.loc[i], [model.levels[1].mean[-1] + change[0], np.sqrt(cov[0, 0])])


def test_single_level_rows_may_come_in_clusters(demo):
    frame = with_holes(demo)
    text = "f =~ y1 + y2 + y3\n f ~ x1"
    fit = msem.sem(text, frame, missing="fiml", cluster="cluster")
    plain = msem.sem(text, frame, missing="fiml")
    pd.testing.assert_frame_equal(fit.factor_scores(), plain.factor_scores(), rtol=1e-6)
    pd.testing.assert_frame_equal(fit.distances(), plain.distances(), rtol=1e-6)


def test_every_group_is_scored_by_its_own_model(demo):
    frame = with_holes(demo).assign(school=lambda d: np.where(d["cluster"] % 2, "north", "south"))
    fit = msem.sem(PLAIN, frame, cluster="cluster", group="school", missing="fiml")
    between, within, units = fit.factor_scores(2), fit.factor_scores(1), fit.distances(1)
    pd.testing.assert_frame_equal(fit.factor_scores(2, newdata=frame), between)
    for number, group in enumerate(fit.sample.groups, 1):
        model = group_model(fit.objective, fit.estimate.theta, number)
        part = usable(frame[frame["school"] == group.label])
        for name, rows, c in dense_clusters(model, part, "cluster"):
            assert between.loc[name, "group"] == group.label
            close(between.loc[name, "fb"], c.posterior(c.of_cluster())[0][-1])
            for k, i in enumerate(rows):
                close(within.loc[i, "fw"], c.posterior(c.of_unit(k))[0][0])
    assert units["df"].dropna().isin([0, 1, 2, 3]).all()


@reference.needs_reference
def test_scores_are_the_exact_ones_of_the_reference():
    data = reference.data("demo_missing")
    text = reference.model("demo_missing")
    fit = msem.sem(text, data, cluster="cluster", missing="fiml", fixed_x=False)
    stored = reference.expected("demo_missing", "brute_scores")
    within, between = stored["level1_first20"], stored["level2_first20"]
    ours = fit.factor_scores(1)["fw"].iloc[:20]
    np.testing.assert_allclose(ours, np.ravel(within["data"]), rtol=1e-4, atol=1e-5)
    ours = fit.factor_scores(2).loc[between["cluster"], "fb"]
    np.testing.assert_allclose(ours, np.ravel(between["data"]), rtol=1e-4, atol=1e-5)
