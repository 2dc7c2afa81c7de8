"""Path diagrams of models and fits."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from msem.entry import entries
from msem.errors import DataError, ExtraError, ModelError
from msem.estimation.solution import Solution
from msem.model.levels import Level
from msem.model.partable import ParameterTable
from msem.names import Translated
from msem.output.tables import hidden_rows
from msem.pictures.beside import size_of
from msem.pictures.canvas import RULES, axes, require_matplotlib
from msem.pictures.dot import dot_text
from msem.pictures.graph import Errors, LevelGraph, Numbers, Style, level_graphs
from msem.pictures.layout import Spacing
from msem.pictures.paint import MARGIN, height_of, paint
from msem.pictures.scene import Scene, compose
from msem.pictures.tikz import tikz_text
from msem.postestimation.estimates import estimates
from msem.postestimation.standardized import KINDS, Kind
from msem.postestimation.standardized import standardized as solution_standardized
from msem.settings import require_choice, require_whole

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

MOST_GROUPS = 6  # side by side
MOST_VARIABLES = 60  # at a level
STARRED = "* p < .05, ** p < .01, *** p < .001"
METRICS = {
    "std_all": "Standardized estimates",
    "std_lv": "Estimates, latent variables standardized",
    "std_nox": "Standardized estimates, observed covariates in their own units",
}


@entries
@dataclass(frozen=True, eq=False)
class Diagram(Translated):
    """A path diagram; immutable. In a notebook it shows itself.

    Made by `Fit.diagram` and `msem.diagram`.

    Attributes
    ----------
    graphs : mapping of (level, group) to LevelGraph
        Variables and arrows.
    titles : mapping of int to str
        Labels of the groups that are drawn.
    note : str
        What the signs mean.
    multilevel : bool
        Whether the model has two levels.
    """

    graphs: Mapping[tuple[int, int], LevelGraph]
    titles: Mapping[int, str]
    note: str
    multilevel: bool = False

    @cached_property
    def scene(self) -> Scene:
        """Shapes and their places, made once."""
        arrows = [arrow for graph in self.graphs.values() for arrow in graph.arrows]
        wide = max((size_of(arrow)[0] for arrow in arrows), default=0.0)
        means = any(arrow.kind == "mean" for arrow in arrows)
        spacing = Spacing(gap=max(0.16, wide - 0.3) + 0.16 * means)
        return compose(self.graphs, self.titles, spacing, multilevel=self.multilevel)

    @property
    def _wrapped(self) -> str:
        return "\n".join(textwrap.wrap(self.note, max(int(18.5 * self.scene.width), 40)))

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in inches at which names have 9 points."""
        return self.scene.width + 2 * MARGIN, height_of(self.scene, self._wrapped)

    def draw(self, ax: Axes | None = None) -> Axes:
        """Draw with matplotlib.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to; texts shrink and grow with it. Default: a new figure of the diagram's own size.

        Returns
        -------
        matplotlib.axes.Axes

        Raises
        ------
        ExtraError
            Without matplotlib: ``pip install 'msem[plot]'``.
        """
        with axes(ax, *self.size, bare=True) as drawn:
            paint(self.scene, self._wrapped, drawn)
            return drawn

    def svg(self) -> str:
        """The diagram as a document in SVG, the same each time."""
        require_matplotlib()
        out = StringIO()
        self._write(out, "svg", metadata={"Date": None})
        return out.getvalue()

    def to_dot(self) -> str:
        """The diagram as text for Graphviz.

        A cluster for each level and group. ``neato -n2`` leaves variables where they are here, ``dot`` finds places of
        its own.
        """
        return dot_text(self.scene, self.note)

    def to_tikz(self) -> str:
        """The diagram as a tikzpicture for LaTeX, which needs the libraries arrows.meta and shapes.geometric."""
        return tikz_text(self.scene, self._wrapped)

    def save(self, path: str | Path, *, dpi: float = 200) -> None:
        r"""Write the diagram to a file.

        Parameters
        ----------
        path : str or Path
            Ends in .svg, .png, .pdf, .dot, .gv, or .tex (the tikzpicture, to be \input).
        dpi : float
            Dots to an inch, of .png.

        Raises
        ------
        DataError
            If the name ends otherwise, or there is no such folder.
        """
        path = Path(path)
        if not path.parent.is_dir():
            raise DataError(f"{path}: there is no folder {path.parent}")
        texts = {".dot": self.to_dot, ".gv": self.to_dot, ".tex": self.to_tikz, ".svg": self.svg}
        kind = path.suffix.lower()
        if kind in texts:
            path.write_text(texts[kind](), encoding="utf-8")
        elif kind in (".png", ".pdf"):
            self._write(path, kind[1:], dpi=dpi)
        else:
            raise DataError(f"{path}: a diagram is saved as .svg, .png, .pdf, .dot, .gv or .tex")

    def _write(self, out: Any, kind: str, **options: Any) -> None:
        """Draw into a figure of its own that no window knows of."""
        require_matplotlib()
        from matplotlib import rc_context
        from matplotlib.figure import Figure

        with rc_context(RULES):
            figure = Figure(figsize=self.size)
            paint(self.scene, self._wrapped, figure.add_axes((0, 0, 1, 1)))
            figure.savefig(out, format=kind, **options)

    def _repr_svg_(self) -> str | None:
        try:
            return self.svg()
        except ExtraError:
            return None

    def __repr__(self) -> str:
        levels, groups = ({key[k] for key in self.graphs} for k in (0, 1))
        arrows = sum(len(graph.arrows) for graph in self.graphs.values())
        counts = ((len(levels), "level"), (len(groups), "group"), (arrows, "arrow"))
        what = ", ".join(f"{count} {name}{'s' * (count != 1)}" for count, name in counts)
        return f"<msem.Diagram: {what}; draw(), save(path)>"


