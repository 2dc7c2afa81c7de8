"""Rotation: criteria against their formulas, conditions and standard errors against differences and lavaan."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import pandas as pd
import pytest

import msem
import reference
from msem import _core
from msem.errors import DataError, ModelError, UnsupportedError
from msem.estimation.estimate import estimate
from msem.estimation.matrices import row_values
from msem.estimation.rotation import (
    canonical,
    criterion_of,
    echelon,
    pivot_rows,
    rotated_values,
    unrotated_table,
)
from msem.estimation.sampling import sampling_covariance
from msem.model.rotation import ExploratoryBlock, most_factors, rotation_of

VARIABLES = [f"y{k}" for k in range(1, 7)]
SIX = " + ".join(VARIABLES)
TWO = f"""
level: 1
  efa("w")*f1 + efa("w")*f2 =~ {SIX}
level: 2
  efa("b")*g1 + efa("b")*g2 =~ {SIX}
"""
BLOCK = f'efa("a")*f1 + efa("a")*f2 =~ {SIX}\n'
STRUCTURAL = f"""
level: 1
  efa("w")*f1 + efa("w")*f2 =~ {SIX}
  f1 + f2 ~ x1 + x2
  x3 ~ f1 + f2
level: 2
  efa("b")*g1 + efa("b")*g2 =~ {SIX}
  w1 + w2 ~ g1 + g2
