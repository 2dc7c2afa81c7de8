"""What the rows of a parameter table are called, and which rows a text names: the only reader of such names.

A row is called by its label, or as in ``f=~y2``, ``y1~1``, ``f=~y2.g2.l2`` (in the second group, at the between level).
A variable may itself be called ``y2.l2`` or ``a~b``. Where that gives two rows one name, the variable that only looks
like more than a variable stands in quotes, ``f=~"y2.l2"``, so that names are unique and each names its own row.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, Protocol

from msem.errors import ModelError
from msem.language.characters import quote
from msem.model.levels import WITHIN

Key = tuple[str, str, str]
"""lhs, op and rhs; the two names of a covariance in alphabetical order."""


def key_of(lhs: str, op: str, rhs: str) -> Key:
    """Say under which key a parameter is known: ``y2 ~~ y1`` is ``y1 ~~ y2``."""
    return (rhs, op, lhs) if op == "~~" and rhs < lhs else (lhs, op, rhs)


class Row(Protocol):
    """What a parameter is called by."""

    @property
    def lhs(self) -> str:
        """Left-hand side."""

    @property
    def op(self) -> str:
        """Operator."""

    @property
    def rhs(self) -> str:
        """Right-hand side, "" for ``~1``."""

    @property
    def level(self) -> int:
        """Counted from 1."""

    @property
    def group(self) -> int:
        """Counted from 1."""

    @property
    def label(self) -> str:
        """The user's label, or ""."""


class Reference(NamedTuple):
    """A parameter as a text names it; group and level are 0 where the text does not say them."""

    key: Key
    group: int
    level: int


_OPERATOR: Final = re.compile(r"=~|~~|~|\|")
_SUFFIX: Final = re.compile(r"(?P<group>\.g[1-9][0-9]{0,8})?(?P<level>\.l[123])?\Z")
_TWISTED: Final = re.compile(r"[~=|]|\A\s|\s\Z")
_SUFFIXED: Final = re.compile(r"(?:\.g[1-9][0-9]{0,8}|\.l[123])\Z|\A1\Z")
_LONGEST: Final = 14  # of suffixes
_QUOTES: Final = "\"'`"


def readings(text: str) -> Iterator[Reference]:
    """Every way in which a text can be read as the name of a parameter; suffixes of group and level come first."""
    for operator in _OPERATOR.finditer(text):
        lhs, rest = _unquoted(text[: operator.start()]), text[operator.end() :].strip()
        if not lhs or not rest:
            continue
        found = _SUFFIX.search(rest, max(len(rest) - _LONGEST, 0))
        assert found is not None  # the pattern matches the empty end
        group, level = found["group"] or "", found["level"] or ""
        for own, of_group, of_level in dict.fromkeys(
            ((found.start(), group, level), (len(rest) - len(level), "", level), (len(rest), "", ""))
        ):
            written = rest[:own].strip()
            intercept = (operator[0], written) == ("~", "1")
            rhs = _unquoted(written)
            if rhs:
                key = (lhs, "~1", "") if intercept else key_of(lhs, operator[0], rhs)
                yield Reference(key, int(of_group[2:] or 0), int(of_level[2:] or 0))


def is_formula(text: str) -> bool:
    """Whether a text can only be the name of a parameter, such as ``fb =~ y2``, and no expression of names."""
    return "`" not in text and next(readings(text), None) is not None


def _unquoted(name: str) -> str:
    name = name.strip()
    if len(name) > 2 and name[0] in _QUOTES and name[0] == name[-1]:
        inner = name[1:-1]
        return inner.replace("``", "`") if name[0] == "`" else inner
    return name


def spelled(row: Row, *, quoted: bool = False) -> str:
    """Name of a row other than its label, in quotes what could be taken for something else."""
    # lavaan writes an intercept "y1~1"
    lhs = _guarded(row.lhs, quoted and _TWISTED.search(row.lhs) is not None)
    rhs = _guarded(row.rhs, quoted and (_TWISTED.search(row.rhs) or _SUFFIXED.search(row.rhs)) is not None)
    group = f".g{row.group}" if row.group > 1 else ""
    return f"{lhs}{row.op}{rhs}{group}{f'.l{row.level}' if row.level > WITHIN else ''}"


def _guarded(name: str, quoted: bool) -> str:
    return quote(name) if quoted or name[:1] in ("'", '"', "`") else name


class Names:
    """Names of rows, each the name of one parameter only.

    Attributes
    ----------
    own : tuple of str
        Names other than labels, unique.
    shown : tuple of str
        The label of each row that has one, else its own name.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        plain = [spelled(row) for row in rows]
        times = Counter(plain)
        self.own = tuple(
            name if times[name] == 1 else spelled(row, quoted=True)
            for row, name in zip(rows, plain, strict=True)
        )
        self.shown = tuple(row.label or name for row, name in zip(rows, self.own, strict=True))
        self._index = {name: i for i, name in enumerate(self.own)}
        self._labelled: dict[str, list[int]] = {}
        self._keyed: dict[Key, list[int]] = {}
        for i, row in enumerate(rows):
            self._keyed.setdefault(key_of(row.lhs, row.op, row.rhs), []).append(i)
            if row.label:
                self._labelled.setdefault(row.label, []).append(i)

    def find(
        self, text: str, *, level: int | None = None, group: int | None = None, everywhere: bool = False
    ) -> list[int]:
        """Rows that a text names, in order; empty if there are none.

        Parameters
        ----------
        text : str
            A label; a name as in `shown` or `own`; or a formula such as ``fb =~ y2``, which names the rows of all
            levels and groups that it does not exclude.
        level, group : int, optional
            Where the rows are.
        everywhere : bool
            Take a name without suffix, too, for the rows of all levels and groups: ``f=~y2`` is otherwise the one of
            the first, which is called so.

        Raises
        ------
        ModelError
            If the text can be read as different parameters, neither of which has it as its name.
        """

        def here(rows: Sequence[int]) -> list[int]:
            return [
                i for i in rows if level in (None, self.rows[i].level) and group in (None, self.rows[i].group)
            ]

        exact = level is group is None and not everywhere
        tidy = text if text in self._labelled or (exact and text in self._index) else text.strip()
        if tidy in self._labelled:
            return here(self._labelled[tidy])
        if exact and tidy in self._index:
            return [self._index[tidy]]
        found: list[list[int]] = []
        for reading in readings(tidy):
            rows = here(self._keyed.get(reading.key, ()))
            rows = [
                i
                for i in rows
                if reading.group in (0, self.rows[i].group) and reading.level in (0, self.rows[i].level)
            ]
            if rows and rows not in found:
                found.append(rows)
        if len(found) < 2:
            return found[0] if found else []
        # A row that tables call so, but for blanks, goes first.
        bare = "".join(tidy.split())
        named = [i for i, name in enumerate(self.own) if "".join(name.split()) == bare]
        if len(named) == 1 and here(named):
            return named
        several = ", ".join(self.own[i] for rows in found for i in rows)
        raise ModelError(f"'{text}' may be any of {several}: use one of these names")

    def first(self, text: str) -> int | None:
        """The row that a text names: of the first group and level where it does not say; None if there is none.

        Raises
        ------
        ModelError
            As in `find`.
        """
        found = self.find(text)
        return min(found, key=lambda i: (self.rows[i].group, self.rows[i].level, i), default=None)