@dataclass(frozen=True)
class Choices:
    """What of a model is drawn, and how; see `diagram`."""

    standardized: bool | Kind = False
    errors: Errors = "stars"
    digits: int = 2
    variances: bool = True
    means: bool = False
    covariates: bool = False
    level: Level | None = None
    groups: Sequence[str] | None = None

    def __post_init__(self) -> None:
        require_choice("errors", self.errors, get_args(Errors))
        require_whole("digits", self.digits, 0)
        if not isinstance(self.standardized, bool):
            require_choice("standardized", self.standardized, KINDS)

    @property
    def metric(self) -> Kind | None:
        """Standardized by what; None for raw estimates."""
        if isinstance(self.standardized, bool):
            return "std_all" if self.standardized else None
        return self.standardized


def numbers_of(frame: pd.DataFrame, standard: pd.DataFrame, rows: int) -> Numbers:
    """What is written beside the arrows of a fit.

    Parameters
    ----------
    frame : DataFrame
        Estimates, in whatever metric: est (or est_std), se, pvalue; its first rows are those of the table.
    standard : DataFrame
        Standardized estimates, `std_all`.
    rows : int
        Of the table.
    """
    est = frame["est_std" if "est_std" in frame else "est"]
    columns = (est, frame["se"], frame["pvalue"], standard["std_all"])
    return Numbers(*(column.to_numpy(dtype=np.float64)[:rows] for column in columns))


def diagram_of(table: ParameterTable, numbers: Numbers | None, choices: Choices, what: str = "") -> Diagram:
    """Draw the diagram of a parameter table.

    Parameters
    ----------
    table : ParameterTable
    numbers : Numbers or None
        Estimates; None for a model without data.
    choices : Choices
    what : str
        First sentence of the note; default: by `choices`.

    Raises
    ------
    ModelError
        If there are too many groups or variables to be read, or no such group or level.
    """
    chosen = _chosen_groups(table, choices.groups)
    for level in range(1, table.nlevels + 1):
        count = len(table.observed(level)) + len(table.latent(level))
        if count > MOST_VARIABLES:
            raise ModelError(
                f"a diagram of {count} variables at one level cannot be read; {MOST_VARIABLES} are the most"
            )
    values = Numbers.none(table.rows) if numbers is None else numbers
    hidden = hidden_rows(table.rows, values.est, table.auxiliary)
    if choices.covariates:
        hidden &= ~np.array([row.exo for row in table.rows], dtype=bool)
    style = Style(choices.errors, choices.digits, choices.variances, choices.means)
    graphs = level_graphs(table, hidden.tolist(), values, style, list(chosen))
    if choices.level is not None:
        number = table.level(choices.level)
        graphs = {key: graph.alone for key, graph in graphs.items() if key[0] == number}
    known = numbers is not None
    return Diagram(graphs, chosen, _note(graphs, choices, what, known=known), table.multilevel)


