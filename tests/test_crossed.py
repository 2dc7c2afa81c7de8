"""Crossed classifications against one dense density."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import msem
import oracle
import reference
from crossed_cases import Case
from msem.errors import DataError, DataWarning, ModelError, MsemError, UnsupportedError

CASES = {
    "first eliminated": {},
    "second eliminated": {"swap": True},
    "effects without variance": {"zero": True},
    "one cluster of many": {"clusters": (12, 1), "units": 25},
}


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def case(request):
    return Case(**request.param)


def test_log_likelihood_is_that_of_the_dense_density(case):
    assert_allclose(-0.5 * case.objective.value(case.theta), case.loglik(case.theta), rtol=1e-11)


def test_gradient_is_its_derivative(case):
    _, gradient = case.objective.evaluate(case.theta)
    assert_allclose(-0.5 * gradient, oracle.complex_step(case.loglik, case.theta), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("swap", [False, True])
def test_observed_information_is_the_second_derivative(swap):
    case = Case(swap=swap, units=14, clusters=(5, 3))
    steps = 1e-5 * np.eye(len(case.theta))
    slope = lambda t: oracle.complex_step(case.loglik, t)  # noqa: E731
    second = np.array([(slope(case.theta + s) - slope(case.theta - s)) / 2e-5 for s in steps])
    assert_allclose(case.objective.observed_information(case.theta), -second, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("swap", [False, True])
def test_steps_are_made_with_the_average_information(swap):
    """Of the cluster variables it is the expected one: their covariances are left out here."""
    case = Case(swap=swap, units=20)
    plain = [
        k
        for k, (level, i, j) in enumerate(case.covs)
        if level == 0 or max(case.levels[level][i], case.levels[level][j]) < 3
    ]
    plain += [len(case.covs) + k for k in range(3)]
    found = case.objective.expected_information(case.theta)[np.ix_(plain, plain)]
    assert_allclose(found, case.average_information()[np.ix_(plain, plain)], rtol=1e-8, atol=1e-9)


def test_saved_data_are_the_same():
    case = Case()
    again = pickle.loads(pickle.dumps(case.data))
    assert np.array_equal(again.products, case.data.products)
    assert np.array_equal(again.pairs, case.data.pairs)


MODEL = """
level: 1
  f1 =~ y1 + y2 + y3
  f1 ~ x
level: pupil
  f2 =~ y1 + y2 + y3
  f2 ~ v
level: lecturer
  f3 =~ y1 + y2 + y3
  f3 ~ w
