"""Tables for publication say what the fits say."""

import builtins

import docx
import numpy as np
import pandas as pd
import pytest

import msem
from msem.errors import DataError, ModelError, MsemError

MODEL = "level: 1\n fw =~ y1 + a*y2 + y3\n fw ~ x1\nlevel: 2\n fb =~ y1 + y2 + y3\n fb ~ w1\n twice := 2*a"


@pytest.fixture(scope="module")
def fits(demo):
    larger = MODEL.replace("fb ~ w1", "fb ~ w1 + w2")
    return {
        "one": msem.sem(MODEL, demo, cluster="cluster"),
        "other": msem.sem(larger, demo, cluster="cluster", estimator="MLR"),
    }


def test_cells_are_the_estimates(fits):
    table = msem.table(fits, show=("se", "std_all"))
    frame = table.frame
    for name, fit in fits.items():
        row = fit.estimates(standardized=True).query("lhs == 'fb' and rhs == 'y2'").iloc[0]
        place = ("Between: Loadings", "fb =~ y2")
        assert frame.loc[place, (name, "Estimate")] == f"{row['est']:.3f} ({row['se']:.3f})"
        assert frame.loc[place, (name, "Std. all")] == f"{row['std_all']:.3f}"
        assert frame.loc[("Sample", "Units"), (name, "Estimate")] == "2500"
        assert (
            frame.loc[("Fit", "CFI"), (name, "Estimate")]
            == f"{fit.fit_measures().get('cfi_robust', fit.fit_measures()['cfi']):.3f}"
        )
    assert frame.loc[("Within: Loadings", "fw =~ y1"), ("one", "Estimate")] == "1.000"  # fixed
    assert frame.loc[("Between: Regressions", "fb ~ w2"), ("one", "Estimate")] == ""
    assert frame.loc[("Defined parameters", "twice"), ("one", "Estimate")].startswith(
        f"{2 * fits['one'].params['a']:.3f}"
    )
    assert (
        frame.loc[("Fit", "Chi-square"), ("other", "Estimate")]
        == f"{fits['other'].fit_measures()['chisq_scaled']:.3f}"
    )


@pytest.fixture(scope="module")
def ordinal(demo):
    cut = {name: pd.cut(demo[name], [-np.inf, -1, 0, 1, np.inf], labels=False) for name in ("y1", "y2", "y3")}
    return msem.sem("f =~ y1 + y2 + y3 + y4\nf ~ x1", demo.assign(**cut), ordered=list(cut))


@pytest.mark.parametrize(
    ("wanted", "key", "said"),
    [
        ("chisq", "chisq_scaled", "Of other chi-square is scaled."),
        ("pvalue", "pvalue_scaled", "Of other p is scaled."),
        ("cfi", "cfi_robust", "Of other CFI is robust."),
        ("rmsea.ci.upper", "rmsea_ci_upper_robust", "Of other RMSEA, upper limit is robust."),
        (
            ["chisq", "rmsea", "tli"],
            "chisq_scaled",
            "Of other chi-square is scaled, RMSEA and TLI are robust.",
        ),
    ],
)
def test_measures_asked_for_are_those_of_the_robust_estimator(fits, wanted, key, said):
    table = msem.table(fits, fit_measures=wanted, digits=9)
    row = table.frame.loc["Fit"].iloc[0]
    plain = key.removesuffix("_scaled").removesuffix("_robust")
    assert float(row["one", "Estimate"]) == pytest.approx(fits["one"].fit_measures()[plain], abs=1e-9)
    assert float(row["other", "Estimate"]) == pytest.approx(fits["other"].fit_measures()[key], abs=1e-9)
    assert fits["other"].fit_measures()[plain] != pytest.approx(fits["other"].fit_measures()[key], abs=1e-9)
    assert f"Estimator one: ML, other: MLR. {said} msem" in table.notes[0]


