"""Time msem and its peers on the same data, in one run, in alternation.

    python bench/run.py                   # lavaan
    python bench/run.py --peers lme4      # the cases that lme4 can fit; likewise statsmodels, semopy, openmx
    python bench/run.py --set growth

Prints a Markdown table and writes it, with versions and machine, to `results/`.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np

from cases import BY_NAME, SETS, Case
from study import cpu_model, show, write_table

HERE = Path(__file__).parent
COMMANDS = {
    "msem": [sys.executable, str(HERE / "run_msem.py")],
    "lavaan": ["Rscript", "--vanilla", str(HERE / "run_lavaan.R")],
    "openmx": ["Rscript", "--vanilla", str(HERE / "run_openmx.R")],
    "lme4": ["Rscript", "--vanilla", str(HERE / "run_lme4.R")],
    "statsmodels": [sys.executable, str(HERE / "run_statsmodels.py")],
    "semopy": [sys.executable, str(HERE / "run_semopy.py")],
}
PEERS = tuple(COMMANDS)[1:]
ROBUST = ("msem", "lavaan")  # programs with MLR
DEFAULT = ("complete", "shared")  # sets
QUICK = ("demo", "wide")
TIMES = ["seconds", "repeats", "ratio", "over_ml", "core_seconds", "peak_mb"]
SHOWN = ["case", "estimator", "program", "version", *TIMES, "logl", "gap", "chisq"]
MACHINE = ["date", "commit", "cpu", "cores", "os", "python", "numpy"]
FIELDS = [*SHOWN, "converged", "note", "r", *MACHINE]

Measured = dict[str, str]  # what one fit reports; without "seconds" it failed, and "note" says why
Row = dict[str, object]


def write_case(case: Case, folder: Path) -> list[str]:
    """Model text and data as files, for every program to read."""
    model, data = folder / f"{case.name}.lav", folder / f"{case.name}.csv"
    if not data.exists():
        model.write_text(case.model)
        case.make().to_csv(data, index=False)
    return [str(model), str(data)]


def run_process(command: list[str], log: Path, limit: float) -> tuple[str, int]:
    """Why the process failed ("" if it did not), and its peak memory in MiB."""
    with log.open("w") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        timer = threading.Timer(limit, process.kill)
        timer.start()
        _, status, usage = os.wait4(process.pid, 0)  # unlike Popen.wait, it gives this child's memory
        in_time = timer.is_alive()
        timer.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    peak = round(usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10))
    if process.returncode == 0:
        return "", peak
    lines = log.read_text().strip().splitlines() or ["no output"]
    return f"failed: {lines[-1].strip()}" if in_time else f"stopped after {limit:g} s at {peak} MiB", peak


def measure(program: str, case: Case, estimator: str, folder: Path, limit: float) -> Measured:
    """One fit in a process of its own."""
    result = folder / "result.txt"
    files = [*write_case(case, folder), *write_case(BY_NAME[case.warm], folder), str(result)]
    command = [*COMMANDS[program], *files, estimator, case.missing]
    failure, peak = run_process(command, folder / "log.txt", limit)
    if failure:
        return {"note": failure}
    reported = dict(line.split("\t", 1) for line in result.read_text().splitlines())
    return reported | {"peak_mb": str(peak)}


def run_case(
    case: Case, programs: list[str], estimators: list[str], repeats: int, folder: Path, limit: float
) -> list[Row]:
    """Alternate the programs, so that a busy minute of the machine falls on all of them."""
    runs: dict[tuple[str, str], list[Measured]] = {
        (estimator, p): []
        for estimator in estimators
        for p in programs
        if p in ("msem", *case.peers) and (estimator == "ML" or p in ROBUST)
    }
    for _ in range(repeats):
        for (estimator, program), measured in runs.items():
            if not measured or "seconds" in measured[-1]:
                latest = measure(program, case, estimator, folder, limit)
                measured.append(latest)
                took = latest.get("seconds", latest.get("note"))
                print(f"{case.name:16} {estimator:4} {program:11} {took}", flush=True)
    return summarise(case, runs)


def summarise(case: Case, runs: dict[tuple[str, str], list[Measured]]) -> list[Row]:
    """One row per program and estimator.

    With its time as a multiple of msem's and of its own for ML, and its distance from the best optimum.
    """
    rows = [
        program_row(case, program, measured) | {"estimator": estimator}
        for (estimator, program), measured in runs.items()
    ]
    best = max((float(str(row["logl"])) for row in rows if row["logl"]), default=np.nan)
    seconds = {(row["estimator"], row["program"]): row["seconds"] for row in rows}
    for row in rows:
        row["gap"] = f"{best - float(str(row['logl'])):.6f}" if row["logl"] else ""
        row["ratio"] = quotient(row["seconds"], seconds.get((row["estimator"], "msem")))
        if row["estimator"] != "ML":
            row["over_ml"] = quotient(row["seconds"], seconds.get(("ML", row["program"])))
    return rows


def quotient(one: object, other: object) -> str:
    """Ratio of two times, "" if one is not known."""
    return f"{float(str(one)) / float(str(other)):.3g}" if one and other else ""


def program_row(case: Case, program: str, measured: list[Measured]) -> Row:
    done = [m for m in measured if "seconds" in m]
    last = measured[-1]
    row: Row = {field: last.get(field, "") for field in FIELDS}
    for field in ("seconds", "core_seconds", "peak_mb"):
        values = [float(m[field]) for m in done if field in m]
        row[field] = f"{statistics.median(values):.4g}" if values else ""
    for field in ("logl", "chisq"):
        row[field] = f"{float(last[field]):.6f}" if field in last else ""
    return row | {"case": case.name, "program": program, "repeats": len(done)}


def machine() -> Row:
    """What the figures depend on besides the programs."""
    describe = ["git", "-C", str(HERE), "describe", "--always", "--dirty"]
    values = (
        datetime.datetime.now(datetime.UTC).date().isoformat(),
        subprocess.run(describe, capture_output=True, text=True, check=False).stdout.strip(),
        cpu_model(),
        os.cpu_count(),
        platform.platform(),
        platform.python_version(),
        np.__version__,
    )
    return dict(zip(MACHINE, values, strict=True))


def write_results(rows: list[Row], path: Path) -> None:
    write_table([{field: (row | machine())[field] for field in FIELDS} for row in rows], path)


def markdown(rows: list[Row]) -> str:
    """The columns that matter, and the notes below."""
    notes = [f"\n{row['case']}, {row['program']}: {row['note']}" for row in rows if row["note"]]
    return "\n".join([show([{field: row[field] for field in SHOWN} for row in rows]), *notes])


def chosen(names: list[str] | None, group: str | None, peers: list[str]) -> list[Case]:
    """Cases by name, or of a set; by default those of the usual sets in which a peer takes part."""
    if names:
        return [BY_NAME[name] for name in names]
    if group:
        return list(SETS[group])
    cases = [case for usual in DEFAULT for case in SETS[usual]]
    return [case for case in cases if peers == ["none"] or set(peers) & set(case.peers)]


def file_name(group: str | None, peers: list[str]) -> str:
    """Name of the result file: of the set, or of the peers."""
    return f"{group or ('latest' if peers == ['lavaan'] else '_'.join(peers))}.csv"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", choices=list(SETS), help=f"which cases; default: {' and '.join(DEFAULT)}")
    parser.add_argument("--cases", nargs="+", choices=list(BY_NAME), help="these cases instead")
    parser.add_argument("--peers", nargs="+", choices=["none", *PEERS], default=["lavaan"])
    parser.add_argument("--estimators", nargs="+", choices=["ML", "MLR"], default=["ML"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=float, default=900, help="seconds after which a process is stopped")
    parser.add_argument("--quick", action="store_true", help=f"one repeat of {' and '.join(QUICK)}")
    parser.add_argument("--output", type=Path, help="default: results/, named by the set or the peers")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    names = list(QUICK) if options.quick and not options.cases else options.cases
    cases = chosen(names, options.set, options.peers)
    programs = ["msem", *(peer for peer in options.peers if peer != "none")]
    output = options.output or HERE / "results" / file_name(options.set, options.peers)
    repeats = 1 if options.quick else options.repeats
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            rows += run_case(case, programs, options.estimators, repeats, Path(folder), options.limit)
            write_results(rows, output)  # what a long run has so far
    print(markdown(rows))


if __name__ == "__main__":
    main()
