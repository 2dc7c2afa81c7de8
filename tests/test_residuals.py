"""Residual measures against lavaan on every complete reference case, and against their definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

import ram
import reference
from msem.postestimation.fit_indices import FitMeasureInputs, indices
from msem.postestimation.srmr import (
    GroupMoments,
    browne_residual_chisq,
    level_residuals,
    lisrel_gfi,
    residual_measures,
    srmr_level,
)

Array = NDArray[np.float64]
CHISQ = [case for case in reference.names() if "chisq" in reference.expected(case).get("fit_measures", {})]
TWO_LEVEL = [case for case in CHISQ if reference.meta(case)["levels"] == 2]
SINGLE = [case for case in CHISQ if reference.meta(case)["levels"] == 1]
COMPLETE = [case for case in SINGLE if reference.meta(case)["missing"] == "listwise"]
FREE_MEANS = [case for case in COMPLETE if not reference.meta(case)["group"]]
CLOSE: dict[str, Any] = {"rtol": 1e-8, "atol": 1e-8}


def group_sizes(case: str) -> list[float]:
    """Units per group, in lavaan's order of groups."""
    labels = reference.expected(case)["group_labels"]
    if not labels:
        return [float(reference.expected(case)["nobs"])]
    counts = reference.data(case)[reference.meta(case)["group"]].astype(str).value_counts()
    return [float(counts[str(label)]) for label in labels]


def lifted(implied: Array) -> Array:
    """Eigenvalues of an exactly singular matrix lifted to 1e-6 of the largest, as lavaan does first."""
    values, vectors = np.linalg.eigh(implied)
    if not np.isclose(values[0], 0, atol=1e-12):
        return implied
    return np.asarray((vectors * np.maximum(values, 1e-6 * values[-1])) @ vectors.T)


@reference.needs_reference
@pytest.mark.parametrize("case", TWO_LEVEL)
def test_srmr_of_both_levels(case: str) -> None:
    result = reference.expected(case)
    srmr = [
        srmr_level(ram.matrix(result["h1"][block]["cov"]), lifted(ram.matrix(implied["cov"])))
        for block, implied in result["implied"].items()
    ]
    measures = level_residuals([srmr[::2], srmr[1::2]], group_sizes(case))
    theirs = [result["fit_measures"][name] for name in measures]
    np.testing.assert_allclose(list(measures.values()), theirs, **CLOSE)


def moments(case: str) -> list[GroupMoments]:
    """lavaan's moments of a single-level case."""
    result = reference.expected(case)
    fixed = {row["lhs"] for row in result["parameter_table"] if row["exo"]}
    implied, sample = result["implied"], result["h1"]
    blocks = [(implied, sample)] if "cov" in implied else [(implied[g], sample[g]) for g in implied]
    return [
        GroupMoments(
            ram.matrix(one["cov"]),
            ram.matrix(model["cov"]),
            size,
            *(np.array(list(m["mean"].values())) if "mean" in m else None for m in (one, model)),
            exogenous=np.array([name in fixed for name in ram.variables(one["cov"])]),
        )
        for (model, one), size in zip(blocks, group_sizes(case), strict=True)
    ]


@reference.needs_reference
@pytest.mark.parametrize("case", SINGLE)
def test_single_level_residuals(case: str) -> None:
    measures = residual_measures(moments(case))
    theirs = reference.expected(case)["fit_measures"]
    np.testing.assert_allclose(list(measures.values()), [theirs[name] for name in measures], **CLOSE)


@reference.needs_reference
@pytest.mark.parametrize("case", COMPLETE)
def test_lisrel_family(case: str) -> None:
    theirs, groups = reference.expected(case)["fit_measures"], moments(case)
    ours = indices(
        FitMeasureInputs(
            llf=theirs["logl"],
            unrestricted_llf=theirs["unrestricted.logl"],
            npar=theirs["npar"],
            df=theirs["df"],
            nobs=theirs["ntotal"],
            nmoments=sum(group.nmoments for group in groups),
            gfi_lisrel=lisrel_gfi(groups),
            residuals=residual_measures(groups),
        )
    )
    names = ["gfi_lisrel", "agfi_lisrel", "pgfi", "rmr", "crmr_nomean", "srmr_mplus"]
    available = [name for name in names if name in theirs]
    np.testing.assert_allclose([ours[n] for n in available], [theirs[name] for name in available], **CLOSE)
    assert len(available) == len(names)


