"""Results do not depend on units, origins, the order of rows and columns, labels of clusters or kind of frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import msem
import texts

MODEL = texts.DEMO
Y, X, W = ["y1", "y2", "y3"], ["x1", "x2", "x3"], ["w1", "w2"]
EVERY = [*Y, *X, *W]


@pytest.fixture(scope="module")
def plain(demo: pd.DataFrame) -> msem.Fit:
    return msem.sem(MODEL, demo, cluster="cluster")


def factor(row: Any, unit: Mapping[str, float]) -> float:
    """What multiplies a parameter when variables change their units; factors have that of their markers."""
    units = {"fw": unit.get("y1", 1.0), "fb": unit.get("y1", 1.0), "": 1.0, **unit}
    lhs, rhs = units.get(row.lhs, 1.0), units.get(row.rhs, 1.0)
    return {"=~": rhs / lhs, "~": lhs / rhs, "~~": lhs * rhs, "~1": lhs}[row.op]


def assert_rescaled(fit: msem.Fit, plain: msem.Fit, unit: Mapping[str, float], *, means: bool = True) -> None:
    """Estimates and standard errors are those of `plain` in other units; means only if asked for."""
    ours, theirs = fit.estimates(), plain.estimates()
    factors = np.array([factor(row, unit) for row in ours.itertuples()])
    kept = (ours["op"] != "~1").to_numpy() | means
    free = (theirs["se"] > 0).to_numpy()
    np.testing.assert_allclose((ours["se"] / np.abs(factors))[kept], theirs["se"][kept], rtol=1e-6)
    gap = np.abs(ours["est"] / factors - theirs["est"])
    allowed = 1e-6 * np.where(free, theirs["se"], np.abs(theirs["est"]) + 1e-3)
    assert (gap <= allowed)[kept].all()


UNITS = {
    "marker by 1000": {"y1": 1e3},
    "another indicator by 1000": {"y2": 1e3},
    "outcomes by 1e-4": dict.fromkeys(Y, 1e-4),
    "outcomes by 1e8": dict.fromkeys(Y, 1e8),
    "covariates by 1e-3": dict.fromkeys(X, 1e-3),
    "cluster covariates by 1e6": dict.fromkeys(W, 1e6),
    "everything in another unit": {"y1": 1e6, "y2": 1e-6, "x1": 1e4, "w1": 1e-5},
    "reflected": {"y2": -1.0, "x1": -2.0, "w2": -1.0},
}


@pytest.mark.parametrize("unit", UNITS.values(), ids=UNITS)
def test_units(demo: pd.DataFrame, plain: msem.Fit, unit: dict[str, float]) -> None:
    fit = msem.sem(
        MODEL, demo.assign(**{name: demo[name] * u for name, u in unit.items()}), cluster="cluster"
    )
    assert (fit.status, fit.chisq) == ("ok", pytest.approx(plain.chisq, abs=1e-6))
    assert_rescaled(fit, plain, unit)
    theirs, ours = plain.fit_measures(), fit.fit_measures()
    names = [n for n in theirs.index if n not in {"fmin", "logl", "unrestricted_logl", "aic", "nclusters"}]
    names = [n for n in names if not n.startswith("bic")]
    np.testing.assert_allclose(ours[names], theirs[names], rtol=1e-6, atol=1e-8)
    std = fit.estimates(standardized=True)["std_all"]
    np.testing.assert_allclose(np.abs(std), np.abs(plain.estimates(standardized=True)["std_all"]), atol=1e-7)


METRICS = {
    "scores of PISA": (dict.fromkeys(Y, (500.0, 100.0)), 1e-6),
    "covariates as T scores": (dict.fromkeys([*X, *W], (50.0, 10.0)), 1e-6),
    "cluster covariates far away": (dict.fromkeys(W, (1000000.0, 1.0)), 1e-6),
    "covariates far away": (dict.fromkeys([*X, *W], (1000000.0, 1.0)), 1e-6),
    "all means 1e8": (dict.fromkeys(EVERY, (100000000.0, 1.0)), 1e-5),
}


@pytest.mark.parametrize(("metric", "tolerance"), METRICS.values(), ids=METRICS)
def test_origins(
    demo: pd.DataFrame, plain: msem.Fit, metric: dict[str, tuple[float, float]], tolerance: float
) -> None:
    moved = demo.assign(**{name: at + by * demo[name] for name, (at, by) in metric.items()})
    unit = {name: by for name, (_, by) in metric.items()}
    if tolerance > 1e-6:  # what the digits of the data keep of the original values
        rounded = moved.assign(**{name: moved[name] - at for name, (at, _) in metric.items()})
        plain = msem.sem(MODEL, rounded, cluster="cluster")
    fit = msem.sem(MODEL, moved, cluster="cluster")
    assert (fit.status, fit.chisq) == ("ok", pytest.approx(plain.chisq, abs=tolerance))
    assert_rescaled(fit, plain, unit, means=False)


def test_origins_move_intercepts(demo: pd.DataFrame, plain: msem.Fit) -> None:
    moved = demo.assign(**{name: 500 + 100 * demo[name] for name in Y})
    fit = msem.sem(MODEL, moved, cluster="cluster")
    for name in Y:
        assert fit.params[f"{name}~1.l2"] == pytest.approx(500 + 100 * plain.params[f"{name}~1.l2"], rel=1e-9)
        assert fit.bse[f"{name}~1.l2"] == pytest.approx(100 * plain.bse[f"{name}~1.l2"], rel=1e-6)


LABELS: dict[str, Callable[[pd.Series], Any]] = {
    "floats": lambda c: c.astype(float),
    "strings": lambda c: "school " + c.astype(str),
    "categories": lambda c: c.astype(str).astype("category"),
    "unused categories": lambda c: pd.Categorical(c, categories=list(range(-5, 500))),
    "tuples": lambda c: pd.Series([("a", int(v)) for v in c]),
    "mixed": lambda c: pd.Series([int(v) if v % 2 else f"s{v}" for v in c], dtype=object),
    "dates": lambda c: pd.Timestamp("2000-01-01") + pd.to_timedelta(c, unit="D"),
    "nullable integers": lambda c: c.astype("Int64"),
    "reversed": lambda c: 1000 - c,
}


@pytest.mark.parametrize("label", LABELS.values(), ids=LABELS)
def test_labels_of_clusters(demo: pd.DataFrame, plain: msem.Fit, label: Callable[[pd.Series], Any]) -> None:
    fit = msem.sem(MODEL, demo.assign(cluster=label(demo["cluster"])), cluster="cluster")
    assert fit.nclusters == 200
    np.testing.assert_allclose(fit.params, plain.params, rtol=1e-9)
    assert fit.llf == pytest.approx(plain.llf, abs=1e-8)


FRAMES: dict[str, Callable[[pd.DataFrame], Any]] = {
    "polars": pl.from_pandas,
    "lazy polars": lambda d: pl.from_pandas(d).lazy(),
    "pyarrow": pa.Table.from_pandas,
    "mapping of arrays": lambda d: {name: d[name].to_numpy() for name in d},
    "mapping of lists": lambda d: {name: d[name].tolist() for name in d},
    "pandas on pyarrow": lambda d: d.convert_dtypes(dtype_backend="pyarrow"),
    "nullable pandas": lambda d: d.convert_dtypes(),
    "odd index": lambda d: d.set_index(pd.Index([0] * len(d))),
    "other column order": lambda d: d[list(reversed(d.columns))],
}


@pytest.mark.parametrize("convert", FRAMES.values(), ids=FRAMES)
def test_kinds_of_frames(demo: pd.DataFrame, plain: msem.Fit, convert: Callable[[pd.DataFrame], Any]) -> None:
    fit = msem.sem(MODEL, convert(demo), cluster="cluster")
    np.testing.assert_array_equal(fit.params, plain.params)
    np.testing.assert_array_equal(fit.bse, plain.bse)


@pytest.mark.parametrize("seed", range(3))
def test_order_of_rows(demo: pd.DataFrame, plain: msem.Fit, seed: int) -> None:
    fit = msem.sem(MODEL, demo.sample(frac=1, random_state=seed), cluster="cluster")
    np.testing.assert_allclose(fit.params, plain.params, rtol=1e-9)
    np.testing.assert_allclose(fit.bse, plain.bse, rtol=1e-9)
    assert fit.chisq == pytest.approx(plain.chisq, abs=1e-8)


WITHIN, BETWEEN = MODEL.split("level: 2")[0].split("level: 1")[1], MODEL.split("level: 2")[1]
TEXTS = {
    "levels in reverse": f"level: 2\n{BETWEEN}\nlevel: 1\n{WITHIN}",
    "within and between": f"level: within\n{WITHIN}\nlevel: between\n{BETWEEN}",
    "between and within": f"level: between\n{BETWEEN}\nlevel: within\n{WITHIN}",
    "names": f"level: pupil\n{WITHIN}\nlevel: school\n{BETWEEN}",
    "one line": MODEL.strip().replace("\n", ";"),
    "comments": MODEL.replace("fw ~", "# structure\n  fw ~"),
    "variables in another order": (
        "level: 1\nfw =~ y1 + y3 + y2\nfw ~ x3 + x1 + x2\nlevel: 2\nfb ~ w2 + w1\nfb =~ y1 + y3 + y2"
    ),
    "explicit defaults": MODEL + "  y1 ~~ y1\n  fb ~~ fb\n  y1 + y2 + y3 ~ 1\n",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_model_texts(demo: pd.DataFrame, plain: msem.Fit, text: str) -> None:
    fit = msem.sem(text, demo, cluster="cluster")
    assert fit.npar == plain.npar
    assert fit.chisq == pytest.approx(plain.chisq, abs=1e-8)
    np.testing.assert_allclose(fit.params[plain.params.index], plain.params, rtol=1e-8)
    np.testing.assert_allclose(fit.bse[plain.bse.index], plain.bse, rtol=1e-8)


def test_marker_and_unit_variance_are_the_same_model(demo: pd.DataFrame, plain: msem.Fit) -> None:
    fit = msem.sem(MODEL, demo, cluster="cluster", std_lv=True)
    assert fit.llf == pytest.approx(plain.llf, abs=1e-8)
    other = fit.estimates(standardized=True)["std_all"].abs()
    np.testing.assert_allclose(other, plain.estimates(standardized=True)["std_all"].abs(), atol=1e-7)


def test_duplicating_nothing_else_than_unused_columns_changes_nothing(
    demo: pd.DataFrame, plain: msem.Fit
) -> None:
    fit = msem.sem(MODEL, demo.assign(extra="text", y9=np.nan), cluster="cluster")
    np.testing.assert_array_equal(fit.params, plain.params)
