"""Large two-level data, drawn in blocks: eight indicators, two factors per level."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from casedata import FloatArray, IntArray, cluster_part, factor_model, loadings_of, unit_part

VARIABLES, FACTORS = 8, 2
NAMES = [f"y{i + 1}" for i in range(VARIABLES)]
MODEL = factor_model(VARIABLES, FACTORS)
BLOCK = 250_000  # rows drawn at a time


def drawn_blocks(
    rows: int, clusters: int, shuffled: bool, seed: int, block: int = BLOCK
) -> Iterator[tuple[FloatArray, IntArray]]:
    """Values (rows x variables) and clusters of one block after the other.

    Clusters of equal size, one after the other; shuffled: every row of a cluster that is drawn at random.
    """
    rng = np.random.default_rng(seed)
    loadings = loadings_of(VARIABLES, FACTORS)
    between = cluster_part(rng, clusters, loadings)
    for start in range(0, rows, block):
        count = min(block, rows - start)
        in_turn = np.arange(start, start + count) * clusters // rows
        cluster = rng.integers(0, clusters, count) if shuffled else in_turn
        y = unit_part(rng, count, loadings)
        y += between[cluster]
        yield y, cluster


def save_arrays(folder: Path, rows: int, clusters: int, shuffled: bool, seed: int) -> None:
    """The data as two .npy files, written without holding more than a block beside them."""
    values = np.lib.format.open_memmap(folder / "values.npy", "w+", dtype=np.float64, shape=(VARIABLES, rows))
    ids = np.lib.format.open_memmap(folder / "clusters.npy", "w+", dtype=np.int64, shape=(rows,))
    start = 0
    for y, cluster in drawn_blocks(rows, clusters, shuffled, seed):
        stop = start + len(cluster)
        values[:, start:stop] = y.T
        ids[start:stop] = cluster
        start = stop


def load_frame(folder: Path) -> pd.DataFrame:
    """The data as pandas has them after reading any file: one block of floats, one of ids."""
    values = np.load(folder / "values.npy")
    frame = pd.DataFrame(values.T, columns=NAMES, copy=False)
    frame["cluster"] = np.load(folder / "clusters.npy")
    return frame
