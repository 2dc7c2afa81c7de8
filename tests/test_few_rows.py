"""Samples with fewer rows or clusters than variables, and covariates that are collinear within clusters only.

Estimates are held to the dense density of every cluster: it is as high there as the fit says, stationary, and lower at
both sides in the direction of every principal axis of the sampling covariance.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import msem
import oracle
import oracle_missing
from msem.errors import ConvergenceWarning, DataError, ImproperSolutionWarning


def require_maximum(fit: msem.Fit, groups: Mapping[str, pd.DataFrame], cluster: str | None = None) -> None:
    """The dense likelihood at the estimates: its value, its slope, and values half a standard error away."""

    def loglik(theta: np.ndarray) -> np.ndarray:
        total = 0.0
        for number, (label, frame) in enumerate(groups.items(), 1):
            s = fit.groups[label].statistics
            if fit.table.nlevels == 1:
                mean, cov = oracle.implied(fit.table.rows, theta, 1, s.cluster)
                total = total + oracle_missing.row_logliks(frame[[*s.cluster]].to_numpy(), mean, cov).sum()
                continue
            moments = oracle.table_moments(fit.table.rows, theta, s.unit, s.cluster, s.nboth, number)
            exogenous = [set(fit.table.exogenous(level, number)) for level in range(1, fit.table.nlevels + 1)]
            x = [k for k, name in enumerate(s.unit) if name in exogenous[0] and k >= s.nboth]
            z = [k for k, name in enumerate(s.cluster) if name in exogenous[-1]]
            y = frame[[*s.unit]].to_numpy()
            codes = np.arange(len(frame)) if cluster is None else pd.factorize(frame[cluster], sort=True)[0]
            first = np.unique(codes, return_index=True)[1]
            w = frame[[*s.cluster]].to_numpy()[first]
            total = total + oracle_missing.loglik(moments, y, w, codes, x, z)
        return total

    theta = fit.theta
    assert_allclose(fit.llf, loglik(theta), rtol=1e-9)
    slope = oracle.complex_step(loglik, theta)
    assert slope @ fit.vcov @ slope < 1e-8
    size, axes = np.linalg.eigh(fit.vcov)
    for axis in (axes * np.sqrt(size)).T:
        assert max(loglik(theta + 0.5 * axis), loglik(theta - 0.5 * axis)) < fit.llf


@pytest.fixture
def dyads() -> pd.DataFrame:
    """Actor-partner data: x and that of the partner deviate from the mean of their dyad in opposite directions."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(30, 2)) + 0.6 * rng.normal(size=(30, 1))
    y = 0.5 * x + 0.3 * x[:, ::-1] + 0.5 * rng.normal(size=(30, 1)) + rng.normal(size=(30, 2))
    dyad = np.repeat(np.arange(30), 2)
    return pd.DataFrame({"y": y.ravel(), "x": x.ravel(), "px": x[:, ::-1].ravel(), "dyad": dyad})


TWO = "level: 1\n y ~ {}\nlevel: 2\n y ~~ y"


@pytest.mark.parametrize("missing", ["listwise", "fiml"])
def test_covariates_that_are_collinear_within_clusters_only(dyads: pd.DataFrame, missing: str) -> None:
    data = dyads if missing == "listwise" else dyads.assign(y=dyads["y"].mask(dyads.index == 5))
    fit = msem.sem(TWO.format("x + px"), data, cluster="dyad", missing=missing)
    require_maximum(fit, {"": data}, "dyad")


def test_a_covariate_with_its_deviation_and_a_dummy_that_varies_in_few_clusters(dyads: pd.DataFrame) -> None:
    d = dyads[["y", "x", "dyad"]].assign(dx=dyads["x"] - dyads.groupby("dyad")["x"].transform("mean"))
    d = d.assign(first=(d.index < 1) * 1.0, second=(d.index == 1) * 1.0)  # both vary in the first dyad only
    fit = msem.sem(TWO.format("x + dx + first + second"), d, cluster="dyad")
    require_maximum(fit, {"": d}, "dyad")


