"""Random slopes in a model: a path of level 1 whose size is a variable of level 2.

``y ~ rv("s")*x`` at level 1 makes s the coefficient of x in each cluster. At level 2 s is a latent variable without
indicators; its mean is the fixed effect. Of three levels a path of level 1 or 2 may have one. It is a variable of the
levels above that name it, and its mean belongs to the highest of them.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, NoReturn, Protocol

from msem.errors import ModelError, UnsupportedError
from msem.language.syntax import ModelSyntax, Position, Statement
from msem.model.levels import BETWEEN, WITHIN

if TYPE_CHECKING:
    from msem.model.drafts import BlockDraft


MOST_INTEGRATED = 3  # slopes that quadrature can have


class Slope(NamedTuple):
    """One random slope.

    Attributes
    ----------
    name : str
    covariate : str
        What is multiplied by it.
    outcomes : tuple of str
        What the product adds to.
    level : int
        Of the path.
    at : tuple of int
        Levels that it is a variable of.
    """

    name: str
    covariate: str
    outcomes: tuple[str, ...]
    level: int = WITHIN
    at: tuple[int, ...] = (BETWEEN,)


class Path(Protocol):
    """A row of a level."""

    @property
    def lhs(self) -> str:
        """Outcome."""

    @property
    def rhs(self) -> str:
        """Covariate."""

    @property
    def slope(self) -> str:
        """Its random slope, or ""."""


def slopes_of(rows: Iterable[Path], level: int = WITHIN) -> dict[str, Slope]:
    """Random slopes among the rows of a level, by name."""
    found: dict[str, Slope] = {}
    for row in rows:
        if row.slope:
            before = found.get(row.slope, Slope(row.slope, row.rhs, (), level, (level + 1,)))
            found[row.slope] = before._replace(outcomes=(*before.outcomes, row.lhs))
    return found


def standing(names: Mapping[int, Container[str]], level: int, name: str, nlevels: int) -> tuple[int, ...]:
    """Levels above `level` that a random slope of it is a variable of: those that name it, or the only one there is."""
    above = range(level + 1, nlevels + 1)
    return tuple(above) if len(above) == 1 else tuple(k for k in above if name in names[k])


def slope_names(statements: Sequence[Statement], syntax: ModelSyntax, *, multilevel: bool) -> tuple[str, ...]:
    """Names of the random slopes that the statements of a level give, in order of appearance.

    Raises
    ------
    ModelError
        If the model has one level, or what has a slope is no path.
    """
    names: dict[str, None] = {}
    for statement in statements:
        for modifier in statement.modifiers:
            if modifier.kind != "rv":
                continue
            name = str(modifier.values[0])
            if not multilevel:
                message = (
                    f"rv('{name}') is a slope that differs between clusters, and the model has one level: write it "
                    "below 'level: 1', with a 'level: 2', and name the column of the clusters, cluster="
                )
                raise ModelError(syntax.locate(modifier.at, message))
            if statement.op != "~" or not statement.rhs:
                what = f"{statement.lhs} {statement.op} {statement.rhs}".replace("~1 ", "~ 1")
                message = (
                    f"a random slope belongs to a regression on a covariate, as in 'y ~ rv(\"{name}\")*x', "
                    f"not to '{what}'"
                )
                raise ModelError(syntax.locate(modifier.at, message))
            names[name] = None
    return tuple(names)


def check_slopes(blocks: Sequence[BlockDraft], *, crossed: bool = False) -> None:
    """Refuse random slopes that cannot be, or cannot be estimated, in the levels of one group.

    `crossed`: levels 2 and 3 are crossed classifications.

    Raises
    ------
    ModelError, UnsupportedError
        Naming the slope and its place.
    """
    for block in blocks:
        for row in block.rows.values():
            said = row.said.get("rv")
            if said is None:
                continue
            if block.level == len(blocks):
                lower = "level 1" if len(blocks) == BETWEEN else "a lower level"
                _fail(
                    block,
                    said.at,
                    f"rv('{row.slope}') stands at level {block.level}: a slope varies between clusters, so that its "
                    f"path belongs to {lower}",
                )
            other = next((kind for kind in row.said if kind != "rv"), None)
            if other is not None:
                _fail(
                    block,
                    row.said[other].at,
                    f"the path from '{row.rhs}' to '{row.lhs}' is the random slope '{row.slope}' and has no value of "
                    f"its own: labels, starts, bounds and fixed values belong to the mean of '{row.slope}' at "
                    f"{'level 2' if len(blocks) == BETWEEN else 'the highest level that names it'}, as in "
                    f"'{row.slope} ~ a*1'",
                )
    if crossed:
        _check_crossed(blocks)
    if len(blocks) > BETWEEN:
        _check_levels(blocks)
    if len(blocks) != BETWEEN:
        return
    within, between = blocks
    slopes = slopes_of(within.rows.values())
    for name, slope in slopes.items():
        _check_name(within, between, name)
        _check_covariate(within, slope)
    _check_integrals(within, between, slopes)


def _check_crossed(blocks: Sequence[BlockDraft]) -> None:
    for block in blocks[1:]:
        for name, slope in slopes_of(block.rows.values(), block.level).items():
            message = (
                f"rv('{name}') stands at level {block.level}, whose clusters do not lie within others: in crossed "
                f"classifications slopes belong to paths of level 1, where '{slope.covariate}' may be, too, in the "
                f"place of level {block.level}"
            )
            _fail(block, _place(block, name), message)


def _check_levels(blocks: Sequence[BlockDraft]) -> None:
    known: dict[str, int] = {}
    for block in blocks[:-1]:
        above = blocks[block.level :]
        for name, slope in slopes_of(block.rows.values(), block.level).items():
            if name in known:
                _fail(
                    block,
                    _place(block, name),
                    f"'{name}' is the name of a random slope of level {known[name]}: give each its own name",
                )
            known[name] = block.level
            for upper in above:
                _check_name(block, upper, name)
            _check_covariate(block, slope)
            if slope.covariate in block.latent:
                message = (
                    f"'{slope.covariate}' is latent, and the likelihood an integral over the slopes, which models of "
                    "three or more levels do not have in this version: use an observed covariate"
                )
                raise UnsupportedError(block.syntax.locate(_place(block, name), message))
            if not any(name in upper.slopes for upper in above):
                _fail(
                    block,
                    _place(block, name),
                    f"rv('{name}') varies between clusters of no level: name it in the block of each level between "
                    f"whose clusters it differs, as in '{name} ~~ {name}'",
                )
            if any(slope.covariate in upper.observed for upper in above):
                message = (
                    f"'{slope.covariate}' has a random slope and parts at several levels, so that its part at level "
                    f"{block.level} is latent and the likelihood an integral over the slopes, which models of three or "
                    "more levels do not have in this version: centre it within clusters, and add the cluster means "
                    "as a variable of their own"
                )
                raise UnsupportedError(block.syntax.locate(_place(block, name), message))


def _check_name(within: BlockDraft, between: BlockDraft, name: str) -> None:
    at = _place(within, name)
    if name in within.observed or name in within.latent:
        _fail(
            within,
            at,
            f"'{name}' is a variable of level {within.level} and the name of a random slope: use another name",
        )
    for row in between.rows.values():
        if row.op == "=~" and row.lhs == name:
            _fail(
                between,
                row.at or at,
                f"'{name}' is a random slope, which level {within.level} measures: it has no indicators at level "
                f"{between.level}; it may be an indicator itself",
            )


def _check_integrals(within: BlockDraft, between: BlockDraft, slopes: Mapping[str, Slope]) -> None:
    """Refuse more slopes than can be integrated over, and slopes that come after those whose covariate they change."""
    several = list(slopes.values())
    hidden = [s for s in several if s.covariate in between.observed or s.covariate in within.latent]
    if not hidden:
        return
    first = hidden[0]
    at = _place(within, first.name)
    if len(several) > MOST_INTEGRATED:
        latent = first.covariate in within.latent
        why = "is latent" if latent else "stands at both levels, so that its within part is latent"
        remedy = (
            "Let slopes be the same in all clusters where they may"
            if latent
            else "Centre the covariate within clusters and add the cluster means as a variable of level 2"
        )
        message = (
            f"'{first.covariate}' {why}, and the likelihood an integral over the slopes: {len(several)} slopes are too "
            f"many in this version, {MOST_INTEGRATED} are the most. {remedy}"
        )
        raise UnsupportedError(within.syntax.locate(at, message))
    for k, slope in enumerate(several):
        reach = _reached(within, slope.outcomes)
        before = next((other.name for other in several[:k] if other.covariate in reach), None)
        if before is not None:
            _fail(
                within,
                _place(within, slope.name),
                f"'{slope.name}' changes the covariate of '{before}', which stands before it: write it first",
            )


def _check_covariate(within: BlockDraft, slope: Slope) -> None:
    paths = [row for row in within.rows.values() if row.slope == slope.name]
    at = _place(within, slope.name)
    for row in paths:
        if row.rhs != slope.covariate:
            _fail(
                within,
                row.said["rv"].at,
                f"'{slope.name}' is the slope of '{slope.covariate}' and of '{row.rhs}': give each its own name",
            )
    if _reached(within, slope.outcomes) & {slope.covariate}:
        _fail(
            within,
            at,
            f"'{slope.covariate}' depends on '{slope.outcomes[0]}', so that '{slope.name}' would be the slope of an "
            "outcome's own consequence",
        )


def _reached(within: BlockDraft, names: Iterable[str]) -> set[str]:
    """Variables with these, and those that depend on them."""
    effects: dict[str, list[str]] = {}
    for row in within.rows.values():
        if row.op == "=~":
            effects.setdefault(row.lhs, []).append(row.rhs)
        elif row.op == "~":
            effects.setdefault(row.rhs, []).append(row.lhs)
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += effects.get(name, [])
    return found


def _place(block: BlockDraft, name: str) -> Position:
    return next(row.said["rv"].at for row in block.rows.values() if row.slope == name)


def _fail(block: BlockDraft, at: Position, message: str) -> NoReturn:
    raise ModelError(block.syntax.locate(at, message))
