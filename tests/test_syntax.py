"""Model text to statements: what is read, what is refused and where, and printing that reads back."""

from __future__ import annotations

import copy
import math
import pickle
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import reference
from msem.errors import ModelSyntaxError
from msem.language.expressions import Call, Name, evaluate, format_expression, names_in
from msem.language.syntax import Position, Statement, format_syntax, parse

DEMO = """
level: 1
    fw =~ y1 + y2 + y3
    fw ~ x1 + x2 + x3
level: 2
    fb =~ y1 + y2 + y3
    fb ~ w1 + w2
"""


def triples(text: str) -> list[tuple[str, str, str]]:
    return [(s.lhs, s.op, s.rhs) for s in parse(text).statements]


def only(text: str) -> Statement:
    (statement,) = parse(text).statements
    return statement


def modifiers(text: str) -> list[tuple[str, tuple[float | str | None, ...]]]:
    return [(m.kind, m.values) for m in only(text).modifiers]


def test_demo_model_has_its_statements_blocks_and_positions():
    model = parse(DEMO)
    assert [(s.lhs, s.op, s.rhs, s.block) for s in model.statements] == [
        *[("fw", "=~", y, 0) for y in ("y1", "y2", "y3")],
        *[("fw", "~", x, 0) for x in ("x1", "x2", "x3")],
        *[("fb", "=~", y, 1) for y in ("y1", "y2", "y3")],
        *[("fb", "~", w, 1) for w in ("w1", "w2")],
    ]
    assert [(b.group, b.level, b.at.line) for b in model.blocks] == [(None, "1", 2), (None, "2", 5)]
    assert model.statements[1].at == Position(3, 16)
    assert model.text == DEMO


@pytest.mark.parametrize("op", ["=~", "~", "~~", "<~", "|", "~*~"])
def test_every_formula_operator_is_read(op):
    assert triples(f"a {op} b") == triples(f"a{op}b") == [("a", op, "b")]


def test_several_left_hand_sides_multiply_out():
    assert triples("y1 + y2 ~ x + 1") == [
        ("y1", "~", "x"),
        ("y1", "~1", ""),
        ("y2", "~", "x"),
        ("y2", "~1", ""),
    ]


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        ("a*y", [("label", ("a",))]),
        ("'lab'*y", [("label", ("lab",))]),
        ('"lab"*y', [("label", ("lab",))]),
        ('label("L3")*y', [("label", ("L3",))]),
        ("NA*y", [("free", (None,))]),
        ("0*y", [("fixed", (0.0,))]),
        ("-1*y", [("fixed", (-1.0,))]),
        ("1e-3*y", [("fixed", (0.001,))]),
        (".5*y", [("fixed", (0.5,))]),
        ("1/3*y", [("fixed", (1 / 3,))]),
        ("2*3*y", [("fixed", (6.0,))]),
        ("(1 + 2)*y", [("fixed", (3.0,))]),
        ("sqrt(.5)*y", [("fixed", (math.sqrt(0.5),))]),
        ("-2^2*y", [("fixed", (-4.0,))]),
        ("2**3**2*y", [("fixed", (512.0,))]),
        ("pi/2*y", [("fixed", (math.pi / 2,))]),
        ("start(0.8)*y", [("start", (0.8,))]),
        ("0.8?y", [("start", (0.8,))]),
        ("-1/2 ? y", [("start", (-0.5,))]),
        ('equal("fw=~y2")*y', [("equal", ("fw=~y2",))]),
        ("lower(0)*y", [("lower", (0.0,))]),
        ("lower(-Inf)*y", [("lower", (-math.inf,))]),
        ("upper(Inf)*y", [("upper", (math.inf,))]),
        ("c(a, b)*y", [("label", ("a", "b"))]),
        ("c(\"a\", 'b')*y", [("label", ("a", "b"))]),
        ("c(1, NA)*y", [("fixed", (1.0, None))]),
        ("c(NA, 1/2)*y", [("fixed", (None, 0.5))]),
        ("c(NA, NA)*y", [("free", (None, None))]),
        ("start(c(1, 2))*y", [("start", (1.0, 2.0))]),
        ('rv("s")*y', [("rv", ("s",))]),
        ("rv(s)*y", [("rv", ("s",))]),
        ("start(1)*a*y", [("start", (1.0,)), ("label", ("a",))]),
        ("NA*a*y", [("free", (None,)), ("label", ("a",))]),
        ("2*a*y", [("fixed", (2.0,)), ("label", ("a",))]),
        ("lower(0.1)*y + upper(5)*y", [("lower", (0.1,)), ("upper", (5.0,))]),
        ("y + a*y", [("label", ("a",))]),
        ("a*y + a*y", [("label", ("a",))]),
    ],
)
def test_modifiers(term, expected):
    assert modifiers(f"f =~ {term}") == expected


