"""Moments of three levels: saturated estimates, their Gamma, what is fitted to them, files, and what may be wrong."""

from __future__ import annotations

import functools
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import msem
import oracle
import three_levels
from msem.data.arrays import unvech, vech
from msem.data.checks import matching_names
from msem.data.shapes import average_shapes, rounded_shapes, total
from msem.errors import DataError, ImproperSolutionWarning, ModelError, MsemError, UnsupportedError
from msem.language.syntax import parse
from msem.model.partable import parameter_table

CLUSTER = three_levels.CLUSTER
LEVELS = [["y1", "y2", "x"], ["y1", "y2", "w"], ["y1", "y2", "v"]]
MODEL = """
level: 1
  fw =~ y1 + y2 + y3
level: 2
  fc =~ y1 + a*y2 + a*y3
level: 3
  fs =~ y1 + b*y2 + b*y3
  fs ~ v
"""


def simulated(
    classes: int | tuple[int, int], pupils: int | tuple[int, int], nschools: int = 60
) -> pd.DataFrame:
    """Outcomes with a factor at each level, in equal classes of equal schools or not."""
    rng = np.random.default_rng(5)

    def sizes(n: int, of: int | tuple[int, int]) -> Any:
        return np.full(n, of) if isinstance(of, int) else rng.integers(of[0], of[1] + 1, n)

    school = np.repeat(np.arange(nschools), sizes(nschools, classes))
    of_class = np.repeat(np.arange(len(school)), sizes(len(school), pupils))
    v, loading = rng.normal(size=nschools), np.array([1, 0.8, 0.8])
    y = rng.normal(size=(len(of_class), 1)) * [1, 0.9, 0.7] + 0.8 * rng.normal(size=(len(of_class), 3))
    y += (rng.normal(size=(len(school), 1)) * loading + 0.5 * rng.normal(size=(len(school), 3)))[of_class]
    top = (0.5 * v + rng.normal(size=nschools))[:, None] * loading + 0.6 * rng.normal(size=(nschools, 3))
    out = pd.DataFrame(y + top[school[of_class]] + [2, 0, -1], columns=["y1", "y2", "y3"])
    out["v"], out["school"] = v[school[of_class]], school[of_class]
    out["class"] = (np.arange(len(school)) - np.searchsorted(school, school))[of_class]
    return out


VARIABLES = [["y1", "y2", "y3"], ["y1", "y2", "y3"], ["y1", "y2", "y3", "v"]]


@functools.cache
def balanced() -> tuple[msem.Fit, msem.LevelMoments]:
    data = simulated(3, 4)
    moments = msem.saturated(data, cluster=CLUSTER, levels=VARIABLES)
    return msem.sem(MODEL, data, cluster=CLUSTER), moments


@functools.cache
def unequal() -> msem.LevelMoments:
    return msem.saturated(simulated((2, 4), (4, 8), 80), cluster=CLUSTER, levels=VARIABLES)


@functools.cache
def fitting() -> msem.LevelMoments:
    """Moments that the model implies, so that it fits each of the matrices."""
    fit = msem.sem(MODEL, published(unequal()))
    covs = [fit.implied[level].cov.loc[own, own] for level, own in enumerate(VARIABLES, 1)]
    means = fit.implied[3].mean[VARIABLES[2]]
    return msem.LevelMoments.of_levels(covs, means, cluster_sizes=unequal().cluster_sizes)


def published(moments: msem.LevelMoments, **options: Any) -> msem.LevelMoments:
    """The moments without the data."""
    covs = [one.cov for one in moments.levels]
    given = {"cluster_sizes": moments.cluster_sizes} | options
    return msem.LevelMoments.of_levels(covs, moments.means, **given)


