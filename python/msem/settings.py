"""Numbers that a user gives: how many draws or replicates, which seed, how many threads."""

from __future__ import annotations

import operator
import os
import secrets
from typing import Any

MAX_SEED = 2**64


def require_whole(name: str, value: Any, least: int) -> int:
    """Refuse what is not a whole number, or a smaller one."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or operator.index(value) < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
    return operator.index(value)


def require_seed(seed: Any) -> int:
    """A seed as an integer below 2**64; a random one for None."""
    if seed is None:
        return secrets.randbits(63)
    if isinstance(seed, bool) or not hasattr(seed, "__index__") or not 0 <= operator.index(seed) < MAX_SEED:
        raise ValueError(f"seed must be a whole number from 0 to 2**64 - 1, or None, not {seed!r}")
    return operator.index(seed)


def require_threads(threads: Any) -> int:
    """A number of threads; by default one for each processor this process may use."""
    if threads is None:
        affinity = getattr(os, "sched_getaffinity", None)
        return len(affinity(0)) if affinity else os.cpu_count() or 1
    return require_whole("threads", threads, 1)
