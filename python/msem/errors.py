"""Exceptions and warnings.

Every user mistake is a subclass of `ValueError` whose message names the thing and the remedy.
"""

from __future__ import annotations

import difflib
import sys
import warnings
from pathlib import Path
from types import FrameType
from typing import Any

OWN = ("msem", "functools", "contextlib")  # whose frames are no place of the user's


class MsemError(ValueError):
    """Base class of all errors that msem raises about its input."""


class ModelSyntaxError(MsemError):
    """The model text cannot be read.

    Parameters
    ----------
    message : str
        What was found and what was expected.
    line, column : int
        Position in the model text, counted from 1; 0 when it is not known.
    source : str
        The offending line of the text, quoted below the message.
    """

    def __init__(self, message: str, line: int = 0, column: int = 0, source: str = "") -> None:
        self.line = line
        self.column = column
        self.source = source
        if line:
            message = f"line {line}, column {column}: {message}"
            if source:
                message += f"\n    {source}\n    {' ' * (column - 1)}^"
        super().__init__(message)


class ModelError(MsemError):
    """The model text is well formed but cannot be a model of these data."""


class UnsupportedError(ModelError):
    """A feature of the model language that this version reads but does not estimate."""


class DataError(MsemError):
    """The data, or the moments given in their place, cannot be used."""


class MissingFileError(FileNotFoundError, DataError):
    """There is no such file or folder.

    Parameters
    ----------
    path : path
    """

    def __init__(self, path: Any) -> None:
        super().__init__(str(path))
        self.filename = str(path)

    def __str__(self) -> str:
        path = Path(self.filename)
        folder = path.parent
        if not folder.is_dir():
            return f"there is no file {path}: there is no folder {folder}"
        near = difflib.get_close_matches(path.name, (one.name for one in folder.iterdir()), n=1, cutoff=0.8)
        hint = f"did you mean {folder / near[0]}?" if near else f"it was looked for in {folder.resolve()}"
        return f"there is no file {path}: {hint}"


class ArgumentError(MsemError, TypeError):
    """A function does not have such an argument, or takes it of another kind."""


class ExtraError(MsemError, ImportError):
    """A package that is not installed is needed; the message has the command that installs it."""


class MsemWarning(UserWarning):
    """Base class of all warnings of msem."""


class DataWarning(MsemWarning):
    """Rows or variables were treated in a way the user should know about."""


class ConvergenceWarning(MsemWarning):
    """The optimiser stopped before it reached a maximum of the likelihood."""


class ImproperSolutionWarning(MsemWarning):
    """The estimates lie outside the space of proper solutions, such as a negative variance."""


class IdentificationWarning(MsemWarning):
    """The information matrix is singular: some parameters cannot be told apart by the data."""


class SmallSampleWarning(MsemWarning):
    """There are fewer clusters than between-level parameters."""


def warn(message: str, category: type[MsemWarning]) -> None:
    """Warn at the line of the user: that of the first frame outside the package."""
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and _is_own(frame):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def _is_own(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] in OWN