class Saturated(three_levels.Case):
    """The dense densities of schools as functions of saturated moments."""

    def __init__(self, moments: msem.LevelMoments, data: pd.DataFrame):
        model = "\n".join(
            f"level: {k}\n" + "\n".join(f"{a} ~~ {b}" for a in own for b in own)
            for k, own in enumerate(LEVELS, 1)
        )
        self.known = moments
        self.data = data
        self.table = parameter_table(parse(model), fixed_x=False)
        self.schools = [part for _, part in data.groupby("school", sort=False)]
        self.designs = {}
        self.near = moments.vector.to_numpy()

    def moments(self, theta: Any) -> Any:
        variables, out, at = self.known.variables, [], 0
        first = sum(len(own) * (len(own) + 1) // 2 for own in variables.levels)
        place = {name: k for k, name in enumerate(variables.names, first)}
        for level, own in enumerate(variables.levels, 1):
            n = len(own) * (len(own) + 1) // 2
            cov = unvech(theta[at : at + n].real, len(own)) + 1j * unvech(theta[at : at + n].imag, len(own))
            mean = np.array([theta[place[v]] if variables.top(v) == level else 0 for v in own])
            out.append((list(own), mean, cov if np.iscomplexobj(theta) else cov.real, {}))
            at += n
        return out


@functools.cache
def dense(*, holes: bool) -> tuple[msem.LevelMoments, Saturated]:
    data = three_levels.sample("all kinds", 2, 25)
    if holes:
        data = three_levels.with_holes(data, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        moments = msem.saturated(
            data, cluster=CLUSTER, levels=LEVELS, missing="fiml" if holes else "listwise"
        )
    assert moments.converged
    return moments, Saturated(moments, data)


@pytest.mark.parametrize("holes", [False, True])
def test_moments_and_their_information_are_those_of_dense_densities(holes: bool) -> None:
    moments, case = dense(holes=holes)
    assert moments.incomplete == holes
    theta = case.near
    assert case.logliks(theta).sum() == pytest.approx(moments.llf, rel=1e-10)
    information = moments.information().to_numpy()
    assert_allclose(information @ moments.acov.to_numpy(), np.eye(len(theta)), atol=1e-8)
    scale = 1 / np.sqrt(information.diagonal())
    rng, step = np.random.default_rng(1), 1e-4
    for direction in rng.normal(size=(3, len(theta))) * scale:

        def slope(at: Any, direction: Any = direction) -> float:
            return float(case.logliks(at + 1e-20j * direction).sum().imag / 1e-20)

        assert slope(theta) == pytest.approx(0, abs=1e-4)
        curvature = (slope(theta - step * direction) - slope(theta + step * direction)) / (2 * step)
        assert direction @ information @ direction == pytest.approx(curvature, rel=1e-5)


def test_expected_gamma_is_that_of_dense_densities() -> None:
    moments, case = dense(holes=False)
    given = published(moments)
    assert_allclose(given.information(), case.expected(), rtol=1e-7, atol=1e-7)
    assert_allclose(given.gamma("expected"), np.linalg.inv(case.expected()), rtol=1e-5, atol=1e-9)


def test_moments_are_the_saturated_ones_of_a_fit() -> None:
    fit, moments = balanced()
    pd.testing.assert_series_equal(fit.saturated.vector, moments.vector, rtol=1e-9)
    pd.testing.assert_frame_equal(fit.saturated.acov, moments.acov, rtol=1e-6)
    ours, theirs = moments.icc_table(), fit.icc_table().drop(columns="group")
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-8)
    assert_allclose(moments.icc.to_numpy(), ours["icc"], rtol=1e-12)
    assert moments.units == (720, 180, 60)
    assert moments.cluster_sizes == {(4, 4, 4): 60}
    with pytest.raises(AttributeError, match=r"moments\[2\] to moments\[3\]"):
        _ = moments.between_cov
    assert "720 units in 180 clusters in 60 clusters" in repr(moments)


def test_balanced_data_are_their_moments() -> None:
    fit, moments = balanced()
    joint = msem.sem(MODEL, published(moments))
    data = simulated(3, 4)
    few = data[data["school"] < 3]
    assert_allclose(
        joint.factor_scores(newdata=few, cluster=CLUSTER), fit.factor_scores(newdata=few), atol=1e-4
    )
    with pytest.raises(
        DataError, match=r'two columns of clusters, and cluster= names none.*\["school", "class"\]'
    ):
        joint.factor_scores(newdata=few)
    assert_allclose(joint.params, fit.params, rtol=1e-5, atol=1e-7)
    assert_allclose(
        joint.bse, msem.sem(MODEL, simulated(3, 4), cluster=CLUSTER, information="expected").bse, rtol=1e-5
    )
    assert joint.chisq == pytest.approx(fit.chisq, rel=1e-6)
    assert joint.df == fit.df == 4
    ours, theirs = joint.fit_measures(), fit.fit_measures()
    names = ["cfi", "tli", "rmsea", "srmr", "srmr_l1", "srmr_l2", "srmr_l3", "aic", "bic"]
    assert_allclose(ours[names], theirs[names], rtol=1e-6)
    for level in (1, 2, 3):
        assert_allclose(
            joint.fit_measures(["chisq", "df", "srmr"], level=level),
            fit.fit_measures(["chisq", "df", "srmr"], level=level),
            rtol=1e-5,
            atol=1e-6,
        )
    text = joint.summary()
    assert "Number of clusters [level 2]                     180" in text
    assert "Number of clusters [level 3]                      60" in text
    assert "moments with cluster sizes" in text


def test_levels_one_by_one_of_balanced_data() -> None:
    fit, moments = balanced()
    each = msem.segregated(MODEL, published(moments))
    assert [one.status for one in each.levels] == ["ok"] * 3
    assert list(each.params.index) == list(fit.params.index)
    for level in (1, 2, 3):
        specific = fit.fit_measures(["chisq", "df", "cfi", "rmsea", "srmr"], level=level)
        (alone,) = each.at(level)
        assert_allclose(alone.fit_measures(list(specific.index)), specific, rtol=1e-5, atol=1e-6)
    frame = each.fit_measures()
    assert list(frame) == ["level 1", "level 2", "level 3"]
    assert set(each.estimates()["level"]) == {1, 2, 3}
    assert (each.bse.dropna() >= 0.999 * each.naive.bse.dropna()).all()
    assert np.isnan(each.cov_params().loc["fw=~y2", "fs~v.l3"])
    assert "Level 3:" in each.summary()
    with pytest.raises(AttributeError, match=r"fit\.at\(2\)"):
        _ = each.between
    assert "fs" in each.diagram().to_dot()
    of_rows = msem.segregated(MODEL, simulated(3, 4), cluster=CLUSTER)
    assert_allclose(of_rows.params, each.params, rtol=1e-4, atol=1e-6)
    assert_allclose(of_rows.bse, each.bse, rtol=1e-4)


def test_moments_of_groups() -> None:
    given = published(balanced()[1])
    one, two = (
        msem.sem(MODEL.replace("a*", "").replace("b*", ""), data)
        for data in (given, {"a": given, "b": given})
    )
    assert two.chisq == pytest.approx(2 * one.chisq, rel=1e-6)
    assert two.groups["b"].saturated.units == given.units
    assert_allclose(two.groups["a"].implied[3].cov, one.implied[3].cov, rtol=1e-5)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_errors_of_a_level_are_those_of_its_moments(level: int) -> None:
    """Against refits of the level alone to moments that the model fits and that are moved, each by a little."""
    moments = fitting()
    (one,) = msem.segregated(MODEL, moments, method="ml").at(level)
    text = MODEL.split("level: ")[level][1:]
    part, top = moments[level], level == 3
    names, n = list(part.cov), len(part.cov) * (len(part.cov) + 1) // 2
    nobs = moments.units[level - 1] - (0 if top else moments.units[level])

    def refit(values: Any) -> pd.Series:
        cov = pd.DataFrame(unvech(values[:n], len(names)), names, names)
        means = (
            {"sample_mean": dict(zip(names, values[n:], strict=True)), "meanstructure": True} if top else {}
        )
        found = msem.sem(text, sample_cov=cov, sample_nobs=nobs, sample_cov_rescale=False, **means)
        return found.params

    suffix = f".l{level}" if level > 1 else ""
    labels = [f"{a}~~{b}{suffix}" for k, a in enumerate(names) for b in names[k:]]
    values = vech(part.cov.to_numpy())
    if top:
        labels += [f"{name}~1.l3" for name in names]
        values = np.append(values, part.mean)
    assert_allclose(one.params, refit(values).to_numpy(), rtol=1e-6, atol=1e-8)
    given = {"v~~v.l3", "v~1.l3"}  # moments of covariates
    step, moved = 1e-5, [k for k, label in enumerate(labels) if label not in given]
    jacobian = np.column_stack(
        [
            (refit(values + step * unit) - refit(values - step * unit)) / (2 * step)
            for unit in np.eye(len(values))[moved]
        ]
    )
    information = moments.information()
    free = [name for name in information if name not in given]
    gamma = pd.DataFrame(np.linalg.inv(information.loc[free, free]), free, free)
    own = [labels[k] for k in moved]
    vcov = jacobian @ gamma.loc[own, own].to_numpy() @ jacobian.T
    assert_allclose(one.bse, np.sqrt(vcov.diagonal()), rtol=1e-4)


def test_all_methods_find_what_the_model_implies() -> None:
    fits = [msem.segregated(MODEL, fitting(), method=method) for method in ("likelihood", "ml", "uls")]
    for one in fits[1:]:
        assert_allclose(one.params, fits[0].params, rtol=1e-5, atol=1e-6)
        assert_allclose(one.bse, fits[0].bse, rtol=0.5)


def test_robust_gamma_is_the_sandwich_of_schools() -> None:
    moments, case = dense(holes=False)
    robust = msem.saturated(case.data, cluster=CLUSTER, levels=LEVELS, gamma="robust")
    scores = oracle.complex_step(case.logliks, case.near)
    gamma = moments.acov.to_numpy()
    assert_allclose(robust.acov, gamma @ scores.T @ scores @ gamma, rtol=1e-5, atol=1e-9)
    assert robust.vector.equals(moments.vector)


def test_errors_of_data_with_holes_come_from_their_gamma(tmp_path: Path) -> None:
    data = simulated((2, 4), (4, 8), 80)
    data["y2"] = data["y2"].mask(np.random.default_rng(1).random(len(data)) < 0.3)
    holed = msem.saturated(data, cluster=CLUSTER, levels=VARIABLES, missing="fiml")
    fit = msem.sem(MODEL, data, cluster=CLUSTER, missing="fiml")
    each = msem.segregated(MODEL, holed)
    assert_allclose(each.bse, fit.bse, rtol=0.15)
    with pytest.raises(DataError, match="estimated from data with holes"):
        msem.sem(MODEL, holed)
    holed.save(tmp_path / "holed.json")
    assert msem.LevelMoments.load(tmp_path / "holed.json").incomplete


def test_estimates_without_sizes_are_near(tmp_path: Path) -> None:
    moments = unequal()
    exact, rough = (
        msem.sem(MODEL, published(moments, **given))
        for given in ({}, {"cluster_sizes": None, "units": moments.units})
    )
    assert ((exact.params - rough.params).abs() < 0.5 * exact.bse).all()
    assert_allclose(rough.bse, exact.bse, rtol=0.1)
    assert "numbers of units only" in rough.summary()
    shapes = average_shapes(moments.units)
    assert_allclose(total(shapes), moments.units, rtol=1e-12)
    assert len(shapes) == 2
    assert rounded_shapes({1.2: 3.0, 1.7: 2.0}, (7.0, 5.0)) is None


def test_a_file_holds_all_levels(tmp_path: Path) -> None:
    moments = unequal()
    moments.save(tmp_path / "moments.json")
    again = msem.LevelMoments.load(tmp_path / "moments.json")
    pd.testing.assert_series_equal(again.vector, moments.vector, check_exact=True)
    pd.testing.assert_frame_equal(again.acov, moments.acov, check_exact=True)
    assert (again.units, again.cluster_sizes, again.llf) == (
        moments.units,
        moments.cluster_sizes,
        moments.llf,
    )
    fits = [msem.segregated(MODEL, given, method="ml") for given in (again, moments)]
    assert_allclose(fits[0].bse, fits[1].bse, rtol=1e-7)
    stored = json.loads((tmp_path / "moments.json").read_text(encoding="utf-8"))
    assert "school" not in stored


def test_sizes_may_be_given_in_any_way() -> None:
    data, moments = simulated((2, 4), (4, 8), 80), unequal()
    sizes = data.groupby(CLUSTER).size()
    of_school = [own.tolist() for _, own in sizes.groupby("school")]
    counts: dict[tuple[int, ...], int] = {}
    for own in of_school:
        counts[tuple(own)] = counts.get(tuple(own), 0) + 1
    for given in (sizes, of_school, counts, of_school[::-1]):
        assert published(moments, cluster_sizes=given).cluster_sizes == moments.cluster_sizes


def test_rows_labels_and_units_do_not_matter() -> None:
    moments, scale = unequal(), pd.Series({"y1": 1e-4, "y2": 1e3, "y3": 1e3, "v": 1e2})
    data = simulated((2, 4), (4, 8), 80).sample(frac=1, random_state=3)
    data["class"] = [f"{school}/{one}" for school, one in zip(data["school"], data["class"], strict=True)]
    data["school"] = [f"s{school * 7 % 83}" for school in data["school"]]
    data[list(scale.index)] *= scale
    other = msem.saturated(data, cluster=CLUSTER, levels=VARIABLES)
    for level in (1, 2, 3):
        factor = scale[list(moments[level].cov)].to_numpy()
        assert_allclose(other[level].cov, moments[level].cov * np.outer(factor, factor), rtol=1e-6)
        assert_allclose(other[level].mean, moments[level].mean * factor, rtol=1e-6, atol=1e-12)
    ours, theirs = (np.sqrt(one.acov.to_numpy().diagonal()) / np.abs(one.vector) for one in (moments, other))
    assert_allclose(theirs, ours, rtol=1e-5)
    assert other.cluster_sizes == moments.cluster_sizes
    fits = [msem.sem(MODEL, published(one)) for one in (moments, other)]
    assert fits[0].chisq == pytest.approx(fits[1].chisq, rel=1e-6)


def test_variables_stand_at_the_levels_at_which_they_vary() -> None:
    data = three_levels.sample("all kinds", 2, 60)
    moments = msem.saturated(data.drop(columns=["x", "y3", "y4", "t"]), cluster=CLUSTER)
    assert [list(one.cov) for one in moments.levels] == [
        ["y1", "y2"],
        ["y1", "y2", "w", "z"],
        ["y1", "y2", "w", "z", "v"],
    ]


def test_parts_of_moments() -> None:
    moments = unequal().with_acov()
    part = moments.restrict(["y2", "y1"], ["y1", "y2"], ["v", "y1", "y2"])
    names = matching_names(part.moment_names, moments.moment_names)
    assert_allclose(part.acov, moments.acov.loc[names, names])
    assert moments.restrict(*VARIABLES) is moments
    with pytest.raises(DataError, match="y2 must stay at all its levels"):
        moments.restrict(["y1", "y2"], ["y1"], ["y1", "y2"])
    with pytest.raises(DataError, match="the covariance matrix of level 2 has no v"):
        moments.require(["y1"], ["v"], ["y1"])
    with pytest.raises(
        DataError,
        match=r"three levels: .* restrict\(\[...\], \[...\], \[...\]\), and not of 2",
    ):
        moments.restrict(["y1"], ["y1"])
    dropped = "level: 1\ny1 ~~ y2\nlevel: 2\ny1 ~~ y2\nlevel: 3\ny1 ~~ y1"
    found = msem.segregated(dropped, moments)  # y2 has no part at level 3 any more: new estimates
    assert list(found.saturated[3].cov) == ["y1"]
    assert found.converged


COV = pd.DataFrame([[1.0, 0.3], [0.3, 1.0]], ["y1", "y2"], ["y1", "y2"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"units": (100, 20)}, "units= of every level are needed"),
        ({"units": None}, "units= of every level are needed"),
        ({"units": 100}, "units= has a number of units for every level, level 1 first"),
        ({"covs": []}, "covs is a list of a covariance matrix for each"),
        ({"covs": COV}, "covs is a list of a covariance matrix for each"),
        ({"covs": [COV]}, "covs is a list of a covariance matrix for each"),
        ({"units": (100, 20, 1)}, "at least two are needed"),
        ({"units": (100, 20, 20)}, "each of the 20 units of level 3 has one of level 2"),
        ({"units": (10, 20, 5)}, "there are 10 units of level 1 and 20 of level 2"),
        ({"cluster_sizes": [[3, 4], [2, 2]], "units": (12, 4, 2)}, "cluster_sizes describe 11, 4, 2 units"),
        ({"cluster_sizes": [3, 4]}, r"sizes of the clusters in every highest one, such as \[\[5, 8, 6\]"),
        ({"cluster_sizes": [[3, 0], [2, 2]]}, "positive sizes"),
        ({"cluster_sizes": [["a"], [2, 2]]}, "not a number"),
        ({"cluster_sizes": pd.Series([3, 4])}, "ids of clusters as their index"),
        ({"means": {"y1": 1.0}}, "means has no value for y2"),
        ({"means": {"y1": 1.0, "y2": 0.0, "z": 1.0}}, "names z"),
        ({"covs": [COV, COV, 1]}, "the matrix of level 3 must be a pandas DataFrame"),
        ({"covs": [-COV, COV, COV]}, "the matrix of level 1 has a variance that is not positive"),
        ({"covs": [COV] * 10}, "more than 9 levels"),
        ({"covs": [COV] * 4}, "units= of every level are needed"),
        ({"known_acov": COV}, "known_acov must have rows and columns named"),
    ],
)
def test_what_is_no_moments_of_levels_says_so(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"covs": [COV, COV, COV], "units": (100, 20, 5)} | change
    if "cluster_sizes" in change and "units" not in change:
        del given["units"]
    with pytest.raises(MsemError, match=message):
        msem.LevelMoments.of_levels(given.pop("covs"), **given)


