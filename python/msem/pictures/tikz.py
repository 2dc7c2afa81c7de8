"""A diagram as text for LaTeX, drawn by TikZ."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from msem.pictures.curves import Curve
from msem.pictures.paint import DOT, colour_of, width_of
from msem.pictures.scene import DrawnArrow, DrawnNode, Scene

SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "_": r"\_",
    "%": r"\%",
    "&": r"\&",
    "#": r"\#",
    "$": r"\$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "−": "$-$",
    "≥": r"$\geq$",
}
HEAD = r"""% needs \usepackage{tikz} and \usetikzlibrary{arrows.meta, shapes.geometric}
\begin{tikzpicture}[x=1in, y=1in, >={Latex[length=4.5pt, width=3.5pt]},
  observed/.style={draw, rectangle, inner sep=0pt, fill=white, font=\footnotesize},
  latent/.style={draw, ellipse, inner sep=0pt, fill=white, font=\footnotesize},
  part/.style={latent, dashed},
  constant/.style={draw, regular polygon, regular polygon sides=3, inner sep=0pt, minimum size=0.22in},
  number/.style={inner sep=1pt, font=\scriptsize, align=center}]"""


def tikz_text(scene: Scene, note: str) -> str:
    """Write a scene as a tikzpicture, with lengths in inches.

    Parameters
    ----------
    scene : Scene
    note : str
        Below the panels.
    """
    return "\n".join([*_lines(scene, note), ""])


def _lines(scene: Scene, note: str) -> Iterator[str]:
    yield HEAD
    drawn = [arrow.arrow for arrow in scene.arrows]
    for colour in dict.fromkeys(colour_of(arrow) for arrow in drawn):
        yield rf"  \definecolor{{{_colour(colour)}}}{{HTML}}{{{colour[1:].upper()}}}"
    for panel in scene.panels:
        corner = _point((panel.x + panel.width, panel.y + panel.height))
        yield rf"  \draw[rounded corners=4pt, black!20, fill=black!3] {_point((panel.x, panel.y))} rectangle {corner};"
        y = panel.y + 0.08 if panel.facing else panel.y + panel.height - 0.08
        anchor = "south west" if panel.facing else "north west"
        if panel.title:
            title = rf"\textbf{{{escaped(panel.title)}}}"
            yield rf"  \node[anchor={anchor}, font=\small] at {_point((panel.x + 0.05, y))} {{{title}}};"
    for join in scene.joins:
        yield rf"  \draw[densely dotted, black!50] {_way(join)};"
    for arrow in scene.arrows:
        yield from _arrow(arrow)
    for node in scene.nodes:
        yield _node(node)
    if note:
        lines = r" \\ ".join(escaped(line) for line in note.split("\n"))
        yield rf"  \node[anchor=north west, font=\scriptsize, align=left] at (0,-0.05) {{{lines}}};"
    yield r"\end{tikzpicture}"


def _node(drawn: DrawnNode) -> str:
    place = drawn.place
    size = f"minimum width={place.width:.2f}in, minimum height={place.height:.2f}in"
    return rf"  \node[{drawn.node.shape}, {size}] at {_point(place.centre)} {{{escaped(drawn.node.name)}}};"


def _arrow(drawn: DrawnArrow) -> Iterator[str]:
    arrow = drawn.arrow
    tips = "<->" if drawn.form in ("arc", "loop") else "->"
    dashes = ", dashed" if arrow.fixed and arrow.kind not in ("variance", "mean") else ""
    colour = _colour(colour_of(arrow))
    yield rf"  \draw[{tips}, {colour}, line width={width_of(arrow):.2f}pt{dashes}] {_way(drawn.curve)};"
    if drawn.form == "mean":
        x, y = drawn.curve.points[0]
        yield rf"  \node[constant] at {_point((x, y))} {{\tiny 1}};"
    if arrow.slope:
        x, y = drawn.curve.at(np.array([DOT]))[0]
        yield rf"  \fill {_point((x, y))} circle (0.045);"
    if drawn.label is not None:
        fill = ", fill=black!3" if drawn.form in ("arrow", "arc") else ""
        anchor = ", anchor=west" if drawn.side == "left" else ""
        mark = rf"\textsuperscript{{{escaped(arrow.mark)}}}" if arrow.mark else ""
        between = r" \\ " if arrow.error.startswith("(") else ""
        text = f"{escaped(arrow.text)}{mark}{between}{escaped(arrow.error)}"
        yield rf"  \node[number, {colour}{fill}{anchor}] at {_point(drawn.label)} {{{text}}};"


def _way(curve: Curve) -> str:
    """Lines and curves; a quadratic one as the cubic one that it is."""
    points = curve.points
    if not curve.bent or len(points) == 2:
        return " -- ".join(_point((x, y)) for x, y in points)
    if len(points) == 3:
        p, c, q = points
        points = np.array([p, p + 2 / 3 * (c - p), q + 2 / 3 * (c - q), q])
    first, one, other, last = (_point((x, y)) for x, y in points)
    return f"{first} .. controls {one} and {other} .. {last}"


def _point(at: tuple[float, float]) -> str:
    return f"({at[0]:.3f},{at[1]:.3f})"


def _colour(colour: str) -> str:
    return f"msem{colour[1:]}"


def escaped(text: str) -> str:
    """A text as LaTeX prints it."""
    return "".join(SPECIAL.get(character, character) for character in text)
