"""A line on the terminal that says how far a long computation has come."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TextIO

PATIENCE = 1.0  # seconds before anything is shown
PAUSE = 0.1  # seconds between updates
WIDTH = 30
CHUNK_SECONDS = 0.2  # of work between looks at whether the user wants to stop


class Progress:
    """A bar on the standard error stream; nothing is written before a second has passed.

    Parameters
    ----------
    title : str
    total : int
    show : bool
        False: never write.
    stream : text file, optional
        Default: the standard error stream.
    """

    def __init__(self, title: str, total: int, show: bool = True, stream: TextIO | None = None) -> None:
        self._title = title
        self._total = total
        self._show = show
        self._stream = sys.stderr if stream is None else stream
        self._started = time.monotonic()
        self._shown = -PAUSE

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown > 0:
            self._stream.write("\n")
            self._stream.flush()

    def update(self, done: int) -> None:
        """Show that so many of the total are done."""
        elapsed = time.monotonic() - self._started
        if not self._show or elapsed < PATIENCE or not done:
            return
        if elapsed < self._shown + PAUSE and done < self._total:
            return
        filled = WIDTH * done // self._total
        left = elapsed * (self._total - done) / done
        bar = "=" * filled + " " * (WIDTH - filled)
        self._stream.write(f"\r{self._title} [{bar}] {done}/{self._total}, {left:.0f} s left ")
        self._stream.flush()
        self._shown = elapsed


def chunks(count: int, threads: int) -> Iterator[tuple[int, int]]:
    """Ranges of `count` pieces of work that take about `CHUNK_SECONDS` each, so that the user can interrupt."""
    first, size = 0, 8 * threads
    while first < count:
        last = min(first + size, count)
        began = time.monotonic()
        yield first, last
        taken = time.monotonic() - began
        size = max(threads, int(size * min(4.0, CHUNK_SECONDS / max(taken, 1e-6))))
        first = last
