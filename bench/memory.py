"""Memory of this process by the kernel's account (Linux)."""

from __future__ import annotations

from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def _kilobytes(field: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1])


def resident() -> float:
    """Memory now, in MiB."""
    return _kilobytes("VmRSS:") / 1024


def peak() -> float:
    """Largest memory since the start of the process or the latest reset, in MiB."""
    return _kilobytes("VmHWM:") / 1024


def reset_peak() -> None:
    """Let the peak start again from what is in use now."""
    CLEAR.write_text("5")
