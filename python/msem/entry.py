"""Where users enter: what is raised about their input ends there and not in the frames below.

Of an error about the input the message says all; the frames of the package below the call say nothing to its reader.
A call that the signature does not take is answered with what it takes. Every other exception is a defect and keeps its
whole traceback.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from types import FunctionType
from typing import Any, ParamSpec, TypeVar

from msem.errors import ArgumentError, MsemError
from msem.names import unknown_option

P = ParamSpec("P")
R = TypeVar("R")
Kind = TypeVar("Kind", bound=type)


def entry(function: Callable[P, R], *, name: str = "", bound: int = 0) -> Callable[P, R]:
    """A function that users call: the traceback of an `MsemError` ends at it.

    Parameters
    ----------
    function : callable
    name : str
        What users call it, if that is another name than its own.
    bound : {0, 1}
        1 for a method, whose first argument is not given by the user.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except MsemError as error:
            if error.__cause__ is not None:
                error.__cause__.__traceback__ = None
            raise error.with_traceback(None)  # noqa: B904  (it is the same error)
        except TypeError:
            mistake = _mistake(function, name or function.__name__, args[bound:], kwargs, bound)
            if not mistake:
                raise
        raise ArgumentError(mistake)

    return call


def _mistake(
    function: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], bound: int
) -> str:
    """What is wrong with a call that the signature does not take; "" if it takes it."""
    parameters = list(inspect.signature(function).parameters.values())[bound:]
    signature = inspect.Signature(parameters)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        ordered = [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]
        named = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]
        unknown = [one for one in kwargs if one not in (*ordered, *named)]
        if unknown and not any(one.kind is one.VAR_KEYWORD for one in parameters):
            return unknown_option(name, unknown[0], (*ordered, *named))
        if len(args) > len(ordered):
            takes = f"only {', '.join(ordered)} without a name" if ordered else "no argument without a name"
            extra = args[len(ordered)]
            plain = isinstance(extra, str | bool | int | float)
            example = f", such as {named[0]}={extra!r:.40}" if named and plain else ""
            rest = f": give the others by name{example}" if named else ""
            return f"{name}() takes {takes}{rest}"
        return f"{name}(): {error}"
    return ""


def options_of(function: Callable[..., Any]) -> tuple[str, ...]:
    """Arguments that a function takes by name only."""
    parameters = inspect.signature(function).parameters.values()
    return tuple(one.name for one in parameters if one.kind is one.KEYWORD_ONLY)


def entries(kind: Kind) -> Kind:
    """A class whose public methods users call."""
    return _entered(kind, lambda method: method)


def questions(kind: Kind) -> Kind:
    """A class of fits: `entries`, each with no more threads than the fit was given (`options.limit()`)."""

    def limited(method: Callable[..., R]) -> Callable[..., R]:
        @wraps(method)
        def call(fit: Any, *args: Any, **kwargs: Any) -> R:
            with fit.options.limit():
                return method(fit, *args, **kwargs)

        return call

    return _entered(kind, limited)


def _entered(kind: Kind, inside: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Kind:
    for name, value in list(vars(kind).items()):
        if isinstance(value, FunctionType) and not name.startswith("_"):
            setattr(kind, name, entry(inside(value), name=name, bound=1))
        elif isinstance(value, classmethod) and not name.startswith("_"):
            setattr(kind, name, classmethod(entry(value.__func__, name=name, bound=1)))
    return kind
