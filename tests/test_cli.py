"""The command line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import msem
from msem.cli import main

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
    assert shown.err == "warning: 4 rows have no cluster id (cluster) and were left out\n"


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