def test_moments_of_two_levels_by_level() -> None:
    two = msem.LevelMoments.of_levels([COV, 0.3 * COV], {"y1": 1, "y2": 2}, cluster_sizes={5: 30})
    other = msem.LevelMoments(COV, 0.3 * COV, {"y1": 1, "y2": 2}, cluster_sizes={5: 30})
    pd.testing.assert_series_equal(two.vector, other.vector)
    pd.testing.assert_frame_equal(two.acov, other.acov)


def test_what_is_not_there_for_three_levels_says_so() -> None:
    moments, data = unequal(), simulated((2, 4), (4, 8), 80)
    impossible = msem.LevelMoments.of_levels([COV, -COV, COV], units=(100, 20, 5))
    with pytest.raises(DataError, match="no values of clusters can have these moments"):
        msem.sem("level: 1\ny1 ~~ y2\nlevel: 2\ny1 ~~ y2\nlevel: 3\ny1 ~~ y2", impossible)
    two = "level: 1\ny1 ~~ y2\nlevel: 2\ny1 ~~ y2"
    with pytest.raises(ModelError, match="two levels and these moments have three"):
        msem.sem(two, moments)
    with pytest.raises(ModelError, match="two levels, and these are moments of three levels"):
        msem.segregated(two, moments)
    with pytest.raises(
        ModelError, match="one level but LevelMoments have three: add 'level: 1' and 'level: 2' and"
    ):
        msem.sem("f =~ y1 + y2 + y3", moments)
    with pytest.raises(ModelError, match="three levels and these moments have two"):
        msem.sem(MODEL, msem.LevelMoments(COV, COV, nobs=100, nclusters=20))
    lower = msem.saturated(data.assign(v=data["v"] + data["class"]), cluster=CLUSTER)
    with pytest.raises(ModelError, match="v varies within clusters of level 3"):
        msem.segregated(MODEL, lower)
    with pytest.raises(DataError, match=r"levels= takes the variables of each"):
        msem.saturated(data, cluster=CLUSTER, levels=[["y1"], ["y1"]])
    with pytest.raises(DataError, match="leave out within= and between="):
        msem.saturated(data, cluster=CLUSTER, levels=VARIABLES, within=["y1"])
    with pytest.raises(UnsupportedError, match="crossed classifications"):
        msem.saturated(data, cluster="class * school")
    with pytest.raises(DataError, match="fitted by scoring"):
        msem.saturated(data, cluster=CLUSTER, method="em")
    with pytest.raises(UnsupportedError, match="the levels share a"):
        msem.segregated("level: 1\ny1 ~~ a*y2\nlevel: 2\ny1 ~~ a*y2\nlevel: 3\ny1 ~~ y2", moments)
    few = msem.saturated(simulated(8, 6, 10), cluster=CLUSTER, levels=VARIABLES, gamma="robust")
    with pytest.raises(
        DataError, match="26 moments is singular and has no inverse, as that of 10 clusters is"
    ):
        few.information()


