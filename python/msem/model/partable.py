"""Parameter table: one row for each parameter of the model, with lavaan's defaults."""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, get_args

from msem.errors import ModelError, UnsupportedError
from msem.language.expressions import Name
from msem.language.syntax import Constraint, ModelSyntax, Position
from msem.model.blocks import group_drafts, header_levels, refuse_unsupported
from msem.model.drafts import BlockDraft, Defaults, Draft, Fun, Ordered, add_defaults, check_same_kind
from msem.model.equality import equality_kinds, equate_groups, share, sort_constraints
from msem.model.exploratory import check_exploratory, check_unshared, set_exploratory
from msem.model.levels import BETWEEN, NUMBERS, WITHIN, level_number, number_of_levels
from msem.model.references import Names
from msem.model.rotation import (
    GEOMIN,
    ExploratoryBlock,
    Rotation,
    exploratory_blocks,
)
from msem.model.slopes import Slope, check_slopes, slopes_of, standing
from msem.model.variables import Variables

if TYPE_CHECKING:
    import pandas as pd


class Parameter(NamedTuple):
    """One row of the table.

    Attributes
    ----------
    lhs, op, rhs : str
        As in the model text; `op` is one of ``=~ ~ ~~ ~1 |``, and `rhs` is "" for ``~1`` and "t1", "t2", ... for the
        thresholds (``|``) of an ordered variable.
    level : int
        1 (within), 2 (between) or higher; a model without levels has level 1 only.
    group : int
        Counted from 1.
    free : int
        0 when not estimated, else the position in theta, counted from 1; shared parameters share it.
    value : float
        Fixed value; nan when estimated, or when it is to be taken from the sample (`exo`).
    start : float or None
        The user's starting value.
    lower, upper : float
        Box bounds; infinite when there are none.
    label : str
        The user's label, or "".
    exo : bool
        Moment of a fixed covariate, taken from the sample.
    user : bool
        Whether the row is written in the model text.
    slope : str
        The random slope of a path, a variable of level 2 whose mean is its fixed part; "" for other rows. The value
        is then 0.
    at : Position or None
        Where it is written.
    efa : str
        The exploratory block that a loading belongs to; "" for other rows.

    Its name is a matter of the table, in which no two rows have the same one; see `ParameterTable.by_name`.
    """

    lhs: str
    op: str
    rhs: str
    level: int = 1
    group: int = 1
    free: int = 0
    value: float = math.nan
    start: float | None = None
    lower: float = -math.inf
    upper: float = math.inf
    label: str = ""
    exo: bool = False
    user: bool = False
    slope: str = ""
    at: Position | None = None
    efa: str = ""

    def renumbered(self, free: int) -> Parameter:
        """The same with another position in theta."""
        return Parameter._make((*self[:5], free, *self[6:]))


class BlockRows(NamedTuple):
    """Rows of a level of a group, their places in the table, and their variables, each kind in order of the rows."""

    places: tuple[int, ...]
    rows: tuple[Parameter, ...]
    observed: tuple[str, ...]
    latent: tuple[str, ...]
    exogenous: tuple[str, ...]
    covariates: tuple[str, ...]

    def moved(self, first: int, shift: int) -> BlockRows:
        """The same from another place in a table on, with other positions in theta."""
        places = tuple(range(first, first + len(self.rows)))
        return self._replace(
            places=places, rows=tuple([r.renumbered(r.free + shift) if r.free else r for r in self.rows])
        )


NOTHING = BlockRows((), (), (), (), (), ())


def block_rows(
    rows: tuple[Parameter, ...], places: tuple[int, ...] = (), slopes: Iterable[str] = ()
) -> BlockRows:
    """Sort the variables of a block; `slopes` are the random slopes that are latent variables of it."""
    latent: dict[str, None] = dict.fromkeys(slopes)
    names: dict[str, None] = {}
    predictors: dict[str, None] = {}
    exogenous: dict[str, None] = {}
    endogenous: set[str] = set()
    for row in rows:
        names[row.lhs] = None
        if row.op in ("|", "~*~"):
            endogenous.add(row.lhs)
            continue
        if row.rhs:
            names[row.rhs] = None
        if row.op == "=~":
            latent[row.lhs] = None
            endogenous.add(row.rhs)
        elif row.op == "~":
            predictors[row.rhs] = None
            endogenous.add(row.lhs)
        elif row.user:
            endogenous.update((row.lhs, row.rhs))
        if row.exo:
            exogenous[row.lhs] = None
    return BlockRows(
        places,
        rows,
        tuple([name for name in names if name not in latent]),
        tuple(latent),
        tuple(exogenous),
        tuple([name for name in predictors if name not in latent and name not in endogenous]),
    )


