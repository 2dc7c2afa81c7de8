"""The builds of the core for different processors are one program."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from msem import _core

SCRIPT = """
import json, msem
from msem import _core
fit = msem.sem("level: 1\\n f =~ y1 + y2 + y3\\nlevel: 2\\n g =~ y1 + y2 + y3\\n g ~ w1", msem.load_demo(),
               cluster="cluster")
print(json.dumps([_core.Block.__module__, fit.llf, fit.chisq, *fit.params, *fit.bse]))
"""


BUILDS = [b for b in ("baseline", "avx2") if importlib.util.find_spec(f"msem._core_{b}") is not None]


def start(build: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"MSEM_CORE": build}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False
    )


def run(build: str) -> list:
    done = start(build)
    assert not done.returncode, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(
    BUILDS != ["baseline", "avx2"], reason="one build is installed: MSEM_BUILDS=all makes both"
)
def test_builds_agree() -> None:
    plain, best = run("baseline"), run("")
    assert plain[0] == "msem._core_baseline"
    assert best[0] == _core.Block.__module__ or os.environ.get("MSEM_CORE") == "baseline"
    np.testing.assert_allclose(plain[1:], best[1:], rtol=1e-7)


@pytest.mark.skipif("baseline" in BUILDS, reason="there is a build for any processor")
def test_a_missing_build_is_explained() -> None:
    done = start("baseline")
    assert done.returncode
    assert "MSEM_BUILDS=all" in done.stderr.splitlines()[-1]


def test_the_core_is_complete() -> None:
    assert {"Objective", "minimize", "fit_saturated", "two_level_statistics"} <= set(vars(_core))
    with pytest.raises(ValueError, match="slot must be 0, 1 or 2"):
        _core.Block(1, 1, [5], [0], [0], [0], [0.0])
