"""What users see of an entry: warnings at their line, errors without inner frames, levels and coverage by name."""

import traceback
import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats

import msem
from msem.errors import ArgumentError, MsemError, MsemWarning

MODEL = "level: 1\n fw =~ y1 + y2 + y3\nlevel: 2\n fb =~ y1 + y2 + y3"


@pytest.fixture(scope="module")
def fit(demo):
    return msem.sem(MODEL, demo, cluster="cluster")


def without_ids(demo):
    return demo.assign(cluster=demo["cluster"].where(demo.index > 3))


def few(demo):
    return demo[demo["cluster"].isin(demo["cluster"].unique()[:9])]


CALLS = {
    "sem": lambda d: msem.sem(MODEL, without_ids(d), cluster="cluster"),
    "cfa": lambda d: msem.cfa(MODEL, without_ids(d), cluster="cluster"),
    "growth": lambda d: msem.growth("i =~ 1*y1 + 1*y2 + 1*y3", without_ids(d), cluster="cluster"),
    "compile": lambda d: msem.compile(MODEL, cluster="cluster").fit(without_ids(d)),
    "saturated": lambda d: msem.saturated(without_ids(d)[["y1", "cluster"]], cluster="cluster"),
    "segregated": lambda d: msem.segregated(MODEL, without_ids(d), cluster="cluster"),
    "summarize": lambda d: msem.summarize(without_ids(d), cluster="cluster"),
    "few clusters": lambda d: msem.sem(MODEL, few(d), cluster="cluster"),
    "bootstrap": lambda d: msem.sem(MODEL, d, cluster="cluster").bootstrap(20, seed=1).conf_int(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_warnings_point_at_the_line_of_the_user(call, demo):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MsemWarning)
        call(demo)
    assert caught
    assert {warning.filename for warning in caught} == {__file__}


@pytest.mark.parametrize(
    "call",
    [
        lambda fit: msem.sem("f =~", None),
        lambda fit: msem.cfa("f =~ y1", None),
        lambda fit: fit.estimates(level="school"),
        lambda fit: fit.conf_int(ci_level=95),
        lambda fit: fit.profile("nobody"),
        lambda fit: msem.compare_models(fit),
        lambda fit: msem.LevelMoments.load("nowhere/nothing.json"),
    ],
)
def test_tracebacks_of_mistakes_end_at_the_entry(call, fit):
    with pytest.raises((MsemError, FileNotFoundError)) as caught:
        call(fit)
    if isinstance(caught.value, MsemError):
        frames = [f for f in traceback.extract_tb(caught.value.__traceback__) if "msem" in f.filename]
        inner = [f for f in frames if not f.filename.startswith(__file__)]
        assert [f.name for f in inner] == ["call"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda fit: fit.summary(foo=True), r"summary\(\) has no option 'foo'; it has: fit_measures"),
        (lambda fit: fit.modification_indices(sort_=True), "has no option 'sort_': it is called 'sort'"),
        (lambda fit: fit.icc_table(1, 2), r"icc_table\(\) takes no argument without a name: give the others"),
        (
            lambda fit: fit.predict(None, "c"),
            r"predict\(\) takes only data without a name: give the others by",
        ),
        (
            lambda fit: msem.sem(MODEL, None, "id"),
            "takes only model, data without a name.*such as cluster='id'",
        ),
        (lambda fit: msem.describe(), "missing a required argument: 'data'"),
        (lambda fit: msem.describe(None, clusters="c"), "it is cluster= here"),
        (lambda fit: fit.diagram(layout="circle"), r"diagram\(\) has no option 'layout'"),
        (lambda fit: msem.table(fit, se=False), r"table\(\) has no option 'se'; .*it has: show, ops"),
        (lambda fit: msem.compare_models(fit, fit, methd="auto"), "did you mean 'method'"),
        (lambda fit: msem.compare(fit, cols=["est"]), r"compare\(\) has no option 'cols'.*columns"),
        (lambda fit: msem.plots.coefficients(fit, op="~"), "did you mean 'ops'"),
    ],
)
def test_calls_that_a_function_does_not_take_are_told_what_it_takes(call, message, fit):
    with pytest.raises(ArgumentError, match=message) as caught:
        call(fit)
    frames = [f for f in traceback.extract_tb(caught.value.__traceback__) if "msem" in f.filename]
    assert [f.name for f in frames if f.filename != __file__] == ["call"]


def test_type_errors_of_a_call_that_is_right_are_defects(monkeypatch, fit):
    monkeypatch.setattr(type(fit), "row_values", property(lambda self: len(3)))
    with pytest.raises(TypeError, match="has no len") as caught:
        fit.estimates()
    assert not isinstance(caught.value, MsemError)
    assert len(traceback.extract_tb(caught.value.__traceback__)) > 3


def test_defects_keep_their_traceback(monkeypatch, fit):
    monkeypatch.setattr(type(fit), "row_values", property(lambda self: 1 / 0))
    with pytest.raises(ZeroDivisionError) as caught:
        fit.estimates()
    assert len(traceback.extract_tb(caught.value.__traceback__)) > 3


def test_arguments_of_the_wrong_kind_are_type_errors_and_value_errors():
    with pytest.raises(ArgumentError, match="no option 'nonsense'") as caught:
        msem.sem(MODEL, None, nonsense=1)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, ValueError)


def test_level_is_a_level_of_the_model_everywhere(fit):
    for question in (fit.estimates, fit.standardized, fit.rsquare, fit.residuals, fit.srmr, fit.reliability):
        whole = question()
        for level, names in enumerate(("within", "between"), 1):
            part = whole[whole["level"] == level].reset_index(drop=True)
            assert 0 < len(part) < len(whole)
            for name in (level, names):
                pd.testing.assert_frame_equal(question(level=name), part)
        with pytest.raises(MsemError, match=r"the coverage of intervals is ci_level=0\.9"):
            question(level=0.9)
    assert list(fit.conf_int(level="between").index) == [n for n in fit.params.index if n.endswith(".l2")]


def test_levels_of_a_segregated_fit(demo):
    levels = msem.segregated(MODEL, demo, cluster="cluster")
    pd.testing.assert_frame_equal(levels.estimates(level="between"), levels.between.estimates())
    pd.testing.assert_frame_equal(levels.conf_int(level=1), levels.within.conf_int())


def test_ci_level_is_the_coverage_and_alpha_its_complement(fit):
    limits = fit.conf_int(alpha=0.2)
    assert_allclose(limits["ci_upper"], fit.params + stats.norm.ppf(0.9) * fit.bse)
    pd.testing.assert_frame_equal(limits, fit.conf_int(ci_level=0.8))
    with pytest.raises(MsemError, match="alpha"):
        fit.conf_int(alpha=5)
    assert np.isclose(fit.icc_table(ci_level=0.5)["ci_upper"][0], fit.icc_table()["ci_upper"][0]) is np.False_


def test_a_summary_shows_itself(fit):
    text = fit.summary(fit_measures=True)
    assert isinstance(text, str)
    assert repr(text) == str(text) == f"{text}"
    assert text.as_html() == text._repr_html_() == fit.to_html()
