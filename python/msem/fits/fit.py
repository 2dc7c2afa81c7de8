"""A fitted model."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.fits.constrained import Constrained
from msem.fits.diagnostics import Diagnostics
from msem.fits.hypotheses import Hypotheses
from msem.fits.levelspecific import LevelSpecificMeasures
from msem.fits.missingness import Missingness
from msem.fits.profiled import Profiled
from msem.fits.quantities import Quantities
from msem.fits.reporting import (
    constraint_sections,
    header,
    measure_sections,
    messages,
    method_rows,
    shown_labels,
    title,
    with_group_tests,
)
from msem.fits.resampled import Resampled
from msem.fits.residualtables import ResidualTables
from msem.fits.solution import Solution
from msem.fits.testing import Testing
from msem.model.levels import LEVEL_NAMES
from msem.output.html import render_html
from msem.output.summary import SummaryInputs
from msem.output.tables import estimates_frame, hidden_rows
from msem.output.text import render_text
from msem.postestimation.standardized import standardize
from msem.settings import Reference, require_choice

Floats = NDArray[np.float64]
SummaryTable = Literal["icc", "reliability", "effects", "srmr", "residuals", "modification_indices"]
LARGEST = 10  # rows of a table that is sorted by size


@dataclass(frozen=True, eq=False)
class Fit(
    Testing,
    Hypotheses,
    Resampled,
    Profiled,
    LevelSpecificMeasures,
    ResidualTables,
    Quantities,
    Constrained,
    Diagnostics,
    Missingness,
    Solution,
):
    """Estimates of a structural equation model with its tests and tables; immutable.

    Made by `msem.sem`, `msem.cfa` and `msem.growth`. For the solution itself see `Solution`.
    """

    def fit_measures(self, *, level: int | str | None = None) -> pd.Series:
        """Fit measures under lavaan's names, dots replaced by underscores.

        Parameters
        ----------
        level : {None, 1, 2, "within", "between"}
            None: of the whole model. Otherwise of one level, the other saturated (Ryu & West, 2009), held against
            independence at that level; `srmr` is that of the level. RMSEA has the number of clusters as sample size at
            the between level, the number of units at the within level.

        Returns
        -------
        Series

        Raises
        ------
        UnsupportedError
            If parameters or constraints tie the levels together: the fit of one of them is then not defined.
        """
        return self._measures.copy() if level is None else self._level_measures(level)

    # -- tables ------------------------------------------------------------------------------------------------

    def estimates(
        self, *, standardized: bool = False, level: float = 0.95, reference: Reference = "normal"
    ) -> pd.DataFrame:
        """All rows of the parameter table with estimates.

        Parameters
        ----------
        standardized : bool
            Add std_lv, std_all and std_nox, each level standardized by its own variances.
        level : float
            Of the confidence intervals.
        reference : {"normal", "t"}
            Distribution of estimates over standard errors. With "t" there are columns t and df in the place of z; see
            `reference_df`.

        Returns
        -------
        DataFrame
            Columns lhs, op, rhs, level, group, label, est, se, z, pvalue, ci_lower, ci_upper. Rows that are not
            estimated have se 0. Defined parameters (``:=``) come last, at level 0 of group 0.
        """
        require_choice("reference", reference, get_args(Reference))
        est, se = self._row_values
        df = self._row_df if reference == "t" else None
        extra: dict[str, Floats] = {}
        if standardized:
            found = standardize(self.table, est, self.objective.variances(self.estimate.theta))._asdict()
            extra = {name: np.append(column, self._defined_at(column)) for name, column in found.items()}
        values, errors = self._defined_values
        rows = (*self.table.rows, *self._defined_rows)
        return estimates_frame(
            rows, np.append(est, values), np.append(se, errors), ci_level=level, df=df, extra=extra
        )

    @property
    def _row_df(self) -> Floats:
        """Degrees of freedom of every row, defined parameters last: nan where nothing is estimated."""
        free = np.array([r.free for r in self.table.rows])
        df: Floats = np.append(self.reference_df.to_numpy(), np.nan)[free - 1]
        return np.append(np.where(free > 0, df, np.nan), self._defined_df)

    def to_frame(self, *, standardized: bool = False, level: float = 0.95) -> pd.DataFrame:
        """The same as `estimates`."""
        return self.estimates(standardized=standardized, level=level)

    def summary(
        self,
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
        return render_text(self._summary_inputs(fit_measures, standardized, rsquare, ci, reference, tables))

    def to_html(
        self,
        *,
        fit_measures: bool = True,
        standardized: bool = False,
        rsquare: bool = False,
        ci: bool = False,
        reference: Reference = "normal",
        tables: SummaryTable | Collection[SummaryTable] = (),
    ) -> str:
        """The summary as one self-contained HTML element; parameters as in `summary`."""
        return render_html(self._summary_inputs(fit_measures, standardized, rsquare, ci, reference, tables))

    def _summary_inputs(
        self,
        full: bool,
        standardized: bool,
        rsquare: bool,
        ci: bool,
        reference: Reference,
        tables: SummaryTable | Collection[SummaryTable],
    ) -> SummaryInputs:
        two_level = self.table.nlevels == 2
        groups = tuple(self.groups.values())
        return SummaryInputs(
            title=title(self.converged, len(self.estimate.optimum.diary)),
            messages=messages(self.problems, self.options, self.origin),
            header=header(self.options, self.origin, self.npar, self.npar - self.estimate.nfree, groups),
            fit=(
                *with_group_tests(measure_sections(self._measures, self.options, full=full), groups),
                *(self._level_sections() if full else ()),
                *constraint_sections(self._held),
            ),
            method=method_rows(self.options, single_level=not two_level, replicates=self.bootstrapped),
            levels=LEVEL_NAMES if two_level else {},
            groups=dict(enumerate(self.group_labels, 1)),
            estimates=self.estimates(standardized=standardized, reference=reference).assign(
                label=[*shown_labels(self.table), *(row.label for row in self._defined_rows)]
            ),
            hidden=np.append(
                hidden_rows(self.table.rows, self._row_values[0], self.table.auxiliary),
                np.zeros(len(self._defined_rows), dtype=bool),
            ),
            r2=self.rsquare() if rsquare else None,
            ci=ci,
            tables=tuple(self._table(name) for name in ([tables] if isinstance(tables, str) else tables)),
        )

    def _table(self, name: SummaryTable) -> tuple[str, pd.DataFrame]:
        """Title and content of a further table of the summary."""
        require_choice("tables", name, get_args(SummaryTable))
        if name == "icc":
            return "Intraclass Correlations", self.icc_table()
        if name == "reliability":
            return "Reliability", self.reliability()
        if name == "effects":
            return "Effects", self.effects()
        if name == "srmr":
            return "Root Mean Square Residuals", self.srmr()
        if name == "modification_indices":
            return "Modification Indices", self.modification_indices().head(LARGEST)
        largest = self.residuals("standardized").sort_values("z", key=np.abs, ascending=False, kind="stable")
        return "Standardized Residuals", largest.head(LARGEST).reset_index(drop=True)

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        return f"<msem.Fit: {self.npar} parameters, log-likelihood {self.llf:.3f}, status {self.status!r}>"

    def _repr_html_(self) -> str:
        return self.to_html()
