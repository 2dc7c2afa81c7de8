"""A summary: what it shows, in order; its text in the layout of lavaan; its HTML for notebooks."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import zip_longest
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.output.documents import great_table
from msem.output.sections import Section, Value, cells, number
from msem.printing import frame_html, frame_text

HEADINGS = {
    "est": "Estimate",
    "se": "Std.Err",
    "z": "z-value",
    "t": "t-value",
    "pvalue": "P(>|z|)",
    "ci_lower": "ci.lower",
    "ci_upper": "ci.upper",
    "se_naive": "Naive.SE",
    "fmi": "FMI",
    "std_lv": "Std.lv",
    "std_all": "Std.all",
    "std_nox": "Std.nox",
}
TESTS = ("se", "z", "t", "df", "pvalue", "ci_lower", "ci_upper", "se_naive", "fmi")
Row = dict[str, Any]
KEYS = ("lhs", "op", "rhs", "level", "group", "label")


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryInputs:
    """Everything a summary shows.

    Parameters
    ----------
    title : str
        First line: program, version, and how the optimiser ended.
    estimates : mapping of str to list or array, or pandas.DataFrame
        As made by `tables.estimates_columns`; every column beyond the standard ones is shown too.
    messages : tuple of str
        Warnings, shown directly below the title.
    header : tuple of Section
        Estimator, sample size and the like.
    fit : tuple of Section
        Tests and fit measures: `sections.fit_sections`.
    method : tuple of (str, str)
        How the standard errors were computed.
    levels, groups : mapping of int to str
        Names of the levels and groups; empty when there is only one. A level may have the name "".
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
    estimates: Mapping[str, Any] | pd.DataFrame
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
        names = [name for name in map(str, self.estimates) if name not in KEYS]
        if not self.ci:
            names = [name for name in names if not name.startswith("ci_")]
        if not (np.asarray(self.estimates["se"]) > 0).any():
            names = [name for name in names if name not in TESTS]
        return tuple(names)

    @property
    def headings(self) -> list[str]:
        """What stands above these columns."""
        columns = self.columns
        shown = HEADINGS | ({"pvalue": "P(>|t|)"} if "t" in columns else {})
        return [shown.get(name, name) for name in columns]


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
    every, columns = _rows(inputs.estimates), inputs.columns
    hidden = [False] * len(every) if inputs.hidden is None else inputs.hidden.tolist()
    rows: dict[tuple[int, int], list[tuple[Row, bool]]] = {}
    for row, hide in zip(every, hidden, strict=True):
        rows.setdefault((row["group"], row["level"]), []).append((row, hide))
    for (group, level), members in rows.items():
        outcomes = _outcomes([row for row, _ in members])
        tables = _tables([row for row, hide in members if not hide], outcomes, columns)
        yield Block(
            f"Group {group} [{inputs.groups[group]}]" if group in inputs.groups else "",
            _level_heading(level, inputs.levels),
            tuple([table for table in (*tables, *_r2(inputs.r2, level, group)) if table.lines]),
        )


def _level_heading(level: int, names: Mapping[int, str]) -> str:
    """Of a level with a name or without one; "" if there is one level only."""
    if level not in names:
        return ""
    return f"Level {level} [{names[level]}]" if names[level] else f"Level {level}"


def _rows(estimates: Mapping[str, Any] | pd.DataFrame) -> list[Row]:
    names = [str(name) for name in estimates]
    own = [estimates[name] for name in names]
    columns = [column if isinstance(column, list) else column.tolist() for column in own]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _outcomes(rows: list[Row]) -> set[str]:
    return {r["lhs"] for r in rows if r["op"] == "~"} | {r["rhs"] for r in rows if r["op"] == "=~"}


def _tables(rows: list[Row], outcomes: set[str], columns: tuple[str, ...]) -> Iterator[Table]:
    kinds: dict[tuple[str, bool], list[Row]] = {}
    for row in rows:
        kinds.setdefault((row["op"], row["lhs"] == row["rhs"]), []).append(row)

    def having(op: str, own: bool = False) -> list[Row]:
        return kinds.get((op, own), [])

    yield Table("Latent Variables", _nested(having("=~"), set(), columns))
    yield Table("Regressions", _nested(having("~"), set(), columns))
    yield Table("Covariances", _nested(having("~~"), outcomes, columns))
    yield Table("Intercepts", _flat(having("~1"), outcomes, columns))
    yield Table("Thresholds", _nested(having("|"), set(), columns))
    yield Table("Variances", _flat(having("~~", own=True), outcomes, columns))
    yield Table("Scaling Factors", _flat(having("~*~", own=True), set(), columns))
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
    return tuple([_line(row, row["lhs"], outcomes, columns) for row in rows])


