"""Measure what a build of the core costs: minutes of processor and the memory of the greatest compiler process.

    python bench/build.py                          # this checkout, for this machine's processor
    python bench/build.py --builds all             # as in wheels
    python bench/build.py --source ../old --units  # another checkout; the time of each unit, too

Configures and compiles from scratch in a temporary directory, or one that is kept, prints a line and adds it to
`results/build.csv`. Times are of the processor, not of the clock, so that other programs on the machine count little.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import datetime
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent


def spent() -> float:
    """Seconds of processor of the processes that have been waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def launch(log: Path, command: list[str]) -> int:
    """Run one compiler and note what it took."""
    status = subprocess.run(command, check=False).returncode
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    unit = command[command.index("-c") + 1] if "-c" in command else command[-1]
    with log.open("a") as file:
        file.write(json.dumps({"unit": unit, "seconds": spent(), "gib": memory}) + "\n")
    return status


def cpu_model() -> str:
    """Name of the processor, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def compiler(cache: Path) -> str:
    """First line of what the compiler of a build says about itself."""
    entry = next(line for line in cache.read_text().splitlines() if line.startswith("CMAKE_CXX_COMPILER:"))
    said = subprocess.run([entry.partition("=")[2], "--version"], capture_output=True, text=True, check=True)
    return said.stdout.splitlines()[0]


def measure(source: Path, builds: str, jobs: int, units: bool, directory: Path | None) -> dict[str, object]:
    """One row: the costs of a build of `source` from scratch."""
    cmake_dir = subprocess.run(
        [sys.executable, "-m", "pybind11", "--cmakedir"], capture_output=True, text=True, check=True
    ).stdout.strip()
    with contextlib.ExitStack() as stack:
        scratch = directory or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        build, log = Path(scratch, "build"), Path(scratch, "log")
        launcher = f"{sys.executable};{Path(__file__).resolve()};--log;{log};--"
        options = {
            "CMAKE_BUILD_TYPE": "Release",
            "CMAKE_CXX_COMPILER_LAUNCHER": launcher,
            "MSEM_BUILDS": builds,
            "Python_EXECUTABLE": sys.executable,
            "pybind11_DIR": cmake_dir,
        }
        configure = ["cmake", "-S", str(source), "-B", str(build), "-G", "Ninja"]
        before = spent()
        subprocess.run([*configure, *(f"-D{key}={value}" for key, value in options.items())], check=True)
        subprocess.run(["cmake", "--build", str(build), "-j", str(jobs)], check=True)
        seconds = spent() - before
        compiled = [json.loads(line) for line in log.read_text().splitlines()]
        made_by = compiler(build / "CMakeCache.txt")
    if units:
        for one in sorted(compiled, key=lambda one: one["seconds"]):
            print(f"{one['seconds']:8.1f} s {one['gib']:6.2f} GiB  {one['unit']}")
    commit = subprocess.run(
        ["git", "-C", str(source), "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "commit": commit.stdout.strip(),
        "builds": builds,
        "units": len(compiled),
        "cpu_minutes": f"{seconds / 60:.2f}",
        "peak_gib": f"{max(one['gib'] for one in compiled):.2f}",
        "seconds_of_greatest_unit": f"{max(one['seconds'] for one in compiled):.1f}",
        "date": datetime.date.today().isoformat(),
        "compiler": made_by,
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, default=HERE.parent)
    parser.add_argument("--builds", choices=["native", "all"], default="native")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--units", action="store_true", help="print the costs of each compiled unit")
    parser.add_argument("--directory", type=Path, help="new directory for the build, which is kept")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "build.csv")
    parser.add_argument("--log", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("command", nargs="*", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.log is not None:
        sys.exit(launch(given.log, given.command))
    row = measure(given.source.resolve(), given.builds, given.jobs, given.units, given.directory)
    new = not given.output.exists()
    with given.output.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)
    print(", ".join(f"{key} {value}" for key, value in row.items()))


if __name__ == "__main__":
    main()
