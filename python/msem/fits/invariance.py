"""Measurement invariance over groups, and over the levels of a model, in one call.

Each step is a model that the step before it contains. Over groups: the same pattern (configural), equal
loadings (metric), equal intercepts (scalar) and equal residual variances (strict; Meredith, 1993), at each
level. Over levels, for factors that clusters have because their units have them: the same pattern, equal
loadings within and between clusters, and no residual variance between clusters, so that the intercepts are the
same in all clusters (Jak, Oort & Dolan, 2013).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd

from msem.distributions import chisq_pvalue
from msem.entry import entries, entry
from msem.errors import ModelError, UnsupportedError
from msem.estimation.estimate import require_converged
from msem.fits.fit import Fit
from msem.fits.model_comparison import Method, compare_models
from msem.fits.publication import PublicationTable, number_text, pvalue_text
from msem.fits.sem import fit_again, sem
from msem.language.syntax import ModelSyntax, format_syntax, parse
from msem.model.crosslevel import (
    of_both_levels,
    paired_loadings,
    places_of,
    with_equal_loadings,
    with_shared_factors,
    without_residuals,
)
from msem.model.levels import BETWEEN
from msem.model.partable import Parameter, ParameterTable
from msem.output.variants import reported, variant_of, variants_note
from msem.postestimation.candidates import Candidate
from msem.postestimation.restrictions import Equality, restrictions
from msem.postestimation.score_tests import Extension, extend, robust_spread
from msem.printing import frame_html, frame_text
from msem.settings import require_choice, several
from msem.version import __version__

GROUP_STEPS: dict[str, tuple[str, ...]] = {
    "configural": (),
    "metric": ("loadings",),
    "scalar": ("loadings", "intercepts"),
    "strict": ("loadings", "intercepts", "residuals"),
}
ORDERED_STEPS: dict[
    str, tuple[str, ...]
] = {  # thresholds and loadings together, as residual variances need both
    "configural": (),
    "scalar": ("loadings", "intercepts", "thresholds"),
    "strict": ("loadings", "intercepts", "thresholds", "residuals"),
}
LEVEL_STEPS = ("configural", "metric", "scalar")
INDICES = ("cfi", "rmsea", "srmr", "srmr_within", "srmr_between")


@entries
@dataclass(frozen=True, eq=False)
class Invariance:
    """Models of increasing invariance with what tells them apart; immutable. Made by `msem.invariance`.

    Attributes
    ----------
    fits : dict of str to Fit
        The fit of each step.
    models : DataFrame
        A row for each step: npar, df, chisq, pvalue, cfi, rmsea, srmr (at two levels srmr_within and
        srmr_between), aic, bic and status. With a robust estimator chisq is scaled, and cfi and rmsea are the
        robust ones, or scaled where there are none; see `msem.table`.
    tests : DataFrame
        A row for each step after the first, against the step before it: chisq_diff, df_diff, pvalue, scaling,
        rmsea_diff (as of `compare_models`), and how much the indices change: cfi_change, rmsea_change,
        srmr_change or srmr_within_change and srmr_between_change.
    free_next : DataFrame
        Score tests of what each step restricts, largest statistic first: step, parameter (as `partial` takes
        it), statistic, df, pvalue, epc; with a robust estimator also robust and pvalue_robust, the generalized
        statistic. epc is the expected difference from the first group, of the group that differs most; over
        levels that of the loading within from that between clusters, and the expected residual variance.
    levels : bool
        Whether levels are compared, not groups.
    partial : tuple of str
        Parameters that were left free.
    """

    fits: dict[str, Fit]
    models: pd.DataFrame
    tests: pd.DataFrame
    free_next: pd.DataFrame
    levels: bool
    partial: tuple[str, ...] = ()

    @cached_property
    def constructs(self) -> pd.DataFrame:
        """What kind of factor the clusters have: fit of the models of four kinds (Stapleton, Yang & Hancock, 2016).

        Rows: "within", a factor of units only, the between level saturated; "shared", one of clusters only, the
        within level saturated; "configural", the aggregate of that of units, with equal loadings;
        "shared_configural", that and a further factor of clusters on the same indicators, uncorrelated with it.
        Columns as of `models`; in the first two rows they are of the level in question.

        Raises
        ------
        ModelError
            If groups were compared, not levels.
        """
        if not self.levels or "metric" not in self.fits or "configural" not in self.fits:
            raise ModelError(
                "constructs compares kinds of between factors: call msem.invariance(..., levels=True) with the steps "
                '"configural" and "metric"'
            )
        return _constructs(self.fits["configural"], self.fits["metric"])

    def table(self, *, digits: int = 3, apa: bool = False) -> PublicationTable:
        """Steps, tests and changes of the indices as a table for publication.

        Parameters
        ----------
        digits : int
            Decimals.
        apa : bool
            Numbers as in the style of the American Psychological Association; see `msem.table`.

        Returns
        -------
        PublicationTable
        """
        return _publication(self, digits, apa)

    def __str__(self) -> str:
        what = "levels" if self.levels else "groups: " + ", ".join(self._first.group_labels)
        parts = [f"Measurement invariance over {what}", frame_text(self.models.drop(columns="status"))]
        parts += [said] if (said := _variants(self._first)) else []
        if len(self.tests):
            parts += ["Against the model above", frame_text(self.tests)]
        parts += _blanks(self.models, self._first)
        shown = self.free_next.groupby("step", sort=False).head(5).set_index("step")
        if len(shown):
            parts += ["What to free next (up to 5 of each step)", frame_text(shown)]
        odd = [f"{name}: {status}" for name, status in self.models["status"].items() if status != "ok"]
        parts += [f"Status other than ok: {', '.join(odd)}"] if odd else []
        return "\n\n".join(parts)

    @property
    def _first(self) -> Fit:
        return next(iter(self.fits.values()))

    def __repr__(self) -> str:
        return f"<msem.Invariance over {'levels' if self.levels else 'groups'}: {', '.join(self.fits)}>"

    def _repr_html_(self) -> str:
        titles = ("Models", "Against the model above", "What to free next")
        frames = (self.models, self.tests, self.free_next)
        shown = [(title, frame) for title, frame in zip(titles, frames, strict=True) if len(frame)]
        text = "".join(f"<p>{title}</p>{frame_html(frame)}" for title, frame in shown)
        return text + (f"<p>{said}</p>" if (said := _variants(self._first)) else "")


@entry
def invariance(
    model: str,
    data: Any = None,
    *,
    group: str | None = None,
    levels: bool = False,
    steps: str | Sequence[str] | None = None,
    partial: str | Sequence[str] = (),
    method: Method = "auto",
    **options: Any,
) -> Invariance:
    """Test measurement invariance over groups or over the two levels of a model.

    Parameters
    ----------
    model : str
        Measurement model in lavaan's language. With `levels` a text without ``level:`` headers is the model of both
        levels; in one with headers factors belong together that have the same name or the same indicators.
    data : data frame, LevelMoments or SampleStatistics
        As in `msem.sem`.
    group : str, optional
        Column with the groups.
    levels : bool
        Compare levels, not groups.
    steps : sequence of str, optional
        Which models, in this order. Over groups "configural", "metric" (loadings), "scalar" (and intercepts)
        and "strict" (and residual variances), at both levels where there are two; over levels "configural",
        "metric" and "scalar" (no residual variance between clusters). Default: all. With one step tests and
        changes are empty.
    partial : str or sequence of str
        Parameters that stay free, as in ``["f=~y2", "y3~1"]``; for a residual variance between clusters ``"y3~~y3"``.
    method : str
        Of the difference tests; see `compare_models`.
    **options
        Those of `msem.sem`, such as ``cluster=``, ``estimator="MLR"``, ``missing="fiml"``.

    Returns
    -------
    Invariance

    Raises
    ------
    ModelError
        If there is nothing to compare (one group, one level, no loadings), factors of the levels do not belong
        together or are scaled by different indicators, a step restricts nothing, or a fit has not converged.
    UnsupportedError
        For groups and levels at once; over levels for least squares and ordered variables; for the step "metric" of
        ordered variables.

    Notes
    -----
    Over groups equal intercepts free the latent means of all groups but the first. With ordered variables the steps are
    "configural", "scalar" (equal thresholds, loadings and, of continuous variables, intercepts, with free residual
    variances of the y* and free latent means in all groups but the first; Millsap & Yun-Tein, 2004) and "strict"
    (residual variances too), with ``parameterization="theta"``; differences of fits by least squares are tested after
    Satorra (2000). Over levels,
    factors with a marker have the same marker; with ``std_lv=True`` the variance of a between factor is free as
    soon as loadings are equal, and so all loadings are tested. Residual variances between clusters are not
    bounded by 0, so that the test of all of them has a chi-square distribution (Stoel, Garre, Dolan & van den
    Wittenboer, 2006).

    References
    ----------
    Jak, Oort & Dolan (2013). A test for cluster bias. Structural Equation Modeling, 20, 265-282.
    Meredith (1993). Measurement invariance, factor analysis and factorial invariance. Psychometrika, 58, 525-543.
    Millsap & Yun-Tein (2004). Assessing factorial invariance in ordered-categorical measures. Multivariate Behavioral
    Research, 39, 479-515.
    Stapleton, Yang & Hancock (2016). Construct meaning in multilevel settings. Journal of Educational and
    Behavioral Statistics, 41, 481-520.

    Examples
    --------
    >>> import msem
    >>> found = msem.invariance("f =~ y1 + y2 + y3 + y4", msem.load_demo(), levels=True, cluster="cluster")
    >>> found.tests["df_diff"].tolist()
    [3, 4]
    """
    for name in ("group_equal", "group_partial"):
        if options.get(name):
            raise ModelError(f"{name}= is what the steps are made of: name exceptions in partial=")
    if levels and group is not None:
        raise UnsupportedError(
            "groups and levels are compared one at a time: leave out group= or levels=True, and to compare "
            "levels within groups fit each group on its own"
        )
    known = LEVEL_STEPS if levels else tuple(GROUP_STEPS)
    wanted = known if steps is None else several(steps)
    for step in wanted:
        require_choice("steps", step, known)
    if len(set(wanted)) < len(wanted) or not wanted:
        raise ModelError(f"steps={list(wanted)} names a step twice, or none")
    exceptions = several(partial)
    if levels:
        fits = _over_levels(model, data, wanted, exceptions, options)
    else:
        fits = _over_groups(model, data, wanted, exceptions, options | {"group": group})
    return Invariance(
        fits,
        _models(fits),
        _tests(fits, method),
        _free_next(fits, levels=levels),
        levels,
        exceptions,
    )


def _over_groups(
    model: str, data: Any, steps: Sequence[str], partial: Sequence[str], options: Mapping[str, Any]
) -> dict[str, Fit]:
    def fitted(step: str) -> Fit:
        kinds = known[step]
        given = {**options, "group_equal": kinds, "group_partial": tuple(partial) if kinds else ()}
        return sem(model, data, **given)

    known = GROUP_STEPS
    if _has_ordered(model, data, options):
        known = ORDERED_STEPS
        options = {**options, "parameterization": options.get("parameterization") or "theta"}
        if tuple(steps) == tuple(GROUP_STEPS):
            steps = tuple(ORDERED_STEPS)
        if "metric" in steps:
            raise UnsupportedError(
                "loadings of ordered variables are compared together with thresholds, since residual variances are not "
                'known apart from either (Wu & Estabrook, 2016): leave out "metric", as in '
                'steps=["configural", "scalar"]'
            )
    first = fitted(steps[0])
    if first.table.ngroups == 1:
        raise ModelError(
            "the data have one group, and invariance compares several: name the column with the groups, "
            "group=..., or compare the levels of a two-level model with levels=True"
        )
    _require_loadings(first.table)
    fits = {steps[0]: first}
    assert first.request is not None
    for step in steps[1:]:
        kinds = known[step]
        settings = replace(
            first.request.settings, group_equal=kinds, group_partial=tuple(partial) if kinds else ()
        )
        fits[step] = fit_again(first, model, settings)
    return fits


def _has_ordered(model: str, data: Any, options: Mapping[str, Any]) -> bool:
    """Whether variables of the model are named as ordered, or are ordered columns of a frame."""
    if options.get("ordered"):
        return True
    names = {name for s in parse(model).statements for name in (s.lhs, s.rhs)}
    return isinstance(data, pd.DataFrame) and any(
        isinstance(kind, pd.CategoricalDtype) and bool(kind.ordered) and name in names
        for name, kind in data.dtypes.items()
    )


def _require_likelihood(fit: Fit) -> None:
    if fit.discrepancy is not None or fit.integrates:
        raise UnsupportedError(
            'levels are compared by their likelihoods: use estimator="ML" or "MLR" of continuous variables; least '
            "squares have none, and residual variances within of ordered variables are fixed"
        )


def _require_loadings(table: ParameterTable) -> None:
    if not any(row.op == "=~" for row in table.rows):
        raise ModelError("the model has no factor (=~), and invariance is that of loadings and intercepts")


def _over_levels(
    model: str, data: Any, steps: Sequence[str], partial: Sequence[str], options: Mapping[str, Any]
) -> dict[str, Fit]:
    syntax = of_both_levels(parse(model))
    text = format_syntax(syntax)
    first = sem(text, data, **options)
    _require_likelihood(first)
    _require_loadings(first.table)
    if first.table.ngroups > 1:
        raise UnsupportedError("levels are compared in one group: fit each group on its own")
    pairs, exempt = paired_loadings(first.table), places_of(first.table, partial)
    fits: dict[str, Fit] = {}
    assert first.request is not None
    for step in steps:
        changed = syntax
        if step != "configural":
            changed = with_equal_loadings(syntax, first.table, pairs, exempt)
        if step == "scalar":
            changed = without_residuals(changed, first.table, pairs, exempt)
        settings = first.request.settings
        again = replace(settings, constraints=None)
        fits[step] = first if step == "configural" else fit_again(first, _text(changed, settings), again)
    return fits


def _text(syntax: ModelSyntax, settings: Any) -> str:
    """The text of a model with the constraints that were given beside it."""
    beside = settings.constraints
    more = "" if not beside else beside if isinstance(beside, str) else "\n".join(beside)
    return format_syntax(syntax) + more


def _constructs(configural: Fit, metric: Fit) -> pd.DataFrame:
    rows: dict[str, dict[str, Any]] = {
        "within": _of_level(configural, "within"),
        "shared": _of_level(configural, "between"),
        "configural": _row(metric),
    }
    assert metric.request is not None
    text = format_syntax(with_shared_factors(parse(metric.request.model), metric.table))
    both = fit_again(metric, text, metric.request.settings)
    rows["shared_configural"] = _row(both)
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=[*_row(metric)])
    return frame.astype({"npar": "Int64", "df": int})


def _of_level(fit: Fit, level: Literal["within", "between"]) -> dict[str, Any]:
    """The fit of one level, the other saturated."""
    found = _measures(fit, fit.fit_measures(level=level))
    return {f"srmr_{level}" if name == "srmr" else name: value for name, value in found.items()}


def _row(fit: Fit) -> dict[str, Any]:
    measures = fit.fit_measures()
    return (
        {"npar": fit.npar} | _measures(fit, measures) | {"aic": fit.aic, "bic": fit.bic, "status": fit.status}
    )


def _measures(fit: Fit, measures: pd.Series) -> dict[str, Any]:
    """Chi-square and indices, in the variant that is reported."""
    known = measures.index
    out = {name: measures[reported(name, known)] for name in ("df", "chisq", "pvalue")}
    for name in INDICES:
        if name in known and not (name == "srmr" and {"srmr_within", "srmr_l1"} & set(known)):
            out[name] = measures[reported(name, known)]
    return out


def _blanks(models: pd.DataFrame, first: Fit) -> list[str]:
    """Why columns of the models have no value."""
    parts = []
    if models["chisq"].isna().any():
        parts += ["No scaled chi-square where its scaling factor is not positive."]
    if models["cfi"].isna().any() and first.options.scaled_test is not None:
        parts += [
            'No CFI: the scaling factor of the baseline model is not positive. test="yuan.bentler" has another one.'
        ]
    if first.discrepancy is not None:
        parts += ["No AIC and BIC: least squares have no likelihood."]
    elif not first.sample.simple:
        parts += [
            "No BIC, and no p-values of score tests that are not robust: rows are not independent given the groups "
            "(weights, primary sampling units, strata, or clusters that groups share)."
        ]
    return parts


def _variants(fit: Fit) -> str:
    """A sentence on which measures are scaled or robust; "" if none is."""
    measures = fit.fit_measures()
    known = measures.index
    keys = [reported(name, known) for name in ("chisq", *INDICES) if name in known]
    text = variants_note([key for key in keys if variant_of(key)[1] and not np.isnan(measures[key])])
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _models(fits: Mapping[str, Fit]) -> pd.DataFrame:
    return pd.DataFrame.from_dict({name: _row(fit) for name, fit in fits.items()}, orient="index").astype(
        {"df": int}
    )


def _tests(fits: Mapping[str, Fit], method: Method) -> pd.DataFrame:
    rows: dict[str, dict[str, Any]] = {}
    columns = ("chisq_diff", "df_diff", "pvalue", "scaling", "rmsea_diff")
    indices = [name for name in INDICES if name in _row(next(iter(fits.values())))]
    for (large, above), (small, fit) in itertools.pairwise(fits.items()):
        require_converged(above.estimate, f"tests of {large}")
        if above.estimate.nfree == fit.estimate.nfree:
            raise ModelError(
                f"the step {small!r} restricts nothing beyond {large!r} in this model: leave it out with steps="
            )
        compared = compare_models({large: above, small: fit}, method=method)
        if compared.index[0] != large:
            raise ModelError(
                f"steps go from fewer restrictions to more, and {small!r} has fewer than {large!r}"
            )
        before, after = _row(above), _row(fit)
        rows[small] = {name: compared.loc[small, name] for name in columns}
        rows[small] |= {f"{name}_change": after[name] - before[name] for name in indices}
    names = [*columns, *(f"{name}_change" for name in indices)]
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=names)
    return frame.astype({"df_diff": int} | {name: float for name in names if name != "df_diff"})


def _free_next(fits: Mapping[str, Fit], *, levels: bool) -> pd.DataFrame:
    """Score tests of what each step restricts that the step before it did not."""
    robust = any(fit.options.robust for fit in fits.values())
    columns = ["step", "parameter", "statistic", "df", "pvalue", "epc"]
    columns += ["robust", "pvalue_robust"] if robust else []
    rows: list[dict[str, Any]] = []
    known: set[str] = set()
    for step, fit in fits.items():
        equal, zeros = _restricted(fit, levels=levels)
        if step != "configural":
            equal = {name: some for name, some in equal.items() if name not in known}
            zeros = {name: row for name, row in zeros.items() if name not in known}
            found = _score_tests(fit, equal, zeros)
            found.sort(key=lambda row: -row["robust" if robust else "statistic"])
            rows += [{"step": step} | row for row in found]
        known |= equal.keys() | zeros.keys()
    return pd.DataFrame(rows, columns=columns)


def _restricted(fit: Fit, *, levels: bool) -> tuple[dict[str, list[Equality]], dict[str, Parameter]]:
    """Equalities by the name of the parameter, and residual variances between clusters that are 0."""
    equal: dict[str, list[Equality]] = {}
    for e in restrictions(fit.estimate):
        if isinstance(e, Equality):
            equal.setdefault(e.names[0], []).append(e)
    if not levels:
        return equal, {}
    observed = set(fit.table.observed(BETWEEN, 1))
    zeros = {
        name: row
        for name, row in zip(fit.table.by_name.own, fit.table.rows, strict=True)
        if (row.level, row.op, row.free, row.value) == (BETWEEN, "~~", 0, 0.0)
        and row.lhs == row.rhs
        and row.lhs in observed
    }
    return equal, zeros


def _score_tests(
    fit: Fit, equal: Mapping[str, Sequence[Equality]], zeros: Mapping[str, Parameter]
) -> list[dict[str, Any]]:
    spread = robust_spread(fit)
    rows: list[dict[str, Any]] = []
    released = [e for some in equal.values() for e in some]
    if released:
        places = {name: [released.index(e) for e in some] for name, some in equal.items()}
        rows += _tested(extend(fit.estimate, released, (), spread), places)
    if zeros:
        added = [Candidate(row, fit.table.rows.index(row)) for row in zeros.values()]
        rows += _tested(extend(fit.estimate, (), added, spread), {name: [k] for k, name in enumerate(zeros)})
    if not fit.sample.simple:  # no p-values that take the sample for a simple one
        rows = [row | {"pvalue": np.nan} for row in rows]
    return rows


def _tested(extension: Extension, names: Mapping[str, Sequence[int]]) -> list[dict[str, Any]]:
    """A joint test of what belongs to one parameter, with the largest expected difference."""
    single = extension.point.single(extension.further)
    rows = []
    for name, chosen in names.items():
        joint = extension.point.joint(extension.together(chosen))
        changes = single.change[list(chosen)]
        largest = np.nan if np.isnan(changes).all() else changes[np.nanargmax(np.abs(changes))]
        row = {
            "parameter": name,
            "statistic": joint.statistic,
            "df": joint.df,
            "pvalue": chisq_pvalue(joint.statistic, joint.df),
            "epc": largest,
        }
        if extension.point.scores is not None:
            row |= {"robust": joint.robust, "pvalue_robust": chisq_pvalue(joint.robust, joint.df)}
        rows.append(row)
    return rows


def _publication(found: Invariance, digits: int, apa: bool) -> PublicationTable:
    """Steps in rows of two sections: fit of the models, and differences from the model above."""
    heads = {
        "chisq": "Chi-square", "df": "df", "pvalue": "p", "cfi": "CFI", "rmsea": "RMSEA", "srmr": "SRMR",
        "srmr_within": "SRMR within", "srmr_between": "SRMR between",
    }  # fmt: skip
    sections = {
        "Models": (found.models, {name: name for name in heads}),
        "Difference from the model above": (
            found.tests,
            {name: f"{name}_{'diff' if name in ('chisq', 'df') else 'change'}" for name in heads}
            | {"pvalue": "pvalue"},
        ),
    }
    shown = [name for name in heads if name in found.models]
    rows: dict[tuple[str, str], list[str]] = {}
    for section, (frame, columns) in sections.items():
        for step, values in frame.iterrows():
            cells = []
            for name in shown:
                value = values[columns[name]]
                if name == "df":
                    cells.append(f"{value:.0f}")
                elif name == "pvalue":
                    cells.append(pvalue_text(value, digits, apa))
                else:
                    cells.append(number_text(value, digits, apa, below_one=name != "chisq"))
            rows[section, str(step).capitalize()] = cells
    index = pd.MultiIndex.from_tuples(rows, names=["section", "row"])
    what = "levels" if found.levels else "groups"
    heading = pd.MultiIndex.from_tuples([("", heads[name]) for name in shown], names=["fit", "column"])
    first = next(iter(found.fits.values()))
    robust = f" {said}" if (said := _variants(first)) else ""
    left = f" Left free: {', '.join(found.partial)}." if found.partial else ""
    note = f"Invariance over {what}. Estimator {first.options.estimator}.{robust}{left} msem {__version__}."
    return PublicationTable(pd.DataFrame(list(rows.values()), index=index, columns=heading), (note,))
