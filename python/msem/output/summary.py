"""What a summary shows, in order, before it becomes text or HTML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.output.sections import Section, Value, number

HEADINGS = {
    "est": "Estimate",
    "se": "Std.Err",
    "z": "z-value",
    "t": "t-value",
    "pvalue": "P(>|z|)",
    "ci_lower": "ci.lower",
    "ci_upper": "ci.upper",
    "se_naive": "Naive.SE",
    "std_lv": "Std.lv",
    "std_all": "Std.all",
    "std_nox": "Std.nox",
}
TESTS = ("se", "z", "t", "df", "pvalue", "ci_lower", "ci_upper", "se_naive")
Row = dict[str, Any]
KEYS = ("lhs", "op", "rhs", "level", "group", "label")


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryInputs:
    """Everything a summary shows.

    Parameters
    ----------
    title : str
        First line: program, version, and how the optimiser ended.
    estimates : pandas.DataFrame
        As made by `tables.estimates_frame`; every column beyond the standard ones is shown too.
    messages : tuple of str
        Warnings, shown directly below the title.
    header : tuple of Section
        Estimator, sample size and the like.
    fit : tuple of Section
        Tests and fit measures: `sections.fit_sections`.
    method : tuple of (str, str)
        How the standard errors were computed.
    levels, groups : mapping of int to str
        Names of the levels and groups; empty when there is only one.
    hidden : array of bool, shape (rows,), optional
        Rows to leave out: `tables.hidden_rows`.
    r2 : pandas.DataFrame, optional
        As made by `standardized.r_squared`.
    ci : bool
        Show confidence intervals.
    tables : tuple of (str, DataFrame)
        Further tables with their titles, shown last.
    """

    title: str
    estimates: pd.DataFrame
    messages: tuple[str, ...] = ()
    header: tuple[Section, ...] = ()
    fit: tuple[Section, ...] = ()
    method: tuple[tuple[str, Value], ...] = ()
    levels: Mapping[int, str] = field(default_factory=dict)
    groups: Mapping[int, str] = field(default_factory=dict)
    hidden: NDArray[np.bool_] | None = None
    r2: pd.DataFrame | None = None
    ci: bool = False
    tables: tuple[tuple[str, pd.DataFrame], ...] = ()

    @property
    def sections(self) -> tuple[Section, ...]:
        """All titled lists that are not empty, in order."""
        method = Section("Parameter Estimates", self.method)
        return tuple(section for section in (*self.header, *self.fit, method) if section.rows)

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns to show: without tests when there is no standard error."""
        names = [name for name in self.estimates.columns if name not in KEYS]
        if not self.ci:
            names = [name for name in names if not name.startswith("ci_")]
        if not (self.estimates["se"] > 0).any():
            names = [name for name in names if name not in TESTS]
        return tuple(names)

    @property
    def headings(self) -> list[str]:
        """What stands above these columns."""
        shown = HEADINGS | ({"pvalue": "P(>|t|)"} if "t" in self.columns else {})
        return [shown.get(name, name) for name in self.columns]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a table of estimates; a heading such as ``fw =~`` has no cells."""

    name: str
    label: str = ""
    cells: tuple[str, ...] = ()
    depth: int = 1
    residual: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Lines under one title, such as Regressions."""

    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """The tables of one level of one group; `group` and `level` are headings, empty when not needed."""

    group: str
    level: str
    tables: tuple[Table, ...]


def blocks(inputs: SummaryInputs) -> Iterator[Block]:
    """Arrange the estimates by group and level."""
    hidden = np.zeros(len(inputs.estimates), dtype=bool) if inputs.hidden is None else inputs.hidden
    rows: dict[tuple[int, int], list[tuple[Row, bool]]] = {}
    for row, hide in zip(_rows(inputs.estimates), hidden, strict=True):
        rows.setdefault((row["group"], row["level"]), []).append((row, bool(hide)))
    for (group, level), members in rows.items():
        outcomes = _outcomes([row for row, _ in members])
        tables = _tables([row for row, hide in members if not hide], outcomes, inputs.columns)
        yield Block(
            f"Group {group} [{inputs.groups[group]}]" if group in inputs.groups else "",
            f"Level {level} [{inputs.levels[level]}]" if level in inputs.levels else "",
            tuple(table for table in (*tables, *_r2(inputs.r2, level, group)) if table.lines),
        )


def _rows(frame: pd.DataFrame) -> list[Row]:
    columns = {str(name): frame[name].tolist() for name in frame.columns}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _outcomes(rows: list[Row]) -> set[str]:
    return {r["lhs"] for r in rows if r["op"] == "~"} | {r["rhs"] for r in rows if r["op"] == "=~"}


def _tables(rows: list[Row], outcomes: set[str], columns: tuple[str, ...]) -> Iterator[Table]:
    def having(op: str, own: bool = False) -> list[Row]:
        return [row for row in rows if row["op"] == op and (row["lhs"] == row["rhs"]) == own]

    yield Table("Latent Variables", _nested(having("=~"), set(), columns))
    yield Table("Regressions", _nested(having("~"), set(), columns))
    yield Table("Covariances", _nested(having("~~"), outcomes, columns))
    yield Table("Intercepts", _flat(having("~1"), outcomes, columns))
    yield Table("Variances", _flat(having("~~", own=True), outcomes, columns))
    yield Table("Defined Parameters", _flat(having(":="), set(), columns))


def _nested(rows: list[Row], outcomes: set[str], columns: tuple[str, ...]) -> tuple[Line, ...]:
    """Lines grouped under their left-hand side."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["lhs"], row["op"]), []).append(row)
    lines: list[Line] = []
    for (lhs, op), members in groups.items():
        lines.append(Line(f"{lhs} {op}", depth=0, residual=lhs in outcomes))
        lines += [_line(row, row["rhs"], outcomes, columns) for row in members]
    return tuple(lines)


def _flat(rows: list[Row], outcomes: set[str], columns: tuple[str, ...]) -> tuple[Line, ...]:
    return tuple(_line(row, row["lhs"], outcomes, columns) for row in rows)


def _line(row: Row, name: str, outcomes: set[str], columns: tuple[str, ...]) -> Line:
    fixed = row["se"] == 0
    cells = tuple("" if fixed and column in TESTS else number(row[column]) for column in columns)
    label = "" if row["op"] == ":=" else row["label"]
    return Line(name, label, cells, residual=name in outcomes)


def _r2(r2: pd.DataFrame | None, level: int, group: int) -> Iterator[Table]:
    if r2 is not None:
        own = r2[(r2["level"] == level) & (r2["group"] == group)]
        lines = zip(own["lhs"], own["r2"], strict=True)
        yield Table("R-Square", tuple(Line(name, cells=(number(value),)) for name, value in lines))
