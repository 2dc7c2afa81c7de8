"""Fits of a power analysis in a file that grows, so that it can be interrupted and resumed.

A text file of JSON, one value on each line. The first line says what the analysis is:

    {"format": "msem power", "version": 2, "model": ..., "design": [...], "seed": ..., "parameters": [...],
     "sha256": ...}

Every further line has the fits of samples first, ..., last - 1 of a cell of the design, counted from 0:

    {"cell": 0, "first": 0, "last": 64, "est": [[...], ...], "se": [[...], ...], "llf": [...],
     "unrestricted_llf": [...], "status": [...], "problem": [...], "iterations": [...],
     "statistic": [...], "pvalue": [...], "sha256": ...}

Numbers are exact; null stands for nan. The digest of each line is that of its other values. Lines without it are read
from files of the version before, which begin with {"format": "msem power 1", ...}. A last line without its end, as an
interruption may leave it, is ignored. Of several processes with one file each adds what the others have not.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from msem.data.storage import DIGEST, Fields, Format, json_text, parsed, signed, verified
from msem.errors import DataError, DataWarning, warn
from msem.estimation.problems import VERDICTS
from msem.fits.manyfits import FitArrays

if sys.platform != "win32":
    import fcntl

FORMAT = Format("msem power", 2, "a file of a power analysis")
WITHOUT_DIGEST = "msem power 1"  # the format before
COLUMNS = tuple(field.name for field in fields(FitArrays))
LATER = ("statistic", "pvalue")  # which lines of earlier versions do not have


class PowerFile:
    """A file of fits by cell; without a path nothing is kept.

    Parameters
    ----------
    path : str or Path, optional
    head : mapping
        What the analysis is; a file of another one is refused.

    Raises
    ------
    DataError
        If there is a file that is damaged, or of another analysis; naming what differs.

    Warns
    -----
    DataWarning
        If the file comes from a version that wrote no digests, so that damage to a number would not be noticed.
    """

    def __init__(self, path: str | Path | None, head: Mapping[str, Any]) -> None:
        self.path = None if path is None else Path(path)
        self.head: dict[str, Any] = json.loads(json.dumps(head))
        self.known: dict[int, list[tuple[int, int, FitArrays]]] = {}
        self._lines = 0  # that were read or written, and where they end
        self._end = 0
        self._signed = True
        if self.path is None:
            return
        with self._opened(self.path) as file:
            if not self._lines:
                self._write(file, FORMAT.header | self.head)

    def fits(self, cell: int) -> list[FitArrays]:
        """Fits of a cell that the file has, in order from sample 0 without a gap."""
        return [arrays for _, _, arrays in self.known.get(cell, [])]

    def add(self, cell: int, first: int, arrays: FitArrays) -> None:
        """Write fits of a cell from sample `first` on, but for those that another process has written already.

        Raises
        ------
        DataError
            If the file has been damaged or removed.
        """
        if self.path is None:
            return
        with self._opened(self.path) as file:
            start = max(self._next(cell), first)
            last = first + len(arrays)
            if start >= last:
                return
            new = FitArrays(*(values[start - first :] for values in vars(arrays).values()))
            columns = {name: _listed(getattr(new, name)) for name in COLUMNS}
            self._write(file, {"cell": cell, "first": start, "last": last, **columns})
            self.known.setdefault(cell, []).append((start, last, new))

    def _next(self, cell: int) -> int:
        done = self.known.get(cell)
        return done[-1][1] if done else 0

    @contextlib.contextmanager
    def _opened(self, path: Path) -> Iterator[IO[bytes]]:
        """The file for this process alone, after reading what others have added."""
        with path.open("a+b") as file:
            if sys.platform != "win32":
                with contextlib.suppress(OSError):  # on file systems that have no locks
                    fcntl.flock(file, fcntl.LOCK_EX)
            self._read_on(path, file)
            yield file

    def _write(self, file: IO[bytes], line: Mapping[str, Any]) -> None:
        file.write(json_text(signed(line)).encode() + b"\n")
        file.flush()
        self._lines += 1
        self._end = file.tell()

    def _read_on(self, path: Path, file: IO[bytes]) -> None:
        file.seek(0, 2)
        if file.tell() < self._end:
            raise DataError(f"{path} was removed or cut short while fits were added to it")
        file.seek(self._end)
        text = file.read()
        whole, newline, rest = text.rpartition(b"\n")
        for line in whole.split(b"\n") if newline else ():
            self._lines += 1
            where = f"{path}, line {self._lines},"
            if self._lines == 1:
                self._require_head(path, _parsed(where, line))
            else:
                self._take(where, _parsed(where, line))
        self._end += len(text) - len(rest)
        if rest:  # cut off by an interruption
            file.truncate(self._end)

    def _require_head(self, path: Path, line: dict[str, Any]) -> None:
        self._signed = line.get("format") != WITHOUT_DIGEST
        if self._signed:
            if (line.get("format"), line.get("version")) != (FORMAT.name, FORMAT.version):
                raise DataError(f"{path} is not {FORMAT.kind} of this version: give another path")
            line = _verified(f"{path}, line 1,", line)
        head = {name: value for name, value in line.items() if name not in FORMAT.header}
        odd = [name for name in {**self.head, **head} if head.get(name) != self.head.get(name)]
        if odd:
            raise DataError(
                f"{path} is of another analysis, with another {', '.join(odd)}: give another path"
            )
        if not self._signed:
            warn(
                f"{path} was begun by an earlier msem and its lines have no digests, so that damage to their numbers "
                "would not be noticed",
                DataWarning,
            )

    def _take(self, where: str, line: dict[str, Any]) -> None:
        if self._signed or DIGEST in line:
            line = _verified(where, line)
        try:
            needed = [name for name in COLUMNS if name not in LATER]
            given = Fields(line, ("cell", "first", "last", *needed), LATER)
            cell, first, last = (given.whole(name) for name in ("cell", "first", "last"))
            arrays = _fit_arrays(given, len(self.head["parameters"]))
        except ValueError as error:
            raise _damaged(where) from error
        lengths = {len(values) for values in vars(arrays).values()}
        fits = lengths == {last - first} and first == self._next(cell)
        if not (fits and cell < len(self.head["design"])):
            raise DataError(f"{where} does not continue the lines before: remove it and all after it")
        self.known.setdefault(cell, []).append((first, last, arrays))


def stored_seed(path: str | Path | None) -> int | None:
    """The seed of a file that is there already; what is wrong with the file is said when it is read."""
    if path is None or not Path(path).exists():
        return None
    with Path(path).open("rb") as file:
        try:
            seed = parsed(file.readline()).get("seed")
        except ValueError:
            return None
    return seed if type(seed) is int else None


def _parsed(where: str, line: bytes) -> dict[str, Any]:
    try:
        return parsed(line)
    except ValueError as error:
        raise _damaged(where) from error


def _verified(where: str, line: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return verified(where, line)
    except DataError as error:
        raise _damaged(where) from error


def _damaged(where: str) -> DataError:
    return DataError(f"{where} is damaged: remove it and all after it")


def _listed(values: NDArray[Any]) -> list[Any]:
    if values.dtype != np.float64:
        return list(values.tolist())
    plain = values.astype(object)
    plain[~np.isfinite(values)] = None
    out: list[Any] = plain.tolist()
    return out


def _fit_arrays(given: Fields, width: int) -> FitArrays:
    """The fits of a line; `ValueError` for values that no fit has."""
    found = FitArrays(
        est=given.numbers("est", None, width, gaps=True),
        se=given.numbers("se", None, width, gaps=True),
        llf=given.numbers("llf", None, gaps=True),
        unrestricted_llf=given.numbers("unrestricted_llf", None, gaps=True),
        status=np.array(given.texts("status"), dtype=object),
        problem=np.array(given.texts("problem"), dtype=object),
        iterations=given.wholes("iterations"),
        **{name: given.numbers(name, None, gaps=True) for name in LATER if name in given.content},
    )
    if not set(VERDICTS).issuperset(found.status) or (found.se < 0).any():
        raise ValueError("a status is not known, or a standard error is negative")
    return found
