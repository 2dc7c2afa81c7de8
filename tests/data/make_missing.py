"""Write the demonstration data with holes for make_lavaan_missing.R: python tests/data/make_missing.py FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

import msem

sys.path.insert(0, str(Path(__file__).parents[1]))
import holes


def main(folder: str) -> None:
    """One file for each set of holes, empty where a value is missing."""
    for name in holes.DATA:
        holes.punched(msem.load_demo(), name).to_csv(Path(folder, f"{name}.csv"), index=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
