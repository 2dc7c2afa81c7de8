"""Level-specific moments as a user gives, saves and restricts them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import msem
from msem.data.storage import signed
from msem.errors import DataError, DataWarning

UNIT, CLUSTER = ["y1", "y2", "x"], ["y1", "y2", "z"]
WITHIN = np.array([[2.0, 0.8, 0.3], [0.8, 1.5, 0.2], [0.3, 0.2, 1.0]])
BETWEEN = np.array([[1.0, 0.4, 0.1], [0.4, 0.8, 0.2], [0.1, 0.2, 1.5]])
SIZES = {4: 30, 7: 20, 10: 10}
MODEL = "level: 1\ny1 ~ y2 + x\nlevel: 2\ny1 ~ y2 + z"


def frame(matrix: np.ndarray, names: list[str]) -> pd.DataFrame:
    return pd.DataFrame(matrix, index=names, columns=names)


def moments(**changes: Any) -> msem.LevelMoments:
    given: dict[str, Any] = {
        "within_cov": frame(WITHIN, UNIT),
        "between_cov": frame(BETWEEN, CLUSTER),
        "between_mean": {"y1": 1.0, "y2": 2.0, "z": 3.0},
        "within_mean": {"x": 4.0},
        "cluster_sizes": SIZES,
    }
    return msem.LevelMoments(**given | changes)


# -- covariance matrices as they are typed in ------------------------------------------------------------------------


def triangle(keep: Callable[[np.ndarray], np.ndarray]) -> pd.DataFrame:
    kept = keep(np.ones((3, 3))).astype(bool)
    return frame(np.where(kept, BETWEEN, np.nan), CLUSTER)


VARIANTS = {
    "lower triangle": triangle(np.tril),
    "upper triangle": triangle(np.triu),
    "rows in another order": frame(BETWEEN, CLUSTER).loc[["z", "y2", "y1"]],
    "both in another order": frame(BETWEEN, CLUSTER).loc[["z", "y2", "y1"], ["y2", "z", "y1"]],
    "lower triangle, rows in another order": triangle(np.tril).loc[["z", "y1", "y2"]],
    "lower triangle, columns in another order": triangle(np.tril)[["z", "y1", "y2"]],
    "integers and objects": frame(BETWEEN, CLUSTER).astype(object),
    "nullable": frame(BETWEEN, CLUSTER).astype("Float64"),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_matrix_may_be_typed_in_many_ways(variant: str) -> None:
    one, two = moments(), moments(between_cov=VARIANTS[variant])
    assert two.between.cov.index.tolist() == two.between.cov.columns.tolist()
    pd.testing.assert_frame_equal(two.between.cov.loc[CLUSTER, CLUSTER], one.between.cov)
    fits = [msem.sem(MODEL, given) for given in (one, two)]
    np.testing.assert_allclose(fits[0].params, fits[1].params, rtol=1e-8)
    np.testing.assert_allclose(fits[0].bse, fits[1].bse, rtol=1e-8)


def changed(i: int, j: int, value: float, mirror: bool = True) -> pd.DataFrame:
    matrix = WITHIN.copy()
    matrix[i, j] = value
    if mirror:
        matrix[j, i] = value
    return frame(matrix, UNIT)


@pytest.mark.parametrize(
    ("cov", "message"),
    [
        (WITHIN, "within_cov must be a pandas DataFrame with the variable names"),
        (frame(WITHIN, UNIT).iloc[:2], "within_cov must be square, not 2 by 3"),
        (pd.DataFrame(), "must be square"),
        (
            pd.DataFrame(WITHIN, columns=UNIT),
            r"no variable names on its rows: give index=\['y1', 'y2', 'x'\]",
        ),
        (frame(WITHIN, ["y1", "y2", "y2"]), "names 'y2' twice"),
        (frame(WITHIN, UNIT).set_axis(["y1", "y1", "y2"]), "names 'y1' twice on its rows"),
        (frame(WITHIN, UNIT).set_axis(["y1", "y2", "X"]), "no column is named 'X'"),
        (changed(0, 1, 0.9, mirror=False), r"not symmetric: \(y1, y2\) is 0\.9 but \(y2, y1\) is 0\.8"),
        (frame(np.tril(WITHIN), UNIT), "leave the other missing"),
        (changed(0, 1, np.nan), r"no finite value at \(y1, y2\)"),
        (changed(1, 1, np.inf), r"no finite value at \(y2, y2\)"),
        (changed(0, 0, -1.0), "variance that is not positive: y1"),
        (changed(0, 1, 1.9), "not positive definite .* sums of others"),
        (frame(WITHIN, UNIT).astype(str).replace("2.0", "two"), "not a number"),
    ],
)
def test_what_is_no_within_covariance_matrix_is_refused(cov: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        moments(within_cov=cov)


def test_the_between_matrix_may_be_indefinite_but_not_impossible() -> None:
    indefinite = BETWEEN - 1.0 * np.diag([1, 1, 0])
    given = moments(between_cov=frame(indefinite, CLUSTER), between_mean=None)
    assert given.between_eigenvalues[0] < 0
    with pytest.raises(DataError, match=r"within one over the cluster size \(10\) is not positive definite"):
        msem.sem(MODEL, given)


# -- means -----------------------------------------------------------------------------------------------------------


def test_within_means_of_variables_at_both_levels_are_added_to_the_between_means() -> None:
    given = moments(within_mean={"y1": 0.5, "x": 4.0})
    assert given.between.mean.to_dict() == {"y1": 1.5, "y2": 2.0, "z": 3.0}
    assert given.within.mean.to_dict() == {"y1": 0.0, "y2": 0.0, "x": 4.0}


def test_means_are_zero_when_none_are_given() -> None:
    given = moments(between_mean=None, within_mean=None)
    assert not given.between.mean.any()
    assert not given.within.mean.any()


def test_a_mean_may_be_a_series_in_any_order() -> None:
    given = moments(between_mean=pd.Series({"z": 3, "y1": 1, "y2": 2}))
    pd.testing.assert_series_equal(given.between.mean, moments().between.mean)


@pytest.mark.parametrize(
    ("means", "message"),
    [
        ({"y1": 1.0, "y2": 2.0}, "between_mean has no value for z"),
        ({"y1": 1.0, "y2": 2.0, "z": 3.0, "q": 1.0}, "between_mean names q"),
        ({"y1": 1.0, "y2": np.nan, "z": 3.0}, "must be finite; it is not for y2"),
        ({"y1": 1.0, "y2": "two", "z": 3.0}, "not a number"),
        ([1.0, 2.0, 3.0], "must be a Series or mapping"),
    ],
)
def test_means_that_do_not_fit_are_refused(means: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        moments(between_mean=means)


# -- sample sizes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sizes",
    [
        SIZES,
        {10: 10, 4: 30, 7: 20, 99: 0},
        {4.0: 30.0, 7.0: 20.0, 10.0: 10.0},
        [7, 10, 4, 4, 7, 4] * 10,
        np.repeat([4, 7, 10], [30, 20, 10]),
        pd.Series(np.repeat([10, 7, 4], [10, 20, 30]), index=range(0, 120, 2)),
    ],
)
def test_sample_sizes_follow_from_the_cluster_sizes(sizes: Any) -> None:
    given = moments(cluster_sizes=sizes)
    assert (given.nobs, given.nclusters) == (360, 60)
    assert given.cluster_sizes == SIZES
    assert list(given.cluster_sizes) == sorted(SIZES)
    assert given.exact_sizes


def test_without_cluster_sizes_all_clusters_have_the_mean_size() -> None:
    given = moments(cluster_sizes=None, nobs=360, nclusters=60)
    assert not given.exact_sizes
    assert given.statistics.sizes.tolist() == [6.0]
    assert given.statistics.source == "moments, N and J only"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cluster_sizes": None}, "nobs .* and nclusters are needed, or cluster_sizes"),
        ({"cluster_sizes": None, "nobs": 360}, "nobs .* and nclusters are needed"),
        ({"cluster_sizes": None, "nobs": 50, "nclusters": 60}, r"nobs \(50 units\) is smaller"),
        ({"cluster_sizes": None, "nobs": 60, "nclusters": 60}, "one unit per cluster"),
        ({"cluster_sizes": None, "nobs": 60, "nclusters": 1}, "at least two clusters"),
        ({"nobs": 361}, "60 clusters with 360 units, but nclusters is 60 and nobs is 361"),
        ({"nclusters": 61}, "but nclusters is 61"),
        ({"cluster_sizes": []}, "whole numbers"),
        ({"cluster_sizes": {}}, "whole numbers"),
        ({"cluster_sizes": [4.5] * 60}, "whole numbers"),
        ({"cluster_sizes": {4: 30.5}}, "whole numbers"),
        ({"cluster_sizes": [np.inf, 4]}, "whole numbers"),
        ({"cluster_sizes": {0: 30, 4: 30}}, "positive sizes"),
        ({"cluster_sizes": {4: -1}}, "positive sizes"),
        ({"cluster_sizes": ["four"]}, "not a number"),
    ],
)
def test_sample_sizes_that_contradict_each_other_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        moments(**options)


# -- Gamma -------------------------------------------------------------------------------------------------------------


def test_gamma_of_balanced_data_has_its_closed_form() -> None:
    """Within: normal moments on N - J; cluster means: normal moments on J (Muthen, 1990)."""
    names = ["y1", "y2"]
    given = moments(
        within_cov=frame(WITHIN[:2, :2], names),
        between_cov=frame(BETWEEN[:2, :2], names),
        between_mean=None,
        within_mean=None,
        cluster_sizes={5: 40},
    )
    w, b, n, J = WITHIN[:2, :2], BETWEEN[:2, :2], 5, 40
    means = b + w / n
    acov = given.acov
    assert acov.index.tolist() == given.moment_names == acov.columns.tolist()
    within, total = 2 * w[0, 0] ** 2 / (J * (n - 1)), 2 * means[0, 0] ** 2 / J
    assert acov.loc["y1~~y1", "y1~~y1"] == pytest.approx(within, rel=1e-10)
    assert acov.loc["y1~~y1.l2", "y1~~y1.l2"] == pytest.approx(total + within / n**2, rel=1e-10)
    assert acov.loc["y1~~y1", "y1~~y1.l2"] == pytest.approx(-within / n, rel=1e-10)
    assert acov.loc["y1~1.l2", "y2~1.l2"] == pytest.approx(means[0, 1] / J, rel=1e-10)
    np.testing.assert_allclose(given.information() @ acov, np.eye(8), atol=1e-8)


def test_gamma_does_not_depend_on_units() -> None:
    scale = np.array([1e4, 1e-3, 1.0])
    one, two = (
        moments(),
        moments(
            within_cov=frame(WITHIN * np.outer(scale, scale), UNIT),
            between_cov=frame(BETWEEN * np.outer(scale, scale), CLUSTER),
        ),
    )
    sd = [np.sqrt(np.diag(given.acov)) for given in (one, two)]
    unit = dict(zip(["y1", "y2", "x", "z"], [1e4, 1e-3, 1.0, 1.0], strict=True))
    factor = [
        np.prod([unit[v] for v in name.removesuffix(".l2").removesuffix("~1").split("~~")])
        for name in one.moment_names
    ]
    np.testing.assert_allclose(sd[1], sd[0] * factor, rtol=1e-8)


def test_known_gamma_may_be_in_any_order_and_spell_covariances_either_way() -> None:
    acov = moments().acov
    other = acov.rename(index={"y1~~y2": "y2~~y1"}, columns={"y1~~y2": "y2~~y1"}).iloc[::-1, ::-1]
    pd.testing.assert_frame_equal(moments(known_acov=other).acov, acov)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.to_numpy(), "must be a pandas DataFrame"),
        (lambda g: g.iloc[:-1, :-1], "as in `moment_names`; check z~1"),
        (lambda g: g.rename(index={"z~1.l2": "z~1"}, columns={"z~1.l2": "z~1"}), r"check z~1\.l2"),
        (lambda g: -g, "positive variances"),
        (lambda g: g + np.triu(g, 1), "not symmetric"),
        (
            lambda g: g * 0 + np.sqrt(np.outer(np.diag(g), np.diag(g))) * (2 * np.eye(len(g)) - 1),
            "not positive semidefinite",
        ),
    ],
)
def test_what_is_no_gamma_is_refused(change: Callable[[pd.DataFrame], Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        moments(known_acov=change(moments().acov))


# -- saving and restricting --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sizes", [{"cluster_sizes": SIZES}, {"cluster_sizes": None, "nobs": 360, "nclusters": 60}]
)
def test_saved_moments_come_back(tmp_path: Path, sizes: dict[str, Any]) -> None:
    one = moments(**sizes)
    one.save(tmp_path / "levels.json")
    two = msem.LevelMoments.load(tmp_path / "levels.json")
    for part in ("within", "between"):
        pd.testing.assert_frame_equal(getattr(one, part).cov, getattr(two, part).cov, check_exact=True)
        pd.testing.assert_series_equal(getattr(one, part).mean, getattr(two, part).mean, check_exact=True)
    assert (one.nobs, one.nclusters, one.cluster_sizes) == (two.nobs, two.nclusters, two.cluster_sizes)
    pd.testing.assert_frame_equal(one.acov, two.acov, check_exact=True)
    fits = [msem.sem(MODEL, given) for given in (one, two)]
    assert (fits[0].params == fits[1].params).all()
    assert fits[0].chisq == fits[1].chisq


def test_saved_moments_hold_no_data(tmp_path: Path) -> None:
    h1 = msem.sem("level: 1\ny1 ~ x1\nlevel: 2\ny1 ~ w1", msem.load_demo(), cluster="cluster").saturated
    h1.save(tmp_path / "levels.json")
    loaded = msem.LevelMoments.load(tmp_path / "levels.json")
    assert h1.data is not None
    assert loaded.data is None
    assert loaded.llf == h1.llf


@pytest.mark.parametrize(
    "text", ["", "[1, 2]", '{"format": "other"}', "\\xff", '{"format": "msem level moments 1"}']
)
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"other\.json is not a file of level moments"):
        msem.LevelMoments.load(path)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "levels.json"
    moments().save(path)
    stored = json.loads(path.read_text(encoding="utf-8"))
    stored["levels"][1]["cov"][0] *= 1 + 1e-15
    path.write_text(json.dumps(stored), encoding="utf-8")
    with pytest.raises(DataError, match=r"levels\.json is damaged or cut short"):
        msem.LevelMoments.load(path)


LEVEL = {"names": ["y1"], "cov": [1.0], "mean": [0.0]}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("levels", [LEVEL, {"names": ["y1"], "cov": ["one"], "mean": [0.0]}]),
        ("levels", [{"names": ["y1", "y1"], "cov": [1.0, 0.0, 1.0], "mean": [0.0, 0.0]}, LEVEL]),
        ("levels", [{"names": [f"v{k}" for k in range(40_000)], "cov": [], "mean": []}, LEVEL]),
        ("levels", [LEVEL | {"mean": 0}, LEVEL]),
        ("levels", [LEVEL | {"sd": [1.0]}, LEVEL]),
        ("levels", [LEVEL]),
        ("levels", 1),
        ("converged", "false"),
        ("llf", "x"),
        ("units", [True, 60]),
        ("units", [10**400, 60]),
        ("units", [300, 2.5]),
        ("units", [300, 60, 20]),
        ("cluster_sizes", [[5.9, 60]]),
        ("cluster_sizes", [[[5, 5], 30]]),
        ("cluster_sizes", [5, 60]),
        ("cluster_sizes", 5),
        ("cluster_sizes", [[5, 30], [5, 30]]),
        ("within", LEVEL),
        ("acov", [1.0]),
        ("acov", None),
        ("rows", []),
    ],
)
def test_contents_that_cannot_be_are_refused(tmp_path: Path, name: str, value: Any) -> None:
    path = tmp_path / "levels.json"
    moments().save(path)
    content = json.loads(path.read_text(encoding="utf-8")) | {name: value}
    del content["sha256"]
    path.write_text(json.dumps(signed(content)), encoding="utf-8")
    with pytest.raises(DataError, match=r"levels\.json is not a file of level moments"):
        msem.LevelMoments.load(path)


def test_gamma_of_values_too_far_apart_is_refused() -> None:
    acov = moments().acov
    acov.iloc[0, 1] = acov.iloc[1, 0] = 1e308
    acov.iloc[0, 0] = 1e-320
    with pytest.raises(DataError, match="too far apart to compute with: rescale"):
        moments(known_acov=acov)


def test_a_file_with_a_name_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "levels.json"
    moments().save(path)
    path.write_text(path.read_text(encoding="utf-8").replace("{", '{"llf": 400, ', 1), encoding="utf-8")
    with pytest.raises(DataError, match="a name twice"):
        msem.LevelMoments.load(path)


def test_files_of_later_versions_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "levels.json"
    moments().save(path)
    path.write_text(
        path.read_text(encoding="utf-8").replace('"version": 3', '"version": 4'), encoding="utf-8"
    )
    with pytest.raises(DataError, match=r"version 4 of the format.*update msem"):
        msem.LevelMoments.load(path)


def of_two_levels(path: Path) -> dict[str, Any]:
    """What the versions before wrote, when there were two levels."""
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["sha256"]
    for name, level in zip(("within", "between"), content.pop("levels"), strict=True):
        content[f"{name}_mean"] = level.pop("mean")
        content[name] = level
    content["nobs"], content["nclusters"] = content.pop("units")
    return content


def test_files_of_the_version_of_two_levels_are_read(tmp_path: Path) -> None:
    path = tmp_path / "levels.json"
    one = moments()
    one.save(path)
    content = of_two_levels(path) | {"version": 2}
    path.write_text(json.dumps(signed(content)), encoding="utf-8")
    two = msem.LevelMoments.load(path)
    pd.testing.assert_frame_equal(one.acov, two.acov, check_exact=True)
    assert (one.vector == two.vector).all()
    assert (one.units, one.cluster_sizes) == (two.units, two.cluster_sizes)
    path.write_text(json.dumps(signed(content) | {"nobs": 301}), encoding="utf-8")
    with pytest.raises(DataError, match="is damaged or cut short"):
        msem.LevelMoments.load(path)


def test_files_of_the_version_without_digest_are_read_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "levels.json"
    one = moments()
    one.save(path)
    content = of_two_levels(path) | {"format": "msem level moments 1"}
    for name in ("version", "converged", "means_given", "incomplete"):  # which the first had not
        del content[name]
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.warns(DataWarning, match=r"levels\.json has no digest.*save it again"):
        two = msem.LevelMoments.load(path)
    pd.testing.assert_frame_equal(one.acov, two.acov, check_exact=True)
    path.write_text(json.dumps(content | {"nobs": "x"}), encoding="utf-8")
    with pytest.raises(DataError, match="'nobs' is not a number"):
        msem.LevelMoments.load(path)


def test_restricted_moments_keep_their_part_of_gamma() -> None:
    whole = moments().with_acov()
    part = whole.restrict(["y2"], ["z", "y2"])
    assert part.within.cov.columns.tolist() == ["y2"]
    assert part.between.cov.columns.tolist() == ["y2", "z"]
    assert part.between.mean.to_dict() == {"y2": 2.0, "z": 3.0}
    for name in part.moment_names:
        same = name if name in whole.moment_names else "z~~y2.l2"
        assert part.acov.loc[name, name] == whole.acov.loc[same, same]


def test_restricting_to_all_variables_changes_nothing() -> None:
    given = moments()
    assert given.restrict(UNIT, CLUSTER) is given


def test_unknown_and_torn_variables_are_refused() -> None:
    with pytest.raises(DataError, match="the within covariance matrix has no q; it has y1, y2, x"):
        moments().restrict(["y1", "q"], ["y1"])
    with pytest.raises(DataError, match="the between covariance matrix has no x; it has y1, y2, z"):
        moments().restrict(["x"], ["x"])
    with pytest.raises(DataError, match="y1 must stay at both levels"):
        moments().restrict(["y1", "y2"], ["y2"])


# -- views -------------------------------------------------------------------------------------------------------------


def test_intraclass_correlations_have_delta_method_errors() -> None:
    given = moments()
    table = given.icc_table("expected")
    assert table["icc"].to_dict() == pytest.approx({"y1": 1 / 3, "y2": 0.8 / 2.3})
    assert table["icc"].equals(given.icc)
    gamma = given.gamma("expected").loc[["y1~~y1", "y1~~y1.l2"], ["y1~~y1", "y1~~y1.l2"]].to_numpy()
    slope = np.array([-1.0, 2.0]) / 9.0
    assert table.loc["y1", "se"] == pytest.approx(np.sqrt(slope @ gamma @ slope), rel=1e-10)


def test_the_vector_holds_every_moment_by_name() -> None:
    vector = moments().vector
    assert len(vector) == 6 + 6 + 4
    assert vector["y1~~x"] == 0.3
    assert vector["y1~~z.l2"] == 0.1
    assert vector[["y1~1.l2", "x~1", "z~1.l2"]].tolist() == [1.0, 4.0, 3.0]


def test_implied_statistics_put_the_within_part_into_the_cluster_means() -> None:
    s = moments().statistics
    assert s.unit == ("y1", "y2", "x")
    assert s.cluster == ("z",)
    np.testing.assert_allclose(s.ssw, 300 * WITHIN)
    np.testing.assert_allclose(s.scatter[0][0, 0], 30 * (1.0 + 2.0 / 4))
    np.testing.assert_allclose(s.scatter[0][2, 2], 30 * 1.0 / 4)
    assert s.scatter[0][2, 3] == 0.0
    np.testing.assert_allclose(s.means, np.tile([1.0, 2.0, 4.0, 3.0], (3, 1)))
