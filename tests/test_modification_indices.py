"""Modification indices: against the other program's, against refitted models, and what is not among them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

import fits
import msem
import reference
import reference_fits as rf
import texts
from msem.distributions import normal_rejection
from msem.errors import ModelError
from msem.estimation.objective import build_objective
from msem.postestimation.candidates import candidates, extended_table
from msem.postestimation.modification import modify
from msem.postestimation.score_tests import cluster_spread

Floats = NDArray[np.float64]
# Their indices of two-level models of several groups are wrong: see the likelihood-ratio test of one below.
HAVE_INDICES = [
    case
    for case in rf.CASES
    if not (case in rf.GROUPED and case in rf.TWO_LEVEL)
    and any(row["mi"] > 1e-8 for row in reference.expected(case)["modindices_top10"] or ())
]
LOADINGS = texts.COVARIATE
SIZES = [4, 6, 9] * 60


def fitted(text: str = LOADINGS, **options: Any) -> msem.Fit:
    return msem.sem(text, fits.data(SIZES), cluster="cluster", **options)


def by_name(table: pd.DataFrame) -> dict[rf.Key, Any]:
    return {rf.key(row.lhs, row.op, row.rhs, row.level, row.group): row for row in table.itertuples()}


def theirs(case: str) -> dict[rf.Key, dict[str, Any]]:
    """Their rows; those of 1e-20 are moments of fixed covariates and have nothing to agree with."""
    rows = [row for row in reference.expected(case)["modindices_top10"] if row["mi"] > 1e-8]
    nlevels = reference.meta(case)["levels"]
    places = [divmod(row.get("block", 1) - 1, nlevels) for row in rows]
    return {
        rf.key(r["lhs"], r["op"], r["rhs"], level + 1, group + 1): r
        for r, (group, level) in zip(rows, places, strict=True)
    }


def of_covariate(case: str, key: rf.Key) -> bool:
    """Whether a row belongs to the distribution of a fixed covariate, which is not modelled."""
    group, level, op, lhs, _ = key
    return op == "~" and lhs in rf.fit(case).table.exogenous(level, group)


def residual_variances(case: str, level: int, group: int, names: set[str]) -> Floats:
    """A covariance with a variable whose residual variance is not positive has no standardized form."""
    table = rf.fit(case).estimates()
    here = (table["level"] == level) & (table["group"] == group)
    own = table[(table["op"] == "~~") & (table["lhs"] == table["rhs"]) & here]
    return own.loc[own["lhs"].isin(names), "est"].to_numpy()


@reference.needs_reference
@pytest.mark.parametrize("case", HAVE_INDICES)
def test_indices_and_expected_changes_agree_with_lavaan(case: str) -> None:
    ours = by_name(rf.fit(case).modification_indices())
    for key, row in theirs(case).items():
        if of_covariate(case, key):
            assert key not in ours
            continue
        mine = ours[key]
        assert mine.mi == pytest.approx(row["mi"], rel=1e-5)
        assert mine.epc == pytest.approx(row["epc"], rel=1e-5)
        # Their standardized change of a variance is multiplied by the variance in place of being divided by it.
        if (row["op"], row["lhs"]) != ("~~", row["rhs"]):
            for name in ("lv", "all", "nox"):
                if np.isfinite(getattr(mine, f"sepc_{name}")):
                    assert getattr(mine, f"sepc_{name}") == pytest.approx(row[f"sepc.{name}"], rel=1e-5)
                else:
                    assert (
                        residual_variances(case, mine.level, mine.group, {mine.lhs, mine.rhs}).min() <= 1e-12
                    )


@reference.needs_reference
@pytest.mark.parametrize("case", HAVE_INDICES)
def test_no_larger_index_is_absent_from_lavaan(case: str) -> None:
    """Their ten largest are ours, but for regressions of indicators on covariates, which they leave out."""
    known = theirs(case)
    least = min(row["mi"] for row in known.values()) if len(known) == 10 else 1e-8
    for key, row in by_name(rf.fit(case).modification_indices(minimum=least * 1.001)).items():
        covariates = rf.fit(case).table.covariates(row.level, row.group)
        assert key in known or (row.op == "~" and row.rhs in covariates)


def test_there_are_reference_cases_where_there_is_a_reference() -> None:
    assert not reference.names() or len(HAVE_INDICES) >= 15


@reference.needs_reference
@pytest.mark.parametrize("group", [1, 2])
def test_two_level_indices_of_groups_are_near_the_drop_in_chi_square(group: int) -> None:
    """And lavaan's are not: 1.11 for 2.63 in the second group, 0.03 for 0.24 in the first."""
    case = "demo_multigroup"
    fit = rf.fit(case)
    row = by_name(fit.modification_indices())[rf.key("y2", "~~", "y3", 1, group)]
    blocks = reference.model(case).split("group:")
    blocks[group] = blocks[group].replace("level: 1\n", "level: 1\n y2 ~~ y3\n", 1)
    larger = msem.sem("group:".join(blocks), **rf.arguments(case))
    assert row.mi == pytest.approx(2 * (larger.llf - fit.llf), rel=0.05)
    found = larger.estimates().query(f"lhs == 'y2' and rhs == 'y3' and group == {group}")
    assert row.epc == pytest.approx(found["est"].item(), rel=0.05)


