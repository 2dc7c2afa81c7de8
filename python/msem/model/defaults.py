"""Rows that the user leaves out: lavaan's defaults for `sem`, `cfa` and `growth`, level by level."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from msem.errors import ModelError
from msem.language.syntax import ModelSyntax, Position
from msem.model.drafts import BlockDraft, Draft
from msem.model.levels import WITHIN
from msem.model.references import key_of

Fun = Literal["sem", "cfa", "growth"]


@dataclass(frozen=True, slots=True)
class Defaults:
    """What decides about the rows that the user leaves out.

    Attributes
    ----------
    fun : {"sem", "cfa", "growth"}
        ``growth`` frees the means of the latent variables and fixes the intercepts of the observed ones.
    std_lv, orthogonal, meanstructure : bool
        As in `parameter_table`.
    both : collection of str
        Variables at both levels; their within intercept is 0, since their mean belongs to the between level.
    fixed : collection of str
        Covariates whose moments are taken from the sample.
    """

    fun: Fun
    std_lv: bool
    orthogonal: bool
    meanstructure: bool
    both: Collection[str]
    fixed: Collection[str]


def add_defaults(block: BlockDraft, options: Defaults) -> None:
    """Complete the rows of one level, in lavaan's order."""
    if options.std_lv:
        _fix_written_variances(block)
    else:
        _fix_first_loadings(block)
    _add_variances(block, options)
    _add_covariances(block, options)
    _add_covariates(block, options)
    if options.meanstructure:
        _anchor_within_intercepts(block, options)
        _add_means(block, options)


def _add(block: BlockDraft, lhs: str, op: str, rhs: str, value: float = math.nan, exo: bool = False) -> None:
    key = key_of(lhs, op, rhs)
    if key not in block.rows:
        block.rows[key] = Draft(lhs, op, rhs, block.level, block.group, value=value, exo=exo)


def _fix_first_loadings(block: BlockDraft) -> None:
    """Give each latent variable the scale of its first indicator."""
    seen: set[str] = set()
    for row in block.rows.values():
        if row.op == "=~" and row.lhs not in seen:
            seen.add(row.lhs)
            if "free" not in row.said and "fixed" not in row.said:
                row.value = 1.0


def _fix_written_variances(block: BlockDraft) -> None:
    """Give latent variables whose variance is written without a value unit variance; NA frees it."""
    for name in block.latent:
        row = block.rows.get((name, "~~", name))
        if row is not None and "free" not in row.said and "fixed" not in row.said:
            row.value = 1.0


def _single_indicators(block: BlockDraft) -> set[str]:
    """Find indicators that are the only one of their factor and of no other; they have no residual."""
    loadings = [row for row in block.rows.values() if row.op == "=~"]
    per_factor = Counter(row.lhs for row in loadings)
    per_indicator = Counter(row.rhs for row in loadings)
    return {row.rhs for row in loadings if per_factor[row.lhs] == per_indicator[row.rhs] == 1}


def _add_variances(block: BlockDraft, options: Defaults) -> None:
    single = _single_indicators(block)
    for name in block.observed:
        if name not in block.covariates:
            _add(block, name, "~~", name, 0.0 if name in single else math.nan)
    for name in block.latent:
        default = 0.0 if name in single else 1.0 if options.std_lv else math.nan
        _add(block, name, "~~", name, default)


def _add_covariances(block: BlockDraft, options: Defaults) -> None:
    """Let exogenous factors covary, and the residuals of variables that predict nothing."""
    latent_pair = 0.0 if options.orthogonal else math.nan
    exogenous = [n for n in block.latent if n not in block.outcomes and n not in block.indicators]
    for lhs, rhs in combinations(exogenous, 2):
        _add(block, lhs, "~~", rhs, latent_pair)
    last = {n for n in block.outcomes if n not in block.predictors and n not in block.indicators}
    for lhs, rhs in combinations(_in_order(last, block), 2):
        _add(block, lhs, "~~", rhs, latent_pair if rhs in block.latent else math.nan)


def _in_order(names: Collection[str], block: BlockDraft) -> list[str]:
    """Sort latent variables first, each kind in the order of its block."""
    return [n for kind in (block.latent, block.observed) for n in kind if n in names]


def _add_covariates(block: BlockDraft, options: Defaults) -> None:
    names = list(block.covariates)
    for i, lhs in enumerate(names):
        for rhs in names[i:]:
            _add(block, lhs, "~~", rhs, exo=lhs in options.fixed and rhs in options.fixed)


def _anchor_within_intercepts(block: BlockDraft, options: Defaults) -> None:
    """Keep at 0 the within intercepts that the user writes down for variables at both levels.

    Their mean is a parameter of the between level; only a value fixed by the user is kept.
    """
    if block.level != WITHIN:
        return
    for name in options.both:
        row = block.rows.get((name, "~1", ""))
        if row is None or not row.free:
            continue
        if row.label or "equal" in row.said:
            message = (
                f"'{name}' is at both levels, so its within intercept is 0 and cannot be labelled; "
                "its mean is the intercept at the between level"
            )
            raise ModelError(block.syntax.locate(row.at or Position(1, 1), message))
        row.value, row.start, row.lower, row.upper = 0.0, None, -math.inf, math.inf


def _add_means(block: BlockDraft, options: Defaults) -> None:
    growth = options.fun == "growth"
    for name in (*(n for n in block.observed if n not in block.covariates), *block.covariates):
        anchored = block.level == WITHIN and name in options.both
        exo = name in options.fixed
        # A covariate's mean is data, not part of the growth curve.
        at_zero = anchored or (growth and name not in block.covariates)
        _add(block, name, "~1", "", 0.0 if at_zero else math.nan, exo)
    for name in block.latent:
        _add(block, name, "~1", "", math.nan if growth and _has_mean(block, name, options) else 0.0)


def _has_mean(block: BlockDraft, factor: str, options: Defaults) -> bool:
    """Whether growth frees the mean of a factor: not if all its indicators have a within mean of 0."""
    if block.level != WITHIN or not options.both:
        return True
    indicators = (row.rhs for row in block.rows.values() if row.op == "=~" and row.lhs == factor)
    return any(name in block.observed and name not in options.both for name in indicators)


def check_same_kind(blocks: Iterable[BlockDraft], syntax: ModelSyntax) -> None:
    """Refuse a name that is latent at one level and observed at the other.

    Raises
    ------
    ModelError
        Naming the variable, both levels and the place.
    """
    blocks = list(blocks)
    for block in blocks:
        for other in blocks:
            for name in other.observed:
                if name in block.latent:
                    row = next(r for r in other.rows.values() if name in (r.lhs, r.rhs))
                    message = (
                        f"'{name}' is a latent variable at level {block.level} and has no indicators at "
                        f"level {other.level}; give it indicators there, or use another name"
                    )
                    raise ModelError(syntax.locate(row.at or Position(1, 1), message))