@dataclass(frozen=True)
class ParameterTable:
    """All parameters of a model, within level first.

    Attributes
    ----------
    rows : tuple of Parameter
        Sorted by group and level; the user's rows first, in order of the text.
    nlevels, ngroups : int
        1 to 3 levels.
    meanstructure : bool
        Whether means and intercepts are part of the model.
    fixed_x : bool
        Whether the moments of exogenous covariates are taken from the sample.
    syntax : ModelSyntax or None
        Where the table comes from; None for derived tables.
    group_labels : tuple of str
        Labels of the groups; empty for a model of one group.
    constraints : tuple of Constraint
        Equalities and inequalities other than box bounds, which are in the rows.
    defined : tuple of Constraint
        Definitions of further parameters (``:=``).
    auxiliary : tuple of str
        Auxiliary variables, which are no part of the model; see `with_auxiliary`.
    rotation : Rotation
        Of exploratory blocks, if there are any.
    ordered : Ordered
        Ordered variables, if there are any.
    clusters : tuple of str
        Columns of clusters, that of the highest level first, where they are known.
    crossed : bool
        Whether they are crossed, and not one within the other.
    penalty : tuple of dict
        With a penalty on the between level, variances of observed variables that it is in units of, for each group;
        empty without.
    """

    rows: tuple[Parameter, ...]
    nlevels: int = 1
    ngroups: int = 1
    meanstructure: bool = True
    fixed_x: bool = True
    syntax: ModelSyntax | None = None
    group_labels: tuple[str, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    defined: tuple[Constraint, ...] = ()
    auxiliary: tuple[str, ...] = ()
    rotation: Rotation = GEOMIN
    ordered: Ordered = field(default_factory=Ordered)
    penalty: tuple[dict[str, float], ...] = ()
    clusters: tuple[str, ...] = ()
    crossed: bool = False

    @cached_property
    def npar(self) -> int:
        """Number of estimated parameters, those that share one counted once."""
        return max([row.free for row in self.rows], default=0)

    @cached_property
    def _blocks(self) -> Mapping[tuple[int, int], BlockRows]:
        places: dict[tuple[int, int], list[int]] = {}
        for i, row in enumerate(self.rows):
            places.setdefault((row.level, row.group), []).append(i)
        return {
            (level, group): block_rows(
                tuple([self.rows[i] for i in members]),
                tuple(members),
                [slope.name for slope in self.slopes(group) if level in slope.at],
            )
            for (level, group), members in places.items()
        }

    @cached_property
    def _slopes(self) -> Mapping[int, tuple[Slope, ...]]:
        """Random slopes of each group, those of level 1 first."""
        out: dict[int, tuple[Slope, ...]] = {}
        for group in sorted({row.group for row in self.rows if row.slope}):
            rows = [row for row in self.rows if row.group == group]
            named = {
                level: {name for row in rows if row.level == level for name in (row.lhs, row.rhs)}
                for level in range(1, self.nlevels + 1)
            }
            found: list[Slope] = []
            for level in range(1, self.nlevels + 1):
                own = slopes_of([row for row in rows if row.level == level], level).values()
                found += [
                    slope._replace(at=standing(named, level, slope.name, self.nlevels)) for slope in own
                ]
            out[group] = tuple(found)
        return out

    def block_rows(self, level: int, group: int) -> BlockRows:
        """Variables of one level of one group: none where the level has no rows, as in part of a model."""
        return self._blocks.get((level, group), NOTHING)

    def derived(self, blocks: Mapping[tuple[int, int], BlockRows]) -> ParameterTable:
        """A table of other rows for the same variables, without what a text or a user asks for beside them."""
        rows = tuple([row for block in blocks.values() for row in block.rows])
        out = replace(self, rows=rows, syntax=None, constraints=(), defined=(), penalty=())
        if not self._slopes:  # which are variables of other blocks
            vars(out)["_blocks"] = blocks
        return out

    def with_values(self, values: Mapping[int, float]) -> ParameterTable:
        """The same with the values of some rows, by their places in the table."""
        rows = list(self.rows)
        for i, value in values.items():
            rows[i] = rows[i]._replace(value=value)
        out = replace(self, rows=tuple(rows))
        kept = vars(self)
        if "_blocks" in kept:
            vars(out)["_blocks"] = {
                at: block._replace(rows=tuple([rows[i] for i in block.places]))
                for at, block in self._blocks.items()
            }
        # what follows from names and positions stays as it is
        vars(out).update(
            {name: kept[name] for name in ("npar", "variables", "level_names", "by_name") if name in kept}
        )
        return out

    @cached_property
    def exploratory(self) -> tuple[ExploratoryBlock, ...]:
        """Blocks of factors whose loadings are rotated."""
        return exploratory_blocks(self.rows) if any(row.efa for row in self.rows) else ()

    def block(self, level: int, group: int = 1) -> tuple[Parameter, ...]:
        """Rows of one level."""
        return self.block_rows(level, group).rows

    def block_places(self, level: int, group: int = 1) -> tuple[int, ...]:
        """Where the rows of one level stand in the table."""
        return self.block_rows(level, group).places

    def observed(self, level: int, group: int = 1) -> tuple[str, ...]:
        """Observed variables of one level, in order of the rows."""
        return self.block_rows(level, group).observed

    def latent(self, level: int, group: int = 1) -> tuple[str, ...]:
        """Latent variables of one level: the random slopes of lower levels first."""
        return self.block_rows(level, group).latent

    def thresholds(self, level: int, group: int = 1) -> tuple[tuple[str, str], ...]:
        """Ordered variable and name of each threshold of one level."""
        return tuple((row.lhs, row.rhs) for row in self.block(level, group) if row.op == "|")

    def threshold_values(self, values: Sequence[float], group: int = 1) -> dict[str, list[float]]:
        """Thresholds of each ordered variable of one group, in order of the categories, from the values of all rows."""
        found: dict[str, list[tuple[int, float]]] = {}
        for row, value in zip(self.rows, values, strict=True):
            if row.op == "|" and row.group == group:
                found.setdefault(row.lhs, []).append((int(row.rhs[1:]), value))
        return {name: [value for _, value in sorted(own)] for name, own in found.items()}

    def scale_level(self, name: str) -> int:
        """The lowest level that a variable stands at: where the variance of an ordered one is 1."""
        return next(level for level in range(1, self.nlevels + 1) if name in self.observed(level))

    def slopes(self, group: int = 1) -> tuple[Slope, ...]:
        """Random slopes of one group, those of level 1 first."""
        return self._slopes.get(group, ())

    def exogenous(self, level: int, group: int = 1) -> tuple[str, ...]:
        """Name the fixed covariates of one level: their moments are taken from the sample."""
        return self.block_rows(level, group).exogenous

    def covariates(self, level: int, group: int = 1) -> tuple[str, ...]:
        """Observed variables that only predict and are given no moments, whether fixed or random."""
        return self.block_rows(level, group).covariates

    @cached_property
    def level_names(self) -> dict[str, int]:
        """What the user calls the levels: as the headers of the text, or as the columns of clusters."""
        columns = self.clusters if len(self.clusters) == self.nlevels - 1 else ()
        named = {column: self.nlevels - k for k, column in enumerate(columns)}
        headers = {} if self.syntax is None else header_levels(self.syntax)
        return {name: level for name, level in headers.items() if not name.isdigit()} | named

    def level(self, level: object) -> int:
        """Number of a level that is given by number or by name.

        Raises
        ------
        ValueError
            If there is no such level.
        """
        return level_number(level, self.nlevels, self.level_names)

    @property
    def multilevel(self) -> bool:
        """Whether there is a level above that of the rows."""
        return self.nlevels > 1

    @cached_property
    def both(self) -> tuple[str, ...]:
        """Variables of level 1 that have a part at a higher level, too.

        They are the same in all groups, and so are those of one level only.
        """
        return self.anchored(WITHIN)

    def anchored(self, level: int) -> tuple[str, ...]:
        """Variables of a level that have a part at a higher one, which their mean belongs to."""
        above = {name for upper in range(level + 1, self.nlevels + 1) for name in self.observed(upper)}
        return tuple(name for name in self.observed(level) if name in above)

    @cached_property
    def variables(self) -> Variables:
        """Observed variables by level, those with a part at a higher level first."""
        return Variables.of_levels([self.observed(level) for level in range(1, self.nlevels + 1)])

    @cached_property
    def by_name(self) -> Names:
        """Names of all rows, and the rows that a text names."""
        return Names(self.rows)

    def names(self) -> tuple[str, ...]:
        """Name the `npar` estimated parameters, in order of theta."""
        names: dict[int, str] = {}
        for row, name in zip(self.rows, self.by_name.shown, strict=True):
            if row.free:
                names.setdefault(row.free, name)
        return tuple(names[k] for k in range(1, self.npar + 1))

    def frame(self) -> pd.DataFrame:
        """Table as a data frame with a column for each field of `Parameter` but `at`."""
        import pandas as pd

        columns = [name for name in Parameter._fields if name != "at"]
        frame = pd.DataFrame({name: [getattr(row, name) for row in self.rows] for name in columns})
        return frame.astype({"start": float})


def parameter_table(
    syntax: ModelSyntax,
    *,
    fun: Fun = "sem",
    fixed_x: bool = True,
    std_lv: bool = False,
    orthogonal: bool = False,
    meanstructure: bool | None = None,
    groups: Sequence[str] | None = None,
    group_equal: Sequence[str] = (),
    group_partial: Sequence[str] = (),
    rotation: Rotation | None = None,
    ordered: Ordered | None = None,
    clusters: Sequence[str] = (),
    crossed: bool = False,
) -> ParameterTable:
    """Complete a model with lavaan's defaults.

    Parameters
    ----------
    syntax : ModelSyntax
        A parsed model; see `parse`.
    fun : {"sem", "cfa", "growth"}
        ``sem`` and ``cfa`` are the same. ``growth`` frees latent means and fixes the intercepts of observed
        variables at 0; at two levels the means that are freed are those of the between level (and of within
        factors with an indicator that has no between part).
    fixed_x : bool
        Take the moments of exogenous covariates from the sample. A covariate of both levels that is more
        than a covariate at one of them is not fixed at either.
    std_lv : bool
        Fix the variances of latent variables at 1 and free their first loadings.
    orthogonal : bool
        Fix the covariances of exogenous latent variables at 0.
    meanstructure : bool or None
        Whether means are modelled. None: if there are two levels or several groups, an intercept in the
        text, or ``fun="growth"``.
    groups : sequence of str, optional
        Labels of the groups in the data, in the order of `group_order`. Formulas without ``group:`` headers
        are those of every group; a single label is then one parameter of all groups.
    group_equal : sequence of str
        What is equal over groups, at each level: ``loadings``, ``intercepts``, ``means``, ``regressions``,
        ``residuals``, ``residual_covariances``, ``lv_variances``, ``lv_covariances``, ``thresholds`` (dots for
        underscores are fine). Equal intercepts free the latent means of all groups but the first, at the level of these
        intercepts; with `std_lv`, equal loadings do so with latent variances.
    group_partial : sequence of str
        Exceptions to `group_equal`, such as ``f=~y2`` or ``y2~1.l2``.
    rotation : Rotation, optional
        Of exploratory blocks; default: oblique geomin.
    ordered : Ordered, optional
        Ordered variables and the numbers of their thresholds.
    clusters : sequence of str
        Columns of clusters, that of the highest level first: names of the levels above the first.
    crossed : bool
        Whether they are crossed.

    Returns
    -------
    ParameterTable
        Sorted by group, then level, within first. The within intercept of a variable at both levels is 0, even
        if the user writes ``y ~ 1`` there: its mean belongs to the between level. A value fixed by the user is
        kept.

    Raises
    ------
    ModelError
        When the text cannot be a model; the message names the variable, line and column.
    UnsupportedError
        When the model needs a feature that this version does not have.
    """
    if fun not in get_args(Fun):
        raise ModelError(f"fun is 'sem', 'cfa' or 'growth', not {fun!r}")
    refuse_unsupported(syntax)
    if not syntax.statements:
        raise ModelError("the model has no formula; one looks like 'f =~ y1 + y2 + y3'")
    kinds = equality_kinds(group_equal)
    if groups is None and (kinds or group_partial):
        raise ModelError(
            "group_equal and group_partial need groups; name the column that holds them with group="
        )
    drafts = group_drafts(syntax, groups)
    exploratory = any(said.kind == "efa" for statement in syntax.statements for said in statement.modifiers)
    nlevels = len(drafts[0])
    means = _has_means(syntax, fun, meanstructure, nlevels, kinds)
    ordered = _scaled(ordered or Ordered(), kinds, nlevels)
    means = means or (meanstructure is None and len(drafts) > 1) or bool(ordered.thresholds)
    for blocks in drafts:
        check_slopes(blocks, crossed=crossed)
        check_same_kind(blocks, syntax)
        fixed = _only_covariates(blocks) if fixed_x else set()
        if ordered.thresholds:  # the first stage splits what stands at several levels, as it does outcomes
            counts = Counter(name for block in blocks for name in block.observed)
            fixed = {name for name in fixed if counts[name] < 2}
        rotate = bool(rotation and rotation.orthogonal)
        for number, block in enumerate(blocks, 1):
            if exploratory:
                set_exploratory(block)
            own = {*block.observed, *block.slopes}
            above = {name for upper in blocks[number:] for name in (*upper.observed, *upper.slopes)} & own
            below = {name for lower in blocks[: number - 1] for name in lower.observed} & set(block.observed)
            add_defaults(
                block, Defaults(fun, std_lv, orthogonal, means, above, fixed, ordered, rotate, nlevels, below)
            )
    for blocks in drafts if exploratory else ():
        check_exploratory(blocks)
    equal = equate_groups(
        drafts, kinds, group_partial, std_lv=std_lv, delta=ordered.parameterization == "delta"
    )
    rows = [row for blocks in drafts for block in blocks for row in block.rows.values()]
    bounds, constraints, defined = sort_constraints(syntax, {row.label for row in rows if row.label})
    numbered = _number(rows, share(rows, syntax, equal, bounds))
    table = ParameterTable(
        numbered,
        nlevels,
        len(drafts),
        means,
        fixed_x,
        syntax,
        tuple(groups or ()),
        constraints,
        defined,
        rotation=rotation or GEOMIN,
        ordered=ordered,
        clusters=tuple(clusters),
        crossed=crossed,
    )
    if exploratory:
        check_unshared(numbered, constraints, defined, syntax)
    _check_labels(table, syntax)
    return table


def _check_labels(table: ParameterTable, syntax: ModelSyntax) -> None:
    """Refuse a label or a definition that is called as another parameter is."""
    if not table.defined and not any(row.label for row in table.rows):
        return
    rows = dict(zip(table.by_name.own, table.rows, strict=True))
    for row in table.rows:
        if row.label in rows and rows[row.label].label != row.label:
            message = f"the label '{row.label}' is the name of another parameter; choose another label"
            raise ModelError(syntax.locate(row.at or Position(1, 1), message))
    for constraint in table.defined:
        if isinstance(constraint.lhs, Name) and constraint.lhs.name in rows:
            message = f"'{constraint.lhs.name}' is the name of a parameter; choose another name"
            raise ModelError(syntax.locate(constraint.lhs.at, message))


def _scaled(ordered: Ordered, kinds: Sequence[str], nlevels: int) -> Ordered:
    """Ordered variables with their parameterization: "delta" at one level, "theta" at two, unless asked for."""
    chosen = ordered.parameterization or ("theta" if nlevels > 1 else "delta")
    if {"thresholds", "residuals"} <= set(kinds) and chosen == "delta" and ordered.thresholds:
        raise ModelError(
            'group_equal="residuals" beside "thresholds" is for parameterization="theta", whose residual variances are '
            "parameters"
        )
    return replace(ordered, parameterization=chosen)


def _has_means(syntax: ModelSyntax, fun: Fun, asked: bool | None, nlevels: int, kinds: Sequence[str]) -> bool:
    intercept = next((s for s in syntax.statements if s.op == "~1"), None)
    needed = next(
        (f"group_equal={kind!r} needs means" for kind in kinds if kind in ("intercepts", "means")), ""
    )
    if nlevels > 1:
        needed = f"a {NUMBERS[nlevels]}-level model always has means"
    elif fun == "growth":
        needed = "a growth model needs means"
    elif intercept is not None:
        needed = syntax.locate(intercept.at, "this intercept needs means")
    if needed and asked is False:
        raise ModelError(f"meanstructure=False: {needed}")
    return bool(needed) if asked is None else asked


def _only_covariates(blocks: list[BlockDraft]) -> set[str]:
    """Covariates that are nothing but covariates wherever they occur.

    At two levels a variable is the sum of a within and a between part. If one part is modelled, the moments
    of the other are no longer those of the sample, so they are estimated.
    """
    names = {name for block in blocks for name in block.covariates}
    return {n for n in names if all(n in b.covariates for b in blocks if n in b.observed)}


def fixed_covariates(table: ParameterTable, variables: Variables, group: int = 1) -> tuple[list[str], ...]:
    """Fixed covariates at one level only, which the likelihood is conditional on: measured on units, on clusters.

    With more levels on the clusters of each of them; those of a single level count as measured on clusters.
    """
    exogenous = [table.exogenous(level, group) for level in range(1, table.nlevels + 1)]
    if not table.multilevel:
        return [], [name for name in variables.cluster if name in exogenous[0]]
    pairs = zip(variables.alone, exogenous, strict=True)
    return tuple([name for name in names if name in fixed] for names, fixed in pairs)


def _number(drafts: list[Draft], first: list[int]) -> tuple[Parameter, ...]:
    """Close the rows and give the estimated ones their position in theta."""
    positions: dict[int, int] = {}
    rows = []
    for row, root in zip(drafts, first, strict=True):
        free = positions.setdefault(root, len(positions) + 1) if row.free else 0
        rows.append(
            Parameter(
                row.lhs,
                row.op,
                row.rhs,
                row.level,
                row.group,
                free,
                row.value,
                row.start,
                row.lower,
                row.upper,
                row.label,
                row.exo,
                row.user,
                row.slope,
                row.at,
                row.efa,
            )
        )
    return tuple(rows)


def require_two_levels(table: ParameterTable, what: str) -> None:
    """Refuse what knows of one level or two only; named in the plural.

    Raises
    ------
    UnsupportedError
    """
    require_nested(table, what)
    if table.nlevels > BETWEEN:
        words = number_of_levels(table.nlevels)
        raise UnsupportedError(f"{what} are not available for models of {words} in this version")


def require_nested(table: ParameterTable, what: str) -> None:
    """Refuse what does not know of crossed classifications; named in the plural.

    Raises
    ------
    UnsupportedError
    """
    if table.crossed:
        raise UnsupportedError(f"{what} are not available for crossed classifications in this version")


def require_no_slopes(table: ParameterTable, what: str) -> None:
    """Refuse what does not know of random slopes; named in the plural.

    Raises
    ------
    UnsupportedError
        Naming the slopes.
    """
    names = dict.fromkeys(row.slope for row in table.rows if row.slope)
    if names:
        raise UnsupportedError(
            f"{what} are not available for models with random slopes in this version; this one has "
            f"{', '.join(names)}"
        )


def require_no_rotation(table: ParameterTable, what: str) -> None:
    """Refuse what would take rotated estimates for those of a model without rotation; named in the plural.

    Raises
    ------
    UnsupportedError
        Naming the blocks.
    """
    labels = dict.fromkeys(block.label for block in table.exploratory)
    if labels:
        raise UnsupportedError(
            f"{what} are not available for models with exploratory blocks in this version; this one has "
            f'{", ".join(map(repr, labels))}. Take estimator="MLR" for robust standard errors'
        )


def find_parameter(
    table: ParameterTable, name: str, *, level: int | None = None, group: int | None = None
) -> int:
    """Position in theta of the parameter that a text names.

    Parameters
    ----------
    table : ParameterTable
    name : str
        A name of `ParameterTable.names`, as it is written there (``fb=~y2.l2``), a label, or a formula: ``fb =~ y2``,
        ``y1 ~~ y2``, ``y1 ~ 1``.
    level, group : int, optional
        Which of several parameters with the same formula is meant.

    Returns
    -------
    int
        Counted from 0.

    Raises
    ------
    ModelError
        If there is no such parameter, it is not estimated, or several are meant.
    """
    names = table.names()
    found = [table.rows[i] for i in table.by_name.find(name, level=level, group=group)]
    free = sorted({row.free for row in found if row.free})
    if len(free) == 1:
        return free[0] - 1
    if free:
        several = ", ".join(names[k - 1] for k in free)
        raise ModelError(f"'{name}' may be any of {several}: use one of these names, without blanks")
    if found:
        raise ModelError(f"parameter '{name}' is not estimated: it is fixed at {found[0].value:g}")
    near = difflib.get_close_matches(name.strip(), names, n=3) or names[:8]
    raise ModelError(f"the model has no parameter '{name}'; there are {', '.join(near)}, for example")


def parameter_places(table: ParameterTable) -> list[tuple[int, int]]:
    """Level and group of each parameter of theta; 0 for one that several levels, or groups, share."""
    levels: list[set[int]] = [set() for _ in range(table.npar)]
    groups: list[set[int]] = [set() for _ in range(table.npar)]
    for row in table.rows:
        if row.free:
            levels[row.free - 1].add(row.level)
            groups[row.free - 1].add(row.group)
    return [(only(level), only(group)) for level, group in zip(levels, groups, strict=True)]


def only(values: set[int]) -> int:
    """The only element of a set, or 0."""
    return next(iter(values)) if len(values) == 1 else 0
