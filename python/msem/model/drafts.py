"""Rows of the parameter table while they are written: what the user says, and defaults for what is left out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations, pairwise
from typing import Literal

from msem.errors import ModelError
from msem.language.syntax import ModelSyntax, Modifier, ModifierKind, Position, Statement
from msem.model.levels import WITHIN
from msem.model.references import Key, key_of
from msem.model.rotation import exploratory_blocks
from msem.settings import Parameterization

LARGEST = 1e100  # of numbers that the user gives: squares of larger ones overflow


@dataclass(slots=True)
class Draft:
    """A row that is still open: a user's row or a default."""

    lhs: str
    op: str
    rhs: str
    level: int
    group: int = 1
    user: bool = False
    at: Position | None = None
    value: float = math.nan  # nan: free, or to be taken from the sample
    exo: bool = False
    label: str = ""
    start: float | None = None
    lower: float = -math.inf
    upper: float = math.inf
    slope: str = ""
    efa: str = ""  # the exploratory block of a loading
    said: dict[ModifierKind, Modifier] = field(default_factory=dict)
    same: Draft | None = None  # the parameter that equal() names

    @property
    def free(self) -> bool:
        """Whether the parameter is estimated."""
        return math.isnan(self.value) and not self.exo

    def __str__(self) -> str:
        return f"{self.lhs} ~ 1" if self.op == "~1" else f"{self.lhs} {self.op} {self.rhs}"

    @property
    def key(self) -> Key:
        """Key of the parameter within its level."""
        return key_of(self.lhs, self.op, self.rhs)


