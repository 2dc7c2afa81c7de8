"""Blocks of a model text: which are a level or a group of the model, and what this version refuses to estimate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from msem.errors import ModelError, UnsupportedError
from msem.language.syntax import Block, ModelSyntax, Modifier, Position, Statement
from msem.model.drafts import BlockDraft
from msem.model.levels import BETWEEN, DEEPEST, LEVEL_HEADERS, LEVEL_NAMES, NUMBERS, WITHIN
from msem.model.slopes import slope_names, standing

_OPERATORS: Final = {
    "<~": "composites (<~) are not available in this version; use a latent variable (=~) or compute the "
    "composite as a column of the data",
}


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


def level_blocks(syntax: ModelSyntax, members: Iterable[int] | None = None) -> dict[int, int]:
    """Say which level each block of the text describes.

    Parameters
    ----------
    syntax : ModelSyntax
        A parsed model.
    members : iterable of int, optional
        The blocks of one group; all blocks if not given.

    Numbers, ``within`` and, of two levels, ``between`` mean what they say, in any order and any case; other names are
    taken in order of appearance for the levels that are left. ``block:`` is another word for ``level:``.

    Returns
    -------
    dict
        Block index to level: 1 (within), 2 (between) or 3. A model without levels has level 1 only.

    Raises
    ------
    ModelError
        When there is one level only, a level is given twice or is empty, or formulas stand before the
        first header.
    UnsupportedError
        When there are more than nine levels.
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


def header_levels(syntax: ModelSyntax) -> dict[str, int]:
    """Levels by what headers say, numbers too, in the letters of the user."""
    out: dict[str, int] = {}
    for group in dict.fromkeys(block.group for block in syntax.blocks):
        members = [
            k
            for k, block in enumerate(syntax.blocks)
            if block.group == group and (_level(block) is not None or group is None)
        ]
        filled = {statement.block for statement in syntax.statements}
        for index, level in level_blocks(syntax, [k for k in members if k in filled]).items():
            out.setdefault(_level(syntax.blocks[index]) or "", level)
    out.pop("", None)
    return out


def _assign_levels(syntax: ModelSyntax, blocks: Mapping[int, Block]) -> dict[int, int]:
    names = {index: (_level(block) or "").casefold() for index, block in blocks.items()}
    known = _known_headers(syntax, blocks, names)
    taken: dict[str, int] = {name: known[name] for name in names.values() if name in known}
    left = [level for level in sorted(set(known.values())) if level not in taken.values()]
    for index, name in names.items():
        if name in taken:
            continue
        if not left:
            block = blocks[index]
            message = f"'{_header(block)}': models have up to {NUMBERS[DEEPEST]} levels"
            raise UnsupportedError(syntax.locate(block.at, message))
        taken[name] = left.pop(0)
    return {index: taken[name] for index, name in names.items()}


def _known_headers(
    syntax: ModelSyntax, blocks: Mapping[int, Block], names: Mapping[int, str]
) -> dict[str, int]:
    """Headers that say which level they are of, in a model of as many levels as it has headers."""
    nlevels = min(max(len(set(names.values())), BETWEEN), DEEPEST)
    known = dict(LEVEL_HEADERS) | {str(level): level for level in range(1, nlevels + 1)}
    for index, name in names.items():
        block = blocks[index]
        if name.lstrip("-").isdigit() and name not in known:
            number = int(name)
            if 1 <= number <= DEEPEST:
                absent = next(k for k in range(BETWEEN, number) if str(k) not in names.values())
                message = (
                    f"{_header(block)}, and the model has no 'level: {absent}': levels are numbered from 1, that of "
                    "the units"
                )
                raise ModelError(syntax.locate(block.at, message))
            message = (
                f"level {_level(block)}: levels are numbered from 1, that of the units, and models have up to "
                f"{NUMBERS[DEEPEST]}"
            )
            raise UnsupportedError(syntax.locate(block.at, message))
        if nlevels > BETWEEN and name == LEVEL_NAMES[BETWEEN]:
            message = (
                f"'{_header(block)}': of {NUMBERS[nlevels]} levels {NUMBERS[nlevels - 1]} are between; write "
                "'level: 2' for the lowest of them, and so on upwards"
            )
            raise ModelError(syntax.locate(block.at, message))
    return known


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


