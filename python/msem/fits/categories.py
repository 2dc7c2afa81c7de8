"""Ordered variables on the road of a fit: their columns, and the first stage of their estimation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from msem.data.complete import SampleStatistics
from msem.data.ordered import OrderedColumns, ordered_columns, ordered_statistics
from msem.data.reading import has_rows, require_rows_of_data
from msem.data.sample import Sample
from msem.errors import ModelError, UnsupportedError
from msem.language.syntax import ModelSyntax
from msem.model.levels import WITHIN
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
    if data is None or not has_rows(data):
        if settings.ordered:
            raise UnsupportedError("ordered variables need rows of raw data")
        return OrderedColumns(data)
    require_rows_of_data(data)
    names = {name: None for s in syntax.statements for name in (s.lhs, "" if s.op == "|" else s.rhs) if name}
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
        covariates = table.exogenous(WITHIN, number)
        among = next((name for name in covariates if name in categories), None)
        if among is not None:
            raise ModelError(
                f"{among!r} is a covariate, whose distribution is not modelled: leave it out of ordered= to use the "
                "numbers of its categories, or make indicators of it"
            )
        assert isinstance(group.statistics, SampleStatistics)
        statistics = ordered_statistics(
            group.statistics,
            group.rows,
            categories,
            covariates,
            table.thresholds(table.nlevels, number),
            group.place,
        )
        groups.append(replace(group, statistics=statistics))
    return replace(sample, groups=tuple(groups))