def _chosen_groups(table: ParameterTable, asked: Sequence[str] | None) -> dict[int, str]:
    """Groups to draw, by number."""
    labels = dict(enumerate(table.group_labels, 1)) if table.ngroups > 1 else {1: ""}
    if asked is not None:
        names = [asked] if isinstance(asked, str) else list(asked)
        unknown = [name for name in names if name not in labels.values()]
        if unknown:
            there = ", ".join(map(repr, labels.values())) if table.ngroups > 1 else "no groups"
            raise ModelError(f"there is no group {unknown[0]!r}; the model has {there}")
        labels = {number: label for number, label in labels.items() if label in names}
    if len(labels) > MOST_GROUPS:
        some = ", ".join(map(repr, [*labels.values()][:3]))
        raise ModelError(
            f"{len(labels)} groups side by side cannot be read: choose {MOST_GROUPS} at most with groups=, such as "
            f"groups=[{some}]"
        )
    return labels


def _note(graphs: Mapping[tuple[int, int], LevelGraph], choices: Choices, what: str, *, known: bool) -> str:
    """What the signs mean that occur."""
    arrows = [arrow for graph in graphs.values() for arrow in graph.arrows]
    kind = choices.metric
    said = []
    if known:
        first = what or ("Unstandardized estimates" if kind is None else METRICS[kind])
        said.append(first + (" (standard errors)" if any("(" in a.error for a in arrows) else ""))
        if any("*" in a.error for a in arrows):
            said.append(STARRED)
        if any(a.weak and not a.fixed for a in arrows):
            said.append("Grey: p ≥ .05")
        if any(a.negative and not (a.weak or a.fixed) for a in arrows):
            said.append("Orange: below 0")
    if any(a.fixed and a.kind in ("loading", "regression", "covariance") for a in arrows):
        said.append("Dashed arrows: fixed")
    marks = [a.mark for a in arrows if a.mark]
    if len(set(marks)) < len(marks):
        said.append("Same letters: equal by constraint")
    if any(a.slope for a in arrows):
        said.append("Dots: random slopes, whose means are their fixed parts")
    if any(node.shape == "part" for graph in graphs.values() for node in graph.nodes.values()):
        said.append("Dashed ellipses: between parts of variables")
    return ". ".join(said) + "." if said else ""


def diagram(
    fit: Solution,
    *,
    standardized: bool | Kind = False,
    errors: Errors = "stars",
    digits: int = 2,
    variances: bool = True,
    means: bool = False,
    covariates: bool = False,
    level: Level | None = None,
    groups: Sequence[str] | None = None,
) -> Diagram:
    """Draw the path diagram of the model with its estimates.

    Each level is a panel, the between level above the within level; the parts of a variable at both levels are joined
    by dotted lines. Latent variables, between parts among them, are ellipses, observed variables boxes. Single-headed
    arrows are loadings and regressions, double-headed ones covariances; a short arrow from nowhere is a residual
    variance, a loop the variance of what nothing explains. Arrows are as wide as standardized estimates are large;
    groups stand side by side and are laid out alike.

    Parameters
    ----------
    standardized : bool or {"std_all", "std_lv", "std_nox"}
        Show the standardized solution; True: "std_all".
    errors : {"stars", "se", "none"}
        Beside estimates: stars of significance, or standard errors in parentheses.
    digits : int
        Decimals.
    variances, means : bool
        Show variances; show means and intercepts, by arrows from triangles.
    covariates : bool
        Show the moments of fixed covariates too.
    level : {1, 2, "within", "between"}, optional
        Draw one level only.
    groups : sequence of str, optional
        Labels of the groups to draw; default: all.

    Returns
    -------
    Diagram
        With `draw`, `svg`, `save`, `to_dot` and `to_tikz`.

    Raises
    ------
    ModelError
        If the fit has not converged, or there are more than six groups or 60 variables at a level.

    Examples
    --------
    >>> import msem
    >>> model = "level: 1; fw =~ y1 + y2 + y3; level: 2; fb =~ y1 + y2 + y3"
    >>> fit = msem.sem(model, msem.load_demo(), cluster="cluster")
    >>> fit.diagram(standardized=True)
    <msem.Diagram: 2 levels, 1 group, 14 arrows; draw(), save(path)>
    """
    choices = Choices(standardized, errors, digits, variances, means, covariates, level, groups)
    require_converged(fit.converged)
    plain = estimates(fit, standardized=True)
    shown = plain if choices.metric is None else solution_standardized(fit, choices.metric)
    return diagram_of(fit.table, numbers_of(shown, plain, len(fit.table.rows)), choices)


def require_converged(converged: bool) -> None:
    """Refuse to draw what are no estimates.

    Raises
    ------
    ModelError
    """
    if not converged:
        raise ModelError(
            "the fit has not converged, so there are no estimates to draw; fit.problems says what to try, and "
            "msem.diagram draws the model text without data"
        )