def test_index_is_the_schur_complement_of_the_information() -> None:
    fit = fitted()
    added = [c for c in candidates(fit.table) if c.row.op == "~~" and c.index is None]
    table = extended_table(fit.table, added)
    objective = build_objective(table, fit.objective.statistics)
    theta = np.append(fit.estimate.theta, np.zeros(len(added)))
    information, n = objective.expected_information(theta), fit.npar
    slope = -0.5 * objective.gradient(theta)[n:]
    spread = information[n:, n:] - information[n:, :n] @ np.linalg.solve(
        information[:n, :n], information[:n, n:]
    )
    found = modify(fit.estimate, added)
    np.testing.assert_allclose(found.statistic, slope**2 / spread.diagonal(), rtol=1e-6)
    np.testing.assert_allclose(found.change, slope / spread.diagonal(), rtol=1e-6)


def test_robust_index_has_the_covariance_of_the_scores() -> None:
    fit = fitted()
    added = [c for c in candidates(fit.table) if c.row.op == "~~" and c.index is None]
    objective = build_objective(extended_table(fit.table, added), fit.objective.statistics)
    theta, n = np.append(fit.estimate.theta, np.zeros(len(added))), fit.npar
    (clusters,) = fit.sample.clusters
    scores = clusters.scores(objective.core, theta)
    information = objective.expected_information(theta)
    cleared = scores[:, n:] - scores[:, :n] @ np.linalg.solve(information[:n, :n], information[:n, n:])
    want = cleared.sum(axis=0) ** 2 / np.einsum("ij,ij->j", cleared, cleared)
    np.testing.assert_allclose(
        modify(fit.estimate, added, cluster_spread(fit.sample.clusters)).robust, want, rtol=1e-6
    )


def misfit(amount: float) -> tuple[msem.Fit, msem.Fit]:
    """A factor model without and with the residual covariance that the population has."""
    cov = np.outer([1, 0.8, 0.7, 0.6], [1, 0.8, 0.7, 0.6]) + np.eye(4)
    cov[0, 1] = cov[1, 0] = cov[0, 1] + amount
    names = ["a", "b", "c", "d"]
    moments = pd.DataFrame(cov, index=names, columns=names)
    model = "f =~ a + b + c + d"
    small = msem.sem(model, sample_cov=moments, sample_nobs=1000)
    return small, msem.sem(model + "\na ~~ b", sample_cov=moments, sample_nobs=1000)


def test_index_and_change_are_those_of_the_refitted_model_for_small_misfit() -> None:
    errors = []
    for amount in (0.02, 0.01):
        small, large = misfit(amount)
        row = by_name(small.modification_indices())[rf.key("a", "~~", "b", 1)]
        ratio = 2 * (large.llf - small.llf)
        errors.append([row.mi / ratio - 1, row.epc / large.params["a~~b"] - 1])
    assert np.all(np.abs(errors) < 0.05)
    np.testing.assert_allclose(np.abs(errors[1]), np.abs(errors[0]) / 2, rtol=0.1)


@pytest.mark.filterwarnings("ignore::msem.errors.ImproperSolutionWarning")
def test_two_level_index_is_near_the_drop_in_chi_square() -> None:
    fit = fitted()
    for row in fit.modification_indices(op="~~").itertuples():
        text = LOADINGS.replace(f"level: {row.level}", f"level: {row.level}\n    {row.lhs} ~~ {row.rhs}")
        drop = fit.chisq - fitted(text).chisq
        assert row.mi == pytest.approx(drop, rel=0.25, abs=0.05)


def test_rows_that_cannot_be_freed_are_left_out() -> None:
    table = fitted().modification_indices()
    names = {(row.level, row.op, row.lhs, row.rhs) for row in table.itertuples()}
    assert (
        not {(1, "=~", "fw", "y1"), (2, "=~", "fb", "y1"), (2, "~1", "fb", ""), (1, "~1", "y1", "")} & names
    )
    assert not {"x1", "w1"} & set(table["lhs"])
    assert (table["mi"] > 1e-10).all()
    assert np.isfinite(table[["mi", "epc", "pvalue"]]).all(axis=None)


def test_a_saturated_model_has_no_indices() -> None:
    fit = msem.sem("level: 1\n y1 ~~ y2\nlevel: 2\n y1 ~~ y2", fits.data(SIZES), cluster="cluster")
    table = fit.modification_indices()
    assert len(table) == 0
    assert list(table) == list(fitted().modification_indices())