def has_group_blocks(syntax: ModelSyntax) -> bool:
    """Whether the text has ``group:`` headers."""
    return any(block.group is not None for block in syntax.blocks)


def group_order(syntax: ModelSyntax, labels: Sequence[str]) -> tuple[str, ...]:
    """Order of the groups: that of the ``group:`` headers, or as given if the text has none.

    Parameters
    ----------
    syntax : ModelSyntax
        A parsed model.
    labels : sequence of str
        Labels of the groups in the data.

    Returns
    -------
    tuple of str
        The same labels.

    Raises
    ------
    ModelError
        When a header names no group of the data, or a group of the data has no header.
    """
    if not has_group_blocks(syntax):
        return tuple(labels)
    return tuple(_members(syntax, labels))


def group_drafts(syntax: ModelSyntax, groups: Sequence[str] | None) -> list[list[BlockDraft]]:
    """Rows that the user writes, for each group and each of its levels, within first.

    Parameters
    ----------
    syntax : ModelSyntax
        A parsed model: one text for all groups, or ``group:`` blocks with levels inside them.
    groups : sequence of str or None
        Labels of the groups; None for a model of one group.

    Returns
    -------
    list of list of BlockDraft
        Group by group, in the order of `groups`.

    Raises
    ------
    ModelError
        When headers and groups do not match, or ``c()`` does not have one value for each group.
    UnsupportedError
        When the variables of a level differ between groups.
    """
    if groups is None:
        _refuse_headers(syntax)
    if groups is None or not has_group_blocks(syntax):
        everything = range(len(syntax.blocks))
        labels = ("",) if groups is None else tuple(groups)
        return [_blocks(syntax, everything, number, labels) for number in range(1, len(labels) + 1)]
    members = _members(syntax, groups)
    drafts = [
        _blocks(syntax, members[label], number, (label,)) for number, label in enumerate(groups, start=1)
    ]
    _check_same_variables(drafts, groups)
    return drafts


def _refuse_headers(syntax: ModelSyntax) -> None:
    for block in syntax.blocks:
        if block.group is not None:
            message = (
                f"'group: {block.group}' needs the groups of the data; name the column that holds them, as in "
                'group="school"'
            )
            raise ModelError(syntax.locate(block.at, message))


def _members(syntax: ModelSyntax, labels: Sequence[str]) -> dict[str, list[int]]:
    """Blocks of each group, by its label in the data, in the order of the headers."""
    filled = {statement.block for statement in syntax.statements}
    found: dict[str, list[int]] = {}
    for index, block in enumerate(syntax.blocks):
        if block.group is None:
            raise ModelError(_outside(syntax, index, block))
        members = found.setdefault(_label(syntax, block, labels), [])
        if block.level is not None or index in filled:
            members.append(index)
    missing = [label for label in labels if label not in found]
    if missing:
        message = (
            f"the data have the group '{missing[0]}', and the model has no 'group: {missing[0]}'; write one "
            "block for each group, or one model without 'group:' for all of them"
        )
        raise ModelError(syntax.locate(syntax.blocks[0].at, message))
    for label, members in found.items():
        if not members:
            block = next(b for b in syntax.blocks if _label(syntax, b, labels) == label)
            raise ModelError(syntax.locate(block.at, f"'group: {block.group}' has no formula"))
    return found


def _outside(syntax: ModelSyntax, index: int, block: Block) -> str:
    if block.level is not None:
        message = (
            f"'level: {block.level}' stands outside of the groups; write 'group:' first and the 'level:' headers "
            "of this group below it"
        )
        return syntax.locate(block.at, message)
    at = next((s.at for s in syntax.statements if s.block == index), block.at)
    return syntax.locate(at, "this formula stands before the first 'group:' header; put it under a group")


def _label(syntax: ModelSyntax, block: Block, labels: Sequence[str]) -> str:
    """Label of the data that a header means: the same text, or the same but for case, or the same number."""
    name = block.group or ""
    if name in labels:
        return name
    for same in (_same_letters, _same_number):
        close = [label for label in labels if same(name, label)]
        if len(close) == 1:
            return close[0]
    known = ", ".join(repr(label) for label in labels)
    message = f"'group: {name}' is not a group of the data; the groups are {known}"
    raise ModelError(syntax.locate(block.at, message))


