"""Functions of parameters: values, exact derivatives, names, and what is refused."""

import cmath
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from msem import _core
from msem.errors import ModelError, ModelSyntaxError
from msem.language.expressions import Binary, Call, Name, Number, Unary
from msem.language.syntax import parse, read_hypothesis, with_constraints
from msem.model.functions import CONSTANT, LINEAR, NONLINEAR, compile_expressions, defined_functions
from msem.model.partable import parameter_table

TEXT = """
level: 1
  fw =~ y1 + a*y2 + b*y3
  fw ~~ vw*fw
level: 2
  fb =~ y1 + c*y2 + 0.7*y3 + two*y4
  two == 2
  q := a + r
  r := b*c
"""
TABLE = parameter_table(parse(TEXT))
LABELS = {name: TABLE.names().index(name) for name in ("a", "b", "c", "vw", "two")}
COMPLEX = {
    "exp": cmath.exp,
    "log": cmath.log,
    "sqrt": cmath.sqrt,
    "sin": cmath.sin,
    "cos": cmath.cos,
    "tan": cmath.tan,
    "sinh": cmath.sinh,
    "cosh": cmath.cosh,
    "tanh": cmath.tanh,
    "atan": cmath.atan,
    "asin": cmath.asin,
    "acos": cmath.acos,
    "atanh": cmath.atanh,
    "log10": cmath.log10,
    "log2": lambda x: cmath.log(x) / math.log(2),
}


def in_complex(node, values):
    """Value of an expression in complex arithmetic, by another route than the compiled one."""
    if isinstance(node, Number):
        return complex(node.value)
    if isinstance(node, Name):
        return values[node.name]
    if isinstance(node, Unary):
        return -in_complex(node.operand, values)
    if isinstance(node, Call):
        return COMPLEX[node.function](in_complex(node.arguments[0], values))
    assert isinstance(node, Binary)
    left, right = in_complex(node.left, values), in_complex(node.right, values)
    if node.op == "^":
        return left**right
    simple = {"+": left + right, "-": left - right, "*": left * right}
    return simple[node.op] if node.op in simple else left / right


FIXED = [
    "a*b - c/vw",
    "exp(a)*log(vw) + sqrt(b^2 + 1)",
    "(a + b)^3 - a^-2",
    "a^b",
    "vw^(a*b) + 2^c",
    "sin(a)*cos(b) + tan(c)",
    "tanh(a) - atan(b) + sinh(c)*cosh(vw)",
    "asin(a/3) + acos(b/3) + atanh(c/3)",
    "log10(vw) + log2(a)",
    "-a^2",
    "a/(a + b + c + vw)",
]


def point():
    theta = np.zeros(TABLE.npar)
    for name, value in zip(LABELS, (0.8, 0.6, 1.3, 0.45, 2.0), strict=True):
        theta[LABELS[name]] = value
    return theta


