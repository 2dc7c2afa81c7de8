"""Time models with random slopes, beside lme4 and the cluster means of pandas.

    python bench/slopes.py              # everything
    python bench/slopes.py --rows 0     # without the 10 million rows

Frame in, summary with estimates, standard errors and chi-square out, against `lmer()` and its summary on the same data.
The
log-likelihoods stand beside the times. Prints a Markdown table and writes `results/slopes.csv`.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import msem
from study import RESULTS, machine, write_table

HERE = Path(__file__).parent
SEED = 1
SLOPE = 'level: 1\n  y ~ rv("s")*x\nlevel: 2\n  y ~~ y + s\n'
FACTOR = """
level: 1
  fw =~ y1 + y2 + y3
  fw ~ rv("s")*x + v
level: 2
  fb =~ y1 + y2 + y3
  fb + s ~ w
  fb ~~ s
"""


def sample(nclusters: int, size: int, indicators: int = 0, seed: int = SEED) -> pd.DataFrame:
    """Clusters of one size with a random intercept and slope; of a factor, if there are indicators."""
    rng = np.random.default_rng(seed)
    code = np.repeat(np.arange(nclusters), size)
    n = len(code)
    effects = rng.normal(size=(nclusters, 2)) * [1, 0.5]
    x, v, w = rng.normal(size=n), rng.normal(size=n), rng.normal(size=nclusters)
    value = 0.3 * v + effects[code, 0] + (0.4 + 0.2 * w[code] + effects[code, 1]) * x
    if not indicators:
        return pd.DataFrame({"y": value + rng.normal(size=n), "x": x, "cluster": code})
    value = value + 0.8 * rng.normal(size=n)
    columns = {
        f"y{k + 1}": loading * value + 0.4 * rng.normal(size=nclusters)[code] + rng.normal(size=n)
        for k, loading in enumerate(np.linspace(1, 0.6, indicators))
    }
    return pd.DataFrame(columns | {"x": x, "v": v, "w": w[code], "cluster": code})


def fastest(work: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Least seconds over the repeats, and what came out."""
    seconds, out = np.inf, None
    for _ in range(repeats):
        begun = time.perf_counter()
        out = work()
        seconds = min(seconds, time.perf_counter() - begun)
    return seconds, out


def of_msem(model: str, data: pd.DataFrame, repeats: int) -> tuple[float, float]:
    """Seconds from frame to summary, and log-likelihood."""

    def work() -> msem.Fit:
        fit = msem.sem(model, data, cluster="cluster")
        fit.summary()
        return fit

    seconds, fit = fastest(work, repeats)
    return seconds, fit.llf


def of_lme4(data: pd.DataFrame) -> tuple[float, float, str]:
    """Seconds of `lmer()` and its summary, log-likelihood and version."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder, name)) for name in ("data.csv", "warm.csv", "result.txt")]
        data.to_csv(paths[0], index=False)
        sample(30, 5).to_csv(paths[1], index=False)
        subprocess.run(["Rscript", str(HERE / "run_lme4_slopes.R"), *paths], check=True)
        found = dict(line.split("\t") for line in Path(paths[2]).read_text().splitlines())
    return float(found["seconds"]), float(found["logl"]), found["version"]


def rows_of(repeats: int, millions: int) -> list[dict[str, object]]:
    """One row for each case and program."""
    rows: list[dict[str, object]] = []
    seconds, llf = of_msem(FACTOR, sample(200, 12, 3), max(repeats, 5))
    rows.append({"case": "factor", "program": "msem", "seconds": seconds, "logl": llf})
    for case, nclusters, size in (("slope", 200, 12), ("slope_large", 5000, 20)):
        data = sample(nclusters, size)
        seconds, llf = of_msem(SLOPE, data, repeats)
        rows.append({"case": case, "program": "msem", "seconds": seconds, "logl": llf})
        if shutil.which("Rscript"):
            theirs, their_llf, version = of_lme4(data)
            rows.append({"case": case, "program": f"lme4 {version}", "seconds": theirs, "logl": their_llf})
            rows[-1]["ratio"] = theirs / seconds
    if millions:
        data = sample(millions * 50_000, 20)
        seconds, llf = of_msem(SLOPE, data, 1)
        rows.append({"case": f"{millions} million rows", "program": "msem", "seconds": seconds, "logl": llf})
        theirs, _ = fastest(lambda: data.groupby("cluster").mean(), 1)
        rows.append({"case": f"{millions} million rows", "program": "pandas groupby().mean()"})
        rows[-1] |= {"seconds": theirs, "ratio": theirs / seconds}
    return rows


def main() -> None:
    """Run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--rows", type=int, default=10, help="millions of rows of the largest case; 0: without"
    )
    arguments = parser.parse_args()
    rows = rows_of(arguments.repeats, arguments.rows)
    names = ["case", "program", "seconds", "ratio", "logl"]
    print("| case | program | seconds | ratio | log-likelihood |\n|---|---|---|---|---|")
    for row in rows:
        ratio = f"{row['ratio']:.2g}" if "ratio" in row else ""
        logl = f"{row['logl']:.6f}" if "logl" in row else ""
        print(f"| {row['case']} | {row['program']} | {row['seconds']:.4f} | {ratio} | {logl} |")
    about = machine()
    write_table([{name: row.get(name, "") for name in names} | about for row in rows], RESULTS / "slopes.csv")


if __name__ == "__main__":
    main()
