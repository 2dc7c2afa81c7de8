"""Summary as text, in lavaan's layout."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from itertools import zip_longest

from msem.output.sections import Section, number
from msem.output.summary import Block, Line, SummaryInputs, Table, blocks
from msem.printing import frame_text

NAME = 18
CELL = 9


def render_text(inputs: SummaryInputs) -> str:
    """Render the summary; lines have no trailing blanks and the last has no newline.

    Parameters
    ----------
    inputs : SummaryInputs

    Returns
    -------
    str
    """
    return "\n\n".join(_paragraphs(inputs))


def _paragraphs(inputs: SummaryInputs) -> Iterator[str]:
    yield inputs.title
    for message in inputs.messages:
        yield textwrap.fill(message, 78, initial_indent="  WARNING: ", subsequent_indent=" " * 11)
    yield from map(_list, inputs.sections)
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


def _list(section: Section) -> str:
    lines = [f"{section.title}:", ""] if section.title else []
    width = section.width
    for name, value in section.rows:
        text = number(value, section.column)
        shown = name or isinstance(value, tuple)
        lines.append(f"  {name}{text:>{width - 2 - len(name)}}" if shown else "")
        if len(name) + len(text.lstrip()) > width - 4:
            lines[-1] = f"  {name}  {text.lstrip()}"
    return "\n".join(line.rstrip() for line in lines)


class _Columns:
    """Widths that fit every name and number of the summary, so that all tables are aligned."""

    def __init__(self, arranged: list[Block], headings: list[str]) -> None:
        lines = [line for block in arranged for table in block.tables for line in table.lines]
        self._headings = headings
        self._name = max([NAME, *(len(_name(line)) + _label_width(line) for line in lines)])
        by_column = zip_longest(headings, *(line.cells for line in lines), fillvalue="")
        self._widths = [max(CELL, *(len(cell) + 1 for cell in column)) for column in by_column]

    def table(self, table: Table) -> str:
        headings = self._headings[:1] if table.title == "R-Square" else self._headings
        header = " " * self._name + self._cells(headings)
        return "\n".join([f"{table.title}:", header, *(self._line(line) for line in table.lines)])

    def _line(self, line: Line) -> str:
        label = f"({line.label})" if line.label else ""
        name = _name(line)
        return (name + label.rjust(self._name - len(name)) + self._cells(line.cells)).rstrip()

    def _cells(self, cells: Sequence[str]) -> str:
        return "".join(f"{cell:>{width}}" for cell, width in zip(cells, self._widths, strict=False))


def _name(line: Line) -> str:
    """Indented name; a dot marks residual variances, covariances and intercepts."""
    return " " * (2 * line.depth + 1) + ("." if line.residual else " ") + line.name


def _label_width(line: Line) -> int:
    return len(line.label) + 3 if line.label else 0