@pytest.mark.parametrize("text", FIXED)
def test_derivatives_against_complex_steps(text):
    f, theta = compile_expressions(TABLE, [text]), point()
    node = read_hypothesis(text).function
    here = {name: complex(theta[k]) for name, k in LABELS.items()}
    assert f.values(theta)[0] == pytest.approx(in_complex(node, here).real, rel=1e-14)
    gradient = np.zeros(TABLE.npar)
    for name, k in LABELS.items():
        gradient[k] = in_complex(node, here | {name: theta[k] + 1e-30j}).imag / 1e-30
    np.testing.assert_allclose(f.jacobian(theta)[0], gradient, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("text", FIXED)
def test_second_derivatives_against_differences_of_the_first(text):
    f, theta = compile_expressions(TABLE, [text]), point()
    step = 1e-5
    numeric = np.array(
        [
            (f.jacobian(theta + step * unit)[0] - f.jacobian(theta - step * unit)[0]) / (2 * step)
            for unit in np.eye(TABLE.npar)
        ]
    )
    analytic = f.core.curvature(theta, [1.0])
    np.testing.assert_array_equal(analytic, analytic.T)
    np.testing.assert_allclose(analytic, numeric, rtol=1e-7, atol=1e-8)


NODES = st.recursive(
    st.sampled_from(["a", "b", "c", "vw", "1.5", "2"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
        st.tuples(st.sampled_from(["exp", "sin", "tanh", "cosh"]), inner).map(lambda t: f"{t[0]}({t[1]})"),
        inner.map(lambda t: f"({t})^2"),
    ),
    max_leaves=8,
)


# Rounding in a quotient such as a / a is relative to 1 / a, so values are 0 or not small.
VALUES = st.integers(-128, 128).map(lambda k: k / 64)


@settings(deadline=None)
@given(NODES, st.lists(VALUES, min_size=4, max_size=4))
def test_any_expression_has_the_derivatives_of_its_complex_steps(text, values):
    theta = np.zeros(TABLE.npar)
    theta[[LABELS[n] for n in ("a", "b", "c", "vw")]] = values
    node = read_hypothesis(text).function
    here = {name: complex(theta[k]) for name, k in LABELS.items()}
    try:
        f = compile_expressions(TABLE, [text])
        expected = in_complex(node, here).real
        gradient = [in_complex(node, here | {n: theta[LABELS[n]] + 1e-30j}).imag / 1e-30 for n in LABELS]
    except (ArithmeticError, ModelError):
        assume(False)
    assume(np.all(np.isfinite(gradient)) and max(map(abs, gradient)) < 1e6 and abs(expected) < 1e6)
    ours = f.jacobian(theta)[0][list(LABELS.values())]
    assume(np.all(np.isfinite(ours)))
    np.testing.assert_allclose(ours, gradient, rtol=1e-8, atol=1e-8)
    assert f.values(theta)[0] == pytest.approx(expected, rel=1e-10, abs=1e-10)


@pytest.mark.parametrize(
    ("text", "degree"),
    [
        ("1 + 2", CONSTANT),
        ("a - 2*b/3 + 1", LINEAR),
        ("-(a + b)*4", LINEAR),
        ("a^1 + b", LINEAR),
        ("a*b", NONLINEAR),
        ("1/a", NONLINEAR),
        ("a^2", NONLINEAR),
        ("exp(a)", NONLINEAR),
        ("exp(2)*a", LINEAR),
        ("q - r", NONLINEAR),
        ("`fb=~y3.l2` * a", LINEAR),
    ],
)
def test_linear_functions_are_known_as_such(text, degree):
    assert compile_expressions(TABLE, [text]).degrees == (degree,)


def test_names_are_labels_definitions_or_parameters_in_backticks():
    theta = point()
    texts = ["q", "r", "`fw =~ y2`", "`fb=~y2.l2` == a", "`y1~~y1.l2`", "`fb=~y3.l2`", "pi*a"]
    a, b, c = 0.8, 0.6, 1.3
    residual = theta[TABLE.names().index("y1~~y1.l2")]
    expected = [a + b * c, b * c, a, c - a, residual, 0.7, math.pi * a]
    np.testing.assert_allclose(compile_expressions(TABLE, texts).values(theta), expected, rtol=1e-15)


def test_definitions_may_come_in_any_order_and_take_the_rows_of_the_table():
    theta = point()
    np.testing.assert_allclose(defined_functions(TABLE).values(theta), [0.8 + 0.78, 0.78])
    rows = np.zeros(len(TABLE.rows))
    for index, row in enumerate(TABLE.rows):
        rows[index] = {"a": 3.0, "b": 5.0, "c": 7.0}.get(row.label, 0.0)
    over_rows = defined_functions(TABLE, "rows")
    np.testing.assert_allclose(over_rows.values(rows), [38, 35])
    assert over_rows.jacobian(rows).shape == (2, len(TABLE.rows))


def test_many_points_at_once():
    f = compile_expressions(TABLE, ["a*b", "q"])
    thetas = np.random.default_rng(1).normal(size=(7, TABLE.npar))
    np.testing.assert_allclose(f.values_of_rows(thetas), [f.values(t) for t in thetas], rtol=1e-15)


def test_outside_the_domain_values_are_nan():
    f = compile_expressions(TABLE, ["log(a)", "sqrt(a)", "a^0.5", "a*b"])
    theta = point()
    theta[LABELS["a"]] = -1.0
    assert np.isnan(f.values(theta)).tolist() == [True, True, True, False]
    assert np.isnan(f.jacobian(theta)[:3, LABELS["a"]]).all()


def test_powers_and_absolute_values_at_zero():
    f = compile_expressions(TABLE, ["a^2", "a^1", "a^3", "abs(a)", "abs(b)"])
    theta = np.zeros(TABLE.npar)
    theta[LABELS["b"]] = -2.0
    assert f.values(theta).tolist() == [0, 0, 0, 0, 2]
    slopes = f.jacobian(theta)[:, LABELS["a"]]
    assert slopes[:3].tolist() == [0, 1, 0]
    assert np.isnan(slopes[3])  # no derivative there
    assert f.jacobian(theta)[4, LABELS["b"]] == -1
    assert f.core.curvature(theta, [1, 1, 1, 0, 0])[LABELS["a"], LABELS["a"]] == 2


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (
            "a - zz",
            ModelError,
            "in 'a - zz', column 5: no parameter is labelled 'zz'; labels of this model: a",
        ),
        ("`fb=~y9` == 0", ModelError, "column 1: the model has no parameter 'fb=~y9'"),
        ("foo(a)", ModelError, r"column 1: 'foo\(a\)': functions of one argument are abs, acos"),
        ("log(a, b)", ModelError, "functions of one argument"),
        ("a == b == c", ModelSyntaxError, "column 8"),
        ("a ~ b", ModelSyntaxError, "line 1, column 3: found '~'"),
        ("a > b", ModelSyntaxError, "line 1, column 3: found '>'"),
        ("a == b; c == a", ModelSyntaxError, "one expression such as 'a - b'"),
        ("", ModelSyntaxError, "the text ends"),
        ("a +", ModelSyntaxError, "line 1, column 4: the text ends"),
        ("'a' - b", ModelSyntaxError, "line 1, column 1: labels are written without quotes"),
        ("`a - b", ModelSyntaxError, "column 1: this quote is not closed"),
        (3, ModelSyntaxError, "is a text, not int"),
    ],
)
def test_expressions_that_cannot_be_read(text, error, message):
    with pytest.raises(error, match=message):
        compile_expressions(TABLE, [text])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q := a + q", "'q' is defined by itself: q -> q"),
        ("q := r\nr := s\ns := q + a", "line 3, column 6: 'r' is defined by itself: r -> s -> q -> r"),
        ("q := a + zz", "line 3, column 10: no parameter is labelled 'zz'"),
        ("q := log(-1)*a", "is not a real number"),
    ],
)
def test_definitions_that_cannot_be(text, message):
    with pytest.raises(ModelError, match=message):
        defined_functions(parameter_table(parse(f"y ~ a*x\ny ~~ y\n{text}")))


