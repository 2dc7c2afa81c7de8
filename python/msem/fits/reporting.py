"""The sections of a summary from the values of a fit."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from textwrap import wrap
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from msem.data.grouped_moments import GroupedMoments
from msem.data.sample import Group, Origin
from msem.data.survey import Replication, shared_design
from msem.estimation.problems import Problem
from msem.estimation.smallsamples import plain_size
from msem.estimation.solution import GroupResults, ReplicateCounts, Solution
from msem.model.levels import names_of_levels, titles_of_levels
from msem.model.partable import ParameterTable
from msem.output.sections import (
    WIDTH,
    Section,
    fit_sections,
    level_section,
    sample_section,
    scaled_sections,
)
from msem.output.summary import SummaryInputs, render_html, render_text
from msem.output.tables import hidden_rows
from msem.postestimation.constraints import Constraint, definition_rows, solution_constraints
from msem.postestimation.effects import effects
from msem.postestimation.estimates import estimate_columns
from msem.postestimation.fit_measures import measures, tests
from msem.postestimation.icc import icc_table
from msem.postestimation.level_fit import (
    level_measures,
    level_scaling,
    measures_of_level,
    specific_fit,
    tied,
)
from msem.postestimation.modification import modification_indices
from msem.postestimation.reliability import reliability
from msem.postestimation.residuals import residuals
from msem.postestimation.slope_level_fit import has_slope_levels
from msem.postestimation.srmr import srmr
from msem.postestimation.standardized import rsquare as explained
from msem.settings import Reference, ResolvedSettings, require_choice
from msem.version import __version__

SummaryTable = Literal["icc", "reliability", "effects", "srmr", "residuals", "modification_indices"]
LARGEST = 10  # rows of a table that is sorted by size
INFORMATION = {"observed": "Observed", "expected": "Expected", "first_order": "First order (outer product)"}
CORRECTIONS = {
    "yuan_bentler": "Yuan-Bentler correction",
    "yuan_bentler_mplus": "Yuan-Bentler correction (Mplus variant)",
    "mean_scaled": "Satorra-Bentler correction (mean)",
    "mean_variance_adjusted": "Satterthwaite correction (mean and variance)",
    "scaled_shifted": "Scaled and shifted (mean and variance)",
}
SMALL = {
    "bartlett": "Bartlett correction",
    "swain": "Swain correction",
    "yuan_tian_yanagihara": "Yuan-Tian-Yanagihara correction",
    "hotelling": "Hotelling, robust: F",
}
BELIEVED = 0.08  # size of the plain test at the 5% level up to which nothing is said
METHODS = {
    "likelihood": "Likelihood of each level, the other saturated",
    "ml": "Normal-theory discrepancy of each level's matrix",
    "uls": "Least squares on each level's standardized matrix",
}
SCALES = {"size": "sum to sizes", "effective": "sum to effective sizes", "none": "as given"}
TESTS = {
    "standard": "Standard (naive)",
    "mean_scaled": "Mean-scaled",
    "mean_variance_adjusted": "Mean- and variance-adjusted",
    "scaled_shifted": "Scaled and shifted",
    "residual": "Residual-based (Browne)",
    "likelihood_ratio": "Likelihood ratio, other level saturated",
}
SCALED = (
    150  # parameters of a partially saturated model beyond which a summary does without its scaling factors
)


def title(converged: bool, iterations: int | None) -> str:
    """First line of a summary."""
    count = "" if iterations is None else f" after {iterations} iterations"
    how = f"ended normally{count}" if converged else "did NOT converge"
    return f"msem {__version__} {how}"


def messages(problems: Sequence[Problem], options: ResolvedSettings, origin: Origin) -> tuple[str, ...]:
    """Warnings, the most serious first, and what was left out of the data."""
    out = [str(problem) for problem in problems]
    if origin.dropped:
        counts = ", ".join(f"{name} {count}" for name, count in origin.dropped.items())
        why = "rows with missing values were deleted listwise; missing by variable"
        if options.missing != "listwise":
            why = "rows without a value of a fixed covariate were left out"
        out.append(f"{why}: {counts}")
    return tuple(out)


def header(
    options: ResolvedSettings,
    origin: Origin,
    npar: int,
    nequal: int,
    groups: Sequence[GroupResults],
    rotation: tuple[tuple[str, str | int], ...] = (),
) -> tuple[Section, ...]:
    """Estimator, numbers of parameters and of independent equality constraints, rotation, and sample."""
    counts = [group.nclusters for group in groups if group.nclusters is not None]
    method = Section(
        "",
        (
            ("Estimator", options.estimator),
            ("Optimization method", "Fisher scoring"),
            *scale_rows(groups),
            *((("Penalty", "between variances"),) if options.penalty else ()),
            ("Number of model parameters", npar),
            *((("Number of equality constraints", nequal),) if nequal else ()),
            *rotation,
        ),
    )
    sample = sample_section(
        nobs=sum(group.sample.nobs for group in groups),
        nclusters=sum(counts) if counts else None,
        groups={group.label: (group.nobs, group.nclusters) for group in groups} if len(groups) > 1 else {},
        cluster=options.cluster or highest_name(groups),
        inner=inner_counts(options, groups),
        given_as=origin.given_as,
        dropped_rows=origin.dropped_rows,
        dropped_empty=origin.dropped_empty,
        patterns=_patterns(groups),
        dropped_no_cluster=origin.dropped_no_cluster,
        dropped_no_group=origin.dropped_no_group,
        dropped_zero=origin.dropped_zero,
        nrows=origin.nrows,
        survey=survey_rows(options, [group.sample for group in groups]),
    )
    return method, sample


def rotation_rows(fit: Solution, conditions: int) -> tuple[tuple[str, str | int], ...]:
    """How exploratory blocks were rotated, how many conditions that sets, and whether the minimum is the only one."""
    if not fit.estimate.rotated:
        return ()
    rows: list[tuple[str, str | int]] = [("Number of rotation conditions", conditions)]
    rows += [("Rotation", fit.table.rotation.words)]
    for one in fit.estimate.rotated:
        if len(one.minima) > 1:
            most = sum(each.starts for each in one.minima)
            what = f"{len(one.minima)}, lowest from {one.minima[0].starts} of {most} starts"
            rows += [(f"  Minima of [{one.block.label}]", what)]
    return tuple(rows)


def level_titles(options: ResolvedSettings, nlevels: int) -> dict[int, str]:
    """Names of the levels of a model in its summary: of three those of their clusters; none for a single level."""
    titles = titles_of_levels(nlevels) if nlevels > 1 else {}
    if not titles or any(titles.values()) or not options.cluster:  # moments, whose clusters have no columns
        return titles
    return {1: "units", **dict(enumerate(options.cluster_columns[::-1], 2))}


def inner_counts(options: ResolvedSettings, groups: Sequence[GroupResults]) -> dict[str, float]:
    """Numbers of clusters within clusters by their column, or level, the highest first."""
    levels = range(len(groups[0].statistics.variables.levels) - 1, 1, -1)
    words = options.inner_clusters or [f"level {level}" for level in levels]
    counts = [sum(group.sample.middle_units(level) for group in groups) for level in levels]
    return dict(zip(words, counts, strict=True))


def highest_name(groups: Sequence[GroupResults]) -> str:
    """What the highest clusters of three levels are called where there is no column of them."""
    depth = groups[0].estimate.table.nlevels
    return f"level {depth}" if depth > 2 else ""


def scale_rows(groups: Sequence[GroupResults]) -> tuple[tuple[str, float | int | str], ...]:
    """What the scale of ordered variables is, if there are any."""
    ordered = groups[0].estimate.table.ordered
    return (("Parameterization", ordered.parameterization.capitalize()),) if ordered.thresholds else ()


def survey_rows(
    options: ResolvedSettings, groups: Sequence[Group]
) -> tuple[tuple[str, float | int | str], ...]:
    """How the sample was drawn, and how much its weights cost."""
    design = shared_design([group.sampled for group in groups])
    rows: list[tuple[str, float | int | str]] = []
    if options.weights:
        rows += [(f"Weights [{options.weights}]", SCALES[options.weights_scale])]
    inner = [name for name in options.weights_of_inner if name]
    rows += [(f"Weights of clusters [{name}]", SCALES[options.weights_scale]) for name in inner]
    if options.weights or options.cluster_weights or inner:
        totals = sum((group.weight_totals for group in groups), np.zeros(4))
        rows += [("Effective number of observations", f"{totals[0] ** 2 / totals[1]:.1f}")]
        if options.cluster_weights:
            size = f"{totals[2] ** 2 / totals[3]:.1f}"
            rows += [(f"Effective number of clusters [{options.cluster_weights}]", size)]
    if isinstance(design, Replication):
        rows += [("Replicate weights", len(design.scale)), ("Degrees of freedom of the design", design.df)]
    elif design is not None:
        rows += [
            (f"Primary sampling units [{options.psu or options.cluster or 'rows'}]", len(design.stratum))
        ]
        rows += [(f"Strata [{options.strata}]", len(design.left))] if options.strata else []
        rows += [("Degrees of freedom of the design", design.df)]
    return tuple(rows)


def _patterns(groups: Sequence[GroupResults]) -> dict[str, int]:
    """Numbers of patterns of observed variables, by level, where the data have holes."""
    counts = [c for c in (group.statistics.npatterns for group in groups) if c]
    totals = [sum(level) for level in zip(*counts, strict=True)]
    names = [f" -- level {level}" for level in range(1, len(totals) + 1)] if len(totals) > 1 else [""]
    return dict(zip(names, totals, strict=False))


def constraint_sections(constraints: Sequence[Constraint]) -> tuple[Section, ...]:
    """Constraints other than bounds: left less right side, and which inequalities are active."""
    rows = tuple(
        (
            f"{h.constraint} (active)" if h.active and h.kind == "inequality" else h.constraint,
            round(h.value, 9) + 0.0,
        )
        for h in constraints
        if h.kind != "bound"
    )
    return (Section("Constraints, left less right side", rows),) if rows else ()


def method_rows(
    options: ResolvedSettings, *, single_level: bool, replicates: ReplicateCounts | None = None
) -> tuple[tuple[str, str], ...]:
    """How the standard errors were computed."""
    if options.se == "none" or (options.se == "bootstrap" and replicates is None):
        return (("Standard errors", "none"),)
    if options.se == "replicate":
        return (("Standard errors", "Replicate weights"),)
    if options.se == "jackknife1":
        return (("Standard errors", "One-step jackknife"), ("Information", INFORMATION["observed"]))
    if options.se == "robust":
        name = "Robust, by cluster" if single_level and options.cluster else "Sandwich"
        return (("Standard errors", name), ("Information bread", INFORMATION[options.information]))
    if replicates is not None:
        counts = (
            ("Replicates drawn", replicates.replicates),
            ("Replicates used", len(replicates.array)),
        )
        return (("Standard errors", "Bootstrap"), *((name, str(count)) for name, count in counts))
    return (("Standard errors", "Standard"), ("Information", INFORMATION[options.information]))


def measure_sections(
    measures: Mapping[str, float], options: ResolvedSettings, *, full: bool
) -> tuple[Section, ...]:
    """Tests and fit measures, in two columns with those of a scaled test."""
    test = options.scaled_test or options.adjusted_test
    if test is None:
        return fit_sections(measures, full=full)
    satorra_bentler = test == "yuan_bentler" and options.information == "expected"
    correction = CORRECTIONS["mean_scaled" if satorra_bentler else test]  # the same mean, tr(U Gamma)
    return scaled_sections(measures, correction, full=full)


def with_group_tests(sections: Sequence[Section], groups: Sequence[GroupResults]) -> tuple[Section, ...]:
    """Add what each group adds to the chi-square below the test of the model."""
    if len(groups) == 1:
        return tuple(sections)
    tests = Section("Test Statistic for Each Group", tuple((group.label, group.chisq) for group in groups))
    return (*sections[:1], tests, *sections[1:])


def shown_labels(table: ParameterTable) -> list[str]:
    """Labels of all rows; rows that are equal without one get the number of the first of them, as ``.p2.``."""
    rows: dict[int, list[int]] = {}
    for number, row in enumerate(table.rows, 1):
        rows.setdefault(row.free, []).append(number)
    shared = {free: members[0] for free, members in rows.items() if free and len(members) > 1}
    return [
        row.label or row.slope or (f".p{shared[row.free]}." if row.free in shared else "")
        for row in table.rows
    ]


def whole_sections(fit: Solution, groups: Sequence[GroupResults], *, full: bool) -> tuple[Section, ...]:
    """Tests and fit measures of the whole model; of a penalized likelihood there are none but residuals."""
    if not fit.table.penalty:
        return with_group_tests(measure_sections(measures(fit), fit.options, full=full), groups)
    rows = ("None: the likelihood is penalized", ""), ("  Log-likelihood without the penalty", fit.llf)
    return (Section("Model Test User Model", rows),)


def slope_sections(groups: Sequence[GroupResults]) -> tuple[Section, ...]:
    """What the chi-square of a model with random slopes is against, or why there is none."""
    slopes = [group for group in groups if group.estimate.table.slopes(group.number)]
    if not slopes and any(group.statistics.integral is not None for group in groups):
        return tested_against(["Nothing: ordered variables by maximum likelihood have no saturated model"])
    if not slopes:
        return ()
    lacking = [group for group in slopes if group.slope_reference.reason]
    return tested_against([f"Nothing: {group.slope_reference.reason}" for group in lacking])


def quadrature_sections(fit: Solution) -> tuple[Section, ...]:
    """How integrals were computed, over what, and how well."""
    found = fit.estimate.quadrature
    if found is None:
        return ()
    integrals = [s.integral for s in fit.sample.statistics if s.integral is not None]
    # smaller changes are rounding, and differ between machines
    change = "below 1e-09" if abs(found.change) < 1e-9 else f"{found.change:.1e}"
    accuracy = (f"Log-likelihood with {found.finer}: change", change)
    if not integrals:
        nodes = ("Adaptive quadrature, nodes for each slope", found.nodes)
        return (Section("Integrals Over Slopes", (nodes, accuracy)),)
    most = max(len(own.integrated) for own in integrals)
    nodes = ("Adaptive quadrature, nodes in each", found.nodes)
    dimensions = [len(own.exposed.get(1, ())) for own in integrals]
    if not fit.table.multilevel:
        return (Section("Integrals", (("Over", max(dimensions)), nodes, accuracy)),)
    within = (("Within clusters, over", max(dimensions)),) if max(dimensions) else ()
    over = ("Between clusters, over", most)
    return (Section("Integrals", (*within, over, nodes, accuracy)),)


def tested_against(texts: Sequence[str]) -> tuple[Section, ...]:
    """That the chi-square is against the saturated model of slopes, or why there is none."""
    lines = [line for text in texts for line in wrap(text, WIDTH - 4)]
    rows = tuple((line, "") for line in lines or ["Saturated model of slopes"])
    return (Section("Tested Against", rows),)


def segregated_header(method: str, moments: GroupedMoments) -> tuple[Section, ...]:
    """Method and sample of a segregated fit."""
    depth = moments.nlevels
    sample = sample_section(
        nobs=moments.nobs,
        nclusters=moments.nclusters,
        groups={label: (one.nobs, one.nclusters) for label, one in moments if label},
        cluster=f"level {depth}" if depth > 2 else "",
        inner={f"level {k}": moments.units_of(k) for k in range(depth - 1, 1, -1)},
        given_as=moments.given_as,
    )
    return Section("", (("Segregated", METHODS[method]),)), sample


def small_sample_sections(fit: Solution) -> tuple[Section, ...]:
    """Tests that account for few clusters, as `statistic (df), p` lines; none if none was asked for."""
    chosen = [test for test in fit.options.test if test in SMALL]
    if not chosen or fit.df <= 0:
        return ()
    rows = []
    for name, row in tests(fit).loc[chosen].iterrows():
        second = f", {row['df2']:.0f}" if name == "hotelling" else ""
        p = f", p = {row['pvalue']:.3f}" if row["pvalue"] == row["pvalue"] else ""
        rows.append((SMALL[str(name)], f"{row['statistic']:.3f} (df {row['df']:.0f}{second}{p})"))
    return (Section("Model Test User Model, Small Samples", tuple(rows)),)


def few_clusters_remark(fit: Solution) -> tuple[str, ...]:
    """What is said where the plain test of the between level rejects true models far too often; or nothing."""
    ordinary = fit.table.multilevel and fit.discrepancy is None and fit.sample.simple and not tied(fit)
    if not ordinary or fit.table.penalty or fit.df <= 0 or not fit.sample.converged:
        return ()
    corrected = {*fit.options.corrected_tests} or "hotelling" in fit.options.test
    size = plain_size(fit.table, [s.nclusters for s in fit.sample.statistics])
    if corrected or size < BELIEVED:
        return ()
    level = titles_of_levels(fit.table.nlevels)[fit.table.nlevels] or "highest"
    way = "test='yuan_tian_yanagihara'" if fit.options.scaled_test is None else "test='hotelling'"
    return (
        f"few clusters: with {fit.sample.nclusters:.0f} the chi-square of the {level} level rejects a true model in "
        f"about {size:.0%} of samples at the 5% level: add {way}",
    )


def tests_section(level: int, nlevels: int, tests: pd.DataFrame) -> Section:
    """Tests of one level as `chi-square (df), p` lines."""
    rows: list[tuple[str, str]] = []
    for name, row in tests.iterrows():
        df = f"{row['df']:.0f}" if float(row["df"]).is_integer() else f"{row['df']:.2f}"
        p = "" if row["pvalue"] != row["pvalue"] else f", p = {row['pvalue']:.3f}"
        shown = f"{row['statistic']:.3f} (df {df}{p})"
        if name == "residual" and row["statistic"] != row["statistic"]:
            shown = "none: Gamma has no inverse"
        rows.append((TESTS[str(name)], shown))
    title = titles_of_levels(nlevels)[level]
    name = f" [{title}]" if title else ""
    return Section(f"Model Test, Level {level}{name}", tuple(rows))


def level_sections(fit: Solution) -> tuple[Section, ...]:
    """The section of the summary; none for a single-level model, or when the saturated model has no maximum."""
    known = has_slope_levels(fit) if fit.has_slopes else fit.sample.converged
    if not fit.table.multilevel or not known or fit.table.penalty:
        return ()
    if tied(fit):
        return (level_section({}, note=f"Not defined: {tied(fit).partition(':')[0]}"),)
    headings = [name.capitalize() for name in names_of_levels(fit.table.nlevels).values()]
    levels = range(1, fit.table.nlevels + 1)
    if (
        not fit.has_slopes
        and level_scaling(fit) is not None
        and specific_fit(fit, 1).model.table.npar > SCALED
    ):
        fits = [specific_fit(fit, level) for level in levels]
        plain = [level_measures(one, fit.sample) for one in fits]
        return (
            level_section(
                dict(zip(headings, plain, strict=True)), note="Scaled versions: fit_measures(level=...)"
            ),
        )
    own = [measures_of_level(fit, level) for level in levels]
    return (level_section(dict(zip(headings, own, strict=True))),)


def summary(
    fit: Solution,
    *,
    fit_measures: bool = False,
    standardized: bool = False,
    rsquare: bool = False,
    ci: bool = False,
    reference: Reference = "normal",
    tables: SummaryTable | Collection[SummaryTable] = (),
) -> str:
    """Text in the layout of lavaan's summary.

    Parameters
    ----------
    fit_measures : bool
        All fit measures instead of the chi-square test only.
    standardized : bool
        Add standardized estimates.
    rsquare : bool
        Add explained variances.
    ci : bool
        Show confidence intervals.
    reference : {"normal", "t"}
        Distribution of estimates over standard errors; see `estimates`.
    tables : one or several of {"icc", "reliability", "effects", "srmr", "residuals", "modification_indices"}
        What else to show, each as its method gives it; of residuals and modification indices the ten largest.

    Returns
    -------
    str
    """
    return render_text(summary_inputs(fit, fit_measures, standardized, rsquare, ci, reference, tables))


def to_html(
    fit: Solution,
    *,
    fit_measures: bool = True,
    standardized: bool = False,
    rsquare: bool = False,
    ci: bool = False,
    reference: Reference = "normal",
    tables: SummaryTable | Collection[SummaryTable] = (),
) -> str:
    """The summary as one fit-contained HTML element; parameters as in `summary`."""
    return render_html(summary_inputs(fit, fit_measures, standardized, rsquare, ci, reference, tables))


def summary_inputs(
    fit: Solution,
    full: bool,
    standardized: bool,
    rsquare: bool,
    ci: bool,
    reference: Reference,
    tables: SummaryTable | Collection[SummaryTable],
) -> SummaryInputs:
    """What the summary of a fit shows."""
    groups = tuple(fit.groups.values())
    conditions = len(fit.estimate.rotation_rows)
    return SummaryInputs(
        title=title(fit.converged, len(fit.estimate.optimum.diary)),
        messages=(*messages(fit.problems, fit.options, fit.origin), *few_clusters_remark(fit)),
        header=header(
            fit.options,
            fit.origin,
            fit.table.npar,
            fit.table.npar - fit.npar - conditions,
            groups,
            rotation_rows(fit, conditions),
        ),
        fit=(
            *whole_sections(fit, groups, full=full),
            *small_sample_sections(fit),
            *slope_sections(groups),
            *quadrature_sections(fit),
            *(level_sections(fit) if full else ()),
            *constraint_sections(solution_constraints(fit)),
        ),
        method=method_rows(fit.options, single_level=not fit.table.multilevel, replicates=fit.bootstrapped),
        levels=level_titles(fit.options, fit.table.nlevels),
        groups=dict(enumerate(fit.group_labels, 1)),
        estimates=_shown_estimates(
            fit, estimate_columns(fit, standardized=standardized, reference=reference)
        ),
        hidden=np.append(
            hidden_rows(fit.table.rows, fit.row_values, fit.table.auxiliary),
            np.zeros(len(definition_rows(fit)), dtype=bool),
        ),
        r2=explained(fit) if rsquare else None,
        ci=ci,
        tables=tuple(_table(fit, name) for name in ([tables] if isinstance(tables, str) else tables)),
    )


def _shown_estimates(fit: Solution, columns: dict[str, Any]) -> dict[str, Any]:
    """Estimates with labels."""
    return columns | {"label": [*shown_labels(fit.table), *(row.label for row in definition_rows(fit))]}


def _table(fit: Solution, name: SummaryTable) -> tuple[str, pd.DataFrame]:
    """Title and content of a further table of the summary."""
    require_choice("tables", name, get_args(SummaryTable))
    if name == "icc":
        return "Intraclass Correlations", icc_table(fit)
    if name == "reliability":
        return "Reliability", reliability(fit)
    if name == "effects":
        return "Effects", effects(fit)
    if name == "srmr":
        return "Root Mean Square Residuals", srmr(fit)
    if name == "modification_indices":
        return "Modification Indices", modification_indices(fit).head(LARGEST)
    largest = residuals(fit, "standardized").sort_values("z", key=np.abs, ascending=False, kind="stable")
    return "Standardized Residuals", largest.head(LARGEST).reset_index(drop=True)
