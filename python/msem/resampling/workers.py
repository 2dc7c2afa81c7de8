"""Batches of work on other processes or machines, through whatever client the user has of them.

Nothing is known of a client but that ``client.submit(function, *arguments)`` returns something with ``result()`` and
``cancel()``, as `concurrent.futures` executors and `distributed.Client` have it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol

from msem.errors import ArgumentError

BATCH = 32  # fits that are sent together: a few milliseconds of work at least, and enough batches for many workers


class Future(Protocol):
    """A result that is to come."""

    def result(self) -> Any:
        """Wait for it; the exception of the work is raised."""

    def cancel(self) -> Any:
        """Take the work back if it has not begun."""


class Client(Protocol):
    """Something that does work elsewhere."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future:
        """Begin work."""


def require_client(client: Any) -> None:
    """Refuse what cannot be given work.

    Raises
    ------
    TypeError
        Naming what a client has.
    """
    if client is not None and not callable(getattr(client, "submit", None)):
        raise ArgumentError(
            "a client has a method submit, as distributed.Client and concurrent.futures.ProcessPoolExecutor have, "
            f"not {type(client).__name__}"
        )


def ranges(first: int, last: int) -> list[tuple[int, int]]:
    """Ranges of a batch each. They do not depend on the workers, so that neither does anything else."""
    return [(k, min(k + BATCH, last)) for k in range(first, last, BATCH)]


def spread(
    client: Client, work: Callable[..., Any], shared: Any, calls: Sequence[tuple[Any, ...]]
) -> Generator[Any, None, None]:
    """What ``work(shared, *call)`` returns for each call, in their order, whatever order they are done in.

    When it is closed before its end, or interrupted, work that has not begun is taken back.
    """
    options: dict[str, Any] = {}
    if hasattr(client, "scatter"):  # Dask, for which the names of results need no hash
        options = {"pure": False}
        shared = _shared_by_workers(client, shared)
    waiting = [client.submit(work, shared, *call, **options) for call in calls]
    try:
        while waiting:
            found = waiting[0].result()
            waiting.pop(0)
            yield found
    finally:
        for future in waiting:
            future.cancel()


def _shared_by_workers(client: Any, shared: Any) -> Any:
    """What Dask sends once to each worker that needs it.

    As the result of a task, of which the scheduler keeps the arguments: `scatter` would leave the only copies with some
    workers, and they would be lost with them.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
        return client.submit(_given, shared, pure=False)


def _given(shared: Any) -> Any:
    return shared
