"""A fit read from a file: estimates and what follows from them, without data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, Concatenate, Literal, NoReturn, ParamSpec, Self, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.integrals import LOGISTIC
from msem.data.sample import Origin
from msem.data.storage import Fields, signed, verified, write_json
from msem.distributions import coverage, normal_halfwidth, normal_pvalue
from msem.entry import entries
from msem.errors import DataError, UnsupportedError
from msem.estimation.lookup import parameter_series
from msem.estimation.matrices import BlockModel, Model, block_map
from msem.estimation.problems import Problem, status_of
from msem.estimation.solution import row_scales
from msem.fits.fit import Fit
from msem.fits.record import CONTENT, FORMAT, OPTIONAL, ROW, STANDARDIZED, numbers
from msem.fits.reporting import level_titles, measure_sections, method_rows, tested_against, title
from msem.language.syntax import parse
from msem.model.drafts import Ordered
from msem.model.equality import sort_constraints
from msem.model.levels import Level, rows_at
from msem.model.partable import Parameter, ParameterTable
from msem.names import Translated
from msem.output.sections import Pairs, Section, sample_section
from msem.output.summary import SummaryInputs, render_html, render_text
from msem.output.tables import estimates_columns, hidden_rows, slopes_named
from msem.pictures.diagram import Choices, Diagram, diagram_of, numbers_of, require_converged
from msem.postestimation.constraints import defined
from msem.postestimation.effects import contextual_effects, effects
from msem.postestimation.estimates import rows_df
from msem.postestimation.fit_measures import chosen_measures
from msem.postestimation.icc import model_icc_table
from msem.postestimation.simple_slopes import johnson_neyman, simple_slopes
from msem.postestimation.standardized import rsquare, standardized
from msem.postestimation.tidy import ForTables, glance, tidy
from msem.postestimation.variance_partition import variance_partition
from msem.postestimation.wald import wald_test
from msem.settings import Reference, ResolvedSettings, require_choice

Floats = NDArray[np.float64]
P = ParamSpec("P")


@dataclass(frozen=True, eq=False)
class SavedEstimates:
    """What questions about estimates ask of a solution, from a file; see `Estimated`.

    Attributes
    ----------
    table : ParameterTable
    theta, vcov : ndarray, shapes (npar,) and (npar, npar)
    moving : ndarray of bool, shape (npar,)
    options : ResolvedSettings
    independent : float
    """

    table: ParameterTable
    theta: Floats
    vcov: Floats
    moving: NDArray[np.bool_]
    options: ResolvedSettings
    independent: float

    @cached_property
    def model(self) -> Model:
        """Matrices of every level and group."""
        table = self.table
        blocks = [
            (level, group) for group in range(1, table.ngroups + 1) for level in range(1, table.nlevels + 1)
        ]
        return BlockModel(table, tuple(block_map(table, *block, table.observed(*block)) for block in blocks))

    def cov_params(self) -> pd.DataFrame:
        """Sampling covariance matrix with names."""
        names = list(self.table.names())
        return pd.DataFrame(self.vcov, index=names, columns=names)


def _asked(
    question: Callable[Concatenate[SavedEstimates, P], pd.DataFrame],
) -> Callable[Concatenate[SavedFit, P], pd.DataFrame]:
    """A question about estimates, asked of those of a file."""

    @wraps(question)
    def answer(saved: SavedFit, /, *args: P.args, **options: P.kwargs) -> pd.DataFrame:
        return question(saved.known, *args, **options)

    return answer


@entries
@dataclass(frozen=True, eq=False)
class SavedFit(Translated, ForTables):
    """A fit read from a file: estimates and what follows from them, without data; immutable.

    Attributes
    ----------
    content : mapping
        What the file says, checked.
    table : ParameterTable
        Rows of the estimates.
    defined_rows : tuple of Parameter
        Rows of the defined parameters.
    options : ResolvedSettings
    problems : tuple of Problem
    """

    content: Mapping[str, Any]
    table: ParameterTable
    defined_rows: tuple[Parameter, ...]
    options: ResolvedSettings
    problems: tuple[Problem, ...]

    @classmethod
    def load(cls, path: Any) -> Self:
        """Read a file that `Fit.save` has written.

        Raises
        ------
        DataError
            If the file is not one, or is damaged or cut short.
        FileNotFoundError
        """
        given = FORMAT.read(path)
        FORMAT.require(path, given)
        try:
            return cls._of(verified(path, given))
        except (ValueError, TypeError) as error:
            if isinstance(error, DataError):
                raise
            raise FORMAT.contradiction(path, error) from error

    @classmethod
    def _of(cls, content: Mapping[str, Any]) -> Self:
        known = Fields(dict(content), ("format", "version", *CONTENT), OPTIONAL)
        # files of before there were random slopes have rows without the last field
        rows = tuple(
            Parameter(**dict(zip(ROW, row, strict=len(row) != len(ROW) - 1))) for row in content["rows"]
        )
        count = len(rows)
        arrays = {name: known.numbers(name, count, gaps=True) for name in ("est", "se", *STANDARDIZED)}
        options = _options(content["options"])
        syntax = parse(str(content["model"]))
        labels = {row.label for row in rows if row.label and row.op != ":="}
        table = ParameterTable(
            tuple(
                row._replace(value=float(value))
                for row, value in zip(rows, arrays["est"], strict=True)
                if row.op != ":="
            ),
            nlevels=known.whole("nlevels"),
            ngroups=max(len(known.texts("groups")), 1),
            group_labels=tuple(known.texts("groups")),
            syntax=syntax,
            defined=sort_constraints(syntax, labels)[2],
            ordered=_ordered(rows, options),
            clusters=options.cluster_columns,
        )
        npar = table.npar
        arrays["covariance"] = known.numbers("covariance", npar, npar, gaps=True)
        if "reference_df" in content:
            arrays["reference_df"] = known.numbers("reference_df", npar, gaps=True)
        problems = tuple(Problem(*map(str, problem)) for problem in content["problems"])
        return cls(
            {**content, **arrays},
            table,
            tuple(row for row in rows if row.op == ":="),
            options,
            problems,
        )

    def save(self, path: Any) -> None:
        """Write the file again."""
        columns = {name: numbers(self.content[name]) for name in ("est", "se", *STANDARDIZED)}
        columns |= {name: numbers(self.content[name]) for name in OPTIONAL[:1] if name in self.content}
        covariance = [numbers(row) for row in self.content["covariance"]]
        write_json(path, signed({**self.content, **columns, "covariance": covariance}))

    # -- what the fit was ----------------------------------------------------------------------------------------

    @property
    def model(self) -> str:
        """The model text."""
        return str(self.content["model"])

    @property
    def version(self) -> str:
        """The msem that made the fit."""
        return str(self.content["msem"])

    @property
    def converged(self) -> bool:
        """Whether the optimiser reached a stationary point."""
        return bool(self.content["converged"])

    @property
    def status(self) -> str:
        """The most serious of the problems, or "ok"; see `Fit.status`."""
        return status_of(self.problems)

    @property
    def nobs(self) -> int:
        """Units."""
        return int(self.content["nobs"])

    @property
    def nclusters(self) -> int | None:
        """Clusters; None for a single-level model without any."""
        return None if self.content["nclusters"] is None else int(self.content["nclusters"])

    @property
    def npar(self) -> int:
        """Estimated parameters; see `Fit.npar`."""
        return int(self.measures.get("npar", self.table.npar))

    @property
    def df(self) -> int:
        """Degrees of freedom."""
        return int(self.content["df"])

    @property
    def llf(self) -> float:
        """Log-likelihood."""
        return _or_nan(self.content["llf"])

    @property
    def unrestricted_llf(self) -> float:
        """Log-likelihood of the saturated model."""
        return _or_nan(self.content["unrestricted_llf"])

    @property
    def design_df(self) -> int | None:
        """Degrees of freedom of variances that come from the design of the sample; see `Fit.design_df`.

        None also where the file is of an older msem, which did not write them.
        """
        df = self.content.get("design_df")
        return None if df is None else int(df)

    @property
    def reference_df(self) -> pd.Series:
        """Degrees of freedom of t references; see `Fit.reference_df`.

        Raises
        ------
        UnsupportedError
            If the file is of an older msem, which did not write them.
        """
        if "reference_df" not in self.content:
            raise UnsupportedError(
                f"the file was written by msem {self.version}, which saved no degrees of freedom of t references: "
                "save the fit again"
            )
        df = self.content["reference_df"]
        return pd.Series(df, index=list(self.table.names()), name="df", dtype=float)

    @property
    def origin(self) -> Origin:
        """What the data were."""
        return Origin(given_as=str(self.content["given_as"]), dropped_rows=int(self.content["dropped_rows"]))

    # -- estimates -----------------------------------------------------------------------------------------------

    @cached_property
    def _theta(self) -> Floats:
        """Estimates and standard errors of the parameters, shape (npar, 2)."""
        out = np.full((self.table.npar, 2), np.nan)
        for row, est, se in zip(self.table.rows, self.content["est"], self.content["se"], strict=False):
            if row.free:
                out[row.free - 1] = est, se
        return out

    @property
    def params(self) -> pd.Series:
        """Estimated parameters; see `Fit.params`."""
        return parameter_series(self.table, self._theta[:, 0], "est")

    @property
    def bse(self) -> pd.Series:
        """Standard errors of `params`."""
        return parameter_series(self.table, self._theta[:, 1], "se")

    @property
    def tvalues(self) -> pd.Series:
        """Estimates over standard errors."""
        return parameter_series(self.table, self._theta[:, 0] / self._theta[:, 1], "z")

    @property
    def pvalues(self) -> pd.Series:
        """Two-sided p-values of `tvalues`."""
        return parameter_series(self.table, normal_pvalue(self.tvalues), "pvalue")

    def cov_params(self) -> pd.DataFrame:
        """Sampling covariance matrix of `params`."""
        names = list(self.table.names())
        return pd.DataFrame(self.content["covariance"], index=names, columns=names)

    def conf_int(self, *, ci_level: float = 0.95, alpha: float | None = None) -> pd.DataFrame:
        """Wald confidence intervals of `params`; see `Fit.conf_int`."""
        half = normal_halfwidth(coverage(ci_level, alpha)) * self.bse
        return pd.DataFrame({"ci_lower": self.params - half, "ci_upper": self.params + half})

    def estimates(
        self,
        *,
        standardized: bool = False,
        level: Level | None = None,
        ci_level: float = 0.95,
        reference: Reference = "normal",
    ) -> pd.DataFrame:
        """All rows of the parameter table; see `Fit.estimates`."""
        require_choice("reference", reference, get_args(Reference))
        extra = {name: self.content[name] for name in STANDARDIZED} if standardized else {}
        columns = estimates_columns(
            (*self.table.rows, *self.defined_rows),
            self.content["est"],
            self.content["se"],
            ci_level=ci_level,
            df=rows_df(self.table, self.reference_df) if reference == "t" else None,
            scales=[
                *row_scales(self.table, self.content["est"][: len(self.table.rows)], self.options.ci),
                *["identity"] * len(self.defined_rows),
            ],
            extra=extra,
        )
        frame = pd.DataFrame(slopes_named(self.table.rows, columns))
        return rows_at(frame, level, self.table)

    @cached_property
    def known(self) -> SavedEstimates:
        """Estimates as questions about them ask for."""
        moving = self.content.get("moving")
        free = np.ones(self.npar, dtype=bool) if moving is None else np.array(moving, dtype=bool)
        units = self.nobs if self.nclusters is None else self.nclusters
        return SavedEstimates(
            self.table, self._theta[:, 0], self.content["covariance"], free, self.options, float(units)
        )

    standardized, rsquare = _asked(standardized), _asked(rsquare)
    defined, wald_test = _asked(defined), _asked(wald_test)
    effects, contextual_effects = _asked(effects), _asked(contextual_effects)
    variance_partition = _asked(variance_partition)
    simple_slopes, johnson_neyman = _asked(simple_slopes), _asked(johnson_neyman)

    def icc_table(self, *, source: Literal["model"] = "model", ci_level: float = 0.95) -> pd.DataFrame:
        """Intraclass correlations that the model implies; see `Fit.icc_table`.

        Parameters
        ----------
        source : {"model"}
            Saturated moments are not in the file.
        ci_level : float
            Coverage of the intervals.

        Raises
        ------
        UnsupportedError
            For saturated moments, a single-level model, and files of an older msem, which have no cluster sizes.
        """
        if source != "model":
            raise UnsupportedError(
                'a saved fit has no saturated moments: source="model" has those that the model implies'
            )
        if not self.table.multilevel:
            raise UnsupportedError("a single-level model has no intraclass correlations")
        sizes = [{float(size): float(count) for size, count in own} for own in self.content.get("sizes", [])]
        if len(sizes) != self.table.ngroups:
            raise UnsupportedError(
                f"the file was written by msem {self.version}, which saved no cluster sizes: save the fit again"
            )
        return model_icc_table(self.known, sizes, ci_level)

    # -- fit -----------------------------------------------------------------------------------------------------

    @cached_property
    def measures(self) -> dict[str, float]:
        """Fit measures as they were saved."""
        return {name: _or_nan(value) for name, value in self.content["fit_measures"].items()}

    def fit_measures(self, names: str | Sequence[str] | None = None) -> pd.Series:
        """Fit measures of the whole model; see `Fit.fit_measures`."""
        found = pd.Series(self.measures)
        return found if names is None else chosen_measures(found, names)

    @property
    def aic(self) -> float:
        """Akaike's information criterion."""
        return float(self.measures.get("aic", np.nan))

    @property
    def bic(self) -> float:
        """Bayesian information criterion."""
        return float(self.measures.get("bic", np.nan))

    tidy, glance = tidy, glance

    def diagram(self, **choices: Any) -> Diagram:
        """Path diagram of the fit; see `Fit.diagram`.

        Parameters
        ----------
        **choices
            As of `Fit.diagram`. A file has no errors of standardized estimates: they are drawn with the significance of
            the plain ones, and without standard errors.

        Raises
        ------
        ModelError
            If the fit had not converged, or too much would be drawn.
        """
        chosen = Choices(**choices)
        require_converged(self.converged)
        plain = self.estimates(standardized=True)
        shown = plain
        if chosen.metric is not None:
            shown = plain.assign(est=plain[chosen.metric], se=np.nan)
        return diagram_of(self.table, numbers_of(shown, plain, len(self.table.rows)), chosen)

    # -- text ----------------------------------------------------------------------------------------------------

    def summary(self, *, fit_measures: bool = False, standardized: bool = False, ci: bool = False) -> str:
        """Text in the layout of `Fit.summary`."""
        return render_text(self._shown(fit_measures, standardized, ci))

    def to_html(self, *, fit_measures: bool = True, standardized: bool = False, ci: bool = False) -> str:
        """The summary as one HTML element."""
        return render_html(self._shown(fit_measures, standardized, ci))

    def _shown(self, full: bool, standardized: bool, ci: bool) -> SummaryInputs:
        multilevel = self.table.multilevel
        how: Pairs = (("Estimator", self.options.estimator), ("Number of model parameters", self.table.npar))
        if self.npar < self.table.npar:
            how = (*how, ("Number of equality constraints", self.table.npar - self.npar))
        sample = sample_section(
            nobs=self.nobs,
            nclusters=self.nclusters,
            cluster=self.options.cluster,
            given_as=self.origin.given_as,
        )
        rows = (*self.table.rows, *self.defined_rows)
        return SummaryInputs(
            title=title(self.converged, int(self.content["iterations"])),
            messages=tuple(map(str, self.problems)),
            header=(Section("", (*how, ("Read from a file of msem", self.version))), sample),
            fit=(*measure_sections(self.measures, self.options, full=full), *self._tested_against),
            method=method_rows(self.options, single_level=not multilevel),
            levels=level_titles(self.options, self.table.nlevels),
            groups=dict(enumerate(self.table.group_labels, 1)),
            estimates=self.estimates(standardized=standardized),
            hidden=hidden_rows(rows, self.content["est"]),
            ci=ci,
        )

    @property
    def _tested_against(self) -> tuple[Section, ...]:
        if not any(row.slope for row in self.table.rows):
            return ()
        return tested_against(
            [] if self.content["unrestricted_llf"] is not None else ["Nothing: the file does not say why"]
        )

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            """Say what a fit without data cannot answer."""
            if name.startswith("_") or hasattr(type(self), name) or not hasattr(Fit, name):
                return super().__getattr__(name)
            raise AttributeError(
                f"a saved fit has no data and no {name!r}: fit the model again, msem.sem(saved.model, data, ...)"
            )

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        return (
            f"<msem.SavedFit: {self.npar} parameters, log-likelihood {self.llf:.3f}, status {self.status!r}>"
        )

    def _repr_html_(self) -> str:
        return self.to_html()


def _ordered(rows: Sequence[Parameter], options: ResolvedSettings) -> Ordered:
    """Ordered variables by the thresholds among the rows."""
    counts: dict[str, set[str]] = {}
    for row in rows:
        if row.op == "|":
            counts.setdefault(row.lhs, set()).add(row.rhs)
    if not counts:
        return Ordered()
    residual = LOGISTIC if options.link == "logit" else 1.0
    return Ordered({name: len(own) for name, own in counts.items()}, options.parameterization, residual)


def _or_nan(value: Any) -> float:
    return math.nan if value is None else float(value)


def _options(given: Mapping[str, Any]) -> ResolvedSettings:
    """Settings as they were saved, each read as if it had been given."""
    values: dict[str, Any] = {}
    for own in fields(ResolvedSettings):
        if own.name in given:
            value = given[own.name]
            value = tuple(value) if isinstance(value, list) else value
            read = own.metadata.get("read")
            values[own.name] = value if read is None or not value else read(own.name, value)
    return ResolvedSettings(**values)