def test_the_note_names_what_is_not_of_the_likelihood_ratio(fits):
    assert "Of other chi-square is scaled, CFI, TLI and RMSEA are robust." in msem.table(fits).notes[0]
    alone = msem.table(fits["other"]).notes[0]
    assert "Estimator MLR. Chi-square is scaled, CFI, TLI and RMSEA are robust." in alone
    for table in (msem.table(fits["one"]), msem.table(fits, fit_measures=["aic", "df"])):
        assert "scaled" not in table.notes[0]
        assert "robust" not in table.notes[0]


def test_least_squares_have_scaled_measures(ordinal):
    measures = ordinal.fit_measures()
    table = msem.table(ordinal, fit_measures=["chisq", "pvalue", "cfi", "rmsea"], digits=5)
    found = table.frame.loc["Fit"].iloc[:, 0]
    for label, key in (("Chi-square", "chisq"), ("p", "pvalue"), ("CFI", "cfi"), ("RMSEA", "rmsea")):
        assert found[label] == f"{measures[f'{key}_scaled']:.5f}"
    assert "Chi-square, CFI and RMSEA are scaled." in table.notes[0]


def test_variants_that_are_named_stand_for_themselves(fits):
    measures = fits["other"].fit_measures()
    table = msem.table(fits, fit_measures=["cfi.scaled", "cfi_robust", "rmsea_scaled"])
    found = table.frame.loc["Fit"]
    assert list(found.index) == ["CFI (scaled)", "CFI (robust)", "RMSEA (scaled)"]
    assert list(found["one", "Estimate"]) == ["", "", ""]
    keys = ("cfi_scaled", "cfi_robust", "rmsea_scaled")
    assert list(found["other", "Estimate"]) == [f"{measures[key]:.3f}" for key in keys]
    assert " are " not in table.notes[0]
    with pytest.raises(ModelError, match="no fit measure 'cfi_robust'"):
        msem.table(fits["one"], fit_measures="cfi_robust")


def test_levels_have_srmr_and_their_sum_is_none(fits, demo):
    table = msem.table(fits["one"])
    assert [row for row in table.frame.loc["Fit"].index if "SRMR" in row] == ["SRMR within", "SRMR between"]
    assert list(msem.table(fits["one"], fit_measures="srmr").frame.loc["Fit"].index) == [
        "SRMR, sum over levels"
    ]
    single = msem.sem("f =~ y1 + y2 + y3 + y4", demo)
    both = msem.table(single=single, two=fits["one"]).frame.loc["Fit"]
    assert both.loc["SRMR", ("single", "Estimate")] == f"{single.fit_measures()['srmr']:.3f}"
    assert both.loc["SRMR", ("two", "Estimate")] == ""


def test_numbers_in_the_style_of_the_apa(fits):
    frame = msem.table(one=fits["one"], show=("pvalue", "std_all"), ops="=~", apa=True).frame
    assert frame.loc[("Within: Loadings", "fw =~ y2"), ("one", "Estimate")].endswith("p < .001")
    assert frame.loc[("Within: Loadings", "fw =~ y2"), ("one", "Std. all")].startswith(".")
    assert frame.loc[("Fit", "RMSEA"), ("one", "Estimate")].startswith(".0")
    assert frame.index.get_level_values(0).unique().tolist() == [
        "Within: Loadings",
        "Between: Loadings",
        "Sample",
        "Fit",
    ]


def test_stars_and_intervals(fits):
    fit = fits["one"]
    row = fit.estimates(ci_level=0.9).query("lhs == 'fb' and rhs == 'w1'").iloc[0]
    cell = (
        msem.table(fit, show=("stars", "ci"), ci_level=0.9)
        .frame.loc[("Between: Regressions", "fb ~ w1")]
        .iloc[0]
    )
    stars = "*" * sum(row["pvalue"] < bound for bound in (0.05, 0.01, 0.001))
    assert cell == f"{row['est']:.3f}{stars} [{row['ci_lower']:.3f}, {row['ci_upper']:.3f}]"


