"""Summary as HTML for notebooks: self-contained, no script, colours left to the page."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from msem.output.sections import Section, Value, cells
from msem.output.summary import Block, Line, SummaryInputs, Table, blocks
from msem.printing import frame_html

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
        yield _list(Section("", untitled))
    yield from (_list(section) for section in inputs.sections if section.title)


def _list(section: Section) -> str:
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
