"""Names of other programs are answered with the names that exist; single names and several fits as they come."""

import pickle
import re
from pathlib import Path

import pandas as pd
import pytest

import msem
from msem.errors import ModelError, ModelSyntaxError, MsemError
from msem.names import FUNCTIONS, OPTIONS, WORDS

MODEL = "level: 1\n fw =~ y1 + a*y2 + y3\nlevel: 2\n fb =~ y1 + y2 + y3"


@pytest.fixture(scope="module")
def fit(demo):
    return msem.sem(MODEL, demo, cluster="cluster")


def test_every_name_that_is_given_exists(fit):
    for one in (*FUNCTIONS, *WORDS):
        for owner, name in re.findall(r"\b(msem|fit)\.(\w+)", f"{one.here} {one.note}"):
            assert hasattr({"msem": msem, "fit": fit}[owner], name), one
    for one in (*FUNCTIONS, *WORDS, *OPTIONS):
        assert one.here or one.note


@pytest.mark.parametrize(
    ("name", "here"),
    [
        ("modindices", "fit.modification_indices()"),
        ("ModIndices", "fit.modification_indices()"),
        ("parameterEstimates", "fit.estimates()"),
        ("parameter_estimates", "fit.estimates()"),
        ("lavTestLRT", "msem.compare_models(fit1, fit2)"),
        ("coef", "fit.params"),
        ("bootstrapLavaan", "fit.bootstrap()"),
        ("mixedlm", "msem.sem(model, data, cluster=...)"),
    ],
)
def test_names_of_other_programs_are_answered(name, here, fit):
    for owner in (msem, fit):
        with pytest.raises(AttributeError, match=re.escape(here)):
            getattr(owner, name)


@pytest.mark.parametrize("name", ["predict", "fit_measures", "fitMeasures", "icc", "residuals", "update"])
def test_what_fits_have_is_said_where_it_is_asked_of_the_package(name):
    with pytest.raises(AttributeError, match=r"fit\.\w+"):
        getattr(msem, name)


def test_names_that_are_nearly_right(fit):
    with pytest.raises(AttributeError, match="did you mean 'standardized'"):
        fit.standardised  # noqa: B018
    with pytest.raises(AttributeError, match="it is called 'fit_measures'"):
        fit.fitMeasures  # noqa: B018
    with pytest.raises(AttributeError, match=r"msem has no 'nonsense'$"):
        msem.nonsense  # noqa: B018
    assert not hasattr(fit, "__array__")
    assert not hasattr(msem, "__path_of__")


def test_properties_without_a_value_keep_their_own_message(demo):
    single = msem.sem("f =~ y1 + y2 + y3", demo)
    with pytest.raises(AttributeError, match="single-level fit has no level-specific moments"):
        single.saturated  # noqa: B018


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampling_weights": "w"}, "weights= here"),
        ({"estimator": "REML"}, "small-samples.md"),
        ({"cluster": ["a", "b"]}, "names 2 columns, and the model has two levels"),
        ({"cluster": ["a", "b", "c"]}, "add 'level: 3' and 'level: 4' to the model, or name 1 column only"),
        ({"groups": "a"}, "cluster= here"),
        ({"std_lvv": True}, "did you mean 'std_lv'"),
        ({"se": "cluster"}, 'called "robust" here'),
        ({"missing": "pairwise"}, 'missing="fiml" uses'),
    ],
)
def test_options_that_do_not_exist_say_why_and_what_instead(options, message, demo):
    with pytest.raises(MsemError, match=message):
        msem.sem(MODEL, demo, **({"cluster": "cluster"} | options))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("y1 ~ x1 + (1 | school)", "level: 2"),
        ("y1 ~ x1 + (1 + x1 || school)", "a random slope"),
        ("%WITHIN%\nf BY y1 y2;", "'%WITHIN%' of Mplus is 'level: 1' here"),
        ("f BY y1 y2 y3", "'f =~ y1 [+] y2' here"),
        ("y1 ON x1", "'y ~ x1 [+] x2' here"),
        ("f =~ y1@1 + y2", "'1[*]y' here"),
        ("y1 ~ log(x1)", "add a column to the data"),
        ("[y1]", "'y ~ 1' here"),
    ],
)
def test_lines_in_other_languages_are_translated(text, message, demo):
    with pytest.raises(ModelSyntaxError, match=message):
        msem.sem(text, demo)


def test_dialects_are_not_seen_in_quoted_names(demo):
    with pytest.raises(ModelSyntaxError) as caught:
        msem.sem('"time ON task" ~ + ', demo)
    assert "Mplus" not in str(caught.value)


