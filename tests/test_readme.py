"""The README shows what the package does: its code runs and its output is what comes out."""

import re
from pathlib import Path

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


def test_the_second_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(CODE[0].replace("print(", "str("), "README.md", "exec"), names)
    h1 = names["fit"].saturated
    names |= {"W": h1.within.cov, "B": h1.between.cov, "m": h1.between.mean, "msem": msem}
    exec(compile(CODE[1], "README.md", "exec"), names)
    assert names["joint"].status == names["levels"].status == "ok"
