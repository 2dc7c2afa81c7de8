"""Between correlations and variances with few clusters, with and without a penalty: `python bench/penalty.py --help`.

Three variables, clusters of 8 units, between variances .33 of which a common factor has .25, within correlations .4.
Two models of the between level: saturated, and one factor. Held against each other are the maximum among positive
semidefinite matrices (space="psd") and the penalized one (penalty="between").
"""

from __future__ import annotations

import argparse
import csv
import warnings
from pathlib import Path

import numpy as np

import msem

HERE = Path(__file__).parent
CLUSTERS = (10, 20, 40)
SIZE = 8
NAMES = ("y1", "y2", "y3")
FACTOR, RESIDUAL = 0.25, 0.08
SATURATED = "  y1 ~~ y1 + y2 + y3\n  y2 ~~ y2 + y3\n  y3 ~~ y3\n"
MODELS = {
    "saturated": f"level: 1\n{SATURATED}level: 2\n{SATURATED}",
    "factor": f"level: 1\n{SATURATED}level: 2\n  f =~ y1 + y2 + y3\n",
}
WAYS = {"psd": {"space": "psd"}, "penalty": {"penalty": "between"}}


def sample(rng: np.random.Generator, clusters: int) -> dict[str, np.ndarray]:
    """One sample of units as columns."""
    between = np.sqrt(FACTOR) * rng.normal(size=(clusters, 1)) + np.sqrt(RESIDUAL) * rng.normal(
        size=(clusters, 3)
    )
    root = np.linalg.cholesky(0.6 * np.eye(3) + 0.4)
    units = np.repeat(between, SIZE, axis=0) + rng.normal(size=(clusters * SIZE, 3)) @ root.T
    columns = dict(zip(NAMES, units.T, strict=True))
    return columns | {"cluster": np.repeat(np.arange(clusters), SIZE)}


def between_matrix(model: str, data: dict[str, np.ndarray], options: dict[str, str]) -> np.ndarray:
    """Implied between covariances; nan without a solution."""
    try:
        fit = msem.sem(model, data, cluster="cluster", se="none", **options)
    except msem.errors.MsemError:
        return np.full((3, 3), np.nan)
    return fit.implied.between.cov.to_numpy() if fit.converged else np.full((3, 3), np.nan)


def study(model: str, clusters: int, samples: int, seed: int) -> list[dict[str, object]]:
    """A row for each way."""
    rng = np.random.default_rng([seed, clusters])
    found: dict[str, list[np.ndarray]] = {way: [] for way in WAYS}
    for _ in range(samples):
        data = sample(rng, clusters)
        for way, options in WAYS.items():
            found[way].append(between_matrix(MODELS[model], data, options))
    true = FACTOR / (FACTOR + RESIDUAL)
    rows = []
    for way, matrices in found.items():
        cov = np.array(matrices)
        variance = np.diagonal(cov, axis1=1, axis2=2)
        deviation = np.sqrt(np.where(variance > 0, variance, np.nan))
        r = (cov / deviation[:, :, None] / deviation[:, None, :])[:, *np.tril_indices(3, -1)]
        rows.append(
            {
                "model": model,
                "clusters": clusters,
                "way": way,
                "samples": samples,
                "failed": int(np.isnan(cov[:, 0, 0]).sum()),
                "rmse_r": round(float(np.sqrt(np.nanmean((r - true) ** 2))), 3),
                "bias_r": round(float(np.nanmean(r) - true), 3),
                "extreme": round(float(np.nanmean(np.abs(r) > 0.99)), 3),
                "bias_variance": round(float(np.nanmean(variance) - FACTOR - RESIDUAL), 3),
            }
        )
    return rows


def main() -> None:
    """Run the study and write a row for each model, number of clusters and way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "penalty.csv")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = [
        row
        for model in MODELS
        for count in CLUSTERS
        for row in study(model, count, asked.samples, asked.seed)
    ]
    with asked.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
