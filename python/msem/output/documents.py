"""Tables of texts as HTML, LaTeX and Word, by the libraries that are made for it: great_tables and python-docx."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from msem.errors import ExtraError

if TYPE_CHECKING:
    from docx.table import _Cell

LINES = {"top": 8, "header": 4, "bottom": 8}  # eighths of a point
SMALL = 9  # points
WIDE = 6  # columns from which the page is turned


def great_table(frame: pd.DataFrame, notes: Sequence[str] = (), title: str = "") -> Any:
    """A `great_tables.GT` of texts.

    Parameters
    ----------
    frame : DataFrame
        Indexed by section and row; columns are pairs of a heading over several columns ("" for none) and one of
        the column.
    notes : sequence of str
        What stands below the table.
    title : str
        What stands above it.

    Raises
    ------
    ExtraError
        If great_tables is not installed.
    """
    try:
        from great_tables import GT
    except ImportError:
        raise ExtraError("tables as HTML and LaTeX need great_tables: pip install 'msem[tables]'") from None
    columns = [f"c{k}" for k in range(frame.shape[1])]
    flat = frame.set_axis(columns, axis=1).reset_index(names=["section", "row"])
    table = GT(flat, rowname_col="row", groupname_col="section")
    table = table.tab_header(title=title) if title else table
    pairs = list(zip(columns, frame.columns, strict=True))
    labels: dict[str, Any] = {name: str(key[1]) for name, key in pairs}
    table = table.cols_label(labels)
    over: dict[str, list[str]] = {}
    for name, key in pairs:
        over.setdefault(str(key[0]), []).append(name)
    for heading, own in over.items():
        table = table.tab_spanner(label=heading, columns=own) if heading else table
    table = table.cols_align("right", columns=columns)
    for note in notes:
        table = table.tab_source_note(note)
    return table


def latex_table(frame: pd.DataFrame, notes: Sequence[str], title: str, label: str, *, longtable: bool) -> str:
    """A table of LaTeX with caption and label, in the size of its text.

    Parameters
    ----------
    frame, notes
        As of `great_table`.
    title, label : str
        Caption, and name for references; may be empty.
    longtable : bool
        Over several pages, with headings on each.

    Raises
    ------
    ExtraError
        If great_tables is not installed.
    """
    text = str(great_table(frame, notes).as_latex(use_longtable=longtable))
    text = re.sub(r"\\fontsize\{.*\}\\selectfont\n+", "", text)
    named = (f"\\caption{{{_latex(title)}}}" if title else "") + (f"\\label{{{label}}}" if label else "")
    if not longtable:
        return re.sub(
            r"(\\begin\{table\}\[.*?\]\n)\n*", lambda found: found[1] + named + "\n" * bool(named), text
        )
    opening, rest = re.split(r"(?<=\n)\n*(?=\\toprule)", text, maxsplit=1)
    heads, body = rest.split("\\midrule", 1)
    first = f"{named} \\\\\n" if named else ""
    return f"{opening}{first}{heads}\\midrule\n\\endfirsthead\n{heads}\\midrule\n\\endhead\n{body.split(chr(10), 1)[1]}"


def _latex(text: str) -> str:
    """A text with the characters escaped that mean something in LaTeX."""
    out = text.replace("\\", "\\textbackslash ")
    for sign in "&%$#_{}":
        out = out.replace(sign, f"\\{sign}")
    return out.replace("~", "\\textasciitilde{}").replace("^", "\\textasciicircum{}")


def save_word(frame: pd.DataFrame, notes: Sequence[str], path: Path, title: str = "") -> None:
    """Write a Word document with a table of texts, whose headings repeat on each page.

    Parameters
    ----------
    frame, notes
        As of `great_table`.
    path : Path
    title : str
        What stands above the table.

    Raises
    ------
    ExtraError
        If python-docx is not installed.
    """
    try:
        from docx import Document
        from docx.enum.section import WD_ORIENT
        from docx.shared import Pt
    except ImportError:
        raise ExtraError("tables for Word need python-docx: pip install 'msem[word]'") from None
    document = Document()
    document.styles["Normal"].font.size = Pt(SMALL)
    page: Any = document.sections[0]
    if frame.shape[1] > WIDE:
        page.orientation = WD_ORIENT.LANDSCAPE
        page.page_width, page.page_height = page.page_height, page.page_width
    if title:
        document.add_paragraph().add_run(title).bold = True
    table = document.add_table(rows=0, cols=frame.shape[1] + 1)
    _fill(table, frame)
    _set_widths(table, page.page_width - page.left_margin - page.right_margin)
    for note in notes:
        paragraph = document.add_paragraph()
        paragraph.paragraph_format.space_before = Pt(4)
        paragraph.add_run("Note. ").italic = True
        paragraph.add_run(note)
    document.save(str(path))


def _fill(table: Any, frame: pd.DataFrame) -> None:
    """Headings, sections and rows."""
    heads = _headings(frame)
    lines = [*heads]
    for texts in heads:
        _write(table, "", texts)
    section = None
    for (own, name), values in zip(frame.index, frame.to_numpy(), strict=True):
        if own != section:
            section = own
            cells = table.add_row().cells
            _text(cells[0].merge(cells[-1]), own, bold=True)
        _write(table, str(name), [str(value) for value in values], indent=True)
    for k, texts in enumerate(heads):
        row = table.rows[k]
        _repeat(row)
        if k + 1 < len(heads):
            _merge(row.cells, texts)
        for cell in row.cells:
            _line(cell, "top", LINES["top"] if k == 0 else 0)
            _line(cell, "bottom", LINES["header"] if k + 1 == len(lines) else 0)
    for cell in table.rows[-1].cells:
        _line(cell, "bottom", LINES["bottom"])


def _set_widths(table: Any, width: int) -> None:
    """Columns as wide as their longest texts, in proportion."""
    count = len(table.columns)
    single = [row.cells for row in table.rows if len({id(cell._tc) for cell in row.cells}) == count]
    lengths = [max(len(cells[k].text) for cells in single) + 3 for k in range(count)]
    for k, column in enumerate(table.columns):
        column.width = width * lengths[k] // sum(lengths)
        for cells in single:
            cells[k].width = column.width


def _headings(frame: pd.DataFrame) -> list[list[str]]:
    """One line of headings where each fit has one column, two otherwise."""
    over, own = ([str(key[k]) for key in frame.columns] for k in range(2))
    if not any(over):
        return [own]
    return [over] if len(set(over)) == len(over) and len(set(own)) == 1 else [over, own]


def _write(table: Any, name: str, texts: Sequence[str], *, indent: bool = False) -> None:
    from docx.enum.text import WD_ALIGN_PARAGRAPH
    from docx.shared import Pt

    cells = table.add_row().cells
    _text(cells[0], name)
    if indent:
        cells[0].paragraphs[0].paragraph_format.left_indent = Pt(SMALL)
    for cell, text in zip(cells[1:], texts, strict=True):
        _text(cell, text)
        cell.paragraphs[0].alignment = WD_ALIGN_PARAGRAPH.RIGHT


def _text(cell: _Cell, text: str, *, bold: bool = False) -> None:
    from docx.shared import Pt

    paragraph = cell.paragraphs[0]
    paragraph.paragraph_format.space_after = Pt(0)
    paragraph.add_run(text).bold = bold


def _merge(cells: Sequence[_Cell], texts: Sequence[str]) -> None:
    """One heading over the columns of a fit."""
    from docx.enum.text import WD_ALIGN_PARAGRAPH

    first = 0
    for k in range(1, len(texts) + 1):
        if k < len(texts) and texts[k] == texts[first]:
            for run in cells[k + 1].paragraphs[0].runs:
                run.text = ""
            continue
        merged = cells[first + 1].merge(cells[k])
        for paragraph in merged.paragraphs[1:]:
            paragraph._p.getparent().remove(paragraph._p)
        merged.paragraphs[0].alignment = WD_ALIGN_PARAGRAPH.CENTER
        first = k


def _repeat(row: Any) -> None:
    """Show a row at the top of each page."""
    from docx.oxml import OxmlElement

    row._tr.get_or_add_trPr().append(OxmlElement("w:tblHeader"))


def _line(cell: _Cell, edge: str, size: int) -> None:
    """Draw an edge of a cell."""
    from docx.oxml import OxmlElement
    from docx.oxml.ns import qn

    if not size:
        return
    properties = cell._tc.get_or_add_tcPr()
    borders = properties.find(qn("w:tcBorders"))
    if borders is None:
        borders = OxmlElement("w:tcBorders")
        properties.append(borders)
    line = OxmlElement(f"w:{edge}")
    line.set(qn("w:val"), "single")
    line.set(qn("w:sz"), str(size))
    borders.append(line)
