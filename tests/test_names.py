"""Names of parameters: unique whatever variables are called, and every name means the parameter that has it."""

from __future__ import annotations

import itertools
import time
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import msem
from msem.errors import ModelError
from msem.language.characters import in_backticks, quote
from msem.model.functions import compile_expressions
from msem.model.partable import find_parameter
from msem.postestimation.factor_scores import merged
from msem.resampling.named import read_named
from rows import table

ODD = [
    "y",
    "y.l2",
    "y.g2",
    "y.g2.l2",
    "y.l2.l2",
    "y ~ x",
    "f=~y",
    "x~y",
    "1",
    " y",
    'y"',
    "it's",
    "`y`",
    '"y.l2"',
    "=y",
]


def written(name):
    """A name as model texts have it."""
    return quote(name)


def means(t, name, position):
    """Whether every reader takes the name of a parameter for that parameter."""
    function = compile_expressions(t, [in_backticks(name)])
    assert function.values(np.arange(1.0, t.npar + 1)).tolist() == [position + 1]
    assert find_parameter(t, name) == position
    assert read_named(t, name).position == position


@pytest.mark.parametrize("groups", [None, ("a", "b")])
@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("pair", list(itertools.combinations(ODD, 2)))
def test_any_two_variables_have_parameters_of_different_names(pair, levels, groups):
    block = f"f =~ a + {' + '.join(map(written, pair))}\n{written(pair[0])} ~~ {written(pair[1])}"
    text = block if levels == 1 else f"level: 1\n{block}\nlevel: 2\n{block}"
    t = table(text, groups=groups, meanstructure=True)
    assert len(set(t.by_name.shown)) == len(t.rows)
    assert len(set(t.names())) == t.npar
    for position, name in enumerate(t.names()):
        means(t, name, position)


VARIABLES = st.text(alphabet="fy12.lg~=\"'` :", min_size=1, max_size=8).filter(
    lambda s: s.strip() and ":" not in s
)


@settings(deadline=None, max_examples=150)
@given(st.lists(VARIABLES, min_size=2, max_size=5, unique=True), st.booleans(), st.booleans())
def test_any_variables_have_parameters_of_different_names(variables, two_levels, two_groups):
    names = [name for name in variables if name not in ("f", "a")]
    block = f"f =~ a + {' + '.join(map(written, names))}" if names else "f =~ a"
    text = f"level: 1\n{block}\nlevel: 2\n{block}" if two_levels else block
    t = table(text, groups=("a", "b") if two_groups else None, meanstructure=True)
    assert len(set(t.by_name.shown)) == len(t.rows)
    for position, name in enumerate(t.names()):
        means(t, name, position)


def test_ordinary_names_are_as_ever():
    t = table("level: 1\nf =~ y1 + y2\nlevel: 2\nf =~ y1 + y2", groups=("a", "b"))
    assert {"f=~y2", "f=~y2.l2", "f=~y2.g2", "f=~y2.g2.l2", "y1~1.l2", "y1~~y1.g2"} <= set(t.by_name.shown)
    single = table("y1 ~ x1 + x1.l2 + x1.g2")
    assert single.names()[:3] == ("y1~x1", "y1~x1.l2", "y1~x1.g2")


def grades(seed=1, n=600):
    """Two groups, in which only the loading of `math.g2` differs."""
    rng = np.random.default_rng(seed)
    f, second = rng.normal(size=n), np.arange(n) >= n // 2
    frame = pd.DataFrame(
        {v: 0.8 * f + 0.6 * rng.normal(size=n) for v in ("read", "math", "math.g2", "math.g3")}
    )
    frame.loc[second, "math.g2"] = 0.3 * f[second] + 0.9 * rng.normal(size=second.sum())
    return frame.assign(school=np.where(second, "b", "a"))


