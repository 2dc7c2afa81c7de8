"""Statistics of the variables of a model, made of rows or of clusters, and where these may have holes."""

from __future__ import annotations

from msem.data.clusters import ClusterStatistics
from msem.data.complete_rows import sample_statistics, simple_statistics
from msem.data.crossed import crossed_statistics
from msem.data.crossed_slopes import crossed_slope_statistics
from msem.data.frames import Holes
from msem.data.incomplete import incomplete_statistics, simple_incomplete
from msem.data.nested import nested_statistics
from msem.data.nested_slopes import nested_slope_statistics
from msem.data.nesting import NestedSource
from msem.data.quadrature import integrated_statistics
from msem.data.rows import ClusteredData
from msem.data.screening import Finding
from msem.data.slopes import SlopeStatistics, slope_statistics
from msem.data.statistics import Statistics
from msem.errors import DataError
from msem.model.levels import BETWEEN
from msem.model.partable import ParameterTable, fixed_covariates
from msem.model.slopes import Slope
from msem.model.variables import Variables


def statistics_of_rows(
    table: ParameterTable, data: ClusteredData, group: int = 1, found: list[Finding] | None = None
) -> Statistics:
    """Statistics of the variables of a model, for one of its groups; `found` takes what would be refused."""
    if not table.multilevel:
        if data.codes is not None and len(data.clusters) < 2:
            raise DataError("all rows are in one cluster: cluster-robust standard errors need more than one")
        make_simple = simple_statistics if data.complete else simple_incomplete
        return make_simple(data, table.observed(1), found=found)
    if any(clusters.crossed for clusters in data.inner.values()):
        return crossed_of(table, data, group, found)
    if data.inner:
        return nested_of(table, data, group, found)
    if table.slopes(group):
        return statistics_of_slopes(table, data, group)
    return level_statistics_of_rows(table.variables, data, found)


def nested_of(
    table: ParameterTable, data: NestedSource, group: int = 1, found: list[Finding] | None = None
) -> Statistics:
    """Statistics of nested clusters for one group of a model."""
    if not table.slopes(group):
        return nested_statistics(data, table.variables, found=found)
    return nested_slope_statistics(data, table.variables, *_level_slope_roles(table, group), found=found)


def crossed_of(
    table: ParameterTable, data: ClusteredData, group: int = 1, found: list[Finding] | None = None
) -> Statistics:
    """Statistics of crossed classifications for one group of a model."""
    if not table.slopes(group):
        return crossed_statistics(data, table.variables, found=found)
    return crossed_slope_statistics(data, table.variables, *_level_slope_roles(table, group), found=found)


def _level_slope_roles(
    table: ParameterTable, group: int
) -> tuple[list[str], tuple[Slope, ...], tuple[str, ...]]:
    """Fixed covariates of all levels, random slopes and their carriers; see `WithSlopes`."""
    fixed = [name for own in fixed_covariates(table, table.variables, group) for name in own]
    return fixed, table.slopes(group), slope_carriers(table, group)


def level_statistics_of_rows(
    variables: Variables, data: ClusteredData, found: list[Finding] | None = None
) -> Statistics:
    """Statistics of variables of nested levels, two or more, of which none has a random slope."""
    if data.inner:
        return nested_statistics(data, variables, found=found)
    make = sample_statistics if data.complete else incomplete_statistics
    return make(data, variables, found=found)


def statistics_of_slopes(
    table: ParameterTable, data: ClusteredData | ClusterStatistics, group: int = 1
) -> SlopeStatistics:
    """Statistics for a model with random slopes.

    For an integral over them where a covariate stands at both levels, or is latent, when its first indicator stands for
    it in what is made of the rows.
    """
    fixed, slopes, carriers = slope_roles(table, group)
    covariates = tuple(slope.covariate for slope in slopes)
    latent = tuple(dict.fromkeys(name for name in covariates if name in table.latent(1, group)))
    proxies = tuple(slope._replace(covariate=_marker(table, group, slope.covariate)) for slope in slopes)
    given = data, table.variables, fixed, proxies, carriers, _shared_covariates(table, group)
    both = latent or any(name in table.variables.both for name in covariates)
    if both and not table.ordered.thresholds:
        return integrated_statistics(*given, covariates, latent)
    return slope_statistics(*given)


def _shared_covariates(table: ParameterTable, group: int) -> tuple[tuple[str, ...], ...]:
    """Fixed covariates of each level if one of them stands at both; otherwise nothing."""
    exogenous = tuple(table.exogenous(level, group) for level in range(1, table.nlevels + 1))
    return exogenous if any(name in table.variables.both for own in exogenous for name in own) else ()


def slope_roles(
    table: ParameterTable, group: int
) -> tuple[tuple[str, ...], tuple[Slope, ...], tuple[str, ...]]:
    """Fixed covariates of units, random slopes, and an observed variable that each slope reaches; of one group."""
    exogenous = table.exogenous(1, group)
    fixed = tuple(name for name in table.variables.alone[0] if name in exogenous)
    return fixed, table.slopes(group), slope_carriers(table, group)


def slope_carriers(table: ParameterTable, group: int) -> tuple[str, ...]:
    """An observed variable for each random slope: its outcome, or the first variable that measures that."""
    slopes = table.slopes(group)
    carriers: dict[str, str] = {}
    for slope in slopes:
        name = _marker(table, group, slope.outcomes[0], slope.level)
        carriers[slope.name] = carriers.get(name, name)  # that of a slope which is the outcome
    return tuple(carriers[slope.name] for slope in slopes)


def _marker(table: ParameterTable, group: int, name: str, level: int = 1) -> str:
    """The first observed variable that measures a variable of a level; itself if it is observed."""
    measures = {row.lhs: row.rhs for row in reversed(table.block(level, group)) if row.op == "=~"}
    while name in measures:
        name = measures[name]
    return name


def allowed_holes(table: ParameterTable, *, pairwise: bool = False) -> Holes:
    """Where rows may have holes: anywhere but in covariates that are fixed or have random slopes.

    The likelihood is conditional on the former; the product of a slope and the latter would be one of two unknowns,
    unless the covariate stands at both levels, and the slope is integrated over.
    `pairwise`: by least squares of pairs, which integrate over nothing.
    """
    levels, groups = range(1, table.nlevels + 1), range(1, table.ngroups + 1)
    fixed = dict.fromkeys(
        name for level in levels for group in groups for name in table.exogenous(level, group)
    )
    slopes = [
        slope.covariate
        for group in groups
        for slope in table.slopes(group)
        if table.ordered.thresholds or table.nlevels > BETWEEN or slope.covariate not in table.variables.both
    ]
    fixed |= dict.fromkeys(name for name in slopes if name in table.variables.names)
    if table.ordered.thresholds and not pairwise:
        # what is not observed of continuous variables would be one more dimension to integrate over
        fixed |= dict.fromkeys(name for name in table.variables.names if name not in table.ordered.thresholds)
    if not table.multilevel:
        return Holes(required=tuple(fixed))
    if table.crossed:  # a row may not tell of a cluster what others of the cluster do
        return Holes(required=tuple(dict.fromkeys((*fixed, *table.variables.cluster))))
    *inner, highest = table.variables.measured[1:]
    return Holes(tuple(fixed), highest, tuple(inner))
