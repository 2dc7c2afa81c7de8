"""Wald tests of hypotheses about the parameters of a fit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.distributions import chisq_pvalue
from msem.errors import ModelError
from msem.fits.solution import Solution
from msem.language.characters import outside_quotes, pieces
from msem.model.functions import CONSTANT, Functions, compile_expressions
from msem.postestimation.delta import derive
from msem.postestimation.wald import Wald, wald

Floats = NDArray[np.float64]


class Hypotheses(Solution):
    """Wald tests."""

    def wald_test(self, hypotheses: str | Sequence[str]) -> pd.DataFrame:
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
        functions = compile_expressions(self.table, _split(hypotheses))
        values, cov = _estimates(self, functions)
        single = [wald(values[[k]], cov[np.ix_([k], [k])]) for k in range(len(values))]
        rows = [(v, s, *_test(w)) for v, s, w in zip(values, np.sqrt(cov.diagonal()), single, strict=True)]
        names = list(functions.texts)
        if len(names) > 1:
            joint = wald(values, cov)
            clusters = sum(len(own.sizes) for own in self.sample.clusters) if self.options.robust else np.inf
            if not joint.consistent and len(names) >= clusters:
                raise ModelError(
                    f"{len(names)} hypotheses cannot be tested together with robust standard errors from {clusters} "
                    "clusters: test fewer at a time"
                )
            if not joint.consistent:
                raise ModelError(f"these hypotheses contradict each other: {', '.join(map(repr, names))}")
            rows.append((np.nan, np.nan, *_test(joint)))
            names.append("joint")
        return pd.DataFrame(rows, index=names, columns=["estimate", "se", "statistic", "df", "pvalue"])


def _split(hypotheses: str | Sequence[str]) -> list[str]:
    given = [hypotheses] if isinstance(hypotheses, str) else list(hypotheses)
    if not all(isinstance(text, str) for text in given):
        raise ModelError("hypotheses are texts such as 'a == b'")
    parts = [part.strip() for text in given for part in pieces(text)]
    found = [part for part in parts if outside_quotes(part).strip() or part[:1] in ("`", "'", '"')]
    if not found:
        raise ModelError("there is no hypothesis: write one such as 'a == b'")
    for part in found:
        if "==" not in outside_quotes(part):
            raise ModelError(f"'{part}' is no hypothesis: an equation such as '{part} == 0' is expected")
    return found


def _estimates(fit: Solution, functions: Functions) -> tuple[Floats, Floats]:
    """Values of the functions with their delta-method covariance matrix."""
    for text, degree in zip(functions.texts, functions.degrees, strict=True):
        if degree == CONSTANT:
            raise ModelError(
                f"'{text}' is about fixed values only: nothing is estimated that it could be tested by"
            )
    values = functions.values(fit.estimate.theta)
    vcov, names = fit.cov_params().to_numpy(), fit.table.names()
    cov = derive(functions, fit.estimate.theta, vcov).vcov
    for k, text in enumerate(functions.texts):
        if not np.isfinite(values[k]):
            raise ModelError(f"'{text}' has no value at the estimates")
        if not np.isfinite(cov[k, k]):
            used = np.flatnonzero(functions.jacobian(fit.estimate.theta)[k])
            lost = [names[i] for i in used if not np.isfinite(vcov[i, i])]
            raise ModelError(
                f"'{text}' cannot be tested: there is no standard error for {', '.join(lost) or 'it'} (an estimate at "
                "a bound or not identified, or a fit with se='none')"
            )
    return values, cov


def _test(found: Wald) -> tuple[float, int, float]:
    return found.statistic, found.df, chisq_pvalue(found.statistic, found.df)
