"""Figure of results/maxima.csv: python bench/plot_maxima.py (needs matplotlib)."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib import pyplot as plt

HERE = Path(__file__).parent
FIGURE = HERE.parent / "docs" / "figures" / "maxima.svg"
PARTS = {"ok": "#1f5f8b", "improper": "#7fb0d0", "boundary": "#e0b48c"}
LABELS = {
    "ok": "ok",
    "improper": "improper: a negative residual variance",
    "boundary": "boundary: among positive semidefinite matrices",
}


def main() -> None:
    mpl.rcParams |= {"svg.hashsalt": "maxima", "font.size": 9}
    found = pd.read_csv(HERE / "results" / "maxima.csv")
    figure, axes = plt.subplots(1, 2, figsize=(8, 3), sharey=True)
    for panel, (shape, part) in zip(axes, found.groupby("sizes"), strict=True):
        counts = sorted(part["clusters"].unique())
        places = range(len(counts))
        below = [0.0] * len(counts)
        for status, colour in PARTS.items():
            shares = [100 * (part[part["clusters"] == n]["status"] == status).mean() for n in counts]
            panel.bar(places, shares, bottom=below, color=colour, width=0.7, label=LABELS[status])
            below = [a + b for a, b in zip(below, shares, strict=True)]
        peer = [100 * part[part["clusters"] == n]["lavaan"].dropna().astype(float).mean() for n in counts]
        panel.plot(places, peer, "D", color="black", markersize=5, label="lavaan converges")
        panel.set_xticks(list(places), [f"{n:.0f}" for n in counts])
        panel.set_xlabel("clusters")
        panel.set_title("clusters of 5" if shape == "balanced" else "clusters of 2 to 40", fontsize=9)
        panel.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("samples, %")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=2, frameon=False)
    figure.tight_layout(rect=(0, 0.16, 1, 1))
    figure.savefig(FIGURE, metadata={"Date": None})


if __name__ == "__main__":
    main()
