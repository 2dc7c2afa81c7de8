"""Damaged and altered files: each is read as it was written, or refused; nothing else happens.

    python tests/fuzz/files.py --examples 20000 --seed 1

flips every single bit of a file of each kind, and then looks for damage and values that break this. A part of it is in
every run of the tests, in `tests/test_fuzz.py`.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

import msem
from msem.data.storage import DIGEST, digest, signed
from msem.errors import DataError, DataWarning
from msem.fits.checkpoint import PowerFile
from msem.fits.manyfits import FitArrays

SECONDS = 2.0  # of a processor, for one file; the longest take some hundredths
FOLDER = Path(tempfile.mkdtemp(prefix="msem-files-"))
HEAD = {"model": ["y~x"], "parameters": ["y~x", "y~~y"], "design": [{"nobs": 50}, {"nobs": 80}], "seed": 1}
VALUES = [
    None,
    True,
    False,
    -1,
    0,
    1,
    0.5,
    1e308,
    -1e-320,
    10**400,
    "",
    "x",
    "1",
    "y1",
    [],
    {},
    [[1.0]],
    ["y1", "y1"],
]


def _rows() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(6), [2, 2, 3, 3, 3, 5])
    return pd.DataFrame(rng.normal(size=(18, 2)) + 0.3 * g[:, None], columns=["y1", "y2"]).assign(g=g)


def _moments(path: Path) -> None:
    within = pd.DataFrame([[2.0, 0.3], [0.3, 1.1]], index=["y1", "y2"], columns=["y1", "y2"])
    sizes = {2: 20, 3: 15, 5: 10}
    msem.LevelMoments(within, 0.3 * within, {"y1": 0.1, "y2": -1 / 3}, cluster_sizes=sizes).save(path)


def _statistics(keep: bool) -> Callable[[Path], None]:
    return lambda path: msem.summarize(_rows(), cluster="g", keep_clusters=keep).save(path)


def _power(path: Path) -> None:
    file, rng, words = (
        PowerFile(path, HEAD),
        np.random.default_rng(4),
        np.array(["ok", "failed"], dtype=object),
    )
    for cell, first in ((0, 0), (0, 2), (1, 0)):
        est = rng.normal(size=(2, 2))
        est[1] = np.nan
        file.add(cell, first, FitArrays(est, est**2, est[:, 0], est[:, 1], words, words, np.array([3, 0])))


def _parts_of_moments(path: Path) -> list[object]:
    found = msem.LevelMoments.load(path)
    frames = (found.within_cov, found.between_cov, found.acov)
    values = [(list(frame.columns), frame.to_numpy().tobytes()) for frame in frames]
    means = [pd.Series(mean).to_numpy().tobytes() for mean in (found.within_mean, found.between_mean)]
    flags = (found.converged, found.means_given, found.incomplete)
    return [(values, means, found.nobs, found.nclusters, found.cluster_sizes, repr(found.llf), flags)]


def _parts_of_statistics(path: Path) -> list[object]:
    found = msem.ClusterStatistics.load(path)
    values = {field.name: getattr(found, field.name) for field in fields(found)}
    sums = values.pop("sums")
    kept = (
        None if sums is None else [np.asarray(getattr(sums, field.name)).tobytes() for field in fields(sums)]
    )
    values["ids"] = None if found.ids is None else list(found.ids)
    plain = {name: v.tobytes() if isinstance(v, np.ndarray) else v for name, v in values.items()}
    return [(plain, kept)]


def _parts_of_power(path: Path) -> list[object]:
    known = PowerFile(path, HEAD).known
    return [
        (
            cell,
            first,
            last,
            [list(values) if values.dtype == object else values.tobytes() for values in vars(fits).values()],
        )
        for cell in sorted(known)
        for first, last, fits in known[cell]
    ]


@dataclass(frozen=True)
class Kind:
    """A kind of file: what writes it and what reads it, as parts of which the last may be cut off."""

    name: str
    write: Callable[[Path], None]
    read: Callable[[Path], list[Any]]

    @property
    def whole(self) -> bytes:
        """A file of it."""
        path = FOLDER / f"whole-{self.name}"
        if not path.exists():
            self.write(path)
        return path.read_bytes()

    @property
    def lines(self) -> bool:
        """Whether there is a value on each line, so that a file may be cut short."""
        return self.name.endswith("jsonl")


KINDS = [
    Kind("moments.json", _moments, _parts_of_moments),
    Kind("statistics.json", _statistics(False), _parts_of_statistics),
    Kind("clusters.json", _statistics(True), _parts_of_statistics),
    Kind("clusters.parquet", _statistics(True), _parts_of_statistics),
    Kind("power.jsonl", _power, _parts_of_power),
]
TEXTS = [kind for kind in KINDS if not kind.name.endswith("parquet")]


def _loaded(kind: Kind, content: bytes) -> list[Any] | None:
    """The parts of a file, None if it is refused."""
    path = FOLDER / kind.name
    path.write_bytes(content)
    begin = time.process_time()
    try:
        return kind.read(path)
    except DataError:
        return None
    finally:
        taken = time.process_time() - begin
        assert taken < SECONDS, f"{taken:.1f} s"


def check_damaged(kind: Kind, content: bytes) -> None:
    """Fail unless a damaged file is refused, or as good as whole."""
    found = _loaded(kind, content)
    if found is None:
        return
    expected = kind.read(FOLDER / f"whole-{kind.name}")
    if kind.lines:  # lines that are cut off are as if they had not been written, in the order of writing
        assert all(part in expected for part in found)
    else:
        assert found == expected


def check_altered(kind: Kind, content: bytes) -> None:
    """Fail if anything but a message comes from a file whose digests are right, whatever its values."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        _loaded(kind, content)


