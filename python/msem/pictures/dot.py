"""A diagram as text for Graphviz."""

from __future__ import annotations

from collections.abc import Iterator

from msem.pictures.paint import colour_of, width_of
from msem.pictures.scene import DrawnArrow, DrawnNode, Scene, below

SHAPES = {"observed": "box", "latent": "ellipse", "part": "ellipse"}


def dot_text(scene: Scene, note: str) -> str:
    """Write a scene in the language of Graphviz, with the places of nodes in points.

    Parameters
    ----------
    scene : Scene
    note : str
        Label of the graph.
    """
    return "\n".join([*_lines(scene, note), ""])


def _lines(scene: Scene, note: str) -> Iterator[str]:
    yield "digraph model {"
    yield f"  graph [label={_quoted(note)}, labeljust=l, fontsize=9, splines=line, newrank=true];"
    yield '  node [fontsize=10, margin="0.05,0.03", color="#222222"];'
    yield "  edge [fontsize=8, arrowsize=0.6];"
    blocks = dict.fromkeys((node.level, node.group) for node in scene.nodes)
    for (level, group), panel in zip(blocks, scene.panels, strict=True):
        yield f"  subgraph cluster_g{group}_l{level} {{"
        yield f"    label={_quoted(panel.title)};"
        for node in scene.nodes:
            if (node.level, node.group) == (level, group):
                yield f"    {_node(node)};"
        yield "  }"
    for arrow in scene.arrows:
        yield from (f"  {line};" for line in _arrow(arrow))
    for node in scene.nodes:
        lower = below(node, scene.nodes)
        if lower is not None:
            part, whole = (_id(node.node.name, level, node.group) for level in (node.level, lower.level))
            yield f"  {part} -> {whole} [dir=none, style=dotted];"
    yield "}"


def _node(node: DrawnNode) -> str:
    place = node.place
    looks = {
        "label": node.node.name,
        "shape": SHAPES[node.node.shape],
        "pos": f"{72 * place.x:.1f},{72 * place.y:.1f}!",
        "width": f"{place.width:.2f}",
        "height": f"{place.height:.2f}",
    }
    if node.node.shape == "part":
        looks["style"] = "dashed"
    return f"{_id(node.node.name, node.level, node.group)} [{_looks(looks)}]"


def _arrow(drawn: DrawnArrow) -> Iterator[str]:
    arrow = drawn.arrow
    source, target = (_id(name, drawn.level, drawn.group) for name in (arrow.source, arrow.target))
    looks = {"label": " ".join(part for part in (arrow.label.replace("\n", " "), arrow.mark) if part)}
    looks["color"] = colour_of(arrow)
    looks["penwidth"] = f"{width_of(arrow):.2f}"
    if arrow.fixed and arrow.kind != "variance":
        looks["style"] = "dashed"
    if arrow.slope:
        looks |= {"dir": "both", "arrowtail": "dot"}
    if arrow.kind == "mean":
        source = _id(f"1 {arrow.source}", drawn.level, drawn.group)
        yield f'{source} [label="1", shape=triangle, fontsize=8]'
    if arrow.kind in ("covariance", "variance"):
        looks |= {"dir": "both", "constraint": "false"}
    yield f"{source} -> {target} [{_looks(looks)}]"


def _looks(looks: dict[str, str]) -> str:
    return ", ".join(f"{name}={_quoted(value)}" for name, value in looks.items())


def _id(name: str, level: int, group: int) -> str:
    return _quoted(f"{name} l{level} g{group}")


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    return f'"{escaped}"'