def test_a_variable_called_like_a_group_is_released_as_that_variable():
    data = grades()
    model, renamed = (
        "f =~ read + math + math.g2 + math.g3",
        data.rename(columns=lambda v: v.replace(".g", "_")),
    )
    options = {"group": "school", "group_equal": ["loadings"]}
    right = msem.cfa(model.replace(".g", "_"), renamed, group_partial=["f=~math_2"], **options)
    for name in ("f=~math.g2", "f =~ math.g2", 'f=~"math.g2"', "f=~`math.g2`"):
        fit = msem.cfa(model, data, group_partial=[name], **options)
        assert fit.chisq == pytest.approx(right.chisq, rel=1e-10)
        np.testing.assert_allclose(fit.params, right.params, rtol=1e-10)


def test_tests_profiles_and_definitions_agree_on_every_parameter():
    data = msem.load_demo().rename(columns={"y3": "y2.l2"})
    model = "level: 1\nf =~ y1 + y2 + y2.l2\nlevel: 2\nf =~ y1 + y2 + y2.l2\n"
    fit = msem.sem(model, data, cluster="cluster")
    assert fit.params.index.is_unique
    for name, value in fit.params.items():
        assert fit.wald_test(f"{in_backticks(name)} == 0")["estimate"].iloc[0] == value
        assert read_named(fit.table, name).name == name
    assert fit.profile("f=~y2.l2", points=2).to_frame()["est"].iloc[0] == fit.params["f=~y2.l2"]
    more = msem.sem(f'{model}d := `f=~"y2.l2"`\ne := `f=~y2.l2`', data, cluster="cluster")
    assert more.defined()["est"].tolist() == [fit.params['f=~"y2.l2"'], fit.params["f=~y2.l2"]]


def test_a_text_that_fits_two_parameters_is_refused_where_neither_is_called_so():
    t = table("f =~ a + y.g2 + y.g2.g2", groups=("a", "b"))
    assert find_parameter(t, 'f=~"y.g2.g2"') != find_parameter(t, 'f=~"y.g2".g2')
    with pytest.raises(ModelError, match="may be any of"):
        find_parameter(t, "f=~y.g2.g2")
    with pytest.raises(ModelError, match=r"column 1: .*may be any of"):
        compile_expressions(t, ["`f=~y.g2.g2`"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("f =~ y1 + y2 + `f=~y2`*y3", "the label 'f=~y2' is the name of another parameter"),
        ("f =~ y1 + y2 + y3\n`f=~y2` := 2", "'f=~y2' is the name of a parameter"),
    ],
)
def test_labels_and_definitions_are_not_called_as_parameters_are(text, message):
    with pytest.raises(ModelError, match=message):
        table(text)


@pytest.fixture(scope="module")
def defined():
    text = (
        "level: 1\nfw =~ y1 + a*y2 + b*y3\nlevel: 2\nfb =~ y1 + y2 + y3\n`a-b` := a + b\n`a b;c` := `a-b` / 2"
    )
    return msem.sem(text, msem.load_demo(), cluster="cluster")


def test_a_definition_called_like_an_expression_is_itself_in_every_replicate(defined):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        drawn = defined.bootstrap(20, seed=1, progress=False).estimates
        chosen = defined.bootstrap(20, seed=1, statistic=["a-b", "a b;c", "a - b"], progress=False).estimates
    np.testing.assert_allclose(drawn["a-b"], drawn["a"] + drawn["b"], rtol=1e-12)
    np.testing.assert_allclose(drawn["a b;c"], (drawn["a"] + drawn["b"]) / 2, rtol=1e-12)
    np.testing.assert_allclose(chosen["a-b"], drawn["a-b"], rtol=1e-12)
    np.testing.assert_allclose(chosen["a - b"], drawn["a"] - drawn["b"], rtol=1e-10)
    left_out = defined.jackknife(progress=False).to_frame().set_index("name")
    assert left_out.loc["a-b", "est"] == pytest.approx(defined.params["a"] + defined.params["b"])


def test_a_definition_called_like_an_expression_is_itself_in_profiles_and_tests(defined):
    total = defined.params["a"] + defined.params["b"]
    profiles = defined.profile(["a-b", "a + b"], points=3).to_frame()
    assert profiles["est"].tolist() == pytest.approx([total, total])
    np.testing.assert_allclose(profiles["ci_lower"].iloc[0], profiles["ci_lower"].iloc[1], rtol=1e-6)
    tests = defined.wald_test("`a b;c` == 1\n# not; this\na - b == 0")["estimate"]
    assert tests.iloc[:2].tolist() == pytest.approx(
        [total / 2 - 1, defined.params["a"] - defined.params["b"]]
    )
    assert defined.wald_test("`a-b` == 1")["estimate"].iloc[0] == pytest.approx(total - 1)


