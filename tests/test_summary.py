"""Printed summaries, exactly: golden files for text and HTML."""

from __future__ import annotations

import math
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

import msem
import printed
from msem.output.sections import Section, fit_sections, sample_section
from msem.output.summary import blocks, render_html, render_text
from msem.postestimation.fit_indices import FitMeasureInputs, indices


@pytest.mark.parametrize("suffix", printed.RENDERERS)
@pytest.mark.parametrize("name", printed.SUMMARIES)
def test_golden(name: str, suffix: str) -> None:
    shown = printed.RENDERERS[suffix](printed.SUMMARIES[name]())
    assert shown + "\n" == (printed.GOLDEN / f"{name}.{suffix}").read_text(encoding="utf-8")


def test_every_golden_file_is_tested() -> None:
    tested = {f"{name}.{suffix}" for name in printed.SUMMARIES for suffix in printed.RENDERERS}
    assert {path.name for path in printed.GOLDEN.iterdir()} == tested


class Balance(HTMLParser):
    """Collects the tags that are open and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("name", printed.SUMMARIES)
def test_html_is_well_formed_and_has_no_foreign_markup(name: str) -> None:
    parser = Balance()
    parser.feed(render_html(printed.SUMMARIES[name]()))
    parser.close()
    assert not parser.open
    markup = {"div", "style", "b", "span", "table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert parser.seen <= markup
    assert "script" not in parser.seen


def test_names_are_escaped() -> None:
    parser = Balance()
    parser.feed(render_html(printed.awkward()))
    for text in ("<b>&amp;</b> ~", "(<i>)", "1 < 2 & so on", "A&B", "<not> converged"):
        assert text in parser.text


@pytest.mark.parametrize("name", printed.SUMMARIES)
def test_text_has_no_trailing_blanks(name: str) -> None:
    text = render_text(printed.SUMMARIES[name]())
    assert all(line == line.rstrip() for line in text.splitlines())
    assert not text.endswith("\n")


def test_warnings_come_before_any_number() -> None:
    inputs = printed.two_level()
    text = render_text(inputs)
    assert text.index("residual variance of y1") < text.index("Estimator")
    html = render_html(inputs)
    assert html.index("residual variance of y1") < html.index("Estimator")


def test_hidden_rows_still_tell_what_is_endogenous() -> None:
    inputs = printed.two_level()
    hidden = np.array(inputs.estimates["op"] == "~")
    within = next(blocks(replace(inputs, hidden=hidden)))
    tables = {table.title: table.lines for table in within.tables}
    assert "Regressions" not in tables
    assert {line.name: line.residual for line in tables["Variances"]}["fw"]


def test_fit_sections_without_the_rest() -> None:
    measures = {"chisq": 3.0, "df": 2.0, "pvalue": 0.22313}
    (test,) = fit_sections(measures)
    assert test == Section(
        "Model Test User Model",
        (("Test statistic", 3.0), ("Degrees of freedom", 2), ("P-value (Chi-square)", 0.22313)),
    )


def test_sample_section_leaves_out_what_did_not_happen() -> None:
    assert sample_section(nobs=40.0).rows == (("Number of observations", 40),)
    given = sample_section(nobs=40.5, nclusters=8.0, given_as="moments with cluster sizes")
    assert given.rows == (
        ("Number of observations", 40.5),
        ("Number of clusters", 8),
        ("Sample given as", "moments with cluster sizes"),
    )


def test_least_squares_show_the_measures_that_they_have() -> None:
    text = msem.sem("f =~ y1 + y2 + y3 + y4", msem.load_demo(), estimator="ULS").summary(fit_measures=True)
    assert "SRMR" in text
    assert "Loglikelihood" not in text
    assert "nan" not in text


def test_without_a_saturated_model_there_is_no_test() -> None:
    measures = indices(
        FitMeasureInputs(llf=-510.0, unrestricted_llf=-500.0, npar=6, df=4, nobs=150, nclusters=30)
    )
    nothing = measures | {"chisq": math.nan, "pvalue": math.nan, "unrestricted_logl": math.nan}
    for whole in (fit_sections(nothing, full=True), fit_sections(nothing)):
        assert whole[0].rows == (("None: there is nothing to test against", ""),)
    names = [name for section in fit_sections(nothing, full=True) for name, _ in section.rows]
    assert "Loglikelihood unrestricted model (H1)" not in names
    assert "Loglikelihood user model (H0)" in names
    assert "Loglikelihood unrestricted model (H1)" in [
        name for section in fit_sections(measures, full=True) for name, _ in section.rows
    ]
