"""A line on the terminal that says how far a long computation has come."""

from __future__ import annotations

import functools
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import Any, TextIO

PATIENCE = 1.0  # seconds before anything is shown
PAUSE = 0.1  # seconds between updates
CHUNK_SECONDS = 0.2  # of work between looks at whether the user wants to stop


@functools.cache
def _bar() -> Any:
    """The class of bars: on a terminal or in a notebook, whichever there is. It starts no thread and no process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where a notebook has no widgets the bar is text
        from tqdm.auto import tqdm

    kind = type("Bar", (tqdm,), {"monitor_interval": 0})
    kind.set_lock(threading.RLock())  # type: ignore[attr-defined]
    return kind


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
        self._bar: Any = None
        if show:
            self._bar = _bar()(
                desc=title,
                total=total,
                file=sys.stderr if stream is None else stream,
                delay=PATIENCE,
                mininterval=PAUSE,
            )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, done: int) -> None:
        """Show that so many of the total are done."""
        if self._bar is not None:
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
