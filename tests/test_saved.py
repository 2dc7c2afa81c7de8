"""Fits as files, fits again with changes, and fits under the names of packages for tables."""

import json
import pickle
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import msem
from msem.data.storage import signed
from msem.errors import DataError, DataWarning, ModelError, MsemError, UnsupportedError
from msem.fits.request import extended
from msem.language.syntax import parse

MODEL = """level: 1
  fw =~ y1 + a*y2 + y3
  fw ~ x1
level: 2
  fb =~ y1 + y2 + y3
  fb ~ w1
  twice := 2*a
"""


@pytest.fixture(scope="module")
def fit(demo):
    return msem.sem(MODEL, demo, cluster="cluster", estimator="MLR")


@pytest.fixture
def saved(fit, tmp_path):
    fit.save(tmp_path / "fit.json")
    return msem.SavedFit.load(tmp_path / "fit.json")


def test_a_saved_fit_says_what_the_fit_said(fit, saved):
    pd.testing.assert_frame_equal(saved.estimates(standardized=True), fit.estimates(standardized=True))
    pd.testing.assert_frame_equal(saved.cov_params(), fit.cov_params())
    pd.testing.assert_series_equal(saved.fit_measures(), fit.fit_measures(), check_names=False)
    for name in ("params", "bse", "tvalues", "pvalues"):
        assert_allclose(getattr(saved, name), getattr(fit, name), rtol=1e-12)
        assert list(getattr(saved, name).index) == list(fit.params.index)
    for name in ("nobs", "nclusters", "npar", "df", "llf", "aic", "bic", "status", "converged"):
        assert getattr(saved, name) == getattr(fit, name)
    assert saved.model == MODEL
    assert saved.options == fit.options
    assert saved.params["fb =~ y2"] == fit.params["fb =~ y2"]
    assert_allclose(saved.conf_int(alpha=0.1), fit.conf_int(ci_level=0.9))
    pd.testing.assert_frame_equal(saved.tidy(), fit.tidy())
    pd.testing.assert_frame_equal(saved.glance(), fit.glance())
    assert [line for line in fit.summary().splitlines() if "~~" in line or "y2" in line] == [
        line for line in saved.summary().splitlines() if "~~" in line or "y2" in line
    ]
    assert "msem-row" in saved._repr_html_()


def test_a_saved_fit_is_drawn_as_the_fit(fit, saved):
    for choices in ({}, {"errors": "se", "means": True}):
        assert saved.diagram(**choices).to_tikz() == fit.diagram(**choices).to_tikz()
    assert msem.diagram(saved).to_tikz() == fit.diagram().to_tikz()
    shown = saved.diagram(standardized="std_lv", errors="se").to_tikz()
    assert "standard errors" not in shown  # a file has none of standardized estimates
    known = fit.diagram(standardized="std_lv", errors="none").to_tikz()
    assert re.findall(r"{(-?[0-9.]+)};", shown) == re.findall(r"{(-?[0-9.]+)};", known)
    with pytest.raises(ModelError, match="has not converged"):
        replace(saved, content=saved.content | {"converged": False}).diagram()


def test_the_file_is_a_record_that_can_be_read(fit, tmp_path):
    fit.save(tmp_path / "fit.json")
    content = json.loads((tmp_path / "fit.json").read_text())
    assert content["format"] == "msem fit"
    assert content["model"] == MODEL
    assert content["options"]["estimator"] == "MLR"
    assert content["fit_measures"]["cfi"] == fit.fit_measures()["cfi"]
    again = msem.SavedFit.load(tmp_path / "fit.json")
    again.save(tmp_path / "again.json")
    assert json.loads((tmp_path / "again.json").read_text()) == content