class BlockDraft:
    """Rows of one level and the variables that they mention.

    Attributes
    ----------
    rows : dict
        Key to row, in order of the table.
    latent, indicators, outcomes, predictors, mentioned : dict
        Left- and right-hand sides of ``=~``, of ``~``, both sides of ``~~`` and the left one of ``~1`` and ``|``, in
        order of appearance (the values are not used).
    observed : dict
        Observed variables: indicators, then outcomes, then predictors, then the others.
    covariates : dict
        Exogenous observed variables: they predict, and the user gives them no variance, covariance or mean.
    slopes : dict
        Random slopes of lower levels that are latent variables of this one.
    """

    def __init__(
        self,
        level: int,
        statements: Iterable[Statement],
        syntax: ModelSyntax,
        group: int = 1,
        slopes: Iterable[str] = (),
    ) -> None:
        self.level = level
        self.group = group
        self.syntax = syntax
        self.rows: dict[Key, Draft] = {}
        self.slopes = dict.fromkeys(slopes)
        self.latent: dict[str, None] = dict(self.slopes)
        self.indicators: dict[str, None] = {}
        self.outcomes: dict[str, None] = {}
        self.predictors: dict[str, None] = {}
        self.mentioned: dict[str, None] = {}
        without = []
        for statement in statements:
            self._mention(statement)
            if statement.op == "=~" and not statement.rhs:
                without.append(statement)
            else:
                self._write(statement)
        for statement in without:
            self._declare(statement)
        self._check_latent()
        names = {**self.indicators, **self.outcomes, **self.predictors, **self.mentioned}
        self.observed = {name: None for name in names if name not in self.latent}
        endogenous = self.indicators.keys() | self.outcomes.keys() | self.mentioned.keys()
        self.covariates = {n: None for n in self.predictors if n in self.observed and n not in endogenous}

    def _mention(self, statement: Statement) -> None:
        lhs, rhs = statement.lhs, statement.rhs
        if statement.op == "=~":
            self.latent[lhs] = None
            if rhs:
                self.indicators[rhs] = None
        elif statement.op == "~":
            self.outcomes[lhs] = None
            self.predictors[rhs] = None
        else:
            self.mentioned[lhs] = None
            if rhs and statement.op != "|":
                self.mentioned[rhs] = None

    def _write(self, statement: Statement) -> None:
        lhs, op, rhs = statement.lhs, statement.op, statement.rhs
        if op == "~*~" and lhs != rhs:
            message = f"a scaling factor is of one variable, as in '{lhs} ~*~ {lhs}'"
            raise ModelError(self.syntax.locate(statement.at, message))
        if lhs == rhs and op not in ("~~", "~*~"):
            does = "measured by" if op == "=~" else "regressed on"
            raise ModelError(self.syntax.locate(statement.at, f"'{lhs}' is {does} itself"))
        key = key_of(lhs, op, rhs)
        row = self.rows.get(key)
        if row is None:
            row = self.rows[key] = Draft(lhs, op, rhs, self.level, self.group, user=True, at=statement.at)
        if statement.modifiers:
            for modifier in statement.modifiers:
                self._say(row, modifier)

    def _declare(self, statement: Statement) -> None:
        """Give a latent variable without indicators (``f =~ 0``) one whose loading is 0.

        That is the same model, and every latent variable has a row of ``=~``.
        """
        factor = statement.lhs
        if any(row.op == "=~" and row.lhs == factor for row in self.rows.values()):
            return
        names = {**self.indicators, **self.outcomes}
        indicator = next((name for name in names if name not in self.latent), None)
        if indicator is None:
            message = (
                f"'{factor} =~ 0' needs an observed variable that depends on others at its level; write '{factor} =~ "
                "0*y1' with one of them"
            )
            raise ModelError(self.syntax.locate(statement.at, message))
        none = Modifier("fixed", (0.0,), statement.at)
        self._write(replace(statement, rhs=indicator, modifiers=(none,)))

    def _say(self, row: Draft, modifier: Modifier) -> None:
        """Add what one modifier says, unless it contradicts what has been said."""
        opposite: ModifierKind | None = {"fixed": "free", "free": "fixed"}.get(modifier.kind)  # type: ignore[assignment]
        for kind in (modifier.kind, opposite):
            before = row.said.get(kind) if kind else None
            if before is not None and (kind == opposite or before.values != modifier.values):
                message = (
                    f"'{row}' is given twice, differently: first on line {before.at.line}, column "
                    f"{before.at.column}; keep one of the two"
                )
                raise ModelError(self.syntax.locate(modifier.at, message))
        row.said[modifier.kind] = modifier
        value = modifier.values[0]
        if isinstance(value, float) and LARGEST < abs(value) < math.inf:
            message = f"{value:g} is too large to compute with (the most is {LARGEST:g}): use other units"
            raise ModelError(self.syntax.locate(modifier.at, message))
        if modifier.kind == "fixed" and isinstance(value, float):
            row.value = value
        elif modifier.kind == "rv" and isinstance(value, str):
            row.slope, row.value = value, 0.0
        elif modifier.kind == "label" and isinstance(value, str):
            row.label = value
        elif modifier.kind == "start" and isinstance(value, float):
            row.start = value
        elif modifier.kind == "lower" and isinstance(value, float):
            row.lower = value
        elif modifier.kind == "upper" and isinstance(value, float):
            row.upper = value

    def _check_latent(self) -> None:
        """Refuse a factor without observed indicators, and a path that is written twice."""
        children: dict[str, list[str]] = {}
        for row in list(self.rows.values()):
            if row.op != "=~":
                continue
            children.setdefault(row.lhs, []).append(row.rhs)
            again = self.rows.get((row.rhs, "~", row.lhs))
            if again is not None and again.at is not None:
                message = f"'{again}' is the same path as '{row}' on line {row.at.line if row.at else 0}"
                raise ModelError(self.syntax.locate(again.at, message))
        measured: set[str] = set()
        grows = True
        while grows:  # a factor of factors is measured once its own factors are
            found = {
                factor
                for factor, parts in children.items()
                if any(part not in children or part in measured for part in parts)
            }
            grows = found > measured
            measured = found
        for factor in children:
            if factor not in measured:
                row = next(r for r in self.rows.values() if r.op == "=~" and r.lhs == factor)
                message = (
                    f"the latent variable '{factor}' has no observed indicator, not even through its factors"
                )
                raise ModelError(self.syntax.locate(row.at or Position(1, 1), message))


Fun = Literal["sem", "cfa", "growth"]


