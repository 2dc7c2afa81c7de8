"""Where users enter: what is raised about their input ends there and not in the frames below.

Of an error about the input the message says all; the frames of the package below the call say nothing to its reader.
Every other exception is a defect and keeps its whole traceback.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import FunctionType
from typing import ParamSpec, TypeVar

from msem.errors import MsemError

P = ParamSpec("P")
R = TypeVar("R")
Kind = TypeVar("Kind", bound=type)


def entry(function: Callable[P, R]) -> Callable[P, R]:
    """A function that users call: the traceback of an `MsemError` ends at it."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except MsemError as error:
            if error.__cause__ is not None:
                error.__cause__.__traceback__ = None
            raise error.with_traceback(None)  # noqa: B904  (it is the same error)

    return call


def entries(kind: Kind) -> Kind:
    """A class whose public methods users call."""
    for name, value in list(vars(kind).items()):
        if isinstance(value, FunctionType) and not name.startswith("_"):
            setattr(kind, name, entry(value))
        elif isinstance(value, classmethod) and not name.startswith("_"):
            setattr(kind, name, classmethod(entry(value.__func__)))
    return kind