def test_files_that_are_damaged_altered_or_no_fits_are_refused(fit, tmp_path):
    path = tmp_path / "fit.json"
    fit.save(path)
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    with pytest.raises(DataError, match="not a file of a fit, or is cut short"):
        msem.SavedFit.load(path)
    path.write_text(text.replace('"nobs": 2500', '"nobs": 2600'))
    with pytest.raises(DataError, match="damaged"):
        msem.SavedFit.load(path)
    content = {name: value for name, value in json.loads(text).items() if name != "sha256"}
    for change in (
        {"covariance": [[1.0]]},
        {"rows": [["f", "=~"]]},
        {"options": {"estimator": "XX"}},
        {"est": []},
    ):
        path.write_text(json.dumps(signed({**content, **change})))
        with pytest.raises(DataError, match=r"file of a fit|estimator must be"):
            msem.SavedFit.load(path)
    fit.saturated.save(path)
    with pytest.raises(DataError, match="not a file of a fit"):
        msem.SavedFit.load(path)


def test_a_saved_fit_says_what_it_cannot_answer(saved):
    with pytest.raises(AttributeError, match=r"no data and no 'modification_indices'.*saved\.model"):
        saved.modification_indices()
    with pytest.raises(AttributeError, match=r"fit\.params here"):
        saved.coef  # noqa: B018


def test_fits_without_errors_groups_and_single_levels_are_saved(demo, tmp_path):
    data = demo.assign(g=demo["cluster"] % 2)
    for model, options in (("f =~ y1 + y2 + y3", {"group": "g"}), ("y1 ~ x1", {"se": "none"})):
        fit = msem.sem(model, data, **options)
        fit.save(tmp_path / "fit.json")
        saved = msem.SavedFit.load(tmp_path / "fit.json")
        pd.testing.assert_frame_equal(saved.estimates(), fit.estimates())
        assert saved.nclusters is None
        assert saved.table.group_labels == fit.group_labels


@pytest.mark.parametrize("name", ["fit.pkl", "fit.csv", "fit.DOCX"])
def test_a_fit_is_not_saved_under_the_name_of_another_format(name, fit, tmp_path):
    with pytest.raises(MsemError, match=r"saved as \.json"):
        fit.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_updates_change_what_they_are_given(fit, demo):
    plain = fit.update(estimator="ML")
    assert (plain.options.estimator, plain.llf) == ("ML", fit.llf)
    more = fit.update(add="level: within\n  y1 ~~ y3")
    direct = msem.sem(
        MODEL.replace("fw ~ x1", "fw ~ x1\n  y1 ~~ y3"), demo, cluster="cluster", estimator="MLR"
    )
    assert (more.df, more.llf) == (direct.df, pytest.approx(direct.llf, abs=1e-6))
    assert fit.update(data=demo[:1250], estimator="ML").nobs == 1250
    assert fit.update("y1 ~ x1", cluster=None).nclusters is None
    assert more.update(estimator="ML").df == more.df
    boot = msem.sem("y1 ~ x1", demo[:50], se="bootstrap", bootstrap=20, seed=1)
    assert boot.update(se="standard").options.bootstrap == 0


def test_updates_that_do_not_say_enough_are_refused(fit):
    with pytest.raises(ModelError, match="say where the new lines stand, add='level: 2"):
        fit.update(add="y1 ~~ y2")
    copy = pickle.loads(pickle.dumps(fit))
    with pytest.raises(ModelError, match="give data="):
        copy.update(estimator="ML")
    compiled = msem.compile("y1 ~ x1").fit(fit.request.data)
    with pytest.raises(ModelError, match="only fits of sem"):
        compiled.update(estimator="MLR")