def _same_letters(one: str, other: str) -> bool:
    return one.casefold() == other.casefold()


def _same_number(one: str, other: str) -> bool:
    try:
        return float(one) == float(other)
    except ValueError:
        return False


def _blocks(
    syntax: ModelSyntax, members: Sequence[int], number: int, labels: Sequence[str]
) -> list[BlockDraft]:
    """Levels of one group; `labels` are those of the groups that the formulas are written for."""
    levels = level_blocks(syntax, members)
    statements: dict[int, list[Statement]] = {level: [] for level in sorted(set(levels.values()))}
    for statement in syntax.statements:
        if statement.block in levels:
            own = _statement(syntax, statement, number, labels)
            statements[levels[statement.block]].append(own)
    nlevels = len(statements)
    named = {level: {name for s in own for name in (s.lhs, s.rhs)} for level, own in statements.items()}
    slopes: dict[int, list[str]] = {level: [] for level in statements}
    for level, chosen in statements.items():
        for name in slope_names(chosen, syntax, multilevel=nlevels > 1):
            for above in standing(named, level, name, nlevels):
                slopes[above].append(name)
    return [BlockDraft(level, chosen, syntax, number, slopes[level]) for level, chosen in statements.items()]


def _statement(syntax: ModelSyntax, statement: Statement, number: int, labels: Sequence[str]) -> Statement:
    """Take what a statement says about one group."""
    if all(len(modifier.values) == 1 for modifier in statement.modifiers):
        return statement
    own = (_modifier(syntax, modifier, number, labels) for modifier in statement.modifiers)
    return replace(statement, modifiers=tuple(modifier for modifier in own if modifier is not None))


def _modifier(syntax: ModelSyntax, modifier: Modifier, number: int, labels: Sequence[str]) -> Modifier | None:
    given = len(modifier.values)
    if given == 1:
        return modifier
    if given != len(labels):
        raise ModelError(syntax.locate(modifier.at, _wrong_length(syntax, given, labels)))
    value = modifier.values[number - 1]
    if value is not None:
        return Modifier(modifier.kind, (value,), modifier.at)
    # NA among numbers frees the parameter of this group; among labels, starts or bounds it says nothing
    return Modifier("free", (None,), modifier.at) if modifier.kind in ("fixed", "free") else None


def _wrong_length(syntax: ModelSyntax, given: int, labels: Sequence[str]) -> str:
    if has_group_blocks(syntax):
        return "c() gives one value for each group, and below a 'group:' header a parameter has one value"
    if len(labels) == 1:
        return "c() gives one value for each group, and this model has one group; group= names the column"
    known = ", ".join(repr(label) for label in labels)
    return f"c() gives one value for each group: {given} values for {len(labels)} groups ({known})"


def _check_same_variables(drafts: Sequence[Sequence[BlockDraft]], groups: Sequence[str]) -> None:
    first = drafts[0]
    for blocks, label in zip(drafts[1:], groups[1:], strict=True):
        if len(blocks) != len(first):
            message = f"group '{groups[0]}' has {len(first)} level(s) and group '{label}' has {len(blocks)}"
            raise ModelError(f"{message}; all groups have the same levels")
        for one, other in zip(first, blocks, strict=True):
            for with_it, without, where in ((one, other, label), (other, one, groups[0])):
                name = next((name for name in with_it.observed if name not in without.observed), None)
                if name is not None:
                    raise UnsupportedError(_missing(with_it, name, where, len(first)))


def _missing(block: BlockDraft, name: str, where: str, nlevels: int) -> str:
    row = next(r for r in block.rows.values() if name in (r.lhs, r.rhs))
    level = f" at level {block.level}" if nlevels > 1 else ""
    message = (
        f"'{name}' is not in the model of group '{where}'{level}; groups with different variables are not "
        f"available in this version: mention it there too, such as '{name} ~~ {name}'"
    )
    return block.syntax.locate(row.at or Position(1, 1), message)
