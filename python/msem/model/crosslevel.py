"""The same measurement model at both levels: models of increasing invariance over levels, as model texts.

Factors belong together that have the same name at both levels, or else the same indicators.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from msem.errors import ModelError, UnsupportedError
from msem.language.characters import is_plain
from msem.language.syntax import Block, ModelSyntax, Modifier, Position, Statement
from msem.model.blocks import level_blocks
from msem.model.levels import BETWEEN, WITHIN
from msem.model.partable import Parameter, ParameterTable
from msem.model.references import Key, key_of

START = Position(1, 1)
ZERO = (Modifier("fixed", (0.0,), START),)
Place = tuple[int, Key]
"""Level and key of a parameter."""


def of_both_levels(syntax: ModelSyntax) -> ModelSyntax:
    """A model with blocks of levels; one without is the model of each."""
    named = {block.level for block in syntax.blocks if block.level is not None}
    if len(named) > BETWEEN:
        raise UnsupportedError(
            "comparisons of levels are those of two levels in this version; for more levels compare models whose "
            "loadings have the same labels with msem.compare_models"
        )
    if named:
        return syntax
    if any(block.group is not None or block.block is not None for block in syntax.blocks):
        raise UnsupportedError("levels are compared in one group: leave out the group: headers")
    labels = [m for s in syntax.statements for m in s.modifiers if m.kind == "label"]
    if labels:
        raise ModelError(
            f"the label {labels[0].values[0]!r} would make parameters equal over levels in every step: write "
            "the model of each level, under level: 1 and level: 2, with labels of its own"
        )
    blocks = tuple(Block(None, str(level), START) for level in (WITHIN, BETWEEN))
    statements = tuple(replace(s, block=k) for k in range(2) for s in syntax.statements)
    return ModelSyntax(blocks, statements, syntax.constraints, "")


class Pair(NamedTuple):
    """The rows of one loading at both levels."""

    within: Parameter
    between: Parameter


def _loadings(table: ParameterTable, level: int) -> dict[str, dict[str, Parameter]]:
    found: dict[str, dict[str, Parameter]] = {}
    for row in table.block(level, 1):
        if row.op == "=~":
            found.setdefault(row.lhs, {})[row.rhs] = row
    return found


def paired_loadings(table: ParameterTable) -> list[Pair]:
    """Loadings that belong together: of factors with the same name, or else with the same indicators.

    Raises
    ------
    ModelError
        Naming a factor or a loading that has no counterpart, or two that are not scaled alike.
    """
    if not table.multilevel:
        raise ModelError("the model has one level: name the column with the cluster ids, cluster=...")
    within, between = (_loadings(table, level) for level in (WITHIN, BETWEEN))
    pairs: list[Pair] = []
    for factor, rows in within.items():
        same = [other for other in between if between[other].keys() == rows.keys()]
        partner = factor if factor in between else same[0] if len(same) == 1 else None
        if partner is None:
            raise ModelError(
                f"the factor {factor!r} of level 1 has no counterpart at level 2, of the same name or with the same "
                "indicators: invariance over levels needs the same factors at both; to compare models with different "
                "factors use msem.compare_models"
            )
        odd = sorted(rows.keys() ^ between[partner].keys())
        if odd:
            raise ModelError(
                f"{factor!r} of level 1 and {partner!r} of level 2 do not have the same indicators, "
                f"{', '.join(odd)} at one level only: invariance over levels needs the same pattern at both"
            )
        pairs += [_scaled_alike(Pair(row, between[partner][name])) for name, row in rows.items()]
    left = sorted(between.keys() - {pair.between.lhs for pair in pairs})
    if left:
        raise ModelError(
            f"the factor {left[0]!r} of level 2 has no counterpart at level 1: invariance over levels needs the same "
            "factors at both; a further factor of clusters is among the kinds of Invariance.constructs"
        )
    return pairs


def _scaled_alike(pair: Pair) -> Pair:
    one, two = pair
    if bool(one.free) != bool(two.free) or (not one.free and one.value != two.value):
        raise ModelError(
            f"'{one.lhs} =~ {one.rhs}' at level 1 and '{two.lhs} =~ {two.rhs}' at level 2 are not scaled alike: "
            "fix the loading of the same indicator at both levels, or the variances of the factors with std_lv=True"
        )
    return pair


def places_of(table: ParameterTable, partial: Sequence[str]) -> set[Place]:
    """Level and key of each row that stays free."""
    out: set[Place] = set()
    for name in partial:
        found = table.by_name.find(name, everywhere=True)
        if not found:
            raise ModelError(
                f"partial: the model has no parameter {name!r}; parameters are named as in 'f=~y2' and 'y2~~y2'"
            )
        out |= {place_of(table.rows[i]) for i in found}
    return out


def place_of(row: Parameter) -> Place:
    """Level and key of a row."""
    return row.level, key_of(row.lhs, row.op, row.rhs)


def with_equal_loadings(
    syntax: ModelSyntax, table: ParameterTable, pairs: Sequence[Pair], exempt: set[Place]
) -> ModelSyntax:
    """The same with one label for the two rows of a loading; unit variances of between factors are then free."""
    labels: dict[Place, str] = {}
    taken = {row.label for row in table.rows} | {name for row in table.rows for name in (row.lhs, row.rhs)}
    unscaled = dict.fromkeys(pair.between.lhs for pair in pairs)
    for k, (one, two) in enumerate(pairs, 1):
        if not one.free:
            unscaled.pop(two.lhs, None)
        if not one.free or one.free == two.free or {place_of(one), place_of(two)} & exempt:
            continue
        if one.label and two.label:
            raise ModelError(
                f"the loadings of {one.rhs!r} have the labels {one.label!r} and {two.label!r}: leave the labels "
                "out, so that the step can make them equal"
            )
        label = one.label or two.label or _unused(one.lhs, one.rhs, k, taken)
        labels[place_of(one)] = labels[place_of(two)] = label
    levels = level_blocks(syntax)
    statements = [_labelled(s, levels[s.block], labels) for s in syntax.statements]
    block = _at(syntax, BETWEEN)
    for factor in unscaled:
        row = next(r for r in table.block(BETWEEN, 1) if (r.lhs, r.op, r.rhs) == (factor, "~~", factor))
        if labels and not row.free and not row.user:
            free = Modifier("free", (None,), START)
            statements.append(Statement(factor, "~~", factor, (free,), block, START))
    return replace(syntax, statements=tuple(statements), text="")


def _unused(factor: str, indicator: str, k: int, taken: set[str]) -> str:
    plain = is_plain(factor) and is_plain(indicator)
    wanted = f"{factor}_{indicator}" if plain else f"loading_{k}"
    while wanted in taken:
        wanted += "_"
    taken.add(wanted)
    return wanted


def _labelled(statement: Statement, level: int, labels: Mapping[Place, str]) -> Statement:
    label = labels.get((level, key_of(statement.lhs, statement.op, statement.rhs)))
    if label is None:
        return statement
    others = tuple(m for m in statement.modifiers if m.kind != "label")
    return replace(statement, modifiers=(*others, Modifier("label", (label,), START)))


def _at(syntax: ModelSyntax, level: int) -> int:
    """Position of the block of a level."""
    return next(block for block, number in level_blocks(syntax).items() if number == level)


def without_residuals(
    syntax: ModelSyntax, table: ParameterTable, pairs: Sequence[Pair], exempt: set[Place]
) -> ModelSyntax:
    """The same without residual variances of the indicators between clusters."""
    names = dict.fromkeys(pair.between.rhs for pair in pairs)
    wanted = {name for name in names if (BETWEEN, key_of(name, "~~", name)) not in exempt}
    wanted &= set(table.observed(BETWEEN, 1))
    block = _at(syntax, BETWEEN)

    def replaced(s: Statement) -> bool:
        return s.op == "~~" and s.block == block and s.lhs == s.rhs and s.lhs in wanted

    kept = [s for s in syntax.statements if not replaced(s)]
    kept += [Statement(name, "~~", name, ZERO, block, START) for name in names if name in wanted]
    return replace(syntax, statements=tuple(kept), text="")


def with_shared_factors(syntax: ModelSyntax, table: ParameterTable) -> ModelSyntax:
    """The same with a further factor of clusters beside each, on the same indicators, uncorrelated with all of them.

    They are called as the factors, with ``_shared`` at the end.
    """
    taken = {name for row in table.rows for name in (row.lhs, row.rhs)}
    block = _at(syntax, BETWEEN)
    added: list[Statement] = []
    factors = _loadings(table, BETWEEN)
    further: list[str] = []
    for factor, loadings in factors.items():
        name = f"{factor}_shared"
        while name in taken:
            name += "_"
        taken.add(name)
        further.append(name)
        added += [Statement(name, "=~", indicator, (), block, START) for indicator in loadings]
    added += [Statement(o, "~~", f, ZERO, block, START) for o, f in itertools.product(further, factors)]
    return replace(syntax, statements=(*syntax.statements, *added), text="")