@pytest.mark.parametrize(
    ("model", "add", "whole"),
    [
        ("f =~ y1 + y2", "f ~ x", "f =~ y1 + y2\nf ~ x"),
        (
            "level: 1; f =~ y1 + y2; level: 2; g =~ y1 + y2",
            "level: 1; y1 ~~ y2",
            "level: 1\nf =~ y1 + y2\ny1 ~~ y2\nlevel: 2\ng =~ y1 + y2",
        ),
        (
            "group: a\nlevel: 1\nf =~ y1\nlevel: 2\ng =~ y1\ngroup: b\nlevel: 1\nf =~ y1\nlevel: 2\ng =~ y1",
            "group: a\nlevel: between\ny1 ~~ 0*y1",
            "group: a\nlevel: 1\nf =~ y1\nlevel: 2\ng =~ y1\ny1 ~~ 0*y1\n"
            "group: b\nlevel: 1\nf =~ y1\nlevel: 2\ng =~ y1",
        ),
        ("level: 1\nf =~ y1 + a*y2\nlevel: 2\ng =~ y1 + y2", "a == 1",
         "level: 1\nf =~ y1 + a*y2\nlevel: 2\ng =~ y1 + y2\na == 1"),
    ],
)  # fmt: skip
def test_lines_are_put_below_their_header(model, add, whole):
    found, wanted = parse(extended(model, add)), parse(whole)
    statements = [
        {
            (s.lhs, s.op, s.rhs, s.modifiers, one.blocks[s.block].group, one.blocks[s.block].level)
            for s in one.statements
        }
        for one in (found, wanted)
    ]
    assert statements[0] == statements[1]
    assert found.constraints == wanted.constraints


def test_fits_under_the_names_of_broom_and_maketables(fit):
    tidy, estimates = fit.tidy(), fit.estimates(standardized=True)
    assert tidy["term"].tolist()[:2] == ["fw =~ y1", "fw =~ y2"]
    assert_allclose(tidy["std_error"], estimates["se"])
    assert_allclose(tidy["std_all"], estimates["std_all"])
    row = fit.glance().iloc[0]
    assert (row["nobs"], row["nclusters"], row["npar"], row["estimator"]) == (2500, 200, fit.npar, "MLR")
    assert row["cfi"] == fit.fit_measures()["cfi"]
    table = fit.__maketables_coef_table__
    assert table.index.is_unique
    assert_allclose(table.loc["fb =~ y2 (between)", "b"], fit.params["fb =~ y2"])
    assert np.isfinite(table[["b", "se", "t", "p"]].to_numpy()).all()
    assert fit.__maketables_stat__("N") == 2500
    assert all(np.isfinite(fit.__maketables_stat__(key)) for key in fit.__maketables_default_stat_keys__)
    assert fit.df_resid == 2500 - fit.npar


def loaded(fit, path):
    fit.save(path)
    return msem.SavedFit.load(path)


QUESTIONS = [
    lambda fit: fit.standardized("std_lv"),
    lambda fit: fit.standardized(total=True, level=2),
    lambda fit: fit.rsquare(),
    lambda fit: fit.defined(),
    lambda fit: fit.defined(method="monte_carlo", draws=500),
    lambda fit: fit.effects(),
    lambda fit: fit.contextual_effects(pairs={"fw": "fb", "x1": "w1"}),
    lambda fit: fit.variance_partition(),
    lambda fit: fit.icc_table(source="model"),
    lambda fit: fit.wald_test(["a == 1", "twice == 2"]),
    lambda fit: fit.estimates(reference="t"),
]


@pytest.mark.parametrize("question", QUESTIONS, ids=range(len(QUESTIONS)))
def test_questions_about_estimates_have_the_answers_of_the_fit(question, fit, saved):
    pd.testing.assert_frame_equal(question(saved), question(fit))


