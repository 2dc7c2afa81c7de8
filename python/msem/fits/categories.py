"""Ordered variables on the road of a fit: their columns, and what is estimated or integrated of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from msem.data.integrals import LOGISTIC, integrated_statistics
from msem.data.ordered import OrderedColumns, ordered_columns, ordered_statistics
from msem.data.reading import has_rows, known_categories, require_rows_of_data
from msem.data.row_replicates import counted_statistics
from msem.data.sample import Group, Sample
from msem.errors import DataError, ModelError, UnsupportedError
from msem.estimation.integrals import integration_plan
from msem.language.syntax import ModelSyntax
from msem.model.drafts import Ordered
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
    names = {name: None for s in syntax.statements for name in (s.lhs, "" if s.op == "|" else s.rhs) if name}
    asked = _outcomes(syntax) if settings.ordered is True else settings.ordered or ()
    if data is None or not has_rows(data):
        known = known_categories(data)
        odd = next((name for name in asked if name not in known), None)
        if odd is not None:
            what = (
                f"{odd!r} is not ordered in these moments"
                if known
                else "ordered variables need rows of raw data"
            )
            raise UnsupportedError(what)
        return OrderedColumns(data, {name: labels for name, labels in known.items() if name in names})
    require_rows_of_data(data)
    latent = _latent(syntax)
    if settings.ordered is False:
        return OrderedColumns(data)
    found = ordered_columns(data, [name for name in names if name not in latent], asked)
    if settings.fixed_x:
        _require_no_covariate(syntax, found.categories, asked)
    return found


def _require_no_covariate(syntax: ModelSyntax, ordered: Collection[str], asked: Collection[str]) -> None:
    """Refuse ordered variables that only predict.

    Raises
    ------
    ModelError
        With what to do, which is not the same for those that are ordered because of their column.
    """
    modelled = {s.lhs for s in syntax.statements} | {s.rhs for s in syntax.statements if s.op != "~"}
    name = next((name for name in ordered if name not in modelled), None)
    if name is None:
        return
    numbers = f'data["{name}"].cat.codes for the numbers of its categories'
    remedy = (
        "leave it out of ordered= to use its numbers, or make indicators of it"
        if name in asked
        else f"its column is an ordered categorical, so make indicators of it, pandas.get_dummies, or take {numbers}"
    )
    raise ModelError(f"{name!r} is a covariate, whose distribution is not modelled: {remedy}")


def _latent(syntax: ModelSyntax) -> set[str]:
    return {s.lhs for s in syntax.statements if s.op == "=~"}


def _outcomes(syntax: ModelSyntax) -> tuple[str, ...]:
    """Observed variables of the text but those that only predict, in order."""
    found: dict[str, None] = {}
    predicted = {s.lhs for s in syntax.statements if s.op == "~"}
    predictors = {s.rhs for s in syntax.statements if s.op == "~"}
    measured = {s.rhs for s in syntax.statements if s.op == "=~"}
    for s in syntax.statements:
        for name in (s.lhs, "" if s.op == "|" else s.rhs):
            if name in measured or name in predicted or name not in predictors:
                found.setdefault(name)
    return tuple(name for name in found if name and name not in _latent(syntax))


def named_thresholds(syntax: ModelSyntax) -> dict[str, int]:
    """How many thresholds a text that stands by itself gives each variable: up to the last that it names."""
    found: dict[str, int] = {}
    for s in syntax.statements:
        if s.op == "|" and s.rhs[:1] == "t" and s.rhs[1:].isdigit():
            found[s.lhs] = max(found.get(s.lhs, 0), int(s.rhs[1:]))
    return found


def ordered_thresholds(syntax: ModelSyntax, settings: Settings, known: Mapping[str, int]) -> dict[str, int]:
    """How many thresholds the ordered variables have of a model that is read without data.

    Parameters
    ----------
    syntax : ModelSyntax
    settings : Settings
    known : mapping of str to int
        Of variables whose thresholds need not be named, such as those of a population.

    Raises
    ------
    ModelError
        If a variable is to be ordered and nothing says how many categories it has.
    """
    named = named_thresholds(syntax)
    asked = _outcomes(syntax) if settings.ordered is True else settings.ordered or ()
    among = {name for s in syntax.statements for name in (s.lhs, s.rhs)}
    out = {name: count for name, count in (dict(known) | named).items() if name in among}
    for name in asked:
        if name in among and name not in out:
            raise ModelError(
                f"{name!r} is ordered, and the model is read without data: name its thresholds in the text, as in "
                f"'{name} | t1 + t2' for three categories"
            )
        if name not in among:
            raise ModelError(f"ordered names {name!r}, which is not a variable of the model")
    return out


def require_thresholds(table: ParameterTable, found: Mapping[str, int]) -> None:
    """Refuse a sample whose ordered variables have other numbers of categories than those of the model.

    Raises
    ------
    DataError
    """
    for name, count in table.ordered.thresholds.items():
        if found.get(name, count) != count:
            raise DataError(
                f"{name!r} has {found[name] + 1} categories in this sample and {count + 1} in the model"
            )


def ordered_options(thresholds: Mapping[str, int] | None, settings: Settings) -> Ordered:
    """What the model has to know of ordered variables."""
    logistic = settings.link == "logit"
    return Ordered(thresholds or {}, settings.parameterization or "", LOGISTIC if logistic else 1.0)


def with_categories(
    sample: Sample, table: ParameterTable, categories: Mapping[str, Sequence[Any]], settings: Settings
) -> Sample:
    """The sample as ordered variables are estimated from: as it is if there are none.

    By least squares with estimates of thresholds and correlations in the place of moments, by maximum likelihood with
    the rows.

    Raises
    ------
    UnsupportedError
        For three levels, or where the likelihood is an integral over too many variables.
    ModelError
        If a fixed covariate is ordered.
    """
    if not categories:
        if settings.link != "probit":
            raise ModelError(f'link="{settings.link}" has no effect without ordered variables: leave it out')
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
            if settings.weighting is None:
                raise UnsupportedError(
                    f'estimator="{settings.estimator}" needs rows, and these are statistics of the first stage'
                )
            groups.append(group)
            continue
        covariates = _covariates(table, number)
        among = next((name for own in covariates for name in own if name in categories), None)
        if among is not None:
            raise ModelError(
                f"{among!r} is a covariate, whose distribution is not modelled: leave it out of ordered= to use the "
                "numbers of its categories, or make indicators of it"
            )
        make = _first_stage if settings.weighting is not None else _integrals
        groups.append(make(group, table, number, categories, settings))
    return replace(sample, groups=tuple(groups))


def _covariates(table: ParameterTable, number: int) -> tuple[tuple[str, ...], ...]:
    return tuple(table.exogenous(level, number) for level in range(1, table.nlevels + 1))


def _first_stage(
    group: Group,
    table: ParameterTable,
    number: int,
    categories: Mapping[str, Sequence[Any]],
    settings: Settings,
) -> Group:
    statistics = ordered_statistics(
        counted_statistics(table, group.rows),
        group.rows,
        categories,
        _covariates(table, number),
        tuple(table.thresholds(level, number) for level in range(1, table.nlevels + 1)),
        group.place,
    )
    return replace(group, statistics=statistics)


def _integrals(
    group: Group,
    table: ParameterTable,
    number: int,
    categories: Mapping[str, Sequence[Any]],
    settings: Settings,
) -> Group:
    cuts = table.thresholds(table.nlevels, number)
    low = next((name for name, _ in table.thresholds(WITHIN, number)), "") if table.multilevel else ""
    if low:
        raise UnsupportedError(
            f"{low!r} is ordered and at the within level only, where maximum likelihood has no thresholds in this "
            f"version: add '{low} ~~ 0*{low}' to level 2, which is the same model"
        )
    statistics = integrated_statistics(
        group.statistics,
        group.rows,
        categories,
        cuts,
        integration_plan(table, number, group.statistics.variables),
        table.slopes(number),
        logistic=settings.link == "logit",
        nodes=settings.nodes,
        place=group.place,
    )
    return replace(group, statistics=statistics)
