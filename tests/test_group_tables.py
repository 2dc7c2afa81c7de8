"""Parameter tables of several groups: blocks, c(), equality over groups and what it frees."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from msem.errors import ModelError, UnsupportedError
from msem.language.syntax import parse
from msem.model.blocks import group_order
from msem.model.derived import baseline_table, partially_saturated_table, saturated_table
from msem.model.equality import KINDS
from msem.model.partable import Parameter, ParameterTable
from rows import DEMO, table

CASES = [case for case in reference.names() if reference.meta(case)["group"]]
CFA = "f =~ y1 + y2 + y3"
TWO = """
level: 1
    fw =~ y1 + y2 + y3
level: 2
    fb =~ y1 + y2 + y3
"""
GROUPS = ("a", "b")


def find(of: ParameterTable, name: str, group: int = 1, level: int = 1) -> Parameter:
    """The row with a name that is made of lhs, op and rhs."""
    (found,) = (
        r for r in of.rows if f"{r.lhs}{r.op}{r.rhs}" == name and (r.group, r.level) == (group, level)
    )
    return found


def shared(of: ParameterTable) -> set[str]:
    """Names of the parameters that rows of several groups have in common."""
    groups: dict[int, set[int]] = {}
    for row in of.rows:
        groups.setdefault(row.free, set()).add(row.group)
    return {name for k, name in enumerate(of.names(), start=1) if len(groups[k]) > 1}


@reference.needs_reference
def test_enough_reference_cases_are_compared():
    assert len(CASES) >= 5


@pytest.mark.parametrize("case", CASES)
def test_rows_are_those_of_lavaan(case):
    theirs = reference.expected(case)
    equal = reference.meta(case)["lavaan_args"].get("group.equal", ())
    ours = table(
        reference.model(case),
        **reference.table_arguments(case),
        groups=theirs["group_labels"],
        group_equal=equal,
    )
    rows = [r for r in theirs["parameter_table"] if r["op"] in ("=~", "~", "~~", "~1")]
    levels = list(dict.fromkeys(r["level"] for r in rows))
    groups = list(dict.fromkeys(r["group"] for r in rows))
    assert [(r.lhs, r.op, r.rhs, r.level, r.group, r.free > 0, r.exo, r.user) for r in ours.rows] == [
        (
            *(r["lhs"], r["op"], r["rhs"], levels.index(r["level"]) + 1, groups.index(r["group"]) + 1),
            *(r["free"] > 0, bool(r["exo"]), r["user"] == 1),
        )
        for r in rows
    ]
    constraints = sum(r["op"] == "==" for r in theirs["parameter_table"])
    assert ours.npar == theirs["npar"] - constraints
    names = [name for name in theirs["vcov"]["rows"] if not name.startswith(".p")]
    unlabelled = [name.replace(".lbetween", ".l2") for name in dict.fromkeys(names)]
    mine = [name for name in ours.names() if name not in shared(ours) or find_label(ours, name)]
    assert mine == unlabelled
    assert saturated_table(ours).npar - ours.npar == theirs["df"]
    baseline = baseline_table(ours)
    assert saturated_table(ours).npar - baseline.npar == theirs["fit_measures"]["baseline.df"]


def find_label(of: ParameterTable, name: str) -> bool:
    """Whether it is the label of a row."""
    return any(r.label == name for r in of.rows)


def test_one_text_is_the_model_of_every_group():
    t = table(DEMO, groups=("x", "y", "z"))
    assert (t.ngroups, t.nlevels, t.group_labels) == (3, 2, ("x", "y", "z"))
    assert t.npar == 3 * table(DEMO).npar
    assert len(set(t.names())) == t.npar
    assert t.names()[:20] == table(DEMO).names()
    assert t.names()[20] == "fw=~y2.g2"
    assert t.names()[-1] == "y3~1.g3.l2"
    assert t.observed(2, 3) == t.observed(2, 1)


def test_several_groups_have_means():
    assert table(CFA, groups=GROUPS).meanstructure
    assert not table(CFA, groups=GROUPS, meanstructure=False).meanstructure
    assert not table(CFA).meanstructure


def estimated(t):
    return [(n, r.free, r.value) for n, r in zip(t.by_name.shown, t.rows, strict=True) if r.free]


def test_the_same_in_blocks():
    indented = DEMO.replace("\n", "\n  ")
    in_blocks = table(f"group: b\n{indented}\ngroup: a\n{indented}", groups=("b", "a"))
    together = table(DEMO, groups=("b", "a"))
    assert estimated(in_blocks) == estimated(together)


def test_headers_say_the_order():
    syntax = parse(f"group: b\n{CFA}\ngroup: a\n{CFA}")
    assert group_order(syntax, ("a", "b")) == ("b", "a")
    assert group_order(parse(CFA), ("a", "b")) == ("a", "b")


def test_rows_follow_the_order_of_the_groups_whatever_the_headers():
    text = f"group: b\nf =~ y1 + 2*y2 + y3\ngroup: a\n{CFA}"
    t = table(text, groups=("a", "b"))
    assert math.isnan(find(t, "f=~y2", 1).value)
    assert find(t, "f=~y2", 2).value == 2.0


def test_levels_of_a_group_can_stand_in_any_order_and_apart():
    within, between = TWO.split("level: 2")
    text = f"group: a\nlevel: 2{between}\ngroup: b{TWO}group: a{within}"
    t = table(text, groups=GROUPS)
    other = table(TWO, groups=GROUPS)
    assert t.by_name.shown == other.by_name.shown
    assert [r.free for r in t.rows] == [r.free for r in other.rows]


@pytest.mark.parametrize(
    ("header", "label"),
    [
        ("1", "1"),
        ("1.0", "1"),
        ("1", "1.0"),
        ("'1'", "1"),
        ("TRUE", "True"),
        ("true", "True"),
        ("Grant-White", "Grant-White"),
        ("'Grant White'", "Grant White"),
        ("2020-01-31", "2020-01-31"),
        ("grün", "grün"),
    ],
)
def test_labels_are_compared_as_text(header, label):
    t = table(f"group: {header}\n{CFA}\ngroup: other\n{CFA}", groups=(label, "other"))
    assert t.group_labels == (label, "other")


def test_labels_that_differ_by_case_are_two_groups():
    text = f"group: A\nf =~ y1 + 2*y2 + y3\ngroup: a\n{CFA}"
    assert find(table(text, groups=("a", "A")), "f=~y2", 2).value == 2.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"group: a\n{CFA}\ngroup: c\n{CFA}", "line 3, column 1: 'group: c' is not a group .* 'a', 'b'"),
        (f"group: a\n{CFA}", "line 1, column 1: the data have the group 'b', and the model has no"),
        (f"{CFA}\ngroup: a\n{CFA}\ngroup: b\n{CFA}", "line 1, column 6: .*before the first 'group:'"),
        (f"group: a\n{CFA}\ngroup: b\n", "line 3, column 1: 'group: b' has no formula"),
        (
            f"level: 1\ngroup: a\n{CFA}\ngroup: b\n{CFA}\nlevel: 2\ngroup: a\n{CFA}",
            "line 1, column 1: 'level: 1' stands outside of the groups",
        ),
        (f"group: a\n{CFA}\ngroup: b\n{TWO}", "group 'a' has 1 level.* and group 'b' has 2"),
        (f"group: a\n{TWO}\ngroup: b\nf =~ y1\n{TWO}", "line 9, column 6: .*before the first 'level:'"),
        (
            f"group: a\n{TWO}\ngroup: b\nlevel: 1\nf =~ y1+y2",
            r"line 9, column 1: the model has one level only",
        ),
        (f"group: a\n{TWO}\ngroup: a\n{TWO}\ngroup: b{TWO}", "line 10, column 1: .*a second time"),
        (f"group: a\n{CFA}\ngroup: b\nf =~ c(1, 2)*y1", "line 4, column 6: .*below a 'group:' header"),
        ("f =~ y1 + c(1, 2, 3)*y2", "line 1, column 11: .*3 values for 2 groups .'a', 'b'."),
        ("f =~ y1 + start(c(1, 2, 3))*y2", "line 1, column 11: .*3 values for 2 groups"),
    ],
)
def test_bad_blocks(text, message):
    with pytest.raises(ModelError, match=message):
        table(text, groups=GROUPS)


def test_groups_with_different_variables_are_refused():
    with pytest.raises(UnsupportedError, match="line 4, column 16: 'y4' is not in the model of group 'a'"):
        table(f"group: a\n{CFA}\ngroup: b\nf =~ y1 + y2 + y4 + y3", groups=GROUPS)


def test_headers_and_c_need_groups():
    with pytest.raises(ModelError, match="line 1, column 1: 'group: a' needs the groups of the data"):
        table(f"group: a\n{CFA}")
    with pytest.raises(ModelError, match=r"line 1, column 6: c\(\) .*this model has one group"):
        table("f =~ c(1, 2)*y1 + y2")
    with pytest.raises(ModelError, match="need groups"):
        table(CFA, group_equal=["loadings"])


def test_c_gives_one_value_for_each_group():
    t = table(
        "f =~ c(NA, 1)*y1 + c(0.5, NA)*y2 + c(a, b)*y3 + start(c(0.7, 0.8))*y4\n"
        "f ~~ c(1, NA)*f\ny1 ~~ lower(c(0, NA))*y1",
        groups=GROUPS,
    )
    assert [find(t, "f=~y1", g).free > 0 for g in (1, 2)] == [True, False]
    assert [find(t, "f=~y2", g).free > 0 for g in (1, 2)] == [False, True]
    assert [find(t, "f=~y3", g).label for g in (1, 2)] == ["a", "b"]
    assert [find(t, "f=~y4", g).start for g in (1, 2)] == [0.7, 0.8]
    assert [find(t, "f~~f", g).value for g in (1, 2)] == [1.0, pytest.approx(math.nan, nan_ok=True)]
    assert [find(t, "y1~~y1", g).lower for g in (1, 2)] == [0.0, -math.inf]


def test_one_label_is_one_parameter_of_all_groups():
    t = table("f =~ y1 + a*y2 + c(b, b)*y3 + c(c1, c2)*y4", groups=GROUPS)
    assert shared(t) == {"a", "b"}


def test_equal_names_a_parameter_of_its_own_group_first():
    t = table('f =~ y1 + y2 + equal("f=~y2")*y3', groups=GROUPS)
    assert [find(t, "f=~y3", g).free == find(t, "f=~y2", g).free for g in (1, 2)] == [True, True]
    assert not shared(t)
    t = table('f =~ y1 + y2 + equal("f=~y2.g2")*y3', groups=GROUPS)
    assert {find(t, "f=~y3", 1).free, find(t, "f=~y3", 2).free} == {find(t, "f=~y2", 2).free}


@pytest.mark.parametrize(
    ("kinds", "names"),
    [
        (["loadings"], {"f=~y2", "f=~y3"}),
        (["intercepts"], {"y1~1", "y2~1", "y3~1", "z~1"}),
        (["regressions"], {"f~x", "z~f"}),
        (["residuals"], {"y1~~y1", "y2~~y2", "y3~~y3", "z~~z"}),
        (["residual.covariances"], {"y1~~y2"}),
        (["residual_covariances"], {"y1~~y2"}),
        (["lv.variances"], {"f~~f"}),
        ("lv_covariances", set()),
        (["loadings", "lv_variances"], {"f=~y2", "f=~y3", "f~~f"}),
    ],
)
def test_what_is_held_equal(kinds, names):
    t = table(f"{CFA}\nf ~ x\nz ~ f\ny1 ~~ y2", groups=GROUPS, group_equal=kinds)
    assert shared(t) == names


def test_means_of_growth_factors_are_equal():
    t = table("i =~ 1*y1 + 1*y2\ns =~ 0*y1 + 1*y2", fun="growth", groups=GROUPS, group_equal="means")
    assert shared(t) == {"i~1", "s~1"}


def test_equality_holds_at_each_level():
    t = table(TWO, groups=GROUPS, group_equal=["loadings"])
    assert shared(t) == {"fw=~y2", "fw=~y3", "fb=~y2.l2", "fb=~y3.l2"}
    assert t.npar == 2 * table(TWO).npar - 4


def test_equal_intercepts_free_the_latent_means_at_the_between_level():
    t = table(TWO, groups=("a", "b", "c"), group_equal=["loadings", "intercepts"])
    assert [find(t, "fb~1", g, 2).free > 0 for g in (1, 2, 3)] == [False, True, True]
    assert [find(t, "fw~1", g, 1).free > 0 for g in (1, 2, 3)] == [False, False, False]
    assert {"y1~1.l2", "y2~1.l2", "y3~1.l2"} <= shared(t)


def test_factors_of_within_only_variables_have_their_means_within():
    text = "level: 1\nf =~ x1 + x2 + x3\ng =~ y1 + y2\nlevel: 2\ny1 ~~ y2"
    t = table(text, groups=GROUPS, group_equal=["intercepts"])
    assert [find(t, "f~1", g).free > 0 for g in (1, 2)] == [False, True]
    assert [find(t, "g~1", g).free > 0 for g in (1, 2)] == [False, False]


def test_means_stay_where_nothing_identifies_them():
    second = "f =~ y1 + y2 + y3\ng =~ y4 + y5 + y6\nh =~ f + g"
    t = table(second, groups=GROUPS, group_equal=["loadings", "intercepts"])
    assert [find(t, f"{name}~1", 2).free > 0 for name in "fgh"] == [True, True, False]
    t = table(
        "f =~ y1 + y2 + y3\ng =~ y4 + y5 + y6",
        groups=GROUPS,
        group_equal=["intercepts"],
        group_partial=["y1~1", "y2~1", "y3~1"],
    )
    assert [find(t, f"{name}~1", 2).free > 0 for name in "fg"] == [False, True]
    t = table(CFA, groups=GROUPS, group_equal=["intercepts", "means"])
    assert find(t, "f~1", 2).free == 0
    t = table(f"{CFA}\nf ~ 0*1", groups=GROUPS, group_equal=["intercepts"])
    assert find(t, "f~1", 2).free == 0


def test_equal_loadings_free_unit_variances():
    t = table(CFA, groups=GROUPS, group_equal=["loadings"], std_lv=True)
    assert [find(t, "f~~f", g).free > 0 for g in (1, 2)] == [False, True]
    t = table(CFA, groups=GROUPS, group_equal=["loadings", "lv.variances"], std_lv=True)
    assert [find(t, "f~~f", g).value for g in (1, 2)] == [1.0, 1.0]
    t = table(f"{CFA}\nf ~~ 1*f", groups=GROUPS, group_equal=["loadings"], std_lv=True)
    assert find(t, "f~~f", 2).value == 1.0


@pytest.mark.parametrize(
    ("text", "partial", "names"),
    [
        (TWO, ["fw=~y2"], {"fw=~y3", "fb=~y2.l2", "fb=~y3.l2"}),
        (TWO, ["fb=~y2"], {"fw=~y2", "fw=~y3", "fb=~y3.l2"}),
        (TWO, ["fb =~ y2.l2"], {"fw=~y2", "fw=~y3", "fb=~y3.l2"}),
        (TWO.replace("fw", "f").replace("fb", "f"), "f=~y2", {"f=~y3", "f=~y2.l2", "f=~y3.l2"}),
        (TWO.replace("fw", "f").replace("fb", "f"), ["f=~y2.l2"], {"f=~y2", "f=~y3", "f=~y3.l2"}),
    ],
)
def test_exceptions(text, partial, names):
    assert shared(table(text, groups=GROUPS, group_equal=["loadings"], group_partial=partial)) == names


def test_an_intercept_without_suffix_is_that_of_the_between_level():
    t = table(TWO, groups=GROUPS, group_equal=["intercepts"], group_partial=["y2~1"])
    assert shared(t) == {"y1~1.l2", "y3~1.l2"}


def test_what_the_user_says_of_single_groups_goes_before_group_equal():
    t = table("f =~ y1 + c(a, b)*y2 + c(1, NA)*y3 + y4", groups=GROUPS, group_equal=["loadings"])
    assert shared(t) == {"f=~y4"}
    assert find(t, "f=~y3", 2).free > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_equal": ["loading"]}, "group_equal: 'loading' is not one of 'loadings', 'intercepts'"),
        ({"group_equal": ["loadings"], "group_partial": ["f=~y9"]}, "no parameter 'f=~y9'"),
        ({"group_equal": ["loadings"], "group_partial": ["f=~y2.l2"]}, "no parameter 'f=~y2.l2'"),
        ({"group_equal": ["loadings"], "group_partial": ["y2"]}, "no parameter 'y2'.*named as in"),
        ({"group_equal": ["intercepts"], "meanstructure": False}, "group_equal='intercepts' needs means"),
    ],
)
def test_bad_equalities(options, message):
    with pytest.raises(ModelError, match=message):
        table(CFA, groups=GROUPS, **options)


def test_special_tables_share_nothing_over_groups():
    t = table(TWO, groups=GROUPS, group_equal=["loadings", "intercepts"])
    for derived in (saturated_table(t), baseline_table(t)):
        assert not shared(derived)
        assert derived.ngroups == 2
        assert derived.group_labels == GROUPS
    assert saturated_table(t).npar == 2 * saturated_table(table(TWO)).npar


@pytest.mark.parametrize(("level", "kept"), [(1, {"fw=~y2", "fw=~y3"}), (2, {"fb=~y2.l2", "fb=~y3.l2"})])
def test_the_kept_level_keeps_its_equalities(level, kept):
    t = partially_saturated_table(table(TWO, groups=GROUPS, group_equal=["loadings"]), level)
    assert shared(t) == kept


@given(st.sets(st.sampled_from([*KINDS])), st.integers(min_value=2, max_value=4))
def test_numbers_of_parameters_add_up(kinds, ngroups):
    """Each parameter that is shared counts once, and theta has no holes."""
    text = DEMO + "\n    y1 ~~ y2"
    t = table(text, groups=[str(k) for k in range(ngroups)], group_equal=sorted(kinds))
    assert {r.free for r in t.rows} - {0} == set(range(1, t.npar + 1))
    freed = sum(r.free > 0 for r in t.rows) - ngroups * table(text).npar
    assert freed == (ngroups - 1) * ("intercepts" in kinds and "means" not in kinds)
    assert t.npar == ngroups * table(text).npar + freed - (ngroups - 1) * len(shared(t))
