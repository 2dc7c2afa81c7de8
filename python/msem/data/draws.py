"""Draws of samples, and how they are made again elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from msem import _core


@dataclass(frozen=True, eq=False)
class DrawsOrigin:
    """Draws with the way they are made, so that they can be made again by another process.

    Attributes
    ----------
    make : callable
        Can be pickled, which compiled draws cannot.
    """

    make: Callable[[], _core.Draws]

    @cached_property
    def draws(self) -> _core.Draws:
        """What is made, once."""
        return self.make()

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the compiled part."""
        return {"make": self.make}


def require_drawable(origin: DrawsOrigin) -> None:
    """Make the draws now, so that what is wrong with them is said where they are asked for."""
    _ = origin.draws
