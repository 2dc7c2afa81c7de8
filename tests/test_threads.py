"""Threads: none where one is asked for, fewer where the system refuses them, results the same; Ctrl-C is heard."""

import inspect
import json
import resource
import signal
import subprocess
import sys
import time
import warnings
from functools import partial

import numpy as np
import pandas as pd
import pytest

import holes
import msem
from msem import _core

ONE = "level: 1\n f =~ y1 + y2 + y3\nlevel: 2\n g =~ y1 + y2 + y3"


@pytest.fixture(scope="module")
def punched(demo):
    """Rows with holes, more than the core counts as little work."""
    return holes.punched(demo, "y")


@pytest.fixture(scope="module")
def fit(punched):
    return msem.cfa(ONE, punched, cluster="cluster", missing="fiml")


def summarized(demo, punched, fit, threads):
    many = pd.concat([demo] * 200, ignore_index=True)
    return msem.summarize(many, cluster="cluster", variables=["y1", "y2"], threads=threads).nobs


def many_fits(demo, punched, fit, threads):
    model = msem.compile(ONE, cluster="cluster", missing="fiml")
    return model.fit_many([punched, demo, punched], threads=threads, progress=False).to_frame().llf


def powered(demo, punched, fit, threads):
    grid = {"nclusters": 40, "cluster_sizes": 5}
    found = msem.power(ONE, fit, grid, replications=6, seed=1, threads=threads, progress=False)
    return found.parameters.select_dtypes(float)


def bootstrapped(demo, punched, fit, threads):
    return fit.bootstrap(8, seed=1, threads=threads, progress=False).array


def jackknifed(demo, punched, fit, threads):
    return fit.jackknife(threads=threads, progress=False).array


def influential(demo, punched, fit, threads):
    return fit.influence(threads=threads, progress=False).to_frame().select_dtypes(float)


def fitted(function, demo, punched, fit, threads):
    own = function(ONE, punched, cluster="cluster", missing="fiml", threads=threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = own.factor_scores(level=2).to_numpy()
        drawn = own.bootstrap(8, seed=1, progress=False).array
    profiled = own.profile("g =~ y2").frame.select_dtypes(float).to_numpy()
    return np.concatenate(
        [np.ravel(one) for one in (own.params, own.fit_measures(), scores, drawn, profiled)]
    )


def saturated(demo, punched, fit, threads):
    found = msem.saturated(
        punched[["y1", "y2", "cluster"]], cluster="cluster", missing="fiml", threads=threads
    )
    return found.between.cov


def segregated(demo, punched, fit, threads):
    return msem.segregated(ONE, punched, cluster="cluster", missing="fiml", threads=threads).estimates().est


TAKE_THREADS = {
    "sem": partial(fitted, msem.sem),
    "cfa": partial(fitted, msem.cfa),
    "growth": partial(fitted, msem.growth),
    "saturated": saturated,
    "segregated": segregated,
    "summarize": summarized,
    "CompiledModel.fit_many": many_fits,
    "CompiledModel.drawn": powered,
    "power": powered,
    "Fit.bootstrap": bootstrapped,
    "Fit.jackknife": jackknifed,
    "Fit.influence": influential,
}


def test_the_list_is_complete():
    found = set()
    for name, thing in vars(msem).items():
        members = vars(thing) if inspect.isclass(thing) else {}
        named = {f"{name}.{k}": f for c in (thing.__mro__ if members else ()) for k, f in vars(c).items()}
        for label, function in {name: thing, **named}.items():
            if not inspect.isfunction(function) or "._" in label:
                continue
            if "threads" in inspect.signature(function).parameters:
                found.add(label)
    assert found == set(TAKE_THREADS)


@pytest.mark.parametrize("name", TAKE_THREADS)
def test_one_thread_makes_none_and_several_change_nothing(name, demo, punched, fit):
    run, before = TAKE_THREADS[name], _core.threads_made()
    one = run(demo, punched, fit, 1)
    assert _core.threads_made() == before
    several = run(demo, punched, fit, 3)
    assert _core.threads_made() > before
    np.testing.assert_array_equal(np.asarray(several), np.asarray(one))


def test_a_limit_ends_with_its_block(fit):
    whole, core, theta = _core.thread_limit(), fit.objective.core, fit.estimate.theta
    with _core.ThreadLimit(1):
        with _core.ThreadLimit(4):
            assert _core.thread_limit() == 4
        assert _core.thread_limit() == 1
        before = _core.threads_made()
        value = core.value(theta)
        assert _core.threads_made() == before
    assert _core.thread_limit() == whole
    with _core.ThreadLimit(2):
        assert core.value(theta) == value
    with pytest.raises(ValueError, match="at least one"):
        _core.ThreadLimit(0)


FIT = f"""
import json, sys, pandas as pd, msem
from msem import _core
data = pd.read_json(sys.stdin, orient="split")
with _core.ThreadLimit(4):
    fit = msem.cfa({ONE!r}, data, cluster="cluster", missing="fiml")
    drawn = fit.bootstrap(4, seed=1, threads=4, progress=False)
print(json.dumps([_core.threads_made(), fit.llf, drawn.array.tolist()]))
"""


def limited_stacks():
    """Every thread asks for a stack that no machine has, so that the system refuses each."""
    resource.setrlimit(resource.RLIMIT_STACK, (2**46, resource.RLIM_INFINITY))


@pytest.mark.skipif(sys.platform != "linux", reason="the size of stacks is set as Linux does")
def test_refused_threads_are_done_without(punched, fit):
    rows = punched.to_json(orient="split", double_precision=15)
    env = {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": ":".join(sys.path)}
    outputs = [
        subprocess.run(
            [sys.executable, "-c", FIT],
            input=rows,
            capture_output=True,
            text=True,
            check=True,
            env=env,
            preexec_fn=limit,
        ).stdout
        for limit in (None, limited_stacks)
    ]
    (made, *normal), (none, *refused) = map(json.loads, outputs)
    assert made > 0
    assert none == 0
    assert refused == normal


LONG = """
import numpy as np, pandas as pd, msem
rng = np.random.default_rng(0)
codes = np.repeat(np.arange(400), 10)
names = [f"y{i}" for i in range(16)]
both = rng.standard_normal((400, 16))[codes] + rng.standard_normal((4000, 1))
data = pd.DataFrame(both + rng.standard_normal((4000, 16)), columns=names)
data = data.mask(rng.random(data.shape) < 0.2).assign(c=codes)
print("ready", flush=True)
items = " + ".join(names)
try:
    msem.sem(f"level: 1\\n f =~ {items}\\nlevel: 2\\n g =~ {items}\\n", data, cluster="c", missing="fiml")
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
def test_ctrl_c_is_heard_within_seconds():
    env = {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": ":".join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", LONG], stdout=subprocess.PIPE, text=True, env=env
    ) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        sent = time.monotonic()
        try:
            assert process.communicate(timeout=60)[0] == "interrupted\n"
        finally:
            process.kill()
    assert time.monotonic() - sent < 10
