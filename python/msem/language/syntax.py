"""The model language: text to statements, each with its line and column, and back.

The language is that of lavaan (Rosseel, 2012, Journal of Statistical Software 48(2)). Everything it knows
is read here; what this version does not estimate is refused, by name, when the parameter table is built.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from msem.errors import ModelSyntaxError
from msem.language.characters import is_plain, quote
from msem.language.expressions import (
    Expression,
    Name,
    Position,
    Text,
    check_depth,
    format_expression,
    format_number,
    walk,
)
from msem.language.grammar import Formula, Header, read_lines
from msem.language.terms import Modifier, ModifierKind, Term, fail, read_term, split_sum

__all__ = [
    "Block",
    "Constraint",
    "Expression",
    "ModelSyntax",
    "Modifier",
    "ModifierKind",
    "Position",
    "Statement",
    "format_syntax",
    "parse",
]

StatementOp = Literal["=~", "~", "~~", "~1", "<~", "|", "~*~"]
ConstraintOp = Literal[":=", "==", "<", ">"]
_CONSTRAINTS: Final = frozenset({":=", "==", "<", ">"})


@dataclass(frozen=True, slots=True)
class Statement:
    """One left-hand and one right-hand side of a formula.

    `rhs` is "" for an intercept (`op` "~1"), and for a latent variable without indicators (``f =~ 0``).
    `block` is an index into `ModelSyntax.blocks`; `at` is the place of the right-hand term.
    """

    lhs: str
    op: StatementOp
    rhs: str
    modifiers: tuple[Modifier, ...]
    block: int
    at: Position = field(compare=False)


@dataclass(frozen=True, slots=True)
class Constraint:
    """A definition (``:=``), an equality or an inequality between expressions of labels."""

    lhs: Expression
    op: ConstraintOp
    rhs: Expression
    at: Position = field(compare=False)
    text: str = field(compare=False)


@dataclass(frozen=True, slots=True)
class Block:
    """Formulas under one header; names as written ("1", "within", "school"), None when not given."""

    group: str | None
    level: str | None
    at: Position = field(compare=False)
    block: str | None = None


@dataclass(frozen=True, slots=True)
class ModelSyntax:
    """Everything a model text says. Two are equal if they say the same, wherever in the text they say it."""

    blocks: tuple[Block, ...]
    statements: tuple[Statement, ...]
    constraints: tuple[Constraint, ...]
    text: str = field(compare=False, repr=False)

    def __str__(self) -> str:
        return format_syntax(self)

    def locate(self, at: Position, message: str) -> str:
        """Put line and column before a message, and the line of the text below it."""
        source = self.text.split("\n")[at.line - 1]
        return f"line {at.line}, column {at.column}: {message}\n    {source}\n    {' ' * (at.column - 1)}^"


def parse(text: str) -> ModelSyntax:
    """Read a model text.

    Parameters
    ----------
    text : str
        Model in lavaan's language.

    Returns
    -------
    ModelSyntax
        Blocks, statements and constraints in order of the text.

    Raises
    ------
    ModelSyntaxError
        When the text cannot be read; the message names line and column and quotes the line.

    Examples
    --------
    >>> parse("f =~ y1 + a*y2").statements[1].modifiers[0].values
    ('a',)
    """
    if not isinstance(text, str):
        raise ModelSyntaxError(f"a model is a text, not {type(text).__name__}")
    # Editors of Windows put a byte order mark before the text.
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    try:
        reader = _Reader()
        for line in read_lines(text):
            reader.header(line) if isinstance(line, Header) else reader.formula(line)
        return reader.finish(text)
    except ModelSyntaxError as error:
        source = text.split("\n")[error.line - 1] if error.line else ""
        message = str(error).split(": ", 1)[1] if error.line else str(error)
        raise ModelSyntaxError(message, error.line, error.column, source) from None


class _Reader:
    """Collects blocks, statements and constraints from the lines of one text."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.statements: dict[tuple[int, int, str, str, str], Statement] = {}
        self.more: dict[tuple[int, int, str, str, str], dict[Modifier, None]] = {}  # of repeated terms
        self.constraints: list[Constraint] = []
        self.group: str | None = None
        self.waiting: Block | None = None  # a `group:` header that no `level:` header has followed yet
        self.formulas = 0

    def finish(self, text: str) -> ModelSyntax:
        self.open_waiting()
        if not (self.blocks or self.constraints):
            raise ModelSyntaxError("the model is empty; a formula looks like 'f =~ y1 + y2 + y3'", 1, 1)
        for key, modifiers in self.more.items():
            self.statements[key] = replace(self.statements[key], modifiers=_efa_first(tuple(modifiers)))
        return ModelSyntax(tuple(self.blocks), tuple(self.statements.values()), tuple(self.constraints), text)

    def open_waiting(self) -> None:
        if self.waiting is not None:
            self.blocks.append(self.waiting)
            self.waiting = None

    def header(self, line: Header) -> None:
        if not line.value:
            fail(f"a name or number is expected after '{line.keyword}:'", line.at)
        if line.keyword == "level":
            self.waiting = None
            self.blocks.append(Block(self.group, line.value, line.at))
            return
        self.open_waiting()
        if line.keyword == "group":
            self.group = line.value
            self.waiting = Block(line.value, None, line.at)
        else:
            self.group = None
            self.blocks.append(Block(None, None, line.at, line.value))

    def formula(self, line: Formula) -> None:
        if line.op in _CONSTRAINTS:
            self.constraints.append(_constraint(line))
            return
        self.open_waiting()
        if not self.blocks:
            self.blocks.append(Block(None, None, Position(1, 1)))
        self.formulas += 1
        targets = [_target(node, line.op) for node in split_sum(line.lhs, line.op)]
        terms = [read_term(node, line.op) for node in split_sum(line.rhs, line.op)]
        for term in terms if line.op == "=~" and len(terms) > 1 else ():
            if not term.variable:
                fail(
                    "'0' declares a latent variable without indicators and stands alone, as in 'f =~ 0'",
                    term.at,
                )
        for target in targets:
            for term in terms:
                self.add(target, line.op, term)

    def add(self, target: Term, op: str, term: Term) -> None:
        """Add a statement, or more modifiers to the one the same formula has already."""
        op = op if term.variable or op == "=~" else "~1"
        block = len(self.blocks) - 1
        modifiers = target.modifiers + term.modifiers
        key = (self.formulas, block, target.variable, op, term.variable)
        before = self.statements.get(key)
        if before is not None:
            if not (before.modifiers or modifiers):
                fail(f"'{term.variable or 1}' occurs twice in this formula", term.at)
            self.more.setdefault(key, dict.fromkeys(before.modifiers)).update(dict.fromkeys(modifiers))
            return
        self.statements[key] = Statement(
            target.variable,
            op,  # type: ignore[arg-type]
            term.variable,
            _efa_first(modifiers),
            block,
            term.at,
        )


