"""Rows of the parameter table while they are written: what the user says about each parameter."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from msem.errors import ModelError
from msem.language.syntax import ModelSyntax, Modifier, ModifierKind, Position, Statement
from msem.model.references import Key, key_of

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
        Left- and right-hand sides of ``=~``, of ``~``, and both sides of ``~~`` and ``~1``, in order of
        appearance (the values are not used).
    observed : dict
        Observed variables: indicators, then outcomes, then predictors, then the others.
    covariates : dict
        Exogenous observed variables: they predict, and the user gives them no variance, covariance or mean.
    """

    def __init__(
        self, level: int, statements: Iterable[Statement], syntax: ModelSyntax, group: int = 1
    ) -> None:
        self.level = level
        self.group = group
        self.syntax = syntax
        self.rows: dict[Key, Draft] = {}
        self.latent: dict[str, None] = {}
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
            if rhs:
                self.mentioned[rhs] = None

    def _write(self, statement: Statement) -> None:
        lhs, op, rhs = statement.lhs, statement.op, statement.rhs
        if lhs == rhs and op != "~~":
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
