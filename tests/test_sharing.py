"""Shared labels, equal(), and bounds."""

from __future__ import annotations

import math

import pytest

from msem.errors import ModelError
from rows import row, table


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
