"""Score tests of added parameters and released equality constraints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import fits
import msem
from msem.errors import ModelError, ModelSyntaxError
from msem.postestimation.restrictions import equalities
from msem.postestimation.score_tests import cluster_spread, extend
from nested import centred_demo

STORED = json.loads((Path(__file__).parent / "data" / "lavaan_tests.json").read_text(encoding="utf-8"))[
    "cases"
]
SIZES = [4, 6, 9] * 60
EQUAL = """
level: 1
    fw =~ y1 + a*y2 + b*y3
    fw ~ x1
level: 2
    fb =~ y1 + a*y2 + b*y3
    fb ~ w1
"""
FREE = EQUAL.replace("a*", "").replace("b*", "")


def fitted(text: str = EQUAL, **options: Any) -> msem.Fit:
    return msem.sem(text, fits.data(SIZES), cluster="cluster", **options)


def stored_fit(case: str, which: str) -> msem.Fit:
    stored = STORED[case]
    return msem.sem(stored["models"][which], centred_demo(), cluster=stored["cluster"])


@pytest.mark.parametrize("kind", ["release", "add"])
@pytest.mark.parametrize("case", STORED)
def test_statistics_agree_with_lavaan(case: str, kind: str) -> None:
    if kind == "release":
        found = stored_fit(case, "small").score_test()
    else:
        found = stored_fit(case, "large").score_test(add=STORED[case]["add"])
    theirs = STORED[case][f"score_{kind}"]
    for name in ("total", "univariate", "cumulative"):
        ours = getattr(found, name)
        np.testing.assert_allclose(ours["statistic"], np.atleast_1d(theirs[name]["X2"]), rtol=1e-6)
        np.testing.assert_allclose(ours["pvalue"], np.atleast_1d(theirs[name]["p.value"]), rtol=1e-5)
        assert ours["df"].tolist() == np.atleast_1d(theirs[name]["df"]).tolist()


@pytest.mark.parametrize("kind", ["release", "add"])
@pytest.mark.parametrize("case", STORED)
def test_expected_changes_agree_with_lavaan_but_for_its_sign_at_two_levels(case: str, kind: str) -> None:
    if kind == "release":
        found = stored_fit(case, "small").score_test()
    else:
        found = stored_fit(case, "large").score_test(add=STORED[case]["add"])
    theirs = {
        (row["lhs"], row["op"], row["rhs"], row.get("level", 1)): row["epc"]
        for row in STORED[case][f"score_{kind}"]["epc"]
        if row["epc"] is not None
    }
    sign = 1 if case == "single_level" else -1
    for row in found.epc.itertuples():
        assert row.epc == pytest.approx(
            sign * theirs[row.lhs, row.op, row.rhs, row.level], rel=1e-4, abs=1e-7
        )


def test_expected_changes_lead_to_where_the_larger_model_is() -> None:
    """Their sign is that of the change which a fit without the constraints shows."""
    found, free = fitted().score_test().epc, fitted(FREE).params
    own = found[found["label"] != ""]
    names = [f"{r.lhs}{r.op}{r.rhs}{'.l2' * (r.level == 2)}" for r in own.itertuples()]
    np.testing.assert_allclose(own["epv"], free[names], atol=0.25 * free.std())
    assert np.sign(own["epc"]).tolist() == np.sign(free[names].to_numpy() - own["est"].to_numpy()).tolist()


def test_expected_change_of_a_constraint_is_left_less_right_side() -> None:
    found, free = fitted().score_test().univariate["epc"], fitted(FREE).params
    difference = free[["fw=~y2", "fw=~y3"]].to_numpy() - free[["fb=~y2.l2", "fb=~y3.l2"]].to_numpy()
    assert np.sign(found).tolist() == np.sign(difference).tolist()


def test_one_restriction_by_hand() -> None:
    """g_c^2 / (I_cc - I_ct I_tt^-1 I_tc), with the released parameter moved out of the shared one."""
    fit = fitted(EQUAL.replace("b*", ""))
    free = fitted(FREE)
    names, shared = list(free.table.names()), fit.params
    at = np.array([shared["a"] if name.startswith(("fw=~y2", "fb=~y2")) else shared[name] for name in names])
    information, gradient = free.objective.expected_information(at), -0.5 * free.objective.gradient(at)
    one, two = names.index("fw=~y2"), names.index("fb=~y2.l2")
    keep = np.delete(np.eye(len(names)), two, axis=1)
    keep[two] = keep[one]
    inner = keep.T @ information @ keep
    across = keep.T @ information[:, two]
    want = gradient[two] ** 2 / (information[two, two] - across @ np.linalg.solve(inner, across))
    found = fit.score_test()
    assert found.total["statistic"].item() == pytest.approx(want, rel=1e-6)
    assert found.univariate["statistic"].tolist() == pytest.approx([want], rel=1e-6)
    assert found.univariate.index.tolist() == ["fw=~y2 == fb=~y2.l2"]


def test_total_is_near_the_likelihood_ratio() -> None:
    small, large = fitted(), fitted(FREE)
    total = small.score_test().total.iloc[0]
    assert total["statistic"] == pytest.approx(2 * (large.llf - small.llf), rel=0.15)
    assert total["df"] == large.npar - small.npar


def test_robust_joint_statistic_is_the_sandwich_form() -> None:
    fit = fitted()
    extension = extend(fit.estimate, equalities(fit.table), (), cluster_spread(fit.sample.clusters))
    point, d = extension.point, extension.further
    information = point.factor.T @ point.factor
    moved = d - point.basis @ (point.basis.T @ information @ d)
    score, scores = moved.T @ point.gradient, point.scores @ moved
    want = score @ np.linalg.solve(scores.T @ scores, score)
    assert point.joint(d).robust == pytest.approx(want, rel=1e-8)
    assert point.single(d[:, :1]).robust[0] == pytest.approx(point.joint(d[:, :1]).robust, rel=1e-8)


def test_constraints_are_chosen_by_number_label_or_text() -> None:
    fit = fitted()
    every = fit.score_test().univariate
    assert every.index.tolist() == ["fw=~y2 == fb=~y2.l2", "fw=~y3 == fb=~y3.l2"]
    for asked in (2, "b", "fw=~y3==fb=~y3.l2", "fb=~y3.l2 == fw=~y3", ["b"], [2]):
        pd.testing.assert_frame_equal(fit.score_test(asked).univariate, every.iloc[[1]], rtol=1e-9)
    pd.testing.assert_frame_equal(fit.score_test([2, "a"]).univariate, every, rtol=1e-9)


def test_three_equal_parameters_are_two_constraints() -> None:
    found = fitted(EQUAL.replace("b*", "a*")).score_test()
    assert len(found.univariate) == 3
    assert found.total["df"].item() == 3


IMPOSED = FREE.replace("y2 + y3", "a*y2 + b*y3", 1)
IMPOSED = IMPOSED[: IMPOSED.index("level: 2")] + IMPOSED[IMPOSED.index("level: 2") :].replace(
    "y2 + y3", "c*y2 + d*y3"
)


@pytest.mark.parametrize(
    "constraints", ["a == c\nb == d", "2*a - 2*c == 0\nd == b", "a/c == 1\nexp(b) == exp(d)"]
)
def test_equations_are_released_as_shared_labels_are(constraints: str) -> None:
    shared, imposed = fitted().score_test(), fitted(IMPOSED + constraints).score_test()
    assert [name.replace(" ", "") for name in imposed.univariate.index] == constraints.replace(" ", "").split(
        "\n"
    )
    for name in ("total", "univariate", "cumulative"):
        mine, theirs = getattr(imposed, name), getattr(shared, name)
        np.testing.assert_allclose(mine["statistic"], theirs["statistic"], rtol=1e-4)
        assert mine["df"].tolist() == theirs["df"].tolist()
    one = fitted(IMPOSED + constraints).score_test(constraints.split("\n")[1].replace(" ", ""))
    assert one.univariate["statistic"].item() == pytest.approx(
        shared.univariate["statistic"].iloc[1], rel=1e-4
    )
    key = ["lhs", "op", "rhs", "level"]
    both = imposed.epc.merge(shared.epc, on=key)
    np.testing.assert_allclose(both["epv_x"], both["epv_y"], rtol=1e-4, atol=1e-5)


def test_a_redundant_equation_has_no_test_of_its_own() -> None:
    found = fitted(IMPOSED + "a == c\nb == d\na + b == c + d").score_test()
    assert found.univariate["df"].tolist() == [0, 0, 0]
    assert found.cumulative["df"].tolist() == [0, 1, 2]
    shared = fitted().score_test().total
    assert found.total["statistic"].item() == pytest.approx(shared["statistic"].item(), rel=1e-4)


def test_an_added_parameter_has_its_modification_index() -> None:
    fit = fitted()
    indices = fit.modification_indices(op="~~").set_index(["lhs", "rhs", "level"])
    for level in (1, 2):
        added = fit.score_test(add="y1 ~~ y3", level=level).univariate.iloc[0]
        assert added["statistic"] == pytest.approx(indices.loc[("y1", "y3", level), "mi"], rel=1e-9)
        assert added["epc"] == pytest.approx(indices.loc[("y1", "y3", level), "epc"], rel=1e-9)


def test_the_level_may_be_in_the_text_or_follow_from_the_variables() -> None:
    fit = fitted()
    by_text = fit.score_test(add="level: between\n y1 ~~ y3\nlevel: within\n y1 ~~ y3")
    assert by_text.univariate.index.tolist() == ["y1~~y3.l2", "y1~~y3"]
    assert fit.score_test(add="y2 ~ w1").univariate.index.tolist() == ["y2~w1.l2"]


def test_what_is_fixed_in_the_model_can_be_added() -> None:
    text = FREE.replace("fb =~ y1 + y2", "fb =~ y1 + 0.2*y2")
    found = fitted(text).score_test(add="fb =~ y2")
    assert found.univariate["statistic"].item() > 10
    assert found.epc.set_index(["op", "rhs"]).loc[("=~", "y2")]["est"].tolist()[-1] == 0.2


def test_a_direction_that_is_not_identified_has_no_test() -> None:
    found = fitted(FREE).score_test(add="level: 2\n fb =~ y1\n y1 ~~ y2")
    assert np.isnan(found.univariate.loc["fb=~y1.l2", "statistic"])
    assert found.univariate["df"].tolist() == [0, 1]
    assert found.total["df"].item() == 1


def test_tests_are_shown() -> None:
    found = fitted().score_test()
    assert "fw=~y2 == fb=~y2.l2" in repr(found)
    assert "fw=~y2 == fb=~y2.l2" in found._repr_html_()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"add": "y1 ~~ y2"}, "both levels have these variables"),
        ({"add": "y1 ~~ y9"}, "does not have all of the variables y1, y9"),
        ({"add": "fw ~ w1", "level": 1}, "at level 1 does not have all"),
        ({"add": "fw =~ y2"}, "is estimated already"),
        ({"add": "y1 =~ y2", "level": 1}, "'y1' is not a latent variable"),
        ({"add": "x1 ~~ x1"}, "moment of a fixed covariate"),
        ({"add": "x1 ~ fw"}, "'x1' is a fixed covariate"),
        ({"add": "level: 3\n y1 ~~ y2"}, "'level: 3' is not known"),
        ({"add": "a == b"}, "constraints go to release="),
        ({"add": "fw =~ x1", "group": 2}, "no group 2"),
        ({"release": 3}, "numbered from 1 to 2"),
        ({"release": "c"}, "no equality constraint 'c'; the model has 1 fw=~y2 == fb=~y2.l2; 2 "),
    ],
)
def test_what_cannot_be_tested_is_named(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        fitted().score_test(**asked)


def test_bad_requests_are_refused() -> None:
    with pytest.raises(ModelError, match="no equality constraints to release"):
        fitted(FREE).score_test()
    with pytest.raises(ValueError, match="either release= or add="):
        fitted().score_test("a", add="y1 ~~ y2")
    with pytest.raises(ModelSyntaxError):
        fitted().score_test(add="y1 ~~")


def test_added_parameters_are_in_all_groups_or_in_one() -> None:
    data = msem.load_demo()
    data = data.assign(region=np.where(data["cluster"] // 2 % 2, "north", "south"))
    text = "level: 1\n fw =~ y1 + y2 + y3 + y4\nlevel: 2\n fb =~ y1 + y2 + y3 + y4"
    fit = msem.sem(text, data, cluster="cluster", group="region", group_equal=["loadings"])
    every = fit.score_test(add="y1 ~~ y2", level=2)
    assert every.univariate.index.tolist() == ["y1~~y2.l2", "y1~~y2.g2.l2"]
    one = fit.score_test(add="y1 ~~ y2", level=2, group=2)
    assert one.univariate["statistic"].item() == pytest.approx(every.univariate["statistic"].iloc[1])
    released = fit.score_test()
    assert released.univariate.index[0] == "fw=~y2 == fw=~y2.g2"
    free = msem.sem(text, data, cluster="cluster", group="region")
    assert released.total["df"].item() == free.npar - fit.npar
    assert released.total["statistic"].item() == pytest.approx(2 * (free.llf - fit.llf), rel=0.15)