def test_formats(fits, tmp_path):
    table = msem.table(fits, fit_measures=["chisq", "df"])
    for suffix, text in (
        (".html", "<table"),
        (".tex", r"\begin{tabular"),
        (".md", "| `fb =~ y2` |"),
        (".csv", "fb =~ y2,"),
    ):
        table.save(tmp_path / f"table{suffix}")
        assert text in (tmp_path / f"table{suffix}").read_text()
    assert r"\*\*\*" in table.to_markdown()
    assert "Estimator one: ML, other: MLR." in table.notes[0]
    for name in ("table.xyz", "table.doc", "table"):
        with pytest.raises(DataError, match=r"suffix \.docx, \.html, \.tex, \.md, \.csv"):
            table.save(tmp_path / name)


def of_word(path):
    """Texts of the rows of the table, a merged cell once; and the paragraphs below it."""
    document = docx.Document(str(path))
    (table,) = document.tables
    rows = []
    for row in table.rows:
        cells = {id(cell._tc): cell.text for cell in row.cells}
        rows.append(list(cells.values()))
    return rows, [p.text for p in document.paragraphs], document


def test_word_documents(fits, tmp_path):
    table = msem.table(fits, fit_measures=["chisq", "df"])
    table.save(tmp_path / "table.docx")
    rows, notes, document = of_word(tmp_path / "table.docx")
    assert rows[0] == ["", "one", "other"]
    sections = list(dict.fromkeys(table.frame.index.get_level_values(0)))
    assert [row[0] for row in rows if len(row) == 1] == sections
    body = [row for row in rows[1:] if len(row) == 3]
    assert body == [
        [name, *values] for (_, name), values in zip(table.frame.index, table.frame.to_numpy(), strict=True)
    ]
    assert notes == [f"Note. {table.notes[0]}"]
    assert document.sections[0].page_width < document.sections[0].page_height
    wide = msem.table(fits, show=("se", "std_all", "std_lv", "std_nox"))
    wide.save(tmp_path / "wide.docx")
    rows, _, document = of_word(tmp_path / "wide.docx")
    assert rows[0] == ["", "one", "other"]
    assert rows[1] == ["", *["Estimate", "Std. all", "Std. lv", "Std. nox"] * 2]
    assert document.sections[0].page_width > document.sections[0].page_height


def test_a_summary_is_a_latex_table(fits):
    text = fits["one"].summary(fit_measures=True).as_latex()
    assert "\\begin{tabular" in text
    assert f"{fits['one'].params['fb~w1.l2']:.3f}" in text
    assert "Model Test User Model" in text


def test_without_great_tables_the_extra_is_named(fits, monkeypatch):
    table, plain = msem.table(fits), builtins.__import__

    def missing(name, *arguments, **options):
        if name.startswith(("great_tables", "docx")):
            raise ImportError(name)
        return plain(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match=r"pip install 'msem\[tables\]'"):
        table.to_html()
    assert "<table" in table._repr_html_()
    with pytest.raises(ImportError, match=r"pip install 'msem\[word\]'"):
        table.save("table.docx")


def test_groups_saved_fits_and_what_is_none(fits, demo, tmp_path):
    fits["one"].save(tmp_path / "one.json")
    saved = msem.SavedFit.load(tmp_path / "one.json")
    assert msem.table(a=saved).frame.equals(msem.table(a=fits["one"]).frame)
    grouped = msem.sem("f =~ y1 + y2 + y3", demo.assign(g=demo["cluster"] % 2), group="g")
    assert ("1: Loadings", "f =~ y2") in msem.table(grouped).frame.index
    with pytest.raises(ModelError, match="model_1 is a int"):
        msem.table(3)
    with pytest.raises(ModelError, match="one fit or more"):
        msem.table()
    with pytest.raises(MsemError, match="show must be one of"):
        msem.table(fits, show="sd")
    with pytest.raises(ModelError, match="no fit measure 'nonsense'"):
        msem.table(fits, fit_measures="nonsense")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ["fw"]}, "labels is a dict"),
        ({"labels": {"fw": 3}}, "labels is a dict"),
        ({"title": 3}, "title and note are texts"),
        ({"note": ["a"]}, "title and note are texts"),
        ({"digits": -1}, "digits must be a whole number"),
        ({"digits": 2.5}, "digits must be a whole number"),
        ({"show": None}, "a name or a sequence of names is expected"),
        ({"fit_measures": 3}, "a name or a sequence of names is expected"),
        ({"fit_measures": [3]}, "no fit measure '3'"),
    ],
)
def test_options_of_another_type_are_refused(fits, options, message):
    with pytest.raises(MsemError, match=message):
        msem.table(fits, **options)