def test_units_do_not_matter() -> None:
    data = fits.data(SIZES)
    plain = by_name(msem.sem(LOADINGS, data, cluster="cluster").modification_indices())
    scaled = data.assign(y2=1e4 * data["y2"] + 1e5, x1=data["x1"] / 1e3 + 7)
    other = by_name(msem.sem(LOADINGS, scaled, cluster="cluster").modification_indices())
    assert set(plain) == set(other)
    for key, row in plain.items():
        assert other[key].mi == pytest.approx(row.mi, rel=1e-5, abs=1e-9)
        assert other[key].sepc_all == pytest.approx(row.sepc_all, rel=1e-5, abs=1e-9)


def test_parameters_fixed_at_another_value_are_candidates() -> None:
    est = fitted().params["fb=~y2.l2"]

    def index(value: float) -> Any:
        text = LOADINGS.replace("fb =~ y1 + y2", f"fb =~ y1 + {value!r}*y2")
        return by_name(fitted(text).modification_indices())[rf.key("fb", "=~", "y2", 2)]

    assert index(0.2).mi > 10
    for change in (0.005, -0.005):
        assert index(float(est) - change).epc == pytest.approx(change, rel=0.03)


def test_equal_loadings_count_as_one_parameter() -> None:
    """The released row is free of the label: its index is not that of a row of a label-free model."""
    text = LOADINGS.replace("y2 + y3", "a*y2 + a*y3")
    assert len(fitted(text).modification_indices(op="=~")) > len(fitted().modification_indices(op="=~"))


def test_rows_can_be_selected_and_sorted() -> None:
    fit = fitted()
    every = fit.modification_indices()
    assert (np.diff(every["mi"]) < 1e-9).all()  # equal ones are in the order of the model
    assert set(fit.modification_indices(op=["~~", "~"], level=2)["level"]) == {2}
    assert set(fit.modification_indices(level="between")["level"]) == {2}
    assert len(fit.modification_indices(minimum=1.0)) == (every["mi"] >= 1).sum()
    unsorted = fit.modification_indices(sort=False)
    assert unsorted["level"].is_monotonic_increasing
    assert sorted(unsorted["mi"]) == sorted(every["mi"])


def test_power_is_that_of_the_noncentral_chi_square() -> None:
    table = fitted().modification_indices(power=True, delta=0.2, alpha=0.01)
    want = stats.ncx2.sf(stats.chi2.isf(0.01, 1), 1, 0.04 * table["mi"] / table["epc"] ** 2)
    np.testing.assert_allclose(table["power"], want, rtol=1e-8)
    assert normal_rejection(0.0, 0.05) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("delta", "decision"), [(0.001, "inconclusive"), (5.0, "not misspecified")], ids=["weak", "strong"]
)
def test_power_decides_what_an_insignificant_index_means(delta: float, decision: str) -> None:
    table = fitted().modification_indices(power=True, delta=delta)
    assert set(table.loc[table["pvalue"] > 0.05, "decision"]) == {decision}


def test_a_significant_change_that_is_too_small_is_no_misspecification() -> None:
    text = LOADINGS.replace("fb =~ y1 + y2", "fb =~ y1 + 0.2*y2")
    fit = fitted(text)
    found = [
        by_name(fit.modification_indices(power=True, delta=delta))[rf.key("fb", "=~", "y2", 2)].decision
        for delta in (0.1, 3.0)
    ]
    assert found == ["misspecified", "not misspecified"]


def test_bad_requests_are_refused() -> None:
    fit = fitted()
    with pytest.raises(ValueError, match="op must be one of"):
        fit.modification_indices(op="=")
    with pytest.raises(ValueError, match="delta must be positive"):
        fit.modification_indices(power=True, delta=-1.0)
    with pytest.raises(ValueError, match="level must be"):
        fit.modification_indices(level=3)
    with pytest.raises(ValueError, match="level must be"):
        fit.score_test(add="y1 ~~ y2", level=3)
    with pytest.raises(ValueError, match="level must be"):
        fit.modification_indices(level=True)


def test_indices_of_a_fit_that_has_not_converged_are_refused() -> None:
    with pytest.warns(msem.errors.ConvergenceWarning):
        fit = fitted(max_iterations=1)
    with pytest.raises(ModelError, match="has not converged"):
        fit.modification_indices()


def test_robust_fits_have_robust_indices() -> None:
    plain, robust = (
        fitted().modification_indices(sort=False),
        fitted(estimator="MLR").modification_indices(sort=False),
    )
    np.testing.assert_allclose(robust["mi"], plain["mi"], rtol=1e-9)
    fit = fitted()
    added = [c for c in candidates(fit.table) if c.row.op == "~~" and c.index is None]
    want = modify(fit.estimate, added, cluster_spread(fit.sample.clusters)).robust
    np.testing.assert_allclose(robust.loc[robust["op"] == "~~", "mi_robust"], want, rtol=1e-9)
    np.testing.assert_allclose(robust["pvalue"], stats.chi2.sf(robust["mi_robust"], 1), rtol=1e-9)
    assert {"robust", "pvalue_robust"} <= set(
        fitted(estimator="MLR").score_test(add="y1 ~~ y2", level=1).total
    )
