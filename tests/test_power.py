"""Power, bias and coverage by simulation: against theory, whatever the threads, and after an interruption."""

from __future__ import annotations

import json
import multiprocessing
import resource
import signal
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import msem
from msem.data.storage import signed
from msem.distributions import normal_rejection
from msem.errors import ConvergenceWarning, DataError, DataWarning, ModelError, MsemWarning
from msem.fits.checkpoint import PowerFile
from msem.fits.manyfits import FitArrays, joined
from msem.fits.power import performance
from populations import DEMO, DEMO_POPULATION, REGRESSION

MODEL = "y ~ x"
GRID = {"nclusters": [40, 80], "cluster_sizes": [5, (2, 8)], "fb ~ w1": [0.0, 0.4]}


def demo_power(count: int = 60, **given: object) -> msem.Power:
    arguments = {"replications": count, "seed": 11} | given
    return msem.power(DEMO, DEMO_POPULATION, arguments.pop("grid", GRID), **arguments)


def test_power_of_a_regression_is_that_of_theory() -> None:
    found = msem.power(MODEL, REGRESSION, {"nobs": 100, "y ~ x": [0.0, 0.2, 0.3]}, replications=4000, seed=2)
    rows = found.parameters.query("op == '~'")
    # the slope is normal given x, with standard error 1 / sqrt(n) on average
    expected = normal_rejection(np.array([0.0, 0.2, 0.3]) * 10, 0.05)
    assert_allclose(rows["power"], expected, atol=0.03)
    assert_allclose(rows["coverage"], 0.95, atol=0.02)
    assert_allclose(rows["bias"], 0, atol=4 * 0.1 / np.sqrt(4000))
    assert_allclose(rows["sd"], 0.1, rtol=0.06)
    assert_allclose(rows["se_ratio"], 1, atol=0.05)
    assert_allclose(rows["power_error"], np.sqrt(rows["power"] * (1 - rows["power"]) / 4000))
    assert rows["population"].tolist() == [0.0, 0.2, 0.3]


def test_a_true_model_is_rejected_as_often_as_alpha_says() -> None:
    found = demo_power(2000, grid={"nclusters": 150, "cluster_sizes": 10})
    (row,) = found.designs.to_dict("records")
    assert (row["df"], row["misfit"], row["converged"], row["nobs"]) == (10, 0, 1, 1500)
    assert row["rejected"] == pytest.approx(0.05, abs=0.02)
    assert row["chisq"] == pytest.approx(10, abs=4 * np.sqrt(20 / 2000) + 0.2)
    assert found.parameters["coverage"].to_numpy() == pytest.approx(0.95, abs=0.03)


def test_the_same_seed_gives_the_same_frames_for_all_threads() -> None:
    one, several, other = demo_power(threads=1), demo_power(threads=4), demo_power(seed=12)
    for name in ("parameters", "designs"):
        pd.testing.assert_frame_equal(getattr(one, name), getattr(several, name), check_exact=True)
        assert not getattr(one, name).equals(getattr(other, name))
    means = one.parameters.groupby(["nclusters", "cluster_sizes", "fb ~ w1"])["mean"].first()
    assert means.nunique() == 8  # cells have samples of their own


def test_cells_are_those_of_the_grid() -> None:
    found = demo_power(20)
    assert len(found.designs) == 8
    assert found.designs["cluster_sizes"].tolist() == [5, 5, "(2, 8)", "(2, 8)"] * 2
    rows = found.parameters.query("lhs == 'fb' and rhs == 'w1'")
    assert rows["population"].tolist() == [0.0, 0.4] * 4
    assert rows["relative_bias"].isna().tolist() == [True, False] * 4
    as_rows = found.designs[["nclusters", "fb ~ w1"]].assign(cluster_sizes=[5, 5, (2, 8), (2, 8)] * 2)
    again = demo_power(20, grid=as_rows)
    assert_allclose(again.parameters["mean"], found.parameters["mean"])
    listed = demo_power(20, grid=as_rows.to_dict("records"))
    assert_allclose(listed.parameters["mean"], found.parameters["mean"])
    assert len(found.fits(3)) == 20
    assert "8 designs, 20 replications" in str(found)
    assert "<table" in found._repr_html_()
    assert "8 designs" in repr(found)