@st.composite
def damaged(draw: st.DrawFn) -> tuple[Kind, bytes]:
    """A file with some bytes changed, lost, repeated or cut off."""
    kind = draw(st.sampled_from(KINDS))
    content = bytearray(kind.whole)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(content) - 1))
        until = min(at + draw(st.integers(1, 40)), len(content))
        how = draw(st.sampled_from(["flip", "byte", "cut", "lose", "repeat", "zeros", "line"]))
        if how == "flip":
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "byte":
            content[at] = draw(st.sampled_from(b'0123456789.-e"[]{},: \nnaNx\x00\xff'))
        elif how == "cut":
            del content[max(at, 1) :]
        elif how == "lose":
            del content[at:until]
        elif how == "repeat":
            content[at:at] = content[at:until]
        elif how == "zeros":
            content[at:until] = bytes(until - at)
        else:
            lines = content.splitlines(keepends=True)
            lines.insert(at % len(lines), lines[until % len(lines)])
            content = bytearray(b"".join(lines))
        if not content:
            break
    return kind, bytes(content)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to all values within a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from _places(inner, (*path, key))


def _alter(draw: st.DrawFn, content: dict[str, Any]) -> None:
    """Replace, remove, repeat or add a value somewhere."""
    *way, key = draw(st.sampled_from(list(_places(content))))
    inner: Any = content
    for step in way:
        inner = inner[step]
    how = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
    value = copy.deepcopy(draw(st.sampled_from(VALUES)))
    if how == "replace":
        inner[key] = value
    elif how == "remove":
        del inner[key]
    elif isinstance(inner, list):
        inner.insert(key, inner[key])
    else:
        inner[draw(st.sampled_from(["version", "rows", "acov", "within", "y1"]))] = value


@st.composite
def altered(draw: st.DrawFn) -> tuple[Kind, bytes]:
    """A file with other values and digests that are right, or none, as in files of earlier versions."""
    kind = draw(st.sampled_from(TEXTS))
    lines = [json.loads(line) for line in kind.whole.splitlines()]
    for _ in range(draw(st.integers(1, 3))):
        line = draw(st.sampled_from(lines))
        _alter(draw, line["content"] if isinstance(line.get("content"), dict) else line)
    out, early = [], draw(st.booleans())
    for line in lines:
        content = {name: value for name, value in line.items() if name != DIGEST}
        if "content" in content:
            content[DIGEST] = digest(content["content"])
        elif early:
            content = content | ({"format": f"{content['format']} 1"} if "format" in content else {})
            content.pop("version", None)
        else:
            content = signed(content)
        out.append(json.dumps(content).encode())
    return kind, b"\n".join(out) + b"\n" * kind.lines


def flips(kind: Kind, step: int) -> Iterator[bytes]:
    """A file with a single bit flipped, of all its bits every `step`-th."""
    for bit in range(0, 8 * len(kind.whole), step):
        content = bytearray(kind.whole)
        content[bit // 8] ^= 1 << bit % 8
        yield bytes(content)


def main() -> None:
    arguments = argparse.ArgumentParser(
        description="Look for damaged files that are neither refused nor whole."
    )
    arguments.add_argument("--examples", type=int, default=5_000)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--step", type=int, default=1, help="flip every so many-th bit")
    chosen = arguments.parse_args()
    for kind in KINDS:
        count = 0
        for content in flips(kind, chosen.step):
            check_damaged(kind, content)
            count += 1
        print(f"{kind.name}: {count} flips of a bit, each refused or without effect", flush=True)
    options = settings(
        max_examples=chosen.examples, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    seed(chosen.seed)(options(given(damaged())(lambda one: check_damaged(*one))))()
    seed(chosen.seed)(options(given(altered())(lambda one: check_altered(*one))))()
    print(f"{chosen.examples} damaged and as many altered files, seed {chosen.seed}: each read or refused")


if __name__ == "__main__":
    main()
