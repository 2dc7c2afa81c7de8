"""Saturated, independence and partially saturated tables."""

from __future__ import annotations

import math

import pytest

import reference
from msem.language.syntax import parse
from msem.model.derived import baseline_table, partially_saturated_table, saturated_table
from msem.model.partable import ParameterTable, parameter_table

DEMO = """
level: 1
    fw =~ y1 + a*y2 + b*y3
    fw ~ x1 + x2
level: 2
    fb =~ y1 + a*y2 + b*y3
    fb ~ w1 + w2
"""
COMPARED = [
    case
    for case in reference.names()
    if not (reference.meta(case)["group"] or reference.meta(case)["random_slopes"])
    and "==" not in (reference.meta(case)["constraints"] or ())
]


def table(text: str, **options) -> ParameterTable:
    return parameter_table(parse(text), **options)


def free(of: ParameterTable, level: int) -> list[str]:
    return [f"{r.lhs}{r.op}{r.rhs}" for r in of.block(level) if r.free]


def exogenous(of: ParameterTable) -> list[tuple[str, str, str, int]]:
    return [(r.lhs, r.op, r.rhs, r.level) for r in of.rows if r.exo]


@reference.needs_reference
def test_enough_reference_cases_are_compared():
    assert len(COMPARED) >= 45


@pytest.mark.parametrize("case", COMPARED)
def test_degrees_of_freedom_are_those_of_lavaan(case):
    model = parameter_table(parse(reference.model(case)), **reference.table_arguments(case))
    saturated, baseline = saturated_table(model), baseline_table(model)
    expected = reference.expected(case)
    assert saturated.npar - model.npar == expected["df"]
    assert saturated.npar - baseline.npar == expected["fit_measures"]["baseline.df"]


def test_saturated_rows():
    t = saturated_table(table(DEMO))
    assert free(t, 1) == [
        *["y1~~y1", "y1~~y2", "y1~~y3", "y1~~x1", "y1~~x2"],
        *["y2~~y2", "y2~~y3", "y2~~x1", "y2~~x2"],
        *["y3~~y3", "y3~~x1", "y3~~x2"],
    ]
    assert free(t, 2)[-3:] == ["y1~1", "y2~1", "y3~1"]
    assert [(r.lhs, r.value) for r in t.block(1) if r.op == "~1" and not r.exo] == [
        (f"y{i}", 0.0) for i in (1, 2, 3)
    ]
    assert sorted(exogenous(t)) == sorted(exogenous(table(DEMO)))
    assert t.npar == 12 + 12 + 3
    assert (t.both, t.variables.alone) == (("y1", "y2", "y3"), (("x1", "x2"), ("w1", "w2")))
    assert t.syntax is None
    assert {r.op for r in t.rows} == {"~~", "~1"}


def test_saturated_frees_within_means_of_within_variables_only():
    t = saturated_table(table(DEMO, fixed_x=False))
    assert [name for name in free(t, 1) if "~1" in name] == ["x1~1", "x2~1"]
    assert t.npar == 15 + 2 + 15 + 5


def test_saturating_twice_changes_nothing():
    t = saturated_table(table(DEMO))
    assert saturated_table(t) == t


def test_baseline_rows():
    t = baseline_table(table(DEMO))
    assert free(t, 1) == ["y1~~y1", "y2~~y2", "y3~~y3"]
    assert free(t, 2) == ["y1~~y1", "y2~~y2", "y3~~y3", "y1~1", "y2~1", "y3~1"]
    assert sorted(exogenous(t)) == sorted(exogenous(table(DEMO)))


def test_baseline_keeps_covariances_of_random_covariates():
    t = baseline_table(table(DEMO, fixed_x=False))
    assert [name for name in free(t, 1) if "x" in name] == ["x1~~x1", "x2~~x2", "x1~~x2", "x1~1", "x2~1"]
    assert "w1~~w2" in free(t, 2)
    assert exogenous(t) == []


@pytest.mark.parametrize(("means", "expected"), [(False, (6, 3)), (True, (9, 6))])
def test_a_single_level(means, expected):
    model = table("f =~ y1 + y2 + y3", meanstructure=means)
    assert (saturated_table(model).npar, baseline_table(model).npar) == expected
    assert saturated_table(model).meanstructure is means


@pytest.mark.parametrize("level", [1, 2])
def test_partially_saturated_keeps_one_level(level):
    model = table(DEMO)
    t = partially_saturated_table(model, level)
    kept, other = t.block(level), t.block(3 - level)
    assert [(r.lhs, r.op, r.rhs, r.label, r.exo) for r in kept] == [
        (r.lhs, r.op, r.rhs, r.label, r.exo) for r in model.block(level)
    ]
    assert [(r.lhs, r.op, r.rhs) for r in other] == [
        (r.lhs, r.op, r.rhs) for r in saturated_table(model).block(3 - level)
    ]
    assert all(math.isnan(r.value) or r.value in (0, 1) for r in t.rows)
    assert list(dict.fromkeys(r.free for r in t.rows if r.free)) == list(range(1, t.npar + 1))
    assert len({r.free for r in kept if r.label}) == 2


def test_labels_shared_within_the_kept_level_stay_shared():
    model = table("level: 1\nf =~ y1 + a*y2 + a*y3\nlevel: 2\ng =~ y1 + y2 + y3")
    kept = partially_saturated_table(model, 1)
    assert len({r.free for r in kept.rows if r.label == "a"}) == 1
    assert kept.npar == 5 + 9


@pytest.mark.parametrize(("text", "level"), [("f =~ y1 + y2 + y3", 1), (DEMO, 3)])
def test_a_level_that_cannot_be_kept(text, level):
    with pytest.raises(ValueError, match=f"level {level} of a model with"):
        partially_saturated_table(table(text), level)


def test_thirty_saturated_variables_have_all_moments():
    names = " + ".join(f"y{i}" for i in range(30))
    assert saturated_table(table(f"level: 1\nf =~ {names}\nlevel: 2\ng =~ {names}")).npar == 960