def test_a_model_may_be_identified_in_another_way_than_the_population() -> None:
    text = DEMO.replace("fw =~ y1", "fw =~ NA*y1").replace("fw ~ x1", "fw ~~ 1*fw\n  fw ~ x1")
    found = msem.power(
        text, DEMO_POPULATION, {"nclusters": 100, "cluster_sizes": 10}, replications=200, seed=1
    )
    loadings = found.parameters.query("lhs == 'fw' and op == '=~'")
    assert_allclose(loadings["population"], np.sqrt(0.55) * np.array([1, 0.8, 0.7]), rtol=1e-5)
    assert_allclose(loadings["mean"], loadings["population"], rtol=0.03)


def test_a_wrong_model_has_a_misfit() -> None:
    wrong = DEMO.replace("fw ~ x1 + x2 + x3", "fw ~ x1 + x2\n  y1 ~ x3\n  fw ~ 0*x3")
    found = msem.power(
        wrong, DEMO_POPULATION, {"nclusters": 100, "cluster_sizes": 10}, replications=300, seed=1
    )
    (row,) = found.designs.to_dict("records")
    assert row["misfit"] > 5
    assert row["chisq"] == pytest.approx(row["df"] + row["misfit"], rel=0.05)


def test_a_fit_and_distributions_are_populations() -> None:
    fit = msem.sem(DEMO, msem.load_demo(), cluster="cluster")
    found = msem.power(
        msem.compile(DEMO),
        fit,
        {"nclusters": 60, "cluster_sizes": 5, "distribution": ["normal", msem.MultivariateT(5)]},
        replications=100,
        seed=1,
    )
    assert_allclose(found.parameters["population"][:20], fit.params, rtol=1e-5, atol=1e-6)
    assert found.designs["chisq"][1] > found.designs["chisq"][0]
    assert found.designs["distribution"][1] == "MultivariateT(df=5)"


def test_defined_parameters_have_power_too() -> None:
    text = "m ~ a*x\ny ~ b*m\nab := a*b"
    population = "m ~ 0.4*x\nm ~~ 1*m\ny ~ 0.5*m\ny ~~ 1*y"
    found = msem.power(text, population, {"nobs": 200}, replications=300, seed=1)
    row = found.parameters.query("op == ':='").iloc[0]
    assert row["population"] == pytest.approx(0.2)
    assert row["power"] > 0.9
    assert row["mean"] == pytest.approx(0.2, abs=0.02)


def test_fits_without_estimates_and_improper_ones_are_counted() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MsemWarning)
        found = demo_power(60, grid={"nclusters": 10, "cluster_sizes": (2, 3)})
    (row,) = found.designs.to_dict("records")
    statuses = found.fits().counts / 60
    assert {name: row[name] for name in statuses.index} == statuses.to_dict()
    assert row["improper"] > 0
    assert row["converged"] == pytest.approx(1 - row["not_converged"] - row["failed"])
    assert (found.parameters["used"] <= 60 * row["converged"]).all()


def test_an_interrupted_analysis_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, path = demo_power(), tmp_path / "power.jsonl"
    written, add = [], msem.fits.checkpoint.PowerFile.add

    def stopping(self, cell, first, arrays):
        add(self, cell, first, arrays)
        written.append(len(arrays))
        if cell == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("msem.fits.checkpoint.PowerFile.add", stopping)
    with pytest.raises(KeyboardInterrupt):
        demo_power(resume=path)
    monkeypatch.undo()
    with path.open("a") as file:
        file.write('{"cell": 4, "first": 0, "la')  # cut off
    before = path.read_text().count("\n")
    resumed = demo_power(resume=path, threads=1)
    pd.testing.assert_frame_equal(resumed.parameters, whole.parameters, check_exact=True)
    pd.testing.assert_frame_equal(resumed.designs, whole.designs, check_exact=True)
    assert path.read_text().count("\n") > before
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_more_replications_go_on_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "power.jsonl"
    demo_power(20, resume=path)
    more = demo_power(50, resume=path, seed=None)
    assert more.seed == 11
    pd.testing.assert_frame_equal(more.parameters, demo_power(50).parameters, check_exact=True)
    fewer = demo_power(10, resume=path)
    pd.testing.assert_frame_equal(fewer.parameters, demo_power(10).parameters, check_exact=True)


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"seed": 12}, "seed"),
        ({"grid": {"nclusters": 50, "cluster_sizes": 5}}, "design"),
        ({"information": "expected"}, "options"),
        ({"distribution": msem.MultivariateT(5)}, "distribution"),
    ],
)
def test_a_file_of_another_analysis_is_refused(tmp_path: Path, changed: dict[str, object], what: str) -> None:
    path = tmp_path / "power.jsonl"
    demo_power(5, resume=path)
    with pytest.raises(DataError, match=f"of another analysis, with another .*{what}"):
        demo_power(5, **({"resume": path} | changed))


