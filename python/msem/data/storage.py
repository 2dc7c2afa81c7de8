"""Files that the package writes: replaced as a whole or not at all, with a digest, and read with every value checked.

All of them are JSON, or have a header that is. A digest, SHA-256 of the JSON with sorted keys and without spaces, tells
a damaged file from a whole one before any of it is used; nothing in a file is executed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from msem.errors import ArgumentError, DataError, DataWarning, MissingFileError, warn

Floats = NDArray[np.float64]
DIGEST = "sha256"


def existing(path: Any) -> Any:
    """A path that leads somewhere.

    Raises
    ------
    MissingFileError
    ArgumentError
        If it is no path.
    """
    if not isinstance(path, str | bytes | os.PathLike):
        raise ArgumentError(f"a file is given by its path, not by {path!r}")
    if not os.path.exists(path):
        raise MissingFileError(path)
    return path


# -- writing ---------------------------------------------------------------------------------------------------


@contextmanager
def replacing(path: Any) -> Iterator[Path]:
    """A new file to be written, which takes the place of `path` at the end, or leaves it alone if anything fails.

    It has the permissions of the file that it replaces, or else those that the umask gives; of a symbolic link the file
    it leads to is replaced. Pipes and devices are written to as they are.

    Parameters
    ----------
    path : path

    Yields
    ------
    Path
        In the same folder and with the same suffixes.

    Raises
    ------
    MissingFileError
        If the folder does not exist.
    PermissionError
        If the file there, or the folder, must not be written to.
    """
    old = _status(path)
    if old is not None and not stat.S_ISREG(old.st_mode):
        yield Path(path)
        return
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise MissingFileError(target)
    if old is not None and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    new = target.with_name(f".{secrets.token_hex(8)}{''.join(target.suffixes[-2:])}")
    os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield new
        _flush(new)
        if old is not None:
            os.chmod(new, stat.S_IMODE(old.st_mode))
        os.replace(new, target)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    if os.name == "posix":
        _flush(target.parent)


def _status(path: Any) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _flush(path: Path) -> None:
    """Have the contents of a file, or the names in a folder, on the disk before going on."""
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Any, content: Mapping[str, Any]) -> None:
    """Write a mapping as JSON in place of a file."""
    with replacing(path) as file:
        file.write_text(json_text(content), encoding="utf-8")


def json_text(content: Mapping[str, Any]) -> str:
    """A mapping in one line; `ValueError` for numbers that JSON does not have."""
    return json.dumps(content, allow_nan=False)


def digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of a mapping, whatever the order of its keys."""
    text = json.dumps(content, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def signed(content: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping with its digest as a further value."""
    return {**content, DIGEST: digest(content)}


# -- reading ---------------------------------------------------------------------------------------------------


def distinct_files(paths: Sequence[Any]) -> list[Any]:
    """Paths without those that lead to a file that is there already.

    Warns
    -----
    DataWarning
        If there are any, as their rows would be counted twice.
    """
    found = {os.path.realpath(path): path for path in reversed(paths)}
    distinct = list(found.values())[::-1]
    if len(distinct) < len(paths):
        twice = [os.fspath(path) for path in paths if not any(path is one for one in distinct)]
        warn(
            f"{', '.join(dict.fromkeys(twice))} is given more than once: its rows are taken once", DataWarning
        )
    return distinct


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of file.

    Attributes
    ----------
    name : str
        As it stands in the file.
    version : int
        The one that is written.
    kind : str
        What a file is, for messages.
    """

    name: str
    version: int
    kind: str

    @property
    def header(self) -> dict[str, Any]:
        """What a file begins with."""
        return {"format": self.name, "version": self.version}

    def read(self, path: Any) -> dict[str, Any]:
        """The mapping in a JSON file.

        Raises
        ------
        DataError
            If it is none.
        """
        file = Path(existing(path))
        try:
            return parsed(file.read_bytes())
        except (ValueError, IsADirectoryError) as error:
            raise DataError(f"{path} is not {self.kind}, or is cut short: {error}") from error

    def require(self, path: Any, given: Mapping[str, Any]) -> None:
        """Refuse the header of a file of another format or version.

        Raises
        ------
        DataError
        """
        if given.get("format") != self.name:
            raise DataError(f"{path} is not {self.kind}")
        version = given.get("version")
        if type(version) is not int or version != self.version:
            raise DataError(
                f"{path} is of version {version!r} of the format and this msem reads version {self.version}: "
                "update msem"
            )

    def contradiction(self, path: Any, error: Exception) -> DataError:
        """Error for a file whose content cannot be."""
        return DataError(f"{path} is not {self.kind}: {error}")


def parsed(text: bytes) -> dict[str, Any]:
    """A mapping from JSON.

    Raises
    ------
    ValueError
        If it is none, or has a key twice or a number that JSON does not have.
    """
    try:
        found = json.loads(text.decode(), object_pairs_hook=_distinct, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("it holds no names")
    return found


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("it has a name twice")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")


def has_digest(content: Mapping[str, Any], given: Any) -> bool:
    """Whether a digest that was read is that of a mapping."""
    try:
        return given is not None and digest(content) == str(given)
    except ValueError:  # a number that is too large for a float
        return False


def verified(path: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping without its digest, which is what `signed` has made of it.

    Raises
    ------
    DataError
        If it is not.
    """
    content = {name: value for name, value in given.items() if name != DIGEST}
    if not has_digest(content, given.get(DIGEST)):
        raise damaged(path)
    return content


def damaged(path: Any) -> DataError:
    """Error for a file that is not as it was written."""
    return DataError(
        f"{path} is damaged or cut short: its digest is another one; get the file again from whoever made it"
    )


class Fields:
    """Values of a file by name, each checked before it is taken, and before memory is needed for it.

    Parameters
    ----------
    content : mapping of str to value
    names : collection of str
        Those that must be there; there must be no other.
    optional : collection of str
        Those that may be.

    Raises
    ------
    ValueError
        If a name is missing or not known; and of every method if the value is not of that kind.
    """

    def __init__(self, content: Any, names: Collection[str], optional: Collection[str] = ()) -> None:
        if not isinstance(content, dict):
            raise ValueError("it holds no names")
        missing = [name for name in names if name not in content]
        odd = [name for name in content if name not in names and name not in optional]
        if missing or odd:
            raise ValueError(f"it has no {missing[0]!r}" if missing else f"it has an unknown {odd[0]!r}")
        self.content = content

    def text(self, name: str) -> str:
        """A text."""
        value = self.content[name]
        if not isinstance(value, str):
            raise ValueError(f"{name!r} is not a text")
        return value

    def texts(self, name: str) -> list[str]:
        """A list of texts."""
        value = self.content[name]
        if not (isinstance(value, list) and set(map(type, value)) <= {str}):
            raise ValueError(f"{name!r} is not a list of texts")
        return value

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self.content.get(name, default)
        if not isinstance(value, bool):
            raise ValueError(f"{name!r} is neither true nor false")
        return value

    def whole(self, name: str) -> int:
        """A whole number from 0."""
        value = self.content[name]
        if type(value) is not int or value < 0:
            raise ValueError(f"{name!r} is not a whole number from 0")
        return value

    def wholes(self, name: str) -> NDArray[np.intp]:
        """A list of whole numbers from 0."""
        value = self.content[name]
        if not (isinstance(value, list) and set(map(type, value)) <= {int} and min(value, default=0) >= 0):
            raise ValueError(f"{name!r} is not a list of whole numbers from 0")
        try:
            return np.array(value, dtype=np.intp)
        except OverflowError:
            raise ValueError(f"{name!r} has a number that is too large") from None

    def number(self, name: str) -> float:
        """A finite number."""
        if type(self.content[name]) not in (int, float):
            raise ValueError(f"{name!r} is not a number")
        return self.numbers(name).item()

    def numbers(self, name: str, *shape: int | None, gaps: bool = False) -> Floats:
        """Finite numbers as an array.

        Parameters
        ----------
        name : str
        *shape : int or None
            None: of any length.
        gaps : bool
            Whether numbers may be missing: null in the file, nan in the array.
        """
        value = self.content[name]
        kinds = {int, float, type(None)} if gaps else {int, float}
        fits = value.dtype.kind in "iuf" if isinstance(value, np.ndarray) else _fits(value, shape, kinds)
        try:
            array = np.array(value if fits else [], dtype=np.float64)
        except OverflowError:
            raise ValueError(f"{name!r} has a number that is too large") from None
        fits = fits and len(shape) == array.ndim
        if not (fits and all(n in (None, m) for n, m in zip(shape, array.shape, strict=True))):
            wanted = " x ".join("any" if n is None else str(n) for n in shape)
            raise ValueError(f"{name!r} is not {wanted or 'one'} numbers")
        if (np.isinf(array) if gaps else ~np.isfinite(array)).any():
            raise ValueError(f"{name!r} has a number that is not finite")
        return array


def _fits(value: Any, shape: tuple[int | None, ...], kinds: Collection[type]) -> bool:
    """Whether nested lists are of a shape and hold values of these kinds only."""
    if not shape:
        return type(value) in kinds
    if not isinstance(value, list) or shape[0] not in (None, len(value)):
        return False
    if len(shape) == 1:
        return set(map(type, value)) <= set(kinds)
    return all(_fits(one, shape[1:], kinds) for one in value)
