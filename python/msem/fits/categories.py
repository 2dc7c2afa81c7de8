"""Ordered variables on the road of a fit: their columns, and the first stage of their estimation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from msem.data.complete import SampleStatistics
from msem.data.ordered import OrderedColumns, ordered_columns, ordered_statistics
from msem.data.reading import has_rows, known_categories, require_rows_of_data, statistics_of_rows
from msem.data.sample import Group, Sample
from msem.errors import ModelError, UnsupportedError
from msem.language.syntax import ModelSyntax
from msem.model.partable import ParameterTable
from msem.settings import Settings


def ordered_of(syntax: ModelSyntax, data: Any, settings: Settings) -> OrderedColumns:
    """The columns of a frame with the categories of ordered variables numbered.

    Raises
    ------
    UnsupportedError
        If there are ordered variables and no rows.
    DataError
        If a variable cannot be ordered; see `ordered_columns`.
    """
    names = {name: None for s in syntax.statements for name in (s.lhs, "" if s.op == "|" else s.rhs) if name}
    if data is None or not has_rows(data):
        known = known_categories(data)
        odd = next((name for name in settings.ordered if name not in known), None)
        if odd is not None:
            what = (
                f"{odd!r} is not ordered in these moments"
                if known
                else "ordered variables need rows of raw data"
            )
            raise UnsupportedError(what)
        return OrderedColumns(data, {name: labels for name, labels in known.items() if name in names})
    require_rows_of_data(data)
    latent = {s.lhs for s in syntax.statements if s.op == "=~"}
    return ordered_columns(data, [name for name in names if name not in latent], settings.ordered)


def with_first_stage(
    sample: Sample, table: ParameterTable, categories: Mapping[str, Sequence[Any]]
) -> Sample:
    """The sample with estimates of thresholds and correlations in the place of moments, if variables are ordered.

    Raises
    ------
    UnsupportedError
        For three levels.
    ModelError
        If a fixed covariate is ordered.
    """
    if not categories:
        return sample
    if table.nlevels > 2:
        raise UnsupportedError(
            f"{next(iter(categories))!r} is ordered: models of more than two levels are for continuous variables"
        )
    if table.multilevel and table.ordered.parameterization == "delta":
        raise ModelError(
            'parameterization="delta" is for models of one level: with two the residual variances within are 1, "theta"'
        )
    groups = []
    for number, group in enumerate(sample.groups, 1):
        if group.statistics.first_stage is not None:  # given as moments
            groups.append(group)
            continue
        levels = range(1, table.nlevels + 1)
        covariates = tuple(table.exogenous(level, number) for level in levels)
        among = next((name for own in covariates for name in own if name in categories), None)
        if among is not None:
            raise ModelError(
                f"{among!r} is a covariate, whose distribution is not modelled: leave it out of ordered= to use the "
                "numbers of its categories, or make indicators of it"
            )
        statistics = ordered_statistics(
            _counted(table, group, number),
            group.rows,
            categories,
            covariates,
            tuple(table.thresholds(level, number) for level in levels),
            group.place,
        )
        groups.append(replace(group, statistics=statistics))
    return replace(sample, groups=tuple(groups))


def _counted(table: ParameterTable, group: Group, number: int) -> SampleStatistics:
    """Statistics of the rows for what they count: where values are missing, as if they were at the mean."""
    statistics, rows = group.statistics, group.rows
    if not rows.complete:
        columns = {
            name: np.where(np.isnan(own), np.nanmean(own), own) if np.isnan(own).any() else own
            for name, own in rows.columns.items()
        }
        statistics = statistics_of_rows(table, replace(rows, columns=columns, complete=True), number)
    assert isinstance(statistics, SampleStatistics)
    return statistics
