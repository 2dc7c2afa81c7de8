"""`diagram`: the path diagram of a model text, a fit, or moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import singledispatch
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.moments import LevelMoments
from msem.entry import entry
from msem.errors import ModelError
from msem.fits.compiled import CompiledModel, compile
from msem.fits.fit import Fit
from msem.fits.saved import SavedFit
from msem.fits.segregated import SegregatedFit
from msem.fits.sem import sem
from msem.language.characters import in_backticks
from msem.language.syntax import parse
from msem.model.levels import Level
from msem.model.partable import parameter_table
from msem.pictures.diagram import Choices, Diagram, diagram_of
from msem.pictures.graph import Errors, Numbers
from msem.postestimation.standardized import Kind

Floats = NDArray[np.float64]

MOST_CORRELATED = 8  # variables of a level whose correlations can be read


@entry
def diagram(
    model: Any,
    data: Any = None,
    *,
    standardized: bool | Kind = False,
    errors: Errors = "stars",
    digits: int = 2,
    variances: bool = True,
    means: bool = False,
    covariates: bool = False,
    level: Level | None = None,
    groups: Sequence[str] | None = None,
    **options: Any,
) -> Diagram:
    r"""Draw a path diagram: of a model text without data, of a fit, or of within and between moments.

    Parameters
    ----------
    model : str, Fit, SavedFit, SegregatedFit, CompiledModel or LevelMoments
        A text or a compiled model is drawn without estimates, fixed values aside. Of moments alone the correlations
        of each level are drawn.
    data : data frame, LevelMoments or anything else that `msem.sem` takes, optional
        With a model text: draw the fit of the model to these data, or published moments.
    standardized, errors, digits, variances, means, covariates, level, groups
        What is drawn; see `Fit.diagram`.
    **options
        Options of `msem.sem`, such as ``cluster="school"`` or ``std_lv=True``, for a model text.

    Returns
    -------
    Diagram
        With `draw`, `svg`, `save`, `to_dot` and `to_tikz`.

    Raises
    ------
    ModelError
        If `model` is something else; if a fit has not converged; if there are too many groups or variables to be read.

    Examples
    --------
    >>> import msem
    >>> d = msem.diagram("f =~ y1 + y2 + y3; f ~ x")
    >>> d
    <msem.Diagram: 1 level, 1 group, 8 arrows; draw(), save(path)>
    >>> print(d.to_tikz().splitlines()[0])
    % needs \usepackage{tikz} and \usetikzlibrary{arrows.meta, shapes.geometric}
    """
    choices = Choices(standardized, errors, digits, variances, means, covariates, level, groups)
    if isinstance(model, str) and data is not None:
        model, data, options = sem(model, data, **options), None, {}
    if isinstance(model, str):
        model, options = compile(model, **options), {}
    if data is not None or options:
        given = "data" if data is not None else next(iter(options))
        raise ModelError(f"{given}= goes with a model text; a {type(model).__name__} is drawn as it is")
    return _drawn(model, choices)


@singledispatch
def _drawn(model: Any, choices: Choices) -> Diagram:
    """The diagram of what a user gives."""
    raise ModelError(f"diagram takes a model text, a fit or moments by level, not {type(model).__name__}")


@_drawn.register
def _(model: CompiledModel, choices: Choices) -> Diagram:
    return diagram_of(model.table, None, choices)


@_drawn.register(Fit)
@_drawn.register(SavedFit)
@_drawn.register(SegregatedFit)
def _(fit: Fit | SavedFit | SegregatedFit, choices: Choices) -> Diagram:
    return fit.diagram(**asdict(choices))


@_drawn.register
def _(moments: LevelMoments, choices: Choices) -> Diagram:
    """Correlations of each level, as arcs between all variables."""
    levels = {level: one.cov for level, one in enumerate(moments.levels, 1)}
    count = max(map(len, levels.values()))
    if count > MOST_CORRELATED:
        raise ModelError(
            f"correlations of {count} variables cannot be read in a diagram ({MOST_CORRELATED} are the most): give a "
            "model text too, msem.diagram(model, moments), to draw the model fitted to them"
        )
    lines = [line for level, cov in levels.items() for line in (f"level: {level}", *_covariances(cov))]
    table = parameter_table(parse("\n".join(lines)), fixed_x=False)
    known = {
        (level, str(row), str(column)): value
        for level, cov in levels.items()
        for row, values in zip(cov.index, _correlations(cov), strict=True)
        for column, value in zip(cov.columns, values.tolist(), strict=True)
    }
    found = np.array([known.get((row.level, row.lhs, row.rhs), 0.0) for row in table.rows])
    none = np.full(len(found), np.nan)
    # variances are all 1
    shown = replace(choices, variances=False, means=False, errors="none")
    return diagram_of(table, Numbers(found, none, none, found), shown, "Correlations")


def _correlations(cov: pd.DataFrame) -> Floats:
    """Correlations; nan where a variance is not positive."""
    values = cov.to_numpy(dtype=np.float64)
    scale = np.sqrt(np.where(values.diagonal() > 0, values.diagonal(), np.nan))
    out: Floats = values / np.outer(scale, scale)
    return out


def _covariances(cov: pd.DataFrame) -> list[str]:
    names = [in_backticks(str(name)) for name in cov.columns]
    return [f"{name} ~~ {' + '.join(names[k:])}" for k, name in enumerate(names)]
