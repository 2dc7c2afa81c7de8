"""The command line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import msem
from msem.cli import given_options, main, parser
from msem.errors import DataWarning
from msem.settings import Settings

MODEL = "level: 1\nfw =~ y1 + y2 + y3\nlevel: 2\nfb =~ y1 + y2 + y3\n"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.lav"
    path.write_text(MODEL, encoding="utf-8")
    return path


def written(folder: Path, name: str) -> Path:
    path, data = folder / name, msem.load_demo()
    if path.suffix == ".parquet":
        data.to_parquet(path)
    else:
        data.to_csv(path, index=False)
    return path


def failure(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Message of a call that must fail."""
    assert main([str(argument) for argument in arguments]) == 1
    shown = capsys.readouterr()
    assert shown.err.startswith("msem: ")
    assert shown.out == ""
    return shown.err


def test_demo_prints_every_section(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo"]) == 0
    shown = capsys.readouterr()
    titles = [
        "fw =~ y1 + y2 + y3",
        "Model Test User Model",
        "Level 1 [within]",
        "Level 2 [between]",
        "Saturated within covariance matrix",
        "Saturated between covariance matrix",
        "Between means",
        "Between-level estimates and standard errors",
        "Within-level estimates and standard errors",
        "Tests of each level's structure",
    ]
    at = [shown.out.index(text) for text in titles]
    assert at == sorted(at)
    for name in ("separate", "segregated", "joint", "simultaneous", "mean_variance_adjusted"):
        assert name in shown.out
    assert shown.err == ""


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("t.html", "<table"),
        ("t.md", "y2"),
        ("t.json", '"sha256"'),
        ("t.parquet", None),
        ("t.docx", None),
        ("t.txt", "refused"),
    ],
)
def test_the_suffix_of_the_output_says_what_is_written(
    name: str, part: str | None, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / name
    status = main(
        ["fit", str(model), str(written(tmp_path, "data.csv")), "--cluster", "cluster", "--out", str(out)]
    )
    if part == "refused":
        assert status == 1
        assert ".csv, .parquet, .html, .docx, .tex, .md, .json" in capsys.readouterr().err
        assert not out.exists()
        return
    assert status == 0
    if part is None and name.endswith("docx"):
        assert out.read_bytes().startswith(b"PK")
    elif part is None:
        assert {"lhs", "est"} < set(pd.read_parquet(out).columns)
    else:
        assert part in out.read_text()


@pytest.mark.parametrize("name", ["data.csv", "data.csv.gz", "data.parquet"])
def test_fit_reads_csv_and_parquet(
    name: str, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "table.csv"
    data = written(tmp_path, name)
    assert main(["fit", str(model), str(data), "--cluster", "cluster", "--out", str(out)]) == 0
    shown = capsys.readouterr()
    assert re.search(r"Number of clusters.* +200\n", shown.out)
    assert str(out) in shown.out
    table = pd.read_csv(out)
    fit = msem.sem(MODEL, msem.load_demo(), cluster="cluster")
    direct = fit.estimates(standardized=True)
    assert list(table.columns) == list(direct.columns)
    np.testing.assert_allclose(table["est"], direct["est"], rtol=1e-12)
    np.testing.assert_allclose(table["std_all"], direct["std_all"], rtol=1e-12)


def test_options_reach_the_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "one.lav"
    path.write_text("f =~ y1 + y2 + y3\nf ~ x1\n", encoding="utf-8")
    data = str(written(tmp_path, "data.csv"))
    assert main(["fit", str(path), data, "--std-lv", "--random-x", "--standardized"]) == 0
    shown = capsys.readouterr().out
    assert "Std.all" in shown
    # 3 loadings, 1 slope, 3 residual variances, the variance of x1
    assert re.search(r"Number of model parameters +8\n", shown)


def test_a_missing_file_is_named(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "absent.csv" in failure(capsys, "fit", model, tmp_path / "absent.csv", "--cluster", "cluster")
    assert "absent.lav" in failure(capsys, "fit", tmp_path / "absent.lav", model)


def test_unreadable_files_are_named(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty, noise = tmp_path / "empty.csv", tmp_path / "noise.parquet"
    empty.write_text("", encoding="utf-8")
    noise.write_bytes(b"\xff\xfe not a table")
    for path in (empty, noise):
        message = failure(capsys, "fit", model, path, "--cluster", "cluster")
        assert f"{path} cannot be read" in message
    assert "not a text file" in failure(capsys, "fit", noise, empty)


def test_a_model_that_cannot_be_read_is_quoted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.lav"
    path.write_text("fw =~ y1 +\n", encoding="utf-8")
    message = failure(capsys, "fit", path, written(tmp_path, "data.csv"))
    assert "line 1" in message
    assert "fw =~ y1 +" in message


def test_an_unknown_variable_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.lav"
    path.write_text("f =~ y1 + y2 + nope\n", encoding="utf-8")
    assert "nope" in failure(capsys, "fit", path, written(tmp_path, "data.csv"))


def test_warnings_go_to_the_error_stream(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = msem.load_demo()
    data.loc[data.index[:4], "cluster"] = np.nan
    path = tmp_path / "holes.csv"
    data.to_csv(path, index=False)
    assert main(["fit", str(model), str(path), "--cluster", "cluster"]) == 0
    shown = capsys.readouterr()
    assert shown.err == "warning: 4 rows have no cluster id ('cluster') and were left out\n"


def test_a_command_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == 2
    assert "command" in capsys.readouterr().err


def test_python_dash_m_tells_the_version() -> None:
    package = Path(msem.__file__).parents[1]
    told = subprocess.run(
        [sys.executable, "-m", "msem", "--version"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(package)},
    )
    assert told.stdout.strip() == f"msem {msem.__version__}"


def test_groups_reach_the_fit(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "groups.csv"
    data = msem.load_demo()
    data.assign(g=data["cluster"] // 2 % 2).to_csv(path, index=False)
    arguments = [str(model), str(path), "--cluster", "cluster", "--group", "g"]
    assert main(["fit", *arguments, "--group-equal", "loadings", "intercepts"]) == 0
    shown = capsys.readouterr().out
    assert "Group 2 [1]:" in shown
    # 15 in each group, less 4 loadings and 3 intercepts, and a latent mean
    assert re.search(r"Number of model parameters +24\n", shown)


def test_estimator_and_tables_reach_the_summary(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = written(tmp_path, "demo.csv")
    options = ["--cluster", "cluster", "--estimator", "MLR", "--tables", "icc", "modification_indices"]
    assert main(["fit", str(model), str(data), *options]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"Standard errors +Sandwich", shown)
    assert shown.index("Intraclass Correlations:") < shown.index("Modification Indices:")


def printed(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a call that must succeed prints."""
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", ["data.csv", "data.parquet"])
@pytest.mark.parametrize("out", ["statistics.json", "statistics.parquet"])
def test_summaries_are_written_and_fitted(
    name: str, out: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = written(tmp_path, name)
    shown = printed(capsys, "summarize", data, "--cluster", "cluster", "--out", tmp_path / out)
    assert "11 variables, 2500 units in 200 clusters of 4 sizes" in shown
    assert re.search(r"smallest_cell +50", shown)
    one = printed(capsys, "fit", model, tmp_path / out)
    two = printed(capsys, "fit", model, data, "--cluster", "cluster")
    assert one.replace("statistics of clusters", "raw data".rjust(22)) == two


def test_summaries_of_several_sites_are_added(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo, files = msem.load_demo(), []
    for number, rows in enumerate((demo[:1000], demo[1000:])):
        rows.to_csv(tmp_path / f"{number}.csv", index=False)
        files.append(tmp_path / f"{number}.json")
        printed(capsys, "summarize", tmp_path / f"{number}.csv", "--cluster", "cluster", "--out", files[-1])
    both = printed(capsys, "fit", model, *files)
    assert both == printed(capsys, "fit", model, files[1], files[0])
    assert re.search(r"Number of observations +2500", both)
    assert "counted twice" in failure(capsys, "fit", model, files[0], files[0])
    assert "0.csv is not a file of statistics" in failure(capsys, "fit", model, files[0], tmp_path / "0.csv")


def test_summaries_that_disclose_too_much_are_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = written(tmp_path, "data.csv"), tmp_path / "statistics.json"
    arguments = ["summarize", data, "--cluster", "cluster", "--out", out]
    assert "sizes with 50 cluster(s)" in failure(capsys, *arguments, "--smallest-cell", 60)
    assert "every single cluster" in failure(capsys, *arguments, "--smallest-cell", 1, "--keep-clusters")
    assert "no column 'school'" in failure(capsys, "summarize", data, "--cluster", "school", "--out", out)
    assert ".json or .parquet" in failure(capsys, "summarize", data, "--cluster", "cluster", "--out", data)
    assert "not both" in failure(capsys, "summarize", data, tmp_path, "--cluster", "cluster", "--out", out)
    assert not out.exists()


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_files_that_are_given_twice_count_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    data, link, out = written(tmp_path, f"data{suffix}"), tmp_path / f"link{suffix}", tmp_path / "out.json"
    link.symlink_to(data)
    assert (
        main(["summarize", str(data), str(link), str(data), "--cluster", "cluster", "--out", str(out)]) == 0
    )
    err = capsys.readouterr().err
    assert f"warning: {link}, {data} is given more than once: its rows are taken once" in err
    assert msem.ClusterStatistics.load(out).nobs == len(msem.load_demo())


def test_paths_that_are_given_twice_count_once(tmp_path: Path) -> None:
    data = written(tmp_path, "data.parquet")
    with pytest.warns(DataWarning, match="given more than once"):
        found = msem.summarize([data, str(data)], cluster="cluster")
    assert found.nobs == len(msem.load_demo())


def test_options_that_are_wrong_are_messages(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = written(tmp_path, "data.csv")
    for option, value in (("--estimator", "XX"), ("--missing", "bad")):
        message = failure(capsys, "fit", model, data, "--cluster", "cluster", option, value)
        assert f"{option[2:]} must be one of" in message


@pytest.mark.parametrize("suffix", ["gz", "xz", "bz2", "zip"])
def test_compressed_files_that_are_cut_short_are_messages(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    data = tmp_path / f"data.csv.{suffix}"
    msem.load_demo().to_csv(data, index=False)
    whole = data.read_bytes()
    for content in (whole[:-500], whole[: len(whole) // 2] + b"\xff" * 40 + whole[len(whole) // 2 :]):
        data.write_bytes(content)
        for command in (("fit", model, data), ("summarize", data, "--out", tmp_path / "out.json")):
            assert str(data) in failure(capsys, *command, "--cluster", "cluster")


def test_a_header_with_a_name_twice_is_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data.csv"
    data.write_text("y1,y1,y2,cluster\n1,2,3,1\n2,3,4,1\n1,2,3,2\n")
    for command in (("fit", model, data), ("summarize", data, "--out", tmp_path / "out.json")):
        assert "several columns named 'y1'" in failure(capsys, *command, "--cluster", "cluster")


def test_files_and_folders_that_are_not_there_are_named(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, nowhere = written(tmp_path, "data.csv"), tmp_path / "nowhere" / "out.json"
    absent = tmp_path / "absent.parquet"
    common = ("--cluster", "cluster", "--out")
    shown = failure(capsys, "summarize", absent, *common, tmp_path / "o.json")
    assert f"there is no file {absent}: " in shown
    assert "there is no file nothing.lav" in failure(capsys, "fit", "nothing.lav", data)
    assert failure(capsys, "summarize", data, *common, nowhere).endswith(f"no folder {nowhere.parent}\n")
    assert failure(capsys, "fit", model, data, *common, nowhere).endswith(f"no folder {nowhere.parent}\n")


def test_estimates_take_the_place_of_an_old_file_as_a_whole(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = written(tmp_path, "data.csv"), tmp_path / "estimates.csv"
    out.write_text("before")
    arguments = ["fit", str(model), str(data), "--cluster", "cluster", "--out", str(out)]

    def fail(frame: pd.DataFrame, path: Path, **options: object) -> None:
        path.write_text("half")
        raise OSError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(pd.DataFrame, "to_csv", fail)
        assert "the disk is full" in failure(capsys, *arguments)
    assert out.read_text() == "before"
    assert main(arguments) == 0
    assert len(pd.read_csv(out)) > 10
    assert {path.name for path in tmp_path.iterdir()} == {"model.lav", "data.csv", "estimates.csv"}


def test_diagram_of_a_model_and_of_its_fit(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model.dot"
    assert main(["diagram", str(model), "--out", str(out)]) == 0
    assert out.name in capsys.readouterr().out
    assert '"fb l2 g1" -> "y2 l2 g1"' in out.read_text(encoding="utf-8")
    data = str(written(tmp_path, "data.csv"))
    drawn = ["diagram", str(model), data, "--cluster", "cluster", "--level", "between", "--standardized"]
    assert main([*drawn, "--errors", "se", "--out", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    assert re.search(r'"fb l2 g1" -> "y2 l2 g1" \[label="0\.\d\d \(0\.\d\d\)"', text)
    assert "l1 g1" not in text
    capsys.readouterr()
    assert ".svg, .png, .pdf" in failure(capsys, "diagram", model, "--out", tmp_path / "model.bmp")


BY_HAND = {
    "sample_cov",
    "sample_mean",
    "sample_nobs",
    "sample_cov_rescale",
    "rotation_args",
}  # objects of Python


def test_every_option_of_a_fit_is_one_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    shown = set(re.findall(r"--([a-z-]+)", capsys.readouterr().out)) | {"fixed-x"}
    assert shown >= {own.name.replace("_", "-") for own in fields(Settings) if own.name not in BY_HAND}


@pytest.mark.parametrize(
    ("given", "options"),
    [
        (["--cluster", "school", "--cluster", "class"], {"cluster": ["school", "class"]}),
        (["--cluster", "school, class"], {"cluster": ["school", "class"]}),
        (["--cluster", "pupil * school"], {"cluster": ["pupil * school"]}),
        (
            ["--ordered", "y1", "y2", "--parameterization", "theta"],
            {"ordered": ["y1", "y2"], "parameterization": "theta"},
        ),
        (
            ["--no-meanstructure", "--replicate-scale", "0.5"],
            {"meanstructure": False, "replicate_scale": 0.5},
        ),
        (["--replicate-scale", "brr", "--seed", "3"], {"replicate_scale": "brr", "seed": 3}),
        (["--test", "yuan.bentler", "--random-x"], {"test": ["yuan.bentler"], "fixed_x": False}),
        ([], {}),
    ],
)
def test_options_are_handed_on(given: list[str], options: dict[str, object]) -> None:
    assert given_options(parser().parse_args(["fit", "model.lav", "data.csv", *given])) == options


def test_models_of_three_levels_crossed_ones_and_ordered_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    kid, school = rng.integers(0, 40, 600), rng.integers(0, 15, 600)
    y = rng.normal(size=600) + rng.normal(size=40)[kid] + rng.normal(size=15)[school]
    data = pd.DataFrame({"y": y, "kid": kid, "school": school, "half": kid % 5})
    for k in (1, 2, 3):
        data[f"u{k}"] = (y + rng.normal(size=600) > 0).astype(int)
    data.to_csv(tmp_path / "data.csv", index=False)
    text = "level: 1\ny ~~ y\nlevel: 2\ny ~~ y\nlevel: 3\ny ~~ y\n"
    for name, model in (("three", text), ("one", "f =~ u1 + u2 + u3")):
        (tmp_path / f"{name}.lav").write_text(model)
    for model, *options in (
        ("three", "--cluster", "kid * school"),
        ("three", "--cluster", "half", "--cluster", "kid"),
        ("one", "--ordered", "u1", "u2", "u3"),
    ):
        main(["fit", str(tmp_path / f"{model}.lav"), str(tmp_path / "data.csv"), *options])
        shown = capsys.readouterr()
        assert ("Level 3" if model == "three" else "Thresholds") in shown.out, shown.err
