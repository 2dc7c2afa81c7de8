"""Likelihood-ratio tests of models of several groups, and of models with constraints and bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import msem
from msem.errors import ModelError
from nested import EQUAL, FREE, METHODS, PLAIN, fitted


def grouped(**options: Any) -> msem.Fit:
    data = msem.load_demo()
    data = data.assign(region=np.where(data["cluster"] // 2 % 2, "north", "south"))
    text = PLAIN.replace(" + y4", "")
    return msem.sem(text, data, cluster="cluster", group="region", **options)


@pytest.mark.parametrize("method", METHODS)
def test_invariance_of_groups_is_tested_step_by_step(method: Any) -> None:
    """With equal intercepts the factor means are free: nested, but not by leaving out parameters."""
    table = msem.compare_models(
        scalar=grouped(group_equal=["loadings", "intercepts"]),
        metric=grouped(group_equal=["loadings"]),
        configural=grouped(),
        method=method,
    )
    assert table.index.tolist() == ["configural", "metric", "scalar"]
    assert table["df_diff"].tolist()[1:] == [4, 2]
    assert table["scaling"].iloc[1:].between(0.8, 1.25).all()


def test_scaling_of_groups_is_that_of_the_groups_by_themselves() -> None:
    """Without equalities over groups both traces are sums over the groups."""
    large, small = grouped(), grouped()
    text = PLAIN.replace(" + y4", "").replace("fb =~ y1 + y2", "fb =~ y1 + c(0.9, 0.9)*y2")
    data = msem.load_demo()
    data = data.assign(region=np.where(data["cluster"] // 2 % 2, "north", "south"))
    small = msem.sem(text, data, cluster="cluster", group="region")
    whole = msem.compare_models(large=large, small=small, method="satorra_2000").loc["small"]
    parts = []
    for _, own in data.groupby("region"):
        fit = msem.sem(PLAIN.replace(" + y4", ""), own, cluster="cluster")
        fixed = msem.sem(text.replace("c(0.9, 0.9)", "0.9"), own, cluster="cluster")
        parts.append(msem.compare_models(large=fit, small=fixed, method="satorra_2000").loc["small"])
    assert whole["scaling"] == pytest.approx(np.mean([part["scaling"] for part in parts]), rel=1e-6)
    ratios = [part["scaling"] * part["chisq_diff"] for part in parts]
    assert whole["scaling"] * whole["chisq_diff"] == pytest.approx(sum(ratios), rel=1e-6)


LABELS = FREE.replace("y2 + y3", "a*y2 + b*y3", 1).replace("fb =~ y1 + y2 + y3", "fb =~ y1 + c*y2 + d*y3")


@pytest.mark.parametrize("constraint", ["a == c\nb == d", "a^2 == c^2\nlog(b) == log(d)"])
@pytest.mark.parametrize("method", METHODS)
def test_constraints_are_tested_as_shared_labels_are(constraint: str, method: Any) -> None:
    shared = msem.compare_models(large=fitted(), small=fitted(EQUAL), method=method).loc["small"]
    imposed = msem.compare_models(large=fitted(), small=fitted(LABELS + constraint), method=method).loc[
        "small"
    ]
    assert imposed["df_diff"] == 2
    assert imposed["chisq_diff"] == pytest.approx(shared["chisq_diff"], rel=1e-5)


def test_a_larger_model_may_have_constraints_too() -> None:
    middle, small = fitted(LABELS + "a == c"), fitted(LABELS + "a == c\nb*d == d^2")
    for method in METHODS:
        found = msem.compare_models(fitted(), middle, small, method=method)  # type: ignore[arg-type]
        assert found["df_diff"].tolist()[1:] == [1, 1]
    with pytest.raises(ModelError, match="not nested"):
        msem.compare_models(middle, fitted(LABELS + "b == d\na == 0.5*c"))


@pytest.mark.filterwarnings("ignore::msem.errors.ImproperSolutionWarning")
def test_a_model_at_its_bound_is_compared() -> None:
    """The larger model cannot move where its bound holds it."""
    bounded = LABELS + "c > 1.1"
    large, small = fitted(bounded), fitted(bounded + "\nb == d")
    assert large.status == small.status == "boundary"
    found = msem.compare_models(large=large, small=small, method="satorra_2000").loc["small"]
    assert found["df_diff"] == 1
    assert found["chisq_diff"] == pytest.approx(2 * (large.llf - small.llf) / found["scaling"])


@pytest.mark.filterwarnings("ignore::msem.errors.ImproperSolutionWarning")
def test_models_contain_each_other_though_estimates_of_the_larger_one_are_on_a_border():
    rng = np.random.default_rng(3)
    clusters = np.repeat(np.arange(14), 4)
    data = pd.DataFrame(rng.normal(size=(56, 3)) + rng.normal(size=(56, 1)), columns=["a", "b", "c"])
    data = data.assign(cluster=clusters, half=np.where(clusters % 2, "odd", "even"))
    model = "level: 1\nf =~ a + b + c\nlevel: 2\na ~~ a\nb ~~ b\nc ~~ c"
    options = {"cluster": "cluster", "group": "half", "space": "psd"}
    free = msem.sem(model, data, **options)
    equal = msem.sem(model, data, **options, group_equal=["loadings"])
    held = [{p for p in fit.params.index if "~~" in p and fit.params[p] < 1e-8} for fit in (free, equal)]
    assert (
        held[0] - held[1]
    )  # estimates of the larger model that are held where those of the smaller one are not
    table = msem.compare_models(free, equal)
    assert table["chisq_diff"].iloc[-1] == pytest.approx(2 * (free.llf - equal.llf))
    assert table["df_diff"].iloc[-1] == 2