def test_covariates_that_are_collinear_over_all_rows_are_refused(dyads: pd.DataFrame) -> None:
    with pytest.raises(DataError, match="'z' is a linear combination of 'x' and 'px', so"):
        msem.sem(TWO.format("x + px + z"), dyads.assign(z=dyads["x"] - dyads["px"]), cluster="dyad")
    few = pd.DataFrame(np.random.default_rng(1).normal(size=(4, 5)), columns=[*"yabcd"])
    with pytest.raises(DataError, match="'d' is a linear combination of 'a' and 'b' and 'c'"):
        msem.sem("y ~ a + b + c + d", few)


def test_fewer_degrees_of_freedom_within_clusters_than_covariates() -> None:
    rng = np.random.default_rng(3)
    codes = np.repeat(np.arange(60), np.where(np.arange(60) < 3, 2, 1))
    x = rng.normal(size=(len(codes), 4))
    y = x @ np.full(4, 0.4) + 0.7 * rng.normal(size=60)[codes] + rng.normal(size=len(codes))
    d = pd.DataFrame(x, columns=[*"abcd"]).assign(y=y, g=codes)
    fit = msem.sem(TWO.format("a + b + c + d"), d, cluster="g")
    require_maximum(fit, {"": d}, "g")


LOADINGS = "y0 + l1*y1 + l2*y2 + l3*y3 + l4*y4"
ALIKE = f"level: 1\n fw =~ {LOADINGS}\nlevel: 2\n fb =~ {LOADINGS}\n" + "\n".join(
    f" y{k} ~~ 0*y{k}" for k in range(5)
)


def few_teams(teams: int, size: int = 8) -> pd.DataFrame:
    rng = np.random.default_rng(4)
    codes = np.repeat(np.arange(teams), size)
    common = rng.normal(size=len(codes)) + 0.7 * rng.normal(size=teams)[codes]
    y = 0.8 * common[:, None] + 0.6 * rng.normal(size=(len(codes), 5))
    return pd.DataFrame(y, columns=[f"y{k}" for k in range(5)]).assign(g=codes)


@pytest.mark.filterwarnings("ignore::msem.errors.SmallSampleWarning")
def test_fewer_clusters_than_variables() -> None:
    d = few_teams(4)
    with pytest.warns(ConvergenceWarning, match="4 clusters for 5 between-level variables"):
        fit = msem.sem(ALIKE, d, cluster="g", space="natural")
    require_maximum(fit, {"": d}, "g")
    assert (fit.status, np.isnan(fit.fit_measures()["chisq"])) == ("no_chi_square", True)
    with pytest.warns(ImproperSolutionWarning, match="kept positive semidefinite"):
        default = msem.sem(ALIKE, d, cluster="g")
    require_maximum(default, {"": d}, "g")
    assert (default.status, default.unrestricted_llf > default.llf) == ("boundary", True)


def test_variables_of_a_level_are_counted_against_its_clusters() -> None:
    """Of three levels the classes answer for their own variables and the schools for theirs."""
    rng = np.random.default_rng(2)
    school, own = np.repeat(np.arange(4), 12), np.repeat(np.arange(12), 4)
    y = rng.normal(size=(48, 2)) + rng.normal(size=(12, 2))[own] + rng.normal(size=(4, 2))[school]
    d = pd.DataFrame(y, columns=["a", "b"]).assign(s=school, c=own)
    for k in range(3):
        d[f"x{k}"] = rng.normal(size=12)[own]
    of_classes = "level: 2\n x0 ~~ x0 + x1\n x1 ~~ x1\n x2 ~~ x2\n a ~~ a\n b ~~ b\n"
    model = f"level: 1\n a ~~ a + b\n b ~~ b\n{of_classes}level: 3\n a ~~ a + b\n b ~~ b"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        enough = msem.sem(model, d, cluster=["s", "c"], space="natural")
        few = msem.sem(model, d[d["s"] < 2], cluster=["s", "c"], space="natural")
    assert enough.sample.shortage == ""
    assert few.sample.shortage == "2 clusters for 2 level-3 variables"


@pytest.mark.filterwarnings("ignore::msem.errors.SmallSampleWarning")
def test_replicates_with_fewer_clusters_than_variables_are_fitted() -> None:
    fit = msem.sem(ALIKE, few_teams(7), cluster="g")
    drawn = fit.bootstrap(30, seed=1, progress=False, threads=1)
    assert drawn.failed["too few distinct clusters"] == 0
    assert len(drawn.array) >= 29
    assert fit.status == "ok"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        six = msem.sem(ALIKE, few_teams(6), cluster="g")
    assert six.jackknife(progress=False).failed["too few distinct clusters"] == 0  # without one five are left


