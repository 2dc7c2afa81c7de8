"""Rows that the user leaves out."""

from __future__ import annotations

import math

import pytest

from msem.errors import ModelError
from rows import DEMO, row, table


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
    assert not any({r.lhs, r.rhs} == {"f", "g"} for r in t.rows)
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
