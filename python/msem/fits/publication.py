"""Tables for publication: estimates of several fits side by side with sample, tests and fit measures below."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from msem.data.storage import replacing
from msem.entry import entries, entry, options_of
from msem.errors import DataError, ModelError
from msem.fits.fit import Fit
from msem.fits.pooling import Pooled
from msem.fits.reporting import inner_counts
from msem.fits.saved import SavedFit
from msem.fits.segregated import LevelFit, SegregatedFit
from msem.fits.synopsis import named_fits
from msem.model.levels import level_title
from msem.output.documents import great_table, latex_table, save_word
from msem.output.variants import measure_label, reported, variant_of, variants_note
from msem.postestimation.fit_measures import chosen_measures
from msem.settings import require_choice, require_whole, several
from msem.version import __version__

Show = Literal["se", "ci", "pvalue", "stars", "std_all", "std_lv", "std_nox"]
Shown = Fit | SavedFit | Pooled | SegregatedFit
Measured = Mapping[str, Mapping[str, tuple[str, float]]]
"""Fit measures and their values, by the section they stand in and the name that was asked for."""
LONG = 40  # rows from which on a table of LaTeX goes over several pages
OPERATOR = re.compile(r"( (?:=~|~~|~|\|) )")
BOUNDS = (0.05, 0.01, 0.001)
SECTIONS = {
    "=~": "Loadings",
    "~": "Regressions",
    "~~": "Covariances",
    "~1": "Intercepts",
    "|": "Thresholds",
    "~*~": "Scaling factors",
    ":=": "Defined parameters",
}
MEASURES = (
    "chisq",
    "df",
    "pvalue",
    "cfi",
    "tli",
    "rmsea",
    "srmr",
    "aic",
    "bic",
)
COUNTS = ("df", "baseline_df", "npar", "ntotal", "nclusters")
BELOW_ONE = ("pvalue", "cfi", "tli", "rmsea", "srmr")  # and what is named after them
HEADINGS = {"std_all": "Std. all", "std_lv": "Std. lv", "std_nox": "Std. nox"}


@entries
@dataclass(frozen=True, eq=False)
class PublicationTable:
    """A table of texts, in the formats of manuscripts; immutable. Made by `msem.table`.

    Attributes
    ----------
    frame : DataFrame
        Texts: indexed by section and row; columns are pairs of fit and column.
    notes : tuple of str
        What stands below the table.
    title : str
        What stands above it; may be empty.
    """

    frame: pd.DataFrame
    notes: tuple[str, ...]
    title: str = ""

    @property
    def gt(self) -> Any:
        """The table as a `great_tables.GT`, to be formatted further.

        Raises
        ------
        ImportError
            If great_tables is not installed.
        """
        return great_table(self.frame, self.notes, self.title)

    def to_html(self) -> str:
        """HTML."""
        return str(self.gt.as_raw_html())

    def to_latex(self, *, label: str = "", longtable: bool | None = None) -> str:
        r"""LaTeX, with the packages booktabs and, for long tables, longtable; the title is the caption.

        Parameters
        ----------
        label : str
            Of the table, for `\ref`.
        longtable : bool, optional
            A table that goes over several pages, with its headings on each. Default: for 40 rows or more.
        """
        longer = len(self.frame) >= LONG if longtable is None else longtable
        return latex_table(self.frame, self.notes, self.title, label, longtable=longer)

    def to_markdown(self) -> str:
        """A table of Markdown with its notes."""
        over = self.frame.columns.get_level_values(0)
        single = self.frame.shape[1] == len(set(over)) and all(over)
        heads = [str(key[0]) if single else ": ".join(filter(None, key)) for key in self.frame.columns]
        above = [f"**{_escaped(self.title)}**", ""] if self.title else []
        lines = [["", *heads], ["---", *["---:"] * len(heads)]]
        section = ""
        for (own, row), values in zip(self.frame.index, self.frame.to_numpy(), strict=True):
            if own != section:
                section = own
                lines.append([f"**{section}**", *[""] * len(heads)])
            lines.append([f"`{row}`" if "~" in row else str(row), *map(str, values)])
        text = ["| " + " | ".join(_escaped(cell) for cell in line) + " |" for line in lines]
        return "\n".join([*above, *text, "", *map(_escaped, self.notes)])

    def to_csv(self) -> str:
        """Comma-separated values."""
        return self.frame.to_csv()

    def save(self, path: Any, *, label: str = "") -> None:
        """Write a file in the format of its suffix: .docx, .html, .tex, .md or .csv.

        Parameters
        ----------
        path : path
        label : str
            Of a table in LaTeX.

        Raises
        ------
        DataError
            If the suffix is another one.
        ImportError
            If the format needs great_tables or python-docx and it is not installed.
        """
        writers: dict[str, Callable[[], str]] = {
            ".html": self.to_html,
            ".tex": partial(self.to_latex, label=label),
            ".md": self.to_markdown,
            ".csv": self.to_csv,
        }
        suffix = Path(path).suffix.lower()
        if suffix == ".docx":
            with replacing(path) as file:
                save_word(self.frame, self.notes, file, self.title)
            return
        if suffix not in writers:
            raise DataError(
                f"{path}: a table is written to a file with the suffix .docx, {', '.join(writers)}"
            )
        text = writers[suffix]()
        with replacing(path) as file:
            file.write_text(text, encoding="utf-8")

    def __str__(self) -> str:
        return self.to_markdown()

    def __repr__(self) -> str:
        return f"<msem.PublicationTable: {self.frame.shape[0]} rows, {self.frame.shape[1]} columns>"

    def _repr_html_(self) -> str:
        try:
            return self.to_html()
        except ImportError:
            return str(self.frame.to_html(border=0))


def _escaped(text: str) -> str:
    """A text in which Markdown sees no emphasis and no column; headings keep theirs."""
    if text.startswith("**") and text.endswith("**"):
        return text
    return text.replace("|", "\\|").replace("*", "\\*")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_texts(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_is_text, value.values()))


@entry
def table(
    *fits: Shown | Mapping[str, Shown] | Sequence[Shown],
    show: Show | Sequence[Show] = ("se", "stars"),
    ops: str | Sequence[str] | None = None,
    fit_measures: str | Sequence[str] | None = None,
    digits: int = 3,
    apa: bool = False,
    ci_level: float = 0.95,
    labels: Mapping[str, str] | None = None,
    title: str = "",
    note: str = "",
    **named: Shown,
) -> PublicationTable:
    """Put fits side by side as a table for publication.

    Parameters
    ----------
    *fits : fits, one mapping from name to fit, or one list of fits
        Several without names are called model_1, model_2, ... Fits of `msem.segregated` have fit measures of each
        level.
    show : str or sequence of str
        What stands beside an estimate: "se" in parentheses, "ci" in brackets, "pvalue", "stars" for p < .05, .01 and
        .001; a column of its own have "std_all", "std_lv" and "std_nox".
    ops : str or sequence of str, optional
        Rows, by operator: ``("=~", "~")``. Default: all that are estimated in some fit, or fixed by the model text.
    fit_measures : str or sequence of str, optional
        Names of `Fit.fit_measures`. Default: chi-square, CFI, TLI, RMSEA, SRMR by level, AIC and BIC. Where a fit has
        a scaled test ``"chisq"`` is the scaled chi-square, and ``"cfi"``, ``"tli"`` and ``"rmsea"`` are the robust
        ones, or scaled where there are no robust ones; a note says which are. Names with their variant, such as
        ``"cfi_scaled"``, stand for themselves.
    digits : int
        Decimals.
    apa : bool
        Numbers as in the style of the American Psychological Association: no zero before the point where a value cannot
        exceed 1, and p < .001.
    ci_level : float
        Coverage of intervals.
    labels : mapping of str to str, optional
        What is shown in the place of names: of variables, wherever they stand (``{"fw": "Motivation"}``), of whole rows
        (``{"fb ~ w1": "Effect of size", "CFI": "Comparative fit"}``), of sections and of headings.
    title : str
        Above the table; in LaTeX the caption.
    note : str
        Below the table, before what is said of estimators and errors.
    **named : fits
        Fits with their names: ``msem.table(invariant=fit1, free=fit2)``.

    Returns
    -------
    PublicationTable

    Raises
    ------
    ModelError
        If something is no fit, a fit measure does not exist, or a label is of nothing in the table.

    Examples
    --------
    >>> import msem
    >>> fit = msem.sem("f =~ y1 + y2 + y3", msem.load_demo())
    >>> print(msem.table(fit, ops="=~", fit_measures="df").to_markdown().splitlines()[3])
    | `f =~ y1` | 1.000 |
    >>> print(msem.table(fit, ops="=~", labels={"f": "Ability", "y1": "Item 1"}).to_markdown().splitlines()[3])
    | `Ability =~ Item 1` | 1.000 |
    """
    shown = several(show)
    for name in shown:
        require_choice("show", name, get_args(Show))
    require_whole("digits", digits, 0)
    if labels is not None and not _are_texts(labels):
        raise ModelError(f"labels is a dict of texts by name, such as {{'fw': 'Motivation'}}, not {labels!r}")
    if not (_is_text(title) and _is_text(note)):
        raise ModelError(f"title and note are texts, not {title!r} and {note!r}")
    given = named_fits("table", fits, named, options=options_of(table))
    for name, fit in given.items():
        if not isinstance(fit, Shown):
            raise ModelError(
                f"{name} is a {type(fit).__name__}: table takes fits of msem.sem, saved or pooled ones, and of "
                "msem.segregated"
            )
    standardized = tuple(name for name in shown if name in HEADINGS)
    kept = None if ops is None else several(ops)
    parts: dict[tuple[str, str], pd.Series] = {}
    for name, fit in given.items():
        frame = _rows(fit, kept, ci_level, standardized=bool(standardized))
        heading = f"{100 * ci_level:g}% CI" if "ci" in shown and shown[0] == "ci" else "Estimate"
        parts[name, heading] = frame.apply(_cell, axis=1, args=(shown, digits, apa))
        for column in standardized:
            parts[name, HEADINGS[column]] = frame[column].map(lambda value: number_text(value, digits, apa))
    estimates = pd.concat(parts, axis=1)
    order = {section: k for k, section in enumerate(estimates.index.get_level_values(0).unique())}
    estimates = estimates.sort_index(
        level=0, key=lambda index: index.map(order), kind="stable", sort_remaining=False
    )
    measured = _measured(given, fit_measures)
    frame = pd.concat([estimates, _below(given, parts, measured, digits, apa)]).fillna("")
    # the name of a single fit that the user has not named says nothing
    alone = len(given) == 1 and not named and not isinstance(fits[0], Mapping)
    columns = [("" if alone else key[0], key[1]) for key in parts]
    frame.columns = pd.MultiIndex.from_tuples(columns, names=["fit", "column"])
    (said,) = _notes(given, measured, shown, ci_level)
    return PublicationTable(_labelled(frame, labels or {}), (" ".join(filter(None, (note, said))),), title)


def _labelled(frame: pd.DataFrame, labels: Mapping[str, str]) -> pd.DataFrame:
    """The table with labels in the place of names: of a row as a whole, or of the variables it is made of."""
    used: set[str] = set()

    def shown(text: str) -> str:
        parts = [text] if text in labels else OPERATOR.split(text)
        used.update(part for part in parts if part in labels)
        return "".join(labels.get(part, part) for part in parts)

    def of_section(text: str) -> str:
        pieces = [text] if text in labels else text.split(": ")
        used.update(piece for piece in pieces if piece in labels)
        return ": ".join(labels.get(piece, piece) for piece in pieces)

    rows = [(of_section(section), shown(row)) for section, row in frame.index.tolist()]
    columns = [tuple(labels.get(name, name) for name in key) for key in frame.columns.tolist()]
    used.update(name for key in frame.columns.tolist() for name in key if name in labels)
    unused = [name for name in labels if name not in used]
    if unused:
        raise ModelError(
            f"labels: {unused[0]!r} is no variable, row, section or heading of the table; rows are "
            f"{', '.join(dict.fromkeys(row for _, row in frame.index.tolist()))}"
        )
    return frame.set_axis(pd.MultiIndex.from_tuples(rows, names=frame.index.names), axis=0).set_axis(
        pd.MultiIndex.from_tuples(columns, names=frame.columns.names), axis=1
    )


def _rows(fit: Shown, ops: Sequence[str] | None, ci_level: float, *, standardized: bool) -> pd.DataFrame:
    """Estimates by section and row."""
    frame = fit.estimates(standardized=standardized, ci_level=ci_level)
    rows = (*fit.table.rows, *[None] * (len(frame) - len(fit.table.rows)))
    wanted = np.array([row is None or (not row.exo and (row.free > 0 or row.user)) for row in rows])
    if ops is not None:
        wanted &= frame["op"].isin(list(ops)).to_numpy()
    frame = frame[wanted]
    groups = fit.table.group_labels
    sections, names = [], []
    for lhs, op, rhs, level, group in frame[["lhs", "op", "rhs", "level", "group"]].itertuples(index=False):
        title = "Variances" if op == "~~" and lhs == rhs else SECTIONS[op]
        where = [level_title(level, fit.table.nlevels)] if fit.table.multilevel and level else []
        where += [groups[group - 1]] if groups and group else []
        sections.append(": ".join([", ".join(where), title]) if where else title)
        names.append(lhs if title == "Variances" or op in ("~1", "~*~", ":=") else f"{lhs} {op} {rhs}")
    kept = [row for row, one in zip(rows, wanted, strict=True) if one]
    frame = frame.assign(slope=["" if row is None else row.slope for row in kept])
    return frame.set_index(pd.MultiIndex.from_arrays([sections, names], names=["section", "row"]))


def _cell(row: pd.Series, show: Sequence[str], digits: int, apa: bool) -> str:
    """An estimate with what goes with it."""
    if row["slope"]:
        return f"random ({row['slope']})"
    estimated = row["se"] != 0
    text = f"{row['est']:.{digits}f}"
    if not estimated:
        return text
    if "stars" in show:
        text += "*" * sum(row["pvalue"] < bound for bound in BOUNDS)
    if "se" in show:
        text += f" ({row['se']:.{digits}f})"
    if "ci" in show:
        text += f" [{row['ci_lower']:.{digits}f}, {row['ci_upper']:.{digits}f}]"
    if "pvalue" in show:
        text += f" {pvalue_text(row['pvalue'], digits, apa, name='p ')}"
    return text


def number_text(value: float, digits: int, apa: bool, *, below_one: bool = True) -> str:
    """A number with some decimals; "" for nan."""
    if value != value:
        return ""
    text = f"{value:.{digits}f}"
    text = text.lstrip("-") if float(text) == 0 else text
    bare = apa and below_one and abs(value) <= 1
    return text.replace("0.", ".", 1) if bare and text.lstrip("-").startswith("0.") else text


def pvalue_text(value: float, digits: int, apa: bool, name: str = "") -> str:
    """A p-value; below what the decimals can show it is less than that."""
    if value != value:
        return ""
    if value < 10**-digits:
        return f"{name}< {number_text(10**-digits, digits, apa)}"
    return f"{name}= {number_text(value, digits, apa)}" if name else number_text(value, digits, apa)


def _measured(given: Mapping[str, Shown], wanted: str | Sequence[str] | None) -> dict[str, Measured]:
    """For each fit, by section and by the name asked for, the measure that stands for it and its value."""
    found = {
        name: {section: part.fit_measures() for section, part in _tested(fit).items()}
        for name, fit in given.items()
    }
    every = [own for sections in found.values() for own in sections.values()]
    if wanted is None:
        at = MEASURES.index("srmr") + 1
        names = [
            *MEASURES[:at],
            *dict.fromkeys(one for own in every for one in _by_level(own)),
            *MEASURES[at:],
        ]
    else:
        names = [str(name).lower().replace(".", "_") for name in several(wanted)]
        for name in names:
            if not any(name in own.index for own in every):
                chosen_measures(every[0], name)
    return {
        name: {section: _standing_for(names, own, summed=wanted is None) for section, own in sections.items()}
        for name, sections in found.items()
    }


def _standing_for(names: Sequence[str], measures: pd.Series, *, summed: bool) -> dict[str, tuple[str, float]]:
    """The measures that stand for some names; without the sum of SRMR over levels, if `summed`.

    That is no SRMR, whose conventions are for one covariance matrix.
    """
    left_out = summed and bool(_by_level(measures))
    keys = {
        one: reported(one, measures.index)
        for one in names
        if one in measures.index and not (left_out and one == "srmr")
    }
    return {one: (key, float(measures[key])) for one, key in keys.items()}


def _by_level(measures: pd.Series) -> list[str]:
    """SRMR of single levels; none at one level."""
    return [one for one in measures.index if re.fullmatch(r"srmr_(within|between|l\d+)", str(one))]


def _measure_row(name: str, levels: bool) -> str:
    """Heading of the row of a measure."""
    return "SRMR, sum over levels" if name == "srmr" and levels else measure_label(name)


def _below(
    given: Mapping[str, Shown],
    parts: Mapping[tuple[str, str], pd.Series],
    measured: Mapping[str, Measured],
    digits: int,
    apa: bool,
) -> pd.DataFrame:
    """Sample and fit measures."""
    columns: dict[tuple[str, str], dict[tuple[str, str], str]] = {}
    first = {name: next(key for key in parts if key[0] == name) for name in given}
    for name, fit in given.items():
        column = {("Sample", "Units"): _count(fit.nobs)}
        if fit.nclusters is not None:
            whole = fit if isinstance(fit, Fit) else None
            inner = {} if whole is None else inner_counts(whole.options, tuple(whole.groups.values()))
            highest = f"Clusters: {whole.options.cluster}" if whole is not None and inner else "Clusters"
            column["Sample", highest] = _count(fit.nclusters)
            column |= {("Sample", f"Clusters: {name}"): f"{count:.0f}" for name, count in inner.items()}
        column["Sample", "Parameters"] = f"{fit.npar}"
        for section, own in measured[name].items():
            for one, (_, value) in own.items():
                bare, _ = variant_of(one)
                text = number_text(value, digits, apa, below_one=bare.startswith(BELOW_ONE))
                if bare.endswith("pvalue"):
                    text = pvalue_text(value, digits, apa)
                elif bare in COUNTS:
                    text = f"{value:g}"
                column[section, _measure_row(one, fit.table.multilevel and section == "Fit")] = text
        columns[first[name]] = column
    rows = list(dict.fromkeys(key for column in columns.values() for key in column))
    index = pd.MultiIndex.from_tuples(rows, names=["section", "row"])
    frame = pd.DataFrame(
        {key: [column.get(row, "") for row in rows] for key, column in columns.items()}, index=index
    )
    return frame.reindex(columns=pd.MultiIndex.from_tuples(parts), fill_value="")


def _count(number: float) -> str:
    """A number of units; a mean over imputations need not be whole."""
    return f"{number:.0f}" if number == round(number) else f"{number:.1f}"


def _tested(fit: Shown) -> Mapping[str, Fit | SavedFit | Pooled | LevelFit]:
    """What has fit measures, by the section that they stand in: the whole, or each level that was fitted by itself."""
    if not isinstance(fit, SegregatedFit):
        return {"Fit": fit}
    return {f"{level_title(own.level, fit.nlevels)}: Fit": own for own in fit.levels}


def _estimator(fit: Shown) -> str:
    if not isinstance(fit, SegregatedFit):
        return fit.options.estimator
    scaled = ", its chi-square mean-scaled" if fit.levels[0].scaled else ""
    return f"{fit.method} of each level{scaled}"


def _notes(
    given: Mapping[str, Shown], measured: Mapping[str, Measured], show: Sequence[str], ci_level: float
) -> tuple[str, ...]:
    estimators = {name: _estimator(fit) for name, fit in given.items()}
    same = len(set(estimators.values())) == 1
    how = next(iter(estimators.values())) if same else ", ".join(f"{n}: {e}" for n, e in estimators.items())
    beside = {
        "se": "Standard errors in parentheses.",
        "ci": f"{100 * ci_level:g}% confidence intervals in brackets.",
        "stars": "* p < .05, ** p < .01, *** p < .001.",
    }
    notes = [beside[name] for name in show if name in beside]
    scaled = _variants(measured)
    odd = [f"{name}: {fit.status}" for name, fit in given.items() if fit.status != "ok"]
    pooled = {fit.m for fit in given.values() if isinstance(fit, Pooled)}
    if pooled:
        counts = " or ".join(map(str, sorted(pooled)))
        notes.append(f"Pooled over {counts} imputations by Rubin's rules; fit measures are means over these.")
    status = [f"Status other than ok: {', '.join(odd)}."] if odd else []
    return (" ".join([*notes, f"Estimator {how}.{scaled}", *status, f"msem {__version__}."]),)


def _variants(measured: Mapping[str, Measured]) -> str:
    """Which measures are scaled or robust; of which fit, where that is not the same for all."""
    said = {
        name: variants_note(
            [
                key
                for own in sections.values()
                for one, (key, value) in own.items()
                if key != one and value == value
            ]
        )
        for name, sections in measured.items()
    }
    texts = dict.fromkeys(said.values())
    if len(texts) == 1:
        (text,) = texts
        return f" {text[0].upper()}{text[1:]}." if text else ""
    return "".join(f" Of {name} {text}." for name, text in said.items() if text)
