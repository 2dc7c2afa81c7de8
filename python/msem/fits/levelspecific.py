"""Fit measures of one level of a two-level fit, the other level saturated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import pandas as pd

from msem.errors import ModelError, UnsupportedError
from msem.estimation.estimate import Estimate
from msem.fits.robust import Robust
from msem.model.levels import BETWEEN, WITHIN, level_number
from msem.model.special_tables import crosses_levels
from msem.output.sections import Section, level_section
from msem.postestimation.level_fit import LevelSpecific, fit_level_specific, level_measures
from msem.postestimation.scaling import Scaling

HEADINGS = ("Within", "Between")
SCALED = (
    150  # parameters of a partially saturated model beyond which a summary does without its scaling factors
)


@dataclass(frozen=True, eq=False)
class LevelSpecificMeasures(Robust):
    """Partially saturated fits, made when they are first asked for."""

    def level_fit(self, level: int | str) -> LevelSpecific:
        """Estimates of one level with the other saturated, and of its baseline model (Ryu & West, 2009).

        Parameters
        ----------
        level : {1, 2, "within", "between"}

        Returns
        -------
        LevelSpecific
            `model` and `baseline`, both with parameter table, theta and log-likelihood.

        Raises
        ------
        ValueError
            If there is no such level.
        UnsupportedError
            If parameters or constraints tie the levels together.
        """
        if self.table.nlevels == 1:
            raise ModelError("fit measures of a level need a two-level model; this one has one level")
        number = level_number(level)
        if self._tied:
            raise UnsupportedError(self._tied)
        return self._within_fit if number == WITHIN else self._between_fit

    def _level_measures(self, level: int | str) -> pd.Series:
        found = self.level_fit(level)
        return (self._within_measures if found.level == WITHIN else self._between_measures).copy()

    @cached_property
    def _tied(self) -> str:
        """Why the fit of a level is not defined; empty if it is."""
        shared = crosses_levels(self.table)
        if not shared:
            return ""
        return (
            f"the levels share {', '.join(shared)}: neither level can be saturated without giving that up, so its part "
            "of the fit is not defined; look at fit_measures() of the whole model, or free the levels"
        )

    @cached_property
    def _within_fit(self) -> LevelSpecific:
        return fit_level_specific(self.estimate, self.sample, WITHIN)

    @cached_property
    def _between_fit(self) -> LevelSpecific:
        return fit_level_specific(self.estimate, self.sample, BETWEEN)

    @cached_property
    def _within_measures(self) -> pd.Series:
        return level_measures(self._within_fit, self.sample, self._level_scaling)

    @cached_property
    def _between_measures(self) -> pd.Series:
        return level_measures(self._between_fit, self.sample, self._level_scaling)

    @property
    def _level_scaling(self) -> Callable[[Estimate], Scaling] | None:
        test = self.options.scaled_test
        return None if test is None else partial(self._scaling_of, test)

    def _level_sections(self) -> tuple[Section, ...]:
        """The section of the summary; none for a single-level model, or when the saturated model has no maximum."""
        if self.table.nlevels == 1 or not self.sample.converged:
            return ()
        if self._tied:
            return (level_section({}, note=f"Not defined: {self._tied.partition(':')[0]}"),)
        if self._level_scaling is not None and self._within_fit.model.table.npar > SCALED:
            plain = [level_measures(one, self.sample) for one in (self._within_fit, self._between_fit)]
            return (
                level_section(
                    dict(zip(HEADINGS, plain, strict=True)), note="Scaled versions: fit_measures(level=...)"
                ),
            )
        return (
            level_section(dict(zip(HEADINGS, (self._within_measures, self._between_measures), strict=True))),
        )
