"""Which block is which level, and what is refused."""

from __future__ import annotations

import pytest

import msem
from msem.errors import ModelError, UnsupportedError
from rows import DEMO, table


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


@pytest.mark.parametrize("names", [("1", "2"), ("within", "between"), ("pupil", "school")])
def test_blocks_are_levels_without_groups(names):
    text = DEMO.replace("level: 1", f"block: {names[0]}").replace("level: 2", f"block: {names[1]}")
    assert table(text).rows == table(DEMO).rows


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (
            "level: 1\ny ~ x\nlevel: 3\ny ~ z",
            ModelError,
            "line 3, column 1: level: 3, and the model has no 'level: 2'",
        ),
        (
            "level: 1\ny ~ x\nlevel: 2\ny ~ w\nlevel: between\ny ~ z",
            ModelError,
            "line 5, column 1: 'level: between': of three levels two are between",
        ),
        ("level: 0\ny ~ x\nlevel: 2\ny ~ w", UnsupportedError, "line 1, column 1: level 0"),
        (
            "\n".join(f"level: {name}\ny ~ x" for name in "abcdefghij"),
            UnsupportedError,
            "line 19, column 1: 'level: j': models have up to nine levels",
        ),
        ("level: 1\ny ~ x", ModelError, "line 1, column 1: the model has one level only.*'level: 2'"),
        ("level: school\ny ~ x", ModelError, "one level only"),
        ("level: between\ny ~ x", ModelError, "one level only.*'level: 1'"),
        ("level: 1\ny~x\nlevel: within\ny~z", ModelError, "line 3, column 1: .*second time.* line 1"),
        ("block: 1\ny ~ x", ModelError, r"one level only \('block: 1'\).*'block: 2'"),
        ("block: 1\ny ~ x\nblock: 2\n", ModelError, "'block: 2' has no formula"),
        ("y~z\nblock: 1\ny~x\nblock: 2\ny~w", ModelError, "before the first 'block:' header"),
        ("block: 1\ny~x\nblock: 1\ny~w", ModelError, "'block: 1' is given a second time"),
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("level: 1\ny ~ x\nblock: 2\ny ~ w", "line 3, column 1: 'block:' cannot stand.*'level: 1'"),
        ("group: a\ny ~ x\nblock: 2\ny ~ w", "line 3, column 1: 'block:' cannot stand beside 'group:'"),
        ("f <~ y1 + y2", "line 1, column 6: composites"),
        ("y ~ x1:x2", "line 1, column 5: .*'x1:x2'.*x1_x2 = x1 \\* x2.*'x1_x2'"),
        ("f =~ y1 + y2\ny ~ f:x", "line 2, column 5: interactions of latent variables .*'f' is latent"),
    ],
)
def test_what_is_not_available_is_refused_by_name(text, message):
    with pytest.raises(UnsupportedError, match=message):
        table(text)


def test_constraints_are_kept_beside_the_rows():
    text = "y ~ a*x + b*z\nq := 2*a\nb > 1\nq > 1\na == b^2"
    found = table(text)
    assert [c.text for c in found.constraints] == ["q > 1", "a == b^2"]
    assert [c.text for c in found.defined] == ["q := 2 * a"]
    assert [(r.label, r.lower) for r in found.rows if r.label] == [("a", -float("inf")), ("b", 1.0)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("y ~ a*x\na := 2*a", "line 2, column 1: 'a' is the label of a parameter"),
        ("y ~ a*x\nb := 2*a\nb := a", "line 3, column 1: 'b' is defined a second time"),
        ("y ~ a*x\nb > 1", "line 2, column 1: no parameter is labelled 'b'"),
    ],
)
def test_constraints_that_cannot_be(text, message):
    with pytest.raises(ModelError, match=message):
        table(text)


def test_a_level_is_called_as_its_block_or_its_column() -> None:
    text = "level: pupil\nfw =~ y1 + y2 + y3\nlevel: 'my school'\nfb =~ y1 + y2 + y3"
    fit = msem.sem(text, msem.load_demo(), cluster="cluster")
    for name in ("my school", "cluster", "between", 2):
        assert fit.estimates(level=name)["level"].unique().tolist() == [2]
    assert fit.estimates(level="pupil")["level"].unique().tolist() == [1]
    with pytest.raises(
        msem.errors.MsemError, match="2 or 'between', or 'pupil', or 'my school', or 'cluster', not 'x'"
    ):
        fit.estimates(level="x")
    with pytest.raises(msem.errors.ModelError, match="did you mean 'level: within'"):
        msem.sem(text.replace("pupil", "withn"), msem.load_demo(), cluster="cluster")
    with pytest.raises(msem.errors.ModelError, match="'cluster' is the column of the clusters of level 2"):
        msem.sem(text.replace("pupil", "cluster"), msem.load_demo(), cluster="cluster")


def test_saved_fits_know_the_names_of_levels(tmp_path) -> None:
    text = "level: pupil\nfw =~ y1 + y2 + y3\nlevel: 2\nfb =~ y1 + y2 + y3"
    fit = msem.sem(text, msem.load_demo(), cluster="cluster")
    fit.save(tmp_path / "fit.json")
    saved = msem.SavedFit.load(tmp_path / "fit.json")
    assert len(saved.estimates(level="cluster")) == len(fit.estimates(level=2))
