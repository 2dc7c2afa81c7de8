"""Files of rows: whatever separates values, whatever stands for a missing one, value labels kept."""

from __future__ import annotations

import builtins
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyreadstat
import pytest

import msem
from msem.cli import main
from msem.data.files import read_chunks
from msem.data.screening import far_codes, warn_of_codes
from msem.errors import ArgumentError, DataError, DataWarning, ExtraError, MissingFileError

MODEL = "level: 1\nfw =~ y1 + y2 + y3\nlevel: 2\nfb =~ y1 + y2 + y3\n"


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    frame = msem.load_demo()[["y1", "y2", "y3", "w1", "cluster"]]
    frame.loc[[3, 5], "y1"] = np.nan
    return frame.assign(country=np.where(frame["cluster"] % 2, 1.0, 2.0))


FORMS: dict[str, dict[str, Any]] = {
    "commas": {},
    "semicolons": {"sep": ";"},
    "semicolons and decimal commas": {"sep": ";", "decimal": ","},
    "tabs": {"sep": "\t"},
    "tabs and decimal commas": {"sep": "\t", "decimal": ","},
    "bars": {"sep": "|"},
    "blanks": {"sep": " ", "na_rep": "."},
    "dots": {"na_rep": "."},
    "quoted names": {"sep": ";", "quoting": 2, "na_rep": "NA"},
}