def _line(row: Row, name: str, outcomes: set[str], columns: tuple[str, ...]) -> Line:
    blank: Collection[str] = TESTS if row["se"] == 0 else ()
    if row["est"] != row["est"]:  # a random slope, whose mean is another row
        blank = [column for column in columns if not column.startswith("std_")]
    cells = tuple(["" if column in blank else number(row[column]) for column in columns])
    label = "" if row["op"] == ":=" else row["label"]
    return Line(name, label, cells, residual=name in outcomes)


def _r2(r2: pd.DataFrame | None, level: int, group: int) -> Iterator[Table]:
    if r2 is not None:
        own = r2[(r2["level"] == level) & (r2["group"] == group)]
        lines = zip(own["lhs"], own["r2"], strict=True)
        yield Table("R-Square", tuple(Line(name, cells=(number(value),)) for name, value in lines))


NAME = 18
CELL = 9


class SummaryText(str):
    """A summary as text that shows itself: as it is at a prompt, as tables in a notebook."""

    _inputs: SummaryInputs

    def __repr__(self) -> str:
        return str.__str__(self)

    def as_html(self) -> str:
        """The same summary as one HTML element."""
        return render_html(self._inputs)

    def as_latex(self) -> str:
        """The same summary as a LaTeX table, by great_tables.

        Raises
        ------
        ExtraError
            If great_tables is not installed.
        """
        return str(great_table(*_as_texts(self._inputs)).as_latex())

    def _repr_html_(self) -> str:
        return self.as_html()


def _as_texts(inputs: SummaryInputs) -> tuple[pd.DataFrame, list[str]]:
    """One table of texts of all lists and parameters, and what stands below it."""
    headings = inputs.headings
    rows: list[tuple[str, str, list[str]]] = []
    for section in inputs.sections:
        for name, value in section.rows:
            if name or isinstance(value, tuple):
                rows.append((section.title or inputs.title, name, list(cells(value))))
    for block in blocks(inputs):
        place = ", ".join(filter(None, (block.group, block.level)))
        for table in block.tables:
            title = f"{place}: {table.title}" if place else table.title
            rows += [(title, _indented(line).strip(), list(line.cells)) for line in table.lines]
    width = max(len(headings), *(len(texts) for *_, texts in rows))
    frame = pd.DataFrame(
        [[*texts, *[""] * (width - len(texts))] for *_, texts in rows],
        index=pd.MultiIndex.from_tuples([row[:2] for row in rows], names=["section", "row"]),
        columns=pd.MultiIndex.from_tuples(
            [("", name) for name in (*headings, *[""] * (width - len(headings)))]
        ),
    )
    return frame, list(inputs.messages)


def render_text(inputs: SummaryInputs) -> SummaryText:
    """Render the summary; lines have no trailing blanks and the last has no newline.

    Parameters
    ----------
    inputs : SummaryInputs

    Returns
    -------
    SummaryText
    """
    text = SummaryText("\n\n".join(_paragraphs(inputs)))
    text._inputs = inputs
    return text


def _paragraphs(inputs: SummaryInputs) -> Iterator[str]:
    yield inputs.title
    for message in inputs.messages:
        yield textwrap.fill(message, 78, initial_indent="  WARNING: ", subsequent_indent=" " * 11)
    yield from map(_text_list, inputs.sections)
    arranged = list(blocks(inputs))
    headings = inputs.headings
    columns = _Columns(arranged, headings)
    group = ""
    for block in arranged:
        if block.group != group:
            group = block.group
            yield f"\n{group}:"
        if block.level:
            yield f"\n{block.level}:"
        for table in block.tables:
            yield columns.table(table)
    for title, frame in inputs.tables:
        yield f"\n{title}:\n\n{frame_text(frame)}"


def _text_list(section: Section) -> str:
    lines = [f"{section.title}:", ""] if section.title else []
    width = section.width
    for name, value in section.rows:
        text = number(value, section.column)
        shown = name or isinstance(value, tuple)
        lines.append(f"  {name}{text:>{width - 2 - len(name)}}" if shown else "")
        if len(name) + len(text.lstrip()) > width - 4:
            lines[-1] = f"  {name}  {text.lstrip()}"
    return "\n".join([line.rstrip() for line in lines])


class _Columns:
    """Widths that fit every name and number of the summary, so that all tables are aligned."""

    def __init__(self, arranged: list[Block], headings: list[str]) -> None:
        lines = [line for block in arranged for table in block.tables for line in table.lines]
        self._headings = headings
        self._name = max([NAME, *[len(_indented(line)) + _label_width(line) for line in lines]])
        by_column = zip_longest(headings, *[line.cells for line in lines], fillvalue="")
        self._widths = [max(CELL, max(map(len, column)) + 1) for column in by_column]

    def table(self, table: Table) -> str:
        headings = self._headings[:1] if table.title == "R-Square" else self._headings
        header = " " * self._name + self._cells(headings)
        return "\n".join([f"{table.title}:", header, *[self._line(line) for line in table.lines]])

    def _line(self, line: Line) -> str:
        label = f"({line.label})" if line.label else ""
        name = _indented(line)
        return (name + label.rjust(self._name - len(name)) + self._cells(line.cells)).rstrip()

    def _cells(self, cells: Sequence[str]) -> str:
        return "".join([cell.rjust(width) for cell, width in zip(cells, self._widths, strict=False)])


