"""Fits of a power analysis in a file that grows, so that it can be interrupted and resumed.

A text file of JSON, one value on each line. The first line says what the analysis is:

    {"format": "msem power 1", "model": ..., "design": [...], "seed": ..., "parameters": [...]}

Every further line has the fits of samples first, ..., last - 1 of a cell of the design, counted from 0:

    {"cell": 0, "first": 0, "last": 64, "est": [[...], ...], "se": [[...], ...], "llf": [...],
     "unrestricted_llf": [...], "status": [...], "problem": [...], "iterations": [...]}

Numbers are exact; null stands for nan. A last line without its end, as an interruption may leave it, is ignored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msem.errors import DataError
from msem.fits.manyfits import FitArrays

FORMAT = "msem power 1"
NUMBERS = ("est", "se", "llf", "unrestricted_llf")


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
    """

    def __init__(self, path: str | Path | None, head: Mapping[str, Any]) -> None:
        self.path = None if path is None else Path(path)
        self.head = json.loads(json.dumps({"format": FORMAT, **head}))
        self.known: dict[int, list[tuple[int, int, FitArrays]]] = {}
        if self.path is None:
            return
        if self.path.exists() and self.path.stat().st_size:
            self._read(self.path)
        else:
            self.path.write_text(json.dumps(self.head) + "\n", encoding="utf-8")

    def fits(self, cell: int) -> list[FitArrays]:
        """Fits of a cell that the file has, in order from sample 0 without a gap."""
        return [arrays for _, _, arrays in self.known.get(cell, [])]

    def add(self, cell: int, first: int, arrays: FitArrays) -> None:
        """Write fits of a cell from sample `first` on."""
        if self.path is None:
            return
        line: dict[str, Any] = {"cell": cell, "first": first, "last": first + len(arrays)}
        for field in fields(FitArrays):
            line[field.name] = _listed(getattr(arrays, field.name))
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")

    def _read(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8", errors="replace")
        whole, _, rest = text.rpartition("\n")
        lines = whole.split("\n")
        head = _json(path, 1, lines[0])
        if not isinstance(head, dict) or head.get("format") != FORMAT:
            raise DataError(f"{path} is not a file of a power analysis of this version: give another path")
        odd = [name for name in {**self.head, **head} if head.get(name) != self.head.get(name)]
        if odd:
            raise DataError(
                f"{path} is of another analysis, with another {', '.join(odd)}: give another path"
            )
        for number, line in enumerate(lines[1:], 2):
            self._take(path, number, _json(path, number, line))
        if rest:  # cut off by an interruption
            path.write_text(whole + "\n", encoding="utf-8")

    def _take(self, path: Path, number: int, line: Any) -> None:
        try:
            cell, first, last = (int(line[name]) for name in ("cell", "first", "last"))
            arrays = FitArrays(*(_array(field.name, line[field.name]) for field in fields(FitArrays)))
            width = len(self.head["parameters"])
            shapes = {arrays.est.shape, arrays.se.shape}
            lengths = {len(getattr(arrays, field.name)) for field in fields(FitArrays)}
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}, line {number}, is damaged: remove it and all after it") from error
        done = self.known.setdefault(cell, [])
        expected = done[-1][1] if done else 0
        fits = shapes == {(last - first, width)} and lengths == {last - first} and first == expected
        if not (fits and 0 <= cell < len(self.head["design"])):
            raise DataError(
                f"{path}, line {number}, does not continue the lines before: remove it and all after it"
            )
        done.append((first, last, arrays))


def _json(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise DataError(f"{path}, line {number}, is damaged: remove it and all after it") from error


def _listed(values: NDArray[Any]) -> list[Any]:
    if values.dtype != np.float64:
        return list(values.tolist())
    plain = values.astype(object)
    plain[~np.isfinite(values)] = None
    out: list[Any] = plain.tolist()
    return out


def _array(name: str, values: list[Any]) -> NDArray[Any]:
    if name in NUMBERS:
        return np.array(values, dtype=np.float64)
    if name == "iterations":
        return np.array(values, dtype=np.intp)
    if not all(isinstance(one, str) for one in values):
        raise ValueError(name)
    return np.array(values, dtype=object)
