"""Fits, power analyses and bootstraps by the workers of a client: what they are without one."""

import json
import multiprocessing
import pickle
import warnings
from concurrent.futures import Future, ProcessPoolExecutor

import numpy as np
import pandas as pd
import pytest

import msem
from msem.cli import DEMO_MODEL
from msem.errors import MsemWarning
from msem.resampling.workers import BATCH, spread
from populations import DEMO_POPULATION

DESIGN = {"nclusters": [60, 80], "cluster_sizes": [(5, 10)]}
COUNT = BATCH + 8  # more than a batch


@pytest.fixture(scope="module")
def pool():
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        yield executor


@pytest.fixture(scope="module")
def dask():
    distributed = pytest.importorskip("distributed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cluster = distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
        )
        with cluster, distributed.Client(cluster) as client:
            yield client


@pytest.fixture(params=["pool", "dask"])
def client(request):
    return request.getfixturevalue(request.param)


def quietly(function, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MsemWarning)
        return function(*args, progress=False, **kwargs)


def demo_fit():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MsemWarning)
        return msem.sem(DEMO_MODEL, msem.load_demo(), cluster="cluster")


def statistics():
    return msem.simulate(
        DEMO_POPULATION, nclusters=60, cluster_sizes=(5, 10), seed=5, replications=COUNT, as_="statistics"
    )


class Here:
    """A client that does its work when it is asked for the result, and remembers what was taken back."""

    def __init__(self, stop=None):
        self.stop, self.done, self.cancelled = stop, 0, 0

    def submit(self, function, /, *arguments):
        owner = self

        class Later(Future):
            def result(self, timeout=None):
                if owner.done == owner.stop:
                    raise KeyboardInterrupt
                owner.done += 1
                return function(*arguments)

            def cancel(self):
                owner.cancelled += 1
                return True

        return Later()


def test_fits_of_drawn_samples(client) -> None:
    model, samples = msem.compile(DEMO_MODEL), statistics()
    expected = quietly(model.fit_many, samples, threads=1)
    found = quietly(model.fit_many, samples, client=client)
    pd.testing.assert_frame_equal(found.to_frame(), expected.to_frame(), check_exact=True)


def test_fits_of_given_samples(client) -> None:
    model, samples = msem.compile(DEMO_MODEL), list(statistics())
    samples[3] = {"no": "sample"}
    expected = quietly(model.fit_many, samples, threads=1)
    assert expected.fits["status"][3] == "failed"
    found = quietly(model.fit_many, iter(samples), client=client)
    pd.testing.assert_frame_equal(found.to_frame(), expected.to_frame(), check_exact=True)


def test_power(client, tmp_path) -> None:
    analysis = (DEMO_MODEL, DEMO_POPULATION, DESIGN)
    expected = quietly(msem.power, *analysis, replications=COUNT, seed=3)
    found = quietly(
        msem.power, *analysis, replications=COUNT, seed=3, client=client, resume=tmp_path / "power"
    )
    again = quietly(msem.power, *analysis, replications=COUNT, seed=3, resume=tmp_path / "power")
    for one in (found, again):
        pd.testing.assert_frame_equal(one.parameters, expected.parameters, check_exact=True)
        pd.testing.assert_frame_equal(one.designs, expected.designs, check_exact=True)


@pytest.mark.parametrize("kind", ["ordinary", "parametric"])
def test_bootstraps(client, kind) -> None:
    fit = demo_fit()
    expected = quietly(fit.bootstrap, COUNT, kind=kind, seed=2)
    found = quietly(fit.bootstrap, COUNT, kind=kind, seed=2, client=client)
    pd.testing.assert_frame_equal(found.estimates, expected.estimates, check_exact=True)
    pd.testing.assert_series_equal(found.chisq, expected.chisq, check_exact=True)
    pickle.loads(pickle.dumps(found))  # without the client


@pytest.mark.parametrize("kind", ["ordinary", "parametric"])
def test_bootstraps_with_holes(pool, kind) -> None:
    data = msem.load_demo()
    data.loc[data.index[::7], "y1"] = np.nan
    fit = msem.sem("level: 1\n y1 ~~ y2\nlevel: 2\n y1 ~~ y2", data, cluster="cluster", missing="fiml")
    expected = quietly(fit.bootstrap, 8, kind=kind, seed=2)
    found = quietly(fit.bootstrap, 8, kind=kind, seed=2, client=pool)
    pd.testing.assert_frame_equal(found.estimates, expected.estimates, check_exact=True)


def test_what_is_done_before_an_interruption_is_kept(tmp_path) -> None:
    analysis, path, client = (DEMO_MODEL, DEMO_POPULATION, DESIGN), tmp_path / "power", Here(stop=3)
    with pytest.raises(KeyboardInterrupt):
        quietly(msem.power, *analysis, replications=COUNT, seed=3, client=client, resume=path)
    assert client.cancelled == 1  # the last of four batches
    lines = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    assert [(line["cell"], line["first"], line["last"]) for line in lines] == [
        (0, 0, BATCH),
        (0, BATCH, COUNT),
        (1, 0, BATCH),
    ]
    client = Here()
    found = quietly(msem.power, *analysis, replications=COUNT, seed=3, client=client, resume=path)
    assert client.done == 1
    expected = quietly(msem.power, *analysis, replications=COUNT, seed=3)
    pd.testing.assert_frame_equal(found.parameters, expected.parameters, check_exact=True)


def fails(shared, number):
    if number == 1:
        raise ZeroDivisionError(f"{shared} in work {number}")
    return number


def test_errors_of_workers_are_raised_as_they_are(client) -> None:
    found = spread(client, fails, "trouble", [(0,), (1,), (2,)])
    assert next(found) == 0
    with pytest.raises(ZeroDivisionError, match="trouble in work 1"):
        next(found)


def test_something_else_than_a_client() -> None:
    with pytest.raises(TypeError, match="submit"):
        msem.compile(DEMO_MODEL).fit_many(statistics(), client=4)
    with pytest.raises(TypeError, match="submit"):
        msem.power(DEMO_MODEL, DEMO_POPULATION, DESIGN, client="tcp://host:8786")
    with pytest.raises(TypeError, match="submit"):
        demo_fit().bootstrap(10, client=object())