def test_a_file_that_is_damaged_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "power.jsonl"
    demo_power(12, resume=path, grid={"nclusters": [40, 60], "cluster_sizes": 5})
    good = path.read_text().splitlines()

    def refused(lines: list[str], message: str) -> None:
        path.write_text("\n".join(lines) + "\n")
        with pytest.raises(DataError, match=message):
            demo_power(12, resume=path, grid={"nclusters": [40, 60], "cluster_sizes": 5})

    one = json.loads(good[1])
    del one["sha256"]

    def altered(**values: object) -> str:
        return json.dumps(signed({**one, **values}))

    refused(["not json", *good[1:]], "line 1, is damaged")
    refused([good[0].replace('"seed": 11', '"seed": 12'), *good[1:]], "line 1, is damaged")
    refused(['{"format": "msem power 99"}', *good[1:]], "not a file of a power analysis of this version")
    refused(
        [good[0].replace('"version": 2', '"version": 3'), *good[1:]], "not a file of a power analysis of this"
    )
    refused(["{}", *good[1:]], "not a file of a power analysis")
    refused(["[]", *good[1:]], "line 1, is damaged")
    refused(["[" * 100_000, *good[1:]], "line 1, is damaged")
    refused([good[0], good[1][:-5], *good[2:]], "line 2, is damaged")
    refused([good[0], good[1].replace("0", "1", 1), *good[2:]], "line 2, is damaged")
    refused([good[0], json.dumps(one), *good[2:]], "line 2, is damaged")
    refused([good[0], altered(first=1), *good[2:]], "line 2, does not continue")
    refused([good[0], altered(cell=7), *good[2:]], "line 2, does not continue")
    refused([good[0], altered(est=one["est"][:-1]), *good[2:]], "line 2, does not continue")
    refused([good[0], altered(se="x"), *good[2:]], "line 2, is damaged")
    refused([good[0], altered(se=[[-1.0] * len(row) for row in one["se"]]), *good[2:]], "line 2, is damaged")
    refused([good[0], altered(est=[["1"] * len(row) for row in one["est"]]), *good[2:]], "line 2, is damaged")
    refused([good[0], altered(status=["banana"] * len(one["status"])), *good[2:]], "line 2, is damaged")
    refused([good[0], altered(iterations=[-5] * len(one["status"])), *good[2:]], "line 2, is damaged")
    refused([good[0], altered(iterations=[10**400] * len(one["status"])), *good[2:]], "line 2, is damaged")
    refused([good[0], altered(cell=0.9), *good[2:]], "line 2, is damaged")
    refused([good[0], altered(more=1), *good[2:]], "line 2, is damaged")
    refused([good[0], good[1], good[1]], "line 3, does not continue")


def test_a_file_of_the_version_without_digests_goes_on_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "power.jsonl"
    demo_power(12, resume=path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        for name in ("sha256", "statistic", "pvalue"):
            line.pop(name, None)
    del lines[0]["version"]
    lines[0]["format"] = "msem power 1"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.warns(DataWarning, match="have no digests"):
        more = demo_power(20, resume=path)
    pd.testing.assert_frame_equal(more.parameters, demo_power(20).parameters, check_exact=True)
    added = path.read_text().splitlines()[len(lines) :]
    assert added
    assert all("sha256" in line for line in added)


def fits_of(seed: int, count: int) -> FitArrays:
    rng = np.random.default_rng(seed)
    words = np.array(["ok"] * count, dtype=object)
    return FitArrays(
        rng.normal(size=(count, 2)),
        rng.uniform(size=(count, 2)),
        rng.normal(size=count),
        rng.normal(size=count),
        words,
        words,
        np.ones(count, np.intp),
    )


def test_several_writers_of_one_file_add_what_the_others_have_not(tmp_path: Path) -> None:
    path, head = tmp_path / "power.jsonl", {"parameters": ["a", "b"], "design": [{}, {}], "seed": 1}
    fits = fits_of(1, 12)
    parts = [FitArrays(*(v[at : at + n] for v in vars(fits).values())) for at, n in ((0, 4), (0, 6), (4, 8))]
    one, two, three = (PowerFile(path, head) for _ in range(3))
    one.add(0, 0, parts[0])
    two.add(0, 0, parts[1])
    three.add(0, 0, parts[0])
    one.add(1, 0, parts[0])
    one.add(0, 4, parts[2])
    again = PowerFile(path, head)
    for name, values in vars(joined(again.fits(0))).items():
        np.testing.assert_array_equal(values, getattr(fits, name))
    assert sum(map(len, again.fits(1))) == 4
    assert len(path.read_text().splitlines()) == 5  # the head, 0 to 4, 4 to 6, 6 to 12; and the other cell
    path.write_text("")
    with pytest.raises(DataError, match="removed or cut short while"):
        one.add(1, 4, parts[0])


def test_two_processes_with_one_file(tmp_path: Path) -> None:
    path = tmp_path / "power.jsonl"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=add_lines, args=(path, size)) for size in (3, 5)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    found = joined(PowerFile(path, HEAD).fits(0))
    np.testing.assert_array_equal(found.est, fits_of(2, 300).est)


