"""Reading of model text by the grammar in ``grammar.lark``: text to raw lines, or an error in plain words."""

from __future__ import annotations

import difflib
import functools
import math
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from msem.errors import ModelSyntaxError
from msem.language.characters import combining_marks, quote
from msem.language.expressions import Binary, Call, Expression, Name, Number, Position, Text, Unary

if TYPE_CHECKING:
    from lark import Lark, Token
    from lark.exceptions import UnexpectedCharacters, UnexpectedToken


@dataclass(frozen=True, slots=True)
class Header:
    """A line such as ``level: 1``; the keyword is in lower case, the value as written."""

    keyword: str
    value: str
    at: Position


@dataclass(frozen=True, slots=True)
class Formula:
    """Two sides joined by an operator; `at` is the place of the operator."""

    lhs: Expression
    op: str
    rhs: Expression
    at: Position


Line = Header | Formula


def read_lines(text: str) -> list[Line]:
    """Read model text into headers and formulas.

    Parameters
    ----------
    text : str
        Model text whose lines end in line feeds only.

    Returns
    -------
    list of Header or Formula
        In order of the text.

    Raises
    ------
    ModelSyntaxError
        When the text does not follow the grammar. `source` is left for the caller to fill.
    """
    from lark.exceptions import UnexpectedCharacters, UnexpectedToken

    try:
        lines: list[Line] = _parser(text.isascii()).parse(text)  # type: ignore[assignment]
    except UnexpectedToken as error:
        raise _token_error(error) from None
    except UnexpectedCharacters as error:
        raise _character_error(error, text) from None
    return lines


@functools.cache
def _parser(ascii_only: bool) -> Lark:
    # lark is imported and the tables are built (some 20 ms) with the first model, not with the package. A text in ASCII
    # does not wait for the table of combining marks.
    from lark import Lark

    grammar = resources.files("msem.language").joinpath("grammar.lark").read_text(encoding="utf-8")
    grammar = grammar.replace("MARKS]", f"{'' if ascii_only else combining_marks()}]")
    return Lark(grammar, parser="lalr", lexer="contextual", transformer=_Actions(), maybe_placeholders=False)


def _at(token: Token) -> Position:
    return Position(token.line or 1, token.column or 1)


class _Actions:
    """What the parser builds from each rule of the grammar."""

    @staticmethod
    def start(lines: list[Line]) -> list[Line]:
        return lines

    @staticmethod
    def header(parts: list[Token]) -> Header:
        keyword, _, value = parts[0].partition(":")
        value = value.strip()
        value = value[1:-1] if value[:1] in ("'", '"') else value
        return Header(keyword.strip().lower(), value, _at(parts[0]))

    @staticmethod
    def formula(parts: list[Any]) -> Formula:
        lhs, op, rhs = parts
        return Formula(lhs, str(op), rhs, _at(op))

    @staticmethod
    def binary(parts: list[Any]) -> Binary:
        left, op, right = parts
        return Binary("^" if op == "**" else str(op), left, right, _at(op))

    @staticmethod
    def unary(parts: list[Any]) -> Unary:
        return Unary(parts[1], _at(parts[0]))

    @staticmethod
    def number(parts: list[Token]) -> Number:
        value, at = float(parts[0]), _at(parts[0])
        if math.isinf(value):
            raise ModelSyntaxError(f"{parts[0]} is not a finite number", at.line, at.column)
        return Number(value, at)

    @staticmethod
    def name(parts: list[Token]) -> Name:
        name = str(parts[0])
        # "x1 : x2" and "x1:x2" are the same interaction.
        return Name("".join(name.split()) if ":" in name else name, _at(parts[0]))

    @staticmethod
    def ticked(parts: list[Token]) -> Name:
        name, at = parts[0][1:-1].replace("``", "`"), _at(parts[0])
        if not name.strip():
            raise ModelSyntaxError("the name between these backticks is empty", at.line, at.column)
        return Name(name, at)

    @staticmethod
    def text(parts: list[Token]) -> Text:
        return Text(str(parts[0][1:-1]), _at(parts[0]))

    @staticmethod
    def call(parts: list[Any]) -> Call:
        return Call(str(parts[0]), tuple(parts[1:]), _at(parts[0]))


