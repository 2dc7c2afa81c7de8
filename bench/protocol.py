"""How the peers in Python are timed: the same steps for each, as `run.py` reads them."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd


def time_peer(
    version: str,
    whole_fit: Callable[[str, pd.DataFrame], Any],
    report: Callable[[Any, pd.DataFrame], Mapping[str, object]],
) -> None:
    """Time a peer on one case: python run_PEER.py model.lav data.csv warm.lav warm.csv result.txt.

    Starting Python, imports and reading the data are excluded, and a small fit beforehand takes the cost of first calls
    out. `report` says what has no part in the time.
    """
    model, data, warm_model, warm_data, result, *_ = sys.argv[1:]
    text, frame = Path(model).read_text(), pd.read_csv(data)
    with warnings.catch_warnings(record=True) as caught:
        whole_fit(Path(warm_model).read_text(), pd.read_csv(warm_data))
        caught.clear()
        start = time.perf_counter()
        fit = whole_fit(text, frame)
        seconds = time.perf_counter() - start
        notes = " | ".join(dict.fromkeys(" ".join(str(w.message).split()) for w in caught))
        values = {"version": version, "seconds": seconds, **report(fit, frame), "note": notes}
    Path(result).write_text("".join(f"{key}\t{value}\n" for key, value in values.items()))