HEAD = {"parameters": ["a", "b"], "design": [{}], "seed": 1}


def add_lines(path: Path, size: int) -> None:
    file, fits = PowerFile(path, HEAD), fits_of(2, 300)
    for at in range(0, 300, size):
        file.add(0, at, FitArrays(*(values[at : at + size] for values in vars(fits).values())))


def test_a_full_disk_leaves_a_file_that_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "power.jsonl"
    PowerFile(path, HEAD).add(0, 0, fits_of(3, 4))
    size = path.stat().st_size

    def fill() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, size + 100))
        with pytest.raises(OSError, match="large"):
            PowerFile(path, HEAD).add(0, 4, fits_of(4, 4))

    process = multiprocessing.get_context("fork").Process(target=fill)
    process.start()
    process.join()
    assert process.exitcode == 0
    assert path.stat().st_size > size
    again = PowerFile(path, HEAD)
    np.testing.assert_array_equal(joined(again.fits(0)).est, fits_of(3, 4).est)
    assert path.stat().st_size == size


def test_what_estimates_are_worth() -> None:
    est = np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [np.nan, np.nan]])
    se = np.array([[1.0, 1.0], [0.5, np.nan], [1.0, 1.0], [np.nan, np.nan]])
    status = np.array(["ok", "improper", "ok", "failed"], dtype=object)
    arrays = FitArrays(est, se, np.zeros(4), np.zeros(4), status, status, np.zeros(4, np.intp))
    out = performance(arrays, np.array([2.0, 0.0]), 0.05)
    assert out["mean"].tolist() == [2, 0]
    assert (out["bias"].tolist(), out["sd"][0], out["mean_se"][0]) == ([0, 0], 1, 2.5 / 3)
    assert out["power"].tolist() == [2 / 3, 0]
    assert out["coverage"].tolist() == [1, 1]
    assert out["used"].tolist() == [3, 2]


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (
            {"nclusters": [1], "cluster_sizes": 5},
            r"design cell 1 \(nclusters=1, cluster_sizes=5\): 5 units in 1 cluster ",
        ),
        ({"nclusters": [50, -1], "cluster_sizes": 5}, r"design cell 2 \(nclusters=-1"),
        ({"nclusters": 50, "cluster_sizes": 5, "fb ~ w9": 1}, "no parameter 'fb ~ w9'"),
        (
            {"nclusters": 50, "cluster_sizes": 5, "fb ~~ fb.l2": -1},
            "negative variance at the between level of fb",
        ),
        ({"nclusters": 50, "cluster_sizes": 5, "sizes": 1}, "no parameter 'sizes'"),
        ({"nclusters": []}, "has no cell"),
        (pd.DataFrame(), "has no cell"),
        ("many", "a design is a dict"),
        ({"nclusters": 50}, "cluster_sizes"),
        ({"nobs": 50}, "two levels"),
    ],
)
def test_designs_that_cannot_be_are_named_before_anything_is_drawn(grid: object, message: str) -> None:
    with pytest.raises((DataError, ModelError), match=message):
        demo_power(10**9, grid=grid)