def test_without_a_maximum_outside_the_cone_there_is_one_inside() -> None:
    rng = np.random.default_rng(3)
    school = np.repeat(np.arange(15), rng.integers(2, 5, 15))
    of_class = np.repeat(np.arange(len(school)), rng.integers(2, 6, len(school)))
    y = rng.normal(size=(len(of_class), 3)) + rng.normal(size=(len(of_class), 1))
    y += (0.3 * rng.normal(size=(len(school), 1)))[of_class] + (0.3 * rng.normal(size=(15, 1)))[
        school[of_class]
    ]
    data = pd.DataFrame(y, columns=["y1", "y2", "y3"]).assign(school=school[of_class], **{"class": of_class})
    with pytest.warns(ImproperSolutionWarning):
        moments = msem.saturated(data, cluster=CLUSTER)
    assert moments.in_cone
    assert moments.converged
    for level in (2, 3):
        assert np.linalg.eigvalsh(moments[level].cov)[0] >= -1e-12
    with pytest.raises(DataError, match="positive semidefinite matrices above level 1 only"):
        _ = moments.acov


def test_description_of_three_levels() -> None:
    data = simulated((2, 4), (4, 8), 80)
    rng, of_class = np.random.default_rng(8), data.groupby(CLUSTER).ngroup()
    data["size"] = rng.normal(size=of_class.max() + 1)[of_class] + rng.normal(size=80)[data["school"]]
    names = ["y1", "y2", "size", "v"]
    found = msem.describe(data, cluster=CLUSTER, variables=names)
    table, moments = found.variables, found.moments
    classes = data.groupby(CLUSTER)["size"].first()
    assert_allclose(
        table.loc["size", ["n", "mean", "sd"]].astype(float), [len(classes), classes.mean(), classes.std()]
    )
    schools = data.groupby("school")["v"].first()
    assert_allclose(table.loc["v", ["n", "mean", "max"]].astype(float), [80, schools.mean(), schools.max()])
    assert_allclose(table.loc["y1", ["n", "sd"]].astype(float), [len(data), data["y1"].std()])
    for level in (1, 2, 3):
        assert_allclose(table.loc["y2", f"sd_l{level}"], np.sqrt(moments[level].cov.loc["y2", "y2"]))
    assert np.isnan(table.loc["size", "sd_l1"])
    shares = moments.icc_table().set_index(["lhs", "level"])
    assert_allclose(table.loc["y1", ["icc_l2", "icc_l3"]].astype(float), shares.loc["y1", "icc"])
    assert_allclose(table.loc["y1", "icc_l3_se"], shares.loc[("y1", 3), "se"])
    fit = msem.sem(
        "level: 1\ny1 ~~ y2\nlevel: 2\ny1 ~~ y2 + size\ny2 ~~ size\nlevel: 3\n"
        "y1 ~~ y2 + size + v\ny2 ~~ size + v\nsize ~~ v",
        data,
        cluster=CLUSTER,
        fixed_x=False,
    )
    theirs = fit.standardized()
    theirs = theirs[(theirs["op"] == "~~") & (theirs["lhs"] != theirs["rhs"])]
    merged = found.correlations.merge(theirs, on=["lhs", "rhs", "level"], suffixes=("", "_fit"))
    assert len(merged) == len(found.correlations) == 1 + 3 + 6
    assert_allclose(merged["r"], merged["est_std"], atol=1e-6)
    assert_allclose(merged["se"], merged["se_fit"], rtol=1e-3)
    assert (
        found.matrix(level=3)
        .loc["v", "y1"]
        .startswith(f"{merged.set_index(['lhs', 'rhs', 'level']).loc[('y1', 'v', 3), 'r']:.2f}")
    )
    assert found.matrix().equals(found.matrix(level=1))
    assert "Correlations of level 3" in str(found)
    assert f"{len(data)} units in {len(classes)} clusters in 80 clusters" in repr(found)
    assert "ICC, level 3" in found.table(level=2).to_markdown()


