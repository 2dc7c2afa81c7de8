"""Parameters that are equal over groups (measurement invariance), and what that identifies.

With equal intercepts the latent means of the groups can be told apart (Joreskog, 1971; Meredith, 1993): those of the
first group are 0, those of the others are estimated, at the level whose intercepts are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from msem.errors import ModelError
from msem.model.drafts import BlockDraft, Draft
from msem.model.levels import BETWEEN, WITHIN
from msem.model.references import Key, Names, key_of

Belongs = Callable[[Draft, BlockDraft], bool]


def _is_modelled(row: Draft, block: BlockDraft) -> bool:
    """Whether it is about an observed variable that is not a covariate."""
    return row.lhs not in block.latent and row.lhs not in block.covariates


KINDS: Final[dict[str, Belongs]] = {
    "loadings": lambda row, block: row.op == "=~",
    "intercepts": lambda row, block: row.op == "~1" and _is_modelled(row, block),
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


def hold_equal(
    drafts: Sequence[Sequence[BlockDraft]], kinds: Sequence[str], partial: Sequence[str], *, std_lv: bool
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
        Parameters that are not held equal, as in ``f=~y2``, ``y2~1.l2``.
    std_lv : bool
        Whether latent variances are fixed at 1 by default.

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
    released = _released(drafts, kinds, (partial,) if isinstance(partial, str) else partial)
    classes: dict[tuple[int, Key], list[Draft]] = {}
    for blocks in drafts:
        for block in blocks:
            for row in block.rows.values():
                if row.free and (block.level, row.key) not in released and _is_held(row, block, kinds):
                    classes.setdefault((block.level, row.key), []).append(row)
    equal = [rows for rows in classes.values() if len({row.label for row in rows} - {""}) <= 1 < len(rows)]
    held = {(row.group, row.level, row.key) for rows in equal for row in rows}
    for blocks in drafts[1:]:
        for block in blocks:
            _free_latent(block, held, kinds, std_lv=std_lv)
    return equal


def _is_held(row: Draft, block: BlockDraft, kinds: Iterable[str]) -> bool:
    return any(KINDS[kind](row, block) for kind in kinds)


def _released(
    drafts: Sequence[Sequence[BlockDraft]], kinds: Sequence[str], partial: Sequence[str]
) -> set[tuple[int, Key]]:
    """Level and key of each parameter that `partial` names."""
    # Names are those of one group: what is called `math.g2` there is a variable.
    first, every = (
        Names([row for blocks in some for block in blocks for row in block.rows.values()])
        for some in (drafts[:1], drafts)
    )
    blocks = {block.level: block for block in drafts[0]}
    released = set()
    for name in partial:
        names = first if first.find(name, everywhere=True) else every
        found = {names.rows[i].level: names.rows[i] for i in names.find(name, everywhere=True)}
        keys = {key_of(row.lhs, row.op, row.rhs) for row in found.values()}
        if len(keys) != 1:
            raise ModelError(
                f"group_partial: the model has no parameter {name!r}; parameters are named as in 'f=~y2', "
                "'y2~1' and 'y1~~y2', followed by '.l2' at the between level"
            )
        (key,) = keys
        held = [n for n in found if (row := blocks[n].rows[key]).free and _is_held(row, blocks[n], kinds)]
        # Without a suffix: the within level, unless it is at the between level only that something is held equal.
        level = BETWEEN if held == [BETWEEN] or list(found) == [BETWEEN] else WITHIN
        released.add((level, key))
    return released


def _free_latent(
    block: BlockDraft, held: set[tuple[int, int, Key]], kinds: Sequence[str], *, std_lv: bool
) -> None:
    """Free the means of factors with an equal intercept, and unit variances of those with an equal loading.

    A factor of factors has no mean of its own, since the intercepts of its factors are free already.
    """
    for factor in block.latent:
        indicators = [row for row in block.rows.values() if row.op == "=~" and row.lhs == factor]
        mean = block.rows.get((factor, "~1", ""))
        if mean is not None and not mean.user and mean.value == 0.0 and "means" not in kinds:
            names = [row.rhs for row in indicators if row.rhs not in block.latent]
            if any((block.group, block.level, (name, "~1", "")) in held for name in names):
                mean.value = float("nan")
        variance = block.rows.get((factor, "~~", factor))
        if std_lv and variance is not None and variance.value == 1.0 and "lv_variances" not in kinds:
            by_default = not {"fixed", "free"} & variance.said.keys()
            if by_default and any((block.group, block.level, row.key) in held for row in indicators):
                variance.value = float("nan")
