"""Constrained fits: against reparametrised models, another optimiser, and what they must not change."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import optimize

import msem
from msem.errors import ImproperSolutionWarning, ModelError, ModelSyntaxError, UnsupportedError
from msem.estimation.constraints import elimination_basis

BASE = """
level: 1
  fw =~ y1 + a*y2 + b*y3
  fw ~ g1*x1 + g2*x2 + x3
level: 2
  fb =~ y1 + c*y2 + e*y3
  fb ~ w1 + w2
  y1 ~~ v1*y1
"""
DATA = msem.load_demo()


def fit(constraints="", base=BASE, data=DATA, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImproperSolutionWarning)
        return msem.sem(base + constraints, data, cluster="cluster", **options)


FREE = fit()


def same_fit(one, other, se=1e-7):
    """The same solution, whatever the parameters are called."""
    assert one.llf == pytest.approx(other.llf, abs=1e-8)
    assert one.df == other.df
    keys = ["lhs", "op", "rhs", "level"]
    ours, theirs = (f.estimates()[[*keys, "est", "se"]].query("op != ':='") for f in (one, other))
    pd.testing.assert_frame_equal(ours[keys], theirs[keys])
    np.testing.assert_allclose(ours["est"], theirs["est"], atol=1e-6)
    np.testing.assert_allclose(ours["se"], theirs["se"], atol=se)


@pytest.mark.parametrize(
    ("constraints", "base"),
    [
        ("a == b", BASE.replace("b*y3", "a*y3")),
        ("a == c", BASE.replace("c*y2", "a*y2")),
        ("c == a; e == b", BASE.replace("c*y2", "a*y2").replace("e*y3", "b*y3")),
        ("a == 0.75", BASE.replace("a*y2", "0.75*y2")),
        ("2*a + 1 == 2.5; 4*a == 3", BASE.replace("a*y2", "0.75*y2")),
        ("a^2 == 0.5625; a > 0", BASE.replace("a*y2", "0.75*y2")),
        ("log(a) == log(b)", BASE.replace("b*y3", "a*y3")),
        ("a/b == 1; a == b; a - b > -1", BASE.replace("b*y3", "a*y3")),
        ("(a - b)*exp(g1) == 0", BASE.replace("b*y3", "a*y3")),
        ("q == 1; q := a/b", BASE.replace("b*y3", "a*y3")),
    ],
)
def test_equalities_that_labels_or_fixed_values_can_say(constraints, base):
    same_fit(fit(constraints), fit(base=base))


def test_constraints_may_stand_beside_the_model():
    same_fit(fit(constraints="", base=BASE), FREE)
    beside = msem.sem(BASE, DATA, cluster="cluster", constraints="a == b\nq := a*c")
    same_fit(beside, fit("a == b\nq := a*c"))
    assert beside.defined().loc[0, "lhs"] == "q"


def test_a_product_of_loadings_against_a_reparametrised_model():
    """With a*c = 0.5 the factor metric can be chosen so that one loading is 0.5 over the other: scan it."""
    constrained = fit("a*c == 0.5")

    def profile(a):
        return fit(base=BASE.replace("a*y2", f"{a!r}*y2").replace("c*y2", f"{0.5 / a!r}*y2")).llf

    a = float(constrained.params["a"])
    assert profile(a) == pytest.approx(constrained.llf, abs=1e-8)
    assert profile(a + 1e-3) < constrained.llf > profile(a - 1e-3)
    # curvature of the profile is that of a, on the curve
    h = 1e-3
    curvature = -(profile(a + h) + profile(a - h) - 2 * profile(a)) / h**2
    assert curvature > 0
    assert constrained.df == FREE.df + 1
    multiplier = constrained.constraints().loc[0, "multiplier"]
    slope = (fit("a*c == 0.5001").llf - fit("a*c == 0.4999").llf) / 2e-4
    assert multiplier == pytest.approx(-slope, rel=1e-5)


@pytest.mark.parametrize(
    "constraints",
    [
        "a < 10",
        "a > b - 1; c < 3",
        "a*c > -5",
        "v1 > -1; exp(a) < 100",
        "a > 0.8",
        "q := a*b; q < 2",
        "1 < 2",
    ],
)
def test_constraints_that_are_not_active_change_nothing(constraints):
    found = fit(constraints)
    same_fit(found, FREE)
    assert found.status == FREE.status
    table = found.constraints()
    assert not table["active"].any()
    assert (table["multiplier"] == 0).all()


@pytest.mark.parametrize(
    "constraints",
    [
        "a > b + 0.2",
        "a*c > 0.7; b < 0.5; c > a",
        "a > 0.9; a < 1.5; e^2 > 0.5",
        "a + b + c + e > 3.2; a*b < 0.6",
    ],
)
def test_solutions_satisfy_the_conditions_of_kuhn_and_tucker(constraints):
    found = fit(constraints)
    table = found.constraints()
    assert found.converged
    assert table["active"].any()
    assert found.status == "boundary"
    assert found.df == FREE.df
    assert (table.loc[table["active"], "multiplier"] > 0).all()
    np.testing.assert_allclose(table.loc[table["active"], "value"], 0, atol=1e-9)
    tangent = found.estimate.tangent
    gradient = tangent.T @ found.objective.gradient(found.params)
    information = tangent.T @ found.objective.expected_information(found.params) @ tangent
    assert gradient @ np.linalg.solve(information, gradient) < 1e-12
    # second-order: no feasible neighbour is better
    rng = np.random.default_rng(1)
    core = found.objective.constraints
    for _ in range(50):
        step = np.zeros(found.table.npar)
        step[rng.integers(found.table.npar, size=3)] = rng.normal(size=3) * 1e-3
        near = found.params.to_numpy() + step
        bounds = found.estimate.table.rows
        inside = all(r.lower <= near[r.free - 1] <= r.upper for r in bounds if r.free)
        if inside and (core is None or np.all(core.inequalities.values(near) >= 0)):
            assert found.objective.value(near) >= -2 * found.llf - 1e-9


def test_an_active_inequality_counts_as_an_equality_for_standard_errors_only():
    active, equal = fit("a > b + 0.2"), fit("a == b + 0.2")
    assert active.llf == pytest.approx(equal.llf, abs=1e-9)
    np.testing.assert_allclose(active.bse, equal.bse, rtol=1e-6)
    assert active.df == equal.df - 1
    assert "'a > b + 0.2'" in active.problems[0].cause
    assert "degrees of freedom do not" in active.problems[0].remedy


def test_the_solution_does_not_depend_on_the_start():
    starts = ["a*y2", "start(3)*y2", "start(0.01)*y2"]
    fits = [
        fit("a*c == 0.5; a > b", BASE.replace("a*y2", f"a*y2 + {s}" if s != "a*y2" else s)) for s in starts
    ]
    for other in fits[1:]:
        same_fit(other, fits[0], se=1e-5)


def test_the_solution_does_not_depend_on_units():
    scaled = DATA.assign(y1=1000 * DATA["y1"], x1=1e-3 * DATA["x1"] + 5)
    one = fit("a*c == 0.5; a > b + 0.2")
    other = fit("a*c == 0.5e-6; a > b + 0.2e-3", data=scaled)
    assert other.chisq == pytest.approx(one.chisq, abs=1e-5)
    np.testing.assert_allclose(other.params[["a", "b", "c"]] * 1000, one.params[["a", "b", "c"]], rtol=1e-5)


def test_constraints_can_identify_a_model():
    """Effect coding: the mean of the loadings is one (Little, Slegers & Card, 2006)."""
    effect = """
    level: 1
      fw =~ NA*y1 + l1*y1 + l2*y2 + l3*y3
      l1 + l2 + l3 == 3
    level: 2
      fb =~ NA*y1 + m1*y1 + m2*y2 + m3*y3
      m1*m2*m3 == 1
    """
    marker = "level: 1\nfw =~ y1 + y2 + y3\nlevel: 2\nfb =~ y1 + y2 + y3"
    one, other = (msem.cfa(text, DATA, cluster="cluster") for text in (effect, marker))
    assert one.status == "ok"
    assert one.llf == pytest.approx(other.llf, abs=1e-8)
    assert one.df == other.df
    assert one.bse.notna().all()
    assert one.params["l2"] / one.params["l1"] == pytest.approx(other.params["fw=~y2"], rel=1e-6)


def test_constraints_in_the_baseline_and_the_summary():
    found = fit("a == b; q := a*c; r := 2*q")
    assert found.baseline.llf == FREE.baseline.llf
    text = found.summary()
    assert "Number of equality constraints                     1" in text
    assert (
        "Constraints, left less right side:\n\n  a == b                                         0.000" in text
    )
    counts = {found.npar, int(found.fit_measures()["npar"]), int(found.glance()["npar"].iloc[0])}
    assert counts == {FREE.npar - 1} == {round(found.aic / 2 + found.llf)}
    assert len(found.params) == FREE.npar
    assert msem.table(found).frame.loc[("Sample", "Parameters")].iloc[0] == str(FREE.npar - 1)
    assert "Defined Parameters:" in text
    assert text.index("Defined Parameters") > text.index("Level 2")
    assert "    q " in text
    assert "r    " in found._repr_html_() or "<td>r" in found._repr_html_().replace(" ", "")


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        ("a == 1; a == 2", "line 10, column 11: 'a == 2' contradicts"),
        ("a == b/0", "'a == b / 0' has no value: it divides by zero"),
        ("a == b; b == c; a == c + 1", "'a == c \\+ 1' contradicts"),
        ("1 == 2", "'1 == 2' does not hold"),
        ("2 < 1", "'2 < 1' does not hold"),
        ("a > b + 1; a < b", "cannot hold together: 'a > b \\+ 1', 'a < b'"),
        ("a == 2*b; b > 1; a < 1", "cannot hold together: 'a == 2 \\* b', 'a < 1', 'b > 1'"),
        ("a > 1; a < 0", "leave no room"),
        ("a == zz", "column 6: no parameter is labelled 'zz'"),
        ("q := zz", "column 6: no parameter is labelled 'zz'"),
        ("q := q + a", "defined by itself"),
        ("a := b", "'a' is the label of a parameter"),
    ],
)
def test_constraints_that_cannot_be(constraints, message):
    with pytest.raises(ModelError, match=message):
        fit("\n" + constraints)


def test_a_fixed_value_against_a_constraint():
    fixed = BASE.replace("a*y2", "a*y2 + 2*y2")
    with pytest.raises(ModelError, match="'a == 1' does not hold, and it is about fixed values only"):
        fit("a == 1", fixed)
    same_fit(fit("a == 2; b < a", fixed), fit(base=fixed))
    same_fit(fit("a == 2*b", fixed), fit(base=fixed.replace("b*y3", "1*y3")))


@pytest.mark.parametrize("constraints", ["a^2 == -1", "exp(a) < -1", "a^2 + b^2 == 1; a*b > 2"])
def test_nonlinear_constraints_that_cannot_hold(constraints):
    with pytest.raises(
        ModelError, match=r"no estimates at which these constraints hold: '.*' \(by .*start\(\)"
    ):
        fit(constraints)


def test_a_constraint_without_a_value():
    with pytest.raises(
        ModelError, match=r"no value at the starting values: 'sqrt\(a - 100\) == 1'; give start"
    ):
        fit("sqrt(a - 100) == 1")


def test_constraints_that_tie_levels_leave_none_to_be_fitted_by_itself():
    with pytest.raises(
        UnsupportedError, match=r"the levels share a == c, so they cannot be fitted one by one"
    ):
        msem.segregated(BASE + "a == c", DATA, cluster="cluster")
    with pytest.raises(UnsupportedError, match=r"'d := a - c' is made of parameters of several levels"):
        msem.segregated(BASE + "d := a - c", DATA, cluster="cluster")


def test_dependent_rows_leave_the_basis_they_leave():
    rows = np.array([[1.0, -1, 0, 0], [2, -2, 0, 0], [0, 1, 1, 0], [1, 0, 1, 0], [0, 0, 0, 0]])
    basis = elimination_basis(rows)
    assert basis.shape == (4, 2)
    np.testing.assert_allclose(rows @ basis, 0, atol=1e-15)
    assert np.linalg.matrix_rank(basis) == 2
    assert basis[3].tolist() in ([0, 1], [1, 0])
    np.testing.assert_array_equal(elimination_basis(np.empty((0, 3))), np.eye(3))


@pytest.mark.parametrize("constraints", ["a == c", "a*c == 0.5; b > 0.6", "a > b + 0.2"])
def test_refits_keep_to_the_constraints(constraints):
    found = fit(constraints)
    draws = found.bootstrap(replicates=20, seed=5, progress=False).array
    frame = pd.DataFrame(draws, columns=found.params.index)
    core = found.objective.constraints
    np.testing.assert_allclose([core.equalities.values(t) for t in frame.to_numpy()], 0, atol=1e-9)
    unequal = np.array([core.inequalities.values(t) for t in frame.to_numpy()])
    assert (unequal >= -1e-9).all()
    assert not len(core.inequalities) or (unequal > 1e-3).any() or (unequal < 1e-9).any()
    curve = found.profile("e").frame
    assert (curve["deviance"] >= -1e-8).all()


@pytest.mark.parametrize(
    "constraints", ["a*c == 0.5", "a > b + 0.2", "a*c > 0.7; b < 0.5; c > a", "exp(a - b) == c; v1 > 0.1"]
)
def test_another_optimiser_finds_the_same_point(constraints):
    found = fit(constraints)
    objective, core = found.objective, found.objective.constraints
    begin, scale = FREE.params.to_numpy(), FREE.bse.to_numpy()
    rows = [next(r for r in found.table.rows if r.free == k + 1) for k in range(found.table.npar)]
    other = optimize.minimize(
        lambda z: objective.value(begin + scale * z),
        np.zeros(len(begin)),
        jac=lambda z: objective.gradient(begin + scale * z) * scale,
        bounds=[((r.lower - b) / s, (r.upper - b) / s) for r, b, s in zip(rows, begin, scale, strict=True)],
        constraints=[
            {
                "type": kind,
                "fun": lambda z, f=f: f.values(begin + scale * z),
                "jac": lambda z, f=f: f.jacobian(begin + scale * z) * scale,
            }
            for kind, f in (("eq", core.equalities), ("ineq", core.inequalities))
            if len(f)
        ],
        method="SLSQP",
        options={"ftol": 1e-13, "maxiter": 300},
    )
    assert -2 * found.llf == pytest.approx(other.fun, abs=1e-6)
    np.testing.assert_allclose(found.params, begin + scale * other.x, atol=2e-4)


def test_constraints_across_groups():
    data = DATA.assign(half=np.where(DATA["cluster"] % 2 == 0, "even", "odd"))
    model = BASE.replace("a*y2", "c(a1, a2)*y2").replace("c*y2", "c(c1, c2)*y2")
    model = model.replace("b*y3", "y3").replace("e*y3", "y3")
    for label in ("g1", "g2", "v1"):
        model = model.replace(f"{label}*", "")

    def grouped(text):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ImproperSolutionWarning)
            return msem.sem(text, data, cluster="cluster", group="half")

    tied = grouped(model + "a1 == a2; c1*c2 == 0.5; d := a1 - c1")
    label = grouped(model.replace("c(a1, a2)*", "c(a, a)*"))
    same = grouped(model + "a1 == a2")
    assert tied.df == same.df + 1 == grouped(model).df + 2
    assert same.df == label.df
    assert same.llf == pytest.approx(label.llf, abs=1e-8)
    assert same.bse["a1"] == pytest.approx(label.bse["a"], rel=1e-6)
    assert tied.params["c1"] * tied.params["c2"] == pytest.approx(0.5, abs=1e-10)
    assert tied.defined().loc[0, "est"] == pytest.approx(tied.params["a1"] - tied.params["c1"])


def test_fits_with_constraints_survive_a_pickle():
    found = fit("a*c == 0.5; q := a/b; b < 2")
    found.summary(fit_measures=True)  # what is computed on the way does not stop it
    again = pickle.loads(pickle.dumps(found))
    pd.testing.assert_frame_equal(again.estimates(), found.estimates())
    pd.testing.assert_frame_equal(again.constraints(), found.constraints())


def test_constraints_on_one_level_models():
    data = DATA.head(400)
    one = msem.sem("y1 ~ p*x1 + q*x2 + r*x3\np == q + r\ntwice := 2*p", data)
    made = data.assign(s=data["x1"] + data["x2"], t=data["x1"] + data["x3"])
    other = msem.sem("y1 ~ s + t", made)
    assert one.params[["q", "r"]].to_numpy() == pytest.approx(
        other.params[["y1~s", "y1~t"]].to_numpy(), rel=1e-7
    )
    assert one.bse["q"] == pytest.approx(other.bse["y1~s"], rel=1e-6)
    assert one.df == 1
    assert one.defined().loc[0, "se"] == pytest.approx(2 * one.bse["p"], rel=1e-12)


def test_constraints_as_several_texts():
    one = msem.sem(BASE, DATA, cluster="cluster", constraints=["a == b", "q := a*c"])
    pd.testing.assert_frame_equal(one.estimates(), fit("a == b\nq := a*c").estimates())
    with pytest.raises(ModelSyntaxError, match="constraints= takes a text"):
        msem.sem(BASE, DATA, cluster="cluster", constraints=3)


def test_rounding_of_an_active_inequality_has_no_sign():
    with pytest.warns(msem.errors.ImproperSolutionWarning, match="inequality constraints are active"):
        fit = msem.sem("f =~ y1 + a*y2 + b*y3\na > b + 0.2", msem.load_demo())
    shown = fit.constraints()
    assert shown["active"].item()
    assert str(shown["value"].item()) == "0.0"
