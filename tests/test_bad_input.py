"""Mistakes of users: an error that names the thing and the remedy, or a named status with a warning."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

import msem
from msem.errors import (
    ConvergenceWarning,
    DataError,
    DataWarning,
    IdentificationWarning,
    ImproperSolutionWarning,
    ModelError,
    ModelSyntaxError,
)

WITHIN = "level: 1\n  fw =~ y1 + y2 + y3\n"
COVARIATES = "  fw ~ x1 + x2 + x3\n"
BETWEEN = "level: 2\n  fb =~ y1 + y2 + y3\n"
MODEL = WITHIN + COVARIATES + BETWEEN + "  fb ~ w1 + w2\n"
DEMO = msem.load_demo()
NAMES = list("abc")
MATRIX = pd.DataFrame(np.full((3, 3), 0.5) + 0.5 * np.eye(3), index=NAMES, columns=NAMES)
CFA = "f =~ a + b + c"


def changed(matrix: pd.DataFrame, **cells: float) -> pd.DataFrame:
    """The matrix with some cells replaced, named like "ab"."""
    out = matrix.copy()
    for cell, value in cells.items():
        out.loc[cell[0], cell[1]] = value
    return out


def infinite() -> pd.DataFrame:
    out = DEMO.copy()
    out.loc[3, "x1"] = np.inf
    return out


def centred() -> pd.DataFrame:
    return DEMO.assign(y1=DEMO["y1"] - DEMO.groupby("cluster")["y1"].transform("mean"))


# What is wrong: model, data, and what the message must say.
DATA: dict[str, tuple[str, Callable[[], Any], str]] = {
    "unknown variable": (MODEL.replace("y3", "yy3"), lambda: DEMO, "no column 'yy3': did you mean 'y3'"),
    "variable in capitals": (MODEL.replace("x1", "X1"), lambda: DEMO, "no column 'X1': did you mean 'x1'"),
    "decimal commas": (
        MODEL,
        lambda: DEMO.assign(y1=DEMO["y1"].map(lambda value: f"{value}".replace(".", ","))),
        "decimal commas, such as .*decimal=",
    ),
    "no cluster column": (
        MODEL,
        lambda: DEMO.drop(columns="cluster"),
        "no column 'cluster': the columns are 'y1'",
    ),
    "one cluster": (
        MODEL,
        lambda: DEMO.assign(cluster=7),
        "belong to one cluster.*fit a single-level model",
    ),
    "clusters of size one": (
        MODEL,
        lambda: DEMO.assign(cluster=range(len(DEMO))),
        "each of the 2500 clusters has one unit.*check the cluster column",
    ),
    "constant": (MODEL, lambda: DEMO.assign(x1=3.0), "variable 'x1' is constant.*take it out of the model"),
    "constant at level 2": (MODEL, lambda: DEMO.assign(w2=0.0), "variable 'w2' is constant"),
    "no within variance": (
        WITHIN + "  fw ~ w1\n" + BETWEEN,
        lambda: DEMO,
        "'w1' is in the level-1 block, but does not vary within clusters.*move it to the level-2 block",
    ),
    "no between variance": (
        MODEL,
        centred,
        "'y1' is in the level-2 block, but its cluster means are all the same.*take it out",
    ),
    "between-only that varies": (
        WITHIN + BETWEEN + "  fb ~ x1",
        lambda: DEMO,
        "'x1' is in the level-2 block only, but varies within 200 of 200 clusters.*use its cluster mean",
    ),
    "collinear": (
        MODEL,
        lambda: DEMO.assign(x3=DEMO["x1"] - 2 * DEMO["x2"]),
        "'x3' is a linear combination of 'x1' and 'x2', so.*take one of them out",
    ),
    "collinear at level 2": (
        MODEL,
        lambda: DEMO.assign(w2=2 * DEMO["w1"]),
        "'w2' is a linear combination of 'w1' in the cluster means",
    ),
    "text": (MODEL, lambda: DEMO.assign(x1="a"), "'x1' is not numeric.*convert it to numbers"),
    "categories": (
        MODEL,
        lambda: DEMO.assign(x1=pd.Categorical(["a"] * len(DEMO))),
        "'x1' is not numeric.*indicator",
    ),
    "complex numbers": (MODEL, lambda: DEMO.assign(x1=1j), "'x1' is not numeric"),
    "infinite": (MODEL, infinite, "'x1' is infinite in 1 row.*first in row 3"),
    "nothing complete": (MODEL, lambda: DEMO.assign(x1=np.nan), "no complete row is left.*'x1' is missing"),
    "no rows": (MODEL, lambda: DEMO.iloc[:0], "no rows"),
    "several columns of a name": (
        MODEL,
        lambda: pd.concat([DEMO, DEMO[["x1"]]], axis=1),
        "several columns named 'x1'",
    ),
    "unhashable ids": (
        MODEL,
        lambda: DEMO.assign(cluster=[[1]] * len(DEMO)),
        "unhashable.*use numbers or strings",
    ),
    "id in the model": (
        MODEL.replace("w1", "cluster"),
        lambda: DEMO,
        "both the cluster column and a variable",
    ),
    "not data": (MODEL, lambda: 5, "cannot read data of type 'int'"),
    "a path": (MODEL, lambda: "data.csv", r"type 'str'.*msem\.read_data\(path\)"),
    "an array": (MODEL, lambda: DEMO.to_numpy(), r"type 'ndarray'.*DataFrame\(array, columns="),
    "an empty list": (MODEL, list, "an empty list: give a data frame"),
    "no columns": (MODEL, dict, "the data have no columns"),
    "no data": (MODEL, lambda: None, "no data: give a data frame"),
}


@pytest.mark.parametrize(("model", "data", "message"), DATA.values(), ids=DATA)
def test_data(model: str, data: Callable[[], Any], message: str) -> None:
    with pytest.raises(DataError, match=f"(?s){message}"):
        msem.sem(model, data(), cluster="cluster")


TEXTS: dict[str, tuple[str, type[Exception], str]] = {
    "no model": (
        "hello world",
        ModelSyntaxError,
        r"line 1, column 7: found 'world'.*operator.*hello world\n",
    ),
    "empty": ("", ModelSyntaxError, "the model is empty; a formula looks like"),
    "comments": ("# nothing", ModelSyntaxError, "the model is empty"),
    "level 3": (
        MODEL + "level: 3\n fc =~ y1",
        ModelError,
        'three levels.*two columns.*cluster=\\["school", "class"\\]',
    ),
    "level 4": (
        MODEL + "level: 4\n fc =~ y1",
        ModelError,
        "line 7, column 1: level: 4, and .* no 'level: 3'",
    ),
    "level 1 only": (WITHIN, ModelError, "one level only.*add the formulas of 'level: 2'"),
    "level 2 only": (BETWEEN, ModelError, "one level only.*add the formulas of 'level: 1'"),
    "a level twice": (MODEL + "level: 2\n fb ~~ fb", ModelError, "'level: 2' is given a second time.*line 4"),
    "an empty level": ("level: 1\n" + BETWEEN, ModelError, "'level: 1' has no formula"),
    "two definitions": (
        MODEL + "  fb ~ 1*w1\n fb ~ 2*w1",
        ModelError,
        "line 8.*'fb ~ w1' is given twice, differently",
    ),
    "two labels": (MODEL + "  fb ~ a*w1\n fb ~ b*w1", ModelError, "line 8.*given twice.*keep one"),
    "two covariances": (
        WITHIN + "y1 ~~ 0*y2\ny2 ~~ .3*y1\n" + BETWEEN,
        ModelError,
        "line 4.*given twice, differently",
    ),
    "itself": (WITHIN + "y1 ~ y1\n" + BETWEEN, ModelError, "line 3.*'y1' is regressed on itself"),
    "measured by itself": (WITHIN + "g =~ g + y1\n" + BETWEEN, ModelError, "'g' is measured by itself"),
    "defined parameter": (MODEL + "  a := b", ModelError, "line 7, column 8: no parameter is labelled 'b'"),
    "constraint": (MODEL + "  a == b", ModelError, "line 7, column 3: no parameter is labelled 'a'"),
    "groups": (
        "group: 1\n" + MODEL,
        ModelError,
        "line 2, column 1: 'group: 1' needs the groups of the data.*group=",
    ),
    "impossible fixed value": (MODEL + "  w1 ~~ -1*w1", ModelError, "not positive definite.*fixed values"),
}


@pytest.mark.parametrize(("text", "kind", "message"), TEXTS.values(), ids=TEXTS)
def test_model_texts(text: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=f"(?s){message}"):
        msem.sem(text, DEMO, cluster="cluster")


SETTINGS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "misspelt": (
        {"std_lvv": True},
        TypeError,
        r"sem\(\) has no option 'std_lvv'; did you mean 'std_lv'\? it has: ",
    ),
    "of lavaan": ({"sampling_weights": "w"}, TypeError, "no option 'sampling_weights'"),
    "information": ({"information": "observd"}, ValueError, "one of 'observed', 'expected', 'first_order'"),
    "se": (
        {"se": "bollen"},
        ValueError,
        "se must be one of 'standard', 'robust', .*'bootstrap', 'none', not 'bollen'",
    ),
    "estimator": ({"estimator": "WSL"}, ValueError, "estimator must be one of 'ML', 'MLR', 'MLF', 'ULS'"),
    "test": (
        {"test": "satorra.bentler"},
        ValueError,
        'test=\'mean_scaled\' is not for estimator="ML": take estimator="MLM"',
    ),
    "bread": ({"estimator": "MLR", "information": "first_order"}, ValueError, "cannot be its bread"),
    "test of first order": ({"test": "yuan.bentler", "information": "first_order"}, ValueError, "bread"),
    "flag": ({"fixed_x": "no"}, ValueError, "fixed_x must be True or False, not 'no'"),
    "cluster": ({"cluster": ["cluster", "w1"]}, ModelError, "names 2 columns.*two levels.*'level: 3'"),
    "clusters twice": ({"cluster": ["cluster", "cluster"]}, ValueError, "names a column twice"),
    "no clusters": ({"cluster": []}, ValueError, "names no column"),
    "no cluster": ({"cluster": None}, ModelError, "name the column with the cluster ids"),
    "tolerance": ({"tolerance": -1.0}, ValueError, "tolerance must be a positive number"),
    "iterations": ({"max_iterations": 0}, ValueError, "max_iterations must be a positive whole number"),
    "matrix of one level": (
        {"sample_cov": MATRIX, "data": None},
        ModelError,
        "sample_cov is for single-level",
    ),
}


@pytest.mark.parametrize(("settings", "kind", "message"), SETTINGS.values(), ids=SETTINGS)
def test_settings(settings: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        msem.sem(MODEL, **({"data": DEMO, "cluster": "cluster"} | settings))


MATRICES: dict[str, tuple[Any, str]] = {
    "not square": (MATRIX.iloc[:2], "must be square, not 2 by 3"),
    "not symmetric": (changed(MATRIX, ab=0.2), r"not symmetric: \(a, b\) is 0.2 but \(b, a\) is 0.5"),
    "other names on columns": (MATRIX.rename(columns={"a": "z"}), "different names on rows and columns"),
    "no names": (MATRIX.to_numpy(), "must be a pandas DataFrame with the variable names"),
    "a variable lacking": (
        MATRIX.rename(index={"c": "d"}, columns={"c": "d"}),
        "no variable 'c'; it has a, b, d",
    ),
    "not positive definite": (changed(MATRIX, ab=1.5, ba=1.5), "not positive definite.*typing errors"),
    "missing": (MATRIX * np.nan, r"no finite value at \(a, a\)"),
}


@pytest.mark.parametrize(("matrix", "message"), MATRICES.values(), ids=MATRICES)
def test_covariance_matrices(matrix: Any, message: str) -> None:
    with pytest.raises(DataError, match=f"sample_cov.*{message}"):
        msem.sem(CFA, sample_cov=matrix, sample_nobs=100)
    if "lacking" not in message and "no variable" not in message:
        with pytest.raises(DataError, match=f"within_cov.*{message}"):
            msem.LevelMoments(matrix, MATRIX, nobs=100, nclusters=20)


@pytest.mark.parametrize("nobs", [None, 1, np.nan, "100"])
def test_sample_size(nobs: Any) -> None:
    with pytest.raises(DataError, match="sample_nobs"):
        msem.sem(CFA, sample_cov=MATRIX, sample_nobs=nobs)


@pytest.mark.parametrize("mean", [{"a": 1.0}, [1, 2, 3], {"a": 1, "b": 2, "c": np.inf}])
def test_sample_means(mean: Any) -> None:
    with pytest.raises(DataError, match="sample_mean"):
        msem.sem(CFA, sample_cov=MATRIX, sample_nobs=100, sample_mean=mean)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"nobs": 10, "nclusters": 20}, r"nobs \(10 units\) is smaller than nclusters \(20\)"),
        ({"nobs": 20, "nclusters": 20}, "nobs equals nclusters: with one unit per cluster"),
        ({"nobs": 20}, "nobs .* and nclusters are needed"),
        ({"nobs": 20, "nclusters": 1}, "at least two clusters"),
        (
            {"nobs": 100, "nclusters": 20, "cluster_sizes": [5] * 19},
            "19 clusters with 95 units, but nclusters is 20",
        ),
    ],
)
def test_sizes_of_moments(sizes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        msem.LevelMoments(MATRIX, MATRIX, **sizes)


def test_a_model_of_another_number_of_levels() -> None:
    moments = msem.LevelMoments(MATRIX, MATRIX, nobs=100, nclusters=20)
    with pytest.raises(ModelError, match="one level but LevelMoments have two"):
        msem.sem(CFA, moments)
    with pytest.raises(DataError, match="cluster='cluster' names a column of raw data"):
        msem.sem(CFA, sample_cov=MATRIX, sample_nobs=100, cluster="cluster")
    with pytest.raises(DataError, match="not both"):
        msem.sem(CFA, DEMO, sample_cov=MATRIX, sample_nobs=100)


@pytest.mark.parametrize(
    ("line", "warns"),
    [
        ("y1 ~ x1*x2", True),
        ("y1 ~ x1 + x2 + x1*x3", True),
        ("y1 ~ a*x1", False),
        ("y1 ~ x1*x2 + x1*x3", False),  # an equality
        ("y1 ~ x1*x2\n x1 > 0", False),
        ("y1 ~ x1*x2\n d := 2*x1", False),
    ],
)
def test_a_column_that_is_read_as_a_label_is_pointed_out(line: str, warns: bool) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        msem.sem(line, DEMO)
    found = [str(one.message) for one in caught if "a product of variables is a column" in str(one.message)]
    assert len(found) == warns


def test_rows_without_cluster_are_left_out_and_counted() -> None:
    ids = DEMO["cluster"].astype(float)
    ids[:5] = np.nan
    with pytest.warns(DataWarning, match="5 rows have no cluster id"):
        fit = msem.sem(MODEL, DEMO.assign(cluster=ids), cluster="cluster")
    reference = msem.sem(MODEL, DEMO.iloc[5:], cluster="cluster")
    assert (fit.nobs, fit.nclusters) == (2495, reference.nclusters)
    np.testing.assert_array_equal(fit.params, reference.params)
    assert re.search(r"Rows dropped: no cluster\s+5\n", fit.summary())


def test_unidentified_model() -> None:
    with pytest.warns(IdentificationWarning, match="cannot tell apart fw=~y1, fw=~y2, fw=~y3, fw~~fw"):
        fit = msem.sem("level: 1\nfw =~ NA*y1 + y2 + y3\n" + BETWEEN, DEMO, cluster="cluster")
    assert (fit.status, fit.converged) == ("unidentified", True)
    within_factor = ["fw=~y1", "fw=~y2", "fw=~y3", "fw~~fw"]
    assert fit.bse[within_factor].isna().all()
    assert fit.bse.drop(within_factor).notna().all()
    identified = msem.sem(WITHIN + BETWEEN, DEMO, cluster="cluster")
    assert fit.llf == pytest.approx(identified.llf, abs=1e-6)
    np.testing.assert_allclose(
        fit.bse.drop(within_factor),
        identified.bse[fit.bse.index.difference(within_factor, sort=False)],
        rtol=1e-4,
    )


def test_negative_variance() -> None:
    with pytest.warns(
        ImproperSolutionWarning, match=r'negative variance at the between level: y3\..*space="psd"'
    ):
        fit = msem.sem(WITHIN + BETWEEN, DEMO[DEMO["cluster"] <= 30], cluster="cluster")
    assert (fit.status, fit.converged) == ("improper", True)
    assert fit.params["y3~~y3.l2"] < 0
    assert "negative variance" in fit.summary()


def test_bound() -> None:
    text = WITHIN + BETWEEN + "y3 ~~ lower(0)*y3"
    with pytest.warns(ImproperSolutionWarning, match=r"boundary: estimates lie on their bounds: y3~~y3\.l2"):
        fit = msem.sem(text, DEMO[DEMO["cluster"] <= 30], cluster="cluster")
    assert (fit.status, fit.converged) == ("boundary", True)
    assert fit.params["y3~~y3.l2"] == 0.0
    assert np.isnan(fit.bse["y3~~y3.l2"])


def test_not_converged() -> None:
    with pytest.warns(ConvergenceWarning, match="stopped after 1 iterations.*max_iterations"):
        fit = msem.sem(MODEL, DEMO, cluster="cluster", max_iterations=1)
    assert (fit.status, fit.converged, len(fit.iterations)) == ("not_converged", False, 1)
    assert "not_converged" in fit.summary()
