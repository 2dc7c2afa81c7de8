"""Draw the pictures of a page: run its Python blocks, and save what each leaves in `picture` or `ax`.

python bench/gallery.py [PAGE ...]      default: docs/pictures.md
"""

import re
import sys
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image

mpl.use("Agg")

DOCS = Path(__file__).parents[1] / "docs"
PIECE = re.compile(
    r"^```python\n(?P<code>.*?)^```|!\[[^\]]*\]\((?P<image>figures/[^)]+)\)", re.DOTALL | re.MULTILINE
)
DPI = 120


def draw(page):
    names: dict = {}
    for piece in PIECE.finditer(page.read_text(encoding="utf-8")):
        if piece["code"]:
            for name in ("picture", "ax"):
                names.pop(name, None)
            exec(compile(piece["code"], page.name, "exec"), names)
        else:
            path = page.parent / piece["image"]
            save(names["picture"] if "picture" in names else names["ax"], path)
            print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB")


def save(made, path):
    """A diagram as it saves itself; a plot as a PNG of few colours."""
    if hasattr(made, "save"):
        made.save(path)
        return
    figure = np.atleast_1d(made)[0].figure
    out = BytesIO()
    figure.savefig(out, dpi=DPI)
    Image.open(out).convert("RGB").quantize(64).save(path, optimize=True)
    mpl.pyplot.close(figure)


if __name__ == "__main__":
    import matplotlib.pyplot

    for page in map(Path, sys.argv[1:] or [DOCS / "pictures.md"]):
        draw(page)