def test_chains_of_definitions_do_not_grow():
    lines = ["y ~ a*x", "d0 := a", *(f"d{k} := d{k - 1} + d{k - 1}" for k in range(1, 60))]
    f = defined_functions(parameter_table(parse("\n".join(lines))))
    theta = np.full(f.core.npar, 1.0)
    assert f.values(theta)[-1] == 2.0**59
    assert f.jacobian(theta)[-1].sum() == 2.0**59


def test_constraints_beside_the_model_text():
    both = with_constraints("y ~ a*x + b*z", "a == b; q := a*b")
    assert both == parse("y ~ a*x + b*z\na == b\nq := a*b")
    assert with_constraints("y ~ x", None) == parse("y ~ x")
    with pytest.raises(ModelSyntaxError, match="formulas belong to the model"):
        with_constraints("y ~ a*x", "a > 0\nz ~ y")


@pytest.mark.parametrize(
    "program",
    [
        [("parameter", 2, 0.0)],
        [("result", 0, 0.0)],
        [("parameter", 0, 0.0), ("+", 0, 0.0)],
        [("parameter", 0, 0.0), ("parameter", 1, 0.0)],
        [],
        [("foo", 0, 0.0)],
    ],
)
def test_programs_that_are_none_are_refused(program):
    with pytest.raises(ValueError, match=r"program|operation"):
        _core.Expressions(2, [program])


def test_definitions_may_stand_in_any_order_and_number():
    chain = "\n".join(f"d{i} := d{i + 1} + 1" for i in range(2000))
    table = parameter_table(parse(f"f =~ y1 + a*y2 + y3\n{chain}\nd2000 := a"))
    theta = np.full(table.npar, 0.5)
    assert defined_functions(table).values(theta)[0] == pytest.approx(2000.5)
    with pytest.raises(ModelError, match="line 4, column 6: 'c' is defined by itself: c -> d -> c"):
        defined_functions(parameter_table(parse("f =~ y1 + a*y2 + y3\nb := c\nc := d + 1\nd := c")))


def test_a_sum_may_have_any_number_of_terms():
    f = compile_expressions(TABLE, [" + ".join(["a"] * 3000) + " - 2998*a"])
    assert f.degrees == (LINEAR,)
    assert f.values(point())[0] == pytest.approx(2 * 0.8)
    assert f.jacobian(point())[0, LABELS["a"]] == pytest.approx(2)
