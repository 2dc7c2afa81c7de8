"""Figure and tables of results/montecarlo.csv: python bench/plot_montecarlo.py (needs matplotlib)."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

HERE = Path(__file__).parent
FIGURE = HERE.parent / "docs" / "figures" / "simulation.svg"
TESTS = {
    "segregated ml: standard": "separate, naive",
    "segregated likelihood: likelihood_ratio": "segregated, likelihood",
    "segregated likelihood, robust: mean_scaled": "segregated, likelihood, robust",
    "segregated ml: mean_variance_adjusted": "segregated, ML, adjusted",
    "segregated ml, robust: mean_variance_adjusted": "segregated, ML, robust",
    "segregated uls: mean_variance_adjusted": "segregated, ULS, adjusted",
    "segregated uls, robust: mean_variance_adjusted": "segregated, ULS, robust",
    "ML": "simultaneous, ML",
    "MLR": "simultaneous, MLR",
}
INTERVALS = {
    "separate (naive)": "separate, naive",
    "segregated likelihood": "segregated, likelihood",
    "segregated likelihood, robust": "segregated, likelihood, robust",
    "segregated ml": "segregated, ML",
    "segregated ml, robust": "segregated, ML, robust",
    "segregated uls": "segregated, ULS",
    "segregated uls, robust": "segregated, ULS, robust",
    "ML": "simultaneous, ML",
    "MLR": "simultaneous, MLR",
}
MARKERS = {50: "o", 100: "s", 200: "^"}
NORMAL, SKEWED = "#1f5f8b", "#c8602b"


def panel(axes: Axes, table: pd.DataFrame, labels: dict[str, str], nominal: float) -> None:
    """Dots by method: shape of the marker for the number of clusters, colour for the distribution."""
    axes.axvline(nominal, color="0.6", linewidth=0.8)
    for place, method in enumerate(reversed(labels)):
        for _, row in table[table["method"] == method].iterrows():
            normal = row["shape"] == "normal"
            shift = 0.14 if normal else -0.14
            axes.plot(
                row["value"],
                place + shift,
                MARKERS[int(row["nclusters"])],
                color=NORMAL if normal else SKEWED,
                markersize=5,
                fillstyle="full" if normal else "none",
            )
    axes.set_yticks(range(len(labels)), list(reversed(labels.values())))
    axes.grid(axis="x", color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def markdown(table: pd.DataFrame, labels: dict[str, str]) -> str:
    """Rates by method, for each distribution and number of clusters."""
    columns = [(shape, count) for shape in ("normal", "skewed") for count in MARKERS]
    lines = ["| | " + " | ".join(f"{shape}, {count}" for shape, count in columns) + " |"]
    lines.append("|---|" + "---|" * len(columns))
    found = table.set_index(["method", "shape", "nclusters"])["value"].to_dict()
    for method, label in labels.items():
        cells = [f"{found[method, *column]:.3f}".lstrip("0") for column in columns]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Write the figure and print the tables."""
    mpl.rcParams.update({"svg.hashsalt": "msem", "font.size": 9})
    table = pd.read_csv(HERE / "results" / "montecarlo.csv")
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    level = table["of"].isin(["between", "both"])
    panel(left, table[(table["what"] == "rejection") & level], TESTS, 0.05)
    left.set_xscale("symlog", linthresh=0.2)
    left.set_xlim(0, 1.1)
    left.set_xticks([0, 0.05, 0.1, 0.2, 0.5, 1], ["0", ".05", ".10", ".20", ".50", "1"])
    left.set_title("Rejections of a true model, 5% level", fontsize=10)
    loadings = table[(table["what"] == "coverage") & (table["of"] == "fb=~y2.l2")]
    panel(right, loadings, INTERVALS, 0.95)
    right.set_title("Coverage of 95% intervals, between loading", fontsize=10)
    for count, marker in MARKERS.items():
        right.plot([], [], marker, color="0.3", label=f"{count} clusters", markersize=5)
    right.plot([], [], "o", color=NORMAL, label="normal", markersize=5)
    right.plot([], [], "o", color=SKEWED, fillstyle="none", label="skewed", markersize=5)
    right.legend(loc="center left", fontsize=8, frameon=True)
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, metadata={"Date": None})
    print(markdown(table[(table["what"] == "rejection") & level], TESTS), end="\n\n")
    for name in ("fb=~y2.l2", "fb~~fb.l2"):
        print(markdown(table[(table["what"] == "coverage") & (table["of"] == name)], INTERVALS), end="\n\n")


if __name__ == "__main__":
    main()
