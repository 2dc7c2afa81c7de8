"""Path diagrams: arrows run through no node, the text of every form says the same, and mistakes get a sentence."""

import itertools
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import msem
from msem.errors import DataError, ExtraError, ModelError
from msem.pictures.graph import Numbers, Style, _drawn
from pathmodels import LARGE, random_model
from texts import DEMO


@pytest.fixture(scope="module")
def fit(demo):
    return msem.sem(DEMO, demo, cluster="cluster")


def inside(place, points, margin=0.0):
    """Points in a box or an ellipse."""
    x = (points[:, 0] - place.x) / (place.width / 2 + margin)
    y = (points[:, 1] - place.y) / (place.height / 2 + margin)
    return np.maximum(abs(x), abs(y)) < 1 if place.form == "box" else x**2 + y**2 < 1


def drawn_points(curve):
    """A way as matplotlib draws it, densely."""
    path = pytest.importorskip("matplotlib.path").Path
    n = len(curve.points)
    codes = {2: [path.LINETO], 3: [path.CURVE3] * 2, 4: [path.CURVE4] * 3}
    kinds = codes[n] if curve.bent else [path.LINETO] * (n - 1)
    corners = path(curve.points * 1000, [path.MOVETO, *kinds]).to_polygons(closed_only=False)[0] / 1000
    steps = [np.linspace(a, b, 40, endpoint=False) for a, b in itertools.pairwise(corners)]
    return np.concatenate([*steps, corners[-1:]])


def faults(scene):
    """Arrows through nodes, arrows that end elsewhere than at their nodes, nodes upon nodes, lines through nodes."""
    found = []
    for arrow in scene.arrows:
        points = drawn_points(arrow.curve)
        ends = (arrow.arrow.source, arrow.arrow.target)
        for node in scene.nodes:
            if (node.level, node.group) != (arrow.level, arrow.group):
                continue
            name = node.node.name
            if name not in ends and inside(node.place, points).any():
                found.append(("through", *ends, name))
            if name in ends and inside(node.place, points, -0.03).any():
                found.append(("into", *ends, name))
            if name == ends[1] and not inside(node.place, points[[0, -1]], 0.04).any():
                found.append(("short", *ends, name))
    for join in scene.joins:
        points = drawn_points(join)
        found += [("join", node.node.name) for node in scene.nodes if inside(node.place, points, -0.01).any()]
    for k, one in enumerate(scene.nodes):
        for other in scene.nodes[:k]:
            apart = [abs(one.place.x - other.place.x), abs(one.place.y - other.place.y)]
            if (
                apart[0] < (one.place.width + other.place.width) / 2
                and apart[1] < (one.place.height + other.place.height) / 2
            ):
                found.append(("upon", one.node.name, other.node.name))
    return found


@pytest.mark.parametrize("seed", [0, 1, 2, 5])
def test_no_arrow_runs_through_a_node(seed):
    model = random_model(seed, levels=1 if seed % 4 == 0 else 2)
    assert faults(msem.diagram(model).scene) == []


def test_no_arrow_runs_through_a_node_of_a_large_model():
    assert faults(msem.diagram(LARGE).scene) == []


def test_an_arrow_through_a_node_is_seen():
    scene = msem.diagram("level: 1\n y ~ m + x\n m ~ x\nlevel: 2\n y ~ x").scene
    moved = next(node.place for node in scene.nodes if node.node.name == "m")
    object.__setattr__(moved, "y", next(n.place.y for n in scene.nodes if n.node.name == "y"))
    assert ("through", "x", "y", "m") in faults(scene)


def test_levels_and_directions_of_the_layout(fit):
    places = {(node.level, node.node.name): node.place for node in fit.diagram().scene.nodes}
    assert all(places[2, name].x == places[1, name].x for name in ("y1", "y2", "y3"))
    assert min(p.y for (level, _), p in places.items() if level == 2) > max(
        p.y for (level, _), p in places.items() if level == 1
    )
    assert places[2, "fb"].y > places[2, "y1"].y > places[1, "y1"].y > places[1, "fw"].y
    assert places[1, "y1"].x < places[1, "fw"].x < places[1, "y3"].x
    assert max(places[1, f"x{k}"].x for k in (1, 2, 3)) < places[1, "fw"].x
    assert places[1, "x1"].y > places[1, "x2"].y > places[1, "x3"].y


def test_causes_stand_left_of_what_they_explain():
    model = "c =~ c1 + c2\n b =~ b1 + b2\n a =~ a1 + a2\n b ~ a\n c ~ b"
    x = {node.node.name: node.place.x for node in msem.diagram(model).scene.nodes}
    assert x["a"] < x["b"] < x["c"]


def arrows(diagram):
    return {
        (arrow.level, arrow.group, arrow.arrow.source, arrow.arrow.target, arrow.arrow.kind): arrow.arrow
        for arrow in diagram.scene.arrows
    }


