"""Small models and how tests look into their parameter tables."""

from __future__ import annotations

from typing import Any

import texts
from msem.language.syntax import parse
from msem.model.partable import Parameter, ParameterTable, parameter_table

DEMO = texts.DEMO


def table(text: str, **options: Any) -> ParameterTable:
    """Parse a model and complete it."""
    return parameter_table(parse(text), **options)


def row(of: ParameterTable, lhs: str, op: str, rhs: str = "", level: int = 1) -> Parameter:
    """Find the one row of a parameter; covariances in either order."""
    wanted = {(lhs, op, rhs), (rhs, op, lhs)} if op == "~~" else {(lhs, op, rhs)}
    (found,) = (r for r in of.rows if (r.lhs, r.op, r.rhs) in wanted and r.level == level)
    return found