def jacobian(case: str) -> Array:
    """Derivatives of all implied moments, groups below each other, by central differences."""
    result = reference.expected(case)
    names = ram.variables(next(iter(result["implied"].values()))["cov"])
    free = sorted({row["free"] for row in result["parameter_table"] if row["free"]})

    def stacked(position: int, step: float) -> Array:
        parts = []
        for rows in ram.blocks(result["parameter_table"], result["group_labels"]).values():
            moved = [(r["lhs"], r["op"], r["rhs"], r["est"] + step * (r["free"] == position)) for r in rows]
            cov, mean = ram.total_moments(moved)
            below = np.tril_indices(len(names))
            parts += [mean[names].to_numpy(), cov.loc[names, names].to_numpy()[below]]
        return np.concatenate(parts)

    columns = {k: (stacked(k, 1e-5) - stacked(k, -1e-5)) / 2e-5 for k in free}
    number = {row["plabel"]: row["free"] for row in result["parameter_table"]}
    for row in result["parameter_table"]:
        if row["op"] == "==":
            columns[number[row["lhs"]]] += columns.pop(number[row["rhs"]])
    return np.column_stack(list(columns.values()))


@reference.needs_reference
@pytest.mark.parametrize("case", FREE_MEANS)
def test_residual_chisq_of_saturated_means(case: str) -> None:
    theirs = reference.expected(case)["test"]["browne.residual.nt.model"]["stat"]
    assert browne_residual_chisq(moments(case)) == pytest.approx(theirs, rel=1e-9)


@reference.needs_reference
def test_residual_chisq_of_restricted_means() -> None:
    case = "hs_cfa_group"
    theirs = reference.expected(case)["test"]["browne.residual.nt.model"]["stat"]
    assert browne_residual_chisq(moments(case), jacobian(case)) == pytest.approx(theirs, rel=1e-9)
    assert browne_residual_chisq(moments(case)) > theirs + 0.5


def test_srmr_by_hand() -> None:
    sample = np.array([[4.0, 1.0], [1.0, 1.0]])
    implied = np.array([[9.0, 0.0], [0.0, 2.0]])
    # Correlations .5 and 0: one squared difference of .25 among three elements.
    assert srmr_level(sample, implied) == pytest.approx(np.sqrt(0.25 / 3))
    assert srmr_level(sample[:1, :1], implied[:1, :1]) == 0


def test_srmr_without_a_variance_is_nan() -> None:
    sample = np.array([[1.0, 0.2], [0.2, 1.0]])
    for variance in (0.0, -0.1):
        implied = np.array([[variance, 0.0], [0.0, 1.0]])
        assert np.isnan(srmr_level(sample, implied))


def covariance(root: Array) -> Array:
    return np.asarray(root @ root.T + np.eye(len(root)))


ROOTS = arrays(np.float64, (3, 3), elements=st.floats(-3, 3))
SCALES = arrays(np.float64, 3, elements=st.floats(0.1, 10))


@given(ROOTS, ROOTS, SCALES)
def test_standardized_measures_do_not_depend_on_units(one: Array, two: Array, scale: Array) -> None:
    sample, implied, units = covariance(one), covariance(two), np.diag(scale)
    plain = GroupMoments(sample, implied, 100.0, np.ones(3), np.zeros(3))
    scaled = GroupMoments(units @ sample @ units, units @ implied @ units, 100.0, scale, np.zeros(3))
    before, after = residual_measures([plain]), residual_measures([scaled])
    for name in ("srmr", "crmr", "crmr_nomean", "srmr_mplus"):
        assert after[name] == pytest.approx(before[name], rel=1e-9, abs=1e-12)
    assert lisrel_gfi([scaled]) == pytest.approx(lisrel_gfi([plain]), rel=1e-9)
    assert browne_residual_chisq([scaled]) == pytest.approx(browne_residual_chisq([plain]), rel=1e-9)


@given(ROOTS)
def test_no_residual_no_misfit(root: Array) -> None:
    sample = covariance(root)
    group = GroupMoments(sample, sample, 50.0)
    assert set(residual_measures([group]).values()) == {0.0}
    assert lisrel_gfi([group]) == 1
    assert browne_residual_chisq([group]) == 0


def test_groups_count_by_their_size() -> None:
    identity, other = np.eye(2), np.array([[1.0, 0.5], [0.5, 1.0]])
    perfect = GroupMoments(identity, identity, 300.0)
    poor = GroupMoments(other, identity, 100.0)
    for measure in ("rmr", "srmr", "crmr", "srmr_mplus"):
        pooled = residual_measures([perfect, poor])[measure]
        assert pooled == pytest.approx(residual_measures([poor])[measure] / 4)
    assert lisrel_gfi([perfect, poor]) == pytest.approx((3 + lisrel_gfi([poor])) / 4)
    assert browne_residual_chisq([perfect, poor]) == pytest.approx(100 * 0.25)
    within, between = [0.0, 0.4], [0.2, 0.2]
    assert level_residuals([within, between], [300, 100]) == pytest.approx(
        {"srmr": 0.3, "srmr_within": 0.1, "srmr_between": 0.2}
    )