@pytest.mark.parametrize("options", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("name", ["data.csv", "data.txt.gz"])
def test_text_files(data: pd.DataFrame, tmp_path: Path, options: dict[str, Any], name: str) -> None:
    data.to_csv(tmp_path / name, index=False, **options)
    pd.testing.assert_frame_equal(msem.read_data(tmp_path / name), data, check_dtype=False)


def test_odd_text_files(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("score\n1\n2\n")
    assert list(msem.read_data(tmp_path / "one.csv")) == ["score"]
    (tmp_path / "name.csv").write_text("total score\n1\n2\n")
    assert list(msem.read_data(tmp_path / "name.csv")) == ["total score"]
    (tmp_path / "bom.csv").write_bytes(b"\xef\xbb\xbfa;b\n1,5;2\n")
    assert msem.read_data(tmp_path / "bom.csv").to_dict("list") == {"a": [1.5], "b": [2]}
    (tmp_path / "text.csv").write_text('a,"x;y;z"\n1,2\n')
    assert list(msem.read_data(tmp_path / "text.csv")) == ["a", "x;y;z"]
    (tmp_path / "twice.csv").write_text("a;b;a\n1;2;3\n")
    with pytest.raises(DataError, match="several columns named 'a'"):
        msem.read_data(tmp_path / "twice.csv")


LABELS = {"country": {1.0: "Norway", 2.0: "Chile"}}
WRITERS = {
    ".sav": pyreadstat.write_sav,
    ".zsav": pyreadstat.write_sav,
    ".dta": pyreadstat.write_dta,
    ".xpt": pyreadstat.write_xport,
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_statistical_files(data: pd.DataFrame, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"data{suffix}"
    options = {"variable_value_labels": LABELS} if suffix in (".sav", ".dta") else {}
    labels = {"column_labels": {"y1": "first item"}}
    WRITERS[suffix](data, str(path), **options, **labels)
    found = msem.read_data(path)
    np.testing.assert_allclose(found.to_numpy(float), data.to_numpy(float), rtol=1e-12)
    assert found.attrs["variable_labels"]["y1"] == "first item"
    if options:
        assert found.attrs["value_labels"] == LABELS
        labelled = msem.read_data(path, labels="country")
        assert labelled["country"].cat.categories.tolist() == ["Norway", "Chile"]
        assert (labelled["country"] == "Norway").equals(data["country"] == 1)


def test_labels_need_not_be_complete_or_distinct(tmp_path: Path) -> None:
    frame = pd.DataFrame({"g": [1.0, 2.0, 3.0, np.nan], "y": [1.0, 2.0, 3.0, 4.0]})
    pyreadstat.write_sav(frame, str(tmp_path / "a.sav"), variable_value_labels={"g": {1.0: "a", 2.0: "a"}})
    found = msem.read_data(tmp_path / "a.sav", labels=["g", "y"])
    assert found["g"].cat.categories.tolist() == ["a (1)", "a (2)", "3"]
    assert found["g"].isna().tolist() == [False, False, False, True]
    assert found["y"].tolist() == [1, 2, 3, 4]
    with pytest.raises(DataError, match="no column 'h'"):
        msem.read_data(tmp_path / "a.sav", labels="h")


def test_declared_and_named_codes_are_missing(tmp_path: Path) -> None:
    frame = pd.DataFrame({"y": [1.0, -9.0, 3.0], "t": ["a", "-9", "none"]})
    pyreadstat.write_sav(frame, str(tmp_path / "a.sav"), missing_ranges={"y": [-9.0]})
    assert msem.read_data(tmp_path / "a.sav")["y"].isna().tolist() == [False, True, False]
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_csv(tmp_path / "a.csv", index=False)
    for name in ("a.parquet", "a.csv"):
        found = msem.read_data(tmp_path / name, missing=[-9, "none"])
        assert found["y"].isna().tolist() == [False, True, False]
        assert found["t"].isna().tolist() == [False, True, True]


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "noise.sav").write_bytes(b"no such thing" * 20)
    with pytest.raises(DataError, match=r"noise\.sav cannot be read"):
        msem.read_data(tmp_path / "noise.sav")
    with pytest.raises(FileNotFoundError):
        msem.read_data(tmp_path / "absent.dta")
    plain = builtins.__import__

    def missing(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "pyreadstat":
            raise ImportError(name)
        return plain(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ExtraError, match=r"pip install 'msem\[files\]'"):
        msem.read_data(tmp_path / "noise.sav")


def test_values_that_look_like_codes() -> None:
    columns = {
        "likert": [1.0, 5.0, 3.0, 99.0, 99.0, -9.0],
        "income": [1e4, 99999.0, 2e5, 3e5, 1e5, 5e4],
        "age": [20.0, 30.0, 99.0, 60.0, 95.0, 18.0],
        "count": [0.0, 1.0, 2.0, 1.0, 0.0, 9.0],
        "twice": [0.0, 1.0, 2.0, 9.0, np.nan, 9.0],
        "all": [9.0] * 6,
        "none": [np.nan] * 6,
    }
    halves = [{name: np.array(own[k::2]) for name, own in columns.items()} for k in range(2)]
    found = {name: far_codes([half[name] for half in halves]) for name in columns}
    assert {name: own for name, own in found.items() if own} == {
        "likert": [-9.0, 99.0],
        "count": [9.0],
        "twice": [9.0],
    }
    with pytest.warns(
        DataWarning, match="^'likert' has the value -9 in 1 rows, 'likert' .* and 'twice' has"
    ) as caught:
        warn_of_codes(halves)
    assert len(caught) == 1
    assert "'count'" not in str(caught[0].message)  # one child with nine siblings is none


@pytest.mark.parametrize(
    "use",
    [
        lambda data: msem.sem(MODEL, data, cluster="cluster"),
        lambda data: msem.saturated(data, cluster="cluster", within=["y1"], between=["y1"]),
        lambda data: msem.describe(data, cluster="cluster", variables=["y1"]),
    ],
)
def test_codes_are_pointed_out_once(data: pd.DataFrame, use: Any) -> None:
    with pytest.warns(
        DataWarning, match=r"'y1' has the value -99 in 2 rows, .* data.replace\(-99,"
    ) as caught:
        use(data.fillna({"y1": -99.0}))
    assert len(caught) == 1


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    shown = capsys.readouterr()
    return status, shown.out, shown.err


def test_groups_have_the_labels_of_an_spss_file(
    data: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pyreadstat.write_sav(data, str(tmp_path / "data.sav"), variable_value_labels=LABELS)
    (tmp_path / "one.lav").write_text("f =~ y1 + y2 + y3")
    status, out, _ = run(capsys, "fit", tmp_path / "one.lav", tmp_path / "data.sav", "--group", "country")
    assert status == 0
    assert out.index("Group 1 [Norway]") < out.index("Group 2 [Chile]")


def test_codes_are_pointed_out_by_the_command_line(
    data: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data.fillna(-999).to_csv(tmp_path / "data.csv", sep=";", index=False)
    (tmp_path / "two.lav").write_text(MODEL)
    call = ["fit", tmp_path / "two.lav", tmp_path / "data.csv", "--cluster", "cluster"]
    _, _, err = run(capsys, *call)
    assert "'y1' has the value -999 in 2 rows" in err
    assert "--na-values -999" in err
    status, out, err = run(capsys, *call, "--na-values", "-999")
    assert (status, err) == (0, "")
    assert re.search(r"Rows in the data +2500\n", out)
    assert re.search(r"Rows dropped: missing values +2\n", out)


def test_text_in_a_column_of_numbers_is_named(data: pd.DataFrame) -> None:
    odd = data.assign(y1=data["y1"].astype(str).fillna(".").replace("nan", "."))
    with pytest.raises(DataError, match=r"all its values are numbers but '\.' in 2 rows"):
        msem.sem(MODEL, odd, cluster="cluster")
    with pytest.raises(DataError, match="numbers written as text: convert"):
        msem.sem(MODEL, data.assign(y1=data["y2"].astype(str)), cluster="cluster")


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".html", ".docx", ".tex", ".md", ".json"])
def test_describe(
    data: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    data.to_csv(tmp_path / "data.csv", index=False)
    out = tmp_path / f"table{suffix}"
    status, text, _ = run(
        capsys,
        "describe",
        tmp_path / "data.csv",
        "--cluster",
        "cluster",
        "--variables",
        "y1",
        "w1",
        "--out",
        out,
    )
    assert status == 0
    assert "2498 units in 200 clusters" in text
    assert out.stat().st_size > 100
    if suffix == ".csv":
        assert pd.read_csv(out, index_col="variable").index.tolist() == ["y1", "w1"]
    if suffix == ".md":
        assert "| 1. y1 | 2498 | 0% |" in out.read_text()


def test_describe_refuses_what_it_cannot_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(
        capsys, "describe", tmp_path / "data.csv", "--cluster", "c", "--out", tmp_path / "t.xyz"
    )
    assert status == 1
    assert ".csv, .parquet, .html, .docx, .tex, .md, .json" in err


def test_listwise_deletion_of_many_rows_warns() -> None:
    data = msem.load_demo()
    few, many = data.copy(), data.copy()
    few.loc[few.index[:100], "y1"] = np.nan
    many.loc[many.index[:200], "y1"] = np.nan
    fit = msem.sem("f =~ y1 + y2 + y3", few)
    assert re.search(r"Number of observations +2400\n +Rows in the data +2500\n", fit.summary())
    with pytest.warns(
        msem.errors.DataWarning, match=r'200 of 2500 rows \(8%\).*\(y1 200\).*missing="fiml"'
    ) as caught:
        msem.sem("f =~ y1 + y2 + y3", many)
    assert caught[0].filename == __file__
    assert "Rows in the data" not in msem.sem("f =~ y1 + y2 + y3", data).summary()


@pytest.mark.parametrize("text", ["a,b\n1,2,3\n4,5\n", "a\n1,5\n2,5\n", "# note\na,b\n1,2\n"])
def test_rows_with_more_fields_than_names_are_refused(tmp_path, text):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(DataError, match="fields, and the header names"):
        msem.read_data(path)


def test_rows_may_have_names_as_in_files_of_r(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b\nfirst,2,3\nsecond,4,5\n")
    assert msem.read_data(path).to_numpy().tolist() == [[2, 3], [4, 5]]


WORDS = "country,arm,y\nNA,None,1\nNO,drug,NA\nNA,drug,3\n,,4\n"


def test_words_in_columns_of_text_may_be_labels(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(WORDS)
    with pytest.warns(
        DataWarning, match=r"'NA' in 2 rows of 'country'; 'None' in 1 rows of 'arm'.*verbatim="
    ):
        found = msem.read_data(path)
    assert found["country"].isna().tolist() == [True, False, True, True]
    assert found["y"].isna().tolist() == [False, True, False, False]
    found = msem.read_data(path, verbatim=["country", "arm"])
    assert found["country"].fillna("-").tolist() == ["NA", "NO", "NA", "-"]
    assert found["arm"].fillna("-").tolist() == ["None", "drug", "drug", "-"]
    assert found["y"].isna().tolist() == [False, True, False, False]
    with pytest.raises(DataError, match="no column 'land'"):
        msem.read_data(path, verbatim="land")
    with pytest.warns(DataWarning, match="'NA' in 2 rows of 'country'"):
        list(read_chunks(path))


def test_files_without_names(tmp_path: Path) -> None:
    path = tmp_path / "t.dat"
    path.write_text("1 2.5 -999\n1 3.5 4\n")
    with pytest.raises(DataError, match=r"first line of the file is numbers \(1, 2\.5, -999\).*names="):
        msem.read_data(path)
    found = msem.read_data(path, names=["g", "y", "x"], missing=-999)
    assert list(found) == ["g", "y", "x"]
    assert found["y"].tolist() == [2.5, 3.5]
    assert found["x"].isna().tolist() == [True, False]
    with pytest.raises(DataError, match="2 names, and the file has 3 columns"):
        msem.read_data(path, names=["g", "y"])


def test_decimal_commas_may_come_late(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a;b\n" + "1;2\n" * 300 + "1,5;2.5\n;\n")
    found = msem.read_data(path)
    assert found.iloc[-2].tolist() == [1.5, 2.5]
    assert found.iloc[-1].isna().all()
    assert [found[name].dtype for name in found] == [np.float64, np.float64]
    assert pd.concat(list(read_chunks(path)))["a"].sum() == 301.5


def test_decimal_marks_of_both_kinds_in_a_column_are_pointed_out(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a;b\n1,5;2\n2.5;1\n")
    with pytest.warns(
        DataWarning, match=r"'a' has decimals with a comma \(1,5 in row 1.*point \(2\.5 in row 2"
    ):
        found = msem.read_data(path)
    assert found["b"].tolist() == [2, 1]
    with pytest.raises(DataError, match="'a' is not numeric"):
        msem.sem("a ~ b", found)


def test_numbers_for_thousands_are_not_taken_for_decimals(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('a,b\n"1,234",2\n"2,345",3\n')
    assert msem.read_data(path)["a"].tolist() == ["1,234", "2,345"]


@pytest.mark.parametrize("late", [False, True])
def test_encodings_are_named(tmp_path: Path, late: bool) -> None:
    path = tmp_path / "t.csv"
    text = "ort,y\n" + "Ulm,1\n" * (300 if late else 1) + "Köln,2\n"
    path.write_bytes(text.encode("cp1252"))
    with pytest.raises(DataError, match=r"not text in UTF-8 \(its byte 0xf6 is none\).*encoding="):
        msem.read_data(path)
    assert msem.read_data(path, encoding="cp1252")["ort"].iloc[-1] == "Köln"
    with pytest.raises(DataError, match="unknown encoding: klingon"):
        msem.read_data(path, encoding="klingon")
    path.write_bytes(text.encode("utf-16"))
    assert msem.read_data(path)["ort"].iloc[-1] == "Köln"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "pupils.csv").write_text("a,b\n1,2\n")
    for kind in (DataError, FileNotFoundError):
        with pytest.raises(kind, match=r"there is no file .*pupil\.csv: did you mean .*pupils\.csv\?"):
            msem.read_data(tmp_path / "pupil.csv")
    with pytest.raises(DataError, match="there is no folder"):
        msem.LevelMoments.load(tmp_path / "no" / "moments.json")
    with pytest.raises(DataError, match="it was looked for in"):
        msem.SavedFit.load(tmp_path / "fit.json")
    copy = pickle.loads(pickle.dumps(MissingFileError("x/y.csv")))
    assert str(copy) == "there is no file x/y.csv: there is no folder x"
    assert copy.filename == "x/y.csv"
    assert isinstance(MissingFileError.__new__(MissingFileError), MissingFileError)  # as Dask makes copies


def test_long_ids_stay_whole_beside_empty_fields(tmp_path: Path) -> None:
    first = 2**53
    for offset, kind in ((0, "Int64"), (10**22, None)):
        rows = [f"{offset + first + k},{k % 7}" for k in range(20)]
        (tmp_path / "ids.csv").write_text("\n".join(["id,y", *rows, ",1"]) + "\n")
        data = msem.read_data(tmp_path / "ids.csv")
        assert data["id"].nunique() == 20
        assert kind is None or data["id"].dtype == kind
    (tmp_path / "large.csv").write_text("id,y\n" + "".join(f"{k},{k}.5e20\n" for k in range(9)) + "9,\n")
    assert msem.read_data(tmp_path / "large.csv")["y"].dtype == "float64"


def test_blanks_after_separators_belong_to_no_name(tmp_path: Path) -> None:
    (tmp_path / "blanks.csv").write_text(
        "school, y1, y2\n" + "".join(f"{k % 3}, {k}.5, {k * k}\n" for k in range(9))
    )
    assert list(msem.read_data(tmp_path / "blanks.csv")) == ["school", "y1", "y2"]
    with pytest.raises(TypeError, match="in every column"):
        msem.read_data(tmp_path / "blanks.csv", missing={"y1": -9})


@pytest.mark.parametrize(
    "text",
    ["sep=;\nid;y\n1;2,5\n2;3,5\n", "SEP=\t\nid\ty\n1\t2.5\n2\t3.5\n", "id ,y \n1,2.5\n2,3.5\n"],
)
def test_what_excel_adds_belongs_to_no_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text)
    expected = pd.DataFrame({"id": [1, 2], "y": [2.5, 3.5]})
    pd.testing.assert_frame_equal(msem.read_data(path), expected)
    pd.testing.assert_frame_equal(pd.concat(read_chunks(path)), expected)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("rows.xlsx", "pandas.read_excel"), ("rows.JSON", "pandas.read_json"), ("rows.rds", "write.csv")],
)
def test_files_of_other_kinds_are_named(tmp_path: Path, name: str, remedy: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match=f"{name} is no text file: read it by .*{remedy}"):
        msem.read_data(path)
    with pytest.raises(DataError, match=remedy):
        next(read_chunks(path))


def test_lines_of_comments_are_pointed_out(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("# written by a program\nid,y\n1,2.5\n")
    with pytest.raises(DataError, match="begins with '#'; take such lines out"):
        msem.read_data(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a file of a fit"):
        msem.SavedFit.load(tmp_path)
    for load in (msem.SavedFit.load, msem.ClusterStatistics.load, msem.read_data):
        with pytest.raises(ArgumentError, match="given by its path, not by None"):
            load(None)
