"""Which block of a model text is which level, what is a constraint, and what this version refuses to estimate."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final, Literal

from msem.errors import ModelError, UnsupportedError
from msem.language.expressions import Expression, Name, evaluate, is_constant, names_in
from msem.language.syntax import Block, Constraint, ModelSyntax, Position, Statement

WITHIN: Final = 1
BETWEEN: Final = 2
Level = Literal[1, 2, "within", "between"]
LEVEL_NAMES: Final = {WITHIN: "within", BETWEEN: "between"}
LEVEL_HEADERS: Final = {text: level for level, name in LEVEL_NAMES.items() for text in (name, str(level))}

_OPERATORS: Final = {
    "<~": "composites (<~) are not available in this version; use a latent variable (=~) or compute the "
    "composite as a column of the data",
    "|": "thresholds (|) of ordered variables are not available in this version; all variables are "
    "continuous",
    "~*~": "scaling factors (~*~) of ordered variables are not available in this version; all variables are "
    "continuous",
}
_MODIFIERS: Final = {
    "rv": "random slopes, rv(), are not available in this version",
    "efa": "exploratory blocks, efa(), are not available in this version; fix enough loadings for a "
    "confirmatory model",
}


def level_number(level: object, nlevels: int = 2) -> int:
    """Number of a level that is named 1, 2, "within" or "between".

    Parameters
    ----------
    level : object
    nlevels : int
        Levels of the model.

    Raises
    ------
    ValueError
        If it is anything else.
    ModelError
        If the model has one level and it is the other.
    """
    for number, name in LEVEL_NAMES.items():
        if level is not True and level in (number, name):
            if number > nlevels:
                raise ModelError(f"the model has one level: there is nothing at level {level!r}")
            return number
    raise ValueError(f"level must be 1 or 'within', 2 or 'between', not {level!r}")


def refuse_unsupported(syntax: ModelSyntax) -> None:
    """Refuse, by name and place, what the language has and this version does not estimate.

    Parameters
    ----------
    syntax : ModelSyntax
        Model to look through.

    Raises
    ------
    UnsupportedError
        At the first feature that is not available; the message gives the remedy.
    """
    for block in syntax.blocks:
        _refuse_block(syntax, block)
    latent = {s.lhs for s in syntax.statements if s.op == "=~"}
    for statement in syntax.statements:
        _refuse_statement(syntax, statement, latent)


def _refuse_block(syntax: ModelSyntax, block: Block) -> None:
    if block.block is None:
        return
    for keyword in ("level", "group"):
        if any(getattr(other, keyword) is not None for other in syntax.blocks):
            message = (
                f"'block:' cannot stand beside '{keyword}:'; write 'level: 1' and 'level: 2' for the levels"
            )
            raise UnsupportedError(syntax.locate(block.at, message))


def _level(block: Block) -> str | None:
    """Name of the level that a header gives: without groups, blocks are levels."""
    return block.block if block.level is None else block.level


def _header(block: Block) -> str:
    """The header as it is written."""
    return f"level: {block.level}" if block.block is None else f"block: {block.block}"


def _refuse_statement(syntax: ModelSyntax, statement: Statement, latent: set[str]) -> None:
    if statement.op in _OPERATORS:
        raise UnsupportedError(syntax.locate(statement.at, _OPERATORS[statement.op]))
    for modifier in statement.modifiers:
        if modifier.kind in _MODIFIERS:
            raise UnsupportedError(syntax.locate(modifier.at, _MODIFIERS[modifier.kind]))
    for name in (statement.lhs, statement.rhs):
        if ":" in name:
            _refuse_interaction(syntax, statement.at, name, latent)


def _refuse_interaction(syntax: ModelSyntax, at: Position, name: str, latent: set[str]) -> None:
    parts = name.split(":")
    among = [part for part in parts if part in latent]
    if among:
        message = f"interactions of latent variables ('{name}'; '{among[0]}' is latent) are not available"
    else:
        column = "_".join(parts)
        message = (
            f"the interaction '{name}' is not computed from the data; add the product as a column, "
            f"such as {column} = {' * '.join(parts)}, and write '{column}' in the model"
        )
    raise UnsupportedError(syntax.locate(at, message))


Bound = tuple[str, float, float]
"""Label, lower and upper bound."""


def simple_bound(constraint: Constraint) -> Bound | None:
    """Label, lower and upper bound if the constraint is a box bound of one parameter, else None."""
    if constraint.op not in ("<", ">"):
        return None
    label = _label(constraint.lhs) or _label(constraint.rhs)
    other = constraint.rhs if _label(constraint.lhs) else constraint.lhs
    if label is None or not _is_number(other):
        return None
    value = evaluate(other)
    is_lower = (constraint.op == ">") == (other is constraint.rhs)
    return (label, value, float("inf")) if is_lower else (label, float("-inf"), value)


def _label(node: Expression) -> str | None:
    return node.name if isinstance(node, Name) and node.name not in ("Inf", "NA") else None


def _is_number(node: Expression) -> bool:
    return is_constant(node) or (isinstance(node, Name) and node.name == "Inf")


def level_blocks(syntax: ModelSyntax, members: Iterable[int] | None = None) -> dict[int, int]:
    """Say which level each block of the text describes.

    Parameters
    ----------
    syntax : ModelSyntax
        A parsed model.
    members : iterable of int, optional
        The blocks of one group; all blocks if not given.

    ``within``, ``between``, 1 and 2 mean what they say, in any order and any case; other names are taken
    in order of appearance for the levels that are left. ``block:`` is another word for ``level:``.

    Returns
    -------
    dict
        Block index to level: 1 (within) or 2 (between). A model without levels has level 1 only.

    Raises
    ------
    ModelError
        When there is one level only, a level is given twice or is empty, or formulas stand before the
        first header.
    UnsupportedError
        When there are more than two levels.
    """
    blocks = {i: syntax.blocks[i] for i in (range(len(syntax.blocks)) if members is None else members)}
    if all(_level(block) is None for block in blocks.values()):
        return dict.fromkeys(blocks, WITHIN)
    for index, block in blocks.items():
        if _level(block) is None:
            at = next(s.at for s in syntax.statements if s.block == index)
            keyword = next(_header(b) for b in blocks.values() if _level(b) is not None).partition(" ")[0]
            message = f"this formula stands before the first '{keyword}' header; put it under a level"
            raise ModelError(syntax.locate(at, message))
    levels = _assign_levels(syntax, blocks)
    _check_filled(syntax, blocks, levels)
    return levels


def _assign_levels(syntax: ModelSyntax, blocks: Mapping[int, Block]) -> dict[int, int]:
    names = {index: (_level(block) or "").casefold() for index, block in blocks.items()}
    for index, name in names.items():
        block = blocks[index]
        if name not in LEVEL_HEADERS and name.lstrip("-").isdigit():
            message = (
                f"level {_level(block)}: there are levels 1 (within) and 2 (between); three-level models are "
                "not available in this version"
            )
            raise UnsupportedError(syntax.locate(block.at, message))
    taken: dict[str, int] = {name: LEVEL_HEADERS[name] for name in names.values() if name in LEVEL_HEADERS}
    left = [level for level in (WITHIN, BETWEEN) if level not in taken.values()]
    for index, name in names.items():
        if name in taken:
            continue
        if not left:
            block = blocks[index]
            message = (
                f"'{_header(block)}' is a third level; three-level models are not available in this version"
            )
            raise UnsupportedError(syntax.locate(block.at, message))
        taken[name] = left.pop(0)
    return {index: taken[name] for index, name in names.items()}


def _check_filled(syntax: ModelSyntax, blocks: Mapping[int, Block], levels: dict[int, int]) -> None:
    first: dict[int, Block] = {}
    filled = {statement.block for statement in syntax.statements}
    for index, block in blocks.items():
        before = first.setdefault(levels[index], block)
        if before is not block:
            message = (
                f"'{_header(block)}' is given a second time; it was given first on line "
                f"{before.at.line} ('{_header(before)}'); put the formulas of a level under one header"
            )
            raise ModelError(syntax.locate(block.at, message))
        if index not in filled:
            message = (
                f"'{_header(block)}' has no formula; a level without structure is written with variances "
                "and covariances, such as 'y1 ~~ y1 + y2'"
            )
            raise ModelError(syntax.locate(block.at, message))
    if len(first) == 1:
        (block,) = first.values()
        other = f"{_header(block).partition(' ')[0]} {BETWEEN if WITHIN in first else WITHIN}"
        message = f"the model has one level only ('{_header(block)}'); add the formulas of '{other}'"
        raise ModelError(syntax.locate(block.at, message))


def sort_constraints(
    syntax: ModelSyntax, labels: Collection[str]
) -> tuple[tuple[Bound, ...], tuple[Constraint, ...], tuple[Constraint, ...]]:
    """Tell box bounds of parameters, other constraints and definitions (``:=``) apart.

    Parameters
    ----------
    syntax : ModelSyntax
    labels : collection of str
        Labels of the parameters.

    Returns
    -------
    bounds : tuple of (label, lower, upper)
    constraints, defined : tuple of Constraint
        In order of the text.

    Raises
    ------
    ModelError
        When a name is defined twice or is a label, or a bound is on no parameter; with line and column.
    """
    defined: dict[str, Constraint] = {}
    for constraint in syntax.constraints:
        if constraint.op == ":=" and isinstance(constraint.lhs, Name):
            name = constraint.lhs.name
            if name in defined or name in labels:
                what = "defined a second time" if name in defined else "the label of a parameter already"
                raise ModelError(syntax.locate(constraint.lhs.at, f"'{name}' is {what}; choose another name"))
            defined[name] = constraint
    bounds: list[Bound] = []
    others: list[Constraint] = []
    for constraint in syntax.constraints:
        bound = simple_bound(constraint)
        if bound is not None and bound[0] not in defined and (bound[0] in labels or "~" not in bound[0]):
            _check_label(syntax, constraint, bound[0], labels)
            bounds.append(bound)
        elif constraint.op != ":=":
            others.append(constraint)
    return tuple(bounds), tuple(others), tuple(defined.values())


def _check_label(syntax: ModelSyntax, constraint: Constraint, label: str, labels: Collection[str]) -> None:
    if label not in labels:
        known = ", ".join(sorted(labels)) or "none"
        message = f"no parameter is labelled '{label}'; labels of this model: {known}"
        name = next(n for side in (constraint.lhs, constraint.rhs) for n in names_in(side))
        raise ModelError(syntax.locate(name.at, message))