LABELS = {
    "fw": "Ability",
    "y2": "Item & 2",
    "fw =~ y3": "The third",
    "CFI": "Comparative",
    "Estimate": "Est.",
}


def test_labels_title_and_note(fits):
    fit = fits["one"]
    plain = msem.table(fit)
    table = msem.table(fit, labels=LABELS | {"Loadings": "Weights"}, title="50% of it", note="Made up.")
    rows = [row for _, row in table.frame.index]
    assert table.frame.to_numpy().tolist() == plain.frame.to_numpy().tolist()
    assert "Ability =~ Item & 2" in rows
    assert "The third" in rows
    assert "Comparative" in rows
    assert not {"fw =~ y2", "fw =~ y3", "CFI"} & set(rows)
    assert any("Weights" in section for section, _ in table.frame.index)
    assert list(table.frame.columns) == [("", "Est.")]
    assert table.notes[0].startswith("Made up. Standard errors")
    assert table.to_markdown().startswith("**50% of it**\n\n|  | Est. |")
    assert "50% of it" in table.to_html()
    with pytest.raises(ModelError, match="'nothing' is no variable, row, section or heading"):
        msem.table(fit, labels={"nothing": "x"})


def test_labels_of_names_with_blanks(demo):
    fit = msem.sem("f =~ y1 + 'math score' + y3", demo.rename(columns={"y2": "math score"}))
    rows = [row for _, row in msem.table(fit, labels={"math score": "Mathematics"}).frame.index]
    assert {"f =~ Mathematics", "Mathematics"} <= set(rows)


def test_captions_and_long_tables_of_latex(fits, tmp_path):
    table = msem.table(fits["one"], title="50% of it_all")
    short = table.to_latex(label="tab:one")
    assert short.count(r"\caption{50\% of it\_all}\label{tab:one}") == 1
    assert r"\begin{table}" in short
    assert "fontsize" not in short
    text = table.to_latex(label="tab:one", longtable=True)
    assert text.count(r"\begin{longtable}") == text.count(r"\caption{50\% of it\_all}\label{tab:one} \\") == 1
    first, again = text.split(r"\endfirsthead")
    again = again.split(r"\endhead")[0]
    assert "Estimate" in first
    assert "Estimate" in again
    body = text.split(r"\endhead")[1]
    assert all(f"{row[1]} &" in body for row in table.frame.index if "~" not in row[1])
    many = msem.PublicationTable(pd.concat([table.frame] * 4), table.notes)
    assert r"\begin{longtable}" in many.to_latex()
    assert "caption" not in many.to_latex()
    table.save(tmp_path / "t.tex", label="tab:one")
    assert (tmp_path / "t.tex").read_text() == short


def test_the_title_of_a_word_document(fits, tmp_path):
    docx = pytest.importorskip("docx")
    msem.table(fits["one"], title="A title").save(tmp_path / "t.docx")
    assert docx.Document(str(tmp_path / "t.docx")).paragraphs[0].text == "A title"


def test_a_single_fit_has_a_name_where_it_was_given(fits):
    assert msem.table(mine=fits["one"]).frame.columns[0][0] == "mine"
    assert msem.table({"mine": fits["one"]}).frame.columns[0][0] == "mine"
    assert msem.table(fits["one"]).frame.columns[0][0] == ""
    assert msem.table([fits["one"], fits["one"]]).frame.columns[0][0] == "model_1"