def test_efa_stands_on_the_left():
    model = parse('efa("a")*f1 + efa("a")*f2 =~ y1 + b*y2')
    assert [(s.lhs, s.rhs, [m.kind for m in s.modifiers]) for s in model.statements] == [
        ("f1", "y1", ["efa"]),
        ("f1", "y2", ["efa", "label"]),
        ("f2", "y1", ["efa"]),
        ("f2", "y2", ["efa", "label"]),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("y ~ 1", []),
        ("y ~1", []),
        ("y ~ 0*1", [("fixed", (0.0,))]),
        ("y ~ 0", [("fixed", (0.0,))]),
        ("y ~ a*1", [("label", ("a",))]),
        ("y ~ -2*1", [("fixed", (-2.0,))]),
    ],
)
def test_intercepts(text, expected):
    assert (only(text).op, only(text).rhs) == ("~1", "")
    assert modifiers(text) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("y.1_b", "y.1_b"),
        (".y", ".y"),
        ("größe", "größe"),
        ("身長", "身長"),
        ('"my variable"', "my variable"),
        ("'x-1'", "x-1"),
        ("x1:x2", "x1:x2"),
        ("x1 : x2", "x1:x2"),
        ("level", "level"),
        ("levels:x", "levels:x"),
    ],
)
def test_names(name, expected):
    assert triples(f"y ~ {name}") == [("y", "~", expected)]


@pytest.mark.parametrize(
    "text",
    [
        "f =~ y1 + y2\ng ~ x",
        "f =~ y1 + y2; g ~ x",
        "f =~ y1 + y2 # comment + y3\ng ~ x ! another\n",
        "# first\n\n;; f =~ y1 +\n\n   # in between\n y2\n\ng ~ x;",
        "f =~ y1\n + y2\n# in between\ng\n~ x",
        "f\n=~\ny1\n+\ny2\ng ~\nx",
        "f =~ y1 + y2\r\ng ~ x\r\n",
        "f =~ y1 + y2\rg ~ x",
        "\tf\t=~ y1 +\ty2\u00a0\n g ~ x",
    ],
)
def test_lines_comments_and_continuations(text):
    assert triples(text) == [("f", "=~", "y1"), ("f", "=~", "y2"), ("g", "~", "x")]


def test_a_modifier_may_continue_on_the_next_line():
    assert parse("f =~ a*\ny1 + lower(\n0)\n*y2") == parse("f =~ a*y1 + lower(0)*y2")


def test_a_line_that_starts_with_a_minus_is_a_new_formula():
    assert [c.text for c in parse("a == b -\n c\n-1 < a").constraints] == ["a == b - c", "-1 < a"]


@pytest.mark.parametrize(
    ("header", "level"),
    [
        ("level: 1", "1"),
        ("LEVEL :2", "2"),
        ("Level:within", "within"),
        ("level : 'my school'", "my school"),
        ("level: a-b # comment", "a-b"),
    ],
)
def test_level_headers(header, level):
    assert [b.level for b in parse(f"{header}\ny ~ x").blocks] == [level]


