"""Figure of results/growth.csv: python bench/plot_growth.py (needs matplotlib)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from cases import BASE, GROWTH, VARIED, Design

HERE = Path(__file__).parent
FIGURE = HERE.parent / "docs" / "figures" / "growth.svg"
TITLES = {
    "rows": "number of rows N",
    "clusters": "number of clusters J, same N",
    "sizes": "number of distinct cluster sizes, same N and J",
    "variables": "number of indicators p",
}
STYLES = {
    "msem": {"color": "#1f5f8b", "marker": "o", "linestyle": "-"},
    "lavaan": {"color": "#c8602b", "marker": "s", "linestyle": "--"},
}


def line(table: pd.DataFrame, program: str, varied: str) -> pd.DataFrame:
    """Seconds of a program in the cases that differ from the base in nothing else."""
    designs: dict[str, Design] = {case.name: case.design for case in GROWTH if case.design is not None}
    found = [
        (getattr(designs[row["case"]], varied), row["seconds"])
        for _, row in table[(table["program"] == program) & table["seconds"].notna()].iterrows()
        if replace(designs[row["case"]], **{varied: getattr(BASE, varied)}) == BASE
    ]
    return pd.DataFrame(sorted(found), columns=[varied, "seconds"])


def short(number: int) -> str:
    """1,600 as 1.6k, 2,000,000 as 2M."""
    for unit, letter in ((1_000_000, "M"), (1_000, "k")):
        if number >= unit:
            return f"{number / unit:g}{letter}"
    return str(number)


def panel(axes: Axes, table: pd.DataFrame, varied: str) -> None:
    for program, style in STYLES.items():
        points = line(table, program, varied)
        version = table.loc[table["program"] == program, "version"].iloc[0]
        label = program if program == "msem" else f"{program} {version}"
        axes.loglog(points[varied], points["seconds"], label=label, markersize=4, **style)
    ticks = sorted(set(line(table, "msem", varied)[varied]))
    axes.set_xticks(ticks, list(map(short, ticks)), fontsize=8)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(TITLES[varied])
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    mpl.rcParams.update({"svg.hashsalt": "msem", "font.size": 9})
    table = pd.read_csv(HERE / "results" / "growth.csv")
    figure, places = plt.subplots(2, 2, figsize=(8, 6), sharey=True, layout="constrained")
    for axes, varied in zip(places.flat, VARIED.values(), strict=True):
        panel(axes, table, varied)
    for axes in places[:, 0]:
        axes.set_ylabel("seconds")
    places[0, 0].legend(frameon=False)
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, metadata={"Date": None})


if __name__ == "__main__":
    main()