def test_questions_of_other_models_have_the_same_answers(demo, tmp_path):
    slopes = msem.sem(
        "level: 1\n y1 ~ rv('s')*x1\nlevel: 2\n y1 ~ w1\n s ~ w1\n y1 ~~ s", demo, cluster="cluster"
    )
    cut = demo.assign(u1=np.digitize(demo["y1"], [-0.8, 0.7]), half=demo["cluster"] % 2)
    ordered = msem.sem("f =~ u1 + y2 + y3\n f ~ x1", cut, ordered=["u1"], group="half")
    with pytest.warns(match="boundary"):
        bound = msem.sem(MODEL.replace("fb ~ w1", "fb ~ b*w1\n  b > 0.4"), demo, cluster="cluster")
    for k, fit in enumerate((slopes, ordered, bound)):
        saved = loaded(fit, tmp_path / f"{k}.json")
        for name in ("standardized", "rsquare", "effects"):
            pd.testing.assert_frame_equal(getattr(saved, name)(), getattr(fit, name)())
    saved = loaded(slopes, tmp_path / "slopes.json")
    pd.testing.assert_frame_equal(saved.simple_slopes("y1 ~ x1"), slopes.simple_slopes("y1 ~ x1"))
    pd.testing.assert_frame_equal(saved.johnson_neyman("y1 ~ x1"), slopes.johnson_neyman("y1 ~ x1"))
    with pytest.raises(UnsupportedError, match="no saturated moments"):
        saved.icc_table(source="saturated")


def test_files_of_an_older_version_answer_what_they_can(saved):
    older = {
        k: v for k, v in saved.content.items() if k not in ("reference_df", "design_df", "moving", "sizes")
    }
    older = replace(saved, content=older)
    pd.testing.assert_frame_equal(older.standardized(), saved.standardized())
    with pytest.raises(UnsupportedError, match="no degrees of freedom"):
        older.estimates(reference="t")
    with pytest.raises(UnsupportedError, match="no cluster sizes"):
        older.icc_table()


@pytest.mark.parametrize("estimator", ["ML", "MLR"])
def test_saved_fits_are_compared_as_the_fits_are(demo, estimator, tmp_path):
    large = msem.sem(MODEL, demo, cluster="cluster", estimator=estimator)
    small = msem.sem(
        MODEL.replace("fb ~ w1", "fb ~ 0*w1"), demo, cluster="cluster", estimator=estimator, fixed_x=True
    )
    known = msem.compare_models(large=large, small=small)
    files = {name: loaded(one, tmp_path / name) for name, one in (("large", large), ("small", small))}
    for given in (
        files,
        {"large": large, "small": files["small"]},
        {"small": small, "large": files["large"]},
    ):
        found = msem.compare_models(given)
        pd.testing.assert_frame_equal(found, known, rtol=1e-6)
    with pytest.raises(UnsupportedError, match="needs the data"):
        msem.compare_models(files, method="satorra_2000")


def test_what_saved_fits_cannot_tell_is_refused_or_said(demo, fit, saved, tmp_path):
    plain = msem.sem(MODEL, demo, cluster="cluster")
    small = msem.sem(MODEL.replace("fb ~ w1", "fb ~ 0*w1"), demo, cluster="cluster")
    other = demo.assign(y1=1.01 * demo["y1"])
    mine = loaded(plain, tmp_path / "a.json")
    for data, message in (
        (other, "saturated models are"),
        (demo[demo["cluster"] < 150], "and .* units"),
    ):
        with pytest.raises(DataError, match=message):
            msem.compare_models(
                mine, msem.sem(MODEL.replace("fb ~ w1", "fb ~ 0*w1"), data, cluster="cluster")
            )
    with pytest.raises(DataError, match=r"only one of .* 'w1' at level 2"):
        msem.compare_models(mine, msem.sem(MODEL.replace("fb ~ w1", ""), demo, cluster="cluster"))
    with pytest.raises(ModelError, match="same degrees of freedom"):
        msem.compare_models(mine, plain)
    marker = MODEL.replace("fb =~ y1 + y2 + y3", "fb =~ NA*y1 + 1*y2 + y3").replace("fb ~ w1", "fb ~ 0*w1")
    with pytest.warns(DataWarning, match="not seen in their parameters"):
        found = msem.compare_models(mine, msem.sem(marker, demo, cluster="cluster"))
    assert found["chisq_diff"].iloc[1] == pytest.approx(
        msem.compare_models(plain, small)["chisq_diff"].iloc[1], rel=1e-5
    )
    with pytest.raises(ModelError, match="is a int"):
        msem.compare_models(mine, 3)