def test_groups_hold_levels():
    blocks = parse(
        "group: A\nlevel: 1\ny~x\nlevel: 2\ny~x\ngroup: B\nlevel: 1\ny~x\nGroup: C\ny~x\nblock: 2\ny~x"
    ).blocks
    assert [(b.group, b.level, b.block) for b in blocks] == [
        ("A", "1", None),
        ("A", "2", None),
        ("B", "1", None),
        ("C", None, None),
        (None, None, "2"),
    ]


def test_text_without_headers_is_one_block():
    assert [(b.group, b.level) for b in parse("y ~ x").blocks] == [(None, None)]
    assert len(parse("y ~ x\nlevel: 1\ny ~ x").blocks) == 2


def test_an_empty_block_is_kept():
    assert [b.level for b in parse("level: 1\ny ~ x\nlevel: 2").blocks] == ["1", "2"]


@pytest.mark.parametrize("op", ["==", "<", ">", ":="])
def test_constraints_are_trees(op):
    (constraint,) = parse(f"f =~ a*y1\nab {op} a*exp(b - 2)/c").constraints
    assert (constraint.op, constraint.at) == (op, Position(2, 4))
    assert constraint.text == f"ab {op} a * exp(b - 2) / c"
    assert [name.name for name in names_in(constraint.rhs)] == ["a", "b", "c"]


def test_expressions_print_with_the_parentheses_they_need():
    for text in (
        "a - (b - c)",
        "(a + b) * c",
        "a / (b * c)",
        "-a^2",
        "(-a)^2",
        "a^-b",
        "(a^b)^c",
        "a^b^c",
        "--a",
    ):
        (constraint,) = parse(f"x := {text}").constraints
        assert format_expression(constraint.rhs) == text


def test_every_function_of_constants():
    for text, value in [("exp(0)", 1), ("log(1)", 0), ("abs(-2)", 2), ("log10(1000)", 3), ("log2(8)", 3)]:
        (constraint,) = parse(f"x := {text}").constraints
        assert isinstance(constraint.rhs, Call)
        assert evaluate(constraint.rhs) == pytest.approx(value, abs=1e-15)


def test_only_text_is_a_model():
    with pytest.raises(ModelSyntaxError, match="a model is a text, not int"):
        parse(3)


def test_long_formulas_need_no_recursion():
    names = [f"y{i}" for i in range(5000)]
    assert [s.rhs for s in parse("f =~ " + " + ".join(names)).statements] == names
    assert only("y ~ " + "(" * 2000 + "x" + ")" * 2000).rhs == "x"


def test_equality_ignores_where_things_stand():
    assert parse("f=~y1;g~x") == parse("\n\n  f =~ y1 # comment\n\n g ~ x")
    assert parse("f =~ y1") != parse("f =~ y2")
    assert hash(parse("f =~ y1")) == hash(parse("f  =~  y1"))


def test_printing_is_one_parameter_a_line():
    model = parse('LEVEL: w\nf =~ y1 + 0.5*a*y2\nf ~ 0*1\nlevel: "b c"\nefa("e")*f =~ c(1,NA)*"y 3"\nv >2')
    assert str(model) == format_syntax(model)
    assert str(model).split("\n") == [
        "level: w",
        "f =~ y1",
        "f =~ 0.5*a*y2",
        "f ~ 0*1",
        'level: "b c"',
        'efa("e")*f =~ c(1, NA)*"y 3"',
        "v > 2",
        "",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "f =~ lower(-Inf)*upper(Inf)*y",
        "block: 1\ny ~ x\nlevel: 2\ny ~ x",
        "f =~ equal(c(a, NA))*y",
        "f =~ 2*y + 3*y",
        "y ~ 'NA' + 'level' + 'x 1' + \"it's\"",
    ],
)
def test_printing_of_odd_texts_reads_back(text):
    assert parse(str(parse(text))) == parse(text)


@pytest.mark.parametrize("case", reference.names())
def test_reference_models_are_read_and_printed(case):
    model = parse(reference.model(case))
    assert parse(str(model)) == model