def test_a_constraint_on_such_a_definition_holds_it():
    text = "f =~ y1 + a*y2 + b*y3\n`a-b` := a + b\n`a-b` == 1.2"
    fit = msem.sem(text, msem.load_demo())
    assert fit.params["a"] + fit.params["b"] == pytest.approx(1.2)


def test_bounds_hold_parameters_whose_variables_have_odd_names():
    data = msem.load_demo().rename(columns={"y2": "y<2"})
    with pytest.warns(msem.errors.ImproperSolutionWarning, match="inequality constraints are active"):
        fit = msem.sem("f =~ y1 + 'y<2' + y3\n`f=~y<2` > 0.9", data)
    assert fit.params["f=~y<2"] == pytest.approx(0.9, abs=1e-8)
    assert fit.constraints()["multiplier"].iloc[0] > 0


def test_names_with_blanks_mean_the_parameter_everywhere():
    data = msem.load_demo().rename(columns={"y2": "item 2", "y3": "item2"})
    fit = msem.sem("f =~ y1 + `item 2` + item2", data)
    for name in ("f=~item 2", "f=~item2", "f =~ item 2"):
        here = name.replace(" =~ ", "=~")
        assert fit.wald_test(f"`{name}` == 0")["estimate"].iloc[0] == fit.params[here]
        assert fit.profile(name, points=2).to_frame()["est"].iloc[0] == fit.params[here]
    equal = msem.sem("f =~ y1 + `item 2` + equal('f=~item 2')*item2\nd := `f=~item 2` - `f=~item2`", data)
    assert equal.defined()["est"].iloc[0] == 0


def test_simulation_takes_values_by_the_names_that_tables_have():
    block = "f =~ 1*y + 0.7*y.l2\nf ~~ 1*f\ny ~~ 1*y\ny.l2 ~~ 1*y.l2\n"
    t = table(f"level: 1\n{block}level: 2\n{block}")
    rows = {name: t.by_name.first(name) for name in ("f=~y.l2", 'f=~"y.l2"')}
    assert (t.rows[rows["f=~y.l2"]].rhs, t.rows[rows["f=~y.l2"]].level) == ("y", 2)
    assert (t.rows[rows['f=~"y.l2"']].rhs, t.rows[rows['f=~"y.l2"']].level) == ("y.l2", 1)


def test_a_long_text_is_refused_in_time_proportional_to_its_length():
    t = table("f =~ y1 + y2")
    begin = time.process_time()
    with pytest.raises(ModelError, match="no parameter"):
        find_parameter(t, "y1 ~ y2 + " * 3000)
    assert time.process_time() - begin < 5


def test_moments_that_would_have_one_name_are_refused():
    data = msem.load_demo().rename(columns={"y3": "y1.l2"})
    with pytest.raises(msem.errors.DataError, match=r"two moments would be called 'y1~~y1\.l2'.*rename"):
        _ = msem.saturated(
            data, cluster="cluster", within=["y1", "y1.l2"], between=["y1", "y1.l2"]
        ).moment_names
    alone = msem.saturated(data, cluster="cluster", within=["y2", "y1.l2"], between=["y2", "y1.l2"])
    assert len(set(alone.moment_names)) == len(alone.moment_names)


@pytest.mark.parametrize("names", [(["f", "f.l2"], ["f"]), (["f"], ["f", "f.l2"]), (["f"], ["f.l2", "f"])])
def test_scores_that_would_have_one_name_are_refused(names):
    within, between = ({name: np.zeros(2) for name in some} for some in names)
    rows = SimpleNamespace(data=SimpleNamespace(codes_of=lambda level: np.array([0, 1])))
    with pytest.raises(ModelError, match=r"two columns of the result would be called 'f\.l2'"):
        merged(within, between, rows)
    assert list(merged({"f": np.zeros(2)}, {"f": np.ones(2)}, rows)) == ["f", "f.l2"]