def test_arrows_say_what_the_table_says(fit):
    table = fit.estimates(standardized=True).set_index(["level", "lhs", "op", "rhs"])
    found = arrows(fit.diagram())
    loading = found[2, 1, "fb", "y2", "loading"]
    assert loading.text == f"{table.loc[(2, 'fb', '=~', 'y2'), 'est']:.2f}"
    assert loading.error == "***"
    assert loading.size == pytest.approx(table.loc[(2, "fb", "=~", "y2"), "std_all"])
    marker = found[2, 1, "fb", "y1", "loading"]
    assert (marker.text, marker.fixed, marker.error) == ("1", True, "")
    weak = found[2, 1, "w2", "fb", "regression"]
    assert weak.weak
    assert weak.error == ""
    assert (1, 1, "x1", "x2", "covariance") not in found  # fixed covariates have no arrows of their own
    assert (1, 1, "x1", "x2", "covariance") in arrows(fit.diagram(covariates=True))


def test_the_standardized_solution_has_its_own_errors(fit):
    table = fit.standardized().set_index(["level", "lhs", "op", "rhs"])
    marker = arrows(fit.diagram(standardized=True, errors="se", digits=3))[2, 1, "fb", "y1", "loading"]
    row = table.loc[(2, "fb", "=~", "y1")]
    assert (marker.text, marker.error) == (f"{row['est_std']:.3f}", f"({row['se']:.3f})")
    assert not marker.fixed


def test_equal_parameters_share_a_letter(demo):
    groups = np.where(demo["cluster"] % 2 == 0, "even", "odd")
    equal = msem.sem(
        "level: 1\n fw =~ y1 + k*y2 + y3\nlevel: 2\n fb =~ y1 + y2 + y3",
        demo.assign(half=groups),
        cluster="cluster",
        group="half",
        group_equal=["loadings"],
    )
    found = arrows(equal.diagram())
    marks = {
        (level, group, y): found[level, group, f, y, "loading"].mark
        for level, f in ((1, "fw"), (2, "fb"))
        for group in (1, 2)
        for y in ("y2", "y3")
    }
    assert all(marks[level, 1, y] == marks[level, 2, y] for level in (1, 2) for y in ("y2", "y3"))
    assert marks[1, 1, "y2"] == "k"
    assert len(set(marks.values())) == 4
    panels = equal.diagram().scene.panels
    assert {panel.title for panel in panels} == {
        "even: Within",
        "even: Between",
        "odd: Within",
        "odd: Between",
    }
    assert len({panel.x for panel in equal.diagram(groups=["odd"]).scene.panels}) == 1


def test_segregated_fits_and_moments(fit, demo):
    levels = msem.segregated(DEMO, fit.saturated, method="ml")
    table = levels.estimates().set_index(["level", "lhs", "op", "rhs"])
    drawn = arrows(msem.diagram(levels, errors="se"))
    assert drawn[2, 1, "fb", "y2", "loading"].error == f"({table.loc[(2, 'fb', '=~', 'y2'), 'se']:.2f})"
    assert not any(arrow.mark for arrow in drawn.values())
    two = msem.saturated(demo[["y1", "y2", "cluster"]], cluster="cluster")
    found = {key: arrow.text for key, arrow in arrows(msem.diagram(two)).items()}
    between = two.between.cov
    correlation = between.loc["y1", "y2"] / np.sqrt(between.loc["y1", "y1"] * between.loc["y2", "y2"])
    assert found[2, 1, "y1", "y2", "covariance"] == f"{correlation:.2f}"
    assert len(found) == 2
    assert msem.diagram(DEMO, fit.saturated).note.startswith("Unstandardized estimates")


def test_random_slopes_have_a_dot_and_their_name():
    def row(lhs, op, rhs, level, **more):
        return SimpleNamespace(lhs=lhs, op=op, rhs=rhs, level=level, group=1, label="", **more)

    rows = [row("y", "~", "x", 1, free=0, slope="s"), row("s", "~1", "", 2, free=1, slope="")]
    numbers = Numbers(*np.array([[0.0, 0.4], [0.0, 0.1], [np.nan, 0.001], [0.0, 0.4]]))
    slope, mean = (next(_drawn(one, k, numbers, {}, Style(means=True))) for k, one in enumerate(rows))
    assert (slope.text, slope.slope, slope.fixed) == ("s", "s", False)
    assert (mean.text, mean.slope) == ("0.40", "")


def test_thresholds_are_no_variables():
    text = "f =~ u1 + u2 + u3\nu1 | t1 + t2\nu2 | t1"
    (graph,) = msem.diagram(text).graphs.values()
    assert set(graph.nodes) == {"f", "u1", "u2", "u3"}


def test_parts_of_all_upper_levels_are_latent():
    text = "\n".join(f"level: {k}\n f{k} =~ y1 + y2 + {'xwvu'[k - 1]}" for k in range(1, 5))
    drawn = msem.diagram(text)
    for (level, _), graph in drawn.graphs.items():
        shapes = {name: node.shape for name, node in graph.nodes.items()}
        part = "observed" if level == 1 else "part"
        assert shapes == {f"f{level}": "latent", "y1": part, "y2": part, "xwvu"[level - 1]: "observed"}
    assert len(drawn.scene.joins) >= 2  # where no factor is in the way
    assert drawn.to_dot().count("style=dotted") == 6
    assert not faults(drawn.scene)


