"""The graph of a model: variables and arrows of every level and group, with what is written beside the arrows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count, product
from string import ascii_lowercase
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from msem.errors import UnsupportedError
from msem.model.partable import Parameter, ParameterTable

Floats = NDArray[np.float64]
Shape = Literal["observed", "latent", "part"]
Kind = Literal["loading", "regression", "covariance", "variance", "mean"]
Errors = Literal["stars", "se", "none"]

UNDRAWN = ("|", "~*~")  # thresholds and scaling factors are no variables
STARS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))


@dataclass(frozen=True)
class Node:
    """A variable at one level.

    Attributes
    ----------
    name : str
    shape : {"observed", "latent", "part"}
        "part": the part at this level of a variable that is measured at a lower one, which is latent too.
    """

    name: str
    shape: Shape


@dataclass(frozen=True)
class Arrow:
    """One row of the parameter table.

    Attributes
    ----------
    source, target : str
        Names of variables; the same for variances and means.
    kind : {"loading", "regression", "covariance", "variance", "mean"}
    text : str
        The estimate, or the value that the parameter is fixed at; "" without either.
    error : str
        Standard error in parentheses, or stars.
    mark : str
        Label, or a letter that equal parameters share.
    size : float
        Absolute standardized estimate, between 0 and 1; nan without estimates.
    slope : str
        The random slope of a regression, a latent variable of the level above; its name stands for an estimate.
    negative, fixed, weak : bool
        Whether the estimate is below 0; the parameter is not estimated; it is not significantly different from 0.
    """

    source: str
    target: str
    kind: Kind
    text: str = ""
    error: str = ""
    mark: str = ""
    size: float = math.nan
    negative: bool = False
    fixed: bool = False
    weak: bool = False
    slope: str = ""

    @property
    def key(self) -> tuple[str, str, Kind]:
        """What the same parameter has in common in all groups; covariances may be written either way round."""
        first, second = self.source, self.target
        if self.kind == "covariance" and second < first:
            first, second = second, first
        return first, second, self.kind

    @property
    def label(self) -> str:
        """What is written beside the arrow, without the mark."""
        between = "\n" if self.error.startswith("(") else ""
        return f"{self.text}{between}{self.error}"


@dataclass(frozen=True)
class LevelGraph:
    """The graph of one level of one group.

    Attributes
    ----------
    level, group : int
    nodes : mapping of str to Node
        In order of the rows.
    arrows : tuple of Arrow
    facing : bool
        Whether there is a level above, so that the panel hangs down from it.
    """

    level: int
    group: int
    nodes: Mapping[str, Node]
    arrows: tuple[Arrow, ...]
    facing: bool = False

    @property
    def alone(self) -> LevelGraph:
        """The same as a diagram of one level has it."""
        return replace(self, facing=False)

    def of(self, *kinds: Kind) -> tuple[Arrow, ...]:
        """Arrows of some kinds."""
        return tuple(arrow for arrow in self.arrows if arrow.kind in kinds)

    @property
    def latent(self) -> list[str]:
        """Names of the latent variables."""
        return [name for name, node in self.nodes.items() if node.shape == "latent"]

    def indicators(self, factor: str) -> list[str]:
        """Variables that load on a factor."""
        return [arrow.target for arrow in self.of("loading") if arrow.source == factor]


@dataclass(frozen=True, eq=False)
class Numbers:
    """What there is to write beside the rows of a table, in their order.

    Attributes
    ----------
    est, se, pvalue : ndarray, shape (rows,)
        In the metric that is shown; nan where there is none.
    size : ndarray, shape (rows,)
        Standardized estimates.
    """

    est: Floats
    se: Floats
    pvalue: Floats
    size: Floats

    @classmethod
    def none(cls, rows: Sequence[Parameter]) -> Numbers:
        """Of a model without data: the values that are fixed."""
        empty = np.full(len(rows), np.nan)
        fixed = np.array([row.value if not row.free else np.nan for row in rows], dtype=np.float64)
        return cls(fixed, empty, empty, empty)


@dataclass(frozen=True)
class Style:
    """What is written beside arrows, and which of them are drawn.

    Attributes
    ----------
    errors : {"stars", "se", "none"}
    digits : int
    variances, means : bool
    """

    errors: Errors = "stars"
    digits: int = 2
    variances: bool = True
    means: bool = False


def level_graphs(
    table: ParameterTable, hidden: Sequence[bool], numbers: Numbers, style: Style, groups: Sequence[int]
) -> dict[tuple[int, int], LevelGraph]:
    """Graphs by level and group.

    Parameters
    ----------
    table : ParameterTable
    hidden : sequence of bool
        Rows that are left out, such as the moments of fixed covariates.
    numbers : Numbers
    style : Style
    groups : sequence of int
        Groups that are drawn, counted from 1.

    Raises
    ------
    UnsupportedError
        If the model has parameters that a diagram has no sign for.
    """
    marks = _marks(table.rows)
    slopes = {slope_of(row) for row in table.rows}
    arrows: dict[tuple[int, int], list[Arrow]] = {}
    for k, (row, left_out) in enumerate(zip(table.rows, hidden, strict=True)):
        block = (row.level, row.group)
        if row.group in groups and row.op not in UNDRAWN:
            shown = replace(style, means=style.means or row.lhs in slopes)  # the mean is the fixed part
            drawn = [] if left_out else _drawn(row, k, numbers, marks, shown)
            arrows.setdefault(block, []).extend(drawn)
    return {
        (level, group): LevelGraph(
            level, group, _nodes(table, level, group), tuple(found), level < table.nlevels
        )
        for (level, group), found in sorted(arrows.items(), key=lambda item: (item[0][1], item[0][0]))
    }


def _nodes(table: ParameterTable, level: int, group: int) -> dict[str, Node]:
    rows = (row for row in table.block(level, group) if row.op not in UNDRAWN)
    names = dict.fromkeys(v for r in rows for v in (r.lhs, r.rhs) if v)
    parts = {name for below in range(1, level) for name in table.anchored(below)}
    latent = set(table.latent(level, group))
    auxiliary = set(table.auxiliary)

    def shape(name: str) -> Shape:
        if name in latent:
            return "latent"
        return "part" if name in parts else "observed"

    return {name: Node(name, shape(name)) for name in names if name not in auxiliary}


def _drawn(
    row: Parameter, at: int, numbers: Numbers, marks: Mapping[int, str], style: Style
) -> Iterator[Arrow]:
    """The arrow of a row, unless there is nothing to be seen of it."""
    source, target, kind = _ends(row)
    value, se, pvalue, size = (
        float(of[at]) for of in (numbers.est, numbers.se, numbers.pvalue, numbers.size)
    )
    if (kind == "variance" and not style.variances) or (kind == "mean" and not style.means):
        return
    slope = slope_of(row)
    if slope:
        yield Arrow(source, target, kind, slope, slope=slope)
        return
    if not row.free and value == 0 and kind != "loading":
        return
    fixed = not row.free and not se > 0  # a fixed loading has a standard error in the standardized solution
    text = "" if math.isnan(value) else _number(value, style.digits, exact=fixed)
    error = "" if fixed else _error(se, pvalue, style)
    yield Arrow(
        source,
        target,
        kind,
        text,
        error,
        marks.get(row.free, row.label) if row.free else "",
        min(abs(size), 1.0),
        value < 0,
        fixed,
        pvalue >= STARS[-1][0],
    )


def slope_of(row: Parameter) -> str:
    """The random slope of a path; "" for other rows."""
    return str(getattr(row, "slope", ""))


def _ends(row: Parameter) -> tuple[str, str, Kind]:
    """Source, target and kind of the arrow of a row."""
    if row.op == "=~":
        return row.lhs, row.rhs, "loading"
    if row.op == "~":
        return row.rhs, row.lhs, "regression"
    if row.op == "~~":
        return row.lhs, row.rhs, "variance" if row.lhs == row.rhs else "covariance"
    if row.op == "~1":
        return row.lhs, row.lhs, "mean"
    raise UnsupportedError(
        f"a diagram has no sign for '{row.lhs} {row.op} {row.rhs}' yet; leave it out to draw the rest"
    )


def _number(value: float, digits: int, *, exact: bool) -> str:
    """A value with its decimals; a fixed one with as few as it has."""
    if exact and round(value, 6) == round(value, digits):
        return f"{value:.{digits}f}".rstrip("0").rstrip(".").replace("-", "−")
    text = f"{value:.{digits}f}"
    return (text.lstrip("-") if float(text) == 0 else text).replace("-", "−")


def _error(se: float, pvalue: float, style: Style) -> str:
    if style.errors == "se":
        return f"({se:.{style.digits}f})" if se > 0 else ""
    if style.errors == "stars":
        return next((stars for limit, stars in STARS if pvalue < limit), "")
    return ""


def _marks(rows: Sequence[Parameter]) -> dict[int, str]:
    """Letters of the parameters that several rows share: their label if they have one."""
    shared = {free for free, times in Counter(row.free for row in rows if row.free).items() if times > 1}
    labels = {row.free: row.label for row in rows if row.label}
    free_letters = (letter for letter in _letters() if letter not in labels.values())
    order = dict.fromkeys(row.free for row in rows if row.free in shared)
    return {free: labels.get(free) or next(free_letters) for free in order}


def _letters() -> Iterator[str]:
    """a, ..., z, aa, ab, ..."""
    return chain.from_iterable(
        ("".join(letters) for letters in product(ascii_lowercase, repeat=length)) for length in count(1)
    )


def merged(graphs: Sequence[LevelGraph]) -> LevelGraph:
    """What the same level has in one of several groups at least, with the longest labels: all are laid out alike."""
    nodes = {name: node for graph in graphs for name, node in graph.nodes.items()}
    arrows: dict[tuple[str, str, Kind], Arrow] = {}
    for arrow in (a for graph in graphs for a in graph.arrows):
        known = arrows.setdefault(arrow.key, arrow)
        if len(arrow.label + arrow.mark) > len(known.label + known.mark):
            arrows[arrow.key] = arrow
    return LevelGraph(graphs[0].level, 0, nodes, tuple(arrows.values()), graphs[0].facing)
