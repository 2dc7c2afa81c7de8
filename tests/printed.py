"""Summaries of invented fits, from plain values, for the golden files in tests/golden.

``PYTHONPATH=python python tests/printed.py`` rewrites the files after an intended change; read the diff.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd

from msem.model.partable import Parameter
from msem.output.sections import Section, fit_sections, sample_section
from msem.output.summary import SummaryInputs, render_html, render_text
from msem.output.tables import estimates_frame, hidden_rows
from msem.postestimation.fit_indices import FitMeasureInputs, indices

GOLDEN = Path(__file__).parent / "golden"
NAN = math.nan

WITHIN = [
    (Parameter("fw", "=~", "y1", user=True), 1.0, 0.0),
    (Parameter("fw", "=~", "y2", free=1, label="L2", user=True), 0.75, 0.0336),
    (Parameter("fw", "~", "x1", free=2, label="a", user=True), 0.51, 0.023),
    (Parameter("y1", "~~", "y2", free=3, user=True), 0.0153, 0.0408),
    (Parameter("y1", "~~", "y1", free=4), 0.99, 0.0451),
    (Parameter("y2", "~~", "y2", free=5), 1.07, 0.039),
    (Parameter("fw", "~~", "fw", free=6), 0.546, 0.0404),
    (Parameter("x1", "~~", "x1", exo=True), 0.9823, 0.0),
    (Parameter("y1", "~1", ""), 0.0, 0.0),
    (Parameter("x1", "~1", "", exo=True), -0.0074, 0.0),
]
BETWEEN = [
    (Parameter("fb", "=~", "y1", 2, user=True), 1.0, 0.0),
    (Parameter("fb", "=~", "y2", 2, free=7, user=True), 0.717, 0.0518),
    (Parameter("fb", "~", "w1", 2, free=8, user=True), 0.1647, 0.0787),
    (Parameter("fb", "~~", "w2", 2, free=9, user=True), -0.12, NAN),
    (Parameter("y1", "~~", "y1", 2, free=10), -0.021, 0.0475),
    (Parameter("y2", "~~", "y2", 2, value=0.0, user=True), 0.0, 0.0),
    (Parameter("fb", "~~", "fb", 2, free=11), 0.8989, 0.1184),
    (Parameter("w2", "~~", "w2", 2, free=12), 123456.789, 1234.5),
    (Parameter("y1", "~1", "", 2, free=13), 0.0244, 0.0748),
    (Parameter("fb", "~1", "", 2), 0.0, 0.0),
]


def two_level() -> SummaryInputs:
    """Two levels, standardised columns, fit measures, a warning, dropped rows."""
    rows, est, se = (list(part) for part in zip(*WITHIN, *BETWEEN, strict=True))
    standardized = {"std_lv": np.array(est) * 1.01, "std_all": np.where(np.array(se) == 0, 0.5, 0.25)}
    measures = indices(
        FitMeasureInputs(
            llf=-12076.566,
            unrestricted_llf=-12072.52,
            npar=13,
            df=10,
            nobs=2500,
            nclusters=200,
            baseline_chisq=2248.235,
            baseline_df=21,
            nvar=6,
            residuals={"srmr": 0.0375, "srmr_within": 0.0036, "srmr_between": 0.0339},
        )
    )
    return SummaryInputs(
        title="msem 0.1.0: converged after 12 iterations",
        estimates=estimates_frame(rows, np.array(est), np.array(se), extra=standardized),
        messages=(
            "the residual variance of y1 at level 2 [school] is negative (-0.021); "
            "write lower(0)*y1 to keep it at 0 or above",
            "no standard error for fb ~~ w2",
        ),
        header=(
            Section("", (("Estimator", "ML"), ("Number of model parameters", 13))),
            sample_section(
                nobs=2500.0,
                nclusters=200.0,
                cluster="school",
                given_as="raw data",
                dropped_rows=17,
                dropped_no_cluster=3,
            ),
        ),
        fit=fit_sections(measures, full=True),
        method=(("Standard errors", "Standard"), ("Information", "Observed")),
        levels={1: "within", 2: "school"},
        hidden=hidden_rows(rows, np.array(est)),
        r2=pd.DataFrame(
            {
                "lhs": ["y1", "fw", "y1", "y2"],
                "level": [1, 1, 2, 2],
                "group": 1,
                "r2": [0.507, 0.461, NAN, 1.0],
            }
        ),
    )


def single_level() -> SummaryInputs:
    """One level, moments instead of data, naive standard errors and intervals, a saturated model."""
    rows, est, se = (list(part) for part in zip(*WITHIN, strict=True))
    measures = indices(FitMeasureInputs(llf=-500.0, unrestricted_llf=-500.0, npar=6, df=0, nobs=150.5))
    return SummaryInputs(
        title="msem 0.1.0: converged after 3 iterations",
        estimates=estimates_frame(
            rows, np.array(est), np.array(se), extra={"se_naive": np.array(se) * 0.7}, ci_level=0.9
        ),
        header=(sample_section(nobs=150.5, given_as="moments with N and J only"),),
        fit=fit_sections(measures),
        hidden=hidden_rows(rows, np.array(est)),
        ci=True,
    )


def awkward() -> SummaryInputs:
    """Two groups, no standard errors, names that are long or would be markup."""
    names = ("a_name_longer_than_the_column", "<b>&amp;</b>")
    rows = [
        Parameter(names[0], "~", "x1:x2", group=1, free=1, label="slope"),
        Parameter(names[0], "~~", names[0], group=1, free=2),
        Parameter(names[1], "~", "x1:x2", group=2, free=1, label="<i>"),
        Parameter("ind", ":=", "slope*slope", level=0, group=2, label="ind"),
    ]
    return SummaryInputs(
        title="msem 0.1.0: <not> converged",
        estimates=estimates_frame(rows, np.array([0.5, 1.0, -0.5, 0.25]), np.array([NAN, NAN, NAN, NAN])),
        messages=("1 < 2 & so on",),
        groups={1: "A&B", 2: "C"},
    )


SUMMARIES = {"two_level": two_level, "single_level": single_level, "awkward": awkward}
RENDERERS = {"txt": render_text, "html": render_html}

if __name__ == "__main__":
    for name, summary in SUMMARIES.items():
        for suffix, render in RENDERERS.items():
            (GOLDEN / f"{name}.{suffix}").write_text(render(summary()) + "\n", encoding="utf-8")