def test_exploratory_analysis_of_three_levels() -> None:
    moments = unequal()
    whole = msem.efa(published(moments), {1: 1, 3: 1})
    assert list(whole.fits) == [(1, None, 1)]
    text = "level: 1\nfw =~ y1 + y2 + y3\nlevel: 2\ny1 ~~ y2 + y3\ny2 ~~ y3\nlevel: 3\nft =~ y1 + y2 + y3 + v"
    fit = msem.sem(text, published(moments), fixed_x=False)
    found = whole.to_frame()
    assert found["chisq"][0] == pytest.approx(fit.chisq, rel=1e-6)
    assert found["df"][0] == fit.df == 2
    assert list(found)[:3] == ["level 1", "level 2", "level 3"]
    assert found["srmr_l3"][0] == pytest.approx(fit.fit_measures()["srmr_l3"], rel=1e-4)
    assert whole.by_level()["level"].tolist() == [1, 3]
    assert "Standardized loadings, level 3" in str(whole)
    data = simulated((2, 4), (4, 8), 80)
    rows = msem.efa(data, 1, cluster=CLUSTER, variables=["y1", "y2", "y3"])
    assert list(rows.fits) == [(1, 1, 1)]
    with pytest.raises(UnsupportedError, match="crossed clusters"):
        msem.efa(data, 1, cluster="class * school")
    with pytest.raises(MsemError, match="variables by level need every level"):
        msem.efa(data, 1, cluster=CLUSTER, variables={1: ["y1"], 2: ["y1"]})


