"""Which sum scores a measurement model has: the observed indicators of each factor at each level."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from msem.errors import ModelError
from msem.model.partable import ParameterTable

__all__ = ["Composite", "composites", "matched"]


@dataclass(frozen=True)
class Composite:
    """Weighted sum of the indicators of one factor.

    Attributes
    ----------
    factor : str
    level, group : int
    items : tuple of str
    weights : tuple of float
    """

    factor: str
    level: int
    group: int
    items: tuple[str, ...]
    weights: tuple[float, ...]


def composites(
    table: ParameterTable, factors: Sequence[str] | None, weights: Mapping[str, float]
) -> list[Composite]:
    """Composites of the factors that have at least two indicators, all of them observed.

    Parameters
    ----------
    table : ParameterTable
    factors : sequence of str or None
        Factors wanted; None for all that have a composite.
    weights : mapping of str to float
        Of items; 1 for those not named.

    Raises
    ------
    ModelError
        If a factor that is wanted has no composite, or none has, or a weight is given to no item; the message says
        why.
    """
    found, refused = [], {}
    for level, group in _blocks(table):
        for factor in table.latent(level, group):
            if factors is not None and factor not in factors:
                continue
            items = _indicators(table, factor, level, group)
            reason = _reason(items, table.latent(level, group))
            if reason:
                refused[factor] = reason
            else:
                found.append(
                    Composite(factor, level, group, items, tuple(weights.get(i, 1.0) for i in items))
                )
    _check_known(table, factors, refused, found)
    _check_weights(weights, found)
    return found


def matched(found: Sequence[Composite], pairs: Mapping[str, str]) -> Iterator[tuple[Composite, Composite]]:
    """Pair within with between factors: those given, those of the same name, and those of the same items.

    Parameters
    ----------
    found : sequence of Composite
    pairs : mapping of str to str
        Name of the between factor by that of the within factor.

    Raises
    ------
    ModelError
        If the factors of a given pair do not have the same indicators.
    """
    within, between = ([c for c in found if c.level == level] for level in (1, 2))
    for one in within:
        name = pairs.get(one.factor, one.factor)
        rest = [c for c in between if c.group == one.group]
        partners = [c for c in rest if c.factor == name]
        if one.factor in pairs:
            _check_pair(one, partners, name)
        same = [c for c in rest if set(c.items) == set(one.items)]
        alike = [c for c in within if c.group == one.group and set(c.items) == set(one.items)]
        partners = [c for c in partners if c in same] or (same if len(same) == len(alike) == 1 else [])
        if partners:
            yield one, partners[0]


def _check_pair(one: Composite, partners: Sequence[Composite], name: str) -> None:
    if not partners:
        raise ModelError(f"pairs: {name!r} is no factor of the between level with two observed indicators")
    if set(partners[0].items) != set(one.items):
        raise ModelError(
            f"pairs: {one.factor} (of {', '.join(one.items)}) and {name} (of {', '.join(partners[0].items)}) do not "
            "have the same indicators, so there is no score that both are measured by"
        )


def _blocks(table: ParameterTable) -> list[tuple[int, int]]:
    return list(dict.fromkeys((row.level, row.group) for row in table.rows if row.op == "=~"))


def _indicators(table: ParameterTable, factor: str, level: int, group: int) -> tuple[str, ...]:
    return tuple(
        row.rhs
        for row in table.block(level, group)
        if row.op == "=~" and row.lhs == factor and (row.free or row.value != 0)
    )


def _reason(items: Sequence[str], latent: Sequence[str]) -> str:
    if any(item in latent for item in items):
        return "it is measured by latent variables, so no sum of its own indicators was observed"
    return "" if len(items) > 1 else "it has fewer than two indicators"


def _check_known(
    table: ParameterTable,
    factors: Sequence[str] | None,
    refused: Mapping[str, str],
    found: Sequence[Composite],
) -> None:
    have = {c.factor for c in found}
    known = {name for block in _blocks(table) for name in table.latent(*block)}
    for name in factors or ():
        if name not in known:
            raise ModelError(
                f"{name!r} is no factor of the model; it has {', '.join(sorted(known)) or 'none'}"
            )
        if name not in have:
            raise ModelError(f"no reliability for {name}: {refused[name]}")
    if not found:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
        raise ModelError(
            "no factor has a composite of observed indicators" + (f" ({reasons})" if reasons else "")
        )


def _check_weights(weights: Mapping[str, float], found: Sequence[Composite]) -> None:
    items = {item for c in found for item in c.items}
    for name in weights:
        if name not in items:
            raise ModelError(
                f"weights: {name!r} is no indicator of these factors; they have {', '.join(sorted(items))}"
            )
