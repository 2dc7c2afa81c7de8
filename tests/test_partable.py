"""Parameter table: defaults, levels, sharing, bounds, refusals."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from msem.errors import ModelError, UnsupportedError
from msem.partable import Parameter, ParameterTable, parameter_table
from msem.syntax import parse

DEMO = """
level: 1
    fw =~ y1 + y2 + y3
    fw ~ x1 + x2 + x3
level: 2
    fb =~ y1 + y2 + y3
    fb ~ w1 + w2
"""


def table(text: str, **options) -> ParameterTable:
    return parameter_table(parse(text), **options)


def row(of: ParameterTable, lhs: str, op: str, rhs: str = "", level: int = 1) -> Parameter:
    wanted = {(lhs, op, rhs), (rhs, op, lhs)} if op == "~~" else {(lhs, op, rhs)}
    (found,) = (r for r in of.rows if (r.lhs, r.op, r.rhs) in wanted and r.level == level)
    return found


def has(of: ParameterTable, lhs: str, op: str, rhs: str) -> bool:
    return any((r.lhs, r.op, r.rhs) in {(lhs, op, rhs), (rhs, op, lhs)} for r in of.rows)


def free(of: ParameterTable, level: int = 1) -> list[str]:
    return [f"{r.lhs}{r.op}{r.rhs}" for r in of.block(level) if r.free]


# --- against lavaan -----------------------------------------------------------------------------------

COMPARED = [
    case
    for case in reference.names()
    if not (reference.meta(case)["group"] or reference.meta(case)["random_slopes"])
    and "==" not in (reference.meta(case)["constraints"] or ())
]


@reference.needs_reference
def test_enough_reference_cases_are_compared():
    assert len(COMPARED) >= 45


@pytest.mark.parametrize("case", COMPARED)
def test_rows_are_those_of_lavaan(case):
    ours = parameter_table(
        parse(reference.model(case)), **reference.table_arguments(case), allow_defined=True
    )
    everything = reference.expected(case)["parameter_table"]
    theirs = [r for r in everything if r["op"] in ("=~", "~", "~~", "~1")]
    assert [(r.lhs, r.op, r.rhs, r.level, r.free > 0, r.exo, r.user, r.label) for r in ours.rows] == [
        (
            r["lhs"],
            r["op"],
            r["rhs"],
            r["level"] or 1,
            r["free"] > 0,
            bool(r["exo"]),
            r["user"] == 1,
            r["label"],
        )
        for r in theirs
    ]
    for mine, other in zip(ours.rows, theirs, strict=True):
        if not (mine.free or mine.exo):
            assert mine.value == other["est"]
        else:
            assert math.isnan(mine.value) or mine.value == other["est"] == 0
    # lavaan writes shared labels as equality constraints between parameters that it counts apart
    shared = sum(r["op"] == "==" and r["user"] == 2 for r in everything)
    assert ours.npar == reference.expected(case)["npar"] - shared


# --- what a table knows -------------------------------------------------------------------------------


def test_variables_of_the_demo_model():
    t = table(DEMO)
    assert (t.nlevels, t.ngroups, t.meanstructure, t.fixed_x, t.npar) == (2, 1, True, True, 20)
    assert t.observed(1) == ("y1", "y2", "y3", "x1", "x2", "x3")
    assert t.observed(2) == ("y1", "y2", "y3", "w1", "w2")
    assert (t.latent(1), t.latent(2)) == (("fw",), ("fb",))
    assert (t.exogenous(1), t.exogenous(2)) == (("x1", "x2", "x3"), ("w1", "w2"))
    assert t.covariates(1) == t.exogenous(1)
    assert t.both == ("y1", "y2", "y3")
    assert t.within_only == ("x1", "x2", "x3")
    assert t.between_only == ("w1", "w2")


def test_names_number_theta():
    t = table(DEMO.replace("y1 + y2", "y1 + l2*y2"))
    names = t.names()
    assert len(names) == len(set(names)) == t.npar
    assert names[0] == "l2"
    assert names[1] == "fw=~y3"
    assert names[-1] == "y3~1.l2"
    assert "y1~~y1" in names
    assert "y1~~y1.l2" in names


def test_a_single_level_has_no_both():
    t = table("f =~ y1 + y2 + y3")
    assert (t.nlevels, t.both, t.within_only, t.between_only) == (1, (), (), ())


def test_frame_has_a_column_for_each_field():
    frame = table(DEMO).frame()
    assert list(frame.columns) == [
        *[
            "lhs",
            "op",
            "rhs",
            "level",
            "group",
            "free",
            "value",
            "start",
            "lower",
            "upper",
            "label",
            "exo",
            "user",
        ]
    ]
    assert len(frame) == 41
    assert frame["free"].max() == 20
    assert frame.dtypes[["value", "start", "lower", "upper"]].tolist() == [float] * 4


def test_positions_are_those_of_the_text():
    at = row(table(DEMO), "fb", "~", "w2", 2).at
    assert at is not None
    assert (at.line, at.column) == (7, 15)
    assert row(table(DEMO), "y1", "~~", "y1").at is None


# --- levels -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("2", "1"),
        ("between", "within"),
        ("Between", "WITHIN"),
        ("between", "1"),
        ("2", "student"),
        ("school", "within"),
        ("between", "student"),
    ],
)
def test_levels_in_reversed_order_mean_what_they_say(first, second):
    within, between = DEMO.split("level: 2")
    turned = f"level: {first}{between}\n{within.replace('level: 1', f'level: {second}')}"
    assert [(r.lhs, r.op, r.rhs, r.level, r.free) for r in table(turned).rows] == [
        (r.lhs, r.op, r.rhs, r.level, r.free) for r in table(DEMO).rows
    ]


def test_other_level_names_are_in_order_of_appearance():
    named = DEMO.replace("level: 1", "level: student").replace("level: 2", "level: 'my school'")
    assert table(named).rows == table(DEMO).rows


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("level: 1\ny ~ x\nlevel: 2\ny ~ w\nlevel: 3\ny ~ z", UnsupportedError, "line 5, column 1: level 3"),
        ("level: 0\ny ~ x\nlevel: 2\ny ~ w", UnsupportedError, "line 1, column 1: level 0"),
        (
            "level: a\ny~x\nlevel: b\ny~w\nlevel: c\ny~z",
            UnsupportedError,
            "line 5, column 1: 'level: c' is a third",
        ),
        ("level: 1\ny ~ x", ModelError, "line 1, column 1: the model has one level only.*'level: 2'"),
        ("level: school\ny ~ x", ModelError, "one level only"),
        ("level: between\ny ~ x", ModelError, "one level only.*'level: 1'"),
        ("level: 1\ny~x\nlevel: within\ny~z", ModelError, "line 3, column 1: .*second time.* line 1"),
        ("level: 1\ny ~ x\nlevel: 2\n", ModelError, "line 3, column 1: 'level: 2' has no formula"),
        ("level: 1\nlevel: 2\ny ~ x", ModelError, "line 1, column 1: 'level: 1' has no formula"),
        ("y ~ z\nlevel: 1\ny~x\nlevel: 2\ny~w", ModelError, "line 1, column 5: this formula stands before"),
        (
            "level: 1\nf =~ y1 + y2\nlevel: 2\nf ~ w + y1",
            ModelError,
            "line 4, column 5: 'f' is a latent variable",
        ),
        (
            "level: 1\nf ~ w + y1\nlevel: 2\nf =~ y1 + y2",
            ModelError,
            "line 2, column 5: 'f' is a latent variable",
        ),
    ],
)
def test_levels_that_cannot_be(text, error, message):
    with pytest.raises(error, match=message):
        table(text)


def test_a_latent_name_may_be_used_at_both_levels():
    t = table("level: 1\nf =~ y1 + y2 + y3\nlevel: 2\nf =~ y1 + y2 + y3")
    assert t.latent(1) == t.latent(2) == ("f",)
    assert t.npar == 15


# --- defaults -----------------------------------------------------------------------------------------


def test_scale_by_first_loading_or_variance():
    t = table("f =~ y1 + y2 + y3")
    assert (row(t, "f", "=~", "y1").value, row(t, "f", "=~", "y1").free) == (1.0, 0)
    assert row(t, "f", "~~", "f").free
    s = table("f =~ y1 + y2 + y3", std_lv=True)
    assert row(s, "f", "=~", "y1").free
    assert row(s, "f", "~~", "f").value == 1.0
    assert t.npar == s.npar == 6


def test_user_frees_or_fixes_the_first_loading():
    assert row(table("f =~ NA*y1 + y2"), "f", "=~", "y1").free
    assert row(table("f =~ 0*y1 + y2"), "f", "=~", "y1").value == 0.0
    assert row(table("f =~ start(2)*y1 + y2"), "f", "=~", "y1").value == 1.0


@pytest.mark.parametrize(
    ("written", "expected"), [("f", 1.0), ("2*f", 2.0), ("a*f", 1.0), ("NA*f", math.nan)]
)
def test_std_lv_and_a_written_variance(written, expected):
    r = row(table(f"f =~ y1 + y2 + y3\nf ~~ {written}", std_lv=True), "f", "~~", "f")
    assert r.value == expected or (math.isnan(r.value) and math.isnan(expected) and r.free)


def test_a_single_indicator_has_no_residual():
    t = table("f =~ y1\ng =~ y2 + y3 + y4")
    assert row(t, "y1", "~~", "y1").value == 0.0
    assert row(t, "y2", "~~", "y2").free
    assert row(table("f =~ y1\ny1 ~~ y1\ng =~ y2 + y3"), "y1", "~~", "y1").free
    # ... unless it is an indicator of another factor too
    assert row(table("f =~ y1\ng =~ y1 + y2 + y3"), "y1", "~~", "y1").free


def test_default_covariances():
    t = table("f=~y1+y2\ng=~z1+z2\nh=~q1+q2\nk=~r1+r2\nf~h\ng~h+k\ny~h\nz~x")
    pairs = [("h", "k"), *[("f", o) for o in ("g", "y", "z")], ("g", "y"), ("g", "z"), ("y", "z")]
    covariances = [(r.lhs, r.rhs) for r in t.rows if r.op == "~~" and r.lhs != r.rhs]
    assert covariances == pairs


def test_orthogonal_fixes_covariances_of_latent_variables():
    t = table("f=~y1+y2\ng=~z1+z2\nh=~q1+q2\nk=~r1+r2\nf+g~x\ny~x", orthogonal=True)
    assert [row(t, *pair).value for pair in (("h", "~~", "k"), ("f", "~~", "g"))] == [0.0, 0.0]
    assert row(t, "f", "~~", "y").free


def test_higher_order_factor():
    t = table("f =~ y1 + y2 + y3\ng =~ z1 + z2 + z3\nh =~ f + g")
    assert t.latent(1) == ("f", "g", "h")
    assert not has(t, "f", "~~", "g")
    assert row(t, "h", "=~", "f").value == 1.0


def test_covariates_are_fixed_or_random():
    fixed, random = (
        table("y ~ x1 + x2", meanstructure=True),
        table("y ~ x1 + x2", meanstructure=True, fixed_x=False),
    )
    for t in (fixed, random):
        assert t.covariates(1) == ("x1", "x2")
        for r in (row(t, "x1", "~~", "x1"), row(t, "x1", "~~", "x2"), row(t, "x1", "~1")):
            assert (r.exo, r.free > 0, math.isnan(r.value)) == (t is fixed, t is random, True)
    assert (fixed.exogenous(1), random.exogenous(1)) == (("x1", "x2"), ())
    assert (fixed.npar, random.npar) == (4, 9)


@pytest.mark.parametrize("mention", ["x ~~ x", "x ~ 1", "x ~~ y", "x ~~ z"])
def test_a_covariate_that_the_user_gives_moments_is_random(mention):
    t = table(f"y ~ x + v\n{mention}")
    assert t.exogenous(1) == ("v",)
    assert row(t, "x", "~~", "x").free


def test_a_covariate_of_both_levels_is_fixed_at_both():
    t = table("level: 1\ny ~ x\nlevel: 2\ny ~ w + x")
    assert (t.exogenous(1), t.exogenous(2)) == (("x",), ("w", "x"))
    assert (row(t, "x", "~1").value, row(t, "x", "~1").exo) == (0.0, True)
    assert math.isnan(row(t, "x", "~1", level=2).value)


@pytest.mark.parametrize("between", ["x ~ w", "x ~~ w", "f =~ x + y + z"])
def test_a_covariate_that_is_modelled_at_the_other_level_is_random_at_both(between):
    t = table(f"level: 1\ny ~ x + v + z\nlevel: 2\n{between}\ny ~ w")
    assert t.exogenous(1) == (("v",) if "z" in between else ("v", "z"))
    assert t.covariates(1) == ("x", "v", "z")
    assert row(t, "x", "~~", "x").free
    assert row(t, "x", "~~", "v").free
    assert (row(t, "x", "~1").value, row(t, "x", "~1").exo) == (0.0, False)


# --- means --------------------------------------------------------------------------------------------


def test_single_level_means_on_demand():
    assert not table("f =~ y1 + y2 + y3").meanstructure
    assert table("f =~ y1 + y2 + y3", meanstructure=True).npar == 9
    t = table("f =~ y1 + y2 + y3\ny1 ~ 1")
    assert t.meanstructure
    assert row(t, "f", "~1").value == 0.0
    assert row(t, "y2", "~1").free


@pytest.mark.parametrize(
    ("text", "fun", "message"),
    [
        (DEMO, "sem", "two-level model always has means"),
        ("y ~ x\ny ~ 1", "sem", "line 2, column 5: this intercept needs means"),
        ("f =~ y1 + y2", "growth", "a growth model needs means"),
    ],
)
def test_means_cannot_be_left_out(text, fun, message):
    with pytest.raises(ModelError, match=message):
        table(text, fun=fun, meanstructure=False)


def test_within_intercept_of_a_variable_at_both_levels_is_zero():
    text = "level: 1\ny ~ x\n{}\nlevel: 2\ny ~ w"
    for written in ("", "y ~ 1", "y ~ NA*1", "y ~ start(2)*1", "y ~ lower(0)*1"):
        t = table(text.format(written))
        r = row(t, "y", "~1")
        assert (r.value, r.free, r.user, r.start, r.lower) == (0.0, 0, bool(written), None, -math.inf)
        assert row(t, "y", "~1", level=2).free
    assert row(table(text.format("y ~ 2*1")), "y", "~1").value == 2.0
    with pytest.raises(
        ModelError, match="line 3, column 5: 'y' is at both levels, so its within intercept is 0"
    ):
        table(text.format("y ~ a*1"))


def test_within_only_variables_have_their_mean_at_the_within_level():
    t = table("level: 1\nf =~ y1 + y2 + v\nlevel: 2\ng =~ y1 + y2 + w")
    assert row(t, "v", "~1").free
    assert row(t, "w", "~1", level=2).free
    assert [row(t, f, "~1", level=level).value for f, level in (("f", 1), ("g", 2))] == [0.0, 0.0]


def test_latent_means_are_free_on_demand():
    t = table("level: 1\nf =~ y1 + y2\nlevel: 2\ng =~ y1 + y2\ng ~ 1\ny1 ~ 0*1")
    assert row(t, "g", "~1", level=2).free
    assert row(t, "y1", "~1", level=2).value == 0.0


def test_growth_single_level():
    t = table("i =~ 1*y1 + 1*y2 + 1*y3\ns =~ 0*y1 + 1*y2 + 2*y3\ni + s ~ x\nh =~ i + s", fun="growth")
    assert [row(t, y, "~1").value for y in ("y1", "y2", "y3")] == [0.0] * 3
    assert all(row(t, f, "~1").free for f in ("i", "s", "h"))
    assert row(t, "x", "~1").exo
    random = table("i =~ 1*y1 + 1*y2\ni ~ x", fun="growth", fixed_x=False)
    assert row(random, "x", "~1").free


def test_growth_two_level_frees_means_at_the_between_level():
    curve = "i =~ 1*y1 + 1*y2 + 1*y3\ns =~ 0*y1 + 1*y2 + 2*y3\n"
    t = table(f"level: 1\n{curve}v =~ v1 + v2 + v3\nlevel: 2\n{curve}", fun="growth")
    assert [row(t, f, "~1").value for f in ("i", "s")] == [0.0, 0.0]
    assert row(t, "v", "~1").free
    assert all(row(t, f, "~1", level=2).free for f in ("i", "s"))
    assert all(row(t, y, "~1", level=level).value == 0.0 for y in ("y1", "y2", "y3") for level in (1, 2))


# --- what the user says -------------------------------------------------------------------------------


def test_modifiers_of_one_row():
    t = table("f =~ y1 + start(0.5)*lower(0)*upper(3)*a*y2 + 0.8*y3")
    r = row(t, "f", "=~", "y2")
    assert (r.start, r.lower, r.upper, r.label) == (0.5, 0.0, 3.0, "a")
    assert (r.free > 0, r.user) == (True, True)
    assert row(t, "f", "=~", "y3").value == 0.8


def test_statements_of_one_parameter_merge():
    t = table("y1 ~~ y1\ny1 ~~ lower(0.1)*y1\ny1 ~~ a*y2\ny2 ~~ start(1)*y1\ny2 ~~ a*y1")
    assert row(t, "y1", "~~", "y1").lower == 0.1
    assert (row(t, "y2", "~~", "y1").label, row(t, "y2", "~~", "y1").start) == ("a", 1.0)


@pytest.mark.parametrize(
    ("text", "line", "before"),
    [
        ("y1 ~~ 2*y1\ny1 ~~ 3*y1", 2, "line 1, column 7"),
        ("y1 ~~ a*y2\ny2 ~~ b*y1", 2, "line 1, column 7"),
        ("y ~ x\ny ~ NA*x\ny ~ 2*x", 3, "line 2, column 5"),
        ("y ~ 2*x + NA*x", 1, "line 1, column 5"),
        ("y ~ start(1)*x\ny ~ start(2)*x", 2, "line 1, column 5"),
        ("y ~ lower(1)*x\ny ~ lower(2)*x", 2, "line 1, column 5"),
    ],
)
def test_contradictions_name_both_places(text, line, before):
    with pytest.raises(ModelError, match=f"line {line}, .* is given twice, differently: first on {before}"):
        table(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("y ~ y", "line 1, column 5: 'y' is regressed on itself"),
        ("f =~ f + y1", "line 1, column 6: 'f' is measured by itself"),
        ("f =~ g\ng =~ f", "line 1, column 6: the latent variable 'f' has no observed indicator"),
        ("h =~ f + y1\nf =~ g\ng =~ f", "line 2, column 6: the latent variable 'f' has no observed"),
        ("f =~ y1 + y2\ny1 ~ f", "line 2, column 6: 'y1 ~ f' is the same path as 'f =~ y1' on line 1"),
    ],
)
def test_models_that_cannot_be(text, message):
    with pytest.raises(ModelError, match=message):
        table(text)


def test_a_model_needs_a_formula_and_a_known_function():
    with pytest.raises(ModelError, match="no formula"):
        table("a := 2", allow_defined=True)
    with pytest.raises(ModelError, match="fun is 'sem', 'cfa' or 'growth', not 'lavaan'"):
        table("y ~ x", fun="lavaan")


# --- sharing and bounds -------------------------------------------------------------------------------


def test_labels_are_shared_within_and_across_levels():
    t = table("level: 1\nf =~ y1 + a*y2 + a*y3\nlevel: 2\nf =~ y1 + a*y2 + b*y3\ny1 ~~ a*y1")
    numbers = {r.free for r in t.rows if r.label == "a"}
    assert len(numbers) == 1
    assert t.npar == 15 - 3
    assert sorted({r.free for r in t.rows} - {0}) == list(range(1, t.npar + 1))
    assert t.names()[0] == "a"


def test_a_label_of_a_fixed_parameter_fixes_the_others():
    t = table("f =~ a*y1 + a*y2 + y3")
    assert row(t, "f", "=~", "y2").value == 1.0
    assert t.npar == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "f =~ y1 + 2*a*y2\nf ~~ 3*a*f",
            "line 2, column 6: 'f ~~ f' .*'f =~ y2' .*fixed at different values",
        ),
        ("f =~ y1 + 2*a*y2\nf ~~ NA*a*f", "line 2, column 6: 'f ~~ f' .* is freed by NA"),
    ],
)
def test_labels_that_contradict(text, message):
    with pytest.raises(ModelError, match=message):
        table(text)


@pytest.mark.parametrize(
    ("text", "shared"),
    [
        ('f =~ y1 + y2 + equal("f=~y2")*y3', ("f", "=~", "y2", 1)),
        ('f =~ y1 + y2 + equal(" f =~ y2 ")*y3', ("f", "=~", "y2", 1)),
        ('f =~ y1 + k*y2 + equal("k")*y3', ("f", "=~", "y2", 1)),
        ('f =~ y1 + y2 + equal("y2~~y2")*y3', ("y2", "~~", "y2", 1)),
        ('f =~ y1 + y2 + equal("y2~~y1")*y3\ny1 ~~ y2', ("y1", "~~", "y2", 1)),
        ('f =~ y1 + y2 + equal("y2~1")*y3\ny2 ~ 1', ("y2", "~1", "", 1)),
    ],
)
def test_equal_names_another_parameter(text, shared):
    t = table(text)
    assert row(t, "f", "=~", "y3").free == row(t, *shared).free > 0
    other = text.replace("equal", "start(1)*equal")
    assert row(table(other), *shared).start == 1.0


def test_equal_prefers_its_own_level_and_reaches_the_other():
    text = "level: 1\nf =~ y1 + y2 + {}*y3\nlevel: 2\n{} =~ y1 + y2 + {}*y3"
    same = table(text.format("NA", "f", 'equal("f=~y2")'))
    assert row(same, "f", "=~", "y3", 2).free == row(same, "f", "=~", "y2", 2).free
    across = table(text.format("NA", "g", 'equal("f=~y2")'))
    assert row(across, "g", "=~", "y3", 2).free == row(across, "f", "=~", "y2", 1).free
    suffix = table(text.format('equal("f=~y2.l2")', "f", "NA"))
    assert row(suffix, "f", "=~", "y3", 1).free == row(suffix, "f", "=~", "y2", 2).free


@pytest.mark.parametrize("name", ["zz", "f=~zz", "f=~y3", "f=~y2.l2"])
def test_equal_of_an_unknown_parameter(name):
    with pytest.raises(ModelError, match=r"line 1, column 16: equal\(.*names no other parameter"):
        table(f'f =~ y1 + y2 + equal("{name}")*y3')


def test_equal_of_a_fixed_covariate():
    with pytest.raises(ModelError, match="line 1, column 9: 'x ~~ x' is a moment of a fixed covariate"):
        table('y ~ x + equal("x~~x")*z')


@pytest.mark.parametrize(
    ("text", "lower", "upper"),
    [
        ("v > 2", 2, math.inf),
        ("v < 2", -math.inf, 2),
        ("2 < v", 2, math.inf),
        ("-1/2 > v", -math.inf, -0.5),
        ("v > 0; v < 1; v > 0.5", 0.5, 1),
        ("v < Inf", -math.inf, math.inf),
    ],
)
def test_bounds_on_a_label(text, lower, upper):
    t = table(f"f =~ y1 + v*y2 + v*y3\n{text}")
    for y in ("y2", "y3"):
        assert (row(t, "f", "=~", y).lower, row(t, "f", "=~", y).upper) == (lower, upper)


def test_shared_parameters_share_bounds_and_start():
    t = table("f =~ y1 + lower(0)*a*y2 + upper(2)*a*y3 + start(1)*lower(1)*a*y4")
    assert {(r.lower, r.upper, r.start) for r in t.rows if r.label == "a"} == {(1.0, 2.0, 1.0)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "f =~ y1 + lower(2)*upper(1)*y2",
            "line 1, column 11: 'f =~ y2' has lower bound 2 and upper bound 1",
        ),
        ("f =~ y1 + lower(1)*upper(1)*y2", "leave no room"),
        (
            "f =~ y1 + 2*a*y2\na > 3",
            "line 1, column 11: 'f =~ y2' is fixed at 2, outside its bounds 3 and inf",
        ),
        ("f =~ y1 + a*y2\nb > 3", "line 2, column 1: no parameter is labelled 'b'; labels of this model: a"),
        ("f =~ y1 + y2\n3 < b", "line 2, column 5: no parameter is labelled 'b'; labels of this model: none"),
    ],
)
def test_bounds_that_cannot_be(text, message):
    with pytest.raises(ModelError, match=message):
        table(text)


# --- refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("group: a\ny ~ x\ngroup: b\ny ~ x", "line 1, column 1: models for several groups"),
        ("block: 1\ny ~ x", "line 1, column 1: 'block:'.*'level: 1'"),
        ("y ~ a*x\nb := a^2", r"line 2, column 3: 'b := a\^2': defined parameters"),
        ("y ~ a*x + b*z\na == b", "line 2, column 3: 'a == b': equality constraints .*same label"),
        ("y ~ a*x\na == 1", "line 2, column 3: 'a == 1': equality"),
        ("y ~ a*x + b*z\na > b", "line 2, column 3: 'a > b': .*between a label and a number only"),
        ("y ~ a*x\n2*a < 1", "line 2, column 5: "),
        ("y ~ a*x\nexp(a) < 1", "line 2, column 8: "),
        ("y ~ a*x\n1 < 2", "line 2, column 3: "),
        ("y ~ rv('s')*x", r"line 1, column 5: random slopes, rv\(\)"),
        ("efa('a')*f =~ y1 + y2", r"line 1, column 1: exploratory blocks, efa\(\)"),
        ("f <~ y1 + y2", "line 1, column 6: composites"),
        ("u | t1", "line 1, column 5: thresholds"),
        ("u ~*~ u", "line 1, column 7: scaling factors"),
        ("y ~ c(a, b)*x", r"line 1, column 5: c\(\) gives one value for each group"),
        ("y ~ x1:x2", "line 1, column 5: .*'x1:x2'.*x1_x2 = x1 \\* x2.*'x1_x2'"),
        ("f =~ y1 + y2\ny ~ f:x", "line 2, column 5: interactions of latent variables .*'f' is latent"),
    ],
)
def test_what_is_not_available_is_refused_by_name(text, message):
    with pytest.raises(UnsupportedError, match=message):
        table(text)


def test_defined_parameters_can_be_ignored():
    assert table("y ~ a*x\nb := 2*a", allow_defined=True).rows == table("y ~ a*x").rows
    with pytest.raises(UnsupportedError, match="line 3, column 3: 'b > 1'"):
        table("y ~ a*x\nb := 2*a\nb > 1", allow_defined=True)


# --- properties ---------------------------------------------------------------------------------------

OBSERVED = ["y1", "y2", "y3", "x1", "x2"]
FORMULAS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from("fg"), st.just("=~"), st.sampled_from(OBSERVED)),
        st.tuples(st.sampled_from([*OBSERVED, "f"]), st.just("~"), st.sampled_from([*OBSERVED, "g", "1"])),
        st.tuples(
            st.sampled_from([*OBSERVED, "f"]), st.just("~~"), st.sampled_from([*OBSERVED, "f", "0*y1"])
        ),
    ),
    min_size=1,
    max_size=8,
)


@settings(deadline=None)
@given(FORMULAS, FORMULAS, st.booleans(), st.booleans())
def test_every_variable_has_a_variance_and_a_mean_and_theta_is_numbered_without_gaps(
    within, between, fixed_x, std_lv
):
    lines = ["level: 1", *map(" ".join, within), "level: 2", *map(" ".join, between)]
    try:
        t = table("\n".join(lines), fixed_x=fixed_x, std_lv=std_lv)
    except ModelError:
        return
    for level in (1, 2):
        names = {*t.observed(level), *t.latent(level)}
        assert {r.lhs for r in t.block(level) if r.op == "~1"} == names
        assert {r.lhs for r in t.block(level) if r.op == "~~" and r.lhs == r.rhs} == names
        keys = [
            frozenset((r.op, r.lhs, r.rhs)) if r.op == "~~" else (r.op, r.lhs, r.rhs) for r in t.block(level)
        ]
        assert len(keys) == len(set(keys))
    assert [r.level for r in t.rows] == sorted(r.level for r in t.rows)
    assert list(dict.fromkeys(r.free for r in t.rows if r.free)) == list(range(1, t.npar + 1))
    for r in t.rows:
        assert math.isnan(r.value) == (r.free > 0) or r.exo
        assert not (r.exo and (r.free or not fixed_x))


def test_the_demo_table_takes_less_than_half_a_millisecond():
    syntax = parse(DEMO)

    def once() -> float:
        begin = time.perf_counter()
        parameter_table(syntax)
        return time.perf_counter() - begin

    assert min(once() for _ in range(50)) < 0.5e-3