def _schools() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"school": np.repeat(np.arange(40), 12), "class": np.tile(np.repeat([1, 2, 3], 4), 40)}
    )
    of_class = frame.groupby(["school", "class"]).ngroup().to_numpy()
    frame["w"] = rng.normal(size=120)[of_class]
    frame["y"] = rng.normal(size=480) + rng.normal(size=120)[of_class] + rng.normal(size=40)[frame["school"]]
    return frame.assign(z=rng.normal(size=480) + frame["y"])


PLAIN = "level: 1\n y ~~ z\nlevel: 2\n y ~~ z\nlevel: 3\n y ~~ z"


def test_samples_of_a_fit_to_moments_have_their_clusters() -> None:
    data = _schools()
    moments = msem.saturated(data, cluster=["school", "class"], levels=[["y", "z"]] * 3)
    fit = msem.sem(PLAIN, moments)
    drawn = msem.simulate(fit, seed=1, cluster=["school", "class"])

    def shapes(frame: pd.DataFrame) -> list[tuple[int, ...]]:
        sizes = frame.groupby(["school", "class"]).size()
        return sorted(tuple(sorted(own)) for _, own in sizes.groupby(level=0))

    assert shapes(drawn) == shapes(data)
    assert len(msem.simulate(fit, seed=1, nclusters=(40, 3), cluster_sizes=4)) == 480