VOCABULARY = """
f g y1 y2 x.1 größe NA a b x1:x2 'q' '' 1 0 2 .5 1e-3 1e999 Inf pi
=~ ~ ~~ ~*~ <~ | := == < > = + - * / ? ^ ** ( ) , # ! ; @ :
start( lower( upper( label( equal( rv( efa( c( sqrt( foo( level: group: block: 1 2 within
"""
TOKENS = st.sampled_from([*VOCABULARY.split(), '"my var"', "\n", "\r\n", "level: 1\n", "group: 'a b'\n"])


def check(text: str) -> None:
    """Either the text is refused with its place, or printing reads back."""
    refused = None
    try:
        model = parse(text)
    except ModelSyntaxError as error:
        refused = error
    if refused is None:
        assert parse(str(model)) == model
    else:
        assert refused.line >= 1
        assert refused.column >= 1


@settings(deadline=None, max_examples=300)
@given(st.text())
@example("y ~ x\x00")
@example("\ufeffy ~ x")
@example("f =~ '\u2028'*y")
def test_any_text_is_read_or_refused(text):
    check(text)


@settings(deadline=None, max_examples=300)
@given(st.text(alphabet="fy1. ~=+*-/?^:;<>|#!'\"()\n,cNA"))
@example("y~.~~f")
@example("f=~f?y")
def test_any_text_of_the_alphabet_is_read_or_refused(text):
    check(text)


@settings(deadline=None, max_examples=300)
@given(st.lists(TOKENS, max_size=25).map(" ".join))
def test_any_sequence_of_tokens_is_read_or_refused(text):
    check(text)


NAMES = st.sampled_from(
    ["f", "y1", "x.1", "größe", "my var", "x1:x2", "NA", "level", "level:x", "Inf", "1", 'a"b']
)
NUMBERS = st.floats(-1e100, 1e100).map(lambda v: f"({v!r})".replace("e+", "e"))
MODIFIERS = st.one_of(
    NUMBERS.map("{}*".format),
    NUMBERS.map("start({})*".format),
    NUMBERS.map("{}?".format),
    NUMBERS.map("lower({})*".format),
    NUMBERS.map("upper({})*".format),
    st.tuples(NUMBERS, NUMBERS).map("c({0[0]}, NA, {0[1]})*".format),
    st.sampled_from(
        ["NA*", "a*", "'b c'*", 'label("NA")*', 'equal("f=~y1")*', "c(a, NA)*", "rv(s)*", "c(NA)*"]
    ),
)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.tuples(NAMES, st.sampled_from(["=~", "~", "~~", "|"]), st.lists(MODIFIERS, max_size=3), NAMES),
        min_size=1,
        max_size=6,
    ),
    st.lists(st.sampled_from(["level: 1", "level: 'a b'", "group: g", "group: h", "block: 1"]), max_size=3),
)
def test_printing_reads_back(formulas, headers):
    def quoted(name: str) -> str:
        return f"'{name}'"

    lines = [f"{quoted(lhs)} {op} {''.join(mods)}{quoted(rhs)}" for lhs, op, mods, rhs in formulas]
    for place, header in enumerate(headers):
        lines.insert(2 * place, header)
    model = parse("\n".join(lines))
    assert len(model.statements) == len(formulas)
    assert parse(str(model)) == model


def test_reading_the_demo_model_takes_less_than_a_millisecond():
    parse(DEMO)

    def once() -> float:
        begin = time.perf_counter()
        parse(DEMO)
        return time.perf_counter() - begin

    assert min(once() for _ in range(50)) < 1e-3


def test_names_compare_without_their_place():
    assert Name("a", Position(1, 1)) == Name("a", Position(2, 5))


COMMENTS = [
    "loadings, invariant",
    "slope (days)",
    "a ~ b",
    "x + y",
    "1/2",
    "y1 == y2",
    "level: 2",
    "50% < 3|2^2 ?",
]


