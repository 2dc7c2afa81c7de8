"""Parameters that are one or bounded: by shared labels, by `equal()`, over groups (measurement invariance).

With equal intercepts the latent means of the groups are identified (Joreskog, 1971; Meredith, 1993): those of the
first group are 0, those of the others are estimated, at the level whose intercepts are equal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

from msem.errors import ModelError
from msem.language.expressions import Expression, Name, evaluate, is_constant, names_in
from msem.language.syntax import Constraint, ModelSyntax, Position
from msem.model.drafts import BlockDraft, Draft
from msem.model.levels import WITHIN
from msem.model.references import Key, Names, key_of

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


def share(
    rows: Sequence[Draft],
    syntax: ModelSyntax,
    equal: Sequence[Sequence[Draft]] = (),
    bounds: Sequence[Bound] = (),
) -> list[int]:
    """Unite rows that share a parameter; they then agree on value, start and bounds.

    Parameters
    ----------
    rows : sequence of Draft
        All rows of the table; values, starts and bounds are set in place.
    syntax : ModelSyntax
        For the places of errors.
    equal : sequence of sequence of Draft
        Rows that are one parameter for another reason than the text; see `equate_groups`.
    bounds : sequence of (label, lower, upper)
        Such as ``a > 0``.

    Returns
    -------
    list of int
        For each row, the index of the first row that it shares its parameter with (its own if none).

    Raises
    ------
    ModelError
        When `equal()` names nothing, rows of one label are fixed at different values, or bounds exclude
        each other or a fixed value.
    """
    _apply_bounds(rows, bounds)
    first = list(range(len(rows)))
    by_label: dict[str, int] = {}
    for index, row in enumerate(rows):
        if row.label:
            first[index] = by_label.setdefault(row.label, index)
    at = {id(row): index for index, row in enumerate(rows)}
    for one, *others in equal:
        for other in others:
            _unite(first, at[id(one)], at[id(other)])
    for index, row in enumerate(rows):
        if "equal" in row.said and row.said["equal"].values[0] is not None:
            _unite(first, index, _find_target(index, rows, syntax))
    groups: dict[int, list[Draft]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(first[index], []).append(row)
    for members in groups.values():
        if len(members) > 1:
            _agree(members, syntax)
        if members[0].lower != -math.inf or members[0].upper != math.inf:
            _check_bounds(members[0], syntax)
    return first


def _apply_bounds(rows: Sequence[Draft], bounds: Sequence[Bound]) -> None:
    for label, lower, upper in bounds:
        for row in rows:
            if row.label == label:
                row.lower, row.upper = max(row.lower, lower), min(row.upper, upper)


def _unite(first: list[int], one: int, other: int) -> None:
    low, high = sorted((first[one], first[other]))
    for index, root in enumerate(first):
        if root == high:
            first[index] = low


def _find_target(index: int, rows: Sequence[Draft], syntax: ModelSyntax) -> int:
    """Index of the row that `equal()` of a row names, by label or as in "f=~y2"."""
    row = rows[index]
    modifier = row.said["equal"]
    name = str(modifier.values[0])
    try:
        found = [i for i in Names(rows).find(name, everywhere=True) if i != index]
    except ModelError as error:
        raise ModelError(syntax.locate(modifier.at, str(error))) from None
    # Where the name does not say it, the same group and the same level come first.
    found.sort(key=lambda i: (rows[i].group != row.group, rows[i].level != row.level))
    if found:
        return _estimable(found[0], rows, syntax, modifier.at)
    message = (
        f"equal({name!r}) names no other parameter of the model; give a label, or a parameter such as 'f=~y2'"
    )
    raise ModelError(syntax.locate(modifier.at, message))


def _estimable(target: int, rows: Sequence[Draft], syntax: ModelSyntax, at: Position) -> int:
    if rows[target].exo:
        message = f"'{rows[target]}' is a moment of a fixed covariate and cannot be shared; see fixed_x"
        raise ModelError(syntax.locate(at, message))
    return target


def _place(row: Draft) -> str:
    group = f" of group {row.group}" if row.group > 1 else ""
    return f"'{row}'{group} (line {row.at.line})" if row.at else f"'{row}'{group}"


def _agree(members: list[Draft], syntax: ModelSyntax) -> None:
    """Give all rows of one parameter the same value, start and bounds."""
    fixed = [row for row in members if not row.free]
    for row in fixed:
        if row.value != fixed[0].value:
            message = f"{_place(row)} and {_place(fixed[0])} are equal by label but fixed at different values"
            raise ModelError(syntax.locate(row.at or Position(1, 1), message))
    if fixed:
        freed = next((row for row in members if "free" in row.said), None)
        if freed is not None:
            message = f"{_place(freed)} is freed by NA, but it equals {_place(fixed[0])}, which is fixed"
            raise ModelError(syntax.locate(freed.at or Position(1, 1), message))
    start = next((row.start for row in members if row.start is not None), None)
    lower, upper = max(row.lower for row in members), min(row.upper for row in members)
    for row in members:
        row.start, row.lower, row.upper = start, lower, upper
        if fixed:
            row.value = fixed[0].value


def _check_bounds(row: Draft, syntax: ModelSyntax) -> None:
    problem = ""
    if row.lower >= row.upper:
        problem = f"has lower bound {row.lower:g} and upper bound {row.upper:g}, which leave no room"
    elif not row.free and not row.lower <= row.value <= row.upper:
        problem = f"is fixed at {row.value:g}, outside its bounds {row.lower:g} and {row.upper:g}"
    if problem:
        raise ModelError(syntax.locate(row.at or Position(1, 1), f"'{row}' {problem}"))


Belongs = Callable[[Draft, BlockDraft], bool]


def _is_modelled(row: Draft, block: BlockDraft) -> bool:
    """Whether it is about an observed variable that is not a covariate."""
    return row.lhs not in block.latent and row.lhs not in block.covariates


KINDS: Final[dict[str, Belongs]] = {
    "loadings": lambda row, block: row.op == "=~",
    "intercepts": lambda row, block: row.op == "~1" and _is_modelled(row, block),
    "thresholds": lambda row, block: row.op == "|",
    "means": lambda row, block: row.op == "~1" and row.lhs in block.latent,
    "regressions": lambda row, block: row.op == "~",
    "residuals": lambda row, block: _is_moment(row, variance=True) and _is_modelled(row, block),
    "residual_covariances": lambda row, block: _is_moment(row, variance=False) and _is_modelled(row, block),
    "lv_variances": lambda row, block: _is_moment(row, variance=True) and row.lhs in block.latent,
    "lv_covariances": lambda row, block: _is_moment(row, variance=False) and row.lhs in block.latent,
}
"""What `group_equal` can name, and which rows of a block that is."""


def _is_moment(row: Draft, *, variance: bool) -> bool:
    return row.op == "~~" and (row.lhs == row.rhs) == variance


def equality_kinds(group_equal: Sequence[str]) -> tuple[str, ...]:
    """Kinds of parameters in their spelling with underscores.

    Raises
    ------
    ModelError
        When one is not known.
    """
    given = (group_equal,) if isinstance(group_equal, str) else tuple(group_equal)
    kinds = tuple(str(kind).replace(".", "_") for kind in given)
    for kind, name in zip(kinds, given, strict=True):
        if kind not in KINDS:
            raise ModelError(f"group_equal: {name!r} is not one of {', '.join(map(repr, KINDS))}")
    return kinds


def equate_groups(
    drafts: Sequence[Sequence[BlockDraft]],
    kinds: Sequence[str],
    partial: Sequence[str],
    *,
    std_lv: bool,
    delta: bool = False,
) -> list[list[Draft]]:
    """Say which rows are one parameter over groups, and free what these equalities identify.

    Parameters
    ----------
    drafts : sequence of sequence of BlockDraft
        The blocks of each group, with all their rows. Latent means, and with `std_lv` latent variances, of the
        groups after the first are freed in place.
    kinds : sequence of str
        Keys of `KINDS`.
    partial : sequence of str
        Exceptions, as in ``f=~y2``, ``y2~1.l2``.
    std_lv : bool
        Whether latent variances are fixed at 1 by default.
    delta : bool
        Whether ordered variables have scaling factors in the place of residual variances.

    Returns
    -------
    list of list of Draft
        Each a parameter that is equal over groups. Rows that the user fixes, and parameters that have different
        labels in different groups, are not among them.

    Raises
    ------
    ModelError
        When `partial` names no parameter of the model.
    """
    if not kinds and not partial:
        return []
    released = _released(drafts, kinds, (partial,) if isinstance(partial, str) else partial)
    classes: dict[tuple[int, Key], list[Draft]] = {}
    for blocks in drafts:
        for block in blocks:
            for row in block.rows.values():
                if row.free and (block.level, row.key) not in released and _is_of_kind(row, block, kinds):
                    classes.setdefault((block.level, row.key), []).append(row)
    equal = [rows for rows in classes.values() if len({row.label for row in rows} - {""}) <= 1 < len(rows)]
    invariant = {(row.group, row.level, row.key) for rows in equal for row in rows}
    for blocks in drafts[1:]:
        for block in blocks:
            _free_scales(block, blocks, drafts[0], invariant, kinds, delta=delta)
            _free_latent(block, invariant, kinds, std_lv=std_lv)
    return equal


def _is_of_kind(row: Draft, block: BlockDraft, kinds: Iterable[str]) -> bool:
    return any(KINDS[kind](row, block) for kind in kinds)


def _released(
    drafts: Sequence[Sequence[BlockDraft]], kinds: Sequence[str], partial: Sequence[str]
) -> set[tuple[int, Key]]:
    """Level and key of each parameter that `partial` names."""
    if not partial:
        return set()
    # Names are those of one group: what is called `math.g2` there is a variable.
    first, every = (
        Names([row for blocks in some for block in blocks for row in block.rows.values()])
        for some in (drafts[:1], drafts)
    )
    blocks = {block.level: block for block in drafts[0]}
    released = set()
    for name in partial:
        names = first if first.find(name, everywhere=True) else every
        named = {names.rows[i].level: names.rows[i] for i in names.find(name, everywhere=True)}
        keys = {key_of(row.lhs, row.op, row.rhs) for row in named.values()}
        if len(keys) != 1:
            raise ModelError(
                f"group_partial: the model has no parameter {name!r}; parameters are named as in 'f=~y2', "
                "'y2~1' and 'y1~~y2', followed by '.l2' at the between level"
            )
        (key,) = keys
        equal = [n for n in named if (row := blocks[n].rows[key]).free and _is_of_kind(row, blocks[n], kinds)]
        # Without a suffix: the within level, unless another level is the only one with such an equality.
        only = equal if len(equal) == 1 else list(named) if len(named) == 1 else [WITHIN]
        level = only[0]
        released.add((level, key))
    return released


def _free_scales(
    block: BlockDraft,
    blocks: Sequence[BlockDraft],
    reference: Sequence[BlockDraft],
    invariant: set[tuple[int, int, Key]],
    kinds: Sequence[str],
    *,
    delta: bool,
) -> None:
    """Free the residual variances, or the scaling factors, of ordered variables with equal thresholds and loadings.

    The factors of the first group, `reference`, are 1. That is at the lowest level that the variable stands at, where
    it is 1 otherwise; thresholds are at the highest.
    """
    if "residuals" in kinds:
        return
    below = {name for lower in blocks if lower.level < block.level for name in lower.observed}
    cut = {row.lhs: other.level for other in blocks for row in other.rows.values() if row.op == "|"}
    for name, level in cut.items():
        residual = block.rows.get((name, "~~", name))
        if name in below or residual is None or residual.user:
            continue
        measured = [row for row in block.rows.values() if row.op == "=~" and row.rhs == name]
        held = all((block.group, block.level, row.key) in invariant or not row.free for row in measured)
        if not (held and (block.group, level, (name, "|", "t1")) in invariant):
            continue
        if not delta:
            residual.value = float("nan")
            continue
        for other, value in ((reference[block.level - 1], 1.0), (block, float("nan"))):
            key = (name, "~*~", name)
            if key not in other.rows:
                other.rows[key] = Draft(name, "~*~", name, other.level, other.group, value=value)


def _free_latent(
    block: BlockDraft, invariant: set[tuple[int, int, Key]], kinds: Sequence[str], *, std_lv: bool
) -> None:
    """Free the means of factors with an equal intercept, and unit variances of those with an equal loading.

    A factor of factors has no mean of its own, since the intercepts of its factors are free already.
    """
    for factor in block.latent:
        indicators = [row for row in block.rows.values() if row.op == "=~" and row.lhs == factor]
        mean = block.rows.get((factor, "~1", ""))
        if mean is not None and not mean.user and mean.value == 0.0 and "means" not in kinds:
            names = [row.rhs for row in indicators if row.rhs not in block.latent]
            keys = [(name, *rest) for name in names for rest in (("~1", ""), ("|", "t1"))]
            if any((block.group, block.level, key) in invariant for key in keys):
                mean.value = float("nan")
        variance = block.rows.get((factor, "~~", factor))
        if std_lv and variance is not None and variance.value == 1.0 and "lv_variances" not in kinds:
            by_default = not {"fixed", "free"} & variance.said.keys()
            if by_default and any((block.group, block.level, row.key) in invariant for row in indicators):
                variance.value = float("nan")
