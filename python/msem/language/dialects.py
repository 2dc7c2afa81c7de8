"""Lines in the languages of other programs: what they are called here."""

from __future__ import annotations

import re
from typing import Final

_WORDS: Final = (
    (
        r"^\s*\w+\s*\|\s*\w+\s*(?:~|\bON\b)",
        "a random slope, 's | y ON x' in Mplus, is 'y ~ rv(\"s\")*x' below 'level: 1' here, and s is then a variable "
        "of level 2",
    ),
    (
        r"\(\s*(?:[01]\s*\+\s*)?[A-Za-z_.][^()|]*\|\|?[^()|]*\)",
        "a random slope, '(x | g)' in lme4, is 'y ~ rv(\"s\")*x' below 'level: 1' here, with cluster=\"g\"; s is then "
        "a variable of level 2, and 'y ~~ s' there its covariance with the intercepts",
    ),
    (r"^\s*%\s*within\s*%", "'%WITHIN%' of Mplus is 'level: 1' here"),
    (r"^\s*%\s*between\s*%", "'%BETWEEN%' of Mplus is 'level: 2' here"),
    (r"\bBY\b", "'f BY y1 y2' of Mplus is 'f =~ y1 + y2' here"),
    (r"\bON\b", "'y ON x1 x2' of Mplus is 'y ~ x1 + x2' here"),
    (r"\bWITH\b", "'y WITH x' of Mplus is 'y ~~ x' here"),
    (
        r"^\s*(?:MODEL|ANALYSIS|VARIABLE|OUTPUT|DATA|TITLE)\s*:",
        "sections of Mplus are arguments here: only the model is a text, in lavaan's language",
    ),
    (r"^\s*\[", "'[y]' of Mplus is 'y ~ 1' here"),
    (r"\w@", "'y@1' of Mplus is '1*y' here"),
    (
        r"\([^()|]*\|\|?[^()|]*\)",
        "random effects, '(1 | g)' in lme4, are the between level: 'level: 1' and 'level: 2' blocks, "
        'with cluster="g"',
    ),
    (
        r"\b(?:C|I|factor|as\.factor|poly|log|exp|sqrt|scale|np\.\w+)\s*\(",
        "functions of variables are not computed: add a column to the data",
    ),
)
_HINTS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE if "%" in pattern else 0), text) for pattern, text in _WORDS
)


def hint(line: str) -> str:
    """What a line of another program's language is here; empty if it is none that is known."""
    return next((text for pattern, text in _HINTS if pattern.search(line)), "")