@pytest.mark.parametrize("comment", COMMENTS)
@pytest.mark.parametrize("mark", "#!")
@pytest.mark.parametrize(
    "text",
    ["f =~ y1 + y2\n{}\nf ~ x", "f =~ y1 +\n{}\n y2\nf ~ x", "{}\nf =~ y1 + y2 {}\n\n  {}\nf ~ x{}\n{}"],
)
def test_a_comment_is_never_part_of_a_formula(text, mark, comment):
    assert parse(text.replace("{}", f"{mark} {comment}")) == parse("f =~ y1 + y2\nf ~ x")


def test_a_comment_stands_between_a_formula_and_its_continuation():
    assert parse("f =~ y1 # one, two\n# a ~ (b\n\n + y2") == parse("f =~ y1 + y2")


def test_a_byte_order_mark_before_the_text_is_no_character_of_it():
    assert parse("\ufefff =~ y1\nlevel: 1") == parse("f =~ y1\nlevel: 1")


@pytest.mark.parametrize(
    "name", ["प्रश्न1", "คำถามที่1", "சோதனை", "e\u0301cole", "نمی\u200cدانم", "größe", "質問.1"]
)
def test_letters_of_any_script_make_names(name):
    assert only(f"{name} ~ {name}2").lhs == name
    assert only(f"y ~ {name}*x").modifiers[0].values == (name,)
    assert str(parse(f"y ~ {name}")) == f"y ~ {name}\n"
    assert parse(f"d := {name}").constraints[0].text == f"d := {name}"


@pytest.mark.parametrize(
    "name", ["item 2", " a ", "a-b", "a:b c", "f=~y", "a;b", "# no", "it's", 'a"b', "x (1)"]
)
def test_backticks_and_quotes_keep_a_name_as_it_is(name):
    mark = '"' if '"' not in name else "'"
    assert only(f"y ~ `{name}`") == only(f"y ~ {mark}{name}{mark}")
    assert only(f"`{name}2` ~ x").lhs == f"{name}2"
    constraint = parse(f"`{name}2` := `{name}3` + 1").constraints[0]
    assert constraint.lhs == Name(f"{name}2", Position(1, 1))
    assert parse(constraint.text) == parse(f"`{name}2` := `{name}3` + 1")


def test_a_backtick_within_a_name_is_written_twice():
    assert only("y ~ `a``b`") == only("y ~ 'a`b'")
    odd = """`it's "``"`"""
    assert parse(str(parse(f"y ~ {odd}*{odd}"))) == parse(f"y ~ {odd}*{odd}")
    assert only(f"y ~ {odd}").rhs == 'it\'s "`"'


def test_a_latent_variable_without_indicators():
    assert only("f =~ 0").rhs == ""
    assert str(parse("f =~ 0")) == "f =~ 0\n"


def test_empty_texts_say_nothing_of_their_group():
    assert parse('f =~ y1 + equal("", "f=~y1")*y2') == parse('f =~ y1 + equal(NA, "f=~y1")*y2')
    assert parse('f =~ c("", "b")*y2') == parse("f =~ c(NA, b)*y2")
    assert parse('f =~ equal("")*y2') == parse("f =~ equal(NA)*y2")
    assert parse(str(parse('f =~ label("")*y2'))) == parse('f =~ label("")*y2')


def test_a_sum_of_many_terms_is_not_nested():
    model = parse("d := " + " + ".join(f"a{i}" for i in range(5000)))
    (constraint,) = model.constraints
    assert len(names_in(constraint.rhs)) == 5000
    assert parse(constraint.text) == model
    assert hash(pickle.loads(pickle.dumps(model))) == hash(model)
    assert copy.deepcopy(model) == model


def test_repeated_terms_are_joined_in_time_proportional_to_their_number():
    begin = time.perf_counter()
    (statement,) = parse("f =~ " + " + ".join(f"a{i}*y" for i in range(5000))).statements
    assert len(statement.modifiers) == 5000
    assert time.perf_counter() - begin < 10