@pytest.mark.parametrize(
    "levels", [[["y"], [], ["y"]], [["y"], None, ["y"]], 3, {1: ["y"], 2: ["y"], 3: ["y"]}]
)
def test_levels_without_variables_are_refused(levels: Any) -> None:
    with pytest.raises(MsemError, match="levels= "):
        msem.saturated(_schools(), cluster=["school", "class"], levels=levels)


def test_a_covariate_of_clusters_varies_from_row_to_row_where_clusters_do_not_matter() -> None:
    text = "level: 1\n y ~~ y\nlevel: 2\n y ~ w\nlevel: 3\n y ~~ y"
    fit = msem.sem(text, _schools(), cluster=["school", "class"])
    new = pd.DataFrame({"school": 1, "class": 1, "w": [-2.0, 0.0, 2.0]})
    with pytest.raises(DataError, match="'w' is a covariate of clusters, and varies within one"):
        fit.predict(new.assign(y=0.0), random_effects=True)
    for rows in (new, new.assign(school=[1, 2, 3]), new[["w"]]):
        assert_allclose(fit.predict(rows)["y"].diff()[1:], 2 * fit.params["y~w"], rtol=1e-10)


def test_weighted_moments_of_few_clusters_have_a_gamma_without_inverse() -> None:
    """At two levels, where the sandwich of as many scores as moments is singular."""
    data = msem.load_demo().assign(w=lambda d: 1.0 + d["cluster"] % 2)
    names = ["y1", "y2", "y3", "x1"]
    for clusters, enough in ((24, False), (25, True)):  # ten covariances of each level, four means
        few = data.loc[data["cluster"] <= clusters, [*names, "cluster", "w"]]
        moments = msem.saturated(few, cluster="cluster", cluster_weights="w", levels=[names, names])
        assert moments.converged
        assert np.isfinite(moments.icc_table()["se"]).all()
        if enough:
            assert np.isfinite(moments.information()).all(axis=None)
        else:
            with pytest.raises(DataError, match="24 moments is singular"):
                moments.information()
