"""The model language: text to statements, each with its line and column, and back.

The language is that of lavaan (Rosseel, 2012, Journal of Statistical Software 48(2)). Everything it knows
is read here; what this version does not estimate is refused, by name, when the parameter table is built.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal, NamedTuple, NoReturn, get_args

from msem.errors import ModelSyntaxError
from msem.language.characters import is_plain, outside_quotes, quote
from msem.language.dialects import hint
from msem.language.expressions import (
    Binary,
    Call,
    Expression,
    Name,
    Number,
    Position,
    Text,
    check_depth,
    evaluate,
    format_expression,
    format_number,
    is_constant,
    start_of,
    walk,
)
from msem.language.grammar import Formula, Header, read_lines

__all__ = [
    "Block",
    "Constraint",
    "Expression",
    "Hypothesis",
    "ModelSyntax",
    "Modifier",
    "ModifierKind",
    "Position",
    "Statement",
    "format_syntax",
    "parse",
    "read_hypothesis",
    "with_constraints",
]

ModifierKind = Literal["fixed", "free", "label", "start", "equal", "lower", "upper", "rv", "efa"]
_KINDS: Final = frozenset(get_args(ModifierKind))
_NUMERIC: Final = frozenset({"fixed", "start", "lower", "upper"})
_BOUNDS: Final = frozenset({"lower", "upper"})


@dataclass(frozen=True, slots=True)
class Modifier:
    """What is said about one parameter.

    `values` has one entry, or one per group when written ``c(...)``: numbers for ``fixed``, ``start``,
    ``lower`` and ``upper``, texts otherwise. ``NA`` inside ``c()`` is None, and so is the entry of ``free``.
    """

    kind: ModifierKind
    values: tuple[float | str | None, ...]
    at: Position = field(compare=False)


@dataclass(frozen=True, slots=True)
class Term:
    """A variable and its modifiers; `variable` is "" for the intercept ``1`` and for ``=~ 0``, no indicator."""

    variable: str
    modifiers: tuple[Modifier, ...]
    at: Position


def fail(message: str, at: Position) -> NoReturn:
    """Raise a `ModelSyntaxError` at a place of the text."""
    raise ModelSyntaxError(message, at.line, at.column)


def split_sum(node: Expression, op: str) -> list[Expression]:
    """Terms of one side of a formula, left to right."""
    terms = []
    while isinstance(node, Binary) and node.op in "+-":
        if node.op == "-":
            hint = "; a name that has a '-' stands in quotes"
            fail(f"terms on a side of '{op}' are joined by '+', not '-'{hint}", node.at)
        terms.append(node.right)
        node = node.left
    terms.append(node)
    return terms[::-1]


def read_term(node: Expression, op: str) -> Term:
    """Read one term of the right-hand side of a formula with the given operator.

    Raises
    ------
    ModelSyntaxError
        When the term does not end in a variable, or a modifier cannot be read.
    """
    if isinstance(node, Name):  # by far the most frequent term
        return Term(_variable(node), (), node.at)
    check_depth(node)
    last, pieces = _split_product(node)
    if isinstance(last, Name | Text):
        return Term(_variable(last), read_modifiers(pieces), start_of(node))
    if isinstance(last, Number) and op == "~":
        if last.value == 1:
            return Term("", read_modifiers(pieces), start_of(node))
        if last.value == 0 and not pieces:  # as in R: no intercept
            return Term("", (Modifier("fixed", (0.0,), last.at),), last.at)
        fail(
            f"an intercept is written '1', fixed at {format_number(last.value)}: "
            f"'{format_number(last.value)}*1'",
            last.at,
        )
    if isinstance(last, Number):
        if op == "=~" and last.value == 0 and not pieces:
            return Term("", (), last.at)
        hint = "; 'f =~ 0' declares a latent variable without indicators" if op == "=~" else ""
        fail(f"a variable is expected on the right of '{op}', not a number{hint}", last.at)
    fail(f"'{format_expression(last)}' stands where a variable is expected", start_of(last))


def _variable(node: Name | Text) -> str:
    if isinstance(node, Text):
        if not node.value.strip():
            fail("a variable name is empty", node.at)
        return node.value
    if node.name == "NA":
        fail("NA frees a parameter and needs a variable after it, as in 'NA*y1'", node.at)
    return node.name


def _split_product(node: Expression) -> tuple[Expression, list[tuple[Expression, str]]]:
    """Last factor of a product, and the factors before it, each with the sign that follows it."""
    factors: list[tuple[Expression, str]] = []
    following = ""
    while isinstance(node, Binary) and node.op in "*?":
        factors.append((node.right, following))
        following = node.op
        node = node.left
    factors.append((node, following))
    return factors[0][0], factors[:0:-1]


def read_modifiers(pieces: Iterable[tuple[Expression, str]]) -> tuple[Modifier, ...]:
    """Read modifiers; neighbouring numbers multiply, as in ``2*3*y``. ``efa()`` goes first."""
    modifiers: list[Modifier] = []
    constant = False
    for node, sign in pieces:
        was_constant, constant = constant, is_constant(node) and sign == "*"
        modifier = _start(node) if sign == "?" else _modifier(node)
        if constant and was_constant:
            before = modifiers.pop()
            product = _finite(float(before.values[0] or 0) * evaluate(node), before.at)
            modifier = Modifier("fixed", (product,), before.at)
        modifiers.append(modifier)
    return tuple(sorted(modifiers, key=lambda m: m.kind != "efa"))


def _start(node: Expression) -> Modifier:
    if not is_constant(node):
        fail("a number is expected before '?', as in '0.8?x' (a starting value)", start_of(node))
    return Modifier("start", (_finite(evaluate(node), start_of(node)),), start_of(node))


def _finite(value: float, at: Position) -> float:
    if not math.isfinite(value):
        fail("the value is not a finite number", at)
    return value


def _modifier(node: Expression) -> Modifier:
    if isinstance(node, Name):
        return Modifier("free", (None,), node.at) if node.name == "NA" else _labels("label", (node,), node.at)
    if isinstance(node, Text):
        return _labels("label", (node,), node.at)
    if is_constant(node):
        at = start_of(node)
        return Modifier("fixed", (_finite(evaluate(node), at),), at)
    if isinstance(node, Call) and node.function == "c":
        return _vector(node)
    if isinstance(node, Call) and node.function in _KINDS - {"fixed", "free"}:
        return _called(node)
    if isinstance(node, Call):
        fail(
            f"unknown modifier '{node.function}()'; there are start(), equal(), label(), lower(), upper(), "
            "rv(), efa() and c()",
            node.at,
        )
    fail(f"'{format_expression(node)}' is neither a number nor a label", start_of(node))


def _called(node: Call) -> Modifier:
    kind: ModifierKind = node.function  # type: ignore[assignment]
    arguments = node.arguments
    if len(arguments) == 1 and isinstance(arguments[0], Call) and arguments[0].function == "c":
        arguments = arguments[0].arguments
    if not arguments:
        fail(f"{kind}() needs a value, as in {kind}({'0' if kind in _NUMERIC else quote('a')})", node.at)
    if kind in _NUMERIC:
        return _numbers(kind, arguments, node.at)
    return _labels(kind, arguments, node.at, empty=kind in ("label", "equal"))


def _vector(node: Call) -> Modifier:
    """``c(...)``: numbers and NA, or labels and NA; NA alone frees."""
    given = [a for a in node.arguments if not _is_na(a)]
    if not node.arguments:
        fail("c() needs one value for each group", node.at)
    if not given:
        return Modifier("free", (None,) * len(node.arguments), node.at)
    if isinstance(given[0], Name | Text):
        return _labels("label", node.arguments, node.at, empty=len(node.arguments) > 1)
    return _numbers("fixed", node.arguments, node.at)


def _is_na(node: Expression) -> bool:
    return isinstance(node, Name) and node.name == "NA"


def _numbers(kind: ModifierKind, arguments: tuple[Expression, ...], at: Position) -> Modifier:
    values: list[float | None] = []
    for node in arguments:
        if _is_na(node):
            values.append(None)
            continue
        bare_infinity = isinstance(node, Name) and node.name == "Inf"
        if not (is_constant(node) or bare_infinity):
            fail(f"'{format_expression(node)}' is not a number", start_of(node))
        value = evaluate(node)
        values.append(value if kind in _BOUNDS else _finite(value, start_of(node)))
    return Modifier(kind, tuple(values), at)


def _labels(
    kind: ModifierKind, arguments: tuple[Expression, ...], at: Position, *, empty: bool = False
) -> Modifier:
    """Texts; ``NA``, and where that is allowed ``""``, say nothing of the group in whose place they stand."""
    values: list[str | None] = []
    for node in arguments:
        if _is_na(node) or (empty and isinstance(node, Text) and not node.value):
            values.append(None)
        elif isinstance(node, Name):
            values.append(node.name.strip())
        elif isinstance(node, Text) and node.value.strip():
            values.append(node.value.strip())
        else:
            fail(
                f"{format_expression(node)} is not a {'label' if kind == 'label' else 'name'}", start_of(node)
            )
    return Modifier(kind, tuple(values), at)


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
        raise ModelSyntaxError(
            f"a model is a text, not {type(text).__name__}: the model comes first, then the data"
        )
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
        foreign = hint(outside_quotes(source))
        message += f"; {foreign}" if foreign else ""
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


class Hypothesis(NamedTuple):
    """A function of parameters, the text it was read from, and how many columns its places are ahead of it."""

    text: str
    function: Expression
    ahead: int


def read_hypothesis(text: str) -> Hypothesis:
    """Read ``a - b``, or ``a == b`` as the difference of its sides.

    Raises
    ------
    ModelSyntaxError
        When the text is no such expression; the message names the column.
    """
    if not isinstance(text, str):
        raise ModelSyntaxError(f"an expression of parameters is a text, not {type(text).__name__}")
    lead = "" if "==" in outside_quotes(text) else "0 == "
    try:
        lines = read_lines(lead + text)
        formula = lines[0] if len(lines) == 1 else None
        if not isinstance(formula, Formula) or formula.op != "==":
            raise ModelSyntaxError(
                "one expression such as 'a - b', or one equation such as 'a == b', is expected", 1, 1
            )
        _check(formula.lhs)
        _check(formula.rhs)
    except ModelSyntaxError as error:
        message = str(error).split(": ", 1)[1] if error.line else str(error)
        raise ModelSyntaxError(message, error.line, max(error.column - len(lead), 1), text) from None
    function = Binary("-", formula.lhs, formula.rhs, formula.at) if not lead else formula.rhs
    return Hypothesis(text, function, len(lead))


def _check(node: Expression) -> None:
    check_depth(node)
    for part, _ in walk(node):
        if isinstance(part, Text):
            message = "labels are written without quotes, and parameters in backticks, as in `fw=~y2`"
            raise ModelSyntaxError(message, part.at.line, part.at.column)


def with_constraints(model: str, constraints: str | Sequence[str] | None) -> ModelSyntax:
    """Read a model text together with constraints that are given beside it.

    Parameters
    ----------
    model : str
    constraints : str or sequence of str, optional
        Definitions (``:=``), equalities and inequalities, separated by line ends or semicolons.

    Raises
    ------
    ModelSyntaxError
        When a text cannot be read, or the constraints hold a formula of the model.
    """
    if not constraints:
        return parse(model)
    if isinstance(constraints, list | tuple) and all(isinstance(one, str) for one in constraints):
        constraints = "\n".join(constraints)
    if not isinstance(constraints, str):
        raise ModelSyntaxError(
            f"constraints= takes a text, or texts such as ['a == b', 'a > 0'], not {constraints!r}"
        )
    constraints = constraints.removeprefix("\ufeff")
    alone = parse(constraints)
    if alone.statements or alone.blocks:
        at = alone.statements[0].at if alone.statements else alone.blocks[0].at
        raise ModelSyntaxError(
            "constraints= takes ':=', '==', '<' and '>' only; formulas belong to the model",
            at.line,
            at.column,
            constraints.split("\n")[at.line - 1],
        )
    return parse(f"{model}\n{constraints}")
