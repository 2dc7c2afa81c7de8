"""Malformed model texts are explained in plain words, at their place."""

from __future__ import annotations

import pytest

from msem.errors import ModelSyntaxError
from msem.language.syntax import parse

MALFORMED = [
    ("", 1, 1, "empty"),
    ("  \n\n", 1, 1, "empty"),
    ("# only a comment\n! and another", 1, 1, "empty"),
    ("y ~", 1, 4, "the text ends where a variable"),
    ("y ~ # what\n", 1, 4, "the text ends where a variable"),
    ("=~ y1", 1, 1, "at the start of a formula"),
    ("f =~ y1 + + y2", 1, 11, "found '+'"),
    ("f =~ y1 +", 1, 10, "after '+'"),
    ("f == ", 1, 5, "after '=='"),
    ("f y1", 1, 3, "an operator such as =~, ~ or ~~ is expected after 'f'"),
    ("f\ng ~ x", 1, 2, "the line ends where an operator"),
    ("f; g ~ x", 1, 2, "found ';'"),
    ("f =~ (y1 + y2", 1, 14, "parenthesis is still open"),
    ("f =~ y1)", 1, 8, "found ')'"),
    ("f =~ y1 y2", 1, 9, "found 'y2' where '+' or the end"),
    ("This is a model of schools.\nIt has two levels.", 1, 6, "found 'is'"),
    ("y ~ x @ z", 1, 7, "unexpected character '@'"),
    ("y ~ x\n  y % x", 2, 5, "unexpected character '%'"),
    ("y = x", 1, 3, "'=' is not an operator"),
    ("a <= 2", 1, 4, "'=' is not an operator"),
    ("'f =~ y1", 1, 1, "quote is not closed"),
    ('f =~ "y1', 1, 6, "quote is not closed"),
    ("level 1\nf =~ y1", 1, 7, "written 'level: 1'"),
    ("level:\nf =~ y1", 1, 1, "after 'level:'"),
    ("f =~ y1 +\nlevel: within\ng =~ y1", 2, 6, "unexpected ':'"),
    ("levle: 1\nf =~ y1", 1, 6, "did you mean the header 'level:'"),
    ("f =~ y1\nLevels: 2", 2, 7, "did you mean the header 'level:'"),
    ("level: 1 f =~ y1", 1, 10, "found 'f'"),
    ("f =~ 2", 1, 6, "not a number"),
    ("y ~ 2", 1, 5, "an intercept is written '1'"),
    ("y ~ a*0", 1, 7, "an intercept is written '1'"),
    ("1 ~ y", 1, 1, "on the left of '~'"),
    ("f =~ y1 - y2", 1, 9, "joined by '+'"),
    ("f =~ NA", 1, 6, "NA frees a parameter"),
    ("f =~ ''", 1, 6, "name is empty"),
    ("f =~ ' '*y1", 1, 6, "not a label"),
    ("f =~ y1 + y1", 1, 11, "'y1' occurs twice"),
    ("f =~ a*(y1 + y2)", 1, 9, "where a variable is expected"),
    ("f =~ a/b*y1", 1, 6, "neither a number nor a label"),
    ("f =~ a?y1", 1, 6, "a number is expected before '?'"),
    ("f =~ foo(1)*y1", 1, 6, "unknown modifier 'foo()'"),
    ("f =~ start()*y1", 1, 6, "start() needs a value"),
    ("f =~ start(a)*y1", 1, 12, "'a' is not a number"),
    ("f =~ label(1)*y1", 1, 12, "1 is not a label"),
    ("f =~ c()*y1", 1, 6, "one value for each group"),
    ("f =~ c(a, 1)*y1", 1, 11, "1 is not a label"),
    ("f =~ c(1, a)*y1", 1, 11, "'a' is not a number"),
    ("f =~ 1/0*y1", 1, 6, "not a real number"),
    ("f =~ (-8)^(1/3)*y1", 1, 7, "not a real number"),
    ("f =~ sqrt(-1)*y1", 1, 6, "not a real number"),
    ("f =~ sqrt(1, 2)*y1", 1, 6, "not a number"),
    ("f =~ 10^400*y1", 1, 6, "not a real number"),
    ("f =~ 1e999*y1", 1, 6, "1e999 is not a finite number"),
    ("a < 1e999", 1, 5, "1e999 is not a finite number"),
    ("f =~ 1e200*1e200*y1", 1, 6, "not a finite number"),
    ("a*f =~ y1", 1, 1, "belong to the right"),
    ("y ~ item 1", 1, 10, 'a name of several words stands in quotes: "item 1"'),
    ("item 1 ~ y", 1, 6, 'a name of several words stands in quotes: "item 1"'),
    ("y ~ a-b", 1, 6, "a name that has a '-' stands in quotes"),
    ("f =~ 0 + y", 1, 6, "stands alone"),
    ("f =~ 0*0", 1, 8, "'f =~ 0' declares"),
    ("y ~ ` `", 1, 5, "empty"),
    ("y ~ `a", 1, 5, "not closed"),
    ("f =~ y1\u200b + y2", 1, 8, "invisible character here (ZERO WIDTH SPACE)"),
    ("y ~ a − b", 1, 7, "'−' (MINUS SIGN); a name that has it is written in quotes"),
    ("a < b < c", 1, 7, "found '<'"),
    ("2 := a", 1, 3, "on the left of ':='"),
    ("a == 'b'", 1, 6, "without quotes"),
    ("a == 2?b", 1, 7, "no meaning in a constraint"),
    ("x := " + "-" * 500 + "a", 1, 106, "nested more than 100"),
    ("y ~ " + "-" * 500 + "1*x", 1, 104, "nested more than 100"),
]


@pytest.mark.parametrize(("text", "line", "column", "message"), MALFORMED)
def test_malformed_text_is_explained_where_it_is(text, line, column, message):
    with pytest.raises(ModelSyntaxError) as caught:
        parse(text)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"line {line}, column {column}: ")
    assert caught.value.source == text.split("\n")[line - 1]
    assert caught.value.__cause__ is None


def test_the_offending_line_is_quoted_with_a_caret():
    with pytest.raises(ModelSyntaxError) as caught:
        parse("f =~ y1\n  g =~ y2 + + y3")
    assert str(caught.value).split("\n")[1:] == ["      g =~ y2 + + y3", "                ^"]