def test_a_formula_is_a_name_of_a_parameter(fit):
    for series in (fit.params, fit.bse, fit.tvalues, fit.pvalues):
        assert series["fb =~ y2"] == series["fb=~y2.l2"] == series.iloc[list(series.index).index("fb=~y2.l2")]
        assert series["fw =~ y2"] == series["a"]
    with pytest.raises(ModelError, match="fixed at 1"):
        fit.params["fb =~ y1"]
    with pytest.raises(ModelError, match="no parameter 'fb =~ y9'"):
        fit.params["fb =~ y9"]
    assert (fit.params * 2)["fb =~ y2"] == 2 * fit.params["fb =~ y2"]
    with pytest.raises(KeyError):
        fit.params.drop("fb=~y2.l2")["fb =~ y2"]
    assert pickle.loads(pickle.dumps(fit.params))["fb=~y2.l2"] == fit.params["fb =~ y2"]
    assert fit.params.iloc[0] == fit.params["a"]


def test_fit_measures_by_name(fit, demo):
    whole = fit.fit_measures()
    pd.testing.assert_series_equal(
        fit.fit_measures(["cfi", "rmsea.ci.lower"]), whole[["cfi", "rmsea_ci_lower"]]
    )
    assert list(fit.fit_measures("srmr", level=2).index) == ["srmr"]
    with pytest.raises(ModelError, match="no fit measure 'cfii'; there are cfi"):
        fit.fit_measures(["cfii"])
    levels = msem.segregated(MODEL.replace("a*", ""), demo, cluster="cluster")
    assert list(levels.fit_measures(["df", "cfi"]).index) == ["df", "cfi"]


def test_a_text_is_one_name(fit, demo):
    pd.testing.assert_frame_equal(fit.reliability("fw"), fit.reliability(["fw"]))
    one = msem.saturated(demo, cluster="cluster", within="y1", between="y1")
    assert list(one.between_cov) == ["y1"]
    assert msem.summarize(demo, cluster="cluster", variables="y1").variables == ("y1",)
    assert msem.missing_patterns(demo, within="y1").unit == ("y1",)


def test_several_fits_come_as_arguments_list_or_mapping(fit, demo):
    other = msem.sem(MODEL.replace("a*y2", "1*y2"), demo, cluster="cluster")
    for function in (msem.compare, msem.compare_models):
        numbered = function(fit, other)
        pd.testing.assert_frame_equal(function([fit, other]), numbered)
        pd.testing.assert_frame_equal(function(model_1=fit, model_2=other), numbered)
        pd.testing.assert_frame_equal(function({"model_1": fit, "model_2": other}), numbered)
        with pytest.raises(ModelError, match="two fits are called 'model_1'"):
            function(fit, model_1=other)
    with pytest.raises(ModelError, match="compare takes one fit or more"):
        msem.compare()


SPACED = """level: 1
 fw =~ "read-score" + 'math score' + `y 3`
level: 2
 "f b" =~ "read-score" + 'math score' + `y 3`
"""


def test_names_with_blanks_and_hyphens_work_everywhere(fit, demo):
    columns = {"y1": "read-score", "y2": "math score", "y3": "y 3", "cluster": "school id"}
    found = msem.sem(SPACED, demo.rename(columns=columns), cluster="school id")
    assert found.llf == fit.llf
    value = fit.params["fb =~ y2"]
    for name in ("f b =~ math score", '"f b" =~ "math score"', "`f b` =~ `math score`", "f b=~math score.l2"):
        assert found.params[name] == value
    assert found.wald_test("`f b=~math score.l2` == 1")["estimate"].iloc[0] == value - 1
    assert found.score_test(add='"read-score" ~~ "math score"', level=1).univariate.shape[0] == 1
    assert found.profile("f b =~ math score", points=2).conf_int().shape[0] == 1
    assert "f b" in found.factor_scores(2)
    held = msem.sem(
        SPACED, demo.rename(columns=columns), cluster="school id", constraints="`f b=~math score.l2` == 1"
    )
    assert held.df == found.df + 1


def test_the_page_has_every_name():
    page = (Path(__file__).parents[1] / "docs" / "from-lavaan.md").read_text()
    for one in (*FUNCTIONS, *WORDS):
        cells = [f"`{text}`" if text else "\u2013" for text in (one.name, one.here)]
        row = " | ".join(cell.replace("|", "\\|") for cell in (*cells, one.note))
        assert f"| {row} |" in page
    for one in OPTIONS:
        assert f"| `{one.name}` | " in page