@dataclass(frozen=True, slots=True)
class Ordered:
    """Which variables are ordered, and what is 1 about the continuous ones that they are cut from.

    Attributes
    ----------
    thresholds : mapping of str to int
        How many each ordered variable has: its categories less one.
    parameterization : {"delta", "theta", ""}
        Their variances given the covariates ("delta"), or their residual variances; "" before the number of levels is
        known.
    residual : float
        What the residual variances are under "theta".
    """

    thresholds: Mapping[str, int] = field(default_factory=dict)
    parameterization: Parameterization | Literal[""] = ""
    residual: float = 1.0

    @property
    def logistic(self) -> bool:
        """Whether residuals are logistic."""
        return self.residual != 1.0


@dataclass(frozen=True, slots=True)
class Defaults:
    """What decides about the rows that the user leaves out.

    Attributes
    ----------
    fun : {"sem", "cfa", "growth"}
        ``growth`` frees the means of the latent variables and fixes the intercepts of the observed ones.
    std_lv, orthogonal, meanstructure : bool
        As in `parameter_table`.
    both : collection of str
        Variables of the level, random slopes among them, that have a part at a higher one; their intercept is 0, since
        their mean belongs there.
    nlevels : int
        Of the model.
    fixed : collection of str
        Covariates whose moments are taken from the sample.
    rotated_orthogonal : bool
        Whether factors of an exploratory block stay uncorrelated.
    ordered : Ordered
    below : collection of str
        Variables of the level that have a part at a lower one.
    """

    fun: Fun
    std_lv: bool
    orthogonal: bool
    meanstructure: bool
    both: Collection[str]
    fixed: Collection[str]
    ordered: Ordered
    rotated_orthogonal: bool = False
    nlevels: int = 2
    below: Collection[str] = ()

    def scaled(self, name: str) -> bool:
        """Whether this level has the scale of an ordered variable: the lowest one that it stands at."""
        return name in self.ordered.thresholds and name not in self.below


def add_defaults(block: BlockDraft, options: Defaults) -> None:
    """Complete the rows of one level, in lavaan's order."""
    if options.std_lv:
        _fix_written_variances(block)
    else:
        _fix_first_loadings(block)
    _add_variances(block, options)
    _add_covariances(block, options)
    _add_covariates(block, options)
    _check_thresholds(block, options.ordered)
    if options.meanstructure:
        _anchor_within_intercepts(block, options)
        _add_means(block, options)
        _add_thresholds(block, options)


def _check_thresholds(block: BlockDraft, ordered: Ordered) -> None:
    """Refuse thresholds of variables that have none, or more than they have."""
    for row in block.rows.values():
        if row.op != "|":
            continue
        count = ordered.thresholds.get(row.lhs, 0)
        known = [f"t{k}" for k in range(1, count + 1)]
        if row.rhs in known:
            continue
        message = (
            f"'{row.lhs}' is not ordered and has no thresholds: name it in ordered=[...]"
            if not count
            else f"'{row.lhs}' has {count + 1} categories, and thresholds {', '.join(known)}; there is no '{row.rhs}'"
        )
        raise ModelError(block.syntax.locate(row.at or Position(1, 1), message))
    _check_order(block, ordered)
    _check_scales(block, ordered)


def _check_order(block: BlockDraft, ordered: Ordered) -> None:
    """Refuse thresholds that are fixed in another order than that of the categories."""
    for name, count in ordered.thresholds.items():
        rows = [block.rows.get(key_of(name, "|", f"t{k}")) for k in range(1, count + 1)]
        fixed = [row for row in rows if row is not None and not math.isnan(row.value)]
        for lower, upper in pairwise(fixed):
            if not lower.value < upper.value:
                message = (
                    f"the threshold {upper.rhs} of '{name}' is fixed at {upper.value:g} and {lower.rhs} at "
                    f"{lower.value:g}: thresholds increase with the categories"
                )
                raise ModelError(block.syntax.locate(upper.at or Position(1, 1), message))


