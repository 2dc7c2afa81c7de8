"""Hostile model texts: each is read and printed back, or refused with its place; nothing else happens.

    python tests/fuzz/model_texts.py --examples 100000 --seed 1

looks for texts that break this and prints the shortest; it belongs into `model_texts.json` beside this file, which
`tests/test_fuzz.py` checks in every run, with some texts drawn in a fixed order.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import pickle
import time
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from msem.errors import ModelError, ModelSyntaxError, MsemError
from msem.estimation.constraints import compile_constraints
from msem.language.characters import in_backticks
from msem.language.syntax import parse, read_hypothesis
from msem.model.functions import compile_expressions, defined_functions
from msem.model.partable import find_parameter, parameter_table
from msem.resampling.named import read_named

CORPUS = [str(text) for text in json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))]
SECONDS = 5.0  # of a processor, for one text; the longest take some hundredths
OPERATORS = """
=~ ~ ~~ ~*~ <~ | := == < > = + - * / ? ^ ** ( ) , # ! ; : @ $ % & [ ] { } \\ ~= =~~ ~~~
"""
NAMES = """
f g y1 y2 y1.l2 y1.g2 y2.l2.g2 x:y 1 0 2 .5 1e5 1e999 NA Inf pi level group block a b c école प्रश्न größe
` `` `a-b` `f=~y1` "f=~y1" "" '' `a``b`
"""
ODD = ["\u200b", "\ufeff", "\x00", "\u2028", "`y 2`", "'y 2'", "' '", "'\"'", '"\'"']
CALLS = "start( lower( upper( label( equal( rv( efa( c( sqrt( log( exp( foo( 0?"
LAYOUT = [
    "\n",
    "\r\n",
    "\r",
    "\t",
    " ",
    "\n\n",
    ";",
    "\nlevel: 1\n",
    "\nlevel: 2\n",
    "\ngroup: a\n",
    "\n# a ~ (b\n",
]
PIECES = [
    *OPERATORS.split(),
    *NAMES.split(),
    *ODD,
    *CALLS.split(),
    *LAYOUT,
    "f =~ y1 + y2 + y3\n",
    "level: 1\nf =~ y1 + a*y2\nlevel: 2\nf =~ y1 + a*y2\n",
    "d := a*b\n",
    "`a-b` := a + `f=~y2`\n",
    "a > 0\n",
    "f =~ 0\n",
    "y1 ~ 1\n",
]
TOKENS = st.one_of(st.sampled_from(PIECES), st.text(max_size=4))


@st.composite
def altered(draw: st.DrawFn) -> str:
    """A text of the corpus with some places changed."""
    text = draw(st.sampled_from(CORPUS))[:400]
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        until = draw(st.integers(at, min(at + 4, len(text))))
        text = text[:at] + draw(TOKENS) + text[until:]
    return text


@st.composite
def repeated(draw: st.DrawFn) -> str:
    """Something many times over: time and depth must not run away."""
    before, inner, after = draw(TOKENS), draw(st.lists(TOKENS, min_size=1, max_size=3)), draw(TOKENS)
    times = draw(st.sampled_from([3, 100, 400]))
    return "y ~ " * draw(st.booleans()) + before + "".join(inner) * times + after


TEXTS = st.one_of(st.lists(TOKENS, max_size=25).map(" ".join), altered(), altered(), repeated())


def check(text: str) -> None:
    """Fail unless a text is read or refused as the documentation says."""
    begin = time.process_time()
    _check_model(text)
    _check_expression(text)
    taken = time.process_time() - begin
    assert taken < SECONDS, f"{taken:.1f} s"


def _check_model(text: str) -> None:
    refused = None
    try:
        syntax = parse(text)
    except ModelSyntaxError as error:
        refused = error
    if refused is not None:
        lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
        assert 1 <= refused.line <= len(lines)
        assert 1 <= refused.column <= len(lines[refused.line - 1]) + 1
        return
    assert parse(str(syntax)) == syntax
    assert pickle.loads(pickle.dumps(syntax)) == syntax
    if len(syntax.statements) > 300:  # a table of all covariances would take the time, not the text
        return
    for groups in (None, ("a", "b")):
        try:
            table = parameter_table(syntax, groups=groups)
            compile_constraints(table)
            functions = defined_functions(table)
        except ModelError:
            continue
        with np.errstate(all="ignore"):
            functions.values(np.ones(table.npar))
        assert len(set(table.names())) == table.npar
        own = table.by_name.own
        assert len(set(own)) == len(own)
        for position, name in enumerate(table.names()):
            assert find_parameter(table, name) == position
            assert read_named(table, name).position == position
            (value,) = compile_expressions(table, [in_backticks(name)]).values(np.arange(table.npar))
            assert value == position
        for definition in table.defined:
            with contextlib.suppress(ModelError):  # one that depends on no parameter
                assert read_named(table, definition.lhs.name).function == definition.lhs


TABLE = parameter_table(
    parse("level: 1\nf =~ y1 + a*y2 + b*y2.l2\nlevel: 2\nf =~ y1 + y2 + y2.l2\n`a-b` := a + b")
)


def _check_expression(text: str) -> None:
    for read in (read_hypothesis, lambda t: read_named(TABLE, t), lambda t: find_parameter(TABLE, t)):
        with contextlib.suppress(MsemError):
            read(text)


def main() -> None:
    arguments = argparse.ArgumentParser(description="Look for model texts that are neither read nor refused.")
    arguments.add_argument("--examples", type=int, default=20_000)
    arguments.add_argument("--seed", type=int, default=0)
    given_arguments = arguments.parse_args()
    for text in CORPUS:
        check(text)
    chosen = settings(
        max_examples=given_arguments.examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    seed(given_arguments.seed)(chosen(given(TEXTS)(check)))()
    print(f"{given_arguments.examples} texts, seed {given_arguments.seed}: each read or refused")


if __name__ == "__main__":
    main()