def test_means_variances_and_levels(fit):
    kinds = {kind for *_, kind in arrows(fit.diagram(means=True, variances=False))}
    assert kinds == {"loading", "regression", "mean"}
    assert {level for level, *_ in arrows(fit.diagram(level="between"))} == {2}


def test_text_for_graphviz(fit):
    text = fit.diagram().to_dot()
    assert text.count("{") == text.count("}") == 3
    assert re.search(r'"fb l2 g1" -> "y2 l2 g1" \[label="0\.69\*\*\*"', text)
    assert text.count("dir=none") == 3
    odd = msem.diagram('"a ""b" =~ y1 + y2 + y3' if False else 'f =~ `a"b` + y2 + y3').to_dot()
    assert r'label="a\"b"' in odd


def test_text_for_latex(fit):
    text = fit.diagram(errors="se").to_tikz()
    assert text.count(r"\begin{tikzpicture}") == text.count(r"\end{tikzpicture}") == 1
    body = text[text.index("\\definecolor") :]
    assert body.count("{") == body.count("}")
    assert all(line.rstrip().endswith((";", "}")) for line in body.splitlines()[:-1])
    assert len(re.findall(r"\\node\[(?:observed|latent|part),", body)) == 13
    assert len(re.findall(r"\\draw\[<?->", body)) == len(fit.diagram().scene.arrows)
    assert r"y\_1" in msem.diagram("f =~ y_1 + y_2 + y_3").to_tikz()


def test_files_and_formats(tmp_path):
    pytest.importorskip("matplotlib")
    diagram = msem.diagram("f =~ y1 + y2")
    assert diagram.svg() == diagram._repr_svg_()  # the same each time
    for name in ("a.svg", "a.png", "a.dot", "a.tex"):
        diagram.save(tmp_path / name, dpi=40)
        assert (tmp_path / name).stat().st_size > 700
    with pytest.raises(DataError, match=r"\.svg, \.png, \.pdf"):
        diagram.save(tmp_path / "a.jpg")
    with pytest.raises(DataError, match="no folder"):
        diagram.save(tmp_path / "none" / "a.svg")


def test_axes_are_given_back():
    plt = pytest.importorskip("matplotlib.pyplot")
    figure, ax = plt.subplots(figsize=(2, 2))
    diagram = msem.diagram("f =~ y1 + y2 + y3")
    assert diagram.draw(ax) is ax
    names = [text for text in ax.texts if text.get_text() in ("f", "y1", "y2", "y3")]
    assert len(names) == 4
    assert all(text.get_fontsize() < 9 for text in names)  # they shrink with the axes
    plt.close(figure)
    with pytest.raises(DataError, match="axes of matplotlib"):
        diagram.draw(ax=3)


def test_a_diagram_says_what_it_is(fit):
    assert repr(fit.diagram()) == "<msem.Diagram: 2 levels, 1 group, 19 arrows; draw(), save(path)>"


def test_mistakes(fit, demo):
    with pytest.raises(ModelError, match=r"40 groups side by side cannot be read.*groups="):
        msem.diagram("f =~ y1 + y2 + y3", group="g", group_labels=[f"g{k}" for k in range(40)])
    with pytest.raises(ModelError, match="61 variables"):
        msem.diagram("f =~ " + " + ".join(f"y{k}" for k in range(60)))
    with pytest.raises(ModelError, match="not int"):
        msem.diagram(3)
    with pytest.raises(ModelError, match="data= goes with a model text"):
        msem.diagram(fit, demo)
    with pytest.raises(ModelError, match="no group 'north'"):
        fit.diagram(groups=["north"])
    with pytest.raises(ValueError, match="standardized must be one of"):
        fit.diagram(standardized="std")
    with pytest.raises(ModelError, match="has not converged"), pytest.warns(match="converge"):
        msem.sem(DEMO, demo, cluster="cluster", max_iterations=1).diagram()
    with pytest.raises(ModelError, match=r"msem\.diagram\(model, moments\)"):
        msem.diagram(msem.saturated(demo, cluster="cluster"))


def test_nothing_is_imported_without_a_picture():
    """And without matplotlib pictures ask for the extra, while texts need none."""
    script = """
import sys
import msem
assert not [name for name in sys.modules if name.startswith("matplotlib")]
sys.modules["matplotlib"] = None
diagram = msem.diagram("f =~ y1 + y2 + y3")
assert diagram.to_dot() and diagram.to_tikz() and diagram._repr_svg_() is None
try:
    diagram.svg()
except msem.errors.ExtraError as error:
    assert isinstance(error, ImportError) and "pip install 'msem[plot]'" in str(error)
else:
    raise SystemExit("no error")
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    assert issubclass(ExtraError, ValueError)