def _check_scales(block: BlockDraft, ordered: Ordered) -> None:
    """Refuse what does not go with variances of 1."""
    for row in block.rows.values():
        if row.op != "~*~":
            continue
        problem = ""
        if row.lhs not in ordered.thresholds:
            problem = f"'{row.lhs}' is not ordered and has no scaling factor: name it in ordered=[...]"
        elif ordered.parameterization == "theta":
            problem = (
                f"'{row.lhs}' has a scaling factor under parameterization=\"delta\" only, by least squares at one "
                f"level; write its residual variance in place of it, '{row.lhs} ~~ NA*{row.lhs}' for one that is free"
            )
        elif not row.free and not row.value > 0:
            problem = (
                f"the scaling factor of '{row.lhs}' is 1 over a standard deviation: it has to be above 0"
            )
        if problem:
            raise ModelError(block.syntax.locate(row.at or Position(1, 1), problem))
    if ordered.parameterization == "theta":
        return
    for row in block.rows.values():
        for name in ordered.thresholds:
            if row.op == "~~" and row.lhs == row.rhs == name and row.user:
                message = (
                    f"the residual variance of '{name}' is what its variance of 1 leaves; to fix or estimate it use "
                    'parameterization="theta"'
                )
                raise ModelError(block.syntax.locate(row.at or Position(1, 1), message))
            if row.op == "~" and row.rhs == name:
                message = (
                    f"'{name}' is ordered and predicts '{row.lhs}', whose covariances then depend on its residual "
                    'variance: use parameterization="theta"'
                )
                raise ModelError(block.syntax.locate(row.at or Position(1, 1), message))


def _add_thresholds(block: BlockDraft, options: Defaults) -> None:
    """Thresholds belong to the between level where there is one."""
    for name in block.observed:
        if block.level == WITHIN and name in options.both:
            continue
        for k in range(1, options.ordered.thresholds.get(name, 0) + 1):
            _add(block, name, "|", f"t{k}")


def _add(block: BlockDraft, lhs: str, op: str, rhs: str, value: float = math.nan, exo: bool = False) -> None:
    key = key_of(lhs, op, rhs)
    if key not in block.rows:
        block.rows[key] = Draft(lhs, op, rhs, block.level, block.group, value=value, exo=exo)


def _fix_first_loadings(block: BlockDraft) -> None:
    """Give each latent variable the scale of its first indicator."""
    seen: set[str] = set()
    for row in block.rows.values():
        if row.op == "=~" and row.lhs not in seen and not row.efa:
            seen.add(row.lhs)
            if "free" not in row.said and "fixed" not in row.said:
                row.value = 1.0


def _fix_written_variances(block: BlockDraft) -> None:
    """Give latent variables whose variance is written without a value unit variance; NA frees it."""
    for name in block.latent:
        row = None if name in block.slopes else block.rows.get((name, "~~", name))
        if row is not None and "free" not in row.said and "fixed" not in row.said:
            row.value = 1.0


def _single_indicators(block: BlockDraft) -> set[str]:
    """Find indicators that are the only one of their factor and of no other; they have no residual."""
    loadings = [row for row in block.rows.values() if row.op == "=~"]
    per_factor = Counter(row.lhs for row in loadings)
    per_indicator = Counter(row.rhs for row in loadings)
    return {row.rhs for row in loadings if per_factor[row.lhs] == per_indicator[row.rhs] == 1}


def _add_variances(block: BlockDraft, options: Defaults) -> None:
    single = _single_indicators(block)
    for name in block.observed:
        if options.scaled(name):
            _add(block, name, "~~", name, options.ordered.residual)
            own = block.rows[name, "~~", name]
            if own.free and "free" not in own.said and not own.label:
                own.value = options.ordered.residual
        elif name not in block.covariates:
            _add(block, name, "~~", name, 0.0 if name in single else math.nan)
    rotated = {row.lhs for row in block.rows.values() if row.efa}
    for name in block.latent:
        scaled = (options.std_lv or name in rotated) and name not in block.slopes
        default = 1.0 if name in rotated else 0.0 if name in single else 1.0 if scaled else math.nan
        _add(block, name, "~~", name, default)
        if name in rotated:
            block.rows[key_of(name, "~~", name)].value = 1.0