def test_mistakes_are_named() -> None:
    grid = {"nclusters": 50, "cluster_sizes": 5}
    with pytest.raises(ValueError, match="alpha"):
        demo_power(alpha=5)
    with pytest.raises(ValueError, match="alpha"):
        demo_power(alpha="5%")
    with pytest.raises(ValueError, match="replications"):
        demo_power(0)
    with pytest.raises(TypeError, match="compiled with its options"):
        msem.power(msem.compile(DEMO), DEMO_POPULATION, grid, information="expected")
    with pytest.raises(TypeError, match="text or a compiled model"):
        msem.power(3, DEMO_POPULATION, grid)
    with pytest.raises(ModelError, match="no value"):
        msem.power(DEMO, DEMO, grid)
    with pytest.raises(DataError, match="one group and the model the groups"):
        msem.power(msem.compile(DEMO, group_labels=["a", "b"]), DEMO_POPULATION, grid)
    with pytest.raises((ModelError, DataError), match="y9"):
        msem.power(DEMO.replace("y3", "y9"), DEMO_POPULATION, grid)


TAILS = "level: 1\n y ~ 0.3*x\n y ~~ 1*y\n x ~~ 1*x\nlevel: 2\n y ~~ 0.5*y"


def test_robust_errors_are_those_of_rows_that_are_drawn() -> None:
    grid, tails = {"nclusters": 200, "cluster_sizes": 5}, msem.NonNormal(skewness=1.5, kurtosis=4)
    arguments = {
        "replications": 300,
        "seed": 5,
        "distribution": tails,
        "cluster": "cluster",
        "progress": False,
    }
    text = "level: 1\n y ~ x\nlevel: 2\n y ~~ y"
    plain = msem.power(text, TAILS, grid, **arguments)
    robust = msem.power(text, TAILS, grid, estimator="MLR", **arguments)
    # the variance of the residual variance is 1 + 4/2 times that of a normal one, as the sandwich knows
    at = plain.fits().names.index("y~~y")
    assert plain.parameters["se_ratio"][at] < 0.8
    assert plain.parameters["coverage"][at] < 0.9
    assert robust.parameters["se_ratio"][at] == pytest.approx(1, abs=0.15)
    assert robust.parameters["coverage"][at] > 0.9
    assert (robust.designs["converged"] == 1).all()
    other = msem.power(text, TAILS, grid, estimator="MLR", threads=2, **arguments)
    pd.testing.assert_frame_equal(robust.parameters, other.parameters, check_exact=True)


@pytest.mark.parametrize(
    ("options", "test"),
    [
        ({"estimator": "MLR"}, "yuan_bentler_mplus"),
        ({"se": "robust", "test": "yuan.bentler"}, "yuan_bentler"),
        ({"test": "hotelling"}, "hotelling"),
        ({"test": "swain"}, "swain"),
        ({"estimator": "WLSMV"}, "scaled_shifted"),
    ],
)
def test_fits_of_power_are_those_of_sem(options: dict[str, str], test: str) -> None:
    grid = {"nclusters": 60, "cluster_sizes": 8}
    found = demo_power(4, grid=grid, cluster="cluster", **options)
    (cell,) = found.cells
    if not cell.rows:
        frames = msem.simulate(
            DEMO_POPULATION, nclusters=60, cluster_sizes=8, seed=11, replications=4, as_="statistics"
        )
    else:
        frames = cell.samples(0, 4)
    given = {"cluster": "cluster"} if cell.rows else {}
    rows = found.fits().fits
    for k, sample in enumerate(frames):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MsemWarning)
            fit = msem.sem(DEMO, sample, **given, **options)
        own = fit.tests().loc[test]
        assert_allclose(
            rows.loc[k, ["chisq", "pvalue"]].astype(float), own[["statistic", "pvalue"]].astype(float)
        )
        assert_allclose(found.fits().bse.iloc[k], fit.bse, rtol=1e-8)


def test_a_wrong_model_may_be_fitted_robustly() -> None:
    grid = {"nclusters": 80, "cluster_sizes": 8}
    wrong = DEMO.replace("fw ~ x1 + x2 + x3", "fw ~ x1 + x2 + 0*x3")
    arguments = {"replications": 20, "seed": 3, "progress": False}
    robust = msem.power(wrong, DEMO_POPULATION, grid, estimator="MLR", **arguments)
    plain = msem.power(wrong, DEMO_POPULATION, grid, **arguments)
    assert robust.designs["misfit"][0] == plain.designs["misfit"][0] > 10
    assert robust.designs["rejected"][0] > 0.5
    assert_allclose(robust.parameters["population"], plain.parameters["population"])


def test_a_cell_without_estimates_is_warned_of() -> None:
    with pytest.warns(
        ConvergenceWarning, match=r"design cell 1 \(nclusters=40, .*none of the 5 samples .* 5 of them"
    ):
        found = demo_power(5, grid={"nclusters": 40, "cluster_sizes": 5}, max_iterations=1)
    assert found.designs["converged"][0] == 0
