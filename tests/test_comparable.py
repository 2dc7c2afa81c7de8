"""Fits that likelihood-ratio tests refuse to compare."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

import fits
import msem
from msem.errors import DataError, ImproperSolutionWarning, ModelError, MsemError
from nested import EQUAL, FREE, SIZES, fitted, skewed


def changed(**columns: Any) -> pd.DataFrame:
    return fits.data(SIZES).assign(**columns)


DATA = fits.data(SIZES)


@pytest.mark.parametrize(
    ("text", "data", "message"),
    [
        (EQUAL, DATA.iloc[:-1], "1139 and 1140 units"),
        (EQUAL, DATA[DATA["cluster"] > DATA["cluster"].min()], "units"),
        (EQUAL, changed(y2=DATA["y2"] * 2), "'y2' differ"),
        (EQUAL, changed(y2=DATA["y2"] + 1e-3), "means of 'y2' differ"),
        (EQUAL, changed(x1=DATA["x1"].sample(frac=1, random_state=1).to_numpy()), "'x1' differ"),
        (EQUAL.replace("fb ~ w1", ""), DATA, "variable 'w1' and small does not"),
        (
            EQUAL.replace("+ b*y3\n  fb", "\n  fb"),
            DATA,
            "'y3' is at the within level only in small and at both",
        ),
    ],
    ids=["row", "cluster", "scaled", "moved", "permuted", "variable", "level"],
)
@pytest.mark.filterwarnings("ignore::msem.errors.MsemWarning")
def test_fits_of_different_data_are_not_compared(text: str, data: pd.DataFrame, message: str) -> None:
    with pytest.raises(DataError, match=message):
        msem.compare_models(large=fitted(), small=fitted(text, data))


def test_likelihoods_given_different_covariates_are_not_compared() -> None:
    with pytest.raises(ModelError, match="covariate 'w1' from the sample"):
        msem.compare_models(fitted(EQUAL), fitted(FREE.replace("fb ~ w1", "fb ~ w1\n    w1 ~~ w1")))


def test_what_is_no_maximum_of_a_likelihood_is_not_compared() -> None:
    with pytest.warns(msem.errors.ConvergenceWarning):
        early = fitted(EQUAL, max_iterations=1)
    with pytest.raises(ModelError, match=r"tests of early need a maximum.*not converged"):
        msem.compare_models(fit=fitted(), early=early)
    uls = msem.sem("f =~ y1 + y2 + y3", DATA, estimator="ULS")
    with pytest.raises(ModelError, match="same degrees of freedom"):
        msem.compare_models(uls, uls)
    with pytest.raises(ModelError, match="fit both with the same estimator"):
        msem.compare_models(uls, fitted())


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((), {}),
        ((fitted(),), {}),
        ((fitted(), "fit"), {}),
        ((fitted(), fitted(EQUAL)), {"method": "bentler"}),
        ((fitted(), fitted(EQUAL)), {"scaled_shifted": True}),
    ],
    ids=["nothing", "one", "text", "method", "shifted"],
)
def test_wrong_arguments_are_refused(arguments: Any, options: Any) -> None:
    with pytest.raises((MsemError, ValueError)):
        msem.compare_models(*arguments, **options)


def test_single_level_models_are_compared_with_or_without_means() -> None:
    model = "f =~ y1 + y2 + y3 + y4"
    equal = "f =~ y1 + a*y2 + a*y3 + a*y4"
    data = skewed()
    plain = msem.compare_models(a=msem.sem(model, data), b=msem.sem(equal, data)).loc["b"]
    means = msem.compare_models(
        a=msem.sem(model, data, meanstructure=True), b=msem.sem(equal, data, meanstructure=True)
    ).loc["b"]
    assert plain["chisq_diff"] == pytest.approx(means["chisq_diff"], rel=1e-7)
    with pytest.raises(MsemError, match="means"):
        msem.compare_models(msem.sem(model, data), msem.sem(equal, data, meanstructure=True))


def test_active_inequalities_are_not_counted_and_said_to_be() -> None:
    text = "level: 1\n  fw =~ y1 + a*y2 + b*y3\nlevel: 2\n  fb =~ y1 + c*y2 + y3\n"
    data = msem.load_demo()
    free = msem.sem(text, data, cluster="cluster")
    with pytest.warns(ImproperSolutionWarning, match="active"):
        bounded = msem.sem(text, data, cluster="cluster", constraints="a < b\nc == 0.72")
    with pytest.warns(
        ImproperSolutionWarning, match="model_2: .*'a < b'. The test against model_1 .* approximate"
    ):
        msem.compare_models(free, bounded)