"""


def ratings(seed=1, count=900, pupils=70, lecturers=50, spread=0.8):
    rng = np.random.default_rng(seed)
    pupil, lecturer = rng.integers(0, pupils, count), rng.integers(0, lecturers, count)
    own = [rng.normal(size=n) for n in (count, pupils, lecturers)]
    data = {
        "x": rng.normal(size=count),
        "v": rng.normal(size=pupils)[pupil],
        "w": rng.normal(size=lecturers)[lecturer],
    }
    for k, loading in enumerate((1, 0.8, 0.9), 1):
        parts = own[0] + 0.3 * data["x"], own[1][pupil] + 0.4 * data["v"], own[2][lecturer] + 0.3 * data["w"]
        noise = [rng.normal(size=n) for n in (count, pupils, lecturers)]
        data[f"y{k}"] = (
            loading * (parts[0] + spread * (parts[1] + parts[2]))
            + 0.6 * noise[0]
            + 1.2 * spread * (noise[1][pupil] + noise[2][lecturer])
        )
    return pd.DataFrame(data).assign(pupil=pupil, lecturer=lecturer)


@pytest.fixture(scope="module")
def fit():
    return msem.sem(MODEL, ratings(), cluster="pupil * lecturer")


@reference.needs_reference
@pytest.mark.parametrize("name", ["cc_penicillin", "cc_insteval"])
def test_reference(name):
    columns, theirs = reference.meta(name)["cluster"], reference.results(name)["lme4"]
    ours = msem.sem(reference.model(name), reference.data(name), cluster=" * ".join(columns))
    assert ours.status == "ok"
    assert ours.llf == pytest.approx(theirs["logl"], abs=1e-6)
    table = ours.estimates().set_index(["lhs", "op", "rhs"])
    rows = [row for row in theirs["parameter_table"] if row["free"]]
    assert len(rows) >= 4
    for row in rows:
        found = table.loc[[(row["lhs"], row["op"], row["rhs"] or "")]]
        # the mean belongs to the highest level here
        mine = found[found["se"] > 0] if row["op"] == "~1" else found[found["level"] == row["level"]]
        # lme4 stops where the slope is 9e-4 of a standard error in the second case, this fit where it is 3e-11
        assert abs(mine["est"].item() - row["est"]) < 2e-4 * row["se"]
        assert mine["se"].item() == pytest.approx(row["se"], rel=1e-3)


def test_a_model_is_tested_against_three_covariance_matrices(fit):
    assert (fit.status, fit.df) == ("ok", 6)
    assert 0 < fit.chisq < 25
    assert fit.unrestricted_llf - fit.llf == pytest.approx(fit.chisq / 2)
    assert len(fit.residuals()) > 0


def test_order_of_rows_and_kind_of_labels_do_not_matter(fit):
    data = ratings().sample(frac=1, random_state=2)
    data["lecturer"] = "L" + data["lecturer"].astype(str)
    again = msem.sem(MODEL, data, cluster="pupil×lecturer")
    assert again.llf == pytest.approx(fit.llf, rel=1e-11)
    assert_allclose(again.params, fit.params, rtol=1e-5, atol=1e-6)


def test_order_of_classifications_does_not_matter(fit):
    first, second, third = MODEL.split("level: ")[1:]
    other = "level: " + "level: ".join([first, third, second])
    again = msem.sem(other, ratings(), cluster="lecturer * pupil")
    assert again.llf == pytest.approx(fit.llf, rel=1e-11)
    assert again.params["f2~v.l3"] == pytest.approx(fit.params["f2~v.l2"], abs=1e-6)


def test_a_classification_without_effects_ends_on_the_border():
    data = ratings(3)
    rng = np.random.default_rng(0)
    data["y1"] = rng.normal(size=len(data)) + data.groupby("pupil")["y2"].transform("mean")
    text = "level: 1\n y1 ~~ y1\nlevel: 2\n y1 ~~ y1\nlevel: 3\n y1 ~~ y1"
    data["lecturer"] = rng.permutation(data["lecturer"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [
            msem.sem(text, data.assign(y1=data["y1"] + k * 1e-3 * data["x"]), cluster="pupil * lecturer")
            for k in range(3)
        ]
    for one in found:
        assert one.status in ("ok", "boundary"), one.problems
        assert one.params["y1~~y1.l3"] >= 0


def test_nested_classifications_are_said_to_be_so():
    data = ratings()
    data["lecturer"] = data["pupil"] % 7
    data["y1"] += 0.7 * data["lecturer"]
    text = "level: 1\n y1 ~~ y1\nlevel: 2\n y1 ~~ y1\nlevel: 3\n y1 ~~ y1"
    with pytest.warns(DataWarning, match="every 'pupil' lies within one 'lecturer'"):
        crossed = msem.sem(text, data, cluster="pupil * lecturer")
    nested = msem.sem(text, data, cluster=["lecturer", "pupil"])
    assert crossed.llf == pytest.approx(nested.llf, rel=1e-12)
    with pytest.warns(DataWarning, match=r"every 'pupil' lies.*need cluster=\['lecturer', 'pupil'\]"):
        other = msem.sem(text, data, cluster="lecturer * pupil")
    assert other.llf == pytest.approx(nested.llf, rel=1e-9)
    assert other.params["y1~~y1.l2"] == pytest.approx(nested.params["y1~~y1.l3"], rel=1e-4)
    data["lecturer"] = 3 * data["pupil"]
    with pytest.raises(DataError, match="these levels cannot be told apart"):
        msem.sem(text, data, cluster="lecturer * pupil")


def test_levels_have_the_names_of_their_columns(fit):
    for level, name in ((2, "pupil"), (3, "lecturer")):
        pd.testing.assert_frame_equal(fit.estimates(level=name), fit.estimates(level=level))
        pd.testing.assert_series_equal(fit.fit_measures(level=name), fit.fit_measures(level=level))
        assert fit.fit_measures(level=name)["nclusters"] == {2: 70, 3: 50}[level]
    assert len(fit.residuals(level="pupil")) == len(fit.residuals(level=2)) > 0
    with pytest.raises(
        MsemError, match="levels 1 to 3 of the model, also called 'pupil', 'lecturer', not 'skool'"
    ):
        fit.estimates(level="skool")
    assert "Clusters: pupil" in msem.table(fit).to_markdown()


def test_a_name_that_is_no_column_is_an_error():
    for name, hint in (
        ("pupl", "did you mean 'level: pupil'"),
        ("desk", "columns of clusters are 'pupil', 'lecturer'"),
    ):
        with pytest.raises(ModelError, match=hint):
            msem.sem(MODEL.replace("level: pupil", f"level: {name}"), ratings(), cluster="pupil * lecturer")


def test_messages_show_what_was_written():
    data = ratings()
    text = "level: 1\n y1 ~~ y1\nlevel: 2\n y1 ~~ y1"
    with pytest.raises(
        ModelError, match=r"cluster='pupil \* lecturer' names 2 columns, and the model has two levels"
    ):
        msem.sem(text, data, cluster="pupil * lecturer")
    data["pupil"] = data["pupil"].astype(float)
    data.loc[3, "pupil"] = np.nan
    with pytest.warns(DataWarning, match=r"1 rows have no cluster id \('pupil \* lecturer'\)"):
        msem.sem(MODEL, data, cluster="pupil * lecturer")


@pytest.mark.parametrize("what", ["distances", "predict"])
def test_what_a_fit_does_not_have_is_refused_by_name(fit, what):
    arguments = (ratings(),) if what == "predict" else ()
    with pytest.raises(UnsupportedError, match="not available for crossed classifications"):
        getattr(fit, what)(*arguments)


def test_random_slopes_are_refused_by_name():
    text = MODEL.replace("f1 ~ x", 'y1 ~ rv("s")*x') + "\n  s ~~ s"
    with pytest.raises(
        UnsupportedError, match=r"crossed classifications are not available.*random slopes.* s$"
    ):
        msem.sem(text, ratings(), cluster="pupil * lecturer")


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"cluster": "pupil * lecturer * x"}, MsemError, "two columns"),
        ({"cluster": "pupil *"}, MsemError, "two columns"),
        ({"cluster": "pupil * pupil"}, MsemError, "two columns"),
        ({"cluster": ["pupil * lecturer", "x"]}, MsemError, "one text"),
        (
            {"cluster": "pupil * lector"},
            ModelError,
            r"of cluster='pupil \* lector': did you mean 'level: lector'",
        ),
        ({"estimator": "MLR"}, UnsupportedError, "no independent clusters"),
        ({"information": "expected"}, UnsupportedError, "crossed classifications"),
        ({"missing": "fiml"}, UnsupportedError, "missing values are not available"),
        ({"test": "hotelling"}, UnsupportedError, "no independent clusters"),
    ],
)
def test_what_is_not_there_is_refused_by_name(options, kind, message):
    with pytest.raises(kind, match=message):
        msem.sem(MODEL, ratings(), **({"cluster": "pupil * lecturer"} | options))


def test_variables_of_clusters_do_not_vary_within_them():
    data = ratings().assign(w=lambda d: d["x"])
    with pytest.raises(DataError, match="'w' is in the block of level 3 only, but varies within"):
        msem.sem(MODEL, data, cluster="pupil * lecturer")


def test_clusters_of_either_classification_belong_to_one_group():
    data = ratings()
    text = "level: 1\n y1 ~~ y1\nlevel: 2\n y1 ~~ y1\nlevel: 3\n y1 ~~ y1"
    for column in ("lecturer", "pupil"):
        halves = data.assign(half=np.where(data[column] < 20, "a", "b"))
        with pytest.raises(DataError, match="have members in several groups of 'half'"):
            msem.sem(text, halves, cluster="pupil * lecturer", group="half")
