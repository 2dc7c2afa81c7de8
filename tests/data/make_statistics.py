"""Sufficient statistics of a reference data set that cannot be included itself.

python tests/data/make_statistics.py path/to/demo_twolevel/data.csv
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd

from msem.data.complete_rows import sample_statistics
from msem.data.frames import clustered_data
from msem.model.variables import Variables

UNIT = ["y1", "y2", "y3", "x1", "x2", "x3"]
CLUSTER = ["w1", "w2"]
TARGET = Path(__file__).parent / "demo_twolevel_statistics.json"


def main(path: str) -> None:
    """Write the statistics of y1-y3 (both levels), x1-x3 (within) and w1, w2 (between)."""
    data = clustered_data(pd.read_csv(path), [*UNIT, *CLUSTER], "cluster")
    statistics = sample_statistics(data, Variables.of_units_and_clusters(UNIT, CLUSTER, 3))
    TARGET.write_text(json.dumps(statistics.to_dict()) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
