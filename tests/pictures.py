"""The pictures that are kept in tests/pictures/, from fixed numbers; run this file to draw them again.

Shapes alone are kept, without texts and legends, and compared after smoothing: fonts and antialiasing differ between
versions of matplotlib. What the texts say is tested where they are made.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

import msem
from msem.pictures import forest, heatmap, lines
from msem.resampling.profile import Limit, ProfileCurve

KEPT = Path(__file__).parent / "pictures"
DPI = 40
BLOCK = 2  # pixels that are averaged


def small_diagram():
    """With signs for most that can be shown."""
    model = """
    level: 1
      fw =~ 1*y1 + 0.8*y2 + y3
      fw ~ -0.4*x1 + x2
      y2 ~~ y3
    level: 2
      fb =~ 1*y1 + a*y2 + a*y3
      fb ~ w
      z ~ fb
    """
    return msem.diagram(model, means=True).draw()


def coefficients():
    keys = [(1, "fw", "=~", "y2"), (1, "fw", "~", "x"), (2, "fb", "=~", "y2"), (2, "fb", "~", "w")]
    index = pd.MultiIndex.from_tuples(keys, names=["level", "lhs", "op", "rhs"])
    est = np.array([0.8, 0.5, 0.7, -0.2])
    columns = {}
    for name, shift, se in (("separate", 0.0, 0.05), ("segregated", 0.02, 0.09)):
        columns |= {(name, "est"): est + shift, (name, "se"): np.full(4, se)}
        columns |= {
            (name, f"ci_{end}"): est + shift + k * se for end, k in (("lower", -1.96), ("upper", 1.96))
        }
    return forest.draw_coefficients(
        pd.DataFrame(columns, index=index), ["separate", "segregated"], None, "Estimate"
    )


def profile():
    at = np.linspace(0.6, 1.6, 21)
    curve = ProfileCurve("fb~~fb", 1.0, Limit(0.65), Limit(1.5), 2, 1, at, 14 * (np.log(at)) ** 2)
    return lines.draw_profile(curve, 0.95, 0.25, None)


def patterns():
    frame = pd.DataFrame({"y1": [True, True, False], "y2": [True, False, True], "x": True})
    return heatmap.draw_patterns(frame.assign(count=[80, 15, 5], share=[0.8, 0.15, 0.05]), "units", None)


PICTURES = (small_diagram, coefficients, profile, patterns)


def pixels(ax):
    """A picture as shades of grey from 0 to 1, in blocks."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.legend import Legend
    from matplotlib.text import Text

    if ax.axison:  # room for texts depends on the font
        ax.figure.set_layout_engine("none")
        ax.set_position((0.1, 0.1, 0.8, 0.8))
    for artist in (*ax.figure.findobj(Text), *ax.figure.findobj(Legend)):
        artist.set_visible(False)
    ax.figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(ax.figure)
    canvas.draw()
    return smoothed(np.asarray(canvas.buffer_rgba())[..., :3].mean(axis=2) / 255)


def smoothed(grey):
    height, width = (n // BLOCK * BLOCK for n in grey.shape)
    return grey[:height, :width].reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK).mean(axis=(1, 3))


def kept(name):
    from matplotlib.image import imread

    return np.asarray(imread(KEPT / f"{name}.png"), dtype=float)


def difference(one, other):
    """Root mean square of the differences of shades."""
    return float("inf") if one.shape != other.shape else float(np.sqrt(np.mean((one - other) ** 2)))


if __name__ == "__main__":
    from PIL import Image

    KEPT.mkdir(exist_ok=True)
    for draw in PICTURES:
        Image.fromarray(np.rint(255 * pixels(draw())).astype(np.uint8)).save(KEPT / f"{draw.__name__}.png")