@pytest.mark.parametrize("missing", ["listwise", "fiml"])
def test_fewer_rows_than_variables(missing: str) -> None:
    rng = np.random.default_rng(5)
    x = 0.8 * rng.normal(size=(7, 1)) + 0.6 * rng.normal(size=(7, 8))
    d = pd.DataFrame(x, columns=[f"x{k}" for k in range(8)])
    if missing == "fiml":
        d.iloc[[1, 4], [0, 3]] = np.nan
    names = " + ".join(f"1*{name}" for name in d)
    text = f"f =~ {names}\n" + "\n".join(f"{name} ~~ e*{name}" for name in d)
    with pytest.warns(ConvergenceWarning, match="no maximum with 7 rows for 8 variables"):
        fit = msem.sem(text, d, missing=missing, meanstructure=True)
    require_maximum(fit, {"": d})


@pytest.mark.parametrize("missing", ["listwise", "fiml"])
@pytest.mark.filterwarnings("ignore::msem.errors.MsemWarning")
def test_what_has_no_maximum_is_named_after_trying(missing: str) -> None:
    d = pd.DataFrame(np.random.default_rng(6).normal(size=(6, 6)), columns=[*"abcdef"])
    text = "\n".join(f"{a} ~~ {b}" for i, a in enumerate(d) for b in [*d][i:])
    fit = msem.sem(text, d, missing=missing)
    assert not fit.converged
    assert {one.name for one in fit.problems} >= {"not_converged", "no_chi_square"}
    every = "\n".join(f"y{i} ~~ y{k}" for i in range(5) for k in range(i, 5))
    text = f"level: 1\n{every}\nlevel: 2\n{every}"
    teams = msem.sem(text, few_teams(4), cluster="g", missing=missing, space="natural")
    assert not teams.converged
    assert msem.sem(text, few_teams(4), cluster="g", missing=missing).status == "boundary"


def grouped() -> pd.DataFrame:
    rng = np.random.default_rng(7)
    codes = np.repeat(np.arange(40), 3)
    common = rng.normal(size=120) + 0.7 * rng.normal(size=40)[codes]
    y = 0.8 * common[:, None] + 0.6 * rng.normal(size=(120, 3))
    return pd.DataFrame(y, columns=["y1", "y2", "y3"]).assign(g=codes, school=np.where(codes < 25, "a", "b"))


EQUAL = ["loadings", "intercepts", "residuals", "lv.variances", "means"]
FACTOR = "level: 1\n fw =~ y1 + y2 + y3\nlevel: 2\n fb =~ y1 + y2 + y3"


@pytest.mark.filterwarnings("ignore::msem.errors.MsemWarning")
def test_a_variable_that_one_group_has_not() -> None:
    d = grouped()
    d.loc[d["school"] == "b", "y3"] = np.nan
    fit = msem.sem(FACTOR, d, cluster="g", group="school", group_equal=EQUAL, missing="fiml")
    require_maximum(fit, dict(list(d.groupby("school"))), "g")
    with pytest.raises(DataError, match="'y3' has no observed value"):
        msem.sem(FACTOR, d.assign(y3=np.nan), cluster="g", group="school", missing="fiml")


@pytest.mark.parametrize("missing", ["listwise", "fiml"])
@pytest.mark.filterwarnings("ignore::msem.errors.MsemWarning")
def test_a_group_whose_clusters_have_one_unit(missing: str) -> None:
    d = grouped()
    d = d[(d["school"] == "a") | ~d["g"].duplicated()].reset_index(drop=True)
    if missing == "fiml":
        d.loc[[3, 80], "y2"] = np.nan
    fit = msem.sem(FACTOR, d, cluster="g", group="school", group_equal=EQUAL, missing=missing)
    require_maximum(fit, dict(list(d.groupby("school"))), "g")
    with pytest.raises(DataError, match=r"each of the .. clusters has one unit"):
        msem.sem(FACTOR, d[~d["g"].duplicated()], cluster="g", group="school", group_equal=EQUAL)
