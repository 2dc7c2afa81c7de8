"""Structural-after-measurement: the measurement part in blocks first, then the structural part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import pandas as pd

from msem.data.reading import (
    given_labels,
    group_rows,
    read_sample,
    require_rows_for_holes,
    with_cluster,
)
from msem.distributions import chisq_pvalue
from msem.entry import entries, entry
from msem.errors import ModelError, MsemError, UnsupportedError
from msem.estimation.measurement import FittedBlock, require_measured
from msem.estimation.problems import Problem, find_problems
from msem.estimation.sampling import Sampling
from msem.estimation.solution import Solution
from msem.estimation.stepwise import Route, StepwiseSolution, fit_stepwise
from msem.fits.reporting import TESTS, header, level_titles, messages, shown_labels, title
from msem.fits.sem import resolve, table_of, warn_of
from msem.language.syntax import with_constraints
from msem.model.blocks import group_order
from msem.model.derived import saturated_npar
from msem.model.levels import Level, level_place
from msem.output.sections import Section
from msem.output.summary import SummaryInputs, render_html, render_text
from msem.output.tables import hidden_rows
from msem.pictures.diagram import diagram
from msem.postestimation.constraints import defined, definition_rows
from msem.postestimation.effects import contextual_effects, effects
from msem.postestimation.estimates import estimates, to_frame
from msem.postestimation.icc import icc_table
from msem.postestimation.reliability import reliability
from msem.postestimation.rotation import factor_correlations, loadings
from msem.postestimation.standardized import rsquare, standardized
from msem.postestimation.wald import wald_test
from msem.settings import Reference, Settings, require_choice

ERRORS = {"robust": "Influence functions", "standard": "Influence, normal moments", "none": "none"}


@entries
@dataclass(frozen=True, eq=False)
class StepwiseFit(Solution):
    """Structural-after-measurement estimates of a model; immutable.

    Made by `msem.sam`. They are no maximum of the likelihood of the whole model, so that there is no likelihood-ratio
    test; `tests` has those of the structural part, `measurement` those of the blocks.
    """

    steps: StepwiseSolution | None = None
    method: Route = "local"

    estimates, to_frame = estimates, to_frame
    standardized, rsquare = standardized, rsquare
    defined = defined
    wald_test = wald_test
    effects, contextual_effects = effects, contextual_effects
    reliability, icc_table = reliability, icc_table
    loadings, factor_correlations = loadings, factor_correlations
    diagram = diagram

    @property
    def _steps(self) -> StepwiseSolution:
        assert self.steps is not None
        return self.steps

    @property
    def llf(self) -> float:
        """nan: the estimates are no maximum of a likelihood."""
        return np.nan

    def measurement(self) -> pd.DataFrame:
        """Fit of the measurement blocks.

        Returns
        -------
        DataFrame
            A row for each block: factors (those of several levels once), indicators, npar, chisq, df, pvalue.
        """
        return pd.DataFrame([_of_block(one) for one in self._steps.blocks]).astype({"df": "Int64"})

    def tests(self) -> pd.DataFrame:
        """Tests of the structural part of all levels.

        The moments of latent variables are estimates themselves, which the statistic by itself ("standard") does not
        know. The others account for that: their first step is part of Gamma.

        Returns
        -------
        DataFrame
            Rows standard, mean_scaled (Satorra & Bentler, 1994), mean_variance_adjusted, scaled_shifted and residual
            (Browne, 1984); columns statistic, df, pvalue, scaling.
        """
        return self._steps.tests.tests()

    def latent_cov(self, level: Level = 1, *, group: int = 1) -> pd.DataFrame:
        """Covariance matrix of the variables of the structural part that it was fitted to.

        Parameters
        ----------
        level : int or {"within", "between"}
            Its number; "within" is 1, "between" 2 of two.
        group : int
            Counted from 1.

        Returns
        -------
        DataFrame
        """
        number = self.table.level(level)
        for one in self._steps.structure.levels:
            if (one.level, one.group) == (number, group):
                names = list(one.names)
                return pd.DataFrame(one.cov, index=names, columns=names)
        raise ModelError(f"there is no group {group!r}: they are numbered from 1 to {self.table.ngroups}")

    def summary(
        self,
        *,
        standardized: bool = False,
        rsquare: bool = False,
        ci: bool = False,
        reference: Reference = "normal",
    ) -> str:
        """Text in the layout of lavaan's summary.

        Parameters
        ----------
        standardized, rsquare, ci, reference
            As in `Fit.summary`.

        Returns
        -------
        str
        """
        return render_text(self._shown(standardized, rsquare, ci, reference))

    def to_html(
        self,
        *,
        standardized: bool = False,
        rsquare: bool = False,
        ci: bool = False,
        reference: Reference = "normal",
    ) -> str:
        """The summary as one self-contained HTML element; parameters as in `summary`."""
        return render_html(self._shown(standardized, rsquare, ci, reference))

    def _shown(self, std: bool, r2: bool, ci: bool, reference: Reference) -> SummaryInputs:
        frame = estimates(self, standardized=std, reference=reference)
        labels = [*shown_labels(self.table), *(row.label for row in definition_rows(self))]
        groups = tuple(self.groups.values())
        hidden = hidden_rows(self.table.rows, self.row_values, self.table.auxiliary)
        how = {"local": "Local", "global": "Global"}[self.method]
        return SummaryInputs(
            title=title(True, None),
            messages=messages(self.problems, self.options, self.origin),
            header=(
                Section("", (("Structural after measurement", how),)),
                *header(self.options, self.origin, self.table.npar, self.table.npar - self.npar, groups),
            ),
            fit=(*self._measurement_sections(), *self._test_sections()),
            method=(("Standard errors", ERRORS.get(self.options.se, "Influence functions")),),
            levels=level_titles(self.options, self.table.nlevels),
            groups=dict(enumerate(self.group_labels, 1)),
            estimates=frame.assign(label=labels),
            hidden=np.append(hidden, np.zeros(len(definition_rows(self)), dtype=bool)),
            r2=rsquare_of(self) if r2 else None,
            ci=ci,
        )

    def _measurement_sections(self) -> tuple[Section, ...]:
        rows = []
        for one in map(_of_block, self._steps.blocks):
            p = f", p = {one['pvalue']:.3f}" if one["pvalue"] == one["pvalue"] else ""
            rows.append((str(one["factors"]), f"{one['chisq']:.3f} (df {one['df']}{p})"))
        return (Section("Model Test, Measurement Blocks", tuple(rows)),)

    def _test_sections(self) -> tuple[Section, ...]:
        if self._steps.tests.df <= 0:
            return (Section("Model Test, Structural Part", (("Degrees of freedom", 0),)),)
        rows = []
        for name, row in self.tests().drop(index="standard").iterrows():
            df = f"{row['df']:.0f}" if float(row["df"]).is_integer() else f"{row['df']:.2f}"
            rows.append((TESTS[str(name)], f"{row['statistic']:.3f} (df {df}, p = {row['pvalue']:.3f})"))
        return (Section("Model Test, Structural Part", tuple(rows)),)

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        blocks = len(self._steps.blocks)
        counted = f"{blocks} measurement block{'s' * (blocks > 1)}"
        return f"<msem.StepwiseFit: {self.method}, {counted}, status {self.status!r}>"

    def _repr_html_(self) -> str:
        return self.to_html()


def rsquare_of(fit: StepwiseFit) -> pd.DataFrame:
    """Explained variances, as the summary shows them."""
    found: pd.DataFrame = rsquare(fit)
    return found


def _of_block(one: FittedBlock) -> dict[str, Any]:
    df = saturated_npar(one.block.table) - one.estimate.nfree
    chisq = max(2 * (one.sample.llf - one.estimate.llf), 0.0)
    return {
        "factors": one.block.name,
        "indicators": ", ".join(one.block.indicators),
        "npar": one.estimate.nfree,
        "chisq": chisq,
        "df": df,
        "pvalue": chisq_pvalue(chisq, df) if df > 0 else np.nan,
    }


@entry
def sam(
    model: str,
    data: Any = None,
    *,
    method: Route = "local",
    cluster: str | Sequence[str] | None = None,
    group: str | None = None,
    **options: Any,
) -> StepwiseFit:
    """Fit the measurement part of a model first, in blocks, and its structural part after that.

    A wrong structural part then cannot bend the measurement part, nor one factor's misfit another's loadings; with
    small samples it converges where the whole model does not (Rosseel & Loh, 2022). Blocks are factors that share
    indicators or correlated residuals; of several levels those that share indicators make one block, and a factor at
    one level has the others saturated.

    Parameters
    ----------
    model : str
        The whole model in lavaan's language.
    data : data frame, LevelMoments or None
        As for `sem`: rows, or published matrices.
    method : {"local", "global"}
        "local": the structural part is fitted to the moments of the latent variables, by normal likelihood. "global":
        to the data, by the likelihood of the whole model with the measurement part held.
    cluster : str or list of str, optional
        As for `sem`: the columns of several levels, the highest first.
    group : str, optional
        As for `sem`.
    **options
        Others of `sem`, of which these have a meaning here: `group_equal`, `constraints` of the structural part,
        `sample_cov` and its like, `missing`, `weights` and its like, `fixed_x`, `orthogonal`, `se`, `ci`,
        `max_iterations` and `tolerance`.

    Returns
    -------
    StepwiseFit

    Raises
    ------
    ModelError
        If the measurement part cannot be fitted by itself, or a step does not converge.
    DataError
        If the sample cannot be used.

    Notes
    -----
    Standard errors account for both steps. With rows they come from the influence functions of the highest clusters
    (``se="robust"``, the default), right whether the model holds or not; with ``se="standard"``, and from matrices,
    from the covariance matrix that saturated moments have for normal variables.

    Local: Var(eta) = M (S - Theta) M' with M = (L'T^-1 L)^-1 L'T^-1; where residual variances are close to 0, as they
    often are between clusters, M = (L'L)^-1 L', and `problems` says so. Intercepts are those at which the implied means
    are the saturated ones.

    References
    ----------
    Rosseel & Loh (2022). A structural after measurement approach to structural equation modeling. Psychological
    Methods.

    Examples
    --------
    >>> import msem
    >>> model = '''
    ... level: 1
    ...   f1 =~ y1 + y2 + y3
    ...   f2 =~ y4 + y5 + y6
    ...   f2 ~ f1
    ... level: 2
    ...   g1 =~ y1 + y2 + y3
    ...   g2 =~ y4 + y5 + y6
    ...   g2 ~ g1
    ... '''
    >>> fit = msem.sam(model, msem.load_demo(), cluster="cluster")
    >>> fit
    <msem.StepwiseFit: local, 2 measurement blocks, status 'ok'>
    """
    require_choice("method", method, get_args(Route))
    settings = Settings.read({"cluster": cluster, "group": group, **options}, "sam")
    _require_meaning(settings)
    syntax = with_constraints(model, settings.constraints)
    grouping = group_rows(data, settings.group)
    require_rows_for_holes(data, settings)
    labels = given_labels(data, settings, grouping)
    groups = None if labels is None else group_order(syntax, labels)
    given, settings = settings, with_cluster(settings, data)
    table = table_of(syntax, "sem", settings, groups)
    require_measured(table)
    with settings.limit():
        sample = read_sample(data, table, given, grouping).in_space("natural")
    raw = all(one.source is not None and one.source.keeps_products for one in sample.groups)
    if settings.se == "robust" and not raw:
        raise ModelError(
            'se="robust" needs rows, of which influence functions are: leave it out for those of normal variables'
        )
    if not sample.simple and settings.se == "standard":
        raise UnsupportedError('se="standard" takes the sample for a simple one: leave it out')
    robust = raw and settings.se != "standard"
    with settings.limit():
        steps = fit_stepwise(
            table,
            sample,
            method,
            robust=robust,
            max_iterations=settings.max_iterations,
            tolerance=settings.tolerance,
        )
    resolved = replace(resolve(settings, table, data), se=settings.se or ("robust" if robust else "standard"))
    sampling = None if settings.se == "none" else Sampling(steps.vcov, (), True)
    problems = (
        *(
            p
            for p in find_problems(steps.estimate.objective, steps.estimate.optimum, None)
            if p.name == "improper"
        ),
        *_remarks(steps),
    )
    warn_of(problems)
    return StepwiseFit(steps.estimate, sample, sampling, problems, resolved, steps=steps, method=method)


def _require_meaning(settings: Settings) -> None:
    """Refuse options that structural-after-measurement has no use for."""
    if settings.std_lv:
        raise UnsupportedError(
            "std_lv=True gives latent variables their scale in the structural part, which comes second: leave it out; "
            "standardized estimates are fit.standardized()"
        )
    if settings.ordered:
        raise UnsupportedError(
            "ordered= is not available in msem.sam, whose blocks are fitted by maximum likelihood to continuous "
            "variables: use msem.sem(..., ordered=...)"
        )
    if settings.method not in ("ML", "MLR"):
        raise UnsupportedError(
            f'msem.sam fits its blocks by maximum likelihood, not estimator="{settings.method}"'
        )
    if settings.test is not None or settings.information is not None:
        name = "test" if settings.test is not None else "information"
        raise MsemError(
            f"{name}= has no effect in msem.sam: leave it out; tests are fit.tests() and fit.measurement()"
        )
    if settings.se not in (None, "robust", "standard", "none"):
        raise UnsupportedError(
            f'se="{settings.se}" is not available in msem.sam: "robust", "standard" or "none"'
        )
    if settings.auxiliary or settings.replicate_weights:
        raise UnsupportedError("auxiliary variables and replicate weights are not available in msem.sam")


def _remarks(steps: StepwiseSolution) -> Sequence[Problem]:
    out = []
    unweighted = [
        f"{', '.join(one.unweighted)}{level_place(one.level, steps.estimate.table.nlevels)}"
        for one in steps.structure.levels
        if one.unweighted
    ]
    if unweighted:
        out.append(
            Problem(
                "boundary",
                f"indicators of {'; '.join(unweighted)} have residual variances close to or below 0",
                "Their latent variables are mapped without weights, M = (L'L)^-1 L'",
            )
        )
    if not steps.structure.normal:
        out.append(
            Problem(
                "improper",
                "a covariance matrix of the latent variables is not positive definite",
                "The structural part was fitted by least squares; too few clusters, or too little between variance, "
                "can cause this: simplify that level",
            )
        )
    return out
