"""Which starting values lead to a maximum, and to the highest one, in samples that are hard.

    python bench/starts.py                 # 100 samples of each population
    python bench/starts.py --samples 20

Populations have one or two factors per level, few clusters and little variance between them. Every start of the engine
is tried in every sample: the first one, the restarts in their order, and the first one with factors that are unrelated,
which is what it was before regressions and covariances of factors were derived from those of their indicators.
Prints a Markdown table and writes `results/starts.csv`.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import msem
from msem.estimation.estimate import starts
from msem.estimation.objective import Objective
from msem.estimation.optimize import minimize

Floats = NDArray[np.float64]

HERE = Path(__file__).parent
SEED, ATTEMPT, SAME = 1, 60, 1e-3  # iterations of one attempt; difference in -2 log L that counts as none
NCLUSTERS, BETWEEN = (20, 40, 60), (0.01, 0.05, 0.2)
ONE = "level: 1\n fw =~ y1 + y2 + y3 + y4\nlevel: 2\n fb =~ y1 + y2 + y3 + y4"
TWO = """
level: 1
 fw =~ y1 + y2 + y3
 gw =~ y4 + y5 + y6
 gw ~ fw
level: 2
 fb =~ y1 + y2 + y3
 gb =~ y4 + y5 + y6
 gb ~ fb
"""
MODELS = {"one factor": ONE, "two factors": TWO}
NAMES = (
    "first",
    "cautious",
    "first, variances bounded",
    "cautious, variances bounded",
    "relations halved",
    "no relations",
    *(f"loadings rescaled {k}" for k in range(1, 5)),
)


def population(model: str, between: float) -> str:
    """A model text with values; `between` is the variance of the between factors, within ones have 1."""
    lines: list[str] = []
    for level, size in ((1, 1.0), (2, between)):
        f, g = ("fw", "gw") if level == 1 else ("fb", "gb")
        lines.append(f"level: {level}")
        for k in range(4 if model is ONE else 6):
            factor = f if model is ONE or k < 3 else g
            lines += [
                f" {factor} =~ {1 - 0.1 * (k % 3):.1f}*y{k + 1}",
                f" y{k + 1} ~~ {0.6 * size:.4g}*y{k + 1}",
            ]
        lines.append(f" {f} ~~ {size:.4g}*{f}")
        if model is TWO:
            lines += [f" {g} ~~ {0.8 * size:.4g}*{g}", f" {g} ~ 0.4*{f}"]
    return "\n".join(lines)


def unrelated(objective: Objective, theta: Floats) -> Floats:
    """The start with regressions and covariances of factors at 0 and their variances kept."""
    out = theta.copy()
    for level, implied in objective.moments(theta).items():
        latent = objective.table.latent(level, 1)
        for row in objective.table.block(level, 1):
            if not row.free or row.lhs not in latent or row.op == "=~":
                continue
            at = implied.at[row.lhs]
            out[row.free - 1] = implied.cov[at, at] if row.lhs == row.rhs else 0.0
    return out


def attempts(model: str, sample: Any) -> dict[str, tuple[bool, float, int]]:
    """Whether each start leads to a maximum, its value and the iterations."""
    fit = msem.sem(model, sample, se="none")
    objective, floor = fit.objective, -2 * fit.sample.llf - 1e-4
    every = dict(zip(NAMES, starts(objective, fit.sample), strict=True))
    every["first, factors unrelated"] = unrelated(objective, every["first"])
    out = {}
    for name, start in every.items():
        found = minimize(objective, start, max_iterations=ATTEMPT)
        out[name] = found.converged and not found.value < floor, found.value, len(found.diary)
    out["engine"] = fit.converged, fit.estimate.optimum.value, len(fit.estimate.optimum.diary)
    return out


def rows_of(samples: int) -> list[dict[str, object]]:
    """One row for each population and start."""
    rows: list[dict[str, object]] = []
    for (name, model), nclusters, between in itertools.product(MODELS.items(), NCLUSTERS, BETWEEN):
        drawn = msem.simulate(
            population(model, between), nclusters=nclusters, cluster_sizes=[3, 5, 8], seed=SEED,
            replications=samples, as_="statistics",
        )  # fmt: skip
        tried = [attempts(model, sample) for sample in drawn]
        best = [min((v for ok, v, _ in one.values() if ok), default=np.nan) for one in tried]
        for start in tried[0]:
            found = [one[start] for one in tried]
            ok = np.array([f[0] for f in found])
            highest = np.array([f[0] and f[1] < b + SAME for f, b in zip(found, best, strict=True)])
            rows.append(
                {"model": name, "clusters": nclusters, "between": between, "start": start, "samples": samples,
                 "converged": f"{ok.mean():.3f}", "highest": f"{highest.mean():.3f}",
                 "iterations": f"{np.mean([f[2] for f in found]):.1f}"}
            )  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=100)
    rows = rows_of(parser.parse_args().samples)
    with (HERE / "results" / "starts.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print("| start | converged | at the highest | iterations |\n|---|---|---|---|")
    for start in dict.fromkeys(row["start"] for row in rows):
        own = [row for row in rows if row["start"] == start]
        mean = {
            key: np.mean([float(str(row[key])) for row in own])
            for key in ("converged", "highest", "iterations")
        }
        print(f"| {start} | {mean['converged']:.3f} | {mean['highest']:.3f} | {mean['iterations']:.1f} |")


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main()