def _efa_first(modifiers: tuple[Modifier, ...]) -> tuple[Modifier, ...]:
    return tuple(sorted(modifiers, key=lambda m: m.kind != "efa")) if len(modifiers) > 1 else modifiers


def _target(node: Expression, op: str) -> Term:
    """Left-hand side of a formula: a variable, possibly with ``efa()``."""
    target = read_term(node, op)
    if not target.variable:
        fail(f"a variable is expected on the left of '{op}'", target.at)
    for modifier in target.modifiers:
        if modifier.kind != "efa":
            fail(f"modifiers such as '{modifier.kind}' belong to the right of '{op}'", modifier.at)
    return target


def _constraint(line: Formula) -> Constraint:
    for side in (line.lhs, line.rhs):
        check_depth(side)
        for part, _ in walk(side):
            if isinstance(part, Text):
                fail("labels are written without quotes in a constraint", part.at)
            if getattr(part, "op", "") == "?":
                fail("'?' has no meaning in a constraint", part.at)
    if line.op == ":=" and not isinstance(line.lhs, Name):
        fail("the name of a defined parameter is expected on the left of ':='", line.at)
    text = f"{format_expression(line.lhs)} {line.op} {format_expression(line.rhs)}"
    return Constraint(line.lhs, line.op, line.rhs, line.at, text)  # type: ignore[arg-type]


def format_syntax(syntax: ModelSyntax) -> str:
    """Model text with one parameter a line; reading it gives an equal `ModelSyntax`."""
    lines = []
    group = None
    starts: dict[int, list[str]] = {}
    for statement in syntax.statements:
        starts.setdefault(statement.block, []).append(_format_statement(statement))
    for index, block in enumerate(syntax.blocks):
        if block.block is not None:
            lines.append(f"block: {_format_header(block.block)}")
        if block.group is not None and (block.group != group or block.level is None):
            lines.append(f"group: {_format_header(block.group)}")
        if block.level is not None:
            lines.append(f"level: {_format_header(block.level)}")
        group = block.group
        lines.extend(starts.get(index, []))
    lines.extend(constraint.text for constraint in syntax.constraints)
    return "\n".join(lines) + "\n"


def _format_header(value: str) -> str:
    return value if re.fullmatch(r"[^\s;#!\"']+", value) else quote(value)


def _format_statement(statement: Statement) -> str:
    loose = []
    previous = ""
    for modifier in statement.modifiers:
        # a number that follows a number would be read as their product
        loose.append(_format_modifier(modifier, vector=modifier.kind == previous == "fixed"))
        previous = modifier.kind
    blocks = sum(m.kind == "efa" for m in statement.modifiers)  # these stand first, on the left-hand side
    op = "~" if statement.op == "~1" else statement.op
    last = _format_name(statement.rhs) if statement.rhs else "0" if op == "=~" else "1"
    return f"{''.join(loose[:blocks])}{_format_name(statement.lhs)} {op} {''.join(loose[blocks:])}{last}"


def _format_name(name: str) -> str:
    return name if is_plain(name) else quote(name)


def _format_modifier(modifier: Modifier, *, vector: bool) -> str:
    values = ", ".join(
        "NA" if value is None else format_number(value) if isinstance(value, float) else quote(value)
        for value in modifier.values
    )
    if vector or len(modifier.values) > 1:
        values = f"c({values})"
    elif modifier.kind == "label" and modifier.values[0] is None:
        return "label(NA)*"
    elif modifier.kind == "label":
        values = _format_name(str(modifier.values[0]))
    return f"{values}*" if modifier.kind in ("fixed", "free", "label") else f"{modifier.kind}({values})*"