"""
ROTATIONS = {
    "geomin": ("geomin", None),
    "geomin, raw": ("geomin", {"std_ov": False}),
    "geomin, orthogonal": ("geomin", {"orthogonal": True, "epsilon": 0.01}),
    "oblimin": ("oblimin", {"gamma": 0.25}),
    "quartimin, Kaiser": ("quartimin", {"kaiser": True}),
    "varimax": ("varimax", None),
    "varimax, raw": ("varimax", {"kaiser": False, "std_ov": False}),
    "quartimax": ("quartimax", {"kaiser": True}),
    "crawford_ferguson": ("cf", {"kappa": "equamax"}),
    "target": (
        "target",
        {"target": [[np.nan, 0], [np.nan, 0], [np.nan, 0.1], [0, np.nan], [0, np.nan], [0, 0.5]]},
    ),
}


@functools.cache
def fit(text, rotation="geomin"):
    method, arguments = ROTATIONS[rotation]
    return msem.sem(text, msem.load_demo(), cluster="cluster", rotation=method, rotation_args=arguments)


def differences(function, x, step=1e-5):
    """Central differences with one extrapolation, a column for each element of x."""
    columns = []
    for k in range(len(x)):
        unit = np.zeros(len(x))
        unit[k] = step
        near = (function(x + unit) - function(x - unit)) / (2 * step)
        far = (function(x + 2 * unit) - function(x - 2 * unit)) / (4 * step)
        columns.append((4 * near - far) / 3)
    return np.array(columns).T


# -- the criteria ---------------------------------------------------------------------------------------------------


def literal(method, arguments, loadings):
    """The criteria as the literature has them."""
    p, m = loadings.shape
    x, n = loadings**2, np.ones((m, m)) - np.eye(m)
    if method == "geomin":
        return np.sum(np.prod(x + arguments.get("epsilon", 0.001), axis=1) ** (1 / m))
    if method in ("oblimin", "quartimin"):
        gamma = arguments.get("gamma", 0.0)
        return 0.25 * np.sum(x * ((np.eye(p) - gamma / p * np.ones((p, p))) @ x @ n))
    if method == "varimax":
        return -0.25 * np.sum((x - x.mean(axis=0)) ** 2)
    if method == "quartimax":
        return 0.25 * np.sum(x * (x @ n))
    if method == "target":
        target = np.array(arguments["target"], dtype=float)
        return 0.5 * np.nansum((loadings - target) ** 2)
    kappa = arguments["kappa"]
    kappa = {"equamax": m / (2 * p), "parsimax": (m - 1) / (p + m - 2), "facparsim": 1.0}.get(kappa, kappa)
    return (1 - kappa) * 0.25 * np.sum(x * (x @ n)) + kappa * 0.25 * np.sum(
        x * ((np.ones((p, p)) - np.eye(p)) @ x)
    )


CRITERIA = [
    ("geomin", {}),
    ("geomin", {"epsilon": 0.05}),
    ("oblimin", {"gamma": 0.5}),
    ("quartimin", {}),
    ("varimax", {}),
    ("quartimax", {}),
    ("crawford_ferguson", {"kappa": 0.3}),
    ("crawford_ferguson", {"kappa": "equamax"}),
    ("crawford_ferguson", {"kappa": "parsimax"}),
    ("target", {"target": [[0.7, 0, np.nan], [np.nan, 0, 0]] * 4}),
]
SHAPE = (8, 3)


def compiled(method, arguments):
    block = ExploratoryBlock("b", 1, 1, ("f1", "f2", "f3"), tuple(f"y{k}" for k in range(8)))
    return criterion_of(rotation_of(method, arguments), block)


def some_loadings(seed=3):
    rng = np.random.default_rng(seed)
    simple = np.kron(np.eye(3), np.ones((3, 1)))[:8] * 0.7
    return np.asfortranarray(simple + 0.15 * rng.normal(size=SHAPE))


@pytest.mark.parametrize(("method", "arguments"), CRITERIA)
def test_criteria_are_those_of_the_literature(method, arguments):
    criterion, loadings = compiled(method, arguments), some_loadings()
    value, gradient = criterion.evaluate(loadings)
    assert value == pytest.approx(literal(method, arguments, loadings), rel=1e-12)
    numeric = differences(lambda x: np.array([criterion.evaluate(x.reshape(SHAPE))[0]]), loadings.ravel())
    assert gradient == pytest.approx(numeric.reshape(SHAPE), abs=1e-8)


@pytest.mark.parametrize("orthogonal", [False, True])
@pytest.mark.parametrize(("method", "arguments"), CRITERIA)
def test_derivatives_of_the_conditions(method, arguments, orthogonal):
    criterion, loadings = compiled(method, arguments), some_loadings()
    phi = np.eye(3) if orthogonal else np.array([[1, 0.3, -0.2], [0.3, 1, 0.1], [-0.2, 0.1, 1]])
    below = np.tril_indices(3, -1)

    def values(x):
        correlations = phi.copy()
        if not orthogonal:
            pairs = [(i, j) for j in range(3) for i in range(j + 1, 3)]
            for (i, j), one in zip(pairs, x[24:], strict=True):
                correlations[i, j] = correlations[j, i] = one
        return criterion.conditions(x[:24].reshape(SHAPE, order="F"), correlations, orthogonal)[0]

    x = loadings.ravel(order="F")
    if not orthogonal:
        x = np.append(x, [phi[i, j] for j in range(3) for i in range(j + 1, 3)])
    found = criterion.conditions(loadings, phi, orthogonal)
    assert len(found[0]) == (3 if orthogonal else 6) == len(below[0]) * (1 if orthogonal else 2)
    assert found[1] == pytest.approx(differences(values, x), abs=1e-7)


@pytest.mark.parametrize("orthogonal", [False, True])
@pytest.mark.parametrize(("method", "arguments"), [one for one in CRITERIA if one[0] != "varimax"])
def test_minima_are_stationary_and_the_lowest_of_any_seed(method, arguments, orthogonal):
    criterion, loadings = compiled(method, arguments), some_loadings()
    found = criterion.rotate(loadings, orthogonal, 30, 1)
    turn, rotated, value, *_ = found[0]
    phi = turn.T @ turn
    assert phi.diagonal() == pytest.approx(1, abs=1e-12)
    assert rotated @ phi @ rotated.T == pytest.approx(loadings @ loadings.T, abs=1e-10)
    assert rotated == pytest.approx(loadings @ np.linalg.inv(turn.T), abs=1e-10)
    assert criterion.conditions(rotated, phi, orthogonal)[0] == pytest.approx(0, abs=1e-8)
    assert value == pytest.approx(criterion.rotate(loadings, orthogonal, 30, 99)[0][2], rel=1e-8)
    assert sum(one[3] for one in found) == 30
    assert all(one[4] for one in found)
    assert [one[2] for one in found] == sorted(one[2] for one in found)
    # nothing nearby is lower
    rng = np.random.default_rng(0)
    for _ in range(20):
        near = turn + 1e-3 * rng.normal(size=(3, 3))
        near = np.linalg.qr(near)[0] if orthogonal else near / np.linalg.norm(near, axis=0)
        assert criterion.evaluate(np.asfortranarray(loadings @ np.linalg.inv(near.T)))[0] >= value - 1e-12


def test_one_factor_is_not_rotated():
    turn, rotated, *_ = _core.RotationCriterion.geomin(0.001).rotate(np.full((4, 1), 0.5), False, 30, 1)[0]
    assert (turn.tolist(), rotated.tolist()) == ([[1.0]], [[0.5]] * 4)


def test_a_target_has_the_shape_of_the_loadings():
    criterion = _core.RotationCriterion.partial_target(np.zeros((8, 2)), np.ones((8, 2)))
    for call in (criterion.evaluate, lambda x: criterion.rotate(x, False, 2, 1)):
        with pytest.raises(ValueError, match="a row for each indicator"):
            call(some_loadings())


def test_columns_are_sorted_by_their_largest_loading_and_positive():
    order, sign = canonical(np.array([[0.1, -0.8], [0.9, 0.1], [0.5, -0.2]]))
    assert (order.tolist(), sign.tolist()) == ([1, 0], [-1.0, 1.0])


def test_echelon_form():
    loadings = some_loadings()
    order = pivot_rows(loadings)
    turned = echelon(loadings, order)
    assert turned @ turned.T == pytest.approx(loadings @ loadings.T)
    assert np.triu(turned[order], 1) == pytest.approx(0, abs=1e-12)
    assert (turned[order].diagonal() > 0).all()


# -- fits -----------------------------------------------------------------------------------------------------------


@reference.needs_reference
def test_lavaan_has_the_same_solution():
    case = "efa2l_demo"
    theirs = reference.expected(case)
    found = msem.sem(reference.model(case), reference.data(case), cluster="cluster")
    assert found.llf == pytest.approx(theirs["logl"], abs=1e-5)
    assert (found.df, found.estimate.nfree) == (8, theirs["fit_measures"]["npar"])
    rows = {(r["lhs"], r["op"], r["rhs"], r["level"]): (r["est"], r["se"]) for r in theirs["parameter_table"]}
    table = found.estimates()
    both = [(row.est, row.se, *rows[row.lhs, row.op, row.rhs, row.level]) for row in table.itertuples()]
    est, se, their_est, their_se = np.array(both).T
    latent = table["op"].eq("=~") | table["lhs"].isin(["f1", "g1"])
    assert est[latent] == pytest.approx(their_est[latent], abs=1e-4)
    assert np.abs(est - their_est).max() < 2e-3 * se[se > 0].max()
    # lavaan differentiates oblique conditions at variances without the factor correlations: up to 2.4% off
    assert se == pytest.approx(their_se, rel=0.025)


@pytest.mark.parametrize("rotation", ROTATIONS)
def test_standard_errors_are_those_of_rotating_again(rotation):
    """Delta method by differences through the rotation of perturbed unrotated solutions."""
    errors_by_differences(fit(TWO, rotation))


@pytest.mark.parametrize("rotation", ["geomin", "varimax"])
def test_standard_errors_of_regressions_on_rotated_factors(rotation):
    errors_by_differences(fit(STRUCTURAL, rotation))


def errors_by_differences(found):
    table = found.table
    plain = unrotated_table(table, found.sample)
    before = estimate(plain, found.sample)
    vcov = sampling_covariance(before.objective, before.theta, "observed", before.tangent).vcov
    free = [i for i, row in enumerate(table.rows) if row.free]

    def after(theta):
        values = row_values(plain, theta)
        return rotated_values(table, found.objective.blocks, values, before.objective.variances(theta))[0][
            free
        ]

    assert after(before.theta) == pytest.approx(found.theta, abs=1e-5)
    jacobian = differences(after, before.theta, 1e-4)
    by_differences = np.sqrt((jacobian @ vcov @ jacobian.T).diagonal())
    assert found.standard_errors == pytest.approx(by_differences, rel=2e-5)


@pytest.mark.parametrize("rotation", ["geomin", "varimax"])
def test_directions_along_the_border_of_the_cone(rotation):
    """Where the maximum is on the border the rotated parameters have the directions that are left before rotation."""
    data, (method, arguments) = msem.load_demo(), ROTATIONS[rotation]
    with pytest.warns(msem.errors.MsemWarning):
        found = msem.sem(
            TWO,
            data[data["cluster"] <= 40],
            cluster="cluster",
            space="psd",
            rotation=method,
            rotation_args=arguments,
        )
    plain = unrotated_table(found.table, found.sample)
    before = estimate(plain, found.sample)
    border, turned = before.optimum.border, found.estimate.optimum.border
    free = [i for i, row in enumerate(found.table.rows) if row.free]

    def after(along):
        theta = before.theta + border.tangent @ along
        variances = before.objective.variances(theta)
        return rotated_values(found.table, found.objective.blocks, row_values(plain, theta), variances)[0][
            free
        ]

    by_differences = differences(after, np.zeros(border.tangent.shape[1]), 1e-4)
    assert turned.tangent == pytest.approx(by_differences, abs=1e-5 * np.abs(by_differences).max())
    assert np.isfinite(found.standard_errors).sum() > 30


@pytest.mark.parametrize("rotation", ROTATIONS)
def test_rotation_changes_neither_moments_nor_likelihood(rotation):
    one, other = fit(STRUCTURAL if rotation == "geomin" else TWO, rotation), None
    plain = unrotated_table(one.table, one.sample)
    other = estimate(plain, one.sample)
    assert one.objective.value(one.theta) == pytest.approx(other.objective.value(other.theta), abs=1e-6)
    for level in (1, 2):
        ours, theirs = one.objective.moments(one.theta)[level], other.objective.moments(other.theta)[level]
        assert ours.observed.cov == pytest.approx(theirs.observed.cov, abs=1e-5)
        assert ours.observed.mean == pytest.approx(theirs.observed.mean, abs=1e-5)
    assert one.df == msem.model.derived.saturated_table(plain).npar - plain.npar
    assert one.status == "ok"
    assert np.abs(one.objective.gradient(one.theta)).max() < 1e-2


def test_robust_errors_come_along():
    robust = msem.sem(TWO, msem.load_demo(), cluster="cluster", estimator="MLR")
    plain = fit(TWO)
    assert np.isfinite(robust.standard_errors).all()
    assert robust.standard_errors / plain.standard_errors == pytest.approx(1, abs=0.5)
    scaled = robust.fit_measures()
    assert np.isfinite(scaled["chisq_scaled"])


def test_groups_are_rotated_each():
    data = msem.load_demo()
    data["half"] = np.where(data["cluster"] % 2 == 0, "even", "odd")
    both = msem.sem(BLOCK, data, group="half")
    alone = msem.sem(BLOCK, data[data["half"] == "even"])
    label = both.group_labels.index("even") + 1
    rows = both.estimates()
    rows = rows[rows["group"].eq(label) & rows["op"].eq("=~")]
    assert rows["est"].to_numpy() == pytest.approx(
        alone.estimates().query("op == '=~'")["est"].to_numpy(), abs=1e-4
    )
    assert both.rotation()["group"].unique().tolist() == [1, 2]


def test_missing_values():
    data = msem.load_demo()
    rng = np.random.default_rng(4)
    data[VARIABLES] = data[VARIABLES].mask(rng.random((len(data), 6)) < 0.05)
    found = msem.sem(TWO, data, cluster="cluster", missing="fiml")
    assert found.status == "ok"
    assert found.loadings().to_numpy() == pytest.approx(fit(TWO).loadings().to_numpy(), abs=0.1)


def test_moments_alone_suffice():
    whole = fit(TWO)
    again = msem.sem(TWO, whole.saturated)
    assert again.loadings(2).to_numpy() == pytest.approx(whole.loadings(2).to_numpy(), abs=5e-3)
    parts = msem.segregated(TWO, whole.saturated)
    assert parts.within.tests["df"].iloc[0] == 4
    least_squares = msem.segregated(TWO, whole.saturated, method="uls")
    assert least_squares.within.tests["df"].iloc[0] == 4
    one, other = (
        part.within.estimates().query("op == '=~'").set_index(["lhs", "rhs"])
        for part in (parts, least_squares)
    )
    assert other["est"].to_numpy() == pytest.approx(one["est"].to_numpy(), abs=0.1)
    assert other["se"].to_numpy() == pytest.approx(one["se"].to_numpy(), rel=0.15)


def test_questions_about_a_rotated_fit():
    found = fit(STRUCTURAL)
    smaller = msem.sem(
        STRUCTURAL.replace(' + efa("w")*f2', "").replace("f1 + f2", "f1"), msem.load_demo(), cluster="cluster"
    )
    test = msem.compare_models(smaller, found)
    assert test["df_diff"].iloc[1] == smaller.df - found.df
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for ask in (
            lambda: found.summary(fit_measures=True, standardized=True, rsquare=True),
            found.standardized,
            found.modification_indices,
            found.residuals,
            found.factor_scores,
            found.influence,
            found.reliability,
            found.effects,
        ):
            assert ask() is not None
    wald = found.wald_test("`f1~x1` - `f2~x1` == 0")
    assert len(wald)


def test_what_a_fit_says_of_its_rotation():
    found = fit(TWO)
    rows = found.rotation()
    assert rows["starts"].sum() == 60
    assert (rows["minimum"] == 1).sum() == 2
    text = found.summary()
    assert "Geomin, oblique, epsilon 0.001" in text
    assert "Number of rotation conditions                      4" in text
    assert "equality constraints" not in text
    assert found.factor_correlations("between").loc["g1", "g2"] == pytest.approx(
        found.params["g1~~g2.l2"], abs=1e-12
    )
    raw = found.loadings(std=False)
    assert raw.loc["y3", "f2"] == found.params["f2=~y3"]
    with pytest.raises(ModelError, match="no exploratory blocks"):
        msem.sem("f =~ y1 + y2 + y3", msem.load_demo()).rotation()


def test_a_rotated_fit_is_kept(tmp_path):
    import pickle

    found = fit(TWO, "target")
    found.save(tmp_path / "fit.json")
    assert msem.SavedFit.load(tmp_path / "fit.json").params.to_numpy() == pytest.approx(
        found.params.to_numpy()
    )
    again = pickle.loads(pickle.dumps(found))
    assert again.standard_errors == pytest.approx(found.standard_errors)
    assert found.update(se="none").params.to_numpy() == pytest.approx(found.params.to_numpy(), abs=1e-9)


# -- several numbers of factors --------------------------------------------------------------------------------------


def test_numbers_of_factors():
    found = msem.efa(msem.load_demo(), {1: 2, "between": [1, 2]}, cluster="cluster", variables=VARIABLES)
    assert list(found.fits) == [(2, 1), (2, 2)]
    table = found.to_frame()
    assert table["df"].tolist() == [13, 8]
    assert table["chisq"].to_numpy() == pytest.approx([found[2, 1].chisq, found[2, 2].chisq])
    levels = found.by_level().set_index(["level", "factors"])
    alone = msem.efa(msem.load_demo(), {2: [1, 2]}, cluster="cluster", variables=VARIABLES)
    assert list(alone.fits) == [(None, 1), (None, 2)]
    assert levels.loc[2, "chisq"].to_numpy() == pytest.approx(alone.to_frame()["chisq"].to_numpy(), abs=1e-4)
    assert levels.loc[2, "df"].tolist() == [9, 4]
    assert found.loadings((2, 2), "between").shape == (6, 2)
    assert "       2          40" in str(found)
    assert len(found) == 2
    assert "(2, 1)" in repr(found)
    assert "<table" in found._repr_html_()


def test_one_level_and_matrices():
    data = msem.load_demo()[VARIABLES]
    rows = msem.efa(data, [1, 2])
    matrix = msem.efa(None, range(1, 3), sample_cov=data.cov(), sample_nobs=len(data))
    assert list(rows.fits) == [1, 2] == list(matrix.fits)
    assert matrix.to_frame()["chisq"].to_numpy() == pytest.approx(
        rows.to_frame()["chisq"].to_numpy(), rel=1e-6
    )
    only = msem.efa(data, 2, rotation="varimax")
    assert "Varimax, orthogonal, Kaiser" in str(only)
    assert only.loadings().to_numpy() == pytest.approx(only[2].loadings().to_numpy())
    with pytest.raises(ModelError, match="one level"):
        only.by_level()


def test_variables_of_clusters_are_at_the_between_level():
    found = msem.efa(msem.load_demo(), {2: 1}, cluster="cluster", variables=[*VARIABLES, "w1"])
    fit = found[None, 1]
    assert "w1" in fit.table.variables.cluster
    assert "w1" in fit.loadings(2).index
    moments = msem.efa(fit.saturated, {1: 1, 2: 1}, variables=VARIABLES)
    assert moments[1, 1].table.variables.cluster == ()
    by_level = msem.efa(
        msem.load_demo(), {1: 1, 2: 1}, cluster="cluster", variables={1: VARIABLES[:4], 2: VARIABLES[:4]}
    )
    assert by_level[1, 1].table.observed(1) == tuple(VARIABLES[:4])


def test_what_is_given_in_place_of_rows_knows_its_variables():
    data = msem.load_demo()[[*VARIABLES, "w1", "cluster"]]
    summary = msem.summarize(data, cluster="cluster")
    rows = msem.efa(data, {1: 1, 2: 1}, cluster="cluster")
    found = msem.efa(summary, {1: 1, 2: 1})
    assert found[1, 1].table.variables.cluster == ("w1",)
    assert found[1, 1].llf == pytest.approx(rows[1, 1].llf, rel=1e-10)
    statistics = found[1, 1].sample.statistics[0]
    assert msem.efa(statistics, {1: 1, 2: 1})[1, 1].llf == pytest.approx(rows[1, 1].llf, rel=1e-10)
    with pytest.raises(DataError, match="not among the variables"):
        msem.efa(summary, {1: 1, 2: 1}, variables=[*VARIABLES, "y9"])


def test_moments_of_ordered_variables_are_explored():
    data = msem.load_demo()[VARIABLES] > 0
    rows = msem.efa(data, 2, ordered=VARIABLES)
    found = msem.efa(rows[2].ordered_moments, 2)
    assert found.loadings().to_numpy() == pytest.approx(rows.loadings().to_numpy(), abs=1e-6)


def test_names_of_factors_and_variables_do_not_collide():
    data = msem.load_demo()[VARIABLES].set_axis(["f1", "my item", "f3", "y4", "y5", "y6"], axis=1)
    found = msem.efa(data, 1)
    assert list(found.loadings().columns) == ["f_1"]
    assert "my item" in found.loadings().index


# -- input ----------------------------------------------------------------------------------------------------------


def test_ledermann():
    assert [most_factors(p) for p in (2, 3, 4, 5, 6, 8, 10)] == [0, 1, 1, 2, 3, 4, 6]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'efa("a")*f1 + efa("a")*f2 =~ y1 + y2 + y3 + y4',
            r"has 2 factors and 4 indicators, which can bear 1",
        ),
        ('efa("a")*f1 =~ y1 + y2', r"has 1 factor and 2 indicators, which can bear none"),
        (
            'efa("a")*f1 =~ y1 + y2 + y3 + y4 + y5\nefa("a")*f2 =~ y2 + y3 + y4 + y5 + y6',
            "'f2' does not on 'y1'",
        ),
        ('efa("a")*f1 + efa("a")*f2 =~ 0*y1 + y2 + y3 + y4 + y5', "cannot be fixed, bounded or equal"),
        ('efa("a")*f1 + efa("a")*f2 =~ lower(0)*y1 + y2 + y3 + y4 + y5', "cannot be fixed, bounded or equal"),
        (BLOCK + "f1 ~ x1", "same free relation to 'x1'"),
        (BLOCK + "f1 + f2 ~ 0.5*x1", "same free relation to 'x1'"),
        (BLOCK + "x1 ~ f1", "same free relation to 'x1'"),
        (BLOCK + "f1 ~ f2", "not told apart before rotation"),
        (BLOCK + "f1 ~~ 0*f2", "leave 'f1 ~~ f2' out"),
        (BLOCK + "f1 ~~ NA*f1", "variances of the factors"),
        (BLOCK + "f1 ~ NA*1", "their means"),
        (BLOCK + "g =~ f1 + f2 + x1 + x2", "same free relation to 'g'"),
        ('efa("a")*f1 =~ y1 + y2 + y3\nefa("b")*f1 =~ y4', "in the blocks 'a' and 'b'"),
        ('g =~ y1 + y2 + y3\nefa("a")*f1 =~ g + y4 + y5 + y6', "latent variable 'g' among its indicators"),
        ('f =~ y1 + y2 + y3\nefa("a")*f ~ x1', r"efa\(\) belongs to '=~'"),
        ('efa("a")*f1 + efa("a")*f2 =~ a*y1 + y2 + y3 + y4 + y5', "known after rotation only"),
        (BLOCK + "f1 ~ b*x1\nf2 ~ c*x1\nb == c", "'b == c' is about 'c'"),
        (BLOCK + "f1 ~ b*x1\nf2 ~ c*x1\nd := b - c\nd > 0", "'d > 0' is about"),
    ],
)
def test_what_cannot_be_rotated_is_named(text, message):
    with pytest.raises(ModelError, match=message):
        msem.sem(text, msem.load_demo())


def test_unit_variances_and_labels_may_be_written():
    text = BLOCK + "f1 ~~ 1*f1\nf1 ~ b*x1\nf2 ~ c*x1\nd := b - c"
    found = msem.sem(text, msem.load_demo())
    assert found.defined()["se"].iloc[0] > 0


@pytest.mark.parametrize(
    ("rotation", "arguments", "message"),
    [
        ("promin", None, "rotation must be one of 'geomin'"),
        ("geomin", {"gamma": 0.1}, "'gamma' has no effect with rotation='geomin'"),
        ("geomin", {"eps": 0.1}, "rotation_args has no 'eps'; it has: epsilon"),
        ("geomin", {"epsilon": -1}, "must be a positive number"),
        ("geomin", [0.1], "rotation_args is a dict"),
        ("cf", {"kappa": 2}, "from 0 to 1"),
        ("cf", {"kappa": "promax"}, "'equamax'"),
        ("varimax", {"orthogonal": False}, "is orthogonal: for correlated factors"),
        ("oblimin", {"gamma": "a"}, "must be a number"),
        ("geomin", {"starts": 0}, "whole number of at least 1"),
        ("geomin", {"std_ov": 1}, "True or False"),
        ("target", None, "needs rotation_args"),
        ("target", {"target": "simple"}, "table of numbers"),
        ("target", {"target": [[np.inf, 1]]}, "finite numbers"),
        ("target", {"target": [[1, 0]] * 5}, r"must have 6 rows \(y1, y2"),
        ("target", {"target": {"other": [[1, 0]] * 6}}, "no target for the block 'a'"),
    ],
)
def test_rotations_are_read(rotation, arguments, message):
    with pytest.raises(ValueError, match=message):
        msem.sem(BLOCK, msem.load_demo(), rotation=rotation, rotation_args=arguments)


def test_names_of_lavaan_are_read():
    ours = rotation_of("cf", {"kappa": 0.2, "starts": 5})
    assert rotation_of("cf", {"cf.gamma": 0.2, "rstarts": 5}) == ours
    assert rotation_of("cf-varimax").kappa == "varimax"
    frame = pd.DataFrame([[1.0, 0.0]] * 6, index=VARIABLES, columns=["f1", "f2"])
    assert rotation_of("target", {"target": {"a": frame}}).target[0][0] == "a"
    assert rotation_of("oblimin", {"row.weights": "kaiser"}).kaiser


def test_rotation_without_blocks_is_refused():
    with pytest.raises(ModelError, match="no effect without exploratory blocks"):
        msem.sem("f =~ y1 + y2 + y3", msem.load_demo(), rotation="oblimin")


def test_what_is_not_there_for_rotated_fits_is_named():
    found = fit(TWO)
    for ask in (
        lambda: found.bootstrap(5),
        found.jackknife,
        lambda: found.profile("f1=~y1"),
        lambda: msem.compile(TWO, cluster="cluster"),
    ):
        with pytest.raises(
            UnsupportedError, match="exploratory blocks in this version; this one has 'w', 'b'"
        ):
            ask()
    data = msem.load_demo()
    data["half"] = data["cluster"] % 2
    with pytest.raises(ModelError, match="after rotation only"):
        msem.sem(TWO, data, cluster="cluster", group="half", group_equal="loadings")
    slopes = 'level: 1\n efa("a")*f1 =~ y1 + y2 + y3\n y1 ~ rv("s")*x1\nlevel: 2\n y1 ~~ y1 + s\n y2 ~~ y2\n y3 ~~ y3'
    with pytest.raises(UnsupportedError, match="random slopes"):
        msem.sem(slopes, data, cluster="cluster")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda d: msem.efa(d, {1: 4}, cluster="cluster", variables=VARIABLES),
            "4 factors .* at the within",
        ),
        (lambda d: msem.efa(d[VARIABLES], 4), "can bear 3"),
        (lambda d: msem.efa(d, {1: 2}, variables=VARIABLES), 'needs cluster="..."'),
        (lambda d: msem.efa(d, 0, variables=VARIABLES), "at least 1, not 0"),
        (lambda d: msem.efa(d, "two", variables=VARIABLES), "nfactors is a number"),
        (lambda d: msem.efa(d, {}, cluster="cluster"), "nfactors is empty"),
        (lambda d: msem.efa(d, {4: 1}, cluster="cluster"), "level must be"),
        (lambda d: msem.efa(d, 1, cluster="cluster", variables={1: ["y1"]}), "need every level"),
        (lambda d: msem.efa(d, 1, variables={1: ["y1"]}), "name the clusters"),
        (lambda d: msem.efa(None, 1), "efa needs data"),
        (lambda d: msem.efa(d[VARIABLES], [1, 2]).loadings(), "there are 1, 2"),
    ],
)
def test_mistakes_of_efa_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(msem.load_demo())


def test_all_pairs_of_levels_and_numbers():
    found = msem.efa(msem.load_demo(), {1: [1, 2], 2: 1}, cluster="cluster", variables=VARIABLES)
    assert list(found.fits) == [(1, 1), (2, 1)]


def test_weights_are_no_indicators() -> None:
    """Of two levels, where no variables are named, and of one."""
    data = msem.load_demo()[["y1", "y2", "y3", "y4", "cluster"]]
    data["w"], data["of_cluster"], data["stratum"] = 1.0, 1.0, data["cluster"] % 2
    given = {"weights": "w", "strata": "stratum"}
    found = msem.efa(data, 1, cluster="cluster", cluster_weights="of_cluster", **given)
    assert found.fits[1, 1].table.variables.names == ("y1", "y2", "y3", "y4")
    named = msem.efa(data, 1, cluster="cluster", variables=["y1", "y2", "y3", "y4"])
    np.testing.assert_allclose(found.fits[1, 1].params, named.fits[1, 1].params, rtol=1e-7)
