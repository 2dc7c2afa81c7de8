"""The README shows what the package does: its code runs and its output is what comes out."""

import re
from pathlib import Path

import pytest

import msem
from msem.cli import main

README = (Path(__file__).parents[1] / "README.md").read_text()
CODE = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
OUTPUT = re.findall(r"```text\n(.*?)```", README, re.DOTALL)


def lines(text):
    """Lines without trailing blanks; the version may differ."""
    return [re.sub(r"^msem \S+ ", "msem ", line.rstrip()) for line in text.strip("\n").splitlines()]


def test_the_first_example_prints_what_is_shown(capsys):
    exec(compile(CODE[0], "README.md", "exec"), {})
    assert lines(capsys.readouterr().out) == lines(OUTPUT[0])


def test_the_tables_are_those_of_the_demo(capsys):
    assert main(["demo"]) == 0
    printed = lines(capsys.readouterr().out)
    for shown in map(lines, OUTPUT[1:]):
        at = [k for k, line in enumerate(printed) if line == shown[0]]
        assert any(printed[k : k + len(shown)] == shown for k in at)


def test_all_blocks_run_as_they_stand(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in CODE:
        exec(compile(block, "README.md", "exec"), names)
    assert capsys.readouterr().out
    assert names["joint"].status == names["levels"].status == "ok"


CALLS = sorted(set(re.findall(r"`((?:msem|fit)\.[\w.]+)", README)))


@pytest.mark.parametrize("call", CALLS)
def test_every_name_is_there(call):
    owner, *names = call.split(".")
    found = msem if owner == "msem" else msem.sem("f =~ y1 + y2 + y3", msem.load_demo())
    for name in names:
        found = getattr(found, name)


def test_the_line_on_power_runs():
    call = re.search(r"`(msem\.power\(.*?\))`", README)[1].replace("[50, 100]", "[40]")
    variances = "a ~~ 1*a; b ~~ 1*b; c ~~ 1*c"
    population = f"level: 1\n f =~ 1*a + 1*b + 1*c\n f ~~ 1*f\n {variances}\nlevel: 2\n {variances}"
    model = "level: 1\n f =~ a + b + c\nlevel: 2\n a ~~ b"
    names: dict[str, object] = {"msem": msem, "model": model, "population": population}
    result = eval(call.removesuffix(")") + ", replications=20, seed=1, progress=False)", names)
    assert len(result.designs)