OPERATORS: Final = "an operator such as =~, ~ or ~~"
_HEADERS: Final = ("level", "group", "block")
_HEADER_WORD: Final = re.compile(rf"({'|'.join(_HEADERS)})\Z", re.IGNORECASE)
_EQUALS: Final = "write =~ for 'is measured by', ~ for a regression, == for equality, < or > for a bound"
_CHARACTER_HINTS: Final[tuple[tuple[Callable[[str], object], str], ...]] = (
    (re.compile(r"[\"'`]").match, "this quote is not closed on its line"),
    (
        re.compile(r"=").match,
        f"'=' is not an operator here; {_EQUALS}",
    ),
    (
        re.compile(r":").match,
        "unexpected ':'; a header such as 'level: 1' stands on a line of its own, after a complete formula, "
        "and a defined parameter is written 'name := ...'",
    ),
)


def _character_error(error: UnexpectedCharacters, text: str) -> ModelSyntaxError:
    rest = text[error.pos_in_stream :]
    word = re.split(r"[\n;]", text[: error.pos_in_stream])[-1].strip()
    if rest[0] == ":" and (near := difflib.get_close_matches(word.lower(), _HEADERS, n=1, cutoff=0.7)):
        hint = f"unexpected ':' after {word!r}: did you mean the header '{near[0]}:'?"
        return ModelSyntaxError(hint, error.line, error.column)
    for matches, hint in _CHARACTER_HINTS:
        if matches(rest):
            return ModelSyntaxError(hint, error.line, error.column)
    name = unicodedata.name(rest[0], f"U+{ord(rest[0]):04X}")
    if not rest[0].isprintable():
        message = f"there is an invisible character here ({name}), perhaps from another program: delete it"
        return ModelSyntaxError(message, error.line, error.column)
    other = "" if rest[0].isascii() else f" ({name})"
    return ModelSyntaxError(
        f"unexpected character {rest[0]!r}{other}; a name that has it is written in quotes or backticks",
        error.line,
        error.column,
    )


def _token_error(error: UnexpectedToken) -> ModelSyntaxError:
    state = error.interactive_parser
    previous = state.parser_state.value_stack[-1] if state.parser_state.value_stack else None
    token = error.token
    at_end = token.type == "$END"
    found = (
        "the text ends" if at_end else "the line ends" if token.type == "_SEP" else f"found {str(token)!r}"
    )
    if token.type == "_SEP" and token.startswith(";"):
        found = "found ';'"
    line, column = (token.end_line, token.end_column) if at_end else (token.line, token.column)
    message = f"{found}{_expectation(error.accepts, previous)}{_one_name(previous, token)}"
    return ModelSyntaxError(message, line or 1, column or 1)


def _one_name(previous: Any, token: Token) -> str:
    """Remind of quotes where two words stand side by side."""
    if getattr(previous, "type", "") != "NAME" or token.type not in ("NAME", "NUMBER"):
        return ""
    if previous.line != token.line or _HEADER_WORD.match(previous):
        return ""
    return f"; a name of several words stands in quotes: {quote(f'{previous} {token}')}"


def _expectation(accepts: set[str], previous: object) -> str:
    """Say what the grammar would have taken after `previous`."""
    if "NAME" in accepts and "OP" not in accepts:
        after = f" after '{previous}'" if isinstance(previous, str) else " at the start of a formula"
        return f" where a variable, number or modifier is expected{after}"
    if "RPAR" in accepts:
        return "; a parenthesis is still open"
    if "OP" in accepts:
        word = previous.name if isinstance(previous, Name) else previous if isinstance(previous, str) else ""
        if _HEADER_WORD.match(word):
            return f"; a header is written '{word}: 1', with a colon"
        return f" where {OPERATORS} is expected{f' after {str(word)!r}' if word else ''}"
    return " where '+' or the end of the formula is expected"