def _indented(line: Line) -> str:
    """Indented name; a dot marks residual variances, covariances and intercepts."""
    return " " * (2 * line.depth + 1) + ("." if line.residual else " ") + line.name


def _label_width(line: Line) -> int:
    return len(line.label) + 3 if line.label else 0


STYLE = """
.msem {font-size: .9em; line-height: 1.35}
.msem .msem-row {display: flex; flex-wrap: wrap; gap: .8em 2.5em; align-items: flex-start}
.msem table {border-collapse: collapse; margin: 0; border: 0; font-size: inherit}
.msem caption {caption-side: top; text-align: left; font-weight: bold; white-space: nowrap; color: inherit}
.msem caption {padding: .4em .2em .2em}
.msem tr, .msem tbody tr:nth-child(odd), .msem tbody tr:hover {background: none}
.msem td, .msem th {padding: .05em .55em; border: 0; text-align: right; font-variant-numeric: tabular-nums}
.msem th:first-child {text-align: left; font-weight: normal; white-space: pre; padding-left: .2em}
.msem thead th {border-bottom: 1px solid; font-weight: bold}
.msem tbody th[colspan] {font-weight: bold; padding-top: .4em}
.msem .msem-label {opacity: .65}
.msem .msem-warning {border-left: .25em solid #c60; padding: .1em .6em; margin: .4em 0; max-width: 60em}
.msem .msem-group {font-weight: bold; margin-top: .8em}
"""


def render_html(inputs: SummaryInputs) -> str:
    """Render the summary as one HTML element; every name and number is escaped.

    Parameters
    ----------
    inputs : SummaryInputs

    Returns
    -------
    str
    """
    return "\n".join(
        [
            '<div class="msem">',
            f"<style>{STYLE}</style>",
            f"<div><b>{escape(inputs.title)}</b></div>",
            *(
                f'<div class="msem-warning"><b>Warning:</b> {escape(message)}</div>'
                for message in inputs.messages
            ),
            '<div class="msem-row">',
            *_lists(inputs),
            "</div>",
            *_blocks(inputs),
            *(f"<div><b>{escape(title)}</b></div>\n{frame_html(frame)}" for title, frame in inputs.tables),
            "</div>",
        ]
    )


def _lists(inputs: SummaryInputs) -> Iterator[str]:
    """Join the sections without title into one table."""
    untitled = tuple(row for section in inputs.sections if not section.title for row in section.rows)
    if untitled:
        yield _html_list(Section("", untitled))
    yield from (_html_list(section) for section in inputs.sections if section.title)


def _html_list(section: Section) -> str:
    caption = f"<caption>{escape(section.title)}</caption>" if section.title else ""
    rows = "\n".join(
        f"<tr><th>{escape(name)}</th>{_cells(value)}</tr>"
        for name, value in section.rows
        if name or isinstance(value, tuple)
    )
    return f"<table>{caption}<tbody>\n{rows}\n</tbody></table>"


def _cells(value: Value) -> str:
    return "".join(f"<td>{escape(cell)}</td>" for cell in cells(value))


def _blocks(inputs: SummaryInputs) -> Iterator[str]:
    headings = inputs.headings
    group, open_row = "", False
    for block in blocks(inputs):
        if block.group != group or not open_row:
            if open_row:
                yield "</div>"
            if block.group:
                yield f'<div class="msem-group">{escape(block.group)}</div>'
            yield '<div class="msem-row">'
            group, open_row = block.group, True
        yield _block(block, headings)
    if open_row:
        yield "</div>"


def _block(block: Block, headings: list[str]) -> str:
    caption = f"<caption>{escape(block.level)}</caption>\n" if block.level else ""
    head = "".join(f"<th>{escape(text)}</th>" for text in ("", *headings))
    bodies = "\n".join(_body(table, len(headings)) for table in block.tables)
    return f"<table>{caption}<thead><tr>{head}</tr></thead>\n{bodies}\n</table>"


def _body(table: Table, width: int) -> str:
    title = f'<tr><th colspan="{width + 1}">{escape(table.title)}</th></tr>'
    rows = (_row(line, width) for line in table.lines)
    return "\n".join(["<tbody>", title, *rows, "</tbody>"])


def _row(line: Line, width: int) -> str:
    label = f' <span class="msem-label">({escape(line.label)})</span>' if line.label else ""
    dot = "." if line.residual else ""
    cells = (*line.cells, *[""] * (width - len(line.cells)))
    data = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f"<tr><th>{'  ' * line.depth}{dot}{escape(line.name)}{label}</th>{data}</tr>"
