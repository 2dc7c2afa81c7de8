"""What makes an exploratory block of a model, and what it cannot have because it is rotated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from msem.errors import ModelError, UnsupportedError
from msem.language.expressions import Name, names_in
from msem.language.syntax import Constraint, ModelSyntax, Position
from msem.model.drafts import BlockDraft, Draft
from msem.model.rotation import ExploratoryBlock, exploratory_blocks, most_factors


def set_exploratory(block: BlockDraft) -> None:
    """Give every loading of an exploratory factor the label of its block.

    Raises
    ------
    ModelError
        If ``efa()`` stands where no loadings are, or a factor is in two blocks.
    """
    labels: dict[str, str] = {}
    for row in block.rows.values():
        said = row.said.get("efa")
        if said is None:
            continue
        label = str(said.values[0])
        if row.op != "=~":
            _fail(
                block.syntax,
                said.at,
                f"efa() belongs to '=~', as in 'efa(\"{label}\")*f1 =~ y1', not to '{row}'",
            )
        if labels.setdefault(row.lhs, label) != label:
            _fail(
                block.syntax,
                said.at,
                f"'{row.lhs}' is in the blocks '{labels[row.lhs]}' and '{label}': a factor belongs to one of them",
            )
    for row in block.rows.values():
        if row.op == "=~" and row.lhs in labels:
            row.efa = labels[row.lhs]


def check_exploratory(blocks: Sequence[BlockDraft]) -> None:
    """Refuse exploratory blocks that cannot be rotated: with all defaults filled in.

    Raises
    ------
    ModelError
        Naming the block, the place and the remedy.
    """
    for block in blocks:
        for one in exploratory_blocks(block.rows.values()):
            if any(row.slope for other in blocks for row in other.rows.values()):
                raise UnsupportedError(
                    f"efa('{one.label}'): exploratory blocks are not available for models with random slopes"
                )
            _check_block(block, one)


def _check_block(block: BlockDraft, one: ExploratoryBlock) -> None:
    rows = block.rows
    first = next(r for r in rows.values() if r.op == "=~" and r.efa == one.label)
    at = first.at or Position(1, 1)
    name = f"the exploratory block '{one.label}'"
    for indicator in one.indicators:
        if indicator in block.latent:
            _fail(block.syntax, at, f"{name} has the latent variable '{indicator}' among its indicators")
        for factor in one.factors:
            row = rows.get((factor, "=~", indicator))
            if row is None:
                _fail(
                    block.syntax,
                    at,
                    f"all factors of {name} load on all of its indicators, and '{factor}' does not on '{indicator}'",
                )
            _check_loading(block, name, row)
    p, m = len(one.indicators), len(one.factors)
    if m > most_factors(p):
        most = most_factors(p)
        can = f"can bear {most}" if most else "can bear none"
        _fail(
            block.syntax,
            at,
            f"{name} has {m} factor{'s' * (m > 1)} and {p} indicator{'s' * (p > 1)}, which {can}: with m factors and p "
            "indicators (p - m)^2 must be at least p + m",
        )
    _check_closed(block, name, one)


def _check_loading(block: BlockDraft, name: str, row: Draft) -> None:
    for kind in ("fixed", "equal", "lower", "upper"):
        said = row.said.get(kind)
        if said is not None:
            _fail(
                block.syntax,
                said.at,
                f"the loadings of {name} are rotated, so that '{row}' cannot be fixed, bounded or equal to another: "
                "leave that out, or name what it should be in a target rotation",
            )


def _check_closed(block: BlockDraft, name: str, one: ExploratoryBlock) -> None:
    """Refuse what a rotation would not keep: all factors of a block have the same free relations."""
    factors = set(one.factors)
    kinds: dict[tuple[str, str, bool], dict[str, Draft]] = {}
    for row in block.rows.values():
        for mine, other, left in ((row.lhs, row.rhs, True), (row.rhs, row.lhs, False)):
            if mine not in factors or row.efa == one.label:
                continue
            if other in factors:
                if row.op != "~~":
                    _fail(
                        block.syntax,
                        row.at or Position(1, 1),
                        f"'{row}' is between factors of {name}, which are not told apart before rotation",
                    )
                unit = row.lhs == row.rhs and "fixed" in row.said and row.said["fixed"].values == (1.0,)
                if {"fixed", "free", "equal", "lower", "upper"} & row.said.keys() and not unit:
                    _fail(
                        block.syntax,
                        row.at or Position(1, 1),
                        f"variances of the factors of {name} are 1 and their covariances are rotated: leave '{row}' "
                        "out, or take rotation_args={'orthogonal': True}",
                    )
                continue
            sided = left if row.op != "~~" else True
            kinds.setdefault((row.op, other, sided), {})[mine] = row
    for (_, other, _), found in kinds.items():
        values = {row.value for row in found.values() if not row.free}
        same = len(found) == len(factors) and (
            all(row.free for row in found.values())
            or (values == {0.0} and not any(r.free for r in found.values()))
        )
        bounded = next(
            (r for r in found.values() if {"equal", "lower", "upper"} & r.said.keys()),
            None,
        )
        if not same or bounded is not None:
            row = bounded or next(iter(found.values()))
            relation = f"'{other}'" if other else "their means"
            _fail(
                block.syntax,
                row.at or Position(1, 1),
                f"all factors of {name} need the same free relation to {relation}, since rotation mixes them: write it "
                f"for each of {', '.join(one.factors)}, without values and bounds",
            )


def check_unshared(
    rows: Sequence[Any], constraints: Iterable[Constraint], defined: Iterable[Constraint], syntax: ModelSyntax
) -> None:
    """Refuse parameters of exploratory blocks that are shared, or stand in constraints.

    Parameters
    ----------
    rows : sequence of Parameter
    constraints, defined : iterable of Constraint
        Of the table.
    syntax : ModelSyntax

    Raises
    ------
    ModelError
    """
    blocks = exploratory_blocks(rows)
    if not blocks:
        return
    members = {(f, b.level, b.group) for b in blocks for f in b.factors}

    def mixed(row: Any) -> bool:
        return any((name, row.level, row.group) in members for name in (row.lhs, row.rhs))

    seen: dict[int, Any] = {}
    for row in rows:
        if row.free and row.free in seen and (mixed(row) or mixed(seen[row.free])):
            message = (
                f"'{row.lhs} {row.op} {row.rhs}' belongs to a factor of an exploratory block and shares its parameter "
                "with another row; these parameters are known after rotation only, so that they cannot be equal: "
                "leave out the label, or these from group_equal="
            )
            raise ModelError(syntax.locate(row.at, message) if row.at else message)
        seen.setdefault(row.free, row)
    labels = {row.label for row in rows if row.label and mixed(row)}
    definitions = {d.lhs.name: d.rhs for d in defined if isinstance(d.lhs, Name)}
    for constraint in constraints:
        waiting = [n.name for side in (constraint.lhs, constraint.rhs) for n in names_in(side)]
        known: set[str] = set()
        while waiting:
            name = waiting.pop()
            if name in known:
                continue
            known.add(name)
            if name in definitions:
                waiting += [inner.name for inner in names_in(definitions[name])]
            if name in labels or any(f == name.partition("=~")[0].strip() for f, *_ in members):
                message = (
                    f"'{constraint.text}' is about '{name}', a parameter of an exploratory block, which is known after "
                    "rotation only: test it with fit.wald_test(...) instead"
                )
                raise ModelError(syntax.locate(constraint.at, message))


def _fail(syntax: ModelSyntax, at: Position, message: str) -> NoReturn:
    raise ModelError(syntax.locate(at, message))
