"""Simple slopes against models with shifted covariates, whose coefficients they are, with their standard errors."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats

import msem
from msem.errors import ModelError, MsemError

plt = pytest.importorskip("matplotlib.pyplot")

RANDOM = "level: 1\n y1 ~ rv('s')*x1 + x2\nlevel: 2\n y1 ~ w1 + w2\n s ~ w1 + w2\n y1 ~~ s"
AT = {"w1": [-0.7, 0.4]}


@pytest.fixture(scope="module")
def data(demo):
    rng = np.random.default_rng(4)
    w = demo.groupby("cluster")["w1"].first()
    slopes = 0.25 * w + rng.normal(0, 0.2, len(w))
    return demo.assign(
        y1=demo["y1"] + demo["cluster"].map(slopes) * demo["x1"],
        x12=demo["x1"] * demo["x2"],
        x1w=demo["x1"] * demo["w1"],
        w12=demo["w1"] * demo["w2"],
        half=np.where(demo["cluster"] % 2, "odd", "even"),
    )


@pytest.fixture(scope="module")
def random(data):
    return msem.sem(RANDOM, data, cluster="cluster")


@pytest.fixture(scope="module")
def single(data):
    return msem.sem("y1 ~ x1 + x2 + x12 + x3", data, meanstructure=True)


def row(fit, **wanted):
    table = fit.estimates()
    for name, value in wanted.items():
        table = table[table[name] == value]
    return table.iloc[0]


def test_a_random_slope_is_the_intercept_with_shifted_moderators(data, random):
    found = random.simple_slopes("y1 ~ x1", AT)
    mean = row(random, lhs="w2", op="~1", level=2)["est"]
    assert_allclose(found["w1"], AT["w1"])
    assert_allclose(found["w2"], mean)
    for _, one in found.iterrows():
        shifted = data.assign(w1=data["w1"] - one["w1"], w2=data["w2"] - one["w2"])
        own = row(msem.sem(RANDOM, shifted, cluster="cluster"), lhs="s", op="~1", level=2)
        assert_allclose(one[["est", "se"]].astype(float), own[["est", "se"]].astype(float), rtol=1e-4)
        assert one["ci_upper"] == pytest.approx(one["est"] + stats.norm.ppf(0.975) * one["se"])
        assert one["pvalue"] == pytest.approx(2 * stats.norm.sf(abs(one["est"] / one["se"])))


def test_products_of_moderators(data):
    model = RANDOM.replace("w2\n", "w2 + w12\n")
    fit = msem.sem(model, data, cluster="cluster")
    at = {"w1": 0.5, "w2": [-1, 1]}
    found = fit.simple_slopes("y1 ~ x1", at, products={"w12": "w1*w2"})
    for _, one in found.iterrows():
        shifted = data.assign(w1=data["w1"] - one["w1"], w2=data["w2"] - one["w2"])
        shifted["w12"] = shifted["w1"] * shifted["w2"]
        own = row(msem.sem(model, shifted, cluster="cluster"), lhs="s", op="~1", level=2)
        assert_allclose(one[["est", "se"]].astype(float), own[["est", "se"]].astype(float), rtol=1e-4)


def test_products_of_covariates_at_one_level(data, single):
    found = single.simple_slopes("y1 ~ x1", {"x2": [-1.5, 0.8]}, products={"x12": ["x1", "x2"]})
    for _, one in found.iterrows():
        shifted = data.assign(x2=data["x2"] - one["x2"])
        shifted["x12"] = shifted["x1"] * shifted["x2"]
        own = row(msem.sem("y1 ~ x1 + x2 + x12 + x3", shifted), lhs="y1", op="~", rhs="x1")
        assert_allclose(one[["est", "se"]].astype(float), own[["est", "se"]].astype(float), rtol=1e-6)
    default = single.simple_slopes("y1 ~ x1", products={"x12": "x1*x2"})
    x2 = data["x2"]
    assert_allclose(default["x2"], x2.mean() + x2.std(ddof=0) * np.array([-1, 0, 1]), rtol=1e-6)


def test_a_cross_level_product_without_random_slope(data):
    model = "level: 1\n y1 ~ x1 + x1w\nlevel: 2\n y1 ~ w1"
    fit = msem.sem(model, data, cluster="cluster")
    found = fit.simple_slopes("y1 ~ x1", {"w1": [1.2]}, products={"x1w": "x1*w1"}).iloc[0]
    shifted = data.assign(w1=data["w1"] - 1.2)
    shifted["x1w"] = shifted["x1"] * shifted["w1"]
    own = row(msem.sem(model, shifted, cluster="cluster"), lhs="y1", op="~", rhs="x1")
    assert_allclose(found[["est", "se"]].astype(float), own[["est", "se"]].astype(float), rtol=1e-5)


def test_a_square(data):
    squares = data.assign(xx=data["x1"] ** 2)
    fit = msem.sem("y1 ~ x1 + xx", squares)
    found = fit.simple_slopes("y1 ~ x1", {"x1": [0.9]}, products={"xx": "x1*x1"}).iloc[0]
    shifted = squares.assign(x1=data["x1"] - 0.9)
    own = row(msem.sem("y1 ~ x1 + xx", shifted.assign(xx=shifted["x1"] ** 2)), lhs="y1", op="~", rhs="x1")
    assert_allclose(found[["est", "se"]].astype(float), own[["est", "se"]].astype(float), rtol=1e-6)


def test_what_moderators_depend_on_is_held_through_them(data):
    """With w1 held, s is at its mean given w1, through w2 too: the intercept where w1 is shifted and w2 has none."""
    model = "level: 1\n y1 ~ rv('s')*x1\nlevel: 2\n y1 ~ w1 + w2\n s ~ a*w1 + b*w2\n w2 ~ c*w1\n y1 ~~ s\n"
    fit = msem.sem(model + " w2 ~ d*1\n s ~ i*1\n at := i + a*0.8 + b*(d + c*0.8)", data, cluster="cluster")
    found = fit.johnson_neyman("y1 ~ x1", "w2", {"w1": 0.8})
    assert found["w1"].tolist() == [0.8]
    held = fit.simple_slopes("y1 ~ x1", {"w1": 0.8, "w2": 0.0}).iloc[0]
    assert held["est"] == pytest.approx(fit.params["i"] + 0.8 * fit.params["a"])


def test_what_changes_the_slope_through_a_moderator_only_takes_it_along(data):
    model = (
        "level: 1\n y1 ~ rv('s')*x1\nlevel: 2\n y1 ~ w1 + w2\n s ~ b*w2 + i*1\n w2 ~ c*w1 + d*1\n y1 ~~ s\n"
    )
    fit = msem.sem(model + " at := i + b*(d + c*0.8)", data, cluster="cluster")
    found = fit.simple_slopes("y1 ~ x1", {"w1": 0.8})
    assert "w2" not in found
    own = fit.defined().iloc[0]
    assert_allclose(found.loc[0, ["est", "se"]].astype(float), own[["est", "se"]].astype(float), rtol=1e-7)
    held = fit.simple_slopes("y1 ~ x1", {"w1": [0.0, 0.8], "w2": 1.0})["est"]
    assert_allclose(held, fit.params["i"] + fit.params["b"], rtol=1e-9)


@pytest.mark.parametrize("level", [0.05, 0.2])
def test_the_region_of_significance(random, single, data, level):
    """The test changes its mind at the ends and nowhere else."""
    for fit, others, moderator, products in (
        (random, {"w2": 0.3}, "w1", None),
        (single, {}, "x2", {"x12": "x1*x2"}),
    ):
        found = fit.johnson_neyman("y1 ~ x1", moderator, others, products=products, alpha=level).iloc[0]
        ends = [found["lower"], found["upper"]]
        at = fit.simple_slopes("y1 ~ x1", {moderator: ends, **others}, products=products)
        assert_allclose(at["pvalue"], level, rtol=1e-6)
        width = ends[1] - ends[0]
        grid = {moderator: [ends[0] - width, sum(ends) / 2, ends[1] + width], **others}
        rejected = fit.simple_slopes("y1 ~ x1", grid, products=products)["pvalue"] < level
        assert (
            rejected.tolist()
            == {
                "between": [False, True, False],
                "outside": [True, False, True],
            }[found["significant"]]
        )


def test_slopes_that_always_or_never_differ_from_0():
    rng = np.random.default_rng(1)
    x, w = rng.normal(size=(2, 400))
    for slope, noise, wanted in ((3.0, 0.1, "everywhere"), (0.0, 1.0, "nowhere")):
        y = slope * x + 0.001 * slope * x * w + noise * rng.normal(size=400)
        data = pd.DataFrame({"y": y, "x": x, "w": w, "xw": x * w})
        if (
            wanted == "everywhere"
        ):  # slope and product all but proportional: no value of w takes the slope to 0
            data["xw"] = x * w + 0.0
        fit = msem.sem("y ~ x + w + xw", data)
        found = fit.johnson_neyman("y ~ x", products={"xw": "x*w"}).iloc[0]
        grid = np.linspace(-5, 5, 21)
        pvalues = fit.simple_slopes("y ~ x", {"w": grid}, products={"xw": "x*w"})["pvalue"]
        assert (pvalues < 0.05).all() == (wanted == "everywhere")
        if found["significant"] in ("everywhere", "nowhere"):
            assert np.isnan(found["lower"])


def test_groups(data):
    fit = msem.sem(RANDOM, data, cluster="cluster", group="half")
    found = fit.simple_slopes("y1 ~ x1", AT)
    assert found["group"].tolist() == [1, 1, 2, 2]
    alone = msem.sem(RANDOM, data[data["half"] == fit.group_labels[1]], cluster="cluster")
    assert_allclose(found["est"][2:], alone.simple_slopes("y1 ~ x1", AT)["est"], rtol=1e-4)
    axes = msem.plots.simple_slopes(fit, "y1 ~ x1", AT)
    assert [ax.get_title(loc="left") for ax in axes] == list(fit.group_labels)
    assert axes[0].get_ylim() == axes[1].get_ylim()
    plt.close("all")


def test_lines_are_intercepts_with_everything_shifted(data, random):
    """A line at x is the intercept of the outcome where x and all moderators are shifted to 0."""
    ax = msem.plots.simple_slopes(random, "y1 ~ x1", {"w1": [0.5]}, values=(-1, 2), ci_level=0.9)
    line, band = ax.lines[0], ax.collections[0].get_paths()[0].vertices
    mean = {name: row(random, lhs=name, op="~1", level=2)["est"] for name in ("w2",)}
    for x in (-1, 2):
        shifted = data.assign(
            x1=data["x1"] - x,
            x2=data["x2"] - data["x2"].mean(),
            w1=data["w1"] - 0.5,
            w2=data["w2"] - mean["w2"],
        )
        own = row(msem.sem(RANDOM, shifted, cluster="cluster"), lhs="y1", op="~1", level=2)
        assert np.interp(x, line.get_xdata(), line.get_ydata()) == pytest.approx(own["est"], rel=1e-4)
        ends = np.unique(band[band[:, 0] == x, 1])
        assert_allclose(ends, own["est"] + stats.norm.ppf(0.95) * own["se"] * np.array([-1, 1]), rtol=1e-4)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["w1 = 0.50, w2 = −0.04"]
    plt.close("all")


def test_the_picture_of_a_region(random):
    ax = msem.plots.johnson_neyman(random, "y1 ~ x1", "w1")
    region = random.johnson_neyman("y1 ~ x1", "w1").iloc[0]
    x, y = ax.lines[1].get_data()
    slopes = random.simple_slopes("y1 ~ x1", {"w1": x[[0, 100]]})
    assert_allclose(y[[0, 100]], slopes["est"])
    shown = [float(text.get_text().replace("−", "-")) for text in ax.texts]
    ends = [end for end in region[["lower", "upper"]] if x[0] < end < x[-1]]
    assert_allclose(shown, np.round(ends, 2))
    plt.close("all")


MISTAKES = [
    (lambda fit: fit.simple_slopes("y1"), "is no path"),
    (lambda fit: fit.simple_slopes("y1 ~ x3"), r"no path y1 ~ x3; it has y1 ~ x1, y1 ~ x2"),
    (lambda fit: fit.simple_slopes("y1 ~ x2"), "nothing changes the slope of y1 ~ x2"),
    (lambda fit: fit.simple_slopes("y1 ~ x1", {"x2": 1}), "'x2' does not change the slope"),
    (lambda fit: fit.simple_slopes("y1 ~ x1", {"w1": "low"}), "must be numbers"),
    (lambda fit: fit.simple_slopes("y1 ~ x1", products={"zz": "w1*w2"}), "'zz' is no variable"),
    (lambda fit: fit.simple_slopes("y1 ~ x1", products={"w1": "w2"}), "product of two"),
    (lambda fit: fit.simple_slopes("y1 ~ x1", products={"x1": "x1*w1"}), "'x1' is no product of itself"),
    (lambda fit: fit.simple_slopes("y1 ~ x1", products={"w1": 3}), "product of two"),
    (lambda fit: fit.simple_slopes("y1 ~ x1", products=["w1"]), "products is a dict"),
    (lambda fit: fit.simple_slopes("y1 ~ x1", ["w1"]), "at is a dict"),
    (lambda fit: fit.simple_slopes(None), "'None' is no path|None is no path"),
    (lambda fit: fit.simple_slopes("y1 ~ x1", ci_level="0.9"), "ci_level is the coverage"),
    (lambda fit: fit.johnson_neyman("y1 ~ x1", "w1", ["w2"]), "at is a dict"),
    (lambda fit: fit.johnson_neyman("y1 ~ x1", "w1", alpha="5%"), "between 0 and 1"),
    (lambda fit: fit.simple_slopes("y1 ~ x1", level=2), "no path y1 ~ x1 at level 2"),
    (lambda fit: fit.johnson_neyman("y1 ~ x1"), "name one of w1, w2"),
    (lambda fit: fit.johnson_neyman("y1 ~ x1", "x2"), "what does: w1, w2"),
    (lambda fit: fit.johnson_neyman("y1 ~ x1", "w1", {"w2": [1, 2]}), "one value"),
    (lambda fit: fit.johnson_neyman("y1 ~ x1", "w1", alpha=5), "between 0 and 1"),
    (lambda fit: msem.plots.simple_slopes(fit, "y1 ~ x1"), "9 lines"),
]


@pytest.mark.parametrize(("call", "message"), MISTAKES, ids=range(len(MISTAKES)))
def test_mistakes(call, message, random):
    with pytest.raises(MsemError, match=message):
        call(random)
    plt.close("all")


def test_a_model_without_means_has_slopes_and_no_lines(data):
    fit = msem.sem("y1 ~ x1 + x2 + x12", data)
    with pytest.raises(ModelError, match="meanstructure=True"):
        msem.plots.simple_slopes(fit, "y1 ~ x1", products={"x12": "x1*x2"})
    with pytest.raises(ModelError, match=r"no means, and so none of 'x2'"):
        fit.simple_slopes("y1 ~ x1", products={"x12": "x1*x2"})
    found = fit.simple_slopes("y1 ~ x1", {"x2": [0, 1]}, products={"x12": "x1*x2"})
    b = fit.params
    assert_allclose(found["est"], [b["y1 ~ x1"], b["y1 ~ x1"] + b["y1 ~ x12"]])
