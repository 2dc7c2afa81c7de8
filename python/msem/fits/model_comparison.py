"""Likelihood-ratio tests of nested models."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import pandas as pd

from msem.data.sample import require_simple
from msem.entry import entry, options_of
from msem.errors import ImproperSolutionWarning, ModelError, MsemError, warn
from msem.estimation.estimate import require_converged, require_unpenalized
from msem.estimation.least_squares import LeastSquaresSolution
from msem.fits.fit import Fit
from msem.fits.level_comparison import LOWER, compare_levels, compare_segregated, warn_of_bounds
from msem.fits.saved import SavedFit
from msem.fits.saved_comparison import saved_row, saved_tests
from msem.fits.segregated import LevelFit, SegregatedFit
from msem.fits.synopsis import named_fits
from msem.postestimation.difference import difference_test, require_nested, require_same_statistics
from msem.postestimation.likelihood_ratio import (
    UNTESTED,
    Fitted,
    LikelihoodRatio,
    Scaling,
    comparison_table,
    likelihood_ratio,
)
from msem.postestimation.nested import Embedding, embed, require_comparable, vanishing
from msem.settings import require_choice

Comparable = Fit | SavedFit | SegregatedFit | LevelFit
Method = Literal["auto", "standard", "satorra_bentler_2001", "satorra_bentler_2010", "satorra_2000"]

METHODS = ("auto", "standard", "satorra_bentler_2001", "satorra_bentler_2010", "satorra_2000")
WEIGHTED = ("satorra_bentler_2010", "satorra_2000")  # those that know the single weights


@entry
def compare_models(
    *fits: Comparable | Mapping[str, Comparable] | Sequence[Comparable],
    method: Method = "auto",
    scaled_shifted: bool = False,
    **named: Comparable,
) -> pd.DataFrame:
    """Likelihood-ratio tests of nested models.

    Parameters
    ----------
    *fits : fits, one mapping from name to fit, or one list of fits
        Without names they are called model_1, model_2, ... Fits of `msem.segregated`, or one level of each, are
        compared level by level. Saved fits are compared by what their files say, with each other and with other fits.
    method : {"auto", "standard", "satorra_bentler_2001", "satorra_bentler_2010", "satorra_2000"}
        How the likelihood ratio is scaled. "auto" takes "standard" if no fit is robust. If one is it takes
        "satorra_bentler_2001", and "satorra_bentler_2010" where the scaling of that is not positive. The scaled
        methods need raw data.
    scaled_shifted : bool
        Match the variance of the statistic too, not only its mean; for "satorra_bentler_2010" and "satorra_2000".
    **named : Fit, SegregatedFit or LevelFit
        Fits with their names.

    Returns
    -------
    DataFrame
        A row for each model, the one with most parameters first. Columns npar, df, llf, aic, bic, chisq (against the
        saturated model, not scaled); and of the test against the model in the row above: chisq_diff (scaled), df_diff,
        pvalue, scaling, rmsea_diff (RMSEA of the restriction alone; Browne & Du Toit, 1992; Savalei, Brace &
        Fouladi, 2023), method. Of levels fitted by themselves npar, df, chisq and the test, the level being the first
        index; models that differ at another level only have no test.

    Raises
    ------
    DataError
        If models were fitted to different data or variables, or a scaled method has no raw data.
    ModelError
        If a model does not contain the next one, two have the same degrees of freedom, or one has not converged.

    Notes
    -----
    Where the smaller model has a variance at 0 that cannot be negative in the larger one, that of a slope that is
    integrated over or in a crossed classification, ``method="auto"`` takes equal parts of chi-squares on one degree of
    freedom less and on all of them ("mixture"; Self & Liang, 1987; Stram & Lee, 1994); several such variances have a
    warning. Other variances may be negative, and the test is an ordinary chi-square.

    For least squares the difference of the minima is scaled and shifted by the weights of the restriction at the
    estimates of the larger model (Satorra, 2000; Asparouhov & Muthen, 2010), or scaled only where the fits have
    ``test="mean.scaled"``; with the weights of "WLS", "GLS" and normal-theory "ULS" it is a chi-square by itself.
    For levels fitted by themselves the difference of likelihood ratios is a chi-square, or scaled where the moments
    have a Gamma of their own, and that of discrepancies is scaled and shifted.

    Of saved fits numbers of units and clusters, variables and the likelihood of the saturated model must agree. That
    one contains the next is seen by their parameters, where each is free or the same; else there is a warning. Robust
    ones are scaled by "satorra_bentler_2001".

    That a model contains the next is checked by fitting it to the moments that the other implies, which it must
    reproduce (Bentler & Satorra, 2010).
    """
    require_choice("method", method, METHODS)
    given = named_fits("compare_models", fits, named, 2, options_of(compare_models))
    if any(isinstance(fit, (SegregatedFit, LevelFit)) for fit in given.values()):
        return _of_levels(given, method, scaled_shifted)
    if any(isinstance(fit, SavedFit) for fit in given.values()):
        return _of_files(given, method, scaled_shifted)
    models = _checked(given)
    squares = _by_least_squares(models)
    if squares and method not in ("auto", "satorra_2000"):
        raise MsemError(
            f'method="{method}" is for likelihood ratios, and these fits are by least squares: leave it out'
        )
    if scaled_shifted and method not in WEIGHTED and not squares:
        raise MsemError(f"scaled_shifted=True needs method= one of {', '.join(map(repr, WEIGHTED))}")
    ordered = sorted(models, key=lambda name: -models[name].estimate.nfree)
    rows = {name: _row(models[name]) for name in ordered}
    for large, small in itertools.pairwise(ordered):
        test = _test(models[small], models[large], (small, large), method, scaled_shifted)
        own = models[small].sample
        rows[small] |= test.columns(own.nobs, len(own.groups))
    return comparison_table(rows)


def _of_files(given: Mapping[str, Any], method: Method, shifted: bool) -> pd.DataFrame:
    """Tests of fits of which some were saved."""
    for name, fit in given.items():
        if not isinstance(fit, (Fit, SavedFit)):
            raise ModelError(
                f"{name} is a {type(fit).__name__}, not a fit of sem, cfa or growth, or a saved one"
            )
    if shifted:
        raise MsemError("scaled_shifted=True needs the data, which saved fits do not have")
    models: dict[str, Fit | SavedFit] = {
        name: given[name] for name in sorted(given, key=lambda name: given[name].df)
    }
    tests = saved_tests(models, method)
    rows = {name: saved_row(fit) for name, fit in models.items()}
    for name, test in tests.items():
        rows[name] |= test.columns(models[name].nobs, models[name].table.ngroups)
    return comparison_table(rows)


def _of_levels(given: Mapping[str, Any], method: Method, shifted: bool) -> pd.DataFrame:
    """Tests of fits of single levels."""
    if method not in ("auto", "satorra_2000"):
        raise MsemError(f'method="{method}" is for fits of sem, cfa and growth: leave it out')
    kinds = {type(fit): name for name, fit in given.items()}
    if kinds.keys() == {SegregatedFit}:
        return compare_segregated(given, shifted=shifted)
    if kinds.keys() == {LevelFit}:
        return compare_levels(given, shifted=shifted)
    names = " and ".join(f"{name} is a {kind.__name__}" for kind, name in kinds.items())
    raise ModelError(f"{names}: give fits of the same kind")


def _checked(given: Mapping[str, Any]) -> Mapping[str, Fit]:
    for name, fit in given.items():
        if not isinstance(fit, Fit):
            raise ModelError(f"{name} is a {type(fit).__name__}, not a fit of sem, cfa or growth")
        require_converged(fit.estimate, f"tests of {name}")
        require_unpenalized(fit.estimate, f"tests of {name}")
    return given


def _by_least_squares(models: Mapping[str, Fit]) -> bool:
    kinds = {bool(fit.estimate.objective.loss): name for name, fit in models.items()}
    if len(kinds) > 1:
        raise ModelError(
            f"{kinds[True]} is fitted by least squares and {kinds[False]} by maximum likelihood: fit both with the "
            "same estimator="
        )
    return True in kinds


def _row(fit: Fit) -> dict[str, Any]:
    squares = fit.discrepancy
    values = {
        "npar": fit.estimate.nfree,
        "df": fit.df,
        "llf": fit.llf,
        "aic": fit.aic,
        "bic": fit.bic,
        "chisq": 2 * (fit.unrestricted_llf - fit.llf) if squares is None else squares.statistic,
    }
    return {**values, **UNTESTED}


def _test(small: Fit, large: Fit, names: tuple[str, str], method: Method, shifted: bool) -> LikelihoodRatio:
    one, two = small.discrepancy, large.discrepancy
    if isinstance(one, LeastSquaresSolution) and isinstance(two, LeastSquaresSolution):
        require_same_statistics(one, two, names)
        warn_of_bounds(small, large, names)
        require_nested(one, two, large.estimate, names)
        mean = small.options.adjusted_test == "mean_scaled" and not shifted
        return difference_test(one, two, shifted=not mean)
    require_comparable(small.estimate, large.estimate, names)
    embedding = _require_nested(small, large, names)
    lower, upper = map(_fitted, (small, large))

    def test(how: Scaling) -> LikelihoodRatio:
        return likelihood_ratio(lower, upper, embedding, how, shifted=shifted)

    if method == "standard":
        require_simple(large.sample, "unscaled tests", 'leave out method="standard"')
    if method != "auto":
        return test(method)
    if not any(fit.options.robust for fit in (small, large)):
        return _at_border(test("standard"), small, large, names)
    found = test("satorra_bentler_2001")
    return found if found.scaling > 0 else test("satorra_bentler_2010")


def _at_border(found: LikelihoodRatio, small: Fit, large: Fit, names: tuple[str, str]) -> LikelihoodRatio:
    """The test where a variance that is 0 in the smaller model cannot be negative in the larger one."""
    gone = vanishing(small.estimate, large.estimate)
    if len(gone) > 1:
        warn(
            f"{', '.join(gone)} are 0 in {names[0]} and cannot be negative in {names[1]}: the test is a mixture of "
            "chi-squares on fewer degrees of freedom, and its p-value too large",
            ImproperSolutionWarning,
        )
    return replace(found, method="mixture") if len(gone) == 1 else found


def _fitted(fit: Fit) -> Fitted:
    """What scaling is computed from: observed information unless a robust fit was asked for expected information."""
    expected = fit.options.robust and fit.options.information == "expected"
    test = fit.options.scaled_test or "yuan_bentler_mplus"
    return Fitted(fit.estimate, fit.sample, "expected" if expected else "observed", test)


def _require_nested(small: Fit, large: Fit, names: tuple[str, str]) -> Embedding:
    lower, upper = names
    warn_of_bounds(small, large, names)
    if small.estimate.nfree == large.estimate.nfree:
        raise ModelError(
            f"{lower} and {upper} have the same degrees of freedom ({small.df}): neither is nested in the other; "
            "compare their AIC and BIC, or estimates with msem.compare"
        )
    embedding = embed(small.estimate, large.estimate)
    if not embedding.nested:
        raise ModelError(
            f"{lower} is not nested in {upper}: fitted to the moments that {lower} implies, {upper} has a chi-square "
            f"of {embedding.discrepancy:.3g}, where a model that contains the other has 0; compare their AIC and BIC"
        )
    if large.llf < small.llf - LOWER / 2:
        raise ModelError(
            f"{upper} contains {lower}, yet its log-likelihood is lower ({large.llf:.4f} and {small.llf:.4f}): it "
            f"stopped at a maximum that is not the highest; fit it again from other start() values, such as the "
            f"estimates of {lower}"
        )
    return embedding
