"""Wald tests of functions of the parameters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.distributions import chisq_pvalue
from msem.errors import ModelError
from msem.estimation.solution import Estimated
from msem.language.characters import in_backticks, outside_quotes, pieces
from msem.model.functions import CONSTANT, Functions, compile_expressions
from msem.postestimation.delta import derive

Floats = NDArray[np.float64]

DEPENDENT = 1e-10  # eigenvalue of the correlation matrix of functions below which one follows from others
CONTRADICTION = 1e-4  # standard errors by which the value of a function may differ from what follows

__all__ = ["Wald", "wald"]


class Wald(NamedTuple):
    """Test that several functions of the parameters are zero.

    Attributes
    ----------
    statistic : float
        nan if none of the functions can vary.
    df : int
        Number of functions that do not follow from the others.
    consistent : bool
        False if they contradict each other.
    """

    statistic: float
    df: int
    consistent: bool


def wald(values: Floats, cov: Floats) -> Wald:
    """Statistic r' C^-1 r over the directions in which r can vary (Wald, 1943).

    Parameters
    ----------
    values : ndarray, shape (k,)
        The functions r at the estimates.
    cov : ndarray, shape (k, k)
        Their sampling covariance C.

    Returns
    -------
    Wald
    """
    se = np.sqrt(cov.diagonal())
    kept = se > 0
    if not kept.any():
        return Wald(np.nan, 0, not values.any())
    consistent = not values[~kept].any()
    scaled = values[kept] / se[kept]
    roots, vectors = np.linalg.eigh(cov[np.ix_(kept, kept)] / np.outer(se[kept], se[kept]))
    along, varies = vectors.T @ scaled, roots > DEPENDENT
    consistent = consistent and bool(np.all(np.abs(along[~varies]) <= CONTRADICTION))
    return Wald(float(np.sum(along[varies] ** 2 / roots[varies])), int(varies.sum()), consistent)


def wald_test(fit: Estimated, hypotheses: str | Sequence[str]) -> pd.DataFrame:
    """Test linear or nonlinear hypotheses about the parameters.

    Parameters
    ----------
    hypotheses : str or sequence of str
        Equations such as ``"a == b"`` or ``"a*b == 0"``, one to a line or separated by semicolons. Names are
        labels, defined parameters, or parameters as tables name them, in backticks: ```fw=~y2` == `fb=~y2.l2```.

    Returns
    -------
    DataFrame
        A row for each hypothesis, and if there are several a row "joint": columns estimate (left less right side)
        and se, by the delta method; statistic, df and pvalue. The covariance matrix is that of `cov_params`:
        robust under MLR. A hypothesis that follows from others adds no degree of freedom.

    Raises
    ------
    ModelSyntaxError
        If a hypothesis cannot be read.
    ModelError
        If it is about an unknown parameter, about fixed values only, or about an estimate without standard error;
        or if hypotheses contradict each other.
    """
    functions = compile_expressions(fit.table, [_with_names_quoted(fit, one) for one in _split(hypotheses)])
    values, cov = _estimates(fit, functions)
    single = [wald(values[[k]], cov[np.ix_([k], [k])]) for k in range(len(values))]
    rows = [(v, s, *_test(w)) for v, s, w in zip(values, np.sqrt(cov.diagonal()), single, strict=True)]
    names = list(functions.texts)
    if len(names) > 1:
        joint = wald(values, cov)
        clusters = fit.independent if fit.options.robust else np.inf
        if not joint.consistent and len(names) >= clusters:
            raise ModelError(
                f"{len(names)} hypotheses cannot be tested together with robust standard errors from {clusters:.0f} "
                "clusters: test fewer at a time"
            )
        if not joint.consistent:
            raise ModelError(f"these hypotheses contradict each other: {', '.join(map(repr, names))}")
        rows.append((np.nan, np.nan, *_test(joint)))
        names.append("joint")
    return pd.DataFrame(rows, index=names, columns=["estimate", "se", "statistic", "df", "pvalue"])


def _split(hypotheses: str | Sequence[str]) -> list[str]:
    given: Any = [hypotheses] if isinstance(hypotheses, str) else hypotheses
    if not isinstance(given, Iterable) or not all(isinstance(text, str) for text in given):
        raise ModelError("hypotheses are texts such as 'a == b'")
    parts = [part.strip() for text in given for part in pieces(text)]
    found = [part for part in parts if outside_quotes(part).strip() or part[:1] in ("`", "'", '"')]
    if not found:
        raise ModelError("there is no hypothesis: write one such as 'a == b'")
    for part in found:
        if "==" not in outside_quotes(part):
            name, *other = (
                side.strip() for side in re.split(r"(?<![<>=!])=(?![=~])|[<>]=?", part, maxsplit=1)
            )
            name = in_backticks(name) if "~" in outside_quotes(name) else name
            other = [text for text in other if text]
            raise ModelError(
                f"'{part}' is no hypothesis: an equation such as '{name} == {(other or [0])[0]}' is expected"
            )
    return found


def _with_names_quoted(fit: Estimated, hypothesis: str) -> str:
    """A hypothesis with backticks about a side that is the name of a parameter, such as f=~y2."""
    sides = hypothesis.split("==")
    if len(sides) == 2:
        for k, side in enumerate(sides):
            if "~" in outside_quotes(side) and fit.table.by_name.find(side.strip()):
                sides[k] = f" {in_backticks(side.strip())} "
    return "==".join(sides).strip()


def _estimates(fit: Estimated, functions: Functions) -> tuple[Floats, Floats]:
    """Values of the functions with their delta-method covariance matrix."""
    for text, degree in zip(functions.texts, functions.degrees, strict=True):
        if degree == CONSTANT:
            raise ModelError(
                f"'{text}' is about fixed values only: nothing is estimated that it could be tested by"
            )
    values = functions.values(fit.theta)
    vcov, names = fit.vcov, fit.table.names()
    cov = derive(functions, fit.theta, vcov).vcov
    for k, text in enumerate(functions.texts):
        if not np.isfinite(values[k]):
            raise ModelError(f"'{text}' has no value at the estimates")
        if not np.isfinite(cov[k, k]):
            used = np.flatnonzero(functions.jacobian(fit.theta)[k])
            lost = [names[i] for i in used if not np.isfinite(vcov[i, i])]
            raise ModelError(
                f"'{text}' cannot be tested: there is no standard error for {', '.join(lost) or 'it'} (an estimate at "
                "a bound or not identified, or a fit with se='none')"
            )
    return values, cov


def _test(found: Wald) -> tuple[float, int, float]:
    return found.statistic, found.df, chisq_pvalue(found.statistic, found.df)
