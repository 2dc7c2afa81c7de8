"""Time `msem.summarize` of a directory of Parquet files against merely reading them, and take its memory.

    python bench/stream.py                                        # 100,000,000 rows x 8 variables, about 7 GB on disk
    python bench/stream.py --rows 2_000_000 --clusters 20_000     # a small one
    python bench/stream.py --shuffled                             # clusters in random order

The reader is pyarrow's: the same columns, batch by batch, in all threads, the rows only counted. Each run is a process
of its own, in alternation; peak memory is that of the process (Linux). Prints a Markdown table and writes
`results/stream.csv` or `results/stream_shuffled.csv`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet

import memory
import msem
from columnar import MODEL, NAMES, drawn_blocks
from run import machine, quotient, run_process
from study import show, write_table

HERE = Path(__file__).parent
SEED = 1
PART = 5_000_000  # rows of a file


def write_parts(folder: Path, rows: int, clusters: int, shuffled: bool) -> int:
    """Write the data in files, a row group for each block that is drawn; bytes on disk."""
    schema = pa.schema([(name, pa.float64()) for name in NAMES] + [("cluster", pa.int64())])
    writer, written = None, 0
    for y, cluster in drawn_blocks(rows, clusters, shuffled, SEED):
        if writer is None or written // PART != (written - 1) // PART:
            if writer is not None:
                writer.close()
            path = folder / f"part{written // PART:04}.parquet"
            writer = pa.parquet.ParquetWriter(path, schema, use_dictionary=False)
        columns = [*(pa.array(column) for column in y.T), pa.array(cluster)]
        writer.write_table(pa.table(columns, schema=schema))
        written += len(cluster)
    if writer is not None:
        writer.close()
    return sum(path.stat().st_size for path in folder.iterdir())


def read(folder: Path) -> dict[str, Any]:
    """Read all columns, batch by batch."""
    start = time.perf_counter()
    scanner = pa.dataset.dataset(folder).scanner(columns=[*NAMES, "cluster"])
    rows = sum(batch.num_rows for batch in scanner.to_batches())
    return {"seconds": time.perf_counter() - start, "rows": rows}


def summarize(folder: Path) -> dict[str, Any]:
    """Reduce the files to statistics of clusters, and fit the model to them."""
    start = time.perf_counter()
    found = msem.summarize(folder, cluster="cluster")
    seconds = time.perf_counter() - start
    fit = msem.sem(MODEL, found)
    fit.summary(fit_measures=True)
    return {
        "seconds": seconds,
        "rows": int(found.nobs),
        "fit_seconds": time.perf_counter() - start - seconds,
        "logl": fit.llf,
    }


TASKS = {"read": read, "summarize": summarize}


def run_task(task: str, folder: Path, scratch: Path) -> dict[str, Any]:
    """One task in a process of its own."""
    command = [sys.executable, __file__, "--task", task, "--folder", str(folder)]
    log = scratch / "log.txt"
    failure, _ = run_process(command, log, 36_000)
    if failure:
        raise SystemExit(f"{task}: {failure}")
    found: dict[str, Any] = json.loads(log.read_text().splitlines()[-1])
    print(f"{task:10} {found['seconds']:.2f} s, at most {found['peak_mb']:.0f} MiB", flush=True)
    return found


def measure(folder: Path, scratch: Path, repeats: int) -> list[dict[str, object]]:
    runs: dict[str, list[dict[str, Any]]] = {task: [] for task in TASKS}
    for _ in range(repeats):
        for task in TASKS:
            runs[task].append(run_task(task, folder, scratch))
    seconds = {task: statistics.median(run["seconds"] for run in found) for task, found in runs.items()}
    return [
        {
            "task": task,
            "seconds": f"{seconds[task]:.4g}",
            "repeats": repeats,
            "ratio": quotient(seconds[task], seconds["read"]),
            "million_rows_per_second": f"{found[-1]['rows'] / seconds[task] / 1e6:.3g}",
            "peak_mb": round(max(run["peak_mb"] for run in found)),
            "python_mb": round(found[-1]["python_mb"]),
            "fit_seconds": f"{found[-1]['fit_seconds']:.3g}" if "fit_seconds" in found[-1] else "",
            "logl": f"{found[-1]['logl']:.6f}" if "logl" in found[-1] else "",
        }
        for task, found in runs.items()
    ]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--clusters", type=int, default=500_000)
    parser.add_argument("--shuffled", action="store_true", help="every row of a cluster drawn at random")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the files go for a while (72 bytes a row)")
    parser.add_argument("--output", type=Path, help="default: see above")
    parser.add_argument("--task", choices=list(TASKS), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if options.task:
        before = memory.resident()
        found = TASKS[options.task](options.folder)
        print(json.dumps(found | {"peak_mb": memory.peak(), "python_mb": before}))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder, scratch = Path(name, "data"), Path(name)
        folder.mkdir()
        size = write_parts(folder, options.rows, options.clusters, options.shuffled)
        print(f"{options.rows:,} rows in {size / 2**30:.2f} GiB", flush=True)
        rows = measure(folder, scratch, options.repeats)
    about: dict[str, object] = {
        "rows": options.rows,
        "clusters": options.clusters,
        "order": "shuffled" if options.shuffled else "sorted",
        "disk_mb": round(size / 2**20),
        "pyarrow": pa.__version__,
        "load": f"{os.getloadavg()[0]:.1f}",
    }
    name = "stream_shuffled.csv" if options.shuffled else "stream.csv"
    write_table([row | about | machine() for row in rows], options.output or HERE / "results" / name)
    print(show(rows))


if __name__ == "__main__":
    main()