def _add_covariances(block: BlockDraft, options: Defaults) -> None:
    """Let exogenous factors covary, and the residuals of variables that predict nothing."""
    rotated = any(row.efa for row in block.rows.values())
    for one in exploratory_blocks(block.rows.values()) if rotated else ():
        for lhs, rhs in combinations(one.factors, 2):
            _add(block, lhs, "~~", rhs, 0.0 if options.rotated_orthogonal else math.nan)
            if options.rotated_orthogonal:
                block.rows[key_of(lhs, "~~", rhs)].value = 0.0
    latent_pair = 0.0 if options.orthogonal else math.nan
    exogenous = [n for n in block.latent if n not in block.outcomes and n not in block.indicators]
    for lhs, rhs in combinations(exogenous, 2):
        _add(block, lhs, "~~", rhs, latent_pair)
    last = {n for n in block.outcomes if n not in block.predictors and n not in block.indicators}
    for lhs, rhs in combinations(_in_order(last, block), 2):
        _add(block, lhs, "~~", rhs, latent_pair if rhs in block.latent else math.nan)


def _in_order(names: Collection[str], block: BlockDraft) -> list[str]:
    """Sort latent variables first, each kind in the order of its block."""
    return [n for kind in (block.latent, block.observed) for n in kind if n in names]


def _add_covariates(block: BlockDraft, options: Defaults) -> None:
    names = list(block.covariates)
    for i, lhs in enumerate(names):
        for rhs in names[i:]:
            _add(block, lhs, "~~", rhs, exo=lhs in options.fixed and rhs in options.fixed)


def _anchor_within_intercepts(block: BlockDraft, options: Defaults) -> None:
    """Keep at 0 the intercepts that the user writes down for variables with a part at a higher level.

    Their mean is a parameter of the highest level; only a value fixed by the user is kept.
    """
    for name in options.both:
        row = block.rows.get((name, "~1", ""))
        if row is None or not row.free:
            continue
        if row.label or "equal" in row.said:
            message = (
                f"'{name}' is at both levels, so its within intercept is 0 and cannot be labelled; "
                "its mean is the intercept at the between level"
            )
            if options.nlevels > 2:
                message = (
                    f"'{name}' has a part at a higher level, so its intercept at level {block.level} is 0 and cannot "
                    "be labelled; its mean is the intercept at the highest level that names it"
                )
            raise ModelError(block.syntax.locate(row.at or Position(1, 1), message))
        row.value, row.start, row.lower, row.upper = 0.0, None, -math.inf, math.inf


def _add_means(block: BlockDraft, options: Defaults) -> None:
    growth = options.fun == "growth"
    for name in (*(n for n in block.observed if n not in block.covariates), *block.covariates):
        anchored = name in options.both
        exo = name in options.fixed
        # A covariate's mean is data, not part of the growth curve.
        at_zero = anchored or name in options.ordered.thresholds or (growth and name not in block.covariates)
        _add(block, name, "~1", "", 0.0 if at_zero else math.nan, exo)
    for name in block.latent:
        slope = name in block.slopes and name not in options.both
        free = slope or (growth and name not in block.slopes and _has_mean(block, name, options))
        _add(block, name, "~1", "", math.nan if free else 0.0)


def _has_mean(block: BlockDraft, factor: str, options: Defaults) -> bool:
    """Whether growth frees the mean of a factor: not if all its indicators have a within mean of 0."""
    if not options.both:
        return True
    indicators = (row.rhs for row in block.rows.values() if row.op == "=~" and row.lhs == factor)
    return any(name in block.observed and name not in options.both for name in indicators)


def check_same_kind(blocks: Iterable[BlockDraft], syntax: ModelSyntax) -> None:
    """Refuse a name that is latent at one level and observed at the other.

    Raises
    ------
    ModelError
        Naming the variable, both levels and the place.
    """
    blocks = list(blocks)
    for block in blocks:
        for other in blocks:
            for name in other.observed:
                if name in block.latent:
                    row = next(r for r in other.rows.values() if name in (r.lhs, r.rhs))
                    message = (
                        f"'{name}' is a latent variable at level {block.level} and has no indicators at "
                        f"level {other.level}; give it indicators there, or use another name"
                    )
                    raise ModelError(syntax.locate(row.at or Position(1, 1), message))
