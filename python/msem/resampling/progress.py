"""A line on the terminal that says how far a long computation has come."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

PATIENCE = 1.0  # seconds before anything is shown
PAUSE = 0.1  # seconds between updates
CHUNK_SECONDS = 0.2  # of work between looks at whether the user wants to stop


class _Bar(tqdm):  # type: ignore[type-arg]
    """A bar that starts no thread and no process of its own."""

    monitor_interval = 0


_Bar.set_lock(threading.RLock())


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
        self._bar = _Bar(
            desc=title,
            total=total,
            disable=not show,
            file=sys.stderr if stream is None else stream,
            delay=PATIENCE,
            mininterval=PAUSE,
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def update(self, done: int) -> None:
        """Show that so many of the total are done."""
        self._bar.update(done - self._bar.n)


QUIET = Progress("", 1, False)


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
