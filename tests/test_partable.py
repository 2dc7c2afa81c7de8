"""Parameter table: its rows are lavaan's, and what it knows about its variables."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from msem.errors import ModelError
from msem.language.syntax import parse
from msem.model.partable import parameter_table
from rows import DEMO, row, table

COMPARED = [
    case
    for case in reference.names()
    if not (reference.meta(case)["group"] or reference.meta(case)["random_slopes"])
]


@reference.needs_reference
def test_enough_reference_cases_are_compared():
    assert len(COMPARED) >= 45


@pytest.mark.parametrize("case", COMPARED)
def test_rows_are_those_of_lavaan(case):
    ours = parameter_table(parse(reference.model(case)), **reference.table_arguments(case))
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


def test_variables_of_the_demo_model():
    t = table(DEMO)
    assert (t.nlevels, t.ngroups, t.meanstructure, t.fixed_x, t.npar) == (2, 1, True, True, 20)
    assert t.observed(1) == ("y1", "y2", "y3", "x1", "x2", "x3")
    assert t.observed(2) == ("y1", "y2", "y3", "w1", "w2")
    assert (t.latent(1), t.latent(2)) == (("fw",), ("fb",))
    assert (t.exogenous(1), t.exogenous(2)) == (("x1", "x2", "x3"), ("w1", "w2"))
    assert t.covariates(1) == t.exogenous(1)
    assert t.both == ("y1", "y2", "y3")
    assert t.variables.alone == (("x1", "x2", "x3"), ("w1", "w2"))


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
    assert (t.nlevels, t.both) == (1, ())


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
            "slope",
            "efa",
        ]
    ]
    assert len(frame) == 41
    assert frame["free"].max() == 20
    assert frame.dtypes[["value", "start", "lower", "upper"]].tolist() == [float] * 4


def test_positions_are_those_of_the_text():
    at = row(table(DEMO), "fb", "~", "w2", 2).at
    assert at is not None
    assert (at.line, at.column) == (7, 13)
    assert row(table(DEMO), "y1", "~~", "y1").at is None


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
        table("a := 2")
    with pytest.raises(ModelError, match="fun is 'sem', 'cfa' or 'growth', not 'lavaan'"):
        table("y ~ x", fun="lavaan")


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


@pytest.mark.parametrize("text", ["g =~ {}\ng ~ 1*x1 + x2\nf ~ g", "f ~ g\ng ~ x1\ng =~ {}"])
def test_a_latent_variable_without_indicators_has_a_loading_of_zero(text):
    own, written = (
        parameter_table(parse("f =~ y1 + y2 + y3\n" + text.format(zero))) for zero in ("0", "0*y1")
    )
    key = ["lhs", "op", "rhs", "free", "value", "exo"]
    one, two = (
        t.frame()[key].sort_values(key[:3], ignore_index=True).drop(columns="free") for t in (own, written)
    )
    pd.testing.assert_frame_equal(one, two)
    assert own.npar == written.npar


def test_a_latent_variable_without_indicators_needs_something_that_depends():
    with pytest.raises(ModelError, match="line 1, column 6: 'f =~ 0' needs an observed variable"):
        parameter_table(parse("f =~ 0\nf ~ x"))


@pytest.mark.parametrize("said", ["1e160", "start(1e160)", "lower(-1e101)", "upper(1e300)"])
def test_numbers_whose_squares_overflow_are_refused(said):
    with pytest.raises(ModelError, match=r"line 1, column 11: .* is too large to compute with"):
        parameter_table(parse(f"f =~ y1 + {said}*y2 + y3"))
